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
