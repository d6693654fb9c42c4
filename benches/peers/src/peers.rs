//! The peers' layers, as their documentation recommends them, with the settings that ours have.

use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use std::{mem, thread};

use failsafe::futures::CircuitBreaker as _;
use mainstay_instructions::bare::{Bare, Failed, Script};
use mainstay_instructions::subject::{Subject, closure, finish, not_clone, service, succeeds};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::timeout::Timeout;
use tower::{Layer, Service};

use crate::cases::{HOUR, MINUTE, Window, answers};

/// tower-resilience.
pub(crate) mod resilience {
    use tower_resilience_circuitbreaker::{CircuitBreakerConfigBuilder, DefaultClassifier, SlidingWindowType};
    use tower_resilience_retry::RetryBudgetBuilder;

    use super::*;

    pub(crate) type Breaker = tower_resilience_circuitbreaker::CircuitBreakerLayer;
    pub(crate) type Retry = tower_resilience_retry::RetryLayer<u64, u64, Failed>;
    pub(crate) type Timeout =
        tower_resilience_timelimiter::TimeLimiterLayer<tower_resilience_timelimiter::FixedTimeout>;

    fn breaker() -> CircuitBreakerConfigBuilder<DefaultClassifier> {
        Breaker::builder().failure_rate_threshold(0.5)
    }

    pub(crate) fn failing(calls: u32) -> Box<dyn Subject> {
        service(by_count().layer(Bare::<Failed>::new(Script::FailsOneIn(calls))))
    }

    pub(crate) fn by_count() -> Breaker {
        breaker().sliding_window_size(100).minimum_number_of_calls(20).build().expect("valid")
    }

    pub(crate) fn consecutive() -> Breaker {
        breaker().consecutive_failures(5).build().expect("valid")
    }

    /// A breaker whose time window can be emptied.
    pub(crate) fn time_window() -> Window {
        let builder = breaker().sliding_window_type(SlidingWindowType::TimeBased).sliding_window_duration(MINUTE);
        let (layer, handle) = builder.minimum_number_of_calls(20).build_with_handle().expect("valid");
        let empty = move || {
            // Its reset of a circuit that is closed already changes nothing.
            finish(pin!(handle.force_open()));
            finish(pin!(handle.reset()));
        };
        Window { subject: service(layer.layer(answers())), empty: Box::new(empty) }
    }

    pub(crate) fn open() -> Box<dyn Subject> {
        let (layer, handle) = breaker().wait_duration_in_open(HOUR).build_with_handle().expect("valid");
        finish(pin!(handle.force_open()));
        service(layer.layer(answers()))
    }

    /// A breaker whose one probe is under way, and stays so.
    pub(crate) fn half_open() -> Box<dyn Subject> {
        let builder = breaker().wait_duration_in_open(Duration::from_millis(1)).permitted_calls_in_half_open(1);
        let (layer, handle) = builder.build_with_handle().expect("valid");
        finish(pin!(handle.force_open()));
        thread::sleep(Duration::from_millis(2));
        let mut probing = layer.layer(Bare::<Failed>::new(Script::Hangs));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Service::poll_ready(&mut probing, &mut cx).is_ready(), "a probe is due");
        let mut probe = Service::call(&mut probing, 0);
        assert!(probe.as_mut().poll(&mut cx).is_pending(), "the probe hangs");
        mem::forget(probe);
        service(layer.layer(answers()))
    }

    pub(crate) fn retry() -> Retry {
        Retry::builder().max_attempts(3).build()
    }

    pub(crate) fn retry_with_budget() -> Retry {
        let budget = RetryBudgetBuilder::new().token_bucket().build().expect("valid");
        Retry::builder().max_attempts(3).budget(budget).build()
    }

    /// With a zero delay, and a budget that a success pays for a retry into.
    pub(crate) fn retry_at_once() -> Retry {
        let budget = RetryBudgetBuilder::new().token_bucket().build().expect("valid");
        Retry::builder().max_attempts(3).fixed_backoff(Duration::ZERO).budget(budget).build()
    }

    /// A retry of its own for the stack, whose error is the breaker's.
    pub(crate) fn stack() -> Box<dyn Subject> {
        let budget = RetryBudgetBuilder::new().token_bucket().build().expect("valid");
        let retry = tower_resilience_retry::RetryLayer::builder().max_attempts(3).budget(budget).build();
        service(timeout().layer(retry.layer(by_count().layer(answers()))))
    }

    pub(crate) fn timeout() -> Timeout {
        Timeout::builder().timeout_duration(HOUR).build()
    }

    /// A cache that has the answer to everything.
    pub(crate) fn hit() -> Box<dyn Subject> {
        let layer = tower_resilience_cache::CacheLayer::builder().max_size(1_000).key_extractor(|_: &u64| 7_u64);
        let mut cache = layer.build().expect("valid").layer(answers());
        assert!(succeeds(cache.call(7)), "a load");
        service(cache)
    }
}

/// seatbelt, through its `tower` services.
pub(crate) mod seatbelt {
    use ::seatbelt::breaker::{Breaker, BreakerId};
    use ::seatbelt::retry::Retry;
    use ::seatbelt::timeout::Timeout;
    use ::seatbelt::{RecoveryInfo, ResilienceContext};
    use tick::Clock;

    use super::*;

    type Context = ResilienceContext<u64, Result<u64, Failed>>;

    fn context() -> Context {
        ResilienceContext::new(Clock::new_tokio())
    }

    fn recovery(result: &Result<u64, Failed>) -> RecoveryInfo {
        if result.is_ok() { RecoveryInfo::never() } else { RecoveryInfo::retry() }
    }

    /// A minute's window, in which one call of `calls` fails, or none.
    pub(crate) fn breaker(failing: Option<u32>) -> Box<dyn Subject> {
        let layer = Breaker::layer("b", &context())
            .recovery_with(|result, _| recovery(result))
            .rejected_input_error(|_, _| Failed)
            .failure_threshold(0.5)
            .min_throughput(20)
            .sampling_duration(MINUTE);
        service(layer.layer(Bare::<Failed>::new(failing.map_or(Script::Answers, Script::FailsOneIn))))
    }

    /// An open breaker.
    pub(crate) fn open() -> Box<dyn Subject> {
        let layer = Breaker::layer("b", &context())
            .recovery_with(|_, _| RecoveryInfo::retry())
            .rejected_input_error(|_, _| Failed)
            .break_duration(HOUR)
            .min_throughput(20);
        let mut breaker = layer.layer(Bare::<Failed>::new(Script::FailsFirst));
        for request in 0..200 {
            succeeds(breaker.call(request));
        }
        service(breaker)
    }

    /// A breaker for each of `keys`, called in turn.
    pub(crate) fn keyed(keys: u64) -> Box<dyn Subject> {
        let layer = Breaker::layer("b", &context())
            .recovery_with(|result, _| recovery(result))
            .rejected_input_error(|_, _| Failed)
            .breaker_id(move |request: &u64| BreakerId::from(request % keys));
        service(layer.layer(answers()))
    }

    pub(crate) fn retry() -> Box<dyn Subject> {
        let layer = Retry::layer("r", &context()).clone_input().recovery_with(|result, _| recovery(result));
        service(layer.max_retry_attempts(2).base_delay(Duration::ZERO).layer(answers()))
    }

    pub(crate) fn timeout(script: Script) -> Box<dyn Subject> {
        let layer = Timeout::layer("t", &context()).timeout_error(|_| Failed).timeout(HOUR);
        service(layer.layer(Bare::<Failed>::new(script)))
    }

    pub(crate) fn stack() -> Box<dyn Subject> {
        let total = Timeout::layer("t", &context()).timeout_error(|_| Failed).timeout(HOUR);
        let retry = Retry::layer("r", &context()).clone_input().recovery_with(|result, _| recovery(result));
        let breaker = Breaker::layer("b", &context())
            .recovery_with(|result, _| recovery(result))
            .rejected_input_error(|_, _| Failed);
        service(total.layer(retry.layer(breaker.layer(answers()))))
    }
}

/// What a competent user builds of tower for ten endpoints: a total timeout, a retry within a budget, a buffer (the balancer
/// cannot be cloned), the better of two endpoints, and a timeout for each attempt.
pub(crate) fn tower_client() -> Box<dyn Subject> {
    let balance = Balance::new(ServiceList::new((0..10).map(|_| ewma(Timeout::new(answers(), HOUR)))));
    let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 1.0));
    let retry = tower::retry::RetryLayer::new(Attempts { budget: Some(budget), left: 2 });
    service(Timeout::new(retry.layer(Buffer::new(balance, 64)), HOUR))
}

pub(crate) fn tower_balance(by_latency: bool) -> Box<dyn Subject> {
    if by_latency {
        return not_clone(|| Balance::new(ServiceList::new((0..10).map(|_| ewma(answers())))));
    }
    not_clone(|| {
        let endpoints = (0..10).map(|_| PendingRequests::new(answers(), CompleteOnResponse::default()));
        Balance::new(ServiceList::new(endpoints))
    })
}

fn ewma<S>(service: S) -> PeakEwma<S> {
    PeakEwma::new(service, Duration::from_millis(30), 10e9, CompleteOnResponse::default())
}

/// moka by itself, without a layer.
pub(crate) fn moka() -> Box<dyn Subject> {
    let cache = moka::sync::Cache::new(1_000);
    cache.insert(7_u64, 7_u64);
    closure(move |_| cache.get(&std::hint::black_box(7)).is_some())
}

pub(crate) fn recloser(open: bool, script: Script) -> Box<dyn Subject> {
    let breaker =
        recloser::Recloser::custom().error_rate(0.5).closed_len(100).half_open_len(10).open_wait(HOUR).build();
    let breaker = recloser::AsyncRecloser::from(breaker);
    if open {
        for _ in 0..200 {
            let _ = finish(pin!(breaker.call(ready(Err::<u64, Failed>(Failed)))));
        }
    }
    let mut inner = Bare::<Failed>::new(script);
    closure(move |request| succeeds(breaker.call(inner.call(request))))
}

fn constant() -> failsafe::backoff::Constant {
    failsafe::backoff::constant(HOUR)
}

pub(crate) fn failsafe_minute(script: Script) -> Box<dyn Subject> {
    let policy = failsafe::failure_policy::success_rate_over_time_window(0.5, 20, MINUTE, constant());
    let (breaker, mut inner) = (failsafe::Config::new().failure_policy(policy).build(), Bare::<Failed>::new(script));
    closure(move |request| succeeds(breaker.call(inner.call(request))))
}

pub(crate) fn failsafe_consecutive(open: bool) -> Box<dyn Subject> {
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

/// tower leaves the policy to its users: this is the shortest that retries three times, as the documentation shows it.
#[derive(Clone)]
pub(crate) struct Attempts {
    budget: Option<Arc<TpsBudget>>,
    left: u32,
}

pub(crate) fn tower_retry() -> tower::retry::RetryLayer<Attempts> {
    tower::retry::RetryLayer::new(Attempts { budget: None, left: 2 })
}

pub(crate) fn tower_retry_with_budget() -> tower::retry::RetryLayer<Attempts> {
    let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 1.0));
    tower::retry::RetryLayer::new(Attempts { budget: Some(budget), left: 2 })
}

impl<E> tower::retry::Policy<u64, u64, E> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, E>) -> Option<Ready<()>> {
        match result {
            Ok(_) => {
                if let Some(budget) = &self.budget {
                    budget.deposit();
                }
                None
            }
            Err(_) => {
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
