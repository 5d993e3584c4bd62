//! Objects of earlier runs that are missing, damaged or hard to read: they cost calls, never entries.

use std::fs;

use local_aws::{Fault, FaultKind, When};
use serde_json::{Value, json};

use crate::harness::{
    ACCOUNT, Days, LATEST, REGION, archived, overwrite, target, text, used, will_be_harmed,
};

/// Four reports with 0 to 3 entries.
async fn four_reports() -> Days {
    let reports = (0..4).map(|number| used(&format!("amiur-{number}"), number));
    Days::with_reports(reports).await
}

/// Damage to an object.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Delete,
    ChangeByte,
    CutInHalf,
    Replace(&'static [u8]),
}

impl Damage {
    fn apply(self, days: &Days, key: &str) {
        let mut bytes = days.archive().bytes(key);
        let middle = bytes.len() / 2;
        match self {
            Self::Delete => return fs::remove_file(days.path(key)).unwrap(),
            Self::ChangeByte => bytes[middle] ^= 1,
            Self::CutInHalf => bytes.truncate(middle),
            Self::Replace(other) => bytes = other.to_vec(),
        }
        overwrite(&days.aws, key, &bytes);
    }
}

/// Runs on two days, with damage in between to the object whose key `key` finds in the first snapshot.
async fn run_after(damage: Damage, key: impl Fn(&Value) -> String) -> (Days, Value) {
    let mut days = four_reports().await;
    will_be_harmed(&mut days.aws);
    let first = days.run().await;
    damage.apply(&days, &key(&first));
    let second = days.next_day().await;
    assert_eq!(second["status"], "complete", "{damage:?}");
    assert_eq!(second["counts"]["entries"]["archived"], 4, "{damage:?}");
    (days, second)
}

#[tokio::test]
async fn if_the_latest_snapshot_is_missing_or_damaged_all_entries_are_fetched_again() {
    for damage in [Damage::Delete, Damage::Replace(b"{"), Damage::Replace(b"")] {
        let (_, second) = run_after(damage, |_| LATEST.to_owned()).await;
        assert_eq!(second["counts"]["entries"]["fetched"], 4, "{damage:?}");
        assert_eq!(second["previous"], Value::Null, "{damage:?}");
        assert_eq!(second["changes"], Value::Null, "{damage:?}");
    }
}

#[tokio::test]
async fn if_the_lines_of_a_target_are_missing_or_damaged_its_entries_are_fetched_again() {
    let lines = |first: &Value| text(&target(first, REGION)["object"]["key"]).to_owned();
    for damage in [Damage::Delete, Damage::ChangeByte, Damage::CutInHalf] {
        let (days, second) = run_after(damage, lines).await;
        assert_eq!(second["counts"]["entries"]["fetched"], 4, "{damage:?}");
        let changes = &second["changes"];
        let not_compared = json!([format!("{ACCOUNT}/{REGION}")]);
        assert_eq!(changes["targets_not_compared"], not_compared, "{damage:?}");
        for count in ["appeared", "gone", "changed_state", "unseen"] {
            assert_eq!(changes["reports"][count], 0, "{damage:?} {count}");
        }
        // The run after that is not affected.
        let third = days.next_day().await;
        assert_eq!(third["counts"]["entries"]["fetched"], 0, "{damage:?}");
        assert_eq!(third["changes"]["targets_not_compared"], json!([]));
    }
}

#[tokio::test]
async fn if_the_previous_snapshot_is_missing_or_damaged_no_entry_is_lost() {
    let snapshot = |first: &Value| {
        let run_id = text(&first["run_id"]);
        format!("image-usage/v1/snapshots/dt=2026-11-22/{run_id}.json")
    };
    for damage in [Damage::Delete, Damage::Replace(b"{")] {
        let (days, second) = run_after(damage, snapshot).await;
        if second["counts"]["entries"]["fetched"] == 4 {
            // A report without entries has a line too.
            let object = &target(&second, REGION)["entries_object"];
            assert_eq!(object["lines"], 1 + 1 + 2 + 3);
        }
        let entries = days.entries(&second, REGION);
        assert_eq!(archived(&entries).len(), 4, "{damage:?}");
    }
}

#[tokio::test]
async fn an_interrupted_read_of_an_object_of_an_earlier_run_is_repeated() {
    // The run's own snapshot, which does not exist, is read before the previous one.
    #[rustfmt::skip]
    let reads = [
        ("v1/reports/", When::Nth(0)),
        ("v1/snapshots/", When::Nth(1)),
        ("latest.json", When::Nth(0)),
    ];
    #[rustfmt::skip]
    let kinds = [FaultKind::CutBody, FaultKind::ResetMidBody, FaultKind::Status500];
    for (key, when) in reads {
        for kind in &kinds {
            let days = four_reports().await;
            let first = days.run().await;
            let fault = Fault::new(kind.clone()).on("GetObject").on_key(key);
            days.aws.faults().add(fault.when(when));
            let before = days.aws.faults().injected();
            let second = days.next_day().await;
            let case = format!("{kind:?} {key}");
            assert_ne!(days.aws.faults().injected(), before, "{case}");
            assert_eq!(second["previous"]["run_id"], first["run_id"], "{case}");
            let not_compared = &second["changes"]["targets_not_compared"];
            assert_eq!(*not_compared, json!([]), "{case}");
            assert_eq!(second["counts"]["entries"]["fetched"], 0, "{case}");
        }
    }
}
