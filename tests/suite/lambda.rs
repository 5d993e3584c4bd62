//! The built function, driven through the Lambda Runtime API.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use local_aws::{Fault, FaultKind, LocalAws, SeedOptions, Tag, World};
use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use crate::harness::{ACCOUNT, Archive, BUCKET, local_aws, project_file, report, text};

/// No answer of the function takes so long, and no test waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

const REGIONS: [&str; 3] = ["ap-southeast-2", "eu-west-1", "us-east-1"];

/// A Lambda service with one function in it.
pub(crate) struct Lambda {
    server: Server,
    function: Child,
    /// The request for the next invocation, held back until there is one.
    waiting: Option<Request>,
    invocations: u32,
}

/// What the function did with an invocation.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) failed: bool,
    pub(crate) payload: Value,
}

impl Lambda {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let server = Server::http("127.0.0.1:0").unwrap();
        let function = Command::new(env!("CARGO_BIN_EXE_image-usage-auditor"))
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", server.server_addr().to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "auditor")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_ACCESS_KEY_ID", format!("AKIA{ACCOUNT}"))
            .env("AWS_SECRET_ACCESS_KEY", "very-secret-key")
            .env("AWS_SESSION_TOKEN", "very-secret-token")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            server,
            function,
            waiting: None,
            invocations: 0,
        }
    }

    fn for_archive(aws: &LocalAws) -> Self {
        let endpoint = aws.endpoint();
        Self::start(&[
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AUDITOR_ARCHIVE_BUCKET", BUCKET),
            ("AUDITOR_REGIONS", &REGIONS.join(",")),
        ])
    }

    fn request(&self) -> Request {
        self.server
            .recv_timeout(PATIENCE)
            .unwrap()
            .expect("the function asks and answers in time")
    }

    pub(crate) fn invoke(&mut self, payload: &str) -> Outcome {
        let request_id = self.hand_over(payload);
        let mut answer = self.request();
        assert_eq!(*answer.method(), Method::Post);
        let failed = match answer.url().rsplit_once('/') {
            Some((invocation, "response")) if invocation.ends_with(&request_id) => false,
            Some((invocation, "error")) if invocation.ends_with(&request_id) => true,
            _ => panic!("unexpected: {}", answer.url()),
        };
        let mut body = String::new();
        answer.as_reader().read_to_string(&mut body).unwrap();
        answer.respond(Response::empty(202)).unwrap();
        Outcome {
            failed,
            payload: serde_json::from_str(&body).unwrap(),
        }
    }

    /// Gives the function an invocation, and doesn't wait for what it makes of it.
    pub(crate) fn hand_over(&mut self, payload: &str) -> String {
        let next = self.waiting.take().unwrap_or_else(|| self.request());
        assert_eq!(next.url(), "/2018-06-01/runtime/invocation/next");
        self.invocations += 1;
        let request_id = format!("0d6a6b3f-5b0e-4f7f-8d9c-{:012}", self.invocations);
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + PATIENCE;
        let header = |name: &str, value: &str| Header::from_bytes(name, value).unwrap();
        let event = Response::from_string(payload)
            .with_header(header("lambda-runtime-aws-request-id", &request_id))
            .with_header(header(
                "lambda-runtime-deadline-ms",
                &deadline.as_millis().to_string(),
            ))
            .with_header(header(
                "lambda-runtime-invoked-function-arn",
                &format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:auditor"),
            ));
        next.respond(event).unwrap();
        request_id
    }

    /// Kills the function, whatever it is at.
    pub(crate) fn kill(mut self) {
        self.function.kill().unwrap();
        self.function.wait().unwrap();
    }

    /// Ends the function, and returns its log.
    fn stop(mut self) -> Vec<Value> {
        self.waiting.take();
        self.function.kill().unwrap();
        let output = take_output(&mut self.function);
        output
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }
}

fn error_type(request: &Request) -> Option<String> {
    let wanted = |header: &&Header| header.field.equiv("lambda-runtime-function-error-type");
    request
        .headers()
        .iter()
        .find(wanted)
        .map(|header| header.value.to_string())
}

fn take_output(function: &mut Child) -> String {
    let mut output = String::new();
    function
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    function
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    function.wait().unwrap();
    output
}

fn event(name: &str) -> String {
    fs::read_to_string(project_file("events").join(name)).unwrap()
}

/// A world at the true time, as a function of its own process has no other.
async fn seeded_aws() -> LocalAws {
    let world = World::builder().account(ACCOUNT).regions(REGIONS).build();
    world.seed(&SeedOptions {
        regions: REGIONS.map(str::to_owned).to_vec(),
        ..SeedOptions::default()
    });
    let mut known = report("amiur-00b877d192f6b02d0");
    known.state = Some("error".to_owned());
    known.tags = vec![Tag::new("Owner", "TeamA")];
    known.expiration_time = Some(world.clock().now() + time::Duration::days(20));
    world.put_report(ACCOUNT, "us-east-1", known);
    local_aws(&world).await
}

#[tokio::test]
async fn every_sample_event_is_answered() {
    let aws = seeded_aws().await;
    let archive = Archive::of(&aws);
    let mut lambda = Lambda::for_archive(&aws);
    let mut names: Vec<String> = fs::read_dir(project_file("events"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "request-filtered.json",
        "request-full.json",
        "request-one-region.json",
        "request-preflight.json",
        "request-report-ids.json",
        "scheduled.json",
        "scheduler.json",
    ];
    assert_eq!(names, expected);
    let mut metrics_expected = 0;
    for name in names {
        let outcome = lambda.invoke(&event(&name));
        assert!(!outcome.failed, "{name}: {outcome:?}");
        if name == "request-preflight.json" {
            let statuses: Vec<&str> = outcome.payload["targets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| text(&line["status"]))
                .collect();
            assert_eq!(statuses, ["permitted"; 3]);
            continue;
        }
        metrics_expected += 1;
        assert_eq!(outcome.payload["status"], "complete", "{name}");
        assert_eq!(outcome.payload["already_archived"], false, "{name}");
        let snapshot = archive.json(text(&outcome.payload["snapshot"]["key"]));
        assert_eq!(snapshot["scheduled_at"], "2026-11-22T06:00:00Z", "{name}");
        assert_eq!(snapshot["counts"], outcome.payload["counts"], "{name}");
        let targets = snapshot["targets"].as_array().unwrap().len();
        let reports = snapshot["counts"]["reports"]["total"].as_u64().unwrap();
        match name.as_str() {
            "request-one-region.json" => assert_eq!(targets, 1),
            "request-report-ids.json" => assert_eq!((targets, reports), (1, 1)),
            "request-filtered.json" => {
                assert_eq!(snapshot["scope"]["full"], false);
                assert!(reports > 0);
                let read: u64 = snapshot["counts"]["reports"]["error"].as_u64().unwrap()
                    + snapshot["counts"]["reports"]["pending"].as_u64().unwrap();
                assert_eq!(read, reports);
            }
            _ => {
                assert_eq!(snapshot["scope"]["full"], true, "{name}");
                archive.check(&snapshot, aws.world());
            }
        }
    }
    let again = lambda.invoke(&event("scheduled.json"));
    assert_eq!(again.payload["already_archived"], true);
    let log = lambda.stop();
    let metrics: Vec<&Value> = log.iter().filter(|line| line["_aws"].is_object()).collect();
    assert_eq!(metrics.len(), metrics_expected);
    for line in log.iter().filter(|line| line["_aws"].is_null()) {
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    let whole = serde_json::to_string(&log).unwrap();
    assert!(!whole.contains("very-secret"), "the log holds a secret");
}

#[tokio::test]
async fn the_metrics_line_has_every_metric_and_keeps_scoped_runs_apart() {
    let aws = seeded_aws().await;
    let mut lambda = Lambda::for_archive(&aws);
    let full = lambda.invoke(&event("scheduled.json")).payload;
    lambda.invoke(&event("request-one-region.json"));
    let log = lambda.stop();
    let metrics: Vec<&Value> = log.iter().filter(|line| line["_aws"].is_object()).collect();
    assert_eq!(
        (&metrics[0]["Scope"], &metrics[1]["Scope"]),
        (&json!("full"), &json!("scoped"))
    );
    let line = metrics[0];
    let definition = &line["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(definition["Namespace"], "ImageUsageAuditor");
    assert_eq!(definition["Dimensions"], json!([["FunctionName", "Scope"]]));
    let names: Vec<&str> = definition["Metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| text(&metric["Name"]))
        .collect();
    let expected = [
        "ReportsAudited",
        "ReportsExpiring",
        "ReportsExpired",
        "ReportsFailed",
        "ReportsStuck",
        "ReportsUnarchived",
        "EntriesFetched",
        "EntriesFailed",
        "TargetsComplete",
        "TargetsIncomplete",
        "TargetsFailed",
        "TargetsSkipped",
        "RunDuration",
        "SnapshotsWritten",
        "ObjectsUnreadable",
    ];
    assert_eq!(names, expected);
    assert_eq!(line["FunctionName"], "auditor");
    assert_eq!(line["ReportsAudited"], full["counts"]["reports"]["total"]);
    assert_eq!(
        line["ReportsExpiring"],
        full["counts"]["findings"]["expiring"]
    );
    assert_eq!(line["ReportsFailed"], full["counts"]["findings"]["failed"]);
    assert_eq!(
        (&line["TargetsComplete"], &line["SnapshotsWritten"]),
        (&json!(3), &json!(1))
    );
    assert!(line["RunDuration"].as_u64().unwrap() < PATIENCE.as_millis() as u64);
}

#[tokio::test]
async fn a_failed_run_is_told_to_lambda_by_its_name_and_the_next_one_goes_on() {
    let aws = seeded_aws().await;
    let mut lambda = Lambda::for_archive(&aws);
    let outcome = lambda.invoke(r#"{"regions": ["Ireland"]}"#);
    assert!(outcome.failed);
    assert_eq!(outcome.payload["errorType"], "InvalidRequest");
    let message = "`regions[0]`: `Ireland` is not the name of a Region such as eu-west-1";
    assert_eq!(outcome.payload["errorMessage"], message);
    assert!(!lambda.invoke("{}").failed);
    let log = lambda.stop();
    let errors: Vec<&Value> = log.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "told once: {errors:?}");
    assert_eq!(errors[0]["error"], message);
}

#[tokio::test]
async fn no_text_from_outside_breaks_out_of_its_line_of_the_log() {
    const FORGED: &str = "no\r\n{\"level\":\"FORGED\",\"_aws\":{}}\n\u{2028}\u{85}\\\"";
    let world = World::builder().account(ACCOUNT).regions(REGIONS).build();
    let mut hostile = report("../../amiur-\n1");
    hostile.state = Some(FORGED.to_owned());
    hostile.state_reason = Some(FORGED.to_owned());
    hostile.tags = vec![Tag::new(FORGED, FORGED)];
    hostile.expiration_time = Some(world.clock().now() + time::Duration::days(20));
    world.put_report(ACCOUNT, "us-east-1", hostile);
    let aws = local_aws(&world).await;
    let refusal = FaultKind::Error {
        status: 400,
        code: "Invalid\nCode".to_owned(),
        message: FORGED.to_owned(),
    };
    aws.faults().add(Fault::new(refusal).in_region("eu-west-1"));
    let mut lambda = Lambda::for_archive(&aws);
    let outcome = lambda.invoke(&event("scheduled.json"));
    assert_eq!(outcome.payload["status"], "partial", "{outcome:?}");
    let snapshot = Archive::of(&aws).json(text(&outcome.payload["snapshot"]["key"]));
    assert_eq!(snapshot["findings"][0]["state_reason"], FORGED);
    assert_eq!(snapshot["findings"][0]["tags"], json!({FORGED: FORGED}));
    let outcome = lambda.invoke(&json!({FORGED: 1}).to_string());
    assert_eq!(outcome.payload["errorType"], "InvalidRequest");
    let log = lambda.stop();
    let known = ["INFO", "WARN", "ERROR"];
    let mut texts = Vec::new();
    for line in log.iter().filter(|line| line["level"].is_string()) {
        assert!(known.contains(&text(&line["level"])), "{line}");
        texts.extend(line["error_message"].as_str());
        texts.extend(line["error"].as_str());
    }
    assert_eq!(
        log.iter().filter(|line| line["_aws"].is_object()).count(),
        1,
        "{log:?}"
    );
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert_eq!(texts[0], FORGED);
    assert!(texts[1].contains(FORGED), "{texts:?}");
}

#[test]
fn a_function_with_invalid_settings_does_not_start_and_says_why() {
    let mut lambda = Lambda::start(&[
        ("AWS_REGION", "us-east-1"),
        ("AUDITOR_ARCHIVE_BUCKET", BUCKET),
        ("AUDITOR_EXPIRY_WINDOW_DAYS", "31"),
    ]);
    let mut report = lambda.request();
    assert_eq!(report.url(), "/2018-06-01/runtime/init/error");
    assert_eq!(error_type(&report).as_deref(), Some("InvalidSettings"));
    let mut body = String::new();
    report.as_reader().read_to_string(&mut body).unwrap();
    let message = "AUDITOR_EXPIRY_WINDOW_DAYS is `31`: give a whole number from 0 to 30";
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["errorMessage"],
        message
    );
    report.respond(Response::empty(202)).unwrap();
    let output = take_output(&mut lambda.function);
    assert!(output.contains(message), "{output}");
    assert!(!lambda.function.wait().unwrap().success());
}
