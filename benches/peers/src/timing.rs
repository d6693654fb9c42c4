//! Times: of a call, of a call of the bare service beside it, and of what two threads get done over what one does.
//!
//! A run measures every case once, so the libraries of a path take turns; each figure is the median of the runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_instructions::subject::{Handle, Subject};
use tokio::runtime::Handle as Runtime;

use crate::cases::{self, Case, Made};
use crate::cores;

/// What a round takes: long enough that two threads that begin together are together for most of it.
const ROUND: Duration = Duration::from_millis(2);
/// Rounds that take turns.
const ROUNDS: usize = 11;
/// The fewest, where they last: where a window is filled before each, or where two threads wake one another for every call.
const FEW_ROUNDS: usize = 5;
/// What the rounds of a case may take, all together.
const ALL_ROUNDS: Duration = Duration::from_millis(500);
/// Calls that begin a round and are not timed: the first ones of a thread may set something up.
const WARM_UP: u64 = 100;
/// The same, and the calls of a round, where each call makes the next one dearer.
const FEW: u64 = 20;

/// What came of a case on one kind of handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Of a call.
    pub(crate) nanoseconds: f64,
    /// Of a call of the bare service.
    pub(crate) bare: f64,
    /// Calls of two threads on one instance over those of one thread, in the same time; 2.0 is perfect.
    pub(crate) two_threads: f64,
}

/// Measures each case on a handle that is reused and with a clone per call, in this order, in `runs` runs.
pub(crate) fn measure(cases: &[&Case], runs: usize) -> Vec<Times> {
    let cores = cores::two();
    if let Some([first, _]) = cores {
        cores::pin(first);
    }
    let other = cores.map(|[_, second]| second);
    let mut all = vec![Vec::with_capacity(runs); 2 * cases.len()];
    for _ in 0..runs {
        for (index, case) in cases.iter().enumerate() {
            let (made, bare) = (case.make(), cases[cases::bare_of(cases, case)].make());
            for (which, handle) in [Handle::Reused, Handle::Cloned].into_iter().enumerate() {
                all[2 * index + which].push(measure_once(&made, &bare, handle, other));
            }
        }
    }
    all.iter().map(|times| Times::median(times)).collect()
}

fn measure_once(made: &Made, bare: &Made, handle: Handle, other: Option<usize>) -> Times {
    let (round, bare_round) = (round_of(made, handle), round_of(bare, handle));
    let (mut without, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    let begin = Instant::now();
    while one.len() < FEW_ROUNDS || (one.len() < ROUNDS && begin.elapsed() < ALL_ROUNDS) {
        without.push(one_thread(bare, handle, bare_round));
        one.push(one_thread(made, handle, round));
        two.push(two_threads(made, handle, round, other));
    }
    let (without, one, two) = (undisturbed(without), undisturbed(one), undisturbed(two));
    // Each of the two makes as many calls as the one did.
    Times { nanoseconds: 1e9 * one, bare: 1e9 * without, two_threads: 2.0 * one / two }
}

// === impl Times ===

impl Times {
    fn median(runs: &[Self]) -> Self {
        let median = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = runs.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            nanoseconds: median(|run| run.nanoseconds),
            bare: median(|run| run.bare),
            two_threads: median(|run| run.two_threads),
        }
    }

    /// What the layers add to a call of the bare service.
    pub(crate) fn over_bare(&self) -> f64 {
        self.nanoseconds - self.bare
    }
}

#[derive(Clone, Copy)]
struct Round {
    warm_up: u64,
    calls: u64,
}

/// As many calls as fit into a round.
fn round_of(made: &Made, handle: Handle) -> Round {
    if made.grows() {
        return Round { warm_up: FEW, calls: 5 * FEW };
    }
    let (mut calls, mut number, begin) = (made.subject.calls(handle), 0, Instant::now());
    let mut step = 10;
    while begin.elapsed() < ROUND {
        calls(step);
        number += step;
        // The clock is not to be what is measured.
        step = (number / 10).clamp(10, 1_000);
    }
    Round { warm_up: WARM_UP.min(number), calls: number }
}

/// Seconds a call, with one thread.
fn one_thread(made: &Made, handle: Handle, round: Round) -> f64 {
    made.refill();
    seconds_a_call(&*made.subject, handle, round, || ())
}

/// Seconds a call, with two threads that make as many calls each.
fn two_threads(made: &Made, handle: Handle, round: Round, core: Option<usize>) -> f64 {
    made.refill();
    let (ready, runtime, subject) = (AtomicU32::new(0), Runtime::current(), &*made.subject);
    // A barrier would put the first one to sleep, and wake it when the other one is under way.
    let wait = || {
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < 2 {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            if let Some(core) = core {
                cores::pin(core);
            }
            let _entered = runtime.enter();
            seconds_a_call(subject, handle, round, wait)
        });
        let own = seconds_a_call(subject, handle, round, wait);
        own.max(other.join().expect("no panic"))
    })
}

fn seconds_a_call(subject: &dyn Subject, handle: Handle, round: Round, ready: impl FnOnce()) -> f64 {
    let mut calls = subject.calls(handle);
    calls(round.warm_up);
    ready();
    let begin = Instant::now();
    calls(round.calls);
    begin.elapsed().as_secs_f64() / round.calls as f64
}

/// The lower quartile: what else the machine does only ever makes a round longer.
fn undisturbed(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 4]
}
