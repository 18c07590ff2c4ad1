//! `datamesh rollback`: what an earlier publication served, again.

use std::path::Path;
use std::sync::Arc;

use datamesh_app::Progress;
use datamesh_app::read::find_product;
use datamesh_app::rollback::{RollbackRequest, rollback};
use datamesh_core::Result;

use crate::cli::{ReportFormat, RollbackArguments};
use crate::commands::{exit_code, interrupted};
use crate::observer::Observer;
use crate::{home, output};

pub(crate) async fn run(arguments: RollbackArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let stop = interrupted()?;
    let root = home::find(told)?;
    let engine = home::engine(&root, memory)?;
    let context = home::context(&root).await?;
    let product = find_product(&context, &arguments.product, None).await?;
    let request = RollbackRequest { product, to: arguments.to, dry_run: arguments.dry_run };
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let report = rollback(request, &engine, &context, progress, stop).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&report)?,
        ReportFormat::Text => output::print(&output::publish_text(&report)),
    }
    Ok(exit_code(&report))
}
