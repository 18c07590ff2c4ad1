-- The mesh itself. Its key signs plans that travel as files; its generation rises with every change to what is applied.
CREATE TABLE mesh (
    singleton  INTEGER PRIMARY KEY CHECK (singleton = 1),
    id         TEXT NOT NULL,
    key        BLOB NOT NULL CHECK (length(key) = 32),
    generation INTEGER NOT NULL DEFAULT 0
) STRICT;

-- A random UUID (RFC 9562, version 4): 122 random bits, the version, the variant.
INSERT INTO mesh (singleton, id, key)
SELECT 1,
       substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-4' || substr(hex, 14, 3) || '-'
           || substr('89ab', 1 + (random() & 3), 1) || substr(hex, 18, 3) || '-' || substr(hex, 21, 12),
       randomblob(32)
FROM (SELECT lower(hex(randomblob(16))) AS hex);
