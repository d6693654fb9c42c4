//! [`LiftLayer`]: gives a service an error that can carry a refusal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::Error;

/// Turns the inner service's error `E` into [`Error<E>`], so that the layers above can refuse.
///
/// Put it once, right around the service whose error cannot carry a [`Rejected`](crate::Rejected).
///
/// # Examples
///
/// ```
/// use mainstay::{Error, LiftLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(LiftLayer::new())
///     .service(service_fn(|_: ()| async { Err::<(), std::fmt::Error>(std::fmt::Error) }));
/// assert_eq!(service.oneshot(()).await, Err(Error::Service(std::fmt::Error)));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LiftLayer {
    _private: (),
}

/// The service that [`LiftLayer`] makes.
///
/// # Examples
///
/// ```
/// use mainstay::Lift;
///
/// let lifted = Lift::new("any service");
/// assert_eq!(lifted.get_ref(), &"any service");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lift<S> {
    inner: S,
}

pin_project! {
    /// The response future of [`Lift`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, and nothing else.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Error, LiftLayer, Rejectable};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut service = LiftLayer::new().layer(service_fn(|_: ()| async { Err::<(), _>("no route to host") }));
    /// let error: Error<&str> = service.call(()).await.unwrap_err();
    /// assert!(error.as_rejected().is_none());
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct LiftFuture<F> {
        #[pin]
        inner: F,
    }
}

// === impl LiftLayer ===

impl LiftLayer {
    /// The layer; it has no settings.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::LiftLayer::new();
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for LiftLayer {
    type Service = Lift<S>;

    fn layer(&self, inner: S) -> Lift<S> {
        Lift::new(inner)
    }
}

// === impl Lift ===

impl<S> Lift<S> {
    /// Wraps `inner`.
    ///
    /// # Examples
    ///
    /// ```
    /// let lifted = mainstay::Lift::new(());
    /// # let _ = lifted;
    /// ```
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }
}

crate::macros::wrapper_methods!(Lift<S>, "mainstay::LiftLayer::new()");

impl<S, Req> Service<Req> for Lift<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = LiftFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Service)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        LiftFuture { inner: self.inner.call(request) }
    }
}

// === impl LiftFuture ===

impl<F, T, E> Future for LiftFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().inner.poll(cx)).map_err(Error::Service))
    }
}
