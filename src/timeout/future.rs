//! [`ResponseFuture`]: the response future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::TimeoutKind;
use super::handle::Shared;
use crate::context::{DeadlineScope, InScope};
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
        limit: Limit,
        stage: Stage,
        shared: StripedArc<Shared>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            if let Stage::Running = this.stage {
                this.shared.abandoned();
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Running,
    /// Never sent, and counted.
    Refused,
    /// Over, and counted.
    Done,
}

/// How long a call may take. What it comes to is worked out when it is needed, which for most calls is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) started: Instant,
    pub(super) timeout: Duration,
    /// The caller's.
    pub(super) deadline: Option<Instant>,
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    /// Calls the inner service by `make`; for a call as a whole, under its deadline.
    #[inline]
    pub(super) fn new(make: impl FnOnce() -> F, shared: StripedArc<Shared>, limit: Limit) -> Self {
        let scope = match shared.kind {
            TimeoutKind::Attempt => None,
            TimeoutKind::Total => Some(DeadlineScope(limit.cutoff().at)),
        };
        let inner = InScope::call(scope, make);
        Self { inner, timer: Timer::new(), limit, stage: Stage::Running, shared }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn refused(shared: StripedArc<Shared>, limit: Limit) -> Self {
        shared.record(limit.cutoff(), limit.timeout, false);
        Self { inner: InScope::empty(None), timer: Timer::new(), limit, stage: Stage::Refused, shared }
    }

    /// The inner future is pending: is its time up?
    #[cold]
    fn poll_limit(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Rejected> {
        let mut this = self.project();
        let (cutoff, timeout) = (this.limit.cutoff(), this.limit.timeout);
        match this.stage {
            Stage::Running => {
                let Some(at) = cutoff.at else { return Poll::Pending };
                ready!(this.timer.poll_against(at, cx));
                *this.stage = Stage::Done;
                this.shared.record(cutoff, timeout, true);
                this.inner.as_mut().clear();
                Poll::Ready(cutoff.rejected(timeout, true))
            }
            Stage::Refused => {
                *this.stage = Stage::Done;
                Poll::Ready(cutoff.rejected(timeout, false))
            }
            Stage::Done => Poll::Pending,
        }
    }

    /// A layer below says that a deadline is over. If it is the one that was set here, the answer is that of this layer.
    #[cold]
    fn own_deadline(self: Pin<&mut Self>, rejected: Option<&Rejected>) -> Option<Rejected> {
        let this = self.project();
        let Some(&Rejected::DeadlineExceeded { sent }) = rejected else { return None };
        let (cutoff, timeout) = (this.limit.cutoff(), this.limit.timeout);
        if !matches!(this.shared.kind, TimeoutKind::Total) || !cutoff.is_own_and_over() {
            return None;
        }
        this.shared.record(cutoff, timeout, sent);
        Some(cutoff.rejected(timeout, sent))
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let polled = this.inner.poll(cx);
        match &polled {
            Poll::Pending => return self.poll_limit(cx).map(|rejected| Err(E::from_rejected(rejected))),
            Poll::Ready(result) => {
                *this.stage = Stage::Done;
                if let Err(error) = result
                    && let Some(rejected) = self.as_mut().own_deadline(error.as_rejected())
                {
                    return Poll::Ready(Err(E::from_rejected(rejected)));
                }
                self.shared.ended_in_time();
            }
        }
        polled
    }
}

// === impl Limit ===

impl Limit {
    #[inline]
    pub(super) fn cutoff(&self) -> Cutoff {
        Cutoff::new(self.started, self.timeout, self.deadline)
    }
}
