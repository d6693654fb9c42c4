//! [`FollowOpenTime`]: the end of the open time, without a call that asks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::breaker::{Breaker, now};
use super::shared::Admits;
use super::watchers::Watcher;
use crate::circuit_state::CircuitState;

/// Makes an open circuit half-open as soon as its time is over; made by
/// [`CircuitBreakerHandle::follow_open_time`](super::CircuitBreakerHandle::follow_open_time).
///
/// Without it the next call after that time does so, which is the same to calls. It matters to what looks at the state and makes no
/// calls: a gauge, a [subscription](super::CircuitBreakerHandle::subscribe), a page that shows which circuits are open.
///
/// A future and not a task, so that its owner decides where it runs. It holds one timer at most, while the circuit is open
/// and the end is known, and arms it anew at each opening; when the circuit leaves the open state in another way, the timer goes.
/// It keeps no breaker alive, and ends when the last handle, layer, service and permit of the breaker is gone. It is built
/// anywhere, and polled within a tokio runtime.
///
/// # Panics
///
/// When it is polled after it has completed.
///
/// # Cancel safety
///
/// Dropped, it stops following; the circuit becomes half-open by the next call again.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::CircuitState;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let breaker = mainstay::CircuitBreakerHandle::builder("db").build_handle()?;
/// tokio::spawn(breaker.follow_open_time());
///
/// breaker.open_for(Duration::from_secs(2))?;
/// let mut states = breaker.subscribe();
/// assert_eq!(states.changed().await.unwrap().state, CircuitState::Open);
/// // Nobody calls.
/// assert_eq!(states.changed().await.unwrap().state, CircuitState::HalfOpen);
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct FollowOpenTime {
    breaker: Weak<Breaker>,
    watcher: Watcher,
    timer: Option<Pin<Box<Sleep>>>,
    has_ended: bool,
}

// === impl FollowOpenTime ===

impl FollowOpenTime {
    pub(super) fn new(breaker: &Arc<Breaker>) -> Self {
        Self {
            breaker: Arc::downgrade(breaker),
            watcher: Watcher::new(breaker.watchers().clone()),
            timer: None,
            has_ended: false,
        }
    }
}

impl Future for FollowOpenTime {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        assert!(!this.has_ended, "`FollowOpenTime` polled after completion");
        // Before the first look: what changes after it wakes, the end of the breaker too.
        this.watcher.watch(cx.waker());
        let Some(breaker) = this.breaker.upgrade() else {
            this.has_ended = true;
            return Poll::Ready(());
        };
        loop {
            let now = now();
            let until = match (breaker.shared.state(), breaker.shared.admits(|| now)) {
                (CircuitState::Open, Admits::Nothing { retry_after: Some(wait) }) => {
                    // A time beyond the end of time is none.
                    Instant::from_std(now).checked_add(wait)
                }
                (CircuitState::Open, Admits::Probe) => {
                    breaker.open_time_over();
                    continue;
                }
                _ => None,
            };
            let Some(until) = until else {
                this.timer = None;
                return Poll::Pending;
            };
            // Made for each poll: that of the last one may belong to a runtime that is gone, and would panic.
            let timer = this.timer.insert(Box::pin(sleep_until(until)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.timer = None;
        }
    }
}

impl fmt::Debug for FollowOpenTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowOpenTime").field("waits", &self.timer.is_some()).finish_non_exhaustive()
    }
}
