-- One row a file that was ever seen. Paths are bytes: Linux names need not be UTF-8.
CREATE TABLE files (
    id            INTEGER PRIMARY KEY,
    watch         TEXT    NOT NULL,
    directory     BLOB    NOT NULL,
    name          BLOB    NOT NULL,
    state         TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    step          TEXT,
    plan          TEXT    NOT NULL,
    attempt       INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    interruptions INTEGER NOT NULL,
    size          INTEGER,
    mtime_ns      INTEGER,
    ctime_ns      INTEGER,
    ino           INTEGER,
    dev           INTEGER,
    done          TEXT,
    at            INTEGER NOT NULL,
    due_at        INTEGER,
    error         TEXT
);

-- A directory's rows are neighbours: a scan reads them as one range.
CREATE UNIQUE INDEX files_by_path ON files (watch, directory, name);

-- Serves the lists by state, and the queue of what is ready, in order of arrival.
CREATE INDEX files_by_state ON files (state, watch, step, at);

CREATE INDEX files_by_due ON files (due_at) WHERE due_at IS NOT NULL;

-- How many files of each watch are in each state: counting a million rows takes 100 ms.
CREATE TABLE counts (
    watch TEXT    NOT NULL,
    state TEXT    NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (watch, state)
) WITHOUT ROWID;

-- Every committed transition. `seq` is given by the one writer and only grows.
CREATE TABLE transitions (
    seq         INTEGER PRIMARY KEY,
    file_id     INTEGER NOT NULL,
    trigger     TEXT    NOT NULL,
    from_state  TEXT    NOT NULL,
    to_state    TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    attempt_id  TEXT    NOT NULL,
    node        TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    guard       TEXT,
    cause       TEXT,
    evidence    TEXT,
    step        TEXT,
    attempt     INTEGER,
    duration_ms REAL,
    size        INTEGER,
    due_at      INTEGER,
    old_path    BLOB,
    error       TEXT
);

CREATE UNIQUE INDEX transitions_by_file ON transitions (file_id, version);

-- How far the log has got: every transition up to `seq` has its line.
CREATE TABLE journal (
    seq INTEGER NOT NULL
);
INSERT INTO journal (seq) VALUES (0);

-- When a watch was first seen, and whether the files that were there before it are adopted.
CREATE TABLE watches (
    name       TEXT    PRIMARY KEY,
    first_seen INTEGER NOT NULL,
    adopted    INTEGER NOT NULL
) WITHOUT ROWID;
