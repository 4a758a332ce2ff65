"""Reads files whole, as they were seen. Blocks, and runs in threads or in another process."""

import errno
import hashlib
import os
from collections.abc import Callable
from typing import Protocol

from daemon.core.manifest import ALGORITHMS
from daemon.core.model import Fingerprint
from daemon.engine.disk import fingerprint
from daemon.engine.sight import OPEN_FLAGS

CONTENT = "blake2b"
_CONTENT_BYTES = 16
_CHUNK = 1024 * 1024
# Nothing is there, or no regular file: a symlink, a socket.
_ANOTHER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


class Hash(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Add to what is hashed."""

    def hexdigest(self) -> str:
        """What it comes to so far."""


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
