-- The audit log: every entry carries the hash of the one before it, and the chain is signed now and then. The text of an
-- entry is canonical JSON (RFC 8785); the other columns repeat what is found by.
CREATE TABLE audit (
    sequence        INTEGER PRIMARY KEY,
    at              TEXT NOT NULL,
    kind            TEXT NOT NULL,
    principal       TEXT NOT NULL,
    impersonated_by TEXT,
    action          TEXT NOT NULL,
    resource        TEXT NOT NULL,
    outcome         TEXT NOT NULL,
    decision        INTEGER REFERENCES decisions (number),
    publication     INTEGER REFERENCES publications (number),
    previous        TEXT NOT NULL,
    hash            TEXT NOT NULL,
    document        TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX audit_by_decision ON audit (decision) WHERE kind = 'decision';
CREATE UNIQUE INDEX audit_by_publication ON audit (publication) WHERE publication IS NOT NULL;

-- Where the log ends, and its last checkpoint. Whoever adds an entry holds this row until the end of the transaction.
CREATE TABLE audit_head (
    singleton  INTEGER PRIMARY KEY CHECK (singleton = 1),
    sequence   INTEGER NOT NULL,
    hash       TEXT NOT NULL,
    checkpoint INTEGER NOT NULL
) STRICT;
INSERT INTO audit_head VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);

-- What a publication was, signed.
CREATE TABLE receipts (
    publication INTEGER PRIMARY KEY REFERENCES publications (number),
    receipt     TEXT NOT NULL
) STRICT;

-- What the whole mesh agreed on, every revision of it.
CREATE TABLE governance (
    revision   INTEGER PRIMARY KEY,
    document   TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    applied_by TEXT NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

ALTER TABLE mesh ADD COLUMN governance_revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mesh ADD COLUMN grant_revision INTEGER NOT NULL DEFAULT 0;

CREATE TABLE access_requests (
    number       INTEGER PRIMARY KEY,
    domain       TEXT NOT NULL,
    product      TEXT NOT NULL,
    major        INTEGER NOT NULL,
    principal    TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'withdrawn')),
    document     TEXT NOT NULL
) STRICT;

CREATE INDEX access_requests_by_product ON access_requests (domain, product, major, state);

CREATE TABLE grants (
    number     INTEGER PRIMARY KEY,
    request    INTEGER NOT NULL UNIQUE REFERENCES access_requests (number),
    domain     TEXT NOT NULL,
    product    TEXT NOT NULL,
    major      INTEGER NOT NULL,
    principal  TEXT NOT NULL,
    expires_at TEXT,
    revoked    INTEGER NOT NULL DEFAULT 0,
    document   TEXT NOT NULL
) STRICT;

CREATE INDEX grants_by_principal ON grants (principal, domain, product, major);
CREATE INDEX grants_by_product ON grants (domain, product, major);

-- What was done about access, by the id that whoever did it gave: nothing is done twice.
CREATE TABLE access_events (
    id           TEXT PRIMARY KEY,
    request      INTEGER NOT NULL REFERENCES access_requests (number),
    grant_number INTEGER REFERENCES grants (number),
    entry        INTEGER NOT NULL REFERENCES audit (sequence)
) STRICT, WITHOUT ROWID;

-- Evidence is added, never changed.
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit are never changed or deleted'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit are never changed or deleted'); END;
CREATE TRIGGER receipts_no_update BEFORE UPDATE ON receipts BEGIN SELECT RAISE(ABORT, 'receipts are never changed or deleted'); END;
CREATE TRIGGER receipts_no_delete BEFORE DELETE ON receipts BEGIN SELECT RAISE(ABORT, 'receipts are never changed or deleted'); END;
CREATE TRIGGER governance_no_update BEFORE UPDATE ON governance BEGIN SELECT RAISE(ABORT, 'governance are never changed or deleted'); END;
CREATE TRIGGER governance_no_delete BEFORE DELETE ON governance BEGIN SELECT RAISE(ABORT, 'governance are never changed or deleted'); END;
CREATE TRIGGER access_events_no_update BEFORE UPDATE ON access_events BEGIN SELECT RAISE(ABORT, 'access_events are never changed or deleted'); END;
CREATE TRIGGER access_events_no_delete BEFORE DELETE ON access_events BEGIN SELECT RAISE(ABORT, 'access_events are never changed or deleted'); END;
-- `INSERT OR REPLACE` would delete without a trigger that hears of it.
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
    WHEN NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM audit)
    BEGIN SELECT RAISE(ABORT, 'audit entries follow one another'); END;
CREATE TRIGGER decisions_no_replace BEFORE INSERT ON decisions
    WHEN EXISTS (SELECT 1 FROM decisions WHERE number = NEW.number)
    BEGIN SELECT RAISE(ABORT, 'decisions are never changed'); END;
