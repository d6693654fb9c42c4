//! [`TimeLimits`]: how long a call, and its first attempt, may take. [`WaitLimit`]: how long a later attempt is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::GiveUpReason;
use super::handle::Core;
use crate::timer::Cutoff;

/// The limit of a call whose deadline had passed before it was made. No other is by a deadline and has no time.
pub(super) const REFUSED: Cutoff = Cutoff { at: None, by_deadline: true };

/// What limits a call in time from its start on.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    pub(super) over_at: Option<Instant>,
    /// Of the first attempt.
    pub(super) cutoff: Option<Cutoff>,
}

/// When a wait for the next attempt ends, and why the call gives up then.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitLimit {
    pub(super) at: Instant,
    pub(super) reason: GiveUpReason,
}

// === impl WaitLimit ===

impl WaitLimit {
    /// The nearest of the three; of two at the same time the first.
    pub(super) fn nearest(
        ready_until: Option<Instant>,
        deadline: Option<Instant>,
        over_at: Option<Instant>,
    ) -> Option<Self> {
        let limits = [
            (ready_until, GiveUpReason::NotReady),
            (deadline, GiveUpReason::Deadline),
            (over_at, GiveUpReason::Elapsed),
        ];
        let limits = limits.into_iter().filter_map(|(at, reason)| Some(Self { at: at?, reason }));
        limits.min_by_key(|limit| limit.at)
    }
}

// === impl TimeLimits ===

impl TimeLimits {
    /// Puts those of a call that is made now into `limits`, if it has any; `deadline` is the caller's.
    #[inline(never)]
    pub(super) fn find(core: &Core, deadline: Option<Instant>, limits: &mut Option<Self>) {
        if deadline.is_none() && !core.is_timed() {
            return;
        }
        // Read here and not in the future: time starts at the call.
        let started = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= started) {
            *limits = Some(Self::refuse(core));
            return;
        }
        let config = core.config();
        let over_at = config.max_elapsed.and_then(|longest| started.checked_add(longest));
        let cutoff = config.attempt_timeout.map(|timeout| Cutoff::new(started, timeout, deadline));
        *limits = Some(Self { over_at, cutoff });
    }

    /// Those of a call whose deadline has passed. It is counted as an end of the call.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(core: &Core) -> Self {
        core.record_return(REFUSED.rejected(Duration::ZERO, false).outcome());
        Self { over_at: None, cutoff: Some(REFUSED) }
    }

    /// The call must not be made.
    pub(super) fn are_passed(&self) -> bool {
        self.cutoff == Some(REFUSED)
    }
}
