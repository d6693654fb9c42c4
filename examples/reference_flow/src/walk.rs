//! The eight steps of one request, printed as they happen.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::database::{NewSession, NewUser};
use crate::net::{self, CACHE, HttpClient, REQUEST_ID, SERVED_BY, header_text};
use crate::part::Notice;
use crate::storage::{BackupReport, User};
use crate::supervisor::Flow;

/// Parts announce what they do for a request whose id begins like this.
const WALK: &str = "walk-";

/// Something that a part did for the walked request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) request_id: String,
    pub(crate) event: Event,
}

/// What it did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The balancer chose a server.
    Chose { server: String },
    /// The application server did not find the answer in its cache.
    Missed,
    /// The database ran a query.
    Query { what: String, micros: u64 },
    /// The application server has the answer in its cache now.
    Stored,
}

// === impl Step ===

impl Step {
    /// Tells the parent, if `request_id` is the walk's.
    pub(crate) fn announce(request_id: Option<&HeaderValue>, event: impl FnOnce() -> Event) {
        if let Some(request_id) = request_id.and_then(|id| id.to_str().ok())
            && request_id.starts_with(WALK)
        {
            Notice::Step(Self { request_id: request_id.to_owned(), event: event() }).send();
        }
    }
}

/// Walks one request through the flow.
pub(crate) async fn walk(flow: &mut Flow, servers: usize) -> anyhow::Result<()> {
    let balancer = HttpClient::new(flow.address("balancer")?);
    let path = prepare(&balancer).await?;

    println!("\nOne request, step by step");
    let id = "walk-1";
    say(1, "request", &format!("GET {path} of the load balancer, request id {id}"));
    let started = Instant::now();
    let asked = tokio::spawn(ask(balancer.clone(), path.clone(), id));

    let server = flow
        .step(id, |event| match event {
            Event::Chose { server } => Some(server.clone()),
            _ => None,
        })
        .await?;
    say(2, "balancer", &format!("chose {server} of {servers} servers"));
    flow.step(id, |event| matches!(event, Event::Missed).then_some(())).await?;
    say(3, "cache", &format!("{server} does not have it: miss"));
    let (what, micros) = flow
        .step(id, |event| match event {
            Event::Query { what, micros } => Some((what.clone(), *micros)),
            _ => None,
        })
        .await?;
    say(4, "database", &format!("{what}: {}", millis(Duration::from_micros(micros))));
    flow.step(id, |event| matches!(event, Event::Stored).then_some(())).await?;
    let answer = asked.await??;
    let first = started.elapsed();
    anyhow::ensure!(answer.status() == StatusCode::OK, "the walked request got {}", answer.status());
    say(5, "cached", &format!("{server} keeps it and answers {} after {}", answer.status().as_u16(), millis(first)));

    second_request(&balancer, &path, first).await?;
    metrics(flow, id).await?;
    backup(flow).await
}

/// Asks again until the balancer picks a server that has the answer: every server has a cache of its own.
async fn second_request(balancer: &HttpClient, path: &str, first: Duration) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    for attempt in 2..20 {
        let started = Instant::now();
        let answer = ask(balancer.clone(), path.to_owned(), &format!("walk-{attempt}")).await?;
        let (taken, server) = (started.elapsed(), header_text(&answer, SERVED_BY).to_owned());
        if header_text(&answer, CACHE) == "hit" {
            say(6, "second request", &format!("{server} has it: hit, {} instead of {}", millis(taken), millis(first)));
            if !missed.is_empty() {
                say(0, "", &format!("({} missed first: each server has a cache of its own)", missed.join(" and ")));
            }
            return Ok(());
        }
        missed.push(server);
    }
    anyhow::bail!("no server answered from its cache; asked: {}", missed.join(", "))
}

async fn metrics(flow: &Flow, id: &str) -> anyhow::Result<()> {
    let (mut parts, mut series, mut own) = (0, 0, 0);
    for address in flow.addresses() {
        let page = HttpClient::new(address).get("/metrics").await.map_err(anyhow::Error::from_boxed)?;
        let page = String::from_utf8_lossy(page.body()).into_owned();
        let samples = || page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        parts += 1;
        series += samples().count();
        own += samples().filter(|line| line.starts_with("mainstay_")).count();
    }
    let logged = flow.logs_with(id)?;
    say(7, "metrics", &format!("{parts} parts answer /metrics: {series} series, {own} of them mainstay's own"));
    say(0, "", &format!("the logs of {} have {} lines with the id {id}", logged.parts.join(", "), logged.lines));
    Ok(())
}

async fn backup(flow: &Flow) -> anyhow::Result<()> {
    let database = HttpClient::new(flow.address("database")?);
    let started = Instant::now();
    let answer = send(&database, Method::POST, "/backup", Bytes::new()).await?;
    let taken = started.elapsed();
    let backup: BackupReport = serde_json::from_slice(answer.body()).context("no backup")?;
    let BackupReport { bytes, integrity, users, sessions, records, .. } = backup;
    let holds = format!("{users} user, {sessions} session, {records} record");
    say(
        8,
        "backup",
        &format!("{} KiB in {} while serving: {holds}, integrity {integrity}", bytes / 1024, millis(taken)),
    );
    Ok(())
}

/// Writes a user, a session and a record; the path of the record.
async fn prepare(balancer: &HttpClient) -> anyhow::Result<String> {
    let user = serde_json::to_vec(&NewUser { name: "Ada".into() })?;
    let user: User = serde_json::from_slice(send(balancer, Method::POST, "/users", user).await?.body())?;
    let session = serde_json::to_vec(&NewSession { device: "browser".into() })?;
    send(balancer, Method::POST, &format!("/users/{}/sessions", user.id), session).await?;
    let record = format!("/users/{}/records/greeting", user.id);
    send(balancer, Method::PUT, &record, r#"{"greeting":"hello"}"#).await?;
    Ok(record)
}

async fn ask(balancer: HttpClient, path: String, id: &str) -> anyhow::Result<Response<Bytes>> {
    let mut request = net::request(Method::GET, &path, Bytes::new());
    request.headers_mut().insert(REQUEST_ID, HeaderValue::from_str(id)?);
    balancer.oneshot(request).await.map_err(anyhow::Error::from_boxed)
}

async fn send(to: &HttpClient, method: Method, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let what = format!("{method} {path}");
    let mut request: Request<Bytes> = net::request(method, path, body);
    request.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = to.clone().oneshot(request).await.map_err(anyhow::Error::from_boxed)?;
    let (status, body) = (answer.status(), String::from_utf8_lossy(answer.body()));
    anyhow::ensure!(status.is_success(), "{what} got {status}: {body}");
    Ok(answer)
}

fn say(number: usize, step: &str, what: &str) {
    match number {
        0 => println!("  {:>16}  {what}", step),
        _ => println!("  {number} {step:<14}  {what}"),
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
