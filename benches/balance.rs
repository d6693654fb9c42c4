//! What a pool adds to a call, by picker and by number of endpoints; the handle reused and cloned for each call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mainstay::BoxError;
use mainstay::balance::{Picker, Pool};
use tower_service::Service;

/// Ready at once; answers at its `polls`-th poll.
#[derive(Clone)]
struct Bare {
    polls: u32,
}

struct Answer {
    left: u32,
}

impl Service<u32> for Bare {
    type Response = u32;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Answer {
        Answer { left: self.polls }
    }
}

impl Future for Answer {
    type Output = Result<u32, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.left -= 1;
        if self.left == 0 { Poll::Ready(Ok(1)) } else { Poll::Pending }
    }
}

fn drive<S: Service<u32>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = pin!(poll_fn(|cx| service.poll_ready(cx))).poll(&mut cx);
    assert!(ready.is_ready());
    let mut call = pin!(service.call(1));
    while call.as_mut().poll(&mut cx).is_pending() {}
}

fn pool(picker: Picker, endpoints: usize, polls: u32) -> Pool<usize, Bare> {
    let pool = Pool::builder("bench").picker(picker).build().expect("the defaults are valid");
    pool.handle().add_all((0..endpoints).map(|key| (key, Bare { polls })));
    pool
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance");
    for polls in [1, 2] {
        let inner = if polls == 1 { "ready" } else { "pending" };
        group.bench_function(format!("bare/{inner}"), |bencher| {
            let mut bare = Bare { polls };
            bencher.iter(|| drive(&mut bare));
        });
        for picker in [Picker::PeakEwma, Picker::InFlight, Picker::RoundRobin] {
            for endpoints in [10, 1_000] {
                let name = format!("{}/{inner}", picker.as_str());
                group.bench_function(BenchmarkId::new(&name, endpoints), |bencher| {
                    let mut pool = pool(picker, endpoints, polls);
                    bencher.iter(|| drive(&mut pool));
                });
            }
            group.bench_function(format!("{}/{inner}/cloned", picker.as_str()), |bencher| {
                let pool = pool(picker, 10, polls);
                bencher.iter(|| drive(&mut pool.clone()));
            });
        }
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
