"""The file of a job as the body of a request: read in pieces, and known to be the one that settled.

The last piece is held back until the file has been looked at once more. So a server never gets the
whole of a file that was changed while it was read: the request ends before its Content-Length.
"""

import asyncio
import errno
import hmac
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from daemon.errors import SHORTAGE
from daemon.handlers import Job, Outcome
from daemon.handlers.opened import Replaced, open_seen
from daemon.handlers.threads import Threads

T = TypeVar("T")

PIECE = 262_144
# A file up to this size is read at once, where it is opened: a thread for each of the two costs
# twice as much.
LARGE = 1_048_576


class Unreadable(Exception):  # noqa: N818 - what the file is, and read as that
    """The file cannot be read, or is not the one that has settled; `outcome` says it."""

    def __init__(self, why: Replaced | OSError) -> None:
        super().__init__()
        self.outcome = _unread(why)


def _unread(why: Replaced | OSError) -> Outcome:
    if isinstance(why, Replaced):
        return Outcome("retry", str(why))
    short = why.errno in SHORTAGE
    error = f"the file cannot be read: {os.strerror(why.errno or errno.EIO)}"
    return Outcome("defer" if short else "retry", error)


async def opened(job: Job, threads: Threads) -> "Upload":
    """Open the file of a job, in a thread, and read it if it is not large.

    Raises:
        Unreadable: it cannot be read, or what stands there is not what has settled.
    """
    opening = threads.run(partial(_open, job, threads))
    try:
        return await asyncio.shield(opening)
    except (Replaced, OSError) as error:
        raise Unreadable(error) from None
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise


def _open(job: Job, threads: Threads) -> "Upload":
    fd = open_seen(job)
    try:
        upload = Upload(fd, threads)
        if upload.size <= LARGE:
            upload.read()
        return upload  # noqa: TRY300 - the descriptor has found its owner
    except BaseException:
        os.close(fd)
        raise


def _close_late(opening: "asyncio.Future[Upload]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class Upload(AbstractContextManager["Upload"]):
    """An open file, of which `size` bytes are read, in `threads`. It owns the descriptor `fd`.

    `content` is all of a file that is not large. `failed` tells why reading ended early: aiohttp
    wraps what a body raises in errors of its own.
    """

    def __init__(self, fd: int, threads: Threads) -> None:
        self.content: bytes | None = None
        self.failed: Unreadable | None = None
        self._fd = fd
        self._threads = threads
        self._opened = os.fstat(fd)
        self.size = self._opened.st_size
        self._reading: asyncio.Future[Any] | None = None

    async def feed(self, mac: hmac.HMAC) -> None:
        """A first pass over the file, for a signature that is sent before it.

        Raises:
            Unreadable: it cannot be read, or was changed meanwhile.
        """
        for offset in range(0, self.size, PIECE):
            await self._in_thread(partial(self._feed, mac, offset))
        await self._in_thread(self._compare)

    def read(self) -> None:
        """Read the content. Blocks."""
        self.content = self._read(0, self.size)
        self._compare()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file, from its beginning.

        Raises:
            Unreadable: it cannot be read, or was changed; then its last piece is missing.
        """
        for offset in range(0, self.size, PIECE):
            yield await self._in_thread(partial(self._piece, offset))

    def _feed(self, mac: hmac.HMAC, offset: int) -> None:
        mac.update(self._read(offset, PIECE))

    def _piece(self, offset: int) -> bytes:
        piece = self._read(offset, PIECE)
        if offset + PIECE >= self.size:
            self._compare()
        return piece

    def _read(self, offset: int, most: int) -> bytes:
        wanted = min(most, self.size - offset)
        piece = os.pread(self._fd, wanted, offset)
        while len(piece) < wanted:  # a signal, or a network file system, may cut a read short
            more = os.pread(self._fd, wanted - len(piece), offset + len(piece))
            if not more:
                raise Replaced("the file has become shorter while it was read")
            piece += more
        return piece

    def _compare(self) -> None:
        if _state(os.fstat(self._fd)) != _state(self._opened):
            raise Replaced("the file was changed while it was read")

    async def _in_thread(self, read: Callable[[], T]) -> T:
        self._reading = reading = self._threads.run(read)
        try:
            return await asyncio.shield(reading)
        except (Replaced, OSError) as error:
            self.failed = Unreadable(error)
            raise self.failed from None

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the descriptor; after a cancellation, when the thread that reads has come back."""
        if self._reading is None or self._reading.done():
            os.close(self._fd)
        else:
            self._reading.add_done_callback(self._close_late)

    def _close_late(self, reading: asyncio.Future[Any]) -> None:
        if not reading.cancelled():
            reading.exception()  # nobody is left who would want to know
        os.close(self._fd)


def _state(st: os.stat_result) -> tuple[int, int, int]:
    # ctime as well: whoever writes may set mtime back, but not that.
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns
