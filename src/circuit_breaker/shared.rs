//! [`Shared`]: the state machine behind a lock, and before it a front of atomics that answers what is answered most often.
//!
//! Two things need no lock:
//!
//! * **Admission** in every state but half-open, and a refusal in every state. One load of [`Stamp`] says which state it is;
//!   open and half-open circuits have the time until which they refuse in an atomic beside it.
//! * **A success that changes nothing.** While the stamp has the bit [`CLEAN`], no failure and no slow call is in the window
//!   and none precedes. On a full count window one more success is then the same window, so that one load is all there is
//!   to do. On a time window it adds one to the current bucket: that is done in the atomic `pending`, which carries the
//!   generation and the bucket it belongs to, and which the next holder of the lock adds to the window.
//!
//! Everything else takes the lock, changes the machine and publishes it again. The stamp is published last: whoever sees a
//! generation sees a `refuse_until` at least as new, and one that is newer still was true when it was read.
//!
//! Counting is exact in the order in which verdicts are recorded. A success that read [`CLEAN`] at the very moment in which
//! another thread recorded a failure counts as the earlier of the two.

use std::time::{Duration, Instant};

use super::config::{CircuitBreakerConfig, Window};
use super::own_rules::OwnRules;
use super::state::{Admission, Evidence, IllegalTransition, Machine, Origin, Transition};
use crate::circuit_state::CircuitState;
use crate::cores::generation::Stamp;
use crate::cores::sliding_window::TimeWindow;
use crate::cores::sync::atomic::{AtomicU64, Ordering};
use crate::cores::sync::{Mutex, MutexGuard, lock};
use crate::outcome::Outcome;

/// The bit of the stamp which says that a fast success changes nothing but a count.
const CLEAN: u64 = 0b1000;
const STATE: u64 = 0b0111;
/// The code of the closed state.
const CLOSED: u64 = 0;
/// `refuse_until` when no end of the refusal is known.
const NEVER: u64 = u64::MAX;
/// `slow_nanos` when nobody asks how long a call takes.
const UNMEASURED: u64 = u64::MAX;
/// `pending` while the holder of the lock has it; its number admits no more.
const BUSY: u64 = u64::MAX;
/// The highest number in `pending`.
const MOST_PENDING: u64 = 0xffff_fffe;
/// The slot of a ticket that is no probe's.
const NO_SLOT: u32 = u32::MAX;

/// A breaker's state, shared by everyone who asks it.
#[derive(Debug)]
pub(super) struct Shared {
    /// State, [`CLEAN`] and generation.
    stamp: AtomicU64,
    /// Until when the states open and half-open refuse, in nanoseconds since `origin`; zero when they do not.
    refuse_until: AtomicU64,
    /// What opened the circuit, packed by [`pack_cause`].
    cause: AtomicU64,
    /// Successes not yet in the time window: a tag in the upper half, the number in the lower.
    pending: AtomicU64,
    /// Where the nanoseconds start.
    origin: Instant,
    /// The length of a bucket of the time window; zero without one.
    bucket_nanos: u64,
    /// Neither a time window nor a slow threshold: a finished call needs no clock.
    is_untimed: bool,
    /// The slow threshold; [`UNMEASURED`] without one.
    slow_nanos: u64,
    locked: Mutex<Locked>,
}

#[derive(Debug)]
struct Locked {
    machine: Machine,
    /// The bucket that `pending` counts for.
    pending_bucket: u64,
}

/// What a call was admitted with. A permit owns it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    stamp: Stamp,
    /// When it was admitted, in nanoseconds since the origin; zero if nobody needs to know.
    started: u64,
    /// The slot of a probe, or [`NO_SLOT`].
    slot: u32,
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) state: CircuitState,
    pub(super) retry_after: Option<Duration>,
    pub(super) cause: Option<Outcome>,
}

/// That a breaker refused, and when (in nanoseconds since its origin, where that matters).
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused(u64);

/// What a breaker would say to the next call.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::{Admits, CircuitBreakerConfig, CircuitBreakerHandle};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
/// assert_eq!(breaker.admits(), Admits::Call);
/// breaker.force_open();
/// assert_eq!(breaker.admits(), Admits::Nothing { retry_after: None });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admits {
    /// Calls flow.
    Call,
    /// A probe is due: the next call takes its slot.
    Probe,
    /// Calls are refused.
    Nothing {
        /// How long until a probe may be due; `None` when that is not known (forced open).
        retry_after: Option<Duration>,
    },
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(config: &CircuitBreakerConfig, own: OwnRules, origin: Instant) -> Self {
        let bucket_nanos = match config.window {
            Window::Time { length } if config.uses_rates() || own.trip.is_some() => TimeWindow::bucket_nanos_of(length),
            _ => 0,
        };
        let shared = Self {
            stamp: AtomicU64::new(0),
            refuse_until: AtomicU64::new(0),
            cause: AtomicU64::new(0),
            pending: AtomicU64::new(BUSY),
            origin,
            bucket_nanos,
            is_untimed: bucket_nanos == 0 && config.slow_calls.is_none(),
            slow_nanos: config.slow_calls.map_or(UNMEASURED, |slow| nanos(slow.longer_than).min(UNMEASURED - 1)),
            locked: Mutex::new(Locked { machine: Machine::new(config.clone(), own, origin), pending_bucket: 0 }),
        };
        shared.publish(&mut lock(&shared.locked));
        shared
    }

    /// The state. An open circuit whose time is over reads as open until a call asks.
    #[inline]
    pub(super) fn state(&self) -> CircuitState {
        state_of(self.load())
    }

    /// Whether the circuit is closed: what there is to know in most cases.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.load().payload() & STATE == CLOSED
    }

    /// Admits a call to a closed circuit. `None` when it is not closed; ask [`admit`](Self::admit) then.
    #[inline]
    pub(super) fn admit_closed(&self, now: impl Fn() -> Instant) -> Option<Ticket> {
        let stamp = self.load();
        if stamp.payload() & STATE != CLOSED {
            return None;
        }
        let started = if self.slow_nanos == UNMEASURED { 0 } else { self.nanos_at(now()) };
        Some(Ticket { stamp, started, slot: NO_SLOT })
    }

    /// Admits a call, or refuses it.
    #[cold]
    #[inline(never)]
    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        let stamp = self.load();
        match state_of(stamp) {
            CircuitState::Closed | CircuitState::Observing => {
                let started = if self.slow_nanos == UNMEASURED { 0 } else { self.nanos_at(now()) };
                (Ok(Ticket { stamp, started, slot: NO_SLOT }), None)
            }
            CircuitState::Disabled => (Ok(Ticket { stamp, started: 0, slot: NO_SLOT }), None),
            CircuitState::ForcedOpen => {
                let refusal = Refusal { state: CircuitState::ForcedOpen, retry_after: None, cause: None };
                (Err(refusal), None)
            }
            state => match self.refuses_for(|| self.nanos_at(now())) {
                Some(retry_after) => (Err(self.refusal(state, retry_after)), None),
                None => self.admit_locked(now()),
            },
        }
    }

    #[cold]
    fn admit_locked(&self, now: Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        // A probe is known by when it began, which its ticket tells from the origin on.
        let now = now.max(self.origin);
        self.with_machine(now, |machine| {
            let (admission, change) = machine.admit(now);
            let stamp = stamp_of(machine);
            let result = match admission {
                Admission::Call => Ok(Ticket { stamp, started: self.nanos_at(now), slot: NO_SLOT }),
                Admission::Probe(slot) => Ok(Ticket { stamp, started: self.nanos_at(now), slot }),
                Admission::Refused => {
                    let retry_after =
                        machine.refuses_until().flatten().map(|until| until.saturating_duration_since(now));
                    Err(Refusal { state: machine.state(), retry_after, cause: machine.cause() })
                }
            };
            (result, change)
        })
    }

    /// What the next call would be told.
    pub(super) fn admits(&self, now: impl Fn() -> Instant) -> Admits {
        match self.state() {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing => Admits::Call,
            CircuitState::ForcedOpen => Admits::Nothing { retry_after: None },
            _ => match self.refuses_for(|| self.nanos_at(now())) {
                Some(retry_after) => Admits::Nothing { retry_after },
                None => Admits::Probe,
            },
        }
    }

    /// Whether the next call would be refused.
    #[inline]
    pub(super) fn refuses(&self, now: impl Fn() -> Instant) -> Option<Refused> {
        match self.state() {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing => None,
            CircuitState::ForcedOpen => Some(Refused(0)),
            _ => {
                let mut at = 0;
                let asked = || {
                    at = self.nanos_at(now());
                    at
                };
                self.refuses_for(asked).map(|_| Refused(at))
            }
        }
    }

    /// The refusal of a call that cannot be made although it may have been admitted by now. How long it is to wait is told as
    /// of the moment in which it was `refused`, if it was.
    pub(super) fn refuse(&self, refused: Option<Refused>, now: impl Fn() -> Instant) -> Refusal {
        match self.state() {
            CircuitState::ForcedOpen => Refusal { state: CircuitState::ForcedOpen, retry_after: None, cause: None },
            state @ (CircuitState::Open | CircuitState::HalfOpen) => {
                let at = || match refused {
                    Some(Refused(at)) => at,
                    None => self.nanos_at(now()),
                };
                let retry_after = self.refuses_for(at).unwrap_or(Some(Duration::ZERO));
                self.refusal(state, retry_after)
            }
            // It was open when the caller asked whether it was ready.
            _ => Refusal { state: CircuitState::Open, retry_after: Some(Duration::ZERO), cause: None },
        }
    }

    #[inline]
    fn refusal(&self, state: CircuitState, retry_after: Option<Duration>) -> Refusal {
        Refusal { state, retry_after, cause: unpack_cause(self.cause.load(Ordering::Relaxed)) }
    }

    /// How much longer an open or half-open circuit refuses everything, from `at` in nanoseconds since the origin; `Some(None)`
    /// when no end is known.
    #[inline]
    fn refuses_for(&self, at: impl FnOnce() -> u64) -> Option<Option<Duration>> {
        match self.refuse_until.load(Ordering::Acquire) {
            NEVER => Some(None),
            // Not refusing at all, whatever the time.
            0 => None,
            until => {
                let left = until.saturating_sub(at());
                (left > 0).then(|| Some(Duration::from_nanos(left)))
            }
        }
    }

    /// Whether the call that was admitted with `ticket` is to be left out of every account.
    #[inline]
    pub(super) fn is_unrecorded(&self, ticket: Ticket) -> bool {
        state_of(ticket.stamp) == CircuitState::Disabled
    }

    /// Whether the call was running for longer than the slow threshold by `now`.
    #[inline]
    pub(super) fn is_slow(&self, ticket: Ticket, now: impl Fn() -> Instant) -> bool {
        self.slow_nanos != UNMEASURED && self.nanos_at(now()).saturating_sub(ticket.started) > self.slow_nanos
    }

    /// [`absorbs`](Self::absorbs), of breakers for which no clock has to be read.
    #[inline]
    pub(super) fn absorbs_untimed(&self, ticket: Ticket) -> bool {
        self.is_untimed && self.stamp.load(Ordering::Acquire) == ticket.stamp.word() | CLEAN
    }

    /// Takes a healthy call that changes nothing but a number, if it is one: nothing is wrong so far, and it was not slow.
    /// `false` when it has to be [recorded](Self::record).
    #[inline]
    pub(super) fn absorbs(&self, ticket: Ticket, now: impl Fn() -> Instant) -> bool {
        // The generation and the state as they were. A half-open circuit is never clean.
        if self.stamp.load(Ordering::Acquire) != ticket.stamp.word() | CLEAN {
            return false;
        }
        self.is_untimed || self.absorbs_timed(ticket, self.nanos_at(now()))
    }

    #[inline]
    fn absorbs_timed(&self, ticket: Ticket, ended: u64) -> bool {
        // Nothing is longer than `UNMEASURED`.
        ended.saturating_sub(ticket.started) <= self.slow_nanos
            && (self.bucket_nanos == 0 || self.count_pending(ticket.stamp.generation(), ended / self.bucket_nanos))
    }

    /// A verdict.
    #[cold]
    pub(super) fn record(&self, ticket: Ticket, evidence: Evidence, now: impl Fn() -> Instant) -> Option<Transition> {
        // A straggler needs no lock: generations only grow.
        if self.load().generation() != ticket.stamp.generation() {
            return None;
        }
        let now = now();
        let since = self.origin + Duration::from_nanos(ticket.started);
        let origin = Origin {
            generation: ticket.stamp.generation(),
            probe: (ticket.slot != NO_SLOT).then_some((ticket.slot, since)),
        };
        self.with_machine(now, |machine| machine.record(origin, evidence, now))
    }

    /// Whether `ticket` holds a slot that has to be given back.
    #[inline]
    pub(super) fn is_probe(&self, ticket: Ticket) -> bool {
        ticket.slot != NO_SLOT
    }

    pub(super) fn transition_to(
        &self,
        to: CircuitState,
        open_for: Option<Duration>,
        now: Instant,
    ) -> Result<Option<Transition>, IllegalTransition> {
        self.with_machine(now, |machine| machine.transition_to(to, open_for, now))
    }

    pub(super) fn reset(&self, now: Instant) -> Option<Transition> {
        self.with_machine(now, |machine| machine.reset(now))
    }

    /// Runs `f` with the machine, up to date, and publishes what it has become.
    pub(super) fn with_machine<R>(&self, now: Instant, f: impl FnOnce(&mut Machine) -> R) -> R {
        let mut locked = lock(&self.locked);
        self.fold_pending(&mut locked, now);
        let result = f(&mut locked.machine);
        self.publish(&mut locked);
        result
    }

    /// Adds a success to `pending`, if that counts for this generation and bucket.
    #[inline]
    fn count_pending(&self, generation: u64, bucket: u64) -> bool {
        let tag = tag(generation, bucket);
        let mut pending = self.pending.load(Ordering::Relaxed);
        loop {
            // A number about to reach the tag goes to the window first.
            if pending >> 32 != tag || pending & 0xffff_ffff >= MOST_PENDING {
                return false;
            }
            match self.pending.compare_exchange_weak(pending, pending + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => pending = seen,
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the number")]
    fn fold_pending(&self, locked: &mut MutexGuard<'_, Locked>, now: Instant) {
        if self.bucket_nanos == 0 {
            return;
        }
        let pending = self.pending.swap(BUSY, Ordering::AcqRel);
        let successes = if pending == BUSY { 0 } else { pending as u32 };
        let bucket = locked.pending_bucket;
        if let Some(window) = locked.machine.time_window() {
            window.add_successes(bucket, successes);
            window.advance(now);
        }
    }

    /// Makes what the machine has become visible to those who do not take the lock.
    fn publish(&self, locked: &mut Locked) {
        let Locked { machine, pending_bucket } = locked;
        let refuse_until = match machine.refuses_until() {
            None => 0,
            Some(None) => NEVER,
            Some(Some(until)) => self.nanos_at(until).min(NEVER - 1),
        };
        store(&self.refuse_until, refuse_until, Ordering::Release);
        store(&self.cause, pack_cause(machine.cause()), Ordering::Relaxed);
        let stamp = stamp_of(machine);
        if let Some(window) = machine.time_window() {
            *pending_bucket = window.current_bucket();
            self.pending.store(tag(stamp.generation(), *pending_bucket) << 32, Ordering::Release);
        }
        store(&self.stamp, stamp.word(), Ordering::Release);
    }

    #[inline]
    fn load(&self) -> Stamp {
        Stamp::from_word(self.stamp.load(Ordering::Acquire))
    }

    #[inline]
    fn nanos_at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.origin))
    }
}

/// Leaves the cache line alone when nothing changes.
fn store(atomic: &AtomicU64, value: u64, order: Ordering) {
    if atomic.load(Ordering::Relaxed) != value {
        atomic.store(value, order);
    }
}

/// Nanoseconds, up to 584 years.
#[inline]
fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// Which generation and bucket `pending` counts for: eight bits of the one, 24 of the other. A thread would have to sleep
/// through 256 generations, or 2^24 buckets of the same one, between two instructions to be mistaken.
#[inline]
fn tag(generation: u64, bucket: u64) -> u64 {
    (generation & 0xff) << 24 | (bucket & 0xff_ffff)
}

fn stamp_of(machine: &Machine) -> Stamp {
    let clean = if machine.is_clean() { CLEAN } else { 0 };
    Stamp::new(machine.generation(), code(machine.state()) | clean)
}

fn code(state: CircuitState) -> u64 {
    match state {
        CircuitState::Closed => CLOSED,
        CircuitState::Open => 1,
        CircuitState::HalfOpen => 2,
        CircuitState::ForcedOpen => 3,
        CircuitState::Disabled => 4,
        CircuitState::Observing => 5,
    }
}

#[inline]
fn state_of(stamp: Stamp) -> CircuitState {
    match stamp.payload() & STATE {
        CLOSED => CircuitState::Closed,
        1 => CircuitState::Open,
        2 => CircuitState::HalfOpen,
        3 => CircuitState::ForcedOpen,
        4 => CircuitState::Disabled,
        _ => CircuitState::Observing,
    }
}

/// The kind of an outcome in three bits; the time of a throttled one in those above.
fn pack_cause(cause: Option<Outcome>) -> u64 {
    match cause {
        None => 0,
        Some(Outcome::Success) => 1,
        Some(Outcome::Refused) => 2,
        Some(Outcome::Transient) => 3,
        Some(Outcome::Permanent) => 4,
        Some(Outcome::Throttled { retry_after }) => {
            // One more than the nanoseconds, so that zero is "none"; 73 years are the longest.
            let after = retry_after.map_or(0, |after| nanos(after).saturating_add(1).min(u64::MAX >> 3));
            5 | after << 3
        }
        Some(Outcome::DependencyFailed) => 6,
        Some(Outcome::Ignored) => 7,
    }
}

fn unpack_cause(packed: u64) -> Option<Outcome> {
    Some(match packed & 0b111 {
        0 => return None,
        1 => Outcome::Success,
        2 => Outcome::Refused,
        3 => Outcome::Transient,
        4 => Outcome::Permanent,
        5 => Outcome::Throttled { retry_after: (packed >> 3).checked_sub(1).map(Duration::from_nanos) },
        6 => Outcome::DependencyFailed,
        _ => Outcome::Ignored,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::super::config::{OpenTime, ProbeRule, SlowCalls};
    use super::super::failure_period::FailuresPerPeriod;
    use super::super::state::Healthy;
    use super::super::trip::{OwnTrip, TripStatistics};
    use super::*;

    /// One step of a single thread.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit,
        /// A verdict of the call admitted this many calls ago, if it has none yet.
        Verdict(usize, Option<Healthy>),
        Wait(u64),
        Go(CircuitState),
        Reset,
    }

    fn step() -> impl Strategy<Value = Step> {
        let health = prop_oneof![8 => Just(Some(Healthy::Yes)), 4 => Just(Some(Healthy::No)), 1 => Just(None)];
        prop_oneof![
            20 => Just(Step::Admit),
            20 => (0_usize..4, health).prop_map(|(ago, health)| Step::Verdict(ago, health)),
            6 => (0_u64..3_000).prop_map(Step::Wait),
            1 => prop::sample::select(CircuitState::ALL.to_vec()).prop_map(Step::Go),
            1 => Just(Step::Reset),
        ]
    }

    fn config() -> impl Strategy<Value = CircuitBreakerConfig> {
        let window = prop_oneof![
            (1_u32..20).prop_map(|calls| Window::Count { calls }),
            (10_u64..5_000).prop_map(|millis| Window::Time { length: Duration::from_millis(millis) }),
        ];
        let rule = prop_oneof![Just(ProbeRule::Rate), (1_u32..4).prop_map(ProbeRule::ConsecutiveSuccesses)];
        let per_period = prop::option::of((1_u32..5, 10_u64..5_000));
        (window, rule, 1_u32..4, prop::option::of(1_u32..5), any::<bool>(), per_period).prop_map(
            |(window, probe_rule, probes, consecutive_failures, timed, per_period)| {
                let failures_per_period = per_period
                    .map(|(failures, millis)| FailuresPerPeriod { failures, period: Duration::from_millis(millis) });
                let slow = SlowCalls { longer_than: Duration::from_millis(500), rate: 0.5 };
                CircuitBreakerConfig {
                    window,
                    probe_rule,
                    probes,
                    consecutive_failures,
                    failures_per_period,
                    slow_calls: timed.then_some(slow),
                    minimum_calls: 1,
                    open_time: OpenTime::Constant(Duration::from_millis(700)),
                    probe_deadline: Duration::from_millis(900),
                    ..CircuitBreakerConfig::default()
                }
            },
        )
    }

    #[test]
    fn asked_and_refused_an_open_circuit_reads_the_clock_once_and_a_forced_one_not_at_all() {
        #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
        let origin = Instant::now();
        let reads = Cell::new(0);
        let now = || {
            reads.set(reads.get() + 1);
            origin + Duration::from_secs(1)
        };
        let shared = Shared::new(&CircuitBreakerConfig::default(), OwnRules::default(), origin);
        let asked = || {
            let refused = shared.refuses(now);
            assert!(refused.is_some());
            shared.refuse(refused, now).retry_after
        };
        shared.transition_to(CircuitState::Open, Some(Duration::from_secs(3)), origin).unwrap();
        assert_eq!((asked(), reads.take()), (Some(Duration::from_secs(2)), 1));
        shared.transition_to(CircuitState::ForcedOpen, None, origin).unwrap();
        assert_eq!((asked(), reads.take()), (None, 0));
    }

    proptest! {
        /// Whatever the front answers without the lock, the machine alone would have answered too.
        #[test]
        fn the_front_agrees_with_the_machine(
            config in config(),
            own_trip in prop::option::of(0_u64..5),
            steps in prop::collection::vec(step(), 0..200),
        ) {
            #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
            let origin = Instant::now();
            let clock = Cell::new(origin);
            let now = || clock.get();
            let trip = |limit| OwnTrip::new(move |seen: &TripStatistics, _: Outcome| seen.failures >= limit);
            let own = || OwnRules { trip: own_trip.map(trip), open_time: None };
            let shared = Shared::new(&config, own(), origin);
            let mut machine = Machine::new(config.clone(), own(), origin);
            let mut running: Vec<(Ticket, Origin, Instant)> = Vec::new();
            for step in steps {
                match step {
                    Step::Admit => {
                        let front = shared.admit_closed(now).map_or_else(|| shared.admit(now), |it| (Ok(it), None));
                        let (admission, change) = machine.admit(now());
                        prop_assert_eq!(front.1, change);
                        let probe = match admission {
                            Admission::Call => None,
                            Admission::Probe(slot) => Some((slot, now())),
                            Admission::Refused => {
                                let refusal = front.0.err();
                                let until = machine.refuses_until().flatten();
                                let left = until.map(|until| until.saturating_duration_since(now()));
                                prop_assert_eq!(refusal.map(|it| (it.state, it.retry_after)), Some((machine.state(), left)));
                                continue;
                            }
                        };
                        let ticket = front.0.expect("the machine admitted it");
                        prop_assert_eq!(shared.is_probe(ticket), probe.is_some());
                        running.push((ticket, Origin { generation: machine.generation(), probe }, now()));
                    }
                    Step::Verdict(ago, health) => {
                        let Some(index) = running.len().checked_sub(ago + 1) else { continue };
                        let (ticket, origin, began) = running.remove(index);
                        if shared.is_unrecorded(ticket) {
                            continue;
                        }
                        let limit = config.slow_calls.map_or(Duration::MAX, |slow| slow.longer_than);
                        let slow = health.is_some() && now() - began > limit;
                        prop_assert_eq!(health.is_some() && shared.is_slow(ticket, now), slow);
                        let outcome = if health == Some(Healthy::No) { Outcome::Transient } else { Outcome::Success };
                        let evidence = Evidence { health, slow, outcome };
                        let absorbed = health == Some(Healthy::Yes) && shared.absorbs(ticket, now);
                        let change = if absorbed { None } else { shared.record(ticket, evidence, now) };
                        prop_assert_eq!(change, machine.record(origin, evidence, now()));
                    }
                    Step::Wait(millis) => clock.set(now() + Duration::from_millis(millis)),
                    Step::Go(state) => {
                        let change = shared.transition_to(state, None, now());
                        prop_assert_eq!(change, machine.transition_to(state, None, now()));
                    }
                    Step::Reset => prop_assert_eq!(shared.reset(now()), machine.reset(now())),
                }
                prop_assert_eq!(shared.state(), machine.state());
            }
            let counts = shared.with_machine(now(), |inner| (inner.counts(now()), inner.consecutive_failures()));
            prop_assert_eq!(counts, (machine.counts(now()), machine.consecutive_failures()));
        }
    }

    #[test]
    fn causes_survive_being_packed() {
        let causes = [
            None,
            Some(Outcome::Success),
            Some(Outcome::Refused),
            Some(Outcome::Transient),
            Some(Outcome::Permanent),
            Some(Outcome::Throttled { retry_after: None }),
            Some(Outcome::Throttled { retry_after: Some(Duration::ZERO) }),
            Some(Outcome::throttled(Duration::from_secs(3600))),
            Some(Outcome::DependencyFailed),
            Some(Outcome::Ignored),
        ];
        for cause in causes {
            assert_eq!(unpack_cause(pack_cause(cause)), cause);
        }
    }

    #[test]
    fn a_breaker_is_small_whatever_it_has_seen() {
        assert!(size_of::<Shared>() <= 640, "{}", size_of::<Shared>());
        assert!(size_of::<Ticket>() <= 24);
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    //! Verdicts are told as a permit tells them: absorbed if they can be, else recorded.

    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::super::config::{OpenTime, ProbeRule};
    use super::super::state::Healthy;
    use super::*;
    use crate::cores::sliding_window::WindowCounts;
    use crate::cores::sync::model::{every_order, join, now, spawn, with_interruptions};

    const SECOND: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(3_600);

    /// Judges by what its windows hold, but not before an amount of calls that no model makes.
    fn counting(window: Window) -> CircuitBreakerConfig {
        CircuitBreakerConfig {
            window,
            failure_rate: Some(1.0),
            minimum_calls: 1_000,
            consecutive_failures: None,
            slow_calls: None,
            ..CircuitBreakerConfig::default()
        }
    }

    fn seconds() -> CircuitBreakerConfig {
        counting(Window::Time { length: 10 * SECOND })
    }

    /// Opens at the first failure.
    fn tripping(open: Duration) -> CircuitBreakerConfig {
        CircuitBreakerConfig {
            failure_rate: None,
            consecutive_failures: Some(1),
            open_time: OpenTime::Constant(open),
            ..counting(Window::Count { calls: 3 })
        }
    }

    /// A circuit that is open, and due to admit this many probes.
    fn due(probes: u32, probe_rule: ProbeRule) -> CircuitBreakerConfig {
        CircuitBreakerConfig { initial_state: CircuitState::Open, probes, probe_rule, ..tripping(Duration::ZERO) }
    }

    fn breaker(config: &CircuitBreakerConfig) -> (Arc<Shared>, Instant) {
        let origin = now();
        (Arc::new(Shared::new(config, OwnRules::default(), origin)), origin)
    }

    impl Shared {
        fn call(&self, now: Instant) -> Result<Ticket, Refusal> {
            self.admit_closed(|| now).map_or_else(|| self.admit(|| now).0, Ok)
        }

        fn succeeds(&self, ticket: Ticket, now: Instant) -> Option<Transition> {
            if self.absorbs_untimed(ticket) || self.absorbs(ticket, || now) {
                return None;
            }
            self.record(ticket, evidence(Some(Healthy::Yes), Outcome::Success), || now)
        }

        fn fails(&self, ticket: Ticket, now: Instant) -> Option<Transition> {
            self.record(ticket, evidence(Some(Healthy::No), Outcome::Transient), || now)
        }

        fn is_abandoned(&self, ticket: Ticket, now: Instant) -> Option<Transition> {
            self.record(ticket, evidence(None, Outcome::Ignored), || now)
        }

        fn counts(&self, now: Instant) -> WindowCounts {
            self.with_machine(now, |machine| machine.counts(now))
        }
    }

    fn evidence(health: Option<Healthy>, outcome: Outcome) -> Evidence {
        Evidence { health, slow: false, outcome }
    }

    #[test]
    fn every_verdict_is_in_a_time_window_once() {
        with_interruptions(3, || {
            let (shared, origin) = breaker(&seconds());
            let succeeding = {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    for _ in 0..2 {
                        let ticket = shared.call(origin).expect("closed");
                        assert_eq!(shared.succeeds(ticket, origin), None);
                    }
                })
            };
            let failing = {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let ticket = shared.call(origin).expect("closed");
                    assert_eq!(shared.fails(ticket, origin), None);
                })
            };
            // Who looks adds to the window what was counted beside it.
            assert!(shared.counts(origin).calls <= 3);
            join(succeeding);
            join(failing);
            assert_eq!(shared.counts(origin), WindowCounts { calls: 3, failures: 1, slow: 0 });
        });
    }

    #[test]
    fn a_success_joins_the_bucket_of_its_time_although_another_has_begun() {
        with_interruptions(3, || {
            let (shared, origin) = breaker(&seconds());
            let threads = [origin, origin + SECOND].map(|now| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let ticket = shared.call(now).expect("closed");
                    shared.succeeds(ticket, now);
                })
            });
            threads.into_iter().for_each(join);
            assert_eq!(shared.counts(origin + SECOND).calls, 2);
            assert_eq!(shared.counts(origin + LATER).calls, 0, "both leave");
        });
    }

    /// The deviation that is allowed: on a full window without failures, a success that is told while another thread tells
    /// the first failure may count as the earlier of the two, which does not end its row.
    #[test]
    fn a_failure_is_in_a_count_window_once_and_a_success_at_the_same_time_may_count_as_the_earlier() {
        every_order(|| {
            let (shared, origin) = breaker(&counting(Window::Count { calls: 2 }));
            for _ in 0..2 {
                shared.succeeds(shared.call(origin).expect("closed"), origin);
            }
            let threads = [true, false].map(|succeeds| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let ticket = shared.call(origin).expect("closed");
                    if succeeds { shared.succeeds(ticket, origin) } else { shared.fails(ticket, origin) }
                })
            });
            assert_eq!(threads.map(join), [None, None]);
            assert_eq!(shared.counts(origin), WindowCounts { calls: 2, failures: 1, slow: 0 });
            let in_a_row = shared.with_machine(origin, |machine| machine.consecutive_failures());
            assert!(in_a_row <= 1);
            // Once the failure is there, nothing is told beside it.
            shared.succeeds(shared.call(origin).expect("closed"), origin);
            shared.succeeds(shared.call(origin).expect("closed"), origin);
            assert_eq!(shared.counts(origin).failures, 0, "both successes came after it");
        });
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_once_however_they_come() {
        every_order(|| {
            let config = CircuitBreakerConfig { consecutive_failures: Some(2), ..tripping(SECOND) };
            let (shared, origin) = breaker(&config);
            let threads = [(); 2].map(|()| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let ticket = shared.call(origin).expect("closed");
                    shared.fails(ticket, origin).map_or(0, |change| {
                        assert_eq!((change.from, change.to), (CircuitState::Closed, CircuitState::Open));
                        1
                    })
                })
            });
            assert_eq!(threads.into_iter().map(join).sum::<u32>(), 1);
            assert_eq!(shared.state(), CircuitState::Open);
            assert_eq!(shared.with_machine(origin, |machine| machine.opens()), 1);
        });
    }

    #[derive(Clone, Copy)]
    enum End {
        Success,
        Failure,
        Abandoned,
    }

    fn probes_are_bounded(probes: u32, rule: ProbeRule, ends: &[End]) {
        let (shared, origin) = breaker(&due(probes, rule));
        let out = Arc::new(AtomicU32::new(0));
        let threads = ends.iter().map(|&end| {
            let (shared, out) = (Arc::clone(&shared), Arc::clone(&out));
            spawn(move || {
                let Ok(ticket) = shared.call(origin) else { return };
                if shared.is_probe(ticket) {
                    assert!(out.fetch_add(1, Ordering::Relaxed) < probes);
                    shared.state();
                    out.fetch_sub(1, Ordering::Relaxed);
                }
                match end {
                    End::Success => shared.succeeds(ticket, origin),
                    End::Failure => shared.fails(ticket, origin),
                    End::Abandoned => shared.is_abandoned(ticket, origin),
                };
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(join);
        assert_eq!(shared.with_machine(origin, |machine| machine.probes_in_flight()), 0);
        assert!(shared.call(origin + LATER).is_ok(), "stuck in {:?}", shared.state());
    }

    #[test]
    fn no_two_probes_share_one_slot_and_it_is_not_lost() {
        use End::{Abandoned, Failure, Success};
        for ends in [[Success, Failure], [Success, Abandoned], [Failure, Failure], [Failure, Abandoned]] {
            with_interruptions(2, move || probes_are_bounded(1, ProbeRule::Rate, &ends));
            with_interruptions(2, move || probes_are_bounded(1, ProbeRule::ConsecutiveSuccesses(2), &ends));
        }
    }

    #[test]
    fn no_three_probes_share_two_slots_and_none_is_lost() {
        use End::{Abandoned, Failure, Success};
        for ends in [[Success, Success, Abandoned], [Success, Failure, Failure]] {
            with_interruptions(1, move || probes_are_bounded(2, ProbeRule::Rate, &ends));
            with_interruptions(1, move || probes_are_bounded(2, ProbeRule::ConsecutiveSuccesses(2), &ends));
        }
    }

    #[test]
    fn a_probe_that_never_ends_gives_its_slot_up_in_time() {
        with_interruptions(3, || {
            let config = due(1, ProbeRule::Rate);
            let (shared, origin) = breaker(&config);
            let threads = [(); 2].map(|()| {
                let shared = Arc::clone(&shared);
                spawn(move || shared.call(origin))
            });
            let admitted: Vec<_> = threads.into_iter().filter_map(|thread| join(thread).ok()).collect();
            let [lost] = admitted[..] else { panic!("one slot, {} probes", admitted.len()) };
            assert!(shared.call(origin).is_err());
            let next = origin + config.probe_deadline;
            let probe = shared.call(next).expect("the slot is free again");
            // The lost one comes back, and has no say.
            let late = {
                let shared = Arc::clone(&shared);
                spawn(move || shared.fails(lost, next))
            };
            let change = shared.succeeds(probe, next).map(|change| change.to);
            assert_eq!((join(late), change), (None, Some(CircuitState::Closed)));
        });
    }

    #[test]
    fn a_straggler_of_an_older_generation_changes_nothing() {
        for (healthy, closes) in [(true, false), (false, false), (false, true)] {
            with_interruptions(3, move || {
                let config = CircuitBreakerConfig { probes: 1, ..tripping(Duration::ZERO) };
                let (shared, origin) = breaker(&config);
                let ticket = shared.call(origin).expect("closed");
                let straggler = {
                    let shared = Arc::clone(&shared);
                    spawn(move || if healthy { shared.succeeds(ticket, origin) } else { shared.fails(ticket, origin) })
                };
                shared.transition_to(CircuitState::Open, None, origin).expect("it may open");
                let probe = shared.call(origin).expect("it is due");
                assert!(shared.is_probe(probe));
                if closes {
                    shared.succeeds(probe, origin).expect("all that it takes to close");
                }
                join(straggler);
                let state = if closes { CircuitState::Closed } else { CircuitState::HalfOpen };
                assert_eq!((shared.state(), shared.counts(origin).calls), (state, 0));
            });
        }
    }

    /// Nor is one of this generation forgotten: after a reset the window holds exactly what was admitted after it.
    #[test]
    fn a_window_holds_the_verdicts_of_its_generation_and_no_others() {
        for window in [Window::Time { length: 10 * SECOND }, Window::Count { calls: 8 }] {
            with_interruptions(3, move || {
                let (shared, origin) = breaker(&counting(window));
                let succeed = move |shared: &Shared| {
                    let ticket = shared.call(origin).expect("closed");
                    shared.succeeds(ticket, origin);
                    ticket.stamp.generation()
                };
                let caller = {
                    let shared = Arc::clone(&shared);
                    spawn(move || [succeed(&shared), succeed(&shared)])
                };
                assert_eq!(shared.reset(origin), None);
                let own = succeed(&shared);
                let generations = join(caller);
                let current = generations.into_iter().filter(|&generation| generation == own).count();
                assert_eq!(shared.counts(origin).calls, 1 + current as u64);
            });
        }
    }

    #[test]
    fn who_sees_a_circuit_open_sees_until_when_and_why() {
        every_order(|| {
            let (shared, origin) = breaker(&tripping(5 * SECOND));
            let ticket = shared.call(origin).expect("closed");
            let failing = {
                let shared = Arc::clone(&shared);
                spawn(move || shared.fails(ticket, origin))
            };
            match shared.admits(|| origin) {
                Admits::Call => {}
                told => assert_eq!(told, Admits::Nothing { retry_after: Some(5 * SECOND) }),
            }
            if let Err(refusal) = shared.call(origin) {
                let (retry_after, cause) = (Some(5 * SECOND), Some(Outcome::Transient));
                assert_eq!(refusal, Refusal { state: CircuitState::Open, retry_after, cause });
            }
            assert!(join(failing).is_some());
            assert!(shared.call(origin + 5 * SECOND).is_ok());
        });
    }

    #[test]
    fn who_is_refused_hears_a_time_that_was_true() {
        every_order(|| {
            let (shared, origin) = breaker(&tripping(5 * SECOND));
            shared.transition_to(CircuitState::Open, None, origin).expect("it may open");
            let operator = {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    shared.transition_to(CircuitState::Open, Some(9 * SECOND), origin).expect("it is open");
                    shared.reset(origin);
                })
            };
            if let Err(refusal) = shared.call(origin) {
                assert!([5, 9].map(|seconds| Some(seconds * SECOND)).contains(&refusal.retry_after), "{refusal:?}");
            }
            join(operator);
            assert!(shared.call(origin).is_ok());
        });
    }
}
