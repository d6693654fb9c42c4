//! [`Retry`]: the service.

use std::borrow::BorrowMut;
use std::fmt;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_service::Service;

use super::future::Call;
use super::layer::Shared;
use super::time_limits::TimeLimits;
use super::{RequestPolicy, ResponseFuture};
use crate::budget::CallInFlight;
use crate::context::{self, Attempt, AttemptScope, InScope};
use crate::cores::striped_arc::StripedArc;
use crate::cores::unwind::on_unwind;
use crate::error::Rejectable;
use crate::outcome::{Classify, DefaultClassifier};

/// A service whose calls are sent again when that may help; made by [`RetryLayer`](super::RetryLayer).
///
/// # Examples
///
/// ```
/// use mainstay::RetryLayer;
/// use mainstay::retry::RetryConfig;
/// use tower::Layer;
///
/// let service = RetryLayer::new("users", RetryConfig::default())?.layer("any service");
/// assert_eq!(service.get_ref(), &"any service");
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct Retry<S, C = DefaultClassifier, R = super::CloneRequests> {
    inner: S,
    shared: StripedArc<Shared<C, R>>,
}

// === impl Retry ===

impl<S, C, R> Retry<S, C, R> {
    pub(super) const fn new(inner: S, shared: StripedArc<Shared<C, R>>) -> Self {
        Self { inner, shared }
    }
}

crate::macros::wrapper_methods!(Retry<S, C, R>, "mainstay::RetryLayer::builder(\"users\").build()?");
crate::macros::ready_methods!(Retry<S, C, R>, "mainstay::RetryLayer::builder(\"users\").build()?");

impl<S, Req, C, R> Service<Req> for Retry<S, C, R>
where
    S: Service<Req> + Clone,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
    R: RequestPolicy<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, R>;

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        // The clone is for the attempts that may follow; this one is for the service that was made ready.
        begin(&mut self.inner, request, self.shared.lend(), |inner| inner.clone())
    }
}

/// Starts the first attempt of a call; `keep` makes of `inner` the service of the others, and is asked only if there can be any.
#[inline(always)]
pub(super) fn begin<I, S, Req, C, R>(
    mut inner: I,
    request: Req,
    shared: StripedArc<Shared<C, R>>,
    keep: impl FnOnce(I) -> S,
) -> ResponseFuture<S, Req, C, R>
where
    I: BorrowMut<S>,
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    R: RequestPolicy<Req>,
{
    let core = &*shared.core;
    let (mut refused, mut limits, mut in_flight) = (false, None, CallInFlight::NOT_COUNTED);
    let deadline = context::deadline();
    if core.is_limited() {
        TimeLimits::find(core, deadline, &mut limits);
        refused = limits.is_some_and(|limits| limits.are_passed());
        if !refused {
            in_flight = core.budget.call_started();
        }
    } else if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        limits = Some(TimeLimits::refuse(core));
        refused = true;
    }
    let panicked = || core.record_panicked();
    let (mut copy, mut idempotent, mut permitted) = (None, true, true);
    if !refused && core.max_attempts() > 1 {
        on_unwind(panicked, || {
            permitted = shared.requests.may_retry(&request);
            if permitted {
                copy = shared.requests.try_clone(&request);
                let is_known = shared.requests.states_idempotency() || !shared.classifier.needs_idempotency();
                idempotent = is_known && shared.requests.is_idempotent(&request);
            }
        });
    }
    let mut scope = AttemptScope::new(Attempt::new(1));
    if let Some(first) = limits.and_then(|limits: TimeLimits| limits.first) {
        scope.set_end(context::nearer_attempt_end(first.cutoff.at));
    }
    let attempt = if refused {
        InScope::empty(scope)
    } else {
        on_unwind(panicked, || InScope::call(scope, || inner.borrow_mut().call(request)))
    };
    let service = copy.is_some().then(|| on_unwind(panicked, || keep(inner)));
    let call = Call { idempotent, permitted, over_at: None };
    let mut future = ResponseFuture::new(attempt, service, copy, call, in_flight, shared);
    // Afterwards, or each call without a limit would be told so by way of the stack.
    if let Some(limits) = limits {
        future.limit(limits);
    }
    future
}

impl<S: Clone, C, R> Clone for Retry<S, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for Retry<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("core", &self.shared.core).finish_non_exhaustive()
    }
}
