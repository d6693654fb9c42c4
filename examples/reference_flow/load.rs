//! The load generator: an open loop. Requests start when the schedule says so, however slow the answers are, and their
//! latency counts from that intended start; a closed loop would wait politely while the flow is stalled, and see nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use mainstay::health::HealthReport;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt as _;

use crate::net::{ATTEMPT, CACHE, HttpClient, SERVED_BY, header_text};
use crate::part::{Notice, Part};
use crate::report::{Measured, Sample};
use crate::storage::User;
use crate::workload::{self, Operation, RECORDS, Random, USERS, Workload, Zipf};

/// A request that takes longer has failed.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests under way at once; what the schedule asks beyond that fails without being sent.
const MOST_UNDER_WAY: usize = 4096;

/// Writes that prepare the data, at once.
const PREPARING: usize = 8;

/// Offers what the seed draws at the rate asked for; the phases come as lines on the standard input.
struct Generator {
    client: HttpClient,
    rate: f64,
    seed: u64,
    measured: Measured,
}

/// Serves `/metrics` and generates the load: `prepare`, then `phase <name>` as often as there are phases, then `finish`.
pub(crate) async fn run(
    part: Part,
    commands: mpsc::Receiver<String>,
    target: SocketAddr,
    rate: u32,
    seed: u64,
) -> anyhow::Result<()> {
    let client = HttpClient::new(target);
    let generator = Generator { client, rate: rate.into(), seed, measured: Measured::new() };
    let driving = async {
        match generator.drive(commands).await {
            // It serves on until the parent wants no more.
            Ok(()) => std::future::pending().await,
            failed => failed,
        }
    };
    tokio::select! {
        served = part.serve(Router::new(), HealthReport::new("load")) => served,
        failed = driving => failed,
    }
}

// === impl Generator ===

impl Generator {
    async fn drive(mut self, mut commands: mpsc::Receiver<String>) -> anyhow::Result<()> {
        let mut users = Vec::new();
        while self.measured.phases.is_empty() {
            match commands.recv().await.as_deref() {
                Some("prepare") => {
                    users = self.prepare().await?;
                    Notice::Prepared { users: USERS, records: RECORDS }.send();
                }
                Some(command) => self.begin(command)?,
                None => return Ok(()),
            }
        }
        let workload = Arc::new(Workload { seed: self.seed, users });
        let mut random = Random::new(self.seed);
        let popularity = Zipf::new(RECORDS);
        let mut under_way = JoinSet::new();
        let (mut number, mut intended) = (0, Instant::now());
        loop {
            tokio::select! {
                command = commands.recv() => match command.as_deref() {
                    Some("finish") | None => break,
                    Some(command) => self.begin(command)?,
                },
                () = sleep_until(intended) => {
                    let operation = Operation::draw(&mut random, &popularity);
                    let nobody = Sample::unanswered(self.measured.phases.len() - 1, operation.is_read());
                    if under_way.len() < MOST_UNDER_WAY {
                        let workload = Arc::clone(&workload);
                        under_way.spawn(sample(self.client.clone(), workload, operation, number, intended, nobody));
                    } else {
                        self.measured.add(&nobody.failed("not sent: too many under way"));
                    }
                    number += 1;
                    // Independent users come at random: the gaps are exponential.
                    intended += Duration::from_secs_f64(-(1.0 - random.unit()).ln() / self.rate);
                }
                Some(sample) = under_way.join_next() => self.measured.add(&sample?),
            }
        }
        while let Some(sample) = under_way.join_next().await {
            self.measured.add(&sample?);
        }
        Notice::Measured(Box::new(self.measured.finish())).send();
        Ok(())
    }

    fn begin(&mut self, command: &str) -> anyhow::Result<()> {
        match command.strip_prefix("phase ") {
            Some(phase) => self.measured.begin(phase),
            None => anyhow::bail!("{command:?} is no command"),
        }
        Ok(())
    }

    /// Writes the users and the records that the load will read; the users' ids.
    async fn prepare(&self) -> anyhow::Result<Vec<i64>> {
        let users = futures_util::stream::iter(0..USERS).map(|index| async move {
            let answer = self.expect(workload::new_user(index, self.seed)).await?;
            anyhow::Ok(serde_json::from_slice::<User>(answer.body())?.id)
        });
        let users = users.buffered(PREPARING).try_collect().await?;
        let workload = Workload { seed: self.seed, users };
        let records = futures_util::stream::iter((0..RECORDS).map(|index| anyhow::Ok(workload.new_record(index))));
        records.try_for_each_concurrent(PREPARING, async |record| self.expect(record).await.map(drop)).await?;
        Ok(workload.users)
    }

    async fn expect(&self, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = self.client.clone().oneshot(request).await.map_err(anyhow::Error::from_boxed)?;
        let (status, body) = (answer.status(), String::from_utf8_lossy(answer.body()));
        anyhow::ensure!(status.is_success(), "{what} got {status}: {body}");
        Ok(answer)
    }
}

/// Sends one request and judges the answer.
async fn sample(
    client: HttpClient,
    workload: Arc<Workload>,
    operation: Operation,
    number: u64,
    intended: Instant,
    nobody: Sample,
) -> Sample {
    let answer = timeout(CLIENT_TIMEOUT, client.oneshot(workload.request(operation, number))).await;
    let latency = intended.elapsed();
    metrics::histogram!("load_request_seconds").record(latency);
    match answer {
        Ok(Ok(answer)) => Sample {
            latency: Some(latency),
            server: header_text(&answer, SERVED_BY).to_owned(),
            attempt: header_text(&answer, ATTEMPT).parse().unwrap_or(1),
            hit: header_text(&answer, CACHE) == "hit",
            failure: workload.verify(operation, number, &answer).err(),
            ..nobody
        },
        Ok(Err(error)) => nobody.failed(&format!("no answer: {error}")),
        Err(_) => nobody.failed(&format!("no answer within {CLIENT_TIMEOUT:?}")),
    }
}
