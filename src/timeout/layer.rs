//! [`TimeoutLayer`] and its builder.

use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::handle::Shared;
use super::{Computed, Fixed, Timeout, TimeoutConfig, TimeoutHandle};
use crate::cores::striped_arc::StripedArc;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::telemetry::{Emitter, Listener};

/// Gives calls a limited time. See the [module documentation](crate::timeout).
///
/// The time ends with the response: the body of an HTTP response is not covered. Put `http::DeadlineBodyLayer` below a total timeout to
/// end bodies at its deadline, too.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::TimeoutLayer;
///
/// let whole_call = TimeoutLayer::total("orders", Duration::from_secs(1))?;
/// let each_attempt = TimeoutLayer::attempt("orders", Duration::from_millis(300))?;
/// # let _ = (whole_call, each_attempt);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct TimeoutLayer<T = Fixed> {
    shared: StripedArc<Shared>,
    source: T,
}

/// Builds a [`TimeoutLayer`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::TimeoutLayer;
///
/// let layer = TimeoutLayer::builder("orders").timeout(Duration::from_secs(1)).include_readiness(true).build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct TimeoutBuilder<T = Fixed> {
    name: Name,
    config: TimeoutConfig,
    listener: Option<Arc<dyn Listener>>,
    source: T,
}

// === impl TimeoutLayer ===

impl TimeoutLayer {
    /// `timeout` for a whole call, with all of its attempts and waits: goes above the retry.
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
    /// assert!(mainstay::TimeoutLayer::total("orders", Duration::ZERO).is_err());
    /// ```
    pub fn total(name: impl Into<Name>, timeout: Duration) -> Result<Self, InvalidConfig> {
        Self::new(name, TimeoutConfig::total(timeout))
    }

    /// `timeout` for one attempt: goes below the retry.
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
    /// assert!(mainstay::TimeoutLayer::attempt("orders", Duration::from_secs(1)).is_ok());
    /// ```
    pub fn attempt(name: impl Into<Name>, timeout: Duration) -> Result<Self, InvalidConfig> {
        Self::new(name, TimeoutConfig::attempt(timeout))
    }

    /// The layer of `config`.
    ///
    /// # Errors
    ///
    /// What [`TimeoutConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
    ///
    /// assert!(TimeoutLayer::new("orders", TimeoutConfig::default()).is_ok());
    /// ```
    pub fn new(name: impl Into<Name>, config: TimeoutConfig) -> Result<Self, InvalidConfig> {
        Self::builder(name).config(config).build()
    }

    /// A builder, starting from the default settings: for what the constructors leave out.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::TimeoutLayer::builder("orders").build()?;
    /// assert_eq!(layer.handle().name().as_str(), "orders");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn builder(name: impl Into<Name>) -> TimeoutBuilder {
        TimeoutBuilder { name: name.into(), config: TimeoutConfig::default(), listener: None, source: Fixed::new() }
    }
}

impl<F> TimeoutLayer<Computed<F>> {
    /// A timeout that `compute` makes from each request; `config` says of which kind, and what holds where it says `None`.
    /// See [`TimeoutBuilder::computed`].
    ///
    /// # Errors
    ///
    /// What [`TimeoutConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
    ///
    /// struct Report { days: u64 }
    ///
    /// let config = TimeoutConfig::total(Duration::from_secs(1));
    /// let layer = TimeoutLayer::computed("reports", config, |report: &Report| {
    ///     (report.days > 1).then(|| Duration::from_secs(report.days))
    /// })?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn computed<Req>(name: impl Into<Name>, config: TimeoutConfig, compute: F) -> Result<Self, InvalidConfig>
    where
        F: Fn(&Req) -> Option<Duration>,
    {
        TimeoutLayer::builder(name).config(config).computed(compute).build()
    }
}

impl<T> TimeoutLayer<T> {
    /// Reads the counts and changes the timeout, for all services of this layer.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
    ///
    /// let layer = TimeoutLayer::new("orders", TimeoutConfig::default())?;
    /// assert_eq!(layer.handle().statistics().timed_out, 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle::new(self.shared.value().clone())
    }
}

impl<S, T: Clone> Layer<S> for TimeoutLayer<T> {
    type Service = Timeout<S, T>;

    fn layer(&self, inner: S) -> Timeout<S, T> {
        Timeout::new(inner, self.shared.clone(), self.source.clone())
    }
}

// === impl TimeoutBuilder ===

impl<T> TimeoutBuilder<T> {
    /// Sets all settings at once; those set before are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::timeout::{TimeoutConfig, TimeoutLayer};
    ///
    /// let layer = TimeoutLayer::builder("orders").config(TimeoutConfig::default()).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn config(mut self, config: TimeoutConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`TimeoutConfig::timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::TimeoutLayer;
    ///
    /// let layer = TimeoutLayer::builder("orders").timeout(Duration::from_secs(3)).build()?;
    /// assert_eq!(layer.handle().config().timeout, Duration::from_secs(3));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// Sets [`TimeoutConfig::kind`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::timeout::{TimeoutKind, TimeoutLayer};
    ///
    /// let layer = TimeoutLayer::builder("orders").kind(TimeoutKind::Total).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn kind(mut self, kind: super::TimeoutKind) -> Self {
        self.config.kind = kind;
        self
    }

    /// Sets [`TimeoutConfig::include_readiness`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::TimeoutLayer;
    ///
    /// let layer = TimeoutLayer::builder("orders").include_readiness(true).build()?;
    /// assert!(layer.handle().config().include_readiness);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn include_readiness(mut self, include: bool) -> Self {
        self.config.include_readiness = include;
        self
    }

    /// Tells `listener` of each call that is cut off.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::TimeoutLayer;
    /// use mainstay::telemetry::Event;
    ///
    /// let layer = TimeoutLayer::builder("orders").listener(|event: &Event<'_>| eprintln!("{event}")).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Computes the timeout of each call from its request; the configured one holds where this says `None`. Zero refuses the
    /// call, as one whose time is up. It runs on the calling task at each `call`, so it must be quick.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::timeout::{TimeoutKind, TimeoutLayer};
    ///
    /// let layer = TimeoutLayer::builder("orders")
    ///     .kind(TimeoutKind::Total)
    ///     .timeout(Duration::from_secs(1))
    ///     .computed(|batch: &Vec<u32>| (batch.len() > 100).then_some(Duration::from_secs(5)))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn computed<F, Req>(self, compute: F) -> TimeoutBuilder<Computed<F>>
    where
        F: Fn(&Req) -> Option<Duration>,
    {
        let Self { name, config, listener, .. } = self;
        TimeoutBuilder { name, config, listener, source: Computed::new(compute) }
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// What [`TimeoutConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let built = mainstay::TimeoutLayer::builder("orders").timeout(Duration::ZERO).build();
    /// assert_eq!(built.unwrap_err().field(), "timeout");
    /// ```
    pub fn build(self) -> Result<TimeoutLayer<T>, InvalidConfig> {
        self.config.validate().map_err(|error| error.of_layer(self.name.clone()))?;
        let emitter = Emitter::new(&self.name, self.listener);
        Ok(TimeoutLayer { shared: StripedArc::new(Shared::new(emitter, self.config)), source: self.source })
    }
}

impl<T> std::fmt::Debug for TimeoutBuilder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimeoutBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
