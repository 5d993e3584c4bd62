//! Sixty days of AMIs whose consumers come and go, with denied days, lost objects, and reports that fail or look
//! too narrowly: each day, each verdict is compared with an oracle that knows what was in reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use local_aws::{Fault, FaultKind, Image, Random, Report, ResourceType, Transition};
use serde_json::Value;
use time::Duration;

use crate::harness::{
    ACCOUNT, Days, ENTRIES, LISTING, TWO_REGIONS, target, targets, text, usage, will_be_harmed,
};

const DAYS: i64 = 60;
const AMIS: u64 = 24;
/// The observation time of the function, in days.
const OBSERVED: i64 = 30;
/// EC2 lists a report on so many days: its own, and those before it expires.
const LISTED: i64 = 30;
const TYPES: [&str; 4] = [
    "ec2:Instance",
    "ec2:LaunchTemplate",
    "imagebuilder:ImageRecipe",
    "imagebuilder:ContainerRecipe",
];

/// An AMI, and the truth about it.
struct Ami {
    id: String,
    region: &'static str,
    /// Who uses it: the account, the type, and the first and last day.
    uses: Vec<(String, &'static str, i64, i64)>,
    launched: Option<i64>,
    deregistered: Option<i64>,
    /// The day of the week on which a report is requested; `None` for an AMI without reports.
    weekday: Option<i64>,
    /// What the oracle knows to be in reach.
    known: Known,
}

/// What the function can know of an AMI by what it could read.
#[derive(Default)]
struct Known {
    /// The reports that were read, by ID.
    read: BTreeMap<String, Look>,
    /// The last launch that `DescribeImages` has shown.
    launched: Option<i64>,
}

/// What a report shows.
#[derive(Clone)]
struct Look {
    created: i64,
    /// When it can be read.
    available: i64,
    /// The types of which it shows every use.
    whole: BTreeSet<&'static str>,
    /// The types of which it shows a use.
    shows: BTreeSet<&'static str>,
}

impl Ami {
    fn new(number: u64, random: &mut Random) -> Self {
        let is_idle = random.percent(40);
        let count = if is_idle { 0 } else { 1 + random.below(3) };
        let uses = (0..count).map(|place| {
            let from = random.below(70) as i64 - 20;
            let until = from + 5 + random.below(60) as i64;
            let account = format!("{:012}", 222_200_000_000 + number * 10 + place);
            (account, *random.pick(&TYPES), from, until)
        });
        Self {
            id: format!("ami-{number:017x}"),
            region: TWO_REGIONS[(number % 2) as usize],
            uses: uses.collect(),
            launched: random
                .percent(if is_idle { 10 } else { 50 })
                .then(|| random.below(60) as i64),
            deregistered: random.percent(20).then(|| 10 + random.below(50) as i64),
            weekday: (!random.percent(15)).then(|| random.below(7) as i64),
            known: Known::default(),
        }
    }

    fn exists_on(&self, day: i64) -> bool {
        self.deregistered.is_none_or(|gone| day < gone)
    }

    /// The report that is requested on a day, and what it shows.
    fn report_of(
        &self,
        day: i64,
        days: &Days,
        random: &mut Random,
    ) -> Option<(Report, Option<Look>)> {
        if !self.exists_on(day) || self.weekday != Some(day % 7) {
            return None;
        }
        let kind = random.below(20);
        let (mut types, mut depth, mut accounts) = (TYPES.to_vec(), "10000", Vec::new());
        match kind {
            0 => types.truncate(1),
            1 => depth = "20",
            2 => {
                accounts = self
                    .uses
                    .iter()
                    .take(1)
                    .map(|(account, ..)| account.clone())
                    .collect()
            }
            _ => {}
        }
        let is_seen = |account: &String| accounts.is_empty() || accounts.contains(account);
        let uses = self.uses.iter().filter(|(account, kind, from, until)| {
            (*from..=*until).contains(&day) && types.contains(kind) && is_seen(account)
        });
        let uses: Vec<_> = uses.collect();
        let is_deep = |name: &&&str| **name != "ec2:LaunchTemplate" || depth == "10000";
        let whole = types.iter().filter(is_deep).filter(|_| accounts.is_empty());
        let available = day + if kind == 3 { 3 } else { 0 };
        let look = Look {
            created: day,
            available,
            whole: whole.copied().collect(),
            shows: uses.iter().map(|(_, kind, ..)| *kind).collect(),
        };
        let now = days.world.clock().now();
        let covered = |name: &&str| match *name {
            "ec2:LaunchTemplate" => ResourceType::new(*name).option("version-depth", &[depth]),
            _ => ResourceType::new(*name),
        };
        let mut report = Report {
            image_id: Some(self.id.clone()),
            report_id: Some(format!("amiur-{}-{day}", self.id)),
            state: Some("available".to_owned()),
            creation_time: Some(now - Duration::hours(1)),
            expiration_time: Some(now - Duration::hours(1) + Duration::days(LISTED)),
            resource_types: types.iter().map(covered).collect(),
            account_ids: accounts.clone(),
            entries: uses
                .iter()
                .map(|(account, kind, ..)| usage(account, kind, 2))
                .collect(),
            ..Report::default()
        };
        match kind {
            3 => {
                report.state = Some("pending".to_owned());
                report.transition = Some(Transition {
                    at: now + Duration::days(3) - Duration::hours(2),
                    state: "available".to_owned(),
                    state_reason: None,
                });
                Some((report, Some(look)))
            }
            4 => {
                report.state = Some("error".to_owned());
                Some((report, None))
            }
            _ => Some((report, Some(look))),
        }
    }

    /// Whether something in reach shows a use within the observation time that no later look has ended.
    fn is_used(&self, day: i64) -> bool {
        // A report is an hour older than its day's run.
        let is_recent = |at: i64| day - at < OBSERVED;
        let reads = self.known.read.values();
        let last = |kind: &str, of: fn(&Look) -> &BTreeSet<&'static str>| {
            let looks = reads.clone().filter(|look| of(look).contains(kind));
            looks.map(|look| look.created).max()
        };
        let by_type = TYPES.iter().any(|kind| {
            let shown = last(kind, |look| &look.shows);
            shown.is_some_and(|at| is_recent(at) && shown >= last(kind, |look| &look.whole))
        });
        by_type || self.was_launched(day)
    }

    /// Whether anything in reach shows a use within the observation time, ended or not.
    fn was_used(&self, day: i64) -> bool {
        let shows = |look: &Look| !look.shows.is_empty() && day - look.created < OBSERVED;
        self.known.read.values().any(shows) || self.was_launched(day)
    }

    fn was_launched(&self, day: i64) -> bool {
        self.known.launched.is_some_and(|at| day - at <= OBSERVED)
    }
}

/// What goes wrong on one day.
#[derive(Default)]
struct Trouble {
    denied: Option<&'static str>,
    images_denied: Option<&'static str>,
    entries_denied: bool,
    lost_images: Option<&'static str>,
    lost_entries: Option<&'static str>,
}

impl Trouble {
    fn of(day: i64, random: &mut Random) -> Self {
        let mut trouble = Self::default();
        let region = *random.pick(&TWO_REGIONS);
        match random.below(12) {
            0 => trouble.denied = Some(region),
            1 => trouble.images_denied = Some(region),
            2 => trouble.entries_denied = true,
            3 if day > 2 => trouble.lost_images = Some(region),
            4 if day > 2 => trouble.lost_entries = Some(region),
            _ => {}
        }
        trouble
    }

    fn play(&self, days: &Days) {
        let faults = days.aws.faults();
        faults.clear();
        let denied = |operation: &str| Fault::new(FaultKind::Denied).on(operation);
        if let Some(region) = self.denied {
            faults.add(denied(LISTING).in_region(region));
        }
        if let Some(region) = self.images_denied {
            faults.add(denied("DescribeImages").in_region(region));
        }
        if self.entries_denied {
            faults.add(denied(ENTRIES));
        }
        for (region, object) in [
            (self.lost_images, "images_object"),
            (self.lost_entries, "entries_object"),
        ] {
            if let Some(region) = region {
                lose(days, region, object);
            }
        }
    }
}

/// Deletes an object that the newest run has written.
fn lose(days: &Days, region: &str, object: &str) {
    let latest = days.archive().latest();
    if let Some(key) = target(&latest, region)[object]["key"].as_str() {
        fs::remove_file(days.path(key)).unwrap();
    }
}

/// The lines of a run's AMIs, by ID.
fn lines(days: &Days, snapshot: &Value) -> BTreeMap<String, Value> {
    let of_target = |target: &Value| match target["images_object"]["key"].as_str() {
        Some(key) => days.archive().lines(key),
        None => Vec::new(),
    };
    let lines = targets(snapshot).iter().flat_map(of_target);
    lines
        .map(|line| (text(&line["image_id"]).to_owned(), line))
        .collect()
}

/// Adds to what is in reach what a run on a day could read.
fn learn(
    amis: &mut [Ami],
    made: &BTreeMap<String, Vec<(String, Look)>>,
    trouble: &Trouble,
    day: i64,
) {
    for ami in amis {
        if trouble.denied == Some(ami.region) {
            continue;
        }
        let is_listed = |look: &Look| look.created + LISTED > day && look.available <= day;
        if trouble.lost_images == Some(ami.region) {
            // What is known begins anew, with what EC2 still lists.
            ami.known.read.retain(|_, look| look.created + LISTED > day);
            ami.known.launched = None;
        }
        if !trouble.entries_denied {
            let made = made.get(&ami.id).into_iter().flatten();
            let read = made.filter(|(_, look)| is_listed(look)).cloned();
            ami.known.read.extend(read);
        }
        if trouble.images_denied != Some(ami.region) && ami.exists_on(day) {
            let launched = ami.launched.filter(|at| *at <= day);
            ami.known.launched = ami.known.launched.max(launched);
        }
    }
}

/// Compares the verdicts of a day with what is in reach, and counts them.
fn check(
    amis: &[Ami],
    lines: &BTreeMap<String, Value>,
    trouble: &Trouble,
    day: i64,
    counts: &mut BTreeMap<String, u64>,
) {
    for ami in amis {
        let Some(line) = lines.get(&ami.id) else {
            // Only what is gone can be forgotten, with a line that is lost.
            assert!(!ami.exists_on(day), "day {day}: no line of {}", ami.id);
            continue;
        };
        let verdict = text(&line["verdict"]);
        *counts.entry(verdict.to_owned()).or_default() += 1;
        let is_read = trouble.denied != Some(ami.region);
        let are_images_read = is_read && trouble.images_denied != Some(ami.region);
        let is_gone = are_images_read && !ami.exists_on(day);
        assert_eq!(verdict == "gone", is_gone, "day {day}: {line}");
        if !is_gone {
            assert_eq!(verdict == "in_use", ami.is_used(day), "day {day}: {line}");
        }
        if verdict == "no_use_observed" {
            assert!(!ami.was_used(day), "day {day}: {line}");
            assert!(are_images_read, "day {day}: {line}");
        }
        let has_reasons = line["reasons"] != serde_json::json!([]);
        let needs_reasons = ["unknown", "last_seen_in_use"].contains(&verdict);
        assert_eq!(has_reasons, needs_reasons, "day {day}: {line}");
    }
}

async fn sixty_days(seed: u64) {
    let mut random = Random::new(seed);
    let mut days = Days::of(&TWO_REGIONS).await;
    will_be_harmed(&mut days.aws);
    days.world.set_launch_lag(Duration::ZERO);
    let mut amis: Vec<Ami> = (0..AMIS)
        .map(|number| Ami::new(number, &mut random))
        .collect();
    for ami in &amis {
        let born = days.world.clock().now() - Duration::days(200);
        let image = Image::new(&ami.id).created_at(born);
        days.world.put_image(ACCOUNT, ami.region, image);
    }
    let mut made: BTreeMap<String, Vec<(String, Look)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for day in 0..DAYS {
        for ami in &amis {
            if ami.launched == Some(day) && ami.exists_on(day) {
                assert!(days.world.launch_image(ACCOUNT, ami.region, &ami.id));
            }
            if ami.deregistered == Some(day) {
                assert!(days.world.deregister_image(ACCOUNT, ami.region, &ami.id));
            }
            if let Some((report, look)) = ami.report_of(day, &days, &mut random) {
                let id = report.report_id.clone().unwrap();
                let of_ami = made.entry(ami.id.clone()).or_default();
                of_ami.extend(look.map(|look| (id, look)));
                days.put(ami.region, [report]);
            }
        }
        let trouble = Trouble::of(day, &mut random);
        trouble.play(&days);
        let (_, snapshot) = days.unchecked_run().await;
        learn(&mut amis, &made, &trouble, day);
        check(&amis, &lines(&days, &snapshot), &trouble, day, &mut counts);
        days.world.clock().advance(Duration::DAY);
    }
    let all: u64 = counts.values().sum();
    for (verdict, count) in &counts {
        println!("{verdict}: {:.1} %", 100.0 * *count as f64 / all as f64);
    }
    assert_eq!(counts.len(), 5, "not every verdict: {counts:?}");
}

#[tokio::test]
async fn in_sixty_days_no_verdict_says_no_use_observed_of_an_ami_that_a_fact_in_reach_says_is_used()
{
    sixty_days(1).await;
}

#[tokio::test]
async fn in_sixty_other_days_no_verdict_says_no_use_observed_of_an_ami_that_is_used() {
    sixty_days(2).await;
}
