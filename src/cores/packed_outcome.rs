//! [`PackedOutcome`]: an outcome in one word, small enough to stand in every refusal.

use std::fmt;
use std::time::Duration;

use crate::outcome::Outcome;

/// An outcome, or none: its kind in four bits; the time of a throttled one in those above.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedOutcome(u64);

/// The bits of the kind.
const KIND_BITS: u32 = 4;
const KIND: u64 = (1 << KIND_BITS) - 1;
const THROTTLED: u64 = 5;

// === impl PackedOutcome ===

impl PackedOutcome {
    pub(crate) const NONE: Self = Self(0);
    /// The upper bits of the word that are always zero.
    pub(crate) const FREE_BITS: u32 = 3;

    pub(crate) const fn new(outcome: Option<Outcome>) -> Self {
        Self(match outcome {
            None => 0,
            Some(Outcome::Success) => 1,
            Some(Outcome::Refused) => 2,
            Some(Outcome::Transient) => 3,
            Some(Outcome::Permanent) => 4,
            Some(Outcome::Throttled { retry_after: None }) => THROTTLED,
            Some(Outcome::Throttled { retry_after: Some(after) }) => THROTTLED | pack_time(after) << KIND_BITS,
            Some(Outcome::DependencyFailed) => 6,
            Some(Outcome::Ignored) => 7,
            Some(Outcome::NotSent) => 8,
        })
    }

    pub(crate) const fn get(self) -> Option<Outcome> {
        Some(match self.0 & KIND {
            0 => return None,
            1 => Outcome::Success,
            2 => Outcome::Refused,
            3 => Outcome::Transient,
            4 => Outcome::Permanent,
            THROTTLED => Outcome::Throttled {
                retry_after: match (self.0 >> KIND_BITS).checked_sub(1) {
                    None => None,
                    Some(nanos) => Some(Duration::from_nanos(nanos)),
                },
            },
            6 => Outcome::DependencyFailed,
            7 => Outcome::Ignored,
            _ => Outcome::NotSent,
        })
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

impl fmt::Debug for PackedOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// One more than the nanoseconds, so that zero is "none"; the longest is 4.5 years.
#[allow(clippy::cast_possible_truncation, reason = "it is no more than the longest")]
const fn pack_time(time: Duration) -> u64 {
    const LONGEST: u128 = (u64::MAX >> KIND_BITS >> PackedOutcome::FREE_BITS) as u128;
    let nanos = time.as_nanos().saturating_add(1);
    if nanos > LONGEST { LONGEST as u64 } else { nanos as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_being_packed() {
        let outcomes = [
            None,
            Some(Outcome::Success),
            Some(Outcome::Refused),
            Some(Outcome::Transient),
            Some(Outcome::Permanent),
            Some(Outcome::Throttled { retry_after: None }),
            Some(Outcome::Throttled { retry_after: Some(Duration::ZERO) }),
            Some(Outcome::throttled(Duration::from_secs(3600))),
            Some(Outcome::DependencyFailed),
            Some(Outcome::Ignored),
            Some(Outcome::NotSent),
        ];
        for outcome in outcomes {
            assert_eq!(PackedOutcome::new(outcome).get(), outcome);
        }
        let longest = PackedOutcome::new(Some(Outcome::throttled(Duration::MAX))).get();
        assert!(longest.and_then(|outcome| outcome.retry_after()) > Some(Duration::from_secs(4 * 365 * 86_400)));
    }
}
