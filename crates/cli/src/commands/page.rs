//! `image-usage page`: writes a run as one HTML page.

use std::fs;
use std::path::Path;

use image_usage_archive::answer::FromLines;
use image_usage_archive::aws::chain;
use image_usage_archive::page::{Place, render};

use super::{NOT_READABLE, open};
use crate::args::Page;
use crate::terminal;

pub(crate) async fn run(arguments: Page) -> Result<u8, String> {
    let Page {
        archive,
        run,
        output,
    } = arguments;
    let (archive, run) = open(&archive, run.as_ref()).await?;
    let read = run.page_contents(&archive).await;
    let FromLines { said, problems } = read.map_err(|error| chain(&error))?;
    let place = Place {
        archive: archive.location(),
        snapshot_sha256: run.sha256.clone(),
    };
    let html = render(&run.snapshot, &said, &place);
    if output == Path::new("-") {
        if terminal::print(html.as_bytes()).is_err() {
            return Ok(NOT_READABLE);
        }
    } else {
        let written = fs::write(&output, html);
        written.map_err(|error| format!("failed to write {}: {error}", output.display()))?;
    }
    for problem in &problems {
        terminal::print_error(&format!("not on the page: {problem}"));
    }
    match problems.is_empty() {
        true => Ok(0),
        false => Ok(NOT_READABLE),
    }
}
