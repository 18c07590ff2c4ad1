//! What all sources of Arrow batches share: columns matched by name, content hashed, large batches cut.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;

use super::row_hash::RowHasher;
use super::typed::convert;
use super::{TableLayout, match_columns};
use crate::error::{arrow, wrap};

/// The batches of one file or stream on their way to the contract's columns.
pub(super) struct ArrowBatches<'a> {
    layout: &'a TableLayout,
    file: u32,
    /// The columns that the contract names, by index.
    wanted: Vec<usize>,
    hasher: RowHasher,
    position: u64,
}

impl<'a> ArrowBatches<'a> {
    /// Matches the source's columns with the contract's.
    pub(super) fn new(layout: &'a TableLayout, file: u32, schema: SchemaRef) -> Result<Self, DataFusionError> {
        if let Some(tap) = layout.facts.tap() {
            tap.batch(&RecordBatch::new_empty(schema)).map_err(wrap)?;
            return Ok(Self { layout, file, wanted: Vec::new(), hasher: RowHasher::default(), position: 0 });
        }
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        match_columns(layout, &names).map_err(|missing| DataFusionError::External(Box::new(missing)))?;
        let wanted = (0..names.len())
            .filter(|at| layout.table.column(names[*at]).is_some_and(|_| !names[..*at].contains(&names[*at])))
            .collect();
        Ok(Self { layout, file, wanted, hasher: RowHasher::default(), position: 0 })
    }

    /// Hands a batch over, in pieces where it is large. `false`: nobody listens any more.
    pub(super) fn push(
        &mut self,
        batch: &RecordBatch,
        emit: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<bool, DataFusionError> {
        if let Some(tap) = self.layout.facts.tap() {
            return tap.batch(batch).map(|()| true).map_err(wrap);
        }
        let batch = batch.project(&self.wanted).map_err(|error| wrap(arrow(error)))?;
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = self.layout.batch_size.min(batch.num_rows() - start);
            if !emit(self.convert(&batch.slice(start, rows))?) {
                return Ok(false);
            }
            start += rows;
        }
        Ok(true)
    }

    fn convert(&mut self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        self.hasher.update(self.layout, batch).map_err(wrap)?;
        let out = convert(self.layout, batch, self.file, self.position).map_err(wrap)?;
        self.position += batch.num_rows() as u64;
        Ok(out)
    }

    /// Keeps the identity of what was read.
    pub(super) fn finish(self) {
        self.layout.facts.add_content(self.hasher.content());
    }
}

/// Runs a decoder on bytes that nobody vouches for: where the decoder gives up on them, that is their fault.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)) {
        Ok(result) => result,
        Err(_) => Err("its content is damaged".to_owned()),
    }
}
