//! What becomes of a plan before it is optimized: DataFusion's own rules, and ours around the one that brings types together.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::utils::NamePreserver;

use crate::arithmetic::{check_arithmetic, sign_differences};
use crate::times::keep_microseconds;

/// The analyzer's rules, in their order.
pub(crate) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(EachExpression { name: "keep_microseconds", rewrite: keep_microseconds }),
        Arc::new(EachExpression { name: "sign_differences", rewrite: sign_differences }),
        Arc::new(TypeCoercion::new()),
        Arc::new(EachExpression { name: "check_arithmetic", rewrite: check_arithmetic }),
    ]
}

/// Rewrites every expression of a plan for itself; columns keep their names.
#[derive(Debug)]
struct EachExpression {
    name: &'static str,
    rewrite: fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
}

impl AnalyzerRule for EachExpression {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok((self.rewrite)(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })?
            .map_data(|plan| plan.recompute_schema())
        });
        rewritten.data()
    }

    fn name(&self) -> &'static str {
        self.name
    }
}
