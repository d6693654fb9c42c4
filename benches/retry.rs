//! What a retry adds to a call.

mod inner;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::backoff::BackoffConfig;
use mainstay::budget::Budget;
use mainstay::{RetryLayer, context};
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt, service_fn};

fn retry() -> RetryLayer {
    RetryLayer::builder("bench").backoff(BackoffConfig::none()).build().expect("valid")
}

fn benches(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = criterion.benchmark_group("retry");
    macro_rules! reused {
        ($name:literal, $service:expr) => {
            let mut service = $service;
            group.bench_function($name, |bencher| {
                bencher.iter(|| runtime.block_on(async { service.ready().await.unwrap().call(1).await.unwrap() }));
            });
        };
    }
    macro_rules! cloned {
        ($name:literal, $service:expr) => {
            let service = $service;
            group.bench_function(concat!($name, ", a clone a call"), |bencher| {
                bencher.iter(|| runtime.block_on(service.clone().oneshot(1)).unwrap());
            });
        };
    }
    reused!("bare/ready", inner::ready());
    reused!("layer/ready", retry().layer(inner::ready()));
    reused!("bare/pending", inner::pending());
    reused!("layer/pending", retry().layer(inner::pending()));
    cloned!("bare/ready", inner::ready());
    cloned!("layer/ready", retry().layer(inner::ready()));
    cloned!("layer/pending", retry().layer(inner::pending()));

    let layer = RetryLayer::builder("bench").backoff(BackoffConfig::none()).budget(Budget::unlimited());
    let fails_once = service_fn(|request: u64| {
        let failed = context::current().attempt() == 1;
        std::future::ready(if failed { Err(mainstay::Error::Service(())) } else { Ok(request) })
    });
    let fails_once = layer.build().expect("valid").layer(fails_once);
    reused!("layer/one failure, no delay", fails_once.clone());
    cloned!("layer/one failure, no delay", fails_once);
    group.finish();

    criterion.bench_function("budget/record_sent", |bencher| {
        let budget = Budget::default();
        bencher.iter(|| budget.record_sent());
    });
    criterion.bench_function("budget/try_withdraw, empty", |bencher| {
        let budget = Budget::default();
        while budget.try_withdraw() {}
        bencher.iter(|| budget.try_withdraw());
    });
    criterion.bench_function("backoff/next", |bencher| {
        let backoff = BackoffConfig::default().build().expect("valid");
        bencher.iter(|| black_box(backoff.delays_seeded(1)).next());
    });
}

criterion_group!(all, benches);
criterion_main!(all);
