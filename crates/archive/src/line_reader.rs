//! Reads gzipped lines.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

/// Decompresses gzip chunk by chunk, and passes on each line without its newline.
pub struct LineReader<E: FnMut(&[u8]) -> io::Result<()>>(MultiGzDecoder<Lines<E>>);

struct Lines<E> {
    each: E,
    rest: Vec<u8>,
    count: u64,
}

impl<E: FnMut(&[u8]) -> io::Result<()>> Write for Lines<E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if let Some(line) = self.rest.strip_suffix(b"\n") {
                self.count += 1;
                (self.each)(line)?;
                self.rest.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<E: FnMut(&[u8]) -> io::Result<()>> LineReader<E> {
    /// Starts.
    pub fn new(each: E) -> Self {
        Self(MultiGzDecoder::new(Lines {
            each,
            rest: Vec::new(),
            count: 0,
        }))
    }

    /// Reads more.
    ///
    /// # Errors
    /// Fails.
    pub fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.0.write_all(chunk)
    }

    /// Ends.
    ///
    /// # Errors
    /// Fails.
    pub fn finish(mut self) -> io::Result<u64> {
        self.0.try_finish()?;
        let lines = self.0.finish()?;
        match lines.rest.is_empty() {
            true => Ok(lines.count),
            false => Err(io::Error::other("the last line has no newline")),
        }
    }
}
