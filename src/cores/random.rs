//! Randomness: seedable where a result must be repeatable, per thread where it must only be cheap.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): 64
//! bits of state, every state a good one, five operations a draw. It is not for secrets.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The increment of SplitMix64: 2^64 divided by the golden ratio, made odd.
pub(crate) const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A seedable generator of 64-bit draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The same seed gives the same draws.
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator whose seed differs from every other's in this process.
    pub(crate) fn unseeded() -> Self {
        Self::seeded(fresh_seed())
    }

    /// The next draw, uniform over all 64-bit values.
    #[inline]
    pub(crate) const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }
}

/// The output function of SplitMix64, a bijection.
#[inline]
pub(crate) const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// A draw as a number in `0.0..1.0`, with 53 bits.
#[inline]
#[allow(clippy::cast_precision_loss, reason = "53 bits fit a f64 exactly")]
pub(crate) const fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// A draw as a number in `0..bound` (0 for a bound of 0), by the high half of the product (Lemire 2019, without the
/// rejection step: the bias is below `bound / 2^64`).
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the high half of a product of two 64-bit numbers has 64 bits")]
pub(crate) const fn below(draw: u64, bound: u64) -> u64 {
    ((draw as u128 * bound as u128) >> 64) as u64
}

/// A draw from this thread's own generator.
///
/// Per thread and never stored in a handle: handles that were cloned with their generator would repeat each other's draws
/// for ever.
#[inline]
pub(crate) fn thread_draw() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    STATE.with(|cell| {
        let mut state = cell.get();
        if state == 0 {
            state = fresh_seed() | 1;
        }
        state = state.wrapping_add(GAMMA);
        cell.set(state);
        mix(state)
    })
}

#[cold]
fn fresh_seed() -> u64 {
    static SEEDS: AtomicU64 = AtomicU64::new(0);
    // `RandomState` is the standard library's only source of entropy; the counter keeps two seeds of one process apart.
    mix(RandomState::new().hash_one(SEEDS.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_draws() {
        let (mut one, mut other) = (Random::seeded(7), Random::seeded(7));
        assert!((0..100).all(|_| one.draw() == other.draw()));
        assert_ne!(Random::seeded(7).draw(), Random::seeded(8).draw());
    }

    /// The first outputs for the seed 1234567, as published with the reference implementation.
    #[test]
    fn the_draws_are_those_of_splitmix64() {
        let mut random = Random::seeded(1_234_567);
        let draws: Vec<u64> = (0..3).map(|_| random.draw()).collect();
        assert_eq!(draws, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn unit_and_below_stay_in_their_ranges() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u64::MAX) < 1.0);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 0), 0);
    }

    #[test]
    fn two_threads_draw_differently() {
        let other = std::thread::spawn(thread_draw).join().unwrap();
        assert_ne!(thread_draw(), other);
    }
}
