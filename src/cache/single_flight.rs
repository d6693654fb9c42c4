//! Single flight: calls for one key share one load.
//!
//! A flight is flown by a task of its own, its [`Pilot`], so no caller's departure can end it; callers hold a [`Seat`] and
//! are woken once, when it lands. The number of flights is bounded. A flight whose load has not begun (it waits for a place
//! among the concurrent loads) and whose last caller leaves is called off: nobody wants it, and nothing was sent.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;

use super::entry::Entry;
use crate::cores::sync::atomic::{AtomicBool, Ordering};
use crate::cores::sync::{Mutex, lock};
use crate::error::{LoadFailed, Rejected};
use crate::outcome::Outcome;

/// The flights under way, at most `max`.
pub(crate) struct Flights<K, V> {
    max: usize,
    table: Mutex<Table<K, V>>,
}

struct Table<K, V> {
    /// What a caller may join, by key.
    open: HashMap<K, Arc<Flight<V>>>,
    /// What nobody joins any more, but may still be told that its key was invalidated.
    detached: Vec<(K, Arc<Flight<V>>)>,
    /// All that are under way; some of them cannot be joined any more.
    under_way: usize,
}

/// One load, shared.
pub(crate) struct Flight<V> {
    state: Mutex<State<V>>,
    invalidated: AtomicBool,
}

struct State<V> {
    phase: Phase<V>,
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
    /// The load's answer, which is not stored.
    Passed(Arc<V>),
    /// Found in the store, and good to be served.
    Found(Arc<Entry<V>>),
    /// An old answer in place of a load that failed.
    StandIn(Arc<Entry<V>>, super::served::StaleReason),
    /// No answer.
    Failed(Rejected),
}

/// A caller's place on a flight.
pub(crate) struct Seat<V> {
    flight: Arc<Flight<V>>,
    slot: Option<usize>,
}

/// Whoever holds it flies the flight; dropped without a landing, it lands as failed.
pub(crate) struct Pilot<K: Hash + Eq, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    flight: Arc<Flight<V>>,
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

/// What the waiters of a load get whose task ended without a word.
#[derive(Debug, thiserror::Error)]
#[error("the load was cancelled")]
struct Cancelled;

// === impl Flights ===

impl<K: Hash + Eq + Clone, V> Flights<K, V> {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, table: Mutex::new(Table { open: HashMap::new(), detached: Vec::new(), under_way: 0 }) }
    }

    /// Joins the flight of `key`, or opens one.
    pub(crate) fn board(self: &Arc<Self>, key: &K) -> Boarding<K, V> {
        let mut table = lock(&self.table);
        if let Some(seat) = table.open.get(key).and_then(Flight::join) {
            return Boarding::Joins(seat);
        }
        let Some(flight) = self.open(&mut table, key, Phase::Waiting, 1) else {
            return Boarding::Full;
        };
        let seat = Seat { flight: Arc::clone(&flight), slot: None };
        Boarding::Leads(self.pilot(key, flight), seat)
    }

    /// Opens a flight without callers, unless one of `key` is under way or there is no room.
    pub(crate) fn refresh(self: &Arc<Self>, key: &K) -> Option<Pilot<K, V>> {
        let mut table = lock(&self.table);
        if table.open.get(key).is_some_and(|flight| flight.is_under_way()) {
            return None;
        }
        let flight = self.open(&mut table, key, Phase::Loading, 0)?;
        Some(self.pilot(key, flight))
    }

    /// Closes the flight of `key` to new callers; what it loads is not stored.
    pub(crate) fn invalidate(&self, key: &K) {
        let mut table = lock(&self.table);
        if let Some(flight) = table.open.remove(key) {
            flight.invalidated.store(true, Ordering::SeqCst);
        }
        for (_, flight) in table.detached.iter().filter(|(detached, _)| detached == key) {
            flight.invalidated.store(true, Ordering::SeqCst);
        }
    }

    /// Closes all flights to new callers. Whether their answers may still be stored is for the versions to say.
    pub(crate) fn detach_all(&self) {
        let table = &mut *lock(&self.table);
        table.detached.extend(table.open.drain());
    }

    /// The number of flights under way.
    pub(crate) fn under_way(&self) -> usize {
        lock(&self.table).under_way
    }

    fn open(&self, table: &mut Table<K, V>, key: &K, phase: Phase<V>, callers: usize) -> Option<Arc<Flight<V>>> {
        if table.under_way >= self.max {
            return None;
        }
        table.under_way += 1;
        let flight = Arc::new(Flight::new(phase, callers));
        table.open.insert(key.clone(), Arc::clone(&flight));
        Some(flight)
    }

    fn pilot(self: &Arc<Self>, key: &K, flight: Arc<Flight<V>>) -> Pilot<K, V> {
        Pilot { flights: Arc::clone(self), key: key.clone(), flight }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("max", &self.max).finish_non_exhaustive()
    }
}

// === impl Flight ===

impl<V> Flight<V> {
    fn new(phase: Phase<V>, callers: usize) -> Self {
        let state = State { phase, callers, wakers: Vec::new(), free: Vec::new(), stand_in: None, task: None };
        Self { state: Mutex::new(state), invalidated: AtomicBool::new(false) }
    }

    /// A seat, unless the flight was called off or has landed with nothing that a new caller could use.
    fn join(self: &Arc<Self>) -> Option<Seat<V>> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Waiting
            | Phase::Loading
            // Landed, but perhaps not yet in the store.
            | Phase::Landed(Landing::Loaded(_) | Landing::Passed(_)) => {
                state.callers += 1;
                Some(Seat { flight: Arc::clone(self), slot: None })
            }
            Phase::CalledOff | Phase::Landed(_) => None,
        }
    }

    fn is_under_way(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Waiting | Phase::Loading)
    }

    /// Lets the last caller call the task off while it waits.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Waiting) {
            state.task = Some(task);
        }
    }

    fn land(&self, landing: Landing<V>) {
        let woken = {
            let mut state = lock(&self.state);
            if matches!(state.phase, Phase::Landed(_)) {
                return;
            }
            state.phase = Phase::Landed(landing);
            state.stand_in = None;
            state.task = None;
            mem::take(&mut state.wakers)
        };
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}

// === impl Landing ===

impl<V> Clone for Landing<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Loaded(entry) => Self::Loaded(Arc::clone(entry)),
            Self::Passed(answer) => Self::Passed(Arc::clone(answer)),
            Self::Found(entry) => Self::Found(Arc::clone(entry)),
            Self::StandIn(entry, reason) => Self::StandIn(Arc::clone(entry), *reason),
            Self::Failed(rejected) => Self::Failed(rejected.clone()),
        }
    }
}

// === impl Seat ===

impl<V> Seat<V> {
    /// Ready once the flight has landed. Whoever polls is woken once.
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
                Phase::Waiting if state.callers == 0 => {
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

    /// The load begins: from now on it is finished, whoever leaves. `false` if it was called off just before.
    pub(crate) fn begin(&self) -> bool {
        let mut state = lock(&self.flight.state);
        match state.phase {
            Phase::Waiting => {
                state.phase = Phase::Loading;
                state.task = None;
                true
            }
            Phase::Loading => true,
            Phase::CalledOff | Phase::Landed(_) => false,
        }
    }

    /// Says what callers may be served while the load is slow.
    pub(crate) fn set_stand_in(&self, entry: Arc<Entry<V>>) {
        lock(&self.flight.state).stand_in = Some(entry);
    }

    /// Gives everyone on board the result. Later callers may still join until the pilot is dropped.
    pub(crate) fn land(&self, landing: Landing<V>) {
        self.flight.land(landing);
    }

    /// Lands, and goes on as a refresh of the same key that new callers may join. `None` when the key was invalidated.
    pub(crate) fn land_and_refresh(mut self, landing: Landing<V>) -> Option<Self> {
        let next = Arc::new(Flight::new(Phase::Loading, 0));
        let mine = {
            let mut table = lock(&self.flights.table);
            let open = table.open.get_mut(&self.key).filter(|open| Arc::ptr_eq(open, &self.flight));
            open.map(|open| *open = Arc::clone(&next)).is_some()
        };
        self.flight.land(landing);
        mine.then(|| {
            self.flight = next;
            self
        })
    }

    /// Whether the key was invalidated since the flight was opened.
    pub(crate) fn is_invalidated(&self) -> bool {
        self.flight.invalidated.load(Ordering::SeqCst)
    }
}

impl<K: Hash + Eq, V> Drop for Pilot<K, V> {
    fn drop(&mut self) {
        {
            let mut table = lock(&self.flights.table);
            table.under_way -= 1;
            if table.open.get(&self.key).is_some_and(|open| Arc::ptr_eq(open, &self.flight)) {
                table.open.remove(&self.key);
            } else if let Some(at) = table.detached.iter().position(|(_, detached)| Arc::ptr_eq(detached, &self.flight))
            {
                table.detached.swap_remove(at);
            }
        }
        // Nothing but a cancelled or killed task comes here without having landed.
        let failed = LoadFailed::new(Outcome::Ignored, Arc::new(Cancelled));
        self.flight.land(Landing::Failed(failed.into()));
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::task;

    use super::*;

    fn flights(max: usize) -> Arc<Flights<u8, u32>> {
        Arc::new(Flights::new(max))
    }

    fn lead(flights: &Arc<Flights<u8, u32>>, key: u8) -> (Pilot<u8, u32>, Seat<u32>) {
        match flights.board(&key) {
            Boarding::Leads(pilot, seat) => (pilot, seat),
            Boarding::Joins(_) | Boarding::Full => panic!("there is no flight yet"),
        }
    }

    fn join(flights: &Arc<Flights<u8, u32>>, key: u8) -> Option<Seat<u32>> {
        match flights.board(&key) {
            Boarding::Joins(seat) => Some(seat),
            Boarding::Leads(..) | Boarding::Full => None,
        }
    }

    fn answer(landing: &Landing<u32>) -> Option<u32> {
        match landing {
            Landing::Passed(answer) => Some(**answer),
            _ => None,
        }
    }

    fn poll(seat: &mut Seat<u32>) -> Poll<Landing<u32>> {
        task::spawn(std::future::poll_fn(|cx| seat.poll(cx))).poll()
    }

    #[test]
    fn everyone_on_board_gets_the_landing_and_is_woken_once() {
        let flights = flights(8);
        let (pilot, mut leader) = lead(&flights, 1);
        let mut follower = join(&flights, 1).unwrap();
        let mut followed = task::spawn(std::future::poll_fn(|cx| follower.poll(cx)));
        assert!(followed.poll().is_pending());
        assert!(!followed.is_woken());

        pilot.land(Landing::Passed(Arc::new(7)));
        assert!(followed.is_woken());
        let Poll::Ready(landing) = followed.poll() else { panic!("landed") };
        assert_eq!(answer(&landing), Some(7));
        assert!(matches!(poll(&mut leader), Poll::Ready(Landing::Passed(_))));
    }

    #[test]
    fn a_landed_answer_can_be_joined_until_its_pilot_leaves() {
        let flights = flights(8);
        let (pilot, _leader) = lead(&flights, 1);
        pilot.land(Landing::Passed(Arc::new(7)));
        assert!(join(&flights, 1).is_some());
        drop(pilot);
        assert!(join(&flights, 1).is_none());
    }

    #[test]
    fn a_failed_landing_is_not_joined() {
        let flights = flights(8);
        let (pilot, _leader) = lead(&flights, 1);
        pilot.land(Landing::Failed(Rejected::shed()));
        let (_next, mut seat) = lead(&flights, 1);
        drop(pilot);
        assert!(poll(&mut seat).is_pending(), "the older pilot does not end the newer flight");
        assert!(join(&flights, 1).is_some());
    }

    #[test]
    fn a_lost_pilot_lands_as_failed() {
        let flights = flights(8);
        let (pilot, mut seat) = lead(&flights, 1);
        drop(pilot);
        let Poll::Ready(Landing::Failed(rejected)) = poll(&mut seat) else { panic!("failed") };
        assert!(rejected.is_load_failed());
        assert_eq!(flights.under_way(), 0);
    }

    #[test]
    fn the_number_of_flights_is_bounded_even_when_their_keys_are_invalidated() {
        let flights = flights(2);
        let _one = lead(&flights, 1);
        let _two = lead(&flights, 2);
        assert!(matches!(flights.board(&3), Boarding::Full));
        assert!(join(&flights, 1).is_some(), "who only joins needs no room");
        flights.invalidate(&1);
        assert!(matches!(flights.board(&1), Boarding::Full), "the old flight is still under way");
        assert!(flights.refresh(&3).is_none());
    }

    #[test]
    fn a_flight_that_nobody_waits_for_is_called_off_only_before_its_load_began() {
        let flights = flights(8);
        let (waiting, seat) = lead(&flights, 1);
        drop(seat);
        assert!(!waiting.begin());
        assert!(join(&flights, 1).is_none(), "what was called off is not joined");

        let (loading, seat) = lead(&flights, 2);
        assert!(loading.begin());
        drop(seat);
        assert!(join(&flights, 2).is_some());
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
    fn a_detached_flight_still_hears_that_its_key_was_invalidated() {
        let flights = flights(8);
        let (pilot, _seat) = lead(&flights, 1);
        flights.detach_all();
        let (newer, _seat) = lead(&flights, 1);
        assert!(!pilot.is_invalidated());
        flights.invalidate(&1);
        assert!(pilot.is_invalidated() && newer.is_invalidated());
        drop((pilot, newer));
        let table = lock(&flights.table);
        assert_eq!((table.open.len(), table.detached.len(), table.under_way), (0, 0, 0));
    }

    #[test]
    fn an_invalidated_flight_is_closed_to_new_callers_and_knows_it() {
        let flights = flights(8);
        let (pilot, _seat) = lead(&flights, 1);
        flights.invalidate(&1);
        assert!(pilot.is_invalidated());
        let (newer, _seat) = lead(&flights, 1);
        assert!(!newer.is_invalidated());
        assert!(pilot.land_and_refresh(Landing::Passed(Arc::new(7))).is_none());
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::task::Wake;

    use super::*;
    use crate::cores::sync::atomic::AtomicU32;
    use crate::cores::sync::model::{every_order, join, spawn};

    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lead(flights: &Arc<Flights<u8, u32>>) -> (Pilot<u8, u32>, Seat<u32>) {
        match flights.board(&1) {
            Boarding::Leads(pilot, seat) => (pilot, seat),
            Boarding::Joins(_) | Boarding::Full => panic!("there is no flight yet"),
        }
    }

    #[test]
    fn whoever_waits_sees_the_landing_or_is_woken_by_it() {
        every_order(|| {
            let (pilot, mut leader) = lead(&Arc::new(Flights::new(1)));
            let waiter = spawn(move || {
                let woken = Arc::new(Woken(AtomicU32::new(0)));
                let waker = Waker::from(Arc::clone(&woken));
                let landed = leader.poll(&Context::from_waker(&waker)).is_ready();
                (leader, woken, landed)
            });
            pilot.land(Landing::Passed(Arc::new(7)));
            let (mut leader, woken, landed) = join(waiter);
            assert!(landed || woken.0.load(Ordering::Relaxed) == 1);
            assert!(leader.poll(&Context::from_waker(Waker::noop())).is_ready());
        });
    }

    #[test]
    fn a_flight_is_called_off_or_flown_and_whoever_joins_it_gets_its_end() {
        every_order(|| {
            let flights = Arc::new(Flights::new(2));
            let (pilot, seat) = lead(&flights);
            let leaver = spawn(move || drop(seat));
            let joiner = {
                let flights = Arc::clone(&flights);
                spawn(move || flights.board(&1))
            };
            let flown = pilot.begin();
            if flown {
                pilot.land(Landing::Passed(Arc::new(7)));
            }
            join(leaver);
            let boarded = join(joiner);
            drop(pilot);
            match boarded {
                Boarding::Joins(mut seat) => {
                    assert!(flown, "a flight with somebody on board is not called off");
                    assert!(seat.poll(&Context::from_waker(Waker::noop())).is_ready());
                }
                Boarding::Leads(pilot, _seat) => {
                    assert!(!flown, "a flight that has not ended is joined");
                    assert!(pilot.begin());
                }
                Boarding::Full => panic!("there is room for two"),
            }
            assert_eq!(flights.under_way(), 0);
        });
    }

    /// The way of a load that stores its answer, and of an invalidation, in their least parts.
    #[test]
    fn an_invalidation_sticks_although_a_load_of_the_key_is_under_way() {
        every_order(|| {
            let flights = Arc::new(Flights::new(1));
            let (source, store) = (Arc::new(AtomicU32::new(1)), Arc::new(Mutex::new(None)));
            let (pilot, _seat) = lead(&flights);
            let loader = {
                let (source, store) = (Arc::clone(&source), Arc::clone(&store));
                spawn(move || {
                    let answer = source.load(Ordering::Relaxed);
                    if !pilot.is_invalidated() {
                        *lock(&store) = Some(answer);
                        if pilot.is_invalidated() {
                            *lock(&store) = None;
                        }
                    }
                })
            };
            source.store(2, Ordering::Relaxed);
            flights.invalidate(&1);
            *lock(&store) = None;
            join(loader);
            assert_ne!(*lock(&store), Some(1));
        });
    }
}
