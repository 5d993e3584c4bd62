//! What the tests share: a local AWS, an auditor that calls it, and a reader of the archive.

mod archive;
mod check;
mod days;
mod oracle;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration as Wait;

use image_usage_archive::aws::Aws;
use image_usage_auditor::audit::{Answer, Auditor, Invocation, RunError, Summary};
use image_usage_auditor::settings::Settings;
use local_aws::{Clock, Entry, FaultKind, LocalAws, Report, RoleOptions, World};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

pub(crate) use self::archive::{
    Archive, found, is_object_of, line_by_line, objects_below, sha256, status, target, targets,
    text, without_attempts,
};
pub(crate) use self::days::{Days, archived};
pub(crate) use self::oracle::{expected_entries, failed, pending};
use crate::schemas;
pub(crate) use local_aws::Random;

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const BUCKET: &str = "archive";
pub(crate) const NOW: &str = "2026-11-22T06:00:05.250Z";
const ARN: &str = "arn:aws:lambda:us-east-1:111122223333:function:image-usage-auditor";

/// The run of [`scheduled_event`].
pub(crate) const RUN_ID: &str = "20261122T060000Z-7bf73129";

/// The function's own Region.
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const OTHER_REGION: &str = "eu-west-1";
pub(crate) const TWO_REGIONS: [&str; 2] = [OTHER_REGION, REGION];
pub(crate) const THREE_REGIONS: [&str; 3] = ["ap-southeast-2", OTHER_REGION, REGION];

/// The operation that lists reports.
pub(crate) const LISTING: &str = "DescribeImageUsageReports";
/// The operation that reads the entries of reports.
pub(crate) const ENTRIES: &str = "DescribeImageUsageReportEntries";

/// The faults that a second call does not meet again.
pub(crate) const TRANSIENT_FAULTS: [FaultKind; 7] = [
    FaultKind::Throttle,
    FaultKind::Status500,
    FaultKind::Status503,
    FaultKind::CloseBeforeAnswer,
    FaultKind::ResetMidBody,
    FaultKind::CutBody,
    FaultKind::MalformedXml,
];

/// The key of the copy of the newest full snapshot.
pub(crate) const LATEST: &str = "image-usage/v1/latest.json";

/// A binary of another package of the workspace, beside this one.
pub(crate) fn binary(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join(name)
}

pub(crate) fn project_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::parse(NOW, &time::format_description::well_known::Rfc3339).unwrap()
}

/// A world at [`NOW`] with these Regions.
pub(crate) fn world(regions: &[&str]) -> World {
    let regions = regions.iter().copied();
    World::builder()
        .clock(Clock::fixed(now()))
        .account(ACCOUNT)
        .regions(regions)
        .build()
}

/// A role whose credentials never expire: the SDK reads the real clock, and the world's clock is fixed.
pub(crate) fn lasting_role(name: &str) -> RoleOptions {
    RoleOptions {
        name: name.to_owned(),
        lifetime: Some(Duration::days(36_500)),
        ..RoleOptions::default()
    }
}

/// A local AWS with an empty archive; at the end, every document in it must match its schema.
pub(crate) async fn local_aws(world: &World) -> LocalAws {
    let mut aws = LocalAws::start(world.clone()).await.unwrap();
    aws.create_bucket(BUCKET).unwrap();
    aws.look_in_the_end(|root| schemas::check_folder(&root.join(BUCKET)));
    aws
}

/// Turns off the check of the schemas, because the test damages the archive.
pub(crate) fn will_be_harmed(aws: &mut LocalAws) {
    aws.look_in_the_end(|_| {});
}

/// A healthy report with this ID.
pub(crate) fn report(id: &str) -> Report {
    Report {
        image_id: Some("ami-0abcdef1234567890".to_owned()),
        report_id: Some(id.to_owned()),
        state: Some("available".to_owned()),
        creation_time: Some(now() - Duration::days(10)),
        expiration_time: Some(now() + Duration::days(20)),
        ..Report::default()
    }
}

pub(crate) fn healthy_reports(count: usize) -> impl Iterator<Item = Report> {
    (0..count).map(|number| report(&format!("amiur-{number:017x}")))
}

/// A healthy report with this number of entries, each of another account.
pub(crate) fn used(id: &str, entries: usize) -> Report {
    let entries = (0..entries).map(|place| {
        let account = format!("{:012}", 444_455_556_666 + place);
        usage(&account, "ec2:Instance", 1 + place as i64)
    });
    Report {
        entries: entries.collect(),
        ..report(id)
    }
}

pub(crate) fn usage(account: &str, resource_type: &str, usage_count: i64) -> Entry {
    Entry {
        account_id: Some(account.to_owned()),
        resource_type: Some(resource_type.to_owned()),
        usage_count: Some(usage_count),
    }
}

/// States what matters about a report.
pub(crate) trait But: Sized {
    fn in_state(self, state: &str) -> Self;
    fn expiring_in(self, left: Duration) -> Self;
    fn created_ago(self, age: Duration) -> Self;
    fn of_image(self, image_id: &str) -> Self;
}

impl But for Report {
    fn in_state(mut self, state: &str) -> Self {
        self.state = Some(state.to_owned());
        self
    }

    fn expiring_in(mut self, left: Duration) -> Self {
        self.expiration_time = Some(now() + left);
        self
    }

    fn created_ago(mut self, age: Duration) -> Self {
        self.creation_time = Some(now() - age);
        self
    }

    fn of_image(mut self, image_id: &str) -> Self {
        self.image_id = Some(image_id.to_owned());
        self
    }
}

/// Replaces an object, as anyone with write access to the bucket can.
pub(crate) fn overwrite(aws: &LocalAws, key: &str, bytes: &[u8]) {
    let address = aws.endpoint().replace("http://", "");
    let mut connection = TcpStream::connect(&address).unwrap();
    let head = format!(
        "PUT /{BUCKET}/{key} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(bytes).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

pub(crate) async fn auditor(aws: &LocalAws, variables: &[(&str, &str)]) -> Auditor {
    auditor_at(aws, REGION, variables).await
}

/// An auditor whose function runs in the Region `home`.
pub(crate) async fn auditor_at(aws: &LocalAws, home: &str, variables: &[(&str, &str)]) -> Auditor {
    let variables: BTreeMap<&str, &str> = [("AUDITOR_ARCHIVE_BUCKET", BUCKET)]
        .into_iter()
        .chain(variables.iter().copied())
        .collect();
    let settings =
        Settings::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()))
            .unwrap();
    let home = home.parse().unwrap();
    let access_key_id = format!("AKIA{ACCOUNT}");
    let client = Aws::at_endpoint(&aws.endpoint(), &home, &access_key_id).await;
    Auditor::new(settings, &client, home, "image-usage-auditor".to_owned())
}

pub(crate) fn invocation() -> Invocation {
    Invocation {
        request_id: "0d6a6b3f-5b0e-4f7f-8d9c-3f1f9a1c2b4d".to_owned(),
        function_arn: ARN.to_owned(),
        started_at: NOW.parse().unwrap(),
        time_left: None,
    }
}

pub(crate) fn scheduled_event() -> Value {
    json!({
        "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602", "detail-type": "Scheduled Event",
        "source": "aws.events", "account": ACCOUNT, "time": "2026-11-22T06:00:00Z", "region": "us-east-1",
        "resources": [], "detail": {}
    })
}

/// A scheduled event of another moment than that of [`scheduled_event`]; each moment has an event of its own.
pub(crate) fn event_at(time: OffsetDateTime) -> Value {
    let time = local_aws::timestamp(time);
    let mut event = scheduled_event();
    event["id"] = json!(format!("the event of {time}"));
    event["time"] = json!(time);
    event
}

pub(crate) fn invocation_at(time: OffsetDateTime) -> Invocation {
    Invocation {
        started_at: local_aws::timestamp(time).parse().unwrap(),
        ..invocation()
    }
}

/// The summary of a run's answer.
pub(crate) fn summary_of(answer: Answer) -> Summary {
    match answer {
        Answer::Summary(summary) => *summary,
        other => panic!("the request was for a run: {other:?}"),
    }
}

/// Runs the scheduled audit of this moment.
pub(crate) async fn run_at(auditor: &Auditor, time: OffsetDateTime) -> Result<Summary, RunError> {
    let answer = auditor.handle(event_at(time), invocation_at(time)).await?;
    Ok(summary_of(answer))
}

/// Runs the scheduled audit of this moment with a deadline.
pub(crate) async fn run_within(
    auditor: &Auditor,
    time: OffsetDateTime,
    time_left: Wait,
) -> Result<Summary, RunError> {
    let invocation = Invocation {
        time_left: Some(time_left),
        ..invocation_at(time)
    };
    Ok(summary_of(
        auditor.handle(event_at(time), invocation).await?,
    ))
}

pub(crate) async fn run(auditor: &Auditor, payload: Value) -> Result<Summary, RunError> {
    Ok(summary_of(auditor.handle(payload, invocation()).await?))
}

/// Waits until a condition holds.
pub(crate) async fn until(mut has_happened: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if has_happened() {
            return;
        }
        tokio::time::sleep(Wait::from_millis(1)).await;
    }
    panic!("it never happened");
}

/// The scheduled audit of the listed Regions.
pub(crate) async fn audit(aws: &LocalAws, regions: &str) -> (Summary, Archive) {
    let auditor = auditor(aws, &[("AUDITOR_REGIONS", regions)]).await;
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    (summary, Archive::of(aws))
}

/// The snapshot of a run, checked against what EC2 holds.
pub(crate) fn checked(aws: &LocalAws, summary: &Summary) -> Value {
    let archive = Archive::of(aws);
    let snapshot = archive.snapshot(summary);
    archive.check(&snapshot, aws.world());
    snapshot
}

/// The calls of one operation so far.
pub(crate) fn count_calls(aws: &LocalAws, operation: &str) -> usize {
    let calls = aws.calls();
    let of_operation = calls.iter().filter(|call| call.operation == operation);
    of_operation.count()
}
