//! A rule of one's own for when the circuit opens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mainstay::circuit_breaker::{CircuitBreakerHandle, SlowCalls, TransitionReason, Trip, TripStatistics, Window};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

/// Opens on nothing but `trip`.
fn tripped_by(trip: impl Trip) -> Builder {
    builder().failure_rate(None).trip(trip)
}

/// What a trip was asked about.
type Seen = Arc<Mutex<Vec<(TripStatistics, Outcome)>>>;

/// Writes down what it sees and never opens.
fn spy() -> (Builder, Seen) {
    let seen = Seen::default();
    let log = seen.clone();
    let trip = move |now: &TripStatistics, verdict: Outcome| {
        log.lock().unwrap().push((*now, verdict));
        false
    };
    (tripped_by(trip), seen)
}

#[tokio::test(start_paused = true)]
async fn it_opens_when_the_trip_says_so_and_the_opening_tells_on_what() {
    let (breaker, log) = watched(tripped_by(|seen: &TripStatistics, _: Outcome| seen.failures >= 2 && seen.calls >= 4));
    run(&breaker, "FFS");
    assert_eq!(breaker.state(), CircuitState::Closed);
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Open);
    let change = log.lock().unwrap()[0];
    assert_eq!((change.reason, change.calls, change.failures), (TransitionReason::CustomTrip, 4, 2));
    assert_eq!(change.cause, Some(Outcome::Success));
}

#[tokio::test(start_paused = true)]
async fn it_sees_the_verdict_and_every_number_with_it() {
    let (builder, seen) = spy();
    let breaker = builder.slow_calls(SlowCalls { longer_than: secs(1), rate: 1.0 }).build_handle().unwrap();
    run(&breaker, "F");
    slowly(&breaker, secs(2), Outcome::Permanent).await;
    let (last, verdict) = *seen.lock().unwrap().last().unwrap();
    assert_eq!((last.calls, last.failures, last.slow_calls, last.consecutive_failures), (2, 2, 1, 2));
    assert_eq!((last.failure_rate(), last.slow_call_rate(), verdict), (1.0, 0.5, Outcome::Permanent));
}

#[tokio::test(start_paused = true)]
async fn it_is_not_asked_where_nothing_is_wrong() {
    for window in [Window::Count { calls: 4 }, Window::Time { length: secs(10) }] {
        let (builder, seen) = spy();
        let breaker = builder.window(window).build_handle().unwrap();
        run(&breaker, "SSSSSSIT");
        assert_eq!(seen.lock().unwrap().len(), 0, "{window:?}");
        run(&breaker, "FSI");
        assert_eq!(seen.lock().unwrap().len(), 2, "{window:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_are_not_its_business() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let trip = move |_: &TripStatistics, _: Outcome| count.fetch_add(1, Ordering::Relaxed) == 0;
    let breaker = tripped_by(trip).probes(2).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(5)).await;
    run(&breaker, "SS");
    assert_eq!((breaker.state(), asked.load(Ordering::Relaxed)), (CircuitState::Closed, 1));
}

#[tokio::test(start_paused = true)]
async fn an_observing_breaker_asks_it_and_does_not_open() {
    let (builder, seen) = spy();
    let breaker = builder.initial_state(CircuitState::Observing).build_handle().unwrap();
    run(&breaker, "FF");
    assert_eq!((seen.lock().unwrap().len(), breaker.statistics().window_failures), (2, 2));
    assert_eq!(breaker.state(), CircuitState::Observing);
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_opens_nothing_and_loses_no_verdict() {
    let breaker = tripped_by(|_: &TripStatistics, _: Outcome| -> bool { panic!("a trip that panics") })
        .consecutive_failures(3)
        .build_handle()
        .unwrap();
    run(&breaker, "FF");
    assert_eq!((breaker.state(), breaker.statistics().window_failures), (CircuitState::Closed, 2));
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open, "the other rules hold");
}

#[test]
fn alone_it_is_rule_enough_and_without_it_there_is_none() {
    let never = |_: &TripStatistics, _: Outcome| false;
    assert!(tripped_by(never).build_handle().is_ok());
    let error = CircuitBreakerHandle::builder("test").failure_rate(None).build_handle().unwrap_err();
    assert_eq!(error.field(), "failure_rate");
}
