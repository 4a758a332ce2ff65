"""In which order the files of a step are handled, and how many of one folder at once."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.cli.harness import Rig
from daemon.config import Urgency
from daemon.core.model import Key, Row
from daemon.engine.backlog import LONGEST_QUEUE, QUEUE
from daemon.engine.pipeline import TOGETHER
from daemon.handlers import Job, Outcome
from daemon.store import Queue, Store
from tests.engine.conftest import Gate, Open, background

URGENT = (
    Urgency(patterns=("urgent/", "*.now"), priority=9),
    Urgency(patterns=("*.later",), priority=-9),
)

LATER_FIRST = (Urgency(patterns=("*.later",), priority=1),)


async def ready(rig: Rig, *names: str) -> list[Key]:
    """Files that arrive one after the other."""
    paths = [rig.write(name) for name in names]
    # In groups as they go through the verbs, in their order: one commit each took 20 s on a
    # machine with much to do.
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        await asyncio.gather(*(rig.send(path, "look") for path in some))
    return paths


def backlog(rig: Rig) -> Any:
    return rig.service.dispatcher._lanes["incoming", "load"].backlog


async def handled(gate: Gate, count: int) -> list[str]:
    """The names of the next so many files, each of which succeeds."""
    return [(await gate.let_pass()).file.path.decode() for _ in range(count)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("arrival", "badc"), ("name", "abcd"), ("mtime", "cdab"), ("size", "dbca")],
)
async def test_orders(engine: Open, tree: Path, order: str, expected: str) -> None:
    """Each order a watch may ask for, from the database and for what comes while others wait."""
    gate = Gate()
    sizes = {"d": 1, "b": 2, "c": 3, "a": 4}
    times = {"c": 1, "d": 2, "a": 3, "b": 4}
    async with engine(gate, concurrency=1, order=order) as rig:
        for names in ("bad", "c"):
            for name in names:
                path = rig.write(name, "x" * sizes[name])
                os.utime(tree / name, (times[name], times[name]))
                await rig.send(path, "look")
        async with background(rig.service.dispatcher.run()):
            assert "".join(await handled(gate, 4)) == expected
            for name in expected:
                await rig.state(rig.key(name), ["done"])


async def test_urgent_files_overtake(engine: Open) -> None:
    """By patterns some files go first and some last: also before a queue that is full already."""
    gate = Gate()
    names = [f"{number:03}" for number in range(2 * QUEUE)]
    async with engine(gate, concurrency=1, priorities=URGENT) as rig:
        await ready(rig, "0.later", *names[:-1])
        async with background(rig.service.dispatcher.run()):
            first, ending = await gate.next()
            assert first.file.path == b"000"
            assert len(backlog(rig).queue) >= QUEUE - 1
            await ready(rig, "urgent/1", names[-1], "2.now")
            ending.set_result(Outcome("success"))
            assert await handled(gate, 2) == ["urgent/1", "2.now"]
            assert await handled(gate, len(names)) == [*names[1:], "0.later"]
            await rig.state(rig.key("0.later"), ["done"])


async def test_priorities_of_another_configuration(engine: Open) -> None:
    """What is ready when the daemon starts is as urgent as the patterns of today say."""
    async with engine() as rig:
        await ready(rig, "a", "b.later", "c", "d.now")
    gate = Gate()
    for patterns, first in ((URGENT, ["d.now", "a"]), (LATER_FIRST, ["b.later", "c"])):
        gate = Gate()
        opened = engine(gate, concurrency=1, priorities=patterns)
        async with opened as rig, background(rig.service.dispatcher.run()):
            assert await handled(gate, 2) == first
            await rig.state(rig.key(first[1]), ["done"])


class Folders:
    """A handler that notes how many files of each folder it has at once."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.inside: Counter[bytes] = Counter()
        self.most = 0

    async def run(self, job: Job) -> Outcome:
        folder = job.file.directory
        self.order.append(job.file.path.decode())
        self.inside[folder] += 1
        self.most = max(self.most, *self.inside.values())
        await asyncio.sleep(0)
        self.inside[folder] -= 1
        return Outcome("success")

    async def close(self) -> None:
        pass


async def test_files_of_one_folder_one_by_one(engine: Open) -> None:
    """Never two of a folder at once, in its order, however many folders and files there are."""
    handler = Folders()
    names = [f"{folder}/{number:02}" for number in range(12) for folder in ("a", "b/c", "d")]
    names += [f"root{number}" for number in range(9)]
    async with engine(handler, concurrency=8, step={"per_directory": 1}) as rig:
        await ready(rig, *names[: len(names) // 2])
        async with background(rig.service.dispatcher.run()):
            await ready(rig, *names[len(names) // 2 :])
            for name in names:
                await rig.state(rig.key(name), ["done"])
            assert handler.most == 1
            for folder in ("a/", "b/c/", "d/", "root"):
                own = [name for name in handler.order if name.startswith(folder)]
                assert own == [name for name in names if name.startswith(folder)]
            await rig.service.inbox.idle()
            assert not backlog(rig).claimed
            assert not backlog(rig)._busy


async def test_busy_folder_hides_nobody(engine: Open) -> None:
    """Behind more files of one folder than are read at once, those of others are found."""
    gate = Gate()
    many = [f"busy/{number}" for number in range(LONGEST_QUEUE + QUEUE)]
    async with engine(gate, concurrency=4, step={"per_directory": 2}) as rig:
        await ready(rig, *many, "z/1", "y/1")
        async with background(rig.service.dispatcher.run()):
            held = [await gate.next() for _ in range(4)]
            started = sorted(job.file.path.decode() for job, _ in held)
            assert started == ["busy/0", "busy/1", "y/1", "z/1"]
            for _, ending in held:
                ending.set_result(Outcome("success"))
            assert await handled(gate, 2) == ["busy/2", "busy/3"]
            await rig.state(rig.key("busy/3"), ["done"])


async def test_urgent_files_of_a_busy_folder_wait(engine: Open) -> None:
    """The limit for a folder holds for its urgent files, and they are the next of it."""
    gate = Gate()
    async with engine(gate, concurrency=3, priorities=URGENT, step={"per_directory": 1}) as rig:
        await ready(rig, "a/1", "a/2", "b/1")
        async with background(rig.service.dispatcher.run()):
            held = [await gate.next() for _ in range(2)]
            assert sorted(job.file.path for job, _ in held) == [b"a/1", b"b/1"]
            await ready(rig, "a/3.now", "a/0.later")
            for _, ending in held:
                ending.set_result(Outcome("success"))
            assert await handled(gate, 3) == ["a/3.now", "a/2", "a/0.later"]
            await rig.state(rig.key("a/0.later"), ["done"])


class Interrupted:
    """A store in which something may happen after each read of folders, by its rank."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.after: Callable[[int], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def ready_in_folders(self, queue: Queue, rank: int, *given: Any) -> Any:
        found = await self._store.ready_in_folders(queue, rank, *given)
        if self.after is not None:
            await self.after(rank)
        return found


async def test_folder_that_is_free_during_a_read(engine: Open) -> None:
    """No file of it goes before a more urgent one that the read is past."""
    gate = Gate()
    stores: list[Interrupted] = []

    def wrap(store: Store) -> Store:
        stores.append(Interrupted(store))
        return cast("Store", stores[0])

    step = {"per_directory": 1}
    async with engine(gate, wrap=wrap, concurrency=3, priorities=URGENT, step=step) as rig:
        await ready(rig, "a/1", "a/2", "a/0.later", "b/1")
        async with background(rig.service.dispatcher.run()):
            held = {job.file.path: ending for job, ending in [await gate.next(), await gate.next()]}
            least = max(backlog(rig)._levels)

            async def leave(rank: int) -> None:
                if rank == least and not held[b"a/1"].done():
                    held[b"a/1"].set_result(Outcome("success"))
                    await rig.state(rig.key("a/1"), ["done"])
                    await rig.service.inbox.idle()

            stores[0].after = leave
            held[b"b/1"].set_result(Outcome("success"))
            assert await handled(gate, 2) == ["a/2", "a/0.later"]
            await rig.state(rig.key("a/0.later"), ["done"])


async def test_unreadable_file_does_not_take_its_folder_s_place(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are left alone, for they cannot be looked at, let the others of a folder pass.

    However many they are: more than are read at once.
    """
    monkeypatch.setattr("daemon.engine.lanes.DEFER_SECONDS", 3600.0)
    gate = Gate()
    async with engine(gate, concurrency=1, step={"per_directory": 1}) as rig:
        await ready(rig, *(f"d/bad{number}" for number in range(QUEUE + 6)), "d/good")
        real = os.lstat

        def lstat(path: Any, **more: Any) -> os.stat_result:
            if b"/bad" in path:
                raise PermissionError(13, "not for you")
            return real(path, **more)

        monkeypatch.setattr("os.lstat", lstat)
        async with background(rig.service.dispatcher.run()):
            assert await handled(gate, 1) == ["d/good"]
            await rig.state(rig.key("d/good"), ["done"])


async def test_no_more_is_read_than_has_room(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many files of a folder may run at once, those of few folders are read."""
    gate, counts = Gate(), []
    async with engine(gate, concurrency=1, step={"per_directory": 1_000}) as rig:
        await ready(rig, *(f"{folder}/{number}" for folder in "abc" for number in range(QUEUE)))
        real = rig.store.ready_in_folders

        async def read(*asked: Any) -> dict[bytes, list[Row]]:
            found = await real(*asked)
            counts.append(sum(map(len, found.values())))
            return found

        monkeypatch.setattr(rig.store, "ready_in_folders", read)
        async with background(rig.service.dispatcher.run()):
            for _ in range(QUEUE + 1):
                await gate.let_pass()
    assert max(counts) <= QUEUE
