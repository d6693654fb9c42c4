//! [`ResponseFuture`]: from the pick to the verdict.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::core::{End, Now};
use super::endpoint::{Flight, Key};
use super::registry::Registry;
use super::repeat::Repeat;
use super::search::{Next, Vacant, Waiting, after_failure, elsewhere, poll_endpoint, second_choice};
use super::snapshot::Tried;
use crate::circuit_breaker::judge_call;
use crate::context;
use crate::cores::unwind::on_unwind;
use crate::error::{NoEndpoint, Rejectable, Rejected};
use crate::outcome::{Classify, Outcome};

pin_project! {
    /// The future of a call to a [`Pool`](super::Pool).
    ///
    /// `F` and `E` are what an endpoint's service returns: its future and error, each with a name here for the reason that
    /// [`Oneshot`](crate::Oneshot) has one.
    ///
    /// # Errors
    ///
    /// The endpoint's own error; or, put into it, [`Rejected::NoEndpoint`] with the reason: the pool is empty, no endpoint is
    /// eligible, or none became ready in time. It is also what a wait ends in that the caller's deadline cuts short.
    ///
    /// # Panics
    ///
    /// When it is polled after it has completed.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any time, it drops the call, gives the endpoint's place back, and counts as *abandoned*: no failure, but the
    /// time that it took is a lower bound of the endpoint's latency.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::BoxError;
    /// use mainstay::balance::Pool;
    /// use tower::util::BoxCloneService;
    /// use tower::Service;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let mut pool: Pool<u16, BoxCloneService<u32, u32, BoxError>> = Pool::builder("app").build()?;
    /// let refused: BoxError = pool.ready().await?.call(1).await.unwrap_err();
    /// assert_eq!(pool.handle().statistics().rejected, 1);
    /// # let _ = refused;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<
        K,
        S,
        C,
        R,
        Req,
        F = <S as Service<Req>>::Future,
        E = <S as Service<Req>>::Error,
    >
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<K, S, Req, F, E>,
        classifier: C,
        repeat: R,
        tried: Tried,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<K, S, Req, F, E> {
        // An endpoint is picked and this task has not asked it yet; `None` once the call ended.
        Picked { pick: Option<(Flight<K, S>, S, Req)> },
        // The call was made. `spare` is the request once more, where it can be repeated.
        Calling {
            #[pin]
            future: F,
            flight: Option<Flight<K, S>>,
            spare: Option<Req>,
        },
        // Endpoints are picked, and none is ready yet.
        Waiting { waiting: Box<Waiting<K, S, Req>> },
        // There is no endpoint yet.
        Vacant { vacant: Box<Vacant<K, S, Req>> },
        Refused { rejected: Option<Rejected> },
        Failed { error: Option<E> },
    }
}

const ENDED: &str = "`ResponseFuture` polled after completion";

// === impl ResponseFuture ===

impl<K, S, C, R, Req> ResponseFuture<K, S, C, R, Req>
where
    K: Key,
    S: Service<Req>,
{
    /// Calls the endpoint right away if it is ready, as most are.
    ///
    /// There is no task to wake yet; an endpoint that is not ready is asked again by the first poll.
    #[inline(always)]
    pub(super) fn picked(mut flight: Flight<K, S>, mut service: S, request: Req, classifier: C, repeat: R) -> Self
    where
        S: Clone,
        S::Error: Rejectable,
        C: Classify<S::Response, S::Error>,
        R: Repeat<Req>,
    {
        let mut tried = Tried::default();
        let state = match poll_endpoint(&mut flight, &mut service, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => State::calling(flight, service, request, &repeat),
            Poll::Pending => State::Picked { pick: Some((flight, service, request)) },
            Poll::Ready(Err(error)) => match after_failure(flight, request, error, &mut tried, &classifier) {
                Next::Pick(flight, service, request) => State::Picked { pick: Some((flight, service, request)) },
                Next::Fail(error) => State::Failed { error: Some(error) },
                Next::Call(..) | Next::Wait(_) => unreachable!("a failed endpoint leads to another or to the end"),
            },
        };
        Self { state, classifier, repeat, tried }
    }

    /// There was nothing to pick.
    #[cold]
    pub(super) fn vacant(registry: &Arc<Registry<K, S>>, request: Req, classifier: C, repeat: R) -> Self
    where
        S: Clone,
        S::Error: Rejectable,
        C: Classify<S::Response, S::Error>,
        R: Repeat<Req>,
    {
        // The snapshot may have been an old one.
        if let Some((flight, service)) = registry.pick(&Now::unread(), &Tried::default()) {
            return Self::picked(flight, S::clone(&service), request, classifier, repeat);
        }
        let core = &registry.core;
        let state = if core.config.empty_wait.is_zero() {
            core.ended(End::Rejected);
            let none = NoEndpoint::of(core.name(), registry.snapshot().none_because);
            State::Refused { rejected: Some(none.into()) }
        } else {
            State::Vacant { vacant: Box::new(Vacant::new(registry.clone(), request)) }
        };
        Self { state, classifier, repeat, tried: Tried::default() }
    }
}

impl<K, S, Req> State<K, S, Req, S::Future, S::Error>
where
    K: Key,
    S: Service<Req>,
{
    /// Makes the call; the service is ready.
    #[inline(always)]
    fn calling(mut flight: Flight<K, S>, mut service: S, request: Req, repeat: &impl Repeat<Req>) -> Self {
        let endpoint = flight.endpoint();
        endpoint.became_ready();
        context::record_tried(endpoint.id);
        let (future, spare) = on_unwind(
            || flight.panicked(),
            || {
                let spare = repeat.repeat(&request);
                (service.call(request), spare)
            },
        );
        Self::Calling { future, flight: Some(flight), spare }
    }
}

impl<K, S, C, R, Req> Future for ResponseFuture<K, S, C, R, Req>
where
    K: Key,
    S: Service<Req> + Clone,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
    R: Repeat<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Picked { pick } => {
                    let (mut flight, mut service, request) = pick.take().expect(ENDED);
                    match poll_endpoint(&mut flight, &mut service, cx) {
                        Poll::Ready(Ok(())) => Next::Call(flight, service, request),
                        Poll::Ready(Err(error)) => after_failure(flight, request, error, this.tried, this.classifier),
                        Poll::Pending => second_choice(flight, service, request, this.tried, this.classifier, cx),
                    }
                }
                StateProjection::Calling { future, flight, spare } => {
                    assert!(flight.is_some(), "{ENDED}");
                    // Judged where it is: a response can be large.
                    let polled = on_unwind(|| panicked(flight), || future.poll(cx));
                    let Poll::Ready(result) = &polled else { return Poll::Pending };
                    // The classifier is the user's: a panic in it counts as a failure of the call, too.
                    let (outcome, ending) =
                        on_unwind(|| panicked(flight), || judge_call(&*this.classifier, result.as_ref()));
                    flight.as_mut().expect(ENDED).ended_as(ending);
                    match polled {
                        Poll::Ready(Err(error)) => match spare.take() {
                            Some(request) => {
                                elsewhere(flight.take().expect(ENDED), request, error, outcome, this.tried)
                            }
                            None => {
                                finish(flight, outcome);
                                return Poll::Ready(Err(error));
                            }
                        },
                        polled => {
                            *spare = None;
                            finish(flight, outcome);
                            return polled;
                        }
                    }
                }
                StateProjection::Waiting { waiting } => ready!(waiting.poll(this.tried, this.classifier, cx)),
                StateProjection::Vacant { vacant } => ready!(vacant.poll(cx)),
                StateProjection::Refused { rejected } => {
                    Next::Fail(S::Error::from_rejected(rejected.take().expect(ENDED)))
                }
                StateProjection::Failed { error } => Next::Fail(error.take().expect(ENDED)),
            };
            this.state.set(match next {
                Next::Call(flight, service, request) => State::calling(flight, service, request, &*this.repeat),
                Next::Pick(flight, service, request) => State::Picked { pick: Some((flight, service, request)) },
                Next::Wait(waiting) => State::Waiting { waiting },
                Next::Fail(error) => {
                    this.state.set(State::Picked { pick: None });
                    return Poll::Ready(Err(error));
                }
            });
        }
    }
}

#[inline]
fn finish<K: Key, S>(flight: &mut Option<Flight<K, S>>, outcome: Outcome) {
    flight.as_mut().expect(ENDED).finish(outcome);
    *flight = None;
}

fn panicked<K: Key, S>(flight: &mut Option<Flight<K, S>>) {
    if let Some(flight) = flight {
        flight.panicked();
    }
}

impl<K, S, C, R, Req> fmt::Debug for ResponseFuture<K, S, C, R, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Picked { pick: Some(_) } => "picked",
            State::Picked { pick: None } => "ended",
            State::Calling { .. } => "calling",
            State::Waiting { .. } => "waiting until an endpoint is ready",
            State::Vacant { .. } => "waiting for an endpoint",
            State::Refused { .. } => "refused",
            State::Failed { .. } => "failed",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
