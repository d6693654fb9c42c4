//! [`KeyedCircuitBreakerBuilder`]: what [`CircuitBreakerBuilder`] becomes once it knows the keys.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::super::breaker::Observer;
use super::super::layer::CircuitBreakerBuilder;
use super::super::own_rules::OwnRules;
use super::super::transition::Transition;
use super::config::KeyedCircuitBreakerConfig;
use super::key::{BorrowedKey, BreakerKey, OwnedKey};
use super::layer::KeyedCircuitBreakerLayer;
use super::registry::{KeyObserver, Parts, Registry};
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::telemetry::Listener;

/// Builds a [`KeyedCircuitBreakerLayer`]; made by [`CircuitBreakerBuilder::keyed`] or [`CircuitBreakerBuilder::keyed_ref`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::CircuitBreakerLayer;
///
/// let layer = CircuitBreakerLayer::builder("shards")
///     .consecutive_failures(5)
///     .keyed(|user: &u64| Some(user % 64))
///     .max_keys(64)
///     .idle_after(Duration::from_secs(3600))
///     .build()?;
/// assert_eq!(layer.handle().config().max_keys, 64);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct KeyedCircuitBreakerBuilder<K, F, C> {
    name: Name,
    config: KeyedCircuitBreakerConfig,
    own: OwnRules,
    key: F,
    classifier: C,
    listener: Option<Arc<dyn Listener>>,
    observers: Vec<Observer>,
    key_observers: Vec<KeyObserver<K>>,
}

// === impl CircuitBreakerBuilder ===

impl<C> CircuitBreakerBuilder<C> {
    /// A breaker for each key instead of one for all; see [`KeyedCircuitBreakerLayer`]. What was set so far holds for each of
    /// them. `None` is no key: such calls share one breaker.
    ///
    /// The function runs once a call, in `call`. A panic in it unwinds to the caller and leaves nothing behind.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// struct Request { shard: Option<u16> }
    ///
    /// let layer = CircuitBreakerLayer::builder("shards").keyed(|request: &Request| request.shard).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn keyed<Req, K, F>(self, key: F) -> KeyedCircuitBreakerBuilder<K, OwnedKey<F, K>, C>
    where
        K: BreakerKey,
        F: Fn(&Req) -> Option<K>,
    {
        KeyedCircuitBreakerBuilder::new(self, OwnedKey::new(key))
    }

    /// The same with a key that the request has already: it is copied for a new key, and looked up as it is for a known one.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// struct Request { host: String }
    ///
    /// let layer = CircuitBreakerLayer::builder("hosts").keyed_ref(|request: &Request| Some(request.host.as_str())).build()?;
    /// assert!(layer.handle().get("db-1").is_none());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn keyed_ref<Req, Q, F>(self, key: F) -> KeyedCircuitBreakerBuilder<Q::Owned, BorrowedKey<F, Q>, C>
    where
        Q: ToOwned<Owned: BreakerKey> + Hash + Eq + ?Sized,
        F: Fn(&Req) -> Option<&Q>,
    {
        KeyedCircuitBreakerBuilder::new(self, BorrowedKey::new(key))
    }
}

// === impl KeyedCircuitBreakerBuilder ===

impl<K: BreakerKey, F, C> KeyedCircuitBreakerBuilder<K, F, C> {
    fn new(builder: CircuitBreakerBuilder<C>, key: F) -> Self {
        let CircuitBreakerBuilder { name, config, own, classifier, listener, observers, .. } = builder;
        let config = KeyedCircuitBreakerConfig { breaker: config, ..KeyedCircuitBreakerConfig::default() };
        Self { name, config, own, key, classifier, listener, observers, key_observers: Vec::new() }
    }

    /// Replaces all settings, those of the breakers too.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    /// use mainstay::circuit_breaker::KeyedCircuitBreakerConfig;
    ///
    /// let mut config = KeyedCircuitBreakerConfig::default();
    /// config.max_keys = 10;
    /// let layer = CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).config(config.clone()).build()?;
    /// assert_eq!(layer.handle().config(), config);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn config(mut self, config: KeyedCircuitBreakerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`KeyedCircuitBreakerConfig::max_keys`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let built = CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).max_keys(0).build();
    /// assert_eq!(built.unwrap_err().field(), "max_keys");
    /// ```
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.config.max_keys = keys;
        self
    }

    /// Sets [`KeyedCircuitBreakerConfig::idle_after`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer =
    ///     CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).idle_after(Duration::from_secs(60)).build()?;
    /// assert_eq!(layer.handle().config().idle_after, Duration::from_secs(60));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.config.idle_after = idle;
        self
    }

    /// Tells `observer` of every transition and of the key whose breaker made it: `None` is the shared one. As of
    /// [`CircuitBreakerBuilder::on_transition`], whose observers are told of all breakers too.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("shards")
    ///     .keyed(|shard: &u8| Some(*shard))
    ///     .on_transition(|shard: Option<&u8>, change| println!("{shard:?} went to {}", change.to))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn on_transition(mut self, observer: impl Fn(Option<&K>, &Transition) + Send + Sync + 'static) -> Self {
        self.key_observers.push(Box::new(observer));
        self
    }

    /// Checks the settings and builds the layer.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the field whose value cannot be used, and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let builder = CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard));
    /// assert_eq!(builder.idle_after(Duration::ZERO).build().unwrap_err().field(), "idle_after");
    /// ```
    pub fn build(self) -> Result<KeyedCircuitBreakerLayer<K, F, C>, InvalidConfig> {
        let Self { name, config, own, key, classifier, listener, observers, key_observers } = self;
        config.validate_with(own.trip.is_some()).map_err(|error| error.of_layer(name.clone()))?;
        let registry = Registry::new(Parts { name, config, own, listener, observers, key_observers });
        Ok(KeyedCircuitBreakerLayer::from_parts(Arc::new(registry), Arc::new(key), classifier))
    }
}

impl<K, F, C: fmt::Debug> fmt::Debug for KeyedCircuitBreakerBuilder<K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerBuilder")
            .field("name", &self.name)
            .field("config", &self.config)
            .field("classifier", &self.classifier)
            .finish_non_exhaustive()
    }
}
