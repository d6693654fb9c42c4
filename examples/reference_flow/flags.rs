//! The command line.

use std::time::Duration;

pub(crate) const HELP: &str = "\
The reference flow: user -> load balancer -> application server -> cache -> database, real processes over loopback TCP.

Usage: cargo run --release --features http --example reference_flow -- [flags]

  --rate N        requests per second that the load generator offers, 1 to 5000 (default 300)
  --duration S    seconds of load, 3 to 600 (default 15)
  --seed N        seed of the load: the same seed offers the same requests (default 1)
  --serve         walk one request, then keep everything running on the printed addresses until Ctrl-C
  --verbose       print the logs of all parts
  --help          print this
";

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) rate: u32,
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    pub(crate) serve: bool,
    pub(crate) verbose: bool,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Run(Flags),
    /// Be a part of the flow: this is how the binary starts itself.
    Part(String),
    Help,
}

impl Default for Flags {
    fn default() -> Self {
        Self { rate: 300, duration: Duration::from_secs(15), seed: 1, serve: false, verbose: false }
    }
}

/// Reads the arguments behind the program's name.
///
/// # Errors
///
/// A sentence that names the flag and says what it takes.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let mut flags = Flags::default();
    let mut drives_load = None;
    while let Some(argument) = arguments.next() {
        let (flag, mut inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut number = |what: &str, from: u64, to: u64| {
            let text = inline.take().or_else(|| arguments.next()).ok_or(format!("`{flag}` needs a value: {what}"))?;
            match text.parse() {
                Ok(number) if (from..=to).contains(&number) => Ok(number),
                _ => Err(format!("`{flag}` takes {what}, {from} to {to}, not `{text}`")),
            }
        };
        match flag.as_str() {
            "--rate" => flags.rate = number("a number of requests per second", 1, 5000)?.try_into().unwrap_or(5000),
            "--duration" => flags.duration = Duration::from_secs(number("a number of seconds", 3, 600)?),
            "--seed" => flags.seed = number("a number", 0, u64::MAX)?,
            "--serve" => flags.serve = true,
            "--verbose" => flags.verbose = true,
            "--help" | "-h" => return Ok(Command::Help),
            "--part" => return arguments.next().map(Command::Part).ok_or("`--part` needs an assignment".into()),
            _ => return Err(format!("`{flag}` is not a flag of this example")),
        }
        if let Some(value) = inline {
            return Err(format!("`{flag}` takes no value, but got `{value}`"));
        }
        if matches!(flag.as_str(), "--rate" | "--duration" | "--seed") {
            drives_load = Some(flag);
        }
    }
    match drives_load {
        Some(flag) if flags.serve => Err(format!("`{flag}` has no use with `--serve`, which drives no load")),
        _ => Ok(Command::Run(flags)),
    }
}
