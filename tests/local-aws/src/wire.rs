//! Sends responses, complete or broken as a fault demands.

use crate::answer::Delivery;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// The pause before a response breaks, so that its first half is sent.
const PAUSE_BEFORE_BREAKING: Duration = Duration::from_millis(50);
/// The interval at which a never-ending response sends a byte.
const DRIP_INTERVAL: Duration = Duration::from_millis(200);
/// The number of these bytes after which even a never-ending response ends: one hour.
const MAX_DRIPS: u32 = 18_000;

/// The body of a response.
pub(crate) struct WireBody {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    exact_bytes: Option<u64>,
    reset: Arc<AtomicBool>,
}

enum Step {
    Send(Bytes),
    Pause(Duration),
    Break { with_reset: bool },
    Drip { left: u32 },
}

impl WireBody {
    /// Splits a body into steps; `reset` is the switch of its connection.
    pub(crate) fn new(body: Bytes, delivery: Delivery, reset: Arc<AtomicBool>) -> Self {
        let exact_bytes = (delivery == Delivery::Whole).then_some(body.len() as u64);
        let first_half = body.slice(..body.len() / 2);
        let steps = match delivery {
            Delivery::Whole if body.is_empty() => VecDeque::new(),
            Delivery::Whole => VecDeque::from([Step::Send(body)]),
            Delivery::Nothing => VecDeque::from([Step::Break { with_reset: false }]),
            Delivery::ResetHalfway | Delivery::CutHalfway => VecDeque::from([
                Step::Send(first_half),
                Step::Pause(PAUSE_BEFORE_BREAKING),
                Step::Break {
                    with_reset: delivery == Delivery::ResetHalfway,
                },
            ]),
            Delivery::NeverEnding => {
                VecDeque::from([Step::Send(first_half), Step::Drip { left: MAX_DRIPS }])
            }
        };
        Self {
            steps,
            pause: None,
            exact_bytes,
            reset,
        }
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            match this.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Pause(length)) => this.pause = Some(Box::pin(sleep(length))),
                Some(Step::Break { with_reset }) => {
                    this.reset.store(with_reset, Ordering::SeqCst);
                    return Poll::Ready(Some(Err(io::Error::other("a fault was requested"))));
                }
                Some(Step::Drip { left: 0 }) => {}
                Some(Step::Drip { left }) => this.steps.extend([
                    Step::Pause(DRIP_INTERVAL),
                    Step::Send(Bytes::from_static(b" ")),
                    Step::Drip { left: left - 1 },
                ]),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact_bytes
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A connection that can be closed with a reset (RST) instead of normally (FIN).
pub(crate) struct Connection {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Connection {
    /// Wraps a stream; `reset` decides how it is closed.
    pub(crate) fn new(stream: TcpStream, reset: Arc<AtomicBool>) -> Self {
        Self { stream, reset }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            // If this fails, the connection is closed normally, which breaks the response too.
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
