"""The scan: what differs is looked at, and nothing else is touched."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.core.model import Key, Trigger
from daemon.engine import listing
from daemon.engine.identity import RootId
from daemon.engine.scanner import Scanner
from daemon.engine.scanning import Counts
from daemon.engine.trees import Tree
from daemon.sources.reconciler import PARTS, Reconciler
from tests.engine.conftest import DEADLINE, Open, background


class Scan:
    """A reconciler on the rig, and a count of what it puts into the inbox."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        service = rig.service
        self.tree = service.trees["incoming"]
        self.allowed = True
        self.asked: list[int] = []
        self.over: list[int] = []
        self.scanner = Scanner(service.inbox, service.ledger, rig.journal, self)
        self.reconciler = Reconciler(
            service.trees, service.inbox, service.ledger, rig.journal, self.scanner
        )
        self.found: list[bytes] = []
        real = service.inbox.put

        def put(trigger: Trigger) -> None:
            if trigger.cause == "scan":
                self.found.append(trigger.key.path)
            real(trigger)

        bundle = service.inbox.offer_bundle

        async def offer_bundle(looks: Sequence[Trigger]) -> None:
            self.found += [look.key.path for look in looks]
            await bundle(looks)

        monkeypatch.setattr(service.inbox, "put", put)
        monkeypatch.setattr(service.inbox, "offer_bundle", offer_bundle)

    async def may_remove(self, tree: Tree, missing: int) -> bool:
        assert tree is self.tree
        self.asked.append(missing)
        return self.allowed

    async def scanned(self, tree: Tree, missing: int, scanned: RootId | None) -> None:
        assert scanned == tree.root_id
        self.over.append(missing)

    async def run(self, *tops: bytes) -> Counts:
        self.found.clear()
        counts = await self.scanner.scan(self.tree, tops or [b""])
        await self.rig.service.inbox.idle()
        return counts

    async def state(self, name: str) -> str:
        return (await self.rig.row(self.rig.key(name))).state


def put(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(os.fsencode(name))


async def test_new_files(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file in the tree is found, in every folder, whatever its name."""
    names = ["a", "d/a", "d/e/f/a", os.fsdecode(b"d/\xff\n")]
    put(tree, *names)
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        counts = await scan.run()
        assert (counts.directories, counts.files, counts.new) == (4, 4, 4)
        assert [await scan.state(name) for name in names] == ["ready"] * 4


async def test_unchanged_files(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second scan puts nothing into the inbox, writes nothing, and says nothing above debug."""
    put(tree, "a", "d/a", "d/e/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        before = await rig.store.last_ids(), len(await rig.lines())
        assert await scan.run() == Counts(whole=True, directories=3, files=3)
        assert scan.found == []
        assert (await rig.store.last_ids(), len(await rig.lines())) == before
        await scan.reconciler.reconcile(scan.tree, "period")
        assert [line["level"] for line in (await rig.lines())[before[1] :]] == ["debug"]


async def test_answer_to_a_request(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked for a scan hears of its end at `info`, though nothing differs."""
    put(tree, "same")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        await rig.service.inbox.idle()
        for cause in ("request", "period"):
            await scan.reconciler.reconcile(scan.tree, cause)
        told = [line for line in await rig.lines() if line["event"] == "daemon.reconciled"]
        assert [line["level"] for line in told] == ["info", "debug"]


async def test_differences_only(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new, changed or missing is looked at, and nothing else; the line has the counts."""
    put(tree, "same", "changed", "missing", "d/missing")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        put(tree, "new")
        (tree / "changed").write_text("another content")
        (tree / "missing").unlink()
        (tree / "d/missing").unlink()
        scan.found.clear()
        await scan.reconciler.reconcile(scan.tree, "period")
        await rig.service.inbox.idle()
        assert sorted(scan.found) == [b"changed", b"d/missing", b"missing", b"new"]
        assert await scan.state("missing") == "gone"
        (line,) = [x for x in await rig.lines() if x["event"] == "daemon.reconciled"]
        assert (line["new"], line["changed"], line["missing"], line["level"]) == (1, 1, 2, "info")


async def test_vanished_directory(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a folder is gone, or a file has taken its place, all the rows below it go."""
    put(tree, "d/a", "d/e/a", "d/e/f/a", "d0/a", "x/y/a", "a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        (tree / "d").rename(tree.parent / "away")
        (tree / "x").rename(tree.parent / "away2")
        put(tree, "x")
        counts = await scan.run()
        assert counts.missing == 4
        for name in ("d/a", "d/e/a", "d/e/f/a", "x/y/a"):
            assert await scan.state(name) == "gone"
        assert [await scan.state(name) for name in ("d0/a", "a", "x")] == ["ready"] * 3


async def test_subtree(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of a subtree concerns that subtree only, also when its top is gone."""
    put(tree, "d/a", "d/e/a", "d-/a", "d0/a", "b")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run(b"d")
        assert sorted(scan.found) == [b"d/a", b"d/e/a"]
        await scan.run()
        (tree / "d").rename(tree.parent / "away")
        for name in ("d-/a", "d0/a", "b"):
            (tree / name).unlink()
        await scan.run(b"d")
        assert sorted(scan.found) == [b"d/a", b"d/e/a"]
        assert await scan.state("b") == "ready"


async def test_unreadable_directory(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be listed keeps its rows as they are, and is said."""
    put(tree, "shut/a", "shut/e/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        (tree / "shut/e/a").unlink()
        monkeypatch.setattr("os.scandir", refuse(b"shut"))
        counts = await scan.run()
        assert (counts.unreadable, counts.missing) == (1, 0)
        assert scan.over == [0]  # it may hide more that is missing
        assert [await scan.state(name) for name in ("shut/a", "shut/e/a")] == ["ready"] * 2
        await scan.run()
        (line,) = [x for x in await rig.lines() if x["event"] == "daemon.degraded"]
        assert (line["path"], line["error"]) == ("shut", os.strerror(13))


async def test_unreadable_directory_without_rows(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that never could be read, such as lost+found, hides nothing that is missing."""
    put(tree, "a", "shut/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        monkeypatch.setattr("os.scandir", refuse(b"shut"))
        assert (await scan.run()).unreadable == 1
        assert scan.over == [0]


def refuse(name: bytes) -> Any:
    real = os.scandir

    def listing(path: bytes) -> Any:
        if path.endswith(name):
            raise PermissionError(13, os.strerror(13))
        return real(path)

    return listing


async def test_excluded_and_symlinked_folders(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excluded folders are not entered, symlinks not followed; what patterns leave out is left."""
    put(tree, "real/a", "skip/a", "skip/deep/a", "b.part", ".hidden/x")
    put(tree.parent / "outside", "a")
    (tree / "link").symlink_to(tree / "real")
    (tree / "out").symlink_to(tree.parent / "outside")
    (tree / "file").symlink_to(tree / "real/a")
    async with engine(exclude=("skip/", "*.part", ".*")) as rig:
        scan = Scan(rig, monkeypatch)
        counts = await scan.run()
        assert (counts.directories, scan.found) == (2, [b"real/a"])
        ignored = [x["path"] for x in await rig.lines() if x["event"] == "daemon.ignored"]
        assert sorted(ignored) == ["file", "link", "out"]


@pytest.mark.parametrize("instead", ["nothing", "another folder", "unknown from the start"])
async def test_root_that_is_away(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """A root that is away, or another one, removes no file."""
    put(tree, "a", "d/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        tree.rename(tree.parent / "away")
        if instead == "another folder":
            tree.mkdir()
        if instead == "unknown from the start":
            scan.tree.root_id = None
        assert await scan.run() == Counts(whole=True)
        assert scan.found == []


async def test_what_is_being_handled_is_left_alone(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that its handler has removed is the outcome's business, not the scan's."""
    from tests.engine.conftest import Gate  # noqa: PLC0415

    put(tree, "a")
    gate = Gate()
    async with engine(gate) as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        await rig.send(rig.key("a"), "start")
        (tree / "a").unlink()
        assert (await scan.run()).missing == 0
        await gate.let_pass()
        await rig.state(rig.key("a"), ["gone"])


async def test_requests(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subtree that is asked for is scanned."""
    put(tree, "d/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        async with background(scan.reconciler.run_requests()):
            rig.service.inbox.request_scan(Key("incoming", b"d"), "hint")
            await rig.state(rig.key("d/a"), ["ready"])


async def test_parts_that_wait(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for an explanation of what is missing keeps no other part from being scanned.

    Seen: the explanation was in the part that had to wait, and came after 20 s.
    """
    names = [f"d{number}" for number in range(PARTS + 1)]
    put(tree, *(f"{name}/a" for name in names))
    async with engine() as rig:
        scan, inbox, calm = Scan(rig, monkeypatch), rig.service.inbox, asyncio.Event()
        await scan.run()
        for name in names:
            (tree / name / "a").unlink()
        monkeypatch.setattr(inbox, "quiet_for", lambda *_: calm.wait())
        async with background(scan.reconciler.run_requests()):
            for name in names:
                inbox.request_scan(rig.key(name), "hint")
                for _ in range(3):  # so that each is a part of its own
                    await asyncio.sleep(0)
            put(tree, "new/a")
            inbox.request_scan(rig.key("new"), "hint")
            await rig.state(rig.key("new/a"), ["ready"])
            calm.set()
            await rig.state(rig.key(f"{names[-1]}/a"), ["gone"])


async def test_part_whose_turn_comes(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that has to wait for its turn may explain what is missing: until then nothing may."""
    monkeypatch.setattr("daemon.sources.reconciler.PARTS", 1)
    put(tree, "first/a", "second/a")
    async with engine() as rig:
        scan, inbox = Scan(rig, monkeypatch), rig.service.inbox
        scan.tree.room.clear()
        async with background(scan.reconciler.run_requests()):
            for name in ("first", "second"):
                inbox.request_scan(rig.key(name), "hint")
                for _ in range(3):  # so that each is a part of its own
                    await asyncio.sleep(0)
            while not inbox.scanning["incoming"]:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0)
            scan.tree.room.set()
            while not inbox.knows(rig.key("second/a")):
                assert not inbox.calm("incoming")
                await asyncio.sleep(0)
            await inbox.quiet_for("incoming", DEADLINE)
            assert inbox.calm("incoming")


async def test_watcher_that_is_lost_while_something_is_missing(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left unproven waits for a whole scan, and that scan not for what waits: for 20 s."""
    put(tree, "a")
    async with engine() as rig:
        scan, inbox = Scan(rig, monkeypatch), rig.service.inbox
        await scan.run()
        await rig.state(rig.key("a"), ["ready"])
        (tree / "a").unlink()
        unproven, quiet_for = inbox.traffic.ask("incoming"), inbox.quiet_for
        inbox.put(Trigger(rig.key("a"), "look", "hint"))
        await inbox.arrived()

        async def lose(watch: str, seconds: float) -> bool:
            if not scan.tree.watchers:
                scan.tree.watchers += 1
                inbox.traffic.doubt("incoming", unproven)
            return await quiet_for(watch, seconds)

        monkeypatch.setattr(inbox, "quiet_for", lose)
        await scan.run()
        await rig.state(rig.key("a"), ["gone"])


async def test_periodic(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The periodic scan finds what nobody has told of."""
    async with engine(reconcile=0.02) as rig:
        scan = Scan(rig, monkeypatch)
        async with background(scan.reconciler.run(scan.tree)):
            put(tree, "a")
            await rig.state(rig.key("a"), ["ready"])


async def test_whole_tree_on_request(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for the root is a round of its own; its line has the cause and the missed."""
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        async with background(scan.reconciler.run_requests(), scan.reconciler.run(scan.tree)):
            put(tree, "a", "d/b")
            rig.service.inbox.request_scan(Key("incoming", b""), "overflow")
            await rig.state(rig.key("d/b"), ["ready"])
            line = await said(rig, "daemon.reconciled")
        assert (line["cause"], line["new"], line["missed"]) == ("overflow", 2, {"overflow": 2})
        assert scan.tree.detection.missed_ever == {"overflow": 2}


async def test_burst_that_was_an_overflow(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a scan finds after a burst, and no hint told of, is an overflow: said, and mended."""
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        put(tree, "a")
        await scan.reconciler.reconcile(scan.tree, "burst")
        assert scan.tree.rerooted.is_set()
        (line,) = [x for x in await rig.lines() if x["event"] == "daemon.overflow"]
        assert line["watch"] == "incoming"
        scan.tree.rerooted.clear()
        put(tree, "b")
        rig.service.inbox.put(Trigger(rig.key("b"), "look", "hint"))
        await scan.reconciler.reconcile(scan.tree, "burst")
        assert not scan.tree.rerooted.is_set()


async def test_found_only_once(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hint or a scan has told of is not missed, though it is not on record yet."""
    put(tree, "found", "told", "missed")
    async with engine() as rig:
        scan, inbox = Scan(rig, monkeypatch), rig.service.inbox
        async with AsyncExitStack() as held:
            for name in ("found", "told"):
                await held.enter_async_context(rig.service.pipeline._locks.hold(rig.key(name)))
            inbox.put(Trigger(rig.key("told"), "look", "hint"))
            for expected in (2, 0):
                counts = await scan.scanner.scan(scan.tree, [b""])
                assert counts.unannounced == expected
            assert await scan.state("told") == "untracked"
        await inbox.idle()
        assert [await scan.state(name) for name in ("found", "told")] == ["ready"] * 2


async def test_one_whole_scan_after_another(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one begins when what the last one has found is on record."""
    put(tree, "a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        async with rig.service.pipeline._locks.hold(rig.key("a")):
            assert (await scan.reconciler.reconcile(scan.tree, "period")).new == 1
            second = asyncio.create_task(scan.reconciler.reconcile(scan.tree, "period"))
            await rig.lines()
            assert not second.done()
        assert (await second).new == 0


async def test_renamed_while_nobody_looked(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a scan finds under another path keeps its row, in whatever order they come."""
    names = ["a/1", "b/2", "c", "z/4"]
    put(tree, *names)
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        ids = [(await rig.row(rig.key(name))).id for name in names]
        (tree / "a").rename(tree / "y")
        (tree / "b/2").rename(tree / "b/0")
        (tree / "c").rename(tree / "z/c")
        (tree / "z/4").rename(tree / "4")
        assert (await scan.run()).missing == 0
        rows = [await rig.row(rig.key(name)) for name in ("y/1", "b/0", "z/c", "4")]
        assert [(row.id, row.state, row.version) for row in rows] == [(n, "ready", 2) for n in ids]
        assert [(await rig.row(rig.key(name))).id for name in names] == [0] * 4


async def test_removals_that_are_not_allowed(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is let go the scan asks, and tells in the end, how much is missing."""
    put(tree, "a", "d/a", "d/b", "e/f/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        assert scan.asked == []
        (tree / "d").rename(tree.parent / "away")
        (tree / "a").unlink()
        scan.allowed = False
        assert (await scan.run()).missing == 3
        assert (scan.asked, scan.found) == ([3], [])
        scan.allowed = True
        await scan.run()
        assert sorted(scan.found) == [b"a", b"d/a", b"d/b"]
        assert await scan.state("d/b") == "gone"
        await scan.run(b"e")  # a part of the tree says nothing of the whole
        assert scan.over == [0, 3, 3]


async def test_more_than_fits(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan whose memory is full comes back for the directories that it had to leave."""
    put(tree, *(f"{folder}/{name}" for folder in "abcdef" for name in "1234"))
    monkeypatch.setattr(listing, "ENOUGH", 5)
    monkeypatch.setattr("daemon.store.reading._ENOUGH", 5)
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        assert (await scan.run()).new == 24
        assert await scan.run() == Counts(whole=True, directories=7, files=24)


async def test_suspects(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What vanished is scanned if rows lie below it, and only then: a rename costs no scan."""
    put(tree, "d/a", "d-not/a", "e/f/a")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        inbox = rig.service.inbox
        for name in ("upload.tmp", "d", "e", "d-no", "e/f/a"):
            inbox.suspects.add(rig.key(name))
        async with background(scan.reconciler.run_suspects()):
            assert [each.key.path for each in await inbox.next_scans()] == [b"d", b"e"]
            inbox.suspects.add(rig.key("d"))
            assert [each.key.path for each in await inbox.next_scans()] == [b"d"]


async def test_folder_that_is_a_link_by_now(
    engine: Open, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leads to is not listed, and no file of the tree: it may be all of the disk."""
    put(tree, "d/a", "d/e/b")
    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        (tree / "d").rename(tmp_path / "away")
        (tree / "d").symlink_to(tmp_path / "away")
        counts = await rig.service.scanner.scan(rig.service.trees["incoming"], [b"d"])
        await rig.service.inbox.idle()
        assert (counts.directories, counts.missing) == (0, 2)
        assert [(await rig.row(rig.key(each))).state for each in ("d/a", "d/e/b")] == ["gone"] * 2


async def test_entry_that_cannot_be_looked_at(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead mount point among the entries hides nothing beside it, and makes nothing missing."""
    put(tree, "a", "b", "sub/c")

    async with engine() as rig:
        scan = Scan(rig, monkeypatch)
        await scan.run()
        monkeypatch.setattr("os.scandir", with_dead(b"a"))
        put(tree, "d")
        counts = await scan.run()
        assert (counts.unreadable, counts.new, counts.missing) == (1, 1, 0)
        assert [await scan.state(name) for name in ("a", "b", "sub/c", "d")] == ["ready"] * 4


class Dead:
    """An entry of a directory that the kernel does not want to talk about."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        del follow_symlinks
        raise OSError(5, os.strerror(5))


def with_dead(name: bytes) -> Any:
    real = os.scandir

    @contextmanager
    def listing(path: bytes) -> Iterator[list[Any]]:
        with real(path) as entries:
            yield [Dead(name) if entry.name == name else entry for entry in entries]

    return listing


async def said(rig: Rig, event: str) -> dict[str, Any]:
    """The first line of this event; waits for it."""
    while True:
        for line in await rig.lines():
            if line["event"] == event:
                return line
        await asyncio.sleep(0)
