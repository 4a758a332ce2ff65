"""How the changes of one tree are found just now: what its sources know, and `status` tells."""

from collections import Counter
from typing import Literal

import msgspec
from msgspec import Struct, field

Mode = Literal["inotify", "partly", "polled"]


class Detection(Struct):
    """What one watch knows of its own eyes. Written by the sources, on the loop.

    `mode`: everything is watched; only part of the tree is, and the rest is polled; or all of it
    is polled; `reason` says why. `latency_us`: the canary's last round trip. `directories`: as of
    the last scan of the whole tree. `missed`: files that scans found and the watcher had not told
    of, by cause, since the last line that said so; `missed_ever` since the daemon started.
    `silent_since`: when its disk ceased to answer, in microseconds of the epoch, if it did.
    `frozen`: why removals wait; None while they do not. `frozen_missing`: how many files at least.
    """

    mode: Mode = "inotify"
    reason: str | None = None
    latency_us: int | None = None
    directories: int | None = None
    overflows: int = 0
    restarts: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    missed_ever: Counter[str] = field(default_factory=Counter)
    silent_since: int | None = None
    frozen: str | None = None
    frozen_missing: int | None = None

    def miss(self, cause: str, files: int) -> None:
        """So many files were found by a scan only."""
        if files:
            self.missed[cause] += files
            self.missed_ever[cause] += files

    def told(self) -> str:
        """As JSON, for the database."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def heard(cls, text: str) -> "Detection":
        """From that JSON.

        Raises:
            msgspec.MsgspecError: another version wrote it.
        """
        return msgspec.json.decode(text, type=cls, dec_hook=_counter)


def _counter(_kind: type, counts: dict[str, int]) -> Counter[str]:
    """A Counter is written as any other dict, and is none to msgspec when it is read."""
    return Counter(counts)
