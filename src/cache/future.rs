//! [`ResponseFuture`]: the response future.

use std::fmt::{self, Display};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::key::CacheKey;
use super::miss::Miss;
use super::store::Store;
use crate::error::Rejectable;
use crate::outcome::Classify;

pin_project! {
    /// The response future of [`Cache`](super::Cache).
    ///
    /// A hit is decided when the call is made: the future holds the answer, and neither allocates nor waits. A miss keeps its
    /// state in one allocation; the load itself runs as a task of its own.
    ///
    /// # Panics
    ///
    /// If it is polled after it has completed. A miss that is polled outside a tokio runtime, since it has to start a load. A panic of the inner service, or of a hook
    /// that judges its answer, goes on in the call that led the load.
    ///
    /// # Cancel safety
    ///
    /// Dropping it takes the caller off the flight and nothing more: a load that has begun is finished and stored, for the other
    /// callers on it and for the next. A load that has not begun yet and that nobody else waits for is called off. A call that is
    /// not cached drops its inner call.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::CacheLayer::builder("squares").key(|n: &u32| Some(*n)).build()?;
    /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let response = service.ready().await?.call(1);
    /// assert_eq!(response.await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, V, C, St>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, K, V, C, St>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, K, V, C, St>
    where
        S: Service<Req>,
    {
        Answered { answer: Option<Result<V, S::Error>> },
        Uncached {
            inner: S,
            request: Option<Req>,
            #[pin]
            call: Option<S::Future>,
        },
        Missed { miss: Box<Miss<S, Req, K, V, C, St, S::Error>> },
    }
}

// === impl ResponseFuture ===

impl<S, Req, K, V, C, St> ResponseFuture<S, Req, K, V, C, St>
where
    S: Service<Req>,
{
    #[inline]
    pub(crate) const fn answered(answer: Result<V, S::Error>) -> Self {
        Self { state: State::Answered { answer: Some(answer) } }
    }

    pub(crate) const fn uncached(inner: S, request: Req) -> Self {
        Self { state: State::Uncached { inner, request: Some(request), call: None } }
    }

    pub(crate) fn missed(miss: Miss<S, Req, K, V, C, St, S::Error>) -> Self {
        Self { state: State::Missed { miss: Box::new(miss) } }
    }
}

impl<S, Req, K, V, C, St> Future for ResponseFuture<S, Req, K, V, C, St>
where
    S: Service<Req, Response = V> + Send + 'static,
    S::Future: Send,
    S::Error: Rejectable + Display + Send + 'static,
    Req: Send + 'static,
    K: CacheKey,
    V: Clone + Send + Sync + 'static,
    C: Classify<V, S::Error> + Send + Sync + 'static,
    St: Store<K, V>,
{
    type Output = Result<V, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Answered { answer } => match answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => panic!("a cache's future was polled after its end"),
            },
            StateProjection::Uncached { inner, request, call } => poll_uncached(inner, request, call, cx),
            StateProjection::Missed { miss } => miss.poll(cx),
        }
    }
}

/// Out of the way of hits.
#[inline(never)]
fn poll_uncached<S: Service<Req>, Req>(
    inner: &mut S,
    request: &mut Option<Req>,
    mut call: Pin<&mut Option<S::Future>>,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Response, S::Error>> {
    if let Some(waiting) = request.take() {
        match inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => call.set(Some(inner.call(waiting))),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                *request = Some(waiting);
                return Poll::Pending;
            }
        }
    }
    match call.as_mut().as_pin_mut() {
        Some(running) => {
            let answer = ready!(running.poll(cx));
            call.set(None);
            Poll::Ready(answer)
        }
        None => panic!("a cache's future was polled after its end"),
    }
}

impl<S, Req, K, V, C, St> fmt::Debug for ResponseFuture<S, Req, K, V, C, St>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Answered { .. } => "answered",
            State::Uncached { .. } => "uncached",
            State::Missed { .. } => "missed",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
