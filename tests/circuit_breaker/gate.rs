//! Gate mode: not ready while the breaker refuses, and no wake-up is lost.

use std::time::Duration;

use mainstay::circuit_breaker::{AdmissionMode, CircuitBreaker, CircuitBreakerHandle, OpenTime, ProbeRule};
use mainstay::{BoxError, CircuitState, DefaultClassifier, Outcome, Rejectable, Rejected};
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_test::mock;

use crate::support::*;

type Mocked = CircuitBreaker<mock::Mock<u32, u32>, DefaultClassifier>;

/// Trips on the first failure, stays open for 30 s, and admits `probes`, whose deadline is 10 s.
fn gate(probes: u32) -> Builder {
    let open_time = OpenTime::Constant(secs(30));
    consecutive(1).open_time(open_time).probes(probes).probe_deadline(secs(10)).admission(AdmissionMode::Gate)
}

struct Clones {
    breaker: CircuitBreakerHandle,
    calls: mock::Handle<u32, u32>,
    services: Vec<Spawn<Mocked>>,
}

/// Clones of one service; the breaker is open.
fn clones(builder: Builder, count: usize) -> Clones {
    let breaker = builder.build_handle().unwrap();
    let (inner, calls) = mock::pair();
    let service = breaker.layer().layer(inner);
    run(&breaker, "F");
    Clones { breaker, calls, services: (0..count).map(|_| spawn(service.clone())).collect() }
}

impl Clones {
    fn woken(&self) -> Vec<bool> {
        self.services.iter().map(|service| service.is_woken()).collect()
    }

    /// Polls all, and says which are ready.
    fn ready(&mut self) -> Vec<bool> {
        self.services.iter_mut().map(poll).map(|polled| polled.is_ready()).collect()
    }
}

fn poll(service: &mut Spawn<Mocked>) -> std::task::Poll<Result<(), BoxError>> {
    service.enter(|cx, mut service| Service::poll_ready(&mut *service, cx))
}

#[tokio::test(start_paused = true)]
async fn it_is_not_ready_until_the_open_time_is_over_and_then_wakes_everyone() {
    let mut clones = clones(gate(2), 3);
    clones.calls.allow(0);
    assert_eq!(clones.ready(), [false; 3]);
    advance(secs(30) - millis(1)).await;
    assert_eq!(clones.woken(), [false; 3]);
    advance(millis(1)).await;
    assert_eq!(clones.woken(), [true; 3]);
    assert_eq!(clones.ready(), [false; 3], "the inner service is asked now, and is not ready");
    clones.calls.allow(3);
    assert_eq!(clones.ready(), [true; 3]);
    assert_eq!(clones.breaker.state(), CircuitState::Open, "readiness takes no slot");
    assert_eq!(clones.breaker.statistics().rejected, 0, "a wait is no refusal");
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_race_for_the_slot_is_refused_by_its_call_and_waits_the_next_time() {
    let mut clones = clones(gate(1), 3);
    assert_eq!(clones.ready(), [false; 3]);
    advance(secs(30)).await;
    // Two are ready before either calls.
    assert_eq!(clones.services.iter_mut().take(2).map(poll).filter(std::task::Poll::is_ready).count(), 2);
    let probe = clones.services[0].call(1);
    let error = assert_ready_err!(task::spawn(clones.services[1].call(2)).poll());
    assert!(error.as_rejected().is_some_and(Rejected::is_circuit_open), "{error}");
    // The third finds it taken, and the second waits before it tries again.
    assert_pending!(poll(&mut clones.services[2]));
    assert_pending!(poll(&mut clones.services[1]));
    drop(probe);
    assert_eq!(clones.woken()[1..], [true; 2], "the slot was given back");
    assert_eq!(clones.ready()[1..], [true; 2]);
}

#[tokio::test(start_paused = true)]
async fn n_waiters_behind_one_slot_all_get_through_in_the_end() {
    const WAITERS: u32 = 20;
    let breaker = gate(1).probe_rule(ProbeRule::ConsecutiveSuccesses(1000)).build_handle().unwrap();
    run(&breaker, "F");
    let service = breaker.layer().layer(service_fn(|request: u32| async move {
        tokio::time::sleep(secs(1)).await;
        Ok::<_, BoxError>(request)
    }));
    let callers: Vec<_> = (0..WAITERS)
        .map(|request| {
            let mut service = service.clone();
            tokio::spawn(async move {
                loop {
                    match service.ready().await?.call(request).await {
                        // It lost the race, and waits again.
                        Err(error) if error.as_rejected().is_some() => {}
                        result => return result,
                    }
                }
            })
        })
        .collect();
    for (request, caller) in (0..WAITERS).zip(callers) {
        assert_eq!(caller.await.unwrap().unwrap(), request);
    }
    let now = breaker.statistics();
    assert_eq!((now.state, now.successes, now.probes_in_flight), (CircuitState::HalfOpen, u64::from(WAITERS), 0));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_given_back_judged_or_lost_wakes_those_who_wait() {
    let consecutive_successes = gate(1).probe_rule(ProbeRule::ConsecutiveSuccesses(3));
    let mut clones = clones(consecutive_successes, 2);
    advance(secs(30)).await;

    let probe = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false; 2]);
    drop(probe);
    assert_eq!(clones.woken(), [true; 2], "given back");

    let probe = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false; 2]);
    probe.record(Outcome::Ignored);
    assert_eq!(clones.woken(), [true; 2], "without evidence");

    let probe = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false; 2]);
    probe.record(Outcome::Success);
    assert_eq!(clones.woken(), [true; 2], "judged");

    let lost = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false; 2]);
    advance(secs(10) - millis(1)).await;
    assert_eq!(clones.woken(), [false; 2]);
    advance(millis(1)).await;
    assert_eq!(clones.woken(), [true; 2], "its deadline has passed");
    let takes_over = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false; 2], "it was taken at once: they wait for the next deadline");
    advance(secs(10)).await;
    assert_eq!(clones.woken(), [true; 2]);
    drop((lost, takes_over));

    run(&clones.breaker, "SS");
    assert_eq!((clones.breaker.state(), clones.ready()), (CircuitState::Closed, vec![true; 2]));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_reopens_it_wakes_nobody_into_a_call() {
    let mut clones = clones(gate(1), 1);
    advance(secs(30)).await;
    let probe = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false]);
    probe.record(Outcome::Transient);
    assert_eq!(clones.ready(), [false]);
    // The timer is that of the new open time now, not that of the probe's deadline.
    advance(secs(30) - millis(1)).await;
    assert_eq!(clones.woken(), [false]);
    advance(millis(1)).await;
    assert_eq!((clones.woken(), clones.ready()), (vec![true], vec![true]));
}

#[tokio::test(start_paused = true)]
async fn every_change_by_hand_wakes_all_who_wait() {
    let forced = clones(gate(1), 2);
    type Change = fn(&CircuitBreakerHandle);
    let ways: [(&str, Change); 5] = [
        ("close", CircuitBreakerHandle::close),
        ("reset", CircuitBreakerHandle::reset),
        ("disable", CircuitBreakerHandle::disable),
        ("observe", CircuitBreakerHandle::observe),
        ("open for no time", |breaker| breaker.open_for(Duration::ZERO).unwrap()),
    ];
    for (way, change) in ways {
        let mut clones = clones(gate(1), 2);
        assert_eq!(clones.ready(), [false; 2]);
        change(&clones.breaker);
        assert_eq!((clones.woken(), clones.ready()), (vec![true; 2], vec![true; 2]), "{way}");
    }
    // Forced open it has no end; no timer ends it.
    let mut clones = forced;
    clones.breaker.force_open();
    assert_eq!(clones.ready(), [false; 2]);
    advance(secs(1_000_000)).await;
    assert_eq!(clones.woken(), [false; 2]);
    clones.breaker.close();
    assert_eq!((clones.woken(), clones.ready()), (vec![true; 2], vec![true; 2]));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wait_of_a_circuit_that_is_open_already_is_heard() {
    let mut clones = clones(gate(1), 1);
    assert_eq!(clones.ready(), [false]);
    clones.breaker.open_for(secs(3)).unwrap();
    assert_eq!(clones.ready(), [false]);
    advance(secs(3)).await;
    assert_eq!((clones.woken(), clones.ready()), (vec![true], vec![true]));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_swallows_no_wake_up_and_leaves_nothing_behind() {
    let mut clones = clones(gate(1), 5);
    assert_eq!(clones.ready(), [false; 5]);
    // The first and the last of the queue, and one in the middle.
    for leaves in [4, 2, 0] {
        drop(clones.services.remove(leaves));
    }
    clones.breaker.close();
    assert_eq!((clones.woken(), clones.ready()), (vec![true; 2], vec![true; 2]));

    // Nor does one that was woken and is dropped instead of calling.
    clones.breaker.force_open();
    clones.services.iter_mut().for_each(|service| **service = service.clone());
    assert_eq!(clones.ready(), [false; 2]);
    clones.breaker.close();
    drop(clones.services.remove(0));
    assert_eq!((clones.woken(), clones.ready()), (vec![true], vec![true]));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_not_woken_by_what_does_not_concern_it() {
    let mut clones = clones(gate(1), 1);
    let straggler = {
        clones.breaker.close();
        permit(&clones.breaker)
    };
    run(&clones.breaker, "F");
    assert_eq!(clones.ready(), [false]);
    straggler.record(Outcome::Success);
    assert!(clones.breaker.try_acquire().is_err());
    let _ = (clones.breaker.statistics(), clones.breaker.admits());
    assert_eq!(clones.woken(), [false]);
}

#[tokio::test(start_paused = true)]
async fn what_was_ready_stays_so_until_its_call_which_is_refused_while_it_is_open() {
    let breaker = gate(1).build_handle().unwrap();
    let (mut service, mut calls) = mock::spawn_layer(breaker.layer());
    assert_ready_ok!(service.poll_ready::<u32>());
    run(&breaker, "F");
    assert_ready_ok!(service.poll_ready::<u32>());
    let response: Result<u32, BoxError> = assert_ready!(task::spawn(service.call(1)).poll());
    assert!(response.unwrap_err().as_rejected().is_some_and(Rejected::is_circuit_open));
    assert_pending!(task::spawn(calls.next_request()).poll());
}

#[tokio::test(start_paused = true)]
async fn without_poll_ready_it_refuses_and_calls_nothing() {
    let breaker = gate(1).build_handle().unwrap();
    let (mut service, mut calls) = mock::spawn_layer::<u32, u32, _>(breaker.layer());
    let response = assert_ready!(task::spawn(service.call(1)).poll());
    assert!(response.unwrap_err().as_rejected().is_some_and(Rejected::is_circuit_open));
    assert_pending!(task::spawn(calls.next_request()).poll());
}

#[tokio::test(start_paused = true)]
async fn in_a_state_that_flows_it_waits_for_nothing() {
    let breaker = gate(1).build_handle().unwrap();
    for state in [CircuitState::Closed, CircuitState::Disabled, CircuitState::Observing] {
        breaker.transition_to(state).unwrap();
        let (mut service, _calls) = mock::spawn_layer::<u32, u32, _>(breaker.layer());
        assert_ready_ok!(service.poll_ready());
    }
}

#[test]
fn a_refusal_in_reject_mode_needs_no_runtime_and_so_arms_no_timer() {
    let breaker = consecutive(1).build_handle().unwrap();
    run(&breaker, "F");
    let mut service = task::spawn(breaker.layer().layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) })));
    assert_ready_ok!(service.enter(|cx, mut service| service.poll_ready(cx)));
    // A gate that waits for no time needs none either.
    let breaker = gate(1).initial_state(CircuitState::ForcedOpen).build_handle().unwrap();
    let mut service = task::spawn(breaker.layer().layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) })));
    assert_pending!(service.enter(|cx, mut service| service.poll_ready(cx)));
}

/// Threads that wait and threads that take and give back the only slot: whoever waits is woken in the end.
#[test]
fn no_wake_up_is_lost_between_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
    runtime.block_on(async {
        let breaker = gate(1).probe_rule(ProbeRule::ConsecutiveSuccesses(u32::MAX)).build_handle().unwrap();
        breaker.transition_to(CircuitState::Open).unwrap();
        breaker.transition_to(CircuitState::HalfOpen).unwrap();
        let service = breaker.layer().layer(service_fn(|(): ()| async {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(())
        }));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let service = service.clone();
                tokio::spawn(async move {
                    let mut done = 0;
                    while done < 200 {
                        let mut service = service.clone();
                        let ready = service.ready().await.unwrap();
                        done += u32::from(ready.call(()).await.is_ok());
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!((breaker.statistics().successes, breaker.statistics().probes_in_flight), (1600, 0));
    });
}

#[cfg(feature = "serde")]
#[test]
fn the_mode_reads_from_a_file() {
    let config: mainstay::CircuitBreakerConfig = toml::from_str("admission = \"gate\"").unwrap();
    assert_eq!(config.admission, AdmissionMode::Gate);
}
