//! [`KeyedCircuitBreaker`]: the service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::super::future::ResponseFuture;
use super::super::handle::CircuitBreakerHandle;
use super::handle::KeyedCircuitBreakerHandle;
use super::key::{BreakerKey, KeyOf};
use super::registry::Registry;
use crate::cores::unwind::on_unwind;
use crate::error::Rejectable;
use crate::outcome::Classify;

/// The service that [`KeyedCircuitBreakerLayer`](super::KeyedCircuitBreakerLayer) makes. Its clones share the breakers.
///
/// # Examples
///
/// ```
/// use mainstay::BoxError;
/// use tower::{Layer, Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u32| Some(*shard)).build()?;
/// let mut service = layer.layer(service_fn(|shard: u32| async move { Ok::<_, BoxError>(shard) }));
/// assert_eq!(service.ready().await?.call(3).await?, 3);
/// assert_eq!(service.handle().keys(), 1);
/// # Ok(())
/// # }
/// ```
pub struct KeyedCircuitBreaker<S, K, F, C> {
    inner: S,
    classifier: C,
    registry: Arc<Registry<K>>,
    key: Arc<F>,
    /// Whether this very inner service has said that it is ready and has not been called since.
    inner_ready: bool,
}

// === impl KeyedCircuitBreaker ===

impl<S, K: BreakerKey, F, C> KeyedCircuitBreaker<S, K, F, C> {
    pub(super) const fn new(inner: S, classifier: C, registry: Arc<Registry<K>>, key: Arc<F>) -> Self {
        Self { inner, classifier, registry, key, inner_ready: false }
    }

    /// The handle of the breakers.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower::Layer;
    ///
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u32| Some(*shard)).build()?;
    /// assert_eq!(layer.layer("a service").handle().name().as_str(), "shards");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> KeyedCircuitBreakerHandle<K> {
        KeyedCircuitBreakerHandle::new(self.registry.clone())
    }

    #[inline]
    fn breaker<Req>(&self, request: &Req) -> CircuitBreakerHandle
    where
        F: KeyOf<Req, Key = K>,
    {
        self.key.with(request, |key| self.registry.of_call(key, F::is, F::own))
    }
}

crate::macros::wrapper_methods!(
    KeyedCircuitBreaker<S, K, F, C>,
    "mainstay::CircuitBreakerLayer::builder(\"shards\").keyed(|n: &u32| Some(*n)).build()?"
);
crate::macros::ready_methods!(
    KeyedCircuitBreaker<S, K, F, C>,
    "mainstay::CircuitBreakerLayer::builder(\"shards\").keyed(|n: &u32| Some(*n)).build()?"
);

/// A clone has made nothing ready yet.
impl<S: Clone, K, F, C: Clone> Clone for KeyedCircuitBreaker<S, K, F, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            classifier: self.classifier.clone(),
            registry: self.registry.clone(),
            key: self.key.clone(),
            inner_ready: false,
        }
    }
}

impl<S, K, F, C, Req> Service<Req> for KeyedCircuitBreaker<S, K, F, C>
where
    S: Service<Req>,
    S::Error: Rejectable,
    K: BreakerKey,
    F: KeyOf<Req, Key = K>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    /// Ready when the inner service is: the key, and with it the breaker, is not known before `call`.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner_ready = false;
        ready!(self.inner.poll_ready(cx))?;
        self.inner_ready = true;
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        // A panic in the key function ends here, before anything was taken.
        let breaker = self.breaker(&request);
        if !self.inner_ready {
            // Whatever the breaker would say, an unready service is never called.
            return ResponseFuture::refused(breaker.breaker().refuse());
        }
        match breaker.into_permit() {
            Ok(mut permit) => {
                self.inner_ready = false;
                let inner = &mut self.inner;
                let future = on_unwind(|| permit.panicked(), || inner.call(request));
                ResponseFuture::admitted(future, permit, self.classifier.clone())
            }
            Err(open) => ResponseFuture::refused(open),
        }
    }
}

impl<S: fmt::Debug, K, F, C> fmt::Debug for KeyedCircuitBreaker<S, K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreaker")
            .field("inner", &self.inner)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}
