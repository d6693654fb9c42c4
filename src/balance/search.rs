//! What a call does when the endpoint that it picked is not ready, fails to become ready, or refuses.
//!
//! All of it is off the happy path, and may allocate.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::core::{Core, End, Now, Repick};
use super::endpoint::{Endpoint, Flight, Key};
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
    Pick(Flight<K, S>, S, Req),
    Wait(Box<Waiting<K, S, Req>>),
    Fail(E),
}

/// One or two endpoints that are not ready yet; the first to become ready gets the call.
///
/// The first of the flights stands for the call in the counts.
pub(super) struct Waiting<K, S, Req> {
    picks: [Option<(Flight<K, S>, S)>; 2],
    request: Option<Req>,
    core: Arc<Core>,
    registry: Weak<Registry<K, S>>,
    timer: Timer,
    changed: Option<Pin<Box<OwnedNotified>>>,
    /// When time alone changes which endpoints may be picked, such as by the end of a pause.
    pause: Option<Pin<Box<Sleep>>>,
    /// All endpoints that it waited for have left: none stands for the call.
    alone: bool,
}

/// A call that waits for an endpoint to turn up.
pub(super) struct Vacant<K, S, Req> {
    registry: Arc<Registry<K, S>>,
    request: Option<Req>,
    changed: Option<Pin<Box<OwnedNotified>>>,
    timer: Timer,
}

/// The limit of a wait: the configured one, or the caller's deadline if that is nearer.
///
/// Either way the wait ends with the rejection of what it waited for.
struct Timer(Option<Pin<Box<Sleep>>>);

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
) -> Next<K, S, Req, S::Error>
where
    K: Key,
    S: Service<Req> + Clone,
    S::Error: Rejectable,
    C: Classify<S::Response, S::Error>,
{
    let endpoint = flight.endpoint().clone();
    let outcome = give_up_on(flight, &error, tried, classifier);
    match endpoint.registry.upgrade().and_then(|registry| registry.pick(&Now::unread(), tried)) {
        Some((next, service)) => {
            endpoint.core.repicked(Repick::Unready);
            Next::Pick(next, S::clone(&service), request)
        }
        None => {
            endpoint.core.ended(End::Judged(outcome));
            Next::Fail(error)
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
    let id = flight.endpoint().id;
    tried.push(id);
    context::record_tried(id);
    flight.never_ready(outcome);
    outcome
}

/// The endpoint returned an error: if that proves that nothing was sent, the call goes to another.
///
/// Either a layer of ours inside the endpoint rejected the call, which says nothing about the endpoint; or it failed before
/// it was sent ([`Outcome::NotSent`]), which is the endpoint's failure.
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
    S: Clone,
    E: Rejectable,
{
    // Not by `Rejected::retry`: it is about another try of the same service, which an open circuit would reject again.
    let is_unsent = |rejected: &Rejected| !rejected.was_sent() && !rejected.is_deadline_exceeded();
    let why = match error.as_rejected() {
        Some(rejected) => is_unsent(rejected).then_some(Repick::Refused),
        None => (!outcome.was_sent()).then_some(Repick::NotSent),
    };
    if let Some(why) = why {
        tried.push(flight.endpoint().id);
        let registry = flight.endpoint().registry.upgrade();
        if let Some((next, service)) = registry.and_then(|registry| registry.pick(&Now::unread(), tried)) {
            next.endpoint().core.repicked(why);
            match why {
                Repick::NotSent => flight.never_sent(outcome),
                _ => flight.release(),
            }
            return Next::Pick(next, S::clone(&service), request);
        }
    }
    flight.finish(outcome);
    Next::Fail(error)
}

/// The endpoint is not ready: asks others, and waits for two of them if none is ready.
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
    let endpoint = first.endpoint();
    let mut waiting = Waiting {
        core: endpoint.core.clone(),
        registry: endpoint.registry.clone(),
        picks: [Some((first, service)), None],
        request: Some(request),
        timer: Timer::unset(),
        changed: None,
        pause: None,
        alone: false,
    };
    waiting.listen();
    match waiting.ask_others(tried, classifier, cx) {
        Some((flight, service)) => waiting.settle_for(flight, service),
        None => Next::Wait(Box::new(waiting)),
    }
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
            let Some((flight, service)) = self.picks[place].take() else { continue };
            match self.ask(flight, service, cx) {
                (flight, service, Poll::Pending) => {
                    self.picks[place] = Some((flight, service));
                    self.lead();
                }
                (flight, service, Poll::Ready(Ok(()))) => {
                    if place == 1 {
                        self.core.repicked(Repick::NotReady);
                    }
                    return Poll::Ready(self.go(flight, service));
                }
                (flight, _, Poll::Ready(Err(error))) => {
                    if self.picks.iter().all(Option::is_none) {
                        let request = self.take_request();
                        return Poll::Ready(after_failure(flight, request, error, tried, classifier));
                    }
                    give_up_on(flight, &error, tried, classifier);
                    self.lead();
                }
            }
        }
        while self.should_look_again(cx) {
            self.leave_the_retired();
            if let Some((flight, service)) = self.ask_others(tried, classifier, cx) {
                return Poll::Ready(self.settle_for(flight, service));
            }
        }
        if self.timer.poll(self.core.config.ready_timeout, cx).is_pending() {
            context::record_awaited(|| self.rejection());
            return Poll::Pending;
        }
        let rejected = self.rejection();
        self.alone = false;
        let waited = self.picks.iter_mut().filter_map(Option::take).map(|(flight, _)| {
            let endpoint = flight.endpoint().clone();
            flight.waited_in_vain();
            endpoint
        });
        let waited: Vec<_> = waited.collect();
        if let Some(registry) = self.registry.upgrade() {
            registry.not_ready(&waited);
        }
        self.core.ended(End::Rejected);
        Poll::Ready(Next::Fail(S::Error::from_rejected(rejected)))
    }

    /// What the wait ends in.
    fn rejection(&self) -> Rejected {
        let none_because = || self.registry.upgrade().map(|registry| registry.snapshot().none_because);
        let reason = if self.alone { none_because() } else { None };
        NoEndpoint::of(self.core.name(), reason.unwrap_or(NoEndpointReason::NotReady)).into()
    }

    /// From here on no change is missed.
    fn listen(&mut self) {
        self.changed = self.registry.upgrade().map(|registry| {
            let mut changed = Box::pin(registry.changed.clone().notified_owned());
            changed.as_mut().enable();
            changed
        });
    }

    /// Whether more endpoints may be ready than when the others were asked last: some came, some left, or a pause is over.
    fn should_look_again(&mut self, cx: &mut Context<'_>) -> bool {
        let mut look = self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready());
        // Listening starts before looking, so that nothing is missed in between.
        while self.changed.as_mut().is_some_and(|changed| changed.as_mut().poll(cx).is_ready()) {
            self.listen();
            look = true;
        }
        look
    }

    /// Waits no longer for endpoints that take no more calls.
    fn leave_the_retired(&mut self) {
        for pick in &mut self.picks {
            if let Some((flight, _)) = pick.take_if(|(flight, _)| flight.endpoint().is_retired()) {
                flight.release();
            }
        }
        self.lead();
    }

    /// Asks the endpoints that this call neither waits for nor has given up on, until one is ready. Those that were found not
    /// ready a moment ago are left out. The first that is not ready is waited for, where there is room.
    fn ask_others<C>(&mut self, tried: &mut Tried, classifier: &C, cx: &mut Context<'_>) -> Option<(Flight<K, S>, S)>
    where
        C: Classify<S::Response, S::Error>,
    {
        let registry = self.registry.upgrade()?;
        let now = Now::unread();
        // Those that it waits for were asked before.
        let mut not_ready: Vec<_> = self.endpoints().filter(|endpoint| endpoint.found_not_ready()).collect();
        let snapshot = registry.current(&now);
        // The one that the picker prefers, which may also be one that was not ready a moment ago, and then all the others.
        let mut others = *tried;
        self.endpoints().for_each(|endpoint| others.push(endpoint.id));
        let picked = snapshot.pick(&registry.core, &now, &others);
        let asked = picked.as_ref().map(|(flight, _)| flight.endpoint().id);
        let more = snapshot.in_any_order(&registry.core).filter(|entry| asked != Some(entry.endpoint.id));
        let more = more.filter_map(|entry| entry.begin(&now));
        let mut found = None;
        for (flight, service) in picked.into_iter().chain(more) {
            let endpoint = flight.endpoint().clone();
            if tried.contains(endpoint.id) || self.endpoints().any(|other| other.id == endpoint.id) {
                flight.release();
                continue;
            }
            match self.ask(flight, S::clone(service), cx) {
                (flight, service, Poll::Ready(Ok(()))) => {
                    found = Some((flight, service));
                    break;
                }
                (flight, _, Poll::Ready(Err(error))) => {
                    give_up_on(flight, &error, tried, classifier);
                }
                (flight, service, Poll::Pending) => {
                    if endpoint.found_not_ready() {
                        not_ready.push(endpoint);
                    }
                    match self.picks.iter_mut().find(|pick| pick.is_none()) {
                        Some(pick) => *pick = Some((flight, service)),
                        None => flight.release(),
                    }
                }
            }
            self.lead();
        }
        if !not_ready.is_empty() {
            registry.not_ready(&not_ready);
        }
        if found.is_none() {
            let next_change = registry.current(&now).next_change;
            self.pause = next_change.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        }
        found
    }

    /// Asks one endpoint; while it is asked, it stands for the call.
    fn ask(&mut self, mut flight: Flight<K, S>, mut service: S, cx: &mut Context<'_>) -> Asked<K, S, S::Error> {
        self.picks.iter_mut().flatten().for_each(|(other, _)| other.follow());
        self.alone = false;
        flight.lead();
        let polled = poll_endpoint(&mut flight, &mut service, cx);
        if !matches!(polled, Poll::Ready(Ok(()))) {
            flight.follow();
        }
        (flight, service, polled)
    }

    /// The first of the flights stands for the call.
    fn lead(&mut self) {
        let mut flights = self.picks.iter_mut().flatten().map(|(flight, _)| flight);
        let first = flights.next();
        self.alone = first.is_none();
        if let Some(first) = first {
            first.lead();
        }
        flights.for_each(Flight::follow);
    }

    fn endpoints(&self) -> impl Iterator<Item = Arc<Endpoint<K, S>>> {
        self.picks.iter().flatten().map(|(flight, _)| flight.endpoint().clone())
    }

    /// An endpoint that is ready was found after all.
    fn settle_for(&mut self, flight: Flight<K, S>, service: S) -> Next<K, S, Req, S::Error> {
        self.core.repicked(Repick::NotReady);
        self.go(flight, service)
    }

    /// Calls a ready endpoint, and waits for no other.
    fn go(&mut self, flight: Flight<K, S>, service: S) -> Next<K, S, Req, S::Error> {
        self.alone = false;
        self.picks.iter_mut().filter_map(Option::take).for_each(|(other, _)| other.release());
        Next::Call(flight, service, self.take_request())
    }

    fn take_request(&mut self) -> Req {
        self.request.take().expect("there is a request until the wait is over")
    }
}

/// An endpoint that was asked, and its answer.
type Asked<K, S, E> = (Flight<K, S>, S, Poll<Result<(), E>>);

impl<K, S, Req> Drop for Waiting<K, S, Req> {
    fn drop(&mut self) {
        if self.alone {
            self.core.ended(End::Abandoned);
        }
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
    S: Service<Req> + Clone,
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
            if let Some((flight, service)) = self.registry.pick(&Now::unread(), &Tried::default()) {
                let request = self.request.take().expect("there is a request until the wait is over");
                return Poll::Ready(Next::Pick(flight, S::clone(&service), request));
            }
            let core = &self.registry.core;
            let rejection = || NoEndpoint::of(core.name(), self.registry.snapshot().none_because).into();
            if self.timer.poll(core.config.empty_wait, cx).is_ready() {
                self.request = None;
                core.ended(End::Rejected);
                return Poll::Ready(Next::Fail(S::Error::from_rejected(rejection())));
            }
            if changed.as_mut().poll(cx).is_pending() {
                context::record_awaited(rejection);
                return Poll::Pending;
            }
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
        Self(None)
    }

    /// Ready when `limit` or the deadline is over. Armed at the first poll.
    fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = match &mut self.0 {
            Some(sleep) => sleep,
            None => {
                let left = context::current().remaining(Instant::now());
                let wait = left.map_or(limit, |left| left.min(limit));
                if wait.is_zero() {
                    return Poll::Ready(());
                }
                self.0.insert(Box::pin(tokio::time::sleep(wait)))
            }
        };
        sleep.as_mut().poll(cx)
    }
}
