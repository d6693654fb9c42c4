//! Every layer, and the stack of them, dropped at every poll of a call: slots, budgets, in-flight and counts come back exactly.
//!
//! One table of layers, one list of what must hold. What a drop leaves in the window of a breaker is in `tests/circuit_breaker`,
//! what it does to a body in `tests/http_body.rs`, to the cache in `tests/cache.rs`.
#![cfg(all(feature = "circuit-breaker", feature = "retry", feature = "timeout", feature = "balance"))]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::budget::{Budget, BudgetConfig, InFlightConfig};
use mainstay::retry::{AttemptReport, RetryBuilder, RetryStatistics};
use mainstay::timeout::{TimeoutConfig, TimeoutHandle, TimeoutStatistics};
use mainstay::{
    BoxError, CircuitBreakerConfig, CircuitBreakerHandle, CircuitState, Pool, RetryHandle, RetryLayer, TimeoutLayer,
};
use tokio::time::advance;
use tokio_test::task;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

const STEP: Duration = Duration::from_millis(101);
const DELAY: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);
/// At least the longest default open time of a circuit breaker.
const OPEN_TIME: Duration = Duration::from_secs(6);

// === the callee ===

/// What the callee is told, and what is known of it.
#[derive(Default)]
struct Callee {
    /// Answers at once from now on.
    healthy: AtomicBool,
    calls: AtomicU32,
    /// Calls that exist.
    alive: AtomicU32,
}

/// Is not ready at its first poll, is pending at the first polls of each call, and then fails.
struct Slow {
    callee: Arc<Callee>,
    pending: u32,
    polled: bool,
}

struct Running(Arc<Callee>);

type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

impl Slow {
    fn attempt(&self) -> Call {
        self.callee.calls.fetch_add(1, Relaxed);
        self.callee.alive.fetch_add(1, Relaxed);
        let (running, pending, mut polls) = (Running(self.callee.clone()), self.pending, 0);
        Box::pin(poll_fn(move |cx| {
            polls += 1;
            if running.0.healthy.load(Relaxed) {
                return Poll::Ready(Ok(()));
            }
            if polls > pending {
                return Poll::Ready(Err("down".into()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self { callee: self.callee.clone(), pending: self.pending, polled: false }
    }
}

impl Service<()> for Slow {
    type Response = ();
    type Error = BoxError;
    type Future = Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if std::mem::replace(&mut self.polled, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Call {
        self.polled = false;
        self.attempt()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Relaxed);
    }
}

// === what is dropped ===

/// A layer around the callee.
struct Subject {
    /// Begins a call: with the wait for readiness in it, or when that is over.
    begin: Box<dyn Fn(bool) -> Call>,
    /// Calls that were made of it.
    begun: Arc<AtomicU32>,
    at_rest: Box<dyn Fn(Seen)>,
    /// Whether a call succeeds once the callee is healthy.
    recovers: bool,
}

/// What is known of the one call that was dropped.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Attempts that were started.
    started: u32,
    /// 1 if it had been readied and called, else 0.
    begun: u64,
    /// It was not dropped: it came to its end.
    ended: bool,
}

impl Seen {
    fn abandoned(self) -> u64 {
        self.begun - u64::from(self.ended)
    }
}

fn subject<S>(service: S, at_rest: impl Fn(Seen) + 'static) -> Subject
where
    S: Service<(), Response = (), Error = BoxError, Future: Send + 'static> + Clone + Send + 'static,
{
    let begun = Arc::new(AtomicU32::new(0));
    let count = begun.clone();
    let begin = move |called: bool| -> Call {
        let (mut service, count) = (service.clone(), count.clone());
        if !called {
            return Box::pin(async move {
                service.ready().await?;
                count.fetch_add(1, Relaxed);
                service.call(()).await
            });
        }
        let mut cx = Context::from_waker(Waker::noop());
        while service.poll_ready(&mut cx).map(Result::unwrap).is_pending() {}
        count.fetch_add(1, Relaxed);
        Box::pin(service.call(()))
    };
    Subject { begin: Box::new(begin), begun, at_rest: Box::new(at_rest), recovers: true }
}

/// What is begun by being made, and is no service.
fn future(begin: impl Fn() -> Call + 'static, at_rest: impl Fn(Seen) + 'static) -> Subject {
    let begun = Arc::new(AtomicU32::new(0));
    let count = begun.clone();
    let begin = move |_| {
        count.fetch_add(1, Relaxed);
        begin()
    };
    Subject { begin: Box::new(begin), begun, at_rest: Box::new(at_rest), recovers: true }
}

fn breaker(state: CircuitState) -> CircuitBreakerHandle {
    let mut config = CircuitBreakerConfig::default();
    (config.probes, config.consecutive_failures) = (1, Some(100));
    let handle = CircuitBreakerHandle::new("test", config).unwrap();
    if state != CircuitState::Closed {
        handle.transition_to(CircuitState::Open).unwrap();
    }
    if state == CircuitState::HalfOpen {
        handle.transition_to(state).unwrap();
    }
    handle
}

/// One call of a breaker, or as many as there were attempts that it did not refuse; no slot is taken.
fn breaker_rests(handle: &CircuitBreakerHandle, attempts: u64, abandoned: u64) {
    let counted = handle.statistics();
    let admitted = counted.calls() - counted.rejected;
    assert_eq!((admitted, counted.abandoned, counted.probes_in_flight), (attempts, abandoned, 0), "{counted:?}");
    if counted.state == CircuitState::HalfOpen {
        drop(handle.try_acquire().expect("the slot is free"));
    }
}

fn timeout_rests(handle: &TimeoutHandle, calls: u64, abandoned: u64) {
    let counted: TimeoutStatistics = handle.statistics();
    assert_eq!((counted.calls(), counted.abandoned), (calls, abandoned), "{counted:?}");
}

/// A retry, and how many first attempts of it have ended: those have earned.
fn retry(budget: Budget) -> (RetryBuilder, Arc<AtomicU32>) {
    let ended = Arc::new(AtomicU32::new(0));
    let count = ended.clone();
    let observer = move |report: &AttemptReport| {
        count.fetch_add(u32::from(report.attempt == 1 && report.sent), Relaxed);
    };
    (RetryLayer::builder("test").backoff(BackoffConfig::constant(DELAY)).budget(budget).on_attempt(observer), ended)
}

/// 10, and 0.2 for each call; nothing lapses while the tests run.
fn of_calls() -> Budget {
    let mut config = BudgetConfig::default();
    (config.window, config.reserve_window) = (LONG, LONG);
    Budget::new(config).unwrap()
}

fn retry_rests(handle: &RetryHandle, earned: &AtomicU32, seen: Seen, attempts: u64) {
    let counted = handle.statistics();
    assert_eq!((counted.calls(), counted.abandoned), (seen.begun, seen.abandoned()), "{counted:?}");
    assert_eq!(counted.retries, attempts.saturating_sub(1), "{counted:?}");
    let balance = handle.budget().balance();
    let expected = match handle.budget().config() {
        // An attempt that was refused further in, and one that did not start, cost nothing.
        Some(_) => 10.0 + 0.2 * f64::from(earned.load(Relaxed)) - f64::from(seen.started.saturating_sub(1)),
        // In flight: nothing is.
        None => 3.0,
    };
    assert!((balance - expected).abs() < 1e-9, "{balance} is not {expected}");
}

// === the table ===

type Row = (&'static str, fn(Slow) -> Subject);

const ROWS: [Row; 14] = [
    ("a closed breaker", |inner| of_breaker(inner, CircuitState::Closed)),
    ("a half-open breaker, its only probe", |inner| of_breaker(inner, CircuitState::HalfOpen)),
    ("an open breaker", |inner| {
        let handle = breaker(CircuitState::Open);
        let service = handle.layer().layer(inner);
        let rests = move |seen: Seen| {
            let counted = handle.statistics();
            assert_eq!((counted.calls(), counted.rejected, seen.started), (seen.begun, seen.begun, 0));
        };
        Subject { recovers: false, ..subject(service, rests) }
    }),
    ("a breaker's future, its only probe", |inner| {
        let handle = breaker(CircuitState::HalfOpen);
        let by_hand = handle.clone();
        future(
            move || Box::pin(by_hand.call(inner.attempt())),
            move |seen| {
                breaker_rests(&handle, seen.begun, seen.abandoned());
            },
        )
    }),
    ("a breaker's permit, its only probe", |inner| {
        let handle = breaker(CircuitState::HalfOpen);
        let by_hand = handle.clone();
        let begin = move || -> Call {
            let (permit, attempt) = (by_hand.try_acquire().unwrap(), inner.attempt());
            Box::pin(async move {
                let result = attempt.await;
                let success = mainstay::Outcome::Success;
                permit.record(if result.is_ok() { success } else { mainstay::Outcome::Transient });
                result
            })
        };
        future(begin, move |seen| breaker_rests(&handle, seen.begun, seen.abandoned()))
    }),
    ("a retry, by calls sent", |inner| of_retry(inner, of_calls())),
    ("a retry, by calls in flight", |inner| of_retry(inner, Budget::in_flight(InFlightConfig::default()).unwrap())),
    ("a retry with a timeout of its own", |inner| {
        let (builder, earned) = retry(of_calls());
        // Cuts off each attempt at its third poll.
        let layer = builder.attempt_timeout(STEP * 3 / 2).build().unwrap();
        let handle = layer.handle();
        let rests = move |seen: Seen| retry_rests(&handle, &earned, seen, seen.started.into());
        subject(layer.layer(Slow { pending: u32::MAX, ..inner }), rests)
    }),
    ("an operation that is retried", |inner| {
        let (builder, earned) = retry(of_calls());
        let layer = builder.build().unwrap();
        let handle = layer.handle();
        let begin = move || -> Call {
            let inner = inner.clone();
            Box::pin(layer.run(move || inner.attempt()))
        };
        future(begin, move |seen| retry_rests(&handle, &earned, seen, seen.started.into()))
    }),
    ("a timeout of an attempt that is cut off", |inner| of_timeout(inner, TimeoutConfig::attempt(STEP * 7 / 2))),
    ("a total timeout that is cut off", |inner| of_timeout(inner, TimeoutConfig::total(STEP * 7 / 2))),
    ("a timeout of readiness too", |inner| {
        let mut config = TimeoutConfig::total(STEP * 7 / 2);
        config.include_readiness = true;
        of_timeout(inner, config)
    }),
    ("the stack around a breaker", |inner| {
        let handle = breaker(CircuitState::HalfOpen);
        let breaks = handle.clone();
        stacked(
            inner,
            move |inner| handle.layer().layer(inner),
            move |each, _| {
                breaker_rests(&breaks, each.calls(), each.abandoned);
            },
        )
    }),
    ("the stack around a pool", |inner| {
        let pool = Pool::builder("test").circuit_breaker(CircuitBreakerConfig::default()).build().unwrap();
        let handle = pool.handle();
        let around = move |inner| {
            pool.handle().add_all([(1, inner)]);
            pool
        };
        stacked(inner, around, move |each, retries| {
            let counted = handle.statistics();
            let ended = counted.failures + counted.successes;
            // A call that waits until its endpoint is ready is one of the pool already.
            assert_eq!((counted.in_flight, ended + counted.abandoned), (0, retries.attempts()), "{counted:?}");
            assert!((each.abandoned..=retries.abandoned).contains(&counted.abandoned), "{counted:?}");
            let endpoints = handle.endpoints();
            assert!(endpoints.iter().all(|endpoint| endpoint.in_flight == 0), "{endpoints:?}");
        })
    }),
];

fn of_breaker(inner: Slow, state: CircuitState) -> Subject {
    let handle = breaker(state);
    subject(handle.layer().layer(inner), move |seen| breaker_rests(&handle, seen.begun, seen.abandoned()))
}

fn of_retry(inner: Slow, budget: Budget) -> Subject {
    let (builder, earned) = retry(budget);
    let layer = builder.build().unwrap();
    let handle = layer.handle();
    subject(layer.layer(inner), move |seen| retry_rests(&handle, &earned, seen, seen.started.into()))
}

fn of_timeout(inner: Slow, config: TimeoutConfig) -> Subject {
    let layer = TimeoutLayer::new("test", config).unwrap();
    let handle = layer.handle();
    subject(layer.layer(Slow { pending: u32::MAX, ..inner }), move |seen| {
        timeout_rests(&handle, seen.begun, seen.abandoned());
    })
}

/// A total timeout, a retry, what is `around` a timeout of each attempt, and the callee.
fn stacked<M>(
    inner: Slow,
    around: impl FnOnce(Attempt) -> M,
    rests: impl Fn(TimeoutStatistics, RetryStatistics) + 'static,
) -> Subject
where
    M: Service<(), Response = (), Error = BoxError, Future: Send + 'static> + Clone + Send + 'static,
{
    let (builder, earned) = retry(of_calls());
    let retry = builder.build().unwrap();
    let (total, attempt) =
        (TimeoutLayer::total("test", LONG).unwrap(), TimeoutLayer::attempt("test", STEP * 3 / 2).unwrap());
    let (whole, retries, each) = (total.handle(), retry.handle(), attempt.handle());
    let around = around(attempt.layer(inner));
    subject(ServiceBuilder::new().layer(total).layer(retry).service(around), move |seen| {
        timeout_rests(&whole, seen.begun, seen.abandoned());
        let attempts = each.statistics();
        // The last of them may have been running.
        assert_eq!(attempts.calls(), seen.started.into());
        rests(attempts, retries.statistics());
        // An attempt that was refused below is none that was started.
        let refused = retries.statistics().attempts().saturating_sub(seen.started.into());
        retry_rests(&retries, &earned, seen, u64::from(seen.started) + refused);
    })
}

type Attempt = mainstay::timeout::Timeout<Slow>;

/// Drops one call of a new `row` after so many polls. Whether it had ended before.
async fn dropped_after(polls: u32, called: bool, (name, row): Row) -> bool {
    let callee = Arc::new(Callee::default());
    let subject = row(Slow { callee: callee.clone(), pending: 2, polled: false });
    let mut call = task::spawn((subject.begin)(called));
    let mut ended = false;
    for _ in 0..polls {
        ended = call.poll().is_ready();
        if ended {
            break;
        }
        // Long enough to end a delay, which the next poll then sees.
        advance(STEP).await;
    }
    drop(call);
    println!("{name}, dropped after {polls} polls, called: {called}");
    assert_eq!(callee.alive.load(Relaxed), 0);
    let begun = subject.begun.load(Relaxed).into();
    (subject.at_rest)(Seen { started: callee.calls.load(Relaxed), begun, ended });
    // And it works on: nothing is stuck.
    callee.healthy.store(true, Relaxed);
    if subject.recovers && !ended {
        // A circuit that the dropped call has opened is not waited for: its time passes first.
        advance(OPEN_TIME).await;
        tokio::time::timeout(LONG, (subject.begin)(called)).await.expect("it ends").unwrap();
    }
    assert_eq!(callee.alive.load(Relaxed), 0);
    ended
}

/// Retry, scenario 5; timeouts, scenario 2; the breaker's rule of the permit.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_in_any_state_gives_everything_back() {
    for row in ROWS {
        for called in [false, true] {
            let mut ended = None;
            for polls in 0..100 {
                if dropped_after(polls, called, row).await {
                    ended = Some(polls);
                    break;
                }
            }
            let polls = ended.unwrap_or_else(|| panic!("{}: never ended", row.0));
            // Refused at once, or dropped at each point before the end.
            assert!(polls >= 3 || row.0 == "an open breaker", "{}: {polls}", row.0);
        }
    }
}
