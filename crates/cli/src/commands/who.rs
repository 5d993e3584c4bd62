//! `image-usage who`: answers who uses an AMI.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use image_usage_archive::answer::{
    Evidence, EvidenceReader, NoAnswer, Origin, Run, Selection, TargetImages,
};
use image_usage_archive::aws::chain;
use image_usage_archive::documents::{ImageLine, TargetStatus};
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::Verdict;
use image_usage_archive::source::Source;
use serde::Serialize;

use crate::args::Who;
use crate::terminal;

/// The exit status of `--gate` if an AMI is or was used.
const USED: u8 = 1;

/// The exit status if something is not known.
const NOT_KNOWN: u8 = 2;

/// The archive, if the arguments do not name it.
const ARCHIVE_VARIABLE: &str = "IMAGE_USAGE_ARCHIVE";

pub(crate) async fn run(arguments: Who) -> Result<u8, String> {
    let (image_ids, location) = parse(&arguments.arguments)?;
    let archive = Source::at(&location).await.map_err(|error| chain(&error))?;
    let failed = |error: NoAnswer| chain(&error);
    let run = Run::newest(&archive).await.map_err(failed)?;
    if arguments.history {
        let print = text::print;
        return history(&archive, &run, &image_ids, print)
            .await
            .map_err(failed);
    }
    let answers = answers(&archive, &run, &image_ids).await.map_err(failed)?;
    for answer in &answers {
        let document = match arguments.json {
            true => json(answer),
            false => text::of(answer, &run),
        };
        if terminal::print(document.as_bytes()).is_err() {
            return Ok(NOT_KNOWN);
        }
    }
    Ok(exit_status(&answers, arguments.gate))
}

/// What is known of one AMI.
#[derive(Serialize)]
struct Answer {
    image_id: String,
    /// Of several accounts or Regions, the one that stops most.
    verdict: Verdict,
    /// The run that answers.
    run_id: String,
    /// Its start.
    started_at: Timestamp,
    /// Where the AMI is known.
    known: Vec<Known>,
    /// Every account and Region, and what was looked at there.
    looked_at: Vec<Look>,
}

#[derive(Serialize)]
struct Known {
    /// Whether the line is that of an earlier run, because this one could not read its target.
    is_of_earlier_run: bool,
    #[serde(flatten)]
    line: ImageLine,
    evidence: Vec<Evidence>,
}

#[derive(Clone, Serialize)]
struct Look {
    account_id: AccountId,
    region: Region,
    /// Whether its reports were read.
    status: TargetStatus,
    /// Whether its AMIs were read.
    are_images_read: bool,
    /// Whether AMIs are known there.
    has_images: bool,
    /// Why more may be known there.
    problem: Option<String>,
}

async fn answers(
    archive: &Source,
    run: &Run,
    image_ids: &BTreeSet<String>,
) -> Result<Vec<Answer>, NoAnswer> {
    let selection = Selection {
        image_ids: image_ids.clone(),
        ..Selection::default()
    };
    let targets = run.images(archive, &selection, |line| line).await?;
    let looked_at: Vec<Look> = targets.iter().map(look).collect();
    let mut known: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    let mut reader = EvidenceReader::default();
    for target in targets {
        for line in target.images {
            let evidence = reader.of(archive, &line).await?;
            known.entry(line.image_id.clone()).or_default().push(Known {
                is_of_earlier_run: target.origin == Origin::EarlierRun,
                line,
                evidence,
            });
        }
    }
    let answer = |image_id: &String| {
        let known = known.remove(image_id).unwrap_or_default();
        let verdicts = known.iter().map(|known| known.line.verdict);
        Answer {
            image_id: image_id.clone(),
            verdict: verdicts.min_by_key(strength).unwrap_or(Verdict::Unknown),
            run_id: run.snapshot.run_id.to_string(),
            started_at: run.snapshot.started_at,
            known,
            looked_at: looked_at.clone(),
        }
    };
    Ok(image_ids.iter().map(answer).collect())
}

/// The order in which verdicts stop somebody who wants to retire an AMI.
fn strength(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::InUse => 0,
        Verdict::LastSeenInUse => 1,
        Verdict::Unknown => 2,
        Verdict::Gone => 3,
        Verdict::NoUseObserved => 4,
    }
}

fn look<T>(target: &TargetImages<T>) -> Look {
    let Target { account_id, region } = target.target.clone();
    Look {
        account_id,
        region,
        status: target.status,
        are_images_read: target.are_images_read,
        has_images: target.origin != Origin::Nowhere,
        problem: target.problem.clone(),
    }
}

/// With `--gate`, the status of the AMI that stops most. An object that cannot be read may hide a use.
fn exit_status(answers: &[Answer], is_gate: bool) -> u8 {
    let of_answer = |answer: &Answer| {
        let has_problem = answer.looked_at.iter().any(|look| look.problem.is_some());
        match answer.verdict {
            Verdict::InUse | Verdict::LastSeenInUse if is_gate => USED,
            _ if has_problem || answer.known.is_empty() => NOT_KNOWN,
            Verdict::Unknown | Verdict::Gone if is_gate => NOT_KNOWN,
            _ => 0,
        }
    };
    let statuses: BTreeSet<u8> = answers.iter().map(of_answer).collect();
    let first = [USED, NOT_KNOWN]
        .into_iter()
        .find(|status| statuses.contains(status));
    first.unwrap_or(0)
}

fn json(answer: &Answer) -> String {
    // No field of these types fails to serialize.
    let document = serde_json::to_string(answer).unwrap_or_default();
    terminal::escape_json(&document) + "\n"
}

/// The verdicts of every full run, oldest first.
async fn history(
    archive: &Source,
    newest: &Run,
    image_ids: &BTreeSet<String>,
    print: impl Fn(&str) -> bool,
) -> Result<u8, NoAnswer> {
    let newest = answers(archive, newest, image_ids).await?;
    let mut status = exit_status(&newest, false);
    let keys = Run::keys(archive).await?;
    for answer in newest {
        let selection = Selection {
            image_ids: BTreeSet::from([answer.image_id.clone()]),
            // Where it is known; anywhere if it is known in several places, or in none.
            account_id: only(answer.known.iter().map(|known| &known.line.account_id)),
            region: only(answer.known.iter().map(|known| &known.line.region)),
        };
        for key in &keys {
            let Some(run) = Run::full_at(archive, key).await? else {
                continue;
            };
            for target in run.images(archive, &selection, |line| line).await? {
                if let Some(problem) = &target.problem {
                    terminal::print_error(problem);
                    status = NOT_KNOWN;
                }
                for line in &target.images {
                    if !print(&text::history_line(&run, line)) {
                        return Ok(NOT_KNOWN);
                    }
                }
            }
        }
    }
    Ok(status)
}

/// The one value of all; `None` if there are others, or none.
fn only<'a, T: Ord + Clone + 'a>(values: impl Iterator<Item = &'a T>) -> Option<T> {
    let mut values: BTreeSet<&T> = values.collect();
    let first = values.pop_first()?;
    values.is_empty().then(|| first.clone())
}

/// Divides the arguments into AMIs and the archive.
fn parse(arguments: &[String]) -> Result<(BTreeSet<String>, String), String> {
    let (mut image_ids, location) = match arguments.split_last() {
        Some((last, ids)) if last != "-" && !last.starts_with("ami-") => {
            (ids.to_vec(), last.clone())
        }
        _ => {
            let location = std::env::var(ARCHIVE_VARIABLE).map_err(|_| {
                format!("no archive is given: end the arguments with s3://bucket/prefix/ or a folder, or set {ARCHIVE_VARIABLE}")
            })?;
            (arguments.to_vec(), location)
        }
    };
    if image_ids.iter().any(|id| id == "-") {
        image_ids.retain(|id| id != "-");
        let mut lines = String::new();
        let read = std::io::stdin().read_to_string(&mut lines);
        read.map_err(|error| format!("failed to read AMI IDs from the standard input: {error}"))?;
        let ids = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        image_ids.extend(ids.map(str::to_owned));
    }
    if image_ids.is_empty() {
        return Err("no AMI is given: name one such as ami-0abcdef1234567890".to_owned());
    }
    match image_ids.iter().find(|id| !is_image_id(id)) {
        Some(id) => Err(format!(
            "`{id}` is not an AMI ID: `ami-` and 8 or 17 lower-case hex digits, such as ami-0abcdef1234567890"
        )),
        None => Ok((image_ids.into_iter().collect(), location)),
    }
}

/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html>
fn is_image_id(text: &str) -> bool {
    let is_hex = |digits: &str| {
        digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let digits = text.strip_prefix("ami-");
    digits.is_some_and(|digits| matches!(digits.len(), 8 | 17) && is_hex(digits))
}
