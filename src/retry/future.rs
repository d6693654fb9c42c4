//! [`ResponseFuture`]: the response future.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::handle::{Cause, Core};
use super::layer::Shared;
use super::policy::{Decision, Ended, Limits, decide};
use super::progress::{Lost, LostAtFirst, Progress, ProgressParts, Stage};
use super::time_limits::{REFUSED, TimeLimits};
use super::{AfterAttempt, GiveUpReason, RequestPolicy};
use crate::budget::CallInFlight;
use crate::context::{self, Attempt, AttemptScope, InScope};
use crate::cores::striped_arc::StripedArc;
use crate::cores::unwind::{Guard, on_unwind};
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
        // Runs from the call on; neither this nor `progress` is left when the call has ended.
        #[pin]
        attempt: InScope<AttemptScope, S::Future>,
        // `None` through a first attempt without a time limit.
        #[pin]
        progress: Option<Progress>,
        // Makes the attempts after the first; `None` when there was no copy for them.
        service: Option<S>,
        // The copy for the next attempt.
        request: Option<Req>,
        // What the last attempt ended in, kept through the delay only while the copy may be lost.
        last: Option<Result<S::Response, S::Error>>,
        // Of the attempt that runs, or of the wait for readiness. Of a call that was refused, until the caller was told: it is
        // counted already.
        cutoff: Option<Cutoff>,
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
            if this.attempt.is_running() || this.progress.is_some() {
                this.shared.core.abandon(this.progress.as_ref());
            }
        }
    }
}

/// What is known of a call from its start on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) idempotent: bool,
    /// The request policy lets it be retried.
    pub(super) permitted: bool,
    /// When the longest time is over.
    pub(super) over_at: Option<Instant>,
}

// === impl ResponseFuture ===

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    #[inline(always)]
    pub(super) const fn new(
        attempt: InScope<AttemptScope, S::Future>,
        service: Option<S>,
        request: Option<Req>,
        call: Call,
        in_flight: CallInFlight,
        shared: StripedArc<Shared<C, R>>,
    ) -> Self {
        Self { attempt, progress: None, service, request, last: None, cutoff: None, call, in_flight, shared }
    }

    #[inline(always)]
    pub(super) const fn limit(&mut self, limits: TimeLimits) {
        self.call.over_at = limits.over_at;
        self.cutoff = limits.cutoff;
    }
}

type Ending<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
    R: RequestPolicy<Req>,
{
    /// Goes on where the first attempt did not end the call: with the result that it has just `ended` in, and the outcome
    /// where that was judged already; or else by polling.
    #[inline(never)]
    fn go_on(
        mut self: Pin<&mut Self>,
        mut ended: Option<Ending<S, Req>>,
        mut judged: Option<Outcome>,
        cx: &mut Context<'_>,
    ) -> Poll<Ending<S, Req>> {
        let mut this = self.as_mut().project();
        if this.progress.is_none() {
            this.progress.set(Some(Progress::start()));
        }
        let Some(progress) = this.progress.as_mut().as_pin_mut() else { return Poll::Pending };
        let mut progress = progress.project();
        let shared = &**this.shared;
        let core = &*shared.core;
        loop {
            // Judged where it is: a response can be large. It is not held through the delay, unless the copy may be lost in it.
            if let Some(result) = ended {
                let (attempt, copy) = (this.attempt.scope().attempt(), this.request.as_ref());
                if !Self::follow(shared, attempt, this.call, copy, &mut progress, &result, judged.take()) {
                    this.progress.set(None);
                    return Poll::Ready(result);
                }
                on_unwind(
                    || core.lose(progress.stage, *progress.paid),
                    || {
                        let copy = this.request.as_ref();
                        if copy.is_some_and(|copy| shared.requests.may_be_lost(copy)) {
                            *this.last = Some(result);
                        } else {
                            drop(result);
                        }
                    },
                );
                progress.timer.as_mut().disarm();
                *this.cutoff = None;
                this.attempt.as_mut().scope_mut().next_attempt();
            }
            match *progress.stage {
                Stage::Attempting => {}
                Stage::Between => {
                    if this.last.is_some() {
                        ready!(Self::poll_delay(&mut progress, cx));
                        if let Some(last) =
                            Self::lost_copy(shared, &this.attempt, this.request, this.last, &mut progress)
                        {
                            this.progress.set(None);
                            return Poll::Ready(last);
                        }
                    }
                    let attempt = this.attempt.as_mut();
                    let between =
                        Self::poll_between(shared, attempt, this.service, this.request, this.cutoff, &mut progress, cx);
                    if let Err(error) = ready!(between) {
                        this.progress.set(None);
                        *this.last = None;
                        return Poll::Ready(Err(error));
                    }
                    on_unwind(|| core.lose(progress.stage, *progress.paid), || *this.last = None);
                }
                // Polled after its end: it has nothing more to say.
                Stage::Lost => return Poll::Pending,
            }
            let lost = Guard(Lost { core, stage: progress.stage, paid: *progress.paid });
            let polled = this.attempt.as_mut().poll(cx);
            lost.disarm();
            match polled {
                Poll::Ready(Ok(response)) => {
                    let lost = || core.lose(progress.stage, *progress.paid);
                    let outcome = on_unwind(lost, || shared.classifier.classify(Ok(&response)));
                    if outcome.is_success() {
                        core.account(progress.sent, *progress.paid, true);
                        core.record_return(outcome);
                        let attempt = this.attempt.scope().attempt().number();
                        core.hooks.observe(attempt, outcome, true, AfterAttempt::Returned);
                        this.progress.set(None);
                        return Poll::Ready(Ok(response));
                    }
                    (ended, judged) = (Some(Ok(response)), Some(outcome));
                }
                Poll::Ready(Err(error)) => ended = Some(Err(error)),
                Poll::Pending => {
                    let cutoff = *this.cutoff;
                    let rejected = ready!(Self::poll_cutoff(core, cutoff, progress.timer.as_mut(), cx));
                    this.attempt.as_mut().clear();
                    ended = Some(Err(S::Error::from_rejected(rejected)));
                }
            }
        }
    }

    /// Goes on where the first attempt is pending, and has a limit.
    #[cold]
    #[inline(never)]
    fn go_on_limited(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending<S, Req>> {
        let mut this = self.as_mut().project();
        this.progress.set(Some(Progress::start()));
        let Some(progress) = this.progress.as_pin_mut() else { return Poll::Pending };
        let rejected = ready!(Self::poll_cutoff(&this.shared.core, *this.cutoff, progress.project().timer, cx));
        this.attempt.clear();
        self.go_on(Some(Err(S::Error::from_rejected(rejected))), None, cx)
    }

    /// Tells the caller that the call was not made; polled again, or after another end, it has nothing more to say.
    #[cold]
    #[inline(never)]
    fn poll_refused(cutoff: &mut Option<Cutoff>) -> Poll<Ending<S, Req>> {
        match cutoff.take_if(|cutoff| *cutoff == REFUSED) {
            Some(refused) => Poll::Ready(Err(S::Error::from_rejected(refused.rejected(Duration::ZERO, false)))),
            None => Poll::Pending,
        }
    }

    /// Waits for the end of the time of an attempt that is pending.
    #[inline]
    fn poll_cutoff(
        core: &Core,
        cutoff: Option<Cutoff>,
        timer: Pin<&mut Timer>,
        cx: &mut Context<'_>,
    ) -> Poll<Rejected> {
        let Some(cutoff @ Cutoff { at: Some(at), .. }) = cutoff else { return Poll::Pending };
        ready!(timer.poll_against(at, cx));
        Poll::Ready(cutoff.rejected(core.config().attempt_timeout.unwrap_or_default(), true))
    }

    /// Decides what follows the end of an attempt: whether there is another, or the result is final.
    #[inline]
    fn follow(
        shared: &Shared<C, R>,
        attempt: Attempt,
        call: &Call,
        copy: Option<&Req>,
        progress: &mut ProgressParts<'_>,
        result: &Ending<S, Req>,
        judged: Option<Outcome>,
    ) -> bool {
        let core = &*shared.core;
        let (outcome, hint, sent) = match result.as_ref().err().and_then(Rejectable::as_rejected) {
            Some(rejected) => (rejected.outcome(), rejected.retry(), rejected.was_sent()),
            None => {
                let lost = || core.lose(progress.stage, *progress.paid);
                let (outcome, hint) = on_unwind(lost, || {
                    let outcome = judged.unwrap_or_else(|| shared.classifier.classify(result.as_ref()));
                    (outcome, core.hooks.hint(outcome))
                });
                (outcome, hint, true)
            }
        };
        core.account(progress.sent, *progress.paid, sent);
        *progress.paid = false;
        if hint == RetryHint::No {
            if outcome == Outcome::DependencyFailed {
                // Whoever is further out cannot help it either, and may not see the mark that was on this answer: a server
                // answers in its own words.
                context::mark_gave_up();
            }
            core.record_return(outcome);
            core.hooks.observe(attempt.number(), outcome, sent, AfterAttempt::Returned);
            return false;
        }
        let ended = Ended {
            attempt: attempt.number(),
            max_attempts: core.max_attempts(),
            hint,
            sent,
            idempotent: call.idempotent,
            permitted: call.permitted,
            has_copy: copy.is_some(),
            replayable: true,
            inner_gave_up: attempt.gave_up() && !core.config().retry_after_inner_gave_up,
        };
        // The clock is read once, and not at all for a retry at once that needs no budget and has no deadline.
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
            deadline: context::deadline().map(Instant::into_std),
            over_at: call.over_at.map(Instant::into_std),
        };
        let lost = || core.lose(progress.stage, *progress.paid);
        let decision = on_unwind(lost, || {
            let replayable = copy.is_none_or(|copy| shared.requests.is_replayable(copy));
            let delay = || core.next_delay(attempt.number(), outcome, progress.delays);
            decide(Ended { replayable, ..ended }, limits, || now().into_std(), delay)
        });
        let decision = match decision {
            // Only what comes on top of a call that was sent is extra.
            Decision::Retry(_) if *progress.sent && !core.budget.try_withdraw_at(|| now().into_std()) => {
                Decision::GiveUp(GiveUpReason::Budget)
            }
            decision => decision,
        };
        match decision {
            Decision::Return => {
                core.record_return(outcome);
                core.hooks.observe(attempt.number(), outcome, sent, AfterAttempt::Returned);
                false
            }
            Decision::GiveUp(reason) => {
                core.give_up(attempt.number(), outcome, sent, reason);
                false
            }
            Decision::Retry(delay) => {
                *progress.paid = *progress.sent;
                *progress.cause = Cause::of(outcome, sent);
                *progress.stage = Stage::Between;
                *progress.outcome = outcome;
                // A zero delay, and one beyond the end of time (which no callee asks for), need no timer.
                if !delay.is_zero() {
                    *progress.delayed_until = now().checked_add(delay);
                }
                core.tell_of_retry(attempt.number(), outcome, delay);
                core.hooks.observe(attempt.number(), outcome, sent, AfterAttempt::Retrying { delay });
                true
            }
        }
    }

    /// Waits until the delay has passed.
    #[inline]
    fn poll_delay(progress: &mut ProgressParts<'_>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = *progress.delayed_until {
            ready!(progress.timer.as_mut().poll_at(until, cx));
            progress.timer.as_mut().disarm();
            *progress.delayed_until = None;
        }
        Poll::Ready(())
    }

    /// Ends the call with its last result if the copy was lost while the retry waited.
    #[cold]
    #[inline(never)]
    fn lost_copy(
        shared: &Shared<C, R>,
        attempt: &InScope<AttemptScope, S::Future>,
        copy: &Option<Req>,
        last: &mut Option<Ending<S, Req>>,
        progress: &mut ProgressParts<'_>,
    ) -> Option<Ending<S, Req>> {
        let core = &*shared.core;
        let lost = || core.lose(progress.stage, *progress.paid);
        if on_unwind(lost, || copy.as_ref().is_none_or(|copy| shared.requests.is_replayable(copy))) {
            return None;
        }
        if *progress.paid {
            core.budget.refund();
        }
        // The scope is already that of the attempt that does not start.
        let attempts = attempt.scope().attempt().number().saturating_sub(1);
        core.give_up(attempts, *progress.outcome, *progress.sent, GiveUpReason::NotReplayable);
        last.take()
    }

    /// Waits until the delay has passed and the service is ready for the next attempt, and starts it. Returns what the call ends
    /// in if it cannot.
    #[inline]
    fn poll_between(
        shared: &Shared<C, R>,
        mut attempt: Pin<&mut InScope<AttemptScope, S::Future>>,
        service: &mut Option<S>,
        copy: &mut Option<Req>,
        cutoff: &mut Option<Cutoff>,
        progress: &mut ProgressParts<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), S::Error>> {
        ready!(Self::poll_delay(progress, cx));
        // It is there: else no retry would have been decided on.
        let Some(service) = service else { return Poll::Pending };
        let ready = Self::poll_ready(&shared.core, attempt.as_mut(), service, progress, cx);
        if ready.is_pending() || matches!(ready, Poll::Ready(Err(_))) || context::deadline().is_some() {
            let late = Self::poll_late(shared, attempt.scope().attempt(), cutoff, progress, ready, cx);
            if let Some(error) = ready!(late) {
                return Poll::Ready(Err(error));
            }
        }
        progress.timer.as_mut().disarm();
        Self::start(shared, attempt, service, copy, cutoff, progress);
        Poll::Ready(Ok(()))
    }

    /// Polls the service for its readiness, under the next attempt.
    #[inline(always)]
    fn poll_ready(
        core: &Core,
        attempt: Pin<&mut InScope<AttemptScope, S::Future>>,
        service: &mut S,
        progress: &mut ProgressParts<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), S::Error>> {
        let lost = Guard(Lost { core, stage: progress.stage, paid: *progress.paid });
        let ready = context::within(attempt.scope_mut(), || service.poll_ready(cx));
        lost.disarm();
        ready
    }

    /// What a service says that is not ready, or may be so too late: the error that the call ends in, if there is one.
    #[cold]
    #[inline(never)]
    fn poll_late(
        shared: &Shared<C, R>,
        attempt: Attempt,
        cutoff: &mut Option<Cutoff>,
        progress: &mut ProgressParts<'_>,
        ready: Poll<Result<(), S::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<S::Error>> {
        let core = &*shared.core;
        let (sent, paid) = (*progress.sent, *progress.paid);
        let ended = match ready {
            // Where the delay, or the wait, ended late: no work is started for a caller that no longer waits.
            Poll::Ready(Ok(())) => context::deadline()
                .filter(|&deadline| deadline <= Instant::now())
                .map(|_| S::Error::from_rejected(Rejected::DeadlineExceeded { sent })),
            Poll::Ready(Err(error)) => Some(error),
            Poll::Pending => {
                let deadline = context::deadline();
                match (core.config().ready_timeout, deadline) {
                    (None, None) => return Poll::Pending,
                    (None, Some(deadline)) => {
                        ready!(progress.timer.as_mut().poll_at(deadline, cx));
                        Some(S::Error::from_rejected(Rejected::DeadlineExceeded { sent }))
                    }
                    (Some(timeout), _) => {
                        let cutoff = *cutoff.get_or_insert_with(|| Cutoff::new(Instant::now(), timeout, deadline));
                        // The timer would round no time at all up to a millisecond.
                        if !timeout.is_zero() {
                            let Some(at) = cutoff.at else { return Poll::Pending };
                            ready!(progress.timer.as_mut().poll_at(at, cx));
                        }
                        let rejected = cutoff.rejected(timeout, sent);
                        if !cutoff.by_deadline {
                            if paid {
                                core.budget.refund();
                            }
                            let attempts = attempt.number().saturating_sub(1);
                            core.record_give_up(attempts, rejected.outcome(), GiveUpReason::NotReady);
                            context::mark_gave_up();
                            return Poll::Ready(Some(S::Error::from_rejected(rejected)));
                        }
                        Some(S::Error::from_rejected(rejected))
                    }
                }
            }
        };
        if let Some(error) = &ended {
            let lost = || core.lose(progress.stage, paid);
            let outcome = on_unwind(lost, || judge(&shared.classifier, Err::<&S::Response, _>(error)));
            if paid {
                core.budget.refund();
            }
            core.record_return(outcome);
        }
        Poll::Ready(ended)
    }

    /// Starts the next attempt.
    #[inline(always)]
    fn start(
        shared: &Shared<C, R>,
        mut attempt: Pin<&mut InScope<AttemptScope, S::Future>>,
        service: &mut S,
        copy: &mut Option<Req>,
        cutoff: &mut Option<Cutoff>,
        progress: &mut ProgressParts<'_>,
    ) {
        let core = &*shared.core;
        // It is there, as the service is.
        let Some(request) = copy.take() else { return };
        let paid = *progress.paid;
        if attempt.scope().attempt().number() < core.max_attempts() {
            let lost = Guard(Lost { core, stage: progress.stage, paid });
            *copy = shared.requests.try_clone(&request);
            lost.disarm();
        }
        *cutoff = None;
        if let Some(timeout) = core.config().attempt_timeout {
            *cutoff = Some(Cutoff::new(Instant::now(), timeout, context::deadline()));
        }
        *progress.stage = Stage::Attempting;
        core.record_retry(*progress.cause);
        let lost = Guard(Lost { core, stage: progress.stage, paid });
        attempt.as_mut().set(|| service.call(request));
        lost.disarm();
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

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.progress.is_some() {
            return self.go_on(None, None, cx);
        }
        let mut this = self.as_mut().project();
        let shared = &**this.shared;
        let core = &*shared.core;
        let lost = LostAtFirst::guard(core, this.progress.as_mut());
        let (entered, mut running) = this.attempt.as_mut().enter();
        let Some(attempt) = running.as_mut().as_pin_mut() else {
            lost.disarm();
            entered.leave();
            return Self::poll_refused(this.cutoff);
        };
        let polled = attempt.poll(cx);
        if polled.is_ready() {
            // Dropped where it finished, so that nobody has to come back into the scope for that.
            running.set(None);
        }
        entered.leave();
        lost.disarm();
        match polled {
            Poll::Ready(Ok(response)) => {
                let lost = LostAtFirst::guard(core, this.progress.as_mut());
                let outcome = shared.classifier.classify(Ok(&response));
                lost.disarm();
                if !outcome.is_success() {
                    return self.go_on(Some(Ok(response)), Some(outcome), cx);
                }
                core.budget.record_sent();
                core.record_return(outcome);
                core.hooks.observe(1, outcome, true, AfterAttempt::Returned);
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(error)) => self.go_on(Some(Err(error)), None, cx),
            Poll::Pending if this.cutoff.is_none() => Poll::Pending,
            Poll::Pending => self.go_on_limited(cx),
        }
    }
}

impl<S, Req, C, R> fmt::Debug for ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.attempt.scope().attempt().number();
        f.debug_struct("ResponseFuture")
            .field("attempt", &attempt)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
