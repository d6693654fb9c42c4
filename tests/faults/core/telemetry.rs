//! Counts and gauges of layers that share a name.

#![cfg(feature = "metrics")]

use std::time::Duration;

use mainstay::BoxError;
use mainstay::retry::RetryLayer;
use mainstay::telemetry::TelemetryLayer;
use mainstay::timeout::TimeoutLayer;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{Layer, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// What was exported since the last look, by metric and label values. (A look takes counts and gauges back to zero.)
struct Exported(Vec<(String, DebugValue)>);

impl Exported {
    fn look(recorder: &DebuggingRecorder) -> Self {
        let entries = recorder.snapshotter().snapshot().into_vec().into_iter();
        let path = |key: &metrics::Key| {
            key.labels().fold(key.name().to_owned(), |path, label| format!("{path} {}", label.value()))
        };
        Self(entries.map(|(key, _, _, value)| (path(key.key()), value)).collect())
    }

    fn get(&self, path: &str) -> &DebugValue {
        match self.0.iter().find(|(exported, _)| exported == path) {
            Some((_, value)) => value,
            None => panic!("{path} is not among {:?}", self.0),
        }
    }

    fn count(&self, path: &str) -> u64 {
        match self.get(path) {
            DebugValue::Counter(count) => *count,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn level(&self, path: &str) -> f64 {
        match self.get(path) {
            DebugValue::Gauge(level) => level.into_inner(),
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// One per worker, say.
#[test]
fn entry_12_layers_of_one_name_add_up_in_counters_and_histograms() {
    let recorder = DebuggingRecorder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let stacks: Vec<_> = (0..3)
                .map(|_| {
                    ServiceBuilder::new()
                        .layer(TelemetryLayer::new("db"))
                        .layer(TimeoutLayer::total("db", SECOND).unwrap())
                        .layer(RetryLayer::builder("db").build().unwrap())
                        .service(service_fn(|hangs: bool| async move {
                            if hangs {
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, BoxError>(())
                        }))
                })
                .collect();
            for (calls, stack) in (1..).zip(&stacks) {
                for call in 0..calls {
                    let _ = stack.clone().oneshot(call == 0).await;
                }
            }
            drop(stacks);
        });
    });
    let exported = Exported::look(&recorder);
    assert_eq!(exported.count("mainstay_calls_total db success"), 3);
    assert_eq!(exported.count("mainstay_calls_total db rejected"), 3);
    assert_eq!(exported.count("mainstay_rejections_total db timeout"), 3);
    assert_eq!(exported.count("mainstay_timeouts_total db timeout"), 3);
    assert_eq!(exported.count("mainstay_retry_calls_total db success"), 3);
    let durations = exported.get("mainstay_call_duration_seconds db");
    assert!(matches!(durations, DebugValue::Histogram(calls) if calls.len() == 6), "{durations:?}");
}

#[cfg(feature = "balance")]
#[test]
fn entry_12_gauges_of_one_name_show_the_sum_and_forget_what_is_dropped() {
    use mainstay::balance::Pool;

    let recorder = DebuggingRecorder::new();
    let mut level = 0.0;
    let mut shown = || {
        level += Exported::look(&recorder).level("mainstay_balance_endpoints app");
        level
    };
    metrics::with_local_recorder(&recorder, || {
        let pool = |size: u32| {
            let pool = Pool::builder("app").build().unwrap();
            let service = service_fn(|(): ()| async { Ok::<_, BoxError>(()) });
            (0..size).for_each(|key| pool.handle().add(key, service));
            pool
        };
        let (one, other) = (pool(2), pool(3));
        assert_eq!(shown(), 5.0);
        drop(other);
        assert_eq!(shown(), 2.0);
        drop(one);
        assert_eq!(shown(), 0.0);
    });
}

/// There is no way to resolve handles again, which made each call walk a list; the module says to install the recorder first.
#[test]
fn entry_23_a_layer_that_was_called_before_there_was_a_recorder_keeps_its_own_counts() {
    let recorder = DebuggingRecorder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let layer = TelemetryLayer::new("early");
    let call = || {
        let service = layer.layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
        runtime.block_on(async { service.oneshot(()).await }).unwrap();
    };
    call();
    metrics::with_local_recorder(&recorder, || {
        call();
        let built_later = TelemetryLayer::new("early");
        let service = built_later.layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
        runtime.block_on(async { service.oneshot(()).await }).unwrap();
    });
    assert_eq!(layer.handle().statistics().successes, 2);
    let exported = Exported::look(&recorder).count("mainstay_calls_total early success");
    assert_eq!(exported, 1, "that of the layer built afterwards");
}
