//! The product as a whole.

use serde_json::Value;

use super::change::{Changes, ContractChange, json};
use super::path::ContractPath;
use super::rules;
use super::{declared, table};
use crate::contract::{DataProduct, Lifecycle};

/// Every difference between two contracts, product first, then table by table. The version is none: it is what the
/// differences are judged by.
pub fn compare(before: &DataProduct, after: &DataProduct) -> Vec<ContractChange> {
    let mut changes = Changes::default();
    changes.inherited = (classification(before), classification(after));
    // INVARIANT: a further field of a contract does not compile until it is compared.
    // Where the product was before it moved is history, and promises nothing.
    let DataProduct { format: _, id, version: _, owner, status, moved_from: _, description, inputs, tables, declared } =
        after;
    let root = ContractPath::root();
    let names = (&before.id.domain, &id.domain);
    if names.0 != names.1 {
        let message = format!("the product belonged to domain `{}` and belongs to `{}` now", names.0, names.1);
        let rule = if names.0.sql() == names.1.sql() { &rules::METADATA_CHANGED } else { &rules::PRODUCT_MOVED };
        changes.push(rule, root.join("domain"), Some(json(names.0)), Some(json(names.1)), message);
    }
    let names = (&before.id.product, &id.product);
    if names.0 != names.1 {
        let message = format!("the product was called `{}` and is called `{}` now", names.0, names.1);
        let rule = if names.0.sql() == names.1.sql() { &rules::METADATA_CHANGED } else { &rules::PRODUCT_RENAMED };
        changes.push(rule, root.join("name"), Some(json(names.0)), Some(json(names.1)), message);
    }
    if before.owner != *owner {
        let message = format!("`{}` answered for the product, `{owner}` does now", before.owner);
        changes.push(&rules::OWNER_CHANGED, root.join("owner"), Some(json(&before.owner)), Some(json(owner)), message);
    }
    compare_status(&mut changes, before.status, *status);
    let prose = (before.description.as_ref(), description.as_ref());
    changes.value(&rules::DESCRIPTION_CHANGED, root.join("description"), prose.0, prose.1, "the description");
    if before.inputs != *inputs {
        let texts = |product: &DataProduct| json(&product.inputs.iter().map(ToString::to_string).collect::<Vec<_>>());
        let message = "the product is made of other inputs";
        changes.push(&rules::INPUTS_CHANGED, root.join("inputs"), Some(texts(before)), Some(texts(after)), message);
    }
    declared::compare(&mut changes, &root, &declared::PRODUCT, &before.declared, declared);
    table::compare_tables(&mut changes, &before.tables, tables);
    changes.finish()
}

fn classification(product: &DataProduct) -> Option<String> {
    product.declared.get("classification").and_then(Value::as_str).map(str::to_owned)
}

fn compare_status(changes: &mut Changes, old: Lifecycle, new: Lifecycle) {
    if old == new {
        return;
    }
    let rule = match (old, new) {
        (Lifecycle::Active | Lifecycle::Deprecated, Lifecycle::Draft) | (Lifecycle::Active, Lifecycle::Retired) => {
            &rules::STATUS_WITHDRAWN
        }
        _ => &rules::STATUS_CHANGED,
    };
    let message = format!("the product was {old} and is {new} now");
    changes.push(
        rule,
        ContractPath::root().join("status"),
        Some(old.as_str().into()),
        Some(new.as_str().into()),
        message,
    );
}
