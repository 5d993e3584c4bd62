//! Faults on demand: which request fails, when, and how.
//!
//! Everything here repeats itself: `Nth` and `FirstN` count the requests that a fault matches, and
//! `Probability` draws from its seed, the request's operation, target and key, and how often that
//! same request came before; so concurrency between targets doesn't change what each one meets.

use crate::random::{Random, hash_of};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A service of the local AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Amazon EC2.
    Ec2,
    /// AWS Security Token Service.
    Sts,
    /// AWS Organizations.
    Organizations,
    /// Amazon S3.
    S3,
}

impl Service {
    /// Gives the name that stands in a credential scope.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Sts => "sts",
            Self::Organizations => "organizations",
            Self::S3 => "s3",
        }
    }
}

/// A rule for requests that are not to be answered as they should be.
///
/// Every `Option` that is `None` matches everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The service asked.
    pub service: Option<Service>,
    /// The operation asked for, for example `DescribeImageUsageReports` or `PutObject`.
    pub operation: Option<String>,
    /// The account that asks.
    pub account: Option<String>,
    /// The Region asked.
    pub region: Option<String>,
    /// A part of the S3 key; matches only requests with a key.
    pub key_contains: Option<String>,
    /// A report; matches only requests that ask for it by its ID.
    pub report_id: Option<String>,
    /// Which of the matching requests fail.
    pub when: When,
    /// Whether the request takes effect before it fails: an object is stored and the answer lost.
    pub after_effect: bool,
    /// How they fail.
    pub kind: FaultKind,
}

/// Which of the requests that a fault matches fail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum When {
    /// All of them.
    #[default]
    Always,
    /// The one with this number, counted from 0.
    Nth(u64),
    /// So many from the start.
    FirstN(u64),
    /// Those that ask for this page of a listing.
    Page(Page),
    /// Each with this probability, drawn from the seed.
    Probability {
        /// From 0 (never) to 1 (always).
        p: f64,
        /// The seed of the draws.
        seed: u64,
    },
}

/// A page of a listing, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The one asked for without a token.
    First,
    /// One that is neither the first nor the last.
    Middle,
    /// The one that no token follows.
    Last,
    /// The one with this number, counted from 0.
    Number(u32),
}

/// How a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The caller is not allowed to: 403, `UnauthorizedOperation` or `AccessDenied`.
    Denied,
    /// The credentials are not accepted: `AuthFailure` with 401, or what the service says instead.
    AuthFailure,
    /// Too many requests: `RequestLimitExceeded` with 503, `SlowDown` or `Throttling`.
    Throttle,
    /// Too many requests by EC2's own token buckets, one pair for each account and Region.
    TokenBucket,
    /// An internal error: 500.
    Status500,
    /// An unavailable service: 503, `Unavailable` or `SlowDown`.
    Status503,
    /// Any error.
    Error {
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: String,
        /// The error's message.
        message: String,
    },
    /// The connection is closed without an answer.
    CloseBeforeAnswer,
    /// The connection is reset (RST) after half of the body.
    ResetMidBody,
    /// The connection is closed in order after half of the announced body.
    CutBody,
    /// The answer is cut off inside an element; its HTTP message is whole.
    MalformedXml,
    /// A legal answer with unknown members, comments and numeric character references.
    UnknownMembersAndEntities,
    /// A legal answer with its texts in CDATA sections; EC2 writes none.
    CData,
    /// The second half of the body never comes, only a byte of white space now and then.
    SlowBody,
    /// The true answer, later.
    Latency {
        /// How much later.
        milliseconds: u64,
    },
    /// The page's token is the one it was asked for with; matches only requests with a token.
    RepeatToken,
    /// `InvalidPaginationToken`; matches only requests with a token.
    ExpireToken,
    /// A page without reports whose token goes on where it was.
    EmptyPage,
    /// `<nextToken/>` where there is no token.
    EmptyToken,
    /// The page's last report comes twice, and once more on the next page.
    DuplicateReport,
    /// The page has one report more, with no member at all.
    BareReport,
    /// The Region is not enabled for the account.
    RegionDisabled,
    /// The caller's temporary credentials have expired.
    ExpireCredentials,
}

impl FaultKind {
    /// S3's 409: another conditional write is under way, try again.
    pub fn conditional_request_conflict() -> Self {
        Self::Error {
            status: 409,
            code: "ConditionalRequestConflict".to_owned(),
            message: "A conflicting conditional operation is currently in progress against this resource. Please try again.".to_owned(),
        }
    }

    /// S3's 412: a condition of the request doesn't hold.
    pub fn precondition_failed() -> Self {
        Self::Error {
            status: 412,
            code: "PreconditionFailed".to_owned(),
            message: "At least one of the pre-conditions you specified did not hold".to_owned(),
        }
    }

    fn needs_page_token(&self) -> bool {
        matches!(self, Self::RepeatToken | Self::ExpireToken)
    }

    fn needs_listing(&self) -> bool {
        matches!(
            self,
            Self::RepeatToken
                | Self::ExpireToken
                | Self::EmptyPage
                | Self::EmptyToken
                | Self::DuplicateReport
                | Self::BareReport
        )
    }
}

impl Fault {
    /// Makes a fault that meets every request of every service.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            service: None,
            operation: None,
            account: None,
            region: None,
            key_contains: None,
            report_id: None,
            when: When::Always,
            after_effect: false,
            kind,
        }
    }

    /// Narrows the fault to one service.
    pub fn in_service(mut self, service: Service) -> Self {
        self.service = Some(service);
        self
    }

    /// Narrows the fault to one operation.
    pub fn on(mut self, operation: &str) -> Self {
        self.operation = Some(operation.to_owned());
        self
    }

    /// Narrows the fault to one account.
    pub fn in_account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }

    /// Narrows the fault to one Region.
    pub fn in_region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Narrows the fault to S3 keys with this part.
    pub fn on_key(mut self, part: &str) -> Self {
        self.key_contains = Some(part.to_owned());
        self
    }

    /// Narrows the fault to requests that name a report by its ID.
    pub fn asking_for(mut self, report_id: &str) -> Self {
        self.report_id = Some(report_id.to_owned());
        self
    }

    /// Says which of the matching requests fail.
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Lets the request take effect before it fails.
    pub fn after_effect(mut self) -> Self {
        self.after_effect = true;
        self
    }
}

/// What a request is, as far as faults look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) key: Option<&'a str>,
    /// The reports that are asked for by their IDs.
    pub(crate) report_ids: &'a [&'a str],
    pub(crate) page: Option<PagePosition>,
}

/// The place of a page in its listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagePosition {
    pub(crate) number: u32,
    pub(crate) is_last: bool,
    pub(crate) has_token: bool,
}

/// What is to be done to a request.
#[derive(Debug, Default)]
pub(crate) struct Ruling {
    pub(crate) latency: Duration,
    pub(crate) kind: Option<FaultKind>,
    pub(crate) after_effect: bool,
}

/// The faults of a local AWS; clones share the same.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Rules>>);

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<Rule>,
    buckets: HashMap<(String, String, bool), Bucket>,
    injected: u64,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    matched: u64,
    drawn: HashMap<u64, u64>,
}

impl Faults {
    /// Adds a fault; of several that would meet a request, the first decides, and latencies add up.
    pub fn add(&self, fault: Fault) {
        self.lock().rules.push(Rule {
            fault,
            matched: 0,
            drawn: HashMap::new(),
        });
    }

    /// Takes all faults away and fills the token buckets; [`Faults::injected`] counts on.
    pub fn clear(&self) {
        let mut rules = self.lock();
        rules.rules.clear();
        rules.buckets.clear();
    }

    /// Counts the requests that a fault has changed, latencies included.
    pub fn injected(&self) -> u64 {
        self.lock().injected
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
                    let mutating = !subject.operation.starts_with("Describe");
                    let bucket = buckets
                        .entry((
                            subject.account.to_owned(),
                            subject.region.to_owned(),
                            mutating,
                        ))
                        .or_insert_with(|| Bucket::full(mutating));
                    if !bucket.take(Instant::now()) {
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

impl Rule {
    fn is_due(&mut self, subject: Subject<'_>) -> bool {
        let fault = &self.fault;
        let matches = |wanted: &Option<String>, given: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == given)
        };
        if fault
            .service
            .is_some_and(|wanted| wanted != subject.service)
            || (fault.kind == FaultKind::TokenBucket && subject.service != Service::Ec2)
            || !matches(&fault.operation, subject.operation)
            || !matches(&fault.account, subject.account)
            || !matches(&fault.region, subject.region)
            || fault
                .key_contains
                .as_deref()
                .is_some_and(|part| !subject.key.is_some_and(|key| key.contains(part)))
            || fault
                .report_id
                .as_deref()
                .is_some_and(|id| !subject.report_ids.contains(&id))
            || (fault.kind.needs_listing() && subject.page.is_none())
            || (fault.kind.needs_page_token() && !subject.page.is_some_and(|page| page.has_token))
        {
            return false;
        }
        let count = self.matched;
        self.matched += 1;
        match fault.when {
            When::Always => true,
            When::Nth(wanted) => count == wanted,
            When::FirstN(wanted) => count < wanted,
            When::Page(wanted) => subject.page.is_some_and(|page| match wanted {
                Page::First => page.number == 0,
                Page::Middle => page.number > 0 && !page.is_last,
                Page::Last => page.is_last,
                Page::Number(number) => page.number == number,
            }),
            When::Probability { p, seed } => {
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
    }
}

/// One of EC2's token buckets.
///
/// Source: <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    capacity: f64,
    refill_per_second: f64,
    refilled_at: Instant,
}

impl Bucket {
    fn full(mutating: bool) -> Self {
        // EC2's buckets for actions that no other rule names.
        let (capacity, refill_per_second) = if mutating { (50.0, 5.0) } else { (100.0, 20.0) };
        Self {
            tokens: capacity,
            capacity,
            refill_per_second,
            refilled_at: Instant::now(),
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = now;
        self.tokens =
            (self.tokens + elapsed.as_secs_f64() * self.refill_per_second).min(self.capacity);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

/// A text that describes no fault.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidFault(String);

impl fmt::Display for InvalidFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for InvalidFault {}

impl FromStr for Fault {
    type Err = InvalidFault;

    /// Reads `kind=denied,op=DescribeImageUsageReports,region=eu-west-1,p=0.5`.
    ///
    /// The members, of which only `kind` is needed: `service` (`ec2`, `sts`, `organizations`,
    /// `s3`), `op`, `account`, `region`, `key` (a part of an S3 key), `report` (the ID of a report
    /// that is asked for); one of `nth`, `first` (numbers), `page` (`first`, `middle`, `last` or a
    /// number from 0) and `p` (with `seed`);
    /// `after` (`true`: only after the effect); for `kind=error` `status`, `code` and `message`;
    /// for `kind=latency` `ms`. The other kinds: `denied`, `auth-failure`, `throttle`,
    /// `token-bucket`, `500`, `503`, `conflict`, `precondition`, `close`, `reset`, `cut`,
    /// `malformed`, `unknown-members`, `cdata`, `slow`, `repeat-token`, `expire-token`,
    /// `empty-page`, `empty-token`, `duplicate-report`, `bare-report`, `region-disabled`,
    /// `expire-credentials`.
    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let mut members = HashMap::new();
        for member in text.split(',').filter(|member| !member.trim().is_empty()) {
            let (name, value) = member.split_once('=').ok_or_else(|| {
                InvalidFault(format!(
                    "`{member}` in the fault `{text}` is not name=value"
                ))
            })?;
            members.insert(name.trim(), value.trim());
        }
        let number = |name: &str, value: &str| {
            value.parse::<u64>().map_err(|_| {
                InvalidFault(format!(
                    "{name}={value} in the fault `{text}` is not a number"
                ))
            })
        };
        let mut take = |name: &str| members.remove(name);

        let kind = take("kind")
            .ok_or_else(|| InvalidFault(format!("the fault `{text}` names no kind")))?;
        let kind = match kind {
            "denied" => FaultKind::Denied,
            "auth-failure" => FaultKind::AuthFailure,
            "throttle" => FaultKind::Throttle,
            "token-bucket" => FaultKind::TokenBucket,
            "500" => FaultKind::Status500,
            "503" => FaultKind::Status503,
            "conflict" => FaultKind::conditional_request_conflict(),
            "precondition" => FaultKind::precondition_failed(),
            "close" => FaultKind::CloseBeforeAnswer,
            "reset" => FaultKind::ResetMidBody,
            "cut" => FaultKind::CutBody,
            "malformed" => FaultKind::MalformedXml,
            "unknown-members" => FaultKind::UnknownMembersAndEntities,
            "cdata" => FaultKind::CData,
            "slow" => FaultKind::SlowBody,
            "repeat-token" => FaultKind::RepeatToken,
            "expire-token" => FaultKind::ExpireToken,
            "empty-page" => FaultKind::EmptyPage,
            "empty-token" => FaultKind::EmptyToken,
            "duplicate-report" => FaultKind::DuplicateReport,
            "bare-report" => FaultKind::BareReport,
            "region-disabled" => FaultKind::RegionDisabled,
            "expire-credentials" => FaultKind::ExpireCredentials,
            "latency" => FaultKind::Latency {
                milliseconds: number("ms", take("ms").unwrap_or("100"))?,
            },
            "error" => FaultKind::Error {
                status: number("status", take("status").unwrap_or("400"))?
                    .try_into()
                    .ok()
                    .filter(|status| (400..600).contains(status))
                    .ok_or_else(|| {
                        InvalidFault(format!("the status in the fault `{text}` is no error's"))
                    })?,
                code: take("code").unwrap_or("LocalFault").to_owned(),
                message: take("message")
                    .unwrap_or("A fault was asked for.")
                    .to_owned(),
            },
            unknown => return Err(InvalidFault(format!("unknown kind of fault `{unknown}`"))),
        };
        let mut fault = Self::new(kind);
        fault.service = match take("service") {
            None => None,
            Some("ec2") => Some(Service::Ec2),
            Some("sts") => Some(Service::Sts),
            Some("organizations") => Some(Service::Organizations),
            Some("s3") => Some(Service::S3),
            Some(unknown) => return Err(InvalidFault(format!("unknown service `{unknown}`"))),
        };
        fault.operation = take("op").map(str::to_owned);
        fault.account = take("account").map(str::to_owned);
        fault.region = take("region").map(str::to_owned);
        fault.key_contains = take("key").map(str::to_owned);
        fault.report_id = take("report").map(str::to_owned);
        fault.after_effect = match take("after") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(InvalidFault(format!(
                    "after={other} in the fault `{text}` is neither true nor false"
                )));
            }
        };
        if let Some(value) = take("nth") {
            fault.when = When::Nth(number("nth", value)?);
        }
        if let Some(value) = take("first") {
            fault.when = When::FirstN(number("first", value)?);
        }
        if let Some(value) = take("page") {
            fault.when = When::Page(match value {
                "first" => Page::First,
                "middle" => Page::Middle,
                "last" => Page::Last,
                value => Page::Number(number("page", value)?.try_into().unwrap_or(u32::MAX)),
            });
        }
        if let Some(value) = take("p") {
            let p = value
                .parse::<f64>()
                .ok()
                .filter(|p| (0.0..=1.0).contains(p))
                .ok_or_else(|| {
                    InvalidFault(format!(
                        "p={value} in the fault `{text}` is not from 0 to 1"
                    ))
                })?;
            let seed = number("seed", take("seed").unwrap_or("1"))?;
            fault.when = When::Probability { p, seed };
        }
        if let Some(name) = members.keys().next() {
            return Err(InvalidFault(format!(
                "unknown member `{name}` in the fault `{text}`"
            )));
        }
        Ok(fault)
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
            page: Some(PagePosition {
                number: 0,
                is_last: true,
                has_token: false,
            }),
        }
    }

    #[test]
    fn a_probability_of_a_half_repeats_itself_in_each_target_whatever_the_others_do() {
        let draws = |with_other_target: bool| {
            let faults = Faults::default();
            faults.add(
                "kind=500,op=DescribeImageUsageReports,p=0.5,seed=7"
                    .parse()
                    .unwrap(),
            );
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
    fn the_first_two_and_the_third_are_counted_from_zero() {
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
    fn a_bucket_gives_its_capacity_at_once_and_then_its_refill() {
        let mut bucket = Bucket::full(false);
        let start = bucket.refilled_at;
        assert_eq!((0..150).filter(|_| bucket.take(start)).count(), 100);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..150).filter(|_| bucket.take(later)).count(), 20);
        let much_later = later + Duration::from_secs(3600);
        assert_eq!((0..150).filter(|_| bucket.take(much_later)).count(), 100);
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
        // A slow machine may earn a token back meanwhile.
        assert!(throttled("us-east-1") <= 1);
        assert!(throttled("eu-west-1") <= 1);
    }

    #[test]
    fn a_fault_that_is_misspelt_is_refused_with_its_name() {
        for (text, message) in [
            ("kind=slwo", "unknown kind of fault `slwo`"),
            ("op=PutObject", "the fault `op=PutObject` names no kind"),
            (
                "kind=slow,regoin=x",
                "unknown member `regoin` in the fault `kind=slow,regoin=x`",
            ),
            (
                "kind=500,p=2",
                "p=2 in the fault `kind=500,p=2` is not from 0 to 1",
            ),
        ] {
            assert_eq!(text.parse::<Fault>().unwrap_err().to_string(), message);
        }
    }
}
