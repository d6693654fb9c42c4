//! [`TelemetryLayer`]: counts and measures every call that passes.

use tower_layer::Layer;

use super::service::{Telemetry, TelemetryHandle};
use crate::name::Name;
use crate::outcome::DefaultClassifier;

/// The outermost layer of a stack: counts calls by outcome, measures their duration, and (feature `tracing`) opens a span.
///
/// All services that one layer makes share one set of counts; [`handle`](Self::handle) reads them.
///
/// Every call is counted exactly once, under one of: `success`, `refused`, `transient`, `not_sent`, `permanent`,
/// `throttled`, `dependency_failed`, `ignored` (see [`Outcome`](crate::Outcome)), `rejected` (a layer of this crate refused; the reason is
/// counted too), `abandoned` (the response future was dropped before it finished) or `panicked`.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use mainstay::LiftLayer;
/// use mainstay::telemetry::TelemetryLayer;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// let layer = TelemetryLayer::new("users");
/// let handle = layer.handle();
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .layer(LiftLayer::new())
///     .service(service_fn(|name: &'static str| async move { Ok::<_, std::io::Error>(name.len()) }));
///
/// assert_eq!(service.oneshot("ada").await.unwrap(), 3);
/// assert_eq!(handle.statistics().successes, 1);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TelemetryLayer<C = DefaultClassifier> {
    classifier: C,
    handle: TelemetryHandle,
}

// === impl TelemetryLayer ===

impl TelemetryLayer {
    /// Counts under `name`, judging results by [`DefaultClassifier`].
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::telemetry::TelemetryLayer::new("users");
    /// # let _ = layer;
    /// ```
    pub fn new(name: impl Into<Name>) -> Self {
        Self { classifier: DefaultClassifier, handle: TelemetryHandle::new(name.into()) }
    }
}

impl<C> TelemetryLayer<C> {
    /// The same layer (and the same counts), judging results by `classifier`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Outcome, classify_fn};
    /// use mainstay::telemetry::TelemetryLayer;
    ///
    /// let layer = TelemetryLayer::new("users").classify(classify_fn(|result: Result<&u16, &std::io::Error>| {
    ///     if matches!(result, Ok(200)) { Outcome::Success } else { Outcome::Transient }
    /// }));
    /// # let _ = layer;
    /// ```
    pub fn classify<D>(self, classifier: D) -> TelemetryLayer<D> {
        TelemetryLayer { classifier, handle: self.handle }
    }

    /// Reads the counts.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::telemetry::TelemetryLayer::new("users");
    /// assert_eq!(layer.handle().statistics().calls(), 0);
    /// ```
    #[must_use]
    pub fn handle(&self) -> TelemetryHandle {
        self.handle.clone()
    }
}

impl<S, C: Clone> Layer<S> for TelemetryLayer<C> {
    type Service = Telemetry<S, C>;

    fn layer(&self, inner: S) -> Telemetry<S, C> {
        Telemetry::new(inner, self.classifier.clone(), self.handle.clone())
    }
}
