//! [`StripedArc`]: a shared value, without a reference count that all threads share.
//!
//! A layer's clones share one state, and each call's future holds it too. With a plain `Arc` that is one count that every
//! thread writes to on every call: two threads are then slower than one. Here a clone of the value is a clone of a *lease*, an
//! `Arc` of the thread's own which holds the value; threads write to different counts, on different cache lines. The value
//! itself is dropped with the last lease, at once, as with a plain `Arc`.
//!
//! A lease is made where a handle is made, and belongs to that thread. What is cloned or used by another thread counts on the
//! lease it has, until that has happened [`PATIENCE`] times; then the other thread gets a lease of its own, kept by the first.
//! So a handle that wanders allocates nothing, and one that is cloned for each request by many threads allocates once a
//! thread. Leases hang on the one they were made from and never the other way around: no cycle, and nothing to collect.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::counters::{is_slot_of_thread, owned_stripes, slot_of_thread};

/// How often a lease is used from other threads before they get their own.
const PATIENCE: u32 = 32;
/// `strangers` of a lease that is for all threads.
const FOR_ALL: u32 = u32::MAX;

/// A shared value; a clone is a handle to the same.
pub(crate) struct StripedArc<T>(Arc<Lease<T>>);

/// A count of one thread's own, which holds the value. On cache lines of its own (two: the prefetcher fetches in pairs).
#[repr(align(128))]
struct Lease<T> {
    value: Arc<T>,
    /// The slot of the thread that it was made for.
    slot: usize,
    /// How often another thread has used it.
    strangers: AtomicU32,
    /// The leases of those that did so often, by their slots.
    others: OnceLock<Others<T>>,
}

/// A place for each slot that a thread can own.
type Others<T> = Box<[OnceLock<Arc<Lease<T>>>]>;

// === impl StripedArc ===

impl<T> StripedArc<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::of(Arc::new(value))
    }

    /// Shares what is shared already.
    pub(crate) fn of(value: Arc<T>) -> Self {
        Self(Arc::new(Lease::new(value, slot_of_thread())))
    }

    /// One of many, for which a lease a thread would be too much memory: one count for all threads.
    pub(crate) fn lean(value: T) -> Self {
        let lease = Lease::new(Arc::new(value), slot_of_thread());
        lease.strangers.store(FOR_ALL, Ordering::Relaxed);
        Self(Arc::new(lease))
    }

    /// Whether this is the only handle, of a value that is [lean](Self::lean).
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && Arc::strong_count(&self.0.value) == 1
    }

    /// The value, for who keeps it for long and does not clone it often.
    pub(crate) fn value(&self) -> &Arc<T> {
        &self.0.value
    }

    /// A clone for a call: like `clone`, but this handle goes over to the thread's own lease if it is used here for long.
    #[inline]
    pub(crate) fn lend(&mut self) -> Self {
        if self.0.is_of_this_thread() {
            return Self(self.0.clone());
        }
        self.lend_to_stranger()
    }

    #[cold]
    #[inline(never)]
    fn lend_to_stranger(&mut self) -> Self {
        if let Some(own) = self.0.for_stranger() {
            self.0 = own;
        }
        Self(self.0.clone())
    }
}

impl<T> Clone for StripedArc<T> {
    #[inline]
    fn clone(&self) -> Self {
        if self.0.is_of_this_thread() {
            return Self(self.0.clone());
        }
        self.0.clone_for_stranger()
    }
}

impl<T> Deref for StripedArc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for StripedArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

// === impl Lease ===

impl<T> Lease<T> {
    const fn new(value: Arc<T>, slot: usize) -> Self {
        Self { value, slot, strangers: AtomicU32::new(0), others: OnceLock::new() }
    }

    #[inline]
    fn is_of_this_thread(&self) -> bool {
        is_slot_of_thread(self.slot)
    }

    #[cold]
    #[inline(never)]
    fn clone_for_stranger(self: &Arc<Self>) -> StripedArc<T> {
        StripedArc(self.for_stranger().unwrap_or_else(|| self.clone()))
    }

    /// A lease of the calling thread's own, if it is time to have one and the thread can.
    fn for_stranger(&self) -> Option<Arc<Self>> {
        let strangers = self.strangers.load(Ordering::Relaxed);
        if strangers == FOR_ALL {
            return None;
        }
        if strangers < PATIENCE {
            // Two threads at once may count as one: it is then a little later.
            self.strangers.store(strangers + 1, Ordering::Relaxed);
            return None;
        }
        let slot = slot_of_thread();
        let others = self.others.get_or_init(|| (0..owned_stripes()).map(|_| OnceLock::new()).collect());
        let own = others.get(slot)?;
        Some(own.get_or_init(|| Arc::new(Self::new(self.value.clone(), slot))).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Whether this thread can have leases: only as many threads as there are stripes can, and tests run on many.
    fn has_stripe() -> bool {
        slot_of_thread() < owned_stripes()
    }

    /// Has `work` done by a thread that lives no longer.
    fn elsewhere<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    }

    #[test]
    fn it_is_as_large_as_an_arc_and_counts_on_lines_of_its_own() {
        assert_eq!(size_of::<StripedArc<u64>>(), size_of::<Arc<u64>>());
        assert_eq!(align_of::<Lease<u64>>(), 128);
    }

    #[test]
    fn the_value_is_dropped_with_the_last_handle_whatever_thread_made_it() {
        let value = Arc::new(7);
        let mut first = StripedArc::of(value.clone());
        let theirs = elsewhere(|| (0..2 * PATIENCE).map(|_| first.clone()).collect::<Vec<_>>());
        let lent = elsewhere(|| (0..2 * PATIENCE).map(|_| first.lend()).collect::<Vec<_>>());
        assert!(theirs.iter().chain(&lent).all(|handle| **handle == 7));
        drop((first, theirs));
        assert!(lent.iter().all(|handle| **handle == 7), "whatever was made from the first outlives it");
        drop(lent);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn one_thread_has_one_lease_however_often_it_clones() {
        let value = Arc::new(());
        let mut handle = StripedArc::of(value.clone());
        let mut clones: Vec<_> = (0..100).map(|_| handle.clone().lend()).collect();
        clones.push(handle.lend());
        assert_eq!(Arc::strong_count(&value), 2);
        assert_eq!(Arc::strong_count(&clones[0].0), 102);
    }

    #[test]
    fn a_lean_one_has_one_lease_for_all_threads_and_knows_when_it_is_alone() {
        let mut handle = StripedArc::lean(7);
        let clones = elsewhere(|| (0..2 * PATIENCE).flat_map(|_| [handle.lend(), handle.clone()]).collect::<Vec<_>>());
        assert_eq!(Arc::strong_count(handle.value()), 1);
        assert!(!handle.is_alone());
        drop(clones);
        assert!(handle.is_alone());
    }

    #[test]
    fn a_handle_that_wanders_has_no_lease_made_for_it() {
        let value = Arc::new(());
        let mut handle = StripedArc::of(value.clone());
        for _ in 0..PATIENCE / 2 {
            elsewhere(|| (handle.lend(), handle.clone()));
        }
        assert_eq!(Arc::strong_count(&value), 2);
    }

    #[test]
    fn a_thread_that_uses_a_handle_for_long_gets_a_lease_and_the_handle_goes_over_to_it() {
        let value = Arc::new(());
        let mut handle = StripedArc::of(value.clone());
        let first = handle.clone();
        elsewhere(|| {
            (0..=PATIENCE).for_each(|_| drop(handle.lend()));
            assert_eq!(handle.0.is_of_this_thread(), has_stripe());
            assert_eq!(first.clone().0.is_of_this_thread(), has_stripe(), "other handles find the same lease");
            assert_eq!(Arc::strong_count(&value), if has_stripe() { 3 } else { 2 });
        });
    }
}
