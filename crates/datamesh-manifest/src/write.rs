//! What a table's write mode needs: a key to upsert by, partitions to replace, `deleteWhen` only where rows are upserted.

use datamesh_core::Table;
use datamesh_core::contract::WriteMode;

use crate::yaml::{Document, Node};

/// Checks `write` against the rest of the table, and reads `deleteWhen`.
pub(crate) fn check(document: &mut Document<'_>, table: &mut Table, node: &Node) {
    let at = node.get("write").unwrap_or(node).span;
    match table.write {
        WriteMode::Upsert if table.primary_key().is_empty() => document.error(
            "upsert-without-key",
            at,
            "`write: upsert` replaces rows by primary key, but the table has none",
            "add `primaryKey: true` to the columns that tell a row from every other, or use `append` or `replace`",
        ),
        WriteMode::ReplacePartitions
            if node.get("partitionBy").and_then(Node::items).is_none_or(<[Node]>::is_empty) =>
        {
            document.error(
                "replace-without-partitions",
                at,
                "`write: replacePartitions` replaces whole partitions, but the table has none",
                "add `partitionBy:`, such as `[day(updated_at)]`, or use `replace`",
            );
        }
        _ => {}
    }
    let Some(condition) = node.get("deleteWhen") else { return };
    let sql = condition.text().unwrap_or_default().trim();
    if table.write != WriteMode::Upsert {
        document.error(
            "misplaced-delete",
            condition.span,
            format!("`deleteWhen` deletes by primary key, but the table's write mode is `{}`", table.write.as_str()),
            "use `write: upsert`, or remove `deleteWhen`",
        );
    } else if condition.is_null() || sql.is_empty() {
        document.error(
            "empty-condition",
            condition.span,
            "the condition is empty",
            "write an SQL condition such as `operation = 'delete'`",
        );
    } else {
        table.delete_when = Some(sql.to_owned());
    }
}
