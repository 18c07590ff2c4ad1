-- Names that products had before, by the outbox's entry that told of it: catalogs may hold tables under them. Unlike the
-- entries they are kept, for consumers that come late.
CREATE TABLE former_names (
    sequence       BIGINT PRIMARY KEY,
    -- What is called so now.
    domain         TEXT COLLATE "C" NOT NULL,
    product        TEXT COLLATE "C" NOT NULL,
    major          BIGINT NOT NULL,
    former_domain  TEXT COLLATE "C" NOT NULL,
    former_product TEXT COLLATE "C" NOT NULL
);
