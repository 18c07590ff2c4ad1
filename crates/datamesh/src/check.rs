//! `datamesh check`: every problem of the manifests, and of the SQL in them.

use std::path::{Path, PathBuf};

use datamesh_core::decision::Action;
use datamesh_core::quality::Metric;
use datamesh_core::transform::{ProductInput, TableRead};
use datamesh_core::{DataProduct, Diagnostic, Error, ErrorCode, Level, Location, Result, Table};
use datamesh_engine::{DataEngine, ProblemPlace, TransformProblem};
use datamesh_manifest::domain::domain_problems;
use datamesh_manifest::inputs::{SqlText, check_inputs, locate_column, locate_input};
use datamesh_manifest::transform_tests::load_tests;
use datamesh_manifest::{LoadedProduct, Mesh, load_mesh, load_product, mesh::locate};
use serde_json::json;

use crate::cli::CheckArguments;
use crate::findings::{Finding, FindingsFormat, to_github, to_sarif};
use crate::{home, output};

/// Loads what `path` names: a mesh, a product's folder, or a manifest.
fn load(path: Option<&Path>, told: Option<&Path>) -> Result<Mesh> {
    let Some(path) = path else {
        return load_mesh(&relative(&home::find(told)?));
    };
    if !path.exists() {
        return Err(Error::new(ErrorCode::NotFound, format!("there is no `{}`", path.display()))
            .with_help("name a mesh directory, a product's folder or a manifest"));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if path.is_dir() && path.join("mesh.yaml").is_file() {
        load_mesh(path)
    } else if name == "mesh.yaml" {
        load_mesh(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    } else if path.is_dir() && !path.join("product.yaml").is_file() {
        Err(Error::new(ErrorCode::NotFound, format!("`{}` has neither a mesh.yaml nor a product.yaml", path.display()))
            .with_help("name a mesh directory, a product's folder or a manifest"))
    } else {
        load_product(path)
    }
}

/// The shorter way to name a folder from here.
fn relative(root: &Path) -> PathBuf {
    let working = std::env::current_dir().and_then(|working| working.canonicalize());
    match working.ok().and_then(|working| root.strip_prefix(working).ok().map(Path::to_owned)) {
        Some(short) if short.as_os_str().is_empty() => PathBuf::from("."),
        Some(short) => short,
        None => root.to_owned(),
    }
}

/// Adds what only the engine can tell: conditions that are no SQL, or name columns that are not there.
fn check_sql(mesh: &mut Mesh) -> Result<()> {
    let has_sql = |table: &Table| {
        !table.conditions.is_empty()
            || table.delete_when.is_some()
            || table
                .metrics
                .iter()
                .any(|rule| rule.filter.is_some() || matches!(rule.metric, Metric::FailedRows { .. }))
            || table.references.iter().any(|reference| reference.filter.is_some())
            || table.columns.iter().any(|column| column.constraints.complete_if.is_some())
    };
    let any = mesh.products.iter().any(|product| product.contract.tables.iter().any(has_sql));
    if !any {
        return Ok(());
    }
    let engine: DataEngine = home::engine_without_tables()?;
    let mut found = Vec::new();
    for product in &mesh.products {
        for table in &product.contract.tables {
            for problem in engine.check_conditions(table) {
                let (location, source) = locate(&product.path, &problem.text)?;
                let message = format!("{} of table `{}`: {}", problem.place, table.name, problem.why);
                let help = "write an SQL condition over the table's columns; names with capitals need double quotes"
                    .to_owned();
                found.push((
                    Diagnostic { id: "invalid-condition", level: Level::Error, message, help: Some(help), location },
                    source,
                ));
            }
        }
    }
    for (diagnostic, source) in found {
        mesh.sources.insert(diagnostic.location.file.clone(), source);
        mesh.diagnostics.push(diagnostic);
    }
    Ok(())
}

/// Checks policies against the schema of the mesh's own model.
fn check_policies(mesh: &mut Mesh) {
    let governance = mesh.governance();
    let domains: Vec<_> = mesh.domains.iter().map(|(_, domain)| domain.clone()).collect();
    let Err(problems) = datamesh_policy::Policies::compile(&governance, &domains) else { return };
    for problem in problems {
        // What mesh.yaml has wrong was told where it stands.
        let Some(file) = governance.policies.iter().find(|file| file.path == problem.location.file) else { continue };
        mesh.report(problem.diagnostic(), file.text.clone());
    }
}

/// Checks inputs, transforms and their tests: against the mesh's manifests, and the registry's contracts where those do not
/// know a product.
async fn check_transforms(mesh: &mut Mesh, whole: bool, told: Option<&Path>) -> Result<()> {
    if mesh.products.iter().all(|product| product.contract.inputs.is_empty() && !has_transforms(product)) {
        return Ok(());
    }
    let known = known_contracts(mesh, told).await?;
    check_inputs(mesh, &known, whole)?;
    let engine: DataEngine = home::engine_without_tables()?;
    let mut found = Vec::new();
    for product in &mesh.products {
        let contracts: Vec<&DataProduct> = mesh.products.iter().map(|other| &other.contract).chain(&known).collect();
        let mut read: Vec<TableRead> = Vec::new();
        let mut all_read = has_transforms(product);
        for table in product.contract.tables.iter().filter(|table| table.transform.is_some()) {
            let (problems, reads) = engine.check_transform(&product.contract, table, &contracts).await;
            // What a text without a query would read cannot be told.
            all_read &= !problems.iter().any(|problem| problem.id == "invalid-transform") || !reads.is_empty();
            read.extend(reads);
            for problem in problems {
                found.push(locate_problem(product, table, problem)?);
            }
        }
        let unread = |input: &&ProductInput| !read.iter().any(|read| input.is_named(&read.domain, &read.product));
        for input in product.contract.inputs.iter().filter(|_| all_read).filter(unread) {
            let (location, source) = locate_input(&product.path, input)?;
            let message = format!("no transform reads `{}`", input.product);
            let help = Some("take it out, or read it".to_owned());
            found.push((Diagnostic { id: "unused-input", level: Level::Warning, message, help, location }, source));
        }
    }
    for (diagnostic, source) in found {
        mesh.report(diagnostic, source);
    }
    for product in mesh.products.clone() {
        load_tests(mesh, &product)?;
    }
    Ok(())
}

fn has_transforms(product: &LoadedProduct) -> bool {
    product.contract.tables.iter().any(|table| table.transform.is_some())
}

/// The registry's contracts, where there is a registry and an input that no manifest satisfies.
async fn known_contracts(mesh: &Mesh, told: Option<&Path>) -> Result<Vec<DataProduct>> {
    let own = || mesh.products.iter().map(|product| &product.contract);
    if own().flat_map(|contract| &contract.inputs).all(|input| input.choose(own()).is_some()) {
        return Ok(Vec::new());
    }
    registered_contracts(told).await
}

/// The registry's contracts, where there is a registry.
async fn registered_contracts(told: Option<&Path>) -> Result<Vec<DataProduct>> {
    let Ok(root) = home::find(told) else { return Ok(Vec::new()) };
    if !crate::registry::location(&root)?.has_registry().await? {
        return Ok(Vec::new());
    }
    let context = home::context(&root).await?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "check" })).await?;
    let catalog = context.registry.catalog().await?;
    Ok(catalog.into_iter().map(|product| product.revision.contract).collect())
}

/// Checks domains, teams and owners; what no manifest satisfies may be in the registry.
async fn check_language(mesh: &mut Mesh, told: Option<&Path>) -> Result<()> {
    let mut found = domain_problems(mesh, &[])?;
    if found.iter().any(|(diagnostic, _)| diagnostic.is_error()) {
        found = domain_problems(mesh, &registered_contracts(told).await?)?;
    }
    for (diagnostic, source) in found {
        mesh.report(diagnostic, source);
    }
    Ok(())
}

fn locate_problem(product: &LoadedProduct, table: &Table, problem: TransformProblem) -> Result<(Diagnostic, String)> {
    let sql = table.transform.as_ref().map_or("", |transform| &transform.sql);
    let (location, source) = match problem.place {
        ProblemPlace::Column(column) => locate_column(&product.path, table.name.as_str(), &column)?,
        ProblemPlace::Query(place) => {
            let text = SqlText::of(product, table.name.as_str())?;
            (text.locate(sql, place), text.source)
        }
    };
    let message = format!("table `{}`: {}", table.name, problem.message);
    Ok((Diagnostic { id: problem.id, level: problem.level, message, help: problem.help, location }, source))
}

pub(crate) async fn run(arguments: &CheckArguments, told: Option<&Path>) -> Result<u8> {
    let mut mesh = load(arguments.path.as_deref(), told)?;
    check_sql(&mut mesh)?;
    // A mesh has a name; a single product is checked without the others.
    let whole = mesh.name.is_some();
    check_transforms(&mut mesh, whole, told).await?;
    if whole {
        check_language(&mut mesh, told).await?;
        check_policies(&mut mesh);
    }
    mesh.diagnostics.sort_by(|a, b| key(a).cmp(&key(b)));
    let count = |level| mesh.diagnostics.iter().filter(|diagnostic| diagnostic.level == level).count();
    let (errors, warnings, notes) = (count(Level::Error), count(Level::Warning), count(Level::Note));
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let summary = format!(
        "checked {}: {}, {}, {}\n",
        plural(mesh.documents, "document"),
        plural(errors, "error"),
        plural(warnings, "warning"),
        plural(notes, "note")
    );
    match arguments.format {
        FindingsFormat::Json => output::print_json(&json!({
            "documents": mesh.documents,
            "products": mesh.products.iter().map(|product| product.contract.id.to_string()).collect::<Vec<_>>(),
            "errors": errors,
            "warnings": warnings,
            "notes": notes,
            "diagnostics": mesh.diagnostics,
        }))?,
        FindingsFormat::Sarif => {
            let findings: Vec<Finding> = mesh.diagnostics.iter().map(Finding::of).collect();
            output::print_json(&to_sarif(&findings, &mesh.sources)?)?;
        }
        FindingsFormat::Github => {
            // Only a few lines of a change are annotated: what is merely worth knowing is counted.
            let problems = mesh.diagnostics.iter().filter(|diagnostic| diagnostic.level != Level::Note);
            let findings: Vec<Finding> = problems.map(Finding::of).collect();
            output::print(&to_github(&findings, &mesh.sources)?);
            output::print(&summary);
        }
        FindingsFormat::Text => {
            output::print_diagnostics(&mesh.diagnostics, &mesh.sources);
            output::print(&summary);
        }
    }
    Ok(if errors > 0 { ErrorCode::InvalidManifest.exit_code() } else { 0 })
}

fn key(diagnostic: &Diagnostic) -> (&Location, Level, &str) {
    (&diagnostic.location, diagnostic.level, diagnostic.id)
}
