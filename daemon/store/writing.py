"""How a batch of transitions becomes one SQLite transaction.

What can be made ready is made ready in the loop, for each time that the connection's thread wants
the interpreter lock back from a busy loop it waits: see `statements`.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from daemon.core.model import Key, Row, Transition
from daemon.store.new_files import Pair, for_runs
from daemon.store.rows import Values, record_values, row_values
from daemon.store.statements import SQL, Statement, for_all, run

# A watch, a state and a step.
Place: TypeAlias = tuple[str, str, str | None]
# States in which a file waits for a step, or is in it.
_AT_A_STEP = frozenset({"ready", "processing"})


class Batch(list[Pair]):
    """A batch made ready.

    What is said to SQLite, if nobody loses a race: the `changes` and then what `follows` from them.
    """

    changes: list[Statement]
    follows: list[Statement]


def make_ready(pairs: Sequence[Pair]) -> Batch:
    """Say it in few statements, unless that is done."""
    if isinstance(pairs, Batch):
        return pairs
    batch = Batch(pairs)
    batch.changes = _changes(pairs)
    batch.follows = _renames(pairs) + _counts(pairs)
    return batch


def apply(db: sqlite3.Connection, batch: Batch, journaled: int) -> list[bool]:
    """Commit a batch, the whole at once; one by one only after somebody lost a race.

    See `Store.apply`. Leaves no transaction open, whatever happens.
    """
    follows = batch.follows
    with transaction(db):
        written = [run(db, batch.changes)] * len(batch)
        if not all(written):
            db.execute("ROLLBACK")
            db.execute("BEGIN IMMEDIATE")
            written = _change_singly(db, batch)
            won = [pair for pair, ok in zip(batch, written, strict=True) if ok]
            follows = _renames(won) + _counts(won)
        run(db, follows)
        run(db, [Statement(SQL["advance_journal"], (journaled, journaled))])
        return [ok or _is_there(db, t) for (t, _), ok in zip(batch, written, strict=True)]


def _change_singly(db: sqlite3.Connection, batch: Batch) -> list[bool]:
    """See `apply`. A row that makes room for another by taking its path stays if that one does."""
    written = []
    left: set[tuple[Key, Key]] = set()
    for pair in batch:
        before, after = pair[0].before.key, pair[0].after.key
        ok = (after, before) not in left and run(db, _changes([pair]))
        if not ok and before != after:
            left.add((before, after))
        written.append(ok)
    return written


def note_ctimes(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """See `Store.note_ctimes`."""
    with transaction(db):
        values = [(row.id, row.version, row.seen.ctime_ns) for row in rows if row.seen]
        for statement in for_all("note_ctimes_if_version", values):
            run(db, [statement])


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


def _changes(pairs: Sequence[Pair]) -> list[Statement]:
    """The rows and their transitions; a statement that changes fewer has met a lost race."""
    said, new = for_runs([pair for pair in pairs if not pair[0].before.version])
    known = [pair for pair in pairs if pair[0].before.version]
    moved_on = [t for t, _ in known]
    return [
        *said,
        *for_all("insert_files_if_new", [row_values(t.after) for t, _ in new]),
        *for_all(
            "update_states_if_version",
            [state_values(t) for t in moved_on if _is_state_alone(t)],
        ),
        *for_all(
            "update_files_if_version",
            [update_values(t) for t in moved_on if not _is_state_alone(t)],
        ),
        *for_all("insert_transitions", [record_values(record) for _, record in new + known]),
    ]


def _renames(pairs: Sequence[Pair]) -> list[Statement]:
    """Give the moved rows their new paths, all of which are free or of rows among them."""
    moved = [t.after for t, _ in pairs if t.before.version and t.before.key != t.after.key]
    said = [
        *for_all("vacate_paths_if_version", [(row.id, row.version) for row in moved]),
        *for_all("rename_files_if_version", [_path_values(row) for row in moved]),
    ]
    # One that has moved on within the batch stays where it went last.
    return [statement._replace(rows=None) for statement in said]


def _is_state_alone(transition: Transition) -> bool:
    """What the row shows of the disk, and what it hands on, stays as it is."""
    before, after = transition.before, transition.after
    same_file = before.seen == after.seen and before.digest == after.digest
    return same_file and before.result is after.result


def _is_there(db: sqlite3.Connection, transition: Transition) -> bool:
    """This very attempt was committed before, though nobody was told."""
    after = transition.after
    attempt = (after.id, after.version, transition.attempt_id)
    return db.execute(SQL["find_transition"], attempt).fetchone() is not None


def _counts(pairs: Sequence[Pair]) -> list[Statement]:
    """Keep the counts by state, and by step, in step with what is written."""
    moves: Counter[tuple[str, str]] = Counter()
    steps: Counter[tuple[str, str | None, str]] = Counter()
    for (before, after), files in Counter(_places(t) for t, _ in pairs).items():
        for where, by in ((before, -files), (after, files)):
            if where is not None:
                watch, state, step = where
                moves[watch, state] += by
                if state in _AT_A_STEP:
                    steps[watch, step, state] += by
    by_state = [(*where, by) for where, by in moves.items() if by]
    by_step = [(*where, by) for where, by in steps.items() if by and where[1] is not None]
    return [
        *(Statement(SQL["add_to_count"], values) for values in by_state),
        *(Statement(SQL["add_to_step_count"], values) for values in by_step),
    ]


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
