//! Which values of a table are protected, and what stands for them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::classification::{Classification, effective, of_table};
use crate::contract::{Column, DataProduct, Table};
use crate::datatype::DataType;
use crate::mask::Mask;

/// A protected column, or a field of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protection {
    /// The names from the top-level column down. What is protected within an array or map protects the whole top-level
    /// column, since a mask reaches fields of structs only.
    pub path: Vec<String>,
    /// What stands for its values. [`Mask::None`] where the contract says so: they are shown as they are.
    pub mask: Mask,
    /// Whether it is personal data.
    pub pii: bool,
    /// How it is classified: what is said of it and of where it comes from, the stricter.
    pub classification: Classification,
    /// What it inherits its protection from, `domain/product.table.column`; empty: its own contract says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

/// What a column that SQL derives has from the columns it is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inherited {
    /// The mask of its inputs; `None`: they have several, or one that says nothing of the derived value.
    pub mask: Option<Mask>,
    /// Whether one of them is personal data.
    pub pii: bool,
    /// The strictest classification among them.
    pub classification: Option<Classification>,
    /// The protected ones among them, `domain.product_v1.table.column`; empty: only their classification is handed on.
    pub from: Vec<String>,
}

/// The protected columns of a table, in its order: what is personal data or has a mask, fields of structs by their own
/// path, and what inherits protection.
///
/// `inherited` is by top-level column. What is declared goes before what is inherited, but `mask: none` does not: taking
/// protection off needs `declassify`, with which the caller inherits nothing.
pub fn protections(contract: &DataProduct, table: &Table, inherited: &BTreeMap<String, Inherited>) -> Vec<Protection> {
    let around = of_table(contract, table);
    let mut found = Vec::new();
    let lost = lost(table, inherited);
    for column in &table.columns {
        // Lineage knows a renamed column by its former name until it is published again.
        let former = || match column.renamed_from.as_ref().map(|name| inherited.get(name)) {
            Some(None) => lost.as_ref(),
            found => found.flatten(),
        };
        let from = inherited.get(&column.name).or_else(former);
        match from {
            Some(from) if !from.from.is_empty() => found.push(derived(column, around, from)),
            _ => {
                let mut own = Vec::new();
                walk(column, around, &[], &mut own);
                // What hides the whole column needs no word on its fields.
                let whole =
                    own.iter().rposition(|found: &Protection| found.path.len() == 1 && found.mask != Mask::None);
                match whole {
                    Some(at) => found.push(own.swap_remove(at)),
                    None => found.append(&mut own),
                }
                let said = strictest(column, around);
                let raised = from.and_then(|from| from.classification);
                if let Some(raised) = raised.filter(|raised| *raised > said) {
                    let mut open = true;
                    for own in found.iter_mut().filter(|own| own.path.first() == Some(&column.name)) {
                        own.classification = own.classification.max(raised);
                        open &= own.path.len() > 1;
                    }
                    // Nothing is masked; policies are told how it is classified.
                    if open {
                        let path = vec![column.name.clone()];
                        let (mask, from) = (Mask::None, Vec::new());
                        found.push(Protection { path, mask, pii: false, classification: raised, from });
                    }
                }
            }
        }
    }
    found
}

/// What columns inherit that the table no longer has under any name it tells. Renamed more than once since lineage was
/// recorded, a column could be any of them: it inherits all of that until it is published again.
fn lost(table: &Table, inherited: &BTreeMap<String, Inherited>) -> Option<Inherited> {
    let is_told = |name: &String| {
        table.columns.iter().any(|column| column.name == *name || column.renamed_from.as_ref() == Some(name))
    };
    let mut gone = inherited.iter().filter(|(name, _)| !is_told(name)).map(|(_, inherited)| inherited);
    let first = gone.next()?.clone();
    Some(gone.fold(first, |all, other| Inherited {
        // One mask where all agree, else the value is hidden.
        mask: if all.mask == other.mask { all.mask } else { None },
        pii: all.pii || other.pii,
        classification: all.classification.max(other.classification),
        from: all.from.iter().chain(&other.from).cloned().collect::<BTreeSet<_>>().into_iter().collect(),
    }))
}

fn derived(column: &Column, around: Classification, from: &Inherited) -> Protection {
    let own = own_mask(column).filter(|mask| *mask != Mask::None);
    // A struct with fields of their own masks is hidden as one: what it was made of does not tell them apart.
    let mask = own.or_else(|| from.mask.clone()).filter(|mask| *mask != Mask::None && mask.fits(&column.data_type));
    let said = strictest(column, around);
    Protection {
        path: vec![column.name.clone()],
        mask: mask.unwrap_or(Mask::Null),
        pii: from.pii || is_personal(column),
        classification: said.max(from.classification.unwrap_or(said)),
        from: from.from.clone(),
    }
}

/// The mask that a column declares; one that cannot be read, or does not fit, hides the value.
fn own_mask(column: &Column) -> Option<Mask> {
    let text = column.mask.as_deref()?;
    Some(Mask::parse(text).ok().filter(|mask| mask.fits(&column.data_type)).unwrap_or(Mask::Null))
}

fn is_personal(column: &Column) -> bool {
    column.pii || children(&column.data_type).iter().any(is_personal)
}

fn children(data_type: &DataType) -> &[Column] {
    match data_type {
        DataType::Struct(fields) => fields,
        DataType::Array(item) => std::slice::from_ref(&**item),
        DataType::Map(_, value) => std::slice::from_ref(&**value),
        _ => &[],
    }
}

/// The classification of a column, and of what lies in it, the stricter: a column is shown or not shown as a whole.
pub fn strictest(column: &Column, around: Classification) -> Classification {
    let own = effective(column, around);
    children(&column.data_type).iter().map(|field| strictest(field, own)).fold(own, Classification::max)
}

fn walk(column: &Column, around: Classification, above: &[String], found: &mut Vec<Protection>) {
    let mut path = above.to_vec();
    path.push(column.name.clone());
    let own = own_mask(column);
    let classification = effective(column, around);
    let declared =
        |mask: Mask| Protection { path: path.clone(), mask, pii: column.pii, classification, from: Vec::new() };
    match own {
        Some(Mask::None) if column.pii => found.push(declared(Mask::None)),
        Some(Mask::None) => {}
        Some(mask) => return found.push(declared(mask)),
        None if column.pii => return found.push(declared(Mask::Null)),
        None => {}
    }
    match &column.data_type {
        DataType::Struct(fields) => {
            for field in fields {
                walk(field, classification, &path, found);
            }
        }
        DataType::Array(_) | DataType::Map(..) => {
            let mut within = Vec::new();
            for item in children(&column.data_type) {
                walk(item, classification, &path, &mut within);
            }
            if within.iter().any(|inner| inner.mask != Mask::None) {
                let top = vec![path.first().cloned().unwrap_or_default()];
                let stricter =
                    within.iter().map(|inner| inner.classification).fold(classification, Classification::max);
                found.push(Protection {
                    path: top,
                    mask: Mask::Null,
                    pii: within.iter().any(|inner| inner.pii),
                    classification: stricter,
                    from: Vec::new(),
                });
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "protection/tests.rs"]
mod tests;
