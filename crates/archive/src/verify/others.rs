//! Checks the objects that no snapshot names.

use std::collections::{BTreeMap, HashSet};

use super::keys::{LATEST, SNAPSHOTS, is_page, litter, object_key, run_of_handover, snapshot_of};
use super::problem::{Problem, plural};
use super::survey::Survey;

/// The objects that no snapshot names.
#[derive(Default)]
pub(super) struct Others {
    /// What the auditor does not write: a query may read it.
    pub(super) problems: Vec<Problem>,
    /// What attempts left, by run, and what is ignored.
    pub(super) notes: Vec<String>,
}

/// Nothing is said about objects of the snapshots in `reported`, which are lost, damaged or unreadable.
pub(super) fn check(survey: &Survey, reported: &HashSet<String>) -> Others {
    let mut others = Others::default();
    let named: HashSet<&str> = survey
        .outlines()
        .flat_map(|(_, outline)| outline.objects.iter().map(String::as_str))
        .collect();
    // By run: how many objects, and the first one.
    let mut left: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for (key, bytes) in &survey.listing {
        if let Some(what) = litter(key, *bytes) {
            others.notes.push(format!("{key} {what}"));
            continue;
        }
        let is_checked_elsewhere = key == LATEST || key.starts_with(SNAPSHOTS);
        if is_checked_elsewhere || named.contains(key.as_str()) || is_page(key) {
            continue;
        }
        if let Some((run_id, snapshot)) = run_of_handover(key) {
            // The documents that the phases of a finished run have handed over stay.
            if !survey.listing.contains_key(&snapshot) && !reported.contains(&snapshot) {
                left.entry(run_id.to_string()).or_insert((0, key)).0 += 1;
            }
            continue;
        }
        match object_key(key).filter(|(layout, _)| layout.prefix().is_empty()) {
            None => {
                let what = "is not an object that the auditor writes";
                others.problems.push(Problem::new(key, what));
            }
            Some(_) if snapshot_of(key).is_some_and(|snapshot| reported.contains(&snapshot)) => {}
            Some((_, object)) => {
                let of_run = left.entry(object.run_id.to_string());
                of_run.or_insert((0, key)).0 += 1;
            }
        }
    }
    others.notes.extend(left.into_iter().map(|(run, (count, first))| {
        let objects = plural(count, "object");
        format!(
            "no snapshot names {objects} of the run {run}, first {first}: left by an attempt that did not finish, or by a run in progress"
        )
    }));
    others
}
