//! Timeouts, deadlines, readiness and the ambient context.

#![cfg(all(feature = "timeout", feature = "retry"))]

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::context::{self, Context};
use mainstay::retry::RetryLayer;
use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
use mainstay::{BoxError, Outcome, Rejectable, Rejected};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What is left until the deadline, and of what is propagated.
fn left() -> (Option<Duration>, Option<Duration>) {
    let (now, context) = (Instant::now(), context::current());
    let until = |end: Option<Instant>| end.map(|end| end.saturating_duration_since(now));
    (until(context.deadline()), until(context.propagated_deadline()))
}

#[tokio::test(start_paused = true)]
async fn entry_19_an_attempt_timeout_lowers_what_is_propagated_and_leaves_the_deadline() {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("users", 2 * SECOND).unwrap())
        .layer(TimeoutLayer::attempt("users", millis(500)).unwrap())
        .service(service_fn(|()| async { Ok::<_, BoxError>(left()) }));
    assert_eq!(service.oneshot(()).await.unwrap(), (Some(2 * SECOND), Some(millis(500))));
    assert_eq!(left(), (None, None), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn entry_19_the_deadline_is_propagated_where_it_is_the_nearer_one() {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("users", millis(300)).unwrap())
        .layer(TimeoutLayer::attempt("users", millis(500)).unwrap())
        .service(service_fn(|()| async { Ok::<_, BoxError>(left()) }));
    assert_eq!(service.oneshot(()).await.unwrap(), (Some(millis(300)), Some(millis(300))));
}

/// In the `call` of the inner service and in each poll of its future, whatever was polled in between.
#[tokio::test(start_paused = true)]
async fn entry_19_an_attempt_without_a_deadline_propagates_its_end_for_as_long_as_it_runs() {
    let attempt = TimeoutLayer::attempt("users", millis(500)).unwrap();
    let mut service = attempt.layer(service_fn(|()| {
        let at_call = left();
        async move {
            sleep(millis(100)).await;
            Ok::<_, BoxError>([at_call, left()])
        }
    }));
    let mut other = attempt.layer(service_fn(|()| pending::<Result<(), BoxError>>()));
    let mut call = task::spawn(Service::call(&mut service, ()));
    assert!(call.poll().is_pending());
    let mut beside = task::spawn(Service::call(&mut other, ()));
    assert!(beside.poll().is_pending());
    assert_eq!(left(), (None, None));
    advance(millis(100)).await;
    assert_eq!(assert_ready_ok!(call.poll()), [(None, Some(millis(500))), (None, Some(millis(400)))]);
}

#[tokio::test(start_paused = true)]
async fn entry_19_of_nested_attempts_the_nearest_end_is_propagated() {
    for (outer, inner) in [(300, 500), (500, 300)] {
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::attempt("outer", millis(outer)).unwrap())
            .layer(TimeoutLayer::total("total", 2 * SECOND).unwrap())
            .layer(TimeoutLayer::attempt("inner", millis(inner)).unwrap())
            .service(service_fn(|()| async { Ok::<_, BoxError>(left()) }));
        assert_eq!(service.oneshot(()).await.unwrap(), (Some(2 * SECOND), Some(millis(300))));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_19_each_attempt_of_a_retry_with_an_attempt_timeout_propagates_its_own_end() {
    let quick = RetryLayer::builder("users").max_attempts(3).backoff(BackoffConfig::none());
    let retry = quick.attempt_timeout(millis(500)).build().unwrap();
    let total = TimeoutLayer::total("users", millis(1_200)).unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let service = ServiceBuilder::new().layer(total).layer(retry).service(service_fn(|()| {
        seen.lock().unwrap().push(left());
        pending::<Result<(), BoxError>>()
    }));
    service.oneshot(()).await.unwrap_err();
    let expected = [(1_200, 500), (700, 500), (200, 200)].map(|(one, other)| (Some(millis(one)), Some(millis(other))));
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// The end of an attempt must not read as the caller's deadline to the layers between.
#[tokio::test(start_paused = true)]
async fn entry_19_an_attempts_own_timeout_is_still_evidence_against_the_callee() {
    let inner = TimeoutLayer::attempt("inner", SECOND).unwrap();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::attempt("outer", SECOND).unwrap())
        .layer(inner.clone())
        .service(service_fn(|()| pending::<Result<(), BoxError>>()));
    let error = service.oneshot(()).await.unwrap_err();
    let rejected = error.as_rejected().unwrap();
    assert_eq!(
        (rejected, rejected.outcome()),
        (&Rejected::Timeout { timeout: SECOND, sent: true }, Outcome::Transient)
    );
    assert_eq!(inner.handle().statistics().timed_out, 1);
}

#[tokio::test(start_paused = true)]
async fn entry_19_a_context_that_is_carried_into_a_task_takes_the_end_of_the_attempt_along() {
    let service = TimeoutLayer::attempt("users", millis(500)).unwrap().layer(service_fn(|()| async {
        let carried = tokio::spawn(context::carry(async { left() }));
        let fresh = Context::new().scope(async { left() });
        Ok::<_, BoxError>((carried.await.unwrap(), fresh.await))
    }));
    assert_eq!(service.oneshot(()).await.unwrap(), ((None, Some(millis(500))), (None, None)));
}

#[tokio::test(start_paused = true)]
async fn entry_27_a_timeouts_future_panics_when_it_is_polled_after_its_end() {
    for layer in [TimeoutLayer::attempt("test", SECOND).unwrap(), TimeoutLayer::total("test", SECOND).unwrap()] {
        let answers = service_fn(|ok: bool| async move { if ok { Ok(()) } else { Err(BoxError::from("no")) } });
        for ok in [true, false] {
            let mut call = task::spawn(layer.layer(answers).call(ok));
            assert!(call.poll().is_ready());
            assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err(), "after a result");
        }
        let mut call = task::spawn(layer.layer(service_fn(|()| pending::<Result<(), BoxError>>())).call(()));
        assert!(call.poll().is_pending());
        advance(millis(1_001)).await;
        assert_ready_err!(call.poll());
        assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err(), "after a timeout");

        let over = Context::new().with_deadline(Instant::now());
        let mut call = task::spawn(over.enter(|| layer.layer(answers).call(true)));
        assert_ready_err!(call.poll());
        assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err(), "after a call that was not sent");
        assert_eq!(layer.handle().statistics().calls(), 4, "each was counted once");
    }
}

/// In the inner service's `call`, in its future, and in the function that computes the timeout.
#[tokio::test(start_paused = true)]
async fn entry_24_a_panic_under_a_timeout_is_counted_wherever_it_comes_from() {
    for config in [TimeoutConfig::attempt(SECOND), TimeoutConfig::total(SECOND)] {
        let layer = TimeoutLayer::new("test", config).unwrap();
        let mut at_call =
            layer.layer(service_fn(|()| -> std::future::Ready<Result<(), BoxError>> { panic!("in call") }));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(Service::call(&mut at_call, ())))).is_err());
        assert_eq!((layer.handle().statistics().abandoned, layer.handle().statistics().calls()), (1, 1));

        let in_poll = layer.layer(service_fn(|()| async { panic!("in poll") as Result<(), BoxError> }));
        assert!(tokio::spawn(in_poll.oneshot(())).await.unwrap_err().is_panic());
        assert_eq!((layer.handle().statistics().abandoned, layer.handle().statistics().calls()), (2, 2));

        let compute = |(): &()| -> Option<Duration> { panic!("in a function of the user") };
        let computed = TimeoutLayer::computed("test", config, compute).unwrap();
        let mut service = computed.layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(Service::call(&mut service, ())))).is_err());
        assert_eq!((computed.handle().statistics().abandoned, computed.handle().statistics().calls()), (1, 1));
    }
}
