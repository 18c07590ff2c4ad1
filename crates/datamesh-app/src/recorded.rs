//! Reads whose end is recorded.

use std::pin::Pin;
use std::task::{Poll, ready};

use arrow::array::RecordBatch;
use datamesh_core::audit::{ReadOutcome, ReadRecord};
use datamesh_core::{Error, ErrorCode, Result};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use tokio::task::JoinHandle;

use crate::ports::{Context, Rows};

type Recording = futures::future::BoxFuture<'static, Result<u64>>;

/// Rows that are counted, and recorded when they end: whole, with an error, or because nobody wants more.
struct Recorded {
    rows: BoxStream<'static, Result<RecordBatch>>,
    context: Context,
    /// Taken once it is being recorded.
    record: Option<ReadRecord>,
    recording: Option<(JoinHandle<Result<u64>>, Option<Error>)>,
}

pub(crate) fn rows(rows: Rows, record: ReadRecord, context: Context) -> Rows {
    let stream = Recorded { rows: rows.batches, context, record: Some(record), recording: None };
    Rows { schema: rows.schema, batches: stream.boxed() }
}

impl Recorded {
    fn begin(&mut self, outcome: ReadOutcome) -> Option<Recording> {
        let mut record = self.record.take()?;
        record.outcome = outcome;
        record.at = self.context.clock.now();
        let registry = self.context.registry.clone();
        Some(async move { registry.record_read(&record).await }.boxed())
    }

    /// Records the end. The runtime does it: whoever waits may stop to, and what is half recorded holds the registry's lock.
    fn end(&mut self, outcome: ReadOutcome, failure: Option<Error>) -> Option<Error> {
        match self.begin(outcome) {
            Some(recording) => {
                self.recording = Some((tokio::spawn(recording), failure));
                None
            }
            None => failure,
        }
    }
}

impl Stream for Recorded {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some((recording, _)) = &mut self.recording {
                let recorded = ready!(recording.poll_unpin(cx)).unwrap_or_else(|ended| {
                    Err(Error::new(ErrorCode::Internal, "a read could not be recorded").with_source(ended))
                });
                let failure = self.recording.take().and_then(|(_, failure)| failure);
                // What was read is told only once it is written down that it was.
                return Poll::Ready(match (failure, recorded) {
                    (Some(error), _) => Some(Err(error)),
                    (None, Err(error)) => Some(Err(error)),
                    (None, Ok(_)) => None,
                });
            }
            match ready!(self.rows.poll_next_unpin(cx)) {
                Some(Ok(batch)) => {
                    if let Some(record) = &mut self.record {
                        record.rows += batch.num_rows() as u64;
                    }
                    return Poll::Ready(Some(Ok(batch)));
                }
                Some(Err(error)) => {
                    if let Some(error) = self.end(ReadOutcome::Failed, Some(error)) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                None => {
                    self.end(ReadOutcome::Complete, None);
                    if self.recording.is_none() {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let Some(recording) = self.begin(ReadOutcome::Cancelled) else { return };
        // Nobody waits for the rest; the runtime finishes the entry.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(recording);
        }
    }
}
