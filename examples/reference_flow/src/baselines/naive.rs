//! The first baseline: round robin and timeouts.
//!
//! It has the timeouts of mainstay's flow: of the user's request, of a call of a server, and of a call of the database.
//! It has no retries, no probes, no ejection, no breaker, no limit of what is in flight, no cache, and it passes no
//! deadline on: every server gets its turn, whether it answers or not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use futures_util::future::{self, BoxFuture, FutureExt as _};
use http::{Request, Response};
use mainstay::{BoxError, CircuitState};
use tower::{Service, ServiceBuilder};

use super::calls_of_server;
use crate::application::{Database, NoCache};
use crate::balancer::{Members, Server, Servers};
use crate::net::{Body, HttpClient, HttpStack};
use crate::{DATABASE_ATTEMPT, USER_DEADLINE, counts};

/// The load balancer: the next server's turn, once.
pub(crate) fn servers(servers: &[(String, SocketAddr)]) -> anyhow::Result<Servers> {
    let turns = RoundRobin::new(|name, address| Ok(calls_of_server(name, address)));
    servers.iter().try_for_each(|(name, address)| turns.add(name, *address))?;
    let stack = ServiceBuilder::new()
        .map_request(|request: Request<Body>| {
            counts::FORWARDED.add();
            request
        })
        .timeout(USER_DEADLINE)
        .service(turns.clone());
    Ok(Servers::new(HttpStack::new(stack), Arc::new(turns)))
}

/// An application server: every read and every write is one call of the database.
pub(crate) fn database(address: SocketAddr) -> anyhow::Result<Database> {
    let calls = ServiceBuilder::new()
        .map_request(|request: Request<Body>| {
            // There is one attempt for each call.
            counts::DATABASE_CALLS.add();
            counts::DATABASE_ATTEMPTS.add();
            request
        })
        .timeout(DATABASE_ATTEMPT)
        .service(HttpClient::new(address));
    let calls = HttpStack::new(calls);
    Ok(Database::new(calls.clone(), calls, Arc::new(NoCache), || CircuitState::Closed))
}

/// Each request goes to the next member in turn, whatever became of those before. Clones share members and turns.
pub(crate) struct RoundRobin {
    shared: Arc<Shared>,
    /// The member whose turn it is, once it was asked whether it is ready.
    chosen: Option<Server>,
}

struct Shared {
    client: fn(&str, SocketAddr) -> anyhow::Result<Server>,
    members: RwLock<Vec<(String, Server)>>,
    turn: AtomicUsize,
}

// === impl RoundRobin ===

impl RoundRobin {
    /// Without members so far; `client` makes what calls one.
    pub(crate) fn new(client: fn(&str, SocketAddr) -> anyhow::Result<Server>) -> Self {
        let shared = Shared { client, members: RwLock::default(), turn: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared), chosen: None }
    }

    fn next(&self) -> Option<Server> {
        let members = self.shared.members.read().unwrap_or_else(PoisonError::into_inner);
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let (_, server) = members.get(turn.checked_rem(members.len())?)?;
        Some(server.clone())
    }
}

impl Clone for RoundRobin {
    /// A clone has a turn of its own: what one was found ready must not be called by another.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), chosen: None }
    }
}

impl Members for RoundRobin {
    fn add(&self, name: &str, address: SocketAddr) -> anyhow::Result<()> {
        let server = (self.shared.client)(name, address)?;
        let mut members = self.shared.members.write().unwrap_or_else(PoisonError::into_inner);
        match members.iter_mut().find(|(known, _)| known == name) {
            Some(member) => member.1 = server,
            None => members.push((name.to_owned(), server)),
        }
        Ok(())
    }

    fn remove(&self, name: &str) {
        self.shared.members.write().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != name);
    }

    fn usable(&self) -> usize {
        self.shared.members.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Service<Request<Body>> for RoundRobin {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.chosen.is_none() {
            self.chosen = self.next();
        }
        if let Some(server) = &mut self.chosen
            && let Err(error) = ready!(server.poll_ready(cx))
        {
            self.chosen = None;
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.chosen.take() {
            Some(mut server) => server.call(request),
            // Not an error of `poll_ready`: that would be for good, and members may come.
            None => future::err("there is no server".into()).boxed(),
        }
    }
}

impl fmt::Debug for RoundRobin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundRobin").field("members", &self.usable()).finish_non_exhaustive()
    }
}
