//! The commands, a file each, and what they share.

pub(crate) mod completions;
pub(crate) mod findings;
pub(crate) mod images;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod verify;
pub(crate) mod who;

use image_usage_archive::answer::Run;
use image_usage_archive::aws::chain;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::source::Source;

/// The exit status if something could not be read.
pub(crate) const NOT_READABLE: u8 = 2;

/// Opens an archive, and reads one of its runs: the newest full one unless another is named.
async fn open(location: &str, run_id: Option<&RunId>) -> Result<(Source, Run), String> {
    let archive = Source::at(location).await.map_err(|error| chain(&error))?;
    let run = match run_id {
        None => Run::newest(&archive).await,
        Some(run_id) => Run::of_id(&archive, run_id).await,
    };
    let run = run.map_err(|error| chain(&error))?;
    Ok((archive, run))
}
