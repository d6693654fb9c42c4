//! A database goes down and comes back: what a breaker in front of it does, step by step.
//!
//! `cargo run --example circuit_breaker`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use mainstay::circuit_breaker::{CircuitBreakerLayer, OpenTime, ProbeRule, Window};
use mainstay::telemetry::Event;
use mainstay::{BoxError, Rejectable};
use tower::{Layer, Service, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let down = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU32::new(0));
    let database = {
        let (down, sent) = (down.clone(), sent.clone());
        service_fn(move |query: &'static str| {
            sent.fetch_add(1, Relaxed);
            let down = down.load(Relaxed);
            async move { if down { Err(BoxError::from("connection refused")) } else { Ok(format!("rows of `{query}`")) } }
        })
    };

    let layer = CircuitBreakerLayer::builder("database")
        .window(Window::Count { calls: 10 })
        .minimum_calls(5)
        .failure_rate(0.5)
        .open_time(OpenTime::Constant(Duration::from_millis(200)))
        .probes(1)
        .probe_rule(ProbeRule::ConsecutiveSuccesses(2))
        .listener(|event: &Event<'_>| println!("    event: {event}"))
        .build()?;
    let breaker = layer.handle();
    let mut service = layer.layer(database);

    println!("The database is well: ten calls.");
    for _ in 0..10 {
        service.ready().await?.call("select 1").await?;
    }

    println!("It goes down: ten more.");
    down.store(true, Relaxed);
    sent.store(0, Relaxed);
    for _ in 0..10 {
        let error = service.ready().await?.call("select 1").await.unwrap_err();
        match error.as_rejected() {
            Some(rejected) => println!("    not sent: {rejected}"),
            None => println!("    failed: {error}"),
        }
    }
    println!("{} of them reached it.", sent.load(Relaxed));

    println!("After the open time, a probe finds it still down.");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = service.ready().await?.call("select 1").await.unwrap_err();
    println!("    failed: {error}");

    println!("It comes back; two probes in a row find it well.");
    down.store(false, Relaxed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..2 {
        println!("    {}", service.ready().await?.call("select 1").await?);
    }

    let now = breaker.statistics();
    println!(
        "{} calls = {} successes + {} failures + {} rejected; the circuit is {}.",
        now.calls(),
        now.successes,
        now.failures,
        now.rejected,
        now.state,
    );
    Ok(())
}
