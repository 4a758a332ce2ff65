"""What every store promises, run against each kind; below that, what only SQLite can do wrong."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from daemon.core.model import Fingerprint, Key, Record, Row, State, Transition
from daemon.errors import StoreLost, StoreTooNew, StoreUnavailable
from daemon.store import Known, LastIds, Queue, StateCount, Store, WatchMark
from daemon.store.connection import BUSY_MS, MIGRATIONS
from daemon.store.inspect import inspect
from daemon.store.opening import open_store
from daemon.store.rows import record_of_transition
from daemon.store.sqlite import SqliteStore
from tests.engine.conftest import DEADLINE, born, key, step_on

Pair = tuple[Transition, Record]
Open = Callable[[], AbstractAsyncContextManager[Store]]

HOSTILE = [
    b"a",
    b"not \xff\xfe utf-8",
    b"new\nline",
    b"'quote\" `tick` \\",
    "größe-漢字-🦀".encode(),
    b"n" * 255,
    b"d" * 255 + b"/" + b"\x80" * 255,
    b"deep/" * 700 + b"file",
    b"%s {path} ?1 $x",
]


@pytest.fixture(params=["sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open a store of one kind; each time the same."""
    return {"sqlite": partial(open_store, "sqlite", tmp_path)}[request.param]


@pytest.fixture
async def store(opened: Open) -> AsyncIterator[Store]:
    async with opened() as store:
        yield store


class Writer:
    """Counts the records as the ledger does, and knows what was applied last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seq = 0
        self.batch: list[Pair] = []

    async def apply(self, *transitions: Transition, journaled: int = 0) -> list[bool]:
        self.batch = [self._pair(transition) for transition in transitions]
        return await self._store.apply(self.batch, journaled)

    def _pair(self, transition: Transition) -> Pair:
        self._seq += 1
        return transition, record_of_transition(transition, self._seq)


async def row_at(store: Store, path: Key) -> Row | None:
    (row,) = await store.rows([path])
    return row


async def test_mixed_batch(store: Store) -> None:
    """A batch of new and known rows is committed whole: rows and records as they were given."""
    writer = Writer(store)
    first = [born("a", 1), born("b", 2)]
    assert await writer.apply(*first) == [True, True]
    mixed = [step_on(first[0].after, "settle", "ready", step="load"), born("dir/c", 3)]
    assert await writer.apply(*mixed) == [True, True]
    assert await store.rows([key("a"), key("b"), key("dir/c")]) == [
        mixed[0].after,
        first[1].after,
        mixed[1].after,
    ]
    assert [(r.seq, r.event, r.version) for r in await store.owed(0, 9)] == [
        (1, "discover", 1),
        (2, "discover", 1),
        (3, "settle", 2),
        (4, "discover", 1),
    ]


async def test_one_row_twice_in_a_batch(store: Store) -> None:
    """A file may be found and move on within one batch."""
    found = born("a", 1)
    moved = step_on(found.after, "settle", "done")
    assert await Writer(store).apply(found, moved) == [True, True]
    assert await row_at(store, key("a")) == moved.after


async def test_every_field_survives(store: Store) -> None:
    """A row and a record come back as they went in, every field of them."""
    seen = Fingerprint(1, -2, 2**63 - 1, 2**63 - 1, 2**32)
    row = Row(
        7, key("a"), "settling", 0, "s", "remove", 3, 4, 5, seen, "done-1", 8, 9, "ä\n\0\x1b error"
    )
    changed = step_on(row, "settle", "ready", "id")
    changed = replace(changed, guard="settled", cause="scan", evidence="quiet", error="ä\0")
    changed = replace(changed, duration_ms=1.5, target=b"/t", before=replace(row, key=key("b")))
    writer = Writer(store)
    assert await writer.apply(changed) == [True]
    assert await row_at(store, key("a")) == changed.after
    ((_, record),) = writer.batch
    assert None not in structs.astuple(record)
    assert await store.owed(0, 9) == [record]


async def test_loser_leaves_nothing(store: Store) -> None:
    """Of a batch, a transition from another version loses and leaves nothing; the others win."""
    writer = Writer(store)
    first = born("a", 1)
    await writer.apply(first, born("b", 2))
    winner = step_on(first.after, "settle", "ready", "winner")
    await writer.apply(winner)
    batch = [
        born("c", 3),
        step_on(first.after, "hold", "held", "loser"),
        step_on(winner.after, "hold", "held"),
    ]
    assert await writer.apply(*batch) == [True, False, True]
    assert await row_at(store, key("a")) == batch[2].after
    assert await row_at(store, key("c")) == batch[0].after
    assert "loser" not in [record.attempt_id for record in await store.owed(0, 99)]


async def test_loser_of_a_row_that_is_not_there(store: Store) -> None:
    """A transition of a row that does not exist loses."""
    ghost = step_on(Row(9, key("a"), "ready", 4), "start", "processing")
    assert await Writer(store).apply(ghost, born("b", 1)) == [False, True]
    assert await row_at(store, key("a")) is None


async def test_applied_again(store: Store) -> None:
    """A batch that is applied again wins again and changes nothing."""
    writer = Writer(store)
    first = [born("a", 1), born("b", 2)]
    await writer.apply(*first)
    batch = [step_on(first[0].after, "hold", "held", "a-2"), born("c", 3)]
    await writer.apply(*batch)
    before = await store.rows([key("a"), key("b"), key("c")]), await store.owed(0, 99)
    assert await store.apply(writer.batch, 0) == [True, True]
    assert (await store.rows([key("a"), key("b"), key("c")]), await store.owed(0, 99)) == before


async def test_applied_again_later(store: Store) -> None:
    """Nor does it matter that a row has moved on since, or that one of the batch had lost."""
    writer = Writer(store)
    first = born("a", 1)
    await writer.apply(first, born("a", 2, attempt_id="other"))
    batch = writer.batch
    await writer.apply(step_on(first.after, "hold", "held", "a-2"))
    before = await row_at(store, key("a")), await store.owed(0, 99)
    assert await store.apply(batch, 0) == [True, False]
    assert (await row_at(store, key("a")), await store.owed(0, 99)) == before


async def test_two_rows_for_one_path(store: Store) -> None:
    """Of two new rows for one path, the first wins."""
    assert await Writer(store).apply(born("a", 1), born("a", 2, attempt_id="x"), born("b", 3)) == [
        True,
        False,
        True,
    ]
    row = await row_at(store, key("a"))
    assert row is not None
    assert row.id == 1


async def test_same_path_in_two_watches(store: Store) -> None:
    """Watches have nothing to do with each other."""
    other = step_on(Row(2, key("a", "other")), "discover", "settling")
    assert await Writer(store).apply(born("a", 1), other) == [True, True]
    assert await row_at(store, key("a", "other")) == other.after


async def test_paths_of_any_bytes(opened: Open) -> None:
    """A path is bytes and stays so, in rows, listings and records, and after opening again."""
    transitions = [born(path, number) for number, path in enumerate(HOSTILE, 1)]
    async with opened() as store:
        await Writer(store).apply(*transitions)
    async with opened() as store:
        assert await store.rows([key(path) for path in HOSTILE]) == [t.after for t in transitions]
        assert [record.path for record in await store.owed(0, 99)] == HOSTILE
        folder = key(HOSTILE[6]).directory
        assert [list(rows) for rows in await store.known("incoming", [folder])] == [
            [key(HOSTILE[6]).name]
        ]


async def test_move(store: Store) -> None:
    """A move gives the row its new path, and the record knows the old one."""
    writer = Writer(store)
    first = born("old/a", 1)
    await writer.apply(first)
    move = step_on(first.after, "move", "settling", key=key(b"new/\xff"))
    assert await writer.apply(move, born("b", 2)) == [True, True]
    assert await row_at(store, key("old/a")) is None
    assert await row_at(store, key(b"new/\xff")) == move.after
    assert await store.known("incoming", [b"old"]) == [{}]
    assert (await store.owed(1, 1))[0].old_path == b"old/a"


async def test_records_before_a_move_have_the_path_of_then(store: Store) -> None:
    """A line that is owed from before a move, or two, names the path that the file had."""
    writer = Writer(store)
    first = born("a", 1)
    to_b = step_on(first.after, "move", "settling", key=key("b"))
    held = step_on(to_b.after, "hold", "held")
    to_c = step_on(held.after, "move", "held", key=key("c"))
    await writer.apply(first)
    await writer.apply(to_b)
    await writer.apply(held)
    await writer.apply(to_c)
    paths = [(record.path, record.old_path) for record in await store.owed(0, 9)]
    assert paths == [(b"a", None), (b"b", b"a"), (b"b", None), (b"c", b"b")]


async def test_two_exchange_their_paths(store: Store) -> None:
    """Two rows take each other's path in one batch."""
    writer = Writer(store)
    first, second = born("a", 1), born("b", 2)
    await writer.apply(first, second)
    there = step_on(first.after, "move", "settling", key=key("b"))
    back = step_on(second.after, "move", "settling", key=key("a"))
    assert await writer.apply(there, back) == [True, True]
    assert await store.rows([key("a"), key("b")]) == [back.after, there.after]


async def test_move_beside_a_loser(store: Store) -> None:
    """So it does in a batch in which somebody loses; a move that loses moves nothing."""
    writer = Writer(store)
    first, second = born("a", 1), born("b", 2)
    await writer.apply(first, second)
    move = step_on(first.after, "move", "settling", key=key("moved"))
    stale = step_on(replace(second.after, version=5), "move", "settling", key=key("never"))
    assert await writer.apply(move, stale) == [True, False]
    assert await store.rows([key("moved"), key("never"), key("b")]) == [
        move.after,
        None,
        second.after,
    ]


async def test_makes_room_for_a_loser(store: Store) -> None:
    """Of two that take each other's path, the second stays as well where the first has lost."""
    writer = Writer(store)
    first, second = born("a", 1), born("b", 2)
    await writer.apply(first, second)
    stale = step_on(replace(first.after, version=5), "move", "settling", key=key("b"))
    back = step_on(second.after, "move", "settling", key=key("a"))
    assert await writer.apply(stale, back, born("c", 3)) == [False, False, True]
    assert await store.rows([key("a"), key("b")]) == [first.after, second.after]


async def test_rows_in_the_order_asked(store: Store) -> None:
    """1,200 paths, unknown ones and repetitions among them, are answered in the order asked."""
    births = [born(f"{number % 7}/{number}", number) for number in range(1, 601)]
    await Writer(store).apply(*births)
    known = {birth.after.key: birth.after for birth in births}
    keys = [key(f"{number % 7}/{number}") for number in range(1_100, 0, -1)]
    keys += [births[0].after.key] * 100
    assert await store.rows(keys) == [known.get(each) for each in keys]
    assert await store.rows([]) == []


async def test_known(store: Store) -> None:
    """What is known of some directories: the rows directly in each, the gone ones as well."""
    writer = Writer(store)
    seen = Fingerprint(5, 6, 7, 8, 9)
    births = [
        born(name, n, seen=seen) for n, name in enumerate(["d/a", "d/gone", "d/e/b", "da"], 1)
    ]
    await writer.apply(*births)
    await writer.apply(step_on(births[1].after, "vanish", "gone", seen=None))
    there = Known(8, 5, 6, "settling", "process")
    gone = Known(None, None, None, "gone", "process")
    assert await store.known("incoming", [b"d", b"", b"none"]) == [
        {b"a": there, b"gone": gone},
        {b"da": there},
        {},
    ]
    assert await store.known("other", [b"d"]) == [{}]


async def test_access(store: Store) -> None:
    """What another process reads by itself is what the store gives, and it sees every transition.

    A ctime that is noted is none.
    """
    writer = Writer(store)
    births = [born("d/a", 1, seen=Fingerprint(5, 6, 7, 8, 9), digest="blake2b:0"), born("d/b", 2)]
    await writer.apply(*births)
    for by_content in (False, True):
        reading = store.access(by_content=by_content)
        assert reading is not None
        (known,) = await store.known("incoming", [b"d"], by_content=by_content)
        with closing(sqlite3.connect(reading.uri, uri=True)) as db:
            rows = db.execute(reading.known, ("incoming", b"d")).fetchall()
            assert {row[-1]: Known(*row[:-1]) for row in rows} == known
            contents = db.execute(reading.contents, ("incoming", b"d", 9)).fetchall()
            assert sorted(contents) == [(b"a", 8, 5, 6), (b"b", None, None, None)]
            assert len(db.execute(reading.contents, ("incoming", b"d", 1)).fetchall()) == 1
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                db.execute("DELETE FROM files")
    assert reading is not None
    with closing(sqlite3.connect(reading.uri, uri=True)) as db:
        last = [db.execute(reading.last).fetchone()]
        await store.note_ctimes([replace(births[0].after, seen=Fingerprint(5, 6, 10, 8, 9))])
        last.append(db.execute(reading.last).fetchone())
        await writer.apply(step_on(births[1].after, "vanish", "gone"))
        last.append(db.execute(reading.last).fetchone())
    assert last == [(2,), (2,), (3,)]


async def test_known_by_content(store: Store) -> None:
    """For a watch that goes by content the ctime belongs to it, where there is a digest."""
    seen = Fingerprint(5, 6, 7, 8, 9)
    with_digest = born("d/a", 1, seen=seen, digest="blake2b:0")
    await Writer(store).apply(with_digest, born("d/b", 2, seen=seen))
    assert await store.known("incoming", [b"d"], by_content=True) == [
        {
            b"a": Known(8, 5, 6, "settling", "process", 7),
            b"b": Known(8, 5, 6, "settling", "process", None),
        }
    ]


async def test_named(store: Store) -> None:
    """Rows of one directory by a range of names, in order, so many of them at most."""
    names = ["d/a", "d/a.b", "d/a.c", "d/a0", "d/a./b", "a.b", "d/a.\xff"]
    await Writer(store).apply(*(born(os.fsencode(n), i) for i, n in enumerate(names, 1)))
    found = await store.named("incoming", b"d", b"a.", b"a/", 9)
    assert [row.key.name for row in found] == [b"a.b", b"a.c", os.fsencode("a.\xff")]
    assert [row.id for row in await store.named("incoming", b"d", b"a.", b"a/", 1)] == [2]
    assert await store.named("other", b"d", b"a.", b"a/", 9) == []


async def test_ctimes_are_noted(store: Store) -> None:
    """A ctime is kept without a transition, unless the row has moved on meanwhile."""
    writer = Writer(store)
    seen = Fingerprint(5, 6, 7, 8, 9)
    births = [born(name, n, seen=seen) for n, name in enumerate("ab", 1)]
    await writer.apply(*births)
    later = step_on(births[1].after, "settle", "done")
    await writer.apply(later)
    noted = [replace(birth.after, seen=seen._replace(ctime_ns=70)) for birth in births]
    await store.note_ctimes(noted)
    assert await store.rows([key("a"), key("b")]) == [noted[0], later.after]
    assert len(await store.owed(0, 9)) == 3


async def test_by_inode(store: Store) -> None:
    """The rows of an inode are found, as they are now."""
    writer = Writer(store)
    seen = Fingerprint(5, 6, 7, 8, 9)
    births = [born(n, i, seen=seen._replace(ino=i)) for i, n in enumerate("abc", 1)]
    await writer.apply(*births)
    later = step_on(births[1].after, "change", "settling", seen=seen._replace(ino=-3))
    await writer.apply(later)
    held = step_on(births[2].after, "hold", "held")
    await writer.apply(held)
    assert await store.by_inode([1, 2, 99]) == [births[0].after]
    assert await store.by_inode([-3]) == [later.after]
    assert await store.by_inode([3]) == [held.after]
    assert await store.by_inode([]) == []


async def test_directories(store: Store) -> None:
    """The directories with rows are listed in the order of bytes, each once, up to the end."""
    folders = [b"a", b"a/b", b"a-", b"a0", b"b\xff", b"b", b"\xc3\xa4", b"\xff" * 255]
    names = [folder + name for folder in folders for name in (b"/1", b"/2")]
    await Writer(store).apply(*[born(name, n) for n, name in enumerate([*names, b"root"], 1)])
    last = b"\xff" * 256
    assert await store.directories("incoming", b"", last, 99) == [b"", *sorted(folders)]
    assert await store.directories("incoming", b"", last, 3) == [b"", b"a", b"a-"]
    assert await store.directories("incoming", b"a/", b"a0", 99) == [b"a/b"]
    assert await store.directories("other", b"", last, 99) == []


async def test_ready_in_order_of_arrival(store: Store) -> None:
    """What waits for a step is offered first come first, of this watch and step only."""
    births = [
        step_on(Row(n, key(f"{n}")), "discover", "ready", step=step, at=at)
        for n, (step, at) in enumerate([("load", 30), ("load", 10), ("index", 5), ("load", 20)], 1)
    ]
    alien = step_on(Row(9, key("x", "other")), "discover", "ready", step="load", at=1)
    await Writer(store).apply(*births, alien, born("waiting", 10, step="load"))
    assert [row.id for row in await store.ready(Queue("incoming", "load"), 9)] == [2, 4, 1]
    assert [row.id for row in await store.ready(Queue("incoming", "load"), 2)] == [2, 4]


async def test_in_state_by_pages(store: Store) -> None:
    """Rows in a state come by id, page by page."""
    await Writer(store).apply(*[born(f"{n}", n) for n in range(1, 6)])
    assert [r.id for r in await store.in_state("settling", "incoming", 0, 3)] == [1, 2, 3]
    assert [r.id for r in await store.in_state("settling", "incoming", 3, 3)] == [4, 5]
    assert await store.in_state("settling", "other", 0, 3) == []


async def test_stranded(store: Store) -> None:
    """What waits, ready or failed, for a step that is not in the list, and nothing else."""
    states = [("ready", "old"), ("failed", "old"), ("ready", "load"), ("done", "old")]
    births = [
        step_on(Row(n, key(f"{n}")), "discover", state, step=step)  # type: ignore[arg-type]
        for n, (state, step) in enumerate(states, 1)
    ]
    undone = step_on(Row(10, key("10")), "discover", "ready", step="old", plan="remove")
    await Writer(store).apply(*births, step_on(Row(9, key("9")), "discover", "ready"), undone)
    found = await store.stranded("incoming", "process", ["load", 'it\'s "quoted"'])
    assert {row.id for row in found} == {1, 2, 9}
    assert {row.id for row in await store.stranded("incoming", "process", [])} == {1, 2, 3, 9}
    assert {row.id for row in await store.stranded("incoming", "remove", ["load"])} == {10}
    assert await store.stranded("incoming", "remove", ["old"]) == []


async def test_history(store: Store) -> None:
    """The last transitions of one file, no more than asked for, first to last."""
    writer = Writer(store)
    row = born("a", 1)
    await writer.apply(row, born("b", 2))
    for number in range(3):
        row = step_on(row.after, "change", "settling", f"a-{number}")
        await writer.apply(row)
    assert [record.version for record in await store.history(1, 99)] == [1, 2, 3, 4]
    assert [record.version for record in await store.history(1, 2)] == [3, 4]
    assert await store.history(3, 99) == []


async def test_counts(opened: Open) -> None:
    """Files by watch and state follow every transition that won, and none that lost."""
    async with opened() as store:
        assert await store.counts() == []
        writer = Writer(store)
        await writer.apply(
            born("a", 1), born("b", 2), step_on(Row(3, key("c", "w")), "skip", "done")
        )
        row = await row_at(store, key("a"))
        assert row is not None
        assert await writer.apply(step_on(row, "settle", "ready")) == [True]
        assert await writer.apply(step_on(row, "vanish", "gone", "a-2")) == [False]
        wanted = [("incoming", "ready", 1), ("incoming", "settling", 1), ("w", "done", 1)]
        assert sorted(await store.counts()) == wanted
        row = await row_at(store, key("b"))
        assert row is not None
        await writer.apply(step_on(row, "vanish", "gone"))
    async with opened() as store:
        found = set(await store.counts())
    assert found == {
        StateCount("incoming", "ready", 1),
        StateCount("incoming", "gone", 1),
        StateCount("w", "done", 1),
    }


async def test_due(store: Store) -> None:
    """Timers of the given watches that end before a moment, or were set after another."""
    timers = [(300, 10), (100, 10), (900, 50), (None, 60), (200, 10)]
    births = [born(f"{n}", n, due_at=due, at=at) for n, (due, at) in enumerate(timers, 1)]
    await Writer(store).apply(*births)

    async def due(before: int, set_after: int | None, limit: int = 9) -> list[int]:
        return [row.id for row in await store.due(["incoming"], before, set_after, limit)]

    assert await due(300, None) == [2, 5]
    assert await due(301, None) == [2, 5, 1]
    assert await store.due(["another"], 999, None, 9) == []
    assert await due(200, 49) == [2, 3]
    assert await due(999, 0, 2) == [2, 5]


async def test_owed_by_pages(store: Store) -> None:
    """Records come in order of `seq`, after a point, as many as asked."""
    await Writer(store).apply(*[born(f"{n}", n) for n in range(1, 6)])
    assert [record.seq for record in await store.owed(0, 3)] == [1, 2, 3]
    assert [record.seq for record in await store.owed(3, 3)] == [4, 5]
    assert await store.owed(5, 3) == []


async def test_position_of_the_log_only_grows(store: Store) -> None:
    """The position is stored with a batch, won or lost, or by itself, and never goes back."""
    writer = Writer(store)
    assert await store.journaled() == 0
    await writer.apply(born("a", 1), journaled=5)
    await writer.apply(born("b", 2), journaled=4)
    assert await store.journaled() == 5
    await store.mark_journaled(7)
    await store.mark_journaled(6)
    assert await store.journaled() == 7
    assert await writer.apply(born("a", 3, attempt_id="loser"), journaled=8) == [False]
    assert await store.journaled() == 8


async def test_last_ids(opened: Open) -> None:
    """A new writer counts on from the highest numbers; a position beyond all records counts too."""
    async with opened() as store:
        assert await store.last_ids() == LastIds(0, 0)
        await Writer(store).apply(born("a", 17), born("b", 4))
    async with opened() as store:
        assert await store.last_ids() == LastIds(17, 2)
        await store.mark_journaled(9)
        assert await store.last_ids() == LastIds(17, 9)


async def test_watch_keeps_its_first_time(opened: Open) -> None:
    """When a watch was first seen, and that its early files are adopted, is kept for good."""
    async with opened() as store:
        assert await store.mark_watch("incoming", 10) == WatchMark(10, adopted=False)
        await store.mark_adopted("incoming")
    async with opened() as store:
        assert await store.mark_watch("incoming", 20) == WatchMark(10, adopted=True)
        assert await store.mark_watch("other", 30) == WatchMark(30, adopted=False)


async def test_live_files_are_counted(store: Store) -> None:
    """Live is what should be on the disk, of this watch only: neither gone nor forgotten."""
    writer = Writer(store)
    assert await store.live("incoming") == 0
    births = [born(f"{n}", n) for n in range(1, 5)]
    alien = step_on(Row(9, key("x", "other")), "discover", "settling")
    await writer.apply(*births, alien)
    assert (await store.live("incoming"), await store.live("other")) == (4, 1)
    await writer.apply(
        step_on(births[0].after, "vanish", "gone"),
        step_on(births[1].after, "settle", "done"),
        step_on(births[2].after, "reset", "untracked"),
    )
    assert await store.live("incoming") == 2


async def test_root_is_kept(opened: Open) -> None:
    """Which directory a root was survives; each watch has its own, and none before it is given."""
    async with opened() as store:
        await store.mark_watch("incoming", 10)
        assert await store.root("incoming") is None
        await store.keep_root("incoming", "first")
        await store.keep_root("incoming", '{"\u00e4": 1}')
        await store.keep_root("nobody", "lost")
    async with opened() as store:
        await store.mark_watch("other", 20)
        assert await store.root("incoming") == '{"\u00e4": 1}'
        assert [await store.root(name) for name in ("other", "nobody")] == [None, None]
        assert await store.mark_watch("incoming", 30) == WatchMark(10, adopted=False)


async def test_archive_is_kept(opened: Open) -> None:
    """Which folder stood at a path survives, for a path of any bytes; none before it is given."""
    async with opened() as store:
        assert await store.archive(b"/a\xff") is None
        await store.keep_archive(b"/a\xff", "first")
        await store.keep_archive(b"/a\xff", "second")
    async with opened() as store:
        assert [await store.archive(base) for base in (b"/a\xff", b"/a")] == ["second", None]


async def test_failed_batch_leaves_nothing(store: Store) -> None:
    """A batch that breaks a rule of the schema raises, leaves nothing, and hinders nobody."""
    writer = Writer(store)
    first = born("a", 1)
    await writer.apply(first)
    ((_, record),) = writer.batch
    bad: list[Pair] = [(born("b", 2), record), (born("c", 3), record)]
    with pytest.raises(sqlite3.IntegrityError):
        await store.apply(bad, 99)
    assert await store.rows([key("b"), key("c")]) == [None, None]
    assert await store.journaled() == 0
    assert await writer.apply(born("d", 4)) == [True]


async def test_cancelled_caller(store: Store) -> None:
    """Callers cancelled at any turn leave each batch whole or absent, and no open transaction."""
    writer = Writer(store)
    for turn in range(12):
        batch = [born(f"{turn}/{n}", turn * 100 + n + 1) for n in range(50)]
        caller = asyncio.create_task(writer.apply(*batch))
        for _ in range(turn):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert await writer.apply(born(f"after-{turn}", 5_000 + turn)) == [True]
        (known,) = await store.known("incoming", [b"%d" % turn])
        assert len(known) in {0, 50}


async def test_closed_on_exit(opened: Open) -> None:
    """On the way out, even by an exception, no thread and no descriptor is left."""
    before = descriptors()
    with no_thread_left():
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the way out is the subject
                async with opened() as store:
                    await Writer(store).apply(born("a", 1))
                    raise ZeroDivisionError
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Every thread that was started inside has ended, or is about to."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE)
        assert not thread.is_alive()


# What only SQLite can do wrong


async def test_detection_is_shown_to_onlookers(tmp_path: Path) -> None:
    """What is said last of how changes are found is what another process reads."""
    async with SqliteStore.open(tmp_path / "treewarden.db") as store:
        for name in ("incoming", "other"):
            await store.mark_watch(name, 10)
        await store.keep_detection("incoming", "first")
        await store.keep_detection("incoming", "second")
        with inspect(tmp_path / "treewarden.db") as inspection:
            assert inspection.detections() == {"incoming": "second"}


async def test_states_are_shown_to_onlookers(tmp_path: Path) -> None:
    """By state, in the order of paths, whether `done` is among them or not."""
    states: list[State] = ["done", "settling", "quarantined", "done", "settling"]
    rows = [Row(n, key(str(n))) for n in range(1, 6)]
    found = [step_on(row, "discover", to) for row, to in zip(rows, states, strict=True)]
    async with SqliteStore.open(tmp_path / "treewarden.db") as store:
        await Writer(store).apply(*reversed(found))
        with inspect(tmp_path / "treewarden.db") as inspection:
            for chosen in (["settling"], ["settling", "quarantined"], ["settling", "done"]):
                wanted = [n for n, state in enumerate(states, 1) if state in chosen]
                assert [row.id for row in inspection.files(states=chosen)] == wanted
                assert list(inspection.files(["other"], chosen)) == []


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A database of a newer treewarden is refused, and left byte for byte as it was."""
    path = tmp_path / "treewarden.db"
    async with SqliteStore.open(path) as store:
        await Writer(store).apply(born("a", 1))
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with no_thread_left(), pytest.raises(StoreTooNew, match="newer treewarden"):
        async with SqliteStore.open(path):
            pass
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["treewarden.db"]


@pytest.mark.parametrize("kind", ["text", "folder", "no folder", "broken page"])
async def test_no_database(tmp_path: Path, kind: str) -> None:
    """What is no database, or cannot be made, is unavailable; no thread is left."""
    path = tmp_path / "treewarden.db"
    if kind == "text":
        path.write_text("this is no database, though it is long enough for one\n" * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no folder":
        path = tmp_path / "missing" / "treewarden.db"
    else:
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8_000)
    with no_thread_left(), pytest.raises(StoreUnavailable, match=str(path)):
        async with SqliteStore.open(path):
            pass


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.communicate(timeout=DEADLINE)


async def test_locked_by_another_process(tmp_path: Path) -> None:
    """A writer elsewhere makes writes fail after BUSY_MS, reads go on, and all is well after."""
    path = tmp_path / "treewarden.db"
    async with SqliteStore.open(path) as store:
        writer = Writer(store)
        await writer.apply(born("a", 1))
        with locked(path):
            since = time.monotonic()
            with pytest.raises(StoreUnavailable, match="locked"):
                await writer.apply(born("b", 2))
            assert BUSY_MS / 1000 <= time.monotonic() - since < 10 * BUSY_MS / 1000
            assert await row_at(store, key("a")) is not None
            assert await row_at(store, key("b")) is None
        assert await store.apply(writer.batch, 0) == [True]
        assert [record.path for record in await store.owed(0, 9)] == [b"a", b"b"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if not mounted or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounts nothing here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_full_disk(small_disk: Path) -> None:
    """On a full disk a batch fails and leaves nothing; with room again it is written."""
    async with SqliteStore.open(small_disk / "treewarden.db") as store:
        writer = Writer(store)
        await writer.apply(born("a", 1))
        ballast = small_disk / "ballast"
        with suppress(OSError), ballast.open("wb", 0) as file:
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(StoreUnavailable, match=r"full|disk"):
            await writer.apply(*[born("n" * 200 + f"{n}", n) for n in range(2, 500)])
        assert [record.path for record in await store.owed(0, 999)] == [b"a"]
        ballast.unlink()
        assert all(await store.apply(writer.batch, 0))
        assert len(await store.owed(0, 999)) == 499


async def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    """The writer syncs at every commit, into a write-ahead log."""
    async with SqliteStore.open(tmp_path / "treewarden.db") as store:
        run = store._writer.call
        assert await run(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)
        assert await run(lambda db: db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)


async def test_reader_cannot_write(tmp_path: Path) -> None:
    """The second connection only reads."""
    async with SqliteStore.open(tmp_path / "treewarden.db") as store:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await store._reader.call(lambda db: db.execute("DELETE FROM files"))


async def test_migrations_are_applied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each migration is applied once, in order, and the file knows how far it has got."""
    path = tmp_path / "treewarden.db"

    async def version() -> int:
        async with SqliteStore.open(path) as store:
            ((number,),) = await store._reader.call(
                lambda db: db.execute("PRAGMA user_version").fetchall()
            )
            return int(number)

    assert await version() == len(MIGRATIONS)
    assert await version() == len(MIGRATIONS)
    further = [
        *MIGRATIONS,
        "CREATE TABLE t (n); INSERT INTO t VALUES (1);",
        "INSERT INTO t VALUES (2);",
    ]
    monkeypatch.setattr("daemon.store.connection.MIGRATIONS", further)
    assert await version() == len(MIGRATIONS) + 2
    assert await version() == len(MIGRATIONS) + 2
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]


async def test_migration_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration is applied whole or not at all."""
    path = tmp_path / "treewarden.db"
    bad = [*MIGRATIONS, "CREATE TABLE t (n); SELECT * FROM missing;"]
    monkeypatch.setattr("daemon.store.connection.MIGRATIONS", bad)
    with pytest.raises(StoreUnavailable, match="no such table"):
        async with SqliteStore.open(path):
            pass
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("SELECT name FROM sqlite_schema WHERE name = 't'").fetchall() == []


async def test_ping_notices_another_file(tmp_path: Path) -> None:
    """A database that was replaced or removed is lost: what is written would be, too."""
    path = tmp_path / "treewarden.db"
    async with SqliteStore.open(path) as store:
        await store.ping()
        path.rename(tmp_path / "aside")
        with pytest.raises(StoreLost, match="removed or replaced"):
            await store.ping()
        path.write_bytes(b"")
        with pytest.raises(StoreLost, match="removed or replaced"):
            await store.apply([], 0)
        (tmp_path / "aside").rename(path)
        await store.ping()
