//! Telemetry: every call is counted exactly once, under the names that `METRICS` lists.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(feature = "metrics")]
use mainstay::telemetry::METRICS;
use mainstay::telemetry::{TelemetryLayer, TelemetryStatistics};
use mainstay::{BoxError, Outcome, Rejectable, Rejected, classify_fn};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt, service_fn};

#[derive(Clone, Copy, Debug)]
enum Do {
    Answer(u16),
    Fail,
    Refuse,
    Panic,
    Hang,
}

fn service(
    layer: &TelemetryLayer<impl mainstay::Classify<u16, BoxError> + Clone + Send + 'static>,
) -> impl Service<Do, Response = u16, Error = BoxError, Future: Send> + Clone + Send + 'static {
    layer.layer(service_fn(|what: Do| async move {
        match what {
            Do::Answer(status) => Ok(status),
            Do::Fail => Err("reset".into()),
            Do::Refuse => Err(BoxError::from_rejected(Rejected::shed())),
            Do::Panic => panic!("told to"),
            Do::Hang => pending().await,
        }
    }))
}

fn by_status(result: Result<&u16, &BoxError>) -> Outcome {
    match result {
        Ok(200) => Outcome::Success,
        Ok(404) => Outcome::Refused,
        Ok(429) => Outcome::throttled(Duration::from_secs(1)),
        Ok(111) => Outcome::NotSent,
        Ok(424) => Outcome::DependencyFailed,
        Ok(499) => Outcome::Ignored,
        Ok(501) => Outcome::Permanent,
        Ok(0) => panic!("a classifier of the test"),
        _ => Outcome::Transient,
    }
}

async fn run(
    service: &(impl Service<Do, Response = u16, Error = BoxError, Future: Send> + Clone + Send + 'static),
    what: Do,
) {
    let mut service = service.clone();
    // A task of its own, so that a panic ends there.
    let _ = tokio::spawn(service.ready().await.unwrap().call(what)).await;
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_call_is_counted_once_and_the_sum_is_the_calls() {
    let layer = TelemetryLayer::new("all").classify(classify_fn(by_status));
    let handle = layer.handle();
    let service = service(&layer);
    for status in [200, 200, 404, 500, 111, 111, 111, 501, 429, 424, 499, 0] {
        run(&service, Do::Answer(status)).await;
    }
    for what in [Do::Fail, Do::Refuse, Do::Panic] {
        run(&service, what).await;
    }
    let mut hanging = task::spawn(service.clone().oneshot(Do::Hang));
    assert_pending!(hanging.poll());
    assert_eq!(handle.statistics().calls(), 15, "a running call has not ended");
    drop(hanging);

    let TelemetryStatistics {
        successes,
        refused,
        transient,
        not_sent,
        permanent,
        throttled,
        dependency_failed,
        ignored,
        rejected,
        abandoned,
        panicked,
        ..
    } = handle.statistics();
    assert_eq!(
        [
            successes,
            refused,
            transient,
            not_sent,
            permanent,
            throttled,
            dependency_failed,
            ignored,
            rejected,
            abandoned
        ],
        [2, 1, 2, 3, 1, 1, 1, 1, 1, 1]
    );
    // The inner panic, and the classifier's.
    assert_eq!(panicked, 2);
    assert_eq!(handle.statistics().calls(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_inner_call_is_counted_and_goes_on() {
    let layer = TelemetryLayer::new("call");
    let mut service = layer.layer(PanicInCall(AtomicU32::new(0)));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(service.call(()))));
    assert!(unwound.is_err());
    assert_eq!(layer.handle().statistics().panicked, 1);
    assert_eq!(layer.handle().statistics().calls(), 1);
}

struct PanicInCall(AtomicU32);

impl Service<()> for PanicInCall {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("in call")
    }
}

#[tokio::test(start_paused = true)]
async fn all_services_of_one_layer_share_its_counts() {
    let layer = TelemetryLayer::new("shared");
    let (one, other) = (service(&layer), service(&layer));
    one.oneshot(Do::Answer(1)).await.unwrap();
    other.oneshot(Do::Answer(1)).await.unwrap();
    assert_eq!(layer.handle().statistics().successes, 2);
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn the_recorder_gets_the_same_counts_under_listed_names() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);

    let layer = TelemetryLayer::new("published");
    let service = service(&layer);
    for what in [Do::Answer(200), Do::Answer(200), Do::Fail, Do::Refuse] {
        let _ = service.clone().oneshot(what).await;
    }
    let mut published = Vec::new();
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        let metric = METRICS.iter().find(|metric| metric.name == key.key().name()).expect("a listed name");
        let labels: Vec<_> = key.key().labels().map(metrics::Label::key).collect();
        assert_eq!(labels, metric.labels, "{}", metric.name);
        assert!(description.is_some_and(|description| &*description == metric.description));
        let last = key.key().labels().last().map(|label| label.value().to_owned()).unwrap_or_default();
        match value {
            DebugValue::Counter(0) => {}
            DebugValue::Counter(count) => published.push((metric.name, last, count)),
            DebugValue::Histogram(samples) => published.push((metric.name, last, samples.len() as u64)),
            DebugValue::Gauge(_) => {}
        }
    }
    published.sort();
    let expected = [
        ("mainstay_call_duration_seconds", "published", 4),
        ("mainstay_calls_total", "rejected", 1),
        ("mainstay_calls_total", "success", 2),
        ("mainstay_calls_total", "transient", 1),
        ("mainstay_rejections_total", "shed", 1),
    ];
    assert_eq!(published, expected.map(|(name, label, count)| (name, label.to_owned(), count)));
}

#[cfg(feature = "tracing")]
mod spans {
    use std::sync::{Arc, Mutex};

    use super::*;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing_subscriber::layer::{Context, SubscriberExt};

    thread_local! {
        /// What this thread's test reads.
        static FIELDS: Fields = Fields::default();
    }

    /// Writes down each span's fields as they are set, in the list of the thread that sets them.
    #[derive(Clone, Default)]
    struct Fields(Arc<Mutex<Vec<String>>>);

    struct OfThread;

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push(format!("{}={value:?}", field.name()));
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.lock().unwrap().push(format!("{}={value}", field.name()));
        }
    }

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for OfThread {
        fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            attributes.record(&mut FIELDS.with(Fields::clone));
        }

        fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
            values.record(&mut FIELDS.with(Fields::clone));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_span_carries_the_name_and_how_the_call_ended() {
        // For the whole process. With a subscriber of this thread alone, another test of the same process can be the first to
        // reach the span's call site; tracing then caches for all threads that no one is interested in it.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(OfThread)).unwrap();
        tracing::callsite::rebuild_interest_cache();
        let fields = FIELDS.with(Fields::clone);

        let layer = TelemetryLayer::new("spanned");
        service(&layer).oneshot(Do::Answer(200)).await.unwrap();
        let mut hanging = task::spawn(service(&layer).oneshot(Do::Hang));
        assert_pending!(hanging.poll());
        drop(hanging);
        let seen = fields.0.lock().unwrap().clone();
        assert_eq!(seen, ["name=spanned", "outcome=success", "name=spanned", "outcome=abandoned"]);
    }
}
