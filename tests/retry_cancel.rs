//! A call that is dropped at every point at which it can be.
#![cfg(feature = "retry")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::budget::{Budget, InFlightConfig};
use mainstay::{BoxError, RetryLayer, context};
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

/// Envoy's rule: of 40 calls in flight at most a fifth may have a retry in flight, or 3 of a few.
#[tokio::test(start_paused = true)]
async fn retries_in_flight_stay_within_a_share_of_the_calls_in_flight() {
    for (calls, allowed) in [(40, 8), (5, 3)] {
        let budget = Budget::in_flight(InFlightConfig::default()).unwrap();
        let layer = RetryLayer::builder("test").backoff(BackoffConfig::none()).budget(budget.clone()).build().unwrap();
        let mut running: Vec<_> = (0..calls)
            .map(|_| {
                // The second attempt of each never ends.
                let call = layer.run(|| async {
                    if context::current().attempt() > 1 {
                        std::future::pending::<()>().await;
                    }
                    Err::<(), _>(BoxError::from("down"))
                });
                task::spawn(call)
            })
            .collect();
        let given_up = running.iter_mut().filter_map(|call| match call.poll() {
            Poll::Ready(result) => Some(result.unwrap_err().to_string()),
            Poll::Pending => None,
        });
        assert_eq!(given_up.filter(|error| error == "down").count(), calls - allowed);
        let counted = layer.handle().statistics();
        assert_eq!((counted.retries, counted.gave_up_budget), (allowed as u64, (calls - allowed) as u64));
        assert_eq!(budget.balance(), 0.0);
        drop(running);
        assert_eq!(budget.balance(), 3.0, "dropped while they ran, all of them are out of the count");
        layer.run(|| async { Err::<(), _>(BoxError::from("down")) }).await.unwrap_err();
        assert_eq!(
            (layer.handle().statistics().gave_up_attempts, budget.balance()),
            (1, 3.0),
            "each retry was settled"
        );
    }
}
