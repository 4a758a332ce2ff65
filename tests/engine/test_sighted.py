"""The straight way of new files that a watcher has looked at: nothing shows that they went it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.cli.faults import broken_guard
from daemon.cli.harness import Rig
from daemon.config import Settle, Urgency
from daemon.core.model import Fingerprint, Key, Row, Sight, Trigger
from daemon.engine.clock import now_us
from daemon.engine.sight import sights
from daemon.engine.turns import Turn
from daemon.sources.alarms import Alarms
from tests.engine.conftest import Gate, Open, background, key
from tests.engine.test_newcomers import Refusing, known_of

NAMES = [*map(str, range(20)), "urgent", "\N{CRAB}", "odd\udcff"]
URGENT = Urgency(patterns=("urgent",), priority=5)


def seen(rig: Rig, folder: str, names: Sequence[str] = NAMES) -> list[Trigger]:
    """What a watcher says of new files, which are made."""
    return [sighted(rig, rig.write(f"{folder}/{name}", "x" * n)) for n, name in enumerate(names)]


def sighted(rig: Rig, path: Key) -> Trigger:
    tree = rig.service.trees["incoming"]
    (found,) = sights(tree.root, [path.path], probe=tree.probes_at_once)
    assert found is not None
    return Trigger(path, "look", "hint", sight=Sight(Fingerprint(*found[0]), found[1]))


async def take(rig: Rig, looks: Sequence[Trigger]) -> None:
    for look in looks:
        rig.service.inbox.put(look)
    await rig.service.inbox.idle()


@pytest.fixture
def writing(tree: Path) -> Iterator[None]:
    """All of them are open for writing."""
    (tree / "together").mkdir()
    files = [
        (tree / "together" / os.fsencode(name).decode("utf-8", "surrogateescape")).open("a")
        for name in NAMES
    ]
    yield
    for file in files:
        file.close()


def bare(row: Row) -> Row:
    """Without what differs between two files that were written one after the other."""
    waits = row.due_at is not None
    return replace(row, due_at=None if not waits else 0)


async def same(rig: Rig, state: str) -> None:
    """The same files, seen by a watcher and looked at one by one, have the same on record."""
    await take(rig, seen(rig, "together"))
    for look in seen(rig, "alone"):
        await take(rig, [replace(look, sight=None)])
    together, alone = [await known_of(rig, folder) for folder in ("together", "alone")]
    assert len(together) == len(NAMES)
    for (row, record, line), (row2, record2, line2) in zip(together, alone, strict=True):
        assert bare(row) == bare(row2)
        assert row.state == state
        waits = record.due_at is not None
        assert replace(record, due_at=None) == replace(record2, due_at=None)
        assert waits == (record2.due_at is not None)
        assert {**line, "due_at": 0} == {**line2, "due_at": 0}
    assert {row.rank for row, _, _ in together} == {0, -5}


async def test_done_as_alone(engine: Open, judged: list[Turn]) -> None:
    """Tracked only: done at once, by the evidence that nobody has it open."""
    async with engine(steps=0, priorities=(URGENT,)) as rig:
        await same(rig, "done")
        assert len(judged) == 1


async def test_ready_as_alone(engine: Open, judged: list[Turn]) -> None:
    """With steps: ready, and handed over."""
    async with engine(priorities=(URGENT,)) as rig:
        await same(rig, "ready")
        assert len(judged) == 1
        async with background(rig.service.dispatcher.run()):
            for name in NAMES:
                await rig.state(rig.key(f"together/{name}"), ["done"])


async def test_waiting_as_alone(engine: Open, judged: list[Turn]) -> None:
    """With a quiet time: settling until that is over."""
    async with engine(quiet=300, priorities=(URGENT,)) as rig:
        await same(rig, "settling")
        assert len(judged) == 1
        looks = seen(rig, "more", ["a", "b"])
        await take(rig, looks)
        for look in looks:
            row = await rig.row(look.key)
            assert look.sight is not None
            written = max(look.sight.seen.mtime_ns, look.sight.seen.ctime_ns) // 1000
            assert row.due_at == written + 300_000_001


@pytest.mark.usefixtures("writing")
async def test_written_as_alone(engine: Open, judged: list[Turn]) -> None:
    """While somebody has them open for writing: settling, and looked at again soon."""
    async with engine(priorities=(URGENT,)) as rig:
        await take(rig, seen(rig, "together"))
        states = {(await rig.row(rig.key(f"together/{name}"))).state for name in NAMES}
        assert states == {"settling"}
        assert len(judged) == 1


async def test_alarm_rings(engine: Open, tree: Path) -> None:
    """What has to wait is looked at when its time has come, and ready."""
    (tree / "d").mkdir()
    async with engine(quiet=0.2) as rig, background(rig.service._alarms.run()):
        # On a slow machine they are quiet for long enough at once. Not while they have a writer.
        with ExitStack() as writers:
            for name in "abc":
                writers.enter_context((tree / "d" / name).open("a"))
            looks = seen(rig, "d", "abc")
            await take(rig, looks)
        assert {(await rig.state(look.key, ["ready"])).version for look in looks} == {2}


async def test_of_many_looks(engine: Open, tree: Path, judged: list[Turn]) -> None:
    """Each is what it looked like, whatever the others of its group do."""
    async with engine(steps=0) as rig:
        looks = seen(rig, "d", [*"abcdef"])
        with (tree / "d/c").open("a"), (tree / "d/e").open("a"):
            looks[2], looks[4] = sighted(rig, looks[2].key), sighted(rig, looks[4].key)
            await take(rig, looks)
        states = [(await rig.row(look.key)).state for look in looks]
        assert states == ["done", "done", "settling", "done", "settling", "done"]
        assert len(judged) == 2


async def test_known_path(engine: Open, tree: Path) -> None:
    """A file that is put in the place of a known one is a change of that."""
    async with engine(steps=0) as rig:
        known = rig.write("d/known")
        await rig.send(known, "look")
        rig.service.ledger._recent.clear()
        new = rig.write("d/new", "longer than before")
        (tree / "d/new").replace(tree / "d/known")
        await take(rig, [sighted(rig, known)])
        row = await rig.row(known)
        assert row.seen is not None
        assert (row.version, row.state, row.seen.size) == (2, "settling", 18)
        assert (await rig.row(new)).id == 0


async def test_known_file(engine: Open, tree: Path) -> None:
    """A file that has its row under another path keeps it."""
    async with engine(steps=0) as rig:
        old = rig.write("d/old")
        await rig.send(old, "look")
        before = await rig.row(old)
        (tree / "d/old").rename(tree / "d/new")
        await take(rig, [sighted(rig, key("d/new"))])
        row = await rig.row(key("d/new"))
        assert (row.id, row.version) == (before.id, 2)


async def test_seen_and_seen_again(engine: Open, tree: Path) -> None:
    """What was seen before the last hint is no answer to that."""
    async with engine(steps=0) as rig:
        (look,) = seen(rig, "d", ["a"])
        (tree / "d/a").write_text("something else")
        rig.service.inbox.put(look)
        await take(rig, [Trigger(look.key, "look", "hint")])
        row = await rig.row(look.key)
        assert row.seen is not None
        assert (row.version, row.seen.size) == (1, 14)


async def test_gone_again(engine: Open, tree: Path) -> None:
    """Neither is it when that says that nothing is there any more."""
    async with engine(steps=0) as rig:
        (look,) = seen(rig, "d", ["a"])
        (tree / "d/a").unlink()
        rig.service.inbox.put(look)
        await take(rig, [Trigger(look.key, "look", "hint")])
        assert (await rig.row(look.key)).id == 0


async def test_taken_path(engine: Open) -> None:
    """A path that somebody holds waits for its turn, and is looked at then; others do not wait."""
    async with engine(steps=0) as rig:
        looks = seen(rig, "d")
        async with rig.service.pipeline._locks.hold(looks[7].key):
            for look in looks:
                rig.service.inbox.put(look)
            await rig.state(looks[8].key, ["done"])
            assert (await rig.row(looks[7].key)).id == 0
            rig.write("d/7", "something else")
        await rig.service.inbox.idle()
        row = await rig.row(looks[7].key)
        assert row.seen is not None
        assert (row.state, row.seen.size) == ("done", 14)


async def test_refused_by_the_store(engine: Open) -> None:
    """An error of all of them together is none of any one: each is looked at by itself."""
    async with engine(wrap=Refusing.around, steps=0) as rig:
        looks = seen(rig, "d")
        await take(rig, looks)
        assert {(await rig.row(look.key)).state for look in looks} == {"done"}
        assert len(rig.service.pipeline._locks) == 0


async def test_broken_guard(engine: Open) -> None:
    """An error while the first is judged is said of each."""
    async with engine() as rig:
        with broken_guard("untracked", "discover"):
            await take(rig, seen(rig, "d", ["a", "b"]))
        errors = [line["error"] for line in await rig.lines()]
        assert errors == ["InjectedFault: in a guard"] * 2


async def test_trouble_afterwards(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in what follows for one file is said of it, and the others have theirs."""
    set_alarm = Alarms.set

    def fail_once(alarms: Alarms, row: Row, due_at: int, stood: Fingerprint | None) -> None:
        if row.key.name == b"a" and row.version == 1 and failing.pop():
            raise RuntimeError("no clock")
        set_alarm(alarms, row, due_at, stood)

    failing = [False, True]
    monkeypatch.setattr(Alarms, "set", fail_once)
    async with engine(quiet=0.2) as rig:
        async with background(rig.service._alarms.run()):
            looks = seen(rig, "d", ["a", "b"])
            await take(rig, looks)
            for look in looks:
                assert (await rig.state(look.key, ["ready"])).version == 2
        failed = [line for line in await rig.lines() if line.get("outcome") == "failed"]
        assert [line["error"] for line in failed] == ["RuntimeError: no clock"]


@pytest.mark.parametrize("watch", [{"settle": Settle(marker="{name}.ok")}, {"identity": "content"}])
async def test_not_plain(engine: Open, judged: list[Turn], watch: dict[str, Any]) -> None:
    """Where files wait for something beside themselves, each is looked at."""
    async with engine(**watch) as rig:
        await take(rig, seen(rig, "d", ["a", "b"]))
        assert judged == []


async def test_older_than_the_watch(engine: Open, judged: list[Turn]) -> None:
    """What was there before its watch is adopted, as by a scan."""
    async with engine() as rig:
        looks = seen(rig, "d", ["a", "b"])
        rig.service.trees["incoming"].adopt_before = now_us() + 1_000_000
        await take(rig, looks)
        assert {(await rig.row(look.key)).state for look in looks} == {"done"}
        assert judged == []


async def test_excluded(engine: Open) -> None:
    """What the watch does not want is left alone."""
    async with engine(exclude=("*.tmp",)) as rig:
        await take(rig, seen(rig, "d", ["a.tmp"]))
        assert (await rig.row(key("d/a.tmp"))).id == 0


async def test_quiet_by_now(engine: Open, judged: list[Turn]) -> None:
    """One whose quiet time was over before its turn came has still to be probed."""
    async with engine(quiet=0.001, steps=0) as rig:
        looks = seen(rig, "d", ["a", "b"])
        assert all(look.sight and look.sight.closed is None for look in looks)
        tree = rig.service.trees["incoming"]
        while now_us() - looks[1].sight.seen.ctime_ns // 1000 <= tree.quiet:  # type: ignore[union-attr]
            pass
        await take(rig, looks)
        for look in looks:
            assert (await rig.row(look.key)).state == "done"
        evidence = {line["evidence"] for line in await rig.lines()}
        assert evidence == {"quiet+lease"}
        assert judged == []


async def test_chain_of_names(engine: Open, judged: list[Turn]) -> None:
    """What may be the work of a handler is examined like any file."""
    gate = Gate()
    async with engine(gate, max_cycles=1) as rig, background(rig.service.dispatcher.run()):
        await rig.send(rig.write("d/a"), "look")
        await gate.next()
        await take(rig, seen(rig, "d", ["a.out", "b"]))
        assert [turn.key for turn in judged] == [key("d/b")]
