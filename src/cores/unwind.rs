//! [`Guard`] and [`on_unwind`]: notice a panic exactly where it leaves the code of others.
//!
//! Put around exactly the inner `call` or `poll`: `std::thread::panicking()` would miss a panic that is caught above, and
//! would blame whatever another future's panic happens to drop.

use std::mem;

/// Who notices a panic.
pub(crate) trait Notice {
    fn unwound(&mut self);
}

/// Has a panic noticed that drops it. Whoever gets past it [disarms](Self::disarm) it, and can use what is in it until then.
pub(crate) struct Guard<N: Notice>(pub(crate) N);

// === impl Guard ===

impl<N: Notice> Guard<N> {
    /// There was no panic. What is in it is forgotten, not dropped: it holds references and numbers.
    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    #[inline(always)]
    pub(crate) fn disarm(self) {
        mem::forget(self);
    }
}

impl<N: Notice> Drop for Guard<N> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.unwound();
    }
}

impl<F: FnOnce()> Notice for Option<F> {
    #[inline]
    fn unwound(&mut self) {
        if let Some(notice) = self.take() {
            notice();
        }
    }
}

/// Runs `work`; if it unwinds, runs `notice` on the way out and lets the panic go on.
#[inline]
pub(crate) fn on_unwind<R>(notice: impl FnOnce(), work: impl FnOnce() -> R) -> R {
    let mut guard = Guard(Some(notice));
    let result = work();
    guard.0 = None;
    result
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn only_unwinding_is_noticed() {
        let noticed = Cell::new(0);
        assert_eq!(on_unwind(|| noticed.set(noticed.get() + 1), || 7), 7);
        assert_eq!(noticed.get(), 0);

        let work = || on_unwind(|| noticed.set(noticed.get() + 1), || panic!("inside"));
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        assert_eq!(noticed.get(), 1);
    }
}
