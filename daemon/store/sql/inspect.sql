-- name: select_schema
-- Which schema does this file have? 0: none, it was only just made.
PRAGMA user_version;

-- name: select_counts
-- How many files of each watch are in each state, and since when the first of those that are ready.
SELECT watch, state, files, CASE state WHEN 'ready' THEN (
    SELECT min(at) FROM files
    WHERE files.state = 'ready' AND files.state <> 'done' AND files.watch = counts.watch
) END FROM counts WHERE files > 0;

-- name: select_next_retries
-- When does each watch try a failed file again?
SELECT watch, min(due_at) FROM files
WHERE state = 'failed' AND state <> 'done' AND due_at IS NOT NULL GROUP BY watch;

-- name: count_owed
-- How many transitions have no line in the log yet?
SELECT count(*) FROM transitions WHERE seq > (SELECT coalesce(max(seq), 0) FROM journal);

-- name: select_watch_names
-- Every watch that ever was.
SELECT name FROM watches ORDER BY name;

-- name: select_detections
-- How the changes of each watch are found, as the daemon last said.
SELECT name, detection FROM watches WHERE detection IS NOT NULL;

-- name: select_step_counts
-- How many files wait for each step, and are in it.
SELECT watch, step, state, files FROM step_counts WHERE files > 0;

-- name: select_all_steps
-- How the steps of each watch stand, as the daemon last said.
SELECT name, steps FROM watches WHERE steps IS NOT NULL;

-- name: select_files
-- Every file, in the order of paths, without a sort; the watches come as a JSON array, or NULL,
-- twice: numbered parameters and a tuple do not go together from Python 3.12 on.
SELECT {columns} FROM files
WHERE ? IS NULL OR watch IN (SELECT value FROM json_each(?))
ORDER BY watch, directory, name;

-- name: select_files_in_states
-- The files in some states, none of them `done`, in the order of paths: found by state, and sorted.
SELECT {columns} FROM files
WHERE (? IS NULL OR watch IN (SELECT value FROM json_each(?)))
    AND state IN (SELECT value FROM json_each(?)) AND state <> 'done'
ORDER BY watch, directory, name;

-- name: select_files_in_states_or_done
-- The same with those that are: most files, so that all are read, in the order of paths.
SELECT {columns} FROM files
WHERE (? IS NULL OR watch IN (SELECT value FROM json_each(?)))
    AND state IN (SELECT value FROM json_each(?))
ORDER BY watch, directory, name;

-- name: select_file
-- The row of one path.
SELECT {columns} FROM files WHERE watch = ? AND directory = ? AND name = ?;

-- name: select_history
-- The transitions of one file, in order.
SELECT {record} FROM transitions AS t JOIN files AS f ON f.id = t.file_id
WHERE t.file_id = ? ORDER BY t.version;

-- name: select_archive
-- Which folder was it that files were taken to by this path?
SELECT mark FROM archives WHERE base = ?;
