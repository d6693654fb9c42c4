//! [`Gate`]: the wait of a service in gate mode.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::breaker::{Breaker, now};
use super::shared::Admits;
use super::watchers::Watcher;

/// One service that waits for its breaker to admit a call. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Gate {
    watcher: Watcher,
    /// Armed while the refusal has an end that is known.
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(breaker: &Breaker) -> Self {
        Self { watcher: Watcher::new(breaker.watchers().clone()), timer: None }
    }

    /// Ready once the next call may be admitted. That takes no slot: it may be gone when the call comes.
    pub(super) fn poll(&mut self, breaker: &Breaker, cx: &mut Context<'_>) -> Poll<()> {
        // Before the first look: what changes after it wakes.
        self.watcher.watch(cx.waker());
        loop {
            let now = now();
            let Admits::Nothing { retry_after } = breaker.shared.admits(|| now) else { return Poll::Ready(()) };
            // A time beyond the end of time is none.
            let Some(until) = retry_after.and_then(|wait| Instant::from_std(now).checked_add(wait)) else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Spent. The time is over now, unless another slot was taken or another wait was set meanwhile.
            self.timer = None;
        }
    }
}
