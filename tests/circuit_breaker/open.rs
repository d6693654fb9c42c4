//! How long an open circuit stays open, and what it says meanwhile.

use std::time::Duration;

use mainstay::backoff::Jitter;
use mainstay::circuit_breaker::{Admits, OpenTime, Window};
use mainstay::{CircuitState, Outcome, Rejected};
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn until_a_time_that_has_passed_means_that_a_probe_is_due() {
    let breaker = setup_r().build_handle().unwrap();
    let passed = Instant::now();
    advance(secs(1)).await;
    breaker.open_until(passed).unwrap();
    assert_eq!((breaker.state(), breaker.admits()), (CircuitState::Open, Admits::Probe));
    breaker.disable();
    assert!(breaker.open_until(passed).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_open_time_is_over_when_exactly_it_has_passed_scenario_4_differs() {
    let breaker = setup_r().build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    assert!(breaker.try_acquire().is_err());
    advance(secs(3)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.statistics().rejected, 2);
    advance(secs(2)).await;
    assert_eq!(breaker.admits(), Admits::Probe);
    assert_eq!(breaker.state(), CircuitState::Open, "nobody has asked yet");
    let _probe = permit(&breaker);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_operator_opens_it_for_a_time_or_until_a_time_scenarios_5_and_6() {
    for (until, wait, before) in [(false, secs(7200), vec![0, 3600]), (true, secs(1800), vec![0, 900])] {
        let breaker = setup_r().build_handle().unwrap();
        match until {
            false => breaker.open_for(wait).unwrap(),
            true => breaker.open_until(Instant::now() + wait).unwrap(),
        }
        for at in before {
            advance(secs(at)).await;
            assert!(breaker.try_acquire().is_err());
        }
        assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(wait / 2));
        advance(wait / 2).await;
        assert!(breaker.try_acquire().is_ok());
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_tell_the_remaining_wait_scenario_19() {
    let (breaker, log) = watched(
        builder()
            .window(Window::Time { length: secs(10) })
            .minimum_calls(10)
            .open_time(OpenTime::Constant(secs(1)))
            .probes(1),
    );
    let retry_after = || breaker.try_acquire().unwrap_err().retry_after();
    run(&breaker, "FFFFFFFFFF");
    assert_eq!(retry_after(), Some(secs(1)));
    advance(millis(500)).await;
    assert_eq!(retry_after(), Some(millis(500)));
    advance(millis(500)).await;
    run(&breaker, "F");
    assert_eq!(retry_after(), Some(secs(1)));
    advance(secs(1)).await;
    run(&breaker, "S");
    use CircuitState::{Closed, HalfOpen, Open};
    assert_eq!(entered(&log), [Open, HalfOpen, Open, HalfOpen, Closed]);
}

#[tokio::test(start_paused = true)]
async fn openings_are_counted_until_it_closes_scenario_20() {
    let breaker = consecutive(1).open_time(OpenTime::Constant(secs(1))).probes(1).build_handle().unwrap();
    for rounds in [5, 3] {
        let mut opens = Vec::new();
        for _ in 0..rounds {
            run(&breaker, "F");
            opens.push(breaker.statistics().consecutive_opens);
            advance(secs(1)).await;
        }
        assert_eq!(opens, (1..=rounds).collect::<Vec<_>>());
        run(&breaker, "S");
        assert_eq!(breaker.statistics().consecutive_opens, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_open_time_scenario_21() {
    let breaker = consecutive(1).open_time(OpenTime::Constant(secs(42 * 60))).build_handle().unwrap();
    run(&breaker, "F");
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(42 * 60)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_end_of_time_does_not_overflow_scenario_22() {
    let breaker = consecutive(1).open_time(OpenTime::Constant(Duration::MAX)).build_handle().unwrap();
    run(&breaker, "F");
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!((refusal.state(), refusal.retry_after()), (CircuitState::Open, None));
    advance(secs(1_000_000)).await;
    assert_eq!(breaker.admits(), Admits::Nothing { retry_after: None });
}

#[tokio::test(start_paused = true)]
async fn the_cause_is_in_the_refusal_scenario_24() {
    let breaker = consecutive(1).build_handle().unwrap();
    permit(&breaker).record(Outcome::Permanent);
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!(refusal.cause(), Some(Outcome::Permanent));

    let by_hand = consecutive(1).build_handle().unwrap();
    by_hand.transition_to(CircuitState::Open).unwrap();
    assert_eq!(by_hand.try_acquire().unwrap_err().cause(), None);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_comes_while_open_changes_nothing_scenario_25() {
    let (breaker, log) = watched(consecutive(1));
    let (late_failure, late_success) = (permit(&breaker), permit(&breaker));
    run(&breaker, "F");
    late_failure.record(Outcome::Transient);
    assert_eq!(entered(&log), [CircuitState::Open]);
    breaker.force_open();
    late_success.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::ForcedOpen);
    let now = breaker.statistics();
    assert_eq!((now.failures, now.successes), (2, 1), "both are in the accounts all the same");
}

#[tokio::test(start_paused = true)]
async fn the_remaining_wait_shrinks_to_nothing_scenario_31() {
    let breaker = consecutive(1).open_time(OpenTime::Constant(millis(100))).build_handle().unwrap();
    assert_eq!(breaker.statistics().retry_after, None);
    run(&breaker, "F");
    assert_eq!(breaker.statistics().retry_after, Some(millis(100)));
    advance(millis(30)).await;
    assert_eq!(breaker.statistics().retry_after, Some(millis(70)));
    advance(millis(80)).await;
    assert_eq!(breaker.statistics().retry_after, None);
    assert!(breaker.try_acquire().is_ok());
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn six_in_a_row_and_the_last_millisecond_scenario_32() {
    let breaker = consecutive(6).open_time(OpenTime::Constant(secs(60))).probes(1).build_handle().unwrap();
    run(&breaker, "FFFFF");
    assert_eq!(breaker.statistics().consecutive_failures, 5);
    run(&breaker, "S");
    assert_eq!(breaker.statistics().consecutive_failures, 0);
    run(&breaker, "FFFFFF");
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(breaker.statistics().consecutive_failures, 0);
    advance(secs(60) - millis(1)).await;
    assert!(breaker.try_acquire().is_err());
    advance(millis(1)).await;
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
    advance(secs(60)).await;
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_for_the_whole_time_again_scenario_36() {
    let breaker = builder()
        .window(Window::Time { length: secs(20) })
        .minimum_calls(1)
        .failure_rate(0.2)
        .open_time(OpenTime::Constant(secs(10)))
        .probes(1)
        .build_handle()
        .unwrap();
    run(&breaker, "SF");
    assert!(breaker.try_acquire().is_err());
    advance(secs(5)).await;
    assert!(breaker.try_acquire().is_err());
    advance(secs(5)).await;
    run(&breaker, "F");
    assert!(breaker.try_acquire().is_err());
    advance(secs(5)).await;
    assert!(breaker.try_acquire().is_err());
    advance(secs(5)).await;
    run(&breaker, "S");
    run(&breaker, "SSSSSSF");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn open_times_double_to_their_maximum_and_start_anew_after_a_close_r13() {
    let open_time = OpenTime::Exponential { initial: secs(1), factor: 2.0, max: secs(60), jitter: Jitter::None };
    let breaker = consecutive(1).open_time(open_time).probes(1).build_handle().unwrap();
    let mut waits = Vec::new();
    for _ in 0..8 {
        run(&breaker, "F");
        let wait = breaker.try_acquire().unwrap_err().retry_after().unwrap();
        waits.push(wait.as_secs());
        advance(wait).await;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    run(&breaker, "SF");
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(1)));
}

/// The waits of eight openings in a row.
async fn jittered_waits(seed: Option<u64>, jitter: Jitter) -> Vec<Duration> {
    let open_time = OpenTime::Exponential { initial: secs(1), factor: 2.0, max: secs(60), jitter };
    let builder = consecutive(1).open_time(open_time).probes(1);
    let breaker = match seed {
        Some(seed) => builder.seed(seed),
        None => builder,
    };
    let breaker = breaker.build_handle().unwrap();
    let mut waits = Vec::new();
    for _ in 0..8 {
        run(&breaker, "F");
        let wait = breaker.try_acquire().unwrap_err().retry_after().unwrap();
        waits.push(wait);
        advance(wait).await;
    }
    waits
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_the_open_times_and_their_maximum_holds_r13() {
    let equal = jittered_waits(Some(1), Jitter::Equal).await;
    for (wait, full) in equal.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        assert!(secs(full) / 2 <= *wait && *wait <= secs(full), "{wait:?} of {full} s");
    }
    assert_eq!(equal, jittered_waits(Some(1), Jitter::Equal).await, "the same seed, the same waits");
    assert_ne!(equal, jittered_waits(Some(2), Jitter::Equal).await);
    assert_ne!(jittered_waits(None, Jitter::Equal).await, jittered_waits(None, Jitter::Equal).await);
    let around = jittered_waits(Some(3), Jitter::Proportional(1.0)).await;
    assert!(around.iter().all(|wait| *wait <= secs(60)), "{around:?}");
    assert!(around.iter().zip([1, 2, 4, 8, 16, 32]).any(|(wait, full)| *wait > secs(full)), "{around:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_carries_name_and_remaining_time_r18() {
    let breaker = consecutive(1).build_handle().unwrap();
    run(&breaker, "F");
    let rejected = Rejected::from(breaker.try_acquire().unwrap_err());
    assert_eq!(rejected.to_string(), "circuit `test` is open: the next probe is due in 5s");
    assert!(!rejected.was_sent());
}

#[tokio::test(start_paused = true)]
async fn an_open_time_of_zero_makes_the_next_call_a_probe() {
    let breaker = consecutive(1).open_time(OpenTime::Constant(Duration::ZERO)).build_handle().unwrap();
    run(&breaker, "F");
    assert_eq!(breaker.admits(), Admits::Probe);
    assert!(permit(&breaker).is_probe());
}
