"""Digests of whole files, read beside the loop.

A digest is of the file that was seen: it is checked by its descriptor before and after, and one
that was written to, replaced or removed meanwhile has none. Files over 64 MiB have a thread of
their own, so that an hour of reading holds up none of the small ones.
"""

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable
from threading import Event
from typing import Protocol, TypeVar

from daemon.core.manifest import ALGORITHMS
from daemon.core.model import Fingerprint
from daemon.engine.disk import OPEN_FLAGS, fingerprint
from daemon.engine.worker import Worker

CONTENT = "blake2b"
LARGE = 64 * 1024 * 1024
_CONTENT_BYTES = 16
_CHUNK = 1024 * 1024
# Nothing is there, or no regular file: a symlink, a socket.
_ANOTHER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
Answer = TypeVar("Answer")


class Hash(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Add to what is hashed."""

    def hexdigest(self) -> str:
        """What it comes to so far."""


class Digests:
    """Two threads that read: one for large files, one for all others."""

    def __init__(self) -> None:
        self._small = Worker("digest")
        self._large = Worker("digest-large")
        self._closed = False

    async def of(self, path: bytes, seen: Fingerprint, algorithm: str = CONTENT) -> str | None:
        """The digest of the file that was seen; None if it is not, or not any more, at this path.

        `blake2b:` and 32 hexadecimal digits identify a content; any other algorithm is one of a
        manifest's and gives the plain digits. After `close`, and when that cuts it short: None.

        Raises:
            OSError: the kernel refuses to open it, or to read on.
        """
        hashed = new_hash(algorithm)

        def work(wanted: Callable[[], bool]) -> str | None:
            return hashed.hexdigest() if feed(path, seen, hashed.update, wanted) else None

        digest = await self._run(seen, work)
        return f"{CONTENT}:{digest}" if digest and algorithm == CONTENT else digest

    async def content(self, path: bytes, seen: Fingerprint, most: int) -> bytes | None:
        """The first `most` bytes of the file that was seen, for what is small; else as `of`."""
        chunks: list[bytes] = []

        def work(wanted: Callable[[], bool]) -> bytes | None:
            return b"".join(chunks) if feed(path, seen, chunks.append, wanted, most) else None

        return await self._run(seen, work)

    async def close(self) -> None:
        """End the threads. What is being read is left at the next chunk, what waits at once."""
        self._closed = True
        await asyncio.gather(self._small.close(), self._large.close())

    async def _run(
        self, seen: Fingerprint, work: Callable[[Callable[[], bool]], Answer | None]
    ) -> Answer | None:
        if self._closed:
            return None
        given_up = Event()
        worker = self._large if seen.size > LARGE else self._small
        try:
            return await worker.run(lambda: work(lambda: not (self._closed or given_up.is_set())))
        finally:
            # Whoever is cancelled while waiting wants no more of a file that takes minutes.
            given_up.set()


def new_hash(algorithm: str) -> Hash:
    """An empty hash: of a content's identity, or of one of `core.manifest.ALGORITHMS`.

    Raises:
        ValueError: there is no such algorithm.
    """
    if algorithm == CONTENT:
        return hashlib.blake2b(digest_size=_CONTENT_BYTES)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"no checksum is called {algorithm!r}")
    if algorithm.startswith("blake2b-"):
        return hashlib.blake2b(digest_size=ALGORITHMS[algorithm] // 2)
    return hashlib.new(algorithm, usedforsecurity=False)


def feed(
    path: bytes,
    seen: Fingerprint,
    take: Callable[[bytes], object],
    wanted: Callable[[], bool],
    most: int | None = None,
) -> bool:
    """Hand `take` the file that was seen, or its first `most` bytes, in chunks. Blocks.

    False when it is not that file, when it changed meanwhile, or is not `wanted` any more: then
    what was taken is worth nothing.
    """
    fd = _open(path) if wanted() else None
    if fd is None:
        return False
    size = seen.size if most is None else min(seen.size, most)
    try:
        return (
            fingerprint(os.fstat(fd)) == seen
            and _hand_on(fd, size, take, wanted)
            and fingerprint(os.fstat(fd)) == seen
        )
    finally:
        os.close(fd)


def _open(path: bytes) -> int | None:
    try:
        return os.open(path, OPEN_FLAGS)
    except OSError as error:
        if error.errno in _ANOTHER:
            return None
        raise


def _hand_on(
    fd: int, left: int, take: Callable[[bytes], object], wanted: Callable[[], bool]
) -> bool:
    """Not more than was seen, or a file that grows as fast as it is read would never end.

    No `posix_fadvise(DONTNEED)`: the file has just been written, and is about to be read by its
    handler; what this reads once, the kernel's own list of pages gives up first.
    """
    while left and wanted():
        chunk = os.read(fd, min(left, _CHUNK))
        if not chunk:
            return False
        take(chunk)
        left -= len(chunk)
    return not left
