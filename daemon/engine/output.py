"""Where the lines go: a descriptor, and a thread that may block on it so that the loop does not."""

import os
import select
from pathlib import Path

from daemon.engine.worker import Worker


def occupy_standard_descriptors() -> None:
    """Put something in the place of those of 0, 1 and 2 that are closed.

    The next file to be opened would take the number, and the log would be written into the
    database. Open for reading only: a write fails as on a closed one, and its lines are owed.
    """
    while (fd := os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) <= 2:  # noqa: PLR2004 - stderr
        pass
    os.close(fd)


class Output:
    """Writes chunks in order."""

    def __init__(self, fd: int, *, owned: bool = False) -> None:
        self._fd = fd
        self._owned = owned
        self._worker = Worker("journal")
        self._torn = False

    @classmethod
    def to(cls, output: str) -> "Output":
        """`stdout`, or a file to append to. A torn last line, from a full disk, is ended first.

        Raises:
            OSError: the file cannot be opened for appending.
        """
        if output == "stdout":
            return cls(1)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(Path(output), flags, 0o640)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")
        return cls(fd, owned=True)

    async def write(self, chunk: bytes) -> None:
        """Returns when the kernel has all of it.

        Raises:
            OSError: it has not, and part of the chunk may have been written.
        """
        await self._worker.run(lambda: self._write_all(chunk))

    async def close(self) -> None:
        """End the thread. Only for an output whose last `write` has returned."""
        await self._worker.close()
        if self._owned:
            os.close(self._fd)

    def _write_all(self, chunk: bytes) -> None:
        """A chunk that broke off is written again whole, from the start of a line."""
        rest = memoryview(b"\n" + chunk if self._torn else chunk)
        while rest:
            try:
                count = os.write(self._fd, rest)
            except BlockingIOError:
                # A pipe that another process made non-blocking is waited for all the same.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
                continue
            self._torn = rest[count - 1] != ord("\n")
            rest = rest[count:]
