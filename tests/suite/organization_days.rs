//! Three days of an organization in 17 Regions, one account of which is heavy. `make faults` plays 300
//! accounts.

use std::io::Write;
use std::time::{Duration as Wait, Instant};

use image_usage_auditor::audit::Summary;
use local_aws::{CLASSIC_REGIONS, Clock, Fault, FaultKind, LocalAws, Report, RoleOptions, World};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::harness::{ACCOUNT, Archive, ENTRIES, auditor, local_aws, now, run_within, text, used};

/// The number of accounts, if it is not this one.
const ACCOUNTS: &str = "ORGANIZATION_ACCOUNTS";

/// How many accounts every run of the suite plays: 510 targets.
const FEW_ACCOUNTS: usize = 30;

const ROLE: &str = "reader";

/// A run has this much time for each account, so that the share of a heavy target is not enough.
const TIME_PER_ACCOUNT: Wait = Wait::from_secs(2);

fn account(number: usize) -> String {
    format!("{:012}", 222_200_000_000 + number)
}

/// A report that was made some days ago and expires in some days.
fn aged(id: &str, entries: usize, expires_in_days: i64) -> Report {
    Report {
        creation_time: Some(now() - Duration::days(29 - expires_in_days)),
        expiration_time: Some(now() + Duration::days(expires_in_days)),
        ..used(id, entries)
    }
}

/// Each account has a few reports in one Region; the heavy one has 150 in each.
async fn organization(accounts: usize) -> LocalAws {
    let accounts: Vec<String> = (1..accounts).map(account).collect();
    let mut world = World::builder().clock(Clock::fixed(now())).account(ACCOUNT);
    for account in &accounts {
        world = world.account(account);
    }
    let world = world.regions(CLASSIC_REGIONS).build();
    world.organization_account(ACCOUNT, "ACTIVE");
    for (number, account) in accounts.iter().enumerate() {
        world.organization_account(account, "ACTIVE");
        world.role(
            account,
            RoleOptions {
                name: ROLE.to_owned(),
                ..RoleOptions::default()
            },
        );
        let region = CLASSIC_REGIONS[number % CLASSIC_REGIONS.len()];
        let reports = (0..3).map(|place| aged(&format!("amiur-{account}-{place}"), 2, 4 + place));
        world.put_reports(account, region, reports);
    }
    let heavy = &accounts[0];
    for region in CLASSIC_REGIONS {
        let reports = (0..150).map(|number| {
            let expires_in_days = 3 + number % 25;
            aged(
                &format!("amiur-heavy-{region}-{number}"),
                40,
                expires_in_days,
            )
        });
        world.put_reports(heavy, region, reports);
    }
    local_aws(&world).await
}

fn archived(summary: &Summary) -> u64 {
    summary.counts.entries.archived
}

/// The available reports that expire before the next day and have no entries in the archive.
fn about_to_be_lost(archive: &Archive, snapshot: &Value, time: OffsetDateTime) -> Vec<String> {
    let next_day = local_aws::timestamp(time + Duration::DAY);
    let mut lost = Vec::new();
    for target in snapshot["targets"].as_array().unwrap() {
        if target["reports"] == 0 {
            continue;
        }
        let lines = archive.lines(text(&target["object"]["key"]));
        let is_lost = |line: &&Value| {
            line["state"] == "available"
                && line["entries"]["status"] != "archived"
                && text(&line["expiration_time"]) < next_day.as_str()
        };
        lost.extend(lines.iter().filter(is_lost).map(Value::to_string));
    }
    lost
}

#[tokio::test]
async fn an_organization_has_all_entries_archived_within_three_days_and_loses_none() {
    let accounts = std::env::var(ACCOUNTS).ok();
    let accounts = accounts.map_or(FEW_ACCOUNTS, |number| number.parse().unwrap());
    let aws = organization(accounts).await;
    let slow = FaultKind::Latency { milliseconds: 200 };
    aws.faults().add(Fault::new(slow).on(ENTRIES));
    let time_left = TIME_PER_ACCOUNT * u32::try_from(accounts).unwrap();
    let variables = [
        ("AUDITOR_ACCOUNTS", "organization"),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", "all"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let archive = Archive::of(&aws);
    for day in 0..3 {
        let time = now() + Duration::days(day);
        aws.world().clock().set(time);
        let started = Instant::now();
        let summary = run_within(&auditor, time, time_left).await;
        let summary = summary.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let counts = summary.counts;
        // Not captured, as the standard output is.
        writeln!(
            std::io::stderr(),
            "day {day}: {seconds:.1} s, {} targets, {} reports, {} with entries",
            counts.targets.complete,
            counts.reports.total,
            archived(&summary)
        )
        .unwrap();
        let targets = accounts * CLASSIC_REGIONS.len();
        assert_eq!(counts.targets.complete as usize, targets, "{counts:?}");
        let snapshot = archive.snapshot(&summary);
        assert_eq!(about_to_be_lost(&archive, &snapshot, time), [""; 0]);
        // A busy machine may need another day; a machine at rest has none left on the first.
        let left = counts.reports.available - archived(&summary);
        assert!(left == 0 || day < 2, "day {day}: {left}");
    }
}
