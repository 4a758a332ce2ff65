"""Where the lines go: a descriptor, and a thread that may block on it so that the loop does not."""

import asyncio
import os
import threading
from pathlib import Path
from queue import SimpleQueue


class Output:
    """Writes chunks in order.

    The thread is a daemon thread: a reader that stalls for ever must not keep the process alive.
    """

    def __init__(self, fd: int, *, owned: bool = False) -> None:
        self._fd = fd
        self._owned = owned
        self._chunks: SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
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
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._chunks.put((chunk, written))
        await written

    async def close(self) -> None:
        """End the thread. Only for an output whose last `write` has returned."""
        self._chunks.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._owned:
            os.close(self._fd)

    def _work(self) -> None:
        while (item := self._chunks.get()) is not None:
            chunk, written = item
            try:
                self._write_all(chunk)
            except OSError as error:
                _tell(written, error)
            else:
                _tell(written, None)

    def _write_all(self, chunk: bytes) -> None:
        """A chunk that broke off is written again whole, from the start of a line."""
        rest = memoryview(b"\n" + chunk if self._torn else chunk)
        while rest:
            count = os.write(self._fd, rest)
            self._torn = rest[count - 1] != ord("\n")
            rest = rest[count:]


def _tell(written: asyncio.Future[None], error: OSError | None) -> None:
    def settle() -> None:
        if written.done():
            return
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)

    loop = written.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
