//! Bringing an earlier snapshot back: its rows must have the shape that the contract asks for now.

use datamesh_core::{Error, ErrorCode, Result, Table};
use datamesh_iceberg::{OpenTable, TableDraft};

/// Checks from the manifests alone that no required column would be null.
pub(crate) async fn check(table: &Table, then: Option<&Table>, open: OpenTable, snapshot: i64) -> Result<()> {
    let files = open.live_files(Some(snapshot)).await?;
    let location = open.table_location().to_owned();
    let draft = TableDraft::new(table, &location, Some(open))?;
    for column in table.columns.iter().filter(|column| column.required || column.primary_key) {
        let required_then =
            then.and_then(|then| then.column(&column.name)).is_some_and(|column| column.required || column.primary_key);
        if required_then || files.is_empty() {
            continue;
        }
        let nulls = if column.data_type.is_scalar() { draft.nulls_in(&files, &column.name) } else { None };
        let why = match nulls {
            Some(0) => continue,
            Some(nulls) => format!("{nulls} of its rows have none"),
            None => "its files do not say whether every row has one".to_owned(),
        };
        return Err(Error::new(
            ErrorCode::IncompatibleChange,
            format!("table `{}` cannot go back: column `{}` is required since, and {why}", table.name, column.name),
        )
        .with_help(
            "go back to a later publication, or publish under a contract in which the column is not required first",
        ));
    }
    Ok(())
}
