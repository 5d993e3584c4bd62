//! Functions that scripts start and invoke.

use crate::caller::UNSIGNED_REGION;
use crate::query::Query;
use crate::runtime_api::RuntimeApi;
use crate::world::World;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Lambda's longest timeout, and the default of the control requests.
const MAX_TIMEOUT: Duration = Duration::from_secs(900);

/// The Runtime APIs by the names of their functions.
#[derive(Debug, Default)]
pub(crate) struct Functions(Mutex<BTreeMap<String, Arc<RuntimeApi>>>);

impl Functions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<RuntimeApi>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the Runtime API of a function; one of the same name is replaced.
    pub(crate) fn start(&self, world: &World, name: &str) -> io::Result<Arc<RuntimeApi>> {
        let account = world.accounts().first().cloned().unwrap_or_default();
        let arn = format!("arn:aws:lambda:{UNSIGNED_REGION}:{account}:function:{name}");
        let api = Arc::new(RuntimeApi::start(&arn)?);
        self.lock().insert(name.to_owned(), Arc::clone(&api));
        Ok(api)
    }

    /// Stops every Runtime API.
    pub(crate) fn stop(&self) {
        let stopped = std::mem::take(&mut *self.lock());
        drop(stopped);
    }

    /// Answers a control request; `path` is the part after `functions/`.
    pub(crate) async fn respond(
        &self,
        world: &World,
        method: &Method,
        path: &str,
        query: &Query,
        body: Bytes,
    ) -> Result<Value, String> {
        let (name, action) = path.split_once('/').unwrap_or((path, ""));
        match (method, action) {
            (&Method::PUT, "") => {
                let api = self.start(world, name).map_err(|error| error.to_string())?;
                Ok(function_json(&api))
            }
            (&Method::DELETE, "") => {
                drop(self.lock().remove(name));
                Ok(json!({}))
            }
            (&Method::GET, "ready") => {
                let ready = self.get(name)?.ready_async(timeout_of(query)?).await;
                Ok(match ready {
                    Ok(since) => json!({"waiting_since_unix_seconds": unix_seconds(since)}),
                    Err(outcome) => outcome.json(),
                })
            }
            (&Method::POST, "invocations") => {
                let api = self.get(name)?;
                Ok(api.invoke_async(body, timeout_of(query)?).await.json())
            }
            _ => Err(format!("unknown request: {method} functions/{path}")),
        }
    }

    fn get(&self, name: &str) -> Result<Arc<RuntimeApi>, String> {
        let api = self.lock().get(name).cloned();
        api.ok_or_else(|| format!("there is no function `{name}`"))
    }
}

/// Returns what a function's process and its caller need to know.
pub(crate) fn function_json(api: &RuntimeApi) -> Value {
    json!({
        "runtime_api": api.address().to_string(),
        "function_arn": api.function_arn(),
    })
}

fn timeout_of(query: &Query) -> Result<Duration, String> {
    let Some(text) = query.get("timeout_seconds") else {
        return Ok(MAX_TIMEOUT);
    };
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| *timeout <= MAX_TIMEOUT)
        .ok_or_else(|| format!("timeout_seconds is `{text}`: give a number from 0 to 900"))
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
