//! The one endpoint of all services.

use crate::answer::{Answer, ApiError, Delivery};
use crate::calls::{Call, Calls};
use crate::ec2::Ec2;
use crate::faults::{Fault, FaultKind, Faults, Service, Subject};
use crate::introspection;
use crate::organizations::Organizations;
use crate::query::Query;
use crate::random::{Random, hash_of};
use crate::s3::{Asked, Store};
use crate::sts::Sts;
use crate::wire::{Connection, WireBody};
use crate::world::World;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Builder as RuntimeBuilder;
use tokio::sync::oneshot;

/// The largest request body; bodies are held in memory.
const MAX_BODY_BYTES: usize = 512 * 1024 * 1024;
/// How long requests under way may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// The Region of requests without a signature.
const UNSIGNED_REGION: &str = "us-east-1";

type AnyError = Box<dyn Error + Send + Sync>;

/// A local AWS that listens until it is dropped.
#[derive(Debug)]
pub struct LocalAws {
    address: SocketAddr,
    archive_root: PathBuf,
    world: World,
    faults: Faults,
    calls: Calls,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    last_look: LastLook,
    // Declared last: the folder goes after the server.
    _temporary_root: Option<TempDir>,
}

type Look = Box<dyn FnOnce(&Path) + Send + Sync>;

/// What is to be done with the folder of S3 once nothing changes it any more.
#[derive(Default)]
struct LastLook(Option<Look>);

impl fmt::Debug for LastLook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LastLook({})", self.0.is_some())
    }
}

/// Makes a [`LocalAws`].
#[derive(Debug)]
pub struct LocalAwsBuilder {
    world: World,
    port: u16,
    s3_root: Option<PathBuf>,
}

impl LocalAws {
    /// Starts a local AWS on a free port of 127.0.0.1, with S3 in a folder of its own.
    ///
    /// # Errors
    /// When the port can't be listened on, or the folder can't be made.
    pub async fn start(world: World) -> io::Result<Self> {
        Self::builder(world).start().await
    }

    /// Starts a local AWS on a port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port can't be listened on, or the folder can't be made.
    pub async fn start_on(world: World, port: u16) -> io::Result<Self> {
        Self::builder(world).port(port).start().await
    }

    /// Starts to describe a local AWS.
    pub fn builder(world: World) -> LocalAwsBuilder {
        LocalAwsBuilder {
            world,
            port: 0,
            s3_root: None,
        }
    }

    /// Gives the URL of the endpoint, without a slash at its end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Gives the folder of S3; its sub-folders are the buckets.
    pub fn archive_root(&self) -> &Path {
        &self.archive_root
    }

    /// Gives the world that it answers from.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Makes a bucket; one that exists stays as it is.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.archive_root.join(name))
    }

    /// Gives the faults, to add to them or to clear them.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Switches EC2's token buckets on, for every account and Region.
    pub fn enable_token_buckets(&self) {
        self.faults
            .add(Fault::new(FaultKind::TokenBucket).in_service(Service::Ec2));
    }

    /// Gives the log of all requests, in the order of their answers.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.list()
    }

    /// Empties the log of requests.
    pub fn clear_calls(&self) {
        self.calls.clear();
    }

    /// Looks at the folder of S3 when the server has stopped and the folder is still there; not while
    /// a test fails already. A second look takes the place of the first.
    pub fn look_in_the_end(&mut self, look: impl FnOnce(&Path) + Send + Sync + 'static) {
        self.last_look = LastLook(Some(Box::new(look)));
    }
}

impl LocalAwsBuilder {
    /// Sets the port; a free one if never set, or 0.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the folder of S3, which is made if it isn't there and stays in the end.
    ///
    /// A temporary one if never set.
    pub fn s3_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.s3_root = Some(root.into());
        self
    }

    /// Starts it, on a thread of its own.
    ///
    /// # Errors
    /// When the port can't be listened on, or the folder can't be made.
    pub async fn start(self) -> io::Result<LocalAws> {
        let (root, temporary_root) = match self.s3_root {
            Some(root) => (root, None),
            None => {
                let folder = tempfile::Builder::new().prefix("local-aws-").tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        std::fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            world: self.world.clone(),
            faults: Faults::default(),
            calls: Calls::default(),
            store: Store::open(&root)?,
            requests: AtomicU64::new(0),
            in_progress: Default::default(),
        });
        let (faults, calls) = (shared.faults.clone(), shared.calls.clone());
        let (stop, stopped) = oneshot::channel();
        let runtime = RuntimeBuilder::new_multi_thread()
            .worker_threads(2)
            .thread_name("local-aws")
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("local-aws".to_owned())
            .spawn(move || {
                runtime.spawn(accept(listener, shared));
                // An error means that the handle is gone: the same wish.
                drop(runtime.block_on(stopped));
                runtime.shutdown_timeout(STOP_TIMEOUT);
            })?;
        Ok(LocalAws {
            address,
            archive_root: root,
            world: self.world,
            faults,
            calls,
            stop: Some(stop),
            thread: Some(thread),
            last_look: LastLook::default(),
            _temporary_root: temporary_root,
        })
    }
}

impl Drop for LocalAws {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            drop(thread.join());
        }
        if let Some(look) = self.last_look.0.take()
            && !std::thread::panicking()
        {
            look(&self.archive_root);
        }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    store: Store,
    requests: AtomicU64,
    in_progress: [AtomicUsize; 4],
}

/// Who asks, and where, as the credential scope of the request's signature says.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) service: Service,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) arn: String,
    pub(crate) user_id: String,
    pub(crate) has_expired: bool,
}

/// An answer, and what is done to it on its way.
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) delivery: Delivery,
    pub(crate) latency: Duration,
    pub(crate) fault: Option<FaultKind>,
    pub(crate) page: Option<u32>,
}

impl Reply {
    pub(crate) fn whole(answer: Answer) -> Self {
        Self {
            answer,
            delivery: Delivery::Whole,
            latency: Duration::ZERO,
            fault: None,
            page: None,
        }
    }
}

impl Caller {
    /// Reads `Credential=AKID/20261122/eu-west-1/ec2/aws4_request` of the `Authorization` header.
    fn of(headers: &HeaderMap, world: &World) -> Self {
        let authorization = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let scope = authorization
            .split_once("Credential=")
            .and_then(|(_, rest)| rest.split([',', ' ']).next())
            .unwrap_or_default();
        let mut parts = scope.split('/');
        let access_key = parts.next().unwrap_or_default();
        let region = parts.nth(1).unwrap_or(UNSIGNED_REGION);
        let service = match parts.next() {
            Some("ec2") => Service::Ec2,
            Some("sts") => Service::Sts,
            Some("organizations") => Service::Organizations,
            _ => Service::S3,
        };
        let now = world.now();
        let state = world.lock();
        let account = state.account_of(access_key).unwrap_or_default().to_owned();
        let session = state.sessions.get(access_key);
        let (arn, user_id) = match session {
            Some(session) => (
                format!(
                    "arn:aws:sts::{account}:assumed-role/{}/{}",
                    session.role, session.name
                ),
                format!("AROALOCALAWS:{}", session.name),
            ),
            None => (
                format!("arn:aws:iam::{account}:user/local"),
                "AIDALOCALAWS".to_owned(),
            ),
        };
        Self {
            service,
            region: region.to_owned(),
            arn,
            user_id,
            has_expired: session.is_some_and(|session| session.expires_at <= now),
            account,
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For example too many open files: there may be some again soon.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it small answers wait for the client's delayed acknowledgement.
        drop(stream.set_nodelay(true));
        let reset = Arc::new(AtomicBool::new(false));
        let connection = Connection::new(stream, Arc::clone(&reset));
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service =
                service_fn(move |request| serve(Arc::clone(&shared), request, Arc::clone(&reset)));
            // The connection's own errors are the client's to see.
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service)
                    .await,
            );
        });
    }
}

async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    reset: Arc<AtomicBool>,
) -> Result<Response<WireBody>, AnyError> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await?
        .to_bytes();
    if parts.uri.path().starts_with(introspection::PREFIX) {
        let answer = introspection::answer(&shared, &parts, &body);
        return respond(answer, Delivery::Whole, reset);
    }
    let caller = Caller::of(&parts.headers, &shared.world);
    let progress = Progress::begin(&shared, caller.service);
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
    let mut reply = match caller.service {
        Service::S3 => s3_reply(&shared, &caller, parts, body, &request_id, &mut call).await?,
        Service::Ec2 | Service::Sts => {
            let query = Query::parse(&body);
            call.operation = query.get("Action").unwrap_or_default().to_owned();
            call.parameters = query.parameters().clone();
            match caller.service {
                Service::Ec2 => Ec2 {
                    world: &shared.world,
                    faults: &shared.faults,
                    caller: &caller,
                    query: &query,
                    request_id: &request_id,
                }
                .reply(),
                _ => Sts {
                    world: &shared.world,
                    faults: &shared.faults,
                    caller: &caller,
                    query: &query,
                    request_id: &request_id,
                }
                .reply(),
            }
        }
        Service::Organizations => {
            let target = parts
                .headers
                .get("x-amz-target")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let operation = target.rsplit('.').next().unwrap_or_default();
            call.operation = operation.to_owned();
            call.parameters = json_parameters(&body);
            Organizations {
                world: &shared.world,
                faults: &shared.faults,
                caller: &caller,
                target,
                body: &body,
                request_id: &request_id,
            }
            .reply(operation)
        }
    };
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
        Delivery::Nothing => return Err("a fault was asked for".into()),
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

async fn s3_reply(
    shared: &Arc<Shared>,
    caller: &Caller,
    parts: http::request::Parts,
    body: Bytes,
    request_id: &str,
    call: &mut Call,
) -> Result<Reply, AnyError> {
    let asked = Asked::of(&parts.method, &parts.uri, &parts.headers);
    call.operation = asked.operation.to_owned();
    call.bucket.clone_from(&asked.bucket);
    call.key.clone_from(&asked.key);
    call.parameters = s3_parameters(&parts);
    let ruling = shared.faults.rule_on(Subject {
        service: Service::S3,
        operation: asked.operation,
        account: &caller.account,
        region: &caller.region,
        key: asked.key.as_deref(),
        report_ids: &[],
        page: None,
    });
    let fault = match &ruling.kind {
        _ if caller.has_expired => Some(ApiError::expired_credentials(Service::S3)),
        Some(kind) => ApiError::of_fault(kind, Service::S3, asked.operation, &caller.arn),
        None => None,
    };
    let is_lost = ruling.kind == Some(FaultKind::CloseBeforeAnswer);
    let takes_effect =
        (fault.is_none() && !is_lost) || (ruling.after_effect && !caller.has_expired);
    let mut answer = None;
    if takes_effect {
        // A request that has come in takes effect, also when its client is gone meanwhile.
        let (shared, request_id) = (Arc::clone(shared), request_id.to_owned());
        let effect =
            tokio::spawn(async move { shared.store.answer(parts, body, &request_id).await });
        answer = Some(effect.await??);
    }
    let mut answer = match (fault, answer) {
        (Some(error), _) => error.answer(Service::S3, request_id),
        (None, Some(answer)) => answer,
        // Never sent.
        (None, None) => Answer::xml(http::StatusCode::OK, request_id, String::new()),
    };
    if ruling.kind == Some(FaultKind::MalformedXml) {
        answer.malform();
    }
    Ok(Reply {
        answer,
        delivery: ruling
            .kind
            .as_ref()
            .and_then(Delivery::of)
            .unwrap_or(Delivery::Whole),
        latency: ruling.latency,
        fault: ruling.kind,
        page: None,
    })
}

fn s3_parameters(parts: &http::request::Parts) -> BTreeMap<String, String> {
    let query = Query::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let mut parameters = query.parameters().clone();
    for name in [
        "content-encoding",
        "content-length",
        "content-type",
        "if-match",
        "if-none-match",
        "range",
    ] {
        if let Some(value) = parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
        {
            parameters.insert(name.to_owned(), value.to_owned());
        }
    }
    parameters
}

fn json_parameters(body: &[u8]) -> BTreeMap<String, String> {
    match serde_json::from_slice(body) {
        Ok(serde_json::Value::Object(members)) => members
            .into_iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(text) => (name, text),
                value => (name, value.to_string()),
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

impl Shared {
    /// Makes a request ID in the shape of a UUID.
    fn next_request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let start = std::ptr::from_ref(self).addr();
        let mut random = Random::new(hash_of([format!("{start}/{number}").as_str()]));
        let digits = random.hex(32);
        format!(
            "{}-{}-4{}-a{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[13..16],
            &digits[17..20],
            &digits[20..]
        )
    }
}

/// Counts a request as one in progress for as long as it lives.
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
