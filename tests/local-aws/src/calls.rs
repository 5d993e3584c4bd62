//! The log of requests.

use crate::faults::{FaultKind, Service};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The log keeps the last N calls: as many as a listing of a billion reports in pages of 1,000.
const MAX_CALLS: usize = 1_000_000;

/// One request to the local AWS.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The service of the request.
    pub service: Service,
    /// The operation, for example `DescribeImageUsageReports` or `PutObject`.
    pub operation: String,
    /// The account of the caller.
    pub account: String,
    /// The Region of the request.
    pub region: String,
    /// The bucket, for S3.
    pub bucket: Option<String>,
    /// The key, for S3.
    pub key: Option<String>,
    /// The parameters as sent: of the form, the JSON body, or the query and a few headers of S3.
    pub parameters: BTreeMap<String, String>,
    /// The number of the page of a listing, counted from 0.
    pub page: Option<u32>,
    /// The HTTP status of the response; `None` if the connection was closed without one.
    pub status: Option<u16>,
    /// The fault that changed the response; latencies are not listed.
    pub fault: Option<FaultKind>,
    /// How many requests to the same service were in progress when this one arrived, itself included.
    pub concurrent_calls: usize,
}

/// The log of calls; clones share the same one.
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
