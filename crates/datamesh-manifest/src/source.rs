//! Where a table's data comes from: files, a database, or an Iceberg table; and its watermark.

use datamesh_core::Level;
use datamesh_core::Table;
use datamesh_core::contract::{
    CsvOptions, DatabaseRows, DatabaseSource, FileSource, IcebergSource, SourceFormat, SourceSpec, WriteMode,
};
use datamesh_core::secret::{Part, Template, has_literal_password, has_web_login};
use datamesh_core::watermark::is_watermark_type;

use crate::read::{find_column, text, texts};
use crate::yaml::{Document, Node};

/// The keys that say what kind of source it is.
const KINDS: [&str; 3] = ["path", "database", "iceberg"];

/// The keys that each kind has, beside its own.
fn keys_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "path" => &["format", "delimiter", "header", "quote", "nullText"],
        "database" => &["table", "query", "where"],
        _ => &["where"],
    }
}

/// Reads a `source:`. `None` where an error was reported.
pub fn read(document: &mut Document<'_>, node: &Node) -> Option<SourceSpec> {
    if let Some(path) = node.text() {
        check_location(document, node, path)?;
        return Some(SourceSpec::Files(FileSource { path: path.to_owned(), format: None, csv: CsvOptions::default() }));
    }
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| node.get(kind).is_some()).collect();
    let kind = match given.as_slice() {
        [kind] => *kind,
        [] => {
            document.error(
                "missing-key",
                node.span,
                "the source says neither `path`, `database` nor `iceberg`",
                "name files with `path:`, a database with `database:`, or an Iceberg table with `iceberg:`",
            );
            return None;
        }
        [first, second, ..] => {
            document.error(
                "mixed-source",
                node.get(second).map_or(node.span, |node| node.span),
                format!("a source has either `{first}` or `{second}`"),
                "keep one of them; a second source is a second table",
            );
            return None;
        }
    };
    let allowed = keys_of(kind);
    let others = KINDS.iter().flat_map(|kind| keys_of(kind)).filter(|key| !allowed.contains(key));
    let mut told = Vec::new();
    for key in others {
        if let Some(at) = node.get(key).filter(|_| !told.contains(key)) {
            told.push(*key);
            document.error(
                "misplaced-key",
                at.span,
                format!("a source with `{kind}` has no `{key}`"),
                format!("it can have: {}", allowed.join(", ")),
            );
        }
    }
    let location = node.get(kind)?;
    check_location(document, location, location.text()?)?;
    match kind {
        "path" => read_files(document, node),
        "database" => read_database(document, node),
        _ => Some(SourceSpec::Iceberg(IcebergSource {
            iceberg: text(node, "iceberg")?,
            condition: read_condition(document, node)?,
        })),
    }
}

/// Checks a path or URL: its references are some, and no password stands in it.
pub(crate) fn check_location(document: &mut Document<'_>, node: &Node, location: &str) -> Option<()> {
    check_references(document, node, location)?;
    let (login, literal) = (has_web_login(location), has_literal_password(location));
    let help = if login {
        "web servers are asked without a user: give a token in the query, such as `?token=${env:NAME}`, or download the \
         file and name the local copy"
    } else {
        "write `${env:NAME}` or `${file:/path}` in its place, and set the variable where datamesh runs"
    };
    if literal {
        document.error("literal-secret", node.span, "a password must not stand in a manifest", help);
    } else if login {
        document.error("login-in-address", node.span, "a web address cannot hold a user or a password", help);
    }
    (!literal && !login).then_some(())
}

fn check_references(document: &mut Document<'_>, node: &Node, value: &str) -> Option<()> {
    match Template::parse(value) {
        Ok(_) => Some(()),
        Err(why) => {
            document.error(
                "invalid-reference",
                node.span,
                why,
                "write `${env:NAME}` for an environment variable, `${file:/path}` for a file, and `$${` where no reference is meant",
            );
            None
        }
    }
}

fn read_database(document: &mut Document<'_>, node: &Node) -> Option<SourceSpec> {
    let database = text(node, "database")?;
    let template = Template::parse(&database).ok()?;
    // All of it, or its beginning, may be a reference: then only the run can tell what it is.
    let known = ["postgres://", "postgresql://", "sqlite:"];
    if let Some(Part::Text(start)) = template.parts.first()
        && !known.iter().any(|scheme| start.starts_with(scheme))
    {
        let at = node.get("database").unwrap_or(node);
        let scheme = start.split(':').next().unwrap_or_default().to_owned();
        document.error(
            "unknown-database",
            at.span,
            format!("`{scheme}` is no database that can be read"),
            "write `postgres://user@host/database` or `sqlite:path`, or a reference to one: `${env:NAME}`",
        );
        return None;
    }
    let rows = match (node.get("table"), node.get("query")) {
        (Some(table), None) => {
            let name = table.text()?.trim();
            if name.is_empty() {
                document.error("empty-name", table.span, "the table has no name", "write `schema.table` or `table`");
                return None;
            }
            DatabaseRows::Table(name.to_owned())
        }
        (None, Some(query)) => {
            let sql = query.text()?.trim().trim_end_matches(';').trim_end();
            let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
            if !matches!(word.as_str(), "select" | "with" | "values") {
                document.error(
                    "invalid-query",
                    query.span,
                    "the query is no SELECT",
                    "write a SELECT; a source is only ever read",
                );
                return None;
            }
            check_references(document, query, sql)?;
            DatabaseRows::Query(sql.to_owned())
        }
        (Some(_), Some(query)) => {
            document.error(
                "mixed-source",
                query.span,
                "a database source has either `table` or `query`",
                "keep one of them",
            );
            return None;
        }
        (None, None) => {
            document.error(
                "missing-key",
                node.span,
                "the database source says neither `table` nor `query`",
                "add `table: schema.table` or `query: SELECT …`",
            );
            return None;
        }
    };
    Some(SourceSpec::Database(DatabaseSource { database, rows, condition: read_condition(document, node)? }))
}

/// The outer `None`: an error was reported.
#[expect(clippy::option_option, reason = "an error and an absent key are two things")]
fn read_condition(document: &mut Document<'_>, node: &Node) -> Option<Option<String>> {
    let Some(at) = node.get("where") else { return Some(None) };
    let condition = at.text()?.trim();
    if condition.is_empty() {
        document.error("empty-condition", at.span, "the condition is empty", "write an SQL condition, or remove it");
        return None;
    }
    check_references(document, at, condition)?;
    Some(Some(condition.to_owned()))
}

fn read_files(document: &mut Document<'_>, node: &Node) -> Option<SourceSpec> {
    let format = node
        .get("format")
        .and_then(Node::text)
        .and_then(|word| SourceFormat::WORDS.iter().find(|(known, _)| *known == word).map(|(_, format)| *format));
    let mut csv = CsvOptions::default();
    let mut character = |key: &'static str| -> Option<char> {
        let at = node.get(key)?;
        let text = match at.text()? {
            "\\t" | "tab" => "\t",
            text => text,
        };
        match text.chars().next() {
            Some(c) if text.len() == 1 && !matches!(c, '\n' | '\r' | '\0') => Some(c),
            _ => {
                document.error(
                    "invalid-character",
                    at.span,
                    format!("`{key}` is one ASCII character"),
                    "such as `;` or `tab`",
                );
                None
            }
        }
    };
    csv.delimiter = character("delimiter").unwrap_or(',');
    if node.get("quote").and_then(Node::text) == Some("none") {
        csv.quote = None;
    } else if let Some(quote) = character("quote") {
        csv.quote = Some(quote);
    }
    if csv.quote == Some(csv.delimiter) {
        document.error(
            "invalid-character",
            node.span,
            "`quote` and `delimiter` are the same character",
            "choose another",
        );
    }
    if let Some(header) = node.get("header").and_then(Node::boolean) {
        csv.header = header;
    }
    if node.get("nullText").is_some() {
        csv.null_text = texts(node.get("nullText"));
    }
    Some(SourceSpec::Files(FileSource { path: text(node, "path")?, format, csv }))
}

/// Reads a table's `watermark:` and checks that pulls by it can be right.
pub fn read_watermark(document: &mut Document<'_>, table: &mut Table, node: &Node) {
    let Some(at) = node.get("watermark") else { return };
    let Some(name) = at.text().map(str::trim) else { return };
    let Some(column) = find_column(document, table, at, name).cloned() else { return };
    let mut fail = |message: String, help: &str| document.error("invalid-watermark", at.span, message, help.to_owned());
    if !is_watermark_type(&column.data_type) {
        fail(
            format!("`{name}` is {}, which cannot be a watermark", column.data_type),
            "use a column of type int, long, decimal, date, timestamp, timestamp_ntz or string that only rises",
        );
    } else if column.is_protected() {
        fail(
            format!("`{name}` is protected, but the last value of a watermark is kept and shown in clear"),
            "use a column that is neither pii nor masked",
        );
    } else if node.get("source").is_none() {
        fail("a watermark needs a source to pull from".to_owned(), "add `source:`, or remove the watermark");
    } else if !matches!(table.write, WriteMode::Append | WriteMode::Upsert) {
        fail(
            format!("with `write: {}` an incremental pull would drop older rows", table.write.as_str()),
            "use `write: append` or `upsert`, or remove the watermark",
        );
    } else {
        if !column.required && !column.primary_key {
            document.report(
                Level::Warning,
                "nullable-watermark",
                at.span,
                format!("`{name}` is not required: rows without a value are read by the first pull only"),
                "add `required: true` to the column",
            );
        }
        table.watermark = Some(name.to_owned());
    }
}
