//! The page of a run, as a reader sees it.

#![expect(clippy::unwrap_used, reason = "a test that fails should say where")]

mod runs;
mod sample;

use image_usage_archive::domain::report::ReportState;
use image_usage_archive::domain::usage::{BLIND_SPOTS, Reason, Verdict, reason_in_words};
use image_usage_archive::page::MAX_PAGE_BYTES;

use runs::{HOSTILE, hostile, large};
use sample::{
    Sample, archived, because, before, image, image_id, not_archived, observed_for, report, target,
    uncovered, used_by,
};

/// The words of a page, without its markup and style, with single spaces.
fn words(html: &str) -> String {
    let body = html.split("<body>").nth(1).unwrap();
    let mut words = String::new();
    for piece in body.split('<') {
        let text = piece.split_once('>').map_or("", |(_, text)| text);
        words.push_str(text);
        words.push(' ');
    }
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ")
}

/// The words of one section, from its heading to the next one of the same level.
fn section(html: &str, id: &str) -> String {
    let start = html.find(&format!("<h2 id=\"{id}\"")).unwrap();
    let rest = &html[start..];
    let end = rest.find("</section>").unwrap();
    words(&format!("<body>{}", &rest[..end]))
}

fn has(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` is not in: {text}");
}

#[test]
fn a_run_in_which_nothing_is_wrong_says_so_first() {
    let target = target("111122223333", "eu-west-1");
    let mut sample = Sample::new();
    sample.read(&target, &[], &[(report(1, 3, 20), archived())], None);
    let (_, html) = sample.finish();
    has(
        &html,
        "<h1>The one target was read, and nothing needs attention.</h1>",
    );
    assert_eq!(section(&html, "attention"), "What needs attention Nothing.");
    has(
        &section(&html, "changes"),
        "There is no earlier run to compare with.",
    );
}

#[test]
fn the_headline_says_what_was_not_read_and_what_needs_attention() {
    let target = target("111122223333", "eu-west-1");
    let mut failed = report(1, 3, 27);
    failed.state = Some(ReportState::Error);
    failed.state_reason = Some("InternalError".to_owned());
    let mut stuck = report(2, 3, 27);
    stuck.state = Some(ReportState::Pending);
    let reports = [
        (failed, archived()),
        (stuck, archived()),
        (report(3, 29, 1), not_archived()),
        (report(4, 29, 1), not_archived()),
    ];
    let images = [uncovered(image(&target, 1, "golden", Verdict::Unknown))];
    let mut sample = Sample::new();
    sample.read(&target, &images, &reports, None);
    let other = sample::target("111122223333", "eu-west-2");
    sample.unread(&other, "UnauthorizedOperation", "You are not authorized.");
    let (_, html) = sample.finish();
    has(
        &html,
        "<h1>1 of 2 targets was not read to its end; 2 reports expire soon without archived entries, 1 report failed, 1 \
         report is stuck and no recent report covers 1 AMI.</h1>",
    );
    let attention = section(&html, "attention");
    has(
        &attention,
        "Not read: 1 target: reports, AMIs and uses there may be missing below.",
    );
    has(&attention, "Unarchived: 2 reports: EC2 deletes them soon");
    has(&attention, "Also flagged, of all reports: 2 expiring.");
    has(
        &section(&html, "findings"),
        "failed : EC2 failed to create the report: InternalError",
    );
    let targets = section(&html, "targets");
    has(&targets, "Not read: 1 not at all, 0 not to the end.");
    has(
        &targets,
        "111122223333/eu-west-2 Not read UnauthorizedOperation You are not authorized.",
    );
    has(
        &section(&html, "uncovered"),
        "EC2 lists no report about the AMI",
    );
}

#[test]
fn amis_in_use_come_by_their_number_of_uses_with_their_largest_consumers() {
    let target = target("111122223333", "eu-west-1");
    let mut large = image(&target, 1, "large", Verdict::InUse);
    for (account_id, count) in [
        ("222222222222", 5),
        ("333333333333", 1_200),
        ("444444444444", 7),
        ("555555555555", 6),
    ] {
        large = used_by(large, account_id, "ec2:Instance", count);
    }
    // This one no longer uses it: a later look in full did not show it.
    large.consumers[0].last_observed = before(20);
    let small = used_by(
        image(&target, 2, "small", Verdict::InUse),
        "666666666666",
        "ec2:LaunchTemplate",
        1,
    );
    let mut sample = Sample::new();
    sample.read(&target, &[small, large], &[], None);
    let (_, html) = sample.finish();
    let in_use = section(&html, "in-use");
    has(
        &in_use,
        "ami-00000000000000001 large 111122223333/eu-west-1 333333333333 1,200× ec2:Instance 444444444444 7× \
         ec2:Instance 555555555555 6× ec2:Instance 2026-11-21 06:00 UTC \
         ami-00000000000000002 small",
    );
    assert!(!in_use.contains("222222222222"), "{in_use}");
}

#[test]
fn what_nobody_was_observed_to_use_stands_beside_the_reasons_and_the_blind_spots() {
    let target = target("111122223333", "eu-west-1");
    let images = [
        observed_for(image(&target, 1, "quiet", Verdict::NoUseObserved), 45),
        because(
            image(&target, 2, "young", Verdict::Unknown),
            [Reason::ImageTooYoung, Reason::NoReport],
        ),
    ];
    let mut sample = Sample::new();
    sample.read(&target, &images, &[], None);
    let (_, html) = sample.finish();
    let quiet = section(&html, "quiet");
    has(
        &quiet,
        "ami-00000000000000001 quiet 111122223333/eu-west-1 2026-10-08 06:00 UTC to 2026-11-21 06:00 UTC , 7 reports",
    );
    for blind_spot in BLIND_SPOTS {
        has(&quiet, blind_spot);
    }
    has(&section(&html, "verdicts"), "what nothing here can see");
    let unclear = section(&html, "unclear");
    has(&unclear, "Unknown image_too_young, no_report");
    has(&unclear, reason_in_words(Reason::NoReport));
    for word in ["safe", "unused"] {
        assert!(!words(&html).to_lowercase().contains(word), "{word}");
    }
}

#[test]
fn expirations_are_drawn_by_day_and_listed_as_numbers() {
    let target = target("111122223333", "eu-west-1");
    let reports = [
        (report(1, 29, 1), archived()),
        (report(2, 29, 1), not_archived()),
        (report(3, 1, 29), archived()),
        (report(4, 1, 40), archived()),
    ];
    let mut sample = Sample::new();
    sample.read(&target, &[], &reports, None);
    let (_, html) = sample.finish();
    let expirations = section(&html, "expirations");
    has(&expirations, "2026-11-23 2 1 2026-12-21 1 0");
    has(&expirations, "Not in the chart: 1 later.");
    has(
        &html,
        "aria-label=\"Reports by the day of their expiration: 3 in all",
    );
}

#[test]
fn the_same_run_gives_the_same_bytes_in_whatever_order_its_targets_come() {
    let page = |is_reversed: bool| {
        let mut targets = [
            target("111122223333", "eu-west-1"),
            target("444455556666", "eu-west-2"),
        ];
        if is_reversed {
            targets.reverse();
        }
        let mut sample = Sample::new();
        for target in &targets {
            let mut images: Vec<_> = (0..300)
                .map(|number| {
                    used_by(
                        image(target, number, "golden", Verdict::InUse),
                        "222222222222",
                        "ec2:Instance",
                        1,
                    )
                })
                .collect();
            if is_reversed {
                images.reverse();
            }
            sample.read(target, &images, &[], None);
        }
        sample.finish().1
    };
    let first = page(false);
    assert_eq!(first, page(true));
    assert_eq!(first, page(false));
    has(&first, &image_id(0));
}

#[test]
fn a_scoped_run_says_that_it_is_scoped_and_gives_no_verdict() {
    let target = target("111122223333", "eu-west-1");
    let mut sample = Sample::new().scoped_to(&["eu-west-1"]);
    sample.read(&target, &[], &[(report(1, 3, 20), archived())], None);
    let (_, html) = sample.finish();
    has(
        &words(&html),
        "A scoped run. It was asked about a part only (1 Regions)",
    );
    has(&section(&html, "verdicts"), "This run gave no verdicts.");
    has(
        &section(&html, "changes"),
        "A scoped run is compared with no other.",
    );
    assert!(!html.contains("id=\"in-use\""));
}

#[test]
fn hostile_texts_never_become_markup() {
    let (_, html) = hostile().finish();
    for tag in [
        "<script",
        "<img",
        "<svg/",
        "<a href=\"https:",
        "</style><",
        "<!--",
    ] {
        let expected = usize::from(tag == "</style><");
        assert_eq!(html.matches(tag).count(), expected, "{tag}");
    }
    let hidden = ['\u{202e}', '\u{200b}', '\u{0}', '\u{1b}'];
    assert!(!html.contains(hidden));
    // Every text is there all the same.
    let shown = html
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    for text in &HOSTILE[..7] {
        has(&shown, text);
    }
    has(&html, r"a\u{202e}b\u{200b}c\u{0}d\u{1b}[31m");
    // A location that a shell would take apart is quoted.
    has(
        &shown,
        "image-usage verify '\"><img src=x onerror=alert(1)>' --head",
    );
}

#[test]
fn a_large_run_fits_and_says_what_is_left_out() {
    let (snapshot, html) = large().finish();
    assert!(html.len() < MAX_PAGE_BYTES / 2, "{} bytes", html.len());
    assert_eq!(snapshot.counts.images.unwrap().total, 20_000);
    let run = "image-usage images s3://my-bucket/image-usage/ --run 20261122T060000Z-7bf73129";
    has(
        &section(&html, "in-use"),
        &format!("and 4,975 more AMIs in use: {run} --verdict in_use"),
    );
    has(
        &section(&html, "quiet"),
        &format!("and 4,975 more of these AMIs: {run} --verdict no_use_observed"),
    );
    has(
        &section(&html, "unclear"),
        "and 9,975 more AMIs: image-usage images",
    );
    has(
        &section(&html, "uncovered"),
        "and 4,975 more uncovered AMIs: image-usage findings s3://my-bucket/image-usage/ --run \
         20261122T060000Z-7bf73129 --kind uncovered",
    );
    has(&section(&html, "targets"), "Not read: 300 not at all");
    has(&section(&html, "targets"), "and 5,075 more targets:");
    has(&section(&html, "changes"), "more changed verdicts:");
    has(
        &section(&html, "findings"),
        "more findings: image-usage findings",
    );
}

#[test]
fn texts_of_any_length_leave_the_page_below_its_limit() {
    let target = target("111122223333", "eu-west-1");
    let long = "\u{202e}\"&".repeat(2_000);
    let images: Vec<_> = (0..400)
        .map(|number| {
            let verdict = Verdict::ALL[1 + (number % 4) as usize];
            let mut line = uncovered(image(&target, number, &long, verdict));
            for _ in 0..4 {
                line = used_by(line, &long, &long, 1);
            }
            line.image_id = format!("{number}{long}");
            line
        })
        .collect();
    let reports: Vec<_> = (0..400)
        .map(|number| {
            let mut report = report(number, 3, 27);
            report.state = Some(ReportState::Error);
            report.state_reason = Some(long.clone());
            (report, archived())
        })
        .collect();
    let mut sample = Sample::new();
    sample.read(&target, &images, &reports, None);
    for number in 0..400 {
        let target = sample::target(&format!("{number:012}"), "eu-west-1");
        sample.unread(&target, &long, &long);
    }
    let (_, html) = sample.finish();
    assert!(html.len() <= MAX_PAGE_BYTES, "{} bytes", html.len());
    has(&section(&html, "in-use"), "more AMIs in use:");
}
