//! The load balancer: an HTTP server that passes every request on to one of the application servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use mainstay::balance::{Pool, PoolHandle};
use mainstay::health::{HealthReport, HttpProbe, Monitor, Role};
use mainstay::telemetry::Event as TelemetryEvent;
use mainstay::telemetry::event::BalanceEventKind;
use mainstay::{BoxError, HttpClassifier, context};
use tokio::sync::mpsc;
use tower::load_shed::error::Overloaded;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use crate::application::{buffered, in_few_words};
use crate::clock::Moment;
use crate::net::{ATTEMPT, Body, HttpStack, REQUEST_ID};
use crate::part::{Command, Notice, Part};
use crate::walk::{Event, Step};
use crate::{calls_of_server, counts};

/// The application servers, as the balancer sees them.
#[derive(Clone)]
pub(crate) struct Servers {
    stack: HttpStack,
    members: Arc<dyn Members>,
}

/// Who belongs to the servers: what a service registry would tell.
pub(crate) trait Members: Send + Sync + 'static {
    fn add(&self, name: &str, address: SocketAddr) -> anyhow::Result<()>;

    fn remove(&self, name: &str);

    /// How many of them may get requests.
    fn usable(&self) -> usize;
}

/// mainstay's pool and its probes. Judged by status, like everything else in this example.
pub(crate) struct PoolMembers {
    pool: PoolHandle<String, Server>,
    /// The probes run for as long as this lives; `None` without them.
    probes: Option<Monitor<String>>,
}

pub(crate) type ServerPool = Pool<String, Server, HttpClassifier>;

/// One application server; says which attempt was sent to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    name: Arc<str>,
    client: HttpStack,
}

pub(crate) async fn run(part: Part, mut commands: mpsc::Receiver<Command>, servers: Servers) -> anyhow::Result<()> {
    let report = HealthReport::new("balancer");
    let members = Arc::clone(&servers.members);
    report.add_check("servers", Role::Critical, move || match members.usable() {
        0 => Err("no server may be used"),
        _ => Ok(()),
    })?;
    let members = Arc::clone(&servers.members);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Add { name, address } => {
                    if let Err(error) = members.add(&name, address) {
                        tracing::error!(name, %error, "cannot be added");
                    }
                }
                Command::Remove { name } => members.remove(&name),
                other => tracing::error!(?other, "no command for a balancer"),
            }
            Notice::Done.send();
        }
    });
    let routes = Router::new().route("/", get(async || Html(PAGE))).fallback(forward).with_state(servers);
    part.serve(routes, report).await
}

async fn forward(State(servers): State<Servers>, request: Request) -> Response {
    let Ok(request) = buffered(request).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    match servers.stack.oneshot(request).await {
        Ok(answer) => answer.map(Into::into),
        // More than can be worked on: a quick no, and a word on when to come again.
        Err(error) if error.is::<Overloaded>() => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "too many requests\n").into_response()
        }
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
        Notice::Server { name: endpoint.to_owned(), usable: eligible, change, at: Moment::now() }.send();
    }
}

// === impl Servers ===

impl Servers {
    pub(crate) fn new(stack: HttpStack, members: Arc<dyn Members>) -> Self {
        Self { stack, members }
    }
}

// === impl PoolMembers ===

impl PoolMembers {
    /// Starts the probes, and lets what they find decide where requests may go.
    pub(crate) fn new(
        pool: PoolHandle<String, Server>,
        probes: Option<Monitor<String>>,
        servers: &[(String, SocketAddr)],
    ) -> anyhow::Result<Self> {
        if let Some(probes) = &probes {
            tokio::spawn(pool.follow_health(probes.subscribe()));
            probes.start()?;
        }
        let members = Self { pool, probes };
        servers.iter().try_for_each(|(name, address)| members.add(name, *address))?;
        Ok(members)
    }
}

impl Members for PoolMembers {
    fn add(&self, name: &str, address: SocketAddr) -> anyhow::Result<()> {
        self.pool.add(name.to_owned(), calls_of_server(name, address)?);
        if let Some(probes) = &self.probes {
            probes.add(name.to_owned(), HttpProbe::new(format!("http://{address}/readyz"))?);
        }
        Ok(())
    }

    fn remove(&self, name: &str) {
        self.pool.remove(&name.to_owned());
        if let Some(probes) = &self.probes {
            probes.remove(&name.to_owned());
        }
    }

    fn usable(&self) -> usize {
        self.pool.statistics().usable
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
        counts::ATTEMPTS.add();
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
