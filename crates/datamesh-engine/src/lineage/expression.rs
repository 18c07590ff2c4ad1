//! The inputs of expressions.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::{AggregateFunction, Case, Exists, InSubquery, ScalarFunction, SetComparison};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::{Expr, SortExpr, Subquery};
use datamesh_core::lineage::{Inputs, Subtype};
use datamesh_core::{Error, ErrorCode, Result};

use super::relation::{Scope, Walker};
use super::{Value, broken};
use crate::error::{unwrap, wrap};

/// The text of a literal name.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

impl Walker<'_> {
    /// What an expression's value is made of, over the columns of `scope`.
    pub(super) fn value(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Value> {
        match expr {
            Expr::Alias(alias) => self.value(&alias.expr, scope),
            Expr::Column(column) => scope.column(column),
            Expr::OuterReferenceColumn(_, column) => self.outer_column(column),
            Expr::ScalarSubquery(subquery) => self.scalar_subquery(subquery, scope),
            Expr::ScalarFunction(function) => self.scalar_function(function, scope),
            Expr::Case(case) => self.case(case, scope),
            Expr::AggregateFunction(function) => self.aggregate(function, scope).map(Value::flat),
            Expr::WindowFunction(function) => self.window(function, scope).map(Value::flat),
            Expr::Exists(Exists { subquery, .. }) => {
                // Which values the subquery shows does not matter, only whether there is a row.
                Ok(Value::flat(self.subquery(subquery, scope)?.rows))
            }
            Expr::InSubquery(InSubquery { expr, subquery, .. })
            | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
                let mut inputs = self.value(expr, scope)?.inputs.through(Subtype::Transformation);
                let relation = self.subquery(subquery, scope)?;
                for column in relation.columns {
                    inputs.merge(column.inputs.through(Subtype::Transformation));
                }
                inputs.merge(relation.rows);
                Ok(Value::flat(inputs))
            }
            Expr::Literal(..) | Expr::Placeholder(_) | Expr::ScalarVariable(..) | Expr::LambdaVariable(_) => {
                // An element that a lambda is given comes from the array beside the lambda.
                Ok(Value::default())
            }
            Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_)
            | Expr::HigherOrderFunction(_)
            | Expr::Lambda(_)
            | Expr::Unnest(_)
            | Expr::GroupingSet(_) => self.computed(expr, scope).map(Value::flat),
            #[expect(deprecated, reason = "the variant still exists, so a plan may hold it")]
            Expr::Wildcard { .. } => Err(broken("a `*` was not resolved to columns")),
        }
    }

    /// All inputs of the expressions, each as an input of something that is done with their values.
    pub(super) fn all<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        subtype: Subtype,
        scope: &Scope<'_>,
    ) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        for expr in exprs {
            inputs.merge(self.value(expr, scope)?.inputs.through(subtype));
        }
        Ok(inputs)
    }

    /// Inputs of a value that is computed from its operands.
    fn computed(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        let visit = expr.apply_children(|operand| {
            let value = self.value(operand, scope).map_err(wrap)?;
            inputs.merge(value.inputs.through(Subtype::Transformation));
            Ok(TreeNodeRecursion::Continue)
        });
        visit.map_err(|error: DataFusionError| {
            unwrap(ErrorCode::Internal, "the plan's lineage cannot be read", error)
        })?;
        Ok(inputs)
    }

    fn scalar_function(&mut self, function: &ScalarFunction, scope: &Scope<'_>) -> Result<Value> {
        let args = &function.args;
        let mut inputs = Inputs::default();
        match function.name() {
            "get_field" => {
                let Some((of, names)) = args.split_first() else { return Err(broken("`get_field` of nothing")) };
                let mut value = self.value(of, scope)?;
                let mut data_type = Some(scope.data_type(of)?);
                for name in names {
                    let of = data_type.take();
                    value = match (literal(name), &of) {
                        (Some(name), Some(DataType::Struct(fields))) => {
                            data_type = fields.find(name).map(|(_, field)| field.data_type().clone());
                            value.field(name)
                        }
                        // What a map has for a key is no field of it: the map as a whole is the input.
                        _ => {
                            if let Some(DataType::Map(entries, _)) = &of
                                && let DataType::Struct(entry) = entries.data_type()
                            {
                                data_type = entry.get(1).map(|value| value.data_type().clone());
                            }
                            let mut inputs = value.inputs.through(Subtype::Transformation);
                            inputs.merge(self.value(name, scope)?.inputs.through(Subtype::Transformation));
                            Value::flat(inputs)
                        }
                    };
                }
                return Ok(value);
            }
            "named_struct"
                if args.len().is_multiple_of(2) && args.iter().step_by(2).all(|name| literal(name).is_some()) =>
            {
                let mut fields = BTreeMap::new();
                for pair in args.chunks(2) {
                    fields.insert(literal(&pair[0]).unwrap_or_default().to_owned(), self.value(&pair[1], scope)?);
                }
                return Ok(together(fields));
            }
            "struct" => {
                let mut fields = BTreeMap::new();
                for (index, arg) in args.iter().enumerate() {
                    fields.insert(format!("c{index}"), self.value(arg, scope)?);
                }
                return Ok(together(fields));
            }
            // The first value that is not null: every value but the last decides, too.
            "coalesce" | "nvl" => {
                for (index, arg) in args.iter().enumerate() {
                    let value = self.value(arg, scope)?.inputs;
                    inputs.merge(value.through(Subtype::Transformation));
                    if index + 1 < args.len() {
                        inputs.merge(value.through(Subtype::Conditional));
                    }
                }
            }
            "nullif" => {
                for (index, arg) in args.iter().enumerate() {
                    let value = self.value(arg, scope)?.inputs;
                    if index == 0 {
                        inputs.merge(value.through(Subtype::Transformation));
                    }
                    inputs.merge(value.through(Subtype::Conditional));
                }
            }
            "nvl2" => {
                for (index, arg) in args.iter().enumerate() {
                    let how = if index == 0 { Subtype::Conditional } else { Subtype::Transformation };
                    inputs.merge(self.value(arg, scope)?.inputs.through(how));
                }
            }
            // It shows how the row was grouped, no value.
            "grouping" => inputs = self.all(args, Subtype::GroupBy, scope)?,
            _ => inputs = self.all(args, Subtype::Transformation, scope)?,
        }
        Ok(Value::flat(inputs))
    }

    fn case(&mut self, case: &Case, scope: &Scope<'_>) -> Result<Value> {
        let mut inputs = self.all(case.expr.as_deref(), Subtype::Conditional, scope)?;
        for (when, then) in &case.when_then_expr {
            inputs.merge(self.value(when, scope)?.inputs.through(Subtype::Conditional));
            inputs.merge(self.value(then, scope)?.inputs.through(Subtype::Transformation));
        }
        inputs.merge(self.all(case.else_expr.as_deref(), Subtype::Transformation, scope)?);
        Ok(Value::flat(inputs))
    }

    fn order<'e>(
        &mut self,
        order_by: impl IntoIterator<Item = &'e SortExpr>,
        subtype: Subtype,
        scope: &Scope<'_>,
    ) -> Result<Inputs> {
        self.all(order_by.into_iter().map(|sort| &sort.expr), subtype, scope)
    }

    fn aggregate(&mut self, function: &AggregateFunction, scope: &Scope<'_>) -> Result<Inputs> {
        let params = &function.params;
        let how = if function.func.name() == "grouping" { Subtype::GroupBy } else { Subtype::Aggregation };
        let mut inputs = self.all(&params.args, how, scope)?;
        inputs.merge(self.all(params.filter.as_deref(), Subtype::Filter, scope)?);
        inputs.merge(self.order(&params.order_by, Subtype::Sort, scope)?);
        Ok(inputs)
    }

    fn window(&mut self, function: &WindowFunction, scope: &Scope<'_>) -> Result<Inputs> {
        let params = &function.params;
        let how = match function.fun {
            WindowFunctionDefinition::AggregateUDF(_) => Subtype::Aggregation,
            // `lag`, `first_value` and their like take one value, of some row.
            WindowFunctionDefinition::WindowUDF(_) => Subtype::Transformation,
        };
        let mut inputs = self.all(&params.args, how, scope)?;
        inputs.merge(self.all(params.filter.as_deref(), Subtype::Filter, scope)?);
        inputs.merge(self.all(&params.partition_by, Subtype::Window, scope)?);
        inputs.merge(self.order(&params.order_by, Subtype::Window, scope)?);
        Ok(inputs)
    }

    /// Its value is that of its one column; which row it is, decide the subquery's rows.
    fn scalar_subquery(&mut self, subquery: &Subquery, scope: &Scope<'_>) -> Result<Value> {
        let mut relation = self.subquery(subquery, scope)?;
        if relation.columns.len() != 1 {
            return Err(Error::new(ErrorCode::InvalidQuery, "a subquery that stands for a value has several columns"));
        }
        let mut value = relation.columns.remove(0);
        value.decided_by(&relation.rows);
        Ok(value)
    }
}

/// A struct of these fields.
fn together(fields: BTreeMap<String, Value>) -> Value {
    let mut inputs = Inputs::default();
    for value in fields.values() {
        inputs.merge(value.inputs.through(Subtype::Transformation));
    }
    Value { inputs, fields: Some(fields) }
}
