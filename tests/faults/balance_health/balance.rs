//! Picks, weights, drains and updates of a pool.
#![cfg(feature = "balance")]

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, join_all};
use mainstay::balance::{Change, OutReason, Picker, Pool, PoolHandle};
use mainstay::circuit_breaker::CircuitBreakerConfig;
use mainstay::context::Context as Ambient;
use mainstay::{BoxError, CircuitState, HealthStatus, NoEndpointReason, Outcome, Rejectable, Rejected, classify_fn};
use tokio::time::{Instant, sleep};
use tower_service::Service;

const MS: Duration = Duration::from_millis(1);
const PICKERS: [Picker; 3] = [Picker::PeakEwma, Picker::InFlight, Picker::RoundRobin];

type Latency = Arc<Mutex<Box<dyn FnMut() -> Duration + Send>>>;

/// An endpoint that answers its number after `latency`, and counts its calls.
#[derive(Clone)]
struct Server {
    number: usize,
    latency: Latency,
    calls: Arc<AtomicUsize>,
    ready: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
    wakers: Arc<Mutex<Vec<Waker>>>,
}

impl Server {
    fn new(number: usize, latency: Duration) -> Self {
        let flag = |value| Arc::new(AtomicBool::new(value));
        let (ready, fails) = (flag(true), flag(false));
        let latency: Latency = Arc::new(Mutex::new(Box::new(move || latency)));
        Self { number, latency, calls: Arc::default(), ready, fails, wakers: Arc::default() }
    }

    fn set_latency(&self, latency: impl FnMut() -> Duration + Send + 'static) {
        *self.latency.lock().unwrap() = Box::new(latency);
    }

    fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        self.wakers.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Service<()> for Server {
    type Response = usize;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.wakers.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (number, latency) = (self.number, self.latency.lock().unwrap()());
        let fails = self.fails.load(Ordering::Relaxed);
        Box::pin(async move {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            if fails { Err("it failed".into()) } else { Ok(number) }
        })
    }
}

fn pool_of(picker: Picker, servers: &[Server]) -> Pool<usize, Server> {
    let pool = Pool::builder("test").picker(picker).build().unwrap();
    pool.handle().add_all(servers.iter().map(|server| (server.number, server.clone())));
    pool
}

fn servers(n: usize, latency: Duration) -> Vec<Server> {
    (0..n).map(|number| Server::new(number, latency)).collect()
}

fn reason(error: &BoxError) -> Option<NoEndpointReason> {
    match error.as_rejected() {
        Some(Rejected::NoEndpoint(none)) => Some(none.reason()),
        _ => None,
    }
}

fn against(pool: &PoolHandle<usize, Server>, key: usize) -> Option<OutReason> {
    pool.endpoints().into_iter().find(|endpoint| endpoint.key == key).unwrap().against
}

/// `callers` at a time make `calls` calls in all.
async fn load(pool: &Pool<usize, Server>, callers: usize, calls: usize) {
    let left = Cell::new(calls);
    join_all((0..callers).map(|_| async {
        let mut pool = pool.clone();
        while left.get() > 0 {
            left.set(left.get() - 1);
            pool.call(()).await.unwrap();
        }
    }))
    .await;
}

// === 1: endpoints tried belong to the attempts of a retry ===

async fn handler(pool: &Pool<usize, Server>, calls: usize) {
    for _ in 0..calls {
        pool.clone().oneshot(()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn entry_01_the_calls_of_one_handler_are_independent() {
    for fast in [1, 2, 9] {
        let servers: Vec<_> = (0..=fast).map(|n| Server::new(n, if n == 0 { 100 * MS } else { MS })).collect();
        let pool = pool_of(Picker::PeakEwma, &servers);
        Ambient::new().scope(handler(&pool, 1_000)).await;
        assert!(servers[0].calls() <= 10, "{} of 1000 went to the slow one of {}", servers[0].calls(), fast + 1);
    }
}

#[cfg(feature = "retry")]
#[tokio::test(start_paused = true)]
async fn entry_01_an_attempt_avoids_the_endpoints_of_earlier_attempts_and_not_its_own() {
    for picker in PICKERS {
        let servers: Vec<_> = (0..3).map(|n| Server::new(n, Duration::ZERO)).collect();
        let pool = pool_of(picker, &servers);
        // Two calls an attempt: the first attempt uses two endpoints at most, so the second finds a fresh one.
        let used = Mutex::new(Vec::new());
        let retry = mainstay::RetryLayer::builder("test").build().unwrap();
        let operation = || async {
            let mut calls = Vec::new();
            for _ in 0..2 {
                calls.push(pool.clone().oneshot(()).await?);
            }
            used.lock().unwrap().push(calls);
            if mainstay::context::current().attempt() == 1 { Err(BoxError::from("again")) } else { Ok(()) }
        };
        retry.run(operation).await.unwrap();
        let used = used.into_inner().unwrap();
        let [first, second] = &used[..] else { panic!("{used:?}") };
        assert!(!first.contains(&second[0]) && !first.contains(&second[1]), "{picker:?}: {used:?}");
    }
}

// === 2: shares follow the weights ===

/// A pool of equally fast servers with these weights.
fn weighted(picker: Picker, weights: &[u32], latency: Duration) -> (Pool<usize, Server>, Vec<Server>) {
    let servers = servers(weights.len(), latency);
    let pool = Pool::builder("test").picker(picker).build().unwrap();
    for (server, weight) in servers.iter().zip(weights) {
        pool.handle().add_weighted(server.number, server.clone(), NonZeroU32::new(*weight).unwrap());
    }
    (pool, servers)
}

#[tokio::test(start_paused = true)]
async fn entry_02_equally_fast_endpoints_get_shares_by_weight_at_any_concurrency() {
    let heavy_and_nine: Vec<u32> = [10].into_iter().chain([1; 9]).collect();
    let sets = [vec![100, 10], vec![1, 2], heavy_and_nine, vec![1; 3], vec![7; 100]];
    for picker in PICKERS {
        for weights in &sets {
            for (callers, latency) in [(1, 10 * MS), (4, 10 * MS), (64, 10 * MS)] {
                let (pool, servers) = weighted(picker, weights, latency);
                load(&pool, callers, 10_000).await;
                let total: u32 = weights.iter().sum();
                for (server, weight) in servers.iter().zip(weights) {
                    let due = 10_000.0 * f64::from(*weight) / f64::from(total);
                    let off = (server.calls() as f64 - due).abs() / due;
                    assert!(off <= 0.05, "{picker:?} {weights:?} {callers}: {} of {due}", server.calls());
                }
            }
        }
    }
}

/// Chance moves calls from one endpoint to another now and then; in the long run it evens out.
#[tokio::test(start_paused = true)]
async fn entry_02_shares_follow_the_weights_where_latencies_vary() {
    for weights in [&[1, 2][..], &[1, 2, 3], &[3, 3, 3, 3]] {
        let (pool, servers) = weighted(Picker::InFlight, weights, Duration::ZERO);
        for server in &servers {
            // As fast as the others on average: 5 to 15 ms, in an order of its own.
            let (number, step) = (server.number as u64, 3 + server.number as u64);
            let varies = Arc::new(AtomicUsize::new(0));
            server.set_latency(move || {
                let turn = varies.fetch_add(1, Ordering::Relaxed) as u64;
                MS * u32::try_from(5 + (number + turn * step * 7919 / 13) % 11).unwrap()
            });
        }
        load(&pool, 4, 10_000).await;
        let total: u32 = weights.iter().sum();
        for (server, weight) in servers.iter().zip(weights) {
            let due = 10_000.0 * f64::from(*weight) / f64::from(total);
            let off = (server.calls() as f64 - due).abs() / due;
            assert!(off <= 0.02, "{weights:?}: {} of {due}", server.calls());
        }
    }
}

/// Each thread takes turns by itself.
#[test]
fn entry_02_threads_that_come_and_go_share_by_weight_too() {
    let (pool, servers) = weighted(Picker::InFlight, &[1, 2, 3], Duration::ZERO);
    for _ in 0..40 {
        let mut pool = pool.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..300 {
                let served = pool.call(()).now_or_never().expect("it answers at once");
                assert!(served.is_ok());
            }
        });
        thread.join().unwrap();
    }
    for (server, due) in servers.iter().zip([2_000_usize, 4_000, 6_000]) {
        assert!(server.calls().abs_diff(due) <= due / 20, "{} of {due}", server.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn entry_02_a_slow_or_loaded_endpoint_gets_less_than_its_share_whatever_its_weight() {
    for (picker, callers) in
        [(Picker::PeakEwma, 1), (Picker::PeakEwma, 4), (Picker::InFlight, 32), (Picker::InFlight, 64)]
    {
        for weights in [[1_u32, 1], [100, 10], [1, 2]] {
            let pool = Pool::builder("test").picker(picker).build().unwrap();
            let servers = [Server::new(0, 100 * MS), Server::new(1, 10 * MS)];
            for (server, weight) in servers.iter().zip(weights) {
                pool.handle().add_weighted(server.number, server.clone(), NonZeroU32::new(weight).unwrap());
            }
            load(&pool, callers, 5_000).await;
            let due = 5_000 * weights[0] as usize / (weights[0] + weights[1]) as usize;
            // By its speed it is worth a tenth of its weight.
            assert!(
                servers[0].calls() * 8 <= due * 5,
                "{picker:?} {callers} {weights:?}: {} of {due}",
                servers[0].calls()
            );
        }
    }
}

// === 3: what ends a drain ===

/// Waits without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn entry_03_a_drained_endpoint_is_gone_and_its_successor_stays() {
    let pool = pool_of(Picker::InFlight, &servers(2, Duration::ZERO));
    let handle = pool.handle();
    let keys = || handle.endpoints().into_iter().map(|endpoint| endpoint.key).collect::<Vec<_>>();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut pool = pool.clone();
                while !done.load(Ordering::Relaxed) {
                    pool.call(()).now_or_never().unwrap().unwrap();
                }
            });
        }
        for _ in 0..3_000 {
            block_on(handle.drain(&0).expect("the last successor is there"));
            assert_eq!(keys(), [1], "gone when the wait is over");
            handle.add(0, Server::new(0, Duration::ZERO));
            assert_eq!(keys(), [1, 0]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(keys(), [1, 0]);
    assert_eq!(handle.statistics().rejected, 0);
}

#[tokio::test(start_paused = true)]
async fn entry_03_the_last_call_of_a_drained_endpoint_leaves_its_successor_alone() {
    let pool = pool_of(Picker::InFlight, &[Server::new(0, Duration::from_secs(1))]);
    let call = tokio::spawn(pool.clone().oneshot(()));
    sleep(MS).await;
    let drained = pool.handle().drain(&0).unwrap();
    // A drain gives the key up: what is added now is another endpoint, of which nothing is known.
    pool.handle().add(0, Server::new(7, Duration::ZERO));
    assert_eq!((against(&pool.handle(), 0), pool.handle().endpoints()[0].picks), (None, 0));
    assert_eq!(pool.clone().oneshot(()).await.unwrap(), 7);
    drained.await;
    assert_eq!(call.await.unwrap().unwrap(), 0);
    assert_eq!(pool.oneshot(()).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn entry_03_a_drain_waits_for_the_calls_of_an_endpoint_that_was_removed_meanwhile() {
    let pool = pool_of(Picker::InFlight, &[Server::new(0, Duration::from_secs(1))]);
    let call = tokio::spawn(pool.clone().oneshot(()));
    sleep(MS).await;
    let start = Instant::now();
    let mut drained = std::pin::pin!(pool.handle().drain(&0).unwrap());
    assert!(futures_util::poll!(drained.as_mut()).is_pending());
    assert!(pool.handle().remove(&0));
    drained.await;
    assert_eq!(start.elapsed(), Duration::from_secs(1) - MS);
    call.await.unwrap().unwrap();
}

// === 4: endpoints that are not ready ===

#[tokio::test(start_paused = true)]
async fn entry_04_a_call_goes_on_to_a_ready_endpoint_at_once() {
    for picker in PICKERS {
        for not_ready in [1, 5, 9] {
            let servers = servers(10, Duration::ZERO);
            servers[..not_ready].iter().for_each(|server| server.set_ready(false));
            let (pool, start) = (pool_of(picker, &servers), Instant::now());
            for _ in 0..500 {
                assert!(pool.clone().oneshot(()).await.unwrap() >= not_ready);
            }
            assert_eq!(start.elapsed(), Duration::ZERO, "{picker:?} {not_ready}");
            let statistics = pool.handle().statistics();
            assert_eq!((statistics.successes, statistics.in_flight), (500, 0));
            // Nor are they asked again and again: that they are not ready is evidence.
            assert_eq!(statistics.usable, 10 - not_ready, "{picker:?} {not_ready}");
            assert_eq!(against(&pool.handle(), 0), Some(OutReason::Unready));

            // They are asked now and then, and used again soon after they are ready.
            for _ in 0..20 {
                sleep(500 * MS).await;
                pool.clone().oneshot(()).await.unwrap();
            }
            servers.iter().for_each(|server| server.set_ready(true));
            sleep(Duration::from_secs(1)).await;
            for _ in 0..100 {
                pool.clone().oneshot(()).await.unwrap();
            }
            assert!(servers.iter().all(|server| server.calls() >= 5), "{picker:?} {not_ready}");
            assert_eq!(pool.handle().statistics().rejected, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_concurrent_calls_to_a_pool_of_which_most_are_not_ready_are_not_rejected_either() {
    for picker in PICKERS {
        let servers = servers(20, 5 * MS);
        servers[1..].iter().for_each(|server| server.set_ready(false));
        let pool = pool_of(picker, &servers);
        load(&pool, 16, 1_000).await;
        assert_eq!((pool.handle().statistics().successes, servers[0].calls()), (1_000, 1_000));
    }
}

/// A busy endpoint is no bad one: it is not ready now and then, and keeps its share.
#[tokio::test(start_paused = true)]
async fn entry_04_an_endpoint_that_is_found_busy_now_and_then_stays_in() {
    let servers = servers(2, Duration::ZERO);
    let pool = pool_of(Picker::RoundRobin, &servers);
    for _ in 0..20 {
        servers[0].set_ready(false);
        for _ in 0..4 {
            assert_eq!(pool.clone().oneshot(()).await.unwrap(), 1);
        }
        servers[0].set_ready(true);
        for _ in 0..4 {
            pool.clone().oneshot(()).await.unwrap();
        }
        assert_eq!(against(&pool.handle(), 0), None);
    }
    assert_eq!(servers[0].calls(), 40);
}

/// Among endpoints whose `poll_ready` fails, too, a ready one is found.
#[tokio::test(start_paused = true)]
async fn entry_04_one_ready_endpoint_among_failing_ones_is_found() {
    #[derive(Clone)]
    struct Dead(Option<Server>);
    impl Service<()> for Dead {
        type Response = usize;
        type Error = BoxError;
        type Future = <Server as Service<()>>::Future;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0.as_mut().map_or(Poll::Ready(Err("connection refused".into())), |server| server.poll_ready(cx))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            self.0.as_mut().unwrap().call(())
        }
    }
    for picker in PICKERS {
        let pool = Pool::builder("test").picker(picker).build().unwrap();
        // A call asks four at most, so that it learns the cause soon where all of many refuse.
        pool.handle().add_all((0..4).map(|key| (key, Dead((key == 3).then(|| Server::new(3, Duration::ZERO))))));
        for _ in 0..100 {
            assert_eq!(pool.clone().oneshot(()).await.unwrap(), 3);
        }
        assert_eq!(pool.handle().statistics().usable, 1);
    }
}

// === 5: phantom calls ===

#[tokio::test(start_paused = true)]
async fn entry_05_an_endpoint_is_used_again_within_a_few_decay_times_after_a_failure() {
    let servers = servers(2, 10 * MS);
    let pool = pool_of(Picker::InFlight, &servers);
    servers[0].fails.store(true, Ordering::Relaxed);
    while servers[0].calls() == 0 {
        let _ = pool.clone().oneshot(()).await;
    }
    servers[0].fails.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(20)).await;
    load(&pool, 1, 100).await;
    assert!(servers[0].calls() > 40, "{}", servers[0].calls());
}

// === 6: what was learned belongs to the key ===

/// Announces an endpoint that is there once more, in each of the three ways.
async fn announce_again(pool: &PoolHandle<usize, Server>, server: &Server, way: usize) {
    match way {
        0 => pool.add(server.number, server.clone()),
        1 => pool.add_all([(server.number, server.clone())]),
        _ => {
            let change = Ok::<_, Infallible>(Change::Insert(server.number, server.clone()));
            pool.follow(futures_util::stream::iter([change])).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_06_what_the_operator_said_survives_another_announcement() {
    for way in 0..3 {
        let servers = servers(4, Duration::ZERO);
        let pool = pool_of(Picker::RoundRobin, &servers);
        let handle = pool.handle();
        handle.disable(&0);
        handle.set_health(&1, HealthStatus::Unhealthy);
        handle.eject(&2, Duration::from_secs(60));
        let before = handle.endpoints();
        for server in &servers {
            announce_again(&handle, server, way).await;
        }
        assert_eq!(handle.endpoints(), before);
        for key in [0, 1, 2, 3] {
            assert!(handle.remove(&key));
            announce_again(&handle, &servers[key], way).await;
            assert_eq!(against(&handle, key), None, "removed and added again, it starts afresh");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_06_statistics_loads_ejections_and_circuits_survive_and_the_new_service_is_used() {
    for way in 0..3 {
        let mut breaker = CircuitBreakerConfig::default();
        breaker.consecutive_failures = Some(7);
        let pool = Pool::builder("test").circuit_breaker(breaker).max_out(0.9).panic_threshold(0.0).build().unwrap();
        let (old, other) = (Server::new(0, 20 * MS), Server::new(1, 20 * MS));
        let handle = pool.handle();
        handle.add_weighted(0, old.clone(), NonZeroU32::new(3).unwrap());
        load(&pool, 1, 3).await;
        let in_flight = tokio::spawn(pool.clone().oneshot(()));
        sleep(10 * MS).await;
        let before = handle.endpoints();
        assert_eq!((before[0].picks, before[0].in_flight, before[0].weight), (4, 1, 3));
        let new = Server::new(0, 20 * MS);
        announce_again(&handle, &new, way).await;
        assert_eq!(handle.endpoints(), before, "{way}");
        in_flight.await.unwrap().unwrap();
        load(&pool, 1, 2).await;
        assert_eq!((old.calls(), new.calls(), handle.endpoints()[0].in_flight), (4, 2, 0));

        // Five failures in a row eject, two more open its circuit; neither is undone.
        new.fails.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            pool.clone().oneshot(()).await.unwrap_err();
        }
        announce_again(&handle, &new, way).await;
        for _ in 0..4 {
            pool.clone().oneshot(()).await.unwrap_err();
        }
        let before = handle.endpoints();
        assert_eq!((before[0].ejections, before[0].circuit, before[0].failures), (1, Some(CircuitState::Open), 7));
        handle.add(1, other.clone());
        announce_again(&handle, &new, way).await;
        let mut expected = before[0].clone();
        expected.usable = false;
        assert_eq!(handle.endpoints()[0], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_06_an_endpoint_that_passed_its_first_probe_does_not_wait_for_it_again() {
    for way in 0..3 {
        let servers = servers(2, Duration::ZERO);
        let pool = Pool::builder("test").picker(Picker::RoundRobin).await_first_probe(true).build().unwrap();
        pool.handle().add_all(servers.iter().map(|server| (server.number, server.clone())));
        for key in 0..2 {
            pool.handle().set_health(&key, HealthStatus::Healthy);
        }
        announce_again(&pool.handle(), &servers[0], way).await;
        assert_eq!(against(&pool.handle(), 0), None);
        load(&pool, 1, 10).await;
        assert_eq!((servers[0].calls(), servers[1].calls()), (5, 5));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_06_the_service_that_was_replaced_is_dropped() {
    let old = Server::new(0, Duration::ZERO);
    let held = Arc::downgrade(&old.calls);
    let mut pool = pool_of(Picker::PeakEwma, std::slice::from_ref(&old));
    drop(old);
    pool.call(()).await.unwrap();
    assert!(held.upgrade().is_some());
    pool.handle().add(0, Server::new(0, Duration::ZERO));
    pool.call(()).await.unwrap();
    assert!(held.upgrade().is_none());
}

// === 8: endpoints that change under calls ===

#[test]
fn entry_08_no_call_finds_the_pool_without_an_endpoint_while_there_is_one() {
    for picker in PICKERS {
        let pool = pool_of(picker, &servers(2, Duration::ZERO));
        let handle = pool.handle();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut pool = pool.clone();
                    while !done.load(Ordering::Relaxed) {
                        pool.call(()).now_or_never().unwrap().unwrap();
                    }
                });
            }
            for turn in 0..3_000 {
                // At any time one of the two is there that nothing speaks against.
                let key = turn % 2;
                match turn % 5 {
                    0 => handle.add(key, Server::new(key, Duration::ZERO)),
                    1 => assert!(handle.remove(&key)),
                    2 => drop(handle.drain(&key).unwrap()),
                    3 => assert!(handle.disable(&key) && handle.enable(&key)),
                    _ => assert!(handle.eject(&key, Duration::from_secs(1)) && handle.reset(&key)),
                }
                handle.add(key, Server::new(key, Duration::ZERO));
            }
            done.store(true, Ordering::Relaxed);
        });
        let statistics = handle.statistics();
        assert_eq!((statistics.rejected, statistics.in_flight), (0, 0), "{picker:?}");
    }
}

// === 9: waiting calls ===

#[tokio::test(start_paused = true)]
async fn entry_09_a_waiting_call_goes_to_a_ready_endpoint_that_is_added() {
    for picker in PICKERS {
        let servers = servers(4, Duration::ZERO);
        servers[..3].iter().for_each(|server| server.set_ready(false));
        let (pool, start) = (pool_of(picker, &servers[..3]), Instant::now());
        let calls: Vec<_> = (0..5).map(|_| tokio::spawn(pool.clone().oneshot(()))).collect();
        sleep(10 * MS).await;
        pool.handle().add(3, servers[3].clone());
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 3);
        }
        assert_eq!(start.elapsed(), 10 * MS);
        assert_eq!((pool.handle().statistics().successes, pool.handle().statistics().in_flight), (5, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_09_a_waiting_call_whose_endpoints_are_removed_waits_for_the_others() {
    let servers = servers(3, Duration::ZERO);
    servers.iter().for_each(|server| server.set_ready(false));
    let (pool, start) = (pool_of(Picker::InFlight, &servers), Instant::now());
    let call = tokio::spawn(pool.clone().oneshot(()));
    sleep(10 * MS).await;
    let waited_for: Vec<_> = pool.handle().endpoints().into_iter().filter(|it| it.in_flight == 1).collect();
    assert_eq!(waited_for.len(), 2);
    waited_for.iter().for_each(|endpoint| assert!(pool.handle().remove(&endpoint.key)));
    sleep(10 * MS).await;
    let left = pool.handle().endpoints().remove(0);
    assert_eq!(left.in_flight, 1, "the call waits for the one that is left");
    servers[left.key].set_ready(true);
    assert_eq!(call.await.unwrap().unwrap(), left.key);
    assert_eq!(start.elapsed(), 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn entry_09_a_waiting_call_whose_pool_empties_is_rejected_in_time_or_served_by_what_comes() {
    let servers = servers(2, Duration::ZERO);
    servers[0].set_ready(false);
    for serve in [true, false] {
        let pool = pool_of(Picker::InFlight, &servers[..1]);
        let call = tokio::spawn(pool.clone().oneshot(()));
        let left = tokio::spawn(pool.clone().oneshot(()));
        sleep(10 * MS).await;
        assert!(pool.handle().remove(&0));
        sleep(10 * MS).await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        if serve {
            pool.handle().add(1, servers[1].clone());
            assert_eq!(call.await.unwrap().unwrap(), 1);
        } else {
            assert_eq!(reason(&call.await.unwrap().unwrap_err()), Some(NoEndpointReason::Empty));
        }
        let statistics = pool.handle().statistics();
        assert_eq!((statistics.calls(), statistics.abandoned, statistics.in_flight), (2, 1, 0));
    }
}

// === 15: gauges ===

#[cfg(feature = "metrics")]
#[test]
fn entry_15_gauges_of_pools_with_one_name_add_up_and_leave_with_their_pool() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let recorder = DebuggingRecorder::new();
    // A snapshot holds what was added since the one before.
    let (snapshotter, mut sums) = (recorder.snapshotter(), [0.0; 3]);
    let mut gauges = || {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let names = ["mainstay_balance_endpoints", "mainstay_balance_endpoints_usable", "mainstay_balance_panic"];
            let which = names.iter().position(|name| *name == key.key().name());
            if let (Some(which), DebugValue::Gauge(added)) = (which, value) {
                sums[which] += added.into_inner();
            }
        }
        sums
    };
    metrics::with_local_recorder(&recorder, || {
        let old = pool_of(Picker::PeakEwma, &servers(4, Duration::ZERO));
        old.handle().disable(&0);
        assert_eq!(gauges(), [4.0, 3.0, 0.0]);
        let new = pool_of(Picker::PeakEwma, &servers(2, Duration::ZERO));
        assert_eq!(gauges(), [6.0, 5.0, 0.0]);
        (0..2).for_each(|key| assert!(new.handle().set_health(&key, HealthStatus::Unhealthy)));
        assert_eq!(gauges(), [6.0, 5.0, 1.0]);
        drop(old);
        assert_eq!(gauges(), [2.0, 2.0, 1.0]);
        drop(new);
        assert_eq!(gauges(), [0.0; 3]);
    });
}

// === 18: a panic while a second endpoint is asked ===

#[tokio::test]
async fn entry_18_a_panic_in_the_readiness_of_any_choice_is_one_failure() {
    #[derive(Clone)]
    struct Panics(bool);
    impl Service<()> for Panics {
        type Response = usize;
        type Error = BoxError;
        type Future = <Server as Service<()>>::Future;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            assert!(!self.0, "a panic of the test");
            Poll::Pending
        }

        fn call(&mut self, (): ()) -> Self::Future {
            unreachable!("never ready")
        }
    }
    for seed in 0..8 {
        let pool = Pool::builder("test").seed(seed).picker(Picker::RoundRobin).build().unwrap();
        pool.handle().add_all([(0, Panics(false)), (1, Panics(false)), (2, Panics(true))]);
        let mut call = Box::pin(AssertUnwindSafe(pool.clone().oneshot(())).catch_unwind());
        assert!(call.as_mut().now_or_never().unwrap().is_err());
        drop(call);
        let statistics = pool.handle().statistics();
        assert_eq!((statistics.failures, statistics.abandoned, statistics.in_flight), (1, 0, 0), "{seed}");
    }
}

// === 15, 17 and 27 of the core's list, as far as they are the pool's ===

/// What ends a wait for an endpoint says that an endpoint was waited for: the deadline, a timeout, or the pool's own limit.
#[cfg(feature = "timeout")]
#[tokio::test(start_paused = true)]
async fn core_15_whatever_ends_a_wait_for_an_endpoint_the_cause_is_the_endpoint() {
    use mainstay::TimeoutLayer;
    use tower::{Layer, ServiceExt};
    for (not_ready, expected) in [(2, NoEndpointReason::NotReady), (0, NoEndpointReason::Empty)] {
        let servers = servers(not_ready, Duration::ZERO);
        servers.iter().for_each(|server| server.set_ready(false));
        let pool = Pool::builder("test").empty_wait(Duration::from_secs(1)).build().unwrap();
        pool.handle().add_all(servers.iter().map(|server| (server.number, server.clone())));
        for wait in [200 * MS, Duration::from_secs(5)] {
            let start = Instant::now();
            let ended = wait.min(Duration::from_secs(1));
            let deadline = Ambient::new().with_deadline(start + wait).scope(pool.clone().oneshot(())).await;
            assert_eq!((reason(&deadline.unwrap_err()), start.elapsed()), (Some(expected), ended));
            for layer in [TimeoutLayer::total("test", wait).unwrap(), TimeoutLayer::attempt("test", wait).unwrap()] {
                let error = ServiceExt::oneshot(layer.layer(pool.clone()), ()).await.unwrap_err();
                assert_eq!(reason(&error), Some(expected), "{wait:?}: {error}");
            }
        }
        assert_eq!(pool.handle().statistics().in_flight, 0);
    }
}

#[tokio::test]
async fn core_17_a_call_that_failed_before_it_was_sent_goes_to_another_endpoint() {
    let servers = servers(2, Duration::ZERO);
    servers[0].fails.store(true, Ordering::Relaxed);
    let refused = classify_fn(|result: Result<&usize, &BoxError>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::NotSent,
    });
    let pool = Pool::builder("test").picker(Picker::RoundRobin).classify(refused).clone_requests().build().unwrap();
    pool.handle().add_all(servers.iter().map(|server| (server.number, server.clone())));
    for _ in 0..20 {
        assert_eq!(pool.clone().oneshot(()).await.unwrap(), 1);
    }
    // Each was the endpoint's failure, and in the end it is ejected; none was the call's.
    let (statistics, endpoints) = (pool.handle().statistics(), pool.handle().endpoints());
    assert_eq!((statistics.successes, statistics.failures, statistics.calls()), (20, 0, 20));
    assert_eq!((endpoints[0].failures, endpoints[0].against), (5, Some(OutReason::Ejected)));
    assert_eq!((statistics.repicks, statistics.in_flight), (5, 0));
}

#[tokio::test]
async fn core_17_the_search_for_an_endpoint_that_connects_is_bounded() {
    let servers = servers(9, Duration::ZERO);
    servers.iter().for_each(|server| server.fails.store(true, Ordering::Relaxed));
    let refused = classify_fn(|_: Result<&usize, &BoxError>| Outcome::NotSent);
    let pool = Pool::builder("test").classify(refused).clone_requests().build().unwrap();
    pool.handle().add_all(servers.iter().map(|server| (server.number, server.clone())));
    assert_eq!(pool.clone().oneshot(()).await.unwrap_err().to_string(), "it failed");
    let called: Vec<_> = servers.iter().map(Server::calls).filter(|calls| *calls > 0).collect();
    assert_eq!(called, [1; 4]);
    assert_eq!((pool.handle().statistics().failures, pool.handle().statistics().calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn core_27_a_future_polled_after_completion_panics() {
    let failing = servers(1, Duration::ZERO);
    failing[0].fails.store(true, Ordering::Relaxed);
    let [empty, served, fails] =
        [&[], &servers(1, Duration::ZERO)[..], &failing].map(|it| pool_of(Picker::PeakEwma, it));
    for (mut pool, succeeds) in [(served, true), (fails, false), (empty, false)] {
        let mut call = Box::pin(pool.call(()));
        assert_eq!(call.as_mut().await.is_ok(), succeeds);
        let again = catch_unwind(AssertUnwindSafe(|| call.as_mut().now_or_never()));
        let message = *again.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("polled after completion"), "{message}");
    }
}
