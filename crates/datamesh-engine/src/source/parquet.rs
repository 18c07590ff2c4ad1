//! Parquet sources.

use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datamesh_core::Result;

use super::row_hash::RowHasher;
use super::typed::convert;
use super::{SourceFile, TableLayout, match_columns};
use crate::error::{parquet_read, wrap};

/// About so many uncompressed bytes in a batch.
const BATCH_BYTES: usize = 64 << 20;

/// Reads a file and hands over its batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let (open, name) = (file.open_ranged().map_err(wrap)?, file.name.as_str());
    let builder = ParquetRecordBatchReaderBuilder::try_new(open).map_err(|error| wrap(parquet_read(name, error)))?;
    let schema = builder.schema().clone();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    match_columns(layout, &names).map_err(|missing| DataFusionError::External(Box::new(missing)))?;
    let wanted: Vec<usize> = (0..names.len())
        .filter(|at| layout.table.column(names[*at]).is_some_and(|_| !names[..*at].contains(&names[*at])))
        .collect();
    let footer = builder.metadata().clone();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let sizes: Vec<(i64, u64)> = footer
        .row_groups()
        .iter()
        .map(|group| {
            let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
            (group.num_rows(), columns.map(|(_, column)| column.compressed_size().max(0) as u64).sum())
        })
        .collect();
    // Wide rows come in smaller batches, so that a batch is bounded in bytes too.
    let bytes: i64 = footer.row_groups().iter().map(|group| group.total_byte_size()).sum();
    let per_row = (bytes / footer.file_metadata().num_rows().max(1)).max(1) as usize;
    let batch_size = (BATCH_BYTES / per_row).clamp(1, layout.batch_size);
    let reader = builder.with_projection(mask).with_batch_size(batch_size).build();
    let reader = reader.map_err(|error| wrap(parquet_read(name, error)))?;

    let mut content = RowHasher::default();
    let mut position = 0_u64;
    let mut groups = sizes.into_iter();
    let mut counted = 0_i64;
    for batch in reader {
        let batch = batch.map_err(|error| wrap(parquet_read(name, error)))?;
        while counted <= position as i64 {
            let Some((rows, bytes)) = groups.next() else { break };
            counted += rows.max(1);
            layout.facts.read(bytes);
        }
        content.update(layout, &batch).map_err(wrap)?;
        let out = convert(layout, &batch, index, position).map_err(wrap)?;
        position += batch.num_rows() as u64;
        if !emit(out) {
            return Ok(());
        }
    }
    layout.facts.add_content(content.content());
    Ok(())
}
