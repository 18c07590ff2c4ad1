//! One table's pass as a physical plan: source, partition values, sort, audit. One writer a partition, states merged.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use datamesh_core::Table;
use datamesh_iceberg::TableDraft;
use futures::{StreamExt, TryStreamExt};

use crate::audit::{AuditPlan, PARTITION_PREFIX, PartitionAudit, PartitionResult};
use crate::error::wrap;

/// Builds the pass of a table over `source`.
pub(crate) fn pass(
    source: Arc<dyn ExecutionPlan>,
    draft: &Arc<TableDraft>,
    table: &Table,
    audit: Arc<AuditPlan>,
    parallelism: usize,
) -> Result<Arc<AuditExec>> {
    let mut plan = source;
    if plan.output_partitioning().partition_count() < parallelism {
        plan = Arc::new(RepartitionExec::try_new(plan, Partitioning::RoundRobinBatch(parallelism))?);
    }
    if draft.partition_fields() > 0 {
        plan = Arc::new(PartitionValuesExec::try_new(plan, draft.clone())?);
    }
    let mut order = Vec::new();
    let schema = plan.schema();
    for index in 0..draft.partition_fields() {
        order.push(
            PhysicalSortExpr::new_default(col(&format!("{PARTITION_PREFIX}{index}"), &schema)?).asc().nulls_first(),
        );
    }
    for field in &table.sort_by {
        let expression = PhysicalSortExpr::new_default(col(&field.column, &schema)?);
        order.push(if field.descending { expression.desc().nulls_last() } else { expression.asc().nulls_first() });
    }
    if let Some(order) = LexOrdering::new(order) {
        plan = Arc::new(SortExec::new(order, plan).with_preserve_partitioning(true));
    }
    Ok(Arc::new(AuditExec::new(plan, audit)))
}

/// Adds the table's transformed partition values as hidden columns.
#[derive(Debug)]
struct PartitionValuesExec {
    input: Arc<dyn ExecutionPlan>,
    draft: Arc<TableDraft>,
    properties: Arc<PlanProperties>,
}

impl PartitionValuesExec {
    fn try_new(input: Arc<dyn ExecutionPlan>, draft: Arc<TableDraft>) -> Result<Self> {
        let empty = RecordBatch::new_empty(input.schema());
        let values = draft.partition_values(&empty).map_err(wrap)?;
        let mut fields: Vec<_> = input.schema().fields().iter().cloned().collect();
        for (index, value) in values.iter().enumerate() {
            fields.push(Arc::new(Field::new(format!("{PARTITION_PREFIX}{index}"), value.data_type().clone(), true)));
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(Schema::new(fields))),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { input, draft, properties: Arc::new(properties) })
    }
}

impl DisplayAs for PartitionValuesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionValuesExec: fields={}", self.draft.partition_fields())
    }
}

impl ExecutionPlan for PartitionValuesExec {
    fn name(&self) -> &'static str {
        "PartitionValuesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::try_new(only(children)?, self.draft.clone())?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (draft, schema) = (self.draft.clone(), self.schema());
        let out = schema.clone();
        let stream = input.map(move |batch| {
            let batch = batch?;
            let values = draft.partition_values(&batch).map_err(wrap)?;
            let columns = batch.columns().iter().cloned().chain(values).collect();
            Ok(RecordBatch::try_new(out.clone(), columns)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Audits and stages its input. Yields one row a partition: the rows it read. What it found is taken by [`AuditExec::take`].
#[derive(Debug)]
pub(crate) struct AuditExec {
    input: Arc<dyn ExecutionPlan>,
    plan: Arc<AuditPlan>,
    merged: Arc<Mutex<PartitionResult>>,
    properties: Arc<PlanProperties>,
}

impl AuditExec {
    fn new(input: Arc<dyn ExecutionPlan>, plan: Arc<AuditPlan>) -> Self {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("rows", DataType::UInt64, false)]));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, plan, merged: Arc::default(), properties: Arc::new(properties) }
    }

    /// What all partitions found, once every stream has ended.
    pub(crate) fn take(&self) -> PartitionResult {
        let mut result = std::mem::take(&mut *self.merged.lock().unwrap_or_else(PoisonError::into_inner));
        // Partitions end in any order; files are numbered as they are opened.
        result.data.sort_by_key(|file| file.id);
        result.quarantine.sort_by_key(|file| file.id);
        result
    }
}

impl DisplayAs for AuditExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuditPlan { checks, conditions, keys, .. } = self.plan.as_ref();
        write!(f, "AuditExec: checks={}, conditions={}, keys={}", checks.len(), conditions.len(), keys.len())
    }
}

impl ExecutionPlan for AuditExec {
    fn name(&self) -> &'static str {
        "AuditExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(only(children)?, self.plan.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let (plan, merged, schema) = (self.plan.clone(), self.merged.clone(), self.schema());
        let out = schema.clone();
        let run = async move {
            let mut audit = PartitionAudit::new(plan, partition);
            while let Some(batch) = input.try_next().await? {
                audit.process(&batch).map_err(wrap)?;
            }
            let result = audit.finish().map_err(wrap)?;
            let rows = Arc::new(UInt64Array::from(vec![result.rows_in]));
            merged.lock().unwrap_or_else(PoisonError::into_inner).merge(result);
            Ok(RecordBatch::try_new(out, vec![rows])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(run))))
    }
}

fn only(mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.is_empty()) {
        (Some(child), true) => Ok(child),
        _ => Err(DataFusionError::Internal("expected one input".into())),
    }
}
