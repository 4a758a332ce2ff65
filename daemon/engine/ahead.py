"""What can be done of a scan before it may begin: the rows are read while the watches are set.

No directory may be listed before it is watched, or a change in between would be seen by nobody.
But rows change by transitions only, and whether there was one is easily asked.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from daemon.engine.comparer import Comparer, Crew
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree

if TYPE_CHECKING:
    from daemon.engine.listing import Summary

# Directories that are read and compared in one go.
CHUNK = 64
# Directories with rows that are asked for in one go.
PAGE = 1_000
# A scan of more than so many files and directories gets processes that help: their start takes as
# long as 5,000 files do.
ALONE = 20_000
# Directories whose summaries are kept, 200 bytes each.
MOST = 100_000
# Sorts after every path: no component of one has more than 255 bytes.
_END = b"\xff" * 256


class Ahead:
    """Summaries of a tree's rows, by directory, and the process that has made them.

    They are of the moment when `last` was the last transition, and of no use after another one.
    """

    def __init__(self, tree: Tree, ledger: Ledger, crew: Crew) -> None:
        self._tree = tree
        self._ledger = ledger
        self._crew = crew
        self._summaries: dict[bytes, Summary] = {}
        self.last: int | None = None
        self.comparer: Comparer | None = None

    async def read(self) -> None:
        """Read what a large tree has, until that is all, too much, or not what it was."""
        # By content the ctime counts as well, but not that of every file.
        if self._tree.by_content or await live(self._ledger, self._tree) < ALONE:
            return
        self.comparer = self._crew.hire(self._tree)
        if self.comparer is None:
            return
        async for page in directories_of(self._ledger, self._tree):
            for start in range(0, len(page), CHUNK):
                if not await self._take_up(self.comparer, page[start : start + CHUNK]):
                    return

    def of(self, directories: Sequence[bytes]) -> "dict[bytes, Summary]":
        """Those of some directories, as far as there are any."""
        found = self._summaries
        return {path: found[path] for path in directories if path in found}

    async def close(self) -> None:
        """End the process."""
        if self.comparer is not None:
            await self._crew.dismiss(self.comparer)

    async def _take_up(self, comparer: Comparer, directories: list[bytes]) -> bool:
        answer = await comparer.summarize(directories)
        if answer is None:
            return False
        last, summaries = answer
        if self._summaries and last != self.last:
            self._summaries.clear()
            return False
        self.last = last
        each = zip(directories, summaries, strict=True)
        self._summaries.update({path: summary for path, summary in each if summary is not None})
        return len(self._summaries) < MOST


async def live(ledger: Ledger, tree: Tree) -> int:
    """How many files the tree had when it was last looked at."""
    return await ledger.insist("read", partial(ledger.store.live, tree.name))


async def directories_of(
    ledger: Ledger, tree: Tree, first: bytes = b"", end: bytes = _END
) -> AsyncIterator[list[bytes]]:
    """The directories that have rows, in the order of bytes, page by page."""
    store = ledger.store
    while page := await ledger.insist(
        "read", partial(store.directories, tree.name, first, end, PAGE)
    ):
        yield page
        first = page[-1] + b"\0"
