//! How often a run allocates for each report: a number that does not depend on the machine's load.

use std::sync::mpsc;

use local_aws::{LocalAws, Report, ResourceType, Tag};
use tokio::runtime::{Builder, Runtime};

use crate::harness::{
    ACCOUNT, BUCKET, REGION, auditor, healthy_reports, run, scheduled_event, world,
};

/// The allocations of a report from EC2's answer to its line, in a run that fetches no entries: the texts
/// and lists of its fields, those of the XML reader for each element, and the line of its AMI, which no other
/// report is about. Measured: 37.4.
const MOST_PER_REPORT: f64 = 38.0;

/// The allocations of a run over this number of reports, on the thread that only the auditor uses.
fn allocations(reports: usize) -> u64 {
    let (started, endpoint) = mpsc::channel::<LocalAws>();
    let (stop, stopped) = mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = runtime(Builder::new_multi_thread().worker_threads(1));
        let world = world(&[REGION]);
        world.put_reports(ACCOUNT, REGION, healthy_reports(reports).map(with_fields));
        let aws = runtime.block_on(LocalAws::start(world)).unwrap();
        aws.create_bucket(BUCKET).unwrap();
        started.send(aws).unwrap();
        let _ = stopped.recv();
    });
    let aws = endpoint.recv().unwrap();
    let runtime = runtime(&mut Builder::new_current_thread());
    let without_entries = [("AUDITOR_ARCHIVE_ENTRIES", "false")];
    let auditor = runtime.block_on(auditor(&aws, &without_entries));
    let mut counted = 0;
    let measured = allocation_counter::measure(|| {
        let summary = runtime.block_on(run(&auditor, scheduled_event())).unwrap();
        counted = summary.counts.reports.total;
    });
    assert_eq!(counted, reports as u64);
    stop.send(()).unwrap();
    server.join().unwrap();
    measured.count_total
}

fn runtime(builder: &mut Builder) -> Runtime {
    builder.enable_all().build().unwrap()
}

/// A report with the fields that most reports have: a resource type with an option, and two tags.
fn with_fields(report: Report) -> Report {
    let templates = ResourceType::new("ec2:LaunchTemplate").option("version-depth", &["100"]);
    Report {
        resource_types: vec![templates],
        tags: vec![Tag::new("Owner", "TeamA"), Tag::new("Stage", "production")],
        ..report
    }
}

#[test]
fn a_report_takes_no_more_allocations_than_were_measured() {
    // The allocations of the run itself, such as those of its connections, cancel out.
    let (few, many) = (allocations(1_000), allocations(4_000));
    let per_report = (many as f64 - few as f64) / 3_000.0;
    println!("{per_report:.1} allocations per report");
    assert!(per_report <= MOST_PER_REPORT, "{per_report:.1}");
    assert!(per_report > 1.0, "nothing was counted");
}
