//! [`Part`]: one named part of a report, and where its state comes from.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::answer::{PartHealth, Question, Verdict};
use crate::Name;
use crate::cores::lock::lock;
use crate::health::status::TargetHealth;
use crate::health::task::cut;
use crate::health_status::HealthStatus;

/// What a part means to the whole.
///
/// | role | unhealthy | unknown, never seen healthy | unknown since |
/// |---|---|---|---|
/// | `Vital` | not alive, not ready | not ready | warning |
/// | `Critical` | not ready | not ready | warning |
/// | `Shared` | warning | warning | warning |
/// | `Optional` | warning | warning | warning |
///
/// # Examples
///
/// ```
/// use mainstay::health::Role;
///
/// assert_eq!(Role::Shared.as_str(), "shared");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Only a restart cures it: a worker thread that has died, a deadlock that was detected. Use it sparingly, and never for
    /// something outside of the process.
    Vital,
    /// Without it this instance cannot serve, while others can: its warm cache, its own disk, its shard.
    Critical,
    /// Something outside that all instances share: a database, another service. Its failure is told, but takes no instance out, since
    /// it would take out all.
    Shared,
    /// Nice to have.
    Optional,
}

/// What is known of a part at one moment.
///
/// Made from a [`HealthStatus`] or from a `Result` whose error is the detail.
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
/// use mainstay::health::PartState;
///
/// assert_eq!(PartState::from(Err::<(), _>("full")), PartState::unhealthy("full"));
/// assert_eq!(PartState::from(HealthStatus::Healthy).detail(), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartState {
    status: HealthStatus,
    detail: Option<Arc<str>>,
    since: Option<Instant>,
}

/// The owner's end of a part that is set by hand. When it is dropped the part is [`Unknown`](HealthStatus::Unknown): what has
/// ended must not read healthy for ever.
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
/// use mainstay::health::{HealthReport, Role};
///
/// let report = HealthReport::new("shop");
/// report.mark_started();
/// let worker = report.add("worker", Role::Vital)?;
/// worker.healthy();
/// assert!(report.readiness().passed());
/// drop(worker);
/// assert_eq!(report.liveness().parts()[0].status, HealthStatus::Unknown);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[must_use = "dropped, the part is unknown"]
pub struct Part {
    cell: Arc<PartCell>,
}

pub(super) struct PartCell {
    name: Name,
    role: Role,
    /// Asks for the state now; `None` where the part is set by hand.
    ask: Option<Box<dyn Fn() -> PartState + Send + Sync>>,
    seen: Mutex<Seen>,
}

struct Seen {
    state: PartState,
    since: Instant,
    ever_healthy: bool,
}

// === impl Role ===

impl Role {
    /// The word used in JSON: `vital`, `critical`, `shared` or `optional`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::Role::Vital.as_str(), "vital");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vital => "vital",
            Self::Critical => "critical",
            Self::Shared => "shared",
            Self::Optional => "optional",
        }
    }

    pub(super) const fn matters_to(self, question: Question) -> bool {
        match question {
            Question::Startup => false,
            Question::Liveness => matches!(self, Self::Vital),
            Question::Readiness => true,
        }
    }

    pub(super) const fn verdict(self, question: Question, status: HealthStatus, ever_healthy: bool) -> Verdict {
        let decides = matches!(self, Self::Vital | Self::Critical);
        match status {
            HealthStatus::Healthy => Verdict::Pass,
            HealthStatus::Unhealthy if decides => Verdict::Fail,
            // A restart needs evidence; readiness needs to have seen the part well once.
            HealthStatus::Unknown if decides && !ever_healthy && matches!(question, Question::Readiness) => {
                Verdict::Fail
            }
            HealthStatus::Unhealthy | HealthStatus::Unknown => Verdict::Warn,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl PartState ===

impl PartState {
    /// The part works.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    /// use mainstay::health::PartState;
    ///
    /// assert_eq!(PartState::healthy().status(), HealthStatus::Healthy);
    /// ```
    #[must_use]
    pub fn healthy() -> Self {
        HealthStatus::Healthy.into()
    }

    /// The part does not work; the detail is cut after 256 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::PartState::unhealthy("disk full").detail(), Some("disk full"));
    /// ```
    #[must_use]
    pub fn unhealthy(detail: impl fmt::Display) -> Self {
        Self::from(HealthStatus::Unhealthy).with_detail(detail)
    }

    /// Nothing is known of the part; the detail says why, and is cut after 256 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    /// use mainstay::health::PartState;
    ///
    /// assert_eq!(PartState::unknown("not asked yet").status(), HealthStatus::Unknown);
    /// ```
    #[must_use]
    pub fn unknown(detail: impl fmt::Display) -> Self {
        Self::from(HealthStatus::Unknown).with_detail(detail)
    }

    /// The same state with another detail, cut after 256 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::PartState::healthy().with_detail("3 of 5 replicas").detail(), Some("3 of 5 replicas"));
    /// ```
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(cut(&detail.to_string()));
        self
    }

    /// The status.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    /// use mainstay::health::PartState;
    ///
    /// assert_eq!(PartState::default().status(), HealthStatus::Unknown);
    /// ```
    #[must_use]
    pub const fn status(&self) -> HealthStatus {
        self.status
    }

    /// The detail, if there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::PartState::healthy().detail(), None);
    /// ```
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What a monitor knows of a target.
    pub(super) fn of_target(health: &TargetHealth) -> Self {
        let failure = health.last_failure.as_ref().filter(|_| health.failures > 0);
        Self {
            status: health.status,
            detail: failure.map(|failure| cut(&failure.to_string())),
            since: Some(health.since),
        }
    }
}

impl From<HealthStatus> for PartState {
    fn from(status: HealthStatus) -> Self {
        Self { status, detail: None, since: None }
    }
}

impl<E: fmt::Display> From<Result<(), E>> for PartState {
    fn from(result: Result<(), E>) -> Self {
        result.map_or_else(Self::unhealthy, |()| Self::healthy())
    }
}

// === impl Part ===

impl Part {
    pub(super) const fn new(cell: Arc<PartCell>) -> Self {
        Self { cell }
    }

    /// The part works.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Role};
    ///
    /// let part = HealthReport::new("shop").add("worker", Role::Critical)?;
    /// part.healthy();
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn healthy(&self) {
        self.set(PartState::healthy());
    }

    /// The part does not work, and why.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Role};
    ///
    /// let part = HealthReport::new("shop").add("worker", Role::Critical)?;
    /// part.unhealthy("no heartbeat for 10 s");
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn unhealthy(&self, detail: impl fmt::Display) {
        self.set(PartState::unhealthy(detail));
    }

    /// Sets any state.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, PartState, Role};
    ///
    /// let part = HealthReport::new("shop").add("worker", Role::Critical)?;
    /// part.set(PartState::healthy().with_detail("busy"));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn set(&self, state: impl Into<PartState>) {
        lock(&self.cell.seen).update(state.into());
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(PartState::unknown("its owner is gone"));
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.cell.name).field("role", &self.cell.role).finish_non_exhaustive()
    }
}

// === impl PartCell ===

impl PartCell {
    pub(super) fn held(name: Name, role: Role) -> Self {
        let seen = Seen { state: PartState::default(), since: Instant::now(), ever_healthy: false };
        Self { name, role, ask: None, seen: Mutex::new(seen) }
    }

    pub(super) fn asked(name: Name, role: Role, ask: impl Fn() -> PartState + Send + Sync + 'static) -> Self {
        Self { ask: Some(Box::new(ask)), ..Self::held(name, role) }
    }

    pub(super) const fn name(&self) -> &Name {
        &self.name
    }

    pub(super) const fn role(&self) -> Role {
        self.role
    }

    pub(super) fn look(&self) -> PartHealth {
        let asked = self.ask.as_ref().map(|ask| {
            catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| PartState::unhealthy("its check panicked"))
        });
        let mut seen = lock(&self.seen);
        if let Some(state) = asked {
            seen.update(state);
        }
        PartHealth {
            name: self.name.clone(),
            role: self.role,
            status: seen.state.status,
            detail: seen.state.detail.clone(),
            since: seen.since,
            ever_healthy: seen.ever_healthy,
        }
    }
}

// === impl Seen ===

impl Seen {
    fn update(&mut self, state: PartState) {
        if let Some(since) = state.since {
            self.since = since;
        } else if state.status != self.state.status {
            self.since = Instant::now();
        }
        self.ever_healthy |= state.status == HealthStatus::Healthy;
        self.state = state;
    }
}
