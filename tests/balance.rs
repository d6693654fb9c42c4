//! The balanced pool, from the outside: by scenario number where there is one.
#![cfg(feature = "balance")]

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{self, FutureExt, join_all};
use mainstay::HealthStatus;
use mainstay::balance::{OutReason, Picker, Pool, PoolHandle};
use mainstay::circuit_breaker::CircuitBreakerConfig;
use mainstay::telemetry::Event;
use mainstay::{BoxError, CircuitState, NoEndpointReason, Outcome, Rejectable, Rejected, classify_fn};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower::discover::Change;
use tower_service::Service;

/// How an endpoint of the tests behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Yes,
    Never,
    Fails,
    Panics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ok,
    Fails,
    Refuses,
    TimesOut { sent: bool },
    PastDeadline,
    Never,
    Panics,
    PanicsInCall,
}

/// An endpoint whose behaviour the test sets as it goes. Answers its number.
#[derive(Clone, Debug)]
struct Fake {
    number: usize,
    shared: Arc<Shared>,
    is_ready: bool,
}

#[derive(Debug)]
struct Shared {
    ready: watch::Sender<Ready>,
    answer: Mutex<(Answer, Duration)>,
    calls: AtomicUsize,
}

impl Fake {
    fn new(number: usize) -> Self {
        let shared = Shared {
            ready: watch::Sender::new(Ready::Yes),
            answer: Mutex::new((Answer::Ok, Duration::ZERO)),
            calls: AtomicUsize::new(0),
        };
        Self { number, shared: Arc::new(shared), is_ready: false }
    }

    fn readiness(&self, ready: Ready) {
        self.shared.ready.send_replace(ready);
    }

    fn answers(&self, answer: Answer, after: Duration) {
        *self.shared.answer.lock().unwrap() = (answer, after);
    }

    fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::Relaxed)
    }
}

impl Service<u32> for Fake {
    type Response = usize;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let ready = *self.shared.ready.borrow();
        match ready {
            Ready::Yes => {
                self.is_ready = true;
                Poll::Ready(Ok(()))
            }
            Ready::Fails => Poll::Ready(Err("connection refused".into())),
            Ready::Panics => panic!("a panic of the test, in poll_ready"),
            Ready::Never => {
                // Wakes on every change, through a watcher that lives on in a task.
                let (mut changes, waker) = (self.shared.ready.subscribe(), cx.waker().clone());
                tokio::spawn(async move {
                    let _ = changes.changed().await;
                    waker.wake();
                });
                Poll::Pending
            }
        }
    }

    fn call(&mut self, _: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without having been ready");
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        let ((answer, after), number) = (*self.shared.answer.lock().unwrap(), self.number);
        assert!(answer != Answer::PanicsInCall, "a panic of the test, in call");
        Box::pin(async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            match answer {
                Answer::Ok => Ok(number),
                Answer::Fails => Err("it failed".into()),
                Answer::Refuses => Err(BoxError::from_rejected(Rejected::Limited { retry_after: None })),
                Answer::TimesOut { sent } => Err(BoxError::from_rejected(Rejected::Timeout { timeout: MS, sent })),
                Answer::PastDeadline => Err(BoxError::from_rejected(Rejected::DeadlineExceeded { sent: false })),
                Answer::Never => future::pending().await,
                Answer::Panics | Answer::PanicsInCall => panic!("a panic of the test, in poll"),
            }
        })
    }
}

fn fakes(n: usize) -> Vec<Fake> {
    (0..n).map(Fake::new).collect()
}

fn fill<C, R>(pool: &Pool<usize, Fake, C, R>, fakes: &[Fake]) {
    pool.handle().add_all(fakes.iter().map(|fake| (fake.number, fake.clone())));
}

fn pool_of(picker: Picker, fakes: &[Fake]) -> Pool<usize, Fake> {
    let pool = Pool::builder("test").picker(picker).seed(7).build().unwrap();
    fill(&pool, fakes);
    pool
}

async fn picks(pool: &Pool<usize, Fake>, n: usize) -> Vec<usize> {
    let mut pool = pool.clone();
    let mut picks = Vec::new();
    for _ in 0..n {
        picks.push(pool.call(0).await.unwrap());
    }
    picks
}

fn counts(picks: &[usize]) -> HashMap<usize, usize> {
    picks.iter().fold(HashMap::new(), |mut counts, pick| {
        *counts.entry(*pick).or_default() += 1;
        counts
    })
}

fn reason(error: &BoxError) -> Option<NoEndpointReason> {
    match error.as_rejected() {
        Some(Rejected::NoEndpoint(none)) => Some(none.reason()),
        _ => None,
    }
}

/// Every call that was made has ended in exactly one way, and holds nothing any more.
fn assert_all_settled<S>(handle: &PoolHandle<usize, S>, calls: u64) {
    let statistics = handle.statistics();
    assert_eq!((statistics.calls(), statistics.in_flight), (calls, 0), "{statistics:?}");
}

const MS: Duration = Duration::from_millis(1);

// === round robin ===

#[tokio::test]
async fn scenario_1_equal_weights_take_strict_turns() {
    let pool = pool_of(Picker::RoundRobin, &fakes(128));
    let picks = picks(&pool, 128 * 128).await;
    let first = picks[0];
    assert!(picks.iter().enumerate().all(|(turn, pick)| *pick == (first + turn) % 128));
}

#[tokio::test]
async fn scenario_6_the_seed_is_where_the_turns_begin() {
    let pool = Pool::builder("test").picker(Picker::RoundRobin).seed(1).build().unwrap();
    fill(&pool, &fakes(3));
    assert_eq!(picks(&pool, 4).await, [1, 2, 0, 1]);
}

#[tokio::test]
async fn scenario_2_and_r8_weights_are_exact_and_clones_share_the_turns() {
    let pool = Pool::builder("test").picker(Picker::RoundRobin).build().unwrap();
    for (fake, weight) in fakes(2).into_iter().zip([90, 10]) {
        pool.handle().add_weighted(fake.number, fake, weight.try_into().unwrap());
    }
    let (one, other) = (picks(&pool, 50).await, picks(&pool.clone(), 50).await);
    let all = [one, other].concat();
    assert_eq!(counts(&all), HashMap::from([(0, 90), (1, 10)]));
    assert!(all.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap() <= 9);
}

#[tokio::test]
async fn scenario_5_a_removed_endpoint_is_never_picked_and_an_empty_pool_has_none() {
    for picker in [Picker::RoundRobin, Picker::InFlight, Picker::PeakEwma] {
        let pool = pool_of(picker, &fakes(5));
        let before = pool.clone();
        assert!(pool.handle().remove(&3));
        assert!(!picks(&before, 200).await.contains(&3), "{picker:?}");
        (0..5).for_each(|key| assert_eq!(pool.handle().remove(&key), key != 3));
        let error = before.oneshot(0).await.unwrap_err();
        assert_eq!(reason(&error), Some(NoEndpointReason::Empty));
    }
}

// === two random choices ===

#[tokio::test]
async fn contract_r6_the_same_seed_gives_the_same_picks() {
    for picker in [Picker::InFlight, Picker::RoundRobin] {
        let (one, other) = (pool_of(picker, &fakes(20)), pool_of(picker, &fakes(20)));
        assert_eq!(picks(&one, 300).await, picks(&other, 300).await);
    }
}

#[tokio::test]
async fn clones_do_not_pick_the_same_pairs_for_ever() {
    for seed in [None, Some(1)] {
        let mut config = mainstay::PoolConfig::default();
        (config.picker, config.seed) = (Picker::InFlight, seed);
        let pool = Pool::new("test", config).unwrap();
        fill(&pool, &fakes(50));
        let (one, other) = (pool.clone(), pool.clone());
        assert_ne!(picks(&one, 100).await, picks(&other, 100).await);
    }
}

#[tokio::test(start_paused = true)]
async fn r3_a_loaded_endpoint_gets_next_to_nothing() {
    for picker in [Picker::InFlight, Picker::PeakEwma] {
        let fakes = fakes(2);
        fakes[0].answers(Answer::Never, Duration::ZERO);
        let mut pool = pool_of(picker, &fakes[..1]);
        let stuck: Vec<_> = (0..100).map(|_| task::spawn(pool.call(0))).map(poll_once).collect();
        fill(&pool, &fakes[1..]);
        assert!(counts(&picks(&pool, 1_000).await)[&1] >= 990, "{picker:?}");
        drop(stuck);
        assert_all_settled(&pool.handle(), 1_100);
    }
}

fn poll_once<F: Future>(mut call: task::Spawn<F>) -> task::Spawn<F> {
    assert!(call.poll().is_pending());
    call
}

#[tokio::test(start_paused = true)]
async fn r3_no_endpoint_has_more_than_twice_the_mean_in_flight() {
    for picker in [Picker::InFlight, Picker::PeakEwma] {
        let fakes = fakes(10);
        fakes.iter().for_each(|fake| fake.answers(Answer::Never, Duration::ZERO));
        let mut pool = pool_of(picker, &fakes);
        let _calls: Vec<_> = (0..500).map(|_| task::spawn(pool.call(0))).map(poll_once).collect();
        let highest = pool.handle().endpoints().iter().map(|endpoint| endpoint.in_flight).max().unwrap();
        assert!(highest <= 100, "{picker:?}: {highest}");
        // Two choices do far better than that: within a few of the mean.
        assert!(highest <= 56, "{picker:?}: {highest}");
    }
}

#[tokio::test(start_paused = true)]
async fn twice_the_weight_takes_twice_the_calls() {
    let fakes = fakes(2);
    fakes.iter().for_each(|fake| fake.answers(Answer::Never, Duration::ZERO));
    let mut pool = pool_of(Picker::InFlight, &[]);
    for (fake, weight) in fakes.iter().zip([1, 2]) {
        pool.handle().add_weighted(fake.number, fake.clone(), weight.try_into().unwrap());
    }
    let _calls: Vec<_> = (0..300).map(|_| task::spawn(pool.call(0))).map(poll_once).collect();
    let in_flight: Vec<_> = pool.handle().endpoints().iter().map(|endpoint| endpoint.in_flight).collect();
    assert!((99..=101).contains(&in_flight[0]) && in_flight[0] + in_flight[1] == 300, "{in_flight:?}");
}

/// `workers` callers, one call after the other, for `time`; each call is given up after `patience`.
async fn load(pool: &Pool<usize, Fake>, workers: usize, time: Duration, patience: Duration) {
    let end = Instant::now() + time;
    join_all((0..workers).map(|worker| {
        let mut pool = pool.clone();
        async move {
            // Not all in step.
            sleep(Duration::from_millis(worker as u64)).await;
            while Instant::now() < end {
                let _ = timeout(patience, pool.call(0)).await;
                sleep(MS).await;
            }
        }
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn r4_an_endpoint_that_fails_fast_gets_no_more_than_its_fair_share() {
    for picker in [Picker::InFlight, Picker::PeakEwma] {
        let fakes = fakes(10);
        fakes.iter().for_each(|fake| fake.answers(Answer::Ok, 20 * MS));
        fakes[4].answers(Answer::Fails, MS);
        let pool = Pool::builder("test").picker(picker).seed(3).ejection(None).build().unwrap();
        fill(&pool, &fakes);
        load(&pool, 20, Duration::from_secs(10), Duration::from_secs(5)).await;
        let all: usize = fakes.iter().map(Fake::calls).sum();
        assert!(fakes[4].calls() * 10 <= all, "{picker:?}: {} of {all}", fakes[4].calls());
        assert!(all > 5_000, "{all}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_whose_callers_give_up_attracts_less_than_its_share() {
    for picker in [Picker::InFlight, Picker::PeakEwma] {
        let fakes = fakes(10);
        fakes.iter().for_each(|fake| fake.answers(Answer::Ok, 20 * MS));
        fakes[4].answers(Answer::Never, MS);
        let pool = pool_of(picker, &fakes);
        load(&pool, 20, Duration::from_secs(10), 100 * MS).await;
        let all: usize = fakes.iter().map(Fake::calls).sum();
        assert!(fakes[4].calls() * 20 <= all, "{picker:?}: {} of {all}", fakes[4].calls());
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_call_costs_its_endpoint_load_for_as_long_as_it_ran() {
    for picker in [Picker::InFlight, Picker::PeakEwma] {
        let fakes = fakes(1);
        fakes[0].answers(Answer::Never, Duration::ZERO);
        let mut pool = pool_of(picker, &fakes);
        let load = |pool: &Pool<usize, Fake>| pool.handle().endpoints()[0].load;
        let before = load(&pool);
        let mut call = task::spawn(pool.call(0));
        assert_pending!(call.poll());
        sleep(Duration::from_secs(1)).await;
        drop(call);
        assert_eq!(pool.handle().endpoints()[0].in_flight, 0);
        assert!(load(&pool) > before, "{picker:?}: {} after {before}", load(&pool));
    }
}

// === readiness ===

#[tokio::test(start_paused = true)]
async fn r1_an_endpoint_that_is_never_ready_holds_nobody_up() {
    for picker in [Picker::InFlight, Picker::PeakEwma, Picker::RoundRobin] {
        let fakes = fakes(3);
        fakes[0].readiness(Ready::Never);
        let pool = pool_of(picker, &fakes);
        let start = Instant::now();
        let counts = counts(&picks(&pool, 1_000).await);
        assert_eq!((counts.len(), counts.get(&0)), (2, None), "{picker:?}");
        assert_eq!(Instant::now(), start);
        assert_all_settled(&pool.handle(), 1_000);
        assert!(pool.handle().statistics().repicks > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn ninety_nine_healthy_and_one_not_ready_or_failing_are_a_ready_pool() {
    for ready in [Ready::Never, Ready::Fails] {
        let fakes = fakes(100);
        fakes[17].readiness(ready);
        let mut pool = pool_of(Picker::InFlight, &fakes);
        assert_ready!(task::spawn(pool.ready()).poll()).unwrap();
        assert!(!picks(&pool, 2_000).await.contains(&17));
        assert_all_settled(&pool.handle(), 2_000);
    }
}

#[tokio::test(start_paused = true)]
async fn r2_an_endpoint_that_fails_to_become_ready_is_tried_again_after_a_pause() {
    let fakes = fakes(2);
    let pool = pool_of(Picker::RoundRobin, &fakes);
    fakes[0].readiness(Ready::Fails);
    assert_eq!(picks(&pool, 10).await, [1; 10]);
    let endpoint = &pool.handle().endpoints()[0];
    assert_eq!((endpoint.usable, endpoint.against), (false, Some(OutReason::Unready)));
    assert!(endpoint.load > 1.9, "a failure costs load: {}", endpoint.load);
    fakes[0].readiness(Ready::Yes);
    assert_eq!(picks(&pool, 10).await, [1; 10], "the pause is not over");
    sleep(100 * MS).await;
    assert_eq!(counts(&picks(&pool, 10).await)[&0], 5);
    assert_eq!(pool.handle().endpoints()[0].against, None);
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failed_readiness_doubles_and_begins_afresh_after_a_recovery() {
    let fakes = fakes(2);
    let pool = pool_of(Picker::RoundRobin, &fakes);
    let is_paused = || pool.handle().endpoints()[0].against == Some(OutReason::Unready);
    for _ in 0..3 {
        fakes[0].readiness(Ready::Fails);
        // Jittered: between half and all of 100, 200, 400, 800 ms.
        for length in [100, 200, 400, 800] {
            picks(&pool, 2).await;
            sleep(length / 2 * MS - MS).await;
            assert!(is_paused(), "{length}");
            sleep(length / 2 * MS + 2 * MS).await;
            assert!(!is_paused(), "{length}");
        }
        fakes[0].readiness(Ready::Yes);
        assert_eq!(counts(&picks(&pool, 4).await)[&0], 2);
    }
}

/// Six endpoints that are all known not to be ready.
async fn paused(picker: Picker) -> (Pool<usize, Fake>, Vec<Fake>) {
    let fakes = fakes(6);
    fakes.iter().for_each(|fake| fake.readiness(Ready::Never));
    let pool = pool_of(picker, &fakes);
    let mut clones = [(); 5].map(|()| pool.clone());
    drop(clones.each_mut().map(|pool| poll_once(task::spawn(pool.call(0)))));
    assert!(pool.handle().endpoints().iter().all(|endpoint| endpoint.against == Some(OutReason::Unready)));
    (pool, fakes)
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_asks_the_endpoints_it_does_not_wait_for_when_their_pauses_end() {
    for picker in [Picker::InFlight, Picker::PeakEwma, Picker::RoundRobin] {
        let mut late = 0;
        for ready in 0..6 {
            let (pool, fakes) = paused(picker).await;
            // Nobody is woken: it has to be asked.
            fakes[ready].shared.ready.send_replace(Ready::Yes);
            let start = Instant::now();
            assert_eq!(pool.clone().oneshot(0).await.unwrap(), ready);
            assert!(start.elapsed() <= 101 * MS, "{:?}: the first pause is 100 ms", start.elapsed());
            late += usize::from(start.elapsed() >= 50 * MS);
            assert_all_settled(&pool.handle(), 6);
        }
        assert!(late >= 4, "{picker:?}: a call waits for two of six");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_call_finds_ready_serves_the_others_that_wait() {
    let (pool, fakes) = paused(Picker::InFlight).await;
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(pool.clone().oneshot(0))).collect();
    sleep(MS).await;
    // One of the calls is woken, because it waits for this one; the others wait for others.
    let waited_for = pool.handle().endpoints().into_iter().find(|endpoint| endpoint.in_flight == 1).unwrap();
    let start = Instant::now();
    fakes[waited_for.key].readiness(Ready::Yes);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), waited_for.key);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_abandoned_after_its_second_choice_is_counted_once() {
    // Both are waited for, and one of them answers, before the caller leaves.
    for (ready, states) in [(None, "waiting"), (Some(0), "calling"), (Some(1), "calling")] {
        let fakes = fakes(2);
        for fake in &fakes {
            fake.readiness(Ready::Never);
            fake.answers(Answer::Never, Duration::ZERO);
        }
        let mut pool = pool_of(Picker::RoundRobin, &fakes);
        let mut call = task::spawn(pool.call(0));
        assert_pending!(call.poll());
        if let Some(ready) = ready {
            fakes[ready].readiness(Ready::Yes);
            sleep(MS).await;
            assert_pending!(call.poll());
        }
        assert!(format!("{:?}", *call).contains(states), "{:?}", *call);
        drop(call);
        assert_all_settled(&pool.handle(), 1);
        assert_eq!(pool.handle().statistics().abandoned, 1, "{ready:?}");
    }
    // The second choice was ready at once.
    let fakes = fakes(2);
    fakes[0].readiness(Ready::Never);
    fakes[1].answers(Answer::Never, Duration::ZERO);
    for _ in 0..2 {
        let mut pool = pool_of(Picker::RoundRobin, &fakes);
        drop(poll_once(task::spawn(pool.call(0))));
        assert_all_settled(&pool.handle(), 1);
        assert_eq!(pool.handle().statistics().abandoned, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_second_of_two_serves_is_a_repick_and_one_that_the_first_serves_is_none() {
    let mut repicks = Vec::new();
    for ready in 0..2 {
        let fakes = fakes(2);
        fakes.iter().for_each(|fake| fake.readiness(Ready::Never));
        let pool = pool_of(Picker::RoundRobin, &fakes);
        let call = tokio::spawn(pool.clone().oneshot(0));
        sleep(MS).await;
        fakes[ready].readiness(Ready::Yes);
        assert_eq!(call.await.unwrap().unwrap(), ready);
        repicks.push(pool.handle().statistics().repicks);
    }
    assert_eq!(repicks, [1, 0], "the seed picks the second endpoint first");
}

#[tokio::test(start_paused = true)]
async fn of_two_endpoints_waited_for_one_may_fail_and_the_other_still_serves() {
    for failing in 0..2 {
        let fakes = fakes(2);
        fakes.iter().for_each(|fake| fake.readiness(Ready::Never));
        let pool = pool_of(Picker::InFlight, &fakes);
        let call = tokio::spawn(pool.clone().oneshot(0));
        sleep(10 * MS).await;
        fakes[failing].readiness(Ready::Fails);
        sleep(10 * MS).await;
        assert!(!call.is_finished());
        assert_eq!(pool.handle().endpoints()[failing].against, Some(OutReason::Unready));
        fakes[1 - failing].readiness(Ready::Yes);
        assert_eq!(call.await.unwrap().unwrap(), 1 - failing);
        assert_all_settled(&pool.handle(), 1);
    }
    // When the last one fails, too, the caller learns its cause.
    let fakes = fakes(2);
    fakes.iter().for_each(|fake| fake.readiness(Ready::Never));
    let pool = pool_of(Picker::InFlight, &fakes);
    let call = tokio::spawn(pool.clone().oneshot(0));
    sleep(10 * MS).await;
    fakes.iter().for_each(|fake| fake.readiness(Ready::Fails));
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "connection refused");
    assert_all_settled(&pool.handle(), 1);
    assert_eq!(pool.handle().statistics().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn r7_when_nobody_can_be_connected_the_caller_learns_the_cause_at_once() {
    for n in [1, 3] {
        let fakes = fakes(n);
        fakes.iter().for_each(|fake| fake.readiness(Ready::Fails));
        let pool = pool_of(Picker::PeakEwma, &fakes);
        for _ in 0..20 {
            let start = Instant::now();
            let error = pool.clone().oneshot(0).await.unwrap_err();
            assert_eq!((error.to_string().as_str(), Instant::now()), ("connection refused", start));
        }
        assert_all_settled(&pool.handle(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_ready_waits_for_the_first_that_is_and_counts_as_load_meanwhile() {
    let fakes = fakes(2);
    fakes.iter().for_each(|fake| fake.readiness(Ready::Never));
    let pool = pool_of(Picker::InFlight, &fakes);
    let call = tokio::spawn(pool.clone().oneshot(0));
    sleep(500 * MS).await;
    assert_eq!(pool.handle().statistics().in_flight, 2);
    fakes[1].readiness(Ready::Yes);
    assert_eq!(call.await.unwrap().unwrap(), 1);
    assert_all_settled(&pool.handle(), 1);

    fakes[1].readiness(Ready::Never);
    let start = Instant::now();
    let error = pool.clone().oneshot(0).await.unwrap_err();
    assert_eq!((reason(&error), start.elapsed()), (Some(NoEndpointReason::NotReady), Duration::from_secs(1)));
    assert_all_settled(&pool.handle(), 2);
    let loads: Vec<f64> = pool.handle().endpoints().iter().map(|endpoint| endpoint.load).collect();
    assert!(loads.iter().all(|load| *load > 1.5), "waiting in vain costs: {loads:?}");
}

/// A wait of zero is over at once: it touches no timer, which would round it up to a millisecond.
#[tokio::test(start_paused = true)]
async fn a_wait_of_zero_is_no_wait() {
    let fakes = fakes(2);
    fakes.iter().for_each(|fake| fake.readiness(Ready::Never));
    let pool = Pool::builder("test").ready_timeout(Duration::ZERO).build().unwrap();
    fill(&pool, &fakes);
    // Off the milliseconds of the timer.
    tokio::time::advance(Duration::from_micros(500)).await;
    let error = assert_ready!(task::spawn(pool.clone().call(0)).poll()).unwrap_err();
    assert_eq!(reason(&error), Some(NoEndpointReason::NotReady));
    assert_all_settled(&pool.handle(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_callers_deadline() {
    let fakes = fakes(1);
    fakes[0].readiness(Ready::Never);
    let pool = pool_of(Picker::PeakEwma, &fakes);
    let start = Instant::now();
    let context = mainstay::context::Context::new().with_deadline(start + 30 * MS);
    let error = context.scope(pool.clone().oneshot(0)).await.unwrap_err();
    assert_eq!((reason(&error), start.elapsed()), (Some(NoEndpointReason::NotReady), 30 * MS));
}

#[tokio::test(start_paused = true)]
async fn r5_four_clones_wait_on_one_connect_and_all_wake_whoever_leaves() {
    let fakes = fakes(1);
    fakes[0].readiness(Ready::Never);
    let pool = pool_of(Picker::PeakEwma, &fakes);
    let start = Instant::now();
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(pool.clone().oneshot(0))).collect();
    let last = tokio::spawn(pool.clone().oneshot(0));
    sleep(50 * MS).await;
    last.abort();
    sleep(50 * MS).await;
    fakes[0].readiness(Ready::Yes);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 0);
    }
    assert!(start.elapsed() <= 110 * MS);
    assert!(last.await.unwrap_err().is_cancelled());
    assert_all_settled(&pool.handle(), 5);
}

// === an empty pool ===

#[tokio::test(start_paused = true)]
async fn r6_an_empty_pool_refuses_within_the_configured_wait_and_serves_when_it_fills() {
    let pool = Pool::builder("test").empty_wait(Duration::from_secs(1)).build().unwrap();
    let start = Instant::now();
    let error = pool.clone().oneshot(0).await.unwrap_err();
    assert_eq!((reason(&error), start.elapsed()), (Some(NoEndpointReason::Empty), Duration::from_secs(1)));

    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(pool.clone().oneshot(0))).collect();
    sleep(300 * MS).await;
    fill(&pool, &fakes(1));
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap(), 0);
    }
    assert_eq!(start.elapsed(), 1_300 * MS);
    drop(task::spawn(pool.clone().call(0)));
    assert_all_settled(&pool.handle(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_an_endpoint_is_served_as_soon_as_one_may_be_used() {
    let pool = Pool::builder("test").empty_wait(Duration::from_secs(1)).panic_threshold(0.0).build().unwrap();
    fill(&pool, &fakes(2));
    let handle = pool.handle();
    type Act<'a> = &'a dyn Fn();
    let steps: [(Act<'_>, Act<'_>); 2] = [
        (&|| (0..2).for_each(|key| assert!(handle.disable(&key))), &|| assert!(handle.enable(&1))),
        (&|| (0..2).for_each(|key| assert!(handle.set_health(&key, HealthStatus::Unhealthy))), &|| {
            assert!(handle.set_health(&1, HealthStatus::Healthy))
        }),
    ];
    for (take_out, bring_back) in steps {
        take_out();
        let start = Instant::now();
        let call = tokio::spawn(pool.clone().oneshot(0));
        sleep(10 * MS).await;
        assert!(!call.is_finished());
        bring_back();
        assert_eq!(call.await.unwrap().unwrap(), 1);
        assert_eq!(start.elapsed(), 10 * MS);
        assert!(handle.enable(&0) && handle.set_health(&0, HealthStatus::Unknown));
    }
}

#[tokio::test]
async fn without_a_wait_the_refusal_comes_at_once_and_says_which_kind_of_nothing() {
    let mut pool = pool_of(Picker::PeakEwma, &[]);
    let refused = |result: Result<usize, BoxError>| reason(&result.unwrap_err());
    assert_eq!(refused(assert_ready!(task::spawn(pool.call(0)).poll())), Some(NoEndpointReason::Empty));
    fill(&pool, &fakes(2));
    (0..2).for_each(|key| assert!(pool.handle().disable(&key)));
    assert_eq!(refused(assert_ready!(task::spawn(pool.call(0)).poll())), Some(NoEndpointReason::NoneEligible));
    assert!(pool.handle().enable(&1));
    assert_eq!(pool.call(0).await.unwrap(), 1);
    assert_all_settled(&pool.handle(), 3);
}

// === eligibility ===

#[tokio::test]
async fn r9_when_all_are_unhealthy_panic_mode_spreads_over_all() {
    let pool = pool_of(Picker::InFlight, &fakes(10));
    let unhealthy = |keys: std::ops::Range<usize>, health| {
        keys.for_each(|key| assert!(pool.handle().set_health(&key, health)));
    };
    unhealthy(0..5, HealthStatus::Unhealthy);
    let half = picks(&pool, 500).await;
    assert!(half.iter().all(|pick| *pick >= 5) && !pool.handle().statistics().panic);
    unhealthy(5..10, HealthStatus::Unhealthy);
    let all = counts(&picks(&pool, 5_000).await);
    assert!(all.len() == 10 && all.values().all(|count| (350..650).contains(count)), "{all:?}");
    assert!(pool.handle().statistics().panic);
    unhealthy(2..10, HealthStatus::Healthy);
    assert!(picks(&pool, 500).await.iter().all(|pick| *pick >= 2));
}

#[tokio::test]
async fn a_late_endpoint_waits_for_its_first_probe_only_where_asked() {
    let pool = Pool::builder("test").picker(Picker::RoundRobin).await_first_probe(true).build().unwrap();
    fill(&pool, &fakes(3));
    // None is known yet: rather all than none.
    assert_eq!(counts(&picks(&pool, 9).await).len(), 3);
    (0..2).for_each(|key| assert!(pool.handle().set_health(&key, HealthStatus::Healthy)));
    assert_eq!(counts(&picks(&pool, 10).await), HashMap::from([(0, 5), (1, 5)]));
    // A prober that stops says "unknown", which is not "bad".
    pool.handle().set_health(&0, HealthStatus::Unknown);
    assert_eq!(counts(&picks(&pool, 10).await), HashMap::from([(0, 5), (1, 5)]));
}

async fn fail(pool: &Pool<usize, Fake>, n: usize) -> usize {
    let mut failed = 0;
    for _ in 0..n {
        failed += usize::from(pool.clone().oneshot(0).await.is_err());
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn health_scenario_1_and_r5_five_failures_in_a_row_eject_for_thirty_seconds_then_sixty() {
    let fakes = fakes(4);
    let pool = pool_of(Picker::RoundRobin, &fakes);
    let is_out = || pool.handle().endpoints()[2].against == Some(OutReason::Ejected);
    let fails = |answer| fakes[2].answers(answer, Duration::ZERO);

    fails(Answer::Fails);
    assert_eq!(fail(&pool, 16).await, 4);
    fails(Answer::Ok);
    fail(&pool, 4).await;
    fails(Answer::Fails);
    fail(&pool, 16).await;
    assert!(!is_out(), "four, a success, and four");
    fail(&pool, 4).await;
    assert!(is_out());
    assert_eq!(fail(&pool, 100).await, 0);

    sleep(Duration::from_millis(29_999)).await;
    assert!(is_out());
    sleep(2 * MS).await;
    assert!(!is_out());
    assert_eq!(fail(&pool, 20).await, 5);
    sleep(Duration::from_secs(59)).await;
    assert!(is_out());
    sleep(Duration::from_secs(2)).await;
    assert!(!is_out());
    assert_eq!((pool.handle().endpoints()[2].ejections, pool.handle().statistics().ejections), (2, 2));
    // Decays: two clean intervals later the count is gone.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(pool.handle().endpoints()[2].ejections, 0);
}

#[tokio::test(start_paused = true)]
async fn ejection_takes_at_most_half_of_the_pool_and_a_success_of_one_kept_in_lifts_it() {
    let fakes = fakes(4);
    fakes.iter().for_each(|fake| fake.answers(Answer::Fails, Duration::ZERO));
    let pool = pool_of(Picker::RoundRobin, &fakes);
    fail(&pool, 40).await;
    let statistics = pool.handle().statistics();
    assert_eq!((statistics.ejections, statistics.usable, statistics.panic), (4, 2, false));
    let kept: Vec<_> = pool.handle().endpoints().into_iter().filter(|endpoint| endpoint.usable).collect();
    assert!(kept.iter().all(|endpoint| endpoint.against == Some(OutReason::Ejected)));

    fakes[kept[0].key].answers(Answer::Ok, Duration::ZERO);
    fail(&pool, 2).await;
    assert_eq!(pool.handle().endpoints()[kept[0].key].against, None);
}

#[tokio::test]
async fn what_the_endpoint_answered_well_or_only_depends_on_does_not_eject_it() {
    for outcome in [Outcome::Refused, Outcome::DependencyFailed, Outcome::Throttled { retry_after: None }] {
        let classifier = classify_fn(move |result: Result<&usize, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => outcome,
        });
        let pool = Pool::builder("test").classify(classifier).build().unwrap();
        let fakes = fakes(3);
        fakes.iter().for_each(|fake| fake.answers(Answer::Fails, Duration::ZERO));
        fill(&pool, &fakes);
        for _ in 0..50 {
            pool.clone().oneshot(0).await.unwrap_err();
        }
        let statistics = pool.handle().statistics();
        assert_eq!((statistics.usable, statistics.ejections, statistics.calls()), (3, 0, 50), "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_straggler_of_before_the_ejection_neither_lifts_it_nor_counts_after_it() {
    let fakes = fakes(2);
    let mut pool = pool_of(Picker::RoundRobin, &fakes);
    fakes[0].answers(Answer::Ok, Duration::from_secs(1));
    let mut calls: Vec<_> = (0..2).map(|_| task::spawn(pool.call(0))).collect();
    calls.iter_mut().for_each(|call| drop(call.poll()));
    fakes[0].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 10).await;
    assert_eq!(pool.handle().endpoints()[0].against, Some(OutReason::Ejected));
    sleep(Duration::from_secs(2)).await;
    calls.iter_mut().filter(|call| call.is_woken()).for_each(|call| drop(call.poll()));
    assert_eq!(pool.handle().endpoints()[0].against, Some(OutReason::Ejected));
}

#[tokio::test(start_paused = true)]
async fn failures_of_calls_from_before_an_ejection_do_not_count_after_it() {
    let fakes = fakes(2);
    let mut pool = pool_of(Picker::RoundRobin, &fakes);
    fakes[0].answers(Answer::Fails, Duration::from_secs(60));
    let mut calls: Vec<_> = (0..20).map(|_| task::spawn(pool.call(0))).collect();
    calls.iter_mut().for_each(|call| drop(call.poll()));
    fakes[0].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 10).await;
    assert_eq!(pool.handle().endpoints()[0].against, Some(OutReason::Ejected));
    sleep(Duration::from_secs(31)).await;
    fakes[0].answers(Answer::Ok, Duration::ZERO);
    picks(&pool, 4).await;
    assert_eq!(pool.handle().endpoints()[0].against, None);
    sleep(Duration::from_secs(40)).await;
    let late = calls.iter_mut().filter(|call| call.is_woken()).map(|call| assert_ready!(call.poll()).unwrap_err());
    assert_eq!(late.count(), 10);
    picks(&pool, 4).await;
    assert_eq!(pool.handle().endpoints()[0].against, None);
}

#[tokio::test(start_paused = true)]
async fn after_a_lift_an_endpoint_is_ejected_again_when_it_fails_again() {
    let fakes = fakes(1);
    let pool = pool_of(Picker::RoundRobin, &fakes);
    for round in 1..=3 {
        // The only one is used in spite of its ejection, and its first success lifts it.
        fakes[0].answers(Answer::Fails, Duration::ZERO);
        fail(&pool, 4).await;
        assert_eq!(pool.handle().endpoints()[0].against, None);
        fail(&pool, 1).await;
        let endpoint = &pool.handle().endpoints()[0];
        assert_eq!((endpoint.usable, endpoint.against), (true, Some(OutReason::Ejected)));
        assert_eq!((endpoint.ejections, pool.handle().statistics().ejections), (round, u64::from(round)));
        fakes[0].answers(Answer::Ok, Duration::ZERO);
        assert_eq!(picks(&pool, 1).await, [0]);
        assert_eq!(pool.handle().endpoints()[0].against, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_of_a_call_from_before_the_lift_does_not_lift_the_next_ejection() {
    let fakes = fakes(1);
    let mut pool = pool_of(Picker::RoundRobin, &fakes);
    fakes[0].answers(Answer::Ok, Duration::from_secs(1));
    let straggler = tokio::spawn(pool.call(0));
    assert!(pool.handle().eject(&0, Duration::from_secs(60)));
    sleep(Duration::from_secs(2)).await;
    straggler.await.unwrap().unwrap();
    assert_eq!(pool.handle().endpoints()[0].against, Some(OutReason::Ejected));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_by_hand_ends_by_itself_and_does_not_lengthen_later_ones() {
    let fakes = fakes(3);
    let pool = pool_of(Picker::RoundRobin, &fakes);
    assert!(pool.handle().eject(&1, Duration::from_secs(7)));
    assert!(!pool.handle().eject(&9, Duration::from_secs(7)));
    let is_out = || !pool.handle().endpoints()[1].usable;
    sleep(Duration::from_millis(6_999)).await;
    assert!(is_out() && picks(&pool, 10).await.iter().all(|pick| *pick != 1));
    sleep(2 * MS).await;
    // Nobody looked in between: the call itself finds that the time is over.
    assert_eq!(counts(&picks(&pool, 9).await)[&1], 3);
    assert_eq!((pool.handle().endpoints()[1].ejections, pool.handle().statistics().ejections), (0, 1));
    fakes[1].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 15).await;
    assert!(is_out());
    sleep(Duration::from_secs(31)).await;
    assert!(!is_out(), "the first of its own, so thirty seconds");
}

#[tokio::test(start_paused = true)]
async fn no_success_lifts_an_ejection_by_hand_and_it_brings_nothing_back() {
    let fakes = fakes(1);
    let pool = pool_of(Picker::RoundRobin, &fakes);
    fakes[0].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 5).await;
    sleep(Duration::from_secs(61)).await;
    let endpoint = || pool.handle().endpoints().remove(0);
    assert_eq!((endpoint().against, endpoint().ejections), (None, 0));
    assert!(pool.handle().eject(&0, Duration::from_secs(60)));
    fakes[0].answers(Answer::Ok, Duration::ZERO);
    picks(&pool, 10).await;
    assert_eq!((endpoint().against, endpoint().ejections), (Some(OutReason::Ejected), 0));
    sleep(Duration::from_secs(61)).await;
    assert_eq!((endpoint().against, endpoint().ejections), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn reset_forgets_ejections_the_pause_the_loads_and_the_breaker_and_nothing_else() {
    let fakes = fakes(4);
    let mut config = breaker();
    config.consecutive_failures = Some(6);
    let pool = Pool::builder("test").picker(Picker::InFlight).circuit_breaker(config).max_out(1.0).panic_threshold(0.0);
    let pool = pool.build().unwrap();
    fill(&pool, &fakes[..1]);
    fakes[0].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 6).await;
    fill(&pool, &fakes[1..2]);
    let endpoint = |key: usize| pool.handle().endpoints().into_iter().find(|endpoint| endpoint.key == key).unwrap();
    assert_eq!((endpoint(0).usable, endpoint(0).circuit, endpoint(0).ejections), (false, Some(CircuitState::Open), 1));
    assert!(endpoint(0).load > 6.0);
    pool.handle().reset(&0);
    let after = endpoint(0);
    assert_eq!((after.usable, after.against, after.circuit), (true, None, Some(CircuitState::Closed)));
    assert_eq!((after.ejections, after.load, after.picks, after.failures), (0, 1.0, 6, 6));
    // Nor do failures from before the reset count towards the next ejection.
    assert!(pool.handle().remove(&1));
    fail(&pool, 4).await;
    assert_eq!(endpoint(0).against, None);

    // The pause of an unready one goes too, and its length: the next is as short as the first.
    fill(&pool, &fakes[2..]);
    assert!(pool.handle().remove(&0));
    fakes[2].readiness(Ready::Fails);
    for _ in 0..4 {
        assert!(picks(&pool, 10).await.iter().all(|pick| *pick == 3));
        assert_eq!(endpoint(2).against, Some(OutReason::Unready));
        sleep(100 * MS).await;
        assert_eq!(endpoint(2).against, None, "never longer than the first");
        picks(&pool, 1).await;
        pool.handle().reset(&2);
        assert_eq!(endpoint(2).against, None);
    }
    // What was said by hand stays.
    pool.handle().set_health(&3, HealthStatus::Unhealthy);
    pool.handle().disable(&2);
    assert!(pool.handle().reset(&2) && pool.handle().reset(&3));
    assert_eq!((endpoint(2).against, endpoint(3).against), (Some(OutReason::Disabled), Some(OutReason::Unhealthy)));
    assert!(!pool.handle().reset(&9));
}

// === the endpoint's breaker ===

fn breaker() -> CircuitBreakerConfig {
    let mut config = CircuitBreakerConfig::default();
    config.consecutive_failures = Some(3);
    config.probes = 1;
    config
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_takes_its_endpoint_out_and_one_call_probes_it_when_due() {
    let fakes = fakes(3);
    let pool =
        Pool::builder("test").picker(Picker::RoundRobin).ejection(None).circuit_breaker(breaker()).build().unwrap();
    fill(&pool, &fakes);
    fakes[1].answers(Answer::Fails, Duration::ZERO);
    assert_eq!(fail(&pool, 9).await, 3);
    let endpoint = &pool.handle().endpoints()[1];
    assert_eq!(
        (endpoint.usable, endpoint.against, endpoint.circuit),
        (false, Some(OutReason::CircuitOpen), Some(CircuitState::Open)),
    );
    assert_eq!(fail(&pool, 100).await, 0);

    // Due: exactly one call finds out, however many come meanwhile.
    fakes[1].answers(Answer::Ok, Duration::from_secs(1));
    sleep(Duration::from_secs(3_600)).await;
    let before = fakes[1].calls();
    let calls = join_all((0..20).map(|_| pool.clone().oneshot(0))).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(fakes[1].calls() - before, 1);
    assert_eq!(pool.handle().endpoints()[1].circuit, Some(CircuitState::Closed));
    fakes[1].answers(Answer::Ok, Duration::ZERO);
    assert_eq!(counts(&picks(&pool, 30).await)[&1], 10);
    assert_all_settled(&pool.handle(), 9 + 100 + 20 + 30);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_left_frees_its_slot() {
    let fakes = fakes(3);
    let pool =
        Pool::builder("test").picker(Picker::RoundRobin).ejection(None).circuit_breaker(breaker()).build().unwrap();
    fill(&pool, &fakes);
    fakes[1].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 9).await;
    fakes[1].answers(Answer::Never, Duration::ZERO);
    sleep(Duration::from_secs(3_600)).await;
    for _ in 0..5 {
        let before = fakes[1].calls();
        let mut pool = pool.clone();
        drop(poll_once(task::spawn(pool.call(0))));
        assert_eq!(fakes[1].calls() - before, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn breakers_take_no_more_than_the_share_out_and_the_rest_is_called_in_spite_of_them() {
    let fakes = fakes(4);
    let pool =
        Pool::builder("test").picker(Picker::RoundRobin).ejection(None).circuit_breaker(breaker()).build().unwrap();
    fill(&pool, &fakes);
    fakes.iter().for_each(|fake| fake.answers(Answer::Fails, Duration::ZERO));
    assert_eq!(fail(&pool, 50).await, 50);
    let statistics = pool.handle().statistics();
    assert_eq!((statistics.usable, statistics.rejected), (2, 0));
    assert_eq!(fakes.iter().map(Fake::calls).sum::<usize>(), 50, "every call was sent");
}

// === refusals and retries ===

#[tokio::test]
async fn a_refusal_by_an_endpoint_goes_elsewhere_where_the_request_can_be_repeated() {
    let fakes = fakes(3);
    fakes[1].answers(Answer::Refuses, Duration::ZERO);
    let pool = Pool::builder("test").picker(Picker::RoundRobin).clone_requests().build().unwrap();
    fill(&pool, &fakes);
    for _ in 0..30 {
        assert_ne!(pool.clone().oneshot(0).await.unwrap(), 1);
    }
    assert!(fakes[1].calls() >= 10);
    assert_all_settled(&pool.handle(), 30);
    assert_eq!(pool.handle().statistics().successes, 30);

    // Everybody refuses: the caller sees a refusal, after a bounded search.
    fakes.iter().for_each(|fake| fake.answers(Answer::Refuses, Duration::ZERO));
    let error = pool.clone().oneshot(0).await.unwrap_err();
    assert!(error.as_rejected().unwrap().is_limited());
    assert_eq!(pool.handle().statistics().ignored, 1);
    // And a failure is not repeated: it was sent.
    fakes.iter().for_each(|fake| fake.answers(Answer::Fails, Duration::ZERO));
    let before: usize = fakes.iter().map(Fake::calls).sum();
    pool.clone().oneshot(0).await.unwrap_err();
    assert_eq!(fakes.iter().map(Fake::calls).sum::<usize>(), before + 1);
}

#[tokio::test]
async fn only_what_was_certainly_not_sent_goes_elsewhere_and_nothing_does_after_the_deadline() {
    for (answer, called) in [
        (Answer::TimesOut { sent: true }, 1),
        (Answer::TimesOut { sent: false }, 4),
        (Answer::PastDeadline, 1),
        (Answer::Refuses, 4),
        (Answer::Fails, 1),
    ] {
        // However many there are, a call is made at most four times.
        let fakes = fakes(7);
        fakes.iter().for_each(|fake| fake.answers(answer, Duration::ZERO));
        let pool = Pool::builder("test").clone_requests().build().unwrap();
        fill(&pool, &fakes);
        pool.clone().oneshot(0).await.unwrap_err();
        let calls: Vec<_> = fakes.iter().map(Fake::calls).filter(|calls| *calls != 0).collect();
        assert_eq!(calls, vec![1; called], "{answer:?}");
        assert_eq!(pool.handle().statistics().repicks, called as u64 - 1, "{answer:?}");
        assert_all_settled(&pool.handle(), 1);
    }
}

#[tokio::test]
async fn a_rejection_is_no_evidence_against_the_endpoint_that_passed_it_on() {
    let fakes = fakes(2);
    fakes[0].answers(Answer::Refuses, Duration::ZERO);
    let pool =
        Pool::builder("test").picker(Picker::RoundRobin).clone_requests().circuit_breaker(breaker()).build().unwrap();
    fill(&pool, &fakes);
    for _ in 0..20 {
        assert_eq!(pool.clone().oneshot(0).await.unwrap(), 1);
    }
    let endpoint = &pool.handle().endpoints()[0];
    assert_eq!((endpoint.failures, endpoint.against, endpoint.load), (0, None, 1.0));
    assert_eq!((endpoint.circuit, endpoint.picks), (Some(CircuitState::Closed), fakes[0].calls() as u64));
    assert!(endpoint.picks >= 10);
}

/// The endpoints that `attempts` attempts of one retried call go to.
#[cfg(feature = "retry")]
async fn attempts_of_one_call(pool: &Pool<usize, Fake>, attempts: u32) -> Vec<usize> {
    let mut config = mainstay::retry::RetryConfig::default();
    (config.max_attempts, config.budget.reserve) = (attempts, 1000);
    let retry = mainstay::RetryLayer::builder("test").config(config).build().unwrap();
    let used = Mutex::new(Vec::new());
    let operation = || async {
        let endpoint = pool.clone().oneshot(0).await.unwrap();
        used.lock().unwrap().push(endpoint);
        Err::<(), _>(BoxError::from("again"))
    };
    retry.run(operation).await.unwrap_err();
    used.into_inner().unwrap()
}

#[cfg(feature = "retry")]
#[tokio::test(start_paused = true)]
async fn retry_r8_attempts_of_one_call_go_to_different_endpoints() {
    for picker in [Picker::InFlight, Picker::PeakEwma, Picker::RoundRobin] {
        let pool = pool_of(picker, &fakes(4));
        for _ in 0..100 {
            let attempts = attempts_of_one_call(&pool, 4).await;
            assert_eq!(counts(&attempts).len(), 4, "{picker:?}: {attempts:?}");
        }
        // When all were tried, one of them is picked all the same.
        assert_eq!(attempts_of_one_call(&pool, 9).await.len(), 9);
    }
}

// === coming and going ===

#[tokio::test(start_paused = true)]
async fn a_drained_endpoint_finishes_its_calls_takes_no_new_ones_and_leaves() {
    let fakes = fakes(2);
    fakes.iter().for_each(|fake| fake.answers(Answer::Ok, Duration::from_secs(5)));
    let mut pool = pool_of(Picker::RoundRobin, &fakes);
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(pool.call(0))).collect();
    let drained = pool.handle().drain(&0).unwrap();
    let endpoint = &pool.handle().endpoints()[0];
    assert_eq!((endpoint.usable, endpoint.against, endpoint.in_flight), (false, Some(OutReason::Draining), 1));
    fakes[1].answers(Answer::Ok, Duration::ZERO);
    assert_eq!(picks(&pool, 10).await, [1; 10]);

    let start = Instant::now();
    drained.await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let keys: Vec<_> = pool.handle().endpoints().iter().map(|endpoint| endpoint.key).collect();
    assert_eq!(keys, [1]);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(pool.handle().drain(&0).is_none());
    // Idle already: gone at once, whether anybody waits or not.
    drop(pool.handle().drain(&1).unwrap());
    assert!(pool.handle().endpoints().is_empty());
    assert_all_settled(&pool.handle(), 12);
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_survive_the_removal_of_their_endpoint_and_of_the_pool() {
    let fakes = fakes(1);
    fakes[0].answers(Answer::Ok, Duration::from_secs(1));
    let mut pool = pool_of(Picker::PeakEwma, &fakes);
    let call = tokio::spawn(pool.call(0));
    assert!(pool.handle().remove(&0));
    let statistics = pool.handle();
    drop(pool);
    assert_eq!(call.await.unwrap().unwrap(), 0);
    assert_eq!(statistics.statistics().successes, 1);
}

#[tokio::test]
async fn a_service_put_in_place_of_another_takes_over_and_keeps_the_weight() {
    let fakes = fakes(3);
    let pool = pool_of(Picker::RoundRobin, &fakes[..1]);
    pool.handle().add_weighted(9, fakes[1].clone(), 4.try_into().unwrap());
    pool.handle().add(9, fakes[2].clone());
    assert_eq!(pool.handle().endpoints()[1].weight, 4);
    assert_eq!(counts(&picks(&pool, 5).await), HashMap::from([(0, 1), (2, 4)]));
    // With a weight it takes that one over.
    pool.handle().add_weighted(9, fakes[1].clone(), 2.try_into().unwrap());
    assert_eq!(pool.handle().endpoints()[1].weight, 2);
    assert_eq!(counts(&picks(&pool, 9).await), HashMap::from([(0, 3), (1, 6)]));
}

#[tokio::test]
async fn a_stream_of_changes_drives_the_pool_until_the_pool_is_gone() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Change<usize, Fake>, BoxError>>();
    let changes = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|change| (change, receiver))
    });
    let pool = pool_of(Picker::RoundRobin, &[]);
    let mut follow = task::spawn(pool.handle().follow(Box::pin(changes)));
    fakes(3).into_iter().for_each(|fake| drop(sender.send(Ok(Change::Insert(fake.number, fake)))));
    assert_pending!(follow.poll());
    assert_eq!(counts(&picks(&pool, 9).await).len(), 3);
    sender.send(Ok(Change::Remove(1))).unwrap();
    assert!(follow.is_woken());
    assert_pending!(follow.poll());
    assert_eq!(counts(&picks(&pool, 10).await), HashMap::from([(0, 5), (2, 5)]));
    drop(pool);
    assert!(follow.is_woken());
    assert_ready!(follow.poll()).unwrap();
}

#[tokio::test]
async fn an_error_of_the_stream_ends_the_following_and_keeps_the_endpoints() {
    let mut fakes = fakes(1);
    let pool = pool_of(Picker::RoundRobin, &[]);
    let changes = [Ok(Change::Insert(0, fakes.remove(0))), Err(BoxError::from("the registry is down"))];
    let error = pool.handle().follow(futures_util::stream::iter(changes)).await.unwrap_err();
    assert_eq!(error.to_string(), "the registry is down");
    assert_eq!(picks(&pool, 1).await, [0]);
}

#[tokio::test]
async fn what_a_stream_told_before_it_panicked_holds() {
    let pool = pool_of(Picker::RoundRobin, &[]);
    let changes = futures_util::stream::iter(0..2)
        .map(|number| if number == 0 { number } else { panic!("a panic of the test, in the stream") })
        .map(|number| Ok::<_, BoxError>(Change::Insert(number, Fake::new(number))));
    let panicked = tokio::spawn(pool.handle().follow(changes)).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(picks(&pool, 1).await, [0]);
}

// === what must not be lost ===

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_gives_everything_back() {
    let fakes = fakes(2);
    for (ready, polls) in [(Ready::Yes, 0), (Ready::Yes, 1), (Ready::Never, 1), (Ready::Never, 2)] {
        for picker in [Picker::InFlight, Picker::PeakEwma, Picker::RoundRobin] {
            for fake in &fakes {
                fake.readiness(ready);
                fake.answers(Answer::Never, Duration::ZERO);
            }
            let mut pool = pool_of(picker, &fakes);
            let mut call = task::spawn(pool.call(0));
            (0..polls).for_each(|_| assert_pending!(call.poll()));
            drop(call);
            assert_all_settled(&pool.handle(), 1);
            assert_eq!(pool.handle().statistics().abandoned, 1);
        }
    }
    let mut pool = Pool::<usize, Fake>::builder("test").empty_wait(Duration::from_secs(1)).build().unwrap();
    drop(poll_once(task::spawn(pool.call(0))));
    assert_eq!(pool.handle().statistics().abandoned, 1);
}

#[tokio::test]
async fn a_panic_of_the_endpoint_is_a_failure_and_loses_nothing() {
    let fakes = fakes(1);
    let settings = [(Ready::Panics, Answer::Ok), (Ready::Yes, Answer::Panics), (Ready::Yes, Answer::PanicsInCall)];
    for (ready, answer) in settings {
        fakes[0].readiness(ready);
        fakes[0].answers(answer, Duration::ZERO);
        let pool = pool_of(Picker::PeakEwma, &fakes);
        for _ in 0..5 {
            let call = AssertUnwindSafe(pool.clone().oneshot(0)).catch_unwind().await;
            assert!(call.is_err());
        }
        assert_all_settled(&pool.handle(), 5);
        let statistics = pool.handle().statistics();
        assert_eq!((statistics.failures, statistics.ejections), (5, 1), "{ready:?} {answer:?}");
    }
}

#[tokio::test]
async fn a_panicking_classifier_or_listener_loses_nothing() {
    let pool = Pool::builder("test")
        .classify(classify_fn(|_: Result<&usize, &BoxError>| panic!("a panic of the test, in the classifier")))
        .listener(|_: &Event<'_>| panic!("a panic of the test, in the listener"))
        .build()
        .unwrap();
    fill(&pool, &fakes(1));
    let call = AssertUnwindSafe(pool.clone().oneshot(0)).catch_unwind().await;
    assert!(call.is_err());
    assert_all_settled(&pool.handle(), 1);
    assert_eq!(pool.handle().statistics().failures, 1);
}

#[test]
fn threads_that_call_while_endpoints_come_and_go_lose_no_call() {
    let pool = pool_of(Picker::PeakEwma, &fakes(8));
    let ended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut pool = pool.clone();
                for _ in 0..5_000 {
                    let _ = pool.call(0).now_or_never().unwrap();
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            for turn in 0..300 {
                let key = turn % 8;
                match turn % 3 {
                    0 => drop(pool.handle().drain(&key)),
                    1 => assert!(pool.handle().remove(&key) || key < 8),
                    _ => {
                        pool.handle().eject(&key, Duration::from_secs(1));
                        pool.handle().reset(&key);
                    }
                }
                pool.handle().add(key, Fake::new(key));
            }
        });
    });
    assert_all_settled(&pool.handle(), ended.load(Ordering::Relaxed));
    assert_eq!(pool.handle().statistics().successes, 20_000);
}

#[test]
fn building_and_dropping_outside_of_a_runtime_is_legal() {
    let pool = pool_of(Picker::PeakEwma, &fakes(3));
    drop(pool.handle().drain(&1));
    drop(pool.handle().follow(futures_util::stream::pending::<Result<Change<usize, Fake>, BoxError>>()));
    drop(pool.clone().call(0));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(pool))).is_ok());
}

// === cost ===

/// An endpoint that is ready and answers without an allocation of its own.
#[derive(Clone)]
struct Instantly;

impl Service<u32> for Instantly {
    type Response = u32;
    type Error = BoxError;
    type Future = future::Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        future::ready(Ok(request))
    }
}

#[test]
fn a_call_allocates_nothing() {
    for picker in [Picker::PeakEwma, Picker::InFlight, Picker::RoundRobin] {
        let mut pool = Pool::builder("test").picker(picker).circuit_breaker(breaker()).build().unwrap();
        pool.handle().add_all((0..10).map(|key| (key, Instantly)));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut call = move || {
            let mut call = std::pin::pin!(pool.call(1));
            assert!(call.as_mut().poll(&mut cx).is_ready());
        };
        // The first calls to each endpoint may resolve metrics and fill its breaker's window.
        (0..5_000).for_each(|_| call());
        assert_eq!(allocation_counter::measure(|| (0..100).for_each(|_| call())).count_total, 0, "{picker:?}");
    }
}

#[test]
fn a_refusal_allocates_nothing() {
    let mut pool: Pool<usize, Instantly> = Pool::builder("test").build().unwrap();
    let mut refuse = move || drop(pool.call(1));
    refuse();
    assert_eq!(allocation_counter::measure(refuse).count_total, 0);
}

#[test]
fn futures_and_handles_can_go_to_other_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let mut pool = pool_of(Picker::PeakEwma, &fakes(1));
    is_send(&pool.call(0));
    is_send(&pool);
    is_sync(&pool);
    is_send(&pool.handle());
    is_sync(&pool.handle());
    is_send(&pool.handle().drain(&0).unwrap());
}

// === what operators see ===

#[tokio::test(start_paused = true)]
async fn events_tell_what_changed_and_why_once_each() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let log = log.clone();
        move |event: &Event<'_>| log.lock().unwrap().push(event.to_string())
    };
    let fakes = fakes(2);
    let pool = Pool::builder("app").picker(Picker::RoundRobin).listener(listener).build().unwrap();
    let told = || std::mem::take(&mut *log.lock().unwrap());
    fill(&pool, &fakes);
    assert_eq!(
        told(),
        [
            "pool `app` uses 0: nothing speaks against it",
            "pool `app` uses 1: nothing speaks against it",
            "pool `app` is not empty any more",
        ]
    );
    fakes[0].answers(Answer::Fails, Duration::ZERO);
    fail(&pool, 10).await;
    assert_eq!(
        told(),
        ["pool `app` ejected 0 for 30s after 5 failures in a row", "pool `app` no longer uses 0: ejected"]
    );
    pool.handle().set_health(&1, HealthStatus::Unhealthy);
    assert_eq!(told(), ["pool `app` uses 0: too many are out", "pool `app` no longer uses 1: unhealthy"]);
    pool.handle().set_health(&0, HealthStatus::Unhealthy);
    assert_eq!(told(), ["pool `app` uses 1: panic", "pool `app` uses all endpoints: only 0 of 2 are healthy"]);
    (0..2).for_each(|key| assert!(pool.handle().remove(&key)));
    assert_eq!(told().last().unwrap(), "pool `app` is empty");
}

#[cfg(feature = "health")]
mod follow_health {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use mainstay::HealthStatus;
    use mainstay::balance::{Pool, PoolHandle};
    use mainstay::health::{Monitor, MonitorConfig};
    use tokio::task::yield_now;

    fn monitor() -> Monitor<&'static str> {
        let mut config = MonitorConfig::default();
        (config.rise, config.fall, config.jitter) = (1, 1, 0.0);
        config.interval = Duration::from_secs(1);
        Monitor::new("app", config).unwrap()
    }

    fn health(pool: &PoolHandle<&'static str, ()>, key: &str) -> HealthStatus {
        pool.endpoints().into_iter().find(|endpoint| endpoint.key == key).unwrap().health
    }

    async fn a_moment() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for _ in 0..8 {
            yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_take_up_what_their_targets_show_whichever_came_first() {
        let (monitor, pool) = (monitor(), Pool::builder("app").build().unwrap());
        let well = Arc::new(AtomicBool::new(false));
        let probe = {
            let well = well.clone();
            move || {
                let well = well.load(Ordering::Relaxed);
                async move { if well { Ok(()) } else { Err(std::io::Error::other("down")) } }
            }
        };
        let handle: PoolHandle<_, ()> = pool.handle();
        tokio::spawn(handle.follow_health(monitor.subscribe()));
        handle.add("early", ());
        monitor.add("early", probe.clone());
        monitor.add("late", probe);
        monitor.start().unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(health(&handle, "early"), HealthStatus::Unhealthy);

        // Added, and replaced, after the transition: nothing is told again, and still it is known.
        handle.add("late", ());
        assert_eq!(health(&handle, "late"), HealthStatus::Unhealthy);
        handle.add("late", ());
        assert_eq!(health(&handle, "late"), HealthStatus::Unhealthy);

        // What was held against it while it was down goes when its checks pass again.
        handle.eject(&"early", Duration::from_secs(600));
        well.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let early = handle.endpoints().into_iter().find(|endpoint| endpoint.key == "early").unwrap();
        assert_eq!((early.health, early.against), (HealthStatus::Healthy, None));
        assert_eq!(health(&handle, "late"), HealthStatus::Healthy);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_monitor_or_the_follower_goes_health_reads_unknown() {
        for monitor_goes in [true, false] {
            let (monitor, pool) = (monitor(), Pool::builder("app").build().unwrap());
            let handle: PoolHandle<_, ()> = pool.handle();
            handle.add("a", ());
            let follower = tokio::spawn(handle.follow_health(monitor.subscribe()));
            monitor.add("a", || async { Err::<(), _>(std::io::Error::other("down")) });
            monitor.start().unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(health(&handle, "a"), HealthStatus::Unhealthy);
            if monitor_goes {
                drop(monitor);
                follower.await.unwrap();
            } else {
                follower.abort();
                a_moment().await;
            }
            assert_eq!(health(&handle, "a"), HealthStatus::Unknown, "monitor goes: {monitor_goes}");
            // Nor is it remembered for an endpoint that comes later.
            assert!(handle.remove(&"a"));
            handle.add("a", ());
            assert_eq!(health(&handle, "a"), HealthStatus::Unknown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_follower_ends_with_the_pool() {
        let (monitor, pool) = (monitor(), Pool::<&'static str, ()>::builder("app").build().unwrap());
        let follower = tokio::spawn(pool.handle().follow_health(monitor.subscribe()));
        a_moment().await;
        assert!(!follower.is_finished());
        drop(pool);
        follower.await.unwrap();
    }
}
