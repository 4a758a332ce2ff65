"""How SQLite answers: what a million files make slow is not read as a whole."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from daemon.store.queries import for_rows, load_migrations, load_queries

QUERIES = load_queries("queries.sql")
ALL = QUERIES | {f"inspect.{name}": sql for name, sql in load_queries("inspect.sql").items()}
# It is to read every row.
WHOLE = {"inspect.select_files"}
LARGE = re.compile(r"SCAN (files|transitions|f|t|m)\b|files_by_path \(watch=\?\)")


@pytest.fixture
def empty() -> Iterator[sqlite3.Connection]:
    """The newest schema; the plans are made without statistics, as the daemon keeps none."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in load_migrations():
            connection.executescript(migration)
        yield connection


def plan_of(connection: sqlite3.Connection, sql: str, rows: int) -> list[str]:
    columns = len(set(re.findall(r"\.column(\d+)", sql)))
    if found := re.search(r"INSERT[^(]*\((.*?)\) VALUES", sql, re.DOTALL):
        columns = found[1].count(",") + 1
    written = for_rows(sql, rows, columns)
    values = [None] * written.count("?")
    return [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {written}", values)]


@pytest.mark.parametrize("rows", [1, 2, 512])
@pytest.mark.parametrize("name", ALL)
def test_no_query_reads_all_rows(empty: sqlite3.Connection, name: str, rows: int) -> None:
    """Each is answered through an index that fits it."""
    sql = ALL[name]
    if name not in WHOLE and (rows == 1 or "{values}" in sql):
        steps = plan_of(empty, sql, rows)
        assert not [step for step in steps if LARGE.search(step)]


def test_timers_are_read_by_their_index(empty: sqlite3.Connection) -> None:
    """Also where every one of them is read: the files without a timer are not."""
    for name in ("select_due", "select_due_or_set_after"):
        assert "USING INDEX files_by_due" in plan_of(empty, QUERIES[name], 1)[0]
