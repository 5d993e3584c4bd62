//! What an invocation asks for.

mod phase;

use std::ops::RangeInclusive;

use image_usage_archive::documents::{ReportFilter, Scope};
use image_usage_archive::domain::target::{AccountId, Region};
use image_usage_archive::domain::timestamp::{MalformedTimestamp, SECONDS_PER_DAY, Timestamp};
use serde::Deserialize;
use serde_json::Value;

pub use self::phase::{Failure, PhaseRequest};

/// What an invocation asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invoked {
    /// A whole run, or a preflight.
    Run(Request),
    /// One phase of a run that goes over several functions.
    Phase(PhaseRequest),
}

impl Invoked {
    /// Reads a payload: one with a field `phase` is a phase, any other an event or a request. `now` is the start
    /// of the invocation.
    ///
    /// # Errors
    /// Fails on anything else, naming the field.
    pub fn from_payload(payload: Value, now: Timestamp) -> Result<Self, InvalidRequest> {
        match &payload {
            Value::Object(fields) if fields.contains_key("phase") => {
                PhaseRequest::from_payload(payload, now).map(Self::Phase)
            }
            _ => Request::from_payload(payload, now).map(Self::Run),
        }
    }
}

/// The payload of an invocation, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to audit.
    pub scope: Scope,
    /// How many reports to request in one call; `None` for the configured number.
    pub max_results: Option<u32>,
    /// The moment the run is for; `None` for its start.
    pub scheduled_at: Option<Timestamp>,
    /// The event's own ID; `None` for that of the Lambda request.
    pub event_id: Option<String>,
    /// Whether only to ask EC2 if the calls would be permitted.
    pub dry_run: bool,
    /// The time of an event that is too far from now to be a real one: a sample event of a console or a
    /// file. Such a run is an audit of now.
    pub sample_time: Option<Timestamp>,
}

/// A payload that is neither a scheduled event nor a request.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// The payload is not an object.
    #[error("the payload is {found}: send a scheduled event or a request, `{{}}` for a full audit")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// It is an event of another kind.
    #[error("`{field}` is {found}: this function accepts scheduled events ({expected})")]
    OtherEvent {
        /// The field that says so.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A field is unknown, of the wrong type or malformed.
    #[error("`{field}`: {problem}")]
    Field {
        /// Its path in the payload.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl InvalidRequest {
    /// A request for an account that the settings do not name, as the field's element at `index`.
    pub(crate) fn account_not_configured(index: usize, account_id: &AccountId) -> Self {
        let field = format!("account_ids[{index}]");
        let problem = format!("{account_id} is not among the accounts of AUDITOR_ACCOUNTS");
        malformed(&field, &problem)
    }
}

impl Request {
    /// Reads a payload: a scheduled event of an EventBridge rule or of EventBridge Scheduler, or a request.
    /// `now` is the start of the run.
    ///
    /// A payload with a field `detail-type` is an event. `null` is the same as an absent field; an empty list
    /// is refused, because it could mean "everything" as well as "nothing".
    ///
    /// # Errors
    /// Fails on anything else, naming the field.
    pub fn from_payload(payload: Value, now: Timestamp) -> Result<Self, InvalidRequest> {
        match &payload {
            Value::Object(fields) if fields.contains_key("detail-type") => {
                Self::from_event(payload, now)
            }
            Value::Object(_) => Self::from_fields(payload, now),
            other => Err(InvalidRequest::NotAnObject {
                found: kind_of(other),
            }),
        }
    }

    fn from_event(payload: Value, now: Timestamp) -> Result<Self, InvalidRequest> {
        let event: ScheduledEvent = read(payload)?;
        if event.detail_type != DETAIL_TYPE {
            let expected = "`detail-type` is `Scheduled Event`";
            return Err(InvalidRequest::OtherEvent {
                field: "detail-type",
                found: quoted(&event.detail_type),
                expected,
            });
        }
        if !SOURCES.contains(&event.source.as_str()) {
            let expected = "`source` is `aws.events` or `aws.scheduler`";
            return Err(InvalidRequest::OtherEvent {
                field: "source",
                found: quoted(&event.source),
                expected,
            });
        }
        if event.id.is_empty() {
            return Err(malformed(
                "id",
                "is empty: it names the run, so that a retry is recognised",
            ));
        }
        let time = time("time", &event.time)?;
        let is_sample = !is_near(time, now);
        Ok(Self {
            scope: Fields::default().into_scope(),
            max_results: None,
            scheduled_at: (!is_sample).then_some(time),
            event_id: (!is_sample).then_some(event.id),
            dry_run: false,
            sample_time: is_sample.then_some(time),
        })
    }

    fn from_fields(payload: Value, now: Timestamp) -> Result<Self, InvalidRequest> {
        let fields: Fields = read(payload)?;
        fields.check_lists()?;
        let scheduled_at = fields
            .scheduled_at
            .as_deref()
            .map(|text| typed_time("scheduled_at", text, now))
            .transpose()?;
        let max_results = match fields.max_results {
            None => None,
            Some(number) => match u32::try_from(number) {
                Ok(number) if (1..=MAX_RESULTS).contains(&number) => Some(number),
                _ => {
                    let problem =
                        format!("is {number}: give a whole number from 1 to {MAX_RESULTS}");
                    return Err(malformed("max_results", &problem));
                }
            },
        };
        let dry_run = fields.dry_run.unwrap_or(false);
        Ok(Self {
            max_results,
            scheduled_at,
            event_id: None,
            dry_run,
            scope: fields.into_scope(),
            sample_time: None,
        })
    }
}

const DETAIL_TYPE: &str = "Scheduled Event";
const SOURCES: [&str; 2] = ["aws.events", "aws.scheduler"];

/// EC2 documents no largest `MaxResults`; the wire carries a signed 32-bit number.
const MAX_RESULTS: u32 = i32::MAX as u32;

/// A scheduled event; fields that do not matter here may come and go.
///
/// Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html>
#[derive(Deserialize)]
struct ScheduledEvent {
    #[serde(rename = "detail-type")]
    detail_type: String,
    source: String,
    id: String,
    time: String,
}

/// A request; callers rely on the names.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    regions: Option<Vec<Region>>,
    account_ids: Option<Vec<AccountId>>,
    image_ids: Option<Vec<String>>,
    report_ids: Option<Vec<String>>,
    filters: Option<Vec<ReportFilter>>,
    max_results: Option<i64>,
    scheduled_at: Option<String>,
    dry_run: Option<bool>,
}

impl Fields {
    fn check_lists(&self) -> Result<(), InvalidRequest> {
        refuse_empty("regions", &self.regions)?;
        refuse_empty("account_ids", &self.account_ids)?;
        refuse_empty("image_ids", &self.image_ids)?;
        refuse_empty("report_ids", &self.report_ids)?;
        refuse_empty("filters", &self.filters)?;
        for (name, ids) in [
            ("image_ids", &self.image_ids),
            ("report_ids", &self.report_ids),
        ] {
            if let Some(index) = ids.iter().flatten().position(String::is_empty) {
                return Err(malformed(
                    &format!("{name}[{index}]"),
                    "is empty: give an ID",
                ));
            }
        }
        for (index, filter) in self.filters.iter().flatten().enumerate() {
            if filter.name.is_empty() {
                return Err(malformed(
                    &format!("filters[{index}].name"),
                    "is empty: give the name of a filter",
                ));
            }
            if filter.values.is_empty() {
                return Err(malformed(&format!("filters[{index}].values"), EMPTY_LIST));
            }
        }
        Ok(())
    }

    fn into_scope(self) -> Scope {
        let Self {
            regions,
            account_ids,
            image_ids,
            report_ids,
            filters,
            ..
        } = self;
        let full = regions.is_none()
            && account_ids.is_none()
            && image_ids.is_none()
            && report_ids.is_none()
            && filters.is_none();
        // Empty lists have been refused: from here on they mean absent ones.
        Scope {
            full,
            image_ids: image_ids.unwrap_or_else(Vec::new),
            report_ids: report_ids.unwrap_or_else(Vec::new),
            filters: filters.unwrap_or_else(Vec::new),
            regions: regions.unwrap_or_else(Vec::new),
            account_ids: account_ids.unwrap_or_else(Vec::new),
        }
    }
}

const EMPTY_LIST: &str = "is empty: name at least one, or omit the field";

fn refuse_empty<T>(field: &str, list: &Option<Vec<T>>) -> Result<(), InvalidRequest> {
    match list {
        Some(list) if list.is_empty() => Err(malformed(field, EMPTY_LIST)),
        _ => Ok(()),
    }
}

fn read<'de, T: Deserialize<'de>>(payload: Value) -> Result<T, InvalidRequest> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "payload".to_owned(),
            path => path,
        };
        InvalidRequest::Field {
            field,
            problem: error.into_inner().to_string(),
        }
    })
}

/// Events are delivered within a day and retried for hours; a catch-up run is asked for within two weeks.
const DAYS_BEFORE: i64 = 14;
const DAYS_AFTER: i64 = 1;

fn is_near(time: Timestamp, now: Timestamp) -> bool {
    const NEAR: RangeInclusive<i64> = -DAYS_BEFORE * SECONDS_PER_DAY..=DAYS_AFTER * SECONDS_PER_DAY;
    NEAR.contains(&time.seconds_since(now))
}

/// A time that somebody typed: a slip of the year would freeze `latest.json`, which never moves back.
fn typed_time(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, InvalidRequest> {
    let time = time(field, text)?;
    if !is_near(time, now) {
        let problem = format!(
            "`{text}` is too far from now, {now}: give a time within {DAYS_BEFORE} days before and {DAYS_AFTER} day after it, or omit the field"
        );
        return Err(malformed(field, &problem));
    }
    Ok(time)
}

fn time(field: &str, text: &str) -> Result<Timestamp, InvalidRequest> {
    let parsed = text.parse();
    parsed.map_err(|error: MalformedTimestamp| malformed(field, &error.to_string()))
}

fn malformed(field: &str, problem: &str) -> InvalidRequest {
    InvalidRequest::Field {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-22T06:00:05Z".parse().unwrap()
    }

    fn refusal(payload: Value) -> String {
        Request::from_payload(payload, now())
            .unwrap_err()
            .to_string()
    }

    fn event(source: &str, detail: Value) -> Value {
        json!({
            "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602", "detail-type": "Scheduled Event",
            "source": source, "account": "111122223333", "time": "2026-11-22T06:00:00Z", "region": "us-east-1",
            "resources": [], "detail": detail
        })
    }

    #[test]
    fn events_of_both_sources_are_a_full_audit_for_their_time() {
        for payload in [
            event("aws.events", json!({})),
            event("aws.scheduler", json!("{}")),
        ] {
            let request = Request::from_payload(payload, now()).unwrap();
            assert!(request.scope.full && !request.dry_run);
            assert_eq!(
                request.scheduled_at.unwrap().to_string(),
                "2026-11-22T06:00:00Z"
            );
            assert_eq!(
                request.event_id.as_deref(),
                Some("7bf73129-1428-4cd3-a780-95db273d1602")
            );
        }
    }

    #[test]
    fn an_empty_request_is_a_full_audit() {
        let request = Request::from_payload(json!({}), now()).unwrap();
        assert!(request.scope.full);
        assert_eq!(request.scheduled_at, None);
    }

    #[test]
    fn each_narrowing_member_alone_makes_the_run_scoped() {
        for payload in [
            json!({"regions": ["eu-west-1"]}),
            json!({"account_ids": ["111122223333"]}),
            json!({"image_ids": ["ami-0abcdef1234567890"]}),
            json!({"report_ids": ["amiur-00b877d192f6b02d0"]}),
            json!({"filters": [{"name": "state", "values": ["error"]}]}),
        ] {
            assert!(
                !Request::from_payload(payload.clone(), now())
                    .unwrap()
                    .scope
                    .full,
                "{payload}"
            );
        }
        for payload in [
            json!({"max_results": 5}),
            json!({"dry_run": false}),
            json!({"scheduled_at": "2026-11-22T06:00:00Z"}),
            json!({"regions": null}),
        ] {
            assert!(
                Request::from_payload(payload.clone(), now())
                    .unwrap()
                    .scope
                    .full,
                "{payload}"
            );
        }
    }

    #[test]
    fn a_typed_moment_far_from_now_is_refused_by_name() {
        for near in ["2026-11-08T06:00:05Z", "2026-11-23T06:00:05Z"] {
            let request = Request::from_payload(json!({"scheduled_at": near}), now()).unwrap();
            assert_eq!(request.scheduled_at.unwrap().to_string(), near);
        }
        for far in [
            "2026-11-08T06:00:04Z",
            "2026-11-23T06:00:06Z",
            "2062-11-22T06:00:00Z",
        ] {
            assert_eq!(
                refusal(json!({"scheduled_at": far})),
                format!(
                    "`scheduled_at`: `{far}` is too far from now, 2026-11-22T06:00:05Z: give a time within 14 days before and 1 day after it, or omit the field"
                )
            );
        }
    }

    #[test]
    fn a_sample_event_is_an_audit_of_now() {
        let mut sample = event("aws.events", json!({}));
        sample["time"] = json!("1970-01-01T00:00:00Z");
        let request = Request::from_payload(sample, now()).unwrap();
        assert!(request.scope.full);
        assert_eq!((request.scheduled_at, request.event_id), (None, None));
        assert_eq!(
            request.sample_time.unwrap().to_string(),
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            (
                json!(null),
                "the payload is null: send a scheduled event or a request, `{}` for a full audit",
            ),
            (
                json!([]),
                "the payload is a list: send a scheduled event or a request, `{}` for a full audit",
            ),
            (
                json!({"region": "eu-west-1"}),
                "`region`: unknown field `region`, expected one of `regions`, `account_ids`, `image_ids`, `report_ids`, `filters`, `max_results`, `scheduled_at`, `dry_run`",
            ),
            (
                json!({"next_token": "x"}),
                "`next_token`: unknown field `next_token`, expected one of `regions`, `account_ids`, `image_ids`, `report_ids`, `filters`, `max_results`, `scheduled_at`, `dry_run`",
            ),
            (
                json!({"regions": "eu-west-1"}),
                "`regions`: invalid type: string \"eu-west-1\", expected a sequence",
            ),
            (
                json!({"regions": ["eu-west-1", "Ireland"]}),
                "`regions[1]`: `Ireland` is not the name of a Region such as eu-west-1",
            ),
            (
                json!({"regions": []}),
                "`regions`: is empty: name at least one, or omit the field",
            ),
            (
                json!({"account_ids": [111122223333u64]}),
                "`account_ids[0]`: invalid type: integer `111122223333`, expected a string",
            ),
            (
                json!({"report_ids": [""]}),
                "`report_ids[0]`: is empty: give an ID",
            ),
            (
                json!({"filters": [{"name": "state", "value": ["error"]}]}),
                "`filters[0].value`: unknown field `value`, expected `name` or `values`",
            ),
            (
                json!({"filters": [{"name": "state", "values": []}]}),
                "`filters[0].values`: is empty: name at least one, or omit the field",
            ),
            (
                json!({"filters": [{"name": "state"}]}),
                "`filters[0]`: missing field `values`",
            ),
            (
                json!({"max_results": 0}),
                "`max_results`: is 0: give a whole number from 1 to 2147483647",
            ),
            (
                json!({"max_results": "5"}),
                "`max_results`: invalid type: string \"5\", expected i64",
            ),
            (
                json!({"dry_run": "true"}),
                "`dry_run`: invalid type: string \"true\", expected a boolean",
            ),
            (
                json!({"scheduled_at": "yesterday"}),
                "`scheduled_at`: `yesterday` is not an RFC 3339 time such as 2026-11-22T06:00:00Z",
            ),
            (
                event("aws.s3", json!({})),
                "`source` is `aws.s3`: this function accepts scheduled events (`source` is `aws.events` or `aws.scheduler`)",
            ),
            (
                json!({"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "id": "x", "time": "2026-11-22T06:00:00Z"}),
                "`detail-type` is `EC2 Instance State-change Notification`: this function accepts scheduled events (`detail-type` is `Scheduled Event`)",
            ),
            (
                json!({"detail-type": "Scheduled Event", "source": "aws.events", "id": "x"}),
                "`payload`: missing field `time`",
            ),
            (
                json!({"detail-type": "Scheduled Event", "source": "aws.events", "id": "x", "time": "06:00"}),
                "`time`: `06:00` is not an RFC 3339 time such as 2026-11-22T06:00:00Z",
            ),
        ];
        for (payload, expected) in cases {
            assert_eq!(refusal(payload), expected);
        }
    }
}
