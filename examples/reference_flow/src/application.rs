//! One application server: users, sessions and records to read and write, cached in front of the database service.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use mainstay::cache::{CacheHandle, Served, Store};
use mainstay::health::{HealthReport, Role};
use mainstay::http::{AcceptContextLayer, mark_dependency_failed};
use mainstay::{BoxError, CircuitState, Rejectable as _};
use tokio::sync::{Semaphore, mpsc};
use tower::ServiceExt as _;

use crate::counts;
use crate::faults::Faults;
use crate::net::{BODY_LIMIT, Body, CACHE, HttpStack, REQUEST_ID, SERVED_BY};
use crate::part::{Command, Notice, Part};
use crate::walk::{Event, Step};

/// How many requests a server works on at once; the others wait their turn.
pub(crate) const WORKERS: usize = 2;

/// The database, as an application server sees it: behind a cache for what it reads.
#[derive(Clone)]
pub(crate) struct Database {
    reads: HttpStack,
    writes: HttpStack,
    cache: Arc<dyn Cached>,
    /// What the circuit to it is like; closed where there is none.
    circuit: Arc<dyn Fn() -> CircuitState + Send + Sync>,
}

/// What is kept of the database's answers, by path.
pub(crate) trait Cached: Send + Sync + 'static {
    fn forget<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), BoxError>>;

    fn clear(&self) -> BoxFuture<'_, Result<(), BoxError>>;

    /// How many reads have waited for another read's load.
    fn coalesced(&self) -> u64;
}

/// Where nothing is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoCache;

#[derive(Clone)]
struct Application {
    name: HeaderValue,
    database: Database,
    faults: Faults,
    workers: Arc<Semaphore>,
    work: Duration,
}

pub(crate) async fn run(
    part: Part,
    commands: mpsc::Receiver<Command>,
    database: Database,
    faults: Faults,
    work: Duration,
) -> anyhow::Result<()> {
    let report = HealthReport::new(part.assignment.name.clone());
    // All servers share it: a database that fails makes none of them unready, they still answer what they have cached.
    let circuit = Arc::clone(&database.circuit);
    report.add_check("database", Role::Shared, move || match circuit() {
        CircuitState::Closed => Ok(()),
        state => Err(format!("the circuit is {state}")),
    })?;
    let cache = Arc::clone(&database.cache);
    let _ = counts::COALESCED.set(Box::new(move || cache.coalesced()));
    tokio::spawn(obey(commands, faults.clone(), Arc::clone(&database.cache)));
    let workers = Arc::new(Semaphore::new(WORKERS));
    let application = Application { name: part.assignment.name.parse()?, database, faults, workers, work };
    let routes = Router::new()
        .route("/users", post(write))
        .route("/users/{user}", get(read))
        .route("/users/{user}/sessions", get(read).post(write))
        .route("/users/{user}/records/{name}", get(read).put(write))
        .route_layer(from_fn_with_state(application.clone(), work_on))
        // The balancer is trusted: its deadline holds in here, too.
        .route_layer(AcceptContextLayer::default())
        .with_state(application);
    part.serve(routes, report).await
}

async fn obey(mut commands: mpsc::Receiver<Command>, faults: Faults, cache: Arc<dyn Cached>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Fault(fault) => faults.set(fault),
            Command::EmptyCache => {
                if let Err(error) = cache.clear().await {
                    tracing::error!(%error, "the cache cannot be emptied");
                }
            }
            other => tracing::error!(?other, "no command for an application server"),
        }
        Notice::Done.send();
    }
}

/// What every request costs a server, besides what it asks of others: one of its few workers, for a while. So it is the
/// servers that limit the flow, as in production, and not the machine that all of them share here.
async fn work_on(State(application): State<Application>, request: Request, next: Next) -> Response {
    if let Err(status) = application.faults.request().await {
        let mut response = (status, "out of order, on purpose\n").into_response();
        response.headers_mut().insert(SERVED_BY, application.name.clone());
        return response;
    }
    {
        let _worker = application.workers.acquire().await.expect("never closed");
        tokio::time::sleep(application.work).await;
    }
    next.run(request).await
}

/// From the cache, or through it from the database.
async fn read(State(application): State<Application>, request: Request) -> Response {
    let id = request.headers().get(REQUEST_ID).cloned();
    let Ok(request) = buffered(request).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let answer = application.answer(application.database.reads.clone().oneshot(request).await);
    if answer.headers().get(CACHE).is_some_and(|how| how == "miss") {
        Step::announce(id.as_ref(), || Event::Stored);
    }
    answer
}

/// To the database; then what was cached of it is forgotten.
async fn write(State(application): State<Application>, request: Request) -> Response {
    let Ok(request) = buffered(request).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let path = request.uri().path().to_owned();
    let answer = application.database.writes.clone().oneshot(request).await;
    // A write that timed out may still have been applied; one that was never sent has changed nothing.
    let never_sent = matches!(&answer, Err(error) if error.as_rejected().is_some_and(|rejected| !rejected.was_sent()));
    if !never_sent && let Err(error) = application.database.cache.forget(&path).await {
        tracing::warn!(%error, "the cache keeps an old answer until it expires");
    }
    application.answer(answer)
}

/// The cache's word on how it came by an answer, for the caller to see.
pub(crate) fn say_how_it_was_served(answer: &mut http::Response<Body>, served: Served) {
    let how = match served {
        Served::Hit { .. } | Served::NegativeHit { .. } => "hit",
        Served::Stale { .. } => "stale",
        _ => "miss",
    };
    answer.headers_mut().insert(CACHE, HeaderValue::from_static(how));
}

/// A request that gets below the cache was not answered from it.
pub(crate) fn announce_miss(request: http::Request<Body>) -> http::Request<Body> {
    Step::announce(request.headers().get(REQUEST_ID), || Event::Missed);
    request
}

/// The request with its small body in memory, so that it can be sent again.
pub(crate) async fn buffered(request: Request) -> Result<http::Request<Body>, axum::Error> {
    let (head, body) = request.into_parts();
    Ok(http::Request::from_parts(head, to_bytes(body, BODY_LIMIT).await?))
}

/// An error without what differs from call to call, such as the time left to wait.
pub(crate) fn in_few_words(error: &BoxError) -> String {
    match error.as_rejected() {
        Some(rejected) => rejected.kind().replace('_', " "),
        None => error.to_string(),
    }
}

// === impl Database ===

impl Database {
    pub(crate) fn new(
        reads: HttpStack,
        writes: HttpStack,
        cache: Arc<dyn Cached>,
        circuit: impl Fn() -> CircuitState + Send + Sync + 'static,
    ) -> Self {
        Self { reads, writes, cache, circuit: Arc::new(circuit) }
    }
}

// === impl Cached ===

impl<S: Store<String, http::Response<Body>>> Cached for CacheHandle<String, http::Response<Body>, S> {
    fn forget<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move { Ok(self.invalidate(&path.to_owned()).await?) })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move { Ok(CacheHandle::clear(self).await?) })
    }

    fn coalesced(&self) -> u64 {
        self.statistics().coalesced
    }
}

impl Cached for NoCache {
    fn forget<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }

    fn coalesced(&self) -> u64 {
        0
    }
}

// === impl Application ===

impl Application {
    /// What the caller gets: the database's answer, or "what I depend on has failed" (so that the balancer neither
    /// ejects this server nor asks its siblings, which share the database).
    fn answer(&self, answer: Result<http::Response<Body>, BoxError>) -> Response {
        let mut response = match answer {
            Ok(answer) if !answer.status().is_server_error() => {
                let (head, body) = answer.into_parts();
                let mut response = (head.status, body).into_response();
                for name in [header::CONTENT_TYPE, CACHE] {
                    if let Some(value) = head.headers.get(&name) {
                        response.headers_mut().insert(name, value.clone());
                    }
                }
                response
            }
            failed => {
                let why = match failed {
                    Ok(answer) => format!("the database answered {}", answer.status()),
                    Err(error) => format!("no answer from the database: {}", in_few_words(&error)),
                };
                tracing::warn!(why, "database failed");
                let mut response = (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response();
                mark_dependency_failed(&mut response);
                response
            }
        };
        response.headers_mut().insert(SERVED_BY, self.name.clone());
        response
    }
}
