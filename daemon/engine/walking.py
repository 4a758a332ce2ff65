"""The walk of a scan: which directories are compared next, and by whom."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from daemon.engine.ahead import ALONE, CHUNK, Ahead, live
from daemon.engine.comparer import Comparer, Crew
from daemon.engine.ledger import Ledger
from daemon.engine.scanning import Differences, Rows, compare_directories
from daemon.engine.trees import Tree

# So many comparisons at once. In the daemon's own thread the rows of one are read meanwhile.
LANES = 2


class Walk:
    """Iterates, while it is entered, over what differs in some subtrees of a tree.

    `ahead` is what was read of the rows before it. `failure`: why a process that should help did
    not.
    """

    def __init__(
        self,
        tree: Tree,
        tops: Sequence[bytes],
        ledger: Ledger,
        crew: Crew,
        ahead: Ahead | None = None,
    ) -> None:
        self._tree = tree
        self._ledger = ledger
        self._crew = crew
        self._ahead = ahead or Ahead(tree, ledger, crew)
        self._waiting = list(tops)
        self._lanes: set[asyncio.Task[Differences]] = set()
        self._seen = 0
        first = self._ahead.comparer
        self._comparers: list[Comparer] = [first] if first else []
        self._idle = list(self._comparers)
        self.failure: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        await asyncio.gather(*map(self._crew.dismiss, self._comparers))

    async def __aiter__(self) -> AsyncIterator[Differences]:
        if b"" in self._waiting:
            # As many as there were the last time.
            self._seen = await live(self._ledger, self._tree)
        while self._waiting or self._lanes:
            while self._waiting and len(self._lanes) < LANES:
                compare = self._compare(taken(self._waiting))
                self._lanes.add(asyncio.create_task(compare))
            done, _ = await asyncio.wait(self._lanes, return_when=asyncio.FIRST_COMPLETED)
            lane = done.pop()
            self._lanes.remove(lane)
            found = lane.result()
            self._seen += found.directories + found.files
            self._waiting += found.unread
            self._waiting += found.folders
            yield found

    async def _compare(self, directories: list[bytes]) -> Differences:
        return await self._compare_elsewhere(directories) or await self._compare_here(directories)

    async def _compare_elsewhere(self, directories: list[bytes]) -> Differences | None:
        """By a process that helps, if there is one by now, and it can."""
        comparer = self._comparer()
        if comparer is None:
            return None
        found = await comparer.compare(directories, self._ahead.of(directories), self._ahead.last)
        self._idle.append(comparer)
        self.failure = self.failure or comparer.failure
        return found

    async def _compare_here(self, directories: list[bytes]) -> Differences:
        rows = await read_rows(self._ledger, self._tree, directories)
        compare = partial(compare_directories, self._tree, directories[: len(rows)], rows)
        found = await self._tree.disk.scan.run(compare)
        found.unread += directories[len(rows) :]
        return found

    def _comparer(self) -> Comparer | None:
        if self._seen < ALONE:
            return None
        if self._idle:
            return self._idle.pop()
        comparer = self._crew.hire(self._tree)
        if comparer is not None:
            self._comparers.append(comparer)
        return comparer


async def read_rows(ledger: Ledger, tree: Tree, directories: Sequence[bytes]) -> list[Rows]:
    """The rows of some directories; of the first ones only, if there are many."""
    known = partial(ledger.store.known, tree.name, directories, by_content=tree.by_content)
    return await ledger.insist("read", known)


def taken(waiting: list[bytes]) -> list[bytes]:
    """The last of them, taken out: depth first, so that few wait."""
    chunk = waiting[-CHUNK:]
    del waiting[-CHUNK:]
    return chunk
