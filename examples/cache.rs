//! A cache in front of a database that gets slow and then goes away: `cargo run --example cache`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::BoxError;
use mainstay::cache::{CacheLayer, Served};
use tower::{ServiceBuilder, service_fn};

#[derive(Clone)]
struct User {
    name: String,
    served: &'static str,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let queries = Arc::new(AtomicU32::new(0));
    let down = Arc::new(AtomicBool::new(false));
    let database = service_fn({
        let (queries, down) = (queries.clone(), down.clone());
        move |id: u64| {
            queries.fetch_add(1, Ordering::Relaxed);
            let down = down.load(Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if down {
                    return Err(BoxError::from("connection refused"));
                }
                Ok(User { name: format!("user {id}"), served: "" })
            }
        }
    });

    let layer = CacheLayer::builder("users")
        .key(|id: &u64| Some(*id))
        .ttl(Duration::from_millis(200))
        .stale_while_revalidate(Duration::from_millis(200))
        .stale_if_error(Duration::from_secs(60))
        .on_served(|user: &mut User, served: Served| user.served = served.as_str())
        .listener(|event: &mainstay::telemetry::Event<'_>| println!("   event: {event}"))
        .build()?;
    let handle = layer.handle();
    let users = ServiceBuilder::new().layer(layer).service(database);
    let report = |step: &str, user: &User| {
        println!("{step}: {} ({}), queries so far: {}", user.name, user.served, queries.load(Ordering::Relaxed));
    };

    let calls = (0..100).map(|_| users.clone().oneshot(7));
    let answers = futures_util::future::try_join_all(calls).await?;
    report("100 calls at once make one query", &answers[99]);

    report("the next is a hit", &users.clone().oneshot(7).await?);

    tokio::time::sleep(Duration::from_millis(210)).await;
    report("after the time to live: old, at once", &users.clone().oneshot(7).await?);
    tokio::time::sleep(Duration::from_millis(60)).await;
    report("and refreshed behind it", &users.clone().oneshot(7).await?);

    down.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(450)).await;
    report("the database is down: old in place of the error", &users.clone().oneshot(7).await?);
    report("and it is left alone for a while", &users.clone().oneshot(7).await?);

    down.store(false, Ordering::Relaxed);
    handle.invalidate(&7).await?;
    report("invalidated: loaded anew", &users.clone().oneshot(7).await?);

    println!("{:#?}", handle.statistics());
    Ok(())
}
