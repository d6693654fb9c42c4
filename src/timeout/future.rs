//! [`ResponseFuture`]: the response future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::TimeoutKind;
use super::handle::Shared;
use crate::context::{DeadlineScope, InScope};
use crate::cores::packed_duration::PackedDuration;
use crate::cores::seen::{See, poll_seen};
use crate::cores::striped_arc::StripedArc;
use crate::error::{Rejectable, Rejected};
use crate::timer::{Cutoff, Timer};

pin_project! {
    /// The response future of [`Timeout`](super::Timeout).
    ///
    /// It is `Send` exactly when the inner future is.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, under the deadline that was set for it, and counts the call as abandoned.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::TimeoutLayer::total("orders", std::time::Duration::from_secs(1))?;
    /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let response = service.ready().await?.call(1);
    /// assert_eq!(response.await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // Under the deadline, if one was set; of a refused call there is none.
        #[pin]
        inner: InScope<Option<DeadlineScope>, F>,
        #[pin]
        timer: Timer,
        // Of a call that was sent.
        limit: Option<Limit>,
        // The accounts of a call that runs: it is in none of them yet.
        running: Option<StripedArc<Shared>>,
        // Never sent, which nobody was told yet.
        refused: Option<Refused>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        #[inline(always)]
        fn drop(this: Pin<&mut Self>) {
            if this.running.is_some() {
                abandon(this.project().running);
            }
        }
    }
}

/// How long a call may take. What it comes to is worked out when it is needed, which for most calls is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) started: Instant,
    pub(super) timeout: PackedDuration,
    /// The caller's.
    pub(super) deadline: Option<Instant>,
}

/// What a call that is not sent was refused for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) timeout: PackedDuration,
    pub(super) by_deadline: bool,
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    /// Calls the inner service by `make`; for a call as a whole, under its deadline.
    #[inline(always)]
    pub(super) fn new(make: impl FnOnce() -> F, shared: StripedArc<Shared>, limit: Limit) -> Self {
        let scope = match shared.kind {
            TimeoutKind::Attempt => None,
            TimeoutKind::Total => Some(DeadlineScope(limit.cutoff().at)),
        };
        let inner = InScope::call(scope, make);
        Self { inner, timer: Timer::new(), limit: Some(limit), running: Some(shared), refused: None }
    }

    /// Of a call that is counted as refused already.
    #[inline(always)]
    pub(super) fn refused(refused: Refused) -> Self {
        Self { inner: InScope::empty(None), timer: Timer::new(), limit: None, running: None, refused: Some(refused) }
    }

    /// The inner future is pending: is its time up?
    #[cold]
    #[inline(never)]
    fn poll_limit(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Rejected> {
        let mut this = self.project();
        if let Some(Refused { timeout, by_deadline }) = this.refused.take() {
            return Poll::Ready(Cutoff { at: None, by_deadline }.rejected(timeout.get(), false));
        }
        // Polled after its end, it has nothing more to say.
        let (Some(shared), Some(limit)) = (this.running.as_ref(), *this.limit) else { return Poll::Pending };
        let (cutoff, timeout) = (limit.cutoff(), limit.timeout.get());
        let Some(at) = cutoff.at else { return Poll::Pending };
        ready!(this.timer.poll_against(at, cx));
        shared.record(cutoff, timeout, true);
        *this.running = None;
        this.inner.as_mut().clear();
        Poll::Ready(cutoff.rejected(timeout, true))
    }
}

/// A call within its limit, and who counts its end.
struct Limited<'a, 'b, F> {
    inner: Pin<&'a mut InScope<Option<DeadlineScope>, F>>,
    cx: &'a mut Context<'b>,
    running: &'a mut Option<StripedArc<Shared>>,
    limit: &'a Option<Limit>,
}

impl<F, T, E> See<T, E> for Limited<'_, '_, F>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
{
    #[inline(always)]
    fn poll(&mut self) -> Poll<Result<T, E>> {
        self.inner.as_mut().poll(self.cx)
    }

    #[inline(always)]
    fn response(self, _: &T) {
        if let Some(shared) = self.running.take() {
            shared.ended_in_time();
        }
    }

    #[inline(never)]
    fn error(self, error: &mut E) {
        if let Some(own) = self.own_deadline(error.as_rejected()) {
            *error = E::from_rejected(own);
        }
    }
}

impl<F> Limited<'_, '_, F> {
    /// If a layer below says in the error that a deadline is over, and that is the one that was set here, the answer is that of
    /// this layer.
    fn own_deadline(self, rejected: Option<&Rejected>) -> Option<Rejected> {
        let (shared, limit) = (self.running.take()?, (*self.limit)?);
        if let Some(&Rejected::DeadlineExceeded { sent }) = rejected
            && matches!(shared.kind, TimeoutKind::Total)
            && let cutoff = limit.cutoff()
            && cutoff.is_own_and_over()
        {
            let timeout = limit.timeout.get();
            shared.record(cutoff, timeout, sent);
            return Some(cutoff.rejected(timeout, sent));
        }
        shared.ended_in_time();
        None
    }
}

/// Out of the way of calls that have ended.
#[cold]
#[inline(never)]
fn abandon(running: &mut Option<StripedArc<Shared>>) {
    if let Some(shared) = running.take() {
        shared.abandoned();
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
{
    type Output = Result<T, E>;

    // In line, or each call pays for handing its result over.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let call = Limited { inner: this.inner, cx: &mut *cx, running: this.running, limit: this.limit };
        let mut polled = poll_seen(call);
        if polled.is_pending() {
            polled = self.poll_limit(cx).map(|rejected| Err(E::from_rejected(rejected)));
        }
        polled
    }
}

// === impl Limit ===

impl Limit {
    #[inline]
    pub(super) fn cutoff(&self) -> Cutoff {
        Cutoff::new(self.started, self.timeout.get(), self.deadline)
    }
}
