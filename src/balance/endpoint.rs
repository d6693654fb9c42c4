//! One endpoint, and the guard of one call to it.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::config::Picker;
use super::core::{Core, End, Now};
use super::eligibility::Circuit;
use super::load::Evidence;
use super::load::in_flight::Penalty;
use super::load::peak_ewma::Latency;
use super::pick::p2c::{self, Candidate};
use super::registry::Registry;
use crate::circuit_breaker::{Admits, CircuitBreakerHandle, Ending, Permit};
use crate::circuit_state::CircuitState;
use crate::context::EndpointId;
use crate::cores::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::outcome::{Health, Outcome};

/// What names an endpoint in its pool: an address, a number, a name.
///
/// Implemented for every type that has what it asks for.
///
/// # Examples
///
/// ```
/// fn is_key<K: mainstay::balance::Key>() {}
/// is_key::<std::net::SocketAddr>();
/// is_key::<String>();
/// is_key::<u32>();
/// ```
pub trait Key: Clone + Eq + Hash + Display + Send + Sync + 'static {}

impl<K: Clone + Eq + Hash + Display + Send + Sync + 'static> Key for K {}

/// One endpoint: its key, and what was learned about it.
///
/// It lives as long as its key is in the pool. The service and the weight are not here: they may be replaced meanwhile, and
/// are part of the snapshot.
#[derive(Debug)]
pub(crate) struct Endpoint<K, S> {
    /// Calls in flight, picks so far, and whether it takes no more; see [`Flights`].
    flights: Flights,
    /// Failures in a row.
    streak: AtomicU32,
    /// Goes up with every ejection and return; evidence from calls of an earlier one is not used.
    generation: AtomicU32,
    ejected: AtomicBool,
    /// How often in a row it was found not ready, and whether its pause is known to the registry ([`PAUSED`]).
    not_ready: AtomicU32,
    /// Whether it has left the pool.
    left: AtomicBool,
    failures: AtomicU64,
    latency: Latency,
    penalty: Penalty,
    /// Turns of the rotation that it passed on and has not got back; see [`p2c`].
    owed: AtomicI32,
    pub(crate) id: EndpointId,
    pub(crate) key: K,
    /// The key as it shows itself.
    pub(crate) label: Box<str>,
    pub(crate) core: Arc<Core>,
    pub(crate) registry: Weak<Registry<K, S>>,
    /// Notified when a retired endpoint has finished its last call, and when it has left the pool.
    pub(crate) idle: Arc<Notify>,
    /// What to do then. A pointer, because `Drop` knows no bounds of `K`.
    last_landed: fn(&Arc<Self>),
    circuit_changed: fn(&Arc<Self>),
    pub(crate) breaker: Option<Breaker>,
}

/// An endpoint's circuit breaker, and what the pool knows of it.
#[derive(Debug)]
pub(crate) struct Breaker {
    handle: CircuitBreakerHandle,
    /// Whether the last snapshot was made while calls flowed.
    seen_passing: AtomicBool,
    /// Whether calls go to the endpoint although the breaker is open: the pool could not do without it.
    overruled: AtomicBool,
}

/// In one word, so that one instruction admits a call: calls in flight (24 bits), "retired" (1 bit), picks so far (39 bits,
/// wrapping).
#[derive(Debug)]
struct Flights(AtomicU64);

const IN_FLIGHT: u64 = RETIRED - 1;
const RETIRED: u64 = 1 << 24;
const PICK: u64 = 1 << 25;

const UNMEASURED: u64 = u64::MAX;

/// How often in a row an endpoint is found not ready before it is paused. One that is only busy is ready again in between.
const NOT_READY_IN_A_ROW: u32 = 5;

/// The bit of [`Endpoint::not_ready`] that says that the registry has paused the endpoint.
const PAUSED: u32 = 1 << 31;

/// One call to one endpoint, from the pick to its end. Dropped without a verdict, the call was abandoned.
#[derive(Debug)]
pub(crate) struct Flight<K, S> {
    endpoint: Arc<Endpoint<K, S>>,
    /// When it began, in nanoseconds since the pool's epoch; `UNMEASURED` where latencies are not measured.
    started: u64,
    generation: u32,
    ended: bool,
    /// Whether it stands for its call in the counts. Of two that a call waits for, one does.
    leads: bool,
    permit: Option<Permit>,
    /// How the call ended, for the breaker.
    ending: Ending,
}

// === impl Breaker ===

impl Breaker {
    fn new(core: &Core) -> Option<Self> {
        // The configuration was checked with the pool's.
        let config = core.config.circuit_breaker.clone()?;
        let handle = CircuitBreakerHandle::one_of_many(core.name().clone(), config);
        Some(Self { handle, seen_passing: AtomicBool::new(true), overruled: AtomicBool::new(false) })
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.handle.state()
    }

    /// What it says at `now`; `since` is when it began to say something else than "pass".
    pub(crate) fn circuit(&self, before: Circuit, now: Instant) -> Circuit {
        let since = match before {
            Circuit::Open { since, .. } | Circuit::Probing { since } => since,
            Circuit::Passing | Circuit::ForcedOpen => now,
        };
        let circuit = match (self.handle.admits(), self.handle.state()) {
            (Admits::Call, _) => Circuit::Passing,
            (_, CircuitState::ForcedOpen) => Circuit::ForcedOpen,
            (Admits::Nothing { retry_after: Some(wait) }, CircuitState::Open) => {
                now.checked_add(wait).map_or(Circuit::Probing { since }, |due| Circuit::Open { since, due })
            }
            _ => Circuit::Probing { since },
        };
        self.seen_passing.store(circuit == Circuit::Passing, Ordering::Relaxed);
        circuit
    }

    pub(crate) fn overrule(&self, overruled: bool) {
        self.overruled.store(overruled, Ordering::Relaxed);
    }

    pub(crate) fn reset(&self) {
        self.handle.reset();
    }

    pub(crate) fn wants_probe(&self) -> bool {
        self.handle.admits() == Admits::Probe
    }

    /// Whether the snapshot in use was made when it let calls flow and now it does not, or the reverse.
    #[inline]
    fn has_news(&self) -> bool {
        let passing =
            matches!(self.handle.state(), CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing);
        passing != self.seen_passing.load(Ordering::Relaxed)
    }

    /// Admits a call, with a permit or, overruled, without.
    #[inline]
    fn admit(&self) -> Result<Option<Permit>, ()> {
        if self.overruled.load(Ordering::Relaxed) && matches!(self.handle.admits(), Admits::Nothing { .. }) {
            return Ok(None);
        }
        self.handle.try_acquire().map(Some).map_err(|_| ())
    }
}

// === impl Endpoint ===

impl<K, S> Endpoint<K, S> {
    pub(crate) fn new(key: K, core: &Arc<Core>, registry: &Weak<Registry<K, S>>) -> Self
    where
        K: Key,
    {
        Self {
            flights: Flights(AtomicU64::new(0)),
            streak: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            not_ready: AtomicU32::new(0),
            left: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            latency: Latency::new(&core.rule, Now::unread().tick(core)),
            penalty: Penalty::new(),
            owed: AtomicI32::new(0),
            id: EndpointId::next(),
            label: key.to_string().into(),
            key,
            core: core.clone(),
            registry: registry.clone(),
            idle: Arc::new(Notify::new()),
            last_landed: |endpoint| match endpoint.registry.upgrade() {
                Some(registry) if !endpoint.has_left() => registry.drained(endpoint),
                Some(_) => endpoint.idle.notify_waiters(),
                None => endpoint.leave(),
            },
            circuit_changed: |endpoint| {
                if let Some(registry) = endpoint.registry.upgrade() {
                    registry.circuit_changed();
                }
            },
            breaker: Breaker::new(core),
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "24 bits")]
    pub(crate) fn in_flight(&self) -> u32 {
        (self.flights.0.load(Ordering::Relaxed) & IN_FLIGHT) as u32
    }

    pub(crate) fn picks(&self) -> u64 {
        self.flights.0.load(Ordering::Relaxed) / PICK
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What one more call is expected to cost; comparable within one pool only.
    pub(crate) fn load(&self, now: &Now, per_weight: f64) -> f64 {
        let core = &*self.core;
        match core.config.picker {
            Picker::PeakEwma => self.latency.load(&core.rule, now.tick(core), self.in_flight(), per_weight),
            Picker::InFlight | Picker::RoundRobin => {
                self.penalty.load(core.rule.window, || now.tick(core), self.in_flight(), per_weight)
            }
        }
    }

    /// What speaks for and against it as the candidate whose turn it is; `scale` scales its calls.
    #[inline(always)]
    pub(crate) fn in_turn(&self, now: &Now, scale: f64) -> Candidate {
        let core = &*self.core;
        match core.config.picker {
            Picker::PeakEwma => self.candidate(self.latency.estimate(&core.rule, now.tick(core)), 0.0, scale),
            Picker::InFlight | Picker::RoundRobin => self.by_calls(now, scale),
        }
    }

    /// What speaks for and against it as the other candidate.
    ///
    /// Its latency does not fade here: an endpoint that has few turns would otherwise look faster than it is, and get more
    /// of those of others than its share. It fades at its own turns, so that what was slow is tried again.
    #[inline(always)]
    pub(crate) fn as_other(&self, now: &Now, scale: f64) -> Candidate {
        match self.core.config.picker {
            Picker::PeakEwma => self.candidate(self.latency.last(), 0.0, scale),
            Picker::InFlight | Picker::RoundRobin => self.by_calls(now, scale),
        }
    }

    #[inline(always)]
    fn by_calls(&self, now: &Now, scale: f64) -> Candidate {
        let core = &*self.core;
        self.candidate(1.0, self.penalty.phantoms(core.rule.window, || now.tick(core)), scale)
    }

    #[inline(always)]
    fn candidate(&self, latency: f64, phantoms: f64, scale: f64) -> Candidate {
        let calls = (f64::from(self.in_flight()) + phantoms) * scale;
        Candidate { latency, calls, owed: self.owed.load(Ordering::Relaxed) }
    }

    /// Notes that this endpoint passed its turn on to `other`.
    ///
    /// Threads that do so at once may exceed the bound by one each, which does no harm.
    #[inline]
    pub(crate) fn pass_turn_to(&self, other: &Self) {
        if self.owed.load(Ordering::Relaxed) < p2c::MOST_OWED {
            self.owed.fetch_add(1, Ordering::Relaxed);
        }
        if other.owed.load(Ordering::Relaxed) > -p2c::MOST_OWED {
            other.owed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The latency estimate in nanoseconds, where latencies are measured.
    pub(crate) fn latency(&self, now: &Now) -> Option<f64> {
        let core = &*self.core;
        core.measures_latency().then(|| self.latency.estimate(&core.rule, now.tick(core)))
    }

    /// Forgets loads.
    pub(crate) fn forget(&self, now: &Now) {
        self.latency.reset(&self.core.rule, now.tick(&self.core));
        self.penalty.reset();
        self.owed.store(0, Ordering::Relaxed);
    }

    /// Takes no more calls from here on, for good. Those in flight go on.
    ///
    /// A pick that runs at the same time is either in flight before this, or sees it and goes elsewhere.
    pub(crate) fn retire(&self) {
        self.flights.0.fetch_or(RETIRED, Ordering::SeqCst);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.flights.0.load(Ordering::SeqCst) & RETIRED != 0
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.flights.0.load(Ordering::SeqCst) & IN_FLIGHT == 0
    }

    /// It is not in the pool any more.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
        self.idle.notify_waiters();
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// It was ejected, or came back: evidence of calls that began before is void.
    pub(crate) fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
        if !ejected {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// Whether no ejection and no return came since the call that was given `generation` began.
    pub(crate) fn is_generation(&self, generation: u32) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    /// The registry has paused it.
    pub(crate) fn set_paused(&self) {
        self.not_ready.fetch_or(PAUSED, Ordering::Relaxed);
    }

    /// It is ready, as far as is known.
    pub(crate) fn forget_not_ready(&self) {
        self.not_ready.store(0, Ordering::Relaxed);
    }

    /// `poll_ready` is pending. Whether that has been so often in a row that the endpoint should be paused.
    pub(crate) fn found_not_ready(&self) -> bool {
        let times = self.not_ready.load(Ordering::Relaxed) & !PAUSED;
        times + 1 >= NOT_READY_IN_A_ROW
            || self.not_ready.fetch_add(1, Ordering::Relaxed) & !PAUSED >= NOT_READY_IN_A_ROW
    }

    #[inline(always)]
    fn learn(&self, evidence: Evidence, started: u64) {
        let core = &*self.core;
        let now = Now::unread();
        if started == UNMEASURED {
            self.penalty.learn(evidence, core.rule.window, || now.tick(core));
        } else {
            let elapsed = now.nanos(core).saturating_sub(started);
            self.latency.learn(evidence, elapsed, &core.rule, now.tick(core));
        }
    }
}

impl<K: Key, S> Endpoint<K, S> {
    /// The call went fine.
    #[inline(always)]
    fn succeeded(&self, generation: u32) {
        // The common case only reads.
        if self.streak.load(Ordering::Relaxed) != 0 && self.is_generation(generation) {
            self.streak.store(0, Ordering::Relaxed);
        }
        if self.ejected.load(Ordering::Relaxed) && self.is_generation(generation) {
            // It is ejected, was used in spite of it, and works.
            if let Some(registry) = self.registry.upgrade() {
                registry.lift(self, generation);
            }
        }
    }

    #[cold]
    fn failed(&self, generation: u32) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let Some(ejection) = &self.core.config.ejection else { return };
        if !self.is_generation(generation) || self.ejected.load(Ordering::Relaxed) {
            return;
        }
        let streak = self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // Above it, too: the one that reached it may have been a straggler, and without effect.
        if streak >= ejection.consecutive_failures
            && let Some(registry) = self.registry.upgrade()
        {
            registry.eject_for_failures(self, generation, streak);
        }
    }

    /// `poll_ready` succeeded.
    #[inline]
    pub(crate) fn became_ready(&self) {
        if self.not_ready.load(Ordering::Relaxed) != 0 {
            self.is_ready_again();
        }
    }

    #[cold]
    fn is_ready_again(&self) {
        if self.not_ready.swap(0, Ordering::Relaxed) & PAUSED != 0
            && let Some(registry) = self.registry.upgrade()
        {
            registry.recovered(self);
        }
    }
}

// === impl Flight ===

impl<K, S> Flight<K, S> {
    /// Begins a call; `None` when the endpoint takes no more.
    #[inline(always)]
    pub(crate) fn begin(endpoint: &Arc<Endpoint<K, S>>, now: &Now) -> Option<Self> {
        let before = endpoint.flights.0.fetch_add(PICK + 1, Ordering::SeqCst);
        let started = if endpoint.core.measures_latency() { now.nanos(&endpoint.core) } else { UNMEASURED };
        let generation = endpoint.generation.load(Ordering::Relaxed);
        let mut flight = Self {
            endpoint: endpoint.clone(),
            started,
            generation,
            ended: false,
            leads: true,
            permit: None,
            ending: Ending::Answered,
        };
        if before & RETIRED != 0 {
            flight.land();
            return None;
        }
        if let Some(breaker) = &endpoint.breaker {
            match breaker.admit() {
                Ok(permit) => flight.permit = permit,
                Err(()) => {
                    flight.land();
                    // The snapshot does not know yet, or another call took the probe's slot.
                    flight.look_at_the_circuit();
                    return None;
                }
            }
        }
        Some(flight)
    }

    #[inline]
    pub(crate) const fn endpoint(&self) -> &Arc<Endpoint<K, S>> {
        &self.endpoint
    }

    /// How the call ended, for the breaker: unless this says otherwise, with an answer.
    #[inline]
    pub(crate) const fn ended_as(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// Stands for its call from here on.
    pub(crate) const fn lead(&mut self) {
        self.leads = true;
    }

    /// Another flight stands for the call.
    pub(crate) const fn follow(&mut self) {
        self.leads = false;
    }

    /// The call never left: nothing is learnt and nothing is counted.
    pub(crate) fn release(mut self) {
        self.ending = Ending::NotSent;
        self.tell_breaker(Outcome::Ignored);
        self.land();
    }

    /// The call waited in vain for the endpoint to become ready.
    pub(crate) fn waited_in_vain(mut self) {
        self.endpoint.learn(Evidence::Abandoned, self.started);
        self.abandon_permit();
        self.land();
    }

    #[inline(always)]
    fn tell_breaker(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            permit.record_ending(outcome, self.ending);
            self.look_at_the_circuit();
        }
    }

    #[inline]
    fn abandon_permit(&mut self) {
        if let Some(permit) = self.permit.take() {
            drop(permit);
            self.look_at_the_circuit();
        }
    }

    /// Lets the pool know of a change of the breaker's state.
    #[inline]
    fn look_at_the_circuit(&self) {
        if self.endpoint.breaker.as_ref().is_some_and(Breaker::has_news) {
            (self.endpoint.circuit_changed)(&self.endpoint);
        }
    }

    /// The caller left.
    #[cold]
    #[inline(never)]
    fn abandoned(&mut self) {
        self.endpoint.learn(Evidence::Abandoned, self.started);
        self.abandon_permit();
        self.land();
        if self.leads {
            self.endpoint.core.ended(End::Abandoned);
        }
    }

    #[inline(always)]
    fn land(&mut self) {
        self.ended = true;
        let before = self.endpoint.flights.0.fetch_sub(1, Ordering::SeqCst);
        if before & (RETIRED | IN_FLIGHT) == RETIRED + 1 {
            (self.endpoint.last_landed)(&self.endpoint);
        }
    }
}

impl<K: Key, S> Flight<K, S> {
    /// The call ended in `outcome`; there is nothing left to be done but to drop this.
    #[inline(always)]
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        self.settle(outcome);
        self.endpoint.core.ended(End::Judged(outcome));
    }

    /// `poll_ready` failed with what was judged `outcome`; the call may go on elsewhere.
    pub(crate) fn never_ready(mut self, outcome: Outcome) {
        self.ending = Ending::NotSent;
        self.settle_load_only(outcome);
        if outcome.is_failure()
            && let Some(registry) = self.endpoint.registry.upgrade()
        {
            registry.failed_to_become_ready(&self.endpoint);
        }
    }

    /// The call failed here and nothing was sent; it goes on elsewhere.
    pub(crate) fn never_sent(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    /// The inner service panicked: a failure. To be used while unwinding.
    pub(crate) fn panicked(&mut self) {
        if !self.ended {
            self.settle(Outcome::Permanent);
            if self.leads {
                self.endpoint.core.ended(End::Judged(Outcome::Permanent));
            }
        }
    }

    #[inline(always)]
    fn settle(&mut self, outcome: Outcome) {
        let endpoint = &*self.endpoint;
        endpoint.learn(outcome.into(), self.started);
        match outcome.health() {
            Health::Healthy => endpoint.succeeded(self.generation),
            Health::Unhealthy => endpoint.failed(self.generation),
            Health::NoEvidence => {}
        }
        self.tell_breaker(outcome);
        self.land();
    }

    fn settle_load_only(&mut self, outcome: Outcome) {
        self.endpoint.learn(outcome.into(), self.started);
        self.tell_breaker(outcome);
        self.land();
    }
}

impl<K, S> Drop for Flight<K, S> {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.abandoned();
        }
    }
}
