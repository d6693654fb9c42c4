//! [`Shutdown`]: the steps of a graceful end, in their order.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::report::HealthReport;

/// How long the steps of a [`Shutdown`] take.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::health::ShutdownConfig;
///
/// let mut config = ShutdownConfig::default();
/// config.grace = Duration::from_secs(10);
/// assert_eq!(config.drain, Duration::from_secs(20));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ShutdownConfig {
    /// From becoming unready to accepting nothing new: as long as those who send requests need to notice. 5 s by default; it should
    /// exceed the period of the orchestrator's readiness probe. Zero is allowed, and loses the requests that are under way.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub grace: Duration,
    /// How long the work that was begun may then take. 20 s by default: with the grace, less than the 30 s after which Kubernetes
    /// kills.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub drain: Duration,
}

/// Ends an application without losing requests: **unready**, wait, **accept nothing new**, **drain**.
///
/// The order matters. A server that stops accepting while others still send to it refuses what they send; so it first says that it
/// is not ready, goes on serving for a [grace](ShutdownConfig::grace), and only then stops. What was begun by then has the
/// [drain](ShutdownConfig::drain) time to end. Background work that would begin anew (retries in a queue, refreshes,
/// pollers) waits for [`stop_accepting`](Self::stop_accepting) too.
///
/// Clones are handles of the same shutdown.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let report = HealthReport::new("shop");
/// report.mark_started();
/// let shutdown = Shutdown::new(report.clone(), ShutdownConfig::default());
///
/// let stop = shutdown.stop_accepting();
/// let working = shutdown.working();
/// let server = tokio::spawn(async move {
///     // accept connections ... `axum::serve(..).with_graceful_shutdown(stop)` ...
///     stop.await;
///     // ... and finish those that are open.
///     drop(working);
/// });
///
/// // on SIGTERM:
/// assert!(shutdown.run().await, "all work has ended in time");
/// assert!(!report.readiness().passed());
/// # server.await.unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

struct Inner {
    report: HealthReport,
    config: ShutdownConfig,
    /// When the shutdown began.
    begun: OnceLock<Instant>,
    stopped: watch::Sender<bool>,
    /// Each [`Working`] holds a receiver.
    work: watch::Sender<()>,
}

/// Held by work that a [`Shutdown`] waits for: a connection, a job, a server's task.
///
/// # Examples
///
/// ```
/// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
///
/// let shutdown = Shutdown::new(HealthReport::new("shop"), ShutdownConfig::default());
/// let job = shutdown.working();
/// assert_eq!(shutdown.in_flight(), 1);
/// drop(job);
/// assert_eq!(shutdown.in_flight(), 0);
/// ```
#[derive(Clone, Debug)]
#[must_use = "dropped, the work has ended"]
pub struct Working {
    _held: watch::Receiver<()>,
}

// === impl ShutdownConfig ===

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), drain: Duration::from_secs(20) }
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// The shutdown of the application that `report` speaks for.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
    ///
    /// let shutdown = Shutdown::new(HealthReport::new("shop"), ShutdownConfig::default());
    /// assert_eq!(shutdown.in_flight(), 0);
    /// ```
    pub fn new(report: HealthReport, config: ShutdownConfig) -> Self {
        let (stopped, work) = (watch::Sender::new(false), watch::Sender::new(()));
        Self { inner: Arc::new(Inner { report, config, begun: OnceLock::new(), stopped, work }) }
    }

    /// Goes through the steps; returns whether all work had ended when the drain time was over.
    ///
    /// Called again, or by several, it does not begin anew: each call waits for the steps of the first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the shutdown where it is: the application stays unready. The next call goes on from there, the times
    /// counted from the first.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let shutdown = Shutdown::new(HealthReport::new("shop"), ShutdownConfig::default());
    /// assert!(shutdown.run().await);
    /// # }
    /// ```
    pub async fn run(&self) -> bool {
        let inner = &*self.inner;
        inner.report.begin_shutdown();
        let begun = *inner.begun.get_or_init(Instant::now);
        let stop = saturating_add(begun, inner.config.grace);
        if stop > Instant::now() {
            sleep_until(stop).await;
        }
        inner.stopped.send_replace(true);
        timeout_at(saturating_add(stop, inner.config.drain), inner.work.closed()).await.is_ok()
    }

    /// Ends when nothing new may be accepted any more; never, if the shutdown is given up before that.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let shutdown = Shutdown::new(HealthReport::new("shop"), ShutdownConfig::default());
    /// let stop = shutdown.stop_accepting();
    /// shutdown.run().await;
    /// stop.await;
    /// # }
    /// ```
    pub fn stop_accepting(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.inner.stopped.subscribe();
        async move {
            if stopped.wait_for(|stopped| *stopped).await.is_err() {
                // All handles are gone: there will be no shutdown.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Work that the shutdown is to wait for, until what this returns is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
    ///
    /// let shutdown = Shutdown::new(HealthReport::new("shop"), ShutdownConfig::default());
    /// let _job = shutdown.working();
    /// ```
    pub fn working(&self) -> Working {
        Working { _held: self.inner.work.subscribe() }
    }

    /// How much work is held right now, clones counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Shutdown, ShutdownConfig};
    ///
    /// let shutdown = Shutdown::new(HealthReport::new("shop"), ShutdownConfig::default());
    /// assert_eq!(shutdown.in_flight(), 0);
    /// ```
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.work.receiver_count()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("config", &self.inner.config)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Thirty years stand for a time that cannot be told.
fn saturating_add(from: Instant, duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    from.checked_add(duration).unwrap_or(from + FAR)
}
