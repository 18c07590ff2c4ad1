-- The applied domains, as they were applied last.
CREATE TABLE domains (
    name       TEXT PRIMARY KEY,
    document   TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    applied_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every plan that was applied, by the generation that it led to.
CREATE TABLE applies (
    generation INTEGER PRIMARY KEY,
    at         TEXT NOT NULL,
    principal  TEXT NOT NULL,
    decision   INTEGER NOT NULL UNIQUE REFERENCES decisions (number),
    plan       TEXT NOT NULL
) STRICT;
