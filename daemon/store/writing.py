"""How a batch of transitions becomes one SQLite transaction. Runs in the connection's thread."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

from daemon.core.model import Record, Row, Transition
from daemon.store.queries import (
    FILE_COLUMNS,
    RECORD_COLUMNS,
    for_rows,
    for_rows_alike,
    load_queries,
)
from daemon.store.rows import Values, record_values, row_values

SQL = load_queries("queries.sql")
_SMALL = 32
# A watch, a state and a step.
Place: TypeAlias = tuple[str, str, str | None]
# States in which a file waits for a step, or is in it.
_AT_A_STEP = frozenset({"ready", "processing"})
_SIZES = (1024, 512, 256, 128, 64, _SMALL)


class Alike:
    """Which columns of an insert differ from row to row, and which are mostly the same in all.

    The first scan of a tree says the same of every file but for these. To bind a value costs
    0.15 us, in Python, and a new file has 43.
    """

    def __init__(self, columns: str, own: str) -> None:
        names, differing = columns.split(", "), own.split(", ")
        self.columns = len(names)
        self.own = tuple(names.index(name) for name in differing)
        self.own_of = itemgetter(*self.own)
        self.shared_of = itemgetter(*(n for n in range(len(names)) if n not in self.own))


_ALIKE = {
    "insert_files_if_new": Alike(
        FILE_COLUMNS,
        "id, directory, name, size, mtime_ns, ctime_ns, ino, done, at, due_at, digest",
    ),
    "insert_transitions": Alike(
        RECORD_COLUMNS, "seq, file_id, version, attempt_id, at, duration_ms, size, due_at"
    ),
}


def apply(
    db: sqlite3.Connection, batch: Sequence[tuple[Transition, Record]], journaled: int
) -> list[bool]:
    """Commit a batch, the whole at once; one by one only after somebody lost a race.

    See `Store.apply`. Leaves no transaction open, whatever happens.
    """
    with transaction(db):
        if _apply_all(db, batch):
            written = [True] * len(batch)
        else:
            db.execute("ROLLBACK")
            db.execute("BEGIN IMMEDIATE")
            written = [_apply_one(db, *pair) for pair in batch]
            won = [t for (t, _), ok in zip(batch, written, strict=True) if ok]
            _rename(db, [t for t in won if t.before.key != t.after.key])
        _count(db, [pair[0] for pair, ok in zip(batch, written, strict=True) if ok])
        db.executemany(SQL["advance_journal"], [(journaled, journaled)])
        return [ok or _is_there(db, t) for (t, _), ok in zip(batch, written, strict=True)]


def note_ctimes(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """See `Store.note_ctimes`."""
    with transaction(db):
        values = [(row.id, row.version, row.seen.ctime_ns) for row in rows if row.seen]
        _changed(db, "note_ctimes_if_version", values)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; no transaction is left open, whatever happens."""
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
    known = [t for t, _ in batch if t.before.version]
    same = [state_values(t) for t in known if _is_state_alone(t)]
    other = [update_values(t) for t in known if not _is_state_alone(t)]
    if new and _changed(db, "insert_files_if_new", new) != len(new):
        return False
    if same and _changed(db, "update_states_if_version", same) != len(same):
        return False
    if other and _changed(db, "update_files_if_version", other) != len(other):
        return False
    _rename(db, [t for t in known if t.before.key != t.after.key])
    _changed(db, "insert_transitions", [record_values(record) for _, record in batch])
    return True


def _is_state_alone(transition: Transition) -> bool:
    """What the row shows of the disk, and what it hands on, stays as it is."""
    before, after = transition.before, transition.after
    same_file = before.seen == after.seen and before.digest == after.digest
    return same_file and before.result is after.result


def _apply_one(db: sqlite3.Connection, transition: Transition, record: Record) -> bool:
    if transition.before.version:
        changed = _changed(db, "update_files_if_version", [update_values(transition)])
    else:
        changed = _changed(db, "insert_files_if_new", [row_values(transition.after)])
    if changed:
        _changed(db, "insert_transitions", [record_values(record)])
    return bool(changed)


def _rename(db: sqlite3.Connection, moved: Sequence[Transition]) -> None:
    """Give the moved rows their new paths, all of which are free or of rows among them."""
    if moved:
        _changed(db, "vacate_paths_if_version", [(t.after.id, t.after.version) for t in moved])
        _changed(db, "rename_files_if_version", [_path_values(t.after) for t in moved])


def _is_there(db: sqlite3.Connection, transition: Transition) -> bool:
    """This very attempt was committed before, though nobody was told."""
    after = transition.after
    attempt = (after.id, after.version, transition.attempt_id)
    return db.execute(SQL["find_transition"], attempt).fetchone() is not None


def _count(db: sqlite3.Connection, written: Sequence[Transition]) -> None:
    """Keep the counts by state, and by step, in step with what was just written."""
    moves: Counter[tuple[str, str]] = Counter()
    steps: Counter[tuple[str, str | None, str]] = Counter()
    for (before, after), files in Counter(map(_places, written)).items():
        for where, by in ((before, -files), (after, files)):
            if where is not None:
                watch, state, step = where
                moves[watch, state] += by
                if state in _AT_A_STEP:
                    steps[watch, step, state] += by
    db.executemany(SQL["add_to_count"], [(*where, by) for where, by in moves.items() if by])
    changed = [(*where, by) for where, by in steps.items() if by and where[1] is not None]
    db.executemany(SQL["add_to_step_count"], changed)


def _places(transition: Transition) -> tuple[Place | None, Place]:
    """Where a file was counted, None for a new one, and where it is now."""
    before, after = transition.before, transition.after
    was = (before.key.watch, before.state, before.step) if before.version else None
    return was, (after.key.watch, after.state, after.step)


def update_values(transition: Transition) -> Values:
    """In the order of `update_files_if_version`."""
    return (transition.before.id, transition.before.version, *row_values(transition.after)[4:])


def state_values(transition: Transition) -> Values:
    """In the order of `update_states_if_version`."""
    row, before = transition.after, transition.before
    return (
        before.id,
        before.version,
        row.state,
        row.version,
        row.step,
        row.plan,
        row.attempt,
        row.failures,
        row.interruptions,
        row.done,
        row.at,
        row.due_at,
        row.error,
        row.rank,
    )


def _path_values(row: Row) -> Values:
    """In the order of `rename_files_if_version`."""
    return (row.id, row.version, *row_values(row)[1:4])


def _changed(db: sqlite3.Connection, name: str, values: Sequence[Values]) -> int:
    """Run one statement for many rows; the number of rows changed in all.

    All rows are one set of parameters. Were each a set of its own, the interpreter lock would be
    given away at every row, and it takes up to the switch interval to get it back from a busy
    loop: 484 us a row, and 23 us so. `execute` gives it away once more, to ask for a row's id.
    """
    changed = at = 0
    while at < len(values):
        size = _size(len(values) - at)
        sql, bound = _statement(name, values[at : at + size])
        changed += db.executemany(sql, (bound,)).rowcount
        at += size
    return changed


def _statement(name: str, rows: Sequence[Values]) -> tuple[str, list[Any]]:
    """The statement for some rows, and what to bind to it."""
    size, alike = len(rows), _ALIKE.get(name)
    if alike is not None and size > _SMALL:
        shared = alike.shared_of(rows[0])
        if all(each == shared for each in map(alike.shared_of, rows)):
            sql = for_rows_alike(SQL[name], size, alike.columns, alike.own)
            return sql, [*shared, *chain.from_iterable(map(alike.own_of, rows))]
    return for_rows(SQL[name], size, len(rows[0])), list(chain.from_iterable(rows))


def _size(rows: int) -> int:
    """How many to write at once: any number up to 32, so that few statements are prepared."""
    return rows if rows <= _SMALL else next(size for size in _SIZES if size <= rows)
