//! [`Pool`] and its builder.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::config::{EjectionConfig, Picker, PoolConfig};
use super::core::Core;
use super::endpoint::Key;
use super::handle::PoolHandle;
use super::registry::Registry;
use super::repeat::{CloneRequest, NeverRepeat};
use super::snapshot::Snapshot;
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::DefaultClassifier;
use crate::telemetry::{Emitter, Listener};

/// A set of endpoints that is one service: each call goes to one of them.
///
/// A clone is cheap (two reference counts) and shares everything with its original: endpoints, loads, judgements. See the
/// [module documentation](super).
///
/// A pool holds on to the endpoints that it saw at its last call: one that is kept but not called keeps the services of
/// removed endpoints alive until its next call or its drop.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
/// use mainstay::balance::Pool;
/// use mainstay::BoxError;
/// use tower::service_fn;
///
/// let pool = Pool::builder("app").build()?;
/// for port in [8001_u16, 8002] {
///     pool.handle().add(port, service_fn(move |_: &'static str| async move { Ok::<_, BoxError>(port) }));
/// }
/// let port = pool.oneshot("hello").await?;
/// assert!(port == 8001 || port == 8002);
/// # Ok(())
/// # }
/// ```
pub struct Pool<K, S, C = DefaultClassifier, R = NeverRepeat> {
    pub(super) registry: Arc<Registry<K, S>>,
    pub(super) snapshot: Arc<Snapshot<K, S>>,
    pub(super) version: u64,
    pub(super) classifier: C,
    pub(super) repeat: R,
}

/// Builds a [`Pool`]: one method for each field of [`PoolConfig`], and the parts that are no data.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::balance::{Picker, Pool};
/// # use tower::util::BoxCloneSyncService;
/// # type Client = BoxCloneSyncService<(), (), mainstay::BoxError>;
///
/// let pool: Pool<String, Client> =
///     Pool::builder("app").picker(Picker::InFlight).empty_wait(Duration::from_secs(1)).build()?;
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct PoolBuilder<K, S, C = DefaultClassifier, R = NeverRepeat> {
    name: Name,
    config: PoolConfig,
    classifier: C,
    repeat: R,
    listener: Option<Arc<dyn Listener>>,
    endpoints: PhantomData<fn() -> (K, S)>,
}

// === impl Pool ===

impl<K: Key, S> Pool<K, S> {
    /// An empty pool with these settings.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the field that is out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::{Pool, PoolConfig};
    /// # type Client = ();
    ///
    /// let pool: Pool<String, Client> = Pool::new("app", PoolConfig::default())?;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn new(name: impl Into<Name>, config: PoolConfig) -> Result<Self, InvalidConfig> {
        Self::builder(name).config(config).build()
    }

    /// Builds a pool of this name, with default settings.
    ///
    /// # Examples
    ///
    /// See [`PoolBuilder`].
    pub fn builder(name: impl Into<Name>) -> PoolBuilder<K, S> {
        PoolBuilder {
            name: name.into(),
            config: PoolConfig::default(),
            classifier: DefaultClassifier,
            repeat: NeverRepeat,
            listener: None,
            endpoints: PhantomData,
        }
    }
}

impl<K: Key, S, C, R> Pool<K, S, C, R> {
    /// What adds, removes and inspects the endpoints.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add(8001, ());
    /// assert_eq!(pool.handle().endpoints().len(), 1);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> PoolHandle<K, S> {
        PoolHandle::new(self.registry.clone())
    }

    /// The endpoints as of now; one load where nothing has changed.
    #[inline]
    pub(super) fn refresh(&mut self) {
        let version = self.registry.version();
        if version != self.version {
            self.take_snapshot(version);
        }
    }

    #[cold]
    #[inline(never)]
    fn take_snapshot(&mut self, version: u64) {
        self.version = version;
        self.snapshot = self.registry.snapshot();
    }
}

impl<K, S, C: Clone, R: Clone> Clone for Pool<K, S, C, R> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            snapshot: self.snapshot.clone(),
            version: self.version,
            classifier: self.classifier.clone(),
            repeat: self.repeat.clone(),
        }
    }
}

impl<K, S, C, R> fmt::Debug for Pool<K, S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", self.registry.core.name()).finish_non_exhaustive()
    }
}

// === impl PoolBuilder ===

impl<K: Key, S, C, R> PoolBuilder<K, S, C, R> {
    /// Takes all settings at once, replacing those made before.
    pub fn config(mut self, config: PoolConfig) -> Self {
        self.config = config;
        self
    }

    /// [`PoolConfig::picker`].
    pub const fn picker(mut self, picker: Picker) -> Self {
        self.config.picker = picker;
        self
    }

    /// [`PoolConfig::default_latency`].
    pub const fn default_latency(mut self, latency: Duration) -> Self {
        self.config.default_latency = latency;
        self
    }

    /// [`PoolConfig::decay`].
    pub const fn decay(mut self, decay: Duration) -> Self {
        self.config.decay = decay;
        self
    }

    /// [`PoolConfig::ready_timeout`].
    pub const fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.config.ready_timeout = timeout;
        self
    }

    /// [`PoolConfig::empty_wait`].
    pub const fn empty_wait(mut self, wait: Duration) -> Self {
        self.config.empty_wait = wait;
        self
    }

    /// [`PoolConfig::unready_min`].
    pub const fn unready_min(mut self, pause: Duration) -> Self {
        self.config.unready_min = pause;
        self
    }

    /// [`PoolConfig::unready_max`].
    pub const fn unready_max(mut self, pause: Duration) -> Self {
        self.config.unready_max = pause;
        self
    }

    /// [`PoolConfig::max_out`].
    pub const fn max_out(mut self, share: f64) -> Self {
        self.config.max_out = share;
        self
    }

    /// [`PoolConfig::panic_threshold`].
    pub const fn panic_threshold(mut self, share: f64) -> Self {
        self.config.panic_threshold = share;
        self
    }

    /// [`PoolConfig::await_first_probe`].
    pub const fn await_first_probe(mut self, wait: bool) -> Self {
        self.config.await_first_probe = wait;
        self
    }

    /// [`PoolConfig::ejection`]: settings, or `None` to turn it off.
    pub fn ejection(mut self, ejection: impl Into<Option<EjectionConfig>>) -> Self {
        self.config.ejection = ejection.into();
        self
    }

    /// [`PoolConfig::circuit_breaker`]: settings, or `None` for none.
    pub fn circuit_breaker(mut self, breaker: impl Into<Option<CircuitBreakerConfig>>) -> Self {
        self.config.circuit_breaker = breaker.into();
        self
    }

    /// [`PoolConfig::seed`].
    pub const fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// What turns results into outcomes. Default: [`DefaultClassifier`]. It is cloned into each call.
    pub fn classify<D>(self, classifier: D) -> PoolBuilder<K, S, D, R> {
        let Self { name, config, classifier: _, repeat, listener, endpoints } = self;
        PoolBuilder { name, config, classifier, repeat, listener, endpoints }
    }

    /// Sends a request that an endpoint refused unsent (its own limiter, its own breaker) to another endpoint; the request is
    /// cloned before each call. Default: the caller gets the refusal.
    pub fn clone_requests(self) -> PoolBuilder<K, S, C, CloneRequest> {
        self.repeat(CloneRequest)
    }

    /// The same, for requests that are copied in some other way, or not all of them.
    pub fn repeat<T>(self, repeat: T) -> PoolBuilder<K, S, C, T> {
        let Self { name, config, classifier, repeat: _, listener, endpoints } = self;
        PoolBuilder { name, config, classifier, repeat, listener, endpoints }
    }

    /// Who hears of the pool's events.
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Builds the pool, empty.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the field that is out of range.
    pub fn build(self) -> Result<Pool<K, S, C, R>, InvalidConfig> {
        self.config.validate()?;
        let registry = Registry::new(Core::new(self.config, Emitter::new(self.name, self.listener)));
        Ok(Pool {
            snapshot: registry.snapshot(),
            version: registry.version(),
            registry,
            classifier: self.classifier,
            repeat: self.repeat,
        })
    }
}

impl<K, S, C, R> fmt::Debug for PoolBuilder<K, S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
