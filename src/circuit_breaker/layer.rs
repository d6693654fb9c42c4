//! [`CircuitBreakerLayer`] and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::breaker::{Breaker, Observer};
use super::config::{CircuitBreakerConfig, OpenTime, ProbeRule, SlowCalls, Window};
use super::handle::CircuitBreakerHandle;
use super::service::CircuitBreaker;
use super::state::Transition;
use crate::circuit_state::CircuitState;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::DefaultClassifier;
use crate::telemetry::Listener;

/// Puts a circuit breaker around a service.
///
/// **All services made by one layer share one breaker**, whether the layer is applied once and the service cloned, the layer
/// is applied twice, or a clone of the layer is. For breakers that are independent build a layer each.
///
/// # Examples
///
/// See the [module documentation](crate::circuit_breaker).
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C = DefaultClassifier> {
    handle: CircuitBreakerHandle,
    classifier: C,
}

/// Builds a [`CircuitBreakerLayer`], or only its [`CircuitBreakerHandle`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::circuit_breaker::{CircuitBreakerLayer, OpenTime, Window};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let layer = CircuitBreakerLayer::builder("users-db")
///     .window(Window::Time { length: Duration::from_secs(30) })
///     .failure_rate(0.3)
///     .open_time(OpenTime::Constant(Duration::from_secs(10)))
///     .build()?;
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
pub struct CircuitBreakerBuilder<C> {
    name: Name,
    config: CircuitBreakerConfig,
    classifier: C,
    listener: Option<Arc<dyn Listener>>,
    observers: Vec<Observer>,
}

// === impl CircuitBreakerLayer ===

impl CircuitBreakerLayer {
    /// A layer with these settings, that takes `Ok` for success and `Err` for failure.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] when [`CircuitBreakerConfig::validate`] finds a value that cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
    ///
    /// assert!(CircuitBreakerLayer::new("db", CircuitBreakerConfig::default()).is_ok());
    /// ```
    pub fn new(name: impl Into<Name>, config: CircuitBreakerConfig) -> Result<Self, InvalidConfig> {
        Self::builder(name).config(config).build()
    }

    /// A builder with the default settings.
    ///
    /// # Examples
    ///
    /// See [`CircuitBreakerBuilder`].
    pub fn builder(name: impl Into<Name>) -> CircuitBreakerBuilder<DefaultClassifier> {
        CircuitBreakerBuilder::new(name.into())
    }
}

impl<C> CircuitBreakerLayer<C> {
    pub(super) const fn from_parts(handle: CircuitBreakerHandle, classifier: C) -> Self {
        Self { handle, classifier }
    }

    /// The same breaker, judged by another classifier.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    /// use mainstay::{BoxError, Outcome, classify_fn};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// let layer = breaker.layer().classify(classify_fn(|result: Result<&u16, &BoxError>| match result {
    ///     Ok(status) if *status < 500 => Outcome::Success,
    ///     _ => Outcome::Transient,
    /// }));
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn classify<D>(self, classifier: D) -> CircuitBreakerLayer<D> {
        CircuitBreakerLayer { handle: self.handle, classifier }
    }

    /// The handle of the breaker.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let layer = CircuitBreakerLayer::new("db", CircuitBreakerConfig::default())?;
    /// assert_eq!(layer.handle().state(), mainstay::CircuitState::Closed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        self.handle.clone()
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.classifier.clone(), self.handle.clone())
    }
}

// === impl CircuitBreakerBuilder ===

impl CircuitBreakerBuilder<DefaultClassifier> {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            config: CircuitBreakerConfig::default(),
            classifier: DefaultClassifier,
            listener: None,
            observers: Vec::new(),
        }
    }
}

impl<C> CircuitBreakerBuilder<C> {
    /// Replaces all settings.
    #[must_use]
    pub fn config(mut self, config: CircuitBreakerConfig) -> Self {
        self.config = config;
        self
    }

    /// The settings so far.
    #[must_use]
    pub const fn settings(&self) -> &CircuitBreakerConfig {
        &self.config
    }

    /// Sets [`CircuitBreakerConfig::window`].
    #[must_use]
    pub fn window(mut self, window: Window) -> Self {
        self.config.window = window;
        self
    }

    /// Sets [`CircuitBreakerConfig::minimum_calls`].
    #[must_use]
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.config.minimum_calls = calls;
        self
    }

    /// Sets [`CircuitBreakerConfig::failure_rate`]; `None` switches it off.
    #[must_use]
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.config.failure_rate = rate.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::slow_calls`]; `None` switches it off.
    #[must_use]
    pub fn slow_calls(mut self, slow: impl Into<Option<SlowCalls>>) -> Self {
        self.config.slow_calls = slow.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::consecutive_failures`]; `None` switches it off.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.config.consecutive_failures = failures.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::open_time`].
    #[must_use]
    pub fn open_time(mut self, open_time: OpenTime) -> Self {
        self.config.open_time = open_time;
        self
    }

    /// Sets [`CircuitBreakerConfig::probes`].
    #[must_use]
    pub fn probes(mut self, probes: u32) -> Self {
        self.config.probes = probes;
        self
    }

    /// Sets [`CircuitBreakerConfig::probe_rule`].
    #[must_use]
    pub fn probe_rule(mut self, rule: ProbeRule) -> Self {
        self.config.probe_rule = rule;
        self
    }

    /// Sets [`CircuitBreakerConfig::probe_deadline`].
    #[must_use]
    pub fn probe_deadline(mut self, deadline: Duration) -> Self {
        self.config.probe_deadline = deadline;
        self
    }

    /// Sets [`CircuitBreakerConfig::abandoned_is_failure`].
    #[must_use]
    pub fn abandoned_is_failure(mut self, yes: bool) -> Self {
        self.config.abandoned_is_failure = yes;
        self
    }

    /// Sets [`CircuitBreakerConfig::throttled_is_failure`].
    #[must_use]
    pub fn throttled_is_failure(mut self, yes: bool) -> Self {
        self.config.throttled_is_failure = yes;
        self
    }

    /// Sets [`CircuitBreakerConfig::initial_state`].
    #[must_use]
    pub fn initial_state(mut self, state: CircuitState) -> Self {
        self.config.initial_state = state;
        self
    }

    /// Judges calls by `classifier`, a [`Classify`](crate::Classify). A closure goes through
    /// [`classify_fn`](crate::classify_fn).
    #[must_use]
    pub fn classify<D>(self, classifier: D) -> CircuitBreakerBuilder<D> {
        let Self { name, config, listener, observers, classifier: _ } = self;
        CircuitBreakerBuilder { name, config, classifier, listener, observers }
    }

    /// Tells `listener` of the breaker's events.
    #[must_use]
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Tells `observer` of every transition, on the thread that made it, outside any lock; a panic in it is caught. May be
    /// given several times.
    ///
    /// Two transitions made at the same time by two threads can be told in either order: an observer that keeps a copy of
    /// the state should read it from the handle.
    ///
    /// # Examples
    ///
    /// See [`Transition`].
    #[must_use]
    pub fn on_transition(mut self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Checks the settings and builds the layer.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the field whose value cannot be used, and the value.
    pub fn build(self) -> Result<CircuitBreakerLayer<C>, InvalidConfig> {
        let Self { name, config, classifier, listener, observers } = self;
        config.validate()?;
        let handle = CircuitBreakerHandle::from_breaker(Breaker::new(name, config, listener, observers, true));
        Ok(CircuitBreakerLayer { handle, classifier })
    }

    /// Checks the settings and builds the breaker without a layer; the classifier is not used.
    ///
    /// # Errors
    ///
    /// As of [`build`](Self::build).
    pub fn build_handle(self) -> Result<CircuitBreakerHandle, InvalidConfig> {
        self.build().map(|layer| layer.handle)
    }
}

impl<C: fmt::Debug> fmt::Debug for CircuitBreakerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("name", &self.name)
            .field("config", &self.config)
            .field("classifier", &self.classifier)
            .finish_non_exhaustive()
    }
}
