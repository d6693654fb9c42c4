//! What the paths may cost: `limits.txt`, one line a path, which moves only by hand.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Measured;

/// A limit lies this share above what was measured,
const MARGIN: f64 = 0.03;
/// and at least so many instructions.
const LEAST_MARGIN: f64 = 3.0;

const HEADER: &str = "\
# What a call may cost over the bare service: path | instructions | allocations.
# Written by `cargo run --release --manifest-path tools/instructions/Cargo.toml -- --write` from what was measured, with a
# margin of 3 % and at least 3 instructions; `--check` holds the measurements against it. Another compiler counts otherwise.
";

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("limits.txt")
}

fn compiler() -> String {
    let version = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&version).split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Writes the limits of everything that was measured.
pub(crate) fn write(measured: &[Measured], bare: f64) -> Result<(), String> {
    let mut text = format!("{HEADER}# Measured with {}.\n", compiler());
    for (name, counts) in measured {
        let over = counts.instructions - bare;
        let instructions = (over + (over * MARGIN).max(LEAST_MARGIN)).ceil();
        let allocations = (counts.allocations * 100.0).ceil() / 100.0;
        writeln!(text, "{name} | {instructions} | {allocations}").expect("a string takes it");
    }
    fs::write(file(), text).map_err(|error| format!("{}: {error}", file().display()))
}

/// Holds what was measured against the limits; when `all` was measured, a limit of a path that is gone fails too.
pub(crate) fn check(measured: &[Measured], bare: f64, all: bool) -> Result<(), String> {
    let text = fs::read_to_string(file()).map_err(|error| format!("{}: {error}", file().display()))?;
    let written_with = text.lines().find_map(|line| line.strip_prefix("# Measured with ")?.strip_suffix('.'));
    let mut limits = parse(&text)?;
    let mut broken = Vec::new();
    for (name, counts) in measured {
        let Some((instructions, allocations)) = limits.remove(name.as_str()) else {
            broken.push(format!("{name}: limits.txt has no limit for it"));
            continue;
        };
        let figures = [
            ("instructions over bare", counts.instructions - bare, instructions),
            ("allocations", counts.allocations, allocations),
        ];
        for (what, measured, limit) in figures {
            if measured > limit {
                broken.push(format!("{name}: {measured:.3} {what}, and the limit is {limit}"));
            }
        }
    }
    if all {
        broken.extend(limits.keys().map(|name| format!("{name}: has a limit, but is not measured any more")));
    }
    if broken.is_empty() {
        return Ok(());
    }
    let mut message = format!("a call costs more than it may:\n  {}", broken.join("\n  "));
    let compiler = compiler();
    if written_with != Some(compiler.as_str()) {
        let written_with = written_with.unwrap_or("an unknown compiler");
        write!(message, "\n(the limits were measured with {written_with}, this is {compiler})")
            .expect("a string takes it");
    }
    Err(message)
}

fn parse(text: &str) -> Result<HashMap<&str, (f64, f64)>, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let limit = |line| {
        let mut columns = str::split(line, " | ");
        let (name, instructions, allocations) = (columns.next()?, columns.next()?, columns.next()?);
        Some((name, (instructions.parse().ok()?, allocations.parse().ok()?)))
    };
    lines.map(|line| limit(line).ok_or_else(|| format!("limits.txt: not a limit: `{line}`"))).collect()
}
