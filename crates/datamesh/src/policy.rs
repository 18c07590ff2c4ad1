//! `datamesh policy`: what policies say of manifests, whether they say what they should, and why somebody may do something.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use datamesh_app::govern::ReadTable;
use datamesh_app::{Context, Engine};
use datamesh_core::access::{AccessWay, Governance, TableAccess, find_column, offers};
use datamesh_core::access_request::GrantFilter;
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::domain::Domain;
use datamesh_core::inheritance::Inheritance;
use datamesh_core::lineage::Edge;
use datamesh_core::policy_test::{PolicyCase, PolicyTest, PolicyTestResult};
use datamesh_core::ports::CatalogProduct;
use datamesh_core::protection::protections;
use datamesh_core::{DataProduct, Diagnostic, Error, ErrorCode, Level, Location, ProductKey, Result, Table};
use datamesh_manifest::mesh::locate;
use datamesh_manifest::{LoadedProduct, Mesh, load_mesh, load_settings};
use datamesh_policy::{
    Change, Finding, Grants, PACK, PACK_FILE, Policies, PolicyEffect, PolicyProblem, ResolvedPrincipal, Resource,
    ResourcePath, Rule, Severity, TableDecision, TestMesh, schema_text,
};
use serde_json::{Value, json};

use crate::cli::ReportFormat;
use crate::{EXIT_REJECTED, home, output};

#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check the policies of the manifests, and judge every product by them
    #[command(
        after_help = "Examples:\n  datamesh policy check\n  datamesh policy check domains/customer\n  datamesh policy check --format json\n\nThe exit code is 3 where a policy forbids something that no waiver lets pass, 22 where a policy or a row filter cannot\nbe used."
    )]
    Check(CheckOptions),
    /// Run the tests of policies, `policies/<name>.tests.yaml`
    #[command(
        after_help = "Examples:\n  datamesh policy test\n  datamesh policy test --format json\n\nThe policies and products are those of the manifests; what columns inherit is taken from recorded lineage, where there\nis any. The exit code is 3 where a test fails."
    )]
    Test(TestOptions),
    /// Tell why somebody may do something, or may not; nothing is done
    #[command(
        after_help = "Examples:\n  datamesh policy explain user:alice read customer/customer-360.customer_profile\n  datamesh policy explain role:analyst readUnmasked customer/customer-360.customer_profile.email\n  datamesh policy explain service:etl publish customer/customer-360@1 --from-manifests\n  datamesh policy explain user:alice administer mesh"
    )]
    Explain(ExplainOptions),
    /// List the policies that hold
    #[command(after_help = "Examples:\n  datamesh policy list\n  datamesh policy list --format json")]
    List(ListOptions),
    /// Print the Cedar schema that policies are checked against, for editors
    #[command(after_help = "Example:\n  datamesh policy schema > policies/mesh.cedarschema")]
    Schema,
}

#[derive(Debug, Args)]
struct CheckOptions {
    /// A mesh directory, or the folder of a domain or product whose products alone are judged
    path: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct TestOptions {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ExplainOptions {
    /// Who: user:NAME, service:NAME, team:NAME, role:NAME
    principal: String,
    /// To do what: discover, describe, read, readUnmasked, publish, apply, deprecate, approve, administer
    #[arg(value_parser = action)]
    action: Action,
    /// To what: mesh, a domain, domain/product, domain/product.table, domain/product.table.column, domain/product#port;
    /// `@1` behind the product means its major version 1
    resource: String,
    /// By the policies and products of the manifests, not by those that were applied
    #[arg(long)]
    from_manifests: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Args)]
struct ListOptions {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

impl PolicyArguments {
    pub(crate) fn wants_json(&self) -> bool {
        let format = match &self.command {
            PolicyCommand::Check(options) => options.format,
            PolicyCommand::Test(options) => options.format,
            PolicyCommand::Explain(options) => options.format,
            PolicyCommand::List(options) => options.format,
            PolicyCommand::Schema => return false,
        };
        format == ReportFormat::Json
    }
}

fn action(text: &str) -> Result<Action, String> {
    let words: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    Action::parse(text).ok_or_else(|| format!("there are {}", words.join(", ")))
}

pub(crate) async fn run(arguments: PolicyArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    match arguments.command {
        PolicyCommand::Check(options) => check(&options, told, memory).await,
        PolicyCommand::Test(options) => test(&options, told).await,
        PolicyCommand::Explain(options) => explain(&options, told).await,
        PolicyCommand::List(options) => list(&options, told).await,
        PolicyCommand::Schema => {
            let settings = load_settings(&home::find(told)?)?;
            output::print(&schema_text(&settings.principals.attributes));
            Ok(0)
        }
    }
}

/// The manifests, where none has an error.
fn load(root: &Path, what: &str) -> Result<Mesh> {
    let mesh = load_mesh(root)?;
    if mesh.has_errors() {
        output::print_problems(&mesh.diagnostics, &mesh.sources);
        return Err(Error::new(ErrorCode::InvalidManifest, format!("{what}: there are documents with errors"))
            .with_help("mend them; `datamesh check` lists all problems"));
    }
    Ok(mesh)
}

fn domains(mesh: &Mesh) -> Vec<Domain> {
    mesh.domains.iter().map(|(_, domain)| domain.clone()).collect()
}

/// The texts of policies, by their files.
fn texts(governance: &Governance) -> BTreeMap<String, String> {
    let own = governance.policies.iter().map(|file| (file.path.clone(), file.text.clone()));
    own.chain([(PACK_FILE.to_owned(), PACK.to_owned())]).collect()
}

/// A problem as it is shown. One of `mesh.yaml` has no line, and says by its keys where it is.
fn diagnostic(problem: &PolicyProblem) -> Diagnostic {
    let mut diagnostic = problem.diagnostic();
    if diagnostic.location.line == 0 && !problem.path.is_empty() {
        diagnostic.location.file = format!("{} {}", problem.location.file, problem.path.join("."));
    }
    diagnostic
}

/// The policies of the manifests; their problems are printed.
fn compile(mesh: &Mesh, what: &str) -> Result<Policies> {
    let governance = mesh.governance();
    Policies::compile(&governance, &domains(mesh)).map_err(|problems| {
        let diagnostics: Vec<Diagnostic> = problems.iter().map(diagnostic).collect();
        output::print_problems(&diagnostics, &texts(&governance));
        Error::new(ErrorCode::InvalidPolicy, format!("{what}: there are policies that cannot be used"))
            .with_help("mend them; `datamesh policy check` lists all problems")
    })
}

fn nobody(why: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, why)
        .with_help("write `user:NAME`, `service:NAME`, `team:NAME` or `role:NAME`")
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// The products that are judged: all, or those below a folder.
fn judged<'m>(mesh: &'m Mesh, path: Option<&Path>) -> Result<Vec<&'m LoadedProduct>> {
    let Some(path) = path else { return Ok(mesh.products.iter().collect()) };
    let scope = path.canonicalize().map_err(|error| Error::io(ErrorCode::NotFound, "find", path, error))?;
    let is_mesh = scope.file_name().is_some_and(|name| name == "mesh.yaml");
    let scope = scope.parent().filter(|_| is_mesh).unwrap_or(&scope);
    let found: Vec<&LoadedProduct> = mesh.products.iter().filter(|product| product.path.starts_with(scope)).collect();
    if found.is_empty() && !scope.join("mesh.yaml").is_file() {
        return Err(Error::new(ErrorCode::NotFound, format!("`{}` holds no product of the mesh", path.display()))
            .with_help("name the mesh directory, or the folder of a domain or product in it"));
    }
    Ok(found)
}

/// Row filters that cannot be used, with the texts of their manifests.
fn row_filters(
    products: &[&LoadedProduct],
    governance: &Governance,
    root: &Path,
    memory: usize,
) -> Result<Vec<(Diagnostic, String)>> {
    let mut engine = None;
    let mut found = Vec::new();
    for product in products {
        let contract = &product.contract;
        let file = product.path.strip_prefix(root).unwrap_or(&product.path).display().to_string();
        let offers = match offers(contract) {
            Ok(offers) => offers,
            Err(why) => {
                let location = Location { file, ..Location::default() };
                let help = Some("see `access:` in the manifest".to_owned());
                let message = format!("{}: {why}", contract.id);
                let id = "invalid-access";
                found.push((Diagnostic { id, level: Level::Error, message, help, location }, String::new()));
                continue;
            }
        };
        for offer in &offers {
            let Some(condition) = &offer.rows else { continue };
            let engine = match &mut engine {
                Some(engine) => engine,
                none => none.insert(home::engine(root, memory)?),
            };
            for table in contract.tables.iter().filter(|table| offer.covers(table)) {
                let Err(problem) = engine.check_row_filter(table, &governance.attributes, condition) else { continue };
                let (mut location, source) = locate(&product.path, condition)?;
                location.file.clone_from(&file);
                let message =
                    format!("the row filter of role `{}` for table `{}`: {}", offer.role, table.name, problem.message);
                let help = Some(problem.help.unwrap_or_else(|| "mend `rows:` in the manifest".to_owned()));
                let id = "invalid-row-filter";
                found.push((Diagnostic { id, level: Level::Error, message, help, location }, source));
            }
        }
    }
    Ok(found)
}

/// What the policies find wrong with products, in their order, as whoever acts would apply them.
async fn judge(policies: &Policies, products: &[&LoadedProduct], context: &Context) -> Result<Vec<Finding>> {
    let actor = policies.principal_of(&context.principal.id, context.owns_mesh).map_err(nobody)?;
    let catalog = context.registry.catalog().await?;
    let applied: HashMap<&ProductKey, &DataProduct> =
        catalog.iter().map(|product| (&product.key, &product.revision.contract)).collect();
    let changes: Vec<(&DataProduct, Change)> = products
        .iter()
        .map(|product| {
            let contract = &product.contract;
            (contract, Change::between(applied.get(&contract.key()).copied(), contract, false))
        })
        .collect();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let found = policies.judge_all(&actor, &changes, &context.circumstances(), threads);
    Ok(found.into_iter().flatten().collect())
}

async fn check(options: &CheckOptions, told: Option<&Path>, memory: usize) -> Result<u8> {
    let root = match &options.path {
        Some(path) => home::find_around(path, told)?,
        None => home::find(told)?,
    };
    let mesh = load(&root, "nothing is judged")?;
    let products = judged(&mesh, options.path.as_deref())?;
    let context = home::context(&root).await?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "policy check" })).await?;
    let governance = mesh.governance();
    let mut sources = texts(&governance);
    let mut problems = Vec::new();
    let mut findings = Vec::new();
    let mut policy_count = None;
    match Policies::compile(&governance, &domains(&mesh)) {
        Ok(policies) => {
            policy_count = Some(policies.rules().len());
            findings = judge(&policies, &products, &context).await?;
        }
        Err(found) => problems.extend(found.iter().map(diagnostic)),
    }
    for (problem, source) in row_filters(&products, &governance, &root, memory)? {
        sources.insert(problem.location.file.clone(), source);
        problems.push(problem);
    }
    let waived = findings.iter().filter(|finding| finding.waived_by.is_some()).count();
    let count = |severity| {
        findings.iter().filter(|finding| finding.severity == severity && finding.waived_by.is_none()).count()
    };
    let (denied, warned, advised) = (count(Severity::Deny), count(Severity::Warn), count(Severity::Advise));
    match options.format {
        ReportFormat::Json => output::print_json(&json!({
            "policies": policy_count,
            "products": products.iter().map(|product| product.contract.id.to_string()).collect::<Vec<_>>(),
            "problems": problems,
            "findings": findings,
            "deny": denied,
            "warn": warned,
            "advise": advised,
            "waived": waived,
        }))?,
        ReportFormat::Text => {
            output::print_diagnostics(&problems, &sources);
            output::print(&findings_text(&findings));
            let summary = match policy_count {
                Some(policies) => format!(
                    "judged {} by {}: {denied} denied, {}, {advised} advised, {waived} waived",
                    plural(products.len(), "product"),
                    if policies == 1 { "1 policy".to_owned() } else { format!("{policies} policies") },
                    plural(warned, "warning"),
                ),
                None => "nothing was judged: there are policies that cannot be used".to_owned(),
            };
            let flaws =
                if problems.is_empty() { String::new() } else { format!("; {}", plural(problems.len(), "problem")) };
            output::print(&format!("{summary}{flaws}\n"));
        }
    }
    if !problems.is_empty() {
        return Ok(ErrorCode::InvalidPolicy.exit_code());
    }
    Ok(if findings.iter().any(Finding::stops) { EXIT_REJECTED } else { 0 })
}

/// What was found, by severity and policy.
fn findings_text(findings: &[Finding]) -> String {
    let on = output::colours(crate::caller::stdout_is_terminal());
    let mut text = String::new();
    for severity in Severity::ALL {
        let mut groups: BTreeMap<(&str, &str), Vec<&Finding>> = BTreeMap::new();
        for finding in findings.iter().filter(|finding| finding.severity == severity) {
            groups.entry((finding.policy.as_str(), finding.message.as_str())).or_default().push(finding);
        }
        let colour = match severity {
            Severity::Deny => "1;31",
            Severity::Warn => "33",
            Severity::Advise => "36",
        };
        for ((policy, message), found) in groups {
            let Some(first) = found.first() else { continue };
            let owner = first.owner.as_ref().map_or_else(String::new, |owner| format!(", owner {owner}"));
            let place = format!("{}:{}{owner}", first.file, first.line);
            text.push_str(&format!(
                "{} {}: {} ({})\n",
                output::paint(severity.as_str(), colour, on),
                output::printable(policy),
                output::printable(message),
                output::printable(&place)
            ));
            for finding in &found {
                text.push_str(&format!("  {}{}\n", output::printable(&finding.resource), waiver_text(finding)));
            }
            if let Some(help) = &first.help {
                text.push_str(&format!("  {} {}\n", output::paint("help:", "36", on), output::printable(help)));
            }
        }
    }
    text
}

fn waiver_text(finding: &Finding) -> String {
    let at = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC");
    let text = match (&finding.waived_by, &finding.expired) {
        (Some(waiver), _) => format!(", waived until {} by {}: {}", at(waiver.expires), waiver.owner, waiver.reason),
        (None, Some(waiver)) => format!(", the waiver of {} expired on {}", waiver.owner, at(waiver.expires)),
        (None, None) => return String::new(),
    };
    output::printable(&text).into_owned()
}

/// The recorded lineage of products, and of all that they are made of.
async fn lineage(context: &Context, mut wanted: BTreeSet<ProductKey>) -> Result<Vec<Edge>> {
    let mut known: BTreeSet<ProductKey> = BTreeSet::new();
    let mut edges = Vec::new();
    while !wanted.is_empty() {
        let batch: Vec<ProductKey> = std::mem::take(&mut wanted).into_iter().collect();
        let found = context.registry.lineage_of(&batch).await?;
        known.extend(batch);
        wanted = Inheritance::reads(&found).difference(&known).cloned().collect();
        edges.extend(found);
    }
    Ok(edges)
}

/// Contracts by key: those of the manifests, else those that were applied.
fn by_key<'c>(catalog: &'c [CatalogProduct], mesh: &'c Mesh) -> Vec<(ProductKey, &'c DataProduct)> {
    let applied = catalog.iter().map(|product| (product.key.clone(), &product.revision.contract));
    applied.chain(mesh.products.iter().map(|product| (product.contract.key(), &product.contract))).collect()
}

/// Whether a name is that of a product, or of what lies in it, whatever the major version.
fn is_about(path: &ResourcePath, contract: &DataProduct) -> bool {
    matches!(path, ResourcePath::Product { id, .. } if id.key(0) == contract.id.key(0))
}

async fn test(options: &TestOptions, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let mesh = load(&root, "nothing is tested")?;
    let policies = compile(&mesh, "nothing is tested")?;
    let contracts: Vec<DataProduct> = mesh.products.iter().map(|product| product.contract.clone()).collect();
    let mut catalog = Vec::new();
    let mut edges = Vec::new();
    // Without a registry nothing was published, and nothing is inherited.
    if !mesh.policy_cases.is_empty() && crate::registry::location(&root)?.has_registry().await? {
        let context = home::context(&root).await?;
        context.authorize_mesh(Action::Describe, json!({ "operation": "policy test" })).await?;
        catalog = context.registry.catalog().await?;
        // A name that is none is told by the case itself.
        let asked: Vec<ResourcePath> =
            mesh.policy_cases.iter().filter_map(|case| ResourcePath::parse(&case.test.resource).ok()).collect();
        let asked: BTreeSet<ProductKey> = asked
            .iter()
            .filter_map(|path| match path {
                ResourcePath::Product { id, .. } => Some(id.key(0)),
                _ => None,
            })
            .collect();
        let keys = contracts.iter().filter(|contract| asked.contains(&contract.id.key(0))).map(DataProduct::key);
        edges = lineage(&context, keys.collect()).await?;
    }
    let inheritance = Inheritance::new(by_key(&catalog, &mesh), &edges);
    let protected = |contract: &DataProduct, table: &Table| {
        protections(contract, table, &inheritance.of(&contract.key(), &table.name.sql()))
    };
    let now = DateTime::<Utc>::from(std::time::SystemTime::now());
    let cases: Vec<PolicyTest> = mesh.policy_cases.iter().map(|case| case.test.clone()).collect();
    let results = policies.test(&cases, &TestMesh { contracts: &contracts, protections: &protected, now });
    let failed = results.iter().filter(|result| !result.passed()).count();
    let passed = results.len() - failed;
    let told: Vec<(&PolicyCase, &PolicyTestResult)> = mesh.policy_cases.iter().zip(&results).collect();
    match options.format {
        ReportFormat::Json => output::print_json(&json!({
            "tests": told.iter().map(|(case, result)| json!({
                "name": result.name,
                "file": case.location.file,
                "line": case.location.line,
                "domain": case.domain,
                "passed": result.passed(),
                "failures": result.failures,
                "explanation": result.explanation,
            })).collect::<Vec<_>>(),
            "passed": passed,
            "failed": failed,
        }))?,
        ReportFormat::Text if told.is_empty() => output::print(
            "there are no tests of policies; write them in `policies/<name>.tests.yaml` (`datamesh schema policy-tests`)\n",
        ),
        ReportFormat::Text => {
            output::print(&told.iter().map(|(case, result)| case_text(case, result)).collect::<String>());
            output::print(&format!("{passed} passed, {failed} failed\n"));
        }
    }
    Ok(if failed > 0 { EXIT_REJECTED } else { 0 })
}

/// A case that failed; nothing of one that passed.
fn case_text(case: &PolicyCase, result: &PolicyTestResult) -> String {
    if result.passed() {
        return String::new();
    }
    let place = format!("{}:{}", case.location.file, case.location.line);
    let mut text = format!("FAIL {}  ({})\n", output::printable(&result.name), output::printable(&place));
    for failure in &result.failures {
        text.push_str(&format!("  {}\n", output::printable(failure)));
    }
    for line in &result.explanation {
        text.push_str(&format!("    {}\n", output::printable(line)));
    }
    text
}

/// The answer to a question.
struct Answer {
    outcome: Outcome,
    decision: Value,
    /// What is seen of the column that was asked about.
    column: Option<&'static str>,
    findings: Vec<Finding>,
    lines: Vec<String>,
}

/// What is seen of a column, or of a field: a word, and a sentence.
fn sight(access: &TableAccess, path: &[String]) -> (&'static str, &'static str) {
    let shows = |way: &&AccessWay| path.first().is_some_and(|name| !way.hidden.contains(name));
    let shown: Vec<&AccessWay> = access.ways.iter().filter(shows).collect();
    if shown.is_empty() {
        return ("hidden", "it is not seen");
    }
    let masks = |masked: &Vec<String>| path.starts_with(masked) || masked.starts_with(path);
    let clear = shown.iter().filter(|way| !way.masked.iter().any(masks)).count();
    match clear {
        0 if shown.iter().all(|way| way.masked.iter().any(|masked| path.starts_with(masked))) => {
            ("masked", "it is masked")
        }
        0 => ("partly-masked", "some of it is masked"),
        _ if clear == shown.len() => ("clear", "it is seen in clear"),
        _ => ("clear-in-one-way", "it is seen in clear in the rows of one way, and masked in those of another"),
    }
}

/// The answer about a table, or one of its columns.
fn of_table(
    decision: &TableDecision,
    principal: &ResolvedPrincipal,
    action: Action,
    table: &str,
    column: Option<&[String]>,
) -> Result<Answer> {
    let mut lines = decision.explain(principal, table);
    let mut outcome = decision.outcome();
    let mut word = None;
    if let Some(path) = column {
        let (short, long) = sight(&decision.access, path);
        let allowed = match action {
            Action::ReadUnmasked => short.starts_with("clear"),
            _ => short != "hidden",
        };
        outcome = if allowed { Outcome::Allow } else { Outcome::Deny };
        let may = if allowed { "may" } else { "may not" };
        lines.insert(0, format!("{} {may} {} {table}.{}: {long}", principal.id, action.as_str(), path.join(".")));
        word = Some(short);
    }
    Ok(Answer { outcome, decision: to_value(decision)?, column: word, findings: Vec::new(), lines })
}

fn to_value(decision: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(decision)
        .map_err(|error| Error::new(ErrorCode::Internal, "the decision cannot be written").with_source(error))
}

/// What somebody would see of a table by the manifests, with the grants and the lineage that are recorded.
async fn decide_table(
    context: &Context,
    policies: &Policies,
    principal: &ResolvedPrincipal,
    contract: &DataProduct,
    table: &Table,
    contracts: Vec<(ProductKey, &DataProduct)>,
) -> Result<TableDecision> {
    let edges = lineage(context, BTreeSet::from([contract.key()])).await?;
    let inherited = Inheritance::new(contracts, &edges).of(&contract.key(), &table.name.sql());
    let mut principals = vec![principal.id.clone()];
    principals.extend(principal.teams.iter().map(|team| format!("team:{team}")));
    principals.extend(principal.roles.iter().map(|role| format!("role:{role}")));
    let filter = GrantFilter { principals, product: Some(contract.key()), ..GrantFilter::default() };
    let grants = Grants::new(context.registry.grants(&filter).await?);
    let protected = protections(contract, table, &inherited);
    Ok(policies.read_table(principal, contract, table, &protected, &grants, &context.circumstances()))
}

async fn explain(options: &ExplainOptions, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let path = ResourcePath::parse(&options.resource).map_err(|why| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("`{}` names no resource: {why}", options.resource.escape_debug()),
        )
        .with_help("write `mesh`, a domain, domain/product, domain/product.table or domain/product.table.column")
    })?;
    let context = home::context(&root).await?;
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    let id = rules.policies.canonical_id(&options.principal).map_err(nobody)?;
    let own = id == actor.id;
    let details = json!({
        "operation": "policy explain",
        "principal": id,
        "action": options.action.as_str(),
        "resource": path.to_string(),
    });
    let asked = if own { Action::Describe } else { Action::Administer };
    context.authorize_mesh(asked, details).await?;
    let catalog = context.registry.catalog().await?;
    let manifests = match options.from_manifests {
        true => {
            let mesh = load(&root, "nothing is explained")?;
            let policies = compile(&mesh, "nothing is explained")?;
            Some((mesh, policies))
        }
        false => None,
    };
    let policies = manifests.as_ref().map_or(&rules.policies, |(_, policies)| policies);
    let principal = policies.principal_of(&id, own && context.owns_mesh).map_err(nobody)?;
    let contracts: Vec<&DataProduct> = match &manifests {
        Some((mesh, _)) => mesh.products.iter().map(|product| &product.contract).collect(),
        // Who asks about themselves is told nothing of what they may not find.
        None => catalog
            .iter()
            .map(|product| &product.revision.contract)
            .filter(|contract| is_about(&path, contract))
            .filter(|contract| !own || context.discovers(&rules, &actor, contract))
            .collect(),
    };
    let resource = path.find(contracts.iter().copied()).map_err(|why| {
        let help = "`datamesh show` lists the products; `--from-manifests` asks about those that are not applied yet";
        Error::new(ErrorCode::NotFound, why).with_help(help)
    })?;
    if let Resource::Column(contract, table, column) = resource
        && find_column(table, &column.join(".")).is_none_or(|(found, _)| found.as_slice() != column)
    {
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let message = format!("table `{}.{}` has no column `{}`", contract.id, table.name, column.join("."));
        return Err(Error::new(ErrorCode::NotFound, message).with_help(format!("it has {}", names.join(", "))));
    }
    let read: Option<(&DataProduct, &Table, Option<&[String]>)> = match (options.action, resource) {
        (Action::Read, Resource::Table(contract, table)) => Some((contract, table, None)),
        (Action::Read | Action::ReadUnmasked, Resource::Column(contract, table, column)) => {
            Some((contract, table, Some(column)))
        }
        _ => None,
    };
    let before = |contract: &DataProduct| catalog.iter().find(|product| product.key == contract.key());
    let answer = match read {
        Some((contract, table, column)) => {
            let decided = match (&manifests, before(contract)) {
                (None, Some(product)) => {
                    let tables = [ReadTable { product, table }];
                    context.decide_tables(&rules, &principal, &catalog, &tables).await?.pop()
                }
                (Some((mesh, policies)), _) => {
                    let contracts = by_key(&catalog, mesh);
                    Some(decide_table(&context, policies, &principal, contract, table, contracts).await?)
                }
                (None, None) => None,
            };
            let decided = decided.ok_or_else(|| {
                Error::new(ErrorCode::Internal, format!("nothing was decided on `{}.{}`", contract.id, table.name))
            })?;
            let name = format!("{}.{}", contract.id, table.name);
            of_table(&decided, &principal, options.action, &name, column)?
        }
        None => {
            let circumstances = context.circumstances();
            let decision = policies.decide(&principal, options.action, resource, &circumstances);
            let change = match (options.action, resource) {
                (Action::Publish, Resource::Product(contract)) => Some((contract, Change::publish())),
                (Action::Apply, Resource::Product(contract)) => {
                    let applied = before(contract).map(|product| &product.revision.contract);
                    Some((contract, Change::between(applied, contract, false)))
                }
                _ => None,
            };
            let findings = change
                .map(|(contract, change)| policies.judge(&principal, contract, &change, &circumstances))
                .unwrap_or_default();
            let name = path.to_string();
            let mut lines = decision.explain(&principal, options.action, &name);
            let mut outcome = decision.outcome;
            if decision.is_allowed() && findings.iter().any(Finding::stops) {
                outcome = Outcome::Deny;
                let word = options.action.as_str();
                lines.insert(0, format!("{} may not {word} {name} as it is: its contract is denied", principal.id));
            }
            lines.extend(findings.iter().flat_map(Finding::explain));
            Answer { outcome, decision: to_value(&decision)?, column: None, findings, lines }
        }
    };
    match options.format {
        ReportFormat::Json => output::print_json(&json!({
            "principal": principal.id,
            "action": options.action.as_str(),
            "resource": path.to_string(),
            "rules": if options.from_manifests { "manifests" } else { "applied" },
            "outcome": answer.outcome.as_str(),
            "column": answer.column,
            "decision": answer.decision,
            "findings": answer.findings,
            "explanation": answer.lines,
        }))?,
        ReportFormat::Text => {
            let mut lines = answer.lines.iter();
            let first = lines.next().map_or("", String::as_str);
            let mut text = format!("{}\n", output::printable(first));
            for line in lines {
                text.push_str(&format!("  {}\n", output::printable(line)));
            }
            output::print(&text);
        }
    }
    Ok(0)
}

fn effect_word(effect: PolicyEffect) -> &'static str {
    match effect {
        PolicyEffect::Permit => "permit",
        PolicyEffect::Forbid => "forbid",
    }
}

async fn list(options: &ListOptions, told: Option<&Path>) -> Result<u8> {
    let root = home::find(told)?;
    let context = home::context(&root).await?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "policy list" })).await?;
    let rules = context.rules().await?;
    let policies = &rules.policies;
    match options.format {
        ReportFormat::Json => {
            let listed: Vec<Value> = policies
                .rules()
                .iter()
                .map(|rule| {
                    json!({
                        "id": rule.id,
                        "effect": effect_word(rule.effect),
                        "severity": rule.severity.map(Severity::as_str),
                        "scope": rule.domain.as_deref().map_or("mesh", |_| "domain"),
                        "domain": rule.domain,
                        "owner": policies.owner_of(rule).map(|owner| owner.team),
                        "file": rule.location.file,
                        "line": rule.location.line,
                        "message": rule.message,
                        "help": rule.help,
                        "text": rule.text,
                    })
                })
                .collect();
            output::print_json(&json!({ "policies": listed }))?;
        }
        ReportFormat::Text if policies.rules().is_empty() => output::print("no policy holds\n"),
        ReportFormat::Text => {
            output::print(&policies.rules().iter().map(|rule| rule_text(policies, rule)).collect::<String>());
        }
    }
    Ok(0)
}

fn rule_text(policies: &Policies, rule: &Rule) -> String {
    let scope = rule.domain.as_ref().map_or_else(|| "mesh".to_owned(), |domain| format!("domain {domain}"));
    let owner = policies.owner_of(rule).map_or_else(String::new, |owner| format!("  owner {}", owner.team));
    let line = format!(
        "{}  {:6}  {}  {scope}{owner}  {}:{}",
        effect_word(rule.effect),
        rule.severity.map_or("", Severity::as_str),
        rule.id,
        rule.location.file,
        rule.location.line,
    );
    let mut text = format!("{}\n", output::printable(&line));
    if let Some(message) = &rule.message {
        text.push_str(&format!("    {}\n", output::printable(message)));
    }
    text
}
