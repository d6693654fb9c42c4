//! The reference flow: one request's way through the layers of mainstay, with real parts over loopback TCP.
//!
//! ```text
//!   user ──> load balancer ──> 1 of 3 application servers ──> cache ──(miss)──> database
//!            pool, retry,      drain, readiness               single    retry,  SQLite behind
//!            probes, deadline                                 flight    breaker a small service
//! ```
//!
//! `cargo run --release -p reference-flow` starts each part as a process of its own, walks one request through it
//! step by step, then drives load, kills an application server in the middle of it, restarts it, and prints what that cost.
//! `-- --help` lists the flags.
//!
//! This file shows how the layers are put together, from top to bottom in the order in which a request meets them. What they
//! are put around is in one file a part: `balancer.rs`, `application.rs`, `database.rs`; `load.rs` asks, `supervisor.rs`
//! starts them all.

mod application;
mod audit;
mod balancer;
mod baselines;
mod clock;
mod counts;
mod database;
mod demands;
mod faults;
mod flags;
mod flow;
mod janitor;
mod knowledge;
mod load;
mod measured;
mod net;
mod part;
mod report;
mod run;
mod sample;
mod schedule;
mod storage;
mod supervisor;
mod telemetry;
mod variant;
mod walk;
mod workload;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use mainstay::backoff::BackoffConfig;
use mainstay::balance::{EjectionConfig, Picker, Pool};
use mainstay::cache::CacheLayer;
use mainstay::circuit_breaker::{
    AdmissionMode, CircuitBreakerConfig, CircuitBreakerHandle, CircuitBreakerLayer, OpenTime, Window,
};
use mainstay::health::Monitor;
use mainstay::http::{HttpClassifier, PropagateLayer};
use mainstay::retry::RetryLayer;
use mainstay::telemetry::TelemetryLayer;
use mainstay::timeout::{TimeoutKind, TimeoutLayer};
use mainstay::{BoxError, CircuitState, Outcome, Rejectable, Rejected};
use tokio::sync::Semaphore;
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

use crate::application::{Cached, Database, NoCache};
use crate::balancer::{Members, PoolMembers, Server, ServerPool, Servers};
use crate::baselines::naive::RoundRobin;
use crate::faults::{Faults, FaultyStore};
use crate::flags::Mode;
use crate::net::{Body, HttpClient, HttpStack};
use crate::part::{Assignment, Part, Role};
use crate::variant::{Family, Variant};

// The times nest: an application server gives up on its database before the balancer gives up on the server, and then there
// is time left for another attempt before the user is owed an answer. The baselines have the same ones.
pub(crate) const USER_DEADLINE: Duration = Duration::from_secs(3);
pub(crate) const SERVER_ATTEMPT: Duration = Duration::from_secs(1);
pub(crate) const DATABASE_DEADLINE: Duration = Duration::from_millis(700);
pub(crate) const DATABASE_ATTEMPT: Duration = Duration::from_millis(300);
/// How long a call waits for the circuit of the database: enough for a restart that takes 300 ms, and less than
/// [`DATABASE_DEADLINE`], so that some of it is left for the call. The queues of three servers together stay well below
/// [`in_flight_limit`]: reads that wait for the database must not keep cached ones out.
const DATABASE_WAIT: AdmissionMode = AdmissionMode::Wait { max: Duration::from_millis(600), queue: 20 };

/// Writes that wait for the circuit at once, in each server. It gets ten per second, so most of them are rejected at once while
/// the database stalls.
const WAITING_WRITES: usize = 1;

/// Requests that the balancer has under way at once; what comes beyond that is refused. A third of a second's worth: enough
/// for all that may hang while the database does, and little enough that the wait for a worker stays short, since the servers
/// can do twice the planned rate.
pub(crate) fn in_flight_limit(rate: u32) -> usize {
    (rate as usize / 3).max(90)
}

/// How long a cached answer is fresh. A server hears of the writes that go through it, but not of its siblings'.
pub(crate) const CACHE_TTL: Duration = Duration::from_secs(2);

/// How long an old answer may stand in where the database does not answer; it is marked then.
pub(crate) const CACHE_STALE: Duration = Duration::from_secs(60);

/// 1. The load balancer: what it does with a user's request, whichever server gets it.
fn in_front_of_servers(
    servers: &[(String, SocketAddr)],
    rate: u32,
    without: Option<Family>,
) -> anyhow::Result<Servers> {
    let with = |family| without != Some(family);
    let (pool, members): (HttpStack, Arc<dyn Members>) = if with(Family::Pool) {
        let (pool, members) = pool_of_servers(servers, with(Family::Health))?;
        (HttpStack::new(pool), Arc::new(members))
    } else {
        let turns = RoundRobin::new(calls_of_server);
        servers.iter().try_for_each(|(name, address)| turns.add(name, *address))?;
        (HttpStack::new(turns.clone()), Arc::new(turns))
    };
    let retry = RetryLayer::builder("servers")
        .http()
        .classify(by_status())
        .backoff(BackoffConfig::exponential(Duration::from_millis(5)))
        .build()?;
    let stack = ServiceBuilder::new()
        .layer(TelemetryLayer::new("user-requests").classify(by_status()))
        .load_shed()
        .concurrency_limit(in_flight_limit(rate))
        .layer(TimeoutLayer::total("user-deadline", USER_DEADLINE)?)
        .map_request(count(&counts::FORWARDED))
        .option_layer(with(Family::Retry).then_some(retry))
        .service(pool);
    Ok(Servers::new(HttpStack::new(stack), members))
}

/// 2. The pool: which server gets it. Probes, ejection and load decide.
fn pool_of_servers(servers: &[(String, SocketAddr)], probed: bool) -> anyhow::Result<(ServerPool, PoolMembers)> {
    let mut ejection = EjectionConfig::default();
    ejection.consecutive_failures = 3;
    ejection.base_time = Duration::from_millis(500);
    let mut breaker = CircuitBreakerConfig::default();
    breaker.window = Window::Count { calls: 20 };
    (breaker.failure_rate, breaker.minimum_calls) = (Some(0.3), 10);
    breaker.open_time = OpenTime::Constant(Duration::from_millis(500));
    let pool = Pool::builder("servers")
        .classify(by_status())
        .ejection(ejection)
        .circuit_breaker(breaker)
        // By calls in flight: a server that hangs shows at once, before a single latency is known. What a failure costs is
        // forgotten soon: on loopback, half a second ago is long ago.
        .picker(Picker::InFlight)
        .decay(Duration::from_millis(300))
        .listener(balancer::announce)
        .build()?;
    let probes = Monitor::builder("servers")
        .interval(Duration::from_millis(200))
        .fast_interval(Duration::from_millis(50))
        .timeout(Duration::from_millis(200))
        .build()?;
    let members = PoolMembers::new(pool.handle(), probed.then_some(probes), servers)?;
    Ok((pool, members))
}

/// 3. One server of the pool: an attempt may take so long, and tells the server how much time is left.
pub(crate) fn calls_of_server(name: &str, address: SocketAddr) -> anyhow::Result<Server> {
    let client = ServiceBuilder::new()
        .layer(TimeoutLayer::attempt("server-attempt", SERVER_ATTEMPT)?)
        .layer(PropagateLayer::new())
        .service(HttpClient::new(address));
    Ok(Server::new(name, client))
}

/// 4. An application server: reads come from the cache, if it has them. One load for each key at a time, and an old answer
///    rather than none.
fn in_front_of_database(address: SocketAddr, without: Option<Family>, faults: Faults) -> anyhow::Result<Database> {
    let (database, breaker) = calls_of_database(address, without)?;
    let circuit = move || breaker.as_ref().map_or(CircuitState::Closed, CircuitBreakerHandle::state);
    let cache = CacheLayer::builder("answers")
        .key(|request: &Request<Body>| Some(request.uri().path().to_owned()))
        .store(FaultyStore::new(10_000, faults))
        .classify(by_status())
        .ttl(CACHE_TTL)
        .load_timeout(SERVER_ATTEMPT)
        .stale_if_error(CACHE_STALE)
        .soft_load_timeout(Duration::from_millis(200))
        .store_backoff(Duration::from_millis(200))
        .max_store_backoff(Duration::from_millis(400))
        .on_served(application::say_how_it_was_served)
        .build()?;
    let handle: Arc<dyn Cached> =
        if without == Some(Family::Cache) { Arc::new(NoCache) } else { Arc::new(cache.handle()) };
    let reads = ServiceBuilder::new()
        .option_layer((without != Some(Family::Cache)).then_some(cache))
        .map_request(application::announce_miss)
        .service(database.clone());
    // A read waits for the circuit, and its answer serves many. So does one write; the users of others get a quick 503 instead.
    let places = Arc::new(Semaphore::new(WAITING_WRITES));
    let writes = tower::service_fn(move |request| {
        let (mut database, places) = (database.clone(), places.clone());
        async move {
            match database.ready().now_or_never() {
                Some(ready) => drop(ready?),
                None => {
                    let _place = places.try_acquire().map_err(|_| BoxError::from_rejected(Rejected::shed()))?;
                    database.ready().await?;
                }
            }
            database.call(request).await
        }
    });
    Ok(Database::new(HttpStack::new(reads), HttpStack::new(writes), handle, circuit))
}

/// 5. What the cache does not have, and what is written, goes to the database: for all of it there is one breaker.
fn calls_of_database(
    address: SocketAddr,
    without: Option<Family>,
) -> anyhow::Result<(HttpStack, Option<CircuitBreakerHandle>)> {
    let retry = RetryLayer::builder("database").http().max_attempts(2).build()?;
    let breaker = CircuitBreakerLayer::builder("database")
        .classify(HttpClassifier::new())
        .consecutive_failures(3)
        .open_time(OpenTime::Constant(Duration::from_millis(200)))
        // A probe that fails is a call of a user, and one that succeeds is enough to go by.
        .probes(1)
        .admission(DATABASE_WAIT)
        .build()?;
    let breaker = (without != Some(Family::Breaker)).then_some(breaker);
    let handle = breaker.as_ref().map(CircuitBreakerLayer::handle);
    // The wait for the circuit counts.
    let database_deadline = TimeoutLayer::builder("database-deadline")
        .kind(TimeoutKind::Total)
        .timeout(DATABASE_DEADLINE)
        .include_readiness(true)
        .build()?;
    let stack = ServiceBuilder::new()
        .map_request(count(&counts::DATABASE_CALLS))
        .layer(database_deadline)
        .option_layer((without != Some(Family::Retry)).then_some(retry))
        .option_layer(breaker)
        .layer(TimeoutLayer::attempt("database-attempt", DATABASE_ATTEMPT)?)
        .layer(PropagateLayer::new())
        .map_request(count(&counts::DATABASE_ATTEMPTS))
        .service(HttpClient::new(address));
    Ok((HttpStack::new(stack), handle))
}

/// What statuses mean here. A 500 may be one server's own trouble, and all requests of this flow may be sent twice.
fn by_status() -> HttpClassifier {
    HttpClassifier::new().on_status(StatusCode::INTERNAL_SERVER_ERROR, Outcome::Transient)
}

/// Counts what comes by, for the report.
fn count(count: &'static counts::Count) -> impl Fn(Request<Body>) -> Request<Body> + Clone + Send + Sync + 'static {
    move |request| {
        count.add();
        request
    }
}

fn main() -> ExitCode {
    let ended = match flags::parse(std::env::args().skip(1)) {
        Ok(Mode::Help) => {
            print!("{}", flags::help());
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("error: {message}; --help lists the flags");
            return ExitCode::from(2);
        }
        // One thread: the children ask the kernel to die with the thread that started them.
        Ok(Mode::Run(flags)) => block_on(&mut tokio::runtime::Builder::new_current_thread(), run::run(&flags)),
        Ok(Mode::Part(assignment)) => block_on(&mut tokio::runtime::Builder::new_current_thread(), be(&assignment)),
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
            Role::Balancer { variant, servers, rate } => {
                let servers = match variant {
                    Variant::Mainstay { without } => in_front_of_servers(&servers, rate, without)?,
                    Variant::Naive => baselines::naive::servers(&servers)?,
                    Variant::Tower => baselines::tower::servers(&servers, rate)?,
                };
                balancer::run(part, commands, servers).await
            }
            Role::Application { variant, database, work } => {
                let faults = Faults::default();
                let database = match variant {
                    Variant::Mainstay { without } => in_front_of_database(database, without, faults.clone())?,
                    Variant::Naive => baselines::naive::database(database)?,
                    Variant::Tower => baselines::tower::database(database, faults.clone())?,
                };
                application::run(part, commands, database, faults, work).await
            }
            Role::Database { careless, backups } => database::run(part, careless, backups).await,
            Role::Load { target, rate, seed } => load::run(part, commands, target, rate, seed).await,
            Role::Janitor => unreachable!("handled above"),
        }
    };
    ended.await.map_err(|error| error.context(name))?;
    Ok(ExitCode::SUCCESS)
}
