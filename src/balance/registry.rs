//! The endpoints of a pool, what is known of each, and the snapshot that follows from it.
//!
//! Everything here is rare: it runs when an endpoint comes, goes, is judged or is told something, under one lock. Picks read
//! the published [`Snapshot`] and take no lock. Events are sent after the lock is released, so a listener may use the handle.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::core::{Core, Now};
use super::eligibility::{self, Circuit, Limits, Standing, Verdict};
use super::endpoint::{Endpoint, Flight, Key};
use super::snapshot::{Entry, Snapshot, Tried};
use crate::cores::sync::atomic::{AtomicU64, Ordering};
use crate::cores::sync::{Mutex, lock};
use crate::health_status::HealthStatus;
use crate::telemetry::Event;
use crate::telemetry::event::{BalanceEvent, BalanceEventKind};

#[derive(Debug)]
pub(crate) struct Registry<K, S> {
    /// Changes with every published snapshot. Read by every pick.
    version: AtomicU64,
    pub(crate) core: Arc<Core>,
    published: Mutex<Arc<Snapshot<K, S>>>,
    members: Mutex<Members<K, S>>,
    /// Told of every published snapshot.
    pub(crate) changed: Arc<Notify>,
    /// Dropped with the registry, which ends the drivers that follow a stream of changes.
    followers: Mutex<Vec<oneshot::Sender<()>>>,
    this: Weak<Self>,
}

#[derive(Debug)]
struct Members<K, S> {
    list: Vec<Member<K, S>>,
    places: HashMap<K, usize>,
    /// Endpoints that are to take no more calls, once a snapshot without them is published.
    retiring: Vec<Arc<Endpoint<K, S>>>,
    /// What a followed monitor says of its targets, whether or not their endpoints are here yet.
    #[cfg(feature = "health")]
    followed: HashMap<K, HealthStatus>,
    panic: bool,
    told_empty: bool,
    /// Whether endpoints or services came or went since the last snapshot.
    set_changed: bool,
}

#[derive(Debug)]
pub(crate) struct Member<K, S> {
    pub(crate) endpoint: Arc<Endpoint<K, S>>,
    pub(crate) service: Arc<S>,
    pub(crate) weight: u32,
    pub(crate) standing: Standing,
    pub(crate) verdict: Verdict,
    gone: bool,
}

/// A change of who is in the pool.
pub(crate) enum Membership<K, S> {
    Insert { key: K, service: S, weight: Option<u32> },
    Remove(K),
}

/// What to tell once the lock is released.
enum Notice<K, S> {
    Eligibility(Arc<Endpoint<K, S>>, bool, &'static str),
    Ejected {
        endpoint: Arc<Endpoint<K, S>>,
        time: Duration,
        failures: u32,
    },
    Panic {
        entered: bool,
        usable: usize,
        endpoints: usize,
    },
    Empty(bool),
    /// The endpoint has left the pool.
    Gone(Arc<Endpoint<K, S>>),
    /// Nothing to tell: kept so that the last reference to a user's service is not dropped under the lock.
    ReplacedService {
        _service: Arc<S>,
    },
    Replaced {
        _snapshot: Arc<Snapshot<K, S>>,
    },
}

// === impl Registry ===

impl<K: Key, S> Registry<K, S> {
    pub(crate) fn new(core: Core) -> Arc<Self> {
        let picker = core.config.picker;
        Arc::new_cyclic(|this| Self {
            version: AtomicU64::new(0),
            core: Arc::new(core),
            published: Mutex::new(Arc::new(Snapshot::new(Vec::new(), Vec::new(), picker, None, true))),
            members: Mutex::new(Members {
                list: Vec::new(),
                places: HashMap::new(),
                retiring: Vec::new(),
                #[cfg(feature = "health")]
                followed: HashMap::new(),
                panic: false,
                told_empty: true,
                set_changed: false,
            }),
            changed: Arc::new(Notify::new()),
            followers: Mutex::new(Vec::new()),
            this: this.clone(),
        })
    }

    // --- for picks ---

    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The current snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot<K, S>> {
        lock(&self.published).clone()
    }

    /// The snapshot as of now: what time has changed is published first.
    pub(crate) fn current(&self, now: &Now) -> Arc<Snapshot<K, S>> {
        let snapshot = self.snapshot();
        if snapshot.next_change.is_some_and(|due| due <= now.get()) {
            self.refresh(now.get());
            return self.snapshot();
        }
        snapshot
    }

    /// Picks in the newest snapshot; for calls that have to look again.
    ///
    /// An endpoint that a snapshot offers may be retired before the call begins. That happens only after a newer snapshot was
    /// published, so the search ends without an endpoint only if the snapshot that had none is still the newest.
    pub(crate) fn pick(&self, now: &Now, tried: &Tried) -> Option<(Flight<K, S>, Arc<S>)> {
        if tried.is_full() {
            return None;
        }
        loop {
            let version = self.version();
            let snapshot = self.current(now);
            if let Some((flight, service)) = snapshot.pick(&self.core, now, tried) {
                let service = Arc::clone(service);
                return Some((flight, service));
            }
            if self.version() == version {
                return None;
            }
        }
    }

    /// Publishes what time has changed.
    #[cold]
    pub(crate) fn refresh(&self, now: Instant) {
        self.change(|_, _| (lock(&self.published).next_change.is_some_and(|due| due <= now), ()));
    }

    // --- membership ---

    /// Applies all `changes` and publishes once.
    ///
    /// `Insert` of a key that is there replaces its service, and its weight where one is given; what was learned about the
    /// endpoint and what the operator said stays. A draining endpoint gives its key up: an `Insert` adds its successor.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Membership<K, S>>) -> usize {
        // What the caller's iterator does, it does outside the lock.
        let changes: Vec<_> = changes.into_iter().collect();
        self.change(|members, notices| {
            let mut done = 0;
            for change in changes {
                match change {
                    Membership::Insert { key, service, weight } => {
                        self.insert(members, notices, key, Arc::new(service), weight);
                        done += 1;
                    }
                    Membership::Remove(key) => {
                        if let Some(place) = members.places.remove(&key) {
                            done += 1;
                            members.list[place].gone = true;
                            members.retiring.push(members.list[place].endpoint.clone());
                        }
                    }
                }
            }
            members.forget_the_gone(notices);
            members.set_changed |= done != 0;
            (done != 0, done)
        })
    }

    fn insert(
        &self,
        members: &mut Members<K, S>,
        notices: &mut Vec<Notice<K, S>>,
        key: K,
        service: Arc<S>,
        weight: Option<u32>,
    ) {
        let place = members.places.get(&key).copied();
        let before = place.map(|place| &mut members.list[place]);
        let weight = weight.or(before.as_ref().map(|member| member.weight)).unwrap_or(1);
        if let Some(member) = before
            && !member.standing.draining
        {
            member.weight = weight;
            let service = std::mem::replace(&mut member.service, service);
            notices.push(Notice::ReplacedService { _service: service });
            return;
        }
        #[allow(unused_mut, reason = "changed with the feature `health`")]
        let mut standing = Standing::new(self.core.config.await_first_probe);
        #[cfg(feature = "health")]
        if let Some(&health) = members.followed.get(&key) {
            standing.set_health(health);
        }
        let member = Member {
            endpoint: Arc::new(Endpoint::new(key.clone(), &self.core, &self.this)),
            service,
            weight,
            standing,
            verdict: Verdict { usable: false, ..Verdict::IN },
            gone: false,
        };
        if let Some(place) = place {
            let old = std::mem::replace(&mut members.list[place], member);
            notices.push(Notice::Gone(old.endpoint));
            notices.push(Notice::ReplacedService { _service: old.service });
        } else {
            members.places.insert(key, members.list.len());
            members.list.push(member);
        }
    }

    /// Retires the endpoint: calls in flight finish, then it leaves.
    pub(crate) fn drain(&self, key: &K) -> Option<Arc<Endpoint<K, S>>> {
        let drained = self.change(|members, _| {
            let Some(place) = members.places.get(key).copied() else { return (false, None) };
            let member = &mut members.list[place];
            member.standing.draining = true;
            members.retiring.push(member.endpoint.clone());
            (true, Some(member.endpoint.clone()))
        })?;
        if drained.is_idle() {
            self.drained(&drained);
        }
        Some(drained)
    }

    /// Lets a drained endpoint go. Its key may have a successor by now, which stays.
    pub(crate) fn drained(&self, endpoint: &Arc<Endpoint<K, S>>) {
        self.change(|members, notices| {
            let place = members.place_of(endpoint);
            if let Some(place) = place {
                members.places.remove(&endpoint.key);
                members.list[place].gone = true;
                members.forget_the_gone(notices);
                members.set_changed = true;
            }
            (place.is_some(), ())
        });
    }

    /// Keeps `alive` until the registry is dropped.
    pub(crate) fn add_follower(&self, alive: oneshot::Sender<()>) {
        let mut followers = lock(&self.followers);
        followers.retain(|follower| !follower.is_closed());
        followers.push(alive);
    }

    // --- what is known of one endpoint ---

    pub(crate) fn set_enabled(&self, key: &K, enabled: bool) -> bool {
        self.change_one(key, |member, _| member.standing.enabled = enabled)
    }

    pub(crate) fn set_health(&self, key: &K, health: HealthStatus) -> bool {
        self.change_one(key, |member, _| member.standing.set_health(health))
    }

    /// The same from a monitor: what it says holds for endpoints that come later, too. An endpoint whose checks pass again
    /// begins anew: what was held against it while it was down says nothing about what came back.
    #[cfg(feature = "health")]
    pub(crate) fn follow_health(&self, key: K, health: HealthStatus) {
        let now = Now::unread();
        self.change(|members, _| {
            let place = members.places.get(&key).copied();
            if let Some(place) = place {
                let member = &mut members.list[place];
                if (member.standing.health, health) == (HealthStatus::Unhealthy, HealthStatus::Healthy) {
                    member.reset(&now);
                }
                member.standing.set_health(health);
            }
            match health {
                HealthStatus::Unknown => members.followed.remove(&key),
                HealthStatus::Healthy | HealthStatus::Unhealthy => members.followed.insert(key, health),
            };
            (place.is_some(), ())
        });
    }

    pub(crate) fn eject_by_hand(&self, key: &K, time: Duration) -> bool {
        self.change_one(key, |member, notices| {
            // Without ejections by failures there are none to forget.
            let decay_interval = self.core.config.ejection.as_ref().map_or(time, |config| config.decay_interval);
            member.standing.ejection.eject_for(Now::unread().get(), time, decay_interval);
            // A success does not lift what was ordered, and failures add nothing to it.
            member.endpoint.set_ejected(false);
            self.core.ejections.add(1);
            notices.push(Notice::Ejected { endpoint: member.endpoint.clone(), time, failures: 0 });
        })
    }

    /// Forgets all passive evidence and all loads.
    pub(crate) fn reset(&self, key: &K) -> bool {
        let now = Now::unread();
        self.change_one(key, |member, _| member.reset(&now))
    }

    /// The last of `failures` in a row came from a call of `generation`.
    pub(crate) fn eject_for_failures(&self, endpoint: &Endpoint<K, S>, generation: u32, failures: u32) {
        let Some(config) = &self.core.config.ejection else { return };
        let now = Now::unread().get();
        self.change_of(endpoint, |member, notices| {
            // Asked again: what the call knew may have changed before the lock was had.
            if !member.endpoint.is_generation(generation) || member.standing.ejection.span(now).is_some() {
                return false;
            }
            let time = member.standing.ejection.eject(now, config);
            member.endpoint.set_ejected(true);
            self.core.ejections.add(0);
            notices.push(Notice::Ejected { endpoint: member.endpoint.clone(), time, failures });
            true
        });
    }

    /// The endpoint was used although it is ejected, and works, as a call of `generation` found.
    #[cold]
    pub(crate) fn lift(&self, endpoint: &Endpoint<K, S>, generation: u32) {
        let now = Now::unread().get();
        self.change_of(endpoint, |member, _| {
            if !member.endpoint.is_generation(generation) {
                return false;
            }
            let out = member.standing.ejection.span(now).is_some();
            member.standing.ejection.lift(now);
            member.endpoint.set_ejected(false);
            out
        });
    }

    /// `poll_ready` failed.
    pub(crate) fn failed_to_become_ready(&self, endpoint: &Arc<Endpoint<K, S>>) {
        self.pause(std::slice::from_ref(endpoint), self.core.config.unready_max);
    }

    /// `poll_ready` was pending too often. The pause is no longer than a call waits for an endpoint: another look costs a call
    /// nothing, and a call that waits takes part in one.
    pub(crate) fn not_ready(&self, endpoints: &[Arc<Endpoint<K, S>>]) {
        let config = &self.core.config;
        self.pause(endpoints, config.ready_timeout.clamp(config.unready_min, config.unready_max));
    }

    #[cold]
    fn pause(&self, endpoints: &[Arc<Endpoint<K, S>>], max: Duration) {
        let now = Now::unread().get();
        let min = self.core.config.unready_min;
        self.change(|members, _| {
            let mut paused = false;
            for endpoint in endpoints {
                let Some(place) = members.place_of(endpoint) else { continue };
                let unready = &mut members.list[place].standing.unready;
                paused |= unready.fail(now, min, max, self.core.draw()).is_some();
                endpoint.set_paused();
            }
            (paused, ())
        });
    }

    /// `poll_ready` succeeded after the endpoint had been paused.
    #[cold]
    pub(crate) fn recovered(&self, endpoint: &Endpoint<K, S>) {
        self.change_of(endpoint, |member, _| member.standing.unready.recover());
    }

    /// An endpoint's breaker opened or closed.
    #[cold]
    pub(crate) fn circuit_changed(&self) {
        self.change(|_, _| (true, ()));
    }

    // --- for the handle ---

    /// Looks at all endpoints and at whether the pool is in panic mode, as of now.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&[Member<K, S>], bool, &Now) -> R) -> R {
        let now = Now::unread();
        self.refresh(now.get());
        let members = lock(&self.members);
        look(&members.list, members.panic, &now)
    }

    // --- the change itself ---

    fn change_one(&self, key: &K, act: impl FnOnce(&mut Member<K, S>, &mut Vec<Notice<K, S>>)) -> bool {
        self.change(|members, notices| {
            let place = members.places.get(key).copied();
            if let Some(place) = place {
                act(&mut members.list[place], notices);
            }
            (place.is_some(), place.is_some())
        })
    }

    /// `act` says whether anything changed.
    fn change_of(
        &self,
        endpoint: &Endpoint<K, S>,
        act: impl FnOnce(&mut Member<K, S>, &mut Vec<Notice<K, S>>) -> bool,
    ) {
        self.change(|members, notices| {
            let place = members.place_of(endpoint);
            (place.is_some_and(|place| act(&mut members.list[place], notices)), ())
        });
    }

    /// Runs `act` under the lock; if that says so, decides anew and publishes; then tells what happened.
    fn change<A>(&self, act: impl FnOnce(&mut Members<K, S>, &mut Vec<Notice<K, S>>) -> (bool, A)) -> A {
        let mut notices = Vec::new();
        let answer = {
            let mut members = lock(&self.members);
            let (changed, answer) = act(&mut members, &mut notices);
            if changed {
                self.publish(&mut members, &mut notices);
            }
            // Not before: a pick that is turned away has to find a newer snapshot.
            members.retiring.drain(..).for_each(|endpoint| endpoint.retire());
            answer
        };
        for notice in &notices {
            if let Notice::Gone(endpoint) = notice {
                endpoint.leave();
            }
        }
        for notice in &notices {
            self.tell(notice);
        }
        answer
    }

    fn publish(&self, members: &mut Members<K, S>, notices: &mut Vec<Notice<K, S>>) {
        let now = Now::unread().get();
        let config = &self.core.config;
        for member in &mut members.list {
            if member.standing.ejection.settle(now) {
                member.endpoint.set_ejected(false);
            }
            if let Some(breaker) = &member.endpoint.breaker {
                member.standing.circuit = breaker.circuit(member.standing.circuit, now);
            }
        }
        let limits = Limits { max_out: config.max_out, panic_threshold: config.panic_threshold };
        let decision = eligibility::decide(members.list.iter().map(|member| &member.standing), limits, now);
        let mut offers_more = false;
        for (member, verdict) in members.list.iter_mut().zip(decision.verdicts) {
            let is_offered = |verdict: &Verdict| verdict.usable && verdict.ready || verdict.probe;
            offers_more |= is_offered(&verdict) && !is_offered(&member.verdict);
            if verdict.usable != member.verdict.usable {
                let reason = match (verdict.usable, verdict.against) {
                    (_, None) => "nothing speaks against it",
                    (true, Some(_)) if decision.panic => "panic",
                    (true, Some(_)) => "too many are out",
                    (false, Some(against)) => against.as_str(),
                };
                notices.push(Notice::Eligibility(member.endpoint.clone(), verdict.usable, reason));
            }
            member.verdict = verdict;
            if let Some(breaker) = &member.endpoint.breaker {
                breaker.overrule(verdict.usable && member.standing.circuit != Circuit::Passing);
            }
        }
        let entries: Vec<_> = members.list.iter().filter(|member| member.verdict.usable).map(Member::entry).collect();
        let usable = entries.len();
        let probes = members.list.iter().filter(|member| member.verdict.probe).map(Member::entry).collect();
        if decision.panic != members.panic {
            members.panic = decision.panic;
            let healthy = members.list.iter().filter(|member| member.verdict.against.is_none()).count();
            notices.push(Notice::Panic { entered: decision.panic, usable: healthy, endpoints: members.list.len() });
        }
        let snapshot = Snapshot::new(entries, probes, config.picker, decision.next_change, members.list.is_empty());
        if members.list.is_empty() != members.told_empty {
            members.told_empty = members.list.is_empty();
            notices.push(Notice::Empty(members.told_empty));
        }
        let before = std::mem::replace(&mut *lock(&self.published), Arc::new(snapshot));
        notices.push(Notice::Replaced { _snapshot: before });
        self.version.fetch_add(1, Ordering::Release);
        // Waiting calls look again when there is more to pick from, or when what they wait for may have left.
        if offers_more || std::mem::take(&mut members.set_changed) {
            self.changed.notify_waiters();
        }
        self.core.endpoints.set(as_level(members.list.len()));
        self.core.usable.set(as_level(usable));
        self.core.panic.set(f64::from(u8::from(decision.panic)));
    }

    fn tell(&self, notice: &Notice<K, S>) {
        let kind = match notice {
            Notice::Eligibility(endpoint, eligible, reason) => {
                BalanceEventKind::EligibilityChanged { endpoint: &endpoint.label, eligible: *eligible, reason }
            }
            Notice::Ejected { endpoint, time, failures } => {
                BalanceEventKind::Ejected { endpoint: &endpoint.label, time: *time, failures: *failures }
            }
            Notice::Panic { entered: true, usable, endpoints } => {
                BalanceEventKind::PanicEntered { healthy: *usable, endpoints: *endpoints }
            }
            Notice::Panic { entered: false, usable, endpoints } => {
                BalanceEventKind::PanicLeft { healthy: *usable, endpoints: *endpoints }
            }
            Notice::Empty(true) => BalanceEventKind::Emptied,
            Notice::Empty(false) => BalanceEventKind::Filled,
            Notice::Gone(_) | Notice::ReplacedService { .. } | Notice::Replaced { .. } => return,
        };
        self.core.emitter.emit(|name| Event::Balance(BalanceEvent { name, kind }));
    }
}

// === impl Member ===

impl<K: Key, S> Member<K, S> {
    fn entry(&self) -> Entry<K, S> {
        Entry::new(self.endpoint.clone(), self.service.clone(), self.weight, self.verdict.ready)
    }

    /// Forgets all passive evidence and all loads.
    fn reset(&mut self, now: &Now) {
        self.standing.ejection = Default::default();
        self.standing.unready = Default::default();
        self.endpoint.forget_not_ready();
        self.endpoint.set_ejected(false);
        self.endpoint.forget(now);
        if let Some(breaker) = &self.endpoint.breaker {
            breaker.reset();
        }
    }
}

// === impl Members ===

impl<K: Key, S> Members<K, S> {
    /// Where the endpoint is; `None` when it has left, whether or not its key has a successor.
    fn place_of(&self, endpoint: &Endpoint<K, S>) -> Option<usize> {
        self.places.get(&endpoint.key).copied().filter(|place| self.list[*place].endpoint.id == endpoint.id)
    }

    fn forget_the_gone(&mut self, notices: &mut Vec<Notice<K, S>>) {
        if !self.list.iter().any(|member| member.gone) {
            return;
        }
        let (gone, list) = std::mem::take(&mut self.list).into_iter().partition(|member| member.gone);
        self.list = list;
        for Member { endpoint, service, verdict, .. } in gone {
            if verdict.usable {
                notices.push(Notice::Eligibility(endpoint.clone(), false, "removed"));
            }
            notices.push(Notice::Gone(endpoint));
            notices.push(Notice::ReplacedService { _service: service });
        }
        self.places =
            self.list.iter().enumerate().map(|(place, member)| (member.endpoint.key.clone(), place)).collect();
    }
}

#[allow(clippy::cast_precision_loss, reason = "pools have fewer than 2^52 endpoints")]
const fn as_level(count: usize) -> f64 {
    count as f64
}
