//! One after the other, in proportion to weights: pure.
//!
//! Unequal weights are laid out once, when the set of endpoints changes, as a cycle of places; a pick is then one step of a
//! counter. The cycle is that of nginx's smooth weighted round robin: each step adds every weight to its endpoint's credit,
//! takes the richest (the first of equals) and charges it the sum of all. It gives exact shares in every cycle and spreads
//! each endpoint over it: weights 5, 1, 1 give `a a b a c a a`, not `a a a a a b c`.

/// The work that laying out one cycle may take: steps times endpoints.
const EXACT_WORK: u64 = 1 << 21;

/// The length to which longer cycles are shortened; each endpoint's share is then exact to `1 / CYCLE`, and at least that.
const CYCLE: u64 = 4096;

/// The cycle of places for these weights; `None` when all are equal and a plain counter does.
pub(crate) fn cycle(weights: &[u32]) -> Option<Vec<u32>> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total = sum(&weights);
    if total.saturating_mul(weights.len() as u64) > EXACT_WORK {
        let length = CYCLE.max(weights.len() as u64);
        for weight in &mut weights {
            *weight = scaled(*weight, length, total);
        }
        return Some(by_deadline(&weights));
    }
    Some(smooth(&weights))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "at most `length`"
)]
fn scaled(weight: i64, length: u64, total: u64) -> i64 {
    ((weight as u128 * u128::from(length) + u128::from(total / 2)) / u128::from(total)).max(1) as i64
}

#[allow(clippy::cast_sign_loss, reason = "weights are above zero")]
fn sum(weights: &[i64]) -> u64 {
    weights.iter().map(|weight| *weight as u64).sum()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "fewer than 2^32 endpoints and steps")]
fn smooth(weights: &[i64]) -> Vec<u32> {
    let total = sum(weights);
    let mut credits = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut richest = 0;
            for (place, weight) in weights.iter().enumerate() {
                credits[place] += weight;
                if credits[place] > credits[richest] {
                    richest = place;
                }
            }
            credits[richest] -= total as i64;
            richest as u32
        })
        .collect()
}

/// The same shares for what [`smooth`] would take too long over: each endpoint's turns at even distances.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "fewer than 2^32 endpoints and steps")]
fn by_deadline(weights: &[i64]) -> Vec<u32> {
    let mut turns: Vec<(f64, u32)> = Vec::new();
    for (place, weight) in weights.iter().enumerate() {
        turns.extend((0..*weight).map(|turn| ((turn as f64 + 0.5) / *weight as f64, place as u32)));
    }
    turns.sort_by(|one, other| one.0.total_cmp(&other.0));
    turns.into_iter().map(|(_, place)| place).collect()
}

const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(cycle: &[u32], n: usize) -> Vec<u32> {
        let mut counts = vec![0; n];
        cycle.iter().for_each(|place| counts[*place as usize] += 1);
        counts
    }

    #[test]
    fn equal_weights_need_no_cycle() {
        assert_eq!(cycle(&[]), None);
        assert_eq!(cycle(&[7]), None);
        assert_eq!(cycle(&[3; 128]), None);
    }

    #[test]
    fn scenario_2_each_of_128_weights_is_picked_exactly_that_often() {
        let weights: Vec<u32> = (1..=128).collect();
        let cycle = cycle(&weights).unwrap();
        assert_eq!(cycle.len(), 8_256);
        assert_eq!(counts(&cycle, 128), weights);
    }

    #[test]
    fn scenario_3_every_window_of_six_has_one_two_and_three_though_ties_go_to_the_first() {
        let cycle = cycle(&[1, 2, 3]).unwrap();
        for start in 0..6 {
            let window: Vec<u32> = (start..start + 6).map(|at| cycle[at % 6]).collect();
            assert_eq!(counts(&window, 3), [1, 2, 3]);
        }
    }

    #[test]
    fn scenario_7_five_one_one_is_interleaved() {
        assert_eq!(cycle(&[5, 1, 1]).unwrap(), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn scenario_11_and_r8_ninety_to_ten_is_a_cycle_of_ten_with_no_run_above_nine() {
        let cycle = cycle(&[90, 10]).unwrap();
        assert_eq!(counts(&cycle, 2), [9, 1]);
        let hundred: Vec<u32> = cycle.iter().copied().cycle().take(100).collect();
        assert_eq!(counts(&hundred, 2), [90, 10]);
        assert!(hundred.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap() <= 9);
    }

    #[test]
    fn a_cycle_that_would_be_too_long_is_shortened_and_leaves_nobody_out() {
        let weights: Vec<u32> = (1..=10_000).map(|at| at * 7 + 1).collect();
        let cycle = cycle(&weights).unwrap();
        assert!(cycle.len() < 3 * weights.len(), "{}", cycle.len());
        assert!(counts(&cycle, weights.len()).iter().all(|count| *count >= 1));

        let cycle = super::cycle(&[1_000_003, 2_000_003]).unwrap();
        let share = f64::from(counts(&cycle, 2)[1]) / cycle.len() as f64;
        assert!((share - 2.0 / 3.0).abs() < 1e-3, "{share}");
    }

    proptest! {
        #[test]
        fn shares_are_exact_whatever_the_weights(
            weights in prop::collection::vec(1_u32..20, 2..12),
        ) {
            if let Some(cycle) = cycle(&weights) {
                let divisor = weights.iter().copied().fold(0, gcd);
                let expected: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
                prop_assert_eq!(counts(&cycle, weights.len()), expected);
            }
        }
    }
}
