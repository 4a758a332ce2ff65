-- name: insert_files_if_new
-- Files are seen for the first time; nothing happens where a path already has a row.
INSERT OR IGNORE INTO files ({columns}) VALUES {values};

-- name: insert_alike_files_if_new
-- Files are seen for the first time, with numbers in a row, and alike but for what the JSON has of
-- each; nothing happens where a path already has a row.
INSERT OR IGNORE INTO files (
    id, watch, state, version, step, plan, attempt, failures, interruptions, dev, error, result,
    rank, directory, name, size, mtime_ns, ctime_ns, ino, done, at, due_at, digest
) SELECT
    ? + new.key, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    CAST(json_extract(new.value, '$[0]') AS BLOB), CAST(json_extract(new.value, '$[1]') AS BLOB),
    json_extract(new.value, '$[2]'), json_extract(new.value, '$[3]'),
    json_extract(new.value, '$[4]'), json_extract(new.value, '$[5]'),
    json_extract(new.value, '$[6]'), json_extract(new.value, '$[7]'),
    json_extract(new.value, '$[8]'), json_extract(new.value, '$[9]')
FROM json_each(?) AS new;

-- name: insert_transitions_of_new
-- The same files' transitions are on record, with the JSON array of their attempts.
INSERT INTO transitions (
    seq, trigger, from_state, to_state, version, node, guard, cause, evidence, step, attempt,
    duration_ms, old_path, error, target, attempt_id, file_id, at, size, due_at
) SELECT
    ? + new.key, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    new.value, files.id, files.at, files.size, files.due_at
FROM json_each(?) AS new CROSS JOIN files ON files.id = ? + new.key;

-- name: update_files_if_version
-- Files move on by one version, if they still have the version that the decision was made on.
-- The path is left out: naming indexed columns would rewrite their index on every transition.
UPDATE files SET
    state = new.column3, version = new.column4, step = new.column5, plan = new.column6,
    attempt = new.column7, failures = new.column8, interruptions = new.column9,
    size = new.column10, mtime_ns = new.column11, ctime_ns = new.column12, ino = new.column13,
    dev = new.column14, done = new.column15, at = new.column16, due_at = new.column17,
    error = new.column18, digest = new.column19, result = new.column20, rank = new.column21
FROM (VALUES {values}) AS new WHERE files.id = new.column1 AND files.version = new.column2;

-- name: update_states_if_version
-- The same, where what the row shows of the disk stays, and what it hands on: the inode's index is
-- not rewritten.
UPDATE files SET
    state = new.column3, version = new.column4, step = new.column5, plan = new.column6,
    attempt = new.column7, failures = new.column8, interruptions = new.column9,
    done = new.column10, at = new.column11, due_at = new.column12, error = new.column13,
    rank = new.column14
FROM (VALUES {values}) AS new WHERE files.id = new.column1 AND files.version = new.column2;

-- name: vacate_paths_if_version
-- Files that have just moved on by one version leave their paths: two may exchange theirs.
UPDATE files SET name = CAST(x'00' || files.id AS BLOB)
FROM (VALUES {values}) AS new WHERE files.id = new.column1 AND files.version = new.column2;

-- name: rename_files_if_version
-- Files that have just moved on by one version have new paths.
UPDATE files SET watch = new.column3, directory = new.column4, name = new.column5
FROM (VALUES {values}) AS new WHERE files.id = new.column1 AND files.version = new.column2;

-- name: note_ctimes_if_version
-- Files show another ctime and the same content: what is known of them stays, and no line is due.
UPDATE files SET ctime_ns = new.column3
FROM (VALUES {values}) AS new WHERE files.id = new.column1 AND files.version = new.column2;

-- name: insert_transitions
-- Transitions are on record.
INSERT INTO transitions ({record_columns}) VALUES {values};

-- name: add_to_count
-- So many files more (or fewer) of a watch are in a state.
INSERT INTO counts (watch, state, files) VALUES (?, ?, ?)
ON CONFLICT (watch, state) DO UPDATE SET files = files + excluded.files;

-- name: find_transition
-- Was this very attempt committed, though its writer was told otherwise?
SELECT 1 FROM transitions WHERE file_id = ? AND version = ? AND attempt_id = ?;

-- name: advance_journal
-- The log has got this far.
UPDATE journal SET seq = ? WHERE seq < ?;

-- name: select_journal
-- How far has the log got?
SELECT seq FROM journal;

-- name: select_last_ids
-- The highest ids in use: the one writer counts on from them.
SELECT
    (SELECT coalesce(max(id), 0) FROM files),
    (SELECT coalesce(max(seq), 0) FROM transitions),
    (SELECT coalesce(max(seq), 0) FROM journal);

-- name: select_files_by_path
-- The rows of some paths. A join, for `(watch, directory, name) IN (VALUES ...)` uses no index.
SELECT {columns} FROM (VALUES {values}) AS asked CROSS JOIN files
ON watch = asked.column1 AND directory = asked.column2 AND name = asked.column3;

-- name: select_files_by_inode
-- The rows that show one of some inodes; the numbers come as a JSON array.
SELECT {columns} FROM files WHERE ino IN (SELECT value FROM json_each(?));

-- name: select_known
-- What a scan has to know of a directory's rows.
SELECT ino, size, mtime_ns, state, plan, NULL, name FROM files WHERE watch = ? AND directory = ?;

-- name: select_known_by_content
-- The same for a watch that goes by content.
SELECT ino, size, mtime_ns, state, plan, CASE WHEN digest IS NOT NULL THEN ctime_ns END, name
FROM files WHERE watch = ? AND directory = ?;

-- name: select_contents
-- What the files of a directory show, as its rows have it.
SELECT name, ino, size, mtime_ns FROM files WHERE watch = ? AND directory = ? LIMIT ?;

-- name: select_last_transition
-- As long as this stays, so do all rows, but for what `note_ctimes_if_version` notes.
SELECT max(seq) FROM transitions;

-- name: select_named
-- The rows of a directory whose names are in a range.
SELECT {columns} FROM files WHERE watch = ? AND directory = ? AND name >= ? AND name < ?
ORDER BY name LIMIT ?;

-- name: select_directories
-- The next directories that have rows, from one to another: a seek each, not a read of all rows.
WITH RECURSIVE found (directory) AS (
    SELECT (SELECT directory FROM files WHERE watch = ? AND directory >= ? AND directory < ?
        ORDER BY directory LIMIT 1)
    UNION ALL
    SELECT (SELECT f.directory FROM files AS f WHERE f.watch = ? AND f.directory > found.directory
        AND f.directory < ? ORDER BY f.directory LIMIT 1)
    FROM found WHERE found.directory IS NOT NULL
)
SELECT directory FROM found WHERE directory IS NOT NULL LIMIT ?;

-- name: exists_below
-- Are there rows below a path, in it as a directory or deeper? '0' follows '/' in the order of bytes.
SELECT EXISTS (SELECT 1 FROM files WHERE watch = ? AND directory = ?)
    OR EXISTS (SELECT 1 FROM files WHERE watch = ? AND directory > ? AND directory < ?);

-- name: select_ready
-- What waits for a step, in order of arrival. Here and below: unless it is said that none is done,
-- SQLite does not see that the index by state has them all.
SELECT {columns} FROM files
WHERE state = 'ready' AND state <> 'done' AND watch = ? AND step = ? ORDER BY at LIMIT ?;

-- name: create_ready_index
-- Finds the next of what is ready in an order of its own; a transition that neither comes from
-- `ready` nor leads there costs nothing for it.
CREATE INDEX IF NOT EXISTS {index} ON files (watch, step, rank, {folder}{key})
WHERE state = 'ready';

-- name: select_ready_indexes
-- Which such indexes are there?
SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'ready_by_%';

-- name: select_ready_in_order
-- What waits for a step: by rank, and then in the order that its watch asks for.
SELECT {columns} FROM files INDEXED BY {index}
WHERE state = 'ready' AND watch = ? AND step = ? ORDER BY rank, {key} LIMIT ?;

-- name: select_ready_folders
-- The next directories that have files of a rank waiting for a step: a seek each.
WITH RECURSIVE found (directory) AS (
    SELECT (SELECT directory FROM files INDEXED BY {index}
        WHERE state = 'ready' AND watch = ? AND step = ? AND rank = ? AND directory >= ?
        ORDER BY directory LIMIT 1)
    UNION ALL
    SELECT (SELECT f.directory FROM files AS f INDEXED BY {index}
        WHERE f.state = 'ready' AND f.watch = ? AND f.step = ? AND f.rank = ?
        AND f.directory > found.directory ORDER BY f.directory LIMIT 1)
    FROM found WHERE found.directory IS NOT NULL
)
SELECT directory FROM found WHERE directory IS NOT NULL LIMIT ?;

-- name: select_ready_in_folder
-- The first files of a rank in one directory that wait for a step.
SELECT {columns} FROM files INDEXED BY {index}
WHERE state = 'ready' AND watch = ? AND step = ? AND rank = ? AND directory = ?
ORDER BY {key} LIMIT ?;

-- name: select_ranked_by
-- By which patterns were the ranks of this watch given?
SELECT ranked_by FROM watches WHERE name = ?;

-- name: rank_ready_files
-- What is ready gets the rank that the patterns of today give it; `rank_of` is a function of ours.
UPDATE files SET rank = rank_of(directory, name)
WHERE state = 'ready' AND state <> 'done' AND watch = ? AND rank <> rank_of(directory, name);

-- name: set_ranked_by
-- From now on the ranks of a watch are given by these patterns.
UPDATE watches SET ranked_by = ? WHERE name = ?;

-- name: select_starts
-- When a step was started last, the latest first, since a moment: back to the first transition
-- that is older, for `seq` grows with the time. CROSS: the files come second, or all are read.
SELECT t.at FROM transitions AS t CROSS JOIN files AS f ON f.id = t.file_id
WHERE t.seq > coalesce((SELECT seq FROM transitions WHERE at <= ? ORDER BY seq DESC LIMIT 1), 0)
    AND t.trigger = 'start' AND f.watch = ? AND t.step = ?
ORDER BY t.seq DESC LIMIT ?;

-- name: select_step_counts
-- How many files wait for each step, and are in it?
SELECT watch, step, state, files FROM step_counts WHERE files > 0;

-- name: add_to_step_count
-- So many files more (or fewer) wait for a step, or are in it.
INSERT INTO step_counts (watch, step, state, files) VALUES (?, ?, ?, ?)
ON CONFLICT (watch, step, state) DO UPDATE SET files = files + excluded.files;

-- name: select_steps
-- How do the steps of this watch stand, as was said last?
SELECT steps FROM watches WHERE name = ?;

-- name: set_steps
-- How the steps of a watch stand just now.
UPDATE watches SET steps = ? WHERE name = ?;

-- name: select_in_state
-- Every row of a watch in one state, which is not `done`, after the given id.
SELECT {columns} FROM files
WHERE state = ? AND state <> 'done' AND watch = ? AND id > ? ORDER BY id LIMIT ?;

-- name: select_stranded
-- What waits for a step that its watch no longer has; the steps come as a JSON array.
SELECT {columns} FROM files
WHERE state IN ('ready', 'failed') AND state <> 'done' AND watch = ? AND plan = ?
    AND (step IS NULL OR step NOT IN (SELECT value FROM json_each(?)));

-- name: select_counts
-- How many files of each watch are in each state?
SELECT watch, state, files FROM counts WHERE files > 0;

-- name: select_due
-- What has a timer that ends before the horizon; the watches come as a JSON array. Left to itself
-- SQLite would read every row of the watches.
SELECT {columns} FROM files INDEXED BY files_by_due WHERE due_at < ? AND watch IN (SELECT value FROM json_each(?))
ORDER BY due_at LIMIT ?;

-- name: select_due_or_set_after
-- The same, and what was set by a clock that has since been put back: reads every timer there is.
SELECT {columns} FROM files INDEXED BY files_by_due
WHERE due_at IS NOT NULL AND (due_at < ? OR at > ?)
    AND watch IN (SELECT value FROM json_each(?))
ORDER BY due_at LIMIT ?;

-- name: select_owed
-- The transitions after a point of the log, in order.
SELECT {record} FROM transitions AS t JOIN files AS f ON f.id = t.file_id
WHERE t.seq > ? ORDER BY t.seq LIMIT ?;

-- name: select_history
-- The last transitions of a file, the newest first.
SELECT {record} FROM transitions AS t JOIN files AS f ON f.id = t.file_id
WHERE t.file_id = ? ORDER BY t.version DESC LIMIT ?;

-- name: insert_watch_if_new
-- A watch is seen for the first time.
INSERT OR IGNORE INTO watches (name, first_seen, adopted) VALUES (?, ?, 0);

-- name: select_watch
-- When was this watch first seen, and are its early files adopted?
SELECT first_seen, adopted FROM watches WHERE name = ?;

-- name: set_watch_adopted
-- All the files that were there before this watch are adopted.
UPDATE watches SET adopted = 1 WHERE name = ?;

-- name: count_live
-- How many files of a watch should be on the disk?
SELECT coalesce(sum(files), 0) FROM counts
WHERE watch = ? AND state NOT IN ('gone', 'untracked');

-- name: select_root
-- Which directory was the root of this watch?
SELECT root FROM watches WHERE name = ?;

-- name: set_root
-- From now on the root of a watch is this directory.
UPDATE watches SET root = ? WHERE name = ?;

-- name: select_archive
-- Which folder was it that files were taken to by this path?
SELECT mark FROM archives WHERE base = ?;

-- name: upsert_archive
-- From now on it is this one.
INSERT INTO archives (base, mark) VALUES (?, ?)
ON CONFLICT (base) DO UPDATE SET mark = excluded.mark;

-- name: set_detection
-- How the changes of a watch are found just now.
UPDATE watches SET detection = ? WHERE name = ?;
