//! [`StreamBreakerLayer`]: a circuit breaker whose calls end with the body.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::classify_end::ClassifyEnd;
use super::on_end::{OnEnd, OnEndBody};
use crate::circuit_breaker::{Admits, CircuitBreakerHandle, Ending, Permit, Waiter, judge_call};
use crate::context::{self, DeadlineScope};
use crate::cores::unwind::on_unwind;
use crate::error::{CircuitOpen, Rejectable, Rejected};
use crate::outcome::{Classify, Outcome};

/// Asks a circuit breaker for admission, and gives the verdict when the *body* of the response has ended.
///
/// A [`CircuitBreakerLayer`](crate::CircuitBreakerLayer) judges the head: a server that answers 200 and breaks off, or a gRPC server, whose
/// status comes last, is healthy to it. Here the permit goes along with the body. A call that fails with its head is judged
/// there; so is one whose head is [final](ClassifyEnd::is_final), and one without a body (by its status, or as it says itself: nobody
/// polls those). A body whose poll panics is a failure. One that is dropped before its end counts as
/// abandoned, which is a failure if [`abandoned_is_failure`](crate::CircuitBreakerConfig::abandoned_is_failure) says so. The
/// time of a call, for slow calls, is the time to the end of its body: for streams that live long by intent leave
/// [`slow_calls`](crate::CircuitBreakerConfig::slow_calls) unset. A probe of a half-open circuit holds its slot until then.
///
/// It takes the handle of a breaker, and so shares that one with whoever else uses it. Do not put it around, or into, a layer of the
/// same breaker: each call would count twice.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use mainstay::http::StreamBreakerLayer;
/// use mainstay::{BoxError, CircuitBreakerHandle, HttpClassifier};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let breaker = CircuitBreakerHandle::builder("files").build_handle()?;
/// let layer = StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new());
/// let client = layer.layer(service_fn(|_: Request<()>| async {
///     Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("answer"))))
/// }));
/// let response = ServiceExt::oneshot(client, Request::new(())).await?;
/// assert_eq!(breaker.statistics().calls(), 0, "it runs");
/// response.into_body().collect().await?;
/// assert_eq!(breaker.statistics().successes, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StreamBreakerLayer<C> {
    handle: CircuitBreakerHandle,
    classifier: C,
}

/// The service that [`StreamBreakerLayer`] makes.
///
/// # Examples
///
/// ```
/// use mainstay::http::StreamBreakerLayer;
/// use mainstay::{CircuitBreakerHandle, HttpClassifier};
/// use tower::Layer;
///
/// let breaker = CircuitBreakerHandle::builder("files").build_handle()?;
/// let service = StreamBreakerLayer::new(breaker, HttpClassifier::new()).layer("a client");
/// assert_eq!(service.get_ref(), &"a client");
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Debug)]
pub struct StreamBreaker<S, C> {
    inner: S,
    handle: CircuitBreakerHandle,
    classifier: C,
    /// Whether this very inner service has said that it is ready and has not been called since.
    inner_ready: bool,
    /// Its place in the queue while it waits for the circuit, and its turn until the call that it waited for.
    waiter: Option<Box<Waiter>>,
    /// The rejection of a wait that was in vain, until a call has been told.
    refused: Option<CircuitOpen>,
}

/// What is held until a body has ended; see [`OnEndBody`].
///
/// # Examples
///
/// ```
/// use mainstay::HttpClassifier;
/// use mainstay::http::{OnEndBody, StreamVerdict};
///
/// type Body = OnEndBody<http_body_util::Full<bytes::Bytes>, StreamVerdict<HttpClassifier>>;
/// fn read(response: http::Response<Body>) {
///     drop(response);
/// }
/// # let _ = read;
/// ```
#[derive(Debug)]
pub struct StreamVerdict<C> {
    permit: Begun,
    classifier: C,
    /// The caller's, of the time of the head: the body may be read outside of every context.
    deadline: Option<Instant>,
}

/// The permit of a call whose answer has begun. Dropped without a verdict, the call is abandoned, but it was answered.
#[derive(Debug)]
struct Begun(Option<Permit>);

pin_project! {
    /// The response future of [`StreamBreaker`].
    ///
    /// # Panics
    ///
    /// When it is polled after it has completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future and counts the call as abandoned.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Empty;
    /// use mainstay::http::StreamBreakerLayer;
    /// use mainstay::{BoxError, CircuitBreakerHandle, HttpClassifier};
    /// use tower::{Layer, Service, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let breaker = CircuitBreakerHandle::builder("files").build_handle()?;
    /// let mut client = StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new()).layer(service_fn(|()| async {
    ///     Ok::<_, BoxError>(http::Response::new(Empty::<Bytes>::new()))
    /// }));
    /// drop(ServiceExt::ready(&mut client).await?.call(()));
    /// assert_eq!(breaker.statistics().abandoned, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct StreamBreakerFuture<F, C> {
        #[pin]
        inner: Option<F>,
        // With the deadline of the caller.
        verdict: Option<(Permit, C, Option<Instant>)>,
        refused: Option<CircuitOpen>,
    }
}

// === impl StreamBreakerLayer ===

impl<C> StreamBreakerLayer<C> {
    /// Judges by `classifier`, for the breaker of `handle`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::StreamBreakerLayer;
    /// use mainstay::{CircuitBreakerHandle, HttpClassifier};
    ///
    /// let breaker = CircuitBreakerHandle::builder("files").build_handle()?;
    /// let layer = StreamBreakerLayer::new(breaker, HttpClassifier::new());
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn new(handle: CircuitBreakerHandle, classifier: C) -> Self {
        Self { handle, classifier }
    }
}

impl<S, C: Clone> Layer<S> for StreamBreakerLayer<C> {
    type Service = StreamBreaker<S, C>;

    fn layer(&self, inner: S) -> StreamBreaker<S, C> {
        StreamBreaker::new(inner, self.handle.clone(), self.classifier.clone())
    }
}

// === impl StreamBreaker ===

impl<S, C> StreamBreaker<S, C> {
    const fn new(inner: S, handle: CircuitBreakerHandle, classifier: C) -> Self {
        Self { inner, handle, classifier, inner_ready: false, waiter: None, refused: None }
    }

    /// Whether the inner service is to be asked: `false` when `call` is going to reject.
    fn poll_breaker(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.inner_ready && (self.waiter.is_some() || self.handle.has_to_wait()) {
            let waiter = self.waiter.get_or_insert_with(|| Box::new(Waiter::new(self.handle.clone())));
            return match ready!(waiter.poll(cx)) {
                Ok(()) => Poll::Ready(true),
                Err(open) => {
                    (self.waiter, self.refused) = (None, Some(open));
                    Poll::Ready(false)
                }
            };
        }
        // The inner service keeps what readiness it has: `call` may use it if the circuit admits a probe by then.
        Poll::Ready(
            self.inner_ready && self.handle.has_to_wait() || !matches!(self.handle.admits(), Admits::Nothing { .. }),
        )
    }

    /// Whatever the breaker would say now, an unready service is never called.
    fn acquire(&mut self) -> Result<Permit, CircuitOpen> {
        let waiter = self.waiter.take();
        if !self.inner_ready {
            return Err(match self.refused.take() {
                Some(open) => self.handle.rejected(open),
                None => self.handle.refuse(),
            });
        }
        match waiter {
            Some(mut waiter) => waiter.acquire(),
            None => self.handle.try_acquire(),
        }
    }
}

crate::macros::wrapper_methods!(
    StreamBreaker<S, C>,
    "mainstay::http::StreamBreakerLayer::new(mainstay::CircuitBreakerHandle::builder(\"db\").build_handle()?, ())"
);

/// A clone has made nothing ready yet.
impl<S: Clone, C: Clone> Clone for StreamBreaker<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.handle.clone(), self.classifier.clone())
    }
}

impl<S, C, Req, B> Service<Req> for StreamBreaker<S, C>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: Rejectable,
    B: Body,
    C: Classify<Response<B>, S::Error> + ClassifyEnd<B::Error> + Clone,
{
    type Response = Response<OnEndBody<B, StreamVerdict<C>>>;
    type Error = S::Error;
    type Future = StreamBreakerFuture<S::Future, C>;

    /// Ready at once while the breaker rejects, so that `call` can return the rejection; pending while the call waits for the
    /// circuit. Otherwise ready when the inner service is.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !ready!(self.poll_breaker(cx)) {
            return Poll::Ready(Ok(()));
        }
        self.inner_ready = false;
        ready!(self.inner.poll_ready(cx))?;
        self.inner_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let permit = match self.acquire() {
            Ok(permit) => permit,
            Err(open) => return StreamBreakerFuture { inner: None, verdict: None, refused: Some(open) },
        };
        self.inner_ready = false;
        let mut verdict = Some((permit, self.classifier.clone(), context::deadline()));
        let inner = &mut self.inner;
        let inner = on_unwind(|| panicked(&mut verdict), || inner.call(request));
        StreamBreakerFuture { inner: Some(inner), verdict, refused: None }
    }
}

/// Whether an answer of this status can have a body at all (RFC 9110, sections 15.3.5 and 15.4.5).
const fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A panic of the callee is a failure of it.
#[cold]
fn panicked<C>(verdict: &mut Option<(Permit, C, Option<Instant>)>) {
    if let Some((permit, ..)) = verdict.take() {
        permit.record(Outcome::Permanent);
    }
}

/// The call is over: a permit that the classifier's panic dropped would say that the caller had left.
fn judged<R>(permit: &mut Option<Permit>, classify: impl FnOnce() -> R) -> R {
    on_unwind(|| record(permit.take(), Outcome::Permanent, Ending::Answered), classify)
}

fn record(permit: Option<Permit>, outcome: Outcome, ending: Ending) {
    if let Some(permit) = permit {
        permit.record_ending(outcome, ending);
    }
}

// === impl StreamBreakerFuture ===

impl<F, C, B, E> Future for StreamBreakerFuture<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Rejectable,
    B: Body,
    C: Classify<Response<B>, E> + ClassifyEnd<B::Error>,
{
    type Output = Result<Response<OnEndBody<B, StreamVerdict<C>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(open) = this.refused.take() {
            return Poll::Ready(Err(E::from_rejected(Rejected::CircuitOpen(open))));
        }
        assert!(this.verdict.is_some(), "`StreamBreakerFuture` polled after completion");
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Pending };
        let result = ready!(on_unwind(|| panicked(this.verdict), || inner.poll(cx)));
        let Some((permit, classifier, deadline)) = this.verdict.take() else { return Poll::Pending };
        let mut permit = Some(permit);
        let (outcome, ending) = judged(&mut permit, || judge_call(&classifier, result.as_ref()));
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                record(permit, outcome, ending);
                return Poll::Ready(Err(error));
            }
        };
        let (head, body) = response.into_parts();
        let body = match permit {
            Some(permit) if outcome.is_success() && has_body(head.status) && !classifier.is_final(&head.headers) => {
                OnEndBody::of(body, StreamVerdict { permit: Begun(Some(permit)), classifier, deadline })
            }
            permit => {
                record(permit, outcome, ending);
                OnEndBody::ended(body)
            }
        };
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}

// === impl StreamVerdict ===

impl<C: ClassifyEnd<E>, E> OnEnd<E> for StreamVerdict<C> {
    fn ended(self, end: Result<Option<&HeaderMap>, &E>) {
        let Self { mut permit, classifier, deadline } = self;
        let outcome =
            judged(&mut permit.0, || context::within(&mut DeadlineScope(deadline), || classifier.classify_end(end)));
        record(permit.0.take(), outcome, Ending::Answered);
    }

    fn ends_with_data(&self) -> bool {
        self.classifier.ends_with_data()
    }

    fn panicked(mut self) {
        record(self.permit.0.take(), Outcome::Permanent, Ending::Answered);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.leave(Ending::Answered);
        }
    }
}
