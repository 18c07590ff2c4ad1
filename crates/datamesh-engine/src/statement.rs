//! What a statement says and DataFusion's planner passes over without a word, or answers wrongly: it is written out before
//! the statement is planned, or refused.

use std::fmt;
use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr,
    TableFactor, TableWithJoins, VisitMut, VisitorMut, WindowSpec, WindowType,
};

/// Why a statement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What cannot be.
    pub(crate) what: String,
    /// What to write instead.
    pub(crate) help: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.help)
    }
}

impl From<Refused> for DataFusionError {
    fn from(refused: Refused) -> Self {
        Self::Plan(refused.to_string())
    }
}

fn refuse(what: impl Into<String>, help: &'static str) -> ControlFlow<Refused> {
    ControlFlow::Break(Refused { what: what.into(), help })
}

/// Makes a statement one that the planner understands wholly.
///
/// # Errors
/// What the planner would pass over or answer wrongly.
pub(crate) fn settle(statement: &mut Statement) -> Result<(), Refused> {
    match statement {
        Statement::Statement(inner) => {
            let mut settle = Settle { extends: false };
            let mut done = VisitMut::visit(inner, &mut settle);
            if done.is_continue() && settle.extends {
                done = VisitMut::visit(inner, &mut Left);
            }
            match done {
                ControlFlow::Break(refused) => Err(refused),
                ControlFlow::Continue(()) => Ok(()),
            }
        }
        Statement::Explain(explain) => settle(&mut explain.statement),
        // Those are no queries.
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => Ok(()),
    }
}

/// Plans a query whose text only reads.
pub(crate) async fn read(context: &SessionContext, sql: &str) -> Result<DataFrame, DataFusionError> {
    let state = context.state();
    let mut statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
    settle(&mut statement)?;
    let plan = state.statement_to_plan(statement).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    context.execute_logical_plan(plan).await
}

/// An identifier as SQL compares it.
pub(crate) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

struct Settle {
    /// Whether a window that extends another, or takes its place, was seen.
    extends: bool,
}

impl VisitorMut for Settle {
    type Break = Refused;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Refused> {
        match factor {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => refuse(
                "`TABLESAMPLE` is not supported",
                "filter rows instead, such as `WHERE random() < 0.1`, or write `LIMIT`",
            ),
            TableFactor::Table { with_ordinality: true, .. } => refuse(
                "`WITH ORDINALITY` is not supported",
                "number the rows instead, such as `row_number() OVER (ORDER BY …)`",
            ),
            // A query's versions are resolved before; the planner would read the newest rows without a word.
            TableFactor::Table { version: Some(_), .. } => refuse(
                "a table's version cannot be named here",
                "ask `datamesh query` for it; a transform reads the snapshots that its run pins",
            ),
            TableFactor::NestedJoin { table_with_joins, .. } => joins(table_with_joins),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refused> {
        if let Expr::Function(function) = expr {
            self.extends |= match &function.over {
                Some(WindowType::WindowSpec(spec)) => spec.window_name.is_some(),
                Some(WindowType::NamedWindow(_)) => true,
                None => false,
            };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refused> {
        select.from.iter().try_for_each(joins)
    }

    // Inner ones come first, so that what is left of names when an outer one is reached is its own.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refused> {
        for at in 0..select.named_window.len() {
            let (before, rest) = select.named_window.split_at_mut(at);
            let [NamedWindowDefinition(_, window), ..] = rest else { continue };
            match window {
                NamedWindowExpr::NamedWindow(name) => {
                    let spec = find(before, name)?.clone();
                    *window = NamedWindowExpr::WindowSpec(spec);
                }
                NamedWindowExpr::WindowSpec(spec) => extend(spec, before)?,
            }
        }
        if !self.extends {
            return ControlFlow::Continue(());
        }
        let windows = std::mem::take(&mut select.named_window);
        select.projection.visit(&mut Extend(&windows))?;
        select.qualify.visit(&mut Extend(&windows))?;
        select.named_window = windows;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refused> {
        match query.body.as_ref() {
            SetExpr::Select(select) if self.extends => query.order_by.visit(&mut Extend(&select.named_window)),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn joins(tables: &TableWithJoins) -> ControlFlow<Refused> {
    for join in &tables.joins {
        let (kind, constraint) = match &join.join_operator {
            JoinOperator::FullOuter(constraint) => ("FULL", constraint),
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => ("RIGHT", constraint),
            _ => continue,
        };
        // The planner takes the left table's column for the common one, which is null in rows of the right table only.
        let what = match constraint {
            JoinConstraint::Using(_) => format!("`{kind} JOIN … USING`"),
            JoinConstraint::Natural => format!("`NATURAL {kind} JOIN`"),
            JoinConstraint::On(_) | JoinConstraint::None => continue,
        };
        let help = "name the columns: `ON a.id = b.id`, and `coalesce(a.id, b.id)` for the common one";
        return refuse(format!("{what} is not supported"), help);
    }
    ControlFlow::Continue(())
}

/// Writes out the windows that `OVER` names.
struct Extend<'w>(&'w [NamedWindowDefinition]);

impl VisitorMut for Extend<'_> {
    type Break = Refused;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refused> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        match &mut function.over {
            Some(WindowType::WindowSpec(spec)) => extend(spec, self.0)?,
            Some(WindowType::NamedWindow(name)) => {
                let spec = find(self.0, name)?.clone();
                function.over = Some(WindowType::WindowSpec(spec));
            }
            None => {}
        }
        ControlFlow::Continue(())
    }
}

/// A window of a SELECT by its name; those it can name are written out already.
fn find<'w>(windows: &'w [NamedWindowDefinition], name: &Ident) -> ControlFlow<Refused, &'w WindowSpec> {
    let found = windows.iter().find_map(|NamedWindowDefinition(own, window)| match window {
        NamedWindowExpr::WindowSpec(spec) if normal(own) == normal(name) => Some(spec),
        _ => None,
    });
    match found {
        Some(spec) => ControlFlow::Continue(spec),
        None => ControlFlow::Break(Refused {
            what: format!("there is no window `{name}`"),
            help: "name one of the same SELECT's `WINDOW`, one that stands before it",
        }),
    }
}

/// Takes over what a window extends.
fn extend(spec: &mut WindowSpec, windows: &[NamedWindowDefinition]) -> ControlFlow<Refused> {
    let Some(name) = spec.window_name.take() else { return ControlFlow::Continue(()) };
    let base = find(windows, &name)?;
    let twice = if !spec.partition_by.is_empty() {
        Some("`PARTITION BY`")
    } else if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        Some("a second `ORDER BY`")
    } else if base.window_frame.is_some() {
        Some("anything: it has a frame")
    } else {
        None
    };
    if let Some(twice) = twice {
        return refuse(format!("window `{name}` cannot be given {twice}"), "write the whole window out");
    }
    spec.partition_by.clone_from(&base.partition_by);
    if spec.order_by.is_empty() {
        spec.order_by.clone_from(&base.order_by);
    }
    ControlFlow::Continue(())
}

/// Refuses what is left of names of windows, which the planner would pass over.
struct Left;

impl VisitorMut for Left {
    type Break = Refused;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refused> {
        match expr {
            Expr::Function(function) => match &function.over {
                Some(WindowType::WindowSpec(WindowSpec { window_name: Some(name), .. })) => {
                    refuse(format!("window `{name}` cannot be extended here"), "write the whole window out")
                }
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionConfig;

    use super::*;

    async fn ask(sql: &str) -> Result<String, String> {
        let frame = read(&SessionContext::new(), sql).await.map_err(|error| error.to_string())?;
        let batches = frame.collect().await.map_err(|error| error.to_string())?;
        Ok(pretty_format_batches(&batches).expect("a table").to_string())
    }

    const ROWS: &str = "(VALUES ('p', 1, 10), ('p', 2, 20), ('q', 3, 30), ('q', 4, 40)) AS t (g, y, v)";

    #[tokio::test]
    async fn a_named_window_is_written_out() {
        let whole = format!("SELECT y, rank() OVER (PARTITION BY g ORDER BY y DESC) AS r FROM {ROWS} ORDER BY y");
        let whole = ask(&whole).await.expect("an answer");
        assert!(whole.contains("| 1 | 2 |") && whole.contains("| 4 | 1 |"), "{whole}");
        for window in [
            "rank() OVER (w ORDER BY y DESC) AS r FROM {} WINDOW w AS (PARTITION BY g)",
            "rank() OVER (W ORDER BY y DESC) AS r FROM {} WINDOW w AS (PARTITION BY g)",
            "rank() OVER (w) AS r FROM {} WINDOW w AS (PARTITION BY g ORDER BY y DESC)",
            "rank() OVER v AS r FROM {} WINDOW w AS (PARTITION BY g), v AS (w ORDER BY y DESC)",
            "rank() OVER v AS r FROM {} WINDOW w AS (PARTITION BY g ORDER BY y DESC), v AS w",
        ] {
            let sql = format!("SELECT y, {} ORDER BY y", window.replace("{}", ROWS));
            assert_eq!(ask(&sql).await.as_ref(), Ok(&whole), "{sql}");
        }
        // A window is that of its own SELECT.
        let inner = format!(
            "SELECT y, r FROM (SELECT y, rank() OVER (w ORDER BY y DESC) AS r FROM {ROWS} WINDOW w AS (PARTITION BY g))              AS s WINDOW w AS (ORDER BY y) ORDER BY y"
        );
        assert_eq!(ask(&inner).await.as_ref(), Ok(&whole));
    }

    #[tokio::test]
    async fn a_version_is_never_passed_over() {
        let config = SessionConfig::new().set_str("datafusion.sql_parser.dialect", "bigquery");
        let context = SessionContext::new_with_config(config);
        for table in ["t", "(SELECT 1 AS x) AS s JOIN t", "u WHERE EXISTS (SELECT 1 FROM t"] {
            let close = if table.contains("EXISTS") { ")" } else { "" };
            let sql = format!("SELECT * FROM {table} FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01'{close}");
            let refused = read(&context, &sql).await.map(|_| ()).map_err(|error| error.to_string());
            assert!(
                refused.as_ref().is_err_and(|why| why.contains("version cannot be named here")),
                "{sql}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_window_that_cannot_be_extended_is_refused() {
        for (window, why) in [
            ("rank() OVER (w PARTITION BY g) FROM {} WINDOW w AS (ORDER BY y)", "cannot be given `PARTITION BY`"),
            ("rank() OVER (w ORDER BY y) FROM {} WINDOW w AS (ORDER BY v)", "a second `ORDER BY`"),
            (
                "sum(v) OVER (w ORDER BY y) FROM {} WINDOW w AS (PARTITION BY g ROWS UNBOUNDED PRECEDING)",
                "it has a frame",
            ),
            ("rank() OVER (z ORDER BY y) FROM {} WINDOW w AS (PARTITION BY g)", "there is no window `z`"),
            ("rank() OVER (w ORDER BY y) FROM {}", "there is no window `w`"),
        ] {
            let error = ask(&format!("SELECT {}", window.replace("{}", ROWS))).await.expect_err(window);
            assert!(error.contains(why), "{window}: {error}");
        }
    }

    #[tokio::test]
    async fn what_would_be_passed_over_is_refused() {
        for (sql, why) in [
            ("SELECT g FROM {} TABLESAMPLE (10 PERCENT)", "`TABLESAMPLE`"),
            ("SELECT 1 WHERE 1 IN (SELECT y FROM {} TABLESAMPLE (10 PERCENT))", "`TABLESAMPLE`"),
            ("SELECT x FROM (SELECT 1 AS x) TABLESAMPLE (1 ROWS)", "`TABLESAMPLE`"),
            ("EXPLAIN SELECT g FROM {} TABLESAMPLE (10 PERCENT)", "`TABLESAMPLE`"),
            (
                "SELECT id FROM (VALUES (1)) AS a (id) FULL JOIN (VALUES (2)) AS b (id) USING (id)",
                "`FULL JOIN … USING`",
            ),
            ("SELECT id FROM (VALUES (1)) AS a (id) NATURAL FULL JOIN (VALUES (2)) AS b (id)", "`NATURAL FULL JOIN`"),
            (
                "SELECT id FROM (VALUES (1)) AS a (id) RIGHT JOIN (VALUES (2)) AS b (id) USING (id)",
                "`RIGHT JOIN … USING`",
            ),
            (
                "SELECT 1 UNION SELECT id FROM ((VALUES (1)) AS a (id) FULL JOIN (VALUES (2)) AS b (id) USING (id))",
                "`FULL JOIN … USING`",
            ),
        ] {
            let error = ask(&sql.replace("{}", ROWS)).await.expect_err(sql);
            assert!(error.contains(why) && error.contains("not supported; "), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn other_joins_are_answered() {
        for (join, wanted) in [
            ("JOIN (VALUES (1), (2)) AS b (id) USING (id)", "| 1 "),
            ("LEFT JOIN (VALUES (2)) AS b (id) USING (id)", "| 1 "),
            ("FULL JOIN (VALUES (1)) AS b (id) ON a.id = b.id", "| 1 "),
        ] {
            let sql = format!("SELECT a.id FROM (VALUES (1)) AS a (id) {join}");
            let answer = ask(&sql).await.expect(join);
            assert!(answer.contains(wanted), "{sql}: {answer}");
        }
    }
}
