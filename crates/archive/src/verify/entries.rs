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
            None => unnamed_problem(key, claims, reported),
        };
        what.map(|what| Problem::new(key, what))
    };
    survey.claims.iter().filter_map(problem).collect()
}

type Claims = HashMap<(ReportKey, u64), Claimed>;

fn unnamed_problem(key: &str, claims: &Claims, reported: &HashSet<String>) -> Option<String> {
    let snapshot = snapshot_of(key);
    let is_reported =
        reported.contains(key) || snapshot.is_some_and(|snapshot| reported.contains(&snapshot));
    let claimant = claims.values().map(|claimed| &claimed.claimant).min();
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
