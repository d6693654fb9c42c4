//! [`StripedCounters`]: exact counts without a shared cache line or a locked instruction on the way.
//!
//! A counter shared by two threads costs each of them the other's cache line. Here every live thread has a stripe of its
//! own, to which only it writes, so that a plain load and store will do. Threads beyond the number of stripes share the
//! last one and use `fetch_add`. A read adds the stripes up: exact as soon as the writers are at rest, and never lower
//! than what the reading thread itself has counted.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::array;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::thread;

use super::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use super::sync::{Mutex, lock};

/// `N` counters, striped by thread.
#[derive(Debug)]
pub(crate) struct StripedCounters<const N: usize> {
    /// One for each slot that a thread can own.
    owned: Box<[Stripe<N>]>,
    /// For the threads beyond.
    shared: Box<Stripe<N>>,
    /// Where the counts add up with those of others; such counters have no owned stripes.
    sum: Option<Arc<StripedCounters<N>>>,
}

/// One thread's counters, on cache lines of their own (two lines: the prefetcher fetches in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Stripe<const N: usize>([AtomicU64; N]);

impl<const N: usize> StripedCounters<N> {
    /// All at zero. Allocates one stripe for each thread that can run at a time, and one to share.
    pub(crate) fn new() -> Self {
        Self::starting_at(|| 0)
    }

    /// Each stripe begins where `start` says, and all counters of a stripe at the same: for sequences that threads walk by
    /// themselves. Such counts do not add up to anything.
    pub(crate) fn starting_at(mut start: impl FnMut() -> u64) -> Self {
        let mut stripe = || {
            let start = start();
            Stripe(array::from_fn(|_| AtomicU64::new(start)))
        };
        Self { owned: (0..owned_stripes()).map(|_| stripe()).collect(), shared: Box::new(stripe()), sum: None }
    }

    /// All at zero, and small: for one of many. They take a locked instruction each.
    pub(crate) fn lean() -> Self {
        let shared = Box::new(Stripe(array::from_fn(|_| AtomicU64::new(0))));
        Self { owned: Box::default(), shared, sum: None }
    }

    /// All at zero, and small: one of many whose counts add up in `sum`. They take a locked instruction each.
    pub(crate) fn part_of(sum: Arc<Self>) -> Self {
        Self { sum: Some(sum), ..Self::lean() }
    }

    /// Counts one more of `which`.
    #[inline]
    pub(crate) fn add(&self, which: usize) {
        self.count(which);
    }

    /// Counts one more of `which`, and returns how many this thread's stripe holds now.
    #[inline(always)]
    pub(crate) fn count(&self, which: usize) -> u64 {
        // A slot that is not assigned yet is beyond the end, as is one that is not owned: one comparison for all of them.
        match self.owned.get(SLOT.with(Cell::get)) {
            Some(stripe) => stripe.count(which),
            None => self.count_slow(which),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_slow(&self, which: usize) -> u64 {
        if let Some(sum) = &self.sum {
            sum.count(which);
        }
        match self.owned.get(slot_of_thread()) {
            Some(stripe) => stripe.count(which),
            None => self.shared.0[which].fetch_add(1, Ordering::Relaxed).wrapping_add(1),
        }
    }

    /// How often `which` was counted.
    pub(crate) fn get(&self, which: usize) -> u64 {
        let stripes = self.owned.iter().chain([&*self.shared]);
        stripes.map(|Stripe(counters)| counters[which].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// All counts.
    pub(crate) fn all(&self) -> [u64; N] {
        array::from_fn(|which| self.get(which))
    }
}

// === impl Stripe ===

impl<const N: usize> Stripe<N> {
    /// Counts on the stripe that only this thread writes to.
    #[inline]
    fn count(&self, which: usize) -> u64 {
        let counter = &self.0[which];
        let count = counter.load(Ordering::Relaxed).wrapping_add(1);
        counter.store(count, Ordering::Relaxed);
        count
    }
}

/// How many threads get a stripe of their own: twice the processors, from 4 to 64.
pub(crate) fn owned_stripes() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    if cfg!(mainstay_loom) {
        // Enough for one to be owned, and few enough for the next thread to share.
        return 1;
    }
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(4, |count| (count.get() * 2).clamp(4, 64)))
}

// === the slots of threads ===

const UNASSIGNED: usize = usize::MAX;
const SHARED: usize = usize::MAX - 1;

#[cfg(not(mainstay_loom))]
thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(UNASSIGNED) };
    static RELEASE: Release = const { Release };
}

/// Slots that ended threads gave back. Taking one from behind the lock orders this thread after all writes of the last.
#[cfg(not(mainstay_loom))]
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
#[cfg(not(mainstay_loom))]
static NEXT: AtomicUsize = AtomicUsize::new(0);

// A model's threads, and its statics: they end with each order that is tried.
#[cfg(mainstay_loom)]
loom::thread_local! {
    static SLOT: Cell<usize> = Cell::new(UNASSIGNED);
}

#[cfg(mainstay_loom)]
loom::lazy_static! {
    static ref FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    static ref NEXT: AtomicUsize = AtomicUsize::new(0);
}

/// Whether `slot` is this thread's. One that has none yet has no other's.
#[inline]
pub(crate) fn is_slot_of_thread(slot: usize) -> bool {
    slot == SLOT.with(Cell::get)
}

/// This thread's slot: exclusive among live threads, but for those that are being torn down, which share one.
#[inline]
pub(crate) fn slot_of_thread() -> usize {
    let slot = SLOT.with(Cell::get);
    if slot == UNASSIGNED { assign_slot() } else { slot }
}

#[cold]
#[inline(never)]
fn assign_slot() -> usize {
    // A thread that is being torn down cannot promise to give the slot back, so it shares.
    let slot = if will_give_slot_back() {
        lock(&FREE).pop().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed))
    } else {
        SHARED
    };
    SLOT.with(|cell| cell.set(slot));
    slot
}

#[cfg(not(mainstay_loom))]
fn will_give_slot_back() -> bool {
    RELEASE.try_with(|_| ()).is_ok()
}

/// The models' own `spawn` sees to it: in `loom`, locals outlive the statics.
#[cfg(mainstay_loom)]
fn will_give_slot_back() -> bool {
    true
}

/// The thread counts on the shared stripe from here on; another may have its own.
pub(super) fn give_slot_back() {
    let slot = SLOT.with(|cell| cell.replace(SHARED));
    if slot < SHARED {
        lock(&FREE).push(slot);
    }
}

/// Gives the thread's slot back when the thread ends.
#[cfg(not(mainstay_loom))]
struct Release;

#[cfg(not(mainstay_loom))]
impl Drop for Release {
    fn drop(&mut self) {
        give_slot_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_many_threads_add_up_exactly_at_rest() {
        let counters = StripedCounters::<3>::new();
        // More threads than stripes, in two waves, so that slots are shared and handed on.
        for _ in 0..2 {
            thread::scope(|scope| {
                for _ in 0..owned_stripes() + 8 {
                    scope.spawn(|| (0..1_000).for_each(|_| counters.add(1)));
                }
            });
        }
        assert_eq!(counters.all(), [0, 2 * 1_000 * (owned_stripes() as u64 + 8), 0]);
    }

    #[test]
    fn parts_count_their_own_and_add_up_in_the_sum_though_some_are_gone() {
        let sum = Arc::new(StripedCounters::<2>::new());
        let parts: Vec<_> = (0..3).map(|_| StripedCounters::part_of(sum.clone())).collect();
        thread::scope(|scope| {
            for part in &parts {
                scope.spawn(|| (0..1_000).for_each(|_| part.add(1)));
                scope.spawn(|| (0..500).for_each(|_| part.add(0)));
            }
        });
        assert!(parts.iter().all(|part| part.all() == [500, 1_000]));
        drop(parts);
        assert_eq!(sum.all(), [1_500, 3_000]);
    }

    #[test]
    fn live_threads_never_share_an_owned_slot() {
        let (mine, theirs) = (slot_of_thread(), thread::spawn(slot_of_thread).join().unwrap());
        assert_ne!(mine, theirs);
    }

    #[test]
    fn a_reader_sees_its_own_counts_at_once() {
        let counters = StripedCounters::<1>::new();
        for expected in 1..=100 {
            counters.add(0);
            assert_eq!(counters.get(0), expected);
        }
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{every_order, join, spawn, with_interruptions};

    #[test]
    fn no_count_is_lost_or_doubled_whoever_shares_a_stripe() {
        with_interruptions(3, || {
            // One owns a stripe, the two others share one.
            let counters = Arc::new(StripedCounters::<1>::new());
            let threads = [1, 1, 1].map(|counts| {
                let counters = Arc::clone(&counters);
                spawn(move || (0..counts).for_each(|_| counters.add(0)))
            });
            threads.into_iter().for_each(join);
            assert_eq!(counters.all(), [3]);
        });
    }

    #[test]
    fn a_stripe_that_is_handed_on_keeps_what_its_last_owner_counted() {
        every_order(|| {
            let counters = Arc::new(StripedCounters::<2>::new());
            let count = |which| {
                let counters = Arc::clone(&counters);
                spawn(move || counters.add(which))
            };
            let first = count(0);
            let second = count(0);
            join(first);
            // By now the first slot may be free, and may be taken again.
            join(count(0));
            join(second);
            assert_eq!(counters.all(), [3, 0]);
        });
    }

    #[test]
    fn a_reader_sees_its_own_counts_and_none_that_were_not_made() {
        with_interruptions(2, || {
            let counters = Arc::new(StripedCounters::<1>::new());
            let threads = [1, 2].map(|counts| {
                let counters = Arc::clone(&counters);
                spawn(move || {
                    for counted in 1..=counts {
                        counters.add(0);
                        assert!((counted..=3).contains(&counters.get(0)));
                    }
                })
            });
            threads.into_iter().for_each(join);
        });
    }
}
