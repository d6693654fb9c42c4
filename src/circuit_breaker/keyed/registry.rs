//! [`Registry`]: the breakers of all keys, within their bounds.
//!
//! A key that is known costs its hash, a read lock on one of sixteen tables and a mark; no clock, no allocation. Everything
//! else goes through the one lock of the [`Ring`]: a new key, an eviction, a removal. A key for which there is no room does not
//! even wait for that: whoever finds it taken is served by the shared breaker at once.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::super::breaker::{Breaker, GroupAccounts, Observer, now};
use super::super::config::CircuitBreakerConfig;
use super::super::handle::CircuitBreakerHandle;
use super::super::own_rules::OwnRules;
use super::super::transition::Transition;
use super::config::KeyedCircuitBreakerConfig;
use super::key::BreakerKey;
use super::ring::Ring;
use super::shard::{Entry, Shards};
use super::statistics::KeyedCircuitBreakerStatistics;
use crate::cores::lock::lock;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::telemetry::event::{CircuitBreakerEvent, CircuitBreakerEventKind};
use crate::telemetry::{Emitter, Event, Level, Listener, Tally, names};

/// How many are looked at for each new key: twice as many as come, so that the idle ones go faster than new ones come.
const STEPS: usize = 2;
/// How many are looked at when there is no room.
const STEPS_WHEN_FULL: usize = 8;

const EVENTS: [&str; 4] = ["created", "evicted", "removed", "overflowed"];
const CREATED: usize = 0;
const EVICTED: usize = 1;
const REMOVED: usize = 2;
const OVERFLOWED: usize = 3;

/// Told of the transitions of every key's breaker; of the shared one without a key.
pub(super) type KeyObserver<K> = Box<dyn Fn(Option<&K>, &Transition) + Send + Sync>;

pub(super) struct Registry<K> {
    own: OwnRules,
    observers: Option<Arc<Observers<K>>>,
    accounts: GroupAccounts,
    /// For calls without a key, and for keys without room.
    shared: CircuitBreakerHandle,
    hasher: RandomState,
    shards: Shards<K>,
    ring: Mutex<Keys<K>>,
    /// The number of keys and the most there may be, for calls that do not take the lock.
    len: AtomicUsize,
    max_keys: AtomicUsize,
    events: Tally<4>,
    level: Level,
    emitter: Emitter,
}

struct Keys<K> {
    config: KeyedCircuitBreakerConfig,
    /// How often `config` was replaced.
    revision: u64,
    ring: Ring<Arc<Entry<K>>>,
    /// That there is no room was told, and there was none since.
    exhausted: bool,
}

/// What a registry is made of.
pub(super) struct Parts<K> {
    pub(super) name: Name,
    pub(super) config: KeyedCircuitBreakerConfig,
    pub(super) own: OwnRules,
    pub(super) listener: Option<Arc<dyn Listener>>,
    pub(super) observers: Vec<Observer>,
    pub(super) key_observers: Vec<KeyObserver<K>>,
}

struct Observers<K> {
    of_all: Vec<Observer>,
    of_keys: Vec<KeyObserver<K>>,
}

// === impl Registry ===

impl<K: BreakerKey> Registry<K> {
    /// The caller has validated the settings.
    pub(super) fn new(parts: Parts<K>) -> Self {
        let Parts { name, config, own, listener, observers, key_observers } = parts;
        let is_observed = !observers.is_empty() || !key_observers.is_empty();
        let observers = is_observed.then(|| Arc::new(Observers { of_all: observers, of_keys: key_observers }));
        let (accounts, emitter) = (GroupAccounts::new(&name), Emitter::new(&name, listener));
        let shared = Breaker::of_group(
            emitter.clone(),
            config.breaker.clone(),
            own.clone(),
            observers.iter().map(|observers| Observers::watch(observers, None)).collect(),
            &accounts,
        );
        Self {
            shared: CircuitBreakerHandle::from_breaker(shared),
            hasher: RandomState::new(),
            shards: Shards::new(),
            len: AtomicUsize::new(0),
            max_keys: AtomicUsize::new(config.max_keys),
            ring: Mutex::new(Keys { config, revision: 0, ring: Ring::new(), exhausted: false }),
            events: Tally::new(&name, names::CIRCUIT_BREAKER_KEY_EVENTS, "event", EVENTS),
            level: Level::new(&name, names::CIRCUIT_BREAKER_KEYS),
            emitter,
            own,
            observers,
            accounts,
        }
    }

    pub(super) fn name(&self) -> &Name {
        self.emitter.name()
    }

    pub(super) fn config(&self) -> KeyedCircuitBreakerConfig {
        lock(&self.ring).config.clone()
    }

    /// Puts other settings in place of these, for the breakers that exist and for those that will be made.
    pub(super) fn reconfigure(&self, config: KeyedCircuitBreakerConfig) -> Result<(), InvalidConfig> {
        config.validate_with(self.own.trip.is_some()).map_err(|error| error.of_layer(self.name().clone()))?;
        let mut revision = {
            let mut keys = lock(&self.ring);
            self.max_keys.store(config.max_keys, Ordering::Relaxed);
            keys.config = config;
            keys.revision += 1;
            keys.revision
        };
        loop {
            let (config, handles) = {
                let keys = lock(&self.ring);
                let handles: Vec<_> = keys.ring.iter().map(|entry| entry.handle.clone()).collect();
                revision = revision.max(keys.revision);
                (keys.config.breaker.clone(), handles)
            };
            // Outside the lock: it runs the wakers of waiting calls.
            for handle in handles.iter().chain([&self.shared]) {
                handle.reconfigure(config.clone())?;
            }
            // Another thread may have replaced the settings meanwhile, and its breakers with ours: the last to finish applies
            // the newest.
            if lock(&self.ring).revision == revision {
                return Ok(());
            }
        }
    }

    pub(super) fn shared(&self) -> &CircuitBreakerHandle {
        &self.shared
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The breaker that a call of `key` belongs to.
    #[inline]
    pub(super) fn of_call<Q: Hash + ?Sized>(
        &self,
        key: Option<&Q>,
        is: impl Fn(&K, &Q) -> bool,
        own: impl FnOnce(&Q) -> K,
    ) -> CircuitBreakerHandle {
        let Some(key) = key else { return self.shared.clone() };
        let hash = self.hasher.hash_one(key);
        let is_it = |known: &K| is(known, key);
        match self.shards.find(hash, true, is_it) {
            Some(handle) => handle,
            None => self.of_new_key(hash, is_it, || own(key)).unwrap_or_else(|| {
                self.events.add(OVERFLOWED);
                self.shared.clone()
            }),
        }
    }

    /// The breaker of `key`, if it has one. That is no use of it.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<CircuitBreakerHandle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards.find(self.hasher.hash_one(key), false, |known| known.borrow() == key)
    }

    /// The breaker of `key`, made if there is room for it.
    pub(super) fn get_or_create(&self, key: K) -> Option<CircuitBreakerHandle> {
        let hash = self.hasher.hash_one(&key);
        let is_it = |known: &K| *known == key;
        self.shards.find(hash, true, is_it).or_else(|| self.of_new_key(hash, is_it, || key.clone()))
    }

    /// Makes room if there is none, and the breaker if there is room then.
    #[cold]
    #[inline(never)]
    fn of_new_key(
        &self,
        hash: u64,
        is_it: impl Fn(&K) -> bool,
        own: impl FnOnce() -> K,
    ) -> Option<CircuitBreakerHandle> {
        let mut keys = self.keys()?;
        // Another call may have been first.
        if let Some(handle) = self.shards.find(hash, true, is_it) {
            return Some(handle);
        }
        let now = now();
        let KeyedCircuitBreakerConfig { max_keys, idle_after, .. } = keys.config;
        let steps = if keys.ring.len() < max_keys { STEPS } else { STEPS_WHEN_FULL };
        let evicted = self.sweep(&mut keys, steps, idle_after, now);
        let has_room = keys.ring.len() < max_keys;
        let was_exhausted = std::mem::replace(&mut keys.exhausted, !has_room);
        let made = has_room.then(|| {
            let entry = Arc::new(self.make(own(), hash, keys.config.breaker.clone()));
            let handle = entry.handle.clone();
            self.shards.insert(entry.clone());
            keys.ring.push(entry, now);
            self.events.add(CREATED);
            handle
        });
        self.publish(&keys);
        drop(keys);
        // Keys, and wakers of whoever waits for the end of a breaker, are the code of others.
        drop(evicted);
        if !has_room && !was_exhausted {
            self.tell_exhausted(max_keys);
        }
        made
    }

    /// The lock, unless it is taken and there is no room anyway.
    fn keys(&self) -> Option<MutexGuard<'_, Keys<K>>> {
        if self.len() < self.max_keys.load(Ordering::Relaxed) {
            return Some(lock(&self.ring));
        }
        match self.ring.try_lock() {
            Ok(keys) => Some(keys),
            Err(TryLockError::Poisoned(keys)) => Some(keys.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn make(&self, key: K, hash: u64, config: CircuitBreakerConfig) -> Entry<K> {
        let observers = self.observers.iter().map(|observers| Observers::watch(observers, Some(key.clone()))).collect();
        let breaker = Breaker::of_group(self.emitter.clone(), config, self.own.clone(), observers, &self.accounts);
        Entry::new(key, hash, CircuitBreakerHandle::one_of(breaker))
    }

    /// Looks at the next `steps` breakers, and takes out those that were idle, if they still are when no call can look them up.
    fn sweep(&self, keys: &mut Keys<K>, steps: usize, idle_after: Duration, now: Instant) -> Vec<Arc<Entry<K>>> {
        let is_idle = |until: Instant| now.saturating_duration_since(until) >= idle_after;
        let evict = |entry: &Arc<Entry<K>>| {
            let evicted = self.shards.remove_if(entry, || entry.busy_until(now).is_none_or(is_idle));
            if evicted {
                self.events.add(EVICTED);
            }
            evicted
        };
        keys.ring.sweep(steps, idle_after, now, |entry| entry.busy_until(now), evict)
    }

    /// Evicts all that can be, and returns how many were.
    pub(super) fn evict_idle(&self) -> usize {
        let mut keys = lock(&self.ring);
        let (all, idle_after) = (keys.ring.len(), keys.config.idle_after);
        let evicted = self.sweep(&mut keys, all, idle_after, now());
        self.publish(&keys);
        drop(keys);
        evicted.len()
    }

    /// Takes out the breaker of `key`, whatever its state.
    pub(super) fn remove<Q>(&self, key: &Q) -> Option<CircuitBreakerHandle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut keys = lock(&self.ring);
        let entry = keys.ring.remove(|entry| entry.key.borrow() == key)?;
        self.shards.remove_if(&entry, || true);
        self.events.add(REMOVED);
        self.publish(&keys);
        drop(keys);
        Some(entry.handle.clone())
    }

    /// All keys and their breakers, in no order.
    pub(super) fn breakers(&self) -> Vec<(K, CircuitBreakerHandle)> {
        // Cloned outside the lock: it is the code of others.
        let entries: Vec<_> = lock(&self.ring).ring.iter().cloned().collect();
        entries.iter().map(|entry| (entry.key.clone(), entry.handle.clone())).collect()
    }

    pub(super) fn statistics(&self) -> KeyedCircuitBreakerStatistics {
        let [successes, refused, failures, ignored, rejected, abandoned] = self.accounts.ends();
        let [would_have_opened, would_have_rejected] = self.accounts.would_have();
        let [created, evicted, removed, overflowed] = self.events.all();
        KeyedCircuitBreakerStatistics {
            keys: self.len(),
            created,
            evicted,
            removed,
            overflowed,
            successes,
            refused,
            failures,
            ignored,
            rejected,
            abandoned,
            would_have_opened,
            would_have_rejected,
        }
    }

    fn publish(&self, keys: &MutexGuard<'_, Keys<K>>) {
        let len = keys.ring.len();
        if self.len.swap(len, Ordering::Relaxed) != len {
            self.level.set(f64::from(u32::try_from(len).unwrap_or(u32::MAX)));
        }
    }

    #[cold]
    fn tell_exhausted(&self, keys: usize) {
        self.emitter.emit(|name| {
            Event::CircuitBreaker(CircuitBreakerEvent { name, kind: CircuitBreakerEventKind::KeysExhausted { keys } })
        });
    }
}

impl<K> fmt::Debug for Registry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("name", self.emitter.name())
            .field("keys", &self.len.load(Ordering::Relaxed))
            .field("max_keys", &self.max_keys.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

// === impl Observers ===

impl<K: BreakerKey> Observers<K> {
    /// The observer of one breaker, which tells all of these.
    fn watch(this: &Arc<Self>, key: Option<K>) -> Observer {
        let this = this.clone();
        Box::new(move |change| {
            // One that panics must not keep the others from being told; the panic hook has told the operator.
            for observer in &this.of_all {
                let _ = catch_unwind(AssertUnwindSafe(|| observer(change)));
            }
            for observer in &this.of_keys {
                let _ = catch_unwind(AssertUnwindSafe(|| observer(key.as_ref(), change)));
            }
        })
    }
}
