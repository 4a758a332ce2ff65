"""Many new files at once, and what is on record of each: two statements, each with one JSON text.

The first scan of a tree says the same of every file but for its path, its numbers and its times.
What they share is bound once. What differs SQLite takes out of a text, and does so without the
interpreter lock: to bind a value takes 0.09 to 0.14 us with the lock, and a new file has 43.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

import msgspec

from daemon.core.model import Record, Transition
from daemon.store.queries import FILE_COLUMNS, RECORD_COLUMNS
from daemon.store.rows import Values, record_values, row_values
from daemon.store.statements import SMALL, SQL, Statement

Pair: TypeAlias = tuple[Transition, Record]

# In the order of `insert_alike_files_if_new`.
_OWN = "directory, name, size, mtime_ns, ctime_ns, ino, done, at, due_at, digest"
_OF_FILES = (
    "watch, state, version, step, plan, attempt, failures, interruptions, dev, error, result, rank"
)
# In the order of `insert_transitions_of_new`; the file has the others.
_OF_TRANSITIONS = (
    "trigger, from_state, to_state, version, node, guard, cause, evidence, step, attempt, "
    "duration_ms, old_path, error, target"
)
_ATTEMPT = "attempt_id"


def _places(names: str, columns: str, first: int = 0) -> list[int]:
    return [first + columns.split(", ").index(name) for name in names.split(", ")]


# Where they are in the values of a file and of its transition, together.
_FILE, _BOTH = len(FILE_COLUMNS.split(", ")), len(f"{FILE_COLUMNS}, {RECORD_COLUMNS}".split(", "))
_own_of = itemgetter(*_places(_OWN, FILE_COLUMNS))
_attempt_of = itemgetter(*_places(_ATTEMPT, RECORD_COLUMNS, _FILE))
# Behind them stand by how much each number differs from the place of its file: the same in a row.
_SHARED = _places(_OF_FILES, FILE_COLUMNS) + _places(_OF_TRANSITIONS, RECORD_COLUMNS, _FILE)
_shared_of = itemgetter(*_SHARED, _BOTH, _BOTH + 1)
_SPLIT = len(_OF_FILES.split(", "))
_encode = msgspec.json.Encoder().encode


def for_runs(new: Sequence[Pair]) -> tuple[list[Statement], list[Pair]]:
    """For files of which many in a row are alike, and their transitions; and which are left."""
    said: list[Statement] = []
    left: list[Pair] = []
    values = [
        (*row_values(transition.after), *record_values(record), record.file_id - n, record.seq - n)
        for n, (transition, record) in enumerate(new)
    ]
    at = 0
    for shared, found in groupby(values, _shared_of):
        run = list(found)
        pairs = new[at : at + len(run)]
        at += len(run)
        text = _text(run) if len(run) > SMALL else None
        if text is None:
            left += pairs
        else:
            said += _inserts(pairs[0][1], shared[:-2], text, list(map(_attempt_of, run)))
    return said, left


def _text(run: Sequence[Values]) -> str | None:
    """What is each file's own; None where a path is not UTF-8, and so in no JSON."""
    try:
        own = [[path.decode(), name.decode(), *rest] for path, name, *rest in map(_own_of, run)]
    except UnicodeDecodeError:
        return None
    return _encode(own).decode()


def _inserts(first: Record, shared: Values, text: str, attempts: list[str]) -> list[Statement]:
    files = (first.file_id, *shared[:_SPLIT], text)
    transitions = (first.seq, *shared[_SPLIT:], _encode(attempts).decode(), first.file_id)
    return [
        Statement(SQL["insert_alike_files_if_new"], files, len(attempts)),
        Statement(SQL["insert_transitions_of_new"], transitions),
    ]
