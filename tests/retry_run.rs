//! Retries of code that is no service: `RetryLayer::run`, and `retry`.
#![cfg(feature = "retry")]

use std::cell::Cell;
use std::future::{pending, ready};
use std::io;
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::budget::Budget;
use mainstay::context::{self, Context};
use mainstay::retry::{RetryBuilder, retry};
use mainstay::{BoxError, Error, Outcome, Rejectable, Rejected, RetryLayer, classify_fn};
use tokio::time::Instant;
use tokio_test::{assert_pending, task};

const SECOND: Duration = Duration::from_secs(1);

fn every(delay: Duration) -> RetryBuilder {
    RetryLayer::builder("test").backoff(BackoffConfig::constant(delay)).hint_jitter(0.0).budget(Budget::unlimited())
}

/// Scenario 1, without a service. The closure borrows, is not cloned, and knows its attempt.
#[tokio::test(start_paused = true)]
async fn an_operation_has_the_attempts_and_delays_of_the_layer() {
    let retry = every(SECOND / 2).build().unwrap();
    for (failures, calls, slept, succeeds) in [(0, 1, 0, true), (1, 2, 500, true), (9, 3, 1_000, false)] {
        let (made, start) = (Cell::new(0), Instant::now());
        let result = retry
            .run(|| {
                made.set(made.get() + 1);
                let attempt = made.get();
                async move {
                    assert_eq!(context::current().attempt(), attempt);
                    if attempt > failures { Ok(attempt) } else { Err(BoxError::from("reset")) }
                }
            })
            .await;
        assert_eq!((made.get(), start.elapsed().as_millis()), (calls, slept));
        assert_eq!(result.is_ok(), succeeds);
    }
    let counted = retry.handle().statistics();
    assert_eq!((counted.successes, counted.gave_up_attempts, counted.retries), (2, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_judged_by_the_layers_classifier() {
    let classifier = classify_fn(|result: Result<&u16, &Error<io::Error>>| match result {
        Ok(404) => Outcome::Refused,
        Ok(429) => Outcome::throttled(2 * SECOND),
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Transient,
    });
    let retry = every(SECOND).classify(classifier).build().unwrap();
    for (answers, slept) in [(vec![404, 200], 0), (vec![429, 200], 2)] {
        let (mut answers, start) = (answers.into_iter(), Instant::now());
        let last = retry.run(|| std::future::ready(Ok::<_, Error<io::Error>>(answers.next().unwrap()))).await;
        assert_eq!((last.is_ok(), start.elapsed()), (true, slept * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_cut_off_by_the_attempt_timeout_and_ends_with_the_deadline() {
    let retry = every(SECOND).attempt_timeout(SECOND).build().unwrap();
    let start = Instant::now();
    let call = retry.run(pending::<Result<(), BoxError>>);
    let error = Context::new().with_deadline(start + 4 * SECOND).scope(call).await.unwrap_err();
    assert_eq!(error.as_rejected(), Some(&Rejected::Timeout { timeout: SECOND, sent: true }));
    // Attempts at 0 and 2 s; a third would start at the deadline.
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(retry.handle().statistics().gave_up_deadline, 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_deadline_has_passed_is_not_called() {
    let policy = every(SECOND).build().unwrap();
    let scope = Context::new().with_deadline(Instant::now());
    let refusal = Rejected::DeadlineExceeded { sent: false };

    let call = scope.enter(|| policy.run(|| -> std::future::Ready<Result<(), BoxError>> { unreachable!() }));
    assert_eq!(call.await.unwrap_err().as_rejected(), Some(&refusal));
    let call = scope.enter(|| retry(&policy, || -> std::future::Ready<Result<(), io::Error>> { unreachable!() }));
    assert!(matches!(call.await.unwrap_err(), Error::Rejected(rejected) if rejected == refusal));
    let counted = policy.handle().statistics();
    assert_eq!((counted.failures, counted.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn operations_draw_on_the_budget_and_are_marked_for_retries_further_out() {
    let mut config = mainstay::budget::BudgetConfig::default();
    (config.ratio, config.reserve) = (0.0, 1);
    let budget = Budget::new(config).unwrap();
    let (inner, outer) = (every(SECOND).budget(budget.clone()).build().unwrap(), every(SECOND).build().unwrap());
    let calls = Cell::new(0);
    let fail = || {
        calls.set(calls.get() + 1);
        async { Err::<(), _>(BoxError::from("reset")) }
    };
    let error = outer.run(|| inner.run(fail)).await.unwrap_err();
    assert_eq!(error.to_string(), "reset", "the last real result");
    assert_eq!((calls.get(), budget.balance()), (2, 0.0));
    assert_eq!(inner.handle().statistics().gave_up_budget, 1);
    assert_eq!(outer.handle().statistics().gave_up_inner, 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_may_not_be_repeated_is_not() {
    let retry = every(SECOND).idempotent_if(|(): &()| false).build().unwrap();
    let calls = Cell::new(0);
    let count = |error: BoxError| {
        calls.set(calls.get() + 1);
        std::future::ready(Err::<(), _>(error))
    };
    retry.run(|| count("sent".into())).await.unwrap_err();
    assert_eq!(calls.replace(0), 1);
    retry.run(|| count(BoxError::from_rejected(Rejected::shed()))).await.unwrap_err();
    assert_eq!(calls.get(), 3, "what was not sent may be");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_dropped_is_abandoned_and_not_started_again() {
    let (retry, calls) = (every(SECOND).build().unwrap(), Cell::new(0));
    let mut call = task::spawn(retry.run(|| {
        calls.set(calls.get() + 1);
        async { Err::<(), _>(BoxError::from("reset")) }
    }));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!((calls.get(), retry.handle().statistics().abandoned), (1, 1));
}

/// Any error will do, and comes back beside the refusals of the crate.
#[tokio::test(start_paused = true)]
async fn an_operation_with_any_error_is_retried_by_the_function() {
    let policy = every(SECOND).attempt_timeout(SECOND).build().unwrap();
    let mut left = 2;
    let parse = || {
        left -= 1;
        ready(if left > 0 { "no number" } else { "42" }.parse::<u32>())
    };
    assert_eq!(retry(&policy, parse).await.unwrap(), 42);
    let error = retry(&policy, || ready("no number".parse::<u32>())).await.unwrap_err();
    assert!(matches!(error, mainstay::Error::Service(_)), "{error:?}");
    let stuck = retry(&policy, pending::<Result<(), std::num::ParseIntError>>).await.unwrap_err();
    assert!(stuck.as_rejected().is_some_and(Rejected::is_timeout));
    assert_eq!((policy.handle().statistics().calls(), policy.handle().statistics().retries), (3, 1 + 2 + 2));
}
