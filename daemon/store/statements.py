"""What is said to SQLite for many rows: few statements, each with one set of parameters.

Were each row a set of its own, the interpreter lock would be given away at every row, and it takes
up to the switch interval to get it back from a busy loop: 484 us a row, and 23 us so. `execute`
gives it away once more, to ask for a row's id.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from daemon.store.queries import RECORD_COLUMNS, for_rows, for_rows_alike, load_queries
from daemon.store.rows import Values

SQL = load_queries("queries.sql")
# Any number of rows up to this, and then few numbers: a statement that was prepared is kept, and
# those for each number up to 32 take 6 MB in the course of an hour.
SMALL = 16
_SIZES = (1024, 512, 256, 128, 64, 32, SMALL)


# Transitions that are committed together mostly differ in these only: the others are bound once.
_RECORD = RECORD_COLUMNS.split(", ")
_DIFFERING = ("seq", "file_id", "version", "attempt_id", "at", "duration_ms", "size", "due_at")
_OWN = tuple(map(_RECORD.index, _DIFFERING))
_own_of = itemgetter(*_OWN)
_shared_of = itemgetter(*(n for n in range(len(_RECORD)) if n not in _OWN))


class Statement(NamedTuple):
    """A statement with its parameters. `rows`: how many it is to change, None: any number."""

    sql: str
    values: Values
    rows: int | None = None


def for_all(name: str, rows: Sequence[Values]) -> list[Statement]:
    """One of those with `{values}`, in few statements, each row of which is to change one."""
    said, at = [], 0
    while at < len(rows):
        size = _size(len(rows) - at)
        said.append(_for_some(name, rows[at : at + size]))
        at += size
    return said


def _for_some(name: str, rows: Sequence[Values]) -> Statement:
    size = len(rows)
    if name == "insert_transitions" and size > SMALL:
        shared = _shared_of(rows[0])
        if all(each == shared for each in map(_shared_of, rows)):
            sql = for_rows_alike(SQL[name], size, len(_RECORD), _OWN)
            own = chain.from_iterable(map(_own_of, rows))
            return Statement(sql, (*shared, *own), size)
    sql = for_rows(SQL[name], size, len(rows[0]))
    return Statement(sql, tuple(chain.from_iterable(rows)), size)


def run(db: sqlite3.Connection, statements: Iterable[Statement]) -> bool:
    """Run them; stops with False at the first that has not changed as many rows as it was to."""
    for sql, values, rows in statements:
        changed = db.executemany(sql, (values,)).rowcount
        if rows is not None and changed != rows:
            return False
    return True


def _size(rows: int) -> int:
    return rows if rows <= SMALL else next(size for size in _SIZES if size <= rows)
