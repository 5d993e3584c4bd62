//! The AMIs of a run: their verdicts, who uses them, and what is not known.

use maud::{Markup, html};

use super::Page;
use super::cells::{
    count, head, image, more, number, shown, table, text, time, time_or, verdict_word,
};
use super::charts;
use crate::documents::ImageCounts;
use crate::documents::{LargeConsumer, QuietImage, UnclearImage, UncoveredImage, UsedImage};
use crate::domain::usage::{BLIND_SPOTS, CONSEQUENCES, reason_in_words};

/// The counts of AMIs; `None` for a run that gave no verdicts.
fn counts(page: Page<'_>) -> Option<ImageCounts> {
    let policy = &page.snapshot.policy;
    page.snapshot.scope.usage_policy(policy)?;
    page.snapshot.counts.images
}

fn observation_days(page: Page<'_>) -> u64 {
    let usage = page.snapshot.policy.usage.as_ref();
    usage.map_or(0, |usage| usage.observation_days.into())
}

/// The verdicts, and what none of them can see.
pub(super) fn verdicts(page: Page<'_>) -> Markup {
    html! {
        section {
            h2 #verdicts { "AMIs by verdict" }
            @match counts(page) {
                Some(counts) => {
                    (charts::verdicts(&counts, observation_days(page)))
                    p { "No verdict sees everything: see " a href="#blind-spots" { "what nothing here can see" } "." }
                }
                None => p { "This run gave no verdicts." }
            }
        }
    }
}

/// The AMIs in use, with their largest consumers.
pub(super) fn in_use(page: Page<'_>) -> Markup {
    let Some(counts) = counts(page) else {
        return html! {};
    };
    let mut listed = page.contents.in_use.clone().into_sorted_vec();
    listed.truncate(page.rows);
    let rows = html! {
        (head(["AMI", "Largest consumers", "Last observed"]))
        tbody { @for one in &listed { (used(one)) } }
    };
    html! {
        section {
            h2 #in-use { "In use" }
            @if listed.is_empty() {
                p { "No use was observed within " (count(observation_days(page), "day")) "." }
            } @else {
                (table("in-use-caption", "AMIs in use, those with the most uses first", &rows))
            }
            (more(counts.in_use.saturating_sub(listed.len() as u64), "AMIs in use", &page.commands.images(" --verdict in_use")))
        }
    }
}

fn used(one: &UsedImage) -> Markup {
    let others = one.consumers.saturating_sub(one.largest.len() as u64);
    html! {
        tr {
            (image(&one.image))
            td data-label="Largest consumers" {
                ul.plain {
                    @for consumer in &one.largest { li { (large_consumer(consumer)) } }
                    @if others > 0 { li { "and " (count(others, "more consumer")) } }
                    @if one.references > 0 {
                        li { "referred to by " (count(one.references, "resource")) " of its own account" }
                    }
                    @if let Some(launched) = one.last_launched { li { "last launched " (time(launched)) } }
                }
            }
            td.time data-label="Last observed" { (time_or(one.last_observed, "never")) }
        }
    }
}

fn large_consumer(consumer: &LargeConsumer) -> Markup {
    let account = consumer
        .account_id
        .as_deref()
        .unwrap_or("an unnamed account");
    let kind = consumer
        .resource_type
        .as_deref()
        .unwrap_or("an unnamed type");
    html! { code { (shown(account)) } " " span.number { (number(consumer.uses.0)) "×" } " " (text(kind)) }
}

/// The AMIs that nobody was observed to use, and what nothing can see.
pub(super) fn quiet(page: Page<'_>) -> Markup {
    let Some(counts) = counts(page) else {
        return html! {};
    };
    let mut listed = page.contents.quiet.clone().into_sorted_vec();
    listed.truncate(page.rows);
    let days = count(observation_days(page), "day");
    let rows = html! {
        (head(["AMI", "Observed without a use", "Last use before"]))
        tbody { @for one in &listed { (quiet_row(one)) } }
    };
    html! {
        section {
            h2 #quiet { "Nobody was observed to use" }
            @if listed.is_empty() {
                p { "There is no AMI that was observed for " (days) " without a use." }
            } @else {
                p {
                    "Reports about all accounts and every known type, without a gap, showed no use for " (days) " or longer. "
                    "That is what was observed; it does not show that nobody uses them."
                }
                (table("quiet-caption", "AMIs that nobody was observed to use, those observed longest first", &rows))
            }
            (more(counts.no_use_observed.saturating_sub(listed.len() as u64), "of these AMIs", &page.commands.images(" --verdict no_use_observed")))
            div.blind {
                h3 #blind-spots { "What nothing here can see" }
                ul { @for what in BLIND_SPOTS { li { (what) } } }
                h3 { "If an AMI goes" }
                ul { @for what in CONSEQUENCES { li { (what) } } }
                p { "Before you retire one: " code { (page.commands.who("AMI")) } }
            }
        }
    }
}

fn quiet_row(one: &QuietImage) -> Markup {
    html! {
        tr {
            (image(&one.image))
            td data-label="Observed without a use" {
                @if let (Some(since), Some(until)) = (one.since, one.until) {
                    (time(since)) " to " (time(until)) ", " (count(one.reports, "report"))
                } @else { "not recorded" }
                @if one.public { span.place { "public: whoever launches it need not be in a report" } }
            }
            td.time data-label="Last use before" { (time_or(one.last_observed, "none")) }
        }
    }
}

/// The AMIs whose verdict cannot say whether they are in use, and why.
pub(super) fn unclear(page: Page<'_>) -> Markup {
    let Some(counts) = counts(page) else {
        return html! {};
    };
    let all = counts.last_seen_in_use + counts.unknown;
    let mut listed = page.contents.unclear.clone().into_sorted_vec();
    listed.truncate(page.rows);
    let reasons = html! {
        (head(["Reason", "AMIs", "What it means"]))
        tbody {
            @for (reason, number_of) in &page.contents.reasons {
                tr {
                    th scope="row" { code { (reason.as_str()) } }
                    td.number data-label="AMIs" { (number(*number_of)) }
                    td data-label="What it means" { (reason_in_words(*reason)) }
                }
            }
        }
    };
    let rows = html! {
        (head(["AMI", "Verdict and reasons", "Last observed"]))
        tbody { @for one in &listed { (unclear_row(one)) } }
    };
    let command = page
        .commands
        .images(" --verdict last_seen_in_use --verdict unknown");
    html! {
        section {
            h2 #unclear { "Not known" }
            @if all == 0 {
                p { "There is no AMI of this kind." }
            } @else {
                p { "What keeps these AMIs from a clear verdict. One AMI can have several reasons." }
                (table("reasons-caption", "AMIs by reason", &reasons))
                (table("unclear-caption", "AMIs that were used, or of which nothing is known", &rows))
            }
            (more(all.saturating_sub(listed.len() as u64), "AMIs", &command))
        }
    }
}

fn unclear_row(one: &UnclearImage) -> Markup {
    let reasons: Vec<&str> = one.reasons.iter().map(|reason| reason.as_str()).collect();
    html! {
        tr {
            (image(&one.image))
            td data-label="Verdict and reasons" {
                strong { (verdict_word(one.verdict)) }
                span.place { (reasons.join(", ")) }
            }
            td.time data-label="Last observed" { (time_or(one.last_observed, "never")) }
        }
    }
}

/// The AMIs that no recent report covers.
pub(super) fn uncovered(page: Page<'_>) -> Markup {
    let Some(counts) = counts(page) else {
        return html! {};
    };
    let mut listed = page.contents.uncovered.clone().into_sorted_vec();
    listed.truncate(page.rows);
    let rows = html! {
        (head(["AMI", "Why"]))
        tbody { @for UncoveredImage { image: name, message } in &listed { tr { (image(name)) td data-label="Why" { (text(message)) } } } }
    };
    html! {
        section {
            h2 #uncovered { "Uncovered" }
            @if listed.is_empty() {
                p { "A recent report covers each AMI that counts, or is on its way." }
            } @else {
                (table("uncovered-caption", "AMIs that no recent report covers", &rows))
            }
            (more(counts.uncovered.saturating_sub(listed.len() as u64), "uncovered AMIs", &page.commands.findings(" --kind uncovered")))
        }
    }
}
