-- The applied domains, as they were applied last.
CREATE TABLE domains (
    name       TEXT COLLATE "C" PRIMARY KEY,
    document   TEXT COLLATE "C" NOT NULL,
    applied_at TEXT COLLATE "C" NOT NULL,
    applied_by TEXT COLLATE "C" NOT NULL
);

-- Every plan that was applied, by the generation that it led to.
CREATE TABLE applies (
    generation BIGINT PRIMARY KEY,
    at         TEXT COLLATE "C" NOT NULL,
    principal  TEXT COLLATE "C" NOT NULL,
    decision   BIGINT NOT NULL UNIQUE REFERENCES decisions (number),
    plan       TEXT COLLATE "C" NOT NULL
);
