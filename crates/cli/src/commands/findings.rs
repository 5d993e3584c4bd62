//! `image-usage findings`: lists the findings of a run.

use image_usage_archive::answer::{FromLines, Run, Selection};
use image_usage_archive::aws::chain;
use image_usage_archive::documents::TargetStatus;
use image_usage_archive::domain::findings::{Finding, FindingKind};
use image_usage_archive::domain::report::{ReportState, Tags};
use image_usage_archive::domain::timestamp::Timestamp;

use super::{NOT_READABLE, open};
use crate::args::Findings;
use crate::{rows, terminal};

const COLUMNS: [&str; 11] = [
    "kind",
    "account_id",
    "region",
    "report_id",
    "image_id",
    "state",
    "creation_time",
    "expiration_time",
    "entries_archived",
    "message",
    "tags",
];

type Row = [String; COLUMNS.len()];

pub(crate) async fn run(arguments: Findings) -> Result<u8, String> {
    let Findings {
        archive,
        kinds,
        part,
        run,
        csv,
    } = arguments;
    let (archive, run) = open(&archive, run.as_ref()).await?;
    let selection = Selection::from(part);
    let read = run.findings(&archive, &selection).await;
    let FromLines { said, problems } = read.map_err(|error| chain(&error))?;
    let is_wanted = |kind: FindingKind| kinds.is_empty() || kinds.contains(&kind);
    let found = said.iter().filter(|finding| is_wanted(finding.kind));
    let found: Vec<Row> = found.map(row).collect();
    let found: Vec<&Row> = found.iter().collect();
    let printed = match csv {
        true => rows::csv(COLUMNS, &found),
        false => rows::table(COLUMNS, &found),
    };
    if terminal::print(printed.as_bytes()).is_err() {
        return Ok(NOT_READABLE);
    }
    let unread = unread(&run, &selection);
    for problem in unread.iter().chain(&problems) {
        terminal::print_error(problem);
    }
    match unread.is_empty() && problems.is_empty() {
        true => Ok(0),
        false => Ok(NOT_READABLE),
    }
}

/// Names the targets that were not read to their end: there may be more findings.
fn unread(run: &Run, selection: &Selection) -> Vec<String> {
    let targets = run.snapshot.targets.iter();
    let unread = targets.filter(|line| {
        let is_unread = matches!(line.status, TargetStatus::Failed | TargetStatus::Incomplete);
        is_unread && selection.has(line)
    });
    unread
        .map(|line| {
            let target = line.target();
            format!("{target} was not read to its end: there may be other findings")
        })
        .collect()
}

fn row(finding: &Finding) -> Row {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let archived = finding.entries_archived;
    let state = finding.state.as_ref().map(ReportState::as_str);
    [
        finding.kind.as_str().to_owned(),
        finding.account_id.to_string(),
        finding.region.to_string(),
        text(&finding.report_id),
        text(&finding.image_id),
        state.unwrap_or_default().to_owned(),
        time(finding.creation_time),
        time(finding.expiration_time),
        archived
            .map(|is_archived| is_archived.to_string())
            .unwrap_or_default(),
        finding.message.clone(),
        tags(&finding.tags),
    ]
}

fn tags(tags: &Tags) -> String {
    let tags = tags.iter().map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    });
    tags.collect::<Vec<_>>().join("; ")
}
