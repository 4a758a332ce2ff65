"""Birth times and mounts, against what the machine's own tools say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.engine import births
from daemon.engine.births import born_ns, find_function, identity_of, mount_id

NAMES = [b"plain", b"a\nb", b"\xff\xfe", b"x" * 255]


def seconds_by_stat(path: Path) -> str:
    """`stat` of coreutils on its own birth time; `0` or `-` where it has none."""
    ran = subprocess.run(["stat", "-c", "%.9W", path], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.mark.parametrize("name", NAMES)
def test_born(tmp_path: Path, name: bytes) -> None:
    """The birth time is what `stat` prints, to the nanosecond, whatever the name."""
    path = Path(os.fsdecode(bytes(tmp_path) + b"/" + name))
    path.write_bytes(b"x")
    by_stat = seconds_by_stat(path)
    if float(by_stat) == 0:
        pytest.skip("this file system knows no birth times")
    born = born_ns(bytes(path))
    assert born is not None
    assert f"{born // 10**9}.{born % 10**9:09}" == by_stat


def test_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open folder is told by device, inode and birth; by the first two where that is all."""
    fd = os.open(tmp_path, os.O_PATH)
    try:
        st = os.fstat(fd)
        assert identity_of(fd) == (st.st_dev, st.st_ino, born_ns(bytes(tmp_path)) or 0)
        monkeypatch.setattr(births, "_statx", None)
        assert identity_of(fd) == (st.st_dev, st.st_ino, 0)
    finally:
        os.close(fd)


def test_birth_stays(tmp_path: Path) -> None:
    """A change, another mtime and a rename leave the birth time; a new file has another."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    born = born_ns(bytes(path))
    if born is None:
        pytest.skip("this file system knows no birth times")
    path.write_bytes(b"xy")
    os.utime(path, (1, 1))
    path = path.rename(tmp_path / "renamed")
    assert born_ns(bytes(path)) == born
    assert born <= path.stat().st_ctime_ns


def test_link_is_not_followed(tmp_path: Path) -> None:
    """A symlink has a birth time of its own, also one that leads nowhere."""
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    known = born_ns(bytes(tmp_path)) is not None
    assert (born_ns(bytes(tmp_path / "link")) is not None) is known
    assert (born_ns(bytes(tmp_path / "loop")) is not None) is known


@pytest.mark.parametrize("name", [b"none", b"file/none", b"x" * 256])
def test_nothing_there(tmp_path: Path, name: bytes) -> None:
    """Whatever the kernel refuses is None."""
    (tmp_path / "file").write_bytes(b"x")
    assert born_ns(bytes(tmp_path) + b"/" + name) is None
    assert mount_id(bytes(tmp_path) + b"/" + name) is None


def test_file_system_without_births() -> None:
    """A file system that keeps no birth times gives None, not the epoch."""
    assert born_ns(b"/proc/self/stat") is None


def test_mount(tmp_path: Path) -> None:
    """Paths on one mount share its id, another mount has another; symlinks are followed."""
    (tmp_path / "link").symlink_to("/proc")
    here, there = mount_id(bytes(tmp_path)), mount_id(b"/proc")
    if here is None:
        pytest.skip("this kernel tells no mount ids")
    (tmp_path / "file").write_bytes(b"x")
    assert mount_id(bytes(tmp_path / "file")) == here
    assert mount_id(b"/proc/self/stat") == there != here
    assert mount_id(bytes(tmp_path / "link")) == there


REMOUNT = """
import os, subprocess, sys
from daemon.engine.births import mount_id
for _ in range(2):
    subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
    print(mount_id(os.fsencode(sys.argv[1])))
    subprocess.run(["umount", sys.argv[1]], check=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_mount_made_again(tmp_path: Path) -> None:
    """A file system that was unmounted and mounted again is another mount."""
    release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    if release < (6, 8):
        pytest.skip("this kernel uses the numbers of mounts again")
    unshare = ["unshare", "--mount", "--propagation", "private"]
    command = [*unshare, sys.executable, "-c", REMOUNT, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    first, second = ran.stdout.split()
    assert first != second
    assert "None" not in {first, second}


def test_library_without_statx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the C library has no statx, nothing is known, and nothing fails."""
    monkeypatch.setattr(births, "_statx", find_function("no_such_function_in_any_library"))
    assert born_ns(bytes(tmp_path)) is None
    assert mount_id(bytes(tmp_path)) is None


def test_kernel_without_statx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails, as under an old kernel or a filter, tells nothing."""
    monkeypatch.setattr(births, "_AT_NO_AUTOMOUNT", 0x4000_0000)
    assert born_ns(bytes(tmp_path)) is None
    assert mount_id(bytes(tmp_path)) is None


def test_kernel_without_mount_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that leaves what it does not know at zero has told nothing."""
    for bit in ("_BTIME", "_MNT_ID", "_MNT_ID_UNIQUE"):
        monkeypatch.setattr(births, bit, 0x2000_0000)
    assert born_ns(bytes(tmp_path)) is None
    assert mount_id(bytes(tmp_path)) is None
