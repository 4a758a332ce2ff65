"""How SQLite answers: what a million files make slow is not read as a whole."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import get_args

import pytest

from daemon.store import Queue
from daemon.store.queries import for_rows, in_order, load_migrations, load_queries
from daemon.store.reading import prepare

QUERIES = load_queries("queries.sql")
ALL = QUERIES | {f"inspect.{name}": sql for name, sql in load_queries("inspect.sql").items()}
# They are to read every row; the last begins at the end, and stops at the first that is old.
WHOLE = {
    "inspect.select_files": "SCAN files",
    "inspect.select_files_in_states_or_done": "SCAN files",
    "select_starts": "SCAN transitions",
}
# Each of these has an index of its own.
QUEUES = [
    Queue("w", "s", order, ranked=True, in_folders=in_folders)
    for order in get_args(Queue.__annotations__["order"])
    for in_folders in (False, True)
]
LARGE = re.compile(r"SCAN (files|transitions|f|t|m)\b|files_by_path \(watch=\?\)")


@pytest.fixture
def empty() -> Iterator[sqlite3.Connection]:
    """The newest schema; the plans are made without statistics, as the daemon keeps none."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in load_migrations():
            connection.executescript(migration)
        connection.create_function("rank_of", 2, lambda *_: 0, deterministic=True)
        yield connection


def plan_of(connection: sqlite3.Connection, sql: str, rows: int) -> list[str]:
    columns = len(set(re.findall(r"\.column(\d+)", sql)))
    if found := re.search(r"INSERT[^(]*\((.*?)\) VALUES", sql, re.DOTALL):
        columns = found[1].count(",") + 1
    written = for_rows(sql, rows, columns)
    values = [None] * written.count("?")
    return [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {written}", values)]


@pytest.mark.parametrize("rows", [1, 2, 512])
@pytest.mark.parametrize("name", [name for name in ALL if "{index}" not in ALL[name]])
def test_no_query_reads_all_rows(empty: sqlite3.Connection, name: str, rows: int) -> None:
    """Each is answered through an index that fits it."""
    sql = ALL[name]
    if rows == 1 or "{values}" in sql:
        large = [step for step in plan_of(empty, sql, rows) if LARGE.search(step)]
        assert [step for step in large if not step.startswith(WHOLE.get(name, "?"))] == []


@pytest.mark.parametrize("queue", QUEUES)
def test_queues_are_read_in_their_order(empty: sqlite3.Connection, queue: Queue) -> None:
    """What is ready is in its index as it is asked for: by directory it is a seek each."""
    prepare([queue], empty)
    whose = "folder" if queue.in_folders else "in_order"
    for name in (name for name in QUERIES if name.startswith("select_ready_") and whose in name):
        steps = plan_of(empty, in_order(QUERIES[name], queue), 1)
        assert [step for step in steps if "TEMP B-TREE" in step or LARGE.search(step)] == []
        assert any(f"INDEX {queue.index_name} (" in step for step in steps)


def test_timers_are_read_by_their_index(empty: sqlite3.Connection) -> None:
    """Also where every one of them is read: the files without a timer are not."""
    for name in ("select_due", "select_due_or_set_after"):
        assert "USING INDEX files_by_due" in plan_of(empty, QUERIES[name], 1)[0]
