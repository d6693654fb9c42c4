//! Two random choices: pure.
//!
//! Why two: the better of two random endpoints has a load within O(log log n) of the mean (Mitzenmacher 2001), costs the
//! same whatever the number of endpoints, and does not send the whole fleet to the one that looks best, as "the least loaded
//! of all" does when its view is a moment old.

use crate::cores::random;

/// Two different places among `n`, each pair as likely as any other; `(0, 0)` for one place. One draw.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both are below `n`")]
pub(crate) const fn two_of(draw: u64, n: usize) -> (usize, usize) {
    if n < 2 {
        return (0, 0);
    }
    // The high half of the draw decides the first, the low half the second: pools have fewer than 2^32 endpoints.
    let first = (((draw >> 32) * n as u64) >> 32) as usize;
    let second = (((draw & 0xffff_ffff) * (n as u64 - 1)) >> 32) as usize;
    (first, if second >= first { second + 1 } else { second })
}

/// One place among `n`.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "below `n`")]
pub(crate) const fn one_of(draw: u64, n: usize) -> usize {
    random::below(draw, n as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cores::random::Random;

    #[test]
    fn scenario_20_a_range_of_one_gives_its_only_element() {
        assert_eq!(two_of(u64::MAX, 1), (0, 0));
    }

    #[test]
    fn every_ordered_pair_is_as_likely_as_any_other() {
        let mut random = Random::seeded(11);
        let mut counts = [[0_u32; 5]; 5];
        for _ in 0..200_000 {
            let (first, second) = two_of(random.draw(), 5);
            counts[first][second] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, count) in row.iter().enumerate() {
                if first == second {
                    assert_eq!(*count, 0);
                } else {
                    assert!((9_500..10_500).contains(count), "({first}, {second}): {count}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn scenario_20_the_two_are_always_different_and_in_range(draw: u64, n in 2_usize..100_000) {
            let (first, second) = two_of(draw, n);
            prop_assert!(first != second && first < n && second < n);
        }
    }
}
