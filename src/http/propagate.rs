//! [`PropagateLayer`]: the ambient context goes out as headers.

use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Request};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::headers::{ATTEMPT, CRITICALITY, DEADLINE_MS};
use crate::context::{self, Criticality};

/// Sends the ambient deadline (as what is left of it), attempt and criticality along with each request.
///
/// Put it right around the client, below retries and timeouts, so that each attempt says what holds for it. What is not set is not
/// sent: no deadline, an attempt of 0 (there is no retry), the default criticality. Headers of these names that the request came
/// with are removed: a proxy must not pass on what its own caller claims, unless an [`AcceptContextLayer`](super::AcceptContextLayer) has taken it up.
///
/// Differences from a `tower_http::set_header` layer: the values are of the moment of the call, and nothing is sent where there is
/// nothing to say. A call without an ambient context costs three lookups in the header map.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::{Request, Response};
/// use mainstay::context::Context;
/// use mainstay::http::{DEADLINE_MS, PropagateLayer};
/// use tower::{Service, ServiceBuilder, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let mut client = ServiceBuilder::new().layer(PropagateLayer::new()).service(service_fn(|request: Request<()>| async move {
///     Ok::<_, std::io::Error>(Response::new(request.headers()[DEADLINE_MS].clone()))
/// }));
/// let deadline = tokio::time::Instant::now() + Duration::from_millis(750);
/// let call = Context::new().with_deadline(deadline).enter(|| client.call(Request::new(())));
/// assert_eq!(call.await.unwrap().into_body(), "750");
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PropagateLayer {
    _private: (),
}

/// The service that [`PropagateLayer`] makes.
///
/// # Examples
///
/// ```
/// let service = mainstay::http::Propagate::new("a client");
/// assert_eq!(service.get_ref(), &"a client");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Propagate<S> {
    inner: S,
}

// === impl PropagateLayer ===

impl PropagateLayer {
    /// The layer; it has no settings.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::http::PropagateLayer::new();
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for PropagateLayer {
    type Service = Propagate<S>;

    fn layer(&self, inner: S) -> Propagate<S> {
        Propagate::new(inner)
    }
}

// === impl Propagate ===

impl<S> Propagate<S> {
    /// Wraps `inner`.
    ///
    /// # Examples
    ///
    /// ```
    /// let service = mainstay::http::Propagate::new(());
    /// # let _ = service;
    /// ```
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }
}

crate::macros::wrapper_methods!(Propagate<S>, "mainstay::http::PropagateLayer::new()");

impl<S, B> Service<Request<B>> for Propagate<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let context = context::current();
        let deadline =
            context.deadline().map(|deadline| millis(deadline.saturating_duration_since(Instant::now())).into());
        let attempt = (context.attempt() > 0).then(|| context.attempt().into());
        let criticality = (context.criticality() != Criticality::default())
            .then(|| HeaderValue::from_static(context.criticality().as_str()));
        set(&mut request, DEADLINE_MS, deadline);
        set(&mut request, ATTEMPT, attempt);
        set(&mut request, CRITICALITY, criticality);
        self.inner.call(request)
    }
}

fn set<B>(request: &mut Request<B>, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => {
            request.headers_mut().insert(name, value);
        }
        None => {
            request.headers_mut().remove(name);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
