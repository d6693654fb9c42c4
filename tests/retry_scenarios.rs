//! Scenarios of retries that need more than the retry: what is thrown away, who counts what, and where we differ from others.
#![cfg(all(feature = "retry", feature = "circuit-breaker"))]

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::Budget;
use mainstay::retry::{RetryBuilder, RetryConfig};
use mainstay::{
    BoxError, CircuitBreakerConfig, CircuitBreakerHandle, CircuitState, Outcome, Rejectable, RetryLayer, classify_fn,
};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn every(delay: Duration) -> RetryBuilder {
    RetryLayer::builder("test").backoff(BackoffConfig::constant(delay)).hint_jitter(0.0).budget(Budget::unlimited())
}

/// Fails always, and counts how often.
fn dead(calls: &Arc<AtomicU32>) -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + use<> {
    let calls = calls.clone();
    service_fn(move |()| -> Ready<Result<(), BoxError>> {
        calls.fetch_add(1, Relaxed);
        ready(Err("down".into()))
    })
}

fn breaker(failures: u32) -> CircuitBreakerHandle {
    let mut config = CircuitBreakerConfig::default();
    config.consecutive_failures = Some(failures);
    CircuitBreakerHandle::new("test", config).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_retry_used_twice_starts_over_and_counts_on_scenario_1() {
    let layer = every(millis(500)).build().unwrap();
    let start = Instant::now();
    for calls in [1, 2] {
        let mut left = 2;
        let flaky = || {
            left -= 1;
            ready(if left > 0 { Err(BoxError::from("once")) } else { Ok(calls) })
        };
        layer.run(flaky).await.unwrap();
    }
    let counted = layer.handle().statistics();
    assert_eq!((start.elapsed(), counted.attempts(), counted.successes), (SECOND, 4, 2));
}

#[test]
fn settings_taken_from_others_leave_those_as_they_were_scenario_3() {
    let mut shared = RetryConfig::default();
    shared.max_attempts = 7;
    let one = RetryLayer::builder("one").config(shared).max_attempts(2).build().unwrap();
    let other = RetryLayer::builder("other").config(shared).build().unwrap();
    assert_eq!((one.handle().config().max_attempts, other.handle().config().max_attempts), (2, 7));
}

/// Of six results five are thrown away, each before the delay that follows it; the caller gets the last.
#[tokio::test(start_paused = true)]
async fn results_that_nobody_gets_are_dropped_before_the_next_attempt_scenario_5() {
    struct Held(Arc<AtomicU32>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let (held, attempts) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    let layer = every(SECOND)
        .max_attempts(6)
        .classify(classify_fn(|_: Result<&Held, &BoxError>| Outcome::Transient))
        .build()
        .unwrap();
    let last = layer
        .run(|| {
            assert_eq!(held.load(Relaxed), 0, "the one before is gone");
            held.fetch_add(1, Relaxed);
            attempts.fetch_add(1, Relaxed);
            ready(Ok::<_, BoxError>(Held(held.clone())))
        })
        .await
        .unwrap();
    assert_eq!((attempts.load(Relaxed), held.load(Relaxed)), (6, 1));
    drop(last);
}

/// A caller that leaves before the first poll has made no attempt of an operation; one that stays gets a result that calls for no
/// other attempt, whatever was left of its patience.
#[tokio::test(start_paused = true)]
async fn a_caller_that_left_has_no_more_attempts_and_an_answer_is_an_answer_scenario_5() {
    let calls = Arc::new(AtomicU32::new(0));
    let layer = every(SECOND).classify(classify_fn(|_: Result<&(), &BoxError>| Outcome::Refused)).build().unwrap();
    drop(task::spawn(async {
        let _ = layer.layer(dead(&calls)).oneshot(()).await;
    }));
    assert_eq!((calls.load(Relaxed), layer.handle().statistics().calls()), (0, 0), "not begun");
    layer.layer(dead(&calls)).oneshot(()).await.unwrap_err();
    assert_eq!((calls.load(Relaxed), layer.handle().statistics().failures), (1, 1));
}

/// Others draw from a range and turn the sign of the draw round; here a range is a delay with its share to either side, and a draw
/// of zero is its lower end.
#[test]
fn a_random_range_is_written_as_a_delay_and_a_share_of_it_scenario_8_differs() {
    let config = BackoffConfig::constant(millis(55)).with_cap(SECOND).with_jitter(Jitter::Proportional(45.0 / 55.0));
    let backoff = config.build().unwrap();
    let (shortest, longest) = backoff.range(mainstay::backoff::Progress::start());
    assert_eq!((shortest.as_millis(), longest.as_millis()), (10, 100));
    let delay = |draw| backoff.next_delay(&mut mainstay::backoff::Progress::start(), draw).as_millis();
    assert_eq!([0, 1 << 62, 1 << 63, 3 << 62].map(delay), [10, 32, 55, 77]);
}

/// A delay beyond the longest time is no mistake here: the call ends after its first attempt, and says why. What counts attempts
/// counts attempts, not retries; and of two delays that are set the last holds.
#[tokio::test(start_paused = true)]
async fn settings_that_others_refuse_or_clear_scenario_9_differs() {
    let layer = every(SECOND).max_elapsed(SECOND / 2).build().unwrap();
    layer.run(|| ready(Err::<(), _>(BoxError::from("down")))).await.unwrap_err();
    assert_eq!((layer.handle().statistics().attempts(), layer.handle().statistics().gave_up_elapsed), (1, 1));
    assert_eq!(RetryLayer::builder("test").max_attempts(0).build().unwrap_err().field(), "max_attempts");
    let linear = BackoffConfig::linear(SECOND, SECOND);
    let layer = every(SECOND).backoff(linear).build().unwrap();
    assert_eq!(layer.handle().config().backoff, linear);
}

/// A breaker around a retry sees one call, however many attempts that is.
#[tokio::test(start_paused = true)]
async fn a_breaker_around_a_retry_counts_calls_and_not_attempts_scenario_12() {
    let (calls, breaker) = (Arc::new(AtomicU32::new(0)), breaker(3));
    let service =
        ServiceBuilder::new().layer(breaker.layer()).layer(every(millis(10)).build().unwrap()).service(dead(&calls));
    service.oneshot(()).await.unwrap_err();
    assert_eq!((calls.load(Relaxed), breaker.statistics().failures, breaker.state()), (3, 1, CircuitState::Closed));
}

/// Others burn their attempts on the open circuit: 7 attempts, 3 of them executed. Here the first rejection by it ends the call.
#[tokio::test(start_paused = true)]
async fn a_retry_around_a_breaker_burns_no_attempts_on_it_scenario_12_differs() {
    for (failures, executed) in [(3, 3), (1, 1)] {
        let (calls, breaker) = (Arc::new(AtomicU32::new(0)), breaker(failures));
        let retry = every(millis(10)).max_attempts(7).build().unwrap();
        let service = ServiceBuilder::new().layer(retry.clone()).layer(breaker.layer()).service(dead(&calls));
        let start = Instant::now();
        let error = service.oneshot(()).await.unwrap_err();
        assert!(error.as_rejected().is_some_and(|rejected| !rejected.was_sent()), "{error}");
        assert_eq!((calls.load(Relaxed), breaker.statistics().failures), (executed, u64::from(executed)));
        assert_eq!(start.elapsed(), millis(10) * executed);
        let counted = retry.handle().statistics();
        assert_eq!((counted.attempts(), counted.failures), (u64::from(executed) + 1, 1));
    }
}

/// The default has a cap: a peer's waits 14 hours before its 20th attempt.
#[test]
fn by_default_no_delay_is_longer_than_ten_seconds_whichever_attempt_it_follows() {
    let backoff = BackoffConfig::default().build().unwrap();
    assert!(backoff.delays_seeded(7).take(10_000).all(|delay| delay <= 10 * SECOND));
}

/// A budget that bites says so: with the result that there is, and by an event.
#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_returns_the_last_real_result_and_tells_why() {
    use mainstay::telemetry::Event;
    use mainstay::telemetry::event::RetryEventKind;

    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = told.clone();
    let budget = Budget::default();
    while budget.try_withdraw() {}
    let layer = RetryLayer::builder("test")
        .budget(budget)
        .listener(move |event: &Event<'_>| {
            if let Event::Retry(event) = event
                && let RetryEventKind::GaveUp { attempts, outcome, reason } = event.kind
            {
                log.lock().unwrap().push((attempts, outcome, reason.to_owned()));
            }
        })
        .build()
        .unwrap();
    let start = Instant::now();
    let error = layer.run(|| ready(Err::<(), _>(BoxError::from("the callee's own words")))).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("the callee's own words", Duration::ZERO));
    assert_eq!(*told.lock().unwrap(), [(1, Outcome::Transient, "budget".to_owned())]);
}

/// The budget reads the clock that a test can pause: a minute of it is over at once.
#[tokio::test(start_paused = true)]
async fn a_call_in_its_delay_and_its_budget_follow_a_paused_clock() {
    let budget = Budget::default();
    while budget.try_withdraw() {}
    advance(60 * SECOND).await;
    let layer = RetryLayer::builder("test").backoff(BackoffConfig::constant(SECOND)).budget(budget).build().unwrap();
    let mut call = task::spawn(layer.run(|| ready(Err::<(), _>(BoxError::from("down")))));
    assert_pending!(call.poll(), "it may retry again");
}
