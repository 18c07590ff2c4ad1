-- The audit log: every entry carries the hash of the one before it, and the chain is signed now and then. The text of an
-- entry is canonical JSON (RFC 8785); the other columns repeat what is found by.
CREATE TABLE audit (
    sequence        BIGINT PRIMARY KEY,
    at              TEXT COLLATE "C" NOT NULL,
    kind            TEXT COLLATE "C" NOT NULL,
    principal       TEXT COLLATE "C" NOT NULL,
    impersonated_by TEXT COLLATE "C",
    action          TEXT COLLATE "C" NOT NULL,
    resource        TEXT COLLATE "C" NOT NULL,
    outcome         TEXT COLLATE "C" NOT NULL,
    decision        BIGINT REFERENCES decisions (number),
    publication     BIGINT REFERENCES publications (number),
    previous        TEXT COLLATE "C" NOT NULL,
    hash            TEXT COLLATE "C" NOT NULL,
    document        TEXT COLLATE "C" NOT NULL
);

CREATE UNIQUE INDEX audit_by_decision ON audit (decision) WHERE kind = 'decision';
CREATE UNIQUE INDEX audit_by_publication ON audit (publication) WHERE publication IS NOT NULL;

-- Where the log ends, and its last checkpoint. Whoever adds an entry holds this row until the end of the transaction.
CREATE TABLE audit_head (
    singleton  BIGINT PRIMARY KEY CHECK (singleton = 1),
    sequence   BIGINT NOT NULL,
    hash       TEXT COLLATE "C" NOT NULL,
    checkpoint BIGINT NOT NULL
);
INSERT INTO audit_head VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);

-- What a publication was, signed.
CREATE TABLE receipts (
    publication BIGINT PRIMARY KEY REFERENCES publications (number),
    receipt     TEXT COLLATE "C" NOT NULL
);

-- What the whole mesh agreed on, every revision of it.
CREATE TABLE governance (
    revision   BIGINT PRIMARY KEY,
    document   TEXT COLLATE "C" NOT NULL,
    applied_at TEXT COLLATE "C" NOT NULL,
    applied_by TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL
);

ALTER TABLE mesh ADD COLUMN governance_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mesh ADD COLUMN grant_revision BIGINT NOT NULL DEFAULT 0;

CREATE TABLE access_requests (
    number       BIGINT PRIMARY KEY,
    domain       TEXT COLLATE "C" NOT NULL,
    product      TEXT COLLATE "C" NOT NULL,
    major        BIGINT NOT NULL,
    principal    TEXT COLLATE "C" NOT NULL,
    requested_by TEXT COLLATE "C" NOT NULL,
    state        TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'withdrawn')),
    document     TEXT COLLATE "C" NOT NULL
);

CREATE INDEX access_requests_by_product ON access_requests (domain, product, major, state);

CREATE TABLE grants (
    number     BIGINT PRIMARY KEY,
    request    BIGINT NOT NULL UNIQUE REFERENCES access_requests (number),
    domain     TEXT COLLATE "C" NOT NULL,
    product    TEXT COLLATE "C" NOT NULL,
    major      BIGINT NOT NULL,
    principal  TEXT COLLATE "C" NOT NULL,
    expires_at TEXT COLLATE "C",
    revoked    BIGINT NOT NULL DEFAULT 0,
    document   TEXT COLLATE "C" NOT NULL
);

CREATE INDEX grants_by_principal ON grants (principal, domain, product, major);
CREATE INDEX grants_by_product ON grants (domain, product, major);

-- What was done about access, by the id that whoever did it gave: nothing is done twice.
CREATE TABLE access_events (
    id           TEXT COLLATE "C" PRIMARY KEY,
    request      BIGINT NOT NULL REFERENCES access_requests (number),
    grant_number BIGINT REFERENCES grants (number),
    entry        BIGINT NOT NULL REFERENCES audit (sequence)
);

-- Evidence is added, never changed.
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER receipts_no_change BEFORE UPDATE OR DELETE ON receipts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER receipts_no_truncate BEFORE TRUNCATE ON receipts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER governance_no_change BEFORE UPDATE OR DELETE ON governance
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER governance_no_truncate BEFORE TRUNCATE ON governance
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER access_events_no_change BEFORE UPDATE OR DELETE ON access_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER access_events_no_truncate BEFORE TRUNCATE ON access_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
