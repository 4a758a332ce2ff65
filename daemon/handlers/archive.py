"""The folder that files are taken to: held while one is taken, and no other than is expected."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Elsewhere(Exception):  # noqa: N818 - what was found, and read as that
    """Another folder stands there than the one that is known."""


class Guard(Protocol):
    """Knows which folder files are taken to, while it stands at its path and after it has gone."""

    @property
    def is_sure(self) -> bool:
        """Whether there is a folder that `knows` would know."""
        ...

    def knows(self, fd: int) -> bool:
        """Whether an open folder is the one. Blocks.

        Raises:
            OSError: it cannot be told.
        """
        ...

    async def meet(self) -> str | None:
        """Find out what stands there; why nothing may be taken to it, None where it may.

        Raises:
            OSError: it cannot be looked at.
            RuntimeError: nobody is there to look at it just now.
        """
        ...


@contextmanager
def held(base: bytes, guard: Guard | None) -> Iterator[int]:
    """Have the folder open: until the end of this nobody can unmount what is looked at now.

    Raises:
        Elsewhere: it is not the one that the guard knows.
        FileNotFoundError: there is none.
        OSError: it cannot be looked at.
    """
    try:
        # The slash has whatever mounts on demand mount it.
        fd = os.open(base + b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        text = f"there is no folder {os.fsdecode(base)!r}: make it, or mount it"
        raise FileNotFoundError(errno.ENOENT, text) from None
    try:
        if guard is not None and not guard.knows(fd):
            raise Elsewhere
        yield fd
    finally:
        os.close(fd)
