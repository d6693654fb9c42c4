//! A service that is strict about how it is used, and can be told how to behave.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use mainstay::Rejected;
use tower::Service;

#[derive(Debug)]
pub(crate) enum TestError {
    Inner,
    Refused(Rejected),
}
mainstay::rejectable!(TestError::Refused);

impl std::fmt::Display for TestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for TestError {}

/// How the service behaves, shared by all its clones.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// How often a response future is pending before it is ready.
    pub(crate) pending_polls: AtomicU32,
    /// How often `poll_ready` of each clone is pending before it is ready.
    pub(crate) pending_ready: AtomicU32,
    /// Whether calls end in an error.
    pub(crate) fail: AtomicBool,
    pub(crate) panic_in_call: AtomicBool,
    pub(crate) panic_in_poll: AtomicBool,

    pub(crate) calls: AtomicUsize,
    /// Calls of a clone that was not ready: must stay 0.
    pub(crate) unready_calls: AtomicUsize,
    /// Response futures that exist.
    pub(crate) alive: AtomicUsize,
}

/// Readiness belongs to one clone, and one call consumes it.
#[derive(Debug)]
pub(crate) struct Strict {
    pub(crate) script: Arc<Script>,
    ready: bool,
    polled: u32,
}

pub(crate) struct StrictFuture {
    script: Arc<Script>,
    request: u32,
    polled: u32,
}

impl Strict {
    pub(crate) fn new() -> (Self, Arc<Script>) {
        let script = Arc::new(Script::default());
        (Self { script: script.clone(), ready: false, polled: 0 }, script)
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { script: self.script.clone(), ready: false, polled: 0 }
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = TestError;
    type Future = StrictFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TestError>> {
        if self.polled < self.script.pending_ready.load(Ordering::Relaxed) {
            self.polled += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> StrictFuture {
        self.script.calls.fetch_add(1, Ordering::Relaxed);
        if !std::mem::take(&mut self.ready) {
            self.script.unready_calls.fetch_add(1, Ordering::Relaxed);
        }
        self.polled = 0;
        assert!(!self.script.panic_in_call.load(Ordering::Relaxed), "the script panics in call");
        self.script.alive.fetch_add(1, Ordering::Relaxed);
        StrictFuture { script: self.script.clone(), request, polled: 0 }
    }
}

impl Future for StrictFuture {
    type Output = Result<u32, TestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.script.panic_in_poll.load(Ordering::Relaxed), "the script panics in poll");
        if self.polled < self.script.pending_polls.load(Ordering::Relaxed) {
            self.polled += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.script.fail.load(Ordering::Relaxed) {
            return Poll::Ready(Err(TestError::Inner));
        }
        Poll::Ready(Ok(self.request + 1))
    }
}

impl Drop for StrictFuture {
    fn drop(&mut self) {
        self.script.alive.fetch_sub(1, Ordering::Relaxed);
    }
}
