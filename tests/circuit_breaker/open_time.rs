//! How long a circuit stays open, where that is no constant.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::backoff::Jitter;
use mainstay::circuit_breaker::{OpenTime, Opening, TransitionReason, TripStatistics, Window};
use mainstay::{CircuitBreakerHandle, CircuitState, Outcome};

use crate::support::*;

/// The wait that the breaker announces.
fn wait(breaker: &CircuitBreakerHandle) -> Option<Duration> {
    breaker.try_acquire().unwrap_err().retry_after()
}

/// Ends a call as throttled for `after`.
fn throttle(breaker: &CircuitBreakerHandle, after: Option<Duration>) {
    permit(breaker).record(Outcome::Throttled { retry_after: after });
}

#[tokio::test(start_paused = true)]
async fn the_third_failure_in_a_row_opens_it_and_the_schedule_ends_at_300_s_scenario_39() {
    let schedule = OpenTime::Exponential { initial: secs(5), factor: 8.0, max: secs(300), jitter: Jitter::None };
    let breaker = consecutive(3).open_time(schedule).probes(1).build_handle().unwrap();
    run(&breaker, "FFSFF");
    assert_eq!(breaker.state(), CircuitState::Closed, "the success began the row anew");
    run(&breaker, "F");
    for seconds in [5, 40, 300, 300] {
        assert_eq!(wait(&breaker), Some(secs(seconds)));
        advance(secs(seconds)).await;
        run(&breaker, "F");
    }
    breaker.reset();
    run(&breaker, "FF");
    assert_eq!(breaker.state(), CircuitState::Closed, "revived, it counts from the beginning");
    run(&breaker, "F");
    assert_eq!(wait(&breaker), Some(secs(5)));
}

/// There the longest wait of the policies that trip is taken; here the first rule that trips is the reason, and a function
/// knows it.
#[tokio::test(start_paused = true)]
async fn a_row_or_a_rate_opens_it_each_for_its_own_time_scenario_41_differs() {
    let hybrid = || {
        let window = Window::Time { length: secs(30) };
        let own = |opening: &Opening| match opening.reason {
            TransitionReason::FailureRate => secs(10),
            _ => secs(5),
        };
        consecutive(3).failure_rate(0.5).minimum_calls(16).window(window).open_time_with(own).build_handle().unwrap()
    };
    let by_rate = hybrid();
    for call in "SFSFSFSFSFSFSFS".chars() {
        run(&by_rate, &call.to_string());
        advance(secs(1)).await;
    }
    assert_eq!(by_rate.state(), CircuitState::Closed);
    run(&by_rate, "F");
    assert_eq!(wait(&by_rate), Some(secs(10)));
    let by_row = hybrid();
    run(&by_row, "FFF");
    assert_eq!(wait(&by_row), Some(secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_function_sees_what_opened_it_and_how_often() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let own = move |opening: &Opening| {
        log.lock().unwrap().push(*opening);
        opening.wait * opening.consecutive_opens
    };
    let breaker = consecutive(2).open_time(OpenTime::Constant(secs(3))).open_time_with(own).probes(1);
    let breaker = breaker.build_handle().unwrap();
    run(&breaker, "F");
    permit(&breaker).record(Outcome::Permanent);
    assert_eq!(wait(&breaker), Some(secs(3)));
    advance(secs(3)).await;
    run(&breaker, "F");
    assert_eq!(wait(&breaker), Some(secs(6)));

    let openings = seen.lock().unwrap().clone();
    let facts: Vec<_> = openings.iter().map(|it| (it.consecutive_opens, it.reason, it.cause)).collect();
    assert_eq!(
        facts,
        [
            (1, TransitionReason::ConsecutiveFailures, Some(Outcome::Permanent)),
            (2, TransitionReason::ProbesFailed, Some(Outcome::Transient)),
        ]
    );
    let numbers = |seen: TripStatistics| (seen.calls, seen.failures, seen.consecutive_failures);
    assert_eq!((numbers(openings[0].seen), numbers(openings[1].seen)), ((0, 0, 2), (1, 1, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_leaves_the_wait_of_the_settings() {
    let own = |_: &Opening| -> Duration { panic!("a wait that panics") };
    let breaker = consecutive(1).open_time_with(own).build_handle().unwrap();
    run(&breaker, "F");
    assert_eq!(wait(&breaker), Some(secs(5)));
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_says_is_not_asked_about() {
    let breaker = consecutive(1).open_time_with(|_: &Opening| secs(99)).build_handle().unwrap();
    breaker.open_for(secs(7)).unwrap();
    assert_eq!(wait(&breaker), Some(secs(7)));
    let open = consecutive(1).open_time_with(|_: &Opening| secs(99)).initial_state(CircuitState::Open);
    assert_eq!(wait(&open.build_handle().unwrap()), Some(secs(99)));
}

#[tokio::test(start_paused = true)]
async fn one_throttled_call_opens_it_for_the_time_it_says_if_that_is_asked_for() {
    let (breaker, log) = watched(builder().throttled_opens(secs(60)));
    throttle(&breaker, None);
    throttle(&breaker, Some(Duration::ZERO));
    assert_eq!(breaker.state(), CircuitState::Closed, "no time is said");
    throttle(&breaker, Some(secs(20)));
    assert_eq!(wait(&breaker), Some(secs(20)));
    let change = log.lock().unwrap()[0];
    assert_eq!((change.reason, change.cause), (TransitionReason::Throttled, Some(Outcome::throttled(secs(20)))));
    assert_eq!(breaker.statistics().failures, 0);

    let off = builder().build_handle().unwrap();
    throttle(&off, Some(secs(20)));
    assert_eq!(off.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_callee_cannot_close_its_door_for_longer_than_is_set() {
    let breaker = builder().throttled_opens(secs(60)).build_handle().unwrap();
    throttle(&breaker, Some(Duration::MAX));
    assert_eq!(wait(&breaker), Some(secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_probe_reopens_it_for_the_time_it_says() {
    let breaker = consecutive(1).throttled_opens(secs(60)).probes(2).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(5)).await;
    run(&breaker, "S");
    throttle(&breaker, Some(secs(20)));
    assert_eq!((wait(&breaker), breaker.statistics().probes_in_flight), (Some(secs(20)), 0));
    advance(secs(20)).await;
    run(&breaker, "SS");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_observing_breaker_is_not_opened_by_a_throttled_call() {
    let breaker = builder().throttled_opens(secs(60)).initial_state(CircuitState::Observing).build_handle().unwrap();
    throttle(&breaker, Some(secs(20)));
    assert_eq!(breaker.state(), CircuitState::Observing);
}

#[tokio::test(start_paused = true)]
async fn a_straggler_that_was_throttled_changes_nothing() {
    let breaker = builder().throttled_opens(secs(60)).build_handle().unwrap();
    let straggler = permit(&breaker);
    breaker.reset();
    straggler.record(Outcome::throttled(secs(20)));
    assert_eq!(breaker.state(), CircuitState::Closed);
}
