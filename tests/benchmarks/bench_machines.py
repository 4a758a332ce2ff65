"""What one transition costs: the compiled table, python-statemachine, and `transitions`.

    python tests/benchmarks/bench_machines.py [repeats]

All of them run the real life cycle: `start` from `ready`, then `interrupt` back to it, one guard
each. "left" is what a transition leaves for the garbage collector; the rest is freed at once.
"""

import asyncio
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, NamedTuple

from transitions.extensions.asyncio import AsyncMachine

from daemon.core.decide import decide
from daemon.core.facts import Facts
from daemon.core.lifecycle import STATES, TABLE, Edge, LifeCycle, choose
from daemon.core.model import Event, Key, Row, Transition, Trigger

Run = Callable[[int], Coroutine[Any, Any, None]]
KEY = Key("w", b"f")
START, INTERRUPT = Trigger(KEY, "start", "bench"), Trigger(KEY, "interrupt", "bench")
GUARDS = {edge.guard: False for edges in TABLE.values() for edge in edges if edge.guard}
OPEN: dict[str, Any] = {**GUARDS, "fresh": True, "interruptions_left": True}
ROUND: tuple[tuple[str, Event], ...] = (("ready", "start"), ("processing", "interrupt"))


async def says_yes() -> bool:
    return True


ASYNC_OPEN = {**OPEN, "fresh": says_yes, "interruptions_left": says_yes}


async def table_choice(rounds: int) -> None:
    """The edge, and nothing else."""
    ready = Facts(Row(1, KEY, "ready"))
    processing = Facts(Row(1, KEY, "processing"))
    for _ in range(rounds):
        assert isinstance(choose(ready, "start"), Edge)
        assert isinstance(choose(processing, "interrupt"), Edge)


async def table_decision(rounds: int) -> None:
    """The edge, the row that follows, and the transition for the ledger."""
    row = Row(1, KEY, "ready")
    for _ in range(rounds):
        for trigger, event in ((START, "start"), (INTERRUPT, "interrupt")):
            decision = decide(Facts(row), event, trigger, "a", "n")  # type: ignore[arg-type]
            assert isinstance(decision, Transition)
            row = decision.after


async def library_kept(rounds: int) -> None:
    machine = LifeCycle(SimpleNamespace(state="ready"), listeners=[SimpleNamespace(**OPEN)])
    for _ in range(rounds):
        for _, event in ROUND:
            machine.send(event)


async def library_kept_async(rounds: int) -> None:
    machine = LifeCycle(SimpleNamespace(state="ready"), listeners=[SimpleNamespace(**ASYNC_OPEN)])
    for _ in range(rounds):
        for _, event in ROUND:
            await machine.send(event)


async def library_fresh(rounds: int) -> None:
    guards = SimpleNamespace(**OPEN)
    for _ in range(rounds):
        for state, event in ROUND:
            LifeCycle(SimpleNamespace(state=state), listeners=[guards]).send(event)


async def library_fresh_async(rounds: int) -> None:
    guards = SimpleNamespace(**ASYNC_OPEN)
    for _ in range(rounds):
        for state, event in ROUND:
            await LifeCycle(SimpleNamespace(state=state), listeners=[guards]).send(event)


def peer(model: Any) -> AsyncMachine:
    machine = AsyncMachine(model, [*STATES], initial="ready", auto_transitions=False)
    for (state, event), edges in TABLE.items():
        for edge in edges:
            machine.add_transition(event, state, edge.to, conditions=edge.guard)
    return machine


async def peer_kept(rounds: int) -> None:
    model = SimpleNamespace(**ASYNC_OPEN)
    peer(model)
    for _ in range(rounds):
        await model.start()
        await model.interrupt()


async def peer_shared(rounds: int) -> None:
    """One machine for all files, a fresh model for each transition."""
    machine = peer(None)
    for _ in range(rounds):
        for state, event in ROUND:
            model = SimpleNamespace(**ASYNC_OPEN)
            machine.add_model(model, initial=state)
            await model.trigger(event)
            machine.remove_model(model)


async def peer_fresh(rounds: int) -> None:
    for _ in range(rounds):
        for state, event in ROUND:
            model = SimpleNamespace(**ASYNC_OPEN)
            machine = peer(model)
            machine.set_state(state, model)
            await model.trigger(event)


CANDIDATES: list[tuple[str, Run, int]] = [
    ("table: choose", table_choice, 50_000),
    ("table: decide, with the row that follows", table_decision, 20_000),
    ("library, kept, sync", library_kept, 1_000),
    ("library, kept, async guard", library_kept_async, 1_000),
    ("library, fresh, sync", library_fresh, 250),
    ("library, fresh, async guard", library_fresh_async, 250),
    ("transitions, kept, async guard", peer_kept, 1_000),
    ("transitions, shared, fresh model", peer_shared, 250),
    ("transitions, fresh", peer_fresh, 25),
]


class Cost(NamedTuple):
    """Microseconds a transition, one number a repeat, and the objects that one leaves."""

    times: list[float]
    left: float


def measure(run: Run, rounds: int, repeats: int) -> Cost:
    asyncio.run(run(max(rounds // 10, 1)))
    times = [timed(run, rounds) for _ in range(repeats)]
    return Cost(times, left_by(run, 10))


def timed(run: Run, rounds: int) -> float:
    gc.collect()
    begin = time.perf_counter()
    asyncio.run(run(rounds))
    return (time.perf_counter() - begin) / (2 * rounds) * 1e6


def left_by(run: Run, rounds: int) -> float:
    """What 20 transitions leave more than two do, so that the machine itself does not count."""
    return (left_after(run, rounds) - left_after(run, 1)) / (2 * (rounds - 1))


def left_after(run: Run, rounds: int) -> int:
    async def count() -> int:
        gc.collect()
        gc.disable()
        before = len(gc.get_objects())
        await run(rounds)
        left = len(gc.get_objects()) - before
        gc.enable()
        return left

    return asyncio.run(count())


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    parts = ", ".join(f"{name} {version(name)}" for name in ("python-statemachine", "transitions"))
    print(f"Python {platform.python_version()}, {parts}, {repeats} repeats\n")
    print("| candidate | us a transition, median | lowest to highest | objects left |")
    print("|---|---:|---:|---:|")
    for name, run, rounds in CANDIDATES:
        cost = measure(run, rounds, repeats)
        middle, low, high = statistics.median(cost.times), min(cost.times), max(cost.times)
        print(f"| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {cost.left:.0f} |", flush=True)


if __name__ == "__main__":
    main()
