//! Who uses an AMI: where the entries of created reports come from.

use crate::world::{Entry, Report, State, World};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// The numbers of resources by AMI, then by account and resource type.
///
/// An AMI without users has an empty map; one of which nothing is known has none.
#[derive(Debug, Default)]
pub(crate) struct Usage(BTreeMap<String, BTreeMap<(String, String), i64>>);

/// A pending report whose entries will be the usage at the moment when it becomes `available`.
#[derive(Debug)]
pub(crate) struct Awaiting {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) sequence: u64,
    pub(crate) ends_at: OffsetDateTime,
}

impl Usage {
    /// Returns the entries of a report: its image's users of the requested accounts and types.
    fn entries(&self, report: &Report) -> Vec<Entry> {
        let image_id = report.image_id.as_deref().unwrap_or_default();
        let is_requested = |account: &String, resource_type: &String| {
            let mut types = report.resource_types.iter();
            (report.account_ids.is_empty() || report.account_ids.contains(account))
                && types.any(|it| it.resource_type.as_ref() == Some(resource_type))
        };
        let users = self.0.get(image_id).into_iter().flatten();
        users
            .filter(|((account, resource_type), _)| is_requested(account, resource_type))
            .map(|((account, resource_type), count)| Entry {
                resource_type: Some(resource_type.clone()),
                account_id: Some(account.clone()),
                usage_count: Some(*count),
            })
            .collect()
    }
}

impl State {
    /// Returns whether the world says who uses an AMI: it holds the AMI, or a usage of it.
    pub(crate) fn knows_usage(&mut self, region: &str, image_id: &str) -> bool {
        self.usage.0.contains_key(image_id) || self.images(region).get(image_id).is_some()
    }

    /// Writes the entries of the reports that have become `available` by `now`.
    pub(crate) fn settle_entries(&mut self, now: OffsetDateTime) {
        let due: Vec<_> = self
            .awaiting_entries
            .extract_if(.., |awaiting| awaiting.ends_at <= now)
            .collect();
        for awaiting in due {
            let key = (awaiting.account, awaiting.region);
            let target = self.targets.get_mut(&key);
            if let Some(report) = target.and_then(|it| it.report_mut(awaiting.sequence))
                && report.state_at(awaiting.ends_at).0 == Some("available")
            {
                report.entries = self.usage.entries(report);
            }
        }
    }
}

impl World {
    /// Sets how many resources of a type use an AMI in an account; 0 means none.
    ///
    /// Reports about the AMI that are created from now on have the usage at the moment when they
    /// become `available` as entries. Reports about an AMI that the world neither holds nor has a
    /// usage of have random entries.
    pub fn set_usage(&self, image_id: &str, consumer: &str, resource_type: &str, count: i64) {
        let now = self.now();
        let mut state = self.lock();
        // Reports that are available by now have the usage until now.
        state.settle_entries(now);
        let users = state.usage.0.entry(image_id.to_owned()).or_default();
        let user = (consumer.to_owned(), resource_type.to_owned());
        match count {
            0 => drop(users.remove(&user)),
            count => drop(users.insert(user, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ResourceType;

    #[test]
    fn entries_are_the_users_of_the_requested_accounts_and_types() {
        let world = World::builder().build();
        let image_id = "ami-0abcdef1234567890";
        for (account, resource_type, count) in [
            ("444455556666", "ec2:Instance", 3),
            ("444455556666", "ec2:LaunchTemplate", 1),
            ("777788889999", "ec2:Instance", 2),
            ("888899990000", "ec2:Instance", 5),
            ("888899990000", "ec2:Instance", 0),
        ] {
            world.set_usage(image_id, account, resource_type, count);
        }
        let entries = |account_ids: &[&str], resource_type: &str| -> Vec<_> {
            let report = Report {
                image_id: Some(image_id.to_owned()),
                resource_types: vec![ResourceType::new(resource_type)],
                account_ids: account_ids.iter().map(ToString::to_string).collect(),
                ..Report::default()
            };
            let entries = world.lock().usage.entries(&report);
            entries
                .into_iter()
                .map(|entry| (entry.account_id.unwrap(), entry.usage_count.unwrap()))
                .collect()
        };
        let four = ("444455556666".to_owned(), 3);
        let seven = ("777788889999".to_owned(), 2);
        assert_eq!(entries(&[], "ec2:Instance"), [four.clone(), seven]);
        assert_eq!(entries(&["444455556666"], "ec2:Instance"), [four]);
        assert_eq!(entries(&["777788889999"], "ec2:LaunchTemplate"), []);
    }
}
