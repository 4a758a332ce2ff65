"""The choice of the state machine, as facts: async guards, ten at once, errors.

`library` is python-statemachine's own engine, kept for a file or fresh for each transition;
`choose` the table compiled from the class; `peer` the AsyncMachine of `transitions`.
docs/state-machine.md draws the conclusion, tests/benchmarks/bench_machines.py has the costs.
"""

import asyncio
import inspect
from contextlib import AbstractAsyncContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from statemachine.exceptions import TransitionNotAllowed
from transitions import MachineError

from daemon.core.decide import decide
from daemon.core.facts import Facts
from daemon.core.lifecycle import TABLE, LifeCycle, choose
from daemon.core.model import Refused, Transition, Trigger
from tests.engine.machines import CLOSED, KEY, READY, in_a_moment, library, peer, ten

START = Trigger(KEY, "start", "test")


async def says_no() -> bool:
    await asyncio.sleep(0)
    return False


def broken() -> None:
    raise OSError("boom")


# An async guard


async def test_library_awaits_a_declared_guard() -> None:
    """python-statemachine awaits a guard that is a coroutine function, in its async engine."""
    machine = library(fresh=in_a_moment)
    await machine.send("start")
    assert machine.current_state_value == "processing"
    with pytest.raises(TransitionNotAllowed):
        await library(fresh=says_no).send("start")


async def test_library_takes_an_unknown_awaitable_for_true() -> None:
    """A guard that only returns an awaitable is not awaited: the file starts without an answer."""
    answer = asyncio.get_running_loop().create_future()
    machine = library(fresh=lambda: answer)
    machine.send("start")
    assert (machine.current_state_value, answer.done()) == ("processing", False)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_library_takes_a_guard_found_twice_for_true() -> None:
    """An async guard that both the model and a listener have is not awaited: its no goes unheard.

    The engine joins the two as it joins `a and b`, and forgets on the way that they are async.
    """
    model = SimpleNamespace(state="ready", fresh=says_no)
    machine: LifeCycle = LifeCycle(
        model, listeners=[SimpleNamespace(**CLOSED | {"fresh": says_no})]
    )
    machine.send("start")
    assert machine.current_state_value == "processing"


async def test_peer_awaits_whatever_can_be_awaited() -> None:
    """`transitions` awaits what a guard returns, however it is written."""
    answer = asyncio.get_running_loop().create_future()
    answer.set_result(False)
    model = peer({"fresh": lambda: answer})
    assert await model.start() is False
    assert model.state == "ready"


def test_the_table_has_nothing_to_await() -> None:
    """Evidence is gathered before the decision, which no other task can interrupt."""
    assert not inspect.iscoroutinefunction(choose)
    assert choose(Facts(READY), "start") == TABLE["ready", "start"][0]


# Ten at once on one file


@pytest.mark.parametrize(("locked", "through"), [(False, 10), (True, 1)])
async def test_fresh_machines_know_nothing_of_each_other(*, locked: bool, through: int) -> None:
    """A fresh engine for each transition lets all ten through while a guard awaits; a lock, one."""
    rows: dict[Any, str] = {KEY: "ready"}
    lock: AbstractAsyncContextManager[Any] = asyncio.Lock() if locked else nullcontext()

    async def trigger() -> None:
        async with lock:
            machine = library(rows[KEY], fresh=in_a_moment)
            await machine.send("start")
            rows[KEY] = machine.current_state_value

    assert (await ten(trigger)).count(None) == through


async def test_a_kept_machine_queues() -> None:
    """One engine kept for a file takes its events in turn: one gets through, nine are refused."""
    machine = library(fresh=in_a_moment)
    answers = await ten(lambda: machine.send("start"))
    assert answers.count(None) == 1
    assert sum(isinstance(answer, TransitionNotAllowed) for answer in answers) == 9


@pytest.mark.parametrize(
    ("locked", "checked", "through"),
    [(False, False, 10), (False, True, 1), (True, False, 1), (True, True, 1)],
)
async def test_the_table_leaves_it_to_lock_and_version(
    *, locked: bool, checked: bool, through: int
) -> None:
    """The table keeps nobody out: the path's lock does, and the version check does without it."""
    rows = {KEY: READY}
    lock: AbstractAsyncContextManager[Any] = asyncio.Lock() if locked else nullcontext()

    async def trigger() -> bool:
        async with lock:
            before = rows[KEY]
            await in_a_moment()
            decision = decide(Facts(before), "start", START, "", "")
            if isinstance(decision, Refused) or (checked and rows[KEY].version != before.version):
                return False
            rows[KEY] = decision.after
            return True

    assert (await ten(trigger)).count(True) == through


async def test_peer_cancels_the_others() -> None:
    """One of ten gets through; the other nine are cancelled, and that reads like a closed guard."""
    model = peer({"fresh": in_a_moment})
    assert sorted(await ten(model.start)) == [False] * 9 + [True]


async def test_a_queued_peer_answers_before_it_knows() -> None:
    """Queued, nine are told True for events that fail, and the one that succeeded gets an error."""
    model = peer({"fresh": in_a_moment}, queued=True)
    first, *others = await ten(model.start)
    assert isinstance(first, MachineError)
    assert (others, model.state) == ([True] * 9, "processing")


async def test_peer_cuts_a_commit_short() -> None:
    """A second trigger whose guard opens cancels the first one in the middle of its commit."""
    log: list[str] = []
    begun = asyncio.Event()

    async def commit() -> None:
        log.append("begin")
        begun.set()
        await (asyncio.Event().wait() if len(log) == 1 else in_a_moment())
        log.append("commit")

    model = peer({"fresh": True}, before_state_change=commit)
    first = asyncio.create_task(model.start())
    await begun.wait()
    assert (await model.start(), await first) == (True, False)
    assert log == ["begin", "begin", "commit"]


async def test_library_survives_cancellation() -> None:
    """A cancelled trigger of a kept engine raises, leaves the state, and the next one is taken."""
    begun, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def fresh() -> bool:
        begun.set()
        await asyncio.shield(answer)
        return True

    machine = library(fresh=fresh)
    task = asyncio.ensure_future(machine.send("start"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.current_state_value == "ready"
    answer.set_result(None)
    await machine.send("start")
    assert machine.current_state_value == "processing"


async def test_peer_swallows_cancellation() -> None:
    """A cancelled trigger returns False: a time limit or a stop around it passes unseen."""
    begun = asyncio.Event()

    async def commit() -> None:
        begun.set()
        await asyncio.Event().wait()

    model = peer({"fresh": True}, before_state_change=commit)
    task = asyncio.create_task(model.start())
    await begun.wait()
    task.cancel()
    assert await task is False


# An error before and after the commit


@pytest.mark.parametrize(
    ("hook", "state"),
    [
        ("fresh", "ready"),
        ("before_start", "ready"),
        ("on_start", "ready"),
        ("on_enter_processing", "ready"),
        ("after_start", "processing"),
    ],
)
def test_library_falls_back_until_after(hook: str, state: str) -> None:
    """An error in any callback but `after_` takes the state back, even when the row is written."""
    hooks: dict[str, Any] = {"fresh": True, hook: broken}
    machine = library(**hooks)
    with pytest.raises(OSError, match="boom"):
        machine.send("start")
    assert machine.current_state_value == state


@pytest.mark.parametrize(
    ("hook", "state"),
    [
        ("prepare_event", "ready"),
        ("before_state_change", "ready"),
        ("after_state_change", "processing"),
    ],
)
async def test_peer_keeps_what_was_entered(hook: str, state: str) -> None:
    """`transitions` moves on once the state is set; an error before that leaves it."""
    model = peer({"fresh": True}, **{hook: broken})
    with pytest.raises(OSError, match="boom"):
        await model.start()
    assert model.state == state


@pytest.mark.parametrize(("fails", "state"), [("before", "ready"), ("after", "processing")])
def test_the_table_has_no_state_of_its_own(fails: str, state: str) -> None:
    """The state is where the row is: an error before the commit leaves it, one after does not."""
    rows = {KEY: READY}

    def transition() -> None:
        decision = decide(Facts(READY), "start", START, "", "")
        assert isinstance(decision, Transition)
        if fails == "before":
            broken()
        rows[KEY] = decision.after
        broken()

    with pytest.raises(OSError, match="boom"):
        transition()
    assert rows[KEY].state == state
