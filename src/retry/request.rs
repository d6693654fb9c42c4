//! [`RequestPolicy`]: what the request itself has to say about being sent again.

/// Copies requests for later attempts, and knows which of them may be sent twice.
///
/// A policy is a value of its own and not a trait of the request, so that requests of other crates can be retried too
/// (`reqwest::Request` is not `Clone`, but has a `try_clone`), and so that one request type can be treated in two ways.
///
/// | policy | requests | builder |
/// |---|---|---|
/// | [`CloneRequests`] | all that are `Clone` | the default |
/// | [`TryCloneRequests`] | those with [`TryClone`] | [`try_clone_requests`](super::RetryBuilder::try_clone_requests) |
/// | [`CloneWith`] | any, by a function | [`clone_with`](super::RetryBuilder::clone_with) |
/// | [`IdempotentIf`] | those of another policy, by a predicate | [`idempotent_if`](super::RetryBuilder::idempotent_if) |
/// | [`RetryIf`] | those of another policy, by a predicate | [`retry_if`](super::RetryBuilder::retry_if) |
///
/// # Examples
///
/// ```
/// use mainstay::retry::RequestPolicy;
///
/// #[derive(Clone)]
/// struct Request { method: &'static str }
///
/// struct ByMethod;
///
/// impl RequestPolicy<Request> for ByMethod {
///     fn try_clone(&self, request: &Request) -> Option<Request> {
///         Some(request.clone())
///     }
///
///     fn is_idempotent(&self, request: &Request) -> bool {
///         matches!(request.method, "GET" | "PUT" | "DELETE")
///     }
/// }
///
/// assert!(!ByMethod.is_idempotent(&Request { method: "POST" }));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot copy requests of type `{Req}` for a second attempt",
    label = "requests of type `{Req}` cannot be retried like this",
    note = "by default a request must be `Clone`; else call `.try_clone_requests()` on the builder (for a request with `mainstay::retry::TryClone`) or `.clone_with(|request: &{Req}| ..)`",
    note = "a request for which the policy has no copy still gets its first attempt"
)]
pub trait RequestPolicy<Req> {
    /// A copy for the next attempt; `None` if there can be none. Called once for each attempt that another may follow.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, RequestPolicy};
    ///
    /// assert_eq!(CloneRequests.try_clone(&7), Some(7));
    /// ```
    fn try_clone(&self, request: &Req) -> Option<Req>;

    /// Whether `request` may be sent again although it may have reached the callee before. Default: yes.
    ///
    /// A request that certainly was not sent is retried in any case.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, RequestPolicy};
    ///
    /// assert!(CloneRequests.is_idempotent(&7));
    /// ```
    fn is_idempotent(&self, request: &Req) -> bool {
        let _ = request;
        true
    }

    /// Whether [`is_idempotent`](Self::is_idempotent) answers for each request, in place of taking all of them to be repeatable.
    /// Default: yes.
    ///
    /// A policy that does not answer repeats no request that was sent where the classifier
    /// [asks for one that does](crate::Classify::needs_idempotency), as for HTTP.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, IdempotentIf, RequestPolicy};
    ///
    /// assert!(!RequestPolicy::<u32>::states_idempotency(&CloneRequests));
    /// assert!(IdempotentIf::new(CloneRequests, |n: &u32| *n > 0).states_idempotency());
    /// ```
    fn states_idempotency(&self) -> bool {
        true
    }

    /// Whether `request` may be retried at all, even if it was not sent. Default: yes. Asked once a call; what may not be is not
    /// copied.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, RequestPolicy};
    ///
    /// assert!(CloneRequests.may_retry(&7));
    /// ```
    fn may_retry(&self, request: &Req) -> bool {
        let _ = request;
        true
    }

    /// Whether `copy`, made before the last attempt, can still be sent. Default: yes.
    ///
    /// A retry checks this after an attempt that another one might follow and, if the copy [may be lost](Self::may_be_lost),
    /// again after the delay, right before the copy would be sent. If it returns `false`, the call ends with the last result
    /// ([`GiveUpReason::NotReplayable`](super::GiveUpReason::NotReplayable)).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, RequestPolicy};
    ///
    /// assert!(CloneRequests.is_replayable(&7));
    /// ```
    fn is_replayable(&self, copy: &Req) -> bool {
        let _ = copy;
        true
    }

    /// Whether `copy` may stop being [replayable](Self::is_replayable) while the retry waits for the next attempt. Default: yes.
    ///
    /// While it may, the retry keeps the last result until the next attempt starts, so that it can return that result if
    /// the copy is lost. Policies whose copies are independent of the attempt before (all of this module) return `false`, and
    /// the last result is dropped before the delay.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, RequestPolicy};
    ///
    /// assert!(!CloneRequests.may_be_lost(&7));
    /// ```
    fn may_be_lost(&self, copy: &Req) -> bool {
        let _ = copy;
        true
    }
}

/// The rules of a request policy, with another way to copy requests. Implemented for the policies of this crate.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "the request policy `{Self}` says by itself how requests are copied",
    note = "call `.requests(..)` once, with the policy that is meant"
)]
pub trait CopyRequestsBy<Q> {
    type Policy;

    fn copy_requests_by(self, copies: Q) -> Self::Policy;
}

/// A request that can be copied, but not always: a body that streams, a buffer that grew too large.
///
/// # Examples
///
/// ```
/// use mainstay::retry::TryClone;
///
/// enum Body { Bytes(Vec<u8>), Stream }
///
/// impl TryClone for Body {
///     fn try_clone(&self) -> Option<Self> {
///         match self {
///             Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
///             Self::Stream => None,
///         }
///     }
/// }
///
/// assert!(Body::Bytes(vec![1]).try_clone().is_some());
/// assert!(Body::Stream.try_clone().is_none());
/// ```
pub trait TryClone: Sized {
    /// A copy, if there can be one.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::TryClone;
    ///
    /// struct Body(Option<Vec<u8>>);
    ///
    /// impl TryClone for Body {
    ///     fn try_clone(&self) -> Option<Self> {
    ///         self.0.clone().map(|bytes| Self(Some(bytes)))
    ///     }
    /// }
    ///
    /// assert!(Body(None).try_clone().is_none());
    /// ```
    fn try_clone(&self) -> Option<Self>;
}

/// Copies requests that are `Clone`, all of which may be sent again. The default.
///
/// # Examples
///
/// ```
/// use mainstay::retry::{CloneRequests, RequestPolicy};
///
/// assert_eq!(CloneRequests.try_clone(&"request"), Some("request"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneRequests;

/// Copies requests that are [`TryClone`].
///
/// # Examples
///
/// ```
/// use mainstay::retry::RetryLayer;
///
/// let layer = RetryLayer::builder("upload").try_clone_requests().build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TryCloneRequests;

/// Copies requests by a function.
///
/// # Examples
///
/// ```
/// use mainstay::retry::{CloneWith, RequestPolicy};
///
/// let small = CloneWith::new(|body: &Vec<u8>| (body.len() < 1024).then(|| body.clone()));
/// assert!(small.try_clone(&vec![0; 10]).is_some());
/// assert!(small.try_clone(&vec![0; 4096]).is_none());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CloneWith<F>(F);

/// Copies requests as `R` does, and lets only those be sent again that both the predicate and `R` permit.
///
/// # Examples
///
/// ```
/// use mainstay::retry::{CloneRequests, IdempotentIf, RequestPolicy};
///
/// let reads = IdempotentIf::new(CloneRequests, |query: &&str| query.starts_with("SELECT"));
/// assert!(reads.is_idempotent(&"SELECT 1"));
/// assert!(!reads.is_idempotent(&"INSERT 1"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IdempotentIf<R, F> {
    requests: R,
    predicate: F,
}

/// Retries requests as `R` has it, and only those of which the predicate says so.
///
/// # Examples
///
/// ```
/// use mainstay::retry::{CloneRequests, RequestPolicy, RetryIf};
///
/// let foreground = RetryIf::new(CloneRequests, |job: &&str| !job.starts_with("background"));
/// assert!(!foreground.may_retry(&"background: refresh"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RetryIf<R, F> {
    requests: R,
    predicate: F,
}

// === impl CloneRequests ===

impl<Req: Clone> RequestPolicy<Req> for CloneRequests {
    #[inline]
    fn states_idempotency(&self) -> bool {
        false
    }

    #[inline]
    fn try_clone(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    #[inline]
    fn may_be_lost(&self, _: &Req) -> bool {
        false
    }
}

// === impl TryCloneRequests ===

impl<Req: TryClone> RequestPolicy<Req> for TryCloneRequests {
    #[inline]
    fn states_idempotency(&self) -> bool {
        false
    }

    #[inline]
    fn try_clone(&self, request: &Req) -> Option<Req> {
        request.try_clone()
    }

    #[inline]
    fn may_be_lost(&self, _: &Req) -> bool {
        false
    }
}

// === impl CloneWith ===

impl<F> CloneWith<F> {
    /// Copies by `clone`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneWith, RequestPolicy};
    ///
    /// let all = CloneWith::new(|body: &String| Some(body.clone()));
    /// assert_eq!(all.try_clone(&"text".to_owned()), Some("text".to_owned()));
    /// ```
    pub const fn new<Req>(clone: F) -> Self
    where
        F: Fn(&Req) -> Option<Req>,
    {
        Self(clone)
    }
}

impl<F, Req> RequestPolicy<Req> for CloneWith<F>
where
    F: Fn(&Req) -> Option<Req>,
{
    #[inline]
    fn states_idempotency(&self) -> bool {
        false
    }

    #[inline]
    fn try_clone(&self, request: &Req) -> Option<Req> {
        (self.0)(request)
    }

    #[inline]
    fn may_be_lost(&self, _: &Req) -> bool {
        false
    }
}

// === impl IdempotentIf ===

impl<R, F> IdempotentIf<R, F> {
    /// Copies as `requests` does, and lets those be sent again that `predicate` and `requests` permit.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, IdempotentIf, RequestPolicy};
    ///
    /// let policy = IdempotentIf::new(CloneRequests, |n: &u32| *n > 0);
    /// assert!(!policy.is_idempotent(&0));
    /// ```
    pub const fn new<Req>(requests: R, predicate: F) -> Self
    where
        F: Fn(&Req) -> bool,
    {
        Self { requests, predicate }
    }
}

impl<R, F, Req> RequestPolicy<Req> for IdempotentIf<R, F>
where
    R: RequestPolicy<Req>,
    F: Fn(&Req) -> bool,
{
    #[inline]
    fn try_clone(&self, request: &Req) -> Option<Req> {
        self.requests.try_clone(request)
    }

    #[inline]
    fn is_idempotent(&self, request: &Req) -> bool {
        (self.predicate)(request) && self.requests.is_idempotent(request)
    }

    #[inline]
    fn may_retry(&self, request: &Req) -> bool {
        self.requests.may_retry(request)
    }

    #[inline]
    fn is_replayable(&self, copy: &Req) -> bool {
        self.requests.is_replayable(copy)
    }

    #[inline]
    fn may_be_lost(&self, copy: &Req) -> bool {
        self.requests.may_be_lost(copy)
    }
}

// === impl RetryIf ===

impl<R, F> RetryIf<R, F> {
    /// Treats requests as `requests` does, and asks `predicate` which may be retried at all.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{CloneRequests, RequestPolicy, RetryIf};
    ///
    /// let policy = RetryIf::new(CloneRequests, |n: &u32| *n > 0);
    /// assert!(!policy.may_retry(&0));
    /// ```
    pub const fn new<Req>(requests: R, predicate: F) -> Self
    where
        F: Fn(&Req) -> bool,
    {
        Self { requests, predicate }
    }
}

impl<R, F, Req> RequestPolicy<Req> for RetryIf<R, F>
where
    R: RequestPolicy<Req>,
    F: Fn(&Req) -> bool,
{
    #[inline]
    fn states_idempotency(&self) -> bool {
        self.requests.states_idempotency()
    }

    #[inline]
    fn try_clone(&self, request: &Req) -> Option<Req> {
        self.requests.try_clone(request)
    }

    #[inline]
    fn is_idempotent(&self, request: &Req) -> bool {
        self.requests.is_idempotent(request)
    }

    #[inline]
    fn may_retry(&self, request: &Req) -> bool {
        (self.predicate)(request) && self.requests.may_retry(request)
    }

    #[inline]
    fn is_replayable(&self, copy: &Req) -> bool {
        self.requests.is_replayable(copy)
    }

    #[inline]
    fn may_be_lost(&self, copy: &Req) -> bool {
        self.requests.may_be_lost(copy)
    }
}

// === impl CopyRequestsBy ===

/// Policies that copy requests and have no rules: there is nothing to keep of them.
macro_rules! replaced {
    ($($policy:ty $(, $parameter:ident)?;)+) => {$(
        impl<Q $(, $parameter)?> $crate::retry::CopyRequestsBy<Q> for $policy {
            type Policy = Q;

            fn copy_requests_by(self, copies: Q) -> Q {
                copies
            }
        }
    )+};
}
#[cfg(feature = "http")]
pub(crate) use replaced;

replaced! {
    CloneRequests;
    TryCloneRequests;
    CloneWith<F>, F;
}

impl<R: CopyRequestsBy<Q>, F, Q> CopyRequestsBy<Q> for IdempotentIf<R, F> {
    type Policy = IdempotentIf<R::Policy, F>;

    fn copy_requests_by(self, copies: Q) -> Self::Policy {
        IdempotentIf { requests: self.requests.copy_requests_by(copies), predicate: self.predicate }
    }
}

impl<R: CopyRequestsBy<Q>, F, Q> CopyRequestsBy<Q> for RetryIf<R, F> {
    type Policy = RetryIf<R::Policy, F>;

    fn copy_requests_by(self, copies: Q) -> Self::Policy {
        RetryIf { requests: self.requests.copy_requests_by(copies), predicate: self.predicate }
    }
}
