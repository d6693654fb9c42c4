//! What is measured: something that can be called many times, on one handle or on a clone a call.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tower::Service;

/// Whether the calls of a measurement share a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// All calls of a thread go through one handle of its own.
    Reused,
    /// Every call goes through a clone of its own of a shared handle, as axum and hyper do it.
    Cloned,
}

/// Many calls in a row; answers how many of them succeeded.
pub type Calls<'a> = Box<dyn FnMut(u64) -> u64 + Send + 'a>;

/// Something that can be called many times, from many threads.
pub trait Subject: Send + Sync {
    /// The loop of calls on such a handle.
    fn calls(&self, handle: Handle) -> Calls<'_>;
}

struct Of<F>(F);

impl<F: FnMut(u64) -> bool + Clone + Send + Sync> Subject for Of<F> {
    fn calls(&self, handle: Handle) -> Calls<'_> {
        match handle {
            Handle::Reused => {
                let mut call = self.0.clone();
                Box::new(move |calls| (0..calls).map(|request| u64::from(call(request))).sum())
            }
            Handle::Cloned => Box::new(|calls| {
                let clone_and_call = |request| u64::from((self.0.clone())(request));
                (0..calls).map(clone_and_call).sum()
            }),
        }
    }
}

/// Calls `call` with numbers; it answers whether the call succeeded.
pub fn closure(call: impl FnMut(u64) -> bool + Clone + Send + Sync + 'static) -> Box<dyn Subject> {
    Box::new(Of(call))
}

/// Makes the service ready, calls it, and polls the answer.
pub fn service<S>(mut service: S) -> Box<dyn Subject>
where
    S: Service<u64, Response = u64> + Clone + Send + Sync + 'static,
{
    closure(move |request| call(&mut service, request))
}

struct OnePerThread<F>(F);

impl<F, S> Subject for OnePerThread<F>
where
    F: Fn() -> S + Send + Sync,
    S: Service<u64, Response = u64> + Send + 'static,
{
    fn calls(&self, _: Handle) -> Calls<'_> {
        let mut service = (self.0)();
        Box::new(move |calls| (0..calls).map(|request| u64::from(call(&mut service, request))).sum())
    }
}

/// The same for a service that cannot be cloned: each loop of calls gets its own.
pub fn not_clone<S>(make: impl Fn() -> S + Send + Sync + 'static) -> Box<dyn Subject>
where
    S: Service<u64, Response = u64> + Send + 'static,
{
    Box::new(OnePerThread(make))
}

#[inline]
fn call<S: Service<u64, Response = u64>>(service: &mut S, request: u64) -> bool {
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
    let ready = if let Poll::Ready(ready) = ready { ready.is_ok() } else { wait_until_ready(service) };
    ready && succeeds(service.call(request))
}

/// Polls `future` to its end, and answers whether it succeeded. The first poll comes with a waker that does nothing, since most
/// need no other; a thread that has to wait parks.
#[inline]
pub fn succeeds<T, E>(future: impl Future<Output = Result<T, E>>) -> bool {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.is_ok(),
        Poll::Pending => finish(future).is_ok(),
    }
}

/// Runs `future` to its end on this thread.
pub fn finish<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    with_waker(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            thread::park();
        }
    })
}

#[cold]
#[inline(never)]
fn wait_until_ready<S: Service<u64>>(service: &mut S) -> bool {
    let ready = pin!(std::future::poll_fn(|cx| service.poll_ready(cx)));
    finish(ready).is_ok()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

fn with_waker<T>(run: impl FnOnce(&Waker) -> T) -> T {
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    }
    WAKER.with(run)
}

/// A runtime for the timers, in the state that a running one is in: its driver has slept and knows when to wake next, so that
/// a timer further away does not wake it.
///
/// # Panics
///
/// When the runtime can't be built.
pub fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.spawn(async { tokio::time::sleep(Duration::from_secs(300)).await });
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
    runtime
}
