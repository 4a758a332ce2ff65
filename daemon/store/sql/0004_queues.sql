-- How urgent a file is where patterns of its watch say so: a lower rank goes first.
ALTER TABLE files ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;

-- By which patterns the ranks of a watch were given, and how its steps stand, both as JSON.
ALTER TABLE watches ADD COLUMN ranked_by TEXT NOT NULL DEFAULT '';
ALTER TABLE watches ADD COLUMN steps TEXT;

-- How many files wait for each step (`ready`), and are in it (`processing`).
CREATE TABLE step_counts (
    watch TEXT    NOT NULL,
    step  TEXT    NOT NULL,
    state TEXT    NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (watch, step, state)
) WITHOUT ROWID;
INSERT INTO step_counts (watch, step, state, files)
SELECT watch, step, state, count(*) FROM files
WHERE state IN ('ready', 'processing') AND step IS NOT NULL GROUP BY watch, step, state;
