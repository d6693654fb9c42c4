//! Verdicts are told as a permit tells them: absorbed if they can be, else recorded.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::super::config::{OpenTime, ProbeRule, Window};
use super::super::ending::Ending;
use super::super::state::Healthy;
use super::*;
use crate::cores::sliding_window::WindowCounts;
use crate::cores::sync::model::{every_order, join, now, spawn, with_interruptions};
use crate::outcome::Outcome;

const SECOND: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(3_600);

/// Judges by what its windows hold, but not before an amount of calls that no model makes.
fn counting(window: Window) -> CircuitBreakerConfig {
    CircuitBreakerConfig {
        window,
        failure_rate: Some(1.0),
        minimum_calls: 1_000,
        consecutive_failures: None,
        slow_calls: None,
        ..CircuitBreakerConfig::default()
    }
}

fn seconds() -> CircuitBreakerConfig {
    counting(Window::Time { length: 10 * SECOND })
}

/// Opens at the first failure.
fn tripping(open: Duration) -> CircuitBreakerConfig {
    CircuitBreakerConfig {
        failure_rate: None,
        consecutive_failures: Some(1),
        open_time: OpenTime::Constant(open),
        ..counting(Window::Count { calls: 3 })
    }
}

/// A circuit that is open, and due to admit this many probes.
fn due(probes: u32, probe_rule: ProbeRule) -> CircuitBreakerConfig {
    CircuitBreakerConfig { initial_state: CircuitState::Open, probes, probe_rule, ..tripping(Duration::ZERO) }
}

fn breaker(config: &CircuitBreakerConfig) -> (Arc<Shared>, Instant) {
    let origin = now();
    (Arc::new(Shared::new(config, OwnRules::default(), origin, false)), origin)
}

impl Shared {
    fn call(&self, now: Instant) -> Result<Ticket, Refusal> {
        self.admit_at_once().map_or_else(|| self.admit(|| now).0, Ok)
    }

    fn succeeds(&self, ticket: Ticket, now: Instant) -> Option<Transition> {
        if self.absorbs(&ticket, || now) {
            return None;
        }
        self.record(ticket, evidence(Some(Healthy::Yes), Ending::Answered, Outcome::Success), || now)
    }

    fn fails(&self, ticket: Ticket, now: Instant) -> Option<Transition> {
        self.record(ticket, evidence(Some(Healthy::No), Ending::Answered, Outcome::Transient), || now)
    }

    fn is_abandoned(&self, ticket: Ticket, now: Instant) -> Option<Transition> {
        self.record(ticket, evidence(None, Ending::Abandoned, Outcome::Ignored), || now)
    }

    fn counts(&self, now: Instant) -> WindowCounts {
        self.with_machine(now, |machine| machine.counts(now))
    }
}

fn evidence(health: Option<Healthy>, ending: Ending, outcome: Outcome) -> Evidence {
    Evidence { health, slow: false, ending, outcome }
}

#[test]
fn every_verdict_is_in_a_time_window_once() {
    with_interruptions(3, || {
        let (shared, origin) = breaker(&seconds());
        let succeeding = {
            let shared = Arc::clone(&shared);
            spawn(move || {
                for _ in 0..2 {
                    let ticket = shared.call(origin).expect("closed");
                    assert_eq!(shared.succeeds(ticket, origin), None);
                }
            })
        };
        let failing = {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let ticket = shared.call(origin).expect("closed");
                assert_eq!(shared.fails(ticket, origin), None);
            })
        };
        // Who looks adds to the window what was counted beside it.
        assert!(shared.counts(origin).calls <= 3);
        join(succeeding);
        join(failing);
        assert_eq!(shared.counts(origin), WindowCounts { calls: 3, failures: 1, slow: 0 });
    });
}

#[test]
fn a_success_joins_the_bucket_of_its_time_although_another_has_begun() {
    with_interruptions(3, || {
        let (shared, origin) = breaker(&seconds());
        let threads = [origin, origin + SECOND].map(|now| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let ticket = shared.call(now).expect("closed");
                shared.succeeds(ticket, now);
            })
        });
        threads.into_iter().for_each(join);
        assert_eq!(shared.counts(origin + SECOND).calls, 2);
        assert_eq!(shared.counts(origin + LATER).calls, 0, "both leave");
    });
}

/// The deviation that is allowed: on a full window without failures, a success that is told while another thread tells
/// the first failure may count as the earlier of the two, which does not end its row.
#[test]
fn a_failure_is_in_a_count_window_once_and_a_success_at_the_same_time_may_count_as_the_earlier() {
    every_order(|| {
        let (shared, origin) = breaker(&counting(Window::Count { calls: 2 }));
        for _ in 0..2 {
            shared.succeeds(shared.call(origin).expect("closed"), origin);
        }
        let threads = [true, false].map(|succeeds| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let ticket = shared.call(origin).expect("closed");
                if succeeds { shared.succeeds(ticket, origin) } else { shared.fails(ticket, origin) }
            })
        });
        assert_eq!(threads.map(join), [None, None]);
        assert_eq!(shared.counts(origin), WindowCounts { calls: 2, failures: 1, slow: 0 });
        let in_a_row = shared.with_machine(origin, |machine| machine.consecutive_failures());
        assert!(in_a_row <= 1);
        // Once the failure is there, nothing is told beside it.
        shared.succeeds(shared.call(origin).expect("closed"), origin);
        shared.succeeds(shared.call(origin).expect("closed"), origin);
        assert_eq!(shared.counts(origin).failures, 0, "both successes came after it");
    });
}

#[test]
fn failures_in_a_row_open_the_circuit_once_however_they_come() {
    every_order(|| {
        let config = CircuitBreakerConfig { consecutive_failures: Some(2), ..tripping(SECOND) };
        let (shared, origin) = breaker(&config);
        let threads = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let ticket = shared.call(origin).expect("closed");
                shared.fails(ticket, origin).map_or(0, |change| {
                    assert_eq!((change.from, change.to), (CircuitState::Closed, CircuitState::Open));
                    1
                })
            })
        });
        assert_eq!(threads.into_iter().map(join).sum::<u32>(), 1);
        assert_eq!(shared.state(), CircuitState::Open);
        assert_eq!(shared.with_machine(origin, |machine| machine.opens()), 1);
    });
}

/// Opens when two calls of a window of two were abandoned.
fn unanswered(window: Window) -> CircuitBreakerConfig {
    CircuitBreakerConfig { minimum_calls: 2, open_time: OpenTime::Constant(SECOND), ..counting(window) }
}

#[test]
fn calls_without_an_answer_open_the_circuit_once_however_they_come() {
    for window in [Window::Count { calls: 2 }, Window::Time { length: 10 * SECOND }] {
        with_interruptions(3, move || {
            let (shared, origin) = breaker(&unanswered(window));
            let threads = [(); 3].map(|()| {
                let shared = Arc::clone(&shared);
                spawn(move || match shared.call(origin) {
                    Ok(ticket) => u32::from(shared.is_abandoned(ticket, origin).is_some()),
                    Err(_) => 0,
                })
            });
            assert_eq!(threads.into_iter().map(join).sum::<u32>(), 1);
            assert_eq!(shared.state(), CircuitState::Open);
        });
    }
}

/// An answer that takes no lock is an answer: no call that was abandoned before it counts after it.
#[test]
fn an_answer_keeps_the_circuit_closed_although_it_takes_no_lock() {
    for window in [Window::Count { calls: 2 }, Window::Time { length: 10 * SECOND }] {
        with_interruptions(3, move || {
            let (shared, origin) = breaker(&unanswered(window));
            let succeed = move |shared: &Shared| {
                let ticket = shared.call(origin).expect("closed");
                assert_eq!(shared.succeeds(ticket, origin), None);
            };
            let abandon = move |shared: &Shared| {
                let ticket = shared.call(origin).expect("closed");
                assert_eq!(shared.is_abandoned(ticket, origin), None);
            };
            (0..2).for_each(|_| succeed(&shared));
            let leaving = {
                let shared = Arc::clone(&shared);
                spawn(move || abandon(&shared))
            };
            succeed(&shared);
            join(leaving);
            succeed(&shared);
            abandon(&shared);
            assert_eq!(shared.state(), CircuitState::Closed);
        });
    }
}

#[derive(Clone, Copy)]
enum End {
    Success,
    Failure,
    Abandoned,
}

fn probes_are_bounded(probes: u32, rule: ProbeRule, ends: &[End]) {
    let (shared, origin) = breaker(&due(probes, rule));
    let out = Arc::new(AtomicU32::new(0));
    let threads = ends.iter().map(|&end| {
        let (shared, out) = (Arc::clone(&shared), Arc::clone(&out));
        spawn(move || {
            let Ok(ticket) = shared.call(origin) else { return };
            if shared.is_probe(ticket) {
                assert!(out.fetch_add(1, Ordering::Relaxed) < probes);
                shared.state();
                out.fetch_sub(1, Ordering::Relaxed);
            }
            match end {
                End::Success => shared.succeeds(ticket, origin),
                End::Failure => shared.fails(ticket, origin),
                End::Abandoned => shared.is_abandoned(ticket, origin),
            };
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(join);
    assert_eq!(shared.with_machine(origin, |machine| machine.probes_in_flight()), 0);
    assert!(shared.call(origin + LATER).is_ok(), "stuck in {:?}", shared.state());
}

#[test]
fn no_two_probes_share_one_slot_and_it_is_not_lost() {
    use End::{Abandoned, Failure, Success};
    for ends in [[Success, Failure], [Success, Abandoned], [Failure, Failure], [Failure, Abandoned]] {
        with_interruptions(2, move || probes_are_bounded(1, ProbeRule::Rate, &ends));
        with_interruptions(2, move || probes_are_bounded(1, ProbeRule::ConsecutiveSuccesses(2), &ends));
    }
}

#[test]
fn no_three_probes_share_two_slots_and_none_is_lost() {
    use End::{Abandoned, Failure, Success};
    for ends in [[Success, Success, Abandoned], [Success, Failure, Failure]] {
        with_interruptions(1, move || probes_are_bounded(2, ProbeRule::Rate, &ends));
        with_interruptions(1, move || probes_are_bounded(2, ProbeRule::ConsecutiveSuccesses(2), &ends));
    }
}

#[test]
fn a_probe_that_never_ends_gives_its_slot_up_in_time() {
    with_interruptions(3, || {
        let config = due(1, ProbeRule::Rate);
        let (shared, origin) = breaker(&config);
        let threads = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            spawn(move || shared.call(origin))
        });
        let admitted: Vec<_> = threads.into_iter().filter_map(|thread| join(thread).ok()).collect();
        let [lost] = admitted[..] else { panic!("one slot, {} probes", admitted.len()) };
        assert!(shared.call(origin).is_err());
        let next = origin + config.probe_deadline;
        let probe = shared.call(next).expect("the slot is free again");
        // The lost one comes back, and has no say.
        let late = {
            let shared = Arc::clone(&shared);
            spawn(move || shared.fails(lost, next))
        };
        let change = shared.succeeds(probe, next).map(|change| change.to);
        assert_eq!((join(late), change), (None, Some(CircuitState::Closed)));
    });
}

#[test]
fn a_straggler_of_an_older_generation_changes_nothing() {
    for (healthy, closes) in [(true, false), (false, false), (false, true)] {
        with_interruptions(3, move || {
            let config = CircuitBreakerConfig { probes: 1, ..tripping(Duration::ZERO) };
            let (shared, origin) = breaker(&config);
            let ticket = shared.call(origin).expect("closed");
            let straggler = {
                let shared = Arc::clone(&shared);
                spawn(move || if healthy { shared.succeeds(ticket, origin) } else { shared.fails(ticket, origin) })
            };
            shared.transition_to(CircuitState::Open, None, origin).expect("it may open");
            let probe = shared.call(origin).expect("it is due");
            assert!(shared.is_probe(probe));
            if closes {
                shared.succeeds(probe, origin).expect("all that it takes to close");
            }
            join(straggler);
            let state = if closes { CircuitState::Closed } else { CircuitState::HalfOpen };
            assert_eq!((shared.state(), shared.counts(origin).calls), (state, 0));
        });
    }
}

/// Nor is one of this generation forgotten: after a reset the window holds exactly what was admitted after it. The deviation
/// that is allowed: a time window may also hold successes that were told while it was reset. Those of a call that ends
/// later it never holds.
#[test]
fn a_window_holds_the_verdicts_of_its_generation_and_no_others() {
    for window in [Window::Time { length: 10 * SECOND }, Window::Count { calls: 8 }] {
        with_interruptions(3, move || {
            let (shared, origin) = breaker(&counting(window));
            let succeed = move |shared: &Shared| {
                let ticket = shared.call(origin).expect("closed");
                shared.succeeds(ticket, origin);
                ticket.stamp().generation()
            };
            let caller = {
                let shared = Arc::clone(&shared);
                spawn(move || [succeed(&shared), succeed(&shared)])
            };
            assert_eq!(shared.reset(origin), None);
            let own = succeed(&shared);
            let generations = join(caller);
            let current = 1 + generations.into_iter().filter(|&generation| generation == own).count() as u64;
            let late = if matches!(window, Window::Time { .. }) { 3 - current } else { 0 };
            let counted = shared.counts(origin).calls;
            assert!((current..=current + late).contains(&counted), "{counted} instead of {current}");
            let straggler = shared.call(origin).expect("closed");
            shared.reset(origin);
            shared.succeeds(straggler, origin);
            assert_eq!(shared.counts(origin).calls, 0);
        });
    }
}

#[test]
fn who_sees_a_circuit_open_sees_until_when_and_why() {
    every_order(|| {
        let (shared, origin) = breaker(&tripping(5 * SECOND));
        let ticket = shared.call(origin).expect("closed");
        let failing = {
            let shared = Arc::clone(&shared);
            spawn(move || shared.fails(ticket, origin))
        };
        match shared.admits(|| origin) {
            Admits::Call => {}
            told => assert_eq!(told, Admits::Nothing { retry_after: Some(5 * SECOND) }),
        }
        if let Err(refusal) = shared.call(origin) {
            let (retry_after, cause) = (MaybeDuration::new(5 * SECOND), PackedOutcome::new(Some(Outcome::Transient)));
            assert_eq!(refusal, Refusal { state: CircuitState::Open, retry_after, cause });
        }
        assert!(join(failing).is_some());
        assert!(shared.call(origin + 5 * SECOND).is_ok());
    });
}

#[test]
fn who_is_refused_hears_a_time_that_was_true() {
    every_order(|| {
        let (shared, origin) = breaker(&tripping(5 * SECOND));
        shared.transition_to(CircuitState::Open, None, origin).expect("it may open");
        let operator = {
            let shared = Arc::clone(&shared);
            spawn(move || {
                shared.transition_to(CircuitState::Open, Some(9 * SECOND), origin).expect("it is open");
                shared.reset(origin);
            })
        };
        if let Err(refusal) = shared.call(origin) {
            assert!([5, 9].map(|seconds| Some(seconds * SECOND)).contains(&refusal.retry_after.get()), "{refusal:?}");
        }
        join(operator);
        assert!(shared.call(origin).is_ok());
    });
}
