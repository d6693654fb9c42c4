//! [`Telemetry`] and its counts.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_service::Service;

use super::future::ResponseFuture;
use super::instruments::{Durations, Tally};
use super::names;
use crate::cores::unwind::on_unwind;
use crate::error::{Rejectable, Rejected};
use crate::name::Name;
use crate::outcome::{Classify, Outcome};

/// The service that [`TelemetryLayer`](super::TelemetryLayer) makes.
///
/// # Examples
///
/// ```
/// use mainstay::BoxError;
/// use tower::{Layer, Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let layer = mainstay::telemetry::TelemetryLayer::new("users");
/// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
/// let response = service.ready().await?.call(1);
/// assert_eq!(response.await?, 2);
/// assert_eq!(layer.handle().statistics().successes, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Telemetry<S, C> {
    inner: S,
    classifier: C,
    handle: TelemetryHandle,
}

/// Reads what a [`TelemetryLayer`](super::TelemetryLayer) has counted. Cheap to clone.
///
/// # Examples
///
/// ```
/// let handle = mainstay::telemetry::TelemetryLayer::new("users").handle();
/// assert_eq!(handle.name().as_str(), "users");
/// ```
#[derive(Clone, Debug)]
pub struct TelemetryHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Name,
    calls: Tally<11>,
    rejections: Tally<7>,
    durations: Durations,
}

/// How many calls ended in what. See [`TelemetryLayer`](super::TelemetryLayer).
///
/// # Examples
///
/// ```
/// let statistics = mainstay::telemetry::TelemetryStatistics::default();
/// assert_eq!(statistics.calls(), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TelemetryStatistics {
    /// [`Outcome::Success`].
    pub successes: u64,
    /// [`Outcome::Refused`].
    pub refused: u64,
    /// [`Outcome::Transient`].
    pub transient: u64,
    /// [`Outcome::NotSent`].
    pub not_sent: u64,
    /// [`Outcome::Permanent`].
    pub permanent: u64,
    /// [`Outcome::Throttled`].
    pub throttled: u64,
    /// [`Outcome::DependencyFailed`].
    pub dependency_failed: u64,
    /// [`Outcome::Ignored`].
    pub ignored: u64,
    /// A layer of this crate refused.
    pub rejected: u64,
    /// The response future was dropped before it finished.
    pub abandoned: u64,
    /// The inner service panicked.
    pub panicked: u64,
}

/// How a call ended, as counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End<'a> {
    Outcome(Outcome),
    Rejected(&'a Rejected),
    Abandoned,
    Panicked,
}

const OUTCOMES: [&str; 11] = [
    "success",
    "refused",
    "transient",
    "not_sent",
    "permanent",
    "throttled",
    "dependency_failed",
    "ignored",
    "rejected",
    "abandoned",
    "panicked",
];

const REASONS: [&str; 7] =
    ["circuit_open", "timeout", "deadline_exceeded", "no_endpoint", "limited", "shed", "load_failed"];

// === impl Telemetry ===

impl<S, C> Telemetry<S, C> {
    pub(super) const fn new(inner: S, classifier: C, handle: TelemetryHandle) -> Self {
        Self { inner, classifier, handle }
    }
}

crate::macros::wrapper_methods!(Telemetry<S, C>, "mainstay::telemetry::TelemetryLayer::new(\"users\")");
crate::macros::ready_methods!(Telemetry<S, C>, "mainstay::telemetry::TelemetryLayer::new(\"users\")");

impl<S, C, Req> Service<Req> for Telemetry<S, C>
where
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let started = Instant::now();
        let Self { inner, classifier, handle } = self;
        ResponseFuture::call(classifier.clone(), handle.clone(), started, || {
            on_unwind(|| handle.count(End::Panicked, started), || inner.call(request))
        })
    }
}

// === impl TelemetryHandle ===

impl TelemetryHandle {
    pub(super) fn new(name: Name) -> Self {
        let shared = Shared {
            calls: Tally::new(&name, names::CALLS, "outcome", OUTCOMES),
            rejections: Tally::new(&name, names::REJECTIONS, "reason", REASONS),
            durations: Durations::new(&name, names::CALL_DURATION),
            name,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(&**mainstay::telemetry::TelemetryLayer::new("a").handle().name(), "a");
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// What was counted so far: exact as soon as no call is running.
    ///
    /// # Examples
    ///
    /// ```
    /// let handle = mainstay::telemetry::TelemetryLayer::new("a").handle();
    /// assert_eq!(handle.statistics(), Default::default());
    /// ```
    #[must_use]
    pub fn statistics(&self) -> TelemetryStatistics {
        let [
            successes,
            refused,
            transient,
            not_sent,
            permanent,
            throttled,
            dependency_failed,
            ignored,
            rejected,
            abandoned,
            panicked,
        ] = self.shared.calls.all();
        TelemetryStatistics {
            successes,
            refused,
            transient,
            not_sent,
            permanent,
            throttled,
            dependency_failed,
            ignored,
            rejected,
            abandoned,
            panicked,
        }
    }

    pub(super) fn count(&self, end: End<'_>, started: Instant) {
        let shared = &*self.shared;
        shared.calls.add(end.index());
        if let End::Rejected(rejected) = end
            && let Some(reason) = REASONS.iter().position(|reason| *reason == rejected.kind())
        {
            shared.rejections.add(reason);
        }
        if Durations::is_enabled() {
            shared.durations.record(Instant::now().saturating_duration_since(started));
        }
    }
}

// === impl TelemetryStatistics ===

impl TelemetryStatistics {
    /// All calls that ended.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::telemetry::TelemetryStatistics::default().calls(), 0);
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.successes
            + self.refused
            + self.transient
            + self.not_sent
            + self.permanent
            + self.throttled
            + self.dependency_failed
            + self.ignored
            + self.rejected
            + self.abandoned
            + self.panicked
    }
}

// === impl End ===

impl End<'_> {
    const fn index(self) -> usize {
        match self {
            Self::Outcome(Outcome::Success) => 0,
            Self::Outcome(Outcome::Refused) => 1,
            Self::Outcome(Outcome::Transient) => 2,
            Self::Outcome(Outcome::NotSent) => 3,
            Self::Outcome(Outcome::Permanent) => 4,
            Self::Outcome(Outcome::Throttled { .. }) => 5,
            Self::Outcome(Outcome::DependencyFailed) => 6,
            Self::Outcome(Outcome::Ignored) => 7,
            Self::Rejected(_) => 8,
            Self::Abandoned => 9,
            Self::Panicked => 10,
        }
    }

    #[cfg(feature = "tracing")]
    pub(super) const fn as_str(self) -> &'static str {
        OUTCOMES[self.index()]
    }
}
