//! What a timeout adds to a call.

mod inner;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::TimeoutLayer;
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt};

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
    reused!("bare/ready", inner::ready());
    reused!("attempt/ready", attempt.layer(inner::ready()));
    reused!("total/ready", total.layer(inner::ready()));
    reused!("bare/pending", inner::pending());
    reused!("attempt/pending", attempt.layer(inner::pending()));
    reused!("total/pending", total.layer(inner::pending()));
    cloned!("bare/ready", inner::ready());
    cloned!("attempt/ready", attempt.layer(inner::ready()));
    cloned!("total/ready", total.layer(inner::ready()));
    cloned!("bare/pending", inner::pending());
    cloned!("attempt/pending", attempt.layer(inner::pending()));
    cloned!("total/pending", total.layer(inner::pending()));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
