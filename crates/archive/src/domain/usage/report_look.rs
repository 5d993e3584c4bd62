//! What a report was asked to look at, and what the reports about an AMI say together.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::domain::report::{ReportState, ResourceType, UsageReport};
use crate::domain::timestamp::Timestamp;

/// The resource types that an adequate report covers.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageResourceTypeRequest.html>
pub const KNOWN_RESOURCE_TYPES: [&str; 4] = [
    "ec2:Instance",
    LAUNCH_TEMPLATE,
    "imagebuilder:ContainerRecipe",
    "imagebuilder:ImageRecipe",
];

/// The resource type whose versions a report looks at to a certain depth.
pub const LAUNCH_TEMPLATE: &str = "ec2:LaunchTemplate";

/// How many versions of each launch template an adequate report looks at.
pub const ADEQUATE_VERSION_DEPTH: u64 = 1_000;

/// How many versions EC2 looks at if a report does not say.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageResourceTypeOptionRequest.html>
pub const DEFAULT_VERSION_DEPTH: u64 = 20;

/// What a report was asked to look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReportLook {
    /// The report.
    pub report_id: String,
    /// When it was requested.
    pub creation_time: Option<Timestamp>,
    /// How many accounts it was limited to; 0 for all accounts.
    pub requested_account_ids: u64,
    /// The resource types that it covers, sorted.
    pub resource_types: BTreeSet<String>,
    /// How many versions of each launch template it looks at; `None` if it does not say.
    pub version_depth: Option<u64>,
}

impl ReportLook {
    /// Takes what matters of a report; `None` for one without an ID, whose entries nobody can ask for.
    pub fn of(report: &UsageReport) -> Option<Self> {
        let report_id = report.report_id.clone()?;
        let accounts = report.requested_account_ids.len();
        let types = &report.resource_types;
        Some(Self::new(report_id, report.creation_time, accounts, types))
    }

    /// Takes what matters of a report's fields; `accounts` is how many it was limited to.
    pub fn new(
        report_id: String,
        creation_time: Option<Timestamp>,
        accounts: usize,
        types: &[ResourceType],
    ) -> Self {
        let names = types.iter().filter_map(|one| one.resource_type.clone());
        let depths = types.iter().filter(|one| is_launch_template(one));
        Self {
            report_id,
            creation_time,
            requested_account_ids: accounts as u64,
            resource_types: names.collect(),
            // A missing depth is the least: EC2's default.
            version_depth: depths.map(version_depth).min().flatten(),
        }
    }

    /// The place among the reports about an AMI: the newest is the last.
    fn place(&self) -> (Option<Timestamp>, Option<&str>) {
        (self.creation_time, Some(&self.report_id))
    }

    fn is_deep(&self) -> bool {
        self.version_depth.unwrap_or(DEFAULT_VERSION_DEPTH) >= ADEQUATE_VERSION_DEPTH
    }

    /// The types of which the report shows every use: of all accounts, and of enough versions.
    pub(super) fn covered_types(&self) -> impl Iterator<Item = &str> {
        let is_about_all = self.requested_account_ids == 0;
        let types = self.resource_types.iter().map(String::as_str);
        types.filter(move |name| is_about_all && (*name != LAUNCH_TEMPLATE || self.is_deep()))
    }

    /// Whether the report could show any use.
    pub fn is_adequate(&self) -> bool {
        self.requested_account_ids == 0 && self.covers_known_types() && self.is_deep()
    }

    fn covers_known_types(&self) -> bool {
        let types = &self.resource_types;
        KNOWN_RESOURCE_TYPES
            .iter()
            .all(|name| types.contains(*name))
    }

    /// Why the report is not adequate; nothing for an adequate one.
    pub fn flaws(&self) -> BTreeSet<Reason> {
        let covers = |name: &str| self.resource_types.contains(name);
        let mut flaws = BTreeSet::new();
        if self.requested_account_ids > 0 {
            flaws.insert(Reason::AccountsRestricted);
        }
        if !self.covers_known_types() {
            flaws.insert(Reason::TypeNotCovered);
        }
        if covers(LAUNCH_TEMPLATE) && !self.is_deep() {
            flaws.insert(Reason::DepthShallow);
        }
        flaws
    }
}

impl AdequateReport {
    fn of(look: &ReportLook) -> Option<Self> {
        Some(Self {
            report_id: look.report_id.clone(),
            creation_time: look.creation_time?,
        })
    }

    fn place(&self) -> (Option<Timestamp>, Option<&str>) {
        (Some(self.creation_time), Some(&self.report_id))
    }
}

fn is_launch_template(covered: &ResourceType) -> bool {
    covered.resource_type.as_deref() == Some(LAUNCH_TEMPLATE)
}

/// The depth that is asked for; 0 for a text that is no number, `None` if there is none.
fn version_depth(covered: &ResourceType) -> Option<u64> {
    let options = covered.options.iter();
    let depths = options.filter(|option| option.name.as_deref() == Some("version-depth"));
    depths
        .flat_map(|option| &option.values)
        .map(|depth| depth.parse().unwrap_or(0))
        .min()
}

/// The reports about an AMI that EC2 lists.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReportsListed {
    /// How many are available.
    pub available: u64,
    /// How many are pending.
    pub pending: u64,
    /// How many failed.
    pub error: u64,
    /// How many are in another state, or in none.
    pub other: u64,
    /// How many of the available ones have no archived entries.
    pub entries_not_archived: u64,
    /// The state of the newest one.
    pub newest_state: Option<ReportState>,
    /// What the newest available one was asked to look at.
    pub newest_available: Option<ReportLook>,
    /// The newest available one that is adequate.
    pub newest_adequate: Option<AdequateReport>,
    /// What the newest pending one was asked to look at.
    pub newest_pending: Option<ReportLook>,
    /// How many have failed since the newest adequate one; those without a creation time do not count.
    pub failed_in_a_row: u64,
    /// The creation of the last of them.
    pub newest_failed: Option<Timestamp>,
    /// The place of the newest one so far.
    #[serde(skip)]
    newest: Option<(Option<Timestamp>, Option<String>, Option<ReportState>)>,
    /// The creation of each failed one so far.
    #[serde(skip)]
    failed: Vec<Timestamp>,
}

/// A report that could show any use: of all accounts and known types, and of enough versions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AdequateReport {
    /// The report.
    pub report_id: String,
    /// When it was requested.
    pub creation_time: Timestamp,
}

impl ReportsListed {
    /// Adds a report that EC2 lists; reports may come in any order, each once.
    ///
    /// `has_archived_entries` is whether its entries are archived and were added to the AMI's usage, by this run or
    /// an earlier one. Entries that are only archived do not count: they may show a use that no verdict knows of.
    pub fn add(&mut self, report: &UsageReport, has_archived_entries: bool) {
        let place = (report.creation_time, report.report_id.as_deref());
        let look = || ReportLook::of(report);
        self.add_look(report.state.as_ref(), place, look, has_archived_entries);
    }

    /// Adds a report by its state, its creation and ID, and what it was asked to look at, which is asked for
    /// only if it is the newest.
    pub fn add_look(
        &mut self,
        state: Option<&ReportState>,
        place: (Option<Timestamp>, Option<&str>),
        look: impl FnOnce() -> Option<ReportLook>,
        has_archived_entries: bool,
    ) {
        match state {
            Some(ReportState::Available) => {
                self.available += 1;
                self.entries_not_archived += u64::from(!has_archived_entries);
                let newest = self.newest_available.as_ref().map(ReportLook::place);
                let is_newest = newest < Some(place);
                let adequate = self.newest_adequate.as_ref().map(AdequateReport::place);
                let may_be_adequate = place.0.is_some() && adequate < Some(place);
                if (is_newest || may_be_adequate)
                    && let Some(look) = look()
                {
                    if may_be_adequate && look.is_adequate() {
                        self.newest_adequate = AdequateReport::of(&look);
                    }
                    if is_newest {
                        self.newest_available = Some(look);
                    }
                }
            }
            Some(ReportState::Pending) => {
                self.pending += 1;
                let newest = self.newest_pending.as_ref().map(ReportLook::place);
                if newest < Some(place)
                    && let Some(look) = look()
                {
                    self.newest_pending = Some(look);
                }
            }
            Some(ReportState::Error) => {
                self.error += 1;
                self.failed.extend(place.0);
            }
            Some(ReportState::Other(_)) | None => self.other += 1,
        }
        // With its state: two reports may lack both a time and an ID.
        let newest = self.newest.as_ref();
        let newest = newest.map(|(created, id, state)| (*created, id.as_deref(), state.as_ref()));
        if newest < Some((place.0, place.1, state)) {
            self.newest = Some((place.0, place.1.map(str::to_owned), state.cloned()));
            self.newest_state = state.cloned();
        }
    }

    /// The summary, once every report is added.
    #[must_use]
    pub fn summary(mut self) -> Self {
        if !self.failed.is_empty() {
            let adequate = self.newest_adequate.as_ref().map(|one| one.creation_time);
            self.failed.retain(|failed| Some(*failed) > adequate);
            self.failed_in_a_row = self.failed.len() as u64;
            self.newest_failed = self.failed.iter().max().copied();
        }
        Self {
            newest: None,
            failed: Vec::new(),
            ..self
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.available + self.pending + self.error + self.other
    }
}
