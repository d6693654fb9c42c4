//! [`Timeout`]: the service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_service::Service;

use super::handle::Shared;
use super::{Fixed, ResponseFuture, TimeoutKind, TimeoutSource};
use crate::context;
use crate::error::Rejectable;
use crate::timer::{Cutoff, Timer};

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
    shared: Arc<Shared>,
    source: T,
    readiness: Readiness,
}

/// How far the wait for the inner service's readiness has come. Of one handle: a clone waits on its own account.
#[derive(Debug)]
enum Readiness {
    /// Nobody waits, or it does not count.
    Idle,
    /// The inner service was pending at `since`.
    Waiting { since: Instant, cutoff: Cutoff, timer: Pin<Box<Timer>> },
    /// The time was up before the inner service was ready: the next call is refused without it.
    Over(Cutoff),
}

// === impl Timeout ===

impl<S, T> Timeout<S, T> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>, source: T) -> Self {
        Self { inner, shared, source, readiness: Readiness::Idle }
    }

    /// The inner service is pending, and that counts.
    #[cold]
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Readiness::Waiting { cutoff: Cutoff { at: Some(at), .. }, .. } = self.readiness
            && Timer::is_late(at, Instant::now())
        {
            // Nobody was there to be refused when that wait ended, so this is another.
            self.readiness = Readiness::Idle;
        }
        if let Readiness::Idle = self.readiness {
            let since = Instant::now();
            let cutoff = Cutoff::new(since, self.shared.timeout(), context::current().deadline());
            self.readiness = Readiness::Waiting { since, cutoff, timer: Box::pin(Timer::new()) };
        }
        if let Readiness::Waiting { cutoff, timer, .. } = &mut self.readiness {
            let cutoff = *cutoff;
            match cutoff.at {
                Some(at) if timer.as_mut().poll_at(at, cx).is_ready() => self.readiness = Readiness::Over(cutoff),
                _ => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// The wait for readiness is over: when it started, if it counts for the call that is made `now`; or what has cut it off.
    #[cold]
    fn waited(&mut self, now: Instant) -> Result<Instant, Cutoff> {
        match std::mem::replace(&mut self.readiness, Readiness::Idle) {
            Readiness::Over(cutoff) => Err(cutoff),
            Readiness::Waiting { since, cutoff, .. } if !cutoff.at.is_some_and(|at| Timer::is_late(at, now)) => {
                Ok(since)
            }
            Readiness::Idle | Readiness::Waiting { .. } => Ok(now),
        }
    }
}

crate::macros::wrapper_methods!(Timeout<S, T>, "mainstay::TimeoutLayer::builder(\"orders\").build()?");
crate::macros::ready_methods!(Timeout<S, T>, "mainstay::TimeoutLayer::builder(\"orders\").build()?");

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

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.inner.poll_ready(cx) {
            Poll::Pending if self.shared.include_readiness => self.poll_waiting(cx).map(Ok),
            poll => {
                if let Readiness::Over(_) = self.readiness {
                    // Refused nobody, and now the inner service is ready after all.
                    self.readiness = Readiness::Idle;
                }
                poll
            }
        }
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let timeout = self.source.timeout(&request).unwrap_or_else(|| self.shared.timeout());
        let now = Instant::now();
        let since = match self.readiness {
            Readiness::Idle => now,
            _ => match self.waited(now) {
                Ok(since) => since,
                Err(cutoff) => return ResponseFuture::refused(self.shared.clone(), cutoff, timeout),
            },
        };
        let cutoff = Cutoff::new(since, timeout, context::current().deadline());
        // A timeout that is not zero cannot be over already if it starts now.
        let can_be_over = cutoff.by_deadline || since != now || (T::CAN_BE_ZERO && timeout.is_zero());
        if can_be_over && cutoff.has_passed(now) {
            return ResponseFuture::refused(self.shared.clone(), cutoff, timeout);
        }
        let shared = self.shared.clone();
        match shared.kind {
            TimeoutKind::Attempt => ResponseFuture::attempt(self.inner.call(request), shared, cutoff, timeout),
            TimeoutKind::Total => ResponseFuture::total(|| self.inner.call(request), shared, cutoff, timeout),
        }
    }
}
