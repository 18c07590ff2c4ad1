//! `datamesh plan`: what the manifests would change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datamesh_app::Progress;
use datamesh_app::apply::plan_mesh;
use datamesh_app::plan_file;
use datamesh_core::plan::{Desired, PlanOptions, Planned, Scope};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_manifest::{Mesh, load_domain, load_mesh, load_product};
use serde_json::{Value, json};

use crate::cli::{PlanArguments, PlanningArguments, ReportFormat};
use crate::observer::Observer;
use crate::{EXIT_CHANGES, home, output, plan_text};

/// What `path` names, and the mesh whose registry it is compared with.
pub(crate) fn load(path: Option<&Path>, told: Option<&Path>) -> Result<(PathBuf, Desired)> {
    let (root, mesh, scope) = match path {
        None => {
            let root = home::find(told)?;
            let mesh = load_mesh(&root)?;
            (root, mesh, Scope::Mesh)
        }
        Some(path) if !path.exists() => {
            return Err(Error::new(ErrorCode::NotFound, format!("there is no `{}`", path.display()))
                .with_help("name a mesh directory, a domain's folder or a product's folder"));
        }
        Some(path) if path.join("mesh.yaml").is_file() => {
            let root = home::find(told.or(Some(path)))?;
            (root, load_mesh(path)?, Scope::Mesh)
        }
        Some(path) if path.join("domain.yaml").is_file() => {
            let mesh = load_domain(path)?;
            let name = mesh.domains.first().map(|(_, domain)| domain.name.sql()).unwrap_or_default();
            (home::find_around(path, told)?, mesh, Scope::Domain(name))
        }
        Some(path) => {
            let mesh = load_product(path)?;
            (home::find_around(path, told)?, mesh, Scope::Products)
        }
    };
    if mesh.has_errors() {
        output::print_problems(&mesh.diagnostics, &mesh.sources);
        return Err(Error::new(ErrorCode::InvalidManifest, "nothing is planned: there are manifests with errors")
            .with_help("mend them; `datamesh check` lists all problems"));
    }
    Ok((root, desired(mesh, scope)))
}

fn desired(mesh: Mesh, scope: Scope) -> Desired {
    let governance = (scope != Scope::Products).then(|| mesh.governance());
    let domains = if scope == Scope::Products { Vec::new() } else { mesh.domains };
    Desired {
        governance,
        domains: domains.into_iter().map(|(_, domain)| domain).collect(),
        products: mesh.products.into_iter().map(|product| product.contract).collect(),
        scope,
    }
}

pub(crate) fn options(arguments: PlanningArguments) -> PlanOptions {
    PlanOptions { allow_retire: arguments.allow_retire, acknowledge: arguments.acknowledge }
}

/// A folder for what is judged and thrown away.
pub(crate) fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("datamesh-plan-")
        .tempdir()
        .map_err(|error| Error::io(ErrorCode::WriteFailed, "make a folder in", &std::env::temp_dir(), error))
}

pub(crate) fn to_json(planned: &Planned) -> Value {
    let plan = &planned.plan;
    json!({
        "format": plan.format,
        "mesh": plan.mesh,
        "generation": plan.generation,
        "options": plan.options,
        "changes": !plan.is_empty(),
        "unchanged": planned.unchanged,
        "governance": plan.governance,
        "domains": plan.domains,
        "moves": plan.moves,
        "products": plan.products,
        "refusals": planned.refusals,
        "notes": planned.notes,
    })
}

pub(crate) fn refused(planned: &Planned) -> Error {
    let count = planned.refusals.len();
    let things = if count == 1 { "1 reason".to_owned() } else { format!("{count} reasons") };
    Error::new(ErrorCode::PlanRefused, format!("the plan cannot be applied, for {things}; nothing was changed"))
        .with_help("mend what is named above, and plan again")
}

pub(crate) async fn run(arguments: &PlanArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let (root, desired) = load(arguments.path.as_deref(), told)?;
    let engine = home::engine(&root, memory)?;
    let context = home::context(&root).await?;
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let folder = scratch()?;
    let options = options(arguments.planning);
    let planned = plan_mesh(&desired, options, folder.path().to_owned(), &engine, &context, progress).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&to_json(&planned))?,
        ReportFormat::Text => output::print(&plan_text::planned(&planned)),
    }
    if !planned.refusals.is_empty() {
        if arguments.format == ReportFormat::Text {
            output::print_error(&refused(&planned), false);
        }
        return Ok(ErrorCode::PlanRefused.exit_code());
    }
    if let Some(out) = &arguments.out {
        let text = plan_file::write(&planned.plan, &context.registry.mesh_identity().await?)?;
        std::fs::write(out, text).map_err(|error| Error::io(ErrorCode::WriteFailed, "write", out, error))?;
    }
    Ok(if arguments.detailed_exitcode && !planned.plan.is_empty() { EXIT_CHANGES } else { 0 })
}
