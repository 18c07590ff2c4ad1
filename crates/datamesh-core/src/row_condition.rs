//! What a row filter's text mentions, as far as its words tell. The engine, which knows SQL, has the last word.

use std::collections::BTreeSet;

/// The attributes of the reader that a condition needs: each `<attribute>` of `principal.<attribute>`.
pub fn attributes(condition: &str) -> BTreeSet<String> {
    let tokens = tokens(condition);
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let first = at == 0 || tokens[at - 1] != Token::Symbol('.');
        if first
            && token.is_word("principal")
            && tokens.get(at + 1) == Some(&Token::Symbol('.'))
            && let Some(name) = tokens.get(at + 2).and_then(Token::name)
        {
            found.insert(name.to_owned());
        }
    }
    found
}

/// Names in a condition that can be nothing but columns, as written between dots: those that a whole operand of a
/// comparison consists of. Names elsewhere, and all of them where a query or a lambda brings names of its own, are left out.
pub fn compared_columns(condition: &str) -> Vec<Vec<String>> {
    let tokens = tokens(condition);
    let own_names =
        |token: &Token| *token == Token::Lambda || ["select", "with"].iter().any(|word| token.is_word(word));
    if tokens.iter().any(own_names) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let starts = match at.checked_sub(1).map(|before| &tokens[before]) {
            None | Some(Token::Symbol('(')) => true,
            Some(before) => ["and", "or", "not"].iter().any(|word| before.is_word(word)),
        };
        if !starts || tokens[at].is_reserved() {
            continue;
        }
        let mut path = Vec::new();
        let mut next = at;
        while let Some(name) = tokens.get(next).and_then(Token::name) {
            path.push(name.to_owned());
            next += 1;
            if tokens.get(next) != Some(&Token::Symbol('.')) {
                break;
            }
            next += 1;
        }
        let compared = match tokens.get(next) {
            Some(Token::Symbol('=')) => tokens.get(next + 1) != Some(&Token::Symbol('>')),
            Some(Token::Symbol('<' | '>')) => true,
            Some(Token::Symbol('!')) => tokens.get(next + 1) == Some(&Token::Symbol('=')),
            Some(word) => ["is", "in", "like", "ilike", "between"].iter().any(|known| word.is_word(known)),
            None => false,
        };
        if compared && !path.is_empty() && !tokens[at].is_word("principal") {
            found.push(path);
        }
    }
    found
}

/// A word or sign of SQL.
#[derive(Debug, PartialEq)]
enum Token<'t> {
    /// A keyword or a name without quotes.
    Word(&'t str),
    /// A name in double quotes.
    Quoted(String),
    /// A text, a number, or what else is no name.
    Value,
    /// `->`.
    Lambda,
    /// Any other sign.
    Symbol(char),
}

/// Words that stand for values, or begin what is no comparison of a column.
const RESERVED: &[&str] = &[
    "and",
    "any",
    "array",
    "all",
    "case",
    "cast",
    "current_catalog",
    "current_date",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "date",
    "distinct",
    "exists",
    "false",
    "interval",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "or",
    "row",
    "session_user",
    "some",
    "struct",
    "time",
    "timestamp",
    "true",
    "unknown",
    "user",
];

impl Token<'_> {
    fn is_word(&self, wanted: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(wanted))
    }

    fn is_reserved(&self) -> bool {
        RESERVED.iter().any(|word| self.is_word(word))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or(rest.len(), |end| end + 4)
        } else if first == '\'' || first == '"' {
            let (length, inner) = quoted(rest, first);
            tokens.push(if first == '"' { Token::Quoted(inner) } else { Token::Value });
            length
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            tokens.push(Token::Word(&rest[..length]));
            length
        } else if first.is_ascii_digit() {
            tokens.push(Token::Value);
            rest.find(|c: char| !(c.is_alphanumeric() || c == '.')).unwrap_or(rest.len())
        } else if rest.starts_with("->") {
            tokens.push(Token::Lambda);
            2
        } else {
            tokens.push(Token::Symbol(first));
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a text in quotes, and what it says. A doubled quote is one within.
fn quoted(text: &str, quote: char) -> (usize, String) {
    let mut inner = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            inner.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return (at + 1, inner);
        }
    }
    (text.len(), inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_outside_texts_and_comments() {
        let found = |text: &str| attributes(text).into_iter().collect::<Vec<_>>();
        assert_eq!(found("country = principal.country"), ["country"]);
        assert_eq!(found("a IN (Principal.regions) OR principal . level>1"), ["level", "regions"]);
        assert_eq!(found("principal.\"a b\" = 'principal.no' -- principal.no\n/* principal.no */"), ["a b"]);
        assert!(found("\"principal\".country = 'it''s principal.no' AND x.principal.y = principal").is_empty());
        assert!(found("a = 'principal.no").is_empty(), "a text without an end");
    }

    #[test]
    fn only_what_can_be_nothing_but_a_column_is_one() {
        let found = |text: &str| compared_columns(text).iter().map(|path| path.join(".")).collect::<Vec<_>>();
        assert_eq!(found("country = principal.country"), ["country"]);
        assert_eq!(found("(t.\"A b\".c >= 1 AND x is null) or not y in ('a')"), ["t.A b.c", "x", "y"]);
        assert_eq!(found("a != 1 and b ! 2"), ["a"]);
        for text in [
            "current_date < x",
            "date '2020-01-01' < x",
            "true = x",
            "lower(x) = 'a'",
            "principal.level > 3",
            "f(x => 1)",
            "array_any(items, x -> (x = 1))",
            "EXISTS (SELECT 1 FROM other WHERE (z = 1))",
            "case when x then y end = 1",
            "1 = 1",
            "'x' = 'y'",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }
}
