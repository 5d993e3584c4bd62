//! Writes pages of made-up runs into a folder, for the checks in a browser: hostile texts, and a large run.

#![expect(
    clippy::unwrap_used,
    reason = "a program for tests, which ends if something is wrong"
)]

#[path = "../tests/page/runs.rs"]
mod runs;
#[path = "../tests/page/sample.rs"]
mod sample;

use std::path::PathBuf;

use sample::Sample;

fn main() {
    let folder: PathBuf = std::env::args_os().nth(1).unwrap().into();
    let pages = [
        ("hostile", runs::hostile()),
        ("large", runs::large()),
        ("scoped", Sample::new().scoped_to(&["eu-west-1"])),
        ("empty", Sample::new()),
    ];
    for (name, sample) in pages {
        let (_, html) = sample.finish();
        std::fs::write(folder.join(format!("{name}.html")), html).unwrap();
    }
}
