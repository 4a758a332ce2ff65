"""Who has a file open for writing, as `/proc` tells it."""

import os
from pathlib import Path

import pytest

from daemon.cli.writers import Writer, writers_of
from daemon.core.model import Fingerprint
from daemon.engine.disk import fingerprint

OURS = Writer(os.getpid(), Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n"))


def seen(path: Path) -> Fingerprint:
    return fingerprint(path.stat())


@pytest.mark.parametrize(
    ("flags", "writes"),
    [
        (os.O_RDONLY, False),
        (os.O_WRONLY, True),
        (os.O_RDWR, True),
        (os.O_WRONLY | os.O_APPEND, True),
        (os.O_PATH, False),
    ],
)
def test_who_writes(tmp_path: Path, flags: int, writes: bool) -> None:  # noqa: FBT001
    """Whoever may write through the descriptor counts, under whatever name the file is now."""
    path = tmp_path / "a"
    path.touch()
    fd = os.open(path, flags)
    try:
        path = path.rename(tmp_path / "b")
        assert writers_of(seen(path)) == ([OURS] if writes else [])
    finally:
        os.close(fd)
    assert writers_of(seen(path)) == []


def test_another_file_of_the_same_number(tmp_path: Path) -> None:
    """Inode numbers repeat on other devices: the device decides."""
    with (tmp_path / "a").open("w") as file:
        found = fingerprint(os.fstat(file.fileno()))
        assert writers_of(found) == [OURS]
        assert writers_of(found._replace(dev=found.dev + 1)) == []


def test_a_kernel_that_does_not_name_the_inode(tmp_path: Path) -> None:
    """Before Linux 5.14 fdinfo has no inode: then the descriptor itself is looked at."""
    (tmp_path / "a").touch()
    process = tmp_path / "proc" / "42"
    for folder in ("fd", "fdinfo"):
        (process / folder).mkdir(parents=True)
    (process / "comm").write_text("scp\n")
    for number, flags in (("3", "0100001"), ("4", "0100000")):
        (process / "fd" / number).symlink_to(tmp_path / "a")
        (process / "fdinfo" / number).write_text(f"pos:\t0\nflags:\t{flags}\nmnt_id:\t5\n")
    (tmp_path / "proc" / "uptime").touch()
    (tmp_path / "proc" / "43").mkdir()
    assert writers_of(seen(tmp_path / "a"), tmp_path / "proc") == [Writer(42, "scp")]
