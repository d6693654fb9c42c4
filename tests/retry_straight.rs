//! A retry that follows at once has a shorter way through the code; it must come to the same as the way of all others.
#![cfg(feature = "retry")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::backoff::BackoffConfig;
use mainstay::budget::{Budget, BudgetConfig, InFlightConfig};
use mainstay::retry::{RequestPolicy, RetryStatistics};
use mainstay::telemetry::Event;
use mainstay::{Outcome, Rejected, RetryLayer, classify_fn, context};
use tokio_test::task;
use tower::{Layer, Service};

#[derive(Clone, Debug)]
enum Fail {
    Sick,
    Refused(Rejected),
}
mainstay::rejectable!(Fail::Refused);

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
enum Step {
    Answers(u32),
    Fails,
    /// Was not sent.
    IsShed,
    IsCutOff,
    /// The same as the first two, but pending at the first poll.
    AnswersLate,
    FailsLate,
    PanicsInCall,
    PanicsInPoll,
}

const STEPS: [Step; 11] = [
    Step::Answers(200),
    Step::Answers(404),
    Step::Answers(429),
    Step::Answers(500),
    Step::Fails,
    Step::IsShed,
    Step::IsCutOff,
    Step::AnswersLate,
    Step::FailsLate,
    Step::PanicsInCall,
    Step::PanicsInPoll,
];

/// Whether a service is ready for a second attempt.
#[derive(Clone, Copy, Debug)]
enum Readiness {
    AtOnce,
    Late,
    Never,
    Panics,
}

/// What the request has to say.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Requests {
    MayBeRepeated,
    AreNotIdempotent,
    AreNotReplayable,
    MayNotBeRetried,
    PanicWhenReplayed,
    /// For the third attempt.
    PanicWhenCopiedAgain,
}

impl RequestPolicy<u32> for Requests {
    fn try_clone(&self, copies: &u32) -> Option<u32> {
        assert!(*self != Self::PanicWhenCopiedAgain || *copies == 0, "in try_clone");
        Some(copies + 1)
    }

    fn is_idempotent(&self, _: &u32) -> bool {
        *self != Self::AreNotIdempotent
    }

    fn may_retry(&self, _: &u32) -> bool {
        *self != Self::MayNotBeRetried
    }

    fn is_replayable(&self, _: &u32) -> bool {
        assert!(*self != Self::PanicWhenReplayed, "in is_replayable");
        *self != Self::AreNotReplayable
    }
}

#[derive(Clone)]
struct Scripted {
    steps: [Step; 3],
    readiness: Readiness,
    polled: bool,
    calls: Arc<AtomicU32>,
}

impl Service<u32> for Scripted {
    type Response = u32;
    type Error = Fail;
    type Future = Pin<Box<dyn Future<Output = Result<u32, Fail>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fail>> {
        assert!(context::current().attempt() > 1, "only for later attempts");
        match self.readiness {
            Readiness::Late if !self.polled => {
                self.polled = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Readiness::Never => Poll::Ready(Err(Fail::Sick)),
            Readiness::Panics => panic!("in poll_ready"),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: u32) -> Self::Future {
        self.polled = false;
        let call = self.calls.fetch_add(1, Relaxed);
        assert_eq!(context::current().attempt(), call + 1);
        let step = self.steps[call as usize];
        assert!(!matches!(step, Step::PanicsInCall), "in call");
        let mut polled = false;
        Box::pin(poll_fn(move |cx| {
            assert_eq!(context::current().attempt(), call + 1);
            assert!(!matches!(step, Step::PanicsInPoll), "in poll");
            if matches!(step, Step::AnswersLate | Step::FailsLate) && !std::mem::replace(&mut polled, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(match step {
                Step::Answers(answer) => Ok(answer),
                Step::AnswersLate => Ok(200),
                Step::IsShed => Err(Fail::Refused(Rejected::shed())),
                Step::IsCutOff => Err(Fail::Refused(Rejected::Timeout { timeout: Duration::from_secs(1), sent: true })),
                _ => Err(Fail::Sick),
            })
        }))
    }
}

/// All that can be seen of a call.
#[derive(Debug, PartialEq)]
struct Seen {
    ended: String,
    calls: u32,
    counted: RetryStatistics,
    balance: f64,
    events: Vec<String>,
}

fn budgets() -> [Budget; 4] {
    let mut empty = BudgetConfig::default();
    (empty.ratio, empty.reserve) = (0.2, 0);
    let mut full = BudgetConfig::default();
    (full.ratio, full.reserve) = (1.0, 0);
    [
        Budget::unlimited(),
        Budget::new(empty).unwrap(),
        Budget::new(full).unwrap(),
        Budget::in_flight(InFlightConfig::default()).unwrap(),
    ]
}

/// Makes a call, and drops it after so many polls. An observer is what sends it the longer way.
fn seen(straight: bool, service: Scripted, budget: &Budget, requests: Requests, polls: usize) -> Seen {
    let classifier = classify_fn(|result: Result<&u32, &Fail>| match result {
        Ok(200) => Outcome::Success,
        Ok(404) => Outcome::Refused,
        Ok(429) => Outcome::Throttled { retry_after: None },
        _ => Outcome::Transient,
    });
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let builder = RetryLayer::builder("test")
        .backoff(BackoffConfig::none())
        .budget(budget.clone())
        .classify(classifier)
        .requests(requests)
        .listener(move |event: &Event<'_>| log.lock().unwrap().push(event.to_string()));
    let builder = if straight { builder } else { builder.on_attempt(|_| ()) };
    let layer = builder.build().unwrap();
    let calls = service.calls.clone();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut service = layer.layer(service);
        let mut call = task::spawn(service.call(0));
        let mut ended = Poll::Pending;
        for _ in 0..polls {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call.poll())) {
                Ok(Poll::Pending) => {}
                Ok(ready) => {
                    ended = ready;
                    break;
                }
                // Polled after a panic it says nothing more, and is counted no more.
                Err(_) => {
                    assert!(call.poll().is_pending());
                    return "panicked".to_owned();
                }
            }
        }
        format!("{ended:?}")
    }));
    let counted = layer.handle().statistics();
    assert_eq!(context::current().attempt(), 0, "every scope was left");
    let events = events.lock().unwrap().clone();
    let ended = ended.unwrap_or_else(|_| "panicked in call".to_owned());
    Seen { ended, calls: calls.load(Relaxed), counted, balance: budget.balance(), events }
}

#[tokio::test(start_paused = true)]
async fn a_retry_at_once_is_a_retry_like_any_other() {
    // Thousands of panics, none of which is news.
    std::panic::set_hook(Box::new(|_| ()));
    let outcome = std::panic::catch_unwind(|| {
        let ways = [
            (Requests::MayBeRepeated, 0),
            (Requests::MayBeRepeated, 1),
            (Requests::MayBeRepeated, 2),
            (Requests::MayBeRepeated, 9),
            (Requests::AreNotIdempotent, 9),
            (Requests::AreNotReplayable, 9),
            (Requests::MayNotBeRetried, 9),
            (Requests::PanicWhenReplayed, 9),
            (Requests::PanicWhenCopiedAgain, 9),
        ];
        for first in STEPS {
            for second in STEPS {
                for third in [Step::Answers(200), Step::Fails] {
                    for readiness in [Readiness::AtOnce, Readiness::Late, Readiness::Never, Readiness::Panics] {
                        for (requests, polls) in ways {
                            let steps = [first, second, third];
                            for (one, other) in budgets().into_iter().zip(budgets()) {
                                let service = || Scripted { steps, readiness, polled: false, calls: Arc::default() };
                                let straight = seen(true, service(), &one, requests, polls);
                                let longer = seen(false, service(), &other, requests, polls);
                                let case = format!("{steps:?} {readiness:?} {requests:?} {polls} {one:?}");
                                if straight != longer {
                                    return Err(format!("{case}: {straight:#?} and not {longer:#?}"));
                                }
                                if straight.counted.calls() != 1 {
                                    return Err(format!("{case}: counted once? {straight:#?}"));
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    });
    let _ = std::panic::take_hook();
    outcome.expect("no panic but those of the script").unwrap();
}
