"""The roots, with real directories: lost, replaced, foreign, back; and what that freezes."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.cli.harness import Rig
from daemon.config import Watch
from daemon.core.model import Key
from daemon.core.removals import Mark
from daemon.engine.detection import Detection
from daemon.engine.identity import RootId
from daemon.engine.trees import Tree
from daemon.sources.roots import Roots
from daemon.store.inspect import inspect
from tests.acceptance.harness import DEADLINE, PROJECT
from tests.engine.conftest import Open, background

MEMORY = Path("/dev/shm")  # noqa: S108 - another file system, for any user
Elsewhere = Callable[[], Path]


@pytest.fixture
def elsewhere(tree: Path) -> Iterator[Elsewhere]:
    """Makes folders on another file system than the tree's."""
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tree.stat().st_dev:
        pytest.skip("no second file system")
    made: list[str] = []

    def make() -> Path:
        made.append(tempfile.mkdtemp(dir=MEMORY, prefix="treewarden-test-"))
        return Path(made[-1])

    yield make
    for folder in made:
        shutil.rmtree(folder)


def the_tree(rig: Rig) -> Tree:
    return rig.service.trees["incoming"]


def frozen(rig: Rig) -> str | None:
    return the_tree(rig).detection.frozen


async def check(rig: Rig) -> None:
    await rig.service.roots.check(the_tree(rig))


async def fill(rig: Rig, count: int = 1) -> None:
    """So many files are there and have rows."""
    for number in range(count):
        rig.write(f"f{number}")
    await rig.service.scanner.scan(the_tree(rig), [b""])
    await rig.service.inbox.idle()


async def said(rig: Rig) -> list[str]:
    """The events about roots and removals so far."""
    events = [line["event"].removeprefix("daemon.") for line in await rig.lines()]
    return [event for event in events if event.startswith(("root_", "removals_"))]


async def line(rig: Rig, event: str) -> dict[str, Any]:
    return [x for x in await rig.lines() if x["event"] == f"daemon.{event}"][-1]


def scans(rig: Rig) -> list[tuple[Key, str]]:
    """What was asked for since this was asked last."""
    asked = list(rig.service.inbox._scans.items())
    rig.service.inbox._scans.clear()
    return asked


def put_in_place(tree: Path, other: Path) -> None:
    """What the path leads to is on another file system, as after an umount or a mount."""
    tree.rename(tree.with_name("away"))
    tree.symlink_to(other)


def put_back(tree: Path) -> None:
    tree.unlink()
    tree.with_name("away").rename(tree)


def change_mark(tmp_path: Path, **fields: object) -> None:
    """Let the last run have remembered something else."""
    with closing(sqlite3.connect(tmp_path / "state" / "treewarden.db")) as db:
        ((text,),) = db.execute("SELECT root FROM watches").fetchall()
        changed = msgspec.json.encode({**msgspec.json.decode(text), **fields}).decode()
        db.execute("UPDATE watches SET root = ?", (changed,))
        db.commit()


WHOLE = Key("incoming", b"")


async def test_a_root_that_stays_is_no_news(engine: Open) -> None:
    """Checked again and again it says nothing, asks for nothing, and is watched on."""
    async with engine() as rig:
        tree = the_tree(rig)
        before = tree.root_id
        await check(rig)
        rig.write("a")
        await check(rig)
        assert (await said(rig), scans(rig), tree.root_id) == ([], [], before)
        assert tree.rooted.is_set()
        assert not tree.rerooted.is_set()


async def test_identity_is_more_than_a_number(engine: Open, tree: Path) -> None:
    """Device, inode and mount are known; where births are, a directory made anew is another."""
    async with engine() as rig:
        found = the_tree(rig).find_root()
        assert isinstance(found, RootId)
        assert found[:3] == (bytes(tree), tree.stat().st_dev, tree.stat().st_ino)
        assert found.mount
        (tree / "in").mkdir()
        assert the_tree(rig).find_root() == found


async def test_a_root_that_goes_and_comes_back(engine: Open, tree: Path) -> None:
    """Said once with the reason; nothing is watched or removed until it is back, and scanned."""
    async with engine() as rig:
        it = the_tree(rig)
        tree.rmdir()
        await check(rig)
        await check(rig)
        assert await said(rig) == ["root_lost", "removals_frozen"]
        lost = await line(rig, "root_lost")
        assert (lost["path"], lost["reason"]) == (str(tree), "No such file or directory")
        assert frozen(rig) == "the root is lost: No such file or directory"
        assert (it.root_id, it.rooted.is_set(), it.rerooted.is_set()) == (None, False, True)
        assert scans(rig) == []
        it.rerooted.clear()
        tree.mkdir()
        await check(rig)
        assert (await said(rig))[2:] == ["root_back", "removals_thawed"]
        assert frozen(rig) is None
        assert the_tree(rig).root_id == await it.identify_root()
        assert it.rooted.is_set()
        assert it.rerooted.is_set()
        assert scans(rig) == [(WHOLE, "root")]


async def test_a_root_that_is_a_file_now_is_lost(engine: Open, tree: Path) -> None:
    """Only a directory can be watched; what is told of it keeps up with what is there."""
    async with engine() as rig:
        tree.rmdir()
        tree.touch()
        await check(rig)
        assert (await line(rig, "root_lost"))["reason"] == "Not a directory"
        tree.unlink()
        await check(rig)
        assert frozen(rig) == "the root is lost: No such file or directory"
        assert await said(rig) == ["root_lost", "removals_frozen", "removals_frozen"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_root_that_may_not_be_read_is_lost() -> None:
    """What can be seen but not read, or not entered, cannot be watched; the reason says so."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from daemon.config import Watch\n"
        "from daemon.engine.trees import Tree\n"
        "tree = Tree(Watch(name='w', path=Path(sys.argv[1])))\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(tree.find_root())\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "root").mkdir()
        found = []
        for mode in (0o755, 0o744, 0o711):
            (Path(folder) / "root").chmod(mode)
            argv = [sys.executable, "-c", program, f"{folder}/root"]
            ended = subprocess.run(
                argv, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=DEADLINE
            )
            found.append(ended.stdout.strip())
    assert found[0].startswith("RootId(")
    assert found[1:] == ["Permission denied"] * 2


async def test_a_root_that_was_replaced(engine: Open, tree: Path) -> None:
    """Another directory in its place is taken for the root at once, and for good."""
    async with engine() as rig:
        await fill(rig)
        tree.rename(tree.with_name("away"))
        tree.mkdir()
        await check(rig)
        assert await said(rig) == ["root_lost", "root_back"]
        assert (await line(rig, "root_lost"))["reason"] == "another directory has taken its place"
        assert the_tree(rig).root_id == await the_tree(rig).identify_root()
        assert the_tree(rig).rerooted.is_set()
        assert the_tree(rig).detection.frozen is None
        assert scans(rig) == [(WHOLE, "root")]
    async with engine() as rig:
        assert len(await said(rig)) == 2


async def test_another_file_system_in_its_place(
    engine: Open, tree: Path, elsewhere: Elsewhere
) -> None:
    """It is watched and scanned, but removals are frozen until the known root is back."""
    async with engine() as rig:
        await fill(rig)
        it, other = the_tree(rig), elsewhere()
        put_in_place(tree, other)
        await check(rig)
        await check(rig)
        assert await said(rig) == ["root_lost", "removals_frozen"]
        assert "stands there, where" in (await line(rig, "root_lost"))["reason"]
        assert it.root_id == await it.identify_root()
        assert it.rooted.is_set()
        assert it.rerooted.is_set()
        assert scans(rig) == [(WHOLE, "root")]
        assert not await rig.service.roots.may_remove(it, 1)
        put_back(tree)
        await check(rig)
        assert (await said(rig))[2:] == ["root_back", "removals_thawed"]
        assert scans(rig) == [(WHOLE, "root")]
        assert it.detection == Detection()
        assert await rig.service.roots.may_remove(it, 1)


async def test_nothing_there_and_then_something_foreign(
    engine: Open, tree: Path, elsewhere: Elsewhere
) -> None:
    """What was lost is not back because anything stands there; that is watched all the same."""
    async with engine() as rig:
        await fill(rig)
        tree.rename(tree.with_name("away"))
        await check(rig)
        tree.symlink_to(elsewhere())
        await check(rig)
        assert await said(rig) == ["root_lost", "removals_frozen", "removals_frozen"]
        assert the_tree(rig).rooted.is_set()
        put_back(tree)
        await check(rig)
        assert (await said(rig))[3:] == ["root_back", "removals_thawed"]


async def test_a_watch_without_files_has_nothing_to_freeze(
    engine: Open, tree: Path, elsewhere: Elsewhere
) -> None:
    """Another file system under a watch that has no live row is simply the root from now on."""
    other = elsewhere()
    async with engine() as rig:
        put_in_place(tree, other)
        await check(rig)
        assert await said(rig) == ["root_lost", "root_back"]
    async with engine() as rig:
        assert len(await said(rig)) == 2
        assert the_tree(rig).detection.frozen is None


async def test_a_confirmation_takes_what_is_there_for_good(
    engine: Open, tree: Path, elsewhere: Elsewhere
) -> None:
    """The operator's word makes the foreign root the root, after a restart too, and scans it."""
    other = elsewhere()
    async with engine() as rig:
        await fill(rig)
        put_in_place(tree, other)
        await check(rig)
        scans(rig)
        assert await rig.service.roots.confirm(the_tree(rig))
        assert (await said(rig))[2:] == ["root_back", "removals_thawed"]
        assert (await line(rig, "removals_thawed"))["reason"] == "an operator has confirmed"
        assert scans(rig) == [(WHOLE, "request")]
        assert await rig.service.roots.may_remove(the_tree(rig), 1)
    async with engine() as rig:
        assert len(await said(rig)) == 4
        assert the_tree(rig).detection.frozen is None


async def test_nothing_is_confirmed_where_nothing_is(engine: Open, tree: Path) -> None:
    """While there is no root at all an operator's word changes nothing."""
    async with engine() as rig:
        await fill(rig)
        tree.rename(tree.with_name("away"))
        assert not await rig.service.roots.confirm(the_tree(rig))
        assert the_tree(rig).detection.frozen is not None
        assert scans(rig) == []


async def test_a_foreign_root_at_the_start(engine: Open, tree: Path, elsewhere: Elsewhere) -> None:
    """What was swapped while the daemon was down is frozen at its start, with the reason."""
    async with engine() as rig:
        await fill(rig)
    put_in_place(tree, elsewhere())
    for _ in range(2):  # it is not remembered
        async with engine() as rig:
            assert (await said(rig))[-2:] == ["root_lost", "removals_frozen"]
            assert the_tree(rig).root_id == await the_tree(rig).identify_root()
            assert not the_tree(rig).rerooted.is_set()
            assert not await rig.service.roots.may_remove(the_tree(rig), 1)
    put_back(tree)
    async with engine() as rig:
        assert len(await said(rig)) == 4
        assert the_tree(rig).detection.frozen is None


async def test_a_replaced_root_at_the_start(engine: Open, tree: Path) -> None:
    """On the same file system, before the system restarts, it is only said."""
    async with engine() as rig:
        await fill(rig)
    tree.rename(tree.with_name("away"))
    tree.mkdir()
    async with engine() as rig:
        assert await said(rig) == ["root_lost", "root_back"]
        assert the_tree(rig).detection.frozen is None


async def test_no_root_at_the_start(engine: Open, tree: Path) -> None:
    """A root that is away at the start is waited for, even one that never was."""
    tree.rmdir()
    async with engine() as rig:
        assert await said(rig) == ["root_lost", "removals_frozen"]
        assert not the_tree(rig).rooted.is_set()
        tree.mkdir()
        await check(rig)
        assert (await said(rig))[2:] == ["root_back", "removals_thawed"]
    async with engine() as rig:
        assert len(await said(rig)) == 4


async def test_after_a_restart_of_the_system(engine: Open, tree: Path, tmp_path: Path) -> None:
    """Device numbers mean nothing then: inode and type tell, and without them it is foreign."""
    async with engine() as rig:
        await fill(rig)
    change_mark(tmp_path, boot="another", dev=1)
    async with engine() as rig:
        assert await said(rig) == []
        kept = msgspec.json.decode(await rig.store.root("incoming") or "", type=Mark)
        assert kept.dev == tree.stat().st_dev
    change_mark(tmp_path, boot="another", ino=1)
    async with engine() as rig:
        assert await said(rig) == ["root_lost", "removals_frozen"]
        assert "restarted" in (await line(rig, "root_lost"))["reason"]


async def test_what_another_version_remembered(engine: Open, tmp_path: Path) -> None:
    """A mark that cannot be read is as good as none: what is found is remembered anew."""
    async with engine() as rig:
        await fill(rig)
    change_mark(tmp_path, ino="a text")
    async with engine() as rig:
        assert await said(rig) == []
    async with engine() as rig:
        assert await said(rig) == []


async def test_a_foreign_root_that_misses_nothing_is_the_root(
    engine: Open, tree: Path, elsewhere: Elsewhere
) -> None:
    """A scan that misses no file thaws and is remembered; one that misses any does neither."""
    async with engine() as rig:
        await fill(rig)
        it, roots = the_tree(rig), rig.service.roots
        before, other = it.root_id, elsewhere()
        put_in_place(tree, other)
        await check(rig)
        scans(rig)
        await roots.scanned(it, 1)
        assert it.detection.frozen_missing == 1
        await roots.scanned(it, 0, before)  # a scan of the root that was there earlier
        assert it.detection.frozen is not None
        await roots.scanned(it, 0, it.root_id)
        assert (await said(rig))[2:] == ["root_back", "removals_thawed"]
        assert scans(rig) == []
    async with engine() as rig:
        assert len(await said(rig)) == 4


async def test_too_many_at_once(engine: Open) -> None:
    """More than a hundred and more than the share freeze, and say so; fewer may go."""
    async with engine(freeze_share=0.5) as rig:
        await fill(rig, 210)
        it, roots = the_tree(rig), rig.service.roots
        assert await roots.may_remove(it, 105)
        assert not await roots.may_remove(it, 106)
        assert not await roots.may_remove(it, 1)
        assert await said(rig) == ["removals_frozen"]
        frozen = await line(rig, "removals_frozen")
        assert (frozen["level"], frozen["missing"]) == ("error", 106)
        assert frozen["reason"] == "106 of 210 files are missing at once; freeze_share is 0.5"
        assert (it.detection.frozen, it.detection.frozen_missing) == (frozen["reason"], 106)


async def test_the_share_is_the_watchs_own(engine: Open) -> None:
    """With a share of 1 everything may go at once."""
    async with engine(freeze_share=1.0) as rig:
        await fill(rig, 110)
        assert await rig.service.roots.may_remove(the_tree(rig), 110)


async def test_few_missing_thaw_what_the_share_froze(engine: Open) -> None:
    """Files that are there again thaw: what is still missing goes with another scan."""
    async with engine() as rig:
        await fill(rig, 110)
        it, roots = the_tree(rig), rig.service.roots
        assert not await roots.may_remove(it, 110)
        await roots.scanned(it, 110)
        await roots.scanned(it, 101)
        assert it.detection.frozen_missing == 101
        assert scans(rig) == []
        await roots.scanned(it, 3)
        assert await said(rig) == ["removals_frozen", "removals_thawed"]
        assert scans(rig) == [(WHOLE, "root")]
        assert await roots.may_remove(it, 3)


async def test_what_was_missed_is_looked_for_again(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the share has frozen it a scan is asked for now and then; otherwise none is."""
    monkeypatch.setattr("daemon.sources.root.CHECK_SECONDS", 0.01)
    monkeypatch.setattr("daemon.sources.roots.TURN_SECONDS", 0.01)
    monkeypatch.setattr("daemon.sources.roots.CALM_SECONDS", 0.01)
    monkeypatch.setattr("daemon.sources.roots.RESCAN_SECONDS", 0.0)
    async with engine() as rig:
        await fill(rig, 110)
        it, roots = the_tree(rig), rig.service.roots
        root = roots._roots["incoming"]
        assert not root.is_worth_a_scan
        async with background(roots.run()):
            assert not await roots.may_remove(it, 110)
            for _ in range(2):
                assert await rig.service.inbox.next_scans() == [(WHOLE, "period")]
        root.put_off(1e9)
        assert root.pause == it.watch.reconcile
        assert not root.is_worth_a_scan


async def test_a_confirmation_holds_for_one_scan(engine: Open) -> None:
    """The next scan may remove whatever it misses, the one after it may not."""
    async with engine() as rig:
        await fill(rig, 110)
        it, roots = the_tree(rig), rig.service.roots
        assert not await roots.may_remove(it, 110)
        assert await roots.confirm(it)
        assert await said(rig) == ["removals_frozen", "removals_thawed"]
        assert scans(rig) == [(WHOLE, "request")]
        await roots.scanned(it, 110)  # the scan that froze was still on its way
        assert await roots.may_remove(it, 2)  # so few need no confirmation
        assert await roots.may_remove(it, 110)
        assert not await roots.may_remove(it, 110)


async def test_a_confirmation_does_not_outlast_a_scan_without_need(engine: Open) -> None:
    """Once a scan misses little the word that was given is used up."""
    async with engine() as rig:
        await fill(rig, 110)
        it, roots = the_tree(rig), rig.service.roots
        assert await roots.confirm(it)
        await roots.scanned(it, 0)
        assert not await roots.may_remove(it, 110)


async def test_a_scan_learns_of_a_lost_root_first(engine: Open, tree: Path) -> None:
    """Before anything may go, the root is looked at: no second passes in which it is believed."""
    async with engine() as rig:
        await fill(rig)
        tree.rename(tree.with_name("away"))
        assert not await rig.service.roots.may_remove(the_tree(rig), 1)
        assert await said(rig) == ["root_lost", "removals_frozen"]


async def test_a_frozen_share_and_then_a_lost_root(engine: Open, tree: Path) -> None:
    """The root's return thaws; the scan that follows meets the share again."""
    async with engine() as rig:
        await fill(rig, 110)
        it = the_tree(rig)
        assert not await rig.service.roots.may_remove(it, 110)
        tree.rename(tree.with_name("away"))
        await check(rig)
        assert it.detection.frozen_missing is None
        tree.with_name("away").rename(tree)
        await check(rig)
        assert it.detection.frozen is None
        assert not await rig.service.roots.may_remove(it, 110)


async def test_frozen_is_shown_at_once(engine: Open, tree: Path, tmp_path: Path) -> None:
    """By the time it can be thawed, another process sees that removals are frozen, and why."""

    def seen() -> Detection:
        with inspect(tmp_path / "state" / "treewarden.db") as inspection:
            return Detection.heard(inspection.detections()["incoming"])

    async with engine() as rig:
        assert seen() == Detection()
        tree.rmdir()
        await check(rig)
        assert seen().frozen == "the root is lost: No such file or directory"
        tree.mkdir()
        await check(rig)
        assert seen().frozen is None


async def test_a_root_that_hangs_holds_up_nobody(
    engine: Open, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer is a lost root; the others are checked meanwhile."""
    monkeypatch.setattr("daemon.sources.roots.ANSWER_SECONDS", 0.05)
    monkeypatch.setattr("daemon.engine.lookout.LATE_SECONDS", 0.05)
    monkeypatch.setattr("daemon.sources.root.CHECK_SECONDS", 0.01)
    monkeypatch.setattr("daemon.sources.roots.TURN_SECONDS", 0.01)
    monkeypatch.setattr("daemon.sources.roots.CALM_SECONDS", 0.01)
    answers = threading.Event()
    async with engine() as rig:
        it = the_tree(rig)
        (tmp_path / "other").mkdir()
        other = Tree(Watch(name="other", path=tmp_path / "other"))
        await rig.store.mark_watch("other", 1)
        service = rig.service
        roots = Roots([it, other], service.inbox, service.ledger, rig.journal, service._snapshots)
        await roots.begin()
        real = it.find_root

        def hang() -> RootId | str:
            answers.wait(DEADLINE)
            return real()

        monkeypatch.setattr(it, "find_root", hang)
        async with background(roots.run()):
            await lines_about(rig, "root_lost", "incoming")
            (tmp_path / "other").rmdir()
            await lines_about(rig, "root_lost", "other")
            assert it.detection.frozen == "the root is lost: its file system does not answer"
            answers.set()
            await lines_about(rig, "root_back", "incoming")
        await roots.close()
        assert tree.is_dir()


async def lines_about(rig: Rig, event: str, watch: str) -> None:
    """Wait for a line; each turn of the loop lets the journal write."""
    wanted = {"event": f"daemon.{event}", "watch": watch}.items()
    while True:
        if any(wanted <= line.items() for line in await rig.lines()):
            return
        await asyncio.sleep(0)
