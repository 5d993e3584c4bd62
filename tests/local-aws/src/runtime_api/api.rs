//! The Runtime API of one function, for its caller.

use super::function::Function;
use super::outcome::Outcome;
use super::protocol;
use crate::listener::Listener;
use bytes::Bytes;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

/// Lambda's Runtime API for one function, on a port of its own, until it is dropped.
///
/// ```no_run
/// # fn example() -> std::io::Result<()> {
/// use local_aws::RuntimeApi;
/// use std::process::Command;
/// use std::time::Duration;
///
/// let api = RuntimeApi::start("arn:aws:lambda:us-east-1:111122223333:function:auditor")?;
/// let mut function = Command::new("target/debug/image-usage-auditor")
///     .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
///     .spawn()?;
/// println!("{}", api.invoke("{}", Duration::from_secs(60)).json());
/// function.kill()
/// # }
/// ```
#[derive(Debug)]
pub struct RuntimeApi {
    listener: Listener,
    function: Arc<Function>,
}

impl RuntimeApi {
    /// Starts the Runtime API of a function with this ARN, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Fails if no port can be listened on.
    pub fn start(function_arn: &str) -> io::Result<Self> {
        let function = Arc::new(Function::new(function_arn.to_owned()));
        let served = Arc::clone(&function);
        let listener = Listener::start(0, move |stream| {
            protocol::serve(Arc::clone(&served), stream)
        })?;
        Ok(Self { listener, function })
    }

    /// Returns the value of `AWS_LAMBDA_RUNTIME_API` for the function's process.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Returns the function's ARN.
    pub fn function_arn(&self) -> &str {
        self.function.arn()
    }

    /// Invokes the function and waits for the outcome.
    ///
    /// The timeout applies to each of two waits: until the function asks for an invocation, and
    /// then for its answer. It also sets the function's deadline.
    pub fn invoke(&self, event: &str, timeout: Duration) -> Outcome {
        let (function, event) = (Arc::clone(&self.function), Bytes::from(event.to_owned()));
        self.block_on(async move { invoke(&function, event, timeout).await })
    }

    /// Hands an event to the function, without waiting for the outcome, which is then lost.
    ///
    /// # Errors
    /// Fails if the function does not take the event; the error is the outcome that says why.
    pub fn hand_over(&self, event: &str, timeout: Duration) -> Result<(), Outcome> {
        let (function, event) = (Arc::clone(&self.function), Bytes::from(event.to_owned()));
        self.block_on(async move { function.hand_over(event, timeout).await })?;
        Ok(())
    }

    /// Waits until the function asks for an invocation. Returns since when it has been waiting.
    ///
    /// # Errors
    /// Fails if the function does not ask in time, cannot start, or has exited.
    pub fn ready(&self, timeout: Duration) -> Result<SystemTime, Outcome> {
        let function = Arc::clone(&self.function);
        self.block_on(async move { function.ready(timeout).await })
    }

    /// Invokes the function, like [`RuntimeApi::invoke`], from an asynchronous caller.
    pub(crate) async fn invoke_async(&self, event: Bytes, timeout: Duration) -> Outcome {
        invoke(&self.function, event, timeout).await
    }

    /// Waits for the function, like [`RuntimeApi::ready`], from an asynchronous caller.
    pub(crate) async fn ready_async(&self, timeout: Duration) -> Result<SystemTime, Outcome> {
        self.function.ready(timeout).await
    }

    /// Runs a future on the listener's runtime, so that callers on any thread may block on it.
    fn block_on<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.listener.runtime().spawn(async move {
            // An error means that the caller is gone.
            drop(sender.send(future.await));
        });
        #[expect(
            clippy::expect_used,
            reason = "the runtime lives as long as the listener"
        )]
        receiver.recv().expect("the runtime finishes its tasks")
    }
}

async fn invoke(function: &Function, event: Bytes, timeout: Duration) -> Outcome {
    match function.hand_over(event, timeout).await {
        Ok(invocation) => function.outcome(&invocation).await,
        Err(outcome) => outcome,
    }
}
