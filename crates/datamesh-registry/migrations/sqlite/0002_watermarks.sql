-- How far an incremental pull came, by the publication that pulled. The newest one of a table counts.
CREATE TABLE watermarks (
    publication INTEGER NOT NULL REFERENCES publications (number),
    table_name  TEXT NOT NULL,
    column_name TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (publication, table_name)
) STRICT, WITHOUT ROWID;
