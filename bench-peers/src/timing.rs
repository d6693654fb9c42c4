//! Times, as ratios: of a call to a call of the bare service, and of what two threads get done to what one does.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_instructions::subject::{Handle, Subject};
use tokio::runtime::Handle as Runtime;

use crate::peers::{self, Case};

/// The most calls of a round.
const CALLS: u64 = 20_000;
/// What a round may take; of dear calls it makes fewer.
const ROUND: Duration = Duration::from_millis(4);
/// Rounds that take turns; the median counts.
const ROUNDS: usize = 9;

/// What came of a case on one kind of handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Time of a call over that of the bare service.
    pub(crate) ratio_to_bare: f64,
    /// Calls of two threads on one instance over those of one thread, in the same time; 2.0 is perfect.
    pub(crate) two_threads: f64,
}

/// Measures each case on a handle that is reused and with a clone a call, in this order.
pub(crate) fn measure(cases: &[Case]) -> Vec<Option<Times>> {
    let mut times = Vec::new();
    for case in cases {
        let (subject, bare) = ((case.make)(), (cases[peers::bare_of(cases, case)].make)());
        for handle in [Handle::Reused, Handle::Cloned] {
            if !case.is_timed() {
                times.push(None);
                continue;
            }
            let calls = calls_of_a_round(&*subject, handle);
            let (mut ratios, mut scalings) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let without = one_thread(&*bare, handle, calls);
                let one = one_thread(&*subject, handle, calls);
                let two = two_threads(&*subject, handle, calls);
                ratios.push(one / without);
                // Each of the two makes as many calls as the one did.
                scalings.push(2.0 * one / two);
            }
            times.push(Some(Times { ratio_to_bare: median(ratios), two_threads: median(scalings) }));
        }
    }
    times
}

/// As many calls as fit into a round.
fn calls_of_a_round(subject: &dyn Subject, handle: Handle) -> u64 {
    let (mut calls, mut made, begin) = (subject.calls(handle), 0, Instant::now());
    while begin.elapsed() < ROUND && made < CALLS {
        calls(100);
        made += 100;
    }
    made
}

/// Seconds that one thread takes.
fn one_thread(subject: &dyn Subject, handle: Handle, number: u64) -> f64 {
    let mut calls = subject.calls(handle);
    calls(100);
    let begin = Instant::now();
    calls(number);
    begin.elapsed().as_secs_f64()
}

/// Seconds that two threads take for as many calls each.
fn two_threads(subject: &dyn Subject, handle: Handle, number: u64) -> f64 {
    let (ready, runtime) = (Barrier::new(2), Runtime::current());
    let work = || {
        let _entered = runtime.enter();
        let mut calls = subject.calls(handle);
        // Past the first calls of a thread, which may set something up.
        calls(100);
        ready.wait();
        let begin = Instant::now();
        calls(number);
        begin.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let own = work();
        own.max(other.join().expect("no panic"))
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
