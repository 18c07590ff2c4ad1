//! Texts made to break a parser: a clear error, never a panic or a hang.

use proptest::prelude::*;

use crate::{ARTICLE, REFERENCE, read_manifest};

fn first_error(text: &[u8]) -> (&'static str, usize) {
    let (product, diagnostics) = read_manifest(text);
    assert!(product.is_none());
    let first = diagnostics.iter().find(|diagnostic| diagnostic.is_error()).expect("an error");
    assert!(first.help.is_some(), "{first}");
    (first.id, first.location.line)
}

#[test]
fn hostile_documents_are_refused() {
    let bomb: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned())
        .chain(
            (1..12).map(|level| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "))),
        )
        .collect();
    assert_eq!(first_error(bomb.as_bytes()).0, "too-many-values");
    assert_eq!(first_error("[".repeat(100_000).as_bytes()).0, "nested-too-deep");
    assert_eq!(first_error("{a: ".repeat(100_000).as_bytes()).0, "nested-too-deep");
    assert_eq!(first_error(&vec![b'a'; 100 << 20]).0, "file-too-large");
    assert_eq!(first_error(b"dataProduct:\n  name: \xff\n"), ("not-utf8", 2));
    assert_eq!(first_error(b""), ("empty-file", 1));
    assert_eq!(first_error(b"a: 1\n---\nb: 2\n").0, "several-documents");
    assert_eq!(first_error(b"a: *nothing\n").0, "yaml-syntax");
    assert_eq!(first_error(b"a: &a [*a]\n").0, "unknown-anchor");
    assert_eq!(first_error(b"? [a]\n: b\n").0, "complex-key");
    assert_eq!(first_error(b"a: 'open\n").0, "yaml-syntax");
    assert_eq!(first_error(b"- a\n- b\n").0, "wrong-shape");
}

#[test]
fn repeated_keys_are_told_with_their_place() {
    let (_, diagnostics) = read_manifest("dataProduct:\n  naïve: ü\n  owner: a\n  owner: b\n".as_bytes());
    let repeated = diagnostics.iter().find(|diagnostic| diagnostic.id == "duplicate-key").expect("told");
    assert_eq!((repeated.location.line, repeated.location.column), (4, 3));
}

#[test]
fn long_flat_documents_are_read_in_time() {
    // Linear work: a quadratic parser would not come back from this.
    let columns: String = (0..20_000).map(|at| format!("        - {{name: c{at}, type: string}}\n")).collect();
    let text = format!(
        "dataProduct:\n  name: x\n  version: 1.0.0\n  owner: y\n  schema:\n    - name: t\n      columns:\n{columns}"
    );
    assert_eq!(read_manifest(text.as_bytes()).0.expect("read").tables[0].columns.len(), 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_manifest(&bytes);
    }

    #[test]
    fn any_yaml_like_text(text in "[ \n\ta-z:{}\\[\\],&*|>'\"#%?!~0-9.é-]{0,300}") {
        read_manifest(text.as_bytes());
    }

    /// The real manifests with pieces cut out, doubled and moved.
    #[test]
    fn mutated_manifests(
        reference: bool,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, any::<prop::sample::Index>(), "[ \n:{}\\[\\],&*|>'\"a-z0-9éü-]{0,4}"), 1..8),
    ) {
        let mut text: Vec<char> = if reference { REFERENCE } else { ARTICLE }.chars().collect();
        for (at, length, to, insert) in edits {
            if text.is_empty() { break; }
            let start = at.index(text.len());
            let cut: Vec<char> = text.drain(start..(start + length).min(text.len())).collect();
            let to = if text.is_empty() { 0 } else { to.index(text.len()) };
            text.splice(to..to, cut.into_iter().chain(insert.chars()));
        }
        let text: String = text.into_iter().collect();
        let (product, diagnostics) = read_manifest(text.as_bytes());
        prop_assert_eq!(product.is_none(), diagnostics.iter().any(datamesh_core::Diagnostic::is_error));
        for diagnostic in &diagnostics {
            prop_assert!(diagnostic.location.offset + diagnostic.location.length <= text.len());
        }
    }
}
