//! Subscriptions to a breaker's state.

use futures_util::StreamExt;
use mainstay::circuit_breaker::{CircuitBreakerHandle, StateChange, Subscription, TransitionReason};
use mainstay::{CircuitState, Outcome};
use tokio_test::{assert_pending, assert_ready, task};

use crate::support::*;

use CircuitState::{Closed, ForcedOpen, HalfOpen, Observing, Open};

/// What there is to read now, and no more.
fn states(subscription: &mut Subscription) -> Vec<CircuitState> {
    std::iter::from_fn(|| subscription.try_changed()).map(|change| change.state).collect()
}

fn breaker() -> CircuitBreakerHandle {
    consecutive(1).probes(1).build_handle().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_state_is_told_at_once_and_then_each_change_with_what_led_to_it() {
    let breaker = counting(4, 2, 0.5).probes(1).build_handle().unwrap();
    let mut changes = task::spawn(breaker.subscribe());
    let first = assert_ready!(changes.poll_next()).unwrap();
    assert_eq!((first.state, first.transition), (Closed, None), "nothing led to it yet");
    assert_pending!(changes.poll_next());

    run(&breaker, "SF");
    assert!(changes.is_woken());
    let StateChange { state, transition, .. } = assert_ready!(changes.poll_next()).unwrap();
    let led = transition.unwrap();
    assert_eq!((state, led.from, led.reason), (Open, Closed, TransitionReason::FailureRate));
    assert_eq!((led.calls, led.failures, led.cause), (2, 1, Some(Outcome::Transient)));
    assert_eq!(led.open_for, Some(secs(5)));
    assert_pending!(changes.poll_next());

    advance(secs(5)).await;
    assert!(!changes.is_woken(), "nobody has asked yet");
    let probe = permit(&breaker);
    assert_eq!(assert_ready!(changes.poll_next()).unwrap().state, HalfOpen);
    assert_pending!(changes.poll_next());
    probe.record(Outcome::Success);
    assert_eq!(assert_ready!(changes.poll_next()).unwrap().state, Closed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_misses_what_was_in_between_and_never_the_latest() {
    let breaker = breaker();
    let mut changes = breaker.subscribe();
    assert_eq!(states(&mut changes), [Closed]);
    for _ in 0..100 {
        run(&breaker, "F");
        breaker.disable();
        breaker.close();
    }
    run(&breaker, "F");
    assert_eq!(states(&mut changes), [Open]);
    // There and back: it is open again, and not still.
    breaker.close();
    run(&breaker, "F");
    let again = changes.try_changed().unwrap();
    assert_eq!((again.state, again.transition.map(|it| it.from)), (Open, Some(Closed)));
    assert_eq!(changes.try_changed(), None);
}

#[tokio::test(start_paused = true)]
async fn the_state_that_holds_already_is_no_change() {
    let breaker = breaker();
    let mut changes = task::spawn(breaker.subscribe());
    assert_ready!(changes.poll_next()).unwrap();
    assert_pending!(changes.poll_next());
    breaker.close();
    breaker.reset();
    run(&breaker, "SSS");
    // Neither is it one for those who are there that another one comes to see.
    let mut later = breaker.subscribe();
    assert_eq!(states(&mut later), [Closed]);
    assert!(!changes.is_woken());
    assert_pending!(changes.poll_next());

    breaker.transition_to(Open).unwrap();
    breaker.open_for(secs(60)).unwrap();
    breaker.transition_to(Open).unwrap();
    assert_eq!(assert_ready!(changes.poll_next()).unwrap().state, Open);
    assert_pending!(changes.poll_next());
}

#[tokio::test(start_paused = true)]
async fn it_keeps_no_breaker_alive_and_ends_with_it_after_the_last_change_is_told() {
    let breaker = breaker();
    let last = permit(&breaker);
    let mut changes = task::spawn(breaker.subscribe());
    assert_ready!(changes.poll_next()).unwrap();
    assert_pending!(changes.poll_next());
    drop(breaker);
    assert!(!changes.is_woken(), "a call is still running");
    last.record(Outcome::Transient);
    assert!(changes.is_woken());
    assert_eq!(assert_ready!(changes.poll_next()).unwrap().state, Open);
    assert_eq!(assert_ready!(changes.poll_next()), None);
    assert_eq!(assert_ready!(changes.poll_next()), None);
}

#[tokio::test(start_paused = true)]
async fn late_subscribers_see_the_state_and_what_led_to_it_if_somebody_watched() {
    let breaker = breaker();
    breaker.force_open();
    let mut first = breaker.subscribe();
    assert_eq!(first.try_changed().map(|it| (it.state, it.transition)), Some((ForcedOpen, None)));
    breaker.observe();
    let mut second = breaker.subscribe();
    let change = second.try_changed().unwrap();
    assert_eq!((change.state, change.transition.map(|it| it.from)), (Observing, Some(ForcedOpen)));
}

#[tokio::test(start_paused = true)]
async fn a_transition_of_a_breaker_that_nobody_watches_allocates_nothing() {
    let breaker = breaker();
    breaker.disable();
    breaker.close();
    let measured = allocation_counter::measure(|| breaker.force_open());
    assert_eq!(measured.count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn it_is_a_stream_and_many_read_the_same() {
    let breaker = breaker();
    let changes: Vec<_> = (0..3).map(|_| breaker.subscribe().map(|change| change.state)).collect();
    let task = tokio::spawn(async move {
        futures_util::future::join_all(changes.into_iter().map(|it| it.collect::<Vec<_>>())).await
    });
    tokio::task::yield_now().await;
    breaker.force_open();
    tokio::task::yield_now().await;
    drop(breaker);
    assert_eq!(task.await.unwrap(), vec![vec![Closed, ForcedOpen]; 3]);
}

/// Whatever the order in which threads come to tell of their changes.
#[test]
fn after_changes_by_many_threads_the_last_one_read_is_the_state() {
    for _ in 0..50 {
        let breaker = breaker();
        let mut changes = breaker.subscribe();
        std::thread::scope(|scope| {
            for state in [ForcedOpen, Observing, Closed] {
                let breaker = breaker.clone();
                scope.spawn(move || (0..20).for_each(|_| breaker.transition_to(state).unwrap()));
            }
            // One that begins in the middle of it.
            let breaker = breaker.clone();
            scope.spawn(move || {
                let mut changes = breaker.subscribe();
                assert!(changes.try_changed().is_some());
            });
        });
        assert_eq!(states(&mut changes).last(), Some(&breaker.state()));
    }
}

#[test]
fn subscriptions_are_send_sync_and_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Subscription>();
}
