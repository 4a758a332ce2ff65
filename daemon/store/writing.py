"""How a batch of transitions becomes one SQLite transaction. Runs in the connection's thread."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from daemon.core.model import Record, Row, Transition
from daemon.store.queries import for_rows, load_queries
from daemon.store.rows import Values, record_values, row_values

SQL = load_queries("queries.sql")
_SMALL = 32
# States in which a file waits for a step, or is in it.
_AT_A_STEP = frozenset({"ready", "processing"})
_SIZES = (512, 256, 128, 64, _SMALL)


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
        db.execute(SQL["advance_journal"], (journaled, journaled))
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
    for transition in written:
        after, before = transition.after, transition.before
        moves[after.key.watch, after.state] += 1
        if after.state in _AT_A_STEP:
            steps[after.key.watch, after.step, after.state] += 1
        if before.version:
            moves[before.key.watch, before.state] -= 1
        if before.state in _AT_A_STEP:
            steps[before.key.watch, before.step, before.state] -= 1
    db.executemany(SQL["add_to_count"], [(*where, by) for where, by in moves.items() if by])
    changed = [(*where, by) for where, by in steps.items() if by and where[1] is not None]
    db.executemany(SQL["add_to_step_count"], changed)


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

    Not `executemany`: that gives the interpreter lock away at every row, and waits up to the switch
    interval to get it back from a busy loop. Measured beside one: 484 us a row, and 23 us so.
    """
    changed = at = 0
    while at < len(values):
        size = _size(len(values) - at)
        rows = values[at : at + size]
        sql = for_rows(SQL[name], size, len(rows[0]))
        changed += db.execute(sql, [value for row in rows for value in row]).rowcount
        at += size
    return changed


def _size(rows: int) -> int:
    """How many to write at once: any number up to 32, so that few statements are prepared."""
    return rows if rows <= _SMALL else next(size for size in _SIZES if size <= rows)
