//! Entries 14 and 17, and the section "Compiling": errors and outcomes.

use std::sync::Arc;
use std::time::Duration;

use mainstay::circuit_breaker::CircuitBreakerLayer;
use mainstay::telemetry::TelemetryLayer;
use mainstay::{BoxError, Health, LoadFailed, Outcome, Rejected, RetryHint, classify_fn};
use tower::{ServiceBuilder, service_fn};

#[test]
fn entry_17_not_sent_is_unhealthy_and_may_be_repeated_whatever_the_method() {
    let outcome = Outcome::NotSent;
    assert_eq!((outcome.health(), outcome.retry(), outcome.was_sent()), (Health::Unhealthy, RetryHint::Yes, false));
    assert_eq!((outcome.as_str(), outcome.is_failure(), outcome.retry_after()), ("not_sent", true, None));
}

#[tokio::test(start_paused = true)]
async fn entry_17_a_call_that_was_not_sent_counts_against_the_callee() {
    let refused = classify_fn(|result: Result<&(), &BoxError>| match result {
        Ok(()) => Outcome::Success,
        Err(_) => Outcome::NotSent,
    });
    let telemetry = TelemetryLayer::new("db").classify(refused);
    let breaker = CircuitBreakerLayer::builder("db").consecutive_failures(2).classify(refused).build().unwrap();
    let (counted, handle) = (telemetry.handle(), breaker.handle());
    let service = ServiceBuilder::new()
        .layer(telemetry)
        .layer(breaker)
        .service(service_fn(|(): ()| async { Err::<(), BoxError>("connection refused".into()) }));
    for _ in 0..3 {
        service.clone().oneshot(()).await.unwrap_err();
    }
    let statistics = handle.statistics();
    assert_eq!((statistics.failures, statistics.rejected), (2, 1));
    assert_eq!(handle.try_acquire().unwrap_err().cause(), Some(Outcome::NotSent));
    assert_eq!((counted.statistics().not_sent, counted.statistics().rejected), (2, 1));
}

#[test]
fn entry_17_a_shared_load_that_was_not_sent_was_not_sent() {
    let source = Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    let rejected = Rejected::from(LoadFailed::new(Outcome::NotSent, source.clone()));
    assert_eq!((rejected.outcome(), rejected.was_sent(), rejected.retry()), (Outcome::NotSent, false, RetryHint::Yes));
    let sent = Rejected::from(LoadFailed::new(Outcome::throttled(Duration::from_secs(1)), source));
    assert_eq!((sent.was_sent(), sent.retry()), (true, RetryHint::After(Duration::from_secs(1))));
}
