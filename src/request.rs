//! What an invocation asks for.

use serde::Deserialize;
use serde_json::Value;

use image_usage_archive::documents::snapshot::{Filter, Scope};
use image_usage_archive::domain::target::{AccountId, Region};
use image_usage_archive::domain::timestamp::Timestamp;

/// An invocation's payload, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to look at.
    pub scope: Scope,
    /// How many reports to ask for in one call; `None` for the configured number.
    pub max_results: Option<u32>,
    /// The moment the run is for; `None` for its start.
    pub scheduled_at: Option<Timestamp>,
    /// The event's own ID; `None` for that of the Lambda request.
    pub event_id: Option<String>,
    /// Whether only to ask EC2 if the calls would be permitted.
    pub dry_run: bool,
}

/// A payload that is neither a scheduled event nor a request.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// The payload isn't an object at all.
    #[error("the payload is {found}: send a scheduled event or a request, `{{}}` for a full audit")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// It is an event of another kind.
    #[error("`{member}` is {found}: this function takes scheduled events ({expected})")]
    OtherEvent {
        /// The member that tells so.
        member: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A member is unknown, of the wrong type or malformed.
    #[error("`{member}`: {problem}")]
    Member {
        /// Where it stands in the payload.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Request {
    /// Understands a payload: a scheduled event of an EventBridge rule or of EventBridge Scheduler, or
    /// a request.
    ///
    /// A payload with a member `detail-type` is taken for an event. `null` stands for a member left
    /// out; an empty list is refused, since it may as well mean "everything" as "nothing".
    ///
    /// # Errors
    /// Fails on anything else, naming the member.
    pub fn from_payload(payload: Value) -> Result<Self, InvalidRequest> {
        match &payload {
            Value::Object(members) if members.contains_key("detail-type") => {
                Self::from_event(payload)
            }
            Value::Object(_) => Self::from_members(payload),
            other => Err(InvalidRequest::NotAnObject {
                found: kind_of(other),
            }),
        }
    }

    fn from_event(payload: Value) -> Result<Self, InvalidRequest> {
        let event: ScheduledEvent = read(payload)?;
        if event.detail_type != DETAIL_TYPE {
            let expected = "`detail-type` is `Scheduled Event`";
            return Err(InvalidRequest::OtherEvent {
                member: "detail-type",
                found: quoted(&event.detail_type),
                expected,
            });
        }
        if !SOURCES.contains(&event.source.as_str()) {
            let expected = "`source` is `aws.events` or `aws.scheduler`";
            return Err(InvalidRequest::OtherEvent {
                member: "source",
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
        Ok(Self {
            scope: Members::default().into_scope(),
            max_results: None,
            scheduled_at: Some(time("time", &event.time)?),
            event_id: Some(event.id),
            dry_run: false,
        })
    }

    fn from_members(payload: Value) -> Result<Self, InvalidRequest> {
        let members: Members = read(payload)?;
        members.check_lists()?;
        let scheduled_at = members
            .scheduled_at
            .as_deref()
            .map(|text| time("scheduled_at", text))
            .transpose()?;
        let max_results = match members.max_results {
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
        let dry_run = members.dry_run.unwrap_or(false);
        Ok(Self {
            max_results,
            scheduled_at,
            event_id: None,
            dry_run,
            scope: members.into_scope(),
        })
    }
}

const DETAIL_TYPE: &str = "Scheduled Event";
const SOURCES: [&str; 2] = ["aws.events", "aws.scheduler"];

/// EC2 documents no largest `MaxResults`; the wire carries a signed 32-bit number.
const MAX_RESULTS: u32 = i32::MAX as u32;

/// A scheduled event; members that don't matter here may come and go.
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

/// A request; the names are those of the contract with callers.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    regions: Option<Vec<Region>>,
    account_ids: Option<Vec<AccountId>>,
    image_ids: Option<Vec<String>>,
    report_ids: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
    max_results: Option<i64>,
    scheduled_at: Option<String>,
    dry_run: Option<bool>,
}

impl Members {
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
        // An absent list and an empty one mean the same from here on: empty ones have been refused.
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

const EMPTY_LIST: &str = "is empty: name at least one, or leave the member out";

fn refuse_empty<T>(member: &str, list: &Option<Vec<T>>) -> Result<(), InvalidRequest> {
    match list {
        Some(list) if list.is_empty() => Err(malformed(member, EMPTY_LIST)),
        _ => Ok(()),
    }
}

fn read<'de, T: Deserialize<'de>>(payload: Value) -> Result<T, InvalidRequest> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let member = match error.path().to_string() {
            path if path == "." => "payload".to_owned(),
            path => path,
        };
        InvalidRequest::Member {
            member,
            problem: error.into_inner().to_string(),
        }
    })
}

fn time(member: &str, text: &str) -> Result<Timestamp, InvalidRequest> {
    text.parse().map_err(
        |error: image_usage_archive::domain::timestamp::MalformedTimestamp| {
            malformed(member, &error.to_string())
        },
    )
}

fn malformed(member: &str, problem: &str) -> InvalidRequest {
    InvalidRequest::Member {
        member: member.to_owned(),
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

    fn refusal(payload: Value) -> String {
        Request::from_payload(payload).unwrap_err().to_string()
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
            let request = Request::from_payload(payload).unwrap();
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
        let request = Request::from_payload(json!({})).unwrap();
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
                !Request::from_payload(payload.clone()).unwrap().scope.full,
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
                Request::from_payload(payload.clone()).unwrap().scope.full,
                "{payload}"
            );
        }
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
                "`regions`: is empty: name at least one, or leave the member out",
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
                "`filters[0].values`: is empty: name at least one, or leave the member out",
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
                "`source` is `aws.s3`: this function takes scheduled events (`source` is `aws.events` or `aws.scheduler`)",
            ),
            (
                json!({"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "id": "x", "time": "2026-11-22T06:00:00Z"}),
                "`detail-type` is `EC2 Instance State-change Notification`: this function takes scheduled events (`detail-type` is `Scheduled Event`)",
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
