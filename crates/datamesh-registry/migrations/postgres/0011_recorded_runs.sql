-- Runs outside the mesh that somebody recorded: what they read and what they made. Their edges stand beside those of
-- publications, written as those are.
CREATE TABLE recorded_runs (
    number      BIGINT PRIMARY KEY,
    run_id      TEXT COLLATE "C" NOT NULL UNIQUE,
    at          TEXT COLLATE "C" NOT NULL,
    job         TEXT COLLATE "C" NOT NULL,
    principal   TEXT COLLATE "C" NOT NULL,
    decision    BIGINT NOT NULL REFERENCES decisions (number),
    -- The mesh's newest publication at that time; 0: there was none.
    publication BIGINT NOT NULL,
    -- The OpenLineage run event.
    event       TEXT COLLATE "C" NOT NULL
);

CREATE TABLE recorded_edges (
    run             BIGINT NOT NULL REFERENCES recorded_runs (number),
    domain          TEXT COLLATE "C" NOT NULL,
    product         TEXT COLLATE "C" NOT NULL,
    major           BIGINT NOT NULL,
    table_name      TEXT COLLATE "C" NOT NULL,
    field           TEXT COLLATE "C" NOT NULL,
    input_namespace TEXT COLLATE "C" NOT NULL,
    input_name      TEXT COLLATE "C" NOT NULL,
    input_field     TEXT COLLATE "C" NOT NULL,
    subtype         TEXT COLLATE "C" NOT NULL,
    masking         BIGINT NOT NULL,
    edge            BIGINT NOT NULL,
    PRIMARY KEY (run, edge)
);

CREATE INDEX recorded_edges_by_table ON recorded_edges (domain, product, major, table_name);

CREATE TRIGGER recorded_runs_no_change BEFORE UPDATE OR DELETE ON recorded_runs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER recorded_runs_no_truncate BEFORE TRUNCATE ON recorded_runs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
