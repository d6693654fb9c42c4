//! What a call through each of our layers costs, beside what it costs through the peers' layers, measured in one run.
//!
//! Every layer is around the same service, which answers at once and which the optimiser cannot look into
//! (`tools/instructions/src/bare.rs`), and is configured alike. Instructions, locked instructions and allocations are counted by
//! callgrind, exactly; times are medians of short rounds that take turns, and only ever shown as ratios of the same run.

mod peers;
mod recorder;
mod table;
mod timing;

use std::process::ExitCode;
use std::{env, fs};

use mainstay_instructions::callgrind::{self, Counts, Plan};
use mainstay_instructions::subject::{self, Handle};
use peers::Case;
use table::Row;

const HELP: &str = "\
Measures our layers and the peers'. Needs valgrind, and objdump for the locked instructions.

  --only TEXT       only the paths with TEXT in their name
  --markdown FILE   write the table to FILE
  --json FILE       write the rows to FILE
  --help            this";

/// Fills windows, and then counts.
const PLAN: Plan = Plan { warm_up: 1_000, counted: 2_000 };

#[derive(Default)]
struct Flags {
    only: String,
    markdown: Option<String>,
    json: Option<String>,
    /// What runs under valgrind.
    run: bool,
    /// With a recorder of metrics installed.
    recorder: bool,
}

fn main() -> ExitCode {
    let flags = match parse(env::args().skip(1)) {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let runtime = subject::runtime();
    let _entered = runtime.enter();
    if flags.recorder {
        recorder::install();
    }
    let cases: Vec<Case> =
        peers::all().into_iter().filter(|case| case.is_bare() || case.path.contains(&flags.only)).collect();
    if flags.run {
        run(&cases);
        return ExitCode::SUCCESS;
    }
    match measure(&cases, &flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Flags>, String> {
    let mut flags = Flags::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--help" => return Ok(None),
            "--only" => flags.only = value()?,
            "--markdown" => flags.markdown = Some(value()?),
            "--json" => flags.json = Some(value()?),
            "--run" => flags.run = true,
            "--recorder" => flags.recorder = true,
            _ => return Err(format!("unknown argument `{argument}`")),
        }
    }
    Ok(Some(flags))
}

/// Makes the calls that are counted, of each case on one handle and then with a clone a call.
fn run(cases: &[Case]) {
    for case in cases {
        for handle in [Handle::Reused, Handle::Cloned] {
            let subject = (case.make)();
            let (succeeded, calls) = callgrind::phases(subject.calls(handle), PLAN);
            let expected = if case.refused { 0 } else { calls };
            assert_eq!(succeeded, expected, "{} of {}: calls that succeeded", case.path, case.library);
        }
    }
}

fn measure(cases: &[Case], flags: &Flags) -> Result<(), String> {
    let count = |more: &[&str]| -> Result<Vec<Counts>, String> {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut arguments = vec!["--run".to_owned(), "--only".to_owned(), flags.only.clone()];
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        callgrind::count(&program, &arguments, &vec![PLAN; 2 * cases.len()])
    };
    let counts = count(&[])?;
    let with_recorder = count(&["--recorder"])?;
    let times = timing::measure(cases);
    let mut rows = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let bare = 2 * peers::bare_of(cases, case);
        for (which, suffix) in ["", ", a clone a call"].into_iter().enumerate() {
            let place = 2 * index + which;
            rows.push(Row::new(case, suffix, counts[place], counts[bare + which], times[place]));
        }
        // Of those measured only ours tell a recorder of metrics anything.
        if case.library == "mainstay" {
            rows.push(Row::new(case, ", with a recorder", with_recorder[2 * index], with_recorder[bare], None));
        }
    }
    let table = table::markdown(&rows);
    println!("{table}");
    if !callgrind::has_objdump() {
        println!("locked instructions are not counted: objdump is not installed (on Debian: apt-get install binutils)");
    }
    let write = |file: &Option<String>, text: &str| match file {
        Some(file) => fs::write(file, text).map_err(|error| format!("{file}: {error}")),
        None => Ok(()),
    };
    write(&flags.markdown, &table)?;
    write(&flags.json, &table::json(&rows))
}
