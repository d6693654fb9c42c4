//! Monitors on a paused clock, probes against real listeners on loopback, and the report.
#![cfg(feature = "health")]

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::health::{
    CheckFailure, HealthReport, HttpProbe, Monitor, MonitorConfig, PartState, Phase, Probe, ProbeError, Role, Shutdown,
    ShutdownConfig, Subscription, TcpProbe, Verdict,
};
use mainstay::telemetry::Event;
use mainstay::{HealthStatus, InvalidConfig};
use tokio::time::{Instant, sleep};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use HealthStatus::{Healthy, Unhealthy, Unknown};

/// Answers what it is told to, and remembers when it was asked.
#[derive(Clone, Default)]
struct Script {
    inner: Arc<Mutex<(Vec<char>, Vec<Instant>)>>,
}

impl Script {
    /// `S` passes, `F` fails, `A` answers no, `P` panics, `H` hangs; the last one goes on for ever.
    fn new(checks: &str) -> Self {
        let script = Self::default();
        script.set(checks);
        script
    }

    fn set(&self, checks: &str) {
        self.inner.lock().unwrap().0 = checks.chars().rev().collect();
    }

    fn asked(&self) -> Vec<Instant> {
        self.inner.lock().unwrap().1.clone()
    }

    /// Seconds between the checks.
    fn gaps(&self) -> Vec<f64> {
        self.asked().windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

impl Probe for Script {
    async fn check(&self) -> Result<(), ProbeError> {
        let check = {
            let mut inner = self.inner.lock().unwrap();
            inner.1.push(Instant::now());
            if inner.0.len() > 1 { inner.0.pop() } else { inner.0.last().copied() }
        };
        match check {
            Some('S') => Ok(()),
            Some('A') => Err(ProbeError::answered("not serving")),
            Some('P') => panic!("the probe of the test"),
            Some('H') => pending().await,
            _ => Err(ProbeError::new("connection refused")),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Every second, no jitter, no pace but one.
fn every_second() -> mainstay::health::MonitorBuilder {
    Monitor::builder("test")
        .interval(seconds(1.0))
        .fast_interval(seconds(1.0))
        .down_interval(seconds(1.0))
        .timeout(seconds(0.5))
        .jitter(0.0)
}

fn monitor_of(checks: &str, builder: mainstay::health::MonitorBuilder) -> (Monitor<&'static str>, Script) {
    let (monitor, script) = (builder.build().unwrap(), Script::new(checks));
    monitor.add("a", script.clone());
    monitor.start().unwrap();
    (monitor, script)
}

/// The status in the middle between the checks, one by one.
async fn statuses(monitor: &Monitor<&'static str>, checks: usize) -> Vec<HealthStatus> {
    sleep(seconds(0.75)).await;
    let mut seen = Vec::new();
    for _ in 0..checks {
        seen.push(monitor.status(&"a"));
        sleep(seconds(1.0)).await;
    }
    seen
}

// === the monitor ===

/// Rule R1: failure 3, success 2.
#[tokio::test(start_paused = true)]
async fn three_failures_in_a_row_make_unhealthy_and_two_passes_healthy() {
    let (monitor, _) = monitor_of("SFFSFFFSS", every_second());
    let expected = [Healthy, Healthy, Healthy, Healthy, Healthy, Healthy, Unhealthy, Unhealthy, Healthy];
    assert_eq!(statuses(&monitor, 9).await, expected);
}

/// Rule R2, and "a panicking check freezes the last status for ever".
#[tokio::test(start_paused = true)]
async fn a_panicking_check_is_a_failure_and_the_monitor_goes_on() {
    let (monitor, script) = monitor_of("SPPPSS", every_second());
    assert_eq!(statuses(&monitor, 6).await, [Healthy, Healthy, Healthy, Unhealthy, Unhealthy, Healthy]);
    assert_eq!(monitor.statistics().panicked, 3);
    assert!(script.asked().len() >= 6);

    script.set("P");
    sleep(seconds(1.0)).await;
    let failure = monitor.target(&"a").unwrap().last_failure.unwrap();
    assert_eq!(failure, CheckFailure::Panicked("the probe of the test".into()));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_before_its_first_await_is_a_failure_too() {
    let monitor = every_second().build().unwrap();
    monitor.add("a", || -> std::future::Ready<Result<(), ProbeError>> { panic!("no future at all") });
    monitor.start().unwrap();
    sleep(seconds(0.1)).await;
    assert_eq!(monitor.status(&"a"), Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_shown_is_a_failure_too() {
    #[derive(Debug)]
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("a panic of the test, in `Display`")
        }
    }
    impl std::error::Error for Unspeakable {}

    let monitor = every_second().build().unwrap();
    assert!(monitor.add("a", || async { Err::<(), _>(mainstay::health::ProbeError::new(Unspeakable)) }));
    monitor.start().unwrap();
    sleep(seconds(3.5)).await;
    assert_eq!(monitor.status(&"a"), Unhealthy);
    assert!(monitor.statistics().panicked >= 3, "the checks go on: {:?}", monitor.statistics());
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_slow_check_is_dropped_is_a_failure_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let monitor = every_second().build().unwrap();
    monitor.add("a", || async {
        let _bomb = Bomb;
        pending::<Result<(), ProbeError>>().await
    });
    monitor.start().unwrap();
    sleep(seconds(2.7)).await;
    assert_eq!(monitor.statistics().panicked, 3);
}

/// Rule R3: 100 targets, one hangs for 2 s.
#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_delays_no_other() {
    let monitor = every_second().timeout(seconds(2.0)).build().unwrap();
    let scripts: Vec<_> = (0..100).map(|i| Script::new(if i == 0 { "H" } else { "S" })).collect();
    for (i, script) in scripts.iter().enumerate() {
        monitor.add(i, script.clone());
    }
    monitor.start().unwrap();
    sleep(seconds(10.5)).await;
    for script in &scripts[1..] {
        assert_eq!(script.gaps(), [1.0; 10]);
    }
    assert!(scripts[0].gaps().iter().all(|gap| (2.0..2.01).contains(gap)), "its checks do not overlap");
    assert_eq!(monitor.statistics().healthy, 99);
    assert_eq!(monitor.statistics().unhealthy, 1);
}

/// Rule R3: start offsets are spread by jitter, and so are the pauses.
#[tokio::test(start_paused = true)]
async fn checks_started_together_drift_apart() {
    let monitor = every_second().jitter(0.5).build().unwrap();
    let scripts: Vec<_> = (0..100).map(|_| Script::new("S")).collect();
    for (i, script) in scripts.iter().enumerate() {
        monitor.add(i, script.clone());
    }
    let started = Instant::now();
    monitor.start().unwrap();
    sleep(seconds(20.0)).await;

    let offsets: Vec<_> = scripts.iter().map(|script| (script.asked()[0] - started).as_secs_f64()).collect();
    assert!(offsets.iter().all(|offset| (0.0..=0.502).contains(offset)));
    let early = offsets.iter().filter(|offset| **offset < 0.25).count();
    assert!((20..=80).contains(&early), "{early} of 100 in the first half of the spread");
    let gaps: Vec<_> = scripts.iter().flat_map(Script::gaps).collect();
    assert!(gaps.iter().all(|gap| (0.498..=1.502).contains(gap)));
    let short = gaps.iter().filter(|gap| **gap < 1.0).count();
    assert!((gaps.len() * 2 / 5..gaps.len() * 3 / 5).contains(&short), "{short} of {}", gaps.len());
}

/// Rule R4: the consumer chooses.
#[tokio::test(start_paused = true)]
async fn before_the_first_check_a_target_is_unknown() {
    let monitor = every_second().build().unwrap();
    monitor.add("a", Script::new("S"));
    assert_eq!(monitor.status(&"a"), Unknown);
    assert!(monitor.status(&"a").is_usable(true));
    assert!(!monitor.status(&"a").is_usable(false));
    assert_eq!(monitor.subscribe().try_changed(), None);
}

/// Scenario 6: the first result decides by option.
#[tokio::test(start_paused = true)]
async fn the_first_result_decides_unless_told_otherwise() {
    let (monitor, _) = monitor_of("S", every_second());
    assert_eq!(statuses(&monitor, 1).await, [Healthy]);
    let (monitor, _) = monitor_of("F", every_second());
    assert_eq!(statuses(&monitor, 1).await, [Unhealthy]);
    let (monitor, _) = monitor_of("S", every_second().first_result_decides(false));
    assert_eq!(statuses(&monitor, 2).await, [Unknown, Healthy]);
    let (monitor, _) = monitor_of("F", every_second().first_result_decides(false));
    assert_eq!(statuses(&monitor, 3).await, [Unknown, Unknown, Unhealthy]);
}

/// Scenario 6: a failure that is not one of the network flips at once.
#[tokio::test(start_paused = true)]
async fn a_target_that_answers_no_is_unhealthy_at_once_unless_told_otherwise() {
    let (monitor, _) = monitor_of("SA", every_second());
    assert_eq!(statuses(&monitor, 2).await, [Healthy, Unhealthy]);
    let (monitor, _) = monitor_of("SA", every_second().answer_decides(false));
    assert_eq!(statuses(&monitor, 4).await, [Healthy, Healthy, Healthy, Unhealthy]);
}

/// Scenarios 6 and 8: the interval, the fast one at the edge, the down one while down.
#[tokio::test(start_paused = true)]
async fn the_interval_follows_the_state() {
    let builder = Monitor::builder("test")
        .interval(seconds(4.0))
        .fast_interval(seconds(1.0))
        .down_interval(seconds(9.0))
        .timeout(seconds(0.5))
        .jitter(0.0);
    let (_monitor, script) = monitor_of("SSFFFFSSS", builder);
    sleep(seconds(60.0)).await;
    // After S S F F F(down) F(down) S S(up) S.
    assert_eq!(script.gaps()[..9], [4.0, 4.0, 1.0, 1.0, 9.0, 9.0, 1.0, 4.0, 4.0]);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_takes_too_long_has_failed() {
    let (monitor, _) = monitor_of("SH", every_second());
    assert_eq!(statuses(&monitor, 4).await, [Healthy, Healthy, Healthy, Unhealthy]);
    let health = monitor.target(&"a").unwrap();
    assert_eq!(health.last_failure, Some(CheckFailure::TimedOut { limit: seconds(0.5) }));
    assert!(monitor.statistics().timed_out >= 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_target_says_is_cut() {
    let monitor = every_second().build().unwrap();
    monitor.add("a", || async { Err::<(), _>("x".repeat(100_000)) });
    monitor.start().unwrap();
    sleep(seconds(0.1)).await;
    let failure = monitor.target(&"a").unwrap().last_failure.unwrap();
    assert_eq!(failure.to_string().len(), 256);
}

#[tokio::test(start_paused = true)]
async fn only_changes_are_published_and_each_but_once() {
    let (monitor, script) = monitor_of("S", every_second());
    let mut changes = monitor.subscribe();
    sleep(seconds(0.5)).await;
    assert_eq!(next(&mut changes), Some(("a", Healthy)));
    sleep(seconds(5.0)).await;
    assert_eq!(next(&mut changes), None);
    script.set("F");
    sleep(seconds(5.0)).await;
    assert_eq!(next(&mut changes), Some(("a", Unhealthy)));
    assert_eq!(next(&mut changes), None);

    let mut late = monitor.subscribe();
    assert_eq!(next(&mut late), Some(("a", Unhealthy)), "whoever comes late learns what is known");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_latest_status_and_slows_nobody() {
    let (monitor, script) = monitor_of("S", every_second());
    let mut changes = monitor.subscribe();
    sleep(seconds(0.5)).await;
    script.set("F");
    sleep(seconds(5.0)).await;
    assert_eq!(next(&mut changes), Some(("a", Unhealthy)));
    assert_eq!(next(&mut changes), None);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_subscriber_is_woken_and_a_dropped_wait_loses_nothing() {
    let (monitor, script) = monitor_of("S", every_second());
    let mut changes = monitor.subscribe();
    assert_pending!(spawn(changes.changed()).poll());
    sleep(seconds(0.5)).await;
    assert_eq!(changes.changed().await.unwrap().status, Healthy);
    {
        let mut waiting = spawn(changes.changed());
        assert_pending!(waiting.poll());
        script.set("F");
        sleep(seconds(5.0)).await;
        assert!(waiting.is_woken());
        // Dropped without having been polled again.
    }
    assert_eq!(assert_ready!(spawn(changes.changed()).poll()).unwrap().status, Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn targets_come_and_go_at_run_time() {
    let (monitor, first) = monitor_of("S", every_second());
    let mut changes = monitor.subscribe();
    sleep(seconds(0.5)).await;
    assert_eq!(next(&mut changes), Some(("a", Healthy)));

    let second = Script::new("F");
    assert!(monitor.add("b", second.clone()));
    sleep(seconds(0.1)).await;
    assert_eq!(next(&mut changes), Some(("b", Unhealthy)));

    assert!(monitor.remove(&"a"));
    assert_eq!(next(&mut changes), Some(("a", Unknown)));
    assert_eq!(monitor.target(&"a"), None);
    let asked = first.asked().len();
    sleep(seconds(5.0)).await;
    assert_eq!(first.asked().len(), asked, "it is not checked any more");
    assert_eq!(monitor.targets().keys().collect::<Vec<_>>(), [&"b"]);
    assert!(!monitor.remove(&"a"));
}

#[tokio::test(start_paused = true)]
async fn a_new_probe_for_the_same_key_starts_over() {
    let (monitor, old) = monitor_of("F", every_second());
    sleep(seconds(3.5)).await;
    assert_eq!(monitor.status(&"a"), Unhealthy);
    let asked = old.asked().len();
    assert!(!monitor.add("a", Script::new("S")));
    assert_eq!(monitor.status(&"a"), Unknown);
    sleep(seconds(3.0)).await;
    assert_eq!(monitor.status(&"a"), Healthy, "what the old prober has to say is not heard");
    assert_eq!(old.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_is_dropped_ends_its_checks_and_reads_unknown() {
    let (monitor, script) = monitor_of("S", every_second());
    let clone = monitor.clone();
    let mut changes = monitor.subscribe();
    sleep(seconds(0.5)).await;
    assert_eq!(next(&mut changes), Some(("a", Healthy)));

    drop(monitor);
    sleep(seconds(3.0)).await;
    assert_eq!(clone.status(&"a"), Healthy, "a handle is left");
    assert_eq!(script.asked().len(), 4);

    drop(clone);
    assert_eq!(next(&mut changes), Some(("a", Unknown)));
    sleep(seconds(10.0)).await;
    assert_eq!(script.asked().len(), 4);
    assert_eq!(Arc::strong_count(&script.inner), 1, "the probe is gone");
    assert_eq!(changes.changed().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_can_be_stopped_and_started_again() {
    let (monitor, script) = monitor_of("S", every_second());
    sleep(seconds(2.5)).await;
    monitor.start().unwrap();
    assert_eq!(monitor.status(&"a"), Healthy, "to start what runs changes nothing");
    monitor.stop();
    assert_eq!(monitor.status(&"a"), Unknown);
    sleep(seconds(10.0)).await;
    assert_eq!((monitor.status(&"a"), script.asked().len()), (Unknown, 3));
    monitor.start().unwrap();
    sleep(seconds(0.1)).await;
    assert_eq!((monitor.status(&"a"), script.asked().len()), (Healthy, 4));
}

/// What a target's page shows: since when it is what it is, and the results in a row.
#[tokio::test(start_paused = true)]
async fn a_status_begins_with_the_check_that_decides_it() {
    let begin = Instant::now();
    let (monitor, script) = (every_second().fall(3).build().unwrap(), Script::new("S"));
    monitor.add("a", script.clone());
    let seen = |monitor: &Monitor<&'static str>| {
        let target = monitor.target(&"a").unwrap();
        let at = (target.since - begin).as_secs_f64();
        (target.status, at, target.passes, target.failures, target.last_failure.is_some())
    };
    assert_eq!(seen(&monitor), (Unknown, 0.0, 0, 0, false));
    sleep(seconds(5.0)).await;
    monitor.start().unwrap();
    assert_eq!(seen(&monitor), (Unknown, 0.0, 0, 0, false), "unknown since it was added");
    sleep(seconds(2.5)).await;
    assert_eq!(seen(&monitor), (Healthy, 5.0, 3, 0, false));
    script.set("F");
    sleep(seconds(2.0)).await;
    assert_eq!(seen(&monitor), (Healthy, 5.0, 0, 2, true), "two failures are not enough");
    sleep(seconds(3.0)).await;
    assert_eq!(seen(&monitor), (Unhealthy, 10.0, 0, 5, true));
    monitor.stop();
    assert_eq!(seen(&monitor), (Unknown, 12.5, 0, 0, true), "what went wrong last stays to be read");
    sleep(seconds(1.0)).await;
    monitor.stop();
    assert_eq!(seen(&monitor), (Unknown, 12.5, 0, 0, true), "nothing new began");
    monitor.start().unwrap();
    sleep(seconds(0.5)).await;
    assert_eq!(seen(&monitor), (Unhealthy, 13.5, 0, 1, true), "the first result decides again");
    monitor.add("a", Script::new("S"));
    assert_eq!(seen(&monitor), (Unknown, 14.0, 0, 0, false), "another probe, another history");
}

/// A stop ends the run of a target, and not what was found before; a start begins another run.
#[tokio::test(start_paused = true)]
async fn a_check_that_is_under_way_at_a_stop_is_neither_counted_nor_heard() {
    let (heard, listener) = recorder();
    let (monitor, script) = monitor_of("SH", every_second().timeout(seconds(5.0)).listener(listener));
    sleep(seconds(2.5)).await;
    monitor.stop();
    let then = monitor.statistics();
    assert_eq!((then.passed, then.timed_out, then.unknown), (1, 0, 1));
    sleep(seconds(30.0)).await;
    assert_eq!((monitor.statistics(), script.asked().len(), heard.lock().unwrap().len()), (then, 2, 1));
    assert_eq!(monitor.target(&"a").unwrap().last_failure, None);
}

#[test]
fn a_prober_that_died_with_its_runtime_reads_unknown_and_can_live_again() {
    let (heard, listener) = recorder();
    let monitor = every_second().listener(listener).build().unwrap();
    let mut changes = monitor.subscribe();
    monitor.add("a", Script::new("S"));
    assert!(monitor.start().is_err(), "no runtime, and no panic");
    for _ in 0..2 {
        let runtime = paused_runtime();
        runtime.block_on(async {
            monitor.start().unwrap();
            sleep(seconds(0.5)).await;
        });
        assert_eq!(monitor.status(&"a"), Healthy);
        assert_eq!(next(&mut changes), Some(("a", Healthy)));
        drop(runtime);
        assert_eq!(monitor.status(&"a"), Unknown);
        assert_eq!(next(&mut changes), Some(("a", Unknown)));
        monitor.add("b", Script::new("S"));
        assert_eq!(monitor.status(&"b"), Unknown, "added to a runtime that is gone");
        monitor.remove(&"b");
    }
    assert_eq!(
        heard.lock().unwrap()[..2],
        [
            "health `test` \"a\" went from unknown to healthy: its checks pass",
            "health `test` \"a\" went from healthy to unknown: its prober has ended",
        ]
    );
}

#[test]
fn everything_can_be_built_shared_and_dropped_outside_of_a_runtime() {
    let monitor = every_second().build().unwrap();
    monitor.add("a", TcpProbe::new("127.0.0.1:1"));
    monitor.reconfigure(MonitorConfig::default()).unwrap();
    monitor.check_now(&"a");
    let report = HealthReport::new("app");
    report.add_target("a", Role::Critical, &monitor, "a").unwrap();
    report.mark_started();
    assert!(!report.readiness().passed());
    monitor.stop();
    monitor.remove(&"a");
    drop(monitor.subscribe());
    drop(monitor);
    drop(Shutdown::new(report, ShutdownConfig::default()));
}

#[tokio::test(start_paused = true)]
async fn new_settings_hold_at_once_and_bad_ones_never() {
    let (monitor, script) = monitor_of("S", every_second().interval(seconds(3_600.0)));
    sleep(seconds(10.0)).await;
    assert_eq!(script.asked().len(), 1);

    let mut config = monitor.config();
    config.timeout = Duration::ZERO;
    assert_eq!(monitor.reconfigure(config.clone()).unwrap_err().field(), "timeout");
    assert_eq!(monitor.config().timeout, seconds(0.5));

    config.timeout = seconds(0.5);
    config.interval = seconds(20.0);
    monitor.reconfigure(config).unwrap();
    sleep(seconds(9.0)).await;
    assert_eq!(script.asked().len(), 1, "measured from the start of the last check, and not due yet");
    sleep(seconds(2.0)).await;
    assert_eq!(script.gaps(), [20.0]);
    assert_eq!(monitor.status(&"a"), Healthy, "the status stays");
}

#[tokio::test(start_paused = true)]
async fn a_check_can_be_asked_for_at_any_time() {
    let (monitor, script) = monitor_of("S", every_second().interval(seconds(3_600.0)));
    sleep(seconds(10.0)).await;
    script.set("A");
    assert!(monitor.check_now(&"a"));
    sleep(seconds(0.1)).await;
    assert_eq!((script.asked().len(), monitor.status(&"a")), (2, Unhealthy));
    assert!(!monitor.check_now(&"b"));
}

#[tokio::test(start_paused = true)]
async fn a_check_asked_for_during_a_check_follows_it() {
    let (monitor, script) = monitor_of("HS", every_second().interval(seconds(3_600.0)));
    sleep(seconds(0.1)).await;
    monitor.check_now(&"a");
    sleep(seconds(0.6)).await;
    assert_eq!(script.gaps(), [0.5]);
}

/// A blocking probe would otherwise hold its worker for ever and could not even be aborted.
#[tokio::test(start_paused = true)]
async fn checks_without_a_pause_between_them_still_yield() {
    let (monitor, _) = monitor_of("H", every_second().timeout(seconds(5.0)));
    sleep(seconds(60.0)).await;
    assert!((11..=12).contains(&monitor.statistics().timed_out));
}

#[tokio::test(start_paused = true)]
async fn changes_are_events_with_their_reason() {
    let (heard, listener) = recorder();
    let (_monitor, _) = monitor_of("SAS", every_second().rise(1).listener(listener));
    sleep(seconds(5.0)).await;
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "health `test` \"a\" went from unknown to healthy: its checks pass",
            "health `test` \"a\" went from healthy to unhealthy: answered: not serving",
            "health `test` \"a\" went from unhealthy to healthy: its checks pass",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_panicking_listener_stops_no_check() {
    let builder = every_second().listener(|_: &Event<'_>| panic!("the listener of the test"));
    let (monitor, _) = monitor_of("SAS", builder);
    assert_eq!(statuses(&monitor, 4).await, [Healthy, Unhealthy, Unhealthy, Healthy]);
}

#[tokio::test(start_paused = true)]
async fn many_changes_arrive_as_a_stream() {
    use futures_util::StreamExt;

    let monitor = every_second().build().unwrap();
    for i in 0..100 {
        monitor.add(i, Script::new(if i % 2 == 0 { "S" } else { "F" }));
    }
    monitor.start().unwrap();
    let changes: HashMap<_, _> =
        monitor.subscribe().into_stream().take(100).map(|change| (change.key, change.status)).collect().await;
    assert!((0..100).all(|i| changes[&i] == if i % 2 == 0 { Healthy } else { Unhealthy }));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_show_itself_stops_no_check() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Shy;
    impl std::fmt::Debug for Shy {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("the key of the test")
        }
    }
    let (heard, listener) = recorder();
    let monitor = every_second().listener(listener).build().unwrap();
    monitor.add(Shy, Script::new("SAS"));
    monitor.start().unwrap();
    sleep(seconds(4.5)).await;
    assert_eq!(monitor.status(&Shy), Healthy);
    assert_eq!(heard.lock().unwrap()[0], "health `test` ? went from unknown to healthy: its checks pass");
}

/// On many threads: no deadlock, nothing left behind, and the last word is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn targets_can_come_and_go_from_many_threads() {
    let monitor = Monitor::builder("test").interval(Duration::from_millis(1)).build().unwrap();
    monitor.start().unwrap();
    let mut changes = monitor.subscribe();
    let alive = Arc::new(());
    let threads = (0..4_usize).map(|thread| {
        let (monitor, alive) = (monitor.clone(), alive.clone());
        tokio::spawn(async move {
            for round in 0..500_usize {
                let (key, held) = (round % 7, alive.clone());
                match (round + thread) % 8 {
                    0..=3 => {
                        monitor.add(key, move || {
                            let _held = &held;
                            let result = if round % 2 == 0 { Ok(()) } else { Err("down") };
                            async move { result }
                        });
                    }
                    4 => drop(monitor.remove(&key)),
                    5 => drop(monitor.check_now(&key)),
                    6 => monitor.reconfigure(monitor.config()).unwrap(),
                    _ => {
                        monitor.stop();
                        monitor.start().unwrap();
                    }
                }
                tokio::task::yield_now().await;
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.await.unwrap();
    }
    let statistics = monitor.statistics();
    assert_eq!(statistics.healthy + statistics.unhealthy + statistics.unknown, monitor.targets().len());
    drop(monitor);
    let mut known = HashMap::new();
    while let Some(change) = changes.changed().await {
        known.insert(change.key, change.status);
    }
    assert!(known.values().all(|status| *status == Unknown), "{known:?}");
    assert_eq!(Arc::strong_count(&alive), 1, "no probe is left");
}

/// The gauges follow each change: of a status, of the targets, and of whether there are checks at all.
#[cfg(feature = "metrics")]
#[test]
fn the_gauges_of_targets_follow_every_change() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        // A snapshot shows by how much each has changed since the one before.
        let mut levels = [0.0; 3];
        let mut gauges = || {
            for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                let at = match key.key().name() {
                    "mainstay_health_targets" => 0,
                    "mainstay_health_targets_unhealthy" => 1,
                    "mainstay_health_targets_unknown" => 2,
                    _ => continue,
                };
                if let DebugValue::Gauge(level) = value {
                    levels[at] += level.into_inner();
                }
            }
            levels
        };
        let runtime = paused_runtime();
        runtime.block_on(async {
            let monitor = every_second().fall(1).rise(1).build().unwrap();
            let script = Script::new("S");
            monitor.add("a", script.clone());
            monitor.add("b", Script::new("S"));
            assert_eq!(gauges(), [2.0, 0.0, 2.0], "added");
            monitor.start().unwrap();
            sleep(seconds(0.5)).await;
            assert_eq!(gauges(), [2.0, 0.0, 0.0], "checked");
            script.set("F");
            sleep(seconds(1.0)).await;
            assert_eq!(gauges(), [2.0, 1.0, 0.0], "a status changed");
            monitor.remove(&"b");
            assert_eq!(gauges(), [1.0, 1.0, 0.0], "removed");
            monitor.stop();
            assert_eq!(gauges(), [1.0, 0.0, 1.0], "stopped");
            monitor.start().unwrap();
            sleep(seconds(0.5)).await;
            assert_eq!(gauges(), [1.0, 1.0, 0.0], "started again");
        });
    });
}

#[cfg(feature = "metrics")]
#[test]
fn checks_and_targets_are_metrics() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let monitor = every_second().build().unwrap();
        let runtime = paused_runtime();
        runtime.block_on(async {
            for (key, checks) in [("good", "S"), ("bad", "F"), ("panics", "SP")] {
                monitor.add(key, Script::new(checks));
            }
            monitor.start().unwrap();
            sleep(seconds(4.5)).await;
            monitor.add("hangs", Script::new("H"));
            sleep(seconds(0.1)).await;
        });
        let seen: HashMap<_, _> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, _, _, value)| {
                let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                (format!("{} {}", key.key().name(), labels.join(" ")), value)
            })
            .collect();
        let counter = |labels: &str| match seen[&format!("mainstay_health_checks_total test {labels}")] {
            DebugValue::Counter(count) => count,
            _ => 0,
        };
        assert_eq!(["passed", "failed", "timed_out", "panicked"].map(counter), [6, 5, 0, 4]);
        let gauge = |name: &str| match seen[&format!("mainstay_health_{name} test")] {
            DebugValue::Gauge(level) => level.into_inner(),
            _ => f64::NAN,
        };
        assert_eq!(["targets", "targets_unhealthy", "targets_unknown"].map(gauge), [4.0, 2.0, 1.0]);
    });
}

#[test]
fn public_types_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Monitor<String>>();
    check::<Subscription<String>>();
    check::<HealthReport>();
    check::<Shutdown>();
    check::<mainstay::health::Part>();
    check::<mainstay::health::HealthAnswer>();
}

// === probes, over loopback ===

async fn listen() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Answers one connection with `answer`, and returns what was asked.
async fn answer_once(listener: tokio::net::TcpListener, answer: &'static [u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        asked.push(byte[0]);
    }
    // The probe hangs up when it has seen enough.
    let _ = stream.write_all(answer).await;
    String::from_utf8(asked).unwrap()
}

async fn probe_page(answer: &'static [u8]) -> Result<(), ProbeError> {
    let (listener, address) = listen().await;
    let probe = HttpProbe::new(format!("http://{address}/readyz?x=1")).unwrap();
    let (result, asked) = tokio::join!(probe.check(), answer_once(listener, answer));
    assert_eq!(
        asked,
        format!(
            "GET /readyz?x=1 HTTP/1.1\r\nHost: {address}\r\nUser-Agent: mainstay-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
    );
    result
}

#[tokio::test]
async fn a_tcp_probe_passes_while_something_listens() {
    let (listener, address) = listen().await;
    let probe = TcpProbe::new(address);
    assert!(probe.check().await.is_ok());
    drop(listener);
    assert!(!probe.check().await.unwrap_err().is_answer());
    assert!(TcpProbe::new("not an address").check().await.is_err());
}

#[tokio::test]
async fn an_http_probe_passes_on_an_expected_status() {
    assert!(probe_page(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_ok());
    assert!(probe_page(b"HTTP/1.0 204\r\n\r\n").await.is_ok());
}

#[tokio::test]
async fn another_status_is_the_targets_answer() {
    let error = probe_page(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err();
    assert!(error.is_answer());
    assert_eq!(error.to_string(), "status 503");
    assert!(probe_page(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n").await.unwrap_err().is_answer(), "not followed");
}

#[tokio::test]
async fn what_is_not_http_or_ends_early_is_a_failure_but_no_answer() {
    let error = probe_page(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap_err();
    assert!(!error.is_answer());
    assert_eq!(error.to_string(), "the answer is not HTTP/1");
    assert!(!probe_page(b"HTTP/1.1").await.unwrap_err().is_answer());
    assert!(!probe_page(b"").await.unwrap_err().is_answer());
}

#[tokio::test]
async fn an_endless_answer_costs_nothing() {
    static ENDLESS: [u8; 1_000_000] = {
        let mut bytes = [b'x'; 1_000_000];
        let status = b"HTTP/1.1 200";
        let mut i = 0;
        while i < status.len() {
            bytes[i] = status[i];
            i += 1;
        }
        bytes
    };
    assert!(probe_page(&ENDLESS).await.is_ok(), "only the status is ever read");
}

#[tokio::test]
async fn a_monitor_drives_a_real_probe() {
    let (listener, address) = listen().await;
    let monitor = Monitor::builder("real").timeout(seconds(60.0)).build().unwrap();
    monitor.add("a", TcpProbe::new(address));
    let mut changes = monitor.subscribe();
    monitor.start().unwrap();
    assert_eq!(changes.changed().await.unwrap().status, Healthy);
    drop(listener);
}

#[tokio::test]
async fn a_service_probe_waits_for_readiness_and_passes_only_on_success() {
    use mainstay::health::ServiceProbe;
    use mainstay::{BoxError, Outcome, classify_fn};

    let (service, mut handle) = tower_test::mock::pair::<&'static str, u16>();
    let probe =
        ServiceProbe::new(service, || "ping").classify(classify_fn(|result: Result<&u16, &BoxError>| match result {
            Ok(200) => Outcome::Success,
            Ok(404) => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Transient,
        }));
    handle.allow(0);
    let mut check = spawn(probe.check());
    assert_pending!(check.poll());
    handle.allow(1);
    assert_pending!(check.poll());
    handle.next_request().await.unwrap().1.send_response(200);
    assert!(assert_ready!(check.poll()).is_ok());
    drop(check);

    handle.allow(2);
    let mut check = spawn(probe.check());
    assert_pending!(check.poll());
    handle.next_request().await.unwrap().1.send_response(404);
    assert!(assert_ready!(check.poll()).unwrap_err().is_answer(), "a page that is not there is no health");
    drop(check);

    let mut check = spawn(probe.check());
    assert_pending!(check.poll());
    handle.next_request().await.unwrap().1.send_error("reset");
    assert!(!assert_ready!(check.poll()).unwrap_err().is_answer());
}

// === the report ===

/// Scenario 7: readiness fails and liveness passes from the beginning; before the startup neither is looked at.
#[test]
fn before_the_start_no_part_is_asked() {
    let report = HealthReport::new("app");
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    report
        .add_check("deadlock", Role::Vital, move || {
            count.fetch_add(1, Ordering::Relaxed);
            Unhealthy
        })
        .unwrap();
    assert_eq!(report.startup().verdict(), Verdict::Fail);
    assert_eq!(report.liveness().verdict(), Verdict::Pass);
    assert_eq!(report.readiness().verdict(), Verdict::Fail);
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    report.mark_started();
    assert_eq!(report.startup().verdict(), Verdict::Pass);
    assert_eq!(report.liveness().verdict(), Verdict::Fail);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn the_verdict_is_the_worst_that_the_roles_allow() {
    use Verdict::{Fail, Pass, Warn};
    let verdicts = |role, states: &[PartState]| {
        let report = HealthReport::new("app");
        report.mark_started();
        let good = report.add("good", Role::Critical).unwrap();
        good.healthy();
        let part = report.add("part", role).unwrap();
        states.iter().for_each(|state| part.set(state.clone()));
        (report.liveness().verdict(), report.readiness().verdict())
    };
    let (healthy, unhealthy, unknown) = (PartState::healthy(), PartState::unhealthy("no"), PartState::unknown("?"));
    for role in [Role::Vital, Role::Critical, Role::Shared, Role::Optional] {
        assert_eq!(verdicts(role, std::slice::from_ref(&healthy)), (Pass, Pass), "{role}");
    }
    let of = |state: &PartState| {
        [Role::Vital, Role::Critical, Role::Shared, Role::Optional]
            .map(|role| verdicts(role, std::slice::from_ref(state)))
    };
    assert_eq!(of(&unhealthy), [(Fail, Fail), (Pass, Fail), (Pass, Warn), (Pass, Warn)]);
    assert_eq!(of(&unknown), [(Warn, Fail), (Pass, Fail), (Pass, Warn), (Pass, Warn)]);
    assert_eq!(verdicts(Role::Critical, &[healthy.clone(), unknown.clone()]), (Pass, Warn), "its prober has died");
    assert_eq!(verdicts(Role::Critical, &[healthy, unhealthy, unknown]), (Pass, Warn));
}

#[tokio::test(start_paused = true)]
async fn a_part_follows_a_target_of_a_monitor_and_keeps_it_not_alive() {
    let (monitor, script) = monitor_of("S", every_second());
    let report = HealthReport::new("app");
    report.mark_started();
    report.add_target("upstream", Role::Critical, &monitor, "a").unwrap();
    assert_eq!(report.readiness().verdict(), Verdict::Fail, "never seen healthy");
    sleep(seconds(2.5)).await;
    assert_eq!(report.readiness().verdict(), Verdict::Pass);
    assert!(report.readiness().to_json().contains(r#""status":"healthy","for_seconds":2.500"#));
    script.set("A");
    sleep(seconds(1.0)).await;
    let answer = report.readiness();
    assert_eq!(answer.verdict(), Verdict::Fail);
    assert_eq!(answer.parts()[0].detail.as_deref(), Some("answered: not serving"));

    drop(monitor);
    sleep(seconds(1.0)).await;
    assert_eq!(report.readiness().parts()[0].status, Unknown);
    assert_eq!(Arc::strong_count(&script.inner), 1);
}

#[tokio::test(start_paused = true)]
async fn a_part_tells_since_when() {
    let report = HealthReport::new("app");
    report.mark_started();
    let part = report.add("part", Role::Critical).unwrap();
    part.healthy();
    sleep(seconds(3.0)).await;
    part.healthy();
    let since = |report: &HealthReport| Instant::now() - report.readiness().parts()[0].since;
    assert_eq!(since(&report), seconds(3.0), "the same again is no change");
    part.unhealthy("no");
    sleep(seconds(2.0)).await;
    part.unhealthy("still not");
    assert_eq!(since(&report), seconds(2.0));
}

#[test]
fn a_check_that_panics_is_unhealthy_and_one_that_uses_the_report_is_fine() {
    let report = HealthReport::new("app");
    report.mark_started();
    report.add_check("bad", Role::Optional, || -> HealthStatus { panic!("the check of the test") }).unwrap();
    let own = report.clone();
    report
        .add_check("own", Role::Critical, move || if own.phase() == Phase::Running { Healthy } else { Unknown })
        .unwrap();
    let answer = report.readiness();
    assert_eq!(answer.verdict(), Verdict::Warn);
    assert_eq!(answer.parts()[0].detail.as_deref(), Some("its check panicked"));
    assert_eq!(answer.parts()[1].status, Healthy);
    assert!(report.remove("own"));
}

#[test]
fn the_json_is_bounded_and_valid_whatever_the_parts_say() {
    let report = HealthReport::new("a \"quoted\" \u{1} name");
    report.mark_started();
    for i in 0..250 {
        report.add_check(format!("part-{i}"), Role::Optional, || Err("\u{0}\"\\\n".repeat(10_000))).unwrap();
    }
    let json = report.readiness().to_json();
    assert!(json.len() < 100 * 2_000, "{}", json.len());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["status"], "warn");
    assert_eq!(value["name"], "a \"quoted\" \u{1} name");
    assert_eq!(value["parts"].as_array().unwrap().len(), 100);
    assert_eq!(value["omitted"], 150);
    assert_eq!(report.readiness().to_json_without_details(), r#"{"status":"warn"}"#);
}

#[test]
fn two_parts_of_one_name_are_refused() {
    let report = HealthReport::new("app");
    let _part = report.add("db", Role::Shared).unwrap();
    let error: InvalidConfig = report.add_check("db", Role::Shared, || Healthy).unwrap_err();
    assert_eq!(error.to_string(), "invalid `part` = \"db\": must be a name that no other part has");
}

// === the shutdown ===

/// Unready, wait, accept nothing new, drain.
#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_its_steps_in_order() {
    let report = HealthReport::new("app");
    report.mark_started();
    let shutdown = Shutdown::new(report.clone(), config(5.0, 20.0));
    let mut stop = spawn(shutdown.stop_accepting());
    let job = shutdown.working();
    assert_pending!(stop.poll());

    let runner = shutdown.clone();
    let mut run = spawn(async move { runner.run().await });
    assert_pending!(run.poll());
    assert!(!report.readiness().passed());
    assert!(report.liveness().passed());
    sleep(seconds(4.9)).await;
    assert_pending!(run.poll());
    assert_pending!(stop.poll());
    sleep(seconds(0.2)).await;
    assert_pending!(run.poll());
    assert_ready!(stop.poll());
    sleep(seconds(10.0)).await;
    assert_pending!(run.poll());
    drop(job);
    assert!(run.is_woken());
    assert!(assert_ready!(run.poll()), "all work has ended");
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_end_is_given_up_after_the_drain_time() {
    let shutdown = Shutdown::new(HealthReport::new("app"), config(5.0, 20.0));
    let _job = shutdown.working();
    let begun = Instant::now();
    assert!(!shutdown.run().await);
    assert_eq!(begun.elapsed(), seconds(25.0));
    assert!(!shutdown.run().await, "the times are not given twice");
    assert!(begun.elapsed() < seconds(25.1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_was_cut_off_goes_on_where_it_was() {
    let report = HealthReport::new("app");
    let shutdown = Shutdown::new(report.clone(), config(5.0, 20.0));
    let begun = Instant::now();
    assert!(tokio::time::timeout(seconds(3.0), shutdown.run()).await.is_err());
    assert_eq!(report.phase(), Phase::Stopping);
    let stop = shutdown.stop_accepting();
    let (drained, other, ()) = tokio::join!(shutdown.run(), shutdown.run(), stop);
    assert!(drained && other);
    assert_eq!(begun.elapsed(), seconds(5.0));
}

#[tokio::test(start_paused = true)]
async fn without_grace_and_drain_a_shutdown_is_immediate_and_endless_ones_do_not_overflow() {
    let shutdown = Shutdown::new(HealthReport::new("app"), config(0.0, 0.0));
    assert!(shutdown.run().await);
    let mut endless = ShutdownConfig::default();
    (endless.grace, endless.drain) = (Duration::MAX, Duration::MAX);
    let shutdown = Shutdown::new(HealthReport::new("app"), endless);
    assert!(tokio::time::timeout(seconds(1_000.0), shutdown.run()).await.is_err());
}

// === helpers ===

fn next(changes: &mut Subscription<&'static str>) -> Option<(&'static str, HealthStatus)> {
    changes.try_changed().map(|change| (change.key, change.status))
}

fn config(grace: f64, drain: f64) -> ShutdownConfig {
    let mut config = ShutdownConfig::default();
    (config.grace, config.drain) = (seconds(grace), seconds(drain));
    config
}

fn recorder() -> (Arc<Mutex<Vec<String>>>, impl Fn(&Event<'_>) + Send + Sync + 'static) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    (heard, move |event: &Event<'_>| log.lock().unwrap().push(event.to_string()))
}

fn paused_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[cfg(feature = "serde")]
#[test]
fn settings_are_read_from_a_file_and_unknown_ones_refused() {
    let config: MonitorConfig = toml::from_str("interval = \"5s\"\nfast_interval = \"250ms\"\nfall = 2").unwrap();
    assert_eq!((config.interval, config.fast_interval, config.fall), (seconds(5.0), Some(seconds(0.25)), 2));
    assert_eq!(config.rise, MonitorConfig::default().rise);
    assert!(toml::from_str::<MonitorConfig>("intervall = \"5s\"").is_err());
    let config: ShutdownConfig = toml::from_str("grace = \"1s\"").unwrap();
    assert_eq!(config.drain, seconds(20.0));
}

/// A flag and an error type of the application's own make a probe in one line.
#[tokio::test(start_paused = true)]
async fn a_closure_is_a_probe() {
    let up = Arc::new(AtomicBool::new(true));
    let flag = up.clone();
    let monitor = every_second().fall(1).build().unwrap();
    monitor.add("flag", move || {
        let flag = flag.clone();
        async move { if flag.load(Ordering::Relaxed) { Ok(()) } else { Err(io::Error::other("down")) } }
    });
    monitor.start().unwrap();
    sleep(seconds(0.1)).await;
    assert_eq!(monitor.status(&"flag"), Healthy);
    up.store(false, Ordering::Relaxed);
    sleep(seconds(1.0)).await;
    assert_eq!(monitor.status(&"flag"), Unhealthy);
}
