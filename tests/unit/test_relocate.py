"""Taking a file away: where to, never onto another, never another one, and what stays on errors."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.engine.disk import seen_at
from daemon.handlers import copying, renaming
from daemon.handlers.archive import Elsewhere
from daemon.handlers.below import Absent, Changed, File
from daemon.handlers.copying import Stopped, write_beside
from daemon.handlers.relocate import Place, delete, find, finish, move


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "d").mkdir(parents=True)
    return tmp_path / "tree"


@pytest.fixture(params=["same file system", "another file system", "without renameat2"])
def archive(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder to take files to: reached by a rename, or only by a copy."""
    if request.param == "without renameat2":
        monkeypatch.setattr(renaming, "_renameat2", None)
    if request.param != "another file system":
        (tmp_path / "archive").mkdir()
        yield tmp_path / "archive"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert Path(folder).stat().st_dev != tmp_path.stat().st_dev
        yield Path(folder)


def written(tree: Path, path: str = "d/a.csv", text: str = "content") -> File:
    (tree / path).write_text(text)
    seen = seen_at(os.fsencode(tree / path))
    assert seen is not None
    return File(os.fsencode(tree), os.fsencode(path), seen)


def place(archive: Path, path: str = "x/y/a.csv", **more: Any) -> Place:
    return Place(os.fsencode(archive), os.fsencode(archive / path), **more)


def files(folder: Path) -> dict[str, str]:
    """Everything in a folder, parts of copies included."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_moved(tree: Path, archive: Path) -> None:
    """The file is at its place with its bytes, mode and time, and nowhere else."""
    file = written(tree)
    (tree / "d/a.csv").chmod(0o640)
    assert move(file, place(archive)) == os.fsencode(archive / "x/y/a.csv")
    assert (files(tree), files(archive)) == ({}, {"x/y/a.csv": "content"})
    st = (archive / "x/y/a.csv").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o640, file.seen.mtime_ns)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("archive", ["another file system"], indirect=True)
def test_copy_is_nobody_elses(tree: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy belongs to whom the file belongs, and is never readable by more: not for a moment."""
    monkeypatch.setattr(copying, "CHUNK", 3)
    file, modes = written(tree), []
    (tree / "d/a.csv").chmod(0o640)
    os.chown(tree / "d/a.csv", 12_345, 23_456)

    def look() -> bool:
        (part,) = (archive / "x/y").iterdir()
        modes.append(stat.S_IMODE(part.stat().st_mode))
        return False

    move(file, place(archive), look)
    st = (archive / "x/y/a.csv").stat()
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (12_345, 23_456, 0o640)
    assert set(modes) == {0o600}


def test_never_onto_an_existing_file(tree: Path, archive: Path) -> None:
    """What is in the way stays, and the file gets the first number that is free."""
    for name in ("a.csv", "a.1.csv"):
        (archive / name).write_text(name)
    (archive / "a.2.csv").symlink_to("nowhere")
    assert move(written(tree), place(archive, "a.csv")) == os.fsencode(archive / "a.3.csv")
    there = {"a.csv": "a.csv", "a.1.csv": "a.1.csv", "a.3.csv": "content"}
    assert (files(tree), files(archive)) == ({}, there)


def test_overwrite(tree: Path, archive: Path) -> None:
    """Where that is asked for, the file takes the place of the one that is there."""
    (archive / "a.csv").write_text("old")
    move(written(tree), place(archive, "a.csv", overwrite=True))
    assert (files(tree), files(archive)) == ({}, {"a.csv": "content"})


@pytest.mark.parametrize("overwrite", [True, False])
def test_another_link_of_the_same_file(tree: Path, tmp_path: Path, *, overwrite: bool) -> None:
    """Where the file itself has its place already, only the name in the tree goes."""
    file = written(tree)
    (tmp_path / "a.csv").hardlink_to(tree / "d/a.csv")
    assert move(file, place(tmp_path, "a.csv", overwrite=overwrite)) == bytes(tmp_path / "a.csv")
    assert (files(tree), (tmp_path / "a.csv").read_text()) == ({}, "content")


def test_unlinked_late(tree: Path, archive: Path) -> None:
    """A complete copy whose maker was cut off before the unlink is the file: it is not doubled."""
    file = written(tree)
    (archive / "a.csv").write_text("content")
    os.utime(archive / "a.csv", ns=(0, file.seen.mtime_ns))
    expected = {"a.csv": "content"}
    if (archive / "a.csv").stat().st_dev == (tree / "d/a.csv").stat().st_dev:
        expected["a.1.csv"] = "content"  # a rename leaves nothing half done: this is another file
    move(file, place(archive, "a.csv"))
    assert (files(tree), files(archive)) == ({}, expected)


def test_finished(tree: Path, archive: Path) -> None:
    """What was cut off between the copy and the unlink is ended; nothing else is taken away."""
    file, there = written(tree), place(archive, "a.csv")
    assert finish(file, there) is None
    (archive / "a.csv").write_text("another")  # as long as it, and of the same time
    os.utime(archive / "a.csv", ns=(0, file.seen.mtime_ns))
    assert finish(file, there) is None
    (archive / "a.csv").write_text("content")
    os.utime(archive / "a.csv", ns=(0, file.seen.mtime_ns))
    if (archive / "a.csv").stat().st_dev == (tree / "d/a.csv").stat().st_dev:
        assert finish(file, there) is None  # a rename leaves nothing half done
        return
    assert finish(file, there) == os.fsencode(archive / "a.csv")
    assert files(tree) == {}


def test_found_again(tree: Path, archive: Path) -> None:
    """A file that was taken is found, under its number as well; one that was not is not."""
    file = written(tree)
    (archive / "a.csv").write_text("another")
    target = move(file, place(archive, "a.csv"))
    assert find(file, place(archive, "a.csv")) == target == os.fsencode(archive / "a.1.csv")
    assert find(file, place(archive, "b.csv")) is None
    with pytest.raises(Absent):
        move(file, place(archive, "a.csv"))


def change(tree: Path) -> None:
    (tree / "d/a.csv").write_text("something longer")


def replace(tree: Path) -> None:
    (tree / "other").write_text("content")
    (tree / "other").replace(tree / "d/a.csv")


def link(tree: Path) -> None:
    (tree / "d/a.csv").rename(tree / "other")
    (tree / "d/a.csv").symlink_to(tree / "other")


def link_folder(tree: Path) -> None:
    (tree / "d").rename(tree / "e")
    (tree / "d").symlink_to("e")


def pipe(tree: Path) -> None:
    (tree / "d/a.csv").unlink()
    os.mkfifo(tree / "d/a.csv")


@pytest.mark.parametrize("happens", [change, replace, link, link_folder, pipe])
def test_only_what_was_handled(tree: Path, archive: Path, happens: Any) -> None:
    """A file that changed, or whatever else stands there now, is neither moved nor deleted."""
    file = written(tree)
    happens(tree)
    before = files(tree)
    for take in (lambda: move(file, place(archive)), lambda: delete(file)):
        with pytest.raises((Changed, Absent)):
            take()
    assert (files(tree), files(archive)) == (before, {})


def test_not_deleted_while_it_is_written(tree: Path) -> None:
    """What somebody has open for writing is not removed: what they write would be lost."""
    file = written(tree)
    with (tree / "d/a.csv").open("a"), pytest.raises(Changed, match="open for writing"):
        delete(file)
    delete(file)
    assert files(tree) == {}


def test_stopped(tree: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is cut short leaves no part of it, and the file where it was."""
    monkeypatch.setattr(copying, "CHUNK", 3)
    file = written(tree)
    if archive.stat().st_dev == tree.stat().st_dev:
        move(file, place(archive), lambda: True)
        assert files(archive) == {"x/y/a.csv": "content"}
        return
    with pytest.raises(Stopped):
        move(file, place(archive), lambda: True)
    assert (files(tree), files(archive)) == ({"d/a.csv": "content"}, {})


def test_without_sendfile(tree: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not copy from one file system to another we do, every byte of it."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(copying, "CHUNK", 3)
    monkeypatch.setattr(os, "sendfile", refuse)
    move(written(tree), place(archive))
    assert (files(tree), files(archive)) == ({}, {"x/y/a.csv": "content"})


@pytest.mark.parametrize("call", ["sendfile", "fsync"])
def test_full(tree: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Where the disk is full nothing is left of the copy, and the file stays."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = written(tree)
    if archive.stat().st_dev != tree.stat().st_dev:
        (archive / "x/y").mkdir(parents=True)
        with monkeypatch.context() as broken:
            broken.setattr(os, call, full)
            with pytest.raises(OSError, match="No space"):
                move(file, place(archive))
        assert (files(tree), files(archive)) == ({"d/a.csv": "content"}, {})
    move(file, place(archive))
    assert (files(tree), files(archive)) == ({}, {"x/y/a.csv": "content"})


def test_base_must_be_there(tree: Path, tmp_path: Path) -> None:
    """What is not mounted is not made: files would land below the mount point."""
    file = written(tree)
    with pytest.raises(FileNotFoundError, match="make it, or mount it"):
        move(file, place(tmp_path / "away"))
    assert files(tree) == {"d/a.csv": "content"}


class Stranger:
    """A guard that does not know what stands there."""

    is_sure = True

    def knows(self, fd: int) -> bool:
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
        return False

    async def meet(self) -> str | None:
        return "unknown"


def test_base_must_be_known(tree: Path, archive: Path) -> None:
    """To a folder that the guard does not know nothing is taken, and nothing is found there."""
    file = written(tree)
    strange = place(archive, guard=Stranger())
    with pytest.raises(Elsewhere):
        move(file, strange)
    assert (files(tree), list(archive.iterdir())) == ({"d/a.csv": "content"}, [])
    for look in (find, finish):
        with pytest.raises(Elsewhere):
            look(file, strange)


def test_reserved_name_is_given_back(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an empty file has to keep the name, an error of the rename leaves none."""
    monkeypatch.setattr(renaming, "_renameat2", None)
    with pytest.raises(FileNotFoundError):
        renaming.rename_new(bytes(tree / "none"), bytes(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def test_word_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a word beside a file that fails half-way nothing stays."""

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("daemon.handlers.copying.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_beside(os.fsencode(tmp_path / "a.reason.json"), b"why")
    assert list(tmp_path.iterdir()) == []
