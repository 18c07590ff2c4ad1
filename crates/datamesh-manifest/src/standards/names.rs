//! Names of standards as names of ours.

use datamesh_core::Name;
use datamesh_core::contract::bad_column_name;

/// A name of a product, table or domain that is as close to `text` as ours can be. The same text gives the same name.
pub(crate) fn name(text: &str) -> String {
    if Name::new(text).is_ok() {
        return text.to_owned();
    }
    let mut name = words(text, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.insert_str(0, "n_");
    }
    name.truncate(120);
    // `_v<digits>` at the end means a major version.
    if Name::new(&name).is_err() {
        name.push('_');
    }
    name
}

/// A column's name that is as close to `text` as ours can be.
pub(crate) fn column(text: &str) -> String {
    if bad_column_name(text).is_none() {
        return text.to_owned();
    }
    let mut name = words(text, |c| !(c.is_control() || matches!(c, '.' | '[' | ']' | '{' | '}' | '+' | '"' | '`')));
    let mut end = name.len().min(240);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    let name = name.trim_start_matches('_');
    if name.is_empty() { "column".to_owned() } else { name.to_owned() }
}

fn words(text: &str, fits: impl Fn(char) -> bool) -> String {
    text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

/// Makes each name differ from those before it, as SQL compares them, by a number at its end.
pub(crate) fn distinct(names: &mut [String]) {
    let mut seen = std::collections::HashSet::new();
    let sql = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    for name in names {
        let mut candidate = name.clone();
        let mut number = 2;
        while !seen.insert(sql(&candidate)) {
            candidate = format!("{name}_{number}");
            number += 1;
        }
        *name = candidate;
    }
}

/// Whether `name` is what [`distinct`] makes of `wanted`.
pub(crate) fn is_distinct_form(name: &str, wanted: &str) -> bool {
    match name.strip_prefix(wanted) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('_').is_some_and(|digits| digits.parse::<u32>().is_ok()),
        None => false,
    }
}
