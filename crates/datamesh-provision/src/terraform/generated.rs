//! Which files were exported, and not changed since: their first lines say so, and carry the hash of the rest.

use datamesh_core::canonical::sha256;

const WORDS: &str =
    "# Written by `datamesh export terraform`, which brings it up to date as long as it is not changed by hand.";
const HASH: &str = "# sha256 of what follows: ";

/// Whose text a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was exported, and is as it was.
    Exported,
    /// It was exported, and changed since.
    Edited,
    /// Somebody else wrote it.
    Foreign,
}

/// The text with the lines that say where it comes from.
pub fn stamped(text: &str) -> String {
    format!("{WORDS}\n{HASH}{}\n\n{text}", sha256(text.as_bytes()))
}

/// Whose text it is. Line ends are of no account: version control may change them.
pub fn standing(text: &str) -> Standing {
    let text = text.replace("\r\n", "\n");
    let Some(rest) = text.strip_prefix(WORDS) else { return Standing::Foreign };
    let hashed = rest.strip_prefix('\n').and_then(|rest| rest.strip_prefix(HASH)?.split_once("\n\n"));
    match hashed {
        Some((hash, rest)) if hash == sha256(rest.as_bytes()) => Standing::Exported,
        _ => Standing::Edited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_exported_is_known_until_it_is_changed() {
        let text = "locals {\n  a = 1\n}\n";
        let file = stamped(text);
        assert!(file.ends_with(text));
        for (file, expected) in [
            (file.clone(), Standing::Exported),
            (file.replace('\n', "\r\n"), Standing::Exported),
            (file.replace("a = 1", "a = 2"), Standing::Edited),
            (format!("{file}# more\n"), Standing::Edited),
            (file.replace(HASH, "# "), Standing::Edited),
            (WORDS.to_owned(), Standing::Edited),
            (format!("\n{file}"), Standing::Foreign),
            (text.to_owned(), Standing::Foreign),
            (String::new(), Standing::Foreign),
        ] {
            assert_eq!(standing(&file), expected, "{file}");
        }
    }
}
