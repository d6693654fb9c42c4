//! [`Permit`]: what a breaker admits a call with.

use std::fmt;

use super::breaker::Breaker;
use super::ending::Ending;
use super::shared::Ticket;
use crate::cores::striped_arc::StripedArc;
use crate::outcome::Outcome;

/// The admission of one call, from [`CircuitBreakerHandle::try_acquire`](super::CircuitBreakerHandle::try_acquire).
///
/// It is consumed by exactly one verdict: [`record`](Self::record), [`success`](Self::success) or [`failure`](Self::failure) gives
/// it, and so does dropping the permit, which says that
/// the call was abandoned (its caller left, a timeout fired). An abandoned call gives its slot back, and it is a call [without an
/// answer](crate::circuit_breaker#no-answer); what else it means is
/// [`abandoned_is_failure`](super::CircuitBreakerConfig::abandoned_is_failure). The permit knows which generation of the
/// breaker's state admitted it: a verdict that comes after the state has changed is counted in the statistics and changes
/// nothing else.
///
/// # Examples
///
/// ```
/// use mainstay::Outcome;
/// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
/// let permit = breaker.try_acquire().expect("a closed circuit admits");
/// permit.record(Outcome::Success);
/// drop(breaker.try_acquire());
/// assert_eq!((breaker.statistics().successes, breaker.statistics().abandoned), (1, 1));
/// # Ok(())
/// # }
/// ```
#[must_use = "a permit that is dropped counts as an abandoned call"]
pub struct Permit {
    /// Taken by the verdict.
    breaker: Option<StripedArc<Breaker>>,
    ticket: Ticket,
}

// === impl Permit ===

impl Permit {
    #[inline]
    pub(super) const fn new(breaker: StripedArc<Breaker>, ticket: Ticket) -> Self {
        Self { breaker: Some(breaker), ticket }
    }

    /// One that has had its verdict.
    #[inline]
    pub(super) const fn spent() -> Self {
        Self { breaker: None, ticket: Ticket::NONE }
    }

    /// The call is over, with this outcome. [`Ignored`](Outcome::Ignored) leaves open whether the callee answered; drop the
    /// permit of a call that was cut before an answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitBreakerHandle, Outcome};
    ///
    /// let breaker = CircuitBreakerHandle::builder("db").build_handle()?;
    /// breaker.try_acquire().expect("a closed circuit admits").record(Outcome::Transient);
    /// assert_eq!(breaker.statistics().failures, 1);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[inline]
    pub fn record(mut self, outcome: Outcome) {
        self.finish(outcome, Ending::of_outcome(outcome));
    }

    /// The call is over, with this outcome and in this way.
    #[inline]
    #[allow(dead_code, reason = "used by the families beside this one, each behind its feature")]
    pub(crate) fn record_ending(mut self, outcome: Outcome, ending: Ending) {
        self.finish(outcome, ending);
    }

    /// Abandons the call, which was answered in part or never sent: its end is no sign of a callee that does not answer.
    #[cold]
    #[allow(dead_code, reason = "used by the families beside this one, each behind its feature")]
    pub(crate) fn leave(mut self, ending: Ending) {
        if let Some(breaker) = self.breaker.take() {
            breaker.abandoned(self.ticket, ending);
        }
    }

    /// The call succeeded: [`record`](Self::record) with [`Outcome::Success`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerHandle;
    ///
    /// let breaker = CircuitBreakerHandle::builder("db").build_handle()?;
    /// breaker.try_acquire().expect("a closed circuit admits").success();
    /// assert_eq!(breaker.statistics().successes, 1);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[inline]
    pub fn success(self) {
        self.record(Outcome::Success);
    }

    /// The call failed, and `outcome` says how: it is what a refusal tells as the [cause](crate::CircuitOpen::cause). It is a
    /// failure whatever the outcome is, where [`record`](Self::record) would take some for healthy and others for no evidence.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{CircuitBreakerHandle, Outcome};
    ///
    /// let breaker = CircuitBreakerHandle::builder("db").consecutive_failures(2).build_handle()?;
    /// breaker.try_acquire().expect("a closed circuit admits").failure(Outcome::Permanent);
    /// // A 404 is an answer, but to this caller it is a failure.
    /// breaker.try_acquire().expect("a closed circuit admits").failure(Outcome::Refused);
    /// assert_eq!(breaker.try_acquire().unwrap_err().cause(), Some(Outcome::Refused));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn failure(mut self, outcome: Outcome) {
        self.failed(outcome);
    }

    /// Whether the call is a probe of a half-open circuit.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// assert!(!breaker.try_acquire().unwrap().is_probe());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.shared.is_probe(self.ticket))
    }

    #[inline(always)]
    pub(super) fn finish(&mut self, outcome: Outcome, ending: Ending) {
        let Some(breaker) = self.breaker.take() else { return };
        if !(outcome.is_success() && breaker.absorbs(&self.ticket)) {
            finish_otherwise(breaker, self.ticket, outcome, ending);
        }
    }

    /// Whether it has had its verdict.
    #[inline(always)]
    pub(super) const fn is_spent(&self) -> bool {
        self.breaker.is_none()
    }

    /// A panic came out of the call. In line, so that the permit need not be in memory for it.
    #[inline(always)]
    pub(super) fn panicked(&mut self) {
        self.failed(Outcome::Permanent);
    }

    #[inline(never)]
    fn failed(&mut self, outcome: Outcome) {
        if let Some(breaker) = self.breaker.take() {
            breaker.failed(self.ticket, outcome);
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            abandon(breaker, self.ticket);
        }
    }
}

#[inline(never)]
fn finish_otherwise(breaker: StripedArc<Breaker>, ticket: Ticket, outcome: Outcome, ending: Ending) {
    breaker.judged(ticket, outcome, ending);
}

/// Out of the way of permits that have had their verdict.
#[cold]
#[inline(never)]
fn abandon(breaker: StripedArc<Breaker>, ticket: Ticket) {
    breaker.abandoned(ticket, Ending::Abandoned);
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("breaker", &self.breaker).field("probe", &self.is_probe()).finish()
    }
}
