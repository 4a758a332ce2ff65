"""The database as an onlooker reads it: from another process, read-only, the daemon up or down.

For the commands that answer at once, so neither asyncio nor aiosqlite is imported here.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from daemon.core.model import Key, Record, Row
from daemon.errors import NoDatabase, NotPermitted, StoreTooNew, StoreUnavailable
from daemon.store import StepCount
from daemon.store.queries import load_migrations, load_queries
from daemon.store.rows import record_of, row_of

SQL = load_queries("inspect.sql")
SCHEMA = len(load_migrations())
# A reader only ever waits for a recovery, or for somebody who holds the whole file.
_BUSY_SECONDS = 1.0
_HELD = "another process holds it: try again, or find that process with fuser"
_DAMAGED = "stop the daemon, and put a good copy in its place"
_NOT_OURS = "read it as the user that the daemon runs as"
_REMEDIES = {
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CANTOPEN: _NOT_OURS,
    sqlite3.SQLITE_READONLY: _NOT_OURS,
}


class Count(NamedTuple):
    """How many files of a watch are in a state; `oldest`: since when the first one is ready."""

    watch: str
    state: str
    files: int
    oldest: int | None


class Inspection:
    """Questions to one database. Make one with `inspect`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def schema(self) -> int:
        """The version of the schema."""
        ((version,),) = self._ask("select_schema")
        return int(version)

    def counts(self) -> list[Count]:
        """Files by state and watch, as the ledger keeps count of them."""
        return [Count(*values) for values in self._ask("select_counts")]

    def next_retries(self) -> dict[str, int]:
        """When each watch tries its next failed file again."""
        return dict(self._ask("select_next_retries"))

    def owed(self) -> int:
        """How many lines the log has yet to get."""
        ((count,),) = self._ask("count_owed")
        return int(count)

    def watches(self) -> list[str]:
        """Every watch that ever was, by name."""
        return [name for (name,) in self._ask("select_watch_names")]

    def detections(self) -> dict[str, str]:
        """How the changes of each watch are found, as the daemon last said: JSON, by watch."""
        return dict(self._ask("select_detections"))

    def step_counts(self) -> list[StepCount]:
        """How many files wait for each step, and are in it."""
        return [StepCount(*values) for values in self._ask("select_step_counts")]

    def steps(self) -> dict[str, str]:
        """How the steps of each watch stand, as the daemon last said: JSON, by watch."""
        return dict(self._ask("select_all_steps"))

    def archive(self, base: bytes) -> str | None:
        """Which folder it was that files were taken to by this path: JSON; None: not known."""
        found = self._ask("select_archive", base).fetchone()
        return found[0] if found else None

    def files(self, watches: Sequence[str] = (), states: Sequence[str] = ()) -> Iterator[Row]:
        """Rows one by one, in the order of paths; without a choice, all of them."""
        chosen = _list(watches)
        if states:
            query = "select_files_in_states" + ("_or_done" if "done" in states else "")
            return map(row_of, self._ask(query, chosen, chosen, _list(states)))
        return map(row_of, self._ask("select_files", chosen, chosen))

    def find(self, key: Key) -> Row | None:
        """The row of a path."""
        found = self._ask("select_file", key.watch, key.directory, key.name).fetchone()
        return None if found is None else row_of(found)

    def history(self, file_id: int) -> list[Record]:
        """What happened to a file, first to last."""
        return [record_of(values) for values in self._ask("select_history", file_id)]

    def _ask(self, name: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(SQL[name], values)


@contextmanager
def inspect(path: Path) -> Iterator[Inspection]:
    """Open the database read-only, whether a daemon has it now or not.

    Raises:
        NoDatabase: it is not there yet.
        NotPermitted: not for this user.
        StoreTooNew: a newer treewarden wrote it.
        StoreUnavailable: it is locked, damaged, or of an older schema; also while it is read.
    """
    _see(path)
    try:
        with _opened(path) as connection:
            inspection = Inspection(connection)
            _expect(inspection.schema(), path)
            yield inspection
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"{path}: {error}; {_remedy(error)}") from error


def _see(path: Path) -> None:
    """SQLite has one sentence for everything that keeps it from opening a file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise NoDatabase(f"no database in {path.parent}: has the daemon run yet?") from None
    except PermissionError:
        raise _not_permitted(path.parent) from None
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}; see to that folder") from error
    if not os.access(path, os.R_OK):
        raise _not_permitted(path)
    if not size and not path.with_name(f"{path.name}-wal").exists():
        raise NoDatabase(f"the database in {path.parent} is empty: has the daemon run yet?")


def _not_permitted(path: Path) -> NotPermitted:
    return NotPermitted(f"{path} is not for this user to read; ask as its owner or in its group")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file so that nothing is written beside it.

    A reader of a database in WAL mode makes two files next to it, if they are not there, and fails
    where it may not. A daemon that has the database open always has the log: without one, nobody
    writes, and the file can be read as one that never changes. Until a daemon comes: so look again.
    """
    log = path.with_name(f"{path.name}-wal")
    at_rest = not log.exists()
    with closing(_connect(path, "&immutable=1" if at_rest else "")) as connection:
        yield connection
    if at_rest and log.exists():
        raise StoreUnavailable(f"{path}: the daemon started while this was read; ask again")


def _connect(path: Path, option: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro{option}"
    connection = sqlite3.connect(uri, timeout=_BUSY_SECONDS, isolation_level=None, uri=True)
    try:
        # SQLite opens nothing before the first question.
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _expect(schema: int, path: Path) -> None:
    if schema > SCHEMA:
        raise StoreTooNew(
            f"{path} has schema version {schema}, written by a newer treewarden; this one knows "
            f"up to {SCHEMA}. Use that newer version to read it"
        )
    if schema < SCHEMA:
        raise StoreUnavailable(
            f"{path} has schema version {schema}, and this treewarden reads {SCHEMA}; "
            "the next start of the daemon brings it up to date"
        )


def _remedy(error: sqlite3.DatabaseError) -> str:
    # Python's own complaints, such as text that is not UTF-8, carry no code: a damaged file.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return _REMEDIES.get(code, "see to that file and its file system")


def _list(names: Sequence[str]) -> str | None:
    return msgspec.json.encode(names).decode() if names else None
