//! [`Core`]: what all services, handles and loads of one cache share.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::config::CacheConfig;
use super::cooldown::Cooldowns;
use super::entry::Entry;
use super::gate::Gate;
use super::handle::CacheStatistics;
use super::key::CacheKey;
use super::limit::Within;
use super::served::StaleReason;
use super::single_flight::{Flights, Landing};
use super::store::{Lookup, Store, StoreError};
use super::versions::Versions;
use crate::cores::lock::lock;
use crate::cores::random;
use crate::telemetry::event::{CacheEvent, CacheEventKind};
use crate::telemetry::{Durations, Emitter, Event, Level, Tally, names};

/// The writes to the store that may run at once. A write that finds no place is left out.
const MAX_WRITES: usize = 1024;

/// The shared part of a cache.
pub(crate) struct Core<K, V, St> {
    pub(crate) config: CacheConfig,
    pub(crate) store: St,
    pub(crate) versions: Versions,
    pub(crate) flights: Arc<Flights<K, V>>,
    /// Places for loads that run at once.
    pub(crate) places: Arc<Semaphore>,
    /// Places for writes to the store that run at once.
    writes: Semaphore,
    pub(crate) emitter: Emitter,
    pub(crate) counts: Counts,
    /// Told when the last [`Owner`] is gone.
    pub(crate) closed: watch::Receiver<()>,
    cooldowns: Mutex<Cooldowns<K>>,
    /// Judge the reads and the writes of the store apart: writes that succeed do not show that reads would.
    reads: Mutex<Gate>,
    writing: Mutex<Gate>,
    draws: AtomicU64,
}

/// Held by layers, services, handles and pending calls, but by no task: loads and refreshes end with the last of it.
#[derive(Debug)]
pub(crate) struct Owner {
    _alive: watch::Sender<()>,
}

#[derive(Debug)]
pub(crate) struct Counts {
    calls: Tally<8>,
    stale: Tally<5>,
    loads: Tally<4>,
    refreshes: Tally<2>,
    errors: Tally<4>,
    loading: Level,
    durations: Durations,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Hit,
    NegativeHit,
    Stale,
    Miss,
    Coalesced,
    Uncached,
    Refused,
    Abandoned,
}

/// What came of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    Stored,
    NotStored,
    Failed,
    Abandoned,
}

// === impl Core ===

impl<K: CacheKey, V: Send + Sync + 'static, St: Store<K, V>> Core<K, V, St> {
    pub(crate) fn new(config: CacheConfig, store: St, emitter: Emitter) -> (Self, Owner) {
        let (alive, closed) = watch::channel(());
        let gate = || Mutex::new(Gate::new(config.store_failures, config.store_backoff, config.max_store_backoff));
        let core = Self {
            store,
            versions: Versions::new(),
            flights: Arc::new(Flights::new(config.max_concurrent_loads.saturating_add(config.max_queued_loads))),
            places: Arc::new(Semaphore::new(config.max_concurrent_loads)),
            writes: Semaphore::new(MAX_WRITES),
            counts: Counts::new(&emitter),
            emitter,
            closed,
            cooldowns: Mutex::new(Cooldowns::new(config.refresh_backoff, config.max_refresh_backoff)),
            reads: gate(),
            writing: gate(),
            draws: AtomicU64::new(0),
            config,
        };
        (core, Owner { _alive: alive })
    }

    /// What the store knows at once, without entries that were invalidated.
    #[inline]
    pub(crate) fn look(&self, key: &K) -> Lookup<V> {
        match self.store.get_now(key) {
            Lookup::Known(entry) => Lookup::Known(entry.filter(|entry| self.is_live(entry))),
            Lookup::Ask => Lookup::Ask,
        }
    }

    /// Whether `entry` was invalidated neither by its key, nor by a tag, nor with everything.
    #[inline]
    pub(crate) fn is_live(&self, entry: &Entry<V>) -> bool {
        !entry.is_dead() && self.versions.is_current(entry.stamp())
    }

    /// Whether a call may get the answer of a load that it waited for, when `boarded` was [`Versions::now`] as it boarded. An
    /// invalidation after that does not matter to it; whether an earlier one concerned the answer is not known exactly, so
    /// that it may wait once more for nothing.
    pub(crate) fn is_for(&self, entry: &Entry<V>, boarded: u64) -> bool {
        self.versions.is_current(entry.stamp()) || entry.stamp().began() >= boarded
    }

    /// Whether a call that waited for a flight has to board another one: the flight was of no use to it.
    pub(crate) fn must_board_again(&self, late: bool, landing: &Landing<V>, boarded: u64) -> bool {
        match landing {
            Landing::Loaded(entry) => late || !self.is_for(entry, boarded),
            Landing::Found(entry) | Landing::StandIn(entry, _) => late || !self.is_live(entry),
            Landing::Private => true,
            // A failure of the callee is the same for everyone.
            Landing::Failure(_) | Landing::Failed(_) | Landing::Full => false,
        }
    }

    /// Forgets the answer of `key`, also where a load or a call holds it.
    pub(crate) async fn invalidate(&self, key: &K) -> Result<(), StoreError> {
        self.flights.invalidate(key);
        if let Lookup::Known(Some(entry)) = self.store.get_now(key) {
            entry.kill();
        }
        self.warm(key);
        let removed = self.store_remove(key).await;
        self.flights.removed(key);
        removed
    }

    /// The next draw in [0, 1): of the seed's sequence, or of the thread's.
    pub(crate) fn draw(&self) -> f64 {
        random::unit(match self.config.seed {
            Some(seed) => {
                let nth = self.draws.fetch_add(1, Ordering::Relaxed);
                random::Random::seeded(seed.wrapping_add(random::mix(nth))).draw()
            }
            None => random::thread_draw(),
        })
    }

    pub(crate) fn is_cooling(&self, key: &K, now: Instant) -> bool {
        lock(&self.cooldowns).is_cooling(key, now.into_std())
    }

    /// Notes a failed load of a key that has an old answer: for how long it is left alone, at least for the time that the
    /// callee asked for.
    pub(crate) fn cool_down(&self, key: &K, now: Instant, retry_after: Option<Duration>) -> Duration {
        let draw = self.draw();
        lock(&self.cooldowns).failed(key, now.into_std(), draw, retry_after)
    }

    pub(crate) fn warm(&self, key: &K) {
        lock(&self.cooldowns).succeeded(key);
    }

    pub(crate) fn forget_cooldowns(&self) {
        lock(&self.cooldowns).clear();
    }

    /// How many loads run now.
    pub(crate) fn loading(&self) -> usize {
        self.config.max_concurrent_loads.saturating_sub(self.places.available_permits())
    }

    pub(crate) fn emit(&self, kind: CacheEventKind<'static>) {
        self.emitter.emit(|name| Event::Cache(CacheEvent { name, kind }));
    }

    /// Asks the store for `key`; whatever goes wrong is counted and reads as nothing.
    pub(crate) async fn store_get(&self, key: &K) -> Option<Arc<Entry<V>>> {
        let entry = self.guarded(&self.reads, "get", self.store.get(key)).await.ok().flatten()?;
        self.is_live(&entry).then_some(entry)
    }

    /// Stores `entry`, unless very many writes are under way: the limit on loads does not bound them.
    pub(crate) async fn store_set(&self, key: &K, entry: Arc<Entry<V>>, now: Instant) {
        let Ok(_write) = self.writes.try_acquire() else {
            self.counts.store_error(&StoreError::Bypassed);
            return;
        };
        let keep_for = entry.keep_for(now.into_std());
        _ = self.guarded(&self.writing, "set", self.store.set(key, entry, keep_for)).await;
    }

    pub(crate) async fn store_remove(&self, key: &K) -> Result<(), StoreError> {
        self.guarded(&self.writing, "remove", self.store.remove(key)).await
    }

    pub(crate) async fn store_clear(&self) -> Result<(), StoreError> {
        self.guarded(&self.writing, "clear", self.store.clear()).await
    }

    /// Runs one operation of the store behind its timeout and its gate.
    async fn guarded<T>(
        &self,
        gate: &Mutex<Gate>,
        operation: &'static str,
        future: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let pass = lock(gate).pass(Instant::now().into_std());
        let Some(pass) = pass else {
            self.counts.store_error(&StoreError::Bypassed);
            return Err(StoreError::Bypassed);
        };
        let timeout = self.config.store_timeout;
        let result = match AssertUnwindSafe(Within::new(Some(timeout), future)).catch_unwind().await {
            Ok(Some(result)) => result,
            Ok(None) => Err(StoreError::TimedOut { timeout }),
            Err(_panic) => Err(StoreError::Panicked),
        };
        match &result {
            Ok(_) => lock(gate).succeeded(pass),
            Err(error) => {
                lock(gate).failed(pass, Instant::now().into_std());
                self.counts.store_error(error);
                let reason = error.to_string();
                self.emitter.emit(|name| {
                    let kind = CacheEventKind::StoreFailed { operation, reason: &reason };
                    Event::Cache(CacheEvent { name, kind })
                });
            }
        }
        result
    }
}

impl<K, V, St> fmt::Debug for Core<K, V, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("name", self.emitter.name()).finish_non_exhaustive()
    }
}

// === impl Counts ===

impl Counts {
    fn new(emitter: &Emitter) -> Self {
        let name = emitter.name();
        let calls = ["hit", "negative_hit", "stale", "miss", "coalesced", "uncached", "refused", "abandoned"];
        let stale = StaleReason::ALL.map(StaleReason::as_str);
        Self {
            calls: Tally::new(name, names::CACHE_CALLS, "result", calls),
            stale: Tally::new(name, names::CACHE_STALE, "reason", stale),
            loads: Tally::new(name, names::CACHE_LOADS, "outcome", ["stored", "not_stored", "failed", "abandoned"]),
            refreshes: Tally::new(name, names::CACHE_REFRESHES, "outcome", ["success", "failure"]),
            errors: Tally::new(name, names::CACHE_ERRORS, "reason", ["failed", "timeout", "bypassed", "panicked"]),
            loading: Level::new(name, names::CACHE_LOADING),
            durations: Durations::new(name, names::CACHE_LOAD_DURATION),
        }
    }

    #[inline]
    pub(crate) fn call(&self, call: Call) {
        self.calls.add(call as usize);
    }

    pub(crate) fn stale(&self, reason: StaleReason) {
        self.calls.add(Call::Stale as usize);
        self.stale.add(reason as usize);
    }

    pub(crate) fn load(&self, loaded: Loaded, refresh: bool) {
        self.loads.add(loaded as usize);
        if refresh && loaded != Loaded::Abandoned {
            self.refreshes.add(usize::from(loaded == Loaded::Failed));
        }
    }

    pub(crate) fn load_took(&self, duration: Duration) {
        self.durations.record(duration);
    }

    #[allow(clippy::cast_precision_loss, reason = "a count of loads is far below 2^52")]
    pub(crate) fn loading(&self, loads: usize) {
        self.loading.set(loads as f64);
    }

    pub(crate) fn store_error(&self, error: &StoreError) {
        self.errors.add(match error {
            StoreError::Failed(_) => 0,
            StoreError::TimedOut { .. } => 1,
            StoreError::Bypassed => 2,
            StoreError::Panicked => 3,
        });
    }

    pub(crate) fn read(&self) -> CacheStatistics {
        let [hits, negative_hits, stale_hits, misses, coalesced, uncached, refused, abandoned] = self.calls.all();
        let [stored, not_stored, load_failures, abandoned_loads] = self.loads.all();
        let [refreshed, refresh_failures] = self.refreshes.all();
        let [failed, timed_out, store_bypassed, panicked] = self.errors.all();
        CacheStatistics {
            hits,
            negative_hits,
            stale_hits,
            misses,
            coalesced,
            uncached,
            refused,
            abandoned,
            loads: stored + not_stored + load_failures + abandoned_loads,
            load_failures,
            abandoned_loads,
            refreshes: refreshed + refresh_failures,
            refresh_failures,
            store_errors: failed + timed_out + panicked,
            store_bypassed,
        }
    }
}
