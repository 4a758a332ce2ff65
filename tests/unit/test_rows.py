"""The nouns as SQL values, and the SQL by name."""

import pytest
from msgspec import structs

from daemon.core.model import Fingerprint, Key, Row, Transition
from daemon.store.queries import FILE_COLUMNS, load_migrations, load_queries
from daemon.store.rows import path_of, record_of_transition, row_of, row_values

SEEN = Fingerprint(1, 2, 3, 4, 5)
FULL = Row(1, Key("w", b"d/e/f"), "failed", 2, "load", "remove", 3, 4, 5, SEEN, "d", 6, 7, "error")


@pytest.mark.parametrize(
    "row",
    [FULL, structs.replace(FULL, seen=None), Row(0, Key("w", b"\xff")), Row(9, Key("", b"a/b"))],
)
def test_row_and_back(row: Row) -> None:
    """A row becomes values and the same row again, one value a column."""
    values = row_values(row)
    assert row_of(values) == row
    assert len(values) == len(FILE_COLUMNS.split(","))


@pytest.mark.parametrize("path", [b"a", b"a/b", b"a/b/c", b"\xff/\n"])
def test_path_and_its_parts(path: bytes) -> None:
    """Directory and name together are the path; a file in the root has an empty directory."""
    key = Key("w", path)
    assert path_of(key.directory, key.name) == path


def transition(**after: object) -> Transition:
    return Transition(FULL, structs.replace(FULL, **after), "fail", "a", "n", error="why")


def test_record_of_a_transition() -> None:
    """A record tells of the state after, of what was handled, and of the error of this attempt."""
    record = record_of_transition(transition(state="quarantined", version=3), 42)
    assert (record.seq, record.file_id, record.path) == (42, 1, b"d/e/f")
    assert (record.from_state, record.to_state, record.version) == ("failed", "quarantined", 3)
    assert (record.step, record.attempt, record.size, record.error) == ("load", 3, 1, "why")
    assert (record.old_path, record.due_at, record.at) == (None, 7, 6)


def test_record_of_what_is_over() -> None:
    """Step, attempt and size of a life that ends are those before; nothing is made of zeros."""
    record = record_of_transition(transition(state="gone", step=None, attempt=0, seen=None), 1)
    assert (record.step, record.attempt, record.size) == ("load", 3, 1)
    unknown = Transition(Row(0, FULL.key), Row(1, FULL.key), "discover", "a", "n")
    record = record_of_transition(unknown, 1)
    assert (record.step, record.attempt, record.size) == (None, None, None)


def test_record_of_a_move() -> None:
    """Only a move has an old path."""
    record = record_of_transition(transition(key=Key("w", b"new")), 1)
    assert (record.path, record.old_path) == (b"new", b"d/e/f")


@pytest.mark.parametrize("resource", ["queries.sql", "inspect.sql"])
def test_queries_have_names_and_sentences(resource: str) -> None:
    """Each query is found by its name, whole, and without its comment."""
    queries = load_queries(resource)
    assert len(queries) > 5
    for name, sql in queries.items():
        assert sql.split()[0] in {"SELECT", "INSERT", "UPDATE", "WITH", "PRAGMA", "CREATE"}, name
        assert "{columns}" not in sql
        assert "--" not in sql
        assert not sql.endswith(";")


def test_migrations_begin_at_the_first() -> None:
    """The first migration makes the tables."""
    assert "CREATE TABLE files" in load_migrations()[0]
