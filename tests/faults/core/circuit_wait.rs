//! Waiting for a circuit, and what its rejections say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use mainstay::circuit_breaker::{AdmissionMode, Admits, CircuitBreakerHandle, OpenTime, Permit, Ramp};
use mainstay::context::Context;
use mainstay::{BoxError, CircuitBreakerLayer, CircuitOpen, CircuitState, Outcome, Rejectable, Rejected};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

type Builder = mainstay::circuit_breaker::CircuitBreakerBuilder<mainstay::DefaultClassifier>;

/// Opens by 20 failures, and stays open for exactly 1 s.
fn builder() -> Builder {
    CircuitBreakerHandle::builder("db").open_time(OpenTime::Constant(SECOND))
}

fn fail(breaker: &CircuitBreakerHandle, times: usize) {
    (0..times).for_each(|_| breaker.try_acquire().expect("it admits").record(Outcome::Transient));
}

/// A half-open circuit all of whose probes are out.
async fn probing(builder: Builder) -> (CircuitBreakerHandle, Vec<Permit>) {
    let breaker = builder.build_handle().unwrap();
    fail(&breaker, 20);
    tokio::time::advance(SECOND).await;
    let probes = (0..3).map(|_| breaker.try_acquire().expect("a probe is due")).collect();
    (breaker, probes)
}

fn circuit_open(error: &BoxError) -> &CircuitOpen {
    match error.as_rejected() {
        Some(Rejected::CircuitOpen(open)) => open,
        other => panic!("{other:?} is not the rejection of a circuit"),
    }
}

#[tokio::test(start_paused = true)]
async fn entry_01_a_half_open_rejection_carries_no_time() {
    let (breaker, probes) = probing(builder()).await;
    let open = breaker.try_acquire().unwrap_err();
    assert_eq!(
        (open.state(), open.retry_after(), open.cause()),
        (CircuitState::HalfOpen, None, Some(Outcome::Transient))
    );
    assert_eq!(open.to_string(), "circuit `db` is half-open");
    assert_eq!(breaker.admits(), Admits::Nothing { retry_after: None });
    assert_eq!(breaker.statistics().retry_after, None);
    let error = breaker.call(async { Ok::<(), BoxError>(()) }).await.unwrap_err();
    assert_eq!(circuit_open(&error).retry_after(), None);
    let mut service = breaker.layer().layer(service_fn(|()| async { Ok::<(), BoxError>(()) }));
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!((circuit_open(&error).state(), circuit_open(&error).retry_after()), (CircuitState::HalfOpen, None));

    // Ten milliseconds later they are well, and the circuit is closed.
    tokio::time::advance(Duration::from_millis(10)).await;
    probes.into_iter().for_each(Permit::success);
    assert!(breaker.try_acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn entry_01_neither_does_one_whose_stay_is_limited_nor_one_of_a_keyed_breaker_or_a_ramp() {
    let (limited, _probes) = probing(builder().half_open_max(7 * SECOND).probe_deadline(3 * SECOND)).await;
    assert_eq!(limited.try_acquire().unwrap_err().retry_after(), None);

    let (climbing, probes) = probing(builder().ramp(Ramp::default())).await;
    probes.into_iter().for_each(Permit::success);
    let _first_of_ten = climbing.try_acquire().expect("the first call of a step is admitted");
    let open = climbing.try_acquire().unwrap_err();
    assert_eq!((open.state(), open.retry_after()), (CircuitState::HalfOpen, None));

    let layer = CircuitBreakerLayer::builder("db")
        .open_time(OpenTime::Constant(SECOND))
        .keyed(|shard: &u32| Some(*shard))
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(|_: u32| std::future::pending::<Result<(), BoxError>>()));
    let shard = layer.handle().get_or_create(1).unwrap();
    fail(&shard, 20);
    tokio::time::advance(SECOND).await;
    let _probes: Vec<_> = (0..3).map(|_| shard.try_acquire().expect("a probe is due")).collect();
    let error = service.ready().await.unwrap().call(1).await.unwrap_err();
    assert_eq!((circuit_open(&error).state(), circuit_open(&error).retry_after()), (CircuitState::HalfOpen, None));
}

#[tokio::test(start_paused = true)]
async fn entry_01_an_open_rejection_still_says_exactly_how_long() {
    let breaker = builder().build_handle().unwrap();
    fail(&breaker, 20);
    tokio::time::advance(SECOND / 4).await;
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(SECOND * 3 / 4));
    assert_eq!(breaker.statistics().retry_after, Some(SECOND * 3 / 4));
}

#[tokio::test]
async fn entry_22_a_call_without_poll_ready_on_a_closed_circuit_has_a_message_of_its_own() {
    for state in [CircuitState::Closed, CircuitState::Observing, CircuitState::Disabled] {
        let breaker = builder().initial_state(state).build_handle().unwrap();
        let mut service = breaker.layer().layer(service_fn(|()| async { Ok::<(), BoxError>(()) }));
        let error = service.call(()).await.unwrap_err();
        let open = circuit_open(&error);
        assert_eq!((open.state(), open.retry_after(), open.cause()), (state, None, None));
        let expected = format!("circuit `db` is {state}; not sent: the service was called before it was ready");
        assert_eq!(error.to_string(), expected);
        assert!(!error.as_rejected().unwrap().was_sent());
        // No circuit has rejected it. It ended, and says nothing about the callee; a disabled breaker counts nothing.
        let now = breaker.statistics();
        let counted = u64::from(state != CircuitState::Disabled);
        assert_eq!((now.calls(), now.ignored, now.rejected), (counted, counted, 0), "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_22_on_a_circuit_that_is_not_closed_it_counts_as_rejected() {
    let breaker = builder().build_handle().unwrap();
    let mut service = breaker.layer().layer(service_fn(|()| async { Ok::<(), BoxError>(()) }));
    fail(&breaker, 20);
    let error = service.call(()).await.unwrap_err();
    assert_eq!(error.to_string(), "circuit `db` is open: the next probe is due in 1s");
    tokio::time::advance(SECOND).await;
    let error = service.call(()).await.unwrap_err();
    assert_eq!(error.to_string(), "circuit `db` is open: the next probe is due now");
    assert_eq!((breaker.statistics().calls(), breaker.statistics().rejected), (22, 2));
}

#[tokio::test]
async fn entry_22_keyed_and_streaming_breakers_keep_the_same_rule() {
    const NOT_READY: &str = "; not sent: the service was called before it was ready";
    let layer = CircuitBreakerLayer::builder("db").keyed(|shard: &u32| Some(*shard)).build().unwrap();
    let mut keyed = layer.layer(service_fn(|_: u32| async { Ok::<(), BoxError>(()) }));
    let error = keyed.call(1).await.unwrap_err();
    assert_eq!(error.to_string(), format!("circuit `db` is closed{NOT_READY}"));
    assert_eq!(layer.handle().get_or_create(1).unwrap().statistics().ignored, 1);

    let breaker = builder().build_handle().unwrap();
    let layer = mainstay::http::StreamBreakerLayer::new(breaker.clone(), mainstay::HttpClassifier::new());
    let mut streaming = layer.layer(service_fn(|()| async {
        Ok::<_, BoxError>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
    }));
    let error = streaming.call(()).await.map(drop).unwrap_err();
    assert_eq!(error.to_string(), format!("circuit `db` is closed{NOT_READY}"));
    let now = breaker.statistics();
    assert_eq!((now.calls(), now.ignored, now.abandoned, now.rejected), (1, 1, 0, 0));
}

const WAIT: AdmissionMode = AdmissionMode::Wait { max: Duration::from_secs(10), queue: 100 };

/// A callee that is down until `up`, and takes 10 ms an answer. It counts its calls.
fn callee(
    up: Instant,
    calls: &Arc<AtomicUsize>,
) -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + use<> {
    let calls = calls.clone();
    service_fn(move |()| {
        calls.fetch_add(1, Relaxed);
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if Instant::now() < up { Err(BoxError::from("down")) } else { Ok(()) }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn entry_02_a_hundred_callers_wait_and_none_is_lost_when_the_callee_is_back() {
    let breaker = builder().admission(WAIT).build_handle().unwrap();
    fail(&breaker, 20);
    let (started, calls) = (Instant::now(), Arc::default());
    // Two rounds of probes fail before it is back.
    let service = breaker.layer().layer(callee(started + Duration::from_millis(2_500), &calls));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move { service.ready().await?.call(()).await })
        })
        .collect();
    let mut failed = 0;
    for caller in callers {
        failed += usize::from(caller.await.unwrap().is_err());
    }
    // Only probes have seen the outage: three at 1 s, three at 2 s.
    assert_eq!((failed, calls.load(Relaxed)), (6, 100));
    assert!(started.elapsed() < Duration::from_millis(3_100), "{:?}", started.elapsed());
    let now = breaker.statistics();
    assert_eq!((now.waited, now.rejected, now.waiting, now.state), (100, 0, 0, CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn entry_02_by_default_a_call_is_rejected_at_once() {
    let breaker = builder().build_handle().unwrap();
    fail(&breaker, 20);
    let (started, calls) = (Instant::now(), Arc::default());
    let mut service = breaker.layer().layer(callee(started, &calls));
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!(
        (started.elapsed(), circuit_open(&error).state(), calls.load(Relaxed)),
        (Duration::ZERO, CircuitState::Open, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn entry_15_a_deadline_that_ends_a_wait_leaves_the_rejection_of_the_circuit() {
    let breaker = builder().open_time(OpenTime::Constant(5 * SECOND)).admission(WAIT).build_handle().unwrap();
    fail(&breaker, 20);
    let (started, calls) = (Instant::now(), Arc::default());
    let service = breaker.layer().layer(callee(started, &calls));
    let context = Context::new().with_deadline(started + SECOND);
    let error = context.scope(ServiceExt::oneshot(service, ())).await.unwrap_err();
    let open = circuit_open(&error);
    assert_eq!((started.elapsed(), open.state(), open.retry_after()), (SECOND, CircuitState::Open, Some(4 * SECOND)));
    // The function form ends at the same moment.
    let error = context
        .with_deadline(started + 2 * SECOND)
        .scope(breaker.call(async { Ok::<(), BoxError>(()) }))
        .await
        .unwrap_err();
    assert_eq!((started.elapsed(), circuit_open(&error).retry_after()), (2 * SECOND, Some(3 * SECOND)));
    assert_eq!((calls.load(Relaxed), breaker.statistics().waits_timed_out), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn entry_15_a_total_timeout_that_counts_the_wait_reports_the_circuit_too() {
    let breaker = builder().open_time(OpenTime::Constant(5 * SECOND)).admission(WAIT).build_handle().unwrap();
    fail(&breaker, 20);
    let (started, calls) = (Instant::now(), Arc::default());
    let timeout = mainstay::TimeoutLayer::builder("total").timeout(SECOND).include_readiness(true).build().unwrap();
    let service = timeout.layer(breaker.layer().layer(callee(started, &calls)));
    let error = ServiceExt::oneshot(service, ()).await.unwrap_err();
    let open = circuit_open(&error);
    assert_eq!((started.elapsed(), open.state(), open.retry_after()), (SECOND, CircuitState::Open, Some(4 * SECOND)));
    assert_eq!((breaker.statistics().waiting, breaker.statistics().state), (0, CircuitState::Open));
}

#[test]
fn entry_25_a_timer_of_a_runtime_that_is_gone_does_not_panic_in_the_next() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mode = AdmissionMode::Wait { max: 100 * SECOND, queue: 100 };
    let breaker =
        builder().open_time(OpenTime::Constant(Duration::from_millis(50))).admission(mode).build_handle().unwrap();
    let mut service = breaker.layer().layer(service_fn(|()| async { Ok::<(), BoxError>(()) }));
    let mut other = service.clone();
    let mut follower = Box::pin(breaker.follow_open_time());
    runtime().block_on(async {
        fail(&breaker, 20);
        assert!(futures_util::poll!(Box::pin(service.ready())).is_pending());
        assert!(futures_util::poll!(&mut follower).is_pending());
    });
    runtime().block_on(async {
        breaker.open_for(SECOND).unwrap();
        assert!(futures_util::poll!(&mut follower).is_pending());
        // The first in the queue was polled in the other runtime, and is not polled here: the next one takes over.
        other.ready().await.unwrap().call(()).await.unwrap();
        assert!(breaker.state() == CircuitState::HalfOpen);
        service.ready().await.unwrap().call(()).await.unwrap();
    });
    assert_eq!(breaker.statistics().successes, 2);
}

#[tokio::test(start_paused = true)]
async fn entry_13_breakers_that_opened_together_do_not_go_on_probing_together_and_none_before_its_time() {
    let breakers: Vec<_> = (0..200).map(|_| CircuitBreakerHandle::builder("db").build_handle().unwrap()).collect();
    breakers.iter().for_each(|breaker| fail(breaker, 20));
    let open_for = |breaker: &CircuitBreakerHandle| breaker.try_acquire().unwrap_err().retry_after().unwrap();
    assert!(breakers.iter().all(|breaker| open_for(breaker) == 5 * SECOND), "what the configuration says");
    tokio::time::advance(5 * SECOND).await;
    // The callee is still down: all three probes of each fail at the same moment.
    breakers.iter().for_each(|breaker| fail(breaker, 3));
    let mut times: Vec<Duration> = breakers.iter().map(open_for).collect();
    times.sort_unstable();
    let (first, last) = (times[0], times[199]);
    assert!(5 * SECOND <= first && last <= Duration::from_millis(5_500), "from {first:?} to {last:?}");
    // 200 clients within half a second: 4 in 10 ms on average.
    let most = times
        .iter()
        .map(|at| times.iter().filter(|other| (*at..*at + Duration::from_millis(10)).contains(other)).count());
    assert!(most.max() <= Some(20), "they come together: {times:?}");
    // A time that is set is exact.
    let breaker = builder().build_handle().unwrap();
    fail(&breaker, 20);
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), Some(SECOND));
}
