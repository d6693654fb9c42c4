//! [`Opening`]: what a wait of one's own is worked out from.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::transition::TransitionReason;
use super::trip::TripStatistics;
use crate::outcome::Outcome;

/// A circuit that is about to open, as
/// [`CircuitBreakerBuilder::open_time_with`](super::CircuitBreakerBuilder::open_time_with) sees it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::circuit_breaker::{CircuitBreakerHandle, Opening};
/// use mainstay::Outcome;
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// // What is broken for good is left alone for longer.
/// let breaker = CircuitBreakerHandle::builder("db")
///     .consecutive_failures(1)
///     .open_time_with(|opening: &Opening| match opening.cause {
///         Some(Outcome::Permanent) => 10 * opening.wait,
///         _ => opening.wait,
///     })
///     .build_handle()?;
/// breaker.try_acquire().expect("a closed circuit admits").record(Outcome::Permanent);
/// let refusal = breaker.try_acquire().unwrap_err();
/// assert!(refusal.retry_after() > Some(Duration::from_secs(45)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Opening {
    /// Openings since the circuit was last closed, this one among them: from 1.
    pub consecutive_opens: u32,
    /// Why it opens.
    pub reason: TransitionReason,
    /// The outcome of the call that opens it; `None` when an operator does, or it is built open.
    pub cause: Option<Outcome>,
    /// What it was decided on: the window, or the probes of a half-open circuit.
    pub seen: TripStatistics,
    /// The wait that [`open_time`](super::CircuitBreakerConfig::open_time) gives, with its jitter.
    pub wait: Duration,
}

/// A wait that was given as a function, kept from unwinding through the lock.
#[derive(Clone)]
pub(super) struct OwnOpenTime(Arc<dyn Fn(&Opening) -> Duration + Send + Sync>);

// === impl OwnOpenTime ===

impl OwnOpenTime {
    pub(super) fn new(wait: impl Fn(&Opening) -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(wait))
    }

    pub(super) fn wait(&self, opening: &Opening) -> Duration {
        // The circuit opens whatever becomes of this; the panic hook has told the operator.
        catch_unwind(AssertUnwindSafe(|| self.0(opening))).unwrap_or(opening.wait)
    }
}

impl fmt::Debug for OwnOpenTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnOpenTime")
    }
}
