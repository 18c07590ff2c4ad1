-- What others must be told: each pointer that moved and each product that changed, in the order of commits. Rows go once
-- every consumer has passed them; who comes later begins with what is current.
CREATE TABLE outbox (
    sequence          BIGINT PRIMARY KEY,
    at                TEXT COLLATE "C" NOT NULL,
    kind              TEXT COLLATE "C" NOT NULL,
    domain            TEXT COLLATE "C" NOT NULL,
    product           TEXT COLLATE "C" NOT NULL,
    major             BIGINT NOT NULL,
    table_name        TEXT COLLATE "C",
    metadata_location TEXT COLLATE "C",
    publication       BIGINT REFERENCES publications (number),
    CHECK ((table_name IS NULL) = (metadata_location IS NULL) AND (table_name IS NULL) = (publication IS NULL))
);

-- How far each consumer has come.
CREATE TABLE outbox_consumers (
    name        TEXT COLLATE "C" PRIMARY KEY,
    sequence    BIGINT NOT NULL,
    advanced_at TEXT COLLATE "C" NOT NULL
);

-- The number of the newest entry, and of the newest that is no longer kept.
ALTER TABLE mesh ADD COLUMN outbox_sequence BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mesh ADD COLUMN outbox_trimmed BIGINT NOT NULL DEFAULT 0;

-- The entry that told of a pointer last. What was published before there was an outbox is numbered as it was published.
ALTER TABLE tables ADD COLUMN sequence BIGINT NOT NULL DEFAULT 0;
UPDATE tables SET sequence = numbered.sequence FROM (
    SELECT domain, product, major, table_name,
           row_number() OVER (ORDER BY publication, domain, product, major, table_name) AS sequence
    FROM tables
) AS numbered
WHERE tables.domain = numbered.domain AND tables.product = numbered.product AND tables.major = numbered.major
AND tables.table_name = numbered.table_name;
UPDATE mesh SET outbox_sequence = (SELECT count(*) FROM tables) + (SELECT count(*) FROM revisions);
UPDATE mesh SET outbox_trimmed = outbox_sequence;
