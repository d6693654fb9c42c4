//! [`CircuitBreaker`]: the service.

use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::future::ResponseFuture;
use super::gate::Gate;
use super::handle::CircuitBreakerHandle;
use super::permit::Permit;
use super::shared::{GATE, Refused};
use crate::cores::unwind::on_unwind;
use crate::error::Rejectable;
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
    /// What came of it when the breaker was last asked whether it was ready.
    held: Held,
}

/// What keeps a service from being called.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// The breaker refused, and so will the call that follows.
    Refused(Refused),
    /// In gate mode, its last call was refused though it was ready: it waits before the next, or it would go round and round.
    Lost,
    /// It waits, as services do in gate mode.
    Gate(Box<Gate>),
}

// === impl CircuitBreaker ===

impl<S, C> CircuitBreaker<S, C> {
    pub(super) const fn new(inner: S, classifier: C, handle: CircuitBreakerHandle) -> Self {
        Self { inner, classifier, handle, inner_ready: false, held: Held::Nothing }
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

    /// Waits for the breaker to admit a call. Whoever was ready already stays so until its call: that is what `Service` asks.
    #[cold]
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner_ready && matches!(self.held, Held::Nothing) {
            return Poll::Ready(());
        }
        let breaker = self.handle.breaker();
        if !matches!(self.held, Held::Gate(_)) {
            self.held = Held::Gate(Box::new(Gate::new(breaker)));
        }
        match &mut self.held {
            Held::Gate(gate) => gate.poll(breaker, cx),
            Held::Nothing | Held::Refused(_) | Held::Lost => Poll::Ready(()),
        }
    }
}

impl<S, C> CircuitBreaker<S, C> {
    #[inline]
    fn call_inner<Req>(&mut self, request: Req, mut permit: Permit) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
        C: Clone,
    {
        self.inner_ready = false;
        let inner = &mut self.inner;
        let future = on_unwind(|| permit.panicked(), || inner.call(request));
        ResponseFuture::admitted(future, permit, self.classifier.clone())
    }

    /// The circuit is not closed, or the call is measured.
    #[inline(never)]
    fn call_otherwise<Req>(&mut self, request: Req) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
        C: Clone,
    {
        if let Some(permit) = self.handle.acquire_measured() {
            return self.call_inner(request, permit);
        }
        match self.handle.try_acquire() {
            Ok(permit) => self.call_inner(request, permit),
            Err(open) => {
                if self.handle.breaker().shared.takes(GATE) {
                    self.held = Held::Lost;
                }
                ResponseFuture::refused(open)
            }
        }
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

    /// Ready at once while the breaker refuses: `call` will say so, with the wait that is left as of now. In
    /// [gate mode](super::AdmissionMode::Gate) pending while it refuses. Otherwise ready when the inner service is.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !self.handle.breaker().shared.is_closed()
            && let Some(refused) = self.handle.breaker().refuses()
        {
            if self.handle.breaker().shared.takes(GATE) {
                ready!(self.poll_gate(cx));
            } else {
                self.held = Held::Refused(refused);
                // The inner service keeps what readiness it has: `call` may use it if the circuit admits a probe by then.
                return Poll::Ready(Ok(()));
            }
        }
        if !matches!(self.held, Held::Nothing) {
            self.held = Held::Nothing;
        }
        self.inner_ready = false;
        ready!(self.inner.poll_ready(cx))?;
        self.inner_ready = true;
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if !self.inner_ready {
            // Whatever the breaker would say now, an unready service is never called.
            let refused = match std::mem::take(&mut self.held) {
                Held::Refused(refused) => Some(refused),
                Held::Nothing | Held::Lost | Held::Gate(_) => None,
            };
            return ResponseFuture::refused(self.handle.breaker().refuse(refused));
        }
        match self.handle.acquire_at_once() {
            Some(permit) => self.call_inner(request, permit),
            None => self.call_otherwise(request),
        }
    }
}
