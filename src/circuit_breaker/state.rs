//! [`Machine`]: the state machine of a breaker. Pure: it takes `now`, and tells of its transitions by returning them.

mod waiting;

use std::time::{Duration, Instant};

use super::calls::Calls;
use super::config::{CircuitBreakerConfig, SlowCalls};
use super::ending::Ending;
use super::failure_period::FailurePeriod;
use super::in_flight::InFlight;
use super::opening::Opening;
use super::own_rules::OwnRules;
use super::probes::{Finding, Probes};
use super::ramp::Climb;
use super::transition::{IllegalTransition, Transition, TransitionReason};
use super::trip::TripStatistics;
use super::unanswered::{Seen, Unanswered};
use crate::circuit_state::CircuitState;
use crate::cores::random::Random;
use crate::cores::sliding_window::{Record, TimeWindow, WindowCounts};
use crate::outcome::Outcome;

/// The state machine. `Shared` puts it behind a lock, and a lock-free front before it.
#[derive(Debug)]
pub(super) struct Machine {
    /// Boxed, so that what a call looks at is close together.
    config: Box<CircuitBreakerConfig>,
    state: CircuitState,
    generation: u64,
    window: Calls,
    /// The calls that were cut or abandoned while none was answered.
    unanswered: Unanswered,
    consecutive_failures: u32,
    /// Of a breaker that asks for failures per period; out of the way of those that do not.
    period: Option<Box<FailurePeriod>>,
    own: OwnRules,
    /// What the jitter of open times is drawn from.
    random: Random,
    /// Openings since the circuit was last closed.
    opens: u32,
    /// When an open circuit is due to admit probes; `None` when it never is.
    open_until: Option<Instant>,
    /// When the circuit became half-open last.
    half_open_since: Instant,
    /// What opened it.
    cause: Option<Outcome>,
    /// The counts that the last verdict of the state before was made on.
    judged: WindowCounts,
    probes: Probes,
    /// How far a half-open circuit that the probes have found well is back to full traffic.
    climb: Option<Climb>,
    /// While a closed circuit in place of this observing one would be open, or would have to prove itself.
    would_be: Option<Box<WouldBe>>,
    /// The calls that are running, where those that hang are watched.
    in_flight: Option<Box<InFlight>>,
    /// Where time windows start to count from.
    origin: Instant,
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
    /// The call took longer than the slow threshold, however it ended.
    pub(super) slow: bool,
    pub(super) ending: Ending,
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
    /// When the call began, if that was asked for.
    pub(super) started: Option<Instant>,
}

/// What an observing breaker would be in, were it closed when it began to observe.
#[derive(Debug)]
struct WouldBe {
    /// Openings since the circuit would have been closed last.
    opens: u32,
    /// Until when it would be open; `None` when that has no end.
    open_until: Option<Instant>,
}

// === impl Machine ===

impl Machine {
    /// A machine in its initial state; `origin` is where time windows start to count from.
    pub(super) fn new(config: CircuitBreakerConfig, own: OwnRules, origin: Instant) -> Self {
        let window = Calls::new(Calls::wanted(&config, &own), origin);
        let unanswered = Unanswered::new(&window, &config, origin);
        let mut machine = Self {
            state: config.initial_state,
            generation: 1,
            window,
            unanswered,
            consecutive_failures: 0,
            period: config.failures_per_period.map(|limit| Box::new(FailurePeriod::new(limit, origin))),
            random: own.seed.map_or_else(Random::unseeded, Random::seeded),
            own,
            opens: 0,
            open_until: None,
            half_open_since: origin,
            cause: None,
            judged: WindowCounts::default(),
            probes: Probes::new(config.probes, config.probe_rule, config.probe_deadline, config.watched_threshold()),
            climb: None,
            would_be: None,
            in_flight: config.watched_threshold().map(|threshold| Box::new(InFlight::new(threshold, origin))),
            config: Box::new(config),
            origin,
        };
        if machine.state == CircuitState::Open {
            let wait = machine.wait(TransitionReason::Operator, WindowCounts::default(), None, origin);
            machine.opens = 1;
            machine.open_until = origin.checked_add(wait);
        }
        machine
    }

    /// Takes other settings, and keeps what they leave in place: the state and its generation, so that calls that are running
    /// have their say, how long an open circuit stays open, and the recorded calls as far as the new window has room. Nothing
    /// trips before the next verdict, or call that asks.
    pub(super) fn reconfigure(&mut self, config: CircuitBreakerConfig, now: Instant) {
        self.count_overdue(now);
        let window = std::mem::replace(&mut self.window, Calls::Unused);
        self.window = window.under(Calls::wanted(&config, &self.own), self.origin, now);
        self.unanswered = self.unanswered.under(&self.window, &config, self.origin, now);
        self.period = config.failures_per_period.map(|limit| match &mut self.period {
            Some(period) => Box::new(period.under(limit, now)),
            None => Box::new(FailurePeriod::new(limit, self.origin)),
        });
        let threshold = config.watched_threshold();
        if threshold != self.config.watched_threshold() {
            let former = self.in_flight.take();
            self.in_flight = match threshold {
                Some(threshold) => Some(Box::new(InFlight::following(former, threshold, self.origin, now))),
                None => former.map(InFlight::retired),
            };
        }
        self.probes.reconfigure(config.probes, config.probe_rule, config.probe_deadline, threshold);
        *self.config = config;
    }

    pub(super) fn config(&self) -> &CircuitBreakerConfig {
        &self.config
    }

    /// When this was last of use, by its state: `None` if a new machine would serve as well, a time in the future while the
    /// circuit is open.
    pub(super) fn busy_until(&self, now: Instant) -> Option<Instant> {
        let first = self.config.initial_state;
        // From these two the machine moves by itself; the other states are what somebody wanted.
        let moves = matches!(first, CircuitState::Closed | CircuitState::Open);
        match self.state {
            CircuitState::Closed | CircuitState::HalfOpen if moves => None,
            CircuitState::Open if moves => Some(self.open_until.unwrap_or(now)),
            CircuitState::Disabled | CircuitState::Observing if self.state == first => None,
            _ => Some(now),
        }
    }

    /// Whether it has a trip of its own.
    pub(super) fn has_own_trip(&self) -> bool {
        self.own.trip.is_some()
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
            CircuitState::HalfOpen if self.climb.is_none() => self.probes.counts(),
            CircuitState::Open => self.judged,
            _ => self.window.counts(now),
        }
    }

    /// The time window, if that is what is used.
    pub(super) fn time_window(&self) -> Option<&TimeWindow> {
        match &self.window {
            Calls::Time(window) => Some(window),
            Calls::Unused | Calls::Count(_) => None,
        }
    }

    /// Adds successes that were counted elsewhere while the current bucket of a time window was being filled.
    pub(super) fn add_successes(&mut self, calls: u64, now: Instant) {
        if let Calls::Time(window) = &mut self.window {
            window.add_successes(calls);
            window.advance(now);
            self.unanswered.add_answers(calls, now);
        }
    }

    /// The calls that were cut or abandoned, if the window holds no answer.
    pub(super) fn unanswered(&mut self, now: Instant) -> Seen {
        match self.state {
            CircuitState::HalfOpen if self.climb.is_none() => self.probes.unanswered(),
            _ => self.unanswered.seen(now),
        }
    }

    /// Whether a fast success can change nothing here but the number of calls in the current bucket of a time window.
    pub(super) fn is_clean(&self) -> bool {
        matches!(self.state, CircuitState::Closed | CircuitState::Observing)
            && !self.watches()
            && self.consecutive_failures == 0
            && self.unanswered.is_clean()
            && self.would_be.is_none()
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
            // Each call of a ramp has to ask: which of them are admitted is counted.
            CircuitState::HalfOpen if self.climb.is_some() => None,
            CircuitState::HalfOpen => self.probes.full_until().map(|free| earlier(free, self.half_open_until())),
            CircuitState::ForcedOpen => Some(None),
            // Nothing is refused; it is counted what would be.
            CircuitState::Observing => self.would_be.as_ref().map(|it| it.open_until),
            _ => None,
        }
    }

    /// When the time of an open circuit is over; `None` when it is not open, or never.
    pub(super) fn open_until(&self) -> Option<Instant> {
        self.open_until.filter(|_| self.state == CircuitState::Open)
    }

    /// The share of calls that a ramp admits `now`, on a ramp.
    pub(super) fn ramp_share(&self, now: Instant) -> Option<f64> {
        let climb = self.climb.as_ref()?;
        Some(self.config.ramp.as_ref().map_or(1.0, |ramp| climb.share(ramp, now)))
    }

    /// How many calls the rates of the present state need.
    pub(super) fn minimum_calls(&self) -> u32 {
        let Machine { config, .. } = self;
        match self.state {
            CircuitState::HalfOpen if self.climb.is_some() => config.probes.min(config.minimum_calls),
            CircuitState::HalfOpen => self.probes.slots(),
            CircuitState::Open => 1,
            _ => config.minimum_calls,
        }
    }

    /// The calls that are running, where those that hang are watched.
    pub(super) fn in_flight(&mut self) -> Option<&mut InFlight> {
        self.in_flight.as_deref_mut().filter(|in_flight| in_flight.is_watching())
    }

    /// The length of the buckets in which watched calls begin; zero without the watch.
    pub(super) fn begun_nanos(&self) -> u64 {
        self.in_flight.as_ref().filter(|it| it.is_watching()).map_or(0, |in_flight| in_flight.bucket_nanos())
    }

    /// Whether calls are admitted without anybody being asked.
    pub(super) fn admits_freely(&self) -> bool {
        matches!(self.state, CircuitState::Closed | CircuitState::Observing)
    }

    /// Whether the calls that run are watched.
    pub(super) fn watches(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.is_watching())
    }

    /// When a call begins that asks `now`: where others are watched since then, a moment later.
    pub(super) fn begins(&mut self, now: Instant) -> Instant {
        self.in_flight().map_or(now, |in_flight| now.max(in_flight.from()))
    }

    /// Admits a call, or refuses it. An open circuit whose time is over becomes half-open here.
    pub(super) fn admit(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        let found = self.look_at_running(now);
        if found.is_some() && self.state == CircuitState::Open {
            return (Admission::Refused, found);
        }
        let (admission, change) = self.admit_by_state(now);
        if admission == Admission::Call
            && self.state != CircuitState::Disabled
            && let Some(in_flight) = self.in_flight()
        {
            in_flight.begin(now);
        }
        // What running calls have shown has closed the circuit if anything, and a closed circuit only admits.
        (admission, found.or(change))
    }

    /// Counts the calls and probes that are slow although they have not ended, and finds what follows.
    fn look_at_running(&mut self, now: Instant) -> Option<Transition> {
        if !self.watches() {
            return None;
        }
        if self.state == CircuitState::HalfOpen && self.climb.is_none() {
            if self.half_open_until().is_some_and(|until| now >= until) {
                return None; // Too late for them, too.
            }
            let slow = Record { failed: false, slow: true };
            while let Some(slot) = self.probes.overdue(now) {
                let change = self.judge_probe(slot, slow, None, now);
                if change.is_some() {
                    return change;
                }
            }
            return None;
        }
        let counted = self.count_overdue(now);
        if !counted || !self.judges_calls() || self.would_be.is_some() {
            return None;
        }
        let counts = self.window.counts(now);
        let reason = self.trips(counts, now)?;
        Some(self.open(reason, counts, None, now))
    }

    /// Puts the calls into the window that are slow although they have not ended; whether there were any.
    fn count_overdue(&mut self, now: Instant) -> bool {
        let Some(in_flight) = self.in_flight() else { return false };
        in_flight.advance(now);
        let overdue = in_flight.take_overdue();
        for _ in 0..overdue {
            self.window.record(Record { failed: false, slow: true }, now);
        }
        overdue > 0
    }

    fn admit_by_state(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        match self.state {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing => (Admission::Call, None),
            CircuitState::ForcedOpen => (Admission::Refused, None),
            CircuitState::HalfOpen if self.climb.is_some() => self.admit_on_ramp(now),
            CircuitState::HalfOpen => match self.half_open_too_long(now) {
                Some(change) => (Admission::Refused, Some(change)),
                None => (self.probe(now), None),
            },
            CircuitState::Open => {
                let change = self.open_time_over(now);
                if change.is_none() {
                    return (Admission::Refused, None);
                }
                (self.probe(now), change)
            }
        }
    }

    /// An open circuit whose time is over becomes half-open.
    pub(super) fn open_time_over(&mut self, now: Instant) -> Option<Transition> {
        if self.open_until.is_none_or(|until| now < until) {
            return None;
        }
        self.leave_open(TransitionReason::OpenTimeOver, now)
    }

    /// A health check of the callee passed: an open circuit becomes half-open, however long it was to stay open.
    pub(super) fn health_check_passed(&mut self, now: Instant) -> Option<Transition> {
        self.leave_open(TransitionReason::HealthCheckPassed, now)
    }

    fn leave_open(&mut self, reason: TransitionReason, now: Instant) -> Option<Transition> {
        let counts = self.judged;
        (self.state == CircuitState::Open).then(|| self.go(CircuitState::HalfOpen, reason, counts, None, None, now))
    }

    fn admit_on_ramp(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        let admitted = match (&mut self.climb, &self.config.ramp) {
            (Some(climb), Some(ramp)) => climb.admits(ramp, now),
            _ => None,
        };
        match admitted {
            Some(true) => (Admission::Call, None),
            Some(false) => (Admission::Refused, None),
            None => {
                let counts = self.counts(now);
                let change = self.go(CircuitState::Closed, TransitionReason::RampOver, counts, None, None, now);
                (Admission::Call, Some(change))
            }
        }
    }

    /// When a half-open circuit has to have come to a decision, if it has to.
    fn half_open_until(&self) -> Option<Instant> {
        self.config.half_open_max.and_then(|most| self.half_open_since.checked_add(most))
    }

    /// Re-opens a circuit that has been half-open for too long while a probe is out, or although one has shown something bad. With
    /// neither, too few calls came, which says nothing about the callee: the stay begins again, and what the probes have
    /// shown so far still counts.
    fn half_open_too_long(&mut self, now: Instant) -> Option<Transition> {
        if self.half_open_until().is_none_or(|until| now < until) {
            return None;
        }
        let counts = self.probes.counts();
        if self.probes.in_flight() == 0 && counts.is_clean() {
            self.half_open_since = now;
            return None;
        }
        Some(self.open(TransitionReason::HalfOpenTimeOver, counts, None, now))
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
            Some((slot, since)) if self.probes.holds(slot, since) => {
                let change = self.half_open_too_long(now).or_else(|| self.record_probe(slot, evidence, now));
                change.or_else(|| self.look_at_running(now))
            }
            Some(_) => None,
            None => {
                let in_flight = self.in_flight.as_mut().zip(origin.started);
                let counted = in_flight.is_some_and(|(in_flight, started)| in_flight.end(started));
                self.record_call(evidence, counted, now)
            }
        }
    }

    /// The verdict of a call that is no probe, and may have been `counted` in the window before it ended.
    fn record_call(&mut self, evidence: Evidence, counted: bool, now: Instant) -> Option<Transition> {
        let others_counted = self.count_overdue(now);
        let record = evidence.record().filter(|_| !counted);
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
            self.window.record(record, now);
        }
        self.unanswered.record(evidence.ending, now);
        if !self.judges_calls() {
            return None;
        }
        let counts = self.window.counts(now);
        let cause = Some(evidence.outcome);
        if self.would_be.is_some() {
            return self.would_probe(evidence, counts, now);
        }
        if let Some(wait) = self.throttled_for(evidence.outcome) {
            return Some(self.open_for(wait, TransitionReason::Throttled, counts, cause, now));
        }
        // What says nothing about the callee does not cause what others' running has shown.
        let judged = record.is_some() || evidence.health.is_some();
        let reason = if judged || others_counted { self.trips(counts, now) } else { None };
        let reason = if judged { reason.or_else(|| self.trips_by_own(counts, evidence.outcome, now)) } else { reason };
        if let Some(reason) = reason {
            return Some(self.open(reason, counts, cause.filter(|_| judged), now));
        }
        self.trips_unanswered(evidence, self.config.minimum_calls, now)
    }

    /// Whether calls are judged by the rules that trip a closed circuit.
    fn judges_calls(&self) -> bool {
        matches!(self.state, CircuitState::Closed | CircuitState::Observing) || self.climb.is_some()
    }

    /// The verdict of a call that an observing breaker would not have admitted, or as a probe. The first one after the open
    /// time decides: bad, the circuit would open again; healthy, it would close, and the window begins again.
    fn would_probe(&mut self, evidence: Evidence, counts: WindowCounts, now: Instant) -> Option<Transition> {
        let is_open = self.would_be.as_ref().is_some_and(|it| it.open_until.is_none_or(|until| now < until));
        let record = evidence.record().filter(|_| !is_open)?;
        if record.failed || record.slow {
            return Some(self.open(TransitionReason::ProbesFailed, counts, Some(evidence.outcome), now));
        }
        self.would_be = None;
        self.forget_calls();
        None
    }

    /// Opens the circuit if `evidence` is one more call without an answer, and at least `minimum` of them and no answer are
    /// there to judge by.
    fn trips_unanswered(&mut self, evidence: Evidence, minimum: u32, now: Instant) -> Option<Transition> {
        if !evidence.ending.is_unanswered() {
            return None;
        }
        let seen = self.unanswered(now);
        if seen.calls < minimum {
            return None;
        }
        let counts = WindowCounts { calls: seen.calls.into(), failures: 0, slow: 0 };
        let change = self.open(TransitionReason::Unanswered, counts, Some(evidence.outcome), now);
        Some(Transition { cut_by_deadline: seen.cut.into(), ..change })
    }

    fn record_probe(&mut self, slot: u32, evidence: Evidence, now: Instant) -> Option<Transition> {
        if let Some(wait) = self.throttled_for(evidence.outcome) {
            self.probes.release(slot);
            let (counts, cause) = (self.probes.counts(), Some(evidence.outcome));
            return Some(self.go(CircuitState::Open, TransitionReason::Throttled, counts, Some(wait), cause, now));
        }
        self.probes.record_ending(evidence.ending);
        let Some(record) = evidence.record() else {
            self.probes.release(slot);
            let minimum = self.config.minimum_calls.max(self.probes.slots());
            return self.trips_unanswered(evidence, minimum, now);
        };
        self.judge_probe(slot, record, Some(evidence.outcome), now)
    }

    /// What is known once the probe in `slot` has shown this.
    fn judge_probe(&mut self, slot: u32, record: Record, cause: Option<Outcome>, now: Instant) -> Option<Transition> {
        let finding = self.probes.judge(slot, record);
        let counts = self.probes.counts();
        let sick = match finding {
            Finding::Undecided => return None,
            Finding::Complete => self.rate_tripped(counts, self.config.failure_rate.unwrap_or(0.0)).is_some(),
            Finding::Recovered => false,
            Finding::Sick => true,
        };
        if sick {
            return Some(self.open(TransitionReason::ProbesFailed, counts, cause, now));
        }
        if self.config.ramp.is_some() {
            // What other probes still have to say is no verdict on the ramp.
            self.generation += 1;
            self.probes.clear();
            self.climb = Some(Climb::new(now));
            // The probes were answered.
            self.unanswered.record(Ending::Answered, now);
            self.forget_running();
            return None;
        }
        Some(self.go(CircuitState::Closed, TransitionReason::ProbesSucceeded, counts, None, cause, now))
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
        if counts.calls < u64::from(self.minimum_calls()) {
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
        self.open_for(wait, reason, counts, cause, now)
    }

    /// Opens the circuit for `wait`, or records that an observing one would be open.
    fn open_for(
        &mut self,
        wait: Duration,
        reason: TransitionReason,
        counts: WindowCounts,
        cause: Option<Outcome>,
        now: Instant,
    ) -> Transition {
        if self.state != CircuitState::Observing {
            return self.go(CircuitState::Open, reason, counts, Some(wait), cause, now);
        }
        let period_failures = self.period_failures(now);
        self.would_be = Some(Box::new(WouldBe { opens: self.consecutive_opens(), open_until: now.checked_add(wait) }));
        Transition {
            from: CircuitState::Observing,
            to: CircuitState::Open,
            reason,
            calls: counts.calls,
            failures: counts.failures,
            slow_calls: counts.slow,
            consecutive_failures: self.consecutive_failures,
            period_failures,
            open_for: Some(wait),
            cause,
            cut_by_deadline: 0,
            generation: self.generation,
            is_observed: true,
        }
    }

    /// The number of the opening that comes next, from 1, since the circuit was closed or would have been.
    fn consecutive_opens(&self) -> u32 {
        self.would_be.as_ref().map_or(self.opens, |it| it.opens).saturating_add(1)
    }

    /// How long the circuit will stay open, if it opens now.
    fn wait(
        &mut self,
        reason: TransitionReason,
        counts: WindowCounts,
        cause: Option<Outcome>,
        now: Instant,
    ) -> Duration {
        let consecutive_opens = self.consecutive_opens();
        let wait = self.config.open_time.jittered(consecutive_opens, || self.random.draw());
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
        self.forget_running();
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
        self.climb = None;
        self.would_be = None;
        self.forget_running();
        match to {
            CircuitState::Open => {
                self.opens = self.opens.saturating_add(1);
                self.open_until = open_for.and_then(|wait| now.checked_add(wait));
                // That nothing was decided says nothing new about the callee.
                if reason != TransitionReason::HalfOpenTimeOver {
                    self.cause = cause;
                }
                self.judged = counts;
                // Probes that are out have no say any more.
                self.forget_calls();
                // A probe that is still out is a straggler now.
                self.probes.clear();
            }
            // The cause outlives the probes: what they refuse, they refuse for the same reason.
            CircuitState::HalfOpen => {
                self.probes.clear();
                self.half_open_since = now;
            }
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
            cut_by_deadline: 0,
            generation: self.generation,
            is_observed: false,
        }
    }

    /// Forgets what the closed state judges by.
    fn forget_calls(&mut self) {
        self.window.clear();
        self.unanswered.clear();
        self.consecutive_failures = 0;
        if let Some(period) = &mut self.period {
            period.clear();
        }
    }

    /// Forgets the calls of the generation that is over.
    fn forget_running(&mut self) {
        match self.in_flight() {
            Some(in_flight) => in_flight.clear(),
            None => self.in_flight = None,
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

/// The earlier of two times, of which `None` is never.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

// === impl Evidence ===

impl Evidence {
    /// What a window keeps of it: nothing, when it is neither healthy nor unhealthy nor slow.
    fn record(self) -> Option<Record> {
        (self.health.is_some() || self.slow)
            .then_some(Record { failed: self.health == Some(Healthy::No), slow: self.slow })
    }
}
