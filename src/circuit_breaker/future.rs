//! The response future of [`CircuitBreaker`](super::CircuitBreaker).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::permit::Permit;
use crate::cores::unwind::on_unwind;
use crate::error::{CircuitOpen, Rejectable, Rejected};
use crate::outcome::{Classify, judge};

pin_project! {
    /// The response future of [`CircuitBreaker`](super::CircuitBreaker) and of
    /// [`CircuitBreakerHandle::call`](super::CircuitBreakerHandle::call).
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it finished drops the inner future and counts the call as abandoned; the slot of a probe is given
    /// back. Nothing else is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::CircuitBreakerLayer::builder("db").build()?;
    /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let response = service.ready().await?.call(1);
    /// drop(response);
    /// assert_eq!(layer.handle().statistics().abandoned, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, C> {
        Admitted {
            #[pin]
            inner: F,
            permit: Permit,
            classifier: C,
        },
        Refused {
            open: Option<CircuitOpen>,
        },
    }
}

// === impl ResponseFuture ===

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(super) fn admitted(inner: F, permit: Permit, classifier: C) -> Self {
        Self { state: State::Admitted { inner, permit, classifier } }
    }

    #[inline]
    pub(super) fn refused(open: CircuitOpen) -> Self {
        Self { state: State::Refused { open: Some(open) } }
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
        match self.project().state.project() {
            StateProj::Admitted { inner, permit, classifier } => {
                // Judged where it is: a response can be large.
                let polled = on_unwind(|| permit.panicked(), || inner.poll(cx));
                if let Poll::Ready(result) = &polled {
                    // The call is over: a permit that the classifier's panic dropped would say that the caller had left.
                    let outcome = on_unwind(|| permit.panicked(), || judge(classifier, result.as_ref()));
                    permit.finish(outcome);
                }
                polled
            }
            StateProj::Refused { open } => {
                let open = open.take().expect("polled after it was ready");
                Poll::Ready(Err(E::from_rejected(Rejected::CircuitOpen(open))))
            }
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ResponseFuture");
        match &self.state {
            State::Admitted { permit, .. } => debug.field("permit", permit),
            State::Refused { open } => debug.field("refused", open),
        };
        debug.finish_non_exhaustive()
    }
}
