//! Models as tables: columns, types and constraints.

use datamesh_core::DataType;
use datamesh_core::contract::bad_column_name;
use datamesh_core::reference::comparable;

use super::{Report, THEIRS, text_of, to_name, types};
use crate::standards::tree::{Map, Tree};

/// A table on its way.
pub(super) struct TableDraft {
    /// dbt's unique id of the model.
    pub(super) id: String,
    /// The model's name.
    pub(super) model: String,
    /// The table's name.
    pub(super) name: String,
    /// The model's relation in its warehouse.
    pub(super) relation: Option<String>,
    /// What the table says before its columns.
    head: Map,
    pub(super) columns: Vec<ColumnDraft>,
    unique: Vec<Tree>,
    pub(super) quality: Vec<Tree>,
    references: Vec<Tree>,
    meta: Map,
    theirs: Map,
    /// Tests that have no counterpart.
    pub(super) tests: Vec<Tree>,
    constraints: Vec<Tree>,
    /// Constraints of the model and its columns that are still to be mapped.
    pending: Vec<(Option<String>, Tree)>,
    /// The tables that it refers to.
    refers: Vec<String>,
}

/// A column on its way.
pub(super) struct ColumnDraft {
    pub(super) name: String,
    /// Its type, where there is one in our words.
    pub(super) data_type: Option<DataType>,
    pub(super) keys: Map,
    fields: Vec<ColumnDraft>,
    meta: Map,
    theirs: Map,
    pub(super) tests: Vec<Tree>,
    constraints: Vec<Tree>,
}

/// A value of a node's `config`.
pub(super) fn config<'m>(node: &'m Map, key: &str) -> Option<&'m Tree> {
    node.get("config").and_then(|config| config.get(key)).filter(|value| **value != Tree::Null)
}

/// A node's `meta`, which newer versions write below `config`.
pub(super) fn meta(node: &Map) -> Option<&Map> {
    let filled = |meta: Option<&'_ Tree>| meta.and_then(Tree::as_map).is_some_and(|meta| !meta.is_empty());
    let own = node.get("meta");
    if filled(own) { own.and_then(Tree::as_map) } else { config(node, "meta").and_then(Tree::as_map) }
}

fn tags(node: &Map) -> Option<Tree> {
    let own = node.get("tags").filter(|tags| tags.as_list().is_some_and(|tags| !tags.is_empty()));
    match own.or_else(|| config(node, "tags"))? {
        Tree::Text(tag) => Some(Tree::List(vec![tag.as_str().into()])),
        Tree::List(tags) if !tags.is_empty() => Some(Tree::List(tags.clone())),
        _ => None,
    }
}

fn description(node: &Map) -> Option<&str> {
    text_of(node, "description").map(str::trim).filter(|text| !text.is_empty())
}

impl TableDraft {
    pub(super) fn new(report: &mut Report, id: &str, model: &Map, adapter: &str) -> Self {
        let model_name = text_of(model, "name").unwrap_or(id).to_owned();
        let name = to_name(&model_name).unwrap_or_else(|| model_name.clone());
        if name != model_name {
            let message = format!("model `{model_name}` becomes table `{name}`");
            report.warn(
                "renamed",
                message,
                "names are letters, digits, `-` and `_`; the suffix `_v<digits>` is reserved",
            );
        }
        let mut head = Map::new();
        head.put_some("description", description(model));
        head.put_some("tags", tags(model));
        let materialized = config(model, "materialized").and_then(Tree::as_text);
        if matches!(materialized, Some("table" | "view" | "materialized_view")) {
            head.put("write", "replace");
        }
        let mut theirs = Map::new();
        theirs.put("unique_id", id);
        theirs.put_some("relation", text_of(model, "relation_name"));
        theirs.put_some("materialized", materialized);
        for key in ["unique_key", "incremental_strategy", "partition_by", "cluster_by", "on_schema_change"] {
            theirs.put_some(key, config(model, key).filter(|value| value.as_text() != Some("ignore")).cloned());
        }
        for key in ["access", "group", "version", "latest_version", "deprecation_date"] {
            let value = model.get(key).or_else(|| config(model, key));
            theirs.put_some(
                key,
                value.filter(|value| **value != Tree::Null && value.as_text() != Some("protected")).cloned(),
            );
        }
        let needs =
            model.get("depends_on").and_then(|needs| needs.get("nodes")).and_then(Tree::as_list).unwrap_or_default();
        if !needs.is_empty() {
            theirs.put("depends_on", needs.to_vec());
        }
        let mut table = Self {
            id: id.to_owned(),
            model: model_name,
            name,
            relation: text_of(model, "relation_name").map(str::to_owned),
            head,
            columns: Vec::new(),
            unique: Vec::new(),
            quality: Vec::new(),
            references: Vec::new(),
            meta: meta(model).cloned().unwrap_or_default(),
            theirs,
            tests: Vec::new(),
            constraints: Vec::new(),
            pending: Vec::new(),
            refers: Vec::new(),
        };
        let contract = config(model, "contract").or_else(|| model.get("contract"));
        let enforced = contract.and_then(|contract| contract.get("enforced")).and_then(Tree::as_bool) == Some(true);
        for (name, column) in model.get("columns").and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            if let Some(column) = column.as_map() {
                let name = text_of(column, "name").unwrap_or(name).to_owned();
                table.add_column(report, &name, column, adapter, enforced);
            }
        }
        for constraint in model.get("constraints").and_then(Tree::as_list).unwrap_or_default() {
            table.take_constraint(None, constraint, enforced);
        }
        if table.columns.is_empty() {
            let message = format!("model `{}` describes no column", table.model);
            report.warn(
                "no-columns",
                message,
                "describe its columns in dbt, or declare them in the manifest: `check` refuses a table without",
            );
        } else if !enforced {
            let message =
                format!("model `{}` has no enforced contract: it may have columns that are not described", table.model);
            report.warn(
                "no-contract",
                message,
                "set `contract: {enforced: true}` in dbt, or compare with `datamesh profile`",
            );
        }
        table
    }

    fn add_column(&mut self, report: &mut Report, name: &str, column: &Map, adapter: &str, enforced: bool) {
        let mut draft = ColumnDraft::new(report, &self.model, name, column, adapter);
        for constraint in column.get("constraints").and_then(Tree::as_list).unwrap_or_default() {
            self.take_constraint(Some(name), constraint, enforced);
        }
        // BigQuery: `address.city` describes a field of `address`.
        if let Some((parent, field)) = name.rsplit_once('.')
            && let Some(parent) = find(&mut self.columns, parent)
            && matches!(&parent.data_type, Some(DataType::Struct(fields)) if fields.is_empty())
        {
            draft.name = field.to_owned();
            parent.fields.push(draft);
        } else if bad_column_name(name).is_some() && name.contains('.') {
            let message =
                format!("column `{name}` of model `{}` is a field of a column that is described otherwise", self.model);
            report.warn("not-imported", message, "it is kept below `custom.dbt.fields` of the table");
            let mut fields = self.theirs.take_map("fields").unwrap_or_default();
            fields.put(name, column.clone());
            self.theirs.put("fields", fields);
        } else {
            self.columns.push(draft);
        }
    }

    fn take_constraint(&mut self, column: Option<&str>, constraint: &Tree, enforced: bool) {
        if enforced {
            self.pending.push((column.map(str::to_owned), constraint.clone()));
        } else {
            self.keep_constraint(column, constraint.clone());
        }
    }

    fn keep_constraint(&mut self, column: Option<&str>, constraint: Tree) {
        match column.and_then(|name| find(&mut self.columns, name)) {
            Some(column) => column.constraints.push(constraint),
            None => self.constraints.push(constraint),
        }
    }

    pub(super) fn column(&self, name: &str) -> Option<&ColumnDraft> {
        let found = self.columns.iter().find(|column| column.name == name);
        found.or_else(|| self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)))
    }

    pub(super) fn column_mut(&mut self, name: &str) -> Option<&mut ColumnDraft> {
        let name = self.column(name)?.name.clone();
        self.columns.iter_mut().find(|column| column.name == name)
    }

    /// Declares that columns are unique together. `false` where they cannot be a key.
    pub(super) fn add_unique(&mut self, names: &[String]) -> bool {
        let columns: Vec<_> = names.iter().filter_map(|name| self.column(name)).collect();
        let scalar = |column: &&ColumnDraft| column.data_type.as_ref().is_none_or(DataType::is_scalar);
        if columns.len() != names.len() || names.is_empty() || !columns.iter().all(scalar) {
            return false;
        }
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        match names.as_slice() {
            [only] => {
                if let Some(column) = self.column_mut(only) {
                    column.keys.put("unique", true);
                }
            }
            _ => {
                let key = Tree::List(names.iter().map(Tree::text).collect());
                if !self.unique.contains(&key) {
                    self.unique.push(key);
                }
            }
        }
        true
    }

    pub(super) fn finish(self) -> Tree {
        let mut table = Map::new();
        table.put("name", self.name);
        for (key, value) in self.head {
            table.put(key, value);
        }
        table.put("columns", self.columns.into_iter().map(ColumnDraft::finish).collect::<Vec<_>>());
        for (key, list) in [("unique", self.unique), ("quality", self.quality), ("references", self.references)] {
            if !list.is_empty() {
                table.put(key, list);
            }
        }
        table.put_filled("custom", custom(self.meta, self.theirs, self.tests, self.constraints));
        table.into()
    }
}

impl ColumnDraft {
    fn new(report: &mut Report, model: &str, name: &str, column: &Map, adapter: &str) -> Self {
        let said = text_of(column, "data_type").map(str::trim).filter(|text| !text.is_empty());
        let found = said.and_then(|text| types::data_type(text, adapter));
        let mut keys = Map::new();
        let mut theirs = Map::new();
        match (&found, said) {
            (Some((data_type, length)), Some(said)) => {
                keys.put(
                    "type",
                    match data_type {
                        DataType::Struct(fields) if fields.is_empty() => "struct".to_owned(),
                        other => other.to_string(),
                    },
                );
                if !said.eq_ignore_ascii_case(&data_type.to_string()) {
                    theirs.put("data_type", said);
                }
                if let Some(length) = length {
                    keys.put("maxLength", Tree::Number(length.to_string()));
                }
            }
            (None, Some(said)) => {
                keys.put("type", format!("TODO dbt says {said}"));
                let message = format!("`{model}.{name}` is `{said}`, which has no counterpart here");
                report.warn("unknown-type", message, "write its type in place of the TODO");
            }
            (_, None) => {
                keys.put("type", "TODO");
                let message = format!("`{model}.{name}` has no `data_type`");
                report.warn("unknown-type", message, "write its type in place of the TODO, or `data_type` in dbt");
            }
        }
        keys.put_some("description", description(column));
        let meta = meta(column).cloned().unwrap_or_default();
        if ["pii", "contains_pii"].iter().any(|key| meta.get(key).and_then(Tree::as_bool) == Some(true)) {
            keys.put("pii", true);
        }
        keys.put_some("tags", tags(column));
        Self {
            name: name.to_owned(),
            data_type: found.map(|(data_type, _)| data_type),
            keys,
            fields: Vec::new(),
            meta,
            theirs,
            tests: Vec::new(),
            constraints: Vec::new(),
        }
    }

    fn finish(self) -> Tree {
        let mut column = Map::new();
        column.put("name", self.name);
        for (key, value) in self.keys {
            column.put(key, value);
        }
        if !self.fields.is_empty() {
            column.put("columns", self.fields.into_iter().map(Self::finish).collect::<Vec<_>>());
        }
        column.put_filled("custom", custom(self.meta, self.theirs, self.tests, self.constraints));
        column.into()
    }
}

/// A node's free keys: its `meta`, and what has no counterpart below `dbt`.
fn custom(mut meta: Map, mut theirs: Map, tests: Vec<Tree>, constraints: Vec<Tree>) -> Map {
    if let Some(taken) = meta.take(THEIRS) {
        theirs.put("meta", Map::from_iter([(THEIRS.to_owned(), taken)]));
    }
    for (key, list) in [("tests", tests), ("constraints", constraints)] {
        if !list.is_empty() {
            theirs.put(key, list);
        }
    }
    meta.put_filled(THEIRS, theirs);
    meta
}

/// A column or, by a dotted name, a field of one.
fn find<'c>(columns: &'c mut [ColumnDraft], name: &str) -> Option<&'c mut ColumnDraft> {
    if let Some(at) = columns.iter().position(|column| column.name == name) {
        return columns.get_mut(at);
    }
    let (first, rest) = name.split_once('.')?;
    find(&mut columns.iter_mut().find(|column| column.name == first)?.fields, rest)
}

/// A reference to another table of the project.
pub(super) struct Referral {
    pub(super) columns: Vec<String>,
    /// The other model, by name or unique id.
    pub(super) to: String,
    pub(super) at: Vec<String>,
    /// What else it says: a filter, a severity, thresholds.
    pub(super) how: Map,
}

/// Adds a reference where our contract can hold it; else says why not.
pub(super) fn refer(tables: &mut [TableDraft], index: usize, referral: &Referral) -> Result<(), String> {
    let target = tables
        .iter()
        .find(|table| table.id == referral.to || table.model == referral.to)
        .ok_or_else(|| format!("`{}` is no table of the product", referral.to))?;
    let own = &tables[index];
    let mut columns = Vec::new();
    for (name, there) in referral.columns.iter().zip(&referral.at) {
        let column = own.column(name).ok_or_else(|| format!("`{}` has no column `{name}`", own.model))?;
        let other = target.column(there).ok_or_else(|| format!("`{}` has no column `{there}`", target.model))?;
        if let (Some(one), Some(another)) = (&column.data_type, &other.data_type)
            && !comparable(one, another)
        {
            return Err(format!("`{}` is {one}, but `{}.{}` is {another}", column.name, target.name, other.name));
        }
        columns.push((column.name.clone(), other.name.clone()));
    }
    if columns.is_empty() || referral.columns.len() != referral.at.len() {
        return Err("it does not name as many columns there as here".to_owned());
    }
    let (own_name, target_name) = (own.name.clone(), target.name.clone());
    if own_name != target_name && reaches(tables, &target_name, &own_name, tables.len()) {
        return Err(format!("`{own_name}` and `{target_name}` would refer to each other in a circle"));
    }
    let table = &mut tables[index];
    match columns.as_slice() {
        [(name, there)] => {
            let to = format!("{target_name}.{there}");
            let Some(column) = table.column_mut(name) else { return Err(format!("there is no column `{name}`")) };
            if column.keys.contains("references") {
                let same = column.keys.get("references").and_then(Tree::as_text) == Some(&to);
                return match (same, referral.how.is_empty()) {
                    (true, true) => Ok(()),
                    (true, false) => Err(format!("`{name}` refers to `{to}` in every row already")),
                    (false, _) => Err(format!("`{name}` refers to another column already")),
                };
            }
            if referral.how.is_empty() {
                column.keys.put("references", to);
            } else {
                let to = [("to".to_owned(), Tree::Text(to))];
                column.keys.put("references", Map::from_iter(to.into_iter().chain(referral.how.clone())));
            }
        }
        several => {
            let mut entry = Map::new();
            entry.put("columns", several.iter().map(|(name, _)| Tree::text(name)).collect::<Vec<_>>());
            entry.put("to", target_name.as_str());
            entry.put("at", several.iter().map(|(_, there)| Tree::text(there)).collect::<Vec<_>>());
            for (key, value) in referral.how.clone() {
                entry.put(key, value);
            }
            if !table.references.contains(&Tree::Map(entry.clone())) {
                table.references.push(entry.into());
            }
        }
    }
    table.refers.push(target_name);
    Ok(())
}

fn reaches(tables: &[TableDraft], from: &str, goal: &str, steps: usize) -> bool {
    let Some(table) = tables.iter().find(|table| table.name == from) else { return false };
    let others = || table.refers.iter().filter(|other| *other != from);
    others().any(|other| other == goal) || steps > 0 && others().any(|other| reaches(tables, other, goal, steps - 1))
}

/// Maps the constraints of models whose contract dbt enforces.
pub(super) fn add_constraints(report: &mut Report, tables: &mut [TableDraft]) {
    for index in 0..tables.len() {
        for (column, constraint) in std::mem::take(&mut tables[index].pending) {
            if let Err(why) = add_constraint(tables, index, column.as_deref(), &constraint) {
                let kind = constraint.get("type").and_then(Tree::as_text).unwrap_or("unknown");
                let place = column.as_ref().map_or_else(String::new, |column| format!(".{column}"));
                let message = format!("constraint `{kind}` of `{}{place}` is not mapped: {why}", tables[index].model);
                report.warn("not-imported", message, "it is kept below `custom.dbt.constraints`");
                tables[index].keep_constraint(column.as_deref(), constraint);
            }
        }
    }
}

fn add_constraint(
    tables: &mut [TableDraft],
    index: usize,
    column: Option<&str>,
    constraint: &Tree,
) -> Result<(), String> {
    let text = |key: &str| constraint.get(key).and_then(Tree::as_text).filter(|text| !text.trim().is_empty());
    let list = |key: &str| -> Vec<String> {
        let list = constraint.get(key).and_then(Tree::as_list).unwrap_or_default();
        list.iter().filter_map(Tree::as_text).map(str::to_owned).collect()
    };
    let columns = match column {
        Some(column) => vec![column.to_owned()],
        None => list("columns"),
    };
    let table = &mut tables[index];
    let kind = text("type").unwrap_or_default();
    if kind != "check" {
        if columns.is_empty() {
            return Err("it names no columns".to_owned());
        }
        if let Some(unknown) = columns.iter().find(|name| table.column(name).is_none()) {
            return Err(format!("`{unknown}` is no column of the table"));
        }
    }
    match kind {
        "not_null" | "primary_key" => {
            let scalar = |name: &String| {
                table.column(name).and_then(|column| column.data_type.as_ref()).is_none_or(DataType::is_scalar)
            };
            if kind == "primary_key" && !columns.iter().all(scalar) {
                return Err("a key has scalar columns only".to_owned());
            }
            let key = if kind == "not_null" { "required" } else { "primaryKey" };
            for name in &columns {
                if let Some(column) = table.column_mut(name) {
                    column.keys.put(key, true);
                }
            }
            Ok(())
        }
        "unique" if table.add_unique(&columns) => Ok(()),
        "unique" => Err("a key has scalar columns only".to_owned()),
        "check" => {
            let condition = text("expression").ok_or("it has no expression")?;
            let mut rule = Map::new();
            rule.put_some("name", text("name"));
            rule.put("condition", condition);
            let rule = Tree::Map(rule);
            if !table.quality.contains(&rule) {
                table.quality.push(rule);
            }
            Ok(())
        }
        "foreign_key" => {
            let to = text("to").and_then(|to| super::checks::referred(to).or_else(|| Some(to.to_owned())));
            let known = |to: &str| {
                let wanted = to.to_ascii_lowercase();
                tables.iter().find(|table| {
                    table.relation.as_ref().is_some_and(|relation| relation.to_ascii_lowercase() == wanted)
                        || table.model == to
                })
            };
            let to = to.ok_or("it says in SQL only what it refers to")?;
            let to = known(&to).map_or_else(|| to.clone(), |table| table.id.clone());
            refer(tables, index, &Referral { columns, to, at: list("to_columns"), how: Map::new() })
        }
        other => Err(format!("`{other}` has no counterpart")),
    }
}
