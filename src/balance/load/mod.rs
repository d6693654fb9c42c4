//! What an endpoint is expected to cost: the number that two random choices compare.
//!
//! | what a call ended in | [`PeakEwma`](super::Picker::PeakEwma) | [`InFlight`](super::Picker::InFlight) |
//! |---|---|---|
//! | an answer (`Success`, `Refused`) | a sample of the latency | - |
//! | a failure, or "too much" (`Transient`, `NotSent`, `Permanent`, `Throttled`) | a sample of at least twice the estimate and the default | one phantom call |
//! | the caller left | its time is a lower bound | one phantom call |
//! | `DependencyFailed`, `Ignored` | its time is a lower bound | - |
//!
//! Why failures cost: an endpoint that fails fast has a short queue and a splendid latency, and would attract everything.
//! Why leaving costs: an endpoint that swallows calls, and whose callers give up, would look idle.

pub(crate) mod in_flight;
pub(crate) mod peak_ewma;

use std::time::Instant;

use crate::outcome::Outcome;

/// What a call that ended says about load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It did its work in this time.
    Answered,
    /// It did not, and must not look quick for it.
    Failed,
    /// Nobody waited for the end.
    Abandoned,
    /// It took at least this time, and says no more.
    Inconclusive,
}

// === impl Evidence ===

impl From<Outcome> for Evidence {
    #[inline]
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success | Outcome::Refused => Self::Answered,
            Outcome::Transient | Outcome::NotSent | Outcome::Permanent | Outcome::Throttled { .. } => Self::Failed,
            Outcome::DependencyFailed | Outcome::Ignored => Self::Inconclusive,
        }
    }
}

/// Nanoseconds from `earlier` to `later`; after 584 years it stops counting.
#[inline]
pub(crate) fn nanoseconds(earlier: Instant, later: Instant) -> u64 {
    let elapsed = later.saturating_duration_since(earlier);
    elapsed.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(elapsed.subsec_nanos()))
}
