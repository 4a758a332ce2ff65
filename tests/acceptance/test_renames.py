"""A file that is renamed keeps its row, its history and its `done`; a new one is not taken for it.

The watch has a step that reports each file it handles. Most of it is done three times: while the
daemon runs, while it stands still (it sees only how things ended), and while it is down.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.sites import Site
from tests.acceptance.trees import Scene, exchange, live_rows, show

MOMENTS = pytest.mark.parametrize("moment", ["running", "paused", "down"])
CANDIDATES = ("a", "b", "c", "d", "e")


def exchanged_at_once(one: Path, other: Path) -> None:
    exchange(one, other)


def exchanged_by_a_third_name(one: Path, other: Path) -> None:
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


@MOMENTS
def test_a_file_that_is_renamed_keeps_its_row(site: Site, moment: str) -> None:
    """In its folder, to another folder, to one that is only just made: one `move` each."""
    scene = Scene(site)
    in_place, across, deeper = scene.put("a", "x/b", "x/c")
    (scene.tree / "y").mkdir()
    with scene.meanwhile(moment):
        (scene.tree / "a").rename(scene.tree / "renamed")
        (scene.tree / "x/b").rename(scene.tree / "y/b")
        (scene.tree / "fresh/er").mkdir(parents=True)
        (scene.tree / "x/c").rename(scene.tree / "fresh/er/c")
    scene.await_rows({"renamed": in_place, "y/b": across, "fresh/er/c": deeper})
    assert scene.handled() == []
    assert scene.events("renamed")[-2:] == ["succeed", "move"]
    (move,) = scene.daemon.having("move", file_id=deeper)
    assert (move["path"], move["old_path"]) == ("fresh/er/c", "x/c")
    assert (move["from_state"], move["to_state"]) == ("done", "done")
    (kept,) = (r for r in show(site, "y/b")["transitions"] if r["event"] == "move")
    assert kept["old_path"] == "x/b"
    assert not scene.daemon.having("vanish")


@MOMENTS
def test_a_folder_that_is_renamed_takes_its_files_along(site: Site, moment: str) -> None:
    """300 files in three levels, adopted before: 300 moves, nothing handled, nothing vanished."""
    folders = ("", "/sub", "/sub/deep")
    names = [f"old{folders[number % 3]}/f{number}" for number in range(300)]
    for number, name in enumerate(names):
        (site.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (site.tree / name).write_text("x" * (number % 3))
    scene = Scene(site, existing="adopt")
    before = scene.await_rows(dict.fromkeys(names))
    with scene.meanwhile(moment):
        (scene.tree / "old").rename(scene.tree / "new")
    scene.await_rows({f"new{name[3:]}": before[name.encode()].id for name in names})
    assert scene.handled() == []
    assert len(scene.daemon.having("move")) == 300
    assert not scene.daemon.having("vanish")


@pytest.mark.parametrize("way", [exchanged_at_once, exchanged_by_a_third_name])
@MOMENTS
def test_two_files_that_change_places_keep_their_rows(
    site: Site, moment: str, way: Callable[[Path, Path], None]
) -> None:
    """Also two of the same size: each row follows its file, all stay done, nothing is handled."""
    scene = Scene(site)
    (one, other), (third, fourth) = scene.put("a", "sub/b"), scene.put("c", "sub/d")
    (scene.tree / "c").write_text("xx")
    scene.await_rows({"a": one, "sub/b": other, "c": third, "sub/d": fourth})
    assert scene.effects.next() == b"c"
    with scene.meanwhile(moment):
        way(scene.tree / "a", scene.tree / "sub/b")
        way(scene.tree / "c", scene.tree / "sub/d")
    scene.await_rows({"a": other, "sub/b": one, "c": fourth, "sub/d": third})
    assert scene.handled() == []


@MOMENTS
def test_a_log_that_is_rotated(site: Site, moment: str) -> None:
    """`a` to `a.1`, a new `a`, twice: rows follow the files, and only each new `a` is handled."""
    scene = Scene(site)
    (first,) = scene.put("a")
    with scene.meanwhile(moment):
        (scene.tree / "a").rename(scene.tree / "a.1")
        (scene.tree / "a").write_text("second")
    second = scene.await_rows({"a.1": first, "a": None})[b"a"].id
    assert second != first
    with scene.meanwhile(moment):
        (scene.tree / "a.1").rename(scene.tree / "a.2")
        (scene.tree / "a").rename(scene.tree / "a.1")
        (scene.tree / "a").write_text("the third")
    third = scene.await_rows({"a.2": first, "a.1": second, "a": None})[b"a"].id
    assert third not in {first, second}
    assert scene.handled() == ["a", "a"]
    assert scene.events("a.2").count("move") == 2
    assert scene.events("a").count("start") == 1


@pytest.mark.parametrize("excluded", [True, False])
@MOMENTS
def test_a_file_that_is_saved_by_renaming_over_it(
    site: Site, moment: str, *, excluded: bool
) -> None:
    """Write `x.tmp`, fsync, rename over `x`: the row of `x` changes, and is handled once more.

    Nothing is ever handled as `x.tmp`, whether the watch excludes such names or not.
    """
    scene = Scene(site, exclude=["*.tmp"] if excluded else [])
    (number,) = scene.put("x")
    with scene.meanwhile(moment), (scene.tree / "x.tmp").open("w") as file:
        file.write("saved")
        file.flush()
        os.fsync(file.fileno())
        if moment == "running" and not excluded:
            # It has a row of its own by then, and is held open: it cannot have been handled.
            scene.daemon.line("discover", path="x.tmp")
        (scene.tree / "x.tmp").rename(scene.tree / "x")
    scene.daemon.line("succeed", path="x", size=5)
    scene.await_rows({"x": number})
    assert scene.handled() == ["x"]
    events = scene.events("x")
    assert events.count("change") == 1
    assert events.count("start") == events.count("succeed") == 2


@MOMENTS
def test_a_path_whose_former_file_is_gone_can_be_moved_to(site: Site, moment: str) -> None:
    """The row that comes keeps its id; and a new file where it came from is a new one."""
    scene = Scene(site)
    moved, gone = scene.put("a", "b")
    (scene.tree / "b").unlink()
    scene.await_rows({"a": moved})
    with scene.meanwhile(moment):
        (scene.tree / "a").rename(scene.tree / "b")
    scene.await_rows({"b": moved})
    (scene.tree / "a").write_text("new")
    rows = scene.await_rows({"a": None, "b": moved})
    assert rows[b"a"].id != moved
    assert scene.handled() == ["a"]
    assert site.sql("SELECT count(*) FROM transitions WHERE file_id = ?", gone) > [(0,)]


@MOMENTS
def test_a_new_file_with_a_used_inode_is_not_taken_for_a_renamed_one(
    site: Site, moment: str
) -> None:
    """Removed, and another made with the same inode, size and time: it is handled, not moved."""
    scene = Scene(site)
    known = dict(zip(CANDIDATES, scene.put(*CANDIDATES), strict=True))
    with scene.meanwhile(moment):
        new, old = _make_with_used_inode(scene.tree, known)
    scene.daemon.line("succeed", path=new)
    rows = scene.await_rows({**known, new: None})
    assert rows[new.encode()].shown == (old.st_size, old.st_mtime_ns, old.st_ino)
    assert scene.handled() == [new]
    assert not scene.daemon.having("move")


def _make_with_used_inode(tree: Path, known: dict[str, int]) -> tuple[str, os.stat_result]:
    """Remove files, until one is made that looks like one of them but for birth and change time.

    Others who make files at the same time may be given the inode first.
    """
    for name in list(known):
        old = (tree / name).stat()
        (tree / name).unlink()
        del known[name]
        for number in range(20):
            path = tree / f"{name}-{number}"
            path.write_text("y" * old.st_size)
            os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
            if path.stat().st_ino == old.st_ino:
                return path.name, old
            path.rename(tree.parent / path.name)
    pytest.skip("this file system does not use an inode again at once")


def test_a_file_keeps_what_it_waits_for_under_its_new_name(site: Site) -> None:
    """Quarantined stays quarantined; one that still settles goes on, and is handled once."""
    scene = Scene(site, "case $TREEWARDEN_RELPATH in bad) exit 65;; esac")
    (bad,) = scene.put("bad", state="quarantined")
    (scene.tree / "bad").rename(scene.tree / "moved")
    scene.await_rows({"moved": bad}, "quarantined")
    assert scene.events("moved")[-2:] == ["reject", "move"]
    with (scene.tree / "open").open("w") as file:
        number = scene.daemon.line("discover", path="open")["file_id"]
        (scene.tree / "open").rename(scene.tree / "other")
        scene.daemon.line("move", file_id=number, to_state="settling")
        file.write("all of it")
    scene.daemon.line("succeed", path="other", file_id=number, size=9)
    assert scene.handled() == ["other"]


def test_a_handler_may_rename_its_file_inside_the_tree(site: Site) -> None:
    """`mv` to another folder: the row follows, and none of 20 files is handled again."""
    scene = Scene(site, 'mv "$TREEWARDEN_PATH" "${TREEWARDEN_PATH%/in/*}/in/done/"')
    (scene.tree / "done").mkdir()
    names = [f"f{number}" for number in range(20)]
    for number, name in enumerate(names):
        (scene.tree / name).write_text("x" * number)
    rows = scene.await_rows(dict.fromkeys(f"done/{name}" for name in names))
    assert scene.handled() == sorted(names)
    discovered = {line["file_id"] for line in scene.daemon.having("discover")}
    assert {row.id for row in rows.values()} == discovered
    assert len(discovered) == 20


def test_a_name_decides_whether_a_renamed_file_concerns_us(site: Site) -> None:
    """Into the patterns: a new file. Out of them: gone. Out of the tree and back: known as done."""
    scene = Scene(site, exclude=["*.part"])
    (scene.tree / "a.part").write_text("in")
    (out, away) = scene.put("b", "c")
    (scene.tree / "a.part").rename(scene.tree / "a")
    scene.await_rows({"a": None, "b": out, "c": away})
    (scene.tree / "b").rename(scene.tree / "b.part")
    (scene.tree / "c").rename(site.folder / "c")
    scene.await_rows({"a": None})
    (site.folder / "c").rename(scene.tree / "c")
    scene.await_rows({"a": None, "c": away})
    assert scene.handled() == ["a"]
    assert len(scene.daemon.having("vanish")) == 2


def test_a_file_that_goes_to_another_watch_is_handled_there(site: Site) -> None:
    """Each watch has its own rows: gone from one, new in the other."""
    scene = Scene(site)
    scene.daemon.stop()
    (site.folder / "other").mkdir()
    text = site.config.read_text()
    head, _, watch = text.partition("[[watch]]\n")
    second = watch.replace('"w"', '"v"').replace('"in"', '"other"')
    site.config.write_text(f"{head}[[watch]]\n{watch}\n[[watch]]\n{second}")
    scene.daemon = site.start().ready()
    (number,) = scene.put("a")
    (scene.tree / "a").rename(site.folder / "other/a")
    scene.daemon.line("succeed", watch="v", path="a")
    scene.await_rows({})
    assert scene.handled() == ["a"]
    assert [row.state for row in live_rows(site, "v").values()] == ["done"]
    assert live_rows(site, "v")[b"a"].id != number
