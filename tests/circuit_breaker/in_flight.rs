//! Calls that hang, seen before they end.

use std::thread;

use mainstay::circuit_breaker::{
    Admits, CircuitBreakerHandle, Permit, ProbeRule, Ramp, SlowCalls, TransitionReason, Window,
};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

/// Slower than 8 s at 50 %, from 4 calls on; seen when between 8 s and 9 s have passed.
fn watching() -> Builder {
    let slow = SlowCalls { longer_than: secs(8), rate: 0.5 };
    counting(10, 4, 1.0).slow_calls(slow).watch_in_flight(true)
}

/// So many calls that begin and do not end.
fn hang(breaker: &CircuitBreakerHandle, calls: usize) -> Vec<Permit> {
    (0..calls).map(|_| permit(breaker)).collect()
}

/// Calls in the window, those of them that failed, and those that were slow.
fn window(breaker: &CircuitBreakerHandle) -> (u64, u64, u64) {
    let now = breaker.statistics();
    (now.window_calls, now.window_failures, now.window_slow_calls)
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_hangs_opens_the_circuit_though_no_call_ever_returns() {
    let (breaker, log) = watched(watching());
    let _hung = hang(&breaker, 4);
    advance(secs(9)).await;
    assert_eq!(breaker.state(), CircuitState::Closed, "nobody has asked yet");
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!((refusal.state(), refusal.retry_after()), (CircuitState::Open, Some(secs(5))));
    assert_eq!(refusal.cause(), None, "no call has ended");
    let change = log.lock().unwrap()[0];
    assert_eq!((change.reason, change.cause), (TransitionReason::SlowCallRate, None));
    assert_eq!((change.calls, change.failures, change.slow_calls), (4, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn without_the_watch_calls_that_hang_are_not_seen() {
    let breaker = watching().watch_in_flight(false).build_handle().unwrap();
    let _hung = hang(&breaker, 4);
    advance(secs(100)).await;
    assert!(breaker.try_acquire().is_ok());
    assert_eq!(window(&breaker), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_sees_them_as_well_as_a_call_that_asks() {
    for verdict in [Outcome::Success, Outcome::Ignored] {
        let (breaker, log) = watched(watching());
        let _hung = hang(&breaker, 4);
        advance(secs(8)).await;
        let last = permit(&breaker);
        advance(secs(1)).await;
        last.record(verdict);
        assert_eq!(breaker.state(), CircuitState::Open);
        let cause = verdict.is_success().then_some(verdict);
        assert_eq!(log.lock().unwrap()[0].cause, cause, "what is no evidence is no cause");
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_seen_when_more_than_the_threshold_and_at_most_nine_eighths_have_passed() {
    let breaker = watching().minimum_calls(10).build_handle().unwrap();
    advance(millis(300)).await;
    let _hung = hang(&breaker, 3);
    advance(secs(8)).await;
    drop(permit(&breaker));
    assert_eq!(window(&breaker), (0, 0, 0), "they have been running for the threshold, and no longer");
    advance(millis(700)).await;
    drop(permit(&breaker));
    assert_eq!(window(&breaker), (3, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_call_counted_before_its_end_is_in_the_window_once_however_it_ends() {
    let ends: [fn(Permit); 6] = [
        |call| call.record(Outcome::Success),
        |call| call.record(Outcome::Refused),
        |call| call.record(Outcome::Transient),
        |call| call.record(Outcome::Ignored),
        |call| call.record(Outcome::Throttled { retry_after: None }),
        drop,
    ];
    for abandoned_is_failure in [false, true] {
        for end in ends {
            let breaker = watching().abandoned_is_failure(abandoned_is_failure).build_handle().unwrap();
            let mut hung = hang(&breaker, 2);
            advance(secs(9)).await;
            run(&breaker, "S");
            assert_eq!(window(&breaker), (3, 0, 2));
            end(hung.remove(0));
            assert_eq!(window(&breaker), (3, 0, 2), "neither added nor changed");
            assert_eq!(breaker.statistics().calls(), 2, "and counted in the accounts all the same");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_before_it_was_counted_is_what_it_ends_as() {
    let breaker = watching().build_handle().unwrap();
    let mut hung = hang(&breaker, 3).into_iter();
    advance(millis(8_500)).await;
    hung.next().unwrap().record(Outcome::Transient);
    assert_eq!(window(&breaker), (1, 1, 1), "slow, and not yet seen to be by others");
    advance(secs(60)).await;
    hung.next().unwrap().record(Outcome::Transient);
    assert_eq!(window(&breaker), (3, 2, 3), "it ended before anybody looked; the third is running");
    drop(hung);
    assert_eq!(window(&breaker), (3, 2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_it_was_counted_is_one_in_a_row_and_a_success_begins_the_row_anew() {
    let breaker = watching().minimum_calls(10).consecutive_failures(3).build_handle().unwrap();
    let mut hung = hang(&breaker, 3);
    advance(secs(9)).await;
    run(&breaker, "FF");
    hung.remove(0).record(Outcome::Success);
    assert_eq!(breaker.statistics().consecutive_failures, 0);
    run(&breaker, "FF");
    hung.remove(0).record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_generation_is_over_is_in_no_window() {
    let breaker = watching().build_handle().unwrap();
    let hung = hang(&breaker, 2);
    breaker.reset();
    let of_now = hang(&breaker, 1);
    advance(secs(9)).await;
    run(&breaker, "S");
    assert_eq!(window(&breaker), (2, 0, 1), "the one that was admitted since, and the success");
    hung.into_iter().for_each(|call| call.record(Outcome::Transient));
    assert_eq!(window(&breaker), (2, 0, 1));
    drop(of_now);

    // It had been counted when the generation ended.
    let breaker = watching().build_handle().unwrap();
    let mut hung = hang(&breaker, 4);
    advance(secs(9)).await;
    assert!(breaker.try_acquire().is_err());
    breaker.close();
    hung.remove(0).record(Outcome::Transient);
    assert_eq!(window(&breaker), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_given_back_is_counted_once_and_forgotten_with_the_window() {
    let window_of = Window::Time { length: secs(60) };
    let breaker = watching().window(window_of).minimum_calls(100).build_handle().unwrap();
    hang(&breaker, 5).into_iter().for_each(std::mem::forget);
    for _ in 0..6 {
        advance(secs(10)).await;
        drop(permit(&breaker));
        assert_eq!(window(&breaker), (5, 0, 5));
    }
    advance(secs(10)).await;
    assert_eq!(window(&breaker), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_observing_breaker_counts_them_and_stays_as_it_is() {
    let breaker = watching().initial_state(CircuitState::Observing).build_handle().unwrap();
    let hung = hang(&breaker, 4);
    advance(secs(9)).await;
    run(&breaker, "S");
    assert_eq!((window(&breaker), breaker.state()), ((5, 0, 4), CircuitState::Observing));
    hung.into_iter().for_each(|call| call.record(Outcome::Success));
    assert_eq!(window(&breaker), (5, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_disabled_breaker_watches_nobody() {
    let breaker = watching().initial_state(CircuitState::Disabled).build_handle().unwrap();
    let _hung = hang(&breaker, 4);
    advance(secs(9)).await;
    drop(permit(&breaker));
    assert_eq!(window(&breaker), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_has_its_verdict_when_it_is_slow() {
    let breaker = watching().probes(2).probe_rule(ProbeRule::FirstFailure).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let probes = hang(&breaker, 2);
    advance(secs(8)).await;
    assert_eq!(breaker.admits(), Admits::Nothing { retry_after: None });
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    advance(millis(1)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
    probes.into_iter().for_each(|probe| probe.record(Outcome::Success));
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_counted_as_slow_is_one_of_the_rate_and_comes_too_late_to_decide() {
    let breaker = watching().probes(3).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let slow = permit(&breaker);
    advance(secs(9)).await;
    run(&breaker, "S");
    assert_eq!(window(&breaker), (2, 0, 1));
    slow.record(Outcome::Transient);
    assert_eq!((window(&breaker), breaker.state()), ((2, 0, 1), CircuitState::HalfOpen));
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed, "one of three was slow");
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_on_a_ramp_reopen_the_circuit() {
    let ramp = Ramp { shares: vec![0.9], step: secs(60) };
    let breaker = watching().probes(1).ramp(ramp).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    run(&breaker, "S");
    let _hung = permit(&breaker);
    advance(secs(9)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

/// At rest each of the calls is in the window exactly once, whichever of the two ways it came in.
#[test]
fn no_call_is_lost_or_counted_twice_by_many_threads() {
    let slow = SlowCalls { longer_than: std::time::Duration::from_micros(80), rate: 1.0 };
    let breaker = builder()
        .window(Window::Time { length: secs(3600) })
        .minimum_calls(u32::MAX)
        .slow_calls(slow)
        .watch_in_flight(true)
        .build_handle()
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut held = Vec::new();
                for call in 0..20_000_u32 {
                    held.push(permit(&breaker));
                    // Some end at once, others together with many.
                    if call % 3 == 0 || held.len() > 200 {
                        let outcome = if call % 2 == 0 { Outcome::Success } else { Outcome::Transient };
                        held.drain(..).for_each(|permit| permit.record(outcome));
                    }
                }
                held.drain(..).for_each(|permit| permit.record(Outcome::Success));
            });
        }
        scope.spawn(|| (0..500).for_each(|_| assert_eq!(breaker.statistics().rejected, 0)));
    });
    assert_eq!(breaker.statistics().window_calls, 80_000);
}

#[tokio::test(start_paused = true)]
async fn at_rest_nobody_is_left_who_is_thought_to_be_running() {
    let breaker =
        watching().window(Window::Time { length: secs(3600) }).minimum_calls(u32::MAX).build_handle().unwrap();
    let runtime = tokio::runtime::Handle::current();
    let mut held: Vec<Permit> = Vec::new();
    for round in 0..20_usize {
        held = thread::scope(|scope| {
            let ask = || {
                // Within the runtime, whose clock is paused.
                let _clock = runtime.enter();
                let mut held = Vec::new();
                for call in 0..500 {
                    let permit = permit(&breaker);
                    if call % 4 == 0 { held.push(permit) } else { permit.record(Outcome::Success) }
                }
                held
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            let began = threads.into_iter().flat_map(|thread| thread.join().unwrap());
            held.into_iter().chain(began).collect()
        });
        advance(secs(3)).await;
        // Some end before they were counted, some after.
        let ending = held.len() / (1 + round % 3);
        held.drain(..ending).for_each(|permit| permit.record(Outcome::Transient));
    }
    held.into_iter().for_each(|permit| permit.record(Outcome::Success));
    assert_eq!(breaker.statistics().window_calls, 40_000);
    advance(secs(9)).await;
    run(&breaker, "S");
    assert_eq!(breaker.statistics().window_calls, 40_001);
}
