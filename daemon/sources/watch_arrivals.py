"""Folders that are new to a watcher, until the kernel tells it what happens in them."""

import posix

from daemon.sources.watch_canary import MODIFIED, TURN_NS
from daemon.sources.watch_folders import Changes, Outdated

# Longer than any queue takes: a watch could not be set, and why is asked by another walk.
UNWATCHED_NS = 10_000_000_000


class Arrivals:
    """Knows which new folders are watched by now.

    RustNotify tells of a folder when it comes, and sets its watches when the queue is empty. What
    happens in the folder until then nobody tells, and a scan may be past it. So it is to be told
    once more when it is watched.

    A folder of our own is how that is found out. It gets another name, which makes it as new as
    they are, and later than they; RustNotify keeps the order. What is in it is touched until that
    is heard of under the new name.
    """

    def __init__(self, canary: str) -> None:
        self._names = f"{canary}/n0", f"{canary}/n1"
        # A former watcher may have left it under either.
        self._at = int("n1" in posix.listdir(canary))
        if not self._at and "n0" not in posix.listdir(canary):
            posix.mkdir(self._names[0], 0o700)
        flags = posix.O_CREAT | posix.O_WRONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC
        self._file = posix.open(f"{self._names[self._at]}/f", flags, 0o600)
        self._new: set[str] = set()
        self._asked: set[str] = set()
        self._ran = 0

    def add(self, folders: set[str]) -> None:
        """These were heard of."""
        self._new |= folders

    def forget(self) -> None:
        """There are too few watches, and scans look for what is not told."""
        self._new, self._asked = set(), set()

    def ask(self, turn: int) -> None:
        """Touch the file, if there is anything to find out. `turn`: since the last time.

        Raises:
            Outdated: nothing is heard of it.
        """
        if self._asked:
            self._ran += min(turn, TURN_NS)
        elif self._new:
            self._asked, self._new, self._ran = self._new, set(), 0
            here, self._at = self._names[self._at], 1 - self._at
            posix.rename(here, self._names[self._at])
        else:
            return
        posix.utime(self._file)
        if self._ran > UNWATCHED_NS:
            raise Outdated("a new folder is not watched")

    def take(self, changes: Changes) -> set[str]:
        """The folders of which it is known since this batch that they are watched."""
        if (MODIFIED, f"{self._names[self._at]}/f") not in changes:
            return set()
        watched, self._asked = self._asked, set()
        return watched
