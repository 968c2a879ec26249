-- Format 1. See docs/sqlite.md.

CREATE TABLE records (
    n        INTEGER PRIMARY KEY,
    kind     TEXT    NOT NULL,
    id       BLOB    NOT NULL CHECK (length(id) = 16),
    parent   BLOB             CHECK (length(parent) = 16),
    owner    TEXT,
    state    TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    change   INTEGER NOT NULL,
    -- The last eight hex digits of the id, last one first: ids that end alike lie side by side in an index.
    tail     TEXT    NOT NULL GENERATED ALWAYS AS (lower(
                 substr(hex(id), 32, 1) || substr(hex(id), 31, 1) || substr(hex(id), 30, 1) ||
                 substr(hex(id), 29, 1) || substr(hex(id), 28, 1) || substr(hex(id), 27, 1) ||
                 substr(hex(id), 26, 1) || substr(hex(id), 25, 1))) VIRTUAL,
    -- Last, so that the rest is read without it.
    body     TEXT    NOT NULL
) STRICT;

CREATE UNIQUE INDEX records_by_id ON records (kind, id);
CREATE INDEX records_by_time ON records (kind, at, id);
CREATE INDEX records_by_state ON records (kind, state, at, id);
CREATE INDEX records_by_parent ON records (kind, parent, at, id) WHERE parent IS NOT NULL;
CREATE INDEX records_by_owner ON records (kind, owner, at, id) WHERE owner IS NOT NULL;
CREATE INDEX records_by_owner_state ON records (kind, owner, state, at, id) WHERE owner IS NOT NULL;
CREATE INDEX records_by_tail ON records (kind, tail, at, id);

CREATE TABLE changes (
    number   INTEGER NOT NULL,
    ordinal  INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    id       BLOB    NOT NULL,
    parent   BLOB,
    owner    TEXT,
    state    TEXT,
    revision INTEGER NOT NULL,
    PRIMARY KEY (number, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    node  BLOB    NOT NULL PRIMARY KEY CHECK (length(node) = 16),
    host  BLOB    NOT NULL CHECK (length(host) = 16),
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- For people who query: typed columns, ids as they are printed elsewhere, times in milliseconds since 1970 (UTC).

CREATE VIEW attempts AS
SELECT json_extract(body, '$.id')                 AS id,
       json_extract(body, '$.task')               AS task,
       json_extract(body, '$.title')              AS title,
       owner,
       state                                      AS status,
       json_extract(body, '$.reason.kind')        AS reason,
       json_extract(body, '$.workspace.kind')     AS workspace,
       json_extract(body, '$.workspace.path')     AS path,
       json_extract(body, '$.workspace.repo')     AS repo,
       json_extract(body, '$.workspace.branch')   AS branch,
       json_extract(body, '$.workspace.base')     AS base,
       json_extract(body, '$.workspace.base_oid') AS base_oid,
       json_extract(body, '$.workspace.target')   AS target,
       json_extract(body, '$.head')               AS head,
       json_extract(body, '$.claim')              AS claim,
       json_extract(body, '$.node')               AS node,
       json_extract(body, '$.epoch')              AS epoch,
       at                                         AS created_at,
       json_extract(body, '$.removed_at')         AS removed_at,
       revision,
       change
FROM records
WHERE kind = 'attempt' AND json_valid(body);

CREATE VIEW executions AS
SELECT json_extract(body, '$.id')                AS id,
       json_extract(body, '$.attempt')           AS attempt,
       owner,
       state                                     AS phase,
       json_extract(body, '$.action.kind')       AS action,
       json_extract(body, '$.action.argv')       AS argv,
       json_extract(body, '$.action.script')     AS script,
       json_extract(body, '$.action.run_reason') AS run_reason,
       json_extract(body, '$.outcome.kind')      AS outcome,
       json_extract(body, '$.exit.code')         AS exit_code,
       json_extract(body, '$.exit.signal')       AS exit_signal,
       json_extract(body, '$.message')           AS message,
       json_extract(body, '$.pid')               AS pid,
       json_extract(body, '$.cwd')               AS cwd,
       json_extract(body, '$.before_head')       AS before_head,
       json_extract(body, '$.after_head')        AS after_head,
       json_extract(body, '$.committed')         AS committed,
       json_extract(body, '$.log.last_seq')      AS log_last_seq,
       json_extract(body, '$.log.bytes')         AS log_bytes,
       json_extract(body, '$.output_incomplete') AS output_incomplete,
       at                                        AS created_at,
       json_extract(body, '$.started_at')        AS started_at,
       json_extract(body, '$.ended_at')          AS ended_at,
       revision,
       change
FROM records
WHERE kind = 'execution' AND json_valid(body);

CREATE VIEW requests AS
SELECT json_extract(body, '$.client_key') AS client_key,
       owner,
       json_extract(body, '$.attempt')    AS attempt,
       json_extract(body, '$.execution')  AS execution,
       at,
       revision,
       change
FROM records
WHERE kind = 'request' AND json_valid(body);
