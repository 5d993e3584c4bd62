//! What a case of the matrix is made of.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use image_usage_auditor::audit::Auditor;
use local_aws::{Clock, Fault, LocalAws, Report, SeedOptions, Service, Tag, World};

use crate::harness::{ACCOUNT, Random, auditor_at, healthy_reports, lasting_role, now};

pub(super) const MEMBER: &str = "222233334444";
const ROLE: &str = "auditor";

/// A small world, and the faults of each attempt at the same event.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// Names its Regions, because the SDK shares state by Region, such as retry tokens, and no two cases of
    /// a process may share any.
    pub(super) number: u64,
    pub(super) regions: usize,
    pub(super) disabled: Option<usize>,
    pub(super) all_regions: bool,
    pub(super) has_member: bool,
    pub(super) reports: Reports,
    pub(super) page_size: usize,
    pub(super) concurrency: usize,
    pub(super) has_earlier_run: bool,
    /// The number of additional reports without any field in the second Region.
    pub(super) bare: usize,
    pub(super) time_left: Option<Duration>,
    /// A part of the keys of the objects that are deleted after the earlier run.
    pub(super) deleted_after_earlier_run: Option<&'static str>,
    /// The faults of each attempt; one without any follows.
    pub(super) attempts: Vec<Vec<Fault>>,
    pub(super) expected: Expected,
}

/// What the targets hold.
#[derive(Clone, Debug)]
pub(super) enum Reports {
    /// This number in each Region, mixed from the case's number.
    Mixed(usize),
    /// Enough to archive each target in an upload of this number of parts.
    Parts(usize),
}

/// The outcome that a case must have, besides the property.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Any.
    Any,
    /// A snapshot in which every target is complete.
    Complete,
    /// A snapshot in which the second Region has this status and error code, and the others are complete.
    Broken(&'static str, &'static str),
    /// A snapshot in which the second Region ran out of time.
    Late,
    /// This error.
    Error(&'static str),
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(100);

/// The Region of a case at a place; the first is the function's own.
pub(super) fn region(number: u64, place: usize) -> String {
    let stem = ["us-east", "eu-west", "ap-south", "sa-east"][place];
    format!("{stem}-{number}")
}

impl Case {
    /// Two Regions of 60 reports in pages of 15; `faults` gets the case's number.
    pub(super) fn new(name: impl Into<String>, faults: impl FnOnce(u64) -> Vec<Fault>) -> Self {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            name: name.into(),
            number,
            regions: 2,
            disabled: None,
            all_regions: false,
            has_member: false,
            reports: Reports::Mixed(60),
            page_size: 15,
            concurrency: 8,
            has_earlier_run: false,
            bare: 0,
            time_left: None,
            deleted_after_earlier_run: None,
            attempts: vec![faults(number)],
            expected: Expected::Any,
        }
    }

    pub(super) fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    pub(super) fn within(mut self, time_left: Duration) -> Self {
        self.time_left = Some(time_left);
        self
    }

    pub(super) fn accounts(&self) -> Vec<&'static str> {
        match self.has_member {
            true => vec![ACCOUNT, MEMBER],
            false => vec![ACCOUNT],
        }
    }

    pub(super) fn world(&self) -> World {
        let regions = || (0..self.regions).map(|place| region(self.number, place));
        let mut builder = World::builder()
            .clock(Clock::fixed(now()))
            .seed(self.number);
        for account in self.accounts() {
            builder = builder.account(account);
        }
        let world = builder.regions(regions()).build();
        if let Some(place) = self.disabled {
            world.disable_region(ACCOUNT, &region(self.number, place));
        }
        world.role(MEMBER, lasting_role(ROLE));
        let bare = std::iter::repeat_n(Report::default(), self.bare);
        world.put_reports(ACCOUNT, &region(self.number, 1), bare);
        match self.reports {
            Reports::Mixed(count) => self.put_mixed_reports(&world, count),
            Reports::Parts(count) => {
                for region in regions() {
                    world.put_reports(ACCOUNT, &region, bulky_reports(count));
                }
            }
        }
        world
    }

    fn put_mixed_reports(&self, world: &World, count: usize) {
        world.seed(&SeedOptions {
            seed: self.number,
            reports_per_region: count,
            ..SeedOptions::default()
        });
        if count == 0 {
            return;
        }
        for account in self.accounts() {
            let id_only = Report {
                report_id: Some(format!("amiur-bare-{account}")),
                ..Report::default()
            };
            world.put_report(account, &region(self.number, 0), id_only);
        }
    }

    pub(super) async fn auditor(&self, aws: &LocalAws) -> Auditor {
        let regions: Vec<String> = (0..self.regions)
            .map(|place| region(self.number, place))
            .collect();
        let regions = match self.all_regions {
            true => "all".to_owned(),
            false => regions.join(","),
        };
        let variables = [
            ("AUDITOR_REGIONS", regions.as_str()),
            ("AUDITOR_ACCOUNTS", &self.accounts().join(",")),
            ("AUDITOR_ROLE_NAME", ROLE),
            ("AUDITOR_PAGE_SIZE", &self.page_size.to_string()),
            (
                "AUDITOR_MAX_CONCURRENT_TARGETS",
                &self.concurrency.to_string(),
            ),
        ];
        auditor_at(aws, &region(self.number, 0), &variables).await
    }

    /// The targets that a run must plan.
    pub(super) fn targets(&self, world: &World) -> BTreeSet<(String, String)> {
        let mut targets = BTreeSet::new();
        for account in self.accounts() {
            let enabled = world.enabled_regions(account);
            for place in 0..self.regions {
                let region = region(self.number, place);
                if !self.all_regions || enabled.contains(&region) {
                    targets.insert((account.to_owned(), region));
                }
            }
        }
        targets
    }

    /// Returns whether a fault can keep the run from writing in time, so that Lambda kills it.
    pub(super) fn may_be_killed(&self) -> bool {
        self.time_left.is_some() && self.attempts.iter().flatten().any(may_meet_s3)
    }
}

/// Returns whether a fault can match a call to S3.
fn may_meet_s3(fault: &Fault) -> bool {
    let of_s3 = [
        "HeadObject",
        "GetObject",
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
    ];
    fault.service == Some(Service::S3)
        || fault
            .operation
            .as_deref()
            .is_some_and(|operation| of_s3.contains(&operation))
}

/// Reports whose lines hardly compress.
fn bulky_reports(parts: usize) -> impl Iterator<Item = Report> {
    // About 0.8 bytes of gzip for each: a little more than `parts - 1` parts of 5 MiB.
    const LENGTH: usize = 40_000;
    let count = ((parts - 1) * 5 * 1024 * 1024 + 512 * 1024) * 10 / 8 / LENGTH;
    healthy_reports(count).zip(0_u64..).map(|(report, seed)| {
        let mut random = Random::new(seed);
        let letters = std::iter::repeat_with(|| char::from(b'(' + random.below(80) as u8));
        let text: String = letters
            .filter(|letter| !"<>".contains(*letter))
            .take(LENGTH)
            .collect();
        Report {
            tags: vec![Tag::new("Text", text)],
            ..report
        }
    })
}
