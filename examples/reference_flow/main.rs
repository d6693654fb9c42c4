//! The reference flow: one request's way through the layers of mainstay, with real parts over loopback TCP.
//!
//! ```text
//!   user ──> load balancer ──> 1 of 3 application servers ──> cache ──(miss)──> database
//!            pool, retry,      drain, readiness               single    retry,  SQLite behind
//!            probes, deadline                                 flight    breaker a small service
//! ```
//!
//! `cargo run --release --features http --example reference_flow` starts each part as a process of its own, walks one request through it
//! step by step, then drives load, kills an application server in the middle of it, restarts it, and prints what that cost.
//! `-- --help` lists the flags.
//!
//! This file shows how the layers are put together, from top to bottom in the order in which a request meets them. What they
//! are put around is in one file a part: `balancer.rs`, `application.rs`, `database.rs`; `load.rs` asks, `supervisor.rs`
//! starts them all.

mod application;
mod balancer;
mod database;
mod flags;
mod janitor;
mod load;
mod net;
mod part;
mod report;
mod run;
mod storage;
mod supervisor;
mod telemetry;
mod walk;
mod workload;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use http::Request;
use mainstay::backoff::BackoffConfig;
use mainstay::balance::{EjectionConfig, Pool};
use mainstay::cache::CacheLayer;
use mainstay::circuit_breaker::{CircuitBreakerHandle, CircuitBreakerLayer, OpenTime};
use mainstay::health::{HttpProbe, Monitor};
use mainstay::http::{HttpClassifier, PropagateLayer};
use mainstay::retry::RetryLayer;
use mainstay::telemetry::TelemetryLayer;
use mainstay::timeout::TimeoutLayer;
use tower::ServiceBuilder;

use crate::application::Database;
use crate::balancer::{Server, ServerPool, Servers};
use crate::flags::Command;
use crate::net::{Body, HttpClient, HttpStack};
use crate::part::{Assignment, Part, Role};

// The times nest: an application server gives up on its database before the balancer gives up on the server, and then there
// is time left for another attempt before the user is owed an answer.
const USER_DEADLINE: Duration = Duration::from_secs(3);
const SERVER_ATTEMPT: Duration = Duration::from_secs(1);
const DATABASE_DEADLINE: Duration = Duration::from_millis(700);
const DATABASE_ATTEMPT: Duration = Duration::from_millis(300);

/// 1. The load balancer: what it does with a user's request, whichever server gets it.
fn in_front_of_servers(servers: &[(String, SocketAddr)]) -> anyhow::Result<Servers> {
    let (pool, probes) = pool_of_servers(servers)?;
    let stack = ServiceBuilder::new()
        .layer(TelemetryLayer::new("user-requests").classify(HttpClassifier::new()))
        .layer(TimeoutLayer::total("user-deadline", USER_DEADLINE)?)
        .layer(
            RetryLayer::builder("servers")
                .http()
                .backoff(BackoffConfig::exponential(Duration::from_millis(5)))
                .build()?,
        )
        .service(pool.clone());
    Servers::new(HttpStack::new(stack), pool.handle(), probes)
}

/// 2. The pool: which server gets it. Probes, ejection and load decide.
fn pool_of_servers(servers: &[(String, SocketAddr)]) -> anyhow::Result<(ServerPool, Monitor<String>)> {
    let mut ejection = EjectionConfig::default();
    ejection.consecutive_failures = 3;
    ejection.base_time = Duration::from_secs(1);
    let pool = Pool::builder("servers")
        .classify(HttpClassifier::new())
        .ejection(ejection)
        // On loopback: answers take a millisecond or two, and what was a second ago is long ago.
        .default_latency(Duration::from_millis(2))
        .decay(Duration::from_secs(1))
        .listener(balancer::announce)
        .build()?;
    let probes = Monitor::builder("servers")
        .interval(Duration::from_millis(250))
        .fast_interval(Duration::from_millis(50))
        .timeout(Duration::from_millis(500))
        .build()?;
    for (name, address) in servers {
        let client = ServiceBuilder::new()
            .layer(TimeoutLayer::attempt("server-attempt", SERVER_ATTEMPT)?)
            .layer(PropagateLayer::new())
            .service(HttpClient::new(*address));
        pool.handle().add(name.clone(), Server::new(name, client));
        probes.add(name.clone(), HttpProbe::new(format!("http://{address}/readyz"))?);
    }
    Ok((pool, probes))
}

/// 3. An application server: reads come from the cache, if it has them. One load for each key at a time, and an old answer
///    rather than none.
fn in_front_of_database(address: SocketAddr) -> anyhow::Result<Database> {
    let (database, breaker) = calls_of_database(address)?;
    let cache = CacheLayer::builder("answers")
        .key(|request: &Request<Body>| Some(request.uri().path().to_owned()))
        .classify(HttpClassifier::new())
        .ttl(Duration::from_secs(5))
        .load_timeout(SERVER_ATTEMPT)
        .stale_if_error(Duration::from_secs(60))
        .soft_load_timeout(Duration::from_millis(200))
        .on_served(application::say_how_it_was_served)
        .build()?;
    let reads =
        ServiceBuilder::new().layer(cache.clone()).map_request(application::announce_miss).service(database.clone());
    Ok(Database::new(HttpStack::new(reads), database, cache.handle(), breaker))
}

/// 4. What the cache does not have, and what is written, goes to the database: for all of it there is one breaker.
fn calls_of_database(address: SocketAddr) -> anyhow::Result<(HttpStack, CircuitBreakerHandle)> {
    let breaker = CircuitBreakerLayer::builder("database")
        .classify(HttpClassifier::new())
        .consecutive_failures(10)
        .open_time(OpenTime::Constant(Duration::from_millis(500)))
        .build()?;
    let handle = breaker.handle();
    let stack = ServiceBuilder::new()
        .layer(TimeoutLayer::total("database-deadline", DATABASE_DEADLINE)?)
        .layer(
            RetryLayer::builder("database")
                .http()
                .max_attempts(2)
                .backoff(BackoffConfig::exponential(Duration::from_millis(5)))
                .build()?,
        )
        .layer(breaker)
        .layer(TimeoutLayer::attempt("database-attempt", DATABASE_ATTEMPT)?)
        .layer(PropagateLayer::new())
        .service(HttpClient::new(address));
    Ok((HttpStack::new(stack), handle))
}

fn main() -> ExitCode {
    let ended = match flags::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", flags::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("error: {message}; --help lists the flags");
            return ExitCode::from(2);
        }
        // One thread: the children ask the kernel to die with the thread that started them.
        Ok(Command::Run(flags)) => block_on(&mut tokio::runtime::Builder::new_current_thread(), run::run(&flags)),
        Ok(Command::Part(assignment)) => block_on(&mut tokio::runtime::Builder::new_current_thread(), be(&assignment)),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn block_on(
    runtime: &mut tokio::runtime::Builder,
    main: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = runtime.enable_all().build()?;
    let ended = runtime.block_on(main);
    // A thread that still reads the standard input must not keep the process.
    runtime.shutdown_background();
    ended
}

/// A child process: is the part that it was assigned, until the parent wants no more.
async fn be(assignment: &str) -> anyhow::Result<ExitCode> {
    let assignment: Assignment = serde_json::from_str(assignment)?;
    let (name, role) = (assignment.name.clone(), assignment.role.clone());
    let ended = async {
        if matches!(role, Role::Janitor) {
            return janitor::run(&assignment.folder).await;
        }
        supervisor::die_with_parent()?;
        let (part, commands) = Part::start(assignment)?;
        match role {
            Role::Balancer { servers } => balancer::run(part, in_front_of_servers(&servers)?).await,
            Role::Application { database } => application::run(part, in_front_of_database(database)?).await,
            Role::Database => database::run(part).await,
            Role::Load { target, rate, seed } => load::run(part, commands, target, rate, seed).await,
            Role::Janitor => unreachable!("handled above"),
        }
    };
    ended.await.map_err(|error| error.context(name))?;
    Ok(ExitCode::SUCCESS)
}
