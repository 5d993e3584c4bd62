//! Parses the text form of faults.

use super::fault::{Fault, FaultKind, Page, Service, When};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// A text that does not describe a fault.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidFault(String);

impl fmt::Display for InvalidFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for InvalidFault {}

impl FromStr for Fault {
    type Err = InvalidFault;

    /// Parses a text such as `kind=denied,op=DescribeImageUsageReports,region=eu-west-1,p=0.5`.
    ///
    /// Only `kind` is required. The other fields: `service` (`ec2`, `sts`, `organizations`,
    /// `s3`), `op`, `account`, `region`, `key` (a part of an S3 key), `report` and `image`
    /// (IDs that the request names); one of `nth`, `first` (numbers), `page` (`first`, `middle`,
    /// `last` or a number from 0) and `p` (with `seed`); `after` (`true`: only after the effect);
    /// for `kind=error` `status`, `code` and `message`; for `kind=latency` `ms`; for
    /// `kind=token-cycle` `length`. The other kinds: `denied`, `auth-failure`, `throttle`,
    /// `token-bucket`, `500`, `503`, `conflict`, `precondition`, `close`, `reset`, `cut`,
    /// `malformed`, `unknown-members`, `cdata`, `slow`, `repeat-token`, `expire-token`,
    /// `empty-page`, `empty-token`, `duplicate-report`, `bare-report`, `region-disabled`,
    /// `expire-credentials`.
    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let mut fields = Fields::parse(text)?;
        let mut fault = Self::new(kind(&mut fields)?);
        fault.service = fields.take("service").map(service).transpose()?;
        fault.operation = fields.take("op").map(str::to_owned);
        fault.account = fields.take("account").map(str::to_owned);
        fault.region = fields.take("region").map(str::to_owned);
        fault.key_contains = fields.take("key").map(str::to_owned);
        fault.report_id = fields.take("report").map(str::to_owned);
        fault.image_id = fields.take("image").map(str::to_owned);
        fault.after_effect = match fields.take("after") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(fields.invalid("after", other, "neither true nor false"));
            }
        };
        fault.when = when(&mut fields)?;
        fields.end()?;
        Ok(fault)
    }
}

/// The fields of a text that are not read yet.
struct Fields<'a> {
    text: &'a str,
    values: HashMap<&'a str, &'a str>,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, InvalidFault> {
        let mut values = HashMap::new();
        for field in text.split(',').filter(|field| !field.trim().is_empty()) {
            let (name, value) = field.split_once('=').ok_or_else(|| {
                InvalidFault(format!("`{field}` in the fault `{text}` is not name=value"))
            })?;
            values.insert(name.trim(), value.trim());
        }
        Ok(Self { text, values })
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        self.values.remove(name)
    }

    fn number(&self, name: &str, value: &str) -> Result<u64, InvalidFault> {
        value
            .parse()
            .map_err(|_| self.invalid(name, value, "not a number"))
    }

    fn invalid(&self, name: &str, value: &str, what: &str) -> InvalidFault {
        InvalidFault(format!(
            "{name}={value} in the fault `{}` is {what}",
            self.text
        ))
    }

    /// Fails if a field is left.
    fn end(&self) -> Result<(), InvalidFault> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(InvalidFault(format!(
                "unknown field `{name}` in the fault `{}`",
                self.text
            ))),
        }
    }
}

fn kind(fields: &mut Fields<'_>) -> Result<FaultKind, InvalidFault> {
    let name = fields
        .take("kind")
        .ok_or_else(|| InvalidFault(format!("the fault `{}` names no kind", fields.text)))?;
    if let Some(kind) = plain_kind(name) {
        return Ok(kind);
    }
    match name {
        "latency" => {
            let value = fields.take("ms").unwrap_or("100");
            let milliseconds = fields.number("ms", value)?;
            Ok(FaultKind::Latency { milliseconds })
        }
        "token-cycle" => {
            let value = fields.take("length").unwrap_or("2");
            let length = fields.number("length", value)?;
            match u32::try_from(length) {
                Ok(length) if length >= 1 => Ok(FaultKind::TokenCycle { length }),
                _ => Err(fields.invalid("length", value, "not a number of tokens")),
            }
        }
        "error" => error(fields),
        unknown => Err(InvalidFault(format!("unknown kind of fault `{unknown}`"))),
    }
}

/// Returns the kinds without fields of their own.
fn plain_kind(name: &str) -> Option<FaultKind> {
    Some(match name {
        "denied" => FaultKind::Denied,
        "auth-failure" => FaultKind::AuthFailure,
        "throttle" => FaultKind::Throttle,
        "token-bucket" => FaultKind::TokenBucket,
        "500" => FaultKind::Status500,
        "503" => FaultKind::Status503,
        "conflict" => FaultKind::conditional_request_conflict(),
        "precondition" => FaultKind::precondition_failed(),
        "close" => FaultKind::CloseBeforeAnswer,
        "reset" => FaultKind::ResetMidBody,
        "cut" => FaultKind::CutBody,
        "malformed" => FaultKind::MalformedXml,
        "unknown-members" => FaultKind::UnknownMembersAndEntities,
        "cdata" => FaultKind::CData,
        "slow" => FaultKind::SlowBody,
        "repeat-token" => FaultKind::RepeatToken,
        "expire-token" => FaultKind::ExpireToken,
        "empty-page" => FaultKind::EmptyPage,
        "empty-token" => FaultKind::EmptyToken,
        "duplicate-report" => FaultKind::DuplicateReport,
        "bare-report" => FaultKind::BareReport,
        "region-disabled" => FaultKind::RegionDisabled,
        "expire-credentials" => FaultKind::ExpireCredentials,
        _ => return None,
    })
}

fn error(fields: &mut Fields<'_>) -> Result<FaultKind, InvalidFault> {
    let value = fields.take("status").unwrap_or("400");
    let status = fields.number("status", value)?;
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (400..600).contains(status))
        .ok_or_else(|| fields.invalid("status", value, "not the status of an error"))?;
    Ok(FaultKind::Error {
        status,
        code: fields.take("code").unwrap_or("LocalFault").to_owned(),
        message: fields
            .take("message")
            .unwrap_or("A fault was requested.")
            .to_owned(),
    })
}

fn service(name: &str) -> Result<Service, InvalidFault> {
    Service::ALL
        .into_iter()
        .find(|service| service.name() == name)
        .ok_or_else(|| InvalidFault(format!("unknown service `{name}`")))
}

fn when(fields: &mut Fields<'_>) -> Result<When, InvalidFault> {
    let mut when = When::Always;
    if let Some(value) = fields.take("nth") {
        when = When::Nth(fields.number("nth", value)?);
    }
    if let Some(value) = fields.take("first") {
        when = When::FirstN(fields.number("first", value)?);
    }
    if let Some(value) = fields.take("page") {
        when = When::Page(match value {
            "first" => Page::First,
            "middle" => Page::Middle,
            "last" => Page::Last,
            value => Page::Number(fields.number("page", value)?.try_into().unwrap_or(u32::MAX)),
        });
    }
    if let Some(value) = fields.take("p") {
        let p = value
            .parse::<f64>()
            .ok()
            .filter(|p| (0.0..=1.0).contains(p))
            .ok_or_else(|| fields.invalid("p", value, "not from 0 to 1"))?;
        let seed = fields.take("seed").unwrap_or("1");
        let seed = fields.number("seed", seed)?;
        when = When::Probability { p, seed };
    }
    Ok(when)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_fault_is_parsed() {
        let text = "kind=500,service=ec2,op=DescribeImageUsageReports,account=111122223333,\
                    region=eu-west-1,report=amiur-1,image=ami-1,after=true,p=0.5,seed=7";
        let expected = Fault::new(FaultKind::Status500)
            .in_service(Service::Ec2)
            .on("DescribeImageUsageReports")
            .in_account("111122223333")
            .in_region("eu-west-1")
            .asking_for("amiur-1")
            .asking_about("ami-1")
            .after_effect()
            .when(When::Probability { p: 0.5, seed: 7 });
        assert_eq!(text.parse(), Ok(expected));
        let cycle = Fault::new(FaultKind::TokenCycle { length: 3 }).when(When::FirstN(9));
        assert_eq!("kind=token-cycle,length=3,first=9".parse(), Ok(cycle));
    }

    #[test]
    fn a_misspelt_fault_is_refused_with_its_name() {
        for (text, message) in [
            ("kind=slwo", "unknown kind of fault `slwo`"),
            ("op=PutObject", "the fault `op=PutObject` names no kind"),
            (
                "kind=slow,regoin=x",
                "unknown field `regoin` in the fault `kind=slow,regoin=x`",
            ),
            (
                "kind=500,p=2",
                "p=2 in the fault `kind=500,p=2` is not from 0 to 1",
            ),
            (
                "kind=token-cycle,length=0",
                "length=0 in the fault `kind=token-cycle,length=0` is not a number of tokens",
            ),
        ] {
            assert_eq!(text.parse::<Fault>().unwrap_err().to_string(), message);
        }
    }
}
