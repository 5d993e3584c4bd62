//! One request to EC2, and its parameters.

use super::errors::{invalid, missing, too_many_filters};
use crate::api_error::ApiError;
use crate::caller::Caller;
use crate::faults::{FaultKind, Faults, PagePosition, Ruling, Service, Subject};
use crate::filters::Filter;
use crate::query::Query;
use crate::world::World;
use crate::xml::{EC2_NAMESPACE, Style, Xml};

/// The maximum number of IDs of one kind in one call, by the service model.
const MAX_IDS: usize = 200;
/// The maximum number of filters of one call, by EC2's guide on filters.
const MAX_FILTERS: usize = 50;
/// The maximum number of values of one filter, by EC2's guide on filters.
const MAX_FILTER_VALUES: usize = 200;

/// One request to EC2, and what is needed to answer it.
pub(crate) struct Ec2Request<'a> {
    pub(crate) world: &'a World,
    pub(crate) faults: &'a Faults,
    pub(crate) caller: &'a Caller,
    pub(crate) query: &'a Query,
    pub(crate) request_id: &'a str,
}

impl Ec2Request<'_> {
    pub(super) fn operation(&self) -> &str {
        self.query.get("Action").unwrap_or_default()
    }

    /// Decides which fault the request meets.
    pub(super) fn rule(&self, page: Option<PagePosition>) -> Ruling {
        let mut image_ids = self.query.list("ImageId");
        // A creation names one AMI, without a number.
        image_ids.extend(self.query.get("ImageId"));
        self.faults.rule_on(Subject {
            service: Service::Ec2,
            operation: self.operation(),
            account: &self.caller.account,
            region: &self.caller.region,
            key: None,
            report_ids: &self.query.list("ReportId"),
            image_ids: &image_ids,
            has: &|name| self.query.get(name).is_some(),
            page,
        })
    }

    /// Returns the error that the ruling demands, if any.
    pub(super) fn error_of(&self, ruling: &Ruling) -> Option<ApiError> {
        let kind = ruling.kind.as_ref()?;
        ApiError::of_fault(kind, Service::Ec2, self.operation(), &self.caller.arn)
    }

    /// Begins the document of a successful response. Returns it and the name of its root.
    pub(super) fn document(&self, style: Style) -> (Xml, String) {
        let root = format!("{}Response", self.query.get("Action").unwrap_or("Unknown"));
        let mut xml = Xml::document(&root, Some(EC2_NAMESPACE), style);
        xml.leaf("requestId", self.request_id);
        (xml, root)
    }

    /// Fails if the request has a parameter that is not in `known`, or another version.
    pub(super) fn check_parameters(&self, known: &[&str]) -> Result<(), ApiError> {
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

    /// Fails if the request is a dry run: EC2 reports permission as an error.
    pub(super) fn check_dry_run(&self) -> Result<(), ApiError> {
        if self.query.is_true("DryRun") {
            return Err(ApiError::new(
                412,
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
            ));
        }
        Ok(())
    }

    /// Returns a parameter that must be present and not empty.
    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.query
            .get(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| missing(name))
    }

    /// Returns a list of IDs, in the order of their numbers.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<&str>, ApiError> {
        let ids = self.query.list(name);
        if ids.len() > MAX_IDS {
            return Err(invalid(format!(
                "The maximum number of {name} values is {MAX_IDS}, but the request has {}.",
                ids.len()
            )));
        }
        Ok(ids)
    }

    /// Returns the filters of the request. With `tag-key` in `known`, `tag:…` is a filter too.
    pub(super) fn filters(&self, known: &[&str]) -> Result<Vec<Filter>, ApiError> {
        let numbers = self.query.numbers("Filter");
        if numbers.len() > MAX_FILTERS {
            return Err(too_many_filters());
        }
        let mut filters = Vec::new();
        for number in numbers {
            let name = self.present(&format!("Filter.{number}.Name"))?;
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

    /// Returns a parameter that must be present; it may be empty.
    pub(super) fn present(&self, name: &str) -> Result<&str, ApiError> {
        self.query.get(name).ok_or_else(|| missing(name))
    }
}

/// Returns the style in which a ruling has documents written.
pub(super) fn style_of(ruling: &Ruling) -> Style {
    match ruling.kind {
        Some(FaultKind::UnknownMembersAndEntities) => Style::Unusual,
        Some(FaultKind::CData) => Style::CData,
        _ => Style::Plain,
    }
}
