//! A target goes down and comes back under a monitor; the application answers for itself, and ends in order.
//!
//! `cargo run --example health`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::health::{HealthReport, Monitor, Role, Shutdown, ShutdownConfig, TcpProbe};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A database that listens, and a cache that we switch off and on.
    let database = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let cache_works = Arc::new(AtomicBool::new(true));

    println!("1. a monitor checks two targets, each by its own probe");
    let monitor = Monitor::builder("dependencies")
        .interval(Duration::from_millis(40))
        .fast_interval(Duration::from_millis(10))
        .timeout(Duration::from_millis(20))
        .listener(|event: &mainstay::telemetry::Event<'_>| println!("   event: {event}"))
        .build()?;
    monitor.add("database", TcpProbe::new(database.local_addr()?.to_string()));
    let works = cache_works.clone();
    monitor.add("cache", move || {
        let works = works.load(Ordering::Relaxed);
        async move { if works { Ok(()) } else { Err("connection refused") } }
    });
    let mut changes = monitor.subscribe();
    monitor.start()?;
    for _ in 0..2 {
        let change = changes.changed().await.expect("the monitor lives");
        println!("   {} is {}", change.key, change.status);
    }

    println!("2. the application answers for itself");
    let report = HealthReport::new("shop");
    report.add_target("database", Role::Shared, &monitor, "database")?;
    report.add_target("cache", Role::Optional, &monitor, "cache")?;
    let worker = report.add("worker", Role::Critical)?;
    println!("   before the start: {}", report.readiness().to_json());
    report.mark_started();
    worker.healthy();
    println!("   started:          {}", report.readiness().to_json());

    println!("3. the cache goes away: three failures in a row; the application stays ready, with a warning");
    cache_works.store(false, Ordering::Relaxed);
    let change = changes.changed().await.expect("the monitor lives");
    println!("   {} is {}", change.key, change.status);
    println!("   {}", report.readiness().to_json());

    println!("4. and comes back: two passes in a row");
    cache_works.store(true, Ordering::Relaxed);
    let change = changes.changed().await.expect("the monitor lives");
    println!("   {} is {}", change.key, change.status);

    println!("5. shutdown: unready, wait, accept nothing new, drain");
    let mut config = ShutdownConfig::default();
    config.grace = Duration::from_millis(100);
    config.drain = Duration::from_millis(500);
    let shutdown = Shutdown::new(report.clone(), config);
    let (stop, working, told) = (shutdown.stop_accepting(), shutdown.working(), report.clone());
    let server = tokio::spawn(async move {
        println!("   the server still accepts, though the report says: {}", told.readiness().verdict());
        stop.await;
        println!("   the server stops accepting, and finishes what it has");
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(working);
    });
    let drained = shutdown.run().await;
    println!("   all work has ended in time: {drained}");
    server.await?;
    Ok(())
}
