//! Serves the requests of one connection: finds the service, lets it answer, and logs the call.

use crate::answer::{Answer, Delivery, Reply};
use crate::caller::Caller;
use crate::calls::{Call, Calls};
use crate::control::{self, Control};
use crate::ec2::{self, Ec2Request};
use crate::faults::{Faults, Service};
use crate::functions::Functions;
use crate::organizations::Organizations;
use crate::query::Query;
use crate::random::{Random, hash_of};
use crate::s3::{self, Requested, S3Call, Store};
use crate::sts::Sts;
use crate::wire::{Connection, WireBody};
use crate::world::World;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::net::TcpStream;

/// The largest request body; bodies are held in memory.
const MAX_BODY_BYTES: usize = 512 * 1024 * 1024;

type AnyError = Box<dyn Error + Send + Sync>;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    pub(crate) functions: Functions,
    store: Arc<Store>,
    requests: AtomicU64,
    in_progress: [AtomicUsize; Service::ALL.len()],
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// One request to a service.
struct ServiceCall<'a> {
    shared: &'a Shared,
    caller: &'a Caller,
    request_id: &'a str,
}

impl Shared {
    pub(crate) fn new(world: World, store: Store) -> Self {
        Self {
            world,
            faults: Faults::default(),
            calls: Calls::default(),
            functions: Functions::default(),
            store: Arc::new(store),
            requests: AtomicU64::new(0),
            in_progress: Default::default(),
        }
    }

    fn next_request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let start = std::ptr::from_ref(self).addr();
        Random::new(hash_of([format!("{start}/{number}").as_str()])).uuid()
    }
}

/// Serves one connection.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let reset = Arc::new(AtomicBool::new(false));
    let connection = Connection::new(stream, Arc::clone(&reset));
    let service = service_fn(|request| answer(&shared, request, Arc::clone(&reset)));
    // The client sees the errors of its own connection.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(connection), service)
            .await,
    );
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    reset: Arc<AtomicBool>,
) -> Result<Response<WireBody>, AnyError> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await?
        .to_bytes();
    if parts.uri.path().starts_with(control::PREFIX) {
        let control = Control {
            world: &shared.world,
            faults: &shared.faults,
            calls: &shared.calls,
            functions: &shared.functions,
        };
        let answer = control.answer(&parts, body).await;
        return respond(answer, Delivery::Whole, reset);
    }
    let caller = Caller::of(&parts.headers, &shared.world);
    let progress = Progress::begin(shared, caller.service);
    let request_id = shared.next_request_id();
    let mut call = Call {
        service: caller.service,
        operation: String::new(),
        account: caller.account.clone(),
        region: caller.region.clone(),
        bucket: None,
        key: None,
        parameters: BTreeMap::new(),
        page: None,
        status: None,
        fault: None,
        concurrent_calls: progress.concurrent_calls,
    };
    let service_call = ServiceCall {
        shared,
        caller: &caller,
        request_id: &request_id,
    };
    let mut reply = service_call.reply(parts, body, &mut call).await?;
    reply.answer.identify("x-amzn-requestid", &request_id);
    if caller.service == Service::S3 {
        reply.answer.identify("x-amz-request-id", &request_id);
    }
    if !reply.latency.is_zero() {
        tokio::time::sleep(reply.latency).await;
    }
    call.page = reply.page;
    call.status = (reply.delivery != Delivery::Nothing).then(|| reply.answer.status.as_u16());
    call.fault = reply.fault;
    shared.calls.add(call);
    drop(progress);
    respond(reply.answer, reply.delivery, reset)
}

impl ServiceCall<'_> {
    /// Lets the service answer, and records in `call` what was requested.
    async fn reply(&self, parts: Parts, body: Bytes, call: &mut Call) -> Result<Reply, AnyError> {
        match self.caller.service {
            Service::S3 => self.s3_reply(parts, body, call).await,
            Service::Ec2 | Service::Sts => Ok(self.query_reply(&body, call)),
            Service::Organizations => Ok(self.organizations_reply(&parts, &body, call)),
        }
    }

    async fn s3_reply(
        &self,
        parts: Parts,
        body: Bytes,
        call: &mut Call,
    ) -> Result<Reply, AnyError> {
        let requested = Requested::of(&parts.method, &parts.uri, &parts.headers);
        call.operation = requested.operation.to_owned();
        call.bucket.clone_from(&requested.bucket);
        call.key.clone_from(&requested.key);
        call.parameters = s3::parameters(&parts);
        let s3_call = S3Call {
            store: &self.shared.store,
            faults: &self.shared.faults,
            caller: self.caller,
            requested: &requested,
            request_id: self.request_id,
        };
        s3_call.reply(parts, body).await
    }

    fn query_reply(&self, body: &[u8], call: &mut Call) -> Reply {
        let query = Query::parse(body);
        call.operation = query.get("Action").unwrap_or_default().to_owned();
        call.parameters = query.parameters().clone();
        let (world, faults) = (&self.shared.world, &self.shared.faults);
        let (caller, request_id) = (self.caller, self.request_id);
        match caller.service {
            Service::Ec2 => ec2::reply(&Ec2Request {
                world,
                faults,
                caller,
                query: &query,
                request_id,
            }),
            _ => Sts {
                world,
                faults,
                caller,
                query: &query,
                request_id,
            }
            .reply(),
        }
    }

    fn organizations_reply(&self, parts: &Parts, body: &[u8], call: &mut Call) -> Reply {
        let target = parts
            .headers
            .get("x-amz-target")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        call.operation = operation.to_owned();
        call.parameters = json_parameters(body);
        Organizations {
            world: &self.shared.world,
            faults: &self.shared.faults,
            caller: self.caller,
            target,
            body,
            request_id: self.request_id,
        }
        .reply(operation)
    }
}

fn respond(
    answer: Answer,
    delivery: Delivery,
    reset: Arc<AtomicBool>,
) -> Result<Response<WireBody>, AnyError> {
    let length = answer.body.len();
    let mut response = Response::new(WireBody::new(answer.body, delivery, reset));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    match delivery {
        Delivery::Whole => {}
        // hyper closes the connection on an error of its service.
        Delivery::Nothing => return Err("a fault was requested".into()),
        Delivery::NeverEnding => {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        Delivery::ResetHalfway | Delivery::CutHalfway => {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length.max(1)));
        }
    }
    Ok(response)
}

fn json_parameters(body: &[u8]) -> BTreeMap<String, String> {
    match serde_json::from_slice(body) {
        Ok(serde_json::Value::Object(fields)) => fields
            .into_iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(text) => (name, text),
                value => (name, value.to_string()),
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// Counts a request as in progress while it exists.
struct Progress<'a> {
    count: &'a AtomicUsize,
    concurrent_calls: usize,
}

impl<'a> Progress<'a> {
    fn begin(shared: &'a Shared, service: Service) -> Self {
        let count = &shared.in_progress[service as usize];
        Self {
            count,
            concurrent_calls: count.fetch_add(1, Ordering::SeqCst) + 1,
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}
