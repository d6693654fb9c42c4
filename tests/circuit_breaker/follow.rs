//! Leaving the open state without a call: by a timer, or because a health check passed.

use std::time::Duration;

use mainstay::circuit_breaker::{CircuitBreakerHandle, OpenTime, TransitionReason};
use mainstay::{CircuitState, Outcome};
use tokio_test::{assert_pending, assert_ready, task};

use crate::support::*;

use CircuitState::{Closed, Disabled, ForcedOpen, HalfOpen, Observing, Open};

/// Trips on the first failure, for `open` seconds; one probe.
fn opens_for(open: u64) -> Builder {
    consecutive(1).open_time(OpenTime::Constant(secs(open))).probes(1)
}

#[tokio::test(start_paused = true)]
async fn a_timer_makes_it_half_open_without_a_call_and_leaving_otherwise_cancels_it_scenario_17() {
    let (breaker, log) = watched(opens_for(2));
    let mut follow = task::spawn(breaker.follow_open_time());
    assert_pending!(follow.poll());
    run(&breaker, "F");
    assert!(follow.is_woken());
    assert_pending!(follow.poll());
    advance(secs(2) - millis(1)).await;
    assert!(!follow.is_woken());
    advance(millis(1)).await;
    assert!(follow.is_woken());
    assert_pending!(follow.poll());
    assert_eq!(entered(&log), [Open, HalfOpen]);
    assert_eq!(log.lock().unwrap()[1].reason, TransitionReason::OpenTimeOver);
    assert_eq!(breaker.statistics().probes_in_flight, 0, "no slot is taken");

    // Each opening arms it anew.
    run(&breaker, "F");
    assert_pending!(follow.poll());
    breaker.force_open();
    assert_pending!(follow.poll());
    advance(secs(1000)).await;
    assert!(!follow.is_woken(), "there is no timer any more");
    assert_eq!(breaker.state(), ForcedOpen);
}

#[tokio::test(start_paused = true)]
async fn it_follows_a_wait_that_is_replaced_either_way() {
    let breaker = opens_for(10).build_handle().unwrap();
    let follow = tokio::spawn(breaker.follow_open_time());
    let at = async |by: Duration| {
        advance(by).await;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        breaker.state()
    };
    run(&breaker, "F");
    assert_eq!(at(secs(5)).await, Open);
    breaker.open_for(secs(20)).unwrap();
    assert_eq!(at(secs(20) - millis(1)).await, Open);
    breaker.open_for(secs(1)).unwrap();
    assert_eq!(at(secs(1) - millis(1)).await, Open);
    assert_eq!(at(millis(1)).await, HalfOpen);
    breaker.open_for(Duration::MAX).unwrap();
    assert_eq!(at(secs(1_000_000)).await, Open, "beyond the end of time");
    follow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_built_open_is_followed_too() {
    let breaker = opens_for(3).initial_state(Open).build_handle().unwrap();
    tokio::spawn(breaker.follow_open_time());
    tokio::time::sleep(secs(3)).await;
    tokio::task::yield_now().await;
    assert_eq!(breaker.state(), HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn dropped_it_leaves_the_change_to_the_next_call() {
    let breaker = opens_for(2).build_handle().unwrap();
    let mut follow = task::spawn(breaker.follow_open_time());
    run(&breaker, "F");
    assert_pending!(follow.poll());
    drop(follow);
    advance(secs(2)).await;
    assert_eq!(breaker.state(), Open);
    assert!(permit(&breaker).is_probe());
}

#[tokio::test(start_paused = true)]
async fn it_keeps_no_breaker_alive_and_ends_with_it() {
    let breaker = opens_for(2).build_handle().unwrap();
    let mut follow = task::spawn(breaker.follow_open_time());
    run(&breaker, "F");
    assert_pending!(follow.poll());
    drop(breaker);
    assert!(follow.is_woken());
    assert_ready!(follow.poll());
}

#[test]
fn it_is_built_and_dropped_outside_a_runtime() {
    let breaker = opens_for(2).build_handle().unwrap();
    run(&breaker, "F");
    drop(breaker.follow_open_time());
    drop(task::spawn(breaker.follow_open_time()));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_passed_makes_an_open_circuit_half_open_and_nothing_else() {
    for state in [Closed, ForcedOpen, Disabled, Observing] {
        let (breaker, log) = watched(opens_for(10).initial_state(state));
        assert!(!breaker.health_check_passed());
        assert_eq!((breaker.state(), entered(&log)), (state, vec![]));
    }
    let (breaker, log) = watched(opens_for(10));
    run(&breaker, "F");
    assert!(breaker.health_check_passed());
    assert!(!breaker.health_check_passed(), "it is half-open");
    let change = log.lock().unwrap()[1];
    assert_eq!((change.from, change.to, change.reason), (Open, HalfOpen, TransitionReason::HealthCheckPassed));
    assert_eq!((change.reason.as_str(), change.failures), ("health_check_passed", 0));
    // The call decides, and the next opening counts as one more in a row.
    run(&breaker, "F");
    assert_eq!((breaker.state(), breaker.statistics().consecutive_opens), (Open, 2));
    assert!(breaker.health_check_passed());
    permit(&breaker).record(Outcome::Success);
    assert_eq!(breaker.state(), Closed);
}

#[cfg(feature = "health")]
mod health {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use mainstay::health::{Monitor, MonitorConfig};

    use super::*;

    struct Target {
        monitor: Monitor<&'static str>,
        up: Arc<AtomicBool>,
    }

    /// Checked each second; one result is enough either way.
    fn target(up: bool) -> Target {
        let mut config = MonitorConfig::default();
        (config.interval, config.rise, config.fall, config.jitter) = (secs(1), 1, 1, 0.0);
        let monitor = Monitor::builder("test").config(config).build().unwrap();
        let up = Arc::new(AtomicBool::new(up));
        for key in ["db", "other"] {
            let up = up.clone();
            monitor.add(key, move || {
                // The other one is always well.
                let ok = key == "other" || up.load(Relaxed);
                async move { if ok { Ok(()) } else { Err(io::Error::other("down")) } }
            });
        }
        monitor.start().unwrap();
        Target { monitor, up }
    }

    async fn later(seconds: u64) {
        tokio::time::sleep(secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_pass_again_make_it_half_open_early_and_failing_ones_shorten_nothing() {
        let Target { monitor, up } = target(false);
        let breaker = opens_for(60).build_handle().unwrap();
        tokio::spawn(breaker.follow_health(monitor.subscribe(), "db"));
        run(&breaker, "F");
        later(30).await;
        assert_eq!(breaker.state(), Open, "the other target's checks pass, its own do not");
        up.store(true, Relaxed);
        later(3).await;
        assert_eq!(breaker.state(), HalfOpen);
        later(30).await;
        assert_eq!(breaker.state(), HalfOpen, "checks never close it");
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_go_on_passing_while_calls_fail_shorten_nothing() {
        let Target { monitor, up } = target(true);
        later(3).await;
        let breaker = opens_for(60).build_handle().unwrap();
        run(&breaker, "F");
        tokio::spawn(breaker.follow_health(monitor.subscribe(), "db"));
        later(30).await;
        assert_eq!(breaker.state(), Open, "it was known to be well when it opened");
        up.store(false, Relaxed);
        later(3).await;
        assert_eq!(breaker.state(), Open);
        up.store(true, Relaxed);
        later(3).await;
        assert_eq!(breaker.state(), HalfOpen, "that is news");
    }

    #[tokio::test(start_paused = true)]
    async fn a_forced_circuit_is_not_touched() {
        let Target { monitor, up } = target(false);
        let breaker = opens_for(60).initial_state(ForcedOpen).build_handle().unwrap();
        tokio::spawn(breaker.follow_health(monitor.subscribe(), "db"));
        later(3).await;
        up.store(true, Relaxed);
        later(3).await;
        assert_eq!(breaker.state(), ForcedOpen);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_breaker_or_the_monitor() {
        let Target { monitor, .. } = target(true);
        let breaker: CircuitBreakerHandle = opens_for(60).build_handle().unwrap();
        let mut follow = task::spawn(breaker.follow_health(monitor.subscribe(), "db"));
        assert_pending!(follow.poll());
        drop(breaker);
        assert!(follow.is_woken());
        assert_ready!(follow.poll());

        let breaker = opens_for(60).build_handle().unwrap();
        let mut follow = task::spawn(breaker.follow_health(monitor.subscribe(), "db"));
        assert_pending!(follow.poll());
        drop(monitor);
        // Its tasks are gone then.
        later(1).await;
        assert!(follow.is_woken());
        assert_ready!(follow.poll());
    }
}
