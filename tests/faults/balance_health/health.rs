//! Monitors and what happens after their end.
#![cfg(feature = "health")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mainstay::HealthStatus;
use mainstay::health::{HealthReport, Monitor, MonitorBuilder, Role};
use mainstay::telemetry::Event;

/// A monitor of whose end the test keeps watch: every check has another result, so that each is followed by an event.
struct Watched {
    monitor: Option<Monitor<u32>>,
    ended: Arc<AtomicBool>,
    events: Arc<AtomicU32>,
    began_after_the_end: Arc<AtomicU32>,
}

fn builder() -> MonitorBuilder {
    Monitor::builder("test")
        .interval(Duration::from_nanos(1))
        .fast_interval(Duration::from_nanos(1))
        .down_interval(Duration::from_nanos(1))
        .jitter(0.0)
        .rise(1)
        .fall(1)
}

impl Watched {
    fn start(targets: u32) -> Self {
        let [events, began_after_the_end] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let ended = Arc::new(AtomicBool::new(false));
        let begins = {
            let (ended, late) = (ended.clone(), began_after_the_end.clone());
            move || {
                late.fetch_add(u32::from(ended.load(SeqCst)), SeqCst);
            }
        };
        let (listened, heard) = (begins.clone(), events.clone());
        let listener = move |_: &Event<'_>| {
            listened();
            heard.fetch_add(1, SeqCst);
        };
        let monitor = builder().listener(listener).build().unwrap();
        for target in 0..targets {
            let (begins, asked) = (begins.clone(), AtomicU32::new(0));
            monitor.add(target, move || {
                begins();
                let fails = asked.fetch_add(1, SeqCst) % 2 == 0;
                async move { if fails { Err("no") } else { Ok(()) } }
            });
        }
        monitor.start().unwrap();
        Self { monitor: Some(monitor), ended, events, began_after_the_end }
    }

    /// Ends it in one of the ways amid its checks, and lets its tasks run on.
    async fn end(mut self, end: impl FnOnce(Monitor<u32>)) {
        let monitor = self.monitor.take().unwrap();
        while self.events.load(SeqCst) < 20 {
            tokio::task::yield_now().await;
        }
        end(monitor);
        self.ended.store(true, SeqCst);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.began_after_the_end.load(SeqCst), 0, "a check or an event began after the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn entry_19_nothing_begins_after_a_stop_has_returned() {
    for _ in 0..40 {
        let kept = OnceLock::new();
        let end = |monitor: Monitor<u32>| {
            monitor.stop();
            kept.set((monitor.statistics(), monitor)).unwrap();
        };
        Watched::start(4).end(end).await;
        let (then, monitor) = kept.get().unwrap();
        assert_eq!(monitor.statistics(), *then, "and nothing is counted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn entry_19_nothing_begins_after_a_drop_or_a_removal_has_returned() {
    for _ in 0..40 {
        Watched::start(4).end(drop).await;
        Watched::start(2).end(|monitor| assert!(monitor.remove(&0) && monitor.remove(&1))).await;
        Watched::start(1)
            .end(|monitor| std::mem::forget((monitor.add(0, std::future::pending::<Result<(), Infallible>>), monitor)))
            .await;
    }
}

/// The listener is held up on its worker while another thread stops the monitor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_19_a_stop_returns_after_the_listener_that_runs_meanwhile() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let stopped = Arc::new(AtomicBool::new(false));
    let (inside, is_inside) = std::sync::mpsc::sync_channel(1);
    let listener = {
        let (log, stopped) = (log.clone(), stopped.clone());
        move |_: &Event<'_>| {
            let _ = inside.try_send(());
            // Long enough for a stop that does not wait to return, and without an end to wait for from one that does.
            for _ in 0..20_000 {
                if stopped.load(SeqCst) {
                    break;
                }
                std::thread::yield_now();
            }
            log.lock().unwrap().push("the listener returned");
        }
    };
    let monitor = Monitor::builder("test").jitter(0.0).listener(listener).build().unwrap();
    monitor.add(0, || async { Ok::<_, Infallible>(()) });
    monitor.start().unwrap();
    tokio::task::spawn_blocking({
        let log = log.clone();
        move || {
            is_inside.recv().unwrap();
            monitor.stop();
            log.lock().unwrap().push("the stop returned");
            stopped.store(true, SeqCst);
        }
    })
    .await
    .unwrap();
    assert_eq!(*log.lock().unwrap(), ["the listener returned", "the stop returned"]);
}

/// A check that is over when the monitor is: its result is neither counted nor heard.
#[tokio::test(start_paused = true)]
async fn entry_19_the_result_of_a_check_that_stops_its_monitor_is_not_counted() {
    let heard = Arc::new(AtomicU32::new(0));
    let listener = {
        let heard = heard.clone();
        move |_: &Event<'_>| {
            heard.fetch_add(1, SeqCst);
        }
    };
    let monitor = Monitor::builder("test").jitter(0.0).listener(listener).build().unwrap();
    let own = monitor.clone();
    monitor.add(0, move || {
        own.stop();
        async { Ok::<_, Infallible>(()) }
    });
    monitor.start().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let statistics = monitor.statistics();
    assert_eq!((statistics.passed, statistics.unknown, heard.load(SeqCst)), (0, 1, 0));
    // The probe holds a handle of its own monitor.
    assert!(monitor.remove(&0));
}

#[tokio::test(start_paused = true)]
async fn entry_19_a_check_that_is_under_way_is_dropped_at_once() {
    let under_way = Arc::new(());
    let monitor = Monitor::builder("test").jitter(0.0).timeout(Duration::from_secs(3600)).build().unwrap();
    let end: [fn(&Monitor<u32>); 3] = [
        |monitor| monitor.stop(),
        |monitor| assert!(monitor.remove(&0)),
        |monitor| assert!(!monitor.add(0, std::future::pending::<Result<(), Infallible>>)),
    ];
    for end in end {
        let held = under_way.clone();
        monitor.add(0, move || {
            let held = held.clone();
            async move {
                let _held = held;
                std::future::pending::<Result<(), Infallible>>().await
            }
        });
        monitor.start().unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&under_way), 3, "the probe and its check");
        end(&monitor);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(Arc::strong_count(&under_way) <= 2, "the check is gone");
        monitor.remove(&0);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&under_way), 1);
    }
}

/// A probe and a listener may end the monitor, and each other, from within.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn entry_19_a_probe_and_a_listener_may_end_what_calls_them() {
    for round in 0..30 {
        let slot: Arc<Mutex<Option<Monitor<u32>>>> = Arc::default();
        let done = Arc::new(AtomicU32::new(0));
        let end = {
            let (slot, done) = (slot.clone(), done.clone());
            move || {
                let monitor = slot.lock().unwrap().clone();
                if let Some(monitor) = monitor {
                    match round % 3 {
                        0 => monitor.stop(),
                        1 => drop((monitor.remove(&0), monitor.remove(&1))),
                        _ => drop(slot.lock().unwrap().take()),
                    }
                    done.fetch_add(1, SeqCst);
                }
            }
        };
        let listener = end.clone();
        let monitor = builder().listener(move |_: &Event<'_>| listener()).build().unwrap();
        for target in 0..2 {
            let end = end.clone();
            monitor.add(target, move || {
                end();
                async { Err::<(), _>("no") }
            });
        }
        monitor.start().unwrap();
        *slot.lock().unwrap() = Some(monitor);
        while done.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let left = slot.lock().unwrap().take();
        drop(left);
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_added_after_a_stop_is_not_checked_before_the_next_start() {
    let asked = Arc::new(AtomicU32::new(0));
    let monitor = Monitor::builder("test").build().unwrap();
    monitor.start().unwrap();
    monitor.stop();
    let count = asked.clone();
    monitor.add("a", move || {
        count.fetch_add(1, SeqCst);
        async { Ok::<_, Infallible>(()) }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.load(SeqCst), 0);
    let statistics = monitor.statistics();
    assert_eq!((statistics.unknown, statistics.passed), (1, 0));
    monitor.start().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(asked.load(SeqCst) > 0);
    assert_eq!(monitor.statistics().healthy, 1);
}

#[tokio::test(start_paused = true)]
async fn entry_11_a_subscription_ends_with_its_monitor_though_a_report_shows_a_target() {
    let monitor = Monitor::builder("test").build().unwrap();
    monitor.add("a", || async { Ok::<_, Infallible>(()) });
    let report = HealthReport::new("app");
    report.mark_started();
    report.add_target("upstream", Role::Critical, &monitor, "a").unwrap();
    let mut changes = monitor.subscribe();
    let follower = tokio::spawn({
        let mut changes = monitor.subscribe();
        async move { while changes.changed().await.is_some() {} }
    });
    monitor.start().unwrap();
    assert_eq!(changes.changed().await.unwrap().status, HealthStatus::Healthy);
    assert_eq!(report.readiness().parts()[0].status, HealthStatus::Healthy);
    drop(monitor);
    assert_eq!(changes.changed().await.unwrap().status, HealthStatus::Unknown);
    assert_eq!(changes.changed().await, None);
    follower.await.unwrap();
    let answer = report.readiness();
    assert_eq!(answer.parts()[0].status, HealthStatus::Unknown);
    assert_eq!(answer.parts()[0].detail.as_deref(), Some("its monitor is gone"));
}

/// A monitor whose runtime is gone: who waits for a change on another runtime is woken.
#[test]
fn a_prober_that_dies_with_its_runtime_is_a_change_like_any_other() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let checking = runtime();
    let monitor = Monitor::builder("test").jitter(0.0).build().unwrap();
    monitor.add(0, || async { Ok::<_, Infallible>(()) });
    let mut changes = monitor.subscribe();
    checking.block_on(async {
        monitor.start().unwrap();
        assert_eq!(changes.changed().await.unwrap().status, HealthStatus::Healthy);
    });
    let mut waiting = tokio_test::task::spawn(changes.changed());
    tokio_test::assert_pending!(waiting.poll());
    drop(checking);
    assert!(waiting.is_woken());
    let change = tokio_test::assert_ready!(waiting.poll()).unwrap();
    assert_eq!((change.key, change.status), (0, HealthStatus::Unknown));
}
