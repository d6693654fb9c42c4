//! The queue of calls that wait for the circuit. It is behind the lock of the machine, so that a turn and the room it is for
//! never disagree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::*;
use crate::circuit_breaker::wait_queue::{Room, View, WaitQueue};

/// The place of one waiter.
#[derive(Debug, Default)]
pub(in crate::circuit_breaker) struct Place {
    /// Zero before it has entered the queue.
    number: u64,
    /// When it gives up; `None` is beyond the end of time.
    until: Option<Instant>,
    /// The generation of the ramp that it has asked, and the end of the step in which it has.
    asked: Option<(u64, Option<Instant>)>,
}

/// What a waiter finds when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit_breaker) enum Look {
    /// It has a turn, or needs none: it may call.
    Go,
    /// It waits, and looks again at this time if nothing wakes it before.
    Wait(Option<Instant>),
    /// It does not wait any longer.
    Rejected(Refusal, Vain),
}

/// Why a wait is in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit_breaker) enum Vain {
    /// Its time, or its caller's, is over.
    TimeOver,
    /// The queue has no room for it.
    QueueFull,
    /// The circuit is forced open, or calls no longer wait for it.
    NoQueue,
}

// === impl Place ===

impl Place {
    /// Whether it has been in the queue.
    pub(in crate::circuit_breaker) const fn is_entered(&self) -> bool {
        self.number != 0
    }

    pub(in crate::circuit_breaker) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Waits for `max` from now on, or until the caller's `deadline` if that comes first.
    pub(in crate::circuit_breaker) fn begin(&mut self, max: Duration, deadline: Option<Instant>, now: Instant) {
        self.until = now.checked_add(max).into_iter().chain(deadline).min();
    }
}

// === impl Shared ===

impl Shared {
    /// How long calls wait for the circuit, if they do.
    pub(in crate::circuit_breaker) fn longest_wait(&self) -> Option<Duration> {
        match self.with_settings(|machine| machine.config().admission) {
            AdmissionMode::Wait { max, .. } => Some(max),
            AdmissionMode::Reject => None,
        }
    }

    /// A waiter looks whether it may call. It is woken by `waker` once there is something new for it.
    pub(in crate::circuit_breaker) fn look(
        &self,
        place: &mut Place,
        waker: Waker,
        now: Instant,
    ) -> (Look, Option<Transition>) {
        let now = now.max(self.origin);
        let (mut woken, mut before) = (Vec::new(), None);
        let (look, change, unused) = self.with_locked(now, |machine, queue| {
            let mut change = if flows(machine) { None } else { machine.pass_time(now) };
            match find(machine, queue, place, now, &mut change, (&mut woken, &mut before)) {
                Some(Look::Go) => (Look::Go, change, Some(waker)),
                Some(found) => (found, change, queue.leave(place.number)),
                None => (Look::Wait(queue.wait(place.number, waker)), change, None),
            }
        });
        wake(woken);
        drop((unused, before));
        (look, change)
    }

    /// Admits a call, with the turn of `place` if it has one. Without a turn it does not go before those that wait.
    pub(in crate::circuit_breaker) fn admit_in_turn(
        &self,
        place: Option<&mut Place>,
        now: Instant,
    ) -> (Result<Ticket, Refusal>, Option<Transition>) {
        let now = now.max(self.origin);
        self.with_locked(now, |machine, queue| {
            let now = machine.begins(now);
            let generation = machine.generation();
            let has_turn = place.is_some_and(|place| queue.use_turn(place.number, generation, now));
            let mut passed = None;
            if !has_turn && !queue.is_empty() {
                passed = machine.pass_time(now);
                let view = view(machine, now);
                let room = match view.room {
                    Room::NoQueue => usize::MAX,
                    Room::Slots(slots) => slots,
                    Room::Earned => 0,
                };
                if queue.ahead(view.generation, now) >= room {
                    return (Err(Refusal::by(machine, now)), passed);
                }
            }
            let (admission, change) =
                if has_turn && machine.is_on_ramp() { machine.admit_earned(now) } else { machine.admit(now) };
            let stamp = self.stamp_of(machine);
            let result = match admission {
                Admission::Call => Ok(Ticket::timed(stamp, now)),
                // A probe is known by its slot and by when it began.
                Admission::Probe(slot) => Ok(Ticket::probing(stamp, now, slot)),
                Admission::Refused => Err(Refusal::by(machine, now)),
            };
            (result, passed.or(change))
        })
    }

    /// A waiter leaves, whether it waits or has its turn.
    pub(in crate::circuit_breaker) fn leave(&self, place: &mut Place, now: Instant) {
        if let number @ 1.. = std::mem::take(&mut place.number) {
            // Dropped outside the lock.
            drop(self.with_locked(now, |_, queue| queue.leave(number)));
        }
    }

    /// How many calls wait.
    pub(in crate::circuit_breaker) fn waiting(&self) -> usize {
        lock(&self.locked).queue.len()
    }
}

/// What there is for the waiter in `place`; `None` if it waits on.
fn find(
    machine: &mut Machine,
    queue: &mut WaitQueue<Waker>,
    place: &mut Place,
    now: Instant,
    change: &mut Option<Transition>,
    (woken, before): (&mut Vec<Waker>, &mut Option<Waker>),
) -> Option<Look> {
    let in_vain = |machine: &Machine, why| Some(Look::Rejected(Refusal::by(machine, now), why));
    if flows(machine) {
        return Some(Look::Go);
    }
    let AdmissionMode::Wait { queue: most, .. } = machine.config().admission else {
        return in_vain(machine, Vain::NoQueue);
    };
    if machine.state() == CircuitState::ForcedOpen {
        return in_vain(machine, Vain::NoQueue);
    }
    let is_new = !place.is_entered();
    // A call asks the ramp once in each step, as it would if it were made again.
    let has_asked = |(generation, until): (u64, Option<Instant>)| {
        generation == machine.generation() && until.is_none_or(|until| now < until)
    };
    if machine.is_on_ramp() && !place.asked.is_some_and(has_asked) {
        let (admitted, over) = machine.ask_ramp(now);
        place.asked = Some((machine.generation(), machine.due(now)));
        *change = change.take().or(over);
        if flows(machine) {
            return Some(Look::Go);
        }
        if admitted {
            queue.earn(machine.generation());
        }
    }
    if is_new {
        place.number = queue.next_number();
    }
    if queue.has_turn_in(place.number, machine.generation(), now) {
        return Some(Look::Go);
    }
    if place.until.is_some_and(|until| until <= now) {
        return in_vain(machine, Vain::TimeOver);
    }
    *before = queue.enter(place.number, place.until);
    *woken = released(machine, queue, now);
    if queue.has_turn_in(place.number, machine.generation(), now) {
        return Some(Look::Go);
    }
    if is_new && queue.len() > most as usize {
        return in_vain(machine, Vain::QueueFull);
    }
    None
}

/// Whether every call is admitted.
fn flows(machine: &Machine) -> bool {
    matches!(machine.state(), CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing)
}

fn view(machine: &Machine, now: Instant) -> View {
    let waits = matches!(machine.config().admission, AdmissionMode::Wait { .. });
    let room = if waits { machine.room(now) } else { Room::NoQueue };
    View { generation: machine.generation(), room, due: machine.due(now) }
}

/// What wakes those for whom there is room, and the first of the others if it has to know.
pub(super) fn released(machine: &Machine, queue: &mut WaitQueue<Waker>, now: Instant) -> Vec<Waker> {
    if queue.is_empty() { Vec::new() } else { queue.settle(view(machine, now), now) }
}

/// Wakers are the code of others: not to be called under the lock, and a panic of one must not keep the others asleep.
pub(super) fn wake(woken: Vec<Waker>) {
    for waker in woken {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}
