-- Which folder stood at a path when files were last taken there, as JSON.
CREATE TABLE archives (
    base BLOB PRIMARY KEY,
    mark TEXT NOT NULL
) WITHOUT ROWID;
