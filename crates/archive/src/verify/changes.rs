//! Checks the changes of a snapshot against their own totals and the ledger.

use super::problem::{is_bounded, unless};
use crate::documents::{Changes, LedgerLine, Snapshot};
use crate::domain::target::Target;

/// A list of changes: its name, the total, how many are listed, how many are omitted, and whether the list
/// is in order.
type ListFacts = (&'static str, u64, usize, u64, bool);

pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let Some(changes) = &snapshot.changes else {
        return Vec::new();
    };
    let lists = lists(changes).into_iter().filter_map(list_problem);
    lists
        .chain(target_problem(changes, &snapshot.targets))
        .chain(verdict_problem(changes, &snapshot.targets))
        .chain(unless(
            changes.verdicts.is_some() || snapshot.policy.usage.is_none(),
            || "says nothing about changed verdicts".to_owned(),
        ))
        .collect()
}

/// Checks the list of changed verdicts; the verdicts themselves are compared once the lines are read.
fn verdict_problem(changes: &Changes, targets: &[LedgerLine]) -> Option<String> {
    let verdicts = changes.verdicts.as_ref()?;
    let (listed, omitted) = (&verdicts.verdicts, verdicts.verdicts_omitted);
    let targets: Vec<Target> = targets.iter().map(LedgerLine::target).collect();
    let names: Vec<String> = targets.iter().map(Target::to_string).collect();
    let not_carried = &verdicts.images_not_carried;
    let is_sorted = not_carried.is_sorted_by(|a, b| a < b)
        && listed.is_sorted_by(|a, b| {
            (&a.account_id, &a.region, &a.image_id) < (&b.account_id, &b.region, &b.image_id)
        });
    let agrees = not_carried
        .iter()
        .all(|name| names.binary_search(name).is_ok())
        && listed.iter().all(|change| {
            let target = Target {
                account_id: change.account_id.clone(),
                region: change.region.clone(),
            };
            change.from != change.to
                && targets.binary_search(&target).is_ok()
                && not_carried.binary_search(&target.to_string()).is_err()
        });
    unless(
        is_sorted && agrees && is_bounded(listed.len(), omitted),
        || {
            let listed = listed.len();
            format!(
                "lists {listed} changed verdicts and omits {omitted}, lists them out of order, or contradicts its ledger"
            )
        },
    )
}

fn lists(changes: &Changes) -> [ListFacts; 5] {
    let facts = |name, total, omitted, is_sorted, listed| (name, total, listed, omitted, is_sorted);
    let (findings, reports) = (&changes.findings, &changes.reports);
    macro_rules! list {
        ($totals:ident, $list:ident, $omitted:ident) => {{
            let list = &changes.$list;
            let (total, omitted) = ($totals.$list, changes.$omitted);
            facts(
                stringify!($list),
                total,
                omitted,
                list.is_sorted(),
                list.len(),
            )
        }};
    }
    [
        list!(findings, opened, opened_omitted),
        list!(findings, resolved, resolved_omitted),
        list!(reports, appeared, appeared_omitted),
        list!(reports, gone, gone_omitted),
        list!(reports, changed_state, changed_state_omitted),
    ]
}

fn list_problem((name, total, listed, omitted, is_sorted): ListFacts) -> Option<String> {
    let is_whole = total == (listed as u64).saturating_add(omitted);
    unless(is_whole && is_bounded(listed, omitted) && is_sorted, || {
        format!(
            "states {total} changes `{name}`, lists {listed} and omits {omitted}, or lists them out of order"
        )
    })
}

fn target_problem(changes: &Changes, targets: &[LedgerLine]) -> Option<String> {
    let names: Vec<String> = targets
        .iter()
        .map(|line| line.target().to_string())
        .collect();
    let is_there = |name: &String| names.binary_search(name).is_ok();
    let (added, removed) = (&changes.targets_added, &changes.targets_removed);
    let not_compared = &changes.targets_not_compared;
    let is_sorted = [added, removed, not_compared]
        .iter()
        .all(|list| list.is_sorted_by(|a, b| a < b));
    let agrees = added.iter().all(is_there)
        && not_compared.iter().all(is_there)
        && !removed.iter().any(is_there);
    unless(is_sorted && agrees, || {
        "lists changed targets that contradict its ledger".to_owned()
    })
}
