//! The targets: those that were not read come first, with the word that says so.

use maud::{Markup, html};

use super::Page;
use super::attention::lacks_images;
use super::cells::{count, head, more, number, shown, table, text};
use crate::documents::{LedgerLine, TargetError, TargetStatus};

pub(super) fn section(page: Page<'_>) -> Markup {
    let counts = page.snapshot.counts.targets;
    let mut targets: Vec<&LedgerLine> = page.snapshot.targets.iter().collect();
    // Stable: within a status, they stay in the order of the ledger.
    targets.sort_by_key(|line| match line.status {
        TargetStatus::Failed => 0,
        TargetStatus::Incomplete => 1,
        TargetStatus::Complete if lacks_images(line) => 2,
        TargetStatus::Complete => 3,
        TargetStatus::Skipped => 4,
    });
    let listed = &targets[..targets.len().min(page.rows)];
    let rows = html! {
        (head(["Account and Region", "Status", "Reports", "AMIs"]))
        tbody { @for line in listed { (row(line)) } }
    };
    let unread = counts.failed + counts.incomplete;
    html! {
        section {
            h2 #targets { "Accounts and Regions" }
            @if unread > 0 {
                p.worst {
                    strong.word { "Not read: " } (number(counts.failed)) " not at all, " (number(counts.incomplete))
                    " not to the end. What is there is not known, and is never taken for nothing."
                }
            } @else {
                p { (count(counts.complete, "target")) " read to the end." }
            }
            @if counts.skipped > 0 {
                p { (number(counts.skipped)) " skipped: the Region is not enabled for the account." }
            }
            (table("targets-caption", "Targets, those that were not read first", &rows))
            (more((targets.len() - listed.len()) as u64, "targets", &page.commands.print_snapshot()))
        }
    }
}

fn row(line: &LedgerLine) -> Markup {
    let is_unread = matches!(line.status, TargetStatus::Failed | TargetStatus::Incomplete);
    let images = line.images.as_ref();
    let images_error = images.and_then(|images| images.images_error.as_ref());
    let references_error = images.and_then(|images| images.references_error.as_ref());
    let images_read = images.and_then(|images| images.images_read);
    html! {
        tr.worst[is_unread] {
            th scope="row" { (line.account_id) "/" (line.region) }
            td data-label="Status" {
                strong.word[is_unread] { (status_word(line.status)) }
                @if let Some(why) = &line.error { (error("", why)) }
                @if let Some(why) = images_error { (error("AMIs not read: ", why)) }
                @if let Some(why) = references_error { (error("References not read: ", why)) }
            }
            td.number data-label="Reports" { (number(line.reports)) }
            td.number data-label="AMIs" { @match images_read { Some(images) => (number(images)), None => "not read" } }
        }
    }
}

fn error(what: &str, error: &TargetError) -> Markup {
    html! { span.place { (what) code { (shown(&error.code)) } " " (text(&error.message)) } }
}

fn status_word(status: TargetStatus) -> &'static str {
    match status {
        TargetStatus::Failed => "Not read",
        TargetStatus::Incomplete => "Partly read",
        TargetStatus::Complete => "Read",
        TargetStatus::Skipped => "Not enabled",
    }
}
