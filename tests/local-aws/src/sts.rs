//! STS: `GetCallerIdentity` and `AssumeRole`.

use crate::answer::{Answer, Reply};
use crate::api_error::ApiError;
use crate::caller::Caller;
use crate::clock::timestamp;
use crate::faults::{Faults, Service, Subject};
use crate::query::Query;
use crate::world::{Session, World};
use crate::xml::{STS_NAMESPACE, Style, Xml};
use http::StatusCode;
use time::Duration;

/// The allowed values of `DurationSeconds`.
const SESSION_SECONDS: std::ops::RangeInclusive<i64> = 900..=43_200;
/// `DurationSeconds` if the request has none.
const DEFAULT_SESSION_SECONDS: i64 = 3600;

/// One request to STS, and what is needed to answer it.
pub(crate) struct Sts<'a> {
    pub(crate) world: &'a World,
    pub(crate) faults: &'a Faults,
    pub(crate) caller: &'a Caller,
    pub(crate) query: &'a Query,
    pub(crate) request_id: &'a str,
}

/// The checked parameters of `AssumeRole`.
struct RoleRequest<'a> {
    role_arn: &'a str,
    account: &'a str,
    role: &'a str,
    session: &'a str,
    external_id: Option<&'a str>,
    duration: Duration,
}

/// Temporary credentials, as `AssumeRole` returns them.
struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: String,
    role_id: String,
}

impl Sts<'_> {
    pub(crate) fn reply(&self) -> Reply {
        let operation = self.query.get("Action").unwrap_or_default();
        let ruling = self.faults.rule_on(Subject {
            service: Service::Sts,
            operation,
            account: &self.caller.account,
            region: &self.caller.region,
            key: None,
            report_ids: &[],
            image_ids: &[],
            has: &|_| false,
            page: None,
        });
        let fault = ruling
            .kind
            .as_ref()
            .and_then(|kind| ApiError::of_fault(kind, Service::Sts, operation, &self.caller.arn));
        let result = match fault {
            _ if self.caller.has_expired => Err(ApiError::expired_credentials(Service::Sts)),
            Some(error) => Err(error),
            None => match operation {
                "GetCallerIdentity" => Ok(self.identity()),
                "AssumeRole" => self.assume_role(),
                unknown => Err(ApiError::new(
                    400,
                    "InvalidAction",
                    format!("Could not find operation {unknown} for version 2011-06-15"),
                )),
            },
        };
        let answer = match result {
            Ok(text) => Answer::xml(StatusCode::OK, self.request_id, text),
            Err(error) => error.answer(Service::Sts, self.request_id),
        };
        Reply::ruled(answer, ruling, None)
    }

    fn document(&self, write: impl Fn(&mut Xml)) -> String {
        let operation = self.query.get("Action").unwrap_or_default();
        let root = format!("{operation}Response");
        let result = format!("{operation}Result");
        let mut xml = Xml::document(&root, Some(STS_NAMESPACE), Style::Plain);
        xml.open(&result);
        write(&mut xml);
        xml.close(&result);
        xml.open("ResponseMetadata");
        xml.leaf("RequestId", self.request_id);
        xml.close("ResponseMetadata");
        xml.finish(&root)
    }

    fn identity(&self) -> String {
        self.document(|xml| {
            xml.leaf("Arn", &self.caller.arn);
            xml.leaf("UserId", &self.caller.user_id);
            xml.leaf("Account", &self.caller.account);
        })
    }

    fn assume_role(&self) -> Result<String, ApiError> {
        let request = RoleRequest::parse(self.query)?;
        let (session, credentials) = self.open_session(&request)?;
        Ok(self.document(|xml| {
            xml.open("Credentials");
            xml.leaf("AccessKeyId", &credentials.access_key);
            xml.leaf("SecretAccessKey", &credentials.secret_key);
            xml.leaf("SessionToken", &credentials.session_token);
            xml.leaf("Expiration", &timestamp(session.expires_at));
            xml.close("Credentials");
            xml.open("AssumedRoleUser");
            let id = format!("{}:{}", credentials.role_id, session.name);
            xml.leaf("AssumedRoleId", &id);
            xml.leaf("Arn", &session.assumed_role_arn());
            xml.close("AssumedRoleUser");
        }))
    }

    /// Creates credentials for a role, if it exists and may be assumed.
    fn open_session(&self, request: &RoleRequest<'_>) -> Result<(Session, Credentials), ApiError> {
        let now = self.world.now();
        let mut state = self.world.lock();
        let role = state
            .roles
            .get(&(request.account.to_owned(), request.role.to_owned()))
            .filter(|role| !role.deny)
            .filter(|_| state.accounts.iter().any(|known| known == request.account))
            .filter(|role| {
                role.external_id.is_none() || role.external_id.as_deref() == request.external_id
            });
        let Some(role) = role else {
            // The same for a missing role: a caller without permission must not learn that.
            return Err(ApiError::new(
                403,
                "AccessDenied",
                format!(
                    "User: {} is not authorized to perform: sts:AssumeRole on resource: {}",
                    self.caller.arn, request.role_arn
                ),
            ));
        };
        let session = Session {
            account: request.account.to_owned(),
            role: request.role.to_owned(),
            name: request.session.to_owned(),
            expires_at: now + role.lifetime.unwrap_or(request.duration),
        };
        let random = &mut state.random;
        let credentials = Credentials {
            access_key: format!("ASIA{}", random.hex(16).to_uppercase()),
            secret_key: random.hex(40),
            session_token: format!("local-aws-session-{}", random.hex(64)),
            role_id: format!("AROA{}", random.hex(17).to_uppercase()),
        };
        state
            .sessions
            .insert(credentials.access_key.clone(), session.clone());
        Ok((session, credentials))
    }
}

impl<'a> RoleRequest<'a> {
    fn parse(query: &'a Query) -> Result<Self, ApiError> {
        let role_arn = required(query, "RoleArn")?;
        let session = required(query, "RoleSessionName")?;
        check_session_name(session)?;
        let duration = duration(query)?;
        let (account, role) = role_arn
            .strip_prefix("arn:aws:iam::")
            .and_then(|rest| rest.split_once(":role/"))
            .ok_or_else(|| validation_error(format!("{role_arn} is invalid")))?;
        Ok(Self {
            role_arn,
            account,
            role,
            session,
            external_id: query.get("ExternalId"),
            duration,
        })
    }
}

fn required<'a>(query: &'a Query, name: &str) -> Result<&'a str, ApiError> {
    query
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| {
            validation_error(format!(
                "1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must not be null"
            ))
        })
}

fn check_session_name(name: &str) -> Result<(), ApiError> {
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || "_+=,.@-".contains(letter);
    if (2..=64).contains(&name.len()) && name.chars().all(is_legal) {
        return Ok(());
    }
    Err(validation_error(format!(
        "1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
    )))
}

fn duration(query: &Query) -> Result<Duration, ApiError> {
    let Some(text) = query.get("DurationSeconds") else {
        return Ok(Duration::seconds(DEFAULT_SESSION_SECONDS));
    };
    text.parse()
        .ok()
        .filter(|seconds| SESSION_SECONDS.contains(seconds))
        .map(Duration::seconds)
        .ok_or_else(|| {
            validation_error(format!(
                "1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200"
            ))
        })
}

fn validation_error(message: String) -> ApiError {
    ApiError::new(400, "ValidationError", message)
}
