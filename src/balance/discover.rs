//! [`Follow`]: endpoints from a stream of changes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::oneshot;
use tower::discover::{Change, Discover};

use super::endpoint::Key;
use super::registry::{Membership, Registry};
use crate::cores::unwind::on_unwind;

pin_project! {
    /// Drives a pool by a stream of [`tower::discover::Change`]; made by [`PoolHandle::follow`](super::PoolHandle::follow).
    ///
    /// A future and not a task, so that its owner decides where it runs: spawn it, or join it with something else. It ends
    ///
    /// * with `Ok` when the stream ends, or when the last [`Pool`](super::Pool) and [`PoolHandle`](super::PoolHandle) is gone;
    /// * with the stream's error. The endpoints stay as they are; follow a new stream to go on.
    ///
    /// `Insert` of a key that is in the pool replaces its service and nothing else: what was learned about the endpoint and what
    /// the operator said stays until `Remove`. Changes that are ready together are applied together. A
    /// panic in the stream unwinds to whoever polls.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it stops following; the endpoints stay. Changes that it had taken from the stream are applied.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
    /// use mainstay::balance::Pool;
    /// use tower::discover::Change;
    ///
    /// let pool: Pool<u16, ()> = Pool::builder("app").build()?;
    /// let changes = tokio_stream::iter([
    ///     Ok::<_, std::io::Error>(Change::Insert(8001, ())),
    ///     Ok(Change::Insert(8002, ())),
    ///     Ok(Change::Remove(8001)),
    /// ]);
    /// let following = tokio::spawn(pool.handle().follow(changes));
    /// following.await??;
    /// assert_eq!(pool.handle().endpoints()[0].key, 8002);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct Follow<D>
    where
        D: Discover,
    {
        #[pin]
        discover: D,
        registry: Weak<Registry<D::Key, D::Service>>,
        alive: oneshot::Receiver<()>,
    }
}

/// How many changes are applied at once.
const BATCH: usize = 1024;

// === impl Follow ===

impl<D> Follow<D>
where
    D: Discover,
    D::Key: Key,
{
    pub(super) fn new(registry: &Arc<Registry<D::Key, D::Service>>, discover: D) -> Self {
        let (sender, alive) = oneshot::channel();
        registry.add_follower(sender);
        Self { discover, registry: Arc::downgrade(registry), alive }
    }
}

impl<D> Future for Follow<D>
where
    D: Discover,
    D::Key: Key,
{
    type Output = Result<(), D::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut changes = Vec::new();
        let end = loop {
            if changes.len() == BATCH {
                // The pool learns of these first, and others may run.
                cx.waker().wake_by_ref();
                break Poll::Pending;
            }
            let registry = &*this.registry;
            // The stream is the user's: what it told before it panicked holds.
            let told = || {
                if let Some(registry) = registry.upgrade() {
                    registry.apply(std::mem::take(&mut changes));
                }
            };
            match on_unwind(told, || this.discover.as_mut().poll_discover(cx)) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(None) => break Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok(Change::Insert(key, service)))) => {
                    changes.push(Membership::Insert { key, service, weight: None });
                }
                Poll::Ready(Some(Ok(Change::Remove(key)))) => changes.push(Membership::Remove(key)),
            }
        };
        let Some(registry) = this.registry.upgrade() else { return Poll::Ready(Ok(())) };
        if !changes.is_empty() {
            registry.apply(changes);
        }
        drop(registry);
        // The other end is never used, only dropped.
        if end.is_pending() && Pin::new(this.alive).poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        end
    }
}

impl<D: Discover> fmt::Debug for Follow<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("pool_is_gone", &(self.registry.strong_count() == 0)).finish_non_exhaustive()
    }
}
