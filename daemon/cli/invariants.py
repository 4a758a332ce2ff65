"""What must hold in every database of treewarden, whatever happened to the daemon."""

import sqlite3

from daemon.core.lifecycle import LEGAL, STATES

_GAPS = """
SELECT f.id, f.version, count(t.seq), coalesce(min(t.version), 0), coalesce(max(t.version), 0)
FROM files AS f LEFT JOIN transitions AS t ON t.file_id = f.id
GROUP BY f.id HAVING count(t.seq) != f.version OR max(t.version) != f.version OR min(t.version) != 1
"""
_BROKEN_CHAIN = """
SELECT a.file_id, a.version, a.to_state, b.from_state FROM transitions AS a
JOIN transitions AS b ON b.file_id = a.file_id AND b.version = a.version + 1
WHERE a.to_state != b.from_state
"""
_MISCOUNTED = """
SELECT watch, state, sum(kept), sum(there) FROM (
    SELECT watch, state, files AS kept, 0 AS there FROM counts
    UNION ALL SELECT watch, state, 0, count(*) FROM files GROUP BY watch, state
) GROUP BY watch, state HAVING sum(kept) != sum(there)
"""
_MISCOUNTED_AT_STEPS = """
SELECT watch, step || ' ' || state, sum(kept), sum(there) FROM (
    SELECT watch, step, state, files AS kept, 0 AS there FROM step_counts
    UNION ALL SELECT watch, step, state, 0, count(*) FROM files
    WHERE state IN ('ready', 'processing') AND step IS NOT NULL GROUP BY watch, step, state
) GROUP BY watch, step, state HAVING sum(kept) != sum(there)
"""
_DISAGREEING = """
SELECT f.id, f.state, t.to_state FROM files AS f
JOIN transitions AS t ON t.file_id = f.id AND t.version = f.version WHERE t.to_state != f.state
"""


def broken_invariants(db: sqlite3.Connection) -> list[str]:
    """A sentence for each thing that must not be; empty for a sound database."""
    found = [
        f"the integrity check says: {text}"
        for (text,) in db.execute("PRAGMA quick_check")
        if text != "ok"
    ]
    states = [state for (state,) in db.execute("SELECT DISTINCT state FROM files")]
    found += [f"unknown state {state!r}" for state in states if state not in STATES]
    edges = db.execute("SELECT DISTINCT from_state, trigger, to_state FROM transitions")
    found += [f"illegal edge {' '.join(edge)}" for edge in edges if edge not in LEGAL]
    found += [
        f"file {row[0]}: version {row[1]}, transitions {row[2:]}" for row in db.execute(_GAPS)
    ]
    found += [f"file {row[0]}: {row[1:]} does not join up" for row in db.execute(_BROKEN_CHAIN)]
    found += [
        f"file {row[0]}: row {row[1]}, last transition {row[2]}" for row in db.execute(_DISAGREEING)
    ]
    found += [
        f"{row[0]} {row[1]}: {row[2]} counted, {row[3]} there"
        for query in (_MISCOUNTED, _MISCOUNTED_AT_STEPS)
        for row in db.execute(query)
    ]
    return found
