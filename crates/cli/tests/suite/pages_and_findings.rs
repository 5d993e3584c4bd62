//! `image-usage page` and `image-usage findings`.

use std::fs;

use insta::assert_snapshot;

use crate::archive::Archive;
use crate::verify::{Ran, program, run};

fn findings(archive: &Archive, arguments: &[&str]) -> Ran {
    let location = archive.location();
    run(program(
        &[&["findings", location.as_str()], arguments].concat(),
    ))
}

fn page(archive: &Archive, arguments: &[&str]) -> Ran {
    let location = archive.location();
    run(program(&[&["page", location.as_str()], arguments].concat()))
}

/// The run of a snapshot, by its key.
fn run_id(snapshot: &str) -> &str {
    let name = snapshot.rsplit('/').next().unwrap();
    name.strip_suffix(".json").unwrap()
}

#[test]
fn the_findings_of_reports_and_amis_are_listed() {
    let (archive, [first, _]) = Archive::with_images();
    let listed = findings(&archive, &[]);
    assert_eq!((listed.status, listed.err.as_str()), (0, ""));
    assert_snapshot!(listed.out, @"
    kind    account_id    region     report_id   image_id               state  creation_time         expiration_time       entries_archived  message                                            tags
    failed  111122223333  eu-west-1  amiur-23-1  ami-0abcdef1234567890  error  2026-11-22T06:00:00Z  2026-12-22T06:00:00Z                    EC2 failed to create the report, without a reason
    ");
    let earlier = findings(&archive, &["--run", run_id(&first.snapshot), "--csv"]);
    assert_eq!((earlier.status, earlier.err.as_str()), (0, ""));
    assert_snapshot!(earlier.out.replace("\r\n", "\n"), @r#"
    "kind","account_id","region","report_id","image_id","state","creation_time","expiration_time","entries_archived","message","tags"
    "failed","111122223333","eu-west-1","amiur-22-1","ami-0abcdef1234567890","error","2026-11-21T06:00:00Z","2026-12-21T06:00:00Z","","EC2 failed to create the report, without a reason",""
    "uncovered","111122223333","eu-west-1","","ami-0fffffffffffffff0","","","","","EC2 lists no report about the AMI: request one, or set AUDITOR_RENEW_REPORTS",""
    "#);
    let none = findings(&archive, &["--kind", "stuck", "--csv"]);
    assert_eq!((none.status, none.out.lines().count()), (0, 1));
    let elsewhere = findings(&archive, &["--region", "eu-west-2", "--csv"]);
    assert_eq!((elsewhere.status, elsewhere.out.lines().count()), (0, 1));
}

#[test]
fn an_unknown_kind_is_answered_with_those_that_there_are() {
    let (archive, _) = Archive::with_images();
    let refused = findings(&archive, &["--kind", "stale"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.err.contains("use one of unarchived, failed"),
        "{}",
        refused.err
    );
}

#[test]
fn an_object_that_is_lost_leaves_findings_out_and_says_so() {
    let (archive, [_, run]) = Archive::with_images();
    fs::remove_file(archive.file(&run.reports)).unwrap();
    let listed = findings(&archive, &[]);
    assert_eq!(listed.status, 2);
    assert!(listed.err.contains("is missing"), "{}", listed.err);
    let drawn = page(&archive, &["-o", "-"]);
    assert_eq!(drawn.status, 2);
    assert!(drawn.err.contains("not on the page: "), "{}", drawn.err);
    assert!(drawn.out.starts_with("<!DOCTYPE html>"));
}

#[test]
fn the_page_of_any_run_goes_to_a_file_or_to_the_standard_output() {
    let (archive, [first, second]) = Archive::with_images();
    let file = archive.file("page.html");
    let written = page(&archive, &["-o", file.to_str().unwrap()]);
    assert_eq!(
        (written.status, written.out.as_str(), written.err.as_str()),
        (0, "", "")
    );
    let newest = fs::read_to_string(file).unwrap();
    assert!(newest.contains(run_id(&second.snapshot)) && newest.contains(&archive.head));
    let earlier = page(&archive, &["--run", run_id(&first.snapshot), "-o", "-"]);
    assert_eq!(earlier.status, 0);
    assert!(
        earlier
            .out
            .contains("There is no earlier run to compare with.")
    );
}

#[test]
fn a_run_that_there_is_not_and_a_file_that_cannot_be_written_are_named() {
    let (archive, [first, second]) = Archive::with_images();
    let unknown = page(&archive, &["--run", "20261122T060000Z-00000000", "-o", "-"]);
    assert_eq!((unknown.status, unknown.out.as_str()), (2, ""));
    let newest = format!(
        "has no run 20261122T060000Z-00000000; its newest are {}, {}",
        run_id(&second.snapshot),
        run_id(&first.snapshot)
    );
    assert!(unknown.err.contains(&newest), "{}", unknown.err);
    let malformed = page(&archive, &["--run", "yesterday", "-o", "-"]);
    assert_eq!(malformed.status, 2);
    let unwritable = page(&archive, &["-o", "/nowhere/page.html"]);
    assert_eq!(unwritable.status, 2);
    assert!(
        unwritable
            .err
            .contains("failed to write /nowhere/page.html"),
        "{}",
        unwritable.err
    );
}

#[test]
fn pages_are_part_of_an_archive_that_nothing_rests_on() {
    let (archive, [first, _]) = Archive::with_images();
    let before = run(program(&["verify", &archive.location()]));
    let key = first
        .snapshot
        .replace("snapshots", "pages")
        .replace(".json", ".html");
    archive.write(&key, b"<p>anything</p>");
    archive.write("v1/latest.html", b"<p>anything</p>");
    let after = run(program(&["verify", &archive.location()]));
    assert_eq!(after.status, 0, "{}", after.out);
    let objects = |ran: &Ran| ran.out.rsplit(": ").nth(1).map(str::to_owned);
    assert_eq!(
        objects(&before).map(|text| text.replace(char::is_numeric, "")),
        objects(&after).map(|text| text.replace(char::is_numeric, ""))
    );
    archive.write("v1/pages/notes.html", b"<p>anything</p>");
    let strange = run(program(&["verify", &archive.location()]));
    assert_eq!(strange.status, 1);
    assert!(
        strange
            .out
            .contains("is not an object that the auditor writes"),
        "{}",
        strange.out
    );
}
