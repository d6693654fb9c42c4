//! [`ReplayBody`]: a body that is kept as it is sent.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use ::http::HeaderMap;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::cores::lock::lock;
use crate::error::{BoxError, REQUEST_BODY_FAILED, Rejected};

/// A request's body that can be sent again: what is read of it is kept, up to a cap.
///
/// Nothing is kept, and nothing copied, while no attempt can follow: by the last one, and as soon as the call has its answer. Chunks
/// of [`Bytes`] are kept by reference count. What is kept goes when the cap is exceeded, and the attempt that runs is sent on
/// without it. The cap is of data: trailers, and some 32 bytes a chunk, come on top.
///
/// An attempt continues where the one before it stopped reading. If a connection still reads for an attempt that was given up, it
/// gets [`ReplayError::Superseded`].
///
/// A copy whose body is lost never looks like a body that is empty or complete: it is not at its end, announces no length, and
/// fails with [`ReplayError::Lost`] when it is polled.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use mainstay::http::ReplayBody;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let first = ReplayBody::new(Full::<Bytes>::from("text"), 1024);
/// let second = first.again();
/// assert_eq!(first.collect().await.unwrap().to_bytes(), "text");
/// assert!(second.is_replayable());
/// assert_eq!(second.collect().await.unwrap().to_bytes(), "text");
/// # }
/// ```
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    /// Which of the readers it is, from 1; 0 before the first read.
    turn: u64,
    /// How many of the chunks that are kept it has read.
    next: usize,
    trailers_read: bool,
}

/// Why a [`ReplayBody`] failed.
///
/// Each of them has [`Rejected::RequestBodyFailed`] as its source: whatever error a client makes of it, the layers around the client
/// see that the callee is not to blame.
///
/// # Examples
///
/// ```
/// use mainstay::http::ReplayError;
///
/// assert_eq!(ReplayError::Superseded.to_string(), "a later attempt sends this body");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body itself failed: a [`Rejected::RequestBodyFailed`] with the error of the body as its source, which is no evidence
    /// against the callee.
    Body(Rejected),
    /// A later attempt has taken over.
    Superseded,
    /// What was sent before is no longer kept. A retry checks that before it sends a copy, so this is seen only where the body is lost
    /// after that check, while the client has not begun to read.
    Lost,
}

struct Shared<B> {
    body: B,
    cap: usize,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// The body has been read to its end.
    ended: bool,
    /// Before the first read the body announced its exact length. Of a body with trailers a copy announces one only then: HTTP/1
    /// sends no trailers after a body of an announced length.
    exact: bool,
    /// Some of what was read is not kept.
    lost: bool,
    /// The reader whose turn it is, and who waits for the body.
    turn: u64,
    waker: Option<Waker>,
}

// === impl ReplayBody ===

impl<B> ReplayBody<B> {
    /// Keeps up to `cap` bytes of `body`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::ReplayBody;
    ///
    /// assert!(ReplayBody::new(String::from("text"), 1024).is_replayable());
    /// ```
    pub fn new(body: B, cap: usize) -> Self {
        let shared = Shared {
            body,
            cap,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            ended: false,
            exact: false,
            lost: false,
            turn: 0,
            waker: None,
        };
        Self::of(Arc::new(Mutex::new(shared)))
    }

    /// The same body from its start, for another attempt. As long as it exists, what is read is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::ReplayBody;
    ///
    /// let body = ReplayBody::new(String::from("text"), 1024);
    /// assert!(body.again().is_replayable());
    /// ```
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.shared.clone())
    }

    /// Whether all that was read so far is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use http_body_util::BodyExt;
    /// use mainstay::http::ReplayBody;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let body = ReplayBody::new(String::from("longer than three"), 3);
    /// let copy = body.again();
    /// assert!(copy.is_replayable(), "nothing was read yet");
    /// body.collect().await.unwrap();
    /// assert!(!copy.is_replayable());
    /// # }
    /// ```
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        !lock(&self.shared).lost
    }

    /// Whether the body may still be [lost](Self::is_replayable): a reader is left that has not read it to its end.
    #[must_use]
    pub(super) fn may_be_lost(&self) -> bool {
        let read_elsewhere = Arc::strong_count(&self.shared) > 1;
        let shared = lock(&self.shared);
        read_elsewhere && !shared.ended && !shared.lost
    }

    const fn of(shared: Arc<Mutex<Shared<B>>>) -> Self {
        Self { shared, turn: 0, next: 0, trailers_read: false }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let this = self.get_mut();
        let alone = Arc::strong_count(&this.shared) == 1;
        let mut shared = lock(&this.shared);
        if this.turn == 0 {
            if shared.lost {
                return Poll::Ready(Some(Err(ReplayError::Lost)));
            }
            if shared.turn == 0 {
                shared.exact = shared.body.size_hint().exact().is_some();
            }
            shared.turn += 1;
            this.turn = shared.turn;
            if let Some(superseded) = shared.waker.take() {
                // Not under the lock: who is woken may poll at once.
                drop(shared);
                superseded.wake();
                shared = lock(&this.shared);
            }
        } else if this.turn != shared.turn {
            return Poll::Ready(Some(Err(ReplayError::Superseded)));
        }
        if let Some(kept) = shared.kept.get_mut(this.next) {
            this.next += 1;
            let chunk = if alone { std::mem::take(kept) } else { kept.clone() };
            shared.lost |= alone;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if shared.trailers.is_some() && !this.trailers_read {
            this.trailers_read = true;
            return Poll::Ready(shared.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut shared.body).poll_frame(cx);
        if polled.is_pending() && !shared.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            shared.waker = Some(cx.waker().clone());
        }
        let frame = match ready!(polled) {
            None => {
                shared.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                shared.lose();
                return Poll::Ready(Some(Err(ReplayError::Body(Rejected::request_body_failed(error)))));
            }
            Some(Ok(frame)) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        };
        if alone {
            shared.lose();
        } else if let Some(data) = frame.data_ref() {
            this.next += usize::from(shared.keep(data));
        } else if let Some(trailers) = frame.trailers_ref() {
            this.trailers_read = true;
            shared.trailers = Some(trailers.clone());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        // A reader that was overtaken, or whose start was lost, is not at its end: its next poll fails.
        if shared.is_out_of_reach_of(self.turn) {
            return false;
        }
        let all_read = self.next >= shared.kept.len() && (self.trailers_read || shared.trailers.is_none());
        all_read && (shared.ended || shared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        if shared.is_out_of_reach_of(self.turn) {
            return SizeHint::default();
        }
        let kept: u64 = shared.kept.iter().skip(self.next).map(|chunk| chunk.len() as u64).sum();
        let mut hint = if shared.ended { SizeHint::with_exact(0) } else { shared.body.size_hint() };
        // The upper end first: the lower one may not exceed it.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(hint.lower().saturating_add(kept));
        if shared.trailers.is_some() && !self.trailers_read && !shared.exact {
            let mut at_least = SizeHint::default();
            at_least.set_lower(hint.lower());
            return at_least;
        }
        hint
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("replayable", &self.is_replayable()).finish_non_exhaustive()
    }
}

// === impl ReplayError ===

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body(_) => "the replayed body failed",
            Self::Superseded => "a later attempt sends this body",
            Self::Lost => "the body of the request is no longer kept",
        })
    }
}

impl Error for ReplayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Body(failed) => Some(failed),
            Self::Superseded | Self::Lost => Some(&REQUEST_BODY_FAILED),
        }
    }
}

// === impl Shared ===

impl<B> Shared<B> {
    /// Whether the next poll of the reader of this turn fails: a later one has taken over, or it has not begun and the start of the
    /// body is lost.
    const fn is_out_of_reach_of(&self, turn: u64) -> bool {
        if turn == 0 { self.lost } else { turn != self.turn }
    }

    /// Keeps what was just read; whether it did.
    fn keep(&mut self, data: &Bytes) -> bool {
        // Chunks without data would be kept without end.
        if self.lost || data.is_empty() {
            return false;
        }
        if data.len() > self.cap - self.kept_bytes {
            self.lose();
            return false;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
        true
    }

    /// All that is kept goes: no other attempt could use it.
    fn lose(&mut self) {
        self.lost = true;
        self.kept = Vec::new();
        self.trailers = None;
    }
}
