//! `datamesh receipt` and `datamesh verify`: signed evidence of publications.

use std::path::{Path, PathBuf};

use clap::Args;
use datamesh_app::govern::Resource;
use datamesh_app::read::{find_product, publications};
use datamesh_core::decision::Action;
use datamesh_core::ports::Publication;
use datamesh_core::receipt::{self, Receipt};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::audit::{EXIT_TAMPERED, public_keys, read};
use crate::cli::ReportFormat;
use crate::{home, output};

#[derive(Debug, Args)]
pub(crate) struct ReceiptArguments {
    /// domain/product or a product's name; `@1` behind it means its major version 1
    product: String,
    /// The publication (default: the newest attempt)
    #[arg(long, value_name = "NUMBER")]
    publication: Option<u64>,
    /// Write to a file
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The receipt, as `datamesh receipt` wrote it
    receipt: PathBuf,
    /// The mesh's public key, as text or a file (default: that of the mesh around the working folder)
    #[arg(long)]
    key: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

pub(crate) async fn run(arguments: &ReceiptArguments, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let product = find_product(&context, &arguments.product, None).await?;
    let contract = &product.revision.contract;
    context.authorize_product(Action::Describe, contract, json!({ "operation": "receipt" })).await?;
    let attempts = publications(&context, contract, u64::MAX).await?;
    let number = match arguments.publication {
        Some(wanted) if attempts.iter().any(|attempt| attempt.number == wanted) => wanted,
        Some(wanted) => {
            let message = format!("`{}` has no publication {wanted}", contract.id);
            return Err(Error::new(ErrorCode::NotFound, message)
                .with_help(format!("see `datamesh publications {}`", contract.id)));
        }
        None => attempts.first().map(|attempt| attempt.number).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("nothing of `{}` was published yet", contract.id))
        })?,
    };
    // A receipt tells how many rows there are.
    let withheld =
        |attempt: &&Publication| attempt.number == number && attempt.report["withheld"].as_bool() == Some(true);
    if attempts.iter().any(|attempt| withheld(&attempt)) {
        let message = format!("`{}` may not know how many rows `{}` has", context.principal.id, contract.id);
        let help = format!("ask `{}`, who owns it", contract.owner);
        return context.deny(Action::Read, Resource::Product(contract), "rows-not-told", message, help).await;
    }
    let receipt = context.registry.receipt(number).await?.ok_or_else(|| {
        Error::new(ErrorCode::NotFound, format!("publication {number} has no receipt"))
            .with_help("it was made before there were any")
    })?;
    match &arguments.out {
        None => output::print(&receipt),
        Some(out) => {
            std::fs::write(out, &receipt).map_err(|error| Error::io(ErrorCode::WriteFailed, "write", out, error))?
        }
    }
    Ok(0)
}

pub(crate) fn verify(arguments: &VerifyArguments, told: Option<&Path>) -> Result<u8> {
    let root = if arguments.key.is_some() { None } else { Some(home::find(told)?) };
    let keys = public_keys(arguments.key.as_deref(), root.as_deref())?;
    let text = read(&arguments.receipt)?;
    let found = receipt::verify(&text, &keys);
    match (&found, arguments.format) {
        (Ok(receipt), ReportFormat::Json) => output::print_json(&json!({ "valid": true, "receipt": receipt }))?,
        (Err(flaw), ReportFormat::Json) => output::print_json(&json!({ "valid": false, "why": flaw.to_string() }))?,
        (Ok(receipt), ReportFormat::Text) => output::print(&receipt_text(receipt)),
        (Err(flaw), ReportFormat::Text) => {
            output::print(&format!("not valid: {}\n", output::printable(&flaw.to_string())))
        }
    }
    Ok(if found.is_ok() { 0 } else { EXIT_TAMPERED })
}

fn receipt_text(receipt: &Receipt) -> String {
    let mut text = format!(
        "valid: publication {} of {} {} by {}, {}\n",
        receipt.publication,
        output::printable(&receipt.product.to_string()),
        receipt.version,
        output::printable(&receipt.principal),
        receipt.at.format("%Y-%m-%d %H:%M:%S UTC"),
    );
    for table in &receipt.tables {
        text.push_str(&format!(
            "  {}: in {} = published {} + quarantined {}\n",
            output::printable(&table.table),
            output::grouped(table.rows_in),
            output::grouped(table.published),
            output::grouped(table.quarantined),
        ));
    }
    text
}
