//! The facts of a run, shared by all its targets.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use image_usage_archive::aws::Bucket;
use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{RunFacts, Scope};
use image_usage_archive::domain::findings::{Policy, UsagePolicy};
use image_usage_archive::domain::run_id::{Attempt, RunId};
use image_usage_archive::domain::target::{Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::CoverageRules;
use image_usage_archive::layout::ObjectKind;
use tokio::sync::SetOnce;

use super::deadline::Deadline;
use super::page_size::PageSize;
use crate::archive::previous::PreviousRun;
use crate::aws::ec2::{MAX_IDS_PER_CALL, ReportQuery};
use crate::request::Request;
use crate::settings::Settings;
use image_usage_archive::renewal_plan::RenewalPlan;

/// The invocation context that Lambda provides.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The request's ID, the same for each retry of an asynchronous invocation.
    pub request_id: String,
    /// The function's ARN; in local emulators, any text.
    pub function_arn: String,
    /// The wall clock at the start.
    pub started_at: Timestamp,
    /// The time from the start to the function's deadline; `None` if it is unknown.
    pub time_left: Option<Duration>,
}

impl Invocation {
    /// The same invocation, some time later.
    pub(crate) fn after(self, elapsed: Duration) -> Self {
        Self {
            started_at: self.started_at.plus(elapsed),
            time_left: self.time_left.map(|left| left.saturating_sub(elapsed)),
            ..self
        }
    }
}

/// What all targets of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) facts: RunFacts,
    /// The wall clock at the start of this invocation: the run's start, or that of a later phase.
    invoked_at: Timestamp,
    pub(crate) settings: Arc<Settings>,
    pub(crate) bucket: Bucket,
    /// The function's own Region.
    pub(crate) home: Region,
    /// The listings of each target: one, or several if the request names more IDs than EC2 accepts in a call.
    pub(crate) queries: Vec<ReportQuery>,
    pub(crate) page_size: PageSize,
    /// The page sizes of listings of AMIs, which EC2 may limit otherwise.
    pub(crate) images_page_size: PageSize,
    pub(crate) deadline: Deadline,
    /// The time between two requests for reports in a target.
    pub(crate) renewal_pace: Duration,
    /// Objects of earlier runs that exist and cannot be read.
    pub(crate) unreadable_objects: AtomicU64,
    /// The last full snapshot, once it is read.
    previous: SetOnce<Option<PreviousRun>>,
}

impl Run {
    /// Starts the clock of an invocation that does a run, or a phase of it.
    pub(crate) fn start(
        facts: RunFacts,
        max_results: Option<u32>,
        invocation: &Invocation,
        settings: Arc<Settings>,
        bucket: Bucket,
        home: Region,
        renewal_pace: Duration,
    ) -> Self {
        Self {
            queries: queries(&facts.scope),
            page_size: PageSize::new(max_results.or(settings.page_size)),
            images_page_size: PageSize::new(None),
            facts,
            invoked_at: invocation.started_at,
            deadline: Deadline::starting_now(invocation.time_left, settings.max_concurrent_targets),
            renewal_pace,
            settings,
            bucket,
            home,
            unreadable_objects: AtomicU64::new(0),
            previous: SetOnce::new(),
        }
    }

    /// Now, by the wall clock at the start and the time since.
    pub(crate) fn now(&self) -> Timestamp {
        self.invoked_at.plus(self.deadline.elapsed())
    }

    /// The key of an object that an attempt writes for a target.
    pub(crate) fn key(&self, kind: ObjectKind, attempt: Attempt, target: &Target) -> String {
        let RunFacts {
            run_id,
            scheduled_at,
            ..
        } = &self.facts;
        let layout = &self.settings.archive_prefix;
        layout.object(kind, run_id, attempt, *scheduled_at, target)
    }

    /// The rules about AMIs; `None` if the run reads none.
    pub(crate) fn usage_policy(&self) -> Option<&UsagePolicy> {
        self.facts.scope.usage_policy(&self.facts.policy)
    }

    /// The rules of coverage; `None` if the run reads no AMIs.
    pub(crate) fn coverage_rules(&self) -> Option<CoverageRules> {
        let usage = self.usage_policy()?;
        Some(self.facts.policy.coverage_rules(usage))
    }

    /// The reports that EC2 is to be asked for in a target; `None` if the settings do not say so.
    pub(crate) fn renewal_plan(&self) -> Option<RenewalPlan> {
        let rules = self.coverage_rules().filter(|rules| rules.renews)?;
        Some(RenewalPlan::new(rules, self.facts.started_at))
    }

    /// What a page shows of a target, before any line is added.
    pub(crate) fn page_contents(&self) -> PageContents {
        PageContents::new(self.facts.started_at, self.facts.policy.clone())
    }

    /// The last full snapshot; waits until it is read. `None` if there is none that can be read.
    pub(crate) async fn previous(&self) -> Option<&PreviousRun> {
        self.previous.wait().await.as_ref()
    }

    /// Sets the last full snapshot, for all who wait for it.
    pub(crate) fn set_previous(&self, previous: Option<PreviousRun>) {
        // Set once, by the one task that reads it.
        let _ = self.previous.set(previous);
    }
}

/// Names the run that a request asks for.
pub(crate) fn facts_of(request: Request, invocation: &Invocation, policy: Policy) -> RunFacts {
    let scheduled_at = request.scheduled_at.unwrap_or(invocation.started_at);
    let run_id = match &request.event_id {
        Some(event_id) => RunId::of_event(scheduled_at, event_id),
        None => RunId::of_request(scheduled_at, &invocation.request_id),
    };
    RunFacts {
        run_id,
        scope: request.scope,
        scheduled_at,
        started_at: invocation.started_at,
        policy,
    }
}

/// Names a new attempt, at random, so that no attempt ever meets another's objects.
///
/// The standard library seeds its hashers from the system's randomness.
pub(crate) fn new_attempt() -> Attempt {
    let random = RandomState::new().hash_one(());
    Attempt::from_bits(random as u32)
}

fn queries(scope: &Scope) -> Vec<ReportQuery> {
    let mut queries = Vec::new();
    for image_ids in id_batches(&scope.image_ids) {
        for report_ids in id_batches(&scope.report_ids) {
            queries.push(ReportQuery {
                image_ids: image_ids.clone(),
                report_ids,
                filters: scope.filters.clone(),
                max_results: None,
            });
        }
    }
    queries
}

/// The IDs, each once, in batches that EC2 accepts; one empty batch if there are none.
fn id_batches(ids: &[String]) -> Vec<Vec<String>> {
    let mut seen = HashSet::new();
    let once: Vec<String> = ids.iter().filter(|id| seen.insert(*id)).cloned().collect();
    if once.is_empty() {
        return vec![Vec::new()];
    }
    once.chunks(MAX_IDS_PER_CALL)
        .map(<[String]>::to_vec)
        .collect()
}
