-- Most files are done, and nobody asks for those by state but `ls`, which reads them as fast in the
-- order of paths: what is adopted, and each that gets done, has one index less to be put into.
DROP INDEX files_by_state;
CREATE INDEX files_by_state ON files (state, watch, step, at) WHERE state <> 'done';
