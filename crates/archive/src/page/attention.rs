//! What needs attention, and what else was flagged.

use maud::{Markup, html};

use super::Page;
use super::cells::{count, head, more, number, shown, table, text};
use crate::documents::{FindingCounts, ImagesLedger, LedgerLine};
use crate::domain::findings::{Finding, FindingKind};

/// The kinds that are listed here; AMIs that are not covered have a section of their own.
const LISTED: [FindingKind; 4] = [
    FindingKind::Unarchived,
    FindingKind::Failed,
    FindingKind::Stuck,
    FindingKind::UnrecognisedState,
];

/// One thing that needs attention.
struct Concern {
    word: &'static str,
    what: String,
    section: &'static str,
    is_worst: bool,
}

pub(super) fn section(page: Page<'_>) -> Markup {
    let concerns = concerns(page);
    html! {
        section {
            h2 #attention { "What needs attention" }
            @if concerns.is_empty() {
                p { "Nothing." }
            } @else {
                ul.concerns {
                    @for Concern { word, what, section, is_worst } in &concerns {
                        li.worst[*is_worst] {
                            strong.word { (word) } " " (what) " " a href={ "#" (section) } { "More" span.hidden { " about: " (word) } }
                        }
                    }
                }
            }
            (also(&page.snapshot.counts.findings))
        }
    }
}

fn concerns(page: Page<'_>) -> Vec<Concern> {
    let counts = &page.snapshot.counts;
    let FindingCounts {
        unarchived,
        failed,
        stuck,
        uncovered,
        ..
    } = counts.findings;
    let changes = page.snapshot.changes.as_ref();
    let lost = changes.map_or(0, |changes| changes.reports.gone_unarchived);
    let images_unread = page.snapshot.targets.iter().filter(lacks_images).count() as u64;
    let limit = count(page.snapshot.policy.pending_limit_hours.into(), "hour");
    let unread = counts.targets.incomplete + counts.targets.failed;
    let (target, report) = ("target", "report");
    #[rustfmt::skip]
    let all = [
        (unread, target, "Not read:", "targets", true, "reports, AMIs and uses there may be missing below".to_owned()),
        (images_unread, target, "AMIs not read:", "targets", true, "the verdicts there say less".to_owned()),
        (lost, report, "Lost:", "changes", true, "gone, and their entries were never archived".to_owned()),
        (unarchived, report, "Unarchived:", "findings", true, "EC2 deletes them soon, and their entries are not in the archive".to_owned()),
        (failed, report, "Failed:", "findings", false, "EC2 could not create them".to_owned()),
        (stuck, report, "Stuck:", "findings", false, format!("pending for {limit} or longer")),
        (uncovered.unwrap_or_default(), "AMI", "Uncovered:", "uncovered", false, "no recent report could show a use".to_owned()),
    ];
    let concern = |(number, one, word, section, is_worst, what)| Concern {
        word,
        what: format!("{}: {what}.", count(number, one)),
        section,
        is_worst,
    };
    let there = all.into_iter().filter(|(number, ..)| *number > 0);
    there.map(concern).collect()
}

/// Whether a target was read and its AMIs were not.
pub(super) fn lacks_images(line: &&LedgerLine) -> bool {
    line.images.as_ref().is_some_and(|images| {
        let ImagesLedger { images_error, .. } = images;
        line.error.is_none() && images_error.is_some()
    })
}

/// Flags that are no reason to act: nothing is lost.
fn also(counts: &FindingCounts) -> Markup {
    let others = [
        (counts.expiring, "expiring"),
        (counts.expired, "expired and still listed by EC2"),
        (
            counts.unrecognised_state,
            "in a state that this version does not know",
        ),
        (counts.undated, "without an expiration time"),
    ];
    let others: Vec<String> = others
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", number(count)))
        .collect();
    html! {
        @if !others.is_empty() { p { "Also flagged, of all reports: " (others.join("; ")) "." } }
    }
}

/// The findings that need attention.
pub(super) fn findings(page: Page<'_>) -> Markup {
    let counts = &page.snapshot.counts.findings;
    let all = counts.unarchived + counts.failed + counts.stuck + counts.unrecognised_state;
    let listed = page.snapshot.findings.iter();
    let listed: Vec<&Finding> = listed
        .filter(|finding| LISTED.contains(&finding.kind))
        .take(page.rows)
        .collect();
    let rows = html! {
        (head(["Report", "Finding", "AMI"]))
        tbody { @for finding in &listed { (row(finding)) } }
    };
    html! {
        section {
            h2 #findings { "Findings about reports" }
            @if all == 0 { p { "Nothing but what is said above." } }
            @if !listed.is_empty() { (table("findings-caption", "Findings, the most urgent first", &rows)) }
            (more(all - listed.len() as u64, "findings", &page.commands.findings("")))
        }
    }
}

fn row(finding: &Finding) -> Markup {
    html! {
        tr {
            th scope="row" {
                code { (shown(finding.report_id.as_deref().unwrap_or("no ID"))) }
                span.place { (finding.account_id) "/" (finding.region) }
            }
            td data-label="Finding" { strong { (finding.kind.as_str()) } ": " (text(&finding.message)) }
            td.id data-label="AMI" { code { (shown(finding.image_id.as_deref().unwrap_or("no ID"))) } }
        }
    }
}
