//! Random histories of an AMI: what EC2 lists of it, and what each run reads.

use std::collections::BTreeSet;

use image_usage_archive::documents::{ImageFields, ImageLine, ImageReading, Reference, References};
use image_usage_archive::domain::report::{
    ReportState, ResourceType, ResourceTypeOption, UsageReport,
};
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::{
    ConsumerKey, CoverageRules, ImageUsage, ReferencesLook, ReportLook, ReportsListed,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const HOUR: i64 = 3_600;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The entries of a report are read within so many days of its creation.
const READABLE_DAYS: i64 = 31;

pub(crate) const TYPES: [&str; 6] = [
    "ec2:Instance",
    "ec2:LaunchTemplate",
    "imagebuilder:ImageRecipe",
    "imagebuilder:ContainerRecipe",
    "ec2:Fleet",
    "ec2:Other",
];

/// A time in seconds of the history; 0 is the creation of the first report.
pub(crate) type Seconds = i64;

pub(crate) fn timestamp(at: Seconds) -> Timestamp {
    Timestamp::from_unix(1_780_000_000 + at, 0).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) account: Option<u32>,
    pub(crate) resource_type: Option<&'static str>,
    pub(crate) count: Option<i64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) id: String,
    pub(crate) created: Seconds,
    /// Whether EC2 leaves out the creation.
    pub(crate) is_undated: bool,
    pub(crate) deleted: Seconds,
    pub(crate) state: &'static str,
    pub(crate) accounts: usize,
    pub(crate) types: BTreeSet<&'static str>,
    pub(crate) depth: Option<u64>,
    pub(crate) entries: Vec<Entry>,
    /// The run that reads its entries, if any does and it is available.
    pub(crate) read_by: Option<usize>,
}

impl Report {
    pub(crate) fn is_available(&self) -> bool {
        self.state == "available"
    }

    pub(crate) fn is_listed_at(&self, at: Seconds) -> bool {
        self.created <= at && at < self.deleted
    }

    pub(crate) fn is_read_until(&self, run: usize) -> bool {
        self.is_available() && self.read_by.is_some_and(|read_by| read_by <= run)
    }

    fn as_listed(&self) -> UsageReport {
        let resource_type = |name: &&'static str| ResourceType {
            resource_type: Some((*name).to_owned()),
            options: self
                .depth
                .filter(|_| *name == "ec2:LaunchTemplate")
                .map(|depth| ResourceTypeOption {
                    name: Some("version-depth".to_owned()),
                    values: vec![depth.to_string()],
                })
                .into_iter()
                .collect(),
        };
        UsageReport {
            report_id: Some(self.id.clone()),
            creation_time: (!self.is_undated).then(|| timestamp(self.created)),
            state: Some(ReportState::from(self.state)),
            resource_types: self.types.iter().map(resource_type).collect(),
            requested_account_ids: vec!["210987654321".to_owned(); self.accounts],
            ..UsageReport::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ImageSeen {
    NotRead,
    Absent,
    Read,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReferencesSeen {
    NotWanted,
    /// The check broke off, after it found some or none.
    BrokeOff {
        found: bool,
    },
    Checked {
        found: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) at: Seconds,
    pub(crate) is_target_read: bool,
    pub(crate) image: ImageSeen,
    pub(crate) references: ReferencesSeen,
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) observation_days: i64,
    pub(crate) image_created: Option<Seconds>,
    pub(crate) launches: Vec<Seconds>,
    pub(crate) reports: Vec<Report>,
    pub(crate) runs: Vec<Run>,
}

/// One thing that a run has read.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Report { report: Report, at: Seconds },
    Launched { last: Option<Seconds>, at: Seconds },
    References { found: bool, at: Seconds },
}

impl Fact {
    pub(crate) fn add_to(&self, usage: &mut ImageUsage) {
        match self {
            Self::Report { report, at } => {
                let look = ReportLook::of(&report.as_listed()).unwrap();
                usage.observe_report(&look, &report.id, timestamp(*at));
                for entry in &report.entries {
                    let consumer = ConsumerKey {
                        consumer_account_id: entry.account.map(|account| format!("{account:012}")),
                        resource_type: entry.resource_type.map(str::to_owned),
                    };
                    usage.observe_use(&look, consumer, entry.count, timestamp(*at));
                }
                usage.end_report();
            }
            Self::Launched { last, at } => {
                usage.observe_launches(last.map(timestamp), timestamp(*at));
            }
            Self::References { found, at } => usage.observe_references(*found, timestamp(*at)),
        }
    }
}

impl History {
    pub(crate) fn last_run(&self) -> usize {
        self.runs.len() - 1
    }

    pub(crate) fn now(&self) -> Seconds {
        self.runs[self.last_run()].at
    }

    pub(crate) fn last_launch(&self, at: Seconds) -> Option<Seconds> {
        self.launches.iter().copied().filter(|one| *one <= at).max()
    }

    /// What a run reads.
    pub(crate) fn facts_of(&self, run: usize) -> Vec<Fact> {
        let Run {
            at,
            image,
            references,
            ..
        } = self.runs[run];
        let read = self
            .reports
            .iter()
            .filter(|report| report.is_available() && report.read_by == Some(run));
        let mut facts: Vec<Fact> = read
            .map(|report| Fact::Report {
                report: report.clone(),
                at,
            })
            .collect();
        if image == ImageSeen::Read {
            let last = self.last_launch(at);
            facts.push(Fact::Launched { last, at });
        }
        match references {
            ReferencesSeen::Checked { found } => facts.push(Fact::References { found, at }),
            ReferencesSeen::BrokeOff { found: true } => {
                facts.push(Fact::References { found: true, at });
            }
            ReferencesSeen::BrokeOff { found: false } | ReferencesSeen::NotWanted => {}
        }
        facts
    }

    pub(crate) fn facts(&self) -> Vec<Fact> {
        let runs = 0..self.runs.len();
        runs.flat_map(|run| self.facts_of(run)).collect()
    }

    /// The last run until this one that read the target.
    pub(crate) fn last_reading(&self, run: usize) -> Option<usize> {
        (0..=run).rev().find(|run| self.runs[*run].is_target_read)
    }

    fn listed_until(&self, run: usize, order: impl FnOnce(&mut Vec<&Report>)) -> ReportsListed {
        let mut listed = ReportsListed::default();
        if let Some(reading) = self.last_reading(run) {
            let at = self.runs[reading].at;
            let mut reports: Vec<&Report> = self.reports.iter().collect();
            reports.retain(|report| report.is_listed_at(at));
            order(&mut reports);
            for report in reports {
                listed.add(&report.as_listed(), report.is_read_until(reading));
            }
        }
        listed
    }

    /// The line of a run, from what it and all before it have read.
    pub(crate) fn line(&self, run: usize, mut usage: ImageUsage) -> ImageLine {
        usage.settle(timestamp(self.runs[run].at));
        self.line_with(run, &usage, |_| {})
    }

    pub(crate) fn line_with(
        &self,
        run: usize,
        usage: &ImageUsage,
        order: impl FnOnce(&mut Vec<&Report>),
    ) -> ImageLine {
        let Run {
            at,
            is_target_read,
            image,
            references,
        } = self.runs[run];
        let found = matches!(
            references,
            ReferencesSeen::Checked { found: true } | ReferencesSeen::BrokeOff { found: true }
        );
        let listed = found.then(|| Reference {
            resource_type: Some("ssm:Parameter".to_owned()),
            arn: None,
        });
        let read = ImageReading {
            started_at: timestamp(at),
            observation_days: self.observation_days.try_into().unwrap(),
            is_target_read,
            are_images_read: image != ImageSeen::NotRead,
            image: (image == ImageSeen::Read).then(|| ImageFields {
                creation_time: self.image_created.map(timestamp),
                last_launched_time: self.last_launch(at).map(timestamp),
                ..ImageFields::default()
            }),
            reports: self.listed_until(run, order),
            references_look: match references {
                ReferencesSeen::NotWanted => ReferencesLook::NotWanted,
                ReferencesSeen::BrokeOff { .. } => ReferencesLook::NotChecked,
                ReferencesSeen::Checked { .. } => ReferencesLook::Checked,
            },
            references: References {
                listed: listed.into_iter().collect(),
                omitted: 0,
            },
            coverage_rules: CoverageRules::default(),
        };
        ImageLine::new(&target(), "ami-0abcdef1234567890".to_owned(), usage, read)
    }

    /// The line of the last run, from all facts at once.
    pub(crate) fn folded(&self) -> ImageLine {
        self.folded_until(self.last_run())
    }

    /// The line of a run, from all facts until then at once.
    pub(crate) fn folded_until(&self, run: usize) -> ImageLine {
        let mut usage = ImageUsage::default();
        for fact in (0..=run).flat_map(|run| self.facts_of(run)) {
            fact.add_to(&mut usage);
        }
        self.line(run, usage)
    }

    /// The line of each run, carried to the next as JSON.
    pub(crate) fn carried(&self) -> Vec<ImageLine> {
        let mut lines: Vec<ImageLine> = Vec::new();
        for run in 0..self.runs.len() {
            let before = lines.last().cloned();
            let facts = self.facts_of(run);
            let line = match before {
                Some(line) if facts.is_empty() && self.could_read_nothing(run) => {
                    let days = self.observation_days.try_into().unwrap();
                    let wants_references = self.runs[run].references != ReferencesSeen::NotWanted;
                    line.not_read_at(timestamp(self.runs[run].at), days, wants_references)
                }
                before => {
                    let mut usage = before.map(|line| line.usage()).unwrap_or_default();
                    for fact in facts {
                        fact.add_to(&mut usage);
                    }
                    self.line(run, usage)
                }
            };
            let written = serde_json::to_string(&line).unwrap();
            lines.push(serde_json::from_str(&written).unwrap());
        }
        lines
    }

    fn could_read_nothing(&self, run: usize) -> bool {
        !self.runs[run].is_target_read && self.runs[run].image == ImageSeen::NotRead
    }

    pub(crate) fn verdict(&self) -> &'static str {
        self.folded().verdict.as_str()
    }
}

fn target() -> Target {
    Target {
        account_id: "111122223333".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

/// A report whose times and reading follow from the others.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    gap: Seconds,
    read_after: Option<Seconds>,
    report: Report,
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        option::weighted(0.9, 0..4_u32),
        prop_oneof![
            8 => select(&TYPES[..4]).prop_map(Some),
            1 => select(&TYPES[4..]).prop_map(Some),
            1 => Just(None),
        ],
        prop_oneof![6 => (1..20_i64).prop_map(Some), 1 => Just(Some(0)), 1 => Just(None)],
    )
        .prop_map(|(account, resource_type, count)| Entry {
            account,
            resource_type,
            count,
        })
}

fn types(calm: u32) -> impl Strategy<Value = BTreeSet<&'static str>> {
    prop_oneof![
        8 * calm => Just(BTreeSet::from_iter(TYPES[..4].iter().copied())),
        1 => Just(BTreeSet::from_iter(TYPES)),
        2 => vec(select(&TYPES[..]), 0..5).prop_map(BTreeSet::from_iter),
    ]
}

fn depth(calm: u32) -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        6 * calm => Just(Some(10_000)),
        2 * calm => Just(Some(1_000)),
        1 => Just(Some(999)),
        1 => Just(None),
    ]
}

/// Any report.
pub(crate) fn draft() -> impl Strategy<Value = Draft> {
    draft_with(1)
}

/// A report, and how much likelier it is than in [`draft`] to be a whole one without entries, soon read.
fn draft_with(calm: u32) -> impl Strategy<Value = Draft> {
    let gap = prop_oneof![
        6 * calm => Just(7 * DAY),
        3 * calm => Just(10 * DAY),
        2 * calm => Just(14 * DAY),
        1 => Just(14 * DAY + 1),
        1 => Just(0),
        2 => (0..16 * 24_i64).prop_map(|hours| hours * HOUR),
    ];
    let state = prop_oneof![
        12 * calm => Just("available"), 1 => Just("pending"), 1 => Just("error"), 1 => Just("archived"),
    ];
    let entries = prop_oneof![3 * calm => Just(Vec::new()), 1 => vec(entry(), 1..4)];
    let read_after = option::weighted(
        1.0 - 0.1 / f64::from(calm),
        prop_oneof![
            4 * calm => Just(0), 2 => 0..31 * DAY, 1 => Just(READABLE_DAYS * DAY),
        ],
    );
    let accounts = prop_oneof![9 * calm => Just(0_usize), 1 => 1..3_usize];
    let lived = prop_oneof![8 => Just(30 * DAY), 1 => 0..30 * DAY];
    let is_undated = prop::bool::weighted(0.04 / f64::from(calm));
    let look = (accounts, types(calm), depth(calm));
    (gap, state, entries, read_after, look, lived, is_undated).prop_map(
        |(gap, state, entries, read_after, (accounts, types, depth), deleted, is_undated)| Draft {
            gap,
            read_after,
            report: Report {
                id: String::new(),
                created: 0,
                is_undated,
                deleted,
                state,
                accounts,
                types,
                depth,
                entries,
                read_by: None,
            },
        },
    )
}

impl Draft {
    /// The report, created at this moment.
    pub(crate) fn created_at(self, created: Seconds, id: String, runs: &[Run]) -> Report {
        let read_by = self.read_after.and_then(|delay| {
            runs.iter().position(|run| {
                let age = run.at - created;
                run.is_target_read && (delay..=READABLE_DAYS * DAY).contains(&age)
            })
        });
        Report {
            id,
            created,
            deleted: created + self.report.deleted,
            read_by,
            ..self.report
        }
    }
}

fn run(calm: u32) -> impl Strategy<Value = Run> {
    let gap = prop_oneof![3 => Just(DAY), 3 * calm => Just(7 * DAY), 1 => 1..12 * DAY];
    let image = prop_oneof![
        16 * calm => Just(ImageSeen::Read), 2 => Just(ImageSeen::NotRead), 1 => Just(ImageSeen::Absent),
    ];
    let references = prop_oneof![
        12 * calm => Just(ReferencesSeen::NotWanted),
        6 * calm => Just(ReferencesSeen::Checked { found: false }),
        1 => Just(ReferencesSeen::Checked { found: true }),
        1 => prop::bool::ANY.prop_map(|found| ReferencesSeen::BrokeOff { found }),
    ];
    (
        gap,
        prop::bool::weighted(1.0 - 0.1 / f64::from(calm)),
        image,
        references,
    )
        .prop_map(|(at, is_target_read, image, references)| Run {
            at,
            is_target_read,
            image,
            references,
        })
}

/// Histories in which most goes wrong, and calm ones.
pub(crate) fn history() -> impl Strategy<Value = History> {
    prop_oneof![history_with(1), history_with(10)]
}

fn history_with(calm: u32) -> impl Strategy<Value = History> {
    let tail = prop_oneof![
        3 * calm => Just(0), 4 * calm => 0..8 * DAY, 1 => Just(14 * DAY), 1 => Just(14 * DAY + 1), 1 => 0..50 * DAY,
    ];
    let observation_days = prop_oneof![
        4 => Just(30_i64), 2 => Just(14_i64), 1 => Just(1_i64), 1 => Just(60_i64),
    ];
    let image_age = prop_oneof![
        12 * calm => Just(Some(400 * DAY)),
        1 => Just(Some(30 * DAY)),
        1 => Just(Some(30 * DAY + 1)),
        1 => Just(None),
    ];
    let launches = prop_oneof![3 * calm => Just(Vec::new()), 1 => vec(-30 * DAY..150 * DAY, 1..3)];
    (
        vec(draft_with(calm), 0..14),
        vec(run(calm), 1..25),
        tail,
        observation_days,
        image_age,
        launches,
    )
        .prop_map(
            |(drafts, mut runs, tail, observation_days, image_age, launches)| {
                let mut created = 0;
                let created_at: Vec<Seconds> = drafts
                    .iter()
                    .map(|draft| {
                        created += draft.gap;
                        created
                    })
                    .collect();
                let now = created + tail;
                let mut at = now;
                for run in runs.iter_mut().rev() {
                    at -= std::mem::replace(&mut run.at, at);
                }
                let reports = drafts.into_iter().zip(created_at).enumerate();
                History {
                    observation_days,
                    image_created: image_age.map(|age| now - age),
                    launches,
                    reports: reports
                        .map(|(index, (draft, created))| {
                            draft.created_at(created, format!("amiur-{}", index * 7 % 13), &runs)
                        })
                        .collect(),
                    runs,
                }
            },
        )
}
