//! `image-usage plan`: lists the reports that the next run would ask EC2 for.

use std::collections::BTreeSet;
use std::time::SystemTime;

use image_usage_archive::answer::{Selection, TargetImages};
use image_usage_archive::aws::chain;
use image_usage_archive::documents::{ImageLine, LedgerLine, Renewals};
use image_usage_archive::domain::findings::gap_in_words;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::{CoverageRules, Gap};
use image_usage_archive::renewal_plan::{DueImage, MAX_REQUESTS, NextRequest};

use super::images::report_problems;
use super::{NOT_READABLE, open};
use crate::args::Plan;
use crate::{rows, terminal};

const COLUMNS: [&str; 6] = ["account_id", "region", "image_id", "name", "asked", "why"];

type Row = [String; COLUMNS.len()];

pub(crate) async fn run(arguments: Plan) -> Result<u8, String> {
    let Plan { archive, at, part } = arguments;
    let (archive, run) = open(&archive, None).await?;
    let snapshot = &run.snapshot;
    let Some(usage) = snapshot.scope.usage_policy(&snapshot.policy) else {
        let run_id = &snapshot.run_id;
        return Err(format!(
            "the run {run_id} knows nothing of AMIs: it was an older version, or AUDITOR_IMAGES was false"
        ));
    };
    let preview = Preview {
        rules: snapshot.policy.coverage_rules(usage),
        asked_at: snapshot.started_at,
        at: at.unwrap_or_else(|| Timestamp::from_clock(SystemTime::now())),
    };
    let selection = Selection::from(part);
    let targets = run.images(&archive, &selection, |line| preview.candidate(line));
    let targets = targets.await.map_err(|error| chain(&error))?;
    let mut planned = Planned::default();
    for target in &targets {
        let is_of_target = |line: &&LedgerLine| line.target() == target.target;
        let line = snapshot.targets.iter().find(is_of_target);
        let images = line.and_then(|line| line.images.as_ref());
        let asked = images.and_then(|images| images.renewals.as_ref());
        preview.add_target(target, asked, &mut planned);
    }
    let rows: Vec<&Row> = planned.rows.iter().collect();
    let printed = rows::table(COLUMNS, &rows) + "\n" + &planned.totals(&preview, &snapshot.run_id);
    if terminal::print(printed.as_bytes()).is_err() {
        return Ok(NOT_READABLE);
    }
    Ok(report_problems(
        &targets,
        "what the next run would ask for there is not known",
    ))
}

/// The rules and times by which a plan is made.
struct Preview {
    rules: CoverageRules,
    /// The start of the newest run, which may have asked for reports already.
    asked_at: Timestamp,
    /// The start of the next run.
    at: Timestamp,
}

/// An AMI that counts for coverage.
struct Candidate {
    image_id: String,
    name: String,
    gap: Gap,
    next: NextRequest,
    /// Its place among those that were due at the newest run.
    then: Option<DueImage>,
    /// Its place among those that are due at the next run.
    now: Option<DueImage>,
    has_failed: bool,
}

/// What the next run would ask for.
#[derive(Default)]
struct Planned {
    rows: Vec<Row>,
    next: usize,
    deferred: usize,
    asked: usize,
    refused: u64,
    pending: usize,
    waiting: usize,
}

impl Preview {
    fn candidate(&self, line: ImageLine) -> Option<Candidate> {
        let next = NextRequest::of(&line, &self.rules)?;
        let then = DueImage::of(&line, &self.rules, self.asked_at);
        let now = DueImage::of(&line, &self.rules, self.at);
        let name = line.image.and_then(|image| image.name);
        Some(Candidate {
            image_id: line.image_id,
            name: name.unwrap_or_default(),
            gap: Gap::of(&line.reports),
            next,
            then,
            now,
            has_failed: line.reports.newest_failed.is_some(),
        })
    }

    fn add_target(
        &self,
        target: &TargetImages<Option<Candidate>>,
        renewals: Option<&Renewals>,
        planned: &mut Planned,
    ) {
        let candidates = || target.images.iter().flatten();
        // Its lines are older than its requests: those that came first have been asked for.
        let mut asked = in_order(candidates(), |candidate| candidate.then.as_ref());
        let attempts = renewals.map_or(0, |renewals| renewals.requested + renewals.failed);
        asked.truncate(usize::try_from(attempts).unwrap_or(usize::MAX));
        let asked: BTreeSet<&str> = asked.iter().map(|one| one.image_id.as_str()).collect();
        planned.asked += asked.len();
        planned.refused += renewals.map_or(0, |renewals| renewals.failed);

        let others = candidates().filter(|one| !asked.contains(one.image_id.as_str()));
        let due = in_order(others, |candidate| candidate.now.as_ref());
        let (next, deferred) = due.split_at(due.len().min(MAX_REQUESTS));
        planned.next += next.len();
        planned.deferred += deferred.len();
        for candidate in next {
            let row = self.row(target, candidate, "next run".to_owned());
            planned.rows.push(row);
        }
        for candidate in candidates() {
            match candidate.next {
                NextRequest::AfterPending => planned.pending += 1,
                NextRequest::From(Some(time)) if time > self.at && candidate.has_failed => {
                    let time = format!("from {}", time.to_whole_second());
                    planned.waiting += 1;
                    planned.rows.push(self.row(target, candidate, time));
                }
                NextRequest::From(_) => {}
            }
        }
    }

    fn row<T>(&self, target: &TargetImages<T>, candidate: &Candidate, asked: String) -> Row {
        let Target { account_id, region } = &target.target;
        [
            account_id.to_string(),
            region.to_string(),
            candidate.image_id.clone(),
            candidate.name.clone(),
            asked,
            gap_in_words(candidate.gap, self.at),
        ]
    }
}

/// Those that have a place, in the order of their places.
fn in_order<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
    place: impl Fn(&Candidate) -> Option<&DueImage>,
) -> Vec<&'a Candidate> {
    let mut placed: Vec<&Candidate> = candidates.filter(|one| place(one).is_some()).collect();
    placed.sort_by(|one, other| place(one).cmp(&place(other)));
    placed
}

impl Planned {
    /// Says how many AMIs are in the table, and how many are not and why.
    fn totals(&self, preview: &Preview, run_id: &RunId) -> String {
        let (next, deferred) = (self.next, self.deferred);
        let mut totals = match preview.rules.renews {
            true => format!("The next run asks EC2 for {next} reports.\n"),
            false => format!(
                "AUDITOR_RENEW_REPORTS was not true in {run_id}: with it, a run at this time would ask EC2 for {next} reports.\n"
            ),
        };
        let mut say = |what: String, number: usize, more: &str| {
            if number > 0 {
                totals += &format!("{what}: {number}{more}\n");
            }
        };
        let limit = format!("Left to later runs, beyond {MAX_REQUESTS} in an account and Region");
        say(limit, deferred, "");
        let waiting = "Waiting after failed reports, until the time in the table";
        say(waiting.to_owned(), self.waiting, "");
        let pending = "With a pending report, beside which EC2 accepts no other";
        say(pending.to_owned(), self.pending, "");
        let refused = match self.refused {
            0 => String::new(),
            refused => {
                format!(", of which EC2 refused {refused}: the next run asks for those again")
            }
        };
        let asked = format!("Asked for by {run_id}, after it wrote its lines");
        say(asked, self.asked, &refused);
        totals
    }
}
