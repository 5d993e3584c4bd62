//! How often a run allocates for each report: a number that no busy machine changes.

use std::sync::mpsc;

use local_aws::{LocalAws, Report, World};
use time::Duration;

use crate::harness::{ACCOUNT, BUCKET, auditor, healthy_reports, now, run, scheduled_event};

/// A report takes so many allocations from EC2's answer to its line, in a run that fetches no entries: the
/// texts and lists of its members, which this project's types take over from the SDK's. Measured: 17.3.
const MOST_PER_REPORT: f64 = 18.0;

/// The allocations of a run over so many reports, on the thread that the auditor has for itself.
fn allocations(reports: usize) -> u64 {
    let (started, endpoint) = mpsc::channel::<LocalAws>();
    let (stop, stopped) = mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let world = World::builder()
            .clock(local_aws::Clock::fixed(now()))
            .account(ACCOUNT)
            .regions(["us-east-1"])
            .build();
        world.put_reports(
            ACCOUNT,
            "us-east-1",
            healthy_reports(reports).map(with_members),
        );
        let aws = runtime.block_on(LocalAws::start(world)).unwrap();
        aws.create_bucket(BUCKET).unwrap();
        started.send(aws).unwrap();
        let _ = stopped.recv();
    });
    let aws = endpoint.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
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

/// What reports have as a rule: a resource type with an option, and two tags.
fn with_members(report: Report) -> Report {
    Report {
        expiration_time: Some(now() + Duration::days(20)),
        resource_types: vec![
            local_aws::ResourceType::new("ec2:LaunchTemplate").option("version-depth", &["100"]),
        ],
        tags: vec![
            local_aws::Tag::new("Owner", "TeamA"),
            local_aws::Tag::new("Stage", "production"),
        ],
        ..report
    }
}

#[test]
fn a_report_takes_no_more_allocations_than_were_measured() {
    // What a run takes besides, such as its connections, stands on both sides.
    let (few, many) = (allocations(1_000), allocations(4_000));
    let per_report = (many as f64 - few as f64) / 3_000.0;
    println!("{per_report:.1} allocations per report");
    assert!(per_report <= MOST_PER_REPORT, "{per_report:.1}");
    assert!(per_report > 1.0, "nothing was counted");
}
