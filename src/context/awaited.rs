//! What a pending call waits for: a note that a waiting layer leaves for the limit that ends the wait.
//!
//! A limit that has run out polls what it limits once more, under [`poll_awaited`]. A layer that waits and returns `Pending`
//! from that poll leaves the rejection that its wait would end in ([`record_awaited`]), and the limit returns this rejection in
//! place of a bare timeout. Outside of such a poll no note is taken. A note therefore describes only the wait that is being
//! ended: it cannot outlive that wait, and it cannot reach another future on the same thread.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::task::Poll;

use crate::error::Rejected;

thread_local! {
    /// Whether a limit that has run out is polling what it limits.
    static ENDING: Cell<bool> = const { Cell::new(false) };
    /// The first note of that poll. `ManuallyDrop` keeps the thread-local free of a destructor; `poll_awaited` takes every note
    /// out again.
    static NOTE: Cell<ManuallyDrop<Option<Rejected>>> = const { Cell::new(ManuallyDrop::new(None)) };
}

/// Records the rejection that a wait would end in; to be called whenever a poll of the wait returns `Pending`.
///
/// Both `poll_ready` and the `poll` of a response future may wait. `rejection` runs only while a limit ends the wait; at all
/// other times the call costs one load of a thread-local. The first note of a poll is kept: the innermost layer knows the
/// most specific cause.
#[inline]
pub(crate) fn record_awaited(rejection: impl FnOnce() -> Rejected) {
    if ENDING.get() {
        keep_first(rejection());
    }
}

/// Whether a limit that has run out is polling for the last time: a layer that waits and has a result returns it now.
#[inline]
pub(crate) fn is_last_poll() -> bool {
    ENDING.get()
}

/// The last poll of what a limit that has run out limits: collects the note of that poll until it is dropped.
struct LastPoll {
    /// Whether a limit further out is ending a wait, too, and the note that it has.
    outer: (bool, Option<Rejected>),
}

impl LastPoll {
    fn begin() -> Self {
        Self { outer: (ENDING.replace(true), exchange(None)) }
    }

    /// Ends the poll, and returns the rejection of what is waited for; `None` if no layer below recorded one.
    fn awaited(self) -> Option<Rejected> {
        exchange(None)
    }
}

impl Drop for LastPoll {
    fn drop(&mut self) {
        let (ending, note) = (self.outer.0, self.outer.1.take());
        ENDING.set(ending);
        exchange(note);
    }
}

/// Polls for the last time what a limit that has run out limits.
///
/// Returns the result if it is ready after all. Otherwise returns the rejection of what it waits for, or `None` if no layer
/// below recorded one.
#[cold]
pub(crate) fn poll_awaited<R>(poll: impl FnOnce() -> Poll<R>) -> Result<R, Option<Rejected>> {
    let last = LastPoll::begin();
    match poll() {
        Poll::Ready(result) => Ok(result),
        Poll::Pending => Err(last.awaited()),
    }
}

#[cold]
fn keep_first(rejection: Rejected) {
    let first = exchange(None).unwrap_or(rejection);
    exchange(Some(first));
}

fn exchange(note: Option<Rejected>) -> Option<Rejected> {
    ManuallyDrop::into_inner(NOTE.replace(ManuallyDrop::new(note)))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;

    fn limited(seconds: u64) -> Rejected {
        Rejected::Limited { retry_after: Some(Duration::from_secs(seconds)) }
    }

    fn wait(seconds: u64) -> Poll<()> {
        record_awaited(|| limited(seconds));
        Poll::Pending
    }

    #[test]
    fn a_limit_gets_the_first_note_of_its_last_poll() {
        assert_eq!(poll_awaited(|| wait(1)), Err(Some(limited(1))));
        let both = || {
            let _ = wait(1);
            wait(2)
        };
        assert_eq!(poll_awaited(both), Err(Some(limited(1))));
        assert_eq!(poll_awaited(|| Poll::<()>::Pending), Err(None), "the note does not stick");
        let _ = wait(1);
        assert_eq!(poll_awaited(|| Poll::<()>::Pending), Err(None), "an ordinary poll takes no note");
        record_awaited(|| unreachable!("no limit ends a wait"));
    }

    #[test]
    fn a_result_that_is_ready_after_all_wins_and_its_note_is_dropped() {
        let ready = || {
            let _ = wait(1);
            Poll::Ready(7)
        };
        assert_eq!(poll_awaited(ready), Ok(7));
        assert_eq!(poll_awaited(|| Poll::<()>::Pending), Err(None));
    }

    #[test]
    fn an_inner_limit_keeps_its_notes_apart_on_unwinding_too() {
        let outer = poll_awaited(|| {
            assert_eq!(poll_awaited(|| wait(1)), Err(Some(limited(1))));
            let panicking = || {
                poll_awaited(|| -> Poll<()> {
                    let _ = wait(2);
                    panic!("inside")
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
            wait(3)
        });
        assert_eq!(outer, Err(Some(limited(3))));
        let before = poll_awaited(|| {
            let _ = wait(1);
            assert_eq!(poll_awaited(|| Poll::<()>::Pending), Err(None), "the outer note is not the inner limit's");
            Poll::<()>::Pending
        });
        assert_eq!(before, Err(Some(limited(1))));
    }
}
