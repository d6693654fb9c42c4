//! [`AtomicDuration`]: a duration in one word, without a division on either side.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};

/// The bits of the nanoseconds; a thousand million of them need 30.
const NANOS_BITS: u32 = 30;
const NANOS: u64 = (1 << NANOS_BITS) - 1;
const MAX_SECONDS: u64 = u64::MAX >> NANOS_BITS;

/// A duration that can be changed while it is read. Packed words compare as the durations do.
#[derive(Debug)]
pub(crate) struct AtomicDuration(AtomicU64);

// === impl AtomicDuration ===

impl AtomicDuration {
    pub(crate) fn new(duration: Duration) -> Self {
        Self(AtomicU64::new(pack(duration)))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> Duration {
        unpack(self.0.load(order))
    }

    pub(crate) fn store(&self, duration: Duration, order: Ordering) {
        self.0.store(pack(duration), order);
    }
}

/// Seconds above, nanoseconds below: what is longer than 2^34 seconds, some 544 years, is as long as that.
pub(crate) const fn pack(duration: Duration) -> u64 {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos() as u64);
    if seconds > MAX_SECONDS { MAX_SECONDS << NANOS_BITS } else { seconds << NANOS_BITS | nanos }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "30 bits")]
pub(crate) const fn unpack(word: u64) -> Duration {
    Duration::new(word >> NANOS_BITS, (word & NANOS) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_and_compares_alike() {
        let durations = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(999_999_999),
            Duration::from_secs(1),
            Duration::new(86_400, 5),
            Duration::from_secs(MAX_SECONDS),
        ];
        assert!(durations.iter().all(|&duration| unpack(pack(duration)) == duration));
        assert!(durations.map(pack).is_sorted_by(|one, other| one < other));
        assert_eq!(unpack(pack(Duration::MAX)), Duration::from_secs(MAX_SECONDS));
    }
}
