//! The changes since the run before.

use maud::{Markup, html};

use super::Page;
use super::cells::{count, head, more, number, shown, table, verdict_word};
use crate::documents::{ChangedVerdict, Changes, PreviousSnapshot};

pub(super) fn section(page: Page<'_>) -> Markup {
    let (changes, previous) = (&page.snapshot.changes, &page.snapshot.previous);
    html! {
        section {
            h2 #changes { "Changes since the run before" }
            @match (changes, previous) {
                (Some(changes), Some(previous)) => (compared(page, changes, previous)),
                _ if !page.snapshot.scope.full => p { "A scoped run is compared with no other." }
                _ => p { "There is no earlier run to compare with." }
            }
        }
    }
}

fn compared(page: Page<'_>, changes: &Changes, previous: &PreviousSnapshot) -> Markup {
    let (findings, reports) = (&changes.findings, &changes.reports);
    let fact = |what: &str, value: String| html! { div { dt { (what) } dd { (value) } } };
    html! {
        p { "Compared with the run " code { (previous.run_id) } "." }
        dl.facts {
            (fact("Findings", format!(
                "{} opened, {} resolved, {} go on, {} not seen",
                number(findings.opened), number(findings.resolved), number(findings.continuing), number(findings.unseen),
            )))
            (fact("Reports", format!(
                "{} appeared, {} gone, {} in another state, {} not seen",
                number(reports.appeared), number(reports.gone), number(reports.changed_state), number(reports.unseen),
            )))
        }
        @if reports.gone_unarchived > 0 {
            p.worst {
                strong.word { "Lost: " } (count(reports.gone_unarchived, "report"))
                " gone whose entries were never archived."
            }
        }
        (verdicts(page, changes))
        (names(page, "Targets added", &changes.targets_added))
        (names(page, "Targets that the run before had", &changes.targets_removed))
        (names(page, "Not compared, because what earlier runs wrote is missing or damaged", &changes.targets_not_compared))
        @if let Some(verdicts) = &changes.verdicts {
            (names(page, "AMIs begin anew, because the lines of earlier runs are missing or damaged", &verdicts.images_not_carried))
        }
    }
}

fn verdicts(page: Page<'_>, changes: &Changes) -> Markup {
    let Some(verdicts) = &changes.verdicts else {
        return html! {};
    };
    let listed = &verdicts.verdicts[..verdicts.verdicts.len().min(page.rows)];
    let all = verdicts.verdicts.len() as u64 + verdicts.verdicts_omitted;
    let rows = html! {
        (head(["AMI", "Before", "Now"]))
        tbody { @for one in listed { (changed(one)) } }
    };
    html! {
        @if all == 0 { p { "No verdict has changed." } }
        @else { (table("verdict-changes", "Verdicts that have changed", &rows)) }
        (more(all - listed.len() as u64, "changed verdicts", &page.commands.print_snapshot()))
    }
}

fn changed(one: &ChangedVerdict) -> Markup {
    html! {
        tr {
            th scope="row" {
                code { (shown(&one.image_id)) }
                span.place { (one.account_id) "/" (one.region) }
            }
            td data-label="Before" { (verdict_word(one.from)) }
            td data-label="Now" { strong { (verdict_word(one.to)) } }
        }
    }
}

fn names(page: Page<'_>, what: &str, names: &[String]) -> Markup {
    let listed = &names[..names.len().min(page.rows)];
    html! {
        @if !names.is_empty() {
            p { (what) ": " (shown_names(listed)) "." }
            (more((names.len() - listed.len()) as u64, "targets", &page.commands.print_snapshot()))
        }
    }
}

fn shown_names(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
    names.join(", ")
}
