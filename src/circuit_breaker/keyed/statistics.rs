//! [`KeyedCircuitBreakerStatistics`]: what all breakers of a keyed one have counted together.

/// The counts of a keyed circuit breaker since it was built.
///
/// Those of calls are sums over all of its breakers: every key's, the shared one, and those that are gone. Each call is in
/// exactly one of the six, once it is over:
/// [`calls`](Self::calls) = successes + refused + failures + ignored + rejected + abandoned. Calls that a disabled breaker
/// admitted are in none.
///
/// # Examples
///
/// ```
/// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u64| Some(*shard)).build()?;
/// layer.handle().get_or_create(7).expect("there is room").force_open();
/// let statistics = layer.handle().statistics();
/// assert_eq!((statistics.keys, statistics.created, statistics.calls()), (1, 1, 0));
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedCircuitBreakerStatistics {
    /// Keys that have a breaker of their own now.
    pub keys: usize,
    /// Breakers made for keys. `created = keys + evicted + removed`, at rest.
    pub created: u64,
    /// Breakers evicted because they were idle.
    pub evicted: u64,
    /// Breakers removed by hand.
    pub removed: u64,
    /// Calls of keys for which there was no room, which the shared breaker judged.
    pub overflowed: u64,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that the callee answered, healthy as it is, with a no: `Refused` and `DependencyFailed`.
    pub refused: u64,
    /// Calls that failed; panics are among them.
    pub failures: u64,
    /// Calls that ended and say nothing about the callee.
    pub ignored: u64,
    /// Calls that a breaker refused.
    pub rejected: u64,
    /// Calls that were dropped before their end.
    pub abandoned: u64,
    /// How often a breaker would have opened while it was observing.
    pub would_have_opened: u64,
    /// Calls that an observing breaker admitted and would have rejected otherwise. They are in one of the other counts, too.
    pub would_have_rejected: u64,
}

// === impl KeyedCircuitBreakerStatistics ===

impl KeyedCircuitBreakerStatistics {
    /// Calls that have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::CircuitBreakerLayer::builder("shards").keyed(|shard: &u64| Some(*shard)).build()?;
    /// assert_eq!(layer.handle().statistics().calls(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.successes + self.refused + self.failures + self.ignored + self.rejected + self.abandoned
    }
}
