//! Every setting of every policy: a bad value is an error that names the field and the value, never a panic and never
//! clamped; the largest values there are overflow nothing; and files say what they mean.

use std::time::Duration;

use mainstay::InvalidConfig;

const ZERO: Duration = Duration::ZERO;
const MAX: Duration = Duration::MAX;
const NANO: Duration = Duration::from_nanos(1);

/// One row: the field that the error names, the value that it shows, and what spoils the defaults.
macro_rules! refused {
    ($config:ty: $($field:literal = $value:literal, |$it:ident| $spoil:expr;)*) => {{
        assert_eq!(<$config>::default().validate(), Ok(()), "the defaults of {}", stringify!($config));
        $({
            let mut config = <$config>::default();
            let $it = &mut config;
            $spoil;
            let before = config.clone();
            let error: InvalidConfig = config.validate().expect_err(concat!(stringify!($config), ": ", stringify!($spoil)));
            assert_eq!((error.field(), error.value()), ($field, $value), "{}", stringify!($spoil));
            assert!(!error.requirement().is_empty());
            let text = error.to_string();
            assert!(text.contains($field) && text.contains($value), "{text}");
            // What cannot be compared with itself is not a number.
            assert!(config == before || $value.contains("NaN"), "validating changes nothing");
        })*
    }};
}

#[test]
fn backoff() {
    use mainstay::backoff::{BackoffConfig, Growth, Jitter};
    refused! { BackoffConfig:
        "growth.factor" = "NaN", |it| it.growth = Growth::Exponential { factor: f64::NAN };
        "growth.factor" = "inf", |it| it.growth = Growth::Exponential { factor: f64::INFINITY };
        "growth.factor" = "0.5", |it| it.growth = Growth::Exponential { factor: 0.5 };
        "growth.factor" = "-2.0", |it| it.growth = Growth::Exponential { factor: -2.0 };
        "cap" = "1ns", |it| it.cap = NANO;
        "jitter" = "NaN", |it| it.jitter = Jitter::Proportional(f64::NAN);
        "jitter" = "-0.1", |it| it.jitter = Jitter::Proportional(-0.1);
        "jitter" = "0.0", |it| it.jitter = Jitter::Proportional(0.0);
        "jitter" = "1.1", |it| it.jitter = Jitter::Proportional(1.1);
        "jitter" = "Full", |it| { it.growth = Growth::Decorrelated; it.jitter = Jitter::Full; };
    }
}

#[test]
fn budget() {
    use mainstay::budget::{Budget, BudgetConfig};
    refused! { BudgetConfig:
        "ratio" = "NaN", |it| it.ratio = f64::NAN;
        "ratio" = "-0.1", |it| it.ratio = -0.1;
        "ratio" = "10.5", |it| it.ratio = 10.5;
        "reserve" = "4294967295", |it| it.reserve = u32::MAX;
        "window" = "0ns", |it| it.window = ZERO;
        "window" = "61s", |it| it.window = Duration::from_secs(61);
        "reserve_window" = "0ns", |it| it.reserve_window = ZERO;
        "reserve_window" = "61s", |it| it.reserve_window = Duration::from_secs(61);
    }
    let mut config = BudgetConfig::default();
    config.window = MAX;
    assert_eq!(Budget::new(config).unwrap_err().field(), "window");
}

#[cfg(feature = "circuit-breaker")]
#[test]
fn circuit_breaker() {
    use mainstay::CircuitState;
    use mainstay::backoff::Jitter;
    use mainstay::circuit_breaker::{
        CircuitBreakerConfig, CircuitBreakerHandle, FailuresPerPeriod, OpenTime, ProbeRule, Ramp, SlowCalls, Window,
    };
    let slow = |longer_than, rate| Some(SlowCalls { longer_than, rate });
    let per_period = |failures, period| Some(FailuresPerPeriod { failures, period });
    let open = |initial, factor, max| OpenTime::Exponential { initial, factor, max, jitter: Jitter::None };
    let ramp = |shares: &[f64], step| Some(Ramp { shares: shares.to_vec(), step });
    let spread =
        |jitter| OpenTime::Exponential { initial: NANO, factor: 2.0, max: MAX, jitter: Jitter::Proportional(jitter) };
    refused! { CircuitBreakerConfig:
        "window.calls" = "0", |it| it.window = Window::Count { calls: 0 };
        "window.calls" = "4294967295", |it| it.window = Window::Count { calls: u32::MAX };
        "window.length" = "0ns", |it| it.window = Window::Time { length: ZERO };
        "window.length" = "1ns", |it| it.window = Window::Time { length: NANO };
        "minimum_calls" = "0", |it| it.minimum_calls = 0;
        "minimum_calls" = "4294967295", |it| it.minimum_calls = u32::MAX;
        "failure_rate" = "NaN", |it| it.failure_rate = Some(f64::NAN);
        "failure_rate" = "0.0", |it| it.failure_rate = Some(0.0);
        "failure_rate" = "-0.1", |it| it.failure_rate = Some(-0.1);
        "failure_rate" = "1.1", |it| it.failure_rate = Some(1.1);
        "failure_rate" = "None", |it| it.failure_rate = None;
        "slow_calls.longer_than" = "0ns", |it| it.slow_calls = slow(ZERO, 0.5);
        "slow_calls.rate" = "NaN", |it| it.slow_calls = slow(NANO, f64::NAN);
        "slow_calls.rate" = "0.0", |it| it.slow_calls = slow(NANO, 0.0);
        "slow_calls.rate" = "1.1", |it| it.slow_calls = slow(NANO, 1.1);
        "watch_in_flight" = "true", |it| it.watch_in_flight = true;
        "consecutive_failures" = "0", |it| it.consecutive_failures = Some(0);
        "failures_per_period.failures" = "0", |it| it.failures_per_period = per_period(0, MAX);
        "failures_per_period.period" = "0ns", |it| it.failures_per_period = per_period(1, ZERO);
        "failures_per_period.period" = "1ns", |it| it.failures_per_period = per_period(1, NANO);
        "open_time.initial" = "0ns", |it| it.open_time = open(ZERO, 2.0, MAX);
        "open_time.factor" = "NaN", |it| it.open_time = open(NANO, f64::NAN, MAX);
        "open_time.factor" = "0.5", |it| it.open_time = open(NANO, 0.5, MAX);
        "open_time.factor" = "inf", |it| it.open_time = open(NANO, f64::INFINITY, MAX);
        "open_time.max" = "0ns", |it| it.open_time = open(NANO, 2.0, ZERO);
        "open_time.jitter" = "0.0", |it| it.open_time = spread(0.0);
        "open_time.jitter" = "NaN", |it| it.open_time = spread(f64::NAN);
        "open_time.jitter" = "1.1", |it| it.open_time = spread(1.1);
        "probes" = "0", |it| it.probes = 0;
        "probes" = "4294967295", |it| it.probes = u32::MAX;
        "probe_rule" = "ConsecutiveSuccesses(0)", |it| it.probe_rule = ProbeRule::ConsecutiveSuccesses(0);
        "probe_deadline" = "0ns", |it| it.probe_deadline = ZERO;
        "half_open_max" = "0ns", |it| it.half_open_max = Some(ZERO);
        "ramp.shares" = "[]", |it| it.ramp = ramp(&[], NANO);
        "ramp.shares" = "[0.0]", |it| it.ramp = ramp(&[0.0], NANO);
        "ramp.shares" = "[0.5, 1.0]", |it| it.ramp = ramp(&[0.5, 1.0], NANO);
        "ramp.shares" = "[0.5, 0.1]", |it| it.ramp = ramp(&[0.5, 0.1], NANO);
        "ramp.shares" = "[NaN]", |it| it.ramp = ramp(&[f64::NAN], NANO);
        "ramp.step" = "0ns", |it| it.ramp = ramp(&[0.5], ZERO);
        "throttled_opens" = "0ns", |it| it.throttled_opens = Some(ZERO);
        "initial_state" = "HalfOpen", |it| it.initial_state = CircuitState::HalfOpen;
    }
    let mut config = CircuitBreakerConfig::default();
    config.probes = 0;
    assert_eq!(CircuitBreakerHandle::new("test", config).unwrap_err().field(), "probes");
}

#[cfg(feature = "retry")]
#[test]
fn retry() {
    use mainstay::RetryLayer;
    use mainstay::retry::RetryConfig;
    refused! { RetryConfig:
        "max_attempts" = "0", |it| it.max_attempts = 0;
        "attempt_timeout" = "0ns", |it| it.attempt_timeout = Some(ZERO);
        "backoff.cap" = "0ns", |it| it.backoff.cap = ZERO;
        "budget.ratio" = "NaN", |it| it.budget.ratio = f64::NAN;
    }
    let mut config = RetryConfig::default();
    config.max_attempts = 0;
    assert_eq!(RetryLayer::new("test", config).unwrap_err().field(), "max_attempts");
    let handle = RetryLayer::new("test", RetryConfig::default()).unwrap().handle();
    assert_eq!(handle.set_max_attempts(0).unwrap_err().field(), "max_attempts");
    assert_eq!(handle.config(), RetryConfig::default(), "a refused change changes nothing");
}

#[cfg(feature = "timeout")]
#[test]
fn timeout() {
    use mainstay::TimeoutLayer;
    use mainstay::timeout::TimeoutConfig;
    refused! { TimeoutConfig: "timeout" = "0ns", |it| it.timeout = ZERO; }
    assert_eq!(TimeoutLayer::total("test", ZERO).unwrap_err().field(), "timeout");
    assert_eq!(TimeoutLayer::attempt("test", ZERO).unwrap_err().field(), "timeout");
    let handle = TimeoutLayer::total("test", NANO).unwrap().handle();
    assert_eq!(handle.set_timeout(ZERO).unwrap_err().field(), "timeout");
}

#[cfg(feature = "circuit-breaker")]
#[test]
fn keyed_circuit_breaker() {
    use mainstay::circuit_breaker::{AdmissionMode, FailuresPerPeriod, KeyedCircuitBreakerConfig, Window};
    refused! { KeyedCircuitBreakerConfig:
        "breaker.probes" = "0", |it| it.breaker.probes = 0;
        "breaker.admission" = "Wait { max: 1s, queue: 1 }", |it| {
            it.breaker.admission = AdmissionMode::Wait { max: Duration::from_secs(1), queue: 1 };
        };
        "max_keys" = "0", |it| it.max_keys = 0;
        "max_keys" = "1048577", |it| it.max_keys = (1 << 20) + 1;
        "idle_after" = "0ns", |it| it.idle_after = ZERO;
        "idle_after" = "59s", |it| {
            it.idle_after = Duration::from_secs(59);
            it.breaker.window = Window::Time { length: Duration::from_secs(60) };
        };
        "idle_after" = "29s", |it| {
            it.idle_after = Duration::from_secs(29);
            it.breaker.failures_per_period = Some(FailuresPerPeriod { failures: 3, period: Duration::from_secs(30) });
        };
    }
    let mut config = KeyedCircuitBreakerConfig::default();
    (config.max_keys, config.idle_after) = (1 << 20, MAX);
    assert_eq!(config.validate(), Ok(()));
}

#[cfg(feature = "balance")]
#[test]
fn balance() {
    use mainstay::balance::EjectionConfig;
    use mainstay::circuit_breaker::CircuitBreakerConfig;
    use mainstay::{Pool, PoolConfig};
    refused! { PoolConfig:
        "default_latency" = "0ns", |it| it.default_latency = ZERO;
        "decay" = "0ns", |it| it.decay = ZERO;
        "unready_min" = "0ns", |it| it.unready_min = ZERO;
        "unready_max" = "1ns", |it| it.unready_max = NANO;
        "max_out" = "NaN", |it| it.max_out = f64::NAN;
        "max_out" = "-0.1", |it| it.max_out = -0.1;
        "max_out" = "1.1", |it| it.max_out = 1.1;
        "panic_threshold" = "NaN", |it| it.panic_threshold = f64::NAN;
        "panic_threshold" = "-0.1", |it| it.panic_threshold = -0.1;
        "panic_threshold" = "1.1", |it| it.panic_threshold = 1.1;
        "ejection.base_time" = "0ns", |it| {
            let mut ejection = EjectionConfig::default();
            ejection.base_time = ZERO;
            it.ejection = Some(ejection);
        };
        "circuit_breaker.probes" = "0", |it| {
            let mut breaker = CircuitBreakerConfig::default();
            breaker.probes = 0;
            it.circuit_breaker = Some(breaker);
        };
        "circuit_breaker.admission" = "Wait { max: 1s, queue: 1 }", |it| {
            let mut breaker = CircuitBreakerConfig::default();
            breaker.admission =
                mainstay::circuit_breaker::AdmissionMode::Wait { max: Duration::from_secs(1), queue: 1 };
            it.circuit_breaker = Some(breaker);
        };
    }
    refused! { EjectionConfig:
        "consecutive_failures" = "0", |it| it.consecutive_failures = 0;
        "base_time" = "0ns", |it| it.base_time = ZERO;
        "max_time" = "1ns", |it| it.max_time = Some(NANO);
        "decay_interval" = "0ns", |it| it.decay_interval = ZERO;
    }
    let mut config = PoolConfig::default();
    config.decay = ZERO;
    assert_eq!(Pool::<u32, ()>::new("test", config).unwrap_err().field(), "decay");
}

#[cfg(feature = "health")]
#[test]
fn health() {
    use mainstay::health::{Monitor, MonitorConfig};
    refused! { MonitorConfig:
        "interval" = "0ns", |it| it.interval = ZERO;
        "fast_interval" = "0ns", |it| it.fast_interval = Some(ZERO);
        "fast_interval" = "3600s", |it| it.fast_interval = Some(Duration::from_secs(3600));
        "down_interval" = "0ns", |it| it.down_interval = Some(ZERO);
        "timeout" = "0ns", |it| it.timeout = ZERO;
        "jitter" = "NaN", |it| it.jitter = f64::NAN;
        "jitter" = "-0.1", |it| it.jitter = -0.1;
        "jitter" = "1.0", |it| it.jitter = 1.0;
        "rise" = "0", |it| it.rise = 0;
        "fall" = "0", |it| it.fall = 0;
    }
    let mut config = MonitorConfig::default();
    config.rise = 0;
    assert_eq!(Monitor::<u32>::new("test", config).unwrap_err().field(), "rise");
}

#[cfg(feature = "cache")]
#[test]
fn cache() {
    use mainstay::CacheConfig;
    refused! { CacheConfig:
        "capacity" = "0", |it| it.capacity = 0;
        "ttl" = "0ns", |it| it.ttl = ZERO;
        "ttl_jitter" = "NaN", |it| it.ttl_jitter = f64::NAN;
        "ttl_jitter" = "-0.1", |it| it.ttl_jitter = -0.1;
        "ttl_jitter" = "1.1", |it| it.ttl_jitter = 1.1;
        "negative_ttl" = "0ns", |it| it.negative_ttl = Some(ZERO);
        "refresh_backoff" = "0ns", |it| it.refresh_backoff = ZERO;
        "max_refresh_backoff" = "1ns", |it| it.max_refresh_backoff = NANO;
        "load_timeout" = "0ns", |it| it.load_timeout = Some(ZERO);
        "soft_load_timeout" = "0ns", |it| it.soft_load_timeout = Some(ZERO);
        "max_concurrent_loads" = "0", |it| it.max_concurrent_loads = 0;
        "max_concurrent_loads" = "18446744073709551615", |it| it.max_concurrent_loads = usize::MAX;
        "store_timeout" = "0ns", |it| it.store_timeout = ZERO;
        "store_failures" = "0", |it| it.store_failures = 0;
        "store_backoff" = "0ns", |it| it.store_backoff = ZERO;
        "max_store_backoff" = "1ns", |it| it.max_store_backoff = NANO;
    }
}

#[cfg(feature = "http")]
#[test]
fn accept_context() {
    use mainstay::http::{AcceptContextConfig, AcceptContextLayer};
    refused! { AcceptContextConfig:
        "max_deadline" = "0ns", |it| it.max_deadline = ZERO;
        "default_deadline" = "0ns", |it| it.default_deadline = Some(ZERO);
        "default_deadline" = "3600s", |it| it.default_deadline = Some(Duration::from_secs(3600));
    }
    let mut config = AcceptContextConfig::default();
    config.max_deadline = ZERO;
    assert_eq!(AcceptContextLayer::new(config).unwrap_err().field(), "max_deadline");
}

/// The largest values that are valid, and calls that succeed, fail and wait under them.
mod extremes {
    #[allow(unused_imports, reason = "each is used by the families, each behind its feature")]
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[allow(unused_imports, reason = "used by the families, each behind its feature")]
    use mainstay::BoxError;
    #[allow(unused_imports, reason = "used by the families, each behind its feature")]
    use tower::{Layer, Service, ServiceExt, service_fn};

    #[allow(unused_imports, reason = "used by the families, each behind its feature")]
    use super::*;

    #[cfg(feature = "circuit-breaker")]
    #[tokio::test(start_paused = true)]
    async fn of_a_breaker() {
        use mainstay::Outcome;
        use mainstay::backoff::Jitter;
        use mainstay::circuit_breaker::{
            CircuitBreakerConfig, CircuitBreakerHandle, OpenTime, Ramp, SlowCalls, Window,
        };
        let spread = |jitter| OpenTime::Exponential { initial: NANO, factor: f64::MAX, max: MAX, jitter };
        let openings = [OpenTime::Constant(MAX), spread(Jitter::None), spread(Jitter::Proportional(1.0))];
        for open_time in openings {
            let mut config = CircuitBreakerConfig::default();
            config.window = Window::Time { length: MAX };
            config.minimum_calls = u32::MAX;
            config.slow_calls = Some(SlowCalls { longer_than: MAX, rate: 1.0 });
            config.consecutive_failures = Some(2);
            config.open_time = open_time;
            config.probe_deadline = MAX;
            config.half_open_max = Some(MAX);
            config.watch_in_flight = true;
            config.ramp = Some(Ramp { shares: vec![f64::MIN_POSITIVE], step: MAX });
            let breaker = CircuitBreakerHandle::new("test", config).unwrap();
            for _ in 0..5 {
                for outcome in [Outcome::Success, Outcome::Transient, Outcome::throttled(MAX), Outcome::Transient] {
                    if let Ok(permit) = breaker.try_acquire() {
                        tokio::time::advance(Duration::from_secs(86_400)).await;
                        permit.record(outcome);
                    }
                }
                drop(breaker.try_acquire());
                let _ = (breaker.statistics(), breaker.admits());
            }
            breaker.open_for(MAX).unwrap();
            assert!(breaker.try_acquire().is_err());
        }
    }

    #[cfg(feature = "retry")]
    #[tokio::test(start_paused = true)]
    async fn of_a_retry() {
        use mainstay::backoff::{BackoffConfig, Growth, Jitter};
        use mainstay::retry::RetryConfig;
        use mainstay::{Outcome, RetryLayer, classify_fn};
        let growths =
            [Growth::Constant, Growth::Exponential { factor: f64::MAX }, Growth::Fibonacci, Growth::Decorrelated];
        for growth in growths {
            for hint in [Outcome::Transient, Outcome::throttled(MAX)] {
                let mut config = RetryConfig::default();
                config.max_attempts = u32::MAX;
                config.attempt_timeout = Some(MAX);
                config.max_retry_after = MAX;
                let mut backoff = BackoffConfig::default();
                backoff.growth = growth;
                backoff.initial = MAX;
                backoff.cap = MAX;
                backoff.jitter = Jitter::None;
                config.backoff = backoff;
                let classify = classify_fn(move |result: Result<&u32, &BoxError>| match result {
                    Ok(_) => Outcome::Success,
                    Err(_) => hint,
                });
                let layer = RetryLayer::builder("test").config(config).classify(classify).build().unwrap();
                let calls = AtomicU32::new(0);
                let service = service_fn(|(): ()| {
                    let call = calls.fetch_add(1, Relaxed);
                    async move { if call == 0 { Err(BoxError::from("sick")) } else { Ok(call) } }
                });
                let service = layer.layer(service);
                // A wait without an end is none that a timer could be armed for: whatever it does, it does not panic.
                let _ = tokio::time::timeout(Duration::from_secs(3600), service.oneshot(())).await;
                assert!(calls.load(Relaxed) >= 1);
            }
        }
    }

    #[cfg(feature = "timeout")]
    #[tokio::test(start_paused = true)]
    async fn of_a_timeout() {
        use mainstay::TimeoutLayer;
        for layer in [TimeoutLayer::total("test", MAX).unwrap(), TimeoutLayer::attempt("test", MAX).unwrap()] {
            let service = layer.layer(service_fn(|(): ()| async {
                tokio::time::sleep(Duration::from_secs(86_400)).await;
                Ok::<_, BoxError>(7)
            }));
            assert_eq!(service.oneshot(()).await.unwrap(), 7);
        }
    }

    #[cfg(feature = "balance")]
    #[tokio::test(start_paused = true)]
    async fn of_a_pool() {
        use std::num::NonZeroU32;

        use mainstay::balance::{EjectionConfig, Picker};
        use mainstay::{Pool, PoolConfig};
        for picker in [Picker::PeakEwma, Picker::InFlight, Picker::RoundRobin] {
            let mut ejection = EjectionConfig::default();
            ejection.consecutive_failures = 1;
            ejection.base_time = MAX;
            ejection.max_time = Some(MAX);
            ejection.decay_interval = MAX;
            let mut config = PoolConfig::default();
            config.picker = picker;
            config.default_latency = MAX;
            config.decay = MAX;
            config.ready_timeout = MAX;
            config.empty_wait = MAX;
            config.unready_min = MAX;
            config.unready_max = MAX;
            config.ejection = Some(ejection);
            let pool = Pool::new("test", config).unwrap();
            let service = |fails: bool| {
                service_fn(move |(): ()| async move { if fails { Err(BoxError::from("sick")) } else { Ok(7) } })
            };
            pool.handle().add_weighted(1, service(true), NonZeroU32::MAX);
            pool.handle().add_weighted(2, service(false), NonZeroU32::MIN);
            assert_eq!(pool.handle().endpoints().len(), 2);
            for _ in 0..20 {
                let _ = pool.clone().oneshot(()).await;
                tokio::time::advance(Duration::from_secs(86_400)).await;
                let _ = (pool.handle().endpoints(), pool.handle().statistics());
            }
            assert!(pool.handle().eject(&2, MAX));
            let counted = pool.handle().statistics();
            assert_eq!(counted.successes + counted.failures, 20);
        }
    }

    #[cfg(feature = "health")]
    #[tokio::test(start_paused = true)]
    async fn of_a_monitor() {
        use mainstay::health::{Monitor, MonitorConfig, ProbeError};
        let mut config = MonitorConfig::default();
        config.interval = MAX;
        config.fast_interval = Some(MAX);
        config.down_interval = Some(MAX);
        config.timeout = MAX;
        config.jitter = 0.0;
        (config.rise, config.fall) = (u32::MAX, u32::MAX);
        let monitor = Monitor::new("test", config).unwrap();
        assert!(monitor.add(1, || async { Err::<(), ProbeError>(ProbeError::new("sick")) }));
        monitor.start().unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(monitor.statistics().failed, 1);
    }

    #[cfg(feature = "cache")]
    #[tokio::test(start_paused = true)]
    async fn of_a_cache() {
        use mainstay::{CacheConfig, CacheLayer};
        for jitter in [0.0, 1.0] {
            let mut config = CacheConfig::default();
            config.capacity = u64::MAX;
            config.ttl = MAX;
            config.ttl_jitter = jitter;
            config.negative_ttl = Some(MAX);
            config.stale_while_revalidate = MAX;
            config.stale_if_error = MAX;
            config.refresh_backoff = MAX;
            config.max_refresh_backoff = MAX;
            config.load_timeout = Some(MAX);
            config.soft_load_timeout = Some(MAX);
            config.max_queued_loads = usize::MAX;
            config.store_timeout = MAX;
            config.store_failures = u32::MAX;
            config.store_backoff = MAX;
            config.max_store_backoff = MAX;
            let layer = CacheLayer::builder("test").key(|key: &u32| Some(*key)).config(config).build().unwrap();
            let service = layer.layer(service_fn(|key: u32| async move {
                if key == 13 { Err(BoxError::from("sick")) } else { Ok::<u32, BoxError>(key) }
            }));
            for key in [1, 1, 13, 13] {
                assert_eq!(service.clone().oneshot(key).await.is_ok(), key == 1);
                tokio::time::advance(Duration::from_secs(86_400)).await;
            }
        }
    }
}

#[cfg(feature = "serde")]
mod files {
    use std::fmt::Debug;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    fn reads<C: Default + PartialEq + Debug + Serialize + DeserializeOwned>() {
        let name = std::any::type_name::<C>();
        assert_eq!(toml::from_str::<C>("").unwrap(), C::default(), "{name}: an empty table is the defaults");
        let error = toml::from_str::<C>("no_such_setting = 1").expect_err(name).to_string();
        assert!(error.contains("no_such_setting"), "{name}: {error}");
        let json = serde_json::to_string(&C::default()).unwrap();
        assert_eq!(serde_json::from_str::<C>(&json).unwrap(), C::default(), "{name}: {json}");
        let text = toml::to_string(&C::default()).unwrap();
        assert_eq!(toml::from_str::<C>(&text).unwrap(), C::default(), "{name}: {text}");
    }

    #[test]
    fn defaults_are_an_empty_table_unknown_keys_are_errors_and_all_comes_back_as_it_was() {
        reads::<mainstay::backoff::BackoffConfig>();
        reads::<mainstay::budget::BudgetConfig>();
        #[cfg(feature = "circuit-breaker")]
        reads::<mainstay::circuit_breaker::CircuitBreakerConfig>();
        #[cfg(feature = "circuit-breaker")]
        reads::<mainstay::circuit_breaker::KeyedCircuitBreakerConfig>();
        #[cfg(feature = "retry")]
        reads::<mainstay::retry::RetryConfig>();
        #[cfg(feature = "timeout")]
        reads::<mainstay::timeout::TimeoutConfig>();
        #[cfg(feature = "balance")]
        reads::<mainstay::PoolConfig>();
        #[cfg(feature = "balance")]
        reads::<mainstay::balance::EjectionConfig>();
        #[cfg(feature = "health")]
        reads::<mainstay::health::MonitorConfig>();
        #[cfg(feature = "health")]
        reads::<mainstay::health::ShutdownConfig>();
        #[cfg(feature = "cache")]
        reads::<mainstay::CacheConfig>();
        #[cfg(feature = "http")]
        reads::<mainstay::http::AcceptContextConfig>();
    }

    #[cfg(feature = "retry")]
    #[test]
    fn unknown_keys_of_inner_tables_are_errors_too() {
        use mainstay::retry::RetryConfig;
        assert!(toml::from_str::<RetryConfig>("[backoff]\nno_such_setting = 1").is_err());
        assert!(toml::from_str::<RetryConfig>("[budget]\nno_such_setting = 1").is_err());
    }
}
