"""The log, as a projection of the ledger: every committed transition has its line, in order.

The journal remembers in the database how far it has got. After a crash the lines still owed are
written first, so a line may come twice, and is never missing.
"""

import asyncio
import errno
from collections import deque
from typing import Any

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


class Journal:
    """Renders lines at once, writes them from its own task, and catches up from the database."""

    def __init__(self, output: Output, store: Store, position: int, level: str, node: str) -> None:
        self._output = output
        self._store = store
        self._node = node
        logger = make_logger(level, self._append)
        self._write_at = {name: getattr(logger, name) for name in LEVELS}
        self._lines: deque[tuple[bytes, int | None]] = deque()
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
        self.error: OSError | None = None

    @property
    def position(self) -> int:
        """The `seq` up to which every transition has its line."""
        return self._position

    def committed(self, records: list[Record]) -> None:
        """These are in the database now."""
        self._commits += 1
        if len(self._lines) + len(records) > BUFFER:
            self._behind = True
        if not self._behind:
            self._render(records)
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
            if self._lines:
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
        if len(self._lines) > 2 * BUFFER:
            self._dropped += 1
        else:
            self._write_at[level](event, **fields)
        self._rouse()

    def _rouse(self) -> None:
        self.caught_up.clear()
        self._wake.set()

    def _append(self, line: bytes, seq: int | None) -> None:
        if self.error is None:
            self._lines.append((line, seq))

    def _render(self, records: list[Record]) -> None:
        for record in records:
            if record.seq <= self._rendered:
                # Read back from the database before its writer told us of it.
                continue
            self._write_at[level_of(record)](record.event, _record=record)
            self._rendered = record.seq

    async def _catch_up(self) -> None:
        commits = self._commits
        try:
            records = await self._store.owed(self._rendered, OWED_BATCH)
        except StoreUnavailable:
            # The ledger says so on the log; here it is enough to come back.
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._render(records)
        # Whatever was committed while we read is in the database only: read once more.
        self._behind = len(records) == OWED_BATCH or commits != self._commits

    async def _write(self) -> None:
        """Write what waits, as one chunk; it leaves the buffer only when the kernel has it."""
        lines = [self._lines[i] for i in range(min(len(self._lines), OWED_BATCH))]
        upto = self._rendered if len(lines) == len(self._lines) else lines[-1][1]
        try:
            await self._output.write(b"".join(line for line, _ in lines))
        except OSError as error:
            await self._cannot_write(error)
            return
        for _ in lines:
            self._lines.popleft()
        self._position = max(self._position, upto or 0)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.daemon("degraded", "warning", reason="the log's reader stalled", dropped=dropped)

    async def _cannot_write(self, error: OSError) -> None:
        """A full disk may have room again; a closed pipe is the end of the log, not of the work."""
        if error.errno not in _GONE:
            await asyncio.sleep(RETRY_SECONDS)
            return
        self.error = error
        self._lines.clear()
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
