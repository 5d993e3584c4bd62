//! What is known of each report of a target, by its ID, in bounded memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// Up to so many reports are held in memory: about 1 MB of them.
///
/// One weekly report for each of 2,000 AMIs is 10,000 live ones, so that few targets ever have more.
const MAX_REPORTS_IN_MEMORY: usize = 10_000;

/// What stands for a report: the first 128 bits of its ID's SHA-256, so that nobody can make two alike.
pub type Key = [u8; 16];

/// What stands for the report of this ID.
pub fn key(report_id: &str) -> Key {
    let mut key = Key::default();
    let digest = Sha256::digest(report_id);
    key.copy_from_slice(&digest[..size_of::<Key>()]);
    key
}

/// What is noted of a report; its meaning is up to who notes it. The first byte is never 0.
pub type Note = [u8; 16];

/// Notes on reports, by key.
///
/// Those on a small target's reports are held in memory. Those of a large one go to an unnamed temporary
/// file, a hash table with open addressing of about 60 bytes a report, of which one block is held.
#[derive(Debug, Default)]
pub struct ReportIndex {
    in_memory: HashMap<Key, Note>,
    table: Option<Table>,
}

impl ReportIndex {
    /// Reads the note on a report; `None` where there is none.
    ///
    /// # Errors
    /// Fails when the temporary file can't be read.
    pub fn get(&self, key: &Key) -> io::Result<Option<Note>> {
        match &self.table {
            None => Ok(self.in_memory.get(key).copied()),
            Some(table) => Ok(table.find(key)?.1),
        }
    }

    /// Writes the note on a report, in the place of the one that is there.
    ///
    /// # Errors
    /// Fails when the temporary file can't be written.
    pub fn put(&mut self, key: Key, note: Note) -> io::Result<()> {
        if let Some(table) = &mut self.table {
            return table.put(&key, &note);
        }
        self.in_memory.insert(key, note);
        if self.in_memory.len() > MAX_REPORTS_IN_MEMORY {
            let mut table = Table::with_blocks(FIRST_BLOCKS)?;
            for (key, note) in std::mem::take(&mut self.in_memory) {
                table.put(&key, &note)?;
            }
            self.table = Some(table);
        }
        Ok(())
    }

    /// Whether the notes have outgrown the memory.
    pub fn is_spilled(&self) -> bool {
        self.table.is_some()
    }
}

const SLOT_BYTES: usize = size_of::<Key>() + size_of::<Note>();

/// The unit of reading: a page of memory, with 128 slots.
const BLOCK_BYTES: usize = 4_096;
const SLOTS_PER_BLOCK: usize = BLOCK_BYTES / SLOT_BYTES;

/// Room for 16,384 reports before the table is first doubled.
const FIRST_BLOCKS: u64 = 256;

/// The table is doubled when it is fuller than this many in eight: blocks overflow rarely then.
const FULLEST_EIGHTHS: u64 = 5;

/// A hash table in a file. A report has its slot in the block that its key names or, where that is full,
/// in the next one with room. An empty slot is all zeros, which a file reads as where nothing was written.
#[derive(Debug)]
struct Table {
    file: File,
    /// A power of two.
    blocks: u64,
    reports: u64,
}

impl Table {
    fn with_blocks(blocks: u64) -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        file.set_len(blocks * BLOCK_BYTES as u64)?;
        Ok(Self {
            file,
            blocks,
            reports: 0,
        })
    }

    /// Finds the place of a key in the file, and its note if it has one.
    fn find(&self, key: &Key) -> io::Result<(u64, Option<Note>)> {
        let [a, b, c, d, e, f, g, h, ..] = *key;
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]) % self.blocks;
        let mut block = [0; BLOCK_BYTES];
        for number in (first..self.blocks).chain(0..first) {
            let start = number * BLOCK_BYTES as u64;
            self.file.read_exact_at(&mut block, start)?;
            for slot in 0..SLOTS_PER_BLOCK {
                let bytes = &block[slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES];
                let (held, note) = bytes.split_at(size_of::<Key>());
                let at = start + (slot * SLOT_BYTES) as u64;
                if note[0] == 0 {
                    return Ok((at, None));
                }
                if held == key {
                    let mut found = Note::default();
                    found.copy_from_slice(note);
                    return Ok((at, Some(found)));
                }
            }
        }
        Err(io::Error::other("the table of reports is full"))
    }

    fn put(&mut self, key: &Key, note: &Note) -> io::Result<()> {
        debug_assert_ne!(note[0], 0);
        let (at, found) = self.find(key)?;
        let mut slot = [0; SLOT_BYTES];
        slot[..size_of::<Key>()].copy_from_slice(key);
        slot[size_of::<Key>()..].copy_from_slice(note);
        self.file.write_all_at(&slot, at)?;
        if found.is_none() {
            self.reports += 1;
            if self.reports * 8 > self.blocks * SLOTS_PER_BLOCK as u64 * FULLEST_EIGHTHS {
                self.double()?;
            }
        }
        Ok(())
    }

    fn double(&mut self) -> io::Result<()> {
        let mut larger = Self::with_blocks(self.blocks * 2)?;
        let mut block = [0; BLOCK_BYTES];
        for number in 0..self.blocks {
            self.file
                .read_exact_at(&mut block, number * BLOCK_BYTES as u64)?;
            for slot in block.chunks_exact(SLOT_BYTES) {
                let (mut key, mut note) = (Key::default(), Note::default());
                key.copy_from_slice(&slot[..size_of::<Key>()]);
                note.copy_from_slice(&slot[size_of::<Key>()..]);
                if note[0] != 0 {
                    larger.put(&key, &note)?;
                }
            }
        }
        *self = larger;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(number: u64) -> Note {
        let mut note = [1; 16];
        note[8..].copy_from_slice(&number.to_le_bytes());
        note
    }

    #[test]
    fn a_note_is_found_again_and_replaced_in_memory_and_in_the_file() {
        let mut index = ReportIndex::default();
        let count = 4 * MAX_REPORTS_IN_MEMORY as u64;
        for number in 0..count {
            let key = key(&number.to_string());
            assert_eq!(index.get(&key).unwrap(), None);
            index.put(key, note(number)).unwrap();
        }
        assert!(index.is_spilled());
        for number in (0..count).step_by(2) {
            index.put(key(&number.to_string()), note(count)).unwrap();
        }
        for number in 0..count {
            let expected = if number % 2 == 0 { count } else { number };
            let found = index.get(&key(&number.to_string())).unwrap();
            assert_eq!(found, Some(note(expected)), "{number}");
        }
        assert_eq!(index.get(&key("unheard-of")).unwrap(), None);
    }

    #[test]
    fn a_block_that_overflows_costs_time_and_no_report() {
        let mut table = Table::with_blocks(4).unwrap();
        // All of the last block, so that the rest wraps around to the first ones.
        let key = |number: u64| {
            let mut key = Key::default();
            key[0] = 3;
            key[8..].copy_from_slice(&number.to_le_bytes());
            key
        };
        let count = 2 * SLOTS_PER_BLOCK as u64;
        for number in 0..count {
            table.put(&key(number), &note(number)).unwrap();
        }
        assert_eq!((table.blocks, table.reports), (4, count));
        for number in 0..count {
            assert_eq!(table.find(&key(number)).unwrap().1, Some(note(number)));
        }
        assert_eq!(table.find(&key(count)).unwrap().1, None);
    }
}
