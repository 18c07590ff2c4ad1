//! Contracts as the registry holds them, those of older versions included: what had no field of its own then was kept
//! among the declared keys.

use std::collections::BTreeMap;

use semver::Version;
use serde::Deserialize;
use serde_json::Value;

use super::{Column, DataProduct, Lifecycle, ProductInput, Table};
use crate::datatype::DataType;
use crate::ids::ProductId;

/// [`DataProduct`], as it may have been written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredProduct {
    format: u32,
    id: ProductId,
    version: Version,
    owner: String,
    status: Option<Lifecycle>,
    moved_from: Option<ProductId>,
    description: Option<String>,
    #[serde(default)]
    inputs: Vec<ProductInput>,
    tables: Vec<Table>,
    #[serde(default)]
    declared: BTreeMap<String, Value>,
}

impl From<StoredProduct> for DataProduct {
    fn from(stored: StoredProduct) -> Self {
        let StoredProduct { format, id, version, owner, status, moved_from, description, inputs, tables, declared } =
            stored;
        let mut declared = declared;
        let mut tables = tables;
        let declared_status = declared.remove("status");
        let declared_status = declared_status.as_ref().and_then(Value::as_str).and_then(Lifecycle::parse);
        let status = status.or(declared_status).unwrap_or_else(|| Lifecycle::of_version(&version));
        for table in &mut tables {
            table.columns.iter_mut().for_each(upgrade);
        }
        Self { format, id, version, owner, status, moved_from, description, inputs, tables, declared }
    }
}

fn upgrade(column: &mut Column) {
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let renamed_from = column.declared.remove("renamedFrom").and_then(text);
    let default = column.declared.remove("default").and_then(text);
    column.renamed_from = column.renamed_from.take().or(renamed_from);
    column.default = column.default.take().or(default);
    match &mut column.data_type {
        DataType::Struct(fields) => fields.iter_mut().for_each(upgrade),
        DataType::Array(item) => upgrade(item),
        DataType::Map(_, value) => upgrade(value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_older_versions_wrote_is_read_as_what_it_means() {
        let stored = json!({
            "format": 1, "id": {"domain": "a", "product": "b"}, "version": "0.3.0", "owner": "o",
            "declared": {"status": "deprecated", "sla": {"retention": "30d"}},
            "tables": [{"name": "t", "columns": [
                {"name": "x", "type": "int", "declared": {"renamedFrom": "y", "default": 3, "classification": "internal"}}
            ]}],
        });
        let product: DataProduct = serde_json::from_value(stored.clone()).expect("it is a contract");
        assert_eq!(product.status, Lifecycle::Deprecated);
        let column = &product.tables[0].columns[0];
        assert_eq!((column.renamed_from.as_deref(), column.default.as_deref()), (Some("y"), Some("3")));
        assert_eq!(column.declared.keys().collect::<Vec<_>>(), ["classification"]);
        let again: DataProduct =
            serde_json::from_value(serde_json::to_value(&product).expect("it is JSON")).expect("it is a contract");
        assert_eq!(again, product);
        let mut without = stored;
        without["declared"] = json!({});
        let product: DataProduct = serde_json::from_value(without).expect("it is a contract");
        assert_eq!(product.status, Lifecycle::Draft, "below 1.0.0");
    }
}
