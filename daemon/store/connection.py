"""A connection to a SQLite file: a thread of its own, a whole function a hop, today's schema."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiosqlite

from daemon.errors import StoreTooNew, StoreUnavailable
from daemon.store.queries import load_migrations

MIGRATIONS = load_migrations()
# How long a statement waits for another process's lock before the engine is told and waits instead.
BUSY_MS = 250
Answer = TypeVar("Answer")


@contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Turn the errors of a database that may come back into `StoreUnavailable`."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreUnavailable(f"{path}: {error}") from error


class Connection(aiosqlite.Connection):
    """A connection that runs a whole function in its thread.

    One hop a transaction instead of one a statement, and nobody can be cancelled between BEGIN
    and COMMIT.
    """

    async def call(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Call `work` with the connection, in the connection's thread."""
        answer: Answer = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return answer


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Connection]:
    """Open one, and close it on the way out."""
    connect = partial(sqlite3.connect, path, isolation_level=None, cached_statements=256)
    db = Connection(connect, iter_chunk_size=64)
    async with db:
        await db.call(_configure)
        yield db


def _configure(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}").close()
    db.execute("PRAGMA synchronous = FULL").close()


def migrate(path: Path, db: sqlite3.Connection) -> None:
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
