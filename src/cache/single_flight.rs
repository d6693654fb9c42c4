//! Single flight: calls for one key share one load.
//!
//! A flight is flown by a task, its [`Pilot`], so no caller's departure can end it; callers hold a [`Seat`] and are woken
//! once, when it lands. The number of loads is bounded. A flight whose load has not begun (it waits for a place among the
//! concurrent loads) and whose last caller leaves is called off.
//!
//! A key has at most one flight that callers find. It stays there until its answer is stored, so that neither a call nor a
//! refresh begins a second load meanwhile. An invalidation of the key marks the flight:
//!
//! * A flight whose load has not begun is not affected, but for the old answer that may have been found for it.
//! * Otherwise its answer goes to those who were on board before, and is dead to everything else ([`Entry::kill`]). A later
//!   call opens a second flight beside it. If two of them are loading already, it waits for the newer one to land and boards
//!   again.
//!
//! An invalidation by tag marks no flight, since the tags of an answer are known only when it has been loaded. Callers compare
//! the stamp of the answer with the time at which they boarded.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;

use super::entry::Entry;
use super::served::StaleReason;
use crate::cores::sync::{Mutex, lock};
use crate::error::{LoadFailed, Rejected};
use crate::outcome::Outcome;

/// The loads of one key that may run at once: the current one, and one that was invalidated while it ran.
const MAX_LOADS_PER_KEY: usize = 2;

/// The flights under way; at most `max` of them load or wait for their turn.
pub(crate) struct Flights<K, V> {
    max: usize,
    table: Mutex<Table<K, V>>,
}

struct Table<K, V> {
    keys: HashMap<K, Slot<V>>,
    /// The loads that run or wait for their turn.
    loads: usize,
}

/// What is known of a key. Kept while it has a flight, or while flights that callers no longer find have not landed.
struct Slot<V> {
    /// The flight that callers find.
    flight: Option<Arc<Flight<V>>>,
    /// The flights that have not landed.
    aloft: usize,
}

/// One load, shared.
pub(crate) struct Flight<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    phase: Phase<V>,
    /// The key was invalidated since the load began, or since the store was asked.
    invalidated: bool,
    /// The load is wanted although no caller waits for it.
    kept: bool,
    callers: usize,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// What may be served if the load is slow.
    stand_in: Option<Arc<Entry<V>>>,
    task: Option<AbortHandle>,
}

enum Phase<V> {
    /// The load has not begun; without callers it is called off.
    Waiting,
    /// The load has begun, or it is a refresh that needs no caller.
    Loading,
    CalledOff,
    Landed(Landing<V>),
}

/// How a flight ended, for all who were on it.
pub(crate) enum Landing<V> {
    /// The load's answer, which is also being stored.
    Loaded(Arc<Entry<V>>),
    /// The load's answer, a failure of the callee: not stored, but the same for everyone on board.
    Failure(Arc<V>),
    /// The load's answer may not be stored, so it is for the leader alone; the others load for themselves.
    Private,
    /// Found in the store, and good to be served.
    Found(Arc<Entry<V>>),
    /// An old answer in place of a load that failed.
    StandIn(Arc<Entry<V>>, StaleReason),
    /// No answer.
    Failed(Rejected),
    /// There is no room for the load.
    Full,
}

/// A caller's place on a flight.
pub(crate) struct Seat<V> {
    flight: Arc<Flight<V>>,
    slot: Option<usize>,
    /// The flight had been invalidated when the caller boarded it: it only waits for the end.
    late: bool,
}

/// Flies the flight; if it is dropped without a landing, the flight lands as failed.
pub(crate) struct Pilot<K: Hash + Eq, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    flight: Arc<Flight<V>>,
    landed: bool,
    /// Counted among the loads of the table.
    counted: bool,
    /// For one caller alone: not found by others, and not stored.
    alone: bool,
}

/// What a caller found.
pub(crate) enum Boarding<K: Hash + Eq, V> {
    /// No flight was under way: the caller is to start it.
    Leads(Pilot<K, V>, Seat<V>),
    /// One was.
    Joins(Seat<V>),
    /// None was, and there is no room for another.
    Full,
}

/// How a caller comes to its flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Any flight of the key, or else a load.
    Load,
    /// Any flight of the key, or else the store's answer; a load is counted later, by [`Pilot::enter`].
    StoreFirst,
    /// A load for this caller alone.
    Alone,
}

/// What the waiters of a load get whose task ended without a landing.
#[derive(Debug, thiserror::Error)]
#[error("the load was cancelled")]
struct Cancelled;

// === impl Flights ===

impl<K: Hash + Eq + Clone, V> Flights<K, V> {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, table: Mutex::new(Table { keys: HashMap::new(), loads: 0 }) }
    }

    /// Joins the flight of `key`, or opens one. `is_fresh` returns whether a landed answer may still be served.
    pub(crate) fn board(
        self: &Arc<Self>,
        key: &K,
        wants: Wants,
        is_fresh: impl Fn(&Entry<V>) -> bool,
    ) -> Boarding<K, V> {
        let mut table = lock(&self.table);
        let alone = wants == Wants::Alone;
        if !alone
            && let Some(slot) = table.keys.get(key)
            && let Some(seat) = slot.flight.as_ref().and_then(|flight| flight.join(slot.aloft, is_fresh))
        {
            return Boarding::Joins(seat);
        }
        let counted = wants != Wants::StoreFirst;
        match self.open(&mut table, key, Phase::Waiting, 1, counted, alone) {
            Some(pilot) => {
                let seat = Seat { flight: Arc::clone(&pilot.flight), slot: None, late: false };
                Boarding::Leads(pilot, seat)
            }
            None => Boarding::Full,
        }
    }

    /// Opens a flight without callers, unless `key` has one or there is no room.
    pub(crate) fn refresh(self: &Arc<Self>, key: &K) -> Option<Pilot<K, V>> {
        let mut table = lock(&self.table);
        // One that has landed is still being stored.
        if table.keys.get(key).is_some_and(|slot| slot.flight.is_some() || slot.aloft >= MAX_LOADS_PER_KEY) {
            return None;
        }
        self.open(&mut table, key, Phase::Loading, 0, true, false)
    }

    /// Keeps the flight of `key` from being stored, and its old answer from being served.
    pub(crate) fn invalidate(&self, key: &K) {
        let table = lock(&self.table);
        if let Some(flight) = table.keys.get(key).and_then(|slot| slot.flight.as_ref()) {
            let mut state = lock(&flight.state);
            state.invalidated = true;
            if let Phase::Landed(Landing::Loaded(entry)) = &state.phase {
                entry.kill();
            }
            state.kill_stand_in();
        }
    }

    /// The second half of an invalidation, after the store has removed `key`: drops what a flight that was opened meanwhile may
    /// have found in the store. The answer of its load is younger than the invalidation.
    pub(crate) fn removed(&self, key: &K) {
        let table = lock(&self.table);
        if let Some(flight) = table.keys.get(key).and_then(|slot| slot.flight.as_ref()) {
            let mut state = lock(&flight.state);
            state.invalidated |= matches!(state.phase, Phase::Waiting);
            state.kill_stand_in();
        }
    }

    /// The number of loads that run or wait for their turn.
    pub(crate) fn loads(&self) -> usize {
        lock(&self.table).loads
    }

    fn open(
        self: &Arc<Self>,
        table: &mut Table<K, V>,
        key: &K,
        phase: Phase<V>,
        callers: usize,
        counted: bool,
        alone: bool,
    ) -> Option<Pilot<K, V>> {
        if counted && table.loads >= self.max {
            return None;
        }
        // A key whose `Clone` panics leaves nothing behind.
        let flight = Arc::new(Flight::new(phase, callers));
        let pilot_key = key.clone();
        if !alone {
            let slot = table.keys.entry(key.clone()).or_insert(Slot { flight: None, aloft: 0 });
            slot.flight = Some(Arc::clone(&flight));
            slot.aloft += 1;
        }
        table.loads += usize::from(counted);
        Some(Pilot { flights: Arc::clone(self), key: pilot_key, flight, landed: false, counted, alone })
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("max", &self.max).finish_non_exhaustive()
    }
}

// === impl Slot ===

impl<V> Slot<V> {
    fn has(&self, flight: &Arc<Flight<V>>) -> bool {
        self.flight.as_ref().is_some_and(|open| Arc::ptr_eq(open, flight))
    }
}

// === impl State ===

impl<V> State<V> {
    fn kill_stand_in(&mut self) {
        if let Some(entry) = self.stand_in.take() {
            entry.kill();
        }
    }
}

// === impl Flight ===

impl<V> Flight<V> {
    fn new(phase: Phase<V>, callers: usize) -> Self {
        let state = State {
            phase,
            invalidated: false,
            kept: false,
            callers,
            wakers: Vec::new(),
            free: Vec::new(),
            stand_in: None,
            task: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// A seat, unless the caller is to open another flight; `aloft` flights of the key have not landed.
    fn join(self: &Arc<Self>, aloft: usize, is_fresh: impl Fn(&Entry<V>) -> bool) -> Option<Seat<V>> {
        let mut state = lock(&self.state);
        let late = match &state.phase {
            Phase::Waiting => false,
            Phase::Loading if state.invalidated && aloft < MAX_LOADS_PER_KEY => return None,
            Phase::Loading => state.invalidated,
            // Landed, but perhaps not yet in the store.
            Phase::Landed(Landing::Loaded(entry)) if is_fresh(entry) => false,
            Phase::Landed(Landing::Loaded(entry)) => {
                // An invalidation does not find the flight once another one takes its place.
                entry.kill();
                state.invalidated = true;
                return None;
            }
            Phase::CalledOff | Phase::Landed(_) => return None,
        };
        state.callers += 1;
        Some(Seat { flight: Arc::clone(self), slot: None, late })
    }

    /// Lets the last caller call the task off while it waits.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Waiting) {
            state.task = Some(task);
        }
    }

    /// Lands, unless `unless_invalidated` and it was; whether it did.
    fn land(&self, landing: Landing<V>, unless_invalidated: bool) -> bool {
        let woken = {
            let mut state = lock(&self.state);
            if state.invalidated {
                if unless_invalidated {
                    return false;
                }
                if let Landing::Loaded(entry) = &landing {
                    entry.kill();
                }
            }
            state.phase = Phase::Landed(landing);
            state.stand_in = None;
            state.task = None;
            mem::take(&mut state.wakers)
        };
        woken.into_iter().flatten().for_each(Waker::wake);
        true
    }
}

// === impl Landing ===

impl<V> Clone for Landing<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Loaded(entry) => Self::Loaded(Arc::clone(entry)),
            Self::Failure(answer) => Self::Failure(Arc::clone(answer)),
            Self::Private => Self::Private,
            Self::Found(entry) => Self::Found(Arc::clone(entry)),
            Self::StandIn(entry, reason) => Self::StandIn(Arc::clone(entry), *reason),
            Self::Failed(rejected) => Self::Failed(rejected.clone()),
            Self::Full => Self::Full,
        }
    }
}

// === impl Seat ===

impl<V> Seat<V> {
    /// Ready once the flight has landed. The waker of the last poll is woken once.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Landing<V>> {
        let mut state = lock(&self.flight.state);
        if let Phase::Landed(landing) = &state.phase {
            return Poll::Ready(landing.clone());
        }
        let state = &mut *state;
        let slot = *self.slot.get_or_insert_with(|| {
            state.free.pop().unwrap_or_else(|| {
                state.wakers.push(None);
                state.wakers.len() - 1
            })
        });
        match &mut state.wakers[slot] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// What may be served in place of a slow load.
    pub(crate) fn stand_in(&self) -> Option<Arc<Entry<V>>> {
        lock(&self.flight.state).stand_in.clone()
    }

    /// Whether the load has begun.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(lock(&self.flight.state).phase, Phase::Waiting)
    }

    /// Whether the flight had been invalidated when the caller boarded it.
    pub(crate) const fn is_late(&self) -> bool {
        self.late
    }

    /// Has the load go on without callers, although it has not begun.
    pub(crate) fn keep(&self) {
        lock(&self.flight.state).kept = true;
    }
}

impl<V> Drop for Seat<V> {
    fn drop(&mut self) {
        let task = {
            let mut state = lock(&self.flight.state);
            state.callers -= 1;
            if let Some(slot) = self.slot
                && let Some(waker) = state.wakers.get_mut(slot)
            {
                *waker = None;
                state.free.push(slot);
            }
            match state.phase {
                Phase::Waiting if state.callers == 0 && !state.kept => {
                    state.phase = Phase::CalledOff;
                    state.task.take()
                }
                _ => None,
            }
        };
        if let Some(task) = task {
            task.abort();
        }
    }
}

// === impl Pilot ===

impl<K: Hash + Eq, V> Pilot<K, V> {
    pub(crate) const fn key(&self) -> &K {
        &self.key
    }

    pub(crate) const fn flight(&self) -> &Arc<Flight<V>> {
        &self.flight
    }

    /// Counts the load, unless there is no room for it.
    pub(crate) fn enter(&mut self) -> bool {
        let mut table = lock(&self.flights.table);
        if !self.counted && table.loads < self.flights.max {
            table.loads += 1;
            self.counted = true;
        }
        self.counted
    }

    /// The load begins: from now on it is finished, although callers leave. `false` if it was called off just before.
    pub(crate) fn begin(&self) -> bool {
        let mut state = lock(&self.flight.state);
        match state.phase {
            Phase::Waiting => {
                state.phase = Phase::Loading;
                state.task = None;
                // What was invalidated before the load began cannot be in its answer.
                state.invalidated = false;
                true
            }
            Phase::Loading => true,
            Phase::CalledOff | Phase::Landed(_) => false,
        }
    }

    /// Sets what callers may be served while the load is slow. `false` if the key was invalidated: `entry` may be what was
    /// there before.
    pub(crate) fn set_stand_in(&self, entry: Arc<Entry<V>>) -> bool {
        let mut state = lock(&self.flight.state);
        if !state.invalidated {
            state.stand_in = Some(entry);
        }
        !state.invalidated
    }

    /// Gives everyone on board the result. Later callers find it until the pilot is dropped, if it is being stored.
    pub(crate) fn land(&mut self, landing: Landing<V>) {
        self.leave_table();
        self.flight.land(landing, false);
    }

    /// Lands with what the store had, unless the key was invalidated since the store was asked; whether it did.
    pub(crate) fn land_found(&mut self, landing: Landing<V>) -> bool {
        let landed = self.flight.land(landing, true);
        if landed {
            self.leave_table();
        }
        landed
    }

    /// Lands with `entry`, and goes on as a refresh of the same key that new callers find. `None` when that flight has been
    /// invalidated.
    pub(crate) fn land_and_refresh(mut self, entry: &Arc<Entry<V>>, reason: StaleReason) -> Result<Self, Self> {
        let next = Arc::new(Flight::new(Phase::Loading, 0));
        lock(&next.state).stand_in = Some(Arc::clone(entry));
        {
            let mut table = lock(&self.flights.table);
            // An invalidation of the key takes the lock of the table too.
            if lock(&self.flight.state).invalidated {
                drop(table);
                return Err(self);
            }
            if let Some(slot) = table.keys.get_mut(&self.key).filter(|slot| slot.has(&self.flight)) {
                slot.flight = Some(Arc::clone(&next));
            }
        }
        self.flight.land(Landing::StandIn(Arc::clone(entry), reason), false);
        self.flight = next;
        Ok(self)
    }

    /// Whether the answer may be stored for others.
    pub(crate) fn may_store(&self) -> bool {
        !self.alone && !lock(&self.flight.state).invalidated
    }

    /// The load is over: it no longer counts.
    fn leave_table(&mut self) {
        if mem::replace(&mut self.landed, true) {
            return;
        }
        let table = &mut *lock(&self.flights.table);
        table.loads -= usize::from(mem::take(&mut self.counted));
        if !self.alone
            && let Some(slot) = table.keys.get_mut(&self.key)
        {
            slot.aloft -= 1;
            if slot.aloft == 0 && slot.flight.is_none() {
                table.keys.remove(&self.key);
            }
        }
    }
}

impl<K: Hash + Eq, V> Drop for Pilot<K, V> {
    fn drop(&mut self) {
        if !self.landed {
            // Only a cancelled or killed task comes here.
            let failed = LoadFailed::new(Outcome::Ignored, Arc::new(Cancelled));
            self.land(Landing::Failed(failed.into()));
        }
        let table = &mut *lock(&self.flights.table);
        if let Some(slot) = table.keys.get_mut(&self.key).filter(|slot| slot.has(&self.flight)) {
            slot.flight = None;
            if slot.aloft == 0 {
                table.keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::task;

    use super::super::entry::Lifetime;
    use super::super::versions::Stamp;
    use super::*;

    fn flights(max: usize) -> Arc<Flights<u8, u32>> {
        Arc::new(Flights::new(max))
    }

    fn board(flights: &Arc<Flights<u8, u32>>, key: u8) -> Boarding<u8, u32> {
        flights.board(&key, Wants::Load, |entry| !entry.is_dead())
    }

    fn lead(flights: &Arc<Flights<u8, u32>>, key: u8) -> (Pilot<u8, u32>, Seat<u32>) {
        match board(flights, key) {
            Boarding::Leads(pilot, seat) => (pilot, seat),
            Boarding::Joins(_) | Boarding::Full => panic!("there is no flight yet"),
        }
    }

    fn join(flights: &Arc<Flights<u8, u32>>, key: u8) -> Option<Seat<u32>> {
        match board(flights, key) {
            Boarding::Joins(seat) => Some(seat),
            Boarding::Leads(..) | Boarding::Full => None,
        }
    }

    fn entry(answer: u32) -> Arc<Entry<u32>> {
        let now = tokio::time::Instant::now().into_std();
        let lifetime = Lifetime::strict(std::time::Duration::from_secs(1));
        Arc::new(Entry::new(Ok(answer), false, lifetime, now, Stamp::default()))
    }

    fn poll(seat: &mut Seat<u32>) -> Poll<Landing<u32>> {
        task::spawn(std::future::poll_fn(|cx| seat.poll(cx))).poll()
    }

    fn is_empty(flights: &Flights<u8, u32>) -> bool {
        let table = lock(&flights.table);
        table.keys.is_empty() && table.loads == 0
    }

    #[test]
    fn everyone_on_board_gets_the_landing_and_is_woken_once() {
        let flights = flights(8);
        let (mut pilot, mut leader) = lead(&flights, 1);
        let mut follower = join(&flights, 1).unwrap();
        let mut followed = task::spawn(std::future::poll_fn(|cx| follower.poll(cx)));
        assert!(followed.poll().is_pending());
        assert!(!followed.is_woken());

        pilot.land(Landing::Failure(Arc::new(7)));
        assert!(followed.is_woken());
        assert!(matches!(followed.poll(), Poll::Ready(Landing::Failure(answer)) if *answer == 7));
        assert!(matches!(poll(&mut leader), Poll::Ready(Landing::Failure(_))));
    }

    #[test]
    fn a_stored_answer_can_be_joined_until_its_pilot_leaves() {
        let flights = flights(8);
        let (mut pilot, _leader) = lead(&flights, 1);
        pilot.land(Landing::Loaded(entry(7)));
        assert!(join(&flights, 1).is_some());
        drop(pilot);
        assert!(join(&flights, 1).is_none());
    }

    #[test]
    fn no_other_landing_is_joined() {
        for landing in [
            Landing::Failed(Rejected::shed()),
            Landing::Private,
            Landing::Failure(Arc::new(7)),
            Landing::Found(entry(7)),
        ] {
            let flights = flights(8);
            let (mut pilot, _leader) = lead(&flights, 1);
            pilot.land(landing);
            let (_next, mut seat) = lead(&flights, 1);
            drop(pilot);
            assert!(poll(&mut seat).is_pending(), "the older pilot does not end the newer flight");
            assert!(join(&flights, 1).is_some());
        }
    }

    #[test]
    fn a_lost_pilot_lands_as_failed() {
        let flights = flights(8);
        let (pilot, mut seat) = lead(&flights, 1);
        drop(pilot);
        let Poll::Ready(Landing::Failed(rejected)) = poll(&mut seat) else { panic!("failed") };
        assert!(rejected.is_load_failed());
        assert!(is_empty(&flights));
    }

    #[test]
    fn the_number_of_loads_is_bounded_even_when_their_keys_are_invalidated() {
        let flights = flights(2);
        let (one, _seat) = lead(&flights, 1);
        let _two = lead(&flights, 2);
        assert!(one.begin());
        assert!(matches!(board(&flights, 3), Boarding::Full));
        assert!(join(&flights, 1).is_some(), "a call that only joins needs no room");
        flights.invalidate(&1);
        assert!(matches!(board(&flights, 1), Boarding::Full), "the old flight is still under way");
        assert!(flights.refresh(&3).is_none());
    }

    #[test]
    fn what_has_landed_takes_no_room_while_it_is_stored() {
        let flights = flights(1);
        let (mut one, _seat) = lead(&flights, 1);
        one.land(Landing::Loaded(entry(7)));
        let _two = lead(&flights, 2);
        assert_eq!(flights.loads(), 1);
    }

    #[test]
    fn a_flight_that_asks_the_store_takes_no_room_before_it_loads() {
        let flights = flights(1);
        let mut asking = Vec::new();
        for key in 1..=3 {
            match flights.board(&key, Wants::StoreFirst, |_| true) {
                Boarding::Leads(pilot, seat) => asking.push((pilot, seat)),
                Boarding::Joins(_) | Boarding::Full => panic!("asking is not limited"),
            }
        }
        assert_eq!(flights.loads(), 0);
        assert!(asking[0].0.enter() && asking[0].0.enter(), "counted once");
        assert!(!asking[1].0.enter());
        assert_eq!(flights.loads(), 1);
        drop(asking);
        assert!(is_empty(&flights));
    }

    #[test]
    fn a_flight_without_callers_is_called_off_only_before_its_load_began() {
        let flights = flights(8);
        let (waiting, seat) = lead(&flights, 1);
        drop(seat);
        assert!(!waiting.begin());
        assert!(join(&flights, 1).is_none(), "what was called off is not joined");

        let (loading, seat) = lead(&flights, 2);
        assert!(loading.begin());
        drop(seat);
        assert!(join(&flights, 2).is_some());

        let (kept, seat) = lead(&flights, 3);
        seat.keep();
        drop(seat);
        assert!(kept.begin(), "its caller took an old answer and wants the load to go on");
    }

    #[test]
    fn slots_of_wakers_are_used_again() {
        let flights = flights(8);
        let (_pilot, _leader) = lead(&flights, 1);
        for _ in 0..100 {
            let mut seat = join(&flights, 1).unwrap();
            assert!(poll(&mut seat).is_pending());
        }
        assert_eq!(lock(&_pilot.flight.state).wakers.len(), 1);
    }

    #[test]
    fn a_key_has_two_loads_at_most_however_often_it_is_invalidated() {
        let flights = flights(8);
        let (mut first, _seat) = lead(&flights, 1);
        assert!(first.begin());
        flights.invalidate(&1);
        let (mut second, _seat) = lead(&flights, 1);
        assert!(second.begin() && second.may_store() && !first.may_store());
        assert!(!join(&flights, 1).unwrap().is_late());

        flights.invalidate(&1);
        assert!(join(&flights, 1).unwrap().is_late(), "two loads run: it waits for the end of the second");
        assert!(flights.refresh(&1).is_none());

        // The newer one ends first: there is room for the next beside the first.
        second.land(Landing::Loaded(entry(2)));
        let (third, _seat) = lead(&flights, 1);
        assert!(third.begin());
        flights.invalidate(&1);
        assert!(join(&flights, 1).unwrap().is_late());
        first.land(Landing::Loaded(entry(1)));
        let (fourth, _seat) = lead(&flights, 1);
        assert!(!join(&flights, 1).unwrap().is_late());
        drop((first, second, third, fourth));
        assert!(is_empty(&flights));
    }

    #[test]
    fn an_invalidation_before_the_load_begins_does_not_concern_its_answer() {
        let flights = flights(8);
        let (pilot, _seat) = lead(&flights, 1);
        let old = entry(1);
        assert!(pilot.set_stand_in(Arc::clone(&old)));
        flights.invalidate(&1);
        assert!(old.is_dead());
        assert!(!pilot.set_stand_in(entry(1)), "it may have been found before");
        assert!(!join(&flights, 1).unwrap().is_late());
        assert!(pilot.begin() && pilot.may_store());
    }

    #[test]
    fn what_was_found_while_the_key_was_invalidated_is_left_out() {
        let flights = flights(8);
        let (mut pilot, mut seat) = lead(&flights, 1);
        flights.removed(&1);
        assert!(!pilot.land_found(Landing::Found(entry(1))));
        let mut pilot = match pilot.land_and_refresh(&entry(1), StaleReason::Revalidating) {
            Err(pilot) => pilot,
            Ok(_) => panic!("the entry may be what was there before"),
        };
        assert!(poll(&mut seat).is_pending());
        assert!(pilot.begin());
        assert!(pilot.land_found(Landing::Found(entry(2))));
        assert!(poll(&mut seat).is_ready());
    }

    #[test]
    fn an_answer_is_dead_if_its_key_is_invalidated_before_or_after_it_lands() {
        let flights = flights(8);
        let (mut before, _seat) = lead(&flights, 1);
        assert!(before.begin());
        flights.invalidate(&1);
        let answer = entry(1);
        before.land(Landing::Loaded(Arc::clone(&answer)));
        assert!(answer.is_dead());

        let (mut after, _seat) = lead(&flights, 2);
        assert!(after.begin());
        let answer = entry(2);
        after.land(Landing::Loaded(Arc::clone(&answer)));
        assert!(!answer.is_dead() && after.may_store());
        flights.removed(&2);
        assert!(!answer.is_dead(), "it was loaded after the invalidation began");
        flights.invalidate(&2);
        assert!(answer.is_dead() && !after.may_store());
        assert!(join(&flights, 2).is_none());
    }

    #[test]
    fn a_refresh_waits_for_the_write_of_the_one_before() {
        let flights = flights(8);
        let mut pilot = flights.refresh(&1).unwrap();
        assert!(flights.refresh(&1).is_none());
        pilot.land(Landing::Loaded(entry(7)));
        assert!(flights.refresh(&1).is_none(), "it is being stored");
        drop(pilot);
        assert!(flights.refresh(&1).is_some());
    }

    #[test]
    fn a_refresh_behind_a_landing_is_joined_and_has_the_old_answer() {
        let flights = flights(8);
        let (mut pilot, mut seat) = lead(&flights, 1);
        assert!(pilot.enter());
        let Ok(mut pilot) = pilot.land_and_refresh(&entry(1), StaleReason::Revalidating) else {
            panic!("not invalidated")
        };
        assert!(matches!(poll(&mut seat), Poll::Ready(Landing::StandIn(..))));
        let mut late = join(&flights, 1).unwrap();
        assert!(late.stand_in().is_some() && poll(&mut late).is_pending());
        flights.invalidate(&1);
        assert!(late.stand_in().is_none());
        pilot.land(Landing::Loaded(entry(2)));
        drop(pilot);
        assert!(is_empty(&flights));
    }

    #[test]
    fn a_load_for_one_caller_is_not_found_by_others_and_not_stored() {
        let flights = flights(2);
        let (_pilot, _seat) = lead(&flights, 1);
        let Boarding::Leads(alone, _seat) = flights.board(&1, Wants::Alone, |_| true) else { panic!("alone") };
        assert!(alone.begin() && !alone.may_store());
        assert_eq!(flights.loads(), 2);
        assert!(matches!(flights.board(&1, Wants::Alone, |_| true), Boarding::Full));
        drop(alone);
        assert!(join(&flights, 1).is_some(), "the key's own flight is still there");
        assert_eq!(flights.loads(), 1);
    }

    #[test]
    fn a_key_that_panics_as_it_is_cloned_leaves_nothing_behind() {
        #[derive(PartialEq, Eq, Hash)]
        struct Fragile;
        impl Clone for Fragile {
            fn clone(&self) -> Self {
                panic!("the key of a test")
            }
        }
        let flights: Arc<Flights<Fragile, u32>> = Arc::new(Flights::new(1));
        let board = || flights.board(&Fragile, Wants::Load, |_| true);
        for _ in 0..2 {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(board)).is_err(), "not `Full`");
        }
        assert_eq!(flights.loads(), 0);
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::task::Wake;
    use std::time::Duration;

    use super::super::entry::Lifetime;
    use super::super::versions::Stamp;
    use super::*;
    use crate::cores::sync::atomic::{AtomicU32, Ordering};
    use crate::cores::sync::model::{every_order, join, spawn, with_interruptions};

    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn board(flights: &Arc<Flights<u8, u32>>) -> Boarding<u8, u32> {
        flights.board(&1, Wants::Load, |entry| !entry.is_dead())
    }

    fn lead(flights: &Arc<Flights<u8, u32>>) -> (Pilot<u8, u32>, Seat<u32>) {
        match board(flights) {
            Boarding::Leads(pilot, seat) => (pilot, seat),
            Boarding::Joins(_) | Boarding::Full => panic!("there is no flight yet"),
        }
    }

    fn entry(answer: u32) -> Arc<Entry<u32>> {
        let lifetime = Lifetime::strict(Duration::from_secs(1));
        let now = tokio::time::Instant::now().into_std();
        Arc::new(Entry::new(Ok(answer), false, lifetime, now, Stamp::default()))
    }

    #[test]
    fn whoever_waits_sees_the_landing_or_is_woken_by_it() {
        every_order(|| {
            let (mut pilot, mut leader) = lead(&Arc::new(Flights::new(1)));
            let waiter = spawn(move || {
                let woken = Arc::new(Woken(AtomicU32::new(0)));
                let waker = Waker::from(Arc::clone(&woken));
                let landed = leader.poll(&Context::from_waker(&waker)).is_ready();
                (leader, woken, landed)
            });
            pilot.land(Landing::Private);
            let (mut leader, woken, landed) = join(waiter);
            assert!(landed || woken.0.load(Ordering::Relaxed) == 1);
            assert!(leader.poll(&Context::from_waker(Waker::noop())).is_ready());
        });
    }

    #[test]
    fn a_flight_is_called_off_or_flown_and_whoever_joins_it_gets_its_end() {
        every_order(|| {
            let flights = Arc::new(Flights::new(2));
            let (mut pilot, seat) = lead(&flights);
            let leaver = spawn(move || drop(seat));
            let joiner = {
                let flights = Arc::clone(&flights);
                spawn(move || board(&flights))
            };
            let flown = pilot.begin();
            if flown {
                pilot.land(Landing::Loaded(entry(7)));
            }
            join(leaver);
            let boarded = join(joiner);
            drop(pilot);
            match boarded {
                Boarding::Joins(mut seat) => {
                    assert!(flown, "a flight with a caller on board is not called off");
                    assert!(seat.poll(&Context::from_waker(Waker::noop())).is_ready());
                }
                Boarding::Leads(pilot, _seat) => {
                    assert!(!flown, "a flight that has not ended is joined");
                    assert!(pilot.begin());
                }
                Boarding::Full => panic!("there is room for two"),
            }
            assert_eq!(flights.loads(), 0);
        });
    }

    /// What is behind the cache, and what is stored of it.
    struct Shared {
        flights: Arc<Flights<u8, u32>>,
        source: AtomicU32,
        store: Mutex<Option<Arc<Entry<u32>>>>,
    }

    impl Shared {
        fn new(stored: Option<Arc<Entry<u32>>>) -> Arc<Self> {
            let store = Mutex::new(stored);
            Arc::new(Self { flights: Arc::new(Flights::new(4)), source: AtomicU32::new(1), store })
        }

        /// A load that stores its answer, in its least parts.
        fn load(&self, mut pilot: Pilot<u8, u32>) {
            let answer = entry(self.source.load(Ordering::Relaxed));
            pilot.land(Landing::Loaded(Arc::clone(&answer)));
            if pilot.may_store() {
                *lock(&self.store) = Some(answer);
            }
        }

        fn look(&self) -> Option<Arc<Entry<u32>>> {
            lock(&self.store).clone().filter(|entry| !entry.is_dead())
        }

        /// `Core::invalidate`, in its least parts.
        fn invalidate(&self) {
            self.flights.invalidate(&1);
            if let Some(entry) = self.look() {
                entry.kill();
            }
            *lock(&self.store) = None;
            self.flights.removed(&1);
        }
    }

    /// A load and a refresh behind it, in whatever order, beside an invalidation.
    #[test]
    fn an_invalidation_sticks_although_a_load_or_a_refresh_of_the_key_is_under_way() {
        with_interruptions(3, || {
            let shared = Shared::new(None);
            let (pilot, _seat) = lead(&shared.flights);
            assert!(pilot.begin());
            let loader = {
                let shared = Arc::clone(&shared);
                spawn(move || shared.load(pilot))
            };
            let refresher = {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    if let Some(pilot) = shared.flights.refresh(&1) {
                        shared.load(pilot);
                    }
                })
            };
            shared.source.store(2, Ordering::Relaxed);
            shared.invalidate();
            // A call from now on.
            let served = shared.look();
            join(loader);
            join(refresher);
            for entry in [served, shared.look()].into_iter().flatten() {
                assert_eq!(entry.answer().ok(), Some(&2));
            }
            assert_eq!(shared.flights.loads(), 0);
        });
    }

    /// A call that boards after an invalidation of its key does not land with what was read before.
    #[test]
    fn who_boards_after_an_invalidation_gets_no_answer_of_before() {
        every_order(|| {
            let shared = Shared::new(None);
            let (pilot, _seat) = lead(&shared.flights);
            assert!(pilot.begin());
            let loader = {
                let shared = Arc::clone(&shared);
                spawn(move || shared.load(pilot))
            };
            shared.source.store(2, Ordering::Relaxed);
            shared.invalidate();
            let boarded = board(&shared.flights);
            join(loader);
            match boarded {
                Boarding::Joins(_) => panic!("one load runs: there is room for another beside it"),
                Boarding::Leads(pilot, _seat) => {
                    assert!(pilot.begin());
                    shared.load(pilot);
                }
                Boarding::Full => panic!("there is room"),
            }
            let stored = shared.look();
            assert_eq!(stored.as_ref().and_then(|entry| entry.answer().ok()), Some(&2));
            assert_eq!(shared.flights.loads(), 0);
        });
    }

    /// A flight whose answer is no longer fresh before it is stored gives way to another one, and the key is invalidated.
    #[test]
    fn what_gave_way_to_another_flight_is_not_stored_after_an_invalidation() {
        every_order(|| {
            let shared = Shared::new(None);
            let (pilot, _seat) = lead(&shared.flights);
            assert!(pilot.begin());
            let loader = {
                let shared = Arc::clone(&shared);
                spawn(move || shared.load(pilot))
            };
            let boarded = shared.flights.board(&1, Wants::Load, |_| false);
            shared.source.store(2, Ordering::Relaxed);
            shared.invalidate();
            join(loader);
            drop(boarded);
            assert!(shared.look().is_none_or(|entry| entry.answer().ok() == Some(&2)));
        });
    }

    /// A call looks into the store and opens a flight, while its key is invalidated and the store drops the entry by itself.
    #[test]
    fn what_was_invalidated_stands_in_for_no_later_call() {
        with_interruptions(3, || {
            let old = entry(1);
            let shared = Shared::new(Some(Arc::clone(&old)));
            let caller = {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let (pilot, seat) = lead(&shared.flights);
                    if let Some(entry) = shared.look() {
                        pilot.set_stand_in(entry);
                    }
                    (pilot, seat)
                })
            };
            let evicting = {
                let shared = Arc::clone(&shared);
                spawn(move || *lock(&shared.store) = None)
            };
            shared.invalidate();
            let (pilot, seat) = join(caller);
            join(evicting);
            assert!(seat.stand_in().is_none_or(|entry| entry.is_dead()));
            drop(pilot);
        });
    }

    /// A store elsewhere is asked while its key is invalidated: callers who board after that do not land with what it had.
    #[test]
    fn what_a_store_elsewhere_had_is_not_for_callers_after_an_invalidation() {
        every_order(|| {
            let shared = Shared::new(Some(entry(1)));
            let (mut pilot, _seat) = lead(&shared.flights);
            let asking = {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let found = shared.look();
                    if !found.is_some_and(|entry| pilot.land_found(Landing::Found(entry))) {
                        assert!(pilot.begin());
                        shared.load(pilot);
                    }
                })
            };
            shared.source.store(2, Ordering::Relaxed);
            // As for a store that cannot be looked into at once.
            shared.flights.invalidate(&1);
            *lock(&shared.store) = None;
            shared.flights.removed(&1);
            let boarded = board(&shared.flights);
            join(asking);
            if let Boarding::Joins(mut seat) = boarded
                && let Poll::Ready(landing) = seat.poll(&Context::from_waker(Waker::noop()))
                && !seat.is_late()
            {
                let (Landing::Loaded(entry) | Landing::Found(entry)) = landing else { panic!("it has landed") };
                assert_eq!(entry.answer().ok(), Some(&2));
            }
        });
    }
}
