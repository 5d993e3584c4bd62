//! Any bytes as EC2's response to a call for a page of reports, decoded by the real client and written as
//! lines.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use image_usage_archive::aws::{Aws, CallFailure};
use image_usage_archive::documents::{ReportFields, ReportLine, TargetError};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::findings::{Finding, Policy, evaluate};
use image_usage_archive::domain::report::UsageReport;
use image_usage_archive::domain::target::Target;
use image_usage_auditor::aws::Accounts;
use image_usage_auditor::aws::ec2::{ReportQuery, UsageReports};
use serde_json::{Value, json};

/// The error code of the second response to a call, which is not retried: an input costs at most one retry.
pub(crate) const SECOND_ANSWER: &str = "NoSecondAnswer";

/// The HTTP status and the body of the response to each page token.
type Responses = Arc<Mutex<BTreeMap<String, (u16, Vec<u8>)>>>;

/// An EC2 on loopback that responds with given bytes.
pub(crate) struct ReplayedEc2 {
    responses: Responses,
    asked: AtomicU64,
    reports: UsageReports,
    target: Target,
}

impl ReplayedEc2 {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let responses = Responses::default();
        let known = Arc::clone(&responses);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, known) = (connection.unwrap(), Arc::clone(&known));
                // A client may close its connection at any time.
                std::thread::spawn(move || serve(connection, &known).ok());
            }
        });
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let aws = Aws::at_endpoint(&endpoint, &target.region, "AKIA111122223333").await;
        let access = Accounts::new(&aws).own_account(target.account_id.clone());
        Self {
            responses,
            asked: AtomicU64::new(0),
            reports: UsageReports::new(&access, &target.region),
            target,
        }
    }

    /// Reads a page to which EC2 responds with this status and these bytes.
    pub(crate) async fn read(
        &self,
        status: u16,
        body: &[u8],
    ) -> Result<Vec<UsageReport>, CallFailure> {
        let token = self.asked.fetch_add(1, Ordering::Relaxed).to_string();
        let response = (status, body.to_owned());
        self.responses
            .lock()
            .unwrap()
            .insert(token.clone(), response);
        let query = ReportQuery::default();
        let page = self.reports.page(&query, Some(&token)).await?;
        assert_ne!(page.next_token.as_deref(), Some(""));
        Ok(page.rows)
    }

    /// Checks that any bytes, as a page and as an error, result in lines that hold what was read, or in a
    /// failure that can be recorded.
    pub(crate) async fn check(&self, body: &[u8]) {
        for status in [200, 400] {
            match self.read(status, body).await {
                Ok(reports) => {
                    assert_eq!(status, 200);
                    for report in &reports {
                        check_line(&self.target, report);
                    }
                }
                Err(failure) => {
                    assert!(!failure.code.is_empty() || status == 400, "{failure:?}");
                    one_line(&TargetError::from(failure));
                }
            }
        }
    }
}

/// Responds to the calls of one connection, each in one write. The body may be anything, the HTTP around it is
/// valid.
fn serve(mut connection: TcpStream, responses: &Responses) -> io::Result<()> {
    let mut calls = BufReader::new(connection.try_clone()?);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if calls.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut form = vec![0; length];
        calls.read_exact(&mut form)?;
        let form = String::from_utf8(form).unwrap();
        let token = form
            .split('&')
            .find_map(|parameter| parameter.strip_prefix("NextToken="))
            .unwrap();
        let response = responses.lock().unwrap().remove(token);
        let (status, body) = response.unwrap_or_else(|| {
            let refusal = format!(
                "<Response><Errors><Error><Code>{SECOND_ANSWER}</Code></Error></Errors></Response>"
            );
            (400, refusal.into())
        });
        let head = format!(
            "HTTP/1.1 {status} Replayed\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(&[head.as_bytes(), &body].concat())?;
    }
}

/// Checks that a report's line, and each of its findings, is one line of JSON with the same values.
pub(crate) fn check_line(target: &Target, report: &UsageReport) {
    let policy = Policy {
        expiry_window_days: 7,
        pending_limit_hours: 24,
        usage: None,
    };
    let now = "2026-11-22T06:00:05.250Z".parse().unwrap();
    let findings = evaluate(report, &policy, now);
    let entries = EntriesStatus::Failed {
        code: "ReportDeleted".to_owned(),
    };
    let whole = ReportLine::new(target, report, findings, &entries);
    let line = one_line(&whole);
    // The run writes a line in two steps.
    let fields = serde_json::to_vec(&ReportFields::new(target, report)).unwrap();
    let mut written = Vec::new();
    ReportLine::write(&mut written, &fields, findings, &entries).unwrap();
    assert_eq!(
        written.strip_suffix(b"\n").unwrap(),
        serde_json::to_vec(&whole).unwrap()
    );
    let time = |time: &Value| -> Option<image_usage_archive::domain::timestamp::Timestamp> {
        Some(time.as_str()?.parse().unwrap())
    };
    assert_eq!(line["report_id"], json!(report.report_id));
    assert_eq!(line["image_id"], json!(report.image_id));
    assert_eq!(line["state"], json!(report.state));
    assert_eq!(line["state_reason"], json!(report.state_reason));
    assert_eq!(time(&line["creation_time"]), report.creation_time);
    assert_eq!(time(&line["expiration_time"]), report.expiration_time);
    assert_eq!(line["resource_types"], json!(report.resource_types));
    assert_eq!(
        line["requested_account_ids"],
        json!(report.requested_account_ids)
    );
    assert_eq!(line["tags"], json!(report.tags));
    assert_eq!(line["findings"], json!(findings));
    for kind in findings.iter() {
        let finding = one_line(&Finding::new(kind, target, report, &entries, &policy, now));
        assert_eq!(finding["state_reason"], line["state_reason"]);
        assert_eq!(finding["tags"], line["tags"]);
        assert!(!finding["message"].as_str().unwrap().is_empty());
    }
}

fn one_line<T: serde::Serialize>(value: &T) -> Value {
    let line = serde_json::to_vec(value).unwrap();
    assert!(!line.iter().any(|&byte| byte < b' '), "{line:?}");
    serde_json::from_slice(&line).unwrap()
}
