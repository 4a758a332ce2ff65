-- Where the daemon has taken the file, in the transition that says so: an absolute path.
ALTER TABLE transitions ADD COLUMN target BLOB;
