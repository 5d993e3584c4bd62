//! The local AWS as its clients see it: over a socket, without any SDK.

#![expect(clippy::unwrap_used, reason = "a test fails if its client does")]

mod images;
mod references;

use local_aws::{
    Clock, CreationOutcome, Entry, Fault, FaultKind, LocalAws, Page, Report, RoleOptions,
    SeedOptions, Service, Tag, When, World,
};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;
use time::{Duration, OffsetDateTime};

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";

fn noon() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_779) + Duration::hours(12)
}

fn a_world() -> World {
    World::builder()
        .clock(Clock::fixed(noon()))
        .account(ACCOUNT)
        .account("444455556666")
        .regions([REGION, "eu-west-1"])
        .disabled_region("ap-east-1")
        .build()
}

fn a_world_of(reports: usize) -> World {
    let world = a_world();
    let numbered = (0..reports).map(|number| Report {
        report_id: Some(format!("amiur-{number:017x}")),
        state: Some("available".to_owned()),
        ..Report::default()
    });
    world.put_reports(ACCOUNT, REGION, numbered);
    world
}

fn started(world: World) -> LocalAws {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(LocalAws::start(world))
        .unwrap()
}

#[derive(Debug)]
struct Received {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Received {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Returns the texts of all elements with a name. No element here contains one of its own name.
    fn all(&self, name: &str) -> Vec<&str> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        self.text()
            .split(&open)
            .skip(1)
            .map(|rest| rest.split(&close).next().unwrap())
            .collect()
    }

    fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.text());
        all[0]
    }

    fn ids(&self) -> Vec<String> {
        self.all("reportId")
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn token(&self) -> Option<String> {
        self.all("nextToken")
            .first()
            .map(|token| (*token).to_owned())
    }
}

/// A client with one access key in one Region.
#[derive(Clone)]
struct Client<'a> {
    aws: &'a LocalAws,
    access_key: String,
    region: String,
}

fn client(aws: &LocalAws) -> Client<'_> {
    Client {
        aws,
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        region: REGION.to_owned(),
    }
}

impl Client<'_> {
    fn in_region(mut self, region: &str) -> Self {
        self.region = region.to_owned();
        self
    }

    fn with_key(mut self, access_key: &str) -> Self {
        self.access_key = access_key.to_owned();
        self
    }

    fn send(&self, service: &str, head: &str, body: &[u8]) -> std::io::Result<TcpStream> {
        let address = self.aws.endpoint().replace("http://", "");
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
        let message = format!(
            "{head}Host: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={}/20261122/{}/{service}/aws4_request, \
             SignedHeaders=host, Signature=00\r\n\r\n",
            body.len(),
            self.access_key,
            self.region,
        );
        stream.write_all(message.as_bytes())?;
        stream.write_all(body)?;
        Ok(stream)
    }

    fn ask(&self, service: &str, head: &str, body: &[u8]) -> std::io::Result<Received> {
        let mut stream = self.send(service, head, body)?;
        let mut message = Vec::new();
        stream.read_to_end(&mut message)?;
        if message.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let split = message
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8(message[..split].to_vec()).unwrap();
        Ok(Received {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: message.split_off(split + 4),
        })
    }

    fn form(&self, service: &str, form: &str) -> std::io::Result<Received> {
        let head = "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        self.ask(service, head, form.as_bytes())
    }

    fn ec2(&self, form: &str) -> Received {
        self.form("ec2", form).unwrap()
    }

    fn list(&self, rest: &str) -> Received {
        self.ec2(&format!(
            "Action=DescribeImageUsageReports&Version=2016-11-15{rest}"
        ))
    }

    fn put(&self, path: &str, headers: &str, body: &[u8]) -> std::io::Result<Received> {
        self.ask("s3", &format!("PUT {path} HTTP/1.1\r\n{headers}"), body)
    }

    fn get(&self, path: &str) -> std::io::Result<Received> {
        self.ask("s3", &format!("GET {path} HTTP/1.1\r\n"), b"")
    }
}

fn code_of(received: &Received) -> (u16, &str) {
    (received.status, received.one("Code"))
}

#[test]
fn every_report_is_listed_once_even_if_others_are_deleted_and_created_between_pages() {
    let world = a_world_of(25);
    let aws = started(world.clone());
    let client = client(&aws);
    let mut seen = Vec::new();
    let mut page = client.list("&MaxResults=10");
    seen.extend(page.ids());
    // A listed one, the one that the next page begins with, and a new one at the end.
    assert!(world.delete_report(ACCOUNT, REGION, &seen[3]));
    assert!(world.delete_report(ACCOUNT, REGION, &format!("amiur-{:017x}", 10)));
    world.put_report(
        ACCOUNT,
        REGION,
        Report {
            report_id: Some("amiur-new".to_owned()),
            ..Report::default()
        },
    );
    let mut lengths = vec![page.ids().len()];
    while let Some(token) = page.token() {
        page = client.list(&format!("&MaxResults=10&NextToken={token}"));
        lengths.push(page.ids().len());
        seen.extend(page.ids());
    }
    assert_eq!(lengths, [10, 10, 5]);
    let mut unique = seen.clone();
    unique.dedup();
    assert_eq!(unique, seen);
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.last().unwrap(), "amiur-new");
}

#[test]
fn a_page_that_ends_with_the_last_report_has_no_token() {
    let aws = started(a_world_of(20));
    let first = client(&aws).list("&MaxResults=10");
    let second = client(&aws).list(&format!(
        "&MaxResults=10&NextToken={}",
        first.token().unwrap()
    ));
    assert_eq!(second.ids().len(), 10);
    assert_eq!(second.token(), None);
    assert!(!second.text().contains("nextToken"));
}

#[test]
fn a_token_is_refused_for_any_other_query_region_or_account_and_once_expired() {
    let world = a_world_of(20);
    let clock = world.clock();
    let aws = started(world);
    let client = client(&aws);
    let token = client.list("&MaxResults=5").token().unwrap();
    let next = format!("&NextToken={token}");
    let refused = (400, "InvalidPaginationToken");
    assert_eq!(client.list(&next).status, 200);
    assert_eq!(
        code_of(&client.list(&format!(
            "&Filter.1.Name=state&Filter.1.Value.1=error{next}"
        ))),
        refused
    );
    assert_eq!(
        code_of(&client.clone().in_region("eu-west-1").list(&next)),
        refused
    );
    assert_eq!(
        code_of(&client.clone().with_key("AKIA444455556666").list(&next)),
        refused
    );
    assert_eq!(code_of(&client.list("&NextToken=12345")), refused);
    let entries = format!("Action=DescribeImageUsageReportEntries&Version=2016-11-15{next}");
    assert_eq!(code_of(&client.ec2(&entries)), refused);
    clock.advance(Duration::minutes(61));
    assert_eq!(code_of(&client.list(&next)), refused);
}

#[test]
fn each_account_and_region_sees_only_its_own_reports() {
    let aws = started(a_world_of(3));
    let client = client(&aws);
    assert_eq!(client.list("").ids().len(), 3);
    assert_eq!(
        client.clone().in_region("eu-west-1").list("").ids().len(),
        0
    );
    assert_eq!(
        client
            .clone()
            .with_key("AKIA444455556666XXXX")
            .list("")
            .ids()
            .len(),
        0
    );
    assert_eq!(
        client
            .clone()
            .with_key("AKIA111122223333XXXX")
            .list("")
            .ids()
            .len(),
        3
    );
}

#[test]
fn a_disabled_or_unknown_region_refuses_the_credentials() {
    let world = a_world();
    world.disable_region(ACCOUNT, "eu-west-1");
    let aws = started(world);
    for region in ["ap-east-1", "mars-north-1", "eu-west-1"] {
        let answer = client(&aws).in_region(region).list("");
        assert_eq!(code_of(&answer), (401, "AuthFailure"));
        assert_eq!(
            answer.one("Message"),
            "AWS was not able to validate the provided access credentials"
        );
    }
    let other = client(&aws)
        .in_region("eu-west-1")
        .with_key("AKIA444455556666");
    assert_eq!(other.list("").status, 200);
}

/// Requests with status, code and message of their refusals.
#[rustfmt::skip]
const REFUSALS: [(&str, u16, &str, &str); 8] = [
    ("&MaxResults=0", 400, "InvalidParameterValue", "Value ( 0 ) for parameter MaxResults is invalid. Expecting a value between 1 and 200."),
    ("&MaxResults=1000", 400, "InvalidParameterValue", "Value ( 1000 ) for parameter MaxResults is invalid. Expecting a value between 1 and 200."),
    ("&Filter.1.Name=image-id&Filter.1.Value.1=x", 400, "InvalidParameterValue", "The filter &#39;image-id&#39; is invalid"),
    ("&Filter.1.Name=State&Filter.1.Value.1=x", 400, "InvalidParameterValue", "The filter &#39;State&#39; is invalid"),
    ("&Filter.1.Name=state", 400, "MissingParameter", "The request must contain the parameter Filter.1.Value.1"),
    ("&ReportId.1=amiur-1", 400, "InvalidImageUsageReportId.NotFound", "The image usage report ID &#39;amiur-1&#39; does not exist"),
    ("&MaxResult=5", 400, "UnknownParameter", "The parameter MaxResult is not recognized"),
    ("&DryRun=true", 412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."),
];

#[test]
fn refusals_name_the_parameter() {
    let world = a_world_of(1);
    world.set_max_page_size(ACCOUNT, REGION, 200);
    let aws = started(world);
    for (request, status, code, message) in REFUSALS {
        let answer = client(&aws).list(request);
        assert_eq!(code_of(&answer), (status, code), "{request}");
        assert_eq!(answer.one("Message"), message);
        assert_eq!(answer.one("RequestID").len(), 36);
    }
    let code = |form: &str| code_of(&client(&aws).ec2(form)).1.to_owned();
    assert_eq!(code("Version=2016-11-15"), "MissingAction");
    assert_eq!(
        code("Action=DescribeVolumes&Version=2016-11-15"),
        "InvalidAction"
    );
    assert_eq!(
        code("Action=DescribeImageUsageReports&Version=2014-01-01"),
        "NoSuchVersion"
    );
}

#[test]
fn more_than_200_ids_or_filter_values_are_refused() {
    let aws = started(a_world());
    let list = |name: &str, count: usize| {
        let values: String = (1..=count).map(|n| format!("&{name}.{n}=x-{n}")).collect();
        client(&aws).list(&format!("&Filter.1.Name=state&Filter.1.Value.1=x{values}"))
    };
    for name in ["ReportId", "ImageId"] {
        let answer = list(name, 201);
        assert_eq!(code_of(&answer), (400, "InvalidParameterValue"));
        let message =
            format!("The maximum number of {name} values is 200, but the request has 201.");
        assert_eq!(answer.one("Message"), message);
    }
    assert_eq!(list("ImageId", 200).status, 200);
    assert_eq!(list("Filter.1.Value", 200).status, 200);
    let answer = list("Filter.1.Value", 201);
    assert_eq!(code_of(&answer), (400, "FilterLimitExceeded"));
    assert_eq!(
        answer.one("Message"),
        "The request uses too many filters or too many filter values."
    );
}

#[test]
fn filters_are_combined_with_and_their_values_with_or() {
    let world = a_world();
    for (id, state, owner) in [
        ("a", "error", Some("TeamA")),
        ("b", "pending", Some("TeamA")),
        ("c", "pending", Some("teama")),
        ("d", "available", Some("TeamB")),
        ("e", "pending", None),
    ] {
        world.put_report(
            ACCOUNT,
            REGION,
            Report {
                report_id: Some(id.to_owned()),
                state: Some(state.to_owned()),
                creation_time: Some(noon()),
                tags: owner
                    .map(|owner| Tag::new("Owner", owner))
                    .into_iter()
                    .collect(),
                ..Report::default()
            },
        );
    }
    let aws = started(world);
    for (filters, ids) in [
        (&[("state", &["error", "pending"][..])][..], "abce"),
        (
            &[("state", &["error", "pending"]), ("tag:Owner", &["TeamA"])],
            "ab",
        ),
        (&[("tag-key", &["Own*"])], "abcd"),
        (&[("tag-key", &["own*"])], ""),
        (&[("tag:Owner", &["Team?"])], "abd"),
        (&[("creation-time", &["2026-11-22T*"])], "abcde"),
        (&[("creation-time", &["2026-11-22T12:00:00.000Z"])], "abcde"),
        (&[("creation-time", &["2026-11-23*", "2025*"])], ""),
        (&[("state", &["*"])], "abcde"),
        (&[("state", &["Error"])], ""),
    ] {
        let mut form = String::new();
        for (number, (name, values)) in (1..).zip(filters) {
            form.push_str(&format!("&Filter.{number}.Name={name}"));
            for (value_number, value) in (1..).zip(*values) {
                form.push_str(&format!("&Filter.{number}.Value.{value_number}={value}"));
            }
        }
        assert_eq!(client(&aws).list(&form).ids().concat(), ids, "{form}");
    }
}

#[test]
fn a_created_report_is_pending_then_available_with_entries_and_deleted_after_thirty_days() {
    let world = a_world();
    let clock = world.clock();
    let aws = started(world);
    let client = client(&aws);
    let create = "Action=CreateImageUsageReport&Version=2016-11-15&ImageId=ami-0123456789abcdef0\
                  &ResourceType.1.ResourceType=ec2:Instance&ClientToken=once";
    let created = client.ec2(create);
    let id = created.one("reportId").to_owned();
    assert_eq!(client.ec2(create).one("reportId"), id);
    let other = client.ec2(&create.replace("once", "twice"));
    assert_eq!(code_of(&other), (400, "ImageUsageReportLimitExceeded"));
    let mismatch = client.ec2(&create.replace("ec2:Instance", "ec2:LaunchTemplate"));
    assert_eq!(code_of(&mismatch), (400, "IdempotentParameterMismatch"));

    let entries =
        format!("Action=DescribeImageUsageReportEntries&Version=2016-11-15&ReportId.1={id}");
    assert_eq!(client.list("").one("state"), "pending");
    assert_eq!(client.ec2(&entries).all("usageCount").len(), 0);
    clock.advance(Duration::minutes(5));
    assert_eq!(client.list("").one("state"), "available");
    assert_ne!(client.ec2(&entries).all("usageCount").len(), 0);
    clock.advance(Duration::days(30) - Duration::minutes(5) - Duration::milliseconds(1));
    assert_eq!(client.list("").ids().concat(), id);
    clock.advance(Duration::milliseconds(1));
    assert_eq!(client.list("").ids().len(), 0);
    assert_eq!(
        code_of(&client.ec2(&entries)),
        (400, "InvalidImageUsageReportId.NotFound")
    );
}

/// A world with three reports of three entries each. A count is made of the numbers of report and
/// entry: 11, 12, 13, 21…
fn a_world_of_entries() -> World {
    let world = a_world();
    let entry = |usage_count| Entry {
        usage_count: Some(usage_count),
        ..Entry::default()
    };
    let numbered = (1..=3).map(|number| Report {
        report_id: Some(format!("amiur-{number}")),
        state: Some("available".to_owned()),
        entries: (1..=3).map(|place| entry(10 * number + place)).collect(),
        ..Report::default()
    });
    world.put_reports(ACCOUNT, REGION, numbered);
    world
}

fn entries_of(client: &Client<'_>, rest: &str) -> Received {
    client.ec2(&format!(
        "Action=DescribeImageUsageReportEntries&Version=2016-11-15{rest}"
    ))
}

/// Returns the usage counts of all pages, in order.
fn all_usage_counts(client: &Client<'_>, rest: &str) -> Vec<i64> {
    let mut counts = Vec::new();
    let mut token = None;
    for _ in 0..100 {
        let next = token.map_or_else(String::new, |token| format!("&NextToken={token}"));
        let page = entries_of(client, &format!("{rest}{next}"));
        let page_counts = page.all("usageCount").into_iter();
        counts.extend(page_counts.map(|count| count.parse::<i64>().unwrap()));
        token = page.token();
        if token.is_none() {
            return counts;
        }
    }
    panic!("the listing does not end within 100 pages")
}

#[test]
fn entries_are_listed_by_report_or_interleaved_and_each_once_for_any_page_size() {
    let world = a_world_of_entries();
    let aws = started(world.clone());
    let asked = "&ReportId.1=amiur-3&ReportId.2=amiur-1&ReportId.3=amiur-2";
    for page_size in [1, 2, 4, 9, 50] {
        let rest = format!("{asked}&MaxResults={page_size}");
        world.interleave_entries(false);
        assert_eq!(
            all_usage_counts(&client(&aws), &rest),
            [11, 12, 13, 21, 22, 23, 31, 32, 33]
        );
        world.interleave_entries(true);
        assert_eq!(
            all_usage_counts(&client(&aws), &rest),
            [11, 21, 31, 12, 22, 32, 13, 23, 33]
        );
    }
}

#[test]
fn an_unknown_report_is_refused_or_left_out_as_configured() {
    let world = a_world_of_entries();
    let aws = started(world.clone());
    let asked = "&ReportId.1=amiur-2&ReportId.2=amiur-0";
    let refused = (400, "InvalidImageUsageReportId.NotFound");
    let client = client(&aws);
    assert_eq!(code_of(&entries_of(&client, asked)), refused);
    assert_eq!(code_of(&client.list(asked)), refused);
    world.leave_out_unknown_reports(true);
    assert_eq!(all_usage_counts(&client, asked), [21, 22, 23]);
    assert_eq!(client.list(asked).ids(), ["amiur-2"]);
    assert_eq!(
        all_usage_counts(&client, "&ReportId.1=amiur-0"),
        Vec::<i64>::new()
    );
    assert_eq!(client.list("&ReportId.1=amiur-0").ids().len(), 0);
}

#[test]
fn entries_can_be_requested_for_at_most_200_ids_and_with_their_own_filters_only() {
    let aws = started(a_world_of_entries());
    let ids = |count| -> String {
        (1..=count)
            .map(|n| format!("&ReportId.{n}=amiur-1"))
            .collect()
    };
    let client = client(&aws);
    assert_eq!(entries_of(&client, &ids(200)).status, 200);
    let invalid = (400, "InvalidParameterValue");
    assert_eq!(code_of(&entries_of(&client, &ids(201))), invalid);
    for name in ["state", "tag-key", "tag:Owner"] {
        let filter = format!("&Filter.1.Name={name}&Filter.1.Value.1=x");
        assert_eq!(code_of(&entries_of(&client, &filter)), invalid, "{name}");
    }
}

#[test]
fn a_fault_for_a_report_matches_only_requests_that_name_it() {
    let aws = started(a_world_of_entries());
    aws.faults().add("kind=500,report=amiur-2".parse().unwrap());
    let client = client(&aws);
    for (asked, status) in [
        ("", 200),
        ("&ReportId.1=amiur-1", 200),
        ("&ReportId.1=amiur-1&ReportId.2=amiur-2", 500),
    ] {
        assert_eq!(entries_of(&client, asked).status, status, "{asked}");
        assert_eq!(client.list(asked).status, status, "{asked}");
    }
}

#[test]
fn the_last_look_at_the_s3_folder_comes_after_the_server_has_stopped() {
    let mut aws = started(a_world());
    aws.create_bucket("archive").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    aws.look_in_the_end(move |root| sender.send(root.join("archive").is_dir()).unwrap());
    drop(aws);
    assert_eq!(receiver.recv(), Ok(true));
}

#[test]
fn a_creation_can_end_in_error_and_two_thousand_may_be_pending() {
    let world = a_world();
    world.set_creation_outcome(CreationOutcome {
        delay: Duration::HOUR,
        error_probability: 1.0,
        seed: 5,
    });
    let clock = world.clock();
    world.put_reports(
        ACCOUNT,
        REGION,
        (0..1999).map(|_| Report {
            state: Some("pending".to_owned()),
            ..Report::default()
        }),
    );
    let aws = started(world);
    let create = |image: &str| {
        client(&aws).ec2(&format!(
            "Action=CreateImageUsageReport&Version=2016-11-15&ImageId={image}\
             &ResourceType.1.ResourceType=ec2:Instance"
        ))
    };
    assert_eq!(create("ami-11111111").status, 200);
    assert_eq!(
        code_of(&create("ami-22222222")),
        (400, "ImageUsageReportLimitExceeded")
    );
    assert_eq!(code_of(&create("ami-xyz")), (400, "InvalidAMIID.Malformed"));
    clock.advance(Duration::HOUR);
    let failed = client(&aws).list("&Filter.1.Name=state&Filter.1.Value.1=error");
    assert_eq!(
        failed.one("stateReason"),
        "The report could not be created."
    );
}

#[test]
fn every_legal_character_is_preserved_in_the_document() {
    let world = a_world();
    let value = "<&>\"' \t\n\r ]]> é 東京 💶 \u{7f}\u{85}\u{2028}\u{fffd}";
    world.put_report(
        ACCOUNT,
        REGION,
        Report {
            state_reason: Some(value.to_owned()),
            ..Report::default()
        },
    );
    let aws = started(world);
    let plain = client(&aws).list("");
    assert_eq!(
        plain.one("stateReason"),
        "&lt;&amp;&gt;&quot;&#39; \t\n&#xD; ]]&gt; é 東京 💶 \u{7f}\u{85}\u{2028}\u{fffd}"
    );
}

/// A world whose second account has a role with an external ID, and one that no one may assume.
fn a_world_with_roles() -> World {
    let world = a_world();
    for (name, external_id, deny) in [
        ("auditor", Some("secret".to_owned()), false),
        ("closed", None, true),
    ] {
        world.role(
            "444455556666",
            RoleOptions {
                name: name.to_owned(),
                external_id,
                deny,
                lifetime: None,
            },
        );
    }
    world
}

fn assume_role(client: &Client<'_>, role: &str, rest: &str) -> Received {
    let form = format!(
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::444455556666:role/{role}\
         &RoleSessionName=audit{rest}"
    );
    client.form("sts", &form).unwrap()
}

#[test]
fn a_role_is_denied_without_its_external_id_and_if_it_is_closed_or_missing() {
    let aws = started(a_world_with_roles());
    for (role, rest) in [
        ("auditor", ""),
        ("auditor", "&ExternalId=wrong"),
        ("closed", ""),
        ("unknown", ""),
    ] {
        let refused = assume_role(&client(&aws), role, rest);
        assert_eq!(code_of(&refused), (403, "AccessDenied"));
        assert_eq!(
            refused.one("Message"),
            format!(
                "User: arn:aws:iam::111122223333:user/local is not authorized to perform: \
                 sts:AssumeRole on resource: arn:aws:iam::444455556666:role/{role}"
            )
        );
    }
}

#[test]
fn assumed_credentials_act_in_their_account_until_they_expire() {
    let world = a_world_with_roles();
    let clock = world.clock();
    let aws = started(world);
    let client = client(&aws);
    let assumed = assume_role(&client, "auditor", "&ExternalId=secret&DurationSeconds=900");
    assert_eq!(assumed.one("Expiration"), "2026-11-22T12:15:00.000Z");
    let other = client.clone().with_key(assumed.one("AccessKeyId"));
    let identity = || {
        other
            .form("sts", "Action=GetCallerIdentity&Version=2011-06-15")
            .unwrap()
    };
    assert_eq!(identity().one("Account"), "444455556666");
    assert_eq!(
        identity().one("Arn"),
        "arn:aws:sts::444455556666:assumed-role/auditor/audit"
    );
    assert_eq!(other.list("").status, 200);
    assert_eq!(aws.calls().last().unwrap().account, "444455556666");
    clock.advance(Duration::minutes(15));
    assert_eq!(code_of(&other.list("")), (400, "RequestExpired"));
    assert_eq!(code_of(&identity()), (403, "ExpiredToken"));
    assert_eq!(
        code_of(&other.get("/archive/key").unwrap()),
        (400, "ExpiredToken")
    );
}

#[test]
fn the_hundred_and_first_call_at_once_is_throttled_in_its_own_region_only() {
    let aws = started(a_world());
    aws.enable_token_buckets();
    let mut answers = Vec::new();
    // A token is refilled every 50 milliseconds, so the calls must be faster than that.
    for _ in 0..2000 {
        answers.push(client(&aws).list("").status);
        if answers.ends_with(&[503]) {
            break;
        }
    }
    assert!(answers.len() > 100, "{}", answers.len());
    assert_eq!(answers.pop(), Some(503));
    assert_eq!(client(&aws).in_region("eu-west-1").list("").status, 200);
}

#[test]
fn each_service_words_the_requested_errors_in_its_own_way() {
    let aws = started(a_world_of(1));
    aws.create_bucket("archive").unwrap();
    for (kind, ec2, s3) in [
        (
            FaultKind::Denied,
            (403, "UnauthorizedOperation"),
            (403, "AccessDenied"),
        ),
        (
            FaultKind::AuthFailure,
            (401, "AuthFailure"),
            (403, "InvalidAccessKeyId"),
        ),
        (
            FaultKind::RegionDisabled,
            (401, "AuthFailure"),
            (403, "InvalidAccessKeyId"),
        ),
        (
            FaultKind::Throttle,
            (503, "RequestLimitExceeded"),
            (503, "SlowDown"),
        ),
        (
            FaultKind::Status500,
            (500, "InternalError"),
            (500, "InternalError"),
        ),
        (
            FaultKind::Status503,
            (503, "Unavailable"),
            (503, "SlowDown"),
        ),
        (
            FaultKind::ExpireCredentials,
            (400, "RequestExpired"),
            (400, "ExpiredToken"),
        ),
        (
            FaultKind::conditional_request_conflict(),
            (409, "ConditionalRequestConflict"),
            (409, "ConditionalRequestConflict"),
        ),
    ] {
        aws.faults().clear();
        aws.faults().add(Fault::new(kind));
        assert_eq!(code_of(&client(&aws).list("")), ec2);
        assert_eq!(code_of(&client(&aws).get("/archive/key").unwrap()), s3);
        let sts = client(&aws)
            .form("sts", "Action=GetCallerIdentity&Version=2011-06-15")
            .unwrap();
        assert!(sts.status >= 400);
    }
}

#[test]
fn pages_can_be_empty_doubled_bare_repeated_or_end_with_an_empty_token() {
    let aws = started(a_world_of(6));
    let on_page = |kind: FaultKind, page: Page| {
        aws.faults().clear();
        aws.faults().add(Fault::new(kind).when(When::Page(page)));
        let client = client(&aws);
        let mut pages = vec![client.list("&MaxResults=2")];
        while let Some(token) = pages.last().unwrap().token() {
            if pages.len() == 5 {
                break;
            }
            pages.push(client.list(&format!("&MaxResults=2&NextToken={token}")));
        }
        pages
    };
    let numbers = |pages: &[Received]| -> Vec<String> {
        pages
            .iter()
            .map(|page| page.ids().iter().map(|id| &id[id.len() - 1..]).collect())
            .collect()
    };
    assert_eq!(
        numbers(&on_page(FaultKind::EmptyPage, Page::First)),
        ["", "01", "23", "45"]
    );
    assert_eq!(
        numbers(&on_page(FaultKind::EmptyPage, Page::Number(1))),
        ["01", "", "23", "45"]
    );
    assert_eq!(
        numbers(&on_page(FaultKind::DuplicateReport, Page::Number(1))),
        ["01", "233", "34", "5"]
    );
    let bare = on_page(FaultKind::BareReport, Page::Last);
    assert_eq!(numbers(&bare), ["01", "23", "45"]);
    assert_eq!(bare[2].all("item").len(), 3);

    let repeated = on_page(FaultKind::RepeatToken, Page::Middle);
    assert_eq!(repeated[1].token(), repeated[0].token());
    let expired = on_page(FaultKind::ExpireToken, Page::Last);
    assert_eq!(
        code_of(expired.last().unwrap()),
        (400, "InvalidPaginationToken")
    );

    assert!(!bare[2].text().contains("nextToken"));
    let ended = on_page(FaultKind::EmptyToken, Page::Last);
    assert!(ended[2].text().contains("<nextToken/>"));
    // The client requests the repeated token four times before it stops.
    assert_eq!(aws.faults().injected(), 10);
}

#[test]
fn an_unusual_document_has_the_same_content() {
    let world = a_world();
    world.put_report(
        ACCOUNT,
        REGION,
        Report {
            state: Some("error".to_owned()),
            state_reason: Some("a<b".to_owned()),
            ..Report::default()
        },
    );
    let aws = started(world);
    aws.faults()
        .add(Fault::new(FaultKind::UnknownMembersAndEntities));
    let text = client(&aws).list("").text().to_owned();
    assert!(
        text.contains("<stateReason>&#x61;&lt;b</stateReason>"),
        "{text}"
    );
    assert!(text.contains("<memberOfTheFuture>"));
    assert!(text.contains("<!-- A comment -->"));
}

#[test]
fn broken_responses_break_as_requested() {
    let aws = started(a_world_of(50));
    let list = |kind: FaultKind| {
        aws.faults().clear();
        aws.faults().add(Fault::new(kind));
        client(&aws).form("ec2", "Action=DescribeImageUsageReports&Version=2016-11-15")
    };
    let closed = list(FaultKind::CloseBeforeAnswer).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::UnexpectedEof);
    let reset = list(FaultKind::ResetMidBody).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);

    let cut = list(FaultKind::CutBody).unwrap();
    let announced: usize = cut
        .head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(cut.body.len(), announced / 2);

    let malformed = list(FaultKind::MalformedXml).unwrap();
    assert_eq!(malformed.status, 200);
    assert!(malformed.text().ends_with("<unclosed attribute="));

    let start = Instant::now();
    assert_eq!(
        list(FaultKind::Latency { milliseconds: 150 })
            .unwrap()
            .status,
        200
    );
    assert!(start.elapsed().as_millis() >= 150);

    let statuses: Vec<_> = aws.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [None, Some(200), Some(200), Some(200), Some(200)]);
}

#[test]
fn a_slow_response_sends_its_first_half_and_then_white_space() {
    let aws = started(a_world_of(5));
    aws.faults().add(Fault::new(FaultKind::SlowBody));
    let mut stream = client(&aws)
        .send(
            "ec2",
            "POST / HTTP/1.1\r\n",
            b"Action=DescribeImageUsageReports",
        )
        .unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let mut reads = 0;
    while reads < 4 {
        let length = stream.read(&mut buffer).unwrap();
        assert_ne!(length, 0);
        received.extend_from_slice(&buffer[..length]);
        reads += 1;
    }
    let text = String::from_utf8(received).unwrap();
    assert!(text.contains("transfer-encoding: chunked"));
    assert!(text.contains("<imageUsageReportSet>"));
    assert!(text.ends_with("1\r\n \r\n"), "{text}");
}

#[test]
fn an_object_can_be_stored_even_if_the_response_is_lost() {
    let aws = started(a_world());
    aws.create_bucket("archive").unwrap();
    let path = aws.archive_root().join("archive/a/b.json");
    let fault = Fault::new(FaultKind::CloseBeforeAnswer)
        .in_service(Service::S3)
        .on("PutObject")
        .on_key("b.json")
        .when(When::FirstN(1));
    aws.faults().add(fault.clone());
    assert!(client(&aws).put("/archive/a/b.json", "", b"one").is_err());
    assert!(!path.exists());

    aws.faults().clear();
    aws.faults().add(fault.after_effect());
    assert!(client(&aws).put("/archive/a/b.json", "", b"two").is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    let again = client(&aws)
        .put("/archive/a/b.json", "If-None-Match: *\r\n", b"two")
        .unwrap();
    assert_eq!(code_of(&again), (412, "PreconditionFailed"));
}

#[test]
fn a_missing_bucket_is_reported_as_no_such_bucket() {
    let aws = started(a_world());
    for answer in [
        client(&aws).put("/nowhere/key", "", b"x").unwrap(),
        client(&aws).get("/nowhere/key").unwrap(),
        client(&aws).get("/nowhere?list-type=2").unwrap(),
    ] {
        assert_eq!(code_of(&answer), (404, "NoSuchBucket"));
    }
    aws.create_bucket("archive").unwrap();
    assert_eq!(
        code_of(&client(&aws).get("/archive/key").unwrap()),
        (404, "NoSuchKey")
    );
}

#[test]
fn of_many_conditional_writes_at_once_exactly_one_succeeds() {
    let aws = started(a_world());
    aws.create_bucket("archive").unwrap();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|number| {
                let client = client(&aws);
                scope.spawn(move || {
                    let body = vec![number; 100_000];
                    client
                        .put("/archive/latest.json", "If-None-Match: *\r\n", &body)
                        .unwrap()
                        .status
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 15);
}

#[test]
fn a_dropped_local_aws_closes_its_port_and_removes_its_folder() {
    let aws = started(a_world());
    let address = aws.endpoint().replace("http://", "");
    let root = aws.archive_root().to_owned();
    assert!(TcpStream::connect(&address).is_ok());
    drop(aws);
    assert!(TcpStream::connect(&address).is_err());
    assert!(!root.exists());
}

#[test]
fn the_log_records_every_call() {
    let aws = started(a_world_of(3));
    aws.create_bucket("archive").unwrap();
    client(&aws).list("&MaxResults=2");
    client(&aws)
        .put("/archive/a%3Db.json", "If-None-Match: *\r\n", b"x")
        .unwrap();
    let calls = aws.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].operation, "DescribeImageUsageReports");
    assert_eq!(calls[0].parameters["MaxResults"], "2");
    assert_eq!((calls[0].page, calls[0].status), (Some(0), Some(200)));
    assert_eq!(calls[1].operation, "PutObject");
    assert_eq!(calls[1].key.as_deref(), Some("a=b.json"));
    assert_eq!(calls[1].parameters["if-none-match"], "*");
    aws.clear_calls();
    assert!(aws.calls().is_empty());
}

fn list_accounts(client: &Client<'_>, body: &str) -> Received {
    let head = "POST / HTTP/1.1\r\nContent-Type: application/x-amz-json-1.1\r\n\
                X-Amz-Target: AWSOrganizationsV20161128.ListAccounts\r\n";
    client.ask("organizations", head, body.as_bytes()).unwrap()
}

/// The page token of a response in JSON.
fn json_token(received: &Received) -> Option<String> {
    let (_, rest) = received.text().split_once("\"NextToken\":\"")?;
    rest.split('"').next().map(str::to_owned)
}

#[test]
fn an_organization_lists_its_accounts_in_pages_to_its_first_account_only() {
    let world = a_world();
    let aws = started(world.clone());
    let list = |key: &str, body: &str| list_accounts(&client(&aws).with_key(key), body);
    let refused = list("AKIA", "{}");
    assert!(refused.text().contains("AWSOrganizationsNotInUseException"));
    world.organization_account(ACCOUNT, "ACTIVE");
    world.organization_account("444455556666", "SUSPENDED");
    world.set_organization_page_size(1);
    let refused = list("AKIA444455556666", "{}");
    assert!(refused.text().contains("AccessDeniedException"));
    let first = list("AKIA", "{}");
    assert!(first.text().contains(ACCOUNT) && !first.text().contains("444455556666"));
    let token = json_token(&first).unwrap();
    let second = list("AKIA", &format!("{{\"NextToken\":\"{token}\"}}"));
    assert!(second.text().contains("\"Status\":\"SUSPENDED\""));
    assert_eq!(json_token(&second), None);
}

#[test]
fn page_tokens_can_form_a_cycle_in_every_listing() {
    // The system's clock, because a token must be the same however late it comes again.
    let world = World::builder().account(ACCOUNT).regions([REGION]).build();
    world.put_reports(ACCOUNT, REGION, (0..2).map(|_| Report::default()));
    world.organization_account(ACCOUNT, "ACTIVE");
    let aws = started(world);
    aws.faults()
        .add("kind=token-cycle,length=3".parse().unwrap());
    let of_reports = |token: Option<&String>| {
        let next = token.map_or_else(String::new, |token| format!("&NextToken={token}"));
        let page = client(&aws).list(&format!("&MaxResults=1{next}"));
        assert_eq!(page.all("item").len(), 1);
        page.token().unwrap()
    };
    let of_accounts = |token: Option<&String>| {
        let body = token.map_or_else(
            || "{}".to_owned(),
            |token| format!("{{\"NextToken\":\"{token}\"}}"),
        );
        let page = list_accounts(&client(&aws), &body);
        assert!(page.text().contains(ACCOUNT));
        json_token(&page).unwrap()
    };
    for lists_accounts in [false, true] {
        let mut tokens: Vec<String> = Vec::new();
        for _ in 0..7 {
            tokens.push(match lists_accounts {
                true => of_accounts(tokens.last()),
                false => of_reports(tokens.last()),
            });
        }
        assert_eq!(tokens[..3], tokens[3..6]);
        assert_eq!(tokens[0], tokens[6]);
        let different: std::collections::HashSet<_> = tokens.iter().collect();
        assert_eq!(different.len(), 3);
    }
}

#[test]
fn a_hundred_thousand_reports_are_served_page_by_page() {
    let world = a_world();
    world.seed(&SeedOptions {
        reports_per_region: 100_000,
        accounts: vec![ACCOUNT.to_owned()],
        regions: vec![REGION.to_owned()],
        ..SeedOptions::default()
    });
    let aws = started(world);
    let client = client(&aws);
    let mut page = client.list("");
    let mut count = page.ids().len();
    while let Some(token) = page.token() {
        page = client.list(&format!("&NextToken={token}"));
        count += page.ids().len();
    }
    assert_eq!(count, 100_000);
    assert_eq!(aws.calls().len(), 100);
}
