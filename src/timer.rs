//! [`Timer`] and [`Cutoff`]: how layers give a call a limited time.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::Rejected;

/// A timer that fires this much after its deadline did so because the process was stopped or starved. Far above tokio's
/// resolution of 1 ms, far below what an operator would call a pause.
const LATE: Duration = Duration::from_millis(10);

/// The point in time at which a call is cut off, and whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) struct Cutoff {
    /// `None` is so far off that it cannot be said.
    pub(crate) at: Option<Instant>,
    /// The caller's deadline came before the end of the configured timeout.
    pub(crate) by_deadline: bool,
}

pin_project! {
    /// A timer that is not armed before it is first polled.
    #[derive(Debug)]
    pub(crate) struct Timer {
        #[pin]
        sleep: Option<Sleep>,
        yielded: bool,
    }
}

// === impl Cutoff ===

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl Cutoff {
    /// `timeout` from `started` on, or the caller's `deadline` if that comes first.
    #[inline]
    pub(crate) fn new(started: Instant, timeout: Duration, deadline: Option<Instant>) -> Self {
        let own = started.checked_add(timeout);
        match (own, deadline) {
            (Some(own), Some(deadline)) if deadline < own => Self { at: Some(deadline), by_deadline: true },
            (None, Some(deadline)) => Self { at: Some(deadline), by_deadline: true },
            (own, _) => Self { at: own, by_deadline: false },
        }
    }

    #[cfg(feature = "timeout")]
    pub(crate) fn has_passed(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// Whether the configured timeout, and not the caller's deadline, was the limit, and has passed.
    #[cfg(feature = "timeout")]
    #[cold]
    pub(crate) fn is_own_and_over(&self) -> bool {
        !self.by_deadline && self.has_passed(Instant::now())
    }

    /// What a call that was cut off here gets; `timeout` is the one configured.
    pub(crate) const fn rejected(&self, timeout: Duration, sent: bool) -> Rejected {
        if self.by_deadline { Rejected::DeadlineExceeded { sent } } else { Rejected::Timeout { timeout, sent } }
    }
}

// === impl Timer ===

impl Timer {
    pub(crate) const fn new() -> Self {
        Self { sleep: None, yielded: false }
    }

    /// Whether something has waited for it since it was made or disarmed.
    #[cfg(feature = "timeout")]
    pub(crate) const fn is_armed(&self) -> bool {
        self.sleep.is_some()
    }

    /// Ready once `at` has passed. The first poll arms it; [`disarm`](Self::disarm) before waiting for another time.
    ///
    /// Does not ask for, or spend, tokio's cooperative budget: an inner future that spends all of it at each poll would
    /// else keep the timer from ever being seen.
    #[inline]
    pub(crate) fn poll_at(self: Pin<&mut Self>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(at)));
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) => Pin::new(&mut tokio::task::unconstrained(sleep)).poll(cx),
            None => Poll::Ready(()),
        }
    }

    /// The same for a time that counts against somebody else: when it is noticed late, it yields once, so that an answer
    /// which has long been waiting in a socket is read first.
    #[inline]
    pub(crate) fn poll_against(mut self: Pin<&mut Self>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.as_mut().poll_at(at, cx));
        let this = self.project();
        if !*this.yielded && Instant::now().saturating_duration_since(at) > LATE {
            *this.yielded = true;
            // Its one poll has the task woken after I/O was driven; there is nothing to be kept of it.
            if pin!(tokio::task::yield_now()).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Whether a wait until `at` that is noticed only `now` had nobody polling it when it ended.
    #[cfg(feature = "timeout")]
    pub(crate) fn is_late(at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) > LATE
    }

    #[cfg(feature = "retry")]
    #[inline]
    pub(crate) fn disarm(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.sleep.set(None);
        *this.yielded = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_nearer_of_timeout_and_deadline_cuts_and_a_tie_is_the_timeouts() {
        let now = Instant::now();
        let by = |deadline| Cutoff::new(now, SECOND, deadline);
        assert_eq!(by(None), Cutoff { at: Some(now + SECOND), by_deadline: false });
        assert_eq!(by(Some(now + 2 * SECOND)), by(None));
        assert_eq!(by(Some(now + SECOND)), by(None));
        assert_eq!(by(Some(now + SECOND / 2)), Cutoff { at: Some(now + SECOND / 2), by_deadline: true });
    }

    #[test]
    fn a_timeout_beyond_the_end_of_time_is_none() {
        let now = Instant::now();
        assert_eq!(Cutoff::new(now, Duration::MAX, None), Cutoff { at: None, by_deadline: false });
        assert_eq!(Cutoff::new(now, Duration::MAX, Some(now)), Cutoff { at: Some(now), by_deadline: true });
    }
}
