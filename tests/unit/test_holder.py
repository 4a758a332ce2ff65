"""Who holds a state folder, as the kernel tells it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.ops.lockfile import hold_state_dir
from daemon.store.holder import holder_pid

DEAD = 2**22 + 1  # above the kernel's highest pid

Locked = Callable[[str, int], Path]


@pytest.fixture
def locked(tmp_path: Path) -> Locked:
    """A folder whose lock names a pid; a list of locks with one line about it, `{}` the file."""

    def locked(line: str, pid: int) -> Path:
        (tmp_path / "treewarden.db-wal").touch()
        lock = tmp_path / "treewarden.lock"
        lock.write_text(f"{pid}\n")
        status = lock.stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
        text = line.format(device=device, inode=status.st_ino)
        (tmp_path / "locks").write_text(f"1: POSIX  ADVISORY  READ 9 00:28:131 128 128\n{text}\n")
        return tmp_path / "locks"

    return locked


def test_a_real_holder_is_found_and_not_disturbed(tmp_path: Path) -> None:
    """The process that holds the folder is named; before and after there is none."""
    assert holder_pid(tmp_path) is None
    with hold_state_dir(tmp_path):
        assert holder_pid(tmp_path) == os.getpid()
    (tmp_path / "treewarden.db-wal").touch()
    assert holder_pid(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "written", "pid"),
    [
        ("2: FLOCK  ADVISORY  WRITE 77 {device}:{inode} 0 EOF", DEAD, 77),
        ("2: -> FLOCK  ADVISORY  WRITE 77 {device}:{inode} 0 EOF", DEAD, None),
        ("2: FLOCK  ADVISORY  WRITE 77 ff:ff:{inode} 0 EOF", DEAD, None),
        (f"2: FLOCK  ADVISORY  WRITE {DEAD} ff:ff:{{inode}} 0 EOF", DEAD, DEAD),
        ("2: POSIX  ADVISORY  WRITE 77 {device}:{inode} 0 EOF", DEAD, None),
        ("2: FLOCK  ADVISORY  WRITE 77 {device}:1{inode} 0 EOF", DEAD, None),
    ],
)
def test_the_list_of_locks(locked: Locked, line: str, written: int, pid: int | None) -> None:
    """A held flock on this file counts; on another device only if its pid is in the file."""
    locks = locked(line, written)
    assert holder_pid(locks.parent, locks) == pid


def test_without_the_list_the_lock_itself_is_asked(locked: Locked, tmp_path: Path) -> None:
    """Where the kernel gives no list, a held lock is found, with the pid that is in the file."""
    locked("", DEAD)
    absent = tmp_path / "absent"
    assert holder_pid(tmp_path, absent) is None
    with (tmp_path / "treewarden.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert holder_pid(tmp_path, absent) == DEAD
