//! Asks EC2 for reports about AMIs that have none, or only old ones, if the settings say so.
//!
//! While the lines of a target's AMIs are written, its [`RenewalPlan`] collects those that are due. Once every target
//! is archived, EC2 is asked for them in the time that is left, one after the other in each target. Nothing else in
//! EC2 is ever changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use image_usage_archive::aws::CallFailure;
use image_usage_archive::documents::{Renewals, RunFacts};
use image_usage_archive::domain::digest::sha256_hex;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::{SECONDS_PER_HOUR, Timestamp};
use image_usage_archive::renewal_plan::RenewalPlan;
use tokio::time::Instant;

use super::deadline::deadline_exceeded;
use super::plan::Account;
use super::run::Run;
use crate::aws::ec2::{ReportRequest, UsageReports};

/// The time between two calls in a target: EC2 allows 5 changing calls a second, and others make some too.
///
/// Source: <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>
pub(super) const PACE: Duration = Duration::from_millis(250);

/// After this many refusals in a row with the same code, EC2 is not going to accept any.
const MAX_REFUSALS: u32 = 3;

/// How long a run can ask at most: the longest that Lambda gives.
const MAX_SECONDS: usize = 900;

/// The period of a client token: shorter than any wait between two requests for an AMI.
const PERIOD_SECONDS: i64 = 12 * SECONDS_PER_HOUR;

/// A client token may have 64 characters; half of them tell any two apart.
const TOKEN_CHARACTERS: usize = 32;

/// What EC2 is to be asked for in one target.
#[derive(Debug)]
pub(crate) struct TargetRenewal {
    pub(crate) account: Arc<Account>,
    pub(crate) target: Target,
    pub(crate) plan: RenewalPlan,
}

/// What EC2 is to be asked for, in all targets.
#[derive(Default, Debug)]
pub(crate) struct TargetRenewals {
    of_targets: Vec<TargetRenewal>,
    images: usize,
}

impl TargetRenewals {
    /// Adds a target. What a run can't ask for in its time anyway is deferred, so that thousands of targets do not
    /// take more memory.
    pub(crate) fn add(&mut self, mut renewal: TargetRenewal, max_concurrent_targets: usize) {
        let calls_per_second = (1_000 / PACE.as_millis()) as usize;
        let most = max_concurrent_targets * calls_per_second * MAX_SECONDS;
        renewal.plan.limit(most.saturating_sub(self.images));
        self.images += renewal.plan.planned();
        self.of_targets.push(renewal);
    }
}

/// Asks for reports in every target, up to `max_concurrent_targets` at a time, while the run has time.
pub(crate) async fn renew_all(run: &Run, renewals: TargetRenewals) -> BTreeMap<Target, Renewals> {
    futures_util::stream::iter(renewals.of_targets)
        .map(|renewal| async {
            let target = renewal.target.clone();
            let renewed = renew(run, renewal).await;
            log(run, &target, &renewed);
            (target, renewed)
        })
        .buffer_unordered(run.settings.max_concurrent_targets)
        .collect()
        .await
}

/// Asks for the reports of one target. A refusal costs its AMI only, unless nothing is accepted.
///
/// After two refusals alike, the next call is for an AMI of which EC2 has made a report before: AMIs that EC2 refuses
/// every time must not keep the others from their reports.
async fn renew(run: &Run, renewal: TargetRenewal) -> Renewals {
    let TargetRenewal {
        account,
        target,
        plan,
    } = renewal;
    let mut renewed = Renewals {
        deferred: plan.deferred(),
        ..Renewals::default()
    };
    let mut queue = plan.into_queue();
    if queue.left() == 0 {
        return renewed;
    }
    let requests = UsageReports::new(account.latest_access(), &target.region).requests();
    let mut refusals = Refusals::default();
    let mut next_call = Instant::now();
    let mut failure: Option<CallFailure> = None;
    while queue.left() > 0 && !refusals.are_final() {
        tokio::time::sleep_until(next_call).await;
        next_call = Instant::now() + run.renewal_pace;
        if !run.deadline.has_time() {
            failure.get_or_insert_with(deadline_exceeded);
            break;
        }
        let Some(image) = queue.take(refusals.in_a_row + 1 == MAX_REFUSALS) else {
            break;
        };
        let request = ReportRequest {
            client_token: client_token(&target, &image.image_id, run.facts.scheduled_at),
            tags: tags(&run.facts),
            image_id: image.image_id,
        };
        let answer = run.deadline.limit_read(requests.create(&request)).await;
        match answer {
            Ok(()) => {
                renewed.requested += 1;
                refusals = Refusals::default();
            }
            // EC2 may have accepted it: the next run lists the report, or asks for it.
            Err(late) if late.code == deadline_exceeded().code => {
                renewed.deferred += 1;
                failure.get_or_insert(late);
                break;
            }
            Err(refused) => {
                renewed.failed += 1;
                refusals.add(&refused);
                failure.get_or_insert(refused);
            }
        }
    }
    renewed.deferred += queue.left();
    renewed.error = failure.map(Into::into);
    renewed
}

/// Refusals in a row with the same code.
#[derive(Default, Debug)]
struct Refusals {
    code: String,
    in_a_row: u32,
}

impl Refusals {
    fn add(&mut self, refused: &CallFailure) {
        if self.code != refused.code {
            self.code.clone_from(&refused.code);
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
    }

    fn are_final(&self) -> bool {
        self.in_a_row >= MAX_REFUSALS
    }
}

/// The same for each attempt at a run, so that EC2 makes one report however often it is asked. Another run of the
/// same period is refused, because its tags differ.
fn client_token(target: &Target, image_id: &str, scheduled_at: Timestamp) -> String {
    let seconds = scheduled_at.unix_milliseconds().div_euclid(1_000);
    let period = seconds.div_euclid(PERIOD_SECONDS);
    let mut token = sha256_hex(format!("{target}/{image_id}/{period}"));
    token.truncate(TOKEN_CHARACTERS);
    token
}

fn tags(facts: &RunFacts) -> [(&'static str, String); 2] {
    [
        ("managed-by", "image-usage-auditor".to_owned()),
        ("auditor-run", facts.run_id.to_string()),
    ]
}

fn log(run: &Run, target: &Target, renewed: &Renewals) {
    let Renewals {
        requested,
        deferred,
        failed,
        error,
    } = renewed;
    let (run_id, Target { account_id, region }) = (&run.facts.run_id, target);
    match error {
        None if requested + deferred == 0 => {}
        None => {
            tracing::info!(%run_id, %account_id, %region, requested, deferred, failed, "reports requested");
        }
        Some(error) => tracing::warn!(
            %run_id, %account_id, %region, requested, deferred, failed,
            error_code = error.code, error_message = error.message, request_id = error.request_id,
            "not all reports requested"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(region: &str, image_id: &str, scheduled_at: &str) -> String {
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: region.parse().unwrap(),
        };
        client_token(&target, image_id, scheduled_at.parse().unwrap())
    }

    #[test]
    fn a_client_token_is_the_same_for_one_ami_and_period() {
        let one = token("us-east-1", "ami-1", "2026-11-22T06:00:00Z");
        assert_eq!(one.len(), TOKEN_CHARACTERS);
        assert_eq!(token("us-east-1", "ami-1", "2026-11-22T11:59:59Z"), one);
        for (region, image_id, scheduled_at) in [
            ("eu-west-1", "ami-1", "2026-11-22T06:00:00Z"),
            ("us-east-1", "ami-2", "2026-11-22T06:00:00Z"),
            ("us-east-1", "ami-1", "2026-11-22T12:00:00Z"),
            ("us-east-1", "ami-1", "2026-11-23T06:00:00Z"),
        ] {
            assert_ne!(token(region, image_id, scheduled_at), one);
        }
    }
}
