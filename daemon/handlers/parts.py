"""On record: what is written under a passing name, so that the next start removes what a kill left.

Whoever tries again for the same file takes the same name, and leaves nothing of the last try. But
there may be no other try: the file was replaced or is gone for good, or goes elsewhere by now.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.core.hidden import digest, hidden, is_hidden

NAME = "parts"


def part_in(folder: bytes, *what: bytes) -> bytes:
    """Where something is written that gets its name when it is complete.

    `what` it is and nothing else: so the next try takes the same, and leaves nothing of the last.
    """
    host = os.fsencode(os.uname().nodename)  # others may write to the folder as well
    return folder + b"/" + hidden("part", host, *what)


class Parts:
    """A folder in the state folder, with a symbolic link to each part for as long as it is one.

    The link is on the disk before the part is: an archive on another machine outlives a power cut
    of this one. Without a folder nothing is on record.
    """

    def __init__(self, folder: int = -1) -> None:
        self._folder = folder

    @classmethod
    def open(cls, state_dir: Path) -> "Parts":
        """The record in a state folder, which this process must hold.

        Raises:
            OSError: it cannot be made or opened.
        """
        with suppress(FileExistsError):
            os.mkdir(state_dir / NAME, 0o700)  # noqa: PTH102 - `Path.mkdir` takes a link for one
        return cls(os.open(state_dir / NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))

    @contextmanager
    def writing(self, part: bytes) -> Iterator[None]:
        """Have a part on record while it is written, and longer if it is there afterwards. Blocks.

        Where that cannot be kept, on a full disk for instance, the file is none the worse for it.
        """
        link = digest(part)
        if self._folder >= 0:
            with suppress(OSError):
                with suppress(FileExistsError):
                    os.symlink(part, link, dir_fd=self._folder)
                os.fsync(self._folder)
        try:
            yield
        finally:
            if self._folder >= 0 and _is_absent(part):
                with suppress(OSError):
                    os.unlink(link, dir_fd=self._folder)

    def clean(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Remove what former runs have left, before anything is written. Blocks.

        What is out of reach, in an archive that is not mounted for instance, stays on record.

        Raises:
            OSError: the record cannot be read.
        """
        for name in os.listdir(self._folder):  # noqa: PTH208 - below a descriptor
            if is_stopped():
                return
            with suppress(OSError):
                link = os.fsencode(name)
                part = os.readlink(link, dir_fd=self._folder)
                if _is_ours(link, part):
                    os.unlink(part)  # noqa: PTH108 - a path of bytes
                if _is_absent(part):
                    os.unlink(link, dir_fd=self._folder)

    def close(self) -> None:
        """Give the folder back. May be called twice."""
        fd, self._folder = self._folder, -1
        if fd >= 0:
            os.close(fd)


# Keeps nothing, for whoever takes files away without a daemon.
NOWHERE = Parts()


def _is_ours(link: bytes, part: bytes) -> bool:
    """A file that has the name of a part, and of which this very link says that we write it."""
    if link != digest(part) or not is_hidden(part) or not part.endswith(b".part"):
        return False
    return not _is_absent(part) and stat.S_ISREG(os.lstat(part).st_mode)


def _is_absent(part: bytes) -> bool:
    """It is known that nothing is there, for the folder is."""
    try:
        os.lstat(part)
    except FileNotFoundError:
        return os.path.isdir(part.rpartition(b"/")[0])  # noqa: PTH112 - a path of bytes
    except OSError:
        pass
    return False
