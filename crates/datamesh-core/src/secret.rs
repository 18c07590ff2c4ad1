//! Secrets by reference: `${env:NAME}` and `${file:/path}` in a text. A contract, a report and the registry hold the
//! reference; only the binary can look the value up, and only while a source is opened.

use crate::error::{Error, ErrorCode, Result};

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file whose text, without its last line end, is the value.
    File(String),
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "${{env:{name}}}"),
            Self::File(path) => write!(f, "${{file:{path}}}"),
        }
    }
}

/// Looks secrets up. The binary has one; the crates below see neither environment nor files of secrets.
pub trait SecretResolver: Send + Sync {
    /// The value of a secret.
    ///
    /// # Errors
    /// `source-unreadable` where it is not there. The message names the reference, never a value.
    fn resolve(&self, secret: &SecretRef) -> Result<String>;
}

/// A resolver that knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl SecretResolver for NoSecrets {
    fn resolve(&self, secret: &SecretRef) -> Result<String> {
        Err(Error::new(ErrorCode::SourceUnreadable, format!("`{secret}` cannot be looked up here")))
    }
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// A secret's place.
    Secret(SecretRef),
}

/// A text with references in it. `$${` stands for a literal `${`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Its pieces, in order.
    pub parts: Vec<Part>,
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// Says in one clause which reference is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at - 1]);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let body = &rest[at + 2..];
            let end = body.find('}').ok_or_else(|| format!("`{}` has no closing `}}`", &rest[at..]))?;
            let secret = match body[..end].split_once(':') {
                Some(("env", name)) if is_variable(name) => SecretRef::Env(name.to_owned()),
                Some(("file", path)) if path.starts_with('/') => SecretRef::File(path.to_owned()),
                Some(("file", _)) => return Err(format!("`${{{}}}` needs an absolute path", &body[..end])),
                _ => return Err(format!("`${{{}}}` is neither `${{env:NAME}}` nor `${{file:/path}}`", &body[..end])),
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Secret(secret));
            rest = &body[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The references in it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        self.parts.iter().filter_map(|part| if let Part::Secret(secret) = part { Some(secret) } else { None })
    }
}

/// The literal `text` as a template that means it.
pub fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Secrets that were looked up for one job, so that none of their values leaves it.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Values, longest first, with what is shown instead.
    known: Vec<(String, String)>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.known.len())
    }
}

impl Redactor {
    /// The text with every reference looked up; the values are remembered.
    ///
    /// # Errors
    /// A text that is no template, and secrets that are not there.
    pub fn resolve(&mut self, text: &str, resolver: &dyn SecretResolver) -> Result<String> {
        let template = Template::parse(text).map_err(|why| Error::new(ErrorCode::InvalidManifest, why))?;
        let mut out = String::new();
        for part in &template.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Secret(secret) => {
                    let value = resolver.resolve(secret)?;
                    out.push_str(&value);
                    self.add(value, secret.to_string());
                }
            }
        }
        Ok(out)
    }

    /// Remembers a value that must not be shown.
    pub fn add(&mut self, value: String, shown: String) {
        if !value.is_empty() && !self.known.iter().any(|(known, _)| *known == value) {
            self.known.push((value, shown));
            self.known.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        }
    }

    /// The text without any known value.
    pub fn redact(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        // One pass from the left, so that what stands for one secret is not searched for another.
        'next: while let Some(first) = rest.chars().next() {
            for (value, shown) in &self.known {
                if let Some(after) = rest.strip_prefix(value.as_str()) {
                    out.push_str(shown);
                    rest = after;
                    continue 'next;
                }
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
        out
    }

    /// The error without any known value. Its cause is dropped where values are known: nobody checks what it prints.
    pub fn redact_error(&self, error: Error) -> Error {
        if self.known.is_empty() {
            return error;
        }
        let clean = Error::new(error.code(), self.redact(&error.to_string()));
        match error.help() {
            Some(help) => clean.with_help(self.redact(help)),
            None => clean,
        }
    }
}

/// Stands for a reference: a character that is none of a URL's delimiters.
const REFERENCE: char = '\u{1}';

/// The text with [`REFERENCE`] for each reference; `None` for what is no template.
fn without_references(text: &str) -> Option<String> {
    let parts = Template::parse(text).ok()?.parts;
    let plain = parts.into_iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Secret(_) => REFERENCE.to_string(),
    });
    Some(plain.collect())
}

/// Cuts a URL before its query or fragment, and the first of these off at the next `/`.
fn split_authority(rest: &str) -> (&str, &str) {
    let (before, after) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    (before.split('/').next().unwrap_or_default(), after)
}

/// Whether a web address has a user in it, written or by reference. Web servers are asked without one.
pub fn has_web_login(url: &str) -> bool {
    without_references(url).is_some_and(|flat| is_web_login(&flat))
}

fn is_web_login(flat: &str) -> bool {
    flat.split_once("://").is_some_and(|(scheme, rest)| {
        ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) && split_authority(rest).0.contains('@')
    })
}

/// Whether the name of a parameter says that its value is a secret. `code` and `session` are not among them: they name
/// countries and terms more often.
fn is_secret_key(key: &str) -> bool {
    let key: String = key.chars().filter(|c| !matches!(c, '-' | '_' | '.')).collect::<String>().to_ascii_lowercase();
    [
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "token",
        "signature",
        "credential",
        "apikey",
        "accesskey",
        "accountkey",
        "privatekey",
    ]
    .iter()
    .any(|word| key.contains(word))
        || ["sig", "sas", "key", "jwt", "bearer", "auth", "authorization"].contains(&key.as_str())
}

/// Whether a URL has a password, or something like one, written in it. References are no literals.
pub fn has_literal_password(url: &str) -> bool {
    let Some(flat) = without_references(url) else { return false };
    let literal = |value: &str| value.chars().any(|c| c != REFERENCE);
    let (rest, named) = match flat.split_once("://") {
        Some((_, rest)) => (rest, true),
        // `?` and `#` are parts of other paths.
        None if flat.starts_with(REFERENCE) => (flat.as_str(), false),
        None => match flat.strip_prefix("sqlite:") {
            Some(rest) => (rest, false),
            None => return false,
        },
    };
    let (authority, after) = split_authority(rest);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let in_user = named
        && match user.split_once(':') {
            Some((_, password)) => literal(password),
            None => is_web_login(&flat) && literal(user),
        };
    // `user:pa/ss@host` is no proper URL, but what was meant is a password.
    let odd = named
        && !in_user
        && rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).is_some_and(|(_, password)| {
            literal(password) && !authority.contains('@') && !password.starts_with(|c: char| c.is_ascii_digit())
        });
    let mut pairs = after.split(['?', '#', '&', ';']).filter_map(|pair| pair.split_once('='));
    in_user || odd || pairs.any(|(key, value)| is_secret_key(key) && literal(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl SecretResolver for Fixed {
        fn resolve(&self, secret: &SecretRef) -> Result<String> {
            match secret {
                SecretRef::Env(name) if name == "USER" => Ok("anna".into()),
                SecretRef::File(path) if path == "/run/pw" => Ok("anna-s3cret".into()),
                other => Err(Error::new(ErrorCode::SourceUnreadable, format!("`{other}` is not set"))),
            }
        }
    }

    #[test]
    fn references_are_looked_up_and_taken_back() {
        let mut redactor = Redactor::default();
        let url = redactor.resolve("postgres://${env:USER}:${file:/run/pw}@db/crm", &Fixed).expect("a template");
        assert_eq!(url, "postgres://anna:anna-s3cret@db/crm");
        assert_eq!(redactor.redact(&url), "postgres://${env:USER}:${file:/run/pw}@db/crm");
        let error = redactor.redact_error(Error::new(ErrorCode::Internal, "bad anna-s3cret").with_help("not anna"));
        assert_eq!(error.to_string(), "bad ${file:/run/pw}");
        assert_eq!(error.help(), Some("not ${env:USER}"));
    }

    #[test]
    fn what_is_no_reference_is_an_error_or_text() {
        for (text, expected) in [("a$b{c}", "a$b{c}"), ("$${env:X}", "${env:X}"), ("", ""), ("50%$", "50%$")] {
            assert_eq!(Redactor::default().resolve(text, &Fixed).expect(text), expected);
        }
        for text in ["${env:}", "${X}", "${env:A", "${env:1A}", "${file:relative}", "${vault:x}", "${env:A B}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert_eq!(Redactor::default().resolve(&escape("x${env:USER}"), &Fixed).expect("text"), "x${env:USER}");
    }

    #[test]
    fn literal_passwords_are_seen() {
        for (url, expected) in [
            ("postgres://anna:s3cret@db/crm", true),
            ("postgres://anna:${env:PW}@db/crm", false),
            ("postgres://anna:x${env:PW}@db/crm", true),
            ("postgres://${env:USER}:${file:/run/pw}@db:5432/crm?sslmode=require", false),
            ("postgres://anna@db:5432/crm", false),
            ("postgres://db:5432/crm", false),
            ("postgres://db/crm?password=x", true),
            ("postgres://db/crm?user=a&password=${env:PW}", false),
            ("postgres://anna:pa/ss@db/crm", true),
            ("${env:CRM_URL}", false),
            ("sqlite:crm.db", false),
            ("https://u:p@host/x.csv", true),
            ("https://host/x.csv?token=abc", true),
            ("https://host/x.csv?api_key=abc", true),
            ("https://host/x.csv?X-Api-Key=abc", true),
            ("https://host/x.csv?a=1&apikey=abc", true),
            ("https://host/x.csv?a=1;key=abc", true),
            ("https://host/x.csv?key=${env:KEY}", false),
            ("https://host/x.csv?auth=abc", true),
            ("https://host/x.csv?AccountKey=abc", true),
            ("https://host/x.csv?accessKey=abc", true),
            ("https://host/x.csv?jwt=abc", true),
            ("https://host/x.csv?bearer=abc", true),
            ("https://host/x.csv?sas=abc", true),
            ("https://host/x.csv?X-Amz-Credential=abc", true),
            ("https://host?token=abc", true),
            ("https://host/x.csv#token=abc", true),
            ("https://host/x.csv?a=1#access_token=abc", true),
            ("https://host/x.csv#page=2", false),
            ("https://host/x.csv?code=de&session=2024&keyword=a&author=b&monkey=c", false),
            ("https://tok@host/x.csv", true),
            ("HTTPS://tok@host/x.csv", true),
            ("https://${env:TOKEN}@host/x.csv", false),
            ("https://host/a@b.csv", false),
            ("sqlite:crm.db?key=abc", true),
            ("sqlite:crm.db?mode=ro&key=${env:KEY}", false),
            ("${env:BASE}/x.csv?token=abc", true),
            ("${env:FOLDER}/*.csv", false),
            ("rows?token=1.csv", false),
        ] {
            assert_eq!(has_literal_password(url), expected, "{url}");
        }
    }

    #[test]
    fn logins_of_web_servers_are_seen() {
        for (url, expected) in [
            ("http://anna:${env:PW}@host/x.csv", true),
            ("Https://${env:USER}@host", true),
            ("https://host/a@b.csv?c=d@e#f@g", false),
            ("postgres://anna:${env:PW}@db/crm", false),
            ("${env:URL}", false),
        ] {
            assert_eq!(has_web_login(url), expected, "{url}");
        }
    }
}
