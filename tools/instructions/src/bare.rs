//! The service that all layers are measured around.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::Service;

/// What the service does with a call.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// Answers at once.
    Answers,
    /// Is pending at the first poll, and answers at the second.
    PendingOnce,
    /// Fails every other attempt of a thread, the first one to begin with.
    FailsFirst,
    /// Fails one attempt in this many of a thread, the last of them.
    FailsOneIn(u32),
    /// Never answers.
    Hangs,
}

/// A service that costs next to nothing and that the optimiser cannot look into.
///
/// `call` and `poll` are never inlined, and what they do and answer goes through [`black_box`]: so no layer around it can
/// leave its error path out, or merge with it, as it could not with a client that does something. The request and the response
/// are a number; the error is chosen by whom it is for.
pub struct Bare<E> {
    script: Script,
    error: PhantomData<fn() -> E>,
}

/// The answer of a [`Bare`].
pub struct Answer<E> {
    script: Script,
    request: u64,
    error: PhantomData<fn() -> E>,
}

/// The error of a call that failed: no box, no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// An error that a [`Bare`] can answer with.
pub trait Failure: 'static {
    /// The error.
    fn failure() -> Self;
}

thread_local! {
    /// Whether the next attempt under [`Script::FailsFirst`] answers.
    static ANSWERS: Cell<bool> = const { Cell::new(false) };
    /// Attempts under [`Script::FailsOneIn`] since the last one that failed.
    static SINCE_FAILURE: Cell<u32> = const { Cell::new(0) };
}

// === impl Bare ===

impl<E> Bare<E> {
    /// A service that does what `script` says.
    pub fn new(script: Script) -> Self {
        Self { script: black_box(script), error: PhantomData }
    }
}

impl<E: Failure> Service<u64> for Bare<E> {
    type Response = u64;
    type Error = E;
    type Future = Answer<E>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Answer<E> {
        let script = match self.script {
            Script::FailsFirst if ANSWERS.replace(!ANSWERS.get()) => Script::Answers,
            Script::FailsOneIn(calls) => {
                let since = SINCE_FAILURE.get() + 1;
                SINCE_FAILURE.set(since % calls);
                if since == calls { Script::FailsFirst } else { Script::Answers }
            }
            script => script,
        };
        Answer { script: black_box(script), request, error: PhantomData }
    }
}

impl<E> Clone for Bare<E> {
    fn clone(&self) -> Self {
        Self { script: self.script, error: PhantomData }
    }
}

// === impl Answer ===

impl<E: Failure> Future for Answer<E> {
    type Output = Result<u64, E>;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.script {
            Script::Answers => Poll::Ready(Ok(black_box(self.request))),
            Script::PendingOnce => {
                self.script = Script::Answers;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Script::FailsFirst | Script::FailsOneIn(_) => Poll::Ready(Err(E::failure())),
            Script::Hangs => Poll::Pending,
        }
    }
}

// === impl Failed ===

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call failed")
    }
}

impl Error for Failed {}

impl Failure for Failed {
    fn failure() -> Self {
        Self
    }
}

impl Failure for mainstay::BoxError {
    /// Nothing is allocated for what has no size.
    fn failure() -> Self {
        Failed.into()
    }
}

impl Failure for mainstay::Error<Failed> {
    fn failure() -> Self {
        Self::Service(Failed)
    }
}

impl Failure for mainstay::Error<Infallible> {
    fn failure() -> Self {
        unreachable!("a service that cannot fail was told to")
    }
}
