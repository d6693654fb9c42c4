//! What the cache costs: the bare service, moka's bare `get`, a hit through the layer, and a miss.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::Rejected;
use mainstay::cache::{CacheLayer, Lookup, MemoryStore, Store};
use tower::{Layer, Service};

/// Ready at once.
#[derive(Clone)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Rejected;
    type Future = Ready<Result<u64, Rejected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

fn once<S: Service<u64, Response = u64>>(service: &mut S, request: u64) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response,
        _ => unreachable!("a hit is ready at once"),
    }
}

fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let layer = CacheLayer::builder("bench").key(|key: &u64| Some(*key)).build().expect("valid");
    let mut cache = layer.layer(Echo);
    let store: MemoryStore<u64, u64> = layer.handle().store().clone();
    runtime.block_on(async {
        cache.call(7).await.expect("loads");
    });

    let mut group = criterion.benchmark_group("cache");
    group.bench_function("bare service", |bencher| {
        let mut echo = Echo;
        bencher.iter(|| once(&mut echo, black_box(7)));
    });
    group.bench_function("bare store", |bencher| {
        bencher.iter(|| match store.get_now(black_box(&7)) {
            Lookup::Known(Some(entry)) => *entry.answer().expect("a response"),
            _ => unreachable!("it is stored"),
        });
    });
    group.bench_function("hit", |bencher| bencher.iter(|| once(&mut cache, black_box(7))));
    group.bench_function("hit, service cloned per call", |bencher| {
        bencher.iter(|| once(&mut cache.clone(), black_box(7)));
    });
    group.bench_function("miss, inner ready", |bencher| {
        let mut key = 1000;
        bencher.iter(|| {
            key += 1;
            runtime.block_on(cache.call(black_box(key))).expect("loads")
        });
    });
    group.finish();
}

criterion_group!(cache, benches);
criterion_main!(cache);
