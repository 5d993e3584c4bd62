//! The log of requests.

use crate::faults::{FaultKind, Service};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The log keeps the last so many calls; a listing of a billion reports in pages of 1,000.
const MAX_CALLS: usize = 1_000_000;

/// One request that the local AWS answered, or was to leave without an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The service asked.
    pub service: Service,
    /// The operation asked for, for example `DescribeImageUsageReports` or `PutObject`.
    pub operation: String,
    /// The account that asked.
    pub account: String,
    /// The Region asked.
    pub region: String,
    /// The bucket, for S3.
    pub bucket: Option<String>,
    /// The key, for S3.
    pub key: Option<String>,
    /// The parameters as sent: of the form, the JSON body, or the query and a few headers of S3.
    pub parameters: BTreeMap<String, String>,
    /// The number of the page of a listing, counted from 0.
    pub page: Option<u32>,
    /// The HTTP status of the answer; `None` if the connection was closed without one.
    pub status: Option<u16>,
    /// The fault that met the request; latencies are not listed.
    pub fault: Option<FaultKind>,
    /// How many requests to the same service were in progress when this one came, itself included.
    pub concurrent_calls: usize,
}

/// The calls so far; clones share the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<VecDeque<Call>>>);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, call: Call) {
        let mut calls = self.lock();
        if calls.len() == MAX_CALLS {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    pub(crate) fn list(&self) -> Vec<Call> {
        self.lock().iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}
