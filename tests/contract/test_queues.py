"""What every store promises about what is ready: its order, its directories, its counts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from daemon.core.model import Fingerprint, Row, Transition
from daemon.store import Queue, StepCount, Store
from daemon.store.opening import open_store
from tests.contract.test_store import Writer
from tests.engine.conftest import key, step_on

Order = Literal["arrival", "name", "mtime", "size"]
LOAD = Queue("incoming", "load")


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(request.param, tmp_path) as store:
        await store.mark_watch("incoming", 1)
        yield store


def ready(number: int, name: str, *, at: int = 0, rank: int = 0, **seen: int) -> Transition:
    """The birth of a file that is ready for `load`."""
    disk = Fingerprint(seen.get("size", 1), seen.get("mtime_ns", 1), 1, number, 1)
    path = key(name)
    row = Row(number, path)
    return step_on(row, "discover", "ready", step="load", at=at, rank=rank, seen=disk)


FILES = [
    ready(1, "b/1", at=30, size=5, mtime_ns=7),
    ready(2, "a/2", at=10, size=9, mtime_ns=5),
    ready(3, "b-/3", at=20, size=7, mtime_ns=9),
    ready(4, "b/0", at=40, size=1, mtime_ns=8, rank=1),
    ready(5, "z", at=50, size=2, mtime_ns=6, rank=-1),
]


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ("arrival", [5, 2, 3, 1, 4]),
        ("name", [5, 2, 1, 3, 4]),
        ("mtime", [5, 2, 1, 3, 4]),
        ("size", [5, 1, 3, 2, 4]),
    ],
)
async def test_orders(store: Store, order: Order, ids: list[int]) -> None:
    """By rank, and then as asked: the first so many."""
    await Writer(store).apply(*FILES)
    queue = LOAD._replace(order=order, ranked=True)
    await store.prepare([queue])
    assert [row.id for row in await store.ready(queue, 9)] == ids
    assert [row.id for row in await store.ready(queue, 2)] == ids[:2]
    assert (await store.ready(queue, 1))[0].rank == -1


async def test_arrival_alone_knows_no_rank(store: Store) -> None:
    """Where no patterns are, what former patterns left is of no meaning."""
    await Writer(store).apply(*FILES)
    assert [row.id for row in await store.ready(LOAD, 9)] == [2, 3, 1, 4, 5]


async def test_another_order_after_a_restart(store: Store) -> None:
    """The indexes follow what is asked for now; what is ready needs no rewriting for that."""
    await Writer(store).apply(*FILES)
    for order in ("size", "name", "arrival", "size"):
        queue = LOAD._replace(order=order)
        await store.prepare([queue, LOAD._replace(order=order, in_folders=True)])
        assert len(await store.ready(queue, 9)) == 5
        assert len(await store.ready_in_folders(queue._replace(in_folders=True), 0, b"", 9, 9)) == 3


async def test_directories_in_turn(store: Store) -> None:
    """The first files of a rank in each of the next directories, in their order."""
    await Writer(store).apply(*FILES, ready(6, "b/2", at=5), ready(7, "root", at=6))
    queue = LOAD._replace(in_folders=True)
    await store.prepare([queue])

    async def ids(first: bytes, folders: int, each: int, rank: int = 0) -> dict[bytes, list[int]]:
        found = await store.ready_in_folders(queue, rank, first, folders, each)
        assert list(found) == sorted(found)
        return {directory: [row.id for row in rows] for directory, rows in found.items()}

    assert await ids(b"", 9, 9) == {b"": [7], b"a": [2], b"b": [6, 1], b"b-": [3]}
    assert await ids(b"", 3, 1) == {b"": [7], b"a": [2], b"b": [6]}
    found = await store.ready_in_folders(queue, 0, b"", 9, 1, {b"b": 1, b"none": 5})
    assert [len(rows) for rows in found.values()] == [1, 1, 2, 1]
    assert await ids(b"b\0", 9, 1) == {b"b-": [3]}
    assert await ids(b"", 9, 9, rank=1) == {b"b": [4]}
    assert await ids(b"c", 9, 9) == {}


async def test_ranks_follow_the_patterns(store: Store) -> None:
    """What is ready gets the ranks that other patterns give it, once."""
    await Writer(store).apply(*FILES)
    queue = LOAD._replace(ranked=True)
    await store.prepare([queue])
    asked = []

    def rank_of(path: bytes) -> int:
        asked.append(path)
        return -9 if path == b"b-/3" else 0

    await store.rank_ready("incoming", "these", rank_of)
    assert [row.id for row in await store.ready(queue, 9)] == [3, 2, 1, 4, 5]
    asked.clear()
    await store.rank_ready("incoming", "these", rank_of)
    assert asked == []
    await store.rank_ready("unknown", "these", rank_of)
    assert asked == []


async def test_starts_of_a_step(store: Store) -> None:
    """When a step's handlers were started since a moment, the latest first, and no other's."""
    births = [ready(n, f"{n}", at=n) for n in range(1, 5)]
    starts = [
        step_on(birth.after, "start", "processing", at=100 * birth.after.id) for birth in births
    ]
    other = step_on(Row(9, key("x")), "discover", "ready", step="index", at=350)
    begun = step_on(other.after, "start", "processing", at=360)
    writer = Writer(store)
    await writer.apply(*births)
    await writer.apply(*starts, other, begun)
    assert await store.starts("incoming", "load", 200, 9) == [400, 300]
    assert await store.starts("incoming", "load", 0, 3) == [400, 300, 200]
    assert await store.starts("incoming", "index", 0, 9) == [360]
    assert await store.starts("other", "load", 0, 9) == []


async def test_counts_by_step(store: Store) -> None:
    """How many wait for a step and are in it, whatever moved them."""
    writer = Writer(store)
    await writer.apply(*FILES)
    starts = [step_on(each.after, "start", "processing") for each in FILES[:3]]
    await writer.apply(*starts)
    assert set(await store.step_counts()) == {
        StepCount("incoming", "load", "ready", 2),
        StepCount("incoming", "load", "processing", 3),
    }
    await writer.apply(
        step_on(starts[0].after, "succeed", "ready", step="index"),
        step_on(starts[1].after, "succeed", "done", step=None),
        step_on(starts[2].after, "interrupt", "ready"),
    )
    assert set(await store.step_counts()) == {
        StepCount("incoming", "load", "ready", 3),
        StepCount("incoming", "index", "ready", 1),
    }


async def test_how_steps_stand(store: Store) -> None:
    """What is kept of the steps of a watch is what comes back; of others there is nothing."""
    assert await store.steps("incoming") is None
    await store.keep_steps("incoming", '{"load":{}}')
    assert await store.steps("incoming") == '{"load":{}}'
    assert await store.steps("other") is None
