//! What a call through each of our layers costs, beside what it costs through the peers' layers, measured in one run.
//!
//! Every layer is around the same service, which answers at once and which the optimiser cannot look into
//! (`tools/instructions/src/bare.rs`), and is configured alike. Instructions, locked instructions and allocations are counted by
//! callgrind, exactly; times are of short rounds that take turns, and only ever shown as ratios of the same run.

mod cases;
mod child;
mod cores;
mod ours;
mod peers;
mod recorded;
mod recorder;
mod table;
mod timing;

use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use cases::Case;
use child::Costs;
use mainstay_instructions::callgrind;
use table::Row;

const HELP: &str = "\
Measures our layers and the peers'. Needs valgrind, and objdump for the locked instructions.

  --only TEXT       only the paths with TEXT in their name
  --selection       only the rows without a recorder and on a handle that is reused, which the documentation shows
  --runs N          times are medians of N runs, 7 if not given
  --markdown FILE   write the table to FILE
  --json FILE       write all rows to FILE
  --help            this";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Measure,
    /// What runs under valgrind.
    Count,
    /// What runs by itself, to be timed.
    Time,
}

struct Flags {
    task: Task,
    only: String,
    selection: bool,
    runs: usize,
    markdown: Option<String>,
    json: Option<String>,
    /// Beside the bare services; empty for all.
    library: String,
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
    let cases = cases::all();
    let cases: Vec<&Case> = cases.iter().filter(|case| case.is_bare() || case.path.contains(&flags.only)).collect();
    if flags.task != Task::Measure {
        child::run(flags.task, &existing(&cases, &flags.library), &flags);
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
    let mut flags = Flags {
        task: Task::Measure,
        only: String::new(),
        selection: false,
        runs: 7,
        markdown: None,
        json: None,
        library: String::new(),
        recorder: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--help" => return Ok(None),
            "--only" => flags.only = value()?,
            "--selection" => flags.selection = true,
            "--runs" => {
                let runs = value()?;
                let number = runs.parse().ok().filter(|&number| number > 0);
                flags.runs = number.ok_or_else(|| format!("`--runs {runs}`: not a number above zero"))?;
            }
            "--markdown" => flags.markdown = Some(value()?),
            "--json" => flags.json = Some(value()?),
            "--count" => flags.task = Task::Count,
            "--time" => flags.task = Task::Time,
            "--library" => flags.library = value()?,
            "--recorder" => flags.recorder = true,
            _ => return Err(format!("unknown argument `{argument}`")),
        }
    }
    Ok(Some(flags))
}

/// The cases that can be measured: all, or for a run with a recorder those of one library and the bare services. What a window
/// holds is measured without a recorder only.
fn existing<'a>(cases: &[&'a Case], library: &str) -> Vec<&'a Case> {
    let of_it = |case: &Case| case.is_bare() || case.library == library && !case.grows();
    cases.iter().copied().filter(|case| case.exists() && (library.is_empty() || of_it(case))).collect()
}

fn measure(cases: &[&Case], flags: &Flags) -> Result<(), String> {
    if !has_valgrind() {
        return Err(callgrind::NO_VALGRIND.to_owned());
    }
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let runs = flags.runs.to_string();
    let only = ["--only", &flags.only, "--runs", &runs];
    let mut rows = Rows::default();

    let all = existing(cases, "");
    rows.add(&all, &child::measure(&program, &all, &only)?, ["", ", a clone per call"]);
    for case in cases.iter().filter(|case| !case.exists()) {
        rows.missing(case, ["", ", a clone per call"], case.note.unwrap_or_default());
    }
    if !flags.selection {
        const SUFFIXES: [&str; 2] = [", with a recorder", ", a clone per call, with a recorder"];
        for library in ["mainstay", "tower-resilience"] {
            let of_it = existing(cases, library);
            let program = if library == "mainstay" { Ok(program.clone()) } else { recorded::build() };
            match program {
                Ok(program) => {
                    let flags = [&only[..], &["--recorder", "--library", library]].concat();
                    let costs = child::measure(&program, &of_it, &flags)?;
                    rows.add(&of_it, &costs, SUFFIXES);
                }
                Err(why) => of_it.iter().for_each(|case| rows.missing(case, SUFFIXES, &why)),
            }
        }
        for case in cases.iter().filter(|case| !case.is_bare() && !case.grows()) {
            if !case.exists() {
                rows.missing(case, SUFFIXES, case.note.unwrap_or_default());
            } else if !["mainstay", "tower-resilience"].contains(&case.library) {
                rows.missing(case, SUFFIXES, "it tells a recorder of metrics nothing");
            }
        }
    }

    let rows = rows.0;
    let table = table::markdown(&rows, flags.selection);
    print!("{table}");
    let cores = cores::two();
    if cores.is_none() {
        println!("\nThreads are not pinned: not possible here, or there is one core only.");
    }
    if !callgrind::has_objdump() {
        println!(
            "\nLocked instructions are not counted: objdump is not installed (on Debian: apt-get install binutils)."
        );
    }
    let write = |file: &Option<String>, text: &str| match file {
        Some(file) => fs::write(file, text).map_err(|error| format!("{file}: {error}")),
        None => Ok(()),
    };
    write(&flags.markdown, &table)?;
    write(&flags.json, &table::json(&rows, cores))
}

fn has_valgrind() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    /// Two rows a case: on a handle that is reused, and with a clone per call.
    fn add(&mut self, cases: &[&Case], costs: &Costs, suffixes: [&str; 2]) {
        for (index, case) in cases.iter().enumerate() {
            let bare = 2 * cases::bare_of(cases, case);
            for (which, suffix) in suffixes.into_iter().enumerate() {
                let place = 2 * index + which;
                let Costs { counts, times } = costs;
                // The bare services are in every run, and in the table once.
                if !(case.is_bare() && suffix.contains("recorder")) && (case.is_clone || which == 0) {
                    self.0.push(Row::measured(case, suffix, counts[place], counts[bare + which], times[place]));
                }
            }
        }
    }

    fn missing(&mut self, case: &Case, suffixes: [&str; 2], why: &str) {
        for suffix in suffixes {
            self.0.push(Row::missing(case, suffix, why));
        }
    }
}
