//! [`PoolHandle`]: what adds, removes, judges and inspects the endpoints of a pool.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tower::discover::Discover;

use super::config::PoolConfig;
use super::discover::Follow;
use super::eligibility::OutReason;
use super::endpoint::{Breaker, Endpoint, Key};
use super::registry::{Membership, Registry};
use crate::circuit_state::CircuitState;
use crate::health_status::HealthStatus;
use crate::name::Name;

/// Controls a [`Pool`](super::Pool): a cheap clone that shares the pool's endpoints.
///
/// Methods that name an endpoint answer whether there is one of that key.
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
/// use mainstay::balance::Pool;
///
/// let pool: Pool<&str, ()> = Pool::builder("app").build()?;
/// let handle = pool.handle();
/// handle.add("a", ());
/// handle.add("b", ());
/// handle.set_health(&"a", HealthStatus::Unhealthy);
/// let usable: Vec<_> = handle.endpoints().into_iter().filter(|endpoint| endpoint.usable).map(|e| e.key).collect();
/// assert_eq!(usable, ["b"]);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
pub struct PoolHandle<K, S> {
    registry: Arc<Registry<K, S>>,
}

/// One endpoint of a pool, as of one moment; see [`PoolHandle::endpoints`].
///
/// # Examples
///
/// ```
/// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
/// # pool.handle().add(8001, ());
/// for endpoint in pool.handle().endpoints() {
///     match endpoint.against {
///         None => println!("{}: {} in flight", endpoint.key, endpoint.in_flight),
///         Some(reason) => println!("{}: {reason}", endpoint.key),
///     }
/// }
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EndpointStatus<K> {
    /// Its key.
    pub key: K,
    /// Its weight.
    pub weight: u32,
    /// Whether calls go to it.
    pub usable: bool,
    /// What speaks against it. With `usable`, the pool could not do without it (too many are out, or panic mode).
    pub against: Option<OutReason>,
    /// What active probes said last.
    pub health: HealthStatus,
    /// Calls in flight, those that wait for it to become ready included.
    pub in_flight: u32,
    /// What one more call is expected to cost, in the picker's own unit: comparable within one pool.
    pub load: f64,
    /// The estimate of its latency, where [`Picker::PeakEwma`](super::Picker::PeakEwma) measures it.
    pub latency: Option<Duration>,
    /// How many calls it was picked for.
    pub picks: u64,
    /// How many of them failed.
    pub failures: u64,
    /// The state of its circuit breaker, where it has one.
    pub circuit: Option<CircuitState>,
    /// How many earlier ejections count towards the length of the next.
    pub ejections: u32,
}

/// The counts of a pool, as of one moment; see [`PoolHandle::statistics`].
///
/// `calls()` is always the sum of what they ended in; calls in flight are not among them yet.
///
/// # Examples
///
/// ```
/// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
/// assert_eq!(pool.handle().statistics().calls(), 0);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that were answered "no".
    pub refused: u64,
    /// Calls that failed, panics included.
    pub failures: u64,
    /// Calls that were answered "less" or "later".
    pub throttled: u64,
    /// Calls that failed because of what the endpoint depends on.
    pub dependency_failed: u64,
    /// Calls of which nothing can be learnt, such as those that an endpoint's own limiter refused.
    pub ignored: u64,
    /// Calls that the pool refused: no endpoint, or none ready in time.
    pub rejected: u64,
    /// Calls that were dropped before their end.
    pub abandoned: u64,
    /// Picks that replaced an earlier one of the same call: it was not ready, failed to become ready, or did not send the call.
    pub repicks: u64,
    /// Ejections, those by hand included.
    pub ejections: u64,
    /// Calls in flight.
    pub in_flight: u64,
    /// Endpoints in the pool.
    pub endpoints: usize,
    /// Endpoints that calls go to.
    pub usable: usize,
    /// Whether so few are healthy that all are used.
    pub panic: bool,
}

/// Resolves when a draining endpoint has finished its last call and has left the pool; see [`PoolHandle::drain`].
///
/// # Cancel safety
///
/// Dropped, it stops waiting; the endpoint goes on draining.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::InvalidConfig> {
/// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
/// pool.handle().add(8001, ());
/// if let Some(drained) = pool.handle().drain(&8001) {
///     drained.await;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled; the endpoint drains all the same"]
pub struct Drained<K, S> {
    endpoint: Arc<Endpoint<K, S>>,
    idle: Option<Pin<Box<OwnedNotified>>>,
}

// === impl PoolHandle ===

impl<K: Key, S> PoolHandle<K, S> {
    pub(super) const fn new(registry: Arc<Registry<K, S>>) -> Self {
        Self { registry }
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// assert_eq!(pool.handle().name().as_str(), "app");
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.registry.core.name()
    }

    /// Adds an endpoint of weight 1, or replaces the service of the endpoint that has this key.
    ///
    /// An endpoint that is there keeps its weight, everything that was learned about it, and what the operator said: it stays
    /// disabled, ejected or unhealthy. Calls to the old service finish. An endpoint that is draining has given up its key: a
    /// successor is added, of which nothing is known.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add(8001, ());
    /// assert_eq!(pool.handle().endpoints()[0].weight, 1);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add(&self, key: K, service: S) {
        self.registry.apply([Membership::Insert { key, service, weight: None }]);
    }

    /// Adds an endpoint as [`add`](Self::add) does, with this weight: twice the weight, twice the calls. An endpoint that is
    /// there gets the new weight.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroU32;
    ///
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add_weighted(8001, (), NonZeroU32::new(3).unwrap());
    /// assert_eq!(pool.handle().endpoints()[0].weight, 3);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add_weighted(&self, key: K, service: S, weight: NonZeroU32) {
        self.registry.apply([Membership::Insert { key, service, weight: Some(weight.get()) }]);
    }

    /// Adds many at once, as [`add`](Self::add) does: picks see all of them or none.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add_all((8001..8004).map(|port| (port, ())));
    /// assert_eq!(pool.handle().endpoints().len(), 3);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn add_all(&self, endpoints: impl IntoIterator<Item = (K, S)>) {
        let insert = |(key, service)| Membership::Insert { key, service, weight: None };
        self.registry.apply(endpoints.into_iter().map(insert));
    }

    /// Takes an endpoint out at once. Calls in flight go on and finish.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// assert!(!pool.handle().remove(&8001));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn remove(&self, key: &K) -> bool {
        self.registry.apply([Membership::Remove(key.clone())]) != 0
    }

    /// Sends an endpoint no more calls, for good, and removes it when those in flight have ended. The returned future resolves
    /// once it is gone. Its key is free from now on: what is added under it is another endpoint, and stays.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::InvalidConfig> {
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add(8001, ());
    /// pool.handle().drain(&8001).expect("it was just added").await;
    /// assert!(pool.handle().endpoints().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&self, key: &K) -> Option<Drained<K, S>> {
        self.registry.drain(key).map(|endpoint| Drained { endpoint, idle: None })
    }

    /// Sends an endpoint no more calls until [`enable`](Self::enable).
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add(8001, ());
    /// assert!(pool.handle().disable(&8001));
    /// assert!(!pool.handle().endpoints()[0].usable);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn disable(&self, key: &K) -> bool {
        self.registry.set_enabled(key, false)
    }

    /// Undoes [`disable`](Self::disable).
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add(8001, ());
    /// pool.handle().disable(&8001);
    /// pool.handle().enable(&8001);
    /// assert!(pool.handle().endpoints()[0].usable);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn enable(&self, key: &K) -> bool {
        self.registry.set_enabled(key, true)
    }

    /// Tells the pool what active probes say about an endpoint: whoever probes calls this on every transition, and says
    /// [`Unknown`](HealthStatus::Unknown) when it stops probing.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    ///
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// let handle = pool.handle();
    /// handle.add(8001, ());
    /// assert!(handle.set_health(&8001, HealthStatus::Healthy));
    /// assert!(!handle.set_health(&8002, HealthStatus::Healthy), "there is no such endpoint");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn set_health(&self, key: &K, health: HealthStatus) -> bool {
        self.registry.set_health(key, health)
    }

    /// Ejects an endpoint for `time`. It counts against [`max_out`](super::PoolConfig::max_out) as every ejection does, and
    /// not towards the length of later ones. Successes of an endpoint that the pool cannot do without do not lift it; only
    /// [`reset`](Self::reset) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::OutReason;
    ///
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add_all([(8001, ()), (8002, ())]);
    /// pool.handle().eject(&8001, Duration::from_secs(60));
    /// assert_eq!(pool.handle().endpoints()[0].against, Some(OutReason::Ejected));
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn eject(&self, key: &K, time: Duration) -> bool {
        self.registry.eject_by_hand(key, time)
    }

    /// Forgets what was held against an endpoint on passive evidence, and its loads. What active probes say stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add_all([(8001, ()), (8002, ())]);
    /// pool.handle().eject(&8001, Duration::from_secs(60));
    /// pool.handle().reset(&8001);
    /// assert_eq!(pool.handle().endpoints()[0].against, None);
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn reset(&self, key: &K) -> bool {
        self.registry.reset(key)
    }

    /// The settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::PoolConfig;
    ///
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// assert_eq!(pool.handle().config(), PoolConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> PoolConfig {
        self.registry.core.config.clone()
    }

    /// All endpoints with their states, in the order in which they came.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add_all([(8001, ()), (8002, ())]);
    /// let keys: Vec<u16> = pool.handle().endpoints().into_iter().map(|endpoint| endpoint.key).collect();
    /// assert_eq!(keys, [8001, 8002]);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus<K>> {
        self.registry.look(|members, _, now| {
            members
                .iter()
                .map(|member| {
                    let endpoint = &member.endpoint;
                    EndpointStatus {
                        key: endpoint.key.clone(),
                        weight: member.weight,
                        usable: member.verdict.usable,
                        against: member.verdict.against,
                        health: member.standing.health,
                        in_flight: endpoint.in_flight(),
                        load: endpoint.load(now, 1.0 / f64::from(member.weight)),
                        latency: endpoint
                            .latency(now)
                            .map(|nanos| Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX)),
                        picks: endpoint.picks(),
                        failures: endpoint.failures(),
                        circuit: endpoint.breaker.as_ref().map(Breaker::state),
                        ejections: self
                            .registry
                            .core
                            .config
                            .ejection
                            .as_ref()
                            .map_or(0, |config| member.standing.ejection.decayed(now.get(), config.decay_interval)),
                    }
                })
                .collect()
        })
    }

    /// The counts of the pool.
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// pool.handle().add(8001, ());
    /// let statistics = pool.handle().statistics();
    /// assert_eq!((statistics.endpoints, statistics.usable, statistics.calls()), (1, 1, 0));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        let core = &self.registry.core;
        let [successes, refused, failures, throttled, dependency_failed, ignored, rejected, abandoned] =
            core.calls.all();
        let (endpoints, usable, panic, in_flight) = self.registry.look(|members, panic, _| {
            let usable = members.iter().filter(|member| member.verdict.usable).count();
            let in_flight = members.iter().map(|member| u64::from(member.endpoint.in_flight())).sum();
            (members.len(), usable, panic, in_flight)
        });
        PoolStatistics {
            successes,
            refused,
            failures,
            throttled,
            dependency_failed,
            ignored,
            rejected,
            abandoned,
            repicks: core.repicks.all().iter().sum(),
            ejections: core.ejections.all().iter().sum(),
            in_flight,
            endpoints,
            usable,
            panic,
        }
    }

    /// Lets the pool follow a stream of changes, for as long as the answer is polled; see [`Follow`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::Change;
    /// use tokio_stream::iter;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
    /// # let pool: mainstay::balance::Pool<u16, ()> = mainstay::balance::Pool::builder("app").build()?;
    /// let changes = iter([Ok::<_, std::convert::Infallible>(Change::Insert(8001, ())), Ok(Change::Remove(8001))]);
    /// pool.handle().follow(changes).await?;
    /// assert!(pool.handle().endpoints().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow<D>(&self, discover: D) -> Follow<D>
    where
        D: Discover<Key = K, Service = S>,
    {
        Follow::new(&self.registry, discover)
    }

    /// Lets the pool follow what a monitor finds out about targets of the same keys, for as long as the answer is polled; see
    /// [`FollowHealth`](super::FollowHealth).
    ///
    /// # Examples
    ///
    /// See [`FollowHealth`](super::FollowHealth).
    #[cfg(feature = "health")]
    pub fn follow_health(&self, changes: crate::health::Subscription<K>) -> super::FollowHealth<K, S>
    where
        K: fmt::Debug,
    {
        super::FollowHealth::new(&self.registry, changes)
    }
}

impl<K, S> Clone for PoolHandle<K, S> {
    fn clone(&self) -> Self {
        Self { registry: self.registry.clone() }
    }
}

impl<K, S> fmt::Debug for PoolHandle<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolHandle").field("name", self.registry.core.name()).finish_non_exhaustive()
    }
}

// === impl PoolStatistics ===

impl PoolStatistics {
    /// Calls that have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::balance::PoolStatistics::default().calls(), 0);
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.successes
            + self.refused
            + self.failures
            + self.throttled
            + self.dependency_failed
            + self.ignored
            + self.rejected
            + self.abandoned
    }
}

// === impl Drained ===

impl<K, S> Future for Drained<K, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            // Listening starts before looking, so that nothing is missed in between.
            let idle = this.idle.get_or_insert_with(|| {
                let mut idle = Box::pin(this.endpoint.idle.clone().notified_owned());
                idle.as_mut().enable();
                idle
            });
            if this.endpoint.is_idle() && this.endpoint.has_left() {
                return Poll::Ready(());
            }
            ready!(idle.as_mut().poll(cx));
            this.idle = None;
        }
    }
}

impl<K, S> fmt::Debug for Drained<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained").field("endpoint", &self.endpoint.label).finish_non_exhaustive()
    }
}
