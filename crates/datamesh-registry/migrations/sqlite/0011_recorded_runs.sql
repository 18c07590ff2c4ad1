-- Runs outside the mesh that somebody recorded: what they read and what they made. Their edges stand beside those of
-- publications, written as those are.
CREATE TABLE recorded_runs (
    number      INTEGER PRIMARY KEY,
    run_id      TEXT NOT NULL UNIQUE,
    at          TEXT NOT NULL,
    job         TEXT NOT NULL,
    principal   TEXT NOT NULL,
    decision    INTEGER NOT NULL REFERENCES decisions (number),
    -- The mesh's newest publication at that time; 0: there was none.
    publication INTEGER NOT NULL,
    -- The OpenLineage run event.
    event       TEXT NOT NULL
) STRICT;

CREATE TABLE recorded_edges (
    run             INTEGER NOT NULL REFERENCES recorded_runs (number),
    domain          TEXT NOT NULL,
    product         TEXT NOT NULL,
    major           INTEGER NOT NULL,
    table_name      TEXT NOT NULL,
    field           TEXT NOT NULL,
    input_namespace TEXT NOT NULL,
    input_name      TEXT NOT NULL,
    input_field     TEXT NOT NULL,
    subtype         TEXT NOT NULL,
    masking         INTEGER NOT NULL,
    edge            INTEGER NOT NULL,
    PRIMARY KEY (domain, product, major, table_name, run, edge)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER recorded_runs_no_update BEFORE UPDATE ON recorded_runs
BEGIN SELECT RAISE(ABORT, 'recorded runs are not changed'); END;
CREATE TRIGGER recorded_runs_no_delete BEFORE DELETE ON recorded_runs
BEGIN SELECT RAISE(ABORT, 'recorded runs are not changed'); END;
