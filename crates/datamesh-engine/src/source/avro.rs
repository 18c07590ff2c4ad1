//! Avro object container files, block by block.
//!
//! The decoder takes a block's frame on trust: it takes a file that is cut off for a whole one, does not look at the
//! sync markers, and believes a block's count of rows. So the frames are read and checked here, and each block is
//! decoded by itself.

use std::io::{BufReader, Read};

use arrow_avro::reader::ReaderBuilder;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datamesh_core::{Error, ErrorCode, Result};

use super::arrow_batches::{ArrowBatches, guarded};
use super::text::{Counting, unreadable};
use super::{SourceFile, TableLayout};
use crate::error::wrap;

const MAGIC: &[u8] = b"Obj\x01";
/// The largest header: schema and metadata.
const MAX_HEADER: usize = 64 << 20;

/// Reads a file and hands over its batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let input = Counting::open(file, &layout.facts).map_err(wrap)?;
    let mut blocks = Blocks::open(BufReader::with_capacity(1 << 20, input), &file.name).map_err(wrap)?;
    let schema = guarded(|| {
        let reader = ReaderBuilder::new().build(blocks.header.as_slice()).map_err(|error| error.to_string())?;
        Ok(reader.schema())
    });
    let schema = schema.map_err(|why| wrap(blocks.damaged(&why)))?;
    let mut batches = ArrowBatches::new(layout, index, schema)?;
    while let Some((rows, block)) = blocks.next().map_err(wrap)? {
        let batch = guarded(|| decode(rows, &block)).map_err(|why| wrap(blocks.damaged(&why)))?;
        if !batches.push(&batch, emit)? {
            return Ok(());
        }
    }
    batches.finish();
    Ok(())
}

/// Decodes a container of one block of `rows` rows, whose frame claims twice as many: a block that holds just its rows is
/// then at its end when more are asked for, and one that holds more gives itself away. Were the claim smaller, the decoder
/// would wait for ever for rows that nobody claims.
fn decode(rows: usize, container: &[u8]) -> Result<RecordBatch, String> {
    let mut reader = ReaderBuilder::new().with_batch_size(rows).build(container).map_err(|error| error.to_string())?;
    let batch = reader.next().transpose().map_err(|error| error.to_string())?;
    let batch = batch.filter(|batch| batch.num_rows() == rows).ok_or("a block has fewer rows than it says")?;
    match reader.next() {
        None => Ok(batch),
        Some(_) => Err("a block has more rows than it says".to_owned()),
    }
}

/// Cuts the input into blocks.
struct Blocks<R> {
    input: R,
    name: String,
    /// The header as it stands in the file, sync marker included.
    header: Vec<u8>,
    sync: [u8; 16],
}

impl<R: Read> Blocks<R> {
    fn open(input: R, name: &str) -> Result<Self> {
        let mut blocks = Self { input, name: name.to_owned(), header: Vec::new(), sync: [0; 16] };
        let mut header = Vec::new();
        blocks.take(4, &mut header)?;
        if header != MAGIC {
            return Err(blocks.damaged("it does not begin as one"));
        }
        // The metadata: blocks of entries, ended by an empty one. A negative count is followed by the block's size.
        loop {
            let count = blocks.long(&mut header)?.ok_or_else(|| blocks.cut_off())?;
            if count == 0 {
                break;
            }
            if count < 0 {
                blocks.long(&mut header)?.ok_or_else(|| blocks.cut_off())?;
            }
            for _ in 0..count.unsigned_abs() {
                for _ in 0..2 {
                    let size = blocks.long(&mut header)?.ok_or_else(|| blocks.cut_off())?;
                    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_HEADER);
                    let size = size.ok_or_else(|| blocks.damaged("its header has an impossible size"))?;
                    blocks.take(size as u64, &mut header)?;
                }
                if header.len() > MAX_HEADER {
                    return Err(blocks.damaged("its header is too large"));
                }
            }
        }
        let mut sync = Vec::new();
        blocks.take(16, &mut sync)?;
        blocks.sync = sync.as_slice().try_into().unwrap_or_default();
        header.extend(sync);
        blocks.header = header;
        Ok(blocks)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::new(ErrorCode::SourceUnreadable, format!("cannot read `{}` as an Avro container file: {why}", self.name))
            .with_help("check that the file is a whole Avro object container file; nothing was committed")
    }

    fn cut_off(&self) -> Error {
        self.damaged("it is cut off")
    }

    fn take(&mut self, count: u64, into: &mut Vec<u8>) -> Result<()> {
        let before = into.len();
        let read = (&mut self.input).take(count).read_to_end(into);
        read.map_err(|error| unreadable(&self.name, error))?;
        if (into.len() - before) as u64 == count { Ok(()) } else { Err(self.cut_off()) }
    }

    /// A variable-length number (zigzag), which is appended as it stands to `copy`; `None` at the end of the file.
    fn long(&mut self, copy: &mut Vec<u8>) -> Result<Option<i64>> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            let count = loop {
                match self.input.read(&mut byte) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    read => break read.map_err(|error| unreadable(&self.name, error))?,
                }
            };
            if count == 0 {
                return if shift == 0 { Ok(None) } else { Err(self.cut_off()) };
            }
            let [byte] = byte;
            copy.push(byte);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some((value >> 1) as i64 ^ -((value & 1) as i64)));
            }
        }
        Err(self.damaged("a number is damaged"))
    }

    /// The next block that has rows, as a container of its own, with its count of rows.
    fn next(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        loop {
            let mut frame = Vec::new();
            let Some(count) = self.long(&mut frame)? else { return Ok(None) };
            let size = self.long(&mut frame)?.ok_or_else(|| self.cut_off())?;
            let (Ok(rows), Ok(bytes)) = (usize::try_from(count), u64::try_from(size)) else {
                return Err(self.damaged("a block has an impossible size"));
            };
            let mut data = Vec::new();
            self.take(bytes, &mut data)?;
            let mut sync = Vec::new();
            self.take(16, &mut sync)?;
            if sync != self.sync {
                return Err(self.damaged("a block does not end where it should"));
            }
            if rows == 0 && data.is_empty() {
                continue;
            }
            // Every row of a table with a column takes a byte, and compression makes that at most so much smaller.
            if rows == 0 || rows as u64 > bytes.saturating_mul(1 << 14) {
                return Err(self.damaged("a block has an impossible count of rows"));
            }
            let mut block = self.header.clone();
            push_long(&mut block, count * 2);
            push_long(&mut block, size);
            block.extend(data);
            block.extend(sync);
            return Ok(Some((rows, block)));
        }
    }
}

fn push_long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_avro::compression::CompressionCodec;
    use arrow_avro::writer::WriterBuilder;
    use arrow_avro::writer::format::AvroOcfFormat;
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::source::tests::{TestSource, read_with};

    fn sample(codec: Option<CompressionCodec>) -> Vec<u8> {
        let batch = |rows: std::ops::Range<i64>| {
            RecordBatch::try_from_iter_with_nullable([
                (
                    "a",
                    Arc::new(rows.clone().map(|a| (a % 3 != 0).then_some(a)).collect::<Int64Array>()) as ArrayRef,
                    true,
                ),
                ("b", Arc::new(rows.map(|b| Some("x".repeat(b as usize))).collect::<StringArray>()) as ArrayRef, true),
            ])
            .expect("a batch")
        };
        let schema = batch(0..1).schema().as_ref().clone();
        let mut bytes = Vec::new();
        let mut writer =
            WriterBuilder::new(schema).with_compression(codec).build::<_, AvroOcfFormat>(&mut bytes).expect("a writer");
        writer.write(&batch(0..20)).expect("a batch");
        writer.write(&batch(20..50)).expect("a batch");
        writer.finish().expect("an end");
        drop(writer);
        bytes
    }

    fn check(bytes: &[u8]) -> Result<Vec<Option<String>>, String> {
        let source = TestSource::new("rows.avro", bytes);
        Ok(read_with(&source, "a: long", read)?.into_iter().map(|(value, _)| value).collect())
    }

    fn codecs() -> [Option<CompressionCodec>; 5] {
        [
            None,
            Some(CompressionCodec::Deflate),
            Some(CompressionCodec::Snappy),
            Some(CompressionCodec::ZStandard),
            Some(CompressionCodec::Bzip2),
        ]
    }

    #[test]
    fn every_codec_is_read() {
        for codec in codecs() {
            let rows = check(&sample(codec)).expect("rows");
            let expected: Vec<_> = (0..50).map(|a| (a % 3 != 0).then(|| a.to_string())).collect();
            assert_eq!(rows, expected, "{codec:?}");
        }
    }

    #[test]
    fn a_cut_file_is_an_error_but_at_a_block() {
        let bytes = sample(Some(CompressionCodec::Deflate));
        let whole: Vec<usize> = (0..bytes.len()).filter(|end| check(&bytes[..*end]).is_ok()).collect();
        // After the header and after the first block nothing tells that more should follow.
        assert_eq!(whole.len(), 2, "{whole:?} of {}", bytes.len());
    }

    #[test]
    fn a_wrong_count_is_an_error() {
        let bytes = sample(None);
        let blocks = Blocks::open(bytes.as_slice(), "rows.avro").expect("a container");
        let start = blocks.header.len();
        // 20 rows are written as the zigzag number 40.
        assert_eq!(bytes[start], 40);
        for count in [2_u8, 38, 42, 100] {
            let mut wrong = bytes.clone();
            wrong[start] = count;
            assert!(check(&wrong).is_err(), "count {}", count / 2);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn damage_is_no_panic(codec in 0_usize..5, at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = sample(codecs()[codec]);
            for (index, byte) in at {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            let _ = check(&bytes);
        }

        #[test]
        fn garbage_is_no_panic(magic in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut all = if magic { MAGIC.to_vec() } else { Vec::new() };
            all.extend(bytes);
            let _ = check(&all);
        }
    }
}
