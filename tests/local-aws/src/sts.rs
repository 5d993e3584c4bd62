//! STS: `GetCallerIdentity` and `AssumeRole`.

use crate::answer::{Answer, ApiError, Delivery, STS_NAMESPACE};
use crate::clock::timestamp;
use crate::faults::{FaultKind, Faults, Service, Subject};
use crate::query::Query;
use crate::server::{Caller, Reply};
use crate::world::{Session, World};
use crate::xml::{Style, Xml};
use http::StatusCode;
use time::Duration;

/// What `DurationSeconds` may be, and is when it isn't given.
const SESSION_SECONDS: std::ops::RangeInclusive<i64> = 900..=43_200;
const DEFAULT_SESSION_SECONDS: i64 = 3600;

/// One request to STS, and what is needed to answer it.
pub(crate) struct Sts<'a> {
    pub(crate) world: &'a World,
    pub(crate) faults: &'a Faults,
    pub(crate) caller: &'a Caller,
    pub(crate) query: &'a Query,
    pub(crate) request_id: &'a str,
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
        let mut answer = match result {
            Ok(text) => Answer::xml(StatusCode::OK, self.request_id, text),
            Err(error) => error.answer(Service::Sts, self.request_id),
        };
        if ruling.kind == Some(FaultKind::MalformedXml) {
            answer.malform();
        }
        Reply {
            answer,
            delivery: ruling
                .kind
                .as_ref()
                .and_then(Delivery::of)
                .unwrap_or(Delivery::Whole),
            latency: ruling.latency,
            fault: ruling.kind,
            page: None,
        }
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
        let required = |name: &str| {
            self.query
                .get(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    validation_error(format!(
                        "1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must not be null"
                    ))
                })
        };
        let role_arn = required("RoleArn")?;
        let name = required("RoleSessionName")?;
        let is_legal = |letter: char| letter.is_ascii_alphanumeric() || "_+=,.@-".contains(letter);
        if !(2..=64).contains(&name.len()) || !name.chars().all(is_legal) {
            return Err(validation_error(format!(
                "1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
            )));
        }
        let seconds = match self.query.get("DurationSeconds") {
            None => DEFAULT_SESSION_SECONDS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| SESSION_SECONDS.contains(seconds))
                .ok_or_else(|| {
                    validation_error(format!(
                        "1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200"
                    ))
                })?,
        };
        let (account, role_name) = role_arn
            .strip_prefix("arn:aws:iam::")
            .and_then(|rest| rest.split_once(":role/"))
            .ok_or_else(|| validation_error(format!("{role_arn} is invalid")))?;

        let now = self.world.now();
        let mut state = self.world.lock();
        let role = state
            .roles
            .get(&(account.to_owned(), role_name.to_owned()))
            .filter(|role| !role.deny && state.accounts.iter().any(|known| known == account))
            .filter(|role| {
                role.external_id.is_none()
                    || role.external_id.as_deref() == self.query.get("ExternalId")
            });
        let Some(role) = role else {
            // The same for a role that isn't there: who may not know must not learn it.
            return Err(ApiError::new(
                403,
                "AccessDenied",
                format!(
                    "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
                    self.caller.arn
                ),
            ));
        };
        let lifetime = role.lifetime.unwrap_or(Duration::seconds(seconds));
        let expires_at = now + lifetime;
        let access_key = format!("ASIA{}", state.random.hex(16).to_uppercase());
        let secret_key = state.random.hex(40);
        let session_token = format!("local-aws-session-{}", state.random.hex(64));
        let role_id = format!("AROA{}", state.random.hex(17).to_uppercase());
        state.sessions.insert(
            access_key.clone(),
            Session {
                account: account.to_owned(),
                role: role_name.to_owned(),
                name: name.to_owned(),
                expires_at,
            },
        );
        Ok(self.document(|xml| {
            xml.open("Credentials");
            xml.leaf("AccessKeyId", &access_key);
            xml.leaf("SecretAccessKey", &secret_key);
            xml.leaf("SessionToken", &session_token);
            xml.leaf("Expiration", &timestamp(expires_at));
            xml.close("Credentials");
            xml.open("AssumedRoleUser");
            xml.leaf("AssumedRoleId", &format!("{role_id}:{name}"));
            xml.leaf(
                "Arn",
                &format!("arn:aws:sts::{account}:assumed-role/{role_name}/{name}"),
            );
            xml.close("AssumedRoleUser");
        }))
    }
}

fn validation_error(message: String) -> ApiError {
    ApiError::new(400, "ValidationError", message)
}
