//! [`Ring`]: a sum over recent time. Pure: takes `now`, the time since its owner's start.
//!
//! Time is cut into slots, a tenth of the window each. What is added is noted in the slot of its time, and taken out of
//! the sum when that slot leaves the window; so the sum is one atomic, whatever the length of the window.

use std::array;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::cores::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::cores::sync::{Mutex, lock};

/// Ten tenths and the one that has just begun: never less than the whole window counts.
const SLOTS: usize = 11;
const TENTHS: u32 = 10;

#[derive(Debug)]
pub(super) struct Ring {
    slot_nanos: NonZeroU64,
    sum: AtomicI64,
    slots: [AtomicI64; SLOTS],
    /// The number of the slot that was begun last, counted from the start.
    newest: AtomicU64,
    /// Held while a slot is begun: ten times a window.
    beginning: Mutex<()>,
}

impl Ring {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            slot_nanos: NonZeroU64::new(nanos(window / TENTHS)).unwrap_or(NonZeroU64::MIN),
            sum: AtomicI64::new(0),
            slots: array::from_fn(|_| AtomicI64::new(0)),
            newest: AtomicU64::new(0),
            beginning: Mutex::new(()),
        }
    }

    /// The sum of what was added within the window.
    pub(super) fn sum(&self, now: Duration) -> i64 {
        self.sum_in(self.slot_at(now))
    }

    /// The same, where `current` is the slot of now.
    #[inline]
    pub(super) fn sum_in(&self, current: u64) -> i64 {
        self.advance(current);
        self.sum.load(Ordering::Relaxed)
    }

    /// Adds `amount` in the slot `current`, that of now.
    #[inline]
    pub(super) fn add_in(&self, amount: i64, current: u64) {
        let newest = self.advance(current);
        // In this order the sum is never less than what counts, even if another thread takes the slot out in between.
        self.sum.fetch_add(amount, Ordering::Relaxed);
        self.slot(newest).fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds `amount` if the sum stays within `limit`.
    pub(super) fn try_add(&self, amount: i64, limit: i64, now: Duration) -> bool {
        let newest = self.advance(self.slot_at(now));
        let fits = |sum: i64| Some(sum.saturating_add(amount)).filter(|&sum| sum <= limit);
        let added = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if added {
            self.slot(newest).fetch_add(amount, Ordering::Relaxed);
        }
        added
    }

    /// Takes one back of the oldest that still count; `false` if none does.
    ///
    /// The oldest, because it leaves the window first: whichever one is meant, the ring never forgets one too early.
    pub(super) fn take_back(&self, now: Duration) -> bool {
        let newest = self.advance(self.slot_at(now));
        let oldest = newest.saturating_sub(SLOTS as u64 - 1);
        let one_less = |amount: i64| Some(amount - 1).filter(|&left| left >= 0);
        let taken = (oldest..=newest)
            .any(|slot| self.slot(slot).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok());
        if taken {
            self.sum.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Begins slot `current`, if that was not done, takes out what has left the window, and returns the number of the newest.
    #[inline]
    fn advance(&self, current: u64) -> u64 {
        let newest = self.newest.load(Ordering::Acquire);
        if current <= newest { newest } else { self.begin(current) }
    }

    /// Begins slot `current`. Nobody notes anything in it before all that has left the window is out of it, or it would be
    /// taken out with that: who comes meanwhile waits.
    #[cold]
    fn begin(&self, current: u64) -> u64 {
        let _beginning = lock(&self.beginning);
        let newest = self.newest.load(Ordering::Relaxed);
        if current <= newest {
            return newest;
        }
        let begun = (current - newest).min(SLOTS as u64);
        for slot in current + 1 - begun..=current {
            let left = self.slot(slot).swap(0, Ordering::Relaxed);
            self.sum.fetch_sub(left, Ordering::Relaxed);
        }
        self.newest.store(current, Ordering::Release);
        current
    }

    #[allow(clippy::cast_possible_truncation, reason = "a remainder by 11")]
    fn slot(&self, number: u64) -> &AtomicI64 {
        &self.slots[(number % SLOTS as u64) as usize]
    }

    /// When a slot begins and ends.
    pub(super) const fn span(&self, slot: u64) -> (Duration, Duration) {
        let begins = slot.saturating_mul(self.slot_nanos.get());
        (Duration::from_nanos(begins), Duration::from_nanos(begins.saturating_add(self.slot_nanos.get())))
    }

    #[inline]
    pub(super) fn slot_at(&self, now: Duration) -> u64 {
        nanos(now) / self.slot_nanos
    }
}

/// Nanoseconds, up to 584 years.
#[inline]
fn nanos(duration: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    duration.as_secs().min(u64::MAX / SECOND - 1) * SECOND + u64::from(duration.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Duration {
        Duration::ZERO
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_amount_counts_for_the_window_and_at_most_a_tenth_more() {
        let now = start();
        let ring = Ring::new(SECOND);
        let added_at = now + Duration::from_millis(99);
        ring.add_in(7, ring.slot_at(added_at));
        assert_eq!(ring.sum(added_at + SECOND), 7);
        assert_eq!(ring.sum(now + Duration::from_millis(1_100)), 0);
    }

    #[test]
    fn a_clock_that_steps_back_changes_nothing() {
        let now = start();
        let ring = Ring::new(SECOND);
        ring.add_in(7, ring.slot_at(now + 5 * SECOND));
        ring.add_in(1, ring.slot_at(now));
        assert_eq!(ring.sum(now), 8);
    }

    #[test]
    fn of_many_threads_no_two_take_the_last_of_a_limit() {
        let now = start();
        let ring = Ring::new(SECOND);
        let added: usize = std::thread::scope(|scope| {
            let take = || (0..2_000).filter(|_| ring.try_add(1, 10_000, now)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(added, 10_000);
    }

    proptest! {
        /// Against a log of everything that was ever added, summed up anew at each step.
        #[test]
        fn the_sum_is_that_of_a_full_log(
            steps in prop::collection::vec((prop_oneof![Just(0), 0_u64..40, 0_u64..400, 0_u64..5_000], -5_i64..20), 1..300),
        ) {
            let begin = start();
            let ring = Ring::new(SECOND);
            let mut log: Vec<(u64, i64)> = Vec::new();
            let mut millis = 0;
            for (gap, amount) in steps {
                millis += gap;
                let (now, slot) = (begin + Duration::from_millis(millis), millis / 100);
                let recent: i64 = log.iter().filter(|(at, _)| at + 10 >= slot).map(|(_, amount)| amount).sum();
                prop_assert_eq!(ring.sum(now), recent);
                prop_assert_eq!(ring.try_add(amount, 30, now), recent + amount <= 30);
                if recent + amount <= 30 {
                    log.push((slot, amount));
                }
            }
        }
    }

    #[test]
    fn what_is_taken_back_is_the_oldest_that_counts_and_never_what_has_left() {
        let ring = Ring::new(SECOND);
        let at = |tenths: u64| Duration::from_millis(100 * tenths);
        assert!(!ring.take_back(at(0)), "there is nothing");
        assert!(ring.try_add(2, 9, at(0)) && ring.try_add(1, 9, at(5)));
        assert!(ring.take_back(at(6)));
        assert_eq!((ring.sum(at(6)), ring.sum(at(11))), (2, 1), "one of the first two is left, and leaves");
        assert!(ring.take_back(at(11)));
        assert!(!ring.take_back(at(11)), "what has left cannot be taken back");
        assert_eq!((ring.sum(at(11)), ring.sum(at(30))), (0, 0));
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{join, spawn, with_interruptions};

    const SECOND: Duration = Duration::from_secs(1);

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn no_two_take_the_last_of_a_limit() {
        with_interruptions(3, || {
            let ring = Arc::new(Ring::new(SECOND));
            let threads = [(); 3].map(|()| {
                let ring = Arc::clone(&ring);
                spawn(move || u32::from(ring.try_add(1, 2, millis(0))))
            });
            assert_eq!(threads.into_iter().map(join).sum::<u32>(), 2);
            assert_eq!(ring.sum(millis(0)), 2);
        });
    }

    #[test]
    fn no_two_take_the_last_of_a_limit_as_a_slot_begins() {
        // The next slot, and one after a long silence.
        for now in [millis(100), millis(5_000)] {
            with_interruptions(3, move || {
                let ring = Arc::new(Ring::new(SECOND));
                ring.add_in(1, 0);
                let had = if now < SECOND { 1 } else { 0 };
                // One is a slot behind: it may find that a newer one has begun.
                let threads = [now, now + millis(100)].map(|now| {
                    let ring = Arc::clone(&ring);
                    spawn(move || i64::from(ring.try_add(1, 2, now)) + i64::from(ring.try_add(1, 2, now)))
                });
                let taken: i64 = threads.into_iter().map(join).sum();
                assert_eq!(taken + had, 2);
                assert_eq!(ring.sum(now), 2);
            });
        }
    }

    #[test]
    fn what_was_added_leaves_once_however_late_it_was_noted() {
        with_interruptions(3, || {
            let ring = Arc::new(Ring::new(SECOND));
            let (adding, taking) = (Arc::clone(&ring), Arc::clone(&ring));
            let adder = spawn(move || adding.add_in(5, 0));
            // Begins the slots that follow, and takes out the one that is being added to.
            let taker = spawn(move || taking.try_add(1, 9, millis(1_150)));
            join(adder);
            join(taker);
            assert!((1..=6).contains(&ring.sum(millis(1_150))));
            assert_eq!(ring.sum(10 * SECOND), 0);
        });
    }

    #[test]
    fn what_is_taken_back_is_taken_once_as_its_slot_leaves() {
        with_interruptions(2, || {
            let ring = Arc::new(Ring::new(SECOND));
            assert!(ring.try_add(2, 9, millis(0)));
            let (first, second, taking) = (Arc::clone(&ring), Arc::clone(&ring), Arc::clone(&ring));
            let back = [first, second].map(|ring| spawn(move || i64::from(ring.take_back(millis(500)))));
            // Begins the slots that follow, and takes out the one that is being taken from.
            let taker = spawn(move || i64::from(taking.try_add(1, 9, millis(1_150))));
            back.into_iter().for_each(|thread| assert!((0..=1).contains(&join(thread))));
            join(taker);
            assert!((0..=1).contains(&ring.sum(millis(1_150))), "the new one may be what was taken back");
            assert_eq!(ring.sum(10 * SECOND), 0);
        });
    }
}
