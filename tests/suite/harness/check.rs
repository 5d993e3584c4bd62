//! Checks a snapshot, and the objects that it names, against what EC2 held.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use local_aws::{Report, World};
use serde_json::{Value, json};

use super::archive::{Archive, is_object_of, targets, text};
use super::oracle::{expected_entries, expected_line};

impl Archive {
    /// Checks that each object that a snapshot names exists as the snapshot describes it, that complete
    /// targets hold exactly what EC2 held, verbatim, and that the counts are those of the lines.
    pub(crate) fn check(&self, snapshot: &Value, world: &World) {
        self.check_with_bare(snapshot, world, |_, _| 0..=0);
    }

    /// Checks the same if EC2 returned additional reports without any field, whose number `bare` gives for
    /// an account and a Region. Returns the number of reports that were compared.
    pub(crate) fn check_with_bare(
        &self,
        snapshot: &Value,
        world: &World,
        bare: impl Fn(&str, &str) -> RangeInclusive<usize>,
    ) -> usize {
        let run_id = text(&snapshot["run_id"]);
        let mut counted = Counted::default();
        let mut compared = 0;
        for target in targets(snapshot) {
            if target["object"].is_null() {
                check_without_object(target);
                continue;
            }
            let lines = self.named_lines(&target["object"]);
            assert_eq!(target["reports"], lines.len(), "{target}");
            let (account, region) = (text(&target["account_id"]), text(&target["region"]));
            let held = world.reports(account, region);
            check_listing(target, &lines, &held, bare(account, region));
            self.check_entries(run_id, target, &lines, held);
            counted.add(run_id, &lines);
            counted.add_images(&self.images_of(target));
            compared += lines.len();
        }
        counted.check(snapshot);
        compared
    }

    /// The lines of a target's AMIs.
    pub(crate) fn images_of(&self, target: &Value) -> Vec<Value> {
        match &target["images_object"] {
            Value::Null => Vec::new(),
            object => self.named_lines(object),
        }
    }
}

fn check_without_object(target: &Value) {
    assert_eq!(target["entries_object"], Value::Null, "{target}");
    assert_eq!(target["reports"], 0, "{target}");
    let status = text(&target["status"]);
    assert!(["failed", "skipped"].contains(&status), "{target}");
    assert!(target["error"].is_object(), "{target}");
}

/// Checks the report lines of a target. A complete one has every report that EC2 held; an incomplete one
/// has some of them.
fn check_listing(target: &Value, lines: &[Value], held: &[Report], bare: RangeInclusive<usize>) {
    let (account, region) = (text(&target["account_id"]), text(&target["region"]));
    for line in lines {
        assert_eq!(
            (&line["account_id"], &line["region"]),
            (&target["account_id"], &target["region"])
        );
    }
    let archived = lines.iter().map(|line| {
        let mut line = line.clone();
        for name in ["findings", "entries"] {
            line.as_object_mut().unwrap().remove(name).unwrap();
        }
        line
    });
    let held = held
        .iter()
        .map(|report| expected_line(account, region, report));
    let empty = expected_line(account, region, &Report::default());
    let (archived_bare, archived) = without_bare(archived, &empty);
    let (held_bare, held) = without_bare(held, &empty);
    let (least, most) = (held_bare + bare.start(), held_bare + bare.end());
    match text(&target["status"]) {
        "complete" => {
            assert!(target["error"].is_null(), "{target}");
            assert_eq!(archived, held, "{region}");
            assert!(
                (least..=most).contains(&archived_bare),
                "{region} has {archived_bare} reports without any field"
            );
        }
        "incomplete" => {
            assert!(target["error"].is_object(), "{target}");
            let mut rest = held.iter();
            assert!(
                archived.iter().all(|line| rest.any(|held| held == line)),
                "{region} has reports that EC2 did not hold, or has them twice"
            );
            assert!(archived_bare <= most, "{region}");
        }
        status => panic!("{region} is {status} and has an object"),
    }
}

/// Returns the number of lines of reports without any field, and the other lines, sorted.
fn without_bare(lines: impl Iterator<Item = Value>, bare: &Value) -> (usize, Vec<String>) {
    let (bare, others): (Vec<Value>, Vec<Value>) = lines.partition(|line| line == bare);
    let mut others: Vec<String> = others.iter().map(Value::to_string).collect();
    others.sort();
    (bare.len(), others)
}

impl Archive {
    /// Checks the entries of a target's reports: archived ones exist, complete, adjacent, and as EC2 held
    /// them; the state of the report explains why others are not archived.
    fn check_entries(&self, run_id: &str, target: &Value, lines: &[Value], held: Vec<Report>) {
        let (account, region) = (text(&target["account_id"]), text(&target["region"]));
        let own_object = &target["entries_object"];
        if !own_object.is_null() {
            assert_ne!(self.named_lines(own_object), [Value::Null; 0], "{target}");
        }
        let mut held_by_id: BTreeMap<String, Vec<Report>> = BTreeMap::new();
        for report in held {
            if let Some(id) = report.report_id.clone() {
                held_by_id.entry(id).or_default().push(report);
            }
        }
        let mut objects: BTreeMap<&str, BTreeMap<String, Vec<Value>>> = BTreeMap::new();
        for line in lines {
            check_status(line);
            let entries = &line["entries"];
            if entries["status"] != "archived" {
                continue;
            }
            let (key, id) = (text(&entries["key"]), text(&line["report_id"]));
            assert!(is_object_of(key, text(&entries["run_id"])), "{line}");
            if entries["run_id"] == run_id {
                assert_eq!(own_object["key"], key, "{line}");
            }
            let groups = objects.entry(key).or_insert_with(|| self.entry_groups(key));
            let group = groups
                .get(id)
                .unwrap_or_else(|| panic!("{key} has no entries of {id}"));
            // With two reports of one ID, the entries may be those of either.
            if let Some([report]) = held_by_id.get(id).map(Vec::as_slice) {
                let expected = expected_entries(account, region, report);
                let count = match report.entries.is_empty() {
                    true => 0,
                    false => expected.len(),
                };
                assert_eq!(entries["count"], count, "{id}");
                assert_eq!(sorted(group), sorted(&expected), "{id} in {key}");
            }
        }
    }
}

fn sorted(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(Value::to_string).collect()
}

/// Checks that the status of a report's entries fits its state and its findings.
fn check_status(line: &Value) {
    let entries = &line["entries"];
    let (state, status) = (line["state"].as_str(), text(&entries["status"]));
    match (state, status) {
        (Some("available"), "archived" | "failed") => {}
        (Some("available"), "pending") => assert!(entries["code"].is_string(), "{line}"),
        (Some("pending"), "pending") => assert_eq!(entries["code"], Value::Null, "{line}"),
        (Some("available" | "pending"), _) => panic!("{line}"),
        _ => assert_eq!(status, "not_available", "{line}"),
    }
    let kinds = line["findings"].as_array().unwrap();
    let is_going = kinds.contains(&json!("expiring")) || kinds.contains(&json!("expired"));
    let is_unarchived = state == Some("available")
        && is_going
        && status != "archived"
        && entries["code"] != "EntriesNotWanted";
    assert_eq!(
        kinds.contains(&json!("unarchived")),
        is_unarchived,
        "{line}"
    );
}

/// How often each name occurs.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, name: &str) {
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    /// Checks a snapshot's counts. A name that never occurred counts 0.
    fn check(&self, counts: &Value) {
        for (name, count) in counts.as_object().unwrap() {
            let counted = self.0.get(name).copied().unwrap_or(0);
            assert_eq!(*count, counted, "{name}");
        }
    }
}

/// The counts of a snapshot, from its lines.
#[derive(Default)]
struct Counted {
    reports: Tally,
    entries: Tally,
    findings: Tally,
}

impl Counted {
    fn add(&mut self, run_id: &str, lines: &[Value]) {
        for line in lines {
            self.reports.add("total");
            self.reports.add(match line["state"].as_str() {
                Some(state @ ("available" | "pending" | "error")) => state,
                _ => "other",
            });
            let entries = &line["entries"];
            self.entries.add(text(&entries["status"]));
            if entries["run_id"] == run_id {
                self.entries.add("fetched");
            }
            for kind in line["findings"].as_array().unwrap() {
                self.findings.add("total");
                self.findings.add(text(kind));
            }
        }
    }

    fn add_images(&mut self, images: &[Value]) {
        for _ in images.iter().filter(|line| line["coverage"] == "uncovered") {
            self.findings.add("total");
            self.findings.add("uncovered");
        }
    }

    fn check(&self, snapshot: &Value) {
        let counts = &snapshot["counts"];
        self.reports.check(&counts["reports"]);
        self.entries.check(&counts["entries"]);
        self.findings.check(&counts["findings"]);
        let listed = snapshot["findings"].as_array().unwrap().len() as u64;
        let omitted = snapshot["findings_omitted"].as_u64().unwrap();
        assert_eq!(counts["findings"]["total"], listed + omitted);
    }
}
