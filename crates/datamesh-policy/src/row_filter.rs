//! What row filters say of the principal.

use std::collections::BTreeSet;

/// The attributes that a condition names as `principal.<attribute>`, outside of texts and quoted names.
pub(crate) fn principal_attributes(condition: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut before: Option<String> = None;
    let mut dotted = false;
    for token in tokens(condition) {
        match token {
            Token::Name(name) => {
                if dotted && before.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("principal")) {
                    found.insert(name.clone());
                    before = None;
                } else if dotted {
                    before = None;
                } else {
                    before = Some(name);
                }
                dotted = false;
            }
            Token::Dot => dotted = before.is_some(),
            Token::Other => (before, dotted) = (None, false),
        }
    }
    found
}

enum Token {
    Name(String),
    Dot,
    Other,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => {}
            '.' => found.push(Token::Dot),
            '\'' => {
                // A doubled quote ends one text and starts another, which is the same here.
                rest.by_ref().find(|c| *c == '\'');
                found.push(Token::Other);
            }
            '"' => {
                let mut name = String::new();
                while let Some(c) = rest.next() {
                    if c != '"' {
                        name.push(c);
                    } else if rest.peek() == Some(&'"') {
                        rest.next();
                        name.push('"');
                    } else {
                        break;
                    }
                }
                found.push(Token::Name(name));
            }
            '-' if rest.peek() == Some(&'-') => {
                rest.by_ref().find(|c| *c == '\n');
            }
            '/' if rest.peek() == Some(&'*') => {
                rest.next();
                let mut last = ' ';
                for c in rest.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            c if c.is_alphabetic() || c == '_' => {
                let mut name = c.to_string();
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                found.push(Token::Name(name));
            }
            c if c.is_ascii_digit() => {
                while rest.next_if(|c| c.is_alphanumeric() || *c == '.').is_some() {}
                found.push(Token::Other);
            }
            _ => found.push(Token::Other),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found() {
        let check = |condition: &str, expected: &[&str]| {
            assert_eq!(principal_attributes(condition), expected.iter().map(|name| (*name).to_owned()).collect());
        };
        check("country = principal.country", &["country"]);
        check("a IN (principal.a, PRINCIPAL . b) AND c > 1.5", &["a", "b"]);
        check("note = 'principal.x' AND \"principal\".\"y z\" = 1 -- principal.q\n OR d = principal.w", &["w", "y z"]);
        check("o.principal.x = 1 AND principal = 2 AND 'it''s principal.n' = t", &[]);
        check("it = 'a' || principal.country", &["country"]);
        check("/* it's principal.x */ a = principal./**/b", &["b"]);
    }
}
