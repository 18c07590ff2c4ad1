//! Arrow IPC, file and stream format. Both are read front to back, message by message: a file is a stream with a magic
//! word before it and an index behind.

use std::io::{BufReader, Read};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::ipc;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::error::DataFusionError;
use datamesh_core::{Error, ErrorCode, Result};

use super::arrow_batches::{ArrowBatches, guarded};
use super::text::{Counting, unreadable};
use super::{SourceFile, TableLayout};
use crate::error::wrap;

const MAGIC: &[u8] = b"ARROW1";
/// The end of a stream.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// The largest alignment of buffers that writers use.
const MAX_PADDING: u64 = 64;
/// The largest message header: a schema of many thousand columns is far below.
const MAX_HEADER: usize = 256 << 20;
/// The largest buffer that compressed data may claim to be.
const MAX_BUFFER: u64 = 16 << 30;

/// Reads a file and hands over its batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let input = Counting::open(file, &layout.facts).map_err(wrap)?;
    let mut messages = Messages::open(BufReader::with_capacity(1 << 20, input), &file.name).map_err(wrap)?;
    let mut decoder = StreamDecoder::new();
    let mut batches: Option<ArrowBatches<'_>> = None;
    let mut more = true;
    while more {
        // The decoder takes a message without a body for done when it sees what follows, and be it the end.
        let message = messages.next().map_err(wrap)?;
        more = message.is_some();
        let mut message = Buffer::from_vec(message.unwrap_or_else(|| END.to_vec()));
        let decoded = guarded(|| {
            let mut found = Vec::new();
            while !message.is_empty() {
                found.extend(decoder.decode(&mut message).map_err(|error| error.to_string())?);
            }
            Ok(found)
        });
        let decoded = decoded.map_err(|why| wrap(messages.damaged(&why)))?;
        let batches = match (&mut batches, decoder.schema()) {
            (Some(batches), _) => batches,
            (none, Some(schema)) => none.insert(ArrowBatches::new(layout, index, schema)?),
            (None, None) => continue,
        };
        for batch in decoded {
            if !batches.push(&batch, emit)? {
                return Ok(());
            }
        }
    }
    match batches {
        Some(batches) => batches.finish(),
        None => return Err(wrap(messages.damaged("it has no schema"))),
    }
    Ok(())
}

/// Cuts the input into messages, each with its frame, and checks what a decoder would trust.
struct Messages<R> {
    input: R,
    name: String,
    /// The file format: it must end with the magic word too.
    file: bool,
    /// The first bytes of a stream, read to tell the formats apart.
    ahead: Vec<u8>,
}

impl<R: Read> Messages<R> {
    fn open(mut input: R, name: &str) -> Result<Self> {
        let mut ahead = Vec::new();
        let read = (&mut input).take(8).read_to_end(&mut ahead);
        let mut messages = Self { input, name: name.to_owned(), file: false, ahead };
        read.map_err(|error| unreadable(&messages.name, error))?;
        if messages.ahead.starts_with(MAGIC) {
            messages.file = true;
            messages.ahead.clear();
            messages.skip_padding()?;
        } else if messages.ahead.starts_with(b"FEA1") {
            return Err(messages
                .damaged("it is Feather version 1")
                .with_help("write it as Feather version 2, which is Arrow IPC"));
        }
        Ok(messages)
    }

    /// Moves to the first message of the file format. The magic word is padded to eight bytes, or to as many as buffers are
    /// aligned to.
    fn skip_padding(&mut self) -> Result<()> {
        for _ in 0..MAX_PADDING / 8 {
            let mut word = Vec::new();
            self.take(8, &mut word)?;
            if word.iter().any(|byte| *byte != 0) {
                self.ahead = word;
                break;
            }
        }
        Ok(())
    }

    fn damaged(&self, why: &str) -> Error {
        Error::new(ErrorCode::SourceUnreadable, format!("cannot read `{}` as Arrow IPC: {why}", self.name))
            .with_help("check that the file is a whole Arrow IPC file or stream; nothing was committed")
    }

    /// Up to `count` bytes; fewer only at the end. What a damaged length asks for is never allocated beforehand.
    fn take(&mut self, count: u64, into: &mut Vec<u8>) -> Result<u64> {
        let before = into.len();
        let from_ahead = (self.ahead.len() as u64).min(count) as usize;
        into.extend(self.ahead.drain(..from_ahead));
        let read = (&mut self.input).take(count - from_ahead as u64).read_to_end(into);
        read.map_err(|error| unreadable(&self.name, error))?;
        Ok((into.len() - before) as u64)
    }

    /// The next message with its frame and body; `None` at the end that the writer marked.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        let mut prefix = self.take(4, &mut message)?;
        if prefix == 0 && !self.file {
            // The specification lets a stream end without its marker, but then one that was cut between two messages
            // would pass as whole. Writers that come to their end write it.
            return Err(self.damaged("it is cut off: its end-of-stream marker is missing").with_help(
                "write it anew, and close the writer; a stream that was cut off would lack rows. Nothing was committed",
            ));
        }
        if message == [0xff; 4] {
            prefix = self.take(4, &mut message)?;
        }
        if prefix < 4 {
            return Err(self.damaged("it is cut off"));
        }
        let size = u32::from_le_bytes(message[message.len() - 4..].try_into().unwrap_or_default());
        if size == 0 {
            self.finish()?;
            return Ok(None);
        }
        if size as usize > MAX_HEADER {
            return Err(self.damaged("a message has an impossible size"));
        }
        let frame = message.len();
        if self.take(size.into(), &mut message)? < size.into() {
            return Err(self.damaged("it is cut off"));
        }
        let header = message[frame..].to_vec();
        let parsed =
            ipc::root_as_message(&header).map_err(|error| self.damaged(&format!("a message is damaged: {error}")))?;
        let Ok(body) = u64::try_from(parsed.bodyLength()) else {
            return Err(self.damaged("a message has an impossible size"));
        };
        let start = message.len();
        if self.take(body, &mut message)? < body {
            return Err(self.damaged("it is cut off"));
        }
        let batch = parsed.header_as_record_batch();
        let batch = batch.or_else(|| parsed.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
        if let Some(batch) = batch {
            self.check_buffers(batch, &message[start..])?;
        }
        Ok(Some(message))
    }

    /// Checks that every buffer lies in the body, and that a compressed one does not claim to be enormous.
    fn check_buffers(&self, batch: ipc::RecordBatch<'_>, body: &[u8]) -> Result<()> {
        let damaged = || self.damaged("a buffer lies outside its message");
        for buffer in batch.buffers().iter().flatten() {
            let (Ok(offset), Ok(length)) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length())) else {
                return Err(damaged());
            };
            let end = offset.checked_add(length).filter(|end| *end <= body.len()).ok_or_else(damaged)?;
            if batch.compression().is_some() && length > 0 {
                let Some(claimed) = body[offset..end].first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes)) else {
                    return Err(self.damaged("a compressed buffer is too short"));
                };
                let most = (length as u64).saturating_mul(1 << 17).saturating_add(1 << 16).min(MAX_BUFFER);
                if claimed < -1 || claimed > i64::try_from(most).unwrap_or(i64::MAX) {
                    return Err(self.damaged("a compressed buffer has an impossible size"));
                }
            }
        }
        Ok(())
    }

    /// Behind the end of the stream: a file's index and its magic word, and for a stream nothing.
    fn finish(&mut self) -> Result<()> {
        let mut tail = std::mem::take(&mut self.ahead);
        let mut chunk = [0; 8192];
        let mut empty = tail.is_empty();
        loop {
            let count = match self.input.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(&self.name, error)),
            };
            empty = false;
            tail.extend_from_slice(&chunk[..count]);
            let keep = tail.len().saturating_sub(MAGIC.len());
            tail.drain(..keep);
        }
        if self.file && tail != MAGIC {
            Err(self.damaged("it is cut off: its index is missing"))
        } else if !self.file && !empty {
            Err(self.damaged("something follows the end of the stream"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray};
    use datafusion::arrow::datatypes::{Int32Type, Schema};
    use datafusion::arrow::ipc::CompressionType;
    use datafusion::arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    use proptest::prelude::*;

    use super::*;
    use crate::source::tests::{TestSource, read_with};

    fn sample(compression: Option<CompressionType>, file: bool) -> Vec<u8> {
        let words: DictionaryArray<Int32Type> = ["one", "two", "one"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef),
            ("b", Arc::new(words) as ArrayRef),
            ("c", Arc::new(StringArray::from(vec!["x".repeat(500), String::new(), "y".repeat(500)])) as ArrayRef),
        ])
        .expect("a batch");
        let options = IpcWriteOptions::default().try_with_compression(compression).expect("options");
        let schema: &Schema = &batch.schema();
        let mut bytes = Vec::new();
        if file {
            let mut writer = FileWriter::try_new_with_options(&mut bytes, schema, options).expect("a writer");
            writer.write(&batch).expect("a batch");
            writer.finish().expect("an end");
        } else {
            let mut writer = StreamWriter::try_new_with_options(&mut bytes, schema, options).expect("a writer");
            writer.write(&batch).expect("a batch");
            writer.finish().expect("an end");
        }
        bytes
    }

    fn check(bytes: &[u8]) -> Result<Vec<Option<String>>, String> {
        let source = TestSource::new("rows.arrow", bytes);
        Ok(read_with(&source, "a: long", read)?.into_iter().map(|(value, _)| value).collect())
    }

    #[test]
    fn files_and_streams_are_read() {
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            for file in [true, false] {
                let rows = check(&sample(compression, file)).expect("rows");
                assert_eq!(rows, [Some("1".to_owned()), None, Some("3".to_owned())]);
            }
        }
    }

    #[test]
    fn everything_that_is_cut_off_is_an_error() {
        for file in [true, false] {
            let bytes = sample(Some(CompressionType::ZSTD), file);
            for end in 0..bytes.len() {
                assert!(check(&bytes[..end]).is_err(), "cut at {end} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_stream_needs_its_end() {
        let bytes = sample(None, false);
        let said = check(&bytes[..bytes.len() - END.len()]).expect_err("cut between two messages");
        assert!(said.contains("its end-of-stream marker is missing"), "{said}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn damage_is_no_panic(compressed in any::<bool>(), file in any::<bool>(), at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = sample(compressed.then_some(CompressionType::LZ4_FRAME), file);
            for (index, byte) in at {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            let _ = check(&bytes);
        }

        #[test]
        fn garbage_is_no_panic(magic in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut all = if magic { b"ARROW1\0\0".to_vec() } else { Vec::new() };
            all.extend(bytes);
            let _ = check(&all);
        }
    }
}
