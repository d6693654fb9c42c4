//! The load balancer: an HTTP server that passes every request on to one of the application servers.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use mainstay::balance::{Pool, PoolHandle};
use mainstay::health::{HealthReport, Monitor, Role};
use mainstay::telemetry::Event as TelemetryEvent;
use mainstay::telemetry::event::BalanceEventKind;
use mainstay::{BoxError, HttpClassifier, context};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use crate::application::{buffered, in_few_words};
use crate::net::{ATTEMPT, Body, HttpStack, REQUEST_ID};
use crate::part::{Notice, Part};
use crate::walk::{Event, Step};

/// The application servers, as the balancer sees them.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    stack: HttpStack,
    pool: PoolHandle<String, Server>,
    /// The probes run for as long as this lives.
    _probes: Arc<Monitor<String>>,
}

/// Judged by status, like everything else in this example.
pub(crate) type ServerPool = Pool<String, Server, HttpClassifier>;

/// One application server; says which attempt was sent to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    name: Arc<str>,
    client: HttpStack,
}

pub(crate) async fn run(part: Part, servers: Servers) -> anyhow::Result<()> {
    let report = HealthReport::new("balancer");
    let pool = servers.pool.clone();
    report.add_check("servers", Role::Critical, move || match pool.statistics().usable {
        0 => Err("no server may be used"),
        _ => Ok(()),
    })?;
    let routes = Router::new().route("/", get(async || Html(PAGE))).fallback(forward).with_state(servers);
    part.serve(routes, report).await
}

async fn forward(State(servers): State<Servers>, request: Request) -> Response {
    let Ok(request) = buffered(request).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    match servers.stack.oneshot(request).await {
        Ok(answer) => answer.map(Into::into),
        Err(error) => {
            tracing::warn!(%error, "no server answered");
            (StatusCode::SERVICE_UNAVAILABLE, format!("no server answered: {}\n", in_few_words(&error))).into_response()
        }
    }
}

/// Tells the parent and the log what the pool makes of its servers.
pub(crate) fn announce(event: &TelemetryEvent<'_>) {
    tracing::info!("{event}");
    if let TelemetryEvent::Balance(event) = event
        && let BalanceEventKind::EligibilityChanged { endpoint, eligible, reason } = event.kind
    {
        let change = if eligible { "is in again".to_owned() } else { format!("is out: {reason}") };
        Notice::Server { name: endpoint.to_owned(), change }.send();
    }
}

// === impl Servers ===

impl Servers {
    /// Starts the probes, and lets what they find decide where requests may go.
    pub(crate) fn new(
        stack: HttpStack,
        pool: PoolHandle<String, Server>,
        probes: Monitor<String>,
    ) -> anyhow::Result<Self> {
        tokio::spawn(pool.follow_health(probes.subscribe()));
        probes.start()?;
        Ok(Self { stack, pool, _probes: Arc::new(probes) })
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn new<S>(name: &str, client: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self { name: name.into(), client: BoxCloneSyncService::new(client) }
    }
}

impl Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let attempt = context::current().attempt();
        Step::announce(request.headers().get(REQUEST_ID), || Event::Chose { server: self.name.to_string() });
        let answer = self.client.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            answer.headers_mut().insert(ATTEMPT, HeaderValue::from(attempt));
            Ok(answer)
        })
    }
}

/// For a browser that opens the balancer's address.
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>mainstay reference flow</title>
<style>body{font:16px/1.6 system-ui;max-width:40em;margin:3em auto;padding:0 1em}</style>
<h1>mainstay reference flow</h1>
<p>This is the load balancer. Reload a link and watch <code>x-served-by</code> and <code>x-cache</code>
in the answer's headers.
<ul>
<li><a href=/users/1>/users/1</a>
<li><a href=/users/1/sessions>/users/1/sessions</a>
<li><a href=/users/1/records/greeting>/users/1/records/greeting</a>
<li><a href=/metrics>/metrics</a>, <a href=/readyz>/readyz</a>, <a href=/livez>/livez</a>
</ul>
";
