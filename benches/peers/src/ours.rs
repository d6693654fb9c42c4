//! Our layers, with settings that the peers can be given too.

use std::task::{Context, Waker};
use std::time::Duration;
use std::{mem, thread};

use mainstay::backoff::BackoffConfig;
use mainstay::balance::{Picker, Pool};
use mainstay::budget::{Budget, BudgetConfig};
use mainstay::cache::CacheLayer;
use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, Window};
use mainstay::{BoxError, Error, RetryLayer, TimeoutLayer};
use mainstay_instructions::bare::{Bare, Failed, Script};
use mainstay_instructions::subject::{Subject, service, succeeds};
use tower::{Layer, Service};

use crate::cases::{HOUR, MINUTE, Window as Filled};

/// The service inside, with an error that can carry a refusal, as most users of tower have it.
pub(crate) fn bare(script: Script) -> Bare<BoxError> {
    Bare::new(script)
}

pub(crate) fn breaker(change: impl FnOnce(&mut CircuitBreakerConfig)) -> CircuitBreakerLayer {
    let mut config = CircuitBreakerConfig::default();
    change(&mut config);
    CircuitBreakerLayer::new("b", config).expect("valid")
}

pub(crate) fn closed(change: impl FnOnce(&mut CircuitBreakerConfig)) -> Box<dyn Subject> {
    service(breaker(change).layer(bare(Script::Answers)))
}

pub(crate) fn minute(config: &mut CircuitBreakerConfig) {
    config.window = Window::Time { length: MINUTE };
}

/// A breaker whose time window can be emptied.
pub(crate) fn time_window() -> Filled {
    let layer = breaker(minute);
    let handle = layer.handle();
    Filled { subject: service(layer.layer(bare(Script::Answers))), empty: Box::new(move || handle.reset()) }
}

/// A breaker in which one call of `calls` fails.
pub(crate) fn failing(calls: u32, change: impl FnOnce(&mut CircuitBreakerConfig)) -> Box<dyn Subject> {
    service(breaker(change).layer(bare(Script::FailsOneIn(calls))))
}

/// A breaker for each of `keys`, called in turn.
pub(crate) fn keyed(keys: u64) -> Box<dyn Subject> {
    let layer = CircuitBreakerLayer::builder("b").keyed(move |request: &u64| Some(request % keys)).max_keys(2_000);
    service(layer.build().expect("valid").layer(bare(Script::Answers)))
}

/// With an error that takes no box, here and below: what is measured is the refusal.
pub(crate) fn open() -> Box<dyn Subject> {
    let layer = breaker(|_| ());
    layer.handle().open_for(HOUR).expect("closed before");
    service(layer.layer(Bare::<Error<Failed>>::new(Script::Answers)))
}

/// A breaker whose one probe is under way, and stays so.
pub(crate) fn half_open() -> Box<dyn Subject> {
    let layer = CircuitBreakerLayer::builder("b").probes(1).probe_deadline(HOUR).build().expect("valid");
    layer.handle().open_for(Duration::from_millis(1)).expect("closed before");
    thread::sleep(Duration::from_millis(2));
    let mut probing = layer.layer(Bare::<Error<Failed>>::new(Script::Hangs));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::poll_ready(&mut probing, &mut cx).is_ready(), "a probe is due");
    let mut probe = Box::pin(Service::call(&mut probing, 0));
    assert!(probe.as_mut().poll(&mut cx).is_pending(), "the probe hangs");
    mem::forget(probe);
    service(layer.layer(Bare::<Error<Failed>>::new(Script::Answers)))
}

/// A budget that lets every retry through.
pub(crate) fn one_in_one() -> Budget {
    let mut budget = BudgetConfig::default();
    budget.ratio = 1.0;
    Budget::new(budget).expect("valid")
}

pub(crate) fn retry(budget: Budget) -> RetryLayer {
    RetryLayer::builder("r").backoff(BackoffConfig::none()).budget(budget).build().expect("valid")
}

pub(crate) fn timeout() -> TimeoutLayer {
    TimeoutLayer::attempt("t", HOUR).expect("valid")
}

pub(crate) fn total() -> TimeoutLayer {
    TimeoutLayer::total("t", HOUR).expect("valid")
}

pub(crate) fn pool(picker: Picker, endpoints: u32) -> Box<dyn Subject> {
    let pool = Pool::builder("p").picker(picker).build().expect("valid");
    pool.handle().add_all((0..endpoints).map(|key| (key, bare(Script::Answers))));
    service(pool)
}

/// A client's whole stack: total timeout, retry within a budget, ten endpoints with a breaker and an attempt timeout each.
pub(crate) fn client() -> Box<dyn Subject> {
    let pool = Pool::builder("p").circuit_breaker(Some(CircuitBreakerConfig::default())).build().expect("valid");
    pool.handle().add_all((0..10).map(|key| (key, timeout().layer(bare(Script::Answers)))));
    service(total().layer(retry(one_in_one()).layer(pool)))
}

/// A cache that has the answer to everything.
pub(crate) fn hit() -> Box<dyn Subject> {
    let layer = CacheLayer::builder("c").key(|_: &u64| Some(7)).build().expect("valid");
    let mut cache = layer.layer(bare(Script::Answers));
    // The load is a task on the runtime of the timers, which runs on a thread of its own.
    assert!(succeeds(cache.call(7)), "a load");
    service(cache)
}
