//! EC2: the four operations of image usage reports, and `DescribeRegions`.

use crate::answer::{Answer, ApiError, Delivery, EC2_NAMESPACE};
use crate::clock::timestamp;
use crate::faults::{FaultKind, Faults, PagePosition, Ruling, Service, Subject};
use crate::filters::{Filter, matches_pattern};
use crate::query::Query;
use crate::random::hash_of;
use crate::server::{Caller, Reply};
use crate::tokens::{Cursor, PageToken};
use crate::world::{
    CLASSIC_REGIONS, Entry, Report, ResourceType, ResourceTypeOption, State, Tag, Transition, World,
};
use crate::xml::{Style, Xml};
use http::StatusCode;
use std::collections::HashSet;
use time::{Duration, OffsetDateTime};

/// The most IDs of one kind in one call, by the service model.
const MAX_IDS: usize = 200;
/// The most filters of one call, and values of one filter, by EC2's guide on filters.
const MAX_FILTERS: usize = 50;
const MAX_FILTER_VALUES: usize = 200;
/// The length of a page when nothing is asked for; EC2 documents none.
const DEFAULT_PAGE_SIZE: usize = 1000;
/// How many reports of an account may be pending in one Region, by EC2's quotas.
const MAX_PENDING_REPORTS: usize = 2000;
/// How long EC2 keeps a report.
const REPORT_LIFETIME: Duration = Duration::days(30);

const RESOURCE_TYPES: [&str; 4] = [
    "ec2:Instance",
    "ec2:LaunchTemplate",
    "imagebuilder:ImageRecipe",
    "imagebuilder:ContainerRecipe",
];

const LISTING_PARAMETERS: [&str; 9] = [
    "Action",
    "DryRun",
    "Filter.N.Name",
    "Filter.N.Value.N",
    "ImageId.N",
    "MaxResults",
    "NextToken",
    "ReportId.N",
    "Version",
];
const CREATION_PARAMETERS: [&str; 12] = [
    "AccountId.N",
    "Action",
    "ClientToken",
    "DryRun",
    "ImageId",
    "ResourceType.N.ResourceType",
    "ResourceType.N.ResourceTypeOption.N.OptionName",
    "ResourceType.N.ResourceTypeOption.N.OptionValue.N",
    "TagSpecification.N.ResourceType",
    "TagSpecification.N.Tag.N.Key",
    "TagSpecification.N.Tag.N.Value",
    "Version",
];
const DELETION_PARAMETERS: [&str; 4] = ["Action", "DryRun", "ReportId", "Version"];
const REGIONS_PARAMETERS: [&str; 7] = [
    "Action",
    "AllRegions",
    "DryRun",
    "Filter.N.Name",
    "Filter.N.Value.N",
    "RegionName.N",
    "Version",
];

/// One request to EC2, and what is needed to answer it.
pub(crate) struct Ec2<'a> {
    pub(crate) world: &'a World,
    pub(crate) faults: &'a Faults,
    pub(crate) caller: &'a Caller,
    pub(crate) query: &'a Query,
    pub(crate) request_id: &'a str,
}

/// A page of reports or of entries.
struct Listing<'a> {
    rows: Vec<Row<'a>>,
    start: Cursor,
    next: Option<Cursor>,
    number: u32,
}

#[derive(Clone, Copy)]
struct Row<'a> {
    cursor: Cursor,
    report: &'a Report,
    entry: Option<&'a Entry>,
}

impl Row<'_> {
    fn passes(&self, filter: &Filter) -> bool {
        self.entry
            .is_some_and(|entry| entry_passes(self.report, entry, filter))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Reports,
    Entries,
}

impl Ec2<'_> {
    pub(crate) fn reply(&self) -> Reply {
        let operation = self.query.get("Action").unwrap_or_default();
        if self.caller.has_expired {
            return self.refuse(&ApiError::expired_credentials(Service::Ec2));
        }
        if !self
            .world
            .lock()
            .is_enabled(&self.caller.account, &self.caller.region)
        {
            return self.refuse(&ApiError::auth_failure());
        }
        match operation {
            "DescribeImageUsageReports" => self.list(Rows::Reports),
            "DescribeImageUsageReportEntries" => self.list(Rows::Entries),
            "CreateImageUsageReport" => self.act(&CREATION_PARAMETERS, Self::create),
            "DeleteImageUsageReport" => self.act(&DELETION_PARAMETERS, Self::delete),
            "DescribeRegions" => self.act(&REGIONS_PARAMETERS, Self::describe_regions),
            "" => self.refuse(&ApiError::new(
                400,
                "MissingAction",
                "The request is missing an action or a required parameter",
            )),
            unknown => self.refuse(&ApiError::new(
                400,
                "InvalidAction",
                format!("The action {unknown} is not valid for this web service."),
            )),
        }
    }

    fn refuse(&self, error: &ApiError) -> Reply {
        Reply::whole(error.answer(Service::Ec2, self.request_id))
    }

    fn rule(&self, page: Option<PagePosition>) -> Ruling {
        self.faults.rule_on(Subject {
            service: Service::Ec2,
            operation: self.query.get("Action").unwrap_or_default(),
            account: &self.caller.account,
            region: &self.caller.region,
            key: None,
            report_ids: &self.query.list("ReportId"),
            page,
        })
    }

    fn error_of(&self, kind: &FaultKind) -> Option<ApiError> {
        let operation = self.query.get("Action").unwrap_or_default();
        ApiError::of_fault(kind, Service::Ec2, operation, &self.caller.arn)
    }

    /// Answers an operation that lists nothing in pages.
    fn act(
        &self,
        known: &[&str],
        perform: impl Fn(&Self, Style) -> Result<String, ApiError>,
    ) -> Reply {
        let ruling = self.rule(None);
        let mut error = ruling.kind.as_ref().and_then(|kind| self.error_of(kind));
        let is_lost = matches!(ruling.kind, Some(FaultKind::CloseBeforeAnswer));
        let takes_effect = (error.is_none() && !is_lost) || ruling.after_effect;
        let mut document = None;
        if takes_effect {
            let performed = self
                .check_parameters(known)
                .and_then(|()| perform(self, style_of(&ruling)));
            match performed {
                Ok(text) => document = Some(text),
                Err(true_error) => error = error.or(Some(true_error)),
            }
        }
        let answer = match (error, document) {
            (None, Some(text)) => Answer::xml(StatusCode::OK, self.request_id, text),
            (Some(error), _) => error.answer(Service::Ec2, self.request_id),
            (None, None) => Answer::xml(StatusCode::OK, self.request_id, String::new()),
        };
        Reply::ruled(answer, ruling, None)
    }

    fn check_parameters(&self, known: &[&str]) -> Result<(), ApiError> {
        if let Some(name) = self.query.unknown(known) {
            return Err(ApiError::new(
                400,
                "UnknownParameter",
                format!("The parameter {name} is not recognized"),
            ));
        }
        match self.query.get("Version") {
            None | Some("2016-11-15") => Ok(()),
            Some(version) => Err(ApiError::new(
                400,
                "NoSuchVersion",
                format!("The requested version ({version}) of service AmazonEC2 does not exist"),
            )),
        }
    }

    fn check_dry_run(&self) -> Result<(), ApiError> {
        if self.query.is_true("DryRun") {
            return Err(ApiError::new(
                412,
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
            ));
        }
        Ok(())
    }

    fn document(&self, style: Style) -> (Xml, String) {
        let root = format!("{}Response", self.query.get("Action").unwrap_or("Unknown"));
        let mut xml = Xml::document(&root, Some(EC2_NAMESPACE), style);
        xml.leaf("requestId", self.request_id);
        (xml, root)
    }

    fn list(&self, kind: Rows) -> Reply {
        let now = self.world.now();
        let mut state = self.world.lock();
        let lifetime = state.page_token_lifetime;
        let listing = self
            .check_parameters(&LISTING_PARAMETERS)
            .and_then(|()| self.select(&mut state, kind, now));
        let has_token = self
            .query
            .get("NextToken")
            .is_some_and(|token| !token.is_empty());
        let position = listing.as_ref().ok().map(|listing| PagePosition {
            number: listing.number,
            is_last: listing.next.is_none(),
            has_token,
        });
        let ruling = self.rule(position);
        let number = position.map(|position| position.number);
        if let Some(error) = ruling.kind.as_ref().and_then(|kind| self.error_of(kind)) {
            return Reply::ruled(error.answer(Service::Ec2, self.request_id), ruling, number);
        }
        let listing = listing.and_then(|listing| self.check_dry_run().map(|()| listing));
        let answer = match listing {
            Err(error) => error.answer(Service::Ec2, self.request_id),
            Ok(listing) => {
                let expires_at = now.saturating_add(lifetime);
                let text = self.write_page(listing, kind, &ruling, now, expires_at);
                Answer::xml(StatusCode::OK, self.request_id, text)
            }
        };
        Reply::ruled(answer, ruling, number)
    }

    /// Hashes what a page token is bound to: the operation, the target and every parameter but
    /// those that may differ from page to page.
    fn fingerprint(&self) -> u64 {
        let bound = self
            .query
            .parameters()
            .iter()
            .filter(|(name, _)| !["DryRun", "MaxResults", "NextToken"].contains(&name.as_str()))
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        hash_of(
            [self.caller.account.as_str(), self.caller.region.as_str()]
                .into_iter()
                .chain(bound),
        )
    }

    fn select<'s>(
        &self,
        state: &'s mut State,
        kind: Rows,
        now: OffsetDateTime,
    ) -> Result<Listing<'s>, ApiError> {
        let filters = self.filters(match kind {
            Rows::Reports => &["creation-time", "state", "tag-key"],
            Rows::Entries => &["account-id", "creation-time", "resource-type"],
        })?;
        let image_ids = self.ids("ImageId")?;
        let report_ids = self.ids("ReportId")?;
        let leaves_out_unknown_reports = state.leaves_out_unknown_reports;
        let interleaves_entries = state.interleaves_entries;
        let target = state.target(&self.caller.account, &self.caller.region);
        let page_size = self.page_size(target.max_page_size)?;
        if !report_ids.is_empty() && !leaves_out_unknown_reports {
            let mut missing = report_ids.clone();
            for stored in target.live(0, now) {
                if let Some(id) = &stored.report.report_id {
                    missing.remove(id.as_str());
                }
            }
            if let Some(id) = self
                .query
                .list("ReportId")
                .into_iter()
                .find(|id| missing.contains(id))
            {
                return Err(unknown_report(id));
            }
        }
        let token = match self.query.get("NextToken") {
            None | Some("") => PageToken::first(),
            Some(text) => PageToken::read(text, self.fingerprint(), now)
                .ok_or_else(ApiError::invalid_pagination_token)?,
        };
        let includes = |ids: &HashSet<&str>, id: &Option<String>| {
            ids.is_empty() || id.as_deref().is_some_and(|id| ids.contains(id))
        };
        // The place of an entry among the others; reports have no second number.
        let place = |cursor: Cursor| match interleaves_entries {
            true => (u64::from(cursor.entry), cursor.sequence),
            false => (cursor.sequence, u64::from(cursor.entry)),
        };
        let first = match interleaves_entries {
            true => 0,
            false => token.cursor.sequence,
        };
        let reports = target.live(first, now).filter(|stored| {
            includes(&image_ids, &stored.report.image_id)
                && includes(&report_ids, &stored.report.report_id)
        });
        let beyond = page_size.saturating_add(1);
        let mut rows: Vec<Row<'_>> = match kind {
            Rows::Reports => reports
                .filter(|stored| {
                    stored.sequence >= token.cursor.sequence
                        && filters
                            .iter()
                            .all(|filter| report_passes(&stored.report, filter, now))
                })
                .map(|stored| Row {
                    cursor: Cursor {
                        sequence: stored.sequence,
                        entry: 0,
                    },
                    report: &stored.report,
                    entry: None,
                })
                .take(beyond)
                .collect(),
            Rows::Entries => {
                let available =
                    reports.filter(|stored| stored.report.state_at(now).0 == Some("available"));
                let entries = available
                    .flat_map(|stored| {
                        let report = &stored.report;
                        (0u32..).zip(&report.entries).map(|(entry, row)| Row {
                            cursor: Cursor {
                                sequence: stored.sequence,
                                entry,
                            },
                            report,
                            entry: Some(row),
                        })
                    })
                    .filter(|row| {
                        place(row.cursor) >= place(token.cursor)
                            && filters.iter().all(|filter| row.passes(filter))
                    });
                if interleaves_entries {
                    let mut entries: Vec<_> = entries.collect();
                    entries.sort_by_key(|row| place(row.cursor));
                    entries.truncate(beyond);
                    entries
                } else {
                    entries.take(beyond).collect()
                }
            }
        };
        let next = match rows.len() > page_size {
            true => rows.pop().map(|row| row.cursor),
            false => None,
        };
        Ok(Listing {
            rows,
            start: token.cursor,
            next,
            number: token.number,
        })
    }

    fn write_page(
        &self,
        listing: Listing<'_>,
        kind: Rows,
        ruling: &Ruling,
        now: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> String {
        let bare_report = Report::default();
        let bare_entry = Entry::default();
        let mut listing = listing;
        match ruling.kind {
            Some(FaultKind::EmptyPage) => {
                listing.rows.clear();
                listing.next = Some(listing.start);
            }
            Some(FaultKind::DuplicateReport) => {
                if let Some(last) = listing.rows.last().copied() {
                    // A page of one would otherwise come again for ever.
                    if listing.next.is_some() && listing.rows.len() > 1 {
                        listing.next = Some(last.cursor);
                    }
                    listing.rows.push(last);
                }
            }
            Some(FaultKind::BareReport) => listing.rows.push(Row {
                cursor: listing.start,
                report: &bare_report,
                entry: Some(&bare_entry),
            }),
            _ => {}
        }
        let (mut xml, root) = self.document(style_of(ruling));
        let set = match kind {
            Rows::Reports => "imageUsageReportSet",
            Rows::Entries => "imageUsageReportEntrySet",
        };
        if listing.rows.is_empty() {
            xml.empty(set);
        } else {
            xml.open(set);
            for row in &listing.rows {
                match kind {
                    Rows::Reports => write_report(&mut xml, row.report, now),
                    Rows::Entries => write_entry(&mut xml, row),
                }
            }
            xml.close(set);
        }
        let repeated = match ruling.kind {
            Some(FaultKind::RepeatToken) => self.query.get("NextToken"),
            _ => None,
        };
        match (repeated, listing.next) {
            (Some(token), _) => xml.leaf("nextToken", token),
            (None, Some(cursor)) => {
                let token = PageToken {
                    cursor,
                    number: listing.number + 1,
                    expires_at,
                };
                xml.leaf("nextToken", &token.write(self.fingerprint()));
            }
            (None, None) if ruling.kind == Some(FaultKind::EmptyToken) => xml.empty("nextToken"),
            (None, None) => {}
        }
        xml.finish(&root)
    }

    fn page_size(&self, max_page_size: Option<usize>) -> Result<usize, ApiError> {
        let Some(text) = self.query.get("MaxResults") else {
            return Ok(DEFAULT_PAGE_SIZE.min(max_page_size.unwrap_or(DEFAULT_PAGE_SIZE)));
        };
        let size = text.parse::<usize>().ok().filter(|size| *size >= 1);
        let most = max_page_size.unwrap_or(usize::MAX);
        match size {
            Some(size) if size <= most => Ok(size),
            _ => {
                let expected = match max_page_size {
                    Some(most) => format!("Expecting a value between 1 and {most}."),
                    None => "Expecting a value of 1 or more.".to_owned(),
                };
                Err(invalid(format!(
                    "Value ( {text} ) for parameter MaxResults is invalid. {expected}"
                )))
            }
        }
    }

    fn ids(&self, name: &str) -> Result<HashSet<&str>, ApiError> {
        let ids = self.query.list(name);
        if ids.len() > MAX_IDS {
            return Err(invalid(format!(
                "The maximum number of {name} values is {MAX_IDS}, but the request has {}.",
                ids.len()
            )));
        }
        Ok(ids.into_iter().collect())
    }

    fn filters(&self, known: &[&str]) -> Result<Vec<Filter>, ApiError> {
        let numbers = self.query.numbers("Filter");
        if numbers.len() > MAX_FILTERS {
            return Err(too_many_filters());
        }
        let mut filters = Vec::new();
        for number in numbers {
            let name = self
                .query
                .get(&format!("Filter.{number}.Name"))
                .ok_or_else(|| missing(&format!("Filter.{number}.Name")))?;
            let is_known = known.contains(&name)
                || (known.contains(&"tag-key") && name.len() > 4 && name.starts_with("tag:"));
            if !is_known {
                return Err(invalid(format!("The filter '{name}' is invalid")));
            }
            let values = self.query.list(&format!("Filter.{number}.Value"));
            if values.is_empty() {
                return Err(missing(&format!("Filter.{number}.Value.1")));
            }
            if values.len() > MAX_FILTER_VALUES {
                return Err(too_many_filters());
            }
            filters.push(Filter {
                name: name.to_owned(),
                values: values.into_iter().map(str::to_owned).collect(),
            });
        }
        Ok(filters)
    }

    fn create(&self, style: Style) -> Result<String, ApiError> {
        let image_id = self
            .query
            .get("ImageId")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| missing("ImageId"))?;
        let digits = image_id.strip_prefix("ami-").unwrap_or_default();
        if !matches!(digits.len(), 8 | 17) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ApiError::new(
                400,
                "InvalidAMIID.Malformed",
                format!("Invalid id: \"{image_id}\" (expecting \"ami-...\")"),
            ));
        }
        let resource_types = self.requested_resource_types()?;
        let account_ids = self.query.list("AccountId");
        if account_ids.len() > MAX_IDS {
            return Err(invalid(format!(
                "The maximum number of AccountId values is {MAX_IDS}, but the request has {}.",
                account_ids.len()
            )));
        }
        if let Some(id) = account_ids
            .iter()
            .find(|id| id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(invalid(format!(
                "Value ({id}) for parameter AccountId is invalid. Expecting a 12-digit account ID."
            )));
        }
        let tags = self.requested_tags()?;
        let client_token = self
            .query
            .get("ClientToken")
            .filter(|token| !token.is_empty());
        if client_token.is_some_and(|token| token.chars().count() > 128) {
            return Err(invalid(
                "Value for parameter ClientToken is longer than 128.".to_owned(),
            ));
        }
        self.check_dry_run()?;

        let now = self.world.now();
        let mut guard = self.world.lock();
        let state = &mut *guard;
        let fingerprint = hash_of(
            self.query
                .parameters()
                .iter()
                .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
        );
        let outcome = state.creation;
        let key = (self.caller.account.clone(), self.caller.region.clone());
        let target = state.targets.entry(key).or_default();
        if let Some((known, report_id)) =
            client_token.and_then(|token| target.client_tokens.get(token))
        {
            if *known != fingerprint {
                return Err(ApiError::new(
                    400,
                    "IdempotentParameterMismatch",
                    "The client token was used before, with different parameters.",
                ));
            }
            return Ok(self.created(report_id, style));
        }
        let mut pending = 0;
        let mut pending_of_image = 0;
        for stored in target.live(0, now) {
            if stored.report.state_at(now).0 == Some("pending") {
                pending += 1;
                if stored.report.image_id.as_deref() == Some(image_id) {
                    pending_of_image += 1;
                }
            }
        }
        if pending_of_image >= 1 || pending >= MAX_PENDING_REPORTS {
            return Err(ApiError::new(
                400,
                "ImageUsageReportLimitExceeded",
                if pending_of_image >= 1 {
                    format!("The image {image_id} already has a pending image usage report.")
                } else {
                    format!("You have {pending} pending image usage reports in this Region.")
                },
            ));
        }
        let random = &mut state.random;
        let report_id = format!("amiur-{}", random.hex(17));
        let fails = random.chance(outcome.error_probability);
        let mut entries = Vec::new();
        if !fails {
            for resource_type in &resource_types {
                for _ in 0..random.between(1, 3) {
                    entries.push(Entry {
                        resource_type: resource_type.resource_type.clone(),
                        account_id: Some(match account_ids.is_empty() {
                            true => format!("{:012}", random.below(1_000_000_000_000)),
                            false => (*random.pick(&account_ids)).to_owned(),
                        }),
                        usage_count: Some(random.between(1, 500)),
                    });
                }
            }
        }
        target.put(
            Report {
                image_id: Some(image_id.to_owned()),
                report_id: Some(report_id.clone()),
                resource_types,
                account_ids: account_ids.into_iter().map(str::to_owned).collect(),
                state: Some("pending".to_owned()),
                state_reason: None,
                creation_time: Some(now),
                expiration_time: Some(now + REPORT_LIFETIME),
                tags,
                entries,
                transition: Some(Transition {
                    at: now + outcome.delay,
                    state: if fails { "error" } else { "available" }.to_owned(),
                    state_reason: fails.then(|| "The report could not be created.".to_owned()),
                }),
                deleted_at: None,
            },
            now,
        );
        if let Some(token) = client_token {
            target
                .client_tokens
                .insert(token.to_owned(), (fingerprint, report_id.clone()));
        }
        Ok(self.created(&report_id, style))
    }

    fn created(&self, report_id: &str, style: Style) -> String {
        let (mut xml, root) = self.document(style);
        xml.leaf("reportId", report_id);
        xml.finish(&root)
    }

    fn requested_resource_types(&self) -> Result<Vec<ResourceType>, ApiError> {
        let numbers = self.query.numbers("ResourceType");
        if numbers.is_empty() {
            return Err(missing("ResourceType"));
        }
        let mut resource_types = Vec::new();
        for number in numbers {
            let prefix = format!("ResourceType.{number}");
            let name = self
                .query
                .get(&format!("{prefix}.ResourceType"))
                .ok_or_else(|| missing(&format!("{prefix}.ResourceType")))?;
            if !RESOURCE_TYPES.contains(&name) {
                return Err(invalid(format!(
                    "Value ({name}) for parameter ResourceType is invalid."
                )));
            }
            let mut resource_type = ResourceType::new(name);
            let options = format!("{prefix}.ResourceTypeOption");
            for number in self.query.numbers(&options) {
                let option = self
                    .query
                    .get(&format!("{options}.{number}.OptionName"))
                    .ok_or_else(|| missing(&format!("{options}.{number}.OptionName")))?;
                if option != "version-depth" || name != "ec2:LaunchTemplate" {
                    return Err(invalid(format!(
                        "The option '{option}' is invalid for the resource type {name}."
                    )));
                }
                let values = self.query.list(&format!("{options}.{number}.OptionValue"));
                let is_depth = |value: &&str| {
                    value
                        .parse::<u32>()
                        .is_ok_and(|depth| (1..=10_000).contains(&depth))
                };
                if values.len() != 1 || !values.iter().all(is_depth) {
                    return Err(invalid(
                        "The option 'version-depth' takes one value from 1 to 10000.".to_owned(),
                    ));
                }
                resource_type.options.push(ResourceTypeOption {
                    name: Some(option.to_owned()),
                    values: values.into_iter().map(str::to_owned).collect(),
                });
            }
            resource_types.push(resource_type);
        }
        Ok(resource_types)
    }

    fn requested_tags(&self) -> Result<Vec<Tag>, ApiError> {
        let mut tags = Vec::new();
        for number in self.query.numbers("TagSpecification") {
            let prefix = format!("TagSpecification.{number}");
            match self.query.get(&format!("{prefix}.ResourceType")) {
                Some("image-usage-report") => {}
                Some(other) => {
                    return Err(invalid(format!(
                        "'{other}' is not a valid taggable resource type for this operation."
                    )));
                }
                None => return Err(missing(&format!("{prefix}.ResourceType"))),
            }
            for number in self.query.numbers(&format!("{prefix}.Tag")) {
                let member = |name: &str| self.query.get(&format!("{prefix}.Tag.{number}.{name}"));
                let key = member("Key").unwrap_or_default();
                let value = member("Value").unwrap_or_default();
                if key.is_empty()
                    || key.starts_with("aws:")
                    || key.chars().count() > 127
                    || value.chars().count() > 256
                {
                    return Err(invalid(format!(
                        "Tag ( {key} = {value} ) is not valid: keys have 1 to 127 characters and don't begin with aws:, values at most 256."
                    )));
                }
                tags.push(Tag::new(key, value));
            }
        }
        Ok(tags)
    }

    fn delete(&self, style: Style) -> Result<String, ApiError> {
        let report_id = self
            .query
            .get("ReportId")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| missing("ReportId"))?;
        self.check_dry_run()?;
        let now = self.world.now();
        let mut state = self.world.lock();
        let target = state.target(&self.caller.account, &self.caller.region);
        if !target.delete(report_id, now) {
            return Err(unknown_report(report_id));
        }
        let (mut xml, root) = self.document(style);
        xml.leaf("return", "true");
        Ok(xml.finish(&root))
    }

    fn describe_regions(&self, style: Style) -> Result<String, ApiError> {
        let filters = self.filters(&["endpoint", "opt-in-status", "region-name"])?;
        self.check_dry_run()?;
        let mut guard = self.world.lock();
        let state = &mut *guard;
        let all = self.query.is_true("AllRegions");
        let mut listed: Vec<(&str, &str)> = state
            .regions
            .keys()
            .map(String::as_str)
            .map(|name| {
                let opt_in_status = if !state.is_enabled(&self.caller.account, name) {
                    "not-opted-in"
                } else if CLASSIC_REGIONS.contains(&name) {
                    "opt-in-not-required"
                } else {
                    "opted-in"
                };
                (name, opt_in_status)
            })
            .filter(|(_, opt_in_status)| all || *opt_in_status != "not-opted-in")
            .collect();
        let names = self.query.list("RegionName");
        if let Some(unknown) = names
            .iter()
            .find(|name| !listed.iter().any(|(listed, _)| listed == *name))
        {
            return Err(invalid(format!("Invalid region name: {unknown}")));
        }
        listed.retain(|(name, opt_in_status)| {
            (names.is_empty() || names.contains(name))
                && filters.iter().all(|filter| {
                    let value = match filter.name.as_str() {
                        "endpoint" => &endpoint_of(name),
                        "opt-in-status" => *opt_in_status,
                        _ => name,
                    };
                    filter.admits(value)
                })
        });
        // EC2 gives Regions in no defined order: none must be relied on.
        let mut random = state.random.clone();
        random.shuffle(&mut listed);
        let (mut xml, root) = self.document(style);
        xml.open("regionInfo");
        for (name, opt_in_status) in listed {
            xml.open("item");
            xml.leaf("regionName", name);
            xml.leaf("regionEndpoint", &endpoint_of(name));
            xml.leaf("optInStatus", opt_in_status);
            if let Some(country) = country_of(name) {
                xml.open("geographySet");
                xml.open("item");
                xml.leaf("name", country);
                xml.close("item");
                xml.close("geographySet");
            }
            xml.close("item");
        }
        xml.close("regionInfo");
        state.random = random;
        Ok(xml.finish(&root))
    }
}

fn style_of(ruling: &Ruling) -> Style {
    match ruling.kind {
        Some(FaultKind::UnknownMembersAndEntities) => Style::Unusual,
        Some(FaultKind::CData) => Style::CData,
        _ => Style::Plain,
    }
}

fn invalid(message: String) -> ApiError {
    ApiError::new(400, "InvalidParameterValue", message)
}

fn missing(parameter: &str) -> ApiError {
    ApiError::new(
        400,
        "MissingParameter",
        format!("The request must contain the parameter {parameter}"),
    )
}

fn too_many_filters() -> ApiError {
    ApiError::new(
        400,
        "FilterLimitExceeded",
        "The request uses too many filters or too many filter values.",
    )
}

fn unknown_report(report_id: &str) -> ApiError {
    ApiError::new(
        400,
        "InvalidImageUsageReportId.NotFound",
        format!("The image usage report ID '{report_id}' does not exist"),
    )
}

fn endpoint_of(region: &str) -> String {
    format!("ec2.{region}.amazonaws.com")
}

fn country_of(region: &str) -> Option<&'static str> {
    let country = match region {
        "ap-east-1" => "Hong Kong",
        "ap-northeast-1" | "ap-northeast-3" => "Japan",
        "ap-northeast-2" => "South Korea",
        "ap-south-1" => "India",
        "ap-southeast-1" => "Singapore",
        "ap-southeast-2" => "Australia",
        "ca-central-1" => "Canada",
        "eu-central-1" => "Germany",
        "eu-north-1" => "Sweden",
        "eu-west-1" => "Ireland",
        "eu-west-2" => "United Kingdom",
        "eu-west-3" => "France",
        "sa-east-1" => "Brazil",
        "us-east-1" | "us-east-2" | "us-west-1" | "us-west-2" => "United States of America",
        _ => return None,
    };
    Some(country)
}

fn report_passes(report: &Report, filter: &Filter, now: OffsetDateTime) -> bool {
    match filter.name.as_str() {
        "creation-time" => report
            .creation_time
            .is_some_and(|time| filter.admits(&timestamp(time))),
        "state" => report
            .state_at(now)
            .0
            .is_some_and(|state| filter.admits(state)),
        "tag-key" => report
            .tags
            .iter()
            .any(|tag| tag.key.as_deref().is_some_and(|key| filter.admits(key))),
        name => {
            let wanted = name.strip_prefix("tag:").unwrap_or(name);
            report.tags.iter().any(|tag| {
                tag.key.as_deref() == Some(wanted)
                    && filter.admits(tag.value.as_deref().unwrap_or_default())
            })
        }
    }
}

fn entry_passes(report: &Report, entry: &Entry, filter: &Filter) -> bool {
    match filter.name.as_str() {
        "account-id" => entry
            .account_id
            .as_deref()
            .is_some_and(|id| filter.admits(id)),
        "creation-time" => report
            .creation_time
            .is_some_and(|time| filter.admits(&timestamp(time))),
        _ => entry
            .resource_type
            .as_deref()
            .is_some_and(|resource_type| filter.admits(resource_type)),
    }
}

fn write_report(xml: &mut Xml, report: &Report, now: OffsetDateTime) {
    let (state, state_reason) = report.state_at(now);
    xml.open("item");
    xml.optional("imageId", report.image_id.as_deref());
    xml.optional("reportId", report.report_id.as_deref());
    write_set(
        xml,
        "resourceTypeSet",
        &report.resource_types,
        |xml, resource_type| {
            xml.open("item");
            xml.optional("resourceType", resource_type.resource_type.as_deref());
            write_set(
                xml,
                "resourceTypeOptionSet",
                &resource_type.options,
                |xml, option| {
                    xml.open("item");
                    xml.optional("optionName", option.name.as_deref());
                    write_set(xml, "optionValueSet", &option.values, |xml, value| {
                        xml.leaf("item", value);
                    });
                    xml.close("item");
                },
            );
            xml.close("item");
        },
    );
    write_set(xml, "accountIdSet", &report.account_ids, |xml, id| {
        xml.leaf("item", id)
    });
    xml.optional("state", state);
    xml.optional("stateReason", state_reason);
    xml.optional(
        "creationTime",
        report.creation_time.map(timestamp).as_deref(),
    );
    xml.optional(
        "expirationTime",
        report.expiration_time.map(timestamp).as_deref(),
    );
    write_set(xml, "tagSet", &report.tags, |xml, tag| {
        xml.open("item");
        xml.optional("key", tag.key.as_deref());
        xml.optional("value", tag.value.as_deref());
        xml.close("item");
    });
    xml.close("item");
}

fn write_entry(xml: &mut Xml, row: &Row<'_>) {
    let report = row.report;
    xml.open("item");
    if let Some(entry) = row.entry {
        xml.optional("resourceType", entry.resource_type.as_deref());
        xml.optional("reportId", report.report_id.as_deref());
        let count = entry.usage_count.map(|count| count.to_string());
        xml.optional("usageCount", count.as_deref());
        xml.optional("accountId", entry.account_id.as_deref());
        xml.optional("imageId", report.image_id.as_deref());
        let created = report.creation_time.map(timestamp);
        xml.optional("reportCreationTime", created.as_deref());
    }
    xml.close("item");
}

/// Writes a list; an empty one is left out, as a member that EC2 doesn't send.
fn write_set<T>(xml: &mut Xml, name: &str, members: &[T], write: impl Fn(&mut Xml, &T)) {
    if members.is_empty() {
        return;
    }
    xml.open(name);
    for member in members {
        write(xml, member);
    }
    xml.close(name);
}

impl Filter {
    fn admits(&self, value: &str) -> bool {
        self.values
            .iter()
            .any(|pattern| matches_pattern(pattern, value))
    }
}

impl Reply {
    fn ruled(mut answer: Answer, ruling: Ruling, page: Option<u32>) -> Self {
        if ruling.kind == Some(FaultKind::MalformedXml) {
            answer.malform();
        }
        let delivery = ruling.kind.as_ref().and_then(Delivery::of);
        Self {
            answer,
            delivery: delivery.unwrap_or(Delivery::Whole),
            latency: ruling.latency,
            fault: ruling.kind,
            page,
        }
    }
}
