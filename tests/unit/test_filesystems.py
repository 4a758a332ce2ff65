"""Which file system holds a path, and what that means for watching it."""

from pathlib import Path

import pytest

from daemon.engine.filesystems import Mount, file_system_of, is_remote, mount_of, must_poll

MOUNTS = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /srv rw - xfs /dev/vdb rw
31 30 0:27 / /srv/share rw shared:2 master:3 - nfs4 server:/x rw,addr=1
32 22 0:28 / /mnt/two\\040words\\134 rw - cifs //server/share rw
33 22 0:29 / /over rw - ext4 /dev/vdc rw
34 33 0:30 / /over rw - fuse.sshfs user@host: rw
35 22 0:31 / /mnt/\xff rw - 9p tag rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    (tmp_path / "mountinfo").write_bytes(MOUNTS)
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/", "ext4"),
        (b"/home/x", "ext4"),
        (b"/srv", "xfs"),
        (b"/srv/share", "nfs4"),
        (b"/srv/share/deep/er", "nfs4"),
        (b"/srv/shared", "xfs"),
        (b"/mnt/two words\\/x", "cifs"),
        (b"/over/x", "fuse.sshfs"),
        (b"/mnt/\xff/x", "9p"),
    ],
)
def test_file_system_of(mounts: Path, path: bytes, kind: str) -> None:
    """The deepest mount that holds the path counts, of two on one point the later."""
    assert file_system_of(path, mounts) == kind


def test_mount_of(mounts: Path) -> None:
    """Where the file system that holds a path is mounted, its name as it is."""
    assert mount_of(b"/srv/share/deep", mounts) == Mount(b"/srv/share", "nfs4")
    assert mount_of(b"/mnt/two words\\/x", mounts) == Mount(b"/mnt/two words\\", "cifs")
    assert mount_of(b"/srv/shared", mounts) == Mount(b"/srv", "xfs")


def test_nothing_mounted(tmp_path: Path) -> None:
    """Where no mount holds the path the type is unknown, and a missing list is an error."""
    (tmp_path / "empty").write_bytes(b"")
    assert file_system_of(b"/x", tmp_path / "empty") == "unknown"
    with pytest.raises(FileNotFoundError):
        file_system_of(b"/x", tmp_path / "missing")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs"])
def test_remote(kind: str) -> None:
    """Others may write to these without this kernel knowing."""
    assert is_remote(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "unknown"])
def test_local(kind: str) -> None:
    """On these the kernel sees every change."""
    assert not is_remote(kind)


def test_mode_decides_first(tmp_path: Path) -> None:
    """`poll` and `inotify` are taken at their word; `auto` polls where it has to."""
    path = bytes(tmp_path)
    assert must_poll("poll", path)
    assert not must_poll("inotify", b"/nowhere")
    assert must_poll("auto", path) is is_remote(file_system_of(path))


def test_real_mounts() -> None:
    """This machine's own list is understood."""
    assert file_system_of(b"/proc/self") == "proc"
