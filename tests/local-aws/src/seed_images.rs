//! AMIs of a generated data set: one for each image of its reports, and one for each verdict.

use crate::images::Image;
use crate::random::{Random, hash_of};
use crate::resources::Resource;
use crate::world::{Entry, REPORT_LIFETIME, Report, ResourceType, World};
use std::collections::HashSet;
use time::{Duration, OffsetDateTime};

/// The most AMIs of an account in a Region, by EC2's default quota. Reports about more images than
/// these are about AMIs that have been deregistered.
const MAX_IMAGES: usize = 50_000;

/// The tag that names the verdict which an auditor should reach.
const VERDICT_TAG: &str = "expected-verdict";

/// The ages of the weekly reports about an AMI, in hours; half a day away from every limit.
const WEEKLY: [i64; 5] = [684, 516, 348, 180, 12];

/// Where the AMIs of a data set go, and when.
pub(crate) struct Place<'a> {
    pub(crate) world: &'a World,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) now: OffsetDateTime,
    pub(crate) seed: u64,
}

impl Place<'_> {
    fn random(&self, what: &str) -> Random {
        Random::new(hash_of([self.account, self.region, what]) ^ self.seed)
    }

    fn put(&self, image: Image) {
        self.world.put_image(self.account, self.region, image);
    }

    fn before(&self, hours: i64) -> OffsetDateTime {
        self.now - Duration::hours(hours)
    }

    /// Puts an AMI for each image that reports are about, in use as they say.
    pub(crate) fn put_images_of(&self, reports: &[Report]) {
        let mut random = self.random("images");
        let mut seen = HashSet::new();
        for report in reports {
            let Some(image_id) = report.image_id.as_deref() else {
                continue;
            };
            if seen.len() < MAX_IMAGES && seen.insert(image_id) {
                self.put(self.draw_image(image_id, &mut random));
            }
            if seen.contains(image_id) {
                self.put_usage(image_id, &report.entries);
            }
        }
    }

    fn put_usage(&self, image_id: &str, entries: &[Entry]) {
        for entry in entries {
            if let (Some(consumer), Some(resource_type), Some(count)) =
                (&entry.account_id, &entry.resource_type, entry.usage_count)
            {
                self.world
                    .set_usage(image_id, consumer, resource_type, count);
            }
        }
    }

    /// Draws an AMI that is older than every report.
    fn draw_image(&self, image_id: &str, random: &mut Random) -> Image {
        let age_hours = random.between(32 * 24, 900 * 24);
        let team = *random.pick(&["TeamA", "TeamB", "Platform"]);
        let number = random.between(1, 40);
        let mut image = Image::new(image_id)
            .named(format!(
                "{}-{number}-{}",
                team.to_lowercase(),
                random.hex(6)
            ))
            .created_at(self.before(age_hours));
        if random.chance(0.6) {
            image = image.last_launched_at(self.before(random.between(2, age_hours)));
        }
        if random.chance(0.7) {
            image = image.tagged("Owner", team);
        }
        match random.below(20) {
            0 | 1 => image = image.shared_with(random.account_id()),
            2 => image = image.public(),
            3 => image = image.in_state("disabled"),
            4 => image = image.deprecated_at(self.before(random.between(1, 20 * 24))),
            5 | 6 => {
                let source = format!("ami-{}", random.hex(17));
                image = image.copied_from(source, "us-west-2");
            }
            7 => image.description = Some("Built by \"the pipeline\" & signed".to_owned()),
            _ => {}
        }
        image
    }

    /// Puts an AMI for each verdict, with reports and resources from which it follows.
    ///
    /// `no_use_observed` needs an observation time of at most 28 days, because older reports have
    /// been deleted.
    pub(crate) fn put_images_of_verdicts(&self) {
        let mut random = self.random("verdicts");
        let mut image = |verdict: &str| {
            let image_id = format!("ami-{}", random.hex(17));
            Image::new(image_id)
                .named(format!("golden-{}", verdict.replace('_', "-")))
                .created_at(self.before(400 * 24))
                .tagged(VERDICT_TAG, verdict)
        };
        let in_use = image("in_use").last_launched_at(self.before(60));
        let no_use_observed = image("no_use_observed").last_launched_at(self.before(300 * 24));
        let gone = image("gone").in_state("deregistered");
        let last_seen_in_use = image("last_seen_in_use").last_launched_at(self.before(100 * 24));
        let unknown = image("unknown");

        self.put_weekly_reports(&in_use, &mut random, |_| 12);
        self.put_weekly_reports(&no_use_observed, &mut random, |_| 0);
        self.put_weekly_reports(&last_seen_in_use, &mut random, |age| match age {
            // The instances ended two weeks ago.
            348.. => 4,
            _ => 0,
        });
        self.put_weekly_reports(&gone, &mut random, |_| 3);
        self.put_resources(&in_use, &no_use_observed, &mut random);
        for image in [in_use, no_use_observed, gone, last_seen_in_use, unknown] {
            self.put(image);
        }
    }

    /// Puts weekly reports about everything that EC2 can report; `instances` returns the number of
    /// instances by the report's age in hours.
    fn put_weekly_reports(
        &self,
        image: &Image,
        random: &mut Random,
        instances: impl Fn(i64) -> i64,
    ) {
        let consumer = random.account_id();
        let usage_of = |count| -> Vec<Entry> {
            let entry = Entry {
                resource_type: Some("ec2:Instance".to_owned()),
                account_id: Some(consumer.clone()),
                usage_count: Some(count),
            };
            (count > 0).then_some(entry).into_iter().collect()
        };
        let reports = WEEKLY.map(|age| {
            let creation_time = self.before(age);
            Report {
                image_id: Some(image.image_id.clone()),
                report_id: Some(format!("amiur-{}", random.hex(17))),
                resource_types: every_resource_type(),
                state: Some("available".to_owned()),
                creation_time: Some(creation_time),
                expiration_time: Some(creation_time + REPORT_LIFETIME),
                entries: usage_of(instances(age)),
                ..Report::default()
            }
        });
        let latest = &reports[reports.len() - 1];
        self.put_usage(&image.image_id, &latest.entries);
        self.world.put_reports(self.account, self.region, reports);
    }

    /// Puts resources of the owner that refer to the first AMI; to the second, only one that is
    /// terminated.
    fn put_resources(&self, in_use: &Image, unused: &Image, random: &mut Random) {
        let (in_use, unused) = (&in_use.image_id, &unused.image_id);
        let mut id = |prefix: &str| format!("{prefix}-{}", random.hex(17));
        for resource in [
            Resource::instance(id("i"), in_use),
            Resource::launch_template(id("lt"), [in_use, in_use]),
            Resource::parameter("/golden/ami", in_use),
            Resource::image_recipe("golden/1.0.0", in_use),
            Resource::container_recipe("golden-web/1.0.0", in_use),
            Resource::instance(id("i"), unused).in_state("terminated"),
        ] {
            self.world.put_resource(self.account, self.region, resource);
        }
    }
}

fn every_resource_type() -> Vec<ResourceType> {
    vec![
        ResourceType::new("ec2:Instance"),
        ResourceType::new("ec2:LaunchTemplate").option("version-depth", &["10000"]),
        ResourceType::new("imagebuilder:ImageRecipe"),
        ResourceType::new("imagebuilder:ContainerRecipe"),
    ]
}
