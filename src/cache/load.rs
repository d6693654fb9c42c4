//! [`Load`]: one load, from the question to the store to the answer that everyone on the flight gets. It runs as a task of
//! its own, in a context of its own.

use std::any::Any;
use std::fmt::Display;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::select;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tower_service::Service;

use super::core::{Core, Loaded};
use super::entry::{self, Entry, Freshness, Lifetime};
use super::key::CacheKey;
use super::limit::Within;
use super::policy::Policy;
use super::served::StaleReason;
use super::single_flight::{Landing, Pilot};
use super::store::Store;
use crate::context::{DeadlineScope, InScope, IsolatedScope};
use crate::error::{LoadFailed, Rejectable, Rejected};
use crate::outcome::{Classify, Outcome, judge};
use crate::telemetry::event::CacheEventKind;

/// Everything that a load needs.
pub(crate) struct Load<S, Req, K: CacheKey, V, C, St, E> {
    pub(crate) core: Arc<Core<K, V, St>>,
    pub(crate) policy: Arc<Policy<K, V, C>>,
    pub(crate) pilot: Pilot<K, V>,
    pub(crate) inner: S,
    pub(crate) request: Req,
    /// The old answer of the key, where one is known.
    pub(crate) previous: Option<Arc<Entry<V>>>,
    /// Whether the store is to be asked first.
    pub(crate) ask_store: bool,
    /// The place of a refresh, which has one or does not run; a call waits for its own.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// Where the caller who leads the flight hears what only one can be told.
    pub(crate) leader: Option<oneshot::Sender<Told<V, E>>>,
}

/// What cannot be shared among the callers of a flight.
pub(crate) enum Told<V, E> {
    /// An answer that is for the leader alone.
    Answer(V),
    /// The load's own error.
    Error(E),
    /// What the load panicked with.
    Panic(Box<dyn Any + Send>),
}

/// What is to be done with the answer of a load.
enum Verdict<V, E> {
    /// Store it.
    Store(Entry<V>, Option<E>),
    /// Give it to the leader alone, and forget what was stored before it.
    Pass(Result<V, E>),
    /// It failed.
    Failed(Result<V, E>, Outcome),
}

/// What the waiters of a load get that failed with an error of the inner service: that error's words. The error itself goes to
/// the caller who led the load.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Shared(String);

/// What the waiters of a load get that panicked.
#[derive(Debug, thiserror::Error)]
#[error("the load panicked")]
struct Panicked;

// === impl Load ===

impl<S, Req, K, V, C, St> Load<S, Req, K, V, C, St, S::Error>
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
    /// Starts the load as a task that ends with the last owner of the cache.
    pub(crate) fn spawn(self) {
        let flight = Arc::clone(self.pilot.flight());
        let mut closed = self.core.closed.clone();
        let work = InScope::new(IsolatedScope::new(), self.run());
        let work = async move {
            // Ends early when the last sender is gone; nothing is ever sent.
            let _ = select(pin!(work), pin!(closed.changed())).await;
        };
        #[cfg(feature = "tracing")]
        let work = tracing::Instrument::in_current_span(work);
        flight.set_task(tokio::spawn(work).abort_handle());
    }

    async fn run(mut self) {
        if self.ask_store {
            match self.ask().await {
                Some(load) => self = load,
                None => return,
            }
        }
        if !self.pilot.enter() {
            self.pilot.land(match self.previous.take().filter(|entry| self.core.is_live(entry)) {
                Some(entry) => Landing::StandIn(entry, StaleReason::Limited),
                None => Landing::Full,
            });
            return;
        }
        let refresh = self.place.is_some();
        let place = match self.place.take() {
            Some(place) => place,
            None => match Arc::clone(&self.core.places).acquire_owned().await {
                Ok(place) => place,
                Err(_closed) => return,
            },
        };
        if self.pilot.begin() {
            self.load(place, refresh).await;
        }
    }

    /// Asks the store first. `None`: it had the answer, and nothing is left to do.
    ///
    /// An entry that was found while its key was invalidated is left out.
    async fn ask(mut self) -> Option<Self> {
        let Some(entry) = self.core.store_get(self.pilot.key()).await else {
            return Some(self);
        };
        let now = Instant::now();
        let cooling = self.core.is_cooling(self.pilot.key(), now);
        let found = match entry.freshness(now.into_std()) {
            Freshness::Fresh => Landing::Found(entry),
            Freshness::Stale => {
                let place = if cooling { None } else { Arc::clone(&self.core.places).try_acquire_owned().ok() };
                match place.filter(|_| self.pilot.enter()) {
                    None => Landing::StandIn(entry, StaleReason::Revalidating),
                    place => {
                        match self.pilot.land_and_refresh(&entry, StaleReason::Revalidating) {
                            Ok(pilot) => (self.pilot, self.place, self.previous) = (pilot, place, Some(entry)),
                            Err(pilot) => self.pilot = pilot,
                        }
                        return Some(self);
                    }
                }
            }
            Freshness::OnError if cooling => Landing::StandIn(entry, StaleReason::CoolingDown),
            Freshness::OnError => {
                self.previous = self.pilot.set_stand_in(Arc::clone(&entry)).then_some(entry);
                return Some(self);
            }
            Freshness::Dead => return Some(self),
        };
        if self.pilot.land_found(found) { None } else { Some(self) }
    }

    async fn load(self, place: OwnedSemaphorePermit, refresh: bool) {
        let Self { core, policy, mut pilot, inner, request, previous, leader, .. } = self;
        let running = Running::new(&core, place, refresh);
        let started = Instant::now();
        let work = judged(&core, &policy, pilot.key(), inner, request);
        let result = AssertUnwindSafe(work).catch_unwind().await;
        core.counts.load_took(started.elapsed());

        let mut forget = false;
        let (loaded, landing) = match result {
            Ok(Verdict::Store(entry, error)) => {
                tell(leader, error.map(Told::Error));
                core.warm(pilot.key());
                let loaded = if pilot.may_store() { Loaded::Stored } else { Loaded::NotStored };
                (loaded, Landing::Loaded(Arc::new(entry)))
            }
            Ok(Verdict::Pass(answer)) => {
                tell(leader, Some(answer.map_or_else(Told::Error, Told::Answer)));
                core.warm(pilot.key());
                if let Some(previous) = &previous {
                    previous.kill();
                    forget = true;
                }
                (Loaded::NotStored, Landing::Private)
            }
            Ok(Verdict::Failed(answer, outcome)) => {
                let stand_in = stand_in(&core, pilot.key(), previous.as_ref(), outcome, refresh);
                (Loaded::Failed, stand_in.unwrap_or_else(|| share(answer, outcome, leader)))
            }
            Err(panic) => {
                let outcome = Outcome::Permanent;
                let stand_in = stand_in(&core, pilot.key(), previous.as_ref(), outcome, refresh);
                let landing = stand_in.unwrap_or_else(|| {
                    tell(leader, Some(Told::Panic(panic)));
                    Landing::Failed(LoadFailed::new(outcome, Arc::new(Panicked)).into())
                });
                (Loaded::Failed, landing)
            }
        };
        running.ended(loaded);

        let entry = match &landing {
            Landing::Loaded(entry) => Some(Arc::clone(entry)),
            _ => None,
        };
        // No caller waits for the store: a call that comes meanwhile joins the landed flight.
        pilot.land(landing);
        if let Some(entry) = entry
            && pilot.may_store()
            && core.is_live(&entry)
        {
            core.store_set(pilot.key(), Arc::clone(&entry), Instant::now()).await;
            // The key was invalidated during the write: the entry is dead wherever it is, and this frees its memory.
            forget = entry.is_dead();
        }
        if forget {
            _ = core.store_remove(pilot.key()).await;
        }
    }
}

/// Loads, and judges what came of it.
async fn judged<S, Req, K, V, C, St>(
    core: &Core<K, V, St>,
    policy: &Policy<K, V, C>,
    key: &K,
    mut inner: S,
    request: Req,
) -> Verdict<V, S::Error>
where
    S: Service<Req, Response = V>,
    S::Error: Rejectable + Display,
    K: CacheKey,
    V: Send + Sync + 'static,
    C: Classify<V, S::Error>,
    St: Store<K, V>,
{
    let config = &core.config;
    // Noted before the load begins: what is invalidated from here on does not come back through it.
    let began = core.versions.now();
    let sent = AtomicBool::new(false);
    let deadline = config.load_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let call = async {
        poll_fn(|cx| inner.poll_ready(cx)).await?;
        sent.store(true, Ordering::Relaxed);
        inner.call(request).await
    };
    let timed = Within::new(config.load_timeout, InScope::new(DeadlineScope(deadline), call)).await;
    let result = match timed {
        // A layer below noticed first that the load's time is up. (A deadline that was set below is another one.)
        Some(Err(error))
            if error.as_rejected().is_some_and(Rejected::is_deadline_exceeded)
                && deadline.is_some_and(|deadline| deadline <= Instant::now()) =>
        {
            None
        }
        result => result,
    };
    let result = result.unwrap_or_else(|| {
        let timeout = config.load_timeout.unwrap_or_default();
        Err(S::Error::from_rejected(Rejected::Timeout { timeout, sent: sent.load(Ordering::Relaxed) }))
    });

    let outcome = judge(&policy.classifier, result.as_ref());
    let stamp = |answer: Option<&V>| {
        let mut tags = core.versions.tags();
        if let (Some(tags_of), Some(answer)) = (&policy.tags, answer) {
            tags_of(key, answer, &mut tags);
        }
        tags.stamp(began)
    };
    let now = Instant::now().into_std();
    let negative = match (outcome, &result) {
        (Outcome::Success, Ok(_)) => false,
        (Outcome::Refused, _) => true,
        _ => return Verdict::Failed(result, outcome),
    };
    let ttl = match &result {
        Ok(answer) if !policy.may_store(key, answer) => None,
        Ok(answer) if !negative => Some(policy.ttl(answer, config.ttl)),
        result => config.negative_ttl.filter(|_| !policy.classifier.depends_on_caller(result.as_ref())),
    };
    let ttl = ttl.map(|ttl| entry::jittered(ttl, config.ttl_jitter, core.draw())).filter(|ttl| !ttl.is_zero());
    let Some(ttl) = ttl else {
        return Verdict::Pass(result);
    };
    let lifetime = if negative {
        Lifetime::strict(ttl)
    } else {
        Lifetime {
            fresh: ttl,
            stale_while_revalidate: config.stale_while_revalidate,
            stale_if_error: config.stale_if_error,
        }
    };
    let stamp = stamp(result.as_ref().ok());
    let (answer, error) = match result {
        Ok(answer) => (Ok(answer), None),
        Err(error) => (Err(LoadFailed::new(outcome, Arc::new(Shared(error.to_string())))), Some(error)),
    };
    Verdict::Store(Entry::new(answer, negative, lifetime, now, stamp), error)
}

/// Notes a failed load, and answers with the old answer if it may stand in.
fn stand_in<K: CacheKey, V: Send + Sync + 'static, St: Store<K, V>>(
    core: &Core<K, V, St>,
    key: &K,
    previous: Option<&Arc<Entry<V>>>,
    outcome: Outcome,
    refresh: bool,
) -> Option<Landing<V>> {
    let now = Instant::now();
    let old = previous.filter(|entry| entry.may_stand_in(now.into_std()) && core.is_live(entry));
    let cooldown = old.map(|_| core.cool_down(key, now, outcome.retry_after()));
    core.emit(CacheEventKind::LoadFailed { refresh, outcome, cooldown });
    old.map(|entry| Landing::StandIn(Arc::clone(entry), StaleReason::LoadFailed))
}

/// The end of a failed load for everyone: a response is cloned, an error goes to the leader and its words to the others.
fn share<V, E: Rejectable + Display>(
    answer: Result<V, E>,
    outcome: Outcome,
    leader: Option<oneshot::Sender<Told<V, E>>>,
) -> Landing<V> {
    match answer {
        Ok(answer) => Landing::Failure(Arc::new(answer)),
        Err(error) => {
            let shared = match error.as_rejected() {
                // A refusal that was never sent says the same to everyone, and may be repeated by everyone.
                Some(rejected) if !rejected.was_sent() => rejected.clone(),
                Some(rejected) => LoadFailed::new(outcome, Arc::new(rejected.clone())).into(),
                None => LoadFailed::new(outcome, Arc::new(Shared(error.to_string()))).into(),
            };
            tell(leader, Some(Told::Error(error)));
            Landing::Failed(shared)
        }
    }
}

fn tell<V, E>(leader: Option<oneshot::Sender<Told<V, E>>>, told: Option<Told<V, E>>) {
    if let (Some(leader), Some(told)) = (leader, told) {
        // A leader that has left hears nothing; the others are told by the landing.
        _ = leader.send(told);
    }
}

// === Running ===

/// Holds a load's place, and counts the load once, whatever becomes of its task.
struct Running<'a, K: CacheKey, V: Send + Sync + 'static, St: Store<K, V>> {
    core: &'a Core<K, V, St>,
    place: Option<OwnedSemaphorePermit>,
    refresh: bool,
    loaded: Loaded,
}

impl<'a, K: CacheKey, V: Send + Sync + 'static, St: Store<K, V>> Running<'a, K, V, St> {
    fn new(core: &'a Core<K, V, St>, place: OwnedSemaphorePermit, refresh: bool) -> Self {
        core.counts.loading(core.loading());
        Self { core, place: Some(place), refresh, loaded: Loaded::Abandoned }
    }

    fn ended(mut self, loaded: Loaded) {
        self.loaded = loaded;
    }
}

impl<K: CacheKey, V: Send + Sync + 'static, St: Store<K, V>> Drop for Running<'_, K, V, St> {
    fn drop(&mut self) {
        self.place = None;
        self.core.counts.load(self.loaded, self.refresh);
        self.core.counts.loading(self.core.loading());
    }
}
