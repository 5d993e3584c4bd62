//! Checks the changes of a snapshot against their own totals and the ledger.

use super::problem::{is_bounded, unless};
use crate::documents::{Changes, LedgerLine, Snapshot};

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
        .collect()
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
