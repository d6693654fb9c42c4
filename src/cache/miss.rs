//! [`Miss`]: a call that the store could not answer at once.

use std::fmt::Display;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::sync::oneshot;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::core::{Call, Core, Owner};
use super::entry::{Entry, Freshness};
use super::key::CacheKey;
use super::load::{Load, Told};
use super::policy::Policy;
use super::served::{Served, StaleReason};
use super::single_flight::{Boarding, Landing, Pilot, Seat};
use super::store::{Lookup, Store};
use crate::context;
use crate::error::{Rejectable, Rejected};
use crate::outcome::Classify;
use crate::telemetry::event::CacheEventKind;

/// A call that boards a flight, or takes an old answer. Nothing happens before it is first polled.
pub(crate) struct Miss<S, Req, K, V, C, St, E> {
    core: Arc<Core<K, V, St>>,
    policy: Arc<Policy<K, V, C>>,
    _owner: Arc<Owner>,
    start: Option<Start<S, Req, K, V>>,
    seat: Option<Seat<V>>,
    told: Option<oneshot::Receiver<Told<E>>>,
    soft: Option<Instant>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Counts the call as abandoned when it is dropped before its end.
    open: Open<K, V, St>,
}

/// What is needed to start a load.
pub(crate) struct Start<S, Req, K, V> {
    pub(crate) inner: S,
    pub(crate) request: Req,
    pub(crate) key: K,
    pub(crate) found: Lookup<V>,
}

/// A call that has not been counted yet.
struct Open<K, V, St>(Option<Arc<Core<K, V, St>>>);

// === impl Miss ===

impl<S, Req, K, V, C, St, E> Miss<S, Req, K, V, C, St, E> {
    pub(crate) fn new(
        core: &Arc<Core<K, V, St>>,
        policy: &Arc<Policy<K, V, C>>,
        owner: &Arc<Owner>,
        start: Start<S, Req, K, V>,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            policy: Arc::clone(policy),
            _owner: Arc::clone(owner),
            start: Some(start),
            seat: None,
            told: None,
            soft: None,
            deadline: None,
            timer: None,
            open: Open(Some(Arc::clone(core))),
        }
    }
}

impl<S, Req, K, V, C, St> Miss<S, Req, K, V, C, St, S::Error>
where
    S: Service<Req, Response = V> + Send + 'static,
    S::Future: Send,
    S::Error: Rejectable + Display + Send + 'static,
    Req: Send + 'static,
    K: CacheKey,
    V: Clone + Send + Sync + 'static,
    C: Classify<V, S::Error> + Send + Sync + 'static,
    St: Store<K, V>,
{
    #[inline(never)]
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<V, S::Error>> {
        if let Some(start) = self.start.take()
            && let Some(answer) = self.board(start)
        {
            return Poll::Ready(answer);
        }
        loop {
            let Some(seat) = &mut self.seat else {
                panic!("a cache's future was polled after its end");
            };
            if let Poll::Ready(landing) = seat.poll(cx) {
                return Poll::Ready(self.land(landing));
            }
            let due = match (self.soft, self.deadline) {
                (Some(soft), Some(deadline)) => soft.min(deadline),
                (Some(due), None) | (None, Some(due)) => due,
                (None, None) => return Poll::Pending,
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if pin!(coop::unconstrained(timer.as_mut())).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            if let Some(answer) = self.time_is_up(Instant::now()) {
                return Poll::Ready(answer);
            }
        }
    }

    /// Takes an old answer at once, or boards a flight.
    fn board(&mut self, start: Start<S, Req, K, V>) -> Option<Result<V, S::Error>> {
        let now = Instant::now();
        let Start { inner, request, key, found } = start;
        let (previous, ask_store) = match found {
            Lookup::Known(entry) => (entry, false),
            Lookup::Ask => (None, true),
        };
        if let Some(entry) = &previous {
            match entry.freshness(now.into_std()) {
                Freshness::Stale => {
                    let entry = Arc::clone(entry);
                    self.refresh(inner, request, key, &entry, now);
                    return Some(self.stale(&entry, StaleReason::Revalidating));
                }
                Freshness::OnError if self.core.is_cooling(&key, now) => {
                    return Some(self.stale(entry, StaleReason::CoolingDown));
                }
                Freshness::Fresh | Freshness::OnError | Freshness::Dead => {}
            }
        }
        let previous = previous.filter(|entry| entry.may_stand_in(now.into_std()));

        self.deadline = context::current().deadline();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(match previous {
                Some(entry) => self.stale(&entry, StaleReason::LoadSlow),
                None => self.refused(Rejected::DeadlineExceeded { sent: false }),
            });
        }
        self.soft = self.core.config.soft_load_timeout.and_then(|soft| now.checked_add(soft));
        match self.core.flights.board(&key) {
            Boarding::Joins(seat) => self.seat = Some(seat),
            Boarding::Leads(pilot, seat) => {
                self.seat = Some(seat);
                self.lead(inner, request, pilot, previous, ask_store, now);
            }
            Boarding::Full => {
                return Some(match previous {
                    Some(entry) => self.stale(&entry, StaleReason::Limited),
                    None => {
                        self.core.emit(CacheEventKind::Limited { flights: self.core.flights.under_way() });
                        self.refused(Rejected::Limited { retry_after: None })
                    }
                });
            }
        }
        None
    }

    fn lead(
        &mut self,
        inner: S,
        request: Req,
        pilot: Pilot<K, V>,
        mut previous: Option<Arc<Entry<V>>>,
        ask_store: bool,
        now: Instant,
    ) {
        if let Lookup::Known(Some(entry)) = self.core.look(pilot.key()) {
            // Another flight landed between the look at the store and the boarding of this one.
            if entry.freshness(now.into_std()) == Freshness::Fresh {
                pilot.land(Landing::Found(entry));
                return;
            }
            previous = Some(entry).filter(|entry| entry.may_stand_in(now.into_std()));
        }
        if let Some(entry) = &previous {
            pilot.set_stand_in(Arc::clone(entry));
        }
        let (leader, told) = oneshot::channel();
        self.told = Some(told);
        let mut load = self.load(inner, request, pilot, previous, ask_store);
        load.leader = Some(leader);
        load.spawn();
    }

    /// Starts a refresh, unless one is under way, the key is left alone, or there is no place for it.
    fn refresh(&self, inner: S, request: Req, key: K, entry: &Arc<Entry<V>>, now: Instant) {
        if self.core.is_cooling(&key, now) {
            return;
        }
        let Ok(place) = Arc::clone(&self.core.places).try_acquire_owned() else {
            return;
        };
        let Some(pilot) = self.core.flights.refresh(&key) else {
            return;
        };
        if let Lookup::Known(Some(entry)) = self.core.look(&key)
            && entry.freshness(now.into_std()) == Freshness::Fresh
        {
            // Another refresh ended between the look at the store and the start of this one.
            pilot.land(Landing::Found(entry));
            return;
        }
        pilot.set_stand_in(Arc::clone(entry));
        let mut load = self.load(inner, request, pilot, Some(Arc::clone(entry)), false);
        load.place = Some(place);
        load.spawn();
    }

    fn load(
        &self,
        inner: S,
        request: Req,
        pilot: Pilot<K, V>,
        previous: Option<Arc<Entry<V>>>,
        ask_store: bool,
    ) -> Load<S, Req, K, V, C, St, S::Error> {
        Load {
            core: Arc::clone(&self.core),
            policy: Arc::clone(&self.policy),
            pilot,
            inner,
            request,
            previous,
            ask_store,
            place: None,
            leader: None,
        }
    }

    /// A timer fired: an old answer, an error, or `None` to go on waiting.
    fn time_is_up(&mut self, now: Instant) -> Option<Result<V, S::Error>> {
        let over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let stand_in = self.seat.as_ref().and_then(Seat::stand_in);
        if over(self.soft) {
            self.soft = None;
        } else if !over(self.deadline) {
            return None;
        }
        if let Some(entry) = stand_in.filter(|entry| entry.may_stand_in(now.into_std()) && self.core.is_current(entry))
        {
            return Some(self.stale(&entry, StaleReason::LoadSlow));
        }
        if over(self.deadline) {
            let sent = self.seat.as_ref().is_some_and(Seat::has_begun);
            return Some(self.refused(Rejected::DeadlineExceeded { sent }));
        }
        None
    }

    fn land(&mut self, landing: Landing<V>) -> Result<V, S::Error> {
        match landing {
            Landing::Loaded(entry) => match entry.answer() {
                Ok(answer) => Ok(self.loaded(answer.clone())),
                Err(refused) => self.failed(refused.clone().into()),
            },
            Landing::Passed(answer) => Ok(self.loaded(V::clone(&answer))),
            Landing::Found(entry) => {
                self.count(if entry.is_negative() { Call::NegativeHit } else { Call::Hit });
                self.policy.answer(&entry, Instant::now().into_std(), None)
            }
            Landing::StandIn(entry, reason) => self.stale(&entry, reason),
            Landing::Failed(rejected) => self.failed(rejected),
        }
    }

    fn loaded(&mut self, answer: V) -> V {
        let served = if self.told.is_some() { Served::Loaded } else { Served::Coalesced };
        self.count_load();
        self.policy.served(answer, served)
    }

    fn failed(&mut self, shared: Rejected) -> Result<V, S::Error> {
        self.count_load();
        // The load told its leader before it landed.
        match self.told.as_mut().and_then(|told| told.try_recv().ok()) {
            Some(Told::Error(error)) => Err(error),
            Some(Told::Panic(panic)) => resume_unwind(panic),
            None => Err(S::Error::from_rejected(shared)),
        }
    }

    fn stale(&mut self, entry: &Entry<V>, reason: StaleReason) -> Result<V, S::Error> {
        if let Some(core) = self.open.0.take() {
            core.counts.stale(reason);
        }
        self.policy.answer(entry, Instant::now().into_std(), Some(reason))
    }

    fn refused(&mut self, rejected: Rejected) -> Result<V, S::Error> {
        self.count(Call::Refused);
        Err(S::Error::from_rejected(rejected))
    }

    fn count_load(&mut self) {
        self.count(if self.told.is_some() { Call::Miss } else { Call::Coalesced });
    }

    fn count(&mut self, call: Call) {
        if let Some(core) = self.open.0.take() {
            core.counts.call(call);
        }
    }
}

// === impl Open ===

impl<K, V, St> Drop for Open<K, V, St> {
    fn drop(&mut self) {
        if let Some(core) = self.0.take() {
            core.counts.call(Call::Abandoned);
        }
    }
}
