//! How one node of a manifest and one node of a standard's document become each other without loss, in both directions.
//!
//! A [`Lens`] says what the two sides share: `get` reads the standard's node, `put` writes it. Whatever a side has
//! beyond that travels as a remainder inside the other:
//!
//! - what the standard says and the manifest does not model is kept below `custom:`, under the standard's name
//!   (`custom: {odcs: {physicalName: tbl_1}}`); so is the exact wording of what it models, where `put` would word it
//!   differently. `omit` lists keys that `put` would write and the document has not; `unread` lists the manifest's keys
//!   that were not read because our reader would refuse them.
//! - what the manifest says and the standard does not model is kept in one custom property named `datamesh`, whose
//!   value is an object of manifest keys. `omit` there lists keys that `get` would make up.
//!
//! A remainder counts only as long as the side it describes still says the same: each [`Group`] of keys is compared
//! after one trip through `get` and `put`. So a field that was edited takes its new value, and nothing else moves.

use super::tree::{Map, Tree};

/// The custom property that carries a manifest's own keys.
pub(crate) const OWN: &str = "datamesh";
/// The key, below a remainder, that lists keys to leave out.
const OMIT: &str = "omit";
/// The key, in a manifest's own keys, that says that the list of custom properties was there without them.
const BESIDE_NONE: &str = "besideNone";
/// The key, below `custom`, that lists manifest keys which were not read.
const UNREAD: &str = "unread";

/// Keys that are read and written together.
pub(crate) struct Group {
    /// The manifest's keys.
    pub(crate) ours: &'static [&'static str],
    /// The standard's keys; those of nested objects are written `object.key`.
    pub(crate) theirs: &'static [&'static str],
}

/// What two nodes share. `C` is what a node must know of its surroundings.
pub(crate) struct Lens<C: 'static> {
    /// The standard's key below `custom`.
    pub(crate) standard: &'static str,
    /// The standard's objects whose keys are treated as keys of the node.
    pub(crate) nested: &'static [&'static str],
    /// The keys that are shared.
    pub(crate) groups: &'static [Group],
    /// Reads the standard's node. `get(put(get(x))) == get(x)`.
    pub(crate) get: fn(&Map, &C) -> Map,
    /// Writes the standard's node, in the standard's usual order.
    pub(crate) put: fn(&Map, &C) -> Map,
    /// Changes the document's own wording of a group into what the manifest says now: manifest, original, result.
    pub(crate) merge: fn(&Map, &Map, &mut Map, &C),
}

/// Nothing to merge.
pub(crate) fn no_merge<C>(_: &Map, _: &Map, _: &mut Map, _: &C) {}

impl<C> Lens<C> {
    /// Reads a node of the standard. The manifest's keys in `unread` are left alone.
    pub(crate) fn import(&self, theirs: Map, context: &C, unread: &[String]) -> Map {
        let (theirs, own) = split_own(flatten(theirs, self.nested));
        let mut ours = self.read(&theirs, context, unread);
        if let Some(own) = own {
            self.restore_own(&mut ours, own, context);
        }
        let written = (self.put)(&ours, context);
        // A group is kept whole, so that one can tell later what it was read as.
        let differs = |key: &str| theirs.get(key) != written.get(key);
        let is_kept = |key: &str| match self.groups.iter().find(|group| group.theirs.contains(&key)) {
            Some(group) => group.theirs.iter().any(|key| differs(key)),
            None => differs(key),
        };
        let mut kept = Map::new();
        for (key, value) in theirs.iter().filter(|(key, _)| is_kept(key)) {
            kept.put(key, value.clone());
        }
        let omitted = names(written.keys().filter(|key| !theirs.contains(key)));
        let mut remainder = unflatten(kept, self.nested);
        if !omitted.is_empty() {
            remainder.put(OMIT, omitted);
        }
        if !unread.is_empty() {
            remainder.put(UNREAD, names(unread.iter().map(String::as_str)));
        }
        if !remainder.is_empty() {
            let mut custom = ours.take_map("custom").unwrap_or_default();
            custom.put(self.standard, remainder);
            ours.put("custom", custom);
        }
        ours
    }

    /// Writes a node of the standard.
    pub(crate) fn export(&self, ours: Map, context: &C) -> Map {
        let (ours, mut kept) = split_custom(ours, self.standard);
        let omitted = take_names(&mut kept, OMIT);
        let unread = take_names(&mut kept, UNREAD);
        let kept = flatten(kept, self.nested);
        let plain = (self.put)(&ours, context);

        let mut theirs = plain.clone();
        for (key, value) in kept.iter() {
            theirs.put(key, value.clone());
        }
        for key in &omitted {
            theirs.take(key);
        }
        // What was not read still says what it said, unless the manifest says something about it by now.
        let unread: Vec<String> = unread.into_iter().filter(|key| !ours.contains(key)).collect();
        let expected = (self.put)(&self.read(&theirs, context, &unread), context);
        for group in self.groups {
            if group.theirs.iter().any(|key| expected.get(key) != plain.get(key)) {
                for key in group.theirs {
                    match plain.get(key) {
                        Some(value) => theirs.put(*key, value.clone()),
                        None => _ = theirs.take(key),
                    }
                }
            }
        }
        (self.merge)(&ours, &kept, &mut theirs, context);

        let again = self.read(&theirs, context, &unread);
        let mut own = Map::new();
        for (key, value) in ours.iter().filter(|(key, value)| again.get(key) != Some(value)) {
            own.put(key, value.clone());
        }
        let made_up = names(again.keys().filter(|key| !ours.contains(key)));
        if !made_up.is_empty() {
            own.put(OMIT, made_up);
        }
        if !own.is_empty() {
            if theirs.get("customProperties").and_then(Tree::as_list).is_some_and(<[Tree]>::is_empty) {
                own.put(BESIDE_NONE, true);
            }
            let mut entry = Map::new();
            entry.put("property", OWN);
            entry.put("value", own);
            let mut properties = theirs.take_list("customProperties").unwrap_or_default();
            properties.push(Tree::Map(entry));
            theirs.put("customProperties", properties);
        }
        unflatten(theirs, self.nested)
    }

    fn read(&self, theirs: &Map, context: &C, unread: &[String]) -> Map {
        (self.get)(theirs, context).into_iter().filter(|(key, _)| !unread.contains(key)).collect()
    }

    /// Puts a manifest's own keys back, as far as the document still says what they were written with.
    fn restore_own(&self, ours: &mut Map, mut own: Map, context: &C) {
        let omitted = take_names(&mut own, OMIT);
        let mut original = ours.clone();
        for key in &omitted {
            original.take(key);
        }
        for (key, value) in own.iter() {
            original.put(key, value.clone());
        }
        let expected = (self.get)(&(self.put)(&original, context), context);
        let holds = |key: &str| match self.groups.iter().find(|group| group.ours.contains(&key)) {
            Some(group) => group.ours.iter().all(|key| expected.get(key) == ours.get(key)),
            None => true,
        };
        let (omitted, own): (Vec<_>, Vec<_>) = (
            omitted.into_iter().filter(|key| holds(key)).collect(),
            own.iter().filter(|(key, _)| holds(key)).map(|(key, value)| (key.to_owned(), value.clone())).collect(),
        );
        for key in &omitted {
            ours.take(key);
        }
        for (key, value) in own {
            ours.put(key, value);
        }
    }
}

/// Takes a manifest's own keys out of the custom properties.
fn split_own(mut theirs: Map) -> (Map, Option<Map>) {
    let is_own = |entry: &Tree| {
        entry.get("property").and_then(Tree::as_text) == Some(OWN)
            && entry.get("value").is_some_and(|v| v.as_map().is_some())
    };
    let Some(properties) = theirs.get("customProperties").and_then(Tree::as_list) else { return (theirs, None) };
    let Some(own) = properties.iter().find(|entry| is_own(entry)) else { return (theirs, None) };
    let mut own = own.get("value").and_then(Tree::as_map).cloned();
    let beside_none = own.as_mut().and_then(|own| own.take(BESIDE_NONE)).is_some();
    let rest: Vec<Tree> = properties.iter().filter(|entry| !is_own(entry)).cloned().collect();
    if rest.is_empty() && !beside_none {
        theirs.take("customProperties");
    } else {
        theirs.put("customProperties", rest);
    }
    (theirs, own)
}

/// Takes what a standard left below `custom` out of a node.
pub(crate) fn split_custom(mut ours: Map, standard: &str) -> (Map, Map) {
    let Some(Tree::Map(custom)) = ours.get_mut("custom") else { return (ours, Map::new()) };
    let Some(kept) = custom.take_map(standard) else { return (ours, Map::new()) };
    if custom.is_empty() {
        ours.take("custom");
    }
    (ours, kept)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Tree> {
    names.map(Tree::text).collect()
}

fn take_names(map: &mut Map, key: &str) -> Vec<String> {
    let items = map.take_list(key).unwrap_or_default();
    items.iter().filter_map(Tree::as_text).map(str::to_owned).collect()
}

/// Lifts the keys of the objects in `nested` to `object.key`.
fn flatten(map: Map, nested: &[&str]) -> Map {
    let mut flat = Map::new();
    for (key, value) in map {
        match value {
            Tree::Map(inner) if nested.contains(&key.as_str()) && !inner.is_empty() => {
                for (name, value) in inner {
                    flat.put(format!("{key}.{name}"), value);
                }
            }
            value => flat.put(key, value),
        }
    }
    flat
}

fn unflatten(flat: Map, nested: &[&str]) -> Map {
    let mut map = Map::new();
    for (key, value) in flat {
        match key.split_once('.') {
            Some((object, name)) if nested.contains(&object) => {
                if let Some(Tree::Map(inner)) = map.get_mut(object) {
                    inner.put(name, value);
                } else {
                    map.put(object, Map::from_iter([(name.to_owned(), value)]));
                }
            }
            _ => map.put(key, value),
        }
    }
    map
}
