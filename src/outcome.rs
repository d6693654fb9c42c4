//! What a finished call says: one [`Outcome`], three questions.
//!
//! Every part of this crate that learns from calls (circuit breakers, retries, ejection, load estimates, telemetry) reads
//! the same value, made once by a [`Classify`]. An outcome answers three questions which must not be mixed:
//!
//! * what does it say about the callee's **health** ([`Outcome::health`])?
//! * may **another try** help ([`Outcome::retry`])?
//! * was anything **sent** ([`Outcome::was_sent`])?
//!
//! | outcome | health | another try | example |
//! |---|---|---|---|
//! | [`Success`](Outcome::Success) | healthy | - | 200 |
//! | [`Refused`](Outcome::Refused) | healthy: it answered | no | 404, 400, gRPC `INVALID_ARGUMENT` |
//! | [`Transient`](Outcome::Transient) | unhealthy | yes | connection reset, 502, 503, `UNAVAILABLE`, timeout |
//! | [`NotSent`](Outcome::NotSent) | unhealthy | yes, whatever the method: nothing was sent | connection refused |
//! | [`Permanent`](Outcome::Permanent) | unhealthy | no | 501, `INTERNAL`, a body that does not decode |
//! | [`Throttled`](Outcome::Throttled) | no evidence | after the stated time | 429, 503 with `Retry-After`, `RESOURCE_EXHAUSTED` |
//! | [`DependencyFailed`](Outcome::DependencyFailed) | healthy: what *it* calls is broken | no: its siblings share it | 503 with the marker header |
//! | [`Ignored`](Outcome::Ignored) | no evidence | no | the caller left |
//!
//! Why two axes: a balancer that mistakes a stalled database for sick application servers ejects every one of them and
//! multiplies the load by its retries. `DependencyFailed` is what stops it.
//!
//! Why the third question: a request that may have been sent must not be repeated unless it is idempotent. A refused connection
//! is evidence against the callee like any other failure, and it also proves that nothing was sent: a retry may repeat even a
//! `POST`, and a pool may pass it on to another endpoint.
//!
//! A [`Rejected`](crate::Rejected) made by a layer of this crate is recognised *before* the user's classifier is asked
//! (see [`judge`]): a refusal made locally is no evidence against the callee.
//!
//! # Examples
//!
//! ```
//! use mainstay::{Classify, Health, Outcome, RetryHint, classify_fn};
//!
//! struct Reply { status: u16 }
//!
//! let by_status = classify_fn(|result: Result<&Reply, &std::io::Error>| match result {
//!     Ok(reply) if reply.status < 400 => Outcome::Success,
//!     Ok(reply) if reply.status < 500 => Outcome::Refused,
//!     Ok(_) | Err(_) => Outcome::Transient,
//! });
//!
//! let outcome = by_status.classify(Ok(&Reply { status: 503 }));
//! assert_eq!(outcome, Outcome::Transient);
//! assert_eq!(outcome.health(), Health::Unhealthy);
//! assert_eq!(outcome.retry(), RetryHint::Yes);
//! ```

use std::fmt;
use std::time::Duration;

use crate::error::Rejectable;

/// What one finished call says, about the callee and about another try.
///
/// See the [module documentation](crate::outcome) for the table. The default is [`Outcome::Ignored`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Health, Outcome, RetryHint};
///
/// let busy = Outcome::throttled(Duration::from_secs(2));
/// assert_eq!(busy.health(), Health::NoEvidence);
/// assert_eq!(busy.retry(), RetryHint::After(Duration::from_secs(2)));
/// assert_eq!(busy.as_str(), "throttled");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The callee did what it was asked.
    Success,
    /// The callee answered, and its answer is no: asking again gets the same.
    Refused,
    /// The callee failed in a way that may pass.
    Transient,
    /// The callee could not be reached, and the error proves that nothing was sent: a refused connection.
    ///
    /// It is a failure of the callee, and the call may be repeated even if it is not idempotent. Only use it where the error
    /// is such a proof: a connection that broke after the request was written is [`Transient`](Self::Transient).
    NotSent,
    /// The callee failed, and another try would fail alike.
    Permanent,
    /// The callee asks for less, or for later.
    Throttled {
        /// How long the callee asked to be left alone, where it said so.
        retry_after: Option<Duration>,
    },
    /// The callee is well, but something that it depends on (and that its siblings share) is not.
    DependencyFailed,
    /// Nothing can be learnt from this call.
    #[default]
    Ignored,
}

/// What an [`Outcome`] says about the callee.
///
/// # Examples
///
/// ```
/// use mainstay::{Health, Outcome};
///
/// assert_eq!(Outcome::Refused.health(), Health::Healthy);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// The callee works.
    Healthy,
    /// The callee does not work.
    Unhealthy,
    /// The call says nothing either way.
    NoEvidence,
}

/// What an [`Outcome`] says about another try.
///
/// # Examples
///
/// ```
/// use mainstay::{Outcome, RetryHint};
///
/// assert_eq!(Outcome::Permanent.retry(), RetryHint::No);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryHint {
    /// Another try would not help (or none is needed).
    No,
    /// Another try may help, as soon as the backoff allows.
    Yes,
    /// Another try may help, but not before this time has passed.
    After(Duration),
}

impl Outcome {
    /// [`Outcome::Throttled`] with the time the callee asked for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::Outcome;
    ///
    /// assert_eq!(Outcome::throttled(Duration::from_secs(1)).retry_after(), Some(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub const fn throttled(retry_after: Duration) -> Self {
        Self::Throttled { retry_after: Some(retry_after) }
    }

    /// What this says about the callee.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Health, Outcome};
    ///
    /// assert_eq!(Outcome::DependencyFailed.health(), Health::Healthy);
    /// ```
    #[must_use]
    #[inline]
    pub const fn health(self) -> Health {
        match self {
            Self::Success | Self::Refused | Self::DependencyFailed => Health::Healthy,
            Self::Transient | Self::NotSent | Self::Permanent => Health::Unhealthy,
            Self::Throttled { .. } | Self::Ignored => Health::NoEvidence,
        }
    }

    /// What this says about another try.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Outcome, RetryHint};
    ///
    /// assert_eq!(Outcome::Transient.retry(), RetryHint::Yes);
    /// assert_eq!(Outcome::Throttled { retry_after: None }.retry(), RetryHint::Yes);
    /// ```
    #[must_use]
    #[inline]
    pub const fn retry(self) -> RetryHint {
        match self {
            Self::Transient | Self::NotSent | Self::Throttled { retry_after: None } => RetryHint::Yes,
            Self::Throttled { retry_after: Some(after) } => RetryHint::After(after),
            Self::Success | Self::Refused | Self::Permanent | Self::DependencyFailed | Self::Ignored => RetryHint::No,
        }
    }

    /// Whether the call may have reached the callee. `false`, for [`Outcome::NotSent`] alone, means that it certainly did not.
    ///
    /// A [`Rejected`](crate::Rejected) answers this question itself ([`Rejected::was_sent`](crate::Rejected::was_sent)): its
    /// outcome says nothing about it.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    ///
    /// assert!(!Outcome::NotSent.was_sent());
    /// assert!(Outcome::Transient.was_sent());
    /// ```
    #[must_use]
    #[inline]
    pub const fn was_sent(self) -> bool {
        !matches!(self, Self::NotSent)
    }

    /// Whether this is [`Outcome::Success`].
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::Outcome::Success.is_success());
    /// ```
    #[must_use]
    #[inline]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Success)
    }

    /// Whether this is evidence against the callee: [`health`](Self::health) is [`Health::Unhealthy`].
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::Outcome::Permanent.is_failure());
    /// assert!(!mainstay::Outcome::Refused.is_failure());
    /// ```
    #[must_use]
    #[inline]
    pub const fn is_failure(self) -> bool {
        matches!(self.health(), Health::Unhealthy)
    }

    /// The time the callee asked to be left alone, where it said so.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::Outcome::Transient.retry_after(), None);
    /// ```
    #[must_use]
    #[inline]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => retry_after,
            _ => None,
        }
    }

    /// The name used in metrics labels and logs: `success`, `refused`, `transient`, `not_sent`, `permanent`,
    /// `throttled`, `dependency_failed` or `ignored`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::Outcome::DependencyFailed.as_str(), "dependency_failed");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Transient => "transient",
            Self::NotSent => "not_sent",
            Self::Permanent => "permanent",
            Self::Throttled { .. } => "throttled",
            Self::DependencyFailed => "dependency_failed",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Turns the result of a call into one [`Outcome`].
///
/// Closures and function pointers of the form `Fn(Result<&Res, &Err>) -> Outcome` are classifiers; [`classify_fn`] makes
/// the compiler infer a closure's lifetimes, which it does by itself only if the type of the argument is written out. A classifier is called once a finished call, on the calling task, and must
/// be quick; a panic in it unwinds to the caller, and the call counts as a failure.
///
/// # Examples
///
/// ```
/// use mainstay::{Classify, Outcome};
///
/// struct OnlyTimeouts;
///
/// impl<Res> Classify<Res, std::io::Error> for OnlyTimeouts {
///     fn classify(&self, result: Result<&Res, &std::io::Error>) -> Outcome {
///         match result {
///             Ok(_) => Outcome::Success,
///             Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Outcome::Transient,
///             Err(_) => Outcome::Permanent,
///         }
///     }
/// }
///
/// assert_eq!(OnlyTimeouts.classify(Ok(&())), Outcome::Success);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not classify `Result<&{Res}, &{Err}>`",
    label = "not a classifier of this service's results",
    note = "a classifier is a closure `|result: Result<&{Res}, &{Err}>| -> Outcome`; pass it through `mainstay::classify_fn` so that its lifetimes are inferred"
)]
pub trait Classify<Res, Err> {
    /// The outcome of a call that ended with `result`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Classify, DefaultClassifier, Outcome};
    ///
    /// let result: Result<&u32, &std::io::Error> = Ok(&7);
    /// assert_eq!(DefaultClassifier.classify(result), Outcome::Success);
    /// ```
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome;

    /// Returns whether `result`, which was judged [`Refused`](Outcome::Refused), may differ for another caller.
    ///
    /// A 404 is the same for all callers, a 403 or a 431 depends on who asks. A cache with a `negative_ttl` calls this
    /// before it remembers a refusal for later callers. Default: `false`.
    fn depends_on_caller(&self, result: Result<&Res, &Err>) -> bool {
        let _ = result;
        false
    }

    /// Whether results that this classifier lets be retried may come from requests that must not be executed twice. Default: no.
    ///
    /// If so, a retry repeats a request that was sent only if its request policy
    /// [says which ones may be](crate::retry::RequestPolicy::states_idempotency). `HttpClassifier` answers yes: a 503 to a `POST` is
    /// transient, and the order may have been placed.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Classify, DefaultClassifier};
    ///
    /// assert!(!Classify::<(), ()>::needs_idempotency(&DefaultClassifier));
    /// ```
    fn needs_idempotency(&self) -> bool {
        false
    }
}

impl<F, Res, Err> Classify<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Outcome,
{
    #[inline]
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self(result)
    }
}

/// The classifier every layer starts with: `Ok` is [`Success`](Outcome::Success), `Err` is [`Transient`](Outcome::Transient).
///
/// It knows no protocol. For HTTP, where a 500 arrives as `Ok`, use the classifier behind the feature `http`.
///
/// It does not look into errors either, and never says [`NotSent`](Outcome::NotSent): a refused connection is `Transient` like any
/// other failure, so a retry repeats the call in any case. The difference matters where calls are only repeated if they are
/// idempotent, or if nothing was sent: over HTTP, where `HttpClassifier::not_sent_if` finds such errors at any depth, and in a pool
/// that is to pass the call on. A closure can say so as well, see the second example.
///
/// # Examples
///
/// ```
/// use mainstay::{Classify, DefaultClassifier, Outcome};
///
/// assert_eq!(DefaultClassifier.classify(Err::<&(), _>(&"reset")), Outcome::Transient);
/// ```
///
/// A client whose errors tell when nothing was sent, like those of `reqwest` and `hyper-util` by their `is_connect`:
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use mainstay::{Classify, Outcome, classify_fn};
///
/// let classifier = classify_fn(|result: Result<&(), &Error>| match result {
///     Ok(()) => Outcome::Success,
///     Err(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::NotSent,
///     Err(_) => Outcome::Transient,
/// });
/// assert_eq!(classifier.classify(Err(&ErrorKind::ConnectionRefused.into())), Outcome::NotSent);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultClassifier;

impl<Res, Err> Classify<Res, Err> for DefaultClassifier {
    #[inline]
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Transient,
        }
    }
}

/// Hands a closure back unchanged, with the bound that lets the compiler infer its lifetimes.
///
/// A closure written in an argument position without that bound is inferred for one lifetime only and is then no
/// classifier; this is the usual cure.
///
/// # Examples
///
/// ```
/// use mainstay::{Classify, Outcome, classify_fn};
///
/// let classifier = classify_fn(|result: Result<&String, &std::fmt::Error>| match result {
///     Ok(text) if text.is_empty() => Outcome::Transient,
///     Ok(_) => Outcome::Success,
///     Err(_) => Outcome::Permanent,
/// });
/// assert_eq!(classifier.classify(Ok(&String::new())), Outcome::Transient);
/// ```
pub const fn classify_fn<F, Res, Err>(classifier: F) -> F
where
    F: Fn(Result<&Res, &Err>) -> Outcome,
{
    classifier
}

/// Judges a result the way every layer of this crate does: a [`Rejected`](crate::Rejected) is recognised first and speaks for itself
/// ([`Rejected::outcome`](crate::Rejected::outcome)); anything else goes to the classifier.
///
/// # Examples
///
/// ```
/// use mainstay::{BoxError, DefaultClassifier, Outcome, Rejectable, Rejected, judge};
///
/// let ours: Result<(), BoxError> = Err(BoxError::from_rejected(Rejected::shed()));
/// let theirs: Result<(), BoxError> = Err("connection reset".into());
/// assert_eq!(judge(&DefaultClassifier, ours.as_ref()), Outcome::Ignored);
/// assert_eq!(judge(&DefaultClassifier, theirs.as_ref()), Outcome::Transient);
/// ```
#[inline]
pub fn judge<C, Res, Err>(classifier: &C, result: Result<&Res, &Err>) -> Outcome
where
    C: Classify<Res, Err>,
    Err: Rejectable,
{
    if let Err(error) = result
        && let Some(rejected) = error.as_rejected()
    {
        return rejected.outcome();
    }
    classifier.classify(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Outcome; 9] = [
        Outcome::Success,
        Outcome::Refused,
        Outcome::Transient,
        Outcome::NotSent,
        Outcome::Permanent,
        Outcome::Throttled { retry_after: None },
        Outcome::Throttled { retry_after: Some(Duration::from_secs(1)) },
        Outcome::DependencyFailed,
        Outcome::Ignored,
    ];

    #[test]
    fn health_and_retry_are_the_table_of_the_module() {
        use Health::{Healthy, NoEvidence, Unhealthy};
        let health: Vec<_> = ALL.iter().map(|outcome| outcome.health()).collect();
        assert_eq!(
            health,
            [Healthy, Healthy, Unhealthy, Unhealthy, Unhealthy, NoEvidence, NoEvidence, Healthy, NoEvidence]
        );
        let retry: Vec<_> = ALL.iter().map(|outcome| outcome.retry()).collect();
        let after = RetryHint::After(Duration::from_secs(1));
        assert_eq!(
            retry,
            [
                RetryHint::No,
                RetryHint::No,
                RetryHint::Yes,
                RetryHint::Yes,
                RetryHint::No,
                RetryHint::Yes,
                after,
                RetryHint::No,
                RetryHint::No
            ]
        );
    }

    #[test]
    fn only_what_is_unhealthy_is_a_failure() {
        for outcome in ALL {
            assert_eq!(outcome.is_failure(), outcome.health() == Health::Unhealthy, "{outcome}");
        }
    }

    #[test]
    fn only_not_sent_proves_that_nothing_was_sent() {
        for outcome in ALL {
            assert_eq!(outcome.was_sent(), outcome.as_str() != "not_sent", "{outcome}");
        }
    }

    #[test]
    fn an_outcome_stays_small() {
        assert!(size_of::<Outcome>() <= 16);
    }
}
