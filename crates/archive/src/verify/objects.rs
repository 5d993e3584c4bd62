//! The objects that a snapshot names: whether they are what it says, and say what it says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::MultiGzDecoder;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Problem;
use super::snapshot::{below_prefix, is_as_written, layout_of};
use crate::documents::{
    ArchivedLine, ArchivedObject, Counts, EntryLine, LedgerLine, ReportLine, RunFacts, Snapshot,
    Tally, TargetOutcome,
};
use crate::domain::entries_status::EntriesStatus;
use crate::domain::findings;
use crate::domain::findings::{Finding, FindingKind, ListedFindings};
use crate::domain::report::{ReportState, UsageReport};
use crate::domain::report_key::ReportKey;
use crate::domain::run_id::RunId;
use crate::domain::target::Target;
use crate::layout::ObjectKind;
use crate::source::{Fetched, Source, Unreadable};

/// How many targets of a snapshot are looked at at a time; each holds up to 8 MB.
const CONCURRENT_TARGETS: usize = 16;

/// The longest line taken: a report with 50 tags of full length is below 100 KB.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// How many bad lines of an object are told of; the rest is counted.
const MAX_TOLD_LINES: usize = 3;

/// The version of the program that wrote the snapshot has to be this one for its words to be the same.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the objects of one snapshot came to.
#[derive(Default, Debug)]
pub(super) struct Contents {
    pub(super) problems: Vec<Problem>,
    /// What lies under each key that was read.
    pub(super) measured: BTreeMap<String, Measured>,
    /// How many entries each report has, by the key of the entries object.
    pub(super) entries: BTreeMap<String, HashMap<ReportKey, u64>>,
    /// What the reports' lines say about entries objects.
    pub(super) claims: Vec<Claim>,
    /// The bytes that were read.
    pub(super) bytes: u64,
}

/// An object as it lies there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Measured {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    pub(super) lines: u64,
}

/// What the lines of a target's reports say about an entries object.
#[derive(Debug)]
pub(super) struct Claim {
    /// The object of the lines.
    pub(super) claimant: Arc<str>,
    /// The entries object.
    pub(super) key: String,
    /// The ID of each report that has entries there, and how many.
    pub(super) reports: HashMap<ReportKey, (String, u64)>,
}

/// What a target's objects came to.
struct TargetLook {
    contents: Contents,
    /// What its lines add up to; `None` where they can't be trusted.
    outcome: Option<TargetOutcome>,
}

/// Looks at every object of a run, and at what its snapshot says about them.
pub(super) async fn look(
    archive: &Source,
    key: &str,
    snapshot: &Snapshot,
) -> Result<Contents, Unreadable> {
    let mut contents = Contents::default();
    let mut tally = Some(Tally::default());
    let look = |line| look_at_target(archive, key, snapshot, line);
    let mut looks = stream::iter(&snapshot.targets)
        .map(look)
        .buffered(CONCURRENT_TARGETS);
    while let Some(TargetLook {
        contents: of_target,
        outcome,
    }) = looks.try_next().await?
    {
        contents.merge(of_target);
        match (&mut tally, outcome) {
            (Some(tally), Some(outcome)) => tally.add(outcome),
            _ => tally = None,
        }
    }
    if let Some(tally) = tally {
        let told = derived_differences(snapshot, tally).into_iter();
        contents
            .problems
            .extend(told.map(|what| Problem::new(key, what)));
    }
    Ok(contents)
}

impl Contents {
    fn merge(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.measured.extend(other.measured);
        self.entries.extend(other.entries);
        self.claims.extend(other.claims);
        self.bytes += other.bytes;
    }
}

/// Puts the snapshot together again from the lines, and tells what is different.
fn derived_differences(snapshot: &Snapshot, tally: Tally) -> Vec<String> {
    let facts = RunFacts {
        run_id: snapshot.run_id.clone(),
        scope: snapshot.scope.clone(),
        scheduled_at: snapshot.scheduled_at,
        started_at: snapshot.started_at,
        policy: snapshot.policy,
    };
    let derived = Snapshot::new(facts, snapshot.finished_at, tally, None);
    let mut problems = Vec::new();
    let (said, found) = (&snapshot.counts, &derived.counts);
    if said != found {
        problems.push("counts other reports, findings or entries than its objects hold".to_owned());
    } else if snapshot.auditor.version == VERSION && snapshot.findings != derived.findings {
        let (said, found) = (&snapshot.findings, &derived.findings);
        let differs = said.iter().zip(found).find(|(said, found)| said != found);
        let id = differs.map_or("null", |(said, _)| &said.id);
        problems.push(format!(
            "lists other findings than its objects and its policy give, first {id}"
        ));
    }
    problems
}

async fn look_at_target(
    archive: &Source,
    key: &str,
    snapshot: &Snapshot,
    line: &LedgerLine,
) -> Result<TargetLook, Unreadable> {
    let target = line.target();
    let mut contents = Contents::default();
    if let Some(named) = &line.entries_object {
        let entries_key = below_prefix(&named.key).to_owned();
        let start = || EntryLines::new(&target);
        let read = read_lines(archive, key, &entries_key, named, start).await?;
        if let Some(lines) = contents.add(&entries_key, read) {
            contents.entries.insert(entries_key, lines.counts);
        }
    }
    let mut counts = Counts::default();
    let mut findings = ListedFindings::default();
    let mut is_sound = true;
    if let Some(named) = &line.object {
        let reports_key = below_prefix(&named.key).to_owned();
        let prefix = named.key.strip_suffix(&reports_key).unwrap_or_default();
        let start = || ReportLines::new(&target, snapshot, prefix);
        let read = read_lines(archive, key, &reports_key, named, start).await?;
        match contents.add(&reports_key, read) {
            None => is_sound = false,
            Some(mut lines) => {
                contents.claims = lines.take_claims(&reports_key);
                (counts, findings) = (lines.counts, lines.superseded());
            }
        }
    }
    counts.add_target(line.status);
    let ledger = line.clone();
    let outcome = is_sound.then_some(TargetOutcome {
        ledger,
        counts,
        findings,
        changes: None,
    });
    Ok(TargetLook { contents, outcome })
}

/// An object that was read: what it holds, and what is wrong with it.
struct ReadObject<L> {
    measured: Option<Measured>,
    /// `None` where it isn't what the snapshot names.
    lines: Option<L>,
    problems: Vec<String>,
}

impl Contents {
    /// Takes in an object, and gives its lines if all of them are sound.
    fn add<L>(&mut self, key: &str, read: ReadObject<L>) -> Option<L> {
        let ReadObject {
            measured,
            lines,
            problems,
        } = read;
        if let Some(measured) = measured {
            self.bytes += measured.bytes;
            self.measured.insert(key.to_owned(), measured);
        }
        let is_sound = problems.is_empty();
        let problems = problems.into_iter();
        self.problems
            .extend(problems.map(|what| Problem::new(key, what)));
        lines.filter(|_| is_sound)
    }
}

/// Reads an object that a snapshot names: whether it is the same, and then line by line.
///
/// The lines of an object that isn't the same are not looked at: nothing follows from them.
async fn read_lines<L: TakesLines>(
    archive: &Source,
    snapshot_key: &str,
    key: &str,
    named: &ArchivedObject,
    start: impl Fn() -> L,
) -> Result<ReadObject<L>, Unreadable> {
    let nothing = |measured, problem| ReadObject {
        measured,
        lines: None,
        problems: vec![problem],
    };
    let Some(mut fetched) = archive.fetch(key, None).await? else {
        let problem = format!("is missing; {snapshot_key} names it");
        return Ok(nothing(None, problem));
    };
    let mut problems = Vec::new();
    let mut version_id = None;
    let is_same =
        |fetched: &Fetched| (fetched.bytes, &fetched.sha256) == (named.bytes, &named.sha256);
    if let Some(named_version) = named.version_id.as_deref()
        && fetched.version_id.is_some()
        && !is_same(&fetched)
        && let Some(there) = archive.fetch(key, Some(named_version)).await?
    {
        if is_same(&there) {
            problems.push(format!(
                "has a newer version than {named_version}, which {snapshot_key} names, with other bytes: another try of the run, or a change"
            ));
        }
        (fetched, version_id) = (there, Some(named_version));
    }
    let mut measured = Measured {
        sha256: fetched.sha256.clone(),
        bytes: fetched.bytes,
        lines: 0,
    };
    if !is_same(&fetched) {
        let problem = difference(snapshot_key, &measured, named);
        return Ok(nothing(Some(measured), problem));
    }
    let lines = match fetched.held {
        Some(held) => {
            let mut decoder = MultiGzDecoder::new(Lines::new(start()));
            let outcome = decoder.write_all(&held);
            Decoding { decoder, outcome }.finish()
        }
        None => {
            let begin = || Decoding {
                decoder: MultiGzDecoder::new(Lines::new(start())),
                outcome: Ok(()),
            };
            let each = |decoding: &mut Decoding<L>, chunk: &[u8]| {
                if decoding.outcome.is_ok() {
                    decoding.outcome = decoding.decoder.write_all(chunk);
                }
            };
            match archive.fold(key, version_id, begin, each).await? {
                Some((decoding, _)) => decoding.finish(),
                None => Err("is gone again".to_owned()),
            }
        }
    };
    let lines = match lines {
        Ok(lines) => lines,
        Err(problem) => {
            problems.push(problem);
            return Ok(ReadObject {
                measured: Some(measured),
                lines: None,
                problems,
            });
        }
    };
    measured.lines = lines.count;
    if lines.count != named.lines {
        let (count, said) = (lines.count, named.lines);
        problems.push(format!("has {count} lines, and {snapshot_key} says {said}"));
    }
    problems.extend(lines.told());
    Ok(ReadObject {
        measured: Some(measured),
        lines: Some(lines.each),
        problems,
    })
}

/// What tells an object from the one that a snapshot names.
pub(super) fn difference(snapshot_key: &str, found: &Measured, named: &ArchivedObject) -> String {
    let mut problem = match found.bytes == named.bytes {
        false => format!(
            "has {} bytes, and {snapshot_key} says {}",
            found.bytes, named.bytes
        ),
        true => format!(
            "has the SHA-256 {}, and {snapshot_key} says {}",
            found.sha256, named.sha256
        ),
    };
    if let Some(version_id) = &named.version_id {
        problem.push_str(&format!(" of its version {version_id}"));
    }
    problem
}

/// An object on its way through the decompression.
struct Decoding<L: TakesLines> {
    decoder: MultiGzDecoder<Lines<L>>,
    outcome: io::Result<()>,
}

impl<L: TakesLines> Decoding<L> {
    fn finish(mut self) -> Result<Lines<L>, String> {
        let finished = self.outcome.and_then(|()| self.decoder.try_finish());
        let lines = finished.and_then(|()| self.decoder.finish());
        let lines = lines.map_err(|error| format!("can't be decompressed: {error}"))?;
        match lines.rest.is_empty() {
            true => Ok(lines),
            false => Err("has a last line that isn't ended".to_owned()),
        }
    }
}

/// What takes the lines of an object, one after the other.
trait TakesLines {
    /// Takes a line without its end; fails with what is wrong with it.
    fn take(&mut self, line: &[u8]) -> Result<(), String>;
}

/// Divides what is written to it into lines.
struct Lines<L> {
    each: L,
    rest: Vec<u8>,
    count: u64,
    bad: Vec<String>,
    bad_count: u64,
}

impl<L> Lines<L> {
    fn new(each: L) -> Self {
        Self {
            each,
            rest: Vec::new(),
            count: 0,
            bad: Vec::new(),
            bad_count: 0,
        }
    }

    /// What is wrong with the lines: the first few, and how many more.
    fn told(&self) -> Vec<String> {
        let mut told = self.bad.clone();
        match self.bad_count - told.len() as u64 {
            0 => {}
            more => told.push(format!("has {more} more bad lines")),
        }
        told
    }
}

impl<L: TakesLines> Write for Lines<L> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.rest.len() + piece.len() > MAX_LINE_BYTES {
                return Err(io::Error::other("a line has no end"));
            }
            self.rest.extend_from_slice(piece);
            if let Some(line) = self.rest.strip_suffix(b"\n") {
                self.count += 1;
                if let Err(problem) = self.each.take(line) {
                    self.bad_count += 1;
                    if self.bad.len() < MAX_TOLD_LINES {
                        self.bad.push(format!("line {}: {problem}", self.count));
                    }
                }
                self.rest.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of a target's reports, judged again.
struct ReportLines<'a> {
    target: &'a Target,
    snapshot: &'a Snapshot,
    prefix: &'a str,
    /// The AMIs of the snapshot's findings on reports about to go: what supersedes them has to be held.
    images: HashSet<&'a str>,
    of_images: HashMap<String, Vec<UsageReport>>,
    seen: HashSet<ReportKey>,
    counts: Counts,
    findings: ListedFindings,
    claims: BTreeMap<(String, RunId), HashMap<ReportKey, (String, u64)>>,
    buffer: Vec<u8>,
}

impl<'a> ReportLines<'a> {
    fn new(target: &'a Target, snapshot: &'a Snapshot, prefix: &'a str) -> Self {
        let is_going = |finding: &&Finding| {
            finding.entries_archived.is_some()
                && (&finding.account_id, &finding.region) == (&target.account_id, &target.region)
        };
        let going = snapshot.findings.iter().filter(is_going);
        Self {
            target,
            snapshot,
            prefix,
            images: going
                .filter_map(|finding| finding.image_id.as_deref())
                .collect(),
            of_images: HashMap::new(),
            seen: HashSet::new(),
            counts: Counts::default(),
            findings: ListedFindings::default(),
            claims: BTreeMap::new(),
            buffer: Vec::new(),
        }
    }

    fn check_entries(
        &mut self,
        line: &ArchivedLine,
        report_key: Option<ReportKey>,
    ) -> Result<(), String> {
        let state = line.report.state.as_ref();
        let is_right = match &line.entries {
            EntriesStatus::Archived { .. } | EntriesStatus::Failed { .. } => true,
            EntriesStatus::Pending { code: None } => state == Some(&ReportState::Pending),
            EntriesStatus::Pending { code: Some(_) } => state == Some(&ReportState::Available),
            EntriesStatus::NotAvailable => {
                !matches!(state, Some(ReportState::Available | ReportState::Pending))
            }
        };
        if !is_right {
            return Err("its entries can't be where it says in its state".to_owned());
        }
        let EntriesStatus::Archived { key, run_id, count } = &line.entries else {
            return Ok(());
        };
        let (Some(report_id), Some(report_key)) = (&line.report.report_id, report_key) else {
            return Err("names entries, and has no report_id".to_owned());
        };
        let named = (key.clone(), run_id.clone());
        if !self.claims.contains_key(&named) {
            let layout = layout_of(key, ObjectKind::Entries, run_id, self.target);
            let is_right = layout.is_some_and(|layout| layout.prefix() == self.prefix);
            if !is_right {
                return Err(format!("names {key} for entries of the run {run_id}"));
            }
        }
        let reports = self.claims.entry(named).or_default();
        reports.insert(report_key, (report_id.clone(), *count));
        Ok(())
    }

    /// What the lines say about entries objects.
    fn take_claims(&mut self, claimant: &str) -> Vec<Claim> {
        let claimant: Arc<str> = claimant.into();
        let claims = std::mem::take(&mut self.claims).into_iter();
        claims
            .map(|((key, _), reports)| Claim {
                claimant: Arc::clone(&claimant),
                key: below_prefix(&key).to_owned(),
                reports,
            })
            .collect()
    }

    /// The findings, with the reports that supersede those about to go.
    fn superseded(self) -> ListedFindings {
        let Self {
            of_images,
            mut findings,
            ..
        } = self;
        findings.update(|finding| {
            if finding.entries_archived.is_none() {
                return;
            }
            let Some(reports) = finding.image_id.as_ref().and_then(|id| of_images.get(id)) else {
                return;
            };
            let is_it = |report: &&UsageReport| report.report_id == finding.report_id;
            let Some(old) = reports.iter().find(is_it) else {
                return;
            };
            let newer = reports
                .iter()
                .filter(|newer| findings::supersedes(newer, old));
            finding.superseded_by = newer
                .max_by(|a, b| findings::preference(a).cmp(&findings::preference(b)))
                .and_then(|by| by.report_id.clone());
        });
        findings
    }
}

impl TakesLines for ReportLines<'_> {
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let read: ArchivedLine = serde_json::from_slice(line)
            .map_err(|error| format!("is no report's line: {error}"))?;
        let ArchivedLine {
            report,
            findings: kinds,
            entries,
        } = &read;
        let written = ReportLine::new(self.target, report, *kinds, entries);
        if !is_as_written(line, &written, &mut self.buffer) {
            return Err(format!(
                "is not as the auditor writes a report of {}",
                self.target
            ));
        }
        let Snapshot {
            run_id,
            started_at,
            policy,
            auditor,
            ..
        } = self.snapshot;
        let mut expected = findings::evaluate(report, *policy, *started_at);
        let is_available = report.state == Some(ReportState::Available);
        if findings::is_unarchived(is_available, expected, entries) {
            expected.insert(FindingKind::Unarchived);
        }
        if *kinds != expected && auditor.version == VERSION {
            return Err("has other findings than the snapshot's policy gives".to_owned());
        }
        let report_key = report.report_id.as_deref().map(ReportKey::of);
        if let Some(report_key) = report_key
            && !self.seen.insert(report_key)
        {
            return Err("is the second one of its report".to_owned());
        }
        self.check_entries(&read, report_key)?;
        let ArchivedLine {
            report,
            findings: kinds,
            entries,
        } = read;
        self.counts
            .add_report(report.state.as_ref(), kinds, &entries, run_id);
        for kind in kinds.iter() {
            let finding = Finding::new(kind, self.target, &report, &entries, *policy, *started_at);
            self.findings.insert(finding);
        }
        if let Some(image_id) = report
            .image_id
            .clone()
            .filter(|id| self.images.contains(&**id))
        {
            self.of_images.entry(image_id).or_default().push(report);
        }
        Ok(())
    }
}

/// The lines of a target's entries, counted by report.
struct EntryLines<'a> {
    target: &'a Target,
    counts: HashMap<ReportKey, u64>,
    /// The report of the last line, and the lines that it has had.
    group: Option<(String, BTreeSet<ReportKey>)>,
    buffer: Vec<u8>,
}

impl<'a> EntryLines<'a> {
    fn new(target: &'a Target) -> Self {
        Self {
            target,
            counts: HashMap::new(),
            group: None,
            buffer: Vec::new(),
        }
    }
}

impl TakesLines for EntryLines<'_> {
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let entry: EntryLine =
            serde_json::from_slice(line).map_err(|error| format!("is no entry's line: {error}"))?;
        let is_of_target =
            (&entry.account_id, &entry.region) == (&self.target.account_id, &self.target.region);
        if !is_of_target || !is_as_written(line, &entry, &mut self.buffer) {
            return Err(format!(
                "is not as the auditor writes an entry of {}",
                self.target
            ));
        }
        let report = ReportKey::of(&entry.report_id);
        let is_new = match &self.group {
            Some((report_id, _)) => *report_id != entry.report_id,
            None => true,
        };
        if is_new {
            if self.counts.contains_key(&report) {
                return Err(format!("is apart from the others of {}", entry.report_id));
            }
            self.group = Some((entry.report_id.clone(), BTreeSet::new()));
        }
        let count = self.counts.entry(report).or_default();
        if entry.is_no_usage_observed() {
            return match is_new {
                true => Ok(()),
                false => Err(format!(
                    "says that {} has no entries, and it has",
                    entry.report_id
                )),
            };
        }
        if !is_new && *count == 0 {
            return Err(format!(
                "is of {}, which is said to have no entries",
                entry.report_id
            ));
        }
        *count += 1;
        let lines = self.group.as_mut().map(|(_, lines)| lines);
        // Lines are deduplicated by the same 128-bit key.
        let line = ReportKey::of(line);
        match lines.is_none_or(|lines| lines.insert(line)) {
            true => Ok(()),
            false => Err("is there twice".to_owned()),
        }
    }
}
