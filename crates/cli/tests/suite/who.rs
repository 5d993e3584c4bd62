//! `image-usage who` and `image-usage images`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::Value;

use crate::archive::Archive;
use crate::images_of_runs::{GOING, IN_USE};
use crate::verify::{Ran, program, run};

const OTHER: &str = "ami-0123456789abcdef0";

fn who(archive: &Archive, arguments: &[&str]) -> Ran {
    let location = archive.location();
    run(program(
        &[&["who"], arguments, &[location.as_str()]].concat(),
    ))
}

fn images(archive: &Archive, arguments: &[&str]) -> Ran {
    let location = archive.location();
    run(program(
        &[&["images", location.as_str()], arguments].concat(),
    ))
}

#[test]
fn the_answer_has_the_consumers_the_consequences_the_blind_spots_and_the_evidence() {
    let (archive, _) = Archive::with_images();
    let answer = who(&archive, &[IN_USE]);
    assert_eq!((answer.status, answer.err.as_str()), (0, ""));
    assert_snapshot!(answer.out, @r#"
    ami-0abcdef1234567890 in 111122223333/eu-west-1: in use
      as of 2026-11-22T06:00:00Z, by the run of 2026-11-23T06:00:00Z

    Accounts that use or have used it
      account       type                           count  first observed            last observed
      444455556666  ec2:Instance                       3  2026-11-21T06:00:00Z      2026-11-22T06:00:00Z

    What was looked at
      reports that EC2 lists: 1 available, 0 pending, 1 failed, 0 in another state
      adequate reports in an uninterrupted series: 2, from 2026-11-21T06:00:00Z to 2026-11-22T06:00:00Z
      coverage: covered: a report that could show any use is recent
      references in its own account: not checked

    The evidence
      amiur-22-0
        image-usage/v1/entries/dt=2026-11-22/account_id=111122223333/region=eu-west-1/20261122T060000Z-29ce4f47.0badcafe.jsonl.gz
        SHA-256 c46381d02960a71f78701778a1c27eeee0a8a8edf234bf655267c58b6a00a2e0
      amiur-23-0
        image-usage/v1/entries/dt=2026-11-23/account_id=111122223333/region=eu-west-1/20261123T060000Z-cd9c7997.0badcafe.jsonl.gz
        SHA-256 65a33a7bf586a30fc425b9d9fbc96681dcf86ea16e33e49923cdbafd5eed047d

    If it goes
      instances that run keep running, and cannot be replaced
      launch templates, Auto Scaling groups and SSM parameters that name it fail at the next launch
      Image Builder recipes that build on it fail at the next build

    What nothing here can see
      launch configurations, and overrides of Auto Scaling groups and fleets
      AMI IDs that are written in code or in templates that are not deployed
      selection of an AMI by its name or its tags
      SSM parameters of other accounts
      copies of the AMI, which are AMIs of their own
      accounts that have lost the permission to launch it
      whoever launches a public AMI without standing in a report
    "#);
}

#[test]
fn an_ami_that_no_longer_exists_is_gone() {
    let (archive, _) = Archive::with_images();
    let answer = who(&archive, &[GOING]);
    assert_eq!(answer.status, 0);
    assert!(answer.out.contains("it no longer exists"), "{}", answer.out);
    assert!(!answer.out.contains("If it goes"), "{}", answer.out);
}

#[test]
fn an_ami_that_the_archive_does_not_know_is_unknown_and_the_answer_says_where_was_looked() {
    let (archive, _) = Archive::with_images();
    let answer = who(&archive, &[OTHER]);
    assert_eq!(answer.status, 2);
    assert_snapshot!(answer.out, @r#"
    ami-0123456789abcdef0: not known. The run of 2026-11-23T06:00:00Z looked at:
      111122223333/eu-west-1  read
    "#);
    let answer = who(&archive, &[OTHER, "--json"]);
    let document: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(
        (answer.status, &document["verdict"]),
        (2, &Value::from("unknown"))
    );
    assert_eq!(document["looked_at"][0]["status"], "complete");
}

#[test]
fn the_gate_opens_only_if_nobody_was_observed_to_use_any_of_the_amis() {
    let (archive, _) = Archive::with_images();
    for (ids, status) in [
        (&[IN_USE][..], 1),
        (&[GOING], 2),
        (&[OTHER], 2),
        (&[OTHER, IN_USE], 1),
        (&[GOING, OTHER], 2),
    ] {
        let answer = who(&archive, &[ids, &["--gate"]].concat());
        assert_eq!(answer.status, status, "{ids:?}");
    }
}

#[test]
fn an_argument_that_is_no_ami_and_a_missing_archive_are_named() {
    let (archive, _) = Archive::with_images();
    for wrong in ["ami-0abcdef123456789", "ami-0ABCDEF1234567890", "ami-"] {
        let answer = who(&archive, &[wrong]);
        assert_eq!(answer.status, 2);
        assert!(
            answer.err.contains(&format!("`{wrong}` is not an AMI ID")),
            "{}",
            answer.err
        );
    }
    let answer = run(program(&["who", IN_USE]));
    assert_eq!(answer.status, 2);
    assert!(answer.err.contains("no archive is given"), "{}", answer.err);
    let mut named = program(&["who", IN_USE]);
    named.env("IMAGE_USAGE_ARCHIVE", archive.location());
    assert_eq!(run(named).status, 0);
}

#[test]
fn two_hundred_amis_can_come_from_the_standard_input() {
    let (archive, _) = Archive::with_images();
    let ids: String = (0..200)
        .map(|number| format!("ami-{number:017x}\n"))
        .collect();
    let location = archive.location();
    let mut program = program(&["who", "--json", "-", &location]);
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{IN_USE}\n\n{ids}").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().lines().count(),
        201
    );
}

#[test]
fn an_archive_of_a_version_without_verdicts_says_so() {
    let (archive, _) = Archive::of_two_runs();
    let answer = who(&archive, &[IN_USE]);
    assert_eq!(answer.status, 2);
    assert!(
        answer
            .out
            .contains("no AMI at all: it was an older version"),
        "{}",
        answer.out
    );
    let answer = images(&archive, &[]);
    assert_eq!(answer.status, 2);
    assert!(answer.err.contains("gave no verdicts"), "{}", answer.err);
}

#[test]
fn a_folder_that_is_no_archive_and_a_damaged_snapshot_give_no_answer() {
    let (archive, _) = Archive::with_images();
    fs::write(archive.file("v1/latest.json"), "{}").unwrap();
    let answer = who(&archive, &[IN_USE]);
    assert_eq!(answer.status, 2);
    assert!(
        answer.err.contains("v1/latest.json is not a snapshot"),
        "{}",
        answer.err
    );
    fs::remove_file(archive.file("v1/latest.json")).unwrap();
    let answer = who(&archive, &[IN_USE]);
    assert_eq!(answer.status, 2);
    assert!(
        answer.err.contains("has no v1/latest.json"),
        "{}",
        answer.err
    );
}

#[test]
fn what_is_missing_or_changed_gives_no_answer_and_is_named() {
    for is_missing in [true, false] {
        let (archive, [_, last]) = Archive::with_images();
        let path = archive.file(&last.images);
        if is_missing {
            fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = fs::read(&path).unwrap();
            let end = bytes.len() - 1;
            bytes[end] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        let answer = who(&archive, &[IN_USE, "--gate"]);
        assert_eq!(answer.status, 2, "{}", answer.out);
        assert!(answer.out.contains("may say more"), "{}", answer.out);
        assert!(answer.out.contains(&last.images), "{}", answer.out);
        let table = images(&archive, &[]);
        assert_eq!(table.status, 2);
        assert!(table.err.contains(&last.images), "{}", table.err);
    }
}

#[test]
fn the_history_has_the_verdict_of_every_run_oldest_first() {
    let (archive, _) = Archive::with_images();
    let answer = who(&archive, &[GOING, "--history"]);
    assert_eq!((answer.status, answer.err.as_str()), (0, ""));
    assert_snapshot!(answer.out, @r#"
    2026-11-22T06:00:00Z  ami-0fffffffffffffff0  111122223333/eu-west-1  unknown           last observed never                     image_too_young no_report
    2026-11-23T06:00:00Z  ami-0fffffffffffffff0  111122223333/eu-west-1  gone              last observed never
    "#);
}

#[test]
fn the_table_has_every_ami_and_can_be_narrowed() {
    let (archive, _) = Archive::with_images();
    let table = images(&archive, &[]);
    assert_eq!((table.status, table.err.as_str()), (0, ""));
    assert_snapshot!(table.out, @r#"
    account_id    region     image_id               name  verdict  coverage  last_observed         consumers  reasons
    111122223333  eu-west-1  ami-0abcdef1234567890        in_use   covered   2026-11-22T06:00:00Z  1
    111122223333  eu-west-1  ami-0fffffffffffffff0        gone                                     0

    What nothing here can see
      launch configurations, and overrides of Auto Scaling groups and fleets
      AMI IDs that are written in code or in templates that are not deployed
      selection of an AMI by its name or its tags
      SSM parameters of other accounts
      copies of the AMI, which are AMIs of their own
      accounts that have lost the permission to launch it
      whoever launches a public AMI without standing in a report
    "#);
    for (arguments, amis) in [
        (&["--verdict", "in_use"][..], 1),
        (&["--verdict", "in_use", "--verdict", "gone"], 2),
        (&["--region", "us-east-1"], 0),
        (&["--account", "111122223333", "--region", "eu-west-1"], 2),
    ] {
        let table = images(&archive, arguments);
        assert_eq!(table.status, 0);
        assert_eq!(
            table.out.matches("eu-west-1").count(),
            amis,
            "{arguments:?}"
        );
    }
    let refused = images(&archive, &["--verdict", "idle"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.err.contains("use one of gone, in_use"),
        "{}",
        refused.err
    );
}

#[test]
fn a_target_whose_amis_were_not_read_is_named_by_the_table_and_not_taken_for_empty() {
    let (archive, [_, last]) = Archive::with_images();
    let snapshot = fs::read_to_string(archive.file(&last.snapshot)).unwrap();
    let unread = snapshot.replace("\"images_read\":1", "\"images_read\":null");
    assert_ne!(unread, snapshot);
    fs::write(archive.file("v1/latest.json"), unread).unwrap();
    let table = images(&archive, &[]);
    assert_eq!(table.status, 2);
    assert!(
        table.err.contains("111122223333/eu-west-1 was not read"),
        "{}",
        table.err
    );
    let answer = who(&archive, &[OTHER]);
    assert!(
        answer.out.contains("not read; only what earlier runs knew"),
        "{}",
        answer.out
    );
}

#[test]
fn the_table_for_a_spreadsheet_quotes_every_cell() {
    let (archive, _) = Archive::with_images();
    let table = images(&archive, &["--csv"]);
    let lines: Vec<&str> = table.out.split("\r\n").collect();
    assert_eq!(lines.len(), 4, "a header, two AMIs, and the end");
    assert!(lines[1].starts_with(&format!("\"111122223333\",\"eu-west-1\",\"{IN_USE}\",")));
}
