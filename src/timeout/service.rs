//! [`Timeout`]: the service.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use tower_service::Service;

use super::future::Limit;
use super::handle::Shared;
use super::{Fixed, ResponseFuture, TimeoutSource};
use crate::context;
use crate::cores::packed_duration::PackedDuration;
use crate::cores::striped_arc::StripedArc;
use crate::cores::unwind::on_unwind;
use crate::error::{Rejectable, Rejected};
use crate::timer::Timer;

/// A service whose calls have a limited time; made by [`TimeoutLayer`](super::TimeoutLayer).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::TimeoutLayer;
/// use tower::Layer;
///
/// let service = TimeoutLayer::total("orders", Duration::from_secs(1))?.layer("any service");
/// assert_eq!(service.get_ref(), &"any service");
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Debug)]
pub struct Timeout<S, T = Fixed> {
    inner: S,
    shared: StripedArc<Shared>,
    source: T,
    readiness: Readiness,
}

/// How far the wait for the inner service's readiness has come. Of one handle: a clone waits on its own account.
#[derive(Debug)]
enum Readiness {
    /// Nobody waits, or it does not count.
    Idle,
    /// The inner service was pending when the time started.
    Waiting { limit: Limit, timer: Pin<Box<Timer>>, caller: Waker },
    /// The time was up before the inner service was ready: the next call is rejected without it. With the rejection of what
    /// was waited for, where that is known.
    Over(Limit, Option<Rejected>),
}

// === impl Timeout ===

impl<S, T> Timeout<S, T> {
    pub(super) const fn new(inner: S, shared: StripedArc<Shared>, source: T) -> Self {
        Self { inner, shared, source, readiness: Readiness::Idle }
    }

    /// The inner service is pending, and that counts.
    #[cold]
    fn poll_waiting<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        self.forget_abandoned(cx);
        if let Readiness::Waiting { limit, .. } = &self.readiness
            && limit.cutoff().at.is_some_and(|at| Timer::is_late(at, Instant::now()))
        {
            // No caller took the rejection when that wait ended, so this is another wait.
            self.readiness = Readiness::Idle;
        }
        if let Readiness::Idle = self.readiness {
            let limit =
                Limit { started: Instant::now(), timeout: self.shared.timeout(), deadline: context::deadline() };
            self.readiness = Readiness::Waiting { limit, timer: Box::pin(Timer::new()), caller: cx.waker().clone() };
        }
        if let Readiness::Waiting { limit, timer, .. } = &mut self.readiness {
            let limit = *limit;
            match limit.cutoff().at {
                Some(at) if timer.as_mut().poll_at(at, cx).is_ready() => {
                    // The last poll, by which the inner service can record what it waits for.
                    match context::poll_awaited(|| self.inner.poll_ready(cx)) {
                        Ok(ready) => return Poll::Ready(ready),
                        Err(awaited) => self.readiness = Readiness::Over(limit, awaited),
                    }
                }
                _ => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Each future of `ready` is a wait with its own time.
    fn begin_wait(&mut self) {
        self.readiness = Readiness::Idle;
    }

    /// Forgets the wait of a caller that has left: each caller has its own time. A wait belongs to the task that started it,
    /// and a task that polls `poll_ready` again goes on with its own.
    #[cold]
    fn forget_abandoned(&mut self, cx: &Context<'_>) {
        if let Readiness::Waiting { caller, .. } = &self.readiness
            && !caller.will_wake(cx.waker())
        {
            self.readiness = Readiness::Idle;
        }
    }

    /// Since when the time of a call runs that is made `now`: a wait for readiness that counts for it brings the start forward.
    /// A rejection if the time is up already.
    #[cold]
    #[inline(never)]
    fn what_is_left(&mut self, limit: &Limit) -> Result<Instant, Rejected> {
        let (now, mut limit) = (limit.started, *limit);
        match std::mem::replace(&mut self.readiness, Readiness::Idle) {
            Readiness::Over(waited, awaited) => return Err(self.reject(&waited, awaited)),
            Readiness::Waiting { limit: waited, .. }
                if !waited.cutoff().at.is_some_and(|at| Timer::is_late(at, now)) =>
            {
                limit.started = waited.started;
            }
            Readiness::Idle | Readiness::Waiting { .. } => {}
        }
        if limit.cutoff().has_passed(now) { Err(self.reject(&limit, None)) } else { Ok(limit.started) }
    }

    /// Counts a call that is not sent.
    fn reject(&self, limit: &Limit, awaited: Option<Rejected>) -> Rejected {
        let (cutoff, timeout) = (limit.cutoff(), limit.timeout.get());
        self.shared.record(cutoff, timeout, false);
        awaited.unwrap_or_else(|| cutoff.rejected(timeout, false))
    }
}

crate::macros::wrapper_methods!(Timeout<S, T>, "mainstay::TimeoutLayer::builder(\"orders\").build()?");
crate::macros::ready_methods!(Timeout<S, T>, "mainstay::TimeoutLayer::builder(\"orders\").build()?", begin_wait);

impl<S: Clone, T: Clone> Clone for Timeout<S, T> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.shared.clone(), self.source.clone())
    }
}

impl<S, T, Req> Service<Req> for Timeout<S, T>
where
    S: Service<Req>,
    T: TimeoutSource<Req>,
    S::Error: Rejectable,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.inner.poll_ready(cx) {
            Poll::Pending if self.shared.includes_readiness() => self.poll_waiting::<Req>(cx),
            poll => {
                match self.readiness {
                    Readiness::Idle => {}
                    // No call was rejected, and now the inner service is ready after all.
                    Readiness::Over(..) => self.readiness = Readiness::Idle,
                    Readiness::Waiting { .. } => self.forget_abandoned(cx),
                }
                poll
            }
        }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = &self.shared;
        let computed = on_unwind(|| shared.abandoned(), || self.source.timeout(&request));
        let timeout = computed.map_or_else(|| shared.timeout(), PackedDuration::new);
        let mut limit = Limit { started: Instant::now(), timeout, deadline: context::deadline() };
        // A timeout that is not zero cannot be over already if it starts now.
        if !matches!(self.readiness, Readiness::Idle)
            || limit.deadline.is_some_and(|deadline| deadline <= limit.started)
            || (T::CAN_BE_ZERO && timeout.is_zero())
        {
            match self.what_is_left(&Limit { ..limit }) {
                Ok(started) => limit.started = started,
                Err(rejected) => return ResponseFuture::not_sent(rejected),
            }
        }
        ResponseFuture::new(|| self.inner.call(request), self.shared.lend(), limit)
    }
}
