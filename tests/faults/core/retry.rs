//! Retries: when to stop, when to wait, what is repeated.
#![cfg(feature = "retry")]

use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{self, Poll};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::budget::Budget;
use mainstay::context::{self, Context, Criticality};
use mainstay::retry::{EndedAttempt, RequestPolicy, RetryBuilder, retry};
use mainstay::{
    BoxError, CircuitOpen, CircuitState, Error, NoEndpoint, NoEndpointReason, Outcome, Rejectable, Rejected, RetryHint,
    RetryLayer, classify_fn,
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
