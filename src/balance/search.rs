//! What a call does when the endpoint that it picked is not ready, fails to become ready, or refuses.
//!
//! All of it is off the happy path, and may allocate.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::core::{Core, End, Now, Repick};
use super::endpoint::{Flight, Key};
use super::registry::Registry;
use super::snapshot::Tried;
use crate::context;
use crate::cores::unwind::on_unwind;
use crate::error::{NoEndpoint, NoEndpointReason, Rejectable, Rejected};
use crate::outcome::{Classify, Outcome, judge};

/// What a call does next.
pub(super) enum Next<K, S, Req, E> {
    /// Call this endpoint's service, which is ready.
    Call(Flight<K, S>, S, Req),
    /// Ask this endpoint.
    Pick(Flight<K, S>, Req),
    Wait(Box<Waiting<K, S, Req>>),
    Fail(E),
}

impl<K, S, Req, E> From<Result<(Flight<K, S>, Req), E>> for Next<K, S, Req, E> {
    fn from(found: Result<(Flight<K, S>, Req), E>) -> Self {
        match found {
            Ok((flight, request)) => Self::Pick(flight, request),
            Err(error) => Self::Fail(error),
        }
    }
}

/// One or two endpoints that are not ready yet; the first to become ready gets the call.
///
/// Exactly one of the flights leads: it stands for the call in the counts.
pub(super) struct Waiting<K, S, Req> {
    picks: [Option<(Flight<K, S>, S)>; 2],
    request: Option<Req>,
    core: Arc<Core>,
    timer: Timer,
}

/// A call that waits for an endpoint to turn up.
pub(super) struct Vacant<K, S, Req> {
    registry: Arc<Registry<K, S>>,
    request: Option<Req>,
    changed: Option<Pin<Box<OwnedNotified>>>,
    timer: Timer,
}

/// A limit of patience: the configured one, or the caller's deadline if that is nearer.
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    is_deadline: bool,
}

/// Asks an endpoint's service whether it is ready; a panic is the endpoint's failure.
#[inline(always)]
pub(super) fn poll_endpoint<K: Key, S, Req>(
    flight: &mut Flight<K, S>,
    service: &mut S,
    cx: &mut Context<'_>,
) -> Poll<Result<(), S::Error>>
where
    S: Service<Req>,
{
    on_unwind(|| flight.panicked(), || service.poll_ready(cx))
}

/// The endpoint failed to become ready: the call goes to another, and without another the caller learns why.
#[cold]
pub(super) fn after_failure<K, S, C, Req>(
    flight: Flight<K, S>,
    request: Req,
    error: S::Error,
    tried: &mut Tried,
    classifier: &C,
) -> Result<(Flight<K, S>, Req), S::Error>
where
    K: Key,
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
{
    let endpoint = flight.endpoint().clone();
    let outcome = give_up_on(flight, &error, tried, classifier);
    match endpoint.registry.upgrade().and_then(|registry| registry.pick(&Now::unread(), tried)) {
        Some(next) => {
            endpoint.core.repicked(Repick::Unready);
            Ok((next, request))
        }
        None => {
            endpoint.core.ended(End::Judged(outcome));
            Err(error)
        }
    }
}

fn give_up_on<K, S, C, Req>(mut flight: Flight<K, S>, error: &S::Error, tried: &mut Tried, classifier: &C) -> Outcome
where
    K: Key,
    S: Service<Req>,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
{
    let outcome = on_unwind(|| flight.panicked(), || judge(classifier, Err(error)));
    tried.push(flight.endpoint().id);
    flight.never_ready(outcome);
    outcome
}

/// The endpoint answered: if it refused without having sent anything, the call goes to another.
#[cold]
pub(super) fn elsewhere<K, S, Req, E>(
    mut flight: Flight<K, S>,
    request: Req,
    error: E,
    outcome: Outcome,
    tried: &mut Tried,
) -> Next<K, S, Req, E>
where
    K: Key,
    E: Rejectable,
{
    // Not by `Rejected::retry`: it is about another try of the same service, which an open circuit would reject again.
    let is_unsent = |rejected: &Rejected| !rejected.was_sent() && !rejected.is_deadline_exceeded();
    if error.as_rejected().is_some_and(is_unsent) {
        tried.push(flight.endpoint().id);
        let registry = flight.endpoint().registry.upgrade();
        if let Some(next) = registry.and_then(|registry| registry.pick(&Now::unread(), tried)) {
            next.endpoint().core.repicked(Repick::Refused);
            flight.release();
            return Next::Pick(next, request);
        }
    }
    flight.finish(outcome);
    Next::Fail(error)
}

/// The endpoint is not ready: asks a second one, and waits for whichever is ready first if that is not ready either.
#[cold]
pub(super) fn second_choice<K, S, C, Req>(
    first: Flight<K, S>,
    service: S,
    request: Req,
    tried: &mut Tried,
    classifier: &C,
    cx: &mut Context<'_>,
) -> Next<K, S, Req, S::Error>
where
    K: Key,
    S: Service<Req> + Clone,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
{
    let core = first.endpoint().core.clone();
    let mut others = *tried;
    others.push(first.endpoint().id);
    let registry = first.endpoint().registry.upgrade();
    let mut second = registry.and_then(|registry| registry.pick(&Now::unread(), &others)).map(|mut flight| {
        flight.follow();
        let service = flight.endpoint().service.clone();
        (flight, service)
    });
    if let Some((mut flight, mut service)) = second.take() {
        match poll_endpoint(&mut flight, &mut service, cx) {
            Poll::Ready(Ok(())) => {
                flight.lead();
                first.release();
                core.repicked(Repick::NotReady);
                return Next::Call(flight, service, request);
            }
            Poll::Ready(Err(error)) => {
                give_up_on(flight, &error, tried, classifier);
            }
            Poll::Pending => second = Some((flight, service)),
        }
    }
    let picks = [Some((first, service)), second];
    Next::Wait(Box::new(Waiting { picks, request: Some(request), core, timer: Timer::unset() }))
}

// === impl Waiting ===

impl<K: Key, S, Req> Waiting<K, S, Req>
where
    S: Service<Req> + Clone,
    S::Error: Rejectable,
{
    pub(super) fn poll<C>(
        &mut self,
        tried: &mut Tried,
        classifier: &C,
        cx: &mut Context<'_>,
    ) -> Poll<Next<K, S, Req, S::Error>>
    where
        C: Classify<S::Response, S::Error>,
    {
        for place in 0..self.picks.len() {
            let Some((mut flight, mut service)) = self.picks[place].take() else { continue };
            let polled = poll_endpoint(&mut flight, &mut service, cx);
            let mut other = self.picks[1 - place].take();
            match polled {
                Poll::Pending => {
                    self.picks[1 - place] = other;
                    self.picks[place] = Some((flight, service));
                }
                Poll::Ready(Ok(())) => {
                    flight.lead();
                    if let Some((other, _)) = other {
                        other.release();
                    }
                    if place == 1 {
                        self.core.repicked(Repick::NotReady);
                    }
                    return Poll::Ready(Next::Call(flight, service, self.take_request()));
                }
                Poll::Ready(Err(error)) => match &mut other {
                    Some((left, _)) => {
                        left.lead();
                        flight.follow();
                        give_up_on(flight, &error, tried, classifier);
                        self.picks[1 - place] = other;
                    }
                    None => {
                        let request = self.take_request();
                        return Poll::Ready(after_failure(flight, request, error, tried, classifier).into());
                    }
                },
            }
        }
        let rejected = ready!(self.timer.poll(self.core.config.ready_timeout, cx))
            .unwrap_or_else(|| NoEndpoint::of(self.core.name(), NoEndpointReason::NotReady).into());
        for (flight, _) in self.picks.iter_mut().filter_map(Option::take) {
            flight.waited_in_vain();
        }
        self.core.ended(End::Rejected);
        Poll::Ready(Next::Fail(S::Error::from_rejected(rejected)))
    }

    fn take_request(&mut self) -> Req {
        self.request.take().expect("there is a request until the wait is over")
    }
}

// === impl Vacant ===

impl<K, S, Req> Vacant<K, S, Req> {
    pub(super) const fn new(registry: Arc<Registry<K, S>>, request: Req) -> Self {
        Self { registry, request: Some(request), changed: None, timer: Timer::unset() }
    }
}

impl<K: Key, S, Req> Vacant<K, S, Req>
where
    S: Service<Req>,
    S::Error: Rejectable,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next<K, S, Req, S::Error>> {
        loop {
            // Listening starts before looking, so that nothing is missed in between.
            let changed = self.changed.get_or_insert_with(|| {
                let mut changed = Box::pin(self.registry.changed.clone().notified_owned());
                changed.as_mut().enable();
                changed
            });
            if let Some(flight) = self.registry.pick(&Now::unread(), &Tried::default()) {
                let request = self.request.take().expect("there is a request until the wait is over");
                return Poll::Ready(Next::Pick(flight, request));
            }
            let core = &self.registry.core;
            if let Poll::Ready(deadline) = self.timer.poll(core.config.empty_wait, cx) {
                self.request = None;
                core.ended(End::Rejected);
                let none = NoEndpoint::of(core.name(), self.registry.snapshot().none_because);
                return Poll::Ready(Next::Fail(S::Error::from_rejected(deadline.unwrap_or_else(|| none.into()))));
            }
            ready!(changed.as_mut().poll(cx));
            self.changed = None;
        }
    }
}

impl<K, S, Req> Drop for Vacant<K, S, Req> {
    fn drop(&mut self) {
        if self.request.is_some() {
            self.registry.core.ended(End::Abandoned);
        }
    }
}

// === impl Timer ===

impl Timer {
    const fn unset() -> Self {
        Self { sleep: None, is_deadline: false }
    }

    /// Ready when `limit` or the deadline is over; with the refusal if it was the deadline. Armed at the first poll.
    fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<Option<Rejected>> {
        let sleep = match &mut self.sleep {
            Some(sleep) => sleep,
            None => {
                let left = context::current().remaining(Instant::now());
                self.is_deadline = left.is_some_and(|left| left < limit);
                let wait = left.map_or(limit, |left| left.min(limit));
                if wait.is_zero() {
                    return Poll::Ready(self.refusal());
                }
                self.sleep.insert(Box::pin(tokio::time::sleep(wait)))
            }
        };
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(self.refusal())
    }

    fn refusal(&self) -> Option<Rejected> {
        self.is_deadline.then_some(Rejected::DeadlineExceeded { sent: false })
    }
}
