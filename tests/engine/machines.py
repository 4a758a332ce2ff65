"""The candidates for the state machine, each with the real life cycle, as the tests run them."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from transitions.extensions.asyncio import AsyncMachine

from daemon.core.equivalence import NAMES
from daemon.core.lifecycle import STATES, TABLE, LifeCycle
from daemon.core.model import Key, Row

KEY = Key("w", b"f")
READY = Row(1, KEY, "ready")
CLOSED = dict.fromkeys(NAMES, False)


def library(state: str = "ready", **given: Any) -> LifeCycle:
    """python-statemachine's engine; all guards are closed but those given, callbacks by name."""
    guards = SimpleNamespace(**{**CLOSED, **given})
    return LifeCycle(SimpleNamespace(state=state), listeners=[guards])


def peer(given: dict[str, Any], **options: Any) -> Any:
    """A model driven by an AsyncMachine of `transitions` with all our edges, and its `machine`."""
    model = SimpleNamespace(**{**CLOSED, **given})
    model.machine = machine_for(model, **options)
    return model


def machine_for(model: Any, **options: Any) -> AsyncMachine:
    """An AsyncMachine with all our edges; their guards are attributes of the model."""
    states: list[str] = [*STATES]
    machine = AsyncMachine(model, states, initial="ready", auto_transitions=False, **options)
    for (state, event), edges in TABLE.items():
        for edge in edges:
            machine.add_transition(event, state, edge.to, conditions=edge.guard)
    return machine


async def in_a_moment() -> bool:
    """Let everybody else have a turn first."""
    await asyncio.sleep(0)
    return True


async def ten(trigger: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Trigger ten times at once; the answers or exceptions, in order."""

    async def once() -> Any:
        return await trigger()

    async with asyncio.timeout(10):
        return await asyncio.gather(*(once() for _ in range(10)), return_exceptions=True)
