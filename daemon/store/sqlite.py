"""The store in one SQLite file: write-ahead log, every commit on the disk before it is told.

Two connections, each in its own thread: the writer's, which waits for the disk, and the reader's,
which does not have to wait for the writer. Both belong to this object alone.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import aiosqlite

from daemon.core.model import Key, Record, Row, Transition
from daemon.errors import StoreLost, StoreTooNew, StoreUnavailable
from daemon.store import Known, LastIds, StateCount, WatchMark
from daemon.store.queries import for_rows, load_migrations, load_queries
from daemon.store.rows import Values, record_of, row_of
from daemon.store.writing import apply, note_ctimes

SQL = load_queries("queries.sql")
MIGRATIONS = load_migrations()
# How long a statement waits for another process's lock before the engine is told and waits instead.
BUSY_MS = 250
# Statements are prepared for these numbers of paths only, so that the statement cache hits.
_KEY_CHUNKS = (1, 8, 64, 512)
# Rows in memory that a scan compares at once.
_ENOUGH = 20_000
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

    One hop a transaction instead of one a statement, and nobody can be cancelled between BEGIN
    and COMMIT.
    """

    async def call(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
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
                await writer.call(partial(_prepare, path))
                reader = await connections.enter_async_context(_connect(path))
                await reader.call(lambda db: db.execute("PRAGMA query_only = ON").close())
            yield cls(path, writer, reader)

    async def last_ids(self) -> LastIds:
        """See `Store`."""
        ((file_id, seq, journaled),) = await self._read("select_last_ids")
        return LastIds(file_id, max(seq, journaled))

    async def apply(self, batch: Sequence[tuple[Transition, Record]], journaled: int) -> list[bool]:
        """See `Store`."""
        with _unavailable(self._path):
            return await self._writer.call(partial(self._apply, batch, journaled))

    async def rows(self, keys: Sequence[Key]) -> list[Row | None]:
        """See `Store`."""
        found: dict[Key, Row] = {}
        waiting = iter(keys)
        while chunk := list(islice(waiting, _KEY_CHUNKS[-1])):
            size = next(n for n in _KEY_CHUNKS if n >= len(chunk))
            named = [(key.watch, key.directory, key.name) for key in chunk]
            padded = [*named, *[_NO_KEY] * (size - len(chunk))]
            sql = for_rows(SQL["select_files_by_path"], size, len(_NO_KEY))
            values = [value for key in padded for value in key]
            found.update((row.key, row) for row in map(row_of, await self._fetch(sql, values)))
        return [found.get(key) for key in keys]

    async def known(
        self, watch: str, directories: Sequence[bytes], *, by_content: bool = False
    ) -> list[dict[bytes, Known]]:
        """See `Store`."""
        sql = SQL["select_known_by_content" if by_content else "select_known"]
        with _unavailable(self._path):
            return await self._reader.call(partial(_known, sql, watch, directories))

    async def directories(self, watch: str, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """See `Store`."""
        found = await self._read("select_directories", watch, first, end, watch, end, limit)
        return [directory for (directory,) in found]

    async def named(
        self, watch: str, directory: bytes, first: bytes, end: bytes, limit: int
    ) -> list[Row]:
        """See `Store`."""
        found = await self._read("select_named", watch, directory, first, end, limit)
        return [row_of(values) for values in found]

    async def by_inode(self, inodes: Sequence[int]) -> list[Row]:
        """See `Store`."""
        found = await self._read("select_files_by_inode", json.dumps(list(inodes)))
        return [row_of(values) for values in found]

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

    async def counts(self) -> list[StateCount]:
        """See `Store`."""
        return [StateCount(*values) for values in await self._read("select_counts")]

    async def any_below(self, keys: Sequence[Key]) -> list[bool]:
        """See `Store`."""
        with _unavailable(self._path):
            return await self._reader.call(lambda db: [_has_below(db, key) for key in keys])

    async def due(
        self, watches: Sequence[str], before: int, set_after: int | None, limit: int
    ) -> list[Row]:
        """See `Store`."""
        names = json.dumps(list(watches))
        if set_after is None:
            found = await self._read("select_due", before, names, limit)
        else:
            found = await self._read("select_due_or_set_after", before, set_after, names, limit)
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

    async def live(self, watch: str) -> int:
        """See `Store`."""
        ((files,),) = await self._read("count_live", watch)
        return int(files)

    async def root(self, watch: str) -> str | None:
        """See `Store`."""
        found = await self._read("select_root", watch)
        return found[0][0] if found else None

    async def keep_root(self, watch: str, root: str) -> None:
        """See `Store`."""
        await self._write("set_root", root, watch)

    async def keep_detection(self, watch: str, detection: str) -> None:
        """See `Store`."""
        await self._write("set_detection", detection, watch)

    async def note_ctimes(self, rows: Sequence[Row]) -> None:
        """See `Store`."""
        with _unavailable(self._path):
            await self._writer.call(lambda db: note_ctimes(db, rows))

    async def ping(self) -> None:
        """See `Store`."""
        with _unavailable(self._path):
            await self._reader.call(self._see)

    def _see(self, db: sqlite3.Connection) -> None:
        """SQLite goes on writing into an unlinked file as if nothing had happened."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if inode != self._inode:
            raise StoreLost(f"{self._path}: the database was removed or replaced while it was open")
        db.execute("SELECT 1").close()

    def _apply(
        self, batch: Sequence[tuple[Transition, Record]], journaled: int, db: sqlite3.Connection
    ) -> list[bool]:
        self._see(db)
        return apply(db, batch, journaled)

    async def _write(self, name: str, *values: object) -> None:
        with _unavailable(self._path):
            await self._writer.call(lambda db: db.execute(SQL[name], values).close())

    async def _read(self, name: str, *values: object) -> list[Values]:
        return await self._fetch(SQL[name], values)

    async def _fetch(self, sql: str, values: Sequence[object]) -> list[Values]:
        with _unavailable(self._path):
            return await self._reader.call(lambda db: db.execute(sql, tuple(values)).fetchall())


def _known(
    sql: str, watch: str, directories: Sequence[bytes], db: sqlite3.Connection
) -> list[dict[bytes, Known]]:
    found: list[dict[bytes, Known]] = []
    rows = 0
    for directory in directories:
        read = db.execute(sql, (watch, directory)).fetchall()
        found.append({row[0]: Known._make(row[1:]) for row in read})
        rows += len(read)
        if rows > _ENOUGH:
            break
    return found


def _has_below(db: sqlite3.Connection, key: Key) -> bool:
    watch, path = key
    bounds = (watch, path, watch, path + b"/", path + b"0")
    ((found,),) = db.execute(SQL["exists_below"], bounds).fetchall()
    return bool(found)


@asynccontextmanager
async def _connect(path: Path) -> AsyncIterator[_Connection]:
    connect = partial(sqlite3.connect, path, isolation_level=None, cached_statements=256)
    db = _Connection(connect, iter_chunk_size=64)
    async with db:
        await db.call(_configure)
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
