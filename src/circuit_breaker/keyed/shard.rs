//! [`Shards`]: the breakers by key, for many who look up at a time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use super::super::handle::CircuitBreakerHandle;

/// Power of two. More than the threads that look up at the same instant in most processes.
const SHARDS: usize = 16;

/// One key's breaker.
pub(super) struct Entry<K> {
    pub(super) key: K,
    hash: u64,
    pub(super) handle: CircuitBreakerHandle,
    /// Somebody has asked for it since this was last looked at.
    used: AtomicBool,
}

/// A table for each part of the hashes, so that who looks up seldom meets another.
pub(super) struct Shards<K>(Box<[Shard<K>]>);

/// On cache lines of its own.
#[repr(align(128))]
struct Shard<K>(RwLock<Table<K>>);

/// By hash, which is made once a call, and by a keyed hasher: keys can come from outside.
type Table<K> = HashMap<u64, Bucket<K>, BuildHasherDefault<AsIs>>;

/// The keys of one hash: one, as good as always.
struct Bucket<K> {
    first: Arc<Entry<K>>,
    others: Vec<Arc<Entry<K>>>,
}

/// The hash is the key.
#[derive(Default)]
struct AsIs(u64);

// === impl Entry ===

impl<K> Entry<K> {
    pub(super) const fn new(key: K, hash: u64, handle: CircuitBreakerHandle) -> Self {
        Self { key, hash, handle, used: AtomicBool::new(false) }
    }

    /// When it was last of use: `now` if it was used since the last look, else what [`CircuitBreakerHandle::busy_until`] returns.
    pub(super) fn busy_until(&self, now: Instant) -> Option<Instant> {
        if self.used.swap(false, Ordering::Relaxed) { Some(now) } else { self.handle.busy_until(now) }
    }

    fn mark(&self) {
        // Read first: the line stays shared as long as nobody clears the mark.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

// === impl Shards ===

impl<K> Shards<K> {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Shard(RwLock::default())).collect())
    }

    /// The breaker of the key that has this hash and `is_it`; `mark` it as used.
    #[inline]
    pub(super) fn find(&self, hash: u64, mark: bool, is_it: impl Fn(&K) -> bool) -> Option<CircuitBreakerHandle> {
        let table = self.shard(hash).read();
        let bucket = table.get(&hash)?;
        let entry = bucket.iter().find(|entry| is_it(&entry.key))?;
        if mark {
            entry.mark();
        }
        Some(entry.handle.clone())
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&self, entry: Arc<Entry<K>>) {
        let mut table = self.shard(entry.hash).write();
        if let Some(bucket) = table.get_mut(&entry.hash) {
            bucket.others.push(entry);
        } else {
            table.insert(entry.hash, Bucket { first: entry, others: Vec::new() });
        }
    }

    /// Takes `entry` out if it `may_go`, which is asked while nobody can look it up. What was taken out lives on in `entry`.
    pub(super) fn remove_if(&self, entry: &Arc<Entry<K>>, may_go: impl FnOnce() -> bool) -> bool {
        let mut table = self.shard(entry.hash).write();
        if !may_go() {
            return false;
        }
        let Some(bucket) = table.get_mut(&entry.hash) else { return false };
        if let Some(other) = bucket.others.iter().position(|other| Arc::ptr_eq(other, entry)) {
            bucket.others.swap_remove(other);
        } else if let Some(other) = bucket.others.pop() {
            bucket.first = other;
        } else {
            table.remove(&entry.hash);
        }
        true
    }

    fn shard(&self, hash: u64) -> &Shard<K> {
        // Bits that the table itself does not go by.
        #[allow(clippy::cast_possible_truncation, reason = "four bits are left")]
        let index = (hash >> 32) as usize % SHARDS;
        &self.0[index]
    }
}

// === impl Shard ===

impl<K> Shard<K> {
    /// A panic in a key's `Eq` leaves the table as it was.
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, Table<K>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<K>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bucket ===

impl<K> Bucket<K> {
    fn iter(&self) -> impl Iterator<Item = &Arc<Entry<K>>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

// === impl AsIs ===

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
