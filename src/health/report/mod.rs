//! [`HealthReport`]: what the application says of itself.

mod answer;
mod json;
mod part;

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

pub use answer::{HealthAnswer, PartHealth, Question, Verdict};
pub use part::{Part, PartState, Role};

use self::part::PartCell;
use super::monitor::{Key, Monitor};
use crate::cores::lock::lock;
use crate::health_status::HealthStatus;
use crate::{InvalidConfig, Name};

/// What the application says of itself to an orchestrator: started, alive, ready; and which of its parts are well.
///
/// | question | fails | an orchestrator then |
/// |---|---|---|
/// | [`startup`](Self::startup) | until [`mark_started`](Self::mark_started) | waits, and asks nothing else |
/// | [`liveness`](Self::liveness) | while a [`Vital`](Role::Vital) part is unhealthy | kills and restarts the process |
/// | [`readiness`](Self::readiness) | before the start, from [`begin_shutdown`](Self::begin_shutdown) on, and while a `Vital` or [`Critical`](Role::Critical) part is unhealthy or was never seen healthy | sends no new requests |
///
/// A part that fails without failing the answer makes it a [`Warn`](Verdict::Warn): still a 200, with the word in it. So does a part
/// that was healthy and is now unknown: its prober has died, and that is no evidence against the part. Until the start, neither
/// liveness nor readiness asks any part: liveness passes, readiness fails.
///
/// A dependency that *all* instances share is [`Shared`](Role::Shared), not critical: if one stalled database made every instance
/// unready, nothing would be left that could even answer from its cache or say so politely.
///
/// Clones are handles of the same report.
///
/// # Examples
///
/// ```
/// use mainstay::health::{HealthReport, Role, Verdict};
///
/// let report = HealthReport::new("shop");
/// let database = report.add("database", Role::Shared)?;
/// let warmed = report.add("prices", Role::Critical)?;
/// assert_eq!(report.readiness().verdict(), Verdict::Fail, "not started");
///
/// report.mark_started();
/// assert_eq!(report.readiness().verdict(), Verdict::Fail, "nothing is known of the prices yet");
/// warmed.healthy();
/// database.unhealthy("no connection left");
/// assert_eq!(report.readiness().verdict(), Verdict::Warn);
/// assert_eq!(report.liveness().verdict(), Verdict::Pass);
///
/// report.begin_shutdown();
/// assert_eq!(report.readiness().verdict(), Verdict::Fail);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone)]
pub struct HealthReport {
    inner: Arc<Inner>,
}

/// Where in its life the application is. It only ever goes forward.
///
/// # Examples
///
/// ```
/// use mainstay::health::{HealthReport, Phase};
///
/// let report = HealthReport::new("shop");
/// assert_eq!(report.phase(), Phase::Starting);
/// report.mark_started();
/// assert_eq!(report.phase(), Phase::Running);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Not started yet.
    Starting,
    /// Started.
    Running,
    /// On the way out: ready for nothing new.
    Stopping,
}

struct Inner {
    name: Name,
    parts: Mutex<Vec<Arc<PartCell>>>,
    phase: Mutex<(Phase, Instant)>,
}

// === impl HealthReport ===

impl HealthReport {
    /// A report of the application `name`, without parts, in [`Phase::Starting`].
    ///
    /// # Examples
    ///
    /// ```
    /// let report = mainstay::health::HealthReport::new("shop");
    /// assert!(!report.startup().passed());
    /// ```
    pub fn new(name: impl Into<Name>) -> Self {
        let phase = Mutex::new((Phase::Starting, Instant::now()));
        Self { inner: Arc::new(Inner { name: name.into(), parts: Mutex::new(Vec::new()), phase }) }
    }

    /// Adds a part that is set by hand, through what this returns; [`Unknown`](HealthStatus::Unknown) until it is set, and again when
    /// the [`Part`] is dropped.
    ///
    /// # Errors
    ///
    /// When there is a part of that name.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Role};
    ///
    /// let report = HealthReport::new("shop");
    /// let worker = report.add("worker", Role::Vital)?;
    /// worker.healthy();
    /// assert_eq!(report.add("worker", Role::Vital).unwrap_err().field(), "part");
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add(&self, name: impl Into<Name>, role: Role) -> Result<Part, InvalidConfig> {
        self.insert(PartCell::held(name.into(), role)).map(Part::new)
    }

    /// Adds a part that is asked each time the report is.
    ///
    /// The closure runs on the asking task and must not block: it reads what is known (a pool's size, a flag, the age of the last
    /// success) and checks nothing over the network; for that there is the [`Monitor`]. One that panics is
    /// [`Unhealthy`](HealthStatus::Unhealthy).
    ///
    /// # Errors
    ///
    /// When there is a part of that name.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Role};
    ///
    /// let report = HealthReport::new("shop");
    /// report.mark_started();
    /// let queued = 1_200;
    /// report.add_check("queue", Role::Critical, move || {
    ///     if queued < 1_000 { Ok(()) } else { Err(format!("{queued} orders wait")) }
    /// })?;
    /// assert!(report.readiness().to_json().contains("1200 orders wait"));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add_check<F, P>(&self, name: impl Into<Name>, role: Role, check: F) -> Result<(), InvalidConfig>
    where
        F: Fn() -> P + Send + Sync + 'static,
        P: Into<PartState>,
    {
        self.insert(PartCell::asked(name.into(), role, move || check().into()))?;
        Ok(())
    }

    /// Adds a part that follows a `watch` channel; [`Unknown`](HealthStatus::Unknown) once its sender is gone.
    ///
    /// # Errors
    ///
    /// When there is a part of that name.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    /// use mainstay::health::{HealthReport, Role};
    /// use tokio::sync::watch;
    ///
    /// let report = HealthReport::new("shop");
    /// let (sender, receiver) = watch::channel(HealthStatus::Healthy);
    /// report.add_watch("replica", Role::Optional, receiver)?;
    /// report.mark_started();
    /// assert_eq!(report.readiness().parts()[0].status, HealthStatus::Healthy);
    /// drop(sender);
    /// assert_eq!(report.readiness().parts()[0].status, HealthStatus::Unknown);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add_watch(
        &self,
        name: impl Into<Name>,
        role: Role,
        status: watch::Receiver<HealthStatus>,
    ) -> Result<(), InvalidConfig> {
        self.add_check(name, role, move || match status.has_changed() {
            Ok(_) => PartState::from(*status.borrow()),
            Err(_) => PartState::unknown("its sender is gone"),
        })
    }

    /// Adds a part that is a target of a monitor. It does not keep the monitor alive: once that is gone, or the target removed, the part
    /// is [`Unknown`](HealthStatus::Unknown).
    ///
    /// # Errors
    ///
    /// When there is a part of that name.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Monitor, Role, TcpProbe};
    ///
    /// let monitor = Monitor::builder("dependencies").build()?;
    /// monitor.add("database", TcpProbe::new("db.internal:5432"));
    /// let report = HealthReport::new("shop");
    /// report.add_target("database", Role::Shared, &monitor, "database")?;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add_target<K: Key>(
        &self,
        name: impl Into<Name>,
        role: Role,
        monitor: &Monitor<K>,
        key: K,
    ) -> Result<(), InvalidConfig> {
        // Weak: what a monitor publishes to ends with it, and with that the subscriptions and those who follow them.
        let shared = Arc::downgrade(monitor.shared());
        self.add_check(name, role, move || match shared.upgrade().map(|shared| shared.target(&key)) {
            Some(Some(health)) => PartState::of_target(&health),
            Some(None) => PartState::unknown("no such target"),
            None => PartState::unknown("its monitor is gone"),
        })
    }

    /// Removes a part; returns whether it was there.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Role};
    ///
    /// let report = HealthReport::new("shop");
    /// let _worker = report.add("worker", Role::Optional)?;
    /// assert!(report.remove("worker"));
    /// assert!(!report.remove("worker"));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn remove(&self, name: &str) -> bool {
        let mut parts = lock(&self.inner.parts);
        let found = parts.iter().position(|part| part.name().as_str() == name);
        let removed = found.map(|index| parts.remove(index));
        // A closure's drop is the user's code: after the lock.
        drop(parts);
        removed.is_some()
    }

    /// The application has started: from now on liveness and readiness are looked at. Without effect later in its life.
    ///
    /// # Examples
    ///
    /// ```
    /// let report = mainstay::health::HealthReport::new("shop");
    /// report.mark_started();
    /// assert!(report.startup().passed());
    /// ```
    pub fn mark_started(&self) {
        self.advance(Phase::Running);
    }

    /// The application is on its way out: it is unready from now on, for good.
    ///
    /// This is the first step of a shutdown, and only that; [`Shutdown`](super::Shutdown) takes the others in their order.
    ///
    /// # Examples
    ///
    /// ```
    /// let report = mainstay::health::HealthReport::new("shop");
    /// report.mark_started();
    /// report.begin_shutdown();
    /// assert!(!report.readiness().passed());
    /// assert!(report.liveness().passed(), "an application that drains is not to be killed");
    /// ```
    pub fn begin_shutdown(&self) {
        self.advance(Phase::Stopping);
    }

    /// Where in its life the application is.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Phase};
    ///
    /// assert_eq!(HealthReport::new("shop").phase(), Phase::Starting);
    /// ```
    #[must_use]
    pub fn phase(&self) -> Phase {
        lock(&self.inner.phase).0
    }

    /// The name of the application.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::HealthReport::new("shop").name().as_str(), "shop");
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// Has it started?
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::health::HealthReport::new("shop").startup().passed());
    /// ```
    #[must_use]
    pub fn startup(&self) -> HealthAnswer {
        self.answer(Question::Startup)
    }

    /// Must it be restarted?
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::health::HealthReport::new("shop").liveness().passed());
    /// ```
    #[must_use]
    pub fn liveness(&self) -> HealthAnswer {
        self.answer(Question::Liveness)
    }

    /// May it be sent requests?
    ///
    /// # Examples
    ///
    /// ```
    /// let report = mainstay::health::HealthReport::new("shop");
    /// report.mark_started();
    /// assert!(report.readiness().passed());
    /// ```
    #[must_use]
    pub fn readiness(&self) -> HealthAnswer {
        self.answer(Question::Readiness)
    }

    /// The answer to any of the three.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Question};
    ///
    /// assert!(HealthReport::new("shop").answer(Question::Liveness).passed());
    /// ```
    #[must_use]
    pub fn answer(&self, question: Question) -> HealthAnswer {
        let (phase, since) = *lock(&self.inner.phase);
        let asks_parts = match question {
            Question::Startup => false,
            Question::Liveness => phase != Phase::Starting,
            Question::Readiness => phase == Phase::Running,
        };
        let parts = if asks_parts { lock(&self.inner.parts).clone() } else { Vec::new() };
        // Asked outside of the lock: a part's closure may use the report.
        let parts = parts.iter().filter(|part| part.role().matters_to(question)).map(|part| part.look()).collect();
        HealthAnswer::new(self.inner.name.clone(), question, phase, since, parts)
    }

    fn insert(&self, part: PartCell) -> Result<Arc<PartCell>, InvalidConfig> {
        let part = Arc::new(part);
        let mut parts = lock(&self.inner.parts);
        if parts.iter().any(|other| other.name() == part.name()) {
            return Err(InvalidConfig::new("part", part.name(), "must be a name that no other part has"));
        }
        parts.push(part.clone());
        Ok(part)
    }

    fn advance(&self, to: Phase) {
        let mut phase = lock(&self.inner.phase);
        if phase.0 < to {
            *phase = (to, Instant::now());
        }
    }
}

impl fmt::Debug for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = lock(&self.inner.parts).iter().map(|part| part.name().clone()).collect();
        f.debug_struct("HealthReport")
            .field("name", &self.inner.name)
            .field("phase", &self.phase())
            .field("parts", &parts)
            .finish()
    }
}

// === impl Phase ===

impl Phase {
    /// The word used in JSON: `starting`, `running` or `stopping`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::Phase::Running.as_str(), "running");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
