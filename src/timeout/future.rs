//! [`ResponseFuture`]: the response future.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::TimeoutKind;
use super::handle::Shared;
use crate::context::{self, InScope, TimeoutScope};
use crate::cores::packed_duration::PackedDuration;
use crate::cores::seen::{See, poll_seen};
use crate::cores::striped_arc::StripedArc;
use crate::cores::unwind::on_unwind;
use crate::error::{Rejectable, Rejected};
use crate::timer::{Cutoff, Timer};

pin_project! {
    /// The response future of [`Timeout`](super::Timeout).
    ///
    /// It is `Send` exactly when the inner future is.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, under the deadline that was set for it, and counts the call as abandoned.
    ///
    /// # Panics
    ///
    /// When it is polled after it has returned a result.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = mainstay::TimeoutLayer::total("orders", std::time::Duration::from_secs(1))?;
    /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
    /// let response = service.ready().await?.call(1);
    /// assert_eq!(response.await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // Under the deadline or the end of the attempt; of a call that was not sent there is none.
        #[pin]
        inner: InScope<TimeoutScope, F>,
        #[pin]
        timer: Timer,
        fate: Fate,
        // The counts of a call that runs and is in none of them yet; `None` once it has ended, or if it was not sent.
        running: Option<StripedArc<Shared>>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        #[inline(always)]
        fn drop(this: Pin<&mut Self>) {
            if this.running.is_some() {
                abandon(this.project().running);
            }
        }
    }
}

/// How long a call may take. What it comes to is worked out when it is needed, which for most calls is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) started: Instant,
    pub(super) timeout: PackedDuration,
    /// The caller's.
    pub(super) deadline: Option<Instant>,
}

/// Whether the inner service was called.
#[derive(Debug)]
enum Fate {
    Sent(Limit),
    /// Not called and counted as such; `None` once the rejection was returned. `ManuallyDrop` spares each call the question
    /// whether there is one to drop.
    NotSent(Option<ManuallyDrop<Rejected>>),
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    /// Calls the inner service by `make`, under the deadline of the call or the end of the attempt.
    #[inline(always)]
    pub(super) fn new(make: impl FnOnce() -> F, shared: StripedArc<Shared>, limit: Limit) -> Self {
        let scope = match shared.kind {
            TimeoutKind::Attempt => TimeoutScope::Attempt(context::nearer_attempt_end(limit.cutoff().at)),
            TimeoutKind::Total => TimeoutScope::Total(limit.cutoff().at),
        };
        let inner = on_unwind(|| shared.abandoned(), || InScope::call(scope, make));
        Self { inner, timer: Timer::new(), fate: Fate::Sent(limit), running: Some(shared) }
    }

    /// Of a call that is not sent and already counted as such.
    #[inline(always)]
    pub(super) fn not_sent(rejected: Rejected) -> Self {
        Self {
            inner: InScope::empty(TimeoutScope::Attempt(None)),
            timer: Timer::new(),
            fate: Fate::NotSent(Some(ManuallyDrop::new(rejected))),
            running: None,
        }
    }

    #[inline(always)]
    fn limited<'a, 'b>(self: Pin<&'a mut Self>, cx: &'a mut Context<'b>) -> Limited<'a, 'b, F> {
        let this = self.project();
        Limited { inner: this.inner, cx, running: this.running, fate: this.fate, timer: this.timer.into_ref() }
    }
}

impl<F> ResponseFuture<F> {
    /// The inner future is pending: waits for the end of its time. Returns the rejection of a call that was not sent.
    #[cold]
    #[inline(never)]
    fn poll_limit(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Rejected>> {
        let this = self.project();
        match this.fate {
            Fate::Sent(limit) => {
                assert!(this.running.is_some(), "{ENDED}");
                let Some(at) = limit.cutoff().at else { return Poll::Pending };
                this.timer.poll_against(at, cx).map(|()| None)
            }
            Fate::NotSent(rejected) => Poll::Ready(Some(ManuallyDrop::into_inner(rejected.take().expect(ENDED)))),
        }
    }

    /// The time is up, and the inner future is still pending.
    #[cold]
    #[inline(never)]
    fn cut_off(self: Pin<&mut Self>, awaited: Option<Rejected>) -> Rejected {
        let mut this = self.project();
        // Invariant: `poll_limit` has found that the call was sent, and nothing changes that.
        let Fate::Sent(limit) = this.fate else { unreachable!("a call that was not sent has no timer") };
        let (cutoff, timeout) = (limit.cutoff(), limit.timeout.get());
        if let Some(shared) = this.running.take() {
            shared.record(cutoff, timeout, true);
        }
        this.inner.as_mut().clear();
        awaited.unwrap_or_else(|| cutoff.rejected(timeout, true))
    }
}

const ENDED: &str = "`ResponseFuture` polled after it ended";

/// A call within its limit, and who counts its end.
struct Limited<'a, 'b, F> {
    inner: Pin<&'a mut InScope<TimeoutScope, F>>,
    cx: &'a mut Context<'b>,
    running: &'a mut Option<StripedArc<Shared>>,
    fate: &'a Fate,
    timer: Pin<&'a Timer>,
}

impl<F, T, E> See<T, E> for Limited<'_, '_, F>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
{
    #[inline(always)]
    fn poll(&mut self) -> Poll<Result<T, E>> {
        self.inner.as_mut().poll(self.cx)
    }

    #[inline(always)]
    fn response(self, _: &T) {
        if let Some(shared) = self.running.take() {
            shared.ended_in_time();
        }
    }

    #[inline(never)]
    fn error(self, error: &mut E) {
        if let Some(own) = self.own_deadline(error.as_rejected()) {
            *error = E::from_rejected(own);
        }
    }
}

impl<F> Limited<'_, '_, F> {
    /// Counts a call that ended with this rejection, or without one.
    ///
    /// A layer below may be the first to notice that the deadline has passed which was set here. Returns the rejection of
    /// this layer if the layer below returned [`Rejected::DeadlineExceeded`]. If it returned what it was waiting for, that
    /// remains the answer; both are counted as the timeout that they are.
    fn own_deadline(self, rejected: Option<&Rejected>) -> Option<Rejected> {
        let Fate::Sent(limit) = self.fate else { return None };
        let (shared, cutoff) = (self.running.take()?, limit.cutoff());
        // A wait has armed the timer; a rejection at once costs no reading of the clock.
        let may_be_over = |rejected: &Rejected| match *rejected {
            Rejected::DeadlineExceeded { .. } => true,
            _ => !rejected.was_sent() && self.timer.is_armed(),
        };
        if let (TimeoutKind::Total, Some(rejected)) = (shared.kind, rejected)
            && may_be_over(rejected)
            && cutoff.is_own_and_over()
        {
            let timeout = limit.timeout.get();
            if let Rejected::DeadlineExceeded { sent } = *rejected {
                shared.record(cutoff, timeout, sent);
                return Some(cutoff.rejected(timeout, sent));
            }
            shared.record(cutoff, timeout, true);
            return None;
        }
        shared.ended_in_time();
        None
    }
}

/// Out of the way of calls that have ended.
#[cold]
#[inline(never)]
fn abandon(running: &mut Option<StripedArc<Shared>>) {
    if let Some(shared) = running.take() {
        shared.abandoned();
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Rejectable,
{
    type Output = Result<T, E>;

    // In line, or each call pays for handing its result over.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = poll_seen(self.as_mut().limited(cx));
        if polled.is_ready() {
            return polled;
        }
        if let Some(rejected) = ready!(self.as_mut().poll_limit(cx)) {
            return Poll::Ready(Err(E::from_rejected(rejected)));
        }
        // The last poll, by which the inner future can record what it waits for.
        Poll::Ready(match context::poll_awaited(|| poll_seen(self.as_mut().limited(cx))) {
            Ok(result) => result,
            Err(awaited) => Err(E::from_rejected(self.cut_off(awaited))),
        })
    }
}

// === impl Limit ===

impl Limit {
    #[inline]
    pub(super) fn cutoff(&self) -> Cutoff {
        Cutoff::new(self.started, self.timeout.get(), self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::time::Duration;

    use tower::{Layer, Service, ServiceExt, service_fn};

    use crate::context::{Context, record_awaited};
    use crate::timeout::{TimeoutConfig, TimeoutLayer};
    use crate::{BoxError, CircuitOpen, CircuitState, NoEndpoint, NoEndpointReason, Rejectable, Rejected};

    const SECOND: Duration = Duration::from_secs(1);

    fn open() -> Rejected {
        CircuitOpen::new("db", CircuitState::Open).with_retry_after(SECOND).into()
    }

    fn empty() -> Rejected {
        NoEndpoint::new("app", NoEndpointReason::Empty).into()
    }

    /// What a layer does that waits until `ready_in` has passed.
    async fn wait(ready_in: Duration, awaited: Rejected) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(ready_in));
        poll_fn(|cx| {
            let polled = sleep.as_mut().poll(cx);
            if polled.is_pending() {
                record_awaited(|| awaited.clone());
            }
            polled
        })
        .await;
    }

    fn rejected<T: std::fmt::Debug>(result: Result<T, BoxError>) -> Rejected {
        result.unwrap_err().as_rejected().expect("a rejection").clone()
    }

    fn both(timeout: Duration) -> [TimeoutLayer; 2] {
        [TimeoutLayer::attempt("test", timeout).unwrap(), TimeoutLayer::total("test", timeout).unwrap()]
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_ends_a_wait_returns_what_was_waited_for_and_counts_a_timeout() {
        let waiting = || {
            service_fn(|()| async {
                wait(9 * SECOND, open()).await;
                Ok::<_, BoxError>(())
            })
        };
        for layer in both(SECOND) {
            assert_eq!(rejected(layer.layer(waiting()).oneshot(()).await), open());
            let counted = layer.handle().statistics();
            assert_eq!((counted.timed_out, counted.calls()), (1, 1));

            let deadline = Context::new().with_deadline(tokio::time::Instant::now() + SECOND / 2);
            assert_eq!(rejected(deadline.scope(layer.layer(waiting()).oneshot(())).await), open());
            let counted = layer.handle().statistics();
            assert_eq!((counted.deadline_exceeded, counted.calls()), (1, 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_before_or_beside_a_call_is_not_its_own_wait() {
        let timed_out = Rejected::Timeout { timeout: SECOND, sent: true };
        let later = || {
            service_fn(|()| async {
                wait(SECOND / 2, open()).await;
                pending::<Result<(), BoxError>>().await
            })
        };
        for layer in both(SECOND) {
            assert_eq!(rejected(layer.layer(later()).oneshot(()).await), timed_out);
            let waits = service_fn(|()| async {
                wait(9 * SECOND, open()).await;
                Ok::<_, BoxError>(())
            });
            let hangs = service_fn(|()| pending::<Result<(), BoxError>>());
            let (waits, hangs) = tokio::join!(layer.layer(waits).oneshot(()), layer.layer(hangs).oneshot(()));
            assert_eq!((rejected(waits), rejected(hangs)), (open(), timed_out.clone()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_of_two_waits_is_the_one_that_is_ended() {
        let waits = service_fn(|()| async {
            wait(SECOND / 2, open()).await;
            wait(9 * SECOND, empty()).await;
            Ok::<_, BoxError>(())
        });
        for layer in both(SECOND) {
            assert_eq!(rejected(layer.layer(waits).oneshot(()).await), empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_limits_that_end_together_both_count_and_the_wait_is_the_answer() {
        for inner in both(5 * SECOND) {
            let outer = TimeoutLayer::total("outer", SECOND).unwrap();
            let waits = service_fn(|()| async {
                wait(9 * SECOND, open()).await;
                Ok::<_, BoxError>(())
            });
            assert_eq!(rejected(outer.layer(inner.layer(waits)).oneshot(()).await), open());
            assert_eq!((outer.handle().statistics().timed_out, outer.handle().statistics().calls()), (1, 1));
            assert_eq!(inner.handle().statistics().deadline_exceeded, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_at_once_is_no_timeout_and_neither_is_a_wait_that_ends_by_itself() {
        for layer in both(SECOND) {
            let rejects = service_fn(|()| async { Err::<(), _>(BoxError::from_rejected(open())) });
            assert_eq!(rejected(layer.layer(rejects).oneshot(()).await), open());
            let gives_up = service_fn(|()| async {
                wait(SECOND / 2, open()).await;
                Err::<(), _>(BoxError::from_rejected(open()))
            });
            assert_eq!(rejected(layer.layer(gives_up).oneshot(()).await), open());
            assert_eq!(layer.handle().statistics().in_time, 2);
        }
    }

    #[derive(Clone)]
    struct NeverReady(Option<Rejected>);

    impl Service<()> for NeverReady {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            if let Some(awaited) = &self.0 {
                record_awaited(|| awaited.clone());
            }
            std::task::Poll::Pending
        }

        fn call(&mut self, (): ()) -> Self::Future {
            unreachable!("never ready")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_readiness_ends_in_what_it_waited_for() {
        for mut config in [TimeoutConfig::attempt(SECOND), TimeoutConfig::total(SECOND)] {
            config.include_readiness = true;
            let layer = TimeoutLayer::new("test", config).unwrap();
            let mut service = layer.layer(NeverReady(Some(open())));
            assert_eq!(rejected(service.ready().await.unwrap().call(()).await), open());
            service.get_mut().0 = None;
            let unknown = Rejected::Timeout { timeout: SECOND, sent: false };
            assert_eq!(rejected(service.ready().await.unwrap().call(()).await), unknown);
            assert_eq!(layer.handle().statistics().not_sent, 2);

            // A total timeout around it limits the call only, so readiness is bounded by a deadline.
            let outer = Context::new().with_deadline(tokio::time::Instant::now() + SECOND / 2);
            let waits = layer.layer(NeverReady(Some(empty())));
            assert_eq!(rejected(outer.scope(ServiceExt::oneshot(waits, ())).await), empty());
        }
    }
}
