"""Whether the folder that files are taken to is still the one that it was. Pure.

A mount point without its mount is a folder like any other: what is taken there is hidden by the
next mount, and lost to whoever looks for it.
"""

from daemon.core.removals import PASSING, UNKNOWN, Mark

# Their id is made of the one that they were given when they were made, and stays.
_NAMED = frozenset({"btrfs", "ext2", "ext3", "ext4"})


def strangeness(known: Mark, found: Mark, *, remounted: bool = False) -> str | None:
    """Why nothing may be taken to what stands at the path; None where it may.

    It may also where another folder was made in its place, on the same file system, which was not
    `remounted` since.
    """
    if _is_same(known, found) or _stands_in(known, found, remounted=remounted):
        return None
    if known.point != found.point and _is_below(known.point, found.point):
        return f"nothing is mounted at {known.point!r}, where {known.kind} was"
    if known.kind != found.kind:
        return f"{found.kind} is there now, where {known.kind} was"
    return "another file system is there now, or another folder, than was known"


def _stands_in(known: Mark, found: Mark, *, remounted: bool) -> bool:
    """Whether it is another in the place of the known one, as far as that can be told."""
    if known.kind != found.kind:
        return False
    if known.boot and known.boot == found.boot:
        if not remounted and _whereabouts(known) == _whereabouts(found):
            return True
    elif known.kind in PASSING:
        return True
    # FUSE may number its inodes anew each time: that it is mounted there is all that can be told.
    return known.kind.startswith("fuse") and known.point == found.point


def _is_same(known: Mark, found: Mark) -> bool:
    """Without birth times inode and type have to do.

    A share is mounted anew each time that somebody needs it, and the folder below its mount point
    has neither.
    """
    # Where /proc could not be read for a moment the type is not known.
    alike = known.kind == found.kind or UNKNOWN in {known.kind, found.kind}
    born_alike = known.born == found.born or 0 in {known.born, found.born}
    # Two disks that were formatted in one second have roots of one birth.
    if known.kind in _NAMED and known.fsid != found.fsid and 0 not in {known.fsid, found.fsid}:
        return False
    return known.ino == found.ino and alike and born_alike


def _whereabouts(mark: Mark) -> tuple[int, int, str]:
    """A device's number goes to the next one that is mounted: what is on that has another id."""
    return mark.dev, mark.fsid, mark.point


def _is_below(point: str, other: str) -> bool:
    return point.startswith(other.rstrip("/") + "/")
