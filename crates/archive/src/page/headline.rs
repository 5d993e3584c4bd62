//! A run in one sentence.

use super::cells::{count, number};
use crate::documents::{Snapshot, TargetCounts};

/// Says whether everything was read, and what needs attention.
pub(super) fn of(snapshot: &Snapshot) -> String {
    let TargetCounts {
        complete,
        incomplete,
        failed,
        skipped: _,
    } = snapshot.counts.targets;
    let (unread, all) = (incomplete + failed, complete + incomplete + failed);
    let read = match (unread, all) {
        (0, 0) => "No target was to be read".to_owned(),
        (0, 1) => "The one target was read".to_owned(),
        (0, _) => format!("All {} targets were read", number(all)),
        (1, 1) => "The one target was not read to its end".to_owned(),
        (1, _) => format!("1 of {} targets was not read to its end", number(all)),
        _ => format!(
            "{} of {} targets were not read to their end",
            number(unread),
            number(all)
        ),
    };
    let parts = attention(snapshot);
    match (parts.split_last(), unread) {
        (None, 0) => format!("{read}, and nothing needs attention."),
        (None, _) => format!("{read}: what is there is not known."),
        (Some((last, [])), _) => format!("{read}; {last}."),
        (Some((last, others)), _) => format!("{read}; {} and {last}.", others.join(", ")),
    }
}

fn attention(snapshot: &Snapshot) -> Vec<String> {
    let findings = snapshot.counts.findings;
    let is = |number: u64| if number == 1 { "is" } else { "are" };
    let mut parts = Vec::new();
    let changes = snapshot.changes.as_ref();
    if let reports @ 1.. = changes.map_or(0, |changes| changes.reports.gone_unarchived) {
        parts.push(format!(
            "{} {} gone without archived entries",
            count(reports, "report"),
            is(reports)
        ));
    }
    if let reports @ 1.. = findings.unarchived {
        let expires = if reports == 1 { "expires" } else { "expire" };
        parts.push(format!(
            "{} {expires} soon without archived entries",
            count(reports, "report")
        ));
    }
    if let reports @ 1.. = findings.failed {
        parts.push(format!("{} failed", count(reports, "report")));
    }
    if let reports @ 1.. = findings.stuck {
        parts.push(format!(
            "{} {} stuck",
            count(reports, "report"),
            is(reports)
        ));
    }
    if let images @ 1.. = findings.uncovered.unwrap_or_default() {
        parts.push(format!("no recent report covers {}", count(images, "AMI")));
    }
    parts
}
