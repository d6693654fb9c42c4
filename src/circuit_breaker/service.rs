//! [`CircuitBreaker`]: the service.

use std::ops::ControlFlow;
use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::future::ResponseFuture;
use super::handle::CircuitBreakerHandle;
use super::permit::Permit;
use super::shared::WAIT;
use super::waiter::Waiter;
use crate::cores::unwind::on_unwind;
use crate::error::{CircuitOpen, Rejectable};
use crate::outcome::Classify;

/// The service that [`CircuitBreakerLayer`](super::CircuitBreakerLayer) makes. Its clones share one breaker.
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
/// assert_eq!(response.await?, 2);
/// assert_eq!(service.handle().statistics().successes, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CircuitBreaker<S, C> {
    inner: S,
    classifier: C,
    handle: CircuitBreakerHandle,
    /// Whether this very inner service has said that it is ready and has not been called since.
    inner_ready: bool,
    /// How the breaker refused when it was last asked, unless a call has been told since.
    refused: Option<CircuitOpen>,
    /// Its place in the queue while it waits for the circuit, and its turn until the call that it waited for.
    waiter: Option<Box<Waiter>>,
}

// === impl CircuitBreaker ===

impl<S, C> CircuitBreaker<S, C> {
    pub(super) const fn new(inner: S, classifier: C, handle: CircuitBreakerHandle) -> Self {
        Self { inner, classifier, handle, inner_ready: false, refused: None, waiter: None }
    }

    /// The handle of the breaker.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitBreakerLayer, CircuitState};
    /// use tower::Layer;
    ///
    /// let service = CircuitBreakerLayer::builder("db").build()?.layer("a service");
    /// assert_eq!(service.handle().state(), CircuitState::Closed);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub const fn handle(&self) -> &CircuitBreakerHandle {
        &self.handle
    }

    /// The circuit is not closed: whether the service is to be asked all the same; if not, what to answer.
    #[inline]
    fn poll_breaker(&mut self, cx: &mut Context<'_>) -> ControlFlow<Poll<()>> {
        let breaker = self.handle.breaker();
        if breaker.shared.takes(WAIT) || self.waiter.is_some() {
            return self.poll_wait(cx);
        }
        let Some(refused) = breaker.refuses() else { return ControlFlow::Continue(()) };
        self.refused = Some(refused);
        // The inner service keeps what readiness it has: `call` may use it if the circuit admits a probe by then.
        ControlFlow::Break(Poll::Ready(()))
    }

    /// Waits for a turn. A service that was ready already stays so until its call: that is what `Service` asks.
    #[cold]
    #[inline(never)]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> ControlFlow<Poll<()>> {
        if self.inner_ready || (self.waiter.is_none() && !self.handle.has_to_wait()) {
            return ControlFlow::Continue(());
        }
        match self.waiter.get_or_insert_with(|| Box::new(Waiter::new(self.handle.clone()))).poll(cx) {
            Poll::Pending => ControlFlow::Break(Poll::Pending),
            Poll::Ready(Ok(())) => ControlFlow::Continue(()),
            Poll::Ready(Err(open)) => {
                self.waiter = None;
                self.refused = Some(open);
                ControlFlow::Break(Poll::Ready(()))
            }
        }
    }

    /// The circuit is not closed, or the call is measured.
    #[inline(never)]
    fn acquire_otherwise(&mut self) -> Result<Permit, CircuitOpen> {
        if let Some(permit) = self.handle.acquire_measured() {
            return Ok(permit);
        }
        let acquired = match self.waiter.take() {
            Some(mut waiter) => waiter.acquire(),
            None => self.handle.try_acquire(),
        };
        if acquired.is_err() && self.handle.breaker().shared.takes(WAIT) {
            // The next call waits for a turn first.
            self.inner_ready = false;
        }
        acquired
    }

    /// The call that it waited for has been made.
    #[cold]
    #[inline(never)]
    fn stop_waiting(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            waiter.called();
        }
    }

    /// Whatever the breaker would say now, an unready service is never called.
    #[inline]
    fn refuse(&mut self) -> CircuitOpen {
        match self.refused.take() {
            Some(refused) => self.handle.breaker().rejected(refused),
            None => self.refuse_unasked(),
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse_unasked(&mut self) -> CircuitOpen {
        self.waiter = None;
        self.handle.breaker().refuse()
    }
}

crate::macros::wrapper_methods!(CircuitBreaker<S, C>, "mainstay::CircuitBreakerLayer::builder(\"db\").build()?");
crate::macros::ready_methods!(CircuitBreaker<S, C>, "mainstay::CircuitBreakerLayer::builder(\"db\").build()?");

/// A clone has made nothing ready yet.
impl<S: Clone, C: Clone> Clone for CircuitBreaker<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.classifier.clone(), self.handle.clone())
    }
}

impl<S, C, Req> Service<Req> for CircuitBreaker<S, C>
where
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    /// Ready at once while the breaker rejects: `call` then returns the rejection, with the time that is left as of now. In
    /// [`AdmissionMode::Wait`](super::AdmissionMode::Wait) it is pending while the call waits for the circuit. Otherwise ready
    /// when the inner service is.
    // In line, as `call` is: a call costs less than calling it.
    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !self.handle.breaker().shared.is_closed()
            && let ControlFlow::Break(answer) = self.poll_breaker(cx)
        {
            return answer.map(Ok);
        }
        self.inner_ready = false;
        ready!(self.inner.poll_ready(cx))?;
        self.inner_ready = true;
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        if !self.inner_ready {
            return ResponseFuture::refused(self.refuse());
        }
        let mut permit = match self.handle.acquire_at_once() {
            Some(permit) => permit,
            None => match self.acquire_otherwise() {
                Ok(permit) => permit,
                Err(open) => return ResponseFuture::refused(open),
            },
        };
        self.inner_ready = false;
        if self.waiter.is_some() {
            self.stop_waiting();
        }
        let inner = &mut self.inner;
        let future = on_unwind(|| permit.panicked(), || inner.call(request));
        ResponseFuture::admitted(future, permit, self.classifier.clone())
    }
}
