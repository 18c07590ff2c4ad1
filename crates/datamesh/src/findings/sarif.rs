//! The Static Analysis Results Interchange Format (SARIF 2.1.0, OASIS Standard).

use std::collections::BTreeMap;
use std::path::Path;

use datamesh_core::{Level, Result};
use serde::Serialize;

use super::{Finding, region, relative, working};

/// A log with one run (section 3.13).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    column_kind: &'static str,
    results: Vec<ResultObject>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    semantic_version: &'static str,
    rules: Vec<ReportingDescriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportingDescriptor {
    id: String,
    short_description: Message,
    default_configuration: Configuration,
}

#[derive(Serialize)]
struct Configuration {
    level: &'static str,
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultObject {
    rule_id: String,
    rule_index: usize,
    level: &'static str,
    message: Message,
    locations: Vec<LocationObject>,
    partial_fingerprints: Fingerprints,
}

#[derive(Serialize)]
struct Fingerprints {
    #[serde(rename = "datamesh/v1")]
    datamesh: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LocationObject {
    physical_location: PhysicalLocation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLocation {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri_base_id: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
    start_column: usize,
    end_line: usize,
    end_column: usize,
}

/// The findings as a log. Files below the working folder are told by relative URIs.
pub(crate) fn to_sarif(findings: &[Finding], sources: &BTreeMap<String, String>) -> Result<Log> {
    Ok(log(findings, sources, &working()?))
}

pub(super) fn log(findings: &[Finding], sources: &BTreeMap<String, String>, working: &Path) -> Log {
    let mut rules: BTreeMap<&str, (&Finding, usize)> = BTreeMap::new();
    for finding in findings {
        rules.entry(&finding.rule).or_insert((finding, 0));
    }
    for (at, (_, index)) in rules.values_mut().enumerate() {
        *index = at;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let results = findings
        .iter()
        .map(|finding| {
            let uri = relative(&finding.location.file, working);
            let region = region(&finding.location, sources);
            let identity = finding.identity.clone().unwrap_or_else(|| line_of(finding, sources));
            let key = format!("{}\n{}\n{identity}", finding.rule, uri.as_deref().unwrap_or(&finding.location.file));
            // Equal lines are told apart by their order.
            let nth = seen.entry(key.clone()).or_insert(0);
            *nth += 1;
            let fingerprint = format!("{:016x}:{nth}", fnv1a(key.as_bytes()));
            let artifact_location = match &uri {
                Some(path) => ArtifactLocation { uri: escape(path), uri_base_id: Some("%SRCROOT%") },
                None => {
                    ArtifactLocation { uri: format!("file://{}", escape(&finding.location.file)), uri_base_id: None }
                }
            };
            ResultObject {
                rule_id: finding.rule.clone(),
                rule_index: rules.get(finding.rule.as_str()).map_or(0, |(_, index)| *index),
                level: word(finding.level),
                message: Message { text: finding.text() },
                locations: vec![LocationObject {
                    physical_location: PhysicalLocation {
                        artifact_location,
                        region: region.map(|[start_line, start_column, end_line, end_column]| Region {
                            start_line,
                            start_column,
                            end_line,
                            end_column,
                        }),
                    },
                }],
                partial_fingerprints: Fingerprints { datamesh: fingerprint },
            }
        })
        .collect();
    let rules = rules
        .into_values()
        .map(|(finding, _)| ReportingDescriptor {
            id: finding.rule.clone(),
            short_description: Message { text: finding.about.clone() },
            default_configuration: Configuration { level: word(finding.level) },
        })
        .collect();
    let driver = Driver { name: "datamesh", semantic_version: env!("CARGO_PKG_VERSION"), rules };
    Log {
        schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        version: "2.1.0",
        runs: [Run { tool: Tool { driver }, column_kind: "unicodeCodePoints", results }],
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    }
}

fn line_of(finding: &Finding, sources: &BTreeMap<String, String>) -> String {
    let line = finding.location.line.checked_sub(1);
    let text = sources.get(&finding.location.file).zip(line).and_then(|(source, line)| source.lines().nth(line));
    text.map_or_else(|| finding.message.clone(), |text| text.trim().to_owned())
}

/// A path as a URI's (RFC 3986: unreserved characters and `/` as they are).
fn escape(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// A hash that stays the same from version to version (FNV-1a, 64 bits).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
