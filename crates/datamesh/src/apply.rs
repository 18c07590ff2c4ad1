//! `datamesh apply`: the registry becomes what manifests or a plan file say.

use std::path::Path;
use std::sync::Arc;

use datamesh_app::Progress;
use datamesh_app::apply::{apply_plan, plan_mesh};
use datamesh_app::plan_file;
use datamesh_core::plan::Planned;
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::cli::{ApplyArguments, ReportFormat};
use crate::commands::interrupted;
use crate::observer::Observer;
use crate::{home, output, plan, plan_text};

/// Bytes that a plan file may have.
const MAX_PLAN: u64 = 1 << 30;

/// Whether a path is a plan: a file that is no manifest.
fn is_plan(path: &Path) -> bool {
    path.is_file() && path.extension().is_none_or(|extension| extension != "yaml" && extension != "yml")
}

fn read(path: &Path) -> Result<String> {
    use std::io::Read;
    let failed = |error| Error::io(ErrorCode::NotFound, "read", path, error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_PLAN).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

pub(crate) async fn run(arguments: &ApplyArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let stop = interrupted()?;
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let folder = plan::scratch()?;
    let scratch = folder.path().to_owned();
    let file = arguments.path.as_deref().filter(|path| is_plan(path));
    let (engine, context, planned) = match file {
        Some(file) => {
            let root = home::find(told)?;
            let (engine, context) = (home::engine(&root, memory)?, home::context(&root).await?);
            let plan = plan_file::read(&read(file)?, &context.registry.mesh_identity().await?)?;
            (engine, context, Planned { plan, refusals: Vec::new(), notes: Vec::new(), unchanged: 0 })
        }
        None => {
            let (root, desired) = plan::load(arguments.path.as_deref(), told)?;
            let (engine, context) = (home::engine(&root, memory)?, home::context(&root).await?);
            let options = plan::options(arguments.planning);
            let planned = plan_mesh(&desired, options, scratch.clone(), &engine, &context, progress.clone()).await?;
            (engine, context, planned)
        }
    };
    let text = arguments.format == ReportFormat::Text;
    if !planned.refusals.is_empty() || arguments.dry_run {
        match arguments.format {
            ReportFormat::Json => output::print_json(&plan::to_json(&planned))?,
            ReportFormat::Text => output::print(&plan_text::planned(&planned)),
        }
        if planned.refusals.is_empty() {
            return Ok(0);
        }
        if text {
            output::print_error(&plan::refused(&planned), false);
        }
        return Ok(ErrorCode::PlanRefused.exit_code());
    }
    let report = apply_plan(planned.plan.clone(), scratch, &engine, &context, progress, stop).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&json!(report))?,
        ReportFormat::Text => output::print(&plan_text::applied(&planned, &report)),
    }
    Ok(0)
}
