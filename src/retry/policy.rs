//! [`decide`]: the pure core. What an attempt that ended badly is followed by.

use std::time::{Duration, Instant};

use super::{RetryConfig, TrustHint};
use crate::backoff::{between, scaled};
use crate::cores::random;
use crate::outcome::RetryHint;

/// Why a call that might have been retried was not.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::retry::GiveUpReason::Budget.as_str(), "budget");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// It has had all of its attempts: [`max_attempts`](super::RetryConfig::max_attempts), or one more than there are
    /// [`delays`](super::RetryBuilder::delays). A delay that ends beyond the end of time counts as none.
    Attempts,
    /// The budget is used up.
    Budget,
    /// The next attempt would not start before the deadline.
    Deadline,
    /// The callee asked to be left alone for longer than is waited for.
    RetryAfter,
    /// There is no copy of the request.
    NotCloneable,
    /// The request was sent and may not be sent twice.
    NotIdempotent,
    /// A retry further in has given up.
    Inner,
    /// The next attempt would not start within [`max_elapsed`](super::RetryConfig::max_elapsed).
    Elapsed,
    /// The service did not become ready within [`ready_timeout`](super::RetryConfig::ready_timeout).
    NotReady,
    /// The copy of the request can no longer be sent: its body was longer than what is kept of it, or failed.
    NotReplayable,
}

/// What is known of the attempt that ended, and of the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Which attempt it was, from 1.
    pub(super) attempt: u32,
    pub(super) max_attempts: u32,
    pub(super) hint: RetryHint,
    /// It may have reached the callee.
    pub(super) sent: bool,
    pub(super) idempotent: bool,
    /// The request policy lets it be retried at all.
    pub(super) permitted: bool,
    pub(super) has_copy: bool,
    /// The copy can still be sent.
    pub(super) replayable: bool,
    /// A retry further in gave up, and that counts.
    pub(super) inner_gave_up: bool,
}

/// How a time that the callee names is followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hints {
    pub(super) trust: TrustHint,
    pub(super) jitter: f64,
    pub(super) max_retry_after: Duration,
}

/// How long a call may go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) deadline: Option<Instant>,
    /// When its longest time is over.
    pub(super) over_at: Option<Instant>,
}

/// What to do, as far as the call itself decides; the budget has the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The result is what it is.
    Return,
    GiveUp(GiveUpReason),
    /// Try again, not before this long.
    Retry(Duration),
}

/// `hints` are asked for only if the callee named a time, `now` is called only if it matters, `backoff` only if a delay is needed, and `draw`, uniform over all 64-bit values, only
/// for a delay that the callee named. `backoff` returns `None` when its sequence has ended.
#[inline(always)]
pub(super) fn decide(
    ended: Ended,
    limits: Limits,
    hints: impl Fn() -> Hints,
    now: impl Fn() -> Instant,
    backoff: impl FnOnce() -> Option<Duration>,
    draw: impl FnOnce() -> u64,
) -> Decision {
    if ended.hint == RetryHint::No {
        return Decision::Return;
    }
    if ended.inner_gave_up {
        return Decision::GiveUp(GiveUpReason::Inner);
    }
    if ended.max_attempts <= 1 || !ended.permitted {
        // Turned off: it has no opinion, and leaves the work to a retry further out.
        return Decision::Return;
    }
    if ended.attempt >= ended.max_attempts {
        return Decision::GiveUp(GiveUpReason::Attempts);
    }
    if ended.sent && !ended.idempotent {
        return Decision::GiveUp(GiveUpReason::NotIdempotent);
    }
    if !ended.has_copy {
        return Decision::GiveUp(GiveUpReason::NotCloneable);
    }
    if !ended.replayable {
        return Decision::GiveUp(GiveUpReason::NotReplayable);
    }
    let named = if let RetryHint::After(named) = ended.hint { Some((named, hints())) } else { None };
    if let Some((named, hints)) = named
        && hints.trust == TrustHint::Exact
        && named > hints.max_retry_after
    {
        return Decision::GiveUp(GiveUpReason::RetryAfter);
    }
    let Some(own) = backoff() else { return Decision::GiveUp(GiveUpReason::Attempts) };
    let (shortest, mut longest) = named.map_or((own, own), |(named, hints)| hints.range(own, named));
    // The clock is not read for a retry at once without a limit.
    if !shortest.is_zero() && now().checked_add(shortest).is_none() {
        let is_own = shortest == own;
        return Decision::GiveUp(if is_own { GiveUpReason::Attempts } else { GiveUpReason::RetryAfter });
    }
    for (limit, reason) in [(limits.deadline, GiveUpReason::Deadline), (limits.over_at, GiveUpReason::Elapsed)] {
        if let Some(limit) = limit {
            let left = limit.saturating_duration_since(now());
            if shortest >= left {
                return Decision::GiveUp(reason);
            }
            // Jitter carries no attempt beyond a limit.
            longest = longest.min(left - Duration::from_nanos(1));
        }
    }
    let delay = if shortest < longest { between(shortest, longest, random::unit(draw())) } else { shortest };
    Decision::Retry(delay)
}

// === impl Hints ===

impl Hints {
    pub(super) const fn of(config: &RetryConfig) -> Self {
        Self { trust: config.trust_hint, jitter: config.hint_jitter, max_retry_after: config.max_retry_after }
    }

    /// How much longer than the retry's own delay a clamped wait is at most.
    const CLAMP: Duration = Duration::from_secs(5);

    /// The shortest and the longest wait where the callee has named a time, and the retry's own delay is `own`.
    fn range(self, own: Duration, named: Duration) -> (Duration, Duration) {
        let (shortest, bound) = match self.trust {
            TrustHint::Exact => (named, self.max_retry_after),
            TrustHint::Clamped => {
                let bound = own.saturating_add(Self::CLAMP).min(self.max_retry_after);
                (named.min(bound), bound)
            }
        };
        if shortest <= own {
            return (own, own);
        }
        // The range is cut, not the draw: else many callers would wait for exactly the bound.
        let longest = shortest.saturating_add(scaled(shortest, self.jitter)).min(bound);
        (shortest, longest.max(shortest))
    }
}

// === impl GiveUpReason ===

impl GiveUpReason {
    /// The reason as a fixed word: `attempts`, `budget`, `deadline`, `retry_after`, `not_cloneable`, `not_idempotent`,
    /// `inner`, `elapsed`, `not_ready` or `not_replayable`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::retry::GiveUpReason::NotIdempotent.as_str(), "not_idempotent");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::RetryAfter => "retry_after",
            Self::NotCloneable => "not_cloneable",
            Self::NotIdempotent => "not_idempotent",
            Self::Inner => "inner",
            Self::Elapsed => "elapsed",
            Self::NotReady => "not_ready",
            Self::NotReplayable => "not_replayable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HINTS: Hints = Hints { trust: TrustHint::Exact, jitter: 0.2, max_retry_after: Duration::from_secs(10) };

    fn first() -> Ended {
        Ended {
            attempt: 1,
            max_attempts: 3,
            hint: RetryHint::Yes,
            sent: true,
            idempotent: true,
            permitted: true,
            has_copy: true,
            replayable: true,
            inner_gave_up: false,
        }
    }

    fn decided(ended: Ended, deadline_in: Option<Duration>) -> Decision {
        let now = tokio::time::Instant::now().into_std();
        let deadline = deadline_in.map(|left| now + left);
        let limits = Limits { deadline, over_at: None };
        decide(ended, limits, || HINTS, || now, || Some(SECOND / 10), || 0)
    }

    #[test]
    fn a_result_that_needs_no_retry_is_returned_whatever_else_is_known() {
        let ended = Ended { hint: RetryHint::No, inner_gave_up: true, has_copy: false, ..first() };
        assert_eq!(decided(ended, Some(Duration::ZERO)), Decision::Return);
    }

    #[test]
    fn each_limit_gives_up_for_its_own_reason() {
        let gives_up = |ended, reason| assert_eq!(decided(ended, None), Decision::GiveUp(reason));
        gives_up(Ended { attempt: 3, ..first() }, GiveUpReason::Attempts);
        gives_up(Ended { idempotent: false, ..first() }, GiveUpReason::NotIdempotent);
        gives_up(Ended { has_copy: false, ..first() }, GiveUpReason::NotCloneable);
        gives_up(Ended { replayable: false, ..first() }, GiveUpReason::NotReplayable);
        gives_up(Ended { inner_gave_up: true, ..first() }, GiveUpReason::Inner);
        gives_up(Ended { hint: RetryHint::After(11 * SECOND), ..first() }, GiveUpReason::RetryAfter);
    }

    /// Scenario 22.
    #[test]
    fn a_sequence_of_delays_that_has_ended_ends_the_attempts() {
        let now = tokio::time::Instant::now().into_std();
        let limits = Limits { deadline: None, over_at: None };
        let decided = decide(first(), limits, || HINTS, || now, || None, || 0);
        assert_eq!(decided, Decision::GiveUp(GiveUpReason::Attempts));
    }

    #[test]
    fn one_attempt_is_a_retry_turned_off() {
        assert_eq!(decided(Ended { max_attempts: 1, ..first() }, None), Decision::Return);
        assert_eq!(decided(Ended { permitted: false, ..first() }, None), Decision::Return, "for this request");
    }

    #[test]
    fn the_longest_time_counts_up_to_the_start_of_the_next_attempt() {
        let now = tokio::time::Instant::now().into_std();
        let after = |left| {
            let limits = Limits { deadline: None, over_at: Some(now + left) };
            decide(first(), limits, || HINTS, || now, || Some(SECOND / 10), || 0)
        };
        assert_eq!(after(SECOND / 10), Decision::GiveUp(GiveUpReason::Elapsed));
        assert_eq!(after(SECOND / 9), Decision::Retry(SECOND / 10));
    }

    #[test]
    fn what_was_not_sent_may_be_sent_whether_or_not_it_may_be_twice() {
        let ended = Ended { sent: false, idempotent: false, ..first() };
        assert_eq!(decided(ended, None), Decision::Retry(SECOND / 10));
    }

    /// R4.
    #[test]
    fn retry_after_is_never_undercut() {
        let after = |wait| decided(Ended { hint: RetryHint::After(wait), ..first() }, None);
        assert_eq!(after(2 * SECOND), Decision::Retry(2 * SECOND));
        assert_eq!(after(SECOND / 100), Decision::Retry(SECOND / 10));
        assert_eq!(after(10 * SECOND), Decision::Retry(10 * SECOND), "as long as is waited for at most");
    }

    /// R5.
    #[test]
    fn nothing_starts_at_or_after_the_deadline() {
        let at = |left| decided(first(), Some(left));
        assert_eq!(at(SECOND), Decision::Retry(SECOND / 10));
        assert_eq!(at(SECOND / 10), Decision::GiveUp(GiveUpReason::Deadline));
        assert_eq!(at(Duration::ZERO), Decision::GiveUp(GiveUpReason::Deadline));
    }

    #[test]
    fn jitter_comes_on_top_of_a_named_time_and_stays_within_every_bound() {
        let now = tokio::time::Instant::now().into_std();
        let wait = |named, left, draw| {
            let limits = Limits { deadline: Some(now + left), over_at: None };
            let ended = Ended { hint: RetryHint::After(named), ..first() };
            decide(ended, limits, || HINTS, || now, || Some(SECOND / 10), || draw)
        };
        let hour = 3_600 * SECOND;
        assert_eq!(wait(2 * SECOND, hour, 0), Decision::Retry(2 * SECOND));
        assert_eq!(wait(2 * SECOND, hour, 1 << 63), Decision::Retry(2 * SECOND + SECOND / 5));
        let Decision::Retry(longest) = wait(2 * SECOND, hour, u64::MAX) else { panic!("gave up") };
        assert!(longest > 2 * SECOND + SECOND / 5 && longest <= 2 * SECOND + 2 * SECOND / 5);
        // Half of what is left up to the longest wait, and up to the deadline.
        assert_eq!(wait(9 * SECOND, hour, 1 << 63), Decision::Retry(9 * SECOND + SECOND / 2));
        assert_eq!(wait(10 * SECOND, hour, u64::MAX), Decision::Retry(10 * SECOND));
        let Decision::Retry(cut) = wait(2 * SECOND, 2 * SECOND + SECOND / 10, u64::MAX) else { panic!("gave up") };
        assert!(cut > 2 * SECOND && cut < 2 * SECOND + SECOND / 10);
        assert_eq!(wait(2 * SECOND, 2 * SECOND, 0), Decision::GiveUp(GiveUpReason::Deadline));
        // The retry's own delay has its own jitter.
        assert_eq!(wait(SECOND / 20, hour, u64::MAX), Decision::Retry(SECOND / 10));
    }

    /// R4, by option.
    #[test]
    fn a_clamped_time_lies_between_the_own_delay_and_five_seconds_more() {
        let hints = Hints { trust: TrustHint::Clamped, ..HINTS };
        let range = |own, named| hints.range(own, named);
        let own = SECOND / 10;
        assert_eq!(range(own, 3_600 * SECOND), (own + 5 * SECOND, own + 5 * SECOND));
        assert_eq!(range(own, SECOND), (SECOND, SECOND + SECOND / 5));
        assert_eq!(range(own, 5 * SECOND), (5 * SECOND, own + 5 * SECOND));
        assert_eq!(range(own, SECOND / 20), (own, own));
        assert_eq!(range(8 * SECOND, 3_600 * SECOND), (10 * SECOND, 10 * SECOND), "as long as is waited for at most");
        assert_eq!(range(20 * SECOND, 3_600 * SECOND), (20 * SECOND, 20 * SECOND), "but for the own delay");
    }
}
