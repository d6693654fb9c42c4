//! Breakers driven by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::circuit_breaker::{
    CircuitBreakerBuilder, CircuitBreakerHandle, OpenTime, Permit, SlowCalls, Transition, Window,
};
use mainstay::{CircuitState, DefaultClassifier, Outcome};

pub(crate) type Builder = CircuitBreakerBuilder<DefaultClassifier>;

/// A builder of the default settings, but that the circuit stays open for exactly 5 s each time.
pub(crate) fn builder() -> Builder {
    CircuitBreakerHandle::builder("test").open_time(OpenTime::Constant(secs(5)))
}

/// Failure rate 50 % and slower than 4 s at 50 %, over 20 s, from 5 calls on; open for 5 s; 4 probes, half-open for 1 s at
/// most. The scenarios' setup R.
pub(crate) fn setup_r() -> Builder {
    builder()
        .window(Window::Time { length: secs(20) })
        .minimum_calls(5)
        .failure_rate(0.5)
        .slow_calls(SlowCalls { longer_than: secs(4), rate: 0.5 })
        .open_time(OpenTime::Constant(secs(5)))
        .probes(4)
        .half_open_max(secs(1))
}

/// A count window of `calls`, from `minimum` calls on, at `rate`.
pub(crate) fn counting(calls: u32, minimum: u32, rate: f64) -> Builder {
    builder().window(Window::Count { calls }).minimum_calls(minimum).failure_rate(rate)
}

/// Trips on `failures` in a row and on nothing else.
pub(crate) fn consecutive(failures: u32) -> Builder {
    builder().failure_rate(None).consecutive_failures(failures)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn advance(by: Duration) {
    tokio::time::advance(by).await;
}

/// One permit, which must be given.
#[track_caller]
pub(crate) fn permit(breaker: &CircuitBreakerHandle) -> Permit {
    breaker.try_acquire().expect("the breaker admits")
}

/// Calls by letter: `S`uccess, `F`ailure, `I`gnored, `R`efused, `T`hrottled, `D`ependency failed, `A`bandoned.
#[track_caller]
pub(crate) fn run(breaker: &CircuitBreakerHandle, calls: &str) {
    for call in calls.chars() {
        let permit = permit(breaker);
        match call {
            'S' => permit.record(Outcome::Success),
            'F' => permit.record(Outcome::Transient),
            'I' => permit.record(Outcome::Ignored),
            'R' => permit.record(Outcome::Refused),
            'T' => permit.record(Outcome::Throttled { retry_after: None }),
            'D' => permit.record(Outcome::DependencyFailed),
            'A' => drop(permit),
            other => panic!("no call `{other}`"),
        }
    }
}

/// A call that takes `time`.
pub(crate) async fn slowly(breaker: &CircuitBreakerHandle, time: Duration, outcome: Outcome) {
    let permit = permit(breaker);
    advance(time).await;
    permit.record(outcome);
}

/// (failure rate in percent, successes in the window, calls in it, failures in it, rejected).
pub(crate) fn metrics(breaker: &CircuitBreakerHandle) -> (Option<f64>, u64, u64, u64, u64) {
    let now = breaker.statistics();
    let rate = now.failure_rate.map(|rate| (rate * 10_000.0).round() / 100.0);
    (rate, now.window_calls - now.window_failures, now.window_calls, now.window_failures, now.rejected)
}

/// A handle whose transitions are written down.
pub(crate) fn watched(builder: Builder) -> (CircuitBreakerHandle, Arc<Mutex<Vec<Transition>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let breaker = builder.on_transition(move |change| log.lock().unwrap().push(*change)).build_handle().unwrap();
    (breaker, seen)
}

/// The states that were entered, in order.
pub(crate) fn entered(log: &Mutex<Vec<Transition>>) -> Vec<CircuitState> {
    log.lock().unwrap().iter().map(|change| change.to).collect()
}
