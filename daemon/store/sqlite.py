"""The store in one SQLite file: write-ahead log, every commit on the disk before it is told.

Two connections, each in its own thread: the writer's, which waits for the disk, and the reader's,
which does not have to wait for the writer. Both belong to this object alone.
"""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import aiosqlite

from daemon.core.model import Key, Record, Row, Transition
from daemon.errors import StoreTooNew, StoreUnavailable
from daemon.store import LastIds, WatchMark
from daemon.store.queries import load_migrations, load_queries
from daemon.store.rows import Values, record_of, record_values, row_of, row_values

SQL = load_queries("queries.sql")
MIGRATIONS = load_migrations()
# How long a statement waits for another process's lock before the engine is told and waits instead.
BUSY_MS = 250
# Statements are prepared for these numbers of paths only, so that the statement cache hits.
_KEY_CHUNKS = (1, 8, 64, 512)
_NO_KEY: Values = (None, None, None)
Answer = TypeVar("Answer")


@contextmanager
def _unavailable(path: Path) -> Iterator[None]:
    """Turn the errors of a database that may come back into `StoreUnavailable`."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreUnavailable(f"{path}: {error}") from error


class _Connection(aiosqlite.Connection):
    """A connection that runs a whole function in its thread.

    One hop a transaction instead of one a statement (7 us a row against 20 at ten in flight), and
    nobody can be cancelled between BEGIN and COMMIT.
    """

    async def run(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Call `work` with the connection, in the connection's thread."""
        answer: Answer = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return answer


class SqliteStore:
    """Implements `Store`. Make one with `open`."""

    def __init__(self, path: Path, writer: _Connection, reader: _Connection) -> None:
        self._path = path
        self._inode = path.stat().st_ino
        self._writer = writer
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["SqliteStore"]:
        """Open, create or migrate the file at `path`; close both connections on the way out.

        Raises:
            StoreTooNew: a newer treewarden wrote it.
            StoreUnavailable: it cannot be opened, or is no database.
        """
        async with AsyncExitStack() as connections:
            with _unavailable(path):
                writer = await connections.enter_async_context(_connect(path))
                await writer.run(partial(_prepare, path))
                reader = await connections.enter_async_context(_connect(path))
                await reader.run(lambda db: db.execute("PRAGMA query_only = ON").close())
            yield cls(path, writer, reader)

    async def last_ids(self) -> LastIds:
        """See `Store`."""
        ((file_id, seq, journaled),) = await self._read("select_last_ids")
        return LastIds(file_id, max(seq, journaled))

    async def apply(self, batch: Sequence[tuple[Transition, Record]], journaled: int) -> list[bool]:
        """See `Store`."""
        with _unavailable(self._path):
            return await self._writer.run(partial(_apply, batch, journaled))

    async def rows(self, keys: Sequence[Key]) -> list[Row | None]:
        """See `Store`."""
        found: dict[Key, Row] = {}
        waiting = iter(keys)
        while chunk := list(islice(waiting, _KEY_CHUNKS[-1])):
            size = next(n for n in _KEY_CHUNKS if n >= len(chunk))
            named = [(key.watch, key.directory, key.name) for key in chunk]
            padded = [*named, *[_NO_KEY] * (size - len(chunk))]
            sql = SQL["select_files_by_path"].replace("{values}", ", ".join(["(?, ?, ?)"] * size))
            values = [value for key in padded for value in key]
            found.update((row.key, row) for row in map(row_of, await self._fetch(sql, values)))
        return [found.get(key) for key in keys]

    async def directory(self, watch: str, directory: bytes) -> list[Row]:
        """See `Store`."""
        return [row_of(values) for values in await self._read("select_directory", watch, directory)]

    async def next_directory(self, watch: str, after: bytes, end: bytes) -> bytes | None:
        """See `Store`."""
        found = await self._read("select_next_directory", watch, after, end)
        return found[0][0] if found else None

    async def ready(self, watch: str, step: str, limit: int) -> list[Row]:
        """See `Store`."""
        return [row_of(values) for values in await self._read("select_ready", watch, step, limit)]

    async def in_state(self, state: str, watch: str, after_id: int, limit: int) -> list[Row]:
        """See `Store`."""
        found = await self._read("select_in_state", state, watch, after_id, limit)
        return [row_of(values) for values in found]

    async def stranded(self, watch: str, steps: Sequence[str]) -> list[Row]:
        """See `Store`."""
        found = await self._read("select_stranded", watch, json.dumps(list(steps)))
        return [row_of(values) for values in found]

    async def due(self, before: int, set_after: int, limit: int) -> list[Row]:
        """See `Store`."""
        found = await self._read("select_due", before, set_after, limit)
        return [row_of(values) for values in found]

    async def owed(self, after_seq: int, limit: int) -> list[Record]:
        """See `Store`."""
        return [record_of(values) for values in await self._read("select_owed", after_seq, limit)]

    async def journaled(self) -> int:
        """See `Store`."""
        ((seq,),) = await self._read("select_journal")
        return int(seq)

    async def mark_journaled(self, seq: int) -> None:
        """See `Store`."""
        await self._write("advance_journal", seq, seq)

    async def mark_watch(self, name: str, now: int) -> WatchMark:
        """See `Store`."""
        await self._write("insert_watch_if_new", name, now)
        ((first_seen, adopted),) = await self._read("select_watch", name)
        return WatchMark(first_seen, bool(adopted))

    async def mark_adopted(self, name: str) -> None:
        """See `Store`."""
        await self._write("set_watch_adopted", name)

    async def ping(self) -> None:
        """See `Store`. SQLite goes on writing into an unlinked file as if nothing had happened."""
        with _unavailable(self._path):
            stat = await asyncio.to_thread(self._path.stat)
            if stat.st_ino != self._inode:
                raise StoreUnavailable(f"{self._path}: another file has taken its place")
        await self._fetch("SELECT 1", ())

    async def _write(self, name: str, *values: object) -> None:
        with _unavailable(self._path):
            await self._writer.run(lambda db: db.execute(SQL[name], values).close())

    async def _read(self, name: str, *values: object) -> list[Values]:
        return await self._fetch(SQL[name], values)

    async def _fetch(self, sql: str, values: Sequence[object]) -> list[Values]:
        with _unavailable(self._path):
            return await self._reader.run(lambda db: db.execute(sql, tuple(values)).fetchall())


def _apply(
    batch: Sequence[tuple[Transition, Record]], journaled: int, db: sqlite3.Connection
) -> list[bool]:
    """The whole batch at once; one by one only after somebody lost a race."""
    with _transaction(db):
        if _apply_all(db, batch):
            written = [True] * len(batch)
        else:
            db.execute("ROLLBACK")
            db.execute("BEGIN IMMEDIATE")
            written = [_apply_one(db, *pair) for pair in batch]
        _count(db, [pair[0] for pair, ok in zip(batch, written, strict=True) if ok])
        db.execute(SQL["advance_journal"], (journaled, journaled))
        return [ok or _is_there(db, t) for (t, _), ok in zip(batch, written, strict=True)]


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk rolls back by itself; only then is there nothing to roll back.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _apply_all(db: sqlite3.Connection, batch: Sequence[tuple[Transition, Record]]) -> bool:
    """Write it all; False if a row had moved on, and then the caller rolls back."""
    new = [row_values(t.after) for t, _ in batch if t.before.version == 0]
    known = [_update_values(t) for t, _ in batch if t.before.version]
    moved = [_path_values(t.after) for t, _ in batch if t.before.key != t.after.key]
    if new and _changed(db, "insert_file_if_new", new) != len(new):
        return False
    if known and _changed(db, "update_file_if_version", known) != len(known):
        return False
    if moved:
        _changed(db, "rename_file_if_version", moved)
    _changed(db, "insert_transition", (record_values(record) for _, record in batch))
    return True


def _apply_one(db: sqlite3.Connection, transition: Transition, record: Record) -> bool:
    after = transition.after
    if transition.before.version:
        changed = _changed(db, "update_file_if_version", [_update_values(transition)])
    else:
        changed = _changed(db, "insert_file_if_new", [row_values(after)])
    if not changed:
        return False
    if transition.before.key != after.key:
        _changed(db, "rename_file_if_version", [_path_values(after)])
    _changed(db, "insert_transition", [record_values(record)])
    return True


def _is_there(db: sqlite3.Connection, transition: Transition) -> bool:
    """This very attempt was committed before, though nobody was told."""
    after = transition.after
    attempt = (after.id, after.version, transition.attempt_id)
    return db.execute(SQL["find_transition"], attempt).fetchone() is not None


def _count(db: sqlite3.Connection, written: Sequence[Transition]) -> None:
    """Keep the counts by state in step with what was just written."""
    moves: Counter[tuple[str, str]] = Counter()
    for transition in written:
        after, before = transition.after, transition.before
        moves[after.key.watch, after.state] += 1
        if before.version:
            moves[before.key.watch, before.state] -= 1
    _changed(db, "add_to_count", [(*where, by) for where, by in moves.items() if by])


def _update_values(transition: Transition) -> Values:
    """In the order of `update_file_if_version`."""
    return (*row_values(transition.after)[4:], transition.before.id, transition.before.version)


def _path_values(row: Row) -> Values:
    """In the order of `rename_file_if_version`."""
    return (*row_values(row)[1:4], row.id, row.version)


def _changed(db: sqlite3.Connection, name: str, values: Iterable[Values]) -> int:
    """Run one statement for each of the values; the number of rows changed in all."""
    return db.executemany(SQL[name], values).rowcount


@asynccontextmanager
async def _connect(path: Path) -> AsyncIterator[_Connection]:
    connect = partial(sqlite3.connect, path, isolation_level=None, cached_statements=256)
    db = _Connection(connect, iter_chunk_size=64)
    async with db:
        await db.run(_configure)
        yield db


def _configure(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}").close()
    db.execute("PRAGMA synchronous = FULL").close()


def _prepare(path: Path, db: sqlite3.Connection) -> None:
    """Write-ahead log on, and every migration that this file has not had, each in a transaction."""
    ((version,),) = db.execute("PRAGMA user_version").fetchall()
    if version > len(MIGRATIONS):
        raise StoreTooNew(
            f"{path} has schema version {version}, written by a newer treewarden; this one knows "
            f"up to {len(MIGRATIONS)}. Install that newer version, or use another state_dir"
        )
    db.execute("PRAGMA journal_mode = WAL").close()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
