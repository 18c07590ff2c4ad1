-- A rollback is a publication that brings back what an earlier one served.
CREATE TABLE rollbacks (
    publication INTEGER PRIMARY KEY REFERENCES publications (number),
    target      INTEGER NOT NULL REFERENCES publications (number)
) STRICT;

-- Quarantined rows of a publication's table that a later publication has judged again, or has taken mended. The key makes
-- it happen once.
CREATE TABLE quarantine_resolutions (
    publication INTEGER NOT NULL REFERENCES publications (number),
    table_name  TEXT NOT NULL,
    resolved_by INTEGER NOT NULL REFERENCES publications (number),
    how         TEXT NOT NULL CHECK (how IN ('retried', 'mended')),
    PRIMARY KEY (publication, table_name)
) STRICT, WITHOUT ROWID;
