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
use super::repeat::{CloneRequests, NeverRepeat};
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

    /// A builder, starting from the default settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").build()?;
    /// assert_eq!(pool.handle().name().as_str(), "app");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
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
    /// Sets all settings at once; those set before are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::{Pool, PoolConfig};
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").config(PoolConfig::default()).build()?;
    /// assert_eq!(pool.handle().config(), PoolConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn config(mut self, config: PoolConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`PoolConfig::picker`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::{Picker, Pool};
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").picker(Picker::RoundRobin).build()?;
    /// assert_eq!(pool.handle().config().picker, Picker::RoundRobin);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn picker(mut self, picker: Picker) -> Self {
        self.config.picker = picker;
        self
    }

    /// Sets [`PoolConfig::default_latency`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").default_latency(Duration::from_millis(5)).build()?;
    /// assert_eq!(pool.handle().config().default_latency, Duration::from_millis(5));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn default_latency(mut self, latency: Duration) -> Self {
        self.config.default_latency = latency;
        self
    }

    /// Sets [`PoolConfig::decay`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").decay(Duration::from_secs(30)).build()?;
    /// assert_eq!(pool.handle().config().decay, Duration::from_secs(30));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn decay(mut self, decay: Duration) -> Self {
        self.config.decay = decay;
        self
    }

    /// Sets [`PoolConfig::ready_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").ready_timeout(Duration::from_secs(2)).build()?;
    /// assert_eq!(pool.handle().config().ready_timeout, Duration::from_secs(2));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.config.ready_timeout = timeout;
        self
    }

    /// Sets [`PoolConfig::empty_wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").empty_wait(Duration::from_secs(1)).build()?;
    /// assert_eq!(pool.handle().config().empty_wait, Duration::from_secs(1));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn empty_wait(mut self, wait: Duration) -> Self {
        self.config.empty_wait = wait;
        self
    }

    /// Sets [`PoolConfig::unready_min`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").unready_min(Duration::from_millis(20)).build()?;
    /// assert_eq!(pool.handle().config().unready_min, Duration::from_millis(20));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn unready_min(mut self, pause: Duration) -> Self {
        self.config.unready_min = pause;
        self
    }

    /// Sets [`PoolConfig::unready_max`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").unready_max(Duration::from_secs(5)).build()?;
    /// assert_eq!(pool.handle().config().unready_max, Duration::from_secs(5));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn unready_max(mut self, pause: Duration) -> Self {
        self.config.unready_max = pause;
        self
    }

    /// Sets [`PoolConfig::max_out`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").max_out(0.3).build()?;
    /// assert_eq!(pool.handle().config().max_out, 0.3);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_out(mut self, share: f64) -> Self {
        self.config.max_out = share;
        self
    }

    /// Sets [`PoolConfig::panic_threshold`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").panic_threshold(0.25).build()?;
    /// assert_eq!(pool.handle().config().panic_threshold, 0.25);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn panic_threshold(mut self, share: f64) -> Self {
        self.config.panic_threshold = share;
        self
    }

    /// Sets [`PoolConfig::await_first_probe`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").await_first_probe(true).build()?;
    /// assert!(pool.handle().config().await_first_probe);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn await_first_probe(mut self, wait: bool) -> Self {
        self.config.await_first_probe = wait;
        self
    }

    /// Sets [`PoolConfig::ejection`]: settings, or `None` to turn it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").ejection(None).build()?;
    /// assert_eq!(pool.handle().config().ejection, None);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn ejection(mut self, ejection: impl Into<Option<EjectionConfig>>) -> Self {
        self.config.ejection = ejection.into();
        self
    }

    /// Sets [`PoolConfig::circuit_breaker`]: settings, or `None` for none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerConfig;
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").circuit_breaker(CircuitBreakerConfig::default()).build()?;
    /// assert!(pool.handle().config().circuit_breaker.is_some());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn circuit_breaker(mut self, breaker: impl Into<Option<CircuitBreakerConfig>>) -> Self {
        self.config.circuit_breaker = breaker.into();
        self
    }

    /// Sets [`PoolConfig::seed`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").seed(7).build()?;
    /// assert_eq!(pool.handle().config().seed, Some(7));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.config.seed = seed.into();
        self
    }

    /// Judges results by `classifier`, which is cloned into each call. Default: [`DefaultClassifier`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    /// use mainstay::{BoxError, Outcome, classify_fn};
    ///
    /// let pool: Pool<String, (), _> = Pool::builder("app")
    ///     .classify(classify_fn(|result: Result<&u16, &BoxError>| match result {
    ///         Ok(status) if *status < 500 => Outcome::Success,
    ///         _ => Outcome::Transient,
    ///     }))
    ///     .build()?;
    /// # let _ = pool;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn classify<D>(self, classifier: D) -> PoolBuilder<K, S, D, R> {
        let Self { name, config, classifier: _, repeat, listener, endpoints } = self;
        PoolBuilder { name, config, classifier, repeat, listener, endpoints }
    }

    /// Sends a request that an endpoint did not send to another endpoint: its own limiter or breaker rejected it, or the
    /// connection was refused ([`Outcome::NotSent`](crate::Outcome::NotSent)). The request is cloned before each call. Default:
    /// the caller gets the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::{CloneRequests, Pool};
    /// use mainstay::DefaultClassifier;
    ///
    /// let pool: Pool<String, (), DefaultClassifier, CloneRequests> = Pool::builder("app").clone_requests().build()?;
    /// # let _ = pool;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn clone_requests(self) -> PoolBuilder<K, S, C, CloneRequests> {
        self.repeat(CloneRequests)
    }

    /// The same, for requests that are copied in some other way, or not all of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let pool: Pool<String, (), _, _> =
    ///     Pool::builder("app").repeat(|body: &Vec<u8>| (body.len() < 1024).then(|| body.clone())).build()?;
    /// # let _ = pool;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn repeat<T>(self, repeat: T) -> PoolBuilder<K, S, C, T> {
        let Self { name, config, classifier, repeat: _, listener, endpoints } = self;
        PoolBuilder { name, config, classifier, repeat, listener, endpoints }
    }

    /// Tells `listener` of the pool's events.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    /// use mainstay::telemetry::Event;
    ///
    /// let pool: Pool<String, ()> = Pool::builder("app").listener(|event: &Event<'_>| eprintln!("{event}")).build()?;
    /// # let _ = pool;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Builds the pool, empty.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the field that is out of range.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Pool;
    ///
    /// let built: Result<Pool<String, ()>, _> = Pool::builder("app").max_out(1.5).build();
    /// assert_eq!(built.unwrap_err().field(), "max_out");
    /// ```
    pub fn build(self) -> Result<Pool<K, S, C, R>, InvalidConfig> {
        self.config.validate().map_err(|error| error.of_layer(self.name.clone()))?;
        let registry = Registry::new(Core::new(self.config, Emitter::new(&self.name, self.listener)));
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
