-- How a publication made its tables of other products: what a run read, and where the next incremental one begins.
CREATE TABLE publication_transforms (
    publication INTEGER NOT NULL REFERENCES publications (number),
    table_name  TEXT NOT NULL,
    sql_hash    TEXT NOT NULL,
    PRIMARY KEY (publication, table_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE publication_inputs (
    publication       INTEGER NOT NULL,
    table_name        TEXT NOT NULL,
    input_domain      TEXT NOT NULL,
    input_product     TEXT NOT NULL,
    input_major       INTEGER NOT NULL,
    input_version     TEXT NOT NULL,
    input_table       TEXT NOT NULL,
    input_publication INTEGER NOT NULL,
    snapshot_id       INTEGER NOT NULL,
    -- 1 where only the rows after `since` were read; no `since`: all of them were new.
    changes           INTEGER NOT NULL,
    since             INTEGER,
    PRIMARY KEY (publication, table_name, input_domain, input_product, input_major, input_table, changes),
    FOREIGN KEY (publication, table_name) REFERENCES publication_transforms (publication, table_name)
) STRICT, WITHOUT ROWID;

CREATE INDEX publication_inputs_by_input ON publication_inputs (input_domain, input_product, input_major, input_table);
