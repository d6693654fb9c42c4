//! Counts by callgrind: instructions, locked instructions, allocations and clock reads of a call, exact for one binary,
//! whatever else the machine does.
//!
//! A program runs itself anew under valgrind, and in there calls [`phases`] for each of its cases: after the warm-up come a
//! phase without a call and one with all of them, each with counts of its own; their difference is what the calls cost. Which
//! instructions are locked is read from the disassembly (`objdump`), joined with how often each address was executed.
//! The kernel's page for the clock is not used under valgrind, so a clock read counts few instructions; it is counted by itself.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::{env, fs};

use crate::subject::Calls;

/// What one call costs, or the sum of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Instructions.
    pub instructions: f64,
    /// Of them those with a `lock` prefix, and exchanges with memory, which are locked without one; none without `objdump`.
    pub locked: Option<f64>,
    /// Calls of the allocator that ask for memory.
    pub allocations: f64,
    /// Reads of the system's clock.
    pub clock_reads: f64,
}

/// How many calls warm a case up, and how many are counted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Fill windows and resolve handles.
    pub warm_up: u64,
    /// Are counted.
    pub counted: u64,
}

/// Runs a case's calls in phases that [`count`] tells apart. Answers how many of the calls succeeded, and of how many.
pub fn phases(mut calls: Calls<'_>, plan: Plan) -> (u64, u64) {
    let succeeded = calls(plan.warm_up);
    phase_mark();
    black_box(calls(black_box(0)));
    phase_mark();
    let succeeded = succeeded + calls(plan.counted);
    phase_mark();
    (succeeded, plan.warm_up + plan.counted)
}

/// Callgrind writes down what it has counted whenever this is entered, and begins anew.
#[inline(never)]
fn phase_mark() {
    black_box(());
}

/// What is said when there is no valgrind.
pub const NO_VALGRIND: &str = "valgrind is needed to count instructions (on Debian: apt-get install valgrind)";

/// Runs `program` with `arguments`, which calls [`phases`] once for each of `plans`, and answers the cost of a call for each.
///
/// # Errors
///
/// A sentence, when valgrind is missing, the program fails, or its output is not what was expected.
pub fn count(program: &Path, arguments: &[String], plans: &[Plan]) -> Result<Vec<Counts>, String> {
    let directory = env::temp_dir().join(format!("mainstay-callgrind-{}", process::id()));
    let counted = in_directory(&directory, program, arguments, plans);
    let _ = fs::remove_dir_all(&directory);
    counted
}

fn in_directory(directory: &Path, program: &Path, arguments: &[String], plans: &[Plan]) -> Result<Vec<Counts>, String> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let file = directory.join("out");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--dump-instr=yes", "--dump-line=no"])
        .args(["--compress-strings=no", "--compress-pos=no", "--dump-before=*phase_mark*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(arguments)
        .output();
    let run = run.map_err(|error| match error.kind() {
        ErrorKind::NotFound => NO_VALGRIND.to_owned(),
        _ => format!("valgrind: {error}"),
    })?;
    if !run.status.success() {
        return Err(format!("under valgrind: {}", String::from_utf8_lossy(&run.stderr)));
    }
    let mut locked = LockedInstructions::default();
    let mut part = |number: usize| {
        let path = PathBuf::from(format!("{}.{number}", file.display()));
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok::<_, String>(sum(&text, &mut locked))
    };
    let cost_of_a_call = |(index, plan): (usize, &Plan)| {
        // Each case leaves three parts, numbered from one: its warm-up, the phase without a call, the phase with all.
        let (none, all) = (part(3 * index + 2)?, part(3 * index + 3)?);
        let a_call = |all: f64, none: f64| (all - none) / plan.counted as f64;
        Ok(Counts {
            instructions: a_call(all.instructions, none.instructions),
            locked: all.locked.zip(none.locked).map(|(all, none)| a_call(all, none)),
            allocations: a_call(all.allocations, none.allocations),
            clock_reads: a_call(all.clock_reads, none.clock_reads),
        })
    };
    plans.iter().enumerate().map(cost_of_a_call).collect()
}

/// Adds up one part of callgrind's output.
fn sum(text: &str, locked: &mut LockedInstructions) -> Counts {
    let mut counts = Counts { locked: Some(0.0), ..Counts::default() };
    let (mut object, mut callee) = ("", "");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("ob=") {
            object = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let calls = calls.split(' ').next().and_then(|calls| calls.parse().ok()).unwrap_or(0.0);
            if is_allocation(callee) {
                counts.allocations += calls;
            } else if callee.starts_with("clock_gettime") {
                counts.clock_reads += calls;
            }
            // What the callee cost is on the next line; it is counted where it was spent.
            lines.next();
        } else if let Some(line) = line.strip_prefix("0x") {
            let mut columns = line.split(' ');
            let address = columns.next().and_then(|address| u64::from_str_radix(address, 16).ok());
            let times = columns.next_back().and_then(|cost| cost.parse::<f64>().ok());
            let (Some(address), Some(times)) = (address, times) else { continue };
            counts.instructions += times;
            counts.locked = match (counts.locked, locked.contains(object, address)) {
                (Some(sum), Some(true)) => Some(sum + times),
                (Some(sum), Some(false)) => Some(sum),
                _ => None,
            };
        }
    }
    counts
}

fn is_allocation(function: &str) -> bool {
    matches!(function, "malloc" | "calloc" | "realloc" | "posix_memalign" | "aligned_alloc" | "memalign")
}

/// The addresses of the locked instructions of each object file, disassembled on first use.
#[derive(Default)]
struct LockedInstructions(HashMap<String, Option<HashSet<u64>>>);

impl LockedInstructions {
    /// Whether there is a locked instruction; none where it could not be found out.
    fn contains(&mut self, object: &str, address: u64) -> Option<bool> {
        if !self.0.contains_key(object) {
            self.0.insert(object.to_owned(), disassemble(object));
        }
        self.0[object].as_ref().map(|addresses| addresses.contains(&address))
    }
}

fn disassemble(object: &str) -> Option<HashSet<u64>> {
    if !Path::new(object).is_file() {
        // Not in a file: nothing of ours or a library's.
        return Some(HashSet::new());
    }
    let output = Command::new("objdump").args(["-d", "--no-show-raw-insn", object]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let locked = text.lines().filter_map(|line| {
        let (address, instruction) = line.trim_start().split_once(":\t")?;
        let exchange = instruction.starts_with("xchg") && instruction.contains('(');
        let locked = instruction.starts_with("lock ") || exchange;
        if locked { u64::from_str_radix(address, 16).ok() } else { None }
    });
    output.status.success().then(|| locked.collect())
}

/// Whether `objdump`, which finds the locked instructions, can be run.
pub fn has_objdump() -> bool {
    Command::new("objdump").arg("--version").output().is_ok_and(|output| output.status.success())
}
