//! `image-usage plan`, and `image-usage images --uncovered`.

use std::fs;

use image_usage_archive::documents::{ImageFields, ImageLine, ImageReading, References};
use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::{SECONDS_PER_DAY, Timestamp};
use image_usage_archive::domain::usage::{
    CoverageRules, ImageUsage, ReferencesLook, ReportsListed,
};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::archive::Archive;
use crate::images_of_runs::{adequate_types, written};
use crate::verify::{Ran, program, run};

/// The start of the newest run.
const RUN: &str = "2026-11-23T06:00:00Z";
const NEXT_RUN: &str = "2026-11-24T06:00:00Z";

/// The reports of an AMI: their states, and their ages at the newest run in days.
type Reports = &'static [(&'static str, i64)];

fn line(image_id: &str, name: &str, reports: Reports) -> ImageLine {
    let started_at: Timestamp = RUN.parse().unwrap();
    let target = Target {
        account_id: "111122223333".parse().unwrap(),
        region: "eu-west-1".parse().unwrap(),
    };
    let mut listed = ReportsListed::default();
    for (state, days) in reports {
        let report = UsageReport {
            report_id: Some(format!("amiur-{days}")),
            image_id: Some(image_id.to_owned()),
            state: Some(ReportState::from(*state)),
            creation_time: Some(started_at.plus_seconds(-days * SECONDS_PER_DAY)),
            resource_types: adequate_types(),
            ..UsageReport::default()
        };
        listed.add(&report, true);
    }
    let read = ImageReading {
        started_at,
        observation_days: 30,
        is_target_read: true,
        are_images_read: true,
        image: Some(ImageFields {
            name: Some(name.to_owned()),
            ..ImageFields::default()
        }),
        reports: listed,
        references_look: ReferencesLook::NotWanted,
        references: References::default(),
        coverage_rules: CoverageRules {
            renew_after_days: 7,
            pending_limit_hours: 24,
            ..CoverageRules::default()
        },
    };
    ImageLine::new(&target, image_id.to_owned(), &ImageUsage::default(), read)
}

/// An archive whose newest run has these lines.
fn archive_of(lines: &[ImageLine], change: impl FnOnce(&mut Value)) -> Archive {
    let (archive, [_, last]) = Archive::with_images();
    let object = archive.write_lines(
        &format!("image-usage/{}", last.images),
        &written(lines),
        lines.len() as u64,
    );
    let latest = fs::read(archive.file("v1/latest.json")).unwrap();
    let mut latest: Value = serde_json::from_slice(&latest).unwrap();
    latest["targets"][0]["images_object"] = json!(object);
    change(&mut latest);
    archive.write("v1/latest.json", latest.to_string().as_bytes());
    archive
}

fn eight_images() -> Vec<ImageLine> {
    let table: [(&str, &str, Reports); 8] = [
        ("ami-1", "recent", &[("available", 2)]),
        ("ami-2", "a week old", &[("available", 7)]),
        ("ami-3", "old", &[("available", 20)]),
        ("ami-4", "new", &[]),
        ("ami-5", "pending", &[("pending", 0), ("available", 9)]),
        (
            "ami-6",
            "failing",
            &[("error", 0), ("error", 1), ("error", 2)],
        ),
        ("ami-7", "due tomorrow", &[("available", 6)]),
        ("ami-8", "failed long ago", &[("error", 9)]),
    ];
    table
        .map(|(id, name, reports)| line(id, name, reports))
        .into()
}

fn renewals(requested: u64, failed: u64) -> Value {
    let refused = json!({"code": "IncorrectState", "message": "no", "request_id": null});
    let error = if failed > 0 { refused } else { Value::Null };
    json!({"requested": requested, "deferred": 0, "failed": failed, "error": error})
}

fn plan(archive: &Archive, arguments: &[&str]) -> Ran {
    let location = archive.location();
    run(program(&[&["plan", location.as_str()], arguments].concat()))
}

#[test]
fn the_plan_has_the_amis_that_are_due_in_order_and_those_that_wait_after_failures() {
    let archive = archive_of(&eight_images(), |_| {});
    let planned = plan(&archive, &["--at", NEXT_RUN]);
    assert_eq!((planned.status, planned.err.as_str()), (0, ""));
    assert_snapshot!(planned.out, @r#"
    account_id    region     image_id  name             asked                      why
    111122223333  eu-west-1  ami-4     new              next run                   EC2 lists no report about the AMI
    111122223333  eu-west-1  ami-8     failed long ago  next run                   the newest report failed
    111122223333  eu-west-1  ami-3     old              next run                   the newest report that covers everything is 21 days 0 hours old
    111122223333  eu-west-1  ami-2     a week old       next run                   the newest report that covers everything is 8 days 0 hours old
    111122223333  eu-west-1  ami-7     due tomorrow     next run                   the newest report that covers everything is 7 days 0 hours old
    111122223333  eu-west-1  ami-6     failing          from 2026-11-25T06:00:00Z  the newest report failed

    AUDITOR_RENEW_REPORTS was not true in 20261123T060000Z-cd9c7997: with it, a run at this time would ask EC2 for 5 reports.
    Waiting after failed reports, until the time in the table: 1
    With a pending report, beside which EC2 accepts no other: 1
    "#);
}

#[test]
fn what_the_newest_run_has_asked_for_is_not_planned_again() {
    let archive = archive_of(&eight_images(), |latest| {
        latest["policy"]["renew_reports"] = json!(true);
        latest["targets"][0]["renewals"] = renewals(2, 1);
    });
    let planned = plan(&archive, &["--at", NEXT_RUN]);
    assert_snapshot!(planned.out, @r#"
    account_id    region     image_id  name          asked                      why
    111122223333  eu-west-1  ami-2     a week old    next run                   the newest report that covers everything is 8 days 0 hours old
    111122223333  eu-west-1  ami-7     due tomorrow  next run                   the newest report that covers everything is 7 days 0 hours old
    111122223333  eu-west-1  ami-6     failing       from 2026-11-25T06:00:00Z  the newest report failed

    The next run asks EC2 for 2 reports.
    Waiting after failed reports, until the time in the table: 1
    With a pending report, beside which EC2 accepts no other: 1
    Asked for by 20261123T060000Z-cd9c7997, after it wrote its lines: 3, of which EC2 refused 1: the next run asks for those again
    "#);
}

#[test]
fn a_plan_has_at_most_500_amis_of_an_account_and_region() {
    let lines: Vec<ImageLine> = (0..620)
        .map(|number| line(&format!("ami-{number:03}"), "", &[]))
        .collect();
    let archive = archive_of(&lines, |_| {});
    let planned = plan(&archive, &["--at", NEXT_RUN]);
    assert_eq!(
        planned.out.matches("next run  EC2 lists no report").count(),
        500
    );
    assert!(
        planned.out.contains("in an account and Region: 120\n"),
        "{}",
        planned.out
    );
    let elsewhere = plan(&archive, &["--at", NEXT_RUN, "--region", "us-east-1"]);
    assert!(
        elsewhere.out.contains("ask EC2 for 0 reports"),
        "{}",
        elsewhere.out
    );
}

#[test]
fn what_was_not_read_is_named_and_not_taken_for_covered() {
    let archive = archive_of(&eight_images(), |latest| {
        latest["targets"][0]["images_read"] = Value::Null;
    });
    let planned = plan(&archive, &["--at", NEXT_RUN]);
    assert_eq!(planned.status, 2);
    assert_snapshot!(planned.err, @"image-usage: 111122223333/eu-west-1 was not read: what the next run would ask for there is not known");
    let (old, _) = Archive::of_two_runs();
    let planned = plan(&old, &[]);
    assert_eq!(planned.status, 2);
    assert_snapshot!(planned.err, @"image-usage: the run 20261123T060000Z-cd9c7997 knows nothing of AMIs: it was an older version, or AUDITOR_IMAGES was false");
    let planned = plan(&archive, &["--at", "tomorrow"]);
    assert_eq!(planned.status, 2);
    assert!(
        planned.err.contains("is not an RFC 3339 time such as"),
        "{}",
        planned.err
    );
}

#[test]
fn the_table_of_amis_can_be_narrowed_to_those_that_no_report_covers() {
    let archive = archive_of(&eight_images(), |_| {});
    let location = archive.location();
    let table = run(program(&["images", &location, "--uncovered"]));
    assert_eq!(table.status, 0);
    let rows = table.out.lines().take_while(|line| !line.is_empty());
    assert_snapshot!(rows.collect::<Vec<_>>().join("\n"), @r#"
    account_id    region     image_id  name             verdict  coverage   last_observed  consumers  reasons
    111122223333  eu-west-1  ami-3     old              unknown  uncovered                 0          image_too_young observed_too_briefly
    111122223333  eu-west-1  ami-4     new              unknown  uncovered                 0          image_too_young no_report
    111122223333  eu-west-1  ami-6     failing          unknown  uncovered                 0          image_too_young report_failed
    111122223333  eu-west-1  ami-8     failed long ago  unknown  uncovered                 0          image_too_young report_failed
    "#);
}
