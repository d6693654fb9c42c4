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
use super::single_flight::{Boarding, Landing, Pilot, Seat, Wants};
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
    /// What is needed to board; a call that does not lead keeps it, since it may have to board again.
    start: Option<Start<S, Req, K, V>>,
    /// [`Versions::now`](super::versions::Versions::now) as the call boarded first.
    boarded: u64,
    /// How many flights the call waited for whose answers were for their leaders alone.
    private: u8,
    seat: Option<Seat<V>>,
    told: Option<oneshot::Receiver<Told<V, E>>>,
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
            boarded: 0,
            private: 0,
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
        if self.seat.is_none()
            && let Some(start) = self.start.take()
        {
            let now = Instant::now();
            self.boarded = self.core.versions.now();
            self.deadline = context::current().deadline();
            self.soft = self.core.config.soft_load_timeout.and_then(|soft| now.checked_add(soft));
            if let Some(answer) = self.board(start, now) {
                return Poll::Ready(answer);
            }
        }
        loop {
            let Some(seat) = &mut self.seat else {
                panic!("a cache's future was polled after its end");
            };
            if let Poll::Ready(landing) = seat.poll(cx) {
                let again = self.start.take_if(|_| self.core.must_board_again(seat.is_late(), &landing, self.boarded));
                self.seat = None;
                let Some(mut start) = again else {
                    return Poll::Ready(self.land(landing));
                };
                self.private += u8::from(matches!(landing, Landing::Private));
                start.found = self.core.look(&start.key);
                match self.board(start, Instant::now()) {
                    Some(answer) => return Poll::Ready(answer),
                    None => continue,
                }
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
                self.seat = None;
                return Poll::Ready(answer);
            }
        }
    }

    /// Takes an answer at once, or boards a flight.
    fn board(&mut self, start: Start<S, Req, K, V>, now: Instant) -> Option<Result<V, S::Error>> {
        let previous = match &start.found {
            Lookup::Known(entry) => entry.clone().filter(|entry| self.core.is_live(entry)),
            Lookup::Ask => None,
        };
        if let Some(entry) = &previous {
            match entry.freshness(now.into_std()) {
                Freshness::Fresh => return Some(self.found(entry)),
                Freshness::Stale => {
                    self.refresh(start, now);
                    return Some(self.stale(entry, StaleReason::Revalidating));
                }
                Freshness::OnError if self.core.is_cooling(&start.key, now) => {
                    return Some(self.stale(entry, StaleReason::CoolingDown));
                }
                Freshness::OnError | Freshness::Dead => {}
            }
        }
        let previous = previous.filter(|entry| entry.may_stand_in(now.into_std()));

        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(match previous {
                Some(entry) => self.stale(&entry, StaleReason::LoadSlow),
                None => self.refused(Rejected::DeadlineExceeded { sent: false }),
            });
        }
        let wants = match start.found {
            // Two answers in a row that were for one caller alone: this key's usually are.
            _ if self.private > 1 => Wants::Alone,
            Lookup::Known(_) => Wants::Load,
            Lookup::Ask => Wants::StoreFirst,
        };
        // An answer whose write takes longer than it is fresh is not handed on.
        let is_fresh =
            |entry: &Entry<V>| self.core.is_live(entry) && entry.freshness(now.into_std()) == Freshness::Fresh;
        match self.core.flights.board(&start.key, wants, is_fresh) {
            Boarding::Joins(seat) => {
                let stale = seat
                    .stand_in()
                    .filter(|entry| self.core.is_live(entry) && entry.freshness(now.into_std()) == Freshness::Stale);
                if let Some(entry) = stale {
                    // A refresh behind a store elsewhere.
                    return Some(self.stale(&entry, StaleReason::Revalidating));
                }
                self.seat = Some(seat);
                self.start = Some(start);
            }
            Boarding::Leads(pilot, seat) => {
                self.seat = Some(seat);
                self.lead(start, pilot, wants, now);
            }
            Boarding::Full => {
                return Some(match previous {
                    Some(entry) => self.stale(&entry, StaleReason::Limited),
                    None => self.full(),
                });
            }
        }
        None
    }

    fn lead(&mut self, start: Start<S, Req, K, V>, mut pilot: Pilot<K, V>, wants: Wants, now: Instant) {
        // What was found before the boarding may have been invalidated since, or replaced: an invalidation reaches only what
        // is in the store, and what a flight holds.
        let mut previous = None;
        if let Lookup::Known(Some(entry)) = self.core.look(pilot.key()) {
            if entry.freshness(now.into_std()) == Freshness::Fresh {
                // Another flight landed between the look at the store and the boarding of this one.
                pilot.land(Landing::Found(entry));
                return;
            }
            if wants != Wants::Alone {
                previous = pilot.set_stand_in(Arc::clone(&entry)).then_some(entry);
            }
        }
        let (leader, told) = oneshot::channel();
        self.told = Some(told);
        let mut load = self.load(start, pilot, previous);
        load.ask_store = wants == Wants::StoreFirst;
        load.leader = Some(leader);
        load.spawn();
    }

    /// Starts a refresh, unless one is under way or being stored, the key is left alone, or there is no place for it.
    fn refresh(&self, start: Start<S, Req, K, V>, now: Instant) {
        if self.core.is_cooling(&start.key, now) {
            return;
        }
        let Ok(place) = Arc::clone(&self.core.places).try_acquire_owned() else {
            return;
        };
        let Some(mut pilot) = self.core.flights.refresh(&start.key) else {
            return;
        };
        let Lookup::Known(Some(entry)) = self.core.look(&start.key) else {
            // The old answer was invalidated between the look at the store and the start of this.
            pilot.land(Landing::Private);
            return;
        };
        if entry.freshness(now.into_std()) == Freshness::Fresh {
            // Another refresh ended between the look at the store and the start of this one.
            pilot.land(Landing::Found(entry));
            return;
        }
        let previous = pilot.set_stand_in(Arc::clone(&entry)).then_some(entry);
        let mut load = self.load(start, pilot, previous);
        load.place = Some(place);
        load.spawn();
    }

    fn load(
        &self,
        start: Start<S, Req, K, V>,
        pilot: Pilot<K, V>,
        previous: Option<Arc<Entry<V>>>,
    ) -> Load<S, Req, K, V, C, St, S::Error> {
        Load {
            core: Arc::clone(&self.core),
            policy: Arc::clone(&self.policy),
            pilot,
            inner: start.inner,
            request: start.request,
            previous,
            ask_store: false,
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
        if let Some(entry) = stand_in.filter(|entry| entry.may_stand_in(now.into_std()) && self.core.is_live(entry)) {
            if let Some(seat) = &self.seat {
                // The load goes on, also one that still waits for its place.
                seat.keep();
            }
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
            Landing::Failure(answer) => Ok(self.loaded(V::clone(&answer))),
            // For the leader, who has been sent the answer; the others have boarded again.
            Landing::Private => self.failed(Rejected::Limited { retry_after: None }),
            Landing::Found(entry) => self.found(&entry),
            Landing::StandIn(entry, reason) => self.stale(&entry, reason),
            Landing::Failed(rejected) => self.failed(rejected),
            Landing::Full => self.full(),
        }
    }

    fn found(&mut self, entry: &Entry<V>) -> Result<V, S::Error> {
        self.count(if entry.is_negative() { Call::NegativeHit } else { Call::Hit });
        self.policy.answer(entry, Instant::now().into_std(), None)
    }

    fn loaded(&mut self, answer: V) -> V {
        let served = if self.told.is_some() { Served::Loaded } else { Served::Coalesced };
        self.count_load();
        self.policy.served(answer, served)
    }

    /// Without an answer for everyone: what the load told its leader before it landed, or else what is shared.
    fn failed(&mut self, shared: Rejected) -> Result<V, S::Error> {
        let told = self.told.as_mut().and_then(|told| told.try_recv().ok());
        if let Some(Told::Answer(answer)) = told {
            return Ok(self.loaded(answer));
        }
        self.count_load();
        match told {
            Some(Told::Error(error)) => Err(error),
            Some(Told::Panic(panic)) => resume_unwind(panic),
            Some(Told::Answer(_)) | None => Err(S::Error::from_rejected(shared)),
        }
    }

    fn full(&mut self) -> Result<V, S::Error> {
        self.core.emit(CacheEventKind::Limited { flights: self.core.flights.loads() });
        self.refused(Rejected::Limited { retry_after: None })
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
