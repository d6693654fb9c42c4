//! [`Shared`]: the state machine behind a lock, and before it a front of atomics that answers what is answered most often.
//!
//! Two things need no lock:
//!
//! * **Admission** in every state but half-open, and a refusal in every state. One load of [`Stamp`] says which state it is;
//!   open and half-open circuits have the time until which they refuse in an atomic beside it.
//! * **A success that changes nothing.** While the stamp has the bit [`CLEAN`], no failure and no slow call is in the window
//!   and none precedes. On a full count window one more success is then the same window, so that one load is all there is
//!   to do. On a time window it adds one to the current bucket: until that ends, each thread counts such successes in a
//!   stripe of its own, and the next holder of the lock adds to the window what came since the last one.
//!
//! Where calls that hang are watched, none of this holds but for one thing: an admission adds one to the atomic `begun`, which
//! carries the generation and the bucket it counts for, and which the next holder of the lock adds to those that are watched.
//!
//! Everything else takes the lock, changes the machine and publishes it again. The stamp is published last: whoever sees a
//! generation sees a `refuse_until` at least as new, and one that is newer still was true when it was read.
//!
//! Counting is exact in the order in which verdicts are recorded. A success that read [`CLEAN`] at the very moment in which
//! another thread changes the machine counts as the earlier of the two on a count window; on a time window it may be counted
//! by the holder of the lock after that one, in the bucket and generation of then. So a window can be off by one success for
//! each thread that is between these two instructions (or by the few that its processor has not shown to the others yet), and
//! by no failure.

use std::sync::OnceLock;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::admission::AdmissionMode;
use super::config::{CircuitBreakerConfig, MAX_PROBES};
use super::own_rules::OwnRules;
use super::state::{Admission, Evidence, Machine, Origin};
use super::transition::{IllegalTransition, Transition};
use super::wait_queue::WaitQueue;
use crate::circuit_state::CircuitState;
use crate::cores::counters::StripedCounters;
use crate::cores::generation::Stamp;
use crate::cores::packed_duration::{AtomicDuration, MaybeDuration, pack, unpack};
use crate::cores::packed_outcome::PackedOutcome;
use crate::cores::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::cores::sync::{Mutex, lock};

pub(super) use waiting::{Look, Place, Vain};

/// The bit of the stamp which says that a fast success changes nothing but a count.
const CLEAN: u64 = 0b00_1000;
const STATE: u64 = 0b00_0111;
/// The bit which says that it matters how long a call takes.
const MEASURED: u64 = 0b01_0000;
/// The bit which says that it matters when a call ends.
const DATED: u64 = 0b10_0000;
/// What a ticket leaves to the stamp, which knows it as of the end of the call.
const TIMED: u64 = MEASURED | DATED;
/// The code of the closed state.
const CLOSED: u64 = 0;
/// The codes of the closed and the observing state while calls that hang are watched: other codes, so that without the
/// watch nobody has to ask whether it is on.
const CLOSED_WATCHED: u64 = 6;
const OBSERVING: u64 = 5;
const OBSERVING_WATCHED: u64 = 7;
/// `refuse_until` when no end of the refusal is known.
const NEVER: u64 = u64::MAX;
/// `slow` when nobody asks how long a call takes.
const UNMEASURED: u64 = u64::MAX;
/// `begun` while it counts for none; its number admits no more.
const BUSY: u64 = u64::MAX;
/// The highest number in `begun`.
const MOST_BEGUN: u64 = 0xffff_fffe;
/// A call that was dropped is a failure.
pub(super) const ABANDONED_FOR_FAILURE: u8 = 0b001;
/// A throttled call is a failure.
pub(super) const THROTTLED_FOR_FAILURE: u8 = 0b010;
/// Calls wait while the circuit rejects, instead of being rejected.
pub(super) const WAIT: u8 = 0b100;
/// Where a ticket has the slot of a probe. That leaves 47 bits for the generation: some 4 years of one change a microsecond.
const SLOT_SHIFT: u32 = u64::BITS - (MAX_PROBES.ilog2() + 1);

/// A breaker's state, shared by everyone who asks it.
#[derive(Debug)]
pub(super) struct Shared {
    /// State, [`CLEAN`], [`MEASURED`], [`DATED`] and generation.
    stamp: AtomicU64,
    /// Until when the states open and half-open refuse, and the state observing would, since `origin` and packed; zero when they
    /// do not.
    refuse_until: AtomicU64,
    /// What opened the circuit: a [`PackedOutcome`].
    cause: AtomicU64,
    /// When the current bucket of the time window ends, since `origin`.
    bucket_end: AtomicDuration,
    /// Successes of a time window that took no lock, ever. Made with the first such window.
    absorbed: OnceLock<StripedCounters<1>>,
    /// One of many: its counters take little memory.
    lean: bool,
    /// Calls that began and are not yet among those that are watched: a tag in the upper half, the number in the lower.
    begun: AtomicU64,
    /// The length of a bucket in which watched calls begin, in nanoseconds; zero without the watch.
    begun_nanos: AtomicU64,
    /// Where the packed times start.
    origin: Instant,
    /// Of the stamp: [`MEASURED`] with a slow threshold, [`DATED`] with a time window. Without both, a call needs no clock.
    timing: AtomicU64,
    /// The slow threshold, packed; [`UNMEASURED`] without one.
    slow: AtomicU64,
    /// What verdicts are taken for, beside what they say: [`ABANDONED_FOR_FAILURE`] and its like; and [`WAIT`].
    takes: AtomicU8,
    locked: Mutex<Locked>,
}

#[derive(Debug)]
struct Locked {
    machine: Machine,
    /// How many of the absorbed successes are in the window, or were.
    folded: u64,
    /// The generation and the bucket that `begun` counts for; `None` while it takes nothing.
    begun_for: Option<(u64, u64)>,
    /// The calls that wait until the circuit admits them.
    queue: WaitQueue<Waker>,
}

/// What a call was admitted with. A permit owns it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// The stamp without what is [`TIMED`], and in the bits from [`SLOT_SHIFT`] on one more than the slot of a probe.
    word: u64,
    /// When it was admitted; `None` if nobody needs to know.
    started: Option<Instant>,
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) state: CircuitState,
    pub(super) retry_after: MaybeDuration,
    pub(super) cause: PackedOutcome,
}

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
        /// How long until a probe is due; `None` when that is not known: a circuit that is forced open has no end, and a
        /// half-open one waits for its probes.
        retry_after: Option<Duration>,
    },
}

// === impl Shared ===

impl Shared {
    /// A `lean` one is one of many, and takes little memory.
    pub(super) fn new(config: &CircuitBreakerConfig, own: OwnRules, origin: Instant, lean: bool) -> Self {
        let machine = Machine::new(config.clone(), own, origin);
        let shared = Self {
            stamp: AtomicU64::new(0),
            refuse_until: AtomicU64::new(0),
            cause: AtomicU64::new(0),
            bucket_end: AtomicDuration::new(Duration::ZERO),
            absorbed: OnceLock::new(),
            lean,
            begun: AtomicU64::new(BUSY),
            begun_nanos: AtomicU64::new(0),
            origin,
            timing: AtomicU64::new(0),
            slow: AtomicU64::new(UNMEASURED),
            takes: AtomicU8::new(0),
            locked: Mutex::new(Locked { machine, folded: 0, begun_for: None, queue: WaitQueue::new() }),
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
        let dated = machine.time_window().map_or(0, |_| DATED);
        if dated != 0 {
            self.absorbed.get_or_init(if self.lean { StripedCounters::lean } else { StripedCounters::new });
        }
        self.begun_nanos.store(machine.begun_nanos(), Ordering::Relaxed);
        let config = machine.config();
        let measured = config.slow_calls.map_or(0, |_| MEASURED);
        self.timing.store(dated | measured, Ordering::Relaxed);
        self.slow.store(config.slow_calls.map_or(UNMEASURED, |slow| pack(slow.longer_than)), Ordering::Relaxed);
        let takes = [
            (config.abandoned_is_failure, ABANDONED_FOR_FAILURE),
            (config.throttled_is_failure, THROTTLED_FOR_FAILURE),
            (matches!(config.admission, AdmissionMode::Wait { .. }), WAIT),
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
        self.fold(&mut locked, now);
        self.fold_begun(&mut locked);
        self.close_begun(&mut locked);
        locked.machine.reconfigure(config, now);
        self.set_up(&mut locked.machine);
        let Locked { machine, queue, .. } = &mut *locked;
        let woken = waiting::released(machine, queue, now);
        self.publish(&mut locked);
        drop(locked);
        waiting::wake(woken);
    }

    /// The slow threshold, if there is one.
    #[inline]
    fn slow(&self) -> Option<Duration> {
        match self.slow.load(Ordering::Relaxed) {
            UNMEASURED => None,
            slow => Some(unpack(slow)),
        }
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

    /// Admits a call to a closed circuit, for which it does not matter how long it takes. `None` when it is not so; ask
    /// [`admit`](Self::admit) then.
    #[inline]
    pub(super) fn admit_at_once(&self) -> Option<Ticket> {
        let stamp = self.load();
        if stamp.payload() & (STATE | MEASURED) != CLOSED {
            return None;
        }
        Some(Ticket::untimed(stamp))
    }

    /// Admits a call to a closed circuit, if it matters how long it takes, but nobody watches it meanwhile. `None` when it is not
    /// so.
    #[inline]
    pub(super) fn admit_measured(&self, now: impl Fn() -> Instant) -> Option<Ticket> {
        let stamp = self.load();
        let is_measured = stamp.payload() & (STATE | MEASURED) == CLOSED | MEASURED;
        is_measured.then(|| Ticket::timed(stamp, now()))
    }

    /// Admits a call, or refuses it.
    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        let stamp = self.load();
        match state_of(stamp) {
            CircuitState::Closed | CircuitState::Observing if is_watched(stamp) => self.admit_watched(stamp, now()),
            CircuitState::Closed | CircuitState::Observing => {
                let is_measured = stamp.payload() & MEASURED != 0;
                (Ok(if is_measured { Ticket::timed(stamp, now()) } else { Ticket::untimed(stamp) }), None)
            }
            CircuitState::Disabled => (Ok(Ticket::untimed(stamp)), None),
            CircuitState::ForcedOpen => (Err(Refusal::FORCED), None),
            state => match self.refuses_for(&now) {
                Some(retry_after) => (Err(self.refusal(state, retry_after)), None),
                None => self.admit_locked(now()),
            },
        }
    }

    /// Admits a call that is watched while it runs. The first of each bucket takes the lock, and sees who hangs.
    fn admit_watched(&self, stamp: Stamp, now: Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        if self.count_begun(stamp.generation(), now) {
            return (Ok(Ticket::timed(stamp, now)), None);
        }
        self.admit_locked(now)
    }

    #[cold]
    fn admit_locked(&self, now: Instant) -> (Result<Ticket, Refusal>, Option<Transition>) {
        self.admit_in_turn(None, now)
    }

    /// What the next call would be told.
    pub(super) fn admits(&self, now: impl Fn() -> Instant) -> Admits {
        match self.state() {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing => Admits::Call,
            CircuitState::ForcedOpen => Admits::Nothing { retry_after: None },
            _ => match self.refuses_for(&now) {
                Some(retry_after) => {
                    Admits::Nothing { retry_after: retry_after.get().filter(|_| self.state() == CircuitState::Open) }
                }
                None => Admits::Probe,
            },
        }
    }

    /// What the next call would be refused with, if it would.
    #[inline]
    pub(super) fn refuses(&self, now: impl Fn() -> Instant) -> Option<Refusal> {
        match self.state() {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing => None,
            CircuitState::ForcedOpen => Some(Refusal::FORCED),
            state => self.refuses_for(now).map(|retry_after| self.refusal(state, retry_after)),
        }
    }

    /// Whether an observing breaker would be open, so that the call that was admitted would have been rejected.
    pub(super) fn would_refuse(&self, now: impl FnOnce() -> Instant) -> bool {
        self.state() == CircuitState::Observing && self.refuses_for(now).is_some()
    }

    /// The rejection of a call to a service that was not ready, whatever the circuit would have said.
    pub(super) fn refuse(&self, now: impl Fn() -> Instant) -> Refusal {
        match self.state() {
            CircuitState::ForcedOpen => Refusal::FORCED,
            state @ (CircuitState::Open | CircuitState::HalfOpen) => match self.refuses_for(now) {
                Some(retry_after) => self.refusal(state, retry_after),
                // A call to a ready service would be a probe.
                None => Refusal { retry_after: MaybeDuration::ZERO, ..self.refusal(state, MaybeDuration::NONE) },
            },
            // Calls flow: the caller did not wait until the service was ready.
            state => Refusal { state, retry_after: MaybeDuration::NONE, cause: PackedOutcome::NONE },
        }
    }

    /// The refusal of a circuit that is open, or half-open. When a half-open circuit admits the next call depends on its
    /// probes, so that it gives no time.
    #[inline]
    fn refusal(&self, state: CircuitState, retry_after: MaybeDuration) -> Refusal {
        let retry_after = if state == CircuitState::Open { retry_after } else { MaybeDuration::NONE };
        Refusal { state, retry_after, cause: PackedOutcome::from_word(self.cause.load(Ordering::Relaxed)) }
    }

    /// How much longer an open or half-open circuit refuses everything; [`MaybeDuration::NONE`] when no end is known.
    #[inline]
    fn refuses_for(&self, now: impl FnOnce() -> Instant) -> Option<MaybeDuration> {
        match self.refuse_until.load(Ordering::Acquire) {
            NEVER => Some(MaybeDuration::NONE),
            // Not refusing at all, whatever the time.
            0 => None,
            until => MaybeDuration::left(until, now().saturating_duration_since(self.origin)),
        }
    }

    /// Whether the call that was admitted with `ticket` is to be left out of every account.
    #[inline]
    pub(super) fn is_unrecorded(&self, ticket: Ticket) -> bool {
        state_of(ticket.stamp()) == CircuitState::Disabled
    }

    /// Whether the call was running for longer than the slow threshold by `now`.
    #[inline]
    pub(super) fn is_slow(&self, ticket: Ticket, now: impl Fn() -> Instant) -> bool {
        self.slow().is_some() && self.is_slow_at(&ticket, now())
    }

    /// Takes a healthy call that changes nothing but a number, if it is one: nothing is wrong so far, and it was not slow.
    /// `false` when it has to be [recorded](Self::record).
    #[inline]
    pub(super) fn absorbs(&self, ticket: &Ticket, now: impl Fn() -> Instant) -> bool {
        self.absorbs_untimed(ticket) || self.absorbs_timed(ticket, now)
    }

    /// The same where no clock has to be read for it. `false` says nothing: ask [`absorbs_timed`](Self::absorbs_timed).
    #[inline]
    pub(super) fn absorbs_untimed(&self, ticket: &Ticket) -> bool {
        // The generation and the state as they were, and nothing wrong so far. A half-open circuit is never clean.
        self.stamp.load(Ordering::Acquire) == ticket.word | CLEAN
    }

    /// The same where the clock may have to be read.
    #[inline(always)]
    pub(super) fn absorbs_timed(&self, ticket: &Ticket, now: impl Fn() -> Instant) -> bool {
        let stamp = self.stamp.load(Ordering::Acquire);
        if stamp & !TIMED != ticket.word | CLEAN {
            return false;
        }
        let ended = now();
        if self.is_slow_at(ticket, ended) {
            return false;
        }
        if stamp & DATED == 0 {
            return true;
        }
        let Some(absorbed) = self.absorbed.get() else { return false };
        // Added rather than subtracted: that costs half of it.
        let is_current = match self.origin.checked_add(self.bucket_end.load(Ordering::Relaxed).get()) {
            Some(end) => ended < end,
            None => true,
        };
        if is_current {
            absorbed.add(0);
        }
        is_current
    }

    /// Whether the call ran for longer than the slow threshold until `ended`.
    #[inline]
    fn is_slow_at(&self, ticket: &Ticket, ended: Instant) -> bool {
        match (ticket.started, self.slow()) {
            (Some(started), Some(slow)) => started.checked_add(slow).is_some_and(|limit| ended > limit),
            _ => false,
        }
    }

    /// A verdict.
    #[cold]
    pub(super) fn record(&self, ticket: Ticket, evidence: Evidence, now: impl Fn() -> Instant) -> Option<Transition> {
        // A straggler needs no lock: generations only grow.
        if self.load().generation() != ticket.stamp().generation() {
            return None;
        }
        let now = now();
        let origin = Origin {
            generation: ticket.stamp().generation(),
            probe: ticket.slot().zip(ticket.started),
            started: ticket.started,
        };
        self.with_machine(now, |machine| machine.record(origin, evidence, now))
    }

    /// Whether `ticket` holds a slot that has to be given back.
    #[inline]
    pub(super) fn is_probe(&self, ticket: Ticket) -> bool {
        ticket.slot().is_some()
    }

    /// Whether the end of the call has to be told, though it says nothing: it holds a slot, or is watched.
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

    pub(super) fn open_time_over(&self, now: Instant) -> Option<Transition> {
        self.with_machine(now, |machine| machine.open_time_over(now))
    }

    pub(super) fn health_check_passed(&self, now: Instant) -> Option<Transition> {
        self.with_machine(now, |machine| machine.health_check_passed(now))
    }

    /// Runs `f` with the machine, up to date, and publishes what it has become.
    pub(super) fn with_machine<R>(&self, now: Instant, f: impl FnOnce(&mut Machine) -> R) -> R {
        self.with_locked(now, |machine, _| f(machine))
    }

    /// Runs `f` with the machine and the queue, and wakes those for whom there is room afterwards.
    fn with_locked<R>(&self, now: Instant, f: impl FnOnce(&mut Machine, &mut WaitQueue<Waker>) -> R) -> R {
        let mut locked = lock(&self.locked);
        self.fold(&mut locked, now);
        self.fold_begun(&mut locked);
        let Locked { machine, queue, .. } = &mut *locked;
        let result = f(machine, queue);
        let woken = waiting::released(machine, queue, now);
        self.publish(&mut locked);
        drop(locked);
        waiting::wake(woken);
        result
    }

    /// Adds a call to `begun`, if that counts for this generation and the bucket of `started`.
    fn count_begun(&self, generation: u64, started: Instant) -> bool {
        let started = started.saturating_duration_since(self.origin).as_nanos();
        let Some(bucket) =
            u64::try_from(started).unwrap_or(u64::MAX).checked_div(self.begun_nanos.load(Ordering::Relaxed))
        else {
            return false;
        };
        let tag = tag(generation, bucket);
        let mut begun = self.begun.load(Ordering::Relaxed);
        loop {
            if begun >> 32 != tag || begun & 0xffff_ffff >= MOST_BEGUN {
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

    /// Adds to the time window what was absorbed since the lock was last held.
    fn fold(&self, locked: &mut Locked, now: Instant) {
        let Some(absorbed) = self.absorbed.get() else { return };
        let all = absorbed.get(0);
        let new = all.wrapping_sub(std::mem::replace(&mut locked.folded, all));
        locked.machine.add_successes(new, now);
    }

    /// Makes what the machine has become visible to those who do not take the lock.
    fn publish(&self, locked: &mut Locked) {
        self.publish_begun(locked);
        let machine = &mut locked.machine;
        let refuse_until = match machine.refuses_until() {
            None => 0,
            Some(None) => NEVER,
            Some(Some(until)) => pack(until.saturating_duration_since(self.origin)),
        };
        store(&self.refuse_until, refuse_until, Ordering::Release);
        store(&self.cause, PackedOutcome::new(machine.cause()).word(), Ordering::Relaxed);
        if let Some(window) = machine.time_window() {
            self.bucket_end.store(window.end_of_bucket(), Ordering::Release);
        }
        store(&self.stamp, self.stamp_of(machine).word(), Ordering::Release);
    }

    #[inline]
    fn load(&self) -> Stamp {
        Stamp::from_word(self.stamp.load(Ordering::Acquire))
    }

    fn stamp_of(&self, machine: &Machine) -> Stamp {
        let clean = if machine.is_clean() { CLEAN } else { 0 };
        let code = match code(machine.state()) {
            CLOSED if machine.watches() => CLOSED_WATCHED,
            OBSERVING if machine.watches() => OBSERVING_WATCHED,
            code => code,
        };
        Stamp::new(machine.generation(), code | clean | self.timing.load(Ordering::Relaxed))
    }
}

/// Leaves the cache line alone when nothing changes.
fn store(atomic: &AtomicU64, value: u64, order: Ordering) {
    if atomic.load(Ordering::Relaxed) != value {
        atomic.store(value, order);
    }
}

/// Which generation and bucket `begun` counts for: eight bits of the one, 24 of the other. A thread would have to sleep
/// through 256 generations, or 2^24 buckets of the same one, between two instructions to be mistaken.
#[inline]
fn tag(generation: u64, bucket: u64) -> u64 {
    (generation & 0xff) << 24 | (bucket & 0xff_ffff)
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

// === impl Refusal ===

impl Refusal {
    const FORCED: Self =
        Self { state: CircuitState::ForcedOpen, retry_after: MaybeDuration::NONE, cause: PackedOutcome::NONE };

    /// What `machine` refuses a call with that asks `now`.
    pub(super) fn by(machine: &Machine, now: Instant) -> Self {
        let open_for = machine.open_until().map(|until| until.saturating_duration_since(now));
        Self { state: machine.state(), retry_after: open_for.into(), cause: PackedOutcome::new(machine.cause()) }
    }
}

// === impl Ticket ===

impl Ticket {
    /// That of no call.
    pub(super) const NONE: Self = Self::untimed(Stamp::from_word(0));

    #[inline]
    const fn untimed(stamp: Stamp) -> Self {
        Self { word: stamp.word() & !TIMED, started: None }
    }

    #[inline]
    const fn timed(stamp: Stamp, started: Instant) -> Self {
        Self { word: stamp.word() & !TIMED, started: Some(started) }
    }

    const fn probing(stamp: Stamp, started: Instant, slot: u32) -> Self {
        Self { word: stamp.word() & !TIMED | (slot as u64 + 1) << SLOT_SHIFT, started: Some(started) }
    }

    #[inline]
    const fn stamp(&self) -> Stamp {
        Stamp::from_word(self.word & ((1 << SLOT_SHIFT) - 1))
    }

    /// The slot of a probe.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "there are no more than `MAX_PROBES`")]
    const fn slot(&self) -> Option<u32> {
        ((self.word >> SLOT_SHIFT) as u32).checked_sub(1)
    }
}

#[cfg(all(test, mainstay_loom))]
mod model;
#[cfg(test)]
mod tests;
mod waiting;
