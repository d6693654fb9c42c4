//! The front against the machine: what it answers without the lock is what the machine would have answered.

use std::cell::Cell;

use proptest::prelude::*;

use super::super::config::{OpenTime, ProbeRule, SlowCalls, Window};
use super::super::ending::Ending;
use super::super::failure_period::FailuresPerPeriod;
use super::super::ramp::Ramp;
use super::super::state::Healthy;
use super::super::trip::{OwnTrip, TripStatistics};
use super::*;
use crate::outcome::Outcome;

/// One step of a single thread.
#[derive(Clone, Debug)]
enum Step {
    Admit,
    /// A verdict of the call admitted this many calls ago, if it has none yet.
    Verdict(usize, Option<Healthy>),
    Wait(u64),
    Go(CircuitState),
    Reset,
    Reconfigure(Box<CircuitBreakerConfig>),
}

fn step() -> impl Strategy<Value = Step> {
    let health = prop_oneof![8 => Just(Some(Healthy::Yes)), 4 => Just(Some(Healthy::No)), 3 => Just(None)];
    prop_oneof![
        20 => Just(Step::Admit),
        20 => (0_usize..4, health).prop_map(|(ago, health)| Step::Verdict(ago, health)),
        6 => (0_u64..3_000).prop_map(Step::Wait),
        1 => prop::sample::select(CircuitState::ALL.to_vec()).prop_map(Step::Go),
        1 => Just(Step::Reset),
        1 => config().prop_map(|config| Step::Reconfigure(Box::new(config))),
    ]
}

fn config() -> impl Strategy<Value = CircuitBreakerConfig> {
    let window = prop_oneof![
        (1_u32..20).prop_map(|calls| Window::Count { calls }),
        (10_u64..5_000).prop_map(|millis| Window::Time { length: Duration::from_millis(millis) }),
    ];
    let rule = prop_oneof![
        Just(ProbeRule::Rate),
        Just(ProbeRule::FirstFailure),
        (1_u32..4).prop_map(ProbeRule::ConsecutiveSuccesses),
    ];
    let per_period = prop::option::of((1_u32..5, 10_u64..5_000));
    let most = prop::option::of((1_u64..5_000).prop_map(Duration::from_millis));
    let ramp = prop::option::of(
        (1_u64..2_000).prop_map(|step| Ramp { shares: vec![0.25, 0.6], step: Duration::from_millis(step) }),
    );
    (window, rule, 1_u32..4, prop::option::of(1_u32..5), any::<(bool, bool)>(), per_period, most, ramp).prop_map(
        |(window, probe_rule, probes, consecutive_failures, (timed, watched), per_period, half_open_max, ramp)| {
            let failures_per_period = per_period
                .map(|(failures, millis)| FailuresPerPeriod { failures, period: Duration::from_millis(millis) });
            let slow = SlowCalls { longer_than: Duration::from_millis(500), rate: 0.5 };
            CircuitBreakerConfig {
                window,
                probe_rule,
                probes,
                consecutive_failures,
                failures_per_period,
                slow_calls: timed.then_some(slow),
                watch_in_flight: timed && watched,
                minimum_calls: 1,
                open_time: OpenTime::Constant(Duration::from_millis(700)),
                probe_deadline: Duration::from_millis(900),
                half_open_max,
                ramp,
                ..CircuitBreakerConfig::default()
            }
        },
    )
}

#[test]
fn an_open_circuit_reads_the_clock_once_to_refuse_and_a_forced_one_not_at_all() {
    #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
    let origin = Instant::now();
    let reads = Cell::new(0);
    let now = || {
        reads.set(reads.get() + 1);
        origin + Duration::from_secs(1)
    };
    let shared = Shared::new(&CircuitBreakerConfig::default(), OwnRules::default(), origin, false);
    let asked = || shared.refuses(now).expect("not closed").retry_after.get();
    shared.transition_to(CircuitState::Open, Some(Duration::from_secs(3)), origin).unwrap();
    assert_eq!((asked(), reads.take()), (Some(Duration::from_secs(2)), 1));
    shared.transition_to(CircuitState::ForcedOpen, None, origin).unwrap();
    assert_eq!((asked(), reads.take()), (None, 0));
}

#[test]
fn a_call_that_begins_while_the_lock_is_held_is_watched_like_any_other() {
    #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
    let origin = Instant::now();
    let config = CircuitBreakerConfig {
        slow_calls: Some(SlowCalls { longer_than: Duration::from_secs(8), rate: 1.0 }),
        watch_in_flight: true,
        ..CircuitBreakerConfig::default()
    };
    let later = |seconds| origin + Duration::from_secs(seconds);
    let overdue = |end_of_generation: bool| {
        let shared = Shared::new(&config, OwnRules::default(), origin, false);
        let generation = shared.load().generation();
        shared.with_machine(origin, |machine| {
            // Another thread admits a call; this one goes on to the next bucket, or the next generation.
            assert!(shared.count_begun(generation, origin));
            if end_of_generation {
                machine.reset(later(1));
            } else {
                machine.admit(later(1));
            }
        });
        assert!(!shared.count_begun(generation, origin), "it is told to take the lock");
        shared.with_machine(later(20), |machine| {
            let in_flight = machine.in_flight().expect("calls are watched");
            in_flight.advance(later(20));
            in_flight.take_overdue()
        })
    };
    assert_eq!(overdue(false), 2);
    assert_eq!(overdue(true), 0, "it is a straggler");
}

proptest! {
    /// Whatever the front answers without the lock, the machine alone would have answered too.
    #[test]
    fn the_front_agrees_with_the_machine(
        config in config(),
        own_trip in prop::option::of(0_u64..5),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
        let origin = Instant::now();
        let clock = Cell::new(origin);
        let now = || clock.get();
        let trip = |limit| OwnTrip::new(move |seen: &TripStatistics, _: Outcome| seen.failures >= limit);
        let own = || OwnRules { trip: own_trip.map(trip), open_time: None, seed: Some(1) };
        let shared = Shared::new(&config, own(), origin, false);
        let mut machine = Machine::new(config.clone(), own(), origin);
        let mut reconfigured = false;
        let mut running: Vec<(Ticket, Origin, Instant)> = Vec::new();
        for step in steps {
            match step {
                Step::Admit => {
                    let front = shared.admit_at_once().map_or_else(|| shared.admit(now), |it| (Ok(it), None));
                    let begins = machine.begins(now());
                    let (admission, change) = machine.admit(begins);
                    prop_assert_eq!(front.1, change);
                    let probe = match admission {
                        Admission::Call => None,
                        Admission::Probe(slot) => Some((slot, begins)),
                        Admission::Refused => {
                            let refusal = front.0.err();
                            let until = machine.open_until();
                            // With the lock or without: a nanosecond may be between them.
                            let left = [now(), begins].map(|at| until.map(|until| until.saturating_duration_since(at)));
                            let (state, retry_after) = refusal.map(|it| (it.state, it.retry_after)).expect("it is refused");
                            prop_assert_eq!(state, machine.state());
                            prop_assert!(left.contains(&retry_after.get()));
                            continue;
                        }
                    };
                    let ticket = front.0.expect("the machine admitted it");
                    prop_assert_eq!(shared.is_probe(ticket), probe.is_some());
                    let origin = Origin { generation: machine.generation(), probe, started: Some(begins) };
                    running.push((ticket, origin, begins));
                }
                Step::Verdict(ago, health) => {
                    let Some(index) = running.len().checked_sub(ago + 1) else { continue };
                    let (ticket, origin, began) = running.remove(index);
                    if shared.is_unrecorded(ticket) {
                        continue;
                    }
                    let limit = config.slow_calls.map_or(Duration::MAX, |slow| slow.longer_than);
                    let slow = shared.is_slow(ticket, now);
                    // Other settings may have measured the call, or not.
                    prop_assert!(reconfigured || slow == (now().saturating_duration_since(began) > limit));
                    let (outcome, ending) = match health {
                        Some(Healthy::Yes) => (Outcome::Success, Ending::Answered),
                        Some(Healthy::No) => (Outcome::Transient, Ending::Answered),
                        None => (Outcome::Ignored, Ending::Cut),
                    };
                    let evidence = Evidence { health, slow, ending, outcome };
                    let absorbed = health == Some(Healthy::Yes) && shared.absorbs(&ticket, now);
                    let change = if absorbed { None } else { shared.record(ticket, evidence, now) };
                    prop_assert_eq!(change, machine.record(origin, evidence, now()));
                }
                Step::Wait(millis) => clock.set(now() + Duration::from_millis(millis)),
                Step::Go(state) => {
                    let change = shared.transition_to(state, None, now());
                    prop_assert_eq!(change, machine.transition_to(state, None, now()));
                }
                Step::Reconfigure(config) => {
                    reconfigured = true;
                    shared.reconfigure((*config).clone(), now());
                    machine.reconfigure(*config, now());
                }
                Step::Reset => prop_assert_eq!(shared.reset(now()), machine.reset(now())),
            }
            prop_assert_eq!(shared.state(), machine.state());
        }
        let seen = |machine: &mut Machine| {
            (machine.counts(now()), machine.consecutive_failures(), machine.unanswered(now()))
        };
        prop_assert_eq!(shared.with_machine(now(), seen), seen(&mut machine));
    }
}

#[test]
fn a_breaker_is_small_whatever_it_has_seen() {
    assert!(size_of::<Shared>() <= 792, "{}", size_of::<Shared>());
    assert!(size_of::<Ticket>() <= 24);
}
