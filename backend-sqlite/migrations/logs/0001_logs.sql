-- Format 1 of a store of logs. See docs/sqlite.md.

CREATE TABLE logs (
    n         INTEGER PRIMARY KEY,
    execution BLOB    NOT NULL CHECK (length(execution) = 16),
    nonce     BLOB    NOT NULL CHECK (length(nonce) = 16),
    last      INTEGER NOT NULL DEFAULT 0,
    entries   INTEGER NOT NULL DEFAULT 0,
    gaps      INTEGER NOT NULL DEFAULT 0,
    bytes     INTEGER NOT NULL DEFAULT 0,
    dropped   INTEGER NOT NULL DEFAULT 0,
    sealed    INTEGER NOT NULL DEFAULT 0,
    -- Gone for everybody; its items are being removed.
    removed   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX logs_by_name ON logs (execution, nonce) WHERE NOT removed;
CREATE INDEX logs_removed ON logs (n) WHERE removed;

-- Entries, and gaps, which have no stream.
CREATE TABLE items (
    n       INTEGER PRIMARY KEY,
    log     INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    -- Of an entry.
    stream  TEXT,
    at      INTEGER,
    partial INTEGER,
    -- Of a gap.
    cause   TEXT,
    endless INTEGER,
    len     INTEGER NOT NULL,
    -- Last, so that the rest is read without it.
    bytes   BLOB
) STRICT;

CREATE UNIQUE INDEX items_by_number ON items (log, last);
