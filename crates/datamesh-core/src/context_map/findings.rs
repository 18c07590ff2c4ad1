//! What disagrees on a context map, and what nobody answers for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::build::{Key, Reads, key, shown};
use super::{Evidence, Finding, LinkState, MapDomain, MapInput, MapLink};
use crate::contract::{DataProduct, Table};
use crate::diagnostic::Level;
use crate::lineage::Dataset;
use crate::ownership::{OwnedPath, Ownership};

type Newest<'a> = BTreeMap<Key, &'a DataProduct>;

/// Every finding, the worst first.
pub(super) fn find(
    input: &MapInput<'_>,
    domains: &[MapDomain],
    links: &[MapLink],
    newest: &Newest<'_>,
    reads: &Reads,
) -> Vec<Finding> {
    let mut findings = relationships(domains, links);
    findings.extend(cycles(domains, links));
    findings.extend(owners(input.ownership, domains, newest));
    findings.extend(responsibilities(domains));
    findings.extend(claimed_sources(input, newest));
    findings.extend(claimed_tables(newest, reads));
    findings.extend(outdated(input, newest, reads));
    findings.sort();
    findings.dedup();
    findings
}

fn unique(texts: impl Iterator<Item = String>) -> Vec<String> {
    texts.collect::<BTreeSet<_>>().into_iter().collect()
}

fn listed(texts: &[String]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
}

/// Dependencies that nobody declared, and declarations that nothing supports.
fn relationships(domains: &[MapDomain], links: &[MapLink]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = |index: usize| domains[index].name.as_str();
    for link in links {
        let pair = vec![name(link.upstream).to_owned(), name(link.downstream).to_owned()];
        let of = |covered: bool| link.dependencies.iter().filter(move |found| found.covered == covered);
        let products =
            |covered: bool| unique(of(covered).flat_map(|found| [&found.supplier, &found.consumer]).cloned());
        if link.state == LinkState::Crossed {
            findings.push(Finding {
                level: Level::Warning,
                id: "separate-ways-crossed",
                message: format!(
                    "`{}` and `{}` declare that they go separate ways, but {}",
                    pair[0],
                    pair[1],
                    reading(of(false))
                ),
                help: "declare how they are related, or take the input out".to_owned(),
                domains: pair,
                products: products(false),
            });
            continue;
        }
        if of(false).next().is_some() {
            findings.push(Finding {
                level: Level::Warning,
                id: "undeclared-dependency",
                message: format!(
                    "`{}` depends on `{}`, which no relationship declares: {}",
                    name(link.downstream),
                    name(link.upstream),
                    reading(of(false))
                ),
                help: format!(
                    "add `{}` below `relationships:` in the domain.yaml of `{}`, with its kind",
                    name(link.upstream),
                    name(link.downstream)
                ),
                domains: pair.clone(),
                products: products(false),
            });
        }
        if !link.symmetric && of(true).next().is_none() && !link.declared.is_empty() {
            let by = unique(link.declared.iter().map(|declared| name(declared.by).to_owned()));
            findings.push(Finding {
                level: Level::Note,
                id: "unsupported-relationship",
                message: format!(
                    "{} {} `{}` upstream of `{}`, but no product there reads what is declared",
                    listed(&by),
                    if by.len() == 1 { "declares" } else { "declare" },
                    name(link.upstream),
                    name(link.downstream)
                ),
                help: "take the relationship out, or name what it rests on in its description".to_owned(),
                domains: pair,
                products: Vec::new(),
            });
        }
    }
    findings
}

fn reading<'d>(dependencies: impl Iterator<Item = &'d super::Dependency>) -> String {
    let texts: Vec<String> = dependencies
        .map(|found| {
            let evidence: Vec<&str> = found.evidence.iter().map(|evidence| evidence.as_str()).collect();
            format!("`{}` reads `{}` ({})", found.consumer, found.supplier, evidence.join(", "))
        })
        .collect();
    texts.join(", ")
}

/// Who depends on whom: upstream to downstream, as declared or as it is.
fn flows(count: usize, links: &[MapLink]) -> Vec<BTreeSet<usize>> {
    let mut next = vec![BTreeSet::new(); count];
    for link in links {
        if !link.symmetric {
            next[link.upstream].insert(link.downstream);
        }
        for found in &link.dependencies {
            next[found.upstream].insert(found.downstream);
        }
    }
    next
}

/// The groups of domains that depend on each other in a circle. Two that declare a partnership or a shared kernel mean
/// it so.
fn circles(count: usize, links: &[MapLink]) -> Vec<Vec<usize>> {
    let next = flows(count, links);
    let meant = |group: &[usize]| {
        group.len() == 2
            && links.iter().any(|link| {
                link.symmetric
                    && matches!(link.state, LinkState::Agreed | LinkState::Undeclared)
                    && [link.upstream, link.downstream] == [group[0], group[1]]
            })
    };
    let groups = components(&next);
    groups.into_iter().filter(|group| group.len() > 1 && !meant(group)).collect()
}

/// Marks the links that are part of a cycle of domains.
pub(super) fn mark_cycles(count: usize, links: &mut [MapLink]) {
    let mut group_of = vec![usize::MAX; count];
    for (number, group) in circles(count, links).iter().enumerate() {
        for domain in group {
            group_of[*domain] = number;
        }
    }
    for link in links {
        let group = group_of[link.upstream];
        let flows = !link.symmetric || !link.dependencies.is_empty();
        link.cyclic = flows && group != usize::MAX && group == group_of[link.downstream];
    }
}

fn cycles(domains: &[MapDomain], links: &[MapLink]) -> Vec<Finding> {
    let next = flows(domains.len(), links);
    let finding = |group: Vec<usize>| {
        let path = shortest_circle(&next, &group);
        let steps: Vec<&str> = path.iter().map(|index| domains[*index].name.as_str()).collect();
        let on_path = |found: &&super::Dependency| {
            path.windows(2).any(|step| step[0] == found.upstream && step[1] == found.downstream)
        };
        let dependencies = links.iter().flat_map(|link| &link.dependencies).filter(on_path);
        let others = group.len() - (path.len() - 1);
        let others = if others > 0 { format!("; {others} more domains are part of it") } else { String::new() };
        Finding {
            level: Level::Warning,
            id: "domain-cycle",
            message: format!("domains depend on each other in a circle: {}{others}", steps.join(" → ")),
            help: "turn one dependency around, move what they share to a domain of its own, or declare a partnership \
                   where two domains plan together"
                .to_owned(),
            products: unique(dependencies.flat_map(|found| [&found.supplier, &found.consumer]).cloned()),
            domains: group.iter().map(|index| domains[*index].name.clone()).collect(),
        }
    };
    circles(domains.len(), links).into_iter().map(finding).collect()
}

/// The shortest way from a group's first member back to it: the first member stands at both ends.
fn shortest_circle(next: &[BTreeSet<usize>], group: &[usize]) -> Vec<usize> {
    let Some(&start) = group.first() else { return Vec::new() };
    let mut before: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &to in next[at].iter().filter(|to| group.binary_search(to).is_ok()) {
            if to == start {
                let mut path = vec![start, at];
                while let Some(&earlier) = path.last().filter(|last| **last != start).and_then(|last| before.get(last))
                {
                    path.push(earlier);
                }
                path.reverse();
                return path;
            }
            if let Entry::Vacant(place) = before.entry(to) {
                place.insert(at);
                queue.push_back(to);
            }
        }
    }
    vec![start]
}

/// Strongly connected components, each sorted, by their first member (Tarjan, *Depth-first search and linear graph
/// algorithms*, 1972), without recursion.
fn components(next: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let count = next.len();
    let (mut index, mut low, mut on_stack) = (vec![UNSEEN; count], vec![0; count], vec![false; count]);
    let (mut stack, mut groups, mut number) = (Vec::new(), Vec::new(), 0);
    for root in 0..count {
        if index[root] != UNSEEN {
            continue;
        }
        let mut walk = vec![(root, next[root].iter())];
        index[root] = number;
        low[root] = number;
        number += 1;
        stack.push(root);
        on_stack[root] = true;
        while let Some((at, rest)) = walk.last_mut() {
            let at = *at;
            if let Some(&to) = rest.next() {
                if index[to] == UNSEEN {
                    index[to] = number;
                    low[to] = number;
                    number += 1;
                    stack.push(to);
                    on_stack[to] = true;
                    walk.push((to, next[to].iter()));
                } else if on_stack[to] {
                    low[at] = low[at].min(index[to]);
                }
                continue;
            }
            walk.pop();
            if let Some((parent, _)) = walk.last() {
                low[*parent] = low[*parent].min(low[at]);
            }
            if low[at] == index[at] {
                let mut group = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    group.push(member);
                    if member == at {
                        break;
                    }
                }
                group.sort_unstable();
                groups.push(group);
            }
        }
    }
    groups.sort();
    groups
}

/// Products whose owner is neither their domain's owner nor a team that anybody declares. Where a mesh declares neither
/// the domain nor a team, an owner is just a name.
fn owners(ownership: &Ownership, domains: &[MapDomain], newest: &Newest<'_>) -> Vec<Finding> {
    let any_team = ownership.teams().next().is_some();
    let declared: BTreeMap<String, &MapDomain> =
        domains.iter().filter(|domain| domain.declared).map(|domain| (domain.sql(), domain)).collect();
    let finding = |((domain, _), contract): (&Key, &&DataProduct)| {
        let owner = ownership.owner_of(OwnedPath::Product(contract))?.team;
        let domain = declared.get(domain);
        let is_domains = domain.is_some_and(|domain| domain.owner.as_deref() == Some(owner));
        if is_domains || ownership.team(owner).is_some() || (domain.is_none() && !any_team) {
            return None;
        }
        Some(Finding {
            level: Level::Warning,
            id: "product-without-owner",
            message: format!(
                "`{}` names the owner `{owner}`, which is neither its domain's owner nor a declared team",
                contract.id
            ),
            help: format!(
                "declare `{owner}` below `teams:` in the domain.yaml of `{}`, or name a team that is declared",
                contract.id.domain
            ),
            domains: vec![contract.id.domain.to_string()],
            products: vec![contract.id.to_string()],
        })
    };
    newest.iter().filter_map(finding).collect()
}

fn responsibilities(domains: &[MapDomain]) -> Vec<Finding> {
    let finding = |domain: &MapDomain| {
        let (message, help) = if domain.declared {
            (
                format!("domain `{}` names no responsibility", domain.name),
                "say below `responsibilities:` in its domain.yaml what others can rely on",
            )
        } else {
            (
                format!("domain `{}` has products but no domain.yaml: nobody says what it answers for", domain.name),
                "write one, with `name`, `owner` and `responsibilities`",
            )
        };
        Finding {
            level: Level::Warning,
            id: "domain-without-responsibilities",
            message,
            help: help.to_owned(),
            domains: vec![domain.name.clone()],
            products: Vec::new(),
        }
    };
    let without =
        |domain: &&MapDomain| domain.responsibilities.is_empty() && (domain.declared || !domain.products.is_empty());
    domains.iter().filter(without).map(finding).collect()
}

fn status(contract: &DataProduct) -> Option<&str> {
    contract.declared.get("status").and_then(Value::as_str)
}

fn is_outdated(contract: &DataProduct) -> bool {
    matches!(status(contract), Some("deprecated" | "retired"))
}

/// Tables of two domains that are taken from the same data outside the mesh: each of them claims to publish it.
fn claimed_sources(input: &MapInput<'_>, newest: &Newest<'_>) -> Vec<Finding> {
    let mut claims: BTreeMap<&Dataset, BTreeSet<(Key, &str)>> = BTreeMap::new();
    for claim in input.sources {
        let product = (claim.product.domain.clone(), claim.product.product.clone());
        let current = newest.get(&product).is_some_and(|contract| contract.version.major == claim.product.major);
        if current && !newest.get(&product).is_some_and(|contract| is_outdated(contract)) {
            claims.entry(&claim.dataset).or_default().insert((product, &claim.table));
        }
    }
    let mut findings = Vec::new();
    for (dataset, tables) in claims {
        let domains: BTreeSet<&str> = tables.iter().map(|((domain, _), _)| domain.as_str()).collect();
        if domains.len() < 2 {
            continue;
        }
        let tables: Vec<(String, String)> =
            tables.iter().map(|(product, table)| (shown(product, newest), (*table).to_owned())).collect();
        findings.push(claimed(
            &tables,
            &format!("both take `{dataset}`"),
            "let one domain take it and publish it, and let the others read that product",
        ));
    }
    findings
}

fn claimed(tables: &[(String, String)], why: &str, help: &str) -> Finding {
    let names: Vec<String> = tables.iter().map(|(product, table)| format!("{product}.{table}")).collect();
    let why = if names.len() > 2 { why.replacen("both", "all", 1) } else { why.to_owned() };
    let domain = |product: &str| product.split('/').next().unwrap_or_default().to_owned();
    Finding {
        level: Level::Warning,
        id: "claimed-table",
        message: format!("{} are claimed by different domains: {why}", listed(&names)),
        help: help.to_owned(),
        domains: unique(tables.iter().map(|(product, _)| domain(product))),
        products: unique(tables.iter().map(|(product, _)| product.clone())),
    }
}

/// What makes two tables the same thing: name, key, and columns with their types.
type Likeness = (String, BTreeSet<String>, BTreeSet<(String, String)>);

/// `None` for a table without a key, or with nothing but its key: those are alike by chance.
fn likeness(table: &Table) -> Option<Likeness> {
    let folded = |name: &str| name.to_ascii_lowercase();
    let primary_key: BTreeSet<String> = table.primary_key().iter().map(|name| folded(name)).collect();
    let columns: BTreeSet<(String, String)> =
        table.columns.iter().map(|column| (folded(&column.name), column.data_type.to_string())).collect();
    (!primary_key.is_empty() && columns.len() > primary_key.len()).then(|| (table.name.sql(), primary_key, columns))
}

/// Tables of two domains that are the same thing by name, key and columns, where neither product reads the other: one
/// that is made of the other is a copy whose origin is known.
fn claimed_tables(newest: &Newest<'_>, reads: &Reads) -> Vec<Finding> {
    let mut alike: BTreeMap<Likeness, Vec<&Key>> = BTreeMap::new();
    for (product, contract) in newest.iter().filter(|(_, contract)| !is_outdated(contract)) {
        for likeness in contract.tables.iter().filter_map(likeness) {
            alike.entry(likeness).or_default().push(product);
        }
    }
    let related = |one: &Key, other: &Key| {
        reads.contains_key(&(one.clone(), other.clone())) || reads.contains_key(&(other.clone(), one.clone()))
    };
    let mut findings = Vec::new();
    for ((table, ..), products) in alike {
        let rivals: Vec<(String, String)> = products
            .iter()
            .filter(|one| products.iter().any(|other| one.0 != other.0 && !related(one, other)))
            .map(|product| (shown(product, newest), table.clone()))
            .collect();
        if rivals.len() > 1 {
            findings.push(claimed(
                &rivals,
                "both have this name, this key and these columns",
                "let one domain publish it and let the others read that product; where they mean different things, name them differently",
            ));
        }
    }
    findings
}

/// What depends on a major version that is deprecated or retired.
fn outdated(input: &MapInput<'_>, newest: &Newest<'_>, reads: &Reads) -> Vec<Finding> {
    let versions: BTreeMap<(Key, u64), &DataProduct> =
        input.products.iter().map(|contract| ((key(&contract.id), contract.version.major), *contract)).collect();
    let mut findings: BTreeMap<(&Key, &Key, u64), (BTreeSet<Evidence>, &DataProduct)> = BTreeMap::new();
    for ((consumer, supplier), evidence) in reads {
        for (evidence, major) in evidence {
            let major = major.or_else(|| newest.get(supplier).map(|contract| contract.version.major));
            let Some(major) = major else { continue };
            let Some(contract) = versions.get(&(supplier.clone(), major)).filter(|contract| is_outdated(contract))
            else {
                continue;
            };
            findings
                .entry((consumer, supplier, major))
                .or_insert_with(|| (BTreeSet::new(), contract))
                .0
                .insert(*evidence);
        }
    }
    let finding = |((consumer, supplier, _), (evidence, contract)): (_, (BTreeSet<Evidence>, &DataProduct))| {
        let (consumer, supplier) = (shown(consumer, newest), shown(supplier, newest));
        let evidence: Vec<&str> = evidence.iter().map(|evidence| evidence.as_str()).collect();
        let (id, word) = match status(contract) {
            Some("retired") => ("retired-dependency", "retired"),
            _ => ("deprecated-dependency", "deprecated"),
        };
        let end = contract.declared.get("sla").and_then(|sla| sla.get("endOfSupport")).and_then(Value::as_str);
        let until = end.map_or_else(String::new, |end| format!(", supported until {end}"));
        let domain = |product: &str| product.split('/').next().unwrap_or_default().to_owned();
        Finding {
            level: Level::Warning,
            id,
            message: format!(
                "`{consumer}` reads `{supplier}` {} ({}), which is {word}{until}",
                contract.version,
                evidence.join(", ")
            ),
            help: "read a version that is active, or another product".to_owned(),
            domains: vec![domain(&supplier), domain(&consumer)],
            products: vec![supplier, consumer],
        }
    };
    findings.into_iter().map(finding).collect()
}
