//! [`FollowHealth`]: an open circuit is tried early when active checks pass again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;

use super::breaker::Breaker;
use super::watchers::Watcher;
use crate::health::{HealthChange, Key, Subscription};
use crate::health_status::HealthStatus;

/// Makes an open circuit half-open when the checks of a target pass again; made by
/// [`CircuitBreakerHandle::follow_health`](super::CircuitBreakerHandle::follow_health).
///
/// What counts is that a [`Monitor`](crate::health::Monitor) finds the target healthy *anew*: it was unhealthy or unknown before. A
/// target whose checks go on passing while the calls to it fail shortens nothing, since such checks say nothing about the
/// calls; nor does one whose checks fail. A passing check never closes a circuit, the calls that are then let through as probes
/// decide, and it never touches a circuit that was forced open, disabled or made to observe.
///
/// A future and not a task, so that its owner decides where it runs. It keeps neither alive, and ends when the monitor or the
/// breaker is gone.
///
/// # Panics
///
/// When it is polled after it has completed.
///
/// # Cancel safety
///
/// Dropped, it stops following; the circuit stays open for its time again.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// use std::time::Duration;
/// use mainstay::circuit_breaker::TransitionReason;
/// use mainstay::health::Monitor;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let up = Arc::new(AtomicBool::new(false));
/// let monitor = Monitor::builder("upstreams").build()?;
/// let checked = up.clone();
/// monitor.add("db", move || {
///     let up = checked.load(Relaxed);
///     async move { if up { Ok(()) } else { Err(std::io::Error::other("down")) } }
/// });
/// monitor.start()?;
///
/// let breaker = mainstay::CircuitBreakerHandle::builder("db").build_handle()?;
/// tokio::spawn(breaker.follow_health(monitor.subscribe(), "db"));
/// breaker.open_for(Duration::from_secs(3600))?;
/// let mut states = breaker.subscribe();
/// states.changed().await;
///
/// up.store(true, Relaxed);
/// let change = states.changed().await.expect("the breaker is there");
/// assert_eq!(change.transition.map(|it| it.reason), Some(TransitionReason::HealthCheckPassed));
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct FollowHealth<K> {
    changes: Pin<Box<dyn Stream<Item = HealthChange<K>> + Send + Sync>>,
    key: K,
    breaker: Weak<Breaker>,
    /// Wakes when the breaker is gone.
    watcher: Watcher,
    has_ended: bool,
}

// === impl FollowHealth ===

impl<K: Key> FollowHealth<K> {
    pub(super) fn new(breaker: &Arc<Breaker>, mut changes: Subscription<K>, key: K) -> Self {
        // What is known by now is no news.
        while changes.try_changed().is_some() {}
        Self {
            changes: Box::pin(changes.into_stream()),
            key,
            breaker: Arc::downgrade(breaker),
            watcher: Watcher::new(breaker.watchers().clone()),
            has_ended: false,
        }
    }
}

/// Nothing in it is pinned in place: the stream is in a box of its own.
impl<K> Unpin for FollowHealth<K> {}

impl<K: Key> Future for FollowHealth<K> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        assert!(!this.has_ended, "`FollowHealth` polled after completion");
        // Before the breaker is looked for: its end wakes.
        this.watcher.watch(cx.waker());
        loop {
            let change = this.changes.as_mut().poll_next(cx);
            let Some(breaker) = this.breaker.upgrade() else {
                this.has_ended = true;
                return Poll::Ready(());
            };
            match change {
                Poll::Ready(Some(HealthChange { key, status })) => {
                    if status == HealthStatus::Healthy && key == this.key {
                        breaker.health_check_passed();
                    }
                }
                Poll::Ready(None) => {
                    this.has_ended = true;
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<K> fmt::Debug for FollowHealth<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowHealth").finish_non_exhaustive()
    }
}
