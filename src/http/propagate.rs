//! [`PropagateLayer`]: the ambient context goes out as headers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::context_headers::{ContextHeaders, SharedHeaders};
use super::grpc_timeout::{GRPC_TIMEOUT, format_grpc_timeout, parse_grpc_timeout};
use crate::InvalidConfig;
use crate::context::{self, Criticality};
use crate::error::{Rejectable, Rejected};

/// The least time that the header can express.
const LEAST: Duration = Duration::from_millis(1);

/// Sends the ambient deadline (as what is left of it), attempt and criticality along with each request.
///
/// What is sent as the deadline is the [nearer](crate::context::Context::propagated_deadline) of the caller's deadline and the end of
/// the attempt's timeout: past either of them the answer is no longer waited for.
///
/// Put it right around the client, below retries and timeouts, so that each attempt says what holds for it. What is not set is not
/// sent: no deadline, an attempt of 0 (there is no retry), the default criticality. Headers of these names that the request came
/// with are removed: a proxy must not pass on what its own caller claims, unless an [`AcceptContextLayer`](super::AcceptContextLayer) has taken it up.
///
/// A call whose time is up is not sent: with less than a millisecond left until the deadline, or with a `grpc-timeout` of zero that the
/// client set itself, it fails with [`Rejected::DeadlineExceeded { sent: false }`](Rejected::DeadlineExceeded). A zero never goes out:
/// servers take it for a malformed request, and their answer would look like a failure of theirs. The error of the client must be
/// able to carry that ([`Rejectable`]): where it cannot, put a [`LiftLayer`](crate::LiftLayer) between this layer and the client.
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
///     Ok::<_, mainstay::BoxError>(Response::new(request.headers()[DEADLINE_MS].clone()))
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

pin_project! {
    /// The response future of [`Propagate`].
    ///
    /// # Panics
    ///
    /// When it is polled after it has completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, and nothing else.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use mainstay::BoxError;
    /// use mainstay::http::PropagateLayer;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let mut client =
    ///     PropagateLayer::new().layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new("answer")) }));
    /// let response: Response<_> = client.call(Request::new(())).await?;
    /// assert_eq!(*response.body(), "answer");
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct PropagateFuture<F> {
        // `None` for a call whose time is up.
        #[pin]
        inner: Option<F>,
        is_rejected: bool,
    }
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
    S::Error: Rejectable,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = PropagateFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = context::current();
        let names = self.headers.get();
        let now = context.propagated_deadline().map(|_| Instant::now());
        let left_until = |at: Option<Instant>| Some(at?.saturating_duration_since(now?));
        if left_until(context.deadline()).is_some_and(|left| left < LEAST)
            || (names.grpc_timeout && own_grpc_timeout(request.headers()).is_some_and(|own| own.is_zero()))
        {
            return PropagateFuture { inner: None, is_rejected: true };
        }
        // An attempt with less than that left is cut by its own timer.
        let remaining = left_until(context.propagated_deadline()).map(|left| left.max(LEAST));
        let attempt = (context.attempt() > 0).then(|| context.attempt().into());
        let criticality = (context.criticality() != Criticality::default())
            .then(|| HeaderValue::from_static(context.criticality().as_str()));
        let headers = request.headers_mut();
        set(headers, &names.deadline_ms, remaining.map(|remaining| millis(remaining).into()));
        set(headers, &names.attempt, attempt);
        set(headers, &names.criticality, criticality);
        if let Some(remaining) = remaining
            && names.grpc_timeout
        {
            limit_grpc_timeout(headers, remaining);
        }
        PropagateFuture { inner: Some(self.inner.call(request)), is_rejected: false }
    }
}

// === impl PropagateFuture ===

impl<F, R, E> Future for PropagateFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Rejectable,
{
    type Output = Result<R, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(inner) = this.inner.as_pin_mut() {
            return inner.poll(cx);
        }
        assert!(std::mem::take(this.is_rejected), "`PropagateFuture` polled after completion");
        Poll::Ready(Err(E::from_rejected(Rejected::DeadlineExceeded { sent: false })))
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
    if own_grpc_timeout(headers).is_none_or(|own| remaining < own) {
        headers.insert(GRPC_TIMEOUT, format_grpc_timeout(remaining));
    }
}

/// What the client itself set.
fn own_grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    headers.get(GRPC_TIMEOUT).and_then(parse_grpc_timeout)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
