//! The state of one function, and its changes.

use super::outcome::{Outcome, OutcomeKind};
use crate::random::{Random, hash_of};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch::{self, Sender};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

/// How long a function may be without a connection before it counts as exited.
const RECONNECT_GRACE: Duration = Duration::from_secs(1);

/// One function: at most one of its invocations is in progress.
#[derive(Debug)]
pub(super) struct Function {
    arn: String,
    state: Sender<State>,
    turn: Arc<Mutex<()>>,
    invocations: AtomicU64,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The latest answer and its request ID: the function may go on before the caller reads it.
    answer: Option<(String, Outcome)>,
    connections: usize,
    has_connected: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The function has not asked for an invocation yet, or not again since its last answer.
    Busy,
    /// The function has asked for an invocation.
    Waiting { since: SystemTime },
    /// An invocation is about to be sent to the waiting function.
    Offered(Event),
    /// The function works on an invocation.
    Working { request_id: String, since: Instant },
    /// The function could not start.
    InitFailed(Outcome),
}

/// An invocation, as the function receives it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) request_id: String,
    pub(super) deadline: SystemTime,
    pub(super) function_arn: String,
    pub(super) trace_id: String,
    pub(super) payload: Bytes,
}

/// An invocation that was handed over. The function gets no other one while this exists.
#[derive(Debug)]
pub(super) struct Invocation {
    request_id: String,
    timeout: Duration,
    _turn: OwnedMutexGuard<()>,
}

/// The result of waiting for a function.
enum Waited {
    Done,
    Exited,
    TimedOut,
}

/// Counts a connection while it exists.
pub(super) struct Connected(Arc<Function>);

/// Marks the function as waiting until it is dropped, unless an invocation was taken.
struct Waiting<'a>(&'a Function);

impl Function {
    pub(super) fn new(arn: String) -> Self {
        let state = State {
            phase: Phase::Busy,
            answer: None,
            connections: 0,
            has_connected: false,
        };
        Self {
            arn,
            state: watch::channel(state).0,
            turn: Arc::default(),
            invocations: AtomicU64::new(0),
        }
    }

    pub(super) fn arn(&self) -> &str {
        &self.arn
    }

    fn set(&self, phase: Phase) {
        self.state.send_modify(|state| state.phase = phase);
    }

    // The function's side.

    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.state.send_modify(|state| {
            state.connections += 1;
            state.has_connected = true;
        });
        Connected(Arc::clone(self))
    }

    /// Waits for the next invocation and takes it.
    pub(super) async fn next(&self) -> Event {
        self.set(Phase::Waiting {
            since: SystemTime::now(),
        });
        let waiting = Waiting(self);
        let mut states = self.state.subscribe();
        loop {
            // An error is impossible: this function owns the sender.
            let is_offered = |state: &State| matches!(state.phase, Phase::Offered(_));
            drop(states.wait_for(is_offered).await);
            if let Some(event) = self.take_event() {
                drop(waiting);
                return event;
            }
        }
    }

    fn take_event(&self) -> Option<Event> {
        let mut taken = None;
        self.state.send_if_modified(|state| {
            let Phase::Offered(event) = &state.phase else {
                return false;
            };
            let request_id = event.request_id.clone();
            taken = Some(event.clone());
            state.phase = Phase::Working {
                request_id,
                since: Instant::now(),
            };
            true
        });
        taken
    }

    /// Records the answer to an invocation. Returns whether the function works on it.
    pub(super) fn answer(&self, request_id: &str, outcome: Outcome) -> bool {
        self.state.send_if_modified(|state| {
            let Phase::Working {
                request_id: current,
                since,
            } = &state.phase
            else {
                return false;
            };
            if current != request_id {
                return false;
            }
            let outcome = Outcome {
                duration: since.elapsed(),
                ..outcome
            };
            state.phase = Phase::Busy;
            state.answer = Some((request_id.to_owned(), outcome));
            true
        })
    }

    pub(super) fn fail_init(&self, outcome: Outcome) {
        self.set(Phase::InitFailed(outcome));
    }

    // The caller's side.

    /// Waits until the function asks for an invocation. Returns since when it has been waiting.
    pub(super) async fn ready(&self, patience: Duration) -> Result<SystemTime, Outcome> {
        let is_ready =
            |state: &State| matches!(state.phase, Phase::Waiting { .. } | Phase::InitFailed(_));
        match self.wait(patience, is_ready).await {
            Waited::Done => {}
            Waited::Exited => return Err(exited(Duration::ZERO)),
            Waited::TimedOut => return Err(never_asked(patience)),
        }
        match &self.state.borrow().phase {
            Phase::Waiting { since } => Ok(*since),
            Phase::InitFailed(outcome) => Err(outcome.clone()),
            // The function was killed just now.
            _ => Err(exited(Duration::ZERO)),
        }
    }

    /// Hands an event over as soon as the function asks for one.
    pub(super) async fn hand_over(
        &self,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Invocation, Outcome> {
        let turn = Arc::clone(&self.turn).lock_owned();
        let turn = timeout(patience, turn)
            .await
            .map_err(|_| never_asked(patience))?;
        self.ready(patience).await?;
        let event = self.event(payload, patience);
        let request_id = event.request_id.clone();
        let is_offered = self.state.send_if_modified(|state| {
            let is_waiting = matches!(state.phase, Phase::Waiting { .. });
            if is_waiting {
                state.phase = Phase::Offered(event);
            }
            is_waiting
        });
        let is_taken = |state: &State| !matches!(state.phase, Phase::Offered(_));
        if !is_offered || !matches!(self.wait(patience, is_taken).await, Waited::Done) {
            return Err(exited(Duration::ZERO));
        }
        Ok(Invocation {
            request_id,
            timeout: patience,
            _turn: turn,
        })
    }

    /// Waits for the answer to an invocation.
    pub(super) async fn outcome(&self, invocation: &Invocation) -> Outcome {
        let begun = Instant::now();
        let is_over = |state: &State| !state.is_working_on(&invocation.request_id);
        let waited = self.wait(invocation.timeout, is_over).await;
        match (&self.state.borrow().answer, waited) {
            (Some((request_id, outcome)), _) if *request_id == invocation.request_id => {
                outcome.clone()
            }
            (_, Waited::TimedOut) => timed_out(invocation.timeout),
            (_, Waited::Done | Waited::Exited) => exited(begun.elapsed()),
        }
    }

    /// Waits until the function's state is as wanted, at most for `patience`.
    async fn wait(&self, patience: Duration, is_wanted: impl Fn(&State) -> bool) -> Waited {
        let mut states = self.state.subscribe();
        let waiting = async {
            loop {
                let is_over = |state: &State| is_wanted(state) || state.is_disconnected();
                drop(states.wait_for(is_over).await);
                if is_wanted(&states.borrow_and_update()) {
                    return Waited::Done;
                }
                let is_back = |state: &State| is_wanted(state) || !state.is_disconnected();
                if timeout(RECONNECT_GRACE, states.wait_for(is_back))
                    .await
                    .is_err()
                {
                    return Waited::Exited;
                }
            }
        };
        timeout(patience, waiting).await.unwrap_or(Waited::TimedOut)
    }

    fn event(&self, payload: Bytes, patience: Duration) -> Event {
        let now = SystemTime::now();
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let number = self.invocations.fetch_add(1, Ordering::Relaxed);
        let seed = format!("{}/{number}/{}", self.arn, since_epoch.as_nanos());
        let mut random = Random::new(hash_of([seed.as_str()]));
        Event {
            request_id: random.uuid(),
            deadline: now + patience,
            function_arn: self.arn.clone(),
            trace_id: format!(
                "Root=1-{:08x}-{};Parent={};Sampled=0",
                since_epoch.as_secs(),
                random.hex(24),
                random.hex(16)
            ),
            payload,
        }
    }
}

impl State {
    fn is_working_on(&self, wanted: &str) -> bool {
        matches!(&self.phase, Phase::Working { request_id, .. } if request_id == wanted)
    }

    fn is_disconnected(&self) -> bool {
        self.has_connected && self.connections == 0
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.connections -= 1);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let is_waiting = matches!(state.phase, Phase::Waiting { .. } | Phase::Offered(_));
            if is_waiting {
                state.phase = Phase::Busy;
            }
            is_waiting
        });
    }
}

fn exited(after: Duration) -> Outcome {
    let message = "Error: Runtime exited without providing a reason";
    Outcome::without_answer(OutcomeKind::Exited, "Runtime.ExitError", message, after)
}

fn timed_out(limit: Duration) -> Outcome {
    let message = format!(
        "Error: Task timed out after {:.2} seconds",
        limit.as_secs_f64()
    );
    Outcome::without_answer(OutcomeKind::TimedOut, "Sandbox.Timedout", &message, limit)
}

fn never_asked(limit: Duration) -> Outcome {
    let message = format!(
        "Error: the function did not ask for an invocation within {:.2} seconds",
        limit.as_secs_f64()
    );
    Outcome::without_answer(
        OutcomeKind::TimedOut,
        "Sandbox.Timedout",
        &message,
        Duration::ZERO,
    )
}
