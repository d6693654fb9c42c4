//! The straight way from a first failure to the second attempt.
//!
//! It does what [`ResponseFuture::go_on`] does where there is nothing to wait for and nobody to ask or tell, without what that needs
//! to come back later. `tests/retry_straight.rs` runs every script both ways and compares all that can be seen.

use super::*;

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
    R: RequestPolicy<Req>,
{
    /// Goes on where the first attempt has just ended otherwise than well, in a `result` whose outcome may be known.
    ///
    /// The way that most such calls take is straight: nothing to wait for, nobody to tell, no limit but the budget and the
    /// number of attempts. All else is for [`go_on`](Self::go_on).
    #[inline(never)]
    pub(super) fn go_on_straight(
        mut self: Pin<&mut Self>,
        result: Ending<S, Req>,
        judged: Option<Outcome>,
        cx: &mut Context<'_>,
    ) -> Poll<Ending<S, Req>> {
        let mut this = self.as_mut().project();
        let shared = &**this.shared;
        let core = &*shared.core;
        let attempt = this.attempt.scope().attempt();
        let (Some(service), Some(copy)) = (this.service.as_mut(), this.request.as_ref()) else {
            return self.go_on(Some(result), judged, cx);
        };
        // There is a copy: the request policy lets the call be retried.
        if !core.goes_straight()
            || !this.call.idempotent
            || attempt.gave_up()
            || core.max_attempts() <= 1
            || context::deadline().is_some()
        {
            return self.go_on(Some(result), judged, cx);
        }
        let (outcome, hint, sent) = match result.as_ref().err().and_then(Rejectable::as_rejected) {
            Some(rejected) => (rejected.outcome(), rejected.retry(), rejected.was_sent()),
            None => {
                let lost = LostAtFirst::guard(core, this.progress.as_mut());
                let outcome = judged.unwrap_or_else(|| shared.classifier.classify(result.as_ref()));
                lost.disarm();
                (outcome, outcome.retry(), true)
            }
        };
        if !sent || outcome != Outcome::Transient || hint != RetryHint::Yes {
            return self.go_on(Some(result), Some(outcome), cx);
        }
        let lost = LostAtFirst::guard(core, this.progress.as_mut());
        let replayable = on_unwind(|| core.budget.record_sent(), || shared.requests.is_replayable(copy));
        lost.disarm();
        if !replayable {
            core.budget.record_sent();
            core.give_up(1, outcome, sent, GiveUpReason::NotReplayable);
            return Poll::Ready(result);
        }
        if !core.budget.record_sent_and_withdraw(|| Instant::now().into_std()) {
            core.give_up(1, outcome, sent, GiveUpReason::Budget);
            return Poll::Ready(result);
        }
        core.tell_of_retry_at_once();
        let mut attempt = this.attempt;
        attempt.as_mut().scope_mut().next_attempt();
        let lost = LostAtFirst::paid(core, this.progress.as_mut(), Stage::Between);
        drop(result);
        let ready = context::within(attempt.as_mut().scope_mut(), || service.poll_ready(cx));
        lost.disarm();
        match ready {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return self.not_ready(Poll::Ready(Err(error)), cx),
            Poll::Pending => return self.not_ready(Poll::Pending, cx),
        }
        let Some(request) = this.request.take() else { return Poll::Pending };
        let lost = LostAtFirst::paid(core, this.progress.as_mut(), Stage::Between);
        if core.max_attempts() > 2 {
            *this.request = shared.requests.try_clone(&request);
        }
        lost.disarm();
        core.record_retry(Cause::Transient);
        let lost = LostAtFirst::paid(core, this.progress.as_mut(), Stage::Attempting);
        attempt.as_mut().set(|| service.call(request));
        let polled = attempt.poll(cx);
        lost.disarm();
        match polled {
            Poll::Ready(Ok(response)) => {
                let lost = LostAtFirst::paid(core, this.progress.as_mut(), Stage::Attempting);
                let outcome = shared.classifier.classify(Ok(&response));
                lost.disarm();
                if !outcome.is_success() {
                    this.progress.set(Some(Progress::paid(Stage::Attempting)));
                    return self.go_on(Some(Ok(response)), Some(outcome), cx);
                }
                core.budget.settle();
                core.record_return(outcome);
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(error)) => {
                this.progress.set(Some(Progress::paid(Stage::Attempting)));
                self.go_on(Some(Err(error)), None, cx)
            }
            Poll::Pending => {
                this.progress.set(Some(Progress::paid(Stage::Attempting)));
                Poll::Pending
            }
        }
    }

    /// Goes on where the service is not ready for a second attempt that is due at once.
    #[cold]
    #[inline(never)]
    fn not_ready(
        mut self: Pin<&mut Self>,
        ready: Poll<Result<(), S::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Ending<S, Req>> {
        let mut this = self.as_mut().project();
        this.progress.set(Some(Progress::paid(Stage::Between)));
        let Some(progress) = this.progress.as_mut().as_pin_mut() else { return Poll::Pending };
        let attempt = this.attempt.scope().attempt();
        let late = Self::poll_late(this.shared, attempt, this.cutoff, &mut progress.project(), ready, cx);
        let Some(error) = ready!(late) else { return Poll::Pending };
        this.progress.set(None);
        Poll::Ready(Err(error))
    }
}
