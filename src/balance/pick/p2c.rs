//! Two choices, of which one takes turns: pure.
//!
//! The first candidate comes from a weighted rotation, the second from a draw. The call goes to the first, unless its load is
//! clearly above that of the second. Endpoints that are equally fast therefore share the calls in exact proportion to their
//! weights, and a slow or loaded one passes its turns on.
//!
//! The rotation is a Weyl sequence: multiples of the golden ratio, modulo one, fall into every interval in proportion to its
//! length, with an error of a few calls whatever their number, and repeat no pattern that the caller's calls could fall in
//! step with. Each endpoint owns an interval as long as its share of the weights. The state of SplitMix64 is such a sequence,
//! and its output is the draw for the second candidate: one step of the state makes both.
//!
//! Why two and not all: the better of two has a load within O(log log n) of the mean (Mitzenmacher 2001), costs the same
//! whatever the number of endpoints, and does not send the whole fleet to the one that looks best, as "the least loaded of
//! all" does when its view is a moment old.

use crate::cores::random;

/// How many calls more than the second a candidate may have before it passes its turn on, in calls of the lighter of the two.
///
/// Below one call, so that two equal endpoints never differ by more than one; and high enough that the unevenness of turns
/// that are handed out one by one is not taken for load.
const TOLERANCE: f64 = 0.75;

/// The most turns that an endpoint is remembered to have passed on, or to have taken over.
pub(crate) const MOST_OWED: i32 = 8;

/// What is known of one of the two candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The latency of one call alone; 1.0 where it is not measured.
    pub(crate) latency: f64,
    /// Calls in flight and phantom calls, in proportion to the weight: as many as the lighter of the two would have.
    pub(crate) calls: f64,
    /// Turns that it passed on and has not got back; below zero, turns that it took over.
    pub(crate) owed: i32,
}

/// The upper ends of the intervals that endpoints of these weights own, in units of 2^-64; `None` where all are equal.
#[allow(clippy::cast_possible_truncation, reason = "a share of 2^64, less one")]
pub(crate) fn shares(weights: impl Iterator<Item = u32> + Clone) -> Option<Vec<u64>> {
    let mut rest = weights.clone();
    let first = rest.next()?;
    if rest.all(|weight| weight == first) {
        return None;
    }
    let total: u128 = weights.clone().map(u128::from).sum();
    let mut sum = 0_u128;
    let ends = weights.map(|weight| {
        sum += u128::from(weight);
        ((sum << 64) / total - 1) as u64
    });
    Some(ends.collect())
}

/// Two different places among `n`: the one whose turn it is in `state` of a Weyl sequence, and one that is drawn. Both go by
/// the shares, where there are some. `(0, 0)` for one place.
#[inline]
pub(crate) fn two_of(state: u64, n: usize, shares: Option<&[u64]>) -> (usize, usize) {
    if n < 2 {
        return (0, 0);
    }
    let draw = random::mix(state);
    let first = match shares {
        None => one_of(state, n),
        Some(ends) => owner(ends, state),
    };
    if let Some(ends) = shares {
        let second = owner(ends, draw);
        if second != first {
            return (first, second);
        }
    }
    // One of the others. By the low half of the draw: a heavy endpoint owns what the high half says.
    let second = one_of(draw << 32, n - 1);
    (first, if second >= first { second + 1 } else { second })
}

/// The place that owns the interval in which `at` lies.
#[inline]
fn owner(ends: &[u64], at: u64) -> usize {
    ends.partition_point(|end| *end < at)
}

/// Whether the candidate whose turn it is passes it on to the other.
///
/// It does when it would be the worse choice even if the other had [`TOLERANCE`] calls more. Within that tolerance it still
/// does if it has taken turns over from others and the other has passed turns on: so chance evens out in the long run.
#[inline]
pub(crate) fn passes_on(turn: Candidate, other: Candidate) -> bool {
    turn.latency * (turn.calls + 1.0) > other.latency * (other.calls + 1.0 + TOLERANCE)
        || (other.owed > turn.owed + 1
            && other.latency * (other.calls + 1.0) <= turn.latency * (turn.calls + 1.0 + TOLERANCE))
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

    /// The states of a rotation.
    fn states() -> impl Iterator<Item = u64> {
        (1_u64..).map(|turn| turn.wrapping_mul(random::GAMMA))
    }

    #[test]
    fn scenario_20_a_range_of_one_gives_its_only_element() {
        assert_eq!(two_of(u64::MAX, 1, None), (0, 0));
    }

    #[test]
    fn the_second_is_any_of_the_others_by_chance() {
        let mut random = Random::seeded(11);
        let mut counts = [[0_u32; 5]; 5];
        for _ in 0..200_000 {
            let (first, second) = two_of(random.draw(), 5, None);
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

    #[test]
    fn turns_follow_the_weights_within_a_few_calls_however_few_there_were() {
        let heavy_and_nine: Vec<u32> = [10].into_iter().chain([1; 9]).collect();
        for weights in [vec![100, 10], vec![1, 2], vec![1, 2, 3], heavy_and_nine, vec![3; 100], (1..=100).collect()] {
            let (n, shares) = (weights.len(), shares(weights.iter().copied()));
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0.0; n];
            for (turn, state) in (1_u32..=10_000).zip(states()) {
                counts[two_of(state, n, shares.as_deref()).0] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    let due = f64::from(turn) * f64::from(*weight) / f64::from(total);
                    assert!((count - due).abs() < 4.0, "{weights:?}: {count} of {due} after {turn}");
                }
            }
        }
    }

    #[test]
    fn equal_weights_need_no_shares_and_unequal_ones_own_all_there_is() {
        assert_eq!(shares([].into_iter()), None);
        assert_eq!(shares([7, 7, 7].into_iter()), None);
        assert_eq!(shares([1, 3].into_iter()), Some(vec![(1 << 62) - 1, u64::MAX]));
        assert_eq!(shares([u32::MAX, 1].into_iter()).unwrap()[1], u64::MAX);
        assert_eq!([0, (1 << 62) - 1, 1 << 62, u64::MAX].map(|at| owner(&[(1 << 62) - 1, u64::MAX], at)), [0, 0, 1, 1]);
    }

    const IDLE: Candidate = Candidate { latency: 1.0, calls: 0.0, owed: 0 };

    #[test]
    fn a_clearly_worse_candidate_passes_its_turn_on_and_an_equal_one_keeps_it() {
        assert!(!passes_on(IDLE, IDLE));
        let with = |calls| Candidate { calls, ..IDLE };
        assert!(!passes_on(with(0.7), IDLE) && passes_on(with(0.8), IDLE));
        assert!(!passes_on(with(30.7), with(30.0)) && passes_on(with(31.0), with(30.0)));
        assert!(!passes_on(IDLE, with(9.0)));
        let slow = |latency| Candidate { latency, ..IDLE };
        assert!(!passes_on(slow(1.7), IDLE) && passes_on(slow(1.8), IDLE));
        assert!(passes_on(Candidate { latency: 2.0, calls: 1.0, owed: 0 }, with(2.0)));
    }

    #[test]
    fn what_was_passed_on_is_given_back_unless_load_speaks_against_it() {
        let (creditor, debtor) = (Candidate { owed: 1, ..IDLE }, Candidate { owed: -1, ..IDLE });
        assert!(passes_on(debtor, creditor));
        assert!(!passes_on(creditor, debtor));
        assert!(!passes_on(IDLE, creditor), "one turn is within what turns differ by");
        assert!(!passes_on(debtor, Candidate { calls: 1.0, ..creditor }));
        assert!(!passes_on(debtor, Candidate { latency: 2.0, ..creditor }));
    }

    proptest! {
        #[test]
        fn scenario_20_the_two_are_always_different_and_in_range(
            state: u64,
            weights in prop::collection::vec(1_u32..1_000, 2..200),
        ) {
            let n = weights.len();
            for shares in [None, shares(weights.iter().copied())] {
                let (first, second) = two_of(state, n, shares.as_deref());
                prop_assert!(first != second && first < n && second < n);
            }
        }
    }
}
