//! Probes: who may go, what they decide, and what becomes of those that do not come back.

use std::time::Duration;

use mainstay::circuit_breaker::{Admits, CircuitBreakerHandle, OpenTime, Permit, ProbeRule, TransitionReason, Window};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

/// A breaker that has just become half-open.
fn half_open(builder: Builder) -> CircuitBreakerHandle {
    let breaker = builder.build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    breaker
}

fn permits(breaker: &CircuitBreakerHandle, asked: usize) -> Vec<Permit> {
    (0..asked).filter_map(|_| breaker.try_acquire().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn it_admits_as_many_probes_as_are_set_scenario_7() {
    let breaker = half_open(setup_r());
    let mut probes = permits(&breaker, 6);
    assert_eq!(probes.len(), 4);
    drop(probes.pop());
    let again = permits(&breaker, 2);
    assert_eq!(again.len(), 1, "what was given back can be had again");
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let fresh = permits(&breaker, 6);
    assert_eq!(fresh.len(), 4);
    // The probes of the time before give nothing back here.
    drop((probes, again));
    assert!(breaker.try_acquire().is_err());
    drop(fresh);
    assert_eq!(permits(&breaker, 6).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn failed_probes_reopen_it_scenario_8() {
    let breaker = half_open(setup_r());
    run(&breaker, "FFSF");
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(metrics(&breaker), (Some(75.0), 1, 4, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn slow_probes_reopen_it_scenario_9() {
    // Each takes longer than the longest stay of the setup.
    let breaker = half_open(setup_r().half_open_max(None));
    for seconds in [5, 5, 5, 1] {
        slowly(&breaker, secs(seconds), Outcome::Success).await;
    }
    assert_eq!(breaker.state(), CircuitState::Open);
    let now = breaker.statistics();
    assert_eq!((now.window_slow_calls, now.slow_call_rate, now.failure_rate), (3, Some(0.75), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn enough_healthy_probes_close_it_and_nothing_is_left_of_them_scenario_10() {
    let breaker = half_open(setup_r());
    run(&breaker, "FSSS");
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 0));
    run(&breaker, "S");
    assert_eq!(metrics(&breaker), (None, 1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_evidence_gives_its_slot_back_scenario_11() {
    let breaker = half_open(setup_r());
    run(&breaker, "IIIITTTT");
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 0));
    run(&breaker, "SSSS");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_three_at_a_time_scenario_29() {
    let breaker = half_open(consecutive(1).probes(3).probe_rule(ProbeRule::ConsecutiveSuccesses(3)));
    let probes = permits(&breaker, 8);
    assert_eq!(probes.len(), 3);
    assert_eq!(breaker.statistics().rejected, 5);
    probes.into_iter().for_each(|probe| probe.record(Outcome::Success));
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_closing_carries_what_the_probes_showed_scenario_30() {
    let (breaker, log) = watched(counting(10, 10, 0.5).probes(5));
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    run(&breaker, "FFSSS");
    let change = *log.lock().unwrap().last().unwrap();
    assert_eq!(change.reason, TransitionReason::ProbesSucceeded);
    assert_eq!((change.calls, change.failures), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn a_row_of_healthy_probes_closes_it_and_the_first_sick_one_reopens_it() {
    let rule = || consecutive(1).probes(1).probe_rule(ProbeRule::ConsecutiveSuccesses(4));
    let breaker = half_open(rule());
    run(&breaker, "SSIAS");
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed);

    let breaker = half_open(rule());
    run(&breaker, "SSSF");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn under_first_failure_one_bad_probe_reopens_it_at_once_and_all_must_be_healthy() {
    let rule = || counting(100, 100, 1.0).probes(3).probe_rule(ProbeRule::FirstFailure);
    let breaker = half_open(rule());
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open, "whatever rate would be needed");

    let breaker = half_open(rule());
    run(&breaker, "SIRA");
    assert_eq!(breaker.state(), CircuitState::HalfOpen, "what is no evidence is no verdict");
    run(&breaker, "D");
    assert_eq!(breaker.state(), CircuitState::Closed);

    let breaker = half_open(rule());
    let probes = permits(&breaker, 9);
    assert_eq!(probes.len(), 3);
    let mut probes = probes.into_iter();
    probes.by_ref().take(2).for_each(|probe| probe.record(Outcome::Success));
    assert!(breaker.try_acquire().is_err(), "a slot is for one verdict");
    probes.for_each(|probe| probe.record(Outcome::Permanent));
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn under_first_failure_a_slow_probe_is_a_bad_one() {
    let breaker = half_open(setup_r().half_open_max(None).probe_rule(ProbeRule::FirstFailure));
    slowly(&breaker, secs(4), Outcome::Success).await;
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    slowly(&breaker, secs(5), Outcome::Success).await;
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn one_failed_probe_is_enough_where_no_rate_is_set() {
    let breaker = half_open(consecutive(5).probes(3));
    run(&breaker, "SSF");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_calls_three_are_sent_r8() {
    let breaker = consecutive(1).probes(3).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(5)).await;
    let runtime = tokio::runtime::Handle::current();
    let sent: usize = std::thread::scope(|scope| {
        let ask = || {
            // Within the runtime, whose clock is paused.
            let _clock = runtime.enter();
            permits(&breaker, 250)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        // All permits are alive until all threads have asked.
        let held: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        held.iter().map(Vec::len).sum()
    });
    assert_eq!(sent, 3);
    assert_eq!(breaker.statistics().rejected, 997);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_slot_back_r9() {
    let breaker = half_open(consecutive(1).probes(1));
    for _ in 0..10 {
        run(&breaker, "A");
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_reopens_it_where_a_setting_says_so_r10() {
    let breaker = half_open(consecutive(1).probes(1).abandoned_is_failure(true));
    run(&breaker, "A");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_dropped_beyond_the_slow_threshold_was_slow() {
    let breaker = half_open(setup_r().half_open_max(None).probes(1));
    let probe = permit(&breaker);
    advance(secs(5)).await;
    drop(probe);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_straggler_admitted_before_the_trip_decides_nothing_r12() {
    for verdict in [Outcome::Success, Outcome::Transient] {
        let breaker = consecutive(1).probes(1).build_handle().unwrap();
        let straggler = permit(&breaker);
        run(&breaker, "F");
        advance(secs(5)).await;
        let probe = permit(&breaker);
        straggler.record(verdict);
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        assert!(breaker.try_acquire().is_err(), "the probe is still out");
        probe.record(Outcome::Success);
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_straggler_from_an_earlier_half_open_time_decides_nothing() {
    let open_time = OpenTime::Constant(secs(5));
    let rule = ProbeRule::ConsecutiveSuccesses(1);
    let breaker = half_open(consecutive(1).open_time(open_time).probes(2).probe_rule(rule));
    let straggler = permit(&breaker);
    run(&breaker, "F");
    advance(secs(5)).await;
    let probe = permit(&breaker);
    straggler.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    probe.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_hung_probe_loses_its_slot_at_its_deadline_r14() {
    let breaker = half_open(consecutive(1).probes(1).probe_deadline(secs(5)));
    let hung = permit(&breaker);
    advance(secs(2)).await;
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), None, "the probe may end at any time");
    advance(secs(3)).await;
    assert_eq!(breaker.admits(), Admits::Probe);
    let second = permit(&breaker);
    assert!(breaker.try_acquire().is_err());
    hung.record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::HalfOpen, "another has its slot, and its say");
    second.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn each_probe_has_a_deadline_of_its_own() {
    let breaker = half_open(consecutive(1).probes(2).probe_deadline(secs(5)));
    let first = permit(&breaker);
    advance(secs(4)).await;
    let second = permit(&breaker);
    advance(secs(1)).await;
    let third = permit(&breaker);
    assert!(breaker.try_acquire().is_err(), "the second has four seconds left");
    drop(first);
    assert!(breaker.try_acquire().is_err(), "what it held is the third's");
    second.record(Outcome::Success);
    third.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_late_probe_has_its_say_while_nobody_has_its_slot() {
    let breaker = half_open(consecutive(1).probes(1).probe_deadline(secs(5)));
    let late = permit(&breaker);
    advance(secs(50)).await;
    late.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn leaked_probes_never_lock_it_up() {
    let breaker = half_open(consecutive(1).probes(3).probe_deadline(secs(5)));
    for _ in 0..10 {
        permits(&breaker, 10).into_iter().for_each(std::mem::forget);
        assert!(breaker.try_acquire().is_err());
        advance(secs(5)).await;
    }
    run(&breaker, "SSS");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn undecided_for_too_long_it_is_open_again_at_the_next_call_that_asks_setup_r() {
    let (breaker, log) = watched(setup_r());
    run(&breaker, "FFFFF");
    advance(secs(5)).await;
    let probes = permits(&breaker, 4);
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), None, "a probe may end before that");
    advance(millis(999)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    advance(millis(1)).await;
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!((refusal.state(), refusal.retry_after()), (CircuitState::Open, Some(secs(5))));
    assert_eq!(refusal.cause(), Some(Outcome::Transient), "what opened it at first");
    let change = *log.lock().unwrap().last().unwrap();
    assert_eq!((change.reason, change.cause), (TransitionReason::HalfOpenTimeOver, None));
    assert_eq!(breaker.statistics().consecutive_opens, 2);
    // They are stragglers now.
    probes.into_iter().for_each(|probe| probe.record(Outcome::Success));
    assert_eq!(breaker.state(), CircuitState::Open);
    advance(secs(5)).await;
    run(&breaker, "SSSS");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_comes_after_the_longest_stay_reopens_it_whatever_it_says() {
    for verdict in [Outcome::Success, Outcome::Transient, Outcome::Ignored] {
        let breaker = half_open(setup_r().probes(1));
        let probe = permit(&breaker);
        advance(secs(1)).await;
        probe.record(verdict);
        assert_eq!(breaker.state(), CircuitState::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_is_not_given_after_the_longest_stay_while_another_probe_is_out() {
    let breaker = half_open(setup_r());
    let _out = permit(&breaker);
    advance(secs(1)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn probes_far_apart_are_judged_together_whatever_the_window() {
    // Two good probes 150 ms apart, with a time window of 100 ms.
    let breaker = half_open(builder().window(Window::Time { length: millis(100) }).probes(2));
    run(&breaker, "S");
    advance(millis(150)).await;
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_the_end_of_time_is_none() {
    let breaker = half_open(consecutive(1).probes(1).probe_deadline(Duration::MAX));
    let probe = permit(&breaker);
    assert_eq!(breaker.admits(), Admits::Nothing { retry_after: None });
    advance(secs(1_000_000)).await;
    assert!(breaker.try_acquire().is_err());
    drop(probe);
    assert_eq!(breaker.admits(), Admits::Probe);
}

#[tokio::test(start_paused = true)]
async fn exactly_one_attempt_after_the_sleep_window_scenario_35() {
    let breaker = counting(100, 1, 0.4).probes(1).open_time(OpenTime::Constant(secs(5))).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(5)).await;
    let probe = permit(&breaker);
    assert!((0..10).all(|_| breaker.try_acquire().is_err()));
    probe.record(Outcome::Success);
    assert_eq!(breaker.statistics().window_calls, 0);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn successes_in_a_row_of_one_half_open_time_are_not_carried_into_the_next() {
    let rule = ProbeRule::ConsecutiveSuccesses(3);
    let breaker = half_open(consecutive(1).open_time(OpenTime::Constant(secs(5))).probes(1).probe_rule(rule));
    run(&breaker, "SSF");
    assert_eq!(breaker.state(), CircuitState::Open);
    advance(secs(5)).await;
    run(&breaker, "SS");
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed);
}
