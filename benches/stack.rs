//! What three layers add to a call together: a total timeout, around a retry with its budget, around a breaker.

mod inner;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::backoff::BackoffConfig;
use mainstay::budget::Budget;
use mainstay::{BoxError, CircuitBreakerLayer, RetryLayer, TimeoutLayer, context};
use tokio::runtime::Builder;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

/// Fails each first attempt. A box of what has no size allocates nothing.
fn fails_once() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    service_fn(|request: u64| {
        let failed = context::current().attempt() == 1;
        std::future::ready(if failed { Err(std::fmt::Error.into()) } else { Ok(request) })
    })
}

fn benches(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = criterion.benchmark_group("stack");
    macro_rules! both {
        ($name:literal, $service:expr) => {
            let mut service = $service;
            group.bench_function(concat!($name, "/handle reused"), |bencher| {
                bencher.iter(|| runtime.block_on(async { service.ready().await.unwrap().call(1).await.unwrap() }));
            });
            group.bench_function(concat!($name, "/cloned per call"), |bencher| {
                bencher.iter(|| runtime.block_on(service.clone().oneshot(1)).unwrap());
            });
        };
    }
    let stack = |budget| {
        ServiceBuilder::new()
            .layer(TimeoutLayer::total("bench", Duration::from_secs(10)).expect("valid"))
            .layer(RetryLayer::builder("bench").backoff(BackoffConfig::none()).budget(budget).build().expect("valid"))
            // Of every two attempts one fails, and it is not to open.
            .layer(CircuitBreakerLayer::builder("bench").failure_rate(1.0).build().expect("valid"))
    };
    both!("bare, ready", inner::ready());
    both!("timeout > retry > breaker, ready", stack(Budget::default()).service(inner::ready()));
    both!("bare, pending", inner::pending());
    both!("timeout > retry > breaker, pending", stack(Budget::default()).service(inner::pending()));
    both!("timeout > retry > breaker, one failure", stack(Budget::unlimited()).service(fails_once()));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
