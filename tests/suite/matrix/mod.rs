//! The fault matrix: whatever fails, a target that is marked complete is complete, and every other one says
//! what is missing.
//!
//! A case is a small world and some attempts at the same event: one or two with faults, and one without. After
//! each attempt, the archive is compared with what the local AWS holds.
//!
//! The seeded cases take `FAULT_SEEDS` (how many) or `FAULT_SEED` (which one) from the environment. With
//! either of them, each test prints what it did to standard error.

mod case;
mod play;
mod seeded;
mod tally;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use local_aws::{Fault, FaultKind, LocalAws, Page, When};

use self::case::{Case, Expected, Reports, region};
use self::play::play;
use self::seeded::seeded;
use self::tally::{Loss, Tally};
use crate::harness::{
    BUCKET, ENTRIES, LISTING, TRANSIENT_FAULTS, checked, invocation, scheduled_event, summary_of,
    until,
};

/// The cases that are played at a time: they wait more than they work.
const CONCURRENT_CASES: usize = 12;

/// A deadline that is too short for the retries of a persistent fault.
const SHORT: Duration = Duration::from_secs(4);

const SEEDS_BY_DEFAULT: u64 = 20;

/// Plays cases, many at a time, and fails with the names of those that broke a check.
async fn play_all(test: &str, cases: Vec<Case>) {
    let mut tally = Tally::default();
    let mut losses = Vec::new();
    let mut playing = futures_util::stream::iter(&cases)
        .map(async |case| {
            let outcome = AssertUnwindSafe(play(case)).catch_unwind().await;
            (case, outcome)
        })
        .buffer_unordered(CONCURRENT_CASES);
    while let Some((case, outcome)) = playing.next().await {
        match outcome {
            Ok(played) => tally.add(played),
            Err(panic) => {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message")
                    .to_owned();
                tally.cases += 1;
                tally.losses += 1;
                losses.push(Loss { case, message });
            }
        }
    }
    tally::print(test, tally, &losses);
    assert!(losses.is_empty(), "{test}:\n{}", tally::written(&losses));
}

/// The pages of a target with 60 reports: the request that asks for each, and its place.
const PAGES: [(u64, Page); 3] = [(0, Page::First), (2, Page::Middle), (3, Page::Last)];

fn listing_fault(number: u64, kind: &FaultKind, when: When) -> Vec<Fault> {
    let fault = Fault::new(kind.clone()).on(LISTING).when(when);
    vec![fault.in_region(&region(number, 1))]
}

fn needs_token(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::RepeatToken | FaultKind::ExpireToken)
}

/// A fault of a listing that is met once, for each page on which it can be met.
fn once_on_each_page(kind: &FaultKind) -> Vec<(Page, Case)> {
    let needs_token = needs_token(kind);
    PAGES
        .into_iter()
        .filter(|(request, _)| !needs_token || *request > 0)
        .map(|(request, page)| {
            let nth = When::Nth(request - u64::from(needs_token));
            let name = format!("{kind:?} once on the page {page:?}");
            (
                page,
                Case::new(name, |number| listing_fault(number, kind, nth)),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_transient_fault_costs_nothing_on_any_page() {
    let others = [
        FaultKind::UnknownMembersAndEntities,
        FaultKind::Latency { milliseconds: 300 },
        FaultKind::EmptyPage,
        FaultKind::DuplicateReport,
        FaultKind::BareReport,
        FaultKind::RepeatToken,
        FaultKind::ExpireToken,
        FaultKind::ExpireCredentials,
    ];
    let kinds = [TRANSIENT_FAULTS.as_slice(), &others].concat();
    let cases = kinds.iter().flat_map(once_on_each_page);
    let cases = cases.map(|(_, case)| case);
    // Each of the two attempts at a target restarts a listing once.
    let thrice = Case::new("ExpireToken three times", |number| {
        listing_fault(number, &FaultKind::ExpireToken, When::FirstN(3))
    });
    // Two identical reports, which the restarted listing returns again.
    let mut unnamed = Case::new("ExpireToken after reports without an ID", |number| {
        listing_fault(number, &FaultKind::ExpireToken, When::Nth(1))
    });
    unnamed.bare = 2;
    let cases = cases.chain([thrice, unnamed]);
    let cases = cases.map(|case| case.expecting(Expected::Complete));
    play_all("transient", cases.collect()).await;
}

#[tokio::test]
async fn a_persistent_fault_on_a_page_ends_with_the_deadline() {
    let others = [FaultKind::SlowBody];
    let kinds = [TRANSIENT_FAULTS.as_slice(), &others].concat();
    let mut cases = Vec::new();
    for kind in kinds {
        for (_, page) in PAGES {
            let name = format!("{kind:?} always on the page {page:?}");
            let faults = |number| listing_fault(number, &kind, When::Page(page));
            let case = Case::new(name, faults);
            // Otherwise they would all write at the same moment.
            let later = Duration::from_millis(300) * (cases.len() % CONCURRENT_CASES) as u32;
            cases.push(case.within(2 * SHORT + later).expecting(Expected::Late));
        }
    }
    play_all("persistent", cases).await;
    // Each such page has a token of its own, so no token is ever repeated. This case never waits, so it is
    // played alone.
    let endless = Case::new("EmptyPage without end", |number| {
        listing_fault(number, &FaultKind::EmptyPage, When::Page(Page::Last))
    });
    let endless = endless.within(SHORT).expecting(Expected::Late);
    play_all("endless", vec![endless]).await;
}

#[tokio::test]
async fn a_refusal_is_reported_by_its_code_and_the_pages_before_it_are_kept() {
    let refusals = [
        (FaultKind::Denied, "UnauthorizedOperation", true),
        (FaultKind::AuthFailure, "AuthFailure", true),
        (FaultKind::RegionDisabled, "AuthFailure", true),
        (FaultKind::ExpireCredentials, "RequestExpired", false),
        (FaultKind::RepeatToken, "RepeatedToken", false),
        (FaultKind::ExpireToken, "InvalidPaginationToken", false),
    ];
    let mut cases = Vec::new();
    for (kind, code, is_final) in refusals {
        let of_page = |page| match page {
            Page::First => Expected::Broken("failed", code),
            _ => Expected::Broken("incomplete", code),
        };
        if is_final {
            let once = once_on_each_page(&kind);
            cases.extend(
                once.into_iter()
                    .map(|(page, case)| case.expecting(of_page(page))),
            );
        }
        for (_, page) in PAGES {
            if page == Page::First && needs_token(&kind) {
                continue;
            }
            let name = format!("{kind:?} always on the page {page:?}");
            let case = Case::new(name, |number| {
                listing_fault(number, &kind, When::Page(page))
            });
            cases.push(case.expecting(of_page(page)));
        }
    }
    play_all("refused", cases).await;
}

#[tokio::test]
async fn an_unusual_but_legal_answer_is_read_completely_however_often_it_comes() {
    let kinds = [
        FaultKind::UnknownMembersAndEntities,
        FaultKind::DuplicateReport,
        FaultKind::BareReport,
        FaultKind::EmptyToken,
        FaultKind::Latency { milliseconds: 50 },
    ];
    let cases = kinds.into_iter().map(|kind| {
        let name = format!("{kind:?} always");
        let case = Case::new(name, |number| listing_fault(number, &kind, When::Always));
        case.expecting(Expected::Complete)
    });
    play_all("unusual", cases.collect()).await;
}

#[tokio::test]
async fn accounts_and_regions_that_cannot_be_reached_fail_alone() {
    let others = [
        FaultKind::SlowBody,
        FaultKind::Denied,
        FaultKind::ExpireCredentials,
    ];
    let kinds = [TRANSIENT_FAULTS.as_slice(), &others].concat();
    let mut cases = Vec::new();
    for kind in kinds {
        for operation in ["AssumeRole", "DescribeRegions"] {
            for when in [When::Nth(0), When::Always] {
                let name = format!("{kind:?} {when:?} at {operation}");
                let fault = Fault::new(kind.clone()).on(operation).when(when);
                let mut case = Case::new(name, |_| vec![fault]).within(SHORT);
                case.has_member = true;
                case.all_regions = operation == "DescribeRegions";
                case.disabled = Some(2);
                cases.push(case);
            }
        }
    }
    play_all("accounts", cases).await;
}

/// The faults of a call to S3.
fn s3_kinds() -> Vec<FaultKind> {
    vec![
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::conditional_request_conflict(),
        FaultKind::precondition_failed(),
        FaultKind::Denied,
        FaultKind::ExpireCredentials,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::SlowBody,
        FaultKind::Latency { milliseconds: 300 },
    ]
}

/// Returns whether S3 accepts the call at the next attempt.
fn is_transient(kind: &FaultKind) -> bool {
    !matches!(
        kind,
        FaultKind::Denied | FaultKind::ExpireCredentials | FaultKind::SlowBody
    )
}

/// A case with a fault at an object of the archive.
fn archive_case(
    operation: &str,
    key: &str,
    kind: &FaultKind,
    when: When,
    after_effect: bool,
) -> Case {
    let effect = if after_effect { "after" } else { "before" };
    let name = format!("{kind:?} {when:?} at {operation} {key} {effect} its effect");
    let mut fault = Fault::new(kind.clone())
        .on(operation)
        .on_key(key)
        .when(when);
    fault.after_effect = after_effect;
    let mut case = Case::new(name, |_| vec![fault]);
    case.reports = Reports::Mixed(12);
    case.has_earlier_run = key == "/latest.json";
    let is_latency = matches!(kind, FaultKind::Latency { .. });
    let is_put = operation == "PutObject";
    if is_latency || when == When::Nth(0) && is_transient(kind) && is_put {
        case.expecting(Expected::Complete)
    } else {
        case.within(SHORT)
    }
}

#[tokio::test]
async fn a_write_or_read_of_the_archive_can_fail_before_and_after_its_effect() {
    #[rustfmt::skip]
    let calls: [(&str, &str, &[bool]); 6] = [
        ("PutObject", "/entries/", &[false, true]),
        ("PutObject", "/reports/", &[false, true]),
        ("PutObject", "/snapshots/", &[false, true]),
        ("PutObject", "/latest.json", &[false, true]),
        ("GetObject", "/snapshots/", &[false]),
        ("GetObject", "/latest.json", &[false]),
    ];
    let mut cases = Vec::new();
    for (operation, key, effects) in calls {
        for kind in s3_kinds() {
            for when in [When::Nth(0), When::Always] {
                let with_effect = effects
                    .iter()
                    .map(|&after_effect| archive_case(operation, key, &kind, when, after_effect));
                cases.extend(with_effect);
            }
        }
    }
    play_all("archive", cases).await;
}

/// A case after an earlier run, with a fault at the reading of its objects.
fn after_earlier_run(name: &str, faults: Vec<Fault>) -> Case {
    let mut case = Case::new(name, |_| faults);
    case.reports = Reports::Mixed(12);
    case.has_earlier_run = true;
    case
}

#[tokio::test]
async fn an_unreadable_or_missing_object_of_an_earlier_run_costs_no_target() {
    #[rustfmt::skip]
    let unreadable = [
        ("GetObject", "/latest.json"),
        ("GetObject", "/snapshots/dt=2026-11-21/"),
        ("GetObject", "/reports/dt=2026-11-21/"),
        ("HeadObject", "/entries/dt=2026-11-21/"),
    ];
    let denied =
        |operation: &str, key: &str| Fault::new(FaultKind::Denied).on(operation).on_key(key);
    let mut cases: Vec<Case> = unreadable
        .iter()
        .map(|(operation, key)| {
            let name = format!("Denied at {operation} {key}");
            after_earlier_run(&name, vec![denied(operation, key)])
        })
        .collect();
    let all = unreadable.map(|(operation, key)| denied(operation, key));
    cases.push(after_earlier_run("Denied at all of them", all.to_vec()));
    let deleted = ["/latest.json", "/snapshots/", "/reports/", "/entries/"];
    for part in deleted {
        let mut case = after_earlier_run(&format!("{part} is missing"), Vec::new());
        case.deleted_after_earlier_run = Some(part);
        cases.push(case);
        // The entries are fetched again, and their call fails at first.
        let fault = Fault::new(FaultKind::Status500)
            .on(ENTRIES)
            .when(When::Nth(0));
        let mut case = after_earlier_run(&format!("{part} is missing, Status500"), vec![fault]);
        case.deleted_after_earlier_run = Some(part);
        cases.push(case);
    }
    let cases = cases
        .into_iter()
        .map(|case| case.expecting(Expected::Complete));
    play_all("unreadable", cases.collect()).await;
}

#[tokio::test]
async fn attempts_that_read_differently_and_fail_before_the_snapshot_leave_no_false_object() {
    let unread = |number, page| {
        let faults = listing_fault(number, &FaultKind::Denied, When::Page(page));
        faults.into_iter().next().unwrap()
    };
    let no_snapshot = || {
        let denied = Fault::new(FaultKind::Denied);
        denied.on("PutObject").on_key("/snapshots/")
    };
    let mut cases = Vec::new();
    for kind in s3_kinds().into_iter().filter(is_transient) {
        let earlier_lines = |when| {
            let fault = Fault::new(kind.clone()).on("GetObject").on_key("/reports/");
            fault.when(when)
        };
        let orders: [(&str, [Vec<Page>; 2]); 3] = [
            ("less, then all", [vec![Page::Last], vec![]]),
            ("all, then less", [vec![], vec![Page::Last]]),
            ("less, then more", [vec![Page::Middle], vec![Page::Last]]),
        ];
        for (order, pages) in orders {
            let name = format!("{order}, and {kind:?} at the lines of the earlier run");
            let mut case = Case::new(name, |_| Vec::new());
            case.has_earlier_run = true;
            let faults = |pages: &[Page]| {
                let unread = pages.iter().map(|page| unread(case.number, *page));
                unread.chain([no_snapshot()]).collect::<Vec<_>>()
            };
            let [mut first, mut second] = pages.map(|pages| faults(&pages));
            first.push(earlier_lines(When::Nth(0)));
            second.push(earlier_lines(When::Nth(0)));
            case.attempts = vec![first, second];
            cases.push(case.expecting(Expected::Error("ArchiveFailed")));
        }
    }
    play_all("differing", cases).await;
}

#[tokio::test]
async fn an_upload_of_several_parts_can_fail_at_any_of_its_calls() {
    let at_any = vec![
        FaultKind::Status500,
        FaultKind::ResetMidBody,
        FaultKind::CloseBeforeAnswer,
        FaultKind::Denied,
    ];
    let error_within_a_success = FaultKind::Error {
        status: 200,
        code: "InternalError".to_owned(),
        message: "We encountered an internal error. Please try again.".to_owned(),
    };
    let at_the_end = vec![
        error_within_a_success,
        FaultKind::precondition_failed(),
        FaultKind::conditional_request_conflict(),
    ];
    #[rustfmt::skip]
    let calls = [
        ("CompleteMultipartUpload", 0, [at_the_end, at_any.clone()].concat()),
        ("CreateMultipartUpload", 0, at_any.clone()),
        ("UploadPart", 0, at_any.clone()),
        ("UploadPart", 1, at_any),
    ];
    let mut cases = Vec::new();
    for (operation, nth, kinds) in calls {
        for kind in &kinds {
            for after_effect in [false, true] {
                let name = format!("{kind:?} at {operation} {nth} {after_effect}");
                let mut fault = Fault::new(kind.clone()).on(operation).when(When::Nth(nth));
                fault.after_effect = after_effect;
                let mut case = Case::new(name, |_| vec![fault]);
                case.regions = 1;
                case.reports = Reports::Parts(2);
                // S3 does not answer an unconditional write with these.
                let is_condition = matches!(
                    kind,
                    FaultKind::Error {
                        status: 409 | 412,
                        ..
                    }
                );
                if is_transient(kind) && !is_condition {
                    case = case.expecting(Expected::Complete);
                }
                cases.push(case);
            }
        }
    }
    // Each takes seconds.
    let one_in = match number_from_environment("FAULT_SEEDS") {
        Some(_) => 3,
        None => 11,
    };
    play_all("uploads", cases.into_iter().step_by(one_in).collect()).await;
}

#[tokio::test]
async fn an_upload_of_an_attempt_without_snapshot_does_not_block_the_next_attempt() {
    let mut case = Case::new("an incomplete upload, and no snapshot", |_| {
        let denied = Fault::new(FaultKind::Denied);
        vec![
            denied.clone().on(LISTING).when(When::Page(Page::Last)),
            denied.on("PutObject").on_key("/snapshots/"),
        ]
    });
    case.regions = 1;
    case.reports = Reports::Parts(2);
    case = case.expecting(Expected::Error("ArchiveFailed"));
    play_all("lost upload", vec![case]).await;
}

#[tokio::test]
async fn a_fault_that_outlasts_every_retry_is_reported_by_its_code() {
    // This takes one and a half minutes, most of it waiting.
    let at_s3 = |kind: FaultKind, key: &str, when| {
        let name = format!("{kind:?} {when:?} at PutObject {key}");
        let fault = Fault::new(kind).on("PutObject").on_key(key).when(when);
        Case::new(name, |_| vec![fault])
    };
    let on_last_page = |kind: FaultKind, when| {
        let name = format!("{kind:?} {when:?} without a deadline");
        Case::new(name, |number| listing_fault(number, &kind, when))
    };
    let everywhere = Fault::new(FaultKind::Status503).on(LISTING);
    let last = When::Page(Page::Last);
    let broken = |code| Expected::Broken("incomplete", code);
    let cases = vec![
        on_last_page(FaultKind::Status500, last).expecting(broken("InternalError")),
        on_last_page(FaultKind::Throttle, last).expecting(broken("RequestLimitExceeded")),
        on_last_page(FaultKind::CloseBeforeAnswer, last).expecting(broken("ConnectionFailed")),
        on_last_page(FaultKind::MalformedXml, last).expecting(broken("MalformedResponse")),
        on_last_page(FaultKind::SlowBody, When::Nth(3)).expecting(Expected::Complete),
        Case::new("Status503 everywhere", |_| vec![everywhere])
            .expecting(Expected::Error("NoTargetAudited")),
        at_s3(FaultKind::SlowBody, "/reports/", When::Nth(0)).expecting(Expected::Complete),
        at_s3(FaultKind::Status500, "/reports/", When::Always)
            .expecting(Expected::Error("ArchiveFailed")),
        at_s3(FaultKind::Status503, "/snapshots/", When::Always)
            .expecting(Expected::Error("ArchiveFailed")),
    ];
    play_all("outlasting", cases).await;
}

/// How long the endpoint is unreachable.
const OUTAGE: Duration = Duration::from_secs(1);

/// Stops a local AWS, and starts it again on the same port with the same objects after the outage.
async fn restart_after_outage(aws: LocalAws, folder: &std::path::Path) -> LocalAws {
    let world = aws.world().clone();
    let port = aws.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    tokio::task::spawn_blocking(move || drop(aws))
        .await
        .unwrap();
    tokio::time::sleep(OUTAGE).await;
    let builder = LocalAws::builder(world).s3_root(folder);
    builder.port(port).start().await.unwrap()
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_for_a_while_costs_nothing() {
    for gone_after_page in [None, Some(1), Some(3)] {
        let case = Case::new("gone", |_| Vec::new());
        let folder = tempfile::tempdir().unwrap();
        let aws = LocalAws::builder(case.world()).s3_root(folder.path());
        let aws = aws.start().await.unwrap();
        aws.create_bucket(BUCKET).unwrap();
        let auditor = case.auditor(&aws).await;
        let slow = FaultKind::Latency { milliseconds: 50 };
        aws.faults().add(Fault::new(slow).on(LISTING));
        let outage = async {
            until(|| {
                let calls = aws.calls();
                gone_after_page.is_none() || calls.iter().any(|call| call.page == gone_after_page)
            })
            .await;
            restart_after_outage(aws, folder.path()).await
        };
        let handled = auditor.handle(scheduled_event(), invocation());
        let (aws, answer) = tokio::join!(outage, handled);
        let snapshot = checked(&aws, &summary_of(answer.unwrap()));
        assert_eq!(snapshot["status"], "complete", "{gone_after_page:?}");
    }
}

#[tokio::test]
async fn seeded_combinations_of_faults_lose_nothing() {
    let seeds = match number_from_environment("FAULT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("FAULT_SEEDS").unwrap_or(SEEDS_BY_DEFAULT),
    };
    play_all("seeded", seeds.map(seeded).collect()).await;
}

fn number_from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    let number = value.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}
