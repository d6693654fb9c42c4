//! What is done once a call (classifying a response, sending the context along) and once a question (a report).

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use mainstay::context::Context;
use mainstay::health::{HealthReport, Monitor, Role, TcpProbe};
use mainstay::http::{AcceptContextLayer, PropagateLayer};
use mainstay::{Classify, HttpClassifier};
use tower::{Layer, Service};

/// Answers at once.
#[derive(Clone)]
struct Bare;

impl Service<Request<()>> for Bare {
    type Response = Response<()>;
    type Error = mainstay::BoxError;
    type Future = Ready<Result<Response<()>, mainstay::BoxError>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), mainstay::BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(request);
        ready(Ok(Response::new(())))
    }
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut cx = TaskContext::from_waker(std::task::Waker::noop());
    std::pin::pin!(future).poll(&mut cx)
}

fn http(c: &mut Criterion) {
    let classifier = HttpClassifier::new();
    let overridden =
        classifier.clone().on_statuses(520..=524, mainstay::Outcome::Transient).expect("these are statuses");
    let ok = Response::new(());
    let throttled = Response::builder().status(429).header("retry-after", "10").body(()).expect("a response");

    let mut group = c.benchmark_group("http");
    group.bench_function("classify/200", |b| b.iter(|| classifier.classify(black_box(Ok::<_, &Infallible>(&ok)))));
    group.bench_function("classify/200, with overrides", |b| {
        b.iter(|| overridden.classify(black_box(Ok::<_, &Infallible>(&ok))));
    });
    group.bench_function("classify/429 with Retry-After", |b| {
        b.iter(|| classifier.classify(black_box(Ok::<_, &Infallible>(&throttled))));
    });

    let (mut bare, mut propagate, mut accept) =
        (Bare, PropagateLayer::new().layer(Bare), AcceptContextLayer::default().layer(Bare));
    let context = Context::new().with_attempt(1);
    let with_deadline = || Request::get("/").header("x-mainstay-deadline-ms", "1500").body(()).expect("a request");
    group.bench_function("bare", |b| b.iter(|| poll_once(bare.call(Request::new(())))));
    group.bench_function("propagate/nothing", |b| b.iter(|| poll_once(propagate.call(Request::new(())))));
    group.bench_function("propagate/attempt", |b| {
        b.iter(|| context.enter(|| poll_once(propagate.call(Request::new(())))));
    });
    group.bench_function("bare, with a header", |b| b.iter(|| poll_once(bare.call(with_deadline()))));
    group.bench_function("accept/nothing", |b| b.iter(|| poll_once(accept.call(Request::new(())))));
    group.bench_function("accept/deadline", |b| b.iter(|| poll_once(accept.call(with_deadline()))));
    group.finish();
}

fn report(c: &mut Criterion) {
    let report = HealthReport::new("shop");
    report.mark_started();
    for part in 0..10 {
        report.add_check(format!("part-{part}"), Role::Optional, || Err("down")).expect("names differ");
    }
    let mut group = c.benchmark_group("health");
    group.bench_function("report/10 parts", |b| b.iter(|| black_box(report.readiness())));
    group.bench_function("report/10 parts, as JSON", |b| b.iter(|| black_box(report.readiness().to_json())));

    let monitor = Monitor::builder("upstreams").interval(Duration::from_secs(3_600)).build().expect("valid");
    for target in 0..1_000 {
        monitor.add(target, TcpProbe::new("127.0.0.1:1"));
    }
    group.bench_function("monitor/status, 1 000 targets", |b| b.iter(|| monitor.status(black_box(&500))));
    group.finish();
}

criterion_group!(benches, http, report);
criterion_main!(benches);
