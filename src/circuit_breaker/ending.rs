//! [`Ending`]: whether a call that is over was answered, and for how much of its time the callee stands.

use crate::context::deadline_is_spent;
use crate::error::{Rejectable, Rejected};
use crate::outcome::{Classify, Outcome};

/// How a call ended, beside its [`Outcome`].
///
/// A callee that takes calls and never answers shows in no outcome: the calls are cut by the deadlines of their callers, or
/// dropped. Their number, while not one call is answered, is what a breaker sees of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a result of the callee or of its client, good or bad.
    Answered,
    /// The deadline of its caller cut it off after it had been sent.
    Cut,
    /// It was dropped before it ended.
    Abandoned,
    /// It was sent; whether it was answered is not known. A timeout that is a failure already, or an outcome from which
    /// nothing can be learnt.
    Unknown,
    /// It was never sent, or the body of its request failed: the time that it took is not the callee's.
    NotSent,
}

/// Judges the result of a call as [`judge`](crate::judge) does, and returns how the call ended beside it.
#[inline]
pub(crate) fn judge_call<C, T, E>(classifier: &C, result: Result<&T, &E>) -> (Outcome, Ending)
where
    C: Classify<T, E>,
    E: Rejectable,
{
    if let Err(error) = result
        && let Some(rejected) = error.as_rejected()
    {
        return (rejected.outcome(), Ending::of_rejected(rejected));
    }
    let outcome = classifier.classify(result);
    (outcome, if result.is_ok() { Ending::of_response(outcome) } else { Ending::of_error(outcome) })
}

// === impl Ending ===

impl Ending {
    /// How a call ended of which only the outcome is known.
    #[inline]
    pub(super) const fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ignored => Self::Unknown,
            _ => Self::Answered,
        }
    }

    /// A response is an answer, unless the classifier ignores it at the deadline of the caller: such a response says that the
    /// time of the caller is up. It is no evidence in either direction, so that callers with tiny deadlines cannot open the
    /// circuit.
    #[inline(always)]
    pub(super) fn of_response(outcome: Outcome) -> Self {
        if outcome == Outcome::Ignored && deadline_is_spent() { Self::Unknown } else { Self::Answered }
    }

    /// An error that the classifier ignores at the deadline of the caller is how a client reports a call that was cut.
    #[inline]
    fn of_error(outcome: Outcome) -> Self {
        if outcome == Outcome::Ignored && deadline_is_spent() { Self::Cut } else { Self::of_outcome(outcome) }
    }

    const fn of_rejected(rejected: &Rejected) -> Self {
        match rejected {
            Rejected::DeadlineExceeded { sent: true } => Self::Cut,
            Rejected::Timeout { sent: true, .. } => Self::Unknown,
            Rejected::LoadFailed(failed) => Self::of_outcome(failed.outcome()),
            _ => Self::NotSent,
        }
    }

    /// Whether the call ran until it was cut or dropped, without an answer.
    pub(super) const fn is_unanswered(self) -> bool {
        matches!(self, Self::Cut | Self::Abandoned)
    }
}
