//! Asks EC2 which resources of the owner's account refer to AMIs that nobody was observed to use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::{MAX_REFERENCES, References};
use tokio::time::Instant;

use crate::audit::deadline::{Share, deadline_exceeded};
use crate::audit::run::Run;
use crate::aws::ec2::pagination::PageCursor;
use crate::aws::ec2::{ImageReference, Images};

/// The time between two calls: each makes EC2 call other services, with limits of their own.
const PACE: Duration = Duration::from_millis(250);

/// After this many failed calls in a row, EC2 is not answering any.
const MAX_FAILURES: u32 = 3;

/// Checks references until something keeps it from going on.
pub(super) struct ReferenceChecker {
    images: Images,
    share: Share,
    last_call: Option<Instant>,
    failures: u32,
    /// Why the check is not whole: the first failure.
    pub(super) failure: Option<CallFailure>,
    is_stopped: bool,
}

impl ReferenceChecker {
    pub(super) fn new(run: &Run, images: Images) -> Self {
        Self {
            images,
            share: run.deadline.first_share(),
            last_call: None,
            failures: 0,
            failure: None,
            is_stopped: false,
        }
    }

    /// Reads every reference to some AMIs, at most 10. `None` if anything failed: nothing is known then.
    pub(super) async fn check(
        &mut self,
        image_ids: &[String],
    ) -> Option<BTreeMap<String, References>> {
        if self.is_stopped {
            return None;
        }
        match self.read(image_ids).await {
            Ok(found) => {
                self.failures = 0;
                Some(found)
            }
            Err(failure) => {
                self.failures += 1;
                self.is_stopped =
                    failure.kind != FailureKind::Transient || self.failures == MAX_FAILURES;
                self.failure.get_or_insert(failure);
                None
            }
        }
    }

    async fn read(
        &mut self,
        image_ids: &[String],
    ) -> Result<BTreeMap<String, References>, CallFailure> {
        let mut found: BTreeMap<String, References> = image_ids
            .iter()
            .map(|id| (id.clone(), References::default()))
            .collect();
        let mut seen = BTreeSet::new();
        let mut cursor = PageCursor::new(None);
        loop {
            if let Some(last) = self.last_call {
                tokio::time::sleep_until(last + PACE).await;
            }
            self.last_call = Some(Instant::now());
            let call = self.images.references(image_ids, cursor.token());
            let answer = tokio::time::timeout_at(self.share.ends_at(), call).await;
            let page = match answer.unwrap_or_else(|_| Err(deadline_exceeded())) {
                Ok(page) => page,
                Err(failure) if cursor.restart_after(&failure) => continue,
                Err(failure) => return Err(failure),
            };
            for ImageReference {
                image_id,
                reference,
            } in page.rows
            {
                let of_image = image_id.as_deref().and_then(|id| found.get_mut(id));
                let Some(of_image) = of_image else {
                    let message = "EC2 returned a reference to an AMI that was not asked for";
                    return Err(CallFailure::malformed(message.to_owned()));
                };
                // A listing that starts again returns its references again.
                if !seen.insert((image_id, reference.clone())) {
                    continue;
                }
                of_image.listed.insert(reference);
                if of_image.listed.len() > MAX_REFERENCES {
                    of_image.listed.pop_last();
                    of_image.omitted += 1;
                }
            }
            if !cursor.advance(page.next_token)? {
                return Ok(found);
            }
        }
    }
}
