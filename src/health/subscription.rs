//! [`Subscription`]: a monitor's changes, one by one.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use futures_core::Stream;
use tokio::sync::watch;

use super::monitor::Key;
use super::shared::Entry;
use crate::health_status::HealthStatus;

/// Yields the changes of all targets' statuses, beginning with those that are known already.
///
/// A target that was not mentioned yet is [`Unknown`](HealthStatus::Unknown); one that was removed becomes so again. It is a view,
/// not a queue: it holds at most one change a target, whoever reads slowly misses what was undone in between but never the
/// latest status, and no reader slows the monitor down. It keeps no check alive.
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
/// use mainstay::health::Monitor;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let monitor = Monitor::builder("upstreams").build()?;
/// let mut changes = monitor.subscribe();
/// monitor.add("a", || async { Ok::<_, std::io::Error>(()) });
/// monitor.start()?;
///
/// let change = changes.changed().await.unwrap();
/// assert_eq!((change.key, change.status), ("a", HealthStatus::Healthy));
/// drop(monitor);
/// assert_eq!(changes.changed().await.unwrap().status, HealthStatus::Unknown);
/// assert_eq!(changes.changed().await, None);
/// # Ok(()) }
/// ```
pub struct Subscription<K> {
    receiver: watch::Receiver<HashMap<K, Entry>>,
    /// What has been told, or is in `pending`: the targets that are not unknown.
    known: HashMap<K, HealthStatus>,
    pending: VecDeque<HealthChange<K>>,
    ended: bool,
}

/// A target's new status.
///
/// # Examples
///
/// ```
/// use mainstay::health::HealthChange;
///
/// fn log(change: &HealthChange<String>) {
///     println!("{} is {}", change.key, change.status);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthChange<K> {
    /// The target.
    pub key: K,
    /// Its status now.
    pub status: HealthStatus,
}

// === impl Subscription ===

impl<K: Key> Subscription<K> {
    pub(crate) fn new(mut receiver: watch::Receiver<HashMap<K, Entry>>) -> Self {
        receiver.mark_changed();
        Self { receiver, known: HashMap::new(), pending: VecDeque::new(), ended: false }
    }

    /// Waits for the next change; `None` once the monitor is gone and all is told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// let mut changes = monitor.subscribe();
    /// drop(monitor);
    /// assert_eq!(changes.changed().await, None);
    /// # Ok(()) }
    /// ```
    pub async fn changed(&mut self) -> Option<HealthChange<K>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            if self.ended {
                return None;
            }
            self.ended = self.receiver.changed().await.is_err();
            self.look();
        }
    }

    /// The next change if there is one already; never waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert_eq!(monitor.subscribe().try_changed(), None);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn try_changed(&mut self) -> Option<HealthChange<K>> {
        if self.pending.is_empty() {
            self.look();
        }
        self.pending.pop_front()
    }

    /// The changes as a stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use mainstay::health::Monitor;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// let changes = monitor.subscribe().into_stream();
    /// drop(monitor);
    /// assert_eq!(changes.count().await, 0);
    /// # Ok(()) }
    /// ```
    pub fn into_stream(self) -> impl Stream<Item = HealthChange<K>> + Send + 'static {
        futures_util::stream::unfold(self, |mut subscription| async move {
            let change = subscription.changed().await?;
            Some((change, subscription))
        })
    }

    /// Compares what is with what was told.
    fn look(&mut self) {
        let Self { receiver, known, pending, .. } = self;
        let targets = receiver.borrow_and_update();
        known.retain(|key, _| {
            let still = targets.get(key).is_some_and(|entry| entry.health.status != HealthStatus::Unknown);
            if !still {
                pending.push_back(HealthChange { key: key.clone(), status: HealthStatus::Unknown });
            }
            still
        });
        for (key, entry) in &*targets {
            let status = entry.health.status;
            if status != HealthStatus::Unknown && known.get(key) != Some(&status) {
                known.insert(key.clone(), status);
                pending.push_back(HealthChange { key: key.clone(), status });
            }
        }
    }
}

impl<K: fmt::Debug> fmt::Debug for Subscription<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("known", &self.known).field("ended", &self.ended).finish_non_exhaustive()
    }
}
