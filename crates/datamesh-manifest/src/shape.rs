//! The one table of keys. It checks a tree's structure, and it makes the JSON Schema: what an editor accepts and
//! what `check` accepts cannot drift apart.

use datamesh_core::Level;

use crate::yaml::{Document, Kind, Node};

/// What a value may look like.
pub enum Shape {
    /// Any single value, read as text.
    Text,
    /// Any single value, `null` included, read as text.
    TextOrNull,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A number.
    Number,
    /// A whole number, zero or more.
    Count,
    /// True or false.
    Boolean,
    /// A share such as `5%` or `5`.
    Percent,
    /// A list.
    List(&'static Shape),
    /// An object with these keys.
    Object(&'static Object),
    /// A single value as shorthand for an object, or the object.
    Short(&'static Shape, &'static Object),
    /// Either of two shapes, told apart by single value, list or object.
    Either(&'static Shape, &'static Shape),
    /// An object with keys of the author's own, each with such a value.
    Map(&'static Shape),
    /// Anything.
    Any,
}

/// An object's keys.
pub struct Object {
    /// Its name in the JSON Schema.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key.
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// Whether this version does something with it.
    pub enforced: bool,
    /// Whether the contract keeps it as written.
    pub kept: bool,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, shape, required: false, enforced: true, kept: false }
}

const fn must(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, shape, required: true, enforced: true, kept: false }
}

const fn declared(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, shape, required: false, enforced: false, kept: true }
}

const fn kept(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, shape, required: false, enforced: true, kept: true }
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const TEXT_OR_TEXTS: Shape = Shape::Either(&Shape::Text, &TEXTS);
const CUSTOM: Key = kept("custom", Shape::Any, "Free keys of your own");
const TAGS: Key = declared("tags", TEXTS, "Free words to find it by");

/// The document of a `product.yaml`.
pub static MANIFEST: Object = Object {
    name: "Manifest",
    about: "A data product's manifest",
    keys: &[must("dataProduct", Shape::Object(&DATA_PRODUCT), "The data product")],
};

/// The data product.
pub static DATA_PRODUCT: Object = Object {
    name: "DataProduct",
    about: "What a domain publishes: tables, what they promise, and who answers for them",
    keys: &[
        must("name", Shape::Text, "Unique in its domain; letters, digits, `-` and `_`"),
        must("version", Shape::Text, "Semantic version of the contract, such as 1.0.0"),
        must("owner", Shape::Text, "The accountable team"),
        key("domain", Shape::Text, "Default: the nearest domain.yaml above, else owner without `-domain`"),
        declared("type", Shape::Word(&["source-aligned", "aggregate", "consumer-aligned"]), "The product's archetype"),
        key(
            "status",
            Shape::Word(&["draft", "active", "deprecated", "retired"]),
            "Default: draft below 1.0.0, else active; deprecated needs `sla.endOfSupport`",
        ),
        key(
            "movedFrom",
            Shape::Text,
            "The product's former `domain/product`: `datamesh apply` moves it with its history",
        ),
        key("description", Shape::Text, "What the product is for"),
        TAGS,
        kept(
            "classification",
            Shape::Text,
            "Default classification of every column: public, internal, confidential, restricted",
        ),
        key(
            "inputs",
            TEXTS,
            "Products this one reads: `domain/product`, or `domain/product@range` by semantic version",
        ),
        declared("trigger", Shape::Text, "`inputs` or a cron line"),
        must("schema", Shape::List(&Shape::Object(&TABLE)), "The tables"),
        declared(
            "ports",
            Shape::List(&Shape::Object(&PORT)),
            "How data goes out; default: one iceberg port with all tables",
        ),
        kept("access", Shape::List(&Shape::Object(&ACCESS)), "Who may be granted what"),
        declared("sla", Shape::Object(&SLA), "Service levels"),
        declared("contact", Shape::Any, "Where to reach the owner"),
        declared("price", Shape::Text, "`free`, or such as `9.95 EUR/GB`"),
        CUSTOM,
    ],
};

/// One table.
pub static TABLE: Object = Object {
    name: "Table",
    about: "One table of the product",
    keys: &[
        must("name", Shape::Text, "Unique in its product; letters, digits, `-` and `_`"),
        key("type", Shape::Word(&["table", "view"]), "Default: table"),
        key("description", Shape::Text, "What one row is"),
        key("owner", Shape::Text, "The accountable team; default: the product's"),
        TAGS,
        key(
            "write",
            Shape::Word(&["append", "replace", "upsert", "replacePartitions"]),
            "How a publication changes the table; default append, or replace with a transform",
        ),
        key(
            "deleteWhen",
            Shape::Text,
            "With `write: upsert`: an SQL condition; an incoming row that meets it deletes the published row with its key",
        ),
        key(
            "transform",
            Shape::Text,
            "A SELECT over the inputs, named domain.product.table, or the name of a .sql file beside the manifest; `{changes(domain.product.table)}` reads only the rows that were added since the last run",
        ),
        key(
            "watermark",
            Shape::Text,
            "Column by which the source is pulled incrementally: only rows with a greater value than the last one are read",
        ),
        key("source", Shape::Short(&Shape::Text, &SOURCE), "Where its data comes from"),
        must("columns", Shape::List(&Shape::Object(&COLUMN)), "The columns, in order"),
        key(
            "unique",
            Shape::List(&Shape::Either(&Shape::Text, &TEXTS)),
            "Further unique keys, each a column or a list of columns",
        ),
        key(
            "partitionBy",
            TEXTS,
            "Iceberg transforms: `country`, `day(updated_at)`, `bucket(16, id)`, `truncate(4, code)`",
        ),
        key("sortBy", TEXTS, "Sort order within files: `column` or `column desc`"),
        key(
            "quality",
            Shape::List(&Shape::Short(&Shape::Text, &QUALITY)),
            "Rules: `rowCount > 1000`, or ODCS quality objects, or row conditions",
        ),
        key(
            "references",
            Shape::List(&Shape::Object(&TABLE_REFERENCE)),
            "What its rows must find in other tables, by several columns together",
        ),
        key("relationships", Shape::List(&Shape::Object(&RELATIONSHIP)), "ODCS: the same as `references`"),
        key("quarantine", Shape::Short(&Shape::Percent, &QUARANTINE), "The circuit breaker"),
        CUSTOM,
    ],
};

static SOURCE: Object = Object {
    name: "Source",
    about: "Where a table's data comes from",
    keys: &[
        key(
            "path",
            Shape::Text,
            "A file, folder or glob, relative to the manifest; `-` is standard input. `${env:NAME}` and `${file:/path}` stand for secrets",
        ),
        key(
            "database",
            Shape::Text,
            "A database: `postgres://…` or `sqlite:path`. Its password only by reference, or all of it: `${env:CRM_URL}`",
        ),
        key("table", Shape::Text, "Database: the table or view that is read, `schema.table` or `table`"),
        key("query", Shape::Text, "Database: a SELECT that is read, instead of a table"),
        key(
            "where",
            Shape::Text,
            "Database or Iceberg: an SQL condition on the rows; in a database `${env:NAME}` in it is bound as a text value",
        ),
        key("iceberg", Shape::Text, "An Iceberg table: its metadata document, or its folder"),
        key(
            "format",
            Shape::Word(&["csv", "ndjson", "json", "parquet", "arrow", "ipc", "avro"]),
            "Default: by file name; `json` is one array of objects",
        ),
        key("delimiter", Shape::Text, "CSV: one ASCII character, default `,`"),
        key("header", Shape::Boolean, "CSV: whether the first record names the columns, default true"),
        key("quote", Shape::Text, "CSV: one ASCII character, default `\"`; `none` switches quoting off"),
        key("nullText", Shape::Either(&Shape::Text, &TEXTS), "CSV: texts that mean null, default the empty text"),
        CUSTOM,
    ],
};

/// What a mask may be.
const MASKS: &str = "How it is masked for those who may not see it: null (default with `pii`), none, redact, hash, partial(FIRST, LAST), year, quarter, month, day, hour, bucket(WIDTH)";

/// One column, nested field or array item.
pub static COLUMN: Object = Object {
    name: "Column",
    about: "One column, or a nested field",
    keys: &[
        must("name", Shape::Text, "Unique among its siblings"),
        must(
            "type",
            Shape::Text,
            "string, uuid, json, boolean, int, long, float, double, decimal(p,s), date, time, timestamp, timestamp_ntz, binary, array<…>, map<…,…>, struct",
        ),
        key("description", Shape::Text, "What a value means"),
        key("owner", Shape::Text, "The accountable team; default: that of what the column stands in"),
        key("primaryKey", Shape::Boolean, "Part of the primary key; required and unique follow"),
        key("required", Shape::Boolean, "Null is not allowed"),
        key("unique", Shape::Boolean, "No two rows share a value; nulls are distinct"),
        key("enum", TEXTS, "The allowed values"),
        key("minimum", Shape::Text, "Smallest allowed value"),
        key("maximum", Shape::Text, "Largest allowed value"),
        key("exclusiveMinimum", Shape::Text, "Every value is greater"),
        key("exclusiveMaximum", Shape::Text, "Every value is less"),
        key("multipleOf", Shape::Text, "Every value is a whole multiple of this"),
        key("minLength", Shape::Count, "Least number of characters, or of an array's items"),
        key("maxLength", Shape::Count, "Greatest number of characters, or of an array's items"),
        key("pattern", Shape::Text, "A regular expression found in every value"),
        key(
            "format",
            Shape::Text,
            "email, uuid, uri, ipv4, ipv6, hostname, date, date-time, time, or how dates are written: `yyyy-MM-dd`, `%Y-%m-%d`",
        ),
        key("completeIf", Shape::Text, "An SQL condition on the row: where it holds, null is not allowed"),
        key(
            "references",
            Shape::Short(&Shape::Text, &COLUMN_REFERENCE),
            "`domain/product.table.column`, or `table.column` of this product, that must hold each value",
        ),
        key("relationships", Shape::List(&Shape::Object(&RELATIONSHIP)), "ODCS: the same as `references`"),
        key("pii", Shape::Boolean, "Personal data: masked in quarantine and samples"),
        key("mask", Shape::TextOrNull, MASKS),
        key(
            "columns",
            Shape::List(&Shape::Object(&COLUMN)),
            "A struct's fields; with `array<struct>` those of its items",
        ),
        key("items", Shape::Object(&ITEM), "Constraints on an array's items"),
        key("quality", Shape::List(&Shape::Short(&Shape::Text, &QUALITY)), "Metric rules of this column"),
        TAGS,
        kept("classification", Shape::Text, "public, internal, confidential, restricted"),
        key(
            "from",
            Shape::Either(&Shape::Text, &TEXTS),
            "Column lineage where there is no SQL to read: columns of other products, `domain/product.table.column`",
        ),
        key("renamedFrom", Shape::Text, "The column's former name: its values are kept"),
        key("default", Shape::Text, "Value of the column in rows that were published before it was added"),
        kept("declassify", Shape::Text, "Why this column carries none of the protection of its inputs"),
        CUSTOM,
    ],
};

/// An array's items.
pub static ITEM: Object = Object {
    name: "Item",
    about: "The items of an array",
    keys: &[
        key("type", Shape::Text, "The items' type; default: what the array's type says"),
        key("description", Shape::Text, "What an item means"),
        key("required", Shape::Boolean, "Null is not allowed"),
        key("enum", TEXTS, "The allowed values"),
        key("minimum", Shape::Text, "Smallest allowed value"),
        key("maximum", Shape::Text, "Largest allowed value"),
        key("exclusiveMinimum", Shape::Text, "Every value is greater"),
        key("exclusiveMaximum", Shape::Text, "Every value is less"),
        key("multipleOf", Shape::Text, "Every value is a whole multiple of this"),
        key("minLength", Shape::Count, "Least number of characters"),
        key("maxLength", Shape::Count, "Greatest number of characters"),
        key("pattern", Shape::Text, "A regular expression found in every value"),
        key(
            "format",
            Shape::Text,
            "email, uuid, uri, ipv4, ipv6, hostname, date, date-time, time, or how dates are written: `yyyy-MM-dd`, `%Y-%m-%d`",
        ),
        key("pii", Shape::Boolean, "Personal data"),
        key("mask", Shape::TextOrNull, MASKS),
        key("columns", Shape::List(&Shape::Object(&COLUMN)), "The fields of items that are structs"),
        key("items", Shape::Object(&ITEM), "Constraints on the items of items"),
        CUSTOM,
    ],
};

const REFERENCE_WHERE: Key = key("where", Shape::Text, "An SQL condition: only rows that meet it are judged");
const REFERENCE_SEVERITY: Key = key(
    "severity",
    SEVERITY,
    "Default: error, which quarantines the row, or rejects an `upsert` or `replacePartitions` whose target is published with it; a warning only counts it. With `fail`, whether it rejects",
);
const REFERENCE_NAME: Key = key("name", Shape::Text, "Names it in reports, where its rows are counted");
const REFERENCE_WARN: Key = key(
    "warn",
    Shape::Text,
    "When to warn: `> 1%`; the rows that find nothing are counted then instead of quarantined",
);
const REFERENCE_FAIL: Key = key(
    "fail",
    Shape::Text,
    "When to reject: `> 5%`; the rows that find nothing are counted then instead of quarantined",
);
const REFERENCE_GROUPS: Key = key(
    "groupBy",
    Shape::Either(&Shape::Text, &TEXTS),
    "Columns: the rows of each group are counted by themselves, the worst is judged",
);
const REFERENCE_WHY: Key = key("description", Shape::Text, "Why it holds");

static COLUMN_REFERENCE: Object = Object {
    name: "ColumnReference",
    about: "The column that must hold each value of this one",
    keys: &[
        must("to", Shape::Text, "`domain/product.table.column`, or `table.column` of this product"),
        REFERENCE_WHERE,
        REFERENCE_SEVERITY,
        REFERENCE_NAME,
        REFERENCE_WARN,
        REFERENCE_FAIL,
        REFERENCE_GROUPS,
        REFERENCE_WHY,
        CUSTOM,
    ],
};

static TABLE_REFERENCE: Object = Object {
    name: "TableReference",
    about: "Columns whose values must be found together in a row of another table",
    keys: &[
        must("columns", TEXTS, "The referring columns"),
        must("to", Shape::Text, "`domain/product.table`, or `table` of this product"),
        key("at", TEXTS, "The columns there, in the same order; default: of the same names"),
        REFERENCE_WHERE,
        REFERENCE_SEVERITY,
        REFERENCE_NAME,
        REFERENCE_WARN,
        REFERENCE_FAIL,
        REFERENCE_GROUPS,
        REFERENCE_WHY,
        CUSTOM,
    ],
};

static RELATIONSHIP: Object = Object {
    name: "Relationship",
    about: "ODCS relationship: a foreign key",
    keys: &[
        key("type", Shape::Word(&["foreignKey"]), "ODCS: kind of the relationship"),
        key("from", Shape::Either(&Shape::Text, &TEXTS), "`table.column`, or several; on a column, that column"),
        must(
            "to",
            Shape::Either(&Shape::Text, &TEXTS),
            "`domain/product.table.column` or `table.column`, as many as in `from`",
        ),
        declared("id", Shape::Text, "ODCS: stable identifier"),
        declared("customProperties", Shape::Any, "ODCS: free keys"),
        CUSTOM,
    ],
};

static COMPARISON: Object = Object {
    name: "Comparison",
    about: "The other table of a rule that compares two",
    keys: &[
        must("table", Shape::Text, "`domain/product.table`, or `table` of this product"),
        key("column", Shape::Text, "The measured column there; default: the same name"),
        key("where", Shape::Text, "An SQL condition on the rows of the other table"),
    ],
};

/// Free text by ODCS; what is no word of ours is read as `error`, and `check` says so.
const SEVERITY: Shape = Shape::Text;

/// Every word for a metric.
pub const METRICS: &[&str] = &[
    "rowCount",
    "size",
    "nullValues",
    "missingValues",
    "invalidValues",
    "duplicateValues",
    "minimum",
    "min",
    "maximum",
    "max",
    "mean",
    "avg",
    "average",
    "sum",
    "standardDeviation",
    "stddev",
    "stdev",
    "stddevSamp",
    "quantile",
    "percentile",
    "exactQuantile",
    "countDistinct",
    "distinctCount",
    "uniqueValueCount",
    "freshness",
    "outOfOrderValues",
    "monotonic",
    "sequenceGaps",
    "gapFree",
];

/// One quality rule.
pub static QUALITY: Object = Object {
    name: "Quality",
    about: "A metric rule (ODCS quality object), an SQL rule, or a row condition",
    keys: &[
        key("name", Shape::Text, "Names the rule in reports"),
        key("description", Shape::Text, "Why the rule is there"),
        key("type", Shape::Word(&["library", "sql", "text", "custom"]), "ODCS: kind of the rule; default by its keys"),
        key("metric", Shape::Word(METRICS), "ODCS library metric, or a further one"),
        key("rule", Shape::Word(METRICS), "ODCS: former name of `metric`"),
        key("column", Shape::Text, "The measured column, in a table's rules"),
        key("arguments", Shape::Object(&ARGUMENTS), "ODCS: what the metric needs"),
        key("sql", Shape::Text, "A query for one number; `{object}` is the candidate table"),
        key("query", Shape::Text, "ODCS: the same as `sql`"),
        key(
            "condition",
            Shape::Text,
            "An SQL condition that every row must meet; rows that do not are quarantined, or counted where the rule has a threshold or a severity that does not reject",
        ),
        key("where", Shape::Text, "An SQL condition: only rows that meet it are measured, or judged"),
        key(
            "groupBy",
            Shape::Either(&Shape::Text, &TEXTS),
            "Columns: each group is measured by itself, the worst is judged; one without a value to measure fails",
        ),
        key(
            "compareTo",
            Shape::Short(&Shape::Text, &COMPARISON),
            "Another table: what is judged is the difference to the same metric there; default `mustBe: 0`",
        ),
        key("warn", Shape::Text, "When to warn: `> 1%`, `< 100`, `not between 1 and 5`"),
        key("fail", Shape::Text, "When to reject: `> 5%`, in place of a `mustBe…`"),
        key("mustBe", Shape::Number, "Equal"),
        key("mustNotBe", Shape::Number, "Not equal"),
        key("mustBeGreaterThan", Shape::Number, "Greater"),
        key("mustBeGreaterOrEqualTo", Shape::Number, "Greater or equal"),
        key("mustBeLessThan", Shape::Number, "Less"),
        key("mustBeLessOrEqualTo", Shape::Number, "Less or equal"),
        key("mustBeBetween", Shape::List(&Shape::Number), "Within two numbers, both included"),
        key("mustNotBeBetween", Shape::List(&Shape::Number), "Outside two numbers"),
        key("unit", Shape::Text, "rows (default), percent; for freshness seconds (default), minutes, hours, days"),
        key("severity", SEVERITY, "error (default, which rejects the publication), warning, info"),
        key(
            "dimension",
            Shape::Word(&[
                "accuracy",
                "completeness",
                "conformity",
                "consistency",
                "coverage",
                "timeliness",
                "uniqueness",
            ]),
            "ODCS quality dimension",
        ),
        declared("id", Shape::Text, "ODCS: stable identifier"),
        declared("businessImpact", Shape::Text, "ODCS: what a failure means for the business"),
        declared("engine", Shape::Text, "ODCS: engine of a custom rule"),
        declared("implementation", Shape::Any, "ODCS: text of a custom rule"),
        declared("method", Shape::Text, "ODCS: how it is checked"),
        declared("schedule", Shape::Text, "ODCS: when it is checked"),
        declared("scheduler", Shape::Text, "ODCS: who checks it"),
        declared("authoritativeDefinitions", Shape::Any, "ODCS: where it is defined"),
        declared("customProperties", Shape::Any, "ODCS: free keys"),
        TAGS,
        CUSTOM,
    ],
};

static ARGUMENTS: Object = Object {
    name: "Arguments",
    about: "What a metric needs",
    keys: &[
        key(
            "missingValues",
            Shape::List(&Shape::Any),
            "missingValues: the values that mean missing; null is one where it is listed",
        ),
        key("validValues", TEXTS, "invalidValues: the valid values"),
        key("pattern", Shape::Text, "invalidValues: a regular expression that valid values contain"),
        key("properties", TEXTS, "duplicateValues: the columns"),
        key("quantile", Shape::Number, "quantile: the share of values below it, 0 to 1"),
        key(
            "orderBy",
            Shape::Either(&Shape::Text, &TEXTS),
            "outOfOrderValues: the columns that say which row comes before",
        ),
        key("decreasing", Shape::Boolean, "outOfOrderValues: whether values must fall"),
        key("strictly", Shape::Boolean, "outOfOrderValues: whether equal neighbours are out of order too"),
        CUSTOM,
    ],
};

static QUARANTINE: Object = Object {
    name: "Quarantine",
    about: "The circuit breaker",
    keys: &[key("limit", Shape::Percent, "Share of rows read that may be quarantined; default 5%")],
};

static PORT: Object = Object {
    name: "Port",
    about: "How data goes out",
    keys: &[
        must("name", Shape::Text, "The port's name"),
        must("type", Shape::Text, "iceberg, kafka, …"),
        key("tables", TEXTS, "Default: all"),
        key("write", Shape::Word(&["refused", "audited"]), "Whether engines may commit through the catalog"),
        key("description", Shape::Text, "What it is for"),
        CUSTOM,
    ],
};

static ACCESS: Object = Object {
    name: "Access",
    about: "What a role may be granted",
    keys: &[
        must("role", Shape::Text, "The role; once for each table"),
        key("tables", TEXTS, "Default: all"),
        key(
            "rows",
            Shape::Text,
            "An SQL condition on the rows that are seen; `principal.<attribute>` is the reader's. Default: all",
        ),
        key("columns", TEXTS, "Columns that are seen at all, `column` or `table.column`; default: all"),
        key(
            "unmasked",
            TEXTS,
            "Protected columns shown in clear, `column` or `table.column`; of a struct's field `column.field`",
        ),
        key("approvers", TEXTS, "Who approves: teams, or `user:<name>`; default: the product's owner"),
        key("approvals", Shape::Count, "How many different people must approve: 1 (default) or 2"),
        key("expires", Shape::Text, "How long a grant lasts at most, such as 90d; default: until it is revoked"),
        key("purpose", TEXT_OR_TEXTS, "What for; default: any purpose"),
        CUSTOM,
    ],
};

static SLA: Object = Object {
    name: "Sla",
    about: "Service levels",
    keys: &[
        key("availability", Shape::Text, "Such as 99.9%"),
        key("freshness", Shape::Short(&Shape::Text, &FRESHNESS), "Greatest age of the data"),
        key("retention", Shape::Text, "How long data is kept"),
        key("endOfSupport", Shape::Text, "Last day of support"),
        CUSTOM,
    ],
};

static FRESHNESS: Object = Object {
    name: "Freshness",
    about: "Greatest age of the data",
    keys: &[
        must("within", Shape::Text, "Such as 1h"),
        key("column", Shape::Text, "The column whose greatest value is the data's time"),
    ],
};

/// The document of a `mesh.yaml`.
pub static MESH: Object = Object {
    name: "Mesh",
    about: "The whole federation",
    keys: &[
        must("name", Shape::Text, "The mesh's name"),
        key("description", Shape::Text, "What it is"),
        key("owner", Shape::Text, "Who runs the platform; answers for what nobody else does"),
        key("teams", Shape::List(&Shape::Object(&TEAM)), "Teams that an `owner` may name"),
        key(
            "attributes",
            Shape::Map(&Shape::Word(ATTRIBUTE_TYPES)),
            "What is known of principals: each attribute with its type (string, long, boolean, strings)",
        ),
        key(
            "roles",
            Shape::List(&Shape::Short(&Shape::Text, &ROLE)),
            "Roles that principals have and contracts offer access to; a single text is a name",
        ),
        key("principals", Shape::List(&Shape::Object(&PRINCIPAL)), "Users and services, with roles and attributes"),
        key("policies", Shape::Object(&POLICY_SETTINGS), "Which policies hold"),
        key(
            "separationOfDuties",
            Shape::Word(datamesh_core::access::SeparationOfDuties::WORDS),
            "Whether whoever acts `--as` somebody else counts beside that name (people, the default), or not (names), \
             where nobody approves their own request",
        ),
        key("warehouse", Shape::Text, "Where tables are kept: a folder, or s3://bucket/prefix (default: warehouse)"),
        key(
            "registry",
            Shape::Text,
            "A SQLite file, or postgres://user:${env:NAME}@host/db (default: .datamesh/registry.db)",
        ),
        CUSTOM,
    ],
};

/// The types of principals' attributes.
pub const ATTRIBUTE_TYPES: &[&str] = &["string", "long", "boolean", "strings"];

static ROLE: Object = Object {
    name: "Role",
    about: "What principals have and contracts offer access to",
    keys: &[
        must("name", Shape::Text, "Its name, once in the mesh"),
        key("description", Shape::Text, "What it is"),
        key("includes", TEXT_OR_TEXTS, "Roles that who has this one has too"),
        CUSTOM,
    ],
};

static PRINCIPAL: Object = Object {
    name: "Principal",
    about: "Somebody who may be granted something: a user or a service",
    keys: &[
        key("user", Shape::Text, "The name of a person"),
        key("service", Shape::Text, "The name of a program"),
        key("description", Shape::Text, "Who that is"),
        key("roles", TEXT_OR_TEXTS, "The roles they have"),
        key("attributes", Shape::Map(&TEXT_OR_TEXTS), "Values of the attributes that the mesh declares"),
        CUSTOM,
    ],
};

static POLICY_SETTINGS: Object = Object {
    name: "PolicySettings",
    about: "Which policies hold",
    keys: &[key("disable", TEXT_OR_TEXTS, "Ids of policies of the default pack that do not hold here"), CUSTOM],
};

/// The document of a `waivers.yaml`.
pub static WAIVERS: Object = Object {
    name: "Waivers",
    about: "Policies that somebody need not keep for a while",
    keys: &[must("waivers", Shape::List(&Shape::Object(&WAIVER)), "The waivers"), CUSTOM],
};

static WAIVER: Object = Object {
    name: "Waiver",
    about: "A policy that somebody need not keep for a while",
    keys: &[
        must("policy", Shape::Text, "The policy's id"),
        must(
            "resource",
            Shape::Text,
            "What it is waived for: `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`",
        ),
        must("owner", Shape::Text, "The team that answers for it"),
        must("reason", Shape::Text, "Why"),
        must(
            "expires",
            Shape::Text,
            "From when on it no longer counts: a day such as 2026-12-31, which begins in UTC, or a time such as 2026-12-31T18:00:00+01:00",
        ),
        CUSTOM,
    ],
};

/// The document of a `policies/*.tests.yaml`.
pub static POLICY_TESTS: Object = Object {
    name: "PolicyTests",
    about: "Tests of policies",
    keys: &[must("tests", Shape::List(&Shape::Object(&POLICY_TEST)), "The tests"), CUSTOM],
};

/// Every action.
pub const ACTIONS: &[&str] =
    &["discover", "describe", "read", "readUnmasked", "publish", "apply", "deprecate", "approve", "administer"];

static POLICY_TEST: Object = Object {
    name: "PolicyTest",
    about: "Who asks to do what, and what must be decided",
    keys: &[
        must("name", Shape::Text, "What it shows, once in its file"),
        key("description", Shape::Text, "Why it is there"),
        must("principal", Shape::Text, "Who asks: `user:alice`, `service:etl`, `team:fleet-team`, `role:analyst`"),
        must("action", Shape::Word(ACTIONS), "To do what"),
        must(
            "resource",
            Shape::Text,
            "To what: `mesh`, `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`",
        ),
        key("context", Shape::Object(&CASE_CONTEXT), "What else is known"),
        key(
            "grants",
            Shape::List(&Shape::Short(&Shape::Text, &CASE_GRANT)),
            "What the principal was granted of the product; a single text is a role",
        ),
        must("expect", Shape::Short(&Shape::Word(OUTCOMES), &EXPECTATION), "What must be decided"),
        CUSTOM,
    ],
};

/// What is decided.
pub const OUTCOMES: &[&str] = &["allow", "deny"];

static CASE_CONTEXT: Object = Object {
    name: "PolicyTestContext",
    about: "What is known beside principal, action and resource",
    keys: &[
        key("purpose", Shape::Text, "What for"),
        key("door", Shape::Text, "The way in; default: query"),
        key("time", Shape::Text, "When, such as 2026-01-31T12:00:00Z; default: now"),
        key("ownsMesh", Shape::Boolean, "Whether the principal owns the embedded mesh"),
        key("attributes", Shape::Map(&TEXT_OR_TEXTS), "Attributes that the principal has in this test, beside its own"),
        key("needs", Shape::Word(BUMPS), "What is applied: the step of the version that it needs"),
        key("gives", Shape::Word(BUMPS), "What is applied: the step of the version that it takes"),
        key("requester", Shape::Text, "Who asks for access, where it is approved: `user:alice`"),
    ],
};

/// Steps of a version.
const BUMPS: &[&str] = &["patch", "minor", "review", "major"];

static CASE_GRANT: Object = Object {
    name: "PolicyTestGrant",
    about: "A grant that the principal has",
    keys: &[
        must("role", Shape::Text, "The role"),
        key("tables", TEXT_OR_TEXTS, "Default: all that the role is offered"),
        key("purpose", Shape::Text, "What for"),
        key("expires", Shape::Text, "From when on it no longer counts, such as 2026-12-31"),
        key("team", Shape::Text, "The team it was granted to, where it is not the principal's own"),
    ],
};

static EXPECTATION: Object = Object {
    name: "Expectation",
    about: "What must be decided; what is not said may be anything",
    keys: &[
        must("outcome", Shape::Word(OUTCOMES), "Whether it is allowed"),
        key("policies", TEXT_OR_TEXTS, "Ids of the policies that determine it: these, and no other"),
        key(
            "masked",
            Shape::Map(&Shape::TextOrNull),
            "The columns that are masked, `column.field`, with their masks: these, and no other",
        ),
        key("hidden", TEXT_OR_TEXTS, "The columns that are not seen at all: these, and no other"),
        key("rows", TEXT_OR_TEXTS, "The conditions of the row filters; an empty list: every row is seen"),
        key("findings", TEXT_OR_TEXTS, "Findings, `policy resource`, of publish and apply: these, and no other"),
    ],
};

/// The document of a `domain.yaml`.
pub static DOMAIN: Object = Object {
    name: "Domain",
    about: "A bounded context with an owner and responsibilities",
    keys: &[
        must("name", Shape::Text, "The domain's name"),
        must("owner", Shape::Text, "The accountable team"),
        key("description", Shape::Text, "What it is"),
        key("purpose", Shape::Text, "What it is for"),
        key("responsibilities", TEXTS, "What it answers for"),
        key("terms", Shape::List(&Shape::Object(&TERM)), "Its ubiquitous language"),
        key("relationships", Shape::List(&Shape::Object(&DOMAIN_RELATIONSHIP)), "How it leans on other domains"),
        key("teams", Shape::List(&Shape::Object(&TEAM)), "The teams that work in it; an `owner` may name them"),
        CUSTOM,
    ],
};

static TERM: Object = Object {
    name: "Term",
    about: "A word of a domain's ubiquitous language",
    keys: &[
        must("term", Shape::Text, "The word, once in its domain"),
        must("definition", Shape::Text, "What it means here"),
        key("synonyms", Shape::Either(&Shape::Text, &TEXTS), "Other words for the same"),
        key(
            "columns",
            Shape::Either(&Shape::Text, &TEXTS),
            "The columns that hold it: `product.table.column`, or `domain/product.table.column`",
        ),
        CUSTOM,
    ],
};

/// The kinds of relationship between two domains, as domain-driven design names them.
pub const RELATIONSHIP_KINDS: &[&str] = &[
    "customer-supplier",
    "open-host-service",
    "published-language",
    "conformist",
    "anticorruption-layer",
    "shared-kernel",
    "partnership",
    "separate-ways",
];

static DOMAIN_RELATIONSHIP: Object = Object {
    name: "DomainRelationship",
    about: "How a domain and another one lean on each other",
    keys: &[
        must("domain", Shape::Text, "The other domain"),
        must("kind", Shape::Word(RELATIONSHIP_KINDS), "What the relationship is, by domain-driven design"),
        key(
            "role",
            Shape::Word(&["upstream", "downstream"]),
            "What this domain is in it. Default: upstream with open-host-service and published-language, downstream with conformist and anticorruption-layer; must be there with customer-supplier",
        ),
        key(
            "products",
            Shape::Either(&Shape::Text, &TEXTS),
            "The upstream's products that it is about, `product` or `domain/product`; default: all",
        ),
        key("description", Shape::Text, "What there is to know about it"),
        CUSTOM,
    ],
};

static TEAM: Object = Object {
    name: "Team",
    about: "What an `owner` names",
    keys: &[
        must("name", Shape::Text, "The name that an `owner` uses, once in the mesh"),
        key("description", Shape::Text, "What it does"),
        key(
            "members",
            Shape::List(&Shape::Short(&Shape::Text, &MEMBER)),
            "Who is in it; a single text is a user name or an e-mail address",
        ),
        key("contact", Shape::Any, "Where to reach it"),
        CUSTOM,
    ],
};

static MEMBER: Object = Object {
    name: "Member",
    about: "Somebody in a team",
    keys: &[
        key("name", Shape::Text, "What people call them"),
        key("username", Shape::Text, "What the directory calls them"),
        key("email", Shape::Text, "Their e-mail address"),
        key("role", Shape::Text, "What they do in the team"),
        CUSTOM,
    ],
};

/// The document of a `product.tests.yaml`.
pub static TESTS: Object = Object {
    name: "Tests",
    about: "Tests of a product's transforms",
    keys: &[must("tests", Shape::List(&Shape::Object(&TEST)), "The tests"), CUSTOM],
};

static TEST: Object = Object {
    name: "Test",
    about: "Fixture rows in, expected rows out",
    keys: &[
        must("name", Shape::Text, "What it shows"),
        key("description", Shape::Text, "Why it is there"),
        key("now", Shape::Text, "What now() answers, such as 2013-01-01T12:00:00Z; default 2000-01-01T00:00:00Z"),
        key("given", Shape::Any, "Rows of inputs by `domain.product.table`: a list of objects, or `{file: rows.csv}`"),
        must(
            "expect",
            Shape::Any,
            "Rows of tables by name: a list of objects, `{file: …}`, or `{rows: …, ordered: true}`",
        ),
        CUSTOM,
    ],
};

/// Checks the structure of `node` and reports every problem. Values are checked when they are read.
pub fn check(document: &mut Document<'_>, node: &Node, object: &'static Object, path: &str) {
    let Kind::Mapping(entries) = &node.kind else {
        let help = match object.keys.iter().find(|key| key.required) {
            Some(key) => format!("write an object that starts with `{}:`", key.name),
            None => "write an object".to_owned(),
        };
        document.error(
            "wrong-shape",
            node.span,
            format!("`{path}` is an object, but this is {}", node.describe()),
            help,
        );
        return;
    };
    for (name, value) in entries {
        let text = name.text().unwrap_or_default();
        let Some(key) = object.keys.iter().find(|key| key.name == text) else {
            document.error(
                "unknown-key",
                name.span,
                format!("unknown key `{text}` in `{path}`"),
                suggest(text, object),
            );
            continue;
        };
        if !key.enforced {
            document.report(Level::Note, "not-enforced", name.span, format!("`{text}` is declared, not enforced"), "");
        }
        check_shape(document, value, &key.shape, text);
    }
    for key in object.keys.iter().filter(|key| key.required && node.get(key.name).is_none()) {
        let at = crate::yaml::Span { start: node.span.start, end: node.span.start };
        document.error(
            "missing-key",
            at,
            format!("`{path}` has no `{}`", key.name),
            format!("add `{}:` — {}", key.name, lower(key.about)),
        );
    }
}

fn lower(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

fn check_shape(document: &mut Document<'_>, node: &Node, shape: &'static Shape, path: &str) {
    let expected = match shape {
        Shape::Any => return,
        Shape::Text if node.text().is_some() && !node.is_null() => return,
        Shape::TextOrNull if node.text().is_some() => return,
        Shape::Text | Shape::TextOrNull => "a text".to_owned(),
        Shape::Word(words) => {
            if let Some(text) = node.text() {
                if !words.contains(&text) {
                    let help = match closest(text, words.iter().copied()) {
                        Some(word) => format!("did you mean `{word}`?"),
                        None => format!("one of: {}", words.join(", ")),
                    };
                    document.error("unknown-word", node.span, format!("`{text}` is not a value of `{path}`"), help);
                }
                return;
            }
            format!("one of: {}", words.join(", "))
        }
        Shape::Number if node.number().is_some() => return,
        Shape::Number => "a number".to_owned(),
        Shape::Count if node.text().is_some_and(|text| text.parse::<u64>().is_ok()) => return,
        Shape::Count => "a whole number, zero or more".to_owned(),
        Shape::Boolean if node.boolean().is_some() => return,
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Percent if node.text().and_then(percent).is_some() => return,
        Shape::Percent => "a share from `0%` to `100%`".to_owned(),
        Shape::List(item) => match node.items() {
            Some(items) => {
                for entry in items {
                    check_shape(document, entry, item, path);
                }
                return;
            }
            None => "a list".to_owned(),
        },
        Shape::Object(object) => return check(document, node, object, path),
        Shape::Short(short, object) => match &node.kind {
            Kind::Scalar { .. } => return check_shape(document, node, short, path),
            _ => return check(document, node, object, path),
        },
        Shape::Map(value) => match &node.kind {
            Kind::Mapping(entries) => {
                for (name, entry) in entries {
                    check_shape(document, entry, value, name.text().unwrap_or_default());
                }
                return;
            }
            _ => "an object".to_owned(),
        },
        Shape::Either(first, second) => match (&node.kind, second) {
            (Kind::Sequence(_), Shape::List(_)) => return check_shape(document, node, second, path),
            _ => return check_shape(document, node, first, path),
        },
    };
    let message = format!("`{path}` must be {expected}, but this is {}", node.describe());
    document.error("wrong-shape", node.span, message, format!("write {expected}"));
}

/// Reads `5%` or `5` as percent, 0 to 100.
pub fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    number.parse().ok().filter(|percent: &f64| (0.0..=100.0).contains(percent))
}

fn suggest(text: &str, object: &Object) -> String {
    match closest(text, object.keys.iter().map(|key| key.name)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<_> = object.keys.iter().map(|key| key.name).collect();
            format!("known keys: {}; put keys of your own below `custom:`", names.join(", "))
        }
    }
}

/// How many candidates a suggestion is looked for in: enough for people, and not a way to keep the machine busy.
const MAX_CANDIDATES: usize = 200;

/// The most similar of `candidates`, where one is similar enough to be meant.
pub fn closest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 64 {
        return None;
    }
    let fold = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let folded = fold(text);
    candidates
        .take(MAX_CANDIDATES)
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
