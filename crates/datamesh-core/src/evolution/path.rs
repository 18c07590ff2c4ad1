//! Where in a contract something stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a contract, as the manifest is nested, named items by their names:
/// `schema.orders.columns.email.maxLength`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContractPath(Vec<String>);

impl ContractPath {
    /// The contract itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of something in what is here.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(name.to_owned());
        Self(segments)
    }

    /// The names from the contract to the place.
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    /// The table that the place lies in; `None` for what belongs to the whole product.
    pub fn table(&self) -> Option<&str> {
        match self.0.as_slice() {
            [schema, table, ..] if schema == "schema" => Some(table),
            _ => None,
        }
    }

    /// The top-level column that the place lies in.
    pub fn column(&self) -> Option<&str> {
        match self.0.as_slice() {
            [schema, _, columns, column, ..] if schema == "schema" && columns == "columns" => Some(column),
            _ => None,
        }
    }
}

impl fmt::Display for ContractPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            if segment.is_empty() || segment.contains(['.', '"']) {
                write!(f, "\"{}\"", segment.replace('"', "\"\""))?;
            } else {
                f.write_str(segment)?;
            }
        }
        Ok(())
    }
}

impl From<ContractPath> for String {
    fn from(path: ContractPath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for ContractPath {
    type Error = String;

    /// Reads what `Display` writes; names with dots stand in double quotes.
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no path in a contract");
        let mut segments = Vec::new();
        let mut rest = text.as_str();
        if rest.is_empty() {
            return Ok(Self::default());
        }
        loop {
            let (segment, after) = match rest.strip_prefix('"') {
                Some(quoted) => unquote(quoted).ok_or_else(wrong)?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            segments.push(segment);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(Self(segments)),
                None => return Err(wrong()),
            }
        }
    }
}

/// A quoted name whose opening quote was read, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None => return Some((name, rest)),
        }
    }
}
