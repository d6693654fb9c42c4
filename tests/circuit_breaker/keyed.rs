//! A breaker for each key: independent, and never more than there may be.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use allocation_counter::measure;
use mainstay::circuit_breaker::{
    BreakerKey, CircuitBreakerLayer, KeyedCircuitBreaker, KeyedCircuitBreakerBuilder, KeyedCircuitBreakerConfig,
    KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer, OpenTime, Opening, OwnedKey, TripStatistics,
};
use mainstay::telemetry::Event;
use mainstay::{BoxError, CircuitState, DefaultClassifier, Error, Outcome, Rejectable, Rejected};
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_test::mock;

use crate::support::*;

use CircuitState::{Closed, Disabled, ForcedOpen, HalfOpen, Open};

type Key = fn(&u32) -> Option<u32>;
type ByNumber = OwnedKey<Key, u32>;
type Bounded = KeyedCircuitBreakerBuilder<u32, ByNumber, DefaultClassifier>;

/// The number is the key; zero is none.
fn number(request: &u32) -> Option<u32> {
    (*request > 0).then_some(*request)
}

/// Trips on the first failure, for 30 s; idle after 60 s.
fn at_most(keys: usize) -> Bounded {
    let builder = consecutive(1).open_time(OpenTime::Constant(secs(30))).probes(1);
    builder.keyed(number as Key).max_keys(keys).idle_after(secs(60))
}

/// Fails when it is told to.
#[derive(Clone)]
struct Fails(bool);

impl Service<u32> for Fails {
    type Response = u32;
    type Error = Error<&'static str>;
    type Future = std::future::Ready<Result<u32, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        std::future::ready(if self.0 { Err(Error::Service("down")) } else { Ok(request) })
    }
}

struct Keyed {
    service: KeyedCircuitBreaker<Fails, u32, ByNumber, DefaultClassifier>,
    handle: KeyedCircuitBreakerHandle<u32>,
}

fn keyed(builder: Bounded) -> Keyed {
    let layer = builder.build().unwrap();
    Keyed { service: layer.layer(Fails(false)), handle: layer.handle() }
}

impl Keyed {
    fn call(&mut self, key: u32) -> Result<u32, Error<&'static str>> {
        assert_ready_ok!(task::spawn(self.service.ready()).poll());
        assert_ready!(task::spawn(self.service.call(key)).poll())
    }

    /// Whether the call was sent.
    fn is_sent(&mut self, key: u32) -> bool {
        self.call(key).err().is_none_or(|error| error.as_rejected().is_none())
    }

    fn fail(&mut self, key: u32) {
        self.service.get_mut().0 = true;
        assert!(self.call(key).is_err());
        self.service.get_mut().0 = false;
    }

    #[track_caller]
    fn state(&self, key: u32) -> CircuitState {
        self.handle.get(&key).expect("it has a breaker").state()
    }

    fn known(&self) -> Vec<u32> {
        let mut known: Vec<_> = self.handle.breakers().into_iter().map(|(key, _)| key).collect();
        known.sort_unstable();
        known
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_breaker_of_its_own_and_calls_without_one_share_another() {
    let mut keyed = keyed(at_most(10));
    keyed.fail(1);
    assert_eq!((keyed.is_sent(1), keyed.is_sent(2), keyed.is_sent(0)), (false, true, true));
    assert_eq!((keyed.state(1), keyed.state(2)), (Open, Closed));
    keyed.fail(0);
    assert_eq!((keyed.is_sent(0), keyed.is_sent(2)), (false, true));
    assert_eq!((keyed.handle.shared().state(), keyed.known()), (Open, vec![1, 2]));

    advance(secs(30)).await;
    assert!(keyed.is_sent(1), "its probe");
    assert_eq!(keyed.state(1), Closed);
    let now = keyed.handle.statistics();
    assert_eq!((now.keys, now.created, now.overflowed), (2, 2, 0));
    assert_eq!((now.calls(), now.failures, now.rejected, now.successes), (8, 2, 2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_carries_the_wait_and_the_cause_of_its_key() {
    let mut keyed = keyed(at_most(10));
    keyed.fail(1);
    advance(secs(10)).await;
    let error = keyed.call(1).unwrap_err();
    let Some(Rejected::CircuitOpen(open)) = error.as_rejected() else { panic!("{error:?}") };
    assert_eq!((&**open.name(), open.state()), ("test", Open));
    assert_eq!((open.retry_after(), open.cause()), (Some(secs(20)), Some(Outcome::Transient)));
}

#[tokio::test(start_paused = true)]
async fn a_million_keys_leave_at_most_as_many_breakers_as_there_may_be() {
    const KEYS: u32 = 1_000_000;
    let mut keyed = keyed(at_most(100));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for key in 1..=KEYS {
        assert!(Service::poll_ready(&mut keyed.service, &mut cx).is_ready());
        let call = std::pin::pin!(keyed.service.call(key));
        assert!(std::future::Future::poll(call, &mut cx).is_ready());
    }
    let now = keyed.handle.statistics();
    assert_eq!((now.keys, now.created, now.evicted), (100, 100, 0), "none was idle");
    assert_eq!((now.overflowed, now.successes), (u64::from(KEYS) - 100, u64::from(KEYS)));
    assert_eq!(keyed.handle.shared().statistics().successes, u64::from(KEYS) - 100);
}

#[tokio::test(start_paused = true)]
async fn new_keys_take_the_places_of_idle_ones() {
    let mut keyed = keyed(at_most(10));
    for round in 0..20 {
        for key in 1..=10 {
            assert!(keyed.is_sent(100 * round + key));
            assert!(keyed.handle.keys() <= 10);
        }
        advance(secs(60)).await;
    }
    let now = keyed.handle.statistics();
    assert_eq!((now.overflowed, now.created, now.successes), (0, 200, 200));
    assert_eq!((now.keys as u64 + now.evicted, now.removed), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_is_counted_from_when_a_key_was_last_seen_in_use_and_lasts_at_least_the_time_that_is_set() {
    let mut keyed = keyed(at_most(10));
    assert!(keyed.is_sent(1));
    advance(secs(59)).await;
    assert!(keyed.is_sent(1));
    advance(secs(30)).await;
    assert_eq!(keyed.handle.evict_idle(), 0, "it was used: the time begins now");
    advance(secs(60) - millis(1)).await;
    assert_eq!(keyed.handle.evict_idle(), 0);
    advance(millis(1)).await;
    assert_eq!((keyed.handle.evict_idle(), keyed.handle.keys()), (1, 0));
    assert_eq!(keyed.handle.statistics().evicted, 1);
}

#[tokio::test(start_paused = true)]
async fn to_look_at_a_breaker_is_no_use_of_it() {
    let mut keyed = keyed(at_most(10));
    assert!(keyed.is_sent(1));
    assert_eq!(keyed.handle.evict_idle(), 0);
    for _ in 0..6 {
        advance(secs(10)).await;
        assert!(keyed.handle.get(&1).is_some() && keyed.handle.breakers().len() == 1);
    }
    assert_eq!(keyed.handle.evict_idle(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_would_miss_is_never_evicted() {
    let mut keyed = keyed(at_most(8));
    // Open for longer, half-open with a probe that is out, forced, disabled by hand.
    keyed.fail(1);
    keyed.handle.get(&1).unwrap().open_for(secs(36_000)).unwrap();
    keyed.fail(2);
    keyed.handle.get(&2).unwrap().transition_to(HalfOpen).unwrap();
    let probe = permit(&keyed.handle.get(&2).unwrap());
    for key in 3..=8 {
        assert!(keyed.is_sent(key));
    }
    keyed.handle.get(&3).unwrap().force_open();
    keyed.handle.get(&4).unwrap().disable();
    // A call that runs, a handle that is held, a subscription.
    let running = permit(&keyed.handle.get(&5).unwrap());
    let held = keyed.handle.get(&6).unwrap();
    let watched = keyed.handle.get(&7).unwrap().subscribe();
    for _ in 0..3 {
        advance(secs(3600)).await;
        keyed.handle.evict_idle();
    }
    assert_eq!(keyed.known(), [1, 2, 3, 4, 5, 6, 7], "but 8 may go");
    assert_eq!(
        [1, 2, 3, 4].map(|key| keyed.state(key)),
        [Open, HalfOpen, ForcedOpen, Disabled],
        "evicting changes no state"
    );
    assert!(!keyed.is_sent(3));

    // The time begins when they are let go.
    running.record(Outcome::Success);
    probe.record(Outcome::Success);
    drop((held, watched));
    (1..=4).for_each(|key| keyed.handle.get(&key).unwrap().reset());
    advance(secs(60) - millis(1)).await;
    assert_eq!(keyed.handle.evict_idle(), 0);
    advance(secs(60)).await;
    assert_eq!((keyed.handle.evict_idle(), keyed.handle.keys()), (7, 0));
}

#[tokio::test(start_paused = true)]
async fn breakers_that_begin_in_another_state_are_idle_in_that() {
    let mut keyed = keyed({
        let builder = consecutive(1).initial_state(CircuitState::Observing);
        builder.keyed(number as Key).max_keys(2).idle_after(secs(60))
    });
    assert!(keyed.is_sent(1));
    keyed.fail(1);
    assert_eq!(keyed.handle.evict_idle(), 0);
    advance(secs(60)).await;
    assert_eq!(keyed.handle.evict_idle(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_room_is_served_by_the_shared_breaker_and_told_of_once_until_there_was_room() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let builder = consecutive(1).listener(move |event: &Event<'_>| {
        log.lock().unwrap().push((event.kind(), event.to_string()));
    });
    let mut keyed = keyed(builder.keyed(number as Key).max_keys(2).idle_after(secs(60)));
    for key in [1, 2, 3, 4, 3, 4] {
        assert!(keyed.is_sent(key));
    }
    let now = keyed.handle.statistics();
    assert_eq!((now.keys, now.overflowed, keyed.handle.get(&3).is_none()), (2, 4, true));
    assert_eq!(keyed.handle.shared().statistics().successes, 4);
    assert!(keyed.handle.get_or_create(5).is_none());

    keyed.fail(3);
    assert!(!keyed.is_sent(4), "they share their fate");
    keyed.handle.shared().reset();
    // One look finds them in use, the one after the time lets them go.
    advance(secs(60)).await;
    assert!(keyed.is_sent(3));
    assert!(keyed.handle.get(&3).is_some(), "there is room");
    for key in [4, 5, 6] {
        assert!(keyed.is_sent(key));
    }
    let exhausted = "has no room beyond its 2 keys: further ones share one breaker";
    let told: Vec<_> = told.lock().unwrap().iter().filter(|it| it.0 == "keys_exhausted").cloned().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|it| it.1.contains(exhausted)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_key_function_unwinds_and_leaves_nothing_behind() {
    let layer = consecutive(1)
        .keyed(|request: &u32| {
            assert!(*request != 13, "a key function of the test");
            Some(*request)
        })
        .build()
        .unwrap();
    let mut service = layer.layer(Fails(false));
    assert_ready_ok!(task::spawn(service.ready()).poll());
    assert!(catch_unwind(AssertUnwindSafe(|| service.call(13))).is_err());
    // It is as ready as it was.
    assert_ready_ok!(task::spawn(service.call(1)).poll());
    let now = layer.handle().statistics();
    assert_eq!((now.keys, now.calls(), now.successes), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_service_is_a_failure_of_its_key() {
    let layer = at_most(10).build().unwrap();
    let mut service = layer.layer(service_fn(|key: u32| async move {
        assert!(key != 1, "a service of the test");
        Ok::<_, BoxError>(key)
    }));
    assert_ready_ok!(task::spawn(service.ready()).poll());
    let mut future = task::spawn(service.call(1));
    assert!(catch_unwind(AssertUnwindSafe(|| future.poll().is_ready())).is_err());
    drop(future);
    let now = layer.handle().statistics();
    assert_eq!((now.failures, now.abandoned, layer.handle().get(&1).unwrap().state()), (1, 0, Open));
}

#[tokio::test(start_paused = true)]
async fn an_unready_service_is_never_called() {
    let (mut service, mut calls) = mock::spawn_layer::<u32, u32, _>(at_most(10).build().unwrap());
    assert!(assert_ready!(task::spawn(service.call(1)).poll()).is_err());
    calls.allow(0);
    assert_pending!(service.poll_ready());
    assert!(assert_ready!(task::spawn(service.call(1)).poll()).is_err());
    assert_pending!(task::spawn(calls.next_request()).poll());
    let now = service.get_ref().handle().statistics();
    assert_eq!((now.ignored, now.rejected), (2, 0), "closed circuits have rejected nothing");
}

#[tokio::test(start_paused = true)]
async fn a_known_key_is_looked_up_without_an_allocation_though_it_is_a_string() {
    struct Request(&'static str);
    let layer = consecutive(1).keyed_ref(|request: &Request| Some(request.0)).max_keys(2).build().unwrap();
    let mut service = layer.layer(service_fn(|_: Request| std::future::ready(Ok::<_, Error<&'static str>>(()))));
    let mut once = |host| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = std::pin::pin!(service.call(Request(host)));
        assert!(std::future::Future::poll(future.as_mut(), &mut cx).is_ready());
    };
    // The third has no room.
    let hosts = ["db-1.example", "db-2.example", "db-3.example"];
    hosts.iter().for_each(|host| once(host));
    let measured = measure(|| (0..300).for_each(|call| once(hosts[call % 3])));
    assert_eq!(measured.count_total, 0);
    assert!(layer.handle().get("db-1.example").is_some());
    let handle: KeyedCircuitBreakerHandle<String> = layer.handle();
    assert_eq!((handle.keys(), handle.statistics().overflowed), (2, 101));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_of_a_key_is_small_and_goes_without_a_trace() {
    let layer = CircuitBreakerLayer::builder("test").keyed(number as Key).max_keys(1000).idle_after(secs(60)).build();
    let handle = layer.unwrap().handle();
    let grown = measure(|| {
        for key in 1..=1000 {
            handle.get_or_create(key).unwrap().try_acquire().unwrap().record(Outcome::Success);
        }
    });
    let each = grown.bytes_current / 1000;
    assert!(each <= 3_072, "{each} bytes a key");
    handle.evict_idle();
    advance(secs(60)).await;
    let gone = measure(|| assert_eq!(handle.evict_idle(), 1000));
    // The tables keep their room.
    assert!(-gone.bytes_current >= grown.bytes_current * 9 / 10, "{} of {}", gone.bytes_current, grown.bytes_current);
    let now = handle.statistics();
    assert_eq!((now.keys, now.successes), (0, 1000), "what they counted stays in the sum");
}

/// As bad as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Collides(u32);

impl Hash for Collides {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0_u8.hash(state);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_hash_are_told_apart_and_evicted_one_by_one() {
    let layer =
        consecutive(1).keyed(|key: &u32| Some(Collides(*key))).max_keys(5).idle_after(secs(60)).build().unwrap();
    let handle = layer.handle();
    for key in 1..=5 {
        let breaker = handle.get_or_create(Collides(key)).unwrap();
        if key % 2 == 0 {
            breaker.force_open();
        }
    }
    let forced = |key| handle.get(&Collides(key)).map(|it| it.state() == ForcedOpen);
    assert_eq!([1, 2, 3, 4, 5].map(forced), [1, 2, 3, 4, 5].map(|key| Some(key % 2 == 0)));
    assert!(handle.remove(&Collides(2)).is_some_and(|it| it.state() == ForcedOpen));
    assert!(handle.remove(&Collides(2)).is_none());
    handle.evict_idle();
    advance(secs(60)).await;
    assert_eq!(handle.evict_idle(), 3);
    assert_eq!([1, 2, 3, 4, 5].map(forced), [None, None, None, Some(true), None]);
    assert!(handle.get_or_create(Collides(1)).is_some_and(|it| it.state() == Closed));
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_begins_anew_and_its_running_calls_end_as_they_would() {
    let mut keyed = keyed(at_most(1));
    keyed.fail(1);
    assert!(!keyed.is_sent(1));
    let old = keyed.handle.remove(&1).unwrap();
    old.reset();
    let running = permit(&old);
    assert!(keyed.is_sent(1));
    running.record(Outcome::Transient);
    assert_eq!((old.state(), keyed.state(1)), (Open, Closed));
    let now = keyed.handle.statistics();
    assert_eq!((now.removed, now.created, now.keys, now.failures), (1, 2, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_the_key_and_one_that_panics_keeps_no_other_from_it() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (log, plain) = (told.clone(), Arc::new(Mutex::new(0)));
    let count = plain.clone();
    let builder = consecutive(1)
        .on_transition(|_| panic!("an observer of the test"))
        .on_transition(move |_| *count.lock().unwrap() += 1)
        .keyed(number as Key)
        .on_transition(|_, _| panic!("an observer of the test"))
        .on_transition(move |key, change| log.lock().unwrap().push((key.copied(), change.to)));
    let mut keyed = keyed(builder);
    [7, 0, 8].iter().for_each(|&key| keyed.fail(key));
    assert_eq!(*told.lock().unwrap(), [(Some(7), Open), (None, Open), (Some(8), Open)]);
    assert_eq!(*plain.lock().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn rules_of_ones_own_hold_for_every_key() {
    let builder = builder()
        .failure_rate(None)
        .trip(|seen: &TripStatistics, _: Outcome| seen.failures >= 2)
        .open_time_with(|opening: &Opening| secs(u64::from(opening.consecutive_opens)));
    let mut keyed = keyed(builder.keyed(number as Key));
    for key in [1, 2] {
        keyed.fail(key);
        assert_eq!(keyed.state(key), Closed);
        keyed.fail(key);
        let breaker = keyed.handle.get(&key).unwrap();
        assert_eq!((breaker.state(), breaker.statistics().retry_after), (Open, Some(secs(1))));
    }
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_their_breakers_and_clones_do_too() {
    let layer = at_most(10).build().unwrap();
    let mut one = Keyed { service: layer.layer(Fails(false)), handle: layer.handle() };
    let mut other = Keyed { service: layer.clone().layer(Fails(false)), handle: one.handle.clone() };
    one.fail(1);
    assert!(!other.is_sent(1));
    let mut clone = Keyed { service: one.service.clone(), handle: layer.handle() };
    assert!(!clone.is_sent(1) && clone.is_sent(2));
}

#[test]
fn many_threads_leave_no_key_twice_and_no_call_uncounted() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 5_000;
    let layer = CircuitBreakerLayer::builder("test").keyed(number as Key).max_keys(8).build().unwrap();
    let handle = layer.handle();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (handle, layer) = (layer.handle(), layer.clone());
            scope.spawn(move || {
                let mut keyed = Keyed { service: layer.layer(Fails(false)), handle };
                for call in 0..CALLS {
                    // More keys than there is room for; some come and go by hand.
                    let key = u32::try_from(call * (thread + 1) % 13).unwrap();
                    match call % 7 {
                        0 => drop(permit(&keyed.handle.shared())),
                        1 => drop(keyed.handle.remove(&key)),
                        _ => assert!(keyed.is_sent(key)),
                    }
                    assert!(keyed.handle.keys() <= 8);
                }
            });
        }
    });
    let now = handle.statistics();
    let sent = (0..CALLS).filter(|call| call % 7 > 1).count() as u64 * THREADS;
    let dropped = (0..CALLS).filter(|call| call % 7 == 0).count() as u64 * THREADS;
    assert_eq!((now.successes, now.abandoned, now.calls()), (sent, dropped, sent + dropped));
    assert_eq!(now.created, now.keys as u64 + now.evicted + now.removed);
    let mut keys: Vec<_> = handle.breakers().into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), now.keys);
    assert!(keys.iter().all(|key| handle.get(key).is_some()));
}

#[cfg(feature = "metrics")]
#[test]
fn counts_add_up_under_the_layers_name_and_no_key_is_a_label() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Dropped, it would leave the gauge.
    let _keyed = metrics::with_local_recorder(&recorder, || {
        let mut keyed = keyed(consecutive(1).keyed(number as Key).max_keys(2));
        for key in [1, 2, 3, 0] {
            assert!(keyed.is_sent(key));
        }
        keyed.fail(1);
        keyed.handle.remove(&2);
        assert!(keyed.is_sent(4));
        keyed
    });
    let seen: Vec<(String, DebugValue)> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            (format!("{} {}", key.key().name(), labels.join(" ")), value)
        })
        .collect();
    let value = |wanted: &str| {
        let mut of = seen.iter().filter(|(key, _)| key == wanted);
        let value = of.next().map(|(_, value)| format!("{value:?}"));
        assert!(of.next().is_none(), "{wanted} is there once");
        value
    };
    let counter = |count| Some(format!("{:?}", DebugValue::Counter(count)));
    assert_eq!(value("mainstay_circuit_breaker_calls_total test success"), counter(5));
    assert_eq!(value("mainstay_circuit_breaker_calls_total test failure"), counter(1));
    assert_eq!(value("mainstay_circuit_breaker_transitions_total test open"), counter(1));
    assert_eq!(value("mainstay_circuit_breaker_key_events_total test created"), counter(3));
    assert_eq!(value("mainstay_circuit_breaker_key_events_total test removed"), counter(1));
    assert_eq!(value("mainstay_circuit_breaker_key_events_total test overflowed"), counter(1));
    assert_eq!(value("mainstay_circuit_breaker_keys test"), Some(format!("{:?}", DebugValue::Gauge(2.0.into()))));
    assert!(
        !seen.iter().any(|(key, _)| key.starts_with("mainstay_circuit_breaker_state")),
        "the state of a key is not published"
    );
}

#[cfg(feature = "serde")]
#[test]
fn settings_read_from_a_file() {
    let text = "max_keys = 50\nidle_after = \"2min\"\n[breaker]\nconsecutive_failures = 3\n";
    let config: KeyedCircuitBreakerConfig = toml::from_str(text).unwrap();
    assert_eq!((config.max_keys, config.idle_after, config.breaker.consecutive_failures), (50, secs(120), Some(3)));
    assert!(toml::from_str::<KeyedCircuitBreakerConfig>("max_key = 50").is_err());
}

#[test]
fn handles_services_and_layers_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    fn key<K: BreakerKey>() {}
    key::<String>();
    check::<KeyedCircuitBreakerHandle<String>>();
    check::<KeyedCircuitBreakerLayer<u32, ByNumber>>();
    check::<KeyedCircuitBreaker<Fails, u32, ByNumber, DefaultClassifier>>();
}
