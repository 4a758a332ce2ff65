"""A process that compares directories for a large scan, beside the interpreter of the daemon.

`compare_child` is its program. Whatever it cannot do is left to the daemon's own thread.
"""

import asyncio
import subprocess
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.engine.compare_child import receive, send
from daemon.engine.programs import PACKAGES, PYTHON, program
from daemon.engine.scanning import Differences, sift
from daemon.engine.trees import Tree
from daemon.engine.worker import Worker
from daemon.store import Access, Store

if TYPE_CHECKING:
    from daemon.engine.listing import Summary

# Processes at a time, whatever there is to scan.
MOST = 2
_PROGRAM = program("daemon.engine.compare_child")


class Comparer:
    """One such process, for one tree; started with the first thing that it is asked.

    `failure`: why it is of no more use; it is not started again.
    """

    def __init__(self, tree: Tree, access: Access) -> None:
        self._tree = tree
        self._task = (*access, tree.name, tree.root)
        self._worker = Worker("comparer")
        self._process: subprocess.Popen[bytes] | None = None
        self.failure: str | None = None

    def compare(
        self, directories: list[bytes], summaries: "dict[bytes, Summary]", last: int | None
    ) -> asyncio.Future[Differences | None]:
        """Resolves to what differs in these directories; to None if it cannot tell.

        The summaries are some of those that `summarize` gave, and `last` came with them.
        """
        request = "compare", directories, summaries, last
        return self._worker.run(lambda: self._sifted(self._ask(*request)))

    def summarize(
        self, directories: list[bytes]
    ) -> "asyncio.Future[tuple[int | None, list[Summary | None]] | None]":
        """Resolves to the last transition, and to what the rows of each directory show."""
        return self._worker.run(partial(self._ask, "summarize", directories))

    async def close(self) -> None:
        """End the process, whatever it does: it only reads."""
        if self._process is not None:
            self._process.kill()
        self._worker.run(self._end)
        await self._worker.close()

    def _sifted(self, listing: dict[str, Any] | None) -> Differences | None:
        return None if listing is None else sift(self._tree, listing)

    def _ask(self, *request: Any) -> Any:  # noqa: ANN401 - see `compare_child`
        if self.failure is not None:
            return None
        try:
            process = self._process or self._start()
            send(process.stdin, request)
            return receive(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            self.failure = str(error)
            return None

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            (*PYTHON, _PROGRAM, PACKAGES),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self._process = process
        send(process.stdin, self._task)
        return process

    def _end(self) -> None:
        if self._process is not None:
            # Leaving it closes the pipes, one of which may have more in it than will be read.
            with suppress(BrokenPipeError), self._process as process:
                process.kill()


class Crew:
    """The comparers of all scans together: so many, for each takes 14 MB."""

    def __init__(self, store: Store, most: int = MOST) -> None:
        self._store = store
        self._free = most

    def hire(self, tree: Tree) -> Comparer | None:
        """One more for this tree, if there is one to be had."""
        access = self._store.access(by_content=tree.by_content)
        if access is None or not self._free:
            return None
        self._free -= 1
        return Comparer(tree, access)

    async def dismiss(self, comparer: Comparer) -> None:
        """End one."""
        try:
            await comparer.close()
        finally:
            self._free += 1
