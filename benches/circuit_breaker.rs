//! What a breaker adds to a call: the layer against the bare service, by state and window, on one handle and on a clone a
//! call, with an inner future that is ready at once and one that is pending first.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, OpenTime, SlowCalls, Window};
use mainstay::{CircuitState, Error};
use tower::{Layer, Service};

#[derive(Clone)]
struct Bare {
    pending: bool,
}

struct Answer {
    pending: bool,
    request: u64,
}

impl Future for Answer {
    type Output = Result<u64, Error<std::convert::Infallible>>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pending) { Poll::Pending } else { Poll::Ready(Ok(self.request)) }
    }
}

impl Service<u64> for Bare {
    type Response = u64;
    type Error = Error<std::convert::Infallible>;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answer {
        Answer { pending: self.pending, request: black_box(request) }
    }
}

fn call<S: Service<u64>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(poll_fn(|cx| service.poll_ready(cx))).poll(&mut cx).is_ready());
    let mut future = pin!(service.call(1));
    while future.as_mut().poll(&mut cx).is_pending() {}
}

fn compare<S: Service<u64> + Clone>(c: &mut Criterion, name: &str, mut service: S) {
    // Fills the window.
    (0..1_000).for_each(|_| call(&mut service));
    c.bench_function(&format!("{name}/handle reused"), |b| b.iter(|| call(&mut service)));
    c.bench_function(&format!("{name}/cloned per call"), |b| b.iter(|| call(&mut service.clone())));
}

fn layer(change: impl FnOnce(&mut CircuitBreakerConfig)) -> CircuitBreakerLayer {
    let mut config = CircuitBreakerConfig::default();
    change(&mut config);
    CircuitBreakerLayer::new("bench", config).expect("valid")
}

/// A half-open breaker whose one probe is under way, and stays so.
fn half_open() -> CircuitBreakerLayer {
    let layer = layer(|config| (config.probes, config.open_time) = (1, OpenTime::Constant(Duration::ZERO)));
    layer.handle().transition_to(CircuitState::Open).expect("closed before");
    std::mem::forget(layer.handle().try_acquire().expect("a probe is due"));
    assert_eq!(layer.handle().state(), CircuitState::HalfOpen);
    layer
}

fn circuit_breaker(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    for (inner, pending) in [("ready", false), ("pending", true)] {
        let bare = Bare { pending };
        compare(c, &format!("bare/{inner}"), bare.clone());
        compare(c, &format!("closed, count window/{inner}"), layer(|_| ()).layer(bare.clone()));
        let time_window = layer(|config| config.window = Window::Time { length: Duration::from_secs(60) });
        compare(c, &format!("closed, time window/{inner}"), time_window.layer(bare.clone()));
        let slow = SlowCalls { longer_than: Duration::from_secs(1), rate: 0.5 };
        let slow_calls = layer(|config| config.slow_calls = Some(slow));
        compare(c, &format!("closed, slow calls/{inner}"), slow_calls.layer(bare.clone()));
        let open = layer(|_| ());
        open.handle().open_for(Duration::from_secs(3600)).expect("closed before");
        compare(c, &format!("open/{inner}"), open.layer(bare.clone()));
        compare(c, &format!("half-open, refusal/{inner}"), half_open().layer(bare));
    }
}

criterion_group!(benches, circuit_breaker);
criterion_main!(benches);
