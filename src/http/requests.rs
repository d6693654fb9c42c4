//! [`HttpRequests`]: which HTTP requests a retry may send again.

use ::http::Request;

use super::classifier::HttpClassifier;
use super::method::is_idempotent;
use crate::outcome::DefaultClassifier;
use crate::retry::{Chosen, CloneRequests, CopyRequestsBy, NotChosen, RequestPolicy, RetryBuilder};

/// Lets a retry repeat only those HTTP requests that may be sent twice ([`is_idempotent`]); how they are copied is up to the
/// policy inside (by default they are cloned, body and all).
///
/// [`RetryBuilder::http`](crate::retry::RetryBuilder::http) sets it, together with [`HttpClassifier`].
///
/// # Examples
///
/// ```
/// use http::Request;
/// use mainstay::http::HttpRequests;
/// use mainstay::retry::{CloneRequests, RequestPolicy};
///
/// let policy = HttpRequests::new(CloneRequests);
/// assert!(policy.is_idempotent(&Request::get("/").body(()).unwrap()));
/// assert!(!policy.is_idempotent(&Request::post("/orders").body(()).unwrap()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpRequests<R = CloneRequests> {
    requests: R,
}

// === impl HttpRequests ===

impl<R> HttpRequests<R> {
    /// Copies requests by `requests`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::HttpRequests;
    /// use mainstay::retry::CloneRequests;
    ///
    /// assert_eq!(HttpRequests::new(CloneRequests), HttpRequests::default());
    /// ```
    pub const fn new(requests: R) -> Self {
        Self { requests }
    }
}

impl<R, B> RequestPolicy<Request<B>> for HttpRequests<R>
where
    R: RequestPolicy<Request<B>>,
{
    fn try_clone(&self, request: &Request<B>) -> Option<Request<B>> {
        self.requests.try_clone(request)
    }

    fn is_idempotent(&self, request: &Request<B>) -> bool {
        is_idempotent(request) && self.requests.is_idempotent(request)
    }

    fn may_retry(&self, request: &Request<B>) -> bool {
        self.requests.may_retry(request)
    }

    fn is_replayable(&self, copy: &Request<B>) -> bool {
        self.requests.is_replayable(copy)
    }

    fn may_be_lost(&self, copy: &Request<B>) -> bool {
        self.requests.may_be_lost(copy)
    }
}

impl<R: CopyRequestsBy<Q>, Q> CopyRequestsBy<Q> for HttpRequests<R> {
    type Policy = HttpRequests<R::Policy>;

    fn copy_requests_by(self, copies: Q) -> Self::Policy {
        HttpRequests { requests: self.requests.copy_requests_by(copies) }
    }
}

// === impl RetryBuilder ===

/// The classifier of a retry for HTTP: the one that was chosen, or else [`HttpClassifier`].
#[doc(hidden)]
pub trait HttpChoice<C> {
    type Classifier;

    fn choose(classifier: C) -> Self::Classifier;
}

impl HttpChoice<DefaultClassifier> for NotChosen {
    type Classifier = HttpClassifier;

    fn choose(_: DefaultClassifier) -> HttpClassifier {
        HttpClassifier::new()
    }
}

impl<C> HttpChoice<C> for Chosen {
    type Classifier = C;

    fn choose(classifier: C) -> C {
        classifier
    }
}

impl<C, R, K: HttpChoice<C>> RetryBuilder<C, R, K> {
    /// For HTTP: only requests that may be sent twice are sent again ([`is_idempotent`]; what certainly was not sent is retried in any
    /// case), and results are judged by [`HttpClassifier`], unless another classifier is
    /// [chosen](RetryBuilder::classify).
    ///
    /// It does not matter whether the classifier and the way to copy requests are chosen before or after. A retry that is only given
    /// an [`HttpClassifier`] repeats no request that was sent: it does not know the methods.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").http().build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn http(self) -> RetryBuilder<K::Classifier, HttpRequests<R>, Chosen> {
        self.map_classifier(K::choose).wrap_requests(HttpRequests::new)
    }
}
