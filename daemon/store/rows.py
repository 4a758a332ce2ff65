"""The nouns as tuples of SQL values, and back."""

from typing import Any, TypeAlias

from daemon.core.model import Fingerprint, Key, Record, Row, Transition

Values: TypeAlias = tuple[Any, ...]
UNSEEN: Values = (None, None, None, None, None)


def row_values(row: Row) -> Values:
    """In the order of `FILE_COLUMNS`."""
    watch, path = row.key
    directory, _, name = path.rpartition(b"/")
    return (
        row.id,
        watch,
        directory,
        name,
        row.state,
        row.version,
        row.step,
        row.plan,
        row.attempt,
        row.failures,
        row.interruptions,
        *(row.seen or UNSEEN),
        row.done,
        row.at,
        row.due_at,
        row.error,
        row.digest,
        row.result,
        row.rank,
    )


def row_of(values: Values) -> Row:
    """A row of `files`, columns in the order of `FILE_COLUMNS`."""
    id_, watch, directory, name, state, version, step, plan, attempt, failures, cut = values[:11]
    seen = None if values[11] is None else Fingerprint(*values[11:16])
    key = Key(watch, path_of(directory, name))
    return Row(id_, key, state, version, step, plan, attempt, failures, cut, seen, *values[16:23])


def path_of(directory: bytes, name: bytes) -> bytes:
    """The path below the root; the root's own directory is empty."""
    return directory + b"/" + name if directory else name


def record_of_transition(transition: Transition, seq: int) -> Record:
    """The record that a transition leaves."""
    before, after = transition.before, transition.after
    seen = after.seen or before.seen
    return Record(
        seq,
        after.id,
        after.key.watch,
        after.key.path,
        transition.event,
        before.state,
        after.state,
        after.version,
        transition.attempt_id,
        transition.node,
        after.at,
        transition.guard,
        transition.cause,
        transition.evidence,
        before.step if before.state == "processing" else after.step or before.step,
        after.attempt or before.attempt or None,
        transition.duration_ms,
        seen.size if seen else None,
        after.due_at,
        before.key.path if before.key != after.key else None,
        transition.error,
        transition.target,
    )


def record_values(record: Record) -> Values:
    """In the order of `RECORD_COLUMNS`."""
    return (
        record.seq,
        record.file_id,
        record.event,
        record.from_state,
        record.to_state,
        record.version,
        record.attempt_id,
        record.node,
        record.at,
        record.guard,
        record.cause,
        record.evidence,
        record.step,
        record.attempt,
        record.duration_ms,
        record.size,
        record.due_at,
        record.old_path,
        record.error,
        record.target,
    )


def record_of(values: Values) -> Record:
    """A row of `select_owed`."""
    seq, file_id, watch, directory, name, path_then, *rest = values
    return Record(seq, file_id, watch, path_then or path_of(directory, name), *rest)
