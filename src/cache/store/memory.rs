//! [`MemoryStore`]: entries in this process's memory, over moka.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use super::{Lookup, Store, StoreError};
use crate::cache::entry::Entry;

/// Keeps entries in memory, bounded by their number or their weight; what is asked for seldom goes first (TinyLFU).
///
/// moka bounds and evicts; it also drops what has outlived its use, by its own clock, which only frees memory sooner. Whether
/// an entry may be served is read from the entry, by tokio's clock, so a paused clock in a test drives it.
///
/// # Examples
///
/// ```
/// use mainstay::cache::MemoryStore;
///
/// let store: MemoryStore<String, Vec<u8>> = MemoryStore::new(10_000);
/// let by_bytes: MemoryStore<String, Vec<u8>> = MemoryStore::weighted(64 << 20, |key: &String, bytes| {
///     u32::try_from(key.len() + bytes.map_or(0, Vec::len)).unwrap_or(u32::MAX)
/// });
/// # let _ = (store, by_bytes);
/// ```
pub struct MemoryStore<K, V> {
    entries: Cache<K, Kept<V>>,
}

/// An entry, and for how long moka is told to keep it.
struct Kept<V> {
    entry: Arc<Entry<V>>,
    keep_for: Duration,
}

struct KeepFor;

// === impl MemoryStore ===

impl<K, V> MemoryStore<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A store of at most `capacity` entries. With 0 it keeps nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::MemoryStore;
    ///
    /// let store: MemoryStore<u32, String> = MemoryStore::new(10_000);
    /// assert!(store.is_empty());
    /// ```
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { entries: Cache::builder().max_capacity(capacity).expire_after(KeepFor).build() }
    }

    /// A store whose entries' weights add up to `capacity` at most. A remembered refusal that came as an error has no
    /// response to weigh: `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::MemoryStore;
    ///
    /// let store: MemoryStore<u32, String> = MemoryStore::weighted(64 << 20, |_, text: Option<&String>| {
    ///     text.map_or(1, |text| u32::try_from(text.len()).unwrap_or(u32::MAX))
    /// });
    /// # let _ = store;
    /// ```
    #[must_use]
    pub fn weighted(capacity: u64, weigh: impl Fn(&K, Option<&V>) -> u32 + Send + Sync + 'static) -> Self {
        let weigher = move |key: &K, kept: &Kept<V>| weigh(key, kept.entry.answer().ok());
        Self { entries: Cache::builder().max_capacity(capacity).weigher(weigher).expire_after(KeepFor).build() }
    }

    /// The number of entries; approximate while the store is in use.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::MemoryStore;
    ///
    /// let store: MemoryStore<u32, String> = MemoryStore::new(10_000);
    /// assert_eq!(store.len(), 0);
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }

    /// Whether [`len`](Self::len) is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::MemoryStore;
    ///
    /// assert!(MemoryStore::<u32, String>::new(10_000).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A clone is a handle to the same entries.
impl<K, V> Clone for MemoryStore<K, V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone() }
    }
}

impl<K, V> fmt::Debug for MemoryStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("entries", &self.entries.entry_count()).finish_non_exhaustive()
    }
}

impl<K, V> Store<K, V> for MemoryStore<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    #[inline]
    fn get_now(&self, key: &K) -> Lookup<V> {
        Lookup::Known(self.entries.get(key).map(|kept| kept.entry))
    }

    async fn get(&self, key: &K) -> Result<Option<Arc<Entry<V>>>, StoreError> {
        Ok(self.entries.get(key).map(|kept| kept.entry))
    }

    async fn set(&self, key: &K, entry: Arc<Entry<V>>, keep_for: Duration) -> Result<(), StoreError> {
        self.entries.insert(key.clone(), Kept { entry, keep_for });
        Ok(())
    }

    async fn remove(&self, key: &K) -> Result<(), StoreError> {
        self.entries.invalidate(key);
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.entries.invalidate_all();
        Ok(())
    }
}

// === impl Kept ===

impl<V> Clone for Kept<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), keep_for: self.keep_for }
    }
}

// === impl KeepFor ===

impl<K, V> Expiry<K, Kept<V>> for KeepFor {
    fn expire_after_create(&self, _: &K, kept: &Kept<V>, _: Instant) -> Option<Duration> {
        Some(kept.keep_for)
    }

    fn expire_after_update(&self, _: &K, kept: &Kept<V>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.keep_for)
    }
}
