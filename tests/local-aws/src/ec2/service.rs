//! Answers a request to EC2.

use super::creation::{self, CREATION_PARAMETERS};
use super::errors::unknown_report;
use super::listing::Rows;
use super::pages;
use super::regions::{self, REGIONS_PARAMETERS};
use super::request::{Ec2Request, style_of};
use crate::answer::{Answer, Reply};
use crate::api_error::ApiError;
use crate::faults::{FaultKind, Service};
use crate::xml::Style;
use http::StatusCode;

const DELETION_PARAMETERS: [&str; 4] = ["Action", "DryRun", "ReportId", "Version"];

pub(crate) fn reply(request: &Ec2Request<'_>) -> Reply {
    let caller = request.caller;
    if caller.has_expired {
        return refuse(request, &ApiError::expired_credentials(Service::Ec2));
    }
    if !request
        .world
        .lock()
        .is_enabled(&caller.account, &caller.region)
    {
        return refuse(request, &ApiError::auth_failure());
    }
    match request.operation() {
        "DescribeImageUsageReports" => pages::reply(request, Rows::Reports),
        "DescribeImageUsageReportEntries" => pages::reply(request, Rows::Entries),
        "DescribeImages" => pages::reply(request, Rows::Images),
        "DescribeImageReferences" => pages::reply(request, Rows::References),
        "CreateImageUsageReport" => act(request, &CREATION_PARAMETERS, creation::create),
        "DeleteImageUsageReport" => act(request, &DELETION_PARAMETERS, delete),
        "DescribeRegions" => act(request, &REGIONS_PARAMETERS, regions::describe),
        "" => refuse(
            request,
            &ApiError::new(
                400,
                "MissingAction",
                "The request is missing an action or a required parameter",
            ),
        ),
        unknown => refuse(
            request,
            &ApiError::new(
                400,
                "InvalidAction",
                format!("The action {unknown} is not valid for this web service."),
            ),
        ),
    }
}

fn refuse(request: &Ec2Request<'_>, error: &ApiError) -> Reply {
    Reply::whole(error.answer(Service::Ec2, request.request_id))
}

/// Answers an operation without pages.
fn act(
    request: &Ec2Request<'_>,
    known: &[&str],
    perform: impl Fn(&Ec2Request<'_>, Style) -> Result<String, ApiError>,
) -> Reply {
    let ruling = request.rule(None);
    let mut error = request.error_of(&ruling);
    let is_lost = matches!(ruling.kind, Some(FaultKind::CloseBeforeAnswer));
    let takes_effect = (error.is_none() && !is_lost) || ruling.after_effect;
    let mut document = None;
    if takes_effect {
        let performed = request
            .check_parameters(known)
            .and_then(|()| perform(request, style_of(&ruling)));
        match performed {
            Ok(text) => document = Some(text),
            Err(true_error) => error = error.or(Some(true_error)),
        }
    }
    let answer = match (error, document) {
        (Some(error), _) => error.answer(Service::Ec2, request.request_id),
        (None, document) => Answer::xml(
            StatusCode::OK,
            request.request_id,
            // Without a document the response is never sent.
            document.unwrap_or_default(),
        ),
    };
    Reply::ruled(answer, ruling, None)
}

fn delete(request: &Ec2Request<'_>, style: Style) -> Result<String, ApiError> {
    let report_id = request.required("ReportId")?;
    request.check_dry_run()?;
    let now = request.world.now();
    let mut state = request.world.lock();
    let target = state.target(&request.caller.account, &request.caller.region);
    if !target.delete(report_id, now) {
        return Err(unknown_report(report_id));
    }
    let (mut xml, root) = request.document(style);
    xml.leaf("return", "true");
    Ok(xml.finish(&root))
}
