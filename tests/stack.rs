//! The layers together, in the order that the crate recommends: telemetry, total timeout, cache, retry, pool with its
//! endpoints' breakers, attempt timeout.
#![cfg(all(feature = "balance", feature = "cache", feature = "retry", feature = "timeout"))]

use std::error::Error as StdError;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use mainstay::balance::{EjectionConfig, PoolHandle};
use mainstay::cache::MemoryStore;
use mainstay::circuit_breaker::{CircuitBreakerConfig, OpenTime};
use mainstay::retry::RetryHandle;
use mainstay::telemetry::{TelemetryHandle, TelemetryLayer};
use mainstay::timeout::TimeoutHandle;
use mainstay::{
    BoxError, CacheHandle, CacheLayer, CircuitBreakerLayer, Outcome, Pool, PoolConfig, Rejectable, Rejected,
    RetryLayer, Timeout, TimeoutLayer, classify_fn, context,
};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Keys from here on are not cached.
const UNCACHED: u32 = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Found(u32),
    NotFound,
    /// What a server answers when it is well and what it calls is not.
    DependencyFailed,
}

fn outcome(result: Result<&Reply, &BoxError>) -> Outcome {
    match result {
        Ok(Reply::Found(_)) => Outcome::Success,
        Ok(Reply::NotFound) => Outcome::Refused,
        Ok(Reply::DependencyFailed) => Outcome::DependencyFailed,
        Err(_) => Outcome::Transient,
    }
}

struct Handles {
    telemetry: TelemetryHandle,
    total: TimeoutHandle,
    cache: CacheHandle<u32, Reply, MemoryStore<u32, Reply>>,
    retry: RetryHandle,
    attempts: Vec<TimeoutHandle>,
}

fn pool_config() -> PoolConfig {
    let mut breaker = CircuitBreakerConfig::default();
    breaker.consecutive_failures = Some(5);
    breaker.open_time = OpenTime::Constant(5 * SECOND);
    breaker.probes = 1;
    let mut config = PoolConfig::default();
    config.circuit_breaker = Some(breaker);
    config.ejection = Some(EjectionConfig::default());
    config.seed = Some(7);
    config
}

/// The whole order over `n` endpoints, each of them `endpoint(its number)`.
fn stack<S>(
    n: u32,
    endpoint: impl Fn(u32) -> S,
) -> (impl Service<u32, Response = Reply, Error = BoxError, Future: Send> + Clone, Handles, PoolHandle<u32, Timeout<S>>)
where
    S: Service<u32, Response = Reply, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    let telemetry = TelemetryLayer::new("users").classify(classify_fn(outcome));
    let total = TimeoutLayer::total("users", SECOND).unwrap();
    let cache = CacheLayer::builder("users")
        .key(|key: &u32| (*key < UNCACHED).then_some(*key))
        .classify(classify_fn(outcome))
        .ttl(Duration::from_secs(30))
        .stale_if_error(Duration::from_secs(60))
        .build()
        .unwrap();
    let retry = RetryLayer::builder("users").classify(classify_fn(outcome)).seed(7).build().unwrap();
    let pool = Pool::builder("users").config(pool_config()).classify(classify_fn(outcome)).build().unwrap();
    let mut attempts = Vec::new();
    for number in 0..n {
        let attempt = TimeoutLayer::attempt("users", millis(400)).unwrap();
        attempts.push(attempt.handle());
        pool.handle().add(number, attempt.layer(endpoint(number)));
    }
    let handles = Handles {
        telemetry: telemetry.handle(),
        total: total.handle(),
        cache: cache.handle(),
        retry: retry.handle(),
        attempts,
    };
    let pool_handle = pool.handle();
    let service = ServiceBuilder::new().layer(telemetry).layer(total).layer(cache).layer(retry).service(pool);
    (service, handles, pool_handle)
}

/// Calls are the sum of what became of them, in every layer.
fn assert_accounts<S>(handles: &Handles, pool: &PoolHandle<u32, Timeout<S>>, calls: u64) {
    let telemetry = handles.telemetry.statistics();
    assert_eq!(telemetry.calls(), calls, "{telemetry:?}");
    let cache = handles.cache.statistics();
    let served = cache.hits + cache.negative_hits + cache.stale_hits + cache.misses + cache.coalesced;
    assert_eq!(served + cache.uncached + cache.refused + cache.abandoned, calls, "{cache:?}");
    let retry = handles.retry.statistics();
    assert_eq!(retry.calls(), cache.loads + cache.uncached, "{retry:?} {cache:?}");
    let pool = pool.statistics();
    let attempts = pool.successes
        + pool.refused
        + pool.failures
        + pool.throttled
        + pool.dependency_failed
        + pool.ignored
        + pool.rejected
        + pool.abandoned;
    assert_eq!((attempts, pool.in_flight), (retry.attempts(), 0), "{pool:?} {retry:?}");
}

/// Composition, R1. Peers need ten and more.
#[test]
fn r1_a_call_through_six_layers_allocates_at_most_once() {
    let answer = |key| async move { Ok::<_, BoxError>(Reply::Found(key)) };
    let (mut service, handles, pool) = stack(3, |_| service_fn(answer));
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |key: u32| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = pin!(service.call(key));
        assert!(call.as_mut().poll(&mut cx).is_ready());
    };
    // The first calls may resolve metrics and fill the breakers' windows.
    (0..2_000).for_each(|_| call(UNCACHED));
    let measured = allocation_counter::measure(|| (0..100).for_each(|_| call(UNCACHED))).count_total;
    assert!(measured <= 100, "{measured} allocations in 100 calls");
    assert_eq!(handles.telemetry.statistics().successes, 2_100);
    assert_accounts(&handles, &pool, 2_100);
}

/// Composition, R1, for a hit.
#[test]
fn r1_a_hit_allocates_at_most_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = |key| async move { Ok::<_, BoxError>(Reply::Found(key)) };
    let (mut service, handles, _pool) = stack(1, |_| service_fn(answer));
    let warm = service.clone();
    runtime.block_on(async move { warm.oneshot(1).await.unwrap() });
    let mut cx = Context::from_waker(Waker::noop());
    let mut hit = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = pin!(service.call(1));
        assert!(call.as_mut().poll(&mut cx).is_ready());
    };
    (0..200).for_each(|_| hit());
    let measured = allocation_counter::measure(|| (0..100).for_each(|_| hit())).count_total;
    assert!(measured <= 100, "{measured} allocations in 100 hits");
    assert_eq!(handles.cache.statistics().hits, 300);
}

#[derive(Debug, thiserror::Error)]
#[error("the query failed")]
struct QueryFailed(#[source] std::io::Error);

fn chain(error: &BoxError) -> Vec<String> {
    let first: &(dyn StdError + 'static) = &**error;
    std::iter::successors(Some(first), |&error| error.source()).map(ToString::to_string).collect()
}

/// Composition, R3.
#[tokio::test(start_paused = true)]
async fn r3_an_error_keeps_its_chain_of_sources_and_a_refusal_says_what_it_is() {
    let failing = |_| async { Err::<Reply, _>(QueryFailed(std::io::Error::other("connection reset")).into()) };
    let (service, handles, pool) = stack(1, move |_| service_fn(failing));
    let error = service.clone().oneshot(UNCACHED).await.unwrap_err();
    assert!(error.downcast_ref::<QueryFailed>().is_some(), "through all layers it is the error that it was");
    assert_eq!(chain(&error), ["the query failed", "connection reset"]);
    assert_eq!(error.as_rejected(), None);

    // The one who asked for a load gets the error as well; those who waited with it share its text.
    let one = tokio::spawn(service.clone().oneshot(1));
    let other = tokio::spawn(service.clone().oneshot(1));
    let (one, other) = (one.await.unwrap().unwrap_err(), other.await.unwrap().unwrap_err());
    assert_eq!(chain(&one), ["the query failed", "connection reset"]);
    assert!(other.as_rejected().is_some_and(Rejected::is_load_failed));
    assert!(chain(&other).iter().any(|text| text.contains("the query failed")), "{other}");
    assert_accounts(&handles, &pool, 3);

    // A refusal is known at the top, under whatever it was wrapped in.
    assert!(pool.disable(&0));
    let refused = service.clone().oneshot(UNCACHED).await.unwrap_err();
    let rejected = refused.as_rejected().expect("a refusal");
    assert!(rejected.is_no_endpoint() && !rejected.was_sent());
}

/// Timeouts, R2: three attempts of 400 ms within one second; the third gets what is left.
#[tokio::test(start_paused = true)]
async fn timeouts_r2_one_deadline_is_shared_by_all_attempts() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let (service, handles, pool) = stack(3, |number| {
        let seen = seen.clone();
        service_fn(move |_| {
            let left = context::current().remaining(Instant::now()).unwrap();
            seen.lock().unwrap().push((number, start.elapsed() + left));
            pending::<Result<Reply, BoxError>>()
        })
    });
    let error = service.oneshot(UNCACHED).await.unwrap_err();
    assert_eq!(
        (error.as_rejected(), start.elapsed()),
        (Some(&Rejected::Timeout { timeout: SECOND, sent: true }), SECOND)
    );
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|(_, ends)| *ends == SECOND), "every attempt sees the call's deadline: {seen:?}");
    let mut endpoints: Vec<_> = seen.iter().map(|(number, _)| *number).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, [0, 1, 2], "and each goes elsewhere");
    let timed_out: u64 = handles.attempts.iter().map(|attempt| attempt.statistics().timed_out).sum();
    assert_eq!(timed_out, 2, "the third attempt was cut by the deadline, which is no failure of its endpoint");
    assert_eq!((pool.statistics().failures, pool.statistics().ignored), (2, 1));
    assert_eq!(handles.total.statistics().timed_out, 1, "whoever noticed first, it was the total timeout");
    assert_accounts(&handles, &pool, 1);
}

/// Composition, R4: one hour of a whole stack, of which one endpoint is down for ten minutes and all are for one.
#[tokio::test(start_paused = true)]
async fn r4_an_hour_of_the_whole_stack_in_virtual_time() {
    let start = Instant::now();
    let down = move |number: u32| {
        let minute = start.elapsed().as_secs() / 60;
        (number == 2 && (10..20).contains(&minute)) || minute == 40
    };
    let (service, handles, pool) = stack(4, |number| {
        service_fn(move |key| async move {
            sleep(millis(5)).await;
            if down(number) { Err(BoxError::from("down")) } else { Ok(Reply::Found(key)) }
        })
    });
    let (mut calls, mut failures) = (0_u64, [0_u32; 60]);
    while start.elapsed() < Duration::from_secs(3600) {
        let minute = (start.elapsed().as_secs() / 60) as usize;
        // Of five keys one is not cached.
        let key = if calls % 5 == 0 { UNCACHED } else { (calls % 50) as u32 };
        failures[minute] += u32::from(service.clone().oneshot(key).await.is_err());
        calls += 1;
        sleep(millis(500)).await;
    }
    sleep(Duration::from_secs(60)).await;
    assert_accounts(&handles, &pool, calls);
    assert!(calls > 6_000);
    let failed_outside: u32 = (0..60).filter(|minute| *minute != 40).map(|minute| failures[minute]).sum();
    assert_eq!(failed_outside, 0, "one endpoint that is down fails nobody: {failures:?}");
    // Keys that were cached are served stale; only the others fail.
    assert!((1..=30).contains(&failures[40]), "{failures:?}");
    assert!(handles.cache.statistics().stale_hits > 0);
    let sick = pool.endpoints().into_iter().find(|endpoint| endpoint.key == 2).unwrap();
    assert!(sick.failures < 100, "it was left alone while it was down: {sick:?}");
    assert!(pool.endpoints().iter().all(|endpoint| endpoint.usable && endpoint.against.is_none()), "all are back");
}

/// The flow of a user's call: balancer, application servers, database. The database stalls; the servers are well.
#[tokio::test(start_paused = true)]
async fn a_stalled_database_does_not_eject_application_servers_nor_multiply_the_load() {
    let queries = Arc::new(AtomicU32::new(0));
    let stalled = Arc::new(AtomicU32::new(0));
    let database = {
        let (queries, stalled) = (queries.clone(), stalled.clone());
        service_fn(move |key: u32| {
            queries.fetch_add(1, Relaxed);
            let stalls = stalled.load(Relaxed) == 1;
            async move {
                if stalls {
                    pending::<()>().await;
                }
                Ok::<_, BoxError>(Reply::Found(key))
            }
        })
    };
    let served = Arc::new(AtomicU32::new(0));
    let (service, handles, pool) = stack(3, |_| {
        let served = served.clone();
        // Of its own, each server has a breaker before the database, and answers well or says whose fault it is.
        let breaker = CircuitBreakerLayer::builder("database")
            .failure_rate(None)
            .consecutive_failures(3)
            .build()
            .unwrap()
            .layer(TimeoutLayer::attempt("database", millis(100)).unwrap().layer(database.clone()));
        service_fn(move |key| {
            served.fetch_add(1, Relaxed);
            let query: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(breaker.clone().oneshot(key));
            async move { Ok::<_, BoxError>(query.await.unwrap_or(Reply::DependencyFailed)) }
        })
    });
    for _ in 0..30 {
        assert_eq!(service.clone().oneshot(UNCACHED).await.unwrap(), Reply::Found(UNCACHED));
    }
    stalled.store(1, Relaxed);
    let before = queries.load(Relaxed);
    for _ in 0..300 {
        assert_eq!(service.clone().oneshot(UNCACHED).await.unwrap(), Reply::DependencyFailed);
        sleep(millis(10)).await;
    }
    let counted = pool.statistics();
    assert_eq!((counted.ejections, counted.usable, counted.failures, counted.panic), (0, 3, 0, false));
    assert_eq!((counted.dependency_failed, served.load(Relaxed)), (300, 330), "each call reached one server, once");
    assert_eq!(handles.retry.statistics().retries, 0);
    assert!(queries.load(Relaxed) - before <= 12, "the servers' breakers leave the database alone");
    for endpoint in pool.endpoints() {
        assert!(endpoint.usable && endpoint.failures == 0, "{endpoint:?}");
    }

    stalled.store(0, Relaxed);
    sleep(10 * SECOND).await;
    for _ in 0..30 {
        assert_eq!(service.clone().oneshot(UNCACHED).await.unwrap(), Reply::Found(UNCACHED));
    }
    assert_accounts(&handles, &pool, 360);
}

/// What the callee answers well is an answer at every layer, also where it is a no.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_callee_is_an_answer_at_every_layer() {
    let (service, handles, pool) = stack(2, |_| service_fn(|_| async { Ok::<_, BoxError>(Reply::NotFound) }));
    for key in [1, 1, UNCACHED, UNCACHED] {
        assert_eq!(service.clone().oneshot(key).await.unwrap(), Reply::NotFound);
    }
    assert_eq!(handles.telemetry.statistics().refused, 4);
    assert_eq!((handles.retry.statistics().retries, pool.statistics().refused), (0, 4));
    assert_accounts(&handles, &pool, 4);
}

/// A call dropped at whatever poll leaves nothing behind in any layer.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_anywhere_is_counted_once_in_every_layer_and_frees_what_it_held() {
    let (service, handles, pool) = stack(2, |_| {
        service_fn(|key| async move {
            sleep(millis(50)).await;
            if key == UNCACHED { Err(BoxError::from("sick")) } else { Ok(Reply::Found(key)) }
        })
    });
    let mut calls = 0;
    for after in (0..400).step_by(7) {
        for key in [UNCACHED, UNCACHED + 1] {
            drop(tokio::time::timeout(millis(after), service.clone().oneshot(key)).await);
            calls += 1;
        }
    }
    assert_accounts(&handles, &pool, calls);
    assert!(handles.telemetry.statistics().abandoned > 0);
}
