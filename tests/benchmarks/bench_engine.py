"""Committed transitions per second: the engine, beside the naive way and beside the raw limit.

    python tests/benchmarks/bench_engine.py [repeats]

All run in the same process one after the other, on the same file system, with
`synchronous=FULL` and the same tables, at 10, 100 and 1,000 transitions in flight.

* engine: the real pipeline with lock map, look at the disk, decision, ledger, JSON line.
* handlers: files that are ready, as the daemon serves them: dispatcher, inbox, pipeline, a handler
  in the process that has nothing to do, and the look after its outcome; so many at once as are in
  flight. Two transitions a file.
* floor: the ledger's own batches through aiosqlite's thread, one after the other, and nothing else:
  what is left of the raw limit when statements, the way to a thread and back are paid for.
* naive: a fresh aiosqlite connection for the guard, the read and the write of each transition, and
  a fresh python-statemachine instance; a lock a file, a JSON line.
* raw: nothing but sqlite3's `executemany` in one thread, as many rows a commit as are in flight.
"""

import asyncio
import gc
import json
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import aiosqlite
from msgspec.structs import fields
from statemachine import State, StateMachine

from daemon.cli.harness import open_rig
from daemon.config import Settle, Watch
from daemon.config_steps import CommandStep
from daemon.core.model import Fingerprint, Key, Record, Row, Transition, Trigger
from daemon.handlers import Job, Outcome
from daemon.store.opening import open_store
from daemon.store.queries import FILE_COLUMNS, for_rows, load_migrations, load_queries
from daemon.store.rows import record_of_transition, record_values, row_values

SQL = load_queries("queries.sql")
# Watch and path are the file's.
INSERT = for_rows(SQL["insert_transitions"], 1, len(fields(Record)) - len(Key._fields))
# What a transition changes of its row, as one plain statement for each of many rows.
_MOVED = " = ?, ".join(FILE_COLUMNS.split(", ")[4:])
UPDATE = f"UPDATE files SET {_MOVED} = ? WHERE id = ? AND version = ?"  # noqa: S608 - our columns
IN_FLIGHT = (10, 100, 1000)


def transitions_for(in_flight: int, base: int) -> int:
    """Enough for about a second, and a whole number of rounds."""
    return max(base // in_flight, 4) // 2 * 2 * in_flight


async def engine(folder: Path, in_flight: int) -> float:
    """Hold and release `in_flight` files, each as fast as its last transition is committed."""
    tree = folder / "tree"
    tree.mkdir()
    watch = Watch(name="bench", path=tree, settle=Settle(quiet=3600.0))
    total = transitions_for(in_flight, 20_000)
    async with open_rig(folder, watch) as rig:
        keys = [rig.write(f"f{number}") for number in range(in_flight)]
        await asyncio.gather(*(rig.send(key, "look") for key in keys))

        async def drive(key: Key) -> None:
            for _ in range(total // in_flight // 2):
                await rig.service.pipeline.handle(Trigger(key, "hold", "test"))
                await rig.service.pipeline.handle(Trigger(key, "release", "test"))

        began = time.perf_counter()
        await asyncio.gather(*(drive(key) for key in keys))
        took = time.perf_counter() - began
        assert (await rig.row(keys[-1])).version == 1 + total // in_flight
    return total / took


class Idle:
    """A handler that has nothing to do."""

    async def run(self, _: Job) -> Outcome:
        return Outcome("success")

    async def close(self) -> None:
        pass


async def handlers(folder: Path, in_flight: int) -> float:
    """From the first start until the last file is done; all of them were ready before."""
    tree = folder / "tree"
    tree.mkdir()
    step = CommandStep(name="load", command=("true",), concurrency=in_flight)
    watch = Watch(name="bench", path=tree, settle=Settle(quiet=0.0), step=(step,))
    files = transitions_for(in_flight, 20_000) // 2
    async with open_rig(folder, watch) as rig:
        service = rig.service
        service.dispatcher.add(service.trees["bench"], {"load": Idle()})
        for number in range(files):
            await service.inbox.offer(Trigger(rig.write(f"f{number}"), "look", "scan"))
        await service.inbox.idle()
        before = service.ledger.committed
        began = time.perf_counter()
        dispatching = asyncio.create_task(service.dispatcher.run())
        while service.ledger.committed < before + 2 * files:
            await rig.journal.news.wait()
            rig.journal.news.clear()
        took = time.perf_counter() - began
        dispatching.cancel()
    return 2 * files / took


class Naive(StateMachine):
    """The two states that the benchmark moves between; the guard asks the database."""

    settling = State(initial=True, value="settling")
    held = State(value="held")
    hold = settling.to(held, cond="allowed")
    release = held.to(settling, cond="allowed")

    def __init__(self, database: Path, file_id: int, state: str) -> None:
        self.database = database
        self.file_id = file_id
        super().__init__(start_value=state)

    async def allowed(self) -> bool:
        async with aiosqlite.connect(self.database) as db:
            cursor = await db.execute("SELECT state FROM files WHERE id = ?", (self.file_id,))
            return await cursor.fetchone() is not None


async def naive_transition(database: Path, file_id: int, event: str, log: list[str]) -> None:
    async with aiosqlite.connect(database) as db:
        cursor = await db.execute("SELECT state, version FROM files WHERE id = ?", (file_id,))
        row = await cursor.fetchone()
    assert row is not None
    machine = Naive(database, file_id, row[0])
    await machine.activate_initial_state()
    await machine.send(event)
    state = str(machine.current_state_value)
    async with aiosqlite.connect(database, timeout=60) as db:
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute(
            "UPDATE files SET state = ?, version = version + 1 WHERE id = ? AND version = ?",
            (state, file_id, row[1]),
        )
        await db.execute(
            "INSERT INTO transitions (file_id, trigger, from_state, to_state, version, attempt_id,"
            " node, at) VALUES (?, ?, ?, ?, ?, '', 'bench', ?)",
            (file_id, event, row[0], state, row[1] + 1, time.time_ns() // 1000),
        )
        await db.commit()
    log.append(json.dumps({"event": event, "file_id": file_id, "to_state": state}))


async def naive(folder: Path, in_flight: int) -> float:
    database = prepared(folder, in_flight)
    total = transitions_for(in_flight, 200)
    locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
    log: list[str] = []

    async def drive(file_id: int) -> None:
        for number in range(total // in_flight):
            async with locks[file_id]:
                event = "release" if number % 2 else "hold"
                await naive_transition(database, file_id, event, log)

    # Each transition opens a database, its log and its index: as many as descriptors allow.
    gate = asyncio.Semaphore(descriptors() // 4)

    async def gated(file_id: int) -> None:
        async with gate:
            await drive(file_id)

    began = time.perf_counter()
    await asyncio.gather(*(gated(number + 1) for number in range(in_flight)))
    return total / (time.perf_counter() - began)


def descriptors() -> int:
    """As many descriptors as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 16_384)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def prepared(folder: Path, in_flight: int) -> Path:
    """A database with the real tables and `in_flight` rows in `settling`."""
    database = folder / "bench.db"
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA journal_mode = WAL")
        migrations = load_migrations()
        for script in migrations:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        rows = [row_values(row_at(n + 1, 1)) for n in range(in_flight)]
        db.executemany(for_rows(SQL["insert_files_if_new"], 1, len(rows[0])), rows)
    db.close()
    return database


def row_at(number: int, version: int) -> Row:
    seen = Fingerprint(
        100, 1_700_000_000_000_000_000 + number, 1_700_000_000_000_000_000, number, 1
    )
    state = "settling" if version % 2 else "held"
    due = time.time_ns() // 1000 if version % 2 else None
    key = Key("bench", b"f%d" % number)
    return Row(number, key, state, version, seen=seen, at=time.time_ns() // 1000, due_at=due)  # type: ignore[arg-type]


def batches(in_flight: int, total: int) -> Iterator[list[tuple[Transition, Record]]]:
    """All files hold or release, again and again, each time as one batch."""
    seq = 0
    for version in range(2, total // in_flight + 2):
        batch = []
        for number in range(1, in_flight + 1):
            seq += 1
            before, after = row_at(number, version - 1), row_at(number, version)
            moved = Transition(before, after, "hold", "0123456789", "bench", cause="test")
            batch.append((moved, record_of_transition(moved, seq)))
        yield batch


async def floor(folder: Path, in_flight: int) -> float:
    prepared(folder, in_flight).rename(folder / "treewarden.db")
    total = transitions_for(in_flight, 40_000)
    took = 0.0
    async with open_store("sqlite", folder) as store:
        for batch in batches(in_flight, total):
            began = time.perf_counter()
            assert all(await store.apply(batch, 0))
            took += time.perf_counter() - began
    return total / took


async def raw(folder: Path, in_flight: int) -> float:
    database = prepared(folder, in_flight)
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    total = transitions_for(in_flight, 60_000)
    took = 0.0
    for batch in batches(in_flight, total):
        rows = [(*row_values(t.after)[4:], t.before.id, t.before.version) for t, _ in batch]
        records = [record_values(record) for _, record in batch]
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(UPDATE, rows)
        db.executemany(INSERT, records)
        db.execute("COMMIT")
        took += time.perf_counter() - began
    db.close()
    return total / took


def measure(way: Callable[[Path, int], object], in_flight: int) -> float:
    # The machines of the naive way leave cycles behind; nobody else is to collect them.
    gc.collect()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        return float(asyncio.run(way(Path(folder), in_flight)))  # type: ignore[arg-type]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    ways = (engine, naive, raw, handlers, floor)
    titles = "".join(f"{way.__name__ + '/s':>17}" for way in ways)
    print(f"in flight{titles}  x naive  % raw  % floor")
    for in_flight in IN_FLIGHT:
        runs = [[measure(way, in_flight) for way in ways] for _ in range(repeats)]
        columns = list(zip(*runs, strict=True))
        medians = [statistics.median(column) for column in columns]
        shown = [
            f"{m:,.0f} ±{(max(c) - min(c)) / 2:,.0f}" for m, c in zip(medians, columns, strict=True)
        ]
        times, share = medians[0] / medians[1], 100 * medians[0] / medians[2]
        columns_shown = "".join(f"{text:>17}" for text in shown)
        of_floor = 100 * medians[0] / medians[4]
        print(f"{in_flight:>9}{columns_shown} {times:>8.0f} {share:>6.1f} {of_floor:>8.1f}")


if __name__ == "__main__":
    main()
