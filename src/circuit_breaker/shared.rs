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
//! Where calls that hang are watched, none of this holds but for one thing: an admission adds one to the atomic `begun`, which
//! is to the bucket in which a call began what `pending` is to that in which it ended.
//!
//! Everything else takes the lock, changes the machine and publishes it again. The stamp is published last: whoever sees a
//! generation sees a `refuse_until` at least as new, and one that is newer still was true when it was read.
//!
//! Counting is exact in the order in which verdicts are recorded. A success that read [`CLEAN`] at the very moment in which
//! another thread recorded a failure counts as the earlier of the two.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::config::CircuitBreakerConfig;
use super::own_rules::OwnRules;
use super::state::{Admission, Evidence, IllegalTransition, Machine, Origin, Transition};
use crate::circuit_state::CircuitState;
use crate::cores::generation::Stamp;
use crate::cores::lock::lock;
use crate::outcome::Outcome;

/// The bit of the stamp which says that a fast success changes nothing but a count.
const CLEAN: u64 = 0b1000;
const STATE: u64 = 0b0111;
/// The code of the closed state.
const CLOSED: u64 = 0;
/// The codes of the closed and the observing state while calls that hang are watched: other codes, so that without the
/// watch nobody has to ask whether it is on.
const CLOSED_WATCHED: u64 = 6;
const OBSERVING: u64 = 5;
const OBSERVING_WATCHED: u64 = 7;
/// `refuse_until` when no end of the refusal is known.
const NEVER: u64 = u64::MAX;
/// `slow_nanos` when nobody asks how long a call takes.
const UNMEASURED: u64 = u64::MAX;
/// `pending` while the holder of the lock has it; its number admits no more.
const BUSY: u64 = u64::MAX;
/// The highest number in `pending`.
const MOST_PENDING: u64 = 0xffff_fffe;
/// A call that was dropped is a failure.
pub(super) const ABANDONED_FOR_FAILURE: u8 = 0b001;
/// A throttled call is a failure.
pub(super) const THROTTLED_FOR_FAILURE: u8 = 0b010;
/// A throttled call may open the circuit for the time it says.
pub(super) const THROTTLED_TO_OPEN: u8 = 0b100;
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
    /// Calls that began and are not yet among those that are watched: a tag in the upper half, the number in the lower.
    begun: AtomicU64,
    /// The length of a bucket in which watched calls begin; zero without the watch.
    begun_nanos: AtomicU64,
    /// Where the nanoseconds start.
    origin: Instant,
    /// The length of a bucket of the time window; zero without one.
    bucket_nanos: AtomicU64,
    /// Neither a time window nor a slow threshold: a finished call needs no clock.
    is_untimed: AtomicBool,
    /// The slow threshold; [`UNMEASURED`] without one.
    slow_nanos: AtomicU64,
    /// What verdicts are taken for, beside what they say: [`ABANDONED_FOR_FAILURE`] and its like.
    takes: AtomicU8,
    locked: Mutex<Locked>,
}

#[derive(Debug)]
struct Locked {
    machine: Machine,
    /// The bucket that `pending` counts for.
    pending_bucket: u64,
    /// The generation and the bucket that `begun` counts for; `None` while it takes nothing.
    begun_for: Option<(u64, u64)>,
}

/// What a call was admitted with. A permit owns it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    stamp: Stamp,
    /// When it was admitted, in nanoseconds since the origin; [`UNMEASURED`] if nobody needs to know.
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
    /// A probe is due: the next call takes its slot. (Should the circuit have been half-open for
    /// [too long](super::CircuitBreakerConfig::half_open_max), that call finds it out, and is refused; on a [ramp](super::CircuitBreakerConfig::ramp) it
    /// is admitted, or refused, as the share of the step has it.)
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
        let machine = Machine::new(config.clone(), own, origin);
        let shared = Self {
            stamp: AtomicU64::new(0),
            refuse_until: AtomicU64::new(0),
            cause: AtomicU64::new(0),
            pending: AtomicU64::new(BUSY),
            begun: AtomicU64::new(BUSY),
            begun_nanos: AtomicU64::new(0),
            origin,
            bucket_nanos: AtomicU64::new(0),
            is_untimed: AtomicBool::new(false),
            slow_nanos: AtomicU64::new(UNMEASURED),
            takes: AtomicU8::new(0),
            locked: Mutex::new(Locked { machine, pending_bucket: 0, begun_for: None }),
        };
        let mut locked = lock(&shared.locked);
        shared.set_up(&mut locked.machine);
        shared.publish(&mut locked);
        drop(locked);
        shared
    }

    /// Makes the settings visible to those who do not take the lock. Who reads one of them a moment late ends a call a moment
    /// before the settings changed; what is counted meanwhile is counted under the generation and bucket that it is for.
    fn set_up(&self, machine: &mut Machine) {
        let bucket_nanos = machine.time_window().map_or(0, |window| window.bucket_nanos());
        self.bucket_nanos.store(bucket_nanos, Ordering::Relaxed);
        self.begun_nanos.store(machine.begun_nanos(), Ordering::Relaxed);
        let config = machine.config();
        self.is_untimed.store(bucket_nanos == 0 && config.slow_calls.is_none(), Ordering::Relaxed);
        let slow_nanos = config.slow_calls.map_or(UNMEASURED, |slow| nanos(slow.longer_than).min(UNMEASURED - 1));
        self.slow_nanos.store(slow_nanos, Ordering::Relaxed);
        let takes = [
            (config.abandoned_is_failure, ABANDONED_FOR_FAILURE),
            (config.throttled_is_failure, THROTTLED_FOR_FAILURE),
            (config.throttled_opens.is_some(), THROTTLED_TO_OPEN),
        ];
        let takes = takes.into_iter().filter(|(yes, _)| *yes).map(|(_, bit)| bit).sum();
        self.takes.store(takes, Ordering::Relaxed);
    }

    /// Whether verdicts are taken for this, beside what they say.
    #[inline]
    pub(super) fn takes(&self, what: u8) -> bool {
        self.takes.load(Ordering::Relaxed) & what != 0
    }

    /// Reads settings, without the clock and without publishing anything.
    pub(super) fn with_settings<R>(&self, f: impl FnOnce(&Machine) -> R) -> R {
        f(&lock(&self.locked).machine)
    }

    /// Puts other settings in place of these.
    pub(super) fn reconfigure(&self, config: CircuitBreakerConfig, now: Instant) {
        let mut locked = lock(&self.locked);
        // Under the old settings, and nothing may be counted by them from here on.
        self.fold_pending(&mut locked, now);
        self.fold_begun(&mut locked);
        self.close_begun(&mut locked);
        locked.machine.reconfigure(config, now);
        self.set_up(&mut locked.machine);
        self.publish(&mut locked);
    }

    /// The slow threshold; [`UNMEASURED`] without one.
    #[inline]
    fn slow_nanos(&self) -> u64 {
        self.slow_nanos.load(Ordering::Relaxed)
    }

    #[inline]
    fn bucket_nanos(&self) -> u64 {
        self.bucket_nanos.load(Ordering::Relaxed)
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
        let started = if self.slow_nanos() == UNMEASURED { UNMEASURED } else { self.nanos_at(now()) };
        Some(Ticket { stamp, started, slot: NO_SLOT })
    }

    /// Admits a call, or refuses it.
    #[cold]
    #[inline(never)]
    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        let stamp = self.load();
        match state_of(stamp) {
            CircuitState::Closed | CircuitState::Observing if is_watched(stamp) => self.admit_watched(stamp, now()),
            CircuitState::Closed | CircuitState::Observing => {
                let started = if self.slow_nanos() == UNMEASURED { UNMEASURED } else { self.nanos_at(now()) };
                (Ok(Ticket { stamp, started, slot: NO_SLOT }), None)
            }
            CircuitState::Disabled => (Ok(Ticket { stamp, started: UNMEASURED, slot: NO_SLOT }), None),
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

    /// Admits a call that is watched while it runs. The first of each bucket takes the lock, and sees who hangs.
    fn admit_watched(&self, stamp: Stamp, now: Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        let started = self.nanos_at(now);
        if self.count_begun(stamp.generation(), started) {
            return (Ok(Ticket { stamp, started, slot: NO_SLOT }), None);
        }
        self.admit_locked(now)
    }

    #[cold]
    fn admit_locked(&self, now: Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        // A probe is known by when it began, which its ticket tells from the origin on.
        let now = now.max(self.origin);
        self.with_machine(now, |machine| {
            let now = machine.begins(now);
            let (admission, change) = machine.admit(now);
            let stamp = stamp_of(machine);
            let result = match admission {
                Admission::Call => Ok(Ticket { stamp, started: self.nanos_at(now), slot: NO_SLOT }),
                Admission::Probe(slot) => Ok(Ticket { stamp, started: self.nanos_at(now), slot }),
                Admission::Refused => {
                    let retry_after = machine.refused_until(now).map(|until| until.saturating_duration_since(now));
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
        self.slow_nanos() != UNMEASURED && self.nanos_at(now()).saturating_sub(ticket.started) > self.slow_nanos()
    }

    /// [`absorbs`](Self::absorbs), of breakers for which no clock has to be read.
    #[inline]
    pub(super) fn absorbs_untimed(&self, ticket: Ticket) -> bool {
        self.is_untimed.load(Ordering::Relaxed) && self.stamp.load(Ordering::Acquire) == ticket.stamp.word() | CLEAN
    }

    /// Takes a healthy call that changes nothing but a number, if it is one: nothing is wrong so far, and it was not slow.
    /// `false` when it has to be [recorded](Self::record).
    #[inline]
    pub(super) fn absorbs(&self, ticket: Ticket, now: impl Fn() -> Instant) -> bool {
        // The generation and the state as they were. A half-open circuit is never clean.
        if self.stamp.load(Ordering::Acquire) != ticket.stamp.word() | CLEAN {
            return false;
        }
        self.is_untimed.load(Ordering::Relaxed) || self.absorbs_timed(ticket, self.nanos_at(now()))
    }

    #[inline]
    fn absorbs_timed(&self, ticket: Ticket, ended: u64) -> bool {
        // Nothing is longer than `UNMEASURED`.
        ended.saturating_sub(ticket.started) <= self.slow_nanos()
            && ended
                .checked_div(self.bucket_nanos())
                .is_none_or(|bucket| self.count_pending(ticket.stamp.generation(), bucket))
    }

    /// A verdict.
    #[cold]
    pub(super) fn record(&self, ticket: Ticket, evidence: Evidence, now: impl Fn() -> Instant) -> Option<Transition> {
        // A straggler needs no lock: generations only grow.
        if self.load().generation() != ticket.stamp.generation() {
            return None;
        }
        let now = now();
        let started = (ticket.started != UNMEASURED).then(|| self.origin + Duration::from_nanos(ticket.started));
        let origin = Origin {
            generation: ticket.stamp.generation(),
            probe: started.filter(|_| ticket.slot != NO_SLOT).map(|since| (ticket.slot, since)),
            started,
        };
        self.with_machine(now, |machine| machine.record(origin, evidence, now))
    }

    /// Whether `ticket` holds a slot that has to be given back.
    #[inline]
    pub(super) fn is_probe(&self, ticket: Ticket) -> bool {
        ticket.slot != NO_SLOT
    }

    /// Whether the end of the call has to be told, though it may say nothing: it holds a slot, or is watched.
    #[inline]
    pub(super) fn has_to_tell(&self, ticket: Ticket) -> bool {
        self.is_probe(ticket) || self.begun_nanos.load(Ordering::Relaxed) != 0
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
        self.fold_begun(&mut locked);
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

    /// Adds a call to `begun`, if that counts for this generation and the bucket of `started`.
    fn count_begun(&self, generation: u64, started: u64) -> bool {
        let Some(bucket) = started.checked_div(self.begun_nanos.load(Ordering::Relaxed)) else { return false };
        let tag = tag(generation, bucket);
        let mut begun = self.begun.load(Ordering::Relaxed);
        loop {
            if begun >> 32 != tag || begun & 0xffff_ffff >= MOST_PENDING {
                return false;
            }
            match self.begun.compare_exchange_weak(begun, begun + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => begun = seen,
            }
        }
    }

    /// Adds the calls that began to those that are watched. More may begin meanwhile.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the number")]
    fn fold_begun(&self, locked: &mut Locked) {
        let Locked { machine, begun_for, .. } = locked;
        let Some(in_flight) = machine.in_flight() else { return };
        if let Some((generation, bucket)) = *begun_for {
            let begun = self.begun.swap(tag(generation, bucket) << 32, Ordering::AcqRel);
            in_flight.add(bucket, begun as u32);
        }
    }

    /// Lets `begun` count for none.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the number")]
    fn close_begun(&self, locked: &mut Locked) {
        let Locked { machine, begun_for, .. } = locked;
        if let Some((_, bucket)) = begun_for.take()
            && let Some(in_flight) = machine.in_flight()
        {
            in_flight.add(bucket, self.begun.swap(BUSY, Ordering::AcqRel) as u32);
        }
    }

    /// Lets `begun` count for the present generation and bucket; for none when the next admission has to take the lock.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the number")]
    fn publish_begun(&self, locked: &mut Locked) {
        let Locked { machine, begun_for, .. } = locked;
        let (generation, takes) = (machine.generation(), machine.admits_freely());
        let open = machine.in_flight().filter(|_| takes).and_then(|in_flight| in_flight.open_bucket());
        let next = open.map(|bucket| (generation, bucket));
        if next == *begun_for {
            return;
        }
        let word = next.map_or(BUSY, |(generation, bucket)| tag(generation, bucket) << 32);
        let begun = self.begun.swap(word, Ordering::AcqRel);
        // Those that began since they were folded in. If the generation is over, they are stragglers.
        if let Some((of, bucket)) = *begun_for
            && of == generation
            && let Some(in_flight) = machine.in_flight()
        {
            in_flight.add(bucket, begun as u32);
        }
        *begun_for = next;
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the number")]
    fn fold_pending(&self, locked: &mut MutexGuard<'_, Locked>, now: Instant) {
        if self.bucket_nanos() == 0 {
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
        self.publish_begun(locked);
        let Locked { machine, pending_bucket, .. } = locked;
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
    let code = match code(machine.state()) {
        CLOSED if machine.watches() => CLOSED_WATCHED,
        OBSERVING if machine.watches() => OBSERVING_WATCHED,
        code => code,
    };
    Stamp::new(machine.generation(), code | clean)
}

/// Whether calls that run in this state, closed or observing, are watched.
fn is_watched(stamp: Stamp) -> bool {
    stamp.payload() & STATE >= CLOSED_WATCHED
}

fn code(state: CircuitState) -> u64 {
    match state {
        CircuitState::Closed => CLOSED,
        CircuitState::Open => 1,
        CircuitState::HalfOpen => 2,
        CircuitState::ForcedOpen => 3,
        CircuitState::Disabled => 4,
        CircuitState::Observing => OBSERVING,
    }
}

#[inline]
fn state_of(stamp: Stamp) -> CircuitState {
    match stamp.payload() & STATE {
        CLOSED | CLOSED_WATCHED => CircuitState::Closed,
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

    use super::super::config::{OpenTime, ProbeRule, SlowCalls, Window};
    use super::super::failure_period::FailuresPerPeriod;
    use super::super::ramp::Ramp;
    use super::super::state::Healthy;
    use super::super::trip::{OwnTrip, TripStatistics};
    use super::*;

    /// One step of a single thread.
    #[derive(Clone, Debug)]
    enum Step {
        Admit,
        /// A verdict of the call admitted this many calls ago, if it has none yet.
        Verdict(usize, Option<Healthy>),
        Wait(u64),
        Go(CircuitState),
        Reset,
        Reconfigure(Box<CircuitBreakerConfig>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let health = prop_oneof![8 => Just(Some(Healthy::Yes)), 4 => Just(Some(Healthy::No)), 1 => Just(None)];
        prop_oneof![
            20 => Just(Step::Admit),
            20 => (0_usize..4, health).prop_map(|(ago, health)| Step::Verdict(ago, health)),
            6 => (0_u64..3_000).prop_map(Step::Wait),
            1 => prop::sample::select(CircuitState::ALL.to_vec()).prop_map(Step::Go),
            1 => Just(Step::Reset),
            1 => config().prop_map(|config| Step::Reconfigure(Box::new(config))),
        ]
    }

    fn config() -> impl Strategy<Value = CircuitBreakerConfig> {
        let window = prop_oneof![
            (1_u32..20).prop_map(|calls| Window::Count { calls }),
            (10_u64..5_000).prop_map(|millis| Window::Time { length: Duration::from_millis(millis) }),
        ];
        let rule = prop_oneof![
            Just(ProbeRule::Rate),
            Just(ProbeRule::FirstFailure),
            (1_u32..4).prop_map(ProbeRule::ConsecutiveSuccesses),
        ];
        let per_period = prop::option::of((1_u32..5, 10_u64..5_000));
        let most = prop::option::of((1_u64..5_000).prop_map(Duration::from_millis));
        let ramp = prop::option::of(
            (1_u64..2_000).prop_map(|step| Ramp { shares: vec![0.25, 0.6], step: Duration::from_millis(step) }),
        );
        (window, rule, 1_u32..4, prop::option::of(1_u32..5), any::<(bool, bool)>(), per_period, most, ramp).prop_map(
            |(window, probe_rule, probes, consecutive_failures, (timed, watched), per_period, half_open_max, ramp)| {
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
                    watch_in_flight: timed && watched,
                    minimum_calls: 1,
                    open_time: OpenTime::Constant(Duration::from_millis(700)),
                    probe_deadline: Duration::from_millis(900),
                    half_open_max,
                    ramp,
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

    #[test]
    fn a_call_that_begins_while_the_lock_is_held_is_watched_like_any_other() {
        #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
        let origin = Instant::now();
        let config = CircuitBreakerConfig {
            slow_calls: Some(SlowCalls { longer_than: Duration::from_secs(8), rate: 1.0 }),
            watch_in_flight: true,
            ..CircuitBreakerConfig::default()
        };
        let later = |seconds| origin + Duration::from_secs(seconds);
        let overdue = |end_of_generation: bool| {
            let shared = Shared::new(&config, OwnRules::default(), origin);
            let generation = shared.load().generation();
            shared.with_machine(origin, |machine| {
                // Another thread admits a call; this one goes on to the next bucket, or the next generation.
                assert!(shared.count_begun(generation, 0));
                if end_of_generation {
                    machine.reset(later(1));
                } else {
                    machine.admit(later(1));
                }
            });
            assert!(!shared.count_begun(generation, 0), "it is told to take the lock");
            shared.with_machine(later(20), |machine| {
                let in_flight = machine.in_flight().expect("calls are watched");
                in_flight.advance(later(20));
                in_flight.take_overdue()
            })
        };
        assert_eq!(overdue(false), 2);
        assert_eq!(overdue(true), 0, "it is a straggler");
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
            let own = || OwnRules { trip: own_trip.map(trip), open_time: None, seed: Some(1) };
            let shared = Shared::new(&config, own(), origin);
            let mut machine = Machine::new(config.clone(), own(), origin);
            let mut reconfigured = false;
            let mut running: Vec<(Ticket, Origin, Instant)> = Vec::new();
            for step in steps {
                match step {
                    Step::Admit => {
                        let front = shared.admit_closed(now).map_or_else(|| shared.admit(now), |it| (Ok(it), None));
                        let begins = machine.begins(now());
                        let (admission, change) = machine.admit(begins);
                        prop_assert_eq!(front.1, change);
                        let probe = match admission {
                            Admission::Call => None,
                            Admission::Probe(slot) => Some((slot, begins)),
                            Admission::Refused => {
                                let refusal = front.0.err();
                                let until = machine.refused_until(begins);
                                // With the lock or without: a nanosecond may be between them.
                                let left = [now(), begins].map(|at| until.map(|until| until.saturating_duration_since(at)));
                                let (state, retry_after) = refusal.map(|it| (it.state, it.retry_after)).expect("it is refused");
                                prop_assert_eq!(state, machine.state());
                                prop_assert!(left.contains(&retry_after));
                                continue;
                            }
                        };
                        let ticket = front.0.expect("the machine admitted it");
                        prop_assert_eq!(shared.is_probe(ticket), probe.is_some());
                        let origin = Origin { generation: machine.generation(), probe, started: Some(begins) };
                        running.push((ticket, origin, begins));
                    }
                    Step::Verdict(ago, health) => {
                        let Some(index) = running.len().checked_sub(ago + 1) else { continue };
                        let (ticket, origin, began) = running.remove(index);
                        if shared.is_unrecorded(ticket) {
                            continue;
                        }
                        let limit = config.slow_calls.map_or(Duration::MAX, |slow| slow.longer_than);
                        let slow = health.is_some() && shared.is_slow(ticket, now);
                        // Other settings may have measured the call, or not.
                        prop_assert!(reconfigured || slow == (health.is_some() && now().saturating_duration_since(began) > limit));
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
                    Step::Reconfigure(config) => {
                        reconfigured = true;
                        shared.reconfigure((*config).clone(), now());
                        machine.reconfigure(*config, now());
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
