//! What an operator can do to a breaker, and what is told of it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

#[cfg(feature = "serde")]
use mainstay::backoff::Jitter;
use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, OpenTime, TransitionReason};
#[cfg(feature = "serde")]
use mainstay::circuit_breaker::{FailuresPerPeriod, Ramp};
use mainstay::telemetry::Event;
use mainstay::telemetry::event::{CircuitBreakerEvent, CircuitBreakerEventKind};
use mainstay::{CircuitState, Outcome};
use tower::Layer;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn reset_closes_and_forgets_scenario_12() {
    let breaker = setup_r().build_handle().unwrap();
    run(&breaker, "SF");
    breaker.reset();
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 0));
    run(&breaker, "FFFFF");
    assert_eq!(breaker.state(), CircuitState::Open);
    breaker.reset();
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(breaker.statistics().failures, 6, "the accounts go on");
}

#[tokio::test(start_paused = true)]
async fn what_was_admitted_before_a_reset_has_no_say_after_it() {
    let breaker = consecutive(1).build_handle().unwrap();
    let before = permit(&breaker);
    breaker.reset();
    before.record(Outcome::Transient);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn disabled_admits_always_and_records_nothing_scenario_13() {
    let (breaker, log) = watched(setup_r());
    let before = permit(&breaker);
    breaker.disable();
    run(&breaker, "SFFFFFFFFFA");
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 0));
    assert_eq!(breaker.statistics().calls(), 0);
    assert_eq!(entered(&log), [CircuitState::Disabled]);
    before.record(Outcome::Success);
    assert_eq!(breaker.statistics().successes, 1, "it was admitted when calls were counted");
}

#[tokio::test(start_paused = true)]
async fn forced_open_has_no_end_scenario_14() {
    let breaker = setup_r().build_handle().unwrap();
    breaker.force_open();
    assert!(breaker.try_acquire().is_err());
    advance(secs(6)).await;
    let refusal = breaker.try_acquire().unwrap_err();
    assert_eq!((refusal.state(), refusal.retry_after()), (CircuitState::ForcedOpen, None));
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn transitions_that_make_no_sense_are_errors_scenario_15() {
    use CircuitState::{Closed, Disabled, HalfOpen, Observing, Open};
    let illegal =
        [(Closed, HalfOpen), (Disabled, HalfOpen), (Observing, HalfOpen), (Disabled, Open), (Observing, Open)];
    for from in CircuitState::ALL {
        for to in CircuitState::ALL {
            let (breaker, log) = watched(setup_r());
            let way: &[CircuitState] = if from == HalfOpen { &[Open, HalfOpen] } else { &[from] };
            way.iter().for_each(|&state| breaker.transition_to(state).unwrap());
            log.lock().unwrap().clear();
            match breaker.transition_to(to) {
                Ok(()) => {
                    assert!(!illegal.contains(&(from, to)), "from {from} to {to}");
                    assert_eq!(breaker.state(), to);
                    let expected: &[CircuitState] = if from == to { &[] } else { &[to] };
                    assert_eq!(entered(&log), expected, "the same state is no event");
                }
                Err(error) => {
                    assert!(illegal.contains(&(from, to)), "from {from} to {to}");
                    assert_eq!((error.from, error.to), (from, to));
                    assert_eq!(breaker.state(), from);
                    assert!(log.lock().unwrap().is_empty());
                }
            }
        }
    }
    let breaker = setup_r().build_handle().unwrap();
    let error = breaker.transition_to(HalfOpen).unwrap_err();
    assert_eq!(error.to_string(), "a circuit cannot go from closed to half-open");
}

#[tokio::test(start_paused = true)]
async fn it_begins_in_the_state_that_is_set_scenario_16() {
    use CircuitState::{Closed, Disabled, ForcedOpen, Observing, Open};
    for state in [Closed, Open, ForcedOpen, Disabled, Observing] {
        let breaker = setup_r().initial_state(state).build_handle().unwrap();
        assert_eq!(breaker.state(), state);
        assert_eq!(breaker.try_acquire().is_err(), matches!(state, Open | ForcedOpen));
    }
    let open = setup_r().initial_state(Open).build_handle().unwrap();
    assert_eq!(open.try_acquire().unwrap_err().retry_after(), Some(secs(5)));
    advance(secs(5)).await;
    assert!(permit(&open).is_probe());
}

#[tokio::test(start_paused = true)]
async fn one_handle_isolates_every_service_of_its_layers_scenario_23() {
    let breaker = setup_r().build_handle().unwrap();
    breaker.force_open();
    let (one, other) = (breaker.layer().layer(()), breaker.layer().layer(()));
    for service in [&one, &other] {
        let refusal = service.handle().try_acquire().unwrap_err();
        assert_eq!(refusal.retry_after(), None);
        assert_eq!(refusal.cause(), None);
    }
    breaker.close();
    assert!(one.handle().try_acquire().is_ok() && other.handle().try_acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn observing_records_and_never_opens() {
    let (breaker, log) = watched(setup_r().consecutive_failures(1));
    breaker.observe();
    run(&breaker, "FFFFFFFFFF");
    assert_eq!(metrics(&breaker), (Some(100.0), 0, 10, 10, 0));
    assert_eq!(entered(&log), [CircuitState::Observing]);
    breaker.close();
    assert_eq!(metrics(&breaker), (None, 0, 0, 0, 0), "and begins afresh when it is closed");
}

#[tokio::test(start_paused = true)]
async fn force_open_is_seen_by_the_very_next_call_on_any_thread_r16() {
    let breaker = setup_r().build_handle().unwrap();
    for _ in 0..100 {
        breaker.force_open();
        std::thread::scope(|scope| scope.spawn(|| assert!(breaker.try_acquire().is_err())).join().unwrap());
        breaker.close();
        std::thread::scope(|scope| scope.spawn(|| assert!(breaker.try_acquire().is_ok())).join().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_an_open_circuit_can_be_replaced() {
    let (breaker, log) = watched(consecutive(1));
    run(&breaker, "F");
    breaker.open_for(secs(60)).unwrap();
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(secs(60)));
    assert_eq!(entered(&log), [CircuitState::Open]);
    breaker.disable();
    assert!(breaker.open_for(secs(1)).is_err());
}

#[tokio::test(start_paused = true)]
async fn one_layer_applied_twice_shares_one_breaker() {
    let layer = CircuitBreakerLayer::builder("shared").consecutive_failures(1).build().unwrap();
    let (one, other) = (layer.layer(()), layer.clone().layer(()));
    one.handle().try_acquire().unwrap().record(Outcome::Transient);
    assert_eq!(other.handle().state(), CircuitState::Open);
    assert_eq!(one.clone().handle().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_every_transition_once_with_its_statistics() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    let breaker = counting(4, 4, 0.5)
        .open_time(OpenTime::Constant(secs(1)))
        .probes(1)
        .listener(move |event: &Event<'_>| log.lock().unwrap().push((event.to_string(), event.is_warning())))
        .build_handle()
        .unwrap();
    run(&breaker, "SFSF");
    advance(secs(1)).await;
    run(&breaker, "S");
    breaker.force_open();
    let heard = heard.lock().unwrap();
    let expected = [
        (
            "circuit `test` went from closed to open: failure_rate, 2 failed and 0 slow of 4 calls, \
             the next probe is due in 1s",
            true,
        ),
        ("circuit `test` went from open to half-open: open_time_over, 2 failed and 0 slow of 4 calls", false),
        ("circuit `test` went from half-open to closed: probes_succeeded, 0 failed and 0 slow of 1 calls", false),
        ("circuit `test` went from closed to forced open: operator, 0 failed and 0 slow of 0 calls", true),
    ];
    assert_eq!(heard.iter().map(|(text, warning)| (&**text, *warning)).collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_opening_event_carries_rate_and_cause() {
    let heard = Arc::new(AtomicU32::new(0));
    let count = heard.clone();
    let breaker = counting(2, 2, 0.5)
        .listener(move |event: &Event<'_>| {
            let Event::CircuitBreaker(CircuitBreakerEvent { name, kind, .. }) = event else { unreachable!() };
            let CircuitBreakerEventKind::StateChanged { to, calls, failures, cause, open_for, .. } = kind else {
                unreachable!()
            };
            assert_eq!((name.as_str(), *to, *calls, *failures), ("test", CircuitState::Open, 2, 1));
            assert_eq!((*cause, *open_for), (Some(Outcome::Transient), Some(secs(5))));
            count.fetch_add(1, Relaxed);
        })
        .build_handle()
        .unwrap();
    run(&breaker, "SF");
    assert_eq!(heard.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_use_the_breaker_and_may_panic() {
    let slot: Arc<Mutex<Option<mainstay::CircuitBreakerHandle>>> = Arc::default();
    let inside = slot.clone();
    let breaker = consecutive(1)
        .on_transition(move |change| {
            // No lock of the breaker is held here.
            let breaker = inside.lock().unwrap().clone().unwrap();
            assert_eq!(breaker.statistics().state, change.to);
        })
        .on_transition(|_| panic!("an observer of the test"))
        .listener(|_: &Event<'_>| panic!("a listener of the test"))
        .build_handle()
        .unwrap();
    *slot.lock().unwrap() = Some(breaker.clone());
    run(&breaker, "F");
    assert_eq!(breaker.state(), CircuitState::Open);
    breaker.close();
    run(&breaker, "S");
    *slot.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn reasons_tell_what_tripped_it() {
    for (builder, calls, reason) in [
        (counting(4, 4, 0.5), "FFFF", TransitionReason::FailureRate),
        (consecutive(2), "FF", TransitionReason::ConsecutiveFailures),
    ] {
        let (breaker, log) = watched(builder);
        run(&breaker, calls);
        assert_eq!(log.lock().unwrap()[0].reason, reason);
    }
}

#[test]
fn bad_settings_are_errors_and_not_panics() {
    let mut config = CircuitBreakerConfig::default();
    config.probes = 0;
    let error = CircuitBreakerLayer::new("bad", config).unwrap_err();
    assert_eq!(error.to_string(), "`bad`: invalid `probes` = 0: must be from 1 to 1024");
}

#[test]
fn a_breaker_lives_outside_a_runtime() {
    let breaker = setup_r().build_handle().unwrap();
    run(&breaker, "SFSFF");
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[cfg(feature = "serde")]
#[test]
fn settings_are_read_from_a_file() {
    let text = r#"
        window = { time = { length = "30s" } }
        failure_rate = 0.3
        failures_per_period = { failures = 9, period = "1m" }
        slow_calls = { longer_than = "800ms", rate = 0.5 }
        open_time = { exponential = { initial = "1s", factor = 2.0, max = "1m" } }
        probe_rule = { consecutive_successes = 2 }
        initial_state = "observing"
        throttled_opens = "2m"
        half_open_max = "1m"
        ramp = { shares = [0.2, 0.6], step = "3s" }
    "#;
    let config: CircuitBreakerConfig = toml::from_str(text).unwrap();
    config.validate().unwrap();
    assert_eq!(config.initial_state, CircuitState::Observing);
    assert_eq!(config.slow_calls.unwrap().longer_than, millis(800));
    assert_eq!(config.throttled_opens, Some(secs(120)));
    assert_eq!(config.failures_per_period, Some(FailuresPerPeriod { failures: 9, period: secs(60) }));
    assert_eq!((config.half_open_max, config.minimum_calls), (Some(secs(60)), 20));
    assert_eq!(config.ramp, Some(Ramp { shares: vec![0.2, 0.6], step: secs(3) }));
    let again: CircuitBreakerConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);

    assert!(
        matches!(config.open_time, OpenTime::Exponential { jitter: Jitter::None, .. }),
        "none, if the file says none"
    );
    let spread = r#"open_time = { exponential = { initial = "1s", factor = 2.0, max = "1m", jitter = "equal" } }"#;
    let spread: CircuitBreakerConfig = toml::from_str(spread).unwrap();
    assert!(matches!(spread.open_time, OpenTime::Exponential { jitter: Jitter::Equal, .. }));

    let constant: CircuitBreakerConfig = toml::from_str(r#"open_time = { constant = "2s" }"#).unwrap();
    assert_eq!(constant.open_time, OpenTime::Constant(secs(2)));
    let error = toml::from_str::<CircuitBreakerConfig>("failure_rat = 0.3").unwrap_err();
    assert!(error.to_string().contains("failure_rat"), "{error}");
}
