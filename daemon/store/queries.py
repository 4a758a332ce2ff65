"""The SQL of the store by name, read once from the `.sql` files beside it."""

import re
from functools import cache
from pathlib import Path

from daemon.store import Queue

# Not importlib.resources: it would cost every short command 6 ms.
_SQL = Path(__file__).with_name("sql")
_NAMED = re.compile(
    r"^-- name: (\w+)\n(?:--[^\n]*\n)*(.*?);\s*(?=^-- name:|\Z)", re.DOTALL | re.MULTILINE
)

FILE_COLUMNS = (
    "id, watch, directory, name, state, version, step, plan, attempt, failures, interruptions, "
    "size, mtime_ns, ctime_ns, ino, dev, done, at, due_at, error, digest, result, rank"
)

RECORD_COLUMNS = (
    "seq, file_id, trigger, from_state, to_state, version, attempt_id, node, at, "
    "guard, cause, evidence, step, attempt, duration_ms, size, due_at, old_path, error, target"
)

_KEYS = {"arrival": "at", "name": "directory, name", "mtime": "mtime_ns", "size": "size"}

# A file that moved later had another path when this happened: the next move knows it.
_RECORD = """t.seq, t.file_id, f.watch, f.directory, f.name, (
        SELECT m.old_path FROM transitions AS m WHERE m.file_id = t.file_id
        AND m.version > t.version AND m.old_path IS NOT NULL ORDER BY m.version LIMIT 1
    ), t.trigger, t.from_state, t.to_state, t.version, t.attempt_id, t.node, t.at, t.guard,
    t.cause, t.evidence, t.step, t.attempt, t.duration_ms, t.size, t.due_at, t.old_path, t.error,
    t.target"""


@cache
def load_queries(resource: str) -> dict[str, str]:
    """Name to statement, for each `-- name:` block of a file in `store/sql`.

    `{values}` in one stands for as many rows of parameters as it is run with: see `for_rows`.
    """
    text = (_SQL / resource).read_text(encoding="utf-8")
    text = text.replace("{columns}", FILE_COLUMNS).replace("{record_columns}", RECORD_COLUMNS)
    text = text.replace("{record}", _RECORD)
    return {name: sql.strip() for name, sql in _NAMED.findall(text)}


@cache
def for_rows(sql: str, rows: int, columns: int) -> str:
    """The statement with its `{values}` written out: (?, ?), (?, ?), ..."""
    return sql.replace("{values}", ", ".join([f"({', '.join('?' * columns)})"] * rows))


@cache
def for_rows_alike(sql: str, rows: int, columns: int, own: tuple[int, ...]) -> str:
    """The same for an insert of rows that differ in their `own` columns only, given by number.

    The values of the other columns come first, once, and then the own ones of each row.
    """
    of_row = {column: f"new.column{number}" for number, column in enumerate(own, 1)}
    chosen = ", ".join(of_row.get(column, "?") for column in range(columns))
    picked = f"SELECT {chosen} FROM (VALUES {{values}}) AS new"  # noqa: S608 - our own columns
    return for_rows(sql.replace("VALUES {values}", picked), rows, len(own))


def in_order(sql: str, queue: Queue) -> str:
    """The statement with the `{index}` of a queue, and the `{key}` that it is in the order of.

    `{folder}`: what the index has before that where the queue is taken by directory.
    """
    key = "name" if queue.in_folders and queue.order == "name" else _KEYS[queue.order]
    sql = sql.replace("{folder}", "directory, " if queue.in_folders else "")
    return sql.replace("{index}", queue.index_name or "").replace("{key}", key)


def load_migrations() -> list[str]:
    """The numbered migrations in order: entry 0 takes an empty database to version 1."""
    names = sorted(entry.name for entry in _SQL.iterdir() if entry.name[:4].isdigit())
    return [(_SQL / name).read_text(encoding="utf-8") for name in names]
