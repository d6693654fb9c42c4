//! Every call is counted exactly once, by one thread or many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use mainstay::circuit_breaker::{CircuitBreakerHandle, OpenTime, SlowCalls, Window};
use mainstay::{CircuitState, Outcome};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn calls_are_the_sum_of_what_became_of_them() {
    let breaker = counting(100, 100, 0.5).build_handle().unwrap();
    run(&breaker, "SSSRRDFFFFIITTTAA");
    breaker.force_open();
    (0..6).for_each(|_| drop(breaker.try_acquire()));
    let now = breaker.statistics();
    assert_eq!((now.successes, now.refused, now.failures), (3, 3, 4));
    assert_eq!((now.ignored, now.rejected, now.abandoned), (5, 6, 2));
    assert_eq!(now.calls(), 23);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_said_to_have_failed_has_failed_whatever_the_outcome() {
    let breaker = consecutive(100).build_handle().unwrap();
    let outcomes = [
        Outcome::Success,
        Outcome::Refused,
        Outcome::Transient,
        Outcome::NotSent,
        Outcome::Permanent,
        Outcome::throttled(secs(9)),
        Outcome::DependencyFailed,
        Outcome::Ignored,
    ];
    for (before, outcome) in outcomes.into_iter().enumerate() {
        permit(&breaker).failure(outcome);
        let now = breaker.statistics();
        assert_eq!((now.failures, now.consecutive_failures as usize), (before as u64 + 1, before + 1), "{outcome:?}");
    }
    permit(&breaker).success();
    let now = breaker.statistics();
    assert_eq!((now.successes, now.failures, now.consecutive_failures, now.calls()), (1, 8, 0, 9));

    let opened = consecutive(1).build_handle().unwrap();
    permit(&opened).failure(Outcome::Refused);
    assert_eq!(opened.try_acquire().unwrap_err().cause(), Some(Outcome::Refused), "as it was told");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_another_time_is_counted_once_and_changes_nothing() {
    let breaker = consecutive(1).build_handle().unwrap();
    let stragglers: Vec<_> = (0..6).map(|_| permit(&breaker)).collect();
    run(&breaker, "F");
    let verdicts = [
        Outcome::Success,
        Outcome::Refused,
        Outcome::Transient,
        Outcome::Permanent,
        Outcome::Ignored,
        Outcome::Success,
    ];
    stragglers.into_iter().zip(verdicts).for_each(|(permit, verdict)| permit.record(verdict));
    let now = breaker.statistics();
    assert_eq!((now.successes, now.refused, now.failures, now.ignored), (2, 1, 3, 1));
    assert_eq!((now.state, now.consecutive_opens), (CircuitState::Open, 1));
}

/// Hammers a breaker, and returns how many calls were made.
fn hammer(breaker: &CircuitBreakerHandle, calls: u64, operate: bool) -> [u64; 6] {
    const THREADS: u64 = 4;
    let sums: [AtomicU64; 6] = Default::default();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let sums = &sums;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for call in 0..calls {
                        // A mix without a pattern, the same in each run.
                        let draw = (call * THREADS + worker).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                        let Ok(permit) = breaker.try_acquire() else {
                            sums[4].fetch_add(1, Relaxed);
                            continue;
                        };
                        let (end, outcome) = match draw % 16 {
                            0 => (1, Outcome::Refused),
                            1 => (1, Outcome::DependencyFailed),
                            2..5 => (2, Outcome::Transient),
                            5 => (2, Outcome::Permanent),
                            6 => (3, Outcome::Ignored),
                            7 => (3, Outcome::Throttled { retry_after: None }),
                            _ => (0, Outcome::Success),
                        };
                        match draw % 11 {
                            0 => {
                                drop(permit);
                                sums[5].fetch_add(1, Relaxed);
                            }
                            // Verdicts that come late, when the state has long moved on.
                            1 => {
                                held.push((permit, outcome));
                                sums[end].fetch_add(1, Relaxed);
                            }
                            _ => {
                                permit.record(outcome);
                                sums[end].fetch_add(1, Relaxed);
                            }
                        }
                        if held.len() > 64 {
                            held.drain(..).for_each(|(permit, outcome)| permit.record(outcome));
                        }
                    }
                    held.drain(..).for_each(|(permit, outcome)| permit.record(outcome));
                })
            })
            .collect();
        if operate {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    breaker.observe();
                    breaker.force_open();
                    let _ = breaker.transition_to(CircuitState::HalfOpen);
                    breaker.close();
                    breaker.reset();
                    let _ = breaker.statistics();
                }
            });
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Relaxed);
    });
    sums.map(AtomicU64::into_inner)
}

fn assert_accounts(breaker: &CircuitBreakerHandle, sums: [u64; 6], made: u64) {
    let now = breaker.statistics();
    let counted = [now.successes, now.refused, now.failures, now.ignored, now.rejected, now.abandoned];
    assert_eq!(counted, sums);
    assert_eq!(now.calls(), made);
    assert_eq!(now.probes_in_flight, 0);
}

#[test]
fn the_accounts_are_exact_under_four_threads() {
    let slow = SlowCalls { longer_than: secs(1), rate: 1.0 };
    for builder in [
        counting(100, 20, 0.5),
        counting(64, 1, 1.0).slow_calls(slow),
        builder().window(Window::Time { length: millis(10) }).failure_rate(0.4),
        consecutive(3).open_time(OpenTime::Constant(secs(0))),
    ] {
        for operate in [false, true] {
            let breaker = builder_clone(&builder).open_time(OpenTime::Constant(millis(0))).build_handle().unwrap();
            let sums = hammer(&breaker, 20_000, operate);
            assert_accounts(&breaker, sums, 80_000);
        }
    }
}

/// Builders are not `Clone`, settings are.
fn builder_clone(builder: &Builder) -> Builder {
    CircuitBreakerHandle::builder("test").config(builder.settings().clone())
}

#[test]
fn successes_of_many_threads_are_all_in_a_time_window() {
    let breaker = builder().window(Window::Time { length: secs(3600) }).build_handle().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50_000).for_each(|_| permit(&breaker).record(Outcome::Success)));
        }
        // Looking takes the lock, and folds what was counted beside it.
        scope.spawn(|| (0..500).for_each(|_| assert!(breaker.statistics().failures == 0)));
    });
    assert_eq!(breaker.statistics().window_calls, 200_000);
}

#[test]
fn no_failure_is_lost_or_doubled_in_a_window() {
    let breaker = counting(65_536, 65_536, 1.0).build_handle().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| run(&breaker, "SFSS")));
        }
    });
    let now = breaker.statistics();
    assert_eq!((now.window_calls, now.window_failures), (16_000, 4_000));
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn one_gauge_is_up_at_a_time_and_counters_tell_what_the_statistics_tell() {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let breaker = consecutive(2).build_handle().unwrap();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut look = || {
        let mut up = Vec::new();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
            assert_eq!(labels[0], "test");
            match value {
                DebugValue::Gauge(level) if level.0 > 0.0 => up.push(labels[1].to_owned()),
                // A snapshot takes what was counted since the last.
                DebugValue::Counter(count) => {
                    *counts.entry(format!("{} {}", key.key().name(), labels[1])).or_default() += count;
                }
                _ => {}
            }
        }
        assert_eq!(up, [breaker.state().as_str()]);
    };
    look();
    run(&breaker, "SRF");
    breaker.observe();
    look();
    breaker.close();
    run(&breaker, "AFF");
    look();
    assert!(breaker.try_acquire().is_err());
    advance(secs(5)).await;
    run(&breaker, "S");
    look();
    counts.retain(|_, count| *count > 0);
    let calls = |end: &str| format!("mainstay_circuit_breaker_calls_total {end}");
    let entered = |state: &str| format!("mainstay_circuit_breaker_transitions_total {state}");
    let expected = [
        (calls("success"), 2),
        (calls("refused"), 1),
        (calls("failure"), 3),
        (calls("rejected"), 1),
        (calls("abandoned"), 1),
        (entered("observing"), 1),
        (entered("closed"), 1),
        (entered("open"), 1),
        (entered("half_open"), 1),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
}

/// There a call that began in an interval that is over is ignored; here the window holds what ended within it, and only what a
/// transition or a reset has come in between of is.
#[tokio::test(start_paused = true)]
async fn a_late_success_counts_when_it_ends_and_one_from_before_a_reset_does_not_scenario_34_differs() {
    let breaker = builder().window(Window::Time { length: secs(10) }).build_handle().unwrap();
    let late = permit(&breaker);
    run(&breaker, "F");
    advance(secs(11)).await;
    late.record(Outcome::Success);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (1, 0));
    let straggler = permit(&breaker);
    breaker.reset();
    straggler.record(Outcome::Success);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().successes), (0, 2));
}
