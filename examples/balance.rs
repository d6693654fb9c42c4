//! Three endpoints behind one pool: one fails, is ejected, and the others carry on; another drains.
//!
//! `cargo run --example balance`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::BoxError;
use mainstay::balance::{EjectionConfig, Picker, Pool, PoolHandle};
use mainstay::telemetry::Event;
use tower::service_fn;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut ejection = EjectionConfig::default();
    ejection.consecutive_failures = 3;
    ejection.base_time = Duration::from_millis(300);
    let pool = Pool::builder("app")
        .picker(Picker::RoundRobin)
        .ejection(ejection)
        .listener(|event: &Event<'_>| println!("  -> {event}"))
        .build()?;
    let handle = pool.handle();

    println!("1. Three endpoints come.");
    let broken = Arc::new(AtomicBool::new(true));
    for port in [8001_u16, 8002, 8003] {
        let broken = broken.clone();
        handle.add(
            port,
            service_fn(move |_: ()| {
                let fails = port == 8002 && broken.load(Ordering::Relaxed);
                async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    if fails { Err(BoxError::from("500")) } else { Ok(port) }
                }
            }),
        );
    }

    println!("2. 8002 fails every call: after three in a row nothing goes there any more.");
    let mut failed = 0;
    for _ in 0..60 {
        failed += u32::from(pool.clone().oneshot(()).await.is_err());
    }
    println!("  {failed} of 60 calls failed");
    print(&handle);

    println!("3. It recovers, and gets calls again when its ejection is over.");
    broken.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(350)).await;
    for _ in 0..60 {
        pool.clone().oneshot(()).await?;
    }
    print(&handle);

    println!("4. 8001 drains: its last call finishes, then it leaves.");
    let last = tokio::spawn(pool.clone().oneshot(()));
    if let Some(drained) = handle.drain(&8001) {
        drained.await;
    }
    last.await??;
    print(&handle);
    println!("{:#?}", handle.statistics());
    Ok(())
}

fn print<S>(handle: &PoolHandle<u16, S>) {
    for endpoint in handle.endpoints() {
        let state = endpoint.against.map_or("in use", |reason| reason.as_str());
        println!("  {}: {state}, {} picks, {} failures", endpoint.key, endpoint.picks, endpoint.failures);
    }
}
