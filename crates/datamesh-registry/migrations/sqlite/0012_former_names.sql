-- Names that products had before, by the outbox's entry that told of it: catalogs may hold tables under them. Unlike the
-- entries they are kept, for consumers that come late.
CREATE TABLE former_names (
    sequence       INTEGER PRIMARY KEY,
    -- What is called so now.
    domain         TEXT NOT NULL,
    product        TEXT NOT NULL,
    major          INTEGER NOT NULL,
    former_domain  TEXT NOT NULL,
    former_product TEXT NOT NULL
) STRICT;
