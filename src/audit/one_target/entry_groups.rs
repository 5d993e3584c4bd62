//! The entries of a batch of reports, grouped by report, whatever the order in which EC2 returns them.
//!
//! They wait compressed, in memory while they are few and in an unnamed temporary file when they are many. They
//! are read a page at a time, so a report's entries take no memory in proportion to their number.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use image_usage_archive::documents::EntryLine;
use image_usage_archive::domain::report_key::ReportKey;
use lz4_flex::block;
use tempfile::SpooledTempFile;

use crate::archive::lines_writer::write_line;

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

    /// How many pages have entries of a report.
    pub(super) fn pages_of(&self, number: usize) -> usize {
        self.pieces[number].len()
    }

    /// Reads the lines of a report that one of these pages has.
    pub(super) fn lines(&mut self, number: usize, page: usize) -> io::Result<Vec<u8>> {
        let (start, bytes) = self.pieces[number][page];
        let mut piece = vec![0; bytes];
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut piece)?;
        block::decompress_size_prepended(&piece).map_err(io::Error::other)
    }
}

/// Recognises an entry that EC2 repeats, in a page or on the next one: a listing that shifts by a row repeats
/// the last one.
///
/// A digest of each entry of two pages is held: 33 bytes an entry.
#[derive(Default, Debug)]
pub(super) struct Repeats {
    last_page: HashSet<ReportKey>,
    page: HashSet<ReportKey>,
}

impl Repeats {
    /// Begins the next page.
    pub(super) fn next_page(&mut self) {
        self.last_page = std::mem::take(&mut self.page);
    }

    /// Whether the page or the one before had this line.
    pub(super) fn has(&mut self, line: &[u8]) -> bool {
        let key = ReportKey::of(line);
        !self.page.insert(key) || self.last_page.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_entry_is_recognised_in_its_page_and_on_the_next_one() {
        let mut repeats = Repeats::default();
        let mut has = |page: [&str; 3]| {
            repeats.next_page();
            page.map(|line| repeats.has(line.as_bytes()))
        };
        assert_eq!(has(["a", "b", "a"]), [false, false, true]);
        assert_eq!(has(["b", "c", "b"]), [true, false, true]);
        assert_eq!(has(["a", "b", "c"]), [false, true, true]);
    }

    #[test]
    fn no_more_than_two_pages_of_entries_are_held() {
        let mut repeats = Repeats::default();
        for number in 0..10_000_u32 {
            if number.is_multiple_of(100) {
                repeats.next_page();
            }
            assert!(!repeats.has(&number.to_le_bytes()));
        }
        assert_eq!((repeats.last_page.len(), repeats.page.len()), (100, 100));
    }
}
