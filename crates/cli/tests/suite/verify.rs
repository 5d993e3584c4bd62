use std::fs;
use std::process::{Command, Output, Stdio};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::archive::Archive;
use crate::s3::{Server, error};

/// The program with nothing of this machine's configuration.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_image-usage"));
    program
        .args(arguments)
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    program
}

/// The program with credentials and a Region, and an endpoint.
fn in_s3(location: &str, endpoint: &str) -> Command {
    let mut program = program(&["verify", location]);
    program
        .env("AWS_ACCESS_KEY_ID", "AKIA111122223333")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", endpoint);
    program
}

const IN_S3: &str = "s3://archive/image-usage/";

pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(mut program: Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = program.output().unwrap();
    Ran {
        status: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn verify(arguments: &[&str]) -> Ran {
    run(program(&[&["verify"], arguments].concat()))
}

/// What was printed, with the archive's folder as `ARCHIVE` and the version as it may change.
fn shown(archive: &Archive, ran: &Ran) -> String {
    let out = ran.out.replace(&archive.location(), "ARCHIVE");
    format!("{out}status {}", ran.status)
}

/// Hides digests and sizes: they may change with the compressor.
fn without_digests(text: &str) -> String {
    let is_digest =
        |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hidden = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        for place in 0..words.len() {
            if is_digest(words[place]) {
                words[place] = "DIGEST";
            } else if words[place] == "bytes:" {
                words[place - 1] = "N";
            }
        }
        words.join(" ")
    };
    text.lines().map(hidden).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_sound_archive() {
    let (archive, _) = Archive::of_two_runs();
    let ran = verify(&[&archive.location()]);
    assert_eq!(ran.err, "");
    assert_snapshot!(without_digests(&shown(&archive, &ran)), @r#"
    snapshot                   scheduled_at          status    targets  reports  entries  objects  verdict
    20261122T060000Z-29ce4f47  2026-11-22T06:00:00Z  complete        1        2        1        2  ok
    20261123T060000Z-cd9c7997  2026-11-23T06:00:00Z  complete        1        2        1        2  ok

    The head is v1/snapshots/dt=2026-11-23/20261123T060000Z-cd9c7997.json, SHA-256 DIGEST
    ARCHIVE: 2 snapshots and 4 other objects, N bytes: sound
    status 0
    "#);
}

#[test]
fn an_archive_with_problems() {
    let (archive, runs) = Archive::of_two_runs();
    fs::remove_file(archive.file(&runs[0].entries)).unwrap();
    archive.write("v1/notes.txt", b"hello");
    let ran = verify(&[&archive.location()]);
    assert_snapshot!(without_digests(&shown(&archive, &ran)), @r#"
    snapshot                   scheduled_at          status    targets  reports  entries  objects  verdict
    20261122T060000Z-29ce4f47  2026-11-22T06:00:00Z  complete        1        2        1        2  1 problem
    20261123T060000Z-cd9c7997  2026-11-23T06:00:00Z  complete        1        2        1        2  ok

    Problems:
      v1/entries/dt=2026-11-22/account_id=111122223333/region=eu-west-1/20261122T060000Z-29ce4f47.0badcafe.jsonl.gz is missing; v1/snapshots/dt=2026-11-22/20261122T060000Z-29ce4f47.json names it
      v1/notes.txt is not an object that the auditor writes

    The head is v1/snapshots/dt=2026-11-23/20261123T060000Z-cd9c7997.json, SHA-256 DIGEST
    ARCHIVE: 2 snapshots and 3 other objects, N bytes: 2 problems
    status 1
    "#);
}

#[test]
fn what_a_desktop_and_the_console_leave_is_noted() {
    let (archive, _) = Archive::of_two_runs();
    archive.write("v1/.DS_Store", b"x");
    archive.write("v1/reports/Thumbs.db", b"x");
    archive.write("v1/snapshots/desktop.ini", b"x");
    let left = "v1/reports/dt=2026-11-24/account_id=111122223333/region=eu-west-1/20261124T060000Z-01234567";
    archive.write(&format!("{left}.00000001.jsonl.gz"), b"cut");
    archive.write(&format!("{left}.00000002.jsonl.gz"), b"");
    let ran = verify(&[&archive.location()]);
    assert_snapshot!(without_digests(&shown(&archive, &ran)), @r#"
    snapshot                   scheduled_at          status    targets  reports  entries  objects  verdict
    20261122T060000Z-29ce4f47  2026-11-22T06:00:00Z  complete        1        2        1        2  ok
    20261123T060000Z-cd9c7997  2026-11-23T06:00:00Z  complete        1        2        1        2  ok

    Notes:
      v1/.DS_Store is a file of a desktop, which is ignored
      v1/reports/Thumbs.db is a file of a desktop, which is ignored
      v1/snapshots/desktop.ini is a file of a desktop, which is ignored
      no snapshot names 2 objects of the run 20261124T060000Z-01234567, first v1/reports/dt=2026-11-24/account_id=111122223333/region=eu-west-1/20261124T060000Z-01234567.00000001.jsonl.gz: left by an attempt that did not finish, or by a run in progress

    The head is v1/snapshots/dt=2026-11-23/20261123T060000Z-cd9c7997.json, SHA-256 DIGEST
    ARCHIVE: 2 snapshots and 4 other objects, N bytes: sound
    status 0
    "#);
}

#[test]
fn an_object_that_cannot_be_read_is_listed_and_the_rest_is_checked() {
    let (archive, runs) = Archive::of_two_runs();
    let glacier = error(
        403,
        "InvalidObjectState",
        "The operation is not valid for the object's storage class",
    );
    let key = error(
        400,
        "KMS.DisabledException",
        "arn:aws:kms:us-east-1:111122223333:key/x is disabled.",
    );
    let answers = [
        ("entries/dt=2026-11-22", glacier),
        ("snapshots/dt=2026-11-23", key),
    ];
    let server = Server::start(archive.path(), &answers);
    let ran = run(in_s3(IN_S3, &server.endpoint));
    assert_eq!(ran.err, "");
    assert_snapshot!(without_digests(&shown(&archive, &ran)), @r#"
    snapshot                   scheduled_at          status    targets  reports  entries  objects  verdict
    20261122T060000Z-29ce4f47  2026-11-22T06:00:00Z  complete        1        2        1        2  1 not readable
    20261123T060000Z-cd9c7997  ?                     ?               ?        ?        ?        ?  1 not readable

    Not readable:
      v1/entries/dt=2026-11-22/account_id=111122223333/region=eu-west-1/20261122T060000Z-29ce4f47.0badcafe.jsonl.gz could not be read: InvalidObjectState: The operation is not valid for the object's storage class
      v1/snapshots/dt=2026-11-23/20261123T060000Z-cd9c7997.json could not be read: KMS.DisabledException: arn:aws:kms:us-east-1:111122223333:key/x is disabled.

    s3://archive/image-usage/: 2 snapshots and 1 other object, N bytes: no problem found, but 2 objects could not be read
    status 2
    "#);
    // A problem counts more.
    archive.write(&runs[0].reports, b"changed");
    let ran = run(in_s3(IN_S3, &server.endpoint));
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert!(ran.out.contains("InvalidObjectState"), "{}", ran.out);
}

#[test]
fn an_archive_of_which_no_object_can_be_read_is_not_sound() {
    let (archive, _) = Archive::of_two_runs();
    let answers = [("/image-usage/v1/", error(403, "AccessDenied", "no"))];
    let server = Server::start(archive.path(), &answers);
    let ran = run(in_s3(IN_S3, &server.endpoint));
    assert_snapshot!(shown(&archive, &ran), @r#"
    snapshot                   scheduled_at  status  targets  reports  entries  objects  verdict
    20261122T060000Z-29ce4f47  ?             ?             ?        ?        ?        ?  1 not readable
    20261123T060000Z-cd9c7997  ?             ?             ?        ?        ?        ?  1 not readable

    Not readable:
      v1/latest.json could not be read: AccessDenied: no
      v1/snapshots/dt=2026-11-22/20261122T060000Z-29ce4f47.json could not be read: AccessDenied: no
      v1/snapshots/dt=2026-11-23/20261123T060000Z-cd9c7997.json could not be read: AccessDenied: no

    s3://archive/image-usage/: 2 snapshots and 0 other objects, 0 bytes: no problem found, but 3 objects could not be read
    status 2
    "#);
}

#[test]
fn an_unreadable_file_of_a_folder_is_listed() {
    let (archive, runs) = Archive::of_two_runs();
    let file = archive.file(&runs[0].reports);
    fs::remove_file(&file).unwrap();
    // Reading a folder fails, for root too.
    std::os::unix::fs::symlink(archive.path(), &file).unwrap();
    let ran = verify(&[&archive.location()]);
    assert_eq!(ran.status, 2, "{}", ran.out);
    let expected = format!("\nNot readable:\n  {} could not be read: ", runs[0].reports);
    assert!(ran.out.contains(&expected), "{}", ran.out);
}

#[test]
fn a_bucket_in_another_region_is_named_with_it() {
    let (archive, _) = Archive::of_two_runs();
    let (_, _, body) = error(301, "PermanentRedirect", "use the specified endpoint");
    let redirect = (
        301,
        "x-amz-bucket-region: eu-central-1\r\n".to_owned(),
        body,
    );
    let server = Server::start(archive.path(), &[("list-type=2", redirect)]);
    let ran = run(in_s3(IN_S3, &server.endpoint));
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
    assert_snapshot!(ran.err.trim_end(), @"image-usage: failed to read s3://archive/image-usage/v1/: PermanentRedirect: use the specified endpoint; the bucket is in eu-central-1: set AWS_REGION=eu-central-1");
}

#[test]
fn no_region_and_no_credentials_are_clear_errors() {
    let mut without_region = in_s3(IN_S3, "http://127.0.0.1:9");
    without_region.env_remove("AWS_REGION");
    let ran = run(without_region);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
    assert_snapshot!(ran.err.trim_end(), @"image-usage: no AWS Region is configured to read s3://archive/image-usage/ with: set AWS_REGION, or `region` for the profile in ~/.aws/config");
    let mut without_credentials = in_s3(IN_S3, "http://127.0.0.1:9");
    without_credentials.env_remove("AWS_ACCESS_KEY_ID");
    let ran = run(without_credentials);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("CredentialsUnavailable"), "{}", ran.err);
}

#[test]
fn credentials_come_from_a_profiles_credential_process() {
    let (archive, _) = Archive::of_two_runs();
    let server = Server::start(archive.path(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let text = "[profile audit]\nregion = us-east-1\ncredential_process = echo '{\"Version\":1,\"AccessKeyId\":\"AKIA1\",\"SecretAccessKey\":\"s\"}'\n";
    fs::write(&config, text).unwrap();
    let mut program = program(&["verify", IN_S3]);
    program
        .env("PATH", "/usr/bin:/bin")
        .env("AWS_CONFIG_FILE", &config)
        .env("AWS_PROFILE", "audit")
        .env("AWS_ENDPOINT_URL", &server.endpoint);
    let ran = run(program);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn a_proxy_is_asked_for_every_host_but_this_one_and_those_of_no_proxy() {
    let (archive, _) = Archive::of_two_runs();
    let server = Server::start(archive.path(), &[]);
    let elsewhere = "http://s3.archive.invalid";
    let mut by_proxy = in_s3(IN_S3, elsewhere);
    by_proxy.env("HTTP_PROXY", &server.endpoint);
    let ran = run(by_proxy);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    let asked = server.asked();
    assert!(asked.len() > 5);
    for line in asked {
        assert!(line.starts_with("GET http://s3.archive.invalid"), "{line}");
    }
    // This host is asked directly: nothing listens at the proxy.
    let mut direct = in_s3(IN_S3, &server.endpoint);
    direct.env("HTTP_PROXY", "http://127.0.0.1:9");
    let ran = run(direct);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    // So is a name of NO_PROXY. This one is an address in a form that no other rule knows.
    let by_name = server.endpoint.replace("127.0.0.1", "127.1");
    let mut excepted = in_s3(IN_S3, &by_name);
    excepted
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("NO_PROXY", "127.1");
    let ran = run(excepted);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn one_json_document_for_each_archive() {
    let (archive, runs) = Archive::of_two_runs();
    fs::write(archive.file(&runs[1].entries), "x").unwrap();
    let nowhere = archive.path().join("nowhere");
    let ran = verify(&["--json", &archive.location(), nowhere.to_str().unwrap()]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    let documents: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [checked, failed] = documents.as_slice() else {
        panic!("{}", ran.out)
    };
    assert_eq!(checked["outcome"], "problems");
    assert_eq!(checked["location"], archive.location());
    let head = json!({"key": runs[1].snapshot, "sha256": archive.head, "given_before": null});
    assert_eq!(checked["head"], head);
    assert_eq!(checked["unreadable"], json!([]));
    assert_eq!(checked["problems"][0]["key"], runs[1].entries);
    let row = json!({
        "run": "20261122T060000Z-29ce4f47",
        "summary": {
            "scheduled_at": "2026-11-22T06:00:00Z", "status": "complete", "targets": 1,
            "reports": 2, "entries": 1, "objects": 2, "place": "chain"
        },
        "problems": 0,
        "unreadable": 0
    });
    assert_eq!(checked["snapshots"][0], row);
    assert_eq!(failed["outcome"], "not_readable");
    assert!(
        failed["error"].as_str().unwrap().contains("nowhere"),
        "{failed}"
    );
}

#[test]
fn several_archives_are_checked_and_the_status_is_the_worst() {
    let (sound, _) = Archive::of_two_runs();
    let (damaged, runs) = Archive::of_two_runs();
    fs::remove_file(damaged.file(&runs[0].reports)).unwrap();
    let ran = verify(&[&sound.location(), "/nowhere", &damaged.location()]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert!(ran.out.contains(": sound\n\nsnapshot"), "{}", ran.out);
    assert!(ran.out.ends_with(": 1 problem\n"), "{}", ran.out);
    assert!(ran.err.contains("/nowhere"), "{}", ran.err);
    let ran = verify(&[&sound.location(), "/nowhere"]);
    assert_eq!(ran.status, 2, "{}", ran.out);
}

#[test]
fn a_head_that_was_kept_is_found_and_another_one_is_not() {
    let (mut archive, _) = Archive::of_two_runs();
    let kept = archive.head.clone();
    archive.run(24);
    let ran = verify(&[&archive.location(), "--head", &kept.to_uppercase()]);
    assert_eq!(ran.status, 0, "{}", ran.out);
    let expected = "\nThe given one is on the chain, 1 snapshot before it\n";
    assert!(ran.out.contains(expected), "{}", ran.out);
    let other = "0".repeat(64);
    let ran = verify(&[&archive.location(), "--head", &other]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    let expected = format!("leads a chain that does not contain the snapshot {other}");
    assert!(ran.out.contains(&expected), "{}", ran.out);
    let ran = verify(&[&archive.location(), &archive.location(), "--head", &kept]);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
}

#[test]
fn texts_of_an_archive_cannot_speak_to_the_terminal() {
    let (archive, _) = Archive::of_two_runs();
    archive.write("v1/x\u{1b}[2J\u{202e}\nv1/latest.json is fine", b"");
    for arguments in [&[][..], &["--json"]] {
        let location = archive.location();
        let ran = verify(&[&[location.as_str()], arguments].concat());
        assert_eq!(ran.status, 1, "{}", ran.out);
        let is_hostile = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.out.contains(is_hostile), "{:?}", ran.out);
        assert!(!ran.out.contains("\nv1/latest.json is fine"), "{}", ran.out);
    }
    let ran = verify(&["/no\u{1b}where"]);
    assert!(ran.err.contains(r"/no\u{1b}where"), "{}", ran.err);
}

#[test]
fn a_reader_that_goes_away_is_not_an_error_message() {
    let (archive, _) = Archive::of_two_runs();
    let mut child = program(&["verify", &archive.location()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn whatever_cannot_be_checked_has_another_status() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    for arguments in [
        &[][..],
        &["/nowhere"],
        &[folder],
        &[folder, "--head", "12"],
        &[folder, "--every-hours", "0"],
        &[folder, "--every-hours", "daily"],
        &[folder, "--colour"],
        &["s3://"],
        &["s3:///x/"],
        &["s3://archive/a//b/"],
    ] {
        let ran = verify(arguments);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{arguments:?}");
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
    fs::create_dir(empty.path().join("v1")).unwrap();
    fs::write(empty.path().join("v1/.DS_Store"), "x").unwrap();
    let ran = verify(&[folder]);
    assert!(ran.err.contains("there is no archive in"), "{}", ran.err);
}

#[test]
fn the_help_has_examples_and_the_exit_statuses() {
    let ran = run(program(&["verify", "--help"]));
    assert_eq!(ran.status, 0);
    for text in ["Usage: image-usage verify", "Examples:", "Exit status:"] {
        assert!(ran.out.contains(text), "{}", ran.out);
    }
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(program(&["completions", shell]));
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{shell}");
        assert!(ran.out.contains("every-hours"), "{shell}");
    }
}
