"""A process that compares directories for a large scan, beside the interpreter of the daemon.

`compare_child` is its program. Whatever it cannot do is left to the daemon's own thread.
"""

import asyncio
import subprocess
from collections.abc import Sequence
from functools import partial

from daemon.engine.compare_child import receive, send
from daemon.engine.programs import PACKAGES, PYTHON, program
from daemon.engine.scanning import Differences, sift
from daemon.engine.trees import Tree
from daemon.engine.worker import Worker
from daemon.store import Reading

_PROGRAM = program("daemon.engine.compare_child")


class Comparer:
    """One such process, for one tree; started with the first thing that it is asked.

    `failure`: why it is of no more use; it is not started again.
    """

    def __init__(self, tree: Tree, reading: Reading) -> None:
        self._tree = tree
        self._task = (*reading, tree.name, tree.root)
        self._worker = Worker("comparer")
        self._process: subprocess.Popen[bytes] | None = None
        self.failure: str | None = None

    def compare(self, directories: Sequence[bytes]) -> asyncio.Future[Differences | None]:
        """Resolves to what differs in these directories; to None if it cannot tell."""
        return self._worker.run(partial(self._compare, list(directories)))

    async def close(self) -> None:
        """End the process, whatever it does: it only reads."""
        if self._process is not None:
            self._process.kill()
        self._worker.run(self._end)
        await self._worker.close()

    def _compare(self, directories: list[bytes]) -> Differences | None:
        if self.failure is not None:
            return None
        try:
            process = self._process or self._start()
            send(process.stdin, directories)
            listing = receive(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            self.failure = str(error)
            return None
        return None if listing is None else sift(self._tree, listing)

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
        # Leaving it closes the pipes and waits for it.
        if self._process is not None:
            with self._process as process:
                process.kill()
