//! One function a command.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use datamesh_app::Progress;
use datamesh_app::ports::{BoundDatabase, BoundIceberg, BoundSource, Context, GivenTable, QueryRequest, StageInput};
use datamesh_app::publish::{PublishReport, PublishRequest, PublishStatus, publish};
use datamesh_app::read::{self, Facts, QuarantineRequest, find_product, serving};
use datamesh_core::contract::{CsvOptions, DataProduct, FileSource, SourceFormat, SourceSpec};
use datamesh_core::decision::Action;
use datamesh_core::ownership::owner_of;
use datamesh_core::ports::{CatalogProduct, Publication, PublicationStatus, QuarantineResolution};
use datamesh_core::secret::escape;
use datamesh_core::{Column, Error, ErrorCode, Result, Table};
use datamesh_iceberg::storage::is_url;
use datamesh_manifest::{LoadedProduct, load_mesh, load_product, mesh::find, schema};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{
    Cli, Command, InputFormat, PublicationsArguments, PublishArguments, QuarantineArguments, QuarantineCommand,
    QueryArguments, ReportFormat, RowFormat, SchemaDocument, ShowArguments,
};
use crate::observer::Observer;
use crate::output::{self, grouped};
use crate::{EXIT_REJECTED, caller, check, domains, explain, home, init, lineage, new, profile, run, test};

/// Runs a command for the caller in scope; the exit code tells answers apart.
///
/// # Errors
/// Where the command did not do what it was told.
pub async fn dispatch(cli: Cli) -> Result<u8> {
    let told = cli.mesh.as_deref();
    match cli.command {
        Command::Check(arguments) => check::run(&arguments, told).await,
        Command::Diff(arguments) => crate::diff::run(&arguments, told).await,
        Command::Init(arguments) => init::run(&arguments, told),
        Command::New(arguments) => new::run(arguments, told, cli.memory, interrupted()?).await,
        Command::Explain(arguments) => explain::run(arguments, told, cli.memory, interrupted()?).await,
        Command::Profile(arguments) => profile::run(arguments, told, cli.memory, interrupted()?).await,
        Command::Domains(arguments) => domains::run(arguments, told).await,
        Command::Import(arguments) => crate::import::run(&arguments),
        Command::Export(arguments) => crate::export::run(&arguments, told).await,
        Command::Schema { document, tests } => {
            let schema = match document {
                _ if tests => schema::tests_schema(),
                SchemaDocument::Product => schema::manifest_schema(),
                SchemaDocument::Tests => schema::tests_schema(),
                SchemaDocument::Domain => schema::domain_schema(),
                SchemaDocument::Mesh => schema::mesh_schema(),
                SchemaDocument::Waivers => schema::waivers_schema(),
                SchemaDocument::PolicyTests => schema::policy_tests_schema(),
            };
            output::print_json(&schema)?;
            Ok(0)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "datamesh", &mut crate::caller::out());
            Ok(0)
        }
        Command::Run(arguments) => run::run(arguments, told, cli.memory).await,
        Command::Test(arguments) => test::run(&arguments, told, cli.memory).await,
        Command::Plan(arguments) => crate::plan::run(&arguments, told, cli.memory).await,
        Command::Apply(arguments) => crate::apply::run(&arguments, told, cli.memory).await,
        Command::Publish(arguments) => run_publish(arguments, told, cli.memory).await,
        Command::Query(arguments) => run_query(arguments, told, cli.memory).await,
        Command::Show(arguments) => run_show(arguments, told).await,
        Command::Rollback(arguments) => crate::rollback::run(arguments, told, cli.memory).await,
        Command::Publications(arguments) => run_publications(arguments, told).await,
        Command::Quarantine(arguments) => match arguments.command {
            Some(QuarantineCommand::Retry(arguments)) => crate::retry::run(arguments, told, cli.memory).await,
            None => run_quarantine(arguments, told, cli.memory).await,
        },
        Command::Lineage(arguments) => lineage::run(arguments, told, cli.memory).await,
        Command::Maintain(arguments) => crate::maintain::run(arguments, told, cli.memory).await,
        Command::Policy(arguments) => crate::policy::run(arguments, told, cli.memory).await,
        Command::Access(arguments) => crate::access::run(arguments, told).await,
        Command::Audit(arguments) => crate::audit::run(arguments, told).await,
        Command::Receipt(arguments) => crate::receipt::run(&arguments, told).await,
        Command::Verify(arguments) => crate::receipt::verify(&arguments, told),
        Command::Provision(arguments) => crate::provision::run(arguments, told).await,
        Command::Outbox(arguments) => crate::outbox::run(arguments, told).await,
    }
}

/// The product that `wanted` means, from the mesh's manifests.
pub(crate) fn find_manifest(root: &Path, wanted: &str) -> Result<LoadedProduct> {
    let path = Path::new(wanted);
    let by_path = path.is_file() || path.join("product.yaml").is_file();
    let mesh = if by_path { load_product(path)? } else { load_mesh(root)? };
    let found =
        if by_path { mesh.products.first().cloned().ok_or(()) } else { find(&mesh, wanted).cloned().map_err(|_| ()) };
    match found {
        Ok(found) => Ok(found),
        Err(()) if mesh.has_errors() => {
            output::print_problems(&mesh.diagnostics, &mesh.sources);
            Err(Error::new(
                ErrorCode::InvalidManifest,
                format!("`{wanted}` cannot be published: there are manifests with errors"),
            )
            .with_help("mend them; `datamesh check` lists all problems"))
        }
        Err(()) => find(&mesh, wanted).cloned(),
    }
}

/// The product that `wanted` means, from the mesh's manifests; a major version that no manifest has any more, from the
/// registry's applied revision.
///
/// # Errors
/// `not-found`, and manifests with errors.
pub async fn find_maintained(root: &Path, wanted: &str, context: &Context) -> Result<LoadedProduct> {
    let loaded = match find_manifest(root, wanted) {
        Err(error) if error.code() == ErrorCode::NotFound && wanted.contains('@') => error,
        found => return found,
    };
    let Ok(applied) = find_product(context, wanted, None).await else { return Err(loaded) };
    let contract = applied.revision.contract;
    // Its sources are named from where the product's other majors are.
    let path = match find_manifest(root, &contract.id.to_string()) {
        Ok(newest) => newest.path,
        Err(_) => root.join("product.yaml"),
    };
    Ok(LoadedProduct { path, contract })
}

/// The format that a word on the command line means.
pub(crate) fn source_format(format: InputFormat) -> SourceFormat {
    match format {
        InputFormat::Csv => SourceFormat::Csv,
        InputFormat::Ndjson => SourceFormat::Ndjson,
        InputFormat::Json => SourceFormat::Json,
        InputFormat::Parquet => SourceFormat::Parquet,
        InputFormat::Arrow => SourceFormat::Arrow,
        InputFormat::Avro => SourceFormat::Avro,
    }
}

/// The sources that the manifest names.
pub fn manifest_sources(product: &LoadedProduct) -> BTreeMap<String, StageInput> {
    let folder = product.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tables = product.contract.tables.iter();
    tables.filter_map(|table| Some((table.name.to_string(), bind(table.source.as_ref()?, folder)))).collect()
}

pub(crate) fn sources(arguments: &PublishArguments, product: &LoadedProduct) -> Result<BTreeMap<String, StageInput>> {
    if arguments.inputs.is_empty() {
        return Ok(manifest_sources(product));
    }
    let mut sources: BTreeMap<String, BoundSource> = BTreeMap::new();
    let working =
        std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
    for input in &arguments.inputs {
        let Some((name, path)) = input.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty())
        else {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("`{input}` names no table"))
                .with_help("write `TABLE=PATH`"));
        };
        let table = product.contract.table(name);
        let name = table.map_or_else(|| name.to_owned(), |table| table.name.to_string());
        let own = table.and_then(|table| match &table.source {
            Some(SourceSpec::Files(files)) => Some(files),
            _ => None,
        });
        // A query is no part of a web address's file name; an address that ends in `/` or has a pattern is no file.
        let file = if path.starts_with("http") { path.split(['?', '#']).next().unwrap_or(path) } else { path };
        let remote = path.contains("://") && !file.ends_with('/') && !file.contains(['*', '?', '[']);
        let unnamed = path == "-" || ((remote || Path::new(path).is_file()) && SourceFormat::of_name(file).is_none());
        let format = arguments.input_format.map(source_format);
        // The name of a file says its format; where it does not, and for how text is written, the manifest's source counts.
        let format = format.or(own.filter(|_| unnamed).and_then(|own| own.format));
        // The shell has filled in what it knows: here `${` is a part of the name.
        let path = escape(path);
        let spec =
            FileSource { path: path.clone(), format, csv: own.map_or_else(CsvOptions::default, |own| own.csv.clone()) };
        let bound = sources.entry(name).or_insert_with(|| BoundSource {
            spec,
            paths: Vec::new(),
            folder: working.clone(),
            pulled: false,
        });
        bound.paths.push(path);
    }
    Ok(sources.into_iter().map(|(table, source)| (table, StageInput::Source(source))).collect())
}

/// A manifest's source with the folder of the manifest.
fn bind(source: &SourceSpec, folder: &Path) -> StageInput {
    let folder = folder.to_owned();
    match source.clone() {
        SourceSpec::Files(spec) => {
            StageInput::Source(BoundSource { paths: vec![spec.path.clone()], spec, folder, pulled: true })
        }
        SourceSpec::Database(spec) => StageInput::Database(BoundDatabase { spec, folder }),
        SourceSpec::Iceberg(spec) => StageInput::Iceberg(BoundIceberg { spec, folder }),
    }
}

async fn run_publish(arguments: PublishArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let stop = interrupted()?;
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let product = find_maintained(&root, &arguments.product, &context).await?;
    let request = PublishRequest {
        inputs: sources(&arguments, &product)?,
        contract: product.contract,
        again: arguments.again,
        full: arguments.full,
        idempotency_key: arguments.idempotency_key,
        dry_run: arguments.dry_run,
        resolves: Vec::new(),
    };
    let engine = home::governed(&root, memory, &context).await?;
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let report = publish(request, &engine, &context, progress, stop).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&report)?,
        ReportFormat::Text => output::print(&output::publish_text(&report)),
    }
    Ok(exit_code(&report))
}

/// Ends when the caller wants to stop: at the command line at the first Ctrl-C or SIGTERM, where a second Ctrl-C ends the process at once. Listens from the call on, not only
/// from the first poll.
pub(crate) fn interrupted() -> Result<BoxFuture<'static, ()>> {
    if let Some(stop) = caller::current().as_ref().and_then(|caller| caller.stop.as_ref()) {
        return Ok(stop.listen().boxed());
    }
    let listen = |kind| {
        signal(kind).map_err(|error| Error::new(ErrorCode::Internal, format!("cannot listen for signals: {error}")))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let signalled = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            interrupt.recv().await;
            std::process::exit(i32::from(ErrorCode::Interrupted.exit_code()));
        });
    };
    Ok(signalled.boxed())
}

pub(crate) fn exit_code(report: &PublishReport) -> u8 {
    match report.status {
        PublishStatus::Published | PublishStatus::Repeat | PublishStatus::WouldPublish => 0,
        PublishStatus::Rejected | PublishStatus::WouldReject => EXIT_REJECTED,
        PublishStatus::Conflict => ErrorCode::Conflict.exit_code(),
    }
}

async fn run_query(arguments: QueryArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let root = home::find(told)?;
    let mut sql = arguments.sql;
    if sql == "-" {
        sql.clear();
        std::io::stdin()
            .read_to_string(&mut sql)
            .map_err(|error| Error::io(ErrorCode::InvalidQuery, "read", Path::new("standard input"), error))?;
    }
    let format = match (&arguments.out, arguments.format) {
        // A file's name says what it holds, unless the user does.
        (Some(out), RowFormat::Table) => format_of(out),
        (_, format) => format,
    };
    let context = home::context(&root).await?;
    let engine = home::governed(&root, memory, &context).await?;
    let tables = arguments.tables.iter().map(|given| given_table(given)).collect::<Result<_>>()?;
    let request = QueryRequest { sql, as_of: arguments.as_of, tables };
    let rows = read::query(&engine, &context, &request).await?;
    output::write_rows(rows, format, arguments.out.as_deref()).await?;
    Ok(0)
}

/// A table that a query is given as `NAME=METADATA`.
fn given_table(given: &str) -> Result<GivenTable> {
    let wrong = |why: &str| Error::new(ErrorCode::InvalidArgument, format!("`{given}` {why}"));
    let Some((name, location)) = given.split_once('=').filter(|(_, location)| !location.is_empty()) else {
        return Err(wrong("names no table").with_help("write `--table NAME=METADATA`"));
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return Err(wrong("has no name that SQL can use").with_help("use lower-case letters, digits and `_`"));
    }
    let location = if is_url(location) {
        location.to_owned()
    } else {
        let path = std::path::absolute(location)
            .map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new(location), error))?;
        format!("file://{}", path.display())
    };
    Ok(GivenTable { name: name.to_owned(), location })
}

fn format_of(path: &Path) -> RowFormat {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => RowFormat::Csv,
        Some("json") => RowFormat::Json,
        Some("parquet") => RowFormat::Parquet,
        _ => RowFormat::Table,
    }
}

/// A table's name as SQL spells it.
fn sql(table: &str) -> String {
    table.to_ascii_lowercase().replace('-', "_")
}

async fn describe(context: &Context, contract: &DataProduct, operation: &str) -> Result<()> {
    context.authorize_product(Action::Describe, contract, json!({ "operation": operation })).await.map(|_| ())
}

/// Who answers for a table or column, where that is somebody else than for what it stands in.
fn own_owner<'c>(contract: &'c DataProduct, table: &Table, column: Option<&Column>) -> Option<&'c str> {
    let name = table.name.as_str();
    let of = |path: &[String]| owner_of(contract, name, path).map(|owner| owner.team);
    let (own, around) = match column {
        Some(column) => (of(std::slice::from_ref(&column.name)), of(&[])),
        None => (of(&[]), Some(contract.owner.as_str())),
    };
    own.filter(|_| own != around)
}

pub(crate) fn show_json(
    product: &CatalogProduct,
    majors: &[CatalogProduct],
    publications: &[Publication],
    facts: &Facts,
) -> Value {
    let contract = &product.revision.contract;
    let tables = contract.tables.iter().map(|table| {
        let pointer = product.tables.iter().find(|pointer| pointer.table == table.name.sql());
        let told = facts.of(&product.key, &table.name.sql());
        let mut shown = json!({
            "table": table.name,
            "sql_name": format!("{}.{}.{}", product.key.domain, product.key.product, table.name.sql()),
            "description": table.description,
            "write": table.write,
            "rows": pointer.filter(|_| told.counted).map(|pointer| pointer.rows),
            "publication": pointer.map(|pointer| pointer.publication),
            "metadata_location": pointer.filter(|_| told.located).map(|pointer| pointer.metadata_location.clone()),
            "columns": table.columns.iter().map(|column| {
                let mut shown = json!({
                    "name": column.name,
                    "type": column.data_type.to_string(),
                    "description": column.description,
                    "required": column.required,
                    "primary_key": column.primary_key,
                    "protected": column.is_protected() || told.inherited.contains(&column.name),
                });
                if let Some(owner) = own_owner(contract, table, Some(column)) {
                    shown["owner"] = owner.into();
                }
                shown
            }).collect::<Vec<_>>(),
        });
        if let Some(owner) = own_owner(contract, table, None) {
            shown["owner"] = owner.into();
        }
        shown
    });
    json!({
        "product": contract.id.to_string(),
        "version": contract.version.to_string(),
        "major": product.key.major,
        "status": contract.status,
        "end_of_support": contract.end_of_support(),
        "owner": contract.owner,
        "description": contract.description,
        "revision": product.revision.number,
        "applied_at": product.revision.created_at,
        "applied_by": product.revision.created_by,
        "majors": majors.iter().chain([product]).map(|other| json!({
            "version": other.revision.contract.version.to_string(),
            "status": other.revision.contract.status,
            "sql_name": format!("{}.{}", other.key.domain, other.key.namespace()),
        })).collect::<Vec<_>>(),
        "tables": tables.collect::<Vec<_>>(),
        "serving": serving(publications).map(|publication| json!({ "number": publication.number, "at": publication.at, "principal": publication.principal })),
        "last_attempt": publications.first().map(|publication| json!({ "number": publication.number, "status": publication.status, "at": publication.at })),
    })
}

fn show_text(
    product: &CatalogProduct,
    majors: &[CatalogProduct],
    publications: &[Publication],
    facts: &Facts,
) -> String {
    let contract = &product.revision.contract;
    let mut text = format!("{} {}  {}  owner {}\n", contract.id, contract.version, contract.status, contract.owner);
    if let Some(description) = &contract.description {
        text.push_str(&format!("{description}\n"));
    }
    text.push_str(&format!(
        "revision {} of {} by {}\n",
        product.revision.number,
        product.revision.created_at.format("%Y-%m-%d %H:%M:%S UTC"),
        product.revision.created_by
    ));
    if let Some(end) = contract.end_of_support() {
        text.push_str(&format!("supported until {end}\n"));
    }
    for other in majors {
        let version = &other.revision.contract.version;
        let name = format!("{}.{}", other.key.domain, other.key.namespace());
        text.push_str(&format!("beside it: {version} as {name}, {}\n", other.revision.contract.status));
    }
    for table in &contract.tables {
        let name = format!("{}.{}.{}", product.key.domain, product.key.product, table.name.sql());
        let pointer = product.tables.iter().find(|pointer| pointer.table == table.name.sql());
        let told = facts.of(&product.key, &table.name.sql());
        let rows = pointer.map_or_else(
            || "not published".to_owned(),
            |pointer| match told.counted {
                true => format!("{} rows, publication {}", grouped(pointer.rows), pointer.publication),
                false => format!("publication {}", pointer.publication),
            },
        );
        let owner = own_owner(contract, table, None).map_or_else(String::new, |owner| format!("  owner {owner}"));
        text.push_str(&format!("\n{name}  ({rows}){owner}\n"));
        if let Some(description) = &table.description {
            text.push_str(&format!("  {description}\n"));
        }
        let width = table.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        for column in &table.columns {
            let mut marks = Vec::new();
            if column.primary_key {
                marks.push("key");
            } else if column.required {
                marks.push("required");
            }
            if column.is_protected() || told.inherited.contains(&column.name) {
                marks.push("protected");
            }
            let owner = own_owner(contract, table, Some(column)).map(|owner| format!("owner {owner}"));
            marks.extend(owner.as_deref());
            let marks = if marks.is_empty() { String::new() } else { format!("  [{}]", marks.join(", ")) };
            let about = column.description.as_deref().map_or_else(String::new, |about| format!("  {about}"));
            text.push_str(&format!("  {:width$}  {}{marks}{about}\n", column.name, column.data_type));
        }
        if let Some(pointer) = pointer.filter(|_| told.located) {
            text.push_str(&format!("  metadata {}\n", pointer.metadata_location));
        }
    }
    match serving(publications) {
        Some(publication) => text.push_str(&format!(
            "\nserving publication {} of {} by {}\n",
            publication.number,
            publication.at.format("%Y-%m-%d %H:%M:%S UTC"),
            publication.principal
        )),
        None => text.push_str("\nnothing is published yet\n"),
    }
    if let Some(last) = publications.first().filter(|last| last.status == PublicationStatus::Rejected) {
        text.push_str(&format!(
            "the last attempt, {}, was rejected; see `datamesh publications {}`\n",
            last.number, contract.id
        ));
    }
    text
}

/// The other major versions of a product.
pub(crate) async fn majors_beside(context: &Context, product: &CatalogProduct) -> Result<Vec<CatalogProduct>> {
    let mut majors = context.discover(context.registry.catalog().await?).await?;
    majors.retain(|other| {
        (&other.key.domain, &other.key.product) == (&product.key.domain, &product.key.product)
            && other.key.major != product.key.major
    });
    Ok(majors)
}

async fn run_show(arguments: ShowArguments, told: Option<&Path>) -> Result<u8> {
    let root: PathBuf = home::find(told)?;
    let context = home::context(&root).await?;
    let Some(wanted) = &arguments.product else {
        context.authorize_mesh(Action::Describe, json!({ "operation": "show" })).await?;
        let catalog = context.discover(context.registry.catalog().await?).await?;
        let facts = read::facts(&context, &catalog).await?;
        match arguments.format {
            ReportFormat::Json => {
                let products: Vec<Value> = catalog.iter().map(|product| show_json(product, &[], &[], &facts)).collect();
                output::print_json(&products)?;
            }
            ReportFormat::Text if catalog.is_empty() => {
                output::print("nothing is published yet; `datamesh publish PRODUCT` publishes\n")
            }
            ReportFormat::Text => {
                let mut text = String::new();
                for product in &catalog {
                    let contract = &product.revision.contract;
                    text.push_str(&format!(
                        "{} {}  {}  owner {}\n",
                        contract.id, contract.version, contract.status, contract.owner
                    ));
                    for pointer in &product.tables {
                        match facts.of(&product.key, &sql(&pointer.table)).counted {
                            true => text.push_str(&format!("  {}  {} rows\n", pointer.table, grouped(pointer.rows))),
                            false => text.push_str(&format!("  {}\n", pointer.table)),
                        }
                    }
                }
                output::print(&text);
            }
        }
        return Ok(0);
    };
    let product = find_product(&context, wanted, None).await?;
    describe(&context, &product.revision.contract, "show").await?;
    let publications = read::publications(&context, &product.revision.contract, 100).await?;
    let majors = majors_beside(&context, &product).await?;
    let facts = read::facts(&context, std::slice::from_ref(&product)).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&show_json(&product, &majors, &publications, &facts))?,
        ReportFormat::Text => output::print(&show_text(&product, &majors, &publications, &facts)),
    }
    Ok(0)
}

fn totals(report: &Value) -> (u64, u64, u64) {
    let tables = report["tables"].as_array().cloned().unwrap_or_default();
    let sum = |key: &str| tables.iter().filter_map(|table| table[key].as_u64()).sum();
    (sum("in"), sum("published"), sum("quarantined"))
}

async fn run_publications(arguments: PublicationsArguments, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let product = find_product_or_attempt(&context, &root, &arguments.product).await?;
    describe(&context, &product, "publications").await?;
    let publications = read::publications(&context, &product, arguments.limit).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&publications)?,
        ReportFormat::Text => {
            let mut text = String::new();
            for publication in &publications {
                let (rows_in, published, quarantined) = totals(&publication.report);
                let status = match publication.status {
                    PublicationStatus::Published => "published",
                    PublicationStatus::Rejected => "rejected",
                };
                let what = match publication.report["rollbackTo"].as_u64() {
                    None if publication.report["withheld"].as_bool() == Some(true) => "counts are not shown".to_owned(),
                    Some(target) => format!("back to publication {target}"),
                    None => format!(
                        "in {} = published {} + quarantined {}",
                        grouped(rows_in),
                        grouped(published),
                        grouped(quarantined)
                    ),
                };
                text.push_str(&format!(
                    "{:>5}  {status:9}  {}  {}  {}  {what}\n",
                    publication.number,
                    publication.at.format("%Y-%m-%d %H:%M:%S"),
                    publication.version,
                    publication.principal,
                ));
                for because in publication.report["because"].as_array().into_iter().flatten().filter_map(Value::as_str)
                {
                    text.push_str(&format!("       because {because}\n"));
                }
            }
            output::print(if text.is_empty() { "nothing was published yet\n" } else { &text });
        }
    }
    Ok(0)
}

/// The product's contract: as registered, or, where every attempt so far was rejected, from the folder's manifest.
///
/// # Errors
/// `not-found`.
pub async fn find_product_or_attempt(context: &Context, root: &Path, wanted: &str) -> Result<DataProduct> {
    match find_product(context, wanted, None).await {
        Ok(product) => Ok(product.revision.contract),
        Err(error) if error.code() == ErrorCode::NotFound => match find_manifest(root, wanted) {
            Ok(found) if context.may_find(&found.contract).await? => Ok(found.contract),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn run_quarantine(arguments: QuarantineArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let root = home::find(told)?;
    let engine = home::engine(&root, memory)?;
    let context = home::context(&root).await?;
    let contract = find_product_or_attempt(&context, &root, arguments.product.as_deref().unwrap_or_default()).await?;
    let request = QuarantineRequest {
        publication: arguments.publication,
        table: arguments.table.clone(),
        reveal: arguments.reveal,
    };
    let (publication, tables) = read::quarantine(&engine, &context, &contract, &request).await?;
    let settled = context.registry.quarantine_resolutions(&contract.key()).await?;
    if tables.is_empty() {
        if arguments.format == RowFormat::Table {
            output::print(&format!("attempt {} of {} has no quarantined rows\n", publication.number, contract.id));
        } else if arguments.format == RowFormat::Json {
            output::print("[]\n");
        }
        return Ok(0);
    }
    if tables.len() > 1 && (arguments.format != RowFormat::Table || arguments.out.is_some()) {
        let names: Vec<_> = tables.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("several tables have quarantined rows: {}", names.join(", ")),
        )
        .with_help("name one with `--table`"));
    }
    for (name, rows) in tables {
        if arguments.format == RowFormat::Table && arguments.out.is_none() {
            let is_own = |done: &&QuarantineResolution| {
                done.publication == publication.number
                    && contract.table(&done.table).is_some_and(|table| table.name.as_str() == name)
            };
            let settled = settled.iter().find(is_own).map_or_else(String::new, |done| {
                format!(", {} by publication {}", done.how.as_str(), done.resolved_by.unwrap_or_default())
            });
            output::print(&format!("{} attempt {}, table {name}{settled}\n", contract.id, publication.number));
        }
        output::write_rows(rows, arguments.format, arguments.out.as_deref()).await?;
    }
    Ok(0)
}
