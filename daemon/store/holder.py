"""Which daemon, if any, holds a state folder, without touching the lock that says so.

A probe that took the lock, even shared and for a microsecond, could turn away a daemon that starts
in that instant. The kernel lists who holds which file, for every user to read.
"""

import fcntl
import os
from pathlib import Path

from daemon.locate import DATABASE, LOCK

_LOCKS = Path("/proc/locks")


def holder_pid(state_dir: Path, locks: Path = _LOCKS) -> int | None:
    """The pid of the daemon that runs on a state folder; None when there is none.

    Raises:
        OSError: this user cannot see into the folder.
    """
    path = state_dir / LOCK
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    written = _written_pid(path)
    if written and _has_open(written, status):
        return written
    # Whoever has the database open has its log as well: cheap, where the list below takes 12 ms,
    # for the kernel stops all locking to make it.
    if not (state_dir / f"{DATABASE}-wal").exists():
        return None
    if not locks.exists():
        return written or 0 if _is_locked(path) else None
    held = _flocks_on(status.st_ino, locks)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    if device in held:
        return held[device]
    # btrfs and overlays show another device there than stat does: the pid in the file decides.
    return written if written in held.values() else None


def _has_open(pid: int, status: os.stat_result) -> bool:
    """Whether a process, as far as we may look into it, has this very file open."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as links:
            return any(os.path.samestat(link.stat(), status) for link in links)
    except OSError:
        return False


def _flocks_on(inode: int, locks: Path) -> dict[str, int]:
    """Device to pid, for each lock that is held, not only waited for, on files of that number."""
    held = {}
    for line in locks.read_text().splitlines():
        # 5: FLOCK  ADVISORY  WRITE 25921 fe:00:2189278 0 EOF
        _, kind, *rest = line.split()
        if kind != "FLOCK":
            continue
        device, _, number = rest[3].rpartition(":")
        if number == str(inode):
            held[device] = int(rest[2])
    return held


def _is_locked(path: Path) -> bool:
    """Ask the lock itself: only for a kernel, or a sandbox, without the list."""
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _written_pid(path: Path) -> int | None:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
