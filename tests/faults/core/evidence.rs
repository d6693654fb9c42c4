//! What opens, closes and observes a circuit.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::circuit_breaker::{
    CircuitBreakerBuilder, CircuitBreakerHandle, FailuresPerPeriod, SlowCalls, TransitionReason, Window,
};
use mainstay::telemetry::Event;
use mainstay::{
    BoxError, CircuitBreakerLayer, CircuitState, DefaultClassifier, Outcome, Rejectable, Rejected, TimeoutLayer,
    classify_fn,
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
    let breaker = breaker.open_time(mainstay::circuit_breaker::OpenTime::Constant(Duration::ZERO));
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
    }
    let now = breaker.statistics();
    assert_eq!((now.state, now.ignored, now.window_unanswered), (CircuitState::Closed, 300, 0));
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
async fn entry_04_what_is_ignored_at_the_deadline_was_cut_by_it() {
    let ignores_errors = classify_fn(|result: Result<&bool, &BoxError>| match result {
        Ok(true) => Outcome::Success,
        _ => Outcome::Ignored,
    });
    // A client with a timer of its own, and a gateway that answers "out of time".
    for response in [Err("timed out"), Ok(false)] {
        for (takes, state) in [(secs(2), CircuitState::Open), (secs(1), CircuitState::Closed)] {
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
