//! The command line.

use std::path::PathBuf;

use crate::schedule;
use crate::variant::Family;

pub(crate) const HELP: &str = "\
The reference flow: user -> load balancer -> application server -> cache -> database, real processes over loopback TCP.

It walks one request through the flow, then drives load through a schedule of disasters: once with mainstay's layers, then
with two baselines (naive, and what tower alone gives), and says which demands were met. It ends with 1 if one was not.

Usage: cargo run --release -p reference-flow -- [flags]

  --only PHASE    only this phase, after a steady one: PHASES
  --without L     leave one family of layers out: retry, pool, breaker, cache or health; its disaster must turn red
  --no-baselines  only mainstay's layers; so it is with --without
  --report FILE   write the figures as JSON to FILE, and a page with plots beside it
  --full          at least 10 000 requests in each phase, five seeds, the worst of them shown (about an hour)
  --rate N        requests per second that the load generator offers, 10 to 5000 (default 300, with --full 600)
  --seed N        seed of the load: the same seed offers the same requests (default 1)
  --careless      the database acknowledges writes before they are committed: the audit must find what that loses
  --serve         walk one request, then keep everything running on the printed addresses until Ctrl-C
  --verbose       print the logs of all parts
  --help          print this
";

/// What the user wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) only: Option<&'static str>,
    pub(crate) without: Option<Family>,
    pub(crate) no_baselines: bool,
    pub(crate) report: Option<PathBuf>,
    pub(crate) full: bool,
    pub(crate) rate: Option<u32>,
    pub(crate) seed: Option<u64>,
    pub(crate) careless: bool,
    pub(crate) serve: bool,
    pub(crate) verbose: bool,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Run(Flags),
    /// Be a part of the flow: this is how the binary starts itself.
    Part(String),
    Help,
}

// === impl Flags ===

impl Flags {
    pub(crate) fn rate(&self) -> u32 {
        self.rate.unwrap_or(if self.full { 600 } else { 300 })
    }
}

/// [`HELP`], with the names of the phases.
pub(crate) fn help() -> String {
    let phases = schedule::names().join(", ");
    let mut lines = String::new();
    for word in phases.split(' ') {
        let width = lines.rsplit('\n').next().unwrap_or_default().len();
        match width {
            0 => {}
            1..90 => lines.push(' '),
            _ => lines += &format!("\n{:18}", ""),
        }
        lines += word;
    }
    HELP.replace("PHASES", &format!("one of\n{:18}{lines}", ""))
}

/// Reads the arguments behind the program's name.
///
/// # Errors
///
/// A sentence that names the flag and says what it takes.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Mode, String> {
    let mut arguments = arguments.into_iter();
    let mut flags = Flags::default();
    let mut drives_load = None;
    while let Some(argument) = arguments.next() {
        let (flag, mut inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut text =
            |what: &str| inline.take().or_else(|| arguments.next()).ok_or(format!("`{flag}` needs a value: {what}"));
        match flag.as_str() {
            "--only" => flags.only = Some(choice(&flag, &text("a phase")?, "a phase", &schedule::names())?),
            "--without" => {
                let names = Family::ALL.map(Family::name);
                let name = choice(&flag, &text("a family of layers")?, "a family of layers", &names)?;
                flags.without = Family::parse(name);
            }
            "--report" => flags.report = Some(writable(text("a file")?.into())?),
            "--rate" => {
                let what = "a number of requests per second";
                flags.rate = number(&flag, &text(what)?, what, 10, 5000)?.try_into().ok();
            }
            "--seed" => flags.seed = Some(number(&flag, &text("a number")?, "a number", 0, u64::MAX)?),
            "--no-baselines" => flags.no_baselines = true,
            "--full" => flags.full = true,
            "--careless" => flags.careless = true,
            "--serve" => flags.serve = true,
            "--verbose" => flags.verbose = true,
            "--help" | "-h" => return Ok(Mode::Help),
            "--part" => return text("an assignment").map(Mode::Part),
            _ => return Err(format!("`{flag}` is not a flag of this program")),
        }
        if let Some(value) = inline {
            return Err(format!("`{flag}` takes no value, but got `{value}`"));
        }
        if !matches!(flag.as_str(), "--serve" | "--verbose" | "--rate" | "--without") {
            drives_load = Some(flag);
        }
    }
    match drives_load {
        Some(flag) if flags.serve => Err(format!("`{flag}` has no use with `--serve`, which drives no load")),
        _ => Ok(Mode::Run(flags)),
    }
}

/// Whether the report can be written is said before the run, not after it.
fn writable(path: PathBuf) -> Result<PathBuf, String> {
    if path.extension().is_some_and(|extension| extension == "html") {
        return Err(format!(
            "`--report` takes a file for JSON, not `{}`: the page is written beside it",
            path.display()
        ));
    }
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    file.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

fn number(flag: &str, text: &str, what: &str, from: u64, to: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (from..=to).contains(&number) => Ok(number),
        _ => Err(format!("`{flag}` takes {what}, {from} to {to}, not `{text}`")),
    }
}

fn choice(flag: &str, text: &str, what: &str, names: &[&'static str]) -> Result<&'static str, String> {
    let found = names.iter().find(|name| **name == text).copied();
    found.ok_or_else(|| format!("`{flag}` takes {what}, not `{text}`: one of {}", names.join(", ")))
}
