//! One of four shards goes down: a breaker for each leaves the others alone.
//!
//! `cargo run --example circuit_breaker_keyed`

use std::time::Duration;

use mainstay::circuit_breaker::{CircuitBreakerLayer, OpenTime};
use mainstay::{BoxError, Rejectable};
use tower::{Layer, Service, service_fn};

struct Query {
    user: u64,
}

/// Where a user's rows are.
fn shard(query: &Query) -> u64 {
    query.user % 4
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let layer = CircuitBreakerLayer::builder("shards")
        .consecutive_failures(3)
        .open_time(OpenTime::Constant(Duration::from_secs(5)))
        .keyed(|query: &Query| Some(shard(query)))
        .max_keys(64)
        .on_transition(|shard, change| println!("    the breaker of shard {shard:?} is {}", change.to))
        .build()?;
    let breakers = layer.handle();

    // Shard 3 is down.
    let mut service = layer.layer(service_fn(|query: Query| async move {
        if shard(&query) == 3 { Err(BoxError::from("connection refused")) } else { Ok(format!("user {}", query.user)) }
    }));

    println!("Twenty users ask.");
    let (mut served, mut failed, mut refused) = (0, 0, 0);
    for user in 0..20 {
        match service.ready().await?.call(Query { user }).await {
            Ok(_) => served += 1,
            Err(error) if error.as_rejected().is_some() => refused += 1,
            Err(_) => failed += 1,
        }
    }
    println!("{served} were served, {failed} calls failed, {refused} were not sent.");

    println!("An operator knows that shard 1 is about to be moved.");
    breakers.get_or_create(1).ok_or("no room for another shard")?.force_open();
    let mut states: Vec<_> = breakers.breakers().into_iter().map(|(shard, it)| (shard, it.state())).collect();
    states.sort_by_key(|(shard, _)| *shard);
    for (shard, state) in states {
        println!("    shard {shard}: {state}");
    }
    let now = breakers.statistics();
    println!("{} keys, {} calls, {} of them refused.", now.keys, now.calls(), now.rejected);
    Ok(())
}
