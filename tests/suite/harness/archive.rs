//! Reads an archive, and compares it with what EC2 held.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use image_usage_archive::domain::digest::hex;
use image_usage_auditor::audit::Summary;
use local_aws::{LocalAws, Report, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::BUCKET;
use super::oracle::{apart, expected_entries, expected_line};

/// The archive as it lies on disk.
pub(crate) struct Archive {
    root: PathBuf,
}

impl Archive {
    pub(crate) fn of(aws: &LocalAws) -> Self {
        Self {
            root: aws.archive_root().join(BUCKET),
        }
    }

    /// The archive that lies in a folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            root: folder.to_owned(),
        }
    }

    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        fs::read(self.root.join(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    pub(crate) fn json(&self, key: &str) -> Value {
        serde_json::from_slice(&self.bytes(key)).unwrap()
    }

    pub(crate) fn snapshot(&self, summary: &Summary) -> Value {
        self.json(&summary.snapshot.key)
    }

    pub(crate) fn lines(&self, key: &str) -> Vec<Value> {
        let mut text = String::new();
        MultiGzDecoder::new(self.bytes(key).as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "the last line of {key} isn't ended"
        );
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Every object by key, with its bytes.
    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = BTreeMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path
                        .strip_prefix(&self.root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    objects.insert(key, fs::read(&path).unwrap());
                }
            }
        }
        objects
    }

    /// Checks that each object that a snapshot names is there as it says, that complete targets hold
    /// exactly what EC2 held, word for word, and that the counts are those of the lines.
    pub(crate) fn check(&self, snapshot: &Value, world: &World) {
        self.check_beside(snapshot, world, |_, _| 0..=0);
    }

    /// Checks the same where EC2 gave, for some accounts and Regions, so many reports without any member
    /// besides those that it held; returns the number of reports that were compared.
    pub(crate) fn check_beside(
        &self,
        snapshot: &Value,
        world: &World,
        bare_beside: impl Fn(&str, &str) -> RangeInclusive<usize>,
    ) -> usize {
        let mut compared = 0;
        let mut reports: BTreeMap<&str, u64> = BTreeMap::new();
        let mut findings: BTreeMap<String, u64> = BTreeMap::new();
        let mut entries: BTreeMap<&str, u64> = BTreeMap::new();
        for target in snapshot["targets"].as_array().unwrap() {
            let (account, region) = (text(&target["account_id"]), text(&target["region"]));
            let object = &target["object"];
            if object.is_null() {
                assert_eq!(target["entries_object"], Value::Null, "{target}");
                assert_eq!(target["reports"], 0, "{target}");
                assert!(
                    ["failed", "skipped"].contains(&text(&target["status"])),
                    "{target}"
                );
                assert!(target["error"].is_object(), "{target}");
                continue;
            }
            let key = text(&object["key"]);
            let bytes = self.bytes(key);
            assert_eq!(object["sha256"], hex(&Sha256::digest(&bytes)), "{key}");
            assert_eq!(object["bytes"], bytes.len(), "{key}");
            let lines = self.lines(key);
            assert_eq!(object["lines"], lines.len(), "{key}");
            assert_eq!(target["reports"], lines.len(), "{key}");
            let held = world.reports(account, region);
            let held = held
                .iter()
                .map(|report| expected_line(account, region, report));
            let archived = lines.iter().map(|line| {
                let mut line = line.clone();
                for name in ["findings", "entries"] {
                    line.as_object_mut().unwrap().remove(name).unwrap();
                }
                line
            });
            let bare = expected_line(account, region, &Report::default());
            let (held_bare, held) = apart(held, &bare);
            let (archived_bare, archived) = apart(archived, &bare);
            let most_bare = held_bare + bare_beside(account, region).end();
            match text(&target["status"]) {
                "complete" => {
                    assert!(target["error"].is_null(), "{target}");
                    assert_eq!(archived, held, "{region}");
                    let least_bare = held_bare + bare_beside(account, region).start();
                    assert!(
                        (least_bare..=most_bare).contains(&archived_bare),
                        "{region} has {archived_bare} reports without any member"
                    );
                }
                "incomplete" => {
                    assert!(target["error"].is_object(), "{target}");
                    let mut rest = held.iter();
                    assert!(
                        archived.iter().all(|line| rest.any(|held| held == line)),
                        "{region} has reports that EC2 didn't hold, or has them twice"
                    );
                    assert!(archived_bare <= most_bare, "{region}");
                }
                status => panic!("{region} is {status} and has an object"),
            }
            compared += lines.len();
            self.check_entries(snapshot, target, &lines, world, &mut entries);
            for line in &lines {
                assert_eq!(
                    (&line["account_id"], &line["region"]),
                    (&target["account_id"], &target["region"])
                );
                *reports.entry("total").or_default() += 1;
                *reports
                    .entry(match line["state"].as_str() {
                        Some("available") => "available",
                        Some("pending") => "pending",
                        Some("error") => "error",
                        _ => "other",
                    })
                    .or_default() += 1;
                for kind in line["findings"].as_array().unwrap() {
                    *findings.entry("total".to_owned()).or_default() += 1;
                    *findings.entry(text(kind).to_owned()).or_default() += 1;
                }
            }
        }
        for (state, count) in snapshot["counts"]["reports"].as_object().unwrap() {
            assert_eq!(
                *count,
                reports.get(state.as_str()).copied().unwrap_or(0),
                "{state}"
            );
        }
        for (status, count) in snapshot["counts"]["entries"].as_object().unwrap() {
            let counted = entries.get(status.as_str()).copied().unwrap_or(0);
            assert_eq!(*count, counted, "{status}");
        }
        for (kind, count) in snapshot["counts"]["findings"].as_object().unwrap() {
            assert_eq!(*count, findings.get(kind).copied().unwrap_or(0), "{kind}");
        }
        let listed = snapshot["findings"].as_array().unwrap().len() as u64;
        assert_eq!(
            snapshot["counts"]["findings"]["total"],
            listed + snapshot["findings_omitted"].as_u64().unwrap()
        );
        compared
    }
}

/// The status that is counted under a name, for the maps of [`Archive::check_entries`].
const ENTRIES_STATUSES: [&str; 4] = ["archived", "pending", "not_available", "failed"];

impl Archive {
    /// Checks what the lines of a target say of their entries: what is archived is there, whole, in one
    /// piece, and as EC2 held it; what isn't is for a reason that the report's state bears out.
    fn check_entries(
        &self,
        snapshot: &Value,
        target: &Value,
        lines: &[Value],
        world: &World,
        counts: &mut BTreeMap<&'static str, u64>,
    ) {
        let (account, region) = (text(&target["account_id"]), text(&target["region"]));
        let object = &target["entries_object"];
        if let Some(key) = object["key"].as_str() {
            let bytes = self.bytes(key);
            assert_eq!(object["sha256"], hex(&Sha256::digest(&bytes)), "{key}");
            assert_eq!(object["bytes"], bytes.len(), "{key}");
            assert_eq!(object["lines"], self.lines(key).len(), "{key}");
            assert_ne!(object["lines"], 0, "{key}");
        }
        let mut held: BTreeMap<String, Vec<Report>> = BTreeMap::new();
        for report in world.reports(account, region) {
            if let Some(id) = report.report_id.clone() {
                held.entry(id).or_default().push(report);
            }
        }
        let mut groups: BTreeMap<String, BTreeMap<String, Vec<Value>>> = BTreeMap::new();
        for line in lines {
            let entries = &line["entries"];
            let status = text(&entries["status"]);
            let status = ENTRIES_STATUSES.into_iter().find(|known| *known == status);
            let status = status.unwrap_or_else(|| panic!("{entries}"));
            *counts.entry(status).or_default() += 1;
            let state = line["state"].as_str();
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
            if status != "archived" {
                continue;
            }
            let key = text(&entries["key"]);
            let run_id = text(&entries["run_id"]);
            assert!(is_object_of(key, run_id), "{line}");
            if entries["run_id"] == snapshot["run_id"] {
                *counts.entry("fetched").or_default() += 1;
                assert_eq!(object["key"], key, "{line}");
            }
            let groups = groups
                .entry(key.to_owned())
                .or_insert_with(|| self.entry_groups(key));
            let id = text(&line["report_id"]);
            let group = groups
                .get(id)
                .unwrap_or_else(|| panic!("{key} has nothing of {id}"));
            if let Some([report]) = held.get(id).map(Vec::as_slice) {
                let expected = expected_entries(account, region, report);
                let count = match report.entries.is_empty() {
                    true => 0,
                    false => expected.len(),
                };
                assert_eq!(entries["count"], count, "{id}");
                let group: BTreeSet<String> = group.iter().map(Value::to_string).collect();
                let expected: BTreeSet<String> = expected.iter().map(Value::to_string).collect();
                assert_eq!(group, expected, "{id} in {key}");
            }
        }
    }

    /// The lines of an entries object by report; each report's are in one piece, and each is there once.
    pub(crate) fn entry_groups(&self, key: &str) -> BTreeMap<String, Vec<Value>> {
        let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for group in self
            .lines(key)
            .chunk_by(|a, b| a["report_id"] == b["report_id"])
        {
            let id = text(&group[0]["report_id"]).to_owned();
            let lines: BTreeSet<String> = group.iter().map(Value::to_string).collect();
            assert_eq!(lines.len(), group.len(), "{id} has a line twice in {key}");
            let before = groups.insert(id.clone(), group.to_vec());
            assert!(before.is_none(), "{id} is in two pieces in {key}");
        }
        groups
    }
}

/// Whether a key is that of an object which an attempt at a run has written: `RUN_ID.ATTEMPT.jsonl.gz`.
pub(crate) fn is_object_of(key: &str, run_id: &str) -> bool {
    let name = key.rsplit('/').next().unwrap();
    let attempt = name
        .strip_prefix(run_id)
        .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".jsonl.gz"));
    attempt.is_some_and(|attempt| {
        attempt.len() == 8 && attempt.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A text with the same word for every attempt, in the keys that it contains.
pub(crate) fn without_attempts(text: &str) -> String {
    const ENDING: &str = ".jsonl.gz";
    let mut pieces = text.split(ENDING).collect::<Vec<_>>();
    let rest = pieces.pop().unwrap_or_default();
    let mut without = String::new();
    for piece in pieces {
        without += &piece[..piece.len() - "0badcafe".len()];
        without += "ATTEMPT";
        without += ENDING;
    }
    without + rest
}

pub(crate) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// A target's line of the ledger.
pub(crate) fn target<'a>(snapshot: &'a Value, region: &str) -> &'a Value {
    let targets = snapshot["targets"].as_array().unwrap();
    targets
        .iter()
        .find(|target| target["region"] == region)
        .unwrap_or_else(|| panic!("no {region}"))
}
