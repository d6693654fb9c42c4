//! [`OnEndBody`]: a verdict that waits for the end of the body.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::cores::unwind::on_unwind;

pin_project! {
    /// A body that calls a function when it has ended: with its trailers, if it had any, or with its error.
    ///
    /// The head of a response says that the callee began to answer; whether it did answer is known at the end of the body. What is
    /// to be held until then (a breaker's permit, a slot of a limit) goes into the function.
    ///
    /// The end is the trailers, an error, the end of the stream, or the point at which the body says that nothing more will come
    /// ([`Body::is_end_stream`]), whichever is first: HTTP clients and servers do not poll on after that. Where
    /// [`OnEnd::ends_with_data`] says so it is also the last byte of the length that was announced. A body that is dropped before
    /// its end, or whose poll panics, drops the function without calling it, so that what it holds says what that means: a
    /// permit of a circuit breaker counts the call as abandoned.
    ///
    /// With an [`IdleTimeoutBody`](super::IdleTimeoutBody), that one goes inside: its error is then the end that is told. The other
    /// way round it drops this body before its end.
    ///
    /// # Examples
    ///
    /// A slot that is held until the body ends or is dropped:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Full};
    /// use mainstay::http::OnEndBody;
    /// use tokio::sync::Semaphore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limit = Arc::new(Semaphore::new(1));
    /// let slot = limit.clone().try_acquire_owned()?;
    /// let body = OnEndBody::new(Full::new(Bytes::from("answer")), move |_| drop(slot));
    /// assert_eq!(limit.available_permits(), 0);
    /// body.collect().await?;
    /// assert_eq!(limit.available_permits(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub struct OnEndBody<B, F> {
        #[pin]
        inner: B,
        on_end: Option<F>,
    }
}

/// What is done at the end of a body: functions do it, and what layers hold.
///
/// # Examples
///
/// ```
/// use http::HeaderMap;
/// use mainstay::http::OnEnd;
///
/// fn is_on_end<E>(_: impl OnEnd<E>) {}
/// is_on_end::<std::io::Error>(|_: Result<Option<&HeaderMap>, &std::io::Error>| {});
/// ```
pub trait OnEnd<E> {
    /// The body has ended: with its trailers, if it had any, or with an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use mainstay::http::OnEnd;
    ///
    /// let mut whole = false;
    /// OnEnd::ended(|end: Result<Option<&HeaderMap>, &std::io::Error>| whole = end.is_ok(), Ok(None));
    /// assert!(whole);
    /// ```
    fn ended(self, end: Result<Option<&HeaderMap>, &E>);

    /// Whether a body has ended when all of the data has come that it announced by its length ([`Body::size_hint`]): trailers are
    /// not waited for then, nor the end of the stream, which HTTP/2 may send after the data, and of which whoever counts bytes
    /// never hears. `false` for functions.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use mainstay::http::OnEnd;
    ///
    /// let on_end = |_: Result<Option<&HeaderMap>, &std::io::Error>| {};
    /// assert!(!on_end.ends_with_data());
    /// ```
    fn ends_with_data(&self) -> bool {
        false
    }

    /// A poll of the body has panicked; the panic goes on. For functions that is as if the body had been dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use mainstay::http::OnEnd;
    ///
    /// let mut told = false;
    /// OnEnd::<std::io::Error>::panicked(|_: Result<Option<&HeaderMap>, &std::io::Error>| told = true);
    /// assert!(!told);
    /// ```
    fn panicked(self)
    where
        Self: Sized,
    {
    }
}

impl<F, E> OnEnd<E> for F
where
    F: FnOnce(Result<Option<&HeaderMap>, &E>),
{
    fn ended(self, end: Result<Option<&HeaderMap>, &E>) {
        self(end);
    }
}

// === impl OnEndBody ===

impl<B: Body, F: OnEnd<B::Error>> OnEndBody<B, F> {
    /// Tells `on_end` when `body` has ended; now, if it has already. [`new`](Self::new) is the same for functions, whose arguments
    /// are inferred there.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::HeaderMap;
    /// use http_body_util::Full;
    /// use mainstay::http::{OnEnd, OnEndBody};
    ///
    /// /// Frees a slot with the last byte.
    /// struct Slot;
    ///
    /// impl<E> OnEnd<E> for Slot {
    ///     fn ended(self, _: Result<Option<&HeaderMap>, &E>) {}
    ///
    ///     fn ends_with_data(&self) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let body = OnEndBody::of(Full::new(Bytes::from("answer")), Slot);
    /// # let _ = body;
    /// ```
    pub fn of(body: B, on_end: F) -> Self {
        let mut this = Self { inner: body, on_end: Some(on_end) };
        if over(&this.inner, &this.on_end) {
            end(&mut this.on_end, Ok(None));
        }
        this
    }
}

impl<B, F> OnEndBody<B, F> {
    /// There is nothing to wait for.
    #[cfg(feature = "circuit-breaker")]
    pub(super) const fn ended(body: B) -> Self {
        Self { inner: body, on_end: None }
    }
}

impl<B: Body, F> OnEndBody<B, F>
where
    F: FnOnce(Result<Option<&HeaderMap>, &B::Error>),
{
    /// Calls `on_end` when `body` has ended; now, if it has already.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Empty;
    /// use mainstay::http::OnEndBody;
    ///
    /// let mut ended = false;
    /// let body = OnEndBody::new(Empty::<Bytes>::new(), |end| ended = end.is_ok());
    /// drop(body);
    /// assert!(ended, "there was nothing to wait for");
    /// ```
    pub fn new(body: B, on_end: F) -> Self {
        Self::of(body, on_end)
    }
}

/// Whether nothing more will come that would matter.
fn over<B: Body, F: OnEnd<B::Error>>(body: &B, on_end: &Option<F>) -> bool {
    on_end
        .as_ref()
        .is_some_and(|on_end| body.is_end_stream() || (on_end.ends_with_data() && body.size_hint().exact() == Some(0)))
}

fn end<F: OnEnd<E>, E>(on_end: &mut Option<F>, how: Result<Option<&HeaderMap>, &E>) {
    if let Some(on_end) = on_end.take() {
        on_end.ended(how);
    }
}

impl<B: Body, F: OnEnd<B::Error>> Body for OnEndBody<B, F> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let panicked = || {
            if let Some(on_end) = this.on_end.take() {
                on_end.panicked();
            }
        };
        let frame = ready!(on_unwind(panicked, || this.inner.as_mut().poll_frame(cx)));
        match &frame {
            None => end(this.on_end, Ok(None)),
            Some(Err(error)) => end(this.on_end, Err(error)),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    end(this.on_end, Ok(Some(trailers)));
                } else if over(&*this.inner, this.on_end) {
                    end(this.on_end, Ok(None));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: fmt::Debug, F> fmt::Debug for OnEndBody<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.on_end.is_none();
        f.debug_struct("OnEndBody").field("inner", &self.inner).field("ended", &ended).finish_non_exhaustive()
    }
}
