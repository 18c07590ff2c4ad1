//! `datamesh provision` and `datamesh outbox`: keeping a catalog as contracts and pointers say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;

use clap::{Args, Subcommand, ValueEnum};
use datamesh_app::Context;
use datamesh_app::read::find_product;
use datamesh_core::canonical::sha256;
use datamesh_core::decision::Action;
use datamesh_core::ports::CatalogProduct;
use datamesh_core::{Error, ErrorCode, Period, Result};
use datamesh_provision::catalog::database_name;
use datamesh_provision::glue::{GlueOptions, GlueTarget};
use datamesh_provision::local::LocalTarget;
use datamesh_provision::outbox::{self, Delivered, FileCursors, PointerOutbox};
use datamesh_provision::provision::{
    self, Applied, ApplyOptions, Change, Desired, DesiredOptions, Plan, Retry, Target, TokioTimer,
};
use serde_json::json;

use crate::cli::ReportFormat;
use crate::commands::interrupted;
use crate::{EXIT_CHANGES, home, output};

#[derive(Debug, Args)]
pub(crate) struct ProvisionArguments {
    #[command(subcommand)]
    command: ProvisionCommand,
}

#[derive(Debug, Subcommand)]
enum ProvisionCommand {
    /// Show what would be made, changed and removed
    Plan(ChangeArguments),
    /// Make the catalog what the applied contracts and pointers say
    Apply(ChangeArguments),
    /// Show what differs; the exit code is 2 where something does
    Drift(DriftArguments),
    /// Remove what this mesh made from the catalog; files of tables stay
    Destroy(DestroyArguments),
}

#[derive(Debug, Args)]
struct TargetArguments {
    /// The catalog
    #[arg(long, value_enum)]
    target: TargetKind,
    /// What every database's name begins with
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// The account whose Glue catalog it is (default: the caller's)
    #[arg(long)]
    catalog_id: Option<String>,
    /// The AWS region (default: as the environment says)
    #[arg(long)]
    region: Option<String>,
    /// The folder of a local catalog (default: the mesh's .datamesh/provision/local)
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TargetKind {
    /// AWS Glue.
    Glue,
    /// A folder of JSON documents.
    Local,
}

impl TargetKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Glue => "glue",
            Self::Local => "local",
        }
    }
}

#[derive(Debug, Args)]
struct ChangeArguments {
    /// domain/product, `@1` behind it meaning its major version 1 (default: every product)
    #[arg(value_name = "PRODUCT")]
    products: Vec<String>,
    #[command(flatten)]
    target: TargetArguments,
    /// Remove what is this mesh's and no contract asks for any more, under any prefix
    #[arg(long, conflicts_with = "products")]
    prune: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct DriftArguments {
    /// domain/product (default: every product)
    #[arg(value_name = "PRODUCT")]
    products: Vec<String>,
    #[command(flatten)]
    target: TargetArguments,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct DestroyArguments {
    /// domain/product (default: everything of this mesh)
    #[arg(value_name = "PRODUCT")]
    products: Vec<String>,
    #[command(flatten)]
    target: TargetArguments,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

impl ProvisionArguments {
    pub(crate) fn wants_json(&self) -> bool {
        let format = match &self.command {
            ProvisionCommand::Plan(arguments) | ProvisionCommand::Apply(arguments) => arguments.format,
            ProvisionCommand::Drift(arguments) => arguments.format,
            ProvisionCommand::Destroy(arguments) => arguments.format,
        };
        format == ReportFormat::Json
    }
}

#[derive(Debug, Args)]
pub(crate) struct OutboxArguments {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// Deliver what was published since the last run
    Run(OutboxRunArguments),
}

#[derive(Debug, Args)]
struct OutboxRunArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Go on until Ctrl-C, looking again after this time: 10s, 5min
    #[arg(long, value_name = "PERIOD")]
    every: Option<String>,
    /// How to print; with --every one line of JSON a delivery
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

impl OutboxArguments {
    pub(crate) fn wants_json(&self) -> bool {
        let OutboxCommand::Run(arguments) = &self.command;
        arguments.format == ReportFormat::Json
    }
}

impl TargetArguments {
    fn folder(&self, root: &Path) -> Result<PathBuf> {
        match &self.dir {
            None => Ok(root.join(".datamesh").join("provision").join("local")),
            Some(dir) => std::path::absolute(dir).map_err(|error| Error::io(ErrorCode::NotFound, "find", dir, error)),
        }
    }

    async fn open(&self, root: &Path) -> Result<Box<dyn Target>> {
        let given = [
            ("--catalog-id", TargetKind::Glue, self.catalog_id.is_some()),
            ("--region", TargetKind::Glue, self.region.is_some()),
            ("--dir", TargetKind::Local, self.dir.is_some()),
        ];
        if let Some((option, of, _)) = given.into_iter().find(|(_, of, given)| *given && *of != self.target) {
            let message = format!("`{option}` is for the target `{}` alone", of.as_str());
            return Err(Error::new(ErrorCode::InvalidArgument, message).with_help("leave it out"));
        }
        match self.target {
            TargetKind::Local => Ok(Box::new(LocalTarget::new(self.folder(root)?))),
            TargetKind::Glue => {
                let (region, catalog_id) = (self.region.clone(), self.catalog_id.clone());
                Ok(Box::new(GlueTarget::connect(&GlueOptions { region, catalog_id, timeout: None }).await?))
            }
        }
    }

    fn desired(&self, root: &Path, mesh: &str, catalog: &[CatalogProduct]) -> Result<Desired> {
        let warehouse = Some(home::warehouse(root)?);
        Desired::new(mesh, catalog, &DesiredOptions { database_prefix: self.prefix.clone(), warehouse })
    }
}

async fn mesh_id(context: &Context) -> Result<String> {
    Ok(context.registry.mesh_identity().await?.id.to_string())
}

/// The databases of products; `None` where none is named.
async fn selected(context: &Context, products: &[String], prefix: &str) -> Result<Option<BTreeSet<String>>> {
    if products.is_empty() {
        return Ok(None);
    }
    let mut names = BTreeSet::new();
    for wanted in products {
        names.insert(database_name(&find_product(context, wanted, None).await?.key, prefix)?);
    }
    Ok(Some(names))
}

pub(crate) async fn run(arguments: ProvisionArguments, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let details =
        |operation: &str, target: &TargetArguments| json!({ "operation": operation, "target": target.target.as_str() });
    match arguments.command {
        ProvisionCommand::Plan(options) => {
            context.authorize_mesh(Action::Describe, details("provision plan", &options.target)).await?;
            let plan = planned(&context, &root, &options.products, &options.target, options.prune).await?;
            tell_plan(&plan, options.target.target, options.format)?;
            if plan.refusals.is_empty() {
                return Ok(0);
            }
            if options.format == ReportFormat::Text
                && let Err(error) = plan.check(&mesh_id(&context).await?)
            {
                output::print_error(&error, false);
            }
            Ok(ErrorCode::PlanRefused.exit_code())
        }
        ProvisionCommand::Drift(options) => {
            context.authorize_mesh(Action::Describe, details("provision drift", &options.target)).await?;
            let plan = planned(&context, &root, &options.products, &options.target, false).await?;
            tell_plan(&plan, options.target.target, options.format)?;
            Ok(if plan.is_empty() { 0 } else { EXIT_CHANGES })
        }
        ProvisionCommand::Apply(options) => {
            context.authorize_mesh(Action::Administer, details("provision apply", &options.target)).await?;
            let catalog = context.registry.catalog().await?;
            let mut desired = options.target.desired(&root, &mesh_id(&context).await?, &catalog)?;
            if let Some(names) = selected(&context, &options.products, &options.target.prefix).await? {
                desired = desired.only(&names);
            }
            let target = options.target.open(&root).await?;
            let how = ApplyOptions { prune: options.prune, ..ApplyOptions::default() };
            let applied = provision::apply(target.as_ref(), &desired, &how, &TokioTimer).await?;
            tell_applied(&applied, options.target.target, options.format)
        }
        ProvisionCommand::Destroy(options) => {
            context.authorize_mesh(Action::Administer, details("provision destroy", &options.target)).await?;
            destroy(&context, &root, &options).await
        }
    }
}

/// What differs, of what whoever asks may find.
async fn planned(
    context: &Context,
    root: &Path,
    products: &[String],
    options: &TargetArguments,
    prune: bool,
) -> Result<Plan> {
    let catalog = context.registry.catalog().await?;
    let shown: BTreeSet<_> = context.discover(catalog.clone()).await?.into_iter().map(|product| product.key).collect();
    let mut hidden = BTreeSet::new();
    for product in catalog.iter().filter(|product| !shown.contains(&product.key)) {
        hidden.insert(database_name(&product.key, &options.prefix)?);
    }
    let selected = selected(context, products, &options.prefix).await?;
    let covers =
        |name: &String| !hidden.contains(name) && selected.as_ref().is_none_or(|selected| selected.contains(name));
    let mut desired = options.desired(root, &mesh_id(context).await?, &catalog)?;
    desired.databases.retain(|name, _| covers(name));
    let target = options.open(root).await?;
    let mut state = provision::describe(target.as_ref(), &desired, Retry::default(), &TokioTimer).await?;
    state.databases.retain(|name, _| covers(name));
    Ok(provision::plan(&desired, &state, prune))
}

async fn destroy(context: &Context, root: &Path, options: &DestroyArguments) -> Result<u8> {
    let mesh = mesh_id(context).await?;
    let prefix = &options.target.prefix;
    let target = options.target.open(root).await?;
    let nothing = Desired { mesh: mesh.clone(), databases: BTreeMap::new() };
    let mut state = provision::describe(target.as_ref(), &nothing, Retry::default(), &TokioTimer).await?;
    let only = match selected(context, &options.products, prefix).await? {
        None if prefix.is_empty() => None,
        None => Some(state.databases.keys().filter(|name| name.starts_with(prefix.as_str())).cloned().collect()),
        names => names,
    };
    state.databases.retain(|name, _| only.as_ref().is_none_or(|only: &BTreeSet<String>| only.contains(name)));
    let plan = provision::plan(&nothing, &state, true);
    if !options.yes && !plan.changes.is_empty() {
        confirm(&plan.changes, options.target.target)?;
    }
    let how = ApplyOptions { prune: true, ..ApplyOptions::default() };
    let applied = provision::destroy(target.as_ref(), &mesh, only.as_ref(), &how, &TokioTimer).await?;
    tell_applied(&applied, options.target.target, options.format)
}

/// Asks on the terminal whether things shall be removed.
fn confirm(changes: &[Change], target: TargetKind) -> Result<()> {
    if !crate::caller::stderr_is_terminal() || !std::io::stdin().is_terminal() {
        let message = format!("{} removals from `{}` are not confirmed", changes.len(), target.as_str());
        return Err(Error::new(ErrorCode::InvalidArgument, message).with_help("`--yes` removes without asking"));
    }
    let mut text: String = changes.iter().map(|change| lines(&change.to_string())).collect();
    text.push_str(&format!("remove this from `{}`? Files of tables stay. [y/N] ", target.as_str()));
    let mut answer = String::new();
    let asked = std::io::stderr().write_all(text.as_bytes()).and_then(|()| std::io::stdin().read_line(&mut answer));
    asked.map_err(|error| Error::new(ErrorCode::Internal, format!("cannot ask: {error}")))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Interrupted, "nothing was removed"))
}

/// Text of others, line by line.
fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", output::printable(line))).collect()
}

fn tell_plan(plan: &Plan, target: TargetKind, format: ReportFormat) -> Result<()> {
    if format == ReportFormat::Json {
        return output::print_json(&json!({ "target": target.as_str(), "differs": !plan.is_empty(), "plan": plan }));
    }
    let mut text: String = plan.changes.iter().map(|change| lines(&change.to_string())).collect();
    for refusal in &plan.refusals {
        text.push_str(&lines(&format!("! {} {}", refusal.object, refusal.why)));
    }
    for object in &plan.leftovers {
        text.push_str(&lines(&format!("? {object} is asked for by no contract any more; `--prune` removes it")));
    }
    if plan.is_empty() {
        text.push_str(&format!("`{}` is as the contracts say\n", target.as_str()));
    }
    output::print(&text);
    Ok(())
}

fn tell_applied(applied: &Applied, target: TargetKind, format: ReportFormat) -> Result<u8> {
    let failed = applied.check();
    match format {
        ReportFormat::Json => output::print_json(&json!({ "target": target.as_str(), "applied": applied }))?,
        ReportFormat::Text => {
            let mut text: String = applied.done.iter().map(|change| lines(&change.to_string())).collect();
            if applied.done.is_empty() && failed.is_ok() {
                text.push_str(&format!("nothing to do in `{}`\n", target.as_str()));
            }
            output::print(&text);
        }
    }
    let Err(error) = failed else { return Ok(0) };
    if format == ReportFormat::Text {
        output::print_error(&error, false);
    }
    Ok(error.code().exit_code())
}

/// The folder of a target's cursor: another place, another cursor.
fn cursors(root: &Path, mesh: &str, options: &TargetArguments) -> Result<FileCursors> {
    let variables = ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_GLUE"]
        .map(|name| {
            let glue = options.target == TargetKind::Glue;
            std::env::var_os(name).filter(|_| glue).map(|value| value.to_string_lossy().into_owned())
        });
    let place = json!({
        "mesh": mesh,
        "prefix": options.prefix,
        "catalogId": options.catalog_id,
        "region": options.region,
        "dir": options.folder(root)?.display().to_string(),
        "environment": variables,
    });
    let digest: String = sha256(place.to_string().as_bytes()).chars().take(12).collect();
    let name = format!("{}-{digest}", options.target.as_str());
    Ok(FileCursors::new(root.join(".datamesh").join("outbox").join(name)))
}

pub(crate) async fn outbox(arguments: OutboxArguments, told: Option<&Path>) -> Result<u8> {
    let mut stop = pin!(interrupted()?);
    let OutboxCommand::Run(options) = arguments.command;
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let pause = match &options.every {
        None => None,
        Some(text) => {
            let wrong = |why: String| Error::new(ErrorCode::InvalidArgument, format!("--every: {why}"));
            let now = context.clock.now();
            let pause = now - Period::parse(text).map_err(wrong)?.before(now);
            let pause = pause.to_std().ok().filter(|pause| !pause.is_zero());
            Some(pause.ok_or_else(|| wrong(format!("`{text}` is no time to wait")))?)
        }
    };
    let details = json!({ "operation": "outbox run", "target": options.target.target.as_str() });
    context.authorize_mesh(Action::Administer, details).await?;
    let target = options.target.open(&root).await?;
    let mesh = mesh_id(&context).await?;
    let cursors = cursors(&root, &mesh, &options.target)?;
    let mut first = true;
    loop {
        let round = deliver(&context, &root, &mesh, target.as_ref(), &cursors, &options.target);
        let delivered = tokio::select! {
            biased;
            // What was begun is delivered again by the next run, which does no harm.
            () = &mut stop => return stopped(pause.is_some()),
            delivered = round => delivered,
        };
        match (delivered, pause) {
            (Ok(delivered), _) => tell_delivered(&delivered, &options)?,
            // Once it has worked, what may pass is waited for.
            (Err(error), Some(_))
                if !first && (error.code().is_retryable() || error.code() == ErrorCode::WriteFailed) =>
            {
                output::print_error(&error, false);
            }
            (Err(error), _) => return Err(error),
        }
        let Some(pause) = pause else { return Ok(0) };
        first = false;
        tokio::select! {
            biased;
            () = &mut stop => return stopped(true),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn stopped(endless: bool) -> Result<u8> {
    if endless { Ok(0) } else { Err(Error::new(ErrorCode::Interrupted, "stopped; the next run delivers the rest")) }
}

async fn deliver(
    context: &Context,
    root: &Path,
    mesh: &str,
    target: &dyn Target,
    cursors: &FileCursors,
    options: &TargetArguments,
) -> Result<Delivered> {
    let catalog = context.registry.catalog().await?;
    let desired = options.desired(root, mesh, &catalog)?;
    let how = ApplyOptions::default();
    outbox::run(&PointerOutbox(&catalog), cursors, target, &desired, &options.prefix, &how, &TokioTimer).await
}

fn tell_delivered(delivered: &Delivered, options: &OutboxRunArguments) -> Result<()> {
    let idle = delivered.from == delivered.to;
    if options.every.is_some() && idle {
        return Ok(());
    }
    if options.format == ReportFormat::Json {
        if options.every.is_none() {
            return output::print_json(delivered);
        }
        let line = serde_json::to_string(delivered)
            .map_err(|error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error))?;
        output::print(&format!("{line}\n"));
        return Ok(());
    }
    let mut text: String = delivered.made.iter().map(|change| lines(&change.to_string())).collect();
    for (word, tables) in
        [("moved", &delivered.moved), ("current", &delivered.current), ("dropped", &delivered.dropped)]
    {
        text.extend(tables.iter().map(|table| lines(&format!("{word} {table}"))));
    }
    let target = options.target.target.as_str();
    if idle {
        text.push_str(&format!("nothing new for `{target}`\n"));
    } else {
        text.push_str(&format!("`{target}` follows up to publication {}\n", delivered.to));
    }
    output::print(&text);
    Ok(())
}
