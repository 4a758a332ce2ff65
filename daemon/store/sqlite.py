"""The store in one SQLite file: write-ahead log, every commit on the disk before it is told.

Two connections, each in its own thread: the writer's, which waits for the disk, and the reader's,
which does not have to wait for the writer. Both belong to this object alone.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from daemon.core.model import Key, Record, Row, Transition
from daemon.errors import StoreLost
from daemon.store import (
    Access,
    Known,
    LastIds,
    Queue,
    StateCount,
    StepCount,
    WatchMark,
    reading,
)
from daemon.store.connection import Connection, connect, migrate, unavailable
from daemon.store.queries import for_rows, load_queries
from daemon.store.rows import Values, record_of, row_of
from daemon.store.writing import Batch, apply, make_ready, note_ctimes

SQL = load_queries("queries.sql")
# Statements are prepared for these numbers of paths only, so that the statement cache hits.
_KEY_CHUNKS = (1, 8, 64, 512)
_NO_KEY: Values = (None, None, None)
Answer = TypeVar("Answer")


class SqliteStore:
    """Implements `Store`. Make one with `open`."""

    def __init__(self, path: Path, writer: Connection, reader: Connection) -> None:
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
            with unavailable(path):
                writer = await connections.enter_async_context(connect(path))
                await writer.call(partial(migrate, path))
                reader = await connections.enter_async_context(connect(path))
                await reader.call(lambda db: db.execute("PRAGMA query_only = ON").close())
            yield cls(path, writer, reader)

    async def last_ids(self) -> LastIds:
        """See `Store`."""
        ((file_id, seq, journaled),) = await self._read("select_last_ids")
        return LastIds(file_id, max(seq, journaled))

    def compose(self, batch: Sequence[tuple[Transition, Record]]) -> Batch:
        """See `Store`."""
        return make_ready(batch)

    async def apply(self, batch: Sequence[tuple[Transition, Record]], journaled: int) -> list[bool]:
        """See `Store`."""
        return await self._change(partial(self._apply, make_ready(batch), journaled))

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
        query = self.access(by_content=by_content).known
        return await self._ask(partial(reading.known, query, watch, directories))

    def access(self, *, by_content: bool = False) -> Access:
        """See `Store`."""
        uri = self._path.absolute().as_uri() + "?mode=ro"
        known = SQL["select_known_by_content" if by_content else "select_known"]
        return Access(uri, known, SQL["select_contents"], SQL["select_last_transition"])

    async def directories(self, watch: str, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """See `Store`."""
        found = await self._read("select_directories", watch, first, end, watch, end, limit)
        return [directory for (directory,) in found]

    async def named(
        self, watch: str, directory: bytes, first: bytes, end: bytes, limit: int
    ) -> list[Row]:
        """See `Store`."""
        return await self._rows("select_named", watch, directory, first, end, limit)

    async def by_inode(self, inodes: Sequence[int]) -> list[Row]:
        """See `Store`."""
        return await self._rows("select_files_by_inode", json.dumps(list(inodes)))

    async def prepare(self, queues: Sequence[Queue]) -> None:
        """See `Store`."""
        await self._change(partial(reading.prepare, queues))

    async def ready(self, queue: Queue, limit: int) -> list[Row]:
        """See `Store`."""
        return await self._ask(partial(reading.ready, queue, limit))

    async def ready_in_folders(
        self,
        queue: Queue,
        rank: int,
        first: bytes,
        folders: int,
        each: int,
        more: Mapping[bytes, int] = MappingProxyType({}),
    ) -> dict[bytes, list[Row]]:
        """See `Store`."""
        read = partial(reading.ready_in_folders, queue, rank, first, folders, each, more)
        return await self._ask(read)

    async def rank_ready(self, watch: str, ranked_by: str, rank_of: Callable[[bytes], int]) -> None:
        """See `Store`."""
        await self._change(partial(reading.rank_ready, watch, ranked_by, rank_of))

    async def starts(self, watch: str, step: str, since: int, limit: int) -> list[int]:
        """See `Store`."""
        return [at for (at,) in await self._read("select_starts", since, watch, step, limit)]

    async def step_counts(self) -> list[StepCount]:
        """See `Store`."""
        return [StepCount(*values) for values in await self._read("select_step_counts")]

    async def steps(self, watch: str) -> str | None:
        """See `Store`."""
        found = await self._read("select_steps", watch)
        return found[0][0] if found else None

    async def keep_steps(self, watch: str, steps: str) -> None:
        """See `Store`."""
        await self._write("set_steps", steps, watch)

    async def in_state(self, state: str, watch: str, after_id: int, limit: int) -> list[Row]:
        """See `Store`."""
        return await self._rows("select_in_state", state, watch, after_id, limit)

    async def stranded(self, watch: str, plan: str, steps: Sequence[str]) -> list[Row]:
        """See `Store`."""
        return await self._rows("select_stranded", watch, plan, json.dumps(list(steps)))

    async def history(self, file_id: int, limit: int) -> list[Record]:
        """See `Store`."""
        found = await self._read("select_history", file_id, limit)
        return [record_of(values) for values in reversed(found)]

    async def counts(self) -> list[StateCount]:
        """See `Store`."""
        return [StateCount(*values) for values in await self._read("select_counts")]

    async def any_below(self, keys: Sequence[Key]) -> list[bool]:
        """See `Store`."""
        return await self._ask(lambda db: [reading.has_below(db, key) for key in keys])

    async def due(
        self, watches: Sequence[str], before: int, set_after: int | None, limit: int
    ) -> list[Row]:
        """See `Store`."""
        names = json.dumps(list(watches))
        if set_after is None:
            return await self._rows("select_due", before, names, limit)
        return await self._rows("select_due_or_set_after", before, set_after, names, limit)

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

    async def archive(self, base: bytes) -> str | None:
        """See `Store`."""
        found = await self._read("select_archive", base)
        return found[0][0] if found else None

    async def keep_archive(self, base: bytes, mark: str) -> None:
        """See `Store`."""
        await self._write("upsert_archive", base, mark)

    async def keep_detection(self, watch: str, detection: str) -> None:
        """See `Store`."""
        await self._write("set_detection", detection, watch)

    async def note_ctimes(self, rows: Sequence[Row]) -> None:
        """See `Store`."""
        await self._change(lambda db: note_ctimes(db, rows))

    async def ping(self) -> None:
        """See `Store`."""
        await self._ask(self._answer)

    def _answer(self, db: sqlite3.Connection) -> None:
        self._see()
        db.execute("SELECT 1").close()

    def _see(self) -> None:
        """SQLite goes on writing into an unlinked file as if nothing had happened."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if inode != self._inode:
            raise StoreLost(f"{self._path}: the database was removed or replaced while it was open")

    def _apply(self, batch: Batch, journaled: int, db: sqlite3.Connection) -> list[bool]:
        self._see()
        return apply(db, batch, journaled)

    async def _write(self, name: str, *values: object) -> None:
        await self._change(lambda db: db.execute(SQL[name], values).close())

    async def _read(self, name: str, *values: object) -> list[Values]:
        return await self._fetch(SQL[name], values)

    async def _rows(self, name: str, *values: object) -> list[Row]:
        return [row_of(found) for found in await self._read(name, *values)]

    async def _fetch(self, sql: str, values: Sequence[object]) -> list[Values]:
        return await self._ask(lambda db: db.execute(sql, tuple(values)).fetchall())

    async def _ask(self, read: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with unavailable(self._path):
            return await self._reader.call(read)

    async def _change(self, write: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with unavailable(self._path):
            return await self._writer.call(write)
