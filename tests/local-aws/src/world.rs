//! The state of the local AWS: accounts, Regions, roles, an organization and reports.
//!
//! AMIs, the resources that refer to them and their usage have modules of their own.

use crate::clock::Clock;
use crate::images::{Images, LAUNCH_LAG};
use crate::random::{Random, hash_of};
use crate::resources::Resources;
use crate::usage::{Awaiting, Usage};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use time::{Duration, OffsetDateTime};

/// The account of every access key that does not name another one.
pub const DEFAULT_ACCOUNT: &str = "111122223333";

/// The commercial Regions that every account has without opting in.
pub const CLASSIC_REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// An image usage report; as in EC2, every field is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// The report's own ID.
    pub report_id: Option<String>,
    /// The requested resource types.
    pub resource_types: Vec<ResourceType>,
    /// The requested accounts; none means all.
    pub account_ids: Vec<String>,
    /// `available`, `pending`, `error`, or anything else.
    pub state: Option<String>,
    /// Why the report is in `error`.
    pub state_reason: Option<String>,
    /// When the report was requested.
    pub creation_time: Option<OffsetDateTime>,
    /// When EC2 says that it will delete the report.
    pub expiration_time: Option<OffsetDateTime>,
    /// The report's tags, in order.
    pub tags: Vec<Tag>,
    /// What `DescribeImageUsageReportEntries` returns once the report is `available`.
    pub entries: Vec<Entry>,
    /// A future change of the state.
    pub transition: Option<Transition>,
    /// When EC2 deletes the report.
    ///
    /// `None` means at the expiration time, as EC2 documents. A report that has already expired
    /// when it is put into the world is deleted a day later, because EC2 may be late.
    pub deleted_at: Option<OffsetDateTime>,
}

/// A resource type of a report, with its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceType {
    /// For example `ec2:Instance`.
    pub resource_type: Option<String>,
    /// For example how many versions of a launch template EC2 examines.
    pub options: Vec<ResourceTypeOption>,
}

/// An option of a resource type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceTypeOption {
    /// For example `version-depth`.
    pub name: Option<String>,
    /// The option's values.
    pub values: Vec<String>,
}

/// A tag of a report or an AMI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The tag's key.
    pub key: Option<String>,
    /// The tag's value.
    pub value: Option<String>,
}

/// An entry of a report: how many resources of one type use the image in one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The type of the resources.
    pub resource_type: Option<String>,
    /// The account that uses the image.
    pub account_id: Option<String>,
    /// The number of resources that refer to the image.
    pub usage_count: Option<i64>,
}

/// A change of a report's state, at a time of the world's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When the state changes.
    pub at: OffsetDateTime,
    /// The new state.
    pub state: String,
    /// The reason for the new state.
    pub state_reason: Option<String>,
}

impl ResourceType {
    /// Creates a resource type without options.
    pub fn new(resource_type: impl Into<String>) -> Self {
        Self {
            resource_type: Some(resource_type.into()),
            options: Vec::new(),
        }
    }

    /// Adds an option.
    pub fn option(mut self, name: impl Into<String>, values: &[&str]) -> Self {
        self.options.push(ResourceTypeOption {
            name: Some(name.into()),
            values: values.iter().map(ToString::to_string).collect(),
        });
        self
    }
}

impl Tag {
    /// Creates a tag.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
        }
    }
}

impl Report {
    /// Returns the report as it is at `now`, after a transition that is due.
    pub(crate) fn at(mut self, now: OffsetDateTime) -> Self {
        if let Some(transition) = self.transition.take_if(|transition| transition.at <= now) {
            self.state = Some(transition.state);
            self.state_reason = transition.state_reason;
        }
        self
    }

    pub(crate) fn state_at(&self, now: OffsetDateTime) -> (Option<&str>, Option<&str>) {
        match &self.transition {
            Some(transition) if transition.at <= now => (
                Some(transition.state.as_str()),
                transition.state_reason.as_deref(),
            ),
            _ => (self.state.as_deref(), self.state_reason.as_deref()),
        }
    }
}

/// A role for `AssumeRole`.
#[derive(Clone, Debug, Default)]
pub struct RoleOptions {
    /// The role's name.
    pub name: String,
    /// The external ID that the role requires.
    pub external_id: Option<String>,
    /// Whether the role can be assumed by no one.
    pub deny: bool,
    /// The lifetime of its credentials, which overrides the caller's `DurationSeconds`.
    pub lifetime: Option<Duration>,
}

/// The outcome of reports that `CreateImageUsageReport` starts.
#[derive(Clone, Copy, Debug)]
pub struct CreationOutcome {
    /// How long the report is `pending`.
    pub delay: Duration,
    /// The probability that it ends as `error` instead of `available`, from 0 to 1.
    pub error_probability: f64,
    /// The seed of these errors, of the IDs and of the entries.
    pub seed: u64,
}

impl Default for CreationOutcome {
    fn default() -> Self {
        Self {
            delay: Duration::minutes(5),
            error_probability: 0.0,
            seed: 1,
        }
    }
}

/// The accounts, Regions and reports of a local AWS; clones share the same world.
#[derive(Clone, Debug)]
pub struct World {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

/// Builds a [`World`].
#[derive(Clone, Debug)]
pub struct WorldBuilder {
    clock: Clock,
    accounts: Vec<String>,
    regions: Option<Vec<String>>,
    disabled_regions: Vec<String>,
    seed: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) accounts: Vec<String>,
    pub(crate) regions: BTreeMap<String, RegionState>,
    pub(crate) targets: BTreeMap<(String, String), Target>,
    images: BTreeMap<String, Images>,
    pub(crate) launch_lag: Duration,
    pub(crate) usage: Usage,
    pub(crate) awaiting_entries: Vec<Awaiting>,
    pub(crate) roles: BTreeMap<(String, String), RoleOptions>,
    pub(crate) sessions: HashMap<String, Session>,
    pub(crate) organization: BTreeMap<String, String>,
    pub(crate) organization_page_size: usize,
    pub(crate) organization_states: AccountStates,
    pub(crate) page_token_lifetime: Duration,
    pub(crate) leaves_out_unknown_reports: bool,
    pub(crate) interleaves_entries: bool,
    pub(crate) creation: CreationOutcome,
    /// The AMIs whose reports fail every time.
    pub(crate) failing_images: BTreeSet<String>,
    pub(crate) random: Random,
}

#[derive(Debug)]
pub(crate) struct RegionState {
    pub(crate) enabled: bool,
    pub(crate) disabled_for: BTreeSet<String>,
}

/// The owner of temporary credentials from `AssumeRole`.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) account: String,
    pub(crate) role: String,
    pub(crate) name: String,
    pub(crate) expires_at: OffsetDateTime,
}

impl Session {
    pub(crate) fn assumed_role_arn(&self) -> String {
        format!(
            "arn:aws:sts::{}:assumed-role/{}/{}",
            self.account, self.role, self.name
        )
    }
}

#[derive(Debug, Default)]
pub(crate) struct Target {
    /// Sorted by sequence number; new ones are larger.
    stored: Vec<Stored>,
    next_sequence: u64,
    pub(crate) resources: Resources,
    pub(crate) max_page_size: Option<usize>,
    pub(crate) client_tokens: HashMap<String, (u64, String)>,
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    deleted_at: Option<OffsetDateTime>,
    pub(crate) report: Report,
}

/// How long EC2 keeps a report.
pub(crate) const REPORT_LIFETIME: Duration = Duration::days(30);
/// How long a report is kept that had already expired when it was put into the world.
const LATE_DELETION: Duration = Duration::DAY;

impl Target {
    /// Stores a report. Returns its sequence number.
    pub(crate) fn put(&mut self, report: Report, now: OffsetDateTime) -> u64 {
        let sequence = self.next_sequence;
        let deleted_at = report.deleted_at.or(match report.expiration_time {
            Some(expires_at) if expires_at <= now => Some(now + LATE_DELETION),
            expiration_time => expiration_time,
        });
        self.stored.push(Stored {
            sequence,
            deleted_at,
            report,
        });
        self.next_sequence += 1;
        sequence
    }

    pub(crate) fn report_mut(&mut self, sequence: u64) -> Option<&mut Report> {
        let index = self
            .stored
            .binary_search_by_key(&sequence, |stored| stored.sequence);
        let stored = self.stored.get_mut(index.ok()?)?;
        Some(&mut stored.report)
    }

    /// Returns the reports that exist at `now`, in order of creation, from a sequence number on.
    pub(crate) fn live(
        &self,
        from_sequence: u64,
        now: OffsetDateTime,
    ) -> impl Iterator<Item = &Stored> {
        let start = self
            .stored
            .partition_point(|stored| stored.sequence < from_sequence);
        self.stored
            .get(start..)
            .unwrap_or_default()
            .iter()
            .filter(move |stored| stored.deleted_at.is_none_or(|at| now < at))
    }

    pub(crate) fn delete(&mut self, report_id: &str, now: OffsetDateTime) -> bool {
        let found = self
            .live(0, now)
            .find(|stored| stored.report.report_id.as_deref() == Some(report_id))
            .map(|stored| stored.sequence);
        if let Some(sequence) = found {
            self.stored.retain(|stored| stored.sequence != sequence);
        }
        found.is_some()
    }
}

impl State {
    /// Returns the account that an access key belongs to.
    pub(crate) fn account_of(&self, access_key: &str) -> Option<&str> {
        if let Some(session) = self.sessions.get(access_key) {
            return Some(&session.account);
        }
        self.accounts
            .iter()
            .find(|account| access_key.contains(account.as_str()))
            .or_else(|| self.accounts.first())
            .map(String::as_str)
    }

    pub(crate) fn is_enabled(&self, account: &str, region: &str) -> bool {
        self.regions
            .get(region)
            .is_some_and(|state| state.enabled && !state.disabled_for.contains(account))
    }

    pub(crate) fn target(&mut self, account: &str, region: &str) -> &mut Target {
        self.targets
            .entry((account.to_owned(), region.to_owned()))
            .or_default()
    }

    /// Returns the AMIs of a Region.
    pub(crate) fn images(&mut self, region: &str) -> &mut Images {
        self.images.entry(region.to_owned()).or_default()
    }
}

impl World {
    /// Starts to build a world.
    pub fn builder() -> WorldBuilder {
        WorldBuilder {
            clock: Clock::system(),
            accounts: Vec::new(),
            regions: None,
            disabled_regions: Vec::new(),
            seed: 1,
        }
    }

    /// Returns the world's clock; setting it sets the world's time.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the accounts, the default one first.
    pub fn accounts(&self) -> Vec<String> {
        self.lock().accounts.clone()
    }

    /// Returns the Regions that are enabled for an account, sorted.
    pub fn enabled_regions(&self, account: &str) -> Vec<String> {
        let state = self.lock();
        state
            .regions
            .keys()
            .filter(|region| state.is_enabled(account, region))
            .cloned()
            .collect()
    }

    /// Disables a Region for one account.
    pub fn disable_region(&self, account: &str, region: &str) {
        if let Some(state) = self.lock().regions.get_mut(region) {
            state.disabled_for.insert(account.to_owned());
        }
    }

    /// Appends a report to a target.
    pub fn put_report(&self, account: &str, region: &str, report: Report) {
        self.put_reports(account, region, [report]);
    }

    /// Appends reports to a target.
    pub fn put_reports(
        &self,
        account: &str,
        region: &str,
        reports: impl IntoIterator<Item = Report>,
    ) {
        let now = self.now();
        let mut state = self.lock();
        let target = state.target(account, region);
        for report in reports {
            target.put(report, now);
        }
    }

    /// Deletes a report, as `DeleteImageUsageReport` does. Returns whether it existed.
    pub fn delete_report(&self, account: &str, region: &str, report_id: &str) -> bool {
        let now = self.now();
        self.lock().target(account, region).delete(report_id, now)
    }

    /// Returns the reports that a target has at the clock's time, in order of creation.
    pub fn reports(&self, account: &str, region: &str) -> Vec<Report> {
        let now = self.now();
        let mut state = self.lock();
        state.settle_entries(now);
        state
            .target(account, region)
            .live(0, now)
            .map(|stored| stored.report.clone().at(now))
            .collect()
    }

    /// Returns the number of reports that a target has at the clock's time.
    pub fn report_count(&self, account: &str, region: &str) -> usize {
        let now = self.now();
        self.lock().target(account, region).live(0, now).count()
    }

    /// Sets the largest `MaxResults` that EC2 accepts in one target.
    pub fn set_max_page_size(&self, account: &str, region: &str, size: usize) {
        self.lock().target(account, region).max_page_size = Some(size);
    }

    /// Sets the lifetime of page tokens; the default is an hour.
    pub fn set_page_token_lifetime(&self, lifetime: Duration) {
        self.lock().page_token_lifetime = lifetime;
    }

    /// Sets whether unknown report IDs are ignored instead of refused.
    ///
    /// EC2 documents neither; by default they are refused.
    pub fn leave_out_unknown_reports(&self, leaves_out: bool) {
        self.lock().leaves_out_unknown_reports = leaves_out;
    }

    /// Sets whether the first entry of each report is listed first, then the second of each, and so on.
    ///
    /// EC2 documents no order; by default entries are listed report by report.
    pub fn interleave_entries(&self, interleaves: bool) {
        self.lock().interleaves_entries = interleaves;
    }

    /// Sets the outcome of reports that are created from now on.
    pub fn set_creation_outcome(&self, outcome: CreationOutcome) {
        let mut state = self.lock();
        state.creation = outcome;
        state.random = Random::new(outcome.seed);
    }

    /// Lets every report about an AMI that is created from now on fail, or no longer.
    pub fn fail_reports_of(&self, image_id: &str, fails: bool) {
        let mut state = self.lock();
        match fails {
            true => state.failing_images.insert(image_id.to_owned()),
            false => state.failing_images.remove(image_id),
        };
    }

    /// Adds a role to an account.
    pub fn role(&self, account: &str, role: RoleOptions) {
        let key = (account.to_owned(), role.name.clone());
        self.lock().roles.insert(key, role);
    }

    /// Adds an account to the organization, as `ACTIVE`, `SUSPENDED` or `PENDING_CLOSURE`.
    ///
    /// The first one creates the organization; its management account is the world's default account.
    pub fn organization_account(&self, account: &str, status: &str) {
        self.lock()
            .organization
            .insert(account.to_owned(), status.to_owned());
    }

    /// Sets which of the fields `State` and `Status` the accounts of `ListAccounts` have.
    ///
    /// Organizations retires `Status`, and every field is optional.
    pub fn set_organization_states(&self, states: AccountStates) {
        self.lock().organization_states = states;
    }

    /// Sets the maximum number of accounts in a page of `ListAccounts`; the default is 20.
    pub fn set_organization_page_size(&self, size: usize) {
        self.lock().organization_page_size = size.max(1);
    }
}

/// What an account of an organization says about its state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AccountStates {
    /// `State` and `Status`.
    #[default]
    StateAndStatus,
    /// Only `State`.
    State,
    /// Only `Status`.
    Status,
    /// Neither.
    Neither,
}

impl WorldBuilder {
    /// Sets the clock; the default is the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Adds an account. The first one is the default account; without any it is [`DEFAULT_ACCOUNT`].
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.accounts.push(account.into());
        self
    }

    /// Sets the enabled Regions; the default is [`CLASSIC_REGIONS`].
    pub fn regions<R: Into<String>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = Some(regions.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a Region that exists but is not enabled for any account.
    pub fn disabled_region(mut self, region: impl Into<String>) -> Self {
        self.disabled_regions.push(region.into());
        self
    }

    /// Sets the seed of what EC2 leaves undefined, such as the order of Regions.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Builds the world.
    pub fn build(self) -> World {
        let enabled = self.regions.unwrap_or_else(|| {
            CLASSIC_REGIONS
                .iter()
                .map(|region| (*region).to_owned())
                .collect()
        });
        let mut regions = BTreeMap::new();
        for (names, enabled) in [(enabled, true), (self.disabled_regions, false)] {
            for name in names {
                regions.insert(
                    name,
                    RegionState {
                        enabled,
                        disabled_for: BTreeSet::new(),
                    },
                );
            }
        }
        let mut accounts = self.accounts;
        if accounts.is_empty() {
            accounts.push(DEFAULT_ACCOUNT.to_owned());
        }
        World {
            clock: self.clock,
            state: Arc::new(Mutex::new(State {
                accounts,
                regions,
                targets: BTreeMap::new(),
                images: BTreeMap::new(),
                launch_lag: LAUNCH_LAG,
                usage: Usage::default(),
                awaiting_entries: Vec::new(),
                roles: BTreeMap::new(),
                sessions: HashMap::new(),
                organization: BTreeMap::new(),
                organization_states: AccountStates::default(),
                organization_page_size: 20,
                page_token_lifetime: Duration::HOUR,
                leaves_out_unknown_reports: false,
                interleaves_entries: false,
                creation: CreationOutcome::default(),
                failing_images: BTreeSet::new(),
                random: Random::new(hash_of(["world"]) ^ self.seed),
            })),
        }
    }
}
