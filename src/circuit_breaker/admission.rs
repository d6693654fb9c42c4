//! [`AdmissionMode`]: what a call gets while the circuit rejects calls.

use std::time::Duration;

use crate::error::InvalidConfig;

/// What happens to a call while the breaker does not admit it: it is rejected, or it waits.
///
/// It concerns the services of the breaker and [`call`](super::CircuitBreakerHandle::call) of its handle.
/// [`try_acquire`](super::CircuitBreakerHandle::try_acquire) never waits, and does not go before calls that do.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::CircuitBreakerLayer;
/// use mainstay::circuit_breaker::AdmissionMode;
///
/// let wait = AdmissionMode::Wait { max: Duration::from_millis(500), queue: 100 };
/// let layer = CircuitBreakerLayer::builder("db").admission(wait).build()?;
/// assert_eq!(layer.handle().config().admission, wait);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum AdmissionMode {
    /// The call is rejected at once, without waiting for anything.
    #[default]
    Reject,
    /// The call waits in a queue, first in, first out, until the circuit admits it. It stays there through failed probes and
    /// re-opened circuits. When `max` or the deadline of its [context](crate::context) is over it is rejected, with the
    /// circuit as the reason.
    ///
    /// For short outages that are worth waiting for, such as a database that restarts. A call that finds the queue full is
    /// rejected at once, and so is every call while an operator has forced the circuit open.
    Wait {
        /// The longest time that a call waits. Above zero. Choose it longer than
        /// [`open_time`](super::CircuitBreakerConfig::open_time), or no call will see a probe.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        max: Duration,
        /// How many calls wait at the same time. From 1 to 65 536. They all call when the circuit closes.
        queue: u32,
    },
}

/// The longest queue.
const MAX_QUEUE: u32 = 65_536;

// === impl AdmissionMode ===

impl AdmissionMode {
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        let Self::Wait { max, queue } = *self else { return Ok(()) };
        if max.is_zero() {
            return Err(InvalidConfig::new("max", max, "must be above zero"));
        }
        if !(1..=MAX_QUEUE).contains(&queue) {
            return Err(InvalidConfig::new("queue", queue, format!("must be from 1 to {MAX_QUEUE}")));
        }
        Ok(())
    }
}
