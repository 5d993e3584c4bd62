//! Replays the changes that snapshots list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{Archive, targets, text};

/// What a snapshot says about the reports: the state of each, and every finding.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    states: BTreeMap<String, Option<String>>,
    findings: BTreeSet<String>,
}

impl State {
    /// Reads the lines of a snapshot's reports.
    fn of(archive: &Archive, snapshot: &Value) -> Self {
        let mut state = Self::default();
        for target in targets(snapshot) {
            for line in archive.lines(text(&target["object"]["key"])) {
                let name = name_of(&line);
                for kind in line["findings"].as_array().unwrap() {
                    state.findings.insert(format!("{name}/{}", text(kind)));
                }
                state
                    .states
                    .insert(name, line["state"].as_str().map(str::to_owned));
            }
        }
        state
    }

    /// Applies the changes that a snapshot lists.
    fn change(&mut self, changes: &Value) {
        let list = |name: &str| {
            assert_eq!(changes[format!("{name}_omitted")], 0, "{name}");
            changes[name].as_array().unwrap().iter()
        };
        for (name, count) in [
            ("appeared", "reports"),
            ("gone", "reports"),
            ("changed_state", "reports"),
            ("opened", "findings"),
            ("resolved", "findings"),
        ] {
            assert_eq!(changes[count][name], list(name).count(), "{name}");
        }
        for report in list("gone") {
            let was_there = self.states.remove(&name_of(report));
            assert!(was_there.is_some(), "{report} is gone and never existed");
        }
        for report in list("appeared") {
            let state = report["state"].as_str().map(str::to_owned);
            let before = self.states.insert(name_of(report), state);
            assert_eq!(before, None, "{report} appeared twice");
        }
        for report in list("changed_state") {
            let to = report["to"].as_str().map(str::to_owned);
            let before = self.states.insert(name_of(report), to);
            assert_eq!(
                before.unwrap().as_deref(),
                report["from"].as_str(),
                "{report}"
            );
        }
        for finding in list("resolved") {
            assert!(
                self.findings.remove(text(finding)),
                "{finding} was not open"
            );
        }
        for finding in list("opened") {
            let is_new = self.findings.insert(text(finding).to_owned());
            assert!(is_new, "{finding} was open");
        }
    }
}

fn name_of(report: &Value) -> String {
    let field = |name: &str| text(&report[name]);
    format!(
        "{}/{}/{}",
        field("account_id"),
        field("region"),
        field("report_id")
    )
}

/// Checks that the changes of all runs, applied to the first snapshot, result in the last one.
pub(super) fn check_replay(archive: &Archive, snapshots: &[Value]) {
    let (first, later) = snapshots.split_first().unwrap();
    assert_eq!(first["changes"], Value::Null);
    let mut state = State::of(archive, first);
    let mut last = first;
    for snapshot in later {
        assert_eq!(snapshot["previous"]["run_id"], last["run_id"]);
        state.change(&snapshot["changes"]);
        last = snapshot;
    }
    assert_eq!(state, State::of(archive, last));
    assert!(!state.findings.is_empty());
}
