"""Opening the file of a job: it and nothing else, whatever was put in its place."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core.model import Key
from daemon.engine.disk import seen_at
from daemon.handlers import Job, opened
from daemon.handlers.opened import Replaced, open_seen
from tests.unit import swaps


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fact holds for both ways, that of new kernels and that of old ones."""
    if request.param == "walk":

        def missing(_folder: int, _path: bytes) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(opened, "_openat2", missing)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "sub" / "deep").mkdir(parents=True)
    return tmp_path / "tree"


def job_of(root: Path, path: bytes) -> Job:
    whole = os.fsencode(root) + b"/" + path
    return Job(1, Key("w", path), whole, "s", 1, "k", seen=seen_at(whole))


FILE = "sub/deep/file"


def made(root: Path, path: str = FILE, content: str = "settled") -> Job:
    (root / path).write_text(content, encoding="utf-8")
    return job_of(root, os.fsencode(path))


def read(job: Job) -> bytes:
    with os.fdopen(open_seen(job), "rb") as file:
        return file.read()


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough


@pytest.mark.parametrize("path", ["file", "sub/deep/file", "--help", "new\nline", "sub/..."])
def test_the_file_itself(root: Path, path: str) -> None:
    """What has settled is opened, for reading, and not inherited by programs."""
    job = made(root, path)
    fd = open_seen(job)
    assert (os.read(fd, 99), os.get_inheritable(fd), os.get_blocking(fd)) == (
        b"settled",
        False,
        True,
    )
    os.close(fd)


def test_name_that_is_not_utf8(root: Path) -> None:
    """Names are bytes."""
    path = os.fsencode(root) + b"/sub/\xff\xfe"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"bytes")
    os.close(fd)
    assert read(job_of(root, b"sub/\xff\xfe")) == b"bytes"


def test_path_longer_than_the_kernel_takes(root: Path) -> None:
    """A file further down than PATH_MAX is opened as any other."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    part = b"d" * 250
    for _ in range(20):
        os.mkdir(part, dir_fd=folder)
        inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = inner
    fd = os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.write(fd, b"deep down")
    os.close(fd)
    st = os.stat(b"file", dir_fd=folder)
    os.close(folder)
    plain = made(root)
    assert plain.seen is not None
    seen = plain.seen._replace(size=st.st_size, mtime_ns=st.st_mtime_ns, ino=st.st_ino)
    path = b"/".join([*[part] * 20, b"file"])
    whole = os.fsencode(root) + b"/" + path
    assert read(replace(plain, file=Key("w", path), path=whole, seen=seen)) == b"deep down"


def link_inside(root: Path, path: str) -> None:
    (root / path).rename(root / "moved")
    (root / path).symlink_to("../../moved")


def link_folder(root: Path, path: str) -> None:
    folder = (root / path).parent
    folder.rename(folder.with_name("other"))
    folder.symlink_to("other")


def grown(root: Path, path: str) -> None:
    with (root / path).open("a", encoding="utf-8") as file:
        file.write("!")


def touched(root: Path, path: str) -> None:
    os.utime(root / path, ns=(1, 1))


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (swaps.link_file, "symbolic link"),
        (link_inside, "symbolic link"),
        (swaps.link_above, "symbolic link"),
        (link_folder, "symbolic link"),
        (swaps.fifo, "not a regular file"),
        (swaps.folder, "not a regular file"),
        (swaps.other_file, "not the one that has settled"),
        (grown, "not the one that has settled"),
        (touched, "not the one that has settled"),
    ],
)
def test_replaced(root: Path, act: Callable[[Path, str], None], why: str) -> None:
    """What was put in the file's place is refused, though it would lead to the very same bytes."""
    job = made(root)
    act(root, FILE)
    before = descriptors()
    with pytest.raises(Replaced, match=why):
        open_seen(job)
    assert descriptors() == before


@pytest.mark.parametrize("path", [b"../outside", b"sub/../../outside"])
def test_leads_out(root: Path, path: bytes) -> None:
    """No path that a job may have leads out of the root, whoever has put it together."""
    (root.parent / "outside").write_text("settled", encoding="utf-8")
    with pytest.raises(Replaced):
        open_seen(job_of(root, path))


def test_gone(root: Path) -> None:
    """A file that is not there any more is the system's error, and no replacement."""
    job = made(root)
    (root / "sub/deep/file").unlink()
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        open_seen(job)
    assert descriptors() == before


def test_folder_became_a_file(root: Path) -> None:
    """Neither is a folder above it that is none any more."""
    job = made(root)
    (root / "sub/deep/file").unlink()
    (root / "sub/deep").rmdir()
    (root / "sub/deep").write_text("a file", encoding="utf-8")
    with pytest.raises(NotADirectoryError):
        open_seen(job)


def test_removal(root: Path) -> None:
    """The removal of a file has no file to open."""
    with pytest.raises(Replaced, match="removal"):
        open_seen(replace(made(root), seen=None, plan="remove"))


def test_number_beyond_63_bits(root: Path) -> None:
    """An inode that the database keeps as a negative number is the same inode."""
    job = made(root)
    assert job.seen is not None
    wrapped = job.seen._replace(ino=job.seen.ino - 2**64)
    assert read(replace(job, seen=wrapped)) == b"settled"
