//! A call that is dropped at every point at which it can be.
#![cfg(feature = "retry")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::budget::Budget;
use mainstay::{BoxError, RetryLayer};
use tokio::time::advance;
use tokio_test::task;
use tower::{Layer, Service};

/// Is not ready at the first poll of each attempt after the first, and each attempt is pending twice before it fails.
struct Slow {
    calls: Arc<AtomicU32>,
    held: Arc<()>,
    polled: bool,
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), held: self.held.clone(), polled: false }
    }
}

impl Service<()> for Slow {
    type Response = ();
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if std::mem::replace(&mut self.polled, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, Relaxed);
        self.polled = false;
        let (held, mut polls) = (self.held.clone(), 0);
        Box::pin(poll_fn(move |cx| {
            let _held = &held;
            polls += 1;
            if polls > 2 {
                return Poll::Ready(Err("down".into()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

/// Scenario 5: a caller that leaves before, during and between attempts.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_is_counted_once_and_gives_back_what_did_not_start() {
    let mut ended = None;
    for polls in 0..100 {
        let budget = Budget::default();
        let backoff = BackoffConfig::constant(Duration::from_millis(100));
        let layer = RetryLayer::builder("test").backoff(backoff).budget(budget.clone()).build().unwrap();
        let (calls, held) = (Arc::new(AtomicU32::new(0)), Arc::new(()));
        let mut service = layer.layer(Slow { calls: calls.clone(), held: held.clone(), polled: true });
        let mut call = task::spawn(service.call(()));
        let mut ready = false;
        for _ in 0..polls {
            ready = call.poll().is_ready();
            // Long enough to end a delay, which the next poll then sees.
            advance(Duration::from_millis(101)).await;
        }
        drop(call);
        drop(service);
        let (started, counted) = (calls.load(Relaxed), layer.handle().statistics());
        assert_eq!(Arc::strong_count(&held), 1, "dropped after {polls} polls");
        assert_eq!((counted.calls(), counted.abandoned), (1, u64::from(!ready)), "after {polls} polls");
        assert_eq!(counted.retries, u64::from(started) - 1, "after {polls} polls");
        // The first attempt ends at the third poll; from then on the call has earned its share.
        let earned = if polls < 3 { 0.0 } else { 0.2 };
        let spent = f64::from(started - 1);
        assert!((budget.balance() - (10.0 + earned - spent)).abs() < 1e-9, "{} after {polls}", budget.balance());
        if ready {
            assert_eq!((started, counted.gave_up_attempts), (3, 1));
            ended = Some(polls);
            break;
        }
    }
    // Three polls for each attempt; between two of them, one for the readiness that the end of the delay leads to.
    assert!(ended.is_some_and(|polls| polls >= 9), "{ended:?}: every point was dropped at");
}
