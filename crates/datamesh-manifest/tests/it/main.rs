//! Tests of manifests: what is accepted, every problem that is told, and texts made to break a parser.

#![allow(clippy::unwrap_used)]

mod access;
mod check;
mod dbt;
mod domain;
mod evolution;
mod fuzz;
mod governance;
mod lifecycle;
mod mesh;
mod odcs;
mod odcs_generated;
mod odps;
mod place;
mod policies;
mod rules;
mod schema;
mod source;

use datamesh_core::contract::DataProduct;
use datamesh_core::{Diagnostic, Name};
use datamesh_manifest::read;
use datamesh_manifest::yaml::Document;

/// Reads a manifest as lying in domain `sales`.
fn read_manifest(text: &[u8]) -> (Option<DataProduct>, Vec<Diagnostic>) {
    read_in(text, Some("sales"))
}

fn read_in(text: &[u8], domain: Option<&str>) -> (Option<DataProduct>, Vec<Diagnostic>) {
    let domain = domain.map(|domain| Name::new(domain).unwrap());
    let mut document = match Document::new("product.yaml", text) {
        Ok(document) => document,
        Err(diagnostic) => return (None, vec![*diagnostic]),
    };
    let product = document.parse().and_then(|root| read::product(&mut document, &root, domain.as_ref()));
    (product, document.finish())
}

/// The errors and warnings of a document: line, id, the text that is meant, and the message.
fn told(text: &str, diagnostics: &[Diagnostic]) -> Vec<String> {
    let told = diagnostics.iter().filter(|found| found.level != datamesh_core::Level::Note).map(|found| {
        assert!(found.help.as_ref().is_some_and(|help| !help.is_empty()), "{found} has no help");
        let at = &found.location;
        let meant = text.get(at.offset..at.offset + at.length).unwrap_or_default();
        format!("{} {} [{meant}] {}", at.line, found.id, found.message)
    });
    told.collect()
}

const ARTICLE: &str = include_str!("../manifests/article.yaml");
const REFERENCE: &str = include_str!("../manifests/customer-360.yaml");
