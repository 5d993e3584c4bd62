//! What a run has read about the AMIs of a target, sorted by AMI: an external merge sort.
//!
//! Facts come in any order. They are held until they fill a chunk, which is sorted and appended, compressed, to an
//! unnamed temporary file. At the end, the chunks are merged. In memory are one chunk while facts come, and one
//! block of each chunk while they are merged, however many AMIs, reports and consumers there are.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU16;
use std::ops::Range;

use image_usage_archive::documents::ImageFields;
use image_usage_archive::domain::report::{ResourceType, UsageReport};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::ReportLook;
use lz4_flex::block;
use serde::{Deserialize, Serialize};
use tempfile::SpooledTempFile;

use super::interner::Interner;

/// How much is sorted in memory: about 20,000 reports.
const CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// How much of each chunk is held while the chunks are merged. LZ4 finds no repetition that is further back.
const BLOCK_BYTES: usize = 64 * 1024;

/// What of the chunks is held in memory before they go to a file.
const BYTES_IN_MEMORY: usize = 1024 * 1024;

/// The lengths before each block: compressed, and as it was.
const LENGTHS_BYTES: u64 = 2 * size_of::<u32>() as u64;

/// A fact about an AMI.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ImageFact<'a> {
    /// The AMI itself.
    Image(Box<ImageFields>),
    /// A report about it that EC2 lists.
    #[serde(borrow)]
    Report(ListedReport<'a>),
    /// Entries of such a report, at most 1,000; none for a report that observed no usage.
    Entries {
        #[serde(borrow)]
        report_id: Cow<'a, str>,
        consumers: Vec<ConsumerFact>,
    },
}

/// A report about an AMI that EC2 lists.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ListedReport<'a> {
    #[serde(borrow)]
    pub(crate) report_id: Option<Cow<'a, str>>,
    pub(crate) creation_time: Option<Timestamp>,
    #[serde(borrow)]
    pub(crate) state: Option<Cow<'a, str>>,
    /// What it was asked to look at, by its number.
    pub(crate) look: NonZeroU16,
    /// The object with its entries, by the number of its key; `None` if they are not archived.
    pub(crate) entries_key: Option<NonZeroU16>,
}

/// What a report was asked to look at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked {
    resource_types: Vec<ResourceType>,
    requested_account_ids: usize,
}

/// An entry: the account, the type of its resources, and how many there are.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConsumerFact {
    pub(crate) consumer_account_id: Option<String>,
    pub(crate) resource_type: Option<String>,
    pub(crate) usage_count: Option<i64>,
}

impl ImageFact<'_> {
    /// The order of the facts about an AMI: entries come after their report.
    fn order(&self) -> (u8, &str) {
        match self {
            Self::Image(_) => (0, ""),
            Self::Report(report) => (1, report.report_id.as_deref().unwrap_or("")),
            Self::Entries { report_id, .. } => (2, report_id),
        }
    }
}

/// Facts about the AMIs of a target.
#[derive(Debug)]
pub(crate) struct ImageFacts {
    /// Facts as they came: the key by which they are sorted, then the fact.
    chunk: Vec<u8>,
    /// Where each fact of the chunk is: its key, and the fact.
    places: Vec<(Range<usize>, Range<usize>)>,
    file: SpooledTempFile,
    file_bytes: u64,
    /// Where each sorted chunk is in the file.
    sorted: Vec<Range<u64>>,
    names: FactNames,
}

/// What numbers in facts stand for.
#[derive(Default, Debug)]
pub(crate) struct FactNames {
    asked: Interner<Asked>,
    /// What the report before was asked, mostly the same.
    last_asked: Option<NonZeroU16>,
    entries_keys: Interner<String>,
}

impl FactNames {
    /// The number that stands for what a report was asked to look at.
    pub(crate) fn look_number(&mut self, report: &UsageReport) -> io::Result<NonZeroU16> {
        let requested_account_ids = report.requested_account_ids.len();
        let is_same = |number: &NonZeroU16| {
            let asked = self.asked.get(*number);
            asked.resource_types == report.resource_types
                && asked.requested_account_ids == requested_account_ids
        };
        if let Some(number) = self.last_asked.filter(is_same) {
            return Ok(number);
        }
        let number = self.asked.number(&Asked {
            resource_types: report.resource_types.clone(),
            requested_account_ids,
        })?;
        self.last_asked = Some(number);
        Ok(number)
    }

    /// The number that stands for the key of an object with entries.
    pub(crate) fn entries_key_number(&mut self, key: &String) -> io::Result<NonZeroU16> {
        self.entries_keys.number(key)
    }

    /// What a report was asked to look at.
    pub(crate) fn look(
        &self,
        report_id: &str,
        creation_time: Option<Timestamp>,
        number: NonZeroU16,
    ) -> ReportLook {
        let asked = self.asked.get(number);
        let accounts = asked.requested_account_ids;
        ReportLook::new(
            report_id.to_owned(),
            creation_time,
            accounts,
            &asked.resource_types,
        )
    }

    /// The key of an object with entries.
    pub(crate) fn entries_key(&self, number: NonZeroU16) -> &str {
        self.entries_keys.get(number)
    }
}

impl ImageFacts {
    pub(crate) fn new() -> Self {
        Self {
            chunk: Vec::new(),
            places: Vec::new(),
            file: SpooledTempFile::new(BYTES_IN_MEMORY),
            file_bytes: 0,
            sorted: Vec::new(),
            names: FactNames::default(),
        }
    }

    /// What numbers in facts stand for.
    pub(crate) fn names(&mut self) -> &mut FactNames {
        &mut self.names
    }

    /// Adds a fact about an AMI.
    ///
    /// # Errors
    /// Fails as the temporary storage does.
    pub(crate) fn push(&mut self, image_id: &str, fact: &ImageFact<'_>) -> io::Result<()> {
        let start = self.chunk.len();
        let (kind, report_id) = fact.order();
        // IDs contain no control character, so keys sort as their parts do.
        self.chunk.extend_from_slice(image_id.as_bytes());
        self.chunk.extend_from_slice(&[0, kind]);
        self.chunk.extend_from_slice(report_id.as_bytes());
        let key_end = self.chunk.len();
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk = postcard::to_extend(fact, chunk).map_err(io::Error::other)?;
        self.places
            .push((start..key_end, key_end..self.chunk.len()));
        if self.chunk.len() >= CHUNK_BYTES {
            self.write_chunk()?;
        }
        Ok(())
    }

    /// Sorts the chunk in memory.
    fn sort(&mut self) {
        let chunk = &self.chunk;
        self.places
            .sort_by(|(a, _), (b, _)| chunk[a.clone()].cmp(&chunk[b.clone()]));
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        self.sort();
        let start = self.file_bytes;
        let mut block = Vec::new();
        for (key, fact) in &self.places {
            let place = (&self.chunk[key.clone()], fact.len());
            block = postcard::to_extend(&place, block).map_err(io::Error::other)?;
            block.extend_from_slice(&self.chunk[fact.clone()]);
            if block.len() >= BLOCK_BYTES {
                self.file_bytes += write_block(&mut self.file, &block)?;
                block.clear();
            }
        }
        if !block.is_empty() {
            self.file_bytes += write_block(&mut self.file, &block)?;
        }
        self.sorted.push(start..self.file_bytes);
        self.places.clear();
        self.chunk.clear();
        Ok(())
    }

    /// Returns the facts in the order of their AMIs.
    ///
    /// # Errors
    /// Fails as the temporary storage does.
    pub(crate) fn into_sorted(mut self) -> io::Result<SortedFacts> {
        self.sort();
        let mut sorted = SortedFacts {
            chunk: self.chunk,
            places: self.places.into_iter(),
            file: self.file,
            chunks: self.sorted.into_iter().map(SortedChunk::new).collect(),
            heads: BinaryHeap::new(),
            names: self.names,
            fact: Vec::new(),
        };
        for number in 0..=sorted.chunks.len() {
            sorted.refill(number)?;
        }
        Ok(sorted)
    }
}

fn write_block(file: &mut SpooledTempFile, block: &[u8]) -> io::Result<u64> {
    let compressed = block::compress(block);
    let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    file.write_all(&length(compressed.len())?.to_le_bytes())?;
    file.write_all(&length(block.len())?.to_le_bytes())?;
    file.write_all(&compressed)?;
    Ok(LENGTHS_BYTES + compressed.len() as u64)
}

/// The facts about the AMIs of a target, in the order of their AMIs.
#[derive(Debug)]
pub(crate) struct SortedFacts {
    /// The last chunk, which never went to the file.
    chunk: Vec<u8>,
    places: std::vec::IntoIter<(Range<usize>, Range<usize>)>,
    file: SpooledTempFile,
    chunks: Vec<SortedChunk>,
    /// The first fact of each chunk: its key, the chunk's number, and the fact.
    heads: BinaryHeap<Reverse<Head>>,
    names: FactNames,
    /// The fact that was returned last.
    fact: Vec<u8>,
}

/// A fact that is the first of its chunk: its key, the chunk's number, and the fact.
type Head = (Vec<u8>, usize, Vec<u8>);

/// A sorted chunk while it is read.
#[derive(Debug)]
struct SortedChunk {
    unread: Range<u64>,
    block: Vec<u8>,
    /// How much of the block has been read.
    read: usize,
}

impl SortedFacts {
    /// The AMI of the next fact; `None` after the last one.
    pub(crate) fn peek(&self) -> Option<&str> {
        let Reverse((key, ..)) = self.heads.peek()?;
        let end = key.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&key[..end]).ok()
    }

    /// The next fact, and what numbers in it stand for; `None` after the last one.
    ///
    /// # Errors
    /// Fails as the temporary storage does.
    pub(crate) fn next(&mut self) -> io::Result<Option<(ImageFact<'_>, &FactNames)>> {
        let Some(Reverse((_, number, fact))) = self.heads.pop() else {
            return Ok(None);
        };
        self.refill(number)?;
        self.fact = fact;
        let fact = postcard::from_bytes(&self.fact).map_err(io::Error::other)?;
        Ok(Some((fact, &self.names)))
    }

    /// Reads the next fact of a chunk; the number after the last chunk's is that of the chunk in memory.
    fn refill(&mut self, number: usize) -> io::Result<()> {
        let next = match self.chunks.get_mut(number) {
            Some(chunk) => chunk.next(&mut self.file)?,
            None => self.places.next().map(|(key, fact)| {
                let bytes = |range: Range<usize>| self.chunk[range].to_vec();
                (bytes(key), bytes(fact))
            }),
        };
        let head = next.map(|(key, fact)| Reverse((key, number, fact)));
        self.heads.extend(head);
        Ok(())
    }
}

impl SortedChunk {
    fn new(unread: Range<u64>) -> Self {
        Self {
            unread,
            block: Vec::new(),
            read: 0,
        }
    }

    fn next(&mut self, file: &mut SpooledTempFile) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        if self.read == self.block.len() && !self.read_block(file)? {
            return Ok(None);
        }
        let unread = &self.block[self.read..];
        let ((key, length), rest): ((&[u8], usize), _) =
            postcard::take_from_bytes(unread).map_err(io::Error::other)?;
        let fact = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.read += unread.len() - rest.len() + length;
        Ok(Some((key.to_vec(), fact.to_vec())))
    }

    fn read_block(&mut self, file: &mut SpooledTempFile) -> io::Result<bool> {
        if self.unread.is_empty() {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(self.unread.start))?;
        let (mut compressed_bytes, mut bytes) = ([0; 4], [0; 4]);
        file.read_exact(&mut compressed_bytes)?;
        file.read_exact(&mut bytes)?;
        let mut compressed = vec![0; u32::from_le_bytes(compressed_bytes) as usize];
        file.read_exact(&mut compressed)?;
        self.unread.start += LENGTHS_BYTES + compressed.len() as u64;
        self.block.resize(u32::from_le_bytes(bytes) as usize, 0);
        block::decompress_into(&compressed, &mut self.block).map_err(io::Error::other)?;
        self.read = 0;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(report_id: &str, consumers: usize) -> ImageFact<'_> {
        let consumer = |number| ConsumerFact {
            consumer_account_id: Some(format!("{number:012}")),
            resource_type: Some("ec2:Instance".to_owned()),
            usage_count: Some(1),
        };
        ImageFact::Entries {
            report_id: report_id.into(),
            consumers: (0..consumers).map(consumer).collect(),
        }
    }

    #[test]
    fn facts_come_by_ami_and_entries_after_their_report_however_many_chunks_there_are() {
        for (images, consumers) in [(0, 0), (7, 1), (300, 1_000)] {
            let mut facts = ImageFacts::new();
            // 11 is prime to every number of AMIs here, so each comes once in a round.
            let ids: Vec<usize> = (0..images).map(|number| number * 11 % images).collect();
            for &id in &ids {
                facts
                    .push(&format!("ami-{id:04}"), &entries("b", consumers))
                    .unwrap();
            }
            for &id in &ids {
                let image = ImageFact::Image(Box::default());
                facts.push(&format!("ami-{id:04}"), &image).unwrap();
                facts
                    .push(&format!("ami-{id:04}"), &entries("a", 1))
                    .unwrap();
            }
            let mut sorted = facts.into_sorted().unwrap();
            for id in 0..images {
                let image = ImageFact::Image(Box::default());
                for expected in [image, entries("a", 1), entries("b", consumers)] {
                    assert_eq!(sorted.peek(), Some(format!("ami-{id:04}").as_str()));
                    let (next, _) = sorted.next().unwrap().unwrap();
                    assert_eq!(next, expected);
                }
            }
            assert_eq!(sorted.peek(), None);
            assert!(sorted.next().unwrap().is_none());
        }
    }
}
