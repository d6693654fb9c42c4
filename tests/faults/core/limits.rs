//! Timeouts, deadlines, readiness and the ambient context.

#![cfg(all(feature = "timeout", feature = "retry"))]

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context as Context_, Poll};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::context::{self, Context};
use mainstay::retry::RetryLayer;
use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
use mainstay::{BoxError, Outcome, Rejectable, Rejected};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What is left until the deadline, and of what is propagated.
fn left() -> (Option<Duration>, Option<Duration>) {
    let (now, context) = (Instant::now(), context::current());
    let until = |end: Option<Instant>| end.map(|end| end.saturating_duration_since(now));
    (until(context.deadline()), until(context.propagated_deadline()))
}

#[tokio::test(start_paused = true)]
async fn entry_19_an_attempt_timeout_lowers_what_is_propagated_and_leaves_the_deadline() {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("users", 2 * SECOND).unwrap())
        .layer(TimeoutLayer::attempt("users", millis(500)).unwrap())
        .service(service_fn(|()| async { Ok::<_, BoxError>(left()) }));
    assert_eq!(service.oneshot(()).await.unwrap(), (Some(2 * SECOND), Some(millis(500))));
    assert_eq!(left(), (None, None), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn entry_19_the_deadline_is_propagated_where_it_is_the_nearer_one() {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("users", millis(300)).unwrap())
        .layer(TimeoutLayer::attempt("users", millis(500)).unwrap())
        .service(service_fn(|()| async { Ok::<_, BoxError>(left()) }));
    assert_eq!(service.oneshot(()).await.unwrap(), (Some(millis(300)), Some(millis(300))));
}

/// In the `call` of the inner service and in each poll of its future, whatever was polled in between.
#[tokio::test(start_paused = true)]
async fn entry_19_an_attempt_without_a_deadline_propagates_its_end_for_as_long_as_it_runs() {
    let attempt = TimeoutLayer::attempt("users", millis(500)).unwrap();
    let mut service = attempt.layer(service_fn(|()| {
        let at_call = left();
        async move {
            sleep(millis(100)).await;
            Ok::<_, BoxError>([at_call, left()])
        }
    }));
    let mut other = attempt.layer(service_fn(|()| pending::<Result<(), BoxError>>()));
    let mut call = task::spawn(Service::call(&mut service, ()));
    assert!(call.poll().is_pending());
    let mut beside = task::spawn(Service::call(&mut other, ()));
    assert!(beside.poll().is_pending());
    assert_eq!(left(), (None, None));
    advance(millis(100)).await;
    assert_eq!(assert_ready_ok!(call.poll()), [(None, Some(millis(500))), (None, Some(millis(400)))]);
}

#[tokio::test(start_paused = true)]
async fn entry_19_of_nested_attempts_the_nearest_end_is_propagated() {
    for (outer, inner) in [(300, 500), (500, 300)] {
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::attempt("outer", millis(outer)).unwrap())
            .layer(TimeoutLayer::total("total", 2 * SECOND).unwrap())
            .layer(TimeoutLayer::attempt("inner", millis(inner)).unwrap())
            .service(service_fn(|()| async { Ok::<_, BoxError>(left()) }));
        assert_eq!(service.oneshot(()).await.unwrap(), (Some(2 * SECOND), Some(millis(300))));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_19_each_attempt_of_a_retry_with_an_attempt_timeout_propagates_its_own_end() {
    let quick = RetryLayer::builder("users").max_attempts(3).backoff(BackoffConfig::none());
    let retry = quick.attempt_timeout(millis(500)).build().unwrap();
    let total = TimeoutLayer::total("users", millis(1_200)).unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let service = ServiceBuilder::new().layer(total).layer(retry).service(service_fn(|()| {
        seen.lock().unwrap().push(left());
        pending::<Result<(), BoxError>>()
    }));
    service.oneshot(()).await.unwrap_err();
    let expected = [(1_200, 500), (700, 500), (200, 200)].map(|(one, other)| (Some(millis(one)), Some(millis(other))));
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// The end of an attempt must not read as the caller's deadline to the layers between.
#[tokio::test(start_paused = true)]
async fn entry_19_an_attempts_own_timeout_is_still_evidence_against_the_callee() {
    let inner = TimeoutLayer::attempt("inner", SECOND).unwrap();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::attempt("outer", SECOND).unwrap())
        .layer(inner.clone())
        .service(service_fn(|()| pending::<Result<(), BoxError>>()));
    let error = service.oneshot(()).await.unwrap_err();
    let rejected = error.as_rejected().unwrap();
    assert_eq!(
        (rejected, rejected.outcome()),
        (&Rejected::Timeout { timeout: SECOND, sent: true }, Outcome::Transient)
    );
    assert_eq!(inner.handle().statistics().timed_out, 1);
}

#[tokio::test(start_paused = true)]
async fn entry_19_a_context_that_is_carried_into_a_task_takes_the_end_of_the_attempt_along() {
    let service = TimeoutLayer::attempt("users", millis(500)).unwrap().layer(service_fn(|()| async {
        let carried = tokio::spawn(context::carry(async { left() }));
        let fresh = Context::new().scope(async { left() });
        Ok::<_, BoxError>((carried.await.unwrap(), fresh.await))
    }));
    assert_eq!(service.oneshot(()).await.unwrap(), ((None, Some(millis(500))), (None, None)));
}

#[tokio::test(start_paused = true)]
async fn entry_27_a_timeouts_future_panics_when_it_is_polled_after_its_end() {
    for layer in [TimeoutLayer::attempt("test", SECOND).unwrap(), TimeoutLayer::total("test", SECOND).unwrap()] {
        let answers = service_fn(|ok: bool| async move { if ok { Ok(()) } else { Err(BoxError::from("no")) } });
        for ok in [true, false] {
            let mut call = task::spawn(layer.layer(answers).call(ok));
            assert!(call.poll().is_ready());
            assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err(), "after a result");
        }
        let mut call = task::spawn(layer.layer(service_fn(|()| pending::<Result<(), BoxError>>())).call(()));
        assert!(call.poll().is_pending());
        advance(millis(1_001)).await;
        assert_ready_err!(call.poll());
        assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err(), "after a timeout");

        let over = Context::new().with_deadline(Instant::now());
        let mut call = task::spawn(over.enter(|| layer.layer(answers).call(true)));
        assert_ready_err!(call.poll());
        assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err(), "after a call that was not sent");
        assert_eq!(layer.handle().statistics().calls(), 4, "each was counted once");
    }
}

/// In the inner service's `call`, in its future, and in the function that computes the timeout.
#[tokio::test(start_paused = true)]
async fn entry_24_a_panic_under_a_timeout_is_counted_wherever_it_comes_from() {
    for config in [TimeoutConfig::attempt(SECOND), TimeoutConfig::total(SECOND)] {
        let layer = TimeoutLayer::new("test", config).unwrap();
        let mut at_call =
            layer.layer(service_fn(|()| -> std::future::Ready<Result<(), BoxError>> { panic!("in call") }));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(Service::call(&mut at_call, ())))).is_err());
        assert_eq!((layer.handle().statistics().abandoned, layer.handle().statistics().calls()), (1, 1));

        let in_poll = layer.layer(service_fn(|()| async { panic!("in poll") as Result<(), BoxError> }));
        assert!(tokio::spawn(in_poll.oneshot(())).await.unwrap_err().is_panic());
        assert_eq!((layer.handle().statistics().abandoned, layer.handle().statistics().calls()), (2, 2));

        let compute = |(): &()| -> Option<Duration> { panic!("in a function of the user") };
        let computed = TimeoutLayer::computed("test", config, compute).unwrap();
        let mut service = computed.layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(Service::call(&mut service, ())))).is_err());
        assert_eq!((computed.handle().statistics().abandoned, computed.handle().statistics().calls()), (1, 1));
    }
}

/// A service that is never ready.
#[derive(Clone)]
struct Busy;

impl Service<()> for Busy {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Pending<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context_<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        pending()
    }
}

#[tokio::test(start_paused = true)]
async fn entry_26_each_caller_has_its_own_time_to_wait_for_readiness() {
    for abandoned_after in [30, 99, 100, 105, 109, 500] {
        let mut config = TimeoutConfig::attempt(millis(100));
        config.include_readiness = true;
        let mut service = TimeoutLayer::new("test", config).unwrap().layer(Busy);
        {
            let mut first = task::spawn(service.ready());
            assert!(first.poll().is_pending());
        }
        advance(millis(abandoned_after)).await;
        let start = Instant::now();
        let error = service.ready().await.unwrap().call(()).await.unwrap_err();
        assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: millis(100), sent: false }));
        assert_eq!(start.elapsed(), millis(100), "the first left after {abandoned_after} ms");

        // The same within one task.
        assert!(tokio::time::timeout(millis(99), service.ready()).await.is_err());
        let start = Instant::now();
        service.ready().await.unwrap().call(()).await.unwrap_err();
        assert_eq!(start.elapsed(), millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_30_a_timeout_is_reconfigured_without_losing_what_it_counted() {
    let layer = TimeoutLayer::total("test", millis(100)).unwrap();
    let mut service = layer.layer(Busy);
    Service::call(&mut service, ()).await.unwrap_err();

    let mut config = TimeoutConfig::total(millis(300));
    config.include_readiness = true;
    layer.handle().reconfigure(config).unwrap();
    assert_eq!(layer.handle().config(), config);
    let start = Instant::now();
    service.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!(start.elapsed(), millis(300), "of the wait for readiness, which counts from now on");
    let counted = layer.handle().statistics();
    assert_eq!((counted.timed_out, counted.not_sent), (1, 1));

    for (wrong, field) in [(TimeoutConfig::attempt(SECOND), "kind"), (TimeoutConfig::total(Duration::ZERO), "timeout")]
    {
        let error = layer.handle().reconfigure(wrong).unwrap_err();
        assert_eq!((error.layer(), error.field()), (Some("test"), field));
        assert_eq!(layer.handle().config(), config, "nothing was changed");
    }
}

#[test]
fn entry_28_a_bad_setting_names_the_layer() {
    let error = TimeoutLayer::total("users", Duration::ZERO).unwrap_err();
    assert_eq!((error.layer(), error.field(), error.value()), (Some("users"), "timeout", "0ns"));
    assert!(error.to_string().starts_with("`users`: invalid `timeout` = 0ns"), "{error}");
    let error = RetryLayer::builder("users").attempt_timeout(Duration::ZERO).build().map(drop).unwrap_err();
    assert_eq!((error.layer(), error.field()), (Some("users"), "attempt_timeout"));
    #[cfg(feature = "circuit-breaker")]
    {
        use mainstay::circuit_breaker::CircuitBreakerLayer;
        let error = CircuitBreakerLayer::builder("users").failure_rate(2.0).build().map(drop).unwrap_err();
        assert_eq!((error.layer(), error.field()), (Some("users"), "failure_rate"));
    }
    #[cfg(feature = "balance")]
    {
        let built = mainstay::balance::Pool::<u32, ()>::builder("users").max_out(1.5).build();
        let error = built.map(drop).unwrap_err();
        assert_eq!((error.layer(), error.field()), (Some("users"), "max_out"));
    }
}

#[test]
#[cfg(all(feature = "circuit-breaker", feature = "health"))]
fn entry_28_a_bad_setting_at_run_time_names_the_layer() {
    use mainstay::circuit_breaker::CircuitBreakerLayer;
    use mainstay::health::{Monitor, MonitorConfig};

    let retry = RetryLayer::builder("users").build().unwrap().handle();
    let mut config = retry.config();
    config.attempt_timeout = Some(Duration::ZERO);
    let breaker = CircuitBreakerLayer::builder("users").build().unwrap().handle();
    let mut breaks = breaker.config();
    breaks.failure_rate = Some(2.0);
    let keyed = CircuitBreakerLayer::builder("users").keyed(|key: &u32| Some(*key)).build().unwrap().handle();
    let mut by_key = keyed.config();
    by_key.breaker.failure_rate = Some(2.0);
    let monitor = Monitor::<u32>::new("users", MonitorConfig::default()).unwrap();
    let mut checks = monitor.config();
    checks.interval = Duration::ZERO;
    for error in [
        retry.set_max_attempts(0).unwrap_err(),
        retry.reconfigure(config).unwrap_err(),
        breaker.reconfigure(breaks).unwrap_err(),
        keyed.reconfigure(by_key).unwrap_err(),
        monitor.reconfigure(checks).unwrap_err(),
    ] {
        assert_eq!(error.layer(), Some("users"), "{error}");
    }
}

#[cfg(feature = "serde")]
mod entry_28_settings_from_a_file {
    use super::*;
    use mainstay::retry::RetryConfig;
    use serde::{Serialize, de::DeserializeOwned};

    fn read<T: DeserializeOwned>(text: &str) -> T {
        toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused<T: DeserializeOwned>(text: &str) -> String {
        toml::from_str::<T>(text).map(drop).unwrap_err().to_string()
    }

    /// What is written is read again as the same.
    fn written<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(config: &T) {
        assert_eq!(&read::<T>(&toml::to_string(config).unwrap()), config);
    }

    #[test]
    fn a_number_without_a_unit_says_what_is_expected() {
        let with_unit = "a duration with a unit, such as 500ms";
        for field in ["attempt_timeout", "max_elapsed", "ready_timeout", "max_retry_after"] {
            let error = refused::<RetryConfig>(&format!("{field} = 500"));
            assert!(error.contains("invalid type: integer `500`") && error.contains(with_unit), "{error}");
        }
        for value in ["0.5", "true", "[500]"] {
            let error = refused::<TimeoutConfig>(&format!("timeout = {value}"));
            assert!(error.contains(with_unit), "{error}");
        }
        assert!(refused::<TimeoutConfig>("timeout = \"500\"").contains(with_unit));
    }

    #[test]
    fn every_optional_setting_of_a_retry_can_be_off() {
        for field in ["attempt_timeout", "max_elapsed", "ready_timeout", "seed"] {
            assert_eq!(read::<RetryConfig>(&format!("{field} = \"off\"")), RetryConfig::default());
        }
        let mut config = read::<RetryConfig>("attempt_timeout = \"500ms\"\nseed = 7");
        assert_eq!((config.attempt_timeout, config.seed), (Some(millis(500)), Some(7)));
        written(&config);
        config.attempt_timeout = None;
        written(&config);
        assert!(refused::<RetryConfig>("seed = \"on\"").contains("expected u64"));
    }

    #[cfg(feature = "circuit-breaker")]
    #[test]
    fn every_optional_setting_of_a_breaker_can_be_off_and_its_window_is_short() {
        use mainstay::circuit_breaker::{CircuitBreakerConfig, Window};
        let read = read::<CircuitBreakerConfig>;
        let config = read("failure_rate = \"off\"\nconsecutive_failures = 5");
        assert_eq!((config.failure_rate, config.consecutive_failures), (None, Some(5)));
        written(&config);
        let optional =
            ["slow_calls", "consecutive_failures", "failures_per_period", "half_open_max", "ramp", "throttled_opens"];
        for field in optional {
            let config = read(&format!("{field} = \"off\""));
            written(&config);
        }
        assert_eq!(read("half_open_max = \"off\"").half_open_max, None);
        assert_eq!(read("failure_rate = 0.25").failure_rate, Some(0.25));

        assert_eq!(read("window = { count = 100 }").window, Window::Count { calls: 100 });
        assert_eq!(read("window = { count = { calls = 7 } }").window, Window::Count { calls: 7 });
        assert_eq!(read("window = { time = \"10s\" }").window, Window::Time { length: 10 * SECOND });
        assert_eq!(read("window = { time = { length = \"2s\" } }").window, Window::Time { length: 2 * SECOND });
        for wrong in
            ["{ count = \"100\" }", "{ count = -1 }", "{ count = { call = 1 } }", "{ time = 10 }", "{ calls = 1 }"]
        {
            refused::<CircuitBreakerConfig>(&format!("window = {wrong}"));
        }
        assert!(refused::<CircuitBreakerConfig>("window = { time = 10 }").contains("a duration with a unit"));
    }

    #[cfg(feature = "balance")]
    #[test]
    fn every_optional_setting_of_a_pool_can_be_off() {
        use mainstay::balance::PoolConfig;
        let config = read::<PoolConfig>("ejection = \"off\"\ncircuit_breaker = \"off\"\nseed = \"off\"");
        assert!(config.ejection.is_none() && config.circuit_breaker.is_none() && config.seed.is_none());
        written(&config);
        written(&PoolConfig::default());
        assert!(read::<PoolConfig>("ejection = { max_time = \"off\" }").ejection.unwrap().max_time.is_none());
    }

    #[cfg(feature = "cache")]
    #[test]
    fn every_optional_setting_of_a_cache_can_be_off() {
        use mainstay::cache::CacheConfig;
        for field in ["negative_ttl", "load_timeout", "soft_load_timeout", "seed"] {
            written(&read::<CacheConfig>(&format!("{field} = \"off\"")));
        }
        assert_eq!(read::<CacheConfig>("load_timeout = \"off\"").load_timeout, None);
    }

    #[cfg(feature = "health")]
    #[test]
    fn every_optional_setting_of_a_monitor_can_be_off() {
        use mainstay::health::MonitorConfig;
        for field in ["fast_interval", "down_interval"] {
            written(&read::<MonitorConfig>(&format!("{field} = \"off\"")));
        }
    }
}
