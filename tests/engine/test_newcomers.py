"""The straight way of new files that are adopted: nothing shows that they went together."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.cli.faults import FaultyStore, InjectedFault, broken_guard
from daemon.cli.harness import Rig
from daemon.config import Settle, Urgency
from daemon.core.model import Record, Row, Transition, Trigger
from daemon.engine.clock import now_us
from daemon.engine.disk import fingerprint
from daemon.engine.turns import Turn
from tests.engine.conftest import Open, key

NAMES = [*map(str, range(40)), "urgent", "\N{CRAB}", "odd\udcff"]
Batch = Sequence[tuple[Transition, Record]]


class Refusing(FaultyStore):
    """A store that takes no more than one transition at a time."""

    async def apply(self, batch: Batch, journaled: int) -> list[bool]:
        if len(batch) > 1:
            raise InjectedFault("too many")
        return await super().apply(batch, journaled)


def found(rig: Rig, folder: str, names: Sequence[str] = NAMES) -> list[Trigger]:
    """What a scan would say of new files, which are made, and were there before their watch."""
    tree = rig.service.trees["incoming"]
    keys = [rig.write(f"{folder}/{name}", "x" * n) for n, name in enumerate(names)]
    tree.adopt_before = now_us() + 1_000_000
    seen = [fingerprint(Path(os.fsdecode(tree.absolute(each.path))).stat()) for each in keys]
    return [Trigger(k, "look", "scan", found=s) for k, s in zip(keys, seen, strict=True)]


def ctime_us(look: Trigger) -> int:
    assert look.found is not None
    return look.found.ctime_ns // 1000


async def adopt(rig: Rig, looks: list[Trigger]) -> None:
    await rig.service.inbox.offer_bundle(looks)
    await rig.service.inbox.idle()


async def known_of(rig: Rig, folder: str) -> list[tuple[Row, Record, dict[str, Any]]]:
    """All that is known of the files in a folder but what makes each file itself."""
    lines = {line["file_id"]: line for line in await rig.lines() if line.get("file_id")}
    said = []
    for record in await rig.store.owed(0, 999):
        where, _, name = record.path.rpartition(b"/")
        if where.decode() != folder:
            continue
        row = await rig.row(key(record.path))
        line = {
            **lines[record.file_id],
            "file_id": 0,
            "timestamp": "",
            "attempt_id": "",
            "path": "",
        }
        line.pop("path_b64", None)
        assert row.seen is not None
        assert row.done == (row.seen.content if row.state == "done" else None)
        seen = row.seen._replace(ino=0, mtime_ns=0, ctime_ns=0)
        bare = replace(row, id=0, key=key(name), seen=seen, done=None, at=0)
        told = replace(record, seq=0, file_id=0, path=name, attempt_id="", at=0)
        said.append((bare, told, line))
    return said


@pytest.mark.parametrize("steps", [0, 2])
async def test_as_alone(engine: Open, judged: list[Turn], steps: int) -> None:
    """Rows, transitions and lines are what the same files get that are looked at one by one."""
    urgent = Urgency(patterns=("urgent",), priority=5)
    async with engine(steps=steps, priorities=(urgent,)) as rig:
        await adopt(rig, found(rig, "together"))
        for look in found(rig, "alone"):
            rig.service.inbox.put(look)
            await rig.service.inbox.idle()
        assert len(judged) == 1
        together = await known_of(rig, "together")
        assert len(together) == len(NAMES)
        assert together == await known_of(rig, "alone")
        assert {row.rank for row, _, _ in together} == {0, -5}
        attempts = {record.attempt_id for record in await rig.store.owed(0, 999)}
        assert len(attempts) == 2 * len(NAMES)


async def test_younger_than_the_watch(engine: Open) -> None:
    """A file that was written since its watch began is not adopted with the others."""
    async with engine() as rig:
        (old,) = (new,) = found(rig, "d", ["old"])
        while ctime_us(new) == ctime_us(old):
            (new,) = found(rig, "d", ["new"])
        rig.service.trees["incoming"].adopt_before = ctime_us(new)
        await adopt(rig, [old, new])
        assert (await rig.row(old.key)).state == "done"
        assert (await rig.row(new.key)).state == "ready"


async def test_known_after_all(engine: Open, judged: list[Turn]) -> None:
    """A path that has a row already keeps it, and the others of its bundle are adopted."""
    async with engine() as rig:
        known = rig.write("d/7")
        await rig.send(known, "look")
        before = await rig.row(known)
        rig.service.ledger._recent.clear()
        looks = found(rig, "d")
        await adopt(rig, looks)
        states = [(await rig.row(look.key)).state for look in looks]
        assert states.count("done") == len(NAMES) - 1
        row = await rig.row(known)
        assert (row.id, row.version, row.state) == (before.id, 2, "settling")
        assert len(judged) == 1


async def test_known_of_late(engine: Open) -> None:
    """So does one that was committed a moment ago, without a race that is lost."""
    async with engine(wrap=Refusing.around) as rig:
        known = rig.write("d/7")
        await rig.send(known, "look")
        await adopt(rig, found(rig, "d", ["7"]))
        assert [line["event"] for line in await rig.lines()] == ["discover", "change"]


async def test_taken_path(engine: Open) -> None:
    """A path that somebody holds waits for its turn, and the others do not."""
    async with engine() as rig:
        looks = found(rig, "d")
        async with rig.service.pipeline._locks.hold(looks[7].key):
            await rig.service.inbox.offer_bundle(looks)
            await rig.state(looks[8].key, ["done"])
            assert (await rig.row(looks[7].key)).id == 0
        await rig.service.inbox.idle()
        assert (await rig.row(looks[7].key)).state == "done"


async def test_removed_before_its_turn(engine: Open, tree: Path) -> None:
    """A file that is removed after a scan has seen it, and before that is on record, is gone."""
    async with engine() as rig:
        inbox = rig.service.inbox
        old, gone = looks = found(rig, "d", ["old", "gone"])
        inbox.request_scan(key(""), "start")
        await inbox.next_scans()
        listed = inbox.begin_scan("incoming")
        (tree / "d/gone").unlink()
        inbox.put(Trigger(gone.key, "look", "hint"))
        await inbox.arrived()
        await inbox.offer_bundle(looks)
        listed()
        await inbox.idle()
        assert (await rig.row(old.key)).state == "done"
        assert (await rig.row(gone.key)).state == "gone"


async def test_refused_by_the_store(engine: Open) -> None:
    """An error of all of them together is none of any one: each is adopted by itself."""
    async with engine(wrap=Refusing.around) as rig:
        looks = found(rig, "d")
        await adopt(rig, looks)
        assert {(await rig.row(look.key)).state for look in looks} == {"done"}
        assert len(rig.service.pipeline._locks) == 0


async def test_other_guards(engine: Open, judged: list[Turn]) -> None:
    """Where the life cycle says anything else of the first, each is decided by itself."""
    async with engine() as rig:
        with broken_guard("untracked", "discover"):
            looks = found(rig, "d")
            await adopt(rig, looks)
        errors = [line["error"] for line in await rig.lines()]
        assert errors == ["InjectedFault: in a guard"] * len(NAMES)
        assert len(judged) == 1


@pytest.mark.parametrize("watch", [{"settle": Settle(marker="{name}.ok")}, {"identity": "content"}])
async def test_not_plain(engine: Open, judged: list[Turn], watch: dict[str, Any]) -> None:
    """Where files wait for something beside themselves, each is looked at."""
    async with engine(**watch) as rig:
        await adopt(rig, looks := found(rig, "d", ["a", "b"]))
        assert [(await rig.state(look.key, ["done"])).state for look in looks] == ["done"] * 2
        assert judged == []


async def test_renamed_folder(engine: Open) -> None:
    """While a tree is adopted, too, the files of a folder that is renamed keep their rows."""
    async with engine() as rig:
        looks = found(rig, "old")
        await adopt(rig, looks)
        tree, scanner = rig.service.trees["incoming"], rig.service.scanner
        before = {(await rig.row(look.key)).id for look in looks}
        root = Path(os.fsdecode(tree.root))
        (root / "old").rename(root / "new")
        assert tree.adopt_before
        await scanner.scan(tree, [b"new"])
        await rig.service.inbox.idle()
        moved = [key(look.key.path.replace(b"old", b"new", 1)) for look in looks]
        assert {(await rig.row(each)).id for each in moved} == before
        assert {line["event"] for line in await rig.lines() if "path" in line} == {
            "discover",
            "move",
        }
