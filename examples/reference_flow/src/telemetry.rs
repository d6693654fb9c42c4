//! Logs and metrics, the same for every part: JSON lines in a file of its own, and a recorder for `/metrics`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Instrument as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::net::{ATTEMPT, CACHE, REQUEST_ID, SERVED_BY, header_text};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Standard error, with the part's name before each line.
#[derive(Clone, Debug)]
struct Named {
    part: String,
}

/// Writes what this process logs to `<folder>/<part>.log`, one JSON object a line, and to stderr if `verbose`.
pub(crate) fn write_logs(part: &str, folder: &Path, verbose: bool) -> anyhow::Result<()> {
    let path = folder.join(format!("{part}.log"));
    let file = Arc::new(File::create(&path).with_context(|| format!("cannot write {}", path.display()))?);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false).with_target(false);
    let echo = verbose.then(|| {
        let stderr = Named { part: format!("{part:<9} ") };
        tracing_subscriber::fmt::layer()
            .compact()
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || stderr.clone())
    });
    tracing_subscriber::registry()
        .with(EnvFilter::new("warn,reference_flow=info,mainstay=info"))
        .with(lines.with_writer(file))
        .with(echo)
        .try_init()?;
    Ok(())
}

/// Records the metrics of this process: the library's own and the HTTP server's.
pub(crate) fn record_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)?
        .install_recorder()?;
    metrics::describe_counter!("http_requests_total", "Requests answered, by route and status.");
    metrics::describe_histogram!("http_request_seconds", "Time from a request's head to its answer, by route.");
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Around every route: finds or makes the request's id, logs the request under it, and counts it.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let id = match request.headers().get(REQUEST_ID) {
        Some(id) if id.len() <= 64 && id.to_str().is_ok() => id.clone(),
        _ => {
            let id = HeaderValue::from_str(&new_request_id()).expect("hexadecimal digits");
            request.headers_mut().insert(REQUEST_ID, id.clone());
            id
        }
    };
    // A label must not take its values from outside: the route's pattern, never the path.
    let route = match request.extensions().get::<MatchedPath>() {
        Some(pattern) => pattern.as_str().to_owned(),
        None => "forwarded".to_owned(),
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());
    let started = tokio::time::Instant::now();

    let mut response = next.run(request).instrument(span.clone()).await;

    let (status, taken) = (response.status().as_u16(), started.elapsed());
    metrics::histogram!("http_request_seconds", "route" => route.clone()).record(taken);
    metrics::counter!("http_requests_total", "route" => route.clone(), "status" => status.to_string()).increment(1);
    // Probes and scrapes come several times a second and say nothing.
    if !matches!(route.as_str(), "/livez" | "/readyz" | "/metrics") {
        let micros = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        let [server, attempt, cache] = [SERVED_BY, ATTEMPT, CACHE].map(|name| optional_header(&response, name));
        span.in_scope(|| tracing::info!(%method, path, status, micros, server, attempt, cache, "answered"));
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn optional_header(response: &Response, name: HeaderName) -> Option<&str> {
    Some(header_text(response, name)).filter(|text| !text.is_empty())
}

/// 64 bits that no other request of this run has.
fn new_request_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", RandomState::new().hash_one((std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))))
}

// === impl Named ===

impl Write for Named {
    /// The formatter hands over whole lines.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().lock().write_all(&[self.part.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
