//! So many failures within a period.

use mainstay::circuit_breaker::{FailuresPerPeriod, OpenTime, TransitionReason, Window};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

/// Trips on `failures` within `period` and on nothing else.
fn per_period(failures: u32, period: std::time::Duration) -> Builder {
    builder().failure_rate(None).failures_per_period(FailuresPerPeriod { failures, period })
}

#[tokio::test(start_paused = true)]
async fn two_failures_in_200_ms_open_it_and_two_further_apart_do_not_scenario_28() {
    let (breaker, log) = watched(per_period(2, millis(200)).open_time(OpenTime::Constant(millis(0))).probes(1));
    run(&breaker, "FS");
    advance(millis(210)).await;
    run(&breaker, "FS");
    advance(millis(50)).await;
    assert_eq!(breaker.state(), CircuitState::Closed);
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
    // Without a wait each call that follows is a probe.
    run(&breaker, "FFS");
    use CircuitState::{Closed, HalfOpen, Open};
    assert_eq!(entered(&log), [Open, HalfOpen, Open, HalfOpen, Open, HalfOpen, Closed]);
}

#[tokio::test(start_paused = true)]
async fn the_limit_itself_opens_it_whatever_else_succeeded() {
    let breaker = per_period(3, secs(60)).build_handle().unwrap();
    run(&breaker, &format!("F{}F{}", "S".repeat(1_000), "S".repeat(1_000)));
    assert_eq!((breaker.state(), breaker.statistics().period_failures), (CircuitState::Closed, 2));
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_for_nine_tenths_of_the_period_and_never_beyond_it() {
    for (wait, opens) in [(millis(8_999), true), (millis(10_000), false)] {
        let breaker = per_period(2, secs(10)).build_handle().unwrap();
        run(&breaker, "F");
        advance(wait).await;
        run(&breaker, "F");
        assert_eq!(breaker.state() == CircuitState::Open, opens, "after {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_failure_is_not_counted() {
    let breaker = per_period(1, secs(10)).build_handle().unwrap();
    run(&breaker, "SIRTDA");
    assert_eq!((breaker.state(), breaker.statistics().period_failures), (CircuitState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn the_opening_says_how_many_failures_there_were() {
    let (breaker, log) = watched(per_period(2, secs(10)));
    run(&breaker, "FSF");
    let change = log.lock().unwrap()[0];
    assert_eq!((change.reason, change.period_failures), (TransitionReason::FailuresPerPeriod, 2));
    assert_eq!(change.cause, Some(Outcome::Transient));
    assert_eq!(breaker.try_acquire().unwrap_err().cause(), Some(Outcome::Transient));
}

#[tokio::test(start_paused = true)]
async fn an_opening_and_a_reset_forget_the_failures_of_the_period() {
    let breaker = per_period(2, secs(60)).probes(1).open_time(OpenTime::Constant(secs(1))).build_handle().unwrap();
    run(&breaker, "F");
    breaker.reset();
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Closed, "the one before the reset is forgotten");
    run(&breaker, "F");
    advance(secs(1)).await;
    run(&breaker, "SF");
    assert_eq!(breaker.state(), CircuitState::Closed, "those before the opening are forgotten");
}

#[tokio::test(start_paused = true)]
async fn whichever_limit_is_reached_first_opens_it() {
    let any_of = || per_period(4, secs(60)).consecutive_failures(3).failure_rate(0.6).minimum_calls(5);
    for (calls, reason) in [
        ("FSSSSFSSFSSF", TransitionReason::FailuresPerPeriod),
        ("SSSSSFFF", TransitionReason::ConsecutiveFailures),
        ("FFSSF", TransitionReason::FailureRate),
    ] {
        let (breaker, log) = watched(any_of().window(Window::Count { calls: 10 }));
        run(&breaker, calls);
        assert_eq!(log.lock().unwrap()[0].reason, reason, "{calls}");
    }
}
