//! A mutex that a panic cannot poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, whether or not a panic once unwound while it was held.
///
/// The cores keep their invariants between statements and run no user code under a lock, so there is nothing to protect
/// others from; a poisoned lock would turn one caller's panic into everybody's.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
