"""The disk: what one look tells, who has a file open, and what a root that is away means."""

import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.engine.disk import (
    Question,
    fingerprint,
    look_at,
    look_at_all,
)
from daemon.engine.identity import RootId
from daemon.engine.sight import is_closed
from daemon.store.rows import row_values
from tests.engine.conftest import born

NOBODY = 65534


def root_of(folder: Path) -> RootId:
    st = folder.stat()
    return RootId(bytes(folder), st.st_dev, st.st_ino)


def closed(path: Path) -> bool | None:
    return is_closed(bytes(path), fingerprint(path.lstat()))


@pytest.fixture(params=["tmp_path", "/dev/shm"])  # noqa: S108 - a folder of our own in it
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on the disk, and one in memory."""
    if request.param == "tmp_path":
        yield tmp_path
        return
    made = Path(request.param) / f"treewarden-test-{os.getpid()}"
    made.mkdir()
    yield made
    for each in made.iterdir():
        each.unlink()
    made.rmdir()


def test_open_writer(folder: Path) -> None:
    """A file is open while a writer has it, however, and closed when the last has let go."""
    path = folder / "file"
    for mode in ("wb", "ab", "r+b"):
        with path.open(mode) as file:
            file.write(b"x")
            file.flush()
            with path.open("ab"):
                assert closed(path) is False
            assert closed(path) is False
        assert closed(path) is True


def test_writer_in_another_process(folder: Path) -> None:
    """A writer anywhere on this host is seen."""
    path = folder / "file"
    code = "import sys; f = open(sys.argv[1], 'w'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        assert closed(path) is False
        writer.communicate(timeout=10)
    assert closed(path) is True


def test_readers_do_not_matter(folder: Path) -> None:
    """Who only reads does not keep a file from being closed."""
    path = folder / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert closed(path) is True


def test_writable_mapping(folder: Path) -> None:
    """A writable mapping counts as a writer, also after its descriptor is closed."""
    path = folder / "file"
    path.write_bytes(b"x" * 4096)
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    assert closed(path) is False
    mapping.close()
    assert closed(path) is True


def test_another_file_in_its_place(tmp_path: Path) -> None:
    """A file that was replaced between look and probe is not called closed."""
    (tmp_path / "a").write_bytes(b"x")
    seen = fingerprint((tmp_path / "a").lstat())
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "b").rename(tmp_path / "a")
    assert is_closed(bytes(tmp_path / "a"), seen) is False


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """A thousand probes leave no descriptor and no lease: a writer is let in at once."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    for _ in range(1_000):
        assert closed(path) is True
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_kinds(tmp_path: Path) -> None:
    """Only a regular file is a file: nothing is followed, opened or waited for."""
    (tmp_path / "file").write_bytes(b"xyz")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    names = ["file", "folder", "link", "dangling", "fifo", "socket", "none", "file/none"]
    root = root_of(tmp_path)
    looks = look_at_all([Question(bytes(tmp_path / name), root, 0) for name in names])
    kinds = ["file", "directory", "other", "other", "other", "other", "absent", "absent"]
    assert [look.kind for look in looks] == kinds
    assert looks[0].seen == fingerprint((tmp_path / "file").lstat())
    assert [look.seen for look in looks[1:]] == [None] * 7


def test_settled(tmp_path: Path) -> None:
    """Quiet and closed is settled; without a probe quiet alone is; not asked is not judged."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x")
        file.flush()
        look = look_at(Question(bytes(path), quiet=0))
        assert (look.quiet, look.closed, look.settled) == (True, False, False)
        assert look_at(Question(bytes(path), quiet=0, probe=False)).settled
    assert look_at(Question(bytes(path), quiet=0)).evidence == "quiet+lease"
    assert not look_at(Question(bytes(path), quiet=3_600_000_000)).settled
    seen = fingerprint(path.lstat())
    assert look_at(Question(bytes(path), quiet=3_600_000_000, stood=seen)).settled
    assert not look_at(Question(bytes(path))).settled


def test_root_that_is_away(tmp_path: Path) -> None:
    """Nothing is absent from a root that is gone, replaced, or was never there."""
    root = tmp_path / "root"
    root.mkdir()
    known = root_of(root)
    path = bytes(root / "file")
    assert look_at(Question(path, known)).kind == "absent"
    assert look_at(Question(path, None)).kind == "error"
    root.rename(tmp_path / "aside")
    assert look_at(Question(path, known)).kind == "error"
    root.mkdir()
    assert look_at(Question(path, known)).kind == "error"


def test_name_too_long(tmp_path: Path) -> None:
    """What the kernel will not look at is an error, not an absence."""
    look = look_at(Question(bytes(tmp_path / ("x" * 300)), root_of(tmp_path)))
    assert (look.kind, os.strerror(errno.ENAMETOOLONG) in (look.error or "")) == ("error", True)


def test_far_future(tmp_path: Path) -> None:
    """Times and numbers beyond 63 bits, which anybody can set, still fit into the database."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 13_569_465_600 * 10**9))
    if path.lstat().st_mtime_ns <= 2**63:
        pytest.skip("this file system does not keep such times")
    seen = fingerprint(path.lstat())
    values = row_values(born("a", seen=seen).after)
    assert all(abs(value) < 2**63 for value in values if isinstance(value, int))
    os.utime(path, ns=(0, 13_569_465_601 * 10**9))
    assert fingerprint(path.lstat()).content != seen.content


def test_deep_folder(tmp_path: Path) -> None:
    """A path of 1,500 levels is looked at as any other."""
    path = bytes(tmp_path) + b"/d" * 1_500 + b"/file"
    assert look_at(Question(path, root_of(tmp_path), 0)).kind == "absent"


def test_symlink_on_the_way(tmp_path: Path) -> None:
    """What lies behind a symlink inside the tree is elsewhere, also below folders seen before."""
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/deep/file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    root = root_of(tmp_path)
    names = ["real/deep/file", "link/deep/file", "link/deep/other", "link/file", "real/none"]
    looks = look_at_all([Question(bytes(tmp_path / name), root) for name in names])
    kinds = ["file", "elsewhere", "elsewhere", "elsewhere", "absent"]
    assert [look.kind for look in looks] == kinds


def test_link_in_the_place_of_a_file(tmp_path: Path) -> None:
    """Not even one that leads to the file itself is opened: it might lead to a device."""
    (tmp_path / "file").write_bytes(b"x")
    seen = fingerprint((tmp_path / "file").lstat())
    (tmp_path / "link").symlink_to("file")
    assert is_closed(bytes(tmp_path / "link"), seen) is None


UNSEARCHABLE = """
import os, sys
from daemon.engine.disk import Question, look_at
from daemon.engine.identity import RootId
from daemon.engine.sight import is_closed
root, folder = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
st = os.stat(root)
look = look_at(Question(folder + b"/file", RootId(root, st.st_dev, st.st_ino)))
print(look.kind, look.error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_folder_that_may_not_be_searched() -> None:
    """Nothing is concluded about what lies in a folder that this user may not search."""
    root = Path(f"/dev/shm/treewarden-root-{os.getpid()}")  # noqa: S108 - others can reach it
    folder = root / "shut"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x")
    root.chmod(0o755)
    folder.chmod(0o700)
    try:
        command = [sys.executable, "-c", UNSEARCHABLE, str(root), str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    finally:
        (folder / "file").unlink()
        folder.rmdir()
        root.rmdir()
    assert ran.stdout == "error Permission denied (lstat)\n"
