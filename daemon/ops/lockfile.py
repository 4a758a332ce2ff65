"""One daemon a state folder: the lock, and who holds it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import AlreadyRunning
from daemon.locate import LOCK


@contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[None]:
    """Be the only daemon on this folder: a lock that the kernel gives back when the process ends.

    Raises:
        AlreadyRunning: somebody else is.
    """
    fd = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _lock(fd, state_dir)
        _write_pid(fd, state_dir)
        yield
    finally:
        os.close(fd)


def _write_pid(fd: int, state_dir: Path) -> None:
    try:
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:  # a full disk; of a descriptor the system does not say which file
        error.filename = str(state_dir)
        raise


def _lock(fd: int, state_dir: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        pid = int(text) if text.isdigit() else 0
        raise AlreadyRunning(
            f"{state_dir} is in use by the daemon with pid {pid or 'unknown'}; stop that one "
            "first, or give this one a state_dir of its own",
            pid,
        ) from None
