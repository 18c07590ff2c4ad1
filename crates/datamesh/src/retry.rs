//! `datamesh quarantine retry`: quarantined rows through the audit again, or mended ones in their place.

use std::path::Path;
use std::sync::Arc;

use datamesh_app::Progress;
use datamesh_app::retry::{RetryRequest, retry};
use datamesh_core::{Error, ErrorCode, Result};

use crate::cli::{ReportFormat, RetryArguments};
use crate::commands::{exit_code, find_maintained, interrupted};
use crate::observer::Observer;
use crate::{home, output};

pub(crate) async fn run(arguments: RetryArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let stop = interrupted()?;
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let product = find_maintained(&root, &arguments.product, &context).await?;
    let working =
        std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
    let request = RetryRequest {
        contract: product.contract,
        publication: arguments.publication,
        table: arguments.table,
        mended: arguments.from.map(|path| (path, working)),
        over_newer: arguments.over_newer,
        dry_run: arguments.dry_run,
    };
    let engine = home::governed(&root, memory, &context).await?;
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let report = retry(request, &engine, &context, progress, stop).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&report)?,
        ReportFormat::Text => output::print(&output::publish_text(&report)),
    }
    Ok(exit_code(&report))
}
