//! What a run tells people: a headline, and what needs attention.

use std::collections::BTreeSet;

use serde::Serialize;

use super::changes::{ChangedVerdict, Changes};
use super::counts::RunStatus;
use super::snapshot::Snapshot;
use crate::domain::findings::{Finding, FindingKind, plural};
use crate::domain::visible::is_hidden;

/// How many sentences `attention` has at most: a person reads no more of them in a message.
pub const MAX_ATTENTION: usize = 20;

/// The longest sentence, in bytes. With [`MAX_ATTENTION`] of them, an answer stays far below 64 KB.
const MAX_SENTENCE_BYTES: usize = 500;

/// The kinds of findings that need attention when they open.
const URGENT: [FindingKind; 4] = [
    FindingKind::Unarchived,
    FindingKind::Failed,
    FindingKind::Stuck,
    FindingKind::Uncovered,
];

/// What a run tells people. It follows from the snapshot alone, so a retry tells the same.
///
/// Texts contain no character that JSON, a message template or a chat would treat as its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct News {
    /// The run in one sentence.
    pub headline: String,
    /// Whether a person should look at it: `attention` is not empty, or a target was not read completely.
    pub needs_attention: bool,
    /// The changes since the previous full run; `None` if the run is compared with none.
    pub changes: Option<ChangeCounts>,
    /// What has opened or changed and needs attention, most urgent first: one sentence each. Empty for a scoped
    /// run, which is compared with nothing.
    pub attention: Vec<String>,
    /// How much more needs attention.
    pub attention_omitted: u64,
}

/// The changes since the previous full run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ChangeCounts {
    /// Findings that are new.
    pub opened: u64,
    /// Findings that no longer apply.
    pub resolved: u64,
    /// AMIs whose verdict has changed.
    pub changed_verdicts: u64,
}

impl ChangeCounts {
    fn of(changes: &Changes) -> Self {
        let verdicts = changes.verdicts.as_ref();
        let changed = verdicts.map(|list| list.verdicts.len() as u64 + list.verdicts_omitted);
        Self {
            opened: changes.findings.opened,
            resolved: changes.findings.resolved,
            changed_verdicts: changed.unwrap_or_default(),
        }
    }
}

impl News {
    /// Derives the news from a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let changes = snapshot.changes.as_ref().map(ChangeCounts::of);
        let mut attention = match snapshot.scope.full {
            true => sentences(snapshot),
            false => Vec::new(),
        };
        let verdicts = snapshot
            .changes
            .as_ref()
            .and_then(|changes| changes.verdicts.as_ref());
        let unlisted = verdicts.map_or(0, |list| list.verdicts_omitted);
        let total = attention.len() as u64 + unlisted;
        attention.truncate(MAX_ATTENTION);
        Self {
            headline: headline(snapshot, changes, total),
            needs_attention: snapshot.status == RunStatus::Partial || total > 0,
            changes,
            attention_omitted: total - attention.len() as u64,
            attention,
        }
    }
}

fn headline(snapshot: &Snapshot, changes: Option<ChangeCounts>, attention: u64) -> String {
    let targets = snapshot.counts.targets;
    let unread = targets.incomplete + targets.failed;
    let all = count(targets.complete + unread, "target");
    let run = if snapshot.scope.full {
        "run"
    } else {
        "scoped run"
    };
    let read = match unread {
        0 => format!("Complete {run} of {all}:"),
        1 => format!("Partial {run}: 1 of {all} was not read completely;"),
        _ => format!("Partial {run}: {unread} of {all} were not read completely;"),
    };
    let changed = match changes {
        Some(changes) => format!(
            "{} opened, {} resolved, {} changed",
            count(changes.opened, "finding"),
            changes.resolved,
            count(changes.changed_verdicts, "verdict"),
        ),
        None => format!(
            "{}, compared with no earlier run",
            count(snapshot.counts.findings.total, "finding")
        ),
    };
    let urgent = match attention {
        0 => String::new(),
        1 => "; 1 needs attention".to_owned(),
        _ => format!("; {attention} need attention"),
    };
    format!("{read} {changed}{urgent}.")
}

/// Returns a sentence for each thing that needs attention and that the snapshot lists, most urgent first.
fn sentences(snapshot: &Snapshot) -> Vec<String> {
    let changes = snapshot.changes.as_ref();
    let mut unlisted = changes.map(opened_and_urgent).unwrap_or_default();
    let mut sentences = Vec::new();
    for finding in &snapshot.findings {
        let is_opened = unlisted.remove(&(finding.kind, finding.id.as_str()));
        if URGENT.contains(&finding.kind) && (is_opened || may_have_opened(finding, changes)) {
            sentences.push(sentence_of_finding(finding));
        }
    }
    sentences.extend(unlisted.into_iter().map(|(kind, id)| {
        let what = name(kind);
        printable(format!(
            "{what}: {id}, which is not among the findings that the snapshot lists."
        ))
    }));
    if let Some(changes) = changes {
        let more = changes.opened_omitted;
        if more > 0 {
            let more = count(more, "finding");
            sentences.push(format!(
                "More: {more} opened besides those that the snapshot lists."
            ));
        }
        let verdicts = changes.verdicts.iter().flat_map(|list| &list.verdicts);
        sentences.extend(verdicts.map(sentence_of_verdict));
    }
    sentences
}

/// Returns the opened findings of the urgent kinds, by kind and ID.
fn opened_and_urgent(changes: &Changes) -> BTreeSet<(FindingKind, &str)> {
    let opened = changes.opened.iter().filter_map(|id| {
        let (_, kind) = id.rsplit_once('/')?;
        let kind = URGENT.into_iter().find(|urgent| urgent.as_str() == kind)?;
        Some((kind, id.as_str()))
    });
    opened.collect()
}

/// Whether a finding may be new although `opened` does not list it: there is nothing to compare with, or the
/// list ends before its ID. What is not known to be old is told.
fn may_have_opened(finding: &Finding, changes: Option<&Changes>) -> bool {
    let Some(changes) = changes else {
        return true;
    };
    let target = format!("{}/{}", finding.account_id, finding.region);
    let is_after_the_list =
        changes.opened_omitted > 0 && changes.opened.last().is_none_or(|last| *last < finding.id);
    is_after_the_list || changes.targets_not_compared.contains(&target)
}

fn sentence_of_finding(finding: &Finding) -> String {
    let Finding {
        kind,
        account_id,
        region,
        message,
        ..
    } = finding;
    let image = finding.image_id.as_deref().unwrap_or("an unknown AMI");
    let subject = match &finding.report_id {
        Some(report) => format!("report {report} about {image}"),
        None => image.to_owned(),
    };
    printable(format!(
        "{}: {subject} in {account_id}/{region}: {message}.",
        name(*kind)
    ))
}

fn sentence_of_verdict(changed: &ChangedVerdict) -> String {
    let ChangedVerdict {
        account_id,
        region,
        image_id,
        from,
        to,
    } = changed;
    let (from, to) = (from.as_str(), to.as_str());
    printable(format!(
        "Verdict: {image_id} in {account_id}/{region} changed from {from} to {to}."
    ))
}

/// The name of an urgent kind, as a sentence starts.
fn name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Unarchived => "Unarchived",
        FindingKind::Failed => "Failed",
        FindingKind::Stuck => "Stuck",
        FindingKind::Uncovered => "Uncovered",
        other => other.as_str(),
    }
}

fn count(number: u64, unit: &str) -> String {
    plural(number.cast_signed(), unit)
}

/// Makes a text fit for a message: one line of at most [`MAX_SENTENCE_BYTES`].
///
/// It replaces what EventBridge would put into a message unescaped (`"`, `\`, line breaks), what a chat would take
/// for a mention or a link (`<`, `>`), and what changes the order in which characters are shown.
fn printable(text: String) -> String {
    let mut text: String = text
        .chars()
        .map(|character| match character {
            '"' => '\'',
            '\\' => '/',
            '<' => '(',
            '>' => ')',
            hidden if is_hidden(hidden) => ' ',
            other => other,
        })
        .collect();
    if text.len() > MAX_SENTENCE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_SENTENCE_BYTES - '…'.len_utf8()));
        text.push('…');
    }
    text
}
