//! `datamesh maintain`.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use datamesh_app::Progress;
use datamesh_app::maintain::{MaintainReport, MaintainRequest, maintain};
use datamesh_app::read::find_product;
use datamesh_core::{Error, ErrorCode, Period, Result};

use crate::cli::{MaintainArguments, ReportFormat};
use crate::commands::interrupted;
use crate::home;
use crate::observer::Observer;
use crate::output::{self, grouped};

pub(crate) async fn run(arguments: MaintainArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let stop = interrupted()?;
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let product = match &arguments.product {
        Some(wanted) => Some(find_product(&context, wanted, None).await?.key),
        None => None,
    };
    let now = Utc::now();
    let age = Period::parse(&arguments.older_than)
        .map_err(|why| Error::new(ErrorCode::InvalidArgument, format!("--older-than: {why}")))?;
    let request = MaintainRequest {
        product,
        compact: !arguments.no_compact,
        expire: !arguments.no_expire,
        delete: !arguments.no_delete,
        target_bytes: arguments.target_size.max(1) << 20,
        age: now - age.before(now),
        dry_run: arguments.dry_run,
    };
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let report = maintain(&request, &home::engine(&root, memory)?, &context, progress, stop).await?;
    match arguments.format {
        ReportFormat::Json => output::print_json(&report)?,
        ReportFormat::Text => output::print(&text(&report)),
    }
    let failed = report.tables.iter().any(|table| table.failed);
    Ok(if failed { ErrorCode::WriteFailed.exit_code() } else { 0 })
}

fn text(report: &MaintainReport) -> String {
    let mut text = String::new();
    for table in &report.tables {
        let mut done = Vec::new();
        if table.compacted_files > 0 {
            let into = if report.dry_run { String::new() } else { format!(" into {}", table.into_files) };
            done.push(format!("{} files merged{into}", grouped(table.compacted_files as u64)));
        }
        if table.expired_snapshots > 0 {
            done.push(format!("{} snapshots expired", grouped(table.expired_snapshots as u64)));
        }
        if table.unreferenced_files > 0 {
            done.push(format!("{} files no longer needed", grouped(table.unreferenced_files as u64)));
        }
        done.extend(table.skipped.iter().map(|why| format!("left as it is: {why}")));
        text.push_str(&format!("{}: {}\n", table.table, done.join(", ")));
    }
    text.push_str(&format!(
        "{} expired attempts, {} files deleted, {} waiting to be old enough\n",
        report.expired_attempts.len(),
        grouped(report.deleted_files),
        grouped(report.waiting_files as u64)
    ));
    if report.dry_run {
        text.push_str("nothing was changed: this was a dry run\n");
    }
    text
}
