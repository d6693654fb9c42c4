//! [`Machine`]: the state machine of a breaker. Pure: it takes `now`, and tells of its transitions by returning them.

use std::time::{Duration, Instant};

use super::config::{CircuitBreakerConfig, SlowCalls, Window};
use super::failure_period::FailurePeriod;
use super::opening::Opening;
use super::own_rules::OwnRules;
use super::probes::{Finding, Probes};
use super::trip::TripStatistics;
use crate::circuit_state::CircuitState;
use crate::cores::sliding_window::{CountWindow, Record, TimeWindow, WindowCounts};
use crate::outcome::Outcome;

/// The state machine. `Shared` puts it behind a lock, and a lock-free front before it.
#[derive(Debug)]
pub(super) struct Machine {
    config: CircuitBreakerConfig,
    state: CircuitState,
    generation: u64,
    window: Calls,
    consecutive_failures: u32,
    /// Of a breaker that asks for failures per period; out of the way of those that do not.
    period: Option<Box<FailurePeriod>>,
    own: OwnRules,
    /// Openings since the circuit was last closed.
    opens: u32,
    /// When an open circuit is due to admit probes; `None` when it never is.
    open_until: Option<Instant>,
    /// What opened it.
    cause: Option<Outcome>,
    /// The counts that the last verdict of the state before was made on.
    judged: WindowCounts,
    probes: Probes,
}

/// The calls that are judged in the closed state.
#[derive(Debug)]
enum Calls {
    /// Neither rate is looked at, and there is no trip of one's own.
    Unused,
    Count(CountWindow),
    Time(TimeWindow),
}

/// What the machine says to one who asks for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// An ordinary call.
    Call,
    /// A probe, in this slot.
    Probe(u32),
    /// No.
    Refused,
}

/// What a call says about the callee, as far as the machine is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) health: Option<Healthy>,
    /// The call took longer than the slow threshold.
    pub(super) slow: bool,
    /// What the classifier said; the cause of what follows.
    pub(super) outcome: Outcome,
}

/// Whether the callee did what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Healthy {
    Yes,
    No,
}

/// Where a verdict comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The generation that admitted the call.
    pub(super) generation: u64,
    /// The slot it took and when, if the call is a probe.
    pub(super) probe: Option<(u32, Instant)>,
}

/// A change of state.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::{CircuitBreakerHandle, TransitionReason};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::builder("db")
///     .on_transition(|change| {
///         assert_eq!(change.reason, TransitionReason::Operator);
///         println!("from {} to {}", change.from, change.to);
///     })
///     .build_handle()?;
/// breaker.force_open();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: CircuitState,
    /// The state now.
    pub to: CircuitState,
    /// Why it changed.
    pub reason: TransitionReason,
    /// The calls that the change was decided on: those of the window, or the probes.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those of them that were slow.
    pub slow_calls: u64,
    /// Failures in a row, when the state before ended.
    pub consecutive_failures: u32,
    /// Failures within the period of [`failures_per_period`](super::CircuitBreakerConfig::failures_per_period)
    /// when the state before ended; zero without that setting.
    pub period_failures: u64,
    /// How long the circuit will stay open, when it is open now.
    pub open_for: Option<Duration>,
    /// The outcome of the call that caused the change, if one did.
    pub cause: Option<Outcome>,
}

/// Why a breaker changed its state.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::TransitionReason;
///
/// assert_eq!(TransitionReason::FailureRate.as_str(), "failure_rate");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransitionReason {
    /// The share of failed calls in the window reached its limit.
    FailureRate,
    /// The share of slow calls in the window reached its limit.
    SlowCallRate,
    /// The failures in a row reached their limit.
    ConsecutiveFailures,
    /// The failures within a period reached their limit.
    FailuresPerPeriod,
    /// A [`Trip`](super::Trip) of one's own asked for it.
    CustomTrip,
    /// The callee asked to be left alone for a time, and
    /// [`throttled_opens`](super::CircuitBreakerConfig::throttled_opens) is set.
    Throttled,
    /// The open time is over.
    OpenTimeOver,
    /// The probes showed that the callee is not well.
    ProbesFailed,
    /// The probes showed that the callee is well.
    ProbesSucceeded,
    /// Somebody asked for it through the handle.
    Operator,
}

/// A change of state that makes no sense.
///
/// Half-open is reached from open and forced open only: a half-open circuit tests whether the callee has recovered. Open is
/// not reached from disabled and observing: such a breaker does not open until it has been closed first (it can be forced
/// open).
///
/// # Examples
///
/// ```
/// use mainstay::CircuitState;
/// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
/// let error = breaker.transition_to(CircuitState::HalfOpen).unwrap_err();
/// assert_eq!(error.to_string(), "a circuit cannot go from closed to half-open");
/// assert_eq!(breaker.state(), CircuitState::Closed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a circuit cannot go from {from} to {to}")]
#[non_exhaustive]
pub struct IllegalTransition {
    /// The state it is in, and stays in.
    pub from: CircuitState,
    /// The state that was asked for.
    pub to: CircuitState,
}

// === impl Machine ===

impl Machine {
    /// A machine in its initial state; `origin` is where time windows start to count from.
    pub(super) fn new(config: CircuitBreakerConfig, own: OwnRules, origin: Instant) -> Self {
        let window = match config.window {
            _ if !config.uses_rates() && own.trip.is_none() => Calls::Unused,
            Window::Count { calls } => Calls::Count(CountWindow::new(calls)),
            Window::Time { length } => Calls::Time(TimeWindow::new(length, origin)),
        };
        let mut machine = Self {
            state: config.initial_state,
            generation: 1,
            window,
            consecutive_failures: 0,
            period: config.failures_per_period.map(|limit| Box::new(FailurePeriod::new(limit, origin))),
            own,
            opens: 0,
            open_until: None,
            cause: None,
            judged: WindowCounts::default(),
            probes: Probes::new(config.probes, config.probe_rule, config.probe_deadline),
            config,
        };
        if machine.state == CircuitState::Open {
            let wait = machine.wait(TransitionReason::Operator, WindowCounts::default(), None, origin);
            machine.opens = 1;
            machine.open_until = origin.checked_add(wait);
        }
        machine
    }

    pub(super) fn state(&self) -> CircuitState {
        self.state
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn cause(&self) -> Option<Outcome> {
        self.cause
    }

    pub(super) fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures
    }

    /// The failures within the period up to `now`.
    pub(super) fn period_failures(&mut self, now: Instant) -> u64 {
        self.period.as_mut().map_or(0, |period| period.failures(now))
    }

    pub(super) fn opens(&self) -> u32 {
        self.opens
    }

    pub(super) fn probes_in_flight(&self) -> usize {
        self.probes.in_flight()
    }

    /// The calls that the present state is judged by: the probes, the window, or, once open, what opened it.
    pub(super) fn counts(&mut self, now: Instant) -> WindowCounts {
        match self.state {
            CircuitState::HalfOpen => self.probes.counts(),
            CircuitState::Open => self.judged,
            _ => self.window.counts(now),
        }
    }

    /// The time window, if that is what is used.
    pub(super) fn time_window(&mut self) -> Option<&mut TimeWindow> {
        match &mut self.window {
            Calls::Time(window) => Some(window),
            Calls::Unused | Calls::Count(_) => None,
        }
    }

    /// Whether a fast success can change nothing here but the number of calls in the current bucket of a time window.
    pub(super) fn is_clean(&self) -> bool {
        matches!(self.state, CircuitState::Closed | CircuitState::Observing)
            && self.consecutive_failures == 0
            && match &self.window {
                Calls::Unused => true,
                Calls::Count(window) => window.is_full() && window.counts().is_clean(),
                Calls::Time(window) => window.recorded().is_clean(),
            }
    }

    /// Until when every call is refused: `None` when it is not, `Some(None)` when no end is known.
    pub(super) fn refuses_until(&self) -> Option<Option<Instant>> {
        match self.state {
            CircuitState::Open => Some(self.open_until),
            CircuitState::HalfOpen => self.probes.full_until(),
            CircuitState::ForcedOpen => Some(None),
            _ => None,
        }
    }

    /// Admits a call, or refuses it. An open circuit whose time is over becomes half-open here.
    pub(super) fn admit(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        match self.state {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing => (Admission::Call, None),
            CircuitState::ForcedOpen => (Admission::Refused, None),
            CircuitState::HalfOpen => (self.probe(now), None),
            CircuitState::Open => {
                if self.open_until.is_none_or(|until| now < until) {
                    return (Admission::Refused, None);
                }
                let counts = self.judged;
                let change = self.go(CircuitState::HalfOpen, TransitionReason::OpenTimeOver, counts, None, None, now);
                (self.probe(now), Some(change))
            }
        }
    }

    fn probe(&mut self, now: Instant) -> Admission {
        self.probes.take(now).map_or(Admission::Refused, Admission::Probe)
    }

    /// Takes the verdict of a call that was admitted by `origin`. One of an older generation is ignored, and so is that of a
    /// probe whose slot has been given to another.
    pub(super) fn record(&mut self, origin: Origin, evidence: Evidence, now: Instant) -> Option<Transition> {
        if origin.generation != self.generation {
            return None;
        }
        match origin.probe {
            Some((slot, since)) if self.probes.holds(slot, since) => self.record_probe(slot, evidence, now),
            Some(_) => None,
            None => self.record_call(evidence, now),
        }
    }

    fn record_call(&mut self, evidence: Evidence, now: Instant) -> Option<Transition> {
        let record = evidence.record();
        match evidence.health {
            Some(Healthy::Yes) => self.consecutive_failures = 0,
            Some(Healthy::No) => {
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                if let Some(period) = &mut self.period {
                    period.record_failure(now);
                }
            }
            None => {}
        }
        if let Some(record) = record {
            match &mut self.window {
                Calls::Unused => {}
                Calls::Count(window) => window.record(record),
                Calls::Time(window) => window.record(record, now),
            }
        }
        if self.state != CircuitState::Closed {
            return None;
        }
        let counts = self.window.counts(now);
        let cause = Some(evidence.outcome);
        if let Some(wait) = self.throttled_for(evidence.outcome) {
            return Some(self.go(CircuitState::Open, TransitionReason::Throttled, counts, Some(wait), cause, now));
        }
        record?;
        let reason = self.trips(counts, now).or_else(|| self.trips_by_own(counts, evidence.outcome, now))?;
        Some(self.open(reason, counts, cause, now))
    }

    fn record_probe(&mut self, slot: u32, evidence: Evidence, now: Instant) -> Option<Transition> {
        if let Some(wait) = self.throttled_for(evidence.outcome) {
            self.probes.release(slot);
            let (counts, cause) = (self.probes.counts(), Some(evidence.outcome));
            return Some(self.go(CircuitState::Open, TransitionReason::Throttled, counts, Some(wait), cause, now));
        }
        let Some(record) = evidence.record() else {
            self.probes.release(slot);
            return None;
        };
        let finding = self.probes.judge(slot, record);
        let counts = self.probes.counts();
        let sick = match finding {
            Finding::Undecided => return None,
            Finding::Complete => self.rate_tripped(counts, self.config.failure_rate.unwrap_or(0.0)).is_some(),
            Finding::Recovered => false,
            Finding::Sick => true,
        };
        let cause = Some(evidence.outcome);
        Some(if sick {
            self.open(TransitionReason::ProbesFailed, counts, cause, now)
        } else {
            self.go(CircuitState::Closed, TransitionReason::ProbesSucceeded, counts, None, cause, now)
        })
    }

    /// What the closed state trips on, if it does.
    fn trips(&mut self, counts: WindowCounts, now: Instant) -> Option<TransitionReason> {
        if self.config.consecutive_failures.is_some_and(|limit| self.consecutive_failures >= limit) {
            return Some(TransitionReason::ConsecutiveFailures);
        }
        if let Some(period) = &mut self.period {
            let failures = period.failures(now);
            if period.is_reached_by(failures) {
                return Some(TransitionReason::FailuresPerPeriod);
            }
        }
        if counts.calls < u64::from(self.config.minimum_calls) {
            return None;
        }
        // A rate above 1.0 is never reached.
        self.rate_tripped(counts, self.config.failure_rate.unwrap_or(f64::INFINITY))
    }

    /// The same by a trip of one's own. Where nothing is wrong it is not asked: the front absorbs such calls, or not, as it may.
    fn trips_by_own(&mut self, counts: WindowCounts, verdict: Outcome, now: Instant) -> Option<TransitionReason> {
        if self.own.trip.is_none() || (counts.is_clean() && self.consecutive_failures == 0) {
            return None;
        }
        let seen = self.seen(counts, now);
        let trips = self.own.trip.as_ref().is_some_and(|trip| trip.trips(&seen, verdict));
        trips.then_some(TransitionReason::CustomTrip)
    }

    fn seen(&mut self, counts: WindowCounts, now: Instant) -> TripStatistics {
        TripStatistics {
            calls: counts.calls,
            failures: counts.failures,
            slow_calls: counts.slow,
            consecutive_failures: self.consecutive_failures,
            period_failures: self.period_failures(now),
        }
    }

    fn rate_tripped(&self, counts: WindowCounts, failure_rate: f64) -> Option<TransitionReason> {
        if counts.failures > 0 && counts.failure_rate() >= failure_rate {
            return Some(TransitionReason::FailureRate);
        }
        let SlowCalls { rate, .. } = self.config.slow_calls?;
        (counts.slow > 0 && counts.slow_rate() >= rate).then_some(TransitionReason::SlowCallRate)
    }

    fn open(
        &mut self,
        reason: TransitionReason,
        counts: WindowCounts,
        cause: Option<Outcome>,
        now: Instant,
    ) -> Transition {
        let wait = self.wait(reason, counts, cause, now);
        self.go(CircuitState::Open, reason, counts, Some(wait), cause, now)
    }

    /// How long the circuit will stay open, if it opens now.
    fn wait(
        &mut self,
        reason: TransitionReason,
        counts: WindowCounts,
        cause: Option<Outcome>,
        now: Instant,
    ) -> Duration {
        let consecutive_opens = self.opens.saturating_add(1);
        let wait = self.config.open_time.wait(consecutive_opens);
        if self.own.open_time.is_none() {
            return wait;
        }
        let opening = Opening { consecutive_opens, reason, cause, seen: self.seen(counts, now), wait };
        self.own.open_time.as_ref().map_or(wait, |own| own.wait(&opening))
    }

    /// How long a verdict asks the circuit to be open for, if such verdicts are heard.
    fn throttled_for(&self, outcome: Outcome) -> Option<Duration> {
        let Outcome::Throttled { retry_after: Some(after) } = outcome else { return None };
        let most = self.config.throttled_opens?;
        (!after.is_zero()).then(|| after.min(most))
    }

    /// What an operator asks for. `Ok(None)` when that is the state already (a new wait for an open circuit is taken).
    pub(super) fn transition_to(
        &mut self,
        to: CircuitState,
        open_for: Option<Duration>,
        now: Instant,
    ) -> Result<Option<Transition>, IllegalTransition> {
        use CircuitState::{Disabled, ForcedOpen, HalfOpen, Observing, Open};
        let from = self.state;
        if from == to {
            if let (Open, Some(wait)) = (to, open_for) {
                self.open_until = now.checked_add(wait);
            }
            return Ok(None);
        }
        let legal = match to {
            HalfOpen => matches!(from, Open | ForcedOpen),
            Open => !matches!(from, Disabled | Observing),
            _ => true,
        };
        if !legal {
            return Err(IllegalTransition { from, to });
        }
        let counts = self.counts(now);
        let reason = TransitionReason::Operator;
        Ok(Some(match (to, open_for) {
            (Open, None) => self.open(reason, counts, None, now),
            (Open, Some(_)) => self.go(to, reason, counts, open_for, None, now),
            _ => self.go(to, reason, counts, None, None, now),
        }))
    }

    /// Back to closed, everything forgotten.
    pub(super) fn reset(&mut self, now: Instant) -> Option<Transition> {
        if self.state != CircuitState::Closed {
            let counts = self.counts(now);
            return Some(self.go(CircuitState::Closed, TransitionReason::Operator, counts, None, None, now));
        }
        // No transition, but calls that were admitted before belong to what is forgotten.
        self.generation += 1;
        self.forget();
        None
    }

    fn go(
        &mut self,
        to: CircuitState,
        reason: TransitionReason,
        counts: WindowCounts,
        open_for: Option<Duration>,
        cause: Option<Outcome>,
        now: Instant,
    ) -> Transition {
        let consecutive_failures = self.consecutive_failures;
        let period_failures = self.period_failures(now);
        let from = std::mem::replace(&mut self.state, to);
        self.generation += 1;
        match to {
            CircuitState::Open => {
                self.opens = self.opens.saturating_add(1);
                self.open_until = open_for.and_then(|wait| now.checked_add(wait));
                self.cause = cause;
                self.judged = counts;
                self.forget_calls();
                // A probe that is still out is a straggler now.
                self.probes.clear();
            }
            // The cause outlives the probes: what they refuse, they refuse for the same reason.
            CircuitState::HalfOpen => self.probes.clear(),
            CircuitState::Closed | CircuitState::ForcedOpen | CircuitState::Disabled | CircuitState::Observing => {
                self.forget();
            }
        }
        let WindowCounts { calls, failures, slow } = counts;
        Transition {
            from,
            to,
            reason,
            calls,
            failures,
            slow_calls: slow,
            consecutive_failures,
            period_failures,
            open_for,
            cause,
        }
    }

    /// Forgets what the closed state judges by.
    fn forget_calls(&mut self) {
        self.window.clear();
        self.consecutive_failures = 0;
        if let Some(period) = &mut self.period {
            period.clear();
        }
    }

    fn forget(&mut self) {
        self.forget_calls();
        self.probes.clear();
        self.opens = 0;
        self.open_until = None;
        self.cause = None;
        self.judged = WindowCounts::default();
    }
}

// === impl Calls ===

impl Calls {
    fn counts(&mut self, now: Instant) -> WindowCounts {
        match self {
            Self::Unused => WindowCounts::default(),
            Self::Count(window) => window.counts(),
            Self::Time(window) => window.counts(now),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Unused => {}
            Self::Count(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// What a window keeps of it: nothing, when it is neither healthy nor unhealthy nor slow.
    fn record(self) -> Option<Record> {
        (self.health.is_some() || self.slow)
            .then_some(Record { failed: self.health == Some(Healthy::No), slow: self.slow })
    }
}

// === impl Transition ===

impl Transition {
    /// The share of the calls that failed; `0.0` when there were none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerHandle;
    ///
    /// let breaker =
    ///     CircuitBreakerHandle::builder("db").on_transition(|change| assert_eq!(change.failure_rate(), 0.0)).build_handle()?;
    /// breaker.force_open();
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        self.counts().failure_rate()
    }

    /// The share of the calls that were slow; `0.0` when there were none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerHandle;
    ///
    /// let breaker =
    ///     CircuitBreakerHandle::builder("db").on_transition(|change| assert_eq!(change.slow_call_rate(), 0.0)).build_handle()?;
    /// breaker.force_open();
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn slow_call_rate(&self) -> f64 {
        self.counts().slow_rate()
    }

    fn counts(&self) -> WindowCounts {
        WindowCounts { calls: self.calls, failures: self.failures, slow: self.slow_calls }
    }
}

// === impl TransitionReason ===

impl TransitionReason {
    /// The reason as a fixed word: `failure_rate`, `slow_call_rate`, `consecutive_failures`, `failures_per_period`,
    /// `custom_trip`, `throttled`, `open_time_over`, `probes_failed`, `probes_succeeded` or `operator`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::circuit_breaker::TransitionReason::OpenTimeOver.as_str(), "open_time_over");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailuresPerPeriod => "failures_per_period",
            Self::CustomTrip => "custom_trip",
            Self::Throttled => "throttled",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Operator => "operator",
        }
    }
}
