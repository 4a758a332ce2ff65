"""The dispatcher: how many at once, in what order, and how it ends."""

# ruff: noqa: ASYNC110 - turns of the loop until it has noticed; there is no event for that

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.cli.faults import FaultyStore, InjectedFault
from daemon.cli.harness import Rig
from daemon.core.model import Key, Row
from daemon.engine.backlog import LONGEST_QUEUE, QUEUE
from daemon.engine.jobs import accident, idempotency_key
from daemon.errors import StoreUnavailable
from daemon.handlers import Handler, Job, Outcome
from tests.engine.conftest import Gate, Open, background, key
from tests.unit import shortage


async def ready(rig: Rig, *names: str) -> list[Key]:
    """Files that arrive one after the other."""
    paths = [rig.write(name) for name in names]
    for path in paths:
        await rig.send(path, "look")
        # Where a dispatcher runs it may have been started already.
        assert (await rig.row(path)).state in {"ready", "processing"}
    return paths


async def turns(count: int = 200) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def lane(rig: Rig) -> Any:
    return rig.service.dispatcher._lanes["incoming", "load"]


async def test_concurrency(engine: Open) -> None:
    """Never more handlers at once than the step allows, and never fewer while files wait."""
    gate = Gate()
    async with engine(gate, concurrency=3) as rig, background(rig.service.dispatcher.run()):
        paths = await ready(rig, *[f"{number}" for number in range(20)])
        held = [await gate.next() for _ in range(3)]
        for _ in range(17):
            held.pop(0)[1].set_result(Outcome("success"))
            held.append(await gate.next())
        for _, ending in held:
            ending.set_result(Outcome("success"))
        for path in paths:
            await rig.state(path, ["done"])
        assert gate.most == 3


async def test_order_of_arrival(engine: Open) -> None:
    """First come, first served: also beyond what the queue in memory holds."""
    gate = Gate()
    names = [f"{number}" for number in range(3 * QUEUE)]
    async with engine(gate, concurrency=1) as rig:
        paths = await ready(rig, *names)
        async with background(rig.service.dispatcher.run()):
            order = []
            for _ in paths:
                assert len(lane(rig).backlog.queue) <= LONGEST_QUEUE
                order.append((await gate.let_pass()).file.path.decode())
            assert order == names
            for path in paths:
                await rig.state(path, ["done"])


async def test_what_a_former_run_left_ready(engine: Open) -> None:
    """Rows that were ready before this run are started without anybody offering them."""
    async with engine() as rig:
        await ready(rig, "a", "b")
    gate = Gate()
    async with engine(gate) as rig, background(rig.service.dispatcher.run()):
        assert {(await gate.let_pass()).file.path for _ in range(2)} == {b"a", b"b"}
        await rig.state(key("b"), ["done"])


async def test_job(engine: Open, tree: Path) -> None:
    """A handler is given the absolute path, the attempt, and a key that names content and step."""
    gate = Gate()
    async with engine(gate, steps=2) as rig:
        (path,) = await ready(rig, "d/a")
        await rig.send(path, "start")
        first = await gate.let_pass(Outcome("retry", "no"))
        await rig.state(path, ["failed"])
        await rig.service.inbox.idle()
        await rig.send(path, "retry")
        await rig.send(path, "start")
        again = await gate.let_pass()
        assert first.path == os.fsencode(tree / "d/a")
        assert (first.attempt, again.attempt, first.step) == (1, 2, "load")
        assert first.idempotency_key == again.idempotency_key
        await rig.state(path, ["ready"])
        await rig.service.inbox.idle()
        await rig.send(path, "start")
        following = await gate.let_pass()
        assert following.step == "index"
        assert following.idempotency_key != first.idempotency_key
        await rig.state(path, ["done"])


def test_idempotency_key() -> None:
    """The key differs with watch, path, content and step, and with nothing else."""
    row = Row(1, key("a"), "ready", 3, "load", done="x")
    same = Row(9, key("a"), "processing", 8, "load", attempt=4, done="x")
    assert idempotency_key(row.key, row) == idempotency_key(same.key, same)
    others = [
        Row(1, key("b"), step="load", done="x"),
        Row(1, key("a", "other"), step="load", done="x"),
        Row(1, key("a"), step="index", done="x"),
        Row(1, key("a"), step="load", done="y"),
    ]
    assert len({idempotency_key(each.key, each) for each in [row, *others]}) == 5


async def test_handler_that_raises(engine: Open) -> None:
    """A handler that breaks its promise and raises costs its file an attempt, and nobody else."""

    class Broken:
        async def run(self, job: Job) -> Outcome:
            raise ZeroDivisionError(f"on {os.fsdecode(job.path)}")

        async def close(self) -> None:
            pass

    name = os.fsdecode(b"x\xff")
    async with engine(cast("Handler", Broken())) as rig:
        for path in await ready(rig, "a", name):
            await rig.send(path, "start")
            row = await rig.state(path, ["failed"])
            assert row.error is not None
            assert row.error.startswith("ZeroDivisionError: on /")


async def test_handler_that_lacks_a_thread() -> None:
    """What the machine has too few of costs no attempt, though it reaches us as an exception."""
    with shortage.of_threads(), pytest.raises(RuntimeError) as caught:
        await asyncio.to_thread(int)
    assert accident(caught.value).verdict == "defer"
    assert accident(MemoryError()).verdict == "defer"


async def test_refused_start_frees_the_place(engine: Open) -> None:
    """A file that changed while it waited gives its place to the next."""
    gate = Gate()
    async with engine(gate, concurrency=1) as rig:
        first, second = await ready(rig, "a", "b")
        rig.write("a", "something else, and longer\n")
        async with background(rig.service.dispatcher.run()):
            assert (await gate.let_pass()).file == second
            await rig.state(second, ["done"])
            await rig.service.inbox.idle()
            assert lane(rig).backlog.claimed == set()
        assert (await rig.row(first)).state == "settling"


async def test_deferred_file_comes_back(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be looked at stays ready, is left alone for a while, and comes back."""
    monkeypatch.setattr("daemon.engine.lanes.DEFER_SECONDS", 0.05)
    gate = Gate()
    async with engine(gate) as rig:
        (path,) = await ready(rig, "a")
        tree = rig.service.trees["incoming"].watch.path
        tree.rename(tree.parent / "away")
        async with background(rig.service.dispatcher.run()):
            while not await rig.lines():
                await asyncio.sleep(0)
            (tree.parent / "away").rename(tree)
            assert (await gate.let_pass()).file == path
            await rig.state(path, ["done"])


async def test_start_that_met_an_error_comes_back(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start whose commit met an error of ours is tried again."""
    monkeypatch.setattr("daemon.engine.lanes.DEFER_SECONDS", 0.05)
    gate = Gate()
    async with engine(gate, wrap=FaultyStore.around) as rig:
        (path,) = await ready(rig, "a")
        rig.service.ledger.store.before = InjectedFault("boom")  # type: ignore[attr-defined]
        async with background(rig.service.dispatcher.run()):
            await gate.let_pass()
            await rig.state(path, ["done"])


async def test_nothing_starts_while_the_database_is_away(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database cannot be written nothing starts; when it is back, it does."""
    monkeypatch.setattr("daemon.engine.ledger.RETRY_SECONDS", 0.01)
    gate, is_back = Gate(), asyncio.Event()

    async def ask() -> None:
        if not is_back.is_set():
            raise StoreUnavailable("away")

    async with engine(gate) as rig, background(rig.service.dispatcher.run()):
        ledger = rig.service.ledger
        while lane(rig).backlog.more:
            await asyncio.sleep(0)
        asking = asyncio.create_task(ledger.insist("check", ask))
        while ledger.available.is_set():
            await asyncio.sleep(0)
        (path,) = await ready(rig, "a")
        await turns()
        assert (len(lane(rig).backlog.queue), lane(rig).starting, gate.most) == (1, set(), 0)
        is_back.set()
        await asking
        await gate.let_pass()
        await rig.state(path, ["done"])


async def test_step_that_follows(engine: Open) -> None:
    """A file goes from step to step without anybody's help."""
    gate = Gate()
    async with engine(gate, steps=3) as rig, background(rig.service.dispatcher.run()):
        (path,) = await ready(rig, "a")
        assert [(await gate.let_pass()).step for _ in range(3)] == ["load", "index", "ship"]
        await rig.state(path, ["done"])


async def test_drain_lets_finish(engine: Open) -> None:
    """What runs may finish in its time; what waits is not started any more."""
    gate = Gate()
    async with engine(gate, concurrency=1) as rig:
        first, second = await ready(rig, "a", "b")
        async with background(rig.service.dispatcher.run()):
            _, ending = await gate.next()
            draining = asyncio.create_task(rig.service.dispatcher.drain(60, asyncio.Event()))
            await turns()
            assert not draining.done()
            ending.set_result(Outcome("success"))
            await draining
            await rig.state(first, ["done"])
            await rig.service.inbox.idle()
        assert (await rig.row(second)).state == "ready"
        assert gate.jobs.empty()


async def test_drain_interrupts(engine: Open) -> None:
    """What does not finish in its time is ended, and ready again; it was nobody's failure."""
    gate = Gate()
    async with engine(gate) as rig:
        (path,) = await ready(rig, "a")
        await rig.send(path, "start")
        await gate.next()
        await rig.service.dispatcher.drain(0.01, asyncio.Event())
        row = await rig.state(path, ["ready"])
        assert (row.failures, row.interruptions, gate.inside) == (0, 0, 0)


async def test_drain_in_a_hurry(engine: Open) -> None:
    """Somebody in a hurry cuts the waiting short."""
    gate, hurry = Gate(), asyncio.Event()
    async with engine(gate) as rig:
        (path,) = await ready(rig, "a")
        await rig.send(path, "start")
        await gate.next()
        draining = asyncio.create_task(rig.service.dispatcher.drain(3600, hurry))
        await turns()
        assert not draining.done()
        hurry.set()
        await draining
        await rig.state(path, ["ready"])


async def test_start_that_is_committed_while_draining(engine: Open) -> None:
    """A start that was on its way when the stop came is interrupted, without a handler."""
    gate = Gate()
    async with engine(gate) as rig:
        (path,) = await ready(rig, "a")
        await rig.service.dispatcher.drain(0, asyncio.Event())
        await rig.send(path, "start")
        await rig.state(path, ["ready"])
        assert gate.most == 0
        assert (await rig.row(path)).version == 3
