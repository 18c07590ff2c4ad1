//! Declarations and dependencies brought together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    ContextMap, DeclaredRelationship, Dependency, Evidence, LinkState, MapDomain, MapInput, MapLink, findings,
};
use crate::contract::{Column, DataProduct};
use crate::datatype::DataType;
use crate::domain::{KindEnd, RelationshipKind, Role};
use crate::ids::ProductId;
use crate::lineage::Dataset;
use crate::ownership::OwnedPath;

/// A product by SQL names: domain and product.
pub(super) type Key = (String, String);

/// What one product takes from another: where it shows, and which major versions it means; `None`: any.
pub(super) type Reads = BTreeMap<(Key, Key), BTreeSet<(Evidence, Option<u64>)>>;

pub(super) fn key(id: &ProductId) -> Key {
    (id.domain.sql(), id.product.sql())
}

/// What products of one domain take from another's: consumer first. Of an input the major version is the one that its
/// range chooses.
pub(super) fn reads(input: &MapInput<'_>) -> Reads {
    let mut reads = Reads::new();
    let mut versions: BTreeMap<Key, Vec<&DataProduct>> = BTreeMap::new();
    for contract in input.products {
        versions.entry(key(&contract.id)).or_default().push(contract);
    }
    let mut add = |consumer: &Key, supplier: Key, evidence: Evidence, major: Option<u64>| {
        if consumer.0 != supplier.0 {
            reads.entry((consumer.clone(), supplier)).or_default().insert((evidence, major));
        }
    };
    for contract in input.products {
        if contract.declared.get("status").and_then(Value::as_str) == Some("retired") {
            // What a retired product would need, nobody runs any more.
            continue;
        }
        let own = key(&contract.id);
        for wanted in &contract.inputs {
            let chosen = wanted.choose(versions.get(&key(&wanted.product)).into_iter().flatten().copied());
            add(&own, key(&wanted.product), Evidence::Input, chosen.map(|chosen| chosen.version.major));
        }
        for table in &contract.tables {
            let references = table.references.iter().map(|reference| &reference.to);
            let compared = table.metrics.iter().filter_map(|rule| Some(&rule.compare_to.as_ref()?.table));
            for product in references.chain(compared).filter_map(|table| table.product.as_ref()) {
                add(&own, key(product), Evidence::Reference, None);
            }
            each_column(&table.columns, &mut |column| {
                for from in &column.from {
                    add(&own, key(&from.product), Evidence::From, None);
                }
            });
        }
    }
    for edge in input.lineage {
        if let (Dataset::Table { product: output, .. }, Dataset::Table { product: input, .. }) =
            (&edge.output.dataset, &edge.input.dataset)
        {
            let consumer = (output.domain.clone(), output.product.clone());
            add(&consumer, (input.domain.clone(), input.product.clone()), Evidence::Lineage, Some(input.major));
        }
    }
    reads
}

fn each_column(columns: &[Column], act: &mut impl FnMut(&Column)) {
    for column in columns {
        act(column);
        let mut data_type = &column.data_type;
        loop {
            match data_type {
                DataType::Struct(fields) => break each_column(fields, act),
                DataType::Array(item) => data_type = &item.data_type,
                DataType::Map(_, value) => data_type = &value.data_type,
                _ => break,
            }
        }
    }
}

/// The newest major version of every product, by SQL names.
pub(super) fn newest<'a>(input: &MapInput<'a>) -> BTreeMap<Key, &'a DataProduct> {
    let mut newest: BTreeMap<Key, &DataProduct> = BTreeMap::new();
    for contract in input.products {
        let known = newest.entry(key(&contract.id)).or_insert(contract);
        if contract.version > known.version {
            *known = contract;
        }
    }
    newest
}

/// Brings what domains declare and what their products read together. The same input makes the same map, whatever order
/// its parts come in.
pub fn context_map(input: &MapInput<'_>) -> ContextMap {
    let newest = newest(input);
    let reads = reads(input);
    let names = names(input, &newest, &reads);
    let indexes: BTreeMap<&str, usize> = names.keys().enumerate().map(|(index, sql)| (sql.as_str(), index)).collect();
    let mut domains: Vec<MapDomain> = names
        .iter()
        .map(|(sql, name)| {
            let declared = input.domains.iter().find(|domain| domain.name.sql() == *sql);
            let products: Vec<&&DataProduct> =
                newest.iter().filter(|((domain, _), _)| domain == sql).map(|(_, contract)| contract).collect();
            let id = declared.map(|domain| &domain.name).or(products.first().map(|product| &product.id.domain));
            let owner = id.and_then(|id| input.ownership.owner_of(OwnedPath::Domain(id)));
            MapDomain {
                name: name.clone(),
                owner: owner.map(|owner| owner.team.to_owned()),
                purpose: declared.and_then(|domain| domain.purpose.clone()),
                responsibilities: declared.map(|domain| domain.responsibilities.clone()).unwrap_or_default(),
                declared: declared.is_some(),
                tables: products.iter().map(|product| product.tables.len()).sum(),
                products: products.iter().map(|product| product.id.product.to_string()).collect(),
                upstream: 0,
                downstream: 0,
            }
        })
        .collect();
    let mut links = links(input, &indexes, &reads, &newest);
    findings::mark_cycles(domains.len(), &mut links);
    // Who takes from whom: as declared, or as it is.
    let mut flows: BTreeSet<(usize, usize)> =
        links.iter().filter(|link| !link.symmetric).map(|link| (link.upstream, link.downstream)).collect();
    flows.extend(links.iter().flat_map(|link| &link.dependencies).map(|found| (found.upstream, found.downstream)));
    for (upstream, downstream) in flows {
        domains[upstream].downstream += 1;
        domains[downstream].upstream += 1;
    }
    let findings = findings::find(input, &domains, &links, &newest, &reads);
    ContextMap { domains, links, findings }
}

/// Every domain that is declared, has products or is named by one, by SQL name.
fn names(input: &MapInput<'_>, newest: &BTreeMap<Key, &DataProduct>, reads: &Reads) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for domain in input.domains {
        names.insert(domain.name.sql(), domain.name.to_string());
    }
    for contract in newest.values() {
        names.entry(contract.id.domain.sql()).or_insert_with(|| contract.id.domain.to_string());
    }
    for other in input.domains.iter().flat_map(|domain| &domain.relationships).map(|relationship| &relationship.domain)
    {
        names.entry(other.sql()).or_insert_with(|| other.to_string());
    }
    for (consumer, supplier) in reads.keys() {
        for (domain, _) in [consumer, supplier] {
            names.entry(domain.clone()).or_insert_with(|| domain.clone());
        }
    }
    names
}

/// The name of a product as it is written, where it is known.
pub(super) fn shown(key: &Key, newest: &BTreeMap<Key, &DataProduct>) -> String {
    newest.get(key).map_or_else(|| format!("{}/{}", key.0, key.1), |contract| contract.id.to_string())
}

fn links(
    input: &MapInput<'_>,
    indexes: &BTreeMap<&str, usize>,
    reads: &Reads,
    newest: &BTreeMap<Key, &DataProduct>,
) -> Vec<MapLink> {
    let mut links: BTreeMap<(usize, usize, bool), MapLink> = BTreeMap::new();
    let new = |upstream, downstream, symmetric| MapLink {
        upstream,
        downstream,
        symmetric,
        declared: Vec::new(),
        dependencies: Vec::new(),
        state: LinkState::Agreed,
        cyclic: false,
    };
    for domain in input.domains {
        let Some(&own) = indexes.get(domain.name.sql().as_str()) else { continue };
        for relationship in &domain.relationships {
            let Some(&other) = indexes.get(relationship.domain.sql().as_str()) else { continue };
            let symmetric = relationship.kind.end() == KindEnd::Symmetric || relationship.role.is_none();
            let (upstream, downstream) = match relationship.role {
                _ if symmetric => (own.min(other), own.max(other)),
                Some(Role::Upstream) => (own, other),
                _ => (other, own),
            };
            let link =
                links.entry((upstream, downstream, symmetric)).or_insert_with(|| new(upstream, downstream, symmetric));
            link.declared.push(DeclaredRelationship { by: own, relationship: relationship.clone() });
        }
    }
    for ((consumer, supplier), evidence) in reads {
        let (Some(&downstream), Some(&upstream)) = (indexes.get(consumer.0.as_str()), indexes.get(supplier.0.as_str()))
        else {
            continue;
        };
        let product = newest.get(supplier).map(|contract| contract.id.clone());
        let covers = |link: &MapLink| {
            link.declared.iter().any(|declared| {
                let relationship = &declared.relationship;
                relationship.kind != RelationshipKind::SeparateWays
                    && match &product {
                        Some(product) => relationship.covers(product),
                        None => {
                            relationship.products.iter().map(key).any(|named| named == *supplier)
                                || relationship.products.is_empty()
                        }
                    }
            })
        };
        // A dependency belongs to the link that covers it: the one of its direction before the symmetric one.
        let directed = (upstream, downstream, false);
        let symmetric = (upstream.min(downstream), upstream.max(downstream), true);
        let place = [directed, symmetric].into_iter().find(|place| links.get(place).is_some_and(covers));
        let covered = place.is_some();
        let apart = |link: &MapLink| {
            link.declared.iter().all(|declared| declared.relationship.kind == RelationshipKind::SeparateWays)
        };
        let place =
            place.unwrap_or_else(|| if links.get(&symmetric).is_some_and(apart) { symmetric } else { directed });
        let link = links.entry(place).or_insert_with(|| new(place.0, place.1, place.2));
        link.dependencies.push(Dependency {
            supplier: shown(supplier, newest),
            upstream,
            consumer: shown(consumer, newest),
            downstream,
            evidence: evidence.iter().map(|(evidence, _)| *evidence).collect(),
            covered,
        });
    }
    let mut links: Vec<MapLink> = links.into_values().collect();
    for link in &mut links {
        let apart = !link.declared.is_empty()
            && link.declared.iter().all(|declared| declared.relationship.kind == RelationshipKind::SeparateWays);
        link.state = match (apart, link.dependencies.is_empty()) {
            (true, true) => LinkState::Apart,
            (true, false) => LinkState::Crossed,
            // Teams that share a kernel or a plan need not read each other's data.
            (false, true) if link.symmetric => LinkState::Agreed,
            (false, true) => LinkState::Unsupported,
            (false, false) if link.dependencies.iter().any(|found| !found.covered) => LinkState::Undeclared,
            (false, false) => LinkState::Agreed,
        };
    }
    links
}
