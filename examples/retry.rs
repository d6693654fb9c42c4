//! A retry at work: attempts, a callee that asks for time, a budget that runs out, and code that is no service.
//!
//! `cargo run --example retry`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::retry::AttemptReport;
use mainstay::telemetry::Event;
use mainstay::{BoxError, Outcome, RetryLayer, classify_fn, context};
use tower::{Layer, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let quick = BackoffConfig::exponential(Duration::from_millis(20));
    let tell = |event: &Event<'_>| println!("  event: {event}");

    println!("1. Two connection resets, then an answer:");
    let layer = RetryLayer::builder("users").backoff(quick).listener(tell).build()?;
    let flaky = service_fn(|name: &'static str| async move {
        match context::current().attempt() {
            attempt @ 1..=2 => Err(BoxError::from(format!("attempt {attempt}: connection reset"))),
            attempt => Ok(format!("{name}, at attempt {attempt}")),
        }
    });
    println!("  got: {}", layer.layer(flaky).oneshot("ada").await?);

    println!("2. A callee that asks to be left alone for 300 ms is, and for an hour is not asked again:");
    let busy = classify_fn(|result: Result<&(u16, Duration), &BoxError>| match result {
        Ok((429, after)) => Outcome::throttled(*after),
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Transient,
    });
    for after in [Duration::from_millis(300), Duration::from_secs(3_600)] {
        let layer = RetryLayer::builder("quota").backoff(quick).classify(busy).listener(tell).build()?;
        let callee = service_fn(move |()| async move {
            let status = if context::current().attempt() == 1 { 429 } else { 200 };
            Ok::<_, BoxError>((status, after))
        });
        println!("  got: {}", layer.layer(callee).oneshot(()).await?.0);
    }

    println!("3. An outage: 1000 calls, all of which fail.");
    let load = Arc::new(AtomicU32::new(0));
    let layer = RetryLayer::builder("orders").backoff(BackoffConfig::none()).build()?;
    let handle = layer.handle();
    for _ in 0..1_000 {
        let load = load.clone();
        let down = service_fn(move |()| {
            load.fetch_add(1, Relaxed);
            async { Err::<(), _>(BoxError::from("down")) }
        });
        let _ = layer.layer(down).oneshot(()).await;
    }
    let statistics = handle.statistics();
    println!("  the callee saw {} calls instead of 3000: {} were retries,", load.load(Relaxed), statistics.retries);
    println!("  and {} calls gave up because the budget was used up", statistics.gave_up_budget);

    println!("4. A closure, tried for 200 ms however many attempts that makes:");
    let observe = |report: &AttemptReport| println!("  attempt {}: {:?}", report.attempt, report.next);
    let layer = RetryLayer::builder("lease")
        .unlimited_attempts()
        .max_elapsed(Duration::from_millis(200))
        .backoff(BackoffConfig::constant(Duration::from_millis(60)))
        .on_attempt(observe)
        .build()?;
    let result = layer.run(|| async { Err::<(), _>(BoxError::from("taken")) }).await;
    println!("  got: {}", result.unwrap_err());
    Ok(())
}
