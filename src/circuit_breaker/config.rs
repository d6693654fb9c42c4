//! [`CircuitBreakerConfig`]: every setting, with its unit, range and default.

use std::time::Duration;

use super::admission::AdmissionMode;
use super::failure_period::FailuresPerPeriod;
use super::ramp::Ramp;
use crate::backoff::Jitter;
use crate::circuit_state::CircuitState;
use crate::error::InvalidConfig;

/// The settings of a circuit breaker.
///
/// Plain data: start from the default and change fields, or read it from a file (feature `serde`; unknown keys are errors,
/// durations are strings such as `"250ms"`).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::circuit_breaker::{CircuitBreakerConfig, OpenTime, Window};
///
/// let mut config = CircuitBreakerConfig::default();
/// config.window = Window::Time { length: Duration::from_secs(30) };
/// config.open_time = OpenTime::Constant(Duration::from_secs(2));
/// assert!(config.validate().is_ok());
///
/// config.failure_rate = Some(1.5);
/// assert_eq!(config.validate().unwrap_err().field(), "failure_rate");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// Which calls the two rates are taken over. Default: the last 100 calls.
    pub window: Window,
    /// How many calls the window must hold before a rate can trip, and how many calls without an answer open the circuit when not
    /// one call was answered. At least 1; at most the size of a count window. Default: 20, the request volume that Hystrix
    /// starts to judge at.
    pub minimum_calls: u32,
    /// Trips when this share of the calls in the window has failed: `failures / calls >= failure_rate`. Above 0.0, at most
    /// 1.0. It is looked at after every verdict, a success too: a success can be the call that completes the minimum.
    /// Default: 0.5.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub failure_rate: Option<f64>,
    /// Trips when calls are slow, failed or not. It costs two clock reads a call. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub slow_calls: Option<SlowCalls>,
    /// Whether a call that is still running beyond [`SlowCalls::longer_than`] is in the window as a slow one before it ends, so
    /// that a dependency that hangs opens the circuit even when no call ever returns. Needs
    /// [`slow_calls`](Self::slow_calls). Default: `false`.
    ///
    /// It is seen when more than the threshold and at most nine eighths of it have passed, by the next call that asks or the
    /// next verdict. From then on the call is in the window once, as a slow call that did not fail, whatever it ends as; its
    /// end is in the statistics, and in the failures in a row and per period, as any other's. With the watch, an admission adds
    /// one to a shared atomic, and every verdict takes the lock.
    pub watch_in_flight: bool,
    /// Trips after this many failures in a row. At least 1. A healthy call starts the row anew; one without evidence does
    /// not. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub consecutive_failures: Option<u32>,
    /// Trips when this many calls have failed within a period, whatever the number of calls that did not. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub failures_per_period: Option<FailuresPerPeriod>,
    /// How long the circuit stays open. Default: 5 s, as Hystrix and Polly have it, and from 5 s to 5.5 s each time that the
    /// probes have opened it again, so that the breakers of a fleet do not go on probing together.
    pub open_time: OpenTime,
    /// How many probes a half-open circuit admits: in all under [`ProbeRule::Rate`] and [`ProbeRule::FirstFailure`], at a
    /// time under [`ProbeRule::ConsecutiveSuccesses`]. From 1 to 1024. Default: 3.
    pub probes: u32,
    /// What the probes must show. Default: [`ProbeRule::Rate`].
    pub probe_rule: ProbeRule,
    /// After this time without a verdict a probe is given up as lost, and its slot goes to the next call that asks; its
    /// verdict, should it still come, is then ignored. Above zero. Set it above the longest call that can succeed.
    /// Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub probe_deadline: Duration,
    /// The longest time that a circuit is half-open without a decision. Once `now - half_opened >= half_open_max`, the next
    /// call that asks, or the next verdict of a probe whatever it says, re-opens the circuit, provided that a probe is out or
    /// one has failed or was slow. Otherwise the stay begins again and keeps the verdicts of the probes, so that a circuit with
    /// few calls closes. Above zero. Default: none, as lost probes are replaced by [`probe_deadline`](Self::probe_deadline) and
    /// it decides in the end. Resilience4j has it as `maxWaitDurationInHalfOpenState`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub half_open_max: Option<Duration>,
    /// Lets the admitted share grow in steps once the probes have shown that the callee is well, instead of jumping to
    /// everything. The ramp has its own times: [`half_open_max`](Self::half_open_max) is over when it begins. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub ramp: Option<Ramp>,
    /// Whether a call dropped before its end (its caller left, an outer timeout fired, a hedge won) is a failure.
    /// Default: `false`, it is no evidence by itself. Either way it is slow if it ran beyond [`SlowCalls::longer_than`], and
    /// [`minimum_calls`](Self::minimum_calls) of them without one answer open the circuit.
    pub abandoned_is_failure: bool,
    /// Whether [`Outcome::Throttled`](crate::Outcome::Throttled) is a failure. Default: `false`, it is no evidence.
    pub throttled_is_failure: bool,
    /// Lets one [`Outcome::Throttled`](crate::Outcome::Throttled) with a `retry_after` above zero open a closed or half-open
    /// circuit for that time, and at most for this one: what the callee says is not to stop its callers for longer. Above
    /// zero. Default: none, it opens nothing.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub throttled_opens: Option<Duration>,
    /// The state to begin in; anything but half-open. Default: closed.
    pub initial_state: CircuitState,
    /// Whether a call that the breaker does not admit is rejected at once, or waits in a bounded queue until it is admitted.
    /// Default: [`AdmissionMode::Reject`].
    pub admission: AdmissionMode,
}

/// Which calls the rates are taken over.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::Window;
///
/// assert_eq!(Window::default(), Window::Count { calls: 100 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields, from = "shorthand::Window"))]
#[non_exhaustive]
pub enum Window {
    /// The last `calls` calls. From 1 to 65 536; two bits each are kept.
    Count {
        /// The number of calls.
        calls: u32,
    },
    /// The calls that ended within the last `length`. At least 10 ms. It is kept in ten buckets, so that a call leaves the
    /// window when between nine tenths and the whole of the length have passed.
    Time {
        /// The length of the window.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        length: Duration,
    },
}

/// How a file may write a [`Window`]: `{ count = 100 }` for `{ count = { calls = 100 } }`, and `{ time = "10s" }` likewise.
#[cfg(feature = "serde")]
mod shorthand {
    use std::time::Duration;

    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Window {
        Count(Count),
        Time(Time),
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number of calls, such as 100")]
    pub(super) enum Count {
        Short(u32),
        Long(Calls),
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Calls {
        calls: u32,
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a duration with a unit, such as 10s")]
    pub(super) enum Time {
        Short(#[serde(with = "crate::cores::serde_duration")] Duration),
        Long(Length),
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Length {
        #[serde(with = "crate::cores::serde_duration")]
        length: Duration,
    }

    impl From<Window> for super::Window {
        fn from(window: Window) -> Self {
            match window {
                Window::Count(Count::Short(calls) | Count::Long(Calls { calls })) => Self::Count { calls },
                Window::Time(Time::Short(length) | Time::Long(Length { length })) => Self::Time { length },
            }
        }
    }
}

/// When slow calls trip the breaker.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::circuit_breaker::SlowCalls;
///
/// let slow = SlowCalls { longer_than: Duration::from_millis(800), rate: 0.5 };
/// assert!(slow.rate > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SlowCalls {
    /// A call is slow when it took strictly longer than this, however it ended. Above zero.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub longer_than: Duration,
    /// Trips when this share of the calls in the window was slow: `slow / calls >= rate`. Above 0.0, at most 1.0.
    pub rate: f64,
}

/// How long an open circuit stays open, before it admits probes. It is over when `now - opened >= wait`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::backoff::Jitter;
/// use mainstay::circuit_breaker::OpenTime;
///
/// let (initial, max) = (Duration::from_secs(1), Duration::from_secs(60));
/// let wait = OpenTime::Exponential { initial, factor: 2.0, max, jitter: Jitter::None };
/// let waits: Vec<u64> = (1..=8).map(|opens| wait.wait(opens).as_secs()).collect();
/// assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum OpenTime {
    /// Always this long. Zero is allowed: the next call is then a probe.
    Constant(#[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))] Duration),
    /// `min` for the first opening since the circuit was last closed, and a time drawn evenly from `min` to `max` for each one
    /// that follows. Clients that lost a callee at the same moment, and whose first probes failed together, then probe it one
    /// after the other, and none before `min`.
    Between {
        /// The shortest time.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        min: Duration,
        /// The longest time. At least `min`.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        max: Duration,
    },
    /// `initial * factor ^ (n - 1)`, at most `max`, where n counts the openings since the circuit was last closed; then
    /// jitter.
    Exponential {
        /// The first wait. Above zero.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        initial: Duration,
        /// What each further opening multiplies the wait by. At least 1.0.
        factor: f64,
        /// The longest wait, after jitter. At least `initial`.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        max: Duration,
        /// How waits are spread, so that the clients that lost a callee in the same moment do not all probe it in the same
        /// moment. [`Jitter::Equal`] is what Finagle revives its endpoints by (from 5 s to 300 s); [`Jitter::Full`] can make
        /// a wait nearly zero. In a file [`Jitter::None`] by default, as Polly and failsafe-go have it: the probes of one
        /// breaker are few.
        #[cfg_attr(feature = "serde", serde(default = "no_jitter"))]
        jitter: Jitter,
    },
}

/// What the probes of a half-open circuit must show.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::ProbeRule;
///
/// assert_eq!(ProbeRule::default(), ProbeRule::Rate);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum ProbeRule {
    /// When all [`probes`](CircuitBreakerConfig::probes) have a verdict, the same rates that trip a closed circuit re-open
    /// this one, and otherwise it closes. Without a [`failure_rate`](CircuitBreakerConfig::failure_rate), one failed probe
    /// re-opens it.
    #[default]
    Rate,
    /// This many healthy probes in a row close the circuit; the first one that fails, or is slow, re-opens it. At least 1.
    ConsecutiveSuccesses(u32),
    /// All [`probes`](CircuitBreakerConfig::probes) must be healthy: the first one that fails, or is slow, re-opens the
    /// circuit at once, and when each has had a healthy verdict it closes. No more calls are sent than
    /// [`probes`](CircuitBreakerConfig::probes), whatever the rates say.
    FirstFailure,
}

/// The longest count window.
const MAX_WINDOW_CALLS: u32 = 65_536;
/// The most probes.
pub(super) const MAX_PROBES: u32 = 1024;
/// The shortest time window.
pub(super) const MIN_WINDOW_LENGTH: Duration = Duration::from_millis(10);

// === impl CircuitBreakerConfig ===

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            window: Window::default(),
            minimum_calls: 20,
            failure_rate: Some(0.5),
            slow_calls: None,
            watch_in_flight: false,
            consecutive_failures: None,
            failures_per_period: None,
            open_time: OpenTime::default(),
            probes: 3,
            probe_rule: ProbeRule::default(),
            probe_deadline: Duration::from_secs(30),
            half_open_max: None,
            ramp: None,
            abandoned_is_failure: false,
            throttled_is_failure: false,
            throttled_opens: None,
            initial_state: CircuitState::Closed,
            admission: AdmissionMode::default(),
        }
    }
}

impl CircuitBreakerConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the first field whose value cannot be used, and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::CircuitBreakerConfig;
    ///
    /// let mut config = CircuitBreakerConfig::default();
    /// config.minimum_calls = 101;
    /// let error = config.validate().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid `minimum_calls` = 101: must be from 1 to the 100 calls of the window");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.validate_with(false)
    }

    /// The same for a breaker that may have a trip of its own, and then needs none of these.
    pub(super) fn validate_with(&self, own_trip: bool) -> Result<(), InvalidConfig> {
        self.window.validate().map_err(|error| error.within("window"))?;
        if let Window::Count { calls } = self.window
            && (self.failure_rate.is_some() || self.slow_calls.is_some())
            && self.minimum_calls > calls
        {
            let requirement = format!("must be from 1 to the {calls} calls of the window");
            return Err(InvalidConfig::new("minimum_calls", self.minimum_calls, requirement));
        }
        if self.minimum_calls == 0 {
            return Err(InvalidConfig::new("minimum_calls", 0, "must be at least 1"));
        }
        if let Some(rate) = self.failure_rate {
            validate_rate("failure_rate", rate)?;
        }
        if let Some(slow) = &self.slow_calls {
            slow.validate().map_err(|error| error.within("slow_calls"))?;
        }
        if self.watch_in_flight && self.slow_calls.is_none() {
            return Err(InvalidConfig::new("watch_in_flight", true, "needs `slow_calls`, which says what is slow"));
        }
        if self.consecutive_failures == Some(0) {
            return Err(InvalidConfig::new("consecutive_failures", 0, "must be at least 1"));
        }
        if let Some(limit) = &self.failures_per_period {
            limit.validate().map_err(|error| error.within("failures_per_period"))?;
        }
        let has_rule =
            self.uses_rates() || self.consecutive_failures.is_some() || self.failures_per_period.is_some() || own_trip;
        if !has_rule {
            let requirement = "must be set, or `slow_calls`, `consecutive_failures` or `failures_per_period`: nothing could \
                               trip this breaker";
            return Err(InvalidConfig::new("failure_rate", self.failure_rate, requirement));
        }
        self.open_time.validate().map_err(|error| error.within("open_time"))?;
        if !(1..=MAX_PROBES).contains(&self.probes) {
            return Err(InvalidConfig::new("probes", self.probes, format!("must be from 1 to {MAX_PROBES}")));
        }
        if self.probe_rule == ProbeRule::ConsecutiveSuccesses(0) {
            return Err(InvalidConfig::new("probe_rule", self.probe_rule, "must ask for at least 1 success"));
        }
        if self.probe_deadline.is_zero() {
            return Err(InvalidConfig::new("probe_deadline", self.probe_deadline, "must be above zero"));
        }
        if self.half_open_max.is_some_and(|most| most.is_zero()) {
            return Err(InvalidConfig::new("half_open_max", Duration::ZERO, "must be above zero"));
        }
        if let Some(ramp) = &self.ramp {
            ramp.validate().map_err(|error| error.within("ramp"))?;
        }
        if self.throttled_opens.is_some_and(|most| most.is_zero()) {
            return Err(InvalidConfig::new("throttled_opens", Duration::ZERO, "must be above zero"));
        }
        if self.initial_state == CircuitState::HalfOpen {
            return Err(InvalidConfig::new("initial_state", self.initial_state, "must not be half-open"));
        }
        self.admission.validate().map_err(|error| error.within("admission"))
    }

    /// The slow threshold, if running calls are held against it.
    pub(super) fn watched_threshold(&self) -> Option<Duration> {
        self.slow_calls.filter(|_| self.watch_in_flight).map(|slow| slow.longer_than)
    }

    /// Whether one of the two rates is looked at.
    pub(super) fn uses_rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow_calls.is_some()
    }
}

// === impl Window ===

impl Default for Window {
    fn default() -> Self {
        Self::Count { calls: 100 }
    }
}

impl Window {
    fn validate(&self) -> Result<(), InvalidConfig> {
        match *self {
            Self::Count { calls } if !(1..=MAX_WINDOW_CALLS).contains(&calls) => {
                Err(InvalidConfig::new("calls", calls, format!("must be from 1 to {MAX_WINDOW_CALLS}")))
            }
            Self::Time { length } if length < MIN_WINDOW_LENGTH => {
                Err(InvalidConfig::new("length", length, format!("must be at least {MIN_WINDOW_LENGTH:?}")))
            }
            _ => Ok(()),
        }
    }
}

// === impl SlowCalls ===

impl SlowCalls {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if self.longer_than.is_zero() {
            return Err(InvalidConfig::new("longer_than", self.longer_than, "must be above zero"));
        }
        validate_rate("rate", self.rate)
    }
}

fn validate_rate(field: &'static str, rate: f64) -> Result<(), InvalidConfig> {
    if rate > 0.0 && rate <= 1.0 {
        Ok(())
    } else {
        Err(InvalidConfig::new(field, rate, "must be above 0.0 and at most 1.0"))
    }
}

// === impl OpenTime ===

impl Default for OpenTime {
    fn default() -> Self {
        Self::Between { min: Duration::from_secs(5), max: Duration::from_millis(5_500) }
    }
}

impl OpenTime {
    /// The wait of the `opens`-th opening since the circuit was last closed, counted from 1, before jitter.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::circuit_breaker::OpenTime;
    ///
    /// assert_eq!(OpenTime::Constant(Duration::from_secs(3)).wait(9), Duration::from_secs(3));
    /// ```
    #[must_use]
    pub fn wait(&self, opens: u32) -> Duration {
        match *self {
            Self::Constant(wait) | Self::Between { min: wait, .. } => wait,
            Self::Exponential { initial, factor, max, .. } => {
                let exponent = i32::try_from(opens.saturating_sub(1)).unwrap_or(i32::MAX);
                // An infinite or too long wait is the maximum.
                let seconds = initial.as_secs_f64() * factor.powi(exponent);
                Duration::try_from_secs_f64(seconds).map_or(max, |wait| wait.min(max))
            }
        }
    }

    /// The wait after jitter; `draw` gives a draw that is uniform over all 64-bit values, and is asked for where there is
    /// jitter only.
    pub(super) fn jittered(&self, opens: u32, draw: impl FnOnce() -> u64) -> Duration {
        match *self {
            Self::Exponential { max, jitter, .. } if jitter != Jitter::None => {
                jitter.spread(self.wait(opens), max, draw())
            }
            Self::Between { min, max } if min < max && opens > 1 => {
                // The upper 53 bits of the draw are a share of 1, exactly.
                #[allow(clippy::cast_precision_loss, reason = "53 bits")]
                let share = (draw() >> 11) as f64 / (1_u64 << 53) as f64;
                min + (max - min).mul_f64(share)
            }
            _ => self.wait(opens),
        }
    }

    fn validate(&self) -> Result<(), InvalidConfig> {
        if let Self::Between { min, max } = *self
            && max < min
        {
            return Err(InvalidConfig::new("max", max, format!("must be at least the shortest {min:?}")));
        }
        let Self::Exponential { initial, factor, max, jitter } = *self else { return Ok(()) };
        jitter.validate()?;
        if initial.is_zero() {
            return Err(InvalidConfig::new("initial", initial, "must be above zero"));
        }
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(InvalidConfig::new("factor", factor, "must be at least 1.0"));
        }
        if max < initial {
            return Err(InvalidConfig::new("max", max, format!("must be at least the initial {initial:?}")));
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
fn no_jitter() -> Jitter {
    Jitter::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(change: impl FnOnce(&mut CircuitBreakerConfig)) -> String {
        let mut config = CircuitBreakerConfig::default();
        change(&mut config);
        config.validate().map_or_else(|error| error.field().to_owned(), |()| "valid".to_owned())
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(field_of(|_| ()), "valid");
    }

    #[test]
    fn every_bad_value_is_named_by_its_field() {
        let slow = |longer_than, rate| Some(SlowCalls { longer_than, rate });
        let second = Duration::from_secs(1);
        let exponential =
            |initial, factor, max| OpenTime::Exponential { initial, factor, max, jitter: Jitter::Proportional(1.0) };
        let jittered = |jitter| OpenTime::Exponential { initial: second, factor: 1.0, max: second, jitter };
        assert_eq!(field_of(|c| c.open_time = jittered(Jitter::Proportional(0.0))), "open_time.jitter");
        assert_eq!(field_of(|c| c.open_time = jittered(Jitter::Proportional(f64::NAN))), "open_time.jitter");
        assert_eq!(field_of(|c| c.window = Window::Count { calls: 0 }), "window.calls");
        assert_eq!(field_of(|c| c.window = Window::Count { calls: 65_537 }), "window.calls");
        assert_eq!(field_of(|c| c.window = Window::Time { length: Duration::from_millis(9) }), "window.length");
        assert_eq!(field_of(|c| c.minimum_calls = 0), "minimum_calls");
        assert_eq!(field_of(|c| c.minimum_calls = 101), "minimum_calls");
        assert_eq!(field_of(|c| c.failure_rate = Some(0.0)), "failure_rate");
        assert_eq!(field_of(|c| c.failure_rate = Some(1.01)), "failure_rate");
        assert_eq!(field_of(|c| c.failure_rate = Some(f64::NAN)), "failure_rate");
        assert_eq!(field_of(|c| c.failure_rate = None), "failure_rate");
        assert_eq!(field_of(|c| c.slow_calls = slow(Duration::ZERO, 0.5)), "slow_calls.longer_than");
        assert_eq!(field_of(|c| c.slow_calls = slow(second, f64::INFINITY)), "slow_calls.rate");
        assert_eq!(field_of(|c| c.watch_in_flight = true), "watch_in_flight");
        assert_eq!(field_of(|c| c.consecutive_failures = Some(0)), "consecutive_failures");
        let per_period = |failures, period| Some(FailuresPerPeriod { failures, period });
        assert_eq!(field_of(|c| c.failures_per_period = per_period(0, second)), "failures_per_period.failures");
        let short = Duration::from_millis(9);
        assert_eq!(field_of(|c| c.failures_per_period = per_period(1, short)), "failures_per_period.period");
        assert_eq!(field_of(|c| c.open_time = exponential(Duration::ZERO, 2.0, second)), "open_time.initial");
        assert_eq!(field_of(|c| c.open_time = exponential(second, 0.9, second)), "open_time.factor");
        assert_eq!(field_of(|c| c.open_time = exponential(second, 2.0, Duration::ZERO)), "open_time.max");
        let between = |min, max| OpenTime::Between { min, max };
        assert_eq!(field_of(|c| c.open_time = between(second, second - Duration::from_nanos(1))), "open_time.max");
        assert_eq!(field_of(|c| c.open_time = between(second, second)), "valid");
        assert_eq!(field_of(|c| c.probes = 0), "probes");
        assert_eq!(field_of(|c| c.probes = 1025), "probes");
        assert_eq!(field_of(|c| c.probe_rule = ProbeRule::ConsecutiveSuccesses(0)), "probe_rule");
        assert_eq!(field_of(|c| c.probe_deadline = Duration::ZERO), "probe_deadline");
        assert_eq!(field_of(|c| c.half_open_max = Some(Duration::ZERO)), "half_open_max");
        assert_eq!(field_of(|c| c.throttled_opens = Some(Duration::ZERO)), "throttled_opens");
        assert_eq!(field_of(|c| c.initial_state = CircuitState::HalfOpen), "initial_state");
        let wait = |max, queue| AdmissionMode::Wait { max, queue };
        assert_eq!(field_of(|c| c.admission = wait(Duration::ZERO, 1)), "admission.max");
        assert_eq!(field_of(|c| c.admission = wait(second, 0)), "admission.queue");
        assert_eq!(field_of(|c| c.admission = wait(second, 65_537)), "admission.queue");
        assert_eq!(field_of(|c| c.admission = wait(Duration::from_nanos(1), 65_536)), "valid");
    }

    #[test]
    fn a_breaker_of_consecutive_failures_alone_needs_no_window() {
        let only_consecutive = |config: &mut CircuitBreakerConfig| {
            config.failure_rate = None;
            config.consecutive_failures = Some(5);
            config.window = Window::Count { calls: 1 };
        };
        assert_eq!(field_of(only_consecutive), "valid");
    }

    #[test]
    fn failures_per_period_alone_are_enough() {
        let only_per_period = |config: &mut CircuitBreakerConfig| {
            config.failure_rate = None;
            config.failures_per_period = Some(FailuresPerPeriod { failures: 1, period: Duration::from_millis(10) });
        };
        assert_eq!(field_of(only_per_period), "valid");
    }

    #[test]
    fn an_exponential_wait_saturates_at_its_maximum() {
        let max = Duration::from_secs(60);
        let jitter = Jitter::Proportional(1.0);
        let wait = OpenTime::Exponential { initial: Duration::from_secs(1), factor: 1e300, max, jitter };
        assert_eq!(wait.wait(u32::MAX), max);
        assert_eq!(wait.wait(0), Duration::from_secs(1));
        assert_eq!(wait.jittered(u32::MAX, || u64::MAX), max, "the maximum holds after jitter");
        assert_eq!(wait.jittered(u32::MAX, || 0), Duration::ZERO);
    }

    #[test]
    fn a_time_between_two_is_never_below_the_first_nor_above_the_second() {
        let wait = |min, max, draw| OpenTime::Between { min, max }.jittered(2, || draw);
        let (second, more) = (Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!((wait(second, more, 0), wait(second, more, 1 << 63)), (second, Duration::from_secs(2)));
        assert!(wait(second, more, u64::MAX) <= more);
        assert_eq!(wait(second, second, u64::MAX), second);
        assert_eq!(OpenTime::Between { min: second, max: more }.jittered(1, || 1 << 63), second, "the first is exact");
        assert_eq!(wait(Duration::ZERO, Duration::MAX, u64::MAX).min(second), second);
    }

    #[test]
    fn jitter_spreads_a_wait_from_the_lower_end_to_the_upper() {
        let (initial, max) = (Duration::from_secs(8), Duration::from_secs(60));
        let wait =
            |jitter, draw| OpenTime::Exponential { initial, factor: 2.0, max, jitter }.jittered(2, || draw).as_secs();
        assert_eq!((wait(Jitter::Equal, 0), wait(Jitter::Equal, 1 << 63)), (8, 12));
        assert_eq!((wait(Jitter::Full, 0), wait(Jitter::Full, 1 << 63)), (0, 8));
        assert_eq!((wait(Jitter::Proportional(0.5), 0), wait(Jitter::Proportional(0.5), 1 << 63)), (8, 16));
        assert_eq!(wait(Jitter::None, 1 << 62), 16);
    }
}
