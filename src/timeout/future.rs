//! [`ResponseFuture`]: the response future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::handle::Shared;
use crate::context::{DeadlineScope, InScope};
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
        #[pin]
        stage: Stage<F>,
        #[pin]
        timer: Timer,
        cutoff: Cutoff,
        timeout: Duration,
        shared: Arc<Shared>,
        counted: bool,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            if !this.counted {
                this.shared.abandoned();
            }
        }
    }
}

pin_project! {
    #[project = StageProjection]
    #[derive(Debug)]
    enum Stage<F> {
        Attempt { #[pin] inner: F },
        Total { #[pin] inner: InScope<DeadlineScope, F> },
        // Never sent.
        Refused,
        Done,
    }
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) const fn attempt(inner: F, shared: Arc<Shared>, cutoff: Cutoff, timeout: Duration) -> Self {
        Self { stage: Stage::Attempt { inner }, timer: Timer::new(), cutoff, timeout, shared, counted: false }
    }

    #[inline]
    pub(super) fn total(make: impl FnOnce() -> F, shared: Arc<Shared>, cutoff: Cutoff, timeout: Duration) -> Self {
        let inner = InScope::call(DeadlineScope(cutoff.at), make);
        Self { stage: Stage::Total { inner }, timer: Timer::new(), cutoff, timeout, shared, counted: false }
    }

    #[cold]
    pub(super) fn refused(shared: Arc<Shared>, cutoff: Cutoff, timeout: Duration) -> Self {
        shared.record(cutoff, timeout, false);
        Self { stage: Stage::Refused, timer: Timer::new(), cutoff, timeout, shared, counted: true }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        match this.stage.as_mut().project() {
            StageProjection::Attempt { inner } => {
                let polled = inner.poll(cx);
                if polled.is_ready() {
                    *this.counted = true;
                    this.shared.ended_in_time();
                    return polled;
                }
            }
            StageProjection::Total { inner } => {
                let polled = inner.poll(cx);
                if let Poll::Ready(Err(error)) = &polled
                    && let Some(&Rejected::DeadlineExceeded { sent }) = error.as_rejected()
                    && this.cutoff.is_own_and_over()
                {
                    // A layer below noticed first that the time which was set here is up: the answer is the same.
                    *this.counted = true;
                    this.shared.record(*this.cutoff, *this.timeout, sent);
                    return Poll::Ready(Err(E::from_rejected(this.cutoff.rejected(*this.timeout, sent))));
                }
                if polled.is_ready() {
                    *this.counted = true;
                    this.shared.ended_in_time();
                    return polled;
                }
            }
            StageProjection::Refused => {
                this.stage.set(Stage::Done);
                return Poll::Ready(Err(E::from_rejected(this.cutoff.rejected(*this.timeout, false))));
            }
            StageProjection::Done => return Poll::Pending,
        }
        let Some(at) = this.cutoff.at else { return Poll::Pending };
        ready!(this.timer.poll_against(at, cx));
        this.stage.set(Stage::Done);
        *this.counted = true;
        this.shared.record(*this.cutoff, *this.timeout, true);
        Poll::Ready(Err(E::from_rejected(this.cutoff.rejected(*this.timeout, true))))
    }
}
