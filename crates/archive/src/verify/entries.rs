//! Checks that each report has the entries that its lines claim.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::keys::snapshot_of;
use super::problem::{Problem, plural};
use super::survey::{Claimed, Survey};
use crate::domain::report_key::ReportKey;

/// `reported` are the keys of objects and snapshots that are damaged or unreadable: claims about them, and
/// about objects of these snapshots, are not checked.
pub(super) fn problems(survey: &Survey, reported: &HashSet<String>) -> Vec<Problem> {
    let entries: BTreeMap<&str, &HashMap<ReportKey, u64>> = survey
        .runs
        .values()
        .flat_map(|run| &run.contents.entries)
        .map(|(key, counts)| (key.as_str(), counts))
        .collect();
    let problem = |(key, claims): (&String, &Claims)| {
        let what = match entries.get(key.as_str()) {
            Some(counts) => count_problem(counts, claims),
            None => unnamed_problem(key, claims.values(), reported),
        };
        what.map(|what| Problem::new(key, what))
    };
    let claimed = survey.claims.iter().filter_map(problem);
    let unread = survey.observed.iter().filter_map(|(key, reports)| {
        let what = match entries.get(key.as_str()) {
            Some(counts) => unread_problem(counts, reports),
            None => unnamed_problem(key, reports.values(), reported),
        };
        what.map(|what| Problem::new(key, what))
    });
    claimed.chain(unread).collect()
}

/// Describes a report that the line of an AMI says was read here.
fn unread_problem(
    counts: &HashMap<ReportKey, u64>,
    reports: &HashMap<ReportKey, Claimed>,
) -> Option<String> {
    let missing = reports
        .iter()
        .filter(|(report, _)| !counts.contains_key(report));
    let Claimed {
        report_id,
        claimant,
    } = missing.map(|(_, claimed)| claimed).min()?;
    Some(format!(
        "contains none of the entries of {report_id}; {claimant} says that they were read"
    ))
}

type Claims = HashMap<(ReportKey, u64), Claimed>;

fn unnamed_problem<'a>(
    key: &str,
    claims: impl Iterator<Item = &'a Claimed>,
    reported: &HashSet<String>,
) -> Option<String> {
    let snapshot = snapshot_of(key);
    let is_reported =
        reported.contains(key) || snapshot.is_some_and(|snapshot| reported.contains(&snapshot));
    let claimant = claims.map(|claimed| &claimed.claimant).min();
    let claimant = claimant.filter(|_| !is_reported)?;
    Some(format!("is named by {claimant} but by no snapshot"))
}

fn count_problem(counts: &HashMap<ReportKey, u64>, claims: &Claims) -> Option<String> {
    let wrong: Vec<_> = claims
        .iter()
        .filter(|((report, count), _)| counts.get(report) != Some(count))
        .map(|((report, said), claimed)| (claimed, said, counts.get(report)))
        .collect();
    let others = wrong.len().saturating_sub(1);
    let (claimed, said, there) = wrong.into_iter().min()?;
    let Claimed {
        report_id,
        claimant,
    } = claimed;
    let there = there.map_or_else(|| "none".to_owned(), u64::to_string);
    let more = match others {
        0 => String::new(),
        others => format!("; likewise for {}", plural(others, "more report")),
    };
    Some(format!(
        "contains {there} of the entries of {report_id}; {claimant} states {said}{more}"
    ))
}
