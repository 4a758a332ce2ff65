"""Rate and breaker on a real engine: what a step does when its destination is away, or slow."""

# ruff: noqa: ASYNC110 - there is no event for what is waited for

import asyncio
from collections import Counter
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.config_steps import Breaker
from daemon.core.model import Key
from daemon.engine.lanes import Lane
from daemon.handlers import Job, Outcome
from tests.engine.conftest import DEADLINE, Gate, Open, background

QUICK = {"breaker": Breaker(after=3, first=0.01, max=0.02)}
SLOW = {"breaker": Breaker(after=3, first=3600.0, max=3600.0)}
AWAY = Outcome("unavailable", "connection refused")
ERROR = Outcome("retry", "500", suspect=True)


async def ready(rig: Rig, *names: str) -> list[Key]:
    """Files that arrive one after the other."""
    paths = [rig.write(name) for name in names]
    for path in paths:
        await rig.send(path, "look")
    return paths


async def turns(count: int = 300) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def lane(rig: Rig) -> Lane:
    return rig.service.dispatcher._lanes["incoming", "load"]


async def said(rig: Rig, event: str) -> list[dict[str, Any]]:
    return [line for line in await rig.lines() if line["event"] == event]


class Server:
    """A handler whose destination is away until it is `back`; it counts what reaches it."""

    def __init__(self, answer: Outcome) -> None:
        self.answer = answer
        self.asked: Counter[bytes] = Counter()
        self.back = False
        self.inside = 0
        self.most_while_open = 0
        self.lane: Lane | None = None

    async def run(self, job: Job) -> Outcome:
        self.asked[job.file.path] += 1
        self.inside += 1
        await asyncio.sleep(0)
        if self.lane and self.lane.breaker.is_open:
            self.most_while_open = max(self.most_while_open, self.inside)
        self.inside -= 1
        return Outcome("success") if self.back else self.answer

    async def close(self) -> None:
        pass

    async def probes(self, count: int) -> None:
        """Wait until so many have been asked."""
        async with asyncio.timeout(DEADLINE):
            while self.asked.total() < count:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("answer", [AWAY, ERROR, Outcome("reject", "404", suspect=True)])
async def test_weekend(engine: Open, answer: Outcome) -> None:
    """A destination that is down for long: a probe now and then, nothing quarantined, then all."""
    server = Server(answer)
    async with engine(server, concurrency=2, step=QUICK) as rig:
        server.lane = lane(rig)
        paths = await ready(rig, *[f"{number:02}" for number in range(40)])
        async with background(rig.service.dispatcher.run()):
            await server.probes(60)
            rows = [await rig.row(path) for path in paths]
            # Those that came before it was known whose fault it is may have spent theirs.
            spent = [row for row in rows if row.failures or row.state == "quarantined"]
            assert len(spent) <= (0 if answer is AWAY else 2)
            server.back = True
            for path, row in zip(paths, rows, strict=True):
                if row.state != "quarantined":
                    await rig.state(path, ["done", "failed"])
        assert server.most_while_open <= 2
        assert max(server.asked.values()) < 10
        assert len(await said(rig, "daemon.step_open")) == 1
        (closed,) = await said(rig, "daemon.step_closed")
        assert closed["probes"] > 30


async def test_open_step_asks_nobody(engine: Open) -> None:
    """Until the probe's time no file is started, nothing turns, and new files wait as well."""
    server = Server(AWAY)
    async with engine(server, concurrency=1, step=SLOW) as rig:
        await ready(rig, "a", "b", "c", "d")
        async with background(rig.service.dispatcher.run()):
            await server.probes(3)
            await rig.service.inbox.idle()
            await ready(rig, "e")
            reads = Counter[str]()
            real = rig.service.ledger.store.ready

            async def counted(*arguments: Any) -> Any:
                reads["ready"] += 1
                return await real(*arguments)

            rig.service.ledger.store.ready = counted  # type: ignore[assignment,method-assign]
            await turns()
            assert (server.asked.total(), reads["ready"]) == (3, 0)
        (line,) = await said(rig, "daemon.step_open")
        assert (line["failures"], line["error"]) == (3, "connection refused")
        standing = rig.service.dispatcher.standings("incoming")["load"]
        assert (standing.failures, standing.error) == (3, "connection refused")
        assert standing.probe_at is not None


async def test_single_file_of_a_missing_server(engine: Open) -> None:
    """One file alone opens its step by its own tries, each later than the last, and spends none."""
    server = Server(AWAY)
    async with engine(server, step=QUICK) as rig:
        (path,) = await ready(rig, "a")
        async with background(rig.service.dispatcher.run()):
            await server.probes(6)
            row = await rig.row(path)
            assert (row.failures, row.interruptions) == (0, 0)
            server.back = True
            await rig.state(path, ["done"])
        opened = await said(rig, "daemon.step_open")
        assert [line["failures"] for line in opened] == [3]


async def test_probes_take_turns(engine: Open) -> None:
    """With several files each probe is another: one that no server likes does not stand for all."""
    server = Server(ERROR)
    async with engine(server, concurrency=1, step=QUICK, order="name") as rig:
        await ready(rig, "a", "b", "c", "d", "e", "f")
        async with background(rig.service.dispatcher.run()):
            await server.probes(12)
        assert len(server.asked) == 6


async def test_step_that_was_open_stays_open(engine: Open) -> None:
    """After a restart an open step lets one file try, not all; a stop is in nobody's way."""
    server = Server(AWAY)
    async with engine(server, concurrency=4, step=SLOW) as rig:
        await ready(rig, *"abcdefgh")
        dispatcher, bulletin = rig.service.dispatcher, rig.service._bulletin
        async with background(bulletin.run(dispatcher.resumed), dispatcher.run()):
            await server.probes(4)
            async with asyncio.timeout(DEADLINE):
                while not (text := await rig.store.steps("incoming")) or "open_since" not in text:
                    await asyncio.sleep(0.01)
    again = Server(AWAY)
    async with engine(again, concurrency=4, step=SLOW) as rig:
        dispatcher, bulletin = rig.service.dispatcher, rig.service._bulletin
        async with background(bulletin.run(dispatcher.resumed), dispatcher.run()):
            await again.probes(1)
            await rig.service.inbox.idle()
            await turns()
        assert again.asked.total() == 1
        assert len(await said(rig, "daemon.step_open")) == 2


async def test_step_that_is_asked_to_wait(engine: Open) -> None:
    """An answer that says how long to wait holds the whole step up, and spends nothing."""
    gate = Gate()
    async with engine(gate, concurrency=1, step=SLOW) as rig:
        await ready(rig, "a", "b")
        async with background(rig.service.dispatcher.run()):
            await gate.let_pass(Outcome("unavailable", "quota", after=1000.0))
            await rig.service.inbox.idle()
            await turns()
            assert gate.jobs.empty()
            assert (
                rig.service.dispatcher.standings("incoming")["load"].paused
                == "it was asked to wait"
            )
            lane(rig).paused_until = 0.0
            rig.service.dispatcher._wake.set()
            assert (await gate.let_pass()).file.path == b"b"
            await rig.state(rig.key("b"), ["done"])


async def test_rate(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are started in a window than allowed, the others when it has passed."""
    monkeypatch.setattr("daemon.engine.rate.WINDOW_SECONDS", 0.3)
    gate = Gate()
    loop = asyncio.get_running_loop()
    async with engine(gate, concurrency=4, step={"max_per_minute": 3}) as rig:
        paths = await ready(rig, *"abcdefg")
        async with background(rig.service.dispatcher.run()):
            starts = []
            for _ in paths:
                await gate.let_pass()
                starts.append(loop.time())
            for path in paths:
                await rig.state(path, ["done"])
        # Started at most a moment before it was seen here.
        assert all(later - first > 0.2 for first, later in zip(starts, starts[3:], strict=False))


async def test_rate_outlives_a_restart(engine: Open) -> None:
    """What a former run started within the minute counts."""
    gate = Gate()
    async with engine(gate, concurrency=9, step={"max_per_minute": 3}) as rig:
        await ready(rig, *"abcde")
        async with background(rig.service.dispatcher.run()):
            await gate.let_pass()
            await gate.let_pass()
            await gate.next()
            await rig.service.inbox.idle()
    again = Gate()
    async with engine(again, step={"max_per_minute": 5}) as rig:
        async with background(rig.service.dispatcher.run()):
            await again.let_pass()
            await again.let_pass()
            await rig.service.inbox.idle()
            await turns()
            assert again.jobs.empty()
            assert lane(rig).rate is not None
        assert (await rig.row(rig.key("c"))).state == "ready"
