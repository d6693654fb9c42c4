//! One clock for all processes of a run: the machine's monotonic clock, which no adjustment of the time of day moves.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A moment, in microseconds since some moment before the run; comparable between the processes of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Moment(pub(crate) u64);

/// Turns this process's instants into moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    instant: Instant,
    moment: Moment,
}

// === impl Moment ===

impl Moment {
    pub(crate) fn now() -> Self {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every Unix has this clock");
        Self(micros(Duration::from(now)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(micros(time)))
    }

    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(micros(time)))
    }
}

// === impl Clock ===

impl Clock {
    pub(crate) fn start() -> Self {
        Self { instant: Instant::now(), moment: Moment::now() }
    }

    pub(crate) fn moment(&self, instant: Instant) -> Moment {
        self.moment.after(instant.saturating_duration_since(self.instant))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
