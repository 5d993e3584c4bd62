//! Properties that hold for any input, however hostile.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use image_usage_archive::domain::report::{ResourceType, ResourceTypeOption, UsageReport};
use image_usage_archive::domain::run_id::{Attempt, RunId};
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::{Layout, ObjectKind};
use image_usage_auditor::request::Invoked;
use image_usage_auditor::settings::Settings;
use local_aws::{Report, Tag};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

use crate::harness::{
    ACCOUNT, NOW, REGION, audit, local_aws, now, scheduled_event, target, text, world,
};

#[path = "../fuzz/src/page.rs"]
pub(crate) mod page;
#[path = "../fuzz/src/payload.rs"]
pub(crate) mod payload;

/// This number of cases, the same ones each time unless `PROPTEST_RNG_SEED` is set.
fn cases(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig::with_cases(cases);
    config.failure_persistence = None;
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(20_261_122);
    }
    config
}

/// Texts that have broken programs before.
pub(crate) const NASTY: [&str; 20] = [
    "",
    " ",
    "\t \n",
    "../",
    "../../v1/latest.json",
    "a\nb",
    "a\r\nb\r",
    "\u{2028}\u{2029}\u{85}",
    "\"",
    "\\",
    "\\u0000\\",
    "'; --",
    "`{}`",
    "]]>",
    "<item/>",
    "&amp;&#10;&lt;",
    "{\"level\":\"ERROR\"}",
    "\u{feff}\u{202e}\u{7f}",
    "null",
    "=cmd()",
];

/// Any text that XML 1.0 can carry, of up to 256 characters, as EC2's tag values have.
fn xml_text() -> impl Strategy<Value = String> {
    let allowed = proptest::char::ranges(Cow::Borrowed(&[
        '\t'..='\n',
        '\r'..='\r',
        ' '..='\u{d7ff}',
        '\u{e000}'..='\u{fffd}',
        '\u{10000}'..='\u{10ffff}',
    ]));
    prop_oneof![
        3 => proptest::sample::select(&NASTY[..]).prop_map(str::to_owned),
        2 => vec(allowed.clone(), 0..40).prop_map(String::from_iter),
        1 => vec(allowed, 256).prop_map(String::from_iter),
        1 => vec(proptest::sample::select(&NASTY[..]), 2..6).prop_map(|texts| texts.concat()),
    ]
}

/// Any text, including the control characters that XML 1.0 cannot carry.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        xml_text(),
        vec(any::<char>(), 0..40).prop_map(String::from_iter),
        vec(proptest::char::range('\0', '\u{1f}'), 1..8).prop_map(String::from_iter),
    ]
}

/// Any value of JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(any_text(), inner, 0..6).prop_map(|members| Map::from_iter(members).into()),
        ]
    })
}

/// A payload that is nearly valid: known fields, some with values of the right kind.
fn near_payload() -> impl Strategy<Value = Value> {
    let names = proptest::sample::select(vec![
        "regions",
        "account_ids",
        "image_ids",
        "report_ids",
        "filters",
        "max_results",
        "scheduled_at",
        "dry_run",
        "detail-type",
        "source",
        "id",
        "time",
        "detail",
    ]);
    let filter = (any_text(), vec(any_text(), 0..3))
        .prop_map(|(name, values)| json!({"name": name, "values": values}));
    let value = prop_oneof![
        any_json(),
        vec(any_text(), 0..4).prop_map(Value::from),
        vec(filter, 0..3).prop_map(Value::from),
        proptest::sample::select(vec![
            json!("Scheduled Event"),
            json!("aws.events"),
            json!("aws.scheduler"),
            json!("2026-11-22T06:00:00Z"),
            json!("0000-01-01T00:00:00+00:01"),
            json!("9999-12-31T23:59:60.999999999Z"),
            json!(["eu-west-1"]),
            json!(["111122223333"]),
            json!(true),
            json!(500),
        ]),
    ];
    btree_map(names.prop_map(str::to_owned), value, 0..5)
        .prop_map(|members| Map::from_iter(members).into())
}

/// A scheduled event with any ID.
fn event() -> impl Strategy<Value = Value> {
    any_text().prop_map(|id| {
        let mut event = scheduled_event();
        event["id"] = id.into();
        event
    })
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn any_payload_is_a_request_or_is_refused_with_a_message(
        given in prop_oneof![any_json(), near_payload(), event()],
    ) {
        payload::check_outcome(Invoked::from_payload(given, NOW.parse().unwrap()));
    }
}

const VARIABLES: [&str; 10] = [
    "AUDITOR_ARCHIVE_BUCKET",
    "AUDITOR_ARCHIVE_PREFIX",
    "AUDITOR_REGIONS",
    "AUDITOR_ACCOUNTS",
    "AUDITOR_ROLE_NAME",
    "AUDITOR_EXTERNAL_ID",
    "AUDITOR_EXPIRY_WINDOW_DAYS",
    "AUDITOR_PENDING_LIMIT_HOURS",
    "AUDITOR_MAX_CONCURRENT_TARGETS",
    "AUDITOR_PAGE_SIZE",
];

fn settings(variables: &BTreeMap<&str, String>) -> Result<Settings, String> {
    Settings::from_variables(|name| variables.get(name).cloned()).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn any_settings_are_accepted_or_refused_with_the_name_of_their_variable(
        index in 0..VARIABLES.len(),
        value in prop_oneof![any_text(), "[0-9]{0,12}", "[a-z0-9.-]{0,70}", "([a-z./]{0,4}/){0,4}"],
    ) {
        let mut variables = BTreeMap::from([("AUDITOR_ARCHIVE_BUCKET", "archive".to_owned())]);
        variables.insert(VARIABLES[index], value.clone());
        match settings(&variables) {
            Ok(settings) => {
                prop_assert!(settings.max_concurrent_targets <= 64);
                prop_assert!(settings.page_size.is_none_or(|size| (1..=1_000).contains(&size)));
                prop_assert!(settings.policy.expiry_window_days <= 30);
                prop_assert!(settings.policy.pending_limit_hours >= 1);
                check_key(&settings.archive_prefix.latest());
            }
            Err(refusal) => {
                prop_assert!(
                    refusal.starts_with(VARIABLES[index]) || refusal.starts_with("AUDITOR_ROLE_NAME"),
                    "{refusal}"
                );
                one_line(&refusal);
            }
        }
    }

    #[test]
    fn a_refused_external_id_is_not_repeated(value in "[a-z]{12,20}[ \"{}\n\u{1}é]") {
        let variables = BTreeMap::from([
            ("AUDITOR_ARCHIVE_BUCKET", "archive".to_owned()),
            ("AUDITOR_EXTERNAL_ID", value.clone()),
        ]);
        let refusal = settings(&variables).unwrap_err();
        prop_assert!(!refusal.contains(&value[..12]), "{refusal}");
    }

    #[test]
    fn every_key_stays_inside_the_prefix(
        prefix in prop_oneof![any_text(), "([a-z0-9._ é-]{0,9}/){0,4}"],
        region in prop_oneof![any_text(), "[a-z]{1,9}(-[a-z]{1,9}){1,2}-[0-9]{1,3}"],
        account_id in prop_oneof![any_text(), "[0-9]{11,13}"],
        event_id in any_text(),
        seconds in -62_167_219_200_i64..253_402_300_800,
    ) {
        let prefix_text = prefix;
        let (Ok(prefix), Ok(region), Ok(account_id)) = (
            prefix_text.parse::<Layout>(),
            region.parse::<Region>(),
            account_id.parse::<AccountId>(),
        ) else {
            return Ok(());
        };
        let scheduled_at = Timestamp::from_unix(seconds, 0).unwrap();
        let target = Target { account_id, region };
        for run in [
            RunId::of_event(scheduled_at, &event_id),
            RunId::of_request(scheduled_at, &event_id),
        ] {
            for key in [
                prefix.object(ObjectKind::Reports, &run, Attempt::from_bits(7), scheduled_at, &target),
                prefix.snapshot(&run, scheduled_at),
                prefix.latest(),
            ] {
                check_key(&key);
                let own = key.strip_prefix(&prefix_text).unwrap();
                prop_assert!(own.starts_with("v1/"), "{key:?}");
                let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"/=-._".contains(&byte);
                prop_assert!(own.bytes().all(harmless), "{key:?}");
            }
        }
    }
}

/// Checks that a key means the same as an object, as a path on disk and in a URL.
fn check_key(key: &str) {
    assert!(key.len() <= 1_024, "{key:?}");
    assert!(!key.chars().any(char::is_control), "{key:?}");
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    assert!(!key.split('/').any(odd), "{key:?}");
}

fn one_line<T: serde::Serialize + ?Sized>(value: &T) {
    let line = serde_json::to_vec(value).unwrap();
    assert!(!line.iter().any(|&byte| byte < b' '), "{line:?}");
    serde_json::from_slice::<Value>(&line).unwrap();
}

fn known_target() -> Target {
    Target {
        account_id: ACCOUNT.parse().unwrap(),
        region: REGION.parse().unwrap(),
    }
}

prop_compose! {
    fn any_report()(
        (report_id, image_id, state, state_reason) in (
            proptest::option::of(any_text()),
            proptest::option::of(any_text()),
            proptest::option::of(prop_oneof![
                any_text(),
                proptest::sample::select(vec!["available", "pending", "error"]).prop_map(str::to_owned),
            ]),
            proptest::option::of(any_text()),
        ),
        creation in proptest::option::of((-62_167_219_200_i64..253_402_300_800, 0_u32..1_000_000_000)),
        expiration in proptest::option::of((-62_167_219_200_i64..253_402_300_800, 0_u32..1_000_000_000)),
        requested_account_ids in vec(any_text(), 0..3),
        tags in btree_map(any_text(), proptest::option::of(any_text()), 0..4),
        options in vec((proptest::option::of(any_text()), vec(any_text(), 0..3)), 0..3),
        resource_type in proptest::option::of(any_text()),
    ) -> UsageReport {
        let time = |(seconds, nanoseconds)| Timestamp::from_unix(seconds, nanoseconds).unwrap();
        UsageReport {
            report_id,
            image_id,
            state: state.map(Into::into),
            state_reason,
            creation_time: creation.map(time),
            expiration_time: expiration.map(time),
            resource_types: vec![ResourceType {
                resource_type,
                options: options
                    .into_iter()
                    .map(|(name, values)| ResourceTypeOption { name, values })
                    .collect(),
            }],
            requested_account_ids,
            tags,
        }
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_report_of_any_texts_is_one_line_from_which_they_can_be_read(report in any_report()) {
        page::check_line(&known_target(), &report);
    }
}

prop_compose! {
    /// A report of any texts that XML can carry.
    fn carried_report()(
        image_id in proptest::option::of(xml_text()),
        report_id in xml_text(),
        state in proptest::option::of(prop_oneof![
            xml_text(),
            proptest::sample::select(vec!["available", "pending", "error"]).prop_map(str::to_owned),
        ]),
        state_reason in proptest::option::of(xml_text()),
        account_ids in vec(xml_text(), 0..3),
        tags in btree_map(xml_text(), xml_text(), 0..5),
        (resource_type, option, values) in (xml_text(), xml_text(), vec(xml_text(), 0..3)),
    ) -> Report {
        let option = local_aws::ResourceTypeOption { name: Some(option), values };
        Report {
            image_id,
            report_id: Some(report_id),
            state,
            state_reason,
            resource_types: vec![local_aws::ResourceType {
                resource_type: Some(resource_type),
                options: vec![option],
            }],
            account_ids,
            creation_time: Some(now() - time::Duration::days(1)),
            expiration_time: Some(now() + time::Duration::days(1)),
            tags: tags.into_iter().map(|(key, value)| Tag::new(key, value)).collect(),
            ..Report::default()
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn what_ec2_returns_is_archived_verbatim(reports in vec(carried_report(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(check_run(reports));
    }
}

async fn check_run(mut reports: Vec<Report>) {
    for (index, report) in reports.iter_mut().enumerate() {
        // Two reports of one ID are one report.
        let id = report.report_id.as_mut().unwrap();
        id.push_str(&index.to_string());
    }
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, reports.clone());
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, REGION).await;
    let snapshot = archive.snapshot(&summary);
    assert_eq!(snapshot["status"], "complete");
    let written = archive.unzipped(text(&target(&snapshot, REGION)["object"]["key"]));
    let lines: Vec<&str> = written.trim_end_matches('\n').split('\n').collect();
    assert_eq!(lines.len(), reports.len());
    for (line, report) in lines.iter().zip(&reports) {
        check_line(line, report);
    }
    let keys: BTreeSet<String> = archive.objects().into_keys().collect();
    assert!(
        keys.iter().all(|key| key.starts_with("image-usage/v1/")),
        "{keys:?}"
    );
    // Reports, snapshot and `latest.json`; entries if a report is available, and AMIs if it names one.
    let count = |kind: &str| keys.iter().filter(|key| key.contains(kind)).count();
    let (entries, images) = (count("/entries/"), count("/images/"));
    assert!(entries <= 1 && images <= 1, "{keys:?}");
    assert_eq!(keys.len(), 3 + entries + images, "{keys:?}");
}

fn check_line(line: &str, report: &Report) {
    assert!(!line.bytes().any(|byte| byte < b' '), "{line:?}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["report_id"], json!(report.report_id));
    assert_eq!(line["image_id"], json!(report.image_id));
    assert_eq!(line["state"], json!(report.state));
    assert_eq!(line["state_reason"], json!(report.state_reason));
    assert_eq!(line["requested_account_ids"], json!(report.account_ids));
    let kind = &report.resource_types[0];
    let expected = json!([{
        "resource_type": kind.resource_type,
        "options": [{"name": kind.options[0].name, "values": kind.options[0].values}],
    }]);
    assert_eq!(line["resource_types"], expected);
    let tags = report.tags.iter();
    let tags: BTreeMap<_, _> = tags
        .map(|tag| (tag.key.clone().unwrap(), &tag.value))
        .collect();
    assert_eq!(line["tags"], json!(tags));
}
