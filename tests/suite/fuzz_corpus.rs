//! The corpus of the fuzz targets, and a fixed set of mutations of it.
//!
//! `make fuzz` runs the same checks, [`payload`] and [`page`], on inputs that libFuzzer makes up.

use std::collections::BTreeMap;
use std::fs;

use futures_util::{StreamExt, stream};
use image_usage_archive::domain::report::UsageReport;

use crate::harness::project_file;
use crate::properties::{NASTY, page, payload};

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

/// Mutates inputs as a fuzzer does, the same way each time.
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
fn every_payload_of_the_corpus_and_its_mutations_is_accepted_or_refused() {
    for (_, payload) in corpus("payload") {
        payload::check(&payload);
    }
    for payload in Mutations::of("payload").take(5_000) {
        payload::check(&payload);
    }
}

/// Pages read at a time. Most of the time is spent waiting to request a malformed page again.
const PAGES_AT_A_TIME: usize = 64;

#[tokio::test]
async fn every_page_of_the_corpus_and_its_mutations_results_in_lines_or_a_failure() {
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
async fn an_entity_that_xml_does_not_predefine_is_never_expanded() {
    let ec2 = page::ReplayedEc2::start().await;
    for name in ["unknown-entity", "entity-bomb", "external-entity"] {
        let seed = &corpus("page")[&format!("{name}.xml")];
        let read = ec2.read(200, seed).await;
        assert!(read.is_err(), "{name}: {read:?}");
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_read_completely_is_requested_again_and_never_used_in_part() {
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
