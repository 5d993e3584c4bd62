//! The published schemas: made from the types, told of in the changelog, and kept by every document.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use flate2::read::MultiGzDecoder;
use image_usage_archive::documents::{EntryLine, ReportLine, SCHEMA_VERSION, Snapshot};
use image_usage_archive::domain::digest::hex;
use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::project_file;

/// Set, the files are written instead of compared.
const UPDATE: &str = "UPDATE_SCHEMAS";

/// How much of a schema's SHA-256 the changelog tells.
const DIGEST_DIGITS: usize = 12;

const FILES: [&str; 3] = [
    "snapshot.schema.json",
    "report-line.schema.json",
    "entry-line.schema.json",
];

/// The text of each file as the types give it.
fn generated() -> [String; 3] {
    let snapshot = schema_of::<Snapshot>(|snapshot| {
        snapshot["properties"]["schema_version"]["const"] = json!(SCHEMA_VERSION);
    });
    let report = schema_of::<ReportLine<'static>>(|_| {});
    let entry = schema_of::<EntryLine>(|_| {});
    [snapshot, report, entry]
}

fn schema_of<T: JsonSchema>(finish: impl FnOnce(&mut Value)) -> String {
    // What is written: every member is there, and may be null.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(publish).transform(&mut schema);
    let mut schema = schema.to_value();
    finish(&mut schema);
    format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())
}

/// Closes an object to members that it doesn't name, and speaks of JSON instead of Rust.
fn publish(schema: &mut Schema) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace("`None`", "`null`");
    }
}

fn file(name: &str) -> std::path::PathBuf {
    project_file("schemas").join(name)
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    for (name, text) in FILES.into_iter().zip(generated()) {
        let path = file(name);
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&path, &text).unwrap();
        }
        let published = fs::read_to_string(&path);
        let published = published.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            published == text,
            "schemas/{name} is not what the types give; {UPDATE}=1 writes it anew"
        );
    }
}

#[test]
fn no_schema_changes_without_its_version_or_the_changelog() {
    let changelog = fs::read_to_string(project_file("CHANGELOG.md")).unwrap();
    for name in FILES {
        let digest = hex(&Sha256::digest(fs::read(file(name)).unwrap()));
        let expected = format!(
            "`schemas/{name}`: version {SCHEMA_VERSION}, SHA-256 {}…",
            &digest[..DIGEST_DIGITS]
        );
        // The newest section comes first, and so does the newest word on a schema.
        let newest = changelog
            .lines()
            .find(|line| line.contains(&format!("`schemas/{name}`")));
        assert!(
            newest.is_some_and(|line| line.contains(&expected)),
            "schemas/{name} has changed, and the changelog doesn't say so: tell there what is new, with\n\
             - {expected}\nIt has {newest:?}"
        );
    }
}

struct Validators {
    snapshot: Validator,
    report: Validator,
    entry: Validator,
}

/// Made once in a process, from the published files.
static VALIDATORS: LazyLock<Validators> = LazyLock::new(|| {
    let [snapshot, report, entry] = FILES.map(|name| {
        let schema: Value = serde_json::from_slice(&fs::read(file(name)).unwrap()).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    });
    Validators {
        snapshot,
        report,
        entry,
    }
});

fn problems(validator: &Validator, document: &Value) -> Vec<String> {
    let errors = validator.iter_errors(document);
    errors
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect()
}

/// Checks every document of an archive that lies in a folder.
pub(crate) fn check_folder(root: &Path) {
    // A test may have taken the bucket away.
    let mut folders: Vec<_> = root.exists().then(|| root.to_owned()).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            // The latest snapshot is a copy of another.
            if seen.insert(Sha256::digest(&bytes)) {
                check_document(path.to_str().unwrap(), &bytes);
            }
        }
    }
}

/// Checks one object of an archive; `key` tells what it is.
fn check_document(key: &str, bytes: &[u8]) {
    let Validators {
        snapshot,
        report,
        entry,
    } = &*VALIDATORS;
    let (validator, text) = if key.contains("/v1/reports/") {
        (report, unzipped(key, bytes))
    } else if key.contains("/v1/entries/") {
        (entry, unzipped(key, bytes))
    } else if key.contains("/v1/snapshots/") || key.ends_with("/v1/latest.json") {
        (snapshot, String::from_utf8(bytes.to_vec()).unwrap())
    } else {
        panic!("{key} has no schema")
    };
    for line in text.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        if !validator.is_valid(&document) {
            let problems = problems(validator, &document).join("\n");
            panic!("{key} is not as its schema says:\n{problems}\n{line:.2000}");
        }
    }
}

fn unzipped(key: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = MultiGzDecoder::new(bytes).read_to_string(&mut text);
    read.unwrap_or_else(|error| panic!("{key}: {error}"));
    text
}

fn an_entry_line() -> Value {
    json!({
        "account_id": "111122223333", "region": "us-east-1", "report_id": "amiur-1",
        "image_id": "ami-0abcdef1234567890", "report_creation_time": "2026-11-22T06:00:00.322Z",
        "consumer_account_id": "444455556666", "resource_type": "ec2:Instance", "usage_count": 3
    })
}

fn a_report_line() -> Value {
    json!({
        "account_id": "111122223333", "region": "us-east-1", "report_id": "amiur-1",
        "image_id": "ami-0abcdef1234567890", "state": "available", "state_reason": null,
        "creation_time": "2026-11-22T06:00:00Z", "expiration_time": null,
        "resource_types": [{
            "resource_type": "ec2:LaunchTemplate",
            "options": [{"name": "version-depth", "values": ["100"]}]
        }],
        "requested_account_ids": [], "tags": {"Owner": "TeamA", "Empty": null},
        "findings": ["unarchived", "undated"],
        "entries": {"status": "failed", "code": "UnauthorizedOperation"}
    })
}

#[test]
fn a_line_without_one_of_its_members_or_with_one_more_is_not_as_its_schema_says() {
    let validators = &*VALIDATORS;
    for (validator, line) in [
        (&validators.entry, an_entry_line()),
        (&validators.report, a_report_line()),
    ] {
        assert_eq!(problems(validator, &line), [""; 0]);
        for name in line.as_object().unwrap().keys() {
            let mut poorer = line.clone();
            poorer.as_object_mut().unwrap().remove(name).unwrap();
            assert!(!validator.is_valid(&poorer), "{name} may be missing");
            let mut wrong = line.clone();
            wrong[name] = json!({"surprise": [1.5]});
            assert!(!validator.is_valid(&wrong), "{name} may be anything");
        }
        let mut richer = line.clone();
        richer["surprise"] = json!(1);
        assert!(!validator.is_valid(&richer));
    }
}

#[test]
fn entries_of_a_report_have_the_members_of_their_status_and_no_others() {
    let is_valid = |entries: Value| {
        let mut line = a_report_line();
        line["entries"] = entries;
        VALIDATORS.report.is_valid(&line)
    };
    let run_id = "20261122T060000Z-7bf73129";
    for entries in [
        json!({"status": "archived", "key": "k", "run_id": run_id, "count": 0}),
        json!({"status": "pending", "code": null}),
        json!({"status": "pending", "code": "DeadlineExceeded"}),
        json!({"status": "not_available"}),
        json!({"status": "failed", "code": "ReportDeleted"}),
    ] {
        assert!(is_valid(entries.clone()), "{entries}");
    }
    for entries in [
        json!({"status": "archived", "key": "k", "run_id": run_id}),
        json!({"status": "archived", "key": "k", "run_id": run_id, "count": -1}),
        json!({"status": "archived", "key": "k", "run_id": run_id, "count": 0, "code": null}),
        json!({"status": "pending"}),
        json!({"status": "not_available", "code": null}),
        json!({"status": "failed", "code": null}),
        json!({"status": "gone"}),
        json!({}),
        json!(null),
    ] {
        assert!(!is_valid(entries.clone()), "{entries}");
    }
}
