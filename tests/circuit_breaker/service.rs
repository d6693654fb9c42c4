//! The layer around a service: readiness, cancellation, panics, allocations.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use allocation_counter::measure;
use mainstay::circuit_breaker::{CircuitBreaker, CircuitBreakerHandle, CircuitBreakerLayer, OpenTime};
use mainstay::{BoxError, CircuitState, DefaultClassifier, Error, Outcome, Rejectable, Rejected, classify_fn};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_test::mock;

use crate::support::*;

type Mocked = CircuitBreaker<mock::Mock<u32, u32>, DefaultClassifier>;
type Calls = mock::Handle<u32, u32>;

/// A mock behind a breaker that trips on the first failure and admits one probe.
fn spawn(builder: Builder) -> (mock::Spawn<Mocked>, Calls, CircuitBreakerHandle) {
    let breaker = builder.build_handle().unwrap();
    let (service, calls) = mock::spawn_layer(breaker.layer());
    (service, calls, breaker)
}

fn first_failure() -> Builder {
    consecutive(1).open_time(OpenTime::Constant(secs(30))).probes(1)
}

#[track_caller]
fn assert_refused(result: Result<u32, BoxError>) {
    let error = result.unwrap_err();
    assert!(error.as_rejected().is_some_and(Rejected::is_circuit_open), "{error}");
}

#[tokio::test(start_paused = true)]
async fn calls_pass_and_are_judged() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    assert_pending!(response.poll());
    let (request, answer) = calls.next_request().await.unwrap();
    answer.send_response(request + 1);
    assert_eq!(assert_ready_ok!(response.poll()), 2);
    assert_eq!(breaker.statistics().successes, 1);

    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    calls.next_request().await.unwrap().1.send_error("reset");
    assert_eq!(assert_ready_err!(response.poll()).to_string(), "reset");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_neither_polls_nor_calls_and_thirty_seconds_later_sends_one_probe_r7() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    calls.allow(0);
    run(&breaker, "F");
    advance(secs(30) - millis(1)).await;
    assert_ready_ok!(service.poll_ready(), "the inner service is not ready, and is not asked");
    assert_refused(assert_ready!(task::spawn(service.call(1)).poll()));
    assert_pending!(task::spawn(calls.next_request()).poll());

    advance(millis(1)).await;
    assert_pending!(service.poll_ready(), "a probe needs a service that is ready");
    calls.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut probe = task::spawn(service.call(7));
    assert_eq!(breaker.state(), CircuitState::HalfOpen, "the slot is taken in `call`");
    let (request, answer) = calls.next_request().await.unwrap();
    assert_eq!(request, 7);
    answer.send_response(8);
    assert_eq!(assert_ready_ok!(probe.poll()), 8);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_after_a_refusing_poll_ready_refuses_although_it_may_be_half_open_by_now() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    run(&breaker, "F");
    assert_ready_ok!(service.poll_ready());
    advance(secs(30)).await;
    assert_refused(assert_ready!(task::spawn(service.call(1)).poll()));
    assert_eq!(breaker.state(), CircuitState::Open, "no slot was taken");

    // The same when it was closed in between.
    assert_eq!(breaker.statistics().rejected, 1);
    breaker.force_open();
    assert_ready_ok!(service.poll_ready());
    breaker.close();
    assert_refused(assert_ready!(task::spawn(service.call(1)).poll()));
    assert_pending!(task::spawn(calls.next_request()).poll());
    assert_eq!(breaker.statistics().rejected, 2);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_was_made_ready_takes_the_probe_although_it_opened_in_between() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    assert_ready_ok!(service.poll_ready());
    run(&breaker, "F");
    assert_ready_ok!(service.poll_ready());
    advance(secs(30)).await;
    let mut probe = task::spawn(service.call(1));
    calls.next_request().await.unwrap().1.send_response(2);
    assert_eq!(assert_ready_ok!(probe.poll()), 2);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_poll_ready_never_reaches_the_inner_service() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    let error = assert_ready_err!(task::spawn(service.call(1)).poll());
    assert_eq!(error.to_string(), "circuit `test` is closed; not sent: the service was called before it was ready");
    assert_eq!((breaker.statistics().ignored, breaker.statistics().rejected), (1, 0));
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.get_ref().clone();
    assert_refused(assert_ready!(task::spawn(clone.call(1)).poll()));
    assert_pending!(task::spawn(calls.next_request()).poll());
}

#[tokio::test(start_paused = true)]
async fn errors_of_poll_ready_pass_and_are_no_calls() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    calls.send_error("gone");
    assert_eq!(assert_ready_err!(service.poll_ready()).to_string(), "gone");
    assert_eq!(breaker.statistics().calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_dropped_at_any_poll_gives_its_slot_back() {
    for polls in 0..3 {
        let (mut service, _calls, breaker) = spawn(first_failure());
        run(&breaker, "F");
        advance(secs(30)).await;
        assert_ready_ok!(service.poll_ready());
        let mut probe = task::spawn(service.call(1));
        (0..polls).for_each(|_| assert_pending!(probe.poll()));
        assert!(breaker.try_acquire().is_err());
        drop(probe);
        let now = breaker.statistics();
        assert_eq!((now.probes_in_flight, now.abandoned), (0, 1), "after {polls} polls");
        assert!(breaker.try_acquire().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_future_that_is_dropped_is_not_abandoned() {
    let (mut service, mut calls, breaker) = spawn(first_failure());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    calls.next_request().await.unwrap().1.send_response(2);
    assert_ready_ok!(response.poll());
    drop(response);
    let now = breaker.statistics();
    assert_eq!((now.successes, now.abandoned), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_an_inner_layer_is_no_evidence() {
    let breaker = consecutive(1).build_handle().unwrap();
    for refusal in [Rejected::shed(), Rejected::Limited { retry_after: None }] {
        let answer = breaker.call(async { Err::<(), _>(Error::<BoxError>::from_rejected(refusal)) }).await;
        assert!(answer.is_err());
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(breaker.statistics().ignored, 2);
    // A timeout of what was sent is evidence.
    let timeout = Rejected::Timeout { timeout: secs(1), sent: true };
    let _ = breaker.call(async { Err::<(), _>(Error::<BoxError>::from_rejected(timeout)) }).await;
    assert_eq!(breaker.state(), CircuitState::Open);
}

/// Panics where it is told to.
#[derive(Clone)]
struct Panics {
    in_call: bool,
}

struct PanicsInPoll;

impl Service<()> for Panics {
    type Response = ();
    type Error = BoxError;
    type Future = PanicsInPoll;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> PanicsInPoll {
        assert!(!self.in_call, "in call");
        PanicsInPoll
    }
}

impl Future for PanicsInPoll {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        panic!("in poll")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_counts_one_failure_and_goes_on_scenario_33_and_r17() {
    for in_call in [true, false] {
        let breaker = counting(4, 4, 0.5).build_handle().unwrap();
        let mut service = breaker.layer().layer(Panics { in_call });
        for panics in 1..=4 {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                assert_ready_ok!(task::spawn(service.ready()).poll());
                let _ = task::spawn(service.call(())).poll();
            }));
            assert!(unwound.is_err());
            let now = breaker.statistics();
            assert_eq!((now.failures, now.calls()), (panics, panics));
        }
        assert_eq!(breaker.state(), CircuitState::Open);
        assert_eq!(breaker.try_acquire().unwrap_err().cause(), Some(Outcome::Permanent));
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_gives_its_slot_back_and_reopens_it() {
    let (breaker, log) = watched(first_failure());
    let mut service = breaker.layer().layer(Panics { in_call: false });
    run(&breaker, "F");
    advance(secs(30)).await;
    assert_ready_ok!(task::spawn(service.ready()).poll());
    assert!(catch_unwind(AssertUnwindSafe(|| task::spawn(service.call(())).poll().is_ready())).is_err());
    use CircuitState::{HalfOpen, Open};
    assert_eq!(entered(&log), [Open, HalfOpen, Open]);
    assert_eq!(breaker.statistics().probes_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_elsewhere_that_drops_a_permit_is_no_failure_of_the_callee() {
    let breaker = consecutive(1).build_handle().unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _permit = permit(&breaker);
        panic!("somebody else's");
    }));
    assert!(unwound.is_err());
    let now = breaker.statistics();
    assert_eq!((now.abandoned, now.failures, now.state), (1, 0, CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_classifier_counts_one_failure_and_loses_no_slot() {
    let layer = CircuitBreakerLayer::builder("test")
        .probes(1)
        .classify(classify_fn(|_: Result<&u32, &BoxError>| -> Outcome { panic!("a classifier of the test") }))
        .build()
        .unwrap();
    let breaker = layer.handle();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let mut service = layer.layer(service_fn(|request: u32| async move { Ok::<_, BoxError>(request) }));
    assert_ready_ok!(task::spawn(service.ready()).poll());
    assert!(catch_unwind(AssertUnwindSafe(|| task::spawn(service.call(1)).poll().is_ready())).is_err());
    let now = breaker.statistics();
    assert_eq!((now.failures, now.abandoned, now.probes_in_flight), (1, 0, 0));
}

/// Ready at once, and without an allocation of its own.
#[derive(Clone)]
struct Bare;

impl Service<u32> for Bare {
    type Response = u32;
    type Error = Error<std::io::Error>;
    type Future = std::future::Ready<Result<u32, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

fn call_once(service: &mut CircuitBreaker<Bare, DefaultClassifier>) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Service::poll_ready(service, &mut cx).is_ready());
    let mut future = std::pin::pin!(service.call(1));
    matches!(future.as_mut().poll(&mut cx), Poll::Ready(Ok(_)))
}

#[tokio::test(start_paused = true)]
async fn neither_a_call_nor_a_refusal_nor_a_transition_allocates() {
    for builder in [first_failure(), counting(100, 20, 0.5), setup_r()] {
        let breaker = builder.open_time(OpenTime::Constant(secs(30))).build_handle().unwrap();
        let mut service = breaker.layer().layer(Bare);
        // The first call of a thread finds its stripe of the counters, the first transition its metrics.
        breaker.disable();
        breaker.close();
        assert!(call_once(&mut service));
        let calls = measure(|| assert!((0..200).all(|_| call_once(&mut service))));
        assert_eq!(calls.count_total, 0, "calls");
        let trip = measure(|| breaker.transition_to(CircuitState::Open).unwrap());
        assert_eq!(trip.count_total, 0, "transition");
        assert!(!call_once(&mut service));
        let refusals = measure(|| assert!((0..200).all(|_| !call_once(&mut service))));
        assert_eq!(refusals.count_total, 0, "refusals");
        advance(secs(30)).await;
        let probes = measure(|| assert!((0..4).all(|_| call_once(&mut service))));
        assert_eq!(probes.count_total, 0, "probes");
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}

#[test]
fn futures_and_permits_are_send_and_unpin_as_their_inner_is() {
    fn send_sync<T: Send + Sync>() {}
    fn send_unpin<T: Send + Unpin>() {}
    send_sync::<CircuitBreakerHandle>();
    send_sync::<mainstay::circuit_breaker::Permit>();
    send_sync::<CircuitBreakerLayer>();
    send_sync::<CircuitBreaker<Bare, DefaultClassifier>>();
    send_unpin::<<CircuitBreaker<Bare, DefaultClassifier> as Service<u32>>::Future>();
}
