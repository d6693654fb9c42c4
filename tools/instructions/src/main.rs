//! Counts the instructions and allocations that each layer adds to a call, and holds them against their limits.
//!
//! `-- --help` says how. Without valgrind it cannot count anything; with it the counts are exact for one binary, whatever else
//! the machine does. `src/callgrind.rs` explains how it is done, `src/bare.rs` what the layers are around.

mod limits;
mod paths;

use std::process::ExitCode;
use std::{env, path};

use mainstay_instructions::callgrind::{self, Counts, Plan};
use mainstay_instructions::subject;
use paths::Path;

const HELP: &str = "\
Counts the instructions and allocations that each layer adds to a call. Needs valgrind.

  --only TEXT   only the paths with TEXT in their name
  --check       fail when a path costs more than limits.txt allows
  --write       write limits.txt anew from what is measured, with a margin
  --help        this";

/// Enough to fill windows and resolve handles before the calls that count.
const PLAN: Plan = Plan { warm_up: 1_000, counted: 2_000 };

enum Task {
    Print,
    Check,
    Write,
    /// What runs under valgrind.
    Run,
}

fn main() -> ExitCode {
    let (mut task, mut only) = (Task::Print, String::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), &task) {
            ("--help", _) => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            ("--only", _) => only = arguments.next().unwrap_or_default(),
            ("--check", Task::Print) => task = Task::Check,
            ("--write", Task::Print) => task = Task::Write,
            ("--run", Task::Print) => task = Task::Run,
            _ => {
                eprintln!("unknown argument `{argument}`\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    let paths: Vec<Path> =
        paths::all().into_iter().filter(|path| path.name() == "bare" || path.name().contains(&only)).collect();
    if let Task::Run = task {
        run(&paths);
        return ExitCode::SUCCESS;
    }
    match measure(&paths, &only).and_then(|measured| finish(&task, &only, &measured)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the calls of all paths.
fn run(paths: &[Path]) {
    let runtime = subject::runtime();
    let _entered = runtime.enter();
    for path in paths {
        let subject = path.subject();
        let (succeeded, calls) = callgrind::phases(subject.calls(path.handle), PLAN);
        let expected = if path.refused { 0 } else { calls };
        assert_eq!(succeeded, expected, "{}: calls that succeeded", path.name());
    }
}

/// A path's name and what it costs.
type Measured = (String, Counts);

/// Measures all paths, as they cost over the bare service.
fn measure(paths: &[Path], only: &str) -> Result<Vec<Measured>, String> {
    let program: path::PathBuf = env::current_exe().map_err(|error| error.to_string())?;
    let arguments = ["--run", "--only", only].map(str::to_owned);
    let counts = callgrind::count(&program, &arguments, &vec![PLAN; paths.len()])?;
    let name = |path: &Path| path.name();
    Ok(paths.iter().map(name).zip(counts).collect())
}

fn finish(task: &Task, only: &str, measured: &[Measured]) -> Result<(), String> {
    let bare = measured.first().map_or(0.0, |(_, counts)| counts.instructions);
    println!(
        "{:<44} {:>10} {:>10} {:>8} {:>12} {:>12}",
        "path", "Ir a call", "over bare", "locked", "allocations", "clock reads"
    );
    for (name, counts) in measured {
        let Counts { instructions, locked, allocations, clock_reads } = *counts;
        let locked = locked.map_or("-".to_owned(), |locked| format!("{locked:.1}"));
        println!(
            "{name:<44} {instructions:>10.1} {:>10.1} {locked:>8} {allocations:>12.3} {clock_reads:>12.1}",
            instructions - bare
        );
    }
    if !callgrind::has_objdump() {
        println!("locked instructions are not counted: objdump is not installed (on Debian: apt-get install binutils)");
    }
    match task {
        Task::Check => limits::check(measured, bare, only.is_empty()),
        Task::Write if only.is_empty() => limits::write(measured, bare),
        Task::Write => Err("--write writes all limits, not those of --only some".to_owned()),
        Task::Print | Task::Run => Ok(()),
    }
}
