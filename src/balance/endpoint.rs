//! One endpoint, and the guard of one call to it.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::config::Picker;
use super::core::{Core, End, Now};
use super::eligibility::Circuit;
use super::load::Evidence;
use super::load::in_flight::Penalty;
use super::load::peak_ewma::Latency;
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

/// One endpoint: what never changes, and the numbers that every call changes.
#[derive(Debug)]
pub(crate) struct Endpoint<K, S> {
    /// Calls in flight, picks so far, and whether it takes no more; see [`Flights`].
    flights: Flights,
    /// Failures in a row.
    streak: AtomicU32,
    /// Goes up with every ejection and return; evidence from calls of an earlier one is not used.
    generation: AtomicU32,
    ejected: AtomicBool,
    unready: AtomicBool,
    failures: AtomicU64,
    latency: Latency,
    penalty: Penalty,
    /// One divided by the weight.
    per_weight: f64,
    pub(crate) weight: u32,
    pub(crate) id: EndpointId,
    pub(crate) service: S,
    pub(crate) key: K,
    /// The key as it shows itself.
    pub(crate) label: Box<str>,
    pub(crate) core: Arc<Core>,
    pub(crate) registry: Weak<Registry<K, S>>,
    /// Told when a retired endpoint has finished its last call.
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
    pub(crate) fn new(key: K, service: S, weight: u32, core: &Arc<Core>, registry: &Weak<Registry<K, S>>) -> Self
    where
        K: Key,
    {
        Self {
            flights: Flights(AtomicU64::new(0)),
            streak: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            unready: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            latency: Latency::new(&core.rule, Now::unread().tick(core)),
            penalty: Penalty::new(),
            per_weight: 1.0 / f64::from(weight),
            weight,
            id: EndpointId::next(),
            service,
            label: key.to_string().into(),
            key,
            core: core.clone(),
            registry: registry.clone(),
            idle: Arc::new(Notify::new()),
            last_landed: |endpoint| {
                if let Some(registry) = endpoint.registry.upgrade() {
                    registry.drained(endpoint);
                }
                endpoint.idle.notify_waiters();
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
    #[inline(always)]
    pub(crate) fn load(&self, now: &Now) -> f64 {
        let core = &*self.core;
        match core.config.picker {
            Picker::PeakEwma => self.latency.load(&core.rule, now.tick(core), self.in_flight(), self.per_weight),
            Picker::InFlight | Picker::RoundRobin => {
                self.penalty.load(core.rule.window, || now.tick(core), self.in_flight(), self.per_weight)
            }
        }
    }

    /// The latency estimate in nanoseconds, where latencies are measured.
    pub(crate) fn latency(&self, now: &Now) -> Option<f64> {
        let core = &*self.core;
        core.measures_latency().then(|| self.latency.estimate(&core.rule, now.tick(core)))
    }

    /// Forgets loads and failures in a row.
    pub(crate) fn forget(&self, now: &Now) {
        self.latency.reset(&self.core.rule, now.tick(&self.core));
        self.penalty.reset();
        self.streak.store(0, Ordering::Relaxed);
    }

    /// Takes no more calls from here on, for good. Those in flight go on.
    ///
    /// A pick that runs at the same time is either in flight before this, or sees it and goes elsewhere.
    pub(crate) fn retire(&self) {
        self.flights.0.fetch_or(RETIRED, Ordering::SeqCst);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.flights.0.load(Ordering::SeqCst) & IN_FLIGHT == 0
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

    pub(crate) fn set_unready(&self, unready: bool) {
        self.unready.store(unready, Ordering::Relaxed);
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
                registry.lift(self.id, generation);
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
            registry.eject_for_failures(self.id, generation, streak);
        }
    }

    /// `poll_ready` succeeded.
    #[inline]
    pub(crate) fn became_ready(&self) {
        if self.unready.load(Ordering::Relaxed)
            && let Some(registry) = self.registry.upgrade()
        {
            registry.recovered(self.id);
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
            registry.unready(self.endpoint.id);
        }
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
