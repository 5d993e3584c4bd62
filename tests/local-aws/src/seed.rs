//! Data sets generated from a seed, of any size, relative to the world's clock.

use crate::random::{Random, hash_of};
use crate::seed_images::Place;
use crate::world::{Entry, REPORT_LIFETIME, Report, ResourceType, Tag, Transition, World};
use time::{Duration, OffsetDateTime};

/// What [`World::seed`] generates.
#[derive(Clone, Debug)]
pub struct SeedOptions {
    /// The seed: the same seed, clock and options generate the same reports.
    pub seed: u64,
    /// The accounts; none means all of the world's.
    pub accounts: Vec<String>,
    /// The Regions; none means all that are enabled for the account.
    pub regions: Vec<String>,
    /// The number of reports of each account in each Region.
    pub reports_per_region: usize,
    /// The number of images these reports are about; with `None`, each report has its own.
    pub images_per_region: Option<usize>,
    /// Whether each target begins with one report of every kind, as far as the number allows.
    pub one_of_each: bool,
    /// The mix of the other reports.
    pub mix: Mix,
    /// Whether each target also has one AMI for each verdict, tagged `expected-verdict`, with
    /// resources that refer to it and 20 reports beyond `reports_per_region`.
    pub one_of_each_verdict: bool,
}

/// How many of 1,000 reports are of each kind; the rest are `available` and far from expiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// In the state `error`.
    pub failed: u64,
    /// Expired, but not yet deleted.
    pub expired: u64,
    /// Expiring within a week.
    pub expiring: u64,
    /// Pending for more than a day.
    pub stuck: u64,
    /// Pending for some hours.
    pub pending: u64,
    /// In an undocumented state.
    pub unrecognised_state: u64,
    /// Without an expiration time.
    pub undated: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            failed: 20,
            expired: 5,
            expiring: 120,
            stuck: 10,
            pending: 40,
            unrecognised_state: 3,
            undated: 2,
        }
    }
}

impl Default for SeedOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            accounts: Vec::new(),
            regions: Vec::new(),
            reports_per_region: 60,
            images_per_region: None,
            one_of_each: true,
            mix: Mix::default(),
            one_of_each_verdict: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Healthy,
    Failed,
    Expired,
    Expiring,
    Stuck,
    Pending,
    UnrecognisedState,
    Undated,
}

/// One of each, the unusual ones first, so that even a small set has every finding.
const ONE_OF_EACH: [Kind; 10] = [
    Kind::Failed,
    Kind::Expired,
    Kind::Expiring,
    Kind::Stuck,
    Kind::UnrecognisedState,
    Kind::Undated,
    Kind::Pending,
    Kind::Healthy,
    Kind::Healthy,
    Kind::Healthy,
];

/// How late EC2 deletes the reports that are generated as expired.
const DELETION_DELAY: Duration = Duration::hours(6);

const STATE_REASONS: [&str; 4] = [
    "The report could not be created.",
    "Internal error while the usage of the image was collected. Try again.",
    "The image 'ami-0d4e5f60718293a4b' was deregistered before the report was complete",
    "Access to account <444455556666> & its organization was \"suspended\"",
];

const UNRECOGNISED_STATES: [&str; 4] = ["archived", "deleting", "IN_REVIEW", "partially-available"];

impl World {
    /// Fills targets with reports generated from a seed, and with the AMIs that they are about.
    pub fn seed(&self, options: &SeedOptions) {
        let now = to_milliseconds(self.now());
        let accounts = match options.accounts.is_empty() {
            true => self.accounts(),
            false => options.accounts.clone(),
        };
        for account in accounts {
            let regions = match options.regions.is_empty() {
                true => self.enabled_regions(&account),
                false => options.regions.clone(),
            };
            for region in regions {
                let mut reports = Reports::new(options, &account, &region, now);
                let generated: Vec<_> = (0..options.reports_per_region)
                    .map(|index| reports.generate(index))
                    .collect();
                let place = Place {
                    world: self,
                    account: &account,
                    region: &region,
                    now,
                    seed: options.seed,
                };
                place.put_images_of(&generated);
                self.put_reports(&account, &region, generated);
                if options.one_of_each_verdict {
                    place.put_images_of_verdicts();
                }
            }
        }
    }
}

struct Reports<'a> {
    options: &'a SeedOptions,
    now: OffsetDateTime,
    random: Random,
    images: Vec<String>,
}

impl<'a> Reports<'a> {
    fn new(options: &'a SeedOptions, account: &str, region: &str, now: OffsetDateTime) -> Self {
        let mut random = Random::new(hash_of([account, region]) ^ options.seed);
        let images = (0..options.images_per_region.unwrap_or(0))
            .map(|_| format!("ami-{}", random.hex(17)))
            .collect();
        Self {
            options,
            now,
            random,
            images,
        }
    }

    fn generate(&mut self, index: usize) -> Report {
        let kind = match ONE_OF_EACH.get(index) {
            Some(kind) if self.options.one_of_each => *kind,
            _ => self.draw_kind(),
        };
        let showpiece = (self.options.one_of_each && index < ONE_OF_EACH.len()).then_some(index);
        let creation_time = self.creation_time(kind);
        let expiration_time = (kind != Kind::Undated).then(|| creation_time + REPORT_LIFETIME);
        let random = &mut self.random;
        let (state, state_reason) = state(random, kind, showpiece.is_some());
        let resource_types = resource_types(random, showpiece);
        let account_ids: Vec<String> = match random.chance(0.2) {
            true => (0..random.between(1, 3))
                .map(|_| random.account_id())
                .collect(),
            false => Vec::new(),
        };
        let entries = match kind {
            Kind::Healthy | Kind::Expiring | Kind::Expired | Kind::Undated => {
                entries(random, &resource_types, &account_ids)
            }
            _ => Vec::new(),
        };
        let image_id = match self.images.is_empty() {
            true => format!("ami-{}", random.hex(17)),
            false => random.pick(&self.images).clone(),
        };
        Report {
            image_id: Some(image_id),
            report_id: Some(format!("amiur-{}", random.hex(17))),
            resource_types,
            account_ids,
            state: state.map(str::to_owned),
            state_reason: state_reason.map(str::to_owned),
            creation_time: Some(creation_time),
            expiration_time,
            tags: tags(random, showpiece),
            entries,
            transition: (kind == Kind::Pending).then(|| Transition {
                at: self.now + Duration::DAY,
                state: "available".to_owned(),
                state_reason: None,
            }),
            deleted_at: match kind {
                Kind::Expired => Some(self.now + DELETION_DELAY),
                _ => expiration_time,
            },
        }
    }

    /// Draws a creation time at least an hour away from the limits of the rules, so that the set
    /// still shows the same findings when it is audited some minutes later.
    fn creation_time(&mut self, kind: Kind) -> OffsetDateTime {
        const HOUR: i64 = 60;
        const DAY: i64 = 24 * HOUR;
        let (least, most) = match kind {
            Kind::Healthy | Kind::UnrecognisedState | Kind::Undated => (HOUR, 22 * DAY),
            Kind::Failed => (HOUR, 20 * DAY),
            Kind::Expired => (30 * DAY + 2, 30 * DAY + 50),
            Kind::Expiring => (23 * DAY + HOUR, 30 * DAY - 4 * HOUR),
            Kind::Stuck => (26 * HOUR, 9 * DAY),
            Kind::Pending => (5, 12 * HOUR),
        };
        let minutes = self.random.between(least, most);
        let milliseconds = self.random.between(0, 59_999);
        self.now - Duration::minutes(minutes) - Duration::milliseconds(milliseconds)
    }

    fn draw_kind(&mut self) -> Kind {
        let mix = self.options.mix;
        let mut drawn = self.random.below(1000);
        for (kind, share) in [
            (Kind::Failed, mix.failed),
            (Kind::Expired, mix.expired),
            (Kind::Expiring, mix.expiring),
            (Kind::Stuck, mix.stuck),
            (Kind::Pending, mix.pending),
            (Kind::UnrecognisedState, mix.unrecognised_state),
            (Kind::Undated, mix.undated),
        ] {
            if drawn < share {
                return kind;
            }
            drawn -= share;
        }
        Kind::Healthy
    }
}

fn to_milliseconds(time: OffsetDateTime) -> OffsetDateTime {
    time - Duration::nanoseconds(i64::from(time.nanosecond() % 1_000_000))
}

/// Draws the state of a report, and its reason.
fn state(
    random: &mut Random,
    kind: Kind,
    is_showpiece: bool,
) -> (Option<&'static str>, Option<&'static str>) {
    match kind {
        Kind::Failed => (Some("error"), Some(*random.pick(&STATE_REASONS))),
        Kind::Stuck | Kind::Pending => (Some("pending"), None),
        // In about every other Region, the showpiece has no state at all.
        Kind::UnrecognisedState if is_showpiece && random.chance(0.5) => (None, None),
        Kind::UnrecognisedState => (Some(*random.pick(&UNRECOGNISED_STATES)), None),
        _ => (Some("available"), None),
    }
}

fn resource_types(random: &mut Random, showpiece: Option<usize>) -> Vec<ResourceType> {
    let launch_template = |random: &mut Random| {
        let depth = *random.pick(&["1", "20", "100", "10000"]);
        ResourceType::new("ec2:LaunchTemplate").option("version-depth", &[depth])
    };
    match showpiece {
        // One requests every type, and one an unknown type.
        Some(0) => vec![
            ResourceType::new("ec2:Instance"),
            launch_template(random),
            ResourceType::new("imagebuilder:ImageRecipe"),
            ResourceType::new("imagebuilder:ContainerRecipe"),
        ],
        Some(4) => vec![ResourceType::new("ecs:CapacityProvider").option("scope", &["a", "b"])],
        _ => match random.below(10) {
            0..5 => vec![ResourceType::new("ec2:Instance")],
            5..7 => vec![ResourceType::new("ec2:Instance"), launch_template(random)],
            7 => vec![launch_template(random)],
            8 => vec![ResourceType::new("imagebuilder:ImageRecipe")],
            _ => vec![
                ResourceType::new("imagebuilder:ImageRecipe"),
                ResourceType::new("imagebuilder:ContainerRecipe"),
            ],
        },
    }
}

fn tags(random: &mut Random, showpiece: Option<usize>) -> Vec<Tag> {
    let team = *random.pick(&["TeamA", "TeamB", "Platform"]);
    match showpiece {
        Some(0) => vec![
            Tag::new("Owner", "TeamA"),
            Tag::new("Kostenstelle 💶", "Zürich – 東京"),
            Tag::new("Note", "says \"don't\" & <waits>\tfor\nyou"),
            Tag::new("Empty", ""),
        ],
        Some(1) => vec![Tag::new("Owner", "TeamA"), Tag::new("owner", "teama")],
        Some(2) => Vec::new(),
        _ => match random.below(10) {
            0..4 => Vec::new(),
            4..8 => vec![Tag::new("Owner", team)],
            8 => vec![
                Tag::new("Owner", team),
                Tag::new("Environment", "production"),
            ],
            _ => vec![Tag::new("Environment", "staging")],
        },
    }
}

fn entries(
    random: &mut Random,
    resource_types: &[ResourceType],
    account_ids: &[String],
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for resource_type in resource_types {
        for _ in 0..random.between(0, 3) {
            entries.push(Entry {
                resource_type: resource_type.resource_type.clone(),
                account_id: Some(match account_ids.is_empty() {
                    true => random.account_id(),
                    false => random.pick(account_ids).clone(),
                }),
                usage_count: Some(random.between(1, 5000)),
            });
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::expected_findings::{FindingPolicy, count_findings};

    fn seeded(seed: u64, reports_per_region: usize, clock: Clock) -> World {
        let world = World::builder()
            .clock(clock)
            .regions(["us-east-1", "eu-west-1", "ap-southeast-2"])
            .build();
        world.seed(&SeedOptions {
            seed,
            reports_per_region,
            ..SeedOptions::default()
        });
        world
    }

    fn noon() -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_779) + Duration::hours(12)
    }

    #[test]
    fn the_default_set_has_every_finding_in_every_region_for_an_hour() {
        let clock = Clock::fixed(noon());
        let world = seeded(1, 60, clock.clone());
        for _ in 0..2 {
            for region in world.enabled_regions("111122223333") {
                assert_eq!(world.report_count("111122223333", &region), 60);
                let counts =
                    count_findings(&world, "111122223333", &region, FindingPolicy::default());
                assert!(
                    counts.values().all(|count| *count > 0),
                    "{region} {counts:?}"
                );
            }
            clock.advance(Duration::HOUR);
        }
    }

    #[test]
    fn the_same_seed_and_time_generate_the_same_reports_and_another_seed_others() {
        let reports =
            |seed| seeded(seed, 300, Clock::fixed(noon())).reports("111122223333", "eu-west-1");
        assert_eq!(reports(7), reports(7));
        assert_ne!(reports(7), reports(8));
    }

    #[test]
    fn every_report_is_about_an_image_that_is_older() {
        let world = seeded(1, 300, Clock::fixed(noon()));
        let (account, region) = ("111122223333", "eu-west-1");
        let images = world.images(account, region);
        let reports = world.reports(account, region);
        assert_eq!((images.len(), reports.len()), (300, 300));
        for (image, report) in images.iter().zip(&reports) {
            assert_eq!(report.image_id.as_ref(), Some(&image.image_id));
            assert!(image.creation_time < report.creation_time);
            assert!(image.last_launched_time < Some(noon()));
        }
    }

    #[test]
    fn each_verdict_has_an_image_and_the_other_reports_stay_the_same() {
        let (account, region) = ("111122223333", "us-east-1");
        let worlds = [false, true].map(|one_of_each_verdict| {
            let world = World::builder().clock(Clock::fixed(noon())).build();
            world.seed(&SeedOptions {
                regions: vec![region.to_owned()],
                one_of_each_verdict,
                ..SeedOptions::default()
            });
            world
        });
        let [without, with] = worlds.map(|world| (world.reports(account, region), world));
        assert_eq!(without.0, with.0[..60]);
        let images = with.1.images(account, region);
        let verdicts: Vec<_> = images[60..]
            .iter()
            .map(|image| {
                let mine = |report: &&Report| report.image_id.as_ref() == Some(&image.image_id);
                let reports = with.0.iter().filter(mine);
                let counts = reports.flat_map(|report| &report.entries);
                let verdict = image.tags[0].value.as_deref().unwrap_or_default();
                (
                    verdict,
                    counts.filter_map(|entry| entry.usage_count).collect(),
                )
            })
            .collect::<Vec<(_, Vec<_>)>>();
        assert_eq!(
            verdicts,
            [
                ("in_use", vec![12; 5]),
                ("no_use_observed", vec![]),
                ("gone", vec![3; 5]),
                ("last_seen_in_use", vec![4; 3]),
                ("unknown", vec![]),
            ]
        );
        assert_eq!(with.0.len(), 80);
        assert_eq!(with.1.resources(account, region).len(), 6);
        let counts = [without.1, with.1]
            .map(|world| count_findings(&world, account, region, FindingPolicy::default()));
        let mut expected = counts[0].clone();
        *expected.entry("expiring").or_default() += 4;
        assert_eq!(counts[1], expected);
    }

    #[test]
    fn a_report_is_deleted_at_its_expiration_time() {
        let clock = Clock::fixed(noon());
        let world = World::builder().clock(clock.clone()).build();
        for expires_at in [noon() + Duration::HOUR, noon() - Duration::HOUR] {
            world.put_report(
                "111122223333",
                "us-east-1",
                Report {
                    expiration_time: Some(expires_at),
                    ..Report::default()
                },
            );
        }
        let expirations = || -> Vec<_> {
            let reports = world.reports("111122223333", "us-east-1");
            reports
                .iter()
                .map(|report| report.expiration_time)
                .collect()
        };
        let (soon, late) = (Some(noon() + Duration::HOUR), Some(noon() - Duration::HOUR));
        assert_eq!(expirations(), [soon, late]);
        clock.advance(Duration::minutes(59));
        assert_eq!(expirations(), [soon, late]);
        clock.advance(Duration::MINUTE);
        assert_eq!(expirations(), [late]);
        clock.advance(Duration::DAY);
        assert_eq!(expirations(), []);
    }

    #[test]
    fn a_transition_takes_effect_at_its_time() {
        let clock = Clock::fixed(noon());
        let world = World::builder().clock(clock.clone()).build();
        world.put_report(
            "111122223333",
            "us-east-1",
            Report {
                state: Some("pending".to_owned()),
                transition: Some(Transition {
                    at: noon() + Duration::HOUR,
                    state: "error".to_owned(),
                    state_reason: Some("why".to_owned()),
                }),
                ..Report::default()
            },
        );
        let state = || {
            let report = world.reports("111122223333", "us-east-1").remove(0);
            (report.state, report.state_reason)
        };
        assert_eq!(state(), (Some("pending".to_owned()), None));
        clock.advance(Duration::HOUR);
        assert_eq!(state(), (Some("error".to_owned()), Some("why".to_owned())));
    }
}
