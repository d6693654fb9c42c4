//! [`ResponseFuture`]: the response future.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::handle::{Cause, Core};
use super::layer::Shared;
use super::policy::{Decision, Ended, Limits, decide};
use super::progress::{Lost, LostAtFirst, Progress, ProgressParts, Stage};
use super::time_limits::{AttemptLimit, REFUSED, TimeLimits, WaitLimit};
use super::{AfterAttempt, GiveUpReason, RequestPolicy};
use crate::budget::CallInFlight;
use crate::context::{self, AttemptScope, InScope};
use crate::cores::striped_arc::StripedArc;
use crate::cores::unwind::{Guard, on_unwind};
use crate::error::{Identities, Rejectable, Rejected};
use crate::outcome::{Classify, Outcome, RetryHint, judge};
use crate::timer::Timer;

pin_project! {
    /// The response future of [`Retry`](super::Retry).
    ///
    /// `F`, `T` and `E` are what the service returns: its future, response and error, each with a name here for the reason that
    /// [`Oneshot`](crate::Oneshot) has one.
    ///
    /// It is `Send` when the service, its future, the request, the classifier and the request policy are.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs, under the context that was set for it, and no other follows. The call counts
    /// as abandoned; one that a panic takes along counts as panicked. What was withdrawn from the budget for an attempt that has not started is given back.
    ///
    /// # Panics
    ///
    /// When it is polled after it has returned its result, or after a panic.
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
    pub struct ResponseFuture<
        S,
        Req,
        C,
        R,
        F = <S as Service<Req>>::Future,
        T = <S as Service<Req>>::Response,
        E = <S as Service<Req>>::Error,
    >
    where
        S: Service<Req>,
    {
        // Runs from the call on; neither this nor `progress` is left when the call has ended.
        #[pin]
        attempt: InScope<AttemptScope, F>,
        // `None` through a first attempt without a time limit.
        #[pin]
        progress: Option<Progress>,
        // Makes the attempts after the first; `None` when there was no copy for them.
        service: Option<S>,
        // The copy for the next attempt.
        request: Option<Req>,
        // What the last attempt ended in, while the next one is waited for: the call returns it if a limit ends the wait, or if
        // the copy is lost. A response is only kept where the copy may be lost.
        last: Option<Result<T, E>>,
        // Of the attempt that runs. Of a call that was refused, until the caller was told: it is counted already.
        limit: Option<AttemptLimit>,
        call: Call,
        in_flight: CallInFlight,
        shared: StripedArc<Shared<C, R>>,
    }

    impl<S, Req, C, R, F, T, E> PinnedDrop for ResponseFuture<S, Req, C, R, F, T, E>
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
        Self { attempt, progress: None, service, request, last: None, limit: None, call, in_flight, shared }
    }

    #[inline(always)]
    pub(super) const fn limit(&mut self, limits: TimeLimits) {
        self.call.over_at = limits.over_at;
        self.limit = limits.first;
    }
}

/// How many attempts may start in one poll of the future: retries without a delay let other tasks run, and a timeout around them
/// fire, after each so many.
const ATTEMPTS_PER_POLL: u32 = 8;

/// What the next attempt is made of, and what limits it.
struct Next<'a, S, Req>
where
    S: Service<Req>,
{
    attempt: Pin<&'a mut InScope<AttemptScope, S::Future>>,
    service: &'a mut Option<S>,
    copy: &'a mut Option<Req>,
    last: &'a mut Option<Result<S::Response, S::Error>>,
    limit: &'a mut Option<AttemptLimit>,
    over_at: Option<Instant>,
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
        let mut started = 0;
        loop {
            // Judged where it is: a response can be large. And it is not held through the delay, as it may hold a connection,
            // unless the copy may be lost in it.
            if let Some(result) = ended {
                let (attempt, copy) = (this.attempt.scope(), this.request.as_ref());
                if !Self::follow(shared, attempt, this.call, copy, &mut progress, &result, judged.take()) {
                    this.progress.set(None);
                    return Poll::Ready(result);
                }
                let lost = || core.lose(progress.stage, *progress.paid);
                on_unwind(lost, || {
                    *progress.may_be_lost = copy.is_some_and(|copy| shared.requests.may_be_lost(copy));
                    *this.last = Some(result).filter(|result| result.is_err() || *progress.may_be_lost);
                });
                progress.timer.as_mut().disarm();
                this.attempt.as_mut().scope_mut().next_attempt();
            }
            match *progress.stage {
                Stage::Attempting => {}
                Stage::Between => {
                    let next = Next {
                        attempt: this.attempt.as_mut(),
                        service: this.service,
                        copy: this.request,
                        last: this.last,
                        limit: this.limit,
                        over_at: this.call.over_at,
                    };
                    let between = if started == ATTEMPTS_PER_POLL {
                        // The first poll of a yield is always pending, and has the task woken after timers and I/O were driven.
                        pin!(tokio::task::yield_now()).poll(cx).map(|()| None)
                    } else {
                        Self::poll_between(shared, next, &mut progress, cx)
                    };
                    let result = match between {
                        Poll::Ready(result) => result,
                        Poll::Pending if context::is_last_poll() => {
                            // A limit further out ends the wait: it gets the last result in place of its own rejection.
                            let last = ready!(this.last.take().map_or(Poll::Pending, Poll::Ready));
                            let attempt = this.attempt.scope();
                            Self::give_up_waiting(core, attempt, &last, GiveUpReason::Deadline, &mut progress);
                            Some(last)
                        }
                        Poll::Pending => return Poll::Pending,
                    };
                    if let Some(result) = result {
                        this.progress.set(None);
                        *this.last = None;
                        return Poll::Ready(result);
                    }
                    started += 1;
                }
                Stage::Lost => panic!("`ResponseFuture` polled after a panic"),
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
                    let rejected = ready!(Self::poll_cutoff(*this.limit, progress.timer.as_mut(), cx));
                    let lost = Guard(Lost { core, stage: progress.stage, paid: *progress.paid });
                    ended = Some(Self::cut_off(this.attempt.as_mut(), rejected, cx));
                    lost.disarm();
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
        let mut progress = progress.project();
        let rejected = ready!(Self::poll_cutoff(*this.limit, progress.timer.as_mut(), cx));
        let lost = Guard(Lost { core: &this.shared.core, stage: progress.stage, paid: *progress.paid });
        let ended = Self::cut_off(this.attempt, rejected, cx);
        lost.disarm();
        self.go_on(Some(ended), None, cx)
    }

    /// Ends an attempt whose time is over: with its result, if it is ready after all, or with the rejection of what it waits for,
    /// if a layer below has recorded one, or else with `rejected`.
    fn cut_off(
        mut attempt: Pin<&mut InScope<AttemptScope, S::Future>>,
        rejected: Rejected,
        cx: &mut Context<'_>,
    ) -> Ending<S, Req> {
        context::poll_awaited(|| attempt.as_mut().poll(cx)).unwrap_or_else(|awaited| {
            attempt.clear();
            Err(S::Error::from_rejected(awaited.unwrap_or(rejected)))
        })
    }

    /// Returns the rejection of a call that was not made, once.
    #[cold]
    #[inline(never)]
    fn poll_refused(limit: &mut Option<AttemptLimit>) -> Poll<Ending<S, Req>> {
        match limit.take_if(|limit| *limit == REFUSED) {
            Some(refused) => Poll::Ready(Err(S::Error::from_rejected(refused.rejected(false)))),
            None => panic!("`ResponseFuture` polled after completion"),
        }
    }

    /// Waits for the end of the time of an attempt that is pending.
    #[inline]
    fn poll_cutoff(limit: Option<AttemptLimit>, timer: Pin<&mut Timer>, cx: &mut Context<'_>) -> Poll<Rejected> {
        let Some((limit, at)) = limit.and_then(|limit| Some((limit, limit.cutoff.at?))) else { return Poll::Pending };
        ready!(timer.poll_against(at, cx));
        Poll::Ready(limit.rejected(true))
    }

    /// Decides what follows the end of an attempt: whether there is another, or the result is final.
    #[inline]
    fn follow(
        shared: &Shared<C, R>,
        scope: &AttemptScope,
        call: &Call,
        copy: Option<&Req>,
        progress: &mut ProgressParts<'_>,
        result: &Ending<S, Req>,
        judged: Option<Outcome>,
    ) -> bool {
        let core = &*shared.core;
        let attempt = scope.attempt();
        let (outcome, hint, sent) = match result.as_ref().err().and_then(Rejectable::as_rejected) {
            Some(rejected) => (rejected.outcome(), rejected.retry(), rejected.was_sent()),
            None => {
                let lost = || core.lose(progress.stage, *progress.paid);
                let (outcome, hint) = on_unwind(lost, || {
                    let outcome = judged.unwrap_or_else(|| shared.classifier.classify(result.as_ref()));
                    (outcome, core.hooks.hint(outcome))
                });
                (outcome, hint, outcome.was_sent())
            }
        };
        core.account(progress.sent, *progress.paid, sent);
        *progress.paid = 0;
        if hint == RetryHint::No {
            if outcome == Outcome::DependencyFailed {
                // A retry further out cannot help it either, and may not see the mark that was on this answer: a server
                // answers in its own words.
                let lost = || core.lose(progress.stage, *progress.paid);
                on_unwind(lost, || Self::mark(result));
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
            inner_gave_up: false,
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
            deadline: context::deadline().map(Instant::into_std),
            over_at: call.over_at.map(Instant::into_std),
        };
        let lost = || core.lose(progress.stage, *progress.paid);
        let decision = on_unwind(lost, || {
            let is_among = |errors: Identities| errors.hold(result.as_ref().err()?);
            let inner_gave_up = scope.gave_up(is_among) && !core.config().retry_after_inner_gave_up;
            let replayable = copy.is_none_or(|copy| shared.requests.is_replayable(copy));
            let delay = || core.next_delay(attempt.number(), outcome, progress.delays);
            let ended = Ended { replayable, inner_gave_up, ..ended };
            decide(ended, limits, || core.hints(), || now().into_std(), delay, || core.draw_evenly())
        });
        let cause = Cause::of(outcome, sent);
        // Only what comes on top of a call that was sent is extra.
        let cost = if *progress.sent { cause.cost() } else { 0 };
        let decision = match decision {
            Decision::Retry(_) if !core.budget.try_withdraw_at(cost, || now().into_std()) => {
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
                let lost = || core.lose(progress.stage, *progress.paid);
                on_unwind(lost, || Self::mark(result));
                core.give_up(attempt.number(), outcome, sent, reason);
                false
            }
            Decision::Retry(delay) => {
                *progress.paid = cost;
                *progress.cause = cause;
                *progress.stage = Stage::Between;
                *progress.ready_limit = None;
                *progress.outcome = outcome;
                // A zero delay needs no timer.
                if !delay.is_zero() {
                    *progress.delayed_until = now().checked_add(delay);
                }
                core.tell_of_retry(attempt.number(), outcome, delay);
                core.hooks.observe(attempt.number(), outcome, sent, AfterAttempt::Retrying { delay });
                true
            }
        }
    }

    /// Waits until the delay has passed and the service is ready for the next attempt, and starts it. Returns what the call ends
    /// in if it cannot be started.
    #[inline]
    fn poll_between(
        shared: &Shared<C, R>,
        mut next: Next<'_, S, Req>,
        progress: &mut ProgressParts<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Ending<S, Req>>> {
        if let Some(until) = *progress.delayed_until {
            ready!(progress.timer.as_mut().poll_at(until, cx));
            progress.timer.as_mut().disarm();
            *progress.delayed_until = None;
        }
        if *progress.may_be_lost
            && let Some(last) = Self::lost_copy(shared, &mut next, progress)
        {
            return Poll::Ready(Some(last));
        }
        // Always `Some`: `decide` returns `Retry` only if a copy of the request exists, and with it the service is kept.
        let Some(service) = next.service.as_mut() else { return Poll::Pending };
        let ready = Self::poll_ready(&shared.core, next.attempt.as_mut(), service, progress, cx);
        if !matches!(ready, Poll::Ready(Ok(()))) || context::deadline().is_some() || next.over_at.is_some() {
            let late = Self::poll_late(shared, &mut next, progress, ready, cx);
            if let Some(result) = ready!(late) {
                return Poll::Ready(Some(result));
            }
        }
        progress.timer.as_mut().disarm();
        Self::start(shared, next, progress);
        Poll::Ready(None)
    }

    /// Ends the call with its last result if the copy was lost while the retry waited.
    #[cold]
    #[inline(never)]
    fn lost_copy(
        shared: &Shared<C, R>,
        next: &mut Next<'_, S, Req>,
        progress: &mut ProgressParts<'_>,
    ) -> Option<Ending<S, Req>> {
        let core = &*shared.core;
        let lost = || core.lose(progress.stage, *progress.paid);
        if on_unwind(lost, || next.copy.as_ref().is_none_or(|copy| shared.requests.is_replayable(copy))) {
            return None;
        }
        let last = next.last.take()?;
        Self::give_up_waiting(core, next.attempt.scope(), &last, GiveUpReason::NotReplayable, progress);
        Some(last)
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

    /// Handles a service that failed to become ready, is not ready yet, or may be ready too late: returns what the call ends in,
    /// or `None` if the next attempt may start.
    #[cold]
    #[inline(never)]
    fn poll_late(
        shared: &Shared<C, R>,
        next: &mut Next<'_, S, Req>,
        progress: &mut ProgressParts<'_>,
        ready: Poll<Result<(), S::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Ending<S, Req>>> {
        let core = &*shared.core;
        let limit = match ready {
            Poll::Ready(Err(error)) => {
                let (result, paid) = (Err(error), *progress.paid);
                let lost = || core.lose(progress.stage, paid);
                let outcome = on_unwind(lost, || judge(&shared.classifier, result.as_ref()));
                core.refund(paid);
                core.record_return(outcome);
                return Poll::Ready(Some(result));
            }
            // The delay, or the wait, ended late: no attempt is started for a caller that no longer waits.
            Poll::Ready(Ok(())) => {
                let limit = WaitLimit::nearest(None, context::deadline(), next.over_at);
                let Some(limit) = limit.filter(|limit| limit.at <= Instant::now()) else { return Poll::Ready(None) };
                limit
            }
            Poll::Pending => {
                let limit = *progress.ready_limit.get_or_insert_with(|| {
                    let timeout = core.config().ready_timeout;
                    let ready = timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, timeout)));
                    WaitLimit::nearest(ready, context::deadline(), next.over_at)
                });
                let Some(limit) = limit else { return Poll::Pending };
                // The timer would round no time at all up to a millisecond.
                if limit.at > Instant::now() {
                    ready!(progress.timer.as_mut().poll_at(limit.at, cx));
                }
                limit
            }
        };
        // The error of the last attempt; a response that was dropped before the wait is replaced by a rejection.
        let result = next.last.take().unwrap_or_else(|| {
            let sent = *progress.sent;
            let rejected = match limit.reason {
                GiveUpReason::Deadline => Rejected::DeadlineExceeded { sent },
                GiveUpReason::Elapsed => Rejected::Timeout { timeout: core.max_elapsed().unwrap_or_default(), sent },
                _ => Rejected::Timeout { timeout: limit.timeout, sent },
            };
            *progress.outcome = rejected.outcome();
            Err(S::Error::from_rejected(rejected))
        });
        Self::give_up_waiting(core, next.attempt.scope(), &result, limit.reason, progress);
        Poll::Ready(Some(result))
    }

    /// The call ends with `result`, although another attempt might have helped: it does not start. The scope is already that of this
    /// attempt.
    fn give_up_waiting(
        core: &Core,
        scope: &AttemptScope,
        result: &Ending<S, Req>,
        reason: GiveUpReason,
        progress: &mut ProgressParts<'_>,
    ) {
        let paid = *progress.paid;
        on_unwind(|| core.lose(progress.stage, paid), || Self::mark(result));
        core.refund(paid);
        core.give_up(scope.attempt().number().saturating_sub(1), *progress.outcome, *progress.sent, reason);
    }

    /// Marks the result of this call for a retry further out: it is final.
    fn mark(result: &Ending<S, Req>) {
        context::mark_gave_up(|| Identities::of(result.as_ref().err()?));
    }

    /// Starts the next attempt.
    #[inline(always)]
    fn start(shared: &Shared<C, R>, mut next: Next<'_, S, Req>, progress: &mut ProgressParts<'_>) {
        let core = &*shared.core;
        // Always `Some`, as in `poll_between`.
        let (Some(service), Some(request)) = (next.service.as_mut(), next.copy.take()) else { return };
        let paid = *progress.paid;
        let lost = Guard(Lost { core, stage: progress.stage, paid });
        *next.last = None;
        if next.attempt.scope().attempt().number() < core.max_attempts() {
            *next.copy = shared.requests.try_clone(&request);
        }
        lost.disarm();
        *next.limit = AttemptLimit::find(core, Instant::now, context::deadline());
        if let Some(limit) = next.limit {
            let end = context::nearer_attempt_end(limit.cutoff.at);
            next.attempt.as_mut().scope_mut().set_end(end);
        }
        *progress.stage = Stage::Attempting;
        core.record_retry(*progress.cause);
        let lost = Guard(Lost { core, stage: progress.stage, paid });
        next.attempt.as_mut().set(|| service.call(request));
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
            return Self::poll_refused(this.limit);
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
            Poll::Pending if this.limit.is_none() => Poll::Pending,
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

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::backoff::BackoffConfig;
    use crate::context::{Context, record_awaited};
    use crate::retry::{RetryBuilder, RetryLayer};
    use crate::{BoxError, NoEndpoint, NoEndpointReason, Rejectable, Rejected};

    const SECOND: Duration = Duration::from_secs(1);

    fn every(delay: Duration) -> RetryBuilder {
        RetryLayer::builder("test").backoff(BackoffConfig::constant(delay))
    }

    fn empty() -> Rejected {
        NoEndpoint::new("app", NoEndpointReason::Empty).into()
    }

    /// What a layer does that waits without end.
    async fn wait() -> Result<u32, BoxError> {
        poll_fn(|_| {
            record_awaited(empty);
            std::task::Poll::Pending
        })
        .await
    }

    /// Entry 15, at the first attempt and at a later one.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_timeout_that_ends_a_wait_returns_what_was_waited_for() {
        for attempts in [1, 2] {
            let layer = every(SECOND).attempt_timeout(SECOND).max_attempts(attempts).build().unwrap();
            let start = Instant::now();
            let error = layer.run(wait).await.unwrap_err();
            assert_eq!(error.as_rejected(), Some(&empty()));
            assert_eq!(start.elapsed(), SECOND * (2 * attempts - 1));
            assert_eq!(layer.handle().budget().balance(), 10.0, "nothing was sent");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_timeout_without_a_known_cause_returns_itself_and_a_late_result_wins() {
        let layer = every(SECOND).attempt_timeout(SECOND).max_attempts(1).build().unwrap();
        let error = layer.run(pending::<Result<u32, BoxError>>).await.unwrap_err();
        assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: SECOND, sent: true }));
        let deadline = Context::new().with_deadline(Instant::now() + SECOND / 2);
        let call = async { layer.run(pending::<Result<u32, BoxError>>).await };
        let error = deadline.scope(call).await.unwrap_err();
        assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: true }));
        // Its polls: the first, the one of the timer, and the last.
        let polls = std::cell::Cell::new(0);
        let late = || {
            poll_fn(|_| {
                polls.set(polls.get() + 1);
                if polls.get() == 3 { std::task::Poll::Ready(Ok::<_, BoxError>(7)) } else { std::task::Poll::Pending }
            })
        };
        assert_eq!(layer.run(late).await.unwrap(), 7);
    }
}
