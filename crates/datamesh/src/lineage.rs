//! `datamesh lineage`: where columns come from and what is made of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use datamesh_app::lineage::{LineageReport, LineageScope, of_query, recorded};
use datamesh_core::lineage::{Dataset, Direction, Ink, MESH_NAMESPACE, Trace, facet, mermaid, to_json, tree};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::{home, output};

/// How lineage is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineageFormat {
    /// For people.
    #[default]
    Tree,
    /// For machines, with OpenLineage's column lineage facet.
    Json,
    /// A Mermaid flow chart.
    Mermaid,
}

#[derive(Debug, Args)]
pub(crate) struct LineageArguments {
    /// domain/product, domain/product.table or domain/product.table.column, or their names in SQL
    #[arg(required_unless_present = "sql")]
    pub(crate) subject: Option<String>,
    /// Show the lineage of this query's result instead, or `-` to read the query from standard input
    #[arg(long, value_name = "SQL", conflicts_with_all = ["subject", "down", "publication"])]
    pub(crate) sql: Option<String>,
    /// Only what it comes from
    #[arg(long, conflicts_with = "down")]
    pub(crate) up: bool,
    /// Only what is made of it
    #[arg(long)]
    pub(crate) down: bool,
    /// At most so many steps
    #[arg(long, value_name = "STEPS")]
    pub(crate) depth: Option<usize>,
    /// Only what values are made of: no filters, joins, groups, sorting, windows and conditions
    #[arg(long)]
    pub(crate) direct: bool,
    /// As it was with this publication of the product
    #[arg(long, value_name = "NUMBER")]
    pub(crate) publication: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: LineageFormat,
}

/// Runs the command.
pub(crate) async fn run(arguments: LineageArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let root: PathBuf = home::find(told)?;
    let context = home::context(&root).await?;
    let direction = match (arguments.up, arguments.down) {
        (true, _) => Some(Direction::Up),
        (_, true) => Some(Direction::Down),
        _ => None,
    };
    let scope = LineageScope { direction, depth: arguments.depth, direct_only: arguments.direct };
    let report = match (&arguments.sql, &arguments.subject) {
        (Some(sql), _) => {
            let mut sql = sql.clone();
            if sql == "-" {
                sql.clear();
                std::io::stdin()
                    .read_to_string(&mut sql)
                    .map_err(|error| Error::io(ErrorCode::InvalidQuery, "read", Path::new("standard input"), error))?;
            }
            of_query(&home::engine(&root, memory)?, &context, &sql, scope).await?
        }
        (None, Some(subject)) => recorded(&context, subject, arguments.publication, scope).await?,
        (None, None) => return Err(Error::new(ErrorCode::InvalidArgument, "neither a subject nor a query was named")),
    };
    match arguments.format {
        LineageFormat::Tree => output::print(&text(&report)),
        LineageFormat::Json => output::print_json(&document(&report, &arguments))?,
        LineageFormat::Mermaid => {
            let traces: Vec<&Trace> = report.up.iter().chain(&report.down).collect();
            output::print(&mermaid(&report.roots, &traces));
        }
    }
    Ok(0)
}

fn text(report: &LineageReport) -> String {
    let on = output::colours(crate::caller::stdout_is_terminal());
    let ink = |text: &str, ink: Ink| match ink {
        Ink::Plain => text.to_owned(),
        Ink::Strong => output::paint(text, "1", on),
        Ink::Dim => output::paint(text, "2", on),
    };
    let mut text = String::new();
    for (title, direction, trace) in
        [("comes from", Direction::Up, &report.up), ("is used by", Direction::Down, &report.down)]
    {
        let Some(trace) = trace else { continue };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{title}:\n"));
        if trace.hops.is_empty() {
            text.push_str(match direction {
                Direction::Up => "nothing that is recorded\n",
                Direction::Down => "nothing that is published\n",
            });
        } else {
            text.push_str(&tree(&report.roots, direction, trace, &ink));
        }
    }
    text
}

fn document(report: &LineageReport, arguments: &LineageArguments) -> Value {
    let facets = report.tables.iter().map(|(dataset, lineage)| {
        json!({
            "namespace": dataset.namespace(),
            "name": dataset.name(),
            "columnLineage": facet(lineage, MESH_NAMESPACE),
        })
    });
    let roots = report.roots.iter().map(|root| {
        json!({
            "namespace": root.dataset.namespace(),
            "name": root.dataset.name(),
            "field": root.field.as_ref().map(ToString::to_string),
        })
    });
    let query = report.roots.iter().any(|root| root.dataset == Dataset::Query);
    json!({
        "subject": if query { None } else { arguments.subject.as_deref() },
        "publication": arguments.publication,
        "roots": roots.collect::<Vec<_>>(),
        "up": report.up.as_ref().map(|trace| to_json(Direction::Up, trace)),
        "down": report.down.as_ref().map(|trace| to_json(Direction::Down, trace)),
        "datasets": facets.collect::<Vec<_>>(),
    })
}
