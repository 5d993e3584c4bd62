//! Which newer report of the same AMI a finding names for a report that is about to expire.

use std::collections::BTreeMap;

use local_aws::{Report, ResourceType};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{But, Days, OTHER_REGION, REGION, TWO_REGIONS, text, used};

/// A report that is about to expire, ten days old.
fn older() -> Report {
    used("", 1).expiring_in(Duration::days(2))
}

/// A report that is three days old.
fn newer() -> Report {
    used("", 1)
        .created_ago(Duration::days(3))
        .expiring_in(Duration::days(27))
}

/// What a report covers.
trait Covering {
    fn of_accounts(self, accounts: &[&str]) -> Self;
    fn of_types(self, types: &[&str]) -> Self;
    fn of_depth(self, depth: &str) -> Self;
}

impl Covering for Report {
    fn of_accounts(mut self, accounts: &[&str]) -> Self {
        self.account_ids = accounts.iter().map(ToString::to_string).collect();
        self
    }

    fn of_types(mut self, types: &[&str]) -> Self {
        self.resource_types = types.iter().map(|kind| ResourceType::new(*kind)).collect();
        self
    }

    fn of_depth(mut self, depth: &str) -> Self {
        let templates = ResourceType::new(TEMPLATE).option("version-depth", &[depth]);
        self.resource_types = vec![templates];
        self
    }
}

const INSTANCE: &str = "ec2:Instance";
const TEMPLATE: &str = "ec2:LaunchTemplate";

/// An older report that is about to expire, a newer one of the same AMI, and whether it supersedes the older.
#[rustfmt::skip]
fn pairs() -> Vec<(&'static str, Report, Report, bool)> {
    let (a, b) = ("444455556666", "555566667777");
    let undated = Report { creation_time: None, ..newer() };
    vec![
        ("available", older(), newer(), true),
        ("pending", older(), newer().in_state("pending"), true),
        ("failed", older(), newer().in_state("error"), false),
        ("in an unknown state", older(), newer().in_state("archived"), false),
        ("created earlier", older(), newer().created_ago(Duration::days(11)), false),
        ("created at the same time", older(), newer().created_ago(Duration::days(10)), false),
        ("without a creation time", older(), undated, false),
        ("more accounts", older().of_accounts(&[a]), newer().of_accounts(&[b, a]), true),
        ("fewer accounts", older().of_accounts(&[a, b]), newer().of_accounts(&[a]), false),
        ("other accounts", older().of_accounts(&[a]), newer().of_accounts(&[b]), false),
        ("all accounts", older().of_accounts(&[a]), newer(), true),
        ("some instead of all accounts", older(), newer().of_accounts(&[a, b]), false),
        ("more types", older().of_types(&[INSTANCE]), newer().of_types(&[TEMPLATE, INSTANCE]), true),
        ("fewer types", older().of_types(&[INSTANCE, TEMPLATE]), newer().of_types(&[INSTANCE]), false),
        ("other types", older().of_types(&[INSTANCE]), newer().of_types(&[TEMPLATE]), false),
        ("deeper", older().of_depth("50"), newer().of_depth("100"), true),
        ("as deep", older().of_depth("50"), newer().of_depth("50"), true),
        ("less deep", older().of_depth("100"), newer().of_depth("50"), false),
        ("deeper only as text", older().of_depth("100"), newer().of_depth("20"), false),
        ("as deep as the default", older().of_types(&[TEMPLATE]), newer().of_depth("20"), true),
        ("less deep than the default", older().of_types(&[TEMPLATE]), newer().of_depth("19"), false),
        ("only as deep as the default", older().of_depth("21"), newer().of_types(&[TEMPLATE]), false),
    ]
}

/// The report that supersedes each expiring one, by the latter's ID.
fn superseded_by(snapshot: &Value) -> BTreeMap<&str, &Value> {
    let findings = snapshot["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["kind"] == "expiring")
        .map(|finding| (text(&finding["report_id"]), &finding["superseded_by"]))
        .collect()
}

#[tokio::test]
async fn an_expiring_report_names_the_newer_one_that_covers_as_much() {
    let days = Days::of(&[REGION]).await;
    let pairs = pairs();
    for (number, (_, older, newer, _)) in pairs.iter().enumerate() {
        let mut reports = [("newer", newer), ("older", older)].map(|(name, report)| Report {
            report_id: Some(format!("amiur-{name}-{number}")),
            ..report.clone().of_image(&format!("ami-{number}"))
        });
        // EC2's order says nothing about the age.
        if number % 2 == 0 {
            reports.reverse();
        }
        days.put(REGION, reports);
    }
    let snapshot = days.run().await;
    let superseded_by = superseded_by(&snapshot);
    for (number, (case, _, _, supersedes)) in pairs.iter().enumerate() {
        let expected = match supersedes {
            true => json!(format!("amiur-newer-{number}")),
            false => Value::Null,
        };
        let found = superseded_by[format!("amiur-older-{number}").as_str()];
        assert_eq!(*found, expected, "{case}");
    }
    assert_eq!(superseded_by.len(), pairs.len());
}

#[tokio::test]
async fn a_report_of_another_region_or_without_an_ami_supersedes_nothing() {
    let days = Days::of(&TWO_REGIONS).await;
    let two_days = Duration::days(2);
    let alone = used("amiur-alone", 1).expiring_in(two_days);
    let elsewhere = used("amiur-elsewhere", 1).created_ago(Duration::days(3));
    days.put(REGION, [alone.of_image("ami-alone")]);
    days.put(OTHER_REGION, [elsewhere.of_image("ami-alone")]);
    let without_ami = |report: Report| Report {
        image_id: None,
        ..report
    };
    days.put(
        REGION,
        [
            without_ami(used("amiur-no-image-older", 1).expiring_in(two_days)),
            without_ami(used("amiur-no-image-newer", 1).created_ago(Duration::days(3))),
        ],
    );
    let snapshot = days.run().await;
    let none = Value::Null;
    let expected = BTreeMap::from([("amiur-alone", &none), ("amiur-no-image-older", &none)]);
    assert_eq!(superseded_by(&snapshot), expected);
}

#[tokio::test]
async fn of_several_newer_reports_an_available_one_is_named_rather_than_a_pending_one() {
    let days_ago = Duration::days;
    let days = Days::with_reports([
        used("amiur-pending", 0)
            .created_ago(days_ago(1))
            .in_state("pending"),
        used("amiur-error", 0)
            .created_ago(days_ago(2))
            .in_state("error"),
        used("amiur-available", 1).created_ago(days_ago(5)),
        used("amiur-old", 1).expiring_in(Duration::DAY),
    ])
    .await;
    let snapshot = days.run().await;
    let findings = snapshot["findings"].as_array().unwrap().iter();
    let of_old: Vec<&Value> = findings
        .filter(|finding| finding["report_id"] == "amiur-old")
        .map(|finding| &finding["superseded_by"])
        .collect();
    assert_eq!(of_old, ["amiur-available"]);
}
