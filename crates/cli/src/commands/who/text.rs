//! The answer as text.

use image_usage_archive::answer::{
    BLIND_SPOTS, CONSEQUENCES, Run, reason_in_words, verdict_in_words,
};
use image_usage_archive::documents::{ConsumerLine, ImageLine, TargetStatus};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::{Coverage, LAUNCHES, Verdict};

use super::{Answer, Known, Look};
use crate::terminal;

/// How many consumers, references and objects are shown; `--json` has all.
const MAX_SHOWN: usize = 20;

/// Prints a line; false if nobody reads it any more.
pub(super) fn print(line: &str) -> bool {
    terminal::print((terminal::escape(line) + "\n").as_bytes()).is_ok()
}

/// The answer about one AMI.
pub(super) fn of(answer: &Answer, run: &Run) -> String {
    let mut lines = Vec::new();
    if answer.known.is_empty() {
        not_known(answer, run, &mut lines);
    }
    let days = run
        .snapshot
        .policy
        .usage
        .as_ref()
        .map_or(0, |usage| usage.observation_days);
    for known in &answer.known {
        known_lines(known, days, run, &mut lines);
    }
    problems(&answer.looked_at, &mut lines);
    if answer
        .known
        .iter()
        .any(|known| known.line.verdict != Verdict::Gone)
    {
        heading(&mut lines, "If it goes");
        lines.extend(CONSEQUENCES.iter().map(|what| format!("  {what}")));
        heading(&mut lines, "What nothing here can see");
        lines.extend(BLIND_SPOTS.iter().map(|what| format!("  {what}")));
    }
    lines.push(String::new());
    let lines = lines.iter().map(|line| terminal::escape(line) + "\n");
    lines.collect()
}

/// The verdict of one run.
pub(super) fn history_line(run: &Run, line: &ImageLine) -> String {
    let reasons: Vec<&str> = line.reasons.iter().map(|reason| reason.as_str()).collect();
    format!(
        "{}  {}  {}/{}  {:16}  last observed {:24}  {}",
        run.snapshot.started_at,
        line.image_id,
        line.account_id,
        line.region,
        line.verdict.as_str(),
        time(line.last_observed),
        reasons.join(" "),
    )
}

fn not_known(answer: &Answer, run: &Run, lines: &mut Vec<String>) {
    lines.push(format!(
        "{}: not known. The run of {} looked at:",
        answer.image_id, run.snapshot.started_at
    ));
    if !run.has_verdicts() {
        lines.push(
            "  no AMI at all: it was an older version, or AUDITOR_IMAGES was false".to_owned(),
        );
    }
    for look in &answer.looked_at {
        let is_read = look.status == TargetStatus::Complete && look.are_images_read;
        let what = match (is_read, look.has_images) {
            (true, true) => "read",
            (true, false) => "read; no AMI there",
            (false, true) => "not read; only what earlier runs knew",
            (false, false) => "not read, and nothing is known of it",
        };
        lines.push(format!("  {}/{}  {what}", look.account_id, look.region));
    }
}

fn known_lines(known: &Known, days: u32, run: &Run, lines: &mut Vec<String>) {
    let line = &known.line;
    let name = line.image.as_ref().and_then(|image| image.name.as_deref());
    let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
    let ImageLine {
        image_id,
        account_id,
        region,
        ..
    } = line;
    let verdict = verdict_in_words(line.verdict, days);
    lines.push(format!(
        "{image_id}{name} in {account_id}/{region}: {verdict}"
    ));
    let as_of = line
        .as_of
        .map_or("nothing was observed yet".to_owned(), |at| {
            format!("as of {at}")
        });
    lines.push(format!(
        "  {as_of}, by the run of {}",
        run.snapshot.started_at
    ));
    if known.is_of_earlier_run {
        lines.push("  by what earlier runs knew: this run could not read the target".to_owned());
    }
    consumers(line, lines);
    launches_and_references(line, lines);
    looks(line, lines);
    if !line.reasons.is_empty() {
        heading(lines, "What keeps it from `no_use_observed`");
        for reason in &line.reasons {
            lines.push(format!(
                "  {:22}  {}",
                reason.as_str(),
                reason_in_words(*reason)
            ));
        }
    }
    if !known.evidence.is_empty() {
        heading(lines, "The evidence");
        for evidence in known.evidence.iter().take(MAX_SHOWN) {
            let sha256 = evidence
                .sha256
                .as_deref()
                .unwrap_or("not known: its snapshot is missing");
            lines.push(format!("  {}", evidence.report_id));
            lines.push(format!("    {}", evidence.entries_key));
            lines.push(format!("    SHA-256 {sha256}"));
        }
        omitted(known.evidence.len(), 0, lines);
    }
}

fn consumers(line: &ImageLine, lines: &mut Vec<String>) {
    if line.consumers.is_empty() {
        return;
    }
    heading(lines, "Accounts that use or have used it");
    let row = |cells: [&str; 5]| {
        let [account, kind, count, first, last] = cells;
        format!("  {account:12}  {kind:28}  {count:>6}  {first:24}  {last}")
    };
    lines.push(row([
        "account",
        "type",
        "count",
        "first observed",
        "last observed",
    ]));
    for one in line.consumers.iter().take(MAX_SHOWN) {
        let count = one
            .usage_count
            .map_or("-".to_owned(), |count| count.to_string());
        let last = format!("{}{}", one.last_observed, ended(line, one));
        lines.push(row([
            one.consumer_account_id.as_deref().unwrap_or("-"),
            one.resource_type.as_deref().unwrap_or("-"),
            &count,
            &one.first_observed.to_string(),
            &last,
        ]));
    }
    omitted(line.consumers.len(), line.consumers_omitted, lines);
}

/// Whether a later look in full no longer shows a consumer.
fn ended(line: &ImageLine, consumer: &ConsumerLine) -> String {
    let name = consumer.resource_type.as_deref().unwrap_or("");
    let source = line.sources.iter().find(|source| source.source == name);
    match source.and_then(|source| source.covered_until) {
        Some(until) if until > consumer.last_observed => format!(", not on {until}"),
        _ => String::new(),
    }
}

fn launches_and_references(line: &ImageLine, lines: &mut Vec<String>) {
    let launched = line.sources.iter().find(|source| source.source == LAUNCHES);
    if let Some(launched) = launched.and_then(|source| source.last_observed) {
        lines.push(String::new());
        lines.push(format!("Last launched: {launched}"));
    }
    if !line.references.is_empty() {
        heading(lines, "Resources of its own account that refer to it");
        for reference in line.references.iter().take(MAX_SHOWN) {
            let kind = reference.resource_type.as_deref().unwrap_or("-");
            lines.push(format!(
                "  {kind:28}  {}",
                reference.arn.as_deref().unwrap_or("-")
            ));
        }
        omitted(line.references.len(), line.references_omitted, lines);
    }
}

fn looks(line: &ImageLine, lines: &mut Vec<String>) {
    heading(lines, "What was looked at");
    let reports = &line.reports;
    lines.push(format!(
        "  reports that EC2 lists: {} available, {} pending, {} failed, {} in another state",
        reports.available, reports.pending, reports.error, reports.other
    ));
    lines.push(match &line.observation {
        Some(series) => format!(
            "  adequate reports in an uninterrupted series: {}, from {} to {}",
            series.reports, series.since, series.until
        ),
        None => "  no adequate report was read".to_owned(),
    });
    if let Some(coverage) = line.coverage {
        let what = match coverage {
            Coverage::Covered => "covered: a report that could show any use is recent",
            Coverage::Pending => "pending: EC2 is creating a report that could show any use",
            Coverage::Uncovered => {
                "uncovered: no report that could show any use is recent, or on its way"
            }
        };
        lines.push(format!("  coverage: {what}"));
    }
    let references = match line.references_checked {
        true => "every one was read",
        false => "not checked",
    };
    lines.push(format!("  references in its own account: {references}"));
}

fn problems(looked_at: &[Look], lines: &mut Vec<String>) {
    let problems: Vec<&String> = looked_at
        .iter()
        .filter_map(|look| look.problem.as_ref())
        .collect();
    if !problems.is_empty() {
        heading(lines, "What could not be read, and may say more");
        lines.extend(problems.into_iter().map(|problem| format!("  {problem}")));
    }
}

fn heading(lines: &mut Vec<String>, text: &str) {
    lines.push(String::new());
    lines.push(text.to_owned());
}

fn omitted(listed: usize, omitted: u64, lines: &mut Vec<String>) {
    let more = listed.saturating_sub(MAX_SHOWN) as u64 + omitted;
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
}

fn time(moment: Option<Timestamp>) -> String {
    moment.map_or("never".to_owned(), |moment| moment.to_string())
}
