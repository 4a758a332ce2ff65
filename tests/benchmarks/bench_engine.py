"""Committed transitions per second: the engine, beside the naive way and beside the raw limit.

    python tests/benchmarks/bench_engine.py [repeats]

All three run in the same process one after the other, on the same file system, with
`synchronous=FULL` and the same tables, at 10, 100 and 1,000 transitions in flight.

* engine: the real pipeline with lock map, look at the disk, decision, ledger, JSON line.
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
from collections.abc import Callable
from pathlib import Path

import aiosqlite
from statemachine import State, StateMachine

from daemon.cli.harness import open_rig
from daemon.config import Settle, Watch
from daemon.core.model import Fingerprint, Key, Row, Transition, Trigger
from daemon.store.queries import FILE_COLUMNS, for_rows, load_migrations, load_queries
from daemon.store.rows import record_of_transition, record_values, row_values

SQL = load_queries("queries.sql")
INSERT = for_rows(SQL["insert_transitions"], 1, 19)
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
        for script in load_migrations():
            db.executescript(script)
        db.executemany(
            for_rows(SQL["insert_files_if_new"], 1, FILE_COLUMNS.count(",") + 1),
            [row_values(row_at(n + 1, 1)) for n in range(in_flight)],
        )
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


async def raw(folder: Path, in_flight: int) -> float:
    database = prepared(folder, in_flight)
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    total = transitions_for(in_flight, 60_000)
    rounds = total // in_flight
    seq = 0
    took = 0.0
    for version in range(2, rounds + 2):
        batch = []
        for number in range(1, in_flight + 1):
            seq += 1
            before, after = row_at(number, version - 1), row_at(number, version)
            moved = Transition(before, after, "hold", "0123456789", "bench", cause="test")
            row = (*row_values(after)[4:], before.id, before.version)
            batch.append((row, record_values(record_of_transition(moved, seq))))
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(UPDATE, [row for row, _ in batch])
        db.executemany(INSERT, [record for _, record in batch])
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
    print("in flight           engine/s            naive/s              raw/s  x naive  % raw")
    for in_flight in IN_FLIGHT:
        runs = [[measure(way, in_flight) for way in (engine, naive, raw)] for _ in range(repeats)]
        columns = list(zip(*runs, strict=True))
        medians = [statistics.median(column) for column in columns]
        shown = [
            f"{m:,.0f} ±{(max(c) - min(c)) / 2:,.0f}" for m, c in zip(medians, columns, strict=True)
        ]
        times, share = medians[0] / medians[1], 100 * medians[0] / medians[2]
        columns_shown = "".join(f"{text:>19}" for text in shown)
        print(f"{in_flight:>9}{columns_shown} {times:>8.0f} {share:>6.1f}")


if __name__ == "__main__":
    main()
