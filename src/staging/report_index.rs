//! What is known of each report of a target, by its ID.

use std::collections::HashMap;
use std::io;

use image_usage_archive::domain::report_key::ReportKey;

/// Up to this many notes are little.
const FEW_NOTES: usize = 10_000;

/// What is noted of a report; its meaning is up to who notes it. The first byte is never 0.
pub(crate) type Note = [u8; 16];

/// Notes on reports, by key.
#[derive(Debug, Default)]
pub(crate) struct ReportIndex {
    notes: HashMap<ReportKey, Note>,
}

impl ReportIndex {
    /// Reads the note on a report; `None` where there is none.
    pub(crate) fn get(&self, key: &ReportKey) -> io::Result<Option<Note>> {
        Ok(self.notes.get(key).copied())
    }

    /// Writes the note on a report, in the place of the one that is there.
    pub(crate) fn put(&mut self, key: ReportKey, note: Note) -> io::Result<()> {
        self.notes.insert(key, note);
        Ok(())
    }

    /// Whether the notes are many.
    pub(crate) fn is_spilled(&self) -> bool {
        self.notes.len() > FEW_NOTES
    }
}
