//! Tests of manifests: what is accepted, every problem that is told, and texts made to break a parser.

#![allow(clippy::unwrap_used)]

mod check;
mod dbt;
mod domain;
mod evolution;
mod fuzz;
mod lifecycle;
mod mesh;
mod odcs;
mod odcs_generated;
mod odps;
mod place;
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

const ARTICLE: &str = include_str!("../manifests/article.yaml");
const REFERENCE: &str = include_str!("../manifests/customer-360.yaml");
