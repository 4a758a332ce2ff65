"""The disk: one look at a path. All of it runs in threads.

With `listing`, which reads directories, `identity`, which looks at roots, `signs`, which removes
markers, `births`, `reading` and what handlers do the only module that touches watched trees.
Nothing here follows a symlink at the last component.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from daemon.core.markers import is_current
from daemon.core.model import Fingerprint
from daemon.core.settle import Look, is_quiet
from daemon.engine.clock import now_us
from daemon.engine.identity import RootId
from daemon.engine.listing import ABSENT, numbers_of
from daemon.errors import LASTING, SHORTAGE

# A file system that knows no leases says one of these; a file that is not ours says EACCES/EPERM.
_NO_LEASE = frozenset({errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Question(NamedTuple):
    """A path to look at, below a root that should still be the same directory.

    Without a root nothing is absent. `quiet` in microseconds, None: do not judge whether it has
    settled. `marker`: the path of the marker that the file needs for that.
    """

    path: bytes
    root: RootId | None = None
    quiet: int | None = None
    probe: bool = True
    stood: Fingerprint | None = None
    own_clock: bool = True
    marker: bytes | None = None


def fingerprint(st: os.stat_result) -> Fingerprint:
    """The part of a `stat` that tells one content from another."""
    return Fingerprint._make(numbers_of(st))


def look_at_all(questions: Sequence[Question]) -> list[Look]:
    """One look each. Blocks; raises nothing: what the kernel refuses is part of the answer."""
    folders: dict[bytes, bool] = {}
    return [look_at(question, folders) for question in questions]


def look_at(question: Question, folders: dict[bytes, bool] | None = None) -> Look:
    """What stands at a path now. `folders`: which are inside the tree, as far as it is known."""
    folder = question.path.rpartition(b"/")[0]
    known = {} if folders is None else folders
    if question.root and not _is_inside(folder, question.root.path, known):
        return Look("elsewhere")
    marker = seen_at(question.marker) if question.marker else None
    try:
        st = os.lstat(question.path)
    except OSError as error:
        if error.errno in ABSENT:
            return _absent(question.root)
        lasting = error.errno in LASTING
        return Look("error", error=f"{error.strerror} (lstat)", lasting=lasting)
    kind = _kind(st.st_mode)
    if kind != "file":
        return Look(kind)
    seen = fingerprint(st)
    marked = (marker is not None and is_current(marker, seen)) if question.marker else None
    if question.quiet is None or not _is_quiet(seen, question, question.quiet):
        return Look("file", seen, marked=marked, marker=marker)
    probe = question.probe and marked is not False
    closed = is_closed(question.path, seen) if probe else None
    return Look("file", seen, quiet=True, closed=closed, marked=marked, marker=marker)


def seen_at(path: bytes) -> Fingerprint | None:
    """What a regular file shows; None for anything else, and where the kernel shows nothing."""
    try:
        st = os.lstat(path)
    except OSError:
        return None
    return fingerprint(st) if stat.S_ISREG(st.st_mode) else None


def _is_quiet(seen: Fingerprint, question: Question, quiet: int) -> bool:
    return is_quiet(seen, now_us(), quiet, question.stood, own_clock=question.own_clock)


def _is_inside(folder: bytes, root: bytes, known: dict[bytes, bool]) -> bool:
    """No symlink on the way from the root to the folder: watchfiles walks through them."""
    inside, end = True, len(root)
    if folder in known:
        return known[folder]
    # From the top down, and not by recursion: 2,000 levels fit into a path.
    while inside and end < len(folder):
        end = (folder + b"/").index(b"/", end + 1)
        step = folder[:end]
        if step not in known:
            known[step] = not os.path.islink(step)  # noqa: PTH114 - a path of bytes
        inside = known[step]
    known[folder] = inside
    return inside


def _absent(root: RootId | None) -> Look:
    """A file is only absent from a root that is there: an unmounted share removes nothing."""
    if root is None:
        return Look("error", error="the watched root is not there")
    try:
        st = os.stat(root.path)  # noqa: PTH116 - a path of bytes
    except OSError as error:
        return Look("error", error=f"the watched root cannot be reached: {error.strerror}")
    if (st.st_dev, st.st_ino) != (root.dev, root.ino):
        return Look("error", error="another directory has taken the place of the watched root")
    return Look("absent")


def is_closed(path: bytes, seen: Fingerprint) -> bool | None:
    """Does nobody have this file open for writing? None where the kernel would not tell.

    A read lease is granted only while that is so (fcntl(2), F_SETLEASE). It is given back at once:
    a writer that comes in between waits for a few microseconds.
    """
    try:
        fd = os.open(path, OPEN_FLAGS)
    except OSError as error:
        # A shortage of ours tells nothing of the file: it passes, and then the probe is made.
        return False if error.errno in SHORTAGE else None
    try:
        if fingerprint(os.fstat(fd)) != seen:
            return False
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return None if error.errno in _NO_LEASE else False
    else:
        return True
    finally:
        os.close(fd)


def is_missing(path: bytes) -> bool:
    """Known to be no directory; what cannot be looked at is not known. Blocks."""
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "other"
