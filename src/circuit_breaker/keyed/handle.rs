//! [`KeyedCircuitBreakerHandle`]: reads and controls the breakers of all keys.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::super::handle::CircuitBreakerHandle;
use super::config::KeyedCircuitBreakerConfig;
use super::key::BreakerKey;
use super::registry::Registry;
use super::statistics::KeyedCircuitBreakerStatistics;
use crate::error::InvalidConfig;
use crate::name::Name;

/// A cheap clonable handle of a keyed circuit breaker. What is done with one key's breaker is done through that one's own
/// [`CircuitBreakerHandle`]; as long as one of those is held, its breaker is not evicted.
///
/// # Examples
///
/// ```
/// use mainstay::CircuitState;
///
/// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
/// let breakers = layer.handle();
/// breakers.get_or_create(7).expect("there is room").force_open();
/// assert_eq!(breakers.get(&7).map(|it| it.state()), Some(CircuitState::ForcedOpen));
/// breakers.get(&7).expect("it was made").reset();
/// assert_eq!(breakers.keys(), 1);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct KeyedCircuitBreakerHandle<K> {
    registry: Arc<Registry<K>>,
}

// === impl KeyedCircuitBreakerHandle ===

impl<K: BreakerKey> KeyedCircuitBreakerHandle<K> {
    pub(super) const fn new(registry: Arc<Registry<K>>) -> Self {
        Self { registry }
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().name().as_str(), "shards");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.registry.name()
    }

    /// The settings, as they are now.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().config().max_keys, 1024);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> KeyedCircuitBreakerConfig {
        self.registry.config()
    }

    /// Replaces the settings at run time: for the breakers of all keys, for the shared one, and for every breaker that is made
    /// later.
    ///
    /// Each breaker keeps what [`CircuitBreakerHandle::reconfigure`] keeps: its state, its window, and the say of running calls and
    /// probes. Settings that were given to one breaker through its own handle are replaced too. With a smaller
    /// [`max_keys`](KeyedCircuitBreakerConfig::max_keys), keys that have a breaker keep it until it is idle; with a larger one,
    /// keys without a breaker get one at their next call.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] when [`KeyedCircuitBreakerConfig::validate`] finds a value that cannot be used; nothing is changed
    /// then.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitState, Outcome};
    ///
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// let breakers = layer.handle();
    /// let seventh = breakers.get_or_create(7).expect("there is room");
    ///
    /// let mut config = breakers.config();
    /// config.breaker.consecutive_failures = Some(1);
    /// breakers.reconfigure(config)?;
    /// seventh.try_acquire().expect("closed").record(Outcome::Transient);
    /// assert_eq!(seventh.state(), CircuitState::Open);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn reconfigure(&self, config: KeyedCircuitBreakerConfig) -> Result<(), InvalidConfig> {
        self.registry.reconfigure(config)
    }

    /// The breaker of `key`, if it has one. A lookup does not protect the breaker from eviction; holding the returned handle does.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert!(layer.handle().get(&7).is_none(), "it was never called");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<CircuitBreakerHandle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.registry.get(key)
    }

    /// The breaker of `key`, made if there is none: to force it open before the first call, or to use it without a service.
    /// `None` when there is no room for another key.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).max_keys(1).build()?;
    /// let breakers = layer.handle();
    /// let one = breakers.get_or_create(1).expect("there is room");
    /// assert!(one.try_acquire().is_ok());
    /// assert!(breakers.get_or_create(2).is_none());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn get_or_create(&self, key: K) -> Option<CircuitBreakerHandle> {
        self.registry.get_or_create(key)
    }

    /// The breaker of calls that have no key, and of the keys for which there is no room.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// layer.handle().shared().force_open();
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn shared(&self) -> CircuitBreakerHandle {
        self.registry.shared().clone()
    }

    /// How many keys have a breaker of their own.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().keys(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn keys(&self) -> usize {
        self.registry.len()
    }

    /// All keys and their breakers as they are now, in no order. Copies each key, and holds new ones up for as long as it takes
    /// to list them.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    ///
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// layer.handle().get_or_create(7).expect("there is room").force_open();
    /// let not_closed = layer.handle().breakers().into_iter().filter(|(_, breaker)| breaker.state() != CircuitState::Closed);
    /// assert_eq!(not_closed.map(|(shard, _)| shard).collect::<Vec<_>>(), [7]);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn breakers(&self) -> Vec<(K, CircuitBreakerHandle)> {
        self.registry.breakers()
    }

    /// The statistics: exact as soon as no call is running.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().statistics().overflowed, 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn statistics(&self) -> KeyedCircuitBreakerStatistics {
        self.registry.statistics()
    }

    /// Evicts now what may be evicted, and returns how much that was: all breakers that were idle for
    /// [`idle_after`](KeyedCircuitBreakerConfig::idle_after), which runs from when they were last *seen* to be used. Without it,
    /// breakers are looked at when new keys come, a few each time. For a process that wants its memory back although no
    /// new keys come: call it from a timer.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().evict_idle(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn evict_idle(&self) -> usize {
        self.registry.evict_idle()
    }

    /// Takes the breaker of `key` out, whatever its state: for a key that is known to come no more. Its running calls end as
    /// they would; the next call of the key gets a new breaker. Looks through all keys.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build()?;
    /// layer.handle().get_or_create(7).expect("there is room").force_open();
    /// assert!(layer.handle().remove(&7).is_some());
    /// assert_eq!(layer.handle().keys(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Option<CircuitBreakerHandle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.registry.remove(key)
    }
}

impl<K> Clone for KeyedCircuitBreakerHandle<K> {
    fn clone(&self) -> Self {
        Self { registry: self.registry.clone() }
    }
}

impl<K> fmt::Debug for KeyedCircuitBreakerHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerHandle").field("registry", &self.registry).finish()
    }
}
