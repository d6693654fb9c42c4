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
use super::snapshot::{Snapshot, Tried};
use crate::context::EndpointId;
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
    /// What a followed monitor says of its targets, whether or not their endpoints are here yet.
    #[cfg(feature = "health")]
    followed: HashMap<K, HealthStatus>,
    panic: bool,
    told_empty: bool,
}

#[derive(Debug)]
pub(crate) struct Member<K, S> {
    pub(crate) endpoint: Arc<Endpoint<K, S>>,
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
    /// Nothing to tell: kept so that the last reference to a user's service is not dropped under the lock.
    Gone {
        _endpoint: Arc<Endpoint<K, S>>,
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
                #[cfg(feature = "health")]
                followed: HashMap::new(),
                panic: false,
                told_empty: true,
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

    /// Picks in the current snapshot; for calls that have to look again.
    pub(crate) fn pick(&self, now: &Now, tried: &Tried) -> Option<Flight<K, S>> {
        if tried.is_full() {
            return None;
        }
        let mut snapshot = self.snapshot();
        if snapshot.next_change.is_some_and(|due| due <= now.get()) {
            self.refresh(now.get());
            snapshot = self.snapshot();
        }
        snapshot.pick(&self.core, now, tried)
    }

    /// Publishes what time has changed.
    #[cold]
    pub(crate) fn refresh(&self, now: Instant) {
        self.change(|_, _| (lock(&self.published).next_change.is_some_and(|due| due <= now), ()));
    }

    // --- membership ---

    /// Applies all `changes` and publishes once. `Insert` of a key that is there replaces its endpoint: calls to the old one
    /// finish.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Membership<K, S>>) -> usize {
        // What the caller's iterator does, it does outside the lock.
        let changes: Vec<_> = changes.into_iter().collect();
        self.change(|members, notices| {
            let mut done = 0;
            for change in changes {
                match change {
                    Membership::Insert { key, service, weight } => {
                        let before = members.places.get(&key).copied();
                        let weight = weight.or(before.map(|place| members.list[place].endpoint.weight)).unwrap_or(1);
                        let endpoint = Endpoint::new(key.clone(), service, weight, &self.core, &self.this);
                        #[allow(unused_mut, reason = "changed with the feature `health`")]
                        let mut standing = Standing::new(self.core.config.await_first_probe);
                        #[cfg(feature = "health")]
                        if let Some(&health) = members.followed.get(&key) {
                            standing.set_health(health);
                        }
                        let member = Member {
                            endpoint: Arc::new(endpoint),
                            standing,
                            verdict: Verdict { usable: false, against: None, probe: false },
                            gone: false,
                        };
                        done += 1;
                        if let Some(place) = before {
                            members.list[place].endpoint.retire();
                            let old = std::mem::replace(&mut members.list[place], member);
                            notices.push(Notice::Gone { _endpoint: old.endpoint });
                        } else {
                            members.places.insert(key, members.list.len());
                            members.list.push(member);
                        }
                    }
                    Membership::Remove(key) => {
                        if let Some(place) = members.places.remove(&key) {
                            done += 1;
                            members.list[place].gone = true;
                            members.list[place].endpoint.retire();
                        }
                    }
                }
            }
            members.forget_the_gone(notices);
            (done != 0, done)
        })
    }

    /// Retires the endpoint: calls in flight finish, then it leaves.
    pub(crate) fn drain(&self, key: &K) -> Option<Arc<Endpoint<K, S>>> {
        let mut drained = None;
        self.change_one(key, |member, _| {
            member.standing.draining = true;
            member.endpoint.retire();
            drained = Some(member.endpoint.clone());
        });
        if let Some(endpoint) = drained.as_ref().filter(|endpoint| endpoint.is_idle()) {
            self.drained(endpoint);
        }
        drained
    }

    /// Lets a drained endpoint go, unless another has taken its key.
    pub(crate) fn drained(&self, endpoint: &Arc<Endpoint<K, S>>) {
        let same = |members: &Members<K, S>| {
            members.places.get(&endpoint.key).is_some_and(|place| members.list[*place].endpoint.id == endpoint.id)
        };
        if same(&lock(&self.members)) {
            self.apply([Membership::Remove(endpoint.key.clone())]);
        }
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
            member.standing.ejection.eject_for(Now::unread().get(), time);
            member.endpoint.set_ejected(true);
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
    pub(crate) fn eject_for_failures(&self, id: EndpointId, generation: u32, failures: u32) {
        let Some(config) = &self.core.config.ejection else { return };
        let now = Now::unread().get();
        self.change_by_id(id, |member, notices| {
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
    pub(crate) fn lift(&self, id: EndpointId, generation: u32) {
        let now = Now::unread().get();
        self.change_by_id(id, |member, _| {
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
    #[cold]
    pub(crate) fn unready(&self, id: EndpointId) {
        let now = Now::unread().get();
        let (min, max) = (self.core.config.unready_min, self.core.config.unready_max);
        self.change_by_id(id, |member, _| {
            let paused = member.standing.unready.fail(now, min, max, self.core.draw()).is_some();
            member.endpoint.set_unready(true);
            paused
        });
    }

    /// `poll_ready` succeeded after it had failed.
    #[cold]
    pub(crate) fn recovered(&self, id: EndpointId) {
        self.change_by_id(id, |member, _| {
            member.endpoint.set_unready(false);
            member.standing.unready.recover()
        });
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
    fn change_by_id(&self, id: EndpointId, act: impl FnOnce(&mut Member<K, S>, &mut Vec<Notice<K, S>>) -> bool) {
        self.change(|members, notices| {
            let member = members.list.iter_mut().find(|member| member.endpoint.id == id);
            (member.is_some_and(|member| act(member, notices)), ())
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
            answer
        };
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
        for (member, verdict) in members.list.iter_mut().zip(decision.verdicts) {
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
        let entries: Vec<_> =
            members.list.iter().filter(|member| member.verdict.usable).map(|member| member.endpoint.clone()).collect();
        let usable = entries.len();
        let probes = members.list.iter().filter(|member| member.verdict.probe).map(|member| member.endpoint.clone());
        let probes: Vec<_> = probes.collect();
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
        self.changed.notify_waiters();
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
            Notice::Gone { .. } | Notice::Replaced { .. } => return,
        };
        self.core.emitter.emit(|name| Event::Balance(BalanceEvent { name, kind }));
    }
}

// === impl Members ===

// === impl Member ===

impl<K: Key, S> Member<K, S> {
    /// Forgets all passive evidence and all loads.
    fn reset(&mut self, now: &Now) {
        self.standing.ejection = Default::default();
        self.standing.unready = Default::default();
        self.endpoint.set_unready(false);
        self.endpoint.set_ejected(false);
        self.endpoint.forget(now);
        if let Some(breaker) = &self.endpoint.breaker {
            breaker.reset();
        }
    }
}

// === impl Members ===

impl<K: Key, S> Members<K, S> {
    fn forget_the_gone(&mut self, notices: &mut Vec<Notice<K, S>>) {
        if !self.list.iter().any(|member| member.gone) {
            return;
        }
        self.list.retain(|member| {
            if member.gone {
                let endpoint = member.endpoint.clone();
                notices.push(if member.verdict.usable {
                    Notice::Eligibility(endpoint, false, "removed")
                } else {
                    Notice::Gone { _endpoint: endpoint }
                });
            }
            !member.gone
        });
        self.places =
            self.list.iter().enumerate().map(|(place, member)| (member.endpoint.key.clone(), place)).collect();
    }
}

#[allow(clippy::cast_precision_loss, reason = "pools have fewer than 2^52 endpoints")]
const fn as_level(count: usize) -> f64 {
    count as f64
}
