//! What every layer owes to what it wraps and to who wraps it. One list of layers, one list of rules.
//!
//! A new layer is added in `contracts!` below, and nowhere else.

mod strict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

#[cfg(feature = "cache")]
use mainstay::cache::CacheLayer;
use mainstay::{Rejectable, telemetry::TelemetryLayer};
use strict::{Strict, TestError};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};

/// What every layer's service is.
trait Subject:
    Service<u32, Response = u32, Error = TestError, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> Subject for S where
    S: Service<u32, Response = u32, Error = TestError, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

macro_rules! contracts {
    ($($(#[$attribute:meta])* $name:ident: $build:expr;)*) => {
        $(
            $(#[$attribute])*
            mod $name {
                use super::*;

                fn build(inner: Strict) -> impl Subject {
                    let build = $build;
                    build(inner)
                }

                #[tokio::test(start_paused = true)]
                async fn passes_calls_and_errors_through_unchanged() {
                    super::passes_calls_and_errors_through_unchanged(build).await;
                }

                #[tokio::test(start_paused = true)]
                async fn never_calls_an_unready_service() {
                    super::never_calls_an_unready_service(build).await;
                }

                #[tokio::test(start_paused = true)]
                async fn clones_do_not_share_readiness() {
                    super::clones_do_not_share_readiness(build).await;
                }

                #[tokio::test(start_paused = true)]
                async fn a_future_dropped_at_any_poll_releases_everything() {
                    super::a_future_dropped_at_any_poll_releases_everything(build).await;
                }

                #[tokio::test(start_paused = true)]
                async fn a_panic_goes_on_unwinding_and_the_next_call_works() {
                    super::a_panic_goes_on_unwinding_and_the_next_call_works(build).await;
                }

                #[tokio::test(start_paused = true)]
                async fn allocates_nothing_on_the_happy_path() {
                    super::allocates_nothing_on_the_happy_path(build).await;
                }

                #[test]
                fn is_built_and_dropped_outside_a_runtime() {
                    drop(build(Strict::new().0));
                }
            }
        )*
    };
}

/// `layer` knows only HTTP: around it numbers become requests, and answers numbers again.
#[cfg(feature = "http")]
fn over_http<L>(layer: L, inner: Strict) -> impl Subject
where
    L: Layer<AsHttp, Service: Service<http::Request<u32>, Response = http::Response<u32>, Error = TestError>>,
    L::Service: Clone + Send + Sync + 'static,
    <L::Service as Service<http::Request<u32>>>::Future: Send + 'static,
{
    layer
        .layer(AsHttp(inner))
        .map_request(http::Request::new as fn(u32) -> _)
        .map_response(http::Response::into_body as fn(http::Response<u32>) -> u32)
}

#[cfg(feature = "http")]
#[derive(Clone)]
struct AsHttp(Strict);

#[cfg(feature = "http")]
impl Service<http::Request<u32>> for AsHttp {
    type Response = http::Response<u32>;
    type Error = TestError;
    type Future = futures_util::future::MapOk<<Strict as Service<u32>>::Future, fn(u32) -> http::Response<u32>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), TestError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<u32>) -> Self::Future {
        use futures_util::TryFutureExt;
        self.0.call(request.into_body()).map_ok(http::Response::new as fn(u32) -> _)
    }
}

contracts! {
    telemetry: |inner| TelemetryLayer::new("contract").layer(inner);
    #[cfg(feature = "circuit-breaker")]
    circuit_breaker: |inner| mainstay::CircuitBreakerLayer::builder("contract").build().unwrap().layer(inner);
    #[cfg(feature = "circuit-breaker")]
    circuit_breaker_with_a_queue: |inner| {
        let wait = mainstay::circuit_breaker::AdmissionMode::Wait { max: std::time::Duration::from_secs(1), queue: 10 };
        mainstay::CircuitBreakerLayer::builder("contract").admission(wait).build().unwrap().layer(inner)
    };
    #[cfg(feature = "circuit-breaker")]
    circuit_breaker_by_key: |inner| {
        // Every fifth call has no key, and of the others' seven keys three find no room.
        let key = |request: &u32| (!request.is_multiple_of(5)).then_some(request % 7);
        mainstay::CircuitBreakerLayer::builder("contract").keyed(key).max_keys(4).build().unwrap().layer(inner)
    };
    #[cfg(feature = "retry")]
    retry: |inner| {
        let config = mainstay::retry::RetryConfig::default();
        mainstay::RetryLayer::new("contract", config).unwrap().layer(inner)
    };
    #[cfg(feature = "timeout")]
    timeout_of_an_attempt: |inner| {
        mainstay::TimeoutLayer::attempt("contract", std::time::Duration::from_secs(1)).unwrap().layer(inner)
    };
    #[cfg(feature = "timeout")]
    timeout_in_total: |inner| {
        mainstay::TimeoutLayer::total("contract", std::time::Duration::from_secs(1)).unwrap().layer(inner)
    };
    #[cfg(feature = "timeout")]
    timeout_computed: |inner| {
        let compute = |request: &u32| Some(std::time::Duration::from_secs(u64::from(*request) + 1));
        let config = mainstay::timeout::TimeoutConfig::default();
        mainstay::TimeoutLayer::computed("contract", config, compute).unwrap().layer(inner)
    };
    // What is not cached; the loads of what is are tasks of their own, by the rules in `tests/cache.rs`.
    #[cfg(feature = "cache")]
    cache: |inner| CacheLayer::builder("contract").key(|_: &u32| None::<u32>).build().unwrap().layer(inner);
    #[cfg(feature = "balance")]
    balance: |inner: Strict| {
        let breaker = mainstay::CircuitBreakerConfig::default();
        let pool = mainstay::Pool::builder("contract").circuit_breaker(breaker).build().unwrap();
        pool.handle().add_all([(1, inner.clone()), (2, inner)]);
        pool
    };
    #[cfg(feature = "http")]
    propagate: |inner| over_http(mainstay::http::PropagateLayer::new(), inner);
    #[cfg(feature = "http")]
    accept_context: |inner| over_http(mainstay::http::AcceptContextLayer::default(), inner);
}

// === the rules ===

async fn passes_calls_and_errors_through_unchanged<S: Subject>(build: impl Fn(Strict) -> S) {
    let (inner, script) = Strict::new();
    let mut service = build(inner);
    for request in 0..10 {
        assert_eq!(service.ready().await.unwrap().call(request).await.unwrap(), request + 1);
    }
    script.fail.store(true, Relaxed);
    let error = service.ready().await.unwrap().call(1).await.unwrap_err();
    assert!(matches!(error, TestError::Inner), "{error:?}");
    assert!(error.as_rejected().is_none());
}

async fn never_calls_an_unready_service<S: Subject>(build: impl Fn(Strict) -> S) {
    for pending in 0..4 {
        let (inner, script) = Strict::new();
        script.pending_ready.store(pending, Relaxed);
        let mut service = build(inner);
        // The same handle again and again, a clone a call, and a clone made ready before the call of another.
        for request in 0..5 {
            service.ready().await.unwrap().call(request).await.unwrap();
            service.clone().oneshot(request).await.unwrap();
            let mut other = service.clone();
            other.ready().await.unwrap();
            service.ready().await.unwrap().call(request).await.unwrap();
            other.call(request).await.unwrap();
        }
        script.fail.store(true, Relaxed);
        let _ = service.ready().await.unwrap().call(0).await;
        assert_eq!(script.unready_calls.load(Relaxed), 0, "with {pending} polls until ready");
        assert!(script.calls.load(Relaxed) >= 21);
    }
}

async fn clones_do_not_share_readiness<S: Subject>(build: impl Fn(Strict) -> S) {
    let (inner, script) = Strict::new();
    let service = build(inner);
    // Readied clones that sit there hold nothing back from the others.
    let mut idle: Vec<_> = (0..8).map(|_| service.clone()).collect();
    for clone in &mut idle {
        clone.ready().await.unwrap();
    }
    let mut clones: Vec<_> = (0..8).map(|_| service.clone()).collect();
    for (request, clone) in (0..).zip(&mut clones) {
        assert_eq!(clone.ready().await.unwrap().call(request).await.unwrap(), request + 1);
    }
    drop(idle);
    assert_eq!(service.oneshot(41).await.unwrap(), 42);
    assert_eq!(script.unready_calls.load(Relaxed), 0);
}

async fn a_future_dropped_at_any_poll_releases_everything<S: Subject>(build: impl Fn(Strict) -> S) {
    const PENDING: u32 = 3;
    let (inner, script) = Strict::new();
    let mut service = build(inner);
    // A breaker opens on a callee that answers none of its calls; this one has answered.
    assert_eq!(service.ready().await.unwrap().call(1).await.unwrap(), 2);
    script.pending_polls.store(PENDING, Relaxed);
    for polls in 0..=PENDING {
        let mut future = task::spawn(service.ready().await.unwrap().call(1));
        for _ in 0..polls {
            assert_pending!(future.poll());
        }
        drop(future);
        assert_eq!(script.alive.load(Relaxed), 0, "dropped after {polls} polls");
    }
    // Many at once, dropped in the order in which they began and in the other one.
    for backwards in [false, true] {
        let mut futures = Vec::new();
        for _ in 0..16 {
            let mut future = task::spawn(service.ready().await.unwrap().call(1));
            assert_pending!(future.poll());
            futures.push(future);
        }
        if backwards {
            futures.reverse();
        }
        futures.into_iter().for_each(drop);
        assert_eq!(script.alive.load(Relaxed), 0);
    }
    script.pending_polls.store(0, Relaxed);
    assert_eq!(service.ready().await.unwrap().call(1).await.unwrap(), 2);
}

async fn a_panic_goes_on_unwinding_and_the_next_call_works<S: Subject>(build: impl Fn(Strict) -> S) {
    let (inner, script) = Strict::new();
    let mut service = build(inner);
    let call = |request| {
        let mut service = service.clone();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut ready = task::spawn(service.ready());
            assert_ready!(ready.poll()).map(|_| ()).unwrap();
            drop(ready);
            let mut future = task::spawn(service.call(request));
            match future.poll() {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => unreachable!("the script is never pending here"),
            }
        }));
        unwound.ok()
    };
    assert_eq!(call(1), Some(2));
    script.panic_in_call.store(true, Relaxed);
    assert_eq!(call(1), None);
    script.panic_in_call.store(false, Relaxed);
    assert_eq!(call(1), Some(2));
    script.panic_in_poll.store(true, Relaxed);
    assert_eq!(call(1), None);
    script.panic_in_poll.store(false, Relaxed);
    assert_eq!(call(1), Some(2));
    assert_eq!(script.alive.load(Relaxed), 0);
    assert_eq!(service.ready().await.unwrap().call(5).await.unwrap(), 6);
}

async fn allocates_nothing_on_the_happy_path<S: Subject>(build: impl Fn(Strict) -> S) {
    let (inner, _script) = Strict::new();
    let mut service = build(inner);
    let mut once = || {
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = std::pin::pin!(service.call(1));
        assert!(future.as_mut().poll(&mut cx).is_ready());
    };
    // The first calls may resolve handles and fill windows.
    (0..200).for_each(|_| once());
    let measured = allocation_counter::measure(|| (0..100).for_each(|_| once()));
    assert_eq!(measured.count_total, 0, "allocations in 100 calls");
}
