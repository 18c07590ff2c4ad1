//! What differs between two contracts. Pure.

use serde::Serialize;
use serde_json::Value;

use crate::contract::DataProduct;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where: `tables.hourly.columns.temp.constraints.maximum`.
    pub path: String,
    /// What was there; absent where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now; absent where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Every difference between two contracts, in the order of their paths.
pub fn changes(before: &DataProduct, after: &DataProduct) -> Vec<Change> {
    let mut found = Vec::new();
    if let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after)) {
        compare("", Some(&before), Some(&after), &mut found);
    }
    found
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names.into_iter().filter(|name| *name != "format") {
                compare(&below(name), old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if is_named(old) && is_named(new) => {
            let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
            let mut names: Vec<String> = old.iter().map(name).collect();
            names.extend(new.iter().map(name).filter(|name| !old.iter().any(|value| value["name"] == **name)));
            for wanted in names {
                let find = |values: &'_ [Value]| values.iter().find(|value| value["name"] == *wanted).cloned();
                compare(&below(&wanted), find(old).as_ref(), find(new).as_ref(), found);
            }
        }
        (before, after) => {
            found.push(Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
        }
    }
}

fn is_named(values: &[Value]) -> bool {
    values.iter().all(|value| value.get("name").is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_items_are_compared_by_name() {
        let before = json!({"format": 1, "columns": [{"name": "a", "type": "int"}, {"name": "b", "type": "int"}], "keys": [1, 2]});
        let after =
            json!({"format": 2, "columns": [{"name": "b", "type": "long"}, {"name": "c", "type": "int"}], "keys": [2]});
        let mut found = Vec::new();
        compare("", Some(&before), Some(&after), &mut found);
        let paths: Vec<&str> = found.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["columns.a", "columns.b.type", "columns.c", "keys"]);
        assert_eq!(found[0].after, None);
        assert_eq!(found[1].before, Some(json!("int")));
    }
}
