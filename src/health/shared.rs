//! What a monitor's handles, its tasks and its readers share.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

use super::config::MonitorConfig;
use super::gate::Gate;
use super::hysteresis::{Check, Hysteresis, Transition};
use super::monitor::Key;
use super::status::{CheckFailure, TargetHealth};
use crate::Name;
use crate::cores::lock::lock;
use crate::health_status::HealthStatus;
use crate::telemetry::event::{Event, HealthEvent, HealthEventKind};
use crate::telemetry::{Emitter, Level, Listener, Tally, names};

/// Counts of a [`Monitor`](super::Monitor)'s checks, and of its targets by status.
///
/// # Examples
///
/// ```
/// use mainstay::health::{Monitor, TcpProbe};
///
/// let monitor = Monitor::builder("upstreams").build()?;
/// monitor.add("a", TcpProbe::new("10.0.0.7:80"));
/// assert_eq!(monitor.statistics().unknown, 1);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MonitorStatistics {
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed: by their own error or by the target's answer.
    pub failed: u64,
    /// Checks that were dropped at their timeout.
    pub timed_out: u64,
    /// Checks that panicked.
    pub panicked: u64,
    /// Targets that are healthy now.
    pub healthy: usize,
    /// Targets that are unhealthy now.
    pub unhealthy: usize,
    /// Targets of which nothing is known now.
    pub unknown: usize,
}

pub(crate) struct Shared<K> {
    emitter: Emitter,
    config: watch::Sender<MonitorConfig>,
    targets: watch::Sender<HashMap<K, Entry>>,
    checks: Tally<4>,
    /// All, unhealthy, unknown; the lock keeps an older count from being published last.
    levels: Mutex<[Level; 3]>,
}

pub(crate) struct Entry {
    /// The prober that may write here; 0 is none. What an older one still has to say is not heard.
    prober: u64,
    pub(crate) health: TargetHealth,
}

/// One run of one target's checks. When it goes while it is still in charge, the prober has died, and the target is unknown.
pub(crate) struct Prober<K: Key> {
    shared: Arc<Shared<K>>,
    key: K,
    id: u64,
    core: Hysteresis,
    gate: Arc<Gate>,
}

// === impl Shared ===

impl<K> Shared<K> {
    pub(crate) fn new(name: Name, config: MonitorConfig, listener: Option<Arc<dyn Listener>>) -> Self {
        let checks = Tally::new(&name, names::HEALTH_CHECKS, "outcome", OUTCOMES);
        let levels = [names::HEALTH_TARGETS, names::HEALTH_TARGETS_UNHEALTHY, names::HEALTH_TARGETS_UNKNOWN]
            .map(|metric| Level::new(&name, metric));
        Self {
            emitter: Emitter::new(&name, listener),
            config: watch::Sender::new(config),
            targets: watch::Sender::new(HashMap::new()),
            checks,
            levels: Mutex::new(levels),
        }
    }

    /// Nobody is in charge of any target any more.
    pub(crate) fn forget_all(&self) {
        self.targets.send_modify(|targets| targets.values_mut().for_each(Entry::forget));
        self.publish();
    }

    /// Counts the targets for the gauges; done at each change of a status, which is rare.
    fn publish(&self) {
        let levels = lock(&self.levels);
        let statistics = self.statistics();
        let all = statistics.healthy + statistics.unhealthy + statistics.unknown;
        for (level, count) in levels.iter().zip([all, statistics.unhealthy, statistics.unknown]) {
            level.set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }

    pub(crate) const fn name(&self) -> &Name {
        self.emitter.name()
    }

    pub(crate) fn config(&self) -> MonitorConfig {
        self.config.borrow().clone()
    }

    pub(crate) fn watch_config(&self) -> watch::Receiver<MonitorConfig> {
        self.config.subscribe()
    }

    pub(crate) fn reconfigure(&self, config: MonitorConfig) {
        self.config.send_replace(config);
    }

    pub(crate) fn receiver(&self) -> watch::Receiver<HashMap<K, Entry>> {
        self.targets.subscribe()
    }

    pub(crate) fn statistics(&self) -> MonitorStatistics {
        let mut statistics = MonitorStatistics {
            passed: self.checks.get(PASSED),
            failed: self.checks.get(FAILED),
            timed_out: self.checks.get(TIMED_OUT),
            panicked: self.checks.get(PANICKED),
            ..MonitorStatistics::default()
        };
        for entry in self.targets.borrow().values() {
            match entry.health.status {
                HealthStatus::Healthy => statistics.healthy += 1,
                HealthStatus::Unhealthy => statistics.unhealthy += 1,
                HealthStatus::Unknown => statistics.unknown += 1,
            }
        }
        statistics
    }
}

impl<K: Key> Shared<K> {
    pub(crate) fn add(&self, key: K) {
        self.targets.send_modify(|targets| {
            targets.insert(key, Entry::new());
        });
        self.publish();
    }

    pub(crate) fn remove(&self, key: &K) {
        self.targets.send_if_modified(|targets| targets.remove(key).is_some());
        self.publish();
    }

    pub(crate) fn status(&self, key: &K) -> HealthStatus {
        self.targets.borrow().get(key).map_or(HealthStatus::Unknown, |entry| entry.health.status)
    }

    pub(crate) fn target(&self, key: &K) -> Option<TargetHealth> {
        self.targets.borrow().get(key).map(|entry| entry.health.clone())
    }

    pub(crate) fn targets(&self) -> HashMap<K, TargetHealth> {
        self.targets.borrow().iter().map(|(key, entry)| (key.clone(), entry.health.clone())).collect()
    }

    /// Puts a new prober in charge of a target.
    pub(crate) fn begin(self: &Arc<Self>, key: &K, gate: Arc<Gate>) -> Prober<K> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.targets.send_modify(|targets| {
            if let Some(entry) = targets.get_mut(key) {
                entry.forget();
                entry.prober = id;
            }
        });
        Prober { shared: self.clone(), key: key.clone(), id, core: Hysteresis::default(), gate }
    }

    /// Changes the entry if `prober` is in charge; tells subscribers only when `change` returns that the status changed.
    fn update(&self, key: &K, prober: u64, change: impl FnOnce(&mut TargetHealth) -> bool) {
        let changed = self.targets.send_if_modified(|targets| match targets.get_mut(key) {
            Some(entry) if entry.prober == prober => change(&mut entry.health),
            _ => false,
        });
        if changed {
            self.publish();
        }
    }

    fn emit(&self, key: &K, from: HealthStatus, to: HealthStatus, reason: &str) {
        // The user's code, and maybe in a drop.
        let target = catch_unwind(AssertUnwindSafe(|| format!("{key:?}"))).unwrap_or_else(|_| "?".to_owned());
        let kind = HealthEventKind::StatusChanged { target: &target, from: from.as_str(), to: to.as_str(), reason };
        self.emitter.emit(|name| Event::Health(HealthEvent { name, kind }));
    }
}

impl<K> fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", self.name())
            .field("config", &*self.config.borrow())
            .field("statistics", &self.statistics())
            .finish()
    }
}

// === impl Entry ===

impl Entry {
    fn new() -> Self {
        let health = TargetHealth {
            status: HealthStatus::Unknown,
            since: Instant::now(),
            passes: 0,
            failures: 0,
            last_failure: None,
        };
        Self { prober: 0, health }
    }

    fn forget(&mut self) {
        self.prober = 0;
        self.health.forget();
    }
}

impl TargetHealth {
    /// Returns the status before.
    fn forget(&mut self) -> HealthStatus {
        let before = std::mem::take(&mut self.status);
        if before != HealthStatus::Unknown {
            self.since = Instant::now();
        }
        (self.passes, self.failures) = (0, 0);
        before
    }
}

// === impl Prober ===

const OUTCOMES: [&str; 4] = ["passed", "failed", "timed_out", "panicked"];
const PASSED: usize = 0;
const FAILED: usize = 1;
const TIMED_OUT: usize = 2;
const PANICKED: usize = 3;

impl<K: Key> Prober<K> {
    pub(crate) fn shared(&self) -> &Shared<K> {
        &self.shared
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) const fn core(&self) -> &Hysteresis {
        &self.core
    }

    /// Takes the result of a check; one that comes after the end of the checks is not counted.
    pub(crate) fn record(&mut self, result: Result<(), CheckFailure>, config: &MonitorConfig) {
        let Some(_inside) = self.gate.enter() else { return };
        let (outcome, check) = match &result {
            Ok(()) => (PASSED, Check::Passed),
            Err(CheckFailure::Answered(_)) => (FAILED, Check::Answered),
            Err(CheckFailure::Failed(_)) => (FAILED, Check::Failed),
            Err(CheckFailure::TimedOut { .. }) => (TIMED_OUT, Check::Failed),
            Err(CheckFailure::Panicked(_)) => (PANICKED, Check::Failed),
        };
        self.shared.checks.add(outcome);
        let transition = self.core.record(check, &config.thresholds());
        let core = self.core;
        let mut heard = false;
        self.shared.update(&self.key, self.id, |health| {
            heard = true;
            (health.passes, health.failures) = (core.passes(), core.failures());
            if let Err(failure) = &result {
                health.last_failure = Some(failure.clone());
            }
            if let Some(Transition { to, .. }) = transition {
                health.status = to;
                health.since = Instant::now();
            }
            transition.is_some()
        });
        if let Some(Transition { from, to }) = transition.filter(|_| heard) {
            let reason = result.map_or_else(|failure| failure.to_string(), |()| "its checks pass".to_owned());
            self.shared.emit(&self.key, from, to, &reason);
        }
    }
}

impl<K: Key> Drop for Prober<K> {
    fn drop(&mut self) {
        let Some(_inside) = self.gate.enter() else { return };
        let mut before = HealthStatus::Unknown;
        self.shared.update(&self.key, self.id, |health| {
            before = health.forget();
            before != HealthStatus::Unknown
        });
        if before != HealthStatus::Unknown {
            self.shared.emit(&self.key, before, HealthStatus::Unknown, "its prober has ended");
        }
    }
}
