//! The comparison of manifests with the applied state.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::{contract_changes, shown};
use super::consumers::{Consumer, Contracts, Reading};
use super::{
    Applied, AppliedProduct, Bump, Desired, DomainAction, DomainStep, MeshPlan, Move, PLAN_FORMAT, PlanOptions,
    Planned, ProductAction, ProductStep, Refusal, RefusalKind,
};
use crate::contract::{DataProduct, Lifecycle};
use crate::domain::Domain;
use crate::evolution::{TooSmall, judge, needed_bump};
use crate::ids::{ProductId, ProductKey};
use crate::lineage::{Edge, LineageGraph};
use crate::transform::{DependencyGraph, cycle};

/// Compares what is desired with what is applied. Everything that stands against it is told at once.
pub fn plan(desired: &Desired, applied: &Applied, options: PlanOptions) -> Planned {
    let mut planning = Planning { desired, options, refusals: Vec::new(), unchanged: 0 };
    let domains = planning.domains(applied);
    let moves = planning.moves(applied);
    let key = |product: &AppliedProduct| match moves.get(&name(&product.key)) {
        Some(to) => to.key(product.key.major),
        None => product.key.clone(),
    };
    // By the keys that they will have.
    let state: State<'_> = applied.products.iter().map(|product| (key(product), product)).collect();
    planning.collisions(applied, &moves);
    let mut steps = planning.products(&state);
    steps.extend(planning.retirements(&state));
    steps.extend(renamed(&state, &steps));
    steps.sort_by_key(ProductStep::key);
    let mut moves: Vec<Move> = moves
        .into_iter()
        .filter_map(|(key, to)| {
            let from = applied.products.iter().find(|product| name(&product.key) == key)?.contract.id.clone();
            Some(Move { from, to, consumers: Vec::new() })
        })
        .collect();
    if !(steps.is_empty() && moves.is_empty()) {
        planning.readers(&state, &applied.edges, &mut steps, &mut moves);
    }
    planning.refusals.sort_by(|a, b| (&a.subject, a.id).cmp(&(&b.subject, b.id)));
    Planned {
        plan: MeshPlan {
            format: PLAN_FORMAT,
            mesh: applied.mesh.clone(),
            generation: applied.generation,
            options,
            governance: super::governance::step(
                applied.governance.as_ref(),
                desired.governance.as_ref(),
                &desired.scope,
            ),
            domains,
            moves,
            products: steps,
        },
        refusals: planning.refusals,
        notes: Vec::new(),
        unchanged: planning.unchanged,
    }
}

/// The applied major versions, by the keys that they will have.
type State<'s> = BTreeMap<ProductKey, &'s AppliedProduct>;

/// Majors that move and have no file: their contracts get the new name.
fn renamed(state: &State<'_>, steps: &[ProductStep]) -> Vec<ProductStep> {
    let known: BTreeSet<ProductKey> = steps.iter().map(ProductStep::key).collect();
    let ids: BTreeMap<(String, String), &ProductId> =
        steps.iter().map(|step| (name(&step.key()), &step.product)).collect();
    let moved =
        state.iter().filter(|(key, product)| name(&product.contract.id.key(0)) != name(key) && !known.contains(*key));
    moved
        .filter_map(|(key, product)| {
            let id = ids.get(&name(key))?;
            let contract = DataProduct { id: (*id).clone(), ..product.contract.clone() };
            Some(ProductStep {
                action: ProductAction::Update,
                product: contract.id.clone(),
                before: Some(contract.version.clone()),
                version: contract.version.clone(),
                revision: product.revision,
                needs: None,
                changes: Vec::new(),
                consumers: Vec::new(),
                tables: product.tables.clone(),
                contract,
            })
        })
        .collect()
}

/// A product's normalised name.
fn name(key: &ProductKey) -> (String, String) {
    (key.domain.clone(), key.product.clone())
}

struct Planning<'p> {
    desired: &'p Desired,
    options: PlanOptions,
    refusals: Vec<Refusal>,
    unchanged: usize,
}

impl Planning<'_> {
    fn refuse(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }

    fn domains(&mut self, applied: &Applied) -> Vec<DomainStep> {
        let mut steps = Vec::new();
        let known: BTreeMap<String, &Domain> =
            applied.domains.iter().map(|domain| (domain.name.sql(), domain)).collect();
        let mut wanted = BTreeSet::new();
        for domain in &self.desired.domains {
            wanted.insert(domain.name.sql());
            let before = known.get(&domain.name.sql());
            if let Some(before) = before.filter(|before| before.name != domain.name) {
                self.refusals.push(collision("domain", &domain.name, &before.name));
                continue;
            }
            if before.is_some_and(|before| *before == domain) {
                continue;
            }
            steps.push(DomainStep {
                action: if before.is_some() { DomainAction::Update } else { DomainAction::Create },
                name: domain.name.clone(),
                changes: before.map(|before| domain_changes(before, domain)).unwrap_or_default(),
                domain: Some(domain.clone()),
            });
        }
        for domain in &applied.domains {
            if self.desired.scope.covers(&domain.name.sql()) && !wanted.contains(&domain.name.sql()) {
                let name = domain.name.clone();
                steps.push(DomainStep { action: DomainAction::Remove, name, changes: Vec::new(), domain: None });
            }
        }
        steps.sort_by(|a, b| a.name.cmp(&b.name));
        steps
    }

    /// Where products go that say where they were, by their former normalised names.
    fn moves(&mut self, applied: &Applied) -> BTreeMap<(String, String), ProductId> {
        let known: BTreeSet<(String, String)> = applied.products.iter().map(|product| name(&product.key)).collect();
        let mut moves: BTreeMap<(String, String), ProductId> = BTreeMap::new();
        for product in &self.desired.products {
            let Some(from) = &product.moved_from else { continue };
            let (old, new) = (name(&from.key(0)), name(&product.id.key(0)));
            let refusal = match (known.contains(&old), known.contains(&new)) {
                // It moved when an earlier plan was applied.
                (false, true) => continue,
                (false, false) => Refusal::new(
                    RefusalKind::UnknownProduct,
                    &product.id,
                    format!("it is to be moved from `{from}`, but the registry knows no such product"),
                    "write its former `domain/product`, or take `movedFrom` out",
                ),
                (true, true) => Refusal::new(
                    RefusalKind::MoveOntoExisting,
                    &product.id,
                    format!("`{from}` is to be moved here, but the registry has a product of this name already"),
                    "choose another name, or take `movedFrom` out",
                ),
                (true, false) => match moves.get(&old) {
                    Some(other) if *other == product.id => continue,
                    Some(other) => Refusal::new(
                        RefusalKind::MoveOntoExisting,
                        &product.id,
                        format!("`{from}` is to be moved here and to `{other}`"),
                        "one product was there: name it in one place",
                    ),
                    None if self.desired.products.iter().any(|other| name(&other.id.key(0)) == old) => Refusal::new(
                        RefusalKind::MoveOntoExisting,
                        &product.id,
                        format!("`{from}` is to be moved here, but a manifest still declares it"),
                        "move the manifest: a product is in one place",
                    ),
                    None => {
                        moves.insert(old, product.id.clone());
                        continue;
                    }
                },
            };
            self.refuse(refusal);
        }
        moves
    }

    /// Names that are spelled otherwise than the registry has them, and mean the same in SQL.
    fn collisions(&mut self, applied: &Applied, moves: &BTreeMap<(String, String), ProductId>) {
        let mut spelled: BTreeMap<(String, String), ProductId> = BTreeMap::new();
        for product in &applied.products {
            if !moves.contains_key(&name(&product.key)) {
                spelled.insert(name(&product.key), product.contract.id.clone());
            }
        }
        let mut told = BTreeSet::new();
        for product in &self.desired.products {
            let key = name(&product.id.key(0));
            let other = spelled.entry(key).or_insert_with(|| product.id.clone());
            if *other != product.id && told.insert(product.id.clone()) {
                let refusal = collision("product", &product.id, other);
                self.refusals.push(refusal);
            }
        }
    }

    fn products(&mut self, state: &State<'_>) -> Vec<ProductStep> {
        let mut steps = Vec::new();
        for product in &self.desired.products {
            let key = product.key();
            match state.get(&key) {
                Some(before) if before.contract == *product => self.unchanged += 1,
                Some(before) => steps.push(self.update(before, product)),
                None => {
                    let from = ProductKey { major: 0, ..key.clone() };
                    let to = ProductKey { major: u64::MAX, ..key };
                    let majors: Vec<&AppliedProduct> = state.range(from..=to).map(|(_, product)| *product).collect();
                    steps.push(self.create(&majors, product));
                }
            }
        }
        steps
    }

    fn create(&mut self, majors: &[&AppliedProduct], product: &DataProduct) -> ProductStep {
        let older = majors.iter().rev().find(|other| other.key.major < product.version.major);
        if let (None, Some(newest)) = (older, majors.last()) {
            self.refuse(Refusal::new(
                RefusalKind::VersionBackwards,
                &product.id,
                format!("version {} was never applied, but {} was", product.version, newest.contract.version),
                "a new major version is greater than those there are",
            ));
        }
        if product.status == Lifecycle::Retired {
            self.refuse(Refusal::new(
                RefusalKind::LifecycleBackwards,
                &product.id,
                format!("version {} is retired, but it was never applied", product.version),
                "remove its manifest",
            ));
        }
        let changes = older.map(|older| contract_changes(&older.contract, product)).unwrap_or_default();
        ProductStep {
            action: if majors.is_empty() { ProductAction::Create } else { ProductAction::NewMajor },
            product: product.id.clone(),
            before: older.map(|older| older.contract.version.clone()),
            version: product.version.clone(),
            revision: 0,
            needs: needed_bump(&changes, self.options.acknowledge),
            changes: shown(&changes),
            consumers: Vec::new(),
            tables: BTreeMap::new(),
            contract: product.clone(),
        }
    }

    fn update(&mut self, before: &AppliedProduct, product: &DataProduct) -> ProductStep {
        let old = &before.contract;
        let changes = contract_changes(old, product);
        let judged = judge(&old.version, &product.version, &changes, self.options.acknowledge);
        if old.status == Lifecycle::Retired && product.status == Lifecycle::Retired {
            let mut refusal = Refusal::new(
                RefusalKind::RetiredChanged,
                &product.id,
                format!("version {} is retired, and a retired version does not change", old.version),
                "take the changes back, or remove the manifest",
            );
            refusal.changes = shown(&changes);
            self.refuse(refusal);
        } else if product.status < old.status {
            self.refuse(Refusal::new(
                RefusalKind::LifecycleBackwards,
                &product.id,
                format!("version {} is {}, and cannot become {} again", old.version, old.status, product.status),
                "a product goes from draft to active, deprecated and retired; publish a new major version instead",
            ));
        } else if product.version < old.version {
            self.refuse(Refusal::new(
                RefusalKind::VersionBackwards,
                &product.id,
                format!("version {} is applied, and {} is less", old.version, product.version),
                format!("write a version greater than {}", old.version),
            ));
        } else if let Err(refused) = judged {
            self.refuse(too_small(product, &refused));
        }
        let action = match (old.status, product.status) {
            (before, Lifecycle::Retired) if before != Lifecycle::Retired => ProductAction::Retire,
            (before, Lifecycle::Deprecated) if before != Lifecycle::Deprecated => ProductAction::Deprecate,
            _ => ProductAction::Update,
        };
        ProductStep {
            action,
            product: product.id.clone(),
            before: Some(old.version.clone()),
            version: product.version.clone(),
            revision: before.revision,
            needs: needed_bump(&changes, self.options.acknowledge),
            changes: shown(&changes),
            consumers: Vec::new(),
            tables: before.tables.clone(),
            contract: product.clone(),
        }
    }

    /// Products of which no file is left, where the files are all there are.
    fn retirements(&self, state: &State<'_>) -> Vec<ProductStep> {
        let wanted: BTreeSet<(String, String)> =
            self.desired.products.iter().map(|product| name(&product.id.key(0))).collect();
        let gone = state.iter().filter(|(key, product)| {
            self.desired.scope.covers(&key.domain)
                && !wanted.contains(&name(key))
                && product.contract.status != Lifecycle::Retired
        });
        gone.map(|(_, product)| {
            let contract = DataProduct { status: Lifecycle::Retired, ..product.contract.clone() };
            ProductStep {
                action: ProductAction::Retire,
                product: contract.id.clone(),
                before: Some(contract.version.clone()),
                version: contract.version.clone(),
                revision: product.revision,
                needs: None,
                changes: Vec::new(),
                consumers: Vec::new(),
                tables: product.tables.clone(),
                contract,
            }
        })
        .collect()
    }

    /// What the plan does to those who read, and to what is read: consumers, inputs, circles.
    fn readers(&mut self, state: &State<'_>, edges: &[Edge], steps: &mut [ProductStep], moves: &mut [Move]) {
        let after: BTreeMap<ProductKey, DataProduct> =
            steps.iter().map(|step| (step.key(), step.contract.clone())).collect();
        let graph = LineageGraph::new(edges.iter().cloned());
        // Consumers of a version are those that read it now, before it is retired.
        let now = state.iter().map(|(key, product)| match after.get(key) {
            Some(contract) if contract.status != Lifecycle::Retired => contract,
            _ => &product.contract,
        });
        let new = after.iter().filter(|(key, _)| !state.contains_key(*key)).map(|(_, contract)| contract);
        let reading = Reading::new(&Contracts::new(now.chain(new)), graph);
        for step in steps.iter_mut() {
            let key = step.key();
            let tables = step.contract.tables.iter().map(|table| table.name.sql());
            step.consumers = reading.consumers(&key, tables);
            reading.mark(&key, &mut step.changes);
        }
        let retired: BTreeSet<ProductKey> =
            steps.iter().filter(|step| step.action == ProductAction::Retire).map(ProductStep::key).collect();
        for step in steps.iter() {
            if step.action == ProductAction::Retire {
                self.retire(step, &reading, &retired, &after);
            }
        }
        for refusal in &mut self.refusals {
            if refusal.id != RefusalKind::VersionTooSmall {
                continue;
            }
            let has = |step: &ProductStep, path: &str| step.changes.iter().any(|change| change.path == path);
            let is_meant = |step: &&ProductStep| {
                step.product.to_string() == refusal.subject
                    && refusal.changes.iter().all(|change| has(step, &change.path))
            };
            if let Some(step) = steps.iter().find(is_meant) {
                refusal.consumers = step.consumers.clone();
                refusal.changes.iter_mut().for_each(|change| {
                    let marked = step.changes.iter().find(|marked| marked.path == change.path);
                    change.affects = marked.map(|marked| marked.affects.clone()).unwrap_or_default();
                });
            }
        }
        for moved in moves.iter_mut() {
            let readers = state.values().filter(|product| {
                product.contract.status != Lifecycle::Retired
                    && product.contract.inputs.iter().any(|input| input.names(&moved.from))
            });
            moved.consumers = readers
                .map(|product| Consumer {
                    product: product.contract.id.to_string(),
                    owner: product.contract.owner.clone(),
                    input: product
                        .contract
                        .inputs
                        .iter()
                        .find(|input| input.names(&moved.from))
                        .map(ToString::to_string),
                })
                .collect();
        }
        self.inputs(state, steps, &after);
        self.protections(state, steps, &after);
    }

    /// What protects people binds every major version at once: consumers of an older one would see it in clear.
    fn protections(&mut self, state: &State<'_>, steps: &[ProductStep], after: &BTreeMap<ProductKey, DataProduct>) {
        for step in steps.iter().filter(|step| step.changes.iter().any(|change| change.protects)) {
            let key = step.key();
            let majors = ProductKey { major: 0, ..key.clone() }..=ProductKey { major: u64::MAX, ..key.clone() };
            let before = state.range(majors.clone()).filter(|(other, _)| !after.contains_key(*other));
            let kept = before.map(|(other, product)| (other, &product.contract));
            for (other, contract) in kept.chain(after.range(majors)) {
                if *other == key || contract.status == Lifecycle::Retired {
                    continue;
                }
                for (table, column) in unprotected(&step.contract, contract) {
                    self.refuse(Refusal::new(
                        RefusalKind::ProtectionMissing,
                        &step.product,
                        format!(
                            "column `{table}.{column}` is protected in version {}, but not in {}, which is kept up",
                            step.version, contract.version
                        ),
                        format!(
                            "protect it in product.v{}.yaml too, as a minor version: protection does not wait",
                            contract.version.major
                        ),
                    ));
                }
            }
        }
    }

    fn retire(
        &mut self,
        step: &ProductStep,
        reading: &Reading<'_>,
        retired: &BTreeSet<ProductKey>,
        after: &BTreeMap<ProductKey, DataProduct>,
    ) {
        if self.options.allow_retire {
            return;
        }
        let tables = step.contract.tables.iter().map(|table| table.name.sql());
        // Whoever is retired in the same plan reads it no more.
        let leaving = |consumer: &Consumer| {
            let keys: Vec<&ProductKey> = after
                .iter()
                .filter(|(_, contract)| contract.id.to_string() == consumer.product)
                .map(|(key, _)| key)
                .collect();
            !keys.is_empty() && keys.into_iter().all(|key| retired.contains(key))
        };
        let consumers: Vec<Consumer> =
            reading.consumers(&step.key(), tables).into_iter().filter(|consumer| !leaving(consumer)).collect();
        if consumers.is_empty() {
            return;
        }
        let names: Vec<String> =
            consumers.iter().map(|consumer| format!("`{}` ({})", consumer.product, consumer.owner)).collect();
        let mut refusal = Refusal::new(
            RefusalKind::RetireWithConsumers,
            &step.product,
            format!("version {} would be retired, but it is read by {}", step.version, names.join(", ")),
            "let them move first, or allow it with `--allow-retire`",
        );
        refusal.consumers = consumers;
        self.refuse(refusal);
    }

    /// Inputs of what changes, and circles among all that there will be.
    fn inputs(&mut self, state: &State<'_>, steps: &[ProductStep], after: &BTreeMap<ProductKey, DataProduct>) {
        let kept = state.iter().filter(|(key, _)| !after.contains_key(*key)).map(|(_, product)| &product.contract);
        let contracts = Contracts::new(kept.chain(after.values()));
        for step in steps.iter().filter(|step| step.contract.status != Lifecycle::Retired) {
            for input in &step.contract.inputs {
                if contracts.choose(input).is_some() {
                    continue;
                }
                let mut versions: Vec<_> = contracts
                    .named(&input.product)
                    .iter()
                    .map(|contract| match contract.status {
                        Lifecycle::Retired => format!("{} (retired)", contract.version),
                        _ => contract.version.to_string(),
                    })
                    .collect();
                versions.sort();
                self.refuse(if versions.is_empty() {
                    Refusal::new(
                        RefusalKind::UnknownInput,
                        &step.product,
                        format!("it reads `{input}`, but there is no product `{}`", input.product),
                        "apply that product first or with this one, or mend the name in `inputs:`",
                    )
                } else {
                    Refusal::new(
                        RefusalKind::UnsatisfiedInput,
                        &step.product,
                        format!("it reads `{input}`, but no version of `{}` is within that range", input.product),
                        format!("versions there are: {}", versions.join(", ")),
                    )
                });
            }
        }
        let graph: DependencyGraph = contracts
            .all()
            .filter(|contract| contract.status != Lifecycle::Retired)
            .map(|contract| {
                let inputs = contract.inputs.iter().filter_map(|input| contracts.choose(input));
                (contract.key(), inputs.map(DataProduct::key).collect())
            })
            .collect();
        if let Some(cycle) = cycle(&graph) {
            let names: Vec<String> = cycle.iter().map(ToString::to_string).collect();
            let subject = cycle.first().map(ToString::to_string).unwrap_or_default();
            self.refuse(Refusal::new(
                RefusalKind::InputCycle,
                subject,
                format!("products would read each other in a circle: {}", names.join(" → ")),
                "take one of these inputs out; what both need is a product of its own",
            ));
        }
    }
}

/// The columns that one contract protects and the other shows in clear.
fn unprotected(strict: &DataProduct, other: &DataProduct) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for table in &strict.tables {
        let Some(there) = other.table(table.name.as_str()) else { continue };
        for column in table.columns.iter().filter(|column| column.is_protected()) {
            if there.column(&column.name).is_some_and(|column| !column.is_protected()) {
                found.push((table.name.to_string(), column.name.clone()));
            }
        }
    }
    found
}

fn collision(what: &str, wanted: &dyn std::fmt::Display, there: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        RefusalKind::NameCollision,
        wanted,
        format!(
            "{what} `{wanted}` is the same as `{there}` in SQL, where hyphens are underscores and case does not count"
        ),
        format!("write `{there}`, or choose a name of its own"),
    )
}

fn too_small(product: &DataProduct, refused: &TooSmall) -> Refusal {
    let TooSmall { before, needed, least, .. } = refused;
    let mut help = format!("write `version: {least}` or a later one");
    if *needed == Bump::Major && before.major > 0 {
        let file = format!("product.v{}.yaml", before.major);
        help.push_str(&format!(", and keep the manifest of {before} as {file} for as long as it is kept up"));
    }
    if refused.acknowledging_helps {
        help.push_str("; where you know that nothing breaks, say so with `--acknowledge`");
    }
    let changes = shown(&refused.changes);
    Refusal { changes, ..Refusal::new(RefusalKind::VersionTooSmall, &product.id, refused.to_string(), help) }
}

fn domain_changes(before: &Domain, after: &Domain) -> Vec<String> {
    let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after)) else {
        return Vec::new();
    };
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return Vec::new() };
    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |value: Option<&serde_json::Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    fields
        .into_iter()
        .filter(|field| before.get(*field) != after.get(*field))
        .map(|field| format!("{field}: {} -> {}", shown(before.get(field)), shown(after.get(field))))
        .collect()
}
