"""What programs say when the daemon that started them is gone: into pipes that have a reader still.

Whoever writes to a pipe that nobody could read from is ended by SIGPIPE; a program that is to be
let finish must not be. So its end of the pipe is open for reading as well. What it says then stays
in the pipe, 64 KB of it, until the next daemon takes it out: of a program that says more the rest
waits, and so does the program.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Self

from daemon.errors import SHORTAGE

_CHUNK = 65_536


def pipe(*, outlives: bool) -> tuple[int, int]:
    """A pipe: our end, and that of a program, which `outlives` us and must not be ended by that.

    What is written to comes to its end when all have closed it, though it could be read from, too.
    Without /proc there is but an ordinary pipe.

    Raises:
        OSError: there are no descriptors left.
    """
    ours, inlet = os.pipe()
    if not outlives:
        return ours, inlet
    try:
        both = os.open(f"/proc/self/fd/{inlet}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in SHORTAGE:
            os.close(ours)
            os.close(inlet)
            raise
        return ours, inlet
    os.close(inlet)
    return ours, both


class Listening:
    """Takes out what programs say that another daemon has started. A context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, int] = {}

    def listen_to(self, pids: Iterable[int]) -> None:
        """To these as well, from now on."""
        for pid in pids:
            for path in _pipes_of(pid):
                with suppress(OSError):
                    self._add(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def _add(self, fd: int) -> None:
        pipe = os.fstat(fd).st_ino
        if pipe in self._pipes:
            os.close(fd)
            return
        self._pipes[pipe] = fd
        self._loop.add_reader(fd, self._take, pipe)

    def _take(self, pipe: int) -> None:
        with suppress(BlockingIOError):
            if not os.read(self._pipes[pipe], _CHUNK):
                self._drop(pipe)

    def _drop(self, pipe: int) -> None:
        fd = self._pipes.pop(pipe)
        self._loop.remove_reader(fd)
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Give all of them back."""
        for pipe in list(self._pipes):
            self._drop(pipe)


def _pipes_of(pid: int) -> Iterator[str]:
    """What a process has open that `pipe` has made: nobody else has such pipes."""
    folder = f"/proc/{pid}"
    with suppress(OSError):
        for number in os.listdir(f"{folder}/fd"):  # noqa: PTH208 - names, which are numbers
            path = f"{folder}/fd/{number}"
            with suppress(OSError):
                if os.readlink(path).startswith("pipe:") and _is_both(f"{folder}/fdinfo/{number}"):  # noqa: PTH115 - no path
                    yield path


def _is_both(info: str) -> bool:
    with open(info, encoding="ascii") as lines:  # noqa: PTH123 - of /proc
        (flags,) = (int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return flags & os.O_ACCMODE == os.O_RDWR
