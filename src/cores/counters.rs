//! [`StripedCounters`]: exact counts without a shared cache line or a locked instruction on the way.
//!
//! A counter shared by two threads costs each of them the other's cache line. Here every live thread has a stripe of its
//! own, to which only it writes, so that a plain load and store will do. Threads beyond the number of stripes share the
//! last one and use `fetch_add`. A read adds the stripes up: exact as soon as the writers are at rest, and never lower
//! than what the reading thread itself has counted.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use super::lock::lock;

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
        let stripe = || Stripe(array::from_fn(|_| AtomicU64::new(0)));
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
    #[inline]
    pub(crate) fn count(&self, which: usize) -> u64 {
        // A slot that is not assigned yet is beyond the end, as is one that is not owned: one comparison for all of them.
        match self.owned.get(SLOT.get()) {
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
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(4, |count| (count.get() * 2).clamp(4, 64)))
}

// === the slots of threads ===

const UNASSIGNED: usize = usize::MAX;
const SHARED: usize = usize::MAX - 1;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(UNASSIGNED) };
    static RELEASE: Release = const { Release };
}

/// Slots that ended threads gave back. Taking one from behind the lock orders this thread after all writes of the last.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Whether `slot` is this thread's. One that has none yet has no other's.
#[inline]
pub(crate) fn is_slot_of_thread(slot: usize) -> bool {
    slot == SLOT.get()
}

/// This thread's slot: exclusive among live threads, but for those that are being torn down, which share one.
#[inline]
pub(crate) fn slot_of_thread() -> usize {
    let slot = SLOT.get();
    if slot == UNASSIGNED { assign_slot() } else { slot }
}

#[cold]
#[inline(never)]
fn assign_slot() -> usize {
    // A thread that is being torn down cannot promise to give the slot back, so it shares.
    let slot = if RELEASE.try_with(|_| ()).is_ok() {
        lock(&FREE).pop().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed))
    } else {
        SHARED
    };
    SLOT.set(slot);
    slot
}

/// Gives the thread's slot back when the thread ends.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        let slot = SLOT.replace(SHARED);
        if slot < SHARED {
            lock(&FREE).push(slot);
        }
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
