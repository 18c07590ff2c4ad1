//! `datamesh provision`: making a catalog what contracts and pointers say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use clap::{Args, Subcommand, ValueEnum};
use datamesh_app::Context;
use datamesh_app::read::find_product;
use datamesh_core::decision::Action;
use datamesh_core::ports::CatalogProduct;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_provision::catalog::database_name;
use datamesh_provision::glue::{GlueOptions, GlueTarget};
use datamesh_provision::local::LocalTarget;
use datamesh_provision::provision::{
    self, Applied, ApplyOptions, Change, Desired, DesiredOptions, FoundDatabase, FoundTable, Plan, Retry, Scope, State,
    Target, TargetError, TokioTimer,
};
use indicatif::ProgressBar;
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
    #[command(
        after_help = "Examples:\n  datamesh provision plan --target glue --region eu-central-1\n  datamesh provision plan --target local weather/observations\n  datamesh provision plan --target glue --prune --format json\n\nThe exit code is 16 where something is in the way that this mesh did not make. Nothing is changed."
    )]
    Plan(ChangeArguments),
    /// Make the catalog what the applied contracts and pointers say
    #[command(
        after_help = "Examples:\n  datamesh provision apply --target glue\n  datamesh provision apply --target glue --catalog-id 123456789012 --prefix lake_\n  datamesh provision apply --target local --dir /srv/catalog weather/observations\n\nApplying twice changes nothing the second time. A run that is stopped or fails is gone on with by the next one."
    )]
    Apply(ChangeArguments),
    /// Show what differs; the exit code is 2 where something does
    #[command(
        after_help = "Examples:\n  datamesh provision drift --target glue || datamesh provision apply --target glue\n  datamesh provision drift --target glue --format json\n\nWhat others wrote beside it (an engine's statistics, a crawler's notes) is no drift."
    )]
    Drift(DriftArguments),
    /// Remove what this mesh made from the catalog; files of tables stay
    #[command(
        after_help = "Examples:\n  datamesh provision destroy --target local\n  datamesh provision destroy --target glue --yes weather/observations\n\nA database that holds somebody else's table stays."
    )]
    Destroy(DestroyArguments),
}

#[derive(Debug, Args)]
pub(crate) struct TargetArguments {
    /// The catalog
    #[arg(long, value_enum)]
    pub(crate) target: TargetKind,
    /// What every database's name begins with
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
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
pub(crate) enum TargetKind {
    /// AWS Glue.
    Glue,
    /// A folder of JSON documents.
    Local,
}

impl TargetKind {
    pub(crate) fn as_str(self) -> &'static str {
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

impl TargetArguments {
    fn folder(&self, root: &Path) -> Result<PathBuf> {
        match &self.dir {
            None => Ok(root.join(".datamesh").join("provision").join("local")),
            Some(dir) => std::path::absolute(dir).map_err(|error| Error::io(ErrorCode::NotFound, "find", dir, error)),
        }
    }

    pub(crate) async fn open(&self, root: &Path) -> Result<Box<dyn Target>> {
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

    pub(crate) fn desired(&self, root: &Path, mesh: &str, catalog: &[CatalogProduct]) -> Result<Desired> {
        let warehouse = Some(home::warehouse(root)?);
        Desired::new(mesh, catalog, &DesiredOptions { database_prefix: self.prefix.clone(), warehouse })
    }
}

pub(crate) async fn mesh_id(context: &Context) -> Result<String> {
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
            let catalog = context.registry.applied_state().await?.products;
            let mut desired = options.target.desired(&root, &mesh_id(&context).await?, &catalog)?;
            if let Some(names) = selected(&context, &options.products, &options.target.prefix).await? {
                desired = desired.only(&names);
            }
            let target = Watched::new(options.target.open(&root).await?, options.format);
            let how = ApplyOptions { prune: options.prune, ..ApplyOptions::default() };
            let applied = unless_stopped(provision::apply(&target, &desired, &how, &TokioTimer)).await?;
            target.finish();
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
    let catalog = context.registry.applied_state().await?.products;
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
    let target = Watched::new(options.target.open(root).await?, options.format);
    let nothing = Desired { mesh: mesh.clone(), databases: BTreeMap::new() };
    let mut state = provision::describe(&target, &nothing, Retry::default(), &TokioTimer).await?;
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
    let applied = unless_stopped(provision::destroy(&target, &mesh, only.as_ref(), &how, &TokioTimer)).await?;
    target.finish();
    tell_applied(&applied, options.target.target, options.format)
}

/// What is done, unless Ctrl-C comes first. A change that was asked for then is found by the next run, done or not.
async fn unless_stopped<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let stop = interrupted()?;
    tokio::select! {
        biased;
        () = stop => Err(Error::new(ErrorCode::Interrupted, "stopped; what was done stays")
            .with_help("run the same command again: it goes on where this one stopped")),
        done = work => done,
    }
}

/// A target whose changes are shown on a terminal while they are carried out.
pub(crate) struct Watched {
    target: Box<dyn Target>,
    bar: ProgressBar,
}

impl Watched {
    pub(crate) fn new(target: Box<dyn Target>, format: ReportFormat) -> Self {
        let show = format == ReportFormat::Text && crate::caller::stderr_is_terminal();
        let bar = if show { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self { target, bar }
    }

    /// Takes the display off the terminal.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[async_trait]
impl Target for Watched {
    fn name(&self) -> &'static str {
        self.target.name()
    }

    fn place(&self) -> String {
        self.target.place()
    }

    async fn describe(&self, scope: &Scope) -> Result<State, TargetError> {
        self.bar.set_message(format!("reading `{}`", self.name()));
        self.target.describe(scope).await
    }

    async fn database(&self, name: &str) -> Result<Option<FoundDatabase>, TargetError> {
        self.target.database(name).await
    }

    async fn table(&self, database: &str, name: &str) -> Result<Option<FoundTable>, TargetError> {
        self.target.table(database, name).await
    }

    async fn execute(&self, change: &Change) -> Result<(), TargetError> {
        self.bar.set_message(format!("{} changes, {}", self.bar.position() + 1, change.object()));
        self.bar.inc(1);
        self.target.execute(change).await
    }
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
pub(crate) fn lines(text: &str) -> String {
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
    for object in &plan.missing {
        text.push_str(&lines(&format!("? {object} is Terraform's to make: export its module again, and apply it")));
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
