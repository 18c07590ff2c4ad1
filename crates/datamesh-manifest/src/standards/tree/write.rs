//! A tree as YAML and as JSON.

use std::fmt::Write as _;

use super::{Tree, number};

/// Keys up to this many bytes stand before their colon; YAML wants longer ones marked.
const LONGEST_PLAIN_KEY: usize = 128;

/// The value as a YAML document.
pub(super) fn yaml(tree: &Tree) -> String {
    let mut out = String::new();
    match tree {
        Tree::List(items) if !items.is_empty() => list(&mut out, items, 0, false),
        Tree::Map(map) if !map.is_empty() => entries(&mut out, map, 0, false),
        Tree::Text(text) => {
            out.push_str(&one_line(text));
            out.push('\n');
        }
        _ => {
            out.push_str(&flat(tree).unwrap_or_default());
            out.push('\n');
        }
    }
    out
}

/// Writes a map's lines; the first without its indent where it follows a `- `.
fn entries(out: &mut String, map: &super::Map, depth: usize, inline: bool) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, depth);
        }
        let key = one_line(key);
        if key.len() > LONGEST_PLAIN_KEY {
            out.push_str("? ");
            out.push_str(&key);
            out.push('\n');
            indent(out, depth);
        } else {
            out.push_str(&key);
        }
        out.push(':');
        match value {
            Tree::List(items) if !items.is_empty() => {
                out.push('\n');
                list(out, items, depth + 1, false);
            }
            Tree::Map(map) if !map.is_empty() => {
                out.push('\n');
                entries(out, map, depth + 1, false);
            }
            _ => {
                out.push(' ');
                scalar(out, value, depth + 1);
            }
        }
    }
}

fn list(out: &mut String, items: &[Tree], depth: usize, inline: bool) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Tree::List(items) if !items.is_empty() => list(out, items, depth + 1, true),
            Tree::Map(map) if !map.is_empty() => entries(out, map, depth + 1, true),
            _ => scalar(out, item, depth + 1),
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// Writes a single value, the rest of its line and the lines of a block below.
fn scalar(out: &mut String, value: &Tree, depth: usize) {
    if let Tree::Text(text) = value
        && let Some(header) = block_header(text)
    {
        out.push_str(header);
        out.push('\n');
        // The last line break belongs to the header's mark, not to a line.
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                indent(out, depth);
                out.push_str(line);
            }
            out.push('\n');
        }
        return;
    }
    out.push_str(&flat(value).unwrap_or_default());
    out.push('\n');
}

/// A value on one line; `None` for a filled list or map.
fn flat(value: &Tree) -> Option<String> {
    match value {
        Tree::Null => Some("null".to_owned()),
        Tree::Bool(boolean) => Some(boolean.to_string()),
        Tree::Number(text) if number::is_number(text) => Some(text.clone()),
        Tree::Number(text) | Tree::Text(text) => Some(one_line(text)),
        Tree::List(items) => items.is_empty().then(|| "[]".to_owned()),
        Tree::Map(map) => map.is_empty().then(|| "{}".to_owned()),
    }
}

/// The mark of a block scalar that holds exactly this text; `None` where quotes are the way.
fn block_header(text: &str) -> Option<&'static str> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    // Lines of nothing but blanks, and texts that begin with one, would need marks that few readers get right.
    let clean = |line: &str| line.is_empty() || !line.trim_matches([' ', '\t']).is_empty();
    let fits = text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !body.ends_with('\n')
        && !body.is_empty()
        && body.split('\n').all(clean)
        && text.chars().all(|character| character == '\n' || character == '\t' || is_printable(character));
    if !fits {
        return None;
    }
    Some(if text.ends_with('\n') { "|" } else { "|-" })
}

/// A text on one line, with quotes where it needs them.
fn one_line(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let printable = text.chars().all(is_printable);
    if printable && text.contains(['"', '\\']) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_printable(character) => out.push(character),
            _ if u32::from(character) <= 0xFFFF => _ = write!(out, "\\u{:04X}", u32::from(character)),
            _ => _ = write!(out, "\\U{:08X}", u32::from(character)),
        }
    }
    out.push('"');
    out
}

/// What YAML lets stand unescaped on one line, less what looks like nothing or like a line break.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
        && (u32::from(character) & 0xFFFE) != 0xFFFE
}

/// Whether the text can stand without quotes and is a text to every reader, of YAML 1.1 and 1.2.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let starts_well = first.is_alphanumeric() || matches!(first, '_' | '/' | '(' | '$' | '.' | '<' | '+' | '^');
    starts_well
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("...")
        && text.chars().all(is_printable)
        && !text.chars().any(|character| character.is_whitespace() && character != ' ')
        && !number::is_number(text)
        && !is_word(text)
        && !looks_numeric(text)
}

/// What YAML 1.1 or 1.2 reads as null, a boolean, a merge or a default.
fn is_word(text: &str) -> bool {
    const WORDS: &[&str] =
        &["null", "true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "none", "nan", "inf"];
    let folded = text.to_ascii_lowercase();
    WORDS.contains(&folded.as_str()) || matches!(text, "<<" | "=" | "~")
}

/// What some reader could take for a number, a date, a time, a version of one or a number to base 60: whatever starts
/// like a number and has only characters that those have.
fn looks_numeric(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['-', '+', '.']);
    let numeric = |character: char| character.is_ascii_hexdigit() || "_:.,+-xXoOTtZz ".contains(character);
    unsigned.chars().next().is_none_or(|first| first.is_ascii_digit()) && text.chars().all(numeric)
        || number::is_special(&text.to_ascii_lowercase())
}

/// The value as an indented JSON document.
pub(super) fn json(tree: &Tree) -> String {
    let mut out = String::new();
    json_value(&mut out, tree, 0);
    out.push('\n');
    out
}

fn json_value(out: &mut String, tree: &Tree, depth: usize) {
    match tree {
        Tree::Null => out.push_str("null"),
        Tree::Bool(boolean) => _ = write!(out, "{boolean}"),
        Tree::Number(text) => match number::json(text) {
            Some(number) => out.push_str(&number),
            None => json_text(out, text),
        },
        Tree::Text(text) => json_text(out, text),
        Tree::List(items) if items.is_empty() => out.push_str("[]"),
        Tree::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                json_line(out, at, depth + 1);
                json_value(out, item, depth + 1);
            }
            out.push('\n');
            indent(out, depth);
            out.push(']');
        }
        Tree::Map(map) if map.is_empty() => out.push_str("{}"),
        Tree::Map(map) => {
            out.push('{');
            for (at, (key, value)) in map.iter().enumerate() {
                json_line(out, at, depth + 1);
                json_text(out, key);
                out.push_str(": ");
                json_value(out, value, depth + 1);
            }
            out.push('\n');
            indent(out, depth);
            out.push('}');
        }
    }
}

fn json_line(out: &mut String, at: usize, depth: usize) {
    out.push_str(if at > 0 { ",\n" } else { "\n" });
    indent(out, depth);
}

fn json_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
