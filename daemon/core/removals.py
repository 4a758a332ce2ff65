"""When what is missing from a tree may be taken for removed. Pure.

An unmounted share looks like a tree whose files were all removed. Two things are asked before that
is believed: whether the root is still the directory that it was, and whether it is only a few.
"""

from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

# As many may always go at once: a small tree is emptied by a single `rm`.
FEW = 100
# What these hold does not outlive the system.
PASSING = frozenset({"ramfs", "tmpfs"})
# The type of a file system of which nothing is known.
UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """What a directory is to the one that is known, and in words why it is not the same.

    `replaced`: another one in its place, on the same file system. `foreign`: neither that nor the
    same, for all that can be told.
    """

    kind: Literal["same", "replaced", "foreign"]
    reason: str


class Mark(Struct, frozen=True):
    """Which directory a root is, as far as that can be told over restarts.

    `born`: when it was made, in nanoseconds, 0 where the file system does not know. `kind`: the
    type of the file system, and `point` where that is mounted. `boot`: which run of the system the
    device's number belongs to, empty where that is not known. `fsid`: what the file system calls
    itself, 0 where it has no name, and with some it is but the device's number.
    """

    dev: int
    ino: int
    born: int
    kind: str
    point: str
    boot: str
    fsid: int = 0


def read_mark(kept: str | None) -> Mark | None:
    """What was kept of a mark, as JSON; what another version wrote is as good as nothing."""
    try:
        return None if kept is None else msgspec.json.decode(kept, type=Mark)
    except msgspec.MsgspecError:
        return None


def judge(known: Mark, found: Mark, *, remounted: bool) -> Verdict:
    """What the directory that stands at a root's path is to the one that is known.

    `remounted`: since it was known, its mount has become another one.
    """
    here = bool(known.boot) and known.boot == found.boot
    if _is_same(known, found, here=here, remounted=remounted):
        return Verdict("same", "it was mounted anew")
    if known.kind != found.kind:
        return Verdict("foreign", f"{found.kind} stands there, where {known.kind} stood")
    if here and (remounted or (known.dev, known.point) != (found.dev, found.point)):
        return Verdict("foreign", "another file system stands there")
    if here or known.kind in PASSING:
        return Verdict("replaced", "another directory has taken its place")
    return Verdict("foreign", "another directory stands there than before the system restarted")


def _is_same(known: Mark, found: Mark, *, here: bool, remounted: bool) -> bool:
    """Inode and birth tell a directory from every other, wherever it is mounted.

    Without a birth time the inode alone tells little: the root of every ext4 is number 2, and a
    device's number goes to the next one that is mounted. Then it must not have been mounted anew;
    and after a restart of the system inode and type are all that there is to compare.
    """
    if (known.ino, known.kind) != (found.ino, found.kind):
        return False
    if known.born and found.born:
        return known.born == found.born
    return not here or (known.dev == found.dev and not remounted)


def too_many(missing: int, live: int, share: float) -> bool:
    """Whether so many of a watch's files cannot be missing without somebody being asked."""
    return missing > FEW and missing > share * live
