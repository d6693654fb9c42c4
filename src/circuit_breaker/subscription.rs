//! [`Subscription`]: a breaker's state as it changes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::transition::Transition;
use super::watchers::{Watcher, Watchers};
use crate::circuit_state::CircuitState;

/// Yields a breaker's state at once, and from then on each new one; made by
/// [`CircuitBreakerHandle::subscribe`](super::CircuitBreakerHandle::subscribe).
///
/// It is a view, not a queue: whoever reads slowly misses what was in between, never the latest, and slows nobody down. Going to
/// the state that holds already is no change. Two changes that lead back to the state that was read last are told as one: the
/// circuit opened *again*, and says so by its [`transition`](StateChange::transition).
///
/// It keeps no breaker alive, and ends when the last handle, layer, service and permit of the breaker is gone.
///
/// # Cancel safety
///
/// Dropping it, or a future of it, loses nothing.
///
/// # Examples
///
/// ```
/// use mainstay::{CircuitBreakerHandle, CircuitState};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::builder("db").build_handle()?;
/// let mut states = breaker.subscribe();
/// assert_eq!(states.changed().await.map(|change| change.state), Some(CircuitState::Closed));
///
/// breaker.force_open();
/// let change = states.changed().await.expect("the breaker is there");
/// assert_eq!(change.state, CircuitState::ForcedOpen);
/// assert_eq!(change.transition.map(|it| it.from), Some(CircuitState::Closed));
///
/// drop(breaker);
/// assert_eq!(states.changed().await, None);
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    watcher: Watcher,
    /// The version that was told last; zero before the first.
    told: u64,
}

/// A breaker's new state.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::StateChange;
///
/// fn log(change: &StateChange) {
///     match &change.transition {
///         Some(it) => println!("{}: {}, {} of {} failed", change.state, it.reason.as_str(), it.failures, it.calls),
///         None => println!("{}", change.state),
///     }
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StateChange {
    /// The state now.
    pub state: CircuitState,
    /// What led to it: why, by which counts, and what caused it. `None` when that was before the first subscription to this
    /// breaker, or when it has been in that state since it was built.
    pub transition: Option<Transition>,
}

// === impl Subscription ===

impl Subscription {
    pub(super) fn new(watchers: &Arc<Watchers>) -> Self {
        Self { watcher: Watcher::new(watchers.clone()), told: 0 }
    }

    /// Waits for a state that was not told yet, the first time for none; `None` once the breaker is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = mainstay::CircuitBreakerHandle::builder("db").build_handle()?;
    /// let mut states = breaker.subscribe();
    /// assert!(states.changed().await.is_some(), "the state as it is");
    /// breaker.disable();
    /// assert!(states.changed().await.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn changed(&mut self) -> Option<StateChange> {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// The same if there is something to tell already; never waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let breaker = mainstay::CircuitBreakerHandle::builder("db").build_handle()?;
    /// let mut states = breaker.subscribe();
    /// assert!(states.try_changed().is_some(), "the state as it is");
    /// assert_eq!(states.try_changed(), None);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn try_changed(&mut self) -> Option<StateChange> {
        let latest = self.watcher.latest();
        if latest.version <= self.told {
            return None;
        }
        self.told = latest.version;
        Some(StateChange { state: latest.state, transition: latest.transition })
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Option<StateChange>> {
        self.watcher.watch(cx.waker());
        // Asked before what is left to tell: nothing comes after it.
        let gone = self.watcher.latest().gone;
        match self.try_changed() {
            None if !gone => Poll::Pending,
            change => Poll::Ready(change),
        }
    }
}

/// As [`changed`](Subscription::changed).
impl Stream for Subscription {
    type Item = StateChange;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StateChange>> {
        self.get_mut().poll_changed(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("latest", &self.watcher.latest().state).finish_non_exhaustive()
    }
}
