//! The entries of a batch of reports, grouped by report, whatever the order in which EC2 returns them.
//!
//! They wait compressed, in memory while they are few and in an unnamed temporary file when they are many. Of
//! each report, a digest of each entry is held while its lines are written: 33 bytes an entry.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use image_usage_archive::documents::EntryLine;
use image_usage_archive::domain::report_key::ReportKey;
use lz4_flex::block;
use tempfile::SpooledTempFile;

/// What the entries of one batch take in memory before they go to a temporary file.
const BYTES_IN_MEMORY: usize = 1024 * 1024;

/// The entries of a batch of reports, as lines grouped by report.
pub(super) struct EntryGroups {
    file: SpooledTempFile,
    bytes: u64,
    /// Where each report's compressed lines are: the start and the length of each piece.
    pieces: Vec<Vec<(u64, usize)>>,
    pub(super) pages: u64,
}

impl EntryGroups {
    /// Groups for so many reports, without any entry.
    pub(super) fn new(reports: usize) -> Self {
        Self {
            file: SpooledTempFile::new(BYTES_IN_MEMORY),
            bytes: 0,
            pieces: vec![Vec::new(); reports],
            pages: 0,
        }
    }

    /// Adds the entries of a page, each with the number of its report in the batch.
    pub(super) fn add_page(&mut self, mut entries: Vec<(usize, EntryLine)>) -> io::Result<()> {
        self.pages += 1;
        entries.sort_by_key(|(number, _)| *number);
        for group in entries.chunk_by(|(a, _), (b, _)| a == b) {
            let mut lines = Vec::new();
            for (_, entry) in group {
                write_line(&mut lines, entry)?;
            }
            let piece = block::compress_prepend_size(&lines);
            self.file.write_all(&piece)?;
            self.pieces[group[0].0].push((self.bytes, piece.len()));
            self.bytes += piece.len() as u64;
        }
        Ok(())
    }

    /// The size of what is held, compressed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a report has no entries.
    pub(super) fn is_empty(&self, number: usize) -> bool {
        self.pieces[number].is_empty()
    }

    /// Passes on the lines of a report, each once, and returns their number: EC2 may return an entry on two
    /// pages.
    pub(super) fn for_each_line(
        &mut self,
        number: usize,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<u64> {
        let mut seen = HashSet::new();
        let mut piece = Vec::new();
        for &(start, bytes) in &self.pieces[number] {
            piece.resize(bytes, 0);
            self.file.seek(SeekFrom::Start(start))?;
            self.file.read_exact(&mut piece)?;
            let lines = block::decompress_size_prepended(&piece).map_err(io::Error::other)?;
            for line in lines.split_inclusive(|&byte| byte == b'\n') {
                if seen.insert(ReportKey::of(line)) {
                    each(line);
                }
            }
        }
        Ok(seen.len() as u64)
    }
}

/// Appends an entry as a line.
pub(super) fn write_line(lines: &mut Vec<u8>, entry: &EntryLine) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, entry)?;
    lines.push(b'\n');
    Ok(())
}
