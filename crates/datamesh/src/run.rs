//! `datamesh run`: one product's transforms, or a chain of products in the order of their dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use datamesh_app::Progress;
use datamesh_app::ports::Context;
use datamesh_app::publish::{PublishReport, PublishStatus};
use datamesh_app::run::{RunRequest, run as run_product};
use datamesh_core::transform::{DependencyGraph, cycle, dependencies, upstream};
use datamesh_core::{Error, ErrorCode, ProductKey, Result};
use datamesh_engine::DataEngine;
use datamesh_manifest::{LoadedProduct, load_mesh};
use futures::FutureExt;
use indicatif::MultiProgress;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cli::{ReportFormat, RunArguments};
use crate::commands::{exit_code, find_maintained, interrupted, manifest_sources};
use crate::observer::Observer;
use crate::{home, output};

fn request(arguments: &RunArguments, product: &LoadedProduct) -> RunRequest {
    RunRequest {
        contract: product.contract.clone(),
        sources: manifest_sources(product),
        again: arguments.again,
        full_refresh: arguments.full_refresh,
        dry_run: arguments.dry_run,
        idempotency_key: arguments.idempotency_key.clone(),
    }
}

pub(crate) async fn run(arguments: RunArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let stop = interrupted()?.shared();
    let root = home::find(told)?;
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let wanted = match arguments.product.as_deref() {
        Some(wanted) => Some(find_maintained(&root, wanted, &home::context(&root).await?).await?),
        None => None,
    };
    let engine = Arc::new(home::governed(&root, memory, &home::context(&root).await?).await?);
    if let (Some(product), false) = (&wanted, arguments.upstream) {
        let context = home::context(&root).await?;
        let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
        let report = run_product(request(&arguments, product), engine.as_ref(), &context, progress, stop).await?;
        match arguments.format {
            ReportFormat::Json => output::print_json(&report)?,
            ReportFormat::Text => output::print(&output::publish_text(&report)),
        }
        return Ok(exit_code(&report));
    }
    let products = chain(&root, wanted.as_ref())?;
    let mut chain = Chain {
        graph: dependencies(products.values().map(|product| &product.contract)),
        products,
        outcomes: BTreeMap::new(),
        order: Vec::new(),
    };
    let context = home::context(&root).await?;
    let display = show.then(MultiProgress::new);
    chain.run(&arguments, &engine, &context, display, stop).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&chain.to_json())?,
        ReportFormat::Text => output::print(&chain.summary()),
    }
    Ok(chain.exit_code())
}

/// The products to run: all of the mesh, or `wanted` with everything it rests on.
fn chain(root: &Path, wanted: Option<&LoadedProduct>) -> Result<BTreeMap<ProductKey, LoadedProduct>> {
    let mesh = load_mesh(root)?;
    let loaded =
        || mesh.products.iter().map(|product| &product.contract).chain(wanted.map(|product| &product.contract));
    let graph = dependencies(loaded());
    let selected: BTreeSet<ProductKey> = match wanted {
        Some(product) => upstream(&graph, &product.contract.key()),
        None => graph.keys().cloned().collect(),
    };
    if mesh.has_errors() {
        output::print_problems(&mesh.diagnostics, &mesh.sources);
        return Err(Error::new(ErrorCode::InvalidManifest, "nothing is run: there are manifests with errors")
            .with_help("mend them; `datamesh check` lists all problems"));
    }
    let own: DependencyGraph = graph.into_iter().filter(|(key, _)| selected.contains(key)).collect();
    if let Some(cycle) = cycle(&own) {
        let path: Vec<String> = cycle.iter().map(|key| format!("{}/{}", key.domain, key.product)).collect();
        let message = format!("nothing is run: products read each other in a circle: {}", path.join(" → "));
        return Err(Error::new(ErrorCode::InvalidManifest, message).with_help("take one of these inputs out"));
    }
    let products = mesh.products.iter().chain(wanted);
    Ok(products
        .filter(|product| selected.contains(&product.contract.key()))
        .map(|product| (product.contract.key(), product.clone()))
        .collect())
}

/// What became of one product of a chain.
enum Outcome {
    Ran(Box<PublishReport>),
    Failed(Error),
    /// Something it rests on failed.
    Blocked(ProductKey),
    /// It has neither sources nor transforms: its data is published by hand.
    Nothing,
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Ran(report) => match report.status {
                PublishStatus::Published => "published",
                PublishStatus::Repeat => "repeat",
                PublishStatus::Rejected => "rejected",
                PublishStatus::Conflict => "conflict",
                PublishStatus::WouldPublish => "would-publish",
                PublishStatus::WouldReject => "would-reject",
            },
            Self::Failed(_) => "failed",
            Self::Blocked(_) => "not-run",
            Self::Nothing => "nothing-to-run",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Ran(report) => exit_code(report),
            Self::Failed(error) => error.code().exit_code(),
            Self::Blocked(_) | Self::Nothing => 0,
        }
    }

    /// Whether what rests on it may run.
    fn is_good(&self) -> bool {
        !matches!(self, Self::Blocked(_)) && self.exit_code() == 0
    }
}

struct Chain {
    products: BTreeMap<ProductKey, LoadedProduct>,
    graph: DependencyGraph,
    outcomes: BTreeMap<ProductKey, Outcome>,
    /// The products in the order in which they ended.
    order: Vec<ProductKey>,
}

impl Chain {
    async fn run(
        &mut self,
        arguments: &RunArguments,
        engine: &Arc<DataEngine>,
        context: &Context,
        display: Option<MultiProgress>,
        stop: impl Future<Output = ()> + Clone + Send + 'static,
    ) -> Result<()> {
        let side_by_side = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let mut tasks: JoinSet<(ProductKey, Result<PublishReport>)> = JoinSet::new();
        let mut waiting: BTreeSet<ProductKey> = self.products.keys().cloned().collect();
        loop {
            let stopped = stop.clone().now_or_never().is_some();
            while let Some(key) = self.next(&waiting, tasks.len() < side_by_side && !stopped) {
                waiting.remove(&key);
                if let Some(outcome) = self.without_running(&key) {
                    self.end(arguments, key, outcome);
                    continue;
                }
                let Some(product) = self.products.get(&key) else { continue };
                let request = request(arguments, product);
                let prefix = format!("{}.", product.contract.id);
                let progress: Arc<dyn Progress> = Arc::new(Observer::within(display.clone(), prefix));
                let (engine, context, stop) = (engine.clone(), context.clone(), stop.clone());
                tasks.spawn(async move {
                    let report = run_product(request, engine.as_ref(), &context, progress, stop).await;
                    (key, report)
                });
            }
            let Some(done) = tasks.join_next().await else { break };
            let (key, report) =
                done.map_err(|error| Error::new(ErrorCode::Internal, "a run stopped").with_source(error))?;
            let outcome = match report {
                Ok(report) => Outcome::Ran(Box::new(report)),
                Err(error) => Outcome::Failed(error),
            };
            self.end(arguments, key, outcome);
        }
        if stop.now_or_never().is_some() {
            for key in waiting {
                let error = Error::new(ErrorCode::Interrupted, "stopped before it was run");
                self.end(arguments, key, Outcome::Failed(error));
            }
        }
        Ok(())
    }

    /// A product whose inputs have all ended. Those that need no run come even where no more may run.
    fn next(&self, waiting: &BTreeSet<ProductKey>, may_run: bool) -> Option<ProductKey> {
        let ready = |key: &&ProductKey| {
            let inputs = self.graph.get(*key);
            inputs.is_none_or(|inputs| inputs.iter().all(|input| self.outcomes.contains_key(input)))
        };
        waiting.iter().filter(ready).find(|key| may_run || self.without_running(key).is_some()).cloned()
    }

    fn without_running(&self, key: &ProductKey) -> Option<Outcome> {
        let inputs = self.graph.get(key)?;
        if let Some(failed) =
            inputs.iter().find(|input| self.outcomes.get(input).is_some_and(|outcome| !outcome.is_good()))
        {
            return Some(Outcome::Blocked(failed.clone()));
        }
        let contract = &self.products.get(key)?.contract;
        let runs = contract.tables.iter().any(|table| table.source.is_some() || table.transform.is_some());
        let runs = runs && contract.status != datamesh_core::Lifecycle::Retired;
        (!runs).then_some(Outcome::Nothing)
    }

    fn end(&mut self, arguments: &RunArguments, key: ProductKey, outcome: Outcome) {
        if arguments.format == ReportFormat::Text {
            let id = self.id(&key);
            match &outcome {
                Outcome::Ran(report) => output::print(&output::publish_text(report)),
                Outcome::Failed(error) => {
                    let told = Error::new(error.code(), format!("{id}: {error}"));
                    let told = match error.help() {
                        Some(help) => told.with_help(help),
                        None => told,
                    };
                    output::print_error(&told, false);
                }
                Outcome::Blocked(by) => output::print(&format!("{id} not run: {} failed\n", self.id(by))),
                Outcome::Nothing => output::print(&format!("{id} has nothing to run: it is published by hand\n")),
            }
        }
        self.order.push(key.clone());
        self.outcomes.insert(key, outcome);
    }

    fn id(&self, key: &ProductKey) -> String {
        self.products.get(key).map_or_else(|| key.to_string(), |product| product.contract.id.to_string())
    }

    fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for outcome in self.outcomes.values() {
            *counts.entry(outcome.word()).or_default() += 1;
        }
        let counts: Vec<String> =
            counts.iter().map(|(word, count)| format!("{count} {}", word.replace('-', " "))).collect();
        let products = if self.outcomes.len() == 1 { "product" } else { "products" };
        format!("{} {products}: {}\n", self.outcomes.len(), counts.join(", "))
    }

    fn to_json(&self) -> Value {
        let one = |key: &ProductKey| {
            let mut document = json!({
                "product": self.id(key),
                "version": self.products.get(key).map(|product| product.contract.version.to_string()),
                "outcome": self.outcomes.get(key).map(Outcome::word),
            });
            match self.outcomes.get(key) {
                Some(Outcome::Ran(report)) => document["report"] = json!(report),
                Some(Outcome::Failed(error)) => {
                    document["error"] = json!({
                        "code": error.code().as_str(),
                        "message": error.to_string(),
                        "help": error.help(),
                        "retryable": error.code().is_retryable(),
                    });
                }
                Some(Outcome::Blocked(by)) => document["blockedBy"] = json!(self.id(by)),
                _ => {}
            }
            document
        };
        json!({ "products": self.order.iter().map(one).collect::<Vec<_>>(), "exitCode": self.exit_code() })
    }

    /// The worst product's: an error before a conflict before a rejection.
    fn exit_code(&self) -> u8 {
        let rank = |code: u8| match code {
            0 => 0,
            crate::EXIT_REJECTED => 1,
            code if code == ErrorCode::Conflict.exit_code() => 2,
            code if code == ErrorCode::Interrupted.exit_code() => 4,
            _ => 3,
        };
        let codes = self.order.iter().filter_map(|key| self.outcomes.get(key)).map(Outcome::exit_code);
        codes.fold(0, |worst, code| if rank(code) > rank(worst) { code } else { worst })
    }
}
