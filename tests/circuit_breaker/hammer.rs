//! One breaker under eight threads whose calls end in every way there is, while they operate it: at rest its accounts are
//! those that the threads kept themselves.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use mainstay::circuit_breaker::{CircuitBreakerHandle, OpenTime, ProbeRule, SlowCalls, Window};
use mainstay::{BoxError, CircuitState, Outcome, Rejectable};

use crate::support::*;

const THREADS: u64 = 8;
const CALLS: u64 = 8_000;

/// What one thread saw of its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    successes: u64,
    refused: u64,
    failures: u64,
    ignored: u64,
    rejected: u64,
    abandoned: u64,
}

/// How a call ends, if it is admitted.
#[derive(Clone, Copy)]
enum End {
    Recorded(Outcome),
    Dropped,
    /// A future that is never ready is polled, and dropped.
    Cancelled,
    Panicked,
    /// The verdict comes after many others.
    Late(Outcome),
}

/// A mix without a pattern, the same in each run.
fn draw(thread: u64, call: u64) -> u64 {
    let mixed = (call * THREADS + thread + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

fn end(draw: u64) -> End {
    let outcome = match draw / 64 % 16 {
        0 => Outcome::Refused,
        1 => Outcome::DependencyFailed,
        2 => Outcome::Transient,
        3 => Outcome::Permanent,
        4 => Outcome::Ignored,
        5 => Outcome::Throttled { retry_after: None },
        _ => Outcome::Success,
    };
    match draw % 16 {
        0 => End::Dropped,
        1 => End::Cancelled,
        2 => End::Panicked,
        3 => End::Late(outcome),
        _ => End::Recorded(outcome),
    }
}

/// What an operator may do, but for `disable`: what a disabled breaker admits is in no account, and nobody is told.
fn operate(breaker: &CircuitBreakerHandle, draw: u64) {
    match draw % 7 {
        0 => breaker.observe(),
        1 => breaker.force_open(),
        2 => breaker.close(),
        3 => breaker.reset(),
        // Not from every state.
        4 => drop(breaker.open_for(millis(0))),
        5 => drop(breaker.transition_to(CircuitState::HalfOpen)),
        _ => drop(breaker.statistics()),
    }
}

impl Account {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.successes += 1,
            Outcome::Refused | Outcome::DependencyFailed => self.refused += 1,
            Outcome::Transient | Outcome::NotSent | Outcome::Permanent => self.failures += 1,
            Outcome::Ignored | Outcome::Throttled { .. } => self.ignored += 1,
            other => unreachable!("{other:?} is not in the mix"),
        }
    }

    fn add(self, other: Self) -> Self {
        Self {
            successes: self.successes + other.successes,
            refused: self.refused + other.refused,
            failures: self.failures + other.failures,
            ignored: self.ignored + other.ignored,
            rejected: self.rejected + other.rejected,
            abandoned: self.abandoned + other.abandoned,
        }
    }
}

/// Polls a call of `future` once.
fn poll_once(
    breaker: &CircuitBreakerHandle,
    future: impl Future<Output = Result<(), BoxError>>,
) -> Poll<Result<(), BoxError>> {
    pin!(breaker.call(future)).poll(&mut Context::from_waker(Waker::noop()))
}

fn is_rejected(polled: &Poll<Result<(), BoxError>>) -> bool {
    matches!(polled, Poll::Ready(Err(error)) if error.as_rejected().is_some())
}

fn work(breaker: &CircuitBreakerHandle, thread: u64) -> Account {
    let mut account = Account::default();
    let mut late = Vec::new();
    for call in 0..CALLS {
        let draw = draw(thread, call);
        if draw.is_multiple_of(61) {
            operate(breaker, draw / 61);
        }
        match end(draw / 61) {
            End::Cancelled => match poll_once(breaker, pending()) {
                Poll::Pending => account.abandoned += 1,
                polled => {
                    assert!(is_rejected(&polled));
                    account.rejected += 1;
                }
            },
            End::Panicked => {
                // Not by `panic!`, which would tell of each.
                let panicking = async { resume_unwind(Box::new("on purpose")) };
                match catch_unwind(AssertUnwindSafe(|| poll_once(breaker, panicking))) {
                    Err(_) => account.failures += 1,
                    Ok(polled) => {
                        assert!(is_rejected(&polled));
                        account.rejected += 1;
                    }
                }
            }
            by_hand => match (breaker.try_acquire(), by_hand) {
                (Err(_), _) => account.rejected += 1,
                (Ok(permit), End::Recorded(outcome)) => {
                    permit.record(outcome);
                    account.count(outcome);
                }
                (Ok(permit), End::Late(outcome)) => {
                    late.push((permit, outcome));
                    account.count(outcome);
                }
                (Ok(permit), _) => {
                    drop(permit);
                    account.abandoned += 1;
                }
            },
        }
        if late.len() > 32 {
            late.drain(..).for_each(|(permit, outcome)| permit.record(outcome));
        }
    }
    late.drain(..).for_each(|(permit, outcome)| permit.record(outcome));
    account
}

#[test]
fn at_rest_the_accounts_are_those_of_eight_threads_whatever_they_did() {
    let at_once = OpenTime::Constant(millis(0));
    let slow = SlowCalls { longer_than: secs(60), rate: 1.0 };
    for builder in [
        counting(100, 20, 0.5),
        counting(64, 1, 1.0).slow_calls(slow).probes(3),
        builder().window(Window::Time { length: millis(10) }).failure_rate(0.4).abandoned_is_failure(true),
        consecutive(3).probe_rule(ProbeRule::ConsecutiveSuccesses(2)).probes(2),
    ] {
        let breaker = builder.open_time(at_once).build_handle().unwrap();
        let kept = thread::scope(|scope| {
            let breaker = &breaker;
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(breaker, thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(Account::default(), Account::add)
        });
        let now = breaker.statistics();
        let counted = Account {
            successes: now.successes,
            refused: now.refused,
            failures: now.failures,
            ignored: now.ignored,
            rejected: now.rejected,
            abandoned: now.abandoned,
        };
        assert_eq!(counted, kept);
        assert_eq!(now.calls(), THREADS * CALLS);
        // There was something of everything.
        assert!([kept.successes, kept.refused, kept.failures, kept.ignored].iter().all(|&count| count > 0), "{kept:?}");
        assert!(kept.rejected > 0 && kept.abandoned > 0, "{kept:?}");
        assert_eq!(now.probes_in_flight, 0);

        // And it is not stuck: closed by hand or on its own, it admits.
        breaker.close();
        permit(&breaker).record(Outcome::Success);
        assert_eq!(breaker.statistics().calls(), THREADS * CALLS + 1);
    }
}
