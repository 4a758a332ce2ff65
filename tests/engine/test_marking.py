"""Marker files: a file settles with its marker, which is removed when it has."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.config import Settle, Watch
from daemon.core.model import Key
from daemon.core.settle import BACKSTOP_US
from daemon.engine.disk import Question, look_at
from daemon.engine.signs import UsedUp, remove
from daemon.engine.trees import Tree
from daemon.handlers import Outcome
from tests.engine.conftest import Gate, Open
from tests.engine.test_identity import look, scanned, story

HOSTILE = [b"a\nb.csv", b"\xff\xfe.x", b"%s {name}", b" ", b"-rf", b"n" * 250]


def marked(pattern: str = "{name}.done", **settle: Any) -> dict[str, Any]:
    return {"settle": Settle(quiet=0.0, marker=pattern, **settle)}


def put(tree: Path, name: bytes, content: bytes = b"x", mtime: int | None = None) -> Path:
    path = Path(os.fsdecode(bytes(tree) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def key_of(rig: Rig, name: bytes) -> Key:
    return Key(rig.watch, name)


@pytest.mark.parametrize("name", [b"a", b"sub/deep/a.csv", *HOSTILE])
async def test_settles_with_its_marker(engine: Open, tree: Path, name: bytes) -> None:
    """A file settles when a hint tells of its marker, whatever it is called; no marker is left."""
    async with engine(**marked()) as rig:
        put(tree, name)
        path, marker = key_of(rig, name), name + b".done"
        await look(rig, path)
        assert (await rig.row(path)).state == "settling"
        there = put(tree, marker, b"")
        await look(rig, key_of(rig, marker))
        assert (await rig.row(path)).state == "ready"
        (settle,) = [line for line in await rig.lines() if line["event"] == "settle"]
        assert settle["evidence"] == "quiet+lease+marker"
        assert not there.exists()
        assert (await rig.row(key_of(rig, marker))).id == 0


async def test_waits_without_being_polled(engine: Open, tree: Path) -> None:
    """A file without its marker is looked at again a minute later, however often a hint comes."""
    async with engine(**marked()) as rig:
        path = key_of(rig, b"a")
        with put(tree, b"a").open("ab"):
            await look(rig, path)
        row = await rig.row(path)
        assert row.due_at == row.at + BACKSTOP_US
        first = rig.service._alarms._alarms[row.id].due
        await look(rig, path)
        assert rig.service._alarms._alarms[row.id].due > first
        assert await story(rig, path) == ["discover"]


async def test_marker_first(engine: Open, tree: Path) -> None:
    """A marker that is there before its file does not count, unless the file is dated back."""
    async with engine(**marked()) as rig:
        for name in (b"later", b"dated"):
            put(tree, name + b".done", b"", 1_000)
            await look(rig, key_of(rig, name + b".done"))
            put(tree, name, b"x", 999 if name == b"dated" else 1_001)
            await look(rig, key_of(rig, name))
        assert (await rig.row(key_of(rig, b"later"))).state == "settling"
        assert (await rig.row(key_of(rig, b"dated"))).state == "ready"
        assert [path.name for path in tree.glob("*.done")] == ["later.done"]


async def test_stale_marker_is_made_anew(engine: Open, tree: Path) -> None:
    """A left-over of a former delivery is not removed; touched after the file, it counts."""
    async with engine(**marked()) as rig:
        put(tree, b"a.done", b"", 1_000)
        put(tree, b"a")
        await scanned(rig)
        assert (await rig.row(key_of(rig, b"a"))).state == "settling"
        assert (tree / "a.done").exists()
        (tree / "a.done").touch()
        await look(rig, key_of(rig, b"a.done"))
        assert (await rig.row(key_of(rig, b"a"))).state == "ready"


async def test_marker_that_went_before_its_file_settled(engine: Open, tree: Path) -> None:
    """A producer that takes its word back: the file waits for another marker."""
    async with engine(**marked()) as rig:
        with put(tree, b"a").open("ab"):
            (tree / "a.done").touch()
            await look(rig, key_of(rig, b"a"))
            (tree / "a.done").unlink()
        await look(rig, key_of(rig, b"a.done"))
        await look(rig, key_of(rig, b"a"))
        assert (await rig.row(key_of(rig, b"a"))).state == "settling"


@pytest.mark.parametrize("kind", ["folder", "link"])
async def test_what_is_no_marker(engine: Open, tree: Path, kind: str) -> None:
    """Of a marker's name, a folder is scanned as any other, and a link counts for nothing."""
    async with engine(**marked()) as rig:
        put(tree, b"a")
        if kind == "folder":
            (tree / "a.done").mkdir()
        else:
            put(tree.parent, b"elsewhere")
            (tree / "a.done").symlink_to(tree.parent / "elsewhere")
        await look(rig, key_of(rig, b"a.done"))
        await look(rig, key_of(rig, b"a"))
        assert (await rig.row(key_of(rig, b"a"))).state == "settling"
        if kind == "folder":
            assert await rig.service.inbox.next_scans() == [(rig.key("a.done"), "new_directory")]


@pytest.mark.parametrize("state", ["ready", "done", "failed"])
async def test_marker_that_a_crash_left(engine: Open, tree: Path, state: str) -> None:
    """Killed between the commit and the removal: the next scan removes the marker, and no more."""
    gate = Gate()
    async with engine(gate, **marked()) as rig:
        path = key_of(rig, b"a")
        put(tree, b"a")
        put(tree, b"a.done", b"")
        await look(rig, path)
        if state != "ready":
            await rig.send(path, "start")
            await gate.let_pass(Outcome("success" if state == "done" else "retry"))
        version = (await rig.state(path, [state])).version
        await rig.service.inbox.idle()
        put(tree, b"a.done", b"")
        await scanned(rig)
        assert not (tree / "a.done").exists()
        assert ((await rig.row(path)).state, (await rig.row(path)).version) == (state, version)


async def test_marker_of_the_next_delivery(engine: Open, tree: Path) -> None:
    """A marker that a hint tells of before its new content was looked at is not taken for old."""
    gate = Gate()
    async with engine(gate, **marked()) as rig:
        path = key_of(rig, b"a")
        put(tree, b"a")
        put(tree, b"a.done", b"")
        await look(rig, path)
        await rig.send(path, "start")
        await gate.let_pass()
        await rig.state(path, ["done"])
        await rig.service.inbox.idle()
        put(tree, b"a", b"next")
        put(tree, b"a.done", b"")
        await look(rig, key_of(rig, b"a.done"))
        assert (await rig.row(path)).state == "settling"
        assert (tree / "a.done").exists()
        await look(rig, path)
        assert (await rig.row(path)).state == "ready"
        assert not (tree / "a.done").exists()


async def test_delivered_anew_while_it_is_handled(engine: Open, tree: Path) -> None:
    """A marker that comes with another content while a handler runs is kept for that content."""
    gate = Gate()
    async with engine(gate, **marked()) as rig:
        path = key_of(rig, b"a")
        put(tree, b"a")
        put(tree, b"a.done", b"")
        await look(rig, path)
        await rig.send(path, "start")
        put(tree, b"a", b"next")
        put(tree, b"a.done", b"")
        await look(rig, key_of(rig, b"a.done"))
        assert (tree / "a.done").exists()
        await gate.let_pass()
        await rig.state(path, ["settling", "ready"])
        await rig.service.inbox.idle()
        await look(rig, path)
        assert (await rig.row(path)).state == "ready"
        assert not (tree / "a.done").exists()


def test_another_marker_is_left_alone(tmp_path: Path) -> None:
    """Only the very marker that was seen is removed; one that is gone already does no harm."""
    tree = Tree(Watch(name="incoming", path=tmp_path, **marked()))
    for name in ("same", "other", "gone"):
        (tmp_path / name).touch()
    seen = {name: look_at(Question(bytes(tmp_path / name))).seen for name in ("same", "other")}
    (tmp_path / "other").write_text("made anew")
    markers = [UsedUp(tree, n.encode(), seen[n]) for n in ("same", "other")]  # type: ignore[arg-type]
    assert remove([*markers, markers[0]]) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "other"]


@pytest.mark.skipif(os.geteuid() != 0, reason="sets the immutable flag")
async def test_marker_that_cannot_be_removed(engine: Open, tree: Path) -> None:
    """The file settles all the same, and it is said once a folder."""
    async with engine(**marked()) as rig:
        for name in (b"a", b"b"):
            put(tree, name)
            put(tree, name + b".done", b"")
        markers = [tree / "a.done", tree / "b.done"]
        if subprocess.run(["chattr", "+i", *markers], check=False).returncode:  # noqa: ASYNC221
            pytest.skip("no immutable flag on this file system")
        try:
            await look(rig, key_of(rig, b"a"))
            await look(rig, key_of(rig, b"b"))
            await scanned(rig)
        finally:
            subprocess.run(["chattr", "-i", *markers], check=True)  # noqa: ASYNC221
        assert (await rig.row(key_of(rig, b"b"))).state == "ready"
        (line,) = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
        assert (line["path"], line["watch"]) == ("a.done", "incoming")
        await scanned(rig)
        assert [path.name for path in tree.glob("*.done")] == []


STEM = marked("{stem}.ok")


async def test_stem_speaks_for_all_of_its_files(engine: Open, tree: Path) -> None:
    """A hint of one marker settles every file of the stem, and it goes with the last of them."""
    async with engine(**STEM) as rig:
        names = [b"d/a.csv", b"d/a.xml", b"d/a"]
        others = [b"d/ab.csv", b"d/a.tar.gz", b"d/a-1.csv", b"a.csv"]
        for name in names + others:
            put(tree, name)
            await look(rig, key_of(rig, name))
        marker = put(tree, b"d/a.ok", b"")
        with (tree / "d/a.xml").open("ab"):
            await look(rig, key_of(rig, b"d/a.ok"))
            states = [(await rig.row(key_of(rig, name))).state for name in names]
            assert states == ["ready", "settling", "ready"]
            assert marker.exists()
        await look(rig, key_of(rig, b"d/a.xml"))
        assert (await rig.row(key_of(rig, b"d/a.xml"))).state == "ready"
        assert not marker.exists()
        assert {(await rig.row(key_of(rig, name))).state for name in others} == {"settling"}


async def test_stem_of_a_file_that_is_not_known_yet(engine: Open, tree: Path) -> None:
    """The marker stays for a file that was delivered with it and is only seen later."""
    async with engine(**STEM) as rig:
        for name in (b"a.csv", b"a.xml", b"a.ok"):
            put(tree, name)
        await look(rig, key_of(rig, b"a.csv"))
        assert (tree / "a.ok").exists()
        await look(rig, key_of(rig, b"a.xml"))
        assert not (tree / "a.ok").exists()


async def test_stem_whose_other_file_is_delivered_anew(engine: Open, tree: Path) -> None:
    """A file whose row is of a former delivery has not settled: the marker stays for it."""
    async with engine(**STEM) as rig:
        for name in (b"a.csv", b"a.ok"):
            put(tree, name)
        await look(rig, key_of(rig, b"a.csv"))
        assert not (tree / "a.ok").exists()
        for name in (b"a.csv", b"a.xml", b"a.ok"):
            put(tree, name, b"second")
        await look(rig, key_of(rig, b"a.xml"))
        assert (tree / "a.ok").exists()
        await look(rig, key_of(rig, b"a.csv"))
        await look(rig, key_of(rig, b"a.csv"))
        assert not (tree / "a.ok").exists()


async def test_stem_whose_other_file_went(engine: Open, tree: Path) -> None:
    """When what it waited for is removed, the marker is used up with the next scan."""
    async with engine(**STEM) as rig:
        with put(tree, b"a.xml").open("ab"):
            put(tree, b"a.csv")
            put(tree, b"a.ok")
            await look(rig, key_of(rig, b"a.xml"))
            await look(rig, key_of(rig, b"a.csv"))
        (tree / "a.xml").unlink()
        assert (tree / "a.ok").exists()
        await scanned(rig)
        assert not (tree / "a.ok").exists()


async def test_stem_of_a_file_that_is_on_its_way(engine: Open, tree: Path) -> None:
    """A marker that comes while its file is being discovered is asked about once more."""
    async with engine(**STEM) as rig:
        put(tree, b"a.csv")
        path, marker = key_of(rig, b"a.csv"), key_of(rig, b"a.ok")
        put(tree, b"a.ok")
        await rig.send(marker, "look")
        (tree / "a.ok").rename(tree / "aside")
        await rig.send(path, "look")
        (tree / "aside").rename(tree / "a.ok")
        assert (await rig.row(path)).state == "settling"
        await rig.service.inbox.idle()
        assert (await rig.row(path)).state == "ready"


async def test_markers_are_not_tracked(engine: Open, tree: Path) -> None:
    """Neither hint nor scan makes a row of a marker, and a scan does not count it as missed."""
    async with engine(**marked()) as rig:
        for name in (b"orphan.done", b"a", b"b.done.done"):
            put(tree, name)
        counts = await rig.service.scanner.scan(rig.service.trees["incoming"], [b""])
        await rig.service.inbox.idle()
        assert (counts.new, counts.unannounced) == (1, 1)
        for name in (b"orphan.done", b"b.done.done", b"b.done"):
            await look(rig, key_of(rig, name))
            assert (await rig.row(key_of(rig, name))).id == 0
        assert {path.name for path in tree.iterdir()} == {"orphan.done", "a", "b.done.done"}


async def test_markers_that_once_were_files(engine: Open, tree: Path) -> None:
    """A row from the time before its watch knew of markers is not followed any more."""
    async with engine() as rig:
        put(tree, b"a.done")
        await look(rig, key_of(rig, b"a.done"))
        await rig.send(key_of(rig, b"a.done"), "skip")
    async with engine(**marked()) as rig:
        put(tree, b"a", b"data")
        await look(rig, key_of(rig, b"a"))
        put(tree, b"a.done", b"longer")
        await look(rig, key_of(rig, b"a.done"))
        assert (await rig.row(key_of(rig, b"a"))).state == "ready"
        assert not (tree / "a.done").exists()
        await rig.service.inbox.idle()
        await look(rig, key_of(rig, b"a.done"), waited=True)
        assert (await rig.row(key_of(rig, b"a.done"))).state == "gone"


async def test_markers_and_patterns(engine: Open, tree: Path) -> None:
    """A marker counts though a pattern excludes its name; a file that is excluded stays so."""
    async with engine(exclude=("*.done", "*.tmp", "no/"), **marked()) as rig:
        for name in (b"a", b"a.done", b"b.tmp", b"b.tmp.done"):
            put(tree, name)
        watched = rig.service.trees["incoming"]
        assert watched.concerns(b"a.done")
        assert not watched.concerns(b"no/a.done")
        await scanned(rig)
        assert (await rig.row(key_of(rig, b"a"))).state == "ready"
        assert (await rig.row(key_of(rig, b"b.tmp"))).id == 0
        assert {path.name for path in tree.iterdir()} == {"a", "b.tmp", "b.tmp.done"}


async def test_adopted_with_its_marker(engine: Open, tree: Path) -> None:
    """What was there before needs no marker; one that is there is removed by a later scan."""
    put(tree, b"with")
    put(tree, b"with.done")
    put(tree, b"without")
    async with engine(existing="adopt", **marked()) as rig:
        await scanned(rig)
        rig.service.trees["incoming"].adopt_before = 0
        await scanned(rig)
        for name in (b"with", b"without"):
            assert await story(rig, key_of(rig, name)) == ["discover"]
            assert (await rig.row(key_of(rig, name))).state == "done"
        assert {path.name for path in tree.iterdir()} == {"with", "without"}


async def test_renamed_while_it_waits(engine: Open, tree: Path) -> None:
    """Where the marker is there before the rename is seen, the file settles right after it."""
    async with engine(**marked()) as rig:
        put(tree, b"a.tmp", b"x", 1_000)
        await look(rig, key_of(rig, b"a.tmp"))
        (tree / "a.tmp").rename(tree / "a")
        put(tree, b"a.done")
        await rig.send(key_of(rig, b"a.tmp"), "look")
        await look(rig, key_of(rig, b"a"))
        assert (await rig.row(key_of(rig, b"a"))).state == "ready"
        assert await story(rig, key_of(rig, b"a")) == ["move", "settle"]
        assert not (tree / "a.done").exists()


async def test_marker_and_content(engine: Open, tree: Path) -> None:
    """With content identity the marker is still there when the digest is, and goes with it."""
    async with engine(identity="content", **marked()) as rig:
        put(tree, b"a")
        await look(rig, key_of(rig, b"a"))
        put(tree, b"a.done")
        await look(rig, key_of(rig, b"a.done"))
        row = await rig.row(key_of(rig, b"a"))
        assert (row.state, row.digest is not None) == ("ready", True)
        assert not (tree / "a.done").exists()


async def test_many_markers(engine: Open, tree: Path) -> None:
    """Two thousand files that a scan finds with their markers settle in one go each."""
    async with engine(steps=0, **marked()) as rig:
        names = [b"%d" % number for number in range(2_000)]
        for name in names:
            put(tree, name)
            put(tree, name + b".done")
        await scanned(rig)
        rows = await rig.store.rows([key_of(rig, name) for name in names])
        assert {(row.state, row.version) for row in rows if row} == {("done", 1)}
        assert len(list(tree.iterdir())) == 2_000
