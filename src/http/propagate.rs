//! [`PropagateLayer`]: the ambient context goes out as headers.

use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::context_headers::{ContextHeaders, SharedHeaders};
use super::grpc_timeout::{GRPC_TIMEOUT, format_grpc_timeout, parse_grpc_timeout};
use crate::InvalidConfig;
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
#[derive(Clone, Debug, Default)]
pub struct PropagateLayer {
    headers: SharedHeaders,
}

/// The service that [`PropagateLayer`] makes.
///
/// # Examples
///
/// ```
/// let service = mainstay::http::Propagate::new("a client");
/// assert_eq!(service.get_ref(), &"a client");
/// ```
#[derive(Clone, Debug)]
pub struct Propagate<S> {
    inner: S,
    headers: SharedHeaders,
}

// === impl PropagateLayer ===

impl PropagateLayer {
    /// The layer, with the [default names](ContextHeaders::new) of headers.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::http::PropagateLayer::new();
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { headers: SharedHeaders::DEFAULT }
    }

    /// Writes these headers instead of the default ones.
    ///
    /// # Errors
    ///
    /// When a name is [used twice](ContextHeaders::validate).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::{ContextHeaders, PropagateLayer};
    ///
    /// // For a gRPC client: the deadline goes out as `grpc-timeout` too, which every gRPC server understands.
    /// let layer = PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(true))?;
    /// # let _ = layer;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn headers(mut self, headers: ContextHeaders) -> Result<Self, InvalidConfig> {
        self.headers = SharedHeaders::new(headers)?;
        Ok(self)
    }
}

impl<S> Layer<S> for PropagateLayer {
    type Service = Propagate<S>;

    fn layer(&self, inner: S) -> Propagate<S> {
        Propagate { inner, headers: self.headers.clone() }
    }
}

// === impl Propagate ===

impl<S> Propagate<S> {
    /// Wraps `inner`, with the default names of headers.
    ///
    /// # Examples
    ///
    /// ```
    /// let service = mainstay::http::Propagate::new(());
    /// # let _ = service;
    /// ```
    pub const fn new(inner: S) -> Self {
        Self { inner, headers: SharedHeaders::DEFAULT }
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
        let remaining = context.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let attempt = (context.attempt() > 0).then(|| context.attempt().into());
        let criticality = (context.criticality() != Criticality::default())
            .then(|| HeaderValue::from_static(context.criticality().as_str()));
        let (names, headers) = (self.headers.get(), request.headers_mut());
        set(headers, &names.deadline_ms, remaining.map(|remaining| millis(remaining).into()));
        set(headers, &names.attempt, attempt);
        set(headers, &names.criticality, criticality);
        if let Some(remaining) = remaining
            && names.grpc_timeout
        {
            limit_grpc_timeout(headers, remaining);
        }
        self.inner.call(request)
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => {
            headers.insert(name.clone(), value);
        }
        None => {
            headers.remove(name);
        }
    }
}

/// The client's own limit stays where it is the nearer one.
fn limit_grpc_timeout(headers: &mut HeaderMap, remaining: Duration) {
    let own = headers.get(GRPC_TIMEOUT).and_then(parse_grpc_timeout);
    if own.is_none_or(|own| remaining < own) {
        headers.insert(GRPC_TIMEOUT, format_grpc_timeout(remaining));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
