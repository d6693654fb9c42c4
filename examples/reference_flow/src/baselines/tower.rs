//! The second baseline: what a competent team builds of tower 0.5 alone, and of moka for the cache.
//!
//! It has the timeouts of mainstay's flow, load shedding above a limit of what is in flight, retries with tower's budget
//! and jittered backoff, the least loaded of two random servers (p2c), and a cache-aside with a time to live.
//!
//! It has no probes, ejection or breaker (tower has none), so a server that fails stays in. It passes no deadline on, heeds
//! no `Retry-After`, asks a sibling even when the database behind all of them has failed, loads a key once for each
//! reader that misses it, and has no old answer for when a load fails.
//!
//! Servers are weighed by requests in flight, not by `PeakEwma`. To both a failure is a completion, but to `PeakEwma` it is
//! also a low latency: a killed server, which refuses within microseconds, comes to win nearly every draw that it is in
//! and uses up the retry budget (with one server of three killed, `PeakEwma` fails about twice as many requests). With
//! requests in flight it wins ties only. The price: a slow server is asked again as soon as it has nothing in flight.

mod cache;
mod policy;

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Request;
use mainstay::CircuitState;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::ServiceBuilder;
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PendingRequests};

use self::cache::{CacheAside, Kept};
use self::policy::RetryPolicy;
use super::calls_of_server;
use crate::application::{self, Database};
use crate::balancer::{Members, Server, Servers};
use crate::faults::Faults;
use crate::net::{Body, HttpClient, HttpStack};
use crate::{DATABASE_ATTEMPT, DATABASE_DEADLINE, USER_DEADLINE, counts, in_flight_limit};

/// Attempts for a user's request, the first included.
const SERVER_ATTEMPTS: u32 = 3;

/// Attempts for a call of the database, the first included.
const DATABASE_ATTEMPTS: u32 = 2;

/// Calls of the database that one application server has in flight at most.
const DATABASE_LIMIT: usize = 64;

type Loaded = PendingRequests<Server>;

/// The load balancer. Must be called within a runtime: the buffer's worker is a task.
pub(crate) fn servers(servers: &[(String, SocketAddr)], rate: u32) -> anyhow::Result<Servers> {
    let (members, changes) = Discovered::new();
    servers.iter().try_for_each(|(name, address)| members.add(name, *address))?;
    let balance = Balance::new(changes.map(Ok::<_, Infallible>));
    let stack = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(in_flight_limit(rate))
        .map_request(|request: Request<Body>| {
            counts::FORWARDED.add();
            request
        })
        .timeout(USER_DEADLINE)
        .retry(RetryPolicy::new(SERVER_ATTEMPTS))
        // `Balance` cannot be cloned. There is a place for all that may be in flight: the limit above is what turns away.
        .service(Buffer::new(balance, in_flight_limit(rate)));
    Ok(Servers::new(HttpStack::new(stack), Arc::new(members)))
}

/// An application server: reads come from the cache, if it has them; all other calls share one limit and one budget.
pub(crate) fn database(address: SocketAddr, faults: Faults) -> anyhow::Result<Database> {
    let calls = ServiceBuilder::new()
        .map_request(|request: Request<Body>| {
            counts::DATABASE_CALLS.add();
            request
        })
        .load_shed()
        .concurrency_limit(DATABASE_LIMIT)
        .timeout(DATABASE_DEADLINE)
        .retry(RetryPolicy::new(DATABASE_ATTEMPTS))
        .timeout(DATABASE_ATTEMPT)
        .map_request(|request: Request<Body>| {
            counts::DATABASE_ATTEMPTS.add();
            request
        })
        .service(HttpClient::new(address));
    let calls = HttpStack::new(calls);
    let kept = Kept::new(faults);
    let loads = ServiceBuilder::new().map_request(application::announce_miss).service(calls.clone());
    let reads = CacheAside::new(kept.clone(), HttpStack::new(loads));
    Ok(Database::new(HttpStack::new(reads), calls, Arc::new(kept), || CircuitState::Closed))
}

/// The balancer's members: whatever was added and not removed, well or not.
#[derive(Debug)]
struct Discovered {
    names: Mutex<HashSet<String>>,
    changes: mpsc::UnboundedSender<Change<String, Loaded>>,
}

// === impl Discovered ===

impl Discovered {
    fn new() -> (Self, UnboundedReceiverStream<Change<String, Loaded>>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        (Self { names: Mutex::default(), changes }, UnboundedReceiverStream::new(receiver))
    }
}

impl Members for Discovered {
    fn add(&self, name: &str, address: SocketAddr) -> anyhow::Result<()> {
        let server = PendingRequests::new(calls_of_server(name, address), CompleteOnResponse::default());
        // Changes are sent in the order in which the names change.
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.send(Change::Insert(name.to_owned(), server)).map_err(|_| anyhow::anyhow!("no balancer"))?;
        names.insert(name.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that the balancer is gone, and its members with it.
        let _ = self.changes.send(Change::Remove(name.to_owned()));
        names.remove(name);
    }

    fn usable(&self) -> usize {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
