//! Picks, weights, drains and updates of a pool.
#![cfg(feature = "balance")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::BoxError;
use mainstay::balance::{Picker, Pool};
use mainstay::context::Context as Ambient;
use tokio::time::sleep;
use tower_service::Service;

const MS: Duration = Duration::from_millis(1);
const PICKERS: [Picker; 3] = [Picker::PeakEwma, Picker::InFlight, Picker::RoundRobin];

/// An endpoint that answers its number after `latency`, and counts its calls.
#[derive(Clone, Debug)]
struct Server {
    number: usize,
    latency: Duration,
    calls: Arc<AtomicUsize>,
    ready: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
}

impl Server {
    fn new(number: usize, latency: Duration) -> Self {
        let flag = |value| Arc::new(AtomicBool::new(value));
        Self { number, latency, calls: Arc::default(), ready: flag(true), fails: flag(false) }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Service<()> for Server {
    type Response = usize;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready.load(Ordering::Relaxed) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let Self { number, latency, .. } = *self;
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
