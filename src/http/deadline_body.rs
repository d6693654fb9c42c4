//! [`DeadlineBodyLayer`]: the body of a response is under the caller's deadline, too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::context;
use crate::error::{Error, Rejected};
use crate::timer::Timer;

/// Ends the bodies of responses at the ambient deadline.
///
/// A timeout around a call ends with the head of the response: a body that streams for minutes is not covered by
/// [`TimeoutLayer::total`](crate::TimeoutLayer::total). This layer wraps each body into a [`DeadlineBody`] with the deadline that is
/// in effect when the response is made. Put it below what sets the deadline: a total timeout, or an
/// [`AcceptContextLayer`](super::AcceptContextLayer) on a server. Without a deadline bodies are passed on as they are, at no cost.
///
/// Leave it out for streams that live long by intent, or give these calls no deadline.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body::Frame;
/// use http_body_util::{BodyExt, StreamBody};
/// use mainstay::http::DeadlineBodyLayer;
/// use mainstay::{BoxError, Rejectable, Rejected, TimeoutLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// let client = ServiceBuilder::new()
///     .layer(TimeoutLayer::total("export", Duration::from_secs(2))?)
///     .layer(DeadlineBodyLayer::new())
///     .service(service_fn(|_: Request<()>| async {
///         // One row a second, without end.
///         let rows = futures_util::stream::unfold((), |()| async {
///             tokio::time::sleep(Duration::from_secs(1)).await;
///             Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from("row\n"))), ()))
///         });
///         Ok::<_, BoxError>(Response::new(StreamBody::new(Box::pin(rows))))
///     }));
/// let mut body = Box::pin(ServiceExt::oneshot(client, Request::new(())).await?.into_body());
/// assert_eq!(body.frame().await.unwrap()?.into_data().unwrap(), "row\n");
/// let error = body.frame().await.unwrap().unwrap_err();
/// assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: true }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineBodyLayer {
    _private: (),
}

/// The service that [`DeadlineBodyLayer`] makes.
///
/// # Examples
///
/// ```
/// use tower::Layer;
///
/// let service = mainstay::http::DeadlineBodyLayer::new().layer("a client");
/// assert_eq!(service.get_ref(), &"a client");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DeadlineBodies<S> {
    inner: S,
}

pin_project! {
    /// The response future of [`DeadlineBodies`].
    ///
    /// # Panics
    ///
    /// Where the inner future does when it is polled after it has completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, and nothing else.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Full};
    /// use mainstay::http::DeadlineBodyLayer;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut client = DeadlineBodyLayer::new().layer(service_fn(|_: Request<()>| async {
    ///     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("answer"))))
    /// }));
    /// let response = client.call(Request::new(())).await?;
    /// assert_eq!(response.into_body().collect().await?.to_bytes(), "answer");
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct DeadlineBodyFuture<F> {
        #[pin]
        inner: F,
    }
}

pin_project! {
    /// A body that fails at a deadline with [`Rejected::DeadlineExceeded { sent: true }`](Rejected::DeadlineExceeded).
    ///
    /// The timer is armed when the inner body is first pending. A body that completes wins over a deadline that has passed; data after
    /// which more would follow does not, so a body that is never pending ends as well. At the deadline the inner body is dropped at
    /// once, and this one has ended.
    ///
    /// It holds its timer in itself and so is not `Unpin`; `BodyExt::boxed` boxes and pins it.
    ///
    /// # Cancel safety
    ///
    /// A wait for a frame that is dropped loses no frame.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Full};
    /// use mainstay::http::DeadlineBody;
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let body = DeadlineBody::new(Full::new(Bytes::from("whole")), Some(Instant::now()));
    /// assert_eq!(body.collect().await?.to_bytes(), "whole", "there was nothing to wait for");
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct DeadlineBody<B> {
        // `None` once the time was up.
        #[pin]
        inner: Option<B>,
        #[pin]
        timer: Timer,
        deadline: Option<Instant>,
    }
}

// === impl DeadlineBodyLayer ===

impl DeadlineBodyLayer {
    /// The layer; it has no settings.
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for DeadlineBodyLayer {
    type Service = DeadlineBodies<S>;

    fn layer(&self, inner: S) -> DeadlineBodies<S> {
        DeadlineBodies { inner }
    }
}

// === impl DeadlineBodies ===

crate::macros::wrapper_methods!(DeadlineBodies<S>, "mainstay::http::DeadlineBodyLayer::new()");

impl<S, Req, B> Service<Req> for DeadlineBodies<S>
where
    S: Service<Req, Response = Response<B>>,
{
    type Response = Response<DeadlineBody<B>>;
    type Error = S::Error;
    type Future = DeadlineBodyFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        DeadlineBodyFuture { inner: self.inner.call(request) }
    }
}

// === impl DeadlineBodyFuture ===

impl<F, B, E> Future for DeadlineBodyFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<DeadlineBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(cx))?;
        Poll::Ready(Ok(response.map(|body| DeadlineBody::new(body, context::deadline()))))
    }
}

// === impl DeadlineBody ===

impl<B> DeadlineBody<B> {
    /// Ends `body` at `deadline`; `None` is no limit.
    pub const fn new(body: B, deadline: Option<Instant>) -> Self {
        Self { inner: Some(body), timer: Timer::new(), deadline }
    }
}

impl<B: Body> Body for DeadlineBody<B> {
    type Data = B::Data;
    type Error = Error<B::Error>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let polled = inner.as_mut().poll_frame(cx);
        let Some(deadline) = *this.deadline else {
            return polled.map(|frame| frame.map(|frame| frame.map_err(Error::Service)));
        };
        match polled {
            Poll::Ready(frame) => {
                let more_follows = matches!(&frame, Some(Ok(frame)) if frame.is_data()) && !inner.is_end_stream();
                if !more_follows || Instant::now() < deadline {
                    return Poll::Ready(frame.map(|frame| frame.map_err(Error::Service)));
                }
            }
            Poll::Pending => ready!(this.timer.as_mut().poll_against(deadline, cx)),
        }
        this.inner.set(None);
        Poll::Ready(Some(Err(Error::Rejected(Rejected::DeadlineExceeded { sent: true }))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
