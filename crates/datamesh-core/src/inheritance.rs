//! Protection that derived columns take over: whoever may not see a value may not see what was made of it either.
//!
//! A column inherits along column lineage, from every input that its value is made of or chosen by, until a column that
//! declares `declassify`. What only decides which rows there are (joins, filters, groups) hands nothing on.

use std::collections::{BTreeMap, BTreeSet};

use crate::classification::{Classification, effective, of_table};
use crate::contract::{Column, DataProduct, Table};
use crate::datatype::DataType;
use crate::ids::ProductKey;
use crate::lineage::{Dataset, Edge, FieldPath, Kind, Node, Subtype, Transformation};
use crate::mask::Mask;
use crate::protection::Inherited;

/// What a column takes over from the columns that it is derived from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taken {
    /// Whether one of them is personal data.
    pii: bool,
    /// The highest of their classifications.
    classification: Option<Classification>,
    /// Their mask, where they agree on one; else `null`. It may not fit the derived column's type.
    mask: Option<Mask>,
    /// The protected columns it comes from, as `domain.product_v1.table.column`.
    from: BTreeSet<String>,
}

impl Taken {
    /// Whether anything must not be shown.
    fn is_protected(&self) -> bool {
        self.pii || self.mask.is_some()
    }

    fn add(&mut self, other: &Self) {
        if other.is_protected() {
            let mask = other.mask.clone().unwrap_or(Mask::Null);
            self.mask = match self.mask.take() {
                None => Some(mask),
                Some(own) if own == mask => Some(own),
                Some(_) => Some(Mask::Null),
            };
            self.from.extend(other.from.iter().cloned());
        }
        self.pii |= other.pii;
        self.classification = self.classification.max(other.classification);
    }
}

/// Whether an output's value tells something of an input that reaches it so.
fn hands_on(how: Option<Transformation>) -> bool {
    how.is_none_or(|how| how.kind() == Kind::Direct || how.subtype == Subtype::Conditional)
}

/// A field of a dataset.
type Field = (Dataset, FieldPath);

/// What columns inherit, worked out over lineage that was recorded with publications.
pub struct Inheritance<'c> {
    contracts: BTreeMap<ProductKey, &'c DataProduct>,
    inherited: BTreeMap<Field, Taken>,
}

impl<'c> Inheritance<'c> {
    /// Over the applied contracts, and every edge of the products that are asked about and of those that they are made of.
    pub fn new(contracts: impl IntoIterator<Item = (ProductKey, &'c DataProduct)>, edges: &[Edge]) -> Self {
        let mut inputs: BTreeMap<Field, BTreeSet<Field>> = BTreeMap::new();
        for edge in edges.iter().filter(|edge| hands_on(edge.how)) {
            let (Node { dataset: output, field: Some(column) }, Node { dataset, field: Some(input) }) =
                (&edge.output, &edge.input)
            else {
                continue;
            };
            let known = inputs.entry((output.clone(), column.clone())).or_default();
            known.insert((dataset.clone(), input.clone()));
        }
        let inherited = inputs.keys().map(|output| (output.clone(), Taken::default())).collect();
        let mut all = Self { contracts: contracts.into_iter().collect(), inherited };
        inputs.retain(|(dataset, path), _| !all.breaks(dataset, path));
        // Protection only grows, so this ends, after as many rounds as the longest chain has steps.
        loop {
            let mut changed = false;
            for (output, fields) in &inputs {
                let mut sum = Taken::default();
                for (dataset, path) in fields {
                    sum.add(&all.own(dataset, path));
                    if !all.breaks(dataset, path) {
                        all.near(dataset, path).for_each(|inherited| sum.add(inherited));
                    }
                }
                if let Some(known) = all.inherited.get_mut(output)
                    && *known != sum
                {
                    *known = sum;
                    changed = true;
                }
            }
            if !changed {
                return all;
            }
        }
    }

    /// The products of the mesh that outputs are made of, directly.
    pub fn reads(edges: &[Edge]) -> BTreeSet<ProductKey> {
        let products = edges.iter().filter(|edge| hands_on(edge.how)).filter_map(|edge| match &edge.input.dataset {
            Dataset::Table { product, .. } => Some(product.clone()),
            _ => None,
        });
        products.collect()
    }

    /// What the top-level columns of a table inherit. Columns that inherit nothing are not in it.
    pub fn of(&self, product: &ProductKey, table: &str) -> BTreeMap<String, Inherited> {
        let dataset = Dataset::Table { product: product.clone(), table: table.to_owned() };
        let mut columns: BTreeMap<String, Taken> = BTreeMap::new();
        for ((output, path), taken) in &self.inherited {
            if let Some(name) = path.parts().first().filter(|_| *output == dataset) {
                columns.entry(name.clone()).or_default().add(taken);
            }
        }
        let told = columns.into_iter().filter(|(_, taken)| taken.is_protected() || taken.classification.is_some());
        told.map(|(name, taken)| {
            let Taken { pii, classification, mask, from } = taken;
            (name, Inherited { mask, pii, classification, from: from.into_iter().collect() })
        })
        .collect()
    }

    /// What is inherited by a column, by the columns that it lies in, and by its fields: what is known of the whole holds
    /// for its parts, and the whole carries what its parts do.
    fn near<'s>(&'s self, dataset: &'s Dataset, path: &'s FieldPath) -> impl Iterator<Item = &'s Taken> {
        let column = FieldPath::column(path.parts().first().map_or("", String::as_str));
        let from = (dataset.clone(), column.clone());
        let own = self
            .inherited
            .range(from..)
            .take_while(move |((other, field), _)| other == dataset && field.parts().first() == column.parts().first());
        own.filter(|((_, field), _)| field.rest_of(path).is_some() || path.rest_of(field).is_some())
            .map(|(_, inherited)| inherited)
    }

    fn table(&self, dataset: &Dataset) -> Option<(&'c DataProduct, &'c Table)> {
        let Dataset::Table { product, table } = dataset else { return None };
        let contract = self.contracts.get(product)?;
        Some((contract, contract.table(table)?))
    }

    /// Whether a column, or one that it lies in, declares that it takes nothing over.
    fn breaks(&self, dataset: &Dataset, path: &FieldPath) -> bool {
        let columns = self.table(dataset).and_then(|(_, table)| columns(table, path));
        columns.is_some_and(|columns| columns.into_iter().any(declassifies))
    }

    /// What a column's own contract protects it by.
    fn own(&self, dataset: &Dataset, path: &FieldPath) -> Taken {
        if !matches!(dataset, Dataset::Table { .. }) {
            return Taken::default();
        }
        let mut own = Taken::default();
        let known = self.table(dataset).and_then(|(contract, table)| Some((contract, table, columns(table, path)?)));
        match &known {
            // Nobody can say any more whether it was protected, so it is.
            None => own.mask = Some(Mask::Null),
            Some((contract, table, columns)) => {
                let mut around = of_table(contract, table);
                for column in columns {
                    own.pii |= column.pii;
                    if column.pii || column.mask.as_deref().is_some_and(|mask| mask != "none") {
                        let mask = column.mask.as_deref().and_then(|mask| Mask::parse(mask).ok());
                        own.mask = Some(mask.unwrap_or(Mask::Null));
                    }
                    around = effective(column, around);
                }
                // A column that has protected fields is protected as a whole.
                if own.mask.is_none() && columns.last().is_some_and(|column| column.is_protected()) {
                    own.mask = Some(Mask::Null);
                }
                own.classification = Some(around).filter(|said| *said != Classification::Unclassified);
            }
        }
        if own.is_protected() {
            own.from.insert(format!("{dataset}.{path}"));
        }
        own
    }
}

fn declassifies(column: &Column) -> bool {
    column
        .declared
        .get("declassify")
        .and_then(serde_json::Value::as_str)
        .is_some_and(|reason| !reason.trim().is_empty())
}

/// The column of a path and the fields that lead to the last one, by their names or former names. Below an array or a map
/// the column itself answers.
fn columns<'t>(table: &'t Table, path: &FieldPath) -> Option<Vec<&'t Column>> {
    let mut fields = table.columns.as_slice();
    let mut found = Vec::new();
    for part in path.parts() {
        let own = fields.iter().find(|field| field.name == *part);
        let former = || fields.iter().find(|field| field.renamed_from.as_deref() == Some(part));
        let Some(field) = own.or_else(former) else {
            return found
                .last()
                .is_some_and(|last: &&Column| !matches!(last.data_type, DataType::Struct(_)))
                .then_some(found);
        };
        found.push(field);
        fields = match &field.data_type {
            DataType::Struct(fields) => fields,
            _ => &[],
        };
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn contract(name: &str, columns: Value) -> DataProduct {
        serde_json::from_value(json!({
            "format": 1, "id": {"domain": "d", "product": name}, "version": "1.0.0", "owner": "team",
            "tables": [{"name": "t", "columns": columns}],
        }))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    fn dataset(product: &str) -> Dataset {
        let product = ProductKey { domain: "d".into(), product: product.into(), major: 1 };
        Dataset::Table { product, table: "t".into() }
    }

    fn edge(output: (&str, &str), input: (&str, &str), how: Subtype) -> Edge {
        let node = |(product, field): (&str, &str)| Node {
            dataset: dataset(product),
            field: Some(FieldPath::from(field.to_owned())),
        };
        Edge { output: node(output), input: node(input), how: Some(how.into()) }
    }

    fn of(contracts: &[DataProduct], edges: &[Edge], product: &str) -> BTreeMap<String, Inherited> {
        let Dataset::Table { product, table } = dataset(product) else { unreachable!() };
        Inheritance::new(contracts.iter().map(|contract| (contract.key(), contract)), edges).of(&product, &table)
    }

    #[test]
    fn values_hand_protection_on_and_rows_do_not() {
        let raw = contract(
            "raw",
            json!([{"name": "email", "type": "string", "pii": true, "mask": "hash"}, {"name": "id", "type": "int"}]),
        );
        let derived = contract("derived", json!([{"name": "a", "type": "string"}, {"name": "b", "type": "int"}]));
        let contracts = [raw, derived];
        for (how, inherits) in [
            (Subtype::Identity, true),
            (Subtype::Transformation, true),
            (Subtype::Aggregation, true),
            (Subtype::Conditional, true),
            (Subtype::Join, false),
            (Subtype::Filter, false),
            (Subtype::GroupBy, false),
        ] {
            let found = of(&contracts, &[edge(("derived", "a"), ("raw", "email"), how)], "derived");
            assert_eq!(found.get("a").is_some_and(|found| !found.from.is_empty()), inherits, "{how:?}");
        }
        let found = of(&contracts, &[edge(("derived", "b"), ("raw", "id"), Subtype::Identity)], "derived");
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn it_goes_on_until_a_breaker() {
        let raw = contract(
            "raw",
            json!([{"name": "email", "type": "string", "pii": true, "mask": "hash", "declared": {"classification": "restricted"}}]),
        );
        let middle = |declassify: Value| {
            contract("middle", json!([{"name": "domain", "type": "string", "declared": declassify}]))
        };
        let last = contract("last", json!([{"name": "domain", "type": "string"}]));
        let edges = [
            edge(("middle", "domain"), ("raw", "email"), Subtype::Transformation),
            edge(("last", "domain"), ("middle", "domain"), Subtype::Identity),
        ];
        let found = of(&[raw.clone(), middle(json!({})), last.clone()], &edges, "last");
        let column = &found["domain"];
        assert_eq!(
            (column.pii, &column.mask, column.classification),
            (true, &Some(Mask::Hash), Some(Classification::Restricted))
        );
        assert_eq!(column.from, ["d.raw_v1.t.email".to_owned()]);
        let broken = middle(json!({"declassify": "the domain names nobody"}));
        assert!(of(&[raw, broken, last], &edges, "last").is_empty());
    }

    #[test]
    fn what_is_unknown_or_nested_or_circular_is_protected() {
        let raw = contract(
            "raw",
            json!([{"name": "kept", "type": "string", "mask": "redact"}, {"name": "other", "type": "string", "mask": "hash"}]),
        );
        let derived = contract("derived", json!([{"name": "a", "type": "string"}]));
        let contracts = [raw, derived];
        let gone = of(&contracts, &[edge(("derived", "a"), ("raw", "gone"), Subtype::Identity)], "derived");
        assert_eq!(gone["a"].mask, Some(Mask::Null));
        let missing = of(&contracts, &[edge(("derived", "a"), ("missing", "x"), Subtype::Identity)], "derived");
        assert!(!missing["a"].from.is_empty());
        let both = [
            edge(("derived", "a"), ("raw", "kept"), Subtype::Transformation),
            edge(("derived", "a"), ("raw", "other"), Subtype::Transformation),
            edge(("derived", "a"), ("derived", "a"), Subtype::Identity),
        ];
        assert_eq!(of(&contracts, &both, "derived")["a"].mask, Some(Mask::Null));
    }

    #[test]
    fn fields_and_their_columns_answer_for_each_other() {
        let raw = contract("raw", json!([{"name": "email", "type": "string", "pii": true}]));
        let derived = contract("derived", json!([{"name": "who", "type": "string"}]));
        let last = contract("last", json!([{"name": "all", "type": "string"}]));
        let edges = [
            edge(("derived", "who.mail"), ("raw", "email"), Subtype::Identity),
            edge(("last", "all"), ("derived", "who"), Subtype::Identity),
        ];
        let contracts = [raw, derived, last];
        assert!(!of(&contracts, &edges, "derived")["who"].from.is_empty());
        assert!(!of(&contracts, &edges, "last")["all"].from.is_empty());
    }
}
