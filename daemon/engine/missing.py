"""Which rows have no file: what a scan finds out last, for whatever is there may explain it."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from daemon.engine.ahead import directories_of
from daemon.engine.ledger import Ledger
from daemon.engine.scanning import missing_in, vanished
from daemon.engine.trees import Tree
from daemon.engine.walking import read_rows, taken

# Paths in memory that are missing.
KEPT = 50_000


class Missing:
    """Asks the disk for the files of rows, page by page."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def directories(self, tree: Tree, top: bytes) -> list[bytes]:
        """Directories at or below `top` with rows that are off the disk: no listing has them."""
        found: list[bytes] = []
        if top:
            found += await tree.disk.scan.run(partial(vanished, tree, [top]))
        bounds = (top + b"/", top + b"0") if top else (b"\0",)
        async for page in directories_of(self._ledger, tree, *bounds):
            found += await tree.disk.scan.run(partial(vanished, tree, page))
        return found

    async def all(self, tree: Tree, directories: Sequence[bytes]) -> set[bytes] | None:
        """None: so many that they are not kept; then there is more amiss than a rename."""
        found: set[bytes] = set()
        async for missing in self._pages(tree, directories):
            found.update(missing)
            if len(found) > KEPT:
                return None
        return found

    async def still(
        self, tree: Tree, directories: Sequence[bytes], before: set[bytes] | None
    ) -> AsyncIterator[list[bytes]]:
        """Those that are missing now and were so `before`, where that was kept."""
        async for missing in self._pages(tree, directories):
            yield missing if before is None else [path for path in missing if path in before]

    async def _pages(self, tree: Tree, directories: Sequence[bytes]) -> AsyncIterator[list[bytes]]:
        waiting = list(directories)
        while waiting:
            chunk = taken(waiting)
            rows = await read_rows(self._ledger, tree, chunk)
            waiting += chunk[len(rows) :]
            yield await tree.disk.scan.run(partial(missing_in, tree, chunk[: len(rows)], rows))
