//! [`FollowHealth`]: what active probes say, from a monitor.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::oneshot;

use super::endpoint::Key;
use super::registry::Registry;
use crate::health::{HealthChange, Subscription};
use crate::health_status::HealthStatus;

/// Lets a pool follow the health that a [`Monitor`](crate::health::Monitor) publishes; made by
/// [`PoolHandle::follow_health`](super::PoolHandle::follow_health).
///
/// A future and not a task, so that its owner decides where it runs. Targets and endpoints belong together by key, whichever
/// came first: an endpoint that is added (or replaced) later takes up what its target's checks have shown so far. When checks
/// pass again that had failed, the endpoint begins anew, as by [`PoolHandle::reset`](super::PoolHandle::reset): no ejection, load
/// or open circuit is left of the time in which it was down (Envoy, too, takes an ejection back then).
///
/// It ends when the monitor is gone (all endpoints then read [`Unknown`](HealthStatus::Unknown)), or when the last
/// [`Pool`](super::Pool) and [`PoolHandle`](super::PoolHandle) is.
///
/// # Cancel safety
///
/// Dropped, it stops following, and what it had told becomes [`Unknown`](HealthStatus::Unknown): a view that nobody keeps up
/// must not freeze.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mainstay::HealthStatus;
/// use mainstay::balance::Pool;
/// use mainstay::health::Monitor;
///
/// let monitor = Monitor::builder("app").build()?;
/// monitor.add("a", || async { Err::<(), _>(std::io::Error::other("down")) });
/// let pool: Pool<&str, ()> = Pool::builder("app").build()?;
/// pool.handle().add("a", ());
/// tokio::spawn(pool.handle().follow_health(monitor.subscribe()));
///
/// monitor.start()?;
/// while pool.handle().endpoints()[0].health != HealthStatus::Unhealthy {
///     tokio::task::yield_now().await;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct FollowHealth<K: Key, S> {
    changes: Pin<Box<dyn Stream<Item = HealthChange<K>> + Send>>,
    registry: Weak<Registry<K, S>>,
    alive: oneshot::Receiver<()>,
    /// What was told and has to be taken back.
    told: HashSet<K>,
}

// === impl FollowHealth ===

impl<K: Key + fmt::Debug, S> FollowHealth<K, S> {
    pub(super) fn new(registry: &Arc<Registry<K, S>>, changes: Subscription<K>) -> Self {
        let (sender, alive) = oneshot::channel();
        registry.add_follower(sender);
        let changes = Box::pin(changes.into_stream());
        Self { changes, registry: Arc::downgrade(registry), alive, told: HashSet::new() }
    }
}

/// Nothing in it is pinned in place: the stream is in a box of its own.
impl<K: Key, S> Unpin for FollowHealth<K, S> {}

impl<K: Key, S> Future for FollowHealth<K, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let change = this.changes.as_mut().poll_next(cx);
            let Some(registry) = this.registry.upgrade() else { return Poll::Ready(()) };
            match change {
                Poll::Ready(Some(HealthChange { key, status })) => {
                    if status == HealthStatus::Unknown {
                        this.told.remove(&key);
                    } else {
                        this.told.insert(key.clone());
                    }
                    registry.follow_health(key, status);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        // The other end is never used, only dropped.
        Pin::new(&mut this.alive).poll(cx).map(drop)
    }
}

impl<K: Key, S> Drop for FollowHealth<K, S> {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            for key in self.told.drain() {
                registry.follow_health(key, HealthStatus::Unknown);
            }
        }
    }
}

impl<K: Key, S> fmt::Debug for FollowHealth<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowHealth").field("told", &self.told.len()).finish_non_exhaustive()
    }
}
