//! [`Ready`] and [`Oneshot`]: the futures of the services' own `ready` and `oneshot`.
//!
//! They have names, and [`Oneshot`] names the response future, because of what the compiler does inside of `async` blocks: it
//! forgets lifetimes (rust-lang/rust issue 110338), and then looks for an implementation of `Service` for every lifetime that the
//! error could have. A cache, whose error must be `'static`, or a classifier that is a closure over `BoxError` has no such
//! implementation. With the response future named, none is looked for.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

/// The future of a service's own `ready`: the service, once it can take a call.
///
/// # Panics
///
/// When polled after completion.
///
/// # Cancel safety
///
/// Dropping it loses nothing.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::TelemetryLayer;
/// use mainstay::{BoxError, Ready};
/// use tower::{Layer, Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let mut service = TelemetryLayer::new("jobs").layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
/// let ready: Ready<'_, _, u32> = service.ready();
/// assert_eq!(ready.await?.call(1).await?, 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Ready<'a, S, Req> {
    service: Option<&'a mut S>,
    request: PhantomData<fn(Req)>,
}

pin_project! {
    /// The future of a service's own `oneshot`: waits until the service is ready, then makes one call.
    ///
    /// `F` is the response future of `S` for `Req`. Because it has a name, a spawned task or a handler that calls `oneshot` compiles
    /// also where `tower`'s `ServiceExt::oneshot` does not ("implementation is not general enough"): with a classifier that is a
    /// closure over a [`BoxError`](crate::BoxError) or that has rules for errors, with a cache, and with a boxed error that was
    /// lifted. Boxing the service (`tower::util::BoxCloneSyncService`) helps in any case.
    ///
    /// # Panics
    ///
    /// When polled after completion.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the call; see the response future.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::TelemetryLayer;
    /// use mainstay::{BoxError, Oneshot};
    /// use tower::{Layer, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let service = TelemetryLayer::new("jobs").layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let call: Oneshot<_, u32, _> = service.oneshot(1);
    /// assert_eq!(call.await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct Oneshot<S, Req, F> {
        service: S,
        request: Option<Req>,
        #[pin]
        call: Option<F>,
    }
}

// === impl Ready ===

impl<'a, S, Req> Ready<'a, S, Req> {
    pub(crate) const fn new(service: &'a mut S) -> Self {
        Self { service: Some(service), request: PhantomData }
    }
}

impl<'a, S: Service<Req>, Req> Future for Ready<'a, S, Req> {
    type Output = Result<&'a mut S, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let service = self.service.take().expect("`Ready` polled after completion");
        match service.poll_ready(cx) {
            Poll::Pending => {
                self.service = Some(service);
                Poll::Pending
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(service)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

impl<S, Req> fmt::Debug for Ready<'_, S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

// === impl Oneshot ===

impl<S, Req, F> Oneshot<S, Req, F> {
    pub(crate) const fn new(service: S, request: Req) -> Self {
        Self { service, request: Some(request), call: None }
    }
}

impl<S, Req, F> Future for Oneshot<S, Req, F>
where
    S: Service<Req, Future = F>,
    F: Future<Output = Result<S::Response, S::Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.call.is_none() {
            let request = this.request.take().expect("`Oneshot` polled after completion");
            match this.service.poll_ready(cx) {
                Poll::Pending => {
                    *this.request = Some(request);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => this.call.set(Some(this.service.call(request))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        this.call.as_pin_mut().expect("the call was made above").poll(cx)
    }
}

impl<S, Req, F> fmt::Debug for Oneshot<S, Req, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oneshot").field("called", &self.call.is_some()).finish_non_exhaustive()
    }
}
