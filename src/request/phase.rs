//! What a phase of a run asks for: the payloads of the state machine.

use image_usage_archive::documents::TargetLine;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{InvalidRequest, Request, malformed, read, typed_time};

/// The most targets in one batch: the outcomes of all of them are in memory until they are written.
const MAX_BATCH_TARGETS: usize = 100;

/// One phase of a run that goes over several functions, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PhaseRequest {
    /// List the targets of a run.
    Plan(Box<Request>),
    /// Audit some targets of a planned run.
    Target {
        /// The run.
        run_id: RunId,
        /// Targets of its plan; at least one.
        targets: Vec<TargetLine>,
        /// Why they cannot be audited: the function failed each time. Only that is recorded then.
        failure: Option<Failure>,
    },
    /// Publish a planned run with the outcomes that there are.
    Publish {
        /// The run.
        run_id: RunId,
        /// Why there may be targets without an outcome, if the state machine knows.
        failure: Option<Failure>,
    },
}

/// An error as Step Functions reports it to a `Catch`.
///
/// Source: <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Its name.
    #[serde(rename = "Error")]
    pub error: String,
    /// What is known of the cause: for a failed function, its answer as JSON.
    #[serde(rename = "Cause")]
    pub cause: Option<String>,
}

/// An error, or `{}` if there is none: a state machine cannot leave a field out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaybeFailure {
    #[serde(rename = "Error")]
    error: Option<String>,
    #[serde(rename = "Cause")]
    cause: Option<String>,
}

impl MaybeFailure {
    fn into_failure(self) -> Result<Option<Failure>, InvalidRequest> {
        let Self { error, cause } = self;
        match error {
            Some(error) => Ok(Some(Failure { error, cause })),
            None if cause.is_none() => Ok(None),
            None => Err(malformed("failure.Error", "is missing beside `Cause`")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFields {
    #[serde(rename = "phase")]
    _phase: String,
    request: Option<Value>,
    execution_id: Option<String>,
    execution_started_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFields {
    #[serde(rename = "phase")]
    _phase: String,
    run_id: String,
    targets: Vec<TargetLine>,
    failure: Option<MaybeFailure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishFields {
    #[serde(rename = "phase")]
    _phase: String,
    run_id: String,
    failure: Option<MaybeFailure>,
}

impl PhaseRequest {
    /// Reads a payload with a field `phase`. `now` is the start of the invocation.
    ///
    /// # Errors
    /// Fails on anything that is not one of the three phases, naming the field.
    pub(super) fn from_payload(payload: Value, now: Timestamp) -> Result<Self, InvalidRequest> {
        match payload["phase"].as_str() {
            Some("plan") => Self::plan(read(payload)?, now),
            Some("target") => Self::target(read(payload)?),
            Some("publish") => {
                let fields: PublishFields = read(payload)?;
                Ok(Self::Publish {
                    run_id: run_id(&fields.run_id)?,
                    failure: fields.failure.unwrap_or_default().into_failure()?,
                })
            }
            _ => {
                let problem = format!(
                    "is {}: give `plan`, `target` or `publish`",
                    payload["phase"]
                );
                Err(malformed("phase", &problem))
            }
        }
    }

    /// A request without a time or an ID of its own takes those of the execution, so that a retry of the phase
    /// plans the same run.
    fn plan(fields: PlanFields, now: Timestamp) -> Result<Self, InvalidRequest> {
        let request = fields
            .request
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let mut request = Request::from_payload(request, now).map_err(within_request)?;
        if request.dry_run {
            let problem = "a preflight has no phases: send it as a request of its own";
            return Err(malformed("request.dry_run", problem));
        }
        let started_at = fields.execution_started_at.as_deref();
        let started_at = started_at
            .map(|text| typed_time("execution_started_at", text, now))
            .transpose()?;
        if fields.execution_id.as_deref() == Some("") {
            let problem = "is empty: it names the run, so that a retry is recognised";
            return Err(malformed("execution_id", problem));
        }
        request.scheduled_at = request.scheduled_at.or(started_at);
        request.event_id = request.event_id.or(fields.execution_id);
        Ok(Self::Plan(Box::new(request)))
    }

    fn target(fields: TargetFields) -> Result<Self, InvalidRequest> {
        let targets = fields.targets;
        if !(1..=MAX_BATCH_TARGETS).contains(&targets.len()) {
            let problem = format!(
                "has {} targets: give 1 to {MAX_BATCH_TARGETS}",
                targets.len()
            );
            return Err(malformed("targets", &problem));
        }
        for (index, line) in targets.iter().enumerate() {
            let before = &targets[..index];
            if before.iter().any(|other| other.target() == line.target()) {
                let problem = format!("{} is there twice", line.target());
                return Err(malformed(&format!("targets[{index}]"), &problem));
            }
        }
        Ok(Self::Target {
            run_id: run_id(&fields.run_id)?,
            targets,
            failure: fields.failure.unwrap_or_default().into_failure()?,
        })
    }
}

fn run_id(text: &str) -> Result<RunId, InvalidRequest> {
    let parsed = text.parse::<RunId>();
    parsed.map_err(|error| malformed("run_id", &error.to_string()))
}

/// Says where in the payload the request is.
fn within_request(error: InvalidRequest) -> InvalidRequest {
    match error {
        InvalidRequest::Field { field, problem } => InvalidRequest::Field {
            field: match field.as_str() {
                "payload" => "request".to_owned(),
                field => format!("request.{field}"),
            },
            problem,
        },
        other => malformed("request", &other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    fn read(payload: Value) -> Result<PhaseRequest, InvalidRequest> {
        PhaseRequest::from_payload(payload, "2026-11-22T06:00:05Z".parse().unwrap())
    }

    fn refusals(payloads: impl IntoIterator<Item = Value>) -> String {
        let refusals = payloads.into_iter().map(|payload| {
            let error = read(payload.clone()).expect_err(&payload.to_string());
            error.to_string()
        });
        refusals.collect::<Vec<_>>().join("\n")
    }

    fn planned(payload: Value) -> Request {
        match read(payload).unwrap() {
            PhaseRequest::Plan(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    fn a_target() -> Value {
        json!({"account_id": "111122223333", "region": "eu-west-1", "error": null, "earlier": null})
    }

    #[test]
    fn a_plan_of_a_scheduled_event_takes_its_time_and_id() {
        let event = json!({
            "id": "7bf73129-1428-4cd3-a780-95db273d1602", "detail-type": "Scheduled Event",
            "source": "aws.scheduler", "time": "2026-11-22T06:00:00Z", "detail": "{}"
        });
        let request = planned(json!({
            "phase": "plan", "request": event, "execution_id": "arn:execution",
            "execution_started_at": "2026-11-22T06:00:03.120Z"
        }));
        assert_eq!(
            request.event_id.as_deref(),
            Some("7bf73129-1428-4cd3-a780-95db273d1602")
        );
        let scheduled_at = request.scheduled_at.unwrap().to_string();
        assert_eq!(scheduled_at, "2026-11-22T06:00:00Z");
    }

    #[test]
    fn a_plan_of_a_request_takes_time_and_id_of_the_execution() {
        let request = planned(json!({
            "phase": "plan", "request": {"regions": ["eu-west-1"]}, "execution_id": "arn:execution",
            "execution_started_at": "2026-11-22T06:00:03.120Z"
        }));
        assert_eq!(request.event_id.as_deref(), Some("arn:execution"));
        let scheduled_at = request.scheduled_at.unwrap().to_string();
        assert_eq!(scheduled_at, "2026-11-22T06:00:03.120Z");
        assert!(!request.scope.full);
        assert!(planned(json!({"phase": "plan"})).scope.full);
    }

    #[test]
    fn an_empty_failure_is_none() {
        let run_id = "20261122T060000Z-7bf73129";
        let publish = |failure: Value| {
            read(json!({"phase": "publish", "run_id": run_id, "failure": failure}))
        };
        let none = publish(json!({})).unwrap();
        assert!(matches!(none, PhaseRequest::Publish { failure: None, .. }));
        let caught = publish(json!({"Error": "States.ItemReaderFailed", "Cause": "why"})).unwrap();
        assert!(matches!(
            caught,
            PhaseRequest::Publish { failure: Some(Failure { error, .. }), .. } if error == "States.ItemReaderFailed"
        ));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let run_id = "20261122T060000Z-7bf73129";
        let target = |name: &str, value: Value| {
            let mut target = a_target();
            target[name] = value;
            json!({"phase": "target", "run_id": run_id, "targets": [target]})
        };
        assert_snapshot!(refusals([
            json!({"phase": "audit"}),
            json!({"phase": 1}),
            json!({"phase": "plan", "regions": ["eu-west-1"]}),
            json!({"phase": "plan", "request": []}),
            json!({"phase": "plan", "request": {"surprise": 1}}),
            json!({"phase": "plan", "request": {"regions": ["nowhere"]}}),
            json!({"phase": "plan", "request": {"dry_run": true}}),
            json!({"phase": "plan", "execution_id": ""}),
            json!({"phase": "plan", "execution_started_at": "2027-11-22T06:00:00Z"}),
            json!({"phase": "target", "targets": [a_target()]}),
            json!({"phase": "target", "run_id": "../..", "targets": [a_target()]}),
            json!({"phase": "target", "run_id": run_id, "targets": []}),
            json!({"phase": "target", "run_id": run_id, "targets": [a_target(), a_target()]}),
            target("account_id", json!("1")),
            target("surprise", json!(1)),
            target("earlier", json!({"reports": [], "images": null, "credentials": 1})),
            json!({"phase": "publish"}),
            json!({"phase": "publish", "run_id": run_id, "failure": {"Cause": "why"}}),
            json!({"phase": "publish", "run_id": run_id, "scope": {}}),
        ]), @r#"
        `phase`: is "audit": give `plan`, `target` or `publish`
        `phase`: is 1: give `plan`, `target` or `publish`
        `regions`: unknown field `regions`, expected one of `phase`, `request`, `execution_id`, `execution_started_at`
        `request`: the payload is a list: send a scheduled event or a request, `{}` for a full audit
        `request.surprise`: unknown field `surprise`, expected one of `regions`, `account_ids`, `image_ids`, `report_ids`, `filters`, `max_results`, `scheduled_at`, `dry_run`
        `request.regions[0]`: `nowhere` is not the name of a Region such as eu-west-1
        `request.dry_run`: a preflight has no phases: send it as a request of its own
        `execution_id`: is empty: it names the run, so that a retry is recognised
        `execution_started_at`: `2027-11-22T06:00:00Z` is too far from now, 2026-11-22T06:00:05Z: give a time within 14 days before and 1 day after it, or omit the field
        `payload`: missing field `run_id`
        `run_id`: `../..` is not the name of a run or an attempt, such as 20261122T060000Z-7bf73129 or 0badcafe
        `targets`: has 0 targets: give 1 to 100
        `targets[1]`: 111122223333/eu-west-1 is there twice
        `targets[0].account_id`: `1` is not an account ID: 12 digits such as 111122223333
        `targets[0].surprise`: unknown field `surprise`, expected one of `account_id`, `region`, `error`, `earlier`
        `targets[0].earlier.credentials`: unknown field `credentials`, expected `reports` or `images`
        `payload`: missing field `run_id`
        `failure.Error`: is missing beside `Cause`
        `scope`: unknown field `scope`, expected one of `phase`, `run_id`, `failure`
        "#);
    }
}
