//! The paths of a call that are counted.

use std::fmt;
use std::future::Future;
use std::hint::black_box;
use std::task::{Context, Waker};
use std::time::Duration;
use std::{mem, thread};

use mainstay::backoff::BackoffConfig;
use mainstay::balance::{Picker, Pool};
use mainstay::budget::{Budget, BudgetConfig};
use mainstay::cache::{CacheLayer, Lookup, MemoryStore, Store};
use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, SlowCalls, Window};
use mainstay::telemetry::TelemetryLayer;
use mainstay::{Error, RetryLayer, TimeoutLayer};
use mainstay_instructions::bare::{Bare, Failed, Script};
use mainstay_instructions::subject::{Handle, Subject, closure, service, succeeds};
use tower::{Layer, Service};

const HOUR: Duration = Duration::from_secs(3600);

/// One path, with the handle reused or cloned for every call.
pub(crate) struct Path {
    base: &'static str,
    pub(crate) handle: Handle,
    /// Whether every call is refused, rather than answered.
    pub(crate) refused: bool,
    make: fn() -> Box<dyn Subject>,
}

// === impl Path ===

impl Path {
    /// Its name, which is what a limit goes by.
    pub(crate) fn name(&self) -> String {
        match self.handle {
            Handle::Reused => self.base.to_owned(),
            Handle::Cloned => format!("{}, a clone a call", self.base),
        }
    }

    pub(crate) fn subject(&self) -> Box<dyn Subject> {
        (self.make)()
    }
}

/// All paths; the first is the bare service.
pub(crate) fn all() -> Vec<Path> {
    let mut paths = Vec::new();
    let mut add = |base, refused, cloned, make| {
        paths.push(Path { base, handle: Handle::Reused, refused, make });
        if cloned {
            paths.push(Path { base, handle: Handle::Cloned, refused, make });
        }
    };
    let mut path = |base, make| add(base, false, true, make);
    path("bare", || service(bare(Script::Answers)));
    path("bare, pending once", || service(bare(Script::PendingOnce)));
    path("breaker, count window, closed", || breaker(|_| ()));
    path("breaker, time window, closed", || {
        breaker(|config| config.window = Window::Time { length: Duration::from_secs(60) })
    });
    path("breaker, slow calls, closed", || {
        breaker(|config| config.slow_calls = Some(SlowCalls { longer_than: Duration::from_secs(1), rate: 0.5 }))
    });
    path("retry", || service(retry_at_once().layer(bare(Script::Answers))));
    path("retry, one failure, no delay", || service(retry_at_once().layer(bare(Script::FailsFirst))));
    path("retry of a future", || {
        let (layer, mut inner) = (retry_at_once(), bare(Script::Answers));
        closure(move |request| succeeds(layer.run(|| inner.call(request))))
    });
    path("timeout of an attempt, ready", || service(attempt().layer(bare(Script::Answers))));
    path("timeout of an attempt, pending once", || service(attempt().layer(bare(Script::PendingOnce))));
    path("timeout in total, ready", || service(total().layer(bare(Script::Answers))));
    path("timeout in total, pending once", || service(total().layer(bare(Script::PendingOnce))));
    path("total timeout > retry > breaker", || {
        let breaker = CircuitBreakerLayer::new("b", CircuitBreakerConfig::default()).expect("valid");
        service(total().layer(retry_at_once().layer(breaker.layer(bare(Script::Answers)))))
    });
    path("telemetry", || service(TelemetryLayer::new("t").layer(bare(Script::Answers))));
    path("cache, hit", || service(cached().0));
    path("balance, in flight, 10", || pool(Picker::InFlight, 10, None));
    path("balance, in flight, 10000", || pool(Picker::InFlight, 10_000, None));
    path("balance, peak EWMA, 10", || pool(Picker::PeakEwma, 10, None));
    path("balance, peak EWMA, 10000", || pool(Picker::PeakEwma, 10_000, None));
    path("balance, round robin, 10", || pool(Picker::RoundRobin, 10, None));
    path("balance, in flight, breakers, 10", || pool(Picker::InFlight, 10, Some(CircuitBreakerConfig::default())));
    add("breaker, open", true, true, || {
        let layer = CircuitBreakerLayer::new("b", CircuitBreakerConfig::default()).expect("valid");
        layer.handle().open_for(HOUR).expect("closed before");
        service(layer.layer(bare(Script::Answers)))
    });
    add("breaker, half-open refusal", true, true, half_open);
    add("cache, bare store", false, false, || {
        let (_, store) = cached();
        closure(move |_| matches!(store.get_now(black_box(&7)), Lookup::Known(Some(_))))
    });
    paths
}

fn bare(script: Script) -> Bare<Error<Failed>> {
    Bare::new(script)
}

/// A breaker that is closed.
fn breaker(change: impl FnOnce(&mut CircuitBreakerConfig)) -> Box<dyn Subject> {
    let mut config = CircuitBreakerConfig::default();
    change(&mut config);
    service(CircuitBreakerLayer::new("b", config).expect("valid").layer(bare(Script::Answers)))
}

/// A breaker whose one probe is under way, and stays so.
fn half_open() -> Box<dyn Subject> {
    let layer = CircuitBreakerLayer::builder("b").probes(1).probe_deadline(HOUR).build().expect("valid");
    layer.handle().open_for(Duration::from_millis(1)).expect("closed before");
    thread::sleep(Duration::from_millis(2));
    let mut probing = layer.layer(bare(Script::Hangs));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::poll_ready(&mut probing, &mut cx).is_ready(), "a probe is due");
    let mut probe = Box::pin(Service::call(&mut probing, 0));
    assert!(probe.as_mut().poll(&mut cx).is_pending(), "the probe hangs");
    // The refusals must not outlive it: it is never dropped.
    mem::forget(probe);
    service(layer.layer(bare(Script::Answers)))
}

/// Retries at once, with a budget that lets all of them through.
fn retry_at_once() -> RetryLayer {
    let mut budget = BudgetConfig::default();
    budget.ratio = 1.0;
    let budget = Budget::new(budget).expect("valid");
    RetryLayer::builder("r").backoff(BackoffConfig::none()).budget(budget).build().expect("valid")
}

fn attempt() -> TimeoutLayer {
    TimeoutLayer::attempt("t", HOUR).expect("valid")
}

fn total() -> TimeoutLayer {
    TimeoutLayer::total("t", HOUR).expect("valid")
}

/// A pool of `endpoints`.
fn pool(picker: Picker, endpoints: u32, breaker: Option<CircuitBreakerConfig>) -> Box<dyn Subject> {
    let pool = Pool::builder("p").picker(picker).circuit_breaker(breaker).build().expect("valid");
    pool.handle().add_all((0..endpoints).map(|key| (key, bare(Script::Answers))));
    service(pool)
}

/// A cache that has the answer to everything, and its store.
fn cached() -> (impl Service<u64, Response = u64, Error: fmt::Debug> + Clone + Send + Sync, MemoryStore<u64, u64>) {
    let layer = CacheLayer::builder("c").key(|_: &u64| Some(7)).build().expect("valid");
    let store = layer.handle().store().clone();
    let mut cache = layer.layer(bare(Script::Answers));
    // A load is a task of its own, which somebody has to run.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(cache.call(7)).expect("a load");
    (cache, store)
}
