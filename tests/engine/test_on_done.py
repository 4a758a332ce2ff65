"""`on_done`: what is done is taken away, after its success is on record, once, and explained."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.config_after import After, Move
from daemon.core.model import Key, Row
from daemon.engine.filing import Unfinished
from daemon.handlers import Outcome, relocate
from daemon.sources.recovery import recover
from daemon.store.opening import open_store
from daemon.store.rows import record_of_transition
from tests.engine.conftest import Gate, Open, background, step_on


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture
def on_done(archive: Path) -> Move:
    return Move(move=f"{archive}/{{relpath}}")


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def line_of(rig: Rig, path: Key, **fields: Any) -> dict[str, Any]:
    """The one line about a file with these fields."""
    wanted = {"path": path.path.decode(), **fields}.items()
    (line,) = [line for line in await rig.lines() if wanted <= line.items()]
    return line


async def run_recovery(rig: Rig) -> None:
    service = rig.service
    trees = service.trees.values()
    unfinished = Unfinished(service.dispatcher)
    await recover(trees, service.inbox, service.ledger, [unfinished])
    await unfinished.report(service.inbox)
    await service.inbox.idle()


async def test_moved_after_the_last_step(
    engine: Open, tree: Path, archive: Path, on_done: Move
) -> None:
    """Steps first; then the file is moved, its row is gone and knows what was done, and where."""
    gate = Gate()
    async with engine(gate, steps=2, on_done=on_done) as rig:
        path = rig.write("d/a")
        await rig.send(path, "look")
        content = (await rig.row(path)).content
        async with background(rig.service.dispatcher.run()):
            assert [(await gate.let_pass()).step for _ in range(2)] == ["load", "index"]
            row = await rig.state(path, ["gone"])
        assert (row.done, row.seen, row.step, row.plan) == (content, None, None, "process")
        assert (archive / "d/a").read_text() == "content\n"
        assert not (tree / "d/a").exists()
        line = await line_of(rig, path, event="succeed", to_state="gone")
        assert (line["target"], line["step"], line["guard"]) == (
            str(archive / "d/a"),
            "on_done",
            "taken",
        )


@pytest.mark.parametrize("what", ["move", "delete"])
async def test_without_steps(
    engine: Open, tree: Path, archive: Path, on_done: Move, what: str
) -> None:
    """A watch without steps that takes its files away needs no handler for that."""
    after: After = on_done if what == "move" else "delete"
    async with engine(steps=0, on_done=after) as rig, background(rig.service.dispatcher.run()):
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.state(path, ["gone"])
        assert names(archive) == (["a"] if what == "move" else [])
        assert names(tree) == []
        line = await line_of(rig, path, event="succeed")
        assert line.get("target") == (str(archive / "a") if what == "move" else None)


async def test_place_that_is_away(engine: Open, tmp_path: Path) -> None:
    """An archive that cannot be reached costs no attempt; when it is back the file is moved."""
    away = Move(move=f"{tmp_path}/away/{{relpath}}")
    async with engine(steps=0, on_done=away) as rig, background(rig.service.dispatcher.run()):
        path = rig.write("a")
        await rig.send(path, "look")
        row = await rig.row(path)
        while row.version < 5:  # it has come back a second time
            row = await rig.state(path, ["processing", "ready"])
        assert (row.failures, row.interruptions) == (0, 0)
        assert "make it, or mount it" in (row.error or "")
        (tmp_path / "away").mkdir()
        await rig.state(path, ["gone"])
        assert (tmp_path / "away" / "a").exists()


async def test_changed_before_it_was_moved(engine: Open, archive: Path, on_done: Move) -> None:
    """A file that changed after its last step is not moved: it settles and is handled again."""
    gate = Gate()
    async with engine(gate, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        await gate.let_pass()
        row = await rig.state(path, ["ready"])
        assert row.step == "on_done"
        await rig.service.inbox.idle()
        rig.write("a", "something new\n")
        await rig.send(path, "start")
        assert (await rig.row(path)).state == "settling"
        assert names(archive) == []
        async with background(rig.service.dispatcher.run()):
            await rig.send(path, "look")
            assert (await gate.let_pass()).step == "load"
            await rig.state(path, ["gone"])
        assert (archive / "a").read_text() == "something new\n"


async def test_changed_in_the_last_moment(
    engine: Open, archive: Path, on_done: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is one that changes when the move has begun."""
    gate = Gate()
    async with engine(gate, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        await gate.let_pass()
        await rig.state(path, ["ready"])
        await rig.service.inbox.idle()

        def late(*arguments: Any) -> bytes:
            rig.write("a", "something new\n")
            return relocated(*arguments)

        relocated = relocate.move
        monkeypatch.setattr(relocate, "move", late)
        await rig.send(path, "start")
        row = await rig.state(path, ["settling"])
        assert (row.done, row.failures) == (None, 0)
        line = await line_of(rig, path, event="fail")
        assert line["error"] == "it has changed since it was handled"
        assert names(archive) == []


async def test_came_back(engine: Open, tree: Path, archive: Path, on_done: Move) -> None:
    """What is done and is put back is not handled a second time, but does not stay either."""
    gate = Gate()
    async with engine(gate, on_done=on_done) as rig, background(rig.service.dispatcher.run()):
        path = rig.write("a")
        await rig.send(path, "look")
        await gate.let_pass()
        first = await rig.state(path, ["gone"])
        (archive / "a").rename(tree / "a")
        await rig.send(path, "look")
        again = await rig.state(path, ["gone"])
        while again.version < first.version + 3:
            again = await rig.state(path, ["gone"])
        assert (archive / "a").exists()
        assert gate.jobs.empty()
        assert (await line_of(rig, path, guard="left_behind"))["step"] == "on_done"


async def interrupted(folder: Path, path: Key) -> Row:
    """As a daemon leaves it that was killed while its last step ran."""
    async with open_store("sqlite", folder / "state") as store:
        (row,) = await store.rows([path])
        assert row is not None
        start = step_on(row, "start", "processing", "old-1", attempt=1)
        seq = (await store.last_ids()).seq + 1
        assert await store.apply([(start, record_of_transition(start, seq))], 0) == [True]
        return row


@pytest.mark.parametrize("moved", [True, False])
async def test_killed_while_it_moved(
    engine: Open, tree: Path, tmp_path: Path, archive: Path, on_done: Move, *, moved: bool
) -> None:
    """The next start finds a file that was away and tells where; one that was not is moved."""
    async with engine(steps=0, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
    content = (await interrupted(tmp_path, path)).content
    if moved:
        (tree / "a").rename(archive / "a")
    async with engine(steps=0, on_done=on_done) as rig:
        await run_recovery(rig)
        async with background(rig.service.dispatcher.run()):
            row = await rig.state(path, ["gone"])
        assert row.done == content
        assert names(archive) == ["a"]
        line = await line_of(rig, path, event="succeed")
        assert line["target"] == str(archive / "a")
        assert line["cause"] == ("crash" if moved else "handler")


async def test_killed_and_another_came(
    engine: Open, tree: Path, tmp_path: Path, archive: Path, on_done: Move
) -> None:
    """Where the moved file lies is on record as well when another one has its path by then."""
    async with engine(steps=0, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
    await interrupted(tmp_path, path)
    (tree / "a").rename(archive / "a")
    async with engine(steps=0, on_done=on_done) as rig:
        rig.write("a", "something new\n")
        await run_recovery(rig)
        line = await line_of(rig, path, event="succeed")
        assert (line["target"], line["to_state"]) == (str(archive / "a"), "settling")
        async with background(rig.service.dispatcher.run()):
            await rig.send(path, "look")
            await rig.state(path, ["gone"])
        assert (archive / "a.1").read_text() == "something new\n"


async def test_no_longer_configured(engine: Open, on_done: Move) -> None:
    """What waited to be taken away, when nothing is any more, is done and stays."""
    async with engine(steps=0, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        assert (await rig.row(path)).step == "on_done"
    async with engine(steps=0) as rig:
        await run_recovery(rig)
        assert (await rig.row(path)).state == "done"


async def test_moved_when_the_daemon_stops(
    engine: Open, archive: Path, on_done: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move that is through when its handler is ended is a success, and not an interruption."""
    is_in, may_go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    relocated = relocate.move

    def slow(*arguments: Any) -> bytes:
        loop.call_soon_threadsafe(is_in.set)
        may_go.wait()
        return relocated(*arguments)

    monkeypatch.setattr(relocate, "move", slow)
    async with engine(steps=0, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        await is_in.wait()
        loop.call_later(0.05, may_go.set)
        await rig.service.dispatcher.drain(0, asyncio.Event())
        row = await rig.state(path, ["gone"])
        assert row.done is not None
    assert (archive / "a").exists()


class Disk:
    """An archive that hangs: whoever looks at it waits for the test. `relocate.NAME` is held up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._real = getattr(relocate, name)
        self.asked, self.answers = asyncio.Event(), threading.Event()
        monkeypatch.setattr(relocate, name, self._hang)

    def _hang(self, *arguments: Any) -> Any:
        self._loop.call_soon_threadsafe(self.asked.set)
        assert self.answers.wait(20)
        return self._real(*arguments)


async def test_hangs_when_the_daemon_stops(
    engine: Open, archive: Path, on_done: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop leaves a move behind that hangs; the next start finds out what it came to."""
    monkeypatch.setattr("daemon.handlers.filing.END_SECONDS", 0.01)
    monkeypatch.setattr("daemon.handlers.threads.CLOSE_SECONDS", 0.01)
    with monkeypatch.context() as first:
        disk = Disk(first, "move")
        async with engine(steps=0, on_done=on_done) as rig:
            path = rig.write("a")
            await rig.send(path, "look")
            await rig.send(path, "start")
            await disk.asked.wait()
        disk.answers.set()
        while not names(archive):  # noqa: ASYNC110 - its thread is nobody's any more
            await asyncio.sleep(0)
    disk = Disk(monkeypatch, "find")
    async with engine(steps=0, on_done=on_done) as rig:
        service, unfinished = rig.service, Unfinished(rig.service.dispatcher)
        assert (
            await recover(service.trees.values(), service.inbox, service.ledger, [unfinished]) == 0
        )
        async with background(unfinished.report(service.inbox), service.dispatcher.run()):
            await disk.asked.wait()
            # Neither is it found missing, nor does it begin anew.
            await rig.send(path, "look", waited=True)
            assert (await rig.row(path)).state == "processing"
            disk.answers.set()
            await rig.state(path, ["gone"])
        assert (await line_of(rig, path, event="succeed"))["target"] == str(archive / "a")


async def test_hangs(engine: Open, on_done: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a disk is told of its step while it does; what no thread has is withdrawn."""
    disk = Disk(monkeypatch, "move")
    async with engine(steps=0, on_done=on_done) as rig:
        dispatcher, paths = rig.service.dispatcher, [rig.write(name) for name in "abcdef"]
        async with background(dispatcher.run()):
            for path in paths:
                await rig.send(path, "look")
            await disk.asked.wait()
            assert "on_done" not in dispatcher.standings("incoming")
            with monkeypatch.context() as at_once:
                at_once.setattr("daemon.handlers.filing.ANSWER_SECONDS", 0.0)
                standing = dispatcher.standings("incoming")["on_done"]
            assert standing.silent_since is not None
        disk.answers.set()
        await asyncio.gather(*(rig.state(path, ["gone", "ready"]) for path in paths))


async def test_quarantined_when_it_cannot_be_moved(engine: Open, archive: Path) -> None:
    """Where the file is to blame, with a name for which there is no room, it is quarantined."""
    numbered = Move(move=f"{archive}/{'x' * 200}{{name}}")
    async with engine(steps=0, on_done=numbered) as rig:
        path = rig.write("y" * 200)
        await rig.send(path, "look")
        await rig.send(path, "start")
        row = await rig.state(path, ["quarantined"])
        assert row.error is not None
        assert "File name too long" in row.error


async def test_outcome_of_another_kind(engine: Open, on_done: Move) -> None:
    """Only the last step takes a file away: a step that says so itself has done no such thing."""
    gate = Gate()
    async with engine(gate, on_done=on_done) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        await gate.let_pass(Outcome("success"))
        assert (await rig.state(path, ["ready"])).step == "on_done"
