//! A peak-sensitive, exponentially weighted moving average in one atomic word.
//!
//! Why peak-sensitive: a plain average needs many samples to notice that an endpoint has stalled, and a stalled endpoint
//! gives few. Here a sample above the estimate replaces it at once, and a lower one pulls it down with the time constant
//! `window`: quick to distrust, slow to forgive. Between samples the estimate decays towards zero, so that an endpoint that
//! was given up is looked at again.
//!
//! With `w = exp(-elapsed / window)`:
//!
//! * read: `estimate * w`
//! * a sample above the decayed estimate: the sample
//! * any other sample: `estimate * w + sample * (1 - w)`
//!
//! The rule is that of Twitter's Finagle ("peak EWMA"); tower and linkerd use the same.

use super::sync::atomic::{AtomicU64, Ordering};

/// `exp(-x)` for `x >= 0`, with a relative error below 1e-5.
///
/// It is on the path of every pick, where the exact one costs several times as much and nothing is gained by it.
#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1022 by the check before")]
pub(crate) fn exp_neg(x: f64) -> f64 {
    let halvings = x * std::f64::consts::LOG2_E;
    // Beyond that nothing is left; of what is no number neither.
    if halvings >= 1022.0 || halvings.is_nan() {
        return 0.0;
    }
    let whole = halvings as i32;
    let rest = halvings - f64::from(whole);
    // 2^-rest on 0..1, exact at both ends (coefficients fitted for this crate).
    let fraction = 1.0 - rest * (0.693_055_78 - rest * (0.239_405_11 - rest * (0.053_126_81 - rest * 0.006_777_49)));
    fraction * f64::from_bits(u64::from((1023 - whole) as u32) << 52)
}

/// A value and the moment of its last change; a moment is a count of ticks since an epoch that the owner chose.
///
/// Ticks are 32 bits and wrap; see [`Tick`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ewma {
    value: f32,
    at: Tick,
}

/// A moment, in units of 2^16 ns (65.5 us) since some epoch, wrapping after 78 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

/// An [`Ewma`] that threads share.
///
/// A change is one compare-and-swap; it is repeated when another thread came between, so no peak is lost.
#[derive(Debug)]
pub(crate) struct AtomicEwma(AtomicU64);

// === impl Tick ===

impl Tick {
    const SHIFT: u32 = 16;

    /// How far back a reader's clock may lie behind a writer's: about 4 s. Beyond it, a moment "in the future" is one from
    /// before the wrap.
    const SKEW: u32 = u32::MAX - (1 << 16);

    /// The moment `since_epoch` nanoseconds after the epoch.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "ticks wrap, by design")]
    pub(crate) const fn new(since_epoch: u64) -> Self {
        Self((since_epoch >> Self::SHIFT) as u32)
    }

    /// Nanoseconds from `earlier` to here; 0 when `earlier` is slightly later (another thread's clock read).
    #[inline]
    fn since(self, earlier: Self) -> f64 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > Self::SKEW { 0.0 } else { f64::from(ticks) * f64::from(1_u32 << Self::SHIFT) }
    }
}

// === impl Ewma ===

impl Ewma {
    pub(crate) const fn new(value: f32, at: Tick) -> Self {
        Self { value, at }
    }

    /// Whether there is nothing to decay.
    #[inline]
    pub(crate) fn is_zero(self) -> bool {
        self.value == 0.0
    }

    /// The value as of its last change.
    #[inline]
    pub(crate) fn last(self) -> f64 {
        f64::from(self.value)
    }

    /// The value at `now`, with a window in nanoseconds.
    #[inline]
    pub(crate) fn at(self, now: Tick, window: f64) -> f64 {
        f64::from(self.value) * Self::weight(now.since(self.at), window)
    }

    /// Takes a sample: a higher one replaces the value, a lower one is averaged in.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "an estimate: 24 bits of it are plenty")]
    pub(crate) fn observe(self, sample: f64, now: Tick, window: f64) -> Self {
        let weight = Self::weight(now.since(self.at), window);
        let decayed = f64::from(self.value) * weight;
        let value = if sample > decayed { sample } else { decayed + sample * (1.0 - weight) };
        Self { value: value as f32, at: now }
    }

    /// Takes a lower bound: a higher one replaces the value, a lower one says nothing.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "an estimate: 24 bits of it are plenty")]
    pub(crate) fn at_least(self, bound: f64, now: Tick, window: f64) -> Self {
        if bound > self.at(now, window) { Self { value: bound as f32, at: now } } else { self }
    }

    #[inline]
    fn weight(elapsed: f64, window: f64) -> f64 {
        if window <= 0.0 {
            0.0
        } else if elapsed == 0.0 {
            // Within one tick, which is the common case under load.
            1.0
        } else {
            exp_neg(elapsed / window)
        }
    }

    #[inline]
    fn pack(self) -> u64 {
        u64::from(self.value.to_bits()) << 32 | u64::from(self.at.0)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of the word")]
    fn unpack(word: u64) -> Self {
        Self { value: f32::from_bits((word >> 32) as u32), at: Tick(word as u32) }
    }
}

// === impl AtomicEwma ===

impl AtomicEwma {
    pub(crate) fn new(start: Ewma) -> Self {
        Self(AtomicU64::new(start.pack()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Ewma {
        Ewma::unpack(self.0.load(Ordering::Relaxed))
    }

    /// Replaces the value by what `change` makes of it.
    #[inline]
    pub(crate) fn update(&self, change: impl Fn(Ewma) -> Ewma) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let after = change(Ewma::unpack(before)).pack();
            if after == before {
                return;
            }
            match self.0.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    pub(crate) fn store(&self, ewma: Ewma) {
        self.0.store(ewma.pack(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const S: f64 = 1e9;

    fn tick(ms: u64) -> Tick {
        Tick::new(ms * MS)
    }

    #[test]
    fn scenario_16_repeats_give_the_value_and_a_zero_window_passes_through() {
        let mut ewma = Ewma::new(10.0, tick(10)).observe(10.0, tick(10), S);
        assert_eq!(ewma.at(tick(10), S), 10.0);
        ewma = ewma.observe(10.0, tick(20), S);
        assert!((ewma.at(tick(20), S) - 10.0).abs() < 1e-3);

        let mut through = Ewma::new(0.0, tick(0));
        for (at, sample) in [(1, 10.0), (2, 20.0), (3, 30.0), (4, 0.0)] {
            through = through.observe(sample, tick(at), 0.0);
            assert_eq!(f64::from(through.value), sample);
        }
    }

    #[test]
    fn scenario_17_a_peak_counts_at_once_and_a_lower_sample_only_slowly() {
        let ewma = Ewma::new(100.0, tick(0)).observe(500.0, tick(10), S);
        assert_eq!(ewma.at(tick(10), S), 500.0);
        let later = ewma.observe(50.0, tick(20), S).at(tick(20), S);
        assert!((490.0..500.0).contains(&later), "{later}");
    }

    #[test]
    fn scenario_19_the_default_decays_with_the_time_constant() {
        let ewma = Ewma::new(10e6, tick(0));
        assert_eq!(ewma.at(tick(0), S), 10e6);
        assert!((9e6..10e6).contains(&ewma.at(tick(100), S)));
        assert!((8e6..9e6).contains(&ewma.at(tick(200), S)));
        let slow = Ewma::new(20e6, tick(0)).observe(200e6, tick(200), S);
        assert!(slow.at(tick(1_200), S) < 100e6);
        assert!(slow.at(tick(11_200), S) < 0.1e6);
    }

    #[test]
    fn a_lower_bound_only_ever_raises() {
        let ewma = Ewma::new(100.0, tick(0));
        assert_eq!(ewma.at_least(50.0, tick(0), S), ewma);
        assert_eq!(ewma.at_least(250.0, tick(0), S).at(tick(0), S), 250.0);
    }

    #[test]
    fn a_reader_slightly_behind_sees_no_decay_and_one_a_day_later_sees_all_of_it() {
        let ewma = Ewma::new(100.0, tick(1_000));
        assert_eq!(ewma.at(tick(990), S), 100.0);
        assert!(ewma.at(tick(24 * 3_600_000), S) < 1e-9);
    }

    proptest! {
        #[test]
        fn the_exponential_is_close_enough(x in 0.0_f64..600.0) {
            let (ours, exact) = (exp_neg(x), (-x).exp());
            prop_assert!((ours - exact).abs() <= 1e-5 * exact, "{ours} {exact}");
        }

        #[test]
        fn an_estimate_never_exceeds_its_highest_sample(
            start in 0.0_f32..1e9,
            samples in prop::collection::vec((0_u64..5_000, 0.0_f64..1e9), 1..50),
        ) {
            let mut ewma = Ewma::new(start, tick(0));
            let (mut at, mut highest) = (0, f64::from(start));
            for (gap, sample) in samples {
                at += gap;
                highest = highest.max(sample);
                ewma = ewma.observe(sample, tick(at), S);
                let value = ewma.at(tick(at), S);
                prop_assert!(value >= 0.0 && value <= highest * 1.0001, "{value} of at most {highest}");
            }
        }
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{every_order, join, spawn, with_interruptions};

    #[test]
    fn of_samples_at_once_the_peak_is_kept() {
        with_interruptions(2, || {
            let now = Tick::new(0);
            let average = Arc::new(AtomicEwma::new(Ewma::new(1.0, now)));
            let threads = [3.0, 9.0, 5.0].map(|sample| {
                let average = Arc::clone(&average);
                spawn(move || average.update(|ewma| ewma.observe(sample, now, 1e9)))
            });
            threads.into_iter().for_each(join);
            assert_eq!(average.load(), Ewma::new(9.0, now));
        });
    }

    #[test]
    fn of_changes_at_once_none_is_lost() {
        every_order(|| {
            let now = Tick::new(0);
            let phantoms = Arc::new(AtomicEwma::new(Ewma::new(0.0, now)));
            let threads = [1, 2].map(|times| {
                let phantoms = Arc::clone(&phantoms);
                spawn(move || {
                    for _ in 0..times {
                        phantoms.update(|ewma| ewma.observe(ewma.at(now, 1e9) + 1.0, now, 1e9));
                    }
                })
            });
            threads.into_iter().for_each(join);
            assert_eq!(phantoms.load(), Ewma::new(3.0, now));
        });
    }
}
