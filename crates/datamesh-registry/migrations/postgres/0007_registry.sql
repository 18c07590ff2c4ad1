-- The registry, in the format that SQLite's migrations reach with the same number. Times are RFC 3339 text in UTC,
-- documents are JSON text, and text is compared by its bytes whatever the database's locale.
CREATE TABLE decisions (
    number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    format     BIGINT NOT NULL,
    at         TEXT COLLATE "C" NOT NULL,
    principal  TEXT COLLATE "C" NOT NULL,
    action     TEXT COLLATE "C" NOT NULL,
    resource   TEXT COLLATE "C" NOT NULL,
    outcome    TEXT COLLATE "C" NOT NULL,
    document   TEXT COLLATE "C" NOT NULL
);

-- Decisions are evidence: they are added, never changed.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are never changed or deleted', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER decisions_no_change BEFORE UPDATE OR DELETE ON decisions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER decisions_no_truncate BEFORE TRUNCATE ON decisions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE revisions (
    domain     TEXT COLLATE "C" NOT NULL,
    product    TEXT COLLATE "C" NOT NULL,
    major      BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    version    TEXT COLLATE "C" NOT NULL,
    contract   TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (domain, product, major, number)
);

-- Numbers are given by the transaction that holds the mesh's row, so that they rise in the order of commits.
CREATE TABLE publications (
    number          BIGINT PRIMARY KEY,
    domain          TEXT COLLATE "C" NOT NULL,
    product         TEXT COLLATE "C" NOT NULL,
    major           BIGINT NOT NULL,
    revision        BIGINT NOT NULL,
    version         TEXT COLLATE "C" NOT NULL,
    status          TEXT COLLATE "C" NOT NULL CHECK (status IN ('published', 'rejected')),
    at              TEXT COLLATE "C" NOT NULL,
    principal       TEXT COLLATE "C" NOT NULL,
    attempt         TEXT COLLATE "C" NOT NULL UNIQUE,
    decision        BIGINT NOT NULL REFERENCES decisions (number),
    idempotency_key TEXT COLLATE "C",
    report          TEXT COLLATE "C" NOT NULL,
    contract        TEXT COLLATE "C" NOT NULL
);

CREATE INDEX publications_by_product ON publications (domain, product, major, number);
CREATE UNIQUE INDEX publications_by_key ON publications (domain, product, major, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND status = 'published';

CREATE TABLE publication_tables (
    publication   BIGINT NOT NULL REFERENCES publications (number),
    table_name    TEXT COLLATE "C" NOT NULL,
    write_mode    TEXT COLLATE "C" NOT NULL,
    snapshot_id   BIGINT NOT NULL,
    content       TEXT COLLATE "C" NOT NULL,
    rows_in       BIGINT NOT NULL,
    published     BIGINT NOT NULL,
    quarantined   BIGINT NOT NULL,
    total_rows    BIGINT NOT NULL,
    CHECK (rows_in = published + quarantined),
    PRIMARY KEY (publication, table_name)
);

CREATE INDEX publication_tables_by_content ON publication_tables (content, table_name);

-- The current pointer of every published table. The metadata document is kept whole, beside its file.
CREATE TABLE tables (
    domain            TEXT COLLATE "C" NOT NULL,
    product           TEXT COLLATE "C" NOT NULL,
    major             BIGINT NOT NULL,
    table_name        TEXT COLLATE "C" NOT NULL,
    metadata_location TEXT COLLATE "C" NOT NULL,
    metadata          TEXT COLLATE "C" NOT NULL,
    content           TEXT COLLATE "C" NOT NULL,
    total_rows        BIGINT NOT NULL,
    publication       BIGINT NOT NULL REFERENCES publications (number),
    PRIMARY KEY (domain, product, major, table_name)
);

CREATE TABLE quarantine_files (
    publication BIGINT NOT NULL REFERENCES publications (number),
    table_name  TEXT COLLATE "C" NOT NULL,
    path        TEXT COLLATE "C" NOT NULL,
    row_count   BIGINT NOT NULL,
    PRIMARY KEY (publication, path)
);

CREATE INDEX quarantine_files_by_path ON quarantine_files (path);

-- An attempt registers where it will write before it writes. A claimed lease can no longer commit.
CREATE TABLE leases (
    attempt    TEXT COLLATE "C" PRIMARY KEY,
    document   TEXT COLLATE "C" NOT NULL,
    expires_at TEXT COLLATE "C" NOT NULL,
    claimed    BIGINT NOT NULL DEFAULT 0
);

-- How far an incremental pull came, by the publication that pulled. The newest one of a table counts.
CREATE TABLE watermarks (
    publication BIGINT NOT NULL REFERENCES publications (number),
    table_name  TEXT COLLATE "C" NOT NULL,
    column_name TEXT COLLATE "C" NOT NULL,
    value       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (publication, table_name)
);

-- A rollback is a publication that brings back what an earlier one served.
CREATE TABLE rollbacks (
    publication BIGINT PRIMARY KEY REFERENCES publications (number),
    target      BIGINT NOT NULL REFERENCES publications (number)
);

-- Quarantined rows of a publication's table that a later publication has judged again, or has taken mended. The key makes
-- it happen once.
CREATE TABLE quarantine_resolutions (
    publication BIGINT NOT NULL REFERENCES publications (number),
    table_name  TEXT COLLATE "C" NOT NULL,
    resolved_by BIGINT NOT NULL REFERENCES publications (number),
    how         TEXT COLLATE "C" NOT NULL CHECK (how IN ('retried', 'mended')),
    PRIMARY KEY (publication, table_name)
);

-- How a publication made its tables of other products: what a run read, and where the next incremental one begins.
CREATE TABLE publication_transforms (
    publication BIGINT NOT NULL REFERENCES publications (number),
    table_name  TEXT COLLATE "C" NOT NULL,
    sql_hash    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (publication, table_name)
);

CREATE TABLE publication_inputs (
    publication       BIGINT NOT NULL,
    table_name        TEXT COLLATE "C" NOT NULL,
    input_domain      TEXT COLLATE "C" NOT NULL,
    input_product     TEXT COLLATE "C" NOT NULL,
    input_major       BIGINT NOT NULL,
    input_version     TEXT COLLATE "C" NOT NULL,
    input_table       TEXT COLLATE "C" NOT NULL,
    input_publication BIGINT NOT NULL,
    snapshot_id       BIGINT NOT NULL,
    -- 1 where only the rows after `since` were read; no `since`: all of them were new.
    changes           BIGINT NOT NULL,
    since             BIGINT,
    PRIMARY KEY (publication, table_name, input_domain, input_product, input_major, input_table, changes),
    FOREIGN KEY (publication, table_name) REFERENCES publication_transforms (publication, table_name)
);

CREATE INDEX publication_inputs_by_input ON publication_inputs (input_domain, input_product, input_major, input_table);

-- Where the columns of a publication's tables come from. Datasets are named as OpenLineage names them; a table of this
-- mesh is `domain.product_v1.table` in the namespace `datamesh`. An empty output field is the rows as such; an empty
-- input field with an empty subtype is a dataset that was read without any of its columns.
CREATE TABLE lineage_edges (
    publication     BIGINT NOT NULL REFERENCES publications (number),
    table_name      TEXT COLLATE "C" NOT NULL,
    field           TEXT COLLATE "C" NOT NULL,
    input_namespace TEXT COLLATE "C" NOT NULL,
    input_name      TEXT COLLATE "C" NOT NULL,
    input_field     TEXT COLLATE "C" NOT NULL,
    subtype         TEXT COLLATE "C" NOT NULL,
    masking         BIGINT NOT NULL,
    -- An index holds at most 2,704 bytes of a row, and a name is as long as whoever chose it wanted.
    edge            BIGINT GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (publication, table_name, edge)
);

-- Files that no table references any more. They are deleted once nobody can be reading them.
CREATE TABLE unreferenced_files (
    path       TEXT COLLATE "C" PRIMARY KEY,
    domain     TEXT COLLATE "C" NOT NULL,
    product    TEXT COLLATE "C" NOT NULL,
    major      BIGINT NOT NULL,
    table_name TEXT COLLATE "C" NOT NULL,
    since      TEXT COLLATE "C" NOT NULL
);

CREATE INDEX unreferenced_files_by_time ON unreferenced_files (since);

-- The mesh itself. Its key signs plans that travel as files; its generation rises with every change to what is applied.
-- Transactions that write lock this row, so there is one at a time.
CREATE TABLE mesh (
    singleton  BIGINT PRIMARY KEY CHECK (singleton = 1),
    id         TEXT COLLATE "C" NOT NULL,
    key        BYTEA NOT NULL CHECK (length(key) = 32),
    generation BIGINT NOT NULL DEFAULT 0
);

-- Three random UUIDs hold more than 256 random bits.
INSERT INTO mesh (singleton, id, key)
VALUES (1, gen_random_uuid()::text,
        sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));
