//! Checks an archive: that nothing in it was lost or changed since it was written.
//!
//! # What is checked
//!
//! - **Each snapshot** is one, in exactly the bytes that the auditor writes for what it says; its run, its
//!   schedule and its key agree, and so do its ledger, its counts, its status and the lengths of its lists.
//! - **Each object that a snapshot names** exists, with its size, its SHA-256 and its number of lines, and
//!   has a key of the snapshot's run and of the target. In a bucket with versions the newest version must be
//!   the one that the snapshot names, or have the same bytes: it is what queries read.
//! - **Each line** of those objects is in the form that the auditor writes, and of its target. Its findings,
//!   those that the snapshot lists, and all counts are derived again from the reports, the policy and
//!   `started_at`. Entries are grouped by report, and each report with archived entries has exactly as many
//!   in the object that it names.
//! - **Each line of an AMI** is in order, with its lists in order, each item once, and within their bounds. It
//!   agrees with itself, and its verdict, reasons, observation and coverage, and the finding about it, are derived
//!   again from the facts that it states. If the target was read, its summary of reports is derived from the run's report lines, every AMI
//!   that a report names has a line, and whatever follows from the entries that this run fetched is in it.
//!   What it cites of those entries is in them; each report of an earlier run that it says was read has
//!   entries in the object that it names. Nothing is forgotten that the lines of the previous run knew about
//!   when use was observed, and the changed verdicts are those of both runs.
//! - **The chain**: what a full snapshot names as `previous` exists, with that SHA-256. `latest.json` is byte
//!   for byte the newest full snapshot, the head of the chain, and the chain leads from it back to a snapshot
//!   without a previous one.
//! - **The schedule**: full snapshots are not further apart than expected.
//! - **Nothing else** is stored below `v1/`, but for what the phases of a run have handed over, which no snapshot
//!   depends on any more. Objects of reports, entries and AMIs that no snapshot names were
//!   left by an attempt that did not finish, or by a run in progress: they are noted, and so are full snapshots
//!   off the chain (their run was late, or ended right before it updated `latest.json`), folder markers and
//!   files of desktops. Anything else is a problem, because the auditor writes no such thing, and a query may
//!   read it. So is a second chain.
//!
//! An object that cannot be read (in a storage class that must be restored first, encrypted with another
//! key, not for this caller) is listed, and everything else is checked. Such an archive is never sound.
//!
//! # What it proves
//!
//! A changed byte is detected wherever a hash covers it: the snapshots on the chain by their successors, the
//! head by `latest.json`, and all other objects by the snapshots that name them. An attacker who
//! rewrites a snapshot and everything after it, `latest.json` included, produces another consistent archive;
//! only a head digest stored elsewhere reveals it, see [`Options::head`]. S3 Object Lock prevents it.
//!
//! No hash covers scoped snapshots and full ones off the chain. What can be derived again of them is checked;
//! what only the run knew is taken on trust: `finished_at`, the scope's values, pages, errors with their
//! messages and request IDs, version IDs in a folder, changes other than verdicts, and the auditor's version,
//! without which findings and verdicts are not derived. A change of the policy or of `started_at` is detected only if a finding depends
//! on it.
//!
//! Of the line of an AMI, these are taken on trust: the AMI's own fields and its references, because only the
//! run read them; what it carries from earlier runs, except that nothing becomes later or earlier than the
//! previous run knew (consumers of earlier reports, when a source was covered, the first link of a series);
//! and the numbers of omitted consumers, references and changed verdicts. So are the reports that a run asked EC2
//! for. Lines are compared with those of
//! the previous run if that is the full run before it in the archive, and its objects are sound.
//!
//! # Memory
//!
//! One snapshot; for each of up to 16 targets read at a time some 200 bytes a report, as much again for each
//! report whose entries its run fetched, some 500 bytes for each AMI that a report names, and of the entries
//! that its run fetched the first 1,000 consumers of each AMI, some 200 bytes each; for each AMI of the run
//! that is read and of the full run before it some 150 bytes; for each object of the archive its key and
//! SHA-256; and for each report whose entries were ever archived or read its ID and their number.

mod chain;
mod changes;
mod contents;
mod entries;
mod entry_lines;
mod image_facts;
mod image_lines;
mod keys;
mod known_images;
mod ledger;
mod others;
mod outline;
mod problem;
mod report_lines;
mod schedule;
mod snapshot;
mod survey;
mod verdict;

use std::collections::{BTreeMap, HashSet};

use crate::documents::AUDITOR_VERSION;
use crate::layout::Layout;
use crate::source::{Source, Unreadable};

use crate::layout::below_prefix;
use keys::SNAPSHOTS;

pub use problem::Problem;
pub use survey::{OnProgress, Progress, Survey, SurveyedRun, survey};
pub use verdict::{CheckedSnapshot, Head, Outcome, Place, SnapshotSummary, Verdict};

/// What the user knows about the archive from elsewhere.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// The SHA-256 of a snapshot that must be on the chain, in lower-case hex: the head at some earlier time.
    pub head: Option<String>,
    /// The hours between two scheduled runs; `None` takes the median and only notes gaps.
    pub every_hours: Option<u32>,
}

/// Reads and checks an archive.
///
/// # Errors
/// Fails if the archive as a whole cannot be read: nothing is known of it then.
pub async fn verify(archive: &Source, options: &Options) -> Result<Verdict, Unreadable> {
    let survey = survey(archive, &|_| {}).await?;
    Ok(check(&survey, options))
}

/// Checks what was read of an archive.
pub fn check(survey: &Survey, options: &Options) -> Verdict {
    let mut chain = chain::trace(survey);
    let given_before = chain::find_given_head(survey, &mut chain, options.head.as_deref());
    let mut problems = std::mem::take(&mut chain.problems);
    let mut notes = std::mem::take(&mut chain.notes);
    notes.extend(other_versions(survey));
    problems.extend(prefix_problems(survey));
    problems.extend(run_problems(survey, &chain.changed));
    problems.extend(earlier_problems(survey));
    let mut reported: HashSet<String> =
        survey.unreadable().map(|(key, _)| key.to_owned()).collect();
    reported.extend(problems.iter().map(|problem| problem.key.clone()));
    problems.extend(entries::problems(survey, &reported));
    let others = others::check(survey, &reported);
    problems.extend(others.problems);
    notes.extend(others.notes);
    if survey.runs.is_empty() && survey.unreadable.is_empty() {
        problems.push(Problem::new(SNAPSHOTS, "contains no snapshot"));
    }
    let gaps = schedule::check(survey, options.every_hours);
    problems.extend(gaps.problems);
    notes.extend(gaps.notes);
    problems.sort();
    problems.dedup();
    verdict::build(survey, &chain, given_before, problems, notes)
}

/// What is wrong with each snapshot on its own, and with its objects. The objects of a snapshot that was
/// changed are not reported: what it says about them is not to be relied on.
fn run_problems<'a>(
    survey: &'a Survey,
    changed: &'a HashSet<String>,
) -> impl Iterator<Item = Problem> + 'a {
    survey.runs.iter().flat_map(move |(key, run)| {
        let own = run.problems.iter().map(move |what| Problem::new(key, what));
        let objects = run.contents.problems.iter().cloned();
        own.chain(objects.filter(move |_| !changed.contains(key)))
    })
}

/// All documents must name their objects under one prefix. The archive may be a copy in another place.
fn prefix_problems(survey: &Survey) -> Vec<Problem> {
    let mut layouts = survey
        .outlines()
        .filter_map(|(key, outline)| Some((key, outline.layout.as_ref()?)));
    let Some((first, expected)) = layouts.next() else {
        return Vec::new();
    };
    let others = layouts.filter(|(_, layout)| *layout != expected);
    let problem = |(key, layout): (&String, &Layout)| {
        let (is, other) = (layout.prefix(), expected.prefix());
        Problem::new(
            key,
            format!("names objects under `{is}`; {first} names them under `{other}`"),
        )
    };
    others.map(problem).collect()
}

fn other_versions(survey: &Survey) -> Vec<String> {
    let mut versions: BTreeMap<&String, usize> = BTreeMap::new();
    for (_, outline) in survey.outlines() {
        *versions.entry(&outline.version).or_default() += 1;
    }
    versions.retain(|version, _| *version != AUDITOR_VERSION);
    let note = |(version, count)| {
        let snapshots = problem::plural(count, "snapshot");
        format!(
            "{snapshots} of the auditor's version {version}: their findings and verdicts are not derived again by {AUDITOR_VERSION}"
        )
    };
    versions.into_iter().map(note).collect()
}

/// Checks the objects of earlier runs that ledgers name.
fn earlier_problems(survey: &Survey) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, outline) in survey.outlines() {
        for named in &outline.earlier {
            let object_key = below_prefix(&named.key);
            let what = match survey.measured(object_key) {
                Some(there) if !there.is(named) => Some(there.difference(key, named)),
                Some(there) => there.line_difference(key, named),
                None => matches!(survey.earlier.get(object_key), Some(Ok(None)))
                    .then(|| format!("is missing; {key} names it")),
            };
            problems.extend(what.map(|what| Problem::new(object_key, what)));
        }
    }
    problems
}
