//! [`Waiter`]: the shell around the place of one call in the queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Sleep, sleep_until};

use super::breaker::now;
use super::handle::CircuitBreakerHandle;
use super::permit::Permit;
use super::shared::{Look, Place, Vain};
use crate::context;
use crate::error::CircuitOpen;

/// A call that waits until the circuit admits it. Dropped, it gives its place, or its turn, to the next one.
#[derive(Debug)]
pub(crate) struct Waiter {
    handle: CircuitBreakerHandle,
    place: Place,
    /// The deadline that was taken into account.
    deadline: Option<tokio::time::Instant>,
    /// What polled it last, if it waits.
    task: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How a wait ended; the order is that of [`WAIT_ENDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    Admitted,
    TimedOut,
    Rejected,
    Abandoned,
    /// There was no room to wait.
    QueueFull,
}

pub(super) const WAIT_ENDS: [&str; 5] = ["admitted", "timed_out", "rejected", "abandoned", "queue_full"];

// === impl Waiter ===

impl Waiter {
    pub(crate) fn new(handle: CircuitBreakerHandle) -> Self {
        Self { handle, place: Place::default(), deadline: None, task: None, timer: None }
    }

    /// Ready once it has a turn, and with the rejection if it waits in vain. It goes on being ready until the turn lapses.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CircuitOpen>> {
        // Each poll makes its timer. That of the last one may belong to a runtime that is gone, and would panic.
        self.timer = None;
        self.begin(cx.waker());
        loop {
            let looks = match self.look(cx.waker()) {
                Look::Go => {
                    self.ended(WaitEnd::Admitted);
                    return Poll::Ready(Ok(()));
                }
                Look::Rejected(refusal, why) => {
                    match why {
                        Vain::TimeOver => self.ended(WaitEnd::TimedOut),
                        Vain::NoQueue => self.ended(WaitEnd::Rejected),
                        Vain::QueueFull => self.handle.breaker().wait_ended(WaitEnd::QueueFull),
                    }
                    return Poll::Ready(Err(self.handle.breaker().open(refusal)));
                }
                Look::Wait(looks) => looks,
            };
            if self.task.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
                self.task = Some(cx.waker().clone());
            }
            let Some(looks) = looks else { return self.pending() };
            let mut timer = Box::pin(sleep_until(looks.into()));
            if timer.as_mut().poll(cx).is_pending() {
                self.timer = Some(timer);
                return self.pending();
            }
        }
    }

    /// It waits on. A limit that ends the wait at this moment rejects the call for the circuit's sake, not for its own.
    fn pending<R>(&self) -> Poll<R> {
        let breaker = self.handle.breaker();
        context::record_awaited(|| breaker.open(breaker.shared.refuse(now)).into());
        Poll::Pending
    }

    fn look(&mut self, waker: &Waker) -> Look {
        let breaker = self.handle.breaker();
        let (look, change) = breaker.shared.look(&mut self.place, waker.clone(), now());
        breaker.tell(change);
        look
    }

    /// Takes the time for a caller that begins to wait. A service whose caller has left while it waited may be polled by
    /// another: that one has its own time.
    fn begin(&mut self, waker: &Waker) {
        let deadline = context::deadline();
        let is_another = || {
            self.deadline != deadline
                || self.task.as_ref().is_some_and(|task| !task.will_wake(waker))
                    && self.place.until().is_some_and(|until| until < now())
        };
        if (!self.place.is_entered() || is_another())
            && let Some(max) = self.handle.breaker().shared.longest_wait()
        {
            self.deadline = deadline;
            self.place.begin(max, deadline.map(tokio::time::Instant::into_std), now());
        }
    }

    /// Admits the call, if its turn has not lapsed or the circuit has room for it all the same.
    pub(crate) fn acquire(&mut self) -> Result<Permit, CircuitOpen> {
        self.handle.acquire_in_turn(&mut self.place)
    }

    /// Waits for a permit. A turn that is void before it could be used (a probe has just failed) sends it back to its place.
    pub(super) fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit, CircuitOpen>> {
        if let Err(open) = ready!(self.poll(cx)) {
            return Poll::Ready(Err(self.handle.breaker().rejected(open)));
        }
        if let Some(permit) = self.handle.acquire_waited(&mut self.place) {
            return Poll::Ready(Ok(permit));
        }
        if let Err(open) = ready!(self.poll(cx)) {
            return Poll::Ready(Err(self.handle.breaker().rejected(open)));
        }
        Poll::Ready(self.acquire())
    }

    /// The circuit is closed, and the call was made without asking for a turn.
    pub(super) fn called(mut self) {
        self.ended(WaitEnd::Admitted);
    }

    /// Counts the end of a wait, if it waited.
    fn ended(&mut self, end: WaitEnd) {
        if self.task.take().is_some() {
            self.handle.breaker().wait_ended(end);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.ended(WaitEnd::Abandoned);
        if self.place.is_entered() {
            self.handle.breaker().shared.leave(&mut self.place, now());
        }
    }
}
