//! Row filters in the words that Lake Formation has for them.
//!
//! Its filter expressions are the comparisons of PartiQL: `AND`, `OR`, `NOT`, `IN`, `LIKE`, `BETWEEN`, `IS NULL`, without
//! functions and arithmetic. What is more is refused: a filter that is not surely the same is none.

use std::collections::BTreeMap;

use datamesh_core::access::AttributeType;
use datamesh_core::contract::Table;

use super::access;
use crate::hcl::Part;

const KEYWORDS: [&str; 12] =
    ["and", "or", "not", "in", "is", "null", "like", "between", "true", "false", "date", "timestamp"];

/// A token of a condition.
#[derive(Debug, PartialEq, Eq)]
enum Token<'t> {
    /// An unquoted word, with dots.
    Word(&'t str),
    /// A text, a number or a symbol, as written.
    Verbatim(&'t str),
}

/// A condition as a template; `principal.<attribute>` becomes the value of the principal at hand.
///
/// # Errors
/// Why Lake Formation cannot say it.
pub(super) fn translate(
    condition: &str,
    table: &Table,
    attributes: &BTreeMap<String, AttributeType>,
) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    let mut push = |part: Part| match (parts.last_mut(), part) {
        (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
        (_, part) => parts.push(part),
    };
    let tokens = tokens(condition)?;
    for (at, (token, spaced)) in tokens.iter().enumerate() {
        if *spaced && at > 0 {
            push(Part::Text(" ".into()));
        }
        match token {
            Token::Verbatim(text) => push(Part::Text((*text).to_owned())),
            Token::Word(word) => {
                let called = matches!(tokens.get(at + 1), Some((Token::Verbatim("("), _)));
                if KEYWORDS.contains(&word.to_ascii_lowercase().as_str()) && table.column(word).is_none() {
                    push(Part::Text(word.to_ascii_uppercase()));
                } else if let Some(name) = word.strip_prefix("principal.") {
                    let kind = attributes.get(name).copied().unwrap_or(AttributeType::String);
                    let value = access::attribute(name, kind);
                    let value = value.ok_or_else(|| format!("its row filter asks for the set `principal.{name}`"))?;
                    value.into_iter().for_each(&mut push);
                } else if called {
                    return Err(format!("its row filter calls `{word}`, and Lake Formation has no functions"));
                } else {
                    let top = word.split('.').next().unwrap_or(word);
                    if !table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(top)) {
                        return Err(format!("its row filter has `{word}`, which is no column"));
                    }
                    push(Part::Text((*word).to_owned()));
                }
            }
        }
    }
    if parts.is_empty() { Err("its row filter is empty".into()) } else { Ok(parts) }
}

/// The tokens, each with whether white space is before it.
fn tokens(text: &str) -> Result<Vec<(Token<'_>, bool)>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut spaced = false;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            spaced = true;
            rest = rest.trim_start();
            continue;
        }
        let length = match first {
            '\'' => quoted(rest)?,
            '0'..='9' => rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len()),
            c if c.is_alphabetic() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.'))).unwrap_or(rest.len())
            }
            '<' | '>' | '!' | '=' => match rest.get(..2) {
                Some("<=" | ">=" | "<>" | "!=") => 2,
                _ if first == '!' => return Err("its row filter has `!`".into()),
                _ => 1,
            },
            '(' | ')' | ',' => 1,
            '-' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) && follows_operator(tokens.last()) => 1,
            c => {
                return Err(format!("its row filter has `{}`, which Lake Formation does not know", c.escape_default()));
            }
        };
        let (token, after) = rest.split_at(length);
        let word = first.is_alphabetic() || first == '_';
        tokens.push((if word { Token::Word(token) } else { Token::Verbatim(token) }, spaced));
        spaced = false;
        rest = after;
    }
    Ok(tokens)
}

/// Whether a minus after `before` is the sign of a number.
fn follows_operator(before: Option<&(Token<'_>, bool)>) -> bool {
    match before {
        None => true,
        Some((Token::Verbatim(text), _)) => matches!(*text, "=" | "<" | ">" | "<=" | ">=" | "<>" | "!=" | "(" | ","),
        Some((Token::Word(word), _)) => matches!(word.to_ascii_lowercase().as_str(), "and" | "between"),
    }
}

/// The length of the quoted text that `rest` begins with; a doubled quote is one.
fn quoted(rest: &str) -> Result<usize, String> {
    let mut at = 1;
    while let Some(end) = rest[at..].find('\'') {
        at += end + 1;
        if !rest[at..].starts_with('\'') {
            return Ok(at);
        }
        at += 1;
    }
    Err("its row filter has a text without an end".into())
}
