//! The page that a run writes once it is archived: a view, which costs no run anything.

use image_usage_archive::answer::Run;
use image_usage_archive::page::{Place, render};
use image_usage_archive::source::Source;
use local_aws::{Fault, FaultKind, Image, LocalAws};
use serde_json::json;

use crate::harness::{
    ACCOUNT, Archive, BUCKET, OTHER_REGION, REGION, RUN_ID, audit, auditor, checked, count_calls,
    healthy_reports, local_aws, run, scheduled_event, used, world,
};

const PAGE: &str = "image-usage/v1/pages/dt=2026-11-22/20261122T060000Z-7bf73129.html";
const LATEST_PAGE: &str = "image-usage/v1/latest.html";

/// A Region with an AMI in use, and another one that EC2 denies.
async fn aws_with_a_denied_region() -> LocalAws {
    let world = world(&[OTHER_REGION, REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(30));
    world.put_report(ACCOUNT, REGION, used("amiur-used", 5));
    let image = Image::new("ami-0abcdef1234567890").named("golden");
    world.put_image(ACCOUNT, REGION, image);
    let aws = local_aws(&world).await;
    let denied = Fault::new(FaultKind::Denied).on("DescribeImageUsageReports");
    aws.faults().add(denied.in_region(OTHER_REGION));
    aws
}

/// The page that anybody can draw of the newest run, from what is archived.
async fn drawn_again(aws: &LocalAws) -> String {
    let folder = aws.archive_root().join(BUCKET).join("image-usage");
    let archive = Source::at(folder.to_str().unwrap()).await.unwrap();
    let run = Run::newest(&archive).await.unwrap();
    let contents = run.page_contents(&archive).await.unwrap();
    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    let place = Place {
        archive: format!("s3://{BUCKET}/image-usage/"),
        snapshot_sha256: run.sha256.clone(),
    };
    render(&run.snapshot, &contents.said, &place)
}

#[tokio::test]
async fn a_runs_page_is_the_one_that_its_archived_lines_give_and_the_newest_run_has_a_copy() {
    let aws = aws_with_a_denied_region().await;
    let (summary, archive) = audit(&aws, "all").await;
    checked(&aws, &summary);
    let pages = archive.pages();
    let keys: Vec<&String> = pages.keys().collect();
    assert_eq!(keys, [LATEST_PAGE, PAGE]);
    assert_eq!(pages[PAGE], pages[LATEST_PAGE]);
    assert_eq!(pages[PAGE], drawn_again(&aws).await);
    for part in [
        "1 of 2 targets was not read to its end",
        "ami-0abcdef1234567890",
        RUN_ID,
        &summary.snapshot.sha256,
    ] {
        assert!(pages[PAGE].contains(part), "{part}");
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_written_costs_the_run_nothing() {
    for (key, left) in [("/pages/", &[][..]), ("latest.html", &[PAGE])] {
        let aws = aws_with_a_denied_region().await;
        let refused = Fault::new(FaultKind::Denied).on("PutObject").on_key(key);
        aws.faults().add(refused);
        let (summary, archive) = audit(&aws, "all").await;
        checked(&aws, &summary);
        assert!(!summary.already_archived);
        assert_eq!(archive.latest(), archive.snapshot(&summary));
        let pages = archive.pages();
        let keys: Vec<&str> = pages.keys().map(String::as_str).collect();
        assert_eq!(keys, left, "{key}");
    }
}

#[tokio::test]
async fn a_scoped_run_has_a_page_and_leaves_the_newest_full_run_its_copy() {
    let aws = aws_with_a_denied_region().await;
    let (_, archive) = audit(&aws, "all").await;
    let full = archive.pages();
    let auditor = auditor(&aws, &[]).await;
    let request = json!({"regions": [REGION], "scheduled_at": "2026-11-22T07:00:00Z"});
    let summary = run(&auditor, request).await.unwrap();
    let pages = archive.pages();
    assert_eq!(pages.len(), 3);
    assert_eq!(pages[LATEST_PAGE], full[PAGE]);
    let key = format!("image-usage/v1/pages/dt=2026-11-22/{}.html", summary.run_id);
    assert!(pages[&key].contains("A scoped run."), "{}", pages[&key]);
}

#[tokio::test]
async fn an_earlier_run_does_not_replace_the_page_of_a_later_one() {
    let aws = aws_with_a_denied_region().await;
    let (_, archive) = audit(&aws, "all").await;
    let later = archive.pages();
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", "all")]).await;
    let request = json!({"scheduled_at": "2026-11-21T06:00:00Z"});
    run(&auditor, request).await.unwrap();
    let pages = archive.pages();
    assert_eq!(pages.len(), 3);
    assert_eq!(pages[LATEST_PAGE], later[LATEST_PAGE]);
}

#[tokio::test]
async fn a_repeated_event_writes_no_page() {
    let aws = aws_with_a_denied_region().await;
    let (_, archive) = audit(&aws, "all").await;
    let before = archive.pages();
    aws.clear_calls();
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", "all")]).await;
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    assert!(summary.already_archived);
    assert_eq!(count_calls(&aws, "PutObject"), 0);
    assert_eq!(Archive::of(&aws).pages(), before);
}
