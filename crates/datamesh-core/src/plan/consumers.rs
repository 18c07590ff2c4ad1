//! Who relies on a product: those that declare it as an input, and those that the lineage shows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::FieldChange;
use crate::contract::DataProduct;
use crate::ids::{Name, ProductId, ProductKey};
use crate::lineage::{Dataset, Direction, LineageGraph, Node};
use crate::transform::ProductInput;

/// A product that reads another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// The product.
    pub product: String,
    /// The team to talk to.
    pub owner: String,
    /// The input as it declares it; absent where only the lineage shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// The major versions of a mesh, found by name.
#[derive(Debug, Default)]
pub(super) struct Contracts<'c> {
    by_name: BTreeMap<(String, String), Vec<&'c DataProduct>>,
}

impl<'c> Contracts<'c> {
    pub(super) fn new(contracts: impl Iterator<Item = &'c DataProduct>) -> Self {
        let mut by_name: BTreeMap<(String, String), Vec<&'c DataProduct>> = BTreeMap::new();
        for contract in contracts {
            by_name.entry(name(&contract.id)).or_default().push(contract);
        }
        Self { by_name }
    }

    /// Every major version of a product.
    pub(super) fn named(&self, id: &ProductId) -> &[&'c DataProduct] {
        self.by_name.get(&name(id)).map_or(&[], Vec::as_slice)
    }

    /// The version that an input means.
    pub(super) fn choose(&self, input: &ProductInput) -> Option<&'c DataProduct> {
        input.choose(self.named(&input.product).iter().copied())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'c DataProduct> {
        self.by_name.values().flatten().copied()
    }
}

fn name(id: &ProductId) -> (String, String) {
    (id.domain.sql(), id.product.sql())
}

/// Who reads whom: declared inputs over the contracts, and the lineage of what is published.
pub(super) struct Reading<'c> {
    /// Per major version that is read: its readers, each with its input.
    declared: BTreeMap<ProductKey, Vec<(&'c DataProduct, &'c ProductInput)>>,
    graph: LineageGraph,
    owners: BTreeMap<ProductKey, &'c DataProduct>,
}

impl<'c> Reading<'c> {
    pub(super) fn new(contracts: &Contracts<'c>, graph: LineageGraph) -> Self {
        let mut declared: BTreeMap<ProductKey, Vec<(&'c DataProduct, &'c ProductInput)>> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for contract in contracts.all() {
            owners.insert(contract.key(), contract);
            if contract.status.preference().is_none() {
                continue;
            }
            for input in &contract.inputs {
                if let Some(read) = contracts.choose(input) {
                    declared.entry(read.key()).or_default().push((contract, input));
                }
            }
        }
        Self { declared, graph, owners }
    }

    /// The products that read a major version, directly.
    pub(super) fn consumers(&self, key: &ProductKey, tables: impl Iterator<Item = String>) -> Vec<Consumer> {
        let mut found: BTreeMap<String, Consumer> = BTreeMap::new();
        for (contract, input) in self.declared.get(key).into_iter().flatten() {
            let consumer = Consumer {
                product: contract.id.to_string(),
                owner: contract.owner.clone(),
                input: Some(input.to_string()),
            };
            found.insert(consumer.product.clone(), consumer);
        }
        for table in tables {
            let dataset = Dataset::Table { product: key.clone(), table };
            for product in self.readers(&[Node { dataset, field: None }], Some(1)) {
                let Some(contract) = self.owners.get(&product).filter(|_| product != *key) else { continue };
                let name = contract.id.to_string();
                let consumer = Consumer { product: name.clone(), owner: contract.owner.clone(), input: None };
                found.entry(name).or_insert(consumer);
            }
        }
        found.into_values().collect()
    }

    fn readers(&self, roots: &[Node], depth: Option<usize>) -> BTreeSet<ProductKey> {
        let roots: Vec<Node> = roots.iter().flat_map(|root| self.fields(root)).collect();
        let trace = self.graph.walk(&roots, Direction::Down, depth, false);
        let product = |node: &Node| match &node.dataset {
            Dataset::Table { product, .. } => Some(product.clone()),
            _ => None,
        };
        trace.effects.keys().filter_map(product).collect()
    }

    /// A dataset's rows stand for every field of it that is read.
    fn fields(&self, root: &Node) -> BTreeSet<Node> {
        let mut found = BTreeSet::from([root.clone()]);
        if root.field.is_none() {
            let read = self.graph.edges().iter().map(|edge| &edge.input);
            found.extend(read.filter(|input| input.dataset == root.dataset).cloned());
        }
        found
    }

    /// Says of each change which tables and columns of other products are made of what it concerns.
    pub(super) fn mark(&self, key: &ProductKey, changes: &mut [FieldChange]) {
        if self.graph.edges().is_empty() {
            return;
        }
        for change in changes {
            let Some(table) = change.table.as_deref().and_then(|table| Name::new(table).ok()) else { continue };
            let dataset = Dataset::Table { product: key.clone(), table: table.sql() };
            let read = self.graph.edges().iter().map(|edge| &edge.input).filter(|input| input.dataset == dataset);
            let concerns = |input: &&Node| {
                let top = input.field.as_ref().and_then(|field| field.parts().first());
                change.columns.is_empty() || top.is_some_and(|top| change.columns.contains(top))
            };
            let roots: BTreeSet<Node> = read.filter(concerns).cloned().collect();
            let roots: Vec<Node> = roots.into_iter().collect();
            let trace = self.graph.walk(&roots, Direction::Down, None, false);
            let own = |node: &&Node| matches!(&node.dataset, Dataset::Table { product, .. } if product == key);
            change.affects = trace.effects.keys().filter(|node| !own(node)).map(ToString::to_string).collect();
        }
    }
}
