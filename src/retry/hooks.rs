//! What a user can put in: delays, a predicate of outcomes, an observer of attempts.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::GiveUpReason;
use crate::outcome::{Outcome, RetryHint};

/// An attempt that ended badly, as [`NextDelay`] sees it.
///
/// # Examples
///
/// ```
/// use mainstay::retry::EndedAttempt;
///
/// fn is_first(attempt: &EndedAttempt) -> bool {
///     attempt.attempt == 1
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedAttempt {
    /// Which one it was, from 1.
    pub attempt: u32,
    /// What it ended in. For a value of the result itself, have the classifier answer
    /// [`Outcome::throttled`] with the time that is in it.
    pub outcome: Outcome,
    /// The delay that was chosen before it; zero for the first attempt.
    pub previous: Duration,
    /// Uniform over all 64-bit values, from the layer's [`seed`](super::RetryConfig::seed) if it has one: for jitter.
    pub draw: u64,
}

/// A backoff of the user's own. Closures `|attempt: &EndedAttempt| -> Option<Duration>` are such backoffs.
///
/// It is asked once for each attempt that another follows, on the calling task. A panic in it ends the call, like one of the
/// classifier.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::retry::{EndedAttempt, NextDelay, RetryLayer};
///
/// struct Squares;
///
/// impl NextDelay for Squares {
///     fn next_delay(&self, ended: &EndedAttempt) -> Option<Duration> {
///         Some(Duration::from_millis(10) * ended.attempt.saturating_pow(2))
///     }
/// }
///
/// let layer = RetryLayer::builder("users").delay_by(Squares).build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub trait NextDelay: Send + Sync + 'static {
    /// How long to wait after this attempt; `None` leaves it to [`delays`](super::RetryBuilder::delays), or else to the
    /// configured backoff.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{EndedAttempt, NextDelay};
    ///
    /// fn ask(backoff: &impl NextDelay, ended: &EndedAttempt) -> bool {
    ///     backoff.next_delay(ended).is_some()
    /// }
    /// ```
    fn next_delay(&self, ended: &EndedAttempt) -> Option<Duration>;
}

/// An attempt that ended, and what follows, as an observer sees it.
///
/// # Examples
///
/// ```
/// use mainstay::retry::AttemptReport;
///
/// fn log(report: &AttemptReport) {
///     println!("attempt {}: {}, {:?}", report.attempt, report.outcome, report.next);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptReport {
    /// Which one it was, from 1.
    pub attempt: u32,
    /// What it ended in.
    pub outcome: Outcome,
    /// Whether it may have reached the callee.
    pub sent: bool,
    /// What follows.
    pub next: AfterAttempt,
}

/// What follows an attempt.
///
/// # Examples
///
/// ```
/// use mainstay::retry::AfterAttempt;
///
/// assert_ne!(AfterAttempt::Returned, AfterAttempt::Retrying { delay: std::time::Duration::ZERO });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterAttempt {
    /// The result is returned: it is a success, or no other attempt would help.
    Returned,
    /// Another attempt, after this delay.
    Retrying {
        /// From now on.
        delay: Duration,
    },
    /// The result is returned, although another attempt might have helped.
    GaveUp(GiveUpReason),
}

type Predicate = dyn Fn(Outcome) -> bool + Send + Sync;
/// The delay after this many attempts; `None` where none is left.
type Sequence = dyn Fn(u32) -> Option<Duration> + Send + Sync;
type Observer = dyn Fn(&AttemptReport) + Send + Sync;

/// What a user has put in; nothing by default, and then it costs nothing.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) delay: Option<Arc<dyn NextDelay>>,
    pub(super) sequence: Option<Arc<Sequence>>,
    pub(super) outcomes: Option<Arc<Predicate>>,
    pub(super) observer: Option<Arc<Observer>>,
}

impl<F> NextDelay for F
where
    F: Fn(&EndedAttempt) -> Option<Duration> + Send + Sync + 'static,
{
    fn next_delay(&self, ended: &EndedAttempt) -> Option<Duration> {
        self(ended)
    }
}

// === impl Hooks ===

impl Hooks {
    /// Whether another attempt may help after `outcome` of the service itself.
    #[inline]
    pub(super) fn hint(&self, outcome: Outcome) -> RetryHint {
        match &self.outcomes {
            Some(predicate) if !outcome.is_success() => match outcome.retry() {
                _ if !predicate(outcome) => RetryHint::No,
                RetryHint::No => RetryHint::Yes,
                hint => hint,
            },
            _ => outcome.retry(),
        }
    }

    /// Tells the observer, if there is one.
    #[inline]
    pub(super) fn observe(&self, attempt: u32, outcome: Outcome, sent: bool, next: AfterAttempt) {
        if let Some(observer) = &self.observer {
            // The call goes on as if the observer had returned; the panic hook has told the operator.
            let report = AttemptReport { attempt, outcome, sent, next };
            let _ = catch_unwind(AssertUnwindSafe(|| observer(&report)));
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("delay", &self.delay.is_some())
            .field("sequence", &self.sequence.is_some())
            .field("outcomes", &self.outcomes.is_some())
            .field("observer", &self.observer.is_some())
            .finish()
    }
}
