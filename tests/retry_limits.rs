//! What a user can set beside attempts and backoff: limits, predicates, delays and an observer of a retry.
#![cfg(feature = "retry")]

use std::cell::Cell;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::Budget;
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
