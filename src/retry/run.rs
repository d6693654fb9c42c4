//! [`retry`] and [`RetryLayer::run`]: retries for code that is no service.

use std::fmt;
use std::future::Future;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{RequestPolicy, ResponseFuture, RetryLayer, service};
use crate::error::{Error, Lift, Rejectable};
use crate::outcome::Classify;

/// A closure that starts an attempt each time it is called, as a service that is always ready; see [`RetryLayer::run`].
///
/// # Examples
///
/// ```
/// use mainstay::BoxError;
/// use mainstay::retry::{Operation, ResponseFuture, RetryLayer};
///
/// let layer = RetryLayer::builder("users").build()?;
/// fn attempts<F: FnMut() -> std::future::Ready<Result<u32, BoxError>>>(_: &ResponseFuture<Operation<F>, (), impl Sized, impl Sized>) {}
/// attempts(&layer.run(|| std::future::ready(Ok::<_, BoxError>(7))));
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct Operation<F>(F);

/// Runs `operation`, and again as long as that may help: [`RetryLayer::run`] for errors of any type, which come back as an
/// [`Error`], beside the refusals of this crate.
///
/// The classifier of `policy` judges `Result<&T, &Error<E>>`; the default one does not mind.
///
/// # Errors
///
/// [`Error::Service`] with the error of the last attempt that was made; or [`Error::Rejected`], when
/// [`attempt_timeout`](super::RetryConfig::attempt_timeout) cut it off, or the deadline came before it could start.
///
/// # Cancel safety
///
/// That of [`ResponseFuture`]: dropping it drops the attempt that runs, and no other follows.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), mainstay::BoxError> {
/// use mainstay::retry::{RetryLayer, retry};
/// use mainstay::{Error, context};
///
/// let policy = RetryLayer::builder("config-file").build()?;
/// let read = || async {
///     match context::current().attempt() {
///         1 => Err(std::io::Error::other("busy")),
///         attempt => Ok(format!("read at attempt {attempt}")),
///     }
/// };
/// let text: Result<String, Error<std::io::Error>> = retry(&policy, read).await;
/// assert_eq!(text?, "read at attempt 2");
/// # Ok(())
/// # }
/// ```
pub fn retry<F, Fut, T, E, C, R>(
    policy: &RetryLayer<C, R>,
    operation: F,
) -> ResponseFuture<Lift<Operation<F>>, (), C, R>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classify<T, Error<E>>,
    R: RequestPolicy<()>,
{
    service::begin(Lift::new(Operation(operation)), (), policy.shared().clone(), |operation| operation)
}

// === impl RetryLayer ===

impl<C, R> RetryLayer<C, R> {
    /// Runs `operation`, and again as long as that may help: with the attempts, delays, deadline, budget, classifier, counts and
    /// events of this layer, and as one of its calls.
    ///
    /// The first attempt is started here (its timeout begins), and like all others it runs when the future is polled.
    /// `operation` itself is called once for each attempt; nothing is boxed or cloned. What may be sent again is asked of the
    /// layer's [`RequestPolicy`] with the request `()`. The error must be able to carry a refusal; for one that is not, there is
    /// [`retry`].
    ///
    /// # Errors
    ///
    /// Those of the last attempt that was made; or [`Rejected::Timeout`](crate::Rejected::Timeout) or
    /// [`Rejected::DeadlineExceeded`](crate::Rejected::DeadlineExceeded), when
    /// [`attempt_timeout`](super::RetryConfig::attempt_timeout) cut it off, or the deadline came before it could start.
    ///
    /// # Cancel safety
    ///
    /// That of [`ResponseFuture`]: dropping it drops the attempt that runs, and no other follows.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), mainstay::BoxError> {
    /// use mainstay::{BoxError, RetryLayer, context, retry::RetryConfig};
    ///
    /// let retry = RetryLayer::new("config-file", RetryConfig::default())?;
    /// let text = retry
    ///     .run(|| async {
    ///         match context::current().attempt() {
    ///             1 => Err(BoxError::from("busy")),
    ///             attempt => Ok(format!("read at attempt {attempt}")),
    ///         }
    ///     })
    ///     .await?;
    /// assert_eq!(text, "read at attempt 2");
    /// assert_eq!(retry.handle().statistics().retries, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<F, Fut, T, E>(&self, operation: F) -> ResponseFuture<Operation<F>, (), C, R>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Rejectable,
        C: Classify<T, E>,
        R: RequestPolicy<()>,
    {
        service::begin(Operation(operation), (), self.shared().clone(), |operation| operation)
    }
}

// === impl Operation ===

impl<F, Fut, T, E> Service<()> for Operation<F>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, (): ()) -> Fut {
        (self.0)()
    }
}

impl<F> fmt::Debug for Operation<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").finish_non_exhaustive()
    }
}
