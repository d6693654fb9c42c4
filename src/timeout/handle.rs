//! [`TimeoutHandle`]: reads and controls a timeout while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{TimeoutConfig, TimeoutKind};
use crate::cores::counters::StripedCounters;
use crate::cores::packed_duration::{AtomicDuration, PackedDuration};
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::telemetry::event::{TimeoutEvent, TimeoutEventKind};
use crate::telemetry::{Emitter, Event, Tally, names};
use crate::timer::Cutoff;

/// Reads the counts of a timeout, and changes it at run time. A clone is a handle to the same.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::TimeoutLayer;
///
/// let layer = TimeoutLayer::total("orders", Duration::from_secs(1))?;
/// let handle = layer.handle();
/// handle.set_timeout(Duration::from_secs(3))?;
/// assert_eq!(handle.config().timeout, Duration::from_secs(3));
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct TimeoutHandle {
    shared: Arc<Shared>,
}

/// How many calls ended, by how they did. Exact as soon as no call is running.
///
/// # Examples
///
/// ```
/// use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
///
/// let statistics = TimeoutLayer::new("orders", TimeoutConfig::default())?.handle().statistics();
/// assert_eq!((statistics.calls(), statistics.timed_out, statistics.deadline_exceeded), (0, 0, 0));
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutStatistics {
    /// Ended by themselves within their time, whatever with.
    pub in_time: u64,
    /// Cut off by the configured timeout, after the inner service was called.
    pub timed_out: u64,
    /// Cut off by the ambient deadline, after the inner service was called.
    pub deadline_exceeded: u64,
    /// Refused without calling the inner service: the time was up before.
    pub not_sent: u64,
    /// Dropped before they ended: the caller left, or the inner service panicked.
    pub abandoned: u64,
}

const TIMEOUT: usize = 0;
const DEADLINE: usize = 1;
const NOT_SENT: usize = 2;
const CAUSES: [&str; 3] = ["timeout", "deadline", "not_sent"];

const IN_TIME: usize = 0;
const ABANDONED: usize = 1;

/// What all services of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kind: TimeoutKind,
    include_readiness: AtomicBool,
    timeout: AtomicDuration,
    emitter: Emitter,
    cut_off: Tally<3>,
    /// Those that were not cut off. In no metric: a telemetry layer publishes them already.
    others: StripedCounters<2>,
}

// === impl TimeoutHandle ===

impl TimeoutHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
    ///
    /// assert_eq!(TimeoutLayer::new("orders", TimeoutConfig::default())?.handle().name().as_str(), "orders");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.shared.emitter.name()
    }

    /// The settings as they are now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = mainstay::TimeoutLayer::total("orders", Duration::from_secs(1))?;
    /// assert_eq!(layer.handle().config().timeout, Duration::from_secs(1));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> TimeoutConfig {
        let Shared { kind, .. } = *self.shared;
        let include_readiness = self.shared.includes_readiness();
        TimeoutConfig { timeout: self.shared.timeout().get(), kind, include_readiness }
    }

    /// How many calls ended, by how they did.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = mainstay::TimeoutLayer::total("orders", Duration::from_secs(1))?;
    /// assert_eq!(layer.handle().statistics().timed_out, 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn statistics(&self) -> TimeoutStatistics {
        let (counts, others) = (self.shared.cut_off.all(), self.shared.others.all());
        TimeoutStatistics {
            in_time: others[IN_TIME],
            timed_out: counts[TIMEOUT],
            deadline_exceeded: counts[DEADLINE],
            not_sent: counts[NOT_SENT],
            abandoned: others[ABANDONED],
        }
    }

    /// Gives calls that start from now on this long; those that run keep what they were given. At most 584 years.
    ///
    /// # Errors
    ///
    /// A timeout of zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = mainstay::TimeoutLayer::total("orders", Duration::from_secs(1))?;
    /// layer.handle().set_timeout(Duration::from_secs(3))?;
    /// assert!(layer.handle().set_timeout(Duration::ZERO).is_err());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), InvalidConfig> {
        TimeoutConfig { timeout, ..self.config() }.validate().map_err(|error| error.of_layer(self.name().clone()))?;
        self.shared.timeout.store(timeout, Ordering::Relaxed);
        Ok(())
    }

    /// Changes all settings but the kind, for calls and waits that start from now on. Those that run keep what they were given,
    /// and all counts are kept.
    ///
    /// # Errors
    ///
    /// What [`TimeoutConfig::validate`] finds, or another [`kind`](TimeoutConfig::kind): an attempt cannot become a whole call.
    /// Nothing is changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::timeout::TimeoutConfig;
    ///
    /// let handle = mainstay::TimeoutLayer::total("orders", Duration::from_secs(1))?.handle();
    /// let mut config = TimeoutConfig::total(Duration::from_secs(3));
    /// config.include_readiness = true;
    /// handle.reconfigure(config)?;
    /// assert_eq!(handle.config(), config);
    /// assert!(handle.reconfigure(TimeoutConfig::attempt(Duration::from_secs(3))).is_err());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn reconfigure(&self, config: TimeoutConfig) -> Result<(), InvalidConfig> {
        if config.kind != self.shared.kind {
            let requirement = "cannot be changed; build another layer";
            return Err(InvalidConfig::new("kind", config.kind, requirement).of_layer(self.name().clone()));
        }
        self.set_timeout(config.timeout)?;
        self.shared.include_readiness.store(config.include_readiness, Ordering::Relaxed);
        Ok(())
    }
}

// === impl TimeoutStatistics ===

impl TimeoutStatistics {
    /// All calls that ended: the sum of the fields.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::TimeoutLayer::total("orders", std::time::Duration::from_secs(1))?;
    /// layer.layer(service_fn(|()| async { Ok::<_, BoxError>(()) })).oneshot(()).await?;
    /// let statistics = layer.handle().statistics();
    /// assert_eq!((statistics.calls(), statistics.in_time), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        let Self { in_time, timed_out, deadline_exceeded, not_sent, abandoned } = *self;
        in_time + timed_out + deadline_exceeded + not_sent + abandoned
    }
}

// === impl Shared ===

impl Shared {
    /// `config` must be valid.
    pub(super) fn new(emitter: Emitter, config: TimeoutConfig) -> Self {
        let cut_off = Tally::new(emitter.name(), names::TIMEOUTS, "cause", CAUSES);
        let TimeoutConfig { timeout, kind, include_readiness } = config;
        Self {
            kind,
            include_readiness: AtomicBool::new(include_readiness),
            timeout: AtomicDuration::new(timeout),
            emitter,
            cut_off,
            others: StripedCounters::new(),
        }
    }

    #[inline]
    pub(super) fn timeout(&self) -> PackedDuration {
        self.timeout.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn includes_readiness(&self) -> bool {
        self.include_readiness.load(Ordering::Relaxed)
    }

    /// Counts a call that ended by itself.
    #[inline]
    pub(super) fn ended_in_time(&self) {
        self.others.add(IN_TIME);
    }

    /// Counts a call that nobody waits for any more.
    #[cold]
    pub(super) fn abandoned(&self) {
        self.others.add(ABANDONED);
    }

    /// Counts and tells of a call that was cut off.
    #[cold]
    pub(super) fn record(&self, cutoff: Cutoff, timeout: Duration, sent: bool) {
        let which = match (sent, cutoff.by_deadline) {
            (false, _) => NOT_SENT,
            (true, true) => DEADLINE,
            (true, false) => TIMEOUT,
        };
        self.cut_off.add(which);
        let cause = if cutoff.by_deadline { CAUSES[DEADLINE] } else { CAUSES[TIMEOUT] };
        let kind = TimeoutEventKind::TimedOut { timeout, cause, sent };
        self.emitter.emit(|name| Event::Timeout(TimeoutEvent { name, kind }));
    }
}
