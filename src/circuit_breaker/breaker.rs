//! [`Breaker`]: the shell around [`Shared`]: the clock, the accounts, and everyone who is told.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::config::CircuitBreakerConfig;
use super::ending::Ending;
use super::own_rules::OwnRules;
use super::shared::{ABANDONED_FOR_FAILURE, Place, Refusal, Shared, THROTTLED_FOR_FAILURE, Ticket};
use super::state::{Evidence, Healthy};
use super::transition::{IllegalTransition, Transition};
use super::waiter::{WAIT_ENDS, WaitEnd};
use super::watchers::{LazyWatchers, Watchers};
use crate::circuit_state::CircuitState;
use crate::cores::lock::lock;
use crate::error::{CircuitOpen, InvalidConfig};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::telemetry::event::{CircuitBreakerEvent, CircuitBreakerEventKind};
use crate::telemetry::{Emitter, Event, Listener, StateGauges, Tally, TallySum, names};

/// Told of every transition, by the thread that made it and outside any lock.
pub(super) type Observer = Box<dyn Fn(&Transition) + Send + Sync>;

/// One breaker; handles, permits and services share it.
pub(super) struct Breaker {
    // What few breakers have is boxed: a keyed breaker has a breaker per key.
    pub(super) shared: Shared,
    emitter: Emitter,
    observers: Box<[Observer]>,
    calls: Tally<6>,
    transitions: Tally<6>,
    /// None for one of many of one name, such as those of the endpoints of a pool: their states are not published.
    gauges: Option<Box<StateGauges<6>>>,
    /// What an observing breaker would have done; of those that observe.
    observed: OnceLock<Box<Tally<2>>>,
    /// Where `observed` adds up in a group.
    group_observed: Option<Arc<TallySum<2>>>,
    /// Held while the gauges are changed, so that the last one to change them has read the latest state.
    publishing: Mutex<()>,
    /// Subscriptions and followers, which wait for a change. Made for the first of them.
    watchers: LazyWatchers,
    /// How waits for the circuit ended. Made for the first of them.
    waits: OnceLock<Box<Tally<5>>>,
}

/// The counts of all breakers of a group, those that are gone among them.
#[derive(Debug)]
pub(super) struct GroupAccounts {
    calls: TallySum<6>,
    transitions: TallySum<6>,
    observed: Arc<TallySum<2>>,
}

/// What became of a call; the order is that of [`ENDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success,
    Refused,
    Failure,
    Ignored,
    Rejected,
    Abandoned,
}

/// What an observing breaker would have done; the order is that of [`WOULD_HAVE`].
const OPENED: usize = 0;
const REJECTED: usize = 1;
const WOULD_HAVE: [&str; 2] = ["opened", "rejected"];

const ENDS: [&str; 6] = ["success", "refused", "failure", "ignored", "rejected", "abandoned"];

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(
        name: Name,
        config: CircuitBreakerConfig,
        own: OwnRules,
        listener: Option<Arc<dyn Listener>>,
        observers: Vec<Observer>,
        has_gauges: bool,
    ) -> Self {
        let initial = index(config.initial_state);
        let gauges = has_gauges
            .then(|| Box::new(StateGauges::new(&name, names::CIRCUIT_BREAKER_STATE, "state", states(), initial)));
        let calls = Tally::new(&name, names::CIRCUIT_BREAKER_CALLS, "outcome", ENDS);
        let transitions = Tally::new(&name, names::CIRCUIT_BREAKER_TRANSITIONS, "to", states());
        Self {
            shared: Shared::new(&config, own, now(), !has_gauges),
            observers: observers.into_boxed_slice(),
            calls,
            transitions,
            gauges,
            observed: OnceLock::new(),
            group_observed: None,
            publishing: Mutex::new(()),
            watchers: LazyWatchers::new(),
            waits: OnceLock::new(),
            emitter: Emitter::new(&name, listener),
        }
    }

    /// One of a group, whose counts add up.
    pub(super) fn of_group(
        emitter: Emitter,
        config: CircuitBreakerConfig,
        own: OwnRules,
        observers: Vec<Observer>,
        accounts: &GroupAccounts,
    ) -> Self {
        Self {
            shared: Shared::new(&config, own, now(), true),
            observers: observers.into_boxed_slice(),
            calls: accounts.calls.part(),
            transitions: accounts.transitions.part(),
            gauges: None,
            observed: OnceLock::new(),
            group_observed: Some(accounts.observed.clone()),
            publishing: Mutex::new(()),
            watchers: LazyWatchers::new(),
            waits: OnceLock::new(),
            emitter,
        }
    }

    pub(super) const fn name(&self) -> &'static Name {
        self.emitter.name()
    }

    /// Admits a call, or counts and tells why not.
    #[inline]
    pub(super) fn admit(&self) -> Result<Ticket, CircuitOpen> {
        match self.shared.admit_at_once() {
            Some(ticket) => Ok(ticket),
            None => self.admit_otherwise(),
        }
    }

    #[inline(never)]
    fn admit_otherwise(&self) -> Result<Ticket, CircuitOpen> {
        let (result, change) = self.shared.admit(now);
        self.tell(change);
        if result.is_ok() && self.shared.would_refuse(now) {
            self.observed().add(REJECTED);
        }
        result.map_err(|refusal| self.rejected(self.open(refusal)))
    }

    fn observed(&self) -> &Tally<2> {
        self.observed.get_or_init(|| {
            Box::new(match &self.group_observed {
                Some(group) => group.part(),
                None => Tally::new(self.name(), names::CIRCUIT_BREAKER_OBSERVED, "would_have", WOULD_HAVE),
            })
        })
    }

    /// How often an observing breaker would have opened, and how many calls it would have rejected.
    pub(super) fn would_have(&self) -> [u64; 2] {
        self.observed.get().map_or([0; 2], |observed| observed.all())
    }

    /// Admits the call of a waiter, or counts and tells why not.
    #[cold]
    pub(super) fn admit_in_turn(&self, place: &mut Place) -> Result<Ticket, CircuitOpen> {
        let (result, change) = self.shared.admit_in_turn(Some(place), now());
        self.tell(change);
        result.map_err(|refusal| self.rejected(self.open(refusal)))
    }

    /// Counts the end of a wait.
    #[cold]
    pub(super) fn wait_ended(&self, end: WaitEnd) {
        let waits = self
            .waits
            .get_or_init(|| Box::new(Tally::new(self.name(), names::CIRCUIT_BREAKER_WAITS, "outcome", WAIT_ENDS)));
        waits.add(end as usize);
    }

    /// How many waits ended in each [`WaitEnd`].
    pub(super) fn wait_ends(&self) -> [u64; 5] {
        self.waits.get().map_or([0; 5], |waits| waits.all())
    }

    /// What a call would be refused with now, which counts as none; `None` if it would not.
    #[inline]
    pub(super) fn refuses(&self) -> Option<CircuitOpen> {
        self.shared.refuses(now).map(|refusal| self.open(refusal))
    }

    /// Rejects a call to a service that was not ready. Where calls flow the circuit has rejected nothing: such a call counts as
    /// ignored.
    #[cold]
    pub(super) fn refuse(&self) -> CircuitOpen {
        let refusal = self.shared.refuse(now);
        match refusal.state {
            CircuitState::Closed | CircuitState::Observing => self.calls.add(End::Ignored as usize),
            CircuitState::Disabled => {}
            CircuitState::Open | CircuitState::HalfOpen | CircuitState::ForcedOpen => {
                self.calls.add(End::Rejected as usize);
            }
        }
        self.open(refusal)
    }

    /// Counts a call that is refused.
    #[inline]
    pub(super) fn rejected(&self, open: CircuitOpen) -> CircuitOpen {
        self.calls.add(End::Rejected as usize);
        open
    }

    #[inline]
    pub(super) fn open(&self, refusal: Refusal) -> CircuitOpen {
        CircuitOpen::from_parts(self.name(), refusal.state, refusal.retry_after, refusal.cause)
    }

    /// Takes the verdict of a call that succeeded, if it changes nothing but a count. `false` when it was not taken, and the call
    /// has to be [judged](Self::judged).
    #[inline(always)]
    pub(super) fn absorbs(&self, ticket: &Ticket) -> bool {
        let absorbed = self.shared.absorbs_untimed(ticket) || self.absorbs_timed(ticket);
        if absorbed {
            self.calls.add(End::Success as usize);
        }
        absorbed
    }

    /// Out of the way of calls that no clock is read for.
    #[inline(never)]
    fn absorbs_timed(&self, ticket: &Ticket) -> bool {
        self.shared.absorbs_timed(ticket, now)
    }

    /// The verdict of a finished call.
    #[inline(never)]
    pub(super) fn judged(&self, ticket: Ticket, outcome: Outcome, ending: Ending) {
        if self.shared.is_unrecorded(ticket) {
            return;
        }
        let (end, health) = match outcome {
            Outcome::Success => (End::Success, Some(Healthy::Yes)),
            Outcome::Refused | Outcome::DependencyFailed => (End::Refused, Some(Healthy::Yes)),
            Outcome::Transient | Outcome::NotSent | Outcome::Permanent => (End::Failure, Some(Healthy::No)),
            Outcome::Throttled { .. } if self.shared.takes(THROTTLED_FOR_FAILURE) => (End::Failure, Some(Healthy::No)),
            Outcome::Throttled { .. } | Outcome::Ignored => (End::Ignored, None),
        };
        self.calls.add(end as usize);
        self.tell(match (health, ending) {
            (Some(Healthy::Yes), _) if !outcome.is_success() && self.shared.absorbs(&ticket, now) => None,
            (None, Ending::NotSent) if !self.shared.has_to_tell(ticket) => None,
            _ => {
                let slow = ending != Ending::NotSent && self.shared.is_slow(ticket, now);
                let says_nothing = health.is_none() && !slow && ending == Ending::Unknown;
                if says_nothing && !self.shared.has_to_tell(ticket) {
                    None
                } else {
                    self.shared.record(ticket, Evidence { health, slow, ending, outcome }, now)
                }
            }
        });
    }

    /// The verdict of a call that was dropped before its end, and may have been answered in part or not sent.
    #[cold]
    pub(super) fn abandoned(&self, ticket: Ticket, ending: Ending) {
        if self.shared.is_unrecorded(ticket) {
            return;
        }
        self.calls.add(End::Abandoned as usize);
        let slow = ending != Ending::NotSent && self.shared.is_slow(ticket, now);
        let health = self.shared.takes(ABANDONED_FOR_FAILURE).then_some(Healthy::No);
        self.tell(self.shared.record(ticket, Evidence { health, slow, ending, outcome: Outcome::Ignored }, now));
    }

    /// The verdict of a call that failed, whatever `outcome` says: out of which a panic came, or of which a caller knows.
    #[cold]
    #[inline(never)]
    pub(super) fn failed(&self, ticket: Ticket, outcome: Outcome) {
        if self.shared.is_unrecorded(ticket) {
            return;
        }
        self.calls.add(End::Failure as usize);
        let slow = self.shared.is_slow(ticket, now);
        let evidence = Evidence { health: Some(Healthy::No), slow, ending: Ending::Answered, outcome };
        self.tell(self.shared.record(ticket, evidence, now));
    }

    pub(super) fn transition_to(&self, to: CircuitState, open_for: Option<Duration>) -> Result<(), IllegalTransition> {
        let change = self.shared.transition_to(to, open_for, now())?;
        self.tell(change);
        if change.is_none() && open_for.is_some() {
            // A circuit that was open already has another wait now.
            self.watchers.wake();
        }
        Ok(())
    }

    /// Makes an open circuit half-open if its time is over.
    pub(super) fn open_time_over(&self) {
        self.tell(self.shared.open_time_over(now()));
    }

    /// Makes an open circuit half-open, and says whether it was one.
    pub(super) fn health_check_passed(&self) -> bool {
        let change = self.shared.health_check_passed(now());
        self.tell(change);
        change.is_some()
    }

    pub(super) fn reconfigure(&self, config: CircuitBreakerConfig) -> Result<(), InvalidConfig> {
        let has_trip = self.shared.with_settings(|machine| machine.has_own_trip());
        config.validate_with(has_trip).map_err(|error| error.of_layer(self.name().clone()))?;
        self.shared.reconfigure(config, now());
        Ok(())
    }

    pub(super) fn reset(&self) {
        self.tell(self.shared.reset(now()));
    }

    /// Whether somebody waits for a change, or reads them.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.is_watched()
    }

    /// Where to wait for changes.
    pub(super) fn watchers(&self) -> &Arc<Watchers> {
        let watchers = self.watchers.get_or_init();
        // Who changes the state does so under the lock, and looks for watchers after it. Either that lock comes before this
        // one, and the change is seen here; or it comes after, and the watchers are seen there.
        let (generation, state) = self.shared.with_machine(now(), |machine| (machine.generation(), machine.state()));
        watchers.begin(generation, state);
        watchers
    }

    /// How many calls ended in each [`End`].
    pub(super) fn ends(&self) -> [u64; 6] {
        self.calls.all()
    }

    #[inline]
    pub(super) fn tell(&self, change: Option<Transition>) {
        if let Some(change) = change {
            self.tell_of(&change);
        }
    }

    #[cold]
    fn tell_of(&self, change: &Transition) {
        if change.is_observed {
            return self.would_open(change);
        }
        self.watchers.tell(change);
        self.transitions.add(index(change.to));
        if let Some(gauges) = &self.gauges {
            let _publishing = lock(&self.publishing);
            gauges.set(index(self.shared.state()));
        }
        for observer in &self.observers {
            // The call goes on as if the observer had returned; the panic hook has told the operator.
            let _ = catch_unwind(AssertUnwindSafe(|| observer(change)));
        }
        self.emitter.emit(|name| {
            let kind = CircuitBreakerEventKind::StateChanged {
                from: change.from,
                to: change.to,
                reason: change.reason.as_str(),
                calls: change.calls,
                failures: change.failures,
                slow_calls: change.slow_calls,
                consecutive_failures: change.consecutive_failures,
                period_failures: change.period_failures,
                open_for: change.open_for,
                cause: change.cause,
            };
            Event::CircuitBreaker(CircuitBreakerEvent { name, kind })
        });
        self.tell_of_deadlines(change);
    }

    /// An observing breaker would have opened: nothing changed that anything waits for.
    fn would_open(&self, change: &Transition) {
        self.observed().add(OPENED);
        self.emitter.emit(|name| {
            let kind = CircuitBreakerEventKind::WouldOpen {
                reason: change.reason.as_str(),
                calls: change.calls,
                failures: change.failures,
                slow_calls: change.slow_calls,
                open_for: change.open_for,
                cause: change.cause,
            };
            Event::CircuitBreaker(CircuitBreakerEvent { name, kind })
        });
        self.tell_of_deadlines(change);
    }

    fn tell_of_deadlines(&self, change: &Transition) {
        if change.cut_by_deadline > 0 {
            self.emitter.emit(|name| {
                let kind =
                    CircuitBreakerEventKind::DeadlineBeforeTimeout { calls: change.calls, cut: change.cut_by_deadline };
                Event::CircuitBreaker(CircuitBreakerEvent { name, kind })
            });
        }
    }
}

// === impl GroupAccounts ===

impl GroupAccounts {
    pub(super) fn new(name: &Name) -> Self {
        Self {
            calls: TallySum::new(name, names::CIRCUIT_BREAKER_CALLS, "outcome", ENDS),
            transitions: TallySum::new(name, names::CIRCUIT_BREAKER_TRANSITIONS, "to", states()),
            observed: Arc::new(TallySum::new(name, names::CIRCUIT_BREAKER_OBSERVED, "would_have", WOULD_HAVE)),
        }
    }

    /// How often observing breakers would have opened, and how many calls they would have rejected.
    pub(super) fn would_have(&self) -> [u64; 2] {
        self.observed.all()
    }

    /// How many calls ended in each [`End`].
    pub(super) fn ends(&self) -> [u64; 6] {
        self.calls.all()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", self.name())
            .field("state", &self.shared.state())
            .finish_non_exhaustive()
    }
}

/// The clock of the shell: tokio's, which tests can pause.
#[inline]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The labels of the states.
fn states() -> [&'static str; 6] {
    CircuitState::ALL.map(CircuitState::as_str)
}

/// The place of a state in [`CircuitState::ALL`].
fn index(state: CircuitState) -> usize {
    CircuitState::ALL.iter().position(|&other| other == state).unwrap_or_default()
}
