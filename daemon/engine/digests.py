"""Digests of whole files, read beside the loop.

A digest is of the file that was seen: it is checked by its descriptor before and after, and one
that was written to, replaced or removed meanwhile has none. Files over 64 MiB have a thread of
their own, so that an hour of reading holds up none of the small ones.
"""

import asyncio
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from daemon.core.model import Fingerprint
from daemon.engine.line import Line
from daemon.engine.reading import CONTENT, feed, new_hash

LARGE = 64 * 1024 * 1024
# A mebibyte may come over a slow line. Nobody is held up meanwhile but files of the same tree.
ANSWER_SECONDS = 30.0
Answer = TypeVar("Answer")


class Digests:
    """Two threads that read a tree: one for large files, one for all others."""

    def __init__(self, name: str = "") -> None:
        self._small = Line(f"digest-{name}", ANSWER_SECONDS)
        self._large = Line(f"digests-{name}", ANSWER_SECONDS)
        self._closed = False

    async def of(self, path: bytes, seen: Fingerprint, algorithm: str = CONTENT) -> str | None:
        """The digest of the file that was seen; None if it is not, or not any more, at this path.

        `blake2b:` and 32 hexadecimal digits identify a content; any other algorithm is one of a
        manifest's and gives the plain digits. After `close`, and when that cuts it short: None.

        Raises:
            OSError: the kernel refuses to open it, or to read on; `NoAnswer`: it does not answer.
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
        line = self._large if seen.size > LARGE else self._small

        def wanted() -> bool:
            line.go_on()
            return not (self._closed or given_up.is_set())

        try:
            return await line.run(lambda: work(wanted))
        finally:
            # Whoever is cancelled while waiting wants no more of a file that takes minutes.
            given_up.set()
