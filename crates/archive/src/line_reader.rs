//! Reads the lines of a gzipped object, chunk by chunk: the only reader of such objects.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

/// The longest line accepted: a report with 50 tags of full length is below 100 KB.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Decompresses gzip with any number of members, and passes each line on without its newline.
///
/// Holds one line that spans chunks, and the decompressor's window.
///
/// ```
/// # use std::io::Write;
/// # use image_usage_archive::line_reader::LineReader;
/// # let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
/// # encoder.write_all(b"one\ntwo\n").unwrap();
/// # let object = encoder.finish().unwrap();
/// let mut lines = Vec::new();
/// let mut reader = LineReader::new(|line: &[u8]| {
///     lines.push(String::from_utf8_lossy(line).into_owned());
///     Ok(())
/// });
/// for chunk in object.chunks(7) {
///     reader.push(chunk)?;
/// }
/// assert_eq!(reader.finish()?.0, 2);
/// assert_eq!(lines, ["one", "two"]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct LineReader<S: LineSink> {
    decoder: MultiGzDecoder<Lines<S>>,
    is_empty: bool,
}

/// Receives the lines of an object, without their newlines.
pub trait LineSink {
    /// Takes the next line.
    ///
    /// # Errors
    /// An error ends the reading.
    fn take(&mut self, line: &[u8]) -> io::Result<()>;
}

impl<E: FnMut(&[u8]) -> io::Result<()>> LineSink for E {
    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        self(line)
    }
}

impl<S: LineSink> LineReader<S> {
    /// Starts an object; `sink` receives its lines in order.
    pub fn new(sink: S) -> Self {
        Self {
            decoder: MultiGzDecoder::new(Lines {
                sink,
                rest: Vec::new(),
                count: 0,
            }),
            is_empty: true,
        }
    }

    /// Reads the next chunk of the object as stored. After an error, nothing more can be read.
    ///
    /// # Errors
    /// Fails if the bytes are not gzip, if a line is longer than 16 MiB, and as the sink does.
    pub fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.is_empty &= chunk.is_empty();
        self.decoder.write_all(chunk)
    }

    /// What receives the lines.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.decoder.get_mut().sink
    }

    /// Ends the object, and returns its number of lines, and what has received them.
    ///
    /// # Errors
    /// Fails if the object is truncated or does not end with a newline, and as [`push`](Self::push) does.
    pub fn finish(mut self) -> io::Result<(u64, S)> {
        let cut = |what| Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        if self.is_empty {
            return cut("it is empty");
        }
        self.decoder.try_finish()?;
        let lines = self.decoder.finish()?;
        match lines.rest.is_empty() {
            true => Ok((lines.count, lines.sink)),
            false => cut("it does not end with a newline"),
        }
    }
}

/// Divides what is written to it into lines.
struct Lines<S> {
    sink: S,
    /// The start of a line whose end has not been written yet.
    rest: Vec<u8>,
    count: u64,
}

impl<S: LineSink> Lines<S> {
    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.rest.len() + piece.len() > MAX_LINE_BYTES {
            let number = self.count + 1;
            let problem = format!("line {number} is longer than {MAX_LINE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let Some(end) = piece.strip_suffix(b"\n") else {
            self.rest.extend_from_slice(piece);
            return Ok(());
        };
        self.count += 1;
        if self.rest.is_empty() {
            return self.sink.take(end);
        }
        self.rest.extend_from_slice(end);
        self.sink.take(&self.rest)?;
        self.rest.clear();
        Ok(())
    }
}

impl<S: LineSink> Write for Lines<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.take(piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(object: &[u8], chunk_bytes: usize) -> io::Result<(u64, Vec<String>)> {
        let mut lines = Vec::new();
        let mut reader = LineReader::new(|line: &[u8]| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        });
        for chunk in object.chunks(chunk_bytes) {
            reader.push(chunk)?;
        }
        let (count, _) = reader.finish()?;
        Ok((count, lines))
    }

    #[test]
    fn the_lines_are_the_same_whatever_the_chunks_and_members() {
        let text = "one\n\ntwo\nthree, which is longer\n";
        let (first, second) = text.split_at(6);
        let objects = [
            gzip(text.as_bytes()),
            [gzip(first.as_bytes()), gzip(second.as_bytes())].concat(),
        ];
        for object in objects {
            for chunk_bytes in 1..=object.len() {
                let (count, lines) = read(&object, chunk_bytes).unwrap();
                assert_eq!(count, 4);
                assert_eq!(lines, ["one", "", "two", "three, which is longer"]);
            }
        }
        assert_eq!(read(&gzip(b""), 1).unwrap(), (0, Vec::new()));
    }

    #[test]
    fn every_cut_is_found() {
        let object = [gzip(b"one\ntwo\n"), gzip(b"three\n")].concat();
        let between = gzip(b"one\ntwo\n").len();
        for end in 0..object.len() {
            let whole_member = end == between;
            assert_eq!(read(&object[..end], 5).is_ok(), whole_member, "{end}");
        }
    }

    #[test]
    fn a_last_line_without_a_newline_and_bytes_after_the_end_are_found() {
        let error = read(&gzip(b"one\ntwo"), 100).unwrap_err();
        assert_eq!(error.to_string(), "it does not end with a newline");
        for rest in [&b"\n"[..], b"\0", b"\x1f", b"more"] {
            let object = [&gzip(b"one\n"), rest].concat();
            assert!(read(&object, 100).is_err(), "{rest:?}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_not_held_whole() {
        let object = gzip(&vec![b'x'; 2 * MAX_LINE_BYTES]);
        let error = read(&object, 4096).unwrap_err();
        assert_eq!(error.to_string(), "line 1 is longer than 16777216 bytes");
    }

    #[test]
    fn an_error_of_the_caller_ends_the_reading() {
        let mut reader = LineReader::new(|_: &[u8]| Err(io::Error::other("enough")));
        let error = reader.push(&gzip(b"one\ntwo\n"));
        let error = error
            .and_then(|()| reader.finish().map(|(count, _)| count))
            .unwrap_err();
        assert_eq!(error.to_string(), "enough");
    }
}
