//! [`Monitor`]: owns the checks of any number of targets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::builder::MonitorBuilder;
use super::config::MonitorConfig;
use super::gate::Gate;
use super::probe::{DynProbe, Probe};
use super::shared::{MonitorStatistics, Shared};
use super::status::TargetHealth;
use super::subscription::Subscription;
use super::task;
use crate::cores::lock::lock;
use crate::health_status::HealthStatus;
use crate::{InvalidConfig, Name};

/// What can name a target of a [`Monitor`]; implemented for everything that has the bounds. How a key shows itself by `Debug` stands
/// in events.
///
/// # Examples
///
/// ```
/// fn is_key<K: mainstay::health::Key>() {}
/// is_key::<String>();
/// is_key::<std::net::SocketAddr>();
/// ```
pub trait Key: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static> Key for K {}

/// Checks targets, each by its own probe and in its own task, and publishes what it finds.
///
/// Building it, adding targets and dropping it are legal anywhere; [`start`](Self::start) is what needs a tokio runtime. Clones
/// are handles of the same monitor. When the last one is dropped all checks end as by [`stop`](Self::stop), every target reads
/// [`Unknown`](HealthStatus::Unknown), and subscriptions end.
///
/// See the [module documentation](crate::health).
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
/// use mainstay::health::{Monitor, TcpProbe};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
///
/// let monitor = Monitor::builder("upstreams").build()?;
/// monitor.add(address, TcpProbe::new(address.to_string()));
/// let mut changes = monitor.subscribe();
/// monitor.start()?;
///
/// let change = changes.changed().await.unwrap();
/// assert_eq!((change.key, change.status), (address, HealthStatus::Healthy));
/// # Ok(()) }
/// ```
pub struct Monitor<K> {
    owner: Arc<Owner<K>>,
}

/// [`Monitor::start`] was called outside of a tokio runtime.
///
/// # Examples
///
/// ```
/// use mainstay::health::Monitor;
///
/// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
/// let error = monitor.start().unwrap_err();
/// assert_eq!(error.to_string(), "health checks can be started only within a tokio runtime");
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("health checks can be started only within a tokio runtime")]
pub struct NotInRuntime {
    _private: (),
}

/// What the handles share, and the tasks do not: it goes when the last handle goes, and takes the tasks along.
struct Owner<K> {
    shared: Arc<Shared<K>>,
    targets: Mutex<Targets<K>>,
}

struct Targets<K> {
    runtime: Option<Handle>,
    by_key: HashMap<K, Target>,
}

struct Target {
    probe: Arc<dyn DynProbe>,
    wake: Arc<Notify>,
    run: Option<Run>,
}

/// The task that checks a target, and what ends it.
struct Run {
    task: AbortHandle,
    gate: Arc<Gate>,
}

// === impl Monitor ===

impl Monitor<()> {
    /// Starts building a monitor of this name; the type of its keys is that of the monitor built.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<u32> = Monitor::builder("shards").build()?;
    /// # let _ = monitor;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn builder(name: impl Into<Name>) -> MonitorBuilder {
        MonitorBuilder::new(name.into())
    }
}

impl<K: Key> Monitor<K> {
    /// A monitor without targets.
    ///
    /// # Errors
    ///
    /// When the configuration is [not valid](MonitorConfig::validate).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{Monitor, MonitorConfig};
    ///
    /// let monitor = Monitor::<u32>::new("shards", MonitorConfig::default())?;
    /// # let _ = monitor;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn new(name: impl Into<Name>, config: MonitorConfig) -> Result<Self, InvalidConfig> {
        Monitor::builder(name).config(config).build()
    }

    /// Starts the checks, now and for targets that are added later, on the runtime that this is called in.
    ///
    /// Where they run already nothing happens. Where the runtime of an earlier start is gone (its checks ended with it, and
    /// their targets read [`Unknown`](HealthStatus::Unknown) since), they start anew.
    ///
    /// # Errors
    ///
    /// Outside of a runtime.
    ///
    /// # Panics
    ///
    /// Never itself; but the runtime must have its time driver enabled, else each check's task panics at its first pause, and its
    /// target reads [`Unknown`](HealthStatus::Unknown).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// monitor.start()?;
    /// # Ok(()) }
    /// ```
    pub fn start(&self) -> Result<(), NotInRuntime> {
        let runtime = Handle::try_current().map_err(|_| NotInRuntime { _private: () })?;
        let mut targets = lock(&self.owner.targets);
        for (key, target) in &mut targets.by_key {
            if target.run.as_ref().is_none_or(|run| run.task.is_finished()) {
                target.spawn(key, &self.owner.shared, &runtime);
            }
        }
        targets.runtime = Some(runtime);
        Ok(())
    }

    /// Ends all checks; every target reads [`Unknown`](HealthStatus::Unknown) until [`start`](Self::start) is called again.
    ///
    /// Once it has returned no check and no event begins. If a check takes its first step, or the listener runs, on another thread at
    /// that moment, this call waits for it; so do not hold a lock here that a probe takes in its first step, or the listener takes.
    /// Called by a probe or by the listener it does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// monitor.stop();
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn stop(&self) {
        let mut targets = lock(&self.owner.targets);
        targets.runtime = None;
        let runs: Vec<_> = targets.by_key.values_mut().filter_map(|target| target.run.take()).collect();
        runs.iter().for_each(Run::end);
        self.owner.shared.forget_all();
        drop(targets);
        runs.iter().for_each(Run::wait);
    }

    /// Adds a target and the probe that checks it; in a monitor that runs, its first check follows after the first jitter.
    ///
    /// A key that is there already gets the new probe, and its status starts over as [`Unknown`](HealthStatus::Unknown); the old
    /// probe's checks end as by [`stop`](Self::stop). Returns
    /// whether the key was new. The number of targets is not limited: they are the caller's choice, and each costs a task.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{Monitor, TcpProbe};
    ///
    /// let monitor = Monitor::builder("upstreams").build()?;
    /// assert!(monitor.add("a", TcpProbe::new("10.0.0.7:80")));
    /// assert!(!monitor.add("a", TcpProbe::new("10.0.0.8:80")));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add(&self, key: K, probe: impl Probe) -> bool {
        let mut target = Target { probe: Arc::new(probe), wake: Arc::new(Notify::new()), run: None };
        // What was there is dropped after the lock: a probe's drop is the user's code.
        let mut targets = lock(&self.owner.targets);
        self.owner.shared.add(key.clone());
        if let Some(runtime) = targets.runtime.clone() {
            target.spawn(&key, &self.owner.shared, &runtime);
        }
        let replaced = match targets.by_key.entry(key) {
            Entry::Occupied(mut entry) => Some(entry.insert(target)),
            Entry::Vacant(entry) => {
                entry.insert(target);
                None
            }
        };
        drop(targets);
        if let Some(Target { run: Some(run), .. }) = &replaced {
            run.end();
            run.wait();
        }
        replaced.is_none()
    }

    /// Removes a target and ends its checks as [`stop`](Self::stop) does; returns whether it was there. To subscribers it becomes
    /// [`Unknown`](HealthStatus::Unknown).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{Monitor, TcpProbe};
    ///
    /// let monitor = Monitor::builder("upstreams").build()?;
    /// monitor.add("a", TcpProbe::new("10.0.0.7:80"));
    /// assert!(monitor.remove(&"a"));
    /// assert!(!monitor.remove(&"a"));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn remove(&self, key: &K) -> bool {
        let mut targets = lock(&self.owner.targets);
        let removed = targets.by_key.remove(key);
        self.owner.shared.remove(key);
        drop(targets);
        if let Some(Target { run: Some(run), .. }) = &removed {
            run.end();
            run.wait();
        }
        removed.is_some()
    }

    /// Checks a target as soon as its running check (if any) is over, without waiting for the interval; returns whether the
    /// target is there: for when real calls to it begin to fail, or its deployment is over. In a monitor that is not started the first check is then due at once when it is.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert!(!monitor.check_now(&"a"));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn check_now(&self, key: &K) -> bool {
        let targets = lock(&self.owner.targets);
        targets.by_key.get(key).map(|target| target.wake.notify_one()).is_some()
    }

    /// The status of a target; [`Unknown`](HealthStatus::Unknown) too when there is no such target.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert_eq!(monitor.status(&"a"), HealthStatus::Unknown);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn status(&self, key: &K) -> HealthStatus {
        self.owner.shared.status(key)
    }

    /// What is known of one target.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert!(monitor.target(&"a").is_none());
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn target(&self, key: &K) -> Option<TargetHealth> {
        self.owner.shared.target(key)
    }

    /// What is known of all targets, right now.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert!(monitor.targets().is_empty());
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn targets(&self) -> HashMap<K, TargetHealth> {
        self.owner.shared.targets()
    }

    /// A view of all changes, beginning with the statuses that are known already.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// let mut changes = monitor.subscribe();
    /// assert_eq!(changes.try_changed(), None);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Subscription<K> {
        Subscription::new(self.owner.shared.receiver())
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert_eq!(monitor.name().as_str(), "upstreams");
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.owner.shared.name()
    }

    /// Counts of checks and targets.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert_eq!(monitor.statistics().passed, 0);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn statistics(&self) -> MonitorStatistics {
        self.owner.shared.statistics()
    }

    /// The settings in force.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{Monitor, MonitorConfig};
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// assert_eq!(monitor.config(), MonitorConfig::default());
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> MonitorConfig {
        self.owner.shared.config()
    }

    /// Changes the settings at run time. Statuses and running checks stay; pauses are measured anew at once, from the start of each
    /// target's last check.
    ///
    /// # Errors
    ///
    /// When the new settings are [not valid](MonitorConfig::validate); the old ones stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::health::Monitor;
    ///
    /// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
    /// let mut config = monitor.config();
    /// config.interval = Duration::from_secs(30);
    /// monitor.reconfigure(config)?;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn reconfigure(&self, config: MonitorConfig) -> Result<(), InvalidConfig> {
        config.validate().map_err(|error| error.of_layer(self.name().clone()))?;
        self.owner.shared.reconfigure(config);
        Ok(())
    }

    pub(crate) fn with(shared: Shared<K>) -> Self {
        let targets = Mutex::new(Targets { runtime: None, by_key: HashMap::new() });
        Self { owner: Arc::new(Owner { shared: Arc::new(shared), targets }) }
    }

    /// What a report reads: it keeps no check alive.
    pub(crate) fn shared(&self) -> &Arc<Shared<K>> {
        &self.owner.shared
    }
}

impl<K> Clone for Monitor<K> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone() }
    }
}

impl<K> fmt::Debug for Monitor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("shared", &self.owner.shared).finish_non_exhaustive()
    }
}

// === impl Owner ===

impl<K> Drop for Owner<K> {
    fn drop(&mut self) {
        let targets = self.targets.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let runs = || targets.by_key.values().filter_map(|target| target.run.as_ref());
        runs().for_each(Run::end);
        self.shared.forget_all();
        runs().for_each(Run::wait);
    }
}

// === impl Target ===

impl Target {
    fn spawn<K: Key>(&mut self, key: &K, shared: &Arc<Shared<K>>, runtime: &Handle) {
        let gate = Arc::new(Gate::default());
        let check = task::run(shared.begin(key, gate.clone()), self.probe.clone(), self.wake.clone());
        self.run = Some(Run { task: runtime.spawn(check).abort_handle(), gate });
    }
}

// === impl Run ===

impl Run {
    /// No check and no event begins from now on, but for what is beginning right now.
    fn end(&self) {
        self.gate.close();
        self.task.abort();
    }

    /// Waits until what was beginning has begun. No lock may be held: it may be the user's code.
    fn wait(&self) {
        self.gate.wait();
    }
}
