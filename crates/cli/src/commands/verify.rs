//! `image-usage verify`: checks archives.

use std::process::ExitCode;

use image_usage_archive::aws::chain;
use image_usage_archive::source::{Source, Unreadable};
use image_usage_archive::verify::{Options, Outcome, Verdict, check, survey};
use serde::Serialize;

use crate::args::Verify;
use crate::terminal::{self, ProgressLine};

/// The exit status of an archive with problems.
const PROBLEMS: u8 = 1;

/// The exit status if something could not be read, and no problem was found.
const NOT_READABLE: u8 = 2;

pub(crate) async fn run(arguments: Verify) -> ExitCode {
    arguments.check();
    let Verify {
        archives,
        head,
        every_hours,
        json,
    } = arguments;
    let options = Options { head, every_hours };
    let mut outcomes = Vec::new();
    let mut gap = "";
    for location in &archives {
        let verdict = verdict_of(location, &options).await;
        if let (Err(error), false) = (&verdict, json) {
            terminal::print_error(&chain(error));
        }
        let text = match &verdict {
            _ if json => json_document(location, &verdict),
            Ok(verdict) => std::mem::replace(&mut gap, "\n").to_owned() + &text(verdict),
            Err(_) => String::new(),
        };
        outcomes.push(verdict.map_or(Outcome::NotReadable, |verdict| verdict.outcome()));
        // A verdict that cannot be printed is not a success.
        if terminal::print(text.as_bytes()).is_err() {
            outcomes.push(Outcome::NotReadable);
            break;
        }
    }
    exit_code(&outcomes)
}

async fn verdict_of(location: &str, options: &Options) -> Result<Verdict, Unreadable> {
    let archive = Source::at(location).await?;
    let line = ProgressLine::new();
    let survey = survey(&archive, &|progress| line.show(progress)).await?;
    Ok(check(&survey, options))
}

/// A problem in one archive counts more than another that could not be read.
fn exit_code(outcomes: &[Outcome]) -> ExitCode {
    match outcomes {
        _ if outcomes.contains(&Outcome::Problems) => PROBLEMS.into(),
        _ if outcomes.contains(&Outcome::NotReadable) => NOT_READABLE.into(),
        _ => ExitCode::SUCCESS,
    }
}

fn text(verdict: &Verdict) -> String {
    let lines = verdict.lines();
    let lines = lines.iter().map(|line| terminal::escape(line) + "\n");
    lines.collect()
}

#[derive(Serialize)]
struct Document<'a> {
    outcome: Outcome,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

#[derive(Serialize)]
struct Failure<'a> {
    outcome: Outcome,
    location: &'a str,
    error: String,
}

fn json_document(location: &str, verdict: &Result<Verdict, Unreadable>) -> String {
    let document = match verdict {
        Ok(verdict) => serde_json::to_string(&Document {
            outcome: verdict.outcome(),
            verdict,
        }),
        Err(error) => serde_json::to_string(&Failure {
            outcome: Outcome::NotReadable,
            location,
            error: chain(error),
        }),
    };
    // No field of these types fails to serialize.
    terminal::escape_json(&document.unwrap_or_default()) + "\n"
}
