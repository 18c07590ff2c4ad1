//! `access:` of a product: what it offers to roles.

use std::collections::BTreeSet;

use datamesh_core::access::find_column;
use datamesh_core::{Level, Name, Period, Table, row_condition};

use super::text;
use crate::governance::{entries, meant};
use crate::yaml::{Document, Kind, Node};

/// Checks the offers of a product with these tables. The contract keeps them as written.
pub(super) fn check(document: &mut Document<'_>, product: &Node, tables: &[Table]) {
    // The role, and the tables that it is offered already.
    let mut taken: Vec<(String, BTreeSet<String>)> = Vec::new();
    for entry in product.get("access").and_then(Node::items).unwrap_or_default() {
        if !matches!(entry.kind, Kind::Mapping(_)) {
            continue;
        }
        for key in ["tables", "columns", "purpose"] {
            refuse_empty(document, entry, key);
        }
        let covered = read_tables(document, entry, tables);
        check_role(document, entry, &covered, &mut taken);
        let visible = check_columns(document, entry, &covered);
        check_unmasked(document, entry, &covered, visible.as_ref());
        check_rows(document, entry, &covered);
        check_terms(document, entry);
    }
}

/// Where a list is left out everything is meant; an empty one would say the same by mistake.
fn refuse_empty(document: &mut Document<'_>, entry: &Node, key: &str) {
    let Some(at) = entry.get(key) else { return };
    if at.items().is_some_and(<[Node]>::is_empty) {
        let help = format!("list some, or leave `{key}` out where all are meant");
        document.error("empty-list", at.span, format!("`{key}` names none"), help);
    }
}

/// The tables that the entry is about: all of them where it names none.
fn read_tables<'t>(document: &mut Document<'_>, entry: &Node, tables: &'t [Table]) -> Vec<&'t Table> {
    if entry.get("tables").is_none() {
        return tables.iter().collect();
    }
    let mut covered: Vec<&Table> = Vec::new();
    for at in entry.get("tables").and_then(Node::items).unwrap_or_default() {
        let Some(name) = at.text().map(str::trim) else { continue };
        let wanted = Name::new(name).map(|name| name.sql()).unwrap_or_default();
        match tables.iter().find(|table| table.name.sql() == wanted) {
            Some(table) if covered.iter().any(|other| other.name == table.name) => {
                document.error("duplicate-name", at.span, format!("`{name}` is named twice"), "keep one of them");
            }
            Some(table) => covered.push(table),
            None => {
                let names = tables.iter().map(|table| table.name.as_str());
                let help = meant(name, names, "name a table of this product");
                document.error("unknown-table", at.span, format!("the product has no table `{name}`"), help);
            }
        }
    }
    covered
}

fn check_role(
    document: &mut Document<'_>,
    entry: &Node,
    covered: &[&Table],
    taken: &mut Vec<(String, BTreeSet<String>)>,
) {
    let (Some(at), Some(role)) = (entry.get("role"), text(entry, "role")) else { return };
    if role.is_empty() {
        document.error("empty-text", at.span, "`role` is empty", "name the role that is offered something");
        return;
    }
    let own: BTreeSet<String> = covered.iter().map(|table| table.name.sql()).collect();
    let clash =
        taken.iter().filter(|(other, _)| *other == role).find_map(|(_, tables)| own.intersection(tables).next());
    if let Some(table) = clash {
        let message = format!("role `{role}` is offered table `{table}` already");
        let help = "put both together: a role is offered each table once, and grants of several roles are a union";
        document.error("duplicate-access", at.span, message, help);
    }
    taken.push((role, own));
}

/// Reports a name that is no column of a covered table.
fn unknown_column(document: &mut Document<'_>, at: &Node, name: &str, covered: &[&Table]) {
    let names = covered.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str());
    let help = meant(name, names, "write `column`, or `table.column`");
    let message = format!("no table that the role is offered has a column `{name}`");
    document.error("unknown-column", at.span, message, help);
}

/// The columns that are seen at all, with their tables; `None` where all of them are.
fn check_columns(document: &mut Document<'_>, entry: &Node, covered: &[&Table]) -> Option<BTreeSet<(String, String)>> {
    let listed = entry.get("columns")?.items()?;
    let mut visible = BTreeSet::new();
    for at in listed {
        let Some(name) = at.text().map(str::trim) else { continue };
        let found: Vec<_> = covered.iter().filter_map(|table| Some((table, find_column(table, name)?.0))).collect();
        if found.is_empty() && !covered.is_empty() {
            unknown_column(document, at, name, covered);
        } else if found.iter().any(|(_, path)| path.len() > 1) {
            let message = format!("`{name}` is a field: a role sees a column or does not");
            document.error(
                "not-a-column",
                at.span,
                message,
                "name the whole column; mask the fields that are not shown",
            );
        }
        let mut repeated = false;
        for (table, path) in found {
            repeated |= !visible.insert((table.name.sql(), path.join(".")));
        }
        if repeated {
            document.error("duplicate-name", at.span, format!("`{name}` is named twice"), "keep one of them");
        }
    }
    Some(visible)
}

fn check_unmasked(
    document: &mut Document<'_>,
    entry: &Node,
    covered: &[&Table],
    visible: Option<&BTreeSet<(String, String)>>,
) {
    let mut named: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    for at in entry.get("unmasked").and_then(Node::items).unwrap_or_default() {
        let Some(name) = at.text().map(str::trim) else { continue };
        let found: Vec<_> = covered.iter().filter_map(|table| Some((*table, find_column(table, name)?))).collect();
        if found.is_empty() {
            if !covered.is_empty() {
                unknown_column(document, at, name, covered);
            }
            continue;
        }
        let hidden = found.iter().all(|(table, (path, _))| {
            visible.is_some_and(|visible| !visible.contains(&(table.name.sql(), path[0].clone())))
        });
        if hidden {
            let message = format!("`{name}` is unmasked, but `columns` does not let the role see it");
            document.error("unmasked-hidden", at.span, message, "add it to `columns`, or take it out here");
        }
        // What a query makes may be protected by what it is made of.
        let protected = found.iter().any(|(table, (path, column))| {
            column.is_protected() || table.transform.is_some() || inside_protected(table, path)
        });
        if !protected {
            let message = format!("`{name}` is not protected, so everybody who sees it sees it in clear");
            let help = "give the column `pii: true` or a `mask`, or take it out here";
            document.report(Level::Warning, "not-protected", at.span, message, help);
        }
        let mut repeated = false;
        for (table, (path, _)) in found {
            repeated |= !named.insert((table.name.sql(), path));
        }
        if repeated {
            document.error("duplicate-name", at.span, format!("`{name}` is named twice"), "keep one of them");
        }
    }
}

/// Whether a column around a field is personal data or masked as a whole.
fn inside_protected(table: &Table, path: &[String]) -> bool {
    (1..path.len()).any(|length| {
        let outer = find_column(table, &path[..length].join("."));
        outer.is_some_and(|(_, column)| column.pii || column.mask.as_deref().is_some_and(|mask| mask != "none"))
    })
}

/// The engine checks the condition as SQL. What can be told from its words alone is told here, with its place.
fn check_rows(document: &mut Document<'_>, entry: &Node, covered: &[&Table]) {
    let (Some(at), Some(rows)) = (entry.get("rows"), text(entry, "rows")) else { return };
    if rows.is_empty() {
        let help = "write a condition such as `country = principal.country`, or leave `rows` out where all are seen";
        document.error("empty-text", at.span, "`rows` is empty", help);
        return;
    }
    let mut told = BTreeSet::new();
    for path in row_condition::compared_columns(&rows) {
        // Names without quotes are compared as SQL does, without case; what they mean exactly the engine tells.
        let known =
            |table: &Table, name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let has = |table: &Table| {
            let qualified = path.len() > 1 && path[0].eq_ignore_ascii_case(&table.name.sql());
            known(table, &path[0]) || (qualified && known(table, &path[1]))
        };
        let lacks = covered.iter().find(|table| !has(table));
        let name = path.join(".");
        if let Some(table) = lacks
            && told.insert(name.clone())
        {
            let names = table.columns.iter().map(|column| column.name.as_str());
            let help = meant(
                &name,
                names,
                "a row filter reads columns of every table that the role is offered; list the `tables` that have it",
            );
            let message = format!("table `{}` has no column `{name}`, which `rows` compares", table.name);
            document.error("unknown-column", at.span, message, help);
        }
    }
}

/// Who approves, how many of them, and for how long.
fn check_terms(document: &mut Document<'_>, entry: &Node) {
    if let Some(at) = entry.get("expires")
        && let Some(written) = at.text()
    {
        let wrong = match Period::parse(written) {
            Err(why) => Some(why),
            Ok(period) if period == Period::default() => Some(format!("`{written}` is no time at all")),
            Ok(_) => None,
        };
        if let Some(why) = wrong {
            document.error("invalid-period", at.span, why, "write how long a grant lasts at most, such as `90d`");
        }
    }
    let mut approvers: BTreeSet<&str> = BTreeSet::new();
    for at in entries(entry, "approvers") {
        let Some(approver) = at.text().map(str::trim) else { continue };
        let wrong = match approver.split_once(':') {
            Some(("team" | "user", name)) => name.is_empty(),
            Some(("service" | "role", _)) => true,
            _ => approver.is_empty(),
        };
        if wrong {
            let message = format!("`{}` cannot approve", approver.escape_default());
            document.error("invalid-approver", at.span, message, "name a team, or a person as `user:<name>`");
        } else if !approvers.insert(approver) {
            document.error("duplicate-name", at.span, format!("`{approver}` is named twice"), "keep one of them");
        }
    }
    let Some(at) = entry.get("approvals") else { return };
    match at.number() {
        Some(1.0) => {}
        Some(2.0) => check_two(document, entry, at, &approvers),
        _ => {
            document.error(
                "invalid-approvals",
                at.span,
                "`approvals` is 1 or 2",
                "write 1, or 2 for two different people",
            );
        }
    }
}

/// Two different people must be there to approve.
fn check_two(document: &mut Document<'_>, entry: &Node, approvals: &Node, approvers: &BTreeSet<&str>) {
    let named = entries(entry, "approvers").len();
    if named == 0 {
        let message = "two people must approve, but nobody is named below `approvers`";
        document.error("approvers-missing", approvals.span, message, "name teams, or people as `user:<name>`");
    } else if approvers.len() == 1 && approvers.iter().all(|approver| approver.starts_with("user:")) {
        let message = "two different people must approve, but only one is named";
        document.error("approvers-missing", approvals.span, message, "name another one, or a team");
    }
}
