//! [`IdleTimeoutBody`]: a body may take its time, but not stand still.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::InvalidConfig;
use crate::error::REQUEST_BODY_FAILED;
use crate::timer::Timer;

pin_project! {
    /// A body that fails when no frame comes for some time.
    ///
    /// A timeout around the call ends with the head of the response; this bounds what comes after it. Time runs only while
    /// somebody waits for a frame: it starts when the inner body is first pending, and anew with each frame. A frame that has
    /// come wins over a time that is up, and a body that never lets its reader wait arms no timer.
    ///
    /// When the time is up the inner body is dropped at once, and this one has ended. What waits for the end of a body
    /// ([`OnEndBody`](super::OnEndBody), a `StreamBreakerLayer`) goes around this one, and so hears of it.
    ///
    /// On the body of a *request* it bounds how slowly a caller may upload. A call that fails for that is the caller's failure: its error
    /// has [`Rejected::RequestBodyFailed`](crate::Rejected::RequestBodyFailed) among its sources, and is no evidence against the
    /// callee. A service that reads the body of its *answer* within the call, and wants a stall to count against the callee, maps
    /// this error to one of its own that does not name it as a source.
    ///
    /// It holds its timer in itself and so is not `Unpin`; whoever needs that boxes and pins it (`BodyExt::boxed` does).
    ///
    /// # Cancel safety
    ///
    /// Frames are not lost by a wait that is given up, and the time of that wait goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Full};
    /// use mainstay::http::IdleTimeout;
    /// use tower::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = service_fn(|_: Request<()>| async {
    ///     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("answer"))))
    /// });
    /// // Checked once; then every response of this client has it.
    /// let idle = IdleTimeout::new(Duration::from_secs(5))?;
    /// let client = client.map_response(move |response| response.map(|body| idle.limit(body)));
    /// let response = client.oneshot(Request::new(())).await?;
    /// assert_eq!(response.into_body().collect().await?.to_bytes(), "answer");
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct IdleTimeoutBody<B> {
        // `None` once the time was up.
        #[pin]
        inner: Option<B>,
        #[pin]
        timer: Timer,
        waiting_until: Option<Instant>,
        timeout: Duration,
    }
}

/// The error of an [`IdleTimeoutBody`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::http::IdleBodyError;
///
/// let error: IdleBodyError<std::io::Error> = IdleBodyError::Idle { timeout: Duration::from_secs(5) };
/// assert_eq!(error.to_string(), "the body stood still for 5s");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum IdleBodyError<E> {
    /// No frame came for this time.
    Idle {
        /// The configured time.
        timeout: Duration,
    },
    /// The body failed by itself.
    Body(E),
}

/// The time that bodies may stand still: checked once, for any number of them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::http::IdleTimeout;
///
/// let idle = IdleTimeout::new(Duration::from_secs(5))?;
/// let body = idle.limit(http_body_util::Full::new(bytes::Bytes::from("whole")));
/// # let _ = body;
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeout {
    timeout: Duration,
}

// === impl IdleTimeout ===

impl IdleTimeout {
    /// This much time for each frame. `Duration::MAX` is no limit.
    ///
    /// # Errors
    ///
    /// A timeout of zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::http::IdleTimeout;
    ///
    /// assert_eq!(IdleTimeout::new(Duration::ZERO).unwrap_err().field(), "timeout");
    /// ```
    pub fn new(timeout: Duration) -> Result<Self, InvalidConfig> {
        if timeout.is_zero() {
            return Err(InvalidConfig::new("timeout", timeout, "must be above zero; for none leave the wrapper out"));
        }
        Ok(Self { timeout })
    }

    /// Limits this body.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::http::IdleTimeout;
    ///
    /// let body = IdleTimeout::new(Duration::from_secs(5))?.limit(http_body_util::Empty::<bytes::Bytes>::new());
    /// # let _ = body;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub const fn limit<B>(self, body: B) -> IdleTimeoutBody<B> {
        IdleTimeoutBody::with(body, self.timeout)
    }
}

// === impl IdleTimeoutBody ===

impl<B> IdleTimeoutBody<B> {
    /// Gives `body` this much time for each of its frames. `Duration::MAX` is no limit.
    ///
    /// # Errors
    ///
    /// A timeout of zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::http::IdleTimeoutBody;
    ///
    /// let body = http_body_util::Full::new(bytes::Bytes::from("whole"));
    /// assert!(IdleTimeoutBody::new(body.clone(), Duration::from_secs(5)).is_ok());
    /// assert_eq!(IdleTimeoutBody::new(body, Duration::ZERO).unwrap_err().field(), "timeout");
    /// ```
    pub fn new(body: B, timeout: Duration) -> Result<Self, InvalidConfig> {
        Ok(IdleTimeout::new(timeout)?.limit(body))
    }

    const fn with(body: B, timeout: Duration) -> Self {
        Self { inner: Some(body), timer: Timer::new(), waiting_until: None, timeout }
    }
}

impl<B: Body> Body for IdleTimeoutBody<B> {
    type Data = B::Data;
    type Error = IdleBodyError<B::Error>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = inner.poll_frame(cx) {
            if this.waiting_until.take().is_some() {
                this.timer.set(Timer::new());
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(IdleBodyError::Body)));
        }
        let until = match *this.waiting_until {
            Some(until) => until,
            None => match Instant::now().checked_add(*this.timeout) {
                Some(until) => *this.waiting_until.insert(until),
                // Beyond the end of time.
                None => return Poll::Pending,
            },
        };
        ready!(this.timer.as_mut().poll_against(until, cx));
        this.inner.set(None);
        Poll::Ready(Some(Err(IdleBodyError::Idle { timeout: *this.timeout })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

// === impl IdleBodyError ===

impl<E> IdleBodyError<E> {
    /// Whether the body stood still.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::IdleBodyError;
    ///
    /// assert!(!IdleBodyError::Body("connection reset").is_idle());
    /// ```
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle { .. })
    }
}

impl<E> fmt::Display for IdleBodyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { timeout } => write!(f, "the body stood still for {timeout:?}"),
            Self::Body(_) => f.write_str("the body failed"),
        }
    }
}

impl<E: Error + 'static> Error for IdleBodyError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The layers around a call see it only on the body of a request: an answer's body is read after the call.
            Self::Idle { .. } => Some(&REQUEST_BODY_FAILED),
            Self::Body(error) => Some(error),
        }
    }
}
