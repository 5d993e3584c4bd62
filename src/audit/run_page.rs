//! The page of a run, written once the run is archived.

use bytes::Bytes;
use image_usage_archive::documents::{PageContents, Snapshot};
use image_usage_archive::page::{Place, render};

use super::run::Run;
use crate::archive::lines_writer::ArchiveError;
use crate::archive::pages;
use crate::archive::snapshots::SnapshotObject;

/// The calls that write a page, and its copy.
const CALLS: u32 = 2;

/// What the page of a run is made of.
#[derive(Debug)]
pub(super) struct RunPage {
    pub(super) snapshot: Snapshot,
    pub(super) contents: PageContents,
}

impl RunPage {
    /// Writes the page, and its copy if the run is the newest full one. A failure costs the page and nothing else:
    /// `image-usage page` can make it at any time.
    pub(super) async fn write(&self, run: &Run, object: &SnapshotObject, is_latest: bool) {
        let write = self.write_all(run, object, is_latest);
        let failure = match run.deadline.limit_optional(CALLS, write).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.into_failure(),
            Err(late) => late,
        };
        tracing::warn!(
            run_id = %run.facts.run_id,
            error_code = failure.code,
            error_message = failure.message,
            "the page of the run is not written; `image-usage page` makes it"
        );
    }

    async fn write_all(
        &self,
        run: &Run,
        object: &SnapshotObject,
        is_latest: bool,
    ) -> Result<(), ArchiveError> {
        let layout = &run.settings.archive_prefix;
        let place = Place {
            archive: format!("s3://{}/{}", object.bucket, layout.prefix()),
            snapshot_sha256: object.sha256.clone(),
        };
        let html = Bytes::from(render(&self.snapshot, &self.contents, &place));
        let key = layout.page(&run.facts.run_id, run.facts.scheduled_at);
        pages::write(&run.bucket, &key, html.clone()).await?;
        if is_latest {
            pages::write(&run.bucket, &layout.latest_page(), html).await?;
        }
        Ok(())
    }
}
