//! A plan for people: `+` is new, `~` changes, `-` goes.

use datamesh_app::apply::ApplyReport;
use datamesh_core::plan::{
    Consumer, DomainAction, FieldChange, MeshPlan, Planned, ProductAction, ProductStep, Refusal,
};
use serde_json::Value;

use crate::output::{colours, paint};

const ADDED: &str = "32";
const CHANGED: &str = "33";
const REMOVED: &str = "31";
const QUIET: &str = "2";
/// Longest value that is shown whole.
const MAX_VALUE: usize = 60;

struct Painter {
    on: bool,
}

impl Painter {
    fn mark(&self, sign: &str, text: &str) -> String {
        let code = match sign {
            "+" => ADDED,
            "-" => REMOVED,
            _ => CHANGED,
        };
        paint(&format!("{sign} {text}"), code, self.on)
    }

    fn quiet(&self, text: &str) -> String {
        paint(text, QUIET, self.on)
    }
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        // A whole column or table: its name and type say enough.
        Value::Object(fields) => match fields.get("type").map(ToString::to_string) {
            Some(kind) => kind.trim_matches('"').to_owned(),
            None => value.to_string(),
        },
        other => other.to_string(),
    };
    if text.chars().count() <= MAX_VALUE {
        return text.replace('\n', " ");
    }
    let short: String = text.chars().take(MAX_VALUE).collect();
    format!("{}…", short.replace('\n', " "))
}

fn change(painter: &Painter, change: &FieldChange, indent: &str) -> String {
    let rule = painter.quiet(&format!("  [{}: {}]", change.bump, change.rule));
    let (sign, what) = match (&change.before, &change.after) {
        (None, Some(after)) => ("+", format!("{}: {}", change.path, value(after))),
        (Some(before), None) => ("-", format!("{}: {}", change.path, value(before))),
        (Some(before), Some(after)) => ("~", format!("{}: {} -> {}", change.path, value(before), value(after))),
        (None, None) => ("~", change.path.clone()),
    };
    let mut text = format!("{indent}{}{rule}\n", painter.mark(sign, &what));
    for affected in &change.affects {
        text.push_str(&format!("{indent}    {}\n", painter.quiet(&format!("felt by {affected}"))));
    }
    text
}

fn consumers(painter: &Painter, consumers: &[Consumer], indent: &str) -> String {
    let one = |consumer: &Consumer| format!("{} ({})", consumer.product, consumer.owner);
    match consumers {
        [] => String::new(),
        consumers => {
            let names: Vec<String> = consumers.iter().map(one).collect();
            format!("{indent}{}\n", painter.quiet(&format!("read by {}", names.join(", "))))
        }
    }
}

fn product(painter: &Painter, step: &ProductStep) -> String {
    let id = &step.product;
    let sign = match step.action {
        ProductAction::Create | ProductAction::NewMajor => "+",
        ProductAction::Update | ProductAction::Deprecate => "~",
        ProductAction::Retire => "-",
    };
    let versions = match (&step.before, step.action) {
        (Some(before), ProductAction::NewMajor) => format!("{} beside {before}", step.version),
        (Some(before), _) if *before != step.version => format!("{before} -> {}", step.version),
        _ => step.version.to_string(),
    };
    let what = match step.action {
        ProductAction::Create => "is new".to_owned(),
        ProductAction::NewMajor => "is a new major version".to_owned(),
        ProductAction::Update => "changes".to_owned(),
        ProductAction::Deprecate => {
            format!("is deprecated, supported until {}", step.contract.end_of_support().unwrap_or("nobody knows when"))
        }
        ProductAction::Retire => "is retired".to_owned(),
    };
    let mut text = format!("{}\n", painter.mark(sign, &format!("{id} {versions} {what}")));
    for one in &step.changes {
        text.push_str(&change(painter, one, "    "));
    }
    text + &consumers(painter, &step.consumers, "    ")
}

fn steps(painter: &Painter, plan: &MeshPlan) -> String {
    let mut text = String::new();
    if let Some(step) = &plan.governance {
        text.push_str(&format!("{}\n", painter.mark("~", "principals and policies change")));
        for change in &step.changes {
            let (sign, what) = change.split_at_checked(2).unwrap_or(("", change));
            text.push_str(&format!("    {}\n", painter.mark(sign.trim(), what)));
        }
    }
    for step in &plan.domains {
        let (sign, what) = match step.action {
            DomainAction::Create => ("+", "is new"),
            DomainAction::Update => ("~", "changes"),
            DomainAction::Remove => ("-", "is removed"),
        };
        text.push_str(&format!("{}\n", painter.mark(sign, &format!("domain {} {what}", step.name))));
        for change in &step.changes {
            text.push_str(&format!("    {}\n", painter.mark("~", change)));
        }
    }
    for moved in &plan.moves {
        let what = format!("{} moves to {}, with its history", moved.from, moved.to);
        text.push_str(&format!("{}\n", painter.mark("~", &what)));
        text.push_str(&consumers(painter, &moved.consumers, "    "));
    }
    for step in &plan.products {
        text.push_str(&product(painter, step));
    }
    text
}

fn refusal(painter: &Painter, refusal: &Refusal) -> String {
    let head = paint(&format!("refused [{}]", refusal.id.as_str()), "1;31", painter.on);
    let mut text = format!("{head} {}: {}\n", refusal.subject, refusal.message);
    for one in &refusal.changes {
        text.push_str(&change(painter, one, "    "));
    }
    text.push_str(&consumers(painter, &refusal.consumers, "    "));
    text + &format!("    {} {}\n", paint("help:", "36", painter.on), refusal.help)
}

fn summary(plan: &MeshPlan) -> String {
    let count = |wanted: &[ProductAction]| plan.products.iter().filter(|step| wanted.contains(&step.action)).count();
    let mut parts = Vec::new();
    parts.extend(plan.governance.as_ref().map(|_| "policies".to_owned()));
    for (number, what) in [
        (plan.domains.len(), if plan.domains.len() == 1 { "domain" } else { "domains" }),
        (plan.moves.len(), "to move"),
        (count(&[ProductAction::Create, ProductAction::NewMajor]), "to create"),
        (count(&[ProductAction::Update, ProductAction::Deprecate]), "to change"),
        (count(&[ProductAction::Retire]), "to retire"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

/// What a plan shows.
pub(crate) fn planned(planned: &Planned) -> String {
    let painter = Painter { on: colours(crate::caller::stdout_is_terminal()) };
    if planned.plan.is_empty() && planned.refusals.is_empty() {
        return format!("nothing to do: {} products are as the manifests say\n", planned.unchanged);
    }
    let mut text = steps(&painter, &planned.plan);
    for note in &planned.notes {
        let head = paint(&format!("warning [{}]", note.policy), "1;33", painter.on);
        text.push_str(&format!("{head} {}: {}\n", note.subject, note.message));
        text.push_str(&format!("    {} {}\n", paint("help:", "36", painter.on), note.help));
    }
    for one in &planned.refusals {
        text.push_str(&refusal(&painter, one));
    }
    if planned.refusals.is_empty() {
        text.push_str(&format!("plan: {}; `datamesh apply` does it\n", summary(&planned.plan)));
    }
    text
}

/// What an apply shows.
pub(crate) fn applied(planned: &Planned, report: &ApplyReport) -> String {
    let painter = Painter { on: colours(crate::caller::stdout_is_terminal()) };
    if !report.changed {
        return "nothing to do: the registry is as the manifests say\n".to_owned();
    }
    let mut text = steps(&painter, &planned.plan);
    for table in &report.evolved {
        let how = if report.backfilled.contains(table) { ", and its rows have the default" } else { "" };
        text.push_str(&format!("{}\n", painter.quiet(&format!("table {table} has its new schema{how}"))));
    }
    text + &format!("applied: {} (generation {})\n", summary(&planned.plan), report.generation)
}
