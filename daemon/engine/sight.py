"""One path as the kernel shows it, in plain numbers.

Imports next to nothing: it runs in the daemon's threads and in the processes of its watchers. All
of it blocks, and nothing follows a symlink at the last component.
"""

import errno
import fcntl
import posix
from _stat import S_ISLNK, S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    # As in `daemon.core.model.Fingerprint`: size, mtime, ctime, inode, device.
    Numbers: TypeAlias = "tuple[int, int, int, int, int]"
    # The numbers of a regular file, and whether nobody had it open for writing: see `is_closed`.
    Sight: TypeAlias = "tuple[Numbers, bool | None]"
    # Paths below a root, with what they show.
    Sights: TypeAlias = "list[tuple[bytes, Sight | None]]"

OPEN_FLAGS = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC | posix.O_NOCTTY
# A file system that knows no leases says one of these; a file that is not ours says EACCES/EPERM.
_NO_LEASE = frozenset({errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})
# As `daemon.errors.SHORTAGE`, which would bring much more with it.
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_WRAP = 2**63


def numbers_of(st: posix.stat_result) -> "Numbers":
    """The part of a `stat` that tells one content from another, as the database has it.

    Anybody may set a time beyond the year 2262, and some inode numbers use all 64 bits; the
    database has 63 and a sign, and keeps such a number wrapped.
    """
    seen = st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino, st.st_dev
    if max(seen) < _WRAP:
        return seen
    size, mtime_ns, ctime_ns, ino, dev = map(_wrapped, seen)
    return size, mtime_ns, ctime_ns, ino, dev


def is_closed(path: "bytes | str", seen: "Numbers") -> bool | None:
    """Does nobody have this file open for writing? None where the kernel would not tell.

    A read lease is granted only while that is so (fcntl(2), F_SETLEASE). It is given back at once:
    a writer that comes in between waits for a few microseconds.
    """
    try:
        fd = posix.open(path, OPEN_FLAGS)
    except OSError as error:
        # A shortage of ours tells nothing of the file: it passes, and then the probe is made.
        return False if error.errno in _SHORTAGE else None
    try:
        if numbers_of(posix.fstat(fd)) != seen:
            return False
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return None if error.errno in _NO_LEASE else False
    else:
        return True
    finally:
        posix.close(fd)


def is_inside(folder: bytes, root: bytes, known: dict[bytes, bool]) -> bool:
    """No symlink on the way from the root to the folder: watchfiles walks through them."""
    inside, end = True, len(root)
    if folder in known:
        return known[folder]
    # From the top down, and not by recursion: 2,000 levels fit into a path.
    while inside and end < len(folder):
        end = (folder + b"/").index(b"/", end + 1)
        step = folder[:end]
        if step not in known:
            known[step] = not _is_link(step)
        inside = known[step]
    known[folder] = inside
    return inside


def sights(root: bytes, paths: "Iterable[bytes]", *, probe: bool) -> "Iterator[Sight | None]":
    """What stands at some paths below a root; None for all but regular files within the tree.

    `probe`: find out as well whether anybody has it open for writing.
    """
    known: dict[bytes, bool] = {}
    for path in paths:
        whole = root + b"/" + path
        yield _sight(whole, probe) if is_inside(whole.rpartition(b"/")[0], root, known) else None


def _sight(path: bytes, probe: bool) -> "Sight | None":  # noqa: FBT001 - one caller
    try:
        st = posix.lstat(path)
    except OSError:
        return None
    if not S_ISREG(st.st_mode):
        return None
    seen = numbers_of(st)
    return seen, is_closed(path, seen) if probe else None


def _is_link(path: bytes) -> bool:
    try:
        return S_ISLNK(posix.lstat(path).st_mode)
    except OSError:
        return False


def _wrapped(number: int) -> int:
    return (number + _WRAP) % (2 * _WRAP) - _WRAP
