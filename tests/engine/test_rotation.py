"""Renames whose two ends are seen apart, in any order: rows follow, nothing is done twice."""

import asyncio
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import cast

import pytest

from daemon.cli.faults import FaultyStore
from daemon.cli.harness import Rig
from daemon.core.model import Event, Key, Row, Trigger
from daemon.engine import moves, scanner
from daemon.engine.barriers import Barrier
from daemon.engine.disk import fingerprint
from tests.engine.conftest import Gate, Open
from tests.engine.test_pipeline import done

ROTATED = ("a.2", "a.1", "a")


class SlowStore(FaultyStore):
    """A store that is long in finding the rows of one inode."""

    inode = 0
    asked: asyncio.Event
    go_on: asyncio.Event

    def hold_up(self, inode: int) -> None:
        self.inode, self.asked, self.go_on = inode, asyncio.Event(), asyncio.Event()

    async def by_inode(self, inodes: Sequence[int]) -> list[Row]:
        found = await self._store.by_inode(inodes)
        if self.inode in inodes:
            self.asked.set()
            await self.go_on.wait()
        return found


def slow(rig: Rig) -> SlowStore:
    return cast("SlowStore", rig.service.ledger.store)


def says(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> asyncio.Event:
    """Set when this method is called."""
    called, real = asyncio.Event(), getattr(owner, name)

    def method(*given: object) -> object:
        called.set()
        return real(*given)

    monkeypatch.setattr(owner, name, method)
    return called


async def test_new_name_is_looked_at_while_the_old_one_waits(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file under the old name is not put on record before the new name is through."""
    gate = Gate()
    async with engine(gate, wrap=SlowStore.around) as rig:
        path = await done(rig, gate, "a")
        first = (await rig.row(path)).id
        (tree / "a").rename(tree / "a.1")
        rig.write("a", "second\n")
        released = says(monkeypatch, Barrier, "is_passed")
        found = fingerprint((tree / "a.1").stat())
        slow(rig).hold_up(found.ino)
        assert await rig.send(path, "look") is None
        await rig.service.inbox.offer_bundle([Trigger(rig.key("a.1"), "look", "scan", found=found)])
        await slow(rig).asked.wait()
        await released.wait()
        slow(rig).go_on.set()
        await rig.service.inbox.idle()
        rotated, new = await rig.row(rig.key("a.1")), await rig.row(path)
        assert (rotated.id, rotated.state) == (first, "done")
        assert new.id not in {0, first}


async def test_scan_finds_it_missing_while_the_new_name_is_looked_at(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a load that leaves no quiet moment, what the scan found new is through all the same."""
    monkeypatch.setattr(scanner, "SETTLE_SECONDS", 0.0)
    gate = Gate()
    async with engine(gate, wrap=SlowStore.around) as rig:
        path = await done(rig, gate, "a")
        first = (await rig.row(path)).id
        (tree / "a").rename(tree / "b")
        slow(rig).hold_up((tree / "b").stat().st_ino)
        waits = says(monkeypatch, rig.service.inbox, "arrived")
        scan = asyncio.create_task(rig.service.scanner.scan(rig.service.trees["incoming"], [b""]))
        await slow(rig).asked.wait()
        await waits.wait()
        slow(rig).go_on.set()
        await scan
        await rig.service.inbox.idle()
        moved = await rig.row(rig.key("b"))
        assert (moved.id, moved.state, (await rig.row(path)).id) == (first, "done", 0)


async def rotated_twice(rig: Rig, gate: Gate, tree: Path) -> tuple[int, int]:
    """`a.1` and `a` with rows, both done; then `a.2`, `a.1` and a new `a` on the disk."""
    path = await done(rig, gate, "a")
    (tree / "a").rename(tree / "a.1")
    await rig.send(rig.key("a.1"), "look")
    await done(rig, gate, "a", "the second\n")
    ids = (await rig.row(rig.key("a.1"))).id, (await rig.row(path)).id
    (tree / "a.1").rename(tree / "a.2")
    (tree / "a").rename(tree / "a.1")
    rig.write("a", "and the third\n")
    return ids


async def all_wait(rig: Rig, order: Sequence[str]) -> list[Key]:
    """Look at each; the last name's is kept from its row, as by a look that is under way there."""
    locks = rig.service.pipeline._locks
    keys = [rig.key(name) for name in order]
    for path in keys:
        held = rig.key("a.1") if path.path == b"a.2" else None
        if held:
            assert locks.take_if_free(held)
        assert await rig.send(path, "look") is None
        if held:
            locks.give_back(held)
    return keys


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", list(permutations(ROTATED)))
async def test_log_that_is_rotated(
    engine: Open, tree: Path, order: tuple[str, ...], *, together: bool
) -> None:
    """Three names, each of which waits for the next: in whatever order they are looked at again."""
    gate = Gate()
    async with engine(gate) as rig:
        ids = await rotated_twice(rig, gate, tree)
        keys = await all_wait(rig, order)
        if not together:
            for path in keys:
                await rig.send(path, "look", waited=True)
        await rig.service.inbox.idle()
        oldest, older, new = [await rig.row(rig.key(name)) for name in ROTATED]
        assert (oldest.id, older.id) == ids
        assert (oldest.state, older.state) == ("done", "done")
        assert new.id not in {0, *ids}
        assert gate.jobs.empty()


@pytest.mark.parametrize("event", ["look", "hold"])
async def test_new_file_is_seen_before_the_old_one_is_found(
    engine: Open, tree: Path, event: Event
) -> None:
    """What stands under the old name of a file that has not settled gets a row of its own."""
    async with engine(Gate(), quiet=3600.0) as rig:
        path, rotated = rig.write("a"), rig.key("a.1")
        await rig.send(path, "look")
        await rig.send(path, event)
        first = (await rig.row(path)).id
        (tree / "a").rename(tree / "a.1")
        rig.write("a", "the second\n")
        for each in (path, rotated):
            await rig.send(each, "look")
        await rig.service.inbox.idle()
        moved, new = await rig.row(rotated), await rig.row(path)
        assert (moved.id, new.state) == (first, "settling")
        assert new.seen == fingerprint((tree / "a").stat())


@pytest.mark.parametrize("order", [("a", "a.1"), ("a.1", "a")])
async def test_name_of_a_removed_file_is_taken(
    engine: Open, tree: Path, order: Sequence[str]
) -> None:
    """The last log was removed, or compressed: the next one gets its name, not done again."""
    gate = Gate()
    async with engine(gate) as rig:
        path, old = await done(rig, gate, "a"), await done(rig, gate, "a.1", "the old one\n")
        first = (await rig.row(path)).id
        (tree / "a.1").unlink()
        await rig.send(old, "look", waited=True)
        (tree / "a").rename(tree / "a.1")
        rig.write("a", "and the third\n")
        for name in order:
            await rig.send(rig.key(name), "look")
        await rig.service.inbox.idle()
        rotated, new = await rig.row(old), await rig.row(path)
        assert (rotated.id, rotated.state, new.state) == (first, "done", "ready")
        assert [line for line in await rig.lines() if line["outcome"] == "failed"] == []


async def test_nothing_grows(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was to move and was removed instead is forgotten."""
    monkeypatch.setattr(moves, "LIMIT", 2)
    gate = Gate()
    async with engine(gate) as rig:
        made = rig.service.pipeline._moves
        for number in range(6):
            path, new = await done(rig, gate, f"{number}"), rig.key(f"new-{number}")
            (tree / f"{number}").rename(tree / f"new-{number}")
            async with rig.service.pipeline._locks.hold(path):
                assert await rig.send(new, "look") is None
            (tree / f"new-{number}").unlink()
            assert await rig.send(path, "look") is None
            await rig.service.inbox.idle()
            assert (await rig.row(path)).state == "gone"
            assert len(made._expected) <= 2


async def test_names_that_were_taken_once(engine: Open, tree: Path) -> None:
    """Two that are missing do not wait for each other for what was once seen at their paths."""
    gate = Gate()
    async with engine(gate) as rig:
        path, other = await done(rig, gate, "a"), rig.key("b")
        (tree / "a").rename(tree / "b")
        async with rig.service.pipeline._locks.hold(path):
            assert await rig.send(other, "look") is None
        (tree / "b").rename(tree.parent / "away")
        await rig.service.inbox.idle()
        await done(rig, gate, "b", "another\n")
        (tree / "b").rename(tree / "a")
        assert await rig.send(path, "look") is None
        (tree / "a").unlink()
        for each in (path, other):
            rig.service.inbox.put(Trigger(each, "look", "hint"))
        await rig.service.inbox.idle()
        assert [(await rig.row(each)).state for each in (path, other)] == ["gone", "gone"]


async def test_ring(engine: Open, tree: Path) -> None:
    """Three files that take each other's names wait for nobody for ever, and are not done again."""
    gate = Gate()
    async with engine(gate) as rig:
        keys = [await done(rig, gate, name, name * 3) for name in ("a", "bb", "ccc")]
        (tree / "a").rename(tree / "third")
        (tree / "bb").rename(tree / "a")
        (tree / "ccc").rename(tree / "bb")
        (tree / "third").rename(tree / "ccc")
        for _ in range(2):
            for path in keys:
                rig.service.inbox.put(Trigger(path, "look", "hint"))
            await rig.service.inbox.idle()
        rows = [await rig.row(path) for path in keys]
        assert [row.state for row in rows] == ["done"] * 3
        assert [row.seen for row in rows] == [
            fingerprint((tree / path.path.decode()).stat()) for path in keys
        ]
