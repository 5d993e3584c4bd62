//! An AMI and the reports about it, in words: only what matters is stated.

use image_usage_archive::domain::report::{
    ReportState, ResourceType, ResourceTypeOption, UsageReport,
};
use image_usage_archive::domain::timestamp::{SECONDS_PER_DAY, Timestamp};
use image_usage_archive::domain::usage::{
    ConsumerKey, CoverageRules, Covering, ImageLook, ImageUsage, KNOWN_RESOURCE_TYPES, Look,
    ReferencesLook, ReportLook, ReportsListed, judge,
};

pub(crate) const INSTANCE: &str = "ec2:Instance";
pub(crate) const LAUNCH_TEMPLATE: &str = "ec2:LaunchTemplate";
/// A type that EC2 may add.
pub(crate) const FLEET: &str = "ec2:Fleet";

/// EC2 deletes a report after so many days.
const LISTED_DAYS: i64 = 30;

pub(crate) fn now() -> Timestamp {
    "2026-11-22T06:00:00Z".parse().unwrap()
}

pub(crate) fn days(count: i64) -> i64 {
    count * SECONDS_PER_DAY
}

/// An adequate report, available and read, created at `now()`, without entries.
#[derive(Clone, Debug)]
pub(crate) struct AReport {
    report: UsageReport,
    is_read: bool,
    entries: Vec<(ConsumerKey, Option<i64>)>,
}

pub(crate) fn a_report() -> AReport {
    let types = KNOWN_RESOURCE_TYPES.map(|name| ResourceType {
        resource_type: Some(name.to_owned()),
        options: Vec::new(),
    });
    AReport {
        report: UsageReport {
            state: Some(ReportState::Available),
            resource_types: types.to_vec(),
            ..UsageReport::default()
        },
        is_read: true,
        entries: Vec::new(),
    }
    .created_before(0)
    .with_depth(Some("1000"))
}

/// So many adequate reports without entries, a week apart, the last of them today.
pub(crate) fn weekly(count: i64) -> Vec<AReport> {
    let weeks = (0..count).rev();
    weeks
        .map(|week| a_report().created_before(days(7 * week)))
        .collect()
}

impl AReport {
    pub(crate) fn created_before(mut self, seconds: i64) -> Self {
        self.report.report_id = Some(format!("amiur-{seconds:010}"));
        self.report.creation_time = Some(now().plus_seconds(-seconds));
        self
    }

    pub(crate) fn undated(mut self) -> Self {
        self.report.creation_time = None;
        self
    }

    pub(crate) fn in_state(mut self, word: &str) -> Self {
        self.report.state = Some(ReportState::from(word));
        self
    }

    pub(crate) fn unread(mut self) -> Self {
        self.is_read = false;
        self
    }

    pub(crate) fn about_account(mut self, account_id: &str) -> Self {
        self.report
            .requested_account_ids
            .push(account_id.to_owned());
        self
    }

    pub(crate) fn about_types(mut self, names: &[&str]) -> Self {
        let types = &mut self.report.resource_types;
        types.retain(|one| names.contains(&one.resource_type.as_deref().unwrap()));
        for name in names {
            let is_new = !types
                .iter()
                .any(|one| one.resource_type.as_deref() == Some(name));
            if is_new {
                types.push(ResourceType {
                    resource_type: Some((*name).to_owned()),
                    options: Vec::new(),
                });
            }
        }
        self
    }

    pub(crate) fn with_depth(mut self, depth: Option<&str>) -> Self {
        let depths = depth.map(|depth| ResourceTypeOption {
            name: Some("version-depth".to_owned()),
            values: vec![depth.to_owned()],
        });
        for one in &mut self.report.resource_types {
            if one.resource_type.as_deref() == Some(LAUNCH_TEMPLATE) {
                one.options = depths.clone().into_iter().collect();
            }
        }
        self
    }

    /// Names launch templates for a second time, without a depth.
    pub(crate) fn with_another_launch_template(mut self) -> Self {
        self.report.resource_types.push(ResourceType {
            resource_type: Some(LAUNCH_TEMPLATE.to_owned()),
            options: Vec::new(),
        });
        self
    }

    pub(crate) fn showing(self, account_id: &str, resource_type: &str, count: i64) -> Self {
        self.showing_entry(Some(account_id), Some(resource_type), Some(count))
    }

    pub(crate) fn showing_entry(
        mut self,
        account_id: Option<&str>,
        resource_type: Option<&str>,
        count: Option<i64>,
    ) -> Self {
        let consumer = ConsumerKey {
            consumer_account_id: account_id.map(str::to_owned),
            resource_type: resource_type.map(str::to_owned),
        };
        self.entries.push((consumer, count));
        self
    }

    pub(crate) fn showing_use(self) -> Self {
        self.showing("210987654321", INSTANCE, 12)
    }

    fn is_available(&self) -> bool {
        self.report.state == Some(ReportState::Available)
    }

    fn is_listed(&self) -> bool {
        self.report
            .creation_time
            .is_none_or(|created| now().seconds_since(created) < days(LISTED_DAYS))
    }

    pub(crate) fn observe(&self, usage: &mut ImageUsage) {
        let look = ReportLook::of(&self.report).unwrap();
        usage.observe_report(&look, "entries", now());
        for (consumer, count) in &self.entries {
            usage.observe_use(&look, consumer.clone(), *count, now());
        }
        usage.end_report();
    }
}

/// An AMI of 400 days that this run has read, as it has its target; references are not wanted.
pub(crate) struct AnAmi {
    usage: ImageUsage,
    reports: ReportsListed,
    observation_days: u32,
    is_target_read: bool,
    image: ImageLook,
    references: ReferencesLook,
}

pub(crate) fn an_ami() -> AnAmi {
    AnAmi {
        usage: ImageUsage::default(),
        reports: ReportsListed::default(),
        observation_days: 30,
        is_target_read: true,
        image: ImageLook::Read {
            creation_time: Some(now().plus_seconds(-days(400))),
        },
        references: ReferencesLook::NotWanted,
    }
}

impl AnAmi {
    pub(crate) fn reported(mut self, reports: impl IntoIterator<Item = AReport>) -> Self {
        for report in reports {
            let has_archived_entries = report.is_available() && report.is_read;
            if has_archived_entries {
                report.observe(&mut self.usage);
            }
            if report.is_listed() {
                self.reports.add(&report.report, has_archived_entries);
            }
        }
        self
    }

    pub(crate) fn observed_for(mut self, days: u32) -> Self {
        self.observation_days = days;
        self
    }

    pub(crate) fn in_a_target_that_was_not_read(mut self) -> Self {
        self.is_target_read = false;
        self
    }

    pub(crate) fn not_read(mut self) -> Self {
        self.image = ImageLook::NotRead;
        self
    }

    pub(crate) fn absent(mut self) -> Self {
        self.image = ImageLook::Absent;
        self
    }

    pub(crate) fn created_before(mut self, seconds: impl Into<Option<i64>>) -> Self {
        let seconds = seconds.into();
        self.image = ImageLook::Read {
            creation_time: seconds.map(|seconds| now().plus_seconds(-seconds)),
        };
        self
    }

    pub(crate) fn launched_before(mut self, seconds: i64) -> Self {
        let launched = now().plus_seconds(-seconds);
        self.usage.observe_launches(Some(launched), now());
        self
    }

    /// This run has checked its references and found some, or none.
    pub(crate) fn with_references(mut self, found: bool) -> Self {
        self.usage.observe_references(found, now());
        self.references = ReferencesLook::Checked;
        self
    }

    /// An earlier run has checked its references and found some.
    pub(crate) fn with_references_found_before(mut self, seconds: i64) -> Self {
        let at = now().plus_seconds(-seconds);
        self.usage.observe_references(true, at);
        self
    }

    pub(crate) fn with_references_not_checked(mut self) -> Self {
        self.references = ReferencesLook::NotChecked;
        self
    }

    /// What its reports say together.
    pub(crate) fn listed(self) -> ReportsListed {
        self.reports.summary()
    }

    /// The coverage with a limit of 14 days, and after a colon why it is uncovered.
    pub(crate) fn coverage(self) -> String {
        let rules = CoverageRules {
            renew_after_days: 7,
            pending_limit_hours: 24,
            ..CoverageRules::default()
        };
        match rules.evaluate(&self.reports.summary(), now()) {
            Covering::Covered => "covered".to_owned(),
            Covering::Pending => "pending".to_owned(),
            Covering::Uncovered(gap) => format!("uncovered: {gap:?}"),
        }
    }

    /// The verdict, and its reasons after a colon.
    pub(crate) fn verdict(mut self) -> String {
        self.usage.settle(now());
        let judgement = judge(
            &self.usage,
            &Look {
                started_at: now(),
                observation_days: self.observation_days,
                is_target_read: self.is_target_read,
                image: self.image,
                reports: &self.reports.summary(),
                references: self.references,
            },
        );
        let verdict = judgement.verdict.as_str();
        match judgement.reasons.is_empty() {
            true => verdict.to_owned(),
            false => {
                let codes: Vec<&str> = judgement.reasons.iter().map(|one| one.as_str()).collect();
                format!("{verdict}: {}", codes.join(", "))
            }
        }
    }
}
