//! What a user can set beside attempts and backoff: limits, predicates, delays and an observer of a retry.
#![cfg(feature = "retry")]

use std::cell::Cell;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::{Budget, BudgetConfig, InFlightConfig};
use mainstay::context::{self, Context};
use mainstay::retry::{AfterAttempt, AttemptReport, EndedAttempt, GiveUpReason, RetryBuilder, RetryConfig};
use mainstay::{BoxError, Outcome, Rejectable, Rejected, RetryLayer, classify_fn};
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn every(delay: Duration) -> RetryBuilder {
    RetryLayer::builder("test").backoff(BackoffConfig::constant(delay)).hint_jitter(0.0).budget(Budget::unlimited())
}

fn reset() -> Ready<Result<u32, BoxError>> {
    ready(Err("reset".into()))
}

/// The outcome of each status; errors have none of their own.
fn by_status(result: Result<&u32, &BoxError>) -> Outcome {
    match result {
        Ok(429) => Outcome::throttled(2 * SECOND),
        Ok(500) => Outcome::Permanent,
        Ok(503) | Err(_) => Outcome::Transient,
        Ok(_) => Outcome::Success,
    }
}

// === limits ===

/// Scenario 10: a longest time in place of a number of attempts.
#[tokio::test(start_paused = true)]
async fn unlimited_attempts_end_when_the_longest_time_is_over() {
    let retry = every(SECOND).unlimited_attempts().max_elapsed(10 * SECOND).build().unwrap();
    let (calls, start) = (Cell::new(0), Instant::now());
    let fail = || {
        calls.set(calls.get() + 1);
        reset()
    };
    retry.run(fail).await.unwrap_err();
    // At 0, 1, ... 9 s; the next would start when the time is over.
    assert_eq!((calls.get(), start.elapsed()), (10, 9 * SECOND));
    assert_eq!(retry.handle().statistics().gave_up_elapsed, 1);
    assert_eq!(retry.handle().config().max_attempts, RetryConfig::UNLIMITED);
}

#[tokio::test(start_paused = true)]
async fn of_attempts_longest_time_and_deadline_the_nearest_ends_the_call() {
    let ended = |max_attempts, longest: u32, deadline: u32| async move {
        let retry = every(SECOND).max_attempts(max_attempts).max_elapsed(longest * SECOND).build().unwrap();
        let scope = Context::new().with_deadline(Instant::now() + deadline * SECOND);
        scope.scope(retry.run(reset)).await.unwrap_err();
        let counted = retry.handle().statistics();
        (counted.attempts(), counted.gave_up_attempts, counted.gave_up_elapsed, counted.gave_up_deadline)
    };
    assert_eq!(ended(2, 9, 9).await, (2, 1, 0, 0));
    assert_eq!(ended(99, 3, 9).await, (3, 0, 1, 0));
    assert_eq!(ended(99, 9, 3).await, (3, 0, 0, 1));
}

// === delays ===

/// Scenario 1: delays from the result, 100 and then 200 ms. And scenario 5: `None` is the configured delay.
#[tokio::test(start_paused = true)]
async fn a_delay_can_come_from_the_attempt_and_its_outcome() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let by_attempt = move |ended: &EndedAttempt| {
        log.lock().unwrap().push((ended.attempt, ended.outcome, ended.previous.as_millis()));
        (ended.attempt < 3).then(|| Duration::from_millis(100) * ended.attempt)
    };
    let retry = every(SECOND).max_attempts(4).delay_by(by_attempt).build().unwrap();
    let start = Instant::now();
    retry.run(reset).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_millis(100 + 200 + 1_000));
    let transient = Outcome::Transient;
    assert_eq!(*seen.lock().unwrap(), [(1, transient, 0), (2, transient, 100), (3, transient, 200)]);
}

/// Scenarios 10 and 22: three delays and then no more are four attempts; none at all are one.
#[tokio::test(start_paused = true)]
async fn an_iterator_of_delays_says_how_long_and_how_often_to_wait() {
    let three = || [1, 5, 2].map(Duration::from_secs);
    for (delays, most, attempts, slept) in [(3, 99, 4, 8), (0, 99, 1, 0), (3, 2, 2, 1)] {
        let retry =
            every(SECOND / 9).max_attempts(most).delays(move || three().into_iter().take(delays)).build().unwrap();
        for _ in 0..2 {
            let start = Instant::now();
            retry.run(reset).await.unwrap_err();
            assert_eq!(start.elapsed(), slept * SECOND, "each call starts over");
        }
        let counted = retry.handle().statistics();
        assert_eq!((counted.attempts(), counted.gave_up_attempts), (2 * attempts, 2));
    }
}

/// One of this crate is an iterator, too; what `delay_by` says comes first, and what the callee asks for is not undercut.
#[tokio::test(start_paused = true)]
async fn an_iterator_of_delays_gives_way_to_what_is_known_of_the_attempt() {
    let doubling = BackoffConfig::exponential(SECOND).with_jitter(Jitter::None).build().unwrap();
    let first_at_once = |ended: &EndedAttempt| (ended.attempt == 1).then_some(Duration::ZERO);
    let retry = every(SECOND / 9)
        .max_attempts(5)
        .delays(move || doubling.delays())
        .delay_by(first_at_once)
        .classify(classify_fn(by_status))
        .build()
        .unwrap();
    let (mut answers, start) = ([503, 503, 503, 200].into_iter(), Instant::now());
    retry.run(|| ready(Ok::<_, BoxError>(answers.next().unwrap()))).await.unwrap();
    assert_eq!(start.elapsed(), (2 + 4) * SECOND);
    let (mut answers, start) = ([503, 429, 200].into_iter(), Instant::now());
    retry.run(|| ready(Ok::<_, BoxError>(answers.next().unwrap()))).await.unwrap();
    assert_eq!(start.elapsed(), 2 * SECOND, "as long as the 429 says, and the second of the sequence");
}

/// R4, and with a delay of the user's own.
#[tokio::test(start_paused = true)]
async fn no_delay_undercuts_retry_after_whoever_chose_it() {
    for (chosen, slept) in [(0, 2), (1, 2), (5, 5)] {
        let retry = every(SECOND)
            .delay_by(move |_: &EndedAttempt| Some(chosen * SECOND))
            .classify(classify_fn(by_status))
            .build()
            .unwrap();
        let (mut answers, start) = ([429, 200].into_iter(), Instant::now());
        retry.run(|| ready(Ok::<_, BoxError>(answers.next().unwrap()))).await.unwrap();
        assert_eq!(start.elapsed(), slept * SECOND, "{chosen}");
    }
}

/// R4: it does not come early for any limit either, but gives up, at once and with the real result.
#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_a_limit_ends_the_call_at_once() {
    let limited = |builder: RetryBuilder| async move {
        let retry = builder.classify(classify_fn(by_status)).build().unwrap();
        let start = Instant::now();
        let scope = Context::new().with_deadline(start + 60 * SECOND);
        let answer = scope.scope(retry.run(|| ready(Ok::<_, BoxError>(429)))).await.unwrap();
        assert_eq!((answer, start.elapsed()), (429, Duration::ZERO));
        let counted = retry.handle().statistics();
        (counted.gave_up_retry_after, counted.gave_up_elapsed)
    };
    assert_eq!(limited(every(SECOND).max_retry_after(SECOND)).await, (1, 0));
    assert_eq!(limited(every(SECOND).max_elapsed(2 * SECOND)).await, (0, 1));
}

/// The draw comes from the seed, in the settings as data.
#[tokio::test(start_paused = true)]
async fn a_seed_in_the_settings_repeats_the_draws() {
    let draws = |seed| async move {
        let mut config = RetryConfig::default();
        config.seed = Some(seed);
        let retry = RetryLayer::builder("test").config(config).build().unwrap();
        let start = Instant::now();
        retry.run(reset).await.unwrap_err();
        start.elapsed()
    };
    assert_eq!(draws(7).await, draws(7).await);
    assert_ne!(draws(7).await, draws(8).await);
}

// === predicates ===

/// Scenario 3: what is ignored stays ignored, and what the classifier would not retry can be added.
#[tokio::test(start_paused = true)]
async fn a_predicate_of_outcomes_has_the_last_word() {
    let attempts = |status: u32, predicate: fn(Outcome) -> bool| async move {
        let retry = every(SECOND).retry_outcomes(predicate).classify(classify_fn(by_status)).build().unwrap();
        retry.run(|| ready(Ok::<_, BoxError>(status))).await.unwrap();
        retry.handle().statistics().attempts()
    };
    assert_eq!(attempts(500, |outcome| outcome == Outcome::Permanent).await, 3);
    assert_eq!(attempts(503, |outcome| outcome == Outcome::Permanent).await, 1);
    assert_eq!(attempts(200, |_| true).await, 1, "a success is not asked about");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_be_retried_is_not_even_if_it_was_not_sent() {
    let layer = every(SECOND).retry_if(|request: &&str| *request != "background").build().unwrap();
    for (request, attempts) in [("background", 1), ("user", 3)] {
        let calls = Arc::new(Mutex::new(0));
        let count = calls.clone();
        let refused = service_fn(move |_: &str| {
            *count.lock().unwrap() += 1;
            ready(Err::<(), _>(BoxError::from_rejected(Rejected::shed())))
        });
        layer.layer(refused).oneshot(request).await.unwrap_err();
        assert_eq!(*calls.lock().unwrap(), attempts, "{request}");
    }
    let counted = layer.handle().statistics();
    assert_eq!((counted.failures, counted.gave_up_attempts), (1, 1));
}

// === the observer ===

/// Scenario 5.
#[tokio::test(start_paused = true)]
async fn an_observer_sees_each_attempt_and_its_panic_does_not_reach_the_call() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let observer = move |report: &AttemptReport| {
        log.lock().unwrap().push((report.attempt, report.outcome, report.sent, report.next));
        panic!("an observer of the test");
    };
    let retry = every(SECOND).max_attempts(2).on_attempt(observer).build().unwrap();
    retry.run(reset).await.unwrap_err();
    retry.run(|| ready(Ok::<_, BoxError>(7))).await.unwrap();
    let (transient, delay) = (Outcome::Transient, SECOND);
    let expected = [
        (1, transient, true, AfterAttempt::Retrying { delay }),
        (2, transient, true, AfterAttempt::GaveUp(GiveUpReason::Attempts)),
        (1, Outcome::Success, true, AfterAttempt::Returned),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(retry.handle().statistics().panicked, 0);
}

// === readiness ===

/// Is ready once, and fails its call.
#[derive(Clone)]
struct ReadyOnce(bool);

impl Service<()> for ReadyOnce {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        if std::mem::replace(&mut self.0, true) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(context::current().attempt() == 1, "only the first is ready");
        reset()
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for_as_long_as_the_settings_say() {
    let budget = Budget::default();
    for (longest, deadline, slept) in [(0, 60, 1), (5, 60, 6), (5, 3, 3)] {
        let layer = every(SECOND).budget(budget.clone()).ready_timeout(longest * SECOND).build().unwrap();
        let (before, start) = (budget.balance(), Instant::now());
        let scope = Context::new().with_deadline(start + deadline * SECOND);
        let error = scope.scope(layer.layer(ReadyOnce(false)).oneshot(())).await.unwrap_err();
        assert_eq!(start.elapsed(), slept * SECOND);
        assert_eq!(error.to_string(), "reset", "the last real result");
        let by_deadline = u64::from(deadline == 3);
        let counted = layer.handle().statistics();
        assert_eq!((counted.gave_up_not_ready, counted.gave_up_deadline), (1 - by_deadline, by_deadline));
        assert!(budget.balance() >= before - 0.2, "the attempt that was not made is given back");
    }
}

/// Becomes ready for each further attempt after 400 ms, which then takes 5 s and succeeds.
#[derive(Default)]
struct SlowToBeReady(Option<std::pin::Pin<Box<tokio::time::Sleep>>>);

impl Clone for SlowToBeReady {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl Service<()> for SlowToBeReady {
    type Response = u32;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<u32, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        if context::current().attempt() < 2 {
            return Poll::Ready(Ok(()));
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(400))));
        timer.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        if context::current().attempt() == 1 {
            return Box::pin(reset());
        }
        Box::pin(async {
            tokio::time::sleep(5 * SECOND).await;
            Ok(7)
        })
    }
}

/// The limit of the wait is not that of the attempt that follows.
#[tokio::test(start_paused = true)]
async fn an_attempt_may_take_longer_than_its_readiness_was_waited_for() {
    let set: [fn(RetryBuilder) -> RetryBuilder; 3] = [
        |builder| builder.ready_timeout(SECOND),
        |builder| builder.ready_timeout(SECOND).attempt_timeout(6 * SECOND),
        |builder| builder.max_elapsed(2 * SECOND),
    ];
    for set in set {
        let layer = set(every(SECOND)).build().unwrap();
        let start = Instant::now();
        let service = layer.layer(SlowToBeReady::default());
        assert_eq!(service.oneshot(()).await.unwrap(), 7);
        assert_eq!(start.elapsed(), Duration::from_millis(6_400));
    }
    // And the attempt has its own.
    let layer = every(SECOND).ready_timeout(SECOND).attempt_timeout(3 * SECOND).max_attempts(2).build().unwrap();
    let error = layer.layer(SlowToBeReady::default()).oneshot(()).await.unwrap_err();
    assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: 3 * SECOND, sent: true }));
}

#[tokio::test(start_paused = true)]
async fn an_observer_sees_a_success_at_a_later_attempt_and_a_wait_that_was_given_up() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observed = |builder: RetryBuilder| {
        let log = seen.clone();
        builder.on_attempt(move |report: &AttemptReport| {
            log.lock().unwrap().push((report.attempt, report.outcome, report.sent, report.next));
        })
    };
    let (transient, delay) = (Outcome::Transient, SECOND);
    let retry = observed(every(SECOND)).build().unwrap();
    let mut answers = [Err(BoxError::from("reset")), Ok(7)].into_iter();
    retry.run(|| ready(answers.next().unwrap())).await.unwrap();
    let expected =
        [(1, transient, true, AfterAttempt::Retrying { delay }), (2, Outcome::Success, true, AfterAttempt::Returned)];
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);

    let retry = observed(every(SECOND).ready_timeout(SECOND)).build().unwrap();
    retry.layer(ReadyOnce(false)).oneshot(()).await.unwrap_err();
    let expected = [
        (1, transient, true, AfterAttempt::Retrying { delay }),
        (1, transient, true, AfterAttempt::GaveUp(GiveUpReason::NotReady)),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// However an inner retry gives up while it waits, an outer one leaves it at that.
#[tokio::test(start_paused = true)]
async fn giving_up_while_the_next_attempt_is_waited_for_marks_the_result() {
    let set: [fn(RetryBuilder) -> RetryBuilder; 2] =
        [|builder| builder.ready_timeout(SECOND), |builder| builder.max_elapsed(3 * SECOND)];
    for set in set {
        let outer = every(SECOND).ready_timeout(Duration::ZERO).build().unwrap();
        let inner = set(every(SECOND)).build().unwrap();
        outer.layer(inner.layer(ReadyOnce(false))).oneshot(()).await.unwrap_err();
        let counted = (inner.handle().statistics(), outer.handle().statistics());
        assert_eq!((counted.0.gave_up(), counted.1.gave_up_inner, counted.1.retries), (1, 1, 0));
    }
}

/// Each wait for readiness has the whole of its time.
#[tokio::test(start_paused = true)]
async fn every_wait_for_readiness_has_the_whole_of_its_time() {
    /// Becomes ready for each further attempt after 400 ms, and fails every one.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Option<Instant>>>);

    impl Service<()> for Slow {
        type Response = u32;
        type Error = BoxError;
        type Future = Ready<Result<u32, BoxError>>;

        fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
            if context::current().attempt() < 2 {
                return Poll::Ready(Ok(()));
            }
            let ready = *self.0.lock().unwrap().get_or_insert_with(|| Instant::now() + Duration::from_millis(400));
            let waker = cx.waker().clone();
            if ready <= Instant::now() {
                return Poll::Ready(Ok(()));
            }
            tokio::spawn(async move {
                tokio::time::sleep_until(ready).await;
                waker.wake();
            });
            Poll::Pending
        }

        fn call(&mut self, (): ()) -> Self::Future {
            *self.0.lock().unwrap() = None;
            reset()
        }
    }

    let layer = every(SECOND).max_attempts(4).ready_timeout(Duration::from_millis(600)).build().unwrap();
    let start = Instant::now();
    layer.layer(Slow::default()).oneshot(()).await.unwrap_err();
    assert_eq!((layer.handle().statistics().gave_up_attempts, start.elapsed()), (1, Duration::from_millis(3 * 1_400)));
}

/// A panic after an attempt that was paid for has ended settles nothing twice.
#[tokio::test(start_paused = true)]
async fn a_panic_of_a_delay_settles_what_was_paid_once() {
    let budget = Budget::in_flight(InFlightConfig::default()).unwrap();
    let panics_later = |ended: &EndedAttempt| {
        assert!(ended.attempt < 2, "a delay of the test");
        Some(Duration::ZERO)
    };
    let layer = every(SECOND).delay_by(panics_later).budget(budget.clone()).build().unwrap();
    assert!(budget.try_withdraw(), "the extra attempt of another call");
    assert!(tokio::spawn(layer.run(reset)).await.unwrap_err().is_panic());
    assert_eq!((budget.balance(), layer.handle().statistics().panicked), (2.0, 1));
}

/// The reserve is for what is sent: attempts that are rejected further in use none of it up, however many.
#[tokio::test(start_paused = true)]
async fn attempts_that_were_never_sent_use_up_no_reserve() {
    let budget = Budget::new(BudgetConfig::default()).unwrap();
    let rejected = || BoxError::from_rejected(Rejected::Limited { retry_after: None });
    let layer = every(Duration::ZERO).max_attempts(30).budget(budget.clone()).build().unwrap();
    let mut first = true;
    layer
        .run(|| ready(Err::<u32, _>(if std::mem::take(&mut first) { "reset".into() } else { rejected() })))
        .await
        .unwrap_err();
    let counted = layer.handle().statistics();
    assert_eq!((counted.retries, counted.gave_up_attempts), (29, 1));
    assert!((budget.balance() - 10.2).abs() < 1e-9, "{}", budget.balance());
    // An attempt that is sent later earns once for the call, and is charged.
    let mut sent = [false, true, false, true].into_iter();
    let attempt = || ready(Err::<u32, _>(if sent.next().unwrap() { "reset".into() } else { rejected() }));
    let layer = every(Duration::ZERO).max_attempts(4).budget(budget.clone()).build().unwrap();
    layer.run(attempt).await.unwrap_err();
    assert!((budget.balance() - 9.4).abs() < 1e-9, "{}", budget.balance());
}

/// Each retry is counted by what the attempt before ended in.
#[cfg(feature = "metrics")]
#[test]
fn retries_are_counted_by_cause() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let layer = every(Duration::ZERO).max_attempts(9).classify(classify_fn(by_status_at_once)).build().unwrap();
        let limited = || Err(BoxError::from_rejected(Rejected::Limited { retry_after: None }));
        let mut answers = [Ok(503), Ok(429), limited(), Ok(503), Ok(429), Ok(503), Ok(502), Ok(200)].into_iter();
        let mut call = tokio_test::task::spawn(layer.run(|| ready(answers.next().unwrap())));
        assert_eq!(tokio_test::assert_ready_ok!(call.poll()), 200);
    });
    let mut counts = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let ("mainstay_retries_total", DebugValue::Counter(count)) = (key.key().name(), value) {
            let cause = key.key().labels().find(|label| label.key() == "cause").unwrap().value().to_owned();
            counts.push((cause, count));
        }
    }
    counts.sort();
    assert_eq!(counts, [("not_sent".to_owned(), 2), ("throttled".to_owned(), 2), ("transient".to_owned(), 3)]);
}

/// As `by_status`, but a throttle names no time, and 502 means that nothing was sent.
#[cfg(feature = "metrics")]
fn by_status_at_once(result: Result<&u32, &BoxError>) -> Outcome {
    match result {
        Ok(429) => Outcome::Throttled { retry_after: None },
        Ok(502) => Outcome::NotSent,
        other => by_status(other),
    }
}
