//! [`ReplayLayer`]: bodies that stream, kept as they are sent, so that they can be sent again.

use std::task::{Context, Poll};

use ::http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::replay_body::ReplayBody;
use crate::retry::RequestPolicy;

/// Turns the body of each request into a [`ReplayBody`]; goes right above a retry with [`ReplayBodies`].
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use mainstay::http::{ReplayBodies, ReplayBody, ReplayLayer};
/// use mainstay::{BoxError, RetryLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// let client = ServiceBuilder::new()
///     .layer(ReplayLayer::new(64 * 1024))
///     .layer(RetryLayer::builder("uploads").requests(ReplayBodies::new()).http().build()?)
///     .service(service_fn(|request: Request<ReplayBody<Full<Bytes>>>| async move {
///         let body = request.into_body().collect().await?.to_bytes();
///         let status = if mainstay::context::current().attempt() == 1 { 503 } else { 200 };
///         Ok::<_, BoxError>(Response::builder().status(status).body(body)?)
///     }));
/// let request = Request::put("/file").body(Full::from("as it was"))?;
/// assert_eq!(client.oneshot(request).await?.into_body(), "as it was");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReplayLayer {
    cap: usize,
}

/// The service that [`ReplayLayer`] makes.
///
/// # Examples
///
/// ```
/// use tower::Layer;
///
/// let service = mainstay::http::ReplayLayer::new(1024).layer("a retry");
/// assert_eq!(service.get_ref(), &"a retry");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Replay<S> {
    inner: S,
    cap: usize,
}

/// Lets a retry send requests with a [`ReplayBody`] again, as long as everything that was read of the body is still kept.
///
/// A client may go on reading the body of an attempt after its answer has come, also while the retry waits for the next attempt. If
/// the body grows beyond the cap or fails in that time, the call gives up
/// ([`NotReplayable`](crate::retry::GiveUpReason::NotReplayable)) and returns the last result, which is held for that long: the retry
/// keeps a response through its delay only while the body of the request is still being read.
///
/// By itself it takes every request to be repeatable; with [`RetryBuilder::http`](crate::retry::RetryBuilder::http), set before or after
/// it, the method decides.
///
/// # Examples
///
/// ```
/// use mainstay::http::ReplayBodies;
///
/// let layer = mainstay::RetryLayer::builder("uploads").requests(ReplayBodies::new()).http().build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayBodies {
    _private: (),
}

// === impl ReplayLayer ===

impl ReplayLayer {
    /// Keeps up to `cap` bytes of each body; with 0 only an empty one, or one of which nothing was read, is sent again.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::http::ReplayLayer::new(64 * 1024);
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self { cap }
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Replay<S> {
        Replay { inner, cap: self.cap }
    }
}

// === impl Replay ===

crate::macros::wrapper_methods!(Replay<S>, "mainstay::http::ReplayLayer::new(1024)");

impl<S, B> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner.call(request.map(|body| ReplayBody::new(body, self.cap)))
    }
}

// === impl ReplayBodies ===

impl ReplayBodies {
    /// The policy; it has no settings.
    ///
    /// # Examples
    ///
    /// ```
    /// let policy = mainstay::http::ReplayBodies::new();
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

crate::retry::replaced! {
    ReplayBodies;
}

impl<B> RequestPolicy<Request<ReplayBody<B>>> for ReplayBodies {
    fn states_idempotency(&self) -> bool {
        false
    }

    fn try_clone(&self, request: &Request<ReplayBody<B>>) -> Option<Request<ReplayBody<B>>> {
        let mut copy = Request::new(request.body().again());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }

    fn is_replayable(&self, copy: &Request<ReplayBody<B>>) -> bool {
        copy.body().is_replayable()
    }

    fn may_be_lost(&self, copy: &Request<ReplayBody<B>>) -> bool {
        copy.body().may_be_lost()
    }
}
