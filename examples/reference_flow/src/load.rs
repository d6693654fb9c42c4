//! The load generator: an open loop. Requests start when the schedule says so, however slow the answers are, and their
//! latency counts from that intended start; a closed loop would wait politely while the flow is stalled, and see nothing.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response, header};
use mainstay::health::HealthReport;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tower::ServiceExt as _;

use crate::clock::{Clock, Moment};
use crate::in_flight_limit;
use crate::knowledge::Knowledge;
use crate::measured::Phase;
use crate::net::{CACHE, DEPENDENCY_FAILED, HttpClient, SERVED_BY, header_text};
use crate::part::{Command, Notice, Part};
use crate::sample::{JOURNAL, SAMPLES, Sample, WriteOf, Written};
use crate::storage::User;
use crate::workload::{self, Operation, RECORDS, Random, USERS, Workload, Zipf};

/// A request that takes longer has failed.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests under way at once; what the schedule asks beyond that fails without being sent.
const MOST_UNDER_WAY: usize = 4096;

/// Writes that prepare the data, at once.
const PREPARING: usize = 8;

/// Offers what the seed draws at the rate asked for, and keeps what came of it.
struct Generator {
    client: HttpClient,
    folder: PathBuf,
    clock: Clock,
    random: Random,
    popularity: Zipf,
    workload: Arc<Workload>,
    /// The number of the next request; 0 is what was there before.
    number: u64,
    under_way: JoinSet<Finished>,
    knowledge: Knowledge,
    journal: File,
    samples: Vec<Sample>,
    /// Requests at once while the capacity is measured: enough to keep every worker busy, and too few to be refused.
    calibrating: usize,
    /// Samples before this one have been reported as progress.
    reported: usize,
}

/// A request and what came of it.
struct Finished {
    path: String,
    sample: Sample,
    written: Option<Written>,
}

/// Serves `/metrics` and does what the parent commands.
pub(crate) async fn run(
    part: Part,
    commands: mpsc::Receiver<Command>,
    target: SocketAddr,
    rate: u32,
    seed: u64,
) -> anyhow::Result<()> {
    let folder = part.assignment.folder.clone();
    let generator = Generator::new(HttpClient::new(target), folder, rate, seed)?;
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
    fn new(client: HttpClient, folder: PathBuf, rate: u32, seed: u64) -> anyhow::Result<Self> {
        let journal = folder.join(JOURNAL);
        Ok(Self {
            client,
            clock: Clock::start(),
            random: Random::new(seed),
            popularity: Zipf::new(RECORDS),
            workload: Arc::new(Workload { seed, users: Vec::new() }),
            number: 1,
            under_way: JoinSet::new(),
            knowledge: Knowledge::default(),
            journal: File::create(&journal).with_context(|| format!("cannot write {}", journal.display()))?,
            samples: Vec::new(),
            calibrating: in_flight_limit(rate) / 2,
            reported: 0,
            folder,
        })
    }

    async fn drive(mut self, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        let mut rate = 0.0;
        let mut intended = Instant::now();
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Prepare) => self.prepare().await?,
                    Some(Command::Calibrate(time)) => self.calibrate(time).await?,
                    Some(Command::Rate(new)) => (rate, intended) = (new, Instant::now()),
                    Some(Command::Caches(servers)) => self.knowledge.caches(servers),
                    Some(Command::Finish) => return self.finish().await,
                    Some(other) => anyhow::bail!("{other:?} is no command for a load generator"),
                    None => return Ok(()),
                },
                () = sleep_until(intended), if rate > 0.0 => {
                    self.start(intended);
                    // Independent users come at random: the gaps are exponential.
                    intended += Duration::from_secs_f64(-(1.0 - self.random.unit()).ln() / rate);
                }
                Some(finished) = self.under_way.join_next() => self.settle(finished?)?,
                _ = second.tick(), if rate > 0.0 => self.report_progress(),
            }
        }
    }

    /// Sends the next request, which should have been sent at `intended`.
    fn start(&mut self, intended: Instant) {
        let operation = Operation::draw(&mut self.random, &self.popularity);
        let (number, path) = (self.number, self.workload.path(operation));
        self.number += 1;
        let now = Moment::now();
        let sample = Sample {
            intended: self.clock.moment(intended),
            done: now,
            write: !operation.is_read(),
            cached: operation.is_read() && self.knowledge.is_cached(&path, now),
            ..Sample::default()
        };
        if self.under_way.len() >= MOST_UNDER_WAY {
            self.samples.push(Sample { failure: Some("not sent: too many under way".into()), ..sample });
            return;
        }
        if sample.write {
            self.knowledge.write_begins(&path);
        }
        let (client, workload) = (self.client.clone(), Arc::clone(&self.workload));
        self.under_way.spawn(ask(client, workload, operation, number, path, sample));
    }

    /// Notes what came of a request.
    fn settle(&mut self, finished: Finished) -> anyhow::Result<()> {
        let Finished { path, sample, written } = finished;
        if sample.write {
            self.knowledge.write_ends(&path, sample.done);
        } else if let (true, Some(sent)) = (sample.succeeded(), sample.sent) {
            self.knowledge.read(&path, &sample.server, sent, sample.done);
        }
        if let Some(written) = written {
            self.note(&written)?;
        }
        self.samples.push(sample);
        Ok(())
    }

    /// Writes a line of the journal, at once: what the user was told is told here, too.
    fn note(&mut self, written: &Written) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(written)?);
        Ok(self.journal.write_all(line.as_bytes())?)
    }

    fn report_progress(&mut self) {
        let phase = Phase::of(self.samples[self.reported..].iter());
        self.reported = self.samples.len();
        if phase.offered == 0 {
            return;
        }
        Notice::Progress(Box::new(phase)).send();
    }

    /// As many requests at a time as keep the servers busy, for `time`; the rate of the right answers is the capacity.
    async fn calibrate(&mut self, time: Duration) -> anyhow::Result<()> {
        // Draws of its own: the seed means the same load whether the capacity was measured or not.
        let random = std::mem::replace(&mut self.random, Random::new(!self.workload.seed));
        let mut succeeded = 0_u32;
        let mut began = Instant::now();
        // The first fifth fills the queues.
        let warm = began + time / 5;
        let ends = began + time;
        for _ in 0..self.calibrating {
            self.start(Instant::now());
        }
        while let Some(finished) = self.under_way.join_next().await {
            let (finished, now) = (finished?, Instant::now());
            if now < warm {
                began = now;
            } else if now < ends {
                succeeded += u32::from(finished.sample.succeeded());
            }
            self.settle(finished)?;
            if now < ends {
                self.start(now);
            }
        }
        self.random = random;
        self.reported = self.samples.len();
        Notice::Capacity(f64::from(succeeded) / (ends - began).as_secs_f64()).send();
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        while let Some(finished) = self.under_way.join_next().await {
            self.settle(finished?)?;
        }
        let mut file = BufWriter::new(File::create(self.folder.join(SAMPLES))?);
        for sample in &self.samples {
            serde_json::to_writer(&mut file, sample)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Notice::Done.send();
        Ok(())
    }

    /// Writes the users and the records that the load will read.
    async fn prepare(&mut self) -> anyhow::Result<()> {
        let seed = self.workload.seed;
        let users = futures_util::stream::iter(0..USERS).map(|index| {
            let client = self.client.clone();
            async move {
                let answer = expect(client, workload::new_user(index, seed)).await?;
                anyhow::Ok(serde_json::from_slice::<User>(answer.body())?.id)
            }
        });
        let users = users.buffered(PREPARING).try_collect().await?;
        let workload = Arc::new(Workload { seed, users });
        self.workload = Arc::clone(&workload);
        let records = futures_util::stream::iter(0..RECORDS).map(|index| {
            let (client, workload) = (self.client.clone(), &workload);
            async move {
                let sent = Moment::now();
                expect(client, workload.new_record(index)).await?;
                let what = workload.write_of(Operation::WriteRecord(index), 0).context("it is a write")?;
                anyhow::Ok(Written { sent, acknowledged: Some(Moment::now()), what })
            }
        });
        let written: Vec<Written> = records.buffered(PREPARING).try_collect().await?;
        written.iter().try_for_each(|written| self.note(written))?;
        Notice::Prepared { users: USERS, records: RECORDS }.send();
        Ok(())
    }
}

async fn expect(client: HttpClient, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let what = format!("{} {}", request.method(), request.uri());
    let answer = client.oneshot(request).await.map_err(anyhow::Error::from_boxed)?;
    let (status, body) = (answer.status(), String::from_utf8_lossy(answer.body()));
    anyhow::ensure!(status.is_success(), "{what} got {status}: {body}");
    Ok(answer)
}

/// Sends one request and judges the answer.
async fn ask(
    client: HttpClient,
    workload: Arc<Workload>,
    operation: Operation,
    number: u64,
    path: String,
    mut sample: Sample,
) -> Finished {
    let request = workload.request(operation, number);
    let sent = Moment::now();
    let answer = timeout(CLIENT_TIMEOUT, client.oneshot(request)).await;
    let done = Moment::now();
    metrics::histogram!("load_request_seconds").record(done.since(sample.intended));
    (sample.sent, sample.done) = (Some(sent), done);
    match answer {
        Ok(Ok(answer)) => {
            sample.status = answer.status().as_u16();
            sample.retry_after = answer.headers().contains_key(header::RETRY_AFTER);
            sample.dependency_failed = answer.headers().contains_key(DEPENDENCY_FAILED);
            sample.server = header_text(&answer, SERVED_BY).to_owned();
            sample.cache = header_text(&answer, CACHE).to_owned();
            match workload.verify(operation, number, &answer) {
                Ok(version) => sample.read = operation.record().zip(version),
                Err(why) => sample.failure = Some(why),
            }
        }
        Ok(Err(error)) => sample.failure = Some(format!("no answer: {error}")),
        Err(_) => sample.failure = Some(format!("no answer within {CLIENT_TIMEOUT:?}")),
    }
    let acknowledged = sample.succeeded().then_some(done);
    let written = workload.write_of(operation, number).map(|what: WriteOf| Written { sent, acknowledged, what });
    Finished { path, sample, written }
}
