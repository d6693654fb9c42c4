//! [`Ring`]: who was idle for long enough, found out a few at a time. Pure: it takes `now`.
//!
//! Looking up a key reads no clock, it sets a mark. A hand goes round (the *clock* of page replacement): whoever is busy as the
//! hand comes by begins to be idle from then on, and whoever was not busy since, for long enough, goes. So somebody is idle for
//! at least the time that was asked for, and the hand moves only when somebody new comes: a few steps each time, whatever the
//! number of keys.

use std::time::{Duration, Instant};

/// Everybody who may have to go, in no order.
#[derive(Debug)]
pub(super) struct Ring<T> {
    places: Vec<Place<T>>,
    hand: usize,
}

#[derive(Debug)]
struct Place<T> {
    item: T,
    /// When it was seen to be busy last.
    busy_at: Instant,
}

// === impl Ring ===

impl<T> Ring<T> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), hand: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().map(|place| &place.item)
    }

    pub(super) fn push(&mut self, item: T, now: Instant) {
        self.places.push(Place { item, busy_at: now });
    }

    /// Moves the hand by `steps`, at most once around, and returns those who went: they were busy for the last time at least
    /// `idle_after` ago, and `let_go`, which is asked last, did not find them busy again. `busy_until` returns when an item was
    /// busy last, which may be in the future; `None` if it was not since the last look.
    pub(super) fn sweep(
        &mut self,
        steps: usize,
        idle_after: Duration,
        now: Instant,
        busy_until: impl Fn(&T) -> Option<Instant>,
        let_go: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let mut gone = Vec::new();
        for _ in 0..steps.min(self.places.len()) {
            if self.hand >= self.places.len() {
                self.hand = 0;
            }
            let Some(place) = self.places.get_mut(self.hand) else { break };
            // One that was to be busy beyond `now` may have been let off.
            let busy_at = place.busy_at.min(now);
            place.busy_at = busy_until(&place.item).map_or(busy_at, |until| busy_at.max(until));
            if now.saturating_duration_since(place.busy_at) >= idle_after {
                if let_go(&place.item) {
                    // The last one takes the place, and is looked at next.
                    gone.push(self.places.swap_remove(self.hand).item);
                    continue;
                }
                place.busy_at = now;
            }
            self.hand += 1;
        }
        gone
    }

    /// Takes out one.
    pub(super) fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let index = self.places.iter().position(|place| is_it(&place.item))?;
        Some(self.places.swap_remove(index).item)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
        Instant::now()
    }

    fn ring(items: std::ops::Range<u32>, now: Instant) -> Ring<u32> {
        let mut ring = Ring::new();
        items.for_each(|item| ring.push(item, now));
        ring
    }

    fn left(ring: &Ring<u32>) -> Vec<u32> {
        let mut left: Vec<u32> = ring.iter().copied().collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn whoever_is_idle_goes_after_the_time_and_not_before() {
        let t0 = start();
        let mut ring = ring(0..3, t0);
        let nanosecond = Duration::from_nanos(1);
        assert!(ring.sweep(3, IDLE, t0 + IDLE - nanosecond, |_| None, |_| true).is_empty());
        assert_eq!(ring.sweep(3, IDLE, t0 + IDLE, |_| None, |_| true).len(), 3);
        assert_eq!((ring.len(), ring.sweep(8, IDLE, t0 + IDLE, |_| None, |_| true)), (0, vec![]));
    }

    #[test]
    fn the_time_begins_when_one_is_last_seen_busy() {
        let t0 = start();
        let mut ring = ring(0..2, t0);
        let seen = t0 + 5 * IDLE;
        assert_eq!(ring.sweep(2, IDLE, seen, |&item| (item == 0).then_some(seen), |_| true), [1]);
        assert!(ring.sweep(2, IDLE, seen + IDLE / 2, |_| None, |_| true).is_empty());
        assert_eq!(ring.sweep(2, IDLE, seen + IDLE, |_| None, |_| true), [0]);
    }

    #[test]
    fn the_time_begins_when_one_is_to_stop_being_busy_unless_it_is_let_off_before() {
        let t0 = start();
        let mut ring = ring(0..1, t0);
        let until = t0 + 3 * IDLE;
        let busy = |_: &u32| Some(until);
        for now in [t0, t0 + IDLE, until, until + IDLE - Duration::from_nanos(1)] {
            assert!(ring.sweep(1, IDLE, now, busy, |_| true).is_empty());
        }
        assert_eq!(ring.sweep(1, IDLE, until + IDLE, busy, |_| true), [0]);

        ring.push(1, t0);
        assert!(ring.sweep(1, IDLE, t0 + IDLE, busy, |_| true).is_empty());
        assert!(ring.sweep(1, IDLE, t0 + IDLE, |_| None, |_| true).is_empty());
        assert_eq!(ring.sweep(1, IDLE, t0 + 2 * IDLE, |_| None, |_| true), [1]);
    }

    #[test]
    fn a_few_steps_at_a_time_come_round_to_everybody() {
        let t0 = start();
        let mut ring = ring(0..100, t0);
        let looked = Cell::new(0);
        let busy_until = |_: &u32| {
            looked.set(looked.get() + 1);
            None
        };
        for _ in 0..50 {
            assert_eq!(ring.sweep(2, IDLE, t0 + IDLE, busy_until, |_| true).len(), 2);
        }
        assert_eq!((ring.len(), looked.get()), (0, 100));
    }

    #[test]
    fn a_sweep_looks_at_nobody_twice_and_who_is_busy_after_all_begins_anew() {
        let t0 = start();
        let mut ring = ring(0..3, t0);
        let looked = Cell::new(0);
        let busy_until = |_: &u32| {
            looked.set(looked.get() + 1);
            None
        };
        let gone = ring.sweep(100, IDLE, t0 + IDLE, busy_until, |&item| item == 1);
        assert_eq!((gone, looked.get(), left(&ring)), (vec![1], 3, vec![0, 2]));
        assert!(ring.sweep(2, IDLE, t0 + 2 * IDLE - Duration::from_nanos(1), |_| None, |_| true).is_empty());
        assert_eq!(ring.sweep(2, IDLE, t0 + 2 * IDLE, |_| None, |_| true).len(), 2);
    }

    #[test]
    fn one_that_is_taken_out_leaves_the_others() {
        let mut ring = ring(0..3, start());
        assert_eq!((ring.remove(|&item| item == 0), ring.remove(|&item| item == 0)), (Some(0), None));
        assert_eq!(left(&ring), [1, 2]);
    }
}
