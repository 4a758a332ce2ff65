"""What a handler says besides how it went: a result for the next step, when to come back."""

import json

from daemon.engine.clock import now_us
from daemon.handlers import Outcome
from tests.engine.conftest import Gate, Open, background

RESULT = json.dumps({"rows": 12, "name": "\u00fc"})


async def test_result_reaches_the_next_step(engine: Open) -> None:
    """The result of a step is stored with its row, and handed on, at every attempt."""
    gate = Gate()
    async with engine(gate, steps=2) as rig, background(rig.service.dispatcher.run()):
        path = rig.write("a")
        await rig.send(path, "look")
        first = await gate.let_pass(Outcome("success", result=RESULT))
        assert first.previous_json is None
        second, ending = await gate.next()
        assert second.previous_json == RESULT
        assert (await rig.row(path)).result == RESULT
        ending.set_result(Outcome("retry", "no", after=0.0))
        again = await gate.let_pass(Outcome("success", result="1"))
        assert again.previous_json == RESULT
        row = await rig.state(path, ["done"])
        assert row.result is None


async def test_result_of_another_content(engine: Open) -> None:
    """A result is about the content that was handled: with another content it is forgotten."""
    gate = Gate()
    async with engine(gate, steps=2) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        rig.write("a", "changed meanwhile\n")
        await gate.let_pass(Outcome("success", result=RESULT))
        row = await rig.state(path, ["settling", "ready"])
        assert row.result is None


async def test_handler_says_when(engine: Open) -> None:
    """A handler that asks for a pause gets it in place of the backoff."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        began = now_us()
        await gate.let_pass(Outcome("retry", "later", after=1000.0))
        row = await rig.state(path, ["failed"])
        assert row.due_at is not None
        assert 1_000_000_000 <= row.due_at - began < 1_060_000_000


async def test_fencing(engine: Open) -> None:
    """Each run of a file has a higher version than the one before."""
    gate = Gate()
    async with engine(gate) as rig, background(rig.service.dispatcher.run()):
        path = rig.write("a")
        await rig.send(path, "look")
        first = await gate.let_pass(Outcome("retry", "no", after=0.0))
        second = await gate.let_pass()
        assert 0 < first.version < second.version
        await rig.state(path, ["done"])


async def test_handlers_are_closed(engine: Open) -> None:
    """When the daemon has stopped, no handler keeps anything."""
    gate = Gate()
    async with engine(gate):
        assert not gate.closed
    assert gate.closed
