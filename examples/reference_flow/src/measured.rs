//! What one flow measured: the samples, cut by phase and by time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::sample::Sample;

/// The width of a point of the plots.
pub(crate) const BUCKET: Duration = Duration::from_millis(250);

/// Reasons for failures that are told apart.
const MOST_REASONS: usize = 10;

/// One flow's whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) phases: Vec<Phase>,
    pub(crate) total: Phase,
    pub(crate) timeline: Vec<Bucket>,
    /// The longest time by which a request was sent later than it should have been.
    pub(crate) send_lag: Duration,
}

/// One phase, or the whole run; a request belongs to the phase in which it was meant to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Since the first phase began.
    pub(crate) begins: Duration,
    pub(crate) ends: Duration,
    /// Requests that the schedule asked for.
    pub(crate) offered: u64,
    pub(crate) sent: u64,
    /// Those that got any answer at all.
    pub(crate) answered: u64,
    /// Those that got the right answer, body and all.
    pub(crate) succeeded: u64,
    /// Those that were turned away with a 503 and `Retry-After`.
    pub(crate) refused: u64,
    /// From the intended start to the end, of all requests, those included that nobody answered.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) reads: u64,
    /// Reads that the servers' caches answered, fresh or stale.
    pub(crate) hits: u64,
    pub(crate) stale: u64,
    /// Answers by server.
    pub(crate) servers: BTreeMap<String, u64>,
    /// Why requests failed, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) counts: Counts,
    /// How often the balancer sent a server away: for its answers, or for what its probes said.
    pub(crate) ejections: u64,
}

/// What the parts counted during a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests that the balancer passed on, and the attempts that it made for them.
    pub(crate) forwarded: u64,
    pub(crate) attempts: u64,
    /// Calls of the database that the servers wanted, and the attempts that they sent for them.
    pub(crate) database_calls: u64,
    pub(crate) database_attempts: u64,
    /// Queries that the database ran.
    pub(crate) database_queries: u64,
    /// Reads that waited for another read's load of the same key.
    pub(crate) coalesced: u64,
}

/// One point of the plots: requests that were meant to start in this bucket.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// Since the first phase began.
    pub(crate) at: Duration,
    pub(crate) offered: u64,
    pub(crate) succeeded: u64,
    pub(crate) p99: Duration,
    /// Requests under way at the end of the bucket.
    pub(crate) in_flight: u64,
}

/// When a phase began and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) begins: Moment,
    pub(crate) ends: Moment,
}

// === impl Measured ===

impl Measured {
    /// Cuts `samples` into `spans`, which follow each other; what lies outside of all of them is left out.
    pub(crate) fn of(samples: &[Sample], spans: &[Span]) -> Self {
        let Some(start) = spans.first().map(|span| span.begins) else { return Self::default() };
        let end = spans.last().map_or(start, |span| span.ends);
        let within = |begins: Moment, ends: Moment| {
            samples.iter().filter(move |sample| (begins..ends).contains(&sample.intended))
        };
        let phase = |name: &str, begins: Moment, ends: Moment| Phase {
            name: name.to_owned(),
            begins: begins.since(start),
            ends: ends.since(start),
            ..Phase::of(within(begins, ends))
        };
        let buckets = end.since(start).as_millis().div_ceil(BUCKET.as_millis());
        let timeline = (0..u32::try_from(buckets).unwrap_or(u32::MAX)).map(|index| {
            let begins = start.after(BUCKET * index);
            let ends = begins.after(BUCKET);
            let phase = Phase::of(within(begins, ends));
            let under_way = |sample: &&Sample| sample.sent.is_some_and(|sent| sent < ends) && sample.done >= ends;
            Bucket {
                at: BUCKET * index,
                offered: phase.offered,
                succeeded: phase.succeeded,
                p99: phase.p99,
                in_flight: samples.iter().filter(under_way).count() as u64,
            }
        });
        let lag = |sample: &Sample| sample.sent.map(|sent| sent.since(sample.intended));
        Self {
            phases: spans.iter().map(|span| phase(&span.name, span.begins, span.ends)).collect(),
            total: phase("whole run", start, end),
            timeline: timeline.collect(),
            send_lag: within(start, end).filter_map(lag).max().unwrap_or_default(),
        }
    }

    pub(crate) fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

// === impl Phase ===

impl Phase {
    pub(crate) fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let mut phase = Self::default();
        let mut latencies = Vec::new();
        for sample in samples {
            phase.offered += 1;
            phase.sent += u64::from(sample.sent.is_some());
            phase.answered += u64::from(sample.answered());
            phase.refused += u64::from(sample.refused());
            phase.reads += u64::from(!sample.write);
            phase.hits += u64::from(matches!(sample.cache.as_str(), "hit" | "stale"));
            phase.stale += u64::from(sample.cache == "stale");
            latencies.push(sample.latency());
            if !sample.server.is_empty() {
                *phase.servers.entry(sample.server.clone()).or_default() += 1;
            }
            match &sample.failure {
                None => phase.succeeded += 1,
                Some(why) if phase.failures.contains_key(why) || phase.failures.len() < MOST_REASONS => {
                    *phase.failures.entry(why.clone()).or_default() += 1;
                }
                Some(_) => *phase.failures.entry("for other reasons".into()).or_default() += 1,
            }
        }
        latencies.sort_unstable();
        [phase.p50, phase.p99, phase.p999] = [500, 990, 999].map(|permille| quantile(&latencies, permille));
        phase
    }

    /// From 0 to 1; 1 where nothing was asked.
    pub(crate) fn success_rate(&self) -> f64 {
        if self.offered == 0 { 1.0 } else { ratio(self.succeeded, self.offered) }
    }

    pub(crate) fn hit_rate(&self) -> f64 {
        ratio(self.hits, self.reads)
    }

    /// The share of a server in the answers that came from any server.
    pub(crate) fn share(&self, server: &str) -> f64 {
        ratio(self.servers.get(server).copied().unwrap_or_default(), self.servers.values().sum())
    }

    /// Attempts of the balancer beyond the first.
    pub(crate) fn retries(&self) -> u64 {
        self.counts.attempts.saturating_sub(self.counts.forwarded)
    }

    /// Attempts of the balancer for each request that it passed on.
    pub(crate) fn amplification(&self) -> f64 {
        if self.counts.forwarded == 0 { 1.0 } else { ratio(self.counts.attempts, self.counts.forwarded) }
    }
}

// === impl Counts ===

impl Counts {
    /// What was counted since `before`; a part that was restarted in between counts from zero.
    pub(crate) fn since(self, before: Self) -> Self {
        let since = |now: u64, before: u64| if now >= before { now - before } else { now };
        Self {
            forwarded: since(self.forwarded, before.forwarded),
            attempts: since(self.attempts, before.attempts),
            database_calls: since(self.database_calls, before.database_calls),
            database_attempts: since(self.database_attempts, before.database_attempts),
            database_queries: since(self.database_queries, before.database_queries),
            coalesced: since(self.coalesced, before.coalesced),
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.forwarded += other.forwarded;
        self.attempts += other.attempts;
        self.database_calls += other.database_calls;
        self.database_attempts += other.database_attempts;
        self.database_queries += other.database_queries;
        self.coalesced += other.coalesced;
    }
}

/// The smallest latency that `permille` of the sorted ones do not exceed.
pub(crate) fn quantile(sorted: &[Duration], permille: usize) -> Duration {
    let rank = (sorted.len() * permille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// From 0 to 1; 0 of nothing.
#[allow(clippy::cast_precision_loss, reason = "counts of one run")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(intended: u64, done: u64) -> Sample {
        let sent = Some(Moment(intended));
        Sample { intended: Moment(intended), sent, done: Moment(done), status: 200, ..Sample::default() }
    }

    fn span(name: &str, begins: u64, ends: u64) -> Span {
        Span { name: name.into(), begins: Moment(begins), ends: Moment(ends) }
    }

    #[test]
    fn a_quantile_is_a_latency_that_was_measured() {
        let latencies: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(&latencies, 500), Duration::from_millis(100));
        assert_eq!(quantile(&latencies, 990), Duration::from_millis(198));
        assert_eq!(quantile(&latencies, 999), Duration::from_millis(200));
        assert_eq!(quantile(&latencies[..1], 990), Duration::from_millis(1));
        assert_eq!(quantile(&[], 990), Duration::ZERO);
    }

    #[test]
    fn a_request_counts_in_the_phase_in_which_it_was_meant_to_start() {
        let spans = [span("first", 100, 200), span("second", 200, 300)];
        let samples = [sample(99, 150), sample(100, 250), sample(199, 900), sample(200, 201), sample(300, 301)];
        let measured = Measured::of(&samples, &spans);
        assert_eq!(measured.phases.iter().map(|phase| phase.offered).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((measured.total.offered, measured.phases[0].p99), (3, Duration::from_micros(701)));
    }

    #[test]
    fn a_request_that_nobody_answered_is_in_the_percentiles() {
        let lost = Sample { status: 0, failure: Some("no answer".into()), ..sample(0, 5_000_000) };
        let phase = Phase::of([&lost].into_iter());
        assert_eq!((phase.offered, phase.answered, phase.succeeded), (1, 0, 0));
        assert_eq!((phase.p50, phase.failures["no answer"]), (Duration::from_secs(5), 1));
    }

    #[test]
    fn a_restarted_part_counts_from_zero() {
        let [before, after] = [7, 3].map(|attempts| Counts { attempts, forwarded: 7, ..Counts::default() });
        assert_eq!(after.since(before), Counts { attempts: 3, ..Counts::default() });
    }
}
