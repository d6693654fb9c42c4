//! [`on_unwind`]: notices a panic exactly where it leaves the code of others.

/// Runs `work`; if it unwinds, runs `notice` on the way out and lets the panic go on.
///
/// Put around exactly the inner `call` or `poll`: `std::thread::panicking()` would miss a panic that is caught above, and
/// would blame whatever another future's panic happens to drop.
#[inline]
pub(crate) fn on_unwind<R>(notice: impl FnOnce(), work: impl FnOnce() -> R) -> R {
    struct Guard<F: FnOnce()>(Option<F>);

    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(notice) = self.0.take() {
                notice();
            }
        }
    }

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
