"""A result that comes too late, and a file that changes while it is handled."""

from pathlib import Path

import pytest

from daemon.core.model import Refused
from daemon.handlers import Outcome
from tests.engine.conftest import Gate, Open, background
from tests.engine.test_policies import lane, ready, said, turns


async def test_result_that_comes_too_late(engine: Open) -> None:
    """A result whose row has moved on is refused with a line, and its place is free."""
    gate = Gate()
    async with engine(gate, concurrency=1) as rig:
        path, other = await ready(rig, "a", "b")
        async with background(rig.service.dispatcher.run()):
            job, ending = await gate.next()
            await rig.send(path, "interrupt")
            moved_on = await rig.row(path)
            assert (moved_on.state, moved_on.version) == ("ready", job.version + 1)
            ending.set_result(Outcome("success"))
            assert (await gate.let_pass()).file == other
            await rig.state(other, ["done"])
            late = await gate.next()
            assert late[0].file == path
            assert late[0].version > job.version
            late[1].set_result(Outcome("success"))
            await rig.state(path, ["done"])
            await rig.service.inbox.idle()
            assert not lane(rig).backlog.claimed
        (line,) = [line for line in await said(rig, "succeed") if line["outcome"] == "rejected"]
        assert (line["guard"], line["path"], line["to_state"]) == ("version", "a", "ready")


@pytest.mark.parametrize("event", ["succeed", "fail", "reject", "interrupt"])
async def test_every_result_is_fenced(engine: Open, event: str) -> None:
    """Whatever a late result says, it is refused by its version."""
    async with engine(Gate()) as rig:
        (path,) = await ready(rig, "a")
        await rig.send(path, "start")
        row = await rig.row(path)
        refused = await rig.send(path, event, version=row.version - 1)
        assert isinstance(refused, Refused)
        assert refused.guard == "version"
        assert await rig.row(path) == row


async def test_finish_though_it_changes(engine: Open) -> None:
    """By default a handler finishes whatever hints come; then the file is handled again."""
    gate = Gate()
    async with engine(gate) as rig:
        (path,) = await ready(rig, "a")
        async with background(rig.service.dispatcher.run()):
            job, ending = await gate.next()
            rig.write("a", "another content, and longer\n")
            for _ in range(5):
                await rig.send(path, "look")
            assert not ending.done()
            ending.set_result(Outcome("success"))
            again = await gate.let_pass()
            assert again.idempotency_key != job.idempotency_key
            row = await rig.state(path, ["done"])
            assert (row.failures, row.attempt) == (0, 0)


@pytest.mark.parametrize("change", ["content", "absence"])
async def test_cancel_when_it_changes(engine: Open, tree: Path, change: str) -> None:
    """Where a step says so, its handler is ended when a hint shows another content, or none."""
    gate = Gate()
    async with engine(gate, step={"on_change": "cancel"}) as rig:
        (path,) = await ready(rig, "a")
        async with background(rig.service.dispatcher.run()):
            _, ending = await gate.next()
            await rig.send(path, "look")
            await turns()
            assert not ending.cancelled()
            if change == "content":
                rig.write("a", "another content, and longer\n")
            else:
                (tree / "a").unlink()
            await rig.send(path, "look")
            await rig.send(path, "look")
            if change == "content":
                await rig.state(path, ["settling"])
                await rig.service.inbox.idle()
                await rig.send(path, "look")
                job = await gate.let_pass()
                assert job.seen is not None
                assert job.seen.size == len("another content, and longer\n")
                row = await rig.state(path, ["done"])
            else:
                row = await rig.state(path, ["gone"])
            assert ending.cancelled()
            assert (row.failures, row.interruptions) == (0, 0)
        (cut,) = await said(rig, "interrupt")
        assert (cut["cause"], cut["to_state"]) == ("changed", "ready")


async def test_frozen_absence_cancels_nothing(engine: Open, tree: Path) -> None:
    """While removals are frozen a missing file is no reason to end its handler."""
    gate = Gate()
    async with engine(gate, step={"on_change": "cancel"}) as rig:
        (path,) = await ready(rig, "a")
        async with background(rig.service.dispatcher.run()):
            _, ending = await gate.next()
            rig.service.trees["incoming"].detection.frozen = "too much is missing"
            (tree / "a").unlink()
            await rig.send(path, "look")
            await turns()
            assert not ending.done()
            ending.set_result(Outcome("success"))
            await rig.state(path, ["done"])
