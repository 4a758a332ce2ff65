"""The canary of a watcher's process: what tells it that events were lost, or come no more."""

import posix
import time

from daemon.sources.watch_folders import spelled

MODIFIED = 2
BLIND_NS = 5_000_000_000
# Of a turn that took longer the process has not had the rest, and neither had its canary.
TURN_NS = 100_000_000


class Canary:
    """Files of our own on the same queue: a touched one comes back as a change, in its turn.

    Each is out once at most, since the kernel merges equal neighbours. Touched, not written to: a
    full disk must not end the watching. `sent` is when one last was. They are numbered from 1:
    `back` is the last of those that are, with all before it.
    """

    def __init__(self, folder: str) -> None:
        for path in (folder.rpartition("/")[0], folder):
            try:
                posix.mkdir(path, 0o700)
            except FileExistsError:
                continue
        flags = posix.O_CREAT | posix.O_WRONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC
        self.folder = spelled(folder)
        self.names = [f"{self.folder}/c{number}" for number in range(8)]
        self._files = {name: posix.open(name, flags, 0o600) for name in self.names}
        self._home = list(self.names)
        self._out: dict[str, tuple[int, int, int]] = {}
        self._ran = self._last = 0
        self.sent = self.back = self._follows = self._to_prove = 0

    def send(self) -> None:
        """Touch one, if one is at home."""
        if self._home:
            name = self._home.pop(0)
            self._last += 1
            self.sent = time.monotonic_ns()
            self._out[name] = self.sent, self._ran, self._last
            posix.utime(self._files[name])

    def follow(self) -> None:
        """Send one after what was heard: now, or as soon as one is at home."""
        self._follows = self._last + 1
        self.send()

    def following(self, *, to_prove: bool) -> int:
        """The number of that one; whether it is to be told that it is back."""
        if to_prove:
            self._to_prove = self._follows
        return self._follows

    def proves(self) -> bool:
        """Whether one that has just come back may be one of which that is to be told."""
        awaited, done = self._to_prove, self.back >= self._to_prove
        self._to_prove = 0 if done else awaited
        return awaited > 0

    @property
    def is_out(self) -> bool:
        """Whether any is."""
        return bool(self._out)

    def take(self, changes: set[tuple[int, str]]) -> tuple[bool, int | None]:
        """Whether one was lost, as a later one is back; the way of the last in microseconds."""
        back = [name for name in self._out if (MODIFIED, name) in changes]
        if not back:
            return False, None
        lost = back != list(self._out)[: len(back)]
        sent, _, self.back = self._out[back[-1]]
        for name in back:
            del self._out[name]
        self._home += back
        if self._follows > self._last:
            self.send()
        return lost, (time.monotonic_ns() - sent) // 1000

    def is_overdue(self, turn: int) -> bool:
        """Whether one is out for longer than any queue takes, after one more turn of the loop.

        Only time in which the process ran counts: what was stopped, or starved, is not blind.
        """
        self._ran += min(turn, TURN_NS)
        return any(self._ran - since > BLIND_NS for _, since, _ in self._out.values())
