"""The log, as a projection of the ledger: every committed transition has its line, in order.

The journal remembers in the database how far it has got. After a crash the lines still owed are
written first, so a line may come twice, and is never missing.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from daemon.core.model import Key, Record, Refused, Row, Trigger
from daemon.core.texts import path_fields
from daemon.engine.lines import (
    LEVELS,
    fields_of_attempt,
    level_of,
    make_logger,
)
from daemon.engine.output import Output
from daemon.errors import StoreUnavailable
from daemon.store import Store

# Lines in memory; past that, transitions are read back from the database once the reader reads on.
BUFFER = 10_000
OWED_BATCH = 1_000
RETRY_SECONDS = 1.0
# The position is stored with the next commit; when none comes, after this long.
MARK_SECONDS = 0.25
# With these the output will not come back; anything else (a full disk) may.
_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN})


class Chunk(NamedTuple):
    """Lines to be written in one piece. `seq`: of the last transition in it, if there is any."""

    text: bytes
    lines: int
    seq: int | None = None


class Journal:
    """Renders lines at once, writes them from its own task, and catches up from the database."""

    def __init__(self, output: Output, store: Store, position: int, level: str, node: str) -> None:
        self._output = output
        self._store = store
        self._node = node
        logger = make_logger(level, self._append)
        self._write_at = {name: getattr(logger, name) for name in LEVELS}
        self._rendered_now: list[bytes] = []
        logger = make_logger(level, self._rendered_now.append)
        self._render_at = {name: getattr(logger, name) for name in LEVELS}
        self._chunks: deque[Chunk] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        # Set while every line there is has been written, or the output is gone.
        self.caught_up = asyncio.Event()
        self._position = self._rendered = self._marked = position
        # What a former run still owes comes first.
        self._behind = True
        self._commits = 0
        self._dropped = 0
        self._closing = False
        self._ignored: set[Key] | None = set() if level == "debug" else None
        self._news: list[asyncio.Event] = []
        self.error: OSError | None = None

    @property
    def position(self) -> int:
        """The `seq` up to which every transition has its line."""
        return self._position

    def render(self, records: Sequence[Record]) -> bytes | None:
        """The lines that these will have once they are committed; None while they are not wanted.

        So that it can be done while the commit waits for the disk, which has nothing to do with it.
        """
        if self._behind or self.error is not None:
            return None
        for level, group in groupby(records, level_of):
            self._render_at[level]("", _records=list(group))
        lines = b"".join(self._rendered_now)
        self._rendered_now.clear()
        return lines

    def committed(self, records: Sequence[Record], lines: bytes | None = None) -> None:
        """These are in the database now; `lines` is what `render` gave for them."""
        self._commits += 1
        if self._waiting + len(records) > BUFFER:
            self._behind = True
        if not self._behind:
            self._take(records, lines)
        self._rouse()

    def doubtful(self) -> None:
        """A commit ended in an error: only the database knows what it holds."""
        self._behind = True
        self._commits += 1
        self._rouse()

    def refused(self, trigger: Trigger, row: Row, refused: Refused, attempt_id: str) -> None:
        """The life cycle did not allow this attempt."""
        reason = {"outcome": "rejected", "guard": refused.guard, "guard_result": False}
        fields = fields_of_attempt(trigger, row, attempt_id, self._node)
        self._say("info", trigger.event, **{**fields, **reason, "error": refused.reason})

    def failed(self, trigger: Trigger, row: Row, error: str, attempt_id: str) -> None:
        """This attempt ended in an error of ours, and changed nothing that we know of."""
        fields = fields_of_attempt(trigger, row, attempt_id, self._node)
        self._say("error", trigger.event, **{**fields, "outcome": "failed", "error": error})

    def daemon(self, name: str, level: str = "info", **fields: Any) -> None:  # noqa: ANN401
        """A line about the daemon itself: `daemon.` and the name, with that event's own fields."""
        self._say(level, f"daemon.{name}", node=self._node, **fields)
        for event in self._news:
            event.set()

    def subscribe(self) -> asyncio.Event:
        """Set at each line about the daemon itself; whoever asked for it clears it."""
        self._news.append(asyncio.Event())
        return self._news[-1]

    def ignored(self, key: Key, kind: str) -> None:
        """A name that is no regular file: said once, at debug, and only then remembered."""
        if self._ignored is None or key in self._ignored or len(self._ignored) >= BUFFER:
            return
        self._ignored.add(key)
        fields = path_fields("path", key.path)
        self.daemon(
            "ignored", "debug", watch=key.watch, **fields, reason=f"not a regular file: {kind}"
        )

    def close(self) -> None:
        """Let `run` return when all is written."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Write lines until closed; catch up from the database whenever it is behind."""
        while True:
            if self._chunks:
                await self._write()
            elif self.error is None and self._behind:
                await self._catch_up()
            elif self.error is None and self._position < self._rendered:
                # Lines that the level leaves out are accounted for as well.
                self._position = self._rendered
            elif self._position > self._marked:
                await self._mark()
            elif self._closing:
                break
            else:
                self.caught_up.set()
                self._wake.clear()
                await self._wake.wait()
        await self._output.close()

    def _say(self, level: str, event: str, **fields: Any) -> None:  # noqa: ANN401
        """Write what is in no database. When nobody reads, it is counted, not kept."""
        if self._waiting > 2 * BUFFER:
            self._dropped += 1
        else:
            self._write_at[level](event, **fields)
        self._rouse()

    def _rouse(self) -> None:
        self.caught_up.clear()
        self._wake.set()

    def _append(self, line: bytes) -> None:
        self._keep(Chunk(line, 1))

    def _keep(self, chunk: Chunk) -> None:
        # Lines that the level leaves out are not there.
        if self.error is None and chunk.text:
            self._chunks.append(chunk)
            self._waiting += chunk.lines

    def _take(self, records: Sequence[Record], lines: bytes | None) -> None:
        if records and records[0].seq <= self._rendered:
            # Read back from the database before their writer told us of them.
            records, lines = [each for each in records if each.seq > self._rendered], None
        if not records:
            return
        if lines is None:
            lines = self.render(records) or b""
        self._rendered = records[-1].seq
        self._keep(Chunk(lines, len(records), self._rendered))

    async def _catch_up(self) -> None:
        commits = self._commits
        try:
            records = await self._store.owed(self._rendered, OWED_BATCH)
        except StoreUnavailable:
            # The ledger says so on the log; here it is enough to come back.
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._behind = False
        self._take(records, None)
        # Whatever was committed while we read is in the database only: read once more.
        self._behind = len(records) == OWED_BATCH or commits != self._commits

    async def _write(self) -> None:
        """Write what waits, as one piece; it leaves the buffer only when the kernel has it."""
        chunks, count = [], 0
        for chunk in self._chunks:
            if count >= OWED_BATCH:
                break
            chunks.append(chunk)
            count += chunk.lines
        written = max((chunk.seq or 0 for chunk in chunks), default=0)
        upto = self._rendered if len(chunks) == len(self._chunks) else written
        try:
            await self._output.write(b"".join([chunk.text for chunk in chunks]))
        except OSError as error:
            await self._cannot_write(error)
            return
        for _ in chunks:
            self._chunks.popleft()
        self._waiting -= count
        self._position = max(self._position, upto)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.daemon("degraded", "warning", reason="the log's reader stalled", dropped=dropped)

    async def _cannot_write(self, error: OSError) -> None:
        """A full disk may have room again; a closed pipe is the end of the log, not of the work."""
        if error.errno not in _GONE:
            await asyncio.sleep(RETRY_SECONDS)
            return
        self.error = error
        self._chunks.clear()
        self._waiting = 0
        self._behind = True

    async def _mark(self) -> None:
        """Store the position if no commit takes it along, so that a crash repeats few lines."""
        if not self._closing:
            self.caught_up.set()
            self._wake.clear()
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that meets the wake-up.
                async with asyncio.timeout(MARK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            else:
                return
        try:
            await self._store.mark_journaled(self._position)
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            self._marked = self._position
