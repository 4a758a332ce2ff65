"""Reads that are more than one statement: by directory, and what is ready in the order asked.

Runs in a connection's thread.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from daemon.core.model import Key, Row
from daemon.store import Known, Queue
from daemon.store.queries import in_order, load_queries
from daemon.store.rows import path_of, row_of
from daemon.store.writing import transaction

SQL = load_queries("queries.sql")
# Rows in memory that a scan compares at once.
_ENOUGH = 20_000


def known(
    sql: str, watch: str, directories: Sequence[bytes], db: sqlite3.Connection
) -> list[dict[bytes, Known]]:
    """See `Store.known`."""
    found: list[dict[bytes, Known]] = []
    rows = 0
    for directory in directories:
        read = db.execute(sql, (watch, directory)).fetchall()
        found.append({row[6]: Known._make(row[:6]) for row in read})
        rows += len(read)
        if rows > _ENOUGH:
            break
    return found


def has_below(db: sqlite3.Connection, key: Key) -> bool:
    """See `Store.any_below`."""
    watch, path = key
    bounds = (watch, path, watch, path + b"/", path + b"0")
    ((found,),) = db.execute(SQL["exists_below"], bounds).fetchall()
    return bool(found)


def prepare(queues: Sequence[Queue], db: sqlite3.Connection) -> None:
    """See `Store.prepare`. Each index costs what is ready about a microsecond a file, twice."""
    wanted = {queue.index_name: queue for queue in queues if queue.index_name}
    with transaction(db):
        for (name,) in db.execute(SQL["select_ready_indexes"]).fetchall():
            if name not in wanted:
                db.execute(f"DROP INDEX {name}")
        for queue in wanted.values():
            db.execute(in_order(SQL["create_ready_index"], queue))


def ready(queue: Queue, limit: int, db: sqlite3.Connection) -> list[Row]:
    """See `Store.ready`."""
    sql = in_order(SQL["select_ready_in_order"], queue) if queue.index_name else SQL["select_ready"]
    return [row_of(values) for values in db.execute(sql, (queue.watch, queue.step, limit))]


def ready_in_folders(
    queue: Queue,
    rank: int,
    first: bytes,
    folders: int,
    each: int,
    more: Mapping[bytes, int],
    db: sqlite3.Connection,
) -> dict[bytes, list[Row]]:
    """See `Store.ready_in_folders`."""
    of_rank = (queue.watch, queue.step, rank)
    sql = in_order(SQL["select_ready_folders"], queue)
    names = db.execute(sql, (*of_rank, first, *of_rank, folders)).fetchall()
    sql = in_order(SQL["select_ready_in_folder"], queue)
    return {
        name: [row_of(values) for values in db.execute(sql, (*of_rank, name, each + extra))]
        for (name,) in names
        for extra in (more.get(name, 0),)
    }


def rank_ready(
    watch: str, ranked_by: str, rank_of: Callable[[bytes], int], db: sqlite3.Connection
) -> None:
    """See `Store.rank_ready`. In the thread of the writer: a million files take seconds, once."""
    if db.execute(SQL["select_ranked_by"], (watch,)).fetchone() in {(ranked_by,), None}:
        return
    db.create_function("rank_of", 2, lambda *path: rank_of(path_of(*path)), deterministic=True)
    with transaction(db):
        db.execute(SQL["rank_ready_files"], (watch,))
        db.execute(SQL["set_ranked_by"], (ranked_by, watch))
