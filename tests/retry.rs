//! Retries, by their rules.
#![cfg(feature = "retry")]

use std::collections::VecDeque;
use std::future::{Future, pending, ready};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::{Budget, BudgetConfig, InFlightConfig};
use mainstay::context::{self, Context};
use mainstay::retry::{RetryBuilder, RetryConfig, RetryStatistics, TryClone};
use mainstay::telemetry::Event;
use mainstay::telemetry::event::RetryEventKind;
use mainstay::{
    BoxError, CircuitOpen, CircuitState, Classify, DefaultClassifier, Outcome, Rejectable, Rejected, RetryLayer,
    classify_fn,
};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Constant delays, no jitter, and no budget in the way.
fn every(delay: Duration) -> RetryBuilder {
    RetryLayer::builder("test").backoff(BackoffConfig::constant(delay)).hint_jitter(0.0).budget(Budget::unlimited())
}

/// A callee that gives these answers in turn, the last of them for ever.
#[derive(Clone)]
struct Callee<T> {
    answers: Arc<Mutex<VecDeque<Result<T, Fail>>>>,
    calls: Arc<AtomicU32>,
    /// When each call came, and as which attempt.
    seen: Arc<Mutex<Vec<(Instant, u32)>>>,
}

#[derive(Clone, Debug)]
enum Fail {
    Sick,
    Refused(Rejected),
}
mainstay::rejectable!(Fail::Refused);

impl<T: Clone> Callee<T> {
    fn new(answers: impl IntoIterator<Item = Result<T, Fail>>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, calls: Arc::default(), seen: Arc::default() }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    fn service<Req>(&self) -> impl Service<Req, Response = T, Error = Fail, Future: Send> + Clone + use<T, Req>
    where
        T: Send + 'static,
    {
        let callee = self.clone();
        service_fn(move |_| {
            callee.calls.fetch_add(1, Relaxed);
            callee.seen.lock().unwrap().push((Instant::now(), context::current().attempt()));
            let mut answers = callee.answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            ready(answer.expect("at least one answer"))
        })
    }
}

fn sick(times: usize) -> impl Iterator<Item = Result<u32, Fail>> {
    (0..times).map(|_| Err(Fail::Sick)).chain([Ok(7)])
}

fn always(fail: Fail) -> Callee<u32> {
    Callee::new([Err(fail)])
}

// === attempts and delays ===

/// Scenario 1.
#[tokio::test(start_paused = true)]
async fn attempts_and_delays_are_those_configured() {
    let layer = every(millis(500)).build().unwrap();
    for (answers, calls, slept, succeeds) in [
        (sick(1).collect::<Vec<_>>(), 2, 500, true),
        (vec![Err(Fail::Sick)], 3, 1_000, false),
        (sick(0).collect(), 1, 0, true),
    ] {
        let (callee, start) = (Callee::new(answers), Instant::now());
        let result = layer.layer(callee.service()).oneshot(()).await;
        assert_eq!((result.is_ok(), callee.calls(), start.elapsed()), (succeeds, calls, millis(slept)));
    }
    let counted: RetryStatistics = layer.handle().statistics();
    assert_eq!((counted.successes, counted.gave_up_attempts, counted.retries), (2, 1, 3));
    assert_eq!((counted.calls(), counted.attempts()), (3, 6));
}

/// Scenario 1: one attempt.
#[tokio::test(start_paused = true)]
async fn one_attempt_is_a_retry_turned_off() {
    let layer = every(SECOND).max_attempts(1).build().unwrap();
    let callee = always(Fail::Sick);
    layer.layer(callee.service()).oneshot(()).await.unwrap_err();
    assert_eq!((callee.calls(), layer.handle().statistics().failures), (1, 1));
}

/// Scenarios 1 and 3.
#[tokio::test(start_paused = true)]
async fn results_are_judged_by_the_classifier_values_too() {
    let classifier = classify_fn(|result: Result<&u32, &Fail>| match result {
        Ok(200) => Outcome::Success,
        Ok(429) => Outcome::throttled(millis(200)),
        Ok(400..=499) => Outcome::Refused,
        Ok(501) => Outcome::Permanent,
        _ => Outcome::Transient,
    });
    for (answers, calls, slept) in
        [(vec![503, 429, 200], 3, 300), (vec![404], 1, 0), (vec![501], 1, 0), (vec![503], 3, 200), (vec![200], 1, 0)]
    {
        let (last, start) = (*answers.last().unwrap(), Instant::now());
        let callee = Callee::new(answers.into_iter().map(Ok));
        let layer = every(millis(100)).classify(classifier).build().unwrap();
        assert_eq!(layer.layer(callee.service()).oneshot(()).await.unwrap(), last, "the last real result");
        assert_eq!((callee.calls(), start.elapsed()), (calls, millis(slept)), "{last}");
    }
}

/// Scenario 5.
#[tokio::test(start_paused = true)]
async fn each_retry_is_told_with_its_attempt_and_delay_and_giving_up_with_its_reason() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let linear = BackoffConfig::linear(2 * SECOND, 2 * SECOND).with_jitter(Jitter::None);
    let layer = RetryLayer::builder("users")
        .backoff(linear)
        .max_attempts(4)
        .listener(move |event: &Event<'_>| {
            let Event::Retry(event) = event else { panic!("{event}") };
            log.lock().unwrap().push(match event.kind {
                RetryEventKind::Retrying { attempt, delay, .. } => (attempt, delay.as_secs(), "retrying".to_owned()),
                RetryEventKind::GaveUp { attempts, reason, .. } => (attempts, 0, reason.to_owned()),
                kind => panic!("{kind}"),
            });
        })
        .build()
        .unwrap();
    layer.layer(always(Fail::Sick).service()).oneshot(()).await.unwrap_err();
    let expected = [(1, 2, "retrying"), (2, 4, "retrying"), (3, 6, "retrying"), (4, 0, "attempts")];
    assert_eq!(*told.lock().unwrap(), expected.map(|(attempt, delay, what)| (attempt, delay, what.to_owned())));
}

/// Scenarios 5 and 7.
#[tokio::test(start_paused = true)]
async fn any_number_of_attempts_is_made() {
    let (callee, layer) = (always(Fail::Sick), every(millis(123)).max_attempts(13).build().unwrap());
    layer.layer(callee.service()).oneshot(()).await.unwrap_err();
    assert_eq!((callee.calls(), layer.handle().statistics().retries), (13, 12));

    let (callee, layer) = (Callee::new(sick(5)), every(millis(1)).max_attempts(u32::MAX).build().unwrap());
    layer.layer(callee.service()).oneshot(()).await.unwrap();
    assert_eq!(callee.calls(), 6);
}

/// R1.
#[tokio::test(start_paused = true)]
async fn delays_grow_up_to_the_cap() {
    let backoff = BackoffConfig::exponential(millis(100)).with_cap(SECOND).with_jitter(Jitter::None);
    let callee = always(Fail::Sick);
    let layer = RetryLayer::builder("test").backoff(backoff).max_attempts(6).build().unwrap();
    layer.layer(callee.service()).oneshot(()).await.unwrap_err();
    let seen = callee.seen.lock().unwrap();
    let gaps: Vec<_> = seen.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(gaps, [100, 200, 400, 800, 1000].map(millis));
    assert_eq!(seen.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_delays() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let (callee, start) = (always(Fail::Sick), Instant::now());
        let layer = RetryLayer::builder("test").max_attempts(5).seed(seed).build().unwrap();
        layer.layer(callee.service()).oneshot(()).await.unwrap_err();
        runs.push(start.elapsed());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

/// A peer takes 1.08 ms. There is no runtime here, so that a timer would panic.
#[test]
fn a_zero_delay_touches_no_timer() {
    let callee = Callee::new(sick(2));
    let layer = every(Duration::ZERO).build().unwrap();
    let mut service = layer.layer(callee.service());
    let mut future = task::spawn(service.call(()));
    assert_eq!(assert_ready_ok!(future.poll()), 7);
    assert_eq!(callee.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_failed_response_and_its_future_are_dropped_before_the_delay() {
    let held = Arc::new(());
    let classifier = classify_fn(|_: Result<&Arc<()>, &Fail>| Outcome::Transient);
    let layer = every(SECOND).classify(classifier).build().unwrap();
    let mut service = layer.layer(service_fn(|held: Arc<()>| async move { Ok::<_, Fail>(held) }));
    let mut future = task::spawn(service.call(held.clone()));
    assert_pending!(future.poll());
    assert_eq!(Arc::strong_count(&held), 2, "only the copy of the request is left");
    drop(future);
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(layer.handle().statistics().abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_holds_something_beyond_its_end_is_dropped_before_the_delay() {
    let held = Arc::new(());
    let attempts = held.clone();
    let service = service_fn(move |(): ()| {
        let held = attempts.clone();
        std::future::poll_fn(move |_| {
            let _held = &held;
            Poll::Ready(Err::<u32, _>(Fail::Sick))
        })
    });
    let mut service = every(SECOND).build().unwrap().layer(service);
    let before = Arc::strong_count(&held);
    let mut call = task::spawn(service.call(()));
    assert_pending!(call.poll());
    // The one more is the service that makes the next attempt.
    assert_eq!(Arc::strong_count(&held), before + 1);
}

/// Scenario 5: a caller that leaves, before, between and during attempts.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_makes_no_more_attempts() {
    let (callee, layer) = (always(Fail::Sick), every(SECOND).build().unwrap());
    let mut service = layer.layer(callee.service());
    let mut future = task::spawn(service.call(()));
    assert_pending!(future.poll());
    drop(future);
    sleep(10 * SECOND).await;
    assert_eq!(callee.calls(), 1);
    assert_eq!(layer.handle().statistics().abandoned, 1);
}

// === what may be retried ===

struct Counted(Arc<AtomicU32>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Relaxed);
        Self(self.0.clone())
    }
}

/// R3.
#[tokio::test(start_paused = true)]
async fn a_request_is_cloned_only_when_a_retry_can_follow() {
    for (max_attempts, failures, clones) in [(1, 1, 0), (3, 2, 2), (3, 3, 2), (3, 0, 1)] {
        let counter = Arc::new(AtomicU32::new(0));
        let layer = every(millis(1)).max_attempts(max_attempts).build().unwrap();
        let _ = layer.layer(Callee::new(sick(failures)).service()).oneshot(Counted(counter.clone())).await;
        assert_eq!(counter.load(Relaxed), clones, "{failures} failures in {max_attempts} attempts");
    }
}

/// tower#790: no copy, but a first attempt.
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_cloned_still_gets_its_first_attempt() {
    struct Stream;
    impl TryClone for Stream {
        fn try_clone(&self) -> Option<Self> {
            None
        }
    }

    let layer = every(SECOND).try_clone_requests().build().unwrap();
    assert_eq!(layer.layer(Callee::new(sick(0)).service()).oneshot(Stream).await.unwrap(), 7);
    let callee = always(Fail::Sick);
    layer.layer(callee.service()).oneshot(Stream).await.unwrap_err();
    assert_eq!((callee.calls(), layer.handle().statistics().gave_up_not_cloneable), (1, 1));

    let layer = every(SECOND).clone_with(|_: &Stream| Some(Stream)).build().unwrap();
    let callee = always(Fail::Sick);
    layer.layer(callee.service()).oneshot(Stream).await.unwrap_err();
    assert_eq!(callee.calls(), 3);
}

/// R10.
#[tokio::test(start_paused = true)]
async fn what_may_not_be_sent_twice_is_retried_only_if_it_was_not_sent() {
    let layer = every(millis(10)).idempotent_if(|method: &&str| *method != "POST").build().unwrap();
    for (fail, method, calls) in [
        (Fail::Sick, "POST", 1),
        (Fail::Sick, "GET", 3),
        (Fail::Refused(Rejected::Timeout { timeout: SECOND, sent: true }), "POST", 1),
        (Fail::Refused(Rejected::Timeout { timeout: SECOND, sent: false }), "POST", 3),
        (Fail::Refused(Rejected::shed()), "POST", 3),
        (Fail::Refused(Rejected::DeadlineExceeded { sent: false }), "GET", 1),
    ] {
        let callee = always(fail.clone());
        layer.layer(callee.service()).oneshot(method).await.unwrap_err();
        assert_eq!(callee.calls(), calls, "{method} {fail:?}");
    }
    assert_eq!(layer.handle().statistics().gave_up_not_idempotent, 2);
}

/// Scenario 12 has seven attempts burnt on an open circuit.
#[tokio::test(start_paused = true)]
async fn unlike_others_a_breakers_rejection_ends_the_call_at_once() {
    let open = || {
        let open = CircuitOpen::new("db", CircuitState::Open).with_retry_after(millis(1));
        Err(Fail::Refused(Rejected::from(open)))
    };
    let layer = every(millis(10)).max_attempts(7).build().unwrap();
    for (answers, calls, slept) in [(vec![open()], 1, 0), (vec![Err(Fail::Sick), open()], 2, 10)] {
        let (callee, start) = (Callee::<u32>::new(answers), Instant::now());
        let error = layer.layer(callee.service()).oneshot(()).await.unwrap_err();
        assert!(error.as_rejected().is_some_and(Rejected::is_circuit_open));
        assert_eq!((callee.calls(), start.elapsed()), (calls, millis(slept)));
    }
    assert_eq!(layer.handle().statistics().failures, 2);
}

/// R4.
#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_to_the_millisecond_or_not_at_all() {
    let busy = |after| {
        classify_fn(move |result: Result<&u32, &Fail>| match result {
            Ok(429) => Outcome::throttled(after),
            other => DefaultClassifier.classify(other),
        })
    };
    for (after, calls, slept) in [(2 * SECOND, 2, 2 * SECOND), (3_600 * SECOND, 1, Duration::ZERO)] {
        let (callee, start) = (Callee::new([Ok(429), Ok(200)]), Instant::now());
        let layer = every(millis(100)).classify(busy(after)).build().unwrap();
        layer.layer(callee.service()).oneshot(()).await.unwrap();
        assert_eq!((callee.calls(), start.elapsed()), (calls, slept));
    }
    let layer = every(millis(100)).max_retry_after(3_600 * SECOND).classify(busy(3_600 * SECOND)).build().unwrap();
    let (callee, start) = (Callee::new([Ok(429), Ok(200)]), Instant::now());
    layer.layer(callee.service()).oneshot(()).await.unwrap();
    assert_eq!((callee.calls(), start.elapsed()), (2, 3_600 * SECOND));
}

// === deadlines ===

/// R5.
#[tokio::test(start_paused = true)]
async fn no_delay_goes_past_the_deadline() {
    let (callee, layer) = (always(Fail::Sick), every(2 * SECOND).build().unwrap());
    let start = Instant::now();
    let scope = Context::new().with_deadline(start + SECOND);
    let error = scope.scope(layer.layer(callee.service()).oneshot(())).await.unwrap_err();
    assert!(matches!(error, Fail::Sick), "the last real result");
    assert_eq!((callee.calls(), start.elapsed()), (1, Duration::ZERO));
    assert_eq!(layer.handle().statistics().gave_up_deadline, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_its_own_timeout_cut_to_what_the_deadline_leaves() {
    let layer = every(millis(100)).attempt_timeout(millis(400)).build().unwrap();
    let stuck = || service_fn(|(): ()| pending::<Result<u32, Fail>>());
    let start = Instant::now();
    let error = layer.layer(stuck()).oneshot(()).await.unwrap_err();
    assert_eq!(start.elapsed(), millis(3 * 400 + 2 * 100));
    let timeout = Rejected::Timeout { timeout: millis(400), sent: true };
    assert_eq!(error.as_rejected(), Some(&timeout));

    // Two attempts of 400 ms and delays of 100 ms leave nothing for a third at 1000 ms; of 1150 ms they leave 150 ms.
    for (deadline, ended, expected) in
        [(1_000, 900, timeout), (1_150, 1_150, Rejected::DeadlineExceeded { sent: true })]
    {
        let start = Instant::now();
        let scope = Context::new().with_deadline(start + millis(deadline));
        let error = scope.scope(layer.layer(stuck()).oneshot(())).await.unwrap_err();
        assert_eq!((start.elapsed(), error.as_rejected()), (millis(ended), Some(&expected)));
    }
}

/// As by a timeout. The request is not even looked at, and the budget hears nothing of it.
#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_refused_before_its_first_attempt() {
    let settings: [fn(RetryBuilder) -> RetryBuilder; 4] = [
        |builder| builder,
        |builder| builder.attempt_timeout(SECOND),
        |builder| builder.max_elapsed(SECOND),
        |builder| builder.max_attempts(1),
    ];
    advance(SECOND).await;
    for set in settings {
        for late in [Duration::ZERO, SECOND] {
            for budget in [Budget::default(), Budget::in_flight(InFlightConfig::default()).unwrap()] {
                let (callee, before) = (Callee::new(sick(0)), budget.balance());
                let layer = set(every(SECOND).budget(budget.clone()))
                    .on_attempt(|_| unreachable!("none was made"))
                    .clone_with(|(): &()| -> Option<()> { unreachable!("nobody needs a copy") })
                    .build()
                    .unwrap();
                let mut service = layer.layer(callee.service());
                let scope = Context::new().with_deadline(Instant::now() - late);
                // The second is dropped before anybody asks it.
                let mut calls = [(); 2].map(|()| task::spawn(scope.enter(|| service.call(()))));
                let error = assert_ready_err!(calls[0].poll());
                assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }));
                drop(calls);
                let counted = layer.handle().statistics();
                assert_eq!((counted.failures, counted.calls(), counted.attempts()), (2, 2, 2), "each once");
                assert_eq!((callee.calls(), budget.balance()), (0, before));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_just_before_the_deadline_is_made() {
    let (callee, layer) = (Callee::new(sick(0)), every(SECOND).attempt_timeout(SECOND).build().unwrap());
    let scope = Context::new().with_deadline(Instant::now() + millis(1));
    assert_eq!(scope.scope(layer.layer(callee.service()).oneshot(())).await.unwrap(), 7);
    assert_eq!((callee.calls(), layer.handle().statistics().successes), (1, 1));
}

/// Timeouts, R2.
#[cfg(feature = "timeout")]
#[tokio::test(start_paused = true)]
async fn total_retry_and_attempt_timeout_share_one_deadline() {
    use mainstay::TimeoutLayer;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let start = Instant::now();
    let service = tower::ServiceBuilder::new()
        .layer(TimeoutLayer::total("total", SECOND).unwrap())
        .layer(every(millis(50)).build().unwrap())
        .layer(TimeoutLayer::attempt("attempt", millis(400)).unwrap())
        .service(service_fn(move |(): ()| {
            let log = log.clone();
            async move {
                log.lock().unwrap().push((start.elapsed(), context::current().remaining(Instant::now()).unwrap()));
                pending::<Result<u32, Fail>>().await
            }
        }));
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: Duration::from_secs(1), sent: true }));
    let expected = [(0, 1000), (450, 550), (900, 100)].map(|(at, left)| (millis(at), millis(left)));
    assert_eq!(*seen.lock().unwrap(), expected);
}

// === readiness ===

/// R9.
#[tokio::test(start_paused = true)]
async fn each_attempt_waits_until_the_service_is_ready() {
    let (mock, mut handle) = tower_test::mock::pair::<u32, u32>();
    let layer = every(millis(100)).build().unwrap();
    handle.allow(1);
    let mut service = layer.layer(mock);
    assert_ready_ok!(task::spawn(service.ready()).poll());
    let mut future = task::spawn(service.call(1));
    assert_pending!(future.poll());
    assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().1.send_error("reset");
    assert_pending!(future.poll());
    advance(millis(101)).await;
    assert!(future.is_woken());
    assert_pending!(future.poll());
    assert_pending!(task::spawn(handle.next_request()).poll(), "not ready, not called");
    handle.allow(1);
    assert!(future.is_woken());
    assert_pending!(future.poll());
    assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().1.send_response(7);
    assert_eq!(assert_ready_ok!(future.poll()), 7);
}

/// R9.
#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_become_ready_ends_the_call() {
    let (mock, mut handle) = tower_test::mock::pair::<u32, u32>();
    let layer = every(millis(100)).build().unwrap();
    handle.allow(1);
    let mut service = layer.layer(mock);
    service.ready().await.unwrap();
    let mut future = task::spawn(service.call(1));
    assert_pending!(future.poll());
    handle.next_request().await.unwrap().1.send_error("reset");
    handle.send_error("gone for good");
    assert_pending!(future.poll());
    advance(millis(101)).await;
    let error = assert_ready_err!(future.poll());
    assert!(error.to_string().contains("gone for good"), "{error}");
    assert_eq!(layer.handle().statistics().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_ends_at_the_deadline() {
    let (mock, mut handle) = tower_test::mock::pair::<u32, u32>();
    let layer = every(millis(100)).build().unwrap();
    handle.allow(1);
    let start = Instant::now();
    let scope = Context::new().with_deadline(start + SECOND);
    let call = tokio::spawn(scope.scope(layer.layer(mock).oneshot(1)));
    handle.next_request().await.unwrap().1.send_error("reset");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "reset", "the last real result");
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(layer.handle().statistics().gave_up_deadline, 1);
}

// === nested ===

/// Nobody polled it in time: the delay and the deadline are both over, and the service is ready.
#[tokio::test(start_paused = true)]
async fn no_attempt_is_started_after_the_deadline() {
    let (callee, budget) = (always(Fail::Sick), Budget::default());
    let layer = every(SECOND).budget(budget.clone()).build().unwrap();
    let mut service = layer.layer(callee.service());
    let scope = Context::new().with_deadline(Instant::now() + 2 * SECOND);
    let mut call = task::spawn(scope.scope(service.call(())));
    assert_pending!(call.poll());
    let paid = budget.balance();
    advance(3 * SECOND).await;
    assert!(matches!(assert_ready_err!(call.poll()), Fail::Sick), "the last real result");
    assert_eq!((callee.calls(), layer.handle().statistics().gave_up_deadline), (1, 1));
    assert!(budget.balance() > paid, "the attempt that was not made is given back");
}

/// R11: without the mark it is 9.
#[tokio::test(start_paused = true)]
async fn of_nested_retries_the_innermost_works() {
    let nested = |outer: RetryBuilder, inner: RetryBuilder, fail: Fail| async move {
        let (outer, inner, callee) = (outer.build().unwrap(), inner.build().unwrap(), always(fail));
        outer.layer(inner.layer(callee.service())).oneshot(()).await.unwrap_err();
        (callee.calls(), outer.handle().statistics().gave_up_inner)
    };
    let three = || every(millis(1));
    assert_eq!(nested(three(), three(), Fail::Sick).await, (3, 1));
    assert_eq!(nested(three().retry_after_inner_gave_up(true), three(), Fail::Sick).await, (9, 0));
    assert_eq!(nested(three(), three().max_attempts(1), Fail::Sick).await, (3, 0), "turned off, it has no say");
    assert_eq!(nested(three(), three(), Fail::Refused(Rejected::shed())).await, (3, 1));
}

#[tokio::test(start_paused = true)]
async fn of_three_nested_retries_the_mark_reaches_the_outermost() {
    let layer = every(millis(1)).build().unwrap();
    let callee = always(Fail::Sick);
    layer.layer(layer.layer(layer.layer(callee.service()))).oneshot(()).await.unwrap_err();
    assert_eq!(callee.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_inner_retry_that_succeeds_leaves_no_mark() {
    let layer = every(millis(1)).build().unwrap();
    // The inner retry saves its first call; the outer one must retry what the service in between makes of it.
    let callee = Callee::new(sick(1));
    let inner = layer.layer(callee.service());
    let between = inner.map_result(|result| if result.is_ok() { Err::<u32, _>(Fail::Sick) } else { result });
    layer.layer(between).oneshot(()).await.unwrap_err();
    assert_eq!(callee.calls(), 4, "2 for the first attempt of the outer retry, 1 for each of the others");
}

// === the budget ===

fn ten_a_second() -> BudgetConfig {
    let mut config = BudgetConfig::default();
    (config.window, config.reserve, config.reserve_window) = (SECOND, 10, SECOND);
    config
}

/// R6: a peer lets 1000 retries through on the first.
#[tokio::test(start_paused = true)]
async fn retries_stay_within_the_budget() {
    for (calls, failing_every, at_most) in [(2_000, 2, 410), (1_000, 1, 210)] {
        let layer = every(Duration::ZERO).budget(Budget::new(ten_a_second()).unwrap()).build().unwrap();
        let start = Instant::now();
        for call in 0..calls {
            let callee = if call % failing_every == 0 { always(Fail::Sick) } else { Callee::new(sick(0)) };
            let _ = layer.layer(callee.service()).oneshot(()).await;
            if call % 10 == 9 {
                advance(SECOND * 10 / calls).await;
            }
        }
        assert!(start.elapsed() <= SECOND + millis(1));
        let statistics = layer.handle().statistics();
        assert!(statistics.retries <= at_most, "{statistics:?}");
        assert!(statistics.retries >= at_most - 20, "{statistics:?}");
        assert_eq!(statistics.calls(), u64::from(calls));
        assert_eq!(statistics.gave_up(), u64::from(calls / failing_every), "{statistics:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_on_by_default_and_shared_when_asked_for() {
    let fail = |layer: RetryLayer| async move {
        for _ in 0..100 {
            layer.layer(always(Fail::Sick).service()).oneshot(()).await.unwrap_err();
        }
        layer.handle().statistics().retries
    };
    let quick = || RetryLayer::builder("test").backoff(BackoffConfig::none());
    assert!(fail(quick().build().unwrap()).await <= 30, "of 200 without");
    assert_eq!(fail(quick().budget(Budget::unlimited()).build().unwrap()).await, 200);
    let shared = Budget::default();
    let one = fail(quick().budget(shared.clone()).build().unwrap()).await;
    let other = fail(quick().budget(shared).build().unwrap()).await;
    assert!(one + other <= 10 + 2 * 20, "{one} and {other}");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_neither_earns_nor_costs() {
    let mut config = BudgetConfig::default();
    config.reserve = 1;
    let budget = Budget::new(config).unwrap();
    let layer = every(millis(1)).budget(budget.clone()).build().unwrap();
    for _ in 0..50 {
        let callee = always(Fail::Refused(Rejected::shed()));
        layer.layer(callee.service()).oneshot(()).await.unwrap_err();
        assert_eq!(callee.calls(), 3);
    }
    assert_eq!(budget.balance(), 1.0);
    // Sent once, and refused locally at the attempts that follow: what they cost is given back.
    let callee = Callee::<u32>::new([Err(Fail::Sick), Err(Fail::Refused(Rejected::shed()))]);
    layer.layer(callee.service()).oneshot(()).await.unwrap_err();
    assert_eq!(callee.calls(), 3);
    assert_eq!(budget.balance(), 1.2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_paid_for_and_did_not_start_is_given_back() {
    let budget = Budget::default();
    let layer = every(SECOND).budget(budget.clone()).build().unwrap();
    let mut service = layer.layer(always(Fail::Sick).service());
    let mut future = task::spawn(service.call(()));
    assert_pending!(future.poll());
    assert_eq!(budget.balance(), 9.2);
    drop(future);
    assert_eq!(budget.balance(), 10.2);
}

// === the rest ===

#[tokio::test(start_paused = true)]
async fn retries_can_be_turned_off_while_a_call_runs() {
    let (callee, layer) = (always(Fail::Sick), every(SECOND).max_attempts(9).build().unwrap());
    let call = tokio::spawn(layer.layer(callee.service()).oneshot(()));
    sleep(millis(1_500)).await;
    layer.handle().set_max_attempts(1).unwrap();
    call.await.unwrap().unwrap_err();
    assert_eq!(callee.calls(), 3, "the attempt that was under way is made");
    assert_eq!(layer.handle().config().max_attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_classifier_or_the_request_policy_reaches_the_caller_and_loses_nothing() {
    let layer =
        every(SECOND).classify(classify_fn(|_: Result<&u32, &Fail>| panic!("of the classifier"))).build().unwrap();
    let callee = Callee::new(sick(0));
    let panicked = tokio::spawn(layer.layer(callee.service()).oneshot(())).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!((layer.handle().statistics().panicked, layer.handle().statistics().calls()), (1, 1));

    let layer = every(SECOND).clone_with(|(): &()| panic!("of the request policy")).build().unwrap();
    let panicked = tokio::spawn(layer.layer(callee.service()).oneshot(())).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(callee.calls(), 1, "only that of before");
}

/// The number of the attempt that panics, and whether it does so in `call` or when it is polled.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_service_is_a_failure_and_no_abandoned_call() {
    for (attempt, in_call) in [(1, true), (1, false), (2, true), (2, false)] {
        let layer = every(SECOND).build().unwrap();
        let service = service_fn(move |(): ()| {
            let panics = context::current().attempt() == attempt;
            assert!(!(panics && in_call), "in call");
            async move {
                assert!(!panics, "in poll");
                Err::<u32, _>(Fail::Sick)
            }
        });
        let panicked = tokio::spawn(layer.layer(service).oneshot(())).await;
        assert!(panicked.unwrap_err().is_panic());
        let counted = layer.handle().statistics();
        assert_eq!((counted.panicked, counted.abandoned, counted.calls()), (1, 0, 1), "{attempt} {in_call}");
        assert_eq!(counted.retries, u64::from(attempt - 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_the_service_becomes_ready_gives_back_what_was_paid() {
    #[derive(Clone)]
    struct ReadyOnce(bool);
    impl Service<()> for ReadyOnce {
        type Response = u32;
        type Error = Fail;
        type Future = std::future::Ready<Result<u32, Fail>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Fail>> {
            assert!(!self.0, "in poll_ready");
            self.0 = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            ready(Err(Fail::Sick))
        }
    }
    let budget = Budget::new(BudgetConfig::default()).unwrap();
    let before = budget.balance();
    let layer = every(SECOND).budget(budget.clone()).build().unwrap();
    let panicked = tokio::spawn(layer.layer(ReadyOnce(false)).oneshot(())).await;
    assert!(panicked.unwrap_err().is_panic());
    let counted = layer.handle().statistics();
    assert_eq!((counted.panicked, counted.abandoned, counted.calls()), (1, 0, 1));
    assert!(budget.balance() >= before);
}

/// The attempt was paid for, and does not start. At once, and after a delay.
#[tokio::test(start_paused = true)]
async fn a_panic_while_a_failed_response_is_dropped_gives_back_what_was_paid() {
    #[derive(Debug)]
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("of a response");
        }
    }
    for delay in [Duration::ZERO, SECOND] {
        for (budget, after) in [(Budget::default(), 10.2), (Budget::in_flight(InFlightConfig::default()).unwrap(), 3.0)]
        {
            let calls = Arc::new(AtomicU32::new(0));
            let counter = calls.clone();
            let service = service_fn(move |(): ()| {
                counter.fetch_add(1, Relaxed);
                ready(Ok::<_, Fail>(Bomb))
            });
            let layer = every(delay)
                .budget(budget.clone())
                .classify(classify_fn(|_: Result<&Bomb, &Fail>| Outcome::Transient))
                .build()
                .unwrap();
            let panicked = tokio::spawn(layer.layer(service).oneshot(())).await;
            assert!(panicked.unwrap_err().is_panic());
            let counted = layer.handle().statistics();
            assert_eq!((counted.panicked, counted.abandoned, counted.calls()), (1, 0, 1), "{delay:?}");
            assert_eq!((calls.load(Relaxed), counted.retries), (1, 0));
            assert_eq!(budget.balance(), after, "{delay:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_any_stage_releases_everything() {
    for stage in 0..4 {
        let (mock, mut handle) = tower_test::mock::pair::<Arc<()>, u32>();
        let layer = every(SECOND).build().unwrap();
        let held = Arc::new(());
        handle.allow(1);
        let mut service = layer.layer(mock);
        service.ready().await.unwrap();
        let mut future = task::spawn(service.call(held.clone()));
        if stage > 0 {
            assert_pending!(future.poll());
            handle.next_request().await.unwrap().1.send_error("reset");
            assert_pending!(future.poll());
        }
        if stage > 1 {
            advance(millis(1_001)).await;
            assert_pending!(future.poll());
        }
        if stage > 2 {
            handle.allow(1);
            assert_pending!(future.poll());
            handle.next_request().await.unwrap().1.send_error("reset");
        }
        drop(future);
        drop(handle);
        drop(service);
        assert_eq!(Arc::strong_count(&held), 1, "dropped at stage {stage}");
        assert_eq!(layer.handle().statistics().abandoned, 1);
    }
}

#[test]
fn services_and_futures_are_send_and_sync_where_they_should_be() {
    fn service<S: Send + Sync + Clone>(_: &S) {}
    fn future<F: Future + Send>(_: &F) {}
    let layer = RetryLayer::new("test", RetryConfig::default()).unwrap();
    let mut retry = layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) }));
    service(&retry);
    future(&retry.call(()));
}

#[test]
#[should_panic(expected = "polled after completion")]
fn a_finished_call_that_is_polled_again_panics() {
    let mut service = every(SECOND).build().unwrap().layer(Callee::new(sick(0)).service());
    let mut future = task::spawn(service.call(()));
    assert_ready_ok!(future.poll());
    let _ = future.poll();
}
