//! [`CircuitBreakerHandle`]: reads a breaker, controls it, and admits calls without a service.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Breaker, now};
use super::config::CircuitBreakerConfig;
use super::future::ResponseFuture;
use super::layer::{CircuitBreakerBuilder, CircuitBreakerLayer};
use super::permit::Permit;
use super::shared::Admits;
use super::state::IllegalTransition;
use super::statistics::CircuitBreakerStatistics;
use crate::circuit_state::CircuitState;
use crate::error::{CircuitOpen, InvalidConfig};
use crate::name::Name;
use crate::outcome::DefaultClassifier;

/// A cheap clonable handle of one breaker: reads its state and statistics, forces and resets it, and admits calls by hand.
///
/// Every change is seen by the very next call on any thread.
///
/// # Examples
///
/// Around something that is no `tower` service:
///
/// ```
/// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
/// use mainstay::{CircuitState, Outcome};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let mut config = CircuitBreakerConfig::default();
/// config.consecutive_failures = Some(2);
/// let breaker = CircuitBreakerHandle::new("db", config)?;
///
/// for _ in 0..2 {
///     let permit = breaker.try_acquire().expect("closed");
///     // ... the work itself ...
///     permit.record(Outcome::Transient);
/// }
/// let refusal = breaker.try_acquire().unwrap_err();
/// assert_eq!(refusal.state(), CircuitState::Open);
/// assert_eq!(refusal.cause(), Some(Outcome::Transient));
/// assert!(refusal.retry_after().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreakerHandle {
    breaker: Arc<Breaker>,
}

// === impl CircuitBreakerHandle ===

impl CircuitBreakerHandle {
    /// A breaker of its own.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] when [`CircuitBreakerConfig::validate`] finds a value that cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// assert!(CircuitBreakerHandle::new("db", CircuitBreakerConfig::default()).is_ok());
    /// ```
    pub fn new(name: impl Into<Name>, config: CircuitBreakerConfig) -> Result<Self, InvalidConfig> {
        Self::builder(name).config(config).build_handle()
    }

    /// One of several breakers of the same name, such as those of a pool's endpoints: their counts add up under that name, their
    /// states do not and are not published. The caller has validated `config`.
    #[cfg(feature = "balance")]
    pub(crate) fn one_of_many(name: Name, config: CircuitBreakerConfig) -> Self {
        Self::from_breaker(Breaker::new(name, config, super::own_rules::OwnRules::default(), None, Vec::new(), false))
    }

    /// A builder; end it with [`build_handle`](CircuitBreakerBuilder::build_handle).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::CircuitBreakerHandle;
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::builder("db").consecutive_failures(5).build_handle()?;
    /// assert_eq!(breaker.name().as_str(), "db");
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(name: impl Into<Name>) -> CircuitBreakerBuilder<DefaultClassifier> {
        CircuitBreakerBuilder::new(name.into())
    }

    pub(super) fn from_breaker(breaker: Breaker) -> Self {
        Self { breaker: Arc::new(breaker) }
    }

    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// A layer whose services all share this breaker.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// let layer = breaker.layer();
    /// breaker.force_open();
    /// assert_eq!(layer.handle().state(), mainstay::CircuitState::ForcedOpen);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn layer(&self) -> CircuitBreakerLayer<DefaultClassifier> {
        CircuitBreakerLayer::from_parts(self.clone(), DefaultClassifier)
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// assert_eq!(&**CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?.name(), "db");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.breaker.name()
    }

    /// The settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let config = CircuitBreakerConfig::default();
    /// assert_eq!(CircuitBreakerHandle::new("db", config.clone())?.config(), config);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn config(&self) -> CircuitBreakerConfig {
        self.breaker.config.clone()
    }

    /// The state. An open circuit becomes half-open when a call asks for admission, not before; see
    /// [`admits`](Self::admits).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// assert_eq!(breaker.state(), CircuitState::Closed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[inline]
    pub fn state(&self) -> CircuitState {
        self.breaker.shared.state()
    }

    /// What the next call would be told. Takes no slot, changes no state and takes no lock.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{Admits, CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// assert_eq!(breaker.admits(), Admits::Call);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[inline]
    pub fn admits(&self) -> Admits {
        self.breaker.shared.admits(now)
    }

    /// Admits one call. In a half-open circuit the permit holds one of the probes' slots.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] when the breaker refuses: with its name and state, the remaining wait and the cause.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitBreakerHandle, CircuitState, Outcome};
    ///
    /// let breaker = CircuitBreakerHandle::builder("db").build_handle()?;
    /// breaker.try_acquire().expect("a closed circuit admits").record(Outcome::Success);
    /// breaker.force_open();
    /// assert_eq!(breaker.try_acquire().unwrap_err().state(), CircuitState::ForcedOpen);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, CircuitOpen> {
        let ticket = self.breaker.admit()?;
        Ok(Permit::new(self.breaker.clone(), ticket))
    }

    /// Runs `future` if the breaker admits it: an `Err` is a failure, an `Ok` a success. The slot is taken now, not when the
    /// future is first polled.
    ///
    /// # Errors
    ///
    /// The future's own error, or [`Rejected::CircuitOpen`](crate::Rejected::CircuitOpen); `future` is then never polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `future` and counts the call as abandoned.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// let rows = breaker.call(async { Ok::<_, BoxError>(3) }).await?;
    /// assert_eq!(rows, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call<F>(&self, future: F) -> ResponseFuture<F, DefaultClassifier> {
        self.call_with(DefaultClassifier, future)
    }

    /// The same, judged by a classifier of yours.
    ///
    /// # Errors
    ///
    /// As of [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// As of [`call`](Self::call).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    /// use mainstay::{BoxError, Outcome, classify_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// let by_status = classify_fn(|result: Result<&u16, &BoxError>| match result {
    ///     Ok(200) => Outcome::Success,
    ///     Ok(404) => Outcome::Refused,
    ///     _ => Outcome::Transient,
    /// });
    /// breaker.call_with(by_status, async { Ok(404) }).await?;
    /// assert_eq!(breaker.statistics().refused, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_with<F, C>(&self, classifier: C, future: F) -> ResponseFuture<F, C> {
        match self.try_acquire() {
            Ok(permit) => ResponseFuture::admitted(future, permit, classifier),
            Err(open) => ResponseFuture::refused(open),
        }
    }

    /// The statistics: exact as soon as no call is running.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// assert_eq!(breaker.statistics().calls(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn statistics(&self) -> CircuitBreakerStatistics {
        CircuitBreakerStatistics::of(&self.breaker)
    }

    /// Refuses every call until told otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.force_open();
    /// assert!(breaker.try_acquire().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn force_open(&self) {
        self.force(CircuitState::ForcedOpen);
    }

    /// Closes the circuit, from whatever state. What a circuit that is closed already has recorded, it keeps; see
    /// [`reset`](Self::reset).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.force_open();
    /// breaker.close();
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        self.force(CircuitState::Closed);
    }

    /// Admits every call and records nothing, not even in the statistics.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.disable();
    /// breaker.try_acquire().unwrap().record(Outcome::Transient);
    /// assert_eq!(breaker.statistics().calls(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn disable(&self) {
        self.force(CircuitState::Disabled);
    }

    /// Admits every call and records it; the breaker never opens.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.observe();
    /// (0..50).for_each(|_| breaker.try_acquire().unwrap().record(Outcome::Transient));
    /// assert_eq!(breaker.statistics().failure_rate, Some(1.0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(&self) {
        self.force(CircuitState::Observing);
    }

    /// Opens the circuit for `wait`, after which it admits probes. The wait of a circuit that is open already is replaced.
    ///
    /// # Errors
    ///
    /// [`IllegalTransition`] when the breaker is disabled or observing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.open_for(Duration::from_secs(7200))?;
    /// assert!(breaker.try_acquire().unwrap_err().retry_after() > Some(Duration::from_secs(7000)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_for(&self, wait: Duration) -> Result<(), IllegalTransition> {
        self.breaker.transition_to(CircuitState::Open, Some(wait))
    }

    /// Goes to `state`, as an operator wants it. Going to the state it is in changes nothing and is no event.
    ///
    /// # Errors
    ///
    /// [`IllegalTransition`] when there is no such transition; the state is then unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.transition_to(CircuitState::Open)?;
    /// breaker.transition_to(CircuitState::HalfOpen)?;
    /// assert!(breaker.try_acquire().unwrap().is_probe());
    /// # Ok(())
    /// # }
    /// ```
    pub fn transition_to(&self, state: CircuitState) -> Result<(), IllegalTransition> {
        self.breaker.transition_to(state, None)
    }

    /// Closes the circuit and forgets what was recorded; calls that were admitted before have no say any more. The counts
    /// of [`statistics`](Self::statistics) go on.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.force_open();
    /// breaker.reset();
    /// assert_eq!(breaker.state(), mainstay::CircuitState::Closed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reset(&self) {
        self.breaker.reset();
    }

    /// A transition that every state allows.
    fn force(&self, state: CircuitState) {
        let result = self.breaker.transition_to(state, None);
        debug_assert!(result.is_ok(), "{result:?}");
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::time::Duration;

    use super::super::config::OpenTime;
    use super::*;
    use crate::cores::sync::model::{join, spawn, with_interruptions};
    use crate::outcome::Outcome;

    /// Calls = successes + refused + failures + ignored + rejected + abandoned, whatever the circuit goes through.
    #[test]
    fn every_call_is_accounted_for_once() {
        with_interruptions(2, || {
            let config = CircuitBreakerConfig {
                consecutive_failures: Some(1),
                failure_rate: None,
                open_time: OpenTime::Constant(Duration::ZERO),
                probes: 1,
                ..CircuitBreakerConfig::default()
            };
            let breaker = CircuitBreakerHandle::one_of_many("model".into(), config);
            let threads = [Some(Outcome::Success), Some(Outcome::Transient), None].map(|outcome| {
                let breaker = breaker.clone();
                spawn(move || match (breaker.try_acquire(), outcome) {
                    (Ok(permit), Some(outcome)) => {
                        permit.record(outcome);
                        false
                    }
                    (Ok(permit), None) => {
                        drop(permit);
                        false
                    }
                    (Err(_), _) => true,
                })
            });
            let [success, failure, abandoned] = threads.map(join);
            let now = breaker.statistics();
            let rejected = u64::from(success) + u64::from(failure) + u64::from(abandoned);
            assert_eq!((now.calls(), now.rejected), (3, rejected));
            assert_eq!(now.successes, u64::from(!success));
            assert_eq!(now.failures, u64::from(!failure));
            assert_eq!(now.abandoned, u64::from(!abandoned));
            assert_eq!((now.refused, now.ignored, now.probes_in_flight), (0, 0, 0));
        });
    }
}
