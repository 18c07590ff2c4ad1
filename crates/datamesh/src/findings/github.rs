//! GitHub's workflow commands (docs.github.com: Workflow commands for GitHub Actions, "Setting an error message").

use std::collections::BTreeMap;
use std::path::Path;

use datamesh_core::{Level, Result};

use super::{Finding, region, relative, working};

/// One command a finding, each on a line of its own.
pub(crate) fn to_github(findings: &[Finding], sources: &BTreeMap<String, String>) -> Result<String> {
    let working = working()?;
    Ok(findings.iter().map(|finding| format!("{}\n", command(finding, sources, &working))).collect())
}

pub(super) fn command(finding: &Finding, sources: &BTreeMap<String, String>, working: &Path) -> String {
    let word = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "notice",
    };
    let file = relative(&finding.location.file, working).unwrap_or_else(|| finding.location.file.clone());
    let mut properties = vec![("file", file)];
    if let Some([line, column, end_line, end_column]) = region(&finding.location, sources) {
        properties.push(("line", line.to_string()));
        properties.push(("endLine", end_line.to_string()));
        // Columns count only within one line.
        if line == end_line {
            properties.push(("col", column.to_string()));
            properties.push(("endColumn", end_column.max(column + 1).to_string()));
        }
    }
    properties.push(("title", finding.rule.clone()));
    let properties: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={}", escape_property(value))).collect();
    format!("::{word} {}::{}", properties.join(","), escape(&finding.text()))
}

/// A command ends with its line, and `%` starts an escape.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Properties end at `,` and `:` too.
fn escape_property(text: &str) -> String {
    escape(text).replace(':', "%3A").replace(',', "%2C")
}
