//! `datamesh access`: asking for access, and answering.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Args, Subcommand};
use datamesh_app::access;
use datamesh_app::read::find_product;
use datamesh_core::access::Grant;
use datamesh_core::access_request::{AccessAction, AccessDraft, AccessOutcome, AccessRequest, RequestState};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::cli::ReportFormat;
use crate::{caller, home, output};

#[derive(Debug, Args)]
pub(crate) struct AccessArguments {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Debug, Subcommand)]
enum AccessCommand {
    /// Ask for access to a product's tables, in a role that its contract offers
    #[command(
        after_help = "Examples:\n  datamesh access request customer/customer-360 --role analyst --reason \"churn model\" --purpose churn\n  datamesh access request customer-360.customer_profile --role analyst --reason audit --for 30d\n  datamesh access request customer-360 --role analyst --reason nightly --principal service:etl"
    )]
    Request(RequestArguments),
    /// Approve a request; the last approval that is needed grants it at once
    #[command(after_help = "Example:\n  datamesh access approve 4 --note \"as discussed\"")]
    Approve(ApproveArguments),
    /// Deny a request
    #[command(after_help = "Example:\n  datamesh access deny 4 --reason \"use the aggregated product\"")]
    Deny(DenyArguments),
    /// Take an own request back
    Withdraw(EndArguments),
    /// End a grant at once
    #[command(after_help = "Example:\n  datamesh access revoke 3 --reason \"left the team\"")]
    Revoke(EndArguments),
    /// List requests and grants
    #[command(
        after_help = "Examples:\n  datamesh access list\n  datamesh access list customer-360 --state pending\n  datamesh access list --principal user:alice --format json"
    )]
    List(ListArguments),
    /// Show what a product offers, or a request with its approvals
    #[command(after_help = "Examples:\n  datamesh access show customer/customer-360\n  datamesh access show 4")]
    Show(ShowArguments),
}

#[derive(Debug, Args)]
struct RequestArguments {
    /// domain/product, a product's name or product.table; `@1` behind the product means its major version 1
    resource: String,
    /// The role, one of those that the contract offers
    #[arg(long)]
    role: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// For how long: 30d, 12h (default: as long as the contract allows)
    #[arg(long = "for", value_name = "PERIOD")]
    duration: Option<String>,
    /// Whom it is for, where it is not you: service:NAME or team:NAME
    #[arg(long)]
    principal: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ApproveArguments {
    /// The request's number
    request: u64,
    /// What there is to say
    #[arg(long)]
    note: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct DenyArguments {
    /// The request's number
    request: u64,
    /// Why
    #[arg(long)]
    reason: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct EndArguments {
    /// Its number
    number: u64,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Only of this product
    product: Option<String>,
    /// Only of this principal
    #[arg(long)]
    principal: Option<String>,
    /// Only requests in this state: pending, approved, denied, withdrawn, expired
    #[arg(long, value_parser = state)]
    state: Option<RequestState>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// A product, or a request's number
    what: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

impl AccessArguments {
    pub(crate) fn wants_json(&self) -> bool {
        let format = match &self.command {
            AccessCommand::Request(arguments) => arguments.format,
            AccessCommand::Approve(arguments) => arguments.format,
            AccessCommand::Deny(arguments) => arguments.format,
            AccessCommand::Withdraw(arguments) | AccessCommand::Revoke(arguments) => arguments.format,
            AccessCommand::List(arguments) => arguments.format,
            AccessCommand::Show(arguments) => arguments.format,
        };
        format == ReportFormat::Json
    }
}

fn state(text: &str) -> Result<RequestState, String> {
    let words: Vec<&str> = RequestState::ALL.iter().map(|state| state.as_str()).collect();
    let found = RequestState::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| format!("there are {}", words.join(", ")))
}

pub(crate) async fn run(arguments: AccessArguments, told: Option<&Path>) -> Result<u8> {
    if !matches!(arguments.command, AccessCommand::List(_) | AccessCommand::Show(_)) {
        caller::to_its_end()?;
    }
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    match arguments.command {
        AccessCommand::Request(options) => {
            // `domain/product.table`: a product's name has no dot.
            let (product, table) = match options.resource.split_once('.') {
                Some((product, table)) => (product, Some(table)),
                None => (options.resource.as_str(), None),
            };
            let product = find_product(&context, product, None).await?;
            let contract = &product.revision.contract;
            let tables: BTreeSet<String> = match table {
                None => BTreeSet::new(),
                Some(name) => {
                    let table = contract.table(name).ok_or_else(|| {
                        let names: Vec<String> = contract.tables.iter().map(|table| table.name.to_string()).collect();
                        Error::new(ErrorCode::NotFound, format!("`{}` has no table `{name}`", contract.id))
                            .with_help(format!("it has {}", names.join(", ")))
                    })?;
                    BTreeSet::from([table.name.sql()])
                }
            };
            let draft = AccessDraft {
                principal: options.principal.unwrap_or_else(|| context.principal.id.clone()),
                product: product.key.clone(),
                tables,
                role: options.role,
                purpose: context.purpose.clone(),
                duration: options.duration,
                reason: options.reason,
            };
            tell(&access::act(&context, AccessAction::Request(draft)).await?, options.format)
        }
        AccessCommand::Approve(options) => {
            let action = AccessAction::Approve { request: options.request, note: options.note };
            tell(&access::act(&context, action).await?, options.format)
        }
        AccessCommand::Deny(options) => {
            let action = AccessAction::Deny { request: options.request, reason: options.reason };
            tell(&access::act(&context, action).await?, options.format)
        }
        AccessCommand::Withdraw(options) => {
            let action = AccessAction::Withdraw { request: options.number, reason: options.reason };
            tell(&access::act(&context, action).await?, options.format)
        }
        AccessCommand::Revoke(options) => {
            let action = AccessAction::Revoke { grant: options.number, reason: options.reason };
            tell(&access::act(&context, action).await?, options.format)
        }
        AccessCommand::List(options) => {
            let product = match &options.product {
                Some(wanted) => Some(find_product(&context, wanted, None).await?.key),
                None => None,
            };
            let (requests, grants) = access::list(&context, product, options.principal, options.state).await?;
            match options.format {
                ReportFormat::Json => output::print_json(&json!({ "requests": requests, "grants": grants }))?,
                ReportFormat::Text => {
                    let now = context.clock.now();
                    let mut text = String::new();
                    for request in &requests {
                        text.push_str(&request_line(request, request.state_at(now)));
                    }
                    for grant in &grants {
                        text.push_str(&grant_line(grant, now));
                    }
                    output::print(if text.is_empty() { "there are no requests and no grants\n" } else { &text });
                }
            }
            Ok(0)
        }
        AccessCommand::Show(options) => match options.what.parse::<u64>() {
            Ok(number) => {
                let (request, grant) = access::request(&context, number).await?;
                match options.format {
                    ReportFormat::Json => output::print_json(&json!({ "request": request, "grant": grant }))?,
                    ReportFormat::Text => output::print(&request_text(&request, grant.as_ref(), context.clock.now())),
                }
                Ok(0)
            }
            Err(_) => show_offers(&context, &options).await,
        },
    }
}

async fn show_offers(context: &datamesh_app::Context, options: &ShowArguments) -> Result<u8> {
    let product = find_product(context, &options.what, None).await?;
    let contract = &product.revision.contract;
    let offers = access::offers(context, contract).await?;
    let list = |all: &BTreeSet<String>| Vec::from_iter(all.iter().cloned());
    match options.format {
        ReportFormat::Json => {
            let offers: Vec<Value> = offers
                .iter()
                .map(|offer| {
                    json!({
                        "role": offer.role,
                        "tables": list(&offer.tables),
                        "rows": offer.rows,
                        "columns": offer.columns.as_ref().map(list),
                        "unmasked": list(&offer.unmasked),
                        "approvers": offer.approvers,
                        "approvals": offer.approvals,
                        "expires": offer.expires.map(|expires| expires.to_string()),
                        "purposes": list(&offer.purposes),
                    })
                })
                .collect();
            output::print_json(&json!({ "product": contract.id.to_string(), "offers": offers }))?;
        }
        ReportFormat::Text if offers.is_empty() => output::print(&format!(
            "{} offers no role: whether it is read is for the policies to say (`datamesh policy explain`)\n",
            contract.id
        )),
        ReportFormat::Text => {
            let mut text = format!("{} offers\n", contract.id);
            for offer in &offers {
                text.push_str(&format!("  {}", output::printable(&offer.role)));
                let mut parts = Vec::new();
                if !offer.tables.is_empty() {
                    parts.push(format!("tables {}", list(&offer.tables).join(", ")));
                }
                if let Some(rows) = &offer.rows {
                    parts.push(format!("rows where {rows}"));
                }
                if let Some(columns) = &offer.columns {
                    parts.push(format!("columns {}", list(columns).join(", ")));
                }
                if !offer.unmasked.is_empty() {
                    parts.push(format!("in clear {}", list(&offer.unmasked).join(", ")));
                }
                if !offer.purposes.is_empty() {
                    parts.push(format!("for {}", list(&offer.purposes).join(" or ")));
                }
                if let Some(expires) = offer.expires {
                    parts.push(format!("at most {expires}"));
                }
                let approvers =
                    if offer.approvers.is_empty() { contract.owner.clone() } else { offer.approvers.join(", ") };
                let count = if offer.approvals > 1 { format!("{} of ", offer.approvals) } else { String::new() };
                parts.push(format!("approved by {count}{approvers}"));
                text.push_str(&format!(": {}\n", output::printable(&parts.join("; "))));
            }
            output::print(&text);
        }
    }
    Ok(0)
}

fn tell(outcome: &AccessOutcome, format: ReportFormat) -> Result<u8> {
    match format {
        ReportFormat::Json => output::print_json(&json!({ "request": outcome.request, "grant": outcome.grant }))?,
        ReportFormat::Text => {
            let request = &outcome.request;
            let what = format!("{} as {} for {}", request.product, request.role, request.principal);
            let what = output::printable(&what).into_owned();
            let text = match (&outcome.grant, request.state) {
                (Some(grant), _) if grant.revoked.is_some() => format!("grant {} is revoked: {what}\n", grant.number),
                (Some(grant), _) => {
                    let until = grant.expires_at.map_or_else(
                        || "until it is revoked".to_owned(),
                        |at| format!("until {}", at.format("%Y-%m-%d %H:%M UTC")),
                    );
                    format!("grant {}: {what}, {until}\n", grant.number)
                }
                (None, RequestState::Pending) if request.approvals.is_empty() => {
                    format!("request {}: {what}; `datamesh access approve {0}` approves it\n", request.number)
                }
                (None, RequestState::Pending) => {
                    format!("request {}: {what}; one more approval is needed\n", request.number)
                }
                (None, state) => format!("request {} is {}: {what}\n", request.number, state.as_str()),
            };
            output::print(&text);
        }
    }
    Ok(0)
}

fn request_line(request: &AccessRequest, state: RequestState) -> String {
    let tables = if request.tables.is_empty() {
        String::new()
    } else {
        format!(" ({})", request.tables.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    let line = format!(
        "request {:>4}  {:9}  {}{tables}  {}  as {}  {}",
        request.number,
        state.as_str(),
        request.product,
        request.principal,
        request.role,
        request.at.format("%Y-%m-%d"),
    );
    format!("{}\n", output::printable(&line))
}

fn grant_line(grant: &Grant, now: chrono::DateTime<chrono::Utc>) -> String {
    let state = match (&grant.revoked, grant.is_effective(now)) {
        (Some(_), _) => "revoked",
        (None, true) => "effective",
        (None, false) => "expired",
    };
    let until = grant.expires_at.map_or_else(String::new, |at| format!("  until {}", at.format("%Y-%m-%d %H:%M")));
    let line = format!(
        "grant   {:>4}  {state:9}  {}  {}  as {}{until}",
        grant.number, grant.product, grant.principal, grant.role
    );
    format!("{}\n", output::printable(&line))
}

fn request_text(request: &AccessRequest, grant: Option<&Grant>, now: chrono::DateTime<chrono::Utc>) -> String {
    let mut text = request_line(request, request.state_at(now));
    text.push_str(&format!(
        "  by {}: {}\n",
        output::printable(&request.requested_by),
        output::printable(&request.reason)
    ));
    if let Some(purpose) = &request.purpose {
        text.push_str(&format!("  for {}\n", output::printable(purpose)));
    }
    for approval in &request.approvals {
        let note = approval.note.as_deref().map_or_else(String::new, |note| format!(": {}", output::printable(note)));
        let at = approval.at.format("%Y-%m-%d %H:%M");
        text.push_str(&format!("  approved by {} {at}{note}\n", output::printable(&approval.by)));
    }
    if let Some(grant) = grant {
        text.push_str(&grant_line(grant, now));
    }
    text
}
