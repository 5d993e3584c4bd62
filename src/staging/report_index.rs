//! What is known of each report of a target, by its ID, in bounded memory.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::unix::fs::FileExt;

use image_usage_archive::domain::report_key::Key;

/// Up to so many notes are held in memory: about 1 MB of them.
///
/// One weekly report for each of 2,000 AMIs is 10,000 live ones, so that few targets ever have more.
const MAX_NOTES_IN_MEMORY: usize = 10_000;

/// The first 64 bits of a key: as even as any hash of it would be.
fn even(key: &Key) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What is noted of a report; its meaning is up to who notes it. The first byte is never 0.
pub(crate) type Note = [u8; 16];

/// Notes on reports, by key.
///
/// Those on a small target's reports are held in memory. Those of a large one go to an unnamed temporary
/// file, many at a time, in the order in which they lie there.
#[derive(Debug, Default)]
pub(crate) struct ReportIndex {
    recent: HashMap<Key, Note, BuildHasherDefault<KeyHasher>>,
    older: Option<Older>,
}

/// The notes that have gone to the file.
#[derive(Debug)]
struct Older {
    table: Table,
    keys: Filter,
}

impl ReportIndex {
    /// Reads the note on a report; `None` where there is none.
    ///
    /// # Errors
    /// Fails when the temporary file can't be read.
    pub(crate) fn get(&self, key: &Key) -> io::Result<Option<Note>> {
        match (self.recent.get(key), &self.older) {
            (Some(note), _) => Ok(Some(*note)),
            (None, Some(older)) if older.keys.may_hold(key) => older.table.get(key),
            (None, _) => Ok(None),
        }
    }

    /// Writes the note on a report, in the place of the one that is there.
    ///
    /// # Errors
    /// Fails when the temporary file can't be written.
    pub(crate) fn put(&mut self, key: Key, note: Note) -> io::Result<()> {
        debug_assert_ne!(note[0], 0);
        self.recent.insert(key, note);
        if self.recent.len() <= MAX_NOTES_IN_MEMORY {
            return Ok(());
        }
        let older = match &mut self.older {
            Some(older) => older,
            none => none.insert(Older {
                table: Table::with_blocks(FIRST_BLOCKS)?,
                keys: Filter::new(),
            }),
        };
        let notes: Vec<_> = self.recent.drain().collect();
        notes.iter().for_each(|(key, _)| older.keys.add(key));
        older.table.put_all(notes)
    }

    /// Whether the notes have outgrown the memory.
    pub(crate) fn is_spilled(&self) -> bool {
        self.older.is_some()
    }
}

/// Takes the hash of a key from the key.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // A slice's length comes before it, as a number of its own.
        if let Ok(key) = bytes.try_into() {
            self.0 = even(key);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Tells of most keys that are not in the file that they aren't, without a look at it (a Bloom filter).
///
/// With 100,000 reports it is wrong about 1 key in 10,000, with a million about 1 in 7, and then the file is
/// looked at for nothing.
#[derive(Debug)]
struct Filter(Vec<u64>);

/// Half a megabyte.
const FILTER_BITS: usize = 4 * 1024 * 1024;

impl Filter {
    fn new() -> Self {
        Self(vec![0; FILTER_BITS / u64::BITS as usize])
    }

    /// The word and the bit in it, of each of the four bits that stand for a key.
    fn bits(key: &Key) -> impl Iterator<Item = (usize, u64)> {
        let (fours, _) = key.as_chunks::<4>();
        fours.iter().map(|four| {
            let bit = u32::from_le_bytes(*four) as usize % FILTER_BITS;
            let bits = u64::BITS as usize;
            (bit / bits, 1 << (bit % bits))
        })
    }

    fn add(&mut self, key: &Key) {
        for (word, bit) in Self::bits(key) {
            self.0[word] |= bit;
        }
    }

    fn may_hold(&self, key: &Key) -> bool {
        Self::bits(key).all(|(word, bit)| self.0[word] & bit != 0)
    }
}

const SLOT_BYTES: usize = size_of::<Key>() + size_of::<Note>();

/// The unit of reading and writing: a page of memory, with 128 slots.
const BLOCK_BYTES: usize = 4_096;
const SLOTS_PER_BLOCK: u64 = (BLOCK_BYTES / SLOT_BYTES) as u64;

/// Room for 20,480 reports before the table is first doubled.
const FIRST_BLOCKS: u64 = 256;

/// The table is doubled when it could become fuller than this many in eight: blocks overflow rarely then.
const FULLEST_EIGHTHS: u64 = 5;

/// A hash table with open addressing in a file, of about 60 bytes a report. A report has its slot in the
/// block that its key names or, where that is full, in the next one with room. An empty slot is all zeros,
/// which a file reads as where nothing was written.
#[derive(Debug)]
struct Table {
    file: File,
    /// A power of two.
    blocks: u64,
    reports: u64,
}

/// One block of the table, in memory.
struct Block {
    number: u64,
    bytes: [u8; BLOCK_BYTES],
    is_changed: bool,
}

/// Where a key's slot is in a block.
enum Slot<'a> {
    Found(&'a mut [u8]),
    Free(&'a mut [u8]),
    BlockFull,
}

impl Block {
    fn read(file: &File, number: u64) -> io::Result<Self> {
        let mut bytes = [0; BLOCK_BYTES];
        file.read_exact_at(&mut bytes, number * BLOCK_BYTES as u64)?;
        Ok(Self {
            number,
            bytes,
            is_changed: false,
        })
    }

    fn slot(&mut self, key: &Key) -> Slot<'_> {
        for slot in self.bytes.chunks_exact_mut(SLOT_BYTES) {
            if slot[size_of::<Key>()] == 0 {
                return Slot::Free(slot);
            }
            if slot.starts_with(key) {
                return Slot::Found(slot);
            }
        }
        Slot::BlockFull
    }

    fn write(self, file: &File) -> io::Result<()> {
        match self.is_changed {
            true => file.write_all_at(&self.bytes, self.number * BLOCK_BYTES as u64),
            false => Ok(()),
        }
    }
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

    /// The blocks in which a key may be, in the order in which they are tried.
    fn places(&self, key: &Key) -> impl Iterator<Item = u64> + use<> {
        let first = even(key) % self.blocks;
        (first..self.blocks).chain(0..first)
    }

    fn get(&self, key: &Key) -> io::Result<Option<Note>> {
        for number in self.places(key) {
            match Block::read(&self.file, number)?.slot(key) {
                Slot::Found(slot) => {
                    let (_, note) = slot.split_at(size_of::<Key>());
                    return Ok(Some(note.try_into().map_err(io::Error::other)?));
                }
                Slot::Free(_) => return Ok(None),
                Slot::BlockFull => {}
            }
        }
        Err(table_full())
    }

    /// Writes notes, each of another key; each block is read and written once, but for those that overflow.
    fn put_all(&mut self, mut notes: Vec<(Key, Note)>) -> io::Result<()> {
        let most = self.reports + notes.len() as u64;
        while most * 8 > self.blocks * SLOTS_PER_BLOCK * FULLEST_EIGHTHS {
            self.double()?;
        }
        notes.sort_unstable_by_key(|(key, _)| even(key) % self.blocks);
        let mut block = Block::read(&self.file, 0)?;
        for (key, note) in &notes {
            self.put(&mut block, key, note)?;
        }
        block.write(&self.file)
    }

    /// Puts a note into its block, which takes the place of the one that is held.
    fn put(&mut self, block: &mut Block, key: &Key, note: &Note) -> io::Result<()> {
        for number in self.places(key) {
            if block.number != number {
                let next = Block::read(&self.file, number)?;
                std::mem::replace(block, next).write(&self.file)?;
            }
            let (slot, is_new) = match block.slot(key) {
                Slot::Found(slot) => (slot, false),
                Slot::Free(slot) => (slot, true),
                Slot::BlockFull => continue,
            };
            let (held, noted) = slot.split_at_mut(size_of::<Key>());
            held.copy_from_slice(key);
            noted.copy_from_slice(note);
            block.is_changed = true;
            self.reports += u64::from(is_new);
            return Ok(());
        }
        Err(table_full())
    }

    fn double(&mut self) -> io::Result<()> {
        let mut larger = Self::with_blocks(self.blocks * 2)?;
        let mut notes = Vec::new();
        for number in 0..self.blocks {
            let block = Block::read(&self.file, number)?;
            for slot in block.bytes.chunks_exact(SLOT_BYTES) {
                let (mut key, mut note) = (Key::default(), Note::default());
                key.copy_from_slice(&slot[..size_of::<Key>()]);
                note.copy_from_slice(&slot[size_of::<Key>()..]);
                if note[0] != 0 {
                    notes.push((key, note));
                }
            }
            if notes.len() >= MAX_NOTES_IN_MEMORY {
                larger.put_all(std::mem::take(&mut notes))?;
            }
        }
        larger.put_all(notes)?;
        *self = larger;
        Ok(())
    }
}

fn table_full() -> io::Error {
    io::Error::other("the table of reports is full")
}

#[cfg(test)]
mod tests {
    use image_usage_archive::domain::report_key::key;

    use super::*;

    fn note(number: u64) -> Note {
        let mut note = [1; 16];
        note[8..].copy_from_slice(&number.to_le_bytes());
        note
    }

    #[test]
    fn a_note_is_found_again_and_replaced_in_memory_and_in_the_file() {
        let mut index = ReportIndex::default();
        let count = 4 * MAX_NOTES_IN_MEMORY as u64;
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
        let count = 2 * SLOTS_PER_BLOCK;
        for numbers in [0..count / 2, count / 2..count] {
            let notes = numbers.map(|number| (key(number), note(number)));
            table.put_all(notes.collect()).unwrap();
        }
        assert_eq!((table.blocks, table.reports), (4, count));
        for number in 0..count {
            assert_eq!(table.get(&key(number)).unwrap(), Some(note(number)));
        }
        assert_eq!(table.get(&key(count)).unwrap(), None);
    }
}
