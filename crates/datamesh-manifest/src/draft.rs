//! A drafted contract as the text of a manifest, with the evidence for each line in comments.

use datamesh_core::contract::{CsvOptions, TextFormat};
use datamesh_core::infer::{ColumnDraft, TableDraft, grouped};
use datamesh_core::{Column, DataType};

/// Where comments beside a line start.
const COMMENT: usize = 52;

/// A product to write a manifest for.
#[derive(Clone, Debug)]
pub struct ProductDraft {
    /// The product's name.
    pub name: String,
    /// The domain's owner, where it is known: a hint for whoever fills in the product's.
    pub domain_owner: Option<String>,
    /// The products it reads: `domain/product@range`.
    pub inputs: Vec<String>,
    /// Its tables.
    pub tables: Vec<SourceDraft>,
}

/// A drafted table with its source.
#[derive(Clone, Debug)]
pub struct SourceDraft {
    /// The table's name.
    pub name: String,
    /// What was looked at, for the reader.
    pub about: String,
    /// The source's path, or a database's address, as the manifest shall have it; without one the rows come from elsewhere.
    pub path: Option<String>,
    /// The table of the database that `path` is the address of.
    pub database_table: Option<String>,
    /// The source's format, where the path does not say it; `iceberg`: the path is that of an Iceberg table.
    pub format: Option<String>,
    /// SQL that its rows come from, in place of a source.
    pub transform: Option<String>,
    /// `append` or `replace`.
    pub write: &'static str,
    /// Its rows.
    pub rows: u64,
    /// The draft.
    pub draft: TableDraft,
}

/// The manifest's text.
pub fn manifest(product: &ProductDraft) -> String {
    let mut out = Writer::default();
    out.line(0, "# Drafted by `datamesh new` from data. Comments are evidence and suggestions, not promises: review every line,");
    out.line(0, "# keep what you can stand for, and name the owner. `datamesh check` and `datamesh explain` tell what comes of it.");
    out.line(0, "dataProduct:");
    out.line(1, &format!("name: {}", scalar(&product.name)));
    out.line(1, "version: 0.1.0");
    let owner = product.domain_owner.as_ref().map_or_else(String::new, |owner| format!("; the domain's is {owner}"));
    out.with(1, "owner: TODO", &format!("the accountable team{owner}"));
    out.line(1, "# description: TODO what the product is for");
    let newest = product.tables.iter().find_map(|table| Some((table, table.draft.newest.as_ref()?)));
    if let Some((table, (column, value))) = newest {
        out.line(
            1,
            &format!(
                "# sla: {{freshness: {{within: 1d, column: {}}}}}   # the newest is {}",
                flow(&format!("{}.{column}", table.name)),
                one_line(value)
            ),
        );
    }
    if !product.inputs.is_empty() {
        let inputs: Vec<String> = product.inputs.iter().map(|input| flow(input)).collect();
        out.line(1, &format!("inputs: [{}]", inputs.join(", ")));
    }
    out.line(1, "schema:");
    for table in &product.tables {
        table_lines(&mut out, table);
    }
    out.text
}

/// The text of one table, an item of a manifest's `schema:`.
pub fn table_text(table: &SourceDraft) -> String {
    let mut out = Writer::default();
    table_lines(&mut out, table);
    out.text.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    fn line(&mut self, depth: usize, line: &str) {
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn with(&mut self, depth: usize, line: &str, comment: &str) {
        if comment.is_empty() {
            return self.line(depth, line);
        }
        let width = COMMENT.saturating_sub(2 * depth);
        self.line(depth, &format!("{line:width$} # {}", one_line(comment)));
    }

    fn remark(&mut self, depth: usize, comment: &str) {
        self.line(depth, &format!("# {}", one_line(comment)));
    }
}

/// A comment stays on its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn table_lines(out: &mut Writer, table: &SourceDraft) {
    let draft = &table.draft;
    out.line(2, &format!("- name: {}", scalar(&table.name)));
    out.line(3, "# description: TODO what one row is");
    out.with(
        3,
        &format!("write: {}", table.write),
        if table.write == "replace" {
            "each publication takes the place of the one before"
        } else {
            "each publication adds rows"
        },
    );
    match &table.path {
        Some(path) => out.with(3, &format!("source: {}", source(path, table, draft.csv.as_ref())), &table.about),
        None => out.remark(3, &format!("rows like those of {}", table.about)),
    }
    if let Some(transform) = &table.transform {
        out.line(3, &format!("transform: {}", scalar(transform)));
    }
    for remark in &draft.remarks {
        out.remark(3, remark);
    }
    if draft.misfits > 0 {
        out.remark(
            3,
            &format!(
                "up to {} of {} rows would be quarantined by this draft",
                grouped(draft.misfits),
                grouped(draft.records)
            ),
        );
    }
    if let Some(partition) = &draft.partition {
        let column = draft.newest.as_ref().map_or("", |(column, _)| column.as_str());
        out.remark(
            3,
            &format!("a large table: partitionBy: [{partition}] and sortBy: [{column}] let readers skip most files"),
        );
    }
    for (name, why) in &draft.left_out {
        out.remark(3, &format!("left out: {}: {why}", datamesh_core::infer::quoted(name)));
    }
    out.line(3, "columns:");
    for column in &draft.columns {
        column_lines(out, column);
    }
}

fn source(path: &str, table: &SourceDraft, csv: Option<&CsvOptions>) -> String {
    if let Some(table) = &table.database_table {
        return format!("{{database: {}, table: {}}}", flow(path), flow(table));
    }
    let format = table.format.as_deref();
    if format == Some("iceberg") {
        return format!("{{iceberg: {}}}", flow(path));
    }
    let mut keys = Vec::new();
    if let Some(format) = format {
        keys.push(format!("format: {format}"));
    }
    if let Some(csv) = csv {
        if csv.delimiter != ',' {
            let delimiter = if csv.delimiter == '\t' { "tab".to_owned() } else { flow(&csv.delimiter.to_string()) };
            keys.push(format!("delimiter: {delimiter}"));
        }
        if !csv.header {
            keys.push("header: false".to_owned());
        }
        match csv.quote {
            Some('"') => {}
            Some(quote) => keys.push(format!("quote: {}", flow(&quote.to_string()))),
            None => keys.push("quote: none".to_owned()),
        }
        if csv.null_text.len() > 1 {
            let texts: Vec<String> = csv.null_text.iter().map(|text| flow(text)).collect();
            keys.push(format!("nullText: [{}]", texts.join(", ")));
        }
    }
    if keys.is_empty() { scalar(path) } else { format!("{{path: {}, {}}}", flow(path), keys.join(", ")) }
}

fn column_lines(out: &mut Writer, draft: &ColumnDraft) {
    let column = &draft.column;
    let why = |key: &str| draft.evidence.get(key).map_or("", String::as_str);
    out.line(4, &format!("- name: {}", scalar(&column.name)));
    type_lines(out, 5, column, &draft.type_evidence);
    if let Some(description) = &column.description {
        out.line(5, &format!("description: {}", scalar(description)));
    }
    if column.primary_key {
        out.with(5, "primaryKey: true", why("primaryKey"));
    }
    if column.required && !column.primary_key {
        out.with(5, "required: true", why("required"));
    }
    let limits = &column.constraints;
    if let Some(allowed) = &limits.allowed {
        let values: Vec<String> = allowed.iter().map(|value| flow(value)).collect();
        out.with(5, &format!("enum: [{}]", values.join(", ")), why("enum"));
    }
    if let Some(minimum) = &limits.minimum {
        out.with(5, &format!("minimum: {minimum}"), why("minimum"));
    }
    if let Some(maximum) = &limits.maximum {
        out.with(5, &format!("maximum: {maximum}"), why("maximum"));
    }
    if let Some(format) = limits.format {
        let word = TextFormat::ALL.iter().find(|(_, known)| *known == format).map_or("", |(word, _)| *word);
        out.with(5, &format!("format: {word}"), why("format"));
    }
    if column.pii {
        out.with(5, "pii: true", &format!("suspected: {}", draft.suspicion.as_deref().unwrap_or("personal data")));
    }
    let fields = match &column.data_type {
        DataType::Struct(fields) => Some(fields),
        DataType::Array(item) => match &item.data_type {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    };
    if let Some(fields) = fields {
        out.line(5, "columns:");
        field_lines(out, 6, fields);
    }
    let (mut lines, mut together) = (Vec::new(), Vec::new());
    for (line, why) in &draft.suggestions {
        // A range is one thought, so it is on one line.
        if line.starts_with("minimum:") || line.starts_with("maximum:") {
            together.push((line, why));
        } else {
            lines.push(format!("{line}   # {why}"));
        }
    }
    if !together.is_empty() {
        let range: Vec<&str> = together.iter().map(|(line, _)| line.as_str()).collect();
        lines.push(format!("{}   # seen", range.join(", ")));
    }
    for line in lines {
        out.remark(5, &line);
    }
    for remark in &draft.remarks {
        out.remark(5, remark);
    }
}

fn type_lines(out: &mut Writer, depth: usize, column: &Column, evidence: &str) {
    let text = match &column.data_type {
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Array(item) if matches!(item.data_type, DataType::Struct(_)) => "array<struct>".to_owned(),
        other => other.to_string(),
    };
    let text = if text.contains([',', ' ', ':']) { format!("'{text}'") } else { text };
    out.with(depth, &format!("type: {text}"), evidence);
}

fn field_lines(out: &mut Writer, depth: usize, fields: &[Column]) {
    for field in fields {
        out.line(depth, &format!("- name: {}", scalar(&field.name)));
        type_lines(out, depth + 1, field, "");
        if field.pii {
            out.with(depth + 1, "pii: true", "suspected: by its name or values");
        }
        let inner = match &field.data_type {
            DataType::Struct(fields) => Some(fields),
            DataType::Array(item) => match &item.data_type {
                DataType::Struct(fields) => Some(fields),
                _ => None,
            },
            _ => None,
        };
        if let Some(fields) = inner {
            out.line(depth + 1, "columns:");
            field_lines(out, depth + 2, fields);
        }
    }
}

/// A text as a YAML scalar that every reader takes for the same text.
pub fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/' || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' '))
        && !text.ends_with([' ', '.'])
        && !text.starts_with("...");
    let word = text.to_ascii_lowercase();
    let special =
        matches!(word.as_str(), "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n" | ".nan" | ".inf");
    let number = text.parse::<f64>().is_ok();
    if plain && !special && !number {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        // JSON's strings are YAML's double-quoted ones.
        serde_json::Value::from(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// The same within `[…]` and `{…}`.
fn flow(text: &str) -> String {
    scalar(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::yaml::{Document, Node};

    proptest! {
        #[test]
        fn scalars_are_read_back(text in "\\PC{0,30}|[ -~\\t\\n]{0,12}|-?[0-9.]{1,6}|[a-z:#,{}\\[\\] ]{0,8}") {
            let line = format!("a: {}\nb: [{}]\n", super::scalar(&text), super::flow(&text));
            let mut document = Document::new("t", line.as_bytes()).expect("a document");
            let root = document.parse().expect("it is YAML");
            prop_assert_eq!(root.get("a").and_then(Node::text), Some(text.as_str()));
            let items = root.get("b").and_then(Node::items).expect("a list");
            prop_assert_eq!(items.len(), 1);
            prop_assert_eq!(items[0].text(), Some(text.as_str()));
            prop_assert!(!items[0].is_null());
        }
    }
}
