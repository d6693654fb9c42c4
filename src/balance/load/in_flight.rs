//! Load by calls in flight, plus a fading phantom call for each that failed or was abandoned.

use super::Evidence;
use crate::cores::ewma::{AtomicEwma, Ewma, Tick};

/// Below this a penalty is forgotten, and reading it needs no clock any more.
const NEGLIGIBLE: f64 = 0.01;

/// The most phantom calls.
const MOST: f64 = 1e6;

/// The phantom calls of one endpoint.
#[derive(Debug)]
pub(crate) struct Penalty(AtomicEwma);

// === impl Penalty ===

impl Penalty {
    pub(crate) fn new() -> Self {
        Self(AtomicEwma::new(Ewma::new(0.0, Tick::new(0))))
    }

    /// Phantom calls. `now` is called only where there is a penalty.
    #[inline]
    pub(crate) fn phantoms(&self, window: f64, now: impl FnOnce() -> Tick) -> f64 {
        let penalty = self.0.load();
        if penalty.is_zero() { 0.0 } else { penalty.at(now(), window) }
    }

    /// What one more call costs here. `now` is called only where there is a penalty.
    pub(crate) fn load(&self, window: f64, now: impl FnOnce() -> Tick, in_flight: u32, per_weight: f64) -> f64 {
        (f64::from(in_flight) + 1.0 + self.phantoms(window, now)) * per_weight
    }

    /// Learns from a call that ended. `now` is asked only where there is something to learn.
    #[inline(always)]
    pub(crate) fn learn(&self, evidence: Evidence, window: f64, now: impl FnOnce() -> Tick) {
        match evidence {
            Evidence::Failed | Evidence::Abandoned => {
                let now = now();
                self.0.update(|penalty| penalty.observe((penalty.at(now, window) + 1.0).min(MOST), now, window));
            }
            Evidence::Answered if !self.0.load().is_zero() => {
                let now = now();
                self.0.update(|penalty| {
                    if penalty.at(now, window) < NEGLIGIBLE { Ewma::new(0.0, Tick::new(0)) } else { penalty }
                });
            }
            Evidence::Answered | Evidence::Inconclusive => {}
        }
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        self.0.store(Ewma::new(0.0, Tick::new(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: f64 = 1e9;

    fn tick(ms: u64) -> Tick {
        Tick::new(ms * 1_000_000)
    }

    fn load(penalty: &Penalty, ms: u64) -> f64 {
        penalty.load(WINDOW, || tick(ms), 0, 1.0)
    }

    #[test]
    fn without_failures_no_clock_is_read() {
        let penalty = Penalty::new();
        penalty.learn(Evidence::Answered, WINDOW, || unreachable!());
        assert_eq!(penalty.load(WINDOW, || unreachable!(), 4, 0.5), 2.5);
    }

    #[test]
    fn r4_failures_and_abandoned_calls_count_as_calls_in_flight_that_fade() {
        let penalty = Penalty::new();
        penalty.learn(Evidence::Failed, WINDOW, || tick(0));
        penalty.learn(Evidence::Abandoned, WINDOW, || tick(0));
        assert!((load(&penalty, 0) - 3.0).abs() < 1e-3);
        assert!((load(&penalty, 1_000) - 1.7358).abs() < 1e-3);
        penalty.learn(Evidence::Answered, WINDOW, || tick(9_000));
        assert_eq!(penalty.load(WINDOW, || unreachable!("forgotten"), 0, 1.0), 1.0);
    }
}
