"""Steps for removed files: when they run, what they are given, and what holds them back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.cli.harness import Rig
from daemon.config_steps import CommandStep
from daemon.core.model import Key, Row
from daemon.handlers import Outcome
from daemon.sources.recovery import recover
from daemon.store.opening import open_store
from daemon.store.rows import record_of_transition
from tests.engine.conftest import Gate, Open, background, step_on

FORGET = CommandStep(name="forget", command=("true",), attempts=2)
TELL = CommandStep(name="tell", command=("true",), attempts=2)


@asynccontextmanager
async def opened(engine: Open, gate: Gate, *removed: CommandStep) -> AsyncIterator[Rig]:
    """An engine whose steps, for removed files as well, all stand at the gate."""
    async with engine(gate, removed=removed or (FORGET,)) as rig:
        (tree,) = rig.service.trees.values()
        names = (*tree.steps, *tree.removal_steps)
        rig.service.dispatcher.add(tree, dict.fromkeys(names, gate))
        yield rig


async def done(rig: Rig, gate: Gate, name: str = "a") -> Key:
    path = rig.write(name)
    await rig.send(path, "look")
    await rig.send(path, "start")
    await gate.let_pass()
    await rig.state(path, ["done"])
    await rig.service.inbox.idle()
    return path


async def removed(rig: Rig, path: Key) -> Row:
    """The file is deleted, and that is seen."""
    tree = rig.service.trees["incoming"].watch.path
    (tree / path.path.decode()).unlink()
    await rig.send(path, "look", waited=True)
    return await rig.row(path)


@pytest.mark.parametrize("undoes", [True, False])
async def test_renamed_over_another(engine: Open, tree: Path, *, undoes: bool) -> None:
    """What is undone under its former name is done anew under the one that it has taken."""
    gate = Gate()
    opening = opened(engine, gate) if undoes else engine(gate)
    async with opening as rig:
        path, former = [await done(rig, gate, name) for name in ("a", "b")]
        (tree / "b").rename(tree / "a")
        for each in (path, former):
            await rig.send(each, "look", waited=True)
        assert (await rig.row(path)).state == "settling"
        await rig.send(path, "look")
        states = [(row.state, row.plan) for row in (await rig.row(path), await rig.row(former))]
        if undoes:
            assert states == [("ready", "process"), ("ready", "remove")]
        else:
            assert states == [("done", "process"), ("gone", "process")]


async def test_removed_after_it_was_done(engine: Open) -> None:
    """The steps run in order on what is not there any more; then its row is gone."""
    gate = Gate()
    async with opened(engine, gate, FORGET, TELL) as rig:
        path = await done(rig, gate)
        row = await removed(rig, path)
        assert (row.state, row.plan, row.step) == ("ready", "remove", "forget")
        async with background(rig.service.dispatcher.run()):
            jobs = [await gate.let_pass() for _ in range(2)]
            row = await rig.state(path, ["gone"])
        assert [(job.step, job.plan, job.seen) for job in jobs] == [
            ("forget", "remove", None),
            ("tell", "remove", None),
        ]
        assert jobs[0].path.endswith(b"/tree/a")
        assert (row.done, row.plan, row.step) == (None, "process", None)


async def test_retried_like_any_other(engine: Open) -> None:
    """A step that undoes fails, is tried again, and is quarantined when its attempts are spent."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        await removed(rig, path)
        await rig.send(path, "start")
        await gate.let_pass(Outcome("retry", "no index"))
        row = await rig.state(path, ["failed"])
        assert (row.failures, row.plan, row.due_at is None) == (1, "remove", False)
        await rig.service.inbox.idle()
        await rig.send(path, "retry")
        await rig.send(path, "start")
        await gate.let_pass(Outcome("retry", "no index"))
        assert (await rig.state(path, ["quarantined"])).plan == "remove"


async def test_never_done_nothing_to_undo(engine: Open) -> None:
    """A file that disappears before anything was done with it is gone."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        assert (await removed(rig, path)).state == "gone"


async def test_changed_and_then_removed(engine: Open) -> None:
    """What was done with an earlier content is undone, though the last one never settled."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        rig.write("a", "something longer\n")
        await rig.send(path, "look")
        assert (await rig.row(path)).state in {"settling", "ready"}
        row = await removed(rig, path)
        assert (row.state, row.plan, row.step) == ("ready", "remove", "forget")


async def test_removed_while_another_handler_runs(engine: Open) -> None:
    """Its disappearance waits for the handler that runs, and is followed up at once."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        _, ending = await gate.next()
        assert (await removed(rig, path)).state == "processing"
        async with background(rig.service.dispatcher.run()):
            ending.set_result(Outcome("success"))
            assert (await gate.let_pass()).step == "forget"
            await rig.state(path, ["gone"])
        events = [line["event"] for line in await rig.lines() if "from_state" in line]
        assert events == ["discover", "start", "succeed", "vanish", "start", "succeed"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_file_that_comes_back(engine: Open, when: str) -> None:
    """It settles and is handled again, the very same content too: it may have been undone."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        tree = rig.service.trees["incoming"].watch.path
        (tree / "a").rename(tree.parent / "a")
        await rig.send(path, "look", waited=True)
        assert (await rig.row(path)).plan == "remove"
        if when == "meanwhile":
            await rig.send(path, "start")
            _, ending = await gate.next()
            (tree.parent / "a").rename(tree / "a")
            ending.set_result(Outcome("success"))
        else:
            (tree.parent / "a").rename(tree / "a")
            await rig.send(path, "start")
        row = await rig.state(path, ["settling", "ready"])
        assert (row.plan, row.done) == ("process", None)
        async with background(rig.service.dispatcher.run()):
            await rig.send(path, "look")
            assert (await gate.let_pass()).step == "load"
            await rig.state(path, ["done"])


async def test_rename_is_no_removal(engine: Open) -> None:
    """A file that is renamed within the tree keeps what was done, and nothing is undone."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        tree = rig.service.trees["incoming"].watch.path
        (tree / "a").rename(tree / "b")
        await rig.send(path, "look")
        await rig.send(rig.key("b"), "look")
        await rig.service.inbox.idle()
        row = await rig.state(rig.key("b"), ["done"])
        assert (row.done, gate.jobs.empty()) == (row.content, True)


async def test_frozen(engine: Open) -> None:
    """While removals are frozen none is concluded, and none that was is undone."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        detection = rig.service.trees["incoming"].detection
        path, other = await done(rig, gate), await done(rig, gate, "b")
        await removed(rig, path)
        detection.frozen = "too many are missing"
        assert (await removed(rig, other)).state == "done"
        await rig.send(path, "start", version=(await rig.row(path)).version)
        assert (await rig.row(path)).state == "ready"
        detection.frozen = None
        await rig.send(path, "start")
        await gate.let_pass()
        await rig.state(path, ["gone"])


async def test_held_and_released(engine: Open) -> None:
    """An operator's hand stops what undoes; released, it goes on where it was."""
    gate = Gate()
    async with opened(engine, gate, FORGET, TELL) as rig:
        path = await done(rig, gate)
        await removed(rig, path)
        await rig.send(path, "start")
        await gate.let_pass()
        assert (await rig.state(path, ["ready"])).step == "tell"
        await rig.service.inbox.idle()
        await rig.send(path, "hold")
        await rig.send(path, "look", waited=True)
        assert (await rig.row(path)).state == "held"
        await rig.send(path, "release")
        row = await rig.row(path)
        assert (row.state, row.plan, row.step) == ("ready", "remove", "tell")


async def test_removed_while_held(engine: Open) -> None:
    """A file that was done, is held and disappears: it is undone once it is released."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        await rig.send(path, "hold")
        assert (await removed(rig, path)).state == "held"
        await rig.send(path, "release")
        await rig.send(path, "look", waited=True)
        row = await rig.row(path)
        assert (row.state, row.plan, row.step) == ("ready", "remove", "forget")


async def test_skipped(engine: Open) -> None:
    """An operator's `skip` ends the plan: the file is gone."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        await removed(rig, path)
        await rig.send(path, "skip")
        row = await rig.row(path)
        assert (row.state, row.plan, row.done) == ("gone", "process", None)


async def test_crash_in_the_midst(engine: Open, tmp_path: Path) -> None:
    """What was being undone when the daemon died is resumed at that step."""
    gate = Gate()
    async with opened(engine, gate, FORGET, TELL) as rig:
        path = await done(rig, gate)
        await removed(rig, path)
        await rig.send(path, "start")
        await gate.let_pass()
        await rig.state(path, ["ready"])
        await rig.service.inbox.idle()
    async with open_store("sqlite", tmp_path / "state") as store:
        (row,) = await store.rows([path])
        assert row is not None
        start = step_on(row, "start", "processing", "old-1", attempt=1)
        seq = (await store.last_ids()).seq + 1
        assert await store.apply([(start, record_of_transition(start, seq))], 0) == [True]
    async with opened(engine, gate, FORGET, TELL) as rig:
        service = rig.service
        await recover(service.trees.values(), service.inbox, service.ledger)
        async with background(service.dispatcher.run()):
            assert (await gate.let_pass()).step == "tell"
            await rig.state(path, ["gone"])


@pytest.mark.parametrize("left", [(TELL,), ()], ids=["another step", "no step"])
async def test_step_that_is_no_longer_configured(
    engine: Open, left: tuple[CommandStep, ...]
) -> None:
    """A removal that waits for a step that is gone begins anew, or is over where there is none."""
    gate = Gate()
    async with opened(engine, gate) as rig:
        path = await done(rig, gate)
        await removed(rig, path)
    async with engine(gate, removed=left) as rig:
        service = rig.service
        await recover(service.trees.values(), service.inbox, service.ledger)
        await service.inbox.idle()
        await rig.send(path, "look", waited=True)
        row = await rig.row(path)
        assert (row.state, row.step) == (("ready", "tell") if left else ("gone", None))
