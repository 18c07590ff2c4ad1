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
                let keyword = word.to_ascii_lowercase();
                if KEYWORDS.contains(&keyword.as_str()) && table.column(word).is_none() {
                    let literal =
                        matches!(tokens.get(at + 1), Some((Token::Verbatim(text), _)) if text.starts_with('\''));
                    if matches!(keyword.as_str(), "date" | "timestamp") && !literal {
                        return Err(format!("its row filter has `{word}` without a quoted value"));
                    }
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

#[cfg(test)]
mod tests {
    use datamesh_core::{Column, DataType};

    use super::*;

    fn table() -> Table {
        let columns: Vec<Column> =
            ["country", "level", "address"].map(|name| Column::anonymous(name, DataType::String)).to_vec();
        serde_json::from_value(serde_json::json!({"name": "t", "columns": columns})).expect("a table")
    }

    fn check(condition: &str, expected: Result<&str, &str>) {
        let attributes = BTreeMap::from([
            ("level".to_owned(), AttributeType::Long),
            ("vip".to_owned(), AttributeType::Boolean),
            ("regions".to_owned(), AttributeType::Strings),
        ]);
        let parts = translate(condition, &table(), &attributes).map(|parts| {
            parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Expression(text) => format!("<{text}>"),
                })
                .collect::<String>()
        });
        match expected {
            Ok(expected) => assert_eq!(parts.as_deref(), Ok(expected), "{condition}"),
            Err(part) => assert!(parts.as_ref().is_err_and(|why| why.contains(part)), "{condition}: {parts:?}"),
        }
    }

    #[test]
    fn comparisons_are_kept() {
        check("country = 'DE' and level >= -1.5", Ok("country = 'DE' AND level >= -1.5"));
        check("address.country in ('a', 'it''s')", Ok("address.country IN ('a', 'it''s')"));
        check("level > date '2024-01-01'", Ok("level > DATE '2024-01-01'"));
        check("NOT (level IS NULL) OR level <> 3", Ok("NOT (level IS NULL) OR level <> 3"));
        check("country like 'principal.country'", Ok("country LIKE 'principal.country'"));
    }

    #[test]
    fn attributes_are_quoted_by_their_type() {
        check(
            "country = principal.country",
            Ok(r#"country = '<replace(each.value.attributes["country"], "'", "''")>'"#),
        );
        check("level = principal.level", Ok(r#"level = <format("%d", tonumber(each.value.attributes["level"]))>"#));
        check("level = principal.vip", Ok(r#"level = <tobool(each.value.attributes["vip"])>"#));
        check("country in (principal.regions)", Err("the set `principal.regions`"));
    }

    #[test]
    fn what_is_not_surely_the_same_is_refused() {
        check("lower(country) = 'a'", Err("functions"));
        check("date(country) = 'a'", Err("`date`"));
        check("level + 1 > 2", Err("`+`"));
        check("level - 1 > 2", Err("`-`"));
        check("country = 'a' -- OR true", Err("`-`"));
        check("country = 'a' /* b */", Err("`/`"));
        check("country = 'a", Err("without an end"));
        check("country::int = 1", Err("`:`"));
        check("\"country\" = 'a'", Err("which Lake Formation does not know"));
        check("nation = 'a'", Err("no column"));
        check("country = E'a'", Err("no column"));
        check("country = 'a'; drop", Err("`;`"));
        check("exists (select 1)", Err("functions"));
        check("case when true then true end", Err("no column"));
        check("  ", Err("empty"));
    }
}
