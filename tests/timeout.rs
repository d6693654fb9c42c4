//! Timeouts and deadlines, by their rules.
#![cfg(feature = "timeout")]

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use mainstay::context::{self, Context};
use mainstay::telemetry::Event;
use mainstay::timeout::{TimeoutConfig, TimeoutKind};
use mainstay::{BoxError, Outcome, Rejectable, Rejected, Timeout, TimeoutLayer};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn rejected(error: &BoxError) -> Rejected {
    error.as_rejected().expect("a refusal of ours").clone()
}

/// A service that answers after the time it is asked to.
fn sleeper() -> impl Service<Duration, Response = (), Error = BoxError, Future: Send> + Clone {
    service_fn(|time| async move {
        sleep(time).await;
        Ok(())
    })
}

fn both(timeout: Duration) -> [TimeoutLayer; 2] {
    [TimeoutLayer::attempt("test", timeout).unwrap(), TimeoutLayer::total("test", timeout).unwrap()]
}

/// Scenario 1.
#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_ends_at_its_timeout() {
    for layer in both(2 * SECOND) {
        let start = Instant::now();
        let error = layer.layer(sleeper()).oneshot(4 * SECOND).await.unwrap_err();
        assert_eq!(start.elapsed(), 2 * SECOND);
        assert_eq!(rejected(&error), Rejected::Timeout { timeout: 2 * SECOND, sent: true });
        assert_eq!(rejected(&error).outcome(), Outcome::Transient);
        assert_eq!(error.to_string(), "no answer within the timeout of 2s");
        assert_eq!(layer.handle().statistics().timed_out, 1);
        layer.layer(sleeper()).oneshot(SECOND).await.unwrap();
    }
}

/// Scenario 1: that is the caller's doing, before the time is up or after.
#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_is_no_timeout() {
    for layer in both(2 * SECOND) {
        for waits in [SECOND, 9 * SECOND] {
            let mut service = layer.layer(sleeper());
            let mut call = task::spawn(service.call(60 * SECOND));
            assert_pending!(call.poll());
            advance(waits).await;
            drop(call);
        }
        let counted = layer.handle().statistics();
        assert_eq!((counted.abandoned, counted.timed_out, counted.calls()), (2, 0, 2));
    }
}

/// Scenario 1 has zero mean "none"; here it is a mistake that is named.
#[test]
fn unlike_others_a_timeout_of_zero_is_refused_and_none_is_to_leave_the_layer_out() {
    let error = TimeoutLayer::total("test", Duration::ZERO).unwrap_err();
    assert_eq!((error.field(), error.value()), ("timeout", "0ns"));
    let handle = TimeoutLayer::total("test", SECOND).unwrap().handle();
    assert!(handle.set_timeout(Duration::ZERO).is_err());
    assert_eq!(handle.config(), TimeoutConfig::total(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_beyond_the_end_of_time_never_fires() {
    for layer in both(Duration::MAX) {
        layer.layer(sleeper()).oneshot(Duration::from_secs(86_400 * 365)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn time_starts_at_call_and_not_at_the_first_poll() {
    for layer in both(SECOND) {
        let mut service = layer.layer(service_fn(|(): ()| pending::<Result<(), BoxError>>()));
        let future = service.ready().await.unwrap().call(());
        advance(millis(600)).await;
        let mut future = task::spawn(future);
        assert_pending!(future.poll());
        advance(millis(401)).await;
        assert!(future.is_woken());
        assert_ready_err!(future.poll());
    }
}

#[tokio::test(start_paused = true)]
async fn a_ready_result_wins_over_an_expired_deadline() {
    for layer in both(SECOND) {
        let mut service = layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(7) }));
        let mut future = task::spawn(service.ready().await.unwrap().call(()));
        advance(5 * SECOND).await;
        assert_eq!(assert_ready_ok!(future.poll()), 7);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_is_noticed_late_yields_once_and_the_answer_that_came_meanwhile_wins() {
    for layer in both(SECOND) {
        let mut service = layer.layer(service_fn(|answered: Arc<AtomicBool>| {
            poll_fn(move |_| if answered.load(Relaxed) { Poll::Ready(Ok::<_, BoxError>(())) } else { Poll::Pending })
        }));
        for answers in [true, false] {
            let answered = Arc::new(AtomicBool::new(false));
            let mut future = task::spawn(service.ready().await.unwrap().call(answered.clone()));
            assert_pending!(future.poll());
            advance(5 * SECOND).await;
            assert_pending!(future.poll(), "late: I/O comes first");
            answered.store(answers, Relaxed);
            assert_eq!(assert_ready!(future.poll()).is_ok(), answers);
        }
    }
}

/// A prototype starved for a second.
#[tokio::test(start_paused = true)]
async fn an_inner_future_that_spends_all_of_the_cooperative_budget_cannot_outlive_its_timeout() {
    for layer in both(SECOND) {
        let polls = Arc::new(AtomicU32::new(0));
        let counter = polls.clone();
        let service = layer.layer(service_fn(move |(): ()| {
            let polls = counter.clone();
            async move {
                // Never waits for anything but its turn; time goes on by its own doing.
                loop {
                    if polls.fetch_add(1, Relaxed).is_multiple_of(128) {
                        advance(millis(10)).await;
                    }
                    tokio::task::consume_budget().await;
                }
                #[allow(unreachable_code, reason = "gives the loop its type")]
                Ok::<(), BoxError>(())
            }
        }));
        let start = Instant::now();
        assert!(rejected(&service.oneshot(()).await.unwrap_err()).is_timeout());
        assert!(start.elapsed() <= millis(1_100), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_future_is_dropped_at_the_deadline_and_not_with_the_outer_one() {
    for layer in both(SECOND) {
        let alive = Arc::new(());
        let mut service = layer.layer(service_fn(|held: Arc<()>| async move {
            pending::<()>().await;
            drop(held);
            Ok::<(), BoxError>(())
        }));
        let mut future = task::spawn(service.ready().await.unwrap().call(alive.clone()));
        assert_pending!(future.poll());
        assert_eq!(Arc::strong_count(&alive), 2);
        advance(millis(1_001)).await;
        assert_ready_err!(future.poll());
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(catch_unwind(AssertUnwindSafe(|| future.poll())).is_err(), "it must not be polled after its end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_stays_a_panic() {
    for layer in both(SECOND) {
        let service = layer.layer(service_fn(|(): ()| async {
            if context::current().attempt() == 0 {
                panic!("of the inner service");
            }
            Ok::<(), BoxError>(())
        }));
        assert!(tokio::spawn(service.oneshot(())).await.unwrap_err().is_panic());
        assert_eq!(layer.handle().statistics().timed_out, 0);
    }
}

// === deadlines ===

#[tokio::test(start_paused = true)]
async fn only_a_total_timeout_sets_the_deadline_for_what_is_below() {
    let seen = || service_fn(|(): ()| async { Ok::<_, BoxError>(context::current().deadline()) });
    let [attempt, total] = both(SECOND);
    let now = Instant::now();
    assert_eq!(attempt.layer(seen()).oneshot(()).await.unwrap(), None);
    assert_eq!(total.layer(seen()).oneshot(()).await.unwrap(), Some(now + SECOND));
    // The nearer one holds.
    for (outer, expected) in [(millis(300), millis(300)), (3 * SECOND, SECOND)] {
        let scope = Context::new().with_deadline(now + outer);
        let deadline = scope.scope(total.layer(seen()).oneshot(())).await.unwrap();
        assert_eq!(deadline, Some(now + expected));
    }
    assert_eq!(context::current().deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_by_the_ambient_deadline_is_no_evidence_against_the_callee() {
    for layer in both(SECOND) {
        let start = Instant::now();
        let scope = Context::new().with_deadline(start + millis(300));
        let error = scope.scope(layer.layer(sleeper()).oneshot(5 * SECOND)).await.unwrap_err();
        assert_eq!(start.elapsed(), millis(300));
        assert_eq!(rejected(&error), Rejected::DeadlineExceeded { sent: true });
        assert!(!rejected(&error).outcome().is_failure());
        assert_eq!(layer.handle().statistics().deadline_exceeded, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_is_a_timeout_whichever_layer_notices_first_that_it_is_up() {
    let total = |inner: Duration| {
        let attempt = TimeoutLayer::attempt("attempt", inner).unwrap().layer(sleeper());
        TimeoutLayer::total("total", SECOND).unwrap().layer(attempt)
    };
    // The attempt is cut to the total's second, and its timer is polled first.
    let error = total(2 * SECOND).oneshot(5 * SECOND).await.unwrap_err();
    assert_eq!(rejected(&error), Rejected::Timeout { timeout: SECOND, sent: true });

    // The caller's deadline came first: it stays the caller's.
    let nearer = Context::new().with_deadline(Instant::now() + SECOND / 2);
    let error = nearer.scope(total(2 * SECOND).oneshot(5 * SECOND)).await.unwrap_err();
    assert_eq!(rejected(&error), Rejected::DeadlineExceeded { sent: true });

    // A deadline that was set further below, and is over before this one, is not ours to rename.
    let inner =
        service_fn(|()| async { Err::<(), _>(BoxError::from_rejected(Rejected::DeadlineExceeded { sent: true })) });
    let error = TimeoutLayer::total("total", SECOND).unwrap().layer(inner).oneshot(()).await.unwrap_err();
    assert_eq!(rejected(&error), Rejected::DeadlineExceeded { sent: true });
}

#[tokio::test(start_paused = true)]
async fn work_whose_deadline_has_passed_is_refused_before_it_starts() {
    for layer in both(SECOND) {
        let (mock, mut handle) = tower_test::mock::pair::<(), ()>();
        let mut service = layer.layer(mock);
        handle.allow(1);
        service.ready().await.unwrap();
        let scope = Context::new().with_deadline(Instant::now());
        let error = scope.enter(|| service.call(())).await.unwrap_err();
        assert_eq!(rejected(&error), Rejected::DeadlineExceeded { sent: false });
        assert_pending!(task::spawn(handle.next_request()).poll());
        assert_eq!(layer.handle().statistics().not_sent, 1);
    }
}

// === readiness ===

fn waiting(include: bool) -> (Timeout<tower_test::mock::Mock<(), ()>>, tower_test::mock::Handle<(), ()>) {
    let layer = TimeoutLayer::builder("test").timeout(SECOND).include_readiness(include).build().unwrap();
    let (mock, mut handle) = tower_test::mock::pair();
    handle.allow(0);
    (layer.layer(mock), handle)
}

/// R1.
#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_counts_when_asked_for() {
    let (service, mut handle) = waiting(true);
    let start = Instant::now();
    let five_seconds = tokio::spawn(async move {
        sleep(5 * SECOND).await;
        handle.allow(1);
        handle
    });
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(rejected(&error), Rejected::Timeout { timeout: SECOND, sent: false });
    drop(five_seconds);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_does_not_count_by_default() {
    let (service, mut handle) = waiting(false);
    let call = tokio::spawn(service.oneshot(()));
    sleep(5 * SECOND).await;
    handle.allow(1);
    let ((), response) = handle.next_request().await.unwrap();
    sleep(millis(900)).await;
    response.send_response(());
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_call_gets_what_the_wait_for_readiness_has_left() {
    let (service, mut handle) = waiting(true);
    let start = Instant::now();
    let call = tokio::spawn(service.oneshot(()));
    sleep(millis(700)).await;
    handle.allow(1);
    let _held = handle.next_request().await.unwrap();
    assert!(rejected(&call.await.unwrap().unwrap_err()).was_sent());
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_unready_service_is_never_called_and_a_wait_that_was_given_up_leaves_nothing_behind() {
    let (mut service, mut handle) = waiting(true);
    {
        let mut ready = task::spawn(service.ready());
        assert_pending!(ready.poll());
        advance(SECOND).await;
        assert_ready_ok!(ready.poll());
    }
    // Ready to refuse. Nobody calls; later the inner service is ready, and has its full time.
    handle.allow(1);
    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(()));
    handle.next_request().await.unwrap().1.send_response(());
    call.await.unwrap().unwrap();

    // A wait that nobody polled when it ended does not count against the next caller.
    handle.allow(0);
    assert_pending!(task::spawn(service.ready()).poll());
    advance(60 * SECOND).await;
    assert_pending!(task::spawn(service.ready()).poll());
    advance(millis(500)).await;
    handle.allow(1);
    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(()));
    handle.next_request().await.unwrap().1.send_response(());
    call.await.unwrap().unwrap();
}

// === the rest ===

#[tokio::test(start_paused = true)]
async fn the_timeout_can_be_changed_while_it_runs() {
    let layer = TimeoutLayer::total("test", SECOND).unwrap();
    let mut service = layer.layer(sleeper());
    let running = tokio::spawn(service.ready().await.unwrap().call(millis(900)));
    layer.handle().set_timeout(millis(100)).unwrap();
    let start = Instant::now();
    assert!(service.ready().await.unwrap().call(SECOND).await.is_err());
    assert_eq!(start.elapsed(), millis(100));
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_cut_is_told_and_counted_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let layer = TimeoutLayer::builder("orders")
        .config(TimeoutConfig::total(SECOND))
        .kind(TimeoutKind::Attempt)
        .listener(move |event: &Event<'_>| log.lock().unwrap().push(event.to_string()))
        .build()
        .unwrap();
    layer.layer(sleeper()).oneshot(2 * SECOND).await.unwrap_err();
    let past = Context::new().with_deadline(Instant::now());
    past.scope(layer.layer(sleeper()).oneshot(SECOND)).await.unwrap_err();
    let expected = [
        "timeout `orders` cut a call off that may take 1s, by its timeout",
        "timeout `orders` did not send a call that may take 1s, by its deadline",
    ];
    assert_eq!(*told.lock().unwrap(), expected);
    let statistics = layer.handle().statistics();
    assert_eq!((statistics.timed_out, statistics.deadline_exceeded, statistics.not_sent), (1, 0, 1));
}

#[test]
fn services_and_futures_are_send_and_sync_where_they_should_be() {
    fn service<S: Send + Sync + Clone>(_: &S) {}
    fn future<F: Future + Send>(_: &F) {}
    let mut timeout = TimeoutLayer::total("test", SECOND).unwrap().layer(sleeper_sync());
    service(&timeout);
    future(&timeout.call(SECOND));
}

fn sleeper_sync() -> impl Service<Duration, Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync {
    service_fn(|time| async move {
        sleep(time).await;
        Ok(())
    })
}

// === computed from the request ===

#[tokio::test(start_paused = true)]
async fn a_timeout_computed_from_the_request_holds_for_that_request_and_none_is_the_configured_one() {
    for config in [TimeoutConfig::attempt(SECOND), TimeoutConfig::total(SECOND)] {
        let layer = TimeoutLayer::computed("test", config, |asked: &Option<Duration>| *asked).unwrap();
        let service = layer.layer(service_fn(|_: Option<Duration>| pending::<Result<(), BoxError>>()));
        for (asked, holds) in [(Some(3 * SECOND), 3 * SECOND), (Some(millis(20)), millis(20)), (None, SECOND)] {
            let start = Instant::now();
            let error = service.clone().oneshot(asked).await.unwrap_err();
            assert_eq!(start.elapsed(), holds);
            assert_eq!(rejected(&error), Rejected::Timeout { timeout: holds, sent: true });
        }
        layer.handle().set_timeout(millis(50)).unwrap();
        let start = Instant::now();
        service.clone().oneshot(None).await.unwrap_err();
        assert_eq!(start.elapsed(), millis(50));
        let nearer = Context::new().with_deadline(Instant::now() + millis(10));
        let error = nearer.scope(service.oneshot(Some(SECOND))).await.unwrap_err();
        assert_eq!(rejected(&error), Rejected::DeadlineExceeded { sent: true });
    }
}

#[tokio::test(start_paused = true)]
async fn a_computed_timeout_of_zero_refuses_the_call_and_the_longest_is_none() {
    for config in [TimeoutConfig::attempt(SECOND), TimeoutConfig::total(SECOND)] {
        let layer = TimeoutLayer::computed("test", config, |asked: &Duration| Some(*asked)).unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let counter = calls.clone();
        let service = layer.layer(service_fn(move |_: Duration| {
            counter.fetch_add(1, Relaxed);
            async {
                sleep(Duration::from_secs(86_400)).await;
                Ok::<_, BoxError>(())
            }
        }));
        let error = service.clone().oneshot(Duration::ZERO).await.unwrap_err();
        assert_eq!(rejected(&error), Rejected::Timeout { timeout: Duration::ZERO, sent: false });
        assert_eq!(calls.load(Relaxed), 0);
        service.oneshot(Duration::MAX).await.unwrap();
        assert_eq!(layer.handle().statistics().not_sent, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_computed_total_timeout_is_the_deadline_of_what_is_below() {
    let config = TimeoutConfig::total(SECOND);
    let layer = TimeoutLayer::computed("test", config, |asked: &Duration| Some(*asked)).unwrap();
    let seen = service_fn(|_: Duration| async { Ok::<_, BoxError>(context::current().deadline()) });
    assert_eq!(layer.layer(seen).oneshot(5 * SECOND).await.unwrap(), Some(Instant::now() + 5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_readiness_is_bounded_by_the_configured_timeout_and_counts_toward_the_computed_one() {
    let layer = TimeoutLayer::builder("test")
        .timeout(SECOND)
        .include_readiness(true)
        .computed(|(): &()| Some(3 * SECOND))
        .build()
        .unwrap();
    let (mock, mut handle) = tower_test::mock::pair::<(), ()>();
    handle.allow(0);
    let start = Instant::now();
    let service = layer.layer(mock);
    assert!(!rejected(&service.clone().oneshot(()).await.unwrap_err()).was_sent());
    assert_eq!(start.elapsed(), SECOND);
    let call = tokio::spawn(service.oneshot(()));
    sleep(millis(600)).await;
    handle.allow(1);
    let _held = handle.next_request().await.unwrap();
    assert!(rejected(&call.await.unwrap().unwrap_err()).was_sent());
    assert_eq!(start.elapsed(), 4 * SECOND);
}

// === counts ===

#[tokio::test(start_paused = true)]
async fn every_call_is_counted_once_however_it_ends() {
    for layer in both(SECOND) {
        layer.layer(sleeper()).oneshot(millis(1)).await.unwrap();
        layer.layer(service_fn(|()| async { Err::<(), BoxError>("no".into()) })).oneshot(()).await.unwrap_err();
        layer.layer(sleeper()).oneshot(2 * SECOND).await.unwrap_err();
        let near = Context::new().with_deadline(Instant::now() + millis(10));
        near.scope(layer.layer(sleeper()).oneshot(SECOND)).await.unwrap_err();
        let past = Context::new().with_deadline(Instant::now());
        past.scope(layer.layer(sleeper()).oneshot(SECOND)).await.unwrap_err();
        drop(layer.layer(sleeper()).call(SECOND));
        let unpolled = past.enter(|| layer.layer(sleeper()).call(SECOND));
        drop(unpolled);
        let statistics = layer.handle().statistics();
        assert_eq!((statistics.in_time, statistics.timed_out, statistics.deadline_exceeded), (2, 1, 1));
        assert_eq!((statistics.not_sent, statistics.abandoned, statistics.calls()), (2, 1, 7));
    }
}

/// Scenario 2, where it is a setting: here the inner future is always cancelled, once, by its drop.
#[tokio::test(start_paused = true)]
async fn a_timeout_cancels_the_inner_future_exactly_once() {
    struct Cancelled(Arc<AtomicU32>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    for layer in both(SECOND) {
        let cancelled = Arc::new(AtomicU32::new(0));
        let service = layer.layer(service_fn(|guard: Cancelled| async move {
            let _guard = guard;
            pending::<Result<(), BoxError>>().await
        }));
        service.oneshot(Cancelled(cancelled.clone())).await.unwrap_err();
        assert_eq!(cancelled.load(Relaxed), 1);
    }
}
