//! [`Watchers`]: whoever waits for a breaker to change, and the last change.
//!
//! A breaker that nobody has waited for has none: [`LazyWatchers`] makes them for the first one. Wakers and what drops with
//! them are the code of others, so they are woken and dropped outside the lock.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;

use super::transition::Transition;
use crate::circuit_state::CircuitState;
use crate::cores::lock::lock;

/// The watchers of one breaker, once there are any. When it goes, they are told that the breaker is gone.
pub(super) struct LazyWatchers(OnceLock<Arc<Watchers>>);

/// Who waits, and for what there is to see.
pub(super) struct Watchers {
    locked: Mutex<Locked>,
}

#[derive(Default)]
struct Locked {
    latest: Latest,
    /// One place for each who waits. It is kept while its waker is taken, until its owner gives it back.
    places: Vec<Place>,
    /// Empty places.
    free: Vec<usize>,
}

/// What there is to see.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latest {
    /// The generation of `state`; zero before anything is known. It grows without a change too: by a reset of a closed circuit.
    generation: u64,
    pub(super) state: CircuitState,
    /// Grows with each change that is worth telling; zero before anything is known.
    pub(super) version: u64,
    /// What led to it, if that was told since there are watchers.
    pub(super) transition: Option<Transition>,
    /// The breaker is gone.
    pub(super) gone: bool,
}

enum Place {
    Free,
    /// Its owner was woken, or has not waited yet.
    Idle,
    Waiting(Waker),
}

/// A place among the watchers; empties it when it is dropped.
pub(super) struct Watcher {
    watchers: Arc<Watchers>,
    place: Option<usize>,
}

// === impl LazyWatchers ===

impl LazyWatchers {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub(super) fn get_or_init(&self) -> &Arc<Watchers> {
        self.0.get_or_init(|| Arc::new(Watchers { locked: Mutex::default() }))
    }

    /// Whether anybody has a place, or may take one.
    pub(super) fn is_watched(&self) -> bool {
        self.0.get().is_some_and(|watchers| Arc::strong_count(watchers) > 1)
    }

    /// Keeps the change for those who look, and wakes those who wait.
    #[inline]
    pub(super) fn tell(&self, change: &Transition) {
        if let Some(watchers) = self.0.get() {
            watchers.tell(change);
        }
    }

    /// Wakes those who wait, if anybody does.
    #[cold]
    pub(super) fn wake(&self) {
        if let Some(watchers) = self.0.get() {
            watchers.wake();
        }
    }
}

impl Drop for LazyWatchers {
    fn drop(&mut self) {
        if let Some(watchers) = self.0.get() {
            lock(&watchers.locked).latest.gone = true;
            watchers.wake();
        }
    }
}

// === impl Watchers ===

impl Watchers {
    /// The state as somebody begins to watch it.
    pub(super) fn begin(&self, generation: u64, state: CircuitState) {
        let latest = &mut lock(&self.locked).latest;
        if generation <= latest.generation {
            return;
        }
        latest.generation = generation;
        if latest.version == 0 || latest.state != state {
            // The thread that made the change may not have come to tell of it yet: what led to it is added when it does.
            (latest.state, latest.transition) = (state, None);
            latest.version += 1;
        }
    }

    fn tell(&self, change: &Transition) {
        {
            // Two threads may tell of their changes in either order.
            let latest = &mut lock(&self.locked).latest;
            if change.generation >= latest.generation {
                let is_seen_already = change.generation == latest.generation && latest.transition.is_none();
                latest.generation = change.generation;
                latest.state = change.to;
                latest.transition = Some(*change);
                latest.version += u64::from(!is_seen_already);
            }
        }
        self.wake();
    }

    /// Wakes everyone who waits.
    pub(super) fn wake(&self) {
        let wakers: Vec<Waker> = lock(&self.locked).places.iter_mut().filter_map(Place::take).collect();
        for waker in wakers {
            // One that panics must not keep the others asleep; the panic hook has told the operator.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    pub(super) fn latest(&self) -> Latest {
        lock(&self.locked).latest
    }

    /// Those who have a place.
    #[cfg(test)]
    fn len(&self) -> usize {
        let locked = lock(&self.locked);
        locked.places.len() - locked.free.len()
    }
}

// === impl Place ===

impl Place {
    /// The waker of one who waits, whose place becomes idle.
    fn take(&mut self) -> Option<Waker> {
        match std::mem::replace(self, Self::Idle) {
            Self::Waiting(waker) => Some(waker),
            other => {
                *self = other;
                None
            }
        }
    }
}

// === impl Watcher ===

impl Watcher {
    pub(super) const fn new(watchers: Arc<Watchers>) -> Self {
        Self { watchers, place: None }
    }

    /// Has `waker` woken at the next change. Look at what there is *after* this: a change in between has then either been
    /// seen, or wakes.
    pub(super) fn watch(&mut self, waker: &Waker) {
        let mut locked = lock(&self.watchers.locked);
        let place = *self.place.get_or_insert_with(|| locked.take_place());
        if matches!(&locked.places[place], Place::Waiting(waiting) if waiting.will_wake(waker)) {
            return;
        }
        drop(locked);
        // Cloned outside the lock, and so is the one before dropped.
        let waiting = Place::Waiting(waker.clone());
        let mut locked = lock(&self.watchers.locked);
        let before = std::mem::replace(&mut locked.places[place], waiting);
        drop(locked);
        drop(before);
    }

    /// What there is to see.
    pub(super) fn latest(&self) -> Latest {
        self.watchers.latest()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waker = lock(&self.watchers.locked).free_place(place);
        drop(waker);
    }
}

// === impl Locked ===

impl Locked {
    fn take_place(&mut self) -> usize {
        if let Some(place) = self.free.pop() {
            self.places[place] = Place::Idle;
            return place;
        }
        self.places.push(Place::Idle);
        self.places.len() - 1
    }

    fn free_place(&mut self, place: usize) -> Place {
        let before = std::mem::replace(&mut self.places[place], Place::Free);
        self.free.push(place);
        if self.free.len() == self.places.len() {
            // A crowd that is gone leaves no memory behind.
            (self.places, self.free) = (Vec::new(), Vec::new());
        }
        before
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locked: MutexGuard<'_, Locked> = lock(&self.locked);
        let waiting = locked.places.len() - locked.free.len();
        f.debug_struct("Watchers").field("state", &locked.latest.state).field("waiting", &waiting).finish()
    }
}

impl fmt::Debug for LazyWatchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LazyWatchers").field(&self.0.get()).finish()
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("place", &self.place).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicU32);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test");
        }
    }

    fn watchers() -> Arc<Watchers> {
        LazyWatchers::new().get_or_init().clone()
    }

    #[test]
    fn everyone_who_waits_is_woken_once_and_not_again_before_they_wait_again() {
        let watchers = watchers();
        let counts: Vec<Arc<Counts>> = (0..3).map(|_| Arc::default()).collect();
        let mut waiting: Vec<_> = counts.iter().map(|_| Watcher::new(watchers.clone())).collect();
        for (watcher, counts) in waiting.iter_mut().zip(&counts) {
            watcher.watch(&counts.clone().into());
            watcher.watch(&counts.clone().into());
        }
        watchers.wake();
        watchers.wake();
        waiting[1].watch(&counts[1].clone().into());
        watchers.wake();
        let woken: Vec<u32> = counts.iter().map(|counts| counts.0.load(Relaxed)).collect();
        assert_eq!(woken, [1, 2, 1]);
    }

    #[test]
    fn a_dropped_watcher_leaves_nothing_behind_and_its_place_goes_to_the_next() {
        let watchers = watchers();
        let counts: Arc<Counts> = Arc::default();
        let mut stays = Watcher::new(watchers.clone());
        stays.watch(&counts.clone().into());
        for _ in 0..100 {
            let mut leaves = Watcher::new(watchers.clone());
            leaves.watch(&counts.clone().into());
        }
        assert_eq!((watchers.len(), lock(&watchers.locked).places.len()), (1, 2));
        watchers.wake();
        assert_eq!(counts.0.load(Relaxed), 1);
        drop(stays);
        assert_eq!((watchers.len(), lock(&watchers.locked).places.capacity()), (0, 0));
        assert_eq!(Arc::strong_count(&counts), 1);
    }

    fn change(generation: u64, to: CircuitState) -> Transition {
        Transition {
            from: CircuitState::Closed,
            to,
            reason: super::super::transition::TransitionReason::Operator,
            calls: 0,
            failures: 0,
            slow_calls: 0,
            consecutive_failures: 0,
            period_failures: 0,
            open_for: None,
            cause: None,
            cut_by_deadline: 0,
            generation,
            is_observed: false,
        }
    }

    #[test]
    fn changes_told_in_the_wrong_order_leave_the_later_one() {
        let watchers = watchers();
        watchers.begin(1, CircuitState::Closed);
        watchers.tell(&change(3, CircuitState::Open));
        watchers.tell(&change(2, CircuitState::Disabled));
        let latest = watchers.latest();
        assert_eq!(
            (latest.state, latest.version, latest.transition.map(|it| it.to)),
            (CircuitState::Open, 2, Some(CircuitState::Open))
        );
    }

    #[test]
    fn a_change_that_was_seen_before_it_was_told_is_one_change() {
        let watchers = watchers();
        watchers.begin(1, CircuitState::Closed);
        // Another one begins to watch between the change and its telling.
        watchers.begin(2, CircuitState::Open);
        assert_eq!((watchers.latest().version, watchers.latest().transition), (2, None));
        watchers.tell(&change(2, CircuitState::Open));
        assert_eq!(
            (watchers.latest().version, watchers.latest().transition.map(|it| it.to)),
            (2, Some(CircuitState::Open))
        );
        // A reset of a closed circuit is a new generation, and nothing to tell.
        watchers.begin(3, CircuitState::Open);
        assert_eq!(watchers.latest().version, 2);
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_asleep() {
        let watchers = watchers();
        let counts: Arc<Counts> = Arc::default();
        let mut first = Watcher::new(watchers.clone());
        let mut second = Watcher::new(watchers.clone());
        first.watch(&Arc::new(Panics).into());
        second.watch(&counts.clone().into());
        watchers.wake();
        assert_eq!(counts.0.load(Relaxed), 1);
    }
}
