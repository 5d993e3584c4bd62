//! Decides which fault, if any, a request meets.

use super::fault::{Fault, FaultKind, Page, Service, When};
use super::token_bucket::TokenBucket;
use crate::random::{Random, hash_of};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The properties of a request that faults match.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) key: Option<&'a str>,
    /// The reports that the request names by their IDs.
    pub(crate) report_ids: &'a [&'a str],
    /// The AMIs that the request names by their IDs.
    pub(crate) image_ids: &'a [&'a str],
    /// Whether the request has a parameter (EC2) or a header (S3).
    pub(crate) has: &'a dyn Fn(&str) -> bool,
    pub(crate) page: Option<PagePosition>,
}

/// The position of a page in its listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagePosition {
    pub(crate) number: u32,
    pub(crate) is_last: bool,
    pub(crate) has_token: bool,
}

/// What happens to a request.
#[derive(Debug, Default)]
pub(crate) struct Ruling {
    pub(crate) latency: Duration,
    pub(crate) kind: Option<FaultKind>,
    pub(crate) after_effect: bool,
}

/// The faults of a local AWS; clones share the same ones.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Rules>>);

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<Rule>,
    buckets: Buckets,
    injected: u64,
}

/// The token buckets by account, Region and whether the action is a mutating one.
#[derive(Debug, Default)]
struct Buckets(HashMap<(String, String, bool), TokenBucket>);

#[derive(Debug)]
struct Rule {
    fault: Fault,
    matched: u64,
    drawn: HashMap<u64, u64>,
}

impl Faults {
    /// Adds a fault. If several match a request, the first decides; latencies add up.
    pub fn add(&self, fault: Fault) {
        self.lock().rules.push(Rule {
            fault,
            matched: 0,
            drawn: HashMap::new(),
        });
    }

    /// Removes all faults and refills the token buckets; [`Faults::injected`] is not reset.
    pub fn clear(&self) {
        let mut rules = self.lock();
        rules.rules.clear();
        rules.buckets.0.clear();
    }

    /// Returns how many requests a fault has changed, latencies included.
    pub fn injected(&self) -> u64 {
        self.lock().injected
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides what happens to a request, and counts it for every fault that it matches.
    pub(crate) fn rule_on(&self, subject: Subject<'_>) -> Ruling {
        let mut guard = self.lock();
        let Rules {
            rules,
            buckets,
            injected,
        } = &mut *guard;
        let mut ruling = Ruling::default();
        for rule in rules {
            if !rule.is_due(subject) {
                continue;
            }
            match &rule.fault.kind {
                FaultKind::Latency { milliseconds } => {
                    ruling.latency += Duration::from_millis(*milliseconds);
                }
                _ if ruling.kind.is_some() => {}
                FaultKind::TokenBucket => {
                    if !buckets.take(subject) {
                        ruling.kind = Some(FaultKind::Throttle);
                    }
                }
                kind => {
                    ruling.kind = Some(kind.clone());
                    ruling.after_effect = rule.fault.after_effect;
                }
            }
        }
        if ruling.kind.is_some() || !ruling.latency.is_zero() {
            *injected += 1;
        }
        ruling
    }
}

impl Buckets {
    fn take(&mut self, subject: Subject<'_>) -> bool {
        let mutating = !subject.operation.starts_with("Describe");
        let key = (
            subject.account.to_owned(),
            subject.region.to_owned(),
            mutating,
        );
        self.0
            .entry(key)
            .or_insert_with(|| TokenBucket::full(mutating))
            .take(Instant::now())
    }
}

impl Rule {
    /// Counts the request if it matches. Returns whether it fails.
    fn is_due(&mut self, subject: Subject<'_>) -> bool {
        if !self.matches(subject) {
            return false;
        }
        let number = self.matched;
        self.matched += 1;
        match self.fault.when {
            When::Always => true,
            When::Nth(wanted) => number == wanted,
            When::FirstN(count) => number < count,
            When::Page(wanted) => subject.page.is_some_and(|page| page.is(wanted)),
            When::Probability { p, seed } => self.draw(subject, p, seed),
        }
    }

    fn matches(&self, subject: Subject<'_>) -> bool {
        let Fault {
            service,
            operation,
            account,
            region,
            key_contains,
            report_id,
            image_id,
            having,
            lacking,
            kind,
            ..
        } = &self.fault;
        let equals = |wanted: &Option<String>, given: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == given)
        };
        let has_key_part = |part: &str| subject.key.is_some_and(|key| key.contains(part));
        service.is_none_or(|wanted| wanted == subject.service)
            && equals(operation, subject.operation)
            && equals(account, subject.account)
            && equals(region, subject.region)
            && key_contains.as_deref().is_none_or(has_key_part)
            && image_id
                .as_deref()
                .is_none_or(|id| subject.image_ids.contains(&id))
            && report_id
                .as_deref()
                .is_none_or(|id| subject.report_ids.contains(&id))
            && having.as_deref().is_none_or(subject.has)
            && !lacking.as_deref().is_some_and(subject.has)
            && (*kind != FaultKind::TokenBucket || subject.service == Service::Ec2)
            && (!kind.needs_listing() || subject.page.is_some())
            && (!kind.needs_page_token() || subject.page.is_some_and(|page| page.has_token))
    }

    fn draw(&mut self, subject: Subject<'_>, p: f64, seed: u64) -> bool {
        let request = hash_of([
            subject.operation,
            subject.account,
            subject.region,
            subject.key.unwrap_or_default(),
        ]);
        let before = self.drawn.entry(request).or_default();
        *before += 1;
        let mut random = Random::new(seed ^ request.rotate_left(17));
        let draw = random.next() ^ before.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Random::new(draw).chance(p)
    }
}

impl PagePosition {
    fn is(self, wanted: Page) -> bool {
        match wanted {
            Page::First => self.number == 0,
            Page::Middle => self.number > 0 && !self.is_last,
            Page::Last => self.is_last,
            Page::Number(number) => self.number == number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(region: &str) -> Subject<'_> {
        Subject {
            service: Service::Ec2,
            operation: "DescribeImageUsageReports",
            account: "111122223333",
            region,
            key: None,
            report_ids: &[],
            image_ids: &[],
            has: &|_| false,
            page: Some(PagePosition {
                number: 0,
                is_last: true,
                has_token: false,
            }),
        }
    }

    #[test]
    fn a_probability_of_one_half_repeats_in_each_target_regardless_of_other_targets() {
        let draws = |with_other_target: bool| {
            let faults = Faults::default();
            faults
                .add(Fault::new(FaultKind::Status500).when(When::Probability { p: 0.5, seed: 7 }));
            (0..1000)
                .map(|_| {
                    if with_other_target {
                        faults.rule_on(listing("us-east-1"));
                    }
                    faults.rule_on(listing("eu-west-1")).kind.is_some()
                })
                .collect::<Vec<_>>()
        };
        let alone = draws(false);
        assert_eq!(alone, draws(true));
        let failed = alone.iter().filter(|failed| **failed).count();
        assert!((400..600).contains(&failed), "{failed} of 1000");
    }

    #[test]
    fn the_first_two_requests_and_the_third_are_counted_from_zero() {
        let faults = Faults::default();
        faults.add(Fault::new(FaultKind::Denied).when(When::FirstN(2)));
        faults.add(Fault::new(FaultKind::Throttle).when(When::Nth(2)));
        let kinds: Vec<_> = (0..4)
            .map(|_| faults.rule_on(listing("us-east-1")).kind)
            .collect();
        assert_eq!(
            kinds,
            [
                Some(FaultKind::Denied),
                Some(FaultKind::Denied),
                Some(FaultKind::Throttle),
                None
            ]
        );
        assert_eq!(faults.injected(), 3);
    }

    #[test]
    fn each_region_has_its_own_buckets() {
        let faults = Faults::default();
        faults.add(Fault::new(FaultKind::TokenBucket));
        let throttled = |region| {
            (0..101)
                .filter(|_| faults.rule_on(listing(region)).kind.is_some())
                .count()
        };
        // On a slow machine a token may come back in the meantime.
        assert!(throttled("us-east-1") <= 1);
        assert!(throttled("eu-west-1") <= 1);
    }
}
