"""The journal: every committed transition has its line, whatever becomes of the output."""

import asyncio
import errno
import json
import os
from base64 import b64decode
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.core.model import Record, Refused, Row, Trigger
from daemon.engine.journal import Journal
from daemon.engine.output import Output
from daemon.errors import StoreUnavailable
from daemon.schema import faults_of_line
from daemon.store import Store
from daemon.store.rows import record_of_transition
from tests.engine.conftest import DEADLINE, born, journal_on, key, step_on, valid_lines


class Committer:
    """Commits as the ledger does: to the store, and then to the journal."""

    def __init__(self, store: Store, seq: int = 0) -> None:
        self._store = store
        self.seq = seq

    async def write(self, count: int = 1, name: str = "file") -> list[Record]:
        births = [born(f"{name}-{self.seq + n}", self.seq + n) for n in range(1, count + 1)]
        records = [record_of_transition(t, t.after.id) for t in births]
        assert all(await self._store.apply(list(zip(births, records, strict=True)), 0))
        self.seq += count
        return records

    async def commit(self, journal: Journal, count: int = 1) -> None:
        journal.committed(await self.write(count))


@pytest.fixture
def committer(store: Store) -> Committer:
    return Committer(store)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def ids(log: Path) -> list[int]:
    return [line["file_id"] for line in valid_lines(log) if "file_id" in line]


async def caught_up(journal: Journal) -> None:
    async with asyncio.timeout(DEADLINE):
        await journal.caught_up.wait()


class Refusing(Output):
    """An output that fails some times before it works."""

    def __init__(self, log: Path, number: int, times: int) -> None:
        super().__init__(os.open(log, os.O_WRONLY | os.O_CREAT), owned=True)
        self.number = number
        self.times = times

    async def write(self, chunk: bytes) -> None:
        if self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))
        await super().write(chunk)


async def test_owed_lines_come_first(store: Store, committer: Committer, log: Path) -> None:
    """What a former run still owed is written before what happens now, and nothing before it."""
    await committer.write(5)
    async with journal_on(Output.to(str(log)), store, position=2) as journal:
        await committer.commit(journal, 3)
    assert ids(log) == [3, 4, 5, 6, 7, 8]
    assert await store.journaled() == 8


async def test_many_owed_lines(store: Store, committer: Committer, log: Path) -> None:
    """More lines than one read of the database are owed: all come, while more is committed."""
    await committer.write(2_500)
    async with journal_on(Output.to(str(log)), store) as journal:
        for _ in range(20):
            await committer.commit(journal, 10)
    assert ids(log) == list(range(1, 2_701))


async def test_told_of_after_it_was_read(store: Store, committer: Committer, log: Path) -> None:
    """What was read back before its writer told of it has one line."""
    await committer.write(3)
    records = await store.owed(0, 9)
    async with journal_on(Output.to(str(log)), store) as journal:
        await caught_up(journal)
        journal.committed(records)
    assert ids(log) == [1, 2, 3]


async def test_every_commit_has_its_line(store: Store, committer: Committer, log: Path) -> None:
    """Each committed transition has one line, in order, and `close` writes all of them."""
    async with journal_on(Output.to(str(log)), store) as journal:
        for _ in range(100):
            await committer.commit(journal, 20)
    assert ids(log) == list(range(1, 2_001))


async def test_doubtful_commit(store: Store, committer: Committer, log: Path) -> None:
    """After a commit that ended in an error, what the database holds is written."""
    async with journal_on(Output.to(str(log)), store) as journal:
        await committer.commit(journal)
        await caught_up(journal)
        await committer.write(2)
        journal.doubtful()
        await committer.commit(journal)
        await caught_up(journal)
        journal.doubtful()
        await caught_up(journal)
    assert ids(log) == [1, 2, 3, 4]


async def test_stalled_reader(
    store: Store, committer: Committer, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody reads, memory is bounded; once somebody does, every line comes, in order."""
    monkeypatch.setattr("daemon.engine.journal.BUFFER", 300)
    monkeypatch.setattr("daemon.engine.journal.OWED_BATCH", 100)
    reader, writer = os.pipe()

    def drain() -> None:
        with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor
            log.write_bytes(pipe.read())

    async with journal_on(Output(writer, owned=True), store) as journal:
        for number in range(150):
            await committer.commit(journal, 20)
            journal.daemon("degraded", "warning", reason=f"{number}")
            assert journal._waiting <= 2 * 300 + 1
        assert not journal.caught_up.is_set()
        assert journal.position < 3_000
        reading = asyncio.create_task(asyncio.to_thread(drain))
        await caught_up(journal)
        assert journal.position == 3_000
    await reading
    assert ids(log) == list(range(1, 3_001))
    assert await store.journaled() == 3_000


async def test_dropped_lines_are_counted(
    store: Store, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that are in no database are dropped when nobody reads, and their number is told."""
    monkeypatch.setattr("daemon.engine.journal.BUFFER", 10)
    async with journal_on(Output.to(str(log)), store) as journal:
        for number in range(100):
            journal.daemon("degraded", "warning", reason=f"{number}")
        await caught_up(journal)
    lines = valid_lines(log)
    kept = [line for line in lines if "dropped" not in line]
    assert [line["dropped"] for line in lines if "dropped" in line] == [100 - len(kept)]
    assert [line["reason"] for line in kept] == [f"{number}" for number in range(len(kept))]


async def test_closed_pipe(store: Store, committer: Committer) -> None:
    """Without a reader the writing ends for good, the position stays, and nothing piles up."""
    reader, writer = os.pipe()
    async with journal_on(Output(writer, owned=True), store) as journal:
        os.close(reader)
        for _ in range(50):
            await committer.commit(journal, 10)
            journal.daemon("degraded", "warning", reason="x")
            await caught_up(journal)
        assert journal.error is not None
        assert journal.error.errno == errno.EPIPE
        assert (journal.position, journal._waiting) == (0, 0)
    assert await store.journaled() == 0


async def test_full_disk_of_the_log(
    store: Store, committer: Committer, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that cannot be written now is tried again; every line comes, and once."""
    monkeypatch.setattr("daemon.engine.journal.RETRY_SECONDS", 0.01)
    async with journal_on(Refusing(log, errno.ENOSPC, 5), store) as journal:
        await committer.commit(journal, 3)
        await caught_up(journal)
        assert journal.error is None
    assert ids(log) == [1, 2, 3]


async def test_database_that_is_away(
    store: Store, committer: Committer, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither reading what is owed nor storing the position fails for good."""
    monkeypatch.setattr("daemon.engine.journal.RETRY_SECONDS", 0.01)
    await committer.write(3)
    real_owed, real_mark, errors = store.owed, store.mark_journaled, [1, 2, 3, 4]

    async def owed(after_seq: int, limit: int) -> list[Record]:
        if len(errors) > 2 and errors.pop():
            raise StoreUnavailable
        return await real_owed(after_seq, limit)

    async def mark(seq: int) -> None:
        if errors and errors.pop():
            raise StoreUnavailable
        await real_mark(seq)

    monkeypatch.setattr(store, "owed", owed)
    monkeypatch.setattr(store, "mark_journaled", mark)
    async with journal_on(Output.to(str(log)), store):
        pass
    assert ids(log) == [1, 2, 3]
    assert (errors, await store.journaled()) == ([], 3)


async def test_level_leaves_lines_out(store: Store, committer: Committer, log: Path) -> None:
    """Lines below the level are not written, and the position passes them all the same."""
    async with journal_on(Output.to(str(log)), store, level="warning") as journal:
        await committer.commit(journal, 3)
        await caught_up(journal)
        assert journal.position == 3
        journal.daemon("ready", watches=1)
        journal.daemon("root_lost", "error", watch="w", path="/x", reason="gone")
    assert [line["event"] for line in valid_lines(log)] == ["daemon.root_lost"]
    assert await store.journaled() == 3


async def test_level_of_a_state(store: Store, log: Path) -> None:
    """A failure is a warning, a quarantine an error, everything else is info."""
    rows = [Row(n, key(f"{n}"), "processing", 1) for n in range(1, 4)]
    transitions = [
        step_on(rows[0], "succeed", "done"),
        step_on(rows[1], "fail", "failed", due_at=1_000_001),
        step_on(rows[2], "reject", "quarantined"),
    ]
    async with journal_on(Output.to(str(log)), store, position=0) as journal:
        await caught_up(journal)
        journal.committed([record_of_transition(t, n) for n, t in enumerate(transitions, 1)])
    lines = valid_lines(log)
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[1]["due_at"] == "1970-01-01T00:00:01.000001Z"


async def test_position_is_stored_when_quiet(
    store: Store, committer: Committer, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no commit takes the position along, it is stored by itself, and only once."""
    marked: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr("daemon.engine.journal.MARK_SECONDS", 0.01)
    real = store.mark_journaled

    async def mark(seq: int) -> None:
        await real(seq)
        marked.put_nowait(seq)

    monkeypatch.setattr(store, "mark_journaled", mark)
    async with journal_on(Output.to(str(log)), store) as journal:
        await committer.commit(journal, 3)
        assert await marked.get() == 3
        assert await store.journaled() == 3
    assert marked.empty()


async def test_refused_and_failed(store: Store, log: Path) -> None:
    """A refused attempt names its guard, a failed one its error; neither has a transition."""
    row = Row(7, key(b"x\xff"), "settling", 3)
    trigger = Trigger(row.key, "start", "operator")
    async with journal_on(Output.to(str(log)), store) as journal:
        journal.refused(trigger, row, Refused("no_edge", "why"), "a-1")
        journal.failed(Trigger(key("y"), "look", "hint"), Row(0, key("y")), "boom", "a-2")
        assert journal.position == 0
    refused, failed = valid_lines(log)
    expected = {"outcome": "rejected", "guard": "no_edge", "guard_result": False, "error": "why"}
    expected |= {"file_id": 7, "from_state": "settling", "to_state": "settling", "version": 3}
    expected |= {"path": "x\\xff", "path_b64": "eP8=", "cause": "operator", "node": "node"}
    assert {name: refused[name] for name in expected} == expected
    assert (failed["outcome"], failed["error"]) == ("failed", "boom")
    assert (failed["file_id"], failed["level"]) == (None, "error")


async def test_ignored_is_said_once(store: Store, log: Path) -> None:
    """A name that is no regular file is said once, at debug only."""
    async with journal_on(Output.to(str(log)), store) as journal:
        for _ in range(3):
            journal.ignored(key(b"pipe\xff"), "other")
    (line,) = valid_lines(log)
    assert (line["event"], line["level"]) == ("daemon.ignored", "debug")
    assert b64decode(line["path_b64"]) == b"pipe\xff"
    async with journal_on(Output.to(str(log)), store, level="info") as journal:
        journal.ignored(key("pipe"), "other")
    assert len(valid_lines(log)) == 1


async def test_lines_about_the_daemon(store: Store, log: Path) -> None:
    """A line about the daemon has its name, node and fields, and moves no position."""
    async with journal_on(Output.to(str(log)), store) as journal:
        journal.daemon("started", version="1", pid=2)
    (line,) = valid_lines(log)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "daemon.started",
        "node": "node",
        "version": "1",
        "pid": 2,
    }


async def test_line_of_a_moved_file(store: Store, log: Path) -> None:
    """A move names both paths, each exact where it is not UTF-8."""
    move = step_on(Row(1, key(b"old\xff"), "done", 1), "move", "done", key=key("new"))
    async with journal_on(Output.to(str(log)), store) as journal:
        await caught_up(journal)
        journal.committed([record_of_transition(move, 1)])
    (line,) = valid_lines(log)
    assert (line["path"], line["old_path"], line["old_path_b64"]) == ("new", "old\\xff", "b2xk/w==")


async def test_two_journals_do_not_share_a_stream(store: Store, tmp_path: Path) -> None:
    """Each journal writes to the output that it was given."""
    first, second = tmp_path / "first", tmp_path / "second"
    async with (
        journal_on(Output.to(str(first)), store) as one,
        journal_on(Output.to(str(second)), store) as two,
    ):
        one.daemon("ready", watches=1)
        two.daemon("ready", watches=2)
    assert [json.loads(path.read_text())["watches"] for path in (first, second)] == [1, 2]


def test_check_of_lines_is_awake() -> None:
    """The check that the tests of this folder rely on finds what is wrong."""
    line: dict[str, Any] = {"event": "daemon.ready", "level": "loud", "watches": 1, "more": 1}
    faults = faults_of_line(cast("Any", line))
    assert len(faults) == 4


async def test_lines_that_were_rendered_ahead(
    store: Store, committer: Committer, log: Path
) -> None:
    """Lines made before the commit are those that come after it; without a commit none comes."""
    async with journal_on(Output.to(str(log)), store) as journal:
        await caught_up(journal)
        records = await committer.write(3)
        lines = journal.render(records)
        await caught_up(journal)
        assert journal._waiting == 0
        assert ids(log) == []
        journal.committed(records, lines)
        await caught_up(journal)
        assert ids(log) == [1, 2, 3]
    assert await store.journaled() == 3


async def test_rendered_ahead_and_read_back_meanwhile(
    store: Store, committer: Committer, log: Path
) -> None:
    """What was read back from the database before its commit was told of has one line."""
    async with journal_on(Output.to(str(log)), store) as journal:
        await caught_up(journal)
        lines = journal.render(records := await committer.write(2))
        journal.doubtful()
        await caught_up(journal)
        journal.committed(records, lines)
        await committer.commit(journal)
        await caught_up(journal)
    assert ids(log) == [1, 2, 3]
