//! The peers' layers, as their documentation recommends them, with the settings that ours have.

use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use std::{mem, thread};

use failsafe::futures::CircuitBreaker as _;
use mainstay_instructions::bare::{Bare, Failed, Script};
use mainstay_instructions::subject::{Subject, closure, finish, service, succeeds};
use tower::retry::budget::{Budget as _, TpsBudget};
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
}

pub(crate) fn recloser(open: bool) -> Box<dyn Subject> {
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

pub(crate) fn failsafe_minute() -> Box<dyn Subject> {
    let policy = failsafe::failure_policy::success_rate_over_time_window(0.5, 20, MINUTE, constant());
    let (breaker, mut inner) = (failsafe::Config::new().failure_policy(policy).build(), answers());
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
