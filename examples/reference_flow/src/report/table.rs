//! What is printed: a line of progress while a flow runs, and after the run the tables and the verdicts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::figures::{self, NONE};
use super::{Demand, Report};
use crate::measured::Phase;

/// No line is longer than this, unless a name or a figure in words is.
const WIDTH: usize = 150;

/// One line, for a second or at the end of a phase: `recent` is what was meant to start in the last `over`, named as the
/// phase.
pub(crate) fn print_progress(flow: &str, at: Duration, over: Duration, recent: &Phase) {
    println!("{}", progress(flow, at, over, recent));
}

fn progress(flow: &str, at: Duration, over: Duration, recent: &Phase) -> String {
    format!(
        "{:>7.1} s  {flow:<5}  {:<16} {:>8} req/s  {:>8} succeed  p99 {:>8}",
        at.as_secs_f64(),
        recent.name,
        figures::count(per_second(recent.offered, over)),
        figures::success(recent),
        figures::latency(recent, recent.p99),
    )
}

/// Rounded down; nothing in no time.
fn per_second(requests: u64, over: Duration) -> u64 {
    let rate = (u128::from(requests) * 1_000_000).checked_div(over.as_micros());
    rate.map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

// === impl Report ===

impl Report {
    /// Prints the tables and the verdicts; with colours only where a person sees them.
    pub(crate) fn print(&self) {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print!("{}", self.text(colours));
    }

    fn text(&self, colours: bool) -> String {
        let capacity = self.capacity.map_or(String::new(), |capacity| format!(", capacity {capacity:.0} answers/s"));
        let mut text = format!("\nseed {}, {} requests/s{capacity}\n\n", self.seed, self.rate);
        self.phases(&mut text);
        self.comparison(&mut text);
        text += "\nwrites\n";
        for (what, figure) in figures::writes(&self.audit) {
            line(&mut text, format_args!("  {what:<16} {figure}"));
        }
        for example in &self.audit.examples {
            line(&mut text, format_args!("  for example: {example}"));
        }
        if !self.ours.total.failures.is_empty() {
            text += "\nfailures\n";
        }
        for (why, count) in figures::by_count(&self.ours.total.failures) {
            line(&mut text, format_args!("  {:>9} {why}", figures::count(count)));
        }
        self.verdicts(&mut text, colours);
        text
    }

    /// Ours, phase by phase.
    fn phases(&self, text: &mut String) {
        let head = format!(
            "{:<16} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>5} {:>9} {:>7} {:>8}",
            "phase",
            "offered",
            "answered",
            "success",
            "p50",
            "p99",
            "p99.9",
            "retries",
            "amplif.",
            "hits",
            "coalesced",
            "ejected",
            "queries"
        );
        let all: BTreeSet<&str> =
            self.ours.phases.iter().flat_map(|phase| phase.servers.keys()).map(String::as_str).collect();
        let servers = those_that_fit(&all, WIDTH - head.chars().count());
        let others = servers.len() < all.len();
        *text += &head;
        for server in servers.iter().copied().chain(others.then_some("others")) {
            let _ = write!(text, " {server:>5}");
        }
        text.push('\n');
        for phase in self.ours.phases.iter().chain([&self.ours.total]) {
            let _ = write!(
                text,
                "{:<16} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>5} {:>9} {:>7} {:>8}",
                phase.name,
                phase.offered,
                phase.answered,
                figures::success(phase),
                figures::latency(phase, phase.p50),
                figures::latency(phase, phase.p99),
                figures::latency(phase, phase.p999),
                phase.retries(),
                figures::amplification(phase),
                figures::hits(phase),
                phase.counts.coalesced,
                phase.ejections,
                phase.counts.database_queries,
            );
            for server in &servers {
                let _ = write!(text, " {:>1$}", figures::share(phase, server), server.chars().count().max(5));
            }
            if others {
                let rest = phase.servers.iter().filter(|(name, _)| !servers.contains(&name.as_str()));
                let rest = rest.map(|(_, count)| count).sum();
                let _ = write!(text, " {:>6}", figures::whole_percent(rest, phase.servers.values().sum()));
            }
            text.push('\n');
        }
    }

    /// Ours beside the baselines.
    fn comparison(&self, text: &mut String) {
        let names = self.flows().map(|(name, _)| name);
        let [success, latency] = ["success", "p99"].map(|what| format!("{what} {}", names[0]));
        line(
            text,
            format_args!(
                "\n{:<16} | {success:>12} {1:>9} {2:>9} | {latency:>9} {1:>9} {2:>9}",
                "phase", names[1], names[2]
            ),
        );
        let phases = self.ours.phases.iter().enumerate().map(|(index, phase)| (phase, self.side_by_side(index)));
        for (phase, flows) in phases.chain([(&self.ours.total, self.totals())]) {
            let [success, latency] = [figures::success, |phase: &Phase| figures::latency(phase, phase.p99)]
                .map(|figure| flows.map(|(_, phase)| phase.map_or(NONE.into(), figure)));
            let ([a, b, c], [x, y, z]) = (success, latency);
            line(text, format_args!("{:<16} | {a:>12} {b:>9} {c:>9} | {x:>9} {y:>9} {z:>9}", phase.name));
        }
    }

    fn verdicts(&self, text: &mut String, colours: bool) {
        text.push('\n');
        let width = self.demands.iter().map(|demand| demand.name.chars().count()).max().unwrap_or_default();
        for Demand { name, met, figure } in &self.demands {
            let verdict = format!("{:<7}", if *met { "met" } else { "NOT MET" });
            line(text, format_args!("{}  {name:<width$}  {figure}", coloured(&verdict, *met, colours)));
        }
        let (met, all) = (self.demands.len() - self.unmet().count(), self.demands.len());
        if all > 0 {
            let verdict = format!("{met} of {all} demands met");
            line(text, format_args!("\n{}", coloured(&verdict, self.met(), colours)));
        }
        if !self.valid() {
            *text += "not valid: the load generator could not keep to its schedule\n";
        }
    }
}

/// The first servers whose columns fit into `width`, with one column to spare for the others if they do not all fit.
fn those_that_fit<'a>(all: &BTreeSet<&'a str>, width: usize) -> Vec<&'a str> {
    let column = |server: &str| 1 + server.chars().count().max(5);
    if all.iter().map(|server| column(server)).sum::<usize>() <= width {
        return all.iter().copied().collect();
    }
    let mut left = width.saturating_sub(column("others"));
    let fits = |server: &&str| match left.checked_sub(column(server)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    all.iter().copied().take_while(fits).collect()
}

fn coloured(text: &str, good: bool, colours: bool) -> String {
    match (colours, good) {
        (false, _) => text.to_owned(),
        (true, true) => format!("\x1b[32m{text}\x1b[0m"),
        (true, false) => format!("\x1b[1;31m{text}\x1b[0m"),
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{empty, report};

    #[test]
    fn the_tables_fit_and_have_colours_only_when_asked() {
        let text = report().text(false);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\x1b') && report().text(true).contains("\x1b[1;31mNOT MET"));
        for word in
            ["server-killed", "99.99 %", "NOT MET", "1 of 2 demands met", "no answer", "others", "integrity: ok"]
        {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
    }

    #[test]
    fn an_empty_run_has_no_figures_and_no_nan() {
        let text = empty().text(false);
        assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains('%'), "{text}");
    }

    #[test]
    fn progress_is_one_line() {
        let second = Phase { name: "burst".into(), offered: 3000, succeeded: 2999, ..Phase::default() };
        let second = Phase { p99: Duration::from_millis(23), ..second };
        let line = progress("ours", Duration::from_millis(12_500), Duration::from_secs(2), &second);
        assert_eq!(line, "   12.5 s  ours   burst               1 500 req/s   99.96 % succeed  p99  23.0 ms");
        assert!(progress("ours", Duration::ZERO, Duration::ZERO, &Phase::default()).contains(" 0 req/s"));
    }
}
