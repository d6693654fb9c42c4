//! [`AdmissionMode`]: where a breaker says no.

/// What the service of a breaker says while the breaker refuses.
///
/// It concerns services alone. A [handle](super::CircuitBreakerHandle) refuses in both.
///
/// # Examples
///
/// ```
/// use mainstay::CircuitBreakerLayer;
/// use mainstay::circuit_breaker::AdmissionMode;
///
/// let layer = CircuitBreakerLayer::builder("db").admission(AdmissionMode::Gate).build()?;
/// assert_eq!(layer.handle().config().admission, AdmissionMode::Gate);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AdmissionMode {
    /// `poll_ready` is ready at once, and `call` refuses with an error. The right one unless something above chooses by
    /// readiness: nobody waits, and every refusal says why.
    #[default]
    Reject,
    /// `poll_ready` is pending until a call may be admitted. For something above that passes over what is not ready, or
    /// that fails fast: without it callers pile up in front of an open circuit.
    Gate,
}
