//! [`CacheHandle`]: reads and controls a cache at run time.

use std::fmt;
use std::sync::Arc;

use super::config::CacheConfig;
use super::core::{Core, Owner};
use super::key::CacheKey;
use super::store::{Store, StoreError};
use crate::name::Name;

/// A cheap handle to a cache: statistics, invalidation.
///
/// As long as one exists, loads and refreshes that are under way go on, although no service is left.
///
/// # Examples
///
/// ```
/// use mainstay::cache::{CacheLayer, MemoryStore, CacheHandle};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
/// let layer = CacheLayer::builder("users").key(|id: &u32| Some(*id)).build()?;
/// let handle: CacheHandle<u32, String, MemoryStore<u32, String>> = layer.handle();
/// handle.invalidate(&7).await?;
/// handle.invalidate_tag("team:1");
/// assert_eq!(handle.statistics().hits, 0);
/// # Ok(()) }
/// ```
pub struct CacheHandle<K, V, St> {
    core: Arc<Core<K, V, St>>,
    owner: Arc<Owner>,
}

/// What a cache has counted since it was made.
///
/// Every call is counted once, when it ends: [`calls`](Self::calls) is `hits + negative_hits + stale_hits + misses + coalesced
/// + uncached + refused + abandoned`.
///
/// # Examples
///
/// ```
/// let statistics = mainstay::cache::CacheStatistics::default();
/// assert_eq!(statistics.hit_rate(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Calls that were answered with a fresh response from the store.
    pub hits: u64,
    /// Calls that were answered with a remembered refusal.
    pub negative_hits: u64,
    /// Calls that were answered with an old response, for whatever reason.
    pub stale_hits: u64,
    /// Calls that led a load and got what it gave, an answer or an error.
    pub misses: u64,
    /// Calls that shared the load of another call.
    pub coalesced: u64,
    /// Calls without a key: sent straight to the inner service.
    pub uncached: u64,
    /// Calls that got a refusal of this layer: no room for the load, or the caller's deadline passed while it waited.
    pub refused: u64,
    /// Calls whose callers left before the answer.
    pub abandoned: u64,
    /// Loads that began, refreshes included, and have ended.
    pub loads: u64,
    /// Loads that failed, refreshes included. A refusal by the inner service is no failure.
    pub load_failures: u64,
    /// Loads that were cut off with the cache itself.
    pub abandoned_loads: u64,
    /// Loads that ran behind an old answer.
    pub refreshes: u64,
    /// Of these, the ones that failed.
    pub refresh_failures: u64,
    /// Operations that the store failed at, or took too long for.
    pub store_errors: u64,
    /// Operations that the store was not asked for because it kept failing.
    pub store_bypassed: u64,
}

// === impl CacheHandle ===

impl<K, V, St> CacheHandle<K, V, St> {
    pub(crate) const fn new(core: Arc<Core<K, V, St>>, owner: Arc<Owner>) -> Self {
        Self { core, owner }
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().name().as_str(), "users");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.core.emitter.name()
    }

    /// The store.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert!(layer.handle().store().is_empty());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> &St {
        &self.core.store
    }

    /// The settings.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().config(), mainstay::CacheConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> CacheConfig {
        self.core.config.clone()
    }

    /// What was counted so far.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().statistics().calls(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        self.core.counts.read()
    }
}

impl<K: CacheKey, V: Send + Sync + 'static, St: Store<K, V>> CacheHandle<K, V, St> {
    /// Forgets the answer of `key`. A load of it that is under way answers those who called before and is not stored. Later calls
    /// start a second load beside it; while two loads of the key run, further calls wait for the newer one to end first.
    ///
    /// Once this has returned without an error, no call made afterwards gets an answer that was loaded before: not as a fresh
    /// one, not as a stale one, and not from a load or a write to the store that was under way.
    ///
    /// # Errors
    ///
    /// What the store failed with: it may still have the old answer. The memory store never fails.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it was polled it does nothing, dropped after that the store may or may not have forgotten the key.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// layer.handle().invalidate(&7).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn invalidate(&self, key: &K) -> Result<(), StoreError> {
        self.core.invalidate(key).await
    }

    /// Forgets every answer with `tag` (see [`CacheBuilder::tags`](super::CacheBuilder::tags)) whose load began before this
    /// returns. A later call may wait for a load that began before, since only its answer shows whether it has the tag; if it
    /// has, the call waits for the next load of its key.
    ///
    /// It takes the same short time whatever the number of entries: they are not looked for, but found to be dead when they are
    /// asked for. Their memory is freed as they expire or are evicted.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// layer.handle().invalidate_tag("team:1");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn invalidate_tag(&self, tag: &str) {
        self.core.versions.invalidate(tag);
    }

    /// Forgets every answer whose load began before this returns. A later call gets no answer of such a load: it waits until the
    /// load has ended and then for the next one, so that clearing a busy cache does not double its loads.
    ///
    /// # Errors
    ///
    /// What the store failed with. Its entries are dead all the same; only their memory is not free yet.
    ///
    /// # Cancel safety
    ///
    /// As [`invalidate`](Self::invalidate).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// layer.handle().clear().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn clear(&self) -> Result<(), StoreError> {
        self.core.versions.clear();
        self.core.forget_cooldowns();
        self.core.store_clear().await
    }

    /// How many loads run now.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().loading(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn loading(&self) -> usize {
        self.core.loading()
    }

    /// How many loads run or wait for their turn.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).build()?;
    /// assert_eq!(layer.handle().under_way(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.core.flights.loads()
    }
}

impl<K, V, St> Clone for CacheHandle<K, V, St> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), owner: Arc::clone(&self.owner) }
    }
}

impl<K, V, St> fmt::Debug for CacheHandle<K, V, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle").field("name", self.name()).field("statistics", &self.statistics()).finish()
    }
}

// === impl CacheStatistics ===

impl CacheStatistics {
    /// Calls that have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut statistics = mainstay::CacheStatistics::default();
    /// (statistics.hits, statistics.misses, statistics.uncached) = (3, 1, 2);
    /// assert_eq!(statistics.calls(), 6);
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.hits
            + self.negative_hits
            + self.stale_hits
            + self.misses
            + self.coalesced
            + self.uncached
            + self.refused
            + self.abandoned
    }

    /// The share of the calls with a key that were answered from the store, old answers included; `None` before the first.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut statistics = mainstay::CacheStatistics::default();
    /// assert_eq!(statistics.hit_rate(), None);
    /// (statistics.hits, statistics.misses) = (3, 1);
    /// assert_eq!(statistics.hit_rate(), Some(0.75));
    /// ```
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact to the last of 2^52 calls")]
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.hits + self.negative_hits + self.stale_hits;
        let calls = self.calls() - self.uncached;
        (calls > 0).then(|| hits as f64 / calls as f64)
    }
}
