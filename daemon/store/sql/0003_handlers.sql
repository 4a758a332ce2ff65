-- What the last step that succeeded hands on to the next one: a small JSON text.
ALTER TABLE files ADD COLUMN result TEXT;
