//! The reports of the simulation: when each is created, how it changes, and when EC2 deletes it.

use local_aws::{Entry, Report, ResourceType, Transition};
use time::{Duration, OffsetDateTime};

use crate::harness::{Random, now, usage};

/// How many days the simulation has.
pub(super) const DAYS: i64 = 60;

/// How long before the first run the reports begin: EC2 keeps reports for 30 days.
const WEEKS_BEFORE: i64 = 5;

/// The AMIs. The reports of the first ones are created on one day of the week, those of the others are spread
/// over all days.
const IMAGES: i64 = 500;
const IMAGES_OF_ONE_DAY: i64 = 300;

/// How many of a thousand reports have each fate. The others become available within the hour.
const FAIL: u64 = 40;
const HANG: u64 = 30;
const COME_LATE: u64 = 40;
const ARE_DELETED: u64 = 40;
/// How many of a thousand are still listed after they have expired.
const OUTSTAY: u64 = 30;

/// A report of an AMI with all its states, created at a random moment of a day.
fn planned(random: &mut Random, image: i64, midnight: OffsetDateTime) -> Report {
    const HOUR: i64 = 60;
    const DAY: i64 = 24 * HOUR;
    let created = midnight + minutes(random, 0, DAY);
    // EC2's guide says 30 days, and its example shows 29.
    let lifetime = Duration::days(29 + random.below(2) as i64);
    let expires = created + lifetime;
    let entries = (0..random.below(3)).map(|place| {
        let account = format!("{:012}", random.below(40) * 10 + place);
        usage(&account, "ec2:Instance", 1 + random.below(90) as i64)
    });
    let entries: Vec<Entry> = entries.collect();
    let mut report = Report {
        image_id: Some(format!("ami-{image:017x}")),
        report_id: Some(format!("amiur-{:016x}", random.next())),
        resource_types: vec![ResourceType::new("ec2:Instance")],
        state: Some("pending".to_owned()),
        creation_time: Some(created),
        expiration_time: Some(expires),
        entries,
        deleted_at: Some(expires),
        ..Report::default()
    };
    let becomes = |state: &str, after: Duration| {
        Some(Transition {
            at: created + after,
            state: state.to_owned(),
            state_reason: (state == "error").then(|| "The report could not be created.".to_owned()),
        })
    };
    let fate = random.below(1_000);
    report.transition = if fate < FAIL {
        becomes("error", minutes(random, 5, 2 * DAY))
    } else if fate < FAIL + HANG {
        None
    } else if fate < FAIL + HANG + COME_LATE {
        // Some become available so late that they expire before the next run.
        becomes("available", minutes(random, DAY, 30 * DAY))
    } else {
        becomes("available", minutes(random, 5, HOUR))
    };
    if fate >= 1_000 - ARE_DELETED {
        report.deleted_at = Some(created + minutes(random, 2 * HOUR, 28 * DAY));
    } else if random.below(1_000) < OUTSTAY && lifetime == Duration::days(29) {
        report.deleted_at = Some(expires + minutes(random, HOUR, DAY));
    }
    report
}

/// A duration in minutes.
fn minutes(random: &mut Random, least: i64, most: i64) -> Duration {
    Duration::minutes(least + random.below((most - least) as u64) as i64)
}

/// The moment of the first run.
pub(super) fn first_day() -> OffsetDateTime {
    now()
}

/// Every report of the simulation, in the order of their creation.
pub(super) fn plan(seed: u64) -> Vec<Report> {
    let mut random = Random::new(seed);
    let mut reports = Vec::new();
    let midnight = first_day() - Duration::hours(6);
    for day in -7 * WEEKS_BEFORE..DAYS {
        for image in 0..IMAGES {
            let weekday = match image < IMAGES_OF_ONE_DAY {
                true => 3,
                false => image % 7,
            };
            if day.rem_euclid(7) == weekday {
                let midnight = midnight + Duration::days(day - 1);
                reports.push(planned(&mut random, image, midnight));
            }
        }
    }
    reports.sort_by_key(|report| report.creation_time);
    reports
}
