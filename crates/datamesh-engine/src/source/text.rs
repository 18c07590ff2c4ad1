//! Text read in chunks, line by line, with bounded memory.

use std::hash::Hasher;
use std::io::Read;
use std::sync::Arc;

use datamesh_core::{Error, ErrorCode, Result};
use flate2::read::MultiGzDecoder;
use memchr::memchr;
use twox_hash::XxHash3_64;

use super::{SourceFacts, SourceFile};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
/// The longest record; a longer one is a fault.
pub(crate) const MAX_RECORD: usize = 16 << 20;

/// Counts what is read from the disk or the pipe, before decompression.
pub(super) struct Counting {
    inner: Box<dyn Read + Send>,
    facts: Arc<SourceFacts>,
}

impl Counting {
    /// Opens a file for one sequential read.
    pub(super) fn open(file: &SourceFile, facts: &Arc<SourceFacts>) -> Result<Self> {
        Ok(Self { inner: file.open()?, facts: facts.clone() })
    }
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.facts.read(count as u64);
        Ok(count)
    }
}

/// A window over a text file.
pub(crate) struct TextReader {
    inner: Box<dyn Read + Send>,
    name: String,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    line: u64,
}

/// A line of the window, by offsets into [`TextReader::window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Length without its end.
    pub(crate) length: usize,
    /// Length with its end.
    pub(crate) whole: usize,
    /// Longer than [`MAX_RECORD`]; only its beginning is in the window.
    pub(crate) overlong: bool,
}

/// A failed read of a source file.
pub(super) fn unreadable(name: &str, error: std::io::Error) -> Error {
    // What a remote file's reader says is whole; the system's errors need a frame.
    if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return own.restate();
    }
    Error::new(ErrorCode::SourceUnreadable, format!("cannot read `{name}`: {error}"))
        .with_help("the file is damaged or went away; nothing was committed")
        .with_source(error)
}

impl TextReader {
    pub(crate) fn open(file: &SourceFile, facts: &Arc<SourceFacts>) -> Result<Self> {
        let counting = Counting::open(file, facts)?;
        let inner: Box<dyn Read + Send> = if file.gzip {
            Box::new(MultiGzDecoder::new(std::io::BufReader::with_capacity(CHUNK, counting)))
        } else {
            Box::new(counting)
        };
        let mut reader =
            Self { inner, name: file.name.clone(), buffer: Vec::new(), start: 0, end: 0, eof: false, line: 1 };
        while reader.window().len() < 3 && reader.fill()? {}
        if reader.window().starts_with(b"\xef\xbb\xbf") {
            reader.start += 3;
        }
        Ok(reader)
    }

    /// What is read and not yet consumed.
    pub(crate) fn window(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Number of the line that the window starts with, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.line
    }

    /// Whether the window reaches to the end of the file.
    pub(crate) fn at_end(&self) -> bool {
        self.eof
    }

    /// Reads more; `false` at the end of the file.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        if self.eof {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + CHUNK {
            self.buffer.resize(self.end + CHUNK, 0);
        }
        let before = self.end;
        while self.end == before {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.eof = true;
                    return Ok(false);
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.name, error)),
            }
        }
        Ok(true)
    }

    /// Finds the line that the window starts with, reading on where needed. `None` at the end of the file.
    pub(crate) fn line(&mut self) -> Result<Option<Line>> {
        let mut scanned = 0;
        loop {
            let window = self.window();
            if let Some(at) = memchr(b'\n', &window[scanned..]) {
                let end = scanned + at;
                if end > MAX_RECORD {
                    return Ok(Some(Line { length: MAX_RECORD, whole: MAX_RECORD, overlong: true }));
                }
                let length = if end > 0 && window[end - 1] == b'\r' { end - 1 } else { end };
                return Ok(Some(Line { length, whole: end + 1, overlong: false }));
            }
            scanned = window.len();
            if scanned > MAX_RECORD {
                return Ok(Some(Line { length: MAX_RECORD, whole: MAX_RECORD, overlong: true }));
            }
            if !self.fill()? {
                let window = self.window();
                if window.is_empty() {
                    return Ok(None);
                }
                let whole = window.len();
                let length = if window[whole - 1] == b'\r' { whole - 1 } else { whole };
                return Ok(Some(Line { length, whole, overlong: false }));
            }
        }
    }

    /// Moves past `bytes` of the window, which end `lines` lines.
    pub(crate) fn consume(&mut self, bytes: usize, lines: u64) {
        self.start += bytes;
        self.line += lines;
    }

    /// Moves past a line that is too long for the window, and returns a digest of it.
    pub(crate) fn skip_line(&mut self) -> Result<[u8; 8]> {
        let mut digest = XxHash3_64::new();
        loop {
            if let Some(at) = memchr(b'\n', self.window()) {
                digest.write(&self.window()[..at]);
                self.consume(at + 1, 1);
                return Ok(digest.finish().to_le_bytes());
            }
            digest.write(self.window());
            self.start = self.end;
            if !self.fill()? {
                return Ok(digest.finish().to_le_bytes());
            }
        }
    }
}
