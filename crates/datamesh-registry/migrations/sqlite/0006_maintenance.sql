-- Files that no table references any more. They are deleted once nobody can be reading them.
CREATE TABLE unreferenced_files (
    path       TEXT PRIMARY KEY,
    domain     TEXT NOT NULL,
    product    TEXT NOT NULL,
    major      INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    since      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX unreferenced_files_by_time ON unreferenced_files (since);
