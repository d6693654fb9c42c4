//! [`ResponseFuture`]: the response future.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::handle::{Cause, Core};
use super::layer::Shared;
use super::policy::{Decision, Ended, Limits, decide};
use super::{AfterAttempt, GiveUpReason, RequestPolicy};
use crate::backoff::Progress;
use crate::budget::CallInFlight;
use crate::context::{self, AttemptScope, InScope};
use crate::cores::striped_arc::StripedArc;
use crate::cores::unwind::on_unwind;
use crate::error::{Rejectable, Rejected};
use crate::outcome::{Classify, Outcome, RetryHint, judge};
use crate::timer::{Cutoff, Timer};

pin_project! {
    /// The response future of [`Retry`](super::Retry).
    ///
    /// It is `Send` when the service, its future, the request, the classifier and the request policy are.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs, under the context that was set for it, and no other follows. The call counts
    /// as abandoned; one that a panic takes along counts as panicked. What was withdrawn from the budget for an attempt that has not started is given back.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::RetryLayer::builder("users").build()?;
    /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let response = service.ready().await?.call(1);
    /// drop(response);
    /// assert_eq!(layer.handle().statistics().abandoned, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, C, R>
    where
        S: Service<Req>,
    {
        #[pin]
        attempt: InScope<AttemptScope, S::Future>,
        // For the end of an attempt, of a delay, or of the wait for readiness.
        #[pin]
        timer: Timer,
        cutoff: Option<Cutoff>,
        stage: Stage,
        // Makes the attempts after the first; `None` when there was no copy for them.
        service: Option<S>,
        // The copy for the next attempt.
        request: Option<Req>,
        progress: Progress,
        call: Call,
        in_flight: CallInFlight,
        shared: StripedArc<Shared<C, R>>,
    }

    impl<S, Req, C, R> PinnedDrop for ResponseFuture<S, Req, C, R>
    where
        S: Service<Req>,
    {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            if !matches!(this.stage, Stage::Done) {
                this.shared.core.record_abandoned();
                this.shared.core.close(this.stage, &this.call);
            }
        }
    }
}

/// What is known of the call as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) idempotent: bool,
    /// The request policy lets it be retried.
    pub(super) permitted: bool,
    /// Some attempt may have reached the callee.
    pub(super) sent: bool,
    /// The attempt that runs was paid for.
    pub(super) paid: bool,
    /// Why there is another attempt.
    pub(super) cause: Cause,
    /// When the longest time is over.
    pub(super) over_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Attempting,
    Delayed(Instant),
    /// Waits for the service to be ready for the next attempt.
    Readying,
    Done,
}

// === impl Core ===

impl Core {
    /// A panic came out of the code of others and takes the call along.
    #[cold]
    fn lose(&self, stage: &mut Stage, call: &Call) {
        let stage = std::mem::replace(stage, Stage::Done);
        self.close(stage, call);
        self.record_panicked();
    }

    /// The call ends at this stage and without a result: what was paid for an attempt that has not started is given back.
    fn close(&self, stage: Stage, call: &Call) {
        match stage {
            _ if !call.paid => {}
            Stage::Attempting => self.budget.settle(),
            _ => self.budget.refund(),
        }
    }
}

// === impl ResponseFuture ===

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        attempt: InScope<AttemptScope, S::Future>,
        service: Option<S>,
        request: Option<Req>,
        call: Call,
        in_flight: CallInFlight,
        cutoff: Option<Cutoff>,
        shared: StripedArc<Shared<C, R>>,
    ) -> Self {
        Self {
            attempt,
            timer: Timer::new(),
            cutoff,
            stage: Stage::Attempting,
            service,
            request,
            progress: Progress::start(),
            call,
            in_flight,
            shared,
        }
    }
}

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
    R: RequestPolicy<Req>,
{
    /// Looks at what an attempt ended in. `None` if it is final; else what there is to be known of it.
    #[inline]
    fn judge(self: Pin<&mut Self>, result: &Result<S::Response, S::Error>) -> Option<(Outcome, RetryHint, bool)> {
        let this = self.project();
        let (outcome, hint, sent) = match result.as_ref().err().and_then(Rejectable::as_rejected) {
            Some(rejected) => (rejected.outcome(), rejected.retry(), rejected.was_sent()),
            None => {
                let shared = &**this.shared;
                let lost = || shared.core.lose(this.stage, this.call);
                let (outcome, hint) = on_unwind(lost, || {
                    let outcome = shared.classifier.classify(result.as_ref());
                    (outcome, shared.core.hooks.hint(outcome))
                });
                (outcome, hint, true)
            }
        };
        let core = &this.shared.core;
        if sent && !this.call.sent {
            this.call.sent = true;
            core.budget.record_sent();
        } else if this.call.paid {
            if sent {
                core.budget.settle();
            } else {
                core.budget.refund();
            }
        }
        this.call.paid = false;
        if hint == RetryHint::No {
            *this.stage = Stage::Done;
            if outcome == Outcome::DependencyFailed {
                // Whoever is further out cannot help it either, and may not see the mark that was on this answer: a server
                // answers in its own words.
                context::mark_gave_up();
            }
            core.record_return(outcome);
            core.hooks.observe(this.attempt.scope().0.number, outcome, sent, AfterAttempt::Returned);
            return None;
        }
        Some((outcome, hint, sent))
    }

    /// Decides what follows an attempt that another might help. Returns the result if none does.
    #[cold]
    fn follow(
        self: Pin<&mut Self>,
        result: Result<S::Response, S::Error>,
        outcome: Outcome,
        hint: RetryHint,
        sent: bool,
    ) -> Option<Result<S::Response, S::Error>> {
        let mut this = self.project();
        let core = &this.shared.core;
        let attempt = this.attempt.scope().0.number;
        let ended = Ended {
            attempt,
            max_attempts: core.max_attempts(),
            hint,
            sent,
            idempotent: this.call.idempotent,
            permitted: this.call.permitted,
            has_copy: this.request.is_some(),
            replayable: true,
            inner_gave_up: this.attempt.scope().0.gave_up && !core.config().retry_after_inner_gave_up,
        };
        // The clock is read once, and not at all for a retry at once and without a deadline.
        let read = Cell::new(None);
        let now = || match read.get() {
            Some(now) => now,
            None => {
                let now = Instant::now();
                read.set(Some(now));
                now
            }
        };
        let limits = Limits {
            max_retry_after: core.config().max_retry_after,
            deadline: context::current().deadline().map(Instant::into_std),
            over_at: this.call.over_at.map(Instant::into_std),
        };
        let lost = || core.lose(this.stage, this.call);
        let decision = on_unwind(lost, || {
            let copy = this.request.as_ref();
            let replayable = copy.is_none_or(|copy| this.shared.requests.is_replayable(copy));
            let delay = || core.next_delay(attempt, outcome, this.progress);
            decide(Ended { replayable, ..ended }, limits, || now().into_std(), delay)
        });
        let decision = match decision {
            // Only what comes on top of a call that was sent is extra.
            Decision::Retry(_) if this.call.sent && !core.budget.try_withdraw() => {
                Decision::GiveUp(GiveUpReason::Budget)
            }
            decision => decision,
        };
        match decision {
            Decision::Return => {
                *this.stage = Stage::Done;
                core.record_return(outcome);
                core.hooks.observe(attempt, outcome, sent, AfterAttempt::Returned);
                Some(result)
            }
            Decision::GiveUp(reason) => {
                *this.stage = Stage::Done;
                core.record_give_up(attempt, outcome, reason);
                core.hooks.observe(attempt, outcome, sent, AfterAttempt::GaveUp(reason));
                context::mark_gave_up();
                Some(result)
            }
            Decision::Retry(delay) => {
                this.call.paid = this.call.sent;
                this.call.cause = Cause::of(outcome, sent);
                core.tell_of_retry(attempt, outcome, delay);
                core.hooks.observe(attempt, outcome, sent, AfterAttempt::Retrying { delay });
                // Neither the response nor what is left of the attempt is held through the delay.
                drop(result);
                this.attempt.as_mut().clear();
                this.timer.disarm();
                *this.cutoff = None;
                let scope = this.attempt.scope_mut();
                scope.0.number = attempt.saturating_add(1);
                scope.0.gave_up = false;
                // A zero delay, and one beyond the end of time (which no callee asks for), need no timer.
                let until = if delay.is_zero() { None } else { now().checked_add(delay) };
                *this.stage = until.map_or(Stage::Readying, Stage::Delayed);
                None
            }
        }
    }

    /// Goes on while no attempt runs: `None` when the next stage has begun.
    #[cold]
    fn poll_between(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<S::Response, S::Error>>> {
        match self.stage {
            Stage::Attempting => Poll::Ready(None),
            Stage::Delayed(until) => {
                let mut this = self.as_mut().project();
                ready!(this.timer.as_mut().poll_at(until, cx));
                this.timer.disarm();
                *this.stage = Stage::Readying;
                Poll::Ready(None)
            }
            Stage::Readying => self.poll_next(cx),
            // Polled after its end: it has nothing more to say.
            Stage::Done => Poll::Pending,
        }
    }

    /// Waits until the service is ready for the next attempt, and starts it. Returns what the call ends in if it cannot.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<S::Response, S::Error>>> {
        let mut this = self.project();
        // Both are there: else no retry would have been decided on.
        let (Some(service), true) = (this.service.as_mut(), this.request.is_some()) else {
            return Poll::Pending;
        };
        let core = &this.shared.core;
        let ready = on_unwind(
            || core.lose(this.stage, this.call),
            || context::within(this.attempt.as_mut().scope_mut(), || service.poll_ready(cx)),
        );
        let ended = match ready {
            // Where the delay, or the wait, ended late: no work is started for a caller that no longer waits.
            Poll::Ready(Ok(())) => context::current()
                .deadline()
                .filter(|&deadline| deadline <= Instant::now())
                .map(|_| S::Error::from_rejected(Rejected::DeadlineExceeded { sent: this.call.sent })),
            Poll::Ready(Err(error)) => Some(error),
            Poll::Pending => {
                let deadline = context::current().deadline();
                match (core.config().ready_timeout, deadline) {
                    (None, None) => return Poll::Pending,
                    (None, Some(deadline)) => {
                        ready!(this.timer.as_mut().poll_at(deadline, cx));
                        Some(S::Error::from_rejected(Rejected::DeadlineExceeded { sent: this.call.sent }))
                    }
                    (Some(timeout), _) => {
                        let cutoff = *this.cutoff.get_or_insert_with(|| Cutoff::new(Instant::now(), timeout, deadline));
                        // The timer would round no time at all up to a millisecond.
                        if !timeout.is_zero() {
                            let Some(at) = cutoff.at else { return Poll::Pending };
                            ready!(this.timer.as_mut().poll_at(at, cx));
                        }
                        let rejected = cutoff.rejected(timeout, this.call.sent);
                        if !cutoff.by_deadline {
                            if this.call.paid {
                                core.budget.refund();
                            }
                            *this.stage = Stage::Done;
                            let attempts = this.attempt.scope().0.number.saturating_sub(1);
                            core.record_give_up(attempts, rejected.outcome(), GiveUpReason::NotReady);
                            context::mark_gave_up();
                            return Poll::Ready(Some(Err(S::Error::from_rejected(rejected))));
                        }
                        Some(S::Error::from_rejected(rejected))
                    }
                }
            }
        };
        if let Some(error) = ended {
            if this.call.paid {
                core.budget.refund();
            }
            *this.stage = Stage::Done;
            let lost = || core.record_panicked();
            let outcome = on_unwind(lost, || judge(&this.shared.classifier, Err::<&S::Response, _>(&error)));
            core.record_return(outcome);
            return Poll::Ready(Some(Err(error)));
        }
        this.timer.as_mut().disarm();
        let Some(request) = this.request.take() else { return Poll::Pending };
        let AttemptScope(attempt) = *this.attempt.scope();
        if attempt.number < core.max_attempts() {
            let lost = || core.lose(this.stage, this.call);
            *this.request = on_unwind(lost, || this.shared.requests.try_clone(&request));
        }
        *this.cutoff = core
            .config()
            .attempt_timeout
            .map(|timeout| Cutoff::new(Instant::now(), timeout, context::current().deadline()));
        *this.stage = Stage::Attempting;
        core.record_retry(this.call.cause);
        on_unwind(
            || core.lose(this.stage, this.call),
            || this.attempt.as_mut().set(AttemptScope(attempt), || service.call(request)),
        );
        Poll::Ready(None)
    }
}

impl<S, Req, C, R> Future for ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
    R: RequestPolicy<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if !matches!(self.stage, Stage::Attempting) {
                match ready!(self.as_mut().poll_between(cx)) {
                    Some(result) => return Poll::Ready(result),
                    None => continue,
                }
            }
            let this = self.as_mut().project();
            let (core, stage, call) = (&this.shared.core, this.stage, this.call);
            let mut polled = on_unwind(|| core.lose(stage, call), || this.attempt.poll(cx));
            if polled.is_pending() {
                let mut this = self.as_mut().project();
                let Some(cutoff @ Cutoff { at: Some(at), .. }) = *this.cutoff else { return Poll::Pending };
                ready!(this.timer.poll_against(at, cx));
                this.attempt.as_mut().clear();
                let timeout = this.shared.core.config().attempt_timeout.unwrap_or_default();
                polled = Poll::Ready(Err(S::Error::from_rejected(cutoff.rejected(timeout, true))));
            }
            let Poll::Ready(result) = &polled else { return Poll::Pending };
            // Judged where it is: a response can be large.
            let Some((outcome, hint, sent)) = self.as_mut().judge(result) else { return polled };
            let result = ready!(polled);
            if let Some(result) = self.as_mut().follow(result, outcome, hint, sent) {
                return Poll::Ready(result);
            }
        }
    }
}

impl<S, Req, C, R> fmt::Debug for ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.attempt.scope().0.number;
        f.debug_struct("ResponseFuture").field("attempt", &attempt).field("stage", &self.stage).finish_non_exhaustive()
    }
}
