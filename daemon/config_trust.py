"""Whether a configuration may say what root runs: only if nobody but root can have written it."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from daemon.errors import Problem

_WHOLE_MAP = ["0", "0", "4294967295"]
_REMEDY = "let root alone write it (chown root, chmod go-w), or run as another user"
# As many symbolic links as the kernel follows.
_LINKS = 40


def untrusted(file: Path) -> Iterator[Problem]:
    """The file, and the folders and links on the way to it, as far as others can change them.

    Nothing, unless we are root. A folder with the sticky bit, as /tmp is, lets nobody replace what
    root has put there. A symbolic link has no mode, but an owner.
    """
    if os.geteuid() != 0:
        return
    known = {0} | _nobody_here()
    for place in dict.fromkeys(_way(file)):
        with suppress(FileNotFoundError):  # it was a pipe
            if found := _found(place, known):
                yield Problem(str(place), None, "", found, _REMEDY)


def _way(file: Path) -> Iterator[Path]:
    """Each folder and each symbolic link on the way to a file, and the file, as the kernel goes."""
    root, *names = file.absolute().parts
    at, left, links = Path(root), names[::-1], 0
    yield at
    while left:
        name = left.pop()
        place = at.parent if name == ".." else at / name
        yield place
        if place.is_symlink() and links < _LINKS:
            links += 1
            left += reversed(place.readlink().parts)
        else:
            at = place


def _found(place: Path, known: set[int]) -> str | None:
    st = place.lstat()
    if st.st_uid not in known:
        return f"user {st.st_uid}, who owns it, says what root runs"
    if stat.S_ISLNK(st.st_mode) or (stat.S_ISDIR(st.st_mode) and st.st_mode & stat.S_ISVTX):
        return None
    group = st.st_mode & stat.S_IWGRP and (st.st_gid not in known or _has_acl(place))
    if st.st_mode & stat.S_IWOTH or group:
        return f"others say what root runs: they can write to it (mode {st.st_mode & 0o7777:04o})"
    return None


def _has_acl(place: Path) -> bool:
    """Whether the mode's bits of the group are the most that anybody named by a list may do."""
    try:
        return bool(os.getxattr(place, "system.posix_acl_access"))
    except OSError:
        return False


def _nobody_here() -> set[int]:
    """As whose we see, in a user namespace, what belongs to root outside of it."""
    with suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _WHOLE_MAP:
            return {int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))}
    return set()
