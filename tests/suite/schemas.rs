//! The published schemas: generated from the types, recorded in the changelog, and matched by every document.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use flate2::read::MultiGzDecoder;
use image_usage_archive::documents::{
    EntryLine, ImageLine, OutcomeLine, Plan, ReportLine, SCHEMA_VERSION, Snapshot, TargetLine,
};
use image_usage_archive::domain::digest::hex;
use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::project_file;

/// If this variable is set, the files are written instead of compared.
const UPDATE: &str = "UPDATE_SCHEMAS";

/// How many digits of a schema's SHA-256 the changelog has.
const DIGEST_DIGITS: usize = 12;

const FILES: [&str; 7] = [
    "snapshot.schema.json",
    "report-line.schema.json",
    "entry-line.schema.json",
    "image-line.schema.json",
    "plan.schema.json",
    "target-line.schema.json",
    "outcome-line.schema.json",
];

/// The text of each file, generated from the types.
fn generated() -> [String; 7] {
    let version = |document: &mut Value| {
        document["properties"]["schema_version"]["const"] = json!(SCHEMA_VERSION);
    };
    let snapshot = schema_of::<Snapshot>(version);
    let report = schema_of::<ReportLine<'static>>(|_| {});
    let entry = schema_of::<EntryLine>(|_| {});
    let image = schema_of::<ImageLine>(|_| {});
    let plan = schema_of::<Plan>(version);
    let target = schema_of::<TargetLine>(|_| {});
    let outcome = schema_of::<OutcomeLine>(|_| {});
    [snapshot, report, entry, image, plan, target, outcome]
}

fn schema_of<T: JsonSchema>(finish: impl FnOnce(&mut Value)) -> String {
    // For documents that are written: every field exists, and may be null.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(publish).transform(&mut schema);
    let mut schema = schema.to_value();
    finish(&mut schema);
    format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())
}

/// Closes an object to fields that it does not name, and writes the names of JSON instead of Rust's.
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
fn the_published_schemas_match_the_types() {
    for (name, text) in FILES.into_iter().zip(generated()) {
        let path = file(name);
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&path, &text).unwrap();
        }
        let published = fs::read_to_string(&path);
        let published = published.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            published == text,
            "schemas/{name} does not match the types; {UPDATE}=1 writes it"
        );
    }
}

#[test]
fn no_schema_changes_without_a_word_in_the_changelog() {
    let changelog = fs::read_to_string(project_file("CHANGELOG.md")).unwrap();
    for name in FILES {
        let digest = hex(&Sha256::digest(fs::read(file(name)).unwrap()));
        let expected = format!(
            "`schemas/{name}`: version {SCHEMA_VERSION}, SHA-256 {}…",
            &digest[..DIGEST_DIGITS]
        );
        // The newest section comes first, so the first match is a schema's newest.
        let newest = changelog
            .lines()
            .find(|line| line.contains(&format!("`schemas/{name}`")));
        assert!(
            newest.is_some_and(|line| line.contains(&expected)),
            "schemas/{name} has changed, but the changelog does not say so. Describe the change there, with\n\
             - {expected}\nIt has {newest:?}"
        );
    }
}

struct Validators {
    snapshot: Validator,
    report: Validator,
    entry: Validator,
    image: Validator,
    plan: Validator,
    target: Validator,
    outcome: Validator,
}

/// Compiled once in a process from the published files.
static VALIDATORS: LazyLock<Validators> = LazyLock::new(|| {
    let [snapshot, report, entry, image, plan, target, outcome] = FILES.map(|name| {
        let schema: Value = serde_json::from_slice(&fs::read(file(name)).unwrap()).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    });
    Validators {
        snapshot,
        report,
        entry,
        image,
        plan,
        target,
        outcome,
    }
});

fn problems(validator: &Validator, document: &Value) -> Vec<String> {
    let errors = validator.iter_errors(document);
    errors
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect()
}

/// Checks every document of an archive in a folder.
pub(crate) fn check_folder(root: &Path) {
    // A test may have deleted the bucket.
    let mut folders: Vec<_> = root.exists().then(|| root.to_owned()).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A page is for people.
            if path.extension().is_some_and(|ending| ending == "html") {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            // `latest.json` is a copy of a snapshot.
            if seen.insert(Sha256::digest(&bytes)) {
                check_document(path.to_str().unwrap(), &bytes);
            }
        }
    }
}

/// Checks one object of an archive, whose kind follows from its key.
fn check_document(key: &str, bytes: &[u8]) {
    let Validators {
        snapshot,
        report,
        entry,
        image,
        plan,
        target,
        outcome,
    } = &*VALIDATORS;
    let (validator, text) = if key.contains("/v1/reports/") {
        (report, unzipped(key, bytes))
    } else if key.contains("/v1/entries/") {
        (entry, unzipped(key, bytes))
    } else if key.contains("/v1/images/") {
        (image, unzipped(key, bytes))
    } else if key.contains("/v1/snapshots/") || key.ends_with("/v1/latest.json") {
        (snapshot, String::from_utf8(bytes.to_vec()).unwrap())
    } else if key.contains("/v1/runs/") && key.contains("/outcomes/") {
        (outcome, unzipped(key, bytes))
    } else if key.contains("/v1/runs/") && key.ends_with("/plan.json") {
        (plan, String::from_utf8(bytes.to_vec()).unwrap())
    } else if key.contains("/v1/runs/") {
        (target, String::from_utf8(bytes.to_vec()).unwrap())
    } else {
        panic!("{key} has no schema")
    };
    for line in text.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        if !validator.is_valid(&document) {
            let problems = problems(validator, &document).join("\n");
            panic!("{key} does not match its schema:\n{problems}\n{line:.2000}");
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
fn a_line_with_a_missing_or_an_additional_field_does_not_match_its_schema() {
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
fn entries_of_a_report_have_the_fields_of_their_status_and_no_others() {
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
