//! [`KeyedCircuitBreakerLayer`].

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::super::layer::CircuitBreakerLayer;
use super::config::KeyedCircuitBreakerConfig;
use super::handle::KeyedCircuitBreakerHandle;
use super::key::{BreakerKey, OwnedKey};
use super::registry::Registry;
use super::service::KeyedCircuitBreaker;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::DefaultClassifier;

/// Puts a circuit breaker for each key around a service.
///
/// All services made by one layer and its clones share its breakers.
///
/// # Examples
///
/// ```
/// use mainstay::{BoxError, CircuitBreakerLayer, CircuitState, Rejectable};
/// use tower::{Layer, Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let layer = CircuitBreakerLayer::builder("shards").consecutive_failures(1).keyed(|shard: &u8| Some(*shard)).build()?;
/// let mut service = layer.layer(service_fn(|shard: u8| async move {
///     if shard == 7 { Err(BoxError::from("connection refused")) } else { Ok(shard) }
/// }));
///
/// assert!(service.ready().await?.call(7).await.is_err());
/// let refused = service.ready().await?.call(7).await.unwrap_err();
/// assert!(refused.as_rejected().is_some(), "shard 7 is left alone");
/// assert_eq!(service.ready().await?.call(8).await?, 8, "shard 8 is not");
///
/// let seven = layer.handle().get(&7).expect("it was called");
/// assert_eq!(seven.state(), CircuitState::Open);
/// # Ok(())
/// # }
/// ```
pub struct KeyedCircuitBreakerLayer<K, F, C = DefaultClassifier> {
    registry: Arc<Registry<K>>,
    key: Arc<F>,
    classifier: C,
}

// === impl KeyedCircuitBreakerLayer ===

impl<K: BreakerKey, F> KeyedCircuitBreakerLayer<K, OwnedKey<F, K>> {
    /// A layer with these settings, that takes `Ok` for success and `Err` for failure. For more there is
    /// [`CircuitBreakerBuilder::keyed`](super::super::CircuitBreakerBuilder::keyed).
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] when [`KeyedCircuitBreakerConfig::validate`] finds a value that cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{KeyedCircuitBreakerConfig, KeyedCircuitBreakerLayer};
    ///
    /// let config = KeyedCircuitBreakerConfig::default();
    /// assert!(KeyedCircuitBreakerLayer::new("shards", |shard: &u8| Some(*shard), config).is_ok());
    /// ```
    pub fn new<Req>(name: impl Into<Name>, key: F, config: KeyedCircuitBreakerConfig) -> Result<Self, InvalidConfig>
    where
        F: Fn(&Req) -> Option<K>,
    {
        CircuitBreakerLayer::builder(name).keyed(key).config(config).build()
    }
}

impl<K: BreakerKey, F, C> KeyedCircuitBreakerLayer<K, F, C> {
    pub(super) const fn from_parts(registry: Arc<Registry<K>>, key: Arc<F>, classifier: C) -> Self {
        Self { registry, key, classifier }
    }

    /// The handle of the breakers.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().keys(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> KeyedCircuitBreakerHandle<K> {
        KeyedCircuitBreakerHandle::new(self.registry.clone())
    }
}

impl<K, F, C: Clone> Clone for KeyedCircuitBreakerLayer<K, F, C> {
    fn clone(&self) -> Self {
        Self { registry: self.registry.clone(), key: self.key.clone(), classifier: self.classifier.clone() }
    }
}

impl<S, K: BreakerKey, F, C: Clone> Layer<S> for KeyedCircuitBreakerLayer<K, F, C> {
    type Service = KeyedCircuitBreaker<S, K, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedCircuitBreaker::new(inner, self.classifier.clone(), self.registry.clone(), self.key.clone())
    }
}

impl<K, F, C: fmt::Debug> fmt::Debug for KeyedCircuitBreakerLayer<K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerLayer")
            .field("registry", &self.registry)
            .field("classifier", &self.classifier)
            .finish_non_exhaustive()
    }
}
