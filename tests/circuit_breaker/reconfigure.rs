//! Other settings for a breaker that is running.

use std::thread;
use std::time::Duration;

use mainstay::circuit_breaker::{
    CircuitBreakerConfig, CircuitBreakerHandle, FailuresPerPeriod, OpenTime, ProbeRule, Ramp, SlowCalls,
    TripStatistics, Window,
};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

/// Changes the settings, which must be good ones.
#[track_caller]
fn change(breaker: &CircuitBreakerHandle, change: impl FnOnce(&mut CircuitBreakerConfig)) {
    let mut config = breaker.config();
    change(&mut config);
    breaker.reconfigure(config.clone()).unwrap();
    assert_eq!(breaker.config(), config);
}

/// Calls in the window, those of them that failed, and those that were slow.
fn window(breaker: &CircuitBreakerHandle) -> (u64, u64, u64) {
    let now = breaker.statistics();
    (now.window_calls, now.window_failures, now.window_slow_calls)
}

fn slow(longer_than: Duration) -> Option<SlowCalls> {
    Some(SlowCalls { longer_than, rate: 1.0 })
}

#[tokio::test(start_paused = true)]
async fn a_count_window_keeps_the_newest_calls_in_their_order_sliding_window_scenario_9() {
    let breaker = counting(5, 5, 1.0).build_handle().unwrap();
    run(&breaker, "SSFFF");
    change(&breaker, |it| it.window = Window::Count { calls: 6 });
    assert_eq!(window(&breaker), (5, 3, 0));
    run(&breaker, "SSSS");
    assert_eq!(window(&breaker), (6, 2, 0), "the successes left first");

    let breaker = counting(10, 4, 1.0).build_handle().unwrap();
    run(&breaker, "SSSSSSSSSSFSFF");
    change(&breaker, |it| it.window = Window::Count { calls: 4 });
    assert_eq!(window(&breaker), (4, 3, 0));
    run(&breaker, "SS");
    assert_eq!(window(&breaker), (4, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_time_window_keeps_what_is_young_enough() {
    let breaker = builder().window(Window::Time { length: secs(100) }).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(85)).await;
    run(&breaker, "FS");
    change(&breaker, |it| it.window = Window::Time { length: secs(20) });
    assert_eq!(window(&breaker), (2, 1, 0));
    change(&breaker, |it| it.window = Window::Time { length: secs(600) });
    advance(secs(300)).await;
    run(&breaker, "S");
    assert_eq!(window(&breaker), (3, 1, 0), "and what is gone does not come back");
}

#[tokio::test(start_paused = true)]
async fn a_window_of_the_other_kind_begins_empty() {
    let breaker = counting(10, 2, 1.0).build_handle().unwrap();
    run(&breaker, "SF");
    change(&breaker, |it| it.window = Window::Time { length: secs(10) });
    assert_eq!(window(&breaker), (0, 0, 0));
    run(&breaker, "SSSF");
    assert_eq!(window(&breaker), (4, 1, 0));
    change(&breaker, |it| it.window = Window::Count { calls: 10 });
    assert_eq!(window(&breaker), (0, 0, 0));
    run(&breaker, "S");
    assert_eq!(window(&breaker), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_and_per_period_are_kept() {
    let period = |failures, seconds| Some(FailuresPerPeriod { failures, period: secs(seconds) });
    let breaker = consecutive(9).failures_per_period(period(9, 100)).build_handle().unwrap();
    run(&breaker, "FF");
    advance(secs(50)).await;
    run(&breaker, "F");
    change(&breaker, |it| it.failures_per_period = period(9, 30));
    let now = breaker.statistics();
    assert_eq!((now.consecutive_failures, now.period_failures), (3, 1));
    change(&breaker, |it| it.consecutive_failures = Some(3));
    assert_eq!(breaker.state(), CircuitState::Closed, "nothing trips in the moment itself");
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn running_calls_and_probes_keep_their_say() {
    let breaker = consecutive(9).open_time(OpenTime::Constant(secs(5))).probes(2).build_handle().unwrap();
    let call = permit(&breaker);
    change(&breaker, |it| {
        it.consecutive_failures = Some(1);
        it.probe_rule = ProbeRule::FirstFailure;
    });
    call.record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::Open);

    advance(secs(5)).await;
    let first = permit(&breaker);
    let second = permit(&breaker);
    change(&breaker, |it| {
        it.probes = 1;
        it.probe_rule = ProbeRule::Rate;
    });
    assert!(breaker.try_acquire().is_err());
    first.record(Outcome::Success);
    assert_eq!(breaker.state(), CircuitState::HalfOpen, "two were sent, two are waited for");
    second.record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::Open);
    advance(secs(5)).await;
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed, "one from now on");
}

#[tokio::test(start_paused = true)]
async fn the_deadlines_of_a_half_open_time_are_new_at_once() {
    let breaker = consecutive(1).probes(1).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(5)).await;
    let _hung = permit(&breaker);
    change(&breaker, |it| it.probe_deadline = secs(2));
    advance(secs(2) - millis(1)).await;
    assert!(breaker.try_acquire().is_err());
    advance(millis(1)).await;
    let _hung_too = permit(&breaker);
    change(&breaker, |it| it.half_open_max = Some(secs(3)));
    advance(secs(1) - millis(1)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    advance(millis(1)).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_ramp_goes_on_by_its_new_steps() {
    let ramp = |shares: &[f64]| Some(Ramp { shares: shares.to_vec(), step: secs(5) });
    let breaker = consecutive(1).probes(1).ramp(ramp(&[0.1, 0.5])).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(5)).await;
    run(&breaker, "S");
    assert_eq!(breaker.statistics().ramp_share, Some(0.1));
    change(&breaker, |it| it.ramp = ramp(&[0.2, 0.4, 0.6]));
    assert_eq!(breaker.statistics().ramp_share, Some(0.2));
    let admitted = (0..10).filter(|_| breaker.try_acquire().is_ok()).count();
    assert_eq!(admitted, 2);
    change(&breaker, |it| it.ramp = None);
    run(&breaker, "S");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_keeps_its_wait_and_the_next_opening_has_the_new_one() {
    let breaker = consecutive(1).probes(1).build_handle().unwrap();
    run(&breaker, "F");
    advance(secs(2)).await;
    change(&breaker, |it| it.open_time = OpenTime::Constant(secs(60)));
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(3)));
    assert_eq!(breaker.statistics().consecutive_opens, 1);
    advance(secs(3)).await;
    run(&breaker, "F");
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(60)));
    assert_eq!(breaker.statistics().consecutive_opens, 2);
}

#[tokio::test(start_paused = true)]
async fn a_bad_setting_is_named_and_changes_nothing() {
    let breaker = counting(10, 4, 0.5).build_handle().unwrap();
    run(&breaker, "SF");
    let before = breaker.config();
    let mut bad = before.clone();
    bad.consecutive_failures = Some(1);
    bad.minimum_calls = 11;
    assert_eq!(breaker.reconfigure(bad).unwrap_err().field(), "minimum_calls");
    assert_eq!((breaker.config(), window(&breaker)), (before, (2, 1, 0)));
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_trip_of_ones_own_stays_and_needs_no_other_rule() {
    let own = |seen: &TripStatistics, _: Outcome| seen.failures >= 2;
    let breaker = builder().trip(own).build_handle().unwrap();
    change(&breaker, |it| it.failure_rate = None);
    run(&breaker, "FSF");
    assert_eq!(breaker.state(), CircuitState::Open);

    let breaker = consecutive(1).build_handle().unwrap();
    let mut config = breaker.config();
    config.consecutive_failures = None;
    assert_eq!(breaker.reconfigure(config).unwrap_err().field(), "failure_rate");
}

#[tokio::test(start_paused = true)]
async fn what_verdicts_are_taken_for_can_be_changed() {
    let breaker = consecutive(9).build_handle().unwrap();
    run(&breaker, "AT");
    assert_eq!(breaker.statistics().consecutive_failures, 0);
    change(&breaker, |it| {
        it.abandoned_is_failure = true;
        it.throttled_is_failure = true;
    });
    run(&breaker, "AT");
    assert_eq!(breaker.statistics().consecutive_failures, 2);
    change(&breaker, |it| it.throttled_opens = Some(secs(60)));
    permit(&breaker).record(Outcome::throttled(secs(20)));
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(20)));
}

#[tokio::test(start_paused = true)]
async fn calls_are_timed_from_the_change_on() {
    let breaker = counting(10, 10, 1.0).build_handle().unwrap();
    advance(secs(100)).await;
    let untimed = permit(&breaker);
    change(&breaker, |it| it.slow_calls = slow(secs(1)));
    advance(secs(2)).await;
    untimed.record(Outcome::Success);
    assert_eq!(window(&breaker), (1, 0, 0), "nobody knows when it began");
    slowly(&breaker, secs(2), Outcome::Success).await;
    assert_eq!(window(&breaker), (2, 0, 1));
    change(&breaker, |it| it.slow_calls = slow(secs(3)));
    slowly(&breaker, secs(2), Outcome::Success).await;
    assert_eq!(window(&breaker), (3, 0, 1));
    change(&breaker, |it| it.slow_calls = None);
    slowly(&breaker, secs(20), Outcome::Success).await;
    assert_eq!(window(&breaker), (4, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn who_was_counted_while_running_stays_counted_once_whatever_becomes_of_the_watch() {
    let watch: [fn(&mut CircuitBreakerConfig); 4] = [
        |it| it.slow_calls = slow(secs(80)),
        |it| it.slow_calls = slow(millis(80)),
        |it| it.watch_in_flight = false,
        |it| (it.watch_in_flight, it.slow_calls) = (false, None),
    ];
    for (first, second) in watch.iter().flat_map(|first| watch.iter().map(move |second| (first, second))) {
        let builder = counting(10, 10, 1.0).slow_calls(slow(secs(8))).watch_in_flight(true);
        let breaker = builder.build_handle().unwrap();
        let counted = permit(&breaker);
        advance(secs(9)).await;
        let uncounted = permit(&breaker);
        assert_eq!(window(&breaker), (1, 0, 1));
        change(&breaker, first);
        let between = permit(&breaker);
        change(&breaker, second);
        let last = permit(&breaker);
        // On again, whatever it was.
        change(&breaker, |it| (it.watch_in_flight, it.slow_calls) = (true, slow(secs(16))));
        advance(secs(10)).await;
        counted.record(Outcome::Transient);
        assert_eq!(window(&breaker), (1, 0, 1), "it is in the window");
        for (ended, call) in [uncounted, between, last].into_iter().enumerate() {
            call.record(Outcome::Transient);
            assert_eq!(window(&breaker), (2 + ended as u64, 1 + ended as u64, 1), "as what it ends as");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_sees_the_calls_that_begin() {
    let breaker = counting(10, 10, 1.0).build_handle().unwrap();
    let _unseen = permit(&breaker);
    change(&breaker, |it| (it.watch_in_flight, it.slow_calls) = (true, slow(secs(8))));
    let _seen = (permit(&breaker), permit(&breaker));
    advance(secs(10)).await;
    run(&breaker, "S");
    assert_eq!(window(&breaker), (3, 0, 2));
    change(&breaker, |it| it.watch_in_flight = false);
    let _unseen = permit(&breaker);
    advance(secs(10)).await;
    run(&breaker, "S");
    assert_eq!(window(&breaker), (4, 0, 2));
}

/// Every window is long enough for all of the calls, and each is in it once.
#[test]
fn no_call_is_lost_or_doubled_while_the_settings_change() {
    let count = |calls| Window::Count { calls };
    let time = |hours: u64| Window::Time { length: secs(3600 * hours) };
    for windows in [[count(65_536), count(50_000)], [time(100), time(70)]] {
        let breaker = builder().window(windows[0]).minimum_calls(50_000).failure_rate(1.0).build_handle().unwrap();
        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1_500).for_each(|_| run(&breaker, "SSSSSSSF")))).collect();
            let mut turn = 0;
            while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
                turn += 1;
                change(&breaker, |it| {
                    it.window = windows[turn % 2];
                    it.slow_calls = if turn % 3 == 0 { None } else { slow(secs(turn as u64)) };
                    it.watch_in_flight = turn % 3 == 1;
                });
            }
        });
        assert_eq!(window(&breaker), (48_000, 6_000, 0), "{windows:?}");
        assert_eq!(breaker.statistics().calls(), 48_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_slow_by_the_threshold_of_before_is_counted_although_nothing_looked_since() {
    let slow_calls = SlowCalls { longer_than: secs(8), rate: 1.0 };
    let breaker = counting(10, 10, 1.0).slow_calls(slow_calls).watch_in_flight(true).build_handle().unwrap();
    let hanging = permit(&breaker);
    advance(secs(20)).await;
    change(&breaker, |it| it.slow_calls = slow(secs(100)));
    assert_eq!(window(&breaker), (1, 0, 1));
    hanging.success();
    assert_eq!(window(&breaker), (1, 0, 1), "once");
}

#[tokio::test(start_paused = true)]
async fn running_calls_stay_watched_while_the_threshold_is_the_same() {
    let slow_calls = SlowCalls { longer_than: secs(8), rate: 1.0 };
    let breaker = counting(10, 10, 1.0).slow_calls(slow_calls).watch_in_flight(true).build_handle().unwrap();
    let _hanging = permit(&breaker);
    change(&breaker, |it| it.minimum_calls = 5);
    advance(secs(10)).await;
    // The next call that asks sees it.
    run(&breaker, "I");
    assert_eq!(window(&breaker), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn successes_that_took_no_lock_keep_their_age() {
    let breaker = builder().window(Window::Time { length: secs(10) }).build_handle().unwrap();
    run(&breaker, "SSSSS");
    advance(millis(9_500)).await;
    change(&breaker, |it| it.window = Window::Time { length: secs(20) });
    assert_eq!(window(&breaker), (5, 0, 0));
    advance(millis(12_500)).await;
    assert_eq!(window(&breaker), (0, 0, 0), "22 s old");
}
