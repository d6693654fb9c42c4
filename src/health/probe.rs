//! [`Probe`]: anything that checks a target.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::BoxError;

/// Checks one target, which it knows: whether the target works right now.
///
/// Closures that return a future are probes; [`TcpProbe`](super::TcpProbe), [`HttpProbe`](super::HttpProbe) and
/// [`ServiceProbe`](super::ServiceProbe) come along. A probe needs no timeout of its own: the
/// [`Monitor`](super::Monitor) drops a check that takes too long, and counts one that panics as failed.
///
/// # Cancel safety
///
/// The future of [`check`](Self::check) is dropped when the timeout fires, when the target is removed, and when the monitor ends.
///
/// # Examples
///
/// ```
/// use std::future::Future;
/// use mainstay::health::{Probe, ProbeError};
///
/// struct QueueLength(u32);
///
/// impl Probe for QueueLength {
///     async fn check(&self) -> Result<(), ProbeError> {
///         if self.0 < 1_000 { Ok(()) } else { Err(ProbeError::answered("the queue is full")) }
///     }
/// }
/// # tokio_test::block_on(async {
/// assert!(QueueLength(5).check().await.is_ok());
/// assert!(QueueLength(5_000).check().await.unwrap_err().is_answer());
///
/// let ping = || async { Err::<(), _>("no route to host") };
/// assert_eq!(ping.check().await.unwrap_err().to_string(), "no route to host");
/// # });
/// ```
pub trait Probe: Send + Sync + 'static {
    /// Checks the target once.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Probe;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ping = || async { Ok::<_, std::io::Error>(()) };
    /// assert!(ping.check().await.is_ok());
    /// # }
    /// ```
    fn check(&self) -> impl Future<Output = Result<(), ProbeError>> + Send;
}

/// Why a check failed, and whether it was the target itself that said so.
///
/// Made from any error by `?` or `into`. It is no [`std::error::Error`] itself, so that it can be.
///
/// # Examples
///
/// ```
/// use mainstay::health::ProbeError;
///
/// let network = ProbeError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
/// assert!(!network.is_answer());
/// assert!(ProbeError::answered("status 503").is_answer());
/// ```
pub struct ProbeError {
    source: BoxError,
    answer: bool,
}

/// [`Probe`] behind a pointer, for monitors whose targets are probed in different ways.
pub(crate) trait DynProbe: Send + Sync {
    fn check_boxed(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>>;
}

// === impl Probe ===

impl<F, Fut, E> Probe for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<ProbeError>,
{
    async fn check(&self) -> Result<(), ProbeError> {
        self().await.map_err(Into::into)
    }
}

impl<P: Probe> DynProbe for P {
    fn check_boxed(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.check())
    }
}

// === impl ProbeError ===

impl ProbeError {
    /// The check failed, maybe because of the way to the target: a refused connection, a reset, a name that does not resolve.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::health::ProbeError::new("connection reset").is_answer());
    /// ```
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { source: error.into(), answer: false }
    }

    /// The target itself answered that it is not well. By default one such answer makes it unhealthy, see
    /// [`MonitorConfig::answer_decides`](super::MonitorConfig::answer_decides).
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::health::ProbeError::answered("NOT_SERVING").is_answer());
    /// ```
    pub fn answered(error: impl Into<BoxError>) -> Self {
        Self { source: error.into(), answer: true }
    }

    /// Whether the target itself said so.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::health::ProbeError::new("reset").is_answer());
    /// ```
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        self.answer
    }

    /// The error inside.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::ProbeError::new("reset").into_inner().to_string(), "reset");
    /// ```
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.source
    }
}

impl<E: Into<BoxError>> From<E> for ProbeError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Debug for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeError").field("answer", &self.answer).field("source", &self.source).finish()
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}
