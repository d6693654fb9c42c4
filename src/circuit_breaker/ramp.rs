//! [`Ramp`]: back to full traffic in steps, and how far a circuit has come on it.

use std::time::{Duration, Instant};

use crate::error::InvalidConfig;

/// How the admitted share grows from the probes to full traffic.
///
/// A callee that has just come back has cold caches, empty pools and a backlog: three probes find it well, and the full load
/// takes it down again. With a ramp, a circuit whose probes have shown that the callee is well does not close yet. It stays
/// half-open, and admits the [shares](Self::shares) one after the other, each for the time of a [step](Self::step). After the
/// last it closes, when a call asks; time alone moves it on.
///
/// The share is admitted without a draw: of every ten calls in a row exactly one at 10 %, the first of them. The others are
/// rejected. What the admitted ones show is judged by every rule that trips a closed
/// circuit, with the number of [`probes`](super::CircuitBreakerConfig::probes) as the minimum for the rates if that is less
/// than [`minimum_calls`](super::CircuitBreakerConfig::minimum_calls); what trips re-opens the circuit.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::Outcome;
/// use mainstay::circuit_breaker::{CircuitBreakerHandle, OpenTime, Ramp};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::builder("db")
///     .open_time(OpenTime::Constant(Duration::ZERO))
///     .probes(1)
///     .ramp(Ramp { shares: vec![0.25, 0.5], step: Duration::from_secs(60) })
///     .build_handle()?;
/// breaker.transition_to(mainstay::CircuitState::Open).expect("a closed circuit can be opened");
/// breaker.try_acquire().expect("a probe is due").record(Outcome::Success);
///
/// let admitted: Vec<bool> = (0..8).map(|_| breaker.try_acquire().is_ok()).collect();
/// assert_eq!(admitted, [true, false, false, false, true, false, false, false]);
/// assert_eq!(breaker.statistics().ramp_share, Some(0.25));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Ramp {
    /// The shares of calls that are admitted, step by step: at least one, each above 0.0 and below 1.0, and above the one
    /// before. Default: 0.1, 0.25 and 0.5.
    pub shares: Vec<f64>,
    /// How long each step lasts. Above zero. Default: 5 s, as long as a circuit is open by default.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub step: Duration,
}

/// How far a half-open circuit has come on its ramp. Pure, and the same for the same calls.
#[derive(Debug)]
pub(super) struct Climb {
    since: Instant,
    /// The step that `credit` belongs to.
    step: usize,
    /// What the calls of this step have saved up for the next admission, in parts of [`WHOLE`].
    credit: u64,
}

/// What one admission costs: a share of 1.
const WHOLE: u64 = 1 << 32;

// === impl Ramp ===

impl Default for Ramp {
    fn default() -> Self {
        Self { shares: vec![0.1, 0.25, 0.5], step: Duration::from_secs(5) }
    }
}

impl Ramp {
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        if self.shares.is_empty() {
            return Err(InvalidConfig::new("shares", &self.shares, "must have at least one step"));
        }
        let inside = self.shares.iter().all(|&share| share > 0.0 && share < 1.0);
        if !inside || !self.shares.is_sorted_by(|one, next| one < next) {
            let requirement = "must be above 0.0 and below 1.0, and each above the one before";
            return Err(InvalidConfig::new("shares", &self.shares, requirement));
        }
        if self.step.is_zero() {
            return Err(InvalidConfig::new("step", self.step, "must be above zero"));
        }
        Ok(())
    }
}

// === impl Climb ===

impl Climb {
    /// The first step begins `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, step: usize::MAX, credit: 0 }
    }

    /// Whether a call that asks `now` is admitted; `None` when the ramp is over.
    pub(super) fn admits(&mut self, ramp: &Ramp, now: Instant) -> Option<bool> {
        let step = self.step(ramp, now);
        let price = price(*ramp.shares.get(step)?);
        if step != self.step {
            self.step = step;
            // The first call of a step is admitted: where calls are rare, a step without one would show nothing.
            self.credit = WHOLE - price;
        }
        self.credit += price;
        let admitted = self.credit >= WHOLE;
        if admitted {
            self.credit -= WHOLE;
        }
        Some(admitted)
    }

    /// The share that is admitted `now`: 1.0 when the ramp is over.
    pub(super) fn share(&self, ramp: &Ramp, now: Instant) -> f64 {
        ramp.shares.get(self.step(ramp, now)).copied().unwrap_or(1.0)
    }

    /// When the present step ends; `None` when that is beyond the end of time.
    pub(super) fn step_ends(&self, ramp: &Ramp, now: Instant) -> Option<Instant> {
        let steps = u32::try_from(self.step(ramp, now)).ok()?.checked_add(1)?;
        self.since.checked_add(ramp.step.checked_mul(steps)?)
    }

    fn step(&self, ramp: &Ramp, now: Instant) -> usize {
        let steps = now.saturating_duration_since(self.since).as_nanos() / ramp.step.as_nanos().max(1);
        usize::try_from(steps).unwrap_or(usize::MAX)
    }
}

/// A share in parts of [`WHOLE`], rounded up, so that ten times a tenth are a whole.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
fn price(share: f64) -> u64 {
    ((share * WHOLE as f64).ceil() as u64).min(WHOLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
    fn climb() -> (Climb, Instant) {
        let now = Instant::now();
        (Climb::new(now), now)
    }

    fn ramp(shares: &[f64]) -> Ramp {
        Ramp { shares: shares.to_vec(), step: Duration::from_secs(5) }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        let field = |ramp: Ramp| ramp.validate().map_or_else(|error| error.field().to_owned(), |()| "valid".to_owned());
        assert_eq!(field(Ramp::default()), "valid");
        for shares in [&[][..], &[0.0], &[1.0], &[-0.1], &[f64::NAN], &[0.5, 0.5], &[0.5, 0.25], &[0.5, f64::NAN]] {
            assert_eq!(field(ramp(shares)), "shares", "{shares:?}");
        }
        assert_eq!(field(Ramp { step: Duration::ZERO, ..Ramp::default() }), "step");
    }

    #[test]
    fn of_every_ten_calls_exactly_one_at_ten_percent() {
        let ramp = ramp(&[0.1]);
        let (mut climb, now) = climb();
        for _ in 0..100_000 {
            let admitted: Vec<bool> = (0..10).map(|_| climb.admits(&ramp, now).unwrap()).collect();
            assert_eq!(admitted, [true, false, false, false, false, false, false, false, false, false]);
        }
    }

    #[test]
    fn a_step_that_lasts_for_ever_has_no_end() {
        let ramp = Ramp { shares: vec![0.5], step: Duration::MAX };
        let (mut climb, now) = climb();
        assert_eq!((climb.step_ends(&ramp, now), climb.admits(&ramp, now)), (None, Some(true)));
    }

    proptest! {
        #[test]
        fn the_admitted_share_is_never_off_by_a_call(share in 0.001_f64..0.999, calls in 1_u32..2_000) {
            let ramp = ramp(&[share]);
            let (mut climb, now) = climb();
            let admitted = (0..calls).filter(|_| climb.admits(&ramp, now) == Some(true)).count() as f64;
            let exact = f64::from(calls) * share;
            prop_assert!((admitted - exact).abs() <= 1.0, "{admitted} of {exact}");
        }
    }
}
