//! `CreateImageUsageReport`.

use super::errors::{check_image_id, invalid, missing};
use super::request::Ec2Request;
use super::resource_types::{OptionRule, Supported, resource_types};
use crate::api_error::ApiError;
use crate::random::{Random, hash_of};
use crate::usage::Awaiting;
use crate::world::{
    CreationOutcome, Entry, REPORT_LIFETIME, Report, ResourceType, State, Tag, Target, Transition,
};
use crate::xml::Style;
use time::OffsetDateTime;

/// How many reports of an account may be pending in one Region, by EC2's quotas.
const MAX_PENDING_REPORTS: usize = 2000;

const RESOURCE_TYPES: [Supported; 4] = [
    ("ec2:Instance", None),
    ("ec2:LaunchTemplate", Some(OptionRule::VersionDepth)),
    ("imagebuilder:ImageRecipe", None),
    ("imagebuilder:ContainerRecipe", None),
];

pub(super) const CREATION_PARAMETERS: [&str; 12] = [
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

/// The checked parameters of a creation.
struct Creation<'a> {
    image_id: &'a str,
    resource_types: Vec<ResourceType>,
    account_ids: Vec<&'a str>,
    tags: Vec<Tag>,
    client_token: Option<&'a str>,
}

/// Starts a report. A client token that was used before returns its report again.
pub(super) fn create(request: &Ec2Request<'_>, style: Style) -> Result<String, ApiError> {
    let creation = Creation::parse(request)?;
    request.check_dry_run()?;
    let now = request.world.now();
    let mut guard = request.world.lock();
    let state = &mut *guard;
    let key = (
        request.caller.account.clone(),
        request.caller.region.clone(),
    );
    state.settle_entries(now);
    check_image(state, request, creation.image_id)?;
    let has_known_users = state.knows_usage(&request.caller.region, creation.image_id);
    let target = state.targets.entry(key).or_default();
    let fingerprint = fingerprint(request);
    if let Some(report_id) = creation.earlier_report(target, fingerprint)? {
        return Ok(document(request, &report_id, style));
    }
    check_quotas(target, creation.image_id, now)?;
    let report_id = format!("amiur-{}", state.random.hex(17));
    let mut outcome = state.creation;
    if state.failing_images.contains(creation.image_id) {
        outcome.error_probability = 1.0;
    }
    let mut report = creation.report(&report_id, outcome, &mut state.random, now);
    if has_known_users {
        report.entries.clear();
    }
    let sequence = target.put(report, now);
    if has_known_users {
        state.awaiting_entries.push(Awaiting {
            account: request.caller.account.clone(),
            region: request.caller.region.clone(),
            sequence,
            ends_at: now + outcome.delay,
        });
    }
    if let Some(token) = creation.client_token {
        target
            .client_tokens
            .insert(token.to_owned(), (fingerprint, report_id.clone()));
    }
    Ok(document(request, &report_id, style))
}

fn document(request: &Ec2Request<'_>, report_id: &str, style: Style) -> String {
    let (mut xml, root) = request.document(style);
    xml.leaf("reportId", report_id);
    xml.finish(&root)
}

/// Hashes every parameter of a request, which a client token is bound to.
fn fingerprint(request: &Ec2Request<'_>) -> u64 {
    let parameters = request.query.parameters().iter();
    hash_of(parameters.flat_map(|(name, value)| [name.as_str(), value.as_str()]))
}

/// Fails if the AMI is of another account, deregistered or disabled. One that the world does not hold is accepted.
///
/// EC2 documents none of these refusals.
fn check_image(
    state: &mut State,
    request: &Ec2Request<'_>,
    image_id: &str,
) -> Result<(), ApiError> {
    let Some(stored) = state.images(&request.caller.region).get(image_id) else {
        return Ok(());
    };
    let (code, message) = if stored.owner != request.caller.account || !stored.image.is_registered()
    {
        ("InvalidAMIID.NotFound", "does not exist")
    } else if stored.image.state.as_deref() == Some("disabled") {
        ("InvalidAMIID.Unavailable", "is disabled")
    } else {
        return Ok(());
    };
    let message = format!("The image id '[{image_id}]' {message}");
    Err(ApiError::new(400, code, message))
}

/// Fails if the account has too many pending reports, or one of this image.
fn check_quotas(target: &Target, image_id: &str, now: OffsetDateTime) -> Result<(), ApiError> {
    let pending: Vec<&Report> = target
        .live(0, now)
        .map(|stored| &stored.report)
        .filter(|report| report.state_at(now).0 == Some("pending"))
        .collect();
    let is_of_image = |report: &&Report| report.image_id.as_deref() == Some(image_id);
    let message = if pending.iter().any(is_of_image) {
        format!("The image {image_id} already has a pending image usage report.")
    } else if pending.len() >= MAX_PENDING_REPORTS {
        format!(
            "You have {} pending image usage reports in this Region.",
            pending.len()
        )
    } else {
        return Ok(());
    };
    Err(ApiError::new(400, "ImageUsageReportLimitExceeded", message))
}

impl<'a> Creation<'a> {
    fn parse(request: &'a Ec2Request<'_>) -> Result<Self, ApiError> {
        let image_id = request.required("ImageId")?;
        check_image_id(image_id)?;
        let resource_types = resource_types(request, &RESOURCE_TYPES)?;
        if resource_types.is_empty() {
            return Err(missing("ResourceType"));
        }
        Ok(Self {
            image_id,
            resource_types,
            account_ids: account_ids(request)?,
            tags: tags(request)?,
            client_token: client_token(request)?,
        })
    }

    /// Returns the report that the client token has created before, if any.
    fn earlier_report(
        &self,
        target: &Target,
        fingerprint: u64,
    ) -> Result<Option<String>, ApiError> {
        let known = self
            .client_token
            .and_then(|token| target.client_tokens.get(token));
        match known {
            None => Ok(None),
            Some((known, report_id)) if *known == fingerprint => Ok(Some(report_id.clone())),
            Some(_) => Err(ApiError::new(
                400,
                "IdempotentParameterMismatch",
                "The client token was used before, with different parameters.",
            )),
        }
    }

    /// Creates the pending report, which ends as the world's settings say.
    fn report(
        &self,
        report_id: &str,
        outcome: CreationOutcome,
        random: &mut Random,
        now: OffsetDateTime,
    ) -> Report {
        let fails = random.chance(outcome.error_probability);
        let entries = match fails {
            true => Vec::new(),
            false => self.entries(random),
        };
        Report {
            image_id: Some(self.image_id.to_owned()),
            report_id: Some(report_id.to_owned()),
            resource_types: self.resource_types.clone(),
            account_ids: self.account_ids.iter().map(ToString::to_string).collect(),
            state: Some("pending".to_owned()),
            state_reason: None,
            creation_time: Some(now),
            expiration_time: Some(now + REPORT_LIFETIME),
            tags: self.tags.clone(),
            entries,
            transition: Some(Transition {
                at: now + outcome.delay,
                state: if fails { "error" } else { "available" }.to_owned(),
                state_reason: fails.then(|| "The report could not be created.".to_owned()),
            }),
            deleted_at: None,
        }
    }

    fn entries(&self, random: &mut Random) -> Vec<Entry> {
        let mut entries = Vec::new();
        for resource_type in &self.resource_types {
            for _ in 0..random.between(1, 3) {
                entries.push(Entry {
                    resource_type: resource_type.resource_type.clone(),
                    account_id: Some(match self.account_ids.is_empty() {
                        true => random.account_id(),
                        false => (*random.pick(&self.account_ids)).to_owned(),
                    }),
                    usage_count: Some(random.between(1, 500)),
                });
            }
        }
        entries
    }
}

fn account_ids<'a>(request: &'a Ec2Request<'_>) -> Result<Vec<&'a str>, ApiError> {
    let ids = request.ids("AccountId")?;
    let is_account_id = |id: &&str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
    match ids.iter().find(|id| !is_account_id(id)) {
        Some(id) => Err(invalid(format!(
            "Value ({id}) for parameter AccountId is invalid. Expecting a 12-digit account ID."
        ))),
        None => Ok(ids),
    }
}

fn client_token<'a>(request: &'a Ec2Request<'_>) -> Result<Option<&'a str>, ApiError> {
    let token = request.query.get("ClientToken");
    let token = token.filter(|token| !token.is_empty());
    if token.is_some_and(|token| token.chars().count() > 128) {
        return Err(invalid(
            "Value for parameter ClientToken is longer than 128.".to_owned(),
        ));
    }
    Ok(token)
}

fn tags(request: &Ec2Request<'_>) -> Result<Vec<Tag>, ApiError> {
    let mut tags = Vec::new();
    for number in request.query.numbers("TagSpecification") {
        let prefix = format!("TagSpecification.{number}");
        let resource_type = request.present(&format!("{prefix}.ResourceType"))?;
        if resource_type != "image-usage-report" {
            return Err(invalid(format!(
                "'{resource_type}' is not a valid taggable resource type for this operation."
            )));
        }
        for number in request.query.numbers(&format!("{prefix}.Tag")) {
            tags.push(tag(request, &format!("{prefix}.Tag.{number}"))?);
        }
    }
    Ok(tags)
}

fn tag(request: &Ec2Request<'_>, prefix: &str) -> Result<Tag, ApiError> {
    let field = |name: &str| request.query.get(&format!("{prefix}.{name}"));
    let key = field("Key").unwrap_or_default();
    let value = field("Value").unwrap_or_default();
    if key.is_empty()
        || key.starts_with("aws:")
        || key.chars().count() > 127
        || value.chars().count() > 256
    {
        return Err(invalid(format!(
            "Tag ( {key} = {value} ) is not valid: keys have 1 to 127 characters and don't begin with aws:, values at most 256."
        )));
    }
    Ok(Tag::new(key, value))
}
