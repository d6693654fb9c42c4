//! What the load generator measured, and the table that is printed of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Reasons for failures that are told apart.
const MOST_REASONS: usize = 10;

/// The whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) phases: Vec<Phase>,
    pub(crate) total: Phase,
}

/// One phase of the run, by the time at which requests were meant to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Requests that the schedule asked for.
    pub(crate) offered: u64,
    /// Those that got any answer at all.
    pub(crate) answered: u64,
    /// Those that got the right answer, body and all.
    pub(crate) succeeded: u64,
    /// From the intended start to the whole answer; of all that were answered.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Attempts of the balancer beyond the first.
    pub(crate) retries: u64,
    pub(crate) reads: u64,
    pub(crate) hits: u64,
    /// Answers by server.
    pub(crate) servers: BTreeMap<String, u64>,
    /// Why requests failed, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    #[serde(skip)]
    latencies: Vec<Duration>,
}

/// One finished request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) phase: usize,
    pub(crate) read: bool,
    /// `None` where nobody answered.
    pub(crate) latency: Option<Duration>,
    /// The one that answered; empty where it was the balancer itself, or nobody.
    pub(crate) server: String,
    pub(crate) attempt: u64,
    pub(crate) hit: bool,
    pub(crate) failure: Option<String>,
}

// === impl Measured ===

impl Measured {
    pub(crate) fn new() -> Self {
        Self { phases: Vec::new(), total: Phase::new("whole run") }
    }

    pub(crate) fn begin(&mut self, phase: &str) {
        self.phases.push(Phase::new(phase));
    }

    pub(crate) fn add(&mut self, sample: &Sample) {
        self.phases[sample.phase].add(sample);
        self.total.add(sample);
    }

    /// After the last sample: works out the quantiles.
    pub(crate) fn finish(mut self) -> Self {
        for phase in self.phases.iter_mut().chain([&mut self.total]) {
            phase.latencies.sort_unstable();
            phase.p50 = quantile(&phase.latencies, 50);
            phase.p99 = quantile(&phase.latencies, 99);
        }
        self
    }

    /// The table, and a line for each kind of failure.
    pub(crate) fn print(&self, servers: &[String]) {
        let mut head = format!(
            "{:<16} {:>8} {:>8} {:>9} {:>9} {:>9} {:>8} {:>6}",
            "phase", "offered", "answered", "success", "p50", "p99", "retries", "hits"
        );
        for server in servers {
            head += &format!(" {server:>7}");
        }
        println!("\n{head}");
        for phase in self.phases.iter().chain([&self.total]) {
            phase.print(servers);
        }
        let mut failures: Vec<_> = self.total.failures.iter().collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (why, count) in failures {
            println!("  {count} failed: {why}");
        }
    }
}

// === impl Sample ===

impl Sample {
    /// A request that nobody has answered yet.
    pub(crate) fn unanswered(phase: usize, read: bool) -> Self {
        Self { phase, read, latency: None, server: String::new(), attempt: 1, hit: false, failure: None }
    }

    pub(crate) fn failed(self, why: &str) -> Self {
        Self { failure: Some(why.to_owned()), ..self }
    }
}

// === impl Phase ===

impl Phase {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn add(&mut self, sample: &Sample) {
        self.offered += 1;
        if let Some(latency) = sample.latency {
            self.answered += 1;
            self.latencies.push(latency);
        }
        if !sample.server.is_empty() {
            *self.servers.entry(sample.server.clone()).or_default() += 1;
        }
        match &sample.failure {
            None => self.succeeded += 1,
            Some(why) if self.failures.contains_key(why) || self.failures.len() < MOST_REASONS => {
                *self.failures.entry(why.clone()).or_default() += 1;
            }
            Some(_) => *self.failures.entry("for other reasons".into()).or_default() += 1,
        }
        self.retries += sample.attempt.saturating_sub(1);
        self.reads += u64::from(sample.read);
        self.hits += u64::from(sample.hit);
    }

    fn print(&self, servers: &[String]) {
        let mut line = format!(
            "{:<16} {:>8} {:>8} {:>9} {:>9} {:>9} {:>8} {:>6}",
            self.name,
            self.offered,
            self.answered,
            // Cut, not rounded: 100 % means that nothing failed.
            format!("{:.2} %", (share(self.succeeded, self.offered) * 100.0).floor() / 100.0),
            millis(self.p50),
            millis(self.p99),
            self.retries,
            format!("{:.0} %", share(self.hits, self.reads)),
        );
        for server in servers {
            let answers = self.servers.get(server).copied().unwrap_or_default();
            line += &format!(" {:>7}", format!("{:.0} %", share(answers, self.answered)));
        }
        println!("{line}");
    }
}

/// The smallest value that `percent` of the sorted values do not exceed.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// In percent.
#[allow(clippy::cast_precision_loss, reason = "counts of one run")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_latency_that_was_measured() {
        let latencies: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(&latencies, 50), Duration::from_millis(100));
        assert_eq!(quantile(&latencies, 99), Duration::from_millis(198));
        assert_eq!(quantile(&latencies[..1], 99), Duration::from_millis(1));
        assert_eq!(quantile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_request_that_nobody_answered_is_offered_and_failed() {
        let mut measured = Measured::new();
        measured.begin("first");
        measured.add(&Sample::unanswered(0, true).failed("no answer"));
        let Measured { phases, total } = measured.finish();
        for phase in [&phases[0], &total] {
            assert_eq!((phase.offered, phase.answered, phase.succeeded), (1, 0, 0));
            assert_eq!(phase.failures["no answer"], 1);
        }
    }
}
