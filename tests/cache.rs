//! Cache-aside, by its scenarios and by what its peers get wrong.
#![cfg(feature = "cache")]

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use mainstay::cache::{
    Cache, CacheBuilder, CacheLayer, Entry, Lookup, MemoryStore, Served, StaleReason, Store, StoreError, Tags, key_fn,
};
use mainstay::context::{self, Context as Ambient};
use mainstay::telemetry::Event;
use mainstay::{BoxError, Classify, Outcome, Rejectable, Rejected, classify_fn};
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance, sleep};
use tokio_test::task;
use tower::{Layer, Service, ServiceBuilder, service_fn};

// === the parts of the tests ===

/// An answer with a status, as HTTP has it, and how it came about.
#[derive(Clone, Debug, PartialEq)]
struct Reply {
    status: u16,
    number: usize,
    served: Option<Served>,
}

type Answer = Result<Reply, BoxError>;

/// A loader that answers with the number of the load, after what the script says.
#[derive(Clone)]
struct Loader {
    shared: Arc<LoaderState>,
}

struct LoaderState {
    loads: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    dropped: AtomicUsize,
    script: Mutex<VecDeque<Step>>,
    then: Mutex<Step>,
    ready: AtomicBool,
}

#[derive(Clone, Copy)]
enum Step {
    Status(u16),
    After(Duration, u16),
    Fail,
    Refuse,
    Panic,
    PanicAfter(Duration),
    Hang,
}

impl Loader {
    fn new(then: Step) -> Self {
        Self {
            shared: Arc::new(LoaderState {
                loads: AtomicUsize::new(0),
                running: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                dropped: AtomicUsize::new(0),
                script: Mutex::default(),
                then: Mutex::new(then),
                ready: AtomicBool::new(true),
            }),
        }
    }

    fn always(&self, step: Step) {
        *self.shared.then.lock().unwrap() = step;
    }

    fn next(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.script.lock().unwrap().extend(steps);
    }

    fn loads(&self) -> usize {
        self.shared.loads.load(Ordering::SeqCst)
    }
}

struct Run {
    state: Arc<LoaderState>,
    finished: AtomicBool,
}

impl Run {
    fn new(state: &Arc<LoaderState>) -> Self {
        let now = state.running.fetch_add(1, Ordering::SeqCst) + 1;
        state.most.fetch_max(now, Ordering::SeqCst);
        Self { state: Arc::clone(state), finished: AtomicBool::new(false) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.state.running.fetch_sub(1, Ordering::SeqCst);
        if !self.finished.load(Ordering::SeqCst) {
            self.state.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Service<u32> for Loader {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.shared.ready.load(Ordering::SeqCst) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let number = self.shared.loads.fetch_add(1, Ordering::SeqCst) + 1;
        let step = self.shared.script.lock().unwrap().pop_front().unwrap_or(*self.shared.then.lock().unwrap());
        let run = Run::new(&self.shared);
        async move {
            let status = match step {
                Step::Status(status) => status,
                Step::After(time, status) => {
                    sleep(time).await;
                    status
                }
                Step::Fail => {
                    run.finished.store(true, Ordering::SeqCst);
                    return Err("connection reset".into());
                }
                Step::Refuse => {
                    run.finished.store(true, Ordering::SeqCst);
                    return Err("no such row".into());
                }
                Step::Panic => panic!("the loader of a test"),
                Step::PanicAfter(time) => {
                    sleep(time).await;
                    panic!("the loader of a test")
                }
                Step::Hang => pending().await,
            };
            run.finished.store(true, Ordering::SeqCst);
            Ok(Reply { status, number, served: None })
        }
        .boxed()
    }
}

#[derive(Clone, Copy, Debug)]
struct ByStatus;

impl Classify<Reply, BoxError> for ByStatus {
    fn classify(&self, result: Result<&Reply, &BoxError>) -> Outcome {
        match result {
            Ok(reply) if reply.status < 400 => Outcome::Success,
            Ok(reply) if reply.status < 500 => Outcome::Refused,
            Err(error) if error.to_string() == "no such row" => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Transient,
        }
    }
}

type Key = fn(&u32) -> Option<u32>;
type Builder = CacheBuilder<u32, Reply, Key, ByStatus>;
type TestCache = Cache<Loader, u32, Reply, Key, ByStatus, MemoryStore<u32, Reply>>;

/// No jitter, judged by status, every reply told how it was served.
fn builder() -> Builder {
    let key: Key = |key| Some(*key);
    CacheLayer::builder("test").key(key).classify(ByStatus).ttl_jitter(0.0).ttl(secs(60)).on_served(flag)
}

fn flag(reply: &mut Reply, served: Served) {
    reply.served = Some(served);
}

fn cache(loader: &Loader, build: impl FnOnce(Builder) -> Builder) -> TestCache {
    build(builder()).build().unwrap().layer(loader.clone())
}

async fn get(cache: &TestCache, key: u32) -> Answer {
    cache.clone().oneshot(key).await
}

async fn number(cache: &TestCache, key: u32) -> usize {
    get(cache, key).await.unwrap().number
}

/// Lets every task that can run do so, without moving the clock.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn rejected(answer: &Answer) -> &Rejected {
    answer.as_ref().unwrap_err().as_rejected().expect("a refusal of ours")
}

fn stale(age: u64, reason: StaleReason) -> Option<Served> {
    Some(Served::Stale { age: secs(age), reason })
}

// === single flight ===

#[tokio::test(start_paused = true)]
async fn r1_a_hundred_concurrent_misses_make_one_load() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder);
    let answers = join_all((0..100).map(|_| get(&cache, 7))).await;
    assert_eq!(loader.loads(), 1);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().number == 1));

    let statistics = cache.handle().statistics();
    assert_eq!((statistics.misses, statistics.coalesced, statistics.loads), (1, 99, 1));
    let served = |served| answers.iter().filter(|answer| answer.as_ref().unwrap().served == Some(served)).count();
    assert_eq!((served(Served::Loaded), served(Served::Coalesced)), (1, 99));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1_holds_with_real_threads_whenever_the_calls_come() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder);
    for key in 0..200 {
        let calls = (0..8).map(|_| {
            tokio::spawn({
                let cache = cache.clone();
                async move { get(&cache, key).await }
            })
        });
        for answer in join_all(calls).await {
            answer.unwrap().unwrap();
        }
    }
    assert_eq!(loader.loads(), 200, "a call that finds the flight just landed does not load again");
}

#[tokio::test(start_paused = true)]
async fn r2_the_leader_leaves_and_five_followers_get_their_answer() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder);
    // The leader leaves unpolled, after its first poll, and after some time.
    for (key, polls) in [(1, 0), (2, 1), (3, 2)] {
        let before = loader.loads();
        let mut leader = task::spawn(cache.clone().oneshot(key));
        let followers: Vec<_> = {
            (0..polls.min(1)).for_each(|_| assert!(leader.poll().is_pending()));
            (0..5)
                .map(|_| {
                    tokio::spawn({
                        let cache = cache.clone();
                        async move { get(&cache, key).await }
                    })
                })
                .collect()
        };
        settle().await;
        if polls > 1 {
            advance(millis(50)).await;
            assert!(leader.poll().is_pending());
        }
        drop(leader);
        for follower in followers {
            assert!(follower.await.unwrap().is_ok());
        }
        assert_eq!(loader.loads() - before, 1, "dropped after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn r2_a_load_whose_only_caller_left_is_finished_and_stored() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder);
    let mut leader = task::spawn(cache.clone().oneshot(1));
    assert!(leader.poll().is_pending());
    settle().await;
    drop(leader);
    sleep(millis(200)).await;
    assert_eq!(get(&cache, 1).await.unwrap().served, Some(Served::Hit { age: millis(100) }));
    assert_eq!(cache.handle().statistics().abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn r3_a_follower_is_polled_a_few_times_while_it_waits() {
    let loader = Loader::new(Step::After(millis(290), 200));
    let cache = cache(&loader, |builder| builder.soft_load_timeout(millis(500)));
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move { get(&cache, 7).await }
    });
    settle().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let mut follower = Box::pin(get(&cache, 7));
    let answer = poll_fn(|cx| {
        polls.fetch_add(1, Ordering::SeqCst);
        follower.as_mut().poll(cx)
    })
    .await;
    assert_eq!(answer.unwrap().number, 1);
    assert!(polls.load(Ordering::SeqCst) <= 5, "{polls:?}");
    leader.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_leaves_takes_nobody_along() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder);
    let mut leader = task::spawn(cache.clone().oneshot(1));
    let mut follower = task::spawn(cache.clone().oneshot(1));
    assert!(leader.poll().is_pending());
    assert!(follower.poll().is_pending());
    drop(follower);
    assert_eq!(leader.await.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn the_leader_of_a_failed_load_gets_its_own_error_and_the_others_the_shared_one() {
    let loader = Loader::new(Step::Fail);
    loader.shared.ready.store(true, Ordering::SeqCst);
    let cache = cache(&loader, |builder| builder);
    let answers = join_all((0..3).map(|_| get(&cache, 7))).await;
    assert_eq!(loader.loads(), 1);
    assert!(answers[0].as_ref().unwrap_err().as_rejected().is_none());
    assert_eq!(answers[0].as_ref().unwrap_err().to_string(), "connection reset");
    for answer in &answers[1..] {
        let rejected = rejected(answer);
        assert!(rejected.is_load_failed());
        assert_eq!(rejected.outcome(), Outcome::Transient);
        let Rejected::LoadFailed(failed) = rejected else { unreachable!() };
        assert_eq!(failed.error().to_string(), "connection reset");
    }
    // Failures are not remembered.
    loader.always(Step::Status(200));
    assert_eq!(number(&cache, 7).await, 2);
    assert_eq!(cache.handle().statistics().load_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_never_sent_is_shared_as_it_is() {
    let inner = service_fn(|_: u32| async {
        tokio::task::yield_now().await;
        Err::<u32, _>(BoxError::from_rejected(Rejected::Limited { retry_after: Some(secs(3)) }))
    });
    let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).build().unwrap();
    let cache = layer.layer(inner);
    let answers = join_all((0..2).map(|_| cache.clone().oneshot(1))).await;
    for answer in answers {
        let error = answer.unwrap_err();
        let rejected = error.as_rejected().unwrap();
        assert!(!rejected.was_sent());
        assert_eq!(rejected.retry_after(), Some(secs(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_goes_on_in_the_leader_and_ends_the_flight() {
    for step in [Step::Panic, Step::PanicAfter(millis(10))] {
        let loader = Loader::new(Step::Status(200));
        loader.next([step]);
        let cache = cache(&loader, |builder| builder);
        let calls: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let cache = cache.clone();
                    async move { get(&cache, 7).await }
                })
            })
            .collect();
        let answers = join_all(calls).await;
        assert!(answers[0].as_ref().unwrap_err().is_panic());
        for answer in &answers[1..] {
            let rejected = rejected(answer.as_ref().unwrap());
            assert!(rejected.is_load_failed());
            assert_eq!(rejected.outcome(), Outcome::Permanent);
        }
        assert_eq!(number(&cache, 7).await, 2);
        assert_eq!((cache.handle().under_way(), cache.handle().loading()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn panicking_hooks_lose_nothing() {
    let loader = Loader::new(Step::Status(200));
    let caches = [
        cache(&loader, |builder| builder.cache_if(|_| panic!("a hook of a test"))),
        cache(&loader, |builder| builder.ttl_of(|_| panic!("a hook of a test"))),
        cache(&loader, |builder| builder.tags(|_, _, _: &mut Tags<'_>| panic!("a hook of a test"))),
        cache(&loader, |builder| builder.on_served(|_, _| panic!("a hook of a test"))),
    ];
    for cache in caches {
        let call = tokio::spawn({
            let cache = cache.clone();
            async move { get(&cache, 7).await }
        });
        assert!(call.await.unwrap_err().is_panic());
        settle().await;
        assert_eq!((cache.handle().under_way(), cache.handle().loading()), (0, 0));
    }
}

// === what is stored ===

#[tokio::test(start_paused = true)]
async fn scenario_1_a_hit_skips_the_loader_and_no_key_skips_the_cache() {
    let loader = Loader::new(Step::Status(200));
    let layer =
        CacheLayer::builder("test").key(|key: &u32| (*key != 0).then_some(*key)).on_served(flag).build().unwrap();
    let cache = layer.layer(loader.clone());
    assert_eq!(cache.clone().oneshot(1).await.unwrap().number, 1);
    assert_eq!(cache.clone().oneshot(1).await.unwrap().number, 1);
    assert_eq!(cache.clone().oneshot(0).await.unwrap(), Reply { status: 200, number: 2, served: None });
    assert_eq!(cache.clone().oneshot(0).await.unwrap().number, 3);
    let statistics = cache.handle().statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.uncached), (1, 1, 2));
    assert_eq!(cache.handle().store().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn scenario_1_neither_an_error_nor_what_cache_if_declines_is_stored() {
    let loader = Loader::new(Step::Status(200));
    loader.next([Step::Fail, Step::Status(206)]);
    let cache = cache(&loader, |builder| builder.cache_if(|reply| reply.status == 200));
    assert!(get(&cache, 1).await.is_err());
    assert_eq!(get(&cache, 1).await.unwrap().status, 206);
    assert_eq!(number(&cache, 1).await, 3);
    assert_eq!(number(&cache, 1).await, 3);
}

#[tokio::test(start_paused = true)]
async fn r7_a_500_is_never_stored_and_a_404_for_five_seconds() {
    let loader = Loader::new(Step::Status(500));
    let cache = cache(&loader, |builder| builder.negative_ttl(secs(5)));
    assert_eq!(get(&cache, 1).await.unwrap().status, 500);
    assert_eq!(number(&cache, 1).await, 2);

    loader.always(Step::Status(404));
    assert_eq!(number(&cache, 1).await, 3);
    advance(millis(4_999)).await;
    let again = get(&cache, 1).await.unwrap();
    assert_eq!((again.number, again.status), (3, 404));
    assert_eq!(again.served, Some(Served::NegativeHit { age: millis(4_999) }));
    advance(millis(1)).await;
    assert_eq!(number(&cache, 1).await, 4);
    assert_eq!(cache.handle().statistics().negative_hits, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_stored_without_a_negative_ttl() {
    let loader = Loader::new(Step::Status(404));
    let cache = cache(&loader, |builder| builder);
    assert_eq!(number(&cache, 1).await, 1);
    assert_eq!(number(&cache, 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_came_as_an_error_is_remembered_by_its_words() {
    let loader = Loader::new(Step::Refuse);
    let cache = cache(&loader, |builder| builder.negative_ttl(secs(5)));
    let first = get(&cache, 1).await;
    assert!(first.as_ref().unwrap_err().as_rejected().is_none(), "the leader gets its own error");
    let second = get(&cache, 1).await;
    assert_eq!(loader.loads(), 1);
    let Rejected::LoadFailed(failed) = rejected(&second) else { panic!("{second:?}") };
    assert_eq!((failed.outcome(), failed.error().to_string().as_str()), (Outcome::Refused, "no such row"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_say_for_how_long_it_is_fresh() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| {
        builder.ttl_of(|reply| match reply.number {
            1 => Some(secs(5)),
            2 => Some(Duration::ZERO),
            _ => None,
        })
    });
    assert_eq!(number(&cache, 1).await, 1);
    advance(secs(5)).await;
    assert_eq!(number(&cache, 1).await, 2);
    assert_eq!(number(&cache, 1).await, 3, "zero is not stored");
    advance(secs(59)).await;
    assert_eq!(number(&cache, 1).await, 3);
    advance(secs(1)).await;
    assert_eq!(number(&cache, 1).await, 4);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_jitter() {
    // The ages at which the entries of ten keys expire, by a step of 100 ms.
    async fn ends(seed: u64) -> Vec<u32> {
        let loader = Loader::new(Step::Status(200));
        let cache = cache(&loader, |builder| builder.ttl(secs(10)).ttl_jitter(0.5).seed(seed));
        for key in 0..10 {
            get(&cache, key).await.unwrap();
        }
        let mut ends = vec![0; 10];
        for step in 0..=100 {
            for (key, end) in (0..).zip(&mut ends) {
                let fresh = matches!(Store::get_now(cache.handle().store(), &key), Lookup::Known(Some(entry))
                    if !entry.keep_for(Instant::now().into_std()).is_zero());
                if !fresh && *end == 0 {
                    *end = step;
                }
            }
            advance(millis(100)).await;
        }
        ends
    }
    let (one, same, other) = (ends(7).await, ends(7).await, ends(8).await);
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert!(one.iter().all(|end| (50..=101).contains(end)), "{one:?}");
    assert!(one.iter().any(|end| *end != one[0]), "they do not expire together: {one:?}");
}

#[tokio::test(start_paused = true)]
async fn the_memory_store_is_bounded_by_number_and_by_weight() {
    let loader = Loader::new(Step::Status(200));
    let by_number = cache(&loader, |builder| builder.capacity(10));
    for key in 0..100 {
        get(&by_number, key).await.unwrap();
    }
    assert!(by_number.handle().store().len() <= 10);

    let layer = builder().capacity(10).weigher(|_, reply| reply.map_or(1, |_| 5)).build().unwrap();
    let by_weight = layer.layer(loader.clone());
    for key in 0..100 {
        get(&by_weight, key).await.unwrap();
    }
    assert!(by_weight.handle().store().len() <= 2);
}

// === readiness ===

#[tokio::test(start_paused = true)]
async fn r4_a_cached_key_is_served_while_the_inner_service_is_not_ready() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder);
    get(&cache, 1).await.unwrap();
    loader.shared.ready.store(false, Ordering::SeqCst);
    let mut clone = cache.clone();
    assert!(poll_fn(|cx| clone.poll_ready(cx)).now_or_never().is_some(), "it is always ready");
    assert_eq!(clone.call(1).now_or_never().expect("at once").unwrap().number, 1);

    let mut miss = task::spawn(clone.call(2));
    assert!(miss.poll().is_pending());
    settle().await;
    assert_eq!(loader.loads(), 1, "an unready service is not called");
}

#[tokio::test(start_paused = true)]
async fn r4_a_cached_key_is_served_while_readiness_fails() {
    #[derive(Clone)]
    struct Broken(Arc<AtomicBool>);
    impl Service<u32> for Broken {
        type Response = u32;
        type Error = BoxError;
        type Future = std::future::Ready<Result<u32, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(if self.0.load(Ordering::SeqCst) { Err("gone".into()) } else { Ok(()) })
        }
        fn call(&mut self, key: u32) -> Self::Future {
            std::future::ready(Ok(key))
        }
    }
    let broken = Arc::new(AtomicBool::new(false));
    let layer = CacheLayer::builder("test").key(|key: &u32| (*key != 0).then_some(*key)).build().unwrap();
    let cache = layer.layer(Broken(broken.clone()));
    assert_eq!(cache.clone().oneshot(1).await.unwrap(), 1);
    broken.store(true, Ordering::SeqCst);
    assert_eq!(cache.clone().oneshot(1).await.unwrap(), 1);
    assert_eq!(cache.clone().oneshot(2).await.unwrap_err().to_string(), "gone");
    assert_eq!(cache.clone().oneshot(0).await.unwrap_err().to_string(), "gone", "the uncached call too");
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    // `ConcurrencyLimit` panics when it is called without the permit that its own `poll_ready` took.
    let inner = ServiceBuilder::new().concurrency_limit(1).service(Loader::new(Step::After(millis(10), 200)));
    let layer = CacheLayer::builder("test").key(|key: &u32| (*key < 10).then_some(*key)).build().unwrap();
    let cache = layer.layer(inner);
    let answers = join_all((0..20).map(|key| cache.clone().oneshot(key))).await;
    assert!(answers.iter().all(Result::is_ok));
}

// === stale answers ===

#[tokio::test(start_paused = true)]
async fn r5_stale_while_revalidate() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder.stale_while_revalidate(secs(300)));
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;

    // At 61 s: the old answer at once, to each of five calls, and one refresh.
    for _ in 0..5 {
        let answer = get(&cache, 1).now_or_never().expect("at once").unwrap();
        assert_eq!((answer.number, answer.served), (1, stale(61, StaleReason::Revalidating)));
    }
    settle().await;
    assert_eq!(loader.loads(), 2);
    sleep(millis(150)).await;
    let fresh = get(&cache, 1).await.unwrap();
    assert_eq!((fresh.number, fresh.served.unwrap().is_stale()), (2, false));

    // At 361 s: a miss.
    advance(secs(361)).await;
    let loaded = get(&cache, 1).await.unwrap();
    assert_eq!((loaded.number, loaded.served), (3, Some(Served::Loaded)));
    let statistics = cache.handle().statistics();
    assert_eq!((statistics.stale_hits, statistics.refreshes, statistics.misses), (5, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_backs_off_and_the_old_answer_is_served_on() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| {
        builder.stale_while_revalidate(secs(300)).refresh_backoff(secs(2)).max_refresh_backoff(secs(8)).seed(1)
    });
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;
    loader.always(Step::Fail);
    let mut at = Vec::new();
    // A call every 100 ms for 30 s.
    for step in 0..300 {
        let before = loader.loads();
        assert_eq!(number(&cache, 1).await, 1);
        settle().await;
        if loader.loads() > before {
            at.push(step);
        }
        advance(millis(100)).await;
    }
    // 2, 4, 8, 8, ... seconds, each shortened by up to half: within [1, 2], [2, 4], [4, 8].
    let waits: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((10..=20).contains(&waits[0]) && (20..=40).contains(&waits[1]), "{waits:?}");
    assert!(waits[2..].iter().all(|wait| (40..=80).contains(wait)), "{waits:?}");

    loader.always(Step::Status(200));
    sleep(secs(8)).await;
    get(&cache, 1).await.unwrap();
    settle().await;
    assert!(number(&cache, 1).await > 1, "it came back");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_leaves_the_old_answer() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_while_revalidate(secs(300)));
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;
    loader.next([Step::Panic]);
    assert_eq!(number(&cache, 1).await, 1);
    settle().await;
    assert_eq!(loader.loads(), 2);
    assert_eq!(number(&cache, 1).await, 1);
    sleep(secs(2)).await;
    get(&cache, 1).await.unwrap();
    settle().await;
    assert_eq!(number(&cache, 1).await, 3);
    assert_eq!(cache.handle().statistics().refresh_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ends_with_the_last_owner_of_the_cache() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_while_revalidate(secs(300)).load_timeout(None));
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;
    loader.always(Step::Hang);
    get(&cache, 1).await.unwrap();
    settle().await;
    let handle = cache.handle();
    drop(cache);
    settle().await;
    assert_eq!(loader.shared.running.load(Ordering::SeqCst), 1, "a handle keeps it");
    drop(handle);
    settle().await;
    assert_eq!(loader.shared.running.load(Ordering::SeqCst), 0);
    assert_eq!(loader.shared.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pending_call_keeps_the_cache_alive() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let call = builder().build().unwrap().layer(loader.clone()).oneshot(1);
    assert_eq!(call.await.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn r6_stale_if_error_serves_the_old_answer_with_a_flag() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_if_error(secs(3600)).refresh_backoff(secs(2)));
    get(&cache, 1).await.unwrap();
    advance(secs(100)).await;
    for step in [Step::Fail, Step::Status(503), Step::Panic] {
        loader.always(step);
        let before = loader.loads();
        let answer = get(&cache, 1).await.unwrap();
        assert_eq!(loader.loads() - before, 1);
        assert_eq!((answer.number, answer.served.unwrap().is_stale()), (1, true));
        assert!(matches!(answer.served, Some(Served::Stale { reason: StaleReason::LoadFailed, .. })));
        // What failed just now is not asked again at once.
        let answer = get(&cache, 1).await.unwrap();
        assert_eq!(loader.loads() - before, 1);
        assert!(matches!(answer.served, Some(Served::Stale { reason: StaleReason::CoolingDown, .. })));
        advance(secs(60)).await;
    }
    advance(secs(3600)).await;
    loader.always(Step::Fail);
    assert!(get(&cache, 1).await.is_err(), "beyond the window");
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_covers_a_refusal_made_before_anything_was_sent() {
    let open = Arc::new(AtomicBool::new(false));
    let inner = service_fn({
        let open = open.clone();
        move |key: u32| {
            let open = open.load(Ordering::SeqCst);
            async move { if open { Err(BoxError::from_rejected(Rejected::shed())) } else { Ok(key) } }
        }
    });
    let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).stale_if_error(secs(3600)).build().unwrap();
    let cache = layer.layer(inner);
    cache.clone().oneshot(1).await.unwrap();
    advance(secs(61)).await;
    open.store(true, Ordering::SeqCst);
    assert_eq!(cache.clone().oneshot(1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer_and_is_never_replaced_by_an_old_one() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_if_error(secs(3600)).stale_while_revalidate(secs(10)));
    for step in [Step::Status(404), Step::Status(403), Step::Refuse] {
        loader.always(Step::Status(200));
        get(&cache, 1).await.unwrap();
        advance(secs(100)).await;
        loader.always(step);
        let before = loader.loads();
        assert!(!get(&cache, 1).await.is_ok_and(|reply| reply.status == 200));
        assert_eq!(loader.loads() - before, 1);
        // And the old answer is gone for good.
        loader.always(Step::Fail);
        assert!(get(&cache, 1).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_removes_the_old_answer() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_while_revalidate(secs(300)));
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;
    loader.always(Step::Status(404));
    assert_eq!(get(&cache, 1).await.unwrap().status, 200);
    settle().await;
    assert_eq!(get(&cache, 1).await.unwrap().status, 404);
}

#[tokio::test(start_paused = true)]
async fn the_soft_timeout_serves_the_old_answer_and_the_load_goes_on() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| {
        builder.stale_if_error(secs(3600)).soft_load_timeout(millis(50)).load_timeout(secs(1))
    });
    get(&cache, 1).await.unwrap();
    advance(secs(100)).await;
    loader.always(Step::After(millis(500), 200));
    let start = Instant::now();
    let answer = get(&cache, 1).await.unwrap();
    assert_eq!(start.elapsed(), millis(50));
    assert!(matches!(answer.served, Some(Served::Stale { reason: StaleReason::LoadSlow, .. })));
    sleep(millis(500)).await;
    assert_eq!(number(&cache, 1).await, 2);
    // Without an old answer the soft timeout changes nothing.
    let start = Instant::now();
    assert_eq!(number(&cache, 2).await, 3);
    assert_eq!(start.elapsed(), millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_success_and_an_invalidation_forget_how_often_a_key_failed() {
    for invalidated in [None, Some(false), Some(true)] {
        let loader = Loader::new(Step::Status(200));
        let cache = cache(&loader, |builder| {
            builder.stale_if_error(secs(36_000)).refresh_backoff(secs(10)).max_refresh_backoff(secs(1000)).seed(1)
        });
        let handle = cache.handle();
        get(&cache, 1).await.unwrap();
        advance(secs(61)).await;
        // Three failures: the key is left alone for up to 10, 20 and 40 s.
        loader.always(Step::Fail);
        for _ in 0..3 {
            assert!(get(&cache, 1).await.unwrap().served.unwrap().is_stale());
            advance(secs(40)).await;
        }
        loader.always(Step::Status(200));
        match invalidated {
            None => {}
            Some(false) => handle.invalidate(&1).await.unwrap(),
            Some(true) => handle.clear().await.unwrap(),
        }
        assert_eq!(get(&cache, 1).await.unwrap().served, Some(Served::Loaded));
        advance(secs(61)).await;
        loader.always(Step::Fail);
        let before = loader.loads();
        get(&cache, 1).await.unwrap();
        advance(secs(4)).await;
        get(&cache, 1).await.unwrap();
        assert_eq!(loader.loads() - before, 1, "at least half of the first wait");
        advance(secs(6)).await;
        get(&cache, 1).await.unwrap();
        assert_eq!(loader.loads() - before, 2, "no longer than the first wait");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_that_was_invalidated_does_not_end_a_cooldown_of_others() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_if_error(secs(3600)).refresh_backoff(secs(10)));
    for key in [1, 2] {
        get(&cache, key).await.unwrap();
    }
    advance(secs(61)).await;
    loader.always(Step::Fail);
    for key in [1, 2] {
        get(&cache, key).await.unwrap();
    }
    cache.handle().invalidate(&1).await.unwrap();
    let before = loader.loads();
    assert!(get(&cache, 1).await.is_err());
    assert!(get(&cache, 2).await.is_ok());
    assert_eq!(loader.loads() - before, 1, "the other key is still left alone");
}

#[tokio::test(start_paused = true)]
async fn without_a_free_place_an_old_answer_is_served_and_no_refresh_waits() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| {
        builder.stale_while_revalidate(secs(300)).max_concurrent_loads(1).max_queued_loads(0).load_timeout(None)
    });
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;
    loader.next([Step::Hang]);
    let mut hanging = task::spawn(cache.clone().oneshot(2));
    assert!(hanging.poll().is_pending());
    settle().await;
    assert_eq!((cache.handle().loading(), cache.handle().under_way()), (1, 1));
    for _ in 0..3 {
        assert_eq!(get(&cache, 1).await.unwrap().served, stale(61, StaleReason::Revalidating));
        settle().await;
    }
    assert_eq!(loader.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_room_for_a_load_an_old_answer_is_served() {
    let loader = Loader::new(Step::Status(200));
    let in_memory = cache(&loader, |builder| {
        builder.stale_if_error(secs(3600)).max_concurrent_loads(1).max_queued_loads(0).load_timeout(None)
    });
    let store = Remote::new(Mood::Well(millis(1)));
    let layer = builder().stale_if_error(secs(3600)).max_concurrent_loads(1).max_queued_loads(0).load_timeout(None);
    let elsewhere = layer.store(store).build().unwrap().layer(loader.clone());
    get(&in_memory, 1).await.unwrap();
    remote_get(&elsewhere, 1).await;
    sleep(secs(61)).await;
    loader.always(Step::Hang);
    let mut one = task::spawn(in_memory.clone().oneshot(2));
    let mut other = task::spawn(elsewhere.clone().oneshot(2));
    assert!(one.poll().is_pending() && other.poll().is_pending());
    sleep(millis(5)).await;
    for answer in [get(&in_memory, 1).await.unwrap(), remote_get(&elsewhere, 1).await] {
        assert!(matches!(answer.served, Some(Served::Stale { reason: StaleReason::Limited, .. })), "{answer:?}");
    }
    assert!(get(&in_memory, 3).await.is_err() && elsewhere.clone().oneshot(3).await.is_err());
    assert_eq!(loader.loads(), 4);
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_call_takes_an_old_answer_that_may_stand_in() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| builder.stale_if_error(secs(3600)));
    get(&cache, 1).await.unwrap();
    advance(secs(100)).await;
    loader.always(Step::After(secs(5), 200));
    let start = Instant::now();
    let within = |time| Ambient::new().with_deadline(start + time).scope(get(&cache, 1));
    assert_eq!(within(secs(1)).await.unwrap().served, stale(101, StaleReason::LoadSlow));
    assert_eq!(start.elapsed(), secs(1));
    // One that has passed before the call too, without a load of its own.
    assert_eq!(within(millis(500)).await.unwrap().served, stale(101, StaleReason::LoadSlow));
    sleep(secs(10)).await;
    assert_eq!((loader.loads(), number(&cache, 1).await), (2, 2), "the load went on");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_load_is_a_timeout_of_the_load_although_a_layer_below_notices_it_first() {
    for (early, is_timeout) in [(Duration::ZERO, true), (millis(500), false)] {
        let inner = service_fn(move |_: u32| async move {
            let deadline = context::current().deadline().expect("the load has one");
            tokio::time::sleep_until(deadline - early).await;
            Err::<u32, _>(BoxError::from_rejected(Rejected::DeadlineExceeded { sent: true }))
        });
        let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).load_timeout(secs(2)).build().unwrap();
        let error = layer.layer(inner).oneshot(1).await.unwrap_err();
        let rejected = error.as_rejected().unwrap();
        assert_eq!(*rejected == Rejected::Timeout { timeout: secs(2), sent: true }, is_timeout, "{rejected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_is_an_event_with_its_cooldown() {
    let loader = Loader::new(Step::Status(200));
    let events = Arc::new(Mutex::new(Vec::new()));
    let cache = cache(&loader, |builder| {
        let events = events.clone();
        let listener = move |event: &Event<'_>| events.lock().unwrap().push(event.to_string());
        builder.stale_while_revalidate(secs(300)).refresh_backoff(secs(2)).listener(listener)
    });
    get(&cache, 1).await.unwrap();
    advance(secs(61)).await;
    loader.always(Step::Fail);
    get(&cache, 1).await.unwrap();
    settle().await;
    get(&cache, 2).await.unwrap_err();
    let events = events.lock().unwrap();
    assert!(
        events[0].starts_with("cache `test` a refresh failed (transient): the key is left alone for 1."),
        "{events:?}"
    );
    assert_eq!(events[1..], ["cache `test` a load failed (transient)"]);
}

// === deadlines and limits ===

#[tokio::test(start_paused = true)]
async fn the_hard_timeout_ends_a_load_for_everyone() {
    let loader = Loader::new(Step::Hang);
    let cache = cache(&loader, |builder| builder.load_timeout(secs(2)));
    let start = Instant::now();
    let answers = join_all((0..2).map(|_| get(&cache, 1))).await;
    assert_eq!(start.elapsed(), secs(2));
    assert_eq!(rejected(&answers[0]), &Rejected::Timeout { timeout: secs(2), sent: true });
    assert!(rejected(&answers[1]).is_load_failed());
    assert_eq!(rejected(&answers[1]).outcome(), Outcome::Transient);
    assert_eq!(loader.shared.running.load(Ordering::SeqCst), 0, "the load is dropped");

    loader.shared.ready.store(false, Ordering::SeqCst);
    assert_eq!(rejected(&get(&cache, 1).await), &Rejected::Timeout { timeout: secs(2), sent: false });
}

#[tokio::test(start_paused = true)]
async fn a_flight_carries_no_callers_context_and_each_caller_keeps_its_deadline() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = service_fn({
        let seen = seen.clone();
        move |key: u32| {
            let in_call = context::current();
            let seen = seen.clone();
            async move {
                sleep(secs(3)).await;
                seen.lock().unwrap().push((in_call, context::current()));
                Ok::<_, BoxError>(key)
            }
        }
    });
    let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).load_timeout(secs(10)).build().unwrap();
    let cache = layer.layer(inner);
    let start = Instant::now();
    let within = |time| Ambient::new().with_attempt(2).with_deadline(start + time).scope(cache.clone().oneshot(1));
    let patient = tokio::spawn(within(secs(5)));
    let hasty = within(secs(1)).await.unwrap_err();
    assert_eq!(hasty.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: true }));
    assert_eq!(start.elapsed(), secs(1));
    assert_eq!(patient.await.unwrap().unwrap(), 1);

    let own = Ambient::new().with_deadline(start + secs(10));
    assert_eq!(*seen.lock().unwrap(), [(own, own)], "only the deadline of the load itself");

    // A deadline that has passed starts no load; a hit does not care.
    let late = Ambient::new().with_deadline(Instant::now());
    let error = late.scope(cache.clone().oneshot(2)).await.unwrap_err();
    assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }));
    assert_eq!(late.scope(cache.clone().oneshot(1)).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_many_keys_is_limited_and_served_in_order() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder.max_concurrent_loads(10).max_queued_loads(1000));
    let start = Instant::now();
    let answers = join_all((0..100).map(|key| get(&cache, key))).await;
    assert_eq!(loader.shared.most.load(Ordering::SeqCst), 10);
    assert_eq!(start.elapsed(), secs(1));
    let numbers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().number).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>(), "in order of arrival");
}

#[tokio::test(start_paused = true)]
async fn beyond_the_queue_a_call_is_refused_and_a_flight_can_still_be_joined() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let events = Arc::new(Mutex::new(Vec::new()));
    let cache = cache(&loader, |builder| {
        let events = events.clone();
        let listener = move |event: &Event<'_>| events.lock().unwrap().push(event.to_string());
        builder.max_concurrent_loads(1).max_queued_loads(1).listener(listener)
    });
    let calls = [1, 2, 1, 2, 3].map(|key| get(&cache, key));
    let answers = join_all(calls).await;
    assert!(answers[..4].iter().all(Result::is_ok));
    assert_eq!(rejected(&answers[4]), &Rejected::Limited { retry_after: None });
    assert_eq!(loader.loads(), 2);
    assert_eq!(cache.handle().statistics().refused, 1);
    assert_eq!(*events.lock().unwrap(), ["cache `test` refused a call: 2 loads run or wait"]);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waits_for_nobody_is_called_off_before_it_begins() {
    let loader = Loader::new(Step::After(millis(100), 200));
    let cache = cache(&loader, |builder| builder.max_concurrent_loads(1));
    let mut first = task::spawn(cache.clone().oneshot(1));
    let mut second = task::spawn(cache.clone().oneshot(2));
    let mut third = task::spawn(cache.clone().oneshot(3));
    for call in [&mut first, &mut second, &mut third] {
        assert!(call.poll().is_pending());
    }
    settle().await;
    assert_eq!(cache.handle().under_way(), 3);
    drop(second);
    settle().await;
    assert_eq!(cache.handle().under_way(), 2);
    assert_eq!(first.await.unwrap().number, 1);
    assert_eq!(third.await.unwrap().number, 2);
    assert_eq!(loader.loads(), 2, "the second was never sent");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_place_ends_at_the_callers_deadline() {
    let loader = Loader::new(Step::After(secs(5), 200));
    let cache = cache(&loader, |builder| builder.max_concurrent_loads(1));
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { get(&cache, 1).await }
    });
    settle().await;
    let start = Instant::now();
    let second = Ambient::new().with_deadline(start + secs(1)).scope(get(&cache, 2)).await;
    assert_eq!(rejected(&second), &Rejected::DeadlineExceeded { sent: false });
    assert_eq!(start.elapsed(), secs(1));
    first.await.unwrap().unwrap();
    settle().await;
    assert_eq!(loader.loads(), 1);
}

// === invalidation ===

#[tokio::test(start_paused = true)]
async fn a_load_that_began_before_an_invalidation_does_not_undo_it() {
    enum By {
        Key,
        Tag,
        Clear,
    }
    for by in [By::Key, By::Tag, By::Clear] {
        let loader = Loader::new(Step::After(millis(100), 200));
        let cache = cache(&loader, |builder| builder.tags(|_, _, tags| tags.add("team:1")));
        let handle = cache.handle();
        let early = tokio::spawn({
            let cache = cache.clone();
            async move { get(&cache, 1).await }
        });
        settle().await;
        match by {
            By::Key => handle.invalidate(&1).await.unwrap(),
            By::Tag => handle.invalidate_tag("team:1"),
            By::Clear => handle.clear().await.unwrap(),
        }
        // Who calls after the invalidation does not get what was loaded before it.
        let late = tokio::spawn({
            let cache = cache.clone();
            async move { get(&cache, 1).await }
        });
        settle().await;
        advance(millis(50)).await;
        settle().await;
        assert_eq!(early.await.unwrap().unwrap().number, 1, "the early caller is not left alone");
        assert_eq!(late.await.unwrap().unwrap().number, 2);
        assert_eq!(number(&cache, 1).await, 2, "the newer answer is the one that is stored");
        assert_eq!(handle.under_way(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn invalidation_by_tag_hits_what_carries_the_tag() {
    let loader = Loader::new(Step::Status(200));
    let cache =
        cache(&loader, |builder| builder.tags(|key, _, tags| tags.add(if key % 2 == 0 { "even" } else { "odd" })));
    for key in 0..4 {
        get(&cache, key).await.unwrap();
    }
    cache.handle().invalidate_tag("even");
    let numbers = [number(&cache, 0).await, number(&cache, 1).await, number(&cache, 2).await, number(&cache, 3).await];
    assert_eq!(numbers, [5, 2, 6, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_was_invalidated_stands_in_for_nothing() {
    let loader = Loader::new(Step::Status(200));
    let cache = cache(&loader, |builder| {
        builder.stale_if_error(secs(3600)).stale_while_revalidate(secs(10)).tags(|_, _, tags| tags.add("all"))
    });
    get(&cache, 1).await.unwrap();
    cache.handle().invalidate_tag("all");
    loader.always(Step::Fail);
    assert!(get(&cache, 1).await.is_err());
    // Also when the invalidation comes while the load is under way.
    loader.always(Step::Status(200));
    get(&cache, 1).await.unwrap();
    advance(secs(100)).await;
    loader.always(Step::After(millis(10), 500));
    let call = tokio::spawn({
        let cache = cache.clone();
        async move { get(&cache, 1).await }
    });
    settle().await;
    cache.handle().invalidate_tag("all");
    assert_eq!(call.await.unwrap().unwrap().status, 500);
}

// === stores ===

/// A store elsewhere: it answers after a time, or fails, or panics.
#[derive(Clone)]
struct Remote {
    memory: MemoryStore<u32, Reply>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Mood {
    Well(Duration),
    Down,
    Panics,
}

impl Remote {
    fn new(mood: Mood) -> Self {
        Self { memory: MemoryStore::new(100), mood: Arc::new(Mutex::new(mood)), asked: Arc::default() }
    }

    fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn answer(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well(time) => {
                sleep(time).await;
                Ok(())
            }
            Mood::Down => Err(StoreError::new("connection refused")),
            Mood::Panics => panic!("the store of a test"),
        }
    }
}

impl Store<u32, Reply> for Remote {
    async fn get(&self, key: &u32) -> Result<Option<Arc<Entry<Reply>>>, StoreError> {
        self.answer().await?;
        self.memory.get(key).await
    }

    async fn set(&self, key: &u32, entry: Arc<Entry<Reply>>, keep_for: Duration) -> Result<(), StoreError> {
        self.answer().await?;
        self.memory.set(key, entry, keep_for).await
    }

    async fn remove(&self, key: &u32) -> Result<(), StoreError> {
        self.answer().await?;
        self.memory.remove(key).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.answer().await?;
        self.memory.clear().await
    }
}

type RemoteCache = Cache<Loader, u32, Reply, Key, ByStatus, Remote>;

fn remote_cache(loader: &Loader, store: &Remote) -> RemoteCache {
    let builder = builder().stale_while_revalidate(secs(300)).stale_if_error(secs(3600));
    builder.store(store.clone()).build().unwrap().layer(loader.clone())
}

async fn remote_get(cache: &RemoteCache, key: u32) -> Reply {
    cache.clone().oneshot(key).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_store_elsewhere_is_asked_once_for_all_who_wait() {
    let loader = Loader::new(Step::Status(200));
    let store = Remote::new(Mood::Well(millis(1)));
    let cache = remote_cache(&loader, &store);
    assert_eq!(remote_get(&cache, 1).await.number, 1);
    sleep(millis(10)).await;
    store.asked.store(0, Ordering::SeqCst);
    let answers = join_all((0..10).map(|_| remote_get(&cache, 1))).await;
    assert!(answers.iter().all(|answer| answer.number == 1 && matches!(answer.served, Some(Served::Hit { .. }))));
    assert_eq!(store.asked.load(Ordering::SeqCst), 1);
    assert_eq!(cache.handle().statistics().hits, 10);

    // Stale: at once, with one refresh behind it.
    advance(secs(61)).await;
    let answers = join_all((0..10).map(|_| remote_get(&cache, 1))).await;
    assert!(answers.iter().all(|answer| answer.number == 1 && answer.served.unwrap().is_stale()));
    sleep(millis(10)).await;
    assert_eq!(remote_get(&cache, 1).await.number, 2);
    assert_eq!(loader.loads(), 2);

    // Older: only if the load fails.
    advance(secs(1000)).await;
    loader.always(Step::Fail);
    let old = remote_get(&cache, 1).await;
    assert!(matches!(old.served, Some(Served::Stale { reason: StaleReason::LoadFailed, .. })));
    let old = remote_get(&cache, 1).await;
    assert!(matches!(old.served, Some(Served::Stale { reason: StaleReason::CoolingDown, .. })));
    assert_eq!(loader.loads(), 3);
}

#[tokio::test(start_paused = true)]
async fn r8_a_store_that_is_down_slow_or_panics_never_fails_the_call() {
    for (mood, wait) in [(Mood::Down, 0), (Mood::Well(secs(5)), 50), (Mood::Panics, 0)] {
        let loader = Loader::new(Step::Status(200));
        let store = Remote::new(mood);
        let cache = remote_cache(&loader, &store);
        let start = Instant::now();
        assert_eq!(remote_get(&cache, 1).await.number, 1);
        assert_eq!(start.elapsed(), millis(wait), "the caller waits for the question, never for the write");
        sleep(millis(100)).await;
        let statistics = cache.handle().statistics();
        assert_eq!(statistics.store_errors, 2, "one get, one set");
        assert!(cache.handle().invalidate(&1).await.is_err(), "but an invalidation that did not happen says so");
    }
}

#[tokio::test(start_paused = true)]
async fn r8_a_store_that_keeps_failing_is_left_alone_and_tried_again() {
    let loader = Loader::new(Step::Status(200));
    let store = Remote::new(Mood::Down);
    let cache = remote_cache(&loader, &store);
    for key in 0..20 {
        remote_get(&cache, key).await;
        settle().await;
    }
    assert_eq!(store.asked.load(Ordering::SeqCst), 10, "five reads and five writes in a row failed");
    assert_eq!(cache.handle().statistics().store_bypassed, 30);

    store.set_mood(Mood::Well(Duration::ZERO));
    advance(secs(1)).await;
    remote_get(&cache, 1).await;
    sleep(millis(10)).await;
    let before = loader.loads();
    remote_get(&cache, 1).await;
    assert_eq!(loader.loads(), before, "it is back");
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_during_a_slow_write_is_not_undone() {
    let loader = Loader::new(Step::Status(200));
    let store = Remote::new(Mood::Well(millis(10)));
    let cache = remote_cache(&loader, &store);
    // get 0..10 ms, load, set 10..20 ms; the invalidation removes at 15..25 ms what is not there yet, or just so.
    for at in [12, 15, 19] {
        remote_get(&cache, 1).await;
        sleep(millis(at - 10)).await;
        cache.handle().invalidate(&1).await.unwrap();
        sleep(millis(100)).await;
        assert!(matches!(store.memory.get_now(&1), Lookup::Known(None)), "at {at} ms");
    }
}

// === the house ===

#[test]
fn building_and_dropping_is_legal_outside_a_runtime() {
    let loader = Loader::new(Step::Status(200));
    let mut cache = cache(&loader, |builder| builder);
    let handle = cache.handle();
    drop(cache.call(1));
    drop(cache);
    handle.invalidate_tag("any");
    assert_eq!(handle.statistics().abandoned, 1);
}

#[test]
fn a_bad_setting_is_an_error_with_its_name() {
    let error = builder().ttl_jitter(2.0).build().unwrap_err();
    assert_eq!(error.field(), "ttl_jitter");
}

#[tokio::test(start_paused = true)]
async fn one_layer_applied_twice_is_one_cache() {
    let loader = Loader::new(Step::Status(200));
    let layer = builder().build().unwrap();
    let (one, other) = (layer.layer(loader.clone()), layer.clone().layer(loader.clone()));
    assert_eq!(number(&one, 1).await, 1);
    assert_eq!(number(&other, 1).await, 1);
    assert_eq!(layer.handle().statistics().hits, 1);
}

#[tokio::test(start_paused = true)]
async fn every_call_is_counted_once() {
    let loader = Loader::new(Step::After(millis(10), 200));
    let key: Key = |key| (*key != 0).then_some(*key);
    let layer = builder_with(key).max_concurrent_loads(1).max_queued_loads(1).stale_while_revalidate(secs(300));
    let cache = layer.build().unwrap().layer(loader.clone());
    let mut calls = 0;
    for round in 0..4 {
        let keys = [0, 1, 1, 2, 3, 4];
        calls += keys.len();
        join_all(keys.map(|key| get(&cache, key))).await.into_iter().for_each(drop);
        let mut left = task::spawn(get(&cache, 9));
        calls += 1;
        _ = left.poll();
        drop(left);
        advance(secs(20 * round)).await;
    }
    let s = cache.handle().statistics();
    let sum = s.hits + s.negative_hits + s.stale_hits + s.misses + s.coalesced + s.uncached + s.refused + s.abandoned;
    assert_eq!(sum, calls as u64, "{s:?}");
    assert!(s.hits > 0 && s.stale_hits > 0 && s.refused > 0 && s.abandoned > 0 && s.coalesced > 0, "{s:?}");
}

fn builder_with(key: Key) -> Builder {
    CacheLayer::builder("test").key(key).classify(ByStatus).ttl_jitter(0.0).ttl(secs(60))
}

#[tokio::test(start_paused = true)]
async fn closures_are_keys_and_classifiers_without_annotations() {
    let layer = CacheLayer::builder("test")
        .key(key_fn(|request: &(u32, String)| Some(request.0)))
        .classify(classify_fn(|result: Result<&String, &BoxError>| match result {
            Ok(text) if text.is_empty() => Outcome::Transient,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Permanent,
        }))
        .build()
        .unwrap();
    let service = service_fn(|(_, text): (u32, String)| async move { Ok::<_, BoxError>(text) });
    let mut cache = ServiceBuilder::new().layer(layer).service(service);
    assert_eq!(cache.ready().await.unwrap().call((1, "a".into())).await.unwrap(), "a");
    assert_eq!(cache.ready().await.unwrap().call((1, "b".into())).await.unwrap(), "a");
    let spawned = tokio::spawn(async move { cache.ready().await?.call((2, "c".into())).await });
    assert_eq!(spawned.await.unwrap().unwrap(), "c");
}

#[tokio::test(start_paused = true)]
async fn a_herd_through_a_semaphore_of_the_inner_service_does_not_hang() {
    let permits = Arc::new(Semaphore::new(2));
    let inner = service_fn({
        let permits = permits.clone();
        move |key: u32| {
            let permits = permits.clone();
            async move {
                let _permit = permits.acquire().await.map_err(BoxError::from)?;
                sleep(millis(5)).await;
                Ok::<_, BoxError>(key)
            }
        }
    });
    let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).build().unwrap();
    let cache = layer.layer(inner);
    let answers = join_all((0..1000).map(|call| cache.clone().oneshot(call % 50))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(cache.handle().statistics().loads, 50);
}

#[tokio::test(start_paused = true)]
async fn a_hit_allocates_nothing() {
    let service = service_fn(|key: u32| async move { Ok::<_, BoxError>(key) });
    let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).build().unwrap();
    let mut cache = layer.layer(service);
    cache.call(1).await.unwrap();
    // moka allocates a node for its own records every few dozen reads; the layer adds nothing to what the store needs.
    let store = cache.handle().store().clone();
    let count = |work: &mut dyn FnMut()| allocation_counter::measure(|| (0..640).for_each(|_| work())).count_total;
    let bare = count(&mut || drop(store.get_now(&1)));
    let layered = count(&mut || assert_eq!(cache.call(1).now_or_never().unwrap().unwrap(), 1));
    assert!(layered <= bare + 64, "{layered} instead of {bare} in 640 hits");
}
