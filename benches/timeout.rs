//! What a timeout adds to a call.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::{BoxError, TimeoutLayer};
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt, service_fn};

fn ready_inner() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    service_fn(|request: u64| std::future::ready(Ok(black_box(request))))
}

fn pending_inner() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    service_fn(|request: u64| async move {
        tokio::task::yield_now().await;
        Ok(request)
    })
}

fn benches(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = criterion.benchmark_group("timeout");
    let attempt = TimeoutLayer::attempt("bench", Duration::from_secs(10)).expect("valid");
    let total = TimeoutLayer::total("bench", Duration::from_secs(10)).expect("valid");
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
    reused!("bare/ready", ready_inner());
    reused!("attempt/ready", attempt.layer(ready_inner()));
    reused!("total/ready", total.layer(ready_inner()));
    reused!("bare/pending", pending_inner());
    reused!("attempt/pending", attempt.layer(pending_inner()));
    reused!("total/pending", total.layer(pending_inner()));
    cloned!("bare/ready", ready_inner());
    cloned!("attempt/ready", attempt.layer(ready_inner()));
    cloned!("total/ready", total.layer(ready_inner()));
    cloned!("bare/pending", pending_inner());
    cloned!("attempt/pending", attempt.layer(pending_inner()));
    cloned!("total/pending", total.layer(pending_inner()));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
