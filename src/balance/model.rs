//! Every order in which calls, endings and changes of a pool can come; see `crate::cores::sync`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use super::config::{EjectionConfig, Picker, PoolConfig};
use super::core::{Core, Now};
use super::endpoint::{Endpoint, Flight};
use super::handle::PoolHandle;
use super::registry::{Membership, Registry};
use super::snapshot::Tried;
use crate::circuit_breaker::{CircuitBreakerConfig, OpenTime};
use crate::circuit_state::CircuitState;
use crate::cores::sync::atomic::{AtomicBool, Ordering};
use crate::cores::sync::model::{join, spawn, with_interruptions};
use crate::outcome::Outcome;
use crate::telemetry::Emitter;

type Pool = Arc<Registry<u8, ()>>;

/// A pool with these endpoints, which reads no clock and draws the same in every order.
fn pool(config: PoolConfig, keys: impl IntoIterator<Item = u8>) -> Pool {
    let config = PoolConfig { picker: Picker::InFlight, seed: Some(1), ..config };
    let registry = Registry::new(Core::new(config, Emitter::new(&"model".into(), None)));
    registry.apply(keys.into_iter().map(insert));
    registry
}

fn insert(key: u8) -> Membership<u8, ()> {
    Membership::Insert { key, service: (), weight: None }
}

fn quiet() -> PoolConfig {
    PoolConfig { ejection: None, ..PoolConfig::default() }
}

fn only(registry: &Pool) -> Arc<Endpoint<u8, ()>> {
    registry.look(|members, _, _| Arc::clone(&members[0].endpoint))
}

fn members(registry: &Pool) -> usize {
    registry.look(|members, _, _| members.len())
}

#[test]
fn a_drained_endpoint_leaves_with_its_last_call_and_takes_none_after() {
    with_interruptions(2, || {
        let registry = pool(quiet(), [1]);
        let endpoint = only(&registry);
        let gone = Arc::new(AtomicBool::new(false));
        let callers = [(); 2].map(|()| {
            let (endpoint, gone) = (Arc::clone(&endpoint), Arc::clone(&gone));
            spawn(move || {
                if let Some(mut flight) = Flight::begin(&endpoint, &Now::unread()) {
                    assert!(!gone.load(Ordering::Acquire), "begun after it was idle for good");
                    flight.finish(Outcome::Success);
                }
            })
        });
        registry.drain(&1);
        if endpoint.is_idle() {
            gone.store(true, Ordering::Release);
        }
        callers.into_iter().for_each(join);
        assert_eq!((endpoint.in_flight(), members(&registry)), (0, 0));
    });
}

/// Neither the end of the drain nor the last call, in whichever order they come, takes out what has the key by then.
#[test]
fn a_drained_endpoint_is_gone_when_the_wait_for_it_is_over_and_its_successor_stays() {
    with_interruptions(3, || {
        let registry = pool(quiet(), [1]);
        let endpoint = only(&registry);
        let mut flight = Flight::begin(&endpoint, &Now::unread()).expect("it takes calls");
        let caller = spawn(move || flight.finish(Outcome::Success));
        let mut drained = Box::pin(PoolHandle::new(Arc::clone(&registry)).drain(&1).expect("it is there"));
        if drained.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            assert_eq!(members(&registry), 0, "the wait is over, and it is still there");
        }
        registry.apply([insert(1)]);
        join(caller);
        assert!(endpoint.is_idle() && endpoint.has_left());
        assert_eq!(members(&registry), 1, "the successor");
        assert!(registry.look(|members, _, _| members[0].endpoint.id != endpoint.id));
    });
}

/// A service that is put in the place of another, however often, turns no call away.
#[test]
fn a_pick_finds_an_endpoint_while_its_service_is_replaced() {
    with_interruptions(2, || {
        let registry = pool(quiet(), [1]);
        let changer = {
            let registry = Arc::clone(&registry);
            spawn(move || {
                registry.apply([insert(1)]);
                registry.apply([insert(2)]);
                registry.drain(&1);
            })
        };
        for _ in 0..2 {
            assert!(registry.pick(&Now::unread(), &Tried::default()).is_some());
        }
        join(changer);
        assert_eq!(members(&registry), 1);
    });
}

#[test]
fn each_call_is_in_flight_from_its_pick_to_its_end_however_it_ends() {
    with_interruptions(2, || {
        let registry = pool(quiet(), [1]);
        let endpoint = only(&registry);
        let callers = [Some(Outcome::Success), Some(Outcome::Transient), None].map(|outcome| {
            let endpoint = Arc::clone(&endpoint);
            spawn(move || {
                let mut flight = Flight::begin(&endpoint, &Now::unread()).expect("it takes calls");
                assert!((1..=3).contains(&endpoint.in_flight()));
                if let Some(outcome) = outcome {
                    flight.finish(outcome);
                }
            })
        });
        callers.into_iter().for_each(join);
        let core = &registry.core;
        assert_eq!((endpoint.in_flight(), endpoint.picks(), endpoint.failures()), (0, 3, 1));
        assert_eq!(core.calls.all(), [1, 0, 1, 0, 0, 0, 0, 1]);
    });
}

#[test]
fn failures_in_a_row_eject_once_however_they_come() {
    // As many as it takes, and one more.
    for calls in [[1, 1], [1, 2]] {
        with_interruptions(2, move || {
            let ejection = EjectionConfig { consecutive_failures: 2, ..EjectionConfig::default() };
            let registry = pool(PoolConfig { ejection: Some(ejection), ..PoolConfig::default() }, [1, 2]);
            let endpoint = only(&registry);
            let callers = calls.map(|calls| {
                let endpoint = Arc::clone(&endpoint);
                spawn(move || {
                    for _ in 0..calls {
                        let mut flight = Flight::begin(&endpoint, &Now::unread()).expect("it takes calls");
                        flight.finish(Outcome::Transient);
                    }
                })
            });
            callers.into_iter().for_each(join);
            assert_eq!(registry.core.ejections.all(), [1, 0]);
            assert_eq!(registry.look(|members, _, _| [0, 1].map(|at| members[at].verdict.usable)), [false, true]);
        });
    }
}

/// What began before the ejection says nothing about what came back.
#[test]
fn a_straggler_lifts_no_ejection() {
    with_interruptions(3, || {
        let ejection = EjectionConfig { consecutive_failures: 1, ..EjectionConfig::default() };
        let registry = pool(PoolConfig { ejection: Some(ejection), ..PoolConfig::default() }, [1, 2]);
        let endpoint = only(&registry);
        let [mut flight, mut failing] =
            [(); 2].map(|()| Flight::begin(&endpoint, &Now::unread()).expect("it takes calls"));
        let straggler = spawn(move || flight.finish(Outcome::Success));
        failing.finish(Outcome::Transient);
        join(straggler);
        assert!(!registry.look(|members, _, _| members[0].verdict.usable));
    });
}

/// Nor does it eject what has been reset since, whatever it saw before.
#[test]
fn a_straggler_ejects_nothing() {
    with_interruptions(3, || {
        let ejection = EjectionConfig { consecutive_failures: 1, ..EjectionConfig::default() };
        let registry = pool(PoolConfig { ejection: Some(ejection), ..PoolConfig::default() }, [1, 2]);
        let endpoint = only(&registry);
        let mut flight = Flight::begin(&endpoint, &Now::unread()).expect("it takes calls");
        let straggler = spawn(move || flight.finish(Outcome::Transient));
        registry.reset(&1);
        join(straggler);
        assert!(registry.look(|members, _, _| members[0].verdict.usable));
        // And it is ejected all the same when it goes on failing.
        let mut flight = Flight::begin(&endpoint, &Now::unread()).expect("it takes calls");
        flight.finish(Outcome::Transient);
        assert!(!registry.look(|members, _, _| members[0].verdict.usable));
    });
}

#[test]
fn an_open_breaker_gives_its_probe_slot_to_one_call_at_a_time() {
    with_interruptions(2, || {
        let breaker = CircuitBreakerConfig {
            initial_state: CircuitState::Open,
            open_time: OpenTime::Constant(Duration::ZERO),
            consecutive_failures: Some(1),
            failure_rate: None,
            probes: 1,
            ..CircuitBreakerConfig::default()
        };
        let registry = pool(PoolConfig { circuit_breaker: Some(breaker), ..quiet() }, [1, 2]);
        let endpoint = only(&registry);
        let (running, probed) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicU32::new(0)));
        let callers = [(); 2].map(|()| {
            let (endpoint, running, probed) = (Arc::clone(&endpoint), Arc::clone(&running), Arc::clone(&probed));
            spawn(move || {
                if let Some(flight) = Flight::begin(&endpoint, &Now::unread()) {
                    assert_eq!(running.fetch_add(1, Relaxed), 0, "one at a time");
                    probed.fetch_add(1, Relaxed);
                    endpoint.picks();
                    running.fetch_sub(1, Relaxed);
                    // Nothing is learnt, and the slot is free again.
                    flight.release();
                }
            })
        });
        callers.into_iter().for_each(join);
        assert!((1..=2).contains(&probed.load(Relaxed)));
        assert_eq!(endpoint.in_flight(), 0);
        assert!(Flight::begin(&endpoint, &Now::unread()).is_some(), "the slot came back");
    });
}

#[test]
fn whoever_sees_a_version_gets_a_snapshot_at_least_as_new() {
    with_interruptions(3, || {
        let registry = pool(quiet(), []);
        let writer = {
            let registry = Arc::clone(&registry);
            spawn(move || {
                registry.apply([insert(1)]);
                registry.apply([insert(2)]);
            })
        };
        for _ in 0..2 {
            let before = registry.version();
            let snapshot = registry.snapshot();
            assert!(snapshot.len() as u64 >= before, "{} endpoints in version {before}", snapshot.len());
        }
        join(writer);
        assert_eq!((registry.version(), registry.snapshot().len()), (2, 2));
    });
}

#[test]
fn a_pick_finds_an_endpoint_as_long_as_there_is_one() {
    with_interruptions(2, || {
        let registry = pool(quiet(), [1]);
        // Without it, a pick that is turned away would end the drain, and wait for the change at its lock.
        let busy = Flight::begin(&only(&registry), &Now::unread());
        let changer = {
            let registry = Arc::clone(&registry);
            // At every moment one of the two is in the pool, and at none both: only a newer snapshot leads to the other.
            spawn(move || {
                registry.apply([Membership::Remove(1), insert(2)]);
            })
        };
        let picked = registry.pick(&Now::unread(), &Tried::default());
        assert!(picked.is_some());
        drop((picked, busy));
        join(changer);
        assert_eq!((members(&registry), registry.core.calls.get(7)), (1, 2));
    });
}
