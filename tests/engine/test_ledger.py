"""The ledger: group commit, and a database that goes away and comes back."""

# ruff: noqa: ASYNC110 - turns of the loop until it has noticed; there is no event for that

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.core.model import Fingerprint, Record, Row, Transition
from daemon.engine.journal import Journal
from daemon.engine.ledger import RECENT, Ledger
from daemon.errors import StoreUnavailable
from daemon.store import Store
from tests.engine.conftest import DEADLINE, born, commit, key, row_of, step_on, valid_lines

Batch = Sequence[tuple[Transition, Record]]


class Watched:
    """The real store, with a gate before each commit and errors before and after it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sizes: list[int] = []
        self.asked: list[list[Any]] = []
        self.before: deque[Exception] = deque()
        self.after: deque[Exception] = deque()
        self.reading: deque[Exception] = deque()
        self.came = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply(self, batch: Batch, journaled: int) -> list[bool]:
        self.sizes.append(len(batch))
        self.came.set()
        await self.gate.wait()
        if self.before:
            raise self.before.popleft()
        won = await self._store.apply(batch, journaled)
        if self.after:
            raise self.after.popleft()
        return won

    async def rows(self, keys: Sequence[Any]) -> list[Row | None]:
        self.asked.append(list(keys))
        if self.reading:
            raise self.reading.popleft()
        return await self._store.rows(keys)


@pytest.fixture
def watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr("daemon.engine.ledger.RETRY_SECONDS", 0.01)
    return Watched(store)


@pytest.fixture
async def ledger(watched: Watched, journal: Journal) -> Ledger:
    return Ledger(cast("Store", watched), await watched.last_ids(), journal)


def away() -> StoreUnavailable:
    return StoreUnavailable("away")


async def events(journal: Journal, log: Path) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        await journal.caught_up.wait()
    return [line["event"] for line in valid_lines(log)]


async def test_group_commit(ledger: Ledger, watched: Watched) -> None:
    """What queues during one commit is the next: 1,001 transitions in two transactions."""
    watched.gate.clear()
    futures = [commit(ledger, born("first"))]
    await watched.came.wait()
    futures += [commit(ledger, born(f"{number}")) for number in range(1_000)]
    watched.gate.set()
    rows = await asyncio.gather(*futures)
    assert watched.sizes == [1, 1_000]
    assert [row.id for row in rows if row] == list(range(1, 1_002))


async def test_full_batch_is_made_ready_early(
    watched: Watched, journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full batch is composed while the last is written, and written only when that is over.

    So it is when the first has to be tried again: rows and lines come in the order of asking.
    """
    monkeypatch.setattr("daemon.engine.ledger.TOGETHER", 4)
    ledger = Ledger(cast("Store", watched), await watched.last_ids(), journal)
    composed: list[int] = []
    real = watched._store.compose

    def compose(batch: Batch) -> Batch:
        composed.append(len(batch))
        return real(batch)

    monkeypatch.setattr(watched._store, "compose", compose)
    watched.before.extend([away(), away()])
    watched.gate.clear()
    futures = [commit(ledger, born("0"))]
    await watched.came.wait()
    futures += [commit(ledger, born(f"{number}")) for number in range(1, 7)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert (composed, watched.sizes) == ([1, 4], [1])
    watched.gate.set()
    rows = await asyncio.gather(*futures)
    assert watched.sizes == [1, 1, 1, 4, 2]
    assert [row.id for row in rows if row] == list(range(1, 8))
    assert [record.path for record in await watched.owed(0, 9)] == [b"%d" % n for n in range(7)]
    await events(journal, tmp_path / "log")
    said = [line["path"] for line in valid_lines(tmp_path / "log") if "path" in line]
    assert said == [str(number) for number in range(7)]


async def test_a_later_batch_overtakes_one_that_is_tried_again(
    watched: Watched, journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What met an error beside others is numbered anew: the log, which goes by number, has it."""
    monkeypatch.setattr("daemon.engine.ledger.TOGETHER", 2)
    ledger = Ledger(cast("Store", watched), await watched.last_ids(), journal)
    watched.before.append(ZeroDivisionError())
    watched.gate.clear()
    futures = [commit(ledger, born(f"{number}")) for number in range(2)]
    await watched.came.wait()
    futures += [commit(ledger, born(f"{number}")) for number in range(2, 4)]
    for _ in range(100):
        await asyncio.sleep(0)
    watched.gate.set()
    await asyncio.gather(*futures)
    assert watched.sizes == [2, 2, 1, 1]
    await events(journal, tmp_path / "log")
    said = [line["path"] for line in valid_lines(tmp_path / "log") if "path" in line]
    assert said == ["2", "3", "0", "1"]


async def test_resolves_after_commit_only(ledger: Ledger, tmp_path: Path) -> None:
    """In the moment a future resolves, its row is visible on another connection."""
    seen = []
    with closing(sqlite3.connect(tmp_path / "treewarden.db")) as db:
        future = commit(ledger, born("a"))
        future.add_done_callback(
            lambda _: seen.append(db.execute("SELECT count(*) FROM files").fetchone())
        )
        assert db.execute("SELECT count(*) FROM files").fetchone() == (0,)
        await future
        await asyncio.sleep(0)
    assert seen == [(1,)]


async def test_not_before_commit(ledger: Ledger, watched: Watched) -> None:
    """While the transaction is under way, nobody is told."""
    watched.gate.clear()
    future = commit(ledger, born("a"))
    await watched.came.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not future.done()
    watched.gate.set()
    assert await future is not None


async def test_lost_race(ledger: Ledger) -> None:
    """Of two transitions from one version the first is committed, the other told None."""
    row = await commit(ledger, born("a"))
    assert row is not None
    futures = [commit(ledger, step_on(row, "hold", "held", attempt)) for attempt in ("x", "y")]
    first, second = await asyncio.gather(*futures)
    assert (first and first.state, second) == ("held", None)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_away_and_back(
    ledger: Ledger, watched: Watched, journal: Journal, tmp_path: Path, when: str
) -> None:
    """A database that is away is tried again until it is back; nobody fails, each line is once.

    Also where the batch was written although an error was reported.
    """
    getattr(watched, when).extend([away(), away(), away()])
    rows = await asyncio.gather(*[commit(ledger, born(f"{number}")) for number in range(5)])
    assert [row.id for row in rows if row] == [1, 2, 3, 4, 5]
    assert await events(journal, tmp_path / "log") == [
        "daemon.store_unavailable",
        "daemon.store_back",
        *["discover"] * 5,
    ]


async def test_available(ledger: Ledger, watched: Watched) -> None:
    """While the last try failed the ledger says that it is not available."""
    assert ledger.available.is_set()
    watched.before.extend([away(), away()])
    future = commit(ledger, born("a"))
    while len(watched.before) == 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not ledger.available.is_set()
    await future
    assert ledger.available.is_set()


async def test_reader_that_answers_does_not_bring_the_writer_back(
    ledger: Ledger, watched: Watched
) -> None:
    """What failed has to succeed: reads that pass a lock say nothing about writes."""
    watched.before.append(away())
    watched.gate.clear()
    future = commit(ledger, born("a"))
    await watched.came.wait()
    watched.came.clear()
    watched.gate.set()
    await asyncio.sleep(0)
    watched.gate.clear()
    await asyncio.wait_for(watched.came.wait(), DEADLINE)
    assert await row_of(ledger, key("other")) is None
    assert not ledger.available.is_set()
    watched.gate.set()
    await future
    assert ledger.available.is_set()


async def test_read_is_retried(ledger: Ledger, watched: Watched) -> None:
    """A read waits for the database as a write does."""
    watched.reading.extend([away(), away()])
    assert await row_of(ledger, key("a")) is None
    assert len(watched.asked) == 3


async def test_other_errors_reach_who_has_them(ledger: Ledger, watched: Watched) -> None:
    """What the database cannot take fails alone, whatever else was to be in its transaction."""
    watched.gate.clear()
    first = commit(ledger, born("first"))
    await watched.came.wait()
    good = commit(ledger, born("a"))
    bad = commit(ledger, born("b", seen=Fingerprint(2**70, 0, 0, 0, 0)))
    later = commit(ledger, born("c"))
    watched.gate.set()
    with pytest.raises(OverflowError):
        await bad
    rows = await asyncio.gather(first, good, later)
    assert [row and row.key for row in rows] == [key("first"), key("a"), key("c")]
    assert watched.sizes == [1, 3, 1, 1, 1]
    assert await row_of(ledger, key("b")) is None
    assert [record.path for record in await watched.owed(0, 9)] == [b"first", b"a", b"c"]


async def test_error_after_commit_still_has_its_line(
    ledger: Ledger, watched: Watched, journal: Journal, tmp_path: Path
) -> None:
    """A batch that was written and then met an error is on the log all the same, once."""
    watched.after.append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await commit(ledger, born("a"))
    await commit(ledger, born("b"))
    await events(journal, tmp_path / "log")
    lines = valid_lines(tmp_path / "log")
    assert [line["path"] for line in lines] == ["a", "b"]


async def test_away_while_closing(ledger: Ledger, watched: Watched) -> None:
    """A database that is away while the daemon stops holds up nobody."""
    watched.before.extend([away()] * 1_000)
    asked = commit(ledger, born("a"))
    while ledger.available.is_set():
        await asyncio.sleep(0)
    ledger.closing()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(asked, DEADLINE)
    watched.reading.append(away())
    with pytest.raises(StoreUnavailable):
        await row_of(ledger, key("a"))
    await ledger.close()


async def test_close_commits_what_was_handed_over(ledger: Ledger, watched: Watched) -> None:
    """`close` returns when everything that was handed over is committed."""
    futures = [commit(ledger, born(f"{number}")) for number in range(50)]
    await ledger.close()
    assert all(future.done() for future in futures)
    assert len(await watched.owed(0, 99)) == 50


async def test_reads_are_asked_together(ledger: Ledger, watched: Watched) -> None:
    """A hundred rows asked for at once are one question to the database."""
    await asyncio.gather(*[row_of(ledger, key(f"{number}")) for number in range(100)])
    assert [len(keys) for keys in watched.asked] == [100]


async def test_recent_rows_are_in_memory(ledger: Ledger, watched: Watched) -> None:
    """A row that was just committed is not read again, and is the newest."""
    row = await commit(ledger, born("a"))
    assert row is not None
    held = await commit(ledger, step_on(row, "hold", "held"))
    assert await row_of(ledger, key("a")) == held
    assert watched.asked == []


async def test_row_that_was_read_is_remembered(ledger: Ledger) -> None:
    """A row that somebody has read is not read again, and never hides what was committed since."""
    row = await commit(ledger, born("a"))
    assert row is not None
    newer = await commit(ledger, step_on(row, "settle", "ready"))
    ledger.remember(row)
    assert await row_of(ledger, key("a")) == newer
    other = Row(7, key("b"), "ready", 1)
    ledger.remember(other)
    assert await row_of(ledger, key("b")) == other


async def test_memory_is_bounded(ledger: Ledger) -> None:
    """Of very many rows the last RECENT stay in memory; the others are read again."""
    births = [commit(ledger, born(f"{number}")) for number in range(RECENT + 500)]
    rows = await asyncio.gather(*births)
    assert len(ledger._recent) == RECENT
    assert await row_of(ledger, key("0")) == rows[0]


async def test_row_in_memory_is_dropped_after_a_lost_race(ledger: Ledger, watched: Watched) -> None:
    """A row that somebody else had moved on is read again, never served from memory."""
    row = await commit(ledger, born("a"))
    assert row is not None
    moved = step_on(row, "hold", "held", "elsewhere")
    record = Record(99, 1, "incoming", b"a", "hold", "settling", "held", 2, "elsewhere", "n", 0)
    assert await watched._store.apply([(moved, record)], 0) == [True]
    assert await commit(ledger, step_on(row, "settle", "ready")) is None
    assert await row_of(ledger, key("a")) == moved.after


@pytest.mark.parametrize("when", ["before", "after"])
async def test_row_in_memory_is_dropped_after_an_error(
    ledger: Ledger, watched: Watched, when: str
) -> None:
    """After an error nobody knows whether the row moved on: it is read again."""
    row = await commit(ledger, born("a"))
    assert row is not None
    getattr(watched, when).append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await commit(ledger, step_on(row, "hold", "held"))
    found = await row_of(ledger, key("a"))
    assert found is not None
    assert found.state == ("held" if when == "after" else "settling")


async def test_row_that_moves(ledger: Ledger) -> None:
    """After a move the old path has no row, the new one has it."""
    row = await commit(ledger, born("old"))
    assert row is not None
    moved = await commit(ledger, step_on(row, "move", "settling", key=key("new")))
    assert await row_of(ledger, key("old")) is None
    assert await row_of(ledger, key("new")) == moved


async def test_numbers_are_counted_on(store: Store, journal: Journal) -> None:
    """A new ledger on the same database gives no number twice."""
    for name in ("a", "b"):
        ledger = Ledger(store, await store.last_ids(), journal)
        await commit(ledger, born(name))
    assert [(r.seq, r.file_id) for r in await store.owed(0, 9)] == [(1, 1), (2, 2)]


async def test_what_is_committed_is_counted(ledger: Ledger) -> None:
    """Each transition of a batch that won its race counts once, and a loser does not."""
    await ledger.commit([born("a"), born("b"), born("c")])
    row = await row_of(ledger, key("a"))
    assert row is not None
    won, lost = step_on(row, "settle", "ready"), step_on(row, "vanish", "gone", "a-2")
    assert await ledger.commit([won, lost]) == [won, None]
    assert ledger.committed == 4
