//! The synchronisation primitives of the lock-free cores: those of `std`, or those of `loom` where the cores are model-checked.
//!
//! `tools/models` builds the library with `--cfg mainstay_loom` and runs the models, which stand beside the code that they
//! check. In every other build this is a list of re-exports. What is no part of a model (handles that are cloned, statics
//! that only number things) uses `std` directly.
#![allow(unused_imports, reason = "used by the families, each behind its feature")]

#[cfg(not(mainstay_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(mainstay_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

#[cfg(not(mainstay_loom))]
pub(crate) use super::lock::lock;

/// Locks `mutex`; a model that panics has failed, poisoned or not.
#[cfg(mainstay_loom)]
#[track_caller]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a model's mutex is not poisoned")
}

/// `loom`'s atomics, but for one thing: loads of the same atomic come in every order, too.
///
/// Of the accesses before a store, `loom` reorders the store with the last one only. A thread that reads an atomic before
/// it writes it hides from it what other threads have read, and orders in which they read later would never be tried. So
/// each load first takes a turn, by a relaxed operation on another atomic; turns are put in every order, and order nothing
/// but themselves.
#[cfg(mainstay_loom)]
pub(crate) mod atomic {
    use loom::sync::atomic;
    pub(crate) use loom::sync::atomic::Ordering;

    macro_rules! atomics {
        ($($name:ident: $value:ty, $($operation:ident)*;)*) => {$(
            #[derive(Debug)]
            pub(crate) struct $name {
                turn: atomic::AtomicU8,
                value: atomic::$name,
            }

            #[allow(dead_code, reason = "what std has")]
            impl $name {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self { turn: atomic::AtomicU8::new(0), value: atomic::$name::new(value) }
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.turn.swap(0, Ordering::Relaxed);
                    self.value.load(order)
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.value.store(value, order);
                }

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.value.compare_exchange(from, to, success, failure)
                }

                #[track_caller]
                pub(crate) fn compare_exchange_weak(
                    &self,
                    from: $value,
                    to: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.value.compare_exchange_weak(from, to, success, failure)
                }

                #[track_caller]
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut before = self.load(fetch);
                    while let Some(after) = update(before) {
                        match self.compare_exchange_weak(before, after, set, fetch) {
                            Ok(before) => return Ok(before),
                            Err(seen) => before = seen,
                        }
                    }
                    Err(before)
                }

                $(
                    #[track_caller]
                    pub(crate) fn $operation(&self, value: $value, order: Ordering) -> $value {
                        self.value.$operation(value, order)
                    }
                )*
            }
        )*};
    }

    atomics! {
        AtomicBool: bool, swap fetch_or fetch_and;
        AtomicU8: u8, swap;
        AtomicU32: u32, swap fetch_or fetch_and fetch_add fetch_sub fetch_max fetch_min;
        AtomicU64: u64, swap fetch_or fetch_and fetch_add fetch_sub fetch_max fetch_min;
        AtomicI64: i64, swap fetch_or fetch_and fetch_add fetch_sub fetch_max fetch_min;
        AtomicUsize: usize, swap fetch_or fetch_and fetch_add fetch_sub fetch_max fetch_min;
    }
}

/// How the models are run.
#[cfg(all(test, mainstay_loom))]
pub(crate) mod model {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use loom::thread::JoinHandle;

    /// Runs `body` once for each order in which its threads can take their steps, and each value that their loads may see.
    pub(crate) fn every_order(body: impl Fn() + Send + Sync + 'static) {
        run(None, body);
    }

    /// The same, where that would take too long: only the orders in which threads are interrupted `interruptions` times in
    /// all, apart from when they wait. `LOOM_MAX_PREEMPTIONS` allows more of them.
    pub(crate) fn with_interruptions(interruptions: usize, body: impl Fn() + Send + Sync + 'static) {
        run(Some(interruptions), body);
    }

    fn run(interruptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound =
            interruptions.map(|least| model.preemption_bound.map_or(least, |asked| asked.max(least)));
        let orders = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&orders);
        model.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            body();
        });
        println!("{} orders", orders.load(Ordering::Relaxed));
    }

    /// A thread of a model.
    pub(crate) fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        loom::thread::spawn(move || {
            let result = body();
            super::super::counters::give_slot_back();
            result
        })
    }

    /// What a thread of a model came to.
    pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
        thread.join().expect("a panic in a thread ends the model")
    }

    /// A moment to count from.
    pub(crate) fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
