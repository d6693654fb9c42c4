//! [`Backoff`]: the pure core. Draws are arguments.

use std::time::Duration;

use super::{BackoffConfig, Delays, Growth, Jitter};
use crate::cores::random;
use crate::error::InvalidConfig;

/// A valid [`BackoffConfig`], ready to make delays.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::backoff::{BackoffConfig, Progress};
///
/// let backoff = BackoffConfig::exponential(Duration::from_secs(1)).build()?;
/// let mut progress = Progress::start();
/// // The draw decides where in the range: 0 is its lower end.
/// assert_eq!(backoff.next_delay(&mut progress, 0), Duration::ZERO);
/// assert_eq!(backoff.next_delay(&mut progress, 1 << 63), Duration::from_secs(1), "half of the second delay of 2 s");
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    config: BackoffConfig,
}

/// How far a sequence of delays has come: as small as a caller's own state should be.
///
/// # Examples
///
/// ```
/// use mainstay::backoff::Progress;
///
/// assert_eq!(Progress::start(), Progress::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many delays were made.
    made: u32,
    /// The last of them; the decorrelated sequence grows from it.
    last: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// The backoff of `config`.
    ///
    /// # Errors
    ///
    /// What [`BackoffConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::backoff::{Backoff, BackoffConfig};
    ///
    /// assert!(Backoff::new(BackoffConfig::default()).is_ok());
    /// ```
    pub fn new(config: BackoffConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Its settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::backoff::BackoffConfig;
    ///
    /// assert_eq!(BackoffConfig::default().build()?.config(), &BackoffConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub const fn config(&self) -> &BackoffConfig {
        &self.config
    }

    /// Whether every delay is zero: there is nothing to be worked out then.
    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    pub(crate) const fn never_waits(&self) -> bool {
        self.config.cap.is_zero()
            || (self.config.initial.is_zero() && !matches!(self.config.growth, Growth::Linear { .. }))
    }

    /// The delays, without end, drawn by a generator that differs from all others of the process.
    ///
    /// # Examples
    ///
    /// ```
    /// let backoff = mainstay::backoff::BackoffConfig::default().build()?;
    /// assert_ne!(backoff.delays().take(9).collect::<Vec<_>>(), backoff.delays().take(9).collect::<Vec<_>>());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn delays(&self) -> Delays {
        Delays::unseeded(*self)
    }

    /// The delays, without end; the same seed gives the same.
    ///
    /// # Examples
    ///
    /// ```
    /// let backoff = mainstay::backoff::BackoffConfig::default().build()?;
    /// let (one, other) = (backoff.delays_seeded(7), backoff.delays_seeded(7));
    /// assert!(one.zip(other).take(100).all(|(one, other)| one == other));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn delays_seeded(&self, seed: u64) -> Delays {
        Delays::seeded(*self, seed)
    }

    /// The next delay; `draw` is uniform over all 64-bit values.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::{BackoffConfig, Progress};
    ///
    /// let backoff = BackoffConfig::exponential(Duration::from_millis(20)).build()?;
    /// let mut progress = Progress::start();
    /// let (shortest, longest) = backoff.range(progress);
    /// let delay = backoff.next_delay(&mut progress, 7);
    /// assert!(shortest <= delay && delay <= longest);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn next_delay(&self, progress: &mut Progress, draw: u64) -> Duration {
        let (lowest, highest) = self.range(*progress);
        let delay = if lowest == highest { lowest } else { between(lowest, highest, random::unit(draw)) };
        progress.note(delay);
        delay
    }

    /// The shortest and the longest that the next delay can be.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::{BackoffConfig, Jitter, Progress};
    ///
    /// let backoff = BackoffConfig::exponential(Duration::from_secs(8)).with_jitter(Jitter::Proportional(0.5)).build()?;
    /// let (shortest, longest) = backoff.range(Progress::start());
    /// assert_eq!(shortest, Duration::from_secs(4));
    /// assert_eq!(longest, Duration::from_secs(10), "12 s, cut to the cap");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn range(&self, progress: Progress) -> (Duration, Duration) {
        let BackoffConfig { growth, initial, cap, jitter } = self.config;
        if growth == Growth::Decorrelated {
            let last = progress.last.max(initial);
            return (initial, last.saturating_mul(3).min(cap));
        }
        let delay = grown(growth, initial, progress.made).min(cap);
        jitter.range(delay, cap)
    }
}

// === impl Jitter ===

impl Jitter {
    /// The shortest and the longest that becomes of `delay`, which is at most `cap`.
    pub(crate) fn range(self, delay: Duration, cap: Duration) -> (Duration, Duration) {
        match self {
            Self::None => (delay, delay),
            Self::Full => (Duration::ZERO, delay),
            Self::Equal => (delay / 2, delay),
            Self::Proportional(fraction) => {
                let spread = scaled(delay, fraction);
                (delay.saturating_sub(spread), delay.saturating_add(spread).min(cap))
            }
        }
    }

    /// What becomes of `delay`, which is at most `cap`; `draw` is uniform over all 64-bit values.
    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    pub(crate) fn spread(self, delay: Duration, cap: Duration, draw: u64) -> Duration {
        let (lowest, highest) = self.range(delay, cap);
        if lowest == highest { lowest } else { between(lowest, highest, random::unit(draw)) }
    }

    /// Whether its fraction can be used.
    pub(crate) fn validate(self) -> Result<(), InvalidConfig> {
        match self {
            Self::Proportional(fraction) if !(fraction > 0.0 && fraction <= 1.0) => {
                Err(InvalidConfig::new("jitter", fraction, "must be above 0.0 and at most 1.0"))
            }
            _ => Ok(()),
        }
    }
}

// === impl Progress ===

impl Progress {
    /// No delay was made yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let start = mainstay::backoff::Progress::start();
    /// # let _ = start;
    /// ```
    #[must_use]
    pub const fn start() -> Self {
        Self { made: 0, last: Duration::ZERO }
    }

    /// One more delay was made.
    pub(crate) const fn note(&mut self, delay: Duration) {
        self.made = self.made.saturating_add(1);
        self.last = delay;
    }

    /// The delay made last; zero before the first.
    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    pub(crate) const fn last(&self) -> Duration {
        self.last
    }
}

/// The delay after `made` others, neither capped nor jittered.
fn grown(growth: Growth, initial: Duration, made: u32) -> Duration {
    match growth {
        Growth::Constant | Growth::Decorrelated => initial,
        Growth::Linear { step } => initial.saturating_add(step.saturating_mul(made)),
        Growth::Exponential { factor } => {
            // Beyond 2^31 any factor above 1 has long saturated.
            scaled(initial, factor.powi(i32::try_from(made).unwrap_or(i32::MAX)))
        }
        Growth::Fibonacci => initial.saturating_mul(fibonacci(made)),
    }
}

/// 1, 2, 3, 5, 8, ...; saturates at `made` = 46.
fn fibonacci(made: u32) -> u32 {
    let (mut this, mut next) = (1_u32, 2_u32);
    for _ in 0..made.min(64) {
        (this, next) = (next, this.saturating_add(next));
    }
    this
}

/// `duration * factor`, rounded to nanoseconds; `factor` is at least zero, and may be infinite.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "exact up to 2^53 ns (104 days), saturating above"
)]
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    // Multiplied by one, even a duration beyond 2^53 ns stays exact; and zero stays zero, whatever the factor.
    if duration.is_zero() || factor == 1.0 {
        return duration;
    }
    from_nanos((duration.as_nanos() as f64 * factor).round() as u128)
}

/// The point that lies `unit` (in `0.0..1.0`) of the way from `lowest` to `highest`.
pub(crate) fn between(lowest: Duration, highest: Duration, unit: f64) -> Duration {
    let width = highest.saturating_sub(lowest);
    // Rounding must not carry a draw beyond the upper end.
    lowest.saturating_add(scaled(width, unit)).min(highest.max(lowest))
}

/// Saturating at `Duration::MAX`.
#[allow(clippy::cast_possible_truncation, reason = "the remainder of a division by 10^9 fits 32 bits")]
fn from_nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    match u64::try_from(nanos / SECOND) {
        Ok(seconds) => Duration::new(seconds, (nanos % SECOND) as u32),
        Err(_) => Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(made: u32) -> Progress {
        Progress { made, last: Duration::ZERO }
    }

    fn exact(config: BackoffConfig) -> Backoff {
        config.with_jitter(Jitter::None).build().unwrap()
    }

    fn first(n: usize, backoff: Backoff) -> Vec<Duration> {
        backoff.delays_seeded(1).take(n).collect()
    }

    /// A draw of which [`random::unit`] makes `unit`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a unit is below 1")]
    fn draw(unit: f64) -> u64 {
        ((unit * (1_u64 << 53) as f64) as u64) << 11
    }

    /// R1.
    #[test]
    fn exponential_doubles_up_to_its_cap() {
        let backoff = exact(BackoffConfig::exponential(millis(100)).with_cap(SECOND));
        assert_eq!(first(5, backoff), [100, 200, 400, 800, 1000].map(millis));
    }

    /// Scenarios 2, 6, 10, 16, 17 and 22: the sequences of others, without their jitter.
    #[test]
    fn the_sequences_are_the_common_ones() {
        let capped = exact(BackoffConfig::exponential(millis(100)).with_cap(millis(100_000)));
        let mut expected: Vec<_> = (0..10).map(|n| millis(100 << n)).collect();
        expected.extend([millis(100_000); 3]);
        assert_eq!(first(13, capped), expected, "scenario 2");

        let by_ten = exact(BackoffConfig::exponential(millis(1)).with_cap(millis(10)));
        assert_eq!(first(6, by_ten), [1, 2, 4, 8, 10, 10].map(millis), "scenario 6");
        let thirty = exact(BackoffConfig::exponential(2 * SECOND).with_cap(30 * SECOND));
        assert_eq!(first(5, thirty), [2, 4, 8, 16, 30].map(Duration::from_secs), "scenario 6");

        let nanos = exact(BackoffConfig::exponential(Duration::from_nanos(1)));
        assert_eq!(first(14, nanos).last(), Some(&Duration::from_nanos(8192)), "scenario 10");
        let fibonacci = exact(BackoffConfig::fibonacci(Duration::from_nanos(1)));
        let expected = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610].map(Duration::from_nanos);
        assert_eq!(first(14, fibonacci), expected, "scenario 10");

        let thirty = exact(BackoffConfig::exponential(millis(30)).with_cap(20 * SECOND));
        assert_eq!(first(3, thirty), [30, 60, 120].map(millis), "scenario 17");
        assert_eq!(thirty.range(at(100_000)).1, 20 * SECOND, "scenario 17");

        let linear = exact(BackoffConfig::linear(millis(9), millis(30)).with_cap(millis(99)));
        assert_eq!(first(5, linear), [9, 39, 69, 99, 99].map(millis), "scenario 22");
        let two = exact(BackoffConfig::exponential(millis(2)));
        assert_eq!(first(5, two), [2, 4, 8, 16, 32].map(millis), "scenario 22");
    }

    /// Scenario 2: strictly increasing for 49 attempts by 1.5.
    #[test]
    fn an_uncapped_exponential_never_stands_still() {
        let growth = Growth::Exponential { factor: 1.5 };
        let config = BackoffConfig { growth, ..BackoffConfig::exponential(millis(100)) };
        let delays = first(49, exact(config.with_cap(Duration::MAX)));
        assert!(delays.windows(2).all(|pair| pair[0] < pair[1]));
        let truncated: Vec<_> = delays.iter().map(Duration::as_millis).take(5).collect();
        assert_eq!(truncated, [100, 150, 225, 337, 506]);
    }

    /// Scenarios 4 and 10.
    #[test]
    fn everything_saturates() {
        let doubling_day = exact(BackoffConfig::exponential(DAY).with_cap(Duration::MAX));
        assert_eq!(doubling_day.range(at(1000)).1, Duration::MAX);
        assert_eq!(exact(BackoffConfig::exponential(DAY).with_cap(2 * DAY)).range(at(1000)).1, 2 * DAY);
        for made in [0, 1, 45, 46, 47, 1000, u32::MAX] {
            for config in [
                BackoffConfig::linear(Duration::MAX, Duration::MAX),
                BackoffConfig::fibonacci(Duration::MAX),
                BackoffConfig::exponential(Duration::MAX),
                BackoffConfig::constant(Duration::MAX),
                BackoffConfig::decorrelated(Duration::MAX),
            ] {
                let backoff = config.with_cap(Duration::MAX).build().unwrap();
                let mut progress = Progress { made, last: Duration::MAX };
                assert!(backoff.next_delay(&mut progress, u64::MAX) <= Duration::MAX);
            }
        }
        let zero = exact(BackoffConfig::exponential(Duration::ZERO));
        assert_eq!(zero.range(at(u32::MAX)).1, Duration::ZERO, "zero times infinity is zero here");
    }

    /// Scenarios 4 and 8.
    #[test]
    fn proportional_jitter_spreads_evenly_around_the_delay() {
        let spread =
            |config: BackoffConfig, fraction| config.with_jitter(Jitter::Proportional(fraction)).build().unwrap();
        let quarter = spread(BackoffConfig::exponential(SECOND), 0.25);
        for (unit, expected) in [(0.0, 750), (0.4, 950), (0.6, 1050)] {
            assert_eq!(quarter.next_delay(&mut at(0), draw(unit)), millis(expected), "{unit}");
        }
        let linear = spread(BackoffConfig::linear(SECOND, SECOND), 0.25);
        for (unit, expected) in [(0.0, 2250), (0.4, 2850), (0.5, 3000), (0.6, 3150)] {
            assert_eq!(linear.next_delay(&mut at(2), draw(unit)), millis(expected), "{unit}");
        }
        let half = spread(BackoffConfig::constant(millis(100)).with_cap(SECOND), 0.5);
        for (unit, expected) in [(0.0, 50), (0.25, 75), (0.5, 100), (0.75, 125)] {
            assert_eq!(half.next_delay(&mut at(0), draw(unit)), millis(expected), "{unit}");
        }
    }

    /// Scenario 16: the upper ends are those of the sequence, the lower end of equal jitter is half of it.
    #[test]
    fn full_jitter_starts_at_zero_and_equal_jitter_at_half() {
        let config = BackoffConfig::exponential(millis(5)).with_cap(millis(100));
        let ranges = |jitter| -> Vec<_> {
            let backoff = config.with_jitter(jitter).build().unwrap();
            (0..7).map(|made| backoff.range(at(made))).collect()
        };
        let upper = [5, 10, 20, 40, 80, 100, 100].map(millis);
        assert_eq!(ranges(Jitter::Full), upper.map(|delay| (Duration::ZERO, delay)));
        assert_eq!(ranges(Jitter::Equal), upper.map(|delay| (delay / 2, delay)));
    }

    /// Scenarios 15 and 21 (the first delay of 21 is exact; here it is jittered like the others).
    #[test]
    fn grpc_backoffs_can_be_written_as_data() {
        let rpc = BackoffConfig::exponential(millis(100)).with_cap(millis(1200)).with_jitter(Jitter::Proportional(0.2));
        let rpc = rpc.build().unwrap();
        assert_eq!(rpc.range(at(0)), (millis(80), millis(120)));
        assert_eq!(rpc.range(at(1)), (millis(160), millis(240)));
        let growth = Growth::Exponential { factor: 1.6 };
        let connect = BackoffConfig { growth, ..BackoffConfig::exponential(SECOND) };
        let connect = connect.with_cap(144 * SECOND).with_jitter(Jitter::Proportional(0.2)).build().unwrap();
        assert_eq!(connect.range(at(1)), (millis(1280), millis(1920)));
        assert_eq!(connect.range(at(50)).1, 144 * SECOND);
    }

    /// R2: a peer draws up to 15 s here.
    #[test]
    fn no_delay_is_above_the_cap_in_ten_thousand_draws_and_draws_do_not_pile_up_at_it() {
        let cap = Duration::from_secs(10);
        let config = BackoffConfig::exponential(SECOND).with_cap(cap).with_jitter(Jitter::Proportional(0.5));
        let delays = first(10_000, config.build().unwrap());
        assert!(delays.iter().all(|&delay| delay <= cap));
        assert!(delays.iter().filter(|&&delay| delay == cap).count() < 10);
    }

    /// Scenario 22.
    #[test]
    fn decorrelated_delays_lie_between_the_start_and_three_times_the_last() {
        let (start, cap) = (millis(100), SECOND);
        let mut last = start;
        for delay in BackoffConfig::decorrelated(start).with_cap(cap).build().unwrap().delays_seeded(3).take(10_000) {
            assert!(delay >= start && delay <= cap.min(3 * last), "{delay:?} after {last:?}");
            last = delay;
        }
    }

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0_u64..1_000_000).prop_map(Duration::from_micros),
            any::<u64>().prop_map(Duration::from_nanos),
            any::<u64>().prop_map(Duration::from_secs),
        ]
    }

    fn any_config() -> impl Strategy<Value = BackoffConfig> {
        let growth = prop_oneof![
            Just(Growth::Constant),
            any_duration().prop_map(|step| Growth::Linear { step }),
            (1.0_f64..1e300).prop_map(|factor| Growth::Exponential { factor }),
            Just(Growth::Fibonacci),
            Just(Growth::Decorrelated),
        ];
        let jitter = prop_oneof![
            Just(Jitter::None),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            (0.001_f64..=1.0).prop_map(Jitter::Proportional)
        ];
        (growth, any_duration(), any_duration(), jitter).prop_map(|(growth, one, other, jitter)| {
            let jitter = if growth == Growth::Decorrelated { Jitter::None } else { jitter };
            BackoffConfig { growth, initial: one.min(other), cap: one.max(other), jitter }
        })
    }

    proptest! {
        #[test]
        fn whatever_the_settings_a_delay_lies_in_its_range_and_below_the_cap(
            config in any_config(), skip in 0_u32..2000, draws in prop::collection::vec(any::<u64>(), 1..20),
        ) {
            let backoff = config.build().unwrap();
            let mut progress = at(skip);
            for draw in draws {
                let (lowest, highest) = backoff.range(progress);
                let delay = backoff.next_delay(&mut progress, draw);
                prop_assert!(lowest <= delay && delay <= highest && delay <= config.cap);
            }
        }

        #[test]
        fn without_jitter_delays_never_shrink(config in any_config()) {
            prop_assume!(config.growth != Growth::Decorrelated);
            let delays: Vec<_> = exact(config).delays_seeded(0).take(100).collect();
            prop_assert!(delays.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }
}
