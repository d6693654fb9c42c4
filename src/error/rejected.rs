//! [`Rejected`]: every refusal that a layer of this crate can make.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BoxError, search};
use crate::circuit_state::CircuitState;
use crate::cores::packed_duration::MaybeDuration;
use crate::cores::packed_outcome::PackedOutcome;
use crate::name::Name;
use crate::outcome::{Outcome, RetryHint};

/// A refusal by a layer of this crate, with its reason.
///
/// Ask three things of it: [`kind`](Self::kind) (or the `is_*` predicates), [`retry_after`](Self::retry_after) and
/// [`was_sent`](Self::was_sent). A refusal that was never sent is no evidence against the callee, and repeating the call
/// elsewhere is safe whatever its method.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{CircuitOpen, CircuitState, Outcome, Rejected};
///
/// let open = CircuitOpen::new("users-db", CircuitState::Open).with_retry_after(Duration::from_millis(1200));
/// let rejected = Rejected::from(open);
/// assert!(rejected.is_circuit_open());
/// assert!(!rejected.was_sent());
/// assert_eq!(rejected.retry_after(), Some(Duration::from_millis(1200)));
/// assert_eq!(rejected.outcome(), Outcome::Ignored);
/// assert_eq!(rejected.to_string(), "circuit `users-db` is open: the next probe is due in 1.2s");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
// A tag of a whole word is not copied in pieces.
#[repr(u64)]
#[non_exhaustive]
pub enum Rejected {
    /// A circuit breaker refuses. Never sent.
    CircuitOpen(CircuitOpen),
    /// A configured timeout ran out.
    Timeout {
        /// The configured timeout.
        timeout: Duration,
        /// Whether the inner service had been called by then; `false` when time ran out while waiting for readiness.
        sent: bool,
    },
    /// The caller's deadline passed (or was nearer than the configured timeout and cut it short).
    DeadlineExceeded {
        /// Whether the inner service had been called by then.
        sent: bool,
    },
    /// A pool has no endpoint to give. Never sent.
    NoEndpoint(NoEndpoint),
    /// A concurrency or rate limit is reached. Never sent.
    Limited {
        /// When the limit will have room again, where that is known.
        retry_after: Option<Duration>,
    },
    /// Load was shed. Never sent.
    Shed,
    /// The shared load that this call was waiting for failed.
    LoadFailed(LoadFailed),
    /// The body of the request failed while it was being sent: the caller's own failure.
    RequestBodyFailed(RequestBodyFailed),
}

/// Why a circuit breaker refuses: its name, state, remaining wait and what opened it.
///
/// # Examples
///
/// ```
/// use mainstay::{CircuitOpen, CircuitState, Outcome};
///
/// let open = CircuitOpen::new("db", CircuitState::ForcedOpen).with_cause(Outcome::Permanent);
/// assert_eq!(open.state(), CircuitState::ForcedOpen);
/// assert_eq!(open.cause(), Some(Outcome::Permanent));
/// assert_eq!(open.retry_after(), None);
/// ```
///
/// A wait of more than 544 years reads as that, and a [cause](Self::cause) with a time of more than 4.5 years as those.
#[derive(Clone, PartialEq, Eq)]
pub struct CircuitOpen {
    // PackedDuration: an error is moved at every step of a call, whether it is one or not.
    name: &'static Name,
    retry_after: MaybeDuration,
    /// The cause, above the bits of the state.
    cause_and_state: u64,
}

/// Why a pool had nothing to give.
///
/// # Examples
///
/// ```
/// use mainstay::{NoEndpoint, NoEndpointReason};
///
/// let none = NoEndpoint::new("app", NoEndpointReason::Empty);
/// assert_eq!(none.name().as_str(), "app");
/// assert_eq!(none.reason(), NoEndpointReason::Empty);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoEndpoint {
    name: &'static Name,
    reason: NoEndpointReason,
}

/// Which kind of nothing a pool had.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::NoEndpointReason::Empty.as_str(), "empty");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoEndpointReason {
    /// The pool knows no endpoint (within the time it was allowed to wait for one).
    Empty,
    /// Endpoints are known, but none may be used: drained, disabled or refused by their breakers.
    NoneEligible,
    /// Eligible endpoints did not become ready within the time allowed.
    NotReady,
}

/// A load shared by several calls failed; every one of them gets the same cause.
///
/// The outcome is the one the leader's classifier gave, so that outer layers judge the shared failure as they would have
/// judged the error itself.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use mainstay::{LoadFailed, Outcome, Rejected};
///
/// let failed = LoadFailed::new(Outcome::Transient, Arc::new(std::io::Error::other("reset")));
/// let rejected = Rejected::from(failed);
/// assert_eq!(rejected.outcome(), Outcome::Transient);
/// assert!(rejected.was_sent());
/// ```
#[derive(Clone, Debug)]
pub struct LoadFailed {
    outcome: PackedOutcome,
    source: Arc<dyn StdError + Send + Sync>,
}

/// The body of a request failed while it was being sent.
///
/// A client reports such a failure as its own error, with the error of the body among its sources, and it looks like a failure of
/// the callee. This value among the sources says whose failure it is: the call is [`Ignored`](Outcome::Ignored) and not retried. The
/// replayed and idle-limited bodies of `mainstay::http` carry it; a body of another type gets it by mapping its error with
/// [`Rejected::request_body_failed`].
///
/// # Examples
///
/// ```
/// use mainstay::{Outcome, Rejected};
///
/// let failed = Rejected::request_body_failed("the upload was aborted");
/// assert_eq!(failed.outcome(), Outcome::Ignored);
/// assert_eq!(std::error::Error::source(&failed).unwrap().to_string(), "the upload was aborted");
/// ```
#[derive(Clone, Debug)]
pub struct RequestBodyFailed {
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

// === impl Rejected ===

impl Rejected {
    /// [`Rejected::Shed`].
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::Rejected::shed().is_shed());
    /// ```
    #[must_use]
    pub const fn shed() -> Self {
        Self::Shed
    }

    /// [`Rejected::RequestBodyFailed`] with the error of the body as its [`source`](StdError::source).
    ///
    /// Give it to `map_err` of a request's body (`http_body_util::BodyExt`), and a body that fails is no evidence against the callee.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Rejected;
    ///
    /// let failed = Rejected::request_body_failed(std::io::Error::other("the disk"));
    /// assert_eq!(failed.kind(), "request_body_failed");
    /// ```
    pub fn request_body_failed(error: impl Into<BoxError>) -> Self {
        Self::RequestBodyFailed(RequestBodyFailed { source: Some(Arc::from(error.into())) })
    }

    /// The rejection in `error` itself or among its sources, however deep; the outermost one if there are several.
    ///
    /// It is also found in an error that shows itself as its own cause and is skipped by the chain of
    /// [`source`](std::error::Error::source)s: one with `#[error(transparent)]`, an [`io::Error`](std::io::Error), an `Arc`. What
    /// made a shared load fail ([`LoadFailed`]) is not searched: the failed load is the rejection.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Rejected;
    ///
    /// let error = std::io::Error::other(Rejected::shed());
    /// assert!(Rejected::find_in(&error).is_some_and(Rejected::is_shed));
    /// assert!(Rejected::find_in(&std::fmt::Error).is_none());
    /// ```
    #[must_use]
    pub fn find_in<'a>(error: &'a (dyn StdError + 'a)) -> Option<&'a Self> {
        search::find_in(error)
    }

    /// The name of the reason, as used in metrics labels: `circuit_open`, `timeout`, `deadline_exceeded`, `no_endpoint`,
    /// `limited`, `shed`, `load_failed` or `request_body_failed`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::Rejected::DeadlineExceeded { sent: true }.kind(), "deadline_exceeded");
    /// ```
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CircuitOpen(_) => "circuit_open",
            Self::Timeout { .. } => "timeout",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::NoEndpoint(_) => "no_endpoint",
            Self::Limited { .. } => "limited",
            Self::Shed => "shed",
            Self::LoadFailed(_) => "load_failed",
            Self::RequestBodyFailed(_) => "request_body_failed",
        }
    }

    /// Whether a circuit breaker refused.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::Rejected::shed().is_circuit_open());
    /// ```
    #[must_use]
    pub const fn is_circuit_open(&self) -> bool {
        matches!(self, Self::CircuitOpen(_))
    }

    /// Whether a configured timeout ran out.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::Rejected::DeadlineExceeded { sent: true }.is_timeout());
    /// ```
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether the caller's deadline passed.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::Rejected::DeadlineExceeded { sent: true }.is_deadline_exceeded());
    /// ```
    #[must_use]
    pub const fn is_deadline_exceeded(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { .. })
    }

    /// Whether a pool had no endpoint to give.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::Rejected::shed().is_no_endpoint());
    /// ```
    #[must_use]
    pub const fn is_no_endpoint(&self) -> bool {
        matches!(self, Self::NoEndpoint(_))
    }

    /// Whether a limit was reached.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::Rejected::Limited { retry_after: None }.is_limited());
    /// ```
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        matches!(self, Self::Limited { .. })
    }

    /// Whether load was shed.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::Rejected::shed().is_shed());
    /// ```
    #[must_use]
    pub const fn is_shed(&self) -> bool {
        matches!(self, Self::Shed)
    }

    /// Whether a shared load failed.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::Rejected::shed().is_load_failed());
    /// ```
    #[must_use]
    pub const fn is_load_failed(&self) -> bool {
        matches!(self, Self::LoadFailed(_))
    }

    /// Whether the body of the request failed.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::Rejected::shed().is_request_body_failed());
    /// ```
    #[must_use]
    pub const fn is_request_body_failed(&self) -> bool {
        matches!(self, Self::RequestBodyFailed(_))
    }

    /// How long the refusing layer is known to go on refusing, where that is known.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::Rejected::shed().retry_after(), None);
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen(open) => open.retry_after.get(),
            Self::Limited { retry_after } => *retry_after,
            Self::LoadFailed(failed) => failed.outcome().retry_after(),
            Self::Timeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::NoEndpoint(_)
            | Self::Shed
            | Self::RequestBodyFailed(_) => None,
        }
    }

    /// Whether the call may have reached the callee. `false` means that it certainly did not.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::Rejected;
    ///
    /// assert!(Rejected::Timeout { timeout: Duration::from_secs(1), sent: true }.was_sent());
    /// assert!(!Rejected::shed().was_sent());
    /// ```
    #[must_use]
    pub const fn was_sent(&self) -> bool {
        match self {
            Self::Timeout { sent, .. } | Self::DeadlineExceeded { sent } => *sent,
            Self::LoadFailed(failed) => failed.outcome().was_sent(),
            Self::RequestBodyFailed(_) => true,
            Self::CircuitOpen(_) | Self::NoEndpoint(_) | Self::Limited { .. } | Self::Shed => false,
        }
    }

    /// What this refusal says about the callee: [`Outcome::Transient`] for a timeout of a call that was sent, the leader's
    /// outcome for a failed shared load, [`Outcome::Ignored`] for everything else. A deadline that the caller set is no
    /// failure of the callee.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::{Outcome, Rejected};
    ///
    /// let timeout = Duration::from_secs(1);
    /// assert_eq!(Rejected::Timeout { timeout, sent: true }.outcome(), Outcome::Transient);
    /// assert_eq!(Rejected::Timeout { timeout, sent: false }.outcome(), Outcome::Ignored);
    /// ```
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout { sent: true, .. } => Outcome::Transient,
            Self::LoadFailed(failed) => failed.outcome(),
            _ => Outcome::Ignored,
        }
    }

    /// What this rejection says about another try of the same service.
    ///
    /// * An open circuit: no. Another try would be rejected as well, and to wait for the circuit is the breaker's business
    ///   (`AdmissionMode::Wait`). A pool that can pick another endpoint goes by [`was_sent`](Self::was_sent) instead.
    /// * A passed deadline: no.
    /// * Anything else that was not sent: yes, but not before [`retry_after`](Self::retry_after).
    /// * What was sent goes by its [`outcome`](Self::outcome).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::{CircuitOpen, CircuitState, Rejected, RetryHint};
    ///
    /// let open = CircuitOpen::new("db", CircuitState::Open).with_retry_after(Duration::from_secs(1));
    /// assert_eq!(Rejected::from(open).retry(), RetryHint::No);
    /// assert_eq!(Rejected::shed().retry(), RetryHint::Yes);
    /// assert_eq!(Rejected::DeadlineExceeded { sent: false }.retry(), RetryHint::No);
    /// ```
    #[must_use]
    pub const fn retry(&self) -> RetryHint {
        if self.is_circuit_open() || self.is_deadline_exceeded() {
            return RetryHint::No;
        }
        if self.was_sent() {
            return self.outcome().retry();
        }
        match self.retry_after() {
            Some(after) => RetryHint::After(after),
            None => RetryHint::Yes,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen(open) => open.fmt(f),
            Self::Timeout { timeout, sent: true } => write!(f, "no answer within the timeout of {timeout:?}"),
            Self::Timeout { timeout, sent: false } => {
                write!(f, "not sent: the service was not ready within the timeout of {timeout:?}")
            }
            Self::DeadlineExceeded { sent: true } => f.write_str("no answer before the caller's deadline"),
            Self::DeadlineExceeded { sent: false } => f.write_str("not sent: the caller's deadline has passed"),
            Self::NoEndpoint(none) => none.fmt(f),
            Self::Limited { retry_after: Some(after) } => write!(f, "limit reached: room again in {after:?}"),
            Self::Limited { retry_after: None } => f.write_str("limit reached"),
            Self::Shed => f.write_str("load shed"),
            Self::LoadFailed(failed) => failed.fmt(f),
            Self::RequestBodyFailed(failed) => failed.fmt(f),
        }
    }
}

impl StdError for Rejected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        if search::is_asked() {
            return Some(self);
        }
        match self {
            Self::LoadFailed(failed) => Some(&*failed.source),
            Self::RequestBodyFailed(RequestBodyFailed { source: Some(source) }) => Some(&**source),
            _ => None,
        }
    }
}

impl From<CircuitOpen> for Rejected {
    fn from(open: CircuitOpen) -> Self {
        Self::CircuitOpen(open)
    }
}

impl From<NoEndpoint> for Rejected {
    fn from(none: NoEndpoint) -> Self {
        Self::NoEndpoint(none)
    }
}

impl From<LoadFailed> for Rejected {
    fn from(failed: LoadFailed) -> Self {
        Self::LoadFailed(failed)
    }
}

// === impl CircuitOpen ===

impl CircuitOpen {
    const STATE: u64 = (1 << PackedOutcome::FREE_BITS) - 1;

    #[inline]
    pub(crate) const fn from_parts(
        name: &'static Name,
        state: CircuitState,
        retry_after: MaybeDuration,
        cause: PackedOutcome,
    ) -> Self {
        Self { name, retry_after, cause_and_state: cause.word() << PackedOutcome::FREE_BITS | state as u64 }
    }

    /// A refusal by the breaker `name` in `state`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitOpen, CircuitState};
    ///
    /// assert_eq!(CircuitOpen::new("db", CircuitState::HalfOpen).name().as_str(), "db");
    /// ```
    pub fn new(name: impl Into<Name>, state: CircuitState) -> Self {
        Self::from_parts(name.into().kept(), state, MaybeDuration::NONE, PackedOutcome::NONE)
    }

    /// The same, with the time after which the breaker will admit a probe.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::{CircuitOpen, CircuitState};
    ///
    /// let open = CircuitOpen::new("db", CircuitState::Open).with_retry_after(Duration::from_secs(3));
    /// assert_eq!(open.retry_after(), Some(Duration::from_secs(3)));
    /// ```
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = MaybeDuration::new(retry_after);
        self
    }

    /// The same, with the outcome that opened the breaker.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitOpen, CircuitState, Outcome};
    ///
    /// let open = CircuitOpen::new("db", CircuitState::Open).with_cause(Outcome::Transient);
    /// assert_eq!(open.cause(), Some(Outcome::Transient));
    /// ```
    #[must_use]
    pub const fn with_cause(self, cause: Outcome) -> Self {
        Self::from_parts(self.name, self.state(), self.retry_after, PackedOutcome::new(Some(cause)))
    }

    /// The breaker's name.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitOpen, CircuitState};
    ///
    /// assert_eq!(&**CircuitOpen::new("db", CircuitState::Open).name(), "db");
    /// ```
    #[must_use]
    pub const fn name(&self) -> &Name {
        self.name
    }

    /// The state that rejected the call: open, half-open with all probes out, or forced open. In another state calls flow,
    /// and the call was rejected because the service was called before `poll_ready` had returned ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitOpen, CircuitState};
    ///
    /// assert_eq!(CircuitOpen::new("db", CircuitState::Open).state(), CircuitState::Open);
    /// ```
    #[must_use]
    pub const fn state(&self) -> CircuitState {
        match self.cause_and_state & Self::STATE {
            0 => CircuitState::Closed,
            1 => CircuitState::Open,
            2 => CircuitState::HalfOpen,
            3 => CircuitState::ForcedOpen,
            4 => CircuitState::Disabled,
            _ => CircuitState::Observing,
        }
    }

    /// How long until the breaker admits a probe; `None` when that is not known. A circuit that is forced open stays so, and
    /// a half-open one admits the next call when its probes have ended, which no clock can tell.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitOpen, CircuitState};
    ///
    /// assert_eq!(CircuitOpen::new("db", CircuitState::ForcedOpen).retry_after(), None);
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after.get()
    }

    /// The outcome that opened the breaker; `None` when it was opened by hand.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitOpen, CircuitState};
    ///
    /// assert_eq!(CircuitOpen::new("db", CircuitState::ForcedOpen).cause(), None);
    /// ```
    #[must_use]
    pub const fn cause(&self) -> Option<Outcome> {
        PackedOutcome::from_word(self.cause_and_state >> PackedOutcome::FREE_BITS).get()
    }
}

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit `{}` is {}", self.name, self.state())?;
        if matches!(self.state(), CircuitState::Closed | CircuitState::Disabled | CircuitState::Observing) {
            return f.write_str("; not sent: the service was called before it was ready");
        }
        match self.retry_after() {
            Some(Duration::ZERO) => f.write_str(": the next probe is due now"),
            Some(wait) => write!(f, ": the next probe is due in {wait:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitOpen")
            .field("name", &self.name)
            .field("state", &self.state())
            .field("retry_after", &self.retry_after())
            .field("cause", &self.cause())
            .finish()
    }
}

// === impl NoEndpoint ===

impl NoEndpoint {
    /// The pool `name` had nothing to give, for `reason`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{NoEndpoint, NoEndpointReason};
    ///
    /// let none = NoEndpoint::new("app", NoEndpointReason::NoneEligible);
    /// assert_eq!(none.to_string(), "pool `app` has no endpoint: none is eligible");
    /// ```
    pub fn new(name: impl Into<Name>, reason: NoEndpointReason) -> Self {
        Self::of(name.into().kept(), reason)
    }

    #[inline]
    pub(crate) const fn of(name: &'static Name, reason: NoEndpointReason) -> Self {
        Self { name, reason }
    }

    /// The pool's name.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{NoEndpoint, NoEndpointReason};
    ///
    /// assert_eq!(NoEndpoint::new("app", NoEndpointReason::Empty).name().as_str(), "app");
    /// ```
    #[must_use]
    pub const fn name(&self) -> &Name {
        self.name
    }

    /// Which kind of nothing it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{NoEndpoint, NoEndpointReason};
    ///
    /// assert_eq!(NoEndpoint::new("app", NoEndpointReason::Empty).reason(), NoEndpointReason::Empty);
    /// ```
    #[must_use]
    pub const fn reason(&self) -> NoEndpointReason {
        self.reason
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            NoEndpointReason::Empty => "it is empty",
            NoEndpointReason::NoneEligible => "none is eligible",
            NoEndpointReason::NotReady => "none became ready in time",
        };
        write!(f, "pool `{}` has no endpoint: {reason}", self.name)
    }
}

impl NoEndpointReason {
    /// The name used in metrics labels: `empty`, `none_eligible` or `not_ready`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::NoEndpointReason::NotReady.as_str(), "not_ready");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NoneEligible => "none_eligible",
            Self::NotReady => "not_ready",
        }
    }
}

// === impl LoadFailed ===

impl LoadFailed {
    /// A shared load that ended in `outcome` with `source`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use mainstay::{LoadFailed, Outcome};
    ///
    /// let failed = LoadFailed::new(Outcome::Permanent, Arc::new(std::fmt::Error));
    /// assert_eq!(failed.outcome(), Outcome::Permanent);
    /// ```
    #[must_use]
    pub fn new(outcome: Outcome, source: Arc<dyn StdError + Send + Sync>) -> Self {
        Self { outcome: PackedOutcome::new(Some(outcome)), source }
    }

    /// What the load's own result said.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use mainstay::{LoadFailed, Outcome};
    ///
    /// assert_eq!(LoadFailed::new(Outcome::Transient, Arc::new(std::fmt::Error)).outcome(), Outcome::Transient);
    /// ```
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self.outcome.get() {
            Some(outcome) => outcome,
            None => Outcome::Ignored,
        }
    }

    /// The error that all waiters of the load share.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use mainstay::{LoadFailed, Outcome};
    ///
    /// let failed = LoadFailed::new(Outcome::Transient, Arc::new(std::io::Error::other("reset")));
    /// assert_eq!(failed.error().to_string(), "reset");
    /// ```
    #[must_use]
    pub fn error(&self) -> &Arc<dyn StdError + Send + Sync> {
        &self.source
    }
}

impl fmt::Display for LoadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shared load failed ({})", self.outcome())
    }
}

/// Two failures are equal when their waiters shared one load.
impl PartialEq for LoadFailed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }
}

impl Eq for LoadFailed {}

// === impl RequestBodyFailed ===

/// The failure of a body that names no other error: a source of the errors of `http`'s bodies.
#[cfg(feature = "http")]
pub(crate) static REQUEST_BODY_FAILED: Rejected = Rejected::RequestBodyFailed(RequestBodyFailed { source: None });

impl RequestBodyFailed {
    /// The error of the body, where it is known.
    #[must_use]
    pub const fn error(&self) -> Option<&Arc<dyn StdError + Send + Sync>> {
        self.source.as_ref()
    }
}

impl fmt::Display for RequestBodyFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of the request failed")
    }
}

/// Two are equal if they are the same failure.
impl PartialEq for RequestBodyFailed {
    fn eq(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for RequestBodyFailed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_a_circuit_keeps_what_it_was_made_of() {
        for state in CircuitState::ALL {
            let open = CircuitOpen::new("db", state).with_cause(Outcome::throttled(Duration::from_secs(3600)));
            assert_eq!((open.state(), open.retry_after()), (state, None));
            let open = open.with_retry_after(Duration::from_nanos(1));
            assert_eq!(open.cause(), Some(Outcome::throttled(Duration::from_secs(3600))));
            assert_eq!((open.state(), open.retry_after()), (state, Some(Duration::from_nanos(1))));
        }
    }

    #[test]
    fn a_refusal_is_small() {
        assert!(size_of::<Rejected>() <= 32, "{}", size_of::<Rejected>());
        assert_eq!(size_of::<Result<u64, crate::Error<()>>>(), size_of::<Rejected>());
    }
}
