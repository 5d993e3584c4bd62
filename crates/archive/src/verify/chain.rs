//! Checks the chain of full snapshots: `latest.json` is its head, and each names the one before it.

use std::collections::{BTreeSet, HashSet};

use super::keys::LATEST;
use super::problem::Problem;
use super::survey::Survey;
use crate::layout::below_prefix;

/// The chain of full snapshots.
#[derive(Default, Debug)]
pub(super) struct Chain {
    /// The snapshot that `latest.json` is a copy of, else the newest one; `None` if there is none.
    pub(super) head: Option<String>,
    /// The snapshots on the chain, from the head back.
    pub(super) keys: Vec<String>,
    /// The snapshots that are not the ones that their successors name.
    pub(super) changed: HashSet<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

/// Follows the chain from its head back, and checks every link of it.
pub(super) fn trace(survey: &Survey) -> Chain {
    let mut chain = Chain::default();
    chain.head = find_head(survey, &mut chain);
    for (key, problem, is_changed) in survey.full().filter_map(|(key, _)| link(survey, key)) {
        if is_changed {
            chain.changed.insert(key.clone());
        }
        chain.problems.push(Problem::new(key, problem));
    }
    let visited = follow(survey, &mut chain);
    check_others(survey, &visited, &mut chain);
    chain
}

/// Finds the head: what `latest.json` is a copy of, else the newest full snapshot.
fn find_head(survey: &Survey, chain: &mut Chain) -> Option<String> {
    let newest = survey.full().max_by_key(|(_, outline)| outline.order());
    let newest = newest.map(|(key, _)| key);
    let Ok(latest) = &survey.latest else {
        return newest.cloned();
    };
    let Some(latest) = latest else {
        match newest {
            Some(newest) => chain.problems.push(Problem::new(
                LATEST,
                format!("is missing; {newest} is the newest full snapshot"),
            )),
            None => chain
                .notes
                .push("there is no full snapshot, and so no chain".to_owned()),
        }
        return newest.cloned();
    };
    let is_it = |key: &&String| survey.sha256(key) == Some(latest);
    let Some(head) = survey.full().map(|(key, _)| key).find(is_it) else {
        // It may be a copy of a snapshot that cannot be read.
        if survey.unreadable.is_empty() {
            let newest = match newest {
                Some(newest) => format!("; the newest one is {newest}"),
                None => String::new(),
            };
            let what = format!("is not a copy of a full snapshot in the archive{newest}");
            chain.problems.push(Problem::new(LATEST, what));
        }
        return newest.cloned();
    };
    let order = survey.outline(head).map(|outline| outline.order());
    let newer = survey
        .full()
        .filter(|(_, outline)| Some(outline.order()) > order);
    chain.problems.extend(newer.map(|(key, _)| {
        let what = "is newer than the snapshot that latest.json is a copy of: its run did not finish writing latest.json, or an older one was restored";
        Problem::new(key, what)
    }));
    Some(head.clone())
}

/// Checks what a snapshot says about the one before it. Returns the key of the one that is wrong, what is
/// wrong, and whether it is another one than its successor names.
fn link(survey: &Survey, key: &str) -> Option<(String, String, bool)> {
    let previous = survey.outline(key)?.previous.as_ref()?;
    let previous_key = below_prefix(&previous.key);
    if survey.unreadable.contains_key(previous_key) {
        return None;
    }
    let Some(run) = survey.runs.get(previous_key) else {
        let problem = format!("is missing; {key} names it as the previous snapshot");
        return Some((previous_key.to_owned(), problem, false));
    };
    if run.sha256 != previous.sha256 {
        let (is, said) = (&run.sha256, &previous.sha256);
        let problem = format!("has the SHA-256 {is}; {key}, which follows it, states {said}");
        return Some((previous_key.to_owned(), problem, true));
    }
    let outline = run.outline.as_ref();
    let is_right =
        outline.is_some_and(|outline| outline.is_full && outline.run_id == previous.run_id);
    (!is_right).then(|| {
        let problem = format!("follows {previous_key}, which is scoped or of another run");
        (key.to_owned(), problem, false)
    })
}

/// Collects the chain from the head back. Returns every key on the way, those of lost snapshots too.
fn follow(survey: &Survey, chain: &mut Chain) -> BTreeSet<String> {
    let mut next = chain.head.clone();
    // Ends after at most as many steps as there are snapshots.
    let mut visited = BTreeSet::new();
    while let Some(key) = next.take().filter(|key| visited.insert(key.clone())) {
        let Some(outline) = survey.outline(&key) else {
            // Lost or unreadable, and reported: go on with the one before it.
            let before = survey.full().map(|(key, _)| key);
            let before = before.filter(|before| **before < key && !visited.contains(*before));
            next = before.last().cloned();
            continue;
        };
        let previous = outline.previous.as_ref();
        next = previous.map(|previous| below_prefix(&previous.key).to_owned());
        chain.keys.push(key);
    }
    visited
}

/// Notes the full snapshots that are not on the chain; a second chain is a problem.
fn check_others(survey: &Survey, visited: &BTreeSet<String>, chain: &mut Chain) {
    let followed: HashSet<&str> = survey
        .full()
        .filter_map(|(_, outline)| Some(below_prefix(&outline.previous.as_ref()?.key)))
        .collect();
    for (key, outline) in survey.full().filter(|(key, _)| !visited.contains(*key)) {
        chain.notes.push(format!(
            "{key} is not on the chain from latest.json: its run was late, or did not finish writing latest.json"
        ));
        if outline.previous.is_none() && followed.contains(key.as_str()) {
            let what = "starts another chain, which latest.json does not lead to: latest.json was once lost, damaged or replaced";
            chain.problems.push(Problem::new(key, what));
        }
    }
}

/// Finds the snapshot with a SHA-256 that the user has kept. Returns how many snapshots before the head it
/// is on the chain.
pub(super) fn find_given_head(
    survey: &Survey,
    chain: &mut Chain,
    given: Option<&str>,
) -> Option<usize> {
    let given = given?;
    let is_it = |key: &String| survey.sha256(key) == Some(given);
    let place = chain.keys.iter().position(is_it);
    // A snapshot that cannot be read may be the one.
    if place.is_none() && survey.unreadable.is_empty() && survey.latest.is_ok() {
        let key = chain.head.as_deref().unwrap_or(LATEST);
        let what = format!("leads a chain that does not contain the snapshot {given}");
        chain.problems.push(Problem::new(key, what));
    }
    place
}
