//! Organizations: `ListAccounts`, in JSON 1.1.

use crate::answer::{Answer, Reply};
use crate::api_error::ApiError;
use crate::caller::Caller;
use crate::faults::{FaultKind, Faults, PagePosition, Service, Subject};
use crate::random::hash_of;
use crate::tokens::{Cursor, PageToken};
use crate::world::AccountStates;
use crate::world::World;
use http::StatusCode;
use serde_json::{Value, json};

/// The operation as `X-Amz-Target` names it.
pub(crate) const LIST_ACCOUNTS_TARGET: &str = "AWSOrganizationsV20161128.ListAccounts";

/// One request to Organizations, and what is needed to answer it.
pub(crate) struct Organizations<'a> {
    pub(crate) world: &'a World,
    pub(crate) faults: &'a Faults,
    pub(crate) caller: &'a Caller,
    pub(crate) target: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) request_id: &'a str,
}

struct AccountPage {
    accounts: Vec<Value>,
    start: u64,
    next: Option<u64>,
    number: u32,
}

impl Organizations<'_> {
    pub(crate) fn reply(&self, operation: &str) -> Reply {
        let request: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let given = request.get("NextToken").and_then(Value::as_str);
        let page = match self.target {
            _ if self.caller.has_expired => {
                Err(ApiError::expired_credentials(Service::Organizations))
            }
            LIST_ACCOUNTS_TARGET => self.select(&request, given),
            _ => Err(ApiError::new(
                400,
                "UnknownOperationException",
                "The operation is not known.",
            )),
        };
        let position = page.as_ref().ok().map(|page| PagePosition {
            number: page.number,
            is_last: page.next.is_none(),
            has_token: given.is_some(),
        });
        let ruling = self.faults.rule_on(Subject {
            service: Service::Organizations,
            operation,
            account: &self.caller.account,
            region: &self.caller.region,
            key: None,
            report_ids: &[],
            image_ids: &[],
            has: &|_| false,
            page: position,
        });
        let fault = ruling.kind.as_ref().and_then(|kind| {
            ApiError::of_fault(kind, Service::Organizations, operation, &self.caller.arn)
        });
        let answer = match (fault, page) {
            (Some(error), _) | (None, Err(error)) => {
                error.answer(Service::Organizations, self.request_id)
            }
            (None, Ok(page)) => {
                let body = self.write_page(page, given, ruling.kind.as_ref());
                Answer::json(StatusCode::OK, self.request_id, &body)
            }
        };
        Reply::ruled(answer, ruling, position.map(|position| position.number))
    }

    fn fingerprint(&self) -> u64 {
        hash_of([LIST_ACCOUNTS_TARGET, self.caller.account.as_str()])
    }

    fn select(&self, request: &Value, given: Option<&str>) -> Result<AccountPage, ApiError> {
        let now = self.world.now();
        let state = self.world.lock();
        if state.organization.is_empty() {
            return Err(ApiError::new(
                400,
                "AWSOrganizationsNotInUseException",
                "Your account is not a member of an organization.",
            ));
        }
        let management = &self.caller.account;
        if state.accounts.first() != Some(management) {
            return Err(ApiError::new(
                400,
                "AccessDeniedException",
                "You don't have permissions to access this resource.",
            ));
        }
        let page_size = page_size(request, state.organization_page_size)?;
        let token = match given {
            None => PageToken::first(),
            Some(text) => PageToken::read(text, self.fingerprint(), now)
                .ok_or_else(|| invalid_input("You provided an invalid NextToken."))?,
        };
        let start = token.cursor.sequence;
        let accounts: Vec<Value> = state
            .organization
            .iter()
            .skip(start as usize)
            .take(page_size)
            .map(|(id, status)| account_json(management, id, status, state.organization_states))
            .collect();
        let end = start + accounts.len() as u64;
        Ok(AccountPage {
            accounts,
            start,
            next: (end < state.organization.len() as u64).then_some(end),
            number: token.number,
        })
    }

    fn write_page(
        &self,
        mut page: AccountPage,
        given: Option<&str>,
        fault: Option<&FaultKind>,
    ) -> Value {
        match fault {
            Some(FaultKind::EmptyPage) => {
                page.accounts.clear();
                page.next = Some(page.start);
            }
            Some(FaultKind::DuplicateReport) => {
                page.accounts.extend(page.accounts.last().cloned());
            }
            Some(FaultKind::BareReport) => page.accounts.push(json!({})),
            _ => {}
        }
        let mut body = json!({"Accounts": page.accounts});
        let token = page.next.map(|sequence| {
            let expires_at = self.world.now() + self.world.lock().page_token_lifetime;
            PageToken {
                cursor: Cursor { sequence, entry: 0 },
                number: page.number + 1,
                expires_at,
            }
            .write(self.fingerprint())
        });
        let token = match fault {
            Some(FaultKind::RepeatToken) => given.map(str::to_owned),
            Some(FaultKind::TokenCycle { length }) => {
                Some(PageToken::in_cycle(page.number, *length).write(self.fingerprint()))
            }
            Some(FaultKind::EmptyToken) => token.or(Some(String::new())),
            _ => token,
        };
        if let Some(token) = token {
            body["NextToken"] = Value::String(token);
        }
        body
    }
}

fn page_size(request: &Value, largest: usize) -> Result<usize, ApiError> {
    match request.get("MaxResults") {
        None | Some(Value::Null) => Ok(largest),
        Some(value) => value
            .as_u64()
            .filter(|size| (1..=20).contains(size))
            .map(|size| largest.min(size as usize))
            .ok_or_else(|| {
                invalid_input("You provided a value for MaxResults that is not from 1 to 20.")
            }),
    }
}

fn account_json(management: &str, id: &str, status: &str, states: AccountStates) -> Value {
    let mut account = json!({
        "Id": id,
        "Arn": format!("arn:aws:organizations::{management}:account/o-localaws00/{id}"),
        "Email": format!("account-{id}@example.com"),
        "Name": format!("Account {id}"),
        "Status": status,
        "State": status,
        "JoinedMethod": if id == management { "INVITED" } else { "CREATED" },
        "JoinedTimestamp": 1_700_000_000.123,
    });
    let left_out: &[&str] = match states {
        AccountStates::StateAndStatus => &[],
        AccountStates::State => &["Status"],
        AccountStates::Status => &["State"],
        AccountStates::Neither => &["State", "Status"],
    };
    if let Some(fields) = account.as_object_mut() {
        fields.retain(|name, _| !left_out.contains(&name.as_str()));
    }
    account
}

fn invalid_input(message: &str) -> ApiError {
    ApiError::new(400, "InvalidInputException", message)
}
