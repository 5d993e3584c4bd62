//! Measures what a page costs a run of 20,000 AMIs: collecting their lines, drawing, and for comparison writing the
//! lines as JSON, which every run does.
//!
//!     cargo run --release --package image-usage-archive --example page_cost

#[path = "../tests/page/sample.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "made-up runs, which the tests share"
)]
mod sample;

use std::hint::black_box;
use std::time::{Duration, Instant};

use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{ImageLine, Snapshot};
use image_usage_archive::domain::usage::{Reason, Verdict};
use image_usage_archive::page::{Place, render};
use sample::{Sample, because, image, observed_for, target, uncovered, used_by};

const IMAGES: u64 = 20_000;
const ROUNDS: usize = 21;

fn main() {
    let target = target("111122223333", "eu-west-1");
    let lines: Vec<ImageLine> = (0..IMAGES)
        .map(|number| {
            let of = |verdict| image(&target, number, "golden image of ordinary length", verdict);
            match number % 4 {
                0 => observed_for(of(Verdict::NoUseObserved), 30),
                1 => uncovered(because(of(Verdict::Unknown), [Reason::NoReport])),
                _ => used_by(of(Verdict::InUse), "444455556666", "ec2:Instance", 7),
            }
        })
        .collect();
    let mut sample = Sample::new();
    sample.read(&target, &lines, &[], None);
    let (snapshot, _) = sample.finish();
    let contents = collected(&snapshot, &lines);
    let place = Place {
        archive: "s3://my-bucket/image-usage/".to_owned(),
        snapshot_sha256: "0".repeat(64),
    };
    let bytes = render(&snapshot, &contents, &place).len();
    println!("{IMAGES} AMIs, a page of {bytes} bytes, medians of {ROUNDS}:");
    let collect = median(|| drop(black_box(collected(&snapshot, &lines))));
    println!("  collecting the lines  {collect:?}");
    let draw = median(|| drop(black_box(render(&snapshot, &contents, &place))));
    println!("  drawing the page      {draw:?}");
    let write = median(|| {
        for line in &lines {
            drop(black_box(serde_json::to_vec(line)));
        }
    });
    println!("  the lines as JSON     {write:?}");
}

fn collected(snapshot: &Snapshot, lines: &[ImageLine]) -> PageContents {
    let mut contents = PageContents::new(snapshot.started_at, snapshot.policy.clone());
    for line in lines {
        contents.add_image(line);
    }
    contents
}

fn median(work: impl Fn()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}
