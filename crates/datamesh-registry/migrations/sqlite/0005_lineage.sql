-- Where the columns of a publication's tables come from. Datasets are named as OpenLineage names them; a table of this
-- mesh is `domain.product_v1.table` in the namespace `datamesh`. An empty output field is the rows as such; an empty
-- input field with an empty subtype is a dataset that was read without any of its columns.
CREATE TABLE lineage_edges (
    publication     INTEGER NOT NULL REFERENCES publications (number),
    table_name      TEXT NOT NULL,
    field           TEXT NOT NULL,
    input_namespace TEXT NOT NULL,
    input_name      TEXT NOT NULL,
    input_field     TEXT NOT NULL,
    subtype         TEXT NOT NULL,
    masking         INTEGER NOT NULL,
    PRIMARY KEY (publication, table_name, field, input_namespace, input_name, input_field, subtype, masking)
) STRICT, WITHOUT ROWID;
