//! Reads an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use image_usage_archive::domain::digest::hex;
use image_usage_auditor::audit::Summary;
use local_aws::LocalAws;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{BUCKET, LATEST};

/// The archive as it is stored on disk.
pub(crate) struct Archive {
    root: PathBuf,
}

impl Archive {
    pub(crate) fn of(aws: &LocalAws) -> Self {
        Self::in_folder(&aws.archive_root().join(BUCKET))
    }

    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            root: folder.to_owned(),
        }
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        fs::read(self.path(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    pub(crate) fn json(&self, key: &str) -> Value {
        serde_json::from_slice(&self.bytes(key)).unwrap()
    }

    pub(crate) fn latest(&self) -> Value {
        self.json(LATEST)
    }

    pub(crate) fn snapshot(&self, summary: &Summary) -> Value {
        self.json(&summary.snapshot.key)
    }

    /// The decompressed text of an object, whose last line must end.
    pub(crate) fn unzipped(&self, key: &str) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(self.bytes(key).as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{key} does not end with a newline"
        );
        text
    }

    pub(crate) fn lines(&self, key: &str) -> Vec<Value> {
        let text = self.unzipped(key);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The lines of an object that a snapshot names, which must be as the snapshot describes it.
    pub(crate) fn named_lines(&self, object: &Value) -> Vec<Value> {
        let key = text(&object["key"]);
        let bytes = self.bytes(key);
        assert_eq!(object["sha256"], sha256(&bytes), "{key}");
        assert_eq!(object["bytes"], bytes.len(), "{key}");
        let lines = self.lines(key);
        assert_eq!(object["lines"], lines.len(), "{key}");
        lines
    }

    /// The report lines of a Region's target.
    pub(crate) fn report_lines(&self, snapshot: &Value, region: &str) -> Vec<Value> {
        self.lines(text(&target(snapshot, region)["object"]["key"]))
    }

    /// Every object by key, with its bytes; pages, which nothing rests on, are left out.
    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = objects_below(&self.root);
        objects.retain(|key, _| !key.ends_with(".html"));
        objects
    }

    /// Every page by key.
    pub(crate) fn pages(&self) -> BTreeMap<String, String> {
        let mut objects = objects_below(&self.root);
        objects.retain(|key, _| key.ends_with(".html"));
        let page = |(key, bytes)| (key, String::from_utf8(bytes).unwrap());
        objects.into_iter().map(page).collect()
    }

    /// The lines of an entries object by report. Each report's lines must be adjacent and distinct.
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
            assert!(before.is_none(), "the lines of {id} are apart in {key}");
        }
        groups
    }
}

/// The SHA-256 of an object, as a snapshot writes it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns whether a key is that of an object of a run's attempt: `RUN_ID.ATTEMPT.jsonl.gz`.
pub(crate) fn is_object_of(key: &str, run_id: &str) -> bool {
    let name = key.rsplit('/').next().unwrap();
    let attempt = name
        .strip_prefix(run_id)
        .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".jsonl.gz"));
    attempt.is_some_and(|attempt| {
        attempt.len() == 8 && attempt.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A text in which the keys of all attempts have the same word instead of the attempt.
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
        .unwrap_or_else(|| panic!("{value} is not a text"))
}

/// The ledger: a line for each target.
pub(crate) fn targets(snapshot: &Value) -> &[Value] {
    snapshot["targets"].as_array().unwrap()
}

/// A target's line of the ledger.
pub(crate) fn target<'a>(snapshot: &'a Value, region: &str) -> &'a Value {
    let mut targets = targets(snapshot).iter();
    targets
        .find(|target| target["region"] == region)
        .unwrap_or_else(|| panic!("no target in {region}"))
}

/// The status of a Region's target, with its error code if it has one.
pub(crate) fn status(snapshot: &Value, region: &str) -> String {
    let target = target(snapshot, region);
    let status = text(&target["status"]);
    match target["error"]["code"].as_str() {
        Some(code) => format!("{status}: {code}"),
        None => status.to_owned(),
    }
}

/// The findings of one kind that a snapshot lists, by the IDs of their reports.
pub(crate) fn found(snapshot: &Value, kind: &str) -> Vec<String> {
    let findings = snapshot["findings"].as_array().unwrap().iter();
    let of_kind = findings.filter(|finding| finding["kind"] == kind);
    of_kind
        .map(|finding| text(&finding["report_id"]).to_owned())
        .collect()
}

/// The fields of an object, one a line.
pub(crate) fn line_by_line(object: &Value) -> String {
    let fields = object.as_object().unwrap().iter();
    let lines = fields.map(|(name, value)| format!("{name}: {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every file below a folder by its path there, with its bytes.
pub(crate) fn objects_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(root).unwrap().to_str().unwrap();
                objects.insert(key.to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    objects
}
