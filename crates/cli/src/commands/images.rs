//! `image-usage images`: lists the AMIs of an archive with their verdicts.

use std::process::ExitCode;

use image_usage_archive::answer::{BLIND_SPOTS, NoAnswer, Run, Selection, TargetImages};
use image_usage_archive::aws::chain;
use image_usage_archive::documents::{ImageLine, TargetStatus};
use image_usage_archive::domain::usage::Coverage;
use image_usage_archive::source::Source;

use crate::args::Images;
use crate::terminal;

/// The exit status if something could not be read.
pub(super) const NOT_READABLE: u8 = 2;

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

pub(crate) async fn run(arguments: Images) -> ExitCode {
    match list(arguments).await {
        Ok(status) => status.into(),
        Err(problem) => {
            terminal::print_error(&problem);
            NOT_READABLE.into()
        }
    }
}

async fn list(arguments: Images) -> Result<u8, String> {
    let Images {
        archive,
        uncovered,
        verdicts,
        account,
        region,
        csv,
    } = arguments;
    let archive = Source::at(&archive).await.map_err(|error| chain(&error))?;
    let failed = |error: NoAnswer| chain(&error);
    let run = Run::newest(&archive).await.map_err(failed)?;
    if !run.has_verdicts() {
        let run_id = &run.snapshot.run_id;
        return Err(format!(
            "the run {run_id} gave no verdicts: it was an older version, or AUDITOR_IMAGES was false"
        ));
    }
    let selection = Selection {
        account_id: account,
        region,
        ..Selection::default()
    };
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
        true => csv_of(&rows),
        false => terminal::table(COLUMNS, &rows) + &blind_spots(),
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

/// Source: <https://www.rfc-editor.org/rfc/rfc4180>
fn csv_of(rows: &[&Row]) -> String {
    let header = COLUMNS.map(str::to_owned);
    let line = |row: &Row| row.each_ref().map(|cell| csv_cell(cell)).join(",") + "\r\n";
    std::iter::once(&header)
        .chain(rows.iter().copied())
        .map(line)
        .collect()
}

/// Quotes a cell, and keeps a spreadsheet from taking it for a formula.
///
/// Source: <https://owasp.org/www-community/attacks/CSV_Injection>
fn csv_cell(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let apostrophe = if is_formula { "'" } else { "" };
    format!(
        "\"{apostrophe}{}\"",
        terminal::escape(cell).replace('"', "\"\"")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_looks_like_a_formula_is_a_text_in_a_spreadsheet() {
        for (cell, expected) in [
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(1)", "\"'@SUM(1)\""),
            ("\t=1", "\"'\\u{9}=1\""),
            ("golden \"a\", b", "\"golden \"\"a\"\", b\""),
            ("111122223333", "\"111122223333\""),
        ] {
            assert_eq!(csv_cell(cell), expected);
        }
    }
}
