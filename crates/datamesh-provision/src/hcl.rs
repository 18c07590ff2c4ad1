//! HCL as a small syntax tree, and its text as `terraform fmt` leaves it.
//!
//! Text only gets in as a value, and is escaped when it is written; names of blocks and attributes are ours.

use std::fmt::Write;

/// What stands in a block, in order.
pub type Body = Vec<Item>;

/// An item of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `name = value`.
    Attribute(&'static str, Expression),
    /// `kind "label" { … }`.
    Block(&'static str, Vec<String>, Body),
    /// An empty line.
    Blank,
    /// A comment, one line.
    Comment(String),
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Text, taken literally.
    Text(String),
    /// A quoted template.
    Template(Vec<Part>),
    /// An expression that we wrote: a reference, a call, a keyword. It has no line break.
    Raw(String),
    /// A whole number.
    Number(i64),
    /// A list.
    List(Vec<Expression>),
    /// An object.
    Object(Vec<(Key, Expression)>),
    /// A call of a function, each argument on a line of its own.
    Call(&'static str, Vec<Expression>),
}

/// The key of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An identifier.
    Name(&'static str),
    /// Text, taken literally.
    Text(String),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text, taken literally.
    Text(String),
    /// `${…}`, an expression that we wrote.
    Expression(String),
}

impl Expression {
    /// Literal text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An expression that we wrote.
    pub fn raw(text: impl Into<String>) -> Self {
        Self::Raw(text.into())
    }

    /// A list of literal texts.
    pub fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }
}

/// A block without labels.
pub fn block(kind: &'static str, body: Body) -> Item {
    Item::Block(kind, Vec::new(), body)
}

/// A `resource` block.
pub fn resource(kind: &str, label: &str, body: Body) -> Item {
    Item::Block("resource", vec![kind.to_owned(), label.to_owned()], body)
}

/// The text of a file.
pub fn write(body: &[Item]) -> String {
    let mut out = String::new();
    write_body(&mut out, body, 0);
    out
}

fn write_body(out: &mut String, body: &[Item], depth: usize) {
    let lines: Vec<(Option<&'static str>, String)> = body
        .iter()
        .map(|item| match item {
            Item::Attribute(name, value) => (Some(*name), expression(value, depth)),
            _ => (None, String::new()),
        })
        .collect();
    let widths = aligned(lines.iter().map(|(name, value)| name.map(|name| (name.len(), value.contains('\n')))));
    for ((item, (_, value)), width) in body.iter().zip(&lines).zip(widths) {
        let indent = "  ".repeat(depth);
        match item {
            Item::Blank => out.push('\n'),
            Item::Comment(text) => {
                let shown: String = text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect();
                let _ = writeln!(out, "{indent}# {}", crate::catalog::single_line(&shown, 1000));
            }
            Item::Attribute(name, _) => {
                let _ = writeln!(out, "{indent}{name:width$} = {value}");
            }
            Item::Block(kind, labels, body) => {
                let labels: String = labels.iter().map(|label| format!(" {}", quoted(label))).collect();
                if body.is_empty() {
                    let _ = writeln!(out, "{indent}{kind}{labels} {{}}");
                } else {
                    let _ = writeln!(out, "{indent}{kind}{labels} {{");
                    write_body(out, body, depth + 1);
                    let _ = writeln!(out, "{indent}}}");
                }
            }
        }
    }
}

/// The width of each name: neighbours whose values take one line have their equals signs below each other (hclwrite,
/// `formatCells`). A value of several lines stands by itself.
fn aligned(lines: impl Iterator<Item = Option<(usize, bool)>>) -> Vec<usize> {
    let lines: Vec<_> = lines.collect();
    let in_chain = |line: &Option<(usize, bool)>| matches!(line, Some((_, false)));
    let mut widths = Vec::with_capacity(lines.len());
    while widths.len() < lines.len() {
        let rest = &lines[widths.len()..];
        let chain = rest.iter().take_while(|line| in_chain(line)).count();
        let width = rest[..chain].iter().flatten().map(|(width, _)| *width).max().unwrap_or(0);
        widths.extend(std::iter::repeat_n(width, chain));
        if chain == 0 {
            widths.push(0);
        }
    }
    widths
}

fn expression(value: &Expression, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let close = "  ".repeat(depth);
    match value {
        Expression::Text(text) => quoted(text),
        Expression::Template(parts) => {
            let mut out = String::from("\"");
            for part in parts {
                match part {
                    Part::Text(text) => escape(&mut out, text),
                    Part::Expression(text) => {
                        // A `$` before would take the brace with it.
                        if out.ends_with('$') {
                            out.pop();
                            out.push_str("\\u0024");
                        }
                        let _ = write!(out, "${{{text}}}");
                    }
                }
            }
            out.push('"');
            out
        }
        Expression::Raw(text) => text.clone(),
        Expression::Number(number) => number.to_string(),
        Expression::List(items) if items.is_empty() => "[]".into(),
        Expression::List(items) => {
            let items: Vec<String> = items.iter().map(|item| expression(item, depth + 1)).collect();
            let line = items.join(", ");
            if line.len() <= 80 && !line.contains('\n') {
                return format!("[{line}]");
            }
            let lines: String = items.iter().map(|item| format!("{indent}{item},\n")).collect();
            format!("[\n{lines}{close}]")
        }
        Expression::Object(entries) if entries.is_empty() => "{}".into(),
        Expression::Object(entries) => {
            let lines: Vec<(String, String)> = entries
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        Key::Name(name) => (*name).to_owned(),
                        Key::Text(text) => quoted(text),
                    };
                    (key, expression(value, depth + 1))
                })
                .collect();
            let widths = aligned(lines.iter().map(|(key, value)| Some((key.chars().count(), value.contains('\n')))));
            let mut out = String::from("{\n");
            for ((key, value), width) in lines.iter().zip(widths) {
                let _ = writeln!(out, "{indent}{key:width$} = {value}");
            }
            out.push_str(&close);
            out.push('}');
            out
        }
        Expression::Call(name, arguments) => {
            let lines: String =
                arguments.iter().map(|item| format!("{indent}{},\n", expression(item, depth + 1))).collect();
            format!("{name}(\n{lines}{close})")
        }
    }
}

/// Text as a quoted string literal (HCL syntax specification, "Template Expressions").
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    escape(&mut out, text);
    out.push('"');
    out
}

fn escape(out: &mut String, text: &str) {
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '$' | '%' => match rest.peek() {
                Some('{') => {
                    out.push(c);
                    out.push(c);
                }
                // A run of them before a brace is read in more than one way.
                Some(next) if *next == c => {
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                _ => out.push(c),
            },
            c if is_unseen(c) && (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c if is_unseen(c) => {
                let _ = write!(out, "\\U{:08x}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// Characters that a reader of the text would not see, or that change the order of what they see.
fn is_unseen(c: char) -> bool {
    c.is_control() || is_hidden(c)
}

/// Those of them that are no control characters, and so would stay in a comment.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
