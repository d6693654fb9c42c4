//! What all parts have in common: one child process each, with a role, a server, and an orderly end.
//!
//! The parent talks to a part through its standard input (a line is a [`Command`]; the end of it means that the parent is
//! gone) and hears from it through its standard output (a line is a [`Notice`]).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use mainstay::health::{HealthAnswer, HealthReport, Shutdown, ShutdownConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::Moment;
use crate::counts;
use crate::faults::Fault;
use crate::measured::{Counts, Phase};
use crate::storage::BackupReport;
use crate::telemetry;
use crate::variant::Variant;
use crate::walk::Step;

/// Between "not ready any more" and the end of accepting: time for a balancer to notice.
const GRACE: Duration = Duration::from_millis(300);

/// How long requests that are under way may take to end.
const DRAIN: Duration = Duration::from_secs(3);

/// How often a restarted part tries to get its old port back.
const BIND_LIMIT: Duration = Duration::from_secs(2);

/// What a child process is told to be; the binary gets it as JSON behind `--part`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) folder: PathBuf,
    pub(crate) verbose: bool,
    pub(crate) role: Role,
}

/// The parts of the flow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Deletes the folder when everyone has gone.
    Janitor,
    Database {
        /// Acknowledges writes before they are committed: the negative control.
        careless: bool,
        /// The time between two scheduled backups.
        backups: Duration,
    },
    Application {
        variant: Variant,
        database: SocketAddr,
        /// How long one of the server's workers is busy with a request.
        work: Duration,
    },
    Balancer {
        variant: Variant,
        servers: Vec<(String, SocketAddr)>,
        /// Requests per second that it is planned for.
        rate: u32,
    },
    Load {
        target: SocketAddr,
        /// Requests per second that the flow is planned for.
        rate: u32,
        seed: u64,
    },
}

/// What the parent tells a part, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Any part: say what you have counted.
    Count,
    /// Application server: from now on, this goes wrong.
    Fault(Fault),
    /// Application server: forget what you have cached.
    EmptyCache,
    /// Balancer: there is a server more.
    Add { name: String, address: SocketAddr },
    /// Balancer: that server is gone for good.
    Remove { name: String },
    /// Load generator: write the data that will be read.
    Prepare,
    /// Load generator: ask as fast as answers come, and say how fast that is.
    Calibrate(Duration),
    /// Load generator: from now on, offer so many requests per second.
    Rate(f64),
    /// Load generator: these servers answer all reads that need no database; what others had cached is gone.
    Caches(Vec<String>),
    /// Load generator: wait for what is under way, and write the files.
    Finish,
}

/// What a part tells the parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// The part serves.
    Ready(SocketAddr),
    /// What a [`Command`] asked for is done.
    Done,
    /// What was counted since the part started.
    Counts(Counts),
    /// Something that the walk shows as it happens.
    Step(Step),
    /// The balancer took a server in or out.
    Server { name: String, usable: bool, change: String, at: Moment },
    /// The load generator has written the data that it will read.
    Prepared { users: usize, records: usize },
    /// Right answers per second, at most.
    Capacity(f64),
    /// The last second of load.
    Progress(Box<Phase>),
    /// A scheduled backup is complete.
    Backup(BackupReport),
}

/// A running part, seen from inside of its process.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) assignment: Assignment,
    metrics: PrometheusHandle,
    stop: watch::Receiver<bool>,
}

// === impl Notice ===

impl Notice {
    /// Sends this to the parent; one that is gone does not hear it.
    pub(crate) fn send(&self) {
        use std::io::Write as _;
        let mut line = serde_json::to_string(self).expect("plain data");
        line.push('\n');
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
        let _ = std::io::stdout().flush();
    }
}

// === impl Part ===

impl Part {
    /// Sets up what every part needs; the commands are what the parent tells it.
    pub(crate) fn start(assignment: Assignment) -> anyhow::Result<(Self, mpsc::Receiver<Command>)> {
        telemetry::write_logs(&assignment.name, &assignment.folder, assignment.verbose)?;
        let metrics = telemetry::record_metrics()?;
        let (stopping, stop) = watch::channel(false);
        let (commands_in, commands) = mpsc::channel(16);
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(tokio::io::stdin()).lines();
            loop {
                tokio::select! {
                    line = lines.next_line() => match line {
                        Ok(Some(line)) => match serde_json::from_str(&line) {
                            Ok(Command::Count) => Notice::Counts(counts::read()).send(),
                            Ok(command) => drop(commands_in.send(command).await),
                            Err(error) => tracing::error!(line, %error, "no command"),
                        },
                        Ok(None) | Err(_) => break,
                    },
                    _ = terminate.recv() => break,
                }
            }
            stopping.send_replace(true);
        });
        Ok((Self { assignment, metrics, stop }, commands))
    }

    /// Serves `routes` beside `/livez`, `/readyz` and `/metrics` until the parent wants no more or is gone; then says
    /// "not ready", gives a balancer time to hear it, stops accepting, and lets the requests under way end.
    pub(crate) async fn serve(mut self, routes: Router, report: HealthReport) -> anyhow::Result<()> {
        let (alive, ready, metrics) = (report.clone(), report.clone(), self.metrics);
        let app = routes
            .route("/livez", get(async move || page(&alive.liveness())))
            .route("/readyz", get(async move || page(&ready.readiness())))
            .route("/metrics", get(async move || metrics.render()))
            .layer(axum::middleware::from_fn(telemetry::observe));

        let listener = bind(self.assignment.listen).await?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let mut times = ShutdownConfig::default();
        (times.grace, times.drain) = (GRACE, DRAIN);
        let shutdown = Shutdown::new(report.clone(), times);
        let (stop_accepting, working) = (shutdown.stop_accepting(), shutdown.working());
        let mut server = tokio::spawn(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(stop_accepting).await;
            drop(working);
            served
        });
        report.mark_started();
        tracing::info!(part = self.assignment.name, %address, "serving");
        Notice::Ready(address).send();

        tokio::select! {
            served = &mut server => return Ok(served??),
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
        if !shutdown.run().await {
            tracing::warn!("requests under way are cut off");
            server.abort();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// What an orchestrator reads: a status, and in JSON the reason for it.
fn page(answer: &HealthAnswer) -> Response {
    let status = StatusCode::from_u16(answer.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/health+json")], answer.to_json()).into_response()
}

/// Binds `address`; a server that was killed a moment ago may still hold it.
async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && started.elapsed() < BIND_LIMIT => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound.with_context(|| format!("cannot listen on {address}")),
        }
    }
}
