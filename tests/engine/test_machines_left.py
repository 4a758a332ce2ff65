"""The choice of the state machine, as facts: what is left behind, arguments, states as strings.

The candidates are those of test_machines.py.
"""

import asyncio
import gc
import inspect
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from statemachine.exceptions import TransitionNotAllowed

from daemon.core.decide import decide
from daemon.core.facts import Facts
from daemon.core.lifecycle import LifeCycle, choose
from daemon.core.model import Trigger
from tests.engine.machines import CLOSED, KEY, READY, in_a_moment, library, machine_for, peer

MANY = 10_000
FEW = 50


@pytest.fixture
def without_gc() -> Iterator[None]:
    """Only reference counts free anything, so that cycles show."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left_by(work: Callable[[], object]) -> tuple[int, int]:
    """Objects that wait for the collector, and bytes, after work that was done once before."""
    work()
    gc.collect()
    tracemalloc.start()
    objects, memory = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
    work()
    left = len(gc.get_objects()) - objects, tracemalloc.get_traced_memory()[0] - memory
    tracemalloc.stop()
    return left


@pytest.mark.usefixtures("without_gc")
def test_the_table_leaves_nothing() -> None:
    """10,000 decisions leave no object for the garbage collector and no memory in use."""
    facts = Facts(READY)

    def work() -> None:
        for _ in range(MANY):
            decide(facts, "start", Trigger(KEY, "start", "test"), "", "")

    objects, memory = left_by(work)
    assert objects < 10
    assert memory < 10_000


@pytest.mark.usefixtures("without_gc")
def test_a_kept_machine_leaves_nothing() -> None:
    """2,500 transitions on one kept engine leave no more than a handful of objects."""
    machine = library(fresh=True, interruptions_left=True)

    def work() -> None:
        for _ in range(MANY // 8):
            machine.send("start")
            machine.send("interrupt")

    objects, memory = left_by(work)
    assert objects < FEW
    assert memory < 50_000


@pytest.mark.usefixtures("without_gc")
def test_a_fresh_machine_leaves_a_web() -> None:
    """A fresh engine leaves over 200 objects in cycles, for the garbage collector to find."""

    def work() -> None:
        for _ in range(20):
            library(fresh=True).send("start")

    objects, memory = left_by(work)
    assert objects > 20 * 200
    assert memory > 20 * 20_000
    assert left_by(lambda: None)[0] < FEW


async def test_peer_leaves_no_task_and_no_object() -> None:
    """10,000 transitions on one model leave no task, no entry and no memory in use."""
    model = peer({"fresh": True, "interruptions_left": True})

    async def work() -> None:
        for _ in range(MANY // 2):
            await model.start()
            await model.interrupt()

    await work()
    gc.collect()
    objects = len(gc.get_objects())
    await work()
    gc.collect()
    assert len(gc.get_objects()) - objects < FEW
    assert (model.machine.async_tasks, asyncio.all_tasks()) == ({}, {asyncio.current_task()})


async def test_peer_keeps_every_model() -> None:
    """A model stays with a shared machine until somebody removes it, whatever its state."""
    machine = machine_for(None)
    for _ in range(100):
        model: Any = SimpleNamespace(**CLOSED)
        machine.add_model(model, initial="ready")
        await model.reject() if model.state == "processing" else await model.skip()
    assert len(machine.models) == 100


# How callbacks get their arguments


def test_library_drops_what_it_would_inject() -> None:
    """A payload named like one of the engine's own arguments is lost, without a word."""
    heard: list[str] = []

    def on_start(source: Any, state: Any, cause: str) -> None:
        heard.extend((source.value, state.value, cause))

    machine = library(fresh=True, on_start=on_start)
    machine.send("start", source="operator", state="processing", cause="hint")
    assert heard == ["ready", "ready", "hint"]


@pytest.mark.parametrize("name", ["event", "machine"])
def test_library_stumbles_over_two_names(name: str) -> None:
    """`event` and `machine` in a payload end in a TypeError from inside the library."""
    payload: dict[str, Any] = {name: "mine"}
    with pytest.raises(TypeError, match="multiple values"):
        library(fresh=True).send("start", **payload)


async def test_peer_hands_the_payload_to_every_callback() -> None:
    """A callback that does not take the whole payload fails: nothing is matched to signatures."""
    model = peer({"fresh": True}, before_state_change=in_a_moment)
    with pytest.raises(TypeError, match="unexpected keyword argument 'cause'"):
        await model.start(cause="hint")
    with pytest.raises(TypeError, match="multiple values for argument 'model'"):
        await model.start(model="mine")


def test_the_table_takes_one_typed_value() -> None:
    """Guards are attributes of one frozen object: no argument has a name that could clash."""
    assert list(inspect.signature(choose).parameters) == ["facts", "event"]


# States as plain strings


def test_library_hands_out_objects() -> None:
    """The model holds a plain string, callbacks get `State` objects."""
    kinds: list[str] = []
    machine = library(fresh=True, on_start=lambda source: kinds.append(type(source).__name__))
    machine.send("start")
    assert (machine.current_state_value, kinds) == ("processing", ["State"])


async def test_a_state_that_nobody_declared() -> None:
    """A row with an unknown state: the table refuses, both engines raise, and only at the event."""
    machine = library("typo", fresh=True)
    with pytest.raises(KeyError, match="typo"):
        machine.send("start")
    model = peer({"fresh": True})
    model.state = "typo"
    with pytest.raises(ValueError, match="typo"):
        await model.start()
    row = replace(READY, state="typo")
    assert choose(Facts(row), "start") == "no_edge"


def test_only_the_table_takes_a_frozen_row() -> None:
    """Both engines set attributes on what they drive; our rows are frozen."""
    driven: LifeCycle = LifeCycle(READY, listeners=[Facts(READY)])
    with pytest.raises(AttributeError, match="immutable"):
        driven.send("start")
    with pytest.raises(AttributeError, match="immutable"):
        machine_for(READY)


def test_an_event_that_nobody_declared() -> None:
    """The table refuses it; the engine raises; the peer has no such method."""
    nonsense: Any = "nonsense"
    assert choose(Facts(READY), nonsense) == "no_edge"
    with pytest.raises(TransitionNotAllowed):
        library().send(nonsense)
    assert not hasattr(peer({}), nonsense)
