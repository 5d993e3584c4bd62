//! Sixty days of an account whose AMIs are kept covered by the auditor, with failing calls and killed runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration as Wait;

use image_usage_auditor::audit::{Auditor, Summary};
use local_aws::{Fault, FaultKind, LocalAws, Random, When, World};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::{RENEW, REQUEST, ami, assert_verifies, put_images};
use crate::harness::{
    ACCOUNT, Archive, TWO_REGIONS, auditor, event_at, invocation_at, local_aws, now, summary_of,
    target, text, will_be_harmed, world,
};

const DAYS: i64 = 60;

/// The AMIs of each Region, unless `RENEWED_IMAGES` gives another number. Of the first ones, every report fails; the
/// next ones are in use.
const IMAGES: usize = 150;
const FAILING: usize = 3;
const IN_USE: usize = 40;

/// The age at which a report is renewed. The clock stands still during a run, so that a report has this age at the run
/// a week later; one of a run that was killed and repeated some minutes later has it a day after that.
const DAYS_BETWEEN_REPORTS: i64 = 7;

/// How long no use must have been observed.
const OBSERVATION_DAYS: i64 = 30;

/// A week's report is the first to span that time, and is read on the day after. A few days later, it must have come for
/// every AMI, also for those whose requests were a day late.
const LAST_DAY_WITHOUT_VERDICT: i64 = 5 * DAYS_BETWEEN_REPORTS + 5;

/// Lets one call in twenty fail.
fn add_faults(aws: &LocalAws) {
    let kinds = [
        FaultKind::Status500,
        FaultKind::CloseBeforeAnswer,
        FaultKind::Status503,
        FaultKind::CutBody,
        FaultKind::Throttle,
    ];
    let p = 0.05 / kinds.len() as f64;
    for (seed, kind) in (1..).zip(kinds) {
        let fault = Fault::new(kind).when(When::Probability { p, seed });
        aws.faults().add(fault);
    }
}

fn is_healthy(image_id: &str) -> bool {
    (0..FAILING).all(|number| ami(number) != image_id)
}

fn is_in_use(image_id: &str) -> bool {
    (FAILING..FAILING + IN_USE).any(|number| ami(number) == image_id)
}

struct Simulation {
    images: usize,
    world: World,
    aws: LocalAws,
    auditor: Auditor,
    random: Random,
    killed: usize,
    /// The requests about healthy AMIs that EC2 has answered.
    answered: usize,
    failed_requests: usize,
    /// How many calls the last run made.
    calls: usize,
    /// When each report about an AMI was created, and its ID.
    created: BTreeMap<(String, String), BTreeMap<OffsetDateTime, String>>,
    /// The reports whose entries are archived.
    archived: BTreeSet<String>,
}

impl Simulation {
    async fn new() -> Self {
        let images = std::env::var("RENEWED_IMAGES");
        let images = images.map_or(IMAGES, |number| number.parse().unwrap());
        let world = world(&TWO_REGIONS);
        for region in TWO_REGIONS {
            put_images(&world, region, 0..images);
        }
        for number in 0..images {
            if number < FAILING {
                world.fail_reports_of(&ami(number), true);
            } else if number < FAILING + IN_USE {
                world.set_usage(&ami(number), "444455556666", "ec2:Instance", 1);
            }
        }
        let mut aws = local_aws(&world).await;
        // The verifier checks the documents as closely as the schemas would.
        will_be_harmed(&mut aws);
        let regions = TWO_REGIONS.join(",");
        let auditor = auditor(&aws, &[RENEW, ("AUDITOR_REGIONS", &regions)]).await;
        add_faults(&aws);
        Self {
            images,
            world,
            aws,
            auditor: auditor.with_renewal_pace(Wait::ZERO),
            random: Random::new(60),
            killed: 0,
            answered: 0,
            failed_requests: 0,
            calls: 20,
            created: BTreeMap::new(),
            archived: BTreeSet::new(),
        }
    }

    /// A day. One run in ten is killed after some calls, and every other time its second attempt too.
    async fn day(&mut self, day: i64) -> Value {
        let time = now() + Duration::days(day);
        self.world.clock().set(time);
        let kills = match day % 20 {
            9 => 1,
            19 => 2,
            _ => 0,
        };
        for attempt in 0..3 {
            let calls = match attempt < kills {
                // A day has about as many calls as the one before.
                true => 1 + self.random.below(self.calls as u64 / 2) as usize,
                false => usize::MAX,
            };
            self.aws.clear_calls();
            let summary = self.attempt(time, calls).await;
            self.count_requests();
            if let Some(summary) = summary {
                self.calls = self.aws.calls().len();
                self.record_reports();
                return Archive::of(&self.aws).snapshot(&summary);
            }
            self.killed += 1;
            self.world.clock().advance(Duration::minutes(attempt + 1));
        }
        panic!("no attempt of {time} had an end");
    }

    async fn attempt(&self, time: OffsetDateTime, calls: usize) -> Option<Summary> {
        let invocation = invocation_at(self.world.clock().now());
        let attempt = self.auditor.handle(event_at(time), invocation);
        let killed = async {
            while self.aws.calls().len() < calls {
                tokio::time::sleep(Wait::from_millis(2)).await;
            }
        };
        tokio::select! {
            answer = attempt => answer.ok().map(summary_of),
            () = killed => None,
        }
    }

    fn count_requests(&mut self) {
        let calls = self.aws.calls().into_iter();
        for call in calls.filter(|call| call.operation == REQUEST) {
            match &call.fault {
                Some(_) => self.failed_requests += 1,
                None => self.answered += usize::from(is_healthy(&call.parameters["ImageId"])),
            }
        }
    }

    fn record_reports(&mut self) {
        for region in TWO_REGIONS {
            for report in self.world.reports(ACCOUNT, region) {
                let place = (region.to_owned(), report.image_id.unwrap());
                let created = self.created.entry(place).or_default();
                created.insert(report.creation_time.unwrap(), report.report_id.unwrap());
            }
        }
    }

    /// Checks the lines of a day. Returns how many healthy AMIs are covered.
    fn check_lines(&mut self, day: i64, snapshot: &Value) -> usize {
        let archive = Archive::of(&self.aws);
        let mut covered = 0;
        for region in TWO_REGIONS {
            for line in archive.report_lines(snapshot, region) {
                if line["entries"]["status"] == "archived" {
                    self.archived.insert(text(&line["report_id"]).to_owned());
                }
            }
            for line in archive.images_of(target(snapshot, region)) {
                let image_id = text(&line["image_id"]);
                covered += usize::from(is_healthy(image_id) && line["coverage"] == "covered");
                let is_idle = is_healthy(image_id) && !is_in_use(image_id);
                let says_so = line["verdict"] == "no_use_observed";
                assert!(
                    !says_so || is_idle && day > OBSERVATION_DAYS,
                    "day {day}: {line}"
                );
                assert!(
                    says_so || !is_idle || day <= LAST_DAY_WITHOUT_VERDICT,
                    "day {day}: {line}"
                );
            }
        }
        covered
    }
}

#[tokio::test]
async fn in_sixty_days_amis_stay_covered_with_hardly_a_call_too_many_and_idle_ones_are_found() {
    let mut simulation = Simulation::new().await;
    let healthy = 2 * (simulation.images - FAILING);
    let mut least_covered = healthy;
    for day in 0..DAYS {
        let snapshot = simulation.day(day).await;
        let covered = simulation.check_lines(day, &snapshot);
        if day >= 8 {
            least_covered = least_covered.min(covered);
            assert!(
                covered * 100 >= healthy * 99,
                "day {day}: {covered} of {healthy}"
            );
        }
    }
    for ((region, image_id), created) in &simulation.created {
        if is_healthy(image_id) {
            let times: Vec<_> = created.keys().collect();
            let is_apart = |pair: &[&OffsetDateTime]| *pair[1] - *pair[0] >= Duration::days(7);
            assert!(
                times.windows(2).all(is_apart),
                "{region} {image_id} {times:?}"
            );
            // Those of the last day are read on the next one.
            let read = created.range(..now() + Duration::days(DAYS - 1));
            for (time, report_id) in read {
                assert!(
                    simulation.archived.contains(report_id),
                    "{region} {image_id} {time}"
                );
            }
        }
    }
    let least = healthy * (DAYS as usize).div_ceil(DAYS_BETWEEN_REPORTS as usize);
    let Simulation {
        answered,
        failed_requests,
        killed,
        ..
    } = simulation;
    println!(
        "{healthy} AMIs: at least {least_covered} covered each day from day 8 on; {answered} requests answered, at least {least} needed; {failed_requests} failed; {killed} attempts were killed"
    );
    assert!(
        killed >= 6 && failed_requests >= 50,
        "{killed} {failed_requests}"
    );
    assert!(answered * 100 <= least * 105, "{answered} {least}");
    simulation.aws.faults().clear();
    assert_verifies(&simulation.aws).await;
}
