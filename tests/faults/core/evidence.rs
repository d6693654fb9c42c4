//! What opens, closes and observes a circuit.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::circuit_breaker::{
    CircuitBreakerBuilder, CircuitBreakerHandle, FailuresPerPeriod, OpenTime, SlowCalls, TransitionReason, Window,
};
use mainstay::telemetry::Event;
use mainstay::{
    BoxError, CircuitBreakerLayer, CircuitState, DefaultClassifier, LoadFailed, Outcome, Rejectable, Rejected,
    TimeoutLayer, classify_fn,
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Builder = CircuitBreakerBuilder<DefaultClassifier>;

fn builder() -> Builder {
    CircuitBreakerHandle::builder("db")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn abandon(breaker: &CircuitBreakerHandle, calls: usize) {
    for _ in 0..calls {
        drop(breaker.try_acquire().expect("the breaker admits"));
    }
}

fn answer(breaker: &CircuitBreakerHandle, outcome: Outcome) {
    breaker.try_acquire().expect("the breaker admits").record(outcome);
}

/// Calls in a row through total timeout, breaker and attempt timeout, in front of a callee that never answers.
async fn call_a_black_hole(breaker: Builder, total: Duration, attempt: Duration, calls: usize) -> CircuitBreakerHandle {
    let breaker = breaker.build_handle().unwrap();
    let mut service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("total", total).unwrap())
        .layer(breaker.layer())
        .layer(TimeoutLayer::attempt("attempt", attempt).unwrap())
        .service(service_fn(|()| pending::<Result<(), BoxError>>()));
    for _ in 0..calls {
        ServiceExt::ready(&mut service).await.unwrap().call(()).await.unwrap_err();
    }
    let now = breaker.statistics();
    assert_eq!(now.calls(), calls as u64, "{now:?}");
    breaker
}

// === 3 ===

#[tokio::test(start_paused = true)]
async fn entry_03_a_call_that_a_deadline_cut_beyond_the_slow_threshold_was_slow() {
    let slow = SlowCalls { longer_than: secs(1), rate: 0.5 };
    let breaker = call_a_black_hole(builder().slow_calls(slow).minimum_calls(10), secs(2), secs(10), 100).await;
    let now = breaker.statistics();
    assert_eq!((now.state, now.ignored, now.rejected), (CircuitState::Open, 10, 90));
    assert_eq!((now.window_calls, now.window_slow_calls, now.window_failures), (10, 10, 0));
}

#[tokio::test(start_paused = true)]
async fn entry_03_a_slow_call_is_slow_however_it_ended() {
    let breaker = builder().slow_calls(SlowCalls { longer_than: secs(1), rate: 1.0 }).build_handle().unwrap();
    let outcomes = [
        Outcome::Success,
        Outcome::Refused,
        Outcome::DependencyFailed,
        Outcome::Transient,
        Outcome::Throttled { retry_after: None },
        Outcome::Ignored,
    ];
    for outcome in outcomes {
        let permit = breaker.try_acquire().unwrap();
        advance(secs(2)).await;
        permit.record(outcome);
    }
    let permit = breaker.try_acquire().unwrap();
    advance(secs(2)).await;
    drop(permit);
    let now = breaker.statistics();
    assert_eq!((now.window_calls, now.window_slow_calls, now.window_failures), (7, 7, 1));
    assert_eq!((now.successes, now.refused, now.failures, now.ignored, now.abandoned), (1, 2, 1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn entry_03_a_call_cut_at_the_threshold_is_not_slow() {
    let slow = SlowCalls { longer_than: secs(2), rate: 0.5 };
    let breaker = call_a_black_hole(builder().slow_calls(slow), secs(2), secs(10), 10).await;
    assert_eq!(breaker.statistics().window_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn entry_03_a_probe_that_a_deadline_cut_beyond_the_threshold_reopens() {
    let slow = SlowCalls { longer_than: secs(1), rate: 0.5 };
    let breaker = builder().slow_calls(slow).probes(1).initial_state(CircuitState::Open);
    let breaker = breaker.open_time(OpenTime::Constant(Duration::ZERO));
    let breaker = call_a_black_hole(breaker, secs(2), secs(10), 3).await;
    let now = breaker.statistics();
    assert_eq!((now.state, now.consecutive_opens), (CircuitState::Open, 4));
}

#[tokio::test(start_paused = true)]
async fn entry_03_time_before_a_local_rejection_is_not_the_callees() {
    let breaker = builder().slow_calls(SlowCalls { longer_than: secs(1), rate: 0.5 }).build_handle().unwrap();
    for _ in 0..50 {
        let queue_then_shed = async {
            tokio::time::sleep(secs(2)).await;
            Err::<(), BoxError>(BoxError::from_rejected(Rejected::shed()))
        };
        breaker.call(queue_then_shed).await.unwrap_err();
    }
    let now = breaker.statistics();
    assert_eq!((now.state, now.ignored, now.window_calls), (CircuitState::Closed, 50, 0));

    // Nor is a probe slow that was never sent.
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let queue_then_shed = async {
        tokio::time::sleep(secs(2)).await;
        Err::<(), BoxError>(BoxError::from_rejected(Rejected::shed()))
    };
    breaker.call(queue_then_shed).await.unwrap_err();
    let now = breaker.statistics();
    assert_eq!((now.state, now.window_calls, now.probes_in_flight), (CircuitState::HalfOpen, 0, 0));
}

// === 4 ===

#[tokio::test(start_paused = true)]
async fn entry_04_a_black_hole_behind_a_short_deadline_opens_the_default_breaker() {
    let breaker = call_a_black_hole(builder(), secs(2), secs(10), 1_000).await;
    let now = breaker.statistics();
    // It is half-open every five seconds, and 20 probes without an answer open it again.
    assert!(now.ignored < 100 && now.rejected > 900, "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn entry_04_it_opens_at_the_minimum_of_calls_and_says_why() {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::new(Mutex::new(Vec::new()));
    let (log, lines) = (changes.clone(), events.clone());
    let watched = builder()
        .on_transition(move |change| log.lock().unwrap().push(*change))
        .listener(move |event: &Event<'_>| lines.lock().unwrap().push((event.kind().to_owned(), event.to_string())));
    let breaker = call_a_black_hole(watched, secs(2), secs(10), 20).await;
    assert_eq!(breaker.state(), CircuitState::Open);
    let changes = changes.lock().unwrap();
    let change = changes[0];
    assert_eq!((change.reason, change.reason.as_str()), (TransitionReason::Unanswered, "unanswered"));
    assert_eq!((change.calls, change.failures, change.slow_calls, change.cut_by_deadline), (20, 0, 0, 20));
    assert_eq!(change.cause, Some(Outcome::Ignored));
    assert_eq!(breaker.try_acquire().unwrap_err().cause(), Some(Outcome::Ignored));
    let events = events.lock().unwrap();
    let expected = [
        ("state_changed", "went from closed to open: unanswered, none of 20 calls was answered"),
        ("deadline_before_timeout", "20 of 20 calls without an answer were cut by the deadline of the caller"),
    ];
    assert_eq!(events.len(), expected.len(), "{events:?}");
    for ((kind, line), (expected_kind, text)) in events.iter().zip(expected) {
        assert_eq!(kind, expected_kind);
        assert!(line.contains(text), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_equal_timeouts_and_callers_that_leave_open_it() {
    let equal = call_a_black_hole(builder(), secs(2), secs(2), 20).await;
    assert_eq!(equal.state(), CircuitState::Open);

    let layer = CircuitBreakerLayer::builder("db").build().unwrap();
    let mut service = layer.layer(service_fn(|()| pending::<Result<(), BoxError>>()));
    for _ in 0..20 {
        let call = ServiceExt::ready(&mut service).await.unwrap().call(());
        tokio::time::timeout(secs(1), call).await.unwrap_err();
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn entry_04_every_kind_of_breaker_opens() {
    let per_period = FailuresPerPeriod { failures: 3, period: secs(60) };
    let kinds = [
        builder().window(Window::Count { calls: 20 }),
        builder().window(Window::Time { length: secs(100) }),
        builder().failure_rate(None).consecutive_failures(5),
        builder().failure_rate(None).consecutive_failures(5).window(Window::Time { length: secs(10) }),
        builder().failure_rate(None).failures_per_period(per_period),
        builder().slow_calls(SlowCalls { longer_than: secs(60), rate: 0.5 }),
        builder().window(Window::Time { length: secs(100) }).slow_calls(SlowCalls { longer_than: secs(60), rate: 0.5 }),
    ];
    for kind in kinds {
        let breaker = kind.build_handle().unwrap();
        abandon(&breaker, 19);
        assert_eq!((breaker.state(), breaker.statistics().window_unanswered), (CircuitState::Closed, 19));
        abandon(&breaker, 1);
        assert_eq!(breaker.state(), CircuitState::Open, "{:?}", breaker.config());
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_a_callee_that_turns_into_a_black_hole_opens_it_once_the_answers_have_left_the_window() {
    let counted = builder().build_handle().unwrap();
    let in_a_row = builder().failure_rate(None).consecutive_failures(5).build_handle().unwrap();
    for breaker in [counted, in_a_row] {
        (0..1_000).for_each(|_| answer(&breaker, Outcome::Success));
        abandon(&breaker, 99);
        assert_eq!((breaker.state(), breaker.statistics().window_unanswered), (CircuitState::Closed, 0));
        abandon(&breaker, 1);
        assert_eq!(breaker.state(), CircuitState::Open);
    }

    let timed = builder().window(Window::Time { length: secs(10) }).build_handle().unwrap();
    (0..1_000).for_each(|_| answer(&timed, Outcome::Success));
    abandon(&timed, 50);
    assert_eq!(timed.state(), CircuitState::Closed);
    advance(secs(11)).await;
    abandon(&timed, 20);
    assert_eq!(timed.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn entry_04_one_answer_in_the_window_keeps_it_closed() {
    let answers = [
        Outcome::Success,
        Outcome::Refused,
        Outcome::DependencyFailed,
        Outcome::Transient,
        Outcome::Throttled { retry_after: None },
    ];
    for window in [Window::Count { calls: 100 }, Window::Time { length: secs(10) }] {
        for outcome in answers {
            let breaker = builder().window(window).build_handle().unwrap();
            abandon(&breaker, 19);
            answer(&breaker, outcome);
            abandon(&breaker, 19);
            assert_eq!(breaker.state(), CircuitState::Closed, "{outcome} in {window:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_callers_that_leave_beside_answered_calls_do_not_open_it() {
    let kinds = [
        builder(),
        builder().window(Window::Time { length: secs(10) }),
        builder().failure_rate(None).consecutive_failures(5),
    ];
    for kind in kinds {
        let breaker = kind.build_handle().unwrap();
        // The losers of a race between 64 replicas, and the winner.
        for _ in 0..200 {
            answer(&breaker, Outcome::Success);
            abandon(&breaker, 63);
        }
        let now = breaker.statistics();
        assert_eq!((now.state, now.successes, now.abandoned), (CircuitState::Closed, 200, 200 * 63));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_too_few_calls_in_a_time_window_are_no_black_hole() {
    let breaker = builder().window(Window::Time { length: secs(10) }).build_handle().unwrap();
    for _ in 0..200 {
        abandon(&breaker, 1);
        advance(secs(1)).await;
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn entry_04_what_was_never_sent_or_never_judged_is_no_black_hole() {
    let breaker = builder().build_handle().unwrap();
    for _ in 0..100 {
        let shed = async { Err::<(), BoxError>(BoxError::from_rejected(Rejected::shed())) };
        breaker.call(shed).await.unwrap_err();
        let late = async { Err::<(), _>(BoxError::from_rejected(Rejected::DeadlineExceeded { sent: false })) };
        breaker.call(late).await.unwrap_err();
        answer(&breaker, Outcome::Ignored);
        // A load that several calls shared and whose leader left.
        let failed = LoadFailed::new(Outcome::Ignored, Arc::new(std::io::Error::other("the leader left")));
        breaker.call(async { Err::<(), _>(BoxError::from_rejected(failed.into())) }).await.unwrap_err();
    }
    let now = breaker.statistics();
    assert_eq!((now.state, now.ignored, now.window_unanswered), (CircuitState::Closed, 400, 0));
}

#[tokio::test(start_paused = true)]
async fn entry_04_a_response_is_an_answer_whatever_its_outcome() {
    let breaker = builder().build_handle().unwrap();
    let ignores_all = classify_fn(|_: Result<&(), &BoxError>| Outcome::Ignored);
    for _ in 0..50 {
        abandon(&breaker, 19);
        breaker.call_with(ignores_all, async { Ok::<_, BoxError>(()) }).await.unwrap();
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn entry_04_an_attempt_timeout_is_a_failure_and_no_answer() {
    let breaker = builder().build_handle().unwrap();
    abandon(&breaker, 19);
    let timed_out = Rejected::Timeout { timeout: secs(1), sent: true };
    breaker.call(async { Err::<(), _>(BoxError::from_rejected(timed_out)) }).await.unwrap_err();
    let now = breaker.statistics();
    assert_eq!((now.failures, now.window_unanswered), (1, 19));
    abandon(&breaker, 1);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn entry_04_what_is_ignored_at_the_deadline_was_cut_by_it() {
    let ignores_errors = classify_fn(|result: Result<&bool, &BoxError>| match result {
        Ok(true) => Outcome::Success,
        _ => Outcome::Ignored,
    });
    // A client with its own timer reports a cut call as an error. A response that says that the caller's time is up is no
    // evidence, or callers with tiny deadlines could open the circuit.
    let (open, closed) = (CircuitState::Open, CircuitState::Closed);
    for (response, at_deadline) in [(Err("timed out"), open), (Ok(false), closed)] {
        for (takes, state) in [(secs(2), at_deadline), (secs(1), closed)] {
            let layer = CircuitBreakerLayer::builder("db").classify(ignores_errors).build().unwrap();
            let mut service = ServiceBuilder::new()
                .layer(TimeoutLayer::total("total", secs(2)).unwrap())
                .layer(layer.clone())
                .service(service_fn(|()| async move {
                    tokio::time::sleep(takes).await;
                    response.map_err(BoxError::from)
                }));
            for _ in 0..20 {
                let _ = ServiceExt::ready(&mut service).await.unwrap().call(()).await;
            }
            assert_eq!(layer.handle().state(), state, "{response:?} after {takes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_a_half_open_circuit_reopens_when_no_probe_is_answered() {
    let breaker = builder().build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    advance(secs(5)).await;
    abandon(&breaker, 10);
    answer(&breaker, Outcome::Success);
    abandon(&breaker, 19);
    assert_eq!((breaker.state(), breaker.statistics().window_unanswered), (CircuitState::HalfOpen, 19));
    abandon(&breaker, 1);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn entry_04_an_observing_and_a_disabled_breaker_stay() {
    let breaker = builder().build_handle().unwrap();
    for state in [CircuitState::Observing, CircuitState::Disabled] {
        breaker.transition_to(state).unwrap();
        abandon(&breaker, 100);
        assert_eq!(breaker.state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_stragglers_of_the_time_before_do_not_open_it_again() {
    let breaker = builder().build_handle().unwrap();
    let out: Vec<_> = (0..100).map(|_| breaker.try_acquire().unwrap()).collect();
    breaker.reset();
    drop(out);
    assert_eq!((breaker.state(), breaker.statistics().abandoned), (CircuitState::Closed, 100));
}

#[tokio::test(start_paused = true)]
async fn entry_04_other_settings_keep_the_calls_without_an_answer() {
    for (window, next) in [
        (Window::Count { calls: 100 }, Window::Count { calls: 50 }),
        (Window::Time { length: secs(10) }, Window::Time { length: secs(20) }),
    ] {
        let breaker = builder().window(window).build_handle().unwrap();
        abandon(&breaker, 15);
        let mut config = breaker.config();
        config.window = next;
        config.minimum_calls = 16;
        breaker.reconfigure(config).unwrap();
        assert_eq!(breaker.state(), CircuitState::Closed, "nothing trips in the moment itself");
        abandon(&breaker, 1);
        assert_eq!(breaker.state(), CircuitState::Open, "{window:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_04_a_black_hole_in_a_pool_loses_its_calls() {
    use mainstay::balance::{EjectionConfig, Picker, Pool};
    use mainstay::circuit_breaker::CircuitBreakerConfig;

    let pool = Pool::builder("pool")
        .picker(Picker::RoundRobin)
        .ejection(None::<EjectionConfig>)
        .circuit_breaker(CircuitBreakerConfig::default())
        .build()
        .unwrap();
    for key in 0..4_u8 {
        let attempt = TimeoutLayer::attempt("attempt", secs(10)).unwrap();
        let endpoint = attempt.layer(service_fn(move |()| async move {
            if key == 0 { pending().await } else { Ok::<_, BoxError>(key) }
        }));
        pool.handle().add(key, endpoint);
    }
    let mut service = TimeoutLayer::total("total", secs(2)).unwrap().layer(pool.clone());
    let mut cut = 0;
    for _ in 0..1_000 {
        cut += u32::from(ServiceExt::ready(&mut service).await.unwrap().call(()).await.is_err());
    }
    let circuit = pool.handle().endpoints().into_iter().find(|it| it.key == 0).and_then(|it| it.circuit);
    assert_ne!(circuit, Some(CircuitState::Closed));
    assert!(cut < 60, "{cut} calls went to the black hole");
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn entry_04_a_streamed_answer_that_the_caller_gives_up_is_an_answer() {
    use bytes::Bytes;
    use http::Response;
    use http_body_util::Full;
    use mainstay::HttpClassifier;
    use mainstay::http::StreamBreakerLayer;

    let breaker = builder().build_handle().unwrap();
    let mut streams = StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new())
        .layer(service_fn(|()| async { Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("an event")))) }));
    for _ in 0..100 {
        let response = ServiceExt::ready(&mut streams).await.unwrap().call(()).await.unwrap();
        drop(response);
    }
    let now = breaker.statistics();
    assert_eq!((now.state, now.abandoned, now.window_unanswered), (CircuitState::Closed, 100, 0));
}

// === 9 ===

#[tokio::test(start_paused = true)]
async fn entry_09_open_breakers_of_dead_keys_make_room() {
    let layer = CircuitBreakerLayer::builder("pods")
        .keyed(|pod: &u32| Some(*pod))
        .max_keys(64)
        .idle_after(secs(60))
        .build()
        .unwrap();
    let breakers = layer.handle();
    for pod in 0..200 {
        let breaker = breakers.get_or_create(pod).unwrap_or_else(|| panic!("no room for pod {pod}"));
        (0..20).for_each(|_| answer(&breaker, Outcome::Transient));
        assert_eq!(breaker.state(), CircuitState::Open);
        drop(breaker);
        advance(secs(5)).await;
    }
    assert!(breakers.keys() < 64, "{}", breakers.keys());
    assert_eq!(breakers.statistics().overflowed, 0);
}

#[tokio::test(start_paused = true)]
async fn entry_09_an_open_breaker_goes_when_its_open_time_ended_long_enough_ago() {
    let layer = CircuitBreakerLayer::builder("pods").keyed(|pod: &u32| Some(*pod)).idle_after(secs(60));
    let breakers = layer.build().unwrap().handle();
    breakers.get_or_create(1).unwrap().open_for(secs(100)).unwrap();
    for (wait, keys) in [(70, 1), (30, 1), (59, 1), (1, 0)] {
        advance(secs(wait)).await;
        breakers.evict_idle();
        assert_eq!(breakers.keys(), keys);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_09_half_open_breakers_go_and_forced_ones_and_those_in_use_stay() {
    let layer = CircuitBreakerLayer::builder("pods").keyed(|pod: &u32| Some(*pod)).idle_after(secs(60));
    let breakers = layer.build().unwrap().handle();
    let [half_open, probed, forced, disabled] = [1, 2, 3, 4].map(|pod| breakers.get_or_create(pod).unwrap());
    for breaker in [&half_open, &probed] {
        breaker.transition_to(CircuitState::Open).unwrap();
        breaker.transition_to(CircuitState::HalfOpen).unwrap();
    }
    let probe = probed.try_acquire().unwrap();
    assert!(probe.is_probe());
    forced.force_open();
    disabled.disable();
    drop((half_open, probed, forced, disabled));
    breakers.evict_idle();
    advance(secs(61)).await;
    assert_eq!((breakers.evict_idle(), breakers.get(&1).is_none()), (1, true));
    drop(probe);
    advance(secs(61)).await;
    assert_eq!((breakers.evict_idle(), breakers.keys()), (1, 2));
    advance(secs(3_600)).await;
    assert_eq!((breakers.evict_idle(), breakers.keys()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn entry_09_a_breaker_that_begins_open_makes_room_in_whatever_state_it_got_to_by_itself() {
    let layer = CircuitBreakerLayer::builder("pods").initial_state(CircuitState::Open).probes(1);
    let breakers = layer.keyed(|pod: &u32| Some(*pod)).idle_after(secs(60)).build().unwrap().handle();
    for pod in 0..2 {
        let _ = breakers.get_or_create(pod).unwrap();
    }
    advance(secs(5)).await;
    answer(&breakers.get(&1).unwrap(), Outcome::Success);
    assert_eq!([0, 1].map(|pod| breakers.get(&pod).unwrap().state()), [CircuitState::Open, CircuitState::Closed]);
    breakers.evict_idle();
    advance(secs(61)).await;
    assert_eq!(breakers.evict_idle(), 2);
}

// === 10 ===

#[tokio::test(start_paused = true)]
async fn entry_10_a_circuit_with_few_calls_closes_although_its_stay_is_over() {
    let breaker = builder().half_open_max(secs(60)).probes(3).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    for call in 0..144 {
        advance(secs(600)).await;
        let permit = breaker.try_acquire().unwrap_or_else(|open| panic!("call {call}: {open:?}"));
        advance(Duration::from_millis(10)).await;
        permit.success();
    }
    let now = breaker.statistics();
    assert_eq!((now.state, now.successes, now.rejected), (CircuitState::Closed, 144, 0));
}

#[tokio::test(start_paused = true)]
async fn entry_10_a_probe_that_is_out_or_was_bad_ends_the_stay() {
    let half_open = || {
        let slow = SlowCalls { longer_than: secs(1), rate: 1.0 };
        let breaker = builder().slow_calls(slow).half_open_max(secs(60)).probes(3).build_handle().unwrap();
        breaker.transition_to(CircuitState::Open).unwrap();
        breaker.transition_to(CircuitState::HalfOpen).unwrap();
        breaker
    };
    let out = half_open();
    let probe = out.try_acquire().unwrap();
    advance(secs(59)).await;
    assert!(out.try_acquire().is_ok());
    advance(secs(1)).await;
    assert!(out.try_acquire().is_err());
    assert_eq!(out.state(), CircuitState::Open);
    drop(probe);

    let failed = half_open();
    answer(&failed, Outcome::Transient);
    advance(secs(60)).await;
    assert!(failed.try_acquire().is_err());

    let slow = half_open();
    let probe = slow.try_acquire().unwrap();
    advance(secs(2)).await;
    probe.success();
    advance(secs(58)).await;
    assert!(slow.try_acquire().is_err());

    // The stay that begins again is as long as the first.
    let idle = half_open();
    advance(secs(100)).await;
    let probe = idle.try_acquire().unwrap();
    advance(secs(59)).await;
    assert!(idle.try_acquire().is_ok());
    advance(secs(1)).await;
    assert!(idle.try_acquire().is_err());
    drop(probe);
}

// === 12 ===

#[cfg(feature = "metrics")]
mod gauges {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;

    const STATES: [&str; 3] = ["closed", "open", "forced_open"];

    /// The gauges of the breakers named `db`. A snapshot holds what was added since the one before.
    struct Shown(Snapshotter, [f64; STATES.len()]);

    impl Shown {
        fn now(&mut self) -> [f64; STATES.len()] {
            for (key, _, _, value) in self.0.snapshot().into_vec() {
                let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
                let state = STATES.iter().position(|state| labels == ["db", state]);
                if key.key().name() == "mainstay_circuit_breaker_state"
                    && let (Some(state), DebugValue::Gauge(value)) = (state, value)
                {
                    self.1[state] += value.into_inner();
                }
            }
            self.1
        }
    }

    #[test]
    fn entry_12_the_keys_of_layers_of_one_name_add_up() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let mut sum = 0.0;
        let mut keys = || {
            for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                if let ("mainstay_circuit_breaker_keys", DebugValue::Gauge(added)) = (key.key().name(), value) {
                    sum += added.into_inner();
                }
            }
            sum
        };
        metrics::with_local_recorder(&recorder, || {
            let [one, other] = [(); 2]
                .map(|()| CircuitBreakerLayer::builder("db").keyed(|key: &u8| Some(*key)).build().unwrap().handle());
            for key in 0..5 {
                one.get_or_create(key).unwrap();
            }
            other.get_or_create(0).unwrap();
            assert_eq!(keys(), 6.0);
            one.remove(&0).unwrap();
            assert_eq!(keys(), 5.0);
            drop(one);
            assert_eq!(keys(), 1.0);
        });
    }

    #[test]
    fn entry_12_layers_of_one_name_add_up_in_the_gauge_and_leave_it_when_they_are_dropped() {
        let recorder = DebuggingRecorder::new();
        let mut shown = Shown(recorder.snapshotter(), [0.0; 3]);
        metrics::with_local_recorder(&recorder, || {
            let [one, other, last] = [(); 3].map(|()| builder().build_handle().unwrap());
            assert_eq!(shown.now(), [3.0, 0.0, 0.0]);
            one.force_open();
            drop(last);
            assert_eq!(shown.now(), [1.0, 0.0, 1.0]);
            other.transition_to(CircuitState::Open).unwrap();
            one.force_open();
            let newest = builder().build_handle().unwrap();
            assert_eq!(shown.now(), [1.0, 1.0, 1.0]);
            one.reset();
            assert_eq!(shown.now(), [2.0, 1.0, 0.0]);
            drop((one, other, newest));
            assert_eq!(shown.now(), [0.0, 0.0, 0.0]);
        });
    }
}

// === 27 ===

#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after completion")]
async fn entry_27_a_follower_that_is_polled_after_completion_panics() {
    let breaker = builder().build_handle().unwrap();
    let mut follower = Box::pin(breaker.follow_open_time());
    drop(breaker);
    follower.as_mut().await;
    follower.as_mut().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after completion")]
async fn entry_27_a_response_that_is_polled_after_completion_panics() {
    let breaker = builder().build_handle().unwrap();
    let mut response = Box::pin(breaker.call(std::future::poll_fn(|_| std::task::Poll::Ready(Ok::<_, BoxError>(())))));
    response.as_mut().await.unwrap();
    let _ = response.as_mut().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after completion")]
async fn entry_27_a_rejection_that_is_polled_after_completion_panics() {
    let breaker = builder().build_handle().unwrap();
    breaker.force_open();
    let mut response = Box::pin(breaker.call(async { Ok::<_, BoxError>(()) }));
    response.as_mut().await.unwrap_err();
    let _ = response.as_mut().await;
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after completion")]
async fn entry_27_a_stream_breakers_response_that_is_polled_after_completion_panics() {
    let breaker = builder().build_handle().unwrap();
    let mut streams = mainstay::http::StreamBreakerLayer::new(breaker, mainstay::HttpClassifier::new()).layer(
        service_fn(|()| async { Ok::<_, BoxError>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new())) }),
    );
    let mut response = Box::pin(ServiceExt::ready(&mut streams).await.unwrap().call(()));
    response.as_mut().await.unwrap();
    let _ = response.as_mut().await;
}

// === 29 ===

#[tokio::test(start_paused = true)]
async fn entry_29_an_observing_breaker_reports_what_it_would_have_done() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let breaker = builder()
        .open_time(OpenTime::Constant(secs(5)))
        .initial_state(CircuitState::Observing)
        .on_transition(|change| panic!("{change:?}"))
        .listener(move |event: &Event<'_>| log.lock().unwrap().push((event.kind().to_owned(), event.to_string())))
        .build_handle()
        .unwrap();
    let would_have = |breaker: &CircuitBreakerHandle| {
        let now = breaker.statistics();
        (now.would_have_opened, now.would_have_rejected)
    };
    (0..19).for_each(|_| answer(&breaker, Outcome::Transient));
    assert_eq!(would_have(&breaker), (0, 0));
    answer(&breaker, Outcome::Transient);
    assert_eq!(would_have(&breaker), (1, 0));
    (0..30).for_each(|_| answer(&breaker, Outcome::Transient));
    assert_eq!(would_have(&breaker), (1, 30), "open for five seconds");

    // The first call after that stands for the probes.
    advance(secs(5)).await;
    answer(&breaker, Outcome::Transient);
    assert_eq!(would_have(&breaker), (2, 30));
    advance(secs(4)).await;
    answer(&breaker, Outcome::Success);
    assert_eq!(would_have(&breaker), (2, 31));
    advance(secs(1)).await;
    answer(&breaker, Outcome::Success);
    (0..19).for_each(|_| answer(&breaker, Outcome::Transient));
    assert_eq!(would_have(&breaker), (2, 31), "closed, and fewer than the minimum");
    answer(&breaker, Outcome::Transient);
    assert_eq!(would_have(&breaker), (3, 31));

    let now = breaker.statistics();
    assert_eq!((now.state, now.rejected, now.calls()), (CircuitState::Observing, 0, 20 + 30 + 1 + 1 + 1 + 20));
    let lines = lines.lock().unwrap();
    let kinds: Vec<_> = lines.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["would_open"; 3]);
    assert!(lines[0].1.contains("would open: failure_rate, 20 failed and 0 slow of 20 calls, for 5s"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn entry_29_every_rule_is_reported_and_forgotten_with_the_state() {
    let observing = |builder: Builder| builder.initial_state(CircuitState::Observing).build_handle().unwrap();
    let in_a_row = observing(builder().failure_rate(None).consecutive_failures(2));
    (0..2).for_each(|_| answer(&in_a_row, Outcome::Transient));
    let black_hole = observing(builder());
    abandon(&black_hole, 20);
    let throttled = observing(builder().throttled_opens(secs(60)));
    answer(&throttled, Outcome::throttled(secs(7)));
    for breaker in [in_a_row, black_hole, throttled] {
        assert_eq!(breaker.statistics().would_have_opened, 1);
        breaker.close();
        breaker.observe();
        answer(&breaker, Outcome::Success);
        let now = breaker.statistics();
        assert_eq!((now.would_have_opened, now.would_have_rejected), (1, 0), "it began again");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_29_keys_add_up() {
    let layer = CircuitBreakerLayer::builder("shards").initial_state(CircuitState::Observing).consecutive_failures(1);
    let breakers = layer.keyed(|shard: &u8| Some(*shard)).build().unwrap().handle();
    for shard in 0..3 {
        let breaker = breakers.get_or_create(shard).unwrap();
        answer(&breaker, Outcome::Transient);
        answer(&breaker, Outcome::Success);
    }
    let now = breakers.statistics();
    assert_eq!((now.would_have_opened, now.would_have_rejected), (3, 3));
}

// === 30 ===

#[tokio::test(start_paused = true)]
async fn entry_30_a_keyed_breaker_takes_other_settings_and_keeps_what_it_learned() {
    let layer = CircuitBreakerLayer::builder("shards").failure_rate(None).consecutive_failures(10);
    let layer =
        layer.open_time(OpenTime::Constant(secs(5))).keyed(|shard: &u8| Some(*shard)).max_keys(3).build().unwrap();
    let breakers = layer.handle();
    let [failing, open, forced] = [1, 2, 3].map(|shard| breakers.get_or_create(shard).unwrap());
    (0..3).for_each(|_| answer(&failing, Outcome::Transient));
    (0..10).for_each(|_| answer(&open, Outcome::Transient));
    forced.force_open();
    (0..3).for_each(|_| answer(&breakers.shared(), Outcome::Transient));
    let running = failing.try_acquire().unwrap();
    assert!(breakers.get_or_create(4).is_none(), "no room");

    let mut config = breakers.config();
    config.breaker.consecutive_failures = Some(4);
    config.max_keys = 4;
    config.idle_after = secs(120);
    breakers.reconfigure(config.clone()).unwrap();
    assert_eq!(breakers.config(), config);

    // What was open stays so, for the time that it was to be.
    assert_eq!((open.state(), forced.state()), (CircuitState::Open, CircuitState::ForcedOpen));
    assert_eq!(open.try_acquire().unwrap_err().retry_after(), Some(secs(5)));
    // The failures so far count, and so does a call that was running.
    assert_eq!(failing.state(), CircuitState::Closed);
    running.record(Outcome::Transient);
    assert_eq!(failing.state(), CircuitState::Open);
    answer(&breakers.shared(), Outcome::Transient);
    assert_eq!(breakers.shared().state(), CircuitState::Open);
    // A key that comes later.
    let later = breakers.get_or_create(4).expect("there is room now");
    (0..4).for_each(|_| answer(&later, Outcome::Transient));
    assert_eq!(later.state(), CircuitState::Open);
    assert!(breakers.get_or_create(5).is_none());
}

#[tokio::test(start_paused = true)]
async fn entry_30_settings_that_cannot_be_used_change_nothing() {
    let breakers = CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).build().unwrap().handle();
    let one = breakers.get_or_create(1).unwrap();
    let before = breakers.config();
    let mut config = before.clone();
    config.breaker.probes = 0;
    config.max_keys = 7;
    assert_eq!(breakers.reconfigure(config).unwrap_err().field(), "breaker.probes");
    assert_eq!((breakers.config(), one.config()), (before.clone(), before.breaker));
}

#[tokio::test(start_paused = true)]
async fn entry_30_fewer_keys_than_there_are_keep_theirs_until_they_are_idle() {
    let layer = CircuitBreakerLayer::builder("shards").keyed(|shard: &u8| Some(*shard)).idle_after(secs(60));
    let breakers = layer.build().unwrap().handle();
    for shard in 0..4 {
        let _ = breakers.get_or_create(shard).unwrap();
    }
    let mut config = breakers.config();
    config.max_keys = 2;
    config.idle_after = secs(30);
    breakers.reconfigure(config).unwrap();
    assert_eq!(breakers.keys(), 4);
    assert!(breakers.get_or_create(1).is_some() && breakers.get_or_create(9).is_none());
    breakers.evict_idle();
    advance(secs(31)).await;
    assert!(breakers.get_or_create(9).is_some());
    assert!(breakers.keys() <= 2);
}
