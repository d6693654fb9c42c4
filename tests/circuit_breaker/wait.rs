//! Waiting for the circuit: in order, within bounds, and no wake-up is lost.

use std::task::Poll;
use std::time::Duration;

use mainstay::circuit_breaker::{AdmissionMode, CircuitBreaker, CircuitBreakerHandle, OpenTime, ProbeRule, Ramp};
use mainstay::{BoxError, CircuitState, DefaultClassifier, Outcome, Rejectable, Rejected};
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_test::mock;

use crate::support::*;

type Mocked = CircuitBreaker<mock::Mock<u32, u32>, DefaultClassifier>;

const WAIT: AdmissionMode = AdmissionMode::Wait { max: Duration::from_secs(100), queue: 50 };

/// Trips on the first failure, stays open for 30 s, and admits `probes`, whose deadline is 10 s. Calls wait for up to 100 s.
fn waiting(probes: u32) -> Builder {
    consecutive(1).open_time(OpenTime::Constant(secs(30))).probes(probes).probe_deadline(secs(10)).admission(WAIT)
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

    /// Polls all in order, and says which are ready.
    fn ready(&mut self) -> Vec<bool> {
        self.services.iter_mut().map(poll).map(|polled| polled.is_ready()).collect()
    }

    /// Polls those that were woken until none is, and says which are ready.
    fn settle(&mut self) -> Vec<bool> {
        let mut ready = vec![false; self.services.len()];
        while let Some(woken) = self.services.iter().position(|service| service.is_woken()) {
            ready[woken] = poll(&mut self.services[woken]).is_ready();
        }
        ready
    }
}

fn poll(service: &mut Spawn<Mocked>) -> Poll<Result<(), BoxError>> {
    service.enter(|cx, mut service| Service::poll_ready(&mut *service, cx))
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, BoxError>, state: CircuitState) {
    match result.unwrap_err().as_rejected() {
        Some(Rejected::CircuitOpen(open)) => assert_eq!((&**open.name(), open.state()), ("test", state)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_open_time_is_over_as_many_are_released_as_there_are_slots_in_order() {
    let mut clones = clones(waiting(2), 4);
    assert_eq!((clones.ready(), clones.breaker.statistics().waiting), (vec![false; 4], 4));
    advance(secs(30) - millis(1)).await;
    assert_eq!(clones.woken(), [false; 4]);
    advance(millis(1)).await;
    assert_eq!(clones.woken(), [true, false, false, false], "one looks, for all of them");
    assert_eq!(clones.settle(), [true, true, false, false]);
    assert_eq!(clones.breaker.state(), CircuitState::HalfOpen);
    assert_eq!(clones.breaker.statistics().probes_in_flight, 0, "readiness takes no slot");
    let _probes: Vec<_> = clones.services.iter_mut().take(2).map(|service| service.call(1)).collect();
    let now = clones.breaker.statistics();
    assert_eq!((now.probes_in_flight, now.waiting, now.waited, now.rejected), (2, 2, 2, 0), "a wait is no rejection");
}

#[tokio::test(start_paused = true)]
async fn when_it_closes_all_are_released_in_order() {
    let mut clones = clones(waiting(1), 5);
    assert_eq!(clones.ready(), [false; 5]);
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [true, false, false, false, false]);
    let probe = clones.services[0].call(1);
    clones.calls.allow(10);
    let mut probe = task::spawn(probe);
    assert_pending!(probe.poll());
    clones.calls.next_request().await.unwrap().1.send_response(1);
    assert_ready_ok!(probe.poll());
    assert_eq!((clones.breaker.state(), clones.woken()), (CircuitState::Closed, vec![false, true, true, true, true]));
    assert_eq!(clones.ready(), [true; 5]);
    let _calls: Vec<_> = clones.services.iter_mut().map(|service| service.call(2)).collect();
    assert_eq!((clones.breaker.statistics().waiting, clones.breaker.statistics().waited), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn they_stay_in_order_through_a_failed_probe_and_the_open_time_after_it() {
    let mut clones = clones(waiting(1), 3);
    assert_eq!(clones.ready(), [false; 3]);
    for round in 0..3 {
        advance(secs(30) - millis(20)).await;
        clones.settle();
        assert_eq!(clones.breaker.state(), CircuitState::Open);
        advance(millis(20)).await;
        let mut expected = [false; 3];
        expected[round] = true;
        assert_eq!(clones.settle(), expected, "round {round}");
        let mut probe = task::spawn(clones.services[round].call(1));
        assert_pending!(probe.poll());
        clones.calls.next_request().await.unwrap().1.send_error("still down");
        assert_eq!(assert_ready_err!(probe.poll()).to_string(), "still down");
        clones.settle();
    }
    assert_eq!(clones.breaker.statistics().rejected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_time_is_over_is_rejected_with_the_circuit_as_the_reason() {
    let wait = AdmissionMode::Wait { max: secs(3), queue: 50 };
    let mut clones = clones(waiting(1).admission(wait), 2);
    assert_eq!(clones.ready(), [false; 2]);
    advance(secs(3) - millis(1)).await;
    assert_eq!(clones.woken(), [false; 2]);
    advance(millis(1)).await;
    assert_eq!(clones.settle(), [true; 2]);
    assert_eq!(clones.breaker.statistics().rejected, 0, "no call has been made yet");
    let mut response = task::spawn(clones.services[0].call(1));
    assert_rejected(assert_ready!(response.poll()), CircuitState::Open);
    let now = clones.breaker.statistics();
    assert_eq!((now.rejected, now.waiting, now.waits_timed_out, now.waited), (1, 0, 2, 0));
    // The next one waits for its own three seconds.
    assert_pending!(poll(&mut clones.services[0]));
    advance(secs(3) - millis(1)).await;
    assert_eq!(clones.settle(), [false; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_ends_a_wait_if_it_comes_first() {
    let breaker = waiting(1).build_handle().unwrap();
    run(&breaker, "F");
    let mut service = breaker.layer().layer(service_fn(|()| async { Ok::<(), BoxError>(()) }));
    let started = tokio::time::Instant::now();
    let context = mainstay::context::Context::new().with_deadline(started + secs(2));
    let result = context.scope(async { service.ready().await?.call(()).await }).await;
    assert_eq!(started.elapsed(), secs(2));
    assert_rejected(result, CircuitState::Open);
    // One that has passed already leaves no time at all.
    let result = context.scope(async { service.ready().await?.call(()).await }).await;
    assert_eq!(started.elapsed(), secs(2));
    assert_rejected(result, CircuitState::Open);
    assert_eq!(breaker.statistics().rejected, 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_rejects_at_once() {
    let wait = AdmissionMode::Wait { max: secs(100), queue: 2 };
    let mut clones = clones(waiting(1).admission(wait), 4);
    assert_eq!(clones.ready(), [false, false, true, true]);
    assert_rejected(assert_ready!(task::spawn(clones.services[2].call(1)).poll()), CircuitState::Open);
    // A place that is given up is free again.
    drop(clones.services.remove(0));
    clones.settle();
    assert_eq!(clones.ready(), [false, false, true]);
    let now = clones.breaker.statistics();
    assert_eq!((now.waiting, now.queue_full, now.rejected), (2, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake() {
    let mut clones = clones(waiting(1), 3);
    assert_pending!(poll(&mut clones.services[0]));
    assert_pending!(poll(&mut clones.services[1]));
    advance(secs(30)).await;
    // Before any of them has looked.
    assert!(clones.breaker.try_acquire().is_err(), "two wait, and there is one slot");
    assert_pending!(poll(&mut clones.services[2]));
    assert_eq!(clones.settle(), [true, false, false]);
    assert!(clones.breaker.try_acquire().is_err(), "the slot is the first one's");
    let probe = clones.services[0].call(1);
    drop(probe);
    assert!(clones.breaker.try_acquire().is_err(), "and then the second one's");
    assert_eq!(clones.settle(), [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_given_back_judged_or_lost_goes_to_the_next() {
    let mut clones = clones(waiting(1).probe_rule(ProbeRule::ConsecutiveSuccesses(3)), 6);
    advance(secs(30)).await;

    let probe = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false; 6]);
    drop(probe);
    assert_eq!(clones.settle(), [true, false, false, false, false, false], "given back");

    drop(clones.services.remove(0));
    assert_eq!(clones.settle(), [true, false, false, false, false], "it left without calling");
    let probe = clones.services[0].call(1);
    assert_eq!(clones.settle(), [false; 5]);
    let mut probe = task::spawn(probe);
    assert_pending!(probe.poll());
    clones.calls.next_request().await.unwrap().1.send_response(1);
    assert_ready_ok!(probe.poll());
    assert_eq!(clones.settle(), [false, true, false, false, false], "judged");

    let lost = clones.services[1].call(1);
    advance(secs(10) - millis(1)).await;
    assert_eq!(clones.settle(), [false; 5]);
    advance(millis(1)).await;
    assert_eq!(clones.settle(), [false, false, true, false, false], "its deadline has passed");
    drop(lost);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_used_goes_to_the_next_after_half_a_second() {
    let mut clones = clones(waiting(1), 3);
    assert_eq!(clones.ready(), [false; 3]);
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [true, false, false]);
    // The first one does not call.
    advance(millis(499)).await;
    assert_eq!(clones.settle(), [false; 3]);
    advance(millis(1)).await;
    assert_eq!(clones.settle(), [false, true, false]);
    // Late as it is, it has no turn.
    let mut late = task::spawn(clones.services[0].call(1));
    assert_rejected(assert_ready!(late.poll()), CircuitState::HalfOpen);
    let _probe = clones.services[1].call(1);
    assert_eq!(clones.breaker.statistics().probes_in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn one_whose_inner_service_is_not_ready_in_its_turn_goes_back_into_the_queue() {
    let mut clones = clones(waiting(1), 2);
    clones.calls.allow(0);
    assert_eq!(clones.ready(), [false; 2]);
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [false; 2], "the inner service is asked now, and is not ready");
    advance(millis(500)).await;
    assert_eq!(clones.settle(), [false; 2], "it is the second one's turn");
    assert_pending!(poll(&mut clones.services[0]));
    assert_eq!(clones.breaker.statistics().waiting, 1);
    clones.calls.allow(1);
    assert_eq!(clones.settle(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn waiters_that_are_kept_but_not_polled_delay_the_others_by_little() {
    let mut clones = clones(waiting(1), 4);
    assert_eq!(clones.ready(), [false; 4]);
    advance(secs(30) + millis(30)).await;
    // The last of them looks, and finds the turn of the first one, which never calls.
    assert_pending!(poll(&mut clones.services[3]));
    for nth in 1..=3 {
        advance(millis(500)).await;
        assert_eq!(poll(&mut clones.services[3]).is_ready(), nth == 3, "{nth} have not called");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_by_hand_releases_all_who_wait() {
    type Change = fn(&CircuitBreakerHandle);
    let ways: [(&str, Change); 4] = [
        ("close", CircuitBreakerHandle::close),
        ("reset", CircuitBreakerHandle::reset),
        ("disable", CircuitBreakerHandle::disable),
        ("observe", CircuitBreakerHandle::observe),
    ];
    for (way, change) in ways {
        let mut clones = clones(waiting(1), 3);
        assert_eq!(clones.ready(), [false; 3]);
        change(&clones.breaker);
        assert_eq!((clones.woken(), clones.ready()), (vec![true; 3], vec![true; 3]), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_forced_open_rejects_those_who_wait_and_those_who_come() {
    let mut clones = clones(waiting(1), 3);
    assert_eq!(clones.ready(), [false; 3]);
    clones.breaker.force_open();
    assert_eq!((clones.woken(), clones.ready()), (vec![true; 3], vec![true; 3]));
    assert_rejected(assert_ready!(task::spawn(clones.services[0].call(1)).poll()), CircuitState::ForcedOpen);
    assert!(poll(&mut clones.services[0]).is_ready());
    assert_rejected(assert_ready!(task::spawn(clones.services[0].call(1)).poll()), CircuitState::ForcedOpen);
    assert_eq!((clones.breaker.statistics().waiting, clones.breaker.statistics().rejected), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_open_time_of_a_circuit_that_is_open_already_wakes_the_first() {
    let mut clones = clones(waiting(1), 2);
    assert_eq!(clones.ready(), [false; 2]);
    clones.breaker.open_for(secs(3)).unwrap();
    assert_eq!(clones.woken(), [true, false]);
    assert_eq!(clones.settle(), [false; 2]);
    advance(secs(3)).await;
    assert_eq!(clones.settle(), [true, false]);
    assert!(clones.breaker.open_for(Duration::ZERO).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_passes_releases_the_first() {
    let mut clones = clones(waiting(1), 2);
    assert_eq!(clones.ready(), [false; 2]);
    assert!(clones.breaker.health_check_passed());
    assert_eq!(clones.settle(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn other_settings_hold_for_those_who_come_and_reject_mode_for_all() {
    let mut clones = clones(waiting(1), 3);
    assert_pending!(poll(&mut clones.services[0]));
    assert_pending!(poll(&mut clones.services[1]));
    let mut config = clones.breaker.config();
    config.admission = AdmissionMode::Wait { max: secs(5), queue: 2 };
    clones.breaker.reconfigure(config.clone()).unwrap();
    clones.settle();
    assert!(poll(&mut clones.services[2]).is_ready(), "two wait already");
    advance(secs(6)).await;
    assert_eq!(clones.settle(), [false; 3], "those who waited have their hundred seconds");
    config.admission = AdmissionMode::Reject;
    clones.breaker.reconfigure(config).unwrap();
    assert_eq!(clones.settle(), [true, true, false]);
    assert_rejected(assert_ready!(task::spawn(clones.services[0].call(1)).poll()), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_swallows_no_wake_up_and_leaves_nothing_behind() {
    let mut clones = clones(waiting(1), 5);
    assert_eq!(clones.ready(), [false; 5]);
    // The first and the last of the queue, and one in the middle.
    for leaves in [4, 2, 0] {
        drop(clones.services.remove(leaves));
    }
    assert_eq!(clones.breaker.statistics().waiting, 2);
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [true, false]);
    // Nor does one that was woken and is dropped instead of being polled.
    drop(clones.services.remove(0));
    assert_eq!(clones.settle(), [true]);
    clones.services.clear();
    assert_eq!(clones.breaker.statistics().waiting, 0);
    assert!(clones.breaker.try_acquire().is_ok(), "nobody has a turn any more");
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_waiting_service_has_a_place_of_its_own() {
    let mut clones = clones(waiting(1), 1);
    assert_eq!(clones.ready(), [false]);
    let clone = clones.services[0].clone();
    clones.services.push(spawn(clone));
    assert_eq!(clones.breaker.statistics().waiting, 1);
    assert_eq!(clones.ready(), [false; 2]);
    assert_eq!(clones.breaker.statistics().waiting, 2);
    drop(clones.services.remove(0));
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_not_woken_by_what_does_not_concern_it() {
    let mut clones = clones(waiting(1), 1);
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
async fn what_was_ready_stays_so_until_its_call_which_is_rejected_while_it_is_open() {
    let breaker = waiting(1).build_handle().unwrap();
    let (mut service, mut calls) = mock::spawn_layer(breaker.layer());
    assert_ready_ok!(service.poll_ready::<u32>());
    run(&breaker, "F");
    assert_ready_ok!(service.poll_ready::<u32>());
    let response: Result<u32, BoxError> = assert_ready!(task::spawn(service.call(1)).poll());
    assert_rejected(response, CircuitState::Open);
    assert_pending!(task::spawn(calls.next_request()).poll());
    assert_pending!(service.poll_ready::<u32>(), "the next one waits");
}

#[tokio::test(start_paused = true)]
async fn in_a_state_that_flows_it_waits_for_nothing() {
    let breaker = waiting(1).build_handle().unwrap();
    for state in [CircuitState::Closed, CircuitState::Disabled, CircuitState::Observing] {
        breaker.transition_to(state).unwrap();
        let (mut service, _calls) = mock::spawn_layer::<u32, u32, _>(breaker.layer());
        assert_ready_ok!(service.poll_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_functions_wait_too() {
    let breaker = waiting(1).build_handle().unwrap();
    run(&breaker, "F");
    let started = tokio::time::Instant::now();
    let call = |value: u32| breaker.call(async move { Ok::<_, BoxError>(value) });
    let (first, second, third) = tokio::join!(call(1), call(2), call(3));
    assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (1, 2, 3));
    assert_eq!((started.elapsed(), breaker.state()), (secs(30), CircuitState::Closed));
    let now = breaker.statistics();
    assert_eq!((now.successes, now.waited, now.rejected), (3, 3, 0));

    run(&breaker, "F");
    let context = mainstay::context::Context::new().with_deadline(tokio::time::Instant::now() + secs(1));
    assert_rejected(context.scope(call(4)).await, CircuitState::Open);
    let mut dropped = task::spawn(call(5));
    assert_pending!(dropped.poll());
    assert_eq!(breaker.statistics().waiting, 1);
    drop(dropped);
    let now = breaker.statistics();
    assert_eq!((now.waiting, now.rejected, now.abandoned), (0, 1, 0), "it was no call yet");
}

#[tokio::test(start_paused = true)]
async fn on_a_ramp_the_admitted_share_is_that_of_the_newcomers_and_goes_to_those_who_wait() {
    let ramp = Ramp { shares: vec![0.5], step: secs(20) };
    let mut clones = clones(waiting(1).ramp(ramp), 6);
    clones.calls.allow(100);
    advance(secs(30)).await;
    permit(&clones.breaker).success();
    assert_eq!(clones.breaker.statistics().ramp_share, Some(0.5));
    // The first of a step is admitted, and then each second newcomer lets the first of those who wait go.
    assert_eq!(clones.ready(), [true, false, false, false, false, false]);
    assert_eq!(clones.settle(), [false, true, true, false, false, false]);
    let _calls: Vec<_> = [0, 1, 2].map(|nth| clones.services[nth].call(1)).into();
    assert_eq!((clones.settle(), clones.breaker.statistics().waiting), (vec![false; 6], 3));
    assert_eq!(clones.breaker.statistics().rejected, 0, "those that were released do not ask the ramp again");
    advance(secs(1)).await;
    assert_eq!(clones.settle(), [false; 6]);
    // The ramp is over: it closes by the first one's look.
    advance(secs(19)).await;
    assert_eq!(clones.settle(), [false, false, false, true, true, true]);
    assert_eq!(clones.breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_void_when_a_probe_has_failed_and_its_owner_keeps_its_place() {
    let mut clones = clones(waiting(2).probe_rule(ProbeRule::FirstFailure), 3);
    assert_eq!(clones.ready(), [false; 3]);
    advance(secs(30)).await;
    assert!(poll(&mut clones.services[0]).is_ready());
    let mut probe = task::spawn(clones.services[0].call(1));
    assert_pending!(probe.poll());
    clones.calls.next_request().await.unwrap().1.send_error("still down");
    assert_ready_err!(probe.poll());
    assert_eq!(clones.breaker.state(), CircuitState::Open);
    // The second was released with the first, and has not looked yet.
    assert!(clones.services[1].is_woken());
    assert_eq!(clones.settle(), [false; 3]);
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [false, true, true]);
    assert_eq!(clones.breaker.statistics().rejected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_another_deadline_has_its_own_time() {
    let mut clones = clones(waiting(1), 1);
    let now = tokio::time::Instant::now();
    let by = |seconds| mainstay::context::Context::new().with_deadline(now + secs(seconds));
    assert_pending!(by(2).enter(|| poll(&mut clones.services[0])));
    // The first caller has left; another one polls the same service.
    advance(secs(1)).await;
    assert_pending!(by(5).enter(|| poll(&mut clones.services[0])));
    advance(secs(4) - millis(1)).await;
    assert_pending!(by(5).enter(|| poll(&mut clones.services[0])));
    advance(millis(1)).await;
    assert!(by(5).enter(|| poll(&mut clones.services[0])).is_ready());
    assert_rejected(assert_ready!(task::spawn(clones.services[0].call(1)).poll()), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn the_first_in_the_queue_reopens_a_circuit_that_was_half_open_for_too_long() {
    let mut clones = clones(waiting(1).half_open_max(secs(3)), 1);
    advance(secs(30)).await;
    let _hung = permit(&clones.breaker);
    assert_eq!(clones.ready(), [false]);
    advance(secs(3) - millis(1)).await;
    assert_eq!(clones.settle(), [false]);
    assert_eq!(clones.breaker.state(), CircuitState::HalfOpen);
    advance(millis(1)).await;
    assert_eq!(clones.settle(), [false]);
    assert_eq!(clones.breaker.state(), CircuitState::Open);
    advance(secs(30)).await;
    assert_eq!(clones.settle(), [true]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_time_is_over_and_that_is_not_polled_takes_no_turn() {
    let wait = AdmissionMode::Wait { max: secs(3), queue: 50 };
    let mut clones = clones(waiting(1).admission(wait), 2);
    assert_pending!(poll(&mut clones.services[0]));
    advance(secs(30)).await;
    assert!(poll(&mut clones.services[1]).is_ready());
}

#[test]
fn a_rejection_in_reject_mode_needs_no_runtime_and_so_arms_no_timer() {
    let breaker = consecutive(1).build_handle().unwrap();
    run(&breaker, "F");
    let mut service = task::spawn(breaker.layer().layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) })));
    assert_ready_ok!(service.enter(|cx, mut service| service.poll_ready(cx)));
}

/// Threads that wait for the only slot, take it and give it back: each of them gets it in the end.
#[test]
fn no_wake_up_is_lost_between_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
    runtime.block_on(async {
        let breaker = waiting(1).probe_rule(ProbeRule::ConsecutiveSuccesses(u32::MAX)).build_handle().unwrap();
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
                    for _ in 0..200 {
                        let mut service = service.clone();
                        // A turn that the scheduler has let lapse is no loss: the call is rejected, and made again.
                        while service.ready().await.unwrap().call(()).await.is_err() {}
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let now = breaker.statistics();
        assert_eq!((now.successes, now.probes_in_flight, now.waiting), (1600, 0, 0));
    });
}

#[cfg(feature = "serde")]
#[test]
fn the_mode_reads_from_a_file() {
    let read = |text: &str| toml::from_str::<mainstay::CircuitBreakerConfig>(text).map(|config| config.admission);
    assert_eq!(read("admission = \"reject\"").unwrap(), AdmissionMode::Reject);
    let wait = AdmissionMode::Wait { max: secs(1), queue: 100 };
    assert_eq!(read("admission = { wait = { max = \"1s\", queue = 100 } }").unwrap(), wait);
    assert!(read("admission = { wait = { max = \"1s\" } }").is_err());
    assert!(read("admission = { wait = { max = \"1s\", queue = 100, more = 1 } }").is_err());
    let mut config = mainstay::CircuitBreakerConfig::default();
    config.admission = wait;
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<mainstay::CircuitBreakerConfig>(&text).unwrap(), config);
}
