-- The embedded registry. Times are RFC 3339 text in UTC, documents are JSON text.
CREATE TABLE decisions (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    format     INTEGER NOT NULL,
    at         TEXT NOT NULL,
    principal  TEXT NOT NULL,
    action     TEXT NOT NULL,
    resource   TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    document   TEXT NOT NULL
) STRICT;

-- Decisions are evidence: they are added, never changed.
CREATE TRIGGER decisions_no_update BEFORE UPDATE ON decisions BEGIN SELECT RAISE(ABORT, 'decisions are never changed'); END;
CREATE TRIGGER decisions_no_delete BEFORE DELETE ON decisions BEGIN SELECT RAISE(ABORT, 'decisions are never deleted'); END;

CREATE TABLE revisions (
    domain     TEXT NOT NULL,
    product    TEXT NOT NULL,
    major      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    version    TEXT NOT NULL,
    contract   TEXT NOT NULL,
    created_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (domain, product, major, number)
) STRICT;

CREATE TABLE publications (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    domain          TEXT NOT NULL,
    product         TEXT NOT NULL,
    major           INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    version         TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('published', 'rejected')),
    at              TEXT NOT NULL,
    principal       TEXT NOT NULL,
    attempt         TEXT NOT NULL UNIQUE,
    decision        INTEGER NOT NULL REFERENCES decisions (number),
    idempotency_key TEXT,
    report          TEXT NOT NULL,
    contract        TEXT NOT NULL
) STRICT;

CREATE INDEX publications_by_product ON publications (domain, product, major, number);
CREATE UNIQUE INDEX publications_by_key ON publications (domain, product, major, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND status = 'published';

CREATE TABLE publication_tables (
    publication   INTEGER NOT NULL REFERENCES publications (number),
    table_name    TEXT NOT NULL,
    write_mode    TEXT NOT NULL,
    snapshot_id   INTEGER NOT NULL,
    content       TEXT NOT NULL,
    rows_in       INTEGER NOT NULL,
    published     INTEGER NOT NULL,
    quarantined   INTEGER NOT NULL,
    total_rows    INTEGER NOT NULL,
    CHECK (rows_in = published + quarantined),
    PRIMARY KEY (publication, table_name)
) STRICT, WITHOUT ROWID;

CREATE INDEX publication_tables_by_content ON publication_tables (content, table_name);

-- The current pointer of every published table. The metadata document is kept whole, beside its file.
CREATE TABLE tables (
    domain            TEXT NOT NULL,
    product           TEXT NOT NULL,
    major             INTEGER NOT NULL,
    table_name        TEXT NOT NULL,
    metadata_location TEXT NOT NULL,
    metadata          TEXT NOT NULL,
    content           TEXT NOT NULL,
    total_rows        INTEGER NOT NULL,
    publication       INTEGER NOT NULL REFERENCES publications (number),
    PRIMARY KEY (domain, product, major, table_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine_files (
    publication INTEGER NOT NULL REFERENCES publications (number),
    table_name  TEXT NOT NULL,
    path        TEXT NOT NULL,
    row_count   INTEGER NOT NULL,
    PRIMARY KEY (publication, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX quarantine_files_by_path ON quarantine_files (path);

-- An attempt registers where it will write before it writes. A claimed lease can no longer commit.
CREATE TABLE leases (
    attempt    TEXT PRIMARY KEY,
    document   TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    claimed    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
