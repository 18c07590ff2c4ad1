//! `datamesh audit`: what was decided and read, and whether the log of it is whole.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use datamesh_app::signing::KeyRing;
use datamesh_core::audit::{AuditEntry, AuditKind, AuditQuery, AuditVerification, Checkpoint};
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::cli::ReportFormat;
use crate::{caller, home, output};

/// Exit code of a log or receipt that somebody changed.
pub(crate) const EXIT_TAMPERED: u8 = 21;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    query: QueryOptions,
}

#[derive(Debug, Args)]
struct QueryOptions {
    /// Only what this principal did: user:NAME, service:NAME, team:NAME
    #[arg(long)]
    principal: Option<String>,
    /// Only this action: discover, describe, read, readUnmasked, publish, apply, deprecate, approve, administer
    #[arg(long, value_parser = action)]
    action: Option<Action>,
    /// Only entries of this kind: decision, read, publication, apply, access-requested, …
    #[arg(long, value_parser = kind)]
    kind: Option<AuditKind>,
    /// Only what is about this resource, or lies below it: domain/product, domain.product_v1.table
    #[arg(long)]
    resource: Option<String>,
    /// Only this answer: allow or deny
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Only from this time on (UTC)
    #[arg(long, value_name = "TIME", value_parser = crate::cli::parse_time)]
    since: Option<DateTime<Utc>>,
    /// Only before this time (UTC)
    #[arg(long, value_name = "TIME", value_parser = crate::cli::parse_time)]
    until: Option<DateTime<Utc>>,
    /// Only entries before this one
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// How many, newest first
    #[arg(long, default_value_t = 50)]
    limit: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the whole log: any edit, deletion or change of order is found, and named
    #[command(
        after_help = "Examples:\n  datamesh audit verify\n  datamesh audit verify --checkpoint monday.checkpoint\n\nEach entry carries the hash of the one before; signed checkpoints cover them. A checkpoint that was kept elsewhere also\nproves that nothing is missing at the end. The exit code is 21 where something was changed."
    )]
    Verify(VerifyArguments),
    /// Sign what the log holds now, and print or write the checkpoint, to be kept elsewhere
    #[command(after_help = "Example:\n  datamesh audit checkpoint --out monday.checkpoint")]
    Checkpoint(CheckpointArguments),
    /// Print the mesh's public key, by which receipts and checkpoints are verified
    #[command(after_help = "Example:\n  datamesh audit key > mesh.pub")]
    Key,
}

impl AuditArguments {
    pub(crate) fn wants_json(&self) -> bool {
        let format = match &self.command {
            Some(AuditCommand::Verify(arguments)) => arguments.format,
            Some(AuditCommand::Checkpoint(_) | AuditCommand::Key) => return false,
            None => self.query.format,
        };
        format == ReportFormat::Json
    }
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// A checkpoint that was kept elsewhere
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The public key, as text or a file (default: the mesh's own)
    #[arg(long)]
    key: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct CheckpointArguments {
    /// Write to a file
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn action(text: &str) -> Result<Action, String> {
    let words: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    let found = Action::ALL.into_iter().find(|action| action.as_str() == text);
    found.ok_or_else(|| format!("there are {}", words.join(", ")))
}

fn kind(text: &str) -> Result<AuditKind, String> {
    let words: Vec<&str> = AuditKind::ALL.iter().map(|kind| kind.as_str()).collect();
    AuditKind::parse(text).ok_or_else(|| format!("there are {}", words.join(", ")))
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let found = [Outcome::Allow, Outcome::Deny].into_iter().find(|outcome| outcome.as_str() == text);
    found.ok_or_else(|| "it is `allow` or `deny`".to_owned())
}

/// A file's text.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::io(ErrorCode::NotFound, "read", path, error))
}

/// Public keys: as text, or a file that holds them, one a line; without either the mesh's own.
pub(crate) fn public_keys(told: Option<&str>, root: Option<&Path>) -> Result<KeyRing> {
    let refused = |error: Error| {
        Error::new(ErrorCode::InvalidArgument, format!("the key cannot be used: {error}"))
            .with_help("`datamesh audit key` prints a mesh's public key, `ed25519:…`")
    };
    match (told, root) {
        (Some(text), _) if text.starts_with("ed25519:") => KeyRing::parse(text).map_err(refused),
        (Some(file), _) => KeyRing::parse(&read(Path::new(file))?).map_err(refused),
        (None, Some(root)) => Ok(KeyRing(vec![home::signing_key(root)?.public().clone()])),
        (None, None) => KeyRing::parse("").map_err(refused),
    }
}

pub(crate) async fn run(arguments: AuditArguments, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    if let Some(AuditCommand::Key) = arguments.command {
        output::print(&format!("{}\n", home::signing_key(&root)?.public()));
        return Ok(0);
    }
    if let Some(AuditCommand::Checkpoint(_)) = arguments.command {
        caller::to_its_end()?;
    }
    let context = home::context(&root).await?;
    let details = |operation: &str| json!({ "operation": operation });
    match arguments.command {
        Some(AuditCommand::Key) => Ok(0),
        Some(AuditCommand::Verify(options)) => {
            context.authorize_mesh(Action::Describe, details("audit verify")).await?;
            let keys = public_keys(options.key.as_deref(), Some(&root))?;
            let anchor = match &options.checkpoint {
                None => None,
                Some(path) => Some(Checkpoint::parse(&read(path)?).map_err(|why| {
                    Error::new(ErrorCode::InvalidArgument, format!("`{}` is no checkpoint: {why}", path.display()))
                        .with_help("`datamesh audit checkpoint --out FILE` writes one")
                })?),
            };
            let found = context.registry.verify_audit(&keys, anchor.as_ref()).await?;
            match options.format {
                ReportFormat::Json => output::print_json(&found)?,
                ReportFormat::Text => output::print(&verification_text(&found)),
            }
            Ok(if found.is_sound() { 0 } else { EXIT_TAMPERED })
        }
        Some(AuditCommand::Checkpoint(options)) => {
            context.authorize_mesh(Action::Administer, details("audit checkpoint")).await?;
            let checkpoint = context.registry.checkpoint(context.clock.now()).await?;
            match &options.out {
                None => output::print(&checkpoint.to_text()?),
                Some(out) => {
                    std::fs::write(out, checkpoint.to_text()?)
                        .map_err(|error| Error::io(ErrorCode::WriteFailed, "write", out, error))?;
                }
            }
            Ok(0)
        }
        None => {
            let options = arguments.query;
            context.authorize_mesh(Action::Administer, details("audit")).await?;
            let query = AuditQuery {
                principal: options.principal,
                action: options.action.map(|action| action.as_str().to_owned()),
                kind: options.kind,
                resource: options.resource,
                outcome: options.outcome.map(|outcome| outcome.as_str().to_owned()),
                since: options.since,
                until: options.until,
                before: options.before,
                limit: Some(options.limit),
            };
            let entries = context.registry.audit_entries(&query).await?;
            match options.format {
                ReportFormat::Json => output::print_json(&entries)?,
                ReportFormat::Text if entries.is_empty() => output::print("there is no such entry\n"),
                ReportFormat::Text => output::print(&entries.iter().map(entry_text).collect::<String>()),
            }
            Ok(0)
        }
    }
}

fn entry_text(entry: &AuditEntry) -> String {
    let mut text = format!(
        "{:>6}  {}  {}",
        entry.sequence,
        entry.at.format("%Y-%m-%d %H:%M:%S"),
        output::printable(&entry.principal)
    );
    if let Some(by) = &entry.impersonated_by {
        text.push_str(&format!(" (by {})", output::printable(by)));
    }
    text.push_str(&format!("  {}", entry.kind.as_str()));
    for word in [&entry.outcome, &entry.action].into_iter().filter(|word| !word.is_empty()) {
        text.push_str(&format!(" {word}"));
    }
    if !entry.resource.is_empty() {
        text.push_str(&format!("  {}", output::printable(&entry.resource)));
    }
    if let Some(rows) = entry.details.get("rows").and_then(serde_json::Value::as_u64) {
        text.push_str(&format!("  {} rows", output::grouped(rows)));
    }
    if let Some(purpose) = &entry.purpose {
        text.push_str(&format!("  for {}", output::printable(purpose)));
    }
    if !entry.policies.is_empty() {
        text.push_str(&format!("  by {}", output::printable(&entry.policies.join(", "))));
    }
    text + "\n"
}

fn verification_text(found: &AuditVerification) -> String {
    let mut text = String::new();
    for flaw in &found.flaws {
        match flaw.sequence {
            Some(sequence) => text.push_str(&format!("entry {sequence}: {}\n", output::printable(&flaw.what))),
            None => text.push_str(&format!("{}\n", output::printable(&flaw.what))),
        }
    }
    let more = found.flaw_count - found.flaws.len() as u64;
    if more > 0 {
        text.push_str(&format!("… and {} more\n", output::grouped(more)));
    }
    let verdict = if found.is_sound() { "the log is whole" } else { "the log was changed" };
    text.push_str(&format!(
        "{verdict}: {} entries, {} signed checkpoints, {} entries after the last one",
        output::grouped(found.entries),
        output::grouped(found.checkpoints),
        output::grouped(found.uncovered),
    ));
    if found.legacy > 0 {
        text.push_str(&format!(", {} from before it was chained", output::grouped(found.legacy)));
    }
    text + "\n"
}
