//! Back to full traffic in steps.

use std::task::Poll;

use mainstay::circuit_breaker::{Admits, CircuitBreakerHandle, OpenTime, Permit, ProbeRule, Ramp, TransitionReason};
use mainstay::{CircuitState, Outcome};
use tower::Service;
use tower_test::mock;

use crate::support::*;

fn ramp() -> Ramp {
    Ramp { shares: vec![0.1, 0.25, 0.5], step: secs(5) }
}

/// A breaker whose only probe has just succeeded.
fn climbing(builder: Builder) -> CircuitBreakerHandle {
    let breaker = builder.probes(1).ramp(ramp()).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    run(&breaker, "S");
    breaker
}

/// The permits that so many calls get.
fn ask(breaker: &CircuitBreakerHandle, calls: usize) -> Vec<Permit> {
    (0..calls).filter_map(|_| breaker.try_acquire().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_step_admits_exactly_its_share_and_after_the_last_it_closes() {
    let (breaker, log) = watched(consecutive(3).open_time(OpenTime::Constant(secs(1))).probes(1).ramp(ramp()));
    run(&breaker, "FFF");
    advance(secs(1)).await;
    run(&breaker, "S");
    for share in [0.1, 0.25, 0.5] {
        assert_eq!((breaker.state(), breaker.statistics().ramp_share), (CircuitState::HalfOpen, Some(share)));
        assert_eq!(ask(&breaker, 100).len() as f64, 100.0 * share);
        advance(secs(5)).await;
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen, "nobody has asked yet");
    assert_eq!(breaker.statistics().ramp_share, Some(1.0));
    run(&breaker, &"S".repeat(100));
    assert_eq!((breaker.state(), breaker.statistics().ramp_share), (CircuitState::Closed, None));
    use CircuitState::{Closed, HalfOpen, Open};
    assert_eq!(entered(&log), [Open, HalfOpen, Closed], "a step is no transition");
    assert_eq!(log.lock().unwrap()[2].reason, TransitionReason::RampOver);
}

#[tokio::test(start_paused = true)]
async fn calls_that_a_ramp_rejects_get_no_time_since_the_next_may_be_admitted() {
    let breaker = climbing(consecutive(3));
    assert!(!permit(&breaker).is_probe(), "the first of ten is admitted");
    advance(secs(2)).await;
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!((refusal.state(), refusal.retry_after()), (CircuitState::HalfOpen, None));
    advance(secs(4)).await;
    let _first_of_step_two = permit(&breaker);
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), None);
    assert_eq!(breaker.admits(), Admits::Probe, "the next but two");
}

#[tokio::test(start_paused = true)]
async fn time_alone_moves_it_on() {
    let breaker = climbing(consecutive(3));
    advance(secs(5)).await;
    assert_eq!(breaker.statistics().ramp_share, Some(0.25), "though no call was made in the first step");
    advance(secs(10)).await;
    let _call = permit(&breaker);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_for_calls_that_hang_or_were_leaked() {
    let breaker = climbing(consecutive(3));
    for _ in 0..3 {
        ask(&breaker, 20).into_iter().for_each(std::mem::forget);
        advance(secs(5)).await;
    }
    assert!(breaker.try_acquire().is_ok());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_would_trip_a_closed_circuit_reopens_it() {
    for (builder, calls, reason) in [
        (consecutive(2), "SFF", TransitionReason::ConsecutiveFailures),
        (counting(10, 10, 0.5).probes(1), "SF", TransitionReason::FailureRate),
    ] {
        let (breaker, log) = watched(builder.probes(1).ramp(ramp()));
        breaker.transition_to(CircuitState::Open).unwrap();
        breaker.transition_to(CircuitState::HalfOpen).unwrap();
        run(&breaker, "S");
        for call in calls.chars() {
            assert_eq!(breaker.state(), CircuitState::HalfOpen);
            run(&breaker, &call.to_string());
            assert!(ask(&breaker, 9).is_empty() || breaker.state() == CircuitState::Open);
        }
        assert_eq!(breaker.state(), CircuitState::Open);
        let change = *log.lock().unwrap().last().unwrap();
        assert_eq!((change.from, change.reason), (CircuitState::HalfOpen, reason));
        assert_eq!(breaker.statistics().consecutive_opens, 2, "it was not closed in between");
        assert_eq!(breaker.statistics().ramp_share, None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rates_are_judged_from_as_many_calls_as_there_are_probes() {
    let breaker =
        counting(10, 10, 0.5).probes(3).ramp(Ramp { shares: vec![0.99], step: secs(5) }).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    run(&breaker, "SSS");
    let mut calls = ask(&breaker, 4).into_iter();
    calls.by_ref().take(2).for_each(|call| call.record(Outcome::Transient));
    assert_eq!((breaker.state(), breaker.statistics().failure_rate), (CircuitState::HalfOpen, None));
    calls.for_each(|call| call.record(Outcome::Success));
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_of_the_ramp_reopens_it_for_the_time_it_says() {
    let breaker = climbing(consecutive(3).throttled_opens(secs(60)));
    permit(&breaker).record(Outcome::throttled(secs(20)));
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(20)));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_ends_on_the_ramp_decides_nothing() {
    let rule = ProbeRule::ConsecutiveSuccesses(1);
    let breaker = consecutive(1).probes(2).probe_rule(rule).ramp(ramp()).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let straggler = permit(&breaker);
    run(&breaker, "S");
    assert_eq!(breaker.statistics().ramp_share, Some(0.1));
    straggler.record(Outcome::Transient);
    assert_eq!((breaker.state(), breaker.statistics().failures), (CircuitState::HalfOpen, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_of_the_ramp_that_ends_after_it_decides_nothing() {
    let breaker = climbing(consecutive(1));
    let straggler = permit(&breaker);
    advance(secs(15)).await;
    run(&breaker, "S");
    straggler.record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_one_step_counts_in_the_next() {
    let breaker = climbing(consecutive(2));
    let call = permit(&breaker);
    advance(secs(5)).await;
    run(&breaker, "F");
    call.record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn the_longest_stay_does_not_end_a_ramp() {
    let breaker = climbing(consecutive(2).half_open_max(secs(1)));
    advance(secs(7)).await;
    run(&breaker, "S");
    assert_eq!(breaker.statistics().ramp_share, Some(0.25));
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_end_it_and_a_new_one_begins_at_its_first_step() {
    let breaker = climbing(consecutive(2));
    advance(secs(7)).await;
    breaker.close();
    assert_eq!((ask(&breaker, 10).len(), breaker.statistics().ramp_share), (10, None));
    run(&breaker, "FF");
    advance(secs(5)).await;
    run(&breaker, "S");
    assert_eq!((breaker.statistics().ramp_share, breaker.statistics().probes_in_flight), (Some(0.1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_leaves_a_ready_service_ready() {
    let breaker = climbing(consecutive(2));
    let (mut service, mut handle) = mock::spawn_layer::<(), (), _>(breaker.layer());
    handle.allow(1);
    drop(permit(&breaker));
    for _ in 0..9 {
        assert_eq!(service.poll_ready().map(|ready| ready.is_ok()), Poll::Ready(true));
        let refused = service.get_mut().call(()).await.unwrap_err();
        assert!(refused.downcast_ref::<mainstay::Rejected>().unwrap().is_circuit_open());
    }
    assert_eq!(service.poll_ready().map(|ready| ready.is_ok()), Poll::Ready(true));
    let mut sent = tokio_test::task::spawn(service.call(()));
    assert!(sent.poll().is_pending());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(());
    sent.await.unwrap();
}
