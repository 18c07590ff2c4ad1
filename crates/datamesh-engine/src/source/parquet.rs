//! Parquet sources.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use datafusion::parquet::basic::ConvertedType;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datamesh_core::Result;

use super::row_hash::RowHasher;
use super::typed::convert;
use super::{SourceFile, TableLayout, match_columns};
use crate::error::{parquet_read, wrap};

/// About so many uncompressed bytes in a batch.
const BATCH_BYTES: usize = 64 << 20;

/// A column that takes no more bytes for each value repeats a few of them, by numbers in a dictionary.
const ENCODED_BYTES: i64 = 2;

/// Those of the text columns `names` that a file keeps as numbers in small dictionaries. None where the file cannot be
/// read: its reader says why.
pub(super) fn encoded(file: &SourceFile, names: &[String]) -> Vec<String> {
    let Ok(open) = file.open_ranged() else { return Vec::new() };
    let Ok(metadata) = ArrowReaderMetadata::load(&open, ArrowReaderOptions::new()) else { return Vec::new() };
    let is_encoded = |name: &str| {
        let leaf = text_leaf(&metadata, name).filter(|leaf| is_encoded(metadata.metadata(), *leaf));
        leaf.is_some() && metadata.schema().field_with_name(name).is_ok_and(|field| is_text(field.data_type()))
    };
    names.iter().filter(|name| is_encoded(name)).cloned().collect()
}

/// The leaf of a column that the file says to be text. What it says to be JSON is text to Arrow too, but not to the
/// decoder of dictionaries, which would neither check it nor make texts of it.
fn text_leaf(metadata: &ArrowReaderMetadata, name: &str) -> Option<usize> {
    let leaves = metadata.parquet_schema().columns();
    let leaf = leaves.iter().position(|leaf| matches!(leaf.path().parts(), [only] if only == name))?;
    (leaves[leaf].converted_type() == ConvertedType::UTF8).then_some(leaf)
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        _ => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// Some of the column's chunks may be written out, as those of small row groups are.
fn is_encoded(footer: &ParquetMetaData, leaf: usize) -> bool {
    let chunks = footer.row_groups().iter().map(|group| group.column(leaf));
    let (mut bytes, mut values, mut dictionaries) = (0_i64, 0_i64, false);
    for chunk in chunks {
        bytes = bytes.saturating_add(chunk.uncompressed_size());
        values = values.saturating_add(chunk.num_values());
        dictionaries |= chunk.dictionary_page_offset().is_some();
    }
    dictionaries && bytes <= values.saturating_mul(ENCODED_BYTES)
}

/// The file's columns as they are read: texts that `wanted` has as a dictionary are left in one.
fn encode(metadata: &ArrowReaderMetadata, wanted: &Schema) -> Option<ArrowReaderMetadata> {
    let mut encoded = false;
    let fields = metadata.schema().fields().iter().map(|field| {
        match wanted.field_with_name(field.name()).map(|wanted| wanted.data_type()) {
            Ok(dictionary @ DataType::Dictionary(..))
                if is_text(field.data_type()) && text_leaf(metadata, field.name()).is_some() =>
            {
                encoded = true;
                Arc::new(field.as_ref().clone().with_data_type(dictionary.clone()))
            }
            _ => field.clone(),
        }
    });
    let schema: SchemaRef =
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata.schema().metadata().clone()));
    let options = ArrowReaderOptions::new().with_schema(schema);
    // What cannot be read that way is read as it is, and converted.
    encoded.then(|| ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).ok()).flatten()
}

/// Reads a file and hands over its batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let (open, name) = (file.open_ranged().map_err(wrap)?, file.name.as_str());
    let fail = |error| wrap(parquet_read(name, error));
    let metadata = ArrowReaderMetadata::load(&open, ArrowReaderOptions::new()).map_err(fail)?;
    let metadata = encode(&metadata, &layout.schema).unwrap_or(metadata);
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(open, metadata);
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
    let reader = reader.map_err(fail)?;

    let mut content = RowHasher::default();
    let mut position = 0_u64;
    let mut groups = sizes.into_iter();
    let mut counted = 0_i64;
    for batch in reader {
        let batch = batch.map_err(|error| fail(error.into()))?;
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

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use datafusion::arrow::compute::cast;
    use datafusion::parquet::arrow::ArrowWriter;
    use datafusion::parquet::file::properties::WriterProperties;

    use super::super::tests::TestSource;
    use super::*;

    fn file(dictionary: bool) -> (TestSource, Vec<ArrayRef>) {
        let texts = |text: &dyn Fn(i64) -> Option<String>| -> ArrayRef {
            Arc::new((0..1000).map(text).collect::<StringArray>())
        };
        let columns: Vec<ArrayRef> = vec![
            texts(&|n| (n % 5 > 0).then(|| format!("kind {}", n % 3))),
            texts(&|n| Some(format!("name {n}"))),
            Arc::new(Int64Array::from_iter_values((0..1000).map(|n| n % 3))),
        ];
        let batch =
            RecordBatch::try_from_iter(["kind", "name", "n"].into_iter().zip(columns.clone())).expect("a batch");
        let properties =
            WriterProperties::builder().set_dictionary_enabled(dictionary).set_max_row_group_row_count(Some(300));
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        (TestSource::new("rows.parquet", &bytes), columns)
    }

    #[test]
    fn texts_that_repeat_a_few_values_stay_numbers() {
        let names = ["kind", "name", "n", "other"].map(str::to_owned);
        for (dictionary, expected) in [(true, vec!["kind"]), (false, vec![])] {
            let (source, columns) = file(dictionary);
            assert_eq!(encoded(&source.file, &names), expected);
            // What is wanted as a dictionary comes as one, however the file has it.
            let mut layout = source.layout("kind: string, name: string, n: long");
            let wanted = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            let fields = layout.schema.fields().iter().map(|field| match field.data_type() {
                DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(wanted.clone())),
                _ => field.clone(),
            });
            layout.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let mut start = 0;
            let mut check = |batch: RecordBatch| {
                for (at, column) in columns.iter().enumerate() {
                    let own = batch.column(at);
                    assert_eq!(own.as_any_dictionary_opt().is_some(), at < 2);
                    assert_eq!(&cast(own, column.data_type()).expect("plain"), &column.slice(start, batch.num_rows()));
                }
                start += batch.num_rows();
                true
            };
            read(&layout, &source.file, 0, &mut check).expect("read");
            assert_eq!(start, 1000);
        }
        let broken = TestSource::new("rows.parquet", b"PAR1");
        assert_eq!(encoded(&broken.file, &names), Vec::<String>::new());
    }
}
