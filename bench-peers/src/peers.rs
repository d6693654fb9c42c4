//! The paths, and each library's way through them: configured alike, and as its documentation recommends.
//!
//! Not measured: a retry at once by backon and tower-resilience, which take a zero delay to a timer and so wait for about a
//! millisecond.

use std::future::{Ready, ready};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use std::{mem, thread};

use backon::{ConstantBuilder, Retryable as _};
use failsafe::futures::CircuitBreaker as _;
use mainstay::backoff::BackoffConfig;
use mainstay::budget::{Budget, BudgetConfig};
use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, Window};
use mainstay::{BoxError, Error, RetryLayer, TimeoutLayer};
use mainstay_instructions::bare::{Bare, Failed, Script};
use mainstay_instructions::subject::{Subject, closure, finish, service, succeeds};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Layer, Service};
use tower_resilience_circuitbreaker as resilience_breaker;
use tower_resilience_retry as resilience_retry;
use tower_resilience_timelimiter as resilience_timeout;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// One library on one path.
pub(crate) struct Case {
    pub(crate) path: &'static str,
    pub(crate) library: &'static str,
    /// Whether every call is refused, rather than answered.
    pub(crate) refused: bool,
    pub(crate) make: fn() -> Box<dyn Subject>,
}

impl Case {
    /// Whether its time is measured. In the loop that measures it, an open breaker of tower-resilience was seen to stay pending in
    /// `poll_ready` for good; and its time window grows while it is measured, and its calls get dearer.
    pub(crate) fn is_timed(&self) -> bool {
        self.library != "tower-resilience" || !["breaker open", "breaker closed, 60 s window"].contains(&self.path)
    }

    /// The path of the bare service that it is compared with: the one with the same error, that is pending as often.
    pub(crate) fn over(&self) -> &'static str {
        match (self.path, self.library) {
            (path, "bare") => path,
            ("timeout, pending once", "mainstay") => "bare, boxed error, pending once",
            ("timeout, pending once", _) => "bare, pending once",
            ("breaker open" | "breaker half-open, refusal", "mainstay") => "bare, our error",
            (_, "mainstay") => "bare, boxed error",
            _ => "bare",
        }
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.library == "bare"
    }
}

/// All cases; the bare services come first.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |path, library, refused, make| cases.push(Case { path, library, refused, make });
    case("bare", "bare", false, || service(Bare::<Failed>::new(Script::Answers)));
    case("bare, boxed error", "bare", false, || service(Bare::<BoxError>::new(Script::Answers)));
    case("bare, our error", "bare", false, || service(Bare::<Error<Failed>>::new(Script::Answers)));
    case("bare, pending once", "bare", false, || service(Bare::<Failed>::new(Script::PendingOnce)));
    case("bare, boxed error, pending once", "bare", false, || service(Bare::<BoxError>::new(Script::PendingOnce)));

    case("breaker closed, count window", "mainstay", false, || ours(|_| ()));
    case("breaker closed, count window", "tower-resilience", false, || service(theirs_by_count().layer(answers())));
    case("breaker closed, count window", "recloser", false, || recloser(false));
    case("breaker closed, consecutive failures", "mainstay", false, || {
        ours(|config| (config.failure_rate, config.consecutive_failures) = (None, Some(5)))
    });
    case("breaker closed, consecutive failures", "failsafe", false, || failsafe_consecutive(false));
    case("breaker closed, 60 s window", "mainstay", false, || ours(|config| config.window = minute()));
    case("breaker closed, 60 s window", "failsafe", false, || {
        let policy = failsafe::failure_policy::success_rate_over_time_window(0.5, 20, MINUTE, constant());
        let (breaker, mut inner) = (failsafe::Config::new().failure_policy(policy).build(), answers());
        closure(move |request| succeeds(breaker.call(inner.call(request))))
    });
    // Its cost grows with the calls in the window: here there are up to 3 000.
    case("breaker closed, 60 s window", "tower-resilience", false, || {
        let layer = resilience_breaker::CircuitBreakerLayer::builder()
            .failure_rate_threshold(0.5)
            .sliding_window_type(resilience_breaker::SlidingWindowType::TimeBased)
            .sliding_window_duration(MINUTE)
            .minimum_number_of_calls(20)
            .build()
            .expect("valid");
        service(layer.layer(answers()))
    });

    case("breaker open", "mainstay", true, || {
        let layer = CircuitBreakerLayer::new("b", CircuitBreakerConfig::default()).expect("valid");
        layer.handle().open_for(HOUR).expect("closed before");
        service(layer.layer(Bare::<Error<Failed>>::new(Script::Answers)))
    });
    case("breaker open", "tower-resilience", true, || {
        let builder = resilience_breaker::CircuitBreakerLayer::builder().failure_rate_threshold(0.5);
        let builder = builder.sliding_window_size(10).minimum_number_of_calls(10).wait_duration_in_open(HOUR);
        let (layer, handle) = builder.build_with_handle().expect("valid");
        finish(pin!(handle.force_open()));
        service(layer.layer(answers()))
    });
    case("breaker open", "recloser", true, || recloser(true));
    case("breaker open", "failsafe", true, || failsafe_consecutive(true));
    case("breaker half-open, refusal", "mainstay", true, half_open);

    case("retry with budget", "mainstay", false, || service(our_retry(one_in_one()).layer(bare())));
    case("retry with budget", "tower", false, || service(their_retry().layer(answers())));
    case("retry with budget", "tower-resilience", false, || service(resilience_with_budget().layer(answers())));
    case("retry with budget, one failure", "mainstay", false, || {
        service(our_retry(one_in_one()).layer(Bare::<BoxError>::new(Script::FailsFirst)))
    });
    case("retry with budget, one failure", "tower", false, || {
        service(their_retry().layer(Bare::<Failed>::new(Script::FailsFirst)))
    });
    case("retry without budget", "mainstay", false, || service(our_retry(Budget::unlimited()).layer(bare())));
    case("retry without budget", "tower", false, || {
        service(tower::retry::RetryLayer::new(Attempts { budget: None, left: 2 }).layer(answers()))
    });
    case("retry without budget", "tower-resilience", false, || {
        let layer = resilience_retry::RetryLayer::<u64, u64, Failed>::builder().max_attempts(3).build();
        service(layer.layer(answers()))
    });
    case("retry of a future", "mainstay", false, || {
        let (layer, mut inner) = (our_retry(Budget::unlimited()), bare());
        closure(move |request| succeeds(layer.run(|| inner.call(request))))
    });
    case("retry of a future", "backon", false, || {
        let mut inner = answers();
        closure(move |request| {
            let builder = ConstantBuilder::default().with_delay(Duration::ZERO).with_max_times(2);
            succeeds((|| inner.call(request)).retry(builder))
        })
    });

    case("timeout, ready", "mainstay", false, || service(our_timeout().layer(bare())));
    case("timeout, ready", "tower", false, || service(tower::timeout::Timeout::new(answers(), HOUR)));
    case("timeout, ready", "tower-resilience", false, || service(resilience_timeout().layer(answers())));
    case("timeout, pending once", "mainstay", false, || {
        service(our_timeout().layer(Bare::<BoxError>::new(Script::PendingOnce)))
    });
    case("timeout, pending once", "tower", false, || {
        service(tower::timeout::Timeout::new(Bare::<Failed>::new(Script::PendingOnce), HOUR))
    });

    case("timeout > retry > breaker", "mainstay", false, || {
        let breaker = CircuitBreakerLayer::new("b", CircuitBreakerConfig::default()).expect("valid");
        let total = TimeoutLayer::total("t", HOUR).expect("valid");
        service(total.layer(our_retry(one_in_one()).layer(breaker.layer(bare()))))
    });
    case("timeout > retry > breaker", "tower, without a breaker", false, || {
        service(tower::timeout::Timeout::new(their_retry().layer(answers()), HOUR))
    });
    case("timeout > retry > breaker", "tower-resilience", false, || {
        let budget = resilience_retry::RetryBudgetBuilder::new().token_bucket().build().expect("valid");
        let retry = resilience_retry::RetryLayer::builder().max_attempts(3).budget(budget).build();
        service(resilience_timeout().layer(retry.layer(theirs_by_count().layer(answers()))))
    });

    case("for comparison: a rate limiter that admits", "governor", false, || {
        let limiter = Arc::new(governor::RateLimiter::direct(governor::Quota::per_second(NonZeroU32::MAX)));
        let mut inner = answers();
        closure(move |request| limiter.check().is_ok() && succeeds(inner.call(request)))
    });
    cases
}

/// The place of the bare service that `case` is compared with.
pub(crate) fn bare_of(cases: &[Case], case: &Case) -> usize {
    cases.iter().position(|other| other.path == case.over()).expect("bare services are never filtered out")
}

fn answers() -> Bare<Failed> {
    Bare::new(Script::Answers)
}

/// With an error that can carry a refusal, as most users of tower have it.
fn bare() -> Bare<BoxError> {
    Bare::new(Script::Answers)
}

fn minute() -> Window {
    Window::Time { length: MINUTE }
}

fn ours(change: impl FnOnce(&mut CircuitBreakerConfig)) -> Box<dyn Subject> {
    let mut config = CircuitBreakerConfig::default();
    change(&mut config);
    service(CircuitBreakerLayer::new("b", config).expect("valid").layer(bare()))
}

/// A breaker whose one probe is under way, and stays so.
fn half_open() -> Box<dyn Subject> {
    let layer = CircuitBreakerLayer::builder("b").probes(1).probe_deadline(HOUR).build().expect("valid");
    layer.handle().open_for(Duration::from_millis(1)).expect("closed before");
    thread::sleep(Duration::from_millis(2));
    // An error that takes no box: what is measured is the refusal.
    let mut probing = layer.layer(Bare::<Error<Failed>>::new(Script::Hangs));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::poll_ready(&mut probing, &mut cx).is_ready(), "a probe is due");
    let mut probe = Box::pin(Service::call(&mut probing, 0));
    assert!(probe.as_mut().poll(&mut cx).is_pending(), "the probe hangs");
    mem::forget(probe);
    service(layer.layer(Bare::<Error<Failed>>::new(Script::Answers)))
}

fn theirs_by_count() -> resilience_breaker::CircuitBreakerLayer {
    let builder = resilience_breaker::CircuitBreakerLayer::builder().failure_rate_threshold(0.5);
    builder.sliding_window_size(100).minimum_number_of_calls(20).build().expect("valid")
}

fn recloser(open: bool) -> Box<dyn Subject> {
    let breaker =
        recloser::Recloser::custom().error_rate(0.5).closed_len(100).half_open_len(10).open_wait(HOUR).build();
    let breaker = recloser::AsyncRecloser::from(breaker);
    if open {
        for _ in 0..200 {
            let _ = finish(pin!(breaker.call(ready(Err::<u64, Failed>(Failed)))));
        }
    }
    let mut inner = answers();
    closure(move |request| succeeds(breaker.call(inner.call(request))))
}

fn constant() -> failsafe::backoff::Constant {
    failsafe::backoff::constant(HOUR)
}

fn failsafe_consecutive(open: bool) -> Box<dyn Subject> {
    let policy = failsafe::failure_policy::consecutive_failures(5, constant());
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    if open {
        for _ in 0..10 {
            let _ = finish(pin!(breaker.call(ready(Err::<u64, Failed>(Failed)))));
        }
    }
    let mut inner = answers();
    closure(move |request| succeeds(breaker.call(inner.call(request))))
}

/// A budget that lets every retry through.
fn one_in_one() -> Budget {
    let mut budget = BudgetConfig::default();
    budget.ratio = 1.0;
    Budget::new(budget).expect("valid")
}

fn our_retry(budget: Budget) -> RetryLayer {
    RetryLayer::builder("r").backoff(BackoffConfig::none()).budget(budget).build().expect("valid")
}

fn our_timeout() -> TimeoutLayer {
    TimeoutLayer::attempt("t", HOUR).expect("valid")
}

fn resilience_with_budget() -> resilience_retry::RetryLayer<u64, u64, Failed> {
    let budget = resilience_retry::RetryBudgetBuilder::new().token_bucket().build().expect("valid");
    resilience_retry::RetryLayer::builder().max_attempts(3).budget(budget).build()
}

fn resilience_timeout() -> resilience_timeout::TimeLimiterLayer<resilience_timeout::FixedTimeout> {
    resilience_timeout::TimeLimiterLayer::builder().timeout_duration(HOUR).build()
}

/// tower leaves the policy to its users: this is the shortest that retries three times, as the documentation shows it.
#[derive(Clone)]
struct Attempts {
    budget: Option<Arc<TpsBudget>>,
    left: u32,
}

fn their_retry() -> tower::retry::RetryLayer<Attempts> {
    let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 1.0));
    tower::retry::RetryLayer::new(Attempts { budget: Some(budget), left: 2 })
}

impl tower::retry::Policy<u64, u64, Failed> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, Failed>) -> Option<Ready<()>> {
        match result {
            Ok(_) => {
                if let Some(budget) = &self.budget {
                    budget.deposit();
                }
                None
            }
            Err(Failed) => {
                let allowed = self.left > 0 && self.budget.as_ref().is_none_or(|budget| budget.withdraw());
                self.left = self.left.saturating_sub(1);
                allowed.then(|| ready(()))
            }
        }
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}
