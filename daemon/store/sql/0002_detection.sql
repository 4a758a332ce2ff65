-- The digest of the content that a row shows, where its watch goes by content.
ALTER TABLE files ADD COLUMN digest TEXT;

-- Finds the row of a file that appears under another path.
CREATE INDEX files_by_inode ON files (ino) WHERE ino IS NOT NULL;

-- Which directory the root of a watch was, and how its changes are found, both as JSON.
ALTER TABLE watches ADD COLUMN root TEXT;
ALTER TABLE watches ADD COLUMN detection TEXT;
