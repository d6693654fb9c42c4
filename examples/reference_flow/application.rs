//! One application server: users, sessions and records to read and write, cached in front of the database service.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use mainstay::cache::{CacheHandle, MemoryStore, Served};
use mainstay::circuit_breaker::CircuitBreakerHandle;
use mainstay::health::{HealthReport, Role};
use mainstay::http::{AcceptContextLayer, mark_dependency_failed};
use mainstay::{BoxError, CircuitState, Rejectable as _};
use tower::ServiceExt as _;

use crate::net::{BODY_LIMIT, Body, CACHE, HttpStack, REQUEST_ID, SERVED_BY};
use crate::part::Part;
use crate::walk::{Event, Step};

/// The database, as an application server sees it: behind a cache for what it reads.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    reads: HttpStack,
    writes: HttpStack,
    cache: Cache,
    breaker: CircuitBreakerHandle,
}

/// Answers by path.
type Cache = CacheHandle<String, http::Response<Body>, MemoryStore<String, http::Response<Body>>>;

#[derive(Clone, Debug)]
struct Application {
    name: HeaderValue,
    database: Database,
}

pub(crate) async fn run(part: Part, database: Database) -> anyhow::Result<()> {
    let report = HealthReport::new(part.assignment.name.clone());
    // All servers share it: a database that fails makes none of them unready, they still answer what they have cached.
    let breaker = database.breaker.clone();
    report.add_check("database", Role::Shared, move || match breaker.state() {
        CircuitState::Closed => Ok(()),
        state => Err(format!("the circuit is {state}")),
    })?;
    let application = Application { name: part.assignment.name.parse()?, database };
    let routes = Router::new()
        .route("/users", post(write))
        .route("/users/{user}", get(read))
        .route("/users/{user}/sessions", get(read).post(write))
        .route("/users/{user}/records/{name}", get(read).put(write))
        // The balancer is trusted: its deadline holds in here, too.
        .route_layer(AcceptContextLayer::default())
        .with_state(application);
    part.serve(routes, report).await
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
    // Whatever the answer was: a write that timed out may still have been applied.
    if let Err(error) = application.database.cache.invalidate(&path).await {
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
    pub(crate) fn new(reads: HttpStack, writes: HttpStack, cache: Cache, breaker: CircuitBreakerHandle) -> Self {
        Self { reads, writes, cache, breaker }
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
