"""A lane of the dispatcher never forgets a file, and never loses a place."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.config_steps import Breaker
from daemon.core.model import Row
from daemon.engine.backlog import QUEUE
from daemon.engine.lanes import Lane
from daemon.handlers import Job, Outcome, Verdict
from daemon.store import Queue, Store
from tests.engine.conftest import DEADLINE, Gate, Open, background


class Done:
    """A handler that succeeds at once."""

    async def run(self, job: Job) -> Outcome:  # noqa: ARG002 - whatever the job
        return Outcome("success")

    async def close(self) -> None:
        pass


class Late:
    """A store whose answer to `ready` is on its way until the test lets it arrive."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked = asyncio.Event()
        self.arrives = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def ready(self, queue: Queue, limit: int) -> list[Row]:
        rows = await self._store.ready(queue, limit)
        self.asked.set()
        await self.arrives.wait()
        return rows


def lane_of(rig: Any, step: str = "load") -> Lane:
    lane: Lane = rig.service.dispatcher._lanes["incoming", step]
    return lane


async def test_rows_beside_running_ones_are_not_forgotten(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ready rows than a queue holds, by fewer than are running: every one is started."""
    gate = Gate()
    async with engine(gate, concurrency=4) as rig:
        dispatcher = rig.service.dispatcher
        for number in range(3):
            await rig.send(rig.write(f"first{number}"), "look")
        async with background(dispatcher.run()):
            held = [await gate.next() for _ in range(3)]
            with monkeypatch.context() as unheard:
                unheard.setattr(dispatcher, "offer", lambda _row: None)
                for number in range(QUEUE + 2):
                    await rig.send(rig.write(f"f{number:03}"), "look")
            lane_of(rig).backlog.more = True
            dispatcher._wake.set()
            for _ in range(QUEUE + 2):
                await gate.let_pass()
            for _, ending in held:
                ending.set_result(Outcome("success"))
            await rig.state(rig.key("first2"), ["done"])
            await rig.service.inbox.idle()
            assert await rig.store.ready(Queue("incoming", "load"), 99) == []


async def test_late_answer_costs_no_place(engine: Open) -> None:
    """A row that was handled while the database's answer was on its way leaves no claim."""
    late: list[Late] = []

    def wrap(store: Store) -> Store:
        late.append(Late(store))
        return cast("Store", late[0])

    async with engine(Done(), wrap=wrap, steps=2, concurrency=2) as rig:
        lanes = [lane_of(rig), lane_of(rig, "index")]
        path = rig.write("a")
        await rig.send(path, "look")
        reading = asyncio.create_task(lane_of(rig).backlog.refill())
        await asyncio.wait_for(late[0].asked.wait(), DEADLINE)
        await rig.send(path, "start")
        assert (await rig.state(path, ["ready"])).step == "index"
        late[0].arrives.set()
        await reading
        async with background(rig.service.dispatcher.run()):
            await rig.state(path, ["done"])
            async with asyncio.timeout(DEADLINE):
                while any(lane.backlog.claimed or lane.starting for lane in lanes):  # noqa: ASYNC110
                    await asyncio.sleep(0)


async def test_row_that_is_ready_while_the_database_is_read(engine: Open) -> None:
    """What becomes ready while an answer is on its way, and is not in it, is started too."""
    late: list[Late] = []

    def wrap(store: Store) -> Store:
        late.append(Late(store))
        return cast("Store", late[0])

    async with engine(Done(), wrap=wrap) as rig, background(rig.service.dispatcher.run()):
        await asyncio.wait_for(late[0].asked.wait(), DEADLINE)
        path = rig.write("a")
        await rig.send(path, "look")
        late[0].arrives.set()
        await rig.state(path, ["done"])


async def test_files_that_cannot_be_started_do_not_starve_the_others(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind more unreadable files than a queue holds, one that can be started is started."""
    monkeypatch.setattr("daemon.engine.lanes.DEFER_SECONDS", 3600.0)
    gate = Gate()
    async with engine(gate, concurrency=1) as rig:
        root = rig.service.trees["incoming"].watch.path
        for number in range(QUEUE + 10):
            await rig.send(rig.write(f"bad/{number}"), "look")
        good = rig.write("good")
        await rig.send(good, "look")
        # A link to itself in place of the folder: the kernel answers every look with ELOOP.
        monkeypatch.setattr("daemon.engine.disk.is_inside", lambda *_: True)
        (root / "bad").rename(root / "moved")
        (root / "bad").symlink_to("bad")
        async with background(rig.service.dispatcher.run()):
            assert (await gate.let_pass()).file == good
            await rig.state(good, ["done"])


@pytest.mark.parametrize("verdict", ["defer", "unavailable"])
async def test_what_spends_no_attempt(
    engine: Open, monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    """What no file can be blamed for leaves it as it was, and it is tried again."""
    monkeypatch.setattr("daemon.engine.lanes.SHORTAGE_SECONDS", 0.01)
    gate = Gate()
    async with engine(gate, step={"breaker": Breaker(first=0.01, max=0.01)}) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        async with background(rig.service.dispatcher.run()):
            for _ in range(5):
                await gate.let_pass(Outcome(verdict, "Too many open files"))
            await gate.let_pass(Outcome("retry", "no"))
            row = await rig.state(path, ["failed"])
        assert (row.failures, row.interruptions) == (1, 0)


async def test_what_was_left_alone_is_another(
    engine: Open, monkeypatch: pytest.MonkeyPatch, tree: Path
) -> None:
    """A file that could not be started, for another took its place, is as new as any when ready."""
    monkeypatch.setattr("daemon.engine.lanes.DEFER_SECONDS", 3_600.0)
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        (tree / "b").write_text("another\n")
        (tree / "b").rename(tree / "a")
        async with background(rig.service.dispatcher.run(), rig.service._alarms.run()):
            assert (await gate.let_pass()).file == path
            await rig.state(path, ["done"])
