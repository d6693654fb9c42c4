//! The program run anew, as its own child: under valgrind to be counted, and by itself to be timed, with a recorder of metrics
//! installed or without.

use std::path::Path;
use std::process::Command;
use std::{future, thread};

use mainstay_instructions::callgrind::{self, Counts};
use mainstay_instructions::subject::{self, Handle};
use serde_json::{Value, json};
use tokio::runtime::Handle as Runtime;

use crate::cases::Case;
use crate::timing::{self, Times};
use crate::{Flags, Task, recorder};

/// What each of some cases costs, on a handle that is reused and with a clone a call.
pub(crate) struct Costs {
    pub(crate) counts: Vec<Counts>,
    pub(crate) times: Vec<Times>,
}

/// Has `cases` measured by `program`, which is this one or another build of it, and answers two costs for each.
pub(crate) fn measure(program: &Path, cases: &[&Case], flags: &[&str]) -> Result<Costs, String> {
    let arguments = |task: &str| -> Vec<String> { [task].iter().chain(flags).map(|&flag| flag.to_owned()).collect() };
    let plans: Vec<_> = cases.iter().flat_map(|case| [case.plan(); 2]).collect();
    let counts = callgrind::count(program, &arguments("--count"), &plans)?;
    let run = Command::new(program).args(arguments("--time")).output().map_err(|error| error.to_string())?;
    if !run.status.success() {
        return Err(format!("while timing: {}", String::from_utf8_lossy(&run.stderr)));
    }
    let times: Vec<(f64, f64, f64)> = serde_json::from_slice(&run.stdout).map_err(|error| format!("times: {error}"))?;
    let times =
        times.into_iter().map(|(nanoseconds, bare, two_threads)| Times { nanoseconds, bare, two_threads }).collect();
    Ok(Costs { counts, times })
}

/// What the child does.
pub(crate) fn run(task: Task, cases: &[&Case], flags: &Flags) {
    // Somebody has to drive the timers, or who waits for one waits for good: a thread does, which sleeps otherwise.
    let runtime = subject::runtime();
    let entered = runtime.handle().clone();
    let _entered = entered.enter();
    thread::spawn(move || runtime.block_on(future::pending::<()>()));
    if flags.recorder {
        recorder::install();
    }
    if task == Task::Time {
        let figures = |times: Times| json!([times.nanoseconds, times.bare, times.two_threads]);
        println!("{}", timing::measure(cases, flags.runs).into_iter().map(figures).collect::<Value>());
    } else {
        count(cases);
    }
}

/// Makes the calls that are counted, of each case on one handle and then with a clone a call; each on a thread of its own, for
/// what the allocator does depends on what the thread has freed before.
fn count(cases: &[&Case]) {
    let runtime = Runtime::current();
    for case in cases {
        for handle in [Handle::Reused, Handle::Cloned] {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _entered = runtime.enter();
                    count_one(case, handle);
                });
            });
        }
    }
}

fn count_one(case: &Case, handle: Handle) {
    let made = case.make();
    let (mut calls, mut is_warm) = (made.subject.calls(handle), false);
    let warm_up_then_refill = |number| {
        let succeeded = calls(number);
        if !is_warm {
            made.refill();
            is_warm = true;
        }
        succeeded
    };
    let (succeeded, calls) = callgrind::phases(Box::new(warm_up_then_refill), case.plan());
    assert_eq!(succeeded, case.successes(calls), "{} of {}: calls that succeeded", case.path, case.library);
}
