//! A context map as text, JSON and Mermaid.

use std::fmt::Write;

use serde_json::{Value, json};

use super::svg::ends;
use super::{ContextMap, LinkState, MapLink};
use crate::diagnostic::Level;

/// The map for people: every link with its marks and what it rests on, then what disagrees.
pub fn text(map: &ContextMap) -> String {
    let name = |index: usize| map.domains[index].name.as_str();
    let mut out = String::new();
    for link in &map.links {
        let (upstream, downstream) = ends(link);
        let arrow = if link.symmetric { "—" } else { "→" };
        let cycle = if link.cyclic { ", in a cycle" } else { "" };
        let _ = writeln!(
            out,
            "{} [{upstream}] {arrow} [{downstream}] {}  ({}{cycle})",
            name(link.upstream),
            name(link.downstream),
            link.state.as_str()
        );
        for declared in &link.declared {
            let about = declared.relationship.description.as_ref().map_or_else(String::new, |text| format!(": {text}"));
            let _ = writeln!(out, "    {} declares {}{about}", name(declared.by), declared.relationship.kind);
        }
        for found in &link.dependencies {
            let evidence: Vec<&str> = found.evidence.iter().map(|evidence| evidence.as_str()).collect();
            let undeclared = if found.covered { "" } else { ", undeclared" };
            let _ =
                writeln!(out, "    {} reads {} ({}{undeclared})", found.consumer, found.supplier, evidence.join(", "));
        }
    }
    let alone = |index: &usize| !map.links.iter().any(|link| link.upstream == *index || link.downstream == *index);
    let alone: Vec<&str> = (0..map.domains.len()).filter(alone).map(name).collect();
    if !alone.is_empty() {
        let _ = writeln!(out, "without a link: {}", alone.join(", "));
    }
    if map.findings.is_empty() {
        out.push_str("nothing disagrees\n");
    } else {
        out.push('\n');
    }
    for finding in &map.findings {
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let _ = writeln!(out, "{level}: {} [{}]\n  help: {}", finding.message, finding.id, finding.help);
    }
    out
}

/// The map for machines.
pub fn to_json(map: &ContextMap) -> Value {
    let name = |index: usize| map.domains[index].name.as_str();
    let domains = map.domains.iter().map(|domain| {
        json!({
            "name": domain.name,
            "declared": domain.declared,
            "owner": domain.owner,
            "purpose": domain.purpose,
            "responsibilities": domain.responsibilities,
            "products": domain.products,
            "tables": domain.tables,
            "upstream": domain.upstream,
            "downstream": domain.downstream,
        })
    });
    let links = map.links.iter().map(|link| {
        let declared = link.declared.iter().map(|declared| {
            let relationship = &declared.relationship;
            json!({
                "by": name(declared.by),
                "kind": relationship.kind,
                "role": relationship.role,
                "products": relationship.products.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "description": relationship.description,
            })
        });
        let dependencies = link.dependencies.iter().map(|found| {
            json!({
                "supplier": found.supplier,
                "consumer": found.consumer,
                "evidence": found.evidence,
                "declared": found.covered,
            })
        });
        json!({
            "upstream": name(link.upstream),
            "downstream": name(link.downstream),
            "symmetric": link.symmetric,
            "upstream_marks": link.upstream_marks(),
            "downstream_marks": link.downstream_marks(),
            "state": link.state,
            "cyclic": link.cyclic,
            "declared": declared.collect::<Vec<_>>(),
            "dependencies": dependencies.collect::<Vec<_>>(),
        })
    });
    json!({
        "domains": domains.collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "findings": map.findings,
    })
}

/// How Mermaid draws a link: as declared and read, by colour and dashes.
fn style(link: &MapLink) -> Option<&'static str> {
    match link.state {
        LinkState::Undeclared | LinkState::Crossed => Some("stroke:#cf222e,stroke-dasharray:7 4"),
        LinkState::Unsupported => Some("stroke:#8c959f,stroke-dasharray:3 3"),
        LinkState::Apart => Some("stroke:#8c959f,stroke-dasharray:1 5"),
        LinkState::Agreed if link.cyclic => Some("stroke:#9a6700,stroke-width:4px"),
        LinkState::Agreed => None,
    }
}

/// The map as a Mermaid flow chart, upstream left.
pub fn mermaid(map: &ContextMap) -> String {
    // Mermaid reads `#` as the start of a character's code, and a quote as the end of the text; labels may be HTML.
    let text = |text: &str| {
        text.replace('#', "#35;")
            .replace('"', "#quot;")
            .replace('&', "#amp;")
            .replace('<', "#lt;")
            .replace('>', "#gt;")
            .replace(['\n', '\r'], " ")
    };
    let mut chart = String::from("flowchart LR\n");
    for (number, domain) in map.domains.iter().enumerate() {
        let owner = domain.owner.as_deref().map_or_else(String::new, |owner| format!("<br/>{}", text(owner)));
        let _ = writeln!(chart, "  d{number}[\"{}{owner}\"]", text(&domain.name));
    }
    let mut styles = String::new();
    for (number, link) in map.links.iter().enumerate() {
        let (upstream, downstream) = ends(link);
        let (arrow, label) =
            if link.symmetric { ("---", upstream) } else { ("-->", format!("{upstream} → {downstream}")) };
        let _ = writeln!(chart, "  d{} {arrow}|\"{}\"| d{}", link.upstream, text(&label), link.downstream);
        if let Some(style) = style(link) {
            let _ = writeln!(styles, "  linkStyle {number} {style}");
        }
    }
    let undeclared = map.domains.iter().enumerate().filter(|(_, domain)| !domain.declared);
    for (number, _) in undeclared {
        let _ = writeln!(styles, "  style d{number} stroke-dasharray:5 3");
    }
    chart.push_str(&styles);
    chart
}
