"""Directories against rows, in the thread of the scan."""

import errno
import os
from pathlib import Path

import pytest

from daemon.config import Settle, Watch
from daemon.core.hidden import hidden
from daemon.engine import listing, scanning
from daemon.engine.disk import fingerprint
from daemon.engine.listing import Listing, summarize
from daemon.engine.scanning import Differences, compare_directories, missing_in, vanished
from daemon.engine.trees import Tree
from daemon.store import Known
from tests.unit import shortage


def tree_at(folder: Path, **options: object) -> Tree:
    return Tree(Watch(name="w", path=folder, **options))  # type: ignore[arg-type]


def known(path: Path, state: str = "done", plan: str = "process") -> Known:
    seen = fingerprint(path.lstat())
    return Known(seen.ino, seen.size, seen.mtime_ns, state, plan)


def test_every_name(tmp_path: Path) -> None:
    """Files are new as they are seen, folders are to be entered, the rest is neither."""
    for name in (b"a", b"\xff\n"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    os.mkfifo(tmp_path / "p")
    found = compare_directories(tree_at(tmp_path), [b""], [{}])
    assert dict(found.new)[b"a"] == fingerprint((tmp_path / "a").lstat())
    assert {path for path, _ in found.new} == {b"a", b"\xff\n"}
    assert (found.folders, sorted(found.others)) == ([b"d"], [b"l", b"p"])
    assert (found.directories, found.files) == (1, 2)


def test_what_rows_know(tmp_path: Path) -> None:
    """An equal file is passed over; another content and a return are told, a folder is no file."""
    for name in ("same", "other", "back", "mine"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    rows = {name.encode(): known(tmp_path / name) for name in ("same", "other", "folder", "mine")}
    rows[b"mine"] = known(tmp_path / "mine", "processing")
    rows[b"back"] = Known(None, None, None, "gone", "process")
    (tmp_path / "other").write_bytes(b"another")
    found = compare_directories(tree_at(tmp_path), [b""], [rows])
    assert (found.new, found.back) == ([], [b"back"])
    assert (found.changed, found.missing) == ([b"other"], [b"folder"])


def test_missing(tmp_path: Path) -> None:
    """Missing is what should be there: not what is gone, being handled, or to be cleared away."""
    rows = {
        b"done": Known(1, 1, 1, "done", "process"),
        b"gone": Known(None, None, None, "gone", "process"),
        b"handled": Known(1, 1, 1, "processing", "process"),
        b"removing": Known(None, None, None, "ready", "remove"),
    }
    (tmp_path / "d").mkdir()
    found = compare_directories(tree_at(tmp_path), [b"d"], [dict(rows)])
    assert (found.missing, found.sparse) == ([b"d/done"], [b"d"])
    assert missing_in(tree_at(tmp_path), [b"d", b"e"], [dict(rows), dict(rows)]) == [
        b"d/done",
        b"e/done",
    ]
    assert vanished(tree_at(tmp_path), [b"d", b"e", b""]) == [b"e"]


def test_patterns(tmp_path: Path) -> None:
    """What the patterns leave out is not new, and excluded folders are not entered."""
    (tmp_path / "a.part").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    found = compare_directories(tree_at(tmp_path, exclude=("*.part", ".*")), [b""], [{}])
    assert (found.new, found.folders, found.files) == ([], [], 1)


def test_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a file has while it is taken away is not seen; one that has it for long is."""
    name = hidden("withdrawn", b"a")
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    tree = tree_at(tmp_path)
    assert not tree.concerns(b"d/" + name)
    assert compare_directories(tree, [b""], [{}]).new == []
    monkeypatch.setattr(scanning, "PASSING_US", 0)
    assert [path for path, _ in compare_directories(tree, [b""], [{}]).new] == [name]


def test_signs(tmp_path: Path) -> None:
    """Markers and manifests are no new files, and are told beside them."""
    for name in ("a", "a.done", "x.manifest", "b.part"):
        (tmp_path / name).write_bytes(b"x")
    settle = Settle(marker="{name}.done", manifest="*.manifest")
    tree = tree_at(tmp_path, exclude=("*.part",), settle=settle)
    found = compare_directories(tree, [b""], [{}])
    assert [path for path, _ in found.new] == [b"a"]
    assert (sorted(found.aside), found.files) == ([b"a.done", b"x.manifest"], 4)


def test_only_the_ctime(tmp_path: Path) -> None:
    """A file of which only the ctime is another is told beside the changed ones, by content."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    row = known(path)
    found = compare_directories(tree_at(tmp_path), [b""], [{b"a": row}])
    assert (found.changed, found.aside) == ([], [])
    earlier = row._replace(ctime_ns=path.stat().st_ctime_ns - 1)
    found = compare_directories(tree_at(tmp_path), [b""], [{b"a": earlier}])
    assert (found.changed, found.aside) == ([], [b"a"])
    same = row._replace(ctime_ns=path.stat().st_ctime_ns)
    assert compare_directories(tree_at(tmp_path), [b""], [{b"a": same}]).aside == []


def test_numbers_beyond_63_bits(tmp_path: Path) -> None:
    """A time that the database keeps wrapped is compared wrapped."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 13_569_465_600 * 10**9))
    found = compare_directories(tree_at(tmp_path), [b""], [{b"a": known(path)}])
    assert found == Differences(directories=1, files=1)


def test_out_of_descriptors(tmp_path: Path) -> None:
    """A shortage of descriptors is an error of the listing: nothing may be concluded from it."""
    rows = {b"a": Known(1, 1, 1, "done", "process")}
    with shortage.of_descriptors():
        found = compare_directories(tree_at(tmp_path), [b""], [rows])
    assert found == Differences(unreadable=[(b"", errno.EMFILE)])


def summary_at(folder: Path) -> tuple[int, bytes]:
    """Of rows that show all the files of a folder."""
    rows = {path.name: known(path) for path in folder.iterdir() if path.is_file()}
    return summarize((name.encode(), row.ino, row.size, row.mtime_ns) for name, row in rows.items())


def test_summary(tmp_path: Path) -> None:
    """Rows are read only where a folder shows something else than their summary does."""
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    (folder / "pipe").symlink_to("nowhere")
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x")
    summary = summary_at(folder)
    assert reads_rows(tmp_path, summary) == (False, [b"d/sub"], [b"d/pipe"])
    (folder / "c").write_bytes(b"x")
    assert reads_rows(tmp_path, summary)[0]
    (folder / "c").replace(folder / "b")
    assert reads_rows(tmp_path, summary)[0]
    summary = summary_at(folder)
    assert not reads_rows(tmp_path, summary)[0]
    (folder / "b").unlink()
    assert reads_rows(tmp_path, summary)[0]
    (folder / "b").mkdir()
    assert reads_rows(tmp_path, summary)[0]


def reads_rows(root: Path, summary: tuple[int, bytes]) -> tuple[bool, list[bytes], list[bytes]]:
    """Whether the rows of `d` are asked for; what stands there that is no file."""
    asked: list[bytes] = []

    def rows_of(directory: bytes) -> dict[bytes, Known]:
        asked.append(directory)
        return {}

    found = Listing()
    found.compare_all(bytes(root), [b"d"], rows_of, {b"d": summary}.get)
    assert (found.directories, found.unreadable) == (1, [])
    return bool(asked), found.folders, found.others


def test_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many files, changed or not, the other directories are left for another turn."""
    monkeypatch.setattr(listing, "TURN", 2)
    for name in ("d/a", "d/b", "d/c", "e/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    rows = {name.encode(): known(tmp_path / "d" / name) for name in "abc"}
    found = compare_directories(tree_at(tmp_path), [b"d", b"e"], [rows, {}])
    assert (found.files, found.unread) == (3, [b"e"])
