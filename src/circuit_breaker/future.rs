//! The response future of [`CircuitBreaker`](super::CircuitBreaker).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::ending::{Ending, judge_call};
use super::permit::Permit;
use super::waiter::Waiter;
use crate::cores::seen::{See, poll_seen};
use crate::cores::unwind::{Guard, Notice};
use crate::error::{CircuitOpen, Rejectable, Rejected};
use crate::outcome::Classify;

pin_project! {
    /// The response future of [`CircuitBreaker`](super::CircuitBreaker) and of
    /// [`CircuitBreakerHandle::call`](super::CircuitBreakerHandle::call).
    ///
    /// # Panics
    ///
    /// When it is polled after it has completed.
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
        call: Call<F, C>,
        // Spent for a call that was refused. It stands beside the call, as the refusal does, so that the parts of a future
        // that is made and polled in one place can be in registers.
        permit: Permit,
        refused: Option<CircuitOpen>,
    }
}

pin_project! {
    #[project = CallProj]
    enum Call<F, C> {
        Admitted {
            #[pin]
            inner: F,
            classifier: C,
        },
        Refused,
        // Not polled yet, so that it may be moved.
        Waiting {
            waiter: Box<Waiter>,
            parts: Option<(F, C)>,
        },
    }
}

const POLLED_AFTER_COMPLETION: &str = "`ResponseFuture` polled after completion";

// === impl ResponseFuture ===

impl<F, C> ResponseFuture<F, C> {
    #[inline(always)]
    pub(super) fn admitted(inner: F, permit: Permit, classifier: C) -> Self {
        Self { call: Call::Admitted { inner, classifier }, permit, refused: None }
    }

    #[inline(always)]
    pub(super) fn refused(open: CircuitOpen) -> Self {
        Self { call: Call::Refused, permit: Permit::spent(), refused: Some(open) }
    }

    /// Of a call that waits for the circuit.
    pub(super) fn waiting(inner: F, waiter: Box<Waiter>, classifier: C) -> Self {
        let call = Call::Waiting { waiter, parts: Some((inner, classifier)) };
        Self { call, permit: Permit::spent(), refused: None }
    }

    /// Waits for the circuit. Afterwards the call is admitted, or refused.
    #[cold]
    #[inline(never)]
    fn poll_wait(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let CallProj::Waiting { waiter, parts } = this.call.as_mut().project() else { return Poll::Ready(()) };
        let admitted = ready!(waiter.poll_permit(cx));
        let call = match (admitted, parts.take()) {
            (Ok(permit), Some((inner, classifier))) => {
                *this.permit = permit;
                Call::Admitted { inner, classifier }
            }
            (Ok(_), None) => Call::Refused,
            (Err(open), _) => {
                *this.refused = Some(open);
                Call::Refused
            }
        };
        this.call.set(call);
        Poll::Ready(())
    }
}

#[inline(always)]
fn poll_call<F, C, T, E>(
    inner: Pin<&mut F>,
    classifier: &C,
    permit: &mut Permit,
    cx: &mut Context<'_>,
) -> Poll<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
    C: Classify<T, E>,
{
    let guard = Guard(permit);
    // Judged before the guard is gone: the call is over, and a permit that the classifier's panic dropped would say that the
    // caller had left.
    let polled = poll_seen(Judged { inner, cx, classifier, permit: guard.0 });
    guard.disarm();
    polled
}

/// A call, and who gives its verdict.
struct Judged<'a, 'b, F, C> {
    inner: Pin<&'a mut F>,
    cx: &'a mut Context<'b>,
    classifier: &'a C,
    permit: &'a mut Permit,
}

impl<F, C, T, E> See<T, E> for Judged<'_, '_, F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
    C: Classify<T, E>,
{
    #[inline(always)]
    fn poll(&mut self) -> Poll<Result<T, E>> {
        self.inner.as_mut().poll(self.cx)
    }

    #[inline(always)]
    fn response(self, response: &T) {
        let outcome = self.classifier.classify(Ok(response));
        self.permit.finish(outcome, Ending::of_response(outcome));
    }

    #[inline(never)]
    fn error(self, error: &mut E) {
        let (outcome, ending) = judge_call(self.classifier, Err(&*error));
        self.permit.finish(outcome, ending);
    }
}

impl Notice for &mut Permit {
    /// A call out of which a panic comes failed.
    #[inline(always)]
    fn unwound(&mut self) {
        self.panicked();
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
    C: Classify<T, E>,
{
    type Output = Result<T, E>;

    // In line, or each call pays for handing its result over.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Call::Waiting { .. } = self.call {
            ready!(self.as_mut().poll_wait(cx));
        }
        let this = self.project();
        match this.call.project() {
            CallProj::Admitted { inner, classifier } => {
                assert!(!this.permit.is_spent(), "{POLLED_AFTER_COMPLETION}");
                poll_call(inner, classifier, this.permit, cx)
            }
            CallProj::Refused => {
                let open = this.refused.take().expect(POLLED_AFTER_COMPLETION);
                Poll::Ready(Err(E::from_rejected(Rejected::CircuitOpen(open))))
            }
            CallProj::Waiting { .. } => Poll::Pending,
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ResponseFuture");
        match &self.call {
            Call::Admitted { .. } => debug.field("permit", &self.permit),
            Call::Refused => debug.field("refused", &self.refused),
            Call::Waiting { waiter, .. } => debug.field("waiter", waiter),
        };
        debug.finish_non_exhaustive()
    }
}
