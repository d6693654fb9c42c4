//! Load by expected latency: a peak-sensitive average of latencies, times the calls in flight.

use super::Evidence;
use crate::cores::ewma::{AtomicEwma, Ewma, Tick};

/// The highest estimate that doubling by failures leads to, in nanoseconds: one minute.
const HIGHEST: f64 = 60e9;

/// The latency estimate of one endpoint.
#[derive(Debug)]
pub(crate) struct Latency(AtomicEwma);

/// What the estimates of a pool have in common, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) default: f64,
    pub(crate) window: f64,
}

// === impl Latency ===

impl Latency {
    #[allow(clippy::cast_possible_truncation, reason = "an estimate")]
    pub(crate) fn new(rule: &Rule, now: Tick) -> Self {
        Self(AtomicEwma::new(Ewma::new(rule.default as f32, now)))
    }

    /// The expected latency, in nanoseconds; at least one, so that calls in flight tell endpoints long idle apart.
    #[inline]
    pub(crate) fn estimate(&self, rule: &Rule, now: Tick) -> f64 {
        self.0.load().at(now, rule.window).max(1.0)
    }

    /// The latency that was last learned, in nanoseconds, however long ago.
    #[inline]
    pub(crate) fn last(&self) -> f64 {
        self.0.load().last().max(1.0)
    }

    /// What one more call costs here.
    #[inline]
    pub(crate) fn load(&self, rule: &Rule, now: Tick, in_flight: u32, per_weight: f64) -> f64 {
        self.estimate(rule, now) * (f64::from(in_flight) + 1.0) * per_weight
    }

    /// Learns from a call that took `elapsed` nanoseconds.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn learn(&self, evidence: Evidence, elapsed: u64, rule: &Rule, now: Tick) {
        let elapsed = elapsed as f64;
        self.0.update(|latency| match evidence {
            Evidence::Answered => latency.observe(elapsed, now, rule.window),
            Evidence::Failed => {
                let doubled = (latency.at(now, rule.window) * 2.0).min(HIGHEST);
                latency.observe(elapsed.max(doubled).max(rule.default), now, rule.window)
            }
            Evidence::Abandoned | Evidence::Inconclusive => latency.at_least(elapsed, now, rule.window),
        });
    }

    /// Forgets everything.
    #[allow(clippy::cast_possible_truncation, reason = "an estimate")]
    pub(crate) fn reset(&self, rule: &Rule, now: Tick) {
        self.0.store(Ewma::new(rule.default as f32, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { default: 10e6, window: 1e9 };

    fn tick(ms: u64) -> Tick {
        Tick::new(ms * 1_000_000)
    }

    #[test]
    fn scenario_18_load_is_latency_times_the_calls_in_flight_and_this_one() {
        let latency = Latency::new(&RULE, tick(0));
        latency.learn(Evidence::Answered, 20_000_000, &RULE, tick(0));
        assert!((latency.load(&RULE, tick(0), 5, 1.0) - 120e6).abs() < 10.0);
        assert!((latency.load(&RULE, tick(0), 0, 0.5) - 10e6).abs() < 10.0);
    }

    #[test]
    fn scenario_17_without_history_the_default_counts_and_calls_in_flight_multiply_it() {
        // Finagle presumes the worst of an endpoint without history; ours presumes the default.
        let latency = Latency::new(&RULE, tick(0));
        assert_eq!(latency.load(&RULE, tick(0), 3, 1.0), 40e6);
    }

    #[test]
    fn scenario_19_two_in_flight_double_the_load_and_it_fades() {
        let rule = Rule { default: 20e6, window: 1e9 };
        let latency = Latency::new(&rule, tick(0));
        latency.learn(Evidence::Answered, 200_000_000, &rule, tick(200));
        assert_eq!(latency.load(&rule, tick(200), 1, 1.0), 400e6);
        assert_eq!(latency.load(&rule, tick(200), 0, 1.0), 200e6);
        assert!(latency.load(&rule, tick(1_200), 0, 1.0) < 100e6);
        assert!(latency.load(&rule, tick(11_200), 0, 1.0) < 0.1e6);
    }

    #[test]
    fn r4_each_failure_in_a_row_doubles_the_load_however_fast_it_was() {
        let latency = Latency::new(&RULE, tick(0));
        for (failures, expected) in [(1, 20e6), (2, 40e6), (3, 80e6)] {
            latency.learn(Evidence::Failed, 1_000_000, &RULE, tick(0));
            assert_eq!(latency.estimate(&RULE, tick(0)), expected, "{failures} failures");
        }
        for _ in 0..100 {
            latency.learn(Evidence::Failed, 1_000_000, &RULE, tick(0));
        }
        assert!(latency.estimate(&RULE, tick(0)) <= HIGHEST * 1.000_001);
    }

    #[test]
    fn an_abandoned_call_raises_and_never_lowers() {
        let latency = Latency::new(&RULE, tick(0));
        latency.learn(Evidence::Abandoned, 1_000_000, &RULE, tick(0));
        assert_eq!(latency.estimate(&RULE, tick(0)), 10e6);
        latency.learn(Evidence::Abandoned, 500_000_000, &RULE, tick(0));
        assert_eq!(latency.estimate(&RULE, tick(0)), 500e6);
    }
}
