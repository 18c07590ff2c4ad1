//! Servers: what each type of server must and may say.

use super::shapes::{ID, PROPERTIES, ROLE, V30, V31, V32, key};
use super::{Checker, Key, Rule, Version};
use crate::shape::closest;
use crate::yaml::{Kind, Node};

/// Types of server, the version each is known since, the keys it must have, and the others it may.
type Server = (&'static [&'static str], Version, &'static [&'static str], &'static [&'static str]);

const SERVERS: &[Server] = &[
    (&["api"], V30, &["location"], &[]),
    (&["athena"], V30, &["schema"], &["stagingDir", "catalog", "regionName", "workgroup"]),
    (&["azure"], V30, &["location", "format"], &["encoding", "delimiter"]),
    (&["bigquery"], V30, &["project", "dataset"], &[]),
    (&["clickhouse", "mysql", "synapse"], V30, &["host", "port", "database"], &[]),
    (&["databricks"], V30, &["catalog", "schema"], &["host"]),
    (&["denodo"], V30, &["host", "port"], &["database"]),
    (&["dremio"], V30, &["host", "port"], &["schema"]),
    (&["duckdb"], V30, &["database"], &["schema"]),
    (&["exasol"], V32, &["host"], &["port", "schema"]),
    (&["glue"], V30, &["account", "database"], &["location", "format", "encoding"]),
    (&["cloudsql", "postgresql", "postgres", "vertica"], V30, &["host", "port", "database", "schema"], &[]),
    (&["db2"], V30, &["host", "port", "database"], &["schema"]),
    (&["informix"], V30, &["host", "database"], &["port"]),
    (&["hive", "impala", "zen"], V31, &["host", "database"], &["port"]),
    (&["btrieve", "ingres", "vectorwise"], V32, &["host", "database"], &["port"]),
    (&["kafka"], V30, &["host"], &["format", "encoding"]),
    (&["kinesis"], V30, &[], &["region", "format", "encoding"]),
    (&["local"], V30, &["path", "format"], &["encoding"]),
    (&["oracle"], V30, &["host", "port", "serviceName"], &[]),
    (&["poet", "fastobjects", "versant"], V32, &["database"], &["host", "port"]),
    (&["hana"], V32, &["host"], &["port", "database", "schema"]),
    (&["iceberg"], V32, &["catalog", "catalogUrl"], &["namespace", "warehouse"]),
    (&["presto"], V30, &["host"], &["catalog", "schema"]),
    (&["pubsub"], V30, &["project"], &[]),
    (&["redshift"], V30, &["database", "schema"], &["host", "region", "account"]),
    (&["s3"], V30, &["location"], &["endpointUrl", "format", "encoding", "delimiter"]),
    (&["sftp"], V30, &["location"], &["format", "encoding", "delimiter"]),
    (&["snowflake"], V30, &["account", "database", "schema"], &["host", "port", "warehouse"]),
    (&["sqlserver"], V30, &["host", "database", "schema"], &["port"]),
    (&["teradata"], V32, &["host"], &["port", "database"]),
    (&["trino"], V30, &["host", "port", "catalog", "schema"], &[]),
    (&["custom"], V30, &[], CUSTOM),
];

const CUSTOM: &[&str] = &[
    "account",
    "catalog",
    "database",
    "dataset",
    "delimiter",
    "endpointUrl",
    "format",
    "encoding",
    "host",
    "location",
    "path",
    "port",
    "project",
    "region",
    "regionName",
    "schema",
    "serviceName",
    "stagingDir",
    "warehouse",
    "stream",
];

/// Keys of servers that came with 3.2, but for those of type custom.
const NEW_KEYS: &[&str] = &["workgroup", "encoding"];

static BASE: &[Key] = &[
    ID,
    key("server", Rule::Text),
    key("type", Rule::Text),
    key("description", Rule::Text),
    key("environment", Rule::Text),
    key("roles", Rule::List(&Rule::Object(&ROLE))),
    PROPERTIES,
];
static TEXT: Rule = Rule::Text;
static PORT: Rule = Rule::Port;

/// Checks one entry of `servers`.
pub(super) fn check(checker: &mut Checker<'_, '_>, node: &Node) {
    let Kind::Mapping(entries) = &node.kind else { return checker.wrong(node, "an object") };
    checker.require(node, &["server", "type"]);
    let version = checker.version;
    let kind = node.get("type").and_then(Node::text);
    let known = || SERVERS.iter().filter(|server| server.1 <= version);
    let server = known().find(|server| kind.is_some_and(|kind| server.0.contains(&kind)));
    if let (Some(kind), None, Some(at)) = (kind, server, node.get("type")) {
        let help = match closest(kind, known().flat_map(|server| server.0.iter().copied())) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "for a server that the standard does not know, write `type: custom`".to_owned(),
        };
        checker.error(
            "unknown-word",
            at.span,
            &format!("is of type `{kind}`, which ODCS {version} does not know"),
            help,
        );
    }
    if let (Some((_, _, required, _)), Some(kind)) = (server, kind) {
        let old_athena = (kind == "athena" && version < V32).then_some(&"stagingDir");
        for key in required.iter().chain(old_athena).filter(|key| node.get(key).is_none()) {
            let what = format!("has no `{key}`, which a server of type `{kind}` needs");
            let at = node.get("type").unwrap_or(node).span;
            checker.error("missing-key", at, &what, format!("add `{key}:`"));
        }
    }
    for (name, value) in entries {
        let text = name.text().unwrap_or_default();
        if let Some(key) = BASE.iter().find(|key| key.name == text && key.since <= version) {
            checker.within(text, |inner| inner.rule(value, &key.rule));
            continue;
        }
        let Some((_, _, required, optional)) = server else { continue };
        let belongs = required.contains(&text) || optional.contains(&text);
        if belongs && (version >= V32 || !NEW_KEYS.contains(&text)) {
            // The schema of 3.0 wants a number there, by mistake.
            let mistaken = text == "schema" && kind == Some("duckdb") && version.is_3_0();
            if !mistaken || checker.strict {
                checker.within(text, |inner| inner.rule(value, if text == "port" { &PORT } else { &TEXT }));
            }
            if mistaken && checker.strict {
                checker.wrong(value, "a number in this version");
            }
            if text == "location" && kind == Some("sftp") && value.text().is_some_and(|at| !at.starts_with("sftp://")) {
                let what = "must start with `sftp://`";
                checker.within(text, |inner| inner.error("wrong-shape", value.span, what, "write the address in full"));
            }
            if version.is_3_0() && matches!(kind, Some("azure" | "s3" | "sftp")) {
                let words: &[&str] = match text {
                    "format" => &["parquet", "delta", "json", "csv"],
                    "delimiter" => &["new_line", "array"],
                    _ => continue,
                };
                if value.text().is_some_and(|value| !words.contains(&value)) {
                    let what = format!("must be one of {} in ODCS 3.0", words.join(", "));
                    checker.within(text, |inner| inner.error("unknown-word", value.span, &what, "use a later version"));
                }
            }
        } else if checker.strict || !version.is_3_0() {
            let what = format!("has `{text}`, which a server of type `{}` has not", kind.unwrap_or_default());
            let help = match closest(text, required.iter().chain(*optional).copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => "put what the standard does not know into `customProperties`".to_owned(),
            };
            checker.error("unknown-key", name.span, &what, help);
        }
    }
}
