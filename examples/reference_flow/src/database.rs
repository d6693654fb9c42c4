//! The database process: SQLite behind a small network service, so that it can be stalled and killed like any database.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use mainstay::health::{HealthReport, Role};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::counts;
use crate::net::{IDEMPOTENCY_KEY, REQUEST_ID};
use crate::part::{Notice, Part};
use crate::storage::{Answer, Storage, StorageError, Write};
use crate::walk::{Event, Step};

/// The body that makes a user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewUser {
    pub(crate) name: String,
}

/// The body that makes a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewSession {
    pub(crate) device: String,
}

/// What goes wrong in here is the database's own failure, except for what does not exist.
#[derive(Debug)]
enum Failure {
    NotFound,
    Storage(StorageError),
}

pub(crate) async fn run(part: Part, careless: bool, backups: Duration) -> anyhow::Result<()> {
    let folder = &part.assignment.folder;
    let storage = if careless { Storage::open_careless(folder)? } else { Storage::open(folder)? };
    let routes = Router::new()
        .route("/users", post(create_user))
        .route("/users/{user}", get(read_user))
        .route("/users/{user}/sessions", get(read_sessions).post(create_session))
        .route("/users/{user}/records/{name}", put(write_record).get(read_record))
        .route("/backup", post(backup))
        .with_state(storage.clone());
    let report = HealthReport::new("database");
    let checked = storage.clone();
    report.add_check("sqlite", Role::Critical, move || checked.check())?;
    tokio::spawn(back_up(storage, backups));
    part.serve(routes, report).await
}

/// A backup after each `period`, online: it serves on meanwhile.
async fn back_up(storage: Storage, period: Duration) {
    let mut due = tokio::time::interval(period);
    due.tick().await;
    loop {
        due.tick().await;
        match storage.backup().await {
            Ok(backup) => Notice::Backup(backup).send(),
            Err(error) => tracing::error!(%error, "no backup"),
        }
    }
}

async fn read_user(
    State(storage): State<Storage>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let user = measured(&headers, "select a user", storage.user(id)).await?;
    Ok(Json(user.ok_or(Failure::NotFound)?).into_response())
}

async fn read_sessions(
    State(storage): State<Storage>,
    Path(user): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    Ok(Json(measured(&headers, "select a user's sessions", storage.sessions(user)).await?).into_response())
}

async fn read_record(
    State(storage): State<Storage>,
    Path((user, name)): Path<(i64, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let value = measured(&headers, "select a record", storage.record(user, name)).await?;
    Ok(json(StatusCode::OK, value.ok_or(Failure::NotFound)?))
}

async fn create_user(
    State(storage): State<Storage>,
    headers: HeaderMap,
    Json(body): Json<NewUser>,
) -> Result<Response, Failure> {
    write(storage, &headers, "insert a user", Write::User { name: body.name }).await
}

async fn create_session(
    State(storage): State<Storage>,
    Path(user): Path<i64>,
    headers: HeaderMap,
    Json(body): Json<NewSession>,
) -> Result<Response, Failure> {
    write(storage, &headers, "insert a session", Write::Session { user, device: body.device }).await
}

async fn write_record(
    State(storage): State<Storage>,
    Path((user, name)): Path<(i64, String)>,
    headers: HeaderMap,
    value: String,
) -> Result<Response, Failure> {
    write(storage, &headers, "upsert a record", Write::Record { user, name, value }).await
}

async fn backup(State(storage): State<Storage>, headers: HeaderMap) -> Result<Response, Failure> {
    Ok(Json(measured(&headers, "backup", storage.backup()).await?).into_response())
}

async fn write(storage: Storage, headers: &HeaderMap, what: &'static str, write: Write) -> Result<Response, Failure> {
    let key = headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let Answer { status, body } = measured(headers, what, storage.write(key, write)).await?;
    Ok(json(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body))
}

/// Runs a query, counts it, logs it, and tells the walk of it.
async fn measured<T>(
    headers: &HeaderMap,
    what: &'static str,
    query: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    counts::DATABASE_QUERIES.add();
    let started = Instant::now();
    let result = query.await;
    let taken = started.elapsed();
    metrics::histogram!("database_query_seconds", "query" => what).record(taken);
    let micros = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
    match &result {
        Ok(_) => tracing::info!(query = what, micros, "query"),
        Err(error) => tracing::warn!(query = what, micros, %error, "query failed"),
    }
    Step::announce(headers.get(REQUEST_ID), || Event::Query { what: what.into(), micros });
    result
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

// === impl Failure ===

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not found".into()),
            Self::Storage(error @ StorageError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Storage(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        json(status, serde_json::json!({ "error": error }).to_string())
    }
}
