//! Whether the caller's own deadline explains that a callee ran out of time.

use std::time::Duration;

use tokio::time::Instant;

/// A callee that answers "out of time" with no more than this left until the caller's deadline ran out of the caller's time. What is
/// propagated is rounded down to whole milliseconds, timers are as coarse, and the answer itself takes time on the wire.
const SLACK: Duration = Duration::from_millis(10);

/// Whether the ambient deadline has passed or is at most [`SLACK`] away.
#[cold]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn deadline_is_spent() -> bool {
    super::deadline().is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) <= SLACK)
}
