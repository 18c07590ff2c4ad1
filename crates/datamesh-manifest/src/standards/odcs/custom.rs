//! Custom properties against `custom`.

use crate::standards::lens::OWN;
use crate::standards::tree::{Map, Tree};

/// `custom`, where the custom properties are no more than distinct names with values.
pub(super) fn read(theirs: &Map) -> Option<Map> {
    let list = theirs.get("customProperties")?.as_list().filter(|list| !list.is_empty())?;
    let mut custom = Map::new();
    for entry in list {
        let entry = entry.as_map()?;
        let name = entry.get("property")?.as_text()?;
        if entry.len() != 2 || custom.contains(name) || is_reserved(name) {
            return None;
        }
        custom.put(name, entry.get("value")?.clone());
    }
    Some(custom)
}

/// Custom properties of `custom`.
pub(super) fn write(ours: &Map) -> Option<Vec<Tree>> {
    let custom = ours.get("custom")?.as_map()?;
    let entry = |(name, value): (&str, &Tree)| {
        Tree::Map(Map::from_iter([("property".to_owned(), Tree::text(name)), ("value".to_owned(), value.clone())]))
    };
    let list: Vec<Tree> = custom.iter().filter(|(name, _)| !is_reserved(name)).map(entry).collect();
    Some(list).filter(|list| !list.is_empty())
}

fn is_reserved(name: &str) -> bool {
    name == OWN || name == super::STANDARD
}
