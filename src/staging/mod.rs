//! What EC2 lists of a target, noted down until it can be archived.
//!
//! A report's line tells where its entries are, which is known only after every page has been read: the
//! reports that expire first have their entries fetched first. Until then the reports wait in a spool,
//! compressed, in memory while they are few and in an unnamed temporary file when they are many.

pub(crate) mod report_index;

use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};

use lz4_flex::block;
use tempfile::SpooledTempFile;

use self::report_index::{Note, ReportIndex};
use image_usage_archive::documents::snapshot::{EntriesStatus, ReportMembers};
use image_usage_archive::domain::findings::KindSet;
use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::report_key::{self, Key};
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;

/// What a spool holds in memory before it goes to a file: about 10,000 reports.
pub(crate) const SPOOL_BYTES_IN_MEMORY: usize = 1024 * 1024;

/// The reports of a target in EC2's order, and what is known of each.
#[derive(Debug)]
pub(crate) struct Listing {
    spool: Spool,
    notes: Notes,
}

/// What is known of each report of a target.
#[derive(Default, Debug)]
pub(crate) struct Notes {
    index: ReportIndex,
    /// Whether there is more to know of any report than that it is listed.
    has_more: bool,
    states: Numbers<Option<ReportState>>,
    places: Numbers<EntriesStatus>,
}

/// What is known of a report besides what EC2 lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whether EC2 lists it in this run.
    pub(crate) is_listed: bool,
    /// What was said of it before; `None` where nothing was.
    pub(crate) known: Option<Known>,
    /// Where its entries are, if that is settled: the number of a place, and their count.
    entries: Option<(u16, u64)>,
}

/// What was said of a report before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Its findings.
    pub(crate) findings: KindSet,
    /// Its state, as a number.
    state: u16,
}

const LISTED: u8 = 1;
const KNOWN: u8 = 2;
const ENTRIES: u8 = 4;
/// So that no note is ever empty.
const NOTED: u8 = 8;

impl Facts {
    fn new() -> Self {
        Self {
            is_listed: false,
            known: None,
            entries: None,
        }
    }

    fn from_note(note: Note) -> Self {
        let [flags, findings, s0, s1, p0, p1, _, _, count @ ..] = note;
        Self {
            is_listed: flags & LISTED != 0,
            known: (flags & KNOWN != 0).then(|| Known {
                findings: KindSet::from_bits(findings),
                state: u16::from_le_bytes([s0, s1]),
            }),
            entries: (flags & ENTRIES != 0)
                .then(|| (u16::from_le_bytes([p0, p1]), u64::from_le_bytes(count))),
        }
    }

    fn to_note(self) -> Note {
        let Self {
            is_listed,
            known,
            entries,
        } = self;
        let mut note = Note::default();
        note[0] = NOTED | if is_listed { LISTED } else { 0 };
        if let Some(Known { findings, state }) = known {
            note[0] |= KNOWN;
            note[1] = findings.bits();
            note[2..4].copy_from_slice(&state.to_le_bytes());
        }
        if let Some((place, count)) = entries {
            note[0] |= ENTRIES;
            note[4..6].copy_from_slice(&place.to_le_bytes());
            note[8..].copy_from_slice(&count.to_le_bytes());
        }
        note
    }
}

impl Listing {
    pub(crate) fn new() -> Self {
        Self {
            spool: Spool::new(),
            notes: Notes::default(),
        }
    }

    /// Notes a report with an ID, unless it is noted already.
    pub(crate) fn note(
        &mut self,
        target: &Target,
        report_id: &str,
        report: &UsageReport,
        findings: KindSet,
    ) -> io::Result<()> {
        let key = report_key::key(report_id);
        let mut facts = self.notes.facts(&key)?;
        if facts.is_listed {
            return Ok(());
        }
        facts.is_listed = true;
        self.notes.index.put(key, facts.to_note())?;
        self.spool_report(target, Some(key), report, findings)
    }

    /// Notes a report without an ID.
    pub(crate) fn note_unnamed(
        &mut self,
        target: &Target,
        report: &UsageReport,
        findings: KindSet,
    ) -> io::Result<()> {
        self.spool_report(target, None, report, findings)
    }

    fn spool_report(
        &mut self,
        target: &Target,
        key: Option<Key>,
        report: &UsageReport,
        findings: KindSet,
    ) -> io::Result<()> {
        let state = self.notes.states.number(&report.state)?;
        self.spool.push(
            &Head {
                key,
                findings,
                state,
                image: report.image_id.as_deref().map(image_hash),
                expiration_milliseconds: report.expiration_time.map(Timestamp::unix_milliseconds),
            },
            &ReportMembers::new(target, report),
        )
    }

    /// The reports, in EC2's order.
    pub(crate) fn read(&mut self) -> io::Result<(SpooledReports<'_>, &Notes)> {
        Ok((self.spool.read()?, &self.notes))
    }

    /// What is known of each report.
    pub(crate) fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// The soonest of the available reports whose entries are not settled, at most so many, in the order
    /// of their expiry; those without one come last.
    pub(crate) fn soonest_unsettled(&mut self, most: usize) -> io::Result<Vec<Wanted>> {
        let available = Some(ReportState::Available);
        let mut soonest = BinaryHeap::new();
        let (mut reports, notes) = self.read()?;
        while let Some((head, members)) = reports.next()? {
            let Some(key) = head.key.filter(|_| *notes.state(&head) == available) else {
                continue;
            };
            let expires = (
                head.expiration_milliseconds.is_none(),
                head.expiration_milliseconds,
            );
            let is_late = |last: &Wanted| expires > last.expires();
            if soonest.len() == most && soonest.peek().is_some_and(is_late) {
                continue;
            }
            if notes.facts_of_listed(&key)?.entries.is_some() {
                continue;
            }
            let Members {
                report_id,
                image_id,
                creation_time,
            } = serde_json::from_slice(members)?;
            let Some(report_id) = report_id else { continue };
            soonest.push(Wanted {
                expires_last: expires.0,
                expiration_milliseconds: expires.1,
                report_id,
                key,
                image_id,
                creation_time,
            });
            if soonest.len() > most {
                soonest.pop();
            }
        }
        Ok(soonest.into_sorted_vec())
    }

    /// The bytes that wait to be archived.
    pub(crate) fn bytes(&self) -> usize {
        self.spool.bytes()
    }

    /// Whether all of it is held in memory, and is little.
    pub(crate) fn is_small(&self) -> bool {
        !self.notes.index.is_spilled() && self.spool.bytes() < SPOOL_BYTES_IN_MEMORY
    }
}

impl Notes {
    /// What is known of a report.
    pub(crate) fn facts(&self, key: &Key) -> io::Result<Facts> {
        Ok(self
            .index
            .get(key)?
            .map_or_else(Facts::new, Facts::from_note))
    }

    /// What is known of a report that is listed.
    pub(crate) fn facts_of_listed(&self, key: &Key) -> io::Result<Facts> {
        match self.has_more {
            true => self.facts(key),
            false => Ok(Facts {
                is_listed: true,
                ..Facts::new()
            }),
        }
    }

    /// Notes what was said of a report before, unless something later is noted.
    ///
    /// Returns what is known of it now if this was new.
    pub(crate) fn note_known(
        &mut self,
        key: &Key,
        findings: KindSet,
        state: &Option<ReportState>,
        entries: Option<&EntriesStatus>,
    ) -> io::Result<Option<Facts>> {
        let mut facts = self.facts(key)?;
        let is_new = facts.known.is_none();
        let missing = facts.entries.is_none();
        if is_new {
            let state = self.states.number(state)?;
            facts.known = Some(Known { findings, state });
        }
        if let Some(entries) = entries.filter(|_| missing) {
            facts.entries = Some(self.place(entries)?);
        }
        self.has_more = true;
        if is_new || facts.entries.is_some() == missing {
            self.index.put(*key, facts.to_note())?;
        }
        Ok(is_new.then_some(facts))
    }

    /// Notes where a report's entries are.
    pub(crate) fn settle_entries(&mut self, key: &Key, entries: &EntriesStatus) -> io::Result<()> {
        let mut facts = self.facts(key)?;
        facts.entries = Some(self.place(entries)?);
        self.has_more = true;
        self.index.put(*key, facts.to_note())
    }

    /// The same, unless they are in the archive already.
    pub(crate) fn settle_unless_archived(
        &mut self,
        key: &Key,
        entries: &EntriesStatus,
    ) -> io::Result<()> {
        match self.entries(&self.facts(key)?) {
            Some(EntriesStatus::Archived { .. }) => Ok(()),
            _ => self.settle_entries(key, entries),
        }
    }

    /// Takes back that entries are archived under this key: they are not, for another try's are there.
    pub(crate) fn forget_entries_in(&mut self, object_key: &str) {
        let lost = EntriesStatus::Pending {
            code: Some("ArchivedByAnotherTry".to_owned()),
        };
        let is_there = |place: &EntriesStatus| matches!(place, EntriesStatus::Archived { key, .. } if key == object_key);
        self.places.replace(is_there, lost);
    }

    fn place(&mut self, entries: &EntriesStatus) -> io::Result<(u16, u64)> {
        match entries {
            EntriesStatus::Archived { key, run_id, count } => {
                let place = EntriesStatus::Archived {
                    key: key.clone(),
                    run_id: run_id.clone(),
                    count: 0,
                };
                Ok((self.places.number(&place)?, *count))
            }
            other => Ok((self.places.number(other)?, 0)),
        }
    }

    /// Where a report's entries are, if that is settled.
    pub(crate) fn entries(&self, facts: &Facts) -> Option<EntriesStatus> {
        let (place, count) = facts.entries?;
        Some(match self.places.get(place).clone() {
            EntriesStatus::Archived { key, run_id, .. } => {
                EntriesStatus::Archived { key, run_id, count }
            }
            other => other,
        })
    }

    /// The state of a report that is read from the spool.
    pub(crate) fn state(&self, head: &Head) -> &Option<ReportState> {
        self.states.get(head.state)
    }

    /// The state that a report had before, where it is another one now.
    pub(crate) fn state_before(&self, head: &Head, known: &Known) -> Option<&Option<ReportState>> {
        (known.state != head.state).then(|| self.states.get(known.state))
    }
}

/// A report whose entries are to be fetched; in the order of expiry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wanted {
    expires_last: bool,
    expiration_milliseconds: Option<i64>,
    pub(crate) report_id: String,
    pub(crate) key: Key,
    pub(crate) image_id: Option<String>,
    pub(crate) creation_time: Option<Timestamp>,
}

impl Wanted {
    fn expires(&self) -> (bool, Option<i64>) {
        (self.expires_last, self.expiration_milliseconds)
    }
}

#[derive(serde::Deserialize)]
struct Members {
    report_id: Option<String>,
    image_id: Option<String>,
    creation_time: Option<Timestamp>,
}

/// Tells two AMIs apart without their IDs; alike for two of them once in a great while.
pub(crate) fn image_hash(image_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    image_id.hash(&mut hasher);
    hasher.finish()
}

/// What is to be known of a report without reading its members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// What stands for its ID; `None` where EC2 left that out.
    pub(crate) key: Option<Key>,
    pub(crate) findings: KindSet,
    pub(crate) state: u16,
    pub(crate) image: Option<u64>,
    pub(crate) expiration_milliseconds: Option<i64>,
}

const HEAD_BYTES: usize = 40;
const HAS_KEY: u8 = 1;
const HAS_IMAGE: u8 = 2;
const HAS_EXPIRY: u8 = 4;

impl Head {
    fn to_bytes(self, length: u32) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        bytes[0] = flag(self.key.is_some(), HAS_KEY)
            | flag(self.image.is_some(), HAS_IMAGE)
            | flag(self.expiration_milliseconds.is_some(), HAS_EXPIRY);
        bytes[1] = self.findings.bits();
        bytes[2..4].copy_from_slice(&self.state.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.image.unwrap_or_default().to_le_bytes());
        let expiry = self.expiration_milliseconds.unwrap_or_default();
        bytes[16..24].copy_from_slice(&expiry.to_le_bytes());
        bytes[24..].copy_from_slice(&self.key.unwrap_or_default());
        bytes
    }

    fn from_bytes(bytes: [u8; HEAD_BYTES]) -> (Self, u32) {
        let [flags, findings, s0, s1, l0, l1, l2, l3, rest @ ..] = bytes;
        let eight = |start: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&rest[start..start + 8]);
            eight
        };
        let mut key = Key::default();
        key.copy_from_slice(&rest[16..]);
        let head = Self {
            key: (flags & HAS_KEY != 0).then_some(key),
            findings: KindSet::from_bits(findings),
            state: u16::from_le_bytes([s0, s1]),
            image: (flags & HAS_IMAGE != 0).then(|| u64::from_le_bytes(eight(0))),
            expiration_milliseconds: (flags & HAS_EXPIRY != 0)
                .then(|| i64::from_le_bytes(eight(8))),
        };
        (head, u32::from_le_bytes([l0, l1, l2, l3]))
    }
}

/// Reports, one after the other, in chunks.
///
/// LZ4 takes a fifth of the time that deflate takes, twice; the reports come out larger, and nobody keeps
/// them. The last chunk, the only one of a small target, is not compressed at all.
#[derive(Debug)]
struct Spool {
    /// The chunks that are full: the length of each, compressed and as it was, and the chunk.
    full: SpooledTempFile,
    full_bytes: usize,
    last: Vec<u8>,
    compressed: Vec<u8>,
}

/// LZ4 finds nothing again that is further back than this.
const CHUNK_BYTES: usize = 64 * 1024;

impl Spool {
    fn new() -> Self {
        Self {
            full: SpooledTempFile::new(SPOOL_BYTES_IN_MEMORY),
            full_bytes: 0,
            last: Vec::new(),
            compressed: Vec::new(),
        }
    }

    fn push(&mut self, head: &Head, members: &ReportMembers<'_>) -> io::Result<()> {
        let start = self.last.len();
        self.last.extend_from_slice(&[0; HEAD_BYTES]);
        serde_json::to_writer(&mut self.last, members)?;
        let length = length(self.last.len() - start - HEAD_BYTES)?;
        self.last[start..start + HEAD_BYTES].copy_from_slice(&head.to_bytes(length));
        if self.last.len() >= CHUNK_BYTES {
            self.put_away()?;
        }
        Ok(())
    }

    /// Puts a full chunk to the others.
    fn put_away(&mut self) -> io::Result<()> {
        const LENGTHS_BYTES: usize = 2 * size_of::<u32>();
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

    fn bytes(&self) -> usize {
        self.full_bytes + self.last.len()
    }

    fn read(&mut self) -> io::Result<SpooledReports<'_>> {
        self.full.seek(SeekFrom::Start(0))?;
        Ok(SpooledReports {
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

/// The reports of a listing, one after the other.
pub(crate) struct SpooledReports<'a> {
    full: &'a mut SpooledTempFile,
    full_bytes: usize,
    last: Option<&'a [u8]>,
    compressed: &'a mut Vec<u8>,
    chunk: Vec<u8>,
    /// How much of the chunk has been read.
    read: usize,
}

impl SpooledReports<'_> {
    /// The next report: its head, and its members as JSON; `None` after the last one.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Head, &[u8])>> {
        if self.read == self.chunk.len() && !self.turn_to_next_chunk()? {
            return Ok(None);
        }
        let rest = &self.chunk[self.read..];
        let (head, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
        let (head, length) = Head::from_bytes(*head);
        let members = rest.get(..length as usize).ok_or_else(cut_short)?;
        self.read += HEAD_BYTES + members.len();
        Ok(Some((head, members)))
    }

    fn turn_to_next_chunk(&mut self) -> io::Result<bool> {
        self.read = 0;
        if self.full_bytes == 0 {
            self.chunk = self.last.take().unwrap_or(&[]).to_vec();
            return Ok(!self.chunk.is_empty());
        }
        let (mut taken, mut length) = ([0; 4], [0; 4]);
        self.full.read_exact(&mut taken)?;
        self.full.read_exact(&mut length)?;
        // What was there is written over; chunks are nearly alike in length, so that little is cleared.
        self.compressed
            .resize(u32::from_le_bytes(taken) as usize, 0);
        self.full.read_exact(self.compressed)?;
        self.chunk.resize(u32::from_le_bytes(length) as usize, 0);
        block::decompress_into(self.compressed, &mut self.chunk).map_err(io::Error::other)?;
        self.full_bytes -= taken.len() + length.len() + self.compressed.len();
        Ok(true)
    }
}

fn cut_short() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

/// Things that come again and again, and a small number for each.
#[derive(Debug)]
struct Numbers<T> {
    numbers: HashMap<T, u16>,
    things: Vec<T>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            things: Vec::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    fn number(&mut self, thing: &T) -> io::Result<u16> {
        if let Some(number) = self.numbers.get(thing) {
            return Ok(*number);
        }
        let number = u16::try_from(self.things.len())
            .map_err(|_| io::Error::other("more than 65,536 states or places in one target"))?;
        self.numbers.insert(thing.clone(), number);
        self.things.push(thing.clone());
        Ok(number)
    }

    /// Puts another thing in the place of some, under their numbers.
    fn replace(&mut self, these: impl Fn(&T) -> bool, by: T) {
        self.numbers.retain(|thing, _| !these(thing));
        for thing in self.things.iter_mut().filter(|thing| these(thing)) {
            *thing = by.clone();
        }
    }

    fn get(&self, number: u16) -> &T {
        &self.things[usize::from(number)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_usage_archive::layout::RunId;

    fn target() -> Target {
        Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        }
    }

    fn report(id: &str, state: &str, expires: Option<&str>) -> UsageReport {
        UsageReport {
            report_id: Some(id.to_owned()),
            image_id: Some("ami-1".to_owned()),
            state: Some(ReportState::from(state.to_owned())),
            state_reason: None,
            creation_time: None,
            expiration_time: expires.map(|time| time.parse().unwrap()),
            resource_types: Vec::new(),
            requested_account_ids: Vec::new(),
            tags: Default::default(),
        }
    }

    fn listing(reports: &[UsageReport]) -> Listing {
        let mut listing = Listing::new();
        for report in reports {
            let id = report.report_id.as_deref().unwrap();
            listing
                .note(&target(), id, report, KindSet::default())
                .unwrap();
        }
        listing
    }

    #[test]
    fn a_report_that_is_listed_twice_is_noted_once_and_read_as_often_as_one_likes() {
        let one = report("a", "available", None);
        let mut listing = listing(&[one.clone(), report("b", "odd", None), one]);
        for _ in 0..2 {
            let (mut reports, _) = listing.read().unwrap();
            let mut count = 0;
            while let Some((_, members)) = reports.next().unwrap() {
                let report: UsageReport = serde_json::from_slice(members).unwrap();
                assert_eq!(report.image_id.as_deref(), Some("ami-1"));
                count += 1;
            }
            assert_eq!(count, 2);
        }
    }

    #[test]
    fn unsettled_entries_come_by_expiry_and_those_without_one_come_last() {
        let mut listing = listing(&[
            report("undated", "available", None),
            report("late", "available", Some("2026-12-01T00:00:00Z")),
            report("pending", "pending", Some("2026-11-01T00:00:00Z")),
            report("soon", "available", Some("2026-11-25T00:00:00Z")),
            report("settled", "available", Some("2026-11-24T00:00:00Z")),
        ]);
        listing
            .notes
            .settle_entries(&report_key::key("settled"), &EntriesStatus::NotAvailable)
            .unwrap();
        let mut ids = |most| {
            let wanted = listing.soonest_unsettled(most).unwrap();
            wanted
                .into_iter()
                .map(|wanted| wanted.report_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(9), ["soon", "late", "undated"]);
        assert_eq!(ids(2), ["soon", "late"]);
    }

    #[test]
    fn what_is_known_later_stays_and_entries_are_taken_from_whoever_has_them() {
        let mut listing = listing(&[report("a", "available", None)]);
        let key = report_key::key("a");
        let state = Some(ReportState::Pending);
        let archived = EntriesStatus::Archived {
            key: "k".to_owned(),
            run_id: RunId::of_request("2026-11-22T06:00:00Z".parse().unwrap(), "r"),
            count: 7,
        };
        let none = KindSet::default();
        assert!(
            listing
                .notes
                .note_known(&key, none, &state, None)
                .unwrap()
                .is_some()
        );
        assert!(
            listing
                .notes
                .note_known(&key, none, &None, Some(&archived))
                .unwrap()
                .is_none()
        );
        let facts = listing.notes.facts(&key).unwrap();
        assert!(facts.is_listed);
        assert_eq!(listing.notes.states.get(facts.known.unwrap().state), &state);
        assert_eq!(listing.notes.entries(&facts), Some(archived));
    }
}
