//! The Lambda Runtime API, as a function's process and its caller see it.

#![expect(clippy::unwrap_used, reason = "a test fails if its client does")]

use local_aws::{LocalAws, Outcome, OutcomeKind, RuntimeApi, World};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const ARN: &str = "arn:aws:lambda:us-east-1:111122223333:function:auditor";
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client with one connection.
struct Connection {
    address: SocketAddr,
    reader: BufReader<TcpStream>,
}

struct Received {
    status: u16,
    head: Vec<(String, String)>,
    body: String,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self {
            address,
            reader: BufReader::new(stream),
        }
    }

    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Received {
        let message = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        );
        self.reader.get_mut().write_all(message.as_bytes()).unwrap();
        self.receive()
    }

    fn receive(&mut self) -> Received {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let head: Vec<(String, String)> = lines[1..]
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut received = Received {
            status: lines[0].split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        };
        let length = received.header("content-length").parse().unwrap();
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        received.body = String::from_utf8(body).unwrap();
        received
    }

    // The function's requests.

    fn next(&mut self) -> Received {
        self.ask("GET", "/2018-06-01/runtime/invocation/next", "", "")
    }

    fn post(&mut self, what: &str, headers: &str, body: &str) -> Received {
        let path = format!("/2018-06-01/runtime/{what}");
        self.ask("POST", &path, headers, body)
    }
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let found = self.head.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no header {name}")).1
    }

    fn request_id(&self) -> String {
        self.header("lambda-runtime-aws-request-id").to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Invokes a function whose process does what `work` says.
fn invoke(timeout: Duration, work: impl FnOnce(Connection) + Send) -> (Outcome, Duration) {
    let api = RuntimeApi::start(ARN).unwrap();
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| work(Connection::open(api.address())));
        api.invoke(r#"{"a": 1}"#, timeout)
    });
    (outcome, start.elapsed())
}

#[test]
fn an_event_arrives_with_lambdas_headers_and_the_response_is_its_outcome() {
    let (outcome, _) = invoke(TIMEOUT, |mut process| {
        let before = SystemTime::now();
        let event = process.next();
        assert_eq!((event.status, event.json()), (200, json!({"a": 1})));
        assert_eq!(event.header("content-type"), "application/json");
        assert_eq!(event.header("lambda-runtime-invoked-function-arn"), ARN);
        assert_eq!(event.request_id().len(), 36);
        let trace = event.header("lambda-runtime-trace-id");
        assert!(trace.starts_with("Root=1-") && trace.ends_with(";Sampled=0"));
        let milliseconds = event.header("lambda-runtime-deadline-ms").parse().unwrap();
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        let ahead = deadline.duration_since(before).unwrap() + Duration::from_millis(1);
        assert!((TIMEOUT..TIMEOUT + Duration::from_secs(5)).contains(&ahead));
        thread::sleep(Duration::from_millis(50));
        let what = format!("invocation/{}/response", event.request_id());
        assert_eq!(process.post(&what, "", r#"{"done": true}"#).status, 202);
    });
    assert_eq!(outcome.kind, OutcomeKind::Response);
    assert_eq!(outcome.payload, json!({"done": true}));
    assert!((50..5_000).contains(&outcome.duration.as_millis()));
}

#[test]
fn no_answer_is_lost_if_the_function_asks_again_at_once() {
    const INVOCATIONS: usize = 2_000;
    let api = RuntimeApi::start(ARN).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut process = Connection::open(api.address());
            let mut event = process.next();
            for _ in 1..INVOCATIONS {
                let path = "/2018-06-01/runtime/invocation";
                let id = event.request_id();
                // Both requests at once, so that the second follows without a pause.
                let both = format!(
                    "POST {path}/{id}/response HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}\
                     GET {path}/next HTTP/1.1\r\nHost: x\r\n\r\n",
                    event.body.len(),
                    event.body
                );
                process.reader.get_mut().write_all(both.as_bytes()).unwrap();
                assert_eq!(process.receive().status, 202);
                event = process.receive();
            }
        });
        for number in 1..INVOCATIONS {
            let outcome = api.invoke(&number.to_string(), TIMEOUT);
            assert_eq!(outcome.payload, number, "{outcome:?}");
        }
        api.hand_over("0", TIMEOUT).unwrap();
    });
}

#[test]
fn errors_and_init_errors_are_reported_with_their_type() {
    let error = r#"{"errorType": "Refused", "errorMessage": "no"}"#;
    let header = "Lambda-Runtime-Function-Error-Type: Refused\r\n";
    let (outcome, _) = invoke(TIMEOUT, |mut process| {
        let what = format!("invocation/{}/error", process.next().request_id());
        process.post(&what, header, error);
    });
    assert_eq!(outcome.kind, OutcomeKind::Error);
    assert_eq!(outcome.payload["errorMessage"], "no");
    assert_eq!(outcome.error_type.as_deref(), Some("Refused"));

    let (outcome, _) = invoke(TIMEOUT, |mut process| {
        process.post("init/error", header, error);
    });
    assert_eq!(outcome.kind, OutcomeKind::InitError);
    assert_eq!(outcome.error_type.as_deref(), Some("Refused"));
}

#[test]
fn a_function_that_closes_its_connection_has_exited() {
    let (outcome, took) = invoke(TIMEOUT, |mut process| {
        process.next();
    });
    assert_eq!(outcome.kind, OutcomeKind::Exited);
    assert_eq!(outcome.payload["errorType"], "Runtime.ExitError");
    assert!(took < TIMEOUT / 2, "{took:?}");

    let (outcome, took) = invoke(TIMEOUT, drop);
    assert_eq!(outcome.kind, OutcomeKind::Exited);
    assert!(took < TIMEOUT / 2, "{took:?}");
}

#[test]
fn a_function_that_never_asks_or_answers_is_timed_out() {
    let short = Duration::from_millis(200);
    let (outcome, _) = invoke(short, |process| {
        thread::sleep(2 * short);
        drop(process);
    });
    assert_eq!(outcome.kind, OutcomeKind::TimedOut);

    let (outcome, _) = invoke(short, |mut process| {
        process.next();
        thread::sleep(2 * short);
    });
    assert_eq!(outcome.kind, OutcomeKind::TimedOut);
    let message = "Error: Task timed out after 0.20 seconds";
    assert_eq!(outcome.payload["errorMessage"], message);
}

#[test]
fn answers_to_unknown_invocations_and_responses_that_are_too_large_are_refused() {
    let (outcome, _) = invoke(TIMEOUT, |mut process| {
        let request_id = process.next().request_id();
        let unknown = process.post("invocation/unknown/response", "", "1");
        assert_eq!(unknown.status, 400);
        assert_eq!(unknown.json()["errorType"], "InvalidRequestID");
        let what = format!("invocation/{request_id}/response");
        assert_eq!(process.post(&what, "", "\"once\"").status, 202);
        assert_eq!(process.post(&what, "", "\"twice\"").status, 400);
    });
    assert_eq!(outcome.payload, "once");

    let large = format!("\"{}\"", "x".repeat(7_000_000));
    let (outcome, _) = invoke(TIMEOUT, |mut process| {
        let what = format!("invocation/{}/response", process.next().request_id());
        // The emulator may refuse the response before it has been sent completely.
        let length = large.len();
        let head = format!(
            "POST /2018-06-01/runtime/{what} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        );
        let stream = process.reader.get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        drop(stream.write_all(large.as_bytes()));
    });
    assert_eq!(outcome.kind, OutcomeKind::Error);
    assert_eq!(
        outcome.payload["errorType"],
        "Function.ResponseSizeTooLarge"
    );
}

#[test]
fn scripts_start_functions_and_invoke_them_through_the_endpoint() {
    let aws = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(LocalAws::start(World::builder().build()))
        .unwrap();
    let endpoint: SocketAddr = aws.endpoint().replace("http://", "").parse().unwrap();
    let mut caller = Connection::open(endpoint);
    let mut control = |method: &str, path: &str, body: &str| {
        caller.ask(method, &format!("/_local-aws/functions/{path}"), "", body)
    };
    let started = control("PUT", "auditor", "").json();
    assert_eq!(started["function_arn"], ARN);
    let address = started["runtime_api"].as_str().unwrap().parse().unwrap();
    let early = control("GET", "auditor/ready?timeout_seconds=0.1", "").json();
    assert_eq!(early["kind"], "timed_out");

    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            let mut process = Connection::open(address);
            let event = process.next();
            let what = format!("invocation/{}/response", event.request_id());
            process.post(&what, "", &event.body);
        });
        let ready = control("GET", "auditor/ready?timeout_seconds=10", "").json();
        assert!(ready["waiting_since_unix_seconds"].as_f64().unwrap() > 1e9);
        control("POST", "auditor/invocations?timeout_seconds=10", "[1]").json()
    });
    assert_eq!(outcome["kind"], "response");
    assert_eq!(outcome["payload"], json!([1]));
    assert!(outcome["milliseconds"].as_f64().unwrap() > 0.0);

    let wrong = control("GET", "auditor/ready?timeout_seconds=1000", "").json();
    assert_eq!(
        wrong["error"],
        "timeout_seconds is `1000`: give a number from 0 to 900"
    );

    assert_eq!(control("DELETE", "auditor", "").status, 200);
    let gone = control("POST", "auditor/invocations", "{}");
    assert_eq!(gone.status, 400);
    assert_eq!(gone.json()["error"], "there is no function `auditor`");
    assert!(TcpStream::connect(address).is_err());
}
