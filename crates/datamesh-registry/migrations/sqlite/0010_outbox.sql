-- What others must be told: each pointer that moved and each product that changed, in the order of commits. Rows go once
-- every consumer has passed them; who comes later begins with what is current.
CREATE TABLE outbox (
    sequence          INTEGER PRIMARY KEY,
    at                TEXT NOT NULL,
    kind              TEXT NOT NULL,
    domain            TEXT NOT NULL,
    product           TEXT NOT NULL,
    major             INTEGER NOT NULL,
    table_name        TEXT,
    metadata_location TEXT,
    publication       INTEGER REFERENCES publications (number),
    CHECK ((table_name IS NULL) = (metadata_location IS NULL) AND (table_name IS NULL) = (publication IS NULL))
) STRICT;

-- How far each consumer has come.
CREATE TABLE outbox_consumers (
    name        TEXT PRIMARY KEY,
    sequence    INTEGER NOT NULL,
    advanced_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The number of the newest entry, and of the newest that is no longer kept.
ALTER TABLE mesh ADD COLUMN outbox_sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mesh ADD COLUMN outbox_trimmed INTEGER NOT NULL DEFAULT 0;

-- The entry that told of a pointer last. What was published before there was an outbox is numbered as it was published.
ALTER TABLE tables ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
UPDATE tables SET sequence = numbered.sequence FROM (
    SELECT domain, product, major, table_name,
           row_number() OVER (ORDER BY publication, domain, product, major, table_name) AS sequence
    FROM tables
) AS numbered
WHERE tables.domain = numbered.domain AND tables.product = numbered.product AND tables.major = numbered.major
AND tables.table_name = numbered.table_name;
UPDATE mesh SET outbox_sequence = (SELECT count(*) FROM tables) + (SELECT count(*) FROM revisions);
UPDATE mesh SET outbox_trimmed = outbox_sequence;
