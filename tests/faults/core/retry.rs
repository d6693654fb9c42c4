//! Retries: when to stop, when to wait, what is repeated.
#![cfg(feature = "retry")]

use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{self, Poll};
use std::time::Duration;

use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::{Budget, BudgetConfig, InFlightConfig};
use mainstay::context::{self, Context, Criticality};
use mainstay::retry::{EndedAttempt, RequestPolicy, RetryBuilder, RetryConfig, TrustHint, retry};
use mainstay::{
    BoxError, CircuitOpen, CircuitState, Classify, Error, NoEndpoint, NoEndpointReason, Outcome, Rejectable, Rejected,
    RetryHint, RetryLayer, classify_fn,
};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready_err};
use tower::{Layer, Service, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Constant delays, and no budget in the way.
fn every(delay: Duration) -> RetryBuilder {
    RetryLayer::builder("test").backoff(BackoffConfig::constant(delay)).budget(Budget::unlimited())
}

fn open(state: CircuitState) -> Rejected {
    CircuitOpen::new("db", state).with_retry_after(millis(100)).into()
}

// === 2: an open circuit ===

/// An error of the user's with another inside.
#[derive(Debug, thiserror::Error)]
#[error("a query failed")]
struct Wrapped(#[source] BoxError);

#[tokio::test(start_paused = true)]
async fn entry_02_a_circuit_that_rejects_ends_the_call_at_once_and_costs_nothing() {
    for state in [CircuitState::Open, CircuitState::ForcedOpen, CircuitState::HalfOpen] {
        // By itself, or deep inside of another error.
        let shapes: [fn(Rejected) -> BoxError; 3] = [
            BoxError::from_rejected,
            |rejected| Wrapped(rejected.into()).into(),
            |rejected| Wrapped(Wrapped(Error::<std::fmt::Error>::Rejected(rejected).into()).into()).into(),
        ];
        for shape in shapes {
            let layer = RetryLayer::builder("test").build().unwrap();
            let (calls, start) = (AtomicU32::new(0), Instant::now());
            let before = layer.handle().budget().balance();
            let attempt = || {
                calls.fetch_add(1, Relaxed);
                ready(Err::<(), _>(shape(open(state))))
            };
            let error = layer.run(attempt).await.unwrap_err();
            assert_eq!(error.as_rejected(), Some(&open(state)));
            assert_eq!((calls.load(Relaxed), start.elapsed()), (1, Duration::ZERO));
            assert_eq!(layer.handle().budget().balance(), before);
            assert_eq!((layer.handle().statistics().failures, layer.handle().statistics().retries), (1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_02_a_circuit_that_opens_between_two_attempts_gives_back_what_was_paid() {
    let budget = Budget::default();
    let layer = every(SECOND).budget(budget.clone()).build().unwrap();
    let calls = AtomicU32::new(0);
    let attempt = || {
        let first = calls.fetch_add(1, Relaxed) == 0;
        let error = if first { "reset".into() } else { BoxError::from_rejected(open(CircuitState::Open)) };
        ready(Err::<(), _>(error))
    };
    let start = Instant::now();
    assert!(layer.run(attempt).await.unwrap_err().as_rejected().is_some());
    assert_eq!((calls.load(Relaxed), start.elapsed()), (2, SECOND));
    assert!(budget.balance() >= 10.0, "{}", budget.balance());
}

#[test]
fn entry_02_another_try_of_the_same_service_does_not_help_and_nothing_was_sent() {
    let rejected = open(CircuitState::Open);
    assert_eq!((rejected.retry(), rejected.was_sent()), (RetryHint::No, false));
    let limited = Rejected::Limited { retry_after: Some(SECOND) };
    assert_eq!(limited.retry(), RetryHint::After(SECOND), "a limit frees up by itself");
}

/// Before, the only setting against waiting for a circuit also stopped this.
#[tokio::test(start_paused = true)]
async fn entry_02_the_wait_that_a_server_asks_for_is_still_honoured() {
    let layer = every(millis(10)).classify(classify_fn(by_status)).build().unwrap();
    let (mut answers, start) = ([503, 200].into_iter(), Instant::now());
    layer.run(|| ready(Ok::<_, BoxError>(answers.next().unwrap()))).await.unwrap();
    assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
}

fn by_status(result: Result<&u32, &BoxError>) -> Outcome {
    match result {
        Ok(503) => Outcome::throttled(2 * SECOND),
        Ok(429) => Outcome::Throttled { retry_after: None },
        Ok(200) => Outcome::Success,
        _ => Outcome::Transient,
    }
}

// === 5: retries without a delay ===

/// Polls a call of endless retries until it has made this many attempts; each poll must end.
fn polls_until(attempts: u32, calls: &AtomicU32, mut future: tokio_test::task::Spawn<impl Future<Output = ()>>) -> u32 {
    let mut polls = 0;
    while calls.load(Relaxed) < attempts {
        let before = calls.load(Relaxed);
        assert_pending!(future.poll());
        assert!(future.is_woken(), "it goes on by itself");
        assert!(calls.load(Relaxed) > before, "each poll makes progress");
        polls += 1;
    }
    polls
}

#[test]
fn entry_05_unlimited_attempts_yield() {
    let failures: [fn() -> BoxError; 3] = [
        || "reset".into(),
        || BoxError::from_rejected(NoEndpoint::new("pool", NoEndpointReason::Empty).into()),
        || BoxError::from_rejected(Rejected::Limited { retry_after: None }),
    ];
    for fail in failures {
        let unlimited = || every(Duration::ZERO).unlimited_attempts().build().unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let count = calls.clone();
        let attempt = move || {
            assert!(count.fetch_add(1, Relaxed) < 1_000_000, "never yields");
            ready(Err::<(), BoxError>(fail()))
        };
        let (layer, again) = (unlimited(), attempt.clone());
        let run = async move { assert!(layer.run(again).await.is_ok()) };
        assert!(polls_until(100, &calls, tokio_test::task::spawn(run)) >= 10);

        calls.store(0, Relaxed);
        let (layer, again) = (unlimited(), attempt.clone());
        let run = async move { assert!(retry(&layer, again).await.is_ok()) };
        assert!(polls_until(100, &calls, tokio_test::task::spawn(run)) >= 10);

        calls.store(0, Relaxed);
        let again = attempt.clone();
        let service = unlimited().layer(service_fn(move |(): ()| again()));
        let run = async move { assert!(service.oneshot(()).await.is_ok()) };
        assert!(polls_until(100, &calls, tokio_test::task::spawn(run)) >= 10);
    }
}

/// On one thread: each of two calls that fail at once for ever lets the other, and the timeouts around both, go on.
#[tokio::test]
async fn entry_05_other_tasks_run_and_timeouts_fire() {
    let layer = every(Duration::ZERO).unlimited_attempts().build().unwrap();
    let stop = Arc::new(AtomicU32::new(0));
    let (other, stopped) = (layer.clone(), stop.clone());
    let endless = tokio::spawn(async move {
        let attempt = || ready(if stopped.load(Relaxed) == 1 { Ok(()) } else { Err(BoxError::from("reset")) });
        other.run(attempt).await
    });
    let attempt = || ready(Err::<(), _>(BoxError::from("reset")));
    assert!(tokio::time::timeout(millis(1), layer.run(attempt)).await.is_err());
    stop.store(1, Relaxed);
    endless.await.unwrap().unwrap();
}

/// A few attempts need no yield: the second and third of the default come in the same poll.
#[test]
fn entry_05_a_few_attempts_at_once_are_made_in_one_poll() {
    let layer = every(Duration::ZERO).build().unwrap();
    let mut future = tokio_test::task::spawn(layer.run(|| ready(Err::<(), BoxError>("reset".into()))));
    assert_ready_err!(future.poll());
    assert_eq!(layer.handle().statistics().retries, 2);
}

// === 6: the mark of an inner retry belongs to its result ===

/// A failure that is told from others by its text and its place in memory.
fn fails<T>(text: &str) -> Ready<Result<T, BoxError>> {
    ready(Err(text.into()))
}

/// The work of the outer call: with this inner retry, it fails at its first attempt and then succeeds.
async fn fails_once(attempts: &AtomicU32) -> Result<u32, BoxError> {
    if attempts.fetch_add(1, Relaxed) == 0 { fails("once").await } else { Ok(7) }
}

#[tokio::test(start_paused = true)]
async fn entry_06_an_optional_call_that_gave_up_does_not_mark_the_attempt() {
    // The real work fails in the poll in which the optional call gave up, or later.
    for (delay, later) in [(0, false), (10, false), (0, true), (10, true)] {
        let (outer, inner) = (every(SECOND).build().unwrap(), every(millis(delay)).build().unwrap());
        let attempts = AtomicU32::new(0);
        let call = outer.run(async || {
            let optional = inner.run(|| fails::<u32>("optional")).await.unwrap_or_default();
            assert_eq!(optional, 0);
            if later {
                tokio::time::sleep(millis(1)).await;
            }
            fails_once(&attempts).await
        });
        assert_eq!(call.await.unwrap(), 7);
        let counted = outer.handle().statistics();
        assert_eq!((counted.retries, counted.gave_up_inner), (1, 0), "{delay} {later}");
        assert_eq!(inner.handle().statistics().gave_up_attempts, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_06_a_sibling_that_gave_up_does_not_mark_the_attempt() {
    let (outer, inner) = (every(SECOND).build().unwrap(), every(Duration::ZERO).build().unwrap());
    let attempts = AtomicU32::new(0);
    let call = outer.run(async || {
        let (_, real) = tokio::join!(inner.run(|| fails::<u32>("optional")), fails_once(&attempts));
        real
    });
    assert_eq!(call.await.unwrap(), 7);
    assert_eq!(outer.handle().statistics().gave_up_inner, 0);
}

/// Rejections are told from each other, and from other errors, whatever holds them.
#[tokio::test(start_paused = true)]
async fn entry_06_an_optional_call_that_was_rejected_does_not_mark_the_attempt() {
    let limited = || Rejected::Limited { retry_after: None };
    let none = |pool: &'static str| Rejected::from(NoEndpoint::new(pool, NoEndpointReason::Empty));
    let replaced: [(Rejected, BoxError); 3] = [
        (none("optional"), BoxError::from_rejected(none("real"))),
        (limited(), BoxError::from("reset")),
        (limited(), BoxError::from_rejected(none("real"))),
    ];
    for (optional, real) in replaced {
        let (outer, inner) = (every(SECOND).build().unwrap(), every(Duration::ZERO).build().unwrap());
        let mut real = Some(real);
        let call = outer.run(|| {
            let real = real.take();
            let optional = inner.run(|| ready(Err::<u32, _>(BoxError::from_rejected(optional.clone()))));
            async move {
                let _ = optional.await;
                real.map_or(Ok(7), Err)
            }
        });
        assert_eq!(call.await.unwrap(), 7);
    }
}

/// A mark of an earlier attempt says nothing about the result of a later one, even if it is the same rejection.
#[tokio::test(start_paused = true)]
async fn entry_06_a_mark_does_not_outlive_its_attempt() {
    let limited = || BoxError::from_rejected(Rejected::Limited { retry_after: None });
    let (outer, inner) = (every(SECOND).build().unwrap(), every(Duration::ZERO).build().unwrap());
    let attempts = AtomicU32::new(0);
    let call = outer.run(async || match attempts.fetch_add(1, Relaxed) {
        0 => {
            inner.run(|| ready(Err::<u32, _>(limited()))).await.unwrap_err();
            fails("once").await
        }
        1 => Err(limited()),
        _ => Ok(7),
    });
    assert_eq!(call.await.unwrap(), 7);
}

/// A result without a mark of its own (a response, an error of the user's type) is told by when it comes.
#[tokio::test(start_paused = true)]
async fn entry_06_a_response_that_was_replaced_later_does_not_mark_the_attempt() {
    let layer = || every(millis(10)).classify(classify_fn(by_status)).build().unwrap();
    let (outer, inner) = (layer(), layer());
    let mut answers = [500, 200].into_iter();
    let call = outer.run(|| {
        let (optional, answer) = (inner.run(|| ready(Ok::<_, BoxError>(500))), answers.next().unwrap());
        async move {
            assert_eq!(optional.await.unwrap(), 500);
            tokio::time::sleep(millis(1)).await;
            Ok::<_, BoxError>(answer)
        }
    });
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn entry_06_the_result_itself_is_marked_however_it_comes_back() {
    #[derive(Clone, Copy, Debug)]
    enum How {
        AsItIs,
        Later,
        Wrapped,
        BesideAnother,
    }
    for how in [How::AsItIs, How::Later, How::Wrapped, How::BesideAnother] {
        let (outer, inner) = (every(SECOND).build().unwrap(), every(millis(10)).build().unwrap());
        let calls = AtomicU32::new(0);
        let real = || {
            calls.fetch_add(1, Relaxed);
            fails::<u32>("reset")
        };
        let call = outer.run(async || match how {
            How::AsItIs => inner.run(real).await,
            How::Later => {
                let result = inner.run(real).await;
                tokio::time::sleep(millis(1)).await;
                result
            }
            How::Wrapped => inner.run(real).await.map_err(|error| Wrapped(error).into()),
            How::BesideAnother => tokio::join!(inner.run(real), inner.run(|| fails::<u32>("optional"))).0,
        });
        call.await.unwrap_err();
        assert_eq!((calls.load(Relaxed), outer.handle().statistics().gave_up_inner), (3, 1), "{how:?}");
    }
}

// === 7: marks and endpoints tried pass through every scope ===

#[tokio::test(start_paused = true)]
async fn entry_07_a_scope_between_two_retries_lets_the_mark_through() {
    let background = Context::new().with_criticality(Criticality::Sheddable);
    let calls = AtomicU32::new(0);
    let real = || {
        calls.fetch_add(1, Relaxed);
        fails::<u32>("reset")
    };
    let layer = || every(millis(10)).build().unwrap();
    let (outer, middle, inner) = (layer(), layer(), layer());
    let call = outer.run(|| background.scope(context::carry(middle.run(|| background.scope(inner.run(real))))));
    call.await.unwrap_err();
    let gave_up_inner = [&outer, &middle].map(|layer| layer.handle().statistics().gave_up_inner);
    assert_eq!((calls.load(Relaxed), gave_up_inner), (3, [1, 1]));
    assert_eq!(context::current(), Context::new());
}

/// In `call` instead of `poll`, and with an error that cannot be told from others.
#[test]
fn entry_07_a_scope_that_is_entered_lets_the_mark_through() {
    #[derive(Debug)]
    enum Own {
        Sick,
        #[allow(dead_code, reason = "never rejected here")]
        Rejected(Rejected),
    }
    mainstay::rejectable!(Own::Rejected);
    let (outer, inner) = (every(Duration::ZERO).build().unwrap(), every(Duration::ZERO).build().unwrap());
    let calls = AtomicU32::new(0);
    let call = outer.run(|| {
        let attempt = || {
            calls.fetch_add(1, Relaxed);
            ready(Err::<u32, _>(Own::Sick))
        };
        let mut call = Box::pin(inner.run(attempt));
        std::future::poll_fn(move |cx| Context::new().with_attempt(9).enter(|| call.as_mut().poll(cx)))
    });
    assert!(matches!(assert_ready_err!(tokio_test::task::spawn(call).poll()), Own::Sick));
    assert_eq!((calls.load(Relaxed), outer.handle().statistics().gave_up_inner), (3, 1));
}

#[cfg(feature = "balance")]
#[tokio::test(start_paused = true)]
async fn entry_07_a_scope_lets_the_endpoints_that_were_tried_through() {
    let failing = |number: u32| service_fn(move |(): ()| ready(Err::<u32, BoxError>(number.to_string().into())));
    for picker in [mainstay::balance::Picker::InFlight, mainstay::balance::Picker::RoundRobin] {
        let outer = every(Duration::ZERO).build().unwrap();
        for _ in 0..20 {
            // A new one each time, or its endpoints would be ejected.
            let pool = mainstay::balance::Pool::builder("test").picker(picker).build().unwrap();
            pool.handle().add_all((0..3).map(|number| (number, failing(number))));
            let tried = std::sync::Mutex::new(Vec::new());
            let call = outer.run(async || {
                let background = Context::new().with_criticality(Criticality::Sheddable);
                let error = background.scope(pool.clone().oneshot(())).await.unwrap_err();
                tried.lock().unwrap().push(error.to_string());
                Err::<u32, _>(error)
            });
            call.await.unwrap_err();
            let mut tried = tried.into_inner().unwrap();
            tried.sort();
            assert_eq!(tried, ["0", "1", "2"], "{picker:?}");
        }
    }
}

// === 15: what a limit that ends a wait returns ===

/// Is ready for its first call only, which fails as it is told to.
#[derive(Clone)]
struct ReadyOnce {
    taken: bool,
    error: fn() -> BoxError,
}

impl Service<()> for ReadyOnce {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        if std::mem::replace(&mut self.taken, true) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Err((self.error)()))
    }
}

#[tokio::test(start_paused = true)]
async fn entry_15_a_limit_that_ends_the_wait_for_a_later_attempt_returns_the_last_result() {
    type Limit = (fn(RetryBuilder) -> RetryBuilder, Option<Duration>, u32, [u64; 3]);
    type Fail = (fn() -> BoxError, &'static str);
    let errors: [Fail; 2] = [
        (|| std::io::Error::from(std::io::ErrorKind::ConnectionReset).into(), "connection reset"),
        (|| BoxError::from_rejected(NoEndpoint::new("app", NoEndpointReason::Empty).into()), "pool `app`"),
    ];
    let by_deadline = Some(3 * SECOND);
    let limits: [Limit; 3] = [
        (|builder| builder, by_deadline, 3, [1, 0, 0]),
        (|builder| builder.max_elapsed(3 * SECOND), None, 3, [0, 1, 0]),
        (|builder| builder.ready_timeout(3 * SECOND), None, 4, [0, 0, 1]),
    ];
    for (error, text) in errors {
        for (limit, deadline, slept, counts) in &limits {
            let layer = limit(every(SECOND)).build().unwrap();
            let start = Instant::now();
            let service = layer.layer(ReadyOnce { taken: false, error });
            let call = service.oneshot(());
            let error = match deadline {
                Some(left) => Context::new().with_deadline(start + *left).scope(call).await,
                None => call.await,
            };
            let error = error.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(start.elapsed(), *slept * SECOND, "{text}");
            let counted = layer.handle().statistics();
            assert_eq!([counted.gave_up_deadline, counted.gave_up_elapsed, counted.gave_up_not_ready], *counts);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_15_a_delay_that_does_not_fit_before_the_deadline_is_not_begun() {
    let layer = every(2 * SECOND).build().unwrap();
    let start = Instant::now();
    let call = layer.run(|| ready(Err::<(), BoxError>("reset".into())));
    let error = Context::new().with_deadline(start + SECOND).scope(call).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("reset", Duration::ZERO));
}

/// A response may hold a connection, and is dropped before the wait: the limit reports itself.
#[tokio::test(start_paused = true)]
async fn entry_15_a_response_is_dropped_before_the_wait_and_the_limit_reports_itself() {
    #[derive(Clone)]
    struct Unready(ReadyOnce);
    impl Service<()> for Unready {
        type Response = u32;
        type Error = BoxError;
        type Future = Ready<Result<u32, BoxError>>;
        fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0.poll_ready(cx)
        }
        fn call(&mut self, (): ()) -> Self::Future {
            ready(Ok(500))
        }
    }
    let layer = every(SECOND).ready_timeout(SECOND).classify(classify_fn(by_status)).build().unwrap();
    let service = layer.layer(Unready(ReadyOnce { taken: false, error: || "unused".into() }));
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: SECOND, sent: true }));
}

// === 21: a delay beyond the end of time ===

#[tokio::test(start_paused = true)]
async fn entry_21_a_delay_beyond_the_end_of_time_gives_up() {
    let calls = AtomicU32::new(0);
    let attempt = || {
        calls.fetch_add(1, Relaxed);
        ready(Err::<u32, BoxError>("reset".into()))
    };
    let own = every(SECOND).delay_by(|_: &EndedAttempt| Some(Duration::MAX)).build().unwrap();
    let sequence = every(SECOND).delays(|| [Duration::MAX]).build().unwrap();
    let backoff = every(Duration::MAX).build().unwrap();
    for layer in [own, sequence, backoff] {
        calls.store(0, Relaxed);
        assert_eq!(layer.run(attempt).await.unwrap_err().to_string(), "reset");
        assert_eq!((calls.load(Relaxed), layer.handle().statistics().gave_up_attempts), (1, 1));
    }
    let forever = classify_fn(|_: Result<&u32, &BoxError>| Outcome::throttled(Duration::MAX));
    let layer = every(SECOND).max_retry_after(Duration::MAX).classify(forever).build().unwrap();
    calls.store(0, Relaxed);
    layer.run(attempt).await.unwrap_err();
    assert_eq!((calls.load(Relaxed), layer.handle().statistics().gave_up_retry_after), (1, 1));
}

// === 24: panics before the first attempt ===

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    MayRetry,
    TryClone,
    IsIdempotent,
}

struct Panics(Bad);

impl RequestPolicy<()> for Panics {
    fn try_clone(&self, (): &()) -> Option<()> {
        assert_ne!(self.0, Bad::TryClone);
        Some(())
    }

    fn is_idempotent(&self, (): &()) -> bool {
        assert_ne!(self.0, Bad::IsIdempotent);
        true
    }

    fn may_retry(&self, (): &()) -> bool {
        assert_ne!(self.0, Bad::MayRetry);
        true
    }
}

#[test]
fn entry_24_a_panic_before_the_first_attempt_is_counted() {
    for bad in [Bad::MayRetry, Bad::TryClone, Bad::IsIdempotent] {
        let layer = every(SECOND).requests(Panics(bad)).build().unwrap();
        let attempt = || ready(Ok::<_, BoxError>(()));
        assert!(catch_unwind(AssertUnwindSafe(|| layer.run(attempt))).is_err(), "{bad:?}");
        let counted = layer.handle().statistics();
        assert_eq!((counted.panicked, counted.calls()), (1, 1), "{bad:?}");
    }
}

#[test]
fn entry_24_a_service_that_panics_as_it_is_cloned_is_counted() {
    struct NoClone;
    impl Clone for NoClone {
        fn clone(&self) -> Self {
            panic!("no clone")
        }
    }
    impl Service<()> for NoClone {
        type Response = ();
        type Error = BoxError;
        type Future = Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            ready(Ok(()))
        }
    }
    let layer = every(SECOND).build().unwrap();
    let mut service = layer.layer(NoClone);
    assert!(catch_unwind(AssertUnwindSafe(|| Service::call(&mut service, ()))).is_err());
    assert_eq!((layer.handle().statistics().panicked, layer.handle().statistics().calls()), (1, 1));
}

// === 27: polled after completion ===

#[tokio::test(start_paused = true)]
async fn entry_27_a_future_polled_after_its_end_panics() {
    let panics = |future: &mut tokio_test::task::Spawn<_>| catch_unwind(AssertUnwindSafe(|| poll(future))).is_err();
    fn poll<F: Future>(future: &mut tokio_test::task::Spawn<F>) -> bool {
        future.poll().is_ready()
    }

    let (first, later) = (every(SECOND).build().unwrap(), every(Duration::ZERO).build().unwrap());
    let fails = |succeeds: bool| move || ready(if succeeds { Ok(()) } else { Err(BoxError::from("reset")) });
    let boxed = |layer: &RetryLayer, succeeds| {
        let future: std::pin::Pin<Box<dyn Future<Output = Result<(), BoxError>>>> =
            Box::pin(layer.run(fails(succeeds)));
        tokio_test::task::spawn(future)
    };
    for (layer, succeeds) in [(&first, true), (&later, false)] {
        let mut future = boxed(layer, succeeds);
        assert!(poll(&mut future));
        assert!(panics(&mut future));
        assert_eq!(layer.handle().statistics().calls(), 1, "and is counted once");
    }
    // Rejected before its first attempt.
    let mut future = Context::new().with_deadline(Instant::now()).enter(|| boxed(&first, true));
    assert!(poll(&mut future));
    assert!(panics(&mut future));
}

#[test]
#[should_panic(expected = "polled after a panic")]
fn entry_27_a_future_polled_after_a_panic_panics() {
    let classifier = classify_fn(|_: Result<&(), &BoxError>| panic!("classifier"));
    let layer = every(SECOND).classify(classifier).build().unwrap();
    let mut future = tokio_test::task::spawn(layer.run(|| ready(Ok::<_, BoxError>(()))));
    assert!(catch_unwind(AssertUnwindSafe(|| future.poll())).is_err());
    let _ = future.poll();
}

// === 13: waits that many callers share ===

/// When these calls of one layer made their second attempts, after a first at the same moment.
async fn second_attempts(layer: &RetryLayer<impl Classify<u32, BoxError> + Copy>, calls: usize) -> Vec<Duration> {
    let start = Instant::now();
    let call = || async {
        let (mut answers, mut second) = ([503, 200].into_iter(), Duration::ZERO);
        let attempt = || {
            second = start.elapsed();
            ready(Ok::<_, BoxError>(answers.next().unwrap()))
        };
        layer.run(attempt).await.unwrap();
        second
    };
    futures_util::future::join_all((0..calls).map(|_| call())).await
}

fn named(wait: Duration) -> impl Classify<u32, BoxError> + Copy {
    classify_fn(move |result: Result<&u32, &BoxError>| match result {
        Ok(200) => Outcome::Success,
        _ => Outcome::throttled(wait),
    })
}

#[tokio::test(start_paused = true)]
async fn entry_13_callers_that_were_given_the_same_time_spread_and_none_is_early() {
    let layer =
        RetryLayer::builder("test").seed(7).budget(Budget::unlimited()).classify(named(SECOND)).build().unwrap();
    let waits = second_attempts(&layer, 200).await;
    assert!(waits.iter().all(|wait| (SECOND..=millis(1_201)).contains(wait)), "{waits:?}");
    let mut peak = [0; 21];
    waits.iter().for_each(|wait| peak[usize::try_from((*wait - SECOND).as_millis() / 10).unwrap()] += 1);
    assert!(peak.iter().all(|&count| count <= 12), "{peak:?}: 200 without jitter, 16 and more with random draws");
}

#[tokio::test(start_paused = true)]
async fn entry_13_a_limit_that_names_a_time_spreads_callers_too() {
    let layer = every(millis(10)).seed(7).build().unwrap();
    let call = || async {
        let (mut first, start) = (true, Instant::now());
        let attempt = || {
            let limited = Rejected::Limited { retry_after: Some(SECOND) };
            ready(if std::mem::take(&mut first) { Err(BoxError::from_rejected(limited)) } else { Ok(()) })
        };
        layer.run(attempt).await.unwrap();
        start.elapsed().as_millis()
    };
    let waits = futures_util::future::join_all((0..50).map(|_| call())).await;
    assert!(waits.iter().all(|wait| (1_000..=1_201).contains(wait)), "{waits:?}");
    assert!(waits.iter().max() > waits.iter().min().map(|least| least + 100).as_ref(), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn entry_13_how_a_named_time_is_followed_can_be_configured() {
    let wait = |builder: RetryBuilder, asked: Duration| async move {
        second_attempts(&builder.classify(named(asked)).build().unwrap(), 1).await[0]
    };
    let exact = || every(millis(100)).hint_jitter(0.0);
    assert_eq!(wait(exact(), 2 * SECOND).await, 2 * SECOND);
    assert_eq!(wait(exact(), millis(10)).await, millis(100), "the own delay is longer");
    // R4: by option, a time that is too long is cut instead of ending the call.
    let clamped = || exact().trust_hint(TrustHint::Clamped);
    assert_eq!(wait(clamped(), 3_600 * SECOND).await, millis(5_100));
    assert_eq!(wait(clamped(), 2 * SECOND).await, 2 * SECOND);
    assert_eq!(wait(clamped(), millis(10)).await, millis(100));
    assert_eq!(wait(clamped().max_retry_after(SECOND), 3_600 * SECOND).await, SECOND);
    for asked in [2 * SECOND, 3_600 * SECOND] {
        let jittered = wait(every(millis(100)).seed(1).trust_hint(TrustHint::Clamped), asked).await;
        assert!((asked.min(millis(5_100))..=millis(5_101)).contains(&jittered), "{jittered:?}");
    }
    // Jitter does not carry the wait beyond the longest.
    for seed in 0..20 {
        let longest = wait(every(millis(100)).seed(seed).max_retry_after(millis(2_100)), 2 * SECOND).await;
        assert!((2 * SECOND..=millis(2_101)).contains(&longest), "{longest:?}");
    }
    let error = RetryLayer::builder("test").hint_jitter(1.1).build().unwrap_err();
    assert_eq!(error.field(), "hint_jitter");
}

/// Nor beyond the deadline, although the time named fits.
#[tokio::test(start_paused = true)]
async fn entry_13_jitter_carries_no_attempt_beyond_the_deadline() {
    for seed in 0..20 {
        let layer = every(millis(100)).seed(seed).hint_jitter(1.0).classify(named(SECOND)).build().unwrap();
        let scope = Context::new().with_deadline(Instant::now() + millis(1_100));
        let waits = scope.scope(second_attempts(&layer, 1)).await;
        assert!((SECOND..millis(1_101)).contains(&waits[0]), "{waits:?}");
    }
}

/// Exponential from 1 s after throttles that name no time, from 50 ms after other failures.
#[tokio::test(start_paused = true)]
async fn entry_13_throttles_without_a_time_back_off_from_a_second() {
    let waits = |builder: RetryBuilder, status: u32| async move {
        let layer =
            builder.max_attempts(5).budget(Budget::unlimited()).classify(classify_fn(by_status)).build().unwrap();
        let (start, mut last, mut waits) = (Instant::now(), Instant::now(), Vec::new());
        let attempt = || {
            waits.push(std::mem::replace(&mut last, Instant::now()).elapsed());
            ready(Ok::<_, BoxError>(status))
        };
        layer.run(attempt).await.unwrap();
        assert!(start.elapsed() > Duration::ZERO);
        waits.split_off(1).into_iter().map(|wait| wait.as_millis()).collect::<Vec<_>>()
    };
    let default = || RetryLayer::builder("test").backoff(BackoffConfig::default().with_jitter(Jitter::None));
    assert_eq!(waits(default(), 429).await, [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits(default(), 500).await, [50, 100, 200, 400]);
    assert_eq!(
        waits(default().throttled_initial(3 * SECOND), 429).await,
        [3_000, 6_000, 10_000, 10_000],
        "up to the cap"
    );
    assert_eq!(waits(default().throttled_initial(millis(20)), 429).await, [20, 40, 80, 160]);
    assert_eq!(waits(every(millis(10)), 429).await, [10; 4], "a cap below it holds");
    assert_eq!(RetryConfig::default().throttled_initial, SECOND);
    for (seed, status) in [(1, 429), (2, 429), (1, 500), (2, 500)] {
        let longest = if status == 429 { 10_000 } else { 400 };
        let jittered = waits(RetryLayer::builder("test").seed(seed), status).await;
        assert!(jittered.iter().all(|&wait| wait <= longest + 1), "{jittered:?}");
    }
}

/// A callee that throttles asks for less load: half as many retries.
#[tokio::test(start_paused = true)]
async fn entry_13_a_retry_of_a_throttled_call_withdraws_twice() {
    for (status, cost) in [(429, 2.0), (500, 1.0)] {
        let budget = Budget::default();
        let layer = every(Duration::ZERO).max_attempts(2).budget(budget.clone()).classify(classify_fn(by_status));
        let layer = layer.build().unwrap();
        let before = budget.balance();
        layer.run(|| ready(Ok::<_, BoxError>(status))).await.unwrap();
        assert!((before + 0.2 - cost - budget.balance()).abs() < 1e-9, "{status}: {}", budget.balance());
        let mut retries = 0;
        while layer.handle().statistics().gave_up_budget == 0 {
            layer.run(|| ready(Ok::<_, BoxError>(status))).await.unwrap();
            retries = layer.handle().statistics().retries;
        }
        assert_eq!(retries, if status == 429 { 5 } else { 12 }, "of a reserve of 10, and 0.2 a call");
    }
    let of_status = |cost| {
        let budget = Budget::in_flight(InFlightConfig::default()).unwrap();
        assert!(budget.try_withdraw_cost(cost));
        (0..9).filter(|_| budget.try_withdraw()).count()
    };
    assert_eq!([0, 1, 2, 3].map(of_status), [3, 2, 1, 0]);
}

/// What was taken for an attempt that does not start, or is rejected, is given back in full.
#[tokio::test(start_paused = true)]
async fn entry_13_what_was_taken_twice_is_given_back_twice() {
    let budget = Budget::default();
    let layer = || every(SECOND).budget(budget.clone()).classify(classify_fn(by_status)).build().unwrap();
    let mut call = tokio_test::task::spawn(layer().run(|| ready(Ok::<_, BoxError>(429))));
    assert_pending!(call.poll());
    assert!((budget.balance() - 8.2).abs() < 1e-9);
    drop(call);
    assert!((budget.balance() - 10.2).abs() < 1e-9);
    let mut answers = [Ok(429), Err(BoxError::from_rejected(open(CircuitState::Open)))].into_iter();
    layer().run(|| ready(answers.next().unwrap())).await.unwrap_err();
    assert!((budget.balance() - 10.4).abs() < 1e-9, "{}", budget.balance());
    // All or nothing.
    let small = Budget::default();
    assert!((0..9).all(|_| small.try_withdraw()));
    assert!(!small.try_withdraw_cost(2));
    assert!((small.balance() - 1.0).abs() < 1e-9);
    assert!(small.try_withdraw_cost(0));
}

// === 16: what is sent twice does not depend on the order of the builder's calls ===

#[cfg(feature = "http")]
mod http_requests {
    use http::{Method, Request, Response};
    use mainstay::HttpClassifier;
    use mainstay::http::ReplayBodies;

    use super::*;

    type Body = String;

    fn get_and_post() -> [Request<Body>; 2] {
        [Method::GET, Method::POST].map(|method| Request::builder().method(method).body(Body::new()).unwrap())
    }

    /// How often a `GET` and a `POST` are sent that are answered 503.
    macro_rules! sent {
        ($builder:expr) => {{
            let layer = $builder.build().unwrap();
            let mut sent = Vec::new();
            for request in get_and_post() {
                let calls = Arc::new(AtomicU32::new(0));
                let count = calls.clone();
                let service = layer.layer(service_fn(move |_: Request<Body>| {
                    count.fetch_add(1, Relaxed);
                    ready(Ok::<_, BoxError>(Response::builder().status(503).body(()).unwrap()))
                }));
                let _ = service.oneshot(request).await;
                sent.push(calls.load(Relaxed));
            }
            (sent[0], sent[1])
        }};
    }

    fn builder() -> RetryBuilder {
        every(Duration::ZERO)
    }

    fn copy(request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }

    struct ByPath;

    impl RequestPolicy<Request<Body>> for ByPath {
        fn try_clone(&self, request: &Request<Body>) -> Option<Request<Body>> {
            copy(request)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entry_16_the_gate_of_http_holds_in_every_order() {
        assert_eq!(sent!(builder().http()), (3, 1));
        assert_eq!(sent!(builder().http().clone_with(copy)), (3, 1));
        assert_eq!(sent!(builder().clone_with(copy).http()), (3, 1));
        assert_eq!(sent!(builder().http().requests(ByPath)), (3, 1));
        assert_eq!(sent!(builder().requests(ByPath).http()), (3, 1));
        assert_eq!(sent!(builder().http().classify(HttpClassifier::new())), (3, 1));
        assert_eq!(sent!(builder().classify(HttpClassifier::new()).http().clone_with(copy)), (3, 1));
        assert_eq!(sent!(builder().http().http().max_attempts(2)), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn entry_16_rules_add_up_in_every_order() {
        let all = |_: &Request<Body>| true;
        let none = |_: &Request<Body>| false;
        assert_eq!(sent!(builder().http().idempotent_if(all)), (3, 1));
        assert_eq!(sent!(builder().idempotent_if(all).http()), (3, 1));
        assert_eq!(sent!(builder().http().idempotent_if(none)), (1, 1));
        assert_eq!(sent!(builder().idempotent_if(none).http()), (1, 1));
        assert_eq!(sent!(builder().idempotent_if(none).clone_with(copy).http()), (1, 1));
        assert_eq!(sent!(builder().retry_if(none).http().clone_with(copy)), (1, 1));
        assert_eq!(sent!(builder().idempotent_if(none).requests(ByPath).classify(HttpClassifier::new())), (1, 1));
        let gets = |request: &Request<Body>| request.method() == Method::GET;
        assert_eq!(sent!(builder().idempotent_if(gets).clone_with(copy).classify(HttpClassifier::new())), (3, 1));
    }

    /// Without `http`, only a policy that says which requests may be sent twice has any sent twice.
    #[tokio::test(start_paused = true)]
    async fn entry_16_a_classifier_for_http_alone_repeats_nothing_that_was_sent() {
        assert_eq!(sent!(builder().classify(HttpClassifier::new())), (1, 1));
        assert_eq!(sent!(builder().classify(HttpClassifier::new()).clone_with(copy)), (1, 1));
        assert_eq!(sent!(builder().clone_with(copy).classify(HttpClassifier::new())), (1, 1));
        assert_eq!(sent!(builder().classify(HttpClassifier::new()).retry_if(|_: &Request<Body>| true)), (1, 1));
        assert_eq!(sent!(builder().classify(HttpClassifier::new()).idempotent_if(|_: &Request<Body>| true)), (3, 3));
        assert_eq!(sent!(builder().classify(HttpClassifier::new()).requests(ByPath)), (3, 3), "as the policy has it");
        let layer = builder().classify(HttpClassifier::new()).build().unwrap();
        let answer = |_: Request<Body>| ready(Ok::<_, BoxError>(Response::builder().status(503).body(()).unwrap()));
        let _ = layer.layer(service_fn(answer)).oneshot(Request::new(Body::new())).await;
        assert_eq!(layer.handle().statistics().gave_up_not_idempotent, 1, "and says why");
    }

    /// A classifier that was chosen is kept: here one that takes 503 for a success.
    #[tokio::test(start_paused = true)]
    async fn entry_16_http_keeps_the_classifier_that_was_chosen() {
        let fine = classify_fn(|_: Result<&Response<()>, &BoxError>| Outcome::Success);
        assert_eq!(sent!(builder().classify(fine).http()), (1, 1));
        assert_eq!(sent!(builder().http().classify(fine)), (1, 1));
        assert_eq!(sent!(builder().classify(fine).http().http()), (1, 1));
        let overridden = HttpClassifier::new().on_status(http::StatusCode::SERVICE_UNAVAILABLE, Outcome::Permanent);
        assert_eq!(sent!(builder().classify(overridden).http().clone_with(copy)), (1, 1));
    }

    /// The type of an ordinary HTTP retry can be named.
    #[test]
    fn entry_16_an_ordinary_http_retry_has_an_ordinary_type() {
        let _: RetryLayer<HttpClassifier, mainstay::http::HttpRequests> = builder().http().build().unwrap();
        let _: RetryLayer<HttpClassifier, mainstay::http::HttpRequests<ReplayBodies>> =
            builder().http().requests(ReplayBodies::new()).build().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_post_of_which_nothing_was_sent_is_repeated() {
        let refused = classify_fn(|result: Result<&Response<()>, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::NotSent,
        });
        let budget = Budget::default();
        let layer = builder().budget(budget.clone()).classify(refused).http().build().unwrap();
        let [_, post] = get_and_post();
        let calls = Arc::new(AtomicU32::new(0));
        let count = calls.clone();
        let service = layer.layer(service_fn(move |_: Request<Body>| {
            let refused = count.fetch_add(1, Relaxed) < 2;
            ready(if refused { Err(BoxError::from("refused")) } else { Ok(Response::new(())) })
        }));
        service.oneshot(post).await.unwrap();
        assert_eq!((calls.load(Relaxed), layer.handle().statistics().successes), (3, 1));
        assert_eq!(budget.balance(), 10.2, "only what was sent is counted and charged");
    }
}

// === 30: everything that can change does ===

/// Runs a call of failures that ends by itself; returns the number of its attempts and how long it took.
async fn failing(layer: &RetryLayer<impl Classify<u32, BoxError>>, status: u32) -> (u32, Duration) {
    let (calls, start) = (AtomicU32::new(0), Instant::now());
    let attempt = || {
        calls.fetch_add(1, Relaxed);
        ready(Ok::<_, BoxError>(status))
    };
    let _ = layer.run(attempt).await;
    (calls.load(Relaxed), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn entry_30_every_setting_of_a_retry_can_be_reconfigured() {
    let layer = RetryLayer::builder("test")
        .backoff(BackoffConfig::constant(millis(100)))
        .throttled_initial(millis(50))
        .hint_jitter(0.0)
        .budget(Budget::unlimited())
        .classify(classify_fn(by_status))
        .build()
        .unwrap();
    let handle = layer.handle();
    let base = handle.config();
    let reconfigure = |change: fn(&mut RetryConfig)| {
        let mut config = base;
        change(&mut config);
        handle.reconfigure(config).unwrap();
        assert_eq!(handle.config(), config);
    };
    assert_eq!(failing(&layer, 500).await, (3, millis(200)));
    reconfigure(|config| config.max_attempts = 5);
    assert_eq!(failing(&layer, 500).await, (5, millis(400)));
    reconfigure(|config| config.backoff = BackoffConfig::constant(SECOND));
    assert_eq!(failing(&layer, 500).await, (3, 2 * SECOND));
    assert_eq!(failing(&layer, 429).await, (3, millis(100)), "the growth is that of the backoff");
    reconfigure(|config| config.throttled_initial = millis(70));
    assert_eq!(failing(&layer, 429).await, (3, millis(140)));
    reconfigure(|config| config.max_elapsed = Some(millis(150)));
    assert_eq!(failing(&layer, 500).await, (2, millis(100)));
    assert_eq!(failing(&layer, 503).await.1, Duration::ZERO);
    reconfigure(|config| config.max_retry_after = SECOND);
    assert_eq!(failing(&layer, 503).await, (1, Duration::ZERO));
    reconfigure(|config| config.trust_hint = TrustHint::Clamped);
    assert_eq!(failing(&layer, 503).await, (3, 4 * SECOND));
    reconfigure(|config| (config.trust_hint, config.max_retry_after) = (TrustHint::Clamped, SECOND));
    assert_eq!(failing(&layer, 503).await, (3, 2 * SECOND));
    reconfigure(|config| config.hint_jitter = 1.0);
    assert!(failing(&layer, 503).await.1 > 4 * SECOND);
    reconfigure(|config| config.attempt_timeout = Some(millis(30)));
    let start = Instant::now();
    let error = layer.run(std::future::pending::<Result<u32, BoxError>>).await.unwrap_err();
    assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: millis(30), sent: true }));
    assert_eq!(start.elapsed(), millis(3 * 30 + 2 * 100));
    reconfigure(|config| config.ready_timeout = Some(millis(40)));
    let start = Instant::now();
    let unready = ReadyOnce { taken: false, error: || "reset".into() };
    layer.layer(unready).oneshot(()).await.unwrap_err();
    assert_eq!(start.elapsed(), millis(140));
    reconfigure(|_| ());
    assert_eq!(failing(&layer, 500).await, (3, millis(200)), "and back");
    let counted = handle.statistics();
    assert_eq!((counted.calls(), counted.gave_up_not_ready), (14, 1), "nothing was forgotten");
}

#[tokio::test(start_paused = true)]
async fn entry_30_whether_a_retry_works_after_an_inner_one_can_be_reconfigured() {
    let layer = || every(Duration::ZERO).build().unwrap();
    let (outer, inner) = (layer(), layer());
    let mut config = outer.handle().config();
    config.retry_after_inner_gave_up = true;
    for attempts in [3, 9] {
        let calls = AtomicU32::new(0);
        let attempt = || {
            calls.fetch_add(1, Relaxed);
            fails::<u32>("reset")
        };
        outer.run(|| inner.run(attempt)).await.unwrap_err();
        assert_eq!(calls.load(Relaxed), attempts);
        outer.handle().reconfigure(config).unwrap();
    }
}

/// A seed that stays goes on with its draws, and another starts its own.
#[tokio::test(start_paused = true)]
async fn entry_30_a_seed_can_be_reconfigured() {
    let layer = |seed| RetryLayer::builder("test").seed(seed).budget(Budget::unlimited()).build().unwrap();
    let waits = async |layer: &RetryLayer| {
        let start = Instant::now();
        layer.run(|| fails::<u32>("reset")).await.unwrap_err();
        start.elapsed()
    };
    let (one, other) = (layer(1), layer(1));
    assert_eq!(waits(&one).await, waits(&other).await);
    one.handle().reconfigure(one.handle().config()).unwrap();
    assert_eq!(waits(&one).await, waits(&other).await, "the same draws go on");
    let mut config = one.handle().config();
    config.seed = Some(2);
    one.handle().reconfigure(config).unwrap();
    assert_ne!(waits(&one).await, waits(&other).await);
    other.handle().reconfigure(config).unwrap();
    let mut third = config;
    third.seed = Some(3);
    one.handle().reconfigure(third).unwrap();
    one.handle().reconfigure(config).unwrap();
    assert_eq!(waits(&one).await, waits(&other).await, "each begins the new seed's draws");
}

#[tokio::test(start_paused = true)]
async fn entry_30_a_budget_keeps_its_balance_when_it_is_reconfigured() {
    let layer = RetryLayer::builder("test").backoff(BackoffConfig::constant(Duration::ZERO)).build().unwrap();
    let handle = layer.handle();
    layer.run(|| fails::<u32>("reset")).await.unwrap_err();
    assert!((handle.budget().balance() - 8.2).abs() < 1e-9, "10, and 0.2 for the call, less two retries");
    let mut config = handle.config();
    (config.budget.ratio, config.budget.reserve) = (1.0, 20);
    handle.reconfigure(config).unwrap();
    assert!((handle.budget().balance() - 18.2).abs() < 1e-9, "{}", handle.budget().balance());
    layer.run(|| ready(Ok::<_, BoxError>(7))).await.unwrap();
    assert!((handle.budget().balance() - 19.2).abs() < 1e-9, "a call earns by the new ratio");
    assert_eq!((handle.config(), handle.budget().config()), (config, Some(config.budget)));

    // What cannot change is named, and then nothing does.
    let mut other = config;
    (other.max_attempts, other.budget.window) = (9, 5 * SECOND);
    assert_eq!(handle.reconfigure(other).unwrap_err().field(), "budget.window");
    other.budget = config.budget;
    other.budget.reserve_window = 5 * SECOND;
    assert_eq!(handle.reconfigure(other).unwrap_err().field(), "budget.reserve_window");
    other.budget = config.budget;
    other.hint_jitter = 2.0;
    assert_eq!(handle.reconfigure(other).unwrap_err().field(), "hint_jitter");
    assert_eq!(handle.config(), config);
    assert_eq!(handle.statistics().calls(), 2);
}

/// Others use it too.
#[tokio::test(start_paused = true)]
async fn entry_30_a_shared_budget_keeps_its_settings() {
    let budget = Budget::default();
    let handle = every(SECOND).budget(budget.clone()).build().unwrap().handle();
    let mut config = handle.config();
    (config.max_attempts, config.budget.ratio, config.budget.window) = (5, 1.0, 5 * SECOND);
    handle.reconfigure(config).unwrap();
    assert_eq!((handle.config().max_attempts, budget.config()), (5, Some(BudgetConfig::default())));
    assert_eq!(Budget::unlimited().reconfigure(BudgetConfig::default()).unwrap_err().field(), "ratio");
}

/// A call that runs goes by the new settings at its next step.
#[tokio::test(start_paused = true)]
async fn entry_30_a_call_that_runs_is_reconfigured_too() {
    let layer = every(SECOND).max_attempts(9).build().unwrap();
    let handle = layer.handle();
    let call = tokio::spawn(layer.run(|| fails::<u32>("reset")));
    tokio::time::sleep(millis(1_500)).await;
    let mut config = handle.config();
    (config.max_attempts, config.backoff) = (4, BackoffConfig::constant(millis(10)));
    handle.reconfigure(config).unwrap();
    let start = Instant::now();
    call.await.unwrap().unwrap_err();
    assert_eq!((handle.statistics().attempts(), start.elapsed()), (4, millis(510)));
}

/// A timeout that sets no deadline ends the retry's wait: before a delay that is too long, or between attempts without any.
#[cfg(feature = "timeout")]
#[tokio::test(start_paused = true)]
async fn entry_15_a_timeout_around_a_retry_returns_the_last_error_of_its_wait() {
    let budget = Budget::default();
    let layer = every(10 * SECOND).budget(budget.clone()).build().unwrap();
    let timeout = mainstay::timeout::TimeoutLayer::attempt("outer", SECOND).unwrap();
    let service = timeout.layer(layer.layer(service_fn(|(): ()| fails::<u32>("reset"))));
    let start = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("reset", SECOND));
    let counted = layer.handle().statistics();
    assert_eq!((counted.gave_up_deadline, counted.calls(), counted.retries), (1, 1, 0));
    assert!((budget.balance() - 10.2).abs() < 1e-9, "the attempt that was not made is given back");
    assert_eq!(timeout.handle().statistics().calls(), 1);
}
