"""What waits for one step: the head of the queue in memory, all the rest in the database."""

import asyncio
from bisect import insort
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from daemon.config_steps import Step
from daemon.core.model import Key, Row
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.store import Queue

# Rows in memory; the rest of the queue costs none. More where they are gone within a second: a
# read of the database costs as much as the handling of ten files.
QUEUE, LONGEST_QUEUE = 64, 512
FAST_SECONDS = 1.0
# With more files than this set aside, no more rows are taken.
ASIDE = 4_096

Answer = TypeVar("Answer")
SortKey = Callable[[Row], Any]
_VALUES: dict[str, SortKey] = {
    "arrival": lambda row: row.at,
    "name": lambda row: (row.key.directory, row.key.name),
    "mtime": lambda row: row.seen.mtime_ns if row.seen else -1,
    "size": lambda row: row.seen.size if row.seen else -1,
}


class Backlog:
    """The next rows of a step in their order, and which rows are in somebody's hands already.

    `claimed`: rows that wait here, start, run, are set aside, or whose outcome is not committed
    yet. The database must not offer them a second time.

    With `per_directory` no more rows of one directory wait, start and run together than that, so
    what is here may always start. Directories take turns: rows of one that is busy are not read.
    """

    def __init__(self, tree: Tree, step: Step, ledger: Ledger) -> None:
        self._ledger = ledger
        self._each = step.per_directory
        self._levels = tree.ranks.levels
        ranked, in_folders = tree.ranks.by_pattern, step.per_directory is not None
        self.source = Queue(tree.name, step.name, tree.watch.order, ranked, in_folders)
        self._key = _sort_key(self.source)
        self.queue: deque[Row] = deque()
        self.claimed: set[Key] = set()
        # The database may hold ready rows that are not claimed and may be started.
        self.more = True
        # What became ready while the database was being read; None: nobody reads.
        self._late: list[Row] | None = None
        self._read_at = -FAST_SECONDS
        self._page = QUEUE
        self._aside: dict[Key, tuple[int, asyncio.TimerHandle]] = {}
        # By directory: how many wait here, start or run.
        self._busy: Counter[bytes] = Counter()
        # By rank: the directory whose turn it is.
        self._turn: dict[int, bytes] = {}

    @property
    def is_empty(self) -> bool:
        """Nothing waits, as far as is known."""
        return not self.queue and not self.more

    def is_low(self, *, room: bool) -> bool:
        """Whether it is time to read more: at the end, or where files go fast, shortly before."""
        if not self.more or len(self._aside) >= ASIDE:
            return False
        if self._page > QUEUE:
            return len(self.queue) <= self._page // 4
        return room and not self.queue

    def offer(self, row: Row) -> None:
        """This row is ready now."""
        key, queue = self._key, self.queue
        if row.key in self._aside and row.version > self._aside[row.key][0]:
            self._bring_back(row.key)
        if self._each and self._busy[row.key.directory] >= self._each:
            return  # whoever leaves the directory has more of it read
        if self._late is not None and len(self._late) < self._page:
            self._late.append(row)
        elif self._late is not None or row.key in self.claimed:
            self.more = True
        elif not self.more and len(queue) < self._page:
            self._claim(row)
        elif key and queue and key(row) < key(queue[-1]):
            self._claim(row)
            if len(queue) > self._page:
                self._unclaim(queue.pop().key)
                self.more = True
        else:
            self.more = True

    def take(self, turn: int = 0) -> Row:
        """The next row, or with a turn another one each time. There has to be one."""
        at = turn % len(self.queue)
        row = self.queue[at]
        del self.queue[at]
        return row

    def hold(self, key: Key) -> None:
        """This row runs, whoever asked for that."""
        if key not in self.claimed:
            self._count(key, 1)
            self.claimed.add(key)

    def release(self, key: Key) -> None:
        """What became of this row is committed; unless it is set aside it may be offered again."""
        if key in self.claimed and key not in self._aside:
            self._unclaim(key)
            # There may be others that waited for their directory.
            self.more = self.more or self._each is not None

    def put_back(self, key: Key) -> None:
        """This row was not started: have the database offer it again."""
        self._unclaim(key)
        self.more = True

    def set_aside(self, key: Key, version: int, seconds: float, then: Callable[[], object]) -> None:
        """Leave a claimed row alone for so long, and then call `then`.

        Until then, or until it becomes ready at a later version than this: it is not what it was.
        """
        if key in self._aside or key not in self.claimed:
            return
        self._count(key, -1)
        self.more = self.more or self._each is not None

        def end() -> None:
            self._bring_back(key)
            then()

        self._aside[key] = version, asyncio.get_running_loop().call_later(seconds, end)

    def bring_all_back(self) -> None:
        """Nobody is left alone any more."""
        for key in list(self._aside):
            self._bring_back(key)

    async def refill(self) -> None:
        """Take the next rows from the database, without those that are here already."""
        now = asyncio.get_running_loop().time()
        is_fast = now - self._read_at < FAST_SECONDS
        self._page = min(2 * self._page, LONGEST_QUEUE) if is_fast else QUEUE
        self._read_at = now
        # Before the read: what becomes ready while it runs may be missing from its answer.
        self.more, self._late = False, []
        try:
            if self._each is None:
                await self._refill()
            else:
                await self._refill_by_directory(self._each)
        finally:
            late, self._late = self._late, None
            for row in late:
                if row.key not in self.claimed:
                    self.offer(row)

    async def _refill(self) -> None:
        limit = self._page + len(self.claimed)
        rows = await self._read(lambda: self._ledger.store.ready(self.source, limit))
        self.more = self.more or len(rows) == limit
        for row in rows:
            if row.key in self.claimed:
                continue
            if len(self.queue) >= self._page:
                self.more = True
                break
            self._claim(row)

    async def _refill_by_directory(self, each: int) -> None:
        """The most urgent first; of those, once round the directories from where it ended last."""
        # A directory that becomes free meanwhile waits for the next read: this one may have passed
        # more urgent files of it than those that are to come.
        places = {directory: each - count for directory, count in self._busy.items()}
        for rank in self._levels:
            start = self._turn.get(rank, b"")
            found = await self._refill_range(rank, each, places, start, None)
            found += await self._refill_range(rank, each, places, b"", start)
            if found:
                self.more = True
                return

    async def _refill_range(
        self, rank: int, each: int, places: dict[bytes, int], first: bytes, end: bytes | None
    ) -> int:
        """Claim rows of the directories from `first` up to `end`; how many there were."""
        count = 0
        # No more than has room: of a thousand files each in 512 directories half a million.
        most = min(each, self._page)
        folders = -(-self._page // most)
        # Some of what is read may be claimed already.
        claimed = self._busy + Counter(key.directory for key in self._aside)
        while (end is None or first < end) and len(self.queue) < self._page:
            read = self._ledger.store.ready_in_folders
            ask = partial(read, self.source, rank, first, folders, most, claimed)
            found = await self._read(ask)
            for directory, rows in found.items():
                if len(self.queue) >= self._page:
                    break
                room = min(each - self._busy[directory], places.get(directory, each))
                count += self._claim_some(rows, room)
                first = self._turn[rank] = directory + b"\0"
            else:
                if len(found) < folders:
                    break
        return count

    def _claim_some(self, rows: list[Row], most: int) -> int:
        taken = [row for row in rows if row.key not in self.claimed][: max(0, most)]
        for row in taken:
            self._claim(row)
        return len(taken)

    async def _read(self, read: Callable[[], Awaitable[Answer]]) -> Answer:
        return await self._ledger.insist("read", read)

    def _claim(self, row: Row) -> None:
        # Its start asks for this row again: without that a second read for every file.
        self._ledger.remember(row)
        self.claimed.add(row.key)
        self._count(row.key, 1)
        if self._key:
            insort(self.queue, row, key=self._key)
        else:
            self.queue.append(row)

    def _unclaim(self, key: Key) -> None:
        if key in self.claimed:
            self.claimed.discard(key)
            if (aside := self._aside.pop(key, None)) is None:
                self._count(key, -1)
            else:
                aside[1].cancel()

    def _bring_back(self, key: Key) -> None:
        self._unclaim(key)
        self.more = True

    def _count(self, key: Key, by: int) -> None:
        if self._each is not None:
            directory = key.directory
            self._busy[directory] += by
            if self._busy[directory] <= 0:
                del self._busy[directory]


def _sort_key(queue: Queue) -> SortKey | None:
    """How rows compare that are not simply appended: by rank, and then as the watch says."""
    if queue.in_folders:
        return (lambda row: row.rank) if queue.ranked else None
    if queue.index_name is None:
        return None
    value = _VALUES[queue.order]
    return lambda row: (row.rank, value(row), row.id)
