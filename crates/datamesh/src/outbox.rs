//! `datamesh outbox`: telling others of each pointer that moved and each product that changed.

use std::path::{Path, PathBuf};
use std::pin::pin;

use async_trait::async_trait;
use clap::{Args, Subcommand};
use datamesh_app::Context;
use datamesh_core::decision::Action;
use datamesh_core::{Error, ErrorCode, Period, Result};
use datamesh_provision::outbox::{Delivered, Follower, Wanted};
use datamesh_provision::provision::{ApplyOptions, Desired, Target, TokioTimer};
use serde_json::json;

use crate::cli::ReportFormat;
use crate::commands::interrupted;
use crate::provision::{TargetArguments, TargetKind, Watched, lines, mesh_id};
use crate::{caller, home, output};

#[derive(Debug, Args)]
pub(crate) struct OutboxArguments {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// Deliver what happened since the last run: publications, rollbacks, maintenance, changed contracts
    #[command(
        after_help = "Examples:\n  datamesh outbox run --target glue --region eu-central-1\n  datamesh outbox run --target glue --every 10s\n  datamesh outbox run --target local --dir /srv/catalog --format json\n\nEach target keeps its place in the registry. A run that is stopped or fails delivers the rest the next time; what is\ndelivered twice does no harm, and a table never goes back to an older state. A new target begins with the tables as they\nare. Only tables that this mesh made, or that its exported Terraform made, are touched; what stands under a name that its\nproduct has left is made under the new one, and then removed."
    )]
    Run(RunArguments),
    /// Show how far each target has come
    #[command(after_help = "Examples:\n  datamesh outbox show\n  datamesh outbox show --format json")]
    Show(ShowArguments),
    /// Forget a target that nobody follows any more; should it come back, it begins with the tables as they are
    #[command(after_help = "Examples:\n  datamesh outbox forget glue:eu-central-1")]
    Forget(ForgetArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Go on until Ctrl-C, looking again after this time: 10s, 5min
    #[arg(long, value_name = "PERIOD")]
    every: Option<String>,
    /// How to print; with --every one line of JSON a delivery
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ForgetArguments {
    /// The target, as `datamesh outbox show` names it
    consumer: String,
}

impl OutboxArguments {
    pub(crate) fn wants_json(&self) -> bool {
        let format = match &self.command {
            OutboxCommand::Run(arguments) => arguments.format,
            OutboxCommand::Show(arguments) => arguments.format,
            OutboxCommand::Forget(_) => return false,
        };
        format == ReportFormat::Json
    }
}

pub(crate) async fn run(arguments: OutboxArguments, told: Option<&Path>) -> Result<u8> {
    match arguments.command {
        OutboxCommand::Run(options) => follow(options, told).await,
        OutboxCommand::Show(options) => show(&options, told).await,
        OutboxCommand::Forget(options) => forget(&options, told).await,
    }
}

/// The name of a target's consumer: another place, another consumer.
fn consumer(target: &dyn Target, options: &TargetArguments) -> String {
    let mut name = format!("{}:{}", target.name(), target.place());
    let variable = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.filter(|_| options.target == TargetKind::Glue)
    };
    let endpoint = variable("AWS_ENDPOINT_URL_GLUE").or_else(|| variable("AWS_ENDPOINT_URL"));
    let parts = [
        ("profile", variable("AWS_PROFILE")),
        ("endpoint", endpoint.map(|url| host(&url).to_owned())),
        ("prefix", Some(options.prefix.clone()).filter(|prefix| !prefix.is_empty())),
    ];
    for (key, value) in parts {
        name.extend(value.map(|value| format!(" {key}={value}")));
    }
    name
}

/// Host and port of a URL, without what may be a secret.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// What should be there, by the registry.
struct Registered<'a> {
    context: &'a Context,
    root: PathBuf,
    mesh: String,
    options: &'a TargetArguments,
}

#[async_trait]
impl Wanted for Registered<'_> {
    async fn desired(&self) -> Result<Desired> {
        let products = self.context.registry.applied_state().await?.products;
        self.options.desired(&self.root, &self.mesh, &products)
    }
}

async fn follow(options: RunArguments, told: Option<&Path>) -> Result<u8> {
    let mut stop = pin!(interrupted()?);
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let pause = match &options.every {
        None => None,
        Some(text) => {
            let wrong = |why: String| {
                Error::new(ErrorCode::InvalidArgument, format!("--every: {why}"))
                    .with_help("write how long to wait, such as `10s` or `5min`")
            };
            let now = context.clock.now();
            let pause = now - Period::parse(text).map_err(wrong)?.before(now);
            let pause = pause.to_std().ok().filter(|pause| !pause.is_zero());
            Some(pause.ok_or_else(|| wrong(format!("`{text}` is no time to wait")))?)
        }
    };
    let details = json!({ "operation": "outbox run", "target": options.target.target.as_str() });
    context.authorize_mesh(Action::Administer, details).await?;
    let target = Watched::new(options.target.open(&root).await?, options.format);
    let consumer = consumer(&target, &options.target);
    let wanted = Registered { mesh: mesh_id(&context).await?, context: &context, root, options: &options.target };
    let mut first = true;
    loop {
        let follower = Follower {
            outbox: &*context.registry,
            consumer: &consumer,
            target: &target,
            wanted: &wanted,
            database_prefix: &options.target.prefix,
            options: ApplyOptions::default(),
            timer: &TokioTimer,
            at: context.clock.now(),
        };
        let delivered = tokio::select! {
            biased;
            // What was begun is delivered again by the next run, which does no harm.
            () = &mut stop => return stopped(pause.is_some()),
            delivered = follower.run() => delivered,
        };
        target.finish();
        match (delivered, pause) {
            (Ok(delivered), _) => tell(&delivered, &options)?,
            // Once it has worked, what may pass is waited for. What is in the way of one table holds up no other.
            (Err(error), Some(_))
                if error.code() == ErrorCode::PlanRefused
                    || !first && (error.code().is_retryable() || error.code() == ErrorCode::WriteFailed) =>
            {
                output::print_error(&error, false);
            }
            (Err(error), _) => return Err(error),
        }
        let Some(pause) = pause else { return Ok(0) };
        first = false;
        tokio::select! {
            biased;
            () = &mut stop => return stopped(true),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn stopped(endless: bool) -> Result<u8> {
    if endless { Ok(0) } else { Err(Error::new(ErrorCode::Interrupted, "stopped; the next run delivers the rest")) }
}

fn tell(delivered: &Delivered, options: &RunArguments) -> Result<()> {
    let idle = delivered.from == delivered.to;
    if options.every.is_some() && idle {
        return Ok(());
    }
    if options.format == ReportFormat::Json {
        if options.every.is_none() {
            return output::print_json(delivered);
        }
        let line = serde_json::to_string(delivered)
            .map_err(|error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error))?;
        output::print(&format!("{line}\n"));
        return Ok(());
    }
    let mut text: String = delivered.made.iter().map(|change| lines(&change.to_string())).collect();
    text.extend(delivered.removed.iter().map(|change| lines(&change.to_string())));
    for (word, tables) in [
        ("moved", &delivered.moved),
        ("current", &delivered.current),
        ("dropped", &delivered.dropped),
        ("missing", &delivered.missing),
    ] {
        text.extend(tables.iter().map(|table| lines(&format!("{word} {table}"))));
    }
    let consumer = &delivered.consumer;
    if idle {
        text.push_str(&lines(&format!("nothing new for `{consumer}`")));
    } else {
        text.push_str(&lines(&format!("`{consumer}` follows up to change {}", delivered.to)));
    }
    output::print(&text);
    Ok(())
}

async fn show(options: &ShowArguments, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "outbox show" })).await?;
    let head = context.registry.outbox_head().await?;
    let consumers = context.registry.consumers().await?;
    if options.format == ReportFormat::Json {
        output::print_json(&json!({ "head": head, "consumers": consumers }))?;
        return Ok(0);
    }
    let mut text = String::new();
    for consumer in &consumers {
        let behind = match head.saturating_sub(consumer.sequence) {
            0 => "current".to_owned(),
            1 => "1 change behind".to_owned(),
            behind => format!("{behind} changes behind"),
        };
        let at = consumer.advanced_at.format("%Y-%m-%dT%H:%M:%SZ");
        text.push_str(&lines(&format!("{}: {behind}, at change {} since {at}", consumer.name, consumer.sequence)));
    }
    text.push_str(&format!("the newest change is {head}\n"));
    output::print(&text);
    Ok(0)
}

async fn forget(options: &ForgetArguments, told: Option<&Path>) -> Result<u8> {
    caller::to_its_end()?;
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    let details = json!({ "operation": "outbox forget", "consumer": options.consumer });
    context.authorize_mesh(Action::Administer, details).await?;
    if context.registry.forget_consumer(&options.consumer).await? {
        output::print(&lines(&format!("`{}` is forgotten", options.consumer)));
        return Ok(0);
    }
    Err(Error::new(ErrorCode::NotFound, format!("`{}` follows nothing here", options.consumer.escape_default()))
        .with_help("`datamesh outbox show` lists who does"))
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn an_endpoint_is_named_without_its_secrets() {
        for (url, named) in [
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://user:word@glue.example.org/path?token=x", "glue.example.org"),
            ("glue.example.org#x", "glue.example.org"),
        ] {
            assert_eq!(host(url), named);
        }
    }
}
