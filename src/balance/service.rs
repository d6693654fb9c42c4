//! A [`Pool`] is a service: the pick.

use std::task::{Context, Poll};

use tower_service::Service;

use super::core::Now;
use super::endpoint::Key;
use super::future::ResponseFuture;
use super::pool::Pool;
use super::repeat::Repeat;
use super::snapshot::Tried;
use crate::error::Rejectable;
use crate::oneshot::{Oneshot, Ready};
use crate::outcome::Classify;

impl<K, S, C, R, Req> Service<Req> for Pool<K, S, C, R>
where
    K: Key,
    S: Service<Req> + Clone,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error> + Clone,
    R: Repeat<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<K, S, C, R, Req>;

    /// Ready at once: which endpoint's readiness matters is known only when it is picked. The call waits for it.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.refresh();
        let now = Now::unread();
        if self.snapshot.next_change.is_some_and(|due| due <= now.get()) {
            self.registry.refresh(now.get());
            self.refresh();
        }
        let (classifier, repeat) = (self.classifier.clone(), self.repeat.clone());
        match self.snapshot.pick(&self.registry.core, &now, &Tried::default()) {
            Some((flight, service)) => ResponseFuture::picked(flight, S::clone(service), request, classifier, repeat),
            None => ResponseFuture::vacant(&self.registry, request, classifier, repeat),
        }
    }
}

impl<K: Key, S, C, R> Pool<K, S, C, R> {
    /// Waits until the pool can take a call, which is at once.
    ///
    /// # Errors
    ///
    /// None; the type is that of every `ready`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use mainstay::balance::Pool;
    /// use tower::util::BoxCloneService;
    /// use tower::{Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let mut pool: Pool<u16, BoxCloneService<u32, u32, BoxError>> = Pool::builder("app").build()?;
    /// pool.handle().add(8001, BoxCloneService::new(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) })));
    /// assert_eq!(pool.ready().await?.call(1).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ready<Req>(&mut self) -> Ready<'_, Self, Req>
    where
        S: Service<Req> + Clone,
        S::Error: Rejectable,
        Self: Service<Req, Error = S::Error>,
    {
        Ready::new(self)
    }

    /// Makes one call.
    ///
    /// # Errors
    ///
    /// The error of the call; see [`ResponseFuture`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the call; see [`ResponseFuture`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use mainstay::balance::Pool;
    /// use tower::util::BoxCloneService;
    /// use tower::{Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let pool: Pool<u16, BoxCloneService<u32, u32, BoxError>> = Pool::builder("app").build()?;
    /// pool.handle().add(8001, BoxCloneService::new(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) })));
    /// assert_eq!(pool.oneshot(1).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn oneshot<Req, Fut>(self, request: Req) -> Oneshot<Self, Req, Fut>
    where
        S: Service<Req> + Clone,
        S::Error: Rejectable,
        Self: Service<Req, Response = S::Response, Error = S::Error, Future = Fut>,
    {
        Oneshot::new(self, request)
    }
}
