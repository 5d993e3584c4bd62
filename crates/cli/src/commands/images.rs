//! `image-usage images`: lists the AMIs of an archive with their verdicts.

use image_usage_archive::answer::{BLIND_SPOTS, NoAnswer, Selection, TargetImages};
use image_usage_archive::aws::chain;
use image_usage_archive::documents::{ImageLine, TargetStatus};
use image_usage_archive::domain::usage::Coverage;

use super::{NOT_READABLE, open};
use crate::args::Images;
use crate::{rows, terminal};

const COLUMNS: [&str; 9] = [
    "account_id",
    "region",
    "image_id",
    "name",
    "verdict",
    "coverage",
    "last_observed",
    "consumers",
    "reasons",
];

type Row = [String; COLUMNS.len()];

pub(crate) async fn run(arguments: Images) -> Result<u8, String> {
    let Images {
        archive,
        uncovered,
        verdicts,
        part,
        run,
        csv,
    } = arguments;
    let (archive, run) = open(&archive, run.as_ref()).await?;
    let failed = |error: NoAnswer| chain(&error);
    if !run.has_verdicts() {
        let run_id = &run.snapshot.run_id;
        return Err(format!(
            "the run {run_id} gave no verdicts: it was scoped or an older version, or AUDITOR_IMAGES was false"
        ));
    }
    let selection = Selection::from(part);
    let is_wanted = |line: &ImageLine| {
        let has_verdict = verdicts.is_empty() || verdicts.contains(&line.verdict);
        has_verdict && (!uncovered || line.coverage == Some(Coverage::Uncovered))
    };
    let targets = run.images(&archive, &selection, |line| {
        is_wanted(&line).then(|| row(&line))
    });
    let targets = targets.await.map_err(failed)?;
    let rows = targets.iter().flat_map(|target| &target.images);
    let rows: Vec<&Row> = rows.flatten().collect();
    let printed = match csv {
        true => rows::csv(COLUMNS, &rows),
        false => rows::table(COLUMNS, &rows) + &blind_spots(),
    };
    if terminal::print(printed.as_bytes()).is_err() {
        return Ok(NOT_READABLE);
    }
    Ok(report_problems(
        &targets,
        "there may be other AMIs and uses",
    ))
}

/// Names what could not be read, and what follows from that. Returns the exit status.
pub(super) fn report_problems<T>(targets: &[TargetImages<T>], consequence: &str) -> u8 {
    let mut status = 0;
    for target in targets {
        let is_read = target.status == TargetStatus::Complete && target.are_images_read;
        // A Region that is not enabled has no AMI.
        let is_skipped = target.status == TargetStatus::Skipped;
        let unread = (!is_read && !is_skipped)
            .then(|| format!("{} was not read: {consequence}", target.target));
        for problem in unread.iter().chain(&target.problem) {
            terminal::print_error(problem);
            status = NOT_READABLE;
        }
    }
    status
}

fn row(line: &ImageLine) -> Row {
    let name = line.image.as_ref().and_then(|image| image.name.clone());
    let consumers = line.consumers.len() as u64 + line.consumers_omitted;
    let reasons: Vec<&str> = line.reasons.iter().map(|reason| reason.as_str()).collect();
    [
        line.account_id.to_string(),
        line.region.to_string(),
        line.image_id.clone(),
        name.unwrap_or_default(),
        line.verdict.as_str().to_owned(),
        line.coverage.map_or("", Coverage::as_str).to_owned(),
        line.last_observed
            .map(|time| time.to_string())
            .unwrap_or_default(),
        consumers.to_string(),
        reasons.join(" "),
    ]
}

/// What no verdict in the table can see.
fn blind_spots() -> String {
    let lines = BLIND_SPOTS.iter().map(|what| format!("  {what}\n"));
    format!("\nWhat nothing here can see\n{}", lines.collect::<String>())
}
