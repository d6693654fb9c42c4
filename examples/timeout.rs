//! Timeouts at work: one for the whole call, one for each attempt, and one deadline that all of them see.
//!
//! `cargo run --example timeout`

use std::time::Duration;

use mainstay::telemetry::Event;
use mainstay::timeout::TimeoutConfig;
use mainstay::{BoxError, Rejectable, TimeoutLayer, context};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let tell = |event: &Event<'_>| println!("  event: {event}");
    let service = |total: u64, attempt: u64| {
        let (total, attempt) = (Duration::from_millis(total), Duration::from_millis(attempt));
        let total = TimeoutLayer::builder("total").config(TimeoutConfig::total(total)).listener(tell).build()?;
        let attempt =
            TimeoutLayer::builder("attempt").config(TimeoutConfig::attempt(attempt)).listener(tell).build()?;
        Ok::<_, BoxError>(ServiceBuilder::new().layer(total).layer(attempt).service(service_fn(|work| async move {
            if let Some(left) = context::current().remaining(Instant::now()) {
                println!("  the work takes {work:?}, and knows that {left:?} are left for the whole call");
            }
            sleep(work).await;
            Ok::<_, BoxError>(())
        })))
    };

    println!("1. Done in time:");
    service(500, 200)?.oneshot(Duration::from_millis(50)).await?;

    println!("2. The attempt takes longer than it may: evidence against the callee.");
    let error = service(500, 200)?.oneshot(Duration::from_millis(300)).await.unwrap_err();
    println!("  error: {error}; outcome: {}", error.as_rejected().map_or("-", |rejected| rejected.outcome().as_str()));

    println!(
        "3. The whole call has less left than the attempt may take: the attempt is cut by a deadline, which is no evidence"
    );
    println!("   against the callee; to the caller it is the timeout of the whole call.");
    let error = service(100, 200)?.oneshot(Duration::from_millis(300)).await.unwrap_err();
    println!("  error: {error}; outcome: {}", error.as_rejected().map_or("-", |rejected| rejected.outcome().as_str()));

    println!("4. A caller whose deadline has passed: the work is not started.");
    let past = context::Context::new().with_deadline(Instant::now());
    let error = past.scope(service(500, 200)?.oneshot(Duration::from_millis(50))).await.unwrap_err();
    println!("  error: {error}");
    Ok(())
}
