//! From a value to a height, and the values at which a line is drawn across.

use std::time::Duration;

use crate::report::figures;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0 to 1.
    Share,
    /// Seconds, in powers of ten from the first to the second.
    Seconds(i32, i32),
    /// A count, in powers of ten up to this one; there is room for a 0.
    Count(i32),
}

// === impl Scale ===

impl Scale {
    pub(super) fn of_seconds(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), value| (least.min(value), most.max(value)));
        if least > most {
            return Self::Seconds(-3, 0);
        }
        let (from, to) = (power(least.log10().floor()), power(most.log10().ceil()));
        Self::Seconds(from, to.max(from + 1))
    }

    pub(super) fn of_counts(values: impl Iterator<Item = f64>) -> Self {
        Self::Count(power(values.fold(10.0, f64::max).log10().ceil()))
    }

    /// From 0 at the bottom to 1 at the top.
    pub(super) fn height(self, value: f64) -> f64 {
        let height = match self {
            Self::Share => value,
            Self::Seconds(from, to) => (value.log10() - f64::from(from)) / f64::from(to - from),
            Self::Count(to) => (1.0 + value).log10() / (1.0 + 10_f64.powi(to)).log10(),
        };
        height.clamp(0.0, 1.0)
    }

    /// The values of the grid, and what is written beside them.
    pub(super) fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Share => (0..=4).map(|quarter| (f64::from(quarter) / 4.0, format!("{} %", quarter * 25))).collect(),
            Self::Seconds(from, to) => (from..=to).map(|power| (10_f64.powi(power), power_of_seconds(power))).collect(),
            Self::Count(to) => {
                let powers = (0..=to).map(|power| (10_f64.powi(power), format!("1{}", zeros(power))));
                std::iter::once((0.0, "0".into())).chain(powers).collect()
            }
        }
    }

    /// For a person who points at it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and shares of one run")]
    pub(super) fn say(self, value: f64) -> String {
        match self {
            // Cut, as everywhere: 100 means all.
            Self::Share => figures::percent((value * 1_000_000.0) as u64, 1_000_000),
            Self::Seconds(..) => figures::time(Duration::try_from_secs_f64(value).unwrap_or_default()),
            Self::Count(_) => figures::count(value as u64),
        }
    }
}

/// Seconds between the marks of the time axis: at most 16 of them, at round seconds.
pub(super) fn time_step(total: f64) -> f64 {
    [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0]
        .into_iter()
        .find(|step| total / step <= 15.0)
        .unwrap_or((total / 15.0).ceil())
}

/// 1 ms, 10 ms, 100 ms, 1 s, 10 s.
fn power_of_seconds(power: i32) -> String {
    match power {
        ..-3 => format!("1{} µs", zeros(power + 6)),
        -3..0 => format!("1{} ms", zeros(power + 3)),
        _ => format!("1{} s", zeros(power)),
    }
}

fn zeros(power: i32) -> String {
    "0".repeat(usize::try_from(power).unwrap_or_default())
}

#[allow(clippy::cast_possible_truncation, reason = "logarithms of what a run can measure: microseconds and up")]
fn power(logarithm: f64) -> i32 {
    logarithm.clamp(-6.0, 12.0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_powers_of_ten_hold_all_values() {
        assert_eq!(Scale::of_seconds([0.002, 0.0, 3.1].into_iter()), Scale::Seconds(-3, 1));
        assert_eq!(Scale::of_seconds([0.01].into_iter()), Scale::Seconds(-2, -1));
        assert_eq!(Scale::of_seconds(std::iter::empty()), Scale::Seconds(-3, 0));
        assert_eq!(Scale::of_counts([3.0, 101.0].into_iter()), Scale::Count(3));
        assert_eq!(Scale::of_counts(std::iter::empty()), Scale::Count(1));
    }

    #[test]
    fn ticks_span_the_whole_height() {
        for scale in [Scale::Share, Scale::Seconds(-3, 1), Scale::Count(3)] {
            let heights: Vec<_> = scale.ticks().iter().map(|(value, _)| scale.height(*value)).collect();
            assert_eq!((heights.first(), heights.last()), (Some(&0.0), Some(&1.0)));
            assert!(heights.is_sorted());
        }
        let said: Vec<_> = Scale::Seconds(-4, 1).ticks().into_iter().map(|(_, said)| said).collect();
        assert_eq!(said, ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
    }

    #[test]
    fn the_time_axis_is_not_crowded() {
        assert_eq!([0.25, 15.0, 92.0, 3600.0, 90_000.0].map(time_step), [1.0, 1.0, 10.0, 300.0, 6_000.0]);
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(Scale::Share.say(0.999_99), "99.99 %");
        assert_eq!(Scale::Share.say(1.0), "100.00 %");
    }
}
