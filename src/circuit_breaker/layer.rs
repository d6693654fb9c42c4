//! [`CircuitBreakerLayer`] and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::admission::AdmissionMode;
use super::breaker::{Breaker, Observer};
use super::config::{CircuitBreakerConfig, OpenTime, ProbeRule, SlowCalls, Window};
use super::failure_period::FailuresPerPeriod;
use super::handle::CircuitBreakerHandle;
use super::opening::{Opening, OwnOpenTime};
use super::own_rules::OwnRules;
use super::ramp::Ramp;
use super::service::CircuitBreaker;
use super::transition::Transition;
use super::trip::{OwnTrip, Trip};
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
/// ```
/// use mainstay::BoxError;
/// use tower::{Layer, Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let layer = mainstay::CircuitBreakerLayer::builder("db").build()?;
/// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
/// let response = service.ready().await?.call(1);
/// assert_eq!(response.await?, 2);
///
/// layer.handle().force_open();
/// assert!(service.ready().await?.call(1).await.is_err());
/// # Ok(())
/// # }
/// ```
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
#[must_use = "a builder does nothing until it is built"]
pub struct CircuitBreakerBuilder<C> {
    pub(super) name: Name,
    pub(super) config: CircuitBreakerConfig,
    pub(super) own: OwnRules,
    pub(super) classifier: C,
    pub(super) listener: Option<Arc<dyn Listener>>,
    pub(super) observers: Vec<Observer>,
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

    /// A builder, starting from the default settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").build()?;
    /// assert_eq!(layer.handle().name().as_str(), "db");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
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
            own: OwnRules::default(),
            classifier: DefaultClassifier,
            listener: None,
            observers: Vec::new(),
        }
    }
}

impl<C> CircuitBreakerBuilder<C> {
    /// Sets all settings at once; those set before are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitBreakerConfig, CircuitBreakerLayer};
    ///
    /// let layer = CircuitBreakerLayer::builder("db").config(CircuitBreakerConfig::default()).build()?;
    /// assert_eq!(layer.handle().config(), CircuitBreakerConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn config(mut self, config: CircuitBreakerConfig) -> Self {
        self.config = config;
        self
    }

    /// The settings so far.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// assert_eq!(CircuitBreakerLayer::builder("db").probes(3).settings().probes, 3);
    /// ```
    #[must_use]
    pub const fn settings(&self) -> &CircuitBreakerConfig {
        &self.config
    }

    /// Sets [`CircuitBreakerConfig::window`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, Window};
    ///
    /// let window = Window::Time { length: Duration::from_secs(30) };
    /// let layer = CircuitBreakerLayer::builder("db").window(window).build()?;
    /// assert_eq!(layer.handle().config().window, window);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn window(mut self, window: Window) -> Self {
        self.config.window = window;
        self
    }

    /// Sets [`CircuitBreakerConfig::minimum_calls`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").minimum_calls(20).build()?;
    /// assert_eq!(layer.handle().config().minimum_calls, 20);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.config.minimum_calls = calls;
        self
    }

    /// Sets [`CircuitBreakerConfig::failure_rate`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").failure_rate(0.3).build()?;
    /// assert_eq!(layer.handle().config().failure_rate, Some(0.3));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.config.failure_rate = rate.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::slow_calls`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, SlowCalls};
    ///
    /// let slow_calls = SlowCalls { longer_than: Duration::from_millis(800), rate: 0.5 };
    /// let layer = CircuitBreakerLayer::builder("db").slow_calls(slow_calls).build()?;
    /// assert_eq!(layer.handle().config().slow_calls, Some(slow_calls));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn slow_calls(mut self, slow: impl Into<Option<SlowCalls>>) -> Self {
        self.config.slow_calls = slow.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::watch_in_flight`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, SlowCalls};
    ///
    /// let layer = CircuitBreakerLayer::builder("db")
    ///     .slow_calls(SlowCalls { longer_than: Duration::from_millis(800), rate: 0.5 })
    ///     .watch_in_flight(true)
    ///     .build()?;
    /// assert!(layer.handle().config().watch_in_flight);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn watch_in_flight(mut self, yes: bool) -> Self {
        self.config.watch_in_flight = yes;
        self
    }

    /// Sets [`CircuitBreakerConfig::consecutive_failures`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").consecutive_failures(5).build()?;
    /// assert_eq!(layer.handle().config().consecutive_failures, Some(5));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.config.consecutive_failures = failures.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::failures_per_period`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, FailuresPerPeriod};
    ///
    /// let limit = FailuresPerPeriod { failures: 10, period: Duration::from_secs(60) };
    /// let layer = CircuitBreakerLayer::builder("db").failures_per_period(limit).build()?;
    /// assert_eq!(layer.handle().config().failures_per_period, Some(limit));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn failures_per_period(mut self, limit: impl Into<Option<FailuresPerPeriod>>) -> Self {
        self.config.failures_per_period = limit.into();
        self
    }

    /// Adds a rule of one's own for when a closed circuit opens; one given before is replaced. With it, no other rule has to be
    /// set. It reads the [`window`](CircuitBreakerConfig::window), which is then kept also without a rate.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, TripStatistics};
    /// use mainstay::Outcome;
    ///
    /// let layer = CircuitBreakerLayer::builder("db")
    ///     .failure_rate(None)
    ///     .trip(|seen: &TripStatistics, _: Outcome| seen.failures >= 3 && seen.consecutive_failures >= 2)
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn trip(mut self, trip: impl Trip) -> Self {
        self.own.trip = Some(OwnTrip::new(trip));
        self
    }

    /// Sets [`CircuitBreakerConfig::open_time`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, OpenTime};
    ///
    /// let open_time = OpenTime::Constant(Duration::from_secs(10));
    /// let layer = CircuitBreakerLayer::builder("db").open_time(open_time).build()?;
    /// assert_eq!(layer.handle().config().open_time, open_time);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn open_time(mut self, open_time: OpenTime) -> Self {
        self.config.open_time = open_time;
        self
    }

    /// Works out how long the circuit stays open from what opens it, in place of the wait of
    /// [`CircuitBreakerConfig::open_time`], which it is shown. One given before is replaced.
    ///
    /// It is not asked where the time is said: by an operator, or by a verdict under
    /// [`CircuitBreakerConfig::throttled_opens`]. It runs under the breaker's lock: be brief, and don't ask the breaker itself,
    /// which would wait for itself for ever. Should it panic, the wait is that of `open_time`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, Opening};
    ///
    /// // One second for every failure in the window.
    /// let layer = CircuitBreakerLayer::builder("db")
    ///     .open_time_with(|opening: &Opening| Duration::from_secs(opening.seen.failures))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn open_time_with(mut self, wait: impl Fn(&Opening) -> Duration + Send + Sync + 'static) -> Self {
        self.own.open_time = Some(OwnOpenTime::new(wait));
        self
    }

    /// Fixes the draws of the jitter of [`CircuitBreakerConfig::open_time`]: the same seed gives the same waits, for tests and
    /// simulations. Without it each breaker draws differently.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitState;
    /// use mainstay::backoff::Jitter;
    /// use mainstay::circuit_breaker::{CircuitBreakerHandle, OpenTime};
    ///
    /// let (initial, max) = (Duration::from_secs(1), Duration::from_secs(60));
    /// let open_time = OpenTime::Exponential { initial, factor: 2.0, max, jitter: Jitter::Equal };
    /// let wait = |seed| {
    ///     let (send, waits) = std::sync::mpsc::channel();
    ///     let breaker = CircuitBreakerHandle::builder("db")
    ///         .open_time(open_time)
    ///         .seed(seed)
    ///         .on_transition(move |change| send.send(change.open_for).expect("somebody listens"))
    ///         .build_handle()?;
    ///     breaker.transition_to(CircuitState::Open).expect("a closed circuit can be opened");
    ///     Ok::<_, mainstay::InvalidConfig>(waits.recv().expect("it opened"))
    /// };
    /// assert_eq!(wait(7)?, wait(7)?);
    /// assert_ne!(wait(7)?, wait(8)?);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.own.seed = Some(seed);
        self
    }

    /// Sets [`CircuitBreakerConfig::probes`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").probes(3).build()?;
    /// assert_eq!(layer.handle().config().probes, 3);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn probes(mut self, probes: u32) -> Self {
        self.config.probes = probes;
        self
    }

    /// Sets [`CircuitBreakerConfig::probe_rule`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, ProbeRule};
    ///
    /// let probe_rule = ProbeRule::ConsecutiveSuccesses(3);
    /// let layer = CircuitBreakerLayer::builder("db").probe_rule(probe_rule).build()?;
    /// assert_eq!(layer.handle().config().probe_rule, probe_rule);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn probe_rule(mut self, rule: ProbeRule) -> Self {
        self.config.probe_rule = rule;
        self
    }

    /// Sets [`CircuitBreakerConfig::probe_deadline`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").probe_deadline(Duration::from_secs(5)).build()?;
    /// assert_eq!(layer.handle().config().probe_deadline, Duration::from_secs(5));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn probe_deadline(mut self, deadline: Duration) -> Self {
        self.config.probe_deadline = deadline;
        self
    }

    /// Sets [`CircuitBreakerConfig::half_open_max`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").half_open_max(Duration::from_secs(60)).build()?;
    /// assert_eq!(layer.handle().config().half_open_max, Some(Duration::from_secs(60)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn half_open_max(mut self, most: impl Into<Option<Duration>>) -> Self {
        self.config.half_open_max = most.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::ramp`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerLayer, Ramp};
    ///
    /// let layer = CircuitBreakerLayer::builder("db").ramp(Ramp::default()).build()?;
    /// assert_eq!(layer.handle().config().ramp.unwrap().shares, [0.1, 0.25, 0.5]);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn ramp(mut self, ramp: impl Into<Option<Ramp>>) -> Self {
        self.config.ramp = ramp.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::abandoned_is_failure`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").abandoned_is_failure(true).build()?;
    /// assert!(layer.handle().config().abandoned_is_failure);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn abandoned_is_failure(mut self, yes: bool) -> Self {
        self.config.abandoned_is_failure = yes;
        self
    }

    /// Sets [`CircuitBreakerConfig::throttled_is_failure`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").throttled_is_failure(true).build()?;
    /// assert!(layer.handle().config().throttled_is_failure);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn throttled_is_failure(mut self, yes: bool) -> Self {
        self.config.throttled_is_failure = yes;
        self
    }

    /// Sets [`CircuitBreakerConfig::throttled_opens`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").throttled_opens(Duration::from_secs(60)).build()?;
    /// assert_eq!(layer.handle().config().throttled_opens, Some(Duration::from_secs(60)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn throttled_opens(mut self, most: impl Into<Option<Duration>>) -> Self {
        self.config.throttled_opens = most.into();
        self
    }

    /// Sets [`CircuitBreakerConfig::initial_state`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").initial_state(CircuitState::Observing).build()?;
    /// assert_eq!(layer.handle().config().initial_state, CircuitState::Observing);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn initial_state(mut self, state: CircuitState) -> Self {
        self.config.initial_state = state;
        self
    }

    /// Sets [`CircuitBreakerConfig::admission`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitBreakerLayer;
    /// use mainstay::circuit_breaker::AdmissionMode;
    ///
    /// let wait = AdmissionMode::Wait { max: Duration::from_secs(1), queue: 100 };
    /// let layer = CircuitBreakerLayer::builder("db").admission(wait).build()?;
    /// assert_eq!(layer.handle().config().admission, wait);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn admission(mut self, mode: AdmissionMode) -> Self {
        self.config.admission = mode;
        self
    }

    /// Judges calls by `classifier`, a [`Classify`](crate::Classify). A closure goes through
    /// [`classify_fn`](crate::classify_fn).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{BoxError, CircuitBreakerLayer, Outcome, classify_fn};
    ///
    /// let layer = CircuitBreakerLayer::builder("db")
    ///     .classify(classify_fn(|result: Result<&u16, &BoxError>| match result {
    ///         Ok(status) if *status < 500 => Outcome::Success,
    ///         _ => Outcome::Transient,
    ///     }))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn classify<D>(self, classifier: D) -> CircuitBreakerBuilder<D> {
        let Self { name, config, own, listener, observers, classifier: _ } = self;
        CircuitBreakerBuilder { name, config, own, classifier, listener, observers }
    }

    /// Tells `listener` of the breaker's events.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    /// use mainstay::telemetry::Event;
    ///
    /// let layer = CircuitBreakerLayer::builder("db").listener(|event: &Event<'_>| eprintln!("{event}")).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
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
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let layer = CircuitBreakerLayer::builder("db")
    ///     .on_transition(|change| println!("from {} to {}", change.from, change.to))
    ///     .build()?;
    /// layer.handle().force_open();
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn on_transition(mut self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Checks the settings and builds the layer.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the field whose value cannot be used, and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerLayer;
    ///
    /// let built = CircuitBreakerLayer::builder("db").minimum_calls(0).build();
    /// assert_eq!(built.unwrap_err().field(), "minimum_calls");
    /// ```
    pub fn build(self) -> Result<CircuitBreakerLayer<C>, InvalidConfig> {
        let Self { name, config, own, classifier, listener, observers } = self;
        config.validate_with(own.trip.is_some()).map_err(|error| error.of_layer(name.clone()))?;
        let breaker = Breaker::new(name, config, own, listener, observers, true);
        let handle = CircuitBreakerHandle::from_breaker(breaker);
        Ok(CircuitBreakerLayer { handle, classifier })
    }

    /// Checks the settings and builds the breaker without a layer; the classifier is not used.
    ///
    /// # Errors
    ///
    /// As of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerHandle;
    ///
    /// let breaker = CircuitBreakerHandle::builder("db").probes(3).build_handle()?;
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
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
