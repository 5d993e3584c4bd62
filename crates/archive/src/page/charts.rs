//! The charts: inline SVG, with patterns and words beside the colours.

use maud::{Markup, html};

use super::Page;
use super::cells::{count, head, number, table, verdict_word};
use crate::documents::ImageCounts;
use crate::documents::{DAYS, Expirations, OfDay};
use crate::domain::usage::Verdict;

/// The width of the bar of verdicts, and of a day's column with its gap, in units of the drawing.
const BAR_WIDTH: u64 = 1_000;
const BAR_HEIGHT: u64 = 44;
const COLUMN_WIDTH: u64 = 20;
const COLUMN_GAP: u64 = 4;
const CHART_HEIGHT: u64 = 160;

/// A part that is not zero is at least this wide or high, so that it is seen.
const SMALLEST: u64 = 4;

/// The order of the verdicts in the bar and its legend.
const VERDICTS: [Verdict; 5] = [
    Verdict::InUse,
    Verdict::LastSeenInUse,
    Verdict::Unknown,
    Verdict::NoUseObserved,
    Verdict::Gone,
];

/// The patterns that tell the parts of a chart apart without their colours. Defined once, for all charts.
pub(super) fn patterns() -> Markup {
    let pattern = |id: &str, path: &str| {
        html! {
            pattern id=(id) class=(id) width="8" height="8" patternUnits="userSpaceOnUse" {
                rect width="8" height="8" {}
                path d=(path) {}
            }
        }
    };
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                (pattern("fill-in_use", ""))
                (pattern("fill-last_seen_in_use", "M0 8L8 0M-2 2L2 -2M6 10L10 6"))
                (pattern("fill-unknown", "M2 2h1v1h-1zM6 6h1v1h-1z"))
                (pattern("fill-no_use_observed", "M0 2H8M0 6H8"))
                (pattern("fill-gone", "M0 0L8 8M8 0L0 8"))
                (pattern("fill-kept", ""))
                (pattern("fill-not_archived", "M0 8L8 0M-2 2L2 -2M6 10L10 6"))
            }
        }
    }
}

/// A sample of a pattern, beside its name.
fn swatch(name: &str) -> Markup {
    html! {
        svg.swatch viewBox="0 0 24 16" aria-hidden="true" focusable="false" {
            rect.part width="24" height="16" fill={ "url(#fill-" (name) ")" } {}
        }
    }
}

/// The bar of verdicts, and a table that names and counts its parts.
pub(super) fn verdicts(counts: &ImageCounts, observation_days: u64) -> Markup {
    let parts: Vec<(Verdict, u64)> = VERDICTS
        .into_iter()
        .map(|verdict| (verdict, counts.of_verdict(verdict)))
        .collect();
    let placed = parts.iter().zip(widths(&parts, counts.total));
    let placed = placed.scan(0, |next, ((verdict, _), width)| {
        let x = std::mem::replace(next, *next + width);
        Some((verdict, x, width))
    });
    let rows = html! {
        (head(["Verdict", "AMIs", "What is known"]))
        tbody {
            @for (verdict, number_of) in &parts {
                tr {
                    th scope="row" { (swatch(verdict.as_str())) (verdict_word(*verdict)) }
                    td.number data-label="AMIs" { (number(*number_of)) }
                    td data-label="What is known" { (meaning(*verdict, observation_days)) }
                }
            }
        }
    };
    html! {
        p { (count(counts.total, "AMI")) " in all." }
        @if counts.total > 0 {
            svg.bar viewBox={ "0 0 " (BAR_WIDTH) " " (BAR_HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(described(&parts)) {
                @for (verdict, x, width) in placed.filter(|(_, _, width)| *width > 0) {
                    rect.part x=(x) width=(width) height=(BAR_HEIGHT) fill={ "url(#fill-" (verdict.as_str()) ")" } {}
                }
            }
        }
        (table("verdicts-caption", "What each verdict says", &rows))
    }
}

fn described(parts: &[(Verdict, u64)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .map(|(verdict, count)| {
            format!(
                "{} {}",
                number(*count),
                verdict_word(*verdict).to_lowercase()
            )
        })
        .collect();
    parts.join(", ")
}

/// The widths of the parts of the bar: each in proportion, but never too narrow to be seen.
fn widths(parts: &[(Verdict, u64)], total: u64) -> Vec<u64> {
    let mut widths: Vec<u64> = parts
        .iter()
        .map(|(_, count)| match count {
            0 => 0,
            _ => scaled(*count, total, BAR_WIDTH).max(SMALLEST),
        })
        .collect();
    // What rounding and the smallest parts add or lack comes from the widest one.
    let sum: u64 = widths.iter().sum();
    if let Some(widest) = widths.iter_mut().max() {
        *widest = (*widest + BAR_WIDTH).saturating_sub(sum);
    }
    widths
}

/// Scales a count to a length.
fn scaled(count: u64, most: u64, length: u64) -> u64 {
    let scaled = u128::from(count) * u128::from(length) / u128::from(most.max(1));
    u64::try_from(scaled).unwrap_or(length).min(length)
}

fn meaning(verdict: Verdict, observation_days: u64) -> String {
    let days = count(observation_days, "day");
    match verdict {
        Verdict::InUse => format!("somebody was observed to use them within {days}"),
        Verdict::LastSeenInUse => {
            "they were used, and nothing shows that this has ended".to_owned()
        }
        Verdict::Unknown => "nothing can be said; the reasons are below".to_owned(),
        Verdict::NoUseObserved => format!("nobody was observed to use them for {days}"),
        Verdict::Gone => "they no longer exist".to_owned(),
    }
}

/// The chart of expirations, and the same as a table.
pub(super) fn expirations(page: Page<'_>) -> Markup {
    let expirations = &page.contents.expirations;
    let most = expirations.days.iter().map(|day| day.total()).max();
    html! {
        section {
            h2 #expirations { "Expirations of the next 30 days" }
            p { "EC2 deletes a report when it expires. What is archived stays." }
            @match most {
                Some(most @ 1..) => (columns(expirations, most)),
                _ => p { "No report expires." }
            }
            (rest(expirations))
        }
    }
}

fn columns(expirations: &Expirations, most: u64) -> Markup {
    let width = COLUMN_WIDTH * DAYS as u64 - COLUMN_GAP;
    let total = expirations.days.iter().map(|day| day.total()).sum();
    let label = format!(
        "Reports by the day of their expiration: {} in all, at most {} on one day; the table below has the numbers",
        number(total),
        number(most)
    );
    html! {
        figure {
            figcaption {
                ul.legend {
                    li { (swatch("kept")) "entries archived, or none to archive" }
                    li { (swatch("not_archived")) "entries not archived" }
                }
            }
            p.scale aria-hidden="true" { "Most on one day: " (number(most)) }
            svg.columns viewBox={ "0 0 " (width) " " (CHART_HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
                @for (day, of_day) in expirations.days.iter().enumerate() {
                    (column(day as u64, *of_day, most, &expirations.date(day)))
                }
                line.axis x1="0" y1=(CHART_HEIGHT) x2=(width) y2=(CHART_HEIGHT) {}
            }
            div.dates aria-hidden="true" {
                span { (expirations.date(0)) }
                span { (expirations.date(DAYS / 2)) }
                span { (expirations.date(DAYS - 1)) }
            }
        }
        (days(expirations))
    }
}

fn column(day: u64, of_day: OfDay, most: u64, date: &str) -> Markup {
    let (x, width) = (day * COLUMN_WIDTH, COLUMN_WIDTH - COLUMN_GAP);
    let height = |count: u64| match count {
        0 => 0,
        _ => scaled(count, most, CHART_HEIGHT - 2 * SMALLEST).max(SMALLEST),
    };
    let (kept, lost) = (height(of_day.kept), height(of_day.not_archived));
    html! {
        @if of_day.total() > 0 {
            g {
                title { (date) ": " (number(of_day.total())) ", " (number(of_day.not_archived)) " with entries not archived" }
                @if kept > 0 {
                    rect.part x=(x) y=(CHART_HEIGHT - kept) width=(width) height=(kept) fill="url(#fill-kept)" {}
                }
                @if lost > 0 {
                    rect.part x=(x) y=(CHART_HEIGHT - kept - lost) width=(width) height=(lost) fill="url(#fill-not_archived)" {}
                }
            }
        }
    }
}

/// The numbers of the chart.
fn days(expirations: &Expirations) -> Markup {
    let days = expirations.days.iter().enumerate();
    let rows = html! {
        (head(["Day (UTC)", "Reports", "Entries not archived"]))
        tbody {
            @for (day, of_day) in days.filter(|(_, of_day)| of_day.total() > 0) {
                tr {
                    th scope="row" { (expirations.date(day)) }
                    td.number data-label="Reports" { (number(of_day.total())) }
                    td.number data-label="Entries not archived" { (number(of_day.not_archived)) }
                }
            }
        }
    };
    html! { details { summary { "The numbers as a table" } (table("days-caption", "Reports by the day of their expiration", &rows)) } }
}

/// The reports that are not in the chart.
fn rest(expirations: &Expirations) -> Markup {
    let rest = [
        (expirations.later, "later"),
        (expirations.expired, "expired already, and still listed"),
        (expirations.undated, "without an expiration time"),
    ];
    let rest: Vec<String> = rest
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", number(count)))
        .collect();
    html! { @if !rest.is_empty() { p { "Not in the chart: " (rest.join("; ")) "." } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_bar_fill_it_and_none_is_too_narrow_to_be_seen() {
        for counts in [
            [1, 0, 0, 0, 0],
            [300_000, 1, 1, 1, 1],
            [1, 1, 1, 0, 0],
            [7, 5, 3, 2, 90],
        ] {
            let parts: Vec<(Verdict, u64)> = VERDICTS.into_iter().zip(counts).collect();
            let widths = widths(&parts, counts.iter().sum());
            assert_eq!(widths.iter().sum::<u64>(), BAR_WIDTH, "{counts:?}");
            for (width, count) in widths.iter().zip(counts) {
                assert!((*width >= SMALLEST) == (count > 0), "{counts:?}");
            }
        }
    }
}
