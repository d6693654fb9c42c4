//! One flow, from its first process to the audit of what it left: a variant, a seed, a schedule.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep_until};

use crate::application::WORKERS;
use crate::audit::{self, Audit, Backup, Staleness};
use crate::clock::{Clock, Moment};
use crate::measured::{Counts, Measured, Phase, Span};
use crate::part::{Command, Notice, Role};
use crate::sample::{JOURNAL, SAMPLES, Sample, read_lines};
use crate::schedule::{Plan, Step};
use crate::supervisor::Flow;
use crate::variant::{Family, Variant};
use crate::{CACHE_STALE, CACHE_TTL, SERVER_ATTEMPT, report, walk};

/// How many application servers there are.
pub(crate) const SERVERS: usize = 3;

/// The servers together can work on so many times the requests that are offered: one of three may be lost, with something
/// to spare.
const HEADROOM: f64 = 2.0;

/// A burst offers so many times what the flow can answer.
const BURST: f64 = 2.0;

/// How long the capacity is measured.
const CALIBRATION: Duration = Duration::from_millis(1500);

/// How long a part may take to say what it has counted: one that is frozen or dead does not say it at all.
const COUNTING: Duration = Duration::from_millis(300);

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) variant: Variant,
    pub(crate) seed: u64,
    pub(crate) rate: u32,
    pub(crate) phases: &'a [Plan],
    /// As another flow measured it; `None` to measure it, where the schedule has a burst.
    pub(crate) capacity: Option<f64>,
    /// The database acknowledges writes that it has not committed.
    pub(crate) careless: bool,
    /// Walk one request, and say what happens.
    pub(crate) talks: bool,
}

/// What happened in a run.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) measured: Measured,
    pub(crate) samples: Vec<Sample>,
    pub(crate) spans: Vec<Span>,
    /// What was done when.
    pub(crate) steps: Vec<(Step, Moment)>,
    /// When the balancer took whom in (`true`) or out.
    pub(crate) eligible: Vec<(String, bool, Moment)>,
    pub(crate) capacity: Option<f64>,
    pub(crate) audit: Audit,
}

/// A flow that is being driven.
struct Drive<'a> {
    flow: &'a mut Flow,
    order: &'a Order<'a>,
    clock: Clock,
    started: Instant,
    phase: &'static str,
    steps: Vec<(Step, Moment)>,
    eligible: Vec<(String, bool, Moment)>,
    backups: Vec<Backup>,
    counted: HashMap<String, Counts>,
    counts: Counts,
    capacity: Option<f64>,
    database: SocketAddr,
}

/// The time for which one request keeps a worker busy.
fn work(rate: u32) -> Duration {
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let workers = (WORKERS * SERVERS) as f64;
    let work = Duration::from_secs_f64(workers / (HEADROOM * f64::from(rate)));
    // The timer goes by milliseconds, and rounds up.
    work.saturating_sub(Duration::from_millis(1))
}

/// Starts all parts but the load, from the back to the front, so that each finds what it calls; the database's address.
pub(crate) async fn start(flow: &mut Flow, order: &Order<'_>) -> anyhow::Result<SocketAddr> {
    let Order { variant, rate, careless, .. } = *order;
    let total: Duration = order.phases.iter().map(|phase| phase.length).sum();
    let database = Role::Database { careless, backups: (total / 8).max(Duration::from_secs(1)) };
    let database = flow.start("database", database, None).await?;
    let mut servers = Vec::new();
    for number in 1..=SERVERS {
        let name = format!("app-{number}");
        let address = flow.start(&name, Role::Application { variant, database, work: work(rate) }, None).await?;
        servers.push((name, address));
    }
    flow.start("balancer", Role::Balancer { variant, servers, rate }, None).await?;
    Ok(database)
}

/// Drives the load through the schedule, and audits what is left.
pub(crate) async fn run(flow: &mut Flow, order: &Order<'_>) -> anyhow::Result<Ran> {
    let database = start(flow, order).await?;
    let target = flow.address("balancer")?;
    flow.start("load", Role::Load { target, rate: order.rate, seed: order.seed }, None).await?;
    if order.talks {
        print_parts(flow);
        // Without the cache there is not much to show.
        if order.variant != (Variant::Mainstay { without: Some(Family::Cache) }) {
            walk::walk(flow, SERVERS).await?;
        }
    }
    let mut drive = Drive {
        clock: Clock::start(),
        started: Instant::now(),
        phase: "",
        steps: Vec::new(),
        eligible: Vec::new(),
        backups: Vec::new(),
        counted: HashMap::new(),
        counts: Counts::default(),
        capacity: order.capacity,
        database,
        flow,
        order,
    };
    drive.prepare().await?;
    let (spans, counts) = drive.through().await?;
    let Drive { flow, steps, eligible, backups, capacity, .. } = drive;

    // A process that has ended in order holds nothing back.
    flow.drain("database").await?;
    let folder = flow.folder().to_owned();
    let samples: Vec<Sample> = read_lines(&folder.join(SAMPLES))?;
    let mut measured = Measured::of(&samples, &spans);
    for ((phase, counts), span) in measured.phases.iter_mut().zip(counts).zip(&spans) {
        phase.counts = counts;
        let out = |(_, usable, at): &&(String, bool, Moment)| !usable && (span.begins..span.ends).contains(at);
        phase.ejections = eligible.iter().filter(out).count() as u64;
        measured.total.counts += counts;
        measured.total.ejections += phase.ejections;
    }
    let audit = check(&folder, &samples, &backups)?;
    Ok(Ran { measured, samples, spans, steps, eligible, capacity, audit })
}

/// A read may be as old as a cached answer may be, and as the load that brought it; one that is marked as stale, older.
fn check(folder: &Path, samples: &[Sample], backups: &[Backup]) -> anyhow::Result<Audit> {
    let fresh = CACHE_TTL + SERVER_ATTEMPT;
    let staleness = Staleness { fresh, marked: fresh + CACHE_STALE };
    let journal = read_lines(&folder.join(JOURNAL))?;
    audit::audit(&journal, samples, &folder.join("database.sqlite"), backups.last(), &staleness, folder)
}

// === impl Drive ===

impl Drive<'_> {
    async fn prepare(&mut self) -> anyhow::Result<()> {
        let names = (1..=SERVERS).map(|number| format!("app-{number}")).collect();
        self.flow.tell("load", &Command::Prepare).await?;
        let prepared = |notice: &Notice| match notice {
            Notice::Prepared { users, records } => Some((*users, *records)),
            _ => None,
        };
        let (users, records) = self.flow.hear("load", prepared).await?;
        self.flow.tell("load", &Command::Caches(names)).await?;
        let bursts = |phase: &Plan| phase.steps.iter().any(|(_, step)| *step == Step::Burst);
        if self.capacity.is_none() && self.order.phases.iter().any(bursts) {
            self.flow.tell("load", &Command::Calibrate(CALIBRATION)).await?;
            let capacity = |notice: &Notice| match notice {
                Notice::Capacity(capacity) => Some(*capacity),
                _ => None,
            };
            self.capacity = Some(self.flow.hear("load", capacity).await?);
        }
        if self.order.talks {
            let Order { rate, seed, .. } = *self.order;
            let written = format!("{users} users and {records} records written");
            println!("\nLoad: {rate} requests/s, open loop, 90 % reads, Zipf keys, seed {seed}; {written}");
            if let Some(capacity) = self.capacity {
                println!("Capacity, measured: {capacity:.0} right answers/s");
            }
            println!();
        }
        Ok(())
    }

    /// All phases, and what was counted in each.
    async fn through(&mut self) -> anyhow::Result<(Vec<Span>, Vec<Counts>)> {
        let (mut spans, mut counts) = (Vec::new(), Vec::new());
        let rate = Command::Rate(self.order.rate.into());
        self.flow.forget();
        self.count().await?;
        self.started = Instant::now();
        let mut begins = self.started;
        for plan in self.order.phases {
            self.phase = plan.name;
            self.counts = Counts::default();
            self.flow.tell("load", &rate).await?;
            for (at, step) in &plan.steps {
                self.until(begins + *at).await?;
                self.take(*step).await?;
            }
            let ends = begins + plan.length;
            self.until(ends).await?;
            // Where a step took longer than it should have, the phase did, too.
            let ends = ends.max(Instant::now());
            let moment = |instant| self.clock.moment(instant);
            spans.push(Span { name: plan.name.into(), begins: moment(begins), ends: moment(ends) });
            begins = ends;
            self.count().await?;
            counts.push(self.counts);
        }
        self.flow.tell("load", &Command::Rate(0.0)).await?;
        self.flow.order("load", &Command::Finish).await?;
        self.until(Instant::now()).await?;
        Ok((spans, counts))
    }

    /// Does something to the flow.
    async fn take(&mut self, step: Step) -> anyhow::Result<()> {
        if let Step::Kill(part) = step {
            self.count_part(part).await?;
        }
        self.steps.push((step, Moment::now()));
        self.say(&step.describe());
        let flow = &mut *self.flow;
        match step {
            Step::Kill(part) => {
                flow.kill(part).await?;
                self.caches().await?;
            }
            Step::Restart(part) => {
                flow.restart(part).await?;
                self.caches().await?;
            }
            Step::Freeze(part) => flow.freeze(part)?,
            Step::Thaw(part) => flow.thaw(part)?,
            Step::Fault(part, fault) => flow.order(part, &Command::Fault(fault)).await?,
            Step::FaultAll(fault) => {
                for name in self.servers() {
                    self.flow.order(&name, &Command::Fault(fault)).await?;
                }
            }
            Step::EmptyCaches => {
                flow.tell("load", &Command::Caches(Vec::new())).await?;
                for name in self.servers() {
                    self.flow.order(&name, &Command::EmptyCache).await?;
                }
                self.caches().await?;
            }
            Step::Add(name) => {
                let Order { variant, rate, .. } = *self.order;
                let role = Role::Application { variant, database: self.database, work: work(rate) };
                let address = flow.start(name, role, None).await?;
                flow.order("balancer", &Command::Add { name: name.to_owned(), address }).await?;
                self.caches().await?;
            }
            Step::Drain(name) => {
                self.count_part(name).await?;
                self.flow.drain(name).await?;
                self.flow.order("balancer", &Command::Remove { name: name.to_owned() }).await?;
                self.caches().await?;
            }
            Step::Calm => flow.tell("load", &Command::Rate(self.order.rate.into())).await?,
            Step::Burst => {
                let capacity = self.capacity.context("it was measured")?;
                flow.tell("load", &Command::Rate(capacity * BURST)).await?;
            }
        }
        Ok(())
    }

    /// The servers that run.
    fn servers(&self) -> Vec<String> {
        let running = self.flow.parts().map(|(name, ..)| name.to_owned());
        let mut servers: Vec<_> = running.filter(|name| name.starts_with("app-")).collect();
        servers.sort_unstable();
        servers
    }

    /// Tells the load generator whose caches there are.
    async fn caches(&mut self) -> anyhow::Result<()> {
        let servers = self.servers();
        self.flow.tell("load", &Command::Caches(servers)).await
    }

    /// Listens until then to what the parts have to say.
    async fn until(&mut self, until: Instant) -> anyhow::Result<()> {
        let wanted = |_: &str, notice: &Notice| match notice {
            Notice::Server { .. } | Notice::Progress(_) | Notice::Backup(_) => Some(notice.clone()),
            _ => None,
        };
        while let Some(notice) = self.flow.listen(wanted, until.saturating_duration_since(Instant::now())).await? {
            match notice {
                Notice::Server { name, usable, change, at } => {
                    self.say(&format!("balancer: {name} {change}"));
                    self.eligible.push((name, usable, at));
                }
                Notice::Backup(backup) => self.backups.push(backup.into()),
                Notice::Progress(second) => {
                    let second = Phase { name: self.phase.to_owned(), ..*second };
                    let flow = self.order.variant.short_name();
                    report::print_progress(flow, self.started.elapsed(), Duration::from_secs(1), &second);
                }
                _ => {}
            }
        }
        sleep_until(until).await;
        Ok(())
    }

    /// Asks all parts what they have counted, and adds what is new.
    async fn count(&mut self) -> anyhow::Result<()> {
        let names: Vec<_> = self.flow.parts().map(|(name, ..)| name.to_owned()).collect();
        for name in names {
            self.count_part(&name).await?;
        }
        Ok(())
    }

    async fn count_part(&mut self, name: &str) -> anyhow::Result<()> {
        if self.flow.tell(name, &Command::Count).await.is_err() {
            return Ok(());
        }
        let counts = |from: &str, notice: &Notice| match notice {
            Notice::Counts(counts) if from == name => Some(*counts),
            _ => None,
        };
        if let Some(counts) = self.flow.listen(counts, COUNTING).await? {
            let before = self.counted.insert(name.to_owned(), counts).unwrap_or_default();
            self.counts += counts.since(before);
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        if self.order.talks {
            println!("  {:>5.1} s  {what}", self.started.elapsed().as_secs_f64());
        }
    }
}

/// In the order a request takes.
pub(crate) fn print_parts(flow: &Flow) {
    let mut parts: Vec<_> = flow.parts().collect();
    parts.sort_by_key(|(name, ..)| {
        ["load", "balancer", "app", "database"].iter().position(|kind| name.starts_with(kind))
    });
    for (name, address, id) in parts {
        println!("  {name:<9} http://{address}  process {id}");
    }
}
