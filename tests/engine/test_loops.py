"""The loop guard: what a handler brings back again and again is quarantined, with that reason."""

from pathlib import Path

import pytest

from daemon.cli.harness import Rig
from daemon.core.model import Key, Row
from daemon.engine import loops
from daemon.engine.loops import _Folder
from daemon.handlers import Job, Outcome
from tests.engine.conftest import Gate, Open, background


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


class Writing:
    """A handler that writes to the tree: to the file itself, or beside it."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.jobs: list[bytes] = []

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job.file.path)
        write(job.path.decode() + self.suffix, f"{len(self.jobs):06}")
        return Outcome("success")

    async def close(self) -> None:
        pass


async def cycle(rig: Rig, path: Key) -> str:
    """Handled once, which changes it, and settled again."""
    await rig.send(path, "start")
    # The look that follows the outcome settles it at once.
    await rig.state(path, ["settling", "ready", "quarantined"])
    await rig.service.inbox.idle()
    await rig.send(path, "look")
    return (await rig.row(path)).state


async def test_own_writes(engine: Open) -> None:
    """A file that its handler changes is handled as often as allowed, and then quarantined."""
    handler = Writing()
    async with engine(handler, max_cycles=4) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        for _ in range(3):
            assert await cycle(rig, path) == "ready"
        assert await cycle(rig, path) == "quarantined"
        row = await rig.row(path)
        assert len(handler.jobs) == 4
        assert row.error is not None
        assert row.error.startswith("it came back more than 4 times within an hour")
        (line,) = [line for line in await rig.lines() if line.get("guard") == "looping"]
        assert (line["error"], line["level"]) == (row.error, "error")


async def test_operator_lets_it_through(engine: Open) -> None:
    """`retry` hands it over once more."""
    handler = Writing()
    async with engine(handler, max_cycles=1) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        assert await cycle(rig, path) == "quarantined"
        await rig.send(path, "retry")
        await rig.send(path, "start")
        await rig.state(path, ["settling", "quarantined"])
        assert len(handler.jobs) == 2


async def test_only_the_last_hour_counts(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes now and then comes back for ever."""
    monkeypatch.setattr(loops, "HOUR_US", 0)
    async with engine(Writing(), max_cycles=1) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        for _ in range(5):
            assert await cycle(rig, path) == "ready"


async def test_many_transitions_a_cycle(engine: Open) -> None:
    """Retries between the cycles do not hide them."""
    gate = Gate()
    async with engine(gate, max_cycles=2) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        for number in range(2):
            for _ in range(20):
                await rig.send(path, "hold")
                await rig.send(path, "release")
                await rig.send(path, "skip")
                await rig.send(path, "reset")
                await rig.send(path, "look")
            rig.write("a", "x" * (number + 20))
            await rig.send(path, "look")
        await rig.send(path, "look")
        assert (await rig.row(path)).state == "quarantined"


async def test_chain_of_new_names(engine: Open) -> None:
    """a, a.out, a.out.out, ...: each made by the handler of the one before, until it is stopped."""
    handler = Writing(".out")
    async with engine(handler, max_cycles=3) as rig:
        path = rig.write("d/a")
        async with background(rig.service.dispatcher.run()):
            for number in range(4):
                await rig.send(path, "look")
                await rig.state(path, ["done"])
                assert len(handler.jobs) == number + 1
                path = Key(path.watch, path.path + b".out")
            await rig.send(path, "look")
        row = await rig.row(path)
        assert row.state == "quarantined"
        assert row.error is not None
        assert row.error.startswith("number 4 of a chain of files")


async def test_output_that_is_not_handled(engine: Open) -> None:
    """An output that is handled once, and brings nothing more, is no loop."""
    handler = Writing(".out")
    async with engine(handler, max_cycles=1) as rig:
        for name in ("a", "b", "c"):
            path = rig.write(name)
            async with background(rig.service.dispatcher.run()):
                await rig.send(path, "look")
                await rig.state(path, ["done"])
                await rig.send(rig.key(f"{name}.out"), "look")
                await rig.state(rig.key(f"{name}.out"), ["done"])


async def test_input_renamed_by_its_handler(engine: Open, tree: Path) -> None:
    """A file that its handler renames keeps its row, and is not handled again."""
    gate = Gate()
    async with engine(gate) as rig, background(rig.service.dispatcher.run()):
        path = rig.write("a")
        await rig.send(path, "look")
        _, ending = await gate.next()
        (tree / "a").rename(tree / "a.loaded")
        await rig.send(path, "look")
        await rig.send(rig.key("a.loaded"), "look")
        ending.set_result(Outcome("success"))
        row = await rig.state(rig.key("a.loaded"), ["done"])
        assert row.done == row.content
        await rig.service.inbox.idle()
        assert gate.jobs.empty()


async def test_nothing_grows(engine: Open) -> None:
    """Folders are forgotten, however long a handler runs in one of them; that one is not."""
    async with engine() as rig:
        guard = rig.service.pipeline._evidence.loops
        long = Row(1, rig.key("long/a"))
        guard.started(long)
        for number in range(3 * loops.FOLDERS):
            row = Row(number, rig.key(f"{number}/a"))
            guard.started(row)
            guard.ended(row)
        assert len(guard._folders) <= loops.FOLDERS + 1
        assert ("incoming", b"long") in guard._folders


@pytest.mark.parametrize(
    ("handled", "appeared", "generation"),
    [
        ("a.csv", "a.csv.out", 3),
        ("a.csv", "a.out.csv", 3),
        ("a.csv", "a.csv", 0),
        ("scan.001", "scan.002", 0),
        ("a.csv", "b.csv.out", 0),
        ("a.csv", ".a.csv", 0),
        (".a", ".a.out", 3),
    ],
)
def test_what_continues_a_name(handled: str, appeared: str, generation: int) -> None:
    """A longer name that begins with the other's, or with that without its suffix; nothing else."""
    folder = _Folder()
    folder.add(handled.encode(), 2)
    assert folder.generation_of(appeared.encode()) == generation


def test_files_that_arrive_together_are_no_chain() -> None:
    """Numbered parts that come while others of them are handled never add up."""
    folder, longest = _Folder(), 0
    for number in range(2_000):
        name = f"backup.part{number}.rar".encode()
        longest = max(longest, folder.generation_of(name))
        folder.add(name, folder.generation_of(name))
    assert longest < 4
