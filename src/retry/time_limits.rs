//! [`TimeLimits`]: how long a call, and its first attempt, may take. [`WaitLimit`]: how long a later attempt is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::GiveUpReason;
use super::handle::Core;
use crate::error::Rejected;
use crate::timer::Cutoff;

/// The limit of a call whose deadline had passed before it was made. Sentinel: no other limit is by a deadline and has no time.
pub(super) const REFUSED: AttemptLimit =
    AttemptLimit { cutoff: Cutoff { at: None, by_deadline: true }, timeout: Duration::ZERO };

/// What limits a call in time from its start on.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    pub(super) over_at: Option<Instant>,
    pub(super) first: Option<AttemptLimit>,
}

/// When an attempt is cut off, and the timeout by which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttemptLimit {
    pub(super) cutoff: Cutoff,
    timeout: Duration,
}

// === impl AttemptLimit ===

impl AttemptLimit {
    /// That of an attempt that starts now, if there is one.
    #[inline]
    pub(super) fn find(core: &Core, started: impl FnOnce() -> Instant, deadline: Option<Instant>) -> Option<Self> {
        let timeout = core.attempt_timeout()?;
        Some(Self { cutoff: Cutoff::new(started(), timeout, deadline), timeout })
    }

    /// What an attempt that was cut off here ends in.
    pub(super) const fn rejected(&self, sent: bool) -> Rejected {
        self.cutoff.rejected(self.timeout, sent)
    }
}

/// When a wait for the next attempt ends, and why the call gives up then.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitLimit {
    pub(super) at: Instant,
    pub(super) reason: GiveUpReason,
    /// How long readiness is waited for, where that is the reason.
    pub(super) timeout: Duration,
}

// === impl WaitLimit ===

impl WaitLimit {
    /// The nearest of the three; of two at the same time the first.
    pub(super) fn nearest(
        ready: Option<(Instant, Duration)>,
        deadline: Option<Instant>,
        over_at: Option<Instant>,
    ) -> Option<Self> {
        let limit = |at, reason, timeout| Self { at, reason, timeout };
        let limits = [
            ready.map(|(at, timeout)| limit(at, GiveUpReason::NotReady, timeout)),
            deadline.map(|at| limit(at, GiveUpReason::Deadline, Duration::ZERO)),
            over_at.map(|at| limit(at, GiveUpReason::Elapsed, Duration::ZERO)),
        ];
        limits.into_iter().flatten().min_by_key(|limit| limit.at)
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
        let over_at = core.max_elapsed().and_then(|longest| started.checked_add(longest));
        *limits = Some(Self { over_at, first: AttemptLimit::find(core, || started, deadline) });
    }

    /// Those of a call whose deadline has passed. It is counted as an end of the call.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(core: &Core) -> Self {
        core.record_return(REFUSED.rejected(false).outcome());
        Self { over_at: None, first: Some(REFUSED) }
    }

    /// The call must not be made.
    pub(super) fn are_passed(&self) -> bool {
        self.first == Some(REFUSED)
    }
}
