//! [`CircuitBreakerHandle`]: reads a breaker, controls it, and admits calls without a service.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, now};
use super::config::CircuitBreakerConfig;
use super::follow_open_time::FollowOpenTime;
use super::future::ResponseFuture;
use super::layer::{CircuitBreakerBuilder, CircuitBreakerLayer};
use super::permit::Permit;
use super::shared::{Admits, Place, WAIT};
use super::statistics::CircuitBreakerStatistics;
use super::subscription::Subscription;
use super::transition::IllegalTransition;
use super::waiter::Waiter;
use crate::circuit_state::CircuitState;
use crate::cores::striped_arc::StripedArc;
use crate::error::{CircuitOpen, InvalidConfig};
use crate::name::Name;
use crate::outcome::DefaultClassifier;

/// A cheap clonable handle of one breaker: reads its state and statistics, forces, resets and reconfigures it, and admits calls
/// by hand.
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
    breaker: StripedArc<Breaker>,
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
        Self::one_of(Breaker::new(name, config, super::own_rules::OwnRules::default(), None, Vec::new(), false))
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

    /// The handle of one of many breakers, which takes little memory.
    pub(super) fn one_of(breaker: Breaker) -> Self {
        Self { breaker: StripedArc::lean(breaker) }
    }

    pub(super) fn from_breaker(breaker: Breaker) -> Self {
        Self { breaker: StripedArc::new(breaker) }
    }

    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// [`try_acquire`](Self::try_acquire) of a handle that is not needed any more.
    pub(super) fn into_permit(self) -> Result<Permit, CircuitOpen> {
        let ticket = self.breaker.admit()?;
        Ok(Permit::new(self.breaker, ticket))
    }

    /// When the breaker was last of use, if it was: `now` while another handle, the permit of a running call or a watcher holds
    /// it, or while it is in a state that somebody wanted; the end of its open time for an open circuit. `None` if a new breaker would
    /// serve as well.
    pub(super) fn busy_until(&self, now: std::time::Instant) -> Option<std::time::Instant> {
        let is_alone = self.breaker.is_alone();
        // The last of the others recorded its verdict before it let go.
        fence(Ordering::Acquire);
        if !is_alone || self.breaker.is_watched() {
            return Some(now);
        }
        self.breaker.shared.with_settings(|machine| machine.busy_until(now))
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

    /// The settings, as they are now.
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
        self.breaker.shared.with_settings(|machine| machine.config().clone())
    }

    /// Gives the breaker other settings while it runs. They hold from the next call and the next verdict on; nothing trips in
    /// the moment itself. What is kept:
    ///
    /// * the state, the statistics, and the say of the calls and probes that are running;
    /// * the open time of a circuit that is open: [`open_time`](CircuitBreakerConfig::open_time) holds from the next opening
    ///   on, and the openings in a row go on counting;
    /// * the number of [`probes`](CircuitBreakerConfig::probes) and their [rule](CircuitBreakerConfig::probe_rule) for the rest
    ///   of a half-open time, while its deadlines and the steps of a [ramp](CircuitBreakerConfig::ramp) are new at once;
    /// * of the recorded calls what the new window can keep: a shorter count window the newest, a longer one all of them in
    ///   their order; another time window what is young enough, as far as the buckets tell. A window of the other kind begins
    ///   empty, and so does one that was not needed before. [`failures_per_period`](CircuitBreakerConfig::failures_per_period)
    ///   is kept as a time window is; the failures in a row are kept;
    /// * with another slow threshold, what was counted as slow. Calls that are running are then not
    ///   [watched](CircuitBreakerConfig::watch_in_flight) any more and are judged when they end, by the new threshold; those
    ///   that were counted stay counted once. A call that was admitted when there was no threshold is never slow.
    ///
    /// A [`Trip`](super::Trip) and an open time that are functions stay;
    /// [`initial_state`](CircuitBreakerConfig::initial_state) is for a breaker that is built.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] when [`CircuitBreakerConfig::validate`] finds a value that cannot be used; nothing is changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitBreakerHandle, CircuitState, Outcome};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::builder("db").consecutive_failures(10).build_handle()?;
    /// (0..4).for_each(|_| breaker.try_acquire().expect("closed").record(Outcome::Transient));
    ///
    /// let mut config = breaker.config();
    /// config.consecutive_failures = Some(5);
    /// breaker.reconfigure(config)?;
    /// breaker.try_acquire().expect("closed").record(Outcome::Transient);
    /// assert_eq!(breaker.state(), CircuitState::Open);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reconfigure(&self, config: CircuitBreakerConfig) -> Result<(), InvalidConfig> {
        self.breaker.reconfigure(config)
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

    /// The same for a handle that is used for one call after another. `None` when it takes more than a look at the state.
    #[inline]
    pub(super) fn acquire_at_once(&mut self) -> Option<Permit> {
        let ticket = self.breaker.shared.admit_at_once()?;
        Some(Permit::new(self.breaker.lend(), ticket))
    }

    /// The same when it also takes a look at the clock.
    #[inline]
    pub(super) fn acquire_measured(&mut self) -> Option<Permit> {
        let ticket = self.breaker.shared.admit_measured(now)?;
        Some(Permit::new(self.breaker.lend(), ticket))
    }

    /// Admits the call of a waiter.
    pub(super) fn acquire_in_turn(&self, place: &mut Place) -> Result<Permit, CircuitOpen> {
        let ticket = self.breaker.admit_in_turn(place)?;
        Ok(Permit::new(self.breaker.clone(), ticket))
    }

    /// Admits the call of a waiter. A rejection is not counted, since it goes on waiting.
    pub(super) fn acquire_waited(&self, place: &mut Place) -> Option<Permit> {
        let (result, change) = self.breaker.shared.admit_in_turn(Some(place), now());
        self.breaker.tell(change);
        Some(Permit::new(self.breaker.clone(), result.ok()?))
    }

    /// Whether calls wait while the breaker does not admit them, and it does not at the moment.
    pub(crate) fn has_to_wait(&self) -> bool {
        let shared = &self.breaker.shared;
        shared.takes(WAIT)
            && matches!(shared.state(), CircuitState::Open | CircuitState::HalfOpen | CircuitState::ForcedOpen)
    }

    /// Rejects a call to a service that was not ready.
    #[cfg(feature = "http")]
    pub(crate) fn refuse(&self) -> CircuitOpen {
        self.breaker.refuse()
    }

    /// Counts a call that is rejected with `open`.
    #[cfg(feature = "http")]
    pub(crate) fn rejected(&self, open: CircuitOpen) -> CircuitOpen {
        self.breaker.rejected(open)
    }

    /// Runs `future` if the breaker admits it: an `Err` is a failure, an `Ok` a success. The slot is taken now, not when the
    /// future is first polled.
    ///
    /// In [`AdmissionMode::Wait`](super::AdmissionMode::Wait) a call that is not admitted takes its place in the queue when
    /// it is first polled, and runs `future` once it is admitted. That needs a tokio runtime with time enabled.
    ///
    /// # Errors
    ///
    /// The future's own error, or [`Rejected::CircuitOpen`](crate::Rejected::CircuitOpen); `future` is then never polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `future` and counts the call as abandoned. While it waits for the circuit it is no call yet: its
    /// place in the queue goes to the next one.
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
        if self.has_to_wait() {
            return ResponseFuture::waiting(future, Box::new(Waiter::new(self.clone())), classifier);
        }
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

    /// The state as it is, and from then on each change of it: a [`Subscription`], which is a `Stream` too.
    ///
    /// A breaker that nobody subscribes to pays nothing for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    ///
    /// let breaker = mainstay::CircuitBreakerHandle::builder("db").build_handle()?;
    /// let mut states = breaker.subscribe();
    /// breaker.force_open();
    /// assert_eq!(states.try_changed().map(|change| change.state), Some(CircuitState::ForcedOpen));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(self.breaker.watchers())
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

    /// Admits every call and records it; the breaker never opens, and [reports](crate::circuit_breaker#dark-launch) when it would
    /// have.
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

    /// Tells that a check of one's own found the callee well: an open circuit becomes half-open, though its time is not over.
    /// `true` if it was open; any other state stays as it is. Calls decide whether it closes.
    ///
    /// For a monitor of the family `health` there is `follow_health`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::CircuitState;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = mainstay::CircuitBreakerHandle::builder("db").build_handle()?;
    /// assert!(!breaker.health_check_passed(), "it is closed");
    /// breaker.open_for(Duration::from_secs(3600))?;
    /// assert!(breaker.health_check_passed());
    /// assert_eq!(breaker.state(), CircuitState::HalfOpen);
    /// # Ok(())
    /// # }
    /// ```
    pub fn health_check_passed(&self) -> bool {
        self.breaker.health_check_passed()
    }

    /// Makes an open circuit half-open as soon as its time is over, without a call that asks, for as long as the answer is
    /// polled; see [`FollowOpenTime`].
    ///
    /// # Examples
    ///
    /// See [`FollowOpenTime`].
    pub fn follow_open_time(&self) -> FollowOpenTime {
        FollowOpenTime::new(self.breaker.value())
    }

    /// Makes an open circuit half-open when the checks of the target `key` pass again, for as long as the answer is polled;
    /// see [`FollowHealth`](super::FollowHealth).
    ///
    /// # Examples
    ///
    /// See [`FollowHealth`](super::FollowHealth).
    #[cfg(feature = "health")]
    pub fn follow_health<K: crate::health::Key>(
        &self,
        changes: crate::health::Subscription<K>,
        key: K,
    ) -> super::FollowHealth<K> {
        super::FollowHealth::new(self.breaker.value(), changes, key)
    }

    /// Opens the circuit until `until`, from when on it admits probes: [`open_for`](Self::open_for) the time that is left. An
    /// instant that has passed leaves no wait, and the next call is a probe.
    ///
    /// # Errors
    ///
    /// As of [`open_for`](Self::open_for).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    /// use tokio::time::Instant;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.open_until(Instant::now() + Duration::from_secs(1800))?;
    /// assert!(breaker.try_acquire().unwrap_err().retry_after() > Some(Duration::from_secs(1700)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_until(&self, until: Instant) -> Result<(), IllegalTransition> {
        self.open_for(until.saturating_duration_since(Instant::now()))
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
