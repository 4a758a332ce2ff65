"""Whether a configuration may say what root runs: only if nobody but root can have written it."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from daemon.errors import Problem

_WHOLE_MAP = ["0", "0", "4294967295"]
_REMEDY = "let root alone write it (chown root, chmod go-w), or run as another user"


def untrusted(file: Path) -> Iterator[Problem]:
    """The file, and the folders above it, as far as others can write to them and we are root.

    A folder with the sticky bit, as /tmp is, lets nobody replace what root has put there. Where the
    file is a symbolic link, that counts as well as where it leads.
    """
    if os.geteuid() != 0:
        return
    absolute, real = file.absolute(), Path(os.path.realpath(file))
    known = {0} | _nobody_here()
    for place in dict.fromkeys((absolute, real, *absolute.parents, *real.parents)):
        with suppress(OSError):  # what is not there, or is a pipe, is none of these
            if found := _found(place.stat(), known):
                yield Problem(str(place), None, "", found, _REMEDY)


def _found(st: os.stat_result, known: set[int]) -> str | None:
    if st.st_uid not in known:
        return f"user {st.st_uid}, who owns it, says what root runs"
    group = st.st_mode & stat.S_IWGRP and st.st_gid not in known
    sticky = stat.S_ISDIR(st.st_mode) and st.st_mode & stat.S_ISVTX
    if (st.st_mode & stat.S_IWOTH or group) and not sticky:
        return f"others say what root runs: they can write to it (mode {st.st_mode & 0o7777:04o})"
    return None


def _nobody_here() -> set[int]:
    """As whose we see, in a user namespace, what belongs to root outside of it."""
    with suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _WHOLE_MAP:
            return {int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))}
    return set()
