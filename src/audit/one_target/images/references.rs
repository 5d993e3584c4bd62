//! Asks EC2 which resources of the owner's account refer to AMIs that nobody was observed to use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::{MAX_REFERENCES, References};
use image_usage_archive::domain::usage::ReferencesLook;
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

    /// Reads every reference to some AMIs, at most 10, and returns what was found of each AMI. If anything
    /// failed, that is only the AMIs of which some were found.
    pub(super) async fn check(
        &mut self,
        image_ids: &[String],
    ) -> BTreeMap<String, (References, ReferencesLook)> {
        let none = |id: &String| (id.clone(), References::default());
        let mut found: BTreeMap<String, References> = image_ids.iter().map(none).collect();
        let read = match self.is_stopped {
            true => Err(None),
            false => self.read(image_ids, &mut found).await.map_err(Some),
        };
        let look = match read {
            Ok(()) => {
                self.failures = 0;
                ReferencesLook::Checked
            }
            Err(failure) => {
                if let Some(failure) = failure {
                    self.failures += 1;
                    self.is_stopped =
                        failure.kind != FailureKind::Transient || self.failures == MAX_FAILURES;
                    self.failure.get_or_insert(failure);
                }
                found.retain(|_, references| !references.listed.is_empty());
                ReferencesLook::NotChecked
            }
        };
        let found = found.into_iter();
        found
            .map(|(id, references)| (id, (references, look)))
            .collect()
    }

    async fn read(
        &mut self,
        image_ids: &[String],
        found: &mut BTreeMap<String, References>,
    ) -> Result<(), CallFailure> {
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
                return Ok(());
            }
        }
    }
}
