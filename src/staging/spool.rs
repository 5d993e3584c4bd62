//! Reports, one after the other, in compressed chunks: in memory while they are few, then in an unnamed
//! temporary file.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU16;

use image_usage_archive::domain::findings::FindingSet;
use image_usage_archive::domain::report_key::ReportKey;
use lz4_flex::block;
use serde::{Deserialize, Serialize};
use tempfile::SpooledTempFile;

/// What a spool holds in memory before it goes to a file: about 10,000 reports.
pub(crate) const SPOOL_BYTES_IN_MEMORY: usize = 1024 * 1024;

/// LZ4 finds no repetition that is further back than this.
const CHUNK_BYTES: usize = 64 * 1024;

/// The lengths before each chunk: compressed, and as it was.
const LENGTHS_BYTES: usize = 2 * size_of::<u32>();

/// What is needed of a staged report without reading its fields.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StagedHead {
    pub(crate) key: ReportKey,
    /// What it was asked to look at; `None` if nobody asks.
    pub(crate) look: Option<NonZeroU16>,
    /// Whether EC2 gave the report an ID.
    pub(crate) is_named: bool,
    #[serde(with = "finding_bits")]
    pub(crate) findings: FindingSet,
    pub(crate) state: NonZeroU16,
    pub(crate) image: Option<u64>,
    pub(crate) expiration_milliseconds: Option<i64>,
}

/// A set of findings in one byte.
mod finding_bits {
    use image_usage_archive::domain::findings::FindingSet;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(set: &FindingSet, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(set.bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FindingSet, D::Error> {
        u8::deserialize(from).map(FindingSet::from_bits)
    }
}

/// The reports of a target in chunks.
///
/// LZ4 takes a fifth of the time of deflate, twice, for a larger result that nobody keeps. The last chunk,
/// the only one of a small target, is not compressed at all.
#[derive(Debug)]
pub(super) struct Spool {
    /// The full chunks, each behind its lengths.
    full: SpooledTempFile,
    full_bytes: usize,
    last: Vec<u8>,
    compressed: Vec<u8>,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self {
            full: SpooledTempFile::new(SPOOL_BYTES_IN_MEMORY),
            full_bytes: 0,
            last: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Appends a report: its head, and its fields as JSON.
    pub(super) fn push(&mut self, head: &StagedHead, fields: &[u8]) -> io::Result<()> {
        let last = std::mem::take(&mut self.last);
        let head = &(head, fields.len());
        self.last = postcard::to_extend(head, last).map_err(io::Error::other)?;
        self.last.extend_from_slice(fields);
        if self.last.len() >= CHUNK_BYTES {
            self.append_last_chunk()?;
        }
        Ok(())
    }

    /// Compresses the full chunk and appends it to the spool.
    fn append_last_chunk(&mut self) -> io::Result<()> {
        let most = LENGTHS_BYTES + block::get_maximum_output_size(self.last.len());
        self.compressed.resize(most, 0);
        let (lengths, room) = self.compressed.split_at_mut(LENGTHS_BYTES);
        let taken = block::compress_into(&self.last, room).map_err(io::Error::other)?;
        lengths[..4].copy_from_slice(&length(taken)?.to_le_bytes());
        lengths[4..].copy_from_slice(&length(self.last.len())?.to_le_bytes());
        let chunk = &self.compressed[..LENGTHS_BYTES + taken];
        self.full.seek(SeekFrom::End(0))?;
        self.full.write_all(chunk)?;
        self.full_bytes += chunk.len();
        self.last.clear();
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.full_bytes + self.last.len()
    }

    pub(super) fn read(&mut self) -> io::Result<StagedReader<'_>> {
        self.full.seek(SeekFrom::Start(0))?;
        Ok(StagedReader {
            full: &mut self.full,
            full_bytes: self.full_bytes,
            last: Some(&self.last),
            compressed: &mut self.compressed,
            chunk: Vec::new(),
            read: 0,
        })
    }
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Reads the staged reports, one after the other.
pub(crate) struct StagedReader<'a> {
    full: &'a mut SpooledTempFile,
    full_bytes: usize,
    last: Option<&'a [u8]>,
    compressed: &'a mut Vec<u8>,
    chunk: Vec<u8>,
    /// How much of the chunk has been read.
    read: usize,
}

impl StagedReader<'_> {
    /// The next report: its head, and its fields as JSON; `None` after the last one.
    pub(crate) fn next(&mut self) -> io::Result<Option<(StagedHead, &[u8])>> {
        if self.read == self.chunk.len() && !self.read_chunk()? {
            return Ok(None);
        }
        let unread = &self.chunk[self.read..];
        let ((head, length), rest): ((StagedHead, usize), _) =
            postcard::take_from_bytes(unread).map_err(io::Error::other)?;
        let fields = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.read += unread.len() - rest.len() + length;
        Ok(Some((head, fields)))
    }

    fn read_chunk(&mut self) -> io::Result<bool> {
        self.read = 0;
        if self.full_bytes == 0 {
            self.chunk = self.last.take().unwrap_or(&[]).to_vec();
            return Ok(!self.chunk.is_empty());
        }
        let (mut taken, mut length) = ([0; 4], [0; 4]);
        self.full.read_exact(&mut taken)?;
        self.full.read_exact(&mut length)?;
        // Chunks are nearly alike in length, so resizing clears little.
        self.compressed
            .resize(u32::from_le_bytes(taken) as usize, 0);
        self.full.read_exact(self.compressed)?;
        self.chunk.resize(u32::from_le_bytes(length) as usize, 0);
        block::decompress_into(self.compressed, &mut self.chunk).map_err(io::Error::other)?;
        self.full_bytes -= LENGTHS_BYTES + self.compressed.len();
        Ok(true)
    }
}
