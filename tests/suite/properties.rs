//! Input that wants something else than to be read: properties that hold for any of it.
//!
//! `make fuzz` runs the checks of [`payload`] and [`page`] on inputs that libFuzzer makes up; here they
//! run on the same seeds and on a fixed set of mutations of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use futures_util::{StreamExt, stream};
use image_usage_archive::domain::report::{ResourceType, ResourceTypeOption, UsageReport};
use image_usage_archive::domain::run_id::{Attempt, RunId};
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::Layout;
use image_usage_auditor::request::Request;
use image_usage_auditor::settings::Settings;
use local_aws::{Report, Tag};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

use crate::harness::{
    ACCOUNT, Archive, NOW, auditor, local_aws, now, project_file, run, scheduled_event, target,
    text, world,
};

#[path = "../fuzz/src/page.rs"]
mod page;
#[path = "../fuzz/src/payload.rs"]
mod payload;

/// So many cases, the same ones each time unless `PROPTEST_RNG_SEED` says other.
fn cases(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig::with_cases(cases);
    config.failure_persistence = None;
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(20_261_122);
    }
    config
}

/// Texts that have broken programs before.
const NASTY: [&str; 20] = [
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

/// Any text at all, with the control characters that XML 1.0 can't carry.
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

/// A payload that is nearly right: known members, some with values of the right kind.
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
    fn any_payload_is_a_request_or_is_refused_in_words(
        given in prop_oneof![any_json(), near_payload(), event()],
    ) {
        match Request::from_payload(given, NOW.parse().unwrap()) {
            Ok(request) => payload::check_request(&request),
            Err(refusal) => payload::check_refusal(&refusal),
        }
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
    fn any_settings_are_understood_or_refused_with_their_variable(
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
                prefix.reports(&run, Attempt::from_bits(7), scheduled_at, &target),
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

/// Checks that a key names one place whoever reads it: a store, a path on disk, a URL.
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
        region: "us-east-1".parse().unwrap(),
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
    fn a_report_of_any_texts_is_one_line_that_gives_them_back(report in any_report()) {
        page::check_line(&known_target(), &report);
    }
}

prop_compose! {
    /// What EC2 could hold, as far as XML can carry it.
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
    fn what_goes_over_the_wire_is_archived_word_for_word(reports in vec(carried_report(), 1..40)) {
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
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", reports.clone());
    let aws = local_aws(&world).await;
    let summary = run(&auditor(&aws, &[]).await, scheduled_event())
        .await
        .unwrap();
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    assert_eq!(snapshot["status"], "complete");
    let key = text(&target(&snapshot, "us-east-1")["object"]["key"]);
    let mut lines = Vec::new();
    MultiGzDecoder::new(archive.bytes(key).as_slice())
        .read_to_end(&mut lines)
        .unwrap();
    assert_eq!(lines.pop(), Some(b'\n'));
    let lines: Vec<&[u8]> = lines.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), reports.len());
    for (line, report) in lines.iter().zip(&reports) {
        assert!(!line.iter().any(|&byte| byte < b' '), "{line:?}");
        let line: Value = serde_json::from_slice(line).unwrap();
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
        let tags: BTreeMap<_, _> = report
            .tags
            .iter()
            .map(|tag| (tag.key.clone().unwrap(), tag.value.clone()))
            .collect();
        assert_eq!(line["tags"], json!(tags));
    }
    let keys: BTreeSet<String> = archive.objects().into_keys().collect();
    assert!(
        keys.iter().all(|key| key.starts_with("image-usage/v1/")),
        "{keys:?}"
    );
    // The entries too, where a report is available.
    let entries = keys.iter().filter(|key| key.contains("/entries/")).count();
    assert!(entries <= 1 && keys.len() == 3 + entries, "{keys:?}");
}

/// The seeds of a fuzz target by their names.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(project_file("tests/fuzz/corpus").join(target))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Changes inputs in the ways of a fuzzer, the same ones each time.
struct Mutations {
    seeds: Vec<Vec<u8>>,
    state: u64,
}

impl Mutations {
    fn of(target: &str) -> Self {
        Self {
            seeds: corpus(target).into_values().collect(),
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Draws a number below the limit (xorshift64*).
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        drawn as usize % limit.max(1)
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.below(self.seeds.len());
        self.seeds[index].clone()
    }

    /// A stretch of up to 64 bytes.
    fn stretch(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let end = (start + self.below(64)).min(length);
        start..end
    }

    fn mutate(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..=self.below(4) {
            let place = self.stretch(input.len());
            match self.below(6) {
                0 => {
                    input.drain(place);
                }
                1 => input.truncate(place.start),
                2 => {
                    let twice = input[place.clone()].to_vec();
                    input.splice(place.start..place.start, twice);
                }
                3 => {
                    let other = self.seed();
                    let stretch = self.stretch(other.len());
                    input.splice(place, other[stretch].iter().copied());
                }
                4 => {
                    let text = NASTY[self.below(NASTY.len())];
                    input.splice(place.start..place.start, text.bytes());
                }
                _ => {
                    if let Some(byte) = input.get_mut(place.start) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        input
    }
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        Some(self.mutate())
    }
}

#[test]
fn the_seeds_of_the_payload_fuzzer_and_their_mutations_are_understood_or_refused() {
    for (_, payload) in corpus("payload") {
        payload::check(&payload);
    }
    for payload in Mutations::of("payload").take(5_000) {
        payload::check(&payload);
    }
}

/// Pages asked for at a time; most of the waiting is for a malformed answer to be asked for again.
const PAGES_AT_A_TIME: usize = 64;

#[tokio::test]
async fn the_seeds_of_the_page_fuzzer_and_their_mutations_give_lines_or_a_failure() {
    let ec2 = page::ReplayedEc2::start().await;
    let pages = corpus("page")
        .into_values()
        .chain(Mutations::of("page").take(2_000));
    stream::iter(pages)
        .for_each_concurrent(PAGES_AT_A_TIME, |page| {
            let ec2 = &ec2;
            async move { ec2.check(&page).await }
        })
        .await;
}

#[tokio::test]
async fn an_entity_that_is_none_of_xmls_own_is_never_expanded() {
    let ec2 = page::ReplayedEc2::start().await;
    for name in ["unknown-entity", "entity-bomb", "external-entity"] {
        let seed = &corpus("page")[&format!("{name}.xml")];
        let read = ec2.read(200, seed).await;
        assert!(read.is_err(), "{name}: {read:?}");
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_read_in_full_is_asked_for_again_and_never_taken_in_part() {
    let ec2 = page::ReplayedEc2::start().await;
    let seeds = ["bad-reference", "cut", "error", "not-utf8", "two-roots"];
    for name in seeds {
        let seed = &corpus("page")[&format!("{name}.xml")];
        let failure = ec2.read(200, seed).await.expect_err(name);
        assert_eq!(failure.code, page::SECOND_ANSWER, "{name}: {failure:?}");
    }
}

#[tokio::test]
async fn a_time_that_cannot_be_read_costs_its_report_that_time_and_nothing_else() {
    let ec2 = page::ReplayedEc2::start().await;
    for name in ["bad-time", "year-10000"] {
        let seed = &corpus("page")[&format!("{name}.xml")];
        let reports = ec2.read(200, seed).await.unwrap();
        assert!(!reports.is_empty(), "{name}");
        let lacks_a_time = |report: &UsageReport| {
            report.report_id.is_some()
                && (report.creation_time.is_none() || report.expiration_time.is_none())
        };
        assert!(reports.iter().any(lacks_a_time), "{name}: {reports:?}");
    }
}
