//! Any bytes as the payload of an invocation.

use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::layout::Layout;
use image_usage_auditor::request::{InvalidRequest, Invoked, PhaseRequest, Request};
use serde_json::Value;

/// Checks that any bytes, as a payload, result in a request that can be carried out or in an error that can be
/// reported.
pub(crate) fn check(bytes: &[u8]) {
    // Lambda accepts only JSON; anything else never reaches the function.
    let Ok(payload) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    check_outcome(Invoked::from_payload(
        payload,
        "2026-11-22T06:00:05Z".parse().unwrap(),
    ));
}

/// Checks what was read of a payload, or why it was refused.
pub(crate) fn check_outcome(read: Result<Invoked, InvalidRequest>) {
    match read {
        Ok(Invoked::Run(request)) => check_request(&request),
        Ok(Invoked::Phase(PhaseRequest::Plan(request))) => check_request(&request),
        Ok(Invoked::Phase(
            PhaseRequest::Target { run_id, .. } | PhaseRequest::Publish { run_id, .. },
        )) => assert!(run_id.scheduled_at().is_some(), "{run_id}"),
        Err(refusal) => check_refusal(&refusal),
    }
}

/// Checks the invariants of a request: its scope says whether it is narrowed, its number fits on the wire, and
/// its key stays below the prefix.
pub(crate) fn check_request(request: &Request) {
    let scope = &request.scope;
    let narrowed = !(scope.image_ids.is_empty()
        && scope.report_ids.is_empty()
        && scope.filters.is_empty()
        && scope.regions.is_empty()
        && scope.account_ids.is_empty());
    assert_eq!(scope.full, !narrowed, "{scope:?}");
    if let Some(number) = request.max_results {
        assert!(i32::try_from(number).is_ok_and(|number| number > 0));
    }
    check_line(scope);
    let prefix: Layout = "image-usage/".parse().unwrap();
    let scheduled_at = request
        .scheduled_at
        .unwrap_or_else(|| "2026-11-22T06:00:00Z".parse().unwrap());
    let run = match &request.event_id {
        Some(event_id) => RunId::of_event(scheduled_at, event_id),
        None => RunId::of_request(scheduled_at, "0d6a6b3f-5b0e-4f7f-8d9c-3f1f9a1c2b4d"),
    };
    let (date, moment) = (scheduled_at.date(), scheduled_at.compact());
    let key = prefix.snapshot(&run, scheduled_at);
    let digits = key
        .strip_prefix(&format!("image-usage/v1/snapshots/dt={date}/{moment}-"))
        .and_then(|rest| rest.strip_suffix(".json"))
        .unwrap();
    assert_eq!(digits.len(), 8, "{key}");
    assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
}

/// Checks that a refusal has a message, and that it is one line of JSON whatever it quotes.
pub(crate) fn check_refusal(refusal: &InvalidRequest) {
    let text = refusal.to_string();
    assert!(!text.is_empty());
    check_line(&text);
}

fn check_line<T: serde::Serialize + ?Sized>(value: &T) {
    let line = serde_json::to_vec(value).unwrap();
    assert!(!line.iter().any(|&byte| byte < b' '), "{line:?}");
    serde_json::from_slice::<Value>(&line).unwrap();
}
