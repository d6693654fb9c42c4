//! Invalidation, single flight, and what may be shared or stored.
#![cfg(feature = "cache")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use mainstay::cache::{
    Cache, CacheBuilder, CacheLayer, Entry, Lookup, MemoryStore, Served, StaleReason, Store, StoreError,
};
use mainstay::{BoxError, Classify, Outcome, Rejectable, Rejected, classify_fn};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, service_fn};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets every task that can run do so, without moving the clock.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

// === a source with a value, and a store that is slow ===

/// What a load reads as it begins, how long it takes, and how it ends.
#[derive(Clone)]
struct Source(Arc<SourceState>);

struct SourceState {
    value: AtomicUsize,
    loads: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    takes: Mutex<VecDeque<Duration>>,
    then: Mutex<Duration>,
    fails: Mutex<bool>,
}

impl Source {
    fn new(takes: Duration) -> Self {
        Self(Arc::new(SourceState {
            value: AtomicUsize::new(1),
            loads: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            takes: Mutex::default(),
            then: Mutex::new(takes),
            fails: Mutex::new(false),
        }))
    }

    fn set(&self, value: usize) {
        self.0.value.store(value, Ordering::SeqCst);
    }

    fn takes(&self, time: Duration) {
        *self.0.then.lock().unwrap() = time;
    }

    /// How long the next loads take, before the usual time applies again.
    fn next(&self, times: impl IntoIterator<Item = Duration>) {
        self.0.takes.lock().unwrap().extend(times);
    }

    fn fails(&self, fails: bool) {
        *self.0.fails.lock().unwrap() = fails;
    }

    fn loads(&self) -> usize {
        self.0.loads.load(Ordering::SeqCst)
    }

    /// The most loads that ran at once.
    fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }
}

struct Running(Arc<SourceState>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<u32> for Source {
    type Response = Value;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Value, BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let state = Arc::clone(&self.0);
        state.loads.fetch_add(1, Ordering::SeqCst);
        let now = state.running.fetch_add(1, Ordering::SeqCst) + 1;
        state.most.fetch_max(now, Ordering::SeqCst);
        let value = state.value.load(Ordering::SeqCst);
        let takes = state.takes.lock().unwrap().pop_front().unwrap_or(*state.then.lock().unwrap());
        let running = Running(state);
        async move {
            sleep(takes).await;
            if *running.0.fails.lock().unwrap() {
                return Err("connection reset".into());
            }
            Ok(Value { value, served: None })
        }
        .boxed()
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Value {
    value: usize,
    served: Option<Served>,
}

/// Keeps its entries elsewhere: each operation takes a time and may fail a number of times.
#[derive(Clone)]
struct Slow(Arc<SlowState>);

struct SlowState {
    memory: MemoryStore<u32, Value>,
    get: Duration,
    set: Duration,
    remove: Duration,
    /// Answers at once what it has, as a store in memory does.
    looks: bool,
    /// Of the removals to come, how many succeed before the others fail, and how many fail then.
    removals: Mutex<(usize, usize)>,
}

fn slow(looks: bool, get: u64, set: u64, remove: u64) -> Slow {
    let (get, set, remove) = (millis(get), millis(set), millis(remove));
    Slow(Arc::new(SlowState { memory: MemoryStore::new(1000), get, set, remove, looks, removals: Mutex::default() }))
}

impl Store<u32, Value> for Slow {
    fn get_now(&self, key: &u32) -> Lookup<Value> {
        if self.0.looks { self.0.memory.get_now(key) } else { Lookup::Ask }
    }

    async fn get(&self, key: &u32) -> Result<Option<Arc<Entry<Value>>>, StoreError> {
        let found = self.0.memory.get(key).await;
        sleep(self.0.get).await;
        found
    }

    async fn set(&self, key: &u32, entry: Arc<Entry<Value>>, keep_for: Duration) -> Result<(), StoreError> {
        sleep(self.0.set).await;
        self.0.memory.set(key, entry, keep_for).await
    }

    async fn remove(&self, key: &u32) -> Result<(), StoreError> {
        sleep(self.0.remove).await;
        {
            let (succeed, fail) = &mut *self.0.removals.lock().unwrap();
            if *succeed > 0 {
                *succeed -= 1;
            } else if *fail > 0 {
                *fail -= 1;
                return Err(StoreError::new("connection reset"));
            }
        }
        self.0.memory.remove(key).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        sleep(self.0.remove).await;
        self.0.memory.clear().await
    }
}

type Key = fn(&u32) -> Option<u32>;
type Builder = CacheBuilder<u32, Value, Key>;
type Cached<St> = Cache<Source, u32, Value, Key, mainstay::DefaultClassifier, St>;

fn builder() -> Builder {
    let key: Key = |key| Some(*key);
    let builder = CacheLayer::builder("test").key(key).ttl_jitter(0.0).ttl(secs(60));
    builder.on_served(|value: &mut Value, served| value.served = Some(served)).seed(7)
}

fn in_memory(source: &Source, build: impl FnOnce(Builder) -> Builder) -> Cached<MemoryStore<u32, Value>> {
    build(builder()).build().unwrap().layer(source.clone())
}

fn elsewhere(source: &Source, store: &Slow, build: impl FnOnce(Builder) -> Builder) -> Cached<Slow> {
    build(builder()).store(store.clone()).build().unwrap().layer(source.clone())
}

fn call<St: Store<u32, Value>>(cache: &Cached<St>, key: u32) -> JoinHandle<Result<Value, BoxError>> {
    tokio::spawn(cache.clone().oneshot(key))
}

async fn value<St: Store<u32, Value>>(cache: &Cached<St>, key: u32) -> usize {
    cache.clone().oneshot(key).await.unwrap().value
}

// === entry 2: an invalidation sticks ===

#[tokio::test(start_paused = true)]
async fn entry_02_a_refresh_does_not_hide_a_write_under_way_from_an_invalidation() {
    for looks in [true, false] {
        let source = Source::new(Duration::ZERO);
        let store = slow(looks, 0, 40, 0);
        let cache = elsewhere(&source, &store, |builder| builder.stale_while_revalidate(secs(300)));
        value(&cache, 1).await;
        sleep(secs(61)).await;
        // A refresh lands at once and writes for 40 ms; another one is asked for meanwhile.
        value(&cache, 1).await;
        settle().await;
        sleep(millis(10)).await;
        value(&cache, 1).await;
        settle().await;
        source.set(2);
        cache.handle().invalidate(&1).await.unwrap();
        for _ in 0..20 {
            assert_eq!(value(&cache, 1).await, 2, "looks: {looks}");
            sleep(millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_02_one_refresh_of_a_key_until_its_write_is_over() {
    for looks in [true, false] {
        let source = Source::new(Duration::ZERO);
        let store = slow(looks, 0, 40, 0);
        let cache = elsewhere(&source, &store, |builder| builder.stale_while_revalidate(secs(300)));
        value(&cache, 1).await;
        sleep(secs(61)).await;
        for _ in 0..30 {
            value(&cache, 1).await;
            settle().await;
            sleep(millis(1)).await;
        }
        assert_eq!(source.loads(), 2, "looks: {looks}");
        assert_eq!(cache.handle().statistics().refreshes, 1);
    }
}

/// Whatever the order in which a slow `set`, a slow or quick `remove` and the invalidation end.
#[tokio::test(start_paused = true)]
async fn entry_02_no_answer_of_before_is_served_after_an_invalidation() {
    for looks in [true, false] {
        for (set, remove) in [(40, 0), (40, 10), (40, 45), (5, 45), (0, 45)] {
            for at in [0, 5, 10, 11, 12, 25, 45, 55] {
                for undo_fails in [0, 1] {
                    let source = Source::new(millis(10));
                    let store = slow(looks, 0, set, remove);
                    // The removal of the invalidation itself succeeds; the one that undoes the overtaken write may fail.
                    *store.0.removals.lock().unwrap() = (1, undo_fails);
                    let cache = elsewhere(&source, &store, |builder| builder.stale_if_error(secs(3600)));
                    let early = call(&cache, 1);
                    sleep(millis(at)).await;
                    source.set(2);
                    cache.handle().invalidate(&1).await.unwrap();
                    let case = format!("looks {looks}, set {set}, remove {remove}, at {at}, {undo_fails}");
                    for _ in 0..15 {
                        assert_eq!(value(&cache, 1).await, 2, "{case}");
                        sleep(millis(10)).await;
                    }
                    early.await.unwrap().unwrap();
                    // Nor as a stand-in, much later.
                    sleep(secs(61)).await;
                    source.fails(true);
                    let old = cache.clone().oneshot(1).await;
                    assert!(old.is_ok_and(|value| value.value == 2), "{case}");
                }
            }
        }
    }
}

/// A write that takes longer than its answer is fresh, so that another load begins meanwhile.
#[tokio::test(start_paused = true)]
async fn entry_02_a_write_that_outlasts_its_answer_is_reached_by_an_invalidation_too() {
    for looks in [true, false] {
        let source = Source::new(Duration::ZERO);
        source.next([Duration::ZERO, secs(3600)]);
        let store = slow(looks, 0, 20_000, 0);
        let cache = elsewhere(&source, &store, |builder| {
            builder.ttl(secs(1)).store_timeout(secs(60)).stale_while_revalidate(secs(300)).load_timeout(None)
        });
        value(&cache, 1).await;
        sleep(secs(2)).await;
        let _hanging = call(&cache, 1);
        settle().await;
        source.set(2);
        cache.handle().invalidate(&1).await.unwrap();
        // The write ends at 20 s.
        for _ in 0..30 {
            assert_eq!(value(&cache, 1).await, 2, "looks: {looks}");
            sleep(secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_02_the_same_holds_for_tags_and_for_clearing() {
    for looks in [true, false] {
        for by_tag in [true, false] {
            for at in [0, 5, 10, 12, 25, 55] {
                let source = Source::new(millis(10));
                let store = slow(looks, 0, 40, 0);
                let cache = elsewhere(&source, &store, |builder| {
                    builder.stale_if_error(secs(3600)).tags(|_, _, tags| tags.add("all"))
                });
                let early = call(&cache, 1);
                settle().await;
                sleep(millis(at)).await;
                source.set(2);
                if by_tag {
                    cache.handle().invalidate_tag("all");
                } else {
                    cache.handle().clear().await.unwrap();
                }
                for _ in 0..15 {
                    assert_eq!(value(&cache, 1).await, 2, "looks {looks}, by tag {by_tag}, at {at}");
                    sleep(millis(10)).await;
                }
                assert_eq!(early.await.unwrap().unwrap().value, 1, "an early call is not held up");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_02_a_load_takes_its_stamp_before_it_reads() {
    let source = Source::new(millis(100));
    let cache = in_memory(&source, |builder| builder.tags(|_, _, tags| tags.add("all")));
    let early = call(&cache, 1);
    settle().await;
    source.set(2);
    cache.handle().invalidate_tag("all");
    assert_eq!(early.await.unwrap().unwrap().value, 1);
    settle().await;
    assert_eq!(value(&cache, 1).await, 2);
}

/// A store elsewhere that lets other tasks in before and after each step.
#[derive(Clone)]
struct Yielding(MemoryStore<u32, usize>);

impl Store<u32, usize> for Yielding {
    async fn get(&self, key: &u32) -> Result<Option<Arc<Entry<usize>>>, StoreError> {
        tokio::task::yield_now().await;
        let found = self.0.get(key).await;
        tokio::task::yield_now().await;
        found
    }

    async fn set(&self, key: &u32, entry: Arc<Entry<usize>>, keep_for: Duration) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.0.set(key, entry, keep_for).await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn remove(&self, key: &u32) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.0.remove(key).await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.0.clear().await
    }
}

#[derive(Clone, Copy, Debug)]
enum By {
    Key,
    Tag,
    Clear,
}

/// Threads that write, invalidate and read: no read is older than the invalidation before it.
async fn reads_beside_invalidations<St: Store<u32, usize>>(by: By, store: St) {
    let row = Arc::new(AtomicUsize::new(0));
    let inner = service_fn({
        let row = Arc::clone(&row);
        move |_: u32| {
            let value = row.load(Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await;
                Ok::<_, BoxError>(value)
            }
        }
    });
    let layer = CacheLayer::builder("test")
        .key(|key: &u32| Some(*key))
        .tags(|_, _: &usize, tags| tags.add("all"))
        .ttl(millis(1))
        .stale_while_revalidate(secs(300))
        .stale_if_error(secs(300))
        .store_timeout(secs(60))
        .store(store)
        .build()
        .unwrap();
    let cache = layer.layer(inner);
    // The value that was invalidated last: no call that begins later may read a smaller one.
    let least = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn({
        let (row, least, handle) = (Arc::clone(&row), Arc::clone(&least), cache.handle());
        async move {
            for value in 1..=1000 {
                row.store(value, Ordering::SeqCst);
                match by {
                    By::Key => handle.invalidate(&1).await.unwrap(),
                    By::Tag => handle.invalidate_tag("all"),
                    By::Clear => handle.clear().await.unwrap(),
                }
                least.store(value, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let readers = (0..3).map(|_| {
        let (mut cache, least) = (cache.clone(), Arc::clone(&least));
        tokio::spawn(async move {
            for _ in 0..1500 {
                let floor = least.load(Ordering::SeqCst);
                let read = cache.call(1).await.unwrap();
                assert!(read >= floor, "read {read} after the invalidation of {floor}, {by:?}");
            }
        })
    });
    for reader in join_all(readers).await {
        reader.unwrap();
    }
    writer.await.unwrap();
    // Refreshes of the last calls may still run; none is left for good.
    while cache.handle().under_way() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entry_02_with_threads_no_read_is_older_than_the_invalidation_before_it() {
    for by in [By::Key, By::Tag, By::Clear] {
        reads_beside_invalidations(by, MemoryStore::new(100)).await;
        reads_beside_invalidations(by, Yielding(MemoryStore::new(100))).await;
    }
}

// === entry 3: what was invalidated is not served ===

#[tokio::test(start_paused = true)]
async fn entry_03_what_a_call_found_before_an_invalidation_stands_in_for_no_later_call() {
    for slow_load in [false, true] {
        let source = Source::new(Duration::ZERO);
        let cache = in_memory(&source, |builder| builder.stale_if_error(secs(3600)).soft_load_timeout(millis(50)));
        value(&cache, 1).await;
        advance(secs(61)).await;
        // It looks into the store as it is made, and boards when it is polled.
        let early = cache.clone().call(1);
        cache.handle().invalidate(&1).await.unwrap();
        source.set(2);
        source.fails(!slow_load);
        source.takes(millis(100));
        let early = tokio::spawn(early);
        settle().await;
        let late = cache.clone().oneshot(1).await;
        match late {
            Ok(value) => assert_eq!((slow_load, value.value), (true, 2)),
            Err(error) => assert!(!slow_load, "{error}"),
        }
        _ = early.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn entry_03_an_invalidation_reaches_a_stand_in_that_waits_on_a_flight() {
    for looks in [true, false] {
        for slow_load in [false, true] {
            let source = Source::new(Duration::ZERO);
            let store = slow(looks, 1, 0, 0);
            let cache =
                elsewhere(&source, &store, |builder| builder.stale_if_error(secs(3600)).soft_load_timeout(millis(50)));
            value(&cache, 1).await;
            sleep(secs(61)).await;
            source.takes(millis(100));
            let early = call(&cache, 1);
            sleep(millis(10)).await;
            source.set(2);
            source.fails(!slow_load);
            cache.handle().invalidate(&1).await.unwrap();
            let late = cache.clone().oneshot(1).await;
            assert_eq!(late.ok().map(|value| value.value), slow_load.then_some(2), "looks {looks}, slow {slow_load}");
            _ = early.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_03_what_a_store_elsewhere_answers_during_an_invalidation_is_not_for_later_calls() {
    // The store is asked at 0 ms and answers at 20 ms with what was there at 0 ms; the key is invalidated in between.
    for fresh in [true, false] {
        let source = Source::new(Duration::ZERO);
        let store = slow(false, 20, 0, 0);
        let cache = elsewhere(&source, &store, |builder| builder.stale_while_revalidate(secs(300)));
        value(&cache, 1).await;
        sleep(secs(if fresh { 1 } else { 61 })).await;
        let early = call(&cache, 1);
        sleep(millis(10)).await;
        source.set(2);
        cache.handle().invalidate(&1).await.unwrap();
        assert_eq!(value(&cache, 1).await, 2, "fresh: {fresh}");
        assert_eq!(early.await.unwrap().unwrap().value, 2, "it need not get what is known to be old");
        sleep(millis(100)).await;
        assert_eq!(value(&cache, 1).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_03_a_dead_entry_does_not_stand_in_at_the_soft_timeout() {
    // Its windows end while the load is waited for.
    let source = Source::new(Duration::ZERO);
    let cache = in_memory(&source, |builder| builder.stale_if_error(secs(10)).soft_load_timeout(millis(500)));
    value(&cache, 1).await;
    advance(secs(60) + millis(9_800)).await;
    source.set(2);
    source.takes(secs(1));
    assert_eq!(value(&cache, 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn entry_03_an_entry_whose_windows_end_during_a_load_does_not_stand_in_for_it() {
    let source = Source::new(Duration::ZERO);
    let cache = in_memory(&source, |builder| builder.stale_if_error(secs(10)));
    value(&cache, 1).await;
    advance(secs(60) + millis(9_800)).await;
    source.takes(secs(1));
    source.fails(true);
    assert!(cache.clone().oneshot(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn entry_03_a_call_that_is_first_polled_after_an_invalidation_takes_nothing_of_before() {
    let source = Source::new(Duration::ZERO);
    let cache = in_memory(&source, |builder| builder.stale_while_revalidate(secs(300)));
    value(&cache, 1).await;
    advance(secs(61)).await;
    let call = cache.clone().call(1);
    source.set(2);
    cache.handle().invalidate(&1).await.unwrap();
    assert_eq!(call.await.unwrap().value, 2);
}

// === entry 4: single flight survives invalidations ===

#[tokio::test(start_paused = true)]
async fn entry_04_invalidating_other_tags_starts_no_further_load() {
    let source = Source::new(secs(1));
    let cache = in_memory(&source, |builder| builder.tags(|key, _, tags| tags.add(&format!("key:{key}"))));
    let mut calls = Vec::new();
    for tag in 0..300 {
        calls.push(call(&cache, 1));
        settle().await;
        cache.handle().invalidate_tag(&format!("other:{tag}"));
        sleep(millis(1)).await;
    }
    let start = Instant::now();
    let other = call(&cache, 2);
    for call in join_all(calls).await {
        call.unwrap().unwrap();
    }
    other.await.unwrap().unwrap();
    assert_eq!(source.most(), 2, "one of each key at once");
    // Now and then another tag shares the slot of one of these, and that key is loaded once more.
    assert!(source.loads() <= 4 && start.elapsed() <= secs(2), "{} loads", source.loads());
}

#[tokio::test(start_paused = true)]
async fn entry_04_however_it_is_invalidated_a_key_has_two_loads_at_most() {
    for (by, most) in [(By::Key, 2), (By::Tag, 1), (By::Clear, 1)] {
        let source = Source::new(secs(1));
        let cache = in_memory(&source, |builder| builder.tags(|_, _, tags| tags.add("all")));
        let mut calls = Vec::new();
        for value in 2..302 {
            calls.push((value - 1, call(&cache, 1)));
            settle().await;
            source.set(value);
            match by {
                By::Key => cache.handle().invalidate(&1).await.unwrap(),
                By::Tag => cache.handle().invalidate_tag("all"),
                By::Clear => cache.handle().clear().await.unwrap(),
            }
            sleep(millis(1)).await;
        }
        for (least, call) in calls {
            let read = call.await.unwrap().unwrap().value;
            assert!(read >= least, "{read} although {least} was there before the call");
        }
        assert_eq!(source.most(), most);
        assert!(source.loads() <= 4, "{} loads", source.loads());
        assert_eq!(cache.handle().under_way(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_a_call_after_an_invalidation_of_its_key_does_not_wait_for_the_load_before() {
    let source = Source::new(millis(10));
    source.next([secs(5)]);
    let cache = in_memory(&source, |builder| builder);
    let early = call(&cache, 1);
    settle().await;
    source.set(2);
    cache.handle().invalidate(&1).await.unwrap();
    let start = Instant::now();
    assert_eq!(value(&cache, 1).await, 2);
    assert_eq!(start.elapsed(), millis(10));
    assert_eq!(early.await.unwrap().unwrap().value, 1);
    assert_eq!(value(&cache, 1).await, 2, "the older load does not replace the newer answer");
}

#[tokio::test(start_paused = true)]
async fn entry_16_reads_never_go_back_to_an_older_load() {
    // A load of 100 ms, an invalidation of a tag that the answer does not have, and a quick load of a later value.
    let source = Source::new(millis(10));
    source.next([millis(100)]);
    let cache = in_memory(&source, |builder| builder.tags(|_, _, tags| tags.add("mine")));
    let mut calls = vec![call(&cache, 1)];
    settle().await;
    source.set(2);
    cache.handle().invalidate_tag("other");
    for _ in 0..20 {
        calls.push(call(&cache, 1));
        sleep(millis(10)).await;
    }
    let mut reads = Vec::new();
    for call in calls {
        reads.push(call.await.unwrap().unwrap().value);
    }
    assert!(reads.is_sorted(), "{reads:?}");
}

// === entry 5: what is not stored is not shared ===

/// Answers each caller with its own number; the status decides what is stored.
#[derive(Clone, Debug, PartialEq)]
struct Page {
    status: u16,
    user: u32,
}

#[derive(Clone, Copy, Debug)]
struct ByStatus;

impl Classify<Page, BoxError> for ByStatus {
    fn classify(&self, result: Result<&Page, &BoxError>) -> Outcome {
        match result {
            Ok(page) if page.status < 400 => Outcome::Success,
            Ok(page) if page.status < 500 => Outcome::Refused,
            Err(error) if error.to_string().starts_with("not for") => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Transient,
        }
    }
}

/// The loads of pages: how many there were, and the most at once.
#[derive(Clone, Default)]
struct Loads(Arc<(AtomicUsize, AtomicUsize, AtomicUsize)>);

impl Loads {
    fn all(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }
}

type PageKey = fn(&(u32, u16)) -> Option<()>;
type PageBuilder = CacheBuilder<(), Page, PageKey, ByStatus>;

/// All `requests`, each of a user who is to be answered with a status, at once and for one key. Status 0 is an error.
async fn at_once(
    loads: &Loads,
    requests: impl IntoIterator<Item = (u32, u16)>,
    build: impl FnOnce(PageBuilder) -> PageBuilder,
) -> Vec<Result<Page, BoxError>> {
    let inner = service_fn({
        let loads = loads.clone();
        move |(user, status): (u32, u16)| {
            let loads = loads.clone();
            async move {
                let (all, running, most) = &*loads.0;
                all.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(millis(100)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                if status == 0 { Err(BoxError::from(format!("not for {user}"))) } else { Ok(Page { status, user }) }
            }
        }
    });
    let key: PageKey = |_| Some(());
    let cache = build(CacheLayer::builder("pages").key(key).classify(ByStatus)).build().unwrap().layer(inner);
    join_all(requests.into_iter().map(|request| cache.clone().oneshot(request))).await
}

fn users(answers: &[Result<Page, BoxError>]) -> Vec<u32> {
    answers.iter().map(|answer| answer.as_ref().unwrap().user).collect()
}

#[tokio::test(start_paused = true)]
async fn entry_05_an_answer_that_is_not_stored_is_for_its_own_caller_alone() {
    let declined: fn(PageBuilder) -> PageBuilder = |builder| builder.cache_if(|_| false);
    let by_key: fn(PageBuilder) -> PageBuilder = |builder| builder.cache_if_for(|(), _| false);
    let at_zero: fn(PageBuilder) -> PageBuilder = |builder| builder.ttl_of(|_| Some(Duration::ZERO));
    let as_it_is: fn(PageBuilder) -> PageBuilder = |builder| builder;
    for (status, build) in [(200, declined), (200, by_key), (200, at_zero), (403, as_it_is), (404, declined)] {
        let loads = Loads::default();
        let answers = at_once(&loads, (1..=3).map(|user| (user, status)), build).await;
        assert_eq!(users(&answers), [1, 2, 3], "status {status}");
        assert_eq!(loads.all(), 3);
    }
    // A refusal that comes as an error too.
    let answers = at_once(&Loads::default(), (1..=3).map(|user| (user, 0)), as_it_is).await;
    let words: Vec<_> = answers.into_iter().map(|answer| answer.unwrap_err().to_string()).collect();
    assert_eq!(words, ["not for 1", "not for 2", "not for 3"]);
}

#[tokio::test(start_paused = true)]
async fn entry_05_one_callers_refusal_costs_the_others_one_more_load() {
    let loads = Loads::default();
    let answers = at_once(&loads, [(1, 403)].into_iter().chain((2..=100).map(|user| (user, 200))), |it| it).await;
    assert_eq!(answers[0].as_ref().unwrap().status, 403);
    assert!(answers[1..].iter().all(|answer| answer.as_ref().unwrap().user == 2));
    assert_eq!(loads.all(), 2);
}

#[tokio::test(start_paused = true)]
async fn entry_05_loads_for_single_callers_are_bounded_and_end_soon() {
    let loads = Loads::default();
    let start = Instant::now();
    let users_at_once = (1..=50).map(|user| (user, 200));
    let answers = at_once(&loads, users_at_once, |it| it.cache_if(|_| false).max_concurrent_loads(10)).await;
    assert_eq!(users(&answers), (1..=50).collect::<Vec<_>>());
    assert_eq!((loads.all(), loads.most()), (50, 10));
    // Two in a row, and then ten at once.
    assert_eq!(start.elapsed(), millis(100 * (2 + 5)));

    let requests = (1..=50).map(|user| (user, 200));
    let build = |it: PageBuilder| it.cache_if(|_| false).max_concurrent_loads(10).max_queued_loads(5);
    let answers = at_once(&Loads::default(), requests, build).await;
    let limited = answers.iter().filter_map(|answer| answer.as_ref().err()?.as_rejected());
    assert!(limited.clone().all(|rejected| matches!(rejected, Rejected::Limited { .. })));
    assert_eq!(limited.count(), 50 - 2 - 15, "beyond the queue they are rejected");
}

#[tokio::test(start_paused = true)]
async fn entry_05_a_load_for_one_caller_is_not_stored() {
    let source = Source::new(millis(100));
    let cache = in_memory(&source, |builder| builder.cache_if(|value| value.value > 1));
    let calls: Vec<_> = (0..3).map(|_| call(&cache, 1)).collect();
    // The third call loads alone, and reads what may be stored.
    sleep(millis(150)).await;
    source.set(2);
    sleep(millis(100)).await;
    // An invalidation does not reach that load, since no other call is to get its answer.
    source.set(3);
    cache.handle().invalidate(&1).await.unwrap();
    let answers: Vec<_> = join_all(calls).await.into_iter().map(|answer| answer.unwrap().unwrap().value).collect();
    assert_eq!(answers, [1, 1, 2]);
    assert_eq!((value(&cache, 1).await, source.loads()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn entry_05_what_is_stored_and_what_failed_is_shared_as_before() {
    for (status, build) in
        [(200, (|it| it) as fn(PageBuilder) -> PageBuilder), (503, |it| it), (404, |it| it.negative_ttl(secs(5)))]
    {
        let loads = Loads::default();
        let answers = at_once(&loads, (1..=20).map(|user| (user, status)), build).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().user == 1));
        assert_eq!(loads.all(), 1, "status {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_05_a_call_that_comes_after_the_landing_does_not_get_the_leaders_answer() {
    // The old answer is being removed, which takes a while, when the next call comes.
    let source = Source::new(millis(10));
    let store = slow(true, 0, 0, 40);
    let cache = elsewhere(&source, &store, |builder| {
        builder.stale_while_revalidate(secs(300)).cache_if(|value| value.value != 2)
    });
    value(&cache, 1).await;
    sleep(secs(61)).await;
    source.set(2);
    assert_eq!(value(&cache, 1).await, 1, "stale, with a refresh behind it");
    sleep(millis(20)).await;
    source.set(3);
    assert_eq!(value(&cache, 1).await, 3, "neither what was declined nor what it replaced");
}

// === further entries ===

#[tokio::test(start_paused = true)]
async fn entry_08_a_write_takes_no_room_from_loads() {
    let source = Source::new(millis(1));
    let store = slow(true, 0, 40, 0);
    let cache = elsewhere(&source, &store, |builder| builder.max_concurrent_loads(2).max_queued_loads(0));
    for key in 0..100 {
        value(&cache, key).await;
    }
    assert_eq!(cache.handle().statistics().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn entry_08_a_hit_in_a_store_elsewhere_takes_no_room_from_loads() {
    let source = Source::new(Duration::ZERO);
    let store = slow(false, 1, 0, 0);
    let cache = elsewhere(&source, &store, |builder| builder.max_concurrent_loads(4).max_queued_loads(4));
    value(&cache, 1).await;
    settle().await;
    source.takes(secs(3600));
    let hanging: Vec<_> = (2..10).map(|key| call(&cache, key)).collect();
    sleep(millis(10)).await;
    assert_eq!(cache.handle().under_way(), 8);
    assert!(matches!(cache.clone().oneshot(1).await.unwrap().served, Some(Served::Hit { .. })));
    let error = cache.clone().oneshot(10).await.unwrap_err();
    assert_eq!(error.as_rejected(), Some(&Rejected::Limited { retry_after: None }));
    assert_eq!(cache.handle().statistics().refused, 1);
    drop(hanging);
}

#[tokio::test(start_paused = true)]
async fn entry_09_a_load_whose_callers_took_an_old_answer_still_happens() {
    let source = Source::new(Duration::ZERO);
    let cache = in_memory(&source, |builder| {
        builder.stale_if_error(secs(3600)).soft_load_timeout(millis(50)).max_concurrent_loads(1)
    });
    for key in 0..10 {
        value(&cache, key).await;
    }
    advance(secs(61)).await;
    source.set(2);
    source.takes(millis(100));
    let answers = join_all((0..10).map(|key| cache.clone().oneshot(key))).await;
    let slow = |answer: &Value| matches!(answer.served, Some(Served::Stale { reason: StaleReason::LoadSlow, .. }));
    assert!(answers.iter().all(|answer| slow(answer.as_ref().unwrap())));
    sleep(secs(2)).await;
    assert_eq!(source.loads(), 20);
    assert_eq!(value(&cache, 9).await, 2);
}

#[tokio::test(start_paused = true)]
async fn entry_14_a_refresh_waits_as_long_as_the_callee_asks() {
    let asked = Arc::new(AtomicUsize::new(0));
    let inner = service_fn({
        let asked = Arc::clone(&asked);
        move |_: u32| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            async move { if number == 0 { Ok(0) } else { Err(BoxError::from("slow down")) } }
        }
    });
    let layer = CacheLayer::builder("test")
        .key(|key: &u32| Some(*key))
        .classify(classify_fn(|result: Result<&u32, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::throttled(secs(120)),
        }))
        .stale_while_revalidate(secs(3600))
        .build()
        .unwrap();
    let cache = layer.layer(inner);
    cache.clone().oneshot(1).await.unwrap();
    sleep(secs(61)).await;
    for (seconds, loads) in [(120, 2), (13, 3), (107, 3)] {
        for _ in 0..seconds {
            cache.clone().oneshot(1).await.unwrap();
            settle().await;
            sleep(secs(1)).await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), loads);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_15_writes_that_succeed_do_not_have_reads_that_hang_asked_again() {
    let source = Source::new(Duration::ZERO);
    let store = slow(false, 3_600_000, 0, 0);
    let cache = elsewhere(&source, &store, |builder| builder);
    let start = Instant::now();
    for key in 0..200 {
        value(&cache, key).await;
        settle().await;
    }
    assert_eq!(start.elapsed(), millis(5 * 50), "five failures in a row");
    assert_eq!(cache.handle().statistics().store_bypassed, 195);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_written_for_longer_than_it_is_fresh_is_not_handed_on() {
    let source = Source::new(Duration::ZERO);
    let store = slow(true, 0, 20_000, 0);
    let cache = elsewhere(&source, &store, |builder| builder.ttl(secs(1)).store_timeout(secs(60)));
    value(&cache, 1).await;
    sleep(millis(900)).await;
    source.set(2);
    assert_eq!(value(&cache, 1).await, 1);
    sleep(millis(100)).await;
    assert_eq!(value(&cache, 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn while_a_refresh_behind_a_store_elsewhere_runs_the_old_answer_is_served_at_once() {
    let source = Source::new(Duration::ZERO);
    let store = slow(false, 1, 0, 0);
    let cache = elsewhere(&source, &store, |builder| builder.stale_while_revalidate(secs(300)));
    value(&cache, 1).await;
    sleep(secs(61)).await;
    source.takes(secs(5));
    for _ in 0..10 {
        let start = Instant::now();
        let answer = cache.clone().oneshot(1).await.unwrap();
        assert!(matches!(answer.served, Some(Served::Stale { reason: StaleReason::Revalidating, .. })));
        assert!(start.elapsed() <= millis(1));
        sleep(millis(10)).await;
    }
    assert_eq!(source.loads(), 2);
}

// === what is stored for others ===

/// The second of two callers of one path, each of whose answers has the status of its own request.
#[cfg(feature = "http")]
async fn second_status(first: u16, build: impl FnOnce(HttpBuilder) -> HttpBuilder) -> u16 {
    let inner = service_fn(|request: http::Request<u16>| async move {
        Ok::<_, BoxError>(http::Response::builder().status(*request.body()).body(()).unwrap())
    });
    let key: HttpKey = |request| Some(request.uri().path().to_owned());
    let builder = CacheLayer::builder("pages").key(key).classify(mainstay::HttpClassifier::new());
    let cache = build(builder.negative_ttl(secs(60))).build().unwrap().layer(inner);
    let request = |status| http::Request::builder().uri("/page").body(status).unwrap();
    cache.clone().oneshot(request(first)).await.unwrap();
    cache.clone().oneshot(request(200)).await.unwrap().status().as_u16()
}

#[cfg(feature = "http")]
type HttpKey = fn(&http::Request<u16>) -> Option<String>;
#[cfg(feature = "http")]
type HttpBuilder = mainstay::cache::CacheBuilder<String, http::Response<()>, HttpKey, mainstay::HttpClassifier>;

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn entry_12_only_refusals_that_are_the_same_for_all_callers_are_remembered() {
    for status in [404, 410] {
        assert_eq!(second_status(status, |builder| builder).await, status);
    }
    for status in [400, 401, 403, 405, 406, 409, 411, 412, 413, 414, 415, 416, 417, 422, 426, 428, 431, 451] {
        assert_eq!(second_status(status, |builder| builder).await, 200, "after a {status}");
    }
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn entry_12_cache_if_decides_for_refusals_too() {
    assert_eq!(second_status(404, |builder| builder.cache_if(|page| page.status() == 200)).await, 200);
    assert_eq!(second_status(404, |builder| builder.cache_if(|page| page.status() == 404)).await, 404);
    assert_eq!(second_status(404, |builder| builder.cache_if_for(|path, _| path != "/page")).await, 200);
}

#[cfg(feature = "grpc")]
#[test]
fn entry_12_over_grpc_only_not_found_is_the_same_for_all_callers() {
    let depends = |code: &'static str| {
        let response = http::Response::builder().header("grpc-status", code).body(()).unwrap();
        mainstay::GrpcClassifier::new().depends_on_caller(Ok::<_, &BoxError>(&response))
    };
    assert!(!depends("5"));
    for code in ["3", "6", "7", "9", "10", "11", "16"] {
        assert!(depends(code), "code {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_12_a_classifier_says_which_refused_errors_are_remembered() {
    struct ByWords;
    impl Classify<u32, BoxError> for ByWords {
        fn classify(&self, result: Result<&u32, &BoxError>) -> Outcome {
            if result.is_ok() { Outcome::Success } else { Outcome::Refused }
        }
        fn depends_on_caller(&self, result: Result<&u32, &BoxError>) -> bool {
            result.is_err_and(|error| error.to_string() == "not yours")
        }
    }
    for (words, loads) in [("no such row", 1), ("not yours", 3)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let inner = service_fn({
            let asked = Arc::clone(&asked);
            move |_: u32| {
                asked.fetch_add(1, Ordering::SeqCst);
                async move { Err::<u32, BoxError>(words.into()) }
            }
        });
        let builder = CacheLayer::builder("rows").key(|key: &u32| Some(*key)).classify(ByWords);
        let cache = builder.negative_ttl(secs(60)).build().unwrap().layer(inner);
        for _ in 0..3 {
            cache.clone().oneshot(1).await.unwrap_err();
        }
        assert_eq!(asked.load(Ordering::SeqCst), loads, "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_13_the_store_decision_sees_the_key() {
    let asked = Arc::new(AtomicUsize::new(0));
    let inner = service_fn({
        let asked = Arc::clone(&asked);
        move |(_, signed_in): (u32, bool)| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, BoxError>((number, signed_in)) }
        }
    });
    let layer = CacheLayer::builder("pages")
        .key(|request: &(u32, bool)| (request.0 != 0).then_some(*request))
        .classify(classify_fn(|_: Result<&(usize, bool), &BoxError>| Outcome::Success))
        .cache_if_for(|key: &(u32, bool), _| !key.1)
        .build()
        .unwrap();
    let cache = layer.layer(inner);
    let mut numbers = Vec::new();
    for request in [(1, false), (1, false), (1, true), (1, true), (0, false), (0, false)] {
        numbers.push(cache.clone().oneshot(request).await.unwrap().0);
    }
    assert_eq!(numbers, [0, 0, 1, 2, 3, 4], "stored, not stored by its key, and sent past the cache");
}
