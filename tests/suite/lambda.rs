//! The built function, driven through the Lambda Runtime API.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use local_aws::{Fault, FaultKind, LocalAws, OutcomeKind, RuntimeApi, SeedOptions, Tag, World};
use serde_json::{Value, json};

use crate::harness::{ACCOUNT, Archive, BUCKET, LATEST, local_aws, project_file, report, text};

/// The function's timeout. No answer takes this long, and no test waits longer.
const TIMEOUT: Duration = Duration::from_secs(60);

const REGIONS: [&str; 3] = ["ap-southeast-2", "eu-west-1", "us-east-1"];

/// The function as a process, and its Runtime API.
pub(crate) struct Lambda {
    api: RuntimeApi,
    process: Child,
}

/// The answer to an invocation.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) failed: bool,
    pub(crate) payload: Value,
}

impl Lambda {
    /// Starts the function with these variables, beside those that Lambda sets.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let arn = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:auditor");
        let api = RuntimeApi::start(&arn).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_image-usage-auditor"))
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
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
            .expect("the function's process starts");
        Self { api, process }
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

    /// Invokes the function; the test fails unless the function answers.
    pub(crate) fn invoke(&mut self, event: &str) -> Outcome {
        let outcome = self.api.invoke(event, TIMEOUT);
        let failed = match outcome.kind {
            OutcomeKind::Response => false,
            OutcomeKind::Error => true,
            _ => panic!("the function did not answer: {outcome:?}"),
        };
        Outcome {
            failed,
            payload: outcome.payload,
        }
    }

    /// Hands an event to the function without waiting for the answer.
    pub(crate) fn hand_over(&mut self, event: &str) {
        self.api.hand_over(event, TIMEOUT).unwrap();
    }

    /// Kills the function, even in the middle of an invocation.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Stops the function and returns its log.
    fn stop(mut self) -> Vec<Value> {
        self.process.kill().unwrap();
        let output = self.take_output();
        output
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    fn take_output(&mut self) -> String {
        let mut output = String::new();
        let mut stdout = self.process.stdout.take().unwrap();
        stdout.read_to_string(&mut output).unwrap();
        let mut stderr = self.process.stderr.take().unwrap();
        stderr.read_to_string(&mut output).unwrap();
        self.process.wait().unwrap();
        output
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        // A failed test leaves no process behind; one that has exited cannot be killed.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn event(name: &str) -> String {
    fs::read_to_string(project_file("events").join(name)).unwrap()
}

/// A world at the system's time, which is the only time that a function's process knows.
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

const SAMPLE_EVENTS: [&str; 7] = [
    "request-filtered.json",
    "request-full.json",
    "request-one-region.json",
    "request-preflight.json",
    "request-report-ids.json",
    "scheduled.json",
    "scheduler.json",
];

fn check_preflight(summary: &Value) {
    let targets = summary["targets"].as_array().unwrap();
    let statuses: Vec<&str> = targets.iter().map(|line| text(&line["status"])).collect();
    assert_eq!(statuses, ["permitted"; 3]);
}

/// Compares the snapshot of a run with its summary and with what its event asked for.
fn check_run(name: &str, summary: &Value, archive: &Archive, world: &World) {
    assert_eq!(summary["status"], "complete", "{name}");
    assert_eq!(summary["already_archived"], false, "{name}");
    let snapshot = archive.json(text(&summary["snapshot"]["key"]));
    // Samples are audits of now, whatever their time.
    assert_eq!(snapshot["scheduled_at"], snapshot["started_at"], "{name}");
    assert_eq!(snapshot["counts"], summary["counts"], "{name}");
    let targets = snapshot["targets"].as_array().unwrap().len();
    let counts = &snapshot["counts"]["reports"];
    let reports = counts["total"].as_u64().unwrap();
    match name {
        "request-one-region.json" => assert_eq!(targets, 1),
        "request-report-ids.json" => assert_eq!((targets, reports), (1, 1)),
        "request-filtered.json" => {
            assert_eq!(snapshot["scope"]["full"], false);
            assert!(reports > 0);
            let failed_or_pending =
                counts["error"].as_u64().unwrap() + counts["pending"].as_u64().unwrap();
            assert_eq!(failed_or_pending, reports);
        }
        _ => {
            assert_eq!(snapshot["scope"]["full"], true, "{name}");
            archive.check(&snapshot, world);
        }
    }
}

#[tokio::test]
async fn every_sample_event_is_audited() {
    let aws = seeded_aws().await;
    let archive = Archive::of(&aws);
    let mut lambda = Lambda::for_archive(&aws);
    let mut names: Vec<String> = fs::read_dir(project_file("events"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, SAMPLE_EVENTS);
    for name in &names {
        let outcome = lambda.invoke(&event(name));
        assert!(!outcome.failed, "{name}: {outcome:?}");
        if name == "request-preflight.json" {
            check_preflight(&outcome.payload);
        } else {
            check_run(name, &outcome.payload, &archive, aws.world());
        }
    }
    // An event of now is the same run each time; a sample is a run each time.
    let mut real: Value = serde_json::from_str(&event("scheduled.json")).unwrap();
    real["time"] = json!(local_aws::timestamp(aws.world().clock().now()));
    for again in [false, true] {
        let outcome = lambda.invoke(&real.to_string());
        assert_eq!(outcome.payload["already_archived"], again);
    }
    let log = lambda.stop();
    let metrics: Vec<&Value> = log.iter().filter(|line| line["_aws"].is_object()).collect();
    // The preflight and the repeated event write none.
    assert_eq!(metrics.len(), SAMPLE_EVENTS.len());
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
async fn the_metrics_line_has_every_metric_and_separates_scoped_runs() {
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
        "ImagesInUse",
        "ImagesNoUseObserved",
        "ImagesLastSeenInUse",
        "ImagesUnknown",
        "ImagesGone",
        "ImagesUncovered",
        "ImagesNotRead",
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
    assert!(line["RunDuration"].as_u64().unwrap() < TIMEOUT.as_millis() as u64);
}

#[tokio::test]
async fn the_metrics_count_every_object_of_earlier_runs_that_cannot_be_read() {
    let aws = seeded_aws().await;
    let mut lambda = Lambda::for_archive(&aws);
    let first = lambda.invoke("{}").payload;
    for unreadable in [text(&first["snapshot"]["key"]), LATEST, "/reports/"] {
        let denied = Fault::new(FaultKind::Denied).on("GetObject");
        aws.faults().add(denied.on_key(unreadable));
        assert!(!lambda.invoke("{}").failed, "{unreadable}");
        aws.faults().clear();
    }
    let log = lambda.stop();
    let metrics = log.iter().filter(|line| line["_aws"].is_object());
    let counted: Vec<&Value> = metrics.map(|line| &line["ObjectsUnreadable"]).collect();
    // Each of the three Regions has an object with reports.
    assert_eq!(counted, [0, 1, 1, 3]);
}

#[tokio::test]
async fn a_failed_run_is_reported_with_its_error_type_and_the_next_run_succeeds() {
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
    assert_eq!(errors.len(), 1, "logged once: {errors:?}");
    assert_eq!(errors[0]["error"], message);
}

#[tokio::test]
async fn texts_from_outside_cannot_forge_log_lines() {
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
fn a_function_with_invalid_settings_does_not_start_and_reports_the_setting() {
    let mut lambda = Lambda::start(&[
        ("AWS_REGION", "us-east-1"),
        ("AUDITOR_ARCHIVE_BUCKET", BUCKET),
        ("AUDITOR_EXPIRY_WINDOW_DAYS", "31"),
    ]);
    let outcome = lambda.api.invoke("{}", TIMEOUT);
    assert_eq!(outcome.kind, OutcomeKind::InitError);
    assert_eq!(outcome.error_type.as_deref(), Some("InvalidSettings"));
    let message = "AUDITOR_EXPIRY_WINDOW_DAYS is `31`: give a whole number from 0 to 30";
    assert_eq!(outcome.payload["errorMessage"], message);
    let output = lambda.take_output();
    assert!(output.contains(message), "{output}");
    assert!(!lambda.process.wait().unwrap().success());
}

#[tokio::test]
async fn a_function_that_is_killed_during_an_invocation_is_reported() {
    let aws = seeded_aws().await;
    aws.faults().add(Fault::new(FaultKind::Latency {
        milliseconds: 60_000,
    }));
    let Lambda { api, process } = &mut Lambda::for_archive(&aws);
    std::thread::scope(|scope| {
        let outcome = scope.spawn(|| api.invoke("{}", TIMEOUT));
        while aws.faults().injected() == 0 && !outcome.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        process.kill().unwrap();
        let outcome = outcome.join().unwrap();
        assert_eq!(outcome.kind, OutcomeKind::Exited, "{outcome:?}");
    });
}
