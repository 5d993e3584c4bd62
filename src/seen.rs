//! Which reports of a target have been seen, exactly and in bounded memory.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};

/// Up to so many report IDs are held in memory: about 1 MB of them.
///
/// One weekly report for each of 2,000 AMIs is 10,000 live ones, so that few targets ever have more.
const MAX_IDS_IN_MEMORY: usize = 10_000;

/// The size of the filter that stands before the file: 4 MiB.
///
/// With 1,000,000 IDs, 33 bits for each, one in 250,000 new IDs has to be looked up in the file; each
/// such look-up reads it once. Beyond 5,000,000 that makes a listing slow, but never wrong.
const FILTER_BITS: usize = 4 * 1024 * 1024 * 8;

/// The bits that stand for one ID: near the best number for a million IDs.
const BITS_PER_ID: u64 = 8;

/// The IDs of all reports that a target's listing has brought so far.
///
/// EC2 may give a report on two pages, and a listing that starts again gives all of them again. A small
/// target's IDs are held in memory. Those of a large one go to an unnamed temporary file, with a Bloom
/// filter before it: an ID that the filter doesn't know is new, any other one is looked up, so that no
/// report is ever taken for another.
#[derive(Debug, Default)]
pub struct SeenReports {
    in_memory: HashSet<Box<str>>,
    spilled: Option<Spilled>,
}

#[derive(Debug)]
struct Spilled {
    filter: Vec<u64>,
    hashers: [RandomState; 2],
    file: File,
    bytes: u64,
    /// Where the last look-up ended: a listing that starts again brings the IDs in their old order.
    next_look_at: u64,
}

impl SeenReports {
    /// Takes in the IDs of a page, and tells for each if it is new.
    ///
    /// An ID that stands twice on the page is new once.
    ///
    /// # Errors
    /// Fails when the temporary file can't be written or read.
    pub fn insert_page<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> io::Result<Vec<bool>> {
        let ids: Vec<&str> = ids.collect();
        if self.spilled.is_none() && self.in_memory.len() + ids.len() > MAX_IDS_IN_MEMORY {
            let mut spilled = Spilled::new()?;
            let held: Vec<Box<str>> = std::mem::take(&mut self.in_memory).into_iter().collect();
            spilled.append(held.iter().map(|id| &**id))?;
            self.spilled = Some(spilled);
        }
        match &mut self.spilled {
            None => Ok(ids
                .into_iter()
                .map(|id| self.in_memory.insert(id.into()))
                .collect()),
            Some(spilled) => spilled.insert_page(&ids),
        }
    }

    /// Whether the IDs have outgrown the memory.
    pub fn is_spilled(&self) -> bool {
        self.spilled.is_some()
    }
}

impl Spilled {
    fn new() -> io::Result<Self> {
        Ok(Self {
            filter: vec![0; FILTER_BITS / 64],
            hashers: [RandomState::new(), RandomState::new()],
            file: tempfile::tempfile()?,
            bytes: 0,
            next_look_at: 0,
        })
    }

    fn insert_page(&mut self, ids: &[&str]) -> io::Result<Vec<bool>> {
        let doubtful = ids
            .iter()
            .filter(|id| self.bits(id).all(|bit| self.is_set(bit)))
            .copied()
            .collect();
        let known = self.look_up(doubtful)?;
        let mut on_page = HashSet::new();
        let new: Vec<bool> = ids
            .iter()
            .map(|id| !known.contains(id) && on_page.insert(*id))
            .collect();
        self.append(
            ids.iter()
                .zip(&new)
                .filter_map(|(id, new)| new.then_some(*id)),
        )?;
        Ok(new)
    }

    fn bits(&self, id: &str) -> impl Iterator<Item = usize> + use<> {
        // Two hashes make as many as are needed.
        let [first, step] = [0, 1].map(|which: usize| self.hashers[which].hash_one(id));
        (0..BITS_PER_ID).map(move |n| {
            (first.wrapping_add(n.wrapping_mul(step | 1)) % FILTER_BITS as u64) as usize
        })
    }

    fn is_set(&self, bit: usize) -> bool {
        self.filter[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn append<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> io::Result<()> {
        let mut lines = Vec::new();
        for id in ids {
            for bit in self.bits(id) {
                self.filter[bit / 64] |= 1 << (bit % 64);
            }
            // As JSON, an ID with a line break in it is one line all the same.
            serde_json::to_writer(&mut lines, id)?;
            lines.push(b'\n');
        }
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(&lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Tells which of these IDs are in the file.
    fn look_up<'a>(&mut self, mut wanted: HashSet<&'a str>) -> io::Result<HashSet<&'a str>> {
        let mut found = HashSet::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let start = self.next_look_at;
        let (mut at, mut wrapped) = (start, false);
        self.file.seek(SeekFrom::Start(at))?;
        let mut reader = BufReader::new(&self.file);
        let mut line = String::new();
        while !wanted.is_empty() && (!wrapped || at < start) {
            line.clear();
            let length = reader.read_line(&mut line)? as u64;
            if length == 0 {
                if wrapped {
                    break;
                }
                wrapped = true;
                at = 0;
                reader.seek(SeekFrom::Start(0))?;
                continue;
            }
            at += length;
            let id: String = serde_json::from_str(&line)?;
            if let Some(id) = wanted.take(id.as_str()) {
                found.insert(id);
                self.next_look_at = at;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("amiur-{number:017x}")).collect()
    }

    fn insert(seen: &mut SeenReports, ids: &[String]) -> Vec<bool> {
        seen.insert_page(ids.iter().map(String::as_str)).unwrap()
    }

    #[test]
    fn an_id_is_new_once_on_its_page_and_never_again() {
        let mut seen = SeenReports::default();
        let page = ["a", "b", "a"].map(str::to_owned);
        assert_eq!(insert(&mut seen, &page), [true, true, false]);
        assert_eq!(insert(&mut seen, &page), [false, false, false]);
    }

    #[test]
    fn a_large_target_gives_the_same_answers_from_the_file() {
        let count = 3 * MAX_IDS_IN_MEMORY;
        let mut seen = SeenReports::default();
        let all = ids(0..count);
        for page in all.chunks(1_000) {
            assert!(insert(&mut seen, page).into_iter().all(|new| new));
        }
        assert!(seen.is_spilled());
        // From the start again, with a new report on each page.
        for (number, page) in all.chunks(1_000).enumerate() {
            let mut page = page.to_vec();
            page.insert(500, format!("new-{number}\n"));
            page.push(format!("new-{number}\n"));
            let new = insert(&mut seen, &page);
            assert_eq!(new.iter().filter(|new| **new).count(), 1);
            assert!(new[500]);
        }
        // And backwards, against the order of the file.
        for page in all.chunks(1_000).rev() {
            assert!(insert(&mut seen, page).into_iter().all(|new| !new));
        }
    }

    #[test]
    fn a_filter_that_knows_every_id_costs_time_and_no_report() {
        let mut seen = SeenReports::default();
        insert(&mut seen, &ids(0..MAX_IDS_IN_MEMORY + 1));
        seen.spilled.as_mut().unwrap().filter.fill(u64::MAX);
        assert_eq!(insert(&mut seen, &["unheard-of".to_owned()]), [true]);
        assert_eq!(insert(&mut seen, &["unheard-of".to_owned()]), [false]);
    }
}
