//! The response future of [`Telemetry`](super::Telemetry).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::service::{End, TelemetryHandle};
use crate::cores::unwind::on_unwind;
use crate::error::Rejectable;
use crate::outcome::Classify;

pin_project! {
    /// The response future of [`Telemetry`](super::Telemetry).
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it finished drops the inner future and counts the call as `abandoned`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::telemetry::TelemetryLayer::new("users");
    /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let response = service.ready().await?.call(1);
    /// drop(response);
    /// assert_eq!(layer.handle().statistics().abandoned, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: F,
        call: Call<C>,
    }
}

/// What is known of the call while it runs; counts it when it ends.
#[derive(Debug)]
struct Call<C> {
    classifier: C,
    handle: TelemetryHandle,
    started: Instant,
    counted: bool,
    #[cfg(feature = "tracing")]
    span: ::tracing::Span,
}

// === impl ResponseFuture ===

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(super) fn call(classifier: C, handle: TelemetryHandle, started: Instant, make: impl FnOnce() -> F) -> Self {
        #[cfg(feature = "tracing")]
        let span = ::tracing::info_span!(
            target: "mainstay",
            "call",
            name = handle.name().as_str(),
            outcome = ::tracing::field::Empty,
        );
        #[cfg(feature = "tracing")]
        let inner = span.in_scope(make);
        #[cfg(not(feature = "tracing"))]
        let inner = make();
        let call = Call {
            classifier,
            handle,
            started,
            counted: false,
            #[cfg(feature = "tracing")]
            span,
        };
        Self { inner, call }
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
    C: Classify<T, E>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = this.call;
        #[cfg(feature = "tracing")]
        let span = call.span.clone();
        #[cfg(feature = "tracing")]
        let _entered = span.enter();
        // Judged where it is: a response can be large.
        let polled = on_unwind(|| call.end(End::Panicked), || this.inner.poll(cx));
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Ok(response)) => call.judge(Ok(response)),
            Poll::Ready(Err(error)) => match error.as_rejected() {
                Some(rejected) => call.end(End::Rejected(rejected)),
                None => call.judge(Err(error)),
            },
        }
        polled
    }
}

// === impl Call ===

impl<C> Call<C> {
    #[inline]
    fn judge<T, E>(&mut self, result: Result<&T, &E>)
    where
        C: Classify<T, E>,
    {
        // A classifier that panics has judged nothing; the call is counted all the same.
        let outcome = {
            let handle = &self.handle;
            let (counted, started) = (&mut self.counted, self.started);
            on_unwind(
                || {
                    *counted = true;
                    handle.count(End::Panicked, started);
                },
                || self.classifier.classify(result),
            )
        };
        self.end(End::Outcome(outcome));
    }

    fn end(&mut self, end: End<'_>) {
        if !self.counted {
            self.counted = true;
            #[cfg(feature = "tracing")]
            self.span.record("outcome", end.as_str());
            self.handle.count(end, self.started);
        }
    }
}

impl<C> Drop for Call<C> {
    #[inline]
    fn drop(&mut self) {
        if !self.counted {
            self.end(End::Abandoned);
        }
    }
}
