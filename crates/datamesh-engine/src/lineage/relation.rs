//! The values and deciding inputs of relations: one rule for each node of a plan.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, JoinType, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator, RecursiveQuery,
    Subquery, TableScan, Unnest,
};
use datamesh_core::lineage::{Dataset, FieldPath, Inputs, Subtype};
use datamesh_core::{Error, ErrorCode, Result};

use super::{Datasets, Relation, Value, broken};
use crate::error::unwrap;

/// The columns that an expression can name.
pub(super) struct Scope<'s> {
    schema: &'s DFSchema,
    columns: &'s [Value],
}

impl Scope<'_> {
    pub(super) fn column(&self, column: &Column) -> Result<Value> {
        let index = self.schema.index_of_column(column).map_err(plan_error)?;
        self.columns.get(index).cloned().ok_or_else(|| broken(format!("there is no column `{column}`")))
    }

    /// The type of an expression's value.
    pub(super) fn data_type(&self, expr: &Expr) -> Result<DataType> {
        expr.get_type(self.schema).map_err(plan_error)
    }
}

fn plan_error(error: datafusion::error::DataFusionError) -> Error {
    unwrap(ErrorCode::Internal, "the plan's lineage cannot be read", error)
}

/// What a subquery sees of a query around it.
struct Outer {
    schema: DFSchema,
    columns: Vec<Value>,
}

/// Walks a plan, with what the place it has reached can refer to.
pub(super) struct Walker<'w> {
    datasets: &'w Datasets<'w>,
    /// The queries around, outermost first.
    outer: Vec<Outer>,
    /// The recursive queries around, with what is known of their rows so far.
    working: Vec<(String, Relation)>,
    /// Every dataset that is read.
    pub(super) reads: BTreeSet<Dataset>,
}

impl<'w> Walker<'w> {
    pub(super) fn new(datasets: &'w Datasets<'w>) -> Self {
        Self { datasets, outer: Vec::new(), working: Vec::new(), reads: BTreeSet::new() }
    }

    /// A column of a query around, the nearest that has it.
    pub(super) fn outer_column(&self, column: &Column) -> Result<Value> {
        for outer in self.outer.iter().rev() {
            if let Some(index) = outer.schema.maybe_index_of_column(column) {
                return outer
                    .columns
                    .get(index)
                    .cloned()
                    .ok_or_else(|| broken(format!("there is no column `{column}`")));
            }
        }
        Err(broken(format!("no query around has a column `{column}`")))
    }

    /// A subquery of an expression over `scope`.
    pub(super) fn subquery(&mut self, subquery: &Subquery, scope: &Scope<'_>) -> Result<Relation> {
        self.within(scope.schema, scope.columns, &subquery.subquery)
    }

    fn within(&mut self, schema: &DFSchema, columns: &[Value], plan: &LogicalPlan) -> Result<Relation> {
        self.outer.push(Outer { schema: schema.clone(), columns: columns.to_vec() });
        let relation = self.relation(plan);
        self.outer.pop();
        relation
    }

    /// A relation's columns, in the order of its schema, and what decides its rows.
    pub(super) fn relation(&mut self, plan: &LogicalPlan) -> Result<Relation> {
        let relation = self.node(plan)?;
        let (found, expected) = (relation.columns.len(), plan.schema().fields().len());
        if found != expected {
            return Err(broken(format!("{expected} columns were planned and {found} found in {}", plan.display())));
        }
        Ok(relation)
    }

    fn node(&mut self, plan: &LogicalPlan) -> Result<Relation> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.relation(&projection.input)?;
                let columns = self.values(&projection.expr, &projection.input, &input)?;
                Ok(Relation { columns, rows: input.rows })
            }
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Window(window) => {
                let mut relation = self.relation(&window.input)?;
                let values = self.values(&window.window_expr, &window.input, &relation)?;
                relation.columns.extend(values);
                Ok(relation)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregation(aggregate),
            LogicalPlan::Sort(sort) => {
                let mut relation = self.relation(&sort.input)?;
                let scope = Scope { schema: sort.input.schema(), columns: &relation.columns };
                let inputs = self.all(sort.expr.iter().map(|sort| &sort.expr), Subtype::Sort, &scope)?;
                relation.rows.merge(inputs);
                Ok(relation)
            }
            LogicalPlan::Join(join) => self.join(join),
            // Where rows are worked on has no influence on them.
            LogicalPlan::Repartition(repartition) => self.relation(&repartition.input),
            LogicalPlan::Union(union) => {
                let mut inputs = union.inputs.iter();
                let first = inputs.next().ok_or_else(|| broken("a union of nothing"))?;
                let mut relation = self.relation(first)?;
                for input in inputs {
                    relation = either(relation, self.relation(input)?)?;
                }
                Ok(relation)
            }
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(empty) => Ok(nothing(empty.schema.fields().len())),
            LogicalPlan::Subquery(subquery) => self.relation(&subquery.subquery),
            LogicalPlan::SubqueryAlias(alias) => self.relation(&alias.input),
            LogicalPlan::Limit(limit) => {
                let mut relation = self.relation(&limit.input)?;
                // How many rows are taken is a number, unless a subquery says it.
                let scope = Scope { schema: limit.input.schema(), columns: &relation.columns };
                let counts = limit.skip.iter().chain(&limit.fetch).map(|count| &**count);
                let inputs = self.all(counts, Subtype::Filter, &scope)?;
                relation.rows.merge(inputs);
                Ok(relation)
            }
            LogicalPlan::Values(values) => {
                let mut relation = nothing(values.schema.fields().len());
                let (empty, none) = (DFSchema::empty(), Vec::new());
                let scope = Scope { schema: &empty, columns: &none };
                for row in &values.values {
                    for (column, expr) in relation.columns.iter_mut().zip(row) {
                        *column = std::mem::take(column).or(self.value(expr, &scope)?);
                    }
                }
                Ok(relation)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                // The same as grouping by every column.
                let mut relation = self.relation(input)?;
                for column in &relation.columns {
                    relation.rows.merge(column.inputs.through(Subtype::GroupBy));
                }
                Ok(relation)
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                let input = self.relation(&distinct.input)?;
                let columns = self.values(&distinct.select_expr, &distinct.input, &input)?;
                let scope = Scope { schema: distinct.input.schema(), columns: &input.columns };
                let groups = self.all(&distinct.on_expr, Subtype::GroupBy, &scope)?;
                let sorts = distinct.sort_expr.iter().flatten().map(|sort| &sort.expr);
                let sorts = self.all(sorts, Subtype::Sort, &scope)?;
                let mut rows = input.rows;
                rows.merge(groups);
                rows.merge(sorts);
                Ok(Relation { columns, rows })
            }
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(query) => self.recursive(query),
            LogicalPlan::Extension(extension) => Err(broken(format!(
                "it has a node `{}`, of which the inputs of its columns are not known",
                extension.node.name()
            ))),
            LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_) => Err(Error::new(
                ErrorCode::InvalidQuery,
                "only a query has a lineage: this statement yields no rows of tables",
            )
            .with_help("write the SELECT alone")),
        }
    }

    fn values(&mut self, exprs: &[Expr], input: &LogicalPlan, relation: &Relation) -> Result<Vec<Value>> {
        let scope = Scope { schema: input.schema(), columns: &relation.columns };
        exprs.iter().map(|expr| self.value(expr, &scope)).collect()
    }

    fn filter(&mut self, filter: &Filter) -> Result<Relation> {
        let mut relation = self.relation(&filter.input)?;
        let joins = if joins(&filter.input) { join_conditions(&filter.predicate) } else { HashSet::new() };
        let mut inputs = Inputs::default();
        let scope = Scope { schema: filter.input.schema(), columns: &relation.columns };
        let mut conditions = vec![&filter.predicate];
        while let Some(condition) = conditions.pop() {
            let subtype = if joins.contains(condition) { Subtype::Join } else { Subtype::Filter };
            match condition {
                Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                    conditions.extend([&**left, &**right]);
                }
                condition => inputs.merge(self.value(condition, &scope)?.inputs.through(subtype)),
            }
        }
        relation.rows.merge(inputs);
        Ok(relation)
    }

    fn aggregation(&mut self, aggregate: &Aggregate) -> Result<Relation> {
        let input = self.relation(&aggregate.input)?;
        let scope = Scope { schema: aggregate.input.schema(), columns: &input.columns };
        let groups = grouping_set_to_exprlist(&aggregate.group_expr).map_err(plan_error)?;
        let mut columns = Vec::new();
        let mut rows = input.rows.clone();
        let mut by = Inputs::default();
        for group in groups {
            let value = self.value(group, &scope)?;
            by.merge(value.inputs.through(Subtype::GroupBy));
            columns.push(value);
        }
        if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) {
            // The hidden column that tells which set a row was grouped by.
            columns.push(Value::flat(by.clone()));
        }
        rows.merge(by);
        for expr in &aggregate.aggr_expr {
            columns.push(self.value(expr, &scope)?);
        }
        Ok(Relation { columns, rows })
    }

    fn join(&mut self, join: &Join) -> Result<Relation> {
        let left = self.relation(&join.left)?;
        // A lateral right side refers to columns of the left one.
        let right = self.within(join.left.schema(), &left.columns, &join.right)?;
        let both = join.left.schema().join(join.right.schema()).map_err(plan_error)?;
        let mut columns = left.columns.clone();
        columns.extend(right.columns.iter().cloned());
        let of_left = Scope { schema: join.left.schema(), columns: &left.columns };
        let of_right = Scope { schema: join.right.schema(), columns: &right.columns };
        let of_both = Scope { schema: &both, columns: &columns };
        let mut condition = self.all(join.on.iter().map(|(left, _)| left), Subtype::Join, &of_left)?;
        condition.merge(self.all(join.on.iter().map(|(_, right)| right), Subtype::Join, &of_right)?);
        condition.merge(self.all(join.filter.as_ref(), Subtype::Join, &of_both)?);
        let mut rows = left.rows;
        rows.merge(right.rows);
        rows.merge(condition);
        // A mark says whether there is a match.
        let mark = || Value::flat(rows.clone());
        let columns = match join.join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => columns,
            JoinType::LeftSemi | JoinType::LeftAnti => left.columns,
            JoinType::RightSemi | JoinType::RightAnti => right.columns,
            JoinType::LeftMark => left.columns.into_iter().chain([mark()]).collect(),
            JoinType::RightMark => right.columns.into_iter().chain([mark()]).collect(),
        };
        Ok(Relation { columns, rows })
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Relation> {
        let width = scan.source.schema().fields().len();
        let mut whole = if let Some(known) = self.working_table(scan) {
            known.clone()
        } else if let Some(view) = scan.source.get_logical_plan() {
            self.relation(&view)?
        } else {
            self.table(&scan.table_name, scan)?
        };
        if whole.columns.len() != width {
            return Err(broken(format!("`{}` has {width} columns, not {}", scan.table_name, whole.columns.len())));
        }
        if !scan.filters.is_empty() {
            let schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema());
            let schema = schema.map_err(plan_error)?;
            let scope = Scope { schema: &schema, columns: &whole.columns };
            let inputs = self.all(&scan.filters, Subtype::Filter, &scope)?;
            whole.rows.merge(inputs);
        }
        if let Some(projection) = &scan.projection {
            whole.columns = projection.iter().map(|index| whole.columns[*index].clone()).collect();
        }
        Ok(whole)
    }

    /// What is known so far of the recursive query that this scan refers to.
    fn working_table(&self, scan: &TableScan) -> Option<&Relation> {
        let provider = source_as_provider(&scan.source).ok()?;
        provider.downcast_ref::<CteWorkTable>()?;
        let name = scan.table_name.table();
        self.working.iter().rev().find(|(working, _)| working == name).map(|(_, relation)| relation)
    }

    fn table(&mut self, name: &TableReference, scan: &TableScan) -> Result<Relation> {
        let Some(dataset) = (self.datasets)(name)? else { return Ok(nothing(scan.source.schema().fields().len())) };
        self.reads.insert(dataset.clone());
        let schema = scan.source.schema();
        let column = |name: &str| Value::flat(Inputs::identity(dataset.clone(), FieldPath::column(name)));
        let columns = schema.fields().iter().map(|field| column(field.name())).collect();
        Ok(Relation { columns, rows: Inputs::default() })
    }

    fn unnest(&mut self, unnest: &Unnest) -> Result<Relation> {
        let input = self.relation(&unnest.input)?;
        let schema = unnest.input.schema();
        let mut columns = Vec::new();
        let mut seen = vec![0; input.columns.len()];
        for (position, index) in unnest.dependency_indices.iter().enumerate() {
            let (Some(value), Some(nth)) = (input.columns.get(*index), seen.get_mut(*index)) else {
                return Err(broken(format!("column {position} is unnested from a column that is not there")));
            };
            let column = match schema.field(*index).data_type() {
                DataType::Struct(fields) if unnest.struct_type_columns.contains(index) => {
                    let field =
                        fields.get(*nth).ok_or_else(|| broken("a struct is unnested to more than its fields"))?;
                    value.field(field.name())
                }
                // A list becomes its items.
                _ if unnest.list_type_columns.iter().any(|(list, _)| list == index) => {
                    Value::flat(value.inputs.through(Subtype::Transformation))
                }
                _ => value.clone(),
            };
            *nth += 1;
            columns.push(column);
        }
        Ok(Relation { columns, rows: input.rows })
    }

    /// A recursive query: its rows are made of its own rows, over and over. Inputs are only ever added, of a finite
    /// number, so this ends.
    fn recursive(&mut self, query: &RecursiveQuery) -> Result<Relation> {
        let start = self.relation(&query.static_term)?;
        let mut known = start.clone();
        loop {
            self.working.push((query.name.clone(), known.clone()));
            let step = self.relation(&query.recursive_term);
            self.working.pop();
            let mut next = either(known.clone(), step?)?;
            if query.is_distinct {
                for column in next.columns.clone() {
                    next.decide(&column.inputs, Subtype::GroupBy);
                }
            }
            if next == known {
                return Ok(known);
            }
            known = next;
        }
    }
}

fn nothing(columns: usize) -> Relation {
    Relation { columns: vec![Value::default(); columns], rows: Inputs::default() }
}

/// The rows of both.
fn either(left: Relation, right: Relation) -> Result<Relation> {
    if left.columns.len() != right.columns.len() {
        return Err(broken("the sides of a set operation have different columns"));
    }
    let columns = left.columns.into_iter().zip(right.columns).map(|(left, right)| left.or(right)).collect();
    let mut rows = left.rows;
    rows.merge(right.rows);
    Ok(Relation { columns, rows })
}

/// Whether a filter stands directly over a join, so that a condition of it can be one of the join.
fn joins(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(_) => true,
        LogicalPlan::Filter(filter) => joins(&filter.input),
        _ => false,
    }
}

/// The equalities between columns of two relations that hold for every row that passes: `FROM a, b WHERE a.x = b.y`
/// is the same join as `FROM a JOIN b ON a.x = b.y`. One that holds in every branch of an `OR` counts too.
fn join_conditions(predicate: &Expr) -> HashSet<&Expr> {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let mut found = join_conditions(left);
            found.extend(join_conditions(right));
            found
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (left, right) = (join_conditions(left), join_conditions(right));
            left.intersection(&right).copied().collect()
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq | Operator::IsNotDistinctFrom, right }) => {
            let (left, right) = (relations(left), relations(right));
            let between = !left.is_empty() && !right.is_empty() && left.is_disjoint(&right);
            if between { HashSet::from([predicate]) } else { HashSet::new() }
        }
        _ => HashSet::new(),
    }
}

/// The relations whose columns an expression is made of; none where it is made of anything else too.
fn relations(expr: &Expr) -> HashSet<Arc<str>> {
    let mut found = HashSet::new();
    let plain = !expr.contains_outer() && !has_subquery(expr);
    for column in expr.column_refs() {
        if let Some(relation) = &column.relation {
            found.insert(Arc::from(relation.to_string()));
        }
    }
    if plain { found } else { HashSet::new() }
}

fn has_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let subquery = |expr: &Expr| {
        Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    expr.exists(subquery).unwrap_or(true)
}
