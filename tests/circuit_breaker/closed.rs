//! What opens a closed circuit, and what does not.

use mainstay::circuit_breaker::{SlowCalls, TransitionReason, Window};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn the_success_that_completes_the_minimum_can_open_it_scenario_1() {
    let (breaker, log) = watched(setup_r());
    let mut seen = Vec::new();
    for call in ["F", "F", "F", "S"] {
        run(&breaker, call);
        assert_eq!(breaker.state(), CircuitState::Closed);
        seen.push(metrics(&breaker));
    }
    assert_eq!(seen, [(None, 0, 1, 1, 0), (None, 0, 2, 2, 0), (None, 0, 3, 3, 0), (None, 1, 4, 3, 0)]);
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(metrics(&breaker), (Some(60.0), 2, 5, 3, 0));
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(log.lock().unwrap()[0].reason, TransitionReason::FailureRate);
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.statistics().rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn it_stays_closed_below_the_rate_and_opens_at_it_scenario_2() {
    let breaker = setup_r().build_handle().unwrap();
    for call in ["S", "S", "S", "F", "F"] {
        run(&breaker, call);
        advance(secs(1)).await;
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it_scenario_3() {
    let (breaker, log) = watched(setup_r());
    let mut slow = Vec::new();
    for seconds in [5, 5, 1, 1] {
        slowly(&breaker, secs(seconds), Outcome::Success).await;
        assert_eq!(breaker.state(), CircuitState::Closed);
        slow.push(breaker.statistics().window_slow_calls);
    }
    assert_eq!(slow, [1, 2, 2, 2]);
    slowly(&breaker, secs(5), Outcome::Success).await;
    assert_eq!(breaker.state(), CircuitState::Open);
    let change = log.lock().unwrap()[0];
    assert_eq!(change.reason, TransitionReason::SlowCallRate);
    assert_eq!((change.slow_calls, change.slow_call_rate()), (3, 0.6));
}

#[tokio::test(start_paused = true)]
async fn a_call_as_long_as_the_threshold_is_not_slow() {
    let breaker = setup_r().build_handle().unwrap();
    slowly(&breaker, secs(4), Outcome::Success).await;
    assert_eq!(breaker.statistics().window_slow_calls, 0);
    slowly(&breaker, secs(4) + millis(1), Outcome::Success).await;
    assert_eq!(breaker.statistics().window_slow_calls, 1);
}

#[tokio::test(start_paused = true)]
async fn minimum_and_rate_are_both_needed_scenario_18() {
    for (calls, rate, opens) in [
        ("SSSSSSSSSS", 0.1, false),
        ("SSSSSSSSSF", 0.1, true),
        ("FSSSSSSSSF", 0.1, true),
        ("SSSSSSSSSSF", 0.1, false),
        ("SSSSSSSSSSFF", 0.1, true),
        ("SSSSSSSSF", 0.1, false),
    ] {
        let breaker = counting(100, 10, rate).build_handle().unwrap();
        run(&breaker, calls);
        assert_eq!(breaker.state() == CircuitState::Open, opens, "{calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn three_of_ten_failing_calls_reach_the_callee_scenario_26() {
    let breaker =
        builder().window(Window::Time { length: secs(1) }).minimum_calls(3).failure_rate(0.1).build_handle().unwrap();
    let sent = (0..10).filter(|_| breaker.try_acquire().map(|permit| permit.record(Outcome::Transient)).is_ok());
    assert_eq!(sent.count(), 3);
    assert_eq!(breaker.statistics().rejected, 7);
}

#[tokio::test(start_paused = true)]
async fn counts_in_a_row_and_of_the_last_few_scenario_27() {
    let first = consecutive(1).build_handle().unwrap();
    run(&first, "F");
    assert_eq!(first.state(), CircuitState::Open);

    let third = consecutive(3).build_handle().unwrap();
    run(&third, "FSFF");
    assert_eq!(third.state(), CircuitState::Closed);
    run(&third, "F");
    assert_eq!(third.state(), CircuitState::Open);

    let two_of_three = counting(3, 3, 2.0 / 3.0).build_handle().unwrap();
    run(&two_of_three, "FS");
    assert_eq!(two_of_three.state(), CircuitState::Closed);
    run(&two_of_three, "F");
    assert_eq!(two_of_three.state(), CircuitState::Open);

    for alternating in [counting(4, 4, 0.75), consecutive(2)] {
        let breaker = alternating.build_handle().unwrap();
        run(&breaker, &"SF".repeat(20));
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn the_opening_carries_the_counts_that_tripped_it_scenario_30() {
    let (breaker, log) = watched(counting(2, 2, 0.5));
    run(&breaker, "SF");
    let change = log.lock().unwrap()[0];
    assert_eq!((change.calls, change.failures, change.failure_rate()), (2, 1, 0.5));
    assert_eq!(change.cause, Some(Outcome::Transient));
    assert_eq!(change.open_for, Some(secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_forty_percent_scenario_35() {
    for (calls, open) in [("SSSSFFF", true), ("SSFSF", true), ("SSFSSFSF", false)] {
        let breaker = counting(100, 1, 0.4).build_handle().unwrap();
        run(&breaker, calls);
        assert_eq!(breaker.state() == CircuitState::Open, open, "{calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn three_slow_calls_open_it_scenario_37() {
    let breaker = builder()
        .window(Window::Time { length: secs(10) })
        .failure_rate(None)
        .slow_calls(SlowCalls { longer_than: millis(10), rate: 1.0 })
        .minimum_calls(3)
        .build_handle()
        .unwrap();
    for _ in 0..3 {
        slowly(&breaker, millis(20), Outcome::Success).await;
    }
    assert!(breaker.try_acquire().is_err());
    advance(secs(1)).await;
    assert!(breaker.try_acquire().is_err());
    advance(secs(4)).await;
    assert!(breaker.try_acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_full_outage_opens_it_at_the_minimum_scenario_40() {
    let breaker =
        builder().window(Window::Time { length: secs(30) }).minimum_calls(5).failure_rate(1.0).build_handle().unwrap();
    advance(secs(30)).await;
    run(&breaker, "FFFF");
    assert_eq!(breaker.state(), CircuitState::Closed);
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_full_count_window_slides_r1() {
    for successes in [10_000, 100_000] {
        let breaker = counting(100, 100, 0.5).build_handle().unwrap();
        run(&breaker, &"S".repeat(successes));
        run(&breaker, &"F".repeat(49));
        assert_eq!(breaker.state(), CircuitState::Closed);
        run(&breaker, "F");
        assert_eq!(breaker.state(), CircuitState::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_four_opens_at_the_fourth_failure_r2() {
    let breaker = counting(4, 4, 0.5).build_handle().unwrap();
    run(&breaker, "FFFF");
    assert!(breaker.try_acquire().is_err());
}

#[tokio::test(start_paused = true)]
async fn nine_failures_are_fewer_than_ten_calls_r3() {
    let breaker = counting(100, 10, 0.5).build_handle().unwrap();
    run(&breaker, "FFFFFFFFF");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn exactly_the_rate_opens_it_r4() {
    for (failures, state) in [(49, CircuitState::Closed), (50, CircuitState::Open)] {
        let breaker = counting(100, 100, 0.5).build_handle().unwrap();
        run(&breaker, &"F".repeat(failures));
        run(&breaker, &"S".repeat(100 - failures));
        assert_eq!(breaker.state(), state, "{failures} of 100");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_time_window_is_exact_about_130_000_calls_r5() {
    let breaker = builder().window(Window::Time { length: secs(600) }).build_handle().unwrap();
    for _ in 0..130 {
        run(&breaker, &"S".repeat(1_000));
        advance(secs(4)).await;
    }
    assert_eq!(breaker.statistics().window_calls, 130_000);
    run(&breaker, "F");
    assert_eq!(breaker.statistics().window_calls, 130_001);
    assert_eq!(breaker.statistics().window_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_row_anew_r6() {
    let breaker = consecutive(5).build_handle().unwrap();
    run(&breaker, "FFFFSFFFF");
    assert_eq!(breaker.state(), CircuitState::Closed);
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_evidence_neither_counts_nor_starts_the_row_anew_r15() {
    let breaker = consecutive(3).build_handle().unwrap();
    run(&breaker, "FFITAIF");
    assert_eq!(breaker.state(), CircuitState::Open);

    let breaker = counting(4, 4, 0.5).build_handle().unwrap();
    run(&breaker, "FFFITAITA");
    assert_eq!(metrics(&breaker), (None, 0, 3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_healthy_even_when_it_is_no() {
    let breaker = counting(4, 4, 0.5).consecutive_failures(2).build_handle().unwrap();
    run(&breaker, "FRFD");
    assert_eq!(breaker.state(), CircuitState::Open, "F R F D are four calls, half of them failed");

    let breaker = consecutive(2).build_handle().unwrap();
    run(&breaker, "FRFDFR");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn throttled_is_a_failure_only_where_a_setting_says_so() {
    let breaker = consecutive(2).throttled_is_failure(true).build_handle().unwrap();
    run(&breaker, "T");
    permit(&breaker).record(Outcome::throttled(secs(7)));
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!(refusal.cause(), Some(Outcome::throttled(secs(7))));
    assert_eq!(breaker.statistics().failures, 2);
}

#[tokio::test(start_paused = true)]
async fn calls_cut_off_from_outside_are_failures_where_a_setting_says_so_r11() {
    let default = counting(50, 10, 0.5).build_handle().unwrap();
    run(&default, &"SAAA".repeat(50));
    assert_eq!(default.state(), CircuitState::Closed, "callers leave, and the callee answers");
    assert_eq!((default.statistics().abandoned, default.statistics().failure_rate), (150, Some(0.0)));

    let strict = counting(50, 10, 0.5).abandoned_is_failure(true).build_handle().unwrap();
    run(&strict, &"A".repeat(10));
    assert_eq!(strict.state(), CircuitState::Open);
    assert_eq!(strict.statistics().abandoned, 10, "they are counted as what they were");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_call_beyond_the_slow_threshold_was_slow() {
    let breaker = setup_r().consecutive_failures(3).build_handle().unwrap();
    run(&breaker, "FF");
    for seconds in [3, 4, 5] {
        let permit = permit(&breaker);
        advance(secs(seconds)).await;
        drop(permit);
    }
    let now = breaker.statistics();
    assert_eq!((now.window_calls, now.window_failures, now.window_slow_calls), (3, 2, 1));
    assert_eq!(now.consecutive_failures, 2, "neither a failure nor a healthy call");
}

#[tokio::test(start_paused = true)]
async fn a_time_window_forgets_and_counts_successes_on_all_ways_alike() {
    let breaker = builder().window(Window::Time { length: secs(10) }).minimum_calls(1).build_handle().unwrap();
    for _ in 0..25 {
        run(&breaker, "SS");
        advance(millis(500)).await;
    }
    // Ten buckets of a second: what ended before 3 s has left by 12.5 s.
    assert_eq!(breaker.statistics().window_calls, 38);
    run(&breaker, "F");
    assert_eq!(metrics(&breaker), (Some(2.56), 38, 39, 1, 0));
    run(&breaker, "S");
    assert_eq!(metrics(&breaker), (Some(2.5), 39, 40, 1, 0));
    advance(secs(10)).await;
    assert_eq!(breaker.statistics().window_calls, 0);
}
