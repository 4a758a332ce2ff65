"""What is half written is on record, and what a former run left of it is removed: that alone."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.handlers.copying import write_beside
from daemon.handlers.parts import NAME, Parts, part_in


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


def on_record(tmp_path: Path) -> list[bytes]:
    return [os.fsencode(link.readlink()) for link in (tmp_path / NAME).iterdir()]


def left(parts: Parts, archive: Path, name: bytes = b"a\n\xff") -> Path:
    """A part whose maker was killed."""
    part = part_in(os.fsencode(archive), name)
    with parts.writing(part):
        Path(os.fsdecode(part)).write_text("half")
    return Path(os.fsdecode(part))


def test_names() -> None:
    """A part is taken up by the next try for the same, and by nothing else."""
    assert part_in(b"/x", b"/in", b"a") == part_in(b"/x", b"/in", b"a")
    assert len({part_in(b"/x", *what) for what in ((b"/in", b"a"), (b"/in", b"b"), (b"/i",))}) == 3


def test_stopped(parts: Parts, archive: Path) -> None:
    """Whoever cleans and is told to stop removes nothing more: it may be written again by then."""
    for name in (b"a", b"b", b"c"):
        left(parts, archive, name)
    answers = iter((False, True))
    parts.clean(lambda: next(answers))
    assert len(list(archive.iterdir())) == 2


def test_on_record_while_it_is_there(parts: Parts, tmp_path: Path, archive: Path) -> None:
    """From before it is made until it has its name."""
    part = part_in(os.fsencode(archive), b"a")
    with parts.writing(part):
        assert on_record(tmp_path) == [part]
        Path(os.fsdecode(part)).write_text("whole")
        Path(os.fsdecode(part)).rename(archive / "a")
    assert on_record(tmp_path) == []


def test_word_on_record(
    parts: Parts, tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is the word beside a file."""
    seen = []
    monkeypatch.setattr("daemon.handlers.copying.name", lambda *_: seen.extend(on_record(tmp_path)))
    write_beside(os.fsencode(archive / "a.reason.json"), b"why", parts)
    assert seen == [os.fsencode(path) for path in archive.iterdir()]


@pytest.mark.parametrize("again", [False, True])
def test_left_by_a_former_run(tmp_path: Path, parts: Parts, archive: Path, *, again: bool) -> None:
    """What is on record is removed, with the record of it, and nothing beside it."""
    part = left(parts, archive)
    if again:
        left(parts, archive)
    (archive / "a").write_text("whole")
    Parts.open(tmp_path).clean()
    assert (list(archive.iterdir()), on_record(tmp_path)) == ([archive / "a"], [])
    assert not part.exists()


def test_archive_that_is_away(tmp_path: Path, parts: Parts, archive: Path) -> None:
    """What cannot be reached stays on record, for the start after the one that finds it away."""
    part = left(parts, archive)
    archive.rename(tmp_path / "unmounted")
    parts.clean()
    assert on_record(tmp_path) == [os.fsencode(part)]
    (tmp_path / "unmounted").rename(archive)
    parts.clean()
    assert (list(archive.iterdir()), on_record(tmp_path)) == ([], [])


def _precious(_: Path, part: Path) -> Path:
    """A link to something else that would be removed, or replaced, if it were followed."""
    precious = part.with_name("precious")
    precious.write_text("half")
    part.unlink()
    part.symlink_to(precious)
    return part


def _folder(_: Path, part: Path) -> Path:
    part.unlink()
    part.mkdir()
    return part


def _other_name(record: Path, part: Path) -> Path:
    """A record that leads to what is no part."""
    part.rename(part.with_name("report.csv"))
    (link,) = record.iterdir()
    link.unlink()
    link.symlink_to(part.with_name("report.csv"))
    return part.with_name("report.csv")


def _other_record(record: Path, part: Path) -> Path:
    """A record that was made for another part."""
    (link,) = record.iterdir()
    link.rename(link.with_name("0" * 32))
    return part


@pytest.mark.parametrize("turn", [_precious, _folder, _other_name, _other_record])
def test_what_is_not_ours(
    tmp_path: Path, parts: Parts, archive: Path, turn: Callable[[Path, Path], Path]
) -> None:
    """Whatever else stands there, or is said to be a part, is left alone."""
    stays = turn(tmp_path / NAME, left(parts, archive))
    parts.clean()
    assert stays.exists()


def test_link_in_the_place_of_a_part(archive: Path, tmp_path: Path) -> None:
    """Nothing is written through a link that somebody has put where a part will be."""
    (tmp_path / "precious").write_text("precious")
    path = os.fsencode(archive / "a.reason.json")
    part = Path(os.fsdecode(part_in(os.fsencode(archive), path)))
    part.symlink_to(tmp_path / "precious")
    write_beside(path, b"why")
    assert (tmp_path / "precious").read_text() == "precious"
    assert [path.name for path in archive.iterdir()] == ["a.reason.json"]


def test_no_room_for_the_record(
    parts: Parts, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is taken though its part cannot be put on record."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "symlink", full)
    write_beside(os.fsencode(archive / "a.reason.json"), b"why", parts)
    assert (archive / "a.reason.json").read_bytes() == b"why"
