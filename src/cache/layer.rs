//! [`CacheLayer`]: puts a cache around a service.

use std::sync::Arc;

use tower_layer::Layer;

use super::builder::{CacheBuilder, NoKey};
use super::config::CacheConfig;
use super::handle::CacheHandle;
use super::key::CacheKey;
use super::service::{Cache, Parts};
use super::store::MemoryStore;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::DefaultClassifier;

/// Puts a cache around a service; see the [module documentation](crate::cache).
///
/// All services made by one layer (and its clones) share one cache: entries, flights, limits and statistics. Two layers share
/// nothing, unless they were given clones of one store.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::BoxError;
/// use mainstay::cache::CacheLayer;
/// use tower::{ServiceBuilder, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let layer = CacheLayer::builder("squares").key(|n: &u64| Some(*n)).ttl(Duration::from_secs(5)).build()?;
/// let service = ServiceBuilder::new().layer(layer).service(service_fn(|n: u64| async move { Ok::<_, BoxError>(n * n) }));
/// assert_eq!(service.clone().oneshot(7).await?, 49);
/// assert_eq!(service.clone().oneshot(7).await?, 49);
/// assert_eq!(service.handle().statistics().hits, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CacheLayer<K, V, F, C = DefaultClassifier, St = MemoryStore<K, V>> {
    pub(super) parts: Arc<Parts<K, V, F, C, St>>,
}

// === impl CacheLayer ===

impl CacheLayer<(), (), NoKey> {
    /// A builder, starting from the default settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// let layer = CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().name().as_str(), "users");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn builder<V>(name: impl Into<Name>) -> CacheBuilder<(), V, NoKey> {
        CacheBuilder::new(name.into())
    }
}

impl<K: CacheKey, V: Send + Sync + 'static, F> CacheLayer<K, V, F> {
    /// A cache in memory, with the default classifier and no hooks.
    ///
    /// # Errors
    ///
    /// The first field of `config` whose value cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{CacheConfig, CacheLayer};
    ///
    /// let layer: CacheLayer<u32, String, _> = CacheLayer::new("users", |id: &u32| Some(*id), CacheConfig::default())?;
    /// assert_eq!(layer.handle().name().as_str(), "users");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn new<Req>(name: impl Into<Name>, key: F, config: CacheConfig) -> Result<Self, InvalidConfig>
    where
        F: Fn(&Req) -> Option<K>,
    {
        CacheLayer::builder(name).key(key).config(config).build()
    }
}

impl<K, V, F, C, St> CacheLayer<K, V, F, C, St> {
    /// A handle that reads statistics and invalidates.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().statistics().calls(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> CacheHandle<K, V, St> {
        self.parts.handle()
    }
}

impl<K, V, F, C, St> Clone for CacheLayer<K, V, F, C, St> {
    fn clone(&self) -> Self {
        Self { parts: Arc::clone(&self.parts) }
    }
}

impl<S, K, V, F, C, St> Layer<S> for CacheLayer<K, V, F, C, St> {
    type Service = Cache<S, K, V, F, C, St>;

    fn layer(&self, inner: S) -> Self::Service {
        Cache::new(inner, Arc::clone(&self.parts))
    }
}
