//! [`AtomicDuration`]: a duration in one word, without a division on either side.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::fmt;
use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};

/// The bits of the nanoseconds; a thousand million of them need 30.
const NANOS_BITS: u32 = 30;
const NANOS: u64 = (1 << NANOS_BITS) - 1;
const MAX_SECONDS: u64 = u64::MAX >> NANOS_BITS;

/// A duration that can be changed while it is read. Packed words compare as the durations do.
#[derive(Debug)]
pub(crate) struct AtomicDuration(AtomicU64);

/// A duration in one word, packed as in an [`AtomicDuration`]: what is kept for later and may never be needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedDuration(u64);

/// A duration, or none, in one word: packed as in an [`AtomicDuration`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaybeDuration(u64);

// === impl AtomicDuration ===

impl AtomicDuration {
    pub(crate) fn new(duration: Duration) -> Self {
        Self(AtomicU64::new(pack(duration)))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> PackedDuration {
        PackedDuration(self.0.load(order))
    }

    pub(crate) fn store(&self, duration: Duration, order: Ordering) {
        self.0.store(pack(duration), order);
    }
}

// === impl PackedDuration ===

impl PackedDuration {
    #[inline]
    pub(crate) const fn new(duration: Duration) -> Self {
        Self(pack(duration))
    }

    #[inline]
    pub(crate) const fn get(self) -> Duration {
        unpack(self.0)
    }

    #[inline]
    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for PackedDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

// === impl MaybeDuration ===

impl MaybeDuration {
    /// No packed duration is this word.
    pub(crate) const NONE: Self = Self(u64::MAX);
    pub(crate) const ZERO: Self = Self(0);

    pub(crate) const fn new(duration: Duration) -> Self {
        Self(pack(duration))
    }

    pub(crate) const fn get(self) -> Option<Duration> {
        if self.0 == Self::NONE.0 { None } else { Some(unpack(self.0)) }
    }

    /// What is left of `whole`, which is packed, after `part`; `None` if that is nothing.
    #[inline]
    pub(crate) const fn left(whole: u64, part: Duration) -> Option<Self> {
        /// The words between the last nanosecond of a second and the next second.
        const UNUSED: u64 = (1 << NANOS_BITS) - 1_000_000_000;
        // A clock that has been running for centuries wraps: that is not looked for.
        let part = part.as_secs() << NANOS_BITS | part.subsec_nanos() as u64;
        if whole <= part {
            return None;
        }
        let left = whole - part;
        let borrows = whole & NANOS < part & NANOS;
        Some(Self(if borrows { left - UNUSED } else { left }))
    }
}

impl From<Option<Duration>> for MaybeDuration {
    fn from(duration: Option<Duration>) -> Self {
        duration.map_or(Self::NONE, Self::new)
    }
}

impl fmt::Debug for MaybeDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_is_the_difference(
            whole in (0..MAX_SECONDS, 0..1_000_000_000_u32),
            part in (0..MAX_SECONDS, 0..1_000_000_000_u32),
            same_second in any::<bool>(),
        ) {
            let part = if same_second { (whole.0, part.1) } else { part };
            let (whole, part) = (Duration::new(whole.0, whole.1), Duration::new(part.0, part.1));
            let left = MaybeDuration::left(pack(whole), part).and_then(MaybeDuration::get);
            prop_assert_eq!(left, whole.checked_sub(part).filter(|left| !left.is_zero()));
        }
    }

    #[test]
    fn none_is_no_duration() {
        assert_eq!(MaybeDuration::NONE.get(), None);
        assert_eq!(MaybeDuration::new(Duration::MAX).get(), Some(Duration::from_secs(MAX_SECONDS)));
    }

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
