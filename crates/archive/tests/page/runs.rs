//! Made-up runs that are hard to draw: hostile texts, and a large organization.

use image_usage_archive::documents::ChangeTally;
use image_usage_archive::domain::report::ReportState;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::usage::{Reason, Verdict};

use crate::sample::{
    Sample, archived, because, image, image_id, not_archived, observed_for, report, target,
    uncovered, used_by,
};

/// Texts that would be markup, a script, a link or a style if they were not escaped, or that hide what follows.
pub(crate) const HOSTILE: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "&lt;b&gt;<!-- ]]> <a href=\"https://example.com\">",
    "javascript:alert(1)",
    "=HYPERLINK(\"https://example.com\")",
    "a\u{202e}b\u{200b}c\u{0}d\u{1b}[31m",
];

/// A run with texts that are hostile wherever an account, a user or EC2 can choose them.
pub(crate) fn hostile() -> Sample {
    let target = target("111122223333", "eu-west-1");
    let mut images = Vec::new();
    let mut reports = Vec::new();
    for (number, text) in (1..).zip(HOSTILE) {
        let used = image(&target, number, text, Verdict::InUse);
        images.push(used_by(used, text, text, 7));
        let quiet = image(&target, 100 + number, text, Verdict::NoUseObserved);
        images.push(observed_for(quiet, 45));
        let mut unclear = image(&target, 200 + number, text, Verdict::Unknown);
        unclear.image_id = text.to_owned();
        images.push(uncovered(because(unclear, [Reason::NoReport])));
        let mut failed = report(number, 3, 27);
        failed.state = Some(ReportState::Error);
        failed.report_id = Some(text.to_owned());
        failed.state_reason = Some(text.to_owned());
        failed.image_id = Some(text.to_owned());
        failed.tags.insert(text.to_owned(), Some(text.to_owned()));
        reports.push((failed, archived()));
        let mut unknown = report(50 + number, 3, 27);
        unknown.state = Some(text.into());
        reports.push((unknown, archived()));
    }
    let mut changes = ChangeTally::default();
    changes.add_changed_verdict(&target, HOSTILE[0], Verdict::NoUseObserved, Verdict::InUse);
    let mut sample = Sample::new()
        .stored_in(HOSTILE[1])
        .compared_with(&[&target]);
    sample.read(&target, &images, &reports, Some(changes));
    for (region, text) in ["us-east-1", "us-east-2", "us-west-1"]
        .into_iter()
        .zip(HOSTILE)
    {
        let other = Target {
            region: region.parse().unwrap(),
            ..target.clone()
        };
        sample.unread(&other, text, text);
    }
    sample
}

/// A run of 300 accounts in 17 Regions, of which some were not read, and of 20,000 AMIs.
pub(crate) fn large() -> Sample {
    const VERDICTS: [Verdict; 4] = [
        Verdict::InUse,
        Verdict::NoUseObserved,
        Verdict::LastSeenInUse,
        Verdict::Unknown,
    ];
    let targets: Vec<Target> = (0..300)
        .flat_map(|account| (0..17).map(move |region| (account, region)))
        .map(|(account, region)| {
            target(
                &format!("{:012}", 100_000_000_000_u64 + account),
                &format!("bench-region-{region}"),
            )
        })
        .collect();
    let mut sample = Sample::new().compared_with(&targets.iter().collect::<Vec<_>>());
    let mut numbers = 0..20_000_u64;
    for (place, target) in targets.iter().enumerate() {
        if place % 17 == 16 {
            let message = "You are not authorized to perform this operation. ".repeat(30);
            sample.unread(target, "UnauthorizedOperation", &message);
            continue;
        }
        let of_target: Vec<u64> = numbers.by_ref().take(5).collect();
        let (mut images, mut reports, mut changes) =
            (Vec::new(), Vec::new(), ChangeTally::default());
        for number in of_target {
            let verdict = VERDICTS[(number % 4) as usize];
            let name = format!(
                "golden image of team {} with a name of ordinary length",
                number % 7
            );
            let line = image(target, number, &name, verdict);
            images.push(match verdict {
                Verdict::InUse => used_by(line, "444455556666", "ec2:Instance", number as i64),
                Verdict::NoUseObserved => observed_for(line, 30 + (number % 60) as i64),
                Verdict::LastSeenInUse => because(line, [Reason::Stale, Reason::TypeNotCovered]),
                _ => uncovered(because(line, [Reason::NoReport, Reason::ImageTooYoung])),
            });
            let expires_after = (number % 30) as i64;
            let mut report = report(number, 30 - expires_after, expires_after);
            if number % 9 == 0 {
                report.state = Some(ReportState::Error);
                report.state_reason = Some("Something went wrong in EC2. ".repeat(10));
            }
            reports.push((report, not_archived()));
            let id = image_id(number);
            changes.add_changed_verdict(target, &id, Verdict::Unknown, verdict);
        }
        sample.read(target, &images, &reports, Some(changes));
    }
    assert_eq!(numbers.next(), None, "every AMI is in a target");
    sample
}
