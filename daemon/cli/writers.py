"""Which processes have a file open for writing, as far as this user may see."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from daemon.core.model import Fingerprint
from daemon.engine.disk import fingerprint

_PROC = Path("/proc")
_WRITES = os.O_WRONLY | os.O_RDWR


class Writer(NamedTuple):
    """A process, and what it calls itself."""

    pid: int
    name: str


def writers_of(seen: Fingerprint, proc: Path = _PROC) -> list[Writer]:
    """Everybody who has this file open for writing; not those who have it mapped only."""
    pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    return [Writer(pid, _name(proc / str(pid))) for pid in pids if _writes(proc / str(pid), seen)]


def _writes(process: Path, seen: Fingerprint) -> bool:
    """Processes end, and some are not ours to see."""
    with suppress(OSError):
        return any(_is_it(process, link.name, seen) for link in (process / "fd").iterdir())
    return False


def _is_it(process: Path, number: str, seen: Fingerprint) -> bool:
    """`fdinfo` first: a stat could hang on what others have open, such as a dead share."""
    with suppress(OSError, ValueError):
        told = dict(_fields(process / "fdinfo" / number))
        if int(told["flags"], 8) & _WRITES and told.get("ino", str(seen.ino)) == str(seen.ino):
            found = fingerprint((process / "fd" / number).stat())
            return (found.ino, found.dev) == (seen.ino, seen.dev)
    return False


def _fields(fdinfo: Path) -> Iterator[tuple[str, str]]:
    for line in fdinfo.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        yield name, value.strip()


def _name(process: Path) -> str:
    with suppress(OSError):
        return (process / "comm").read_text(errors="replace").rstrip("\n")
    return "unknown"
