//! What the tests share: a local AWS, an auditor that talks to it, and a reader of the archive.

mod archive;
mod oracle;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use image_usage_archive::aws::Aws;
use image_usage_auditor::audit::{Answer, Auditor, Invocation, RunError, Summary};
use image_usage_auditor::settings::Settings;
use local_aws::{Clock, LocalAws, Report, World};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

pub(crate) use self::archive::{Archive, is_object_of, target, text, without_attempts};
pub(crate) use self::oracle::expected_entries;
use crate::schemas;

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const BUCKET: &str = "archive";
pub(crate) const NOW: &str = "2026-11-22T06:00:05.250Z";
const ARN: &str = "arn:aws:lambda:us-east-1:111122223333:function:image-usage-auditor";

/// A binary of another package of the workspace, beside this one.
pub(crate) fn binary(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join(name)
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

/// A local AWS with an empty archive; in the end every document there has to be as its schema says.
pub(crate) async fn local_aws(world: &World) -> LocalAws {
    let mut aws = LocalAws::start(world.clone()).await.unwrap();
    aws.create_bucket(BUCKET).unwrap();
    aws.look_in_the_end(|root| schemas::check_folder(&root.join(BUCKET)));
    aws
}

/// Says that a test harms the archive, so that its documents needn't be as their schemas say.
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

/// Puts an object in the place of another, as whoever may write to the bucket can.
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
    auditor_at(aws, "us-east-1", variables).await
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

/// A scheduled event of another day than [`scheduled_event`]'s; each moment has an event of its own.
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

/// The scheduled audit of the moment that a world's clock shows.
pub(crate) async fn run_at(auditor: &Auditor, time: OffsetDateTime) -> Result<Summary, RunError> {
    match auditor.handle(event_at(time), invocation_at(time)).await? {
        Answer::Summary(summary) => Ok(*summary),
        Answer::Preflight(_) => panic!("a run was asked for"),
    }
}

pub(crate) async fn run(auditor: &Auditor, payload: Value) -> Result<Summary, RunError> {
    match auditor.handle(payload, invocation()).await? {
        Answer::Summary(summary) => Ok(*summary),
        Answer::Preflight(_) => panic!("a run was asked for"),
    }
}

/// Waits until something has come to pass.
pub(crate) async fn until(mut has_happened: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if has_happened() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it never happened");
}

/// The audit of every listed Region, scheduled.
pub(crate) async fn audit(aws: &LocalAws, regions: &str) -> (Summary, Archive) {
    let auditor = auditor(aws, &[("AUDITOR_REGIONS", regions)]).await;
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    (summary, Archive::of(aws))
}

/// The calls of one operation so far.
pub(crate) fn count_calls(aws: &LocalAws, operation: &str) -> usize {
    aws.calls()
        .iter()
        .filter(|call| call.operation == operation)
        .count()
}

pub(crate) fn project_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
