//! The command line's words.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use datamesh_core::history::AsOf;

use crate::access::AccessArguments;
use crate::audit::AuditArguments;
use crate::diff::DiffArguments;
use crate::domains::DomainsArguments;
use crate::explain::ExplainArguments;
use crate::export::ExportArguments;
use crate::findings::FindingsFormat;
use crate::import::ImportArguments;
use crate::init::InitArguments;
use crate::lineage::{LineageArguments, LineageFormat};
use crate::new::NewArguments;
use crate::outbox::OutboxArguments;
use crate::policy::PolicyArguments;
use crate::profile::ProfileArguments;
use crate::provision::ProvisionArguments;
use crate::receipt::{ReceiptArguments, VerifyArguments};

/// A whole data mesh in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "datamesh",
    version,
    about = "A whole data mesh in one binary: check, audit, publish and query data products",
    after_help = "Examples:\n  datamesh init\n  datamesh new weather/observations --from hourly.csv\n  datamesh check\n  datamesh publish weather/observations\n  datamesh query \"SELECT count(*) FROM weather.observations.hourly\"\n  datamesh quarantine weather/observations\n\nTables are kept where `warehouse:` in mesh.yaml or DATAMESH_WAREHOUSE says, a folder or s3://bucket/prefix (default: the\nmesh's folder `warehouse`). Object stores take credentials from the usual variables: AWS_ACCESS_KEY_ID,\nAWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP; GOOGLE_*; AZURE_*. DATAMESH_TIMEOUT is how long a\nserver may stay silent, in seconds (default: 30).\n\nThe registry is where `registry:` in mesh.yaml or DATAMESH_REGISTRY says, a SQLite file or\npostgres://user:${env:NAME}@host/database?schema=NAME (default: the mesh's file .datamesh/registry.db).\n\nExit codes: 0 done (or a repeat), 1 internal, 2 wrong arguments, 3 rejected by the audit, or by its version, 4 invalid manifest,\n5 conflict, 6 not found, 7 source unreadable, 8 write failed, 9 invalid query, 10 registry, 11 registry too new,\n12 lease lost, 13 incompatible change, 14 denied, 15 not applied, 16 plan refused, 17 plan edited,\n18 plan of another mesh, 19 plan too new, 20 plan out of date, 21 log or receipt changed, 22 invalid policy, 130 interrupted"
)]
pub struct Cli {
    /// The mesh directory (default: the nearest folder upwards with a mesh.yaml)
    #[arg(long, global = true, env = "DATAMESH_HOME", value_name = "DIR")]
    pub mesh: Option<PathBuf>,

    /// What sorts and aggregations may hold in memory before they spill to disk (default: a quarter of the machine's)
    #[arg(long, global = true, env = "DATAMESH_MEMORY", value_name = "MIB", default_value_t = crate::machine::quarter_of_memory(), hide_default_value = true)]
    pub memory: usize,

    /// Act as somebody else: user:NAME, service:NAME, team:NAME or role:NAME. Only who administers the mesh may, and it is recorded
    #[arg(long = "as", global = true, env = "DATAMESH_AS", value_name = "PRINCIPAL")]
    pub act_as: Option<String>,

    /// What this is done for; policies may ask for it, and it is recorded
    #[arg(long = "purpose", global = true, env = "DATAMESH_PURPOSE", value_name = "PURPOSE")]
    pub act_for: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Whether errors are to be printed as JSON too.
    pub fn wants_json(&self) -> bool {
        let format = match &self.command {
            Command::Check(arguments) => return arguments.format == FindingsFormat::Json,
            Command::Diff(arguments) => return arguments.format == FindingsFormat::Json,
            Command::Plan(arguments) => arguments.format,
            Command::Apply(arguments) => arguments.format,
            Command::Publish(arguments) => arguments.format,
            Command::Show(arguments) => arguments.format,
            Command::Publications(arguments) => arguments.format,
            Command::Rollback(arguments) => arguments.format,
            Command::Maintain(arguments) => arguments.format,
            Command::Run(arguments) => arguments.format,
            Command::Test(arguments) => arguments.format,
            Command::Init(arguments) => arguments.format,
            Command::New(arguments) => arguments.format,
            Command::Explain(arguments) => arguments.format,
            Command::Profile(arguments) => arguments.format,
            Command::Query(arguments) => return arguments.format == RowFormat::Json,
            Command::Quarantine(QuarantineArguments { command: Some(QuarantineCommand::Retry(retry)), .. }) => {
                retry.format
            }
            Command::Quarantine(arguments) => return arguments.format == RowFormat::Json,
            Command::Lineage(arguments) => return arguments.format == LineageFormat::Json,
            Command::Domains(arguments) => return arguments.wants_json(),
            Command::Schema { .. } | Command::Completions { .. } => return false,
            Command::Import(_) | Command::Export(_) | Command::Receipt(_) => return false,
            Command::Verify(arguments) => arguments.format,
            Command::Policy(arguments) => return arguments.wants_json(),
            Command::Access(arguments) => return arguments.wants_json(),
            Command::Audit(arguments) => return arguments.wants_json(),
            Command::Provision(arguments) => return arguments.wants_json(),
            Command::Outbox(arguments) => return arguments.wants_json(),
        };
        format == ReportFormat::Json
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a mesh: mesh.yaml, a first domain, .gitignore and a short README; nothing is overwritten
    #[command(after_help = "Examples:\n  datamesh init\n  datamesh init my-mesh --domain weather --owner weather-team")]
    Init(InitArguments),
    /// Draft a product's contract from data: types, keys, enums, ranges, formats and personal data, with the evidence
    #[command(
        after_help = "Examples:\n  datamesh new weather/observations --from data/hourly.csv\n  datamesh new fleet/registry --from planes.parquet --name aircraft --from airlines.csv\n  datamesh new marketing/customers --from customer.customer_360.customer_profile\n  datamesh new sales/orders --from orders.csv --print\n\nThe whole data is read, in one pass. The draft is for review: comments name the evidence, and `owner: TODO` is refused\nby `datamesh check` until a team is named."
    )]
    New(NewArguments),
    /// Say what would be published, quarantined and refused, and why; nothing is changed
    #[command(
        after_help = "Examples:\n  datamesh explain weather/observations\n  datamesh explain observations hourly=new/*.csv\n  datamesh explain observations --format json\n\nAll rows are judged as `publish` judges them, in a temporary folder; a product made of others is run there, over what they\nserve now. Only the decisions that allowed it are recorded.\nThe exit code is 0 where it would be published, 3 where it would be refused."
    )]
    Explain(ExplainArguments),
    /// Show what a file or published table holds: types, nulls, distinct values, distribution, personal data
    #[command(
        after_help = "Examples:\n  datamesh profile data/hourly.csv\n  datamesh profile weather.observations.hourly\n  datamesh profile orders.csv --format json\n\nValues of a published table's protected columns are not shown; reading it is decided and recorded as any other read."
    )]
    Profile(ProfileArguments),
    /// Check manifests: every problem at once, each with its place and how to mend it
    #[command(
        after_help = "Examples:\n  datamesh check\n  datamesh check domains/weather/products/observations\n  datamesh check --format json\n  datamesh check --format sarif > check.sarif"
    )]
    Check(CheckArguments),
    /// Compare two contracts: every change, the version it needs, and whether the version is far enough
    #[command(
        after_help = "Examples:\n  datamesh diff sales/orders domains/sales/products/orders\n  datamesh diff ../base/orders/product.yaml orders/product.yaml --format github\n  datamesh diff v1.odcs.yaml v2.odcs.yaml --format json\n  datamesh diff sales/orders@1 sales/orders@2\n\nA path is read as a manifest or data contract, anything else is looked for among the published products. Two documents\nare compared without a mesh. Changes that take away what was promised need a new major version, further promises a minor\none, prose and layout a patch; below 1.0.0 major counts as minor. What protects people (classification, personal data,\nmasks, row filters) needs no new major version. The exit code is 3 where the version is too small."
    )]
    Diff(DiffArguments),
    /// List the domains, show one, or draw how they lean on each other
    #[command(
        after_help = "Examples:\n  datamesh domains\n  datamesh domains --format json\n  datamesh domains show weather\n  datamesh domains map --out context-map.svg\n  datamesh domains map --strict"
    )]
    Domains(DomainsArguments),
    /// Make a manifest of a contract in one of the field's standards; what a manifest does not model is kept in it
    #[command(
        after_help = "Examples:\n  datamesh import odcs orders.odcs.yaml\n  datamesh import odcs orders.odcs.yaml --out domains/sales/products/orders/product.yaml\n  datamesh import datacontract datacontract.yaml > product.yaml\n  datamesh import odps customer.odps.yaml\n  datamesh import dbt target/manifest.json --select orders --out product.yaml\n\nWhat the document does not tell and a manifest must say is a TODO, which `datamesh check` refuses."
    )]
    Import(ImportArguments),
    /// Write a product's contract in one of the field's standards; what the standard does not model is kept in it
    #[command(
        after_help = "Examples:\n  datamesh export odcs weather/observations\n  datamesh export odcs domains/weather/products/observations --out observations.odcs.yaml\n  datamesh export odcs weather/observations --standard-version 3.2.0 --out observations.json\n  datamesh export odps weather/observations\n  datamesh export terraform weather/observations --out infrastructure\n  datamesh export terraform domains/weather --style article\n\n`terraform` writes a module that OpenTofu reads too; files that it wrote before are brought up to date, what somebody\nelse wrote or changed stays without `--force`."
    )]
    Export(ExportArguments),
    /// Print the JSON Schema of a manifest, for editors
    #[command(
        after_help = "Examples:\n  datamesh schema > .vscode/product.schema.json\n  datamesh schema tests > .vscode/product.tests.schema.json\n  datamesh schema domain > .vscode/domain.schema.json"
    )]
    Schema {
        /// Of which document
        #[arg(value_enum, default_value_t)]
        document: SchemaDocument,
        /// The schema of a `product.tests.yaml`, as `tests` says too
        #[arg(long, conflicts_with = "document")]
        tests: bool,
    },
    /// Audit every row of a product's data and publish the good ones atomically
    #[command(
        after_help = "Examples:\n  datamesh publish weather/observations\n  datamesh publish observations hourly=new/*.csv\n  datamesh publish observations hourly=s3://bucket/new/ hourly=https://example.org/late.csv.gz\n  cat rows.csv | datamesh publish observations hourly=-\n  datamesh publish observations --dry-run --format json\n  datamesh publish sales/crm --full\n\nWithout TABLE=PATH every table with a `source:` in the manifest is read; with a `watermark:` only its newer rows.\nContent that was published before is a repeat: nothing changes and the exit code is 0.\nPATH is a file, a folder, a glob, `-`, or an address: s3://, http:// and https://, and gs:// and az://, which no test covers."
    )]
    Publish(PublishArguments),
    /// Run a product's transforms over its inputs and publish what they make, audited like any data
    #[command(
        after_help = "Examples:\n  datamesh run punctuality/punctuality\n  datamesh run punctuality --upstream\n  datamesh run --all --format json\n  datamesh run events --full-refresh\n\nAll inputs are pinned in one read. Inputs that were read before, with the same contract, are a repeat: nothing is run\nand the exit code is 0. With --upstream or --all the exit code is that of the worst product.\n\nIn a transform `{changes(domain.product.table)}` stands for the rows that were added to an input since the last run, for\ninputs that only grow; --full-refresh reads the whole of them again."
    )]
    Run(RunArguments),
    /// Test transforms: fixture rows in, expected rows out, without a registry or a warehouse
    #[command(
        after_help = "Examples:\n  datamesh test\n  datamesh test punctuality\n  datamesh test punctuality --format json\n\nTests are in product.tests.yaml beside the manifest, or in files below tests/. The exit code is 3 where one fails.\n\n  tests:\n    - name: small orders are left out\n      now: 2013-01-02T00:00:00Z                 # what now() answers; 2000-01-01T00:00:00Z unless said\n      given:                                    # tables of inputs; those that are not given are empty\n        sales.orders.orders:                    # or changes(sales.orders.orders)\n          - {order_id: 1, amount: 99.99}        # or {file: orders.csv} in place of rows\n      expect:                                   # tables of the product\n        large_orders: []                        # or {rows: [...], ordered: true}"
    )]
    Test(TestArguments),
    /// Show what the manifests would change of the registry, who feels it, and the version that each change needs
    #[command(
        after_help = "Examples:\n  datamesh plan\n  datamesh plan domains/weather --format json\n  datamesh plan --out week.plan && datamesh apply week.plan\n\nPATH is a mesh directory, a domain's folder or repository, or a product's folder. A product of which no manifest is\nleft there is retired; below a product's folder nothing is. Comments and the order of keys change nothing.\nThe exit code is 16 where rules stand against the plan. With --detailed-exitcode it is 0 where there is nothing to\ndo and 2 where there are changes."
    )]
    Plan(PlanArguments),
    /// Make the registry what the manifests say, or what a plan file says: all of it or nothing
    #[command(
        after_help = "Examples:\n  datamesh apply\n  datamesh apply domains/weather\n  datamesh apply week.plan\n  datamesh apply --allow-retire --dry-run\n\nNothing is asked. A plan file is applied as it was made, or refused: after it was changed, for another mesh, and where\nthe registry has changed since. Published tables change their schemas in place; a new column with a `default:` is\nfilled in. Applying again changes nothing."
    )]
    Apply(ApplyArguments),
    /// Answer a SQL query over published tables, named domain.product.table
    #[command(
        after_help = "Examples:\n  datamesh query \"SELECT * FROM fleet.registry.airlines LIMIT 5\"\n  datamesh query --format csv \"SELECT origin, count(*) FROM weather.observations.hourly GROUP BY origin\"\n  datamesh query --format parquet --out hourly.parquet \"SELECT * FROM weather.observations.hourly\"\n  datamesh query - < question.sql\n  datamesh query --as-of 12 \"SELECT count(*) FROM weather.observations.hourly\"\n  datamesh query --as-of 2026-01-31T12:00:00Z \"SELECT count(*) FROM weather.observations.hourly\"\n  datamesh query \"SELECT * FROM weather.observations.hourly FOR VERSION AS OF 12\"\n  datamesh query \"EXPLAIN ANALYZE SELECT * FROM weather.observations.hourly WHERE origin = 'JFK'\"\n  datamesh query --table t=/data/t/metadata/00003-1.metadata.json \"SELECT count(*) FROM t\"\n\nA table's version is written behind its name, before an alias: FOR VERSION AS OF (a publication of the product,\nor an Iceberg snapshot id), FOR TIMESTAMP AS OF or FOR SYSTEM_TIME AS OF (a time, UTC). It counts before --as-of."
    )]
    Query(QueryArguments),
    /// Show a product's contract, tables and last publication; without one, every product
    #[command(
        after_help = "Examples:\n  datamesh show\n  datamesh show weather/observations\n  datamesh show weather/observations --format json"
    )]
    Show(ShowArguments),
    /// List a product's publications and rejected attempts, newest first
    #[command(after_help = "Example:\n  datamesh publications weather/observations")]
    Publications(PublicationsArguments),
    /// Bring back the tables that an earlier publication served, all at once
    #[command(
        after_help = "Examples:\n  datamesh rollback weather/observations --to 12\n  datamesh rollback weather/observations --to 12 --dry-run --format json\n\nA rollback is a publication of its own: it is recorded, and can be rolled back. Only metadata is written. The contract\nstays the newest one; rows that do not fit it (a required column that they do not have) are refused. A table that did not\nexist then is left without rows."
    )]
    Rollback(RollbackArguments),
    /// Show quarantined rows with every rule they broke
    #[command(
        after_help = "Examples:\n  datamesh quarantine weather/observations\n  datamesh quarantine observations --table hourly --format csv\n  datamesh quarantine customer-360 --reveal\n  datamesh quarantine retry weather/observations\n\nColumns that are pii or masked are shown as ***; --reveal shows them, and is recorded."
    )]
    Quarantine(QuarantineArguments),
    /// Show where columns come from and what is made of them, or the lineage of a query
    #[command(
        after_help = "Examples:\n  datamesh lineage punctuality/punctuality\n  datamesh lineage punctuality/punctuality.flight_punctuality.carrier --up\n  datamesh lineage fleet.registry.aircraft.model --down --direct\n  datamesh lineage weather/observations --format mermaid > lineage.mmd\n  datamesh lineage --sql \"SELECT origin, count(*) FROM weather.observations.hourly GROUP BY origin\"\n\nKinds are OpenLineage's. IDENTITY, TRANSFORMATION and AGGREGATION: the value is made of the input. JOIN, GROUP_BY,\nFILTER, SORT, WINDOW and CONDITIONAL, in brackets: the input decides something. What decides which rows there are\nis listed once a table, as (rows). The lineage is that of the publication that last wrote a table."
    )]
    Lineage(LineageArguments),
    /// Merge small data files, expire old snapshots, and delete what nothing references any more
    #[command(
        after_help = "Examples:\n  datamesh maintain\n  datamesh maintain weather/observations --dry-run\n  datamesh maintain --older-than 7d --target-size 128\n\nSafe beside running publishes and queries. Small data files of one partition are merged, in the table's sort order.\nSnapshots that others took the place of longer ago than the contract's `sla.retention` expire; without a retention all\nare kept. A file that nothing references any more, or that a crash left behind, is deleted once it has been so for\n--older-than: let that be longer than your longest query.\nA table's metadata log keeps the hundred documents before the current one; older ones are deleted so."
    )]
    Maintain(MaintainArguments),
    /// Check, test and explain the policies that bind every domain, and those of the domains
    #[command(
        after_help = "Examples:\n  datamesh policy check\n  datamesh policy test\n  datamesh policy explain user:alice read customer/customer-360.customer_profile\n  datamesh policy list"
    )]
    Policy(PolicyArguments),
    /// Ask for access to data products, approve, deny and revoke it
    #[command(
        after_help = "Examples:\n  datamesh access request customer/customer-360 --role analyst --reason \"churn model\"\n  datamesh access list --state pending\n  datamesh access approve 1\n  datamesh access revoke 1 --reason \"left the team\"\n\nAn approved request works at once, and a revoked grant ends with the next query."
    )]
    Access(AccessArguments),
    /// Show who did what, what was decided and why; check that nobody changed the log
    #[command(
        after_help = "Examples:\n  datamesh audit\n  datamesh audit --principal user:alice --outcome deny --since 2026-01-01\n  datamesh audit --resource customer/customer-360 --format json\n  datamesh audit verify\n  datamesh audit checkpoint --out monday.checkpoint"
    )]
    Audit(AuditArguments),
    /// Print the signed receipt of a publication
    #[command(
        after_help = "Examples:\n  datamesh receipt weather/observations\n  datamesh receipt weather/observations --publication 12 --out 12.receipt.json"
    )]
    Receipt(ReceiptArguments),
    /// Verify a publication's receipt, offline, by the mesh's public key alone
    #[command(
        after_help = "Examples:\n  datamesh verify 12.receipt.json --key mesh.pub\n  datamesh verify 12.receipt.json --key ed25519:…\n\nThe exit code is 21 where the receipt was changed, or signed by somebody else."
    )]
    Verify(VerifyArguments),
    /// Keep a catalog as the contracts say: AWS Glue, or a folder
    #[command(
        after_help = "Examples:\n  datamesh provision plan --target glue\n  datamesh provision apply --target glue weather/observations\n  datamesh provision drift --target glue\n  datamesh provision destroy --target local --yes\n\nOnly what carries this mesh's marker is changed or removed. AWS credentials come from the usual chain."
    )]
    Provision(ProvisionArguments),
    /// Tell other systems of each pointer that moved and each product that changed
    #[command(
        after_help = "Examples:\n  datamesh outbox run --target glue\n  datamesh outbox run --target glue --every 10s\n  datamesh outbox show\n  datamesh outbox forget glue:eu-central-1"
    )]
    Outbox(OutboxArguments),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  datamesh completions bash > /etc/bash_completion.d/datamesh")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Documents that have a JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaDocument {
    /// `product.yaml`.
    #[default]
    Product,
    /// `product.tests.yaml`.
    Tests,
    /// `domain.yaml`.
    Domain,
    /// `mesh.yaml`.
    Mesh,
    /// `policies/waivers.yaml`.
    Waivers,
    /// `policies/*.tests.yaml`.
    PolicyTests,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values.
    Csv,
    /// A JSON array of objects.
    Json,
    /// Apache Parquet.
    Parquet,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// A mesh directory, a product's folder or a manifest (default: the mesh around the working folder)
    pub(crate) path: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: FindingsFormat,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// domain/product, a product's name, or the folder of its manifest; `@1` behind a name means its major version 1
    pub(crate) product: String,
    /// Data for a table: a file, folder or glob, s3://, gs:// or az:// likewise, an https:// file, or `-` for standard
    /// input; may be repeated
    #[arg(value_name = "TABLE=PATH")]
    pub(crate) inputs: Vec<String>,
    /// Format of the data named on the command line (default: as in the manifest, else by file name)
    #[arg(long, value_enum)]
    pub(crate) input_format: Option<InputFormat>,
    /// Audit and report, but commit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Publish even if the same content was published before
    #[arg(long)]
    pub(crate) again: bool,
    /// Read everything again, whatever the watermark says; so does `--again`. Not with `write: append`, which would add
    /// the rows twice
    #[arg(long)]
    pub(crate) full: bool,
    /// Name this publication; another one with the same key is a repeat
    #[arg(long, value_name = "KEY", conflicts_with = "again")]
    pub(crate) idempotency_key: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

/// What a plan allows.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PlanningArguments {
    /// Let products be retired that others read
    #[arg(long)]
    pub(crate) allow_retire: bool,
    /// Take changes whose effect the text does not tell as breaking nothing: you have looked at them
    #[arg(long)]
    pub(crate) acknowledge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// A mesh directory, a domain's folder or a product's folder (default: the mesh around the working folder)
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) planning: PlanningArguments,
    /// Write the plan to a file that `datamesh apply` takes
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Exit with 0 where there is nothing to do, with 2 where there are changes
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    /// A mesh directory, a domain's folder, a product's folder, or a plan file (default: the mesh around the working
    /// folder)
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) planning: PlanningArguments,
    /// Show the plan, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

/// Formats of data named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Delimited text.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    Json,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, file or stream.
    #[value(alias = "ipc")]
    Arrow,
    /// An Avro object container file.
    Avro,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// domain/product, a product's name, or the folder of its manifest; `@1` behind a name means its major version 1
    #[arg(required_unless_present = "all")]
    pub(crate) product: Option<String>,
    /// Run everything it rests on first, in the order of dependencies; independent products side by side
    #[arg(long, conflicts_with = "all")]
    pub(crate) upstream: bool,
    /// Run every product of the mesh that has sources or transforms
    #[arg(long, conflicts_with = "product")]
    pub(crate) all: bool,
    /// Run even if the same inputs were read before
    #[arg(long)]
    pub(crate) again: bool,
    /// Read the whole of every input, and replace what incremental tables hold
    #[arg(long)]
    pub(crate) full_refresh: bool,
    /// Run, audit and report, but commit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Name this publication; another one with the same key is a repeat
    #[arg(long, value_name = "KEY", conflicts_with_all = ["again", "upstream", "all"])]
    pub(crate) idempotency_key: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// domain/product, a product's name, or the folder of its manifest; `@1` behind a name means its major version 1 (default: every product)
    pub(crate) product: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArguments {
    /// The SQL query, or `-` to read it from standard input
    pub(crate) sql: String,
    /// Read every table as it was: after a publication, by its number, or at a time (UTC)
    #[arg(long, value_name = "PUBLICATION|TIME", value_parser = parse_as_of)]
    pub(crate) as_of: Option<AsOf>,
    /// Give the query a table outside the mesh: any Iceberg table, by its metadata document; may be repeated
    #[arg(long = "table", value_name = "NAME=METADATA")]
    pub(crate) tables: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RowFormat,
    /// Write to a file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A publication's number, or a time: RFC 3339, or a date with or without a time of day, which are UTC.
///
/// # Errors
/// What it is instead.
pub fn parse_as_of(text: &str) -> Result<AsOf, String> {
    if let Ok(number) = text.parse() {
        return Ok(AsOf::Publication(number));
    }
    parse_time(text)
        .map(AsOf::Time)
        .map_err(|_| "it is neither the number of a publication nor a time such as 2026-01-31T12:00:00Z".to_owned())
}

/// A time: RFC 3339, or a date with or without a time of day, which are UTC.
pub(crate) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok();
    let naive = || {
        let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
        formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).map(|time| time.and_utc())
    };
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN).and_utc());
    zoned.or_else(naive).or_else(date).ok_or_else(|| "it is no time such as 2026-01-31T12:00:00Z".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// domain/product or a product's name; `@1` behind it means its major version 1
    pub(crate) product: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct PublicationsArguments {
    /// domain/product or a product's name; `@1` behind it means its major version 1
    pub(crate) product: String,
    /// How many, newest first
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArguments {
    /// domain/product or a product's name; `@1` behind it means its major version 1
    pub(crate) product: String,
    /// The publication whose tables are to serve again
    #[arg(long, value_name = "PUBLICATION")]
    pub(crate) to: u64,
    /// Check and report, but commit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Publish quarantined rows again, after the contract or the rows were mended
    #[command(
        after_help = "Examples:\n  datamesh quarantine retry weather/observations\n  datamesh quarantine retry observations --publication 12 --table hourly --dry-run\n  datamesh quarantine observations --table hourly --format csv --reveal --out mended.csv\n  datamesh quarantine retry observations --table hourly --from mended.csv\n\nRows go through the same audit, by the manifest of now, and are added by the table's write mode; rows that fail again\nstay in quarantine, under the new publication. Rows are published once: a second retry finds nothing to do. Raw texts\nare read again as the table's source is described now. What a replaced table held back can be retried while that\npublication still serves, and a backfill of any partition ends it too. An upsert table takes back what its newest\npublication held back: older rows could overwrite newer ones, or bring back deleted ones, so that they need\n--publication and --over-newer. With --from the rows of the file take the place of the quarantined ones.\nA product called `retry` is written `domain/retry`."
    )]
    Retry(RetryArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// domain/product, a product's name, or the folder of its manifest; `@1` behind a name means its major version 1
    pub(crate) product: String,
    /// The publication whose quarantine it is (default: every one with rows that are not settled)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) publication: Option<u64>,
    /// Only this table
    #[arg(long)]
    pub(crate) table: Option<String>,
    /// Publish the mended rows in this file instead, and settle the quarantined ones
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<String>,
    /// Publish rows of an upsert table even over what was published since
    #[arg(long, requires = "publication")]
    pub(crate) over_newer: bool,
    /// Audit and report, but commit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct QuarantineArguments {
    #[command(subcommand)]
    pub(crate) command: Option<QuarantineCommand>,
    /// domain/product or a product's name; `@1` behind it means its major version 1
    #[arg(required = true)]
    pub(crate) product: Option<String>,
    /// Only this table
    #[arg(long)]
    pub(crate) table: Option<String>,
    /// The publication (default: the newest attempt)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) publication: Option<u64>,
    /// Show protected values in clear; this is recorded
    #[arg(long)]
    pub(crate) reveal: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RowFormat,
    /// Write to a file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct MaintainArguments {
    /// Only this product: domain/product or its name
    pub(crate) product: Option<String>,
    /// Report what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long a file must have been without a reference before it is deleted
    #[arg(long, value_name = "PERIOD", default_value = "24h")]
    pub(crate) older_than: String,
    /// Size that a merged data file should have, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) target_size: u64,
    /// Leave small data files as they are
    #[arg(long)]
    pub(crate) no_compact: bool,
    /// Keep every snapshot
    #[arg(long)]
    pub(crate) no_expire: bool,
    /// Delete nothing
    #[arg(long)]
    pub(crate) no_delete: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}
