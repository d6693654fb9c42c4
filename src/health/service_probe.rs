//! [`ServiceProbe`]: any service that the application has anyway, asked a question.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Mutex;

use tower_service::Service;

use super::probe::{Probe, ProbeError};
use crate::cores::lock::lock;
use crate::{BoxError, Classify, DefaultClassifier, Outcome};

/// Passes when a call of a `tower` service is a [`Success`](Outcome::Success) to a classifier.
///
/// This is how the client that the application uses anyway (with its TLS, its credentials, its protocol) becomes a probe: an
/// HTTP client asked for a page, a gRPC client asked `grpc.health.v1.Health/Check`, a database pool asked for `SELECT 1`. Each check clones the
/// service, waits until the clone is ready, and makes one call. A response that is no success is the target's
/// [answer](ProbeError::is_answer); an error is none.
///
/// Give it the bare client, without this crate's circuit breaker or retries around it: a probe that an open circuit refuses would
/// never see the target come back.
///
/// # Examples
///
/// ```
/// use mainstay::{Outcome, classify_fn};
/// use mainstay::health::{Probe, ServiceProbe};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let client = tower::service_fn(|_ping: &'static str| async { Ok::<_, std::io::Error>("loading") });
/// let probe = ServiceProbe::new(client, || "PING").classify(classify_fn(
///     |result: Result<&&str, &std::io::Error>| match result {
///         Ok(&"PONG") => Outcome::Success,
///         _ => Outcome::Transient,
///     },
/// ));
/// assert!(probe.check().await.unwrap_err().is_answer());
/// # }
/// ```
pub struct ServiceProbe<S, M, Req, C = DefaultClassifier> {
    // Cloned under the lock for each check, so that the service need not be `Sync`.
    service: Mutex<S>,
    request: M,
    classifier: C,
    _request: PhantomData<fn() -> Req>,
}

// === impl ServiceProbe ===

impl<S, M, Req> ServiceProbe<S, M, Req> {
    /// Calls `service` with what `request` makes, anew for each check; every `Ok` passes until a
    /// [classifier](Self::classify) is given.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::ServiceProbe;
    ///
    /// let client = tower::service_fn(|_: ()| async { Ok::<_, std::io::Error>(()) });
    /// let probe = ServiceProbe::new(client, || ());
    /// # let _ = probe;
    /// ```
    pub fn new(service: S, request: M) -> Self
    where
        M: Fn() -> Req,
    {
        Self { service: Mutex::new(service), request, classifier: DefaultClassifier, _request: PhantomData }
    }
}

impl<S, M, Req, C> ServiceProbe<S, M, Req, C> {
    /// Judges results by `classifier`: only [`Outcome::Success`] passes.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::DefaultClassifier;
    /// use mainstay::health::ServiceProbe;
    ///
    /// let client = tower::service_fn(|_: ()| async { Ok::<_, std::io::Error>(()) });
    /// let probe = ServiceProbe::new(client, || ()).classify(DefaultClassifier);
    /// # let _ = probe;
    /// ```
    pub fn classify<D>(self, classifier: D) -> ServiceProbe<S, M, Req, D> {
        ServiceProbe { service: self.service, request: self.request, classifier, _request: PhantomData }
    }
}

impl<S, M, Req, C> Probe for ServiceProbe<S, M, Req, C>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    M: Fn() -> Req + Send + Sync + 'static,
    Req: 'static,
    C: Classify<S::Response, S::Error> + Send + Sync + 'static,
{
    async fn check(&self) -> Result<(), ProbeError> {
        let mut service = lock(&self.service).clone();
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(ProbeError::new)?;
        let result = service.call((self.request)()).await;
        let outcome = self.classifier.classify(result.as_ref());
        match result {
            _ if outcome == Outcome::Success => Ok(()),
            Ok(_) => Err(ProbeError::answered(outcome.as_str())),
            Err(error) => Err(ProbeError::new(error)),
        }
    }
}

impl<S, M, Req, C> fmt::Debug for ServiceProbe<S, M, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceProbe").finish_non_exhaustive()
    }
}
