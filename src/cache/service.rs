//! [`Cache`]: the service.

use std::fmt::Display;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_service::Service;

use super::core::{Call, Core, Owner};
use super::entry::Freshness;
use super::future::ResponseFuture;
use super::handle::CacheHandle;
use super::key::CacheKey;
use super::miss::{Miss, Start};
use super::policy::Policy;
use super::store::{Lookup, Store};
use crate::error::Rejectable;
use crate::outcome::Classify;

/// Answers from a store, and loads from the inner service what is not there; made by [`CacheLayer`](super::CacheLayer).
///
/// It is always ready: a cached key is served whatever the state of the inner service. A clone of the inner service is made
/// ready by the load that calls it.
///
/// A clone shares everything but its own copy of the inner service.
///
/// # Examples
///
/// ```
/// use mainstay::BoxError;
/// use tower::{Layer, Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let layer = mainstay::CacheLayer::builder("squares").key(|n: &u32| Some(*n)).build()?;
/// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
/// let response = service.ready().await?.call(1);
/// assert_eq!(response.await?, 2);
/// assert_eq!(service.ready().await?.call(1).await?, 2);
/// assert_eq!(service.handle().statistics().hits, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cache<S, K, V, F, C, St> {
    inner: S,
    parts: Arc<Parts<K, V, F, C, St>>,
}

/// What a layer and its services share.
#[derive(Debug)]
pub(crate) struct Parts<K, V, F, C, St> {
    pub(crate) key: F,
    pub(crate) policy: Arc<Policy<K, V, C>>,
    pub(crate) core: Arc<Core<K, V, St>>,
    pub(crate) owner: Arc<Owner>,
}

// === impl Cache ===

impl<S, K, V, F, C, St> Cache<S, K, V, F, C, St> {
    pub(crate) const fn new(inner: S, parts: Arc<Parts<K, V, F, C, St>>) -> Self {
        Self { inner, parts }
    }

    /// A handle that reads statistics and invalidates.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use mainstay::cache::CacheLayer;
    /// use tower::{Layer, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = CacheLayer::builder("squares").key(|n: &u32| Some(*n)).build()?;
    /// let service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n * n) }));
    /// service.clone().oneshot(7).await?;
    /// assert_eq!(service.handle().statistics().misses, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn handle(&self) -> CacheHandle<K, V, St> {
        self.parts.handle()
    }
}

crate::macros::wrapper_methods!(Cache<S, K, V, F, C, St>, "mainstay::CacheLayer::builder::<String>(\"users\").key(|n: &u32| Some(*n)).build()?");
crate::macros::ready_methods!(Cache<S, K, V, F, C, St>, "mainstay::CacheLayer::builder(\"users\").key(|n: &u32| Some(*n)).build()?");

impl<S: Clone, K, V, F, C, St> Clone for Cache<S, K, V, F, C, St> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), parts: Arc::clone(&self.parts) }
    }
}

impl<S, Req, K, V, F, C, St> Service<Req> for Cache<S, K, V, F, C, St>
where
    S: Service<Req, Response = V> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Rejectable + Display + Send + 'static,
    Req: Send + 'static,
    K: CacheKey,
    V: Clone + Send + Sync + 'static,
    F: Fn(&Req) -> Option<K>,
    C: Classify<V, S::Error> + Send + Sync + 'static,
    St: Store<K, V>,
{
    type Response = V;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, K, V, C, St>;

    /// Always ready: what is cached does not need the inner service.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let parts = &*self.parts;
        let Some(key) = (parts.key)(&request) else {
            return self.uncached(request);
        };
        let found = parts.core.look(&key);
        if let Lookup::Known(Some(entry)) = &found {
            let now = Instant::now().into_std();
            if entry.freshness(now) == Freshness::Fresh {
                parts.core.counts.call(if entry.is_negative() { Call::NegativeHit } else { Call::Hit });
                return ResponseFuture::answered(parts.policy.answer(entry, now, None));
            }
        }
        self.missed(request, key, found)
    }
}

/// Out of the way of hits.
impl<S: Clone, K, V, F, C, St> Cache<S, K, V, F, C, St> {
    #[cold]
    #[inline(never)]
    fn uncached<Req>(&self, request: Req) -> ResponseFuture<S, Req, K, V, C, St>
    where
        S: Service<Req>,
    {
        self.parts.core.counts.call(Call::Uncached);
        ResponseFuture::uncached(self.inner.clone(), request)
    }

    #[cold]
    #[inline(never)]
    fn missed<Req>(&self, request: Req, key: K, found: Lookup<V>) -> ResponseFuture<S, Req, K, V, C, St>
    where
        S: Service<Req>,
    {
        let Parts { policy, core, owner, .. } = &*self.parts;
        let start = Start { inner: self.inner.clone(), request, key, found };
        ResponseFuture::missed(Miss::new(core, policy, owner, start))
    }
}

// === impl Parts ===

impl<K, V, F, C, St> Parts<K, V, F, C, St> {
    pub(crate) fn handle(&self) -> CacheHandle<K, V, St> {
        CacheHandle::new(Arc::clone(&self.core), Arc::clone(&self.owner))
    }
}
